"""Clusters with a truth that is known: how often does an interval hold it?

Each study draws data in clusters (clients), gives them to what the library computes intervals with,
and names every interval with the truth that it should hold. Within a cluster everything is alike to
the intra-class correlation that is asked for; sizes are equal, or uneven as a geometric
distribution is.

Scores: a cluster has labels and difficulties of its own. Its shares of labels are Dirichlet, and
the rate at which its examples of a label are answered rightly is Beta, high or low for all its
labels together, both around the population's. The population's confusion matrix, and with it the
true scores, follow without simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from recap.data.annotations import AnnotationTable
from recap.statistics.agreement import measure_agreement
from recap.statistics.clusters import Interval
from recap.statistics.correlation import correlate
from recap.statistics.score_intervals import (
    difference_intervals,
    ratio_parts,
    score_intervals,
)
from recap.statistics.sessions import SessionCounts, correct_shares, prevalence

Array = npt.NDArray[Any]
Held = Iterator[tuple[str, Interval, float]]
"""Name, interval and truth."""
LEVEL = 0.95
MEAN_SIZE = 20
"""Examples a cluster on average."""
INVALID = 0.02
"""Share of wrong answers in which no label could be read."""
THIRTEEN = (682, 1094, 422, 1698, 336, 368, 856, 586, 384, 1018, 850, 1040, 1064)
"""Examples of the thirteen behaviours in ClientResistance (Table 3 of the paper)."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is drawn."""

    study: str
    """One of :data:`STUDIES`."""
    clusters: int
    correlation: float
    """Within clusters."""
    share: float = 0.0
    """Of the behavior that is looked for."""
    uneven: bool = True
    """Whether clusters differ in their size."""
    labels: Literal["two", "thirteen"] = "two"
    known: int = 0
    """Labeled examples behind a confusion matrix."""
    carriers: int = 0
    """Of sessions, those with the behavior."""


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


def draw(setting: Setting, truth: Population, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return the confusions ``(sessions, labels, labels + 1)`` of two equally good systems.

    Both answer the same examples, and find the same sessions hard.
    """
    n, labels = setting.clusters, len(truth.shares)
    session = np.repeat(np.arange(n), sizes(setting, rng))
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


def _of_sessions(
    setting: Setting, truth: Population, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return every session's shares of labels and rates of right answers."""
    n = setting.clusters
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


def replicate(setting: Setting, replications: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return how often each interval holds the truth, over so many data sets.

    ``held``, ``below`` (the interval ends below the truth), ``above`` and ``none`` are counts by
    the name of the interval; ``width`` is summed.
    """
    counts: dict[str, dict[str, float]] = {}
    for _ in range(replications):
        for name, interval, truth in STUDIES[setting.study](setting, rng):
            _count(counts.setdefault(name, {}), interval, truth)
    return {"intervals": counts}


def sizes(setting: Setting, rng: np.random.Generator, mean: int = MEAN_SIZE) -> Array:
    """Return the size of each cluster, at least 1."""
    if not setting.uneven:
        return np.full(setting.clusters, mean)
    return rng.geometric(1 / mean, size=setting.clusters)


def shares_of(setting: Setting, rng: np.random.Generator, share: float) -> Array:
    """Return a share of each cluster, around the population's."""
    if setting.correlation == 0:
        return np.full(setting.clusters, share)
    total = 1 / setting.correlation - 1
    return rng.beta(share * total, (1 - share) * total, size=setting.clusters)


@cache
def expected(setting: Setting, part: float = 1.0) -> float:
    """Return the share of sessions of ten utterances with any of a part of the behavior."""
    nodes = (np.arange(20_000) + 0.5) / 20_000
    total = 1 / max(setting.correlation, 1e-9) - 1
    p = setting.share
    each = stats.beta.ppf(nodes, p * total, (1 - p) * total) if setting.correlation else p
    return float(np.mean(1 - (1 - part * np.asarray(each)) ** 10))


def _prevalence(setting: Setting, rng: np.random.Generator) -> Held:
    """Sessions of ten utterances, two a client on average; resistance is of two kinds."""
    n = sizes(setting, rng, 2)
    client = np.repeat(np.arange(setting.clusters), n)
    resistant = rng.binomial(10, shares_of(setting, rng, setting.share)[client])
    first = rng.binomial(resistant, 0.5)
    counted = zip(client.tolist(), resistant.tolist(), first.tolist(), strict=True)
    sessions = [
        SessionCounts(session=str(i), client=str(c), counts=(a, r - a, 10 - r), resistant=r)
        for i, (c, r, a) in enumerate(counted)
    ]
    found = prevalence(sessions, (True, True, False), confidence=LEVEL)
    yield "share of utterances", found.share_of_utterances, setting.share
    yield "mean share per session", found.mean_session_share, setting.share
    yield "sessions with any", found.share_of_sessions, expected(setting)
    yield "distinct behaviors", found.distinct_behaviors, 2 * expected(setting, 0.5)


def _correction(setting: Setting, rng: np.random.Generator) -> Held:
    """Answers of a classifier that is right in 80 and 90 percent, known from a matrix."""
    rates = np.array([[0.80, 0.18, 0.02], [0.08, 0.90, 0.02]])
    n = sizes(setting, rng)
    resistant = rng.binomial(n, shares_of(setting, rng, setting.share))
    said = rng.multinomial(resistant, rates[0]) + rng.multinomial(n - resistant, rates[1])
    support = [int(0.4 * setting.known), int(0.6 * setting.known)]
    matrix = rng.multinomial(support, rates)
    # What a matrix never saw is refused.
    if not ((said.sum(axis=0) > 0) & (matrix.sum(axis=0) == 0)).any():
        found = correct_shares(said, matrix, ("yes", "no"), confidence=LEVEL)
        yield "corrected share", found.labels["yes"].em, setting.share


def _scores(setting: Setting, rng: np.random.Generator) -> Held:
    truth = population(setting.labels)
    true = true_scores(truth)
    names = tuple(map(str, range(len(truth.shares))))
    first, second = draw(setting, truth, rng)
    found = score_intervals(first, names, kind="client", confidence=LEVEL)
    differing = difference_intervals([first], [second], kind="client", confidence=LEVEL)
    rarest = found.per_label[names[truth.shares.argmin()]]
    yield "macro-F1", found.macro_f1, true["macro_f1"]
    yield "accuracy", found.accuracy, true["accuracy"]
    yield "F1 of the rarest label", rarest, true["rarest_label_f1"]
    yield "difference of macro-F1", differing.macro_f1, 0.0
    yield "difference of accuracy", differing.accuracy, 0.0


def _agreement(setting: Setting, rng: np.random.Generator) -> Held:
    """Three annotators, each right in 80 percent on average, else drawing from the shares."""
    p = setting.share
    shares = np.array([p, (1 - p) / 3, 2 * (1 - p) / 3])
    n = sizes(setting, rng)
    client = np.repeat(np.arange(setting.clusters), n)
    total = 1 / setting.correlation - 1 if setting.correlation else np.inf
    mix = np.tile(shares, (setting.clusters, 1))
    if setting.correlation:
        mix = rng.dirichlet(shares * total, size=setting.clusters)
    right = shares_of(setting, rng, 0.8)[client, None]
    label = _choose(mix[client], rng)
    guess = rng.choice(3, p=shares, size=(len(client), 3))
    codes = np.where(rng.uniform(size=guess.shape) < right, label[:, None], guess)
    table = AnnotationTable(
        ids=tuple(map(str, range(len(client)))),
        annotators=("a", "b", "c"),
        labels=("x", "y", "z"),
        sessions=tuple(map(str, client)),
        codes=codes,
    )
    found = measure_agreement(table, level=LEVEL)
    # Both right, or by chance: the second moment of Beta.
    both = 0.8**2 + (0.8 * 0.2 * setting.correlation)
    chance = float((shares**2).sum())
    yield "Cohen's kappa", found.coefficients["mean_pairwise_cohen_kappa"], both
    yield "Fleiss' kappa", found.coefficients["fleiss_kappa"], both
    yield "alpha", found.coefficients["krippendorff_alpha"], both
    agreeing = both + (1 - both) * chance
    yield "percent agreement", found.coefficients["percent_agreement"], agreeing
    yield "kappa of the rare label", found.per_label[0].coefficients["cohen_kappa"], both


def _correlation(setting: Setting, rng: np.random.Generator) -> Held:
    """Three sessions a client on average; the outcome has to do with the first column alone."""
    n = sizes(setting, rng, 3)
    client = np.repeat(np.arange(setting.clusters), n)
    own = np.sqrt(setting.correlation)
    rest = np.sqrt(1 - setting.correlation)

    def column() -> Array:
        within = rng.normal(size=len(client))
        return own * rng.normal(size=setting.clusters)[client] + rest * within

    x, other = column(), column()
    y = 0.4 * x + np.sqrt(1 - 0.4**2) * other
    rare = rng.binomial(10, shares_of(setting, rng, setting.share)[client]) / 10
    for name, predictor, outcome, truth in (
        ("r of .4", x, y, 0.4),
        ("rare behavior", rare, y, 0.0),
        ("rare behavior, skewed outcome", rare, np.exp(y), 0.0),
    ):
        yield name, _of_r(predictor, outcome, client), truth


def _carriers(setting: Setting, rng: np.random.Generator) -> Held:
    """A behavior that some sessions alone have, each of a client of its own."""
    rare = np.zeros(setting.clusters)
    rare[: setting.carriers] = rng.uniform(0.1, 1, size=setting.carriers)
    for name, outcome in (
        ("rare behavior", rng.normal(size=len(rare))),
        ("rare behavior, skewed outcome", rng.exponential(size=len(rare))),
    ):
        yield name, _of_r(rare, outcome, np.arange(len(rare))), 0.0


def _of_r(x: Array, y: Array, clusters: Array) -> Interval:
    found = correlate(x, y, clusters=clusters.tolist(), kind="client", confidence=LEVEL)
    return Interval(value=found.r, low=found.cluster_low, high=found.cluster_high)


STUDIES: Mapping[str, Callable[[Setting, np.random.Generator], Held]] = {
    "prevalence": _prevalence,
    "correction": _correction,
    "scores": _scores,
    "agreement": _agreement,
    "correlation": _correlation,
    "carriers": _carriers,
}
"""What draws a data set and names its intervals."""


def _count(counts: dict[str, float], interval: Interval, truth: float) -> None:
    low, high = interval.low, interval.high
    for name in ("held", "below", "above", "none", "width"):
        counts.setdefault(name, 0)
    if low is None or high is None:
        counts["none"] += 1
        return
    counts["width"] += high - low
    counts["below" if high < truth else "above" if low > truth else "held"] += 1
