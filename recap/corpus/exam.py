"""``action=exam``: how candidates did in annotation exams, and who is selected (Appendix B).

Answers are marked here, or accuracies read that were worked out elsewhere (Table 6).
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from recap.corpus.adjudicate import read_texts
from recap.corpus.assign import check_file_name
from recap.corpus.options import CorpusConfig
from recap.corpus.sources import (
    find_task,
    find_taxonomy,
    label_of_task,
    named_path,
    open_annotations,
    reading_notes,
)
from recap.data.annotations import AnnotatorLabel, rounds_of
from recap.data.examples import client_turns
from recap.data.issues import IssueLog
from recap.data.readers.doccano import document_text
from recap.data.sheets import filled_rows, known_label, number_in, raise_issues
from recap.errors import DataError, quote_id
from recap.output.format import number
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.records import Example
from recap.system.plain_text import markdown
from recap.taxonomy import Taxonomy


def read_key(path: str, taxonomy: Taxonomy | None) -> dict[str, str]:
    """Return the correct label of each item; a ``DataError`` lists every faulty row."""
    issues = IssueLog(path)
    key: dict[str, str] = {}
    hint = "exam.key needs columns id and label"
    for line, row in filled_rows(named_path("exam.key", path), ("id", "label"), issues, hint=hint):
        item, written = row["id"], row["label"]
        if not item or not written:
            issues.reject(line, "label" if item else "id", "is empty", "fill it in")
            continue
        label = known_label(written, taxonomy, line, "label", issues)
        if label is not None and key.setdefault(item, label) != label:
            reason = f"id {quote_id(item)} has two correct labels"
            issues.reject(line, "label", reason, "keep one row")
    raise_issues(issues)
    return key


def read_scores(path: str) -> tuple[tuple[str, ...], dict[str, tuple[float | None, ...]]]:
    """Return the exams in order of appearance, and the accuracies; a ``DataError`` lists bad rows.

    The table has the columns ``candidate``, ``exam`` and ``accuracy`` (a fraction).
    """
    issues = IssueLog(path)
    columns = ("candidate", "exam", "accuracy")
    hint = "exam.scores needs columns candidate, exam and accuracy"
    found: dict[str, dict[str, float]] = {}
    exams: dict[str, None] = {}
    file = named_path("exam.scores", path)
    for line, row in filled_rows(file, columns, issues, hint=hint, numbers=("accuracy",)):
        candidate, name = row["candidate"], row["exam"]
        value = number_in(row["accuracy"])
        if not candidate or not name:
            issues.reject(line, "exam" if candidate else "candidate", "is empty", "fill it in")
        elif value is None or not 0 <= value <= 1:
            reason = "is no number from 0 to 1"
            issues.reject(line, "accuracy", reason, "write 0.62 for 62 %")
        elif name in found.get(candidate, {}):
            reason = f"candidate {quote_id(candidate)} has it twice"
            issues.reject(line, "exam", reason, "keep one row")
        else:
            exams.setdefault(name)
            found.setdefault(candidate, {})[name] = value
    raise_issues(issues)
    if not found:
        raise DataError(f"{path}: holds no rows; write one a candidate and exam")
    return tuple(exams), {
        candidate: tuple(own.get(name) for name in exams) for candidate, own in found.items()
    }


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
    items: int
    mistakes: tuple[Mistake, ...]

    @property
    def accuracy(self) -> float:
        """Share of the items that were answered correctly."""
        return (self.items - len(self.mistakes)) / self.items


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """An item that was answered wrongly; ``given`` is ``None`` where it was not answered."""

    id: str
    given: str | None
    correct: str


def mark_exams(
    answers: Iterable[AnnotatorLabel], key: Mapping[str, str], exams: Sequence[str]
) -> tuple[AnswerSheet, ...]:
    """Return the answer sheets by candidate and exam.

    The items of an exam are those of the key that any of its candidates answered. Answers to other
    items are left out.
    """
    items: dict[str, dict[str, None]] = {exam: {} for exam in exams}
    sheets: dict[tuple[str, str], dict[str, str]] = {}
    for answer in answers:
        if answer.id in key:
            items[answer.round].setdefault(answer.id)
            sheets.setdefault((answer.annotator, answer.round), {})[answer.id] = answer.label
    candidates = dict.fromkeys(candidate for candidate, _ in sheets)
    taken = [place for place in product(candidates, exams) if place in sheets]
    return tuple(
        AnswerSheet(
            candidate=candidate,
            exam=exam,
            items=len(items[exam]),
            mistakes=tuple(
                Mistake(id=item, given=given.get(item), correct=key[item])
                for item in items[exam]
                if given.get(item) != key[item]
            ),
        )
        for candidate, exam in taken
        for given in (sheets[candidate, exam],)
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
    is to be had are all selected, since nothing tells them apart. An exam that was missed is
    ``None``. A ``ddof`` of 1 gives the sample standard deviation, 0 the population's, which fits
    Table 6.
    """
    means = {
        name: None if None in row else statistics.fmean(value for value in row if value is not None)
        for name, row in accuracies.items()
    }
    eligible = {
        name: mean
        for name, mean in means.items()
        if mean is not None and _at_least(accuracies[name][-1] or 0, min_last)
    }
    ranks = {
        name: 1 + sum(not _at_least(mean, other) for other in eligible.values())
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


def _std(row: Sequence[float | None], ddof: int) -> float | None:
    values = [value for value in row if value is not None]
    if len(values) < len(row) or len(values) <= ddof:
        return None
    return statistics.stdev(values) if ddof else statistics.pstdev(values)


def _at_least(value: float, least: float) -> bool:
    return value >= least or math.isclose(value, least)


def _reason(row: Sequence[float | None], rank: int | None, top: int, min_last: float) -> str:
    if rank is not None:
        return f"rank {rank}" if rank <= top else f"rank {rank}, after the first {top}"
    if None in row:
        return "missed an exam"
    return f"under {100 * min_last:g} % in the last exam"


_CONFUSIONS_SHOWN = 10


def exam(config: CorpusConfig) -> Report:
    """Return accuracies, who is selected, and feedback; a ``DataError`` without correct labels."""
    options = config.exam
    rule: Any = {"top": options.top, "min_last": options.min_last, "ddof": options.ddof}
    if options.scores is not None:
        exams, accuracies = read_scores(options.scores)
        return _report(config, exams, select_annotators(accuracies, **rule), (), (), {})
    read = open_annotations(config)
    annotated = {annotation.id for annotation in read.annotations}
    texts = read_texts(config, annotated)
    if options.key is not None:
        key = read_key(options.key, find_taxonomy(config))
    else:
        turns = [turn for record in texts.records for turn in client_turns(record)]
        key = {turn.id: turn.label for turn in turns if turn.label is not None}
    if config.labels == "canonical":
        task = find_task(config)
        key = {item: label_of_task(task, label) for item, label in key.items()}
    answered = annotated & set(key)
    if not answered:
        raise DataError(
            "none of the answered items has a correct label; name a table of them (id, label) "
            "with exam.key, or the labeled data with data=... data.path=..."
        )
    exams = rounds_of(j for j in read.annotations if j.id in answered)
    sheets = mark_exams(read.annotations, key, exams)
    by_place = {(sheet.candidate, sheet.exam): sheet.accuracy for sheet in sheets}
    accuracies = {
        sheet.candidate: tuple(by_place.get((sheet.candidate, name)) for name in exams)
        for sheet in sheets
    }
    results = select_annotators(accuracies, **rule)
    notes = [*texts.notes, *reading_notes(read)]
    if annotated - answered:
        notes.append(
            f"{len(annotated - answered):,} answered items have no correct label: left out"
        )
    pages = _feedback(config, results, sheets, exams, texts.examples)
    return _report(config, exams, results, sheets, notes, pages)


def _report(
    config: CorpusConfig,
    exams: Sequence[str],
    results: Sequence[ExamResult],
    sheets: Sequence[AnswerSheet],
    notes: Sequence[str],
    pages: Mapping[str, str],
) -> Report:
    options = config.exam
    confusions = confused_labels(sheets)
    n_selected = sum(result.selected for result in results)
    taken = table_of(
        "What was taken for what most often",
        confusions[:_CONFUSIONS_SHOWN],
        {
            "correct": lambda confusion: confusion[0],
            "given": lambda confusion: confusion[1],
            "times": lambda confusion: str(confusion[2]),
        },
    )
    return Report(
        action="exam",
        title=f"{len(results)} candidates, {len(exams)} exams, {n_selected} selected",
        figures={
            "exams": list(exams),
            "top": options.top,
            "min_last": options.min_last,
            "ddof": options.ddof,
            "candidates": [asdict(result) for result in results],
            "items": {sheet.exam: sheet.items for sheet in sheets},
            "confusions": [
                {"correct": correct, "given": given, "n": n} for correct, given, n in confusions
            ],
        },
        sheets=(_accuracies(results, exams), *((taken,) if confusions else ())),
        notes=(*notes, *_rule(config, n_selected)),
        rows=[_row(result, exams) for result in results],
        private_pages=pages,
    )


def _accuracies(results: Sequence[ExamResult], exams: Sequence[str]) -> ReportTable:
    return ReportTable(
        title="Accuracy",
        header=("candidate", *(_exam_name(name) for name in exams), "mean", "SD", "selected"),
        rows=tuple(
            (
                result.candidate,
                *(number(value) for value in result.accuracies),
                number(result.mean),
                number(result.std),
                f"{'yes' if result.selected else 'no'}, {result.reason}",
            )
            for result in results
        ),
    )


def _rule(config: CorpusConfig, n_selected: int) -> list[str]:
    options = config.exam
    kind = "sample" if options.ddof else "population"
    rule = (
        f"selected: the first {options.top} by mean of those with {100 * options.min_last:g} % or "
        f"more in the last exam (Appendix B); SD: the {kind}'s (ddof {options.ddof})"
    )
    notes = [rule]
    if n_selected > options.top:
        notes.append(f"{n_selected} are selected: equals share the last place")
    return notes


def _row(result: ExamResult, exams: Sequence[str]) -> dict[str, Any]:
    figures = asdict(result)
    accuracies = dict(zip(map(_exam_name, exams), figures.pop("accuracies"), strict=True))
    return {"candidate": figures.pop("candidate"), **accuracies, **figures}


def _feedback(
    config: CorpusConfig,
    results: Sequence[ExamResult],
    sheets: Sequence[AnswerSheet],
    exams: Sequence[str],
    examples: Mapping[str, Example],
) -> dict[str, str]:
    """Return a page a candidate: accuracies, then every mistake with what would have been right."""
    taxonomy = find_taxonomy(config)
    language = config.data.prompt_language
    pages = {}
    for result in results:
        check_file_name("annotations", result.candidate)
        lines = [markdown("# Feedback for {}", result.candidate), ""]
        lines += [
            markdown("- {}: {}", _exam_name(name), _percent(value))
            for name, value in zip(exams, result.accuracies, strict=True)
        ]
        for sheet in (sheet for sheet in sheets if sheet.candidate == result.candidate):
            wrong = len(sheet.mistakes)
            heading = markdown("## {}: {} of {} wrong", _exam_name(sheet.exam), wrong, sheet.items)
            lines += ["", heading]
            for mistake in sheet.mistakes:
                lines += ["", markdown("### {}", mistake.id), ""]
                if mistake.id in examples:
                    text = document_text(examples[mistake.id], language=language)
                    lines += [*(markdown("> {}", line) for line in text.splitlines()), ""]
                lines.append(markdown("- Your label: **{}**", mistake.given or "none"))
                lines.append(markdown("- Correct label: **{}**", mistake.correct))
                if taxonomy is not None and mistake.correct in taxonomy:
                    category = taxonomy[mistake.correct]
                    texts = (category.definition.get(language), category.contrast.get(language))
                    lines += [ln for text in texts if text for ln in ("", markdown("{}", text))]
        pages[f"feedback/{result.candidate}.md"] = "\n".join(lines) + "\n"
    return pages


def _exam_name(name: str) -> str:
    return f"exam {name}" if name.isdecimal() else name


def _percent(value: float | None) -> str:
    return "not taken" if value is None else f"{100 * value:.0f} % correct"
