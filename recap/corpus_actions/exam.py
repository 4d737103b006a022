"""``action=exam``: how candidates did in annotation exams, and who is selected (Appendix B)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from recap.analysis.exams import (
    AnswerSheet,
    ExamResult,
    confused_labels,
    mark_exams,
    select_annotators,
)
from recap.analysis.judgements import rounds_of
from recap.corpus_actions.adjudicated import read_texts
from recap.corpus_actions.annotations import (
    canonical_label,
    open_annotations,
    reading_notes,
)
from recap.corpus_actions.batches import check_file_name
from recap.corpus_actions.exam_tables import read_key, read_scores
from recap.corpus_actions.options import CorpusConfig
from recap.corpus_actions.sources import find_taxonomy
from recap.data.doccano_batches import document_text
from recap.data.examples import turn_id
from recap.errors import DataError
from recap.records import Dialogue, Example
from recap.reporting.findings import Findings
from recap.reporting.sheets import Sheet
from recap.taxonomy import Taxonomy

_DASH = "–"
_CONFUSIONS_SHOWN = 10


def exam(config: CorpusConfig) -> Findings:
    """Return accuracies, who is selected, and a feedback sheet for each candidate.

    Raises:
        ConfigError: When neither answers nor scores are named.
        DataError: When a file cannot be used.
    """
    options = config.exam
    if options.scores is not None:
        exams, accuracies = read_scores(options.scores)
        return _findings(config, exams, _select(config, accuracies), (), (), {})
    read = open_annotations(config)
    judged = {judgement.id for judgement in read.judgements}
    texts = read_texts(config, judged)
    if options.key is not None:
        key = read_key(options.key, find_taxonomy(config))
    else:
        key = dict(pair for record in texts.records for pair in _labelled(record))
    key = {item: canonical_label(config, label) for item, label in key.items()}
    answered = judged & set(key)
    if not answered:
        raise DataError(
            "none of the answered items has a correct label; name a table of them (id, label) "
            "with exam.key, or the labelled data with data=... data.path=..."
        )
    exams = rounds_of(j for j in read.judgements if j.id in answered)
    sheets = mark_exams(read.judgements, key, exams)
    by_place = {(sheet.candidate, sheet.exam): sheet.accuracy for sheet in sheets}
    candidates = dict.fromkeys(sheet.candidate for sheet in sheets)
    results = _select(
        config, {c: tuple(by_place.get((c, name)) for name in exams) for c in candidates}
    )
    notes = [*texts.notes, *reading_notes(read)]
    if judged - answered:
        notes.append(f"{len(judged - answered):,} answered items have no correct label: left out")
    pages = _feedback(config, results, sheets, exams, texts.examples)
    return _findings(config, exams, results, sheets, notes, pages)


def _select(
    config: CorpusConfig, accuracies: Mapping[str, Sequence[float | None]]
) -> tuple[ExamResult, ...]:
    options = config.exam
    return select_annotators(
        accuracies, top=options.top, min_last=options.min_last, ddof=options.ddof
    )


def _findings(
    config: CorpusConfig,
    exams: Sequence[str],
    results: Sequence[ExamResult],
    sheets: Sequence[AnswerSheet],
    notes: Sequence[str],
    pages: Mapping[str, str],
) -> Findings:
    options = config.exam
    confusions = confused_labels(sheets)
    n_selected = sum(result.selected for result in results)
    return Findings(
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
        sheets=(_accuracies(results, exams), *_confusion_sheet(confusions)),
        notes=(*notes, *_rule(config, n_selected)),
        rows=[_row(result, exams) for result in results],
        private_pages=pages,
    )


def _accuracies(results: Sequence[ExamResult], exams: Sequence[str]) -> Sheet:
    return Sheet(
        title="Accuracy",
        header=("candidate", *(_exam_name(name) for name in exams), "mean", "SD", "selected"),
        rows=tuple(
            (
                result.candidate,
                *(_share(value) for value in result.accuracies),
                _share(result.mean),
                _share(result.std),
                f"yes, {result.reason}" if result.selected else f"no, {result.reason}",
            )
            for result in results
        ),
    )


def _confusion_sheet(confusions: Sequence[tuple[str, str, int]]) -> tuple[Sheet, ...]:
    if not confusions:
        return ()
    return (
        Sheet(
            title="What was taken for what most often",
            header=("correct", "given", "times"),
            rows=tuple((c, given, str(n)) for c, given, n in confusions[:_CONFUSIONS_SHOWN]),
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
    return {
        "candidate": result.candidate,
        **dict(zip(map(_exam_name, exams), result.accuracies, strict=True)),
        "mean": result.mean,
        "std": result.std,
        "rank": result.rank,
        "selected": result.selected,
        "reason": result.reason,
    }


def _feedback(
    config: CorpusConfig,
    results: Sequence[ExamResult],
    sheets: Sequence[AnswerSheet],
    exams: Sequence[str],
    examples: Mapping[str, Example],
) -> dict[str, str]:
    """Return a page a candidate: accuracies, then every mistake with what would have been right."""
    taxonomy = find_taxonomy(config)
    language = "zh" if config.data.language == "zh" else "en"
    pages = {}
    for result in results:
        check_file_name("annotations", result.candidate)
        lines = [f"# Feedback for {result.candidate}", ""]
        lines += [
            f"- {_exam_name(name)}: {_percent(value)}"
            for name, value in zip(exams, result.accuracies, strict=True)
        ]
        for sheet in (sheet for sheet in sheets if sheet.candidate == result.candidate):
            wrong = len(sheet.mistakes)
            lines += ["", f"## {_exam_name(sheet.exam)}: {wrong} of {sheet.items} wrong"]
            for mistake in sheet.mistakes:
                lines += ["", f"### {mistake.id}", ""]
                if mistake.id in examples:
                    text = document_text(examples[mistake.id], language=language)
                    lines += [*(f"> {line}" for line in text.splitlines()), ""]
                lines.append(f"- Your label: **{mistake.given or 'none'}**")
                lines.append(f"- Correct label: **{mistake.correct}**")
                lines += _explained(taxonomy, mistake.correct, language)
        pages[f"feedback/{result.candidate}.md"] = "\n".join(lines) + "\n"
    return pages


def _explained(taxonomy: Taxonomy | None, label: str, language: str) -> list[str]:
    if taxonomy is None or label not in taxonomy:
        return []
    category = taxonomy[label]
    texts = [category.definition.get(language), category.contrast.get(language)]
    return [line for text in texts if text for line in ("", text)]


def _labelled(record: Dialogue | Example) -> list[tuple[str, str]]:
    if isinstance(record, Example):
        return [] if record.label is None else [(record.id, record.label)]
    return [
        (turn_id(record.session, index, turn), turn.label)
        for index, turn in enumerate(record.turns)
        if turn.speaker == "client" and turn.label is not None
    ]


def _exam_name(name: str) -> str:
    return f"exam {name}" if name.isdecimal() else name


def _share(value: float | None) -> str:
    return _DASH if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "not taken" if value is None else f"{100 * value:.0f} % correct"
