from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from recap.data.issues import FirstLines


@given(st.lists(st.tuples(st.text(max_size=3), st.integers(1, 10_000))))
def test_it_answers_as_a_dict_of_first_lines_would(met: list[tuple[str, int]]) -> None:
    first: dict[str, int] = {}
    lines = FirstLines()
    for name, line in met:
        assert lines.find(name) == first.get(name)
        assert lines.add(name, line) == first.setdefault(name, line)


def test_nothing_is_lost_when_the_table_grows() -> None:
    lines = FirstLines()
    for number in range(20_000):
        assert lines.add(f"name {number}", number + 1) == number + 1
    assert all(lines.find(f"name {number}") == number + 1 for number in range(20_000))
    assert lines.find("another") is None
