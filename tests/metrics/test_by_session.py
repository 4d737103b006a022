"""Confusions by session."""

from __future__ import annotations

import numpy as np
import pytest
from builders import prediction

from recap.errors import DataError
from recap.metrics.scores import confusion_of, session_confusions, stacked, unit_of

LABELS = ("Resistance", "Collaboration")


PREDICTIONS = (
    prediction("1", "Resistance", "Resistance", session="a"),
    prediction("2", "Resistance", None, session="b"),
    prediction("3", "Collaboration", "Resistance", session="a"),
    prediction("4", "Collaboration", "Collaboration"),
)


def test_each_session_has_its_own_counts_and_an_example_without_one_is_its_own_unit() -> None:
    found = session_confusions(PREDICTIONS, task="binary", labels=LABELS)
    assert {unit: matrix.tolist() for unit, matrix in found.items()} == {
        ("session", "a"): [[1, 0, 0], [1, 0, 0]],
        ("session", "b"): [[0, 0, 1], [0, 0, 0]],
        ("example", "4"): [[0, 0, 0], [0, 1, 0]],
    }


def test_sessions_add_up_to_the_run() -> None:
    found = session_confusions(PREDICTIONS, task="binary", labels=LABELS)
    whole = confusion_of(PREDICTIONS, task="binary", labels=LABELS)
    np.testing.assert_array_equal(sum(found.values()), whole)


def test_a_session_and_an_example_of_one_name_are_not_mixed_up() -> None:
    assert unit_of(prediction("a", *LABELS)) != unit_of(prediction("x", *LABELS, session="a"))


def test_stacked_matrices_follow_the_given_units_and_fill_gaps_with_zeros() -> None:
    found = session_confusions(PREDICTIONS, task="binary", labels=LABELS)
    units = [("session", "b"), ("session", "not there")]
    assert stacked(found, units).tolist() == [[[0, 0, 1], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]


def test_a_label_of_another_task_is_refused() -> None:
    with pytest.raises(DataError, match="is not a label of task 'binary'"):
        session_confusions(
            [prediction("1", "Blaming", None, session="a")], task="binary", labels=LABELS
        )
