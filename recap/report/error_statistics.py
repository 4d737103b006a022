"""Statistics of errors: confusions, the paper's two kinds, patterns, groups, hardest examples.

Intervals are over clients, else sessions.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from recap.data.words import is_chinese
from recap.metrics.scalar import Floats
from recap.metrics.scores import scores_from_confusion
from recap.records import Example, Prediction, Scores
from recap.statistics.clusters import Clusters, Interval, People, jackknife, share_of
from recap.taxonomy import Taxonomy


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """One label taken for another; ``predicted`` is ``None`` for unparsed answers."""

    gold: str
    predicted: str | None
    count: int
    share_of_gold: float
    """Of all examples with this gold label."""
    share_of_errors: float
    """Of all errors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorKind:
    """A kind of error: examples of some labels that were given one of others."""

    name: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class KindCount:
    """How often a kind of error was made."""

    kind: ErrorKind
    n: int
    """Examples with one of the gold labels."""
    count: int
    share: Interval
    """Of those examples."""
    share_of_errors: float | None
    """Of all errors on those examples."""
    ids: tuple[str, ...]
    """Examples with this error, the surest first where probabilities are known."""


@dataclass(frozen=True, kw_only=True)
class PatternErrors:
    """Predictions with every label rolled up to its pattern."""

    patterns: tuple[str, ...]
    pattern_of: Mapping[str, str]
    scores: Scores
    """At the level of patterns."""
    errors: int
    """Readable answers that are wrong."""
    within: float | None
    """Share of these whose pattern is right."""
    within_by_chance: float | None
    """What that share would be if each were one of the other labels, as often as they are answered
    in all."""


SUBTLE = "subtle resistance read as collaboration"
HOPELESS = "hopelessness read as disagreement"

# Section 6.3 of the paper: category of the gold label, category that it is read as.
_NAMED = (
    (SUBTLE, "Resistance", "Collaboration"),
    (HOPELESS, "Pessimism", "Disagreeing"),
)


def rank_confusions(confusion: npt.ArrayLike, labels: Sequence[str]) -> tuple[Confusion, ...]:
    """Return all that was confused, most frequent first, unparsed answers among them.

    Args:
        confusion: Counts ``(n_labels gold, n_labels + 1 predicted)``, as in ``scores.json``.
        labels: Their names.
    """
    counts = np.asarray(confusion, dtype=np.int64)
    support = counts.sum(axis=1)
    errors = int(counts.sum() - np.trace(counts))
    names: list[str | None] = [*labels, None]
    found = [
        Confusion(
            gold=gold,
            predicted=predicted,
            count=int(counts[i, j]),
            share_of_gold=float(counts[i, j] / support[i]),
            share_of_errors=float(counts[i, j] / errors),
        )
        for i, gold in enumerate(labels)
        for j, predicted in enumerate(names)
        if i != j and counts[i, j]
    ]
    return tuple(sorted(found, key=lambda one: (-one.count, -one.share_of_gold)))


def named_kinds(taxonomy: Taxonomy, labels: Sequence[str]) -> tuple[ErrorKind, ...]:
    """Return the paper's two kinds of errors, those of them that a task with these labels knows."""
    kinds = []
    for name, source, target in _NAMED:
        sources, targets = (
            tuple(label for label in labels if top in taxonomy.lineage(label))
            for top in (source, target)
        )
        if sources and targets:
            kinds.append(ErrorKind(name=name, sources=sources, targets=targets))
    return tuple(kinds)


def count_kind(
    predictions: Iterable[Prediction],
    kind: ErrorKind,
    *,
    people: Mapping[str, People] | None = None,
    confidence: float | None,
) -> KindCount:
    """Return how often a kind of error was made, with an interval over clients, else sessions.

    Args:
        predictions: Each example once.
        kind: Which errors.
        people: Client and counselor of examples by id, where they are known.
        confidence: Level of the interval; ``None``: none.
    """
    of_kind = [p for p in predictions if p.gold in kind.sources]
    wrong = [p for p in of_kind if p.label in kind.targets]
    clusters = Clusters(people)
    places = [clusters.place(p.id, p.session) for p in of_kind]
    counted = np.array([(p.label in kind.targets, 1) for p in of_kind]).reshape(-1, 2)
    interval = jackknife(
        clusters.add_up(places, counted),
        lambda sums: share_of(sums[:, [0]], sums[:, [1]]),
        kind=clusters.kind,
    ).interval(0, confidence)
    errors = sum(p.label != p.gold for p in of_kind)
    return KindCount(
        kind=kind,
        n=len(of_kind),
        count=len(wrong),
        share=interval,
        share_of_errors=len(wrong) / errors if errors else None,
        ids=tuple(
            p.id for p in sorted(wrong, key=lambda p: -(held_probability(p, p.label) or 0.0))
        ),
    )


def roll_up(
    confusion: npt.ArrayLike, labels: Sequence[str], taxonomy: Taxonomy, *, task: str
) -> PatternErrors | None:
    """Return confusion and scores at the level of patterns; ``None`` where labels have none.

    A label's pattern is the category above it that its qualified name carries; a label without one
    (Collaboration) stands for itself.

    Args:
        confusion: Counts ``(n_labels gold, n_labels + 1 predicted)``.
        labels: Their names.
        taxonomy: Theirs.
        task: The task's name.
    """
    pattern_of = {label: taxonomy.pattern(label) or label for label in labels}
    patterns = tuple(dict.fromkeys(pattern_of.values()))
    if len(patterns) == len(labels):
        return None
    counts = np.asarray(confusion, dtype=np.int64)
    fold = np.array([[pattern_of[label] == p for p in patterns] for label in labels], np.int64)
    wrong = counts[:, :-1] * (1 - np.eye(len(labels), dtype=np.int64))
    rolled = np.column_stack([fold.T @ counts[:, :-1] @ fold, fold.T @ counts[:, -1]])
    same, errors = fold @ fold.T, int(wrong.sum())
    # If labels were drawn by how often they are answered, of each gold label's others.
    answered = counts[:, :-1].sum(axis=0)
    others = answered.sum() - answered
    chance = np.divide(
        same @ answered - answered, others, out=np.zeros(len(others)), where=others > 0
    )
    return PatternErrors(
        patterns=patterns,
        pattern_of=pattern_of,
        scores=scores_from_confusion(f"{task}, patterns", patterns, rolled),
        errors=errors,
        within=float((wrong * same).sum() / errors) if errors else None,
        within_by_chance=float((wrong.sum(axis=1) * chance).sum() / errors) if errors else None,
    )


@dataclass(frozen=True, kw_only=True)
class GroupScores:
    """The scores of one group, over all its predictions together, whatever their fold."""

    group: str
    n: int
    sessions: int
    """Sessions that the predictions come from; one without a session is its own."""
    support: Mapping[str, int]
    """Gold examples of each label that has any."""
    macro_f1: Interval
    """Mean F1 of the labels with gold examples in the group; small groups lack labels, and would
    otherwise be marked down for it."""
    accuracy: Interval
    overconfidence: Interval
    """Mean probability of the answered label minus the share of right answers, over predictions
    that have both; above 0: surer than right. No value where no prediction has."""


def scores_by_group(
    predictions: Sequence[Prediction],
    group_of: Mapping[str, str],
    *,
    labels: Sequence[str],
    people: Mapping[str, People] | None = None,
    confidence: float | None,
) -> tuple[GroupScores, ...]:
    """Return the scores of each group that occurs, in the order of ``group_of``'s values.

    Intervals are over the clients, else sessions, of the group.

    Args:
        predictions: Each example once.
        group_of: The group of each example id; predictions without one are left out.
        labels: The task's labels.
        people: Client and counselor of examples by id, where they are known.
        confidence: Level of the intervals; ``None``: none.
    """
    members: dict[str, list[Prediction]] = {group: [] for group in group_of.values()}
    for prediction in predictions:
        if prediction.id in group_of:
            members[group_of[prediction.id]].append(prediction)
    n, found = len(labels), []
    for group, own in members.items():
        if not own:
            continue
        clusters = Clusters(people)
        sums = _sums_of_clusters(own, labels, clusters)
        macro_f1, accuracy, overconfidence = jackknife(
            sums,
            partial(_figures, n),
            kind=clusters.kind,
            scale=("share", "share", "signed"),
            parts=sums[:, [-5, -5, -3]] > 0,
        ).intervals(confidence)
        support = sums[:, n : 2 * n].sum(axis=0)
        found.append(
            GroupScores(
                group=group,
                n=len(own),
                sessions=len({p.session or ("example", p.id) for p in own}),
                support={name: int(k) for name, k in zip(labels, support, strict=True) if k},
                macro_f1=macro_f1,
                accuracy=accuracy,
                overconfidence=overconfidence,
            )
        )
    return tuple(found)


def _sums_of_clusters(
    predictions: Sequence[Prediction], labels: Sequence[str], clusters: Clusters
) -> Floats:
    """Return counts a cluster: right, gold and answered of each label, then five in all.

    The five: predictions, right ones, those with a probability of their answer, those
    probabilities, and the right ones among them.
    """
    counts = clusters.confusions(predictions, task=predictions[0].task, labels=labels)()
    held = [held_probability(p, p.label) for p in predictions]
    rows = [
        (0, 0, 0) if sure is None else (1, sure, p.label == p.gold)
        for sure, p in zip(held, predictions, strict=True)
    ]
    sure = clusters.add_up([clusters.place(p.id, p.session) for p in predictions], rows)
    right = counts.diagonal(axis1=1, axis2=2)
    by_label = [right, counts.sum(axis=2), counts[:, :, :-1].sum(axis=1)]
    return np.column_stack([*by_label, counts.sum(axis=(1, 2)), right.sum(axis=1), sure])


def _figures(n: int, sums: Floats) -> Floats:
    """Return macro-F1, accuracy and overconfidence ``(rows, 3)``, NaN where undefined."""
    right, gold, answered = sums[:, :n], sums[:, n : 2 * n], sums[:, 2 * n : 3 * n]
    counted = gold > 0
    f1 = np.divide(2 * right, gold + answered, out=np.zeros_like(gold), where=counted)
    total, hits, sure, held, sure_hits = sums[:, 3 * n :].T
    return np.column_stack(
        [
            share_of(f1.sum(axis=1), counted.sum(axis=1)),
            share_of(hits, total),
            share_of(held - sure_hits, sure),
        ]
    )


def held_probability(prediction: Prediction, label: str | None) -> float | None:
    """Return the probability that a prediction gives a label, ``None`` where it gives none."""
    if prediction.probabilities is None or label is None:
        return None
    return prediction.probabilities.get(label)


@dataclass(frozen=True, kw_only=True, slots=True)
class HardExample:
    """One example that was answered wrong, or held unlikely to be what it is."""

    id: str
    fold: int | None
    gold: str
    label: str | None
    gold_probability: float | None


@dataclass(frozen=True, kw_only=True)
class WrongInAll:
    """Examples that every one of several runs got wrong."""

    runs: int
    examples: int
    """Answered by all runs."""
    ids: tuple[str, ...]
    """Those wrong in all, in the order of the first run."""
    by_gold: Mapping[str, int]
    """How many of each gold label."""
    same_answer: int
    """Of these, examples that all runs gave the same wrong label: candidates for a second look at
    the annotation."""
    by_chance: float
    """How many it would be if runs erred independently, each as often as it does."""


def hardest_examples(predictions: Sequence[Prediction], *, most: int) -> tuple[HardExample, ...]:
    """Return the examples whose gold label got the lowest probability, lowest first.

    Predictions without probabilities are left out.
    """
    rated = [(held, p) for p in predictions if (held := held_probability(p, p.gold)) is not None]
    rated.sort(key=lambda pair: pair[0])
    return tuple(
        HardExample(id=p.id, fold=p.fold, gold=p.gold, label=p.label, gold_probability=held)
        for held, p in rated[:most]
    )


def wrong_in_all(runs: Sequence[Sequence[Prediction]]) -> WrongInAll | None:
    """Return the examples that all runs got wrong; ``None`` without two runs that share examples.

    Args:
        runs: The predictions of each run, of one task, each example once a run.
    """
    answers = [{p.id: p.label for p in run} for run in runs]
    if len(answers) < 2:
        return None
    shared = [p for p in runs[0] if all(p.id in own for own in answers)]
    if not shared:
        return None
    wrong = [p for p in shared if all(own[p.id] != p.gold for own in answers)]
    expected = float(len(shared))
    for own in answers:
        expected *= sum(own[p.id] != p.gold for p in shared) / len(shared)
    return WrongInAll(
        runs=len(answers),
        examples=len(shared),
        ids=tuple(p.id for p in wrong),
        by_gold=dict(Counter(p.gold for p in wrong).most_common()),
        same_answer=sum(
            p.label is not None and len({own[p.id] for own in answers}) == 1 for p in wrong
        ),
        by_chance=expected,
    )


LengthUnit = Literal["characters", "words"]

LONGEST_VALUE = 60
"""A longer value of a column is a text, no group."""

_NEGATION = re.compile(
    r"(?<![a-z])(?:no|not|never|none|nothing|nobody|neither|nor|without|cannot|can't|cant|dont"
    r"|[a-z]+n['’]t)(?![a-z])|[不没無无别未]|(?<!除)非(?!常)"
)

THIRDS = ("first third", "middle third", "last third")


def by_column(examples: Iterable[Example], column: str) -> dict[str, str]:
    """Return the value that each example has in a column, by its id.

    ``session`` and ``client`` are those of the example, whatever else is a key of its ``meta``.
    Examples without a value are left out, and so are values that are no text or number, and texts
    of more than :data:`LONGEST_VALUE` characters. Groups come in the order of their names, numbers
    by size.
    """
    values: dict[str, object] = {}
    for example in examples:
        own = column in ("session", "client", "counselor")
        value = getattr(example, column) if own else example.meta.get(column)
        if isinstance(value, str | int | float) and 0 < len(str(value)) <= LONGEST_VALUE:
            values[example.id] = value
    return {key: str(values[key]) for key in sorted(values, key=lambda key: _order(values[key]))}


def by_length(examples: Sequence[Example], *, bins: int = 5) -> tuple[dict[str, str], LengthUnit]:
    """Return the bin of each response's length, and the unit.

    Characters where more responses are Chinese than not, else words between white space.
    """
    chinese = sum(is_chinese(example.response) for example in examples)
    unit: LengthUnit = "characters" if 2 * chinese > len(examples) else "words"
    lengths = {
        e.id: len(e.response) if unit == "characters" else len(e.response.split()) for e in examples
    }
    return quantile_bins(lengths, bins=bins), unit


def by_history(examples: Iterable[Example], *, bins: int = 5) -> dict[str, str]:
    """Return the bin of each example's number of turns before the response."""
    return quantile_bins({example.id: len(example.history) for example in examples}, bins=bins)


def by_negation(examples: Iterable[Example]) -> dict[str, str]:
    """Return whether each response holds an overt negation, a word such as *not*, *n't*, 不 or 没.

    The paper (Section 6.3) finds that resistance without one is taken for collaboration.
    """
    names = ("no overt negation", "overt negation")
    held = {e.id: bool(_NEGATION.search(e.response.casefold())) for e in examples}
    return _rising(held, names)


def _rising(
    place_of: Mapping[str, int], names: Sequence[str] | Mapping[int, str]
) -> dict[str, str]:
    """Return the name of each place, lowest places first."""
    return {key: names[place_of[key]] for key in sorted(place_of, key=lambda key: place_of[key])}


def by_position(examples: Iterable[Example]) -> dict[str, str]:
    """Return which third of its session each example lies in.

    Example ``k`` of a session's ``n``, from 0 in the order of their turns, fills ``k / n`` to
    ``(k + 1) / n`` of it and belongs to the third that holds the middle of that. Examples without a
    session or a turn are left out, and so are sessions of fewer than three.
    """
    sessions: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for example in examples:
        if example.session is not None and example.turn is not None:
            sessions[example.session].append((example.turn, example.id))
    third: dict[str, int] = {}
    for own in sessions.values():
        n = len(own)
        if n >= len(THIRDS):
            for k, (_, key) in enumerate(sorted(own)):
                third[key] = 3 * (2 * k + 1) // (2 * n)
    return _rising(third, THIRDS)


def quantile_bins(values: Mapping[str, int], *, bins: int) -> dict[str, str]:
    """Return the bin of whole numbers, named by its least and greatest member (``4–7``).

    Bins are cut at quantiles and hold about the same number of values, but that equal values stay
    together, so that there may be fewer of them; they come in rising order.

    >>> quantile_bins({"a": 1, "b": 9, "c": 2, "d": 2}, bins=2)
    {'a': '1–2', 'c': '1–2', 'd': '1–2', 'b': '9'}
    """
    if not values:
        return {}
    numbers = np.array(list(values.values()))
    cuts = np.quantile(numbers, np.arange(1, bins) / bins, method="inverted_cdf")
    bin_of = {key: int(np.searchsorted(cuts, value)) for key, value in values.items()}
    members: dict[int, set[int]] = defaultdict(set)
    for key, place in bin_of.items():
        members[place].add(values[key])
    return _rising(
        bin_of,
        {
            place: f"{min(own)}–{max(own)}" if len(own) > 1 else f"{min(own)}"
            for place, own in members.items()
        },
    )


def largest_groups(group_of: Mapping[str, str], *, most: int) -> dict[str, str]:
    """Return the members of the groups with the most examples, in the order that they had."""
    counts = Counter(group_of.values())
    kept = {group for group, _ in counts.most_common(most)}
    return {key: group for key, group in group_of.items() if group in kept}


def _order(value: object) -> tuple[int, float, str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, float(value), "")
    return (1, 0.0, str(value))
