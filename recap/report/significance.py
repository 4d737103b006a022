"""Two systems over the same folds: three tests that answer three questions.

* The corrected t-test over folds
  (:func:`recap.statistics.hypothesis_tests.corrected_t_test`): would training
  again, on other data of this kind, favor the same system?
* McNemar's test over examples: are these answers right more often than those? Exact, and only where
  examples are independent.
* The bootstrap over sessions of the difference of pooled macro-F1: do these models differ on the
  sessions that the data are a sample of? Neither of the last two knows that another training would
  give other models.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt

import numpy as np

from recap.errors import ConfigError, DataError, quote_id
from recap.metrics.scores import score, session_confusions, stacked
from recap.records import Prediction
from recap.statistics.bootstrap import ScoreDifferences, difference_intervals
from recap.statistics.correlation import holm
from recap.statistics.hypothesis_tests import McNemar, TTest, corrected_t_test, mcnemar

TESTS = ("corrected_t", "mcnemar", "bootstrap")
"""Names of the tests; each is corrected over all comparisons by itself."""


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """What a comparison needs to know of a run."""

    name: str
    task: str
    labels: tuple[str, ...]
    partition: str
    """The hash of which example is tested in which fold."""
    n_folds: int
    """Of the partition, whether or not they are finished."""
    folds: Mapping[int, tuple[Prediction, ...]]
    """Predictions of the finished folds."""


@dataclass(frozen=True, kw_only=True)
class ComparedSystem:
    """A run, or its repetitions under other seeds."""

    name: str
    runs: tuple[ComparedRun, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two systems, first minus second."""

    first: str
    second: str
    n_repeats: int
    """Partitions that both were run over."""
    folds: tuple[int, ...]
    """The fold of each difference, partition after partition."""
    differences: tuple[float, ...]
    """Of macro-F1, a fold each; repetitions over one partition are averaged."""
    t_test: TTest | None
    """Corrected; ``None`` for a single fold."""
    mcnemar: McNemar | None
    """``None`` where one of them was run several times over these folds."""
    pooled: ScoreDifferences
    """Of the predictions of all folds together."""
    reasons: Mapping[str, str]
    """Why a test has no p, by its name."""
    p_holm: Mapping[str, float | None] = field(default_factory=dict)
    """p values by test, adjusted over the family of comparisons."""

    @property
    def p(self) -> dict[str, float | None]:
        """The p values by test."""
        return {
            "corrected_t": self.t_test.p if self.t_test else None,
            "mcnemar": self.mcnemar.p if self.mcnemar else None,
            "bootstrap": self.pooled.macro_f1_p,
        }


def with_holm(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Return comparisons with p values adjusted by Holm's rule, every test over all of them."""
    adjusted = {test: holm([each.p[test] for each in comparisons]) for test in TESTS}
    return tuple(
        replace(each, p_holm={test: adjusted[test][i] for test in TESTS})
        for i, each in enumerate(comparisons)
    )


def compare(
    first: ComparedSystem, second: ComparedSystem, *, resamples: int, confidence: float, seed: int
) -> Comparison:
    """Return one comparison of two systems, over the folds that all their runs have finished.

    Raises:
        ConfigError: When tasks differ, or no fold of one partition is finished in both.
        DataError: When a fold holds other examples, or other gold labels, in one of the runs.
    """
    _refuse_other_task(first, second)
    partitions = _shared_partitions(first, second)
    matched = {partition: _matched(first, second, partition) for partition in partitions}
    differences, folds = [], []
    for runs in matched.values():
        for fold in runs.folds:
            one, other = (
                np.mean([_macro_f1(run, run.folds[fold]) for run in part])
                for part in (runs.first, runs.second)
            )
            differences.append(float(one - other))
            folds.append(fold)
    single = len(matched) == 1 and all(
        len(runs.first) == len(runs.second) == 1 for runs in matched.values()
    )
    t_test = None
    if len(differences) > 1:
        t_test = corrected_t_test(
            np.array(differences),
            np.zeros(len(differences)),
            test_to_train=1 / (first.runs[0].n_folds - 1),
            confidence=confidence,
        )
    pooled = _pooled(tuple(matched.values()), resamples, confidence, seed)
    return Comparison(
        first=first.name,
        second=second.name,
        n_repeats=len(partitions),
        folds=tuple(folds),
        differences=tuple(differences),
        t_test=t_test,
        mcnemar=_mcnemar(next(iter(matched.values()))) if single else None,
        pooled=pooled,
        reasons=_reasons(t_test, pooled, single=single, resamples=resamples),
    )


@dataclass(frozen=True, kw_only=True)
class _Matched:
    """The runs of two systems over one partition; predictions of shared folds, ordered by id."""

    folds: tuple[int, ...]
    first: tuple[ComparedRun, ...]
    second: tuple[ComparedRun, ...]


def _refuse_other_task(first: ComparedSystem, second: ComparedSystem) -> None:
    here, there = first.runs[0], second.runs[0]
    if here.labels != there.labels:
        raise ConfigError(
            f"{here.name} tells {len(here.labels)} labels apart (task {here.task!r}), {there.name} "
            f"{len(there.labels)} (task {there.task!r}); compare runs of one task"
        )


def _shared_partitions(first: ComparedSystem, second: ComparedSystem) -> list[str]:
    theirs = {run.partition for run in second.runs}
    shared = list(dict.fromkeys(run.partition for run in first.runs if run.partition in theirs))
    if not shared:
        raise ConfigError(
            f"{first.runs[0].name} has the partition {first.runs[0].partition}, "
            f"{second.runs[0].name} the partition {second.runs[0].partition}: fold k of one is not "
            "fold k of the other; run both with the same data and cv options"
        )
    return shared


def _matched(first: ComparedSystem, second: ComparedSystem, partition: str) -> _Matched:
    ours = [run for run in first.runs if run.partition == partition]
    theirs = [run for run in second.runs if run.partition == partition]
    runs = [*ours, *theirs]
    folds = sorted(set.intersection(*(set(run.folds) for run in runs)))
    if not folds:
        raise ConfigError(
            f"{first.name} and {second.name} have no finished fold in common; finish the folds of "
            "both (the same command goes on where it was)"
        )
    reference = {fold: {p.id: p for p in runs[0].folds[fold]} for fold in folds}
    for run in runs[1:]:
        _refuse_other_examples(runs[0], run, reference)
    ordered = [
        replace(run, folds={k: tuple(sorted(run.folds[k], key=lambda p: p.id)) for k in folds})
        for run in runs
    ]
    return _Matched(
        folds=tuple(folds), first=tuple(ordered[: len(ours)]), second=tuple(ordered[len(ours) :])
    )


def _refuse_other_examples(
    here: ComparedRun, there: ComparedRun, reference: Mapping[int, Mapping[str, Prediction]]
) -> None:
    for fold, expected in reference.items():
        found = {p.id: p for p in there.folds[fold]}
        strangers = sorted(expected.keys() ^ found.keys()) or sorted(
            key
            for key, p in found.items()
            if (p.gold, p.session) != (expected[key].gold, expected[key].session)
        )
        if strangers:
            raise DataError(
                f"fold {fold} of {here.name} and of {there.name} does not hold the same examples: "
                f"example {quote_id(strangers[0])} is in one alone, or has another gold label or "
                f"session ({len(strangers)} such); run both on the same data"
            )


def _macro_f1(run: ComparedRun, predictions: Sequence[Prediction]) -> float:
    return float(score(predictions, task=run.task, labels=run.labels).metrics["macro_f1"] or 0.0)


def _mcnemar(runs: _Matched) -> McNemar:
    one, other = (
        [p.label == p.gold for fold in runs.folds for p in part[0].folds[fold]]
        for part in (runs.first, runs.second)
    )
    return mcnemar(one, other)


def _pooled(
    matched: Sequence[_Matched], resamples: int, confidence: float, seed: int
) -> ScoreDifferences:
    confusions = [
        [
            session_confusions(
                (p for fold in runs.folds for p in run.folds[fold]),
                task=run.task,
                labels=run.labels,
            )
            for runs in matched
            for run in (runs.first if side == 0 else runs.second)
        ]
        for side in (0, 1)
    ]
    units = sorted({unit for side in confusions for run in side for unit in run})
    first, second = ([stacked(run, units) for run in side] for side in confusions)
    return difference_intervals(
        first, second, resamples=resamples, confidence=confidence, seed=seed
    )


def _reasons(
    t_test: TTest | None, pooled: ScoreDifferences, *, single: bool, resamples: int
) -> dict[str, str]:
    reasons = {}
    if t_test is None:
        reasons["corrected_t"] = "one fold has no variance"
    elif t_test.p is None:
        reasons["corrected_t"] = "the difference is the same in every fold"
    if not single:
        reasons["mcnemar"] = "several runs of a system answer each example several times"
    if pooled.macro_f1_p is None:
        reasons["bootstrap"] = (
            "no resamples were asked for"
            if resamples == 0
            else "no session makes a difference"
            if pooled.n_units > 1
            else "there is only one session"
        )
    return reasons


@dataclass(frozen=True, kw_only=True)
class RepeatSpread:
    """Mean and sample standard deviations (ddof 1) of one figure over repeats and folds."""

    n_repeats: int
    mean: float
    """Of all repeats' means."""
    means: tuple[float, ...]
    """Of each repeat over its folds."""
    std_within: float | None
    """Over the folds of a repeat, pooled over repeats; ``None`` where each has one fold."""
    std_between: float | None
    """Of the repeats' means; ``None`` for one repeat."""


def repeat_spread(values: Sequence[Sequence[float]]) -> RepeatSpread:
    """Return how a figure varies from fold to fold and from repeat to repeat.

    Args:
        values: Of every repeat its folds' values, at least one of each.

    >>> found = repeat_spread([[0.5, 0.7], [0.7, 0.9]])
    >>> round(found.mean, 6), round(found.std_within or 0, 6), round(found.std_between or 0, 6)
    (0.7, 0.141421, 0.141421)
    """
    means = tuple(statistics.fmean(folds) for folds in values)
    freedom = sum(len(folds) - 1 for folds in values)
    squares = sum(
        (value - mean) ** 2 for folds, mean in zip(values, means, strict=True) for value in folds
    )
    return RepeatSpread(
        n_repeats=len(values),
        mean=statistics.fmean(means),
        means=means,
        std_within=sqrt(squares / freedom) if freedom else None,
        std_between=statistics.stdev(means) if len(means) > 1 else None,
    )
