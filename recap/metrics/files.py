"""The forms that predictions, scores and summaries take in files: strict JSON, stable keys."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any, NoReturn, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from recap.errors import DataError
from recap.metrics.scores import defined
from recap.records import Example, Prediction, Scores, Summary

T = TypeVar("T", Scores, Summary)

_LISTED = 20
"""Faulty lines that one message lists."""

PREDICTION_FIELDS = tuple(Prediction.__dataclass_fields__)
"""The keys of a line of ``predictions.jsonl``, in order."""


class Statement(Protocol):
    """What a system said of an example, in whatever record of its own."""

    @property
    def label(self) -> str | None:
        """The label that was read; ``None`` where none could be."""

    @property
    def probabilities(self) -> Mapping[str, float] | None:
        """Those of the labels, where the system gives any."""

    @property
    def rationale(self) -> str | None:
        """Where there is one."""

    @property
    def text(self) -> str:
        """The raw answer."""


def prediction_of(
    example: Example, said: Statement | None, *, task: str, gold: str, fold: int | None
) -> Prediction:
    """Return the line of ``predictions.jsonl`` of an example; ``None`` was no answer at all."""
    return Prediction(
        id=example.id,
        session=example.session,
        fold=fold,
        task=task,
        gold=gold,
        label=said.label if said else None,
        probabilities=said.probabilities if said else None,
        rationale=said.rationale if said else None,
        text=said.text if said else "",
        parsed=said is not None and said.label is not None,
    )


def predictions_to_jsonl(predictions: Iterable[Prediction]) -> str:
    """Return the text of ``predictions.jsonl``, a line for each prediction in the order given.

    Raises:
        ValueError: For a probability that is not finite.
    """
    return "".join(
        _dumps({name: getattr(prediction, name) for name in PREDICTION_FIELDS}) + "\n"
        for prediction in predictions
    )


def predictions_from_jsonl(
    text: str, *, source: str = "predictions.jsonl"
) -> tuple[Prediction, ...]:
    """Return the predictions of a file's text; keys beyond the contract's are ignored.

    Args:
        text: The file's text.
        source: What messages call the file.

    Raises:
        DataError: Listing faulty lines as ``file:line: field: reason, mend``.
    """
    predictions: list[Prediction] = []
    issues: list[str] = []
    # Not splitlines: a raw generation may hold U+2028 and others that it takes for line ends.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            predictions.append(_prediction(line))
        except DataError as error:
            issues.append(f"{source}:{number}: {error}")
    if issues:
        more = len(issues) - _LISTED
        raise DataError("\n".join([*issues[:_LISTED], *([f"and {more} more"] if more > 0 else [])]))
    return tuple(predictions)


def scores_to_dict(scores: Scores) -> dict[str, Any]:
    """Return the mapping that ``scores.json`` holds."""
    return dict(_plain(asdict(scores)))


def scores_from_dict(data: Mapping[str, Any], *, source: str = "scores.json") -> Scores:
    """Return the scores of a ``scores.json``; unknown keys are ignored.

    Where a label has no example earlier versions wrote 0: it is undefined here.

    Raises:
        DataError: When a key is missing or its value has another form, naming ``source``.
    """
    scores = _record(Scores, data, source)
    rows = {
        label: defined(row, answered=sum(counts[place] for counts in scores.confusion))
        for place, (label, row) in enumerate(scores.per_label.items())
    }
    return replace(scores, per_label=rows)


def summary_to_dict(summary: Summary) -> dict[str, Any]:
    """Return the mapping that ``summary.json`` holds."""
    return dict(_plain(asdict(summary)))


def summary_from_dict(data: Mapping[str, Any], *, source: str = "summary.json") -> Summary:
    """Return the summary of a ``summary.json``; unknown keys are ignored.

    Raises:
        DataError: When a key is missing or its value has another form, naming ``source``.
    """
    return _record(Summary, data, source)


def json_text(data: Mapping[str, Any]) -> str:
    """Return a mapping as the text of a JSON file, indented and ending in a line feed.

    Raises:
        ValueError: For a number that is not finite, which JSON cannot hold.
    """
    return _dumps(data, indent=2) + "\n"


def _dumps(data: Any, indent: int | None = None) -> str:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, indent=indent, default=dict)
    # A lone surrogate (half an emoji in somebody's JSON) cannot be written as UTF-8, only escaped.
    if any("\ud800" <= character <= "\udfff" for character in text):
        return json.dumps(data, ensure_ascii=True, allow_nan=False, indent=indent, default=dict)
    return text


def _plain(value: Any) -> Any:
    """Return a value with tuples as lists, as reading the file back would give it."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _prediction(line: str) -> Prediction:
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        where = f" at character {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"line: not valid JSON{where}, write one object a line") from error
    if not isinstance(row, dict):
        raise DataError("line: not a JSON object, write one object a line")
    for name in PREDICTION_FIELDS:
        if name not in row:
            raise DataError(f"{name}: missing, add it (null where there is none)")
        expected, fits = _FORMS[name]
        if not fits(row[name]):
            raise DataError(f"{name}: is of the wrong kind, give {expected}")
    return Prediction(**{name: row[name] for name in PREDICTION_FIELDS})


def _refuse_constant(name: str) -> NoReturn:
    raise DataError(f"line: {name} is not valid JSON, write null")


def _is_fold(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


def _is_probabilities(value: object) -> bool:
    return value is None or (
        isinstance(value, dict)
        and all(
            isinstance(p, int | float)
            and not isinstance(p, bool)
            and abs(p) <= sys.float_info.max  # false for NaN
            for p in value.values()
        )
    )


_TEXT = ("a string", lambda value: isinstance(value, str))
_TEXT_OR_NULL = ("a string or null", lambda value: isinstance(value, str | None))
_FORMS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "id": _TEXT,
    "session": _TEXT_OR_NULL,
    "fold": ("a fold's index or null", _is_fold),
    "task": _TEXT,
    "gold": _TEXT,
    "label": _TEXT_OR_NULL,
    "probabilities": ("an object of finite numbers or null", _is_probabilities),
    "rationale": _TEXT_OR_NULL,
    "text": _TEXT,
    "parsed": ("true or false", lambda value: isinstance(value, bool)),
}


def _record(kind: type[T], data: Mapping[str, Any], source: str) -> T:
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            fault = f"the key {key!r} is missing; write the file again"
        else:
            fault = f"a value has another form ({key}: {first['msg']}); write it again"
        raise DataError(f"{source}: {fault}") from error
