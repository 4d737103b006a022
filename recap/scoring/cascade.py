"""Two stages scored as one system: is it resistance at all, and if so, which behaviour.

The first stage tells a label apart that the second opens up into finer ones. What the first stage
gets wrong is wrong end to end, whatever the second says of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from recap.errors import DataError, quote_id
from recap.records import Prediction
from recap.taxonomy import Taxonomy


@dataclass(frozen=True, kw_only=True)
class CascadeLabels:
    """The labels of two stages, and those of both together."""

    opened: str
    """The label of the first stage that the second one opens up."""
    first: tuple[str, ...]
    second: tuple[str, ...]
    together: tuple[str, ...]
    """The second stage's labels and the first stage's others, in the taxonomy's order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CascadeErrors:
    """Where the errors of two stages arise; every error is counted once.

    Attributes:
        n: Examples.
        missed: Of the opened label's examples, those that the first stage gave another label.
        false_alarms: Examples of other labels that the first stage gave the opened one.
        confused: Examples that the first stage gave a wrong label of those it does not open up
            (there is none where it has only one).
        unreadable_first: Examples on which the first stage gave no label.
        wrong_pattern: Examples that went on rightly and got a behaviour of another pattern.
        wrong_behavior: Those that got another behaviour of the right pattern.
        unreadable_second: Those that got none.
    """

    n: int
    missed: int
    false_alarms: int
    confused: int
    unreadable_first: int
    wrong_pattern: int
    wrong_behavior: int
    unreadable_second: int

    @property
    def first_stage(self) -> int:
        """Errors that arise in the first stage."""
        return self.missed + self.false_alarms + self.confused + self.unreadable_first

    @property
    def second_stage(self) -> int:
        """Errors that arise in the second stage."""
        return self.wrong_pattern + self.wrong_behavior + self.unreadable_second

    @property
    def total(self) -> int:
        """All errors end to end."""
        return self.first_stage + self.second_stage

    def share(self, count: int) -> float | None:
        """Return a count as a share of all errors, ``None`` where there are none."""
        return count / self.total if self.total else None


def cascade_labels(
    taxonomy: Taxonomy, first: Sequence[str], second: Sequence[str]
) -> CascadeLabels:
    """Return the labels of two stages together.

    Raises:
        DataError: When the second stage's labels do not all lie below one label of the first.
    """
    above = {next((n for n in taxonomy.lineage(x)[1:] if n in first), None) for x in second}
    if len(above) != 1 or None in above:
        raise DataError(
            "these two runs are no cascade: the labels of the second "
            f"({', '.join(second)}) do not all lie below one label of the first "
            f"({', '.join(first)}); give binary= a run of task=binary and fine_grained= one of "
            "task=fine_grained"
        )
    opened = str(above.pop())
    wanted = {*second, *first} - {opened}
    order = [category.name for category in taxonomy.categories]
    return CascadeLabels(
        opened=opened,
        first=tuple(first),
        second=tuple(second),
        together=tuple(sorted(wanted, key=order.index)),
    )


def join_stages(
    first: Iterable[Prediction],
    second: Mapping[str, Prediction],
    *,
    labels: CascadeLabels,
    task: str = "cascade",
) -> list[Prediction]:
    """Return what the two stages answer together, an answer for each one of the first stage.

    The label is the first stage's, or the second's where the first gave the opened label. An answer
    of the second stage is looked up by id; for an example of another label (a false alarm) there
    may be none, and the joint answer then has no label, which is as wrong as any that the second
    stage could have given.

    Args:
        first: The first stage's answers to all examples.
        second: The second stage's answers by id, at least to every example that has one of its
            labels.
        labels: Of both stages.
        task: What the joint answers name as their task.

    Raises:
        DataError: When the second stage has no answer to an example of its own.
    """
    joined = []
    for prediction in first:
        finer = second.get(prediction.id)
        if prediction.gold == labels.opened and finer is None:
            raise DataError(
                f"example {quote_id(prediction.id)} is {labels.opened}, and the second stage has "
                "no answer to it; score runs over the same data and folds"
            )
        gold = finer.gold if prediction.gold == labels.opened and finer else prediction.gold
        answer = prediction
        if prediction.label == labels.opened:
            answer = finer or replace(prediction, label=None, rationale=None, text="")
        joined.append(
            replace(
                prediction,
                task=task,
                gold=gold,
                label=answer.label,
                probabilities=joint_probabilities(prediction, finer, labels.opened),
                rationale=answer.rationale,
                text=answer.text,
                parsed=answer.label is not None,
            )
        )
    return joined


def joint_probabilities(
    first: Prediction, second: Prediction | None, opened: str
) -> Mapping[str, float] | None:
    """Return the probability of every label: the first stage's, times the second's below it.

    ``None`` where one of the two gives none.
    """
    if second is None or first.probabilities is None or second.probabilities is None:
        return None
    rest = {label: p for label, p in first.probabilities.items() if label != opened}
    finer = {label: first.probabilities[opened] * p for label, p in second.probabilities.items()}
    return {**finer, **rest}


def count_errors(
    first: Iterable[Prediction],
    joined: Sequence[Prediction],
    *,
    labels: CascadeLabels,
    taxonomy: Taxonomy,
) -> CascadeErrors:
    """Return where the errors of the joint answers arise.

    Args:
        first: The first stage's answers.
        joined: What :func:`join_stages` made of them, in the same order.
        labels: Of both stages.
        taxonomy: Says which pattern a behaviour belongs to: the category right above it.
    """
    counts = dict.fromkeys((field.name for field in fields(CascadeErrors) if field.name != "n"), 0)
    for judged, answer in zip(first, joined, strict=True):
        kind = _kind_of_error(judged, answer, labels, taxonomy)
        if kind is not None:
            counts[kind] += 1
    return CascadeErrors(n=len(joined), **counts)


def _kind_of_error(
    judged: Prediction, answer: Prediction, labels: CascadeLabels, taxonomy: Taxonomy
) -> str | None:
    if judged.label is None:
        return "unreadable_first"
    if judged.label != judged.gold:
        if judged.gold == labels.opened:
            return "missed"
        return "false_alarms" if judged.label == labels.opened else "confused"
    if judged.gold != labels.opened or answer.label == answer.gold:
        return None
    if answer.label is None:
        return "unreadable_second"
    same = taxonomy[answer.label].parent == taxonomy[answer.gold].parent
    return "wrong_behavior" if same else "wrong_pattern"
