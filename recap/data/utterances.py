"""Client utterances one at a time: those of a file to annotate, and annotated ones.

Annotated utterances come from dialogues, from what ``recap.predict`` wrote, or from both together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from recap.config import DataConfig
from recap.data.corpus import SYNTHETIC, is_synthetic, read_records
from recap.data.examples import client_turns, examples_of
from recap.data.issues import IssueLog, turn_notes
from recap.data.names import is_missing, whole_number
from recap.data.readers.files import existing_file, is_several, json_rows
from recap.data.readers.registry import TABLE_ENDINGS, CanonicalLabels, Fields
from recap.data.readers.tables import mapping_of, read_probabilities, read_rows, read_sheet
from recap.errors import DataError, quote_id
from recap.records import Dialogue, Example, Provenance, Turn
from recap.taxonomy import Taxonomy


def read_utterances(data: DataConfig, issues: IssueLog) -> Iterator[Example]:
    """Yield every client utterance of a file in its order, labeled or not.

    An utterance without text comes with an empty response. Labels stay as they are written. What
    became of the turns is counted in ``issues.counts`` as :func:`recap.data.examples.examples_of`
    has it.
    """
    records = read_records(
        reader=data.reader,
        path=None if data.path is None else Path(data.path),
        taxonomy=None,
        issues=issues,
        require_labels=False,
        options=data.reader_options,
        to_annotate=True,
    )
    for record in records:
        yield from examples_of(
            record,
            merge_adjacent=data.merge_adjacent,
            no_intervention=data.no_intervention,
            empty_apart=True,
            counts=issues.counts,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """One client utterance and its annotation.

    ``label`` is ``None`` where it has none: it was not annotated, or the model's answer could not
    be read. ``turn`` is the index in the dialogue; ``act`` the label of the counselor turn before
    it. ``probabilities`` and ``rationale`` are there where the annotation came with them.
    ``dialogue`` holds all turns that are known, ``before`` of which precede this one.
    """

    id: str
    session: str
    response: str
    label: str | None
    turn: int | None = None
    dialogue: Sequence[Turn] = field(default=(), repr=False)
    before: int = 0
    act: str | None = None
    predicted: bool = False
    probabilities: Mapping[str, float] | None = None
    rationale: str | None = None
    client: str | None = None
    counselor: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def history(self) -> Sequence[Turn]:
        """The turns before it."""
        return self.dialogue[: self.before]

    @property
    def probability(self) -> float | None:
        """Probability of the label, ``None`` where it is not known."""
        if self.probabilities is None or self.label is None:
            return None
        return self.probabilities.get(self.label)


def list_client_turns(record: Dialogue | Example) -> list[Utterance]:
    """Return the client turns of a dialogue, or the response of an example, as annotated.

    Turns are not merged: each one is an utterance. An example without a session counts as a session
    of its own.
    """
    return [
        Utterance(
            id=turn.id,
            session=turn.session or turn.id,
            response=turn.response,
            label=turn.label,
            turn=turn.turn,
            dialogue=record.history if isinstance(record, Example) else record.turns,
            before=len(turn.history),
            act=_act(turn.history),
            rationale=turn.rationale,
            client=turn.client,
            counselor=turn.counselor,
            meta=turn.meta,
        )
        for turn in client_turns(record)
    ]


def _act(history: Sequence[Turn]) -> str | None:
    before = next((turn for turn in reversed(history) if turn.speaker != "other"), None)
    return before.label if before is not None and before.speaker == "counselor" else None


def labels_in_use(taxonomy: Taxonomy, labels: Iterable[str]) -> tuple[str, ...]:
    """Return the categories that annotations tell apart, in canonical order.

    These are the labels that occur, and all leaves, unless the annotations stop at a category above
    a leaf: where ``Resistance`` itself is a label, a behavior that never occurs was not asked for.
    """
    found = set(labels)
    leaves = set(taxonomy.leaves)
    kept = {leaf for leaf in leaves if leaf in found or not found & set(taxonomy.lineage(leaf)[1:])}
    return tuple(c.name for c in taxonomy.categories if c.name in found | kept)


def membership(taxonomy: Taxonomy, tops: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that tells whether a label is one of ``tops`` or lies below one."""
    chosen = frozenset(tops)
    below = {
        category.name: bool(chosen & set(taxonomy.lineage(category.name)))
        for category in taxonomy.categories
    }
    return lambda label: below[label]


COUNSELOR_TURN = "counselor_turn"
"""What the counselor said before, in tables that recap.predict writes."""

_MARKS = frozenset({"id", "label", "parsed"})
"""Columns by which a file of predictions is recognized."""
_TEXTS = ("id", "session", "client", "counselor", "label", "response", "rationale")
_OWN = frozenset(
    {"id", "session", "turn", "label", "pattern", "probabilities", "rationale", "text", "parsed"}
    | {"response", "skipped", "client", "counselor", "meta", COUNSELOR_TURN}
)


def is_probability_column(name: str) -> bool:
    """Return whether a column of a table that recap.predict wrote is a label's probability."""
    return name.startswith("P(") and name.endswith(")")


@dataclass(frozen=True, kw_only=True)
class Annotated:
    """The client utterances of a file, in its order.

    ``counts`` has ``unlabelled``, ``unparsed`` (answers of a model that hold no label),
    ``skipped`` (utterances that the model was not asked about; they are left out),
    ``without_prediction``, ``rows_left_out`` and ``predictions_left_out``.
    """

    name: str
    utterances: tuple[Utterance, ...]
    predicted: bool
    synthetic: bool
    counts: Mapping[str, int]
    turns: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Turns of every file by who speaks."""
    models: tuple[Provenance, ...] = ()
    """Which models gave the labels, where that is known."""

    @property
    def model_figures(self) -> list[dict[str, Any]] | None:
        """All that is known of the models, as a JSON file has it; ``None`` without a model."""
        return [asdict(model) for model in self.models] if self.predicted else None

    def notes(self) -> list[str]:
        """Return a sentence for all that a reader of the figures must know of the labels."""
        sentences = {
            "unlabelled": "client utterances have no label and play no part",
            "unparsed": "answers of the model held no label and play no part",
            "skipped": "client utterances were empty or too long for the model and play no part",
            "without_prediction": "client utterances have no prediction and play no part "
            "(recap.predict merges turns of one speaker in a row)",
            "rows_left_out": "rows were left out for faults",
            "names_in_two_forms": "names are written in two forms that look alike, and count as "
            "one each",
            "predictions_left_out": "rows of the predictions were left out for faults",
        }
        notes = [
            f"{self.counts[key]} {note}" for key, note in sentences.items() if self.counts.get(key)
        ]
        notes += turn_notes(self.turns)
        if self.predicted:
            notes.insert(0, "Labels are predicted by a model, which errs; nobody annotated them.")
        if self.synthetic:
            notes.insert(0, SYNTHETIC)
        return notes


def read_annotated(
    data: DataConfig, taxonomy: Taxonomy, predictions: Path | None = None
) -> Annotated:
    """Return the client utterances of a file with their labels.

    A file of predictions (rows with ``id``, ``label`` and ``parsed``) is recognized, whatever the
    reader. The sessions of its rows have to be there, since everything is counted by session.
    Labels of the file ``predictions`` take the place of the dialogues' own, matched by id. The
    dialogues may have turns without text then, as they may for recap.predict.

    Raises:
        DataError: When a file cannot be read, rows are faulty, or nothing is labeled.
    """
    path = None if data.path is None else Path(data.path)
    issues = IssueLog(str(path or data.reader))
    skipped, models = 0, () if predictions is None else _models_of(predictions)
    if path is not None and not is_several(path) and is_predictions(path):
        models = models or _models_of(path)
        utterances, without_answer = _predicted(path, taxonomy, issues)
        skipped, synthetic = len(without_answer), any(is_synthetic(u.meta) for u in utterances)
    else:
        records = list(
            read_records(
                reader=data.reader,
                path=path,
                taxonomy=taxonomy,
                issues=issues,
                require_labels=False,
                keep_empty=predictions is not None,
                options=data.reader_options,
            )
        )
        synthetic = any(is_synthetic(record.meta) for record in records)
        utterances = tuple(turn for record in records for turn in list_client_turns(record))
    if issues.issues and data.on_error == "fail":
        raise issues.error()
    counts = {
        "rows_left_out": issues.rows_rejected,
        "skipped": skipped,
        "names_in_two_forms": issues.counts["names_in_two_forms"],
    }
    if predictions is not None:
        utterances, more = _overlaid(utterances, predictions, taxonomy, data.on_error)
        counts.update(more)
    predicted = any(utterance.predicted for utterance in utterances)
    missing = sum(u.label is None for u in utterances)
    counts["unparsed" if predicted else "unlabelled"] = missing
    if missing == len(utterances):
        raise DataError(f"{issues.file}: {_why_unlabeled(missing, predicted, counts['skipped'])}")
    return Annotated(
        name=data.name,
        utterances=utterances,
        predicted=predicted,
        synthetic=synthetic,
        counts=counts,
        turns=issues.turns,
        models=models,
    )


def state_file(output: Path) -> Path:
    """Return the file beside predictions that says of which input, models and options they are."""
    return output.with_name(f"{output.name}.state.json")


def _models_of(predictions: Path) -> tuple[Provenance, ...]:
    """Return which models made predictions, as recap.predict noted beside them."""
    file = state_file(existing_file(predictions))
    try:
        noted = json.loads(file.read_text(encoding="utf-8"))["models"]
        return tuple(Provenance(**model) for model in noted)
    except (OSError, ValueError, LookupError, TypeError):
        return ()


def is_predictions(path: Path) -> bool:
    """Whether a file holds predictions: its first row has an id, a label and whether it parsed."""
    path = existing_file(path)
    issues = IssueLog(str(path))
    if path.suffix.lower() in TABLE_ENDINGS:
        return set(read_sheet(path, issues).columns) >= _MARKS
    if path.suffix.lower() not in (".jsonl", ".json", ".ndjson"):
        return False
    return any(row.keys() >= _MARKS for _, row in islice(json_rows(path, issues), 1))


def _why_unlabeled(n: int, predicted: bool, skipped: int) -> str:
    if n == 0 and skipped:
        return (
            f"all of its {skipped} client utterances were skipped, as empty or too long for the "
            "model; annotate others, or with a model that reads longer texts"
        )
    if n == 0:
        return "holds no client utterance; check who speaks"
    if predicted:
        return (
            f"no label could be read from any of its {n} answers; decode with decoding=scored, "
            "which always gives one"
        )
    return (
        f"none of its {n} client utterances has a label; annotate it with recap.predict, and name "
        "what that wrote with predictions=FILE"
    )


def read_answers(
    rows: Iterable[tuple[int, Mapping[str, Any]]],
    issues: IssueLog,
    *,
    ids: Mapping[str, str],
    unique: str,
) -> Iterator[tuple[Fields, list[str | None], dict[str, float] | None]]:
    """Yield each row of a file of predictions: its fields, its ids, its probabilities.

    A row at fault is noted, and its ``fields`` are not sound. ``ids`` names the fields that hold
    ids, the row's own first, each with what to do where there is none; ``unique`` says what to do
    about a second row of one id.
    """
    first: dict[str, int] = {}
    for line, row in rows:
        fields = Fields(row, line=line, issues=issues)
        found = {name: fields.identifier(name) for name in ids}
        missing = [name for name, identifier in found.items() if identifier is None]
        if missing and fields.sound:
            fields.reject(missing[0], "is missing", ids[missing[0]])
        own, *_ = found.values()
        if own in first:
            reason = f"id {quote_id(own)} is at line {first[own]} already"
            fields.reject("id", reason, unique)
        elif own is not None:
            first[own] = line
        yield fields, [*found.values()], read_probabilities(fields) or None


def _predicted(
    path: Path, taxonomy: Taxonomy, issues: IssueLog
) -> tuple[tuple[Utterance, ...], frozenset[str]]:
    """Return the utterances of a file of predictions, and the ids of those without an answer."""
    labels = CanonicalLabels(taxonomy)
    utterances: list[Utterance] = []
    skipped: set[str] = set()
    written = read_rows(path, issues, texts=_TEXTS)
    # An empty cell is no value.
    rows = ((line, {k: v for k, v in row.items() if v != ""}) for line, row in written)
    ids = dict.fromkeys(("id", "session"), "give every row the id of its session")
    answers = read_answers(rows, issues, ids=ids, unique="keep one row an utterance")
    for fields, (identifier, session), probabilities in answers:
        row = fields.row
        label, response, rationale = map(fields.optional_text, ("label", "response", "rationale"))
        label = None if label is None or is_missing(label, taxonomy) else label
        canonical = labels.find(issues, fields.line, "label", label) if label else None
        if not fields.sound or identifier is None or session is None or (label and not canonical):
            continue
        if not label and _text(row.get("skipped")):
            skipped.add(identifier)
            continue
        utterances.append(
            Utterance(
                id=identifier,
                session=session,
                turn=whole_number(_text(row.get("turn"))),
                response=response or "",
                label=canonical,
                predicted=True,
                probabilities=probabilities,
                rationale=rationale or None,
                client=issues.name("client", _text(row.get("client"))) or None,
                counselor=issues.name("counselor", _text(row.get("counselor"))) or None,
                meta=_meta(row),
            )
        )
    # What develops over a session is told from their order; rows may stand in any.
    place = {session: n for n, session in enumerate(dict.fromkeys(u.session for u in utterances))}
    if all(u.turn is not None for u in utterances):
        utterances.sort(key=lambda u: (place[u.session], u.turn))
    return tuple(utterances), frozenset(skipped)


def _overlaid(
    utterances: Sequence[Utterance], predictions: Path, taxonomy: Taxonomy, on_error: str
) -> tuple[tuple[Utterance, ...], dict[str, int]]:
    if not is_predictions(predictions):
        raise DataError(
            f"{predictions}: is no file of predictions; its rows need "
            f"{', '.join(sorted(_MARKS))}, as recap.predict writes them"
        )
    issues = IssueLog(str(predictions))
    answers, skipped = _predicted(predictions, taxonomy, issues)
    by_id = {answer.id: answer for answer in answers}
    if issues.issues and on_error == "fail":
        raise issues.error()
    ids = by_id.keys() | skipped
    there = {utterance.id for utterance in utterances}
    unknown = ids - there
    if unknown:
        raise DataError(
            f"{predictions}: {len(unknown)} of its {len(ids)} ids are not in data.path, such as id "
            f"{quote_id(min(unknown))}; give the dialogues that were annotated"
        )
    merged = tuple(
        replace(
            utterance,
            label=answer.label,
            predicted=True,
            probabilities=answer.probabilities,
            rationale=answer.rationale,
            response=answer.response or utterance.response,
        )
        for utterance in utterances
        if utterance.id in by_id
        for answer in (by_id[utterance.id],)
    )
    return merged, {
        "predictions_left_out": issues.rows_rejected,
        "without_prediction": len(utterances) - len(merged) - len(skipped),
        "skipped": len(skipped),
    }


def _text(value: object) -> str:
    return "" if value is None or isinstance(value, bool) else str(value).strip()


def _meta(row: Mapping[str, Any]) -> dict[str, Any]:
    meta = mapping_of(row.get("meta")) or {}
    others = (key for key in row if key not in _OWN and not is_probability_column(key))
    return {**{key: row[key] for key in others}, **meta}
