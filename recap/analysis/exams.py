"""Exams of annotators: accuracy, spread, and who is selected (Appendix B, Table 6)."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from recap.analysis.judgements import Judgement


@dataclass(frozen=True, kw_only=True, slots=True)
class ExamResult:
    """How one candidate did in all exams.

    ``mean`` and ``std`` are ``None`` for a candidate who missed an exam, ``std`` also for a single
    exam under ddof 1.
    """

    candidate: str
    accuracies: tuple[float | None, ...]
    """One an exam, ``None`` where the candidate took no part."""
    mean: float | None
    std: float | None
    rank: int | None
    """Place by mean among those who are eligible; the same for equals."""
    selected: bool
    reason: str
    """Why the candidate was selected or not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerSheet:
    """One candidate's answers in one exam; an item without an answer counts as wrong."""

    candidate: str
    exam: str
    correct: int
    items: int
    mistakes: tuple[Mistake, ...]

    @property
    def accuracy(self) -> float:
        """Share of the items that were answered correctly."""
        return self.correct / self.items


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """An item that was answered wrongly; ``given`` is ``None`` where it was not answered."""

    id: str
    given: str | None
    correct: str


def mark_exams(
    answers: Iterable[Judgement], key: Mapping[str, str], exams: Sequence[str]
) -> tuple[AnswerSheet, ...]:
    """Return the answer sheets by candidate and exam.

    The items of an exam are those of the key that any of its candidates answered. Answers to other
    items are left out.

    Args:
        answers: Labels of candidates (``annotator``) in exams (``round``).
        key: Correct label of each item.
        exams: The exams in order.
    """
    items: dict[str, dict[str, None]] = {exam: {} for exam in exams}
    sheets: dict[tuple[str, str], dict[str, str]] = {}
    for answer in answers:
        if answer.id in key:
            items[answer.round].setdefault(answer.id)
            sheets.setdefault((answer.annotator, answer.round), {})[answer.id] = answer.label
    candidates = dict.fromkeys(candidate for candidate, _ in sheets)
    return tuple(
        _marked(candidate, exam, sheets[candidate, exam], tuple(items[exam]), key)
        for candidate in candidates
        for exam in exams
        if (candidate, exam) in sheets
    )


def select_annotators(
    accuracies: Mapping[str, Sequence[float | None]],
    *,
    top: int = 4,
    min_last: float = 0.6,
    ddof: int = 1,
) -> tuple[ExamResult, ...]:
    """Return how candidates did, the selected first, then by mean.

    Selected are the ``top`` candidates by mean accuracy among those who took every exam and reached
    ``min_last`` in the last one (Appendix B: four, 60 %). Candidates who share the last place that
    is to be had are all selected, since nothing tells them apart.

    Args:
        accuracies: Of each candidate, one an exam in order, ``None`` for an exam that was missed.
        top: How many to select.
        min_last: Accuracy that the last exam needs.
        ddof: 1 for the sample standard deviation; 0 for the population's, which fits Table 6.
    """
    means = {
        name: None if None in row else statistics.fmean(value for value in row if value is not None)
        for name, row in accuracies.items()
    }
    eligible = {
        name: mean
        for name, mean in means.items()
        if mean is not None and _reaches(accuracies[name][-1], min_last)
    }
    ranks = {
        name: 1 + sum(_above(other, mean) for other in eligible.values())
        for name, mean in eligible.items()
    }
    results = [
        ExamResult(
            candidate=name,
            accuracies=tuple(row),
            mean=means[name],
            std=_std(row, ddof),
            rank=ranks.get(name),
            selected=ranks.get(name, top + 1) <= top,
            reason=_reason(row, ranks.get(name), top, min_last),
        )
        for name, row in accuracies.items()
    ]
    return tuple(
        sorted(results, key=lambda r: (not r.selected, math.inf if r.mean is None else -r.mean))
    )


def confused_labels(sheets: Iterable[AnswerSheet]) -> list[tuple[str, str, int]]:
    """Return correct label, given label and how often, for the mistakes made, most first."""
    counts = Counter(
        (mistake.correct, mistake.given)
        for sheet in sheets
        for mistake in sheet.mistakes
        if mistake.given is not None
    )
    return [(correct, given, n) for (correct, given), n in counts.most_common()]


def _marked(
    candidate: str,
    exam: str,
    given: Mapping[str, str],
    items: Sequence[str],
    key: Mapping[str, str],
) -> AnswerSheet:
    mistakes = tuple(
        Mistake(id=item, given=given.get(item), correct=key[item])
        for item in items
        if given.get(item) != key[item]
    )
    return AnswerSheet(
        candidate=candidate,
        exam=exam,
        correct=len(items) - len(mistakes),
        items=len(items),
        mistakes=mistakes,
    )


def _std(row: Sequence[float | None], ddof: int) -> float | None:
    values = [value for value in row if value is not None]
    if len(values) < len(row) or len(values) <= ddof:
        return None
    return statistics.stdev(values) if ddof else statistics.pstdev(values)


def _reaches(value: float | None, least: float) -> bool:
    return value is not None and (value >= least or math.isclose(value, least))


def _above(value: float, other: float) -> bool:
    return value > other and not math.isclose(value, other)


def _reason(row: Sequence[float | None], rank: int | None, top: int, min_last: float) -> str:
    if rank is not None:
        return f"rank {rank}" if rank <= top else f"rank {rank}, after the first {top}"
    if None in row:
        return "missed an exam"
    return f"under {100 * min_last:g} % in the last exam"
