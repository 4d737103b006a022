"""Solved examples: one of each category, drawn by seed, from what is given and nothing else."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recap.errors import DataError
from recap.folds.prompts import draw_shots
from recap.records import Example, Turn
from recap.tasks.library import builtin_task

FINE = builtin_task("fine_grained")
BINARY = builtin_task("binary")
FLAT = builtin_task("flat")


def example(number: int, label: str, rationale: str | None = "It does.") -> Example:
    asked = Turn(speaker="counselor", text="And how was that?")
    return Example(
        id=f"e{number}",
        history=(asked,),
        response=f"Answer {number}.",
        label=label,
        rationale=rationale,
    )


ROWS = [example(n, FLAT.labels[n % 14]) for n in range(70)]
RESISTANT = [row for row in ROWS if FINE.select(row)]


def test_every_label_of_the_thirteen_way_task_is_shown_once() -> None:
    shots = draw_shots(RESISTANT, FINE, seed=0, fold=0)
    assert len(shots) == 13
    assert {shot.label for shot in shots} == set(FINE.labels)


def test_the_binary_task_shows_two_by_default_and_fourteen_on_request() -> None:
    two = draw_shots(ROWS, BINARY, seed=0, fold=0)
    assert sorted(BINARY.gold(shot) for shot in two) == sorted(BINARY.labels)
    fourteen = draw_shots(ROWS, BINARY, categories="leaves", seed=0, fold=0)
    assert {shot.label for shot in fourteen} == set(FLAT.labels)
    assert len(fourteen) == 14


def test_order_and_draw_follow_seed_and_fold() -> None:
    drawn = {
        (seed, fold): [shot.id for shot in draw_shots(RESISTANT, FINE, seed=seed, fold=fold)]
        for seed in (0, 1)
        for fold in (0, 1)
    }
    assert drawn[0, 0] == [shot.id for shot in draw_shots(RESISTANT, FINE, seed=0, fold=0)]
    assert len({tuple(ids) for ids in drawn.values()}) == 4
    labels = [shot.label for shot in draw_shots(RESISTANT, FINE, seed=0, fold=0)]
    assert labels != list(FINE.labels)


@given(seed=st.integers(0, 2**32), order=st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_the_order_of_rows_changes_nothing(seed: int, order: random.Random) -> None:
    shuffled = list(RESISTANT)
    order.shuffle(shuffled)
    assert draw_shots(shuffled, FINE, seed=seed, fold=2) == draw_shots(
        RESISTANT, FINE, seed=seed, fold=2
    )


def test_a_category_without_a_training_example_is_refused_with_the_mend() -> None:
    rows = [row for row in RESISTANT if row.label != "Excusing"]
    with pytest.raises(DataError, match=r"fold 3 has no training example of 'Excusing'.*shots=0"):
        draw_shots(rows, FINE, seed=0, fold=3)
    with pytest.raises(DataError, match="shot_categories=labels"):
        draw_shots(rows, BINARY, categories="leaves", seed=0, fold=3)


def test_only_examples_with_a_rationale_are_shown_where_the_task_gives_one() -> None:
    rows = [example(n, label, None) for n, label in enumerate(FINE.labels)]
    rows += [example(20 + n, label) for n, label in enumerate(FINE.labels)]
    assert all(shot.rationale for shot in draw_shots(rows, FINE, seed=0, fold=0))
    with pytest.raises(DataError, match="rationale=false"):
        draw_shots(rows[:13], FINE, seed=0, fold=0)
    label_only = builtin_task("fine_grained", rationale=False)
    assert len(draw_shots(rows[:13], label_only, seed=0, fold=0)) == 13
