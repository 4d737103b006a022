"""Groups of examples that scores are broken down by: metadata, length, position, history."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from recap.analysis.describe import is_chinese
from recap.records import Example

Unit = Literal["characters", "words"]

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
        own = {"session": example.session, "client": example.client}
        value = own[column] if column in own else example.meta.get(column)
        if isinstance(value, str | int | float) and 0 < len(str(value)) <= LONGEST_VALUE:
            values[example.id] = value
    return {key: str(values[key]) for key in sorted(values, key=lambda key: _order(values[key]))}


def by_length(examples: Sequence[Example], *, bins: int = 5) -> tuple[dict[str, str], Unit]:
    """Return the bin of each response's length, and the unit.

    Characters where more responses are Chinese than not, else words between white space.
    """
    chinese = sum(is_chinese(example.response) for example in examples)
    unit: Unit = "characters" if 2 * chinese > len(examples) else "words"
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
    held = {e.id: bool(_NEGATION.search(e.response.casefold())) for e in examples}
    return {
        key: "overt negation" if held[key] else "no overt negation"
        for key in sorted(held, key=lambda key: held[key])
    }


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
    return {key: THIRDS[third[key]] for key in sorted(third, key=lambda key: third[key])}


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
    ends: dict[int, Counter[int]] = defaultdict(Counter)
    for key, place in bin_of.items():
        ends[place][values[key]] += 1
    names = {
        place: f"{min(own)}–{max(own)}" if len(own) > 1 else str(min(own))
        for place, own in ends.items()
    }
    return {key: names[bin_of[key]] for key in sorted(bin_of, key=lambda key: bin_of[key])}


def largest_groups(group_of: Mapping[str, str], *, most: int) -> dict[str, str]:
    """Return the members of the groups with the most examples, in the order that they had."""
    counts = Counter(group_of.values())
    kept = {group for group, _ in counts.most_common(most)}
    return {key: group for key, group in group_of.items() if group in kept}


def _order(value: object) -> tuple[int, float, str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, float(value), "")
    return (1, 0.0, str(value))
