"""Figures as the APA's Publication Manual (7th edition, sections 6.36 to 6.45) prints them."""

from __future__ import annotations

import pytest

from recap.output.format import (
    ends,
    interval,
    mean_sd,
    number,
    p_cell,
    p_value,
    percent,
    percent_with_ends,
    plain,
    rounded_percent,
    share,
)


def test_a_minus_is_a_minus_and_there_is_no_negative_zero() -> None:
    assert number(-1.005, 1) == "−1.0"
    assert number(-0.004) == "0.00"
    assert (number(None), share(-0.25)) == ("–", "−.25")


@pytest.mark.parametrize(
    ("p", "written"), [(0.0004, "< .001"), (0.0236, ".024"), (0.9996, "> .999"), (None, "–")]
)
def test_p_values_have_three_digits_and_no_leading_zero(p: float | None, written: str) -> None:
    assert p_cell(p) == written
    assert p_value(p).endswith(written)


def test_intervals_stand_in_brackets() -> None:
    assert interval(0.07, 1.1) == "95% CI [0.07, 1.10]"
    assert (ends(0.07, 1.1), ends(None, 1.1)) == ("[0.07, 1.10]", "–")
    assert percent_with_ends(0.125, 0.07, 0.182) == "12.5 [7.0, 18.2]"
    assert percent_with_ends(0.125, None, None) == "12.5"


def test_a_percentage_is_never_rounded_to_certainty() -> None:
    assert [rounded_percent(p) for p in (0, 0.001, 0.5, 0.9951, 1)] == [
        *("0 %", "<1 %", "50 %", ">99 %", "100 %")
    ]
    assert percent(0.625) == "62.50"


def test_any_value_has_a_cell() -> None:
    assert [plain(value) for value in (None, True, False, 0.25, 3, "x")] == [
        *("–", "yes", "no", "0.250", "3", "x")
    ]
    assert (mean_sd(3.75, 0.821), mean_sd(3.75, None)) == ("3.75 ± 0.82", "3.75")
