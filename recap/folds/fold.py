"""Fold after fold: each one that is not finished is locked, answered, written and scored.

How a fold's examples are answered is the system's affair: by a model that is tuned on the fold's
training examples (:mod:`recap.folds.tuned`), by one that is prompted, or by a baseline.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from recap.config import result_options
from recap.data.folds import HASH_CHARACTERS
from recap.errors import DataError
from recap.folds.run import Run
from recap.metrics.files import (
    Statement,
    json_text,
    prediction_of,
    predictions_to_jsonl,
    scores_from_dict,
    scores_to_dict,
    summary_to_dict,
)
from recap.metrics.scores import answer_counts, score, summarize, summary_markdown
from recap.models.engine.loss import BatchingChoice
from recap.models.export import CARD_FILE, Merged, is_adapter_folder
from recap.models.identity import digest_of
from recap.records import Example, Fold, Message, Prediction, Scores, Summary
from recap.runs.folder import (
    FoldFolder,
    RunFolder,
    locked,
    read_config,
    read_prompted,
    remove_models,
)
from recap.runs.history import FinishedFolds, Tracker, read_history
from recap.runs.model_card import CardFacts, model_card
from recap.system import processes
from recap.system.files import write_atomic
from recap.system.processes import environment, is_first_process, quiet_libraries
from recap.tasks.task import Task

N_SHOWN = 3
"""Examples of a fold that the console shows; a tracker gets all."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """The size of one training, as it is announced before it begins."""

    name: str
    n_train: int
    n_test: int
    steps_per_epoch: int
    longest_prompt: int
    """In tokens."""
    max_epochs: int


@dataclass(frozen=True, kw_only=True)
class FoldAnswers:
    """What a system answered to a fold's test examples, in their order."""

    predictions: Sequence[Prediction]
    selection: Sequence[Prediction] | None = None
    """On the examples that selected the epoch, for selection.jsonl; ``None``: no such file."""
    loss: float | None = None
    """Token mean of the gold answers, where the system has one."""
    prompt: tuple[Message, ...] = ()
    """That of the first test example, for systems that have prompts."""
    entries: Mapping[str, Any] = field(default_factory=dict)
    """What the manifest keeps of the run."""
    fold_entries: Mapping[str, Any] = field(default_factory=dict)
    """What it keeps of the fold."""
    barrier: Callable[[], None] = lambda: None
    """Waits until every process of the fold has come here."""


class FoldListener:
    """Is told how a run goes; this one keeps silent."""

    def prepared(self, run: Run, notes: Sequence[str]) -> None:
        """Data are read and folds are drawn; the notes are of who answers."""

    def training(self, plan: TrainingPlan) -> None:
        """A training is about to begin."""

    def rate_found(self, learning_rate: float, found_on: str) -> None:
        """A learning rate that was found, now or before, on the named fold is trained with."""

    def batched(self, choice: BatchingChoice, prefix: int | None) -> None:
        """It is settled how batches are laid out, and how many tokens they share."""

    def epoch_ended(self, epoch: int, select_loss: float | None, seconds: float) -> None:
        """One pass over the training examples is done (epochs count from 0)."""

    def prompting(self, name: str, *, calls: int, kept: int, n_shots: int) -> None:
        """A fold's prompts are about to be answered, but for those whose answers were kept."""

    def answered(self) -> None:
        """One more prompt has its answer."""

    def prompted(self, lost: Sequence[str]) -> None:
        """A fold's prompts are answered, or will not be: one of them failed.

        ``lost`` says what they lost to be short enough.
        """

    def texts(
        self, name: str, prompt: Sequence[Message], pairs: Sequence[tuple[Example, Prediction]]
    ) -> None:
        """A fold has answered, and its first prompt (if any) and some answers may be shown."""

    def fold_ended(self, folder: FoldFolder, scores: Scores | None, seconds: float | None) -> None:
        """A fold is scored, or was found to be: then ``seconds`` is ``None``.

        The final model has no test examples, hence no scores.
        """

    def merged(self, name: str, merged: Merged) -> None:
        """An adapter was merged onto its base, and the merged model took its place."""

    def ended(self, run: Run, summary: Summary, scores: Mapping[int, Scores]) -> None:
        """All folds that were asked for are done; ``scores`` holds every finished one."""


class System(Protocol):
    """Answers the examples of folds, each by what may be learned from its training examples."""

    @property
    def n_processes(self) -> int:
        """How many processes are started for each fold; 0: this one answers it."""

    def answer(self, fold: Fold, tracker: Tracker, listener: FoldListener) -> FoldAnswers:
        """Return the answers to a fold's test examples; every process of several calls this."""


def run_folds(run: Run, system: System, listener: FoldListener) -> Summary:
    """Run the unfinished folds that are asked for; return the summary of all finished ones."""
    for part in run.parts:
        assert part != "final"
        finish_fold(run, part, system, listener)
    summary = write_summary(run)
    if is_first_process():
        # Also of folds that were all found: an earlier call may have been killed before this.
        folders = {index: run.folder.fold(index) for index in summary.folds}
        histories = {index: read_history(folder.history) for index, folder in folders.items()}
        scores = {index: read_scores(folder) for index, folder in folders.items()}
        build_tracker(run).log_summary(
            FinishedFolds(summary=summary, scores=scores, histories=histories)
        )
    listener.ended(run, summary, finished_scores(run))
    return summary


def finish_fold(run: Run, index: int, system: System, listener: FoldListener) -> Scores:
    """Return a fold's scores, found or made now, and tidy up after it."""
    folder, began = run.folder.fold(index), time.monotonic()
    found = folder.finished
    if not found:
        in_processes(
            answer_fold, run, index, system, n=system.n_processes, folder=folder, listener=listener
        )
        write_summary(run)
    scores = read_scores(folder)
    end_part(run, folder, listener, scores, None if found else time.monotonic() - began)
    return scores


def answer_fold(run: Run, index: int, system: System, listener: FoldListener) -> None:
    """Have a fold answered, write the answers, score them, and write the scores.

    Every process of a training on several devices calls this; the first one writes.
    """
    fold, folder = run.folds[index], run.folder.fold(index)
    with recorded(run, folder) as tracker:
        answers = system.answer(fold, tracker, listener)
        examples = run.examples(fold.test)
        labels = run.task.labels
        scores = score(answers.predictions, task=run.task.name, labels=labels, loss=answers.loss)
        if is_first_process():
            write_predictions(folder.predictions, answers.predictions)
            if answers.selection is not None:
                write_predictions(folder.selection, answers.selection)
            entry = {**answers.fold_entries, "environment": environment()}
            run.folder.update_manifest(**answers.entries, folds={folder.path.name: entry})
            if run.config.privacy.log_text:
                pairs = tuple(zip(examples, answers.predictions, strict=True))
                tracker.log_texts(pairs)
                listener.texts(folder.path.name, answers.prompt, pairs[:N_SHOWN])
            write_scores(folder, scores, answers.predictions)
        # Under torchrun every process reads what the first one has written.
        answers.barrier()
        tracker.log_fold(scores)


def build_tracker(run: Run) -> Tracker:
    """Return what is told of the run beside the run folder's own files."""
    config = run.config
    if config.logger.name != "wandb":
        return Tracker()
    from recap.runs.wandb import WandbTracker

    return WandbTracker(
        folder=run.folder.path,
        group=config.run,
        project=config.logger.project,
        mode=config.logger.mode,
        options=result_options(config, run.prompted),
    )


@contextmanager
def recorded(run: Run, folder: FoldFolder) -> Iterator[Tracker]:
    """Keep other runs out of a fold while it is answered, and have the first process record it."""
    if not is_first_process():
        yield Tracker()
        return
    with locked(folder.path):
        tracker = build_tracker(run)
        tracker.start_fold(folder.path.name)
        try:
            yield tracker
        except BaseException:
            tracker.abandon(preempted=processes.strongest_noted() > 0)
            raise


def end_part(
    run: Run,
    folder: FoldFolder,
    listener: FoldListener,
    scores: Scores | None,
    seconds: float | None,
) -> None:
    """Tell of a fold or the final model, and delete what it has no more use for."""
    listener.fold_ended(folder, scores, seconds)
    if is_first_process():
        # There still when the process that finished the fold was killed right then.
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
        remove_models(run.folder, keep=run.config.keep_models)


def in_processes(
    work: Callable[..., None],
    *arguments: Any,
    n: int,
    folder: FoldFolder,
    listener: FoldListener,
) -> None:
    """Do the work of one fold in ``n`` processes that are started for it; in this one for 0.

    It is called with the arguments, which are sent to the processes, and a listener; ours is told
    what happens in the first of them.
    """
    if n == 0:
        work(*arguments, listener)
        return

    processes.run_processes(
        _one_process,
        work,
        arguments,
        n=n,
        what=folder.path.name,
        on_message=lambda name, values: getattr(listener, name)(*values),
    )


def _one_process(send: Any, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Work as one of several processes."""
    with quiet_libraries():
        work(*arguments, _Sender(send))


class _Sender(FoldListener):
    """Passes on what happens inside a fold to the process that started this one."""

    def __init__(self, send: Any) -> None:
        for name in ("training", "rate_found", "batched", "texts", "epoch_ended"):
            setattr(self, name, partial(send, name))


def likeliest_predictions(
    task: Task,
    fold: int,
    examples: Sequence[Example],
    rows: Sequence[Mapping[str, float]],
    *,
    text: Callable[[str], str] = lambda label: "",
) -> list[Prediction]:
    """Return the likeliest label of each example as its prediction, whatever ``decoding`` is.

    ``rows`` say how likely each label was held, a row an example; a label that is left out has 0.
    ``text`` stands for the raw answer that gave the label; nothing was generated.
    """
    predictions = []
    for example, found in zip(examples, rows, strict=True):
        row = {label: found.get(label, 0.0) for label in task.labels}
        label = max(row, key=lambda name: row[name])
        line = prediction_of(example, None, task=task.name, gold=task.gold(example), fold=fold)
        predictions.append(
            replace(line, label=label, probabilities=row, text=text(label), parsed=True)
        )
    return predictions


def predictions_of(
    task: Task, fold: int, examples: Sequence[Example], answers: Sequence[Statement]
) -> list[Prediction]:
    """Return what was said of the examples of a fold, in their order."""
    return [
        prediction_of(example, said, task=task.name, gold=task.gold(example), fold=fold)
        for example, said in zip(examples, answers, strict=True)
    ]


def write_predictions(file: Path, predictions: Sequence[Prediction]) -> None:
    """Write predictions in the order of the data, for the eyes of the file's owner alone."""
    write_atomic(file, predictions_to_jsonl(predictions), private=True)


def write_scores(folder: FoldFolder, scores: Scores, predictions: Sequence[Prediction]) -> None:
    """Write a fold's scores.json, which says that the fold is finished.

    Beside the scores it holds the :func:`answer_counts` of the fold's predictions, and the hashes
    of what the fold was made with.
    """
    also = {
        **answer_counts(predictions),
        "made_with": made_with(RunFolder(path=folder.path.parent)),
    }
    write_atomic(folder.scores, json_text({**scores_to_dict(scores), **also}))


def made_with(folder: RunFolder) -> dict[str, str]:
    """Return the hashes of a run's data, partition, backbone and result-changing options.

    A fold that was copied from another run, or an option that was changed in config.yaml, shows by
    them.
    """
    manifest = folder.read_manifest()
    options = result_options(read_config(folder.path), read_prompted(folder.path))
    files = manifest.get("backbone_files")
    return {
        **({"backbone_hash": digest_of(files)} if files else {}),
        **{name: manifest[name] for name in ("data_hash", "partition_hash") if name in manifest},
        "configuration_hash": _hash(json.dumps(options, sort_keys=True, default=str)),
        # Another version may have other options, and so another hash of the same run.
        "options_hash": _hash("\n".join(sorted(options))),
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_CHARACTERS]


def read_made_with(folder: FoldFolder) -> dict[str, str]:
    """Return what a fold's scores.json says that it was made with; nothing in earlier versions."""
    found: dict[str, str] = _read_json(folder).get("made_with", {})
    return found


def read_cut(folder: FoldFolder) -> int:
    """Return how many of a finished fold's answers were cut off inside a thought."""
    return int(_read_json(folder).get("cut_in_thought", 0))


def finished_scores(run: Run) -> dict[int, Scores]:
    """Return the scores of the finished folds, by index."""
    folders = {fold.index: run.folder.fold(fold.index) for fold in run.folds}
    return {index: read_scores(folder) for index, folder in folders.items() if folder.finished}


def write_summary(run: Run) -> Summary:
    """Write and return the summary over the finished folds."""
    summary = summarize(finished_scores(run), protocol=run.config.cv.protocol)
    if is_first_process():
        write_atomic(run.folder.summary, json_text(summary_to_dict(summary)))
        notes = run.corpus.notes()
        write_atomic(run.folder.summary_table, summary_markdown(summary, notes=notes))
        write_model_cards(run)
    return summary


def write_model_cards(run: Run) -> None:
    """Write the cards of all models that a run has kept, with the scores of its finished folds.

    A model that another process is writing has its card already, and gets its scores by that
    process.
    """
    finished = [fold.index for fold in run.folds if run.folder.fold(fold.index).finished]
    folders = [run.folder.final, *map(run.folder.fold, finished)]
    # Together with what deletes models: a card must not bring back the folder of one.
    with locked(run.folder.path, wait=True):
        for folder in folders:
            if folder.model.is_dir():
                _replace_card(folder.model / CARD_FILE, card_of(run, folder))


def card_of(run: Run, folder: FoldFolder) -> str:
    """Return the card of the model of a fold, or of the final model, as far as is known by now."""
    name, manifest = folder.path.name, run.folder.read_manifest()
    scores = finished_scores(run)
    fold = next((f for f in run.folds if run.folder.fold(f.index) == folder), None)
    entry = manifest.get("folds", {}).get(name, {}) if fold else manifest.get("final", {})
    if fold is None:
        parts = {"train": tuple(i for f in run.folds for i in f.test)}
    else:
        parts = {"train": fold.train, "select": fold.select, "test": fold.test}
    shared = next((f for f in run.leakage["folds"] if fold and f["fold"] == fold.index), None)
    adapter = run.config.finetune.method in ("lora", "qlora")
    if folder.model.is_dir():
        adapter = is_adapter_folder(folder.model)
    return model_card(
        CardFacts(
            part=name,
            config=run.config,
            task=run.task,
            synthetic=run.corpus.synthetic,
            counts={part: _labels_of(run, indices) for part, indices in parts.items()},
            leakage=shared,
            scores=scores.get(fold.index) if fold else None,
            summary=summarize(scores, protocol=run.config.cv.protocol) if scores else None,
            selected_epoch=entry.get("selected_epoch" if fold else "epochs"),
            learning_rate=manifest.get("learning_rate", {}).get("used"),
            adapter=adapter,
        )
    )


def _labels_of(run: Run, indices: Sequence[int]) -> Counter[str]:
    examples = (run.corpus.examples[i] for i in indices)
    return Counter(run.task.gold(example) for example in examples if run.task.select(example))


def _replace_card(file: Path, text: str) -> None:
    try:
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            write_atomic(file, text, create=False)
    except FileNotFoundError:
        # The model is being merged at this moment, and its card is written again afterwards.
        return


def read_scores(folder: FoldFolder) -> Scores:
    """Return what a finished fold's scores.json holds; a ``DataError`` where it cannot be read."""
    return scores_from_dict(_read_json(folder), source=str(folder.scores))


def _read_json(folder: FoldFolder) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(folder.scores.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"{folder.scores}: is not JSON; delete it to run this fold again"
        ) from error
    return found
