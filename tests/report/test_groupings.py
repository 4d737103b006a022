"""The groups that scores are broken down by."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recap.records import Example, Turn
from recap.report.error_statistics import (
    by_column,
    by_history,
    by_length,
    by_negation,
    by_position,
    largest_groups,
    quantile_bins,
)


def example(key, response="one two", **values):
    return Example(id=key, history=values.pop("history", ()), response=response, **values)


def test_a_column_is_a_field_or_a_key_of_meta() -> None:
    examples = [
        example("a", session="s2", meta={"age": 30, "session": "other"}),
        example("b", session="s1", meta={"age": 4}),
        example("c", client="k", meta={"age": "", "said": "x" * 61, "made": {"of": "words"}}),
    ]
    assert by_column(examples, "session") == {"b": "s1", "a": "s2"}
    assert by_column(examples, "client") == {"c": "k"}
    assert list(by_column(examples, "age").items()) == [("b", "4"), ("a", "30")]
    # Neither a text nor what is no value at all may become the name of a group.
    assert by_column(examples, "said") == by_column(examples, "made") == {}


def test_lengths_are_words_or_chinese_characters() -> None:
    english = [example("a", "one two three"), example("b", "one"), example("c", "我不知道")]
    assert by_length(english, bins=2) == ({"b": "1", "c": "1", "a": "3"}, "words")
    chinese = [example("a", "我不知道"), example("b", "好"), example("c", "one two three")]
    assert by_length(chinese, bins=2)[1] == "characters"
    assert by_length(chinese, bins=2)[0] == {"a": "1–4", "b": "1–4", "c": "13"}


def test_history_is_counted_in_turns() -> None:
    turn = Turn(speaker="counselor", text="So?")
    examples = [example("a"), example("b", history=(turn,) * 3)]
    assert by_history(examples, bins=2) == {"a": "0", "b": "3"}


def test_thirds_go_by_the_order_of_turns() -> None:
    own = [example(f"e{turn}", session="s", turn=turn) for turn in (9, 1, 3, 5, 7)]
    short = [example(f"x{turn}", session="t", turn=turn) for turn in (1, 3)]
    # Middles of fifths: .1 .3 | .5 | .7 .9
    assert by_position([*own, *short, example("q", session="s")]) == {
        "e1": "first third",
        "e3": "first third",
        "e5": "middle third",
        "e7": "last third",
        "e9": "last third",
    }


@pytest.mark.parametrize(
    ("text", "negated"),
    [
        ("I can't", True),
        ("No.", True),
        ("I don’t know", True),
        ("我不想", True),
        ("还没有", True),
        ("Maybe only the methods that suit me will work", False),
        ("I know nothing-like words: notion, another", True),
        ("another notion", False),
        ("非常好", False),
        ("除非他来", False),
    ],
)
def test_overt_negations_are_words_of_their_own(text, negated) -> None:
    assert by_negation([example("a", text)])["a"] == (
        "overt negation" if negated else "no overt negation"
    )


@given(st.lists(st.integers(0, 30), min_size=1, max_size=200), st.integers(1, 6))
def test_bins_part_the_values_in_order(values, bins) -> None:
    numbered = {str(i): value for i, value in enumerate(values)}
    found = quantile_bins(numbered, bins=bins)
    assert set(found) == set(numbered)
    assert len(set(found.values())) <= bins
    ends = [tuple(map(int, name.split("–"))) for name in dict.fromkeys(found.values())]
    assert all(before[-1] < after[0] for before, after in pairwise(ends))
    for key, name in found.items():
        low, *_, high = (*map(int, name.split("–")), int(name.split("–")[-1]))
        assert low <= numbered[key] <= high


def test_different_values_fill_bins_evenly() -> None:
    counts = Counter(quantile_bins({str(i): i for i in range(100)}, bins=5).values())
    assert counts == {"0–19": 20, "20–39": 20, "40–59": 20, "60–79": 20, "80–99": 20}
    assert quantile_bins({}, bins=5) == {}


def test_the_largest_groups_keep_their_order() -> None:
    group_of = {"a": "x", "b": "y", "c": "y", "d": "z", "e": "z"}
    assert largest_groups(group_of, most=2) == {"b": "y", "c": "y", "d": "z", "e": "z"}
