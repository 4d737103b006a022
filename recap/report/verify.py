"""Every number of a run computed again from its predictions, and compared with what is recorded.

The arithmetic is the one that wrote the files, so that figures are compared bit for bit, without a
tolerance. Of the loss, which no prediction holds, two records are compared: that of ``scores.json``
and that of ``manifest.json``.

Predictions must also be what the run's system can have answered, by the rules that each must keep.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, NoReturn

from recap.config import RunConfig
from recap.errors import DataError, VerificationError, quote_id, quote_label
from recap.folds.fold import made_with
from recap.metrics.files import predictions_from_jsonl, scores_to_dict, summary_to_dict
from recap.metrics.scores import answer_counts, score, summarize, summary_markdown
from recap.records import Prediction, Scores
from recap.runs.folder import RunFolder, read_config
from recap.runs.history import selection_loss
from recap.tasks.library import build_task
from recap.tasks.task import Task

SUM_TOLERANCE = 1e-5
"""How far probabilities may be from adding up to 1: they are kept to 6 significant digits."""


def check_predictions(
    file: Path,
    predictions: Sequence[Prediction],
    fold: int,
    config: RunConfig,
    task: Task,
    manifest: Mapping[str, Any],
) -> None:
    """Check each prediction of a fold by itself, and that none was shown solved in the prompts.

    Raises:
        VerificationError: At the first fault, naming file, line and field.
    """
    remote = manifest.get("system", {}).get("client", "local") != "local"
    shots = set(manifest.get("folds", {}).get(f"fold{fold}", {}).get("shots", ()))
    for line, prediction in enumerate(predictions, start=1):
        where = f"{file}:{line}: id {quote_id(prediction.id)}"
        fault = (
            _fault(prediction, fold, task)
            or _fault_of_probabilities(prediction, task)
            or _fault_of_answer(prediction, config, task, remote=remote)
        )
        if fault is not None:
            raise VerificationError(f"{where}: {fault}")
        if prediction.id in shots:
            raise VerificationError(
                f"{where}: is tested, and stands solved in the prompts of this fold "
                f"(manifest.json: folds.fold{fold}.shots)"
            )


def check_partition(
    folder: RunFolder,
    predictions: Mapping[int, Sequence[Prediction]],
    config: RunConfig,
    data: Mapping[str, Any],
) -> None:
    """Check that every example is tested once, and every group in one fold.

    Raises:
        VerificationError: At the first fault.
    """
    folds: dict[str, int] = {}
    sessions: dict[str, int] = {}
    for fold, rows in predictions.items():
        for line, row in enumerate(rows, start=1):
            where = f"{folder.fold(fold).predictions}:{line}: id {quote_id(row.id)}"
            if row.id in folds:
                raise VerificationError(f"{where}: id: stands in fold {folds[row.id]} already")
            folds[row.id] = fold
            if (
                config.cv.group == "session"
                and sessions.setdefault(row.session or "", fold) != fold
            ):
                raise VerificationError(
                    f"{where}: session: lies in two folds, in spite of cv.group=session"
                )
    expected = data.get("selected_by_task")
    if len(predictions) == config.cv.folds and expected != len(folds):
        raise VerificationError(
            f"{folder.data}: selected_by_task: recorded {expected}, but the folds hold "
            f"{len(folds)} predictions; some are missing, or too many"
        )


def _fault(prediction: Prediction, fold: int, task: Task) -> str | None:
    if prediction.fold != fold:
        return f"fold: {prediction.fold} in the folder of fold {fold}"
    if prediction.task != task.name:
        return f"task: another one than the run's, {task.name!r}"
    if prediction.gold not in task.labels:
        return f"gold: no label of task {task.name!r}"
    if prediction.label is not None and prediction.label not in task.labels:
        return f"label: no label of task {task.name!r}"
    if prediction.parsed != (prediction.label is not None):
        return "parsed: true just where there is a label, and here it is not so"
    return None


def _fault_of_probabilities(prediction: Prediction, task: Task) -> str | None:
    found = prediction.probabilities
    if found is None:
        return None
    if set(found) != set(task.labels):
        return "probabilities: not those of the task's labels"
    if any(not 0 <= p <= 1 for p in found.values()):
        return "probabilities: not all between 0 and 1"
    total = sum(found.values())
    if abs(total - 1) > SUM_TOLERANCE:
        return f"probabilities: add up to {total:.8g}"
    return None


def _fault_of_answer(
    prediction: Prediction, config: RunConfig, task: Task, *, remote: bool
) -> str | None:
    """Return what contradicts the way in which the answer was come to."""
    read = task.parse(prediction.text)
    if prediction.rationale not in (None, read.rationale):
        return "rationale: another one than in its text"
    decoding = config.decoding
    if remote or config.baseline is not None or decoding.name == "free":
        # A server's refusal may name a label, and gives none.
        agrees = prediction.label == read.label or (remote and prediction.label is None)
        return None if agrees else "label: another one than its text gives"
    if prediction.label is None:
        return f"label: none, though decoding={decoding.name} always gives one"
    # What follows the label may be cut by decoding.max_new_tokens, and so may the label itself.
    begins = task.answer_format.lines(task.written(prediction.label), None)
    shared = min(len(begins), len(prediction.text))
    if prediction.text[:shared] != begins[:shared]:
        return "label: another one than its text begins with"
    if decoding.name == "scored" and not _decided(prediction, task, decoding.threshold):
        return "label: another one than its probabilities decide for"
    return None


def _decided(prediction: Prediction, task: Task, threshold: float | None) -> bool:
    found = prediction.probabilities
    if found is None:
        return True
    if threshold is None:
        return found.get(prediction.label or "") == max(found.values())
    first = found[task.labels[0]]
    if abs(first - threshold) <= SUM_TOLERANCE:
        return True
    return (prediction.label == task.labels[0]) == (first > threshold)


LOSS_TOLERANCE = 1e-4
"""Relative difference of test and selection loss on the same examples, in 32 bits: the batches
differ, and the selection loss is kept in single precision."""

EARLIER_TITLES = {"Invalid answers": "Unparsed answers"}
"""Titles in the summary.md of earlier versions, and what they are called now."""

MEND = (
    "a file was changed after the run; restore it, or delete the fold's scores.json and run its "
    "command again"
)


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was found to be in order."""

    run: str
    folds: tuple[int, ...]
    """The finished ones, all of them verified."""
    predictions: int
    """In the folds together; the same rules were checked for each."""
    values: Mapping[str, int]
    """Values compared in each file: figures, labels and names; of summary.md, lines."""

    def line(self) -> str:
        """Return one line on it."""
        return (
            f"verified {self.run}: {sum(self.values.values())} values of {len(self.values)} files "
            f"follow from {self.predictions} predictions in {len(self.folds)} folds"
        )


def verify_run(folder: RunFolder) -> Verified:
    """Compute every figure of a run again from its predictions, and compare.

    Compared are all of each finished fold's ``scores.json``, ``summary.json`` and ``summary.md``;
    checked are the predictions themselves: ids, folds, labels, probabilities, and that each answer
    follows from its text.

    Raises:
        VerificationError: At the first difference, naming file and key, what is recorded, and what
            should be.
        DataError: When the folder is no run, or no fold is finished.
    """
    config = read_config(folder.path)
    # A prompt's text plays no part in reading answers, and its file may have moved.
    task = build_task(replace(config, prompt=replace(config.prompt, file=None)))
    folds = tuple(k for k in range(config.cv.folds) if folder.fold(k).finished)
    if not folds:
        raise DataError(
            f"{folder.path}: has no finished fold to verify; run its command again, or leave it "
            "out of runs="
        )
    manifest = _json(folder.manifest)
    predictions = {k: _predictions(folder.fold(k).predictions) for k in folds}
    made = made_with(folder)
    values, scores = {}, {}
    for k in folds:
        source = folder.fold(k).predictions
        check_predictions(source, predictions[k], k, config, task, manifest)
        scores[k], values[f"fold{k}/scores.json"] = _verify_scores(
            folder, k, predictions[k], config, task, manifest, made
        )
    data = _json(folder.data)
    check_partition(folder, predictions, config, data)
    values["summary.json"], values["summary.md"] = _verify_summary(folder, scores, config, data)
    return Verified(
        run=folder.path.name,
        folds=folds,
        predictions=sum(map(len, predictions.values())),
        values=values,
    )


def _verify_scores(
    folder: RunFolder,
    fold: int,
    predictions: Sequence[Prediction],
    config: RunConfig,
    task: Task,
    manifest: Mapping[str, Any],
    made: Mapping[str, str],
) -> tuple[Scores, int]:
    """Return a fold's scores, computed again, and how many values of its file they confirm."""
    file = folder.fold(fold).scores
    recorded = _json(file)
    loss = _loss(folder, fold, recorded, config, manifest)
    scores = score(predictions, task=task.name, labels=task.labels, loss=loss)
    expected = {**scores_to_dict(scores), **answer_counts(predictions)}
    # Earlier versions wrote 0 for what a label without examples does not have.
    before = scores_to_dict(_with_zeros(scores))["per_label"]
    if recorded.get("per_label") == before:
        expected["per_label"] = before
    if "made_with" in recorded:
        expected["made_with"] = _made_with(made, recorded["made_with"])
    return scores, _compare(file, recorded, expected)


def _made_with(made: Mapping[str, str], recorded: Any) -> dict[str, Any]:
    if isinstance(recorded, Mapping) and recorded.get("options_hash") != made["options_hash"]:
        # Another version has other options, and so another hash of the same configuration.
        kept = ("options_hash", "configuration_hash")
        return {**made, **{name: recorded[name] for name in kept if name in recorded}}
    return dict(made)


def _loss(
    folder: RunFolder,
    fold: int,
    recorded: Mapping[str, Any],
    config: RunConfig,
    manifest: Mapping[str, Any],
) -> float | None:
    """Return the loss that a fold's scores should have: what the manifest says."""
    name, file = f"fold{fold}", folder.fold(fold).scores
    entry = manifest.get("folds", {}).get(name, {})
    if "system" in manifest or config.baseline is not None:
        return None
    metrics = recorded.get("metrics")
    about = metrics.get("loss") if isinstance(metrics, dict) else None
    # Earlier versions kept the loss in scores.json alone.
    loss = entry.get("test_loss", about)
    if not (loss is None or isinstance(loss, float)):
        raise VerificationError(f"{file}: metrics.loss: is neither a number nor null; {MEND}")
    selected = selection_loss(folder.fold(fold).history, entry.get("selected_epoch", 0))
    if entry.get("select_loss") != selected:
        key, there = f"folds.{name}.select_loss", entry.get("select_loss")
        _differs(folder.manifest, key, _shown(there), f"{_shown(selected)} from history.csv")
    in_32_bits = config.trainer.precision == "32-true" and config.backbone.dtype == "float32"
    # Under this protocol the epoch was selected by the loss on the very examples that are tested.
    if config.cv.protocol == "paper" and in_32_bits and None not in (loss, selected):
        assert loss is not None
        assert selected is not None
        if abs(loss - selected) > LOSS_TOLERANCE * abs(selected):
            nearly = f"about {_shown(selected)}, the selection loss of history.csv"
            _differs(file, "metrics.loss", _shown(loss), nearly)
    return None if loss is None else float(loss)


def _verify_summary(
    folder: RunFolder, scores: Mapping[int, Scores], config: RunConfig, data: Mapping[str, Any]
) -> tuple[int, int]:
    recorded = _json(folder.summary)
    if "metrics_pooled" in recorded:
        summary = summarize(scores, protocol=config.cv.protocol)
        expected = summary_to_dict(summary)
    else:
        # Earlier versions: no pooled figures, and means that count what a fold does not have as 0.
        counted = {fold: _with_zeros(one) for fold, one in scores.items()}
        summary = replace(summarize(counted, protocol=config.cv.protocol), metrics_pooled={})
        expected = summary_to_dict(summary)
        del expected["metrics_pooled"]
    n_values = _compare(folder.summary, recorded, expected)
    page = summary_markdown(summary, notes=data.get("notes", ()))
    return n_values, _compare_pages(folder.summary_table, _text(folder.summary_table), page)


def _with_zeros(scores: Scores) -> Scores:
    """Return scores as earlier versions had them: 0 where a label's figure is undefined."""
    rows = {
        label: replace(
            row, precision=row.precision or 0.0, recall=row.recall or 0.0, f1=row.f1 or 0.0
        )
        for label, row in scores.per_label.items()
    }
    return replace(scores, per_label=rows)


def _compare_pages(file: Path, recorded: str, expected: str) -> int:
    """Return the number of lines of a page, every figure and every row's title in them equal.

    Of sentences only the numbers count: their wording may be that of another version.

    Raises:
        VerificationError: At the first line that is not so.
    """
    pages = recorded.split("\n"), expected.split("\n")
    for number, (there, wanted) in enumerate(zip(*pages, strict=False), start=1):
        for cell, (one, other) in enumerate(zip_longest(_figures(there), _figures(wanted))):
            if one != other:
                place = f"line {number}" + (f", cell {cell + 1}" if wanted[:1] == "|" else "")
                _differs(file, place, _shown(one, other or ""), _shown(other))
    if len(pages[0]) != len(pages[1]):
        _differs(file, "lines", f"{len(pages[0])}", f"{len(pages[1])}")
    return len(pages[1])


def _figures(line: str) -> list[str]:
    """Return the cells of a row of a Markdown table, or the numbers of another line."""
    if not line.startswith("|"):
        return re.findall(r"\d+(?:\.\d+)?", line)
    cells = (cell.strip() for cell in line.strip("|").split(" | "))
    return [EARLIER_TITLES.get(cell, cell) for cell in cells]


def _compare(file: Path, recorded: Any, expected: Any, key: str = "") -> int:
    """Return the number of values under a key, all of them equal.

    Raises:
        VerificationError: At the first one that is not, in the order of what is expected.
    """
    if isinstance(expected, Mapping) and isinstance(recorded, Mapping):
        for name in (*expected, *recorded):
            if name not in recorded:
                _differs(file, f"{key}{name}", "nothing", _shown(expected[name]))
            if name not in expected:
                _differs(file, f"{key}{name}", _shown(recorded[name], ""), "nothing")
        return sum(_compare(file, recorded[n], expected[n], f"{key}{n}.") for n in expected)
    if isinstance(expected, list) and isinstance(recorded, list):
        if len(expected) != len(recorded):
            _differs(file, key.rstrip("."), _shown(recorded), _shown(expected))
        pairs = enumerate(zip(recorded, expected, strict=True))
        return sum(_compare(file, there, wanted, f"{key}{i}.") for i, (there, wanted) in pairs)
    # 1 and true are equal in Python, and are two things in a file.
    if type(recorded) is not type(expected) or recorded != expected:
        _differs(file, key.rstrip("."), _shown(recorded, expected), _shown(expected))
    return 1


def _differs(file: Path, key: str, recorded: str, expected: str) -> NoReturn:
    raise VerificationError(f"{file}: {key}: recorded {recorded}, recomputed {expected}; {MEND}")


def _shown(value: Any, expected: Any = None) -> str:
    """Return a value in a form that is safe to print; a text only where one like it is expected."""
    if isinstance(value, str):
        known = [expected] if isinstance(expected, str) else []
        return repr(value) if expected is None else quote_label(value, known)
    if isinstance(value, Mapping | list):
        return f"{len(value)} entries"
    return json.dumps(value)


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(_text(file))
    except ValueError as error:
        raise VerificationError(f"{file}: is not JSON; {MEND}") from error
    if not isinstance(found, dict):
        raise VerificationError(f"{file}: is not a JSON object; {MEND}")
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise VerificationError(f"{file}: is missing; run the command of this run again") from error
    except UnicodeDecodeError as error:
        raise VerificationError(f"{file}: is not UTF-8; {MEND}") from error


def _predictions(file: Path) -> tuple[Prediction, ...]:
    try:
        return predictions_from_jsonl(_text(file), source=str(file))
    except DataError as error:
        raise VerificationError(str(error)) from error
