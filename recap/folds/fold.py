"""One training from examples to its folder: train, decode, score, write; on one device or many.

Texts of a fold shown to those who asked for them (``privacy.log_text``); to nobody else.

Cross-validation: the folds that are not yet finished, one after another, and their summary.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from recap.config import RunConfig
from recap.data.encode import EncodedExample
from recap.errors import RecapError
from recap.folds.merging import merge_models
from recap.folds.partition import FoldedRun, Setup, prepare
from recap.folds.results import (
    card_of,
    finished_scores,
    read_scores,
    track_summary,
    write_model_cards,
    write_predictions,
    write_scores,
    write_selection,
    write_summary,
)
from recap.folds.training import Training, settle_learning_rate
from recap.metrics.files import predictions_from_jsonl
from recap.models.engine.shared_prefix import BatchingChoice
from recap.models.export import Merged, save_model
from recap.records import Example, Message, Prediction, Scores, Summary
from recap.runs.build import build_tracker, model_settings
from recap.runs.folder import FoldFolder, RunFolder, locked, remove_models
from recap.runs.history import NoTracker, Tracker, selection_loss
from recap.system import processes as termination
from recap.system.processes import (
    environment,
    is_first_process,
    is_launched,
    limit_library_logging,
    run_processes,
    world_size,
)

N_SHOWN = 3
"""Examples of a fold that the console shows; a tracker gets all."""


@dataclass(frozen=True, kw_only=True)
class TextSample:
    """What a fold was asked and what it answered, as the console shows it."""

    name: str
    """The fold's."""
    prompt: tuple[Message, ...]
    """The first example's prompt as a whole; empty for systems that have none."""
    pairs: tuple[tuple[Example, Prediction], ...]
    """Some test examples, each with its answer."""


def tell_texts(
    config: RunConfig,
    folder: FoldFolder,
    examples: Sequence[Example],
    *,
    tracker: Tracker,
    tell: Callable[[TextSample], None],
    prompt: Callable[[Example], tuple[Message, ...]] = lambda example: (),
) -> None:
    """Pass a fold's dialogues and answers on, if ``privacy.log_text`` allows it.

    Args:
        config: The run's.
        folder: The fold's, with its predictions written.
        examples: Its test examples, in the order of the predictions.
        tracker: Gets all of them.
        tell: Gets a few for the console.
        prompt: What an example's prompt is.
    """
    if not config.privacy.log_text:
        return
    text = folder.predictions.read_text(encoding="utf-8")
    predictions = predictions_from_jsonl(text, source=str(folder.predictions))
    pairs = tuple(zip(examples, predictions, strict=True))
    tracker.log_texts(pairs)
    tell(TextSample(name=folder.path.name, prompt=prompt(examples[0]), pairs=pairs[:N_SHOWN]))


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
class FoldResult:
    """What became of one fold; ``scores`` is ``None`` for the final model (no test examples)."""

    name: str
    folder: FoldFolder
    scores: Scores | None
    seconds: float
    found: bool = False
    """Whether it was finished by an earlier process."""


class FoldListener:
    """Is told how a run goes; this one keeps silent."""

    def prepared(self, setup: FoldedRun) -> None:
        """Data are read, folds are drawn, prompts are encoded."""

    def training(self, plan: TrainingPlan) -> None:
        """A training is about to begin."""

    def rate_found(self, learning_rate: float, found_on: str) -> None:
        """A learning rate that was found, now or before, on the named fold is trained with."""

    def batched(self, choice: BatchingChoice, prefix: int | None) -> None:
        """It is settled how batches are laid out, and how many tokens they share."""

    def epoch_ended(self, epoch: int, select_loss: float | None, seconds: float) -> None:
        """One pass over the training examples is done (epochs count from 0)."""

    def texts(self, sample: TextSample) -> None:
        """A fold has answered, and its texts may be shown."""

    def fold_ended(self, result: FoldResult) -> None:
        """A fold is scored, or was found to be."""

    def merged(self, name: str, merged: Merged) -> None:
        """An adapter was merged onto its base, and the merged model took its place."""

    def ended(self, folder: RunFolder, summary: Summary, scores: Mapping[int, Scores]) -> None:
        """All folds that were asked for are done; ``scores`` holds every finished one."""


def train_fold(setup: Setup, index: int, listener: FoldListener) -> FoldResult:
    """Train, decode and score one fold, and write its folder.

    Every process of a training on several devices calls this; the first one writes.
    """
    fold, folder, name = setup.folds[index], setup.folder.fold(index), f"fold{index}"
    with recorded(setup, folder, name) as tracker:
        began = time.monotonic()
        train, test = setup.encoded(fold.train), setup.encoded(fold.test)
        max_epochs = setup.config.trainer.max_epochs
        listener.training(_plan(setup, name, train, test, max_epochs))
        rate = settle_learning_rate(setup, folder, train, on_found=listener.rate_found)
        training = Training(
            setup,
            folder,
            tracker,
            listener.epoch_ended,
            train=train,
            select=setup.encoded(fold.select),
            test=test,
            max_epochs=max_epochs,
            learning_rate=rate,
        )
        listener.batched(training.choice, training.data.prefix)
        _note_resume(setup, name, training)
        training.fit()
        trained = time.monotonic()
        selected_epoch = training.test()
        if selected_epoch:
            _save(training, setup, folder)
        scores = training.module.scores()
        tested = time.monotonic()
        if judges_selection(setup.config):
            training.judge_selection()
        # Whatever another process still has to read of the checkpoints, it has read now.
        training.barrier()
        ended = time.monotonic()
        if is_first_process():
            examples = setup.examples(fold.test)
            write_predictions(setup, index, training.module, examples)
            if judges_selection(setup.config):
                _write_selection(setup, index, training)
            setup.folder.update_manifest(
                device=training.device,
                encoding=dict(setup.encoding.counts),
                folds={
                    name: {
                        "selected_epoch": selected_epoch,
                        "select_loss": selection_loss(folder.history, selected_epoch),
                        # No prediction holds it: this is what scores.json is verified by.
                        "test_loss": scores.metrics["loss"],
                        "train_seconds": round(trained - began, 3),
                        "test_seconds": round(tested - trained, 3),
                        "selection_seconds": round(ended - tested, 3),
                        "environment": environment(),
                    }
                },
            )
            tell_texts(
                setup.config,
                folder,
                examples,
                tracker=tracker,
                tell=listener.texts,
                prompt=setup.task.messages,
            )
            write_scores(folder, scores)
        # Under torchrun every process reads what the first one has written.
        training.barrier()
        tracker.log_fold(scores)
    return FoldResult(name=name, folder=folder, scores=scores, seconds=ended - began)


def train_final(setup: Setup, listener: FoldListener) -> FoldResult:
    """Train one model on all examples, for the mean selected epoch of the finished folds.

    Every process of a training on several devices calls this; the first one writes.
    """
    folder = setup.folder.final
    with recorded(setup, folder, "final") as tracker:
        began = time.monotonic()
        # Written down first: folds that finish later must not change a training that is resumed.
        epochs = setup.folder.read_manifest().get("final", {}).get("epochs")
        epochs = epochs or _epochs_for_all(setup)
        if is_first_process():
            setup.folder.update_manifest(final={"epochs": epochs, "environment": environment()})
        examples = setup.encoding.examples
        listener.training(_plan(setup, "final", examples, (), epochs))
        rate = settle_learning_rate(setup, folder, examples, on_found=listener.rate_found)
        training = Training(
            setup,
            folder,
            tracker,
            listener.epoch_ended,
            train=examples,
            max_epochs=epochs,
            learning_rate=rate,
        )
        listener.batched(training.choice, training.data.prefix)
        _note_resume(setup, "final", training)
        training.fit()
        _save(training, setup, folder)
        training.barrier()
        seconds = time.monotonic() - began
        if is_first_process():
            setup.folder.update_manifest(final={"train_seconds": round(seconds, 3)})
        training.barrier()
        tracker.log_fold(None)
    return FoldResult(name="final", folder=folder, scores=None, seconds=seconds)


@contextmanager
def recorded(setup: FoldedRun, folder: FoldFolder, name: str) -> Iterator[Tracker]:
    """Keep other runs out of a fold while it is trained, and have the first process record it."""
    if not is_first_process():
        yield NoTracker()
        return
    with locked(folder.path):
        tracker = build_tracker(setup.config, setup.folder.path)
        tracker.start_fold(name)
        try:
            yield tracker
        except BaseException:
            tracker.abandon(preempted=termination.strongest_noted() > 0)
            raise


def judges_selection(config: RunConfig) -> bool:
    """Whether folds write selection.jsonl: the examples that select are not those reported."""
    return config.cv.protocol == "nested"


def _write_selection(setup: Setup, index: int, training: Training) -> None:
    examples = setup.examples(setup.folds[index].select)
    label_probabilities = training.module.label_probabilities
    if [example.id for example in examples] != [one.id for one in label_probabilities]:
        raise RecapError(
            "label probabilities came back in another order than the examples; report this"
        )
    labels = setup.task.labels
    rows = [dict(zip(labels, one.probabilities, strict=True)) for one in label_probabilities]
    write_selection(setup, index, examples, rows)


def _note_resume(setup: Setup, name: str, training: Training) -> None:
    """Write down in the manifest where a killed process is taken up, if it is."""
    resumed = training.resumes_at()
    if resumed is not None and is_first_process():
        entry = {"fold": name, "step": resumed[1], "at": resumed[0]}
        setup.folder.update_manifest(
            resumes=[*setup.folder.read_manifest().get("resumes", []), entry]
        )


def _epochs_for_all(setup: Setup) -> int:
    """Return the finished folds' mean selected epoch, ``trainer.max_epochs`` when there is none."""
    folds = setup.folder.read_manifest().get("folds", {})
    selected = [fold["selected_epoch"] for fold in folds.values()]
    return round(statistics.fmean(selected)) if selected else setup.config.trainer.max_epochs


def _plan(
    setup: Setup,
    name: str,
    train: Sequence[EncodedExample],
    test: Sequence[EncodedExample],
    max_epochs: int,
) -> TrainingPlan:
    return TrainingPlan(
        name=name,
        n_train=len(train),
        n_test=len(test),
        steps_per_epoch=-(-len(train) // setup.config.global_batch_size),
        longest_prompt=max(len(example.prompt) for example in (*train, *test)),
        max_epochs=max_epochs,
    )


def _save(training: Training, setup: Setup, folder: FoldFolder) -> None:
    save_model(
        training.module.model,
        training.tokenizer,
        folder.model,
        end_of_turn_id=setup.encoder.end_of_turn_id,
        pad_id=setup.encoder.pad_id,
        settings=model_settings(setup.config, setup.task),
        # Written again once there are scores; a kill leaves no model without a card.
        card=card_of(setup, folder),
    )


Part = int | Literal["final"]
"""A fold by its number, or the model on all data."""


def cross_validate(config: RunConfig, *, listener: FoldListener | None = None) -> Summary | None:
    """Run the unfinished folds that ``cv.fold`` asks for; return the summary of all finished ones.

    ``None`` when no fold is finished, which happens only for ``cv.fold=final`` in a fresh folder.
    On several devices each fold is trained by processes of its own, which import the script that
    calls this: its work has to stand under ``if __name__ == "__main__":``.

    Raises:
        UserError: When the configuration or the data are at fault.
    """
    listener = listener or FoldListener()
    setup = prepare(config)
    listener.prepared(setup)
    if config.cv.fold == "final":
        results = [_part(setup, "final", listener)]
        summary = write_summary(setup) if finished_scores(setup) else None
    else:
        wanted = range(config.cv.folds) if config.cv.fold == "all" else [config.cv.fold]
        results = [_part(setup, fold, listener) for fold in wanted]
        summary = write_summary(setup)
        if is_first_process():
            # Also of folds that were all found: an earlier call may have been killed before this.
            track_summary(setup, summary)
    if summary is not None:
        listener.ended(setup.folder, summary, finished_scores(setup))
    _merge(setup, results, listener)
    return summary


def fit_fold(config: RunConfig, fold: int, *, listener: FoldListener | None = None) -> Scores:
    """Train, decode and score one fold (unless finished), write its folder, return its scores.

    Raises:
        UserError: When the configuration or the data are at fault.
    """
    listener = listener or FoldListener()
    setup = prepare(config)
    result = _part(setup, fold, listener)
    _merge(setup, [result], listener)
    if result.found and is_first_process():
        # The process that finished it may have been killed before it wrote them.
        write_model_cards(setup)
    assert result.scores is not None
    return result.scores


def _part(setup: Setup, part: Part, listener: FoldListener) -> FoldResult:
    """Return a fold or the final model, as it was found or trained now, and tidy up after it."""
    result = _found(setup, part) or _trained(setup, part, listener)
    listener.fold_ended(result)
    if is_first_process():
        # There still when the process that finished the fold was killed right then.
        shutil.rmtree(result.folder.checkpoints, ignore_errors=True)
        remove_models(setup.folder, keep=setup.config.keep_models)
    return result


def _merge(setup: Setup, results: Sequence[FoldResult], listener: FoldListener) -> None:
    if setup.config.merge and is_first_process():
        merge_models(setup, [result.name for result in results], on_merged=listener.merged)


def _found(setup: Setup, part: Part) -> FoldResult | None:
    folder = setup.folder.part(part)
    scores = None
    if part == "final":
        if not folder.model.is_dir():
            return None
    elif folder.finished:
        scores = read_scores(folder)
    else:
        return None
    return FoldResult(name=folder.path.name, folder=folder, scores=scores, seconds=0.0, found=True)


def _trained(setup: Setup, part: Part, listener: FoldListener) -> FoldResult:
    trainer = setup.config.trainer
    n = world_size(trainer)
    if is_launched() or (n == 1 and trainer.strategy != "fsdp"):
        result = _train(setup, part, listener)
    else:
        result = _train_in_processes(setup, part, n, listener)
    if part != "final":
        write_summary(setup)
    return result


def _train(setup: Setup, part: Part, listener: FoldListener) -> FoldResult:
    if part == "final":
        return train_final(setup, listener)
    return train_fold(setup, part, listener)


def _train_in_processes(setup: Setup, part: Part, n: int, listener: FoldListener) -> FoldResult:
    folder = setup.folder.part(part)
    # Encoded once, not in every process.
    assert setup.encoding.examples
    began = time.monotonic()

    def told(name: str, values: tuple[Any, ...]) -> None:
        getattr(listener, name)(*values)

    run_processes(_one_process, setup, part, n=n, what=folder.path.name, on_message=told)
    scores = None if part == "final" else read_scores(folder)
    seconds = time.monotonic() - began
    return FoldResult(name=folder.path.name, folder=folder, scores=scores, seconds=seconds)


def _one_process(send: Any, setup: Setup, part: Part) -> None:
    """Train as one of several processes."""
    limit_library_logging()
    _train(setup, part, _Sender(send))


class _Sender(FoldListener):
    """Passes on what happens inside a fold to the process that started this one."""

    def __init__(self, send: Any) -> None:
        self._send = send

    def training(self, plan: TrainingPlan) -> None:
        self._send("training", plan)

    def rate_found(self, learning_rate: float, found_on: str) -> None:
        self._send("rate_found", learning_rate, found_on)

    def batched(self, choice: BatchingChoice, prefix: int | None) -> None:
        self._send("batched", choice, prefix)

    def texts(self, sample: TextSample) -> None:
        self._send("texts", sample)

    def epoch_ended(self, epoch: int, select_loss: float | None, seconds: float) -> None:
        self._send("epoch_ended", epoch, select_loss, seconds)
