"""Predictions in sessions, with a macro-F1 that is known: how often does an interval hold it?

A session has labels and difficulties of its own: its shares of labels are Dirichlet, and the rate
at which its examples of a label are answered rightly is Beta, high or low for all its labels
together, both around the population's and with the intra-session correlation that is asked for. The
population's confusion matrix, and with it the true scores, follow without simulation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from recap.statistics.bootstrap import (
    Interval,
    bootstrap,
    difference_intervals,
    ratio_parts,
    score_intervals,
)

Array = npt.NDArray[Any]
LEVEL = 0.95
RESAMPLES = 999
MEAN_SIZE = 20
"""Examples a session on average; negative binomial with two successes, at least one."""
INVALID = 0.02
"""Share of wrong answers in which no label could be read."""
THIRTEEN = (682, 1094, 422, 1698, 336, 368, 856, 586, 384, 1018, 850, 1040, 1064)
"""Examples of the thirteen behaviours in ClientResistance (Table 3 of the paper)."""


@dataclass(frozen=True, kw_only=True)
class CoverageSetting:
    """A task, a number of sessions and the correlation within them."""

    labels: Literal["two", "thirteen"]
    sessions: int
    correlation: float


@dataclass(frozen=True, kw_only=True)
class Population:
    """What is true of all sessions together."""

    shares: Array
    """Of the labels."""
    right: Array
    """Of each label, the share that is answered rightly."""
    wrong: Array
    """``(labels, labels + 1)``: of each label's wrong answers, the share of each."""

    @property
    def confusion(self) -> Array:
        """Shares ``(labels, labels + 1)`` that add up to 1."""
        cells = self.shares[:, None] * (1 - self.right)[:, None] * self.wrong
        cells[:, :-1] += np.diag(self.shares * self.right)
        return cells


@cache
def population(labels: Literal["two", "thirteen"]) -> Population:
    """Return a population like the paper's, its larger classes the easier ones."""
    shares = np.array([0.43, 0.57]) if labels == "two" else np.array(THIRTEEN) / sum(THIRTEEN)
    n = len(shares)
    right = np.array([0.90, 0.92])
    if labels == "thirteen":
        right = np.linspace(0.45, 0.85, n)[shares.argsort().argsort()]
    wrong = np.tile(shares * (1 - INVALID), (n, 1))
    np.fill_diagonal(wrong, 0)
    wrong *= (1 - INVALID) / wrong.sum(axis=1, keepdims=True)
    return Population(
        shares=shares, right=right, wrong=np.hstack([wrong, np.full((n, 1), INVALID)])
    )


def true_scores(truth: Population) -> dict[str, float]:
    """Return macro-F1, accuracy and the F1 of the rarest label."""
    top, bottom = ratio_parts(truth.confusion[None])
    f1 = (top / bottom)[0, :-1]
    return {
        "macro_f1": float(f1.mean()),
        "accuracy": float(truth.shares @ truth.right),
        "rarest_label_f1": float(f1[truth.shares.argmin()]),
    }


def replicate(
    setting: CoverageSetting, replications: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Return how often each interval holds the truth, over so many data sets.

    ``held``, ``below`` (the interval ends below the truth), ``above`` and ``none`` are counts by
    the name of the interval; ``width`` is summed. What takes longest is done once in five.
    """
    truth = population(setting.labels)
    true = true_scores(truth)
    names = tuple(map(str, range(len(truth.shares))))
    counts: dict[str, dict[str, float]] = {}
    for replication in range(replications):
        first, second = draw(setting, truth, rng)
        seed = int(rng.integers(2**31))
        drawn: Mapping[str, Any] = {"resamples": RESAMPLES, "confidence": LEVEL, "seed": seed}
        found = score_intervals(first, names, **drawn)
        differing = difference_intervals([first], [second], **drawn)
        rarest = found.per_label[names[truth.shares.argmin()]]
        for name, interval, value in (
            ("macro_f1", found.macro_f1, true["macro_f1"]),
            ("accuracy", found.accuracy, true["accuracy"]),
            ("rarest_label_f1", rarest, true["rarest_label_f1"]),
            ("macro_f1_difference", differing.macro_f1, 0.0),
            ("macro_f1_percentile", percentile_interval(first, seed), true["macro_f1"]),
        ):
            _count(counts.setdefault(name, {}), interval, value)
        if replication % 5 == 0:
            ignoring = _ignoring_sessions(first, names, drawn)
            _count(counts.setdefault("macro_f1_examples", {}), ignoring, true["macro_f1"])
    return {"intervals": counts}


def draw(
    setting: CoverageSetting, truth: Population, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return the confusions ``(sessions, labels, labels + 1)`` of two equally good systems.

    Both answer the same examples, and find the same sessions hard.
    """
    n, labels = setting.sessions, len(truth.shares)
    sizes = 1 + rng.negative_binomial(2, 2 / (1 + MEAN_SIZE), size=n)
    session = np.repeat(np.arange(n), sizes)
    mix, right = _of_sessions(setting, truth, rng)
    gold = _choose(mix[session], rng)
    systems = []
    luck = rng.uniform(size=len(session))
    for _ in range(2):
        # Half of the examples are as hard for one system as for the other.
        own = np.where(rng.uniform(size=len(session)) < 0.5, luck, rng.uniform(size=len(session)))
        wrong = _choose(truth.wrong[gold], rng)
        said = np.where(own < right[session, gold], gold, wrong)
        confusion = np.zeros((n, labels, labels + 1))
        np.add.at(confusion, (session, gold, said), 1)
        systems.append(confusion)
    return systems[0], systems[1]


def percentile_interval(confusions: Array, seed: int) -> Interval:
    """Return the plain percentile interval of macro-F1 over the same resampling, to compare."""
    top, bottom = (part[:, :-1] for part in ratio_parts(confusions))

    def macro_f1(weights: Array) -> Array:
        below = weights @ bottom
        f1 = np.divide(weights @ top, below, out=np.zeros_like(below), where=below > 0)
        return f1.mean(axis=1, keepdims=True)

    [interval] = bootstrap(macro_f1, len(top), resamples=RESAMPLES, confidence=LEVEL, seed=seed)
    return interval


def _ignoring_sessions(
    confusions: Array, names: tuple[str, ...], drawn: Mapping[str, Any]
) -> Interval:
    """Return the interval that takes examples for independent, to compare."""
    total = confusions.sum(axis=0)
    cells = np.argwhere(total > 0)
    often = total[tuple(cells.T)].astype(int)
    each = np.repeat(cells, often, axis=0)
    alone = np.zeros((len(each), *total.shape))
    alone[np.arange(len(each)), each[:, 0], each[:, 1]] = 1
    return score_intervals(alone, names, **drawn).macro_f1


def _of_sessions(
    setting: CoverageSetting, truth: Population, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return every session's shares of labels and rates of right answers."""
    n = setting.sessions
    if setting.correlation == 0:
        return np.tile(truth.shares, (n, 1)), np.tile(truth.right, (n, 1))
    # Dirichlet and Beta with this total have 1 / (total + 1) as their intra-class correlation.
    total = 1 / setting.correlation - 1
    mix = rng.dirichlet(truth.shares * total, size=n)
    ease = rng.uniform(size=(n, 1))
    return mix, special.betaincinv(truth.right * total, (1 - truth.right) * total, ease)


def _choose(shares: Array, rng: np.random.Generator) -> Array:
    """Return an index a row, drawn with the row's shares."""
    up_to = shares.cumsum(axis=1)
    drawn = rng.uniform(size=(len(shares), 1)) * up_to[:, -1:]
    return (drawn > up_to[:, :-1]).sum(axis=1)


def _count(counts: dict[str, float], interval: Interval, truth: float) -> None:
    low, high = interval.low, interval.high
    for name in ("held", "below", "above", "none", "width"):
        counts.setdefault(name, 0)
    if low is None or high is None:
        counts["none"] += 1
        return
    counts["width"] += high - low
    counts["below" if high < truth else "above" if low > truth else "held"] += 1
