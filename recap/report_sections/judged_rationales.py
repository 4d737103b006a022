"""The rationales of one run, and everything that is measured of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from recap.analysis.describe import Lengths, is_chinese
from recap.analysis.quotes import Grounding, Quote, ground_quotes, summarize_grounding
from recap.analysis.rationale_names import NameFinder, Naming, shares_of_naming
from recap.analysis.rationales import (
    Distinctness,
    Likeness,
    distinctness,
    length_in_characters,
    length_in_words,
    likeness,
)
from recap.analysis.simulatability import Explained, Simulatability, simulatability
from recap.baselines.tfidf import Analyzer, tfidf_probabilities
from recap.records import Example, Prediction
from recap.report_sections.runs import ReportedRun


@dataclass(frozen=True, kw_only=True)
class JudgedRationales:
    """The rationales of one run, and all that was found of them."""

    run: str
    answers: int
    """Predictions with a label."""
    given: tuple[Prediction, ...]
    """Those of them that give a rationale."""
    namings: tuple[Naming, ...]
    """Of each."""
    naming_shares: Mapping[str, float | None]
    gold_named_where_wrong: float | None
    """Of the wrong answers, the share whose rationale names the gold label."""
    quotes: Mapping[str, tuple[Quote, ...]]
    """Of each, by id; empty where the dialogues could not be read."""
    grounding: Grounding | None
    by_chance: Grounding | None
    """The same quotes looked for in the dialogue of another session."""
    characters: Lengths
    words: Lengths
    distinctness: Distinctness
    likeness: Likeness | None
    simulatability: Simulatability | None
    annotators: Simulatability | None
    """The same with the annotators' rationales and gold labels: the upper reference."""


def judge_rationales(
    run: ReportedRun,
    examples: Mapping[str, Example],
    *,
    similarity: float,
    annotators: Simulatability | None,
) -> JudgedRationales:
    """Return all that is measured of a run's rationales, of which there is at least one.

    Args:
        run: The run.
        examples: By id; empty where the data could not be read, which leaves out what needs them.
        similarity: Least similarity at which a quote counts as grounded.
        annotators: What :func:`annotators_simulatability` gives for these examples.
    """
    finder = NameFinder(run.task.taxonomy)
    given = tuple(filter(explains, run.all_predictions))
    texts = {p.id: p.rationale or "" for p in given}
    namings = tuple(finder.naming(texts[p.id], p.label or "") for p in given)
    wrong = [p for p in given if p.label != p.gold]
    gold_named = [finder.naming(texts[p.id], p.gold).own for p in wrong]
    quotes, by_chance = _quotes(given, examples, finder)
    annotated = {p.id: examples[p.id].rationale or "" for p in given if p.id in examples}
    explained = [
        Explained(fold=fold, label=p.label or "", rationale=texts[p.id])
        for fold, own in run.predictions.items()
        for p in own
        if p.id in texts
    ]
    return JudgedRationales(
        run=run.name,
        answers=sum(p.label is not None for p in run.all_predictions),
        given=given,
        namings=namings,
        naming_shares=shares_of_naming(namings),
        gold_named_where_wrong=sum(gold_named) / len(wrong) if wrong else None,
        quotes=quotes,
        grounding=_grounding(list(quotes.values()), similarity),
        by_chance=_grounding(by_chance, similarity),
        characters=length_in_characters(list(texts.values())),
        words=length_in_words(list(texts.values())),
        distinctness=distinctness(list(texts.values())),
        likeness=likeness(texts, annotated, {p.id: p.gold for p in given}),
        simulatability=_simulatability(explained, run.task.labels, finder),
        annotators=annotators,
    )


def explains(prediction: Prediction) -> bool:
    """Whether a prediction has a label and a rationale for it."""
    return prediction.label is not None and bool((prediction.rationale or "").strip())


def annotators_simulatability(
    run: ReportedRun, examples: Mapping[str, Example]
) -> Simulatability | None:
    """Return what the annotators' rationales give away of the gold labels, over a run's folds."""
    explained = [
        Explained(fold=fold, label=p.gold, rationale=text)
        for fold, own in run.predictions.items()
        for p in own
        if p.id in examples and (text := (examples[p.id].rationale or "").strip())
    ]
    return _simulatability(explained, run.task.labels, NameFinder(run.task.taxonomy))


def _grounding(quotes: Sequence[Sequence[Quote]], similarity: float) -> Grounding | None:
    return summarize_grounding(quotes, threshold=similarity) if quotes else None


def _simulatability(
    explained: Sequence[Explained], labels: Sequence[str], finder: NameFinder
) -> Simulatability | None:
    chinese = sum(is_chinese(one.rationale) for one in explained)
    analyzer: Analyzer = "char" if 2 * chinese > len(explained) else "word"
    return simulatability(
        explained,
        labels=labels,
        mask=finder.masked,
        classify=partial(tfidf_probabilities, analyzer=analyzer),
    )


def _quotes(
    given: Sequence[Prediction], examples: Mapping[str, Example], finder: NameFinder
) -> tuple[dict[str, tuple[Quote, ...]], list[tuple[Quote, ...]]]:
    """Return the quotes of each rationale, looked for in its dialogue and in another one."""
    known = [p for p in given if p.id in examples]
    ground = partial(ground_quotes, is_name=finder.is_name)
    own = {p.id: ground(p.rationale or "", examples[p.id]) for p in known}
    chance = []
    for place, p in enumerate(known):
        stranger = _of_another_session(known, place)
        if own[p.id] and stranger is not None:
            chance.append(ground(p.rationale or "", examples[stranger.id]))
    return own, chance


def _of_another_session(given: Sequence[Prediction], place: int) -> Prediction | None:
    """Return the prediction half the list further on, or the next one, of another session."""
    own = given[place]
    for step in range(len(given)):
        other = given[(place + len(given) // 2 + step) % len(given)]
        if other.id != own.id and (own.session is None or other.session != own.session):
            return other
    return None
