"""Quotes of rationales: which are quotes, and which of them the dialogue holds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recap.records import Example, Turn
from recap.report.rationale_content import (
    comparable,
    find_quotes,
    ground_quotes,
    local_similarity,
    summarize_grounding,
)

DIALOGUE = Example(
    id="a",
    history=(
        Turn(speaker="client", text="My mother is always so emotional."),
        Turn(speaker="counselor", text="你可以试试 冥想。Try to breathe, then."),
    ),
    response="I don’t know... 我不想 做（真的）。 Some day",
)


@pytest.mark.parametrize(
    ("text", "quotes"),
    [
        ('says “one” and "two" and 「三」 and 『四』', ["one", "two", "三", "四"]),
        ("says ‘always so emotional’ and 'he's the one'.", ["always so emotional", "he's the one"]),
        ("the client's view doesn't fit the counselors' idea", []),
        ("the client’s view doesn’t fit", []),
        ("来访者说‘不知道’来回避", ["不知道"]),
        ("a mark “that never closes", []),
        ("“outer ‘inner’ rest”", ["outer ‘inner’ rest"]),
        ("＂全角＂", ["全角"]),
    ],
)
def test_quotes_are_told_from_apostrophes(text, quotes) -> None:
    assert find_quotes(text) == quotes


@pytest.mark.parametrize(
    ("quote", "exact", "place"),
    [
        ("always so emotional,", True, "client_before"),
        ("ALWAYS  so emotional", True, "client_before"),
        ("试试冥想", True, "counselor"),
        ("I don't know", True, "response"),
        ("我不想做（真的）", True, "response"),
        ("我不想做(真的)", True, "response"),
        ("I … 真的", True, "response"),
        ("I … nothing", False, None),
        ("so emot", False, None),
        ("emotional. 你可以", False, None),
        ("试试跑步", False, None),
    ],
)
def test_a_quote_is_exact_where_a_turn_holds_it(quote, exact, place) -> None:
    [found] = ground_quotes(f"The client says “{quote}”.", DIALOGUE)
    assert (found.exact, found.place) == (exact, place)


def test_names_of_categories_and_single_letters_are_no_quotes() -> None:
    text = "This “Blaming” is “I” and “!?”, “some”"
    found = ground_quotes(text, DIALOGUE, is_name=lambda quote: quote == "Blaming")
    assert [quote.exact for quote in found] == [True]


def test_a_near_quote_is_as_similar_as_its_edits_say() -> None:
    [found] = ground_quotes("“always very emotional”", DIALOGUE)
    # "so" to "very": four edits of 21 characters.
    assert not found.exact
    assert found.similarity == pytest.approx(1 - 4 / 21)


def edit_distance(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (x != y))
    return row[-1]


@settings(max_examples=60, deadline=None)
@given(st.text("abc想", min_size=1, max_size=6), st.text("abc想", max_size=8))
def test_local_similarity_is_that_of_the_best_stretch(piece, text) -> None:
    ends = range(len(text) + 1)
    best = min(edit_distance(piece, text[i:j]) for i in ends for j in ends if i <= j)
    assert local_similarity(piece, text) == pytest.approx(1 - best / len(piece))


def test_shares_by_hand() -> None:
    rationales = ["“some day”, “我不想做”", "“always so emotionel”", "“nothing at all”", "none"]
    grounded = [ground_quotes(text, DIALOGUE) for text in rationales]
    found = summarize_grounding(grounded, threshold=0.8)
    assert (found.rationales, found.with_quotes, found.quotes) == (4, 3, 4)
    assert (found.exact, found.fuzzy) == (2 / 4, 3 / 4)
    assert (found.rationales_exact, found.rationales_fuzzy) == (1 / 3, 2 / 3)
    assert found.in_response == 1
    none = summarize_grounding([(), ()])
    assert (none.with_quotes, none.exact, none.rationales_exact) == (0, None, None)


def test_one_width_one_case_no_space_beside_chinese() -> None:
    assert comparable(" Ｉ  ‘Don’t’ 我 想 ， OK ") == "i 'don't'我想,ok"
