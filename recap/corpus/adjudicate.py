"""``action=adjudicate``: votes become final labels; a file and a next round for what is open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from recap.corpus.agreement import kappa_text
from recap.corpus.assign import assign, batch_pages, check_file_name
from recap.corpus.options import CorpusConfig
from recap.corpus.sources import (
    CorpusSource,
    examples_in,
    find_taxonomy,
    keep_filled_in,
    label_order,
    named_path,
    open_annotations,
    open_source,
    reading_notes,
)
from recap.data.annotations import AnnotatorLabel, rounds_of, tabulate
from recap.data.examples import client_turns, turn_id
from recap.data.issues import IssueLog
from recap.data.names import identity, is_missing
from recap.data.readers.archives import annotator_files
from recap.data.readers.doccano import document_text
from recap.data.readers.files import is_several
from recap.data.readers.native import records_to_jsonl
from recap.data.readers.registry import Record
from recap.data.sheets import filled_rows, known_label, raise_issues
from recap.errors import DataError, quote_id
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.records import Example
from recap.statistics.agreement import Agreement, measure_agreement
from recap.system.files import sheet_to_csv

Rule = Literal["plurality", "majority"]
VoteStatus = Literal["unanimous", "majority", "decided", "tie", "short"]

STATUSES: Mapping[str, str] = {
    "unanimous": "all annotators agree",
    "majority": "one label won the vote",
    "decided": "decided by hand",
    "tie": "no label won the vote",
    "short": "the leading label has too few votes",
}
"""What became of an example; those of the last two are open."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the annotators of one example add up to."""

    id: str
    session: str | None
    status: VoteStatus
    label: str | None
    """The final label, ``None`` while the example is open."""
    votes: Mapping[str, int]
    """Votes of each label, most first."""
    annotators: tuple[str, ...]
    rounds: tuple[str, ...]
    rationale: str | None = None
    """That of the first annotator who gave the final label and a rationale."""

    @property
    def open(self) -> bool:
        """Whether the example has no final label yet."""
        return self.label is None


def adjudicate(
    annotations: Iterable[AnnotatorLabel], *, rule: Rule = "plurality", min_votes: int = 2
) -> tuple[Verdict, ...]:
    """Return a verdict on every example, in order of appearance.

    Two annotators first, then others until one label has won, is Section 4.2; it does not say what
    wins, so that is an option. All rounds count; of one annotator's labels for one example, the
    last. Annotations of one example stand in order of their rounds. Under ``plurality`` the label
    with more votes than any other wins, under ``majority`` that with more than half.
    """
    by_example: dict[str, list[AnnotatorLabel]] = {}
    for annotation in annotations:
        by_example.setdefault(annotation.id, []).append(annotation)
    return tuple(_verdict(group, rule, min_votes) for group in by_example.values())


def decide(verdicts: Sequence[Verdict], decisions: Mapping[str, str]) -> tuple[Verdict, ...]:
    """Return the verdicts, each example with a decision under the label decided on.

    A decision counts more than any vote. Examples that have none keep their verdict.
    """
    return tuple(
        replace(verdict, status="decided", label=decisions[verdict.id])
        if verdict.id in decisions
        else verdict
        for verdict in verdicts
    )


def _verdict(group: Sequence[AnnotatorLabel], rule: Rule, min_votes: int) -> Verdict:
    by_annotator = {annotation.annotator: annotation for annotation in group}
    counted = list(by_annotator.values())
    votes = Counter(annotation.label for annotation in counted)
    (label, leading), (_, second) = [*votes.most_common(2), ("", 0)][:2]
    won = leading > second if rule == "plurality" else 2 * leading > len(counted)
    status: VoteStatus = "majority" if second else "unanimous"
    if not won or leading < min_votes:
        status = "short" if won else "tie"
    final = label if status in ("unanimous", "majority") else None
    rationales = [j.rationale for j in counted if j.label == final and j.rationale]
    return Verdict(
        id=group[0].id,
        session=next((j.session for j in group if j.session is not None), None),
        status=status,
        label=final,
        votes=dict(sorted(votes.items(), key=lambda item: (-item[1], item[0]))),
        annotators=tuple(by_annotator),
        rounds=tuple(dict.fromkeys(j.round for j in group)),
        rationale=rationales[0] if rationales else None,
    )


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The data that was annotated, as far as it is there."""

    records: tuple[Record, ...]
    examples: dict[str, Example]
    """What annotators saw, by id."""
    unknown: int
    """Annotated examples that are not in the data."""
    notes: tuple[str, ...] = ()
    """Notes on the data."""


def read_texts(config: CorpusConfig, annotated: Set[str]) -> Texts:
    """Return the data; none where no file of it was named and the demo holds nothing of the kind.

    Without ``annotations.path``, ``data.path`` names the annotations; a reader of dialogues has to
    be chosen for it to be read as data too. Named data without an annotated example are a
    ``DataError``.
    """
    if not config.annotations.path and config.data.reader == "demo":
        return Texts(records=(), examples={}, unknown=len(annotated))
    options = config.data.options
    if "multi_label" in options:
        # What annotators said apart is what is settled here; the data's own labels are not used.
        data = replace(config.data, options={**options, "multi_label": "first"})
        config = replace(config, data=data)
    sources = _sources(config)
    records = tuple(_once(sources))
    examples = {e.id: e for record in records for e in examples_in(record, config.data)}
    there = {turn.id for record in records for turn in client_turns(record)}
    unknown = len(annotated - there)
    if unknown == len(annotated):
        if config.data.path is None:
            return Texts(records=(), examples={}, unknown=unknown)
        raise DataError(
            f"{config.data.path}: holds none of the {unknown} annotated examples; their ids must "
            "be those of the data (SESSION:TURN where it has none)"
        )
    return Texts(
        records=records,
        examples=examples,
        unknown=unknown,
        notes=tuple(n for s in sources for n in s.notes()),
    )


def _sources(config: CorpusConfig) -> list[CorpusSource]:
    """Return the data; a source for each file of a folder or pattern that annotators filled in."""
    path = config.data.path
    if path is None or config.annotations.path or not is_several(Path(path)):
        return [open_source(config)]
    with annotator_files(Path(path)) as files:
        named = [replace(config.data, path=str(file.path)) for file in files]
    return [open_source(replace(config, data=data)) for data in named]


def _once(sources: Iterable[CorpusSource]) -> Iterator[Record]:
    """Yield what each annotator's file holds, once where several annotators had it.

    Raises:
        DataError: For one id with two texts.
    """
    found: dict[str, tuple[str, Record]] = {}
    for source in sources:
        for record in source.records:
            name = record.id if isinstance(record, Example) else record.session
            file, there = found.setdefault(name, (source.file, record))
            if there is record:
                yield record
            elif _said(there) != _said(record):
                raise DataError(
                    f"{source.file}: {quote_id(name)} has another text than in {file}; give each "
                    "example an id of its own"
                )


def _said(record: Record) -> list[str]:
    if isinstance(record, Example):
        return [*(turn.text for turn in record.history), record.response]
    return [turn.text for turn in record.turns]


def label_records(records: Iterable[Record], verdicts: Sequence[Verdict]) -> Iterator[Record]:
    """Yield the records, client turns under their final labels and under no other."""
    final = {verdict.id: verdict for verdict in verdicts}
    for record in records:
        if isinstance(record, Example):
            yield replace(record, **_final(final.get(record.id)))
            continue
        turns = (
            replace(turn, **_final(final.get(turn_id(record.session, index, turn))))
            if turn.speaker == "client"
            else turn
            for index, turn in enumerate(record.turns)
        )
        yield replace(record, turns=tuple(turns))


def _final(verdict: Verdict | None) -> dict[str, Any]:
    return {key: getattr(verdict, key, None) for key in ("label", "rationale")}


def read_decisions(config: CorpusConfig, annotated: Set[str]) -> dict[str, str]:
    """Return the labels filled in by hand, by example id; a ``DataError`` lists faulty rows."""
    path = config.adjudicate.decisions
    if path is None:
        return {}
    issues = IssueLog(path)
    file, taxonomy = named_path("adjudicate.decisions", path), find_taxonomy(config)
    hint = "give back the to-do file with its header"
    decisions: dict[str, str] = {}
    for line, row in filled_rows(file, ("id", "final_label"), issues, hint=hint):
        identifier, written = row["id"], row["final_label"]
        if is_missing(written, taxonomy):
            continue
        if identifier not in annotated:
            reason = f"id {quote_id(identifier)} was annotated by nobody"
            issues.reject(line, "id", reason, "correct it, or remove the row")
            continue
        label = known_label(written, taxonomy, line, "final_label", issues)
        if label is not None and decisions.setdefault(identifier, label) != label:
            reason = f"id {quote_id(identifier)} is decided twice, and differently"
            issues.reject(line, "final_label", reason, "keep one row")
    raise_issues(issues)
    return decisions


TODO = "todo.csv"
"""The file of what is open; its column ``final_label`` is to be filled in."""

LABELS = "labels.jsonl"
"""The data under its final labels."""

_TODO_HEADER = ("id", "session", "status", "votes", "annotators", "dialogue", "final_label", "note")
_COEFFICIENTS = ("mean_pairwise_cohen_kappa", "fleiss_kappa", "krippendorff_alpha")


def adjudicate_labels(config: CorpusConfig) -> Report:
    """Return the final labels and what is still open."""
    options = config.adjudicate
    read = open_annotations(config)
    rounds = rounds_of(read.annotations)
    in_order = sorted(read.annotations, key=lambda annotation: rounds.index(annotation.round))
    voted = adjudicate(in_order, rule=options.rule, min_votes=options.min_votes)
    decisions = read_decisions(config, {verdict.id for verdict in voted})
    verdicts = decide(voted, decisions)
    texts = read_texts(config, {verdict.id for verdict in verdicts})
    by_round = [(name, *_agreements(in_order, rounds, name)) for name in rounds]
    still_open = [verdict for verdict in verdicts if verdict.open]
    next_round, nobody_left = _next_round(config, read.annotations, still_open, texts, rounds)
    todo = (
        {
            **_row(verdict),
            "dialogue": document_text(texts.examples[verdict.id], language=config.data.language)
            if verdict.id in texts.examples
            else "",
        }
        for verdict in still_open
    )
    sheet = sheet_to_csv(_TODO_HEADER, ([row.get(key, "") for key in _TODO_HEADER] for row in todo))
    pages = {**next_round, TODO: sheet}
    keep_filled_in(config, pages)
    if texts.records:
        pages[LABELS] = records_to_jsonl(label_records(texts.records, verdicts))
    return Report(
        action="adjudicate",
        title=f"{len(verdicts) - len(still_open):,} of {len(verdicts):,} examples have a label",
        figures=_figures(config, verdicts, by_round),
        sheets=_sheets(config, verdicts, by_round),
        notes=(
            *texts.notes,
            *reading_notes(read),
            *_notes(config, verdicts, texts, next_round, nobody_left),
        ),
        rows=[_row(verdict) for verdict in verdicts],
        private_pages=pages,
    )


def _agreements(
    annotations: Sequence[AnnotatorLabel], rounds: Sequence[str], name: str
) -> tuple[Agreement, Agreement]:
    so_far = rounds[: rounds.index(name) + 1]
    within = [annotation for annotation in annotations if annotation.round == name]
    up_to = [annotation for annotation in annotations if annotation.round in so_far]
    first, second = (measure_agreement(tabulate(part), level=None) for part in (within, up_to))
    return first, second


def _next_round(
    config: CorpusConfig,
    annotations: Sequence[AnnotatorLabel],
    still_open: Sequence[Verdict],
    texts: Texts,
    rounds: Sequence[str],
) -> tuple[dict[str, str], int]:
    """Return the batches of the next round, and for how many open examples nobody is left."""
    options = config.adjudicate
    known = [verdict for verdict in still_open if verdict.id in texts.examples]
    named = [identity(name) for name in options.annotators]
    people = named or sorted({a.annotator for a in annotations})
    if not options.extra or not known:
        return {}, 0
    for name in people:
        check_file_name("adjudicate.annotators", name)
    assignments = assign(
        [verdict.id for verdict in known],
        people,
        per_example=min(options.extra, len(people)),
        seed=options.seed,
        taken={verdict.id: set(verdict.annotators) for verdict in known},
    )
    asked = {identifier: names for identifier, names in assignments.items() if names}
    name = str(int(rounds[-1]) + 1) if rounds[-1].isdecimal() else str(len(rounds) + 1)
    pages = batch_pages(texts.examples, asked, round_name=name, language=config.data.language)
    return pages, len(known) - len(asked)


def _figures(
    config: CorpusConfig,
    verdicts: Sequence[Verdict],
    by_round: Sequence[tuple[str, Agreement, Agreement]],
) -> dict[str, Any]:
    return {
        "rule": config.adjudicate.rule,
        "min_votes": config.adjudicate.min_votes,
        "examples": len(verdicts),
        "labelled": sum(not verdict.open for verdict in verdicts),
        "statuses": _status_counts(verdicts),
        "labels": _label_counts(verdicts, label_order(config)),
        "rounds": [
            {
                "round": name,
                "examples": within.examples,
                "judgements": within.judgements,
                **{key: within.coefficients[key].value for key in _COEFFICIENTS},
                "up_to_here": {key: up_to.coefficients[key].value for key in _COEFFICIENTS},
            }
            for name, within, up_to in by_round
        ],
        "open": [verdict.id for verdict in verdicts if verdict.open],
    }


def _status_counts(verdicts: Sequence[Verdict]) -> dict[str, int]:
    counts = Counter(verdict.status for verdict in verdicts)
    return {status: counts[status] for status in STATUSES}  # type: ignore[index]


def _label_counts(verdicts: Sequence[Verdict], order: Sequence[str]) -> dict[str, int]:
    counts = Counter(verdict.label for verdict in verdicts if verdict.label is not None)
    ordered = [label for label in dict.fromkeys(order) if label in counts]
    return {label: counts[label] for label in (*ordered, *sorted(set(counts) - set(ordered)))}


def _sheets(
    config: CorpusConfig,
    verdicts: Sequence[Verdict],
    by_round: Sequence[tuple[str, Agreement, Agreement]],
) -> tuple[ReportTable, ...]:
    statuses = _status_counts(verdicts)
    labels = _label_counts(verdicts, label_order(config))
    return (
        table_of(
            "What became of the examples",
            statuses,
            {
                "status": str,
                "meaning": lambda status: STATUSES[status],
                "examples": lambda status: f"{statuses[status]:,}",
            },
        ),
        table_of(
            "Final labels", labels, {"label": str, "examples": lambda label: f"{labels[label]:,}"}
        ),
        table_of(
            "Agreement in each round, and over all rounds up to it",
            by_round,
            {
                "round": lambda row: row[0],
                "examples": lambda row: f"{row[1].examples:,}",
                "annotations": lambda row: f"{row[1].judgements:,}",
                "Cohen's kappa": lambda row: _kappa(row[1], "mean_pairwise_cohen_kappa"),
                "alpha": lambda row: _kappa(row[1], "krippendorff_alpha"),
                "alpha up to here": lambda row: _kappa(row[2], "krippendorff_alpha"),
            },
        ),
    )


def _kappa(found: Agreement, name: str) -> str:
    return kappa_text(found.coefficients[name].value)


def _row(verdict: Verdict) -> Mapping[str, Any]:
    return {
        "id": verdict.id,
        "session": verdict.session or "",
        "status": verdict.status,
        "label": verdict.label or "",
        "votes": ", ".join(f"{label} {n}" for label, n in verdict.votes.items()),
        "annotators": ", ".join(verdict.annotators),
    }


def _notes(
    config: CorpusConfig,
    verdicts: Sequence[Verdict],
    texts: Texts,
    next_round: Mapping[str, str],
    nobody_left: int,
) -> list[str]:
    options = config.adjudicate
    wins = "more than half of the votes" if options.rule == "majority" else "most votes"
    notes = [f"a label wins with {wins}, {options.min_votes} or more (Section 4.2 leaves it open)"]
    n_open = sum(verdict.open for verdict in verdicts)
    if n_open:
        notes.append(
            f"{TODO}: what is open ({n_open:,}); fill in final_label and give the file back with "
            f"adjudicate.decisions={TODO}"
        )
    if next_round:
        folder = next(iter(next_round)).split("/")[0]
        notes.append(f"{folder}/: the open examples as batches for {len(next_round)} annotators")
    if nobody_left:
        notes.append(
            f"annotated by everybody and still open: {nobody_left:,}; decide them by hand, or name "
            "others with adjudicate.annotators"
        )
    if texts.records:
        notes.append(f"{LABELS}: the data under the final labels, for data=dialogues")
        if texts.unknown:
            notes.append(f"{texts.unknown:,} annotated examples are not in the data")
    else:
        notes.append(f"no {LABELS}: name the dialogues with data=... data.path=...")
    return notes
