"""``action=adjudicate``: votes become final labels; a file and a next round for what is open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from recap.analysis.adjudication import STATUSES, Verdict, adjudicate, decide
from recap.analysis.agreement import Agreement, measure_agreement
from recap.analysis.assignment import Assignment, assign
from recap.analysis.judgements import Judgement, rounds_of, tabulate
from recap.corpus_actions.adjudicated import Texts, label_records, read_decisions, read_texts
from recap.corpus_actions.agreement import kappa_text
from recap.corpus_actions.annotations import label_order, open_annotations, reading_notes
from recap.corpus_actions.batches import batch_pages, check_file_name
from recap.corpus_actions.options import CorpusConfig
from recap.corpus_actions.overwriting import keep_filled_in
from recap.data.doccano_batches import document_text
from recap.data.native_lines import records_to_jsonl
from recap.data.safe_cells import sheet_to_csv
from recap.reporting.findings import Findings
from recap.reporting.sheets import Sheet

TODO = "todo.csv"
"""The file of what is open; its column ``final_label`` is to be filled in."""

LABELS = "labels.jsonl"
"""The data under its final labels."""

_TODO_HEADER = ("id", "session", "status", "votes", "annotators", "dialogue", "final_label", "note")
_COEFFICIENTS = ("mean_pairwise_cohen_kappa", "fleiss_kappa", "krippendorff_alpha")


def adjudicate_labels(config: CorpusConfig) -> Findings:
    """Return the final labels and what is still open.

    Raises:
        ConfigError: When no annotations are named.
        DataError: When a file cannot be used.
    """
    options = config.adjudicate
    read = open_annotations(config)
    rounds = rounds_of(read.judgements)
    in_order = sorted(read.judgements, key=lambda judgement: rounds.index(judgement.round))
    voted = adjudicate(in_order, rule=options.rule, min_votes=options.min_votes)
    decisions = read_decisions(config, {verdict.id for verdict in voted})
    verdicts = decide(voted, decisions)
    texts = read_texts(config, {verdict.id for verdict in verdicts})
    by_round = [(name, *_agreements(in_order, rounds, name)) for name in rounds]
    still_open = [verdict for verdict in verdicts if verdict.open]
    next_round, nobody_left = _next_round(config, read.judgements, still_open, texts, rounds)
    pages = {**next_round, TODO: _todo(still_open, texts, config.data.language)}
    keep_filled_in(config, pages)
    if texts.records:
        pages[LABELS] = records_to_jsonl(label_records(texts.records, verdicts))
    return Findings(
        action="adjudicate",
        title=f"{len(verdicts) - len(still_open):,} of {len(verdicts):,} examples have a label",
        figures=_figures(config, verdicts, by_round),
        sheets=(
            _statuses(verdicts),
            _labels(verdicts, label_order(config)),
            _rounds(by_round),
        ),
        notes=(
            *texts.notes,
            *reading_notes(read),
            *_notes(config, verdicts, texts, next_round, nobody_left),
        ),
        rows=[_row(verdict) for verdict in verdicts],
        private_pages=pages,
    )


def _agreements(
    judgements: Sequence[Judgement], rounds: Sequence[str], name: str
) -> tuple[Agreement, Agreement]:
    """Return the agreement within a round, and over all rounds up to it."""
    so_far = rounds[: rounds.index(name) + 1]
    within = [judgement for judgement in judgements if judgement.round == name]
    up_to = [judgement for judgement in judgements if judgement.round in so_far]
    first, second = (measure_agreement(tabulate(part), replicates=0) for part in (within, up_to))
    return first, second


def _next_round(
    config: CorpusConfig,
    judgements: Sequence[Judgement],
    still_open: Sequence[Verdict],
    texts: Texts,
    rounds: Sequence[str],
) -> tuple[dict[str, str], int]:
    """Return the batches of the next round, and for how many open examples nobody is left."""
    options = config.adjudicate
    known = [verdict for verdict in still_open if verdict.id in texts.examples]
    people = options.annotators or sorted({judgement.annotator for judgement in judgements})
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
    asked = [Assignment(id=a.id, annotators=a.annotators) for a in assignments if a.annotators]
    name = str(int(rounds[-1]) + 1) if rounds[-1].isdecimal() else str(len(rounds) + 1)
    pages = batch_pages(texts.examples, asked, round_name=name, language=config.data.language)
    return pages, len(known) - len(asked)


def _todo(still_open: Sequence[Verdict], texts: Texts, language: str | None) -> str:
    return sheet_to_csv(
        _TODO_HEADER,
        (
            (
                verdict.id,
                verdict.session or "",
                verdict.status,
                _votes(verdict),
                ", ".join(verdict.annotators),
                document_text(texts.examples[verdict.id], language=language)
                if verdict.id in texts.examples
                else "",
                "",
                "",
            )
            for verdict in still_open
        ),
    )


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
        "labels": dict(_label_counts(verdicts, label_order(config))),
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


def _label_counts(verdicts: Sequence[Verdict], order: Sequence[str]) -> list[tuple[str, int]]:
    counts = Counter(verdict.label for verdict in verdicts if verdict.label is not None)
    ordered = [label for label in dict.fromkeys(order) if label in counts]
    return [(label, counts[label]) for label in (*ordered, *sorted(set(counts) - set(ordered)))]


def _statuses(verdicts: Sequence[Verdict]) -> Sheet:
    return Sheet(
        title="What became of the examples",
        header=("status", "meaning", "examples"),
        rows=tuple(
            (status, STATUSES[status], f"{n:,}") for status, n in _status_counts(verdicts).items()
        ),
    )


def _labels(verdicts: Sequence[Verdict], order: Sequence[str]) -> Sheet:
    return Sheet(
        title="Final labels",
        header=("label", "examples"),
        rows=tuple((label, f"{n:,}") for label, n in _label_counts(verdicts, order)),
    )


def _rounds(by_round: Sequence[tuple[str, Agreement, Agreement]]) -> Sheet:
    return Sheet(
        title="Agreement in each round, and over all rounds up to it",
        header=("round", "examples", "judgements", "Cohen's kappa", "alpha", "alpha up to here"),
        rows=tuple(
            (
                name,
                f"{within.examples:,}",
                f"{within.judgements:,}",
                kappa_text(within.coefficients["mean_pairwise_cohen_kappa"].value),
                kappa_text(within.coefficients["krippendorff_alpha"].value),
                kappa_text(up_to.coefficients["krippendorff_alpha"].value),
            )
            for name, within, up_to in by_round
        ),
    )


def _row(verdict: Verdict) -> Mapping[str, Any]:
    return {
        "id": verdict.id,
        "session": verdict.session or "",
        "status": verdict.status,
        "label": verdict.label or "",
        "votes": _votes(verdict),
        "annotators": ", ".join(verdict.annotators),
    }


def _votes(verdict: Verdict) -> str:
    return ", ".join(f"{label} {n}" for label, n in verdict.votes.items())


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
            f"judged by everybody and still open: {nobody_left:,}; decide them by hand, or name "
            "others with adjudicate.annotators"
        )
    if texts.records:
        notes.append(f"{LABELS}: the data under the final labels, for data=dialogues")
        if texts.unknown:
            notes.append(f"{texts.unknown:,} judged examples are not in the data")
    else:
        notes.append(f"no {LABELS}: name the dialogues with data=... data.path=...")
    return notes
