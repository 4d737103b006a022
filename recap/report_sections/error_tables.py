"""The tables of the errors of several runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from recap.analysis.confusions import KindCount
from recap.analysis.grouped_scores import GroupScores
from recap.analysis.hard_examples import WrongInAll
from recap.analysis.intervals import Interval
from recap.report_sections.judged_errors import MOST_GROUPS, JudgedErrors
from recap.report_sections.options import ReportConfig
from recap.reporting.sheets import Sheet

_DASH = "–"
_RANKED = 10
"""Confusions of each run that the table holds; the figures have all."""

_IDS = 8
"""Ids of a kind of error that the table holds."""

_HARD = 10
"""Hardest examples of each run that the table holds."""

UNREADABLE = "unreadable"
"""What tables and figures call answers without a label."""


def error_tables(
    judged: Sequence[JudgedErrors],
    shared: Mapping[str, WrongInAll],
    *,
    texts: Mapping[str, str],
) -> tuple[Sheet, ...]:
    """Return the tables; those with nothing in them are left out.

    Args:
        judged: The runs.
        shared: What all runs of a task got wrong, by the task's name.
        texts: Responses by id, to stand beside ids; empty: ids alone.
    """
    tables = [
        _overall(judged),
        _confusions(judged),
        _kinds(judged),
        _patterns(judged),
        *_breakdowns(judged),
        _hardest(judged, texts),
        _shared(shared),
    ]
    return tuple(table for table in tables if table.rows)


def error_notes(judged: Sequence[JudgedErrors], options: ReportConfig) -> Iterator[str]:
    """Yield what has to be known to read the tables."""
    yield (
        "Scores are over the predictions of all folds together, and so differ a little from means "
        "over folds. Macro-F1 of a group is the mean over the labels with gold examples in it. "
        "Overconfidence: mean probability of the answers minus the share of right ones, in "
        "percentage points."
    )
    if options.resamples:
        yield (
            f"Intervals: {100 * options.confidence:g} %, percentiles of {options.resamples} "
            f"bootstrap resamples of whole sessions, seed {options.seed}; none for a single "
            "session. They are not corrected for the number of groups: of twenty groups one "
            "leaves its interval by chance."
        )
    hidden = {
        b.by: b.n_groups for one in judged for b in one.breakdowns if b.n_groups > MOST_GROUPS
    }
    for by, n in hidden.items():
        yield f"Of the {n:,} groups of {by}, the {MOST_GROUPS} with the most examples are shown."
    if any(b.by == "position" for one in judged for b in one.breakdowns):
        yield (
            "Position: among the utterances of a session that were read; sessions of fewer than "
            "three, and utterances without a session or a turn, are left out."
        )
    if any(one.missed_by_negation for one in judged):
        yield (
            "Overt negation: a word such as no, not, never or n't, or one of 不 没 无 别 未, in "
            "the response. The paper (Section 6.3) finds that resistance without one is taken for "
            "collaboration."
        )
    if any(one.patterns is not None for one in judged):
        yield (
            "Within the pattern: wrong answers whose pattern is right; by chance: if each were one "
            "of the other labels, as often as they are answered in all."
        )


def _overall(judged: Sequence[JudgedErrors]) -> Sheet:
    return Sheet(
        title="All examples, %",
        header=("run", *_GROUP_HEADER[1:]),
        rows=tuple((one.run, *_group_cells(one.overall)) for one in judged),
    )


_GROUP_HEADER = ("group", "n", "sessions", "macro-F1", "accuracy", "overconfidence")


def _group_cells(group: GroupScores) -> tuple[str, ...]:
    return (
        f"{group.n:,}",
        f"{group.sessions:,}",
        _interval(group.macro_f1),
        _interval(group.accuracy),
        _interval(group.overconfidence),
    )


def _confusions(judged: Sequence[JudgedErrors]) -> Sheet:
    rows = [
        (
            one.run,
            confusion.gold,
            confusion.predicted or UNREADABLE,
            f"{confusion.count:,}",
            _percent(confusion.share_of_gold),
            _percent(confusion.share_of_errors),
        )
        for one in judged
        for confusion in one.confusions[:_RANKED]
    ]
    return Sheet(
        title="Most frequent confusions",
        header=("run", "gold", "answered", "examples", "% of gold", "% of errors"),
        rows=tuple(rows),
        text_columns=(0, 1, 2),
    )


def _kinds(judged: Sequence[JudgedErrors]) -> Sheet:
    rows: list[tuple[str, ...]] = []
    for one in judged:
        for count in one.kinds:
            rows.append((one.run, count.kind.name, *_kind_cells(count)))
        for wording, count in one.missed_by_negation.items():
            rows.append((one.run, f"… {wording}", *_kind_cells(count)))
    return Sheet(
        title="The two kinds of errors that the paper names (Section 6.3)",
        header=("run", "kind", "gold", "errors", "% of gold", "% of their errors", "ids"),
        rows=tuple(rows),
        text_columns=(0, 1, 6),
    )


def _kind_cells(count: KindCount) -> tuple[str, ...]:
    return (
        f"{count.n:,}",
        f"{count.count:,}",
        _interval(count.share),
        _percent(count.share_of_errors),
        _listed(count.ids),
    )


def _patterns(judged: Sequence[JudgedErrors]) -> Sheet:
    rows = []
    for one in judged:
        found = one.patterns
        if found is not None:
            f1 = [f"{name} {_percent(row.f1)}" for name, row in found.scores.per_label.items()]
            rows.append(
                (
                    one.run,
                    _percent(found.scores.metrics["macro_f1"]),
                    _percent(found.scores.metrics["accuracy"]),
                    f"{found.errors:,}",
                    _percent(found.within),
                    _percent(found.within_by_chance),
                    ", ".join(f1),
                )
            )
    return Sheet(
        title="Labels rolled up to patterns, %",
        header=(
            *("run", "macro-F1", "accuracy", "readable errors", "within the pattern"),
            *("by chance", "F1 of each pattern"),
        ),
        rows=tuple(rows),
        text_columns=(0, 6),
    )


def _breakdowns(judged: Sequence[JudgedErrors]) -> Iterator[Sheet]:
    """Yield a table for each property, all runs in it."""
    titles = {b.by: b.title for one in judged for b in one.breakdowns}
    for by, title in titles.items():
        yield Sheet(
            title=f"By {title}, %",
            header=("run", *_GROUP_HEADER),
            rows=tuple(
                (one.run, group.group, *_group_cells(group))
                for one in judged
                for breakdown in one.breakdowns
                if breakdown.by == by
                for group in breakdown.groups
            ),
            text_columns=(0, 1),
        )


def _hardest(judged: Sequence[JudgedErrors], texts: Mapping[str, str]) -> Sheet:
    rows = [
        (
            one.run,
            example.id,
            example.gold,
            example.label or UNREADABLE,
            "" if example.gold_probability is None else f"{example.gold_probability:.2g}",
            *_words(example.id, texts),
        )
        for one in judged
        for example in one.hardest[:_HARD]
    ]
    header = ("run", "id", "gold", "answered", "probability of gold")
    return Sheet(
        title="Hardest examples: lowest probability of the gold label",
        header=(*header, *_words_header(texts)),
        rows=tuple(rows),
        text_columns=(0, 1, 2, 3, *([5] if texts else [])),
    )


def _shared(shared: Mapping[str, WrongInAll]) -> Sheet:
    rows = [
        (
            task,
            f"{found.runs:,}",
            f"{found.examples:,}",
            f"{len(found.ids):,}",
            f"{found.by_chance:.1f}",
            f"{found.same_answer:,}",
            ", ".join(f"{gold} {n}" for gold, n in found.by_gold.items()),
            _listed(found.ids),
        )
        for task, found in shared.items()
    ]
    return Sheet(
        title="Wrong in all runs of a task",
        header=(
            *("task", "runs", "examples", "wrong in all", "by chance", "same answer"),
            *("gold labels", "ids"),
        ),
        rows=tuple(rows),
        text_columns=(0, 6, 7),
    )


def _words(key: str, texts: Mapping[str, str]) -> tuple[str, ...]:
    return (" ".join(texts.get(key, "").split()),) if texts else ()


def _words_header(texts: Mapping[str, str]) -> tuple[str, ...]:
    return ("response",) if texts else ()


def _listed(ids: Sequence[str]) -> str:
    more = len(ids) - _IDS
    return ", ".join(ids[:_IDS]) + (f" and {more:,} more" if more > 0 else "")


def _percent(share: float | None) -> str:
    return _DASH if share is None else f"{100 * share:.1f}"


def _interval(found: Interval) -> str:
    if found.low is None or found.high is None:
        return _percent(found.value)
    return f"{_percent(found.value)} [{_percent(found.low)}, {_percent(found.high)}]"
