"""Trunks and teeth: every token that prompts share stands once, and every path is its prompt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from recap.data import layout as module
from recap.data.layout import Layout, Span, lay_out, side_by_side

START = tuple(range(100, 140))


def words(*numbers: int) -> tuple[int, ...]:
    """Return one turn of a dialogue, of 20 tokens."""
    return tuple(n * 1000 + i for n in numbers for i in range(20))


def read_back(layout: Layout, prompts: list[tuple[int, ...]], known: tuple[int, ...] = ()) -> None:
    """Check that the pieces before each span, and the span, are the beginning of its prompt."""
    texts = {-1: known, **dict(enumerate(prompts))}
    for number, span in enumerate(layout.spans):
        before: tuple[int, ...] = ()
        for trunk, n in layout.pieces(number):
            own = layout.trunks[trunk]
            assert 0 < n <= own.length
            assert trunk < number, "what goes on from a trunk comes after it"
            before += texts[own.owner][own.seen : own.seen + n]
        assert before == texts[span.owner][: span.seen]
        assert span.length > 0
    for tooth, prompt in zip(layout.teeth, prompts, strict=True):
        assert tooth.seen + tooth.length == len(prompt)


def standing(layout: Layout) -> int:
    return sum(layout.spans[number].length for number in layout.standing)


def test_the_turns_of_two_dialogues_stand_once_behind_the_instructions() -> None:
    form = (7, 8, 9)
    first = [(*START, *words(*range(1, n)), *form) for n in (2, 3, 4)]
    second = [(*START, *words(*range(5, n)), *form) for n in (7, 8)]
    prompts = [first[0], second[0], first[2], second[1], first[1]]
    layout = lay_out(prompts)
    read_back(layout, prompts)
    assert layout.trunks == (
        Span(owner=2, parent=-1, seen=0, length=80),
        Span(owner=3, parent=0, seen=40, length=40),
    )
    # The last prompt of each dialogue is its trunk, and goes on to its own end.
    assert [(tooth.parent, tooth.seen, tooth.length) for tooth in layout.teeth] == [
        (0, 60, 3),
        (1, 80, 3),
        (0, 80, 23),
        (1, 80, 23),
        (0, 80, 3),
    ]
    assert standing(layout) == 40 + 60 + 60 + 5 * 3


def test_what_is_known_is_not_computed_again() -> None:
    known = (*START, *words(1, 2))
    prompts = [(*START, *words(1, 2, 3), 7), (*START, *words(4), 7)]
    layout = lay_out(prompts, known=known)
    read_back(layout, prompts, known)
    assert layout.known
    assert layout.trunks == (Span(owner=-1, parent=-1, seen=0, length=80),)
    assert [(tooth.seen, tooth.length) for tooth in layout.teeth] == [(80, 21), (40, 21)]
    assert not lay_out([(1, 2, 3)], known=known).known, "nothing of it is of use"


def test_equal_prompts_and_prompts_that_begin_another_keep_a_last_token() -> None:
    for prompts in ([START] * 3, [START, START[:20], START[:30]]):
        layout = lay_out(prompts, [2] * 3)
        assert all(tooth.length >= 3 for tooth in layout.teeth)
        assert standing(layout) <= len(START) + 3 * 3
    assert lay_out([START]).trunks == ()
    assert lay_out([START], known=START).teeth[0].length == 1


def test_side_by_side_shares_nothing() -> None:
    assert side_by_side([2, 3]).teeth == (
        Span(owner=0, parent=-1, seen=0, length=2),
        Span(owner=1, parent=-1, seen=0, length=3),
    )


@st.composite
def talk(draw: st.DrawFn) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    """Return prompts that go on from each other in all ways, and what is known of one."""
    base = tuple(draw(st.lists(st.integers(0, 1), min_size=50, max_size=50)))
    ends = st.lists(st.integers(0, 2), min_size=1, max_size=30).map(tuple)
    prompts = draw(st.lists(st.tuples(st.integers(0, 50), ends), min_size=1, max_size=9))
    known = base[: draw(st.integers(0, 50))] if draw(st.booleans()) else ()
    return [base[:n] + end for n, end in prompts], known


@given(talk())
def test_no_token_stands_twice_but_for_a_few_that_are_worth_no_trunk(
    drawn: tuple[list[tuple[int, ...]], tuple[int, ...]],
) -> None:
    prompts, known = drawn
    layout = lay_out(prompts, known=known)
    read_back(layout, prompts, known)
    beginnings = {prompt[:n] for prompt in prompts for n in range(1, len(prompt) + 1)}
    beginnings -= {known[:n] for n in range(1, len(known) + 1)}
    assert standing(layout) >= len(beginnings)
    assert standing(layout) <= len(beginnings) + len(prompts) * module.WORTH_SHARING
