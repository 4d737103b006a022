"""The errors of one run: by group, by kind, by pattern, and the hardest examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recap.analysis.confusions import (
    SUBTLE,
    Confusion,
    Kind,
    KindCount,
    PatternErrors,
    count_kind,
    named_kinds,
    rank_confusions,
    roll_up,
)
from recap.analysis.grouped_scores import GroupScores, scores_by_group
from recap.analysis.groupings import (
    by_column,
    by_history,
    by_length,
    by_negation,
    by_position,
    largest_groups,
)
from recap.analysis.hard_examples import HardExample, hardest_examples
from recap.errors import ConfigError, did_you_mean
from recap.records import Example, Prediction
from recap.report_sections.options import ReportConfig
from recap.report_sections.runs import ReportedRun
from recap.scoring.confusion import confusion_of

MOST_GROUPS = 20
"""Groups of a column that are shown: those with the most examples."""

MOST_HARD = 20
"""Hardest examples that are listed."""


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """Scores by one property of the examples."""

    by: str
    """Metadata column, ``length``, ``position``, ``history`` or ``negation``."""
    title: str
    groups: tuple[GroupScores, ...]
    n_groups: int
    """Groups that there are, shown or not."""


@dataclass(frozen=True, kw_only=True)
class JudgedErrors:
    """All that was found of one run's errors."""

    run: str
    task: str
    labels: tuple[str, ...]
    overall: GroupScores
    confusion: tuple[tuple[int, ...], ...]
    """Of all folds together."""
    confusions: tuple[Confusion, ...]
    kinds: tuple[KindCount, ...]
    missed_by_negation: Mapping[str, KindCount]
    """The first kind, resistance read as collaboration, by whether the response holds an overt
    negation."""
    patterns: PatternErrors | None
    breakdowns: tuple[Breakdown, ...]
    hardest: tuple[HardExample, ...]


def judge_errors(
    run: ReportedRun, examples: Mapping[str, Example], options: ReportConfig
) -> JudgedErrors:
    """Return all that is found of a run's errors, over the predictions of all folds together.

    Args:
        run: The run.
        examples: By id; empty where the data could not be read, which leaves out what needs them.
        options: Columns to break scores down by; resamples, level and seed of intervals.

    Raises:
        ConfigError: For a column of ``by`` that no example has.
    """
    predictions, labels = run.all_predictions, run.task.labels
    counts = confusion_of(predictions, task=run.task.name, labels=labels)
    drawn: dict[str, Any] = {
        "resamples": options.resamples,
        "confidence": options.confidence,
        "seed": options.seed,
    }
    everything = {p.id: "all" for p in predictions}
    kinds = named_kinds(run.task.taxonomy, labels)
    return JudgedErrors(
        run=run.name,
        task=run.task.name,
        labels=labels,
        overall=scores_by_group(predictions, everything, labels=labels, **drawn)[0],
        confusion=tuple(tuple(int(n) for n in row) for row in counts),
        confusions=rank_confusions(counts, labels),
        kinds=tuple(count_kind(predictions, kind, **drawn) for kind in kinds),
        missed_by_negation=_missed_by_negation(predictions, kinds, examples, drawn),
        patterns=roll_up(counts, labels, run.task.taxonomy, task=run.task.name),
        breakdowns=tuple(
            Breakdown(
                by=grouping.by,
                title=grouping.title,
                groups=scores_by_group(
                    predictions,
                    largest_groups(grouping.group_of, most=MOST_GROUPS),
                    labels=labels,
                    **drawn,
                ),
                n_groups=len(set(grouping.group_of.values())),
            )
            for grouping in _groupings(predictions, examples, options.by)
        ),
        hardest=hardest_examples(predictions, most=MOST_HARD),
    )


@dataclass(frozen=True, kw_only=True)
class _Grouping:
    by: str
    title: str
    group_of: Mapping[str, str]


def _groupings(
    predictions: Sequence[Prediction], examples: Mapping[str, Example], columns: Sequence[str]
) -> list[_Grouping]:
    """Return the groups of the judged examples, by each property that tells any apart."""
    judged = {p.id for p in predictions}
    known = [example for key, example in examples.items() if key in judged]
    if not known:
        return []
    lengths, unit = by_length(known)
    # Where in a session an example lies is told by all that were asked, judged or not.
    third = {key: name for key, name in by_position(examples.values()).items() if key in judged}
    found = [
        _Grouping(by=column, title=column, group_of=_column(known, column)) for column in columns
    ]
    found += [
        _Grouping(by="length", title=f"length of the response, {unit}", group_of=lengths),
        _Grouping(by="position", title="position in the session", group_of=third),
        _Grouping(by="history", title="turns before the response", group_of=by_history(known)),
        _Grouping(by="negation", title="wording of the response", group_of=by_negation(known)),
    ]
    return [grouping for grouping in found if grouping.group_of]


def _column(examples: Sequence[Example], column: str) -> dict[str, str]:
    group_of = by_column(examples, column)
    if not group_of:
        names = dict.fromkeys(["session", "client", *(k for e in examples for k in e.meta)])
        columns = [name for name in names if by_column(examples, name)]
        raise ConfigError(
            f"by={column}: no example has a short text or a number there"
            f"{did_you_mean(column, columns)}; known: {', '.join(columns) or 'none'} (in a table, "
            "data.options.meta=[…] says which columns are carried along)"
        )
    return group_of


def _missed_by_negation(
    predictions: Sequence[Prediction],
    kinds: Sequence[Kind],
    examples: Mapping[str, Example],
    drawn: Mapping[str, Any],
) -> dict[str, KindCount]:
    subtle = next((kind for kind in kinds if kind.name == SUBTLE), None)
    if subtle is None:
        return {}
    wording = by_negation(examples[p.id] for p in predictions if p.id in examples)
    return {
        group: count_kind((p for p in predictions if wording.get(p.id) == group), subtle, **drawn)
        for group in dict.fromkeys(wording.values())
    }
