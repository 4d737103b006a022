"""Confusions ranked, the paper's two kinds, and labels rolled up to patterns: by hand."""

from __future__ import annotations

import numpy as np
import pytest
from builders import prediction
from sklearn.metrics import f1_score

from recap.report.error_statistics import count_kind, named_kinds, rank_confusions, roll_up
from recap.tasks.library import load_taxonomy

TAXONOMY = load_taxonomy("psyfire")
OVER = {"confidence": 0.95}
FLAT = ("Challenging", "Discounting", "Blaming", "Pessimism", "Disagreeing", "Collaboration")


def predictions(pairs, *, sessions=None, held=None):
    return [
        prediction(
            f"e{i}",
            gold,
            label,
            session=None if sessions is None else sessions[i],
            probabilities=None if held is None else {label: held[i]},
        )
        for i, (gold, label) in enumerate(pairs)
    ]


def test_confusions_come_most_frequent_first() -> None:
    confusion = [[6, 3, 1], [3, 1, 0]]
    found = rank_confusions(confusion, ("a", "b"))
    # Of equals the one that takes the greater share of its gold label comes first.
    assert [(c.gold, c.predicted, c.count) for c in found] == [
        ("b", "a", 3),
        ("a", "b", 3),
        ("a", None, 1),
    ]
    assert [c.share_of_gold for c in found] == [3 / 4, 3 / 10, 1 / 10]
    assert [c.share_of_errors for c in found] == [3 / 7, 3 / 7, 1 / 7]
    assert rank_confusions([[2, 0, 0], [0, 2, 0]], ("a", "b")) == ()


def test_each_task_knows_the_kinds_that_its_labels_allow() -> None:
    def kinds(*labels):
        return [(kind.sources, kind.targets) for kind in named_kinds(TAXONOMY, labels)]

    assert kinds("Resistance", "Collaboration") == [(("Resistance",), ("Collaboration",))]
    assert kinds("Pessimism", "Disagreeing") == [(("Pessimism",), ("Disagreeing",))]
    assert kinds(*FLAT) == [
        (FLAT[:-1], ("Collaboration",)),
        (("Pessimism",), ("Disagreeing",)),
    ]
    assert kinds("Blaming", "Pessimism") == []


def test_a_kind_is_counted_among_its_gold_labels() -> None:
    pairs = [
        ("Pessimism", "Disagreeing"),
        ("Pessimism", "Disagreeing"),
        ("Pessimism", "Blaming"),
        ("Pessimism", None),
        ("Pessimism", "Pessimism"),
        ("Disagreeing", "Pessimism"),
    ]
    [_, kind] = named_kinds(TAXONOMY, FLAT)
    held = [0.4, 0.9, 1, 1, 1, 1]
    found = count_kind(predictions(pairs, held=held), kind, **OVER)
    assert (found.n, found.count, found.share.value) == (5, 2, 2 / 5)
    assert found.share_of_errors == 2 / 4
    assert found.ids == ("e1", "e0")
    assert found.share.reason.startswith("5 examples are too few")
    found = count_kind(predictions(pairs * 3, held=held * 3), kind, **OVER)
    assert found.share.low < 2 / 5 < found.share.high
    none = count_kind([], kind, **OVER)
    assert (none.n, none.share.value, none.share_of_errors) == (0, None, None)


def confusion_of(pairs, labels):
    counts = np.zeros((len(labels), len(labels) + 1), dtype=int)
    for gold, label in pairs:
        counts[labels.index(gold), len(labels) if label is None else labels.index(label)] += 1
    return counts


def test_labels_roll_up_to_their_patterns() -> None:
    pairs = [
        ("Challenging", "Discounting"),
        ("Challenging", "Blaming"),
        ("Discounting", "Discounting"),
        ("Blaming", "Pessimism"),
        ("Blaming", "Collaboration"),
        ("Pessimism", None),
        ("Collaboration", "Collaboration"),
        ("Collaboration", "Challenging"),
    ]
    found = roll_up(confusion_of(pairs, FLAT), FLAT, TAXONOMY, task="flat")
    assert found is not None
    assert found.patterns == ("Arguing", "Denying", "Collaboration")
    assert found.scores.confusion == ((2, 1, 0, 0), (0, 1, 1, 1), (1, 0, 1, 0))
    up = dict(found.pattern_of) | {None: "invalid"}
    expected = f1_score(
        [up[g] for g, _ in pairs], [up[p] for _, p in pairs], labels=found.patterns, average="macro"
    )
    assert found.scores.metrics["macro_f1"] == pytest.approx(expected, abs=1e-12)
    # Five readable wrong answers; Challenging-Discounting and Blaming-Pessimism keep the pattern.
    assert (found.errors, found.within) == (5, 2 / 5)


def test_chance_draws_other_labels_as_often_as_they_are_answered() -> None:
    # Answered: Challenging 1, Discounting 2, Blaming 3. Errors: one on Challenging, where
    # Discounting has 2 of the 5 others; two on Blaming, where none of the others is Denying.
    labels = ("Challenging", "Discounting", "Blaming")
    pairs = [
        ("Challenging", "Blaming"),
        *[("Blaming", "Discounting")] * 2,
        *[("Blaming", "Blaming")] * 2,
        ("Challenging", "Challenging"),
    ]
    found = roll_up(confusion_of(pairs, labels), labels, TAXONOMY, task="t")
    assert found is not None
    assert found.within == 0
    assert found.within_by_chance == pytest.approx((2 / 5) / 3)


def test_labels_that_are_patterns_already_do_not_roll_up() -> None:
    labels = ("Resistance", "Collaboration")
    assert roll_up([[1, 0, 0], [0, 1, 0]], labels, TAXONOMY, task="binary") is None
