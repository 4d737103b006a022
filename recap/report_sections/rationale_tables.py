"""The tables of the rationales of several runs, and the page of examples by id."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from recap.analysis.describe import Lengths
from recap.analysis.quotes import Grounding
from recap.analysis.rationale_names import Naming, names_another
from recap.analysis.simulatability import Recovered, Simulatability
from recap.corpus_actions.annotation_options import RatingsOptions
from recap.records import Prediction
from recap.report_sections.judged_rationales import JudgedRationales
from recap.reporting.sheets import Sheet
from recap.scoring.summary import spread_text

_DASH = "–"
_NAMED = (
    ("the label", "own"),
    ("by its spelling", "own_spelled"),
    ("only its pattern", "only_above"),
    ("another", "another"),
    ("another by spelling", "another_spelled"),
    ("nothing", "nothing"),
)


def rationale_tables(
    judged: Sequence[JudgedRationales], *, listed: int, texts: bool
) -> tuple[Sheet, ...]:
    """Return the tables; those of what is not known of any run are left out.

    Args:
        judged: The runs.
        listed: Examples of each kind on the page of ids.
        texts: Whether rationales themselves stand beside the ids.
    """
    tables = [_names(judged), _lengths(judged)]
    if any(one.grounding is not None and one.grounding.quotes for one in judged):
        tables.insert(1, _grounding(judged))
    if any(one.likeness is not None for one in judged):
        tables.append(_likeness(judged))
    if any(one.simulatability is not None for one in judged):
        tables.append(_simulatability(judged))
    page = _page(judged, listed, texts)
    return (*tables, page) if page.rows else tuple(tables)


def rationale_notes(
    judged: Sequence[JudgedRationales], similarity: float, ratings: RatingsOptions
) -> list[str]:
    """Return what has to be known to read the tables."""
    names = (
        "Names: any spelling of the taxonomy, and words of an English name's family (disagrees, "
        "disagreement); 'another' is a category neither at, below nor above the answered label. "
        "Denied names (not Blaming) do not count. Such words are ordinary words too: read the "
        "examples before calling a rationale contradictory."
    )
    distinct = (
        "Distinct-1, -2: different tokens, and pairs of neighbouring ones, among all (Chinese: "
        "characters); both fall as rationales grow in number, so compare runs over the same "
        "examples."
    )
    notes = [names, distinct]
    if any(one.grounding is not None and one.grounding.quotes for one in judged):
        notes.append(
            "Quotes: exact where a turn holds them, white space, width and case apart; near where "
            f"the best stretch of the dialogue is at least {similarity:g} similar (1 - edits / "
            "characters). By chance: the same quotes looked for in another session's dialogue."
        )
    elif any(one.grounding is not None for one in judged):
        notes.append("No rationale quotes anything, so there is nothing to look for in dialogues.")
    if any(one.likeness is not None for one in judged):
        notes.append(
            "chrF (6 characters, recall twice as heavy) and BLEU over characters, in percent, of "
            "all pairs together. Same label: chrF against the annotators' rationale of another "
            "example with the same gold label, which is what the label alone gives."
        )
    if any(one.simulatability is not None for one in judged):
        notes.append(
            "Simulatability: TF-IDF with logistic regression learns the answered labels from the "
            "rationales of the other folds and is asked about each fold's; mean ± SD (ddof 1) over "
            "folds. Masked: every name of a category is replaced, so that only other words can "
            "tell. Annotators: the same with their rationales and the gold labels."
        )
    notes.append(
        f"Rating sheets (rationales_to_rate_<run>.csv): at most {ratings.size} rationales, every "
        f"label as often as the others, seed {ratings.seed}. Fill in a copy for each rater "
        "(ratings_<rater>.csv) and give them to recap.corpus action=ratings ratings.path=[…]."
    )
    return notes


def _names(judged: Sequence[JudgedRationales]) -> Sheet:
    rows = [
        (
            one.run,
            f"{len(one.given):,}",
            f"{one.answers:,}",
            *(_percent(one.naming_shares[key]) for _, key in _NAMED),
            _percent(one.gold_named_where_wrong),
        )
        for one in judged
    ]
    header = ("run", "rationales", "answers", *(name for name, _ in _NAMED), "gold where wrong")
    return Sheet(title="What rationales name, %", header=header, rows=tuple(rows))


def _grounding(judged: Sequence[JudgedRationales]) -> Sheet:
    header = (
        *("run", "with quotes", "quotes", "exact", "near", "exact by chance", "near by chance"),
        *("all exact", "all near", "exact, in the response"),
    )
    return Sheet(
        title="Quotes that the dialogue holds, %",
        header=header,
        rows=tuple(
            _grounding_row(one.run, one.grounding, one.by_chance)
            for one in judged
            if one.grounding is not None
        ),
    )


def _grounding_row(run: str, own: Grounding, chance: Grounding | None) -> tuple[str, ...]:
    return (
        run,
        _percent(own.with_quotes / own.rationales),
        f"{own.quotes:,}",
        _percent(own.exact),
        _percent(own.fuzzy),
        _percent(None if chance is None else chance.exact),
        _percent(None if chance is None else chance.fuzzy),
        _percent(own.rationales_exact),
        _percent(own.rationales_fuzzy),
        _percent(own.in_response),
    )


def _lengths(judged: Sequence[JudgedRationales]) -> Sheet:
    return Sheet(
        title="Length and distinctness",
        header=(
            *("run", "characters", "words", "distinct-1", "distinct-2", "different"),
            *("repeated, %", "most frequent one, %"),
        ),
        rows=tuple(
            (
                one.run,
                _length(one.characters),
                _length(one.words),
                _number(one.distinctness.distinct_1),
                _number(one.distinctness.distinct_2),
                f"{one.distinctness.different:,}",
                _percent(one.distinctness.duplicates),
                _percent(one.distinctness.most_common),
            )
            for one in judged
        ),
    )


def _likeness(judged: Sequence[JudgedRationales]) -> Sheet:
    return Sheet(
        title="Beside the annotators' rationales",
        header=("run", "pairs", "chrF", "chrF, same label", "BLEU"),
        rows=tuple(
            (
                one.run,
                f"{one.likeness.n:,}",
                _percent(one.likeness.chrf),
                _percent(one.likeness.chrf_same_label),
                _percent(one.likeness.bleu),
            )
            for one in judged
            if one.likeness is not None
        ),
    )


def _simulatability(judged: Sequence[JudgedRationales]) -> Sheet:
    rows: list[tuple[str, ...]] = []
    for one in judged:
        if one.simulatability is not None:
            rows.append(_recovered_row(one.run, "its rationales", one.simulatability))
            if one.annotators is not None:
                rows.append(_recovered_row(one.run, "annotators'", one.annotators))
    return Sheet(
        title="Labels that rationales alone give away, %",
        header=(
            *("run", "from", "accuracy", "masked", "majority"),
            *("macro-F1", "masked", "majority"),
        ),
        rows=tuple(rows),
        text_columns=(0, 1),
    )


def _recovered_row(run: str, source: str, found: Simulatability) -> tuple[str, ...]:
    ways: tuple[Recovered, ...] = (found.unmasked, found.masked, found.majority)
    return (
        run,
        source,
        *(spread_text(way.accuracy) for way in ways),
        *(spread_text(way.macro_f1) for way in ways),
    )


def _page(judged: Sequence[JudgedRationales], listed: int, texts: bool) -> Sheet:
    rows: list[tuple[str, ...]] = []
    for one in judged:
        rationales = {p.id: p.rationale or "" for p in one.given}
        for kind, key, what in _examples(one, listed):
            words = (" ".join(rationales[key].split()),) if texts else ()
            rows.append((one.run, kind, key, what, *words))
    header = ("run", "kind", "id", "what", *(("rationale",) if texts else ()))
    return Sheet(
        title="Examples by id",
        header=header,
        rows=tuple(rows),
        text_columns=tuple(range(len(header))),
    )


def _examples(one: JudgedRationales, listed: int) -> list[tuple[str, str, str]]:
    """Return kind, id and what is to be said of the examples worth looking at."""
    similarity = {key: min(q.similarity for q in own) for key, own in one.quotes.items() if own}
    ungrounded = sorted(
        (key for key in similarity if similarity[key] < 1), key=lambda key: similarity[key]
    )
    grounded = sorted(
        (key for key, own in one.quotes.items() if own and all(q.exact for q in own)),
        key=lambda key: -sum(q.characters for q in one.quotes[key]),
    )
    pairs = list(zip(one.given, one.namings, strict=True))
    both = [(p, n) for p, n in pairs if names_another(n)]
    # Those that name another category and not their own come first.
    both.sort(key=lambda pair: pair[1].own)
    chrf = {} if one.likeness is None else one.likeness.chrf_of
    rising = sorted(chrf, key=lambda key: chrf[key])
    return [
        *_kind("names another", [p.id for p, _ in both], listed, _what_it_names(both)),
        *_kind("worst grounded", ungrounded, listed, lambda key: f"{similarity[key]:.2f} similar"),
        *_kind(
            "best grounded",
            grounded,
            listed,
            lambda key: f"{sum(q.characters for q in one.quotes[key])} characters quoted",
        ),
        *_kind(
            "least like the annotators'", rising, listed, lambda key: f"chrF {100 * chrf[key]:.1f}"
        ),
        *_kind(
            "most like the annotators'",
            rising[::-1],
            listed,
            lambda key: f"chrF {100 * chrf[key]:.1f}",
        ),
    ]


def _kind(
    name: str, keys: Sequence[str], listed: int, what: Callable[[str], str]
) -> list[tuple[str, str, str]]:
    return [(name, key, what(key)) for key in keys[:listed]]


def _what_it_names(found: Sequence[tuple[Prediction, Naming]]) -> Callable[[str], str]:
    said = {}
    for prediction, naming in found:
        named = (*naming.others, *naming.other_families)
        said[prediction.id] = f"answered {prediction.label}, names {', '.join(named)}"
    return lambda key: said[key]


def _percent(share: float | None) -> str:
    return _DASH if share is None else f"{100 * share:.1f}"


def _number(value: float | None) -> str:
    return _DASH if value is None else f"{value:.3f}"


def _length(lengths: Lengths) -> str:
    if lengths.mean is None:
        return _DASH
    return f"{lengths.mean:.1f}" + ("" if lengths.std is None else f" ± {lengths.std:.1f}")
