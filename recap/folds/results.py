"""What folds come to, as files: predictions, scores, and the summary over the finished folds."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from recap.config import COMPARED, flatten, result_options
from recap.data.folds import HASH_CHARACTERS
from recap.errors import DataError, RecapError
from recap.folds.partition import FoldedRun, Run, Setup
from recap.metrics.files import (
    json_text,
    predictions_from_jsonl,
    predictions_to_jsonl,
    scores_from_dict,
    scores_to_dict,
    summary_to_dict,
)
from recap.metrics.scores import argmax_disagreement, score, summarize, summary_markdown
from recap.models.export import CARD_FILE, is_adapter_folder
from recap.models.module import ResponseModule
from recap.records import Example, Prediction, Scores, Summary
from recap.runs.build import build_tracker
from recap.runs.folder import FoldFolder, RunFolder, locked, read_config, read_prompted
from recap.runs.history import FinishedFolds, read_history
from recap.runs.model_card import CardFacts, model_card
from recap.system.files import write_atomic
from recap.system.processes import is_first_process
from recap.tasks.task import Task


class Statement(Protocol):
    """What a system answered to an example."""

    @property
    def label(self) -> str | None:
        """The label that was read; ``None`` where none could be."""

    @property
    def probabilities(self) -> Mapping[str, float] | None:
        """Those of the labels, where the system gives any."""

    @property
    def rationale(self) -> str | None:
        """The reason, where there is one."""

    @property
    def text(self) -> str:
        """The raw answer."""


def prediction_of(task: Task, example: Example, fold: int, said: Statement) -> Prediction:
    """Return a line of ``predictions.jsonl``."""
    return Prediction(
        id=example.id,
        session=example.session,
        fold=fold,
        task=task.name,
        gold=task.gold(example),
        label=said.label,
        probabilities=said.probabilities,
        rationale=said.rationale,
        text=said.text,
        parsed=said.label is not None,
    )


def write_predictions(
    setup: Setup, fold: int, module: ResponseModule, examples: Sequence[Example]
) -> Scores:
    """Write what the model answered to each test example, and return its scores.

    Raises:
        RecapError: When answers and examples, or the module's scores and those of the file, do not
            belong together.
    """
    task = setup.task
    predictions = []
    for example, generation in zip(examples, module.generations, strict=True):
        if example.id != generation.id:
            raise RecapError("answers came back in another order than the examples; report this")
        predictions.append(prediction_of(task, example, fold, generation.answer))
    text = predictions_to_jsonl(predictions)
    write_atomic(setup.folder.fold(fold).predictions, text, private=True)
    scores = module.scores()
    again = score(predictions, task=task.name, labels=task.labels, loss=scores.metrics["loss"])
    if again != scores:
        raise RecapError("scores differ from those of predictions.jsonl; report this")
    return scores


def write_selection(
    setup: FoldedRun,
    fold: int,
    examples: Sequence[Example],
    probabilities: Sequence[Mapping[str, float]],
) -> None:
    """Write how likely each label was held of the examples that selected a fold's epoch.

    The lines of selection.jsonl have the form of predictions.jsonl. Nothing was generated: ``text``
    is empty, and ``label`` the likeliest one, whatever ``decoding`` is.

    Args:
        setup: The run.
        fold: Index of the fold.
        examples: The selection examples that the task takes.
        probabilities: A row an example, in their order; a label that is left out has 0.
    """
    task = setup.task
    predictions = []
    for example, found in zip(examples, probabilities, strict=True):
        row = {label: found.get(label, 0.0) for label in task.labels}
        predictions.append(
            Prediction(
                id=example.id,
                session=example.session,
                fold=fold,
                task=task.name,
                gold=task.gold(example),
                label=max(row, key=lambda label: row[label]),
                probabilities=row,
                rationale=None,
                text="",
                parsed=True,
            )
        )
    text = predictions_to_jsonl(predictions)
    write_atomic(setup.folder.fold(fold).selection, text, private=True)


def write_scores(folder: FoldFolder, scores: Scores) -> None:
    """Write a fold's scores.json, which says that the fold is finished.

    Beside the scores it holds ``argmax_disagreement`` of the fold's predictions, which have to be
    written before, and the hashes of what the fold was made with.
    """
    text = folder.predictions.read_text(encoding="utf-8")
    predictions = predictions_from_jsonl(text, source=str(folder.predictions))
    also = {
        "argmax_disagreement": argmax_disagreement(predictions),
        "made_with": made_with(RunFolder(path=folder.path.parent)),
    }
    write_atomic(folder.scores, json_text({**scores_to_dict(scores), **also}))


def made_with(folder: RunFolder) -> dict[str, str]:
    """Return the hashes of a run's data, partition and result-changing options.

    A fold that was copied from another run, or an option that was changed in config.yaml, shows by
    them.
    """
    manifest = folder.read_manifest()
    options = result_options(read_config(folder.path))
    prompted = read_prompted(folder.path)
    if prompted:
        flat = flatten(prompted)
        options |= {key: flat.get(key) for key in COMPARED}
    return {
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


def finished_scores(setup: Run) -> dict[int, Scores]:
    """Return the scores of the finished folds, by index."""
    folders = {fold.index: setup.folder.fold(fold.index) for fold in setup.folds}
    return {index: read_scores(folder) for index, folder in folders.items() if folder.finished}


def write_summary(setup: Run) -> Summary:
    """Write and return the summary over the finished folds."""
    summary = summarize(finished_scores(setup), protocol=setup.config.cv.protocol)
    if is_first_process():
        write_atomic(setup.folder.summary, json_text(summary_to_dict(summary)))
        notes = setup.corpus.notes()
        write_atomic(setup.folder.summary_table, summary_markdown(summary, notes=notes))
        write_model_cards(setup)
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


def track_summary(
    setup: Run, summary: Summary, *, options: Mapping[str, Any] | None = None
) -> None:
    """Tell the run's tracker of the finished folds; it keeps nothing twice.

    Args:
        setup: The run.
        summary: That of its finished folds.
        options: As for :func:`recap.runs.build.build_tracker`.
    """
    folders = {index: setup.folder.fold(index) for index in summary.folds}
    build_tracker(setup.config, setup.folder.path, options=options).log_summary(
        FinishedFolds(
            summary=summary,
            scores={index: read_scores(folder) for index, folder in folders.items()},
            histories={index: read_history(folder.history) for index, folder in folders.items()},
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
    """Return what a finished fold's scores.json holds.

    Raises:
        DataError: When it cannot be read.
    """
    return scores_from_dict(_read_json(folder), source=str(folder.scores))


def _read_json(folder: FoldFolder) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(folder.scores.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"{folder.scores}: is not JSON; delete it to run this fold again"
        ) from error
    return found
