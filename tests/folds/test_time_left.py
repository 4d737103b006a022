from __future__ import annotations

import pytest

from recap.folds.console import estimate_time_left
from recap.output.format import duration_text


def test_before_any_fold_is_finished_all_epochs_of_all_folds_are_counted() -> None:
    left = estimate_time_left(
        epoch_seconds=[8.0, 6.0], epochs_left=3, max_epochs=5, folds_left=4, finished=()
    )
    assert left == (3 * 7, 3 * 7 + 4 * 5 * 7)


def test_finished_folds_tell_what_early_stopping_and_decoding_make_of_a_fold() -> None:
    finished = [
        {"train_seconds": 20, "test_seconds": 4},
        {"train_seconds": 30, "test_seconds": 6},
    ]
    left = estimate_time_left(
        epoch_seconds=[7.0], epochs_left=4, max_epochs=5, folds_left=2, finished=finished
    )
    assert left == (4 * 7 + 5, 4 * 7 + 5 + 2 * (25 + 5))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5000, "83 min"), (7500, "2 h 05 min")],
)
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
