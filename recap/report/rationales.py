"""What the rationales that systems give are worth: names, quotes, overlap, simulatability."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from recap.data.sheets import RatingsOptions, blank_sheet
from recap.data.words import Lengths, is_chinese
from recap.metrics.scores import spread_text
from recap.models.tfidf import Analyzer, tfidf_probabilities
from recap.output.format import mean_sd, number, percent
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.output.templates import render_notes
from recap.records import Example, Prediction
from recap.report.options import ReportConfig
from recap.report.rationale_content import (
    FUZZY_THRESHOLD,
    Distinctness,
    Explained,
    Grounding,
    Likeness,
    NameFinder,
    Naming,
    Quote,
    Simulatability,
    distinctness,
    draw_by_label,
    ground_quotes,
    length_in_characters,
    length_in_words,
    likeness,
    names_another,
    shares_of_naming,
    simulatability,
    summarize_grounding,
)
from recap.report.runs import ReportedRun, read_examples_again
from recap.system.files import sheet_to_csv


@dataclass(frozen=True, kw_only=True)
class RunRationales:
    """The rationales of one run, and all that was found of them."""

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

    @property
    def texts(self) -> dict[str, str]:
        """The rationales by id."""
        return {p.id: p.rationale or "" for p in self.given}


ByRun = Mapping[str, RunRationales]
"""What was found of each run, by its name."""


def describe_rationales(
    run: ReportedRun, examples: Mapping[str, Example], annotators: Simulatability | None
) -> RunRationales:
    """Return all that is measured of a run's rationales, of which there is at least one.

    Args:
        run: The run.
        examples: By id; empty where the data could not be read, which leaves out what needs them.
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
    return RunRationales(
        answers=sum(p.label is not None for p in run.all_predictions),
        given=given,
        namings=namings,
        naming_shares=shares_of_naming(namings),
        gold_named_where_wrong=sum(gold_named) / len(wrong) if wrong else None,
        quotes=quotes,
        grounding=summarize_grounding(list(quotes.values())) if quotes else None,
        by_chance=summarize_grounding(by_chance) if by_chance else None,
        characters=length_in_characters(list(texts.values())),
        words=length_in_words(list(texts.values())),
        distinctness=distinctness(list(texts.values())),
        likeness=likeness(texts, annotated, {p.id: p.gold for p in given}),
        simulatability=_simulatability(run, {p.id: (p.label or "", texts[p.id]) for p in given}),
        annotators=annotators,
    )


def explains(prediction: Prediction) -> bool:
    """Whether a prediction has a label and a rationale for it."""
    return prediction.label is not None and bool((prediction.rationale or "").strip())


def annotators_simulatability(
    run: ReportedRun, examples: Mapping[str, Example]
) -> Simulatability | None:
    """Return what the annotators' rationales give away of the gold labels, over a run's folds."""
    told = {
        p.id: (p.gold, text)
        for p in run.all_predictions
        if p.id in examples and (text := (examples[p.id].rationale or "").strip())
    }
    return _simulatability(run, told)


def _simulatability(run: ReportedRun, told: Mapping[str, tuple[str, str]]) -> Simulatability | None:
    """Return what rationales give away, from a label and a rationale by example id."""
    explained = [
        Explained(fold=fold, label=told[p.id][0], rationale=told[p.id][1])
        for fold, own in run.predictions.items()
        for p in own
        if p.id in told
    ]
    chinese = sum(is_chinese(one.rationale) for one in explained)
    analyzer: Analyzer = "char" if 2 * chinese > len(explained) else "word"
    return simulatability(
        explained,
        labels=run.task.labels,
        mask=NameFinder(run.task.taxonomy).masked,
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


_NAMED = (
    ("the label", "own"),
    ("by its spelling", "own_spelled"),
    ("only its pattern", "only_above"),
    ("another", "another"),
    ("another by spelling", "another_spelled"),
    ("nothing", "nothing"),
)


def rationale_tables(runs: ByRun, *, texts: bool) -> tuple[ReportTable, ...]:
    """Return the tables; those of what is not known of any run are left out.

    Args:
        runs: What was found of each run.
        texts: Whether rationales themselves stand beside the ids.
    """
    tables = [
        _names(runs),
        *([_grounding_table(runs)] if _any_quotes(runs) else []),
        _lengths(runs),
        _likeness(runs),
        _simulatability_table(runs),
        _page(runs, texts),
    ]
    return tuple(table for table in tables if table.rows)


def _any_quotes(runs: ByRun) -> bool:
    return any(one.grounding is not None and one.grounding.quotes for one in runs.values())


def _names(runs: ByRun) -> ReportTable:
    return table_of(
        "What rationales name, %",
        runs.items(),
        {
            "system": lambda row: row[0],
            "rationales": lambda row: f"{len(row[1].given):,}",
            "answers": lambda row: f"{row[1].answers:,}",
            **{title: _share_naming(key) for title, key in _NAMED},
            "gold where wrong": lambda row: percent(row[1].gold_named_where_wrong, 1),
        },
    )


def _share_naming(key: str) -> Callable[[tuple[str, RunRationales]], str]:
    return lambda row: percent(row[1].naming_shares[key], 1)


def _grounding_table(runs: ByRun) -> ReportTable:
    nothing = summarize_grounding([])
    return table_of(
        "Quotes that the dialogue holds, %",
        [(k, one.grounding, one.by_chance or nothing) for k, one in runs.items() if one.grounding],
        {
            "system": lambda row: row[0],
            "with quotes": lambda row: percent(row[1].with_quotes / row[1].rationales, 1),
            "quotes": lambda row: f"{row[1].quotes:,}",
            "exact": lambda row: percent(row[1].exact, 1),
            "near": lambda row: percent(row[1].fuzzy, 1),
            "exact by chance": lambda row: percent(row[2].exact, 1),
            "near by chance": lambda row: percent(row[2].fuzzy, 1),
            "all exact": lambda row: percent(row[1].rationales_exact, 1),
            "all near": lambda row: percent(row[1].rationales_fuzzy, 1),
            "exact, in the response": lambda row: percent(row[1].in_response, 1),
        },
    )


def _lengths(runs: ByRun) -> ReportTable:
    return table_of(
        "Length and distinctness",
        runs.items(),
        {
            "system": lambda row: row[0],
            "characters": lambda row: mean_sd(row[1].characters.mean, row[1].characters.std, 1),
            "words": lambda row: mean_sd(row[1].words.mean, row[1].words.std, 1),
            "distinct-1": lambda row: number(row[1].distinctness.distinct_1, 3),
            "distinct-2": lambda row: number(row[1].distinctness.distinct_2, 3),
            "different": lambda row: f"{row[1].distinctness.different:,}",
            "repeated, %": lambda row: percent(row[1].distinctness.duplicates, 1),
            "most frequent one, %": lambda row: percent(row[1].distinctness.most_common, 1),
        },
    )


def _likeness(runs: ByRun) -> ReportTable:
    return table_of(
        "Beside the annotators' rationales",
        [(name, one.likeness) for name, one in runs.items() if one.likeness is not None],
        {
            "system": lambda row: row[0],
            "pairs": lambda row: f"{row[1].n:,}",
            "chrF": lambda row: percent(row[1].chrf, 1),
            "chrF, same label": lambda row: percent(row[1].chrf_same_label, 1),
            "BLEU": lambda row: percent(row[1].bleu, 1),
        },
    )


def _simulatability_table(runs: ByRun) -> ReportTable:
    rows = []
    for name, one in runs.items():
        sources = {"its rationales": one.simulatability, "annotators'": one.annotators}
        for source, found in sources.items() if one.simulatability is not None else ():
            if found is not None:
                ways = (found.unmasked, found.masked, found.majority)
                figures = [*(way.accuracy for way in ways), *(way.macro_f1 for way in ways)]
                rows.append((name, source, *map(spread_text, figures)))
    return ReportTable(
        title="Labels that rationales alone give away, %",
        header=(
            *("system", "from", "accuracy", "masked", "majority"),
            *("macro-F1", "masked", "majority"),
        ),
        rows=tuple(rows),
        text_columns=(0, 1),
    )


def _page(runs: ByRun, texts: bool) -> ReportTable:
    rows = [
        (name, *found, *([" ".join(one.texts[found[1]].split())] if texts else []))
        for name, one in runs.items()
        for found in _examples(one)
    ]
    header = ("system", "kind", "id", "what", *(["rationale"] if texts else []))
    return ReportTable(
        title="Examples by id",
        header=header,
        rows=tuple(rows),
        text_columns=tuple(range(len(header))),
    )


def _examples(one: RunRationales) -> Iterator[tuple[str, str, str]]:
    """Yield kind, id and a remark of the examples worth looking at."""
    named = [(p, n) for p, n in zip(one.given, one.namings, strict=True) if names_another(n)]
    # Those that name another category and not their own come first.
    for p, naming in sorted(named, key=lambda pair: pair[1].own)[:LISTED]:
        others = ", ".join((*naming.others, *naming.other_families))
        yield "names another", p.id, f"answered {p.label}, names {others}"
    quotes = {key: own for key, own in one.quotes.items() if own}
    similarity = {key: min(q.similarity for q in own) for key, own in quotes.items()}
    ungrounded = (key for key in similarity if similarity[key] < 1)
    for key in sorted(ungrounded, key=lambda key: similarity[key])[:LISTED]:
        yield "worst grounded", key, f"{similarity[key]:.2f} similar"
    quoted = {key: sum(q.characters for q in own) for key, own in quotes.items()}
    grounded = (key for key, own in quotes.items() if all(q.exact for q in own))
    for key in sorted(grounded, key=lambda key: -quoted[key])[:LISTED]:
        yield "best grounded", key, f"{quoted[key]} characters quoted"
    chrf = {} if one.likeness is None else one.likeness.chrf_of
    rising = sorted(chrf, key=lambda key: chrf[key])
    for kind, keys in (("least", rising), ("most", rising[::-1])):
        for key in keys[:LISTED]:
            yield f"{kind} like the annotators'", key, f"chrF {100 * chrf[key]:.1f}"


LISTED = 10
"""Examples of each kind on the page of ids."""

RATINGS = RatingsOptions()
"""Size, seed and criteria of the rating sheets."""


def rationale_section(runs: Sequence[ReportedRun], options: ReportConfig) -> Report | None:
    """Return the section on the runs' rationales; ``None`` where no run gives any.

    Each run has a blank rating sheet among the pages, ``rationales_to_rate_<run>.csv``. With
    ``privacy.include_text`` it holds dialogues and rationales, and is one of the private pages.
    """
    explaining = [run for run in runs if any(map(explains, run.all_predictions))]
    if not explaining:
        return None
    examples, fault = read_examples_again(explaining)
    references: dict[Any, Simulatability | None] = {}
    found = {}
    for run in explaining:
        # Runs over the same examples and folds have one upper reference.
        key = (run.task.labels, tuple((k, p.id) for k, ps in run.predictions.items() for p in ps))
        if key not in references:
            references[key] = annotators_simulatability(run, examples)
        found[run.name] = describe_rationales(run, examples, references[key])
    texts = options.privacy.include_text
    sheets = {
        f"rationales_to_rate_{run.name}.csv": _rating_sheet(
            found[run.name],
            examples,
            language=run.config.data.language,
            texts=texts,
        )
        for run in explaining
    }
    return Report(
        action="rationales",
        title="Rationales: what they name, quote, repeat and give away",
        figures={
            "similarity_threshold": FUZZY_THRESHOLD,
            "data_read_again": fault is None,
            "runs": {name: _figures(one) for name, one in found.items()},
        },
        sheets=rationale_tables({r.title: found[r.name] for r in explaining}, texts=texts),
        notes=render_notes(
            "report/notes.yaml",
            "rationales",
            fault=fault,
            similarity=FUZZY_THRESHOLD,
            ratings=RATINGS,
            grounded=any(one.grounding is not None for one in found.values()),
            quoted=_any_quotes(found),
            likeness=any(one.likeness is not None for one in found.values()),
            simulatability=any(one.simulatability is not None for one in found.values()),
        ),
        rows=[{"run": name, **_flat(one)} for name, one in found.items()],
        pages={} if texts else sheets,
        private_pages=dict(sheets) if texts else {},
    )


def _rating_sheet(
    found: RunRationales, known: Mapping[str, Example], *, language: str | None, texts: bool
) -> str:
    by_id = {p.id: p for p in found.given}
    examples = [
        replace(
            known.get(key) or Example(id=key, history=(), response=""),
            session=by_id[key].session,
            label=by_id[key].label,
            rationale=by_id[key].rationale,
        )
        for key in _to_rate(found)
    ]
    return sheet_to_csv(
        *blank_sheet(examples, criteria=RATINGS.criteria, language=language, texts=texts)
    )


def _to_rate(found: RunRationales) -> list[str]:
    labels = {p.id: p.label or "" for p in found.given}
    return draw_by_label(labels, size=RATINGS.size, seed=RATINGS.seed)


def _figures(found: RunRationales) -> dict[str, Any]:
    return {
        "answers": found.answers,
        "rationales": len(found.given),
        "names": {
            **found.naming_shares,
            "gold_where_wrong": found.gold_named_where_wrong,
            "another_ids": [
                p.id
                for p, naming in zip(found.given, found.namings, strict=True)
                if names_another(naming)
            ],
        },
        "grounding": _plain(found.grounding),
        "grounding_by_chance": _plain(found.by_chance),
        "characters": asdict(found.characters),
        "words": asdict(found.words),
        "distinctness": asdict(found.distinctness),
        "likeness": _plain(found.likeness, without="chrf_of"),
        "simulatability": _plain(found.simulatability),
        "simulatability_of_annotators": _plain(found.annotators),
        "to_rate": _to_rate(found),
    }


def _plain(found: Any, *, without: str = "") -> dict[str, Any] | None:
    return found and {name: value for name, value in asdict(found).items() if name != without}


def _flat(found: RunRationales) -> dict[str, float | int | None]:
    given_away = found.simulatability
    ways = ("unmasked", "masked", "majority")
    accuracy = [getattr(given_away, way).accuracy.mean if given_away else None for way in ways]
    return {
        "rationales": len(found.given),
        **{f"names_{name}": share for name, share in found.naming_shares.items()},
        "names_gold_where_wrong": found.gold_named_where_wrong,
        "quotes": getattr(found.grounding, "quotes", None),
        "quotes_exact": getattr(found.grounding, "exact", None),
        "quotes_fuzzy": getattr(found.grounding, "fuzzy", None),
        "mean_characters": found.characters.mean,
        "mean_words": found.words.mean,
        "distinct_1": found.distinctness.distinct_1,
        "distinct_2": found.distinctness.distinct_2,
        "duplicates": found.distinctness.duplicates,
        **{
            name: getattr(found.likeness, name, None)
            for name in ("chrf", "chrf_same_label", "bleu")
        },
        "recovered": accuracy[0],
        "recovered_masked": accuracy[1],
        "recovered_by_majority": accuracy[2],
    }
