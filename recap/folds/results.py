"""What folds come to, as files: predictions, scores, and the summary over the finished folds."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recap.config import result_options
from recap.data.folds import HASH_CHARACTERS
from recap.errors import DataError
from recap.folds.run import Run
from recap.metrics.files import (
    json_text,
    predictions_to_jsonl,
    scores_from_dict,
    scores_to_dict,
    summary_to_dict,
)
from recap.metrics.scores import argmax_disagreement, summarize, summary_markdown
from recap.models.export import CARD_FILE, is_adapter_folder
from recap.records import Example, Prediction, Scores, Summary, prediction_of
from recap.runs.build import build_tracker
from recap.runs.folder import FoldFolder, RunFolder, locked, read_config, read_prompted
from recap.runs.history import FinishedFolds, read_history
from recap.runs.model_card import CardFacts, model_card
from recap.system.files import write_atomic
from recap.system.processes import is_first_process
from recap.tasks.task import Task


def likeliest_predictions(
    task: Task,
    fold: int,
    examples: Sequence[Example],
    rows: Sequence[Mapping[str, float]],
    *,
    text: Callable[[str], str] = lambda label: "",
) -> list[Prediction]:
    """Return the likeliest label of each example as its prediction, whatever ``decoding`` is.

    Args:
        task: Whose labels they are.
        fold: Index of the fold.
        examples: In the order of the data.
        rows: How likely each label was held, a row an example; a label that is left out has 0.
        text: What stands for the raw answer that gave the label; nothing was generated.
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


def write_predictions(file: Path, predictions: Sequence[Prediction]) -> None:
    """Write predictions in the order of the data, for the eyes of the file's owner alone."""
    write_atomic(file, predictions_to_jsonl(predictions), private=True)


def write_scores(folder: FoldFolder, scores: Scores, predictions: Sequence[Prediction]) -> None:
    """Write a fold's scores.json, which says that the fold is finished.

    Beside the scores it holds ``argmax_disagreement`` of the fold's predictions, and the hashes of
    what the fold was made with.
    """
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
    options = result_options(read_config(folder.path), read_prompted(folder.path))
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


def track_summary(run: Run, summary: Summary) -> None:
    """Tell the run's tracker of the finished folds; it keeps nothing twice."""
    folders = {index: run.folder.fold(index) for index in summary.folds}
    build_tracker(run.config, run.folder.path, prompted=run.prompted).log_summary(
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
