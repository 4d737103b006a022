"""Scores of groups: equal to scikit-learn's, with intervals over sessions."""

from __future__ import annotations

import math
import random

import pytest
from builders import prediction
from scipy.stats import binom
from sklearn.metrics import accuracy_score, f1_score

from recap.report.error_statistics import hardest_examples, scores_by_group, wrong_in_all

LABELS = ("a", "b", "c")


def drawn(n=300):
    rng = random.Random(0)
    return [
        prediction(
            f"e{i}", rng.choice("aab"), rng.choice(["a", "b", "b", "c", None]), session=f"s{i % 40}"
        )
        for i in range(n)
    ]


def test_figures_are_those_of_scikit_learn() -> None:
    predictions = drawn()
    group_of = {p.id: "even" if int(p.id[1:]) % 2 == 0 else "odd" for p in predictions}
    found = scores_by_group(predictions, group_of, labels=LABELS, confidence=None)
    assert [one.group for one in found] == ["even", "odd"]
    for one, parity in zip(found, (0, 1), strict=True):
        own = [p for p in predictions if int(p.id[1:]) % 2 == parity]
        gold, said = [p.gold for p in own], [p.label or "invalid" for p in own]
        # No gold example is a "c": it is no part of the mean.
        expected = f1_score(gold, said, labels=["a", "b"], average="macro")
        assert one.macro_f1.value == pytest.approx(expected, abs=1e-12)
        assert one.accuracy.value == pytest.approx(accuracy_score(gold, said), abs=1e-12)
        assert one.support == {"a": gold.count("a"), "b": gold.count("b")}
        assert (one.n, one.sessions, one.overconfidence.value) == (150, 20, None)
        assert one.accuracy.low is None


def test_without_clusters_the_interval_is_the_binomials() -> None:
    predictions = [prediction(f"e{i}", "a", "a" if i < 30 else "b") for i in range(100)]
    [found] = scores_by_group(
        predictions,
        dict.fromkeys((p.id for p in predictions), "g"),
        labels=LABELS,
        confidence=0.95,
    )
    low, high = binom.ppf([0.025, 0.975], 100, 0.3) / 100
    assert found.accuracy.low == pytest.approx(low, abs=0.015)
    assert found.accuracy.high == pytest.approx(high, abs=0.015)


def test_sessions_count_whole() -> None:
    # Four examples a session, alike in it: as uncertain as one example a session.
    predictions = [
        prediction(f"e{i}", "a", "a" if i // 4 < 8 else "b", session=f"s{i // 4}")
        for i in range(100)
    ]
    [found] = scores_by_group(
        predictions,
        dict.fromkeys((p.id for p in predictions), "g"),
        labels=LABELS,
        confidence=0.95,
    )
    low, high = binom.ppf([0.025, 0.975], 25, 0.32) / 25
    assert found.accuracy.low == pytest.approx(low, abs=0.05)
    assert found.accuracy.high == pytest.approx(high, abs=0.05)
    assert found.sessions == 25


def test_overconfidence_by_hand() -> None:
    predictions = [
        prediction("x", "a", "a", probabilities={"a": 0.9, "b": 0.1}),
        prediction("y", "a", "b", probabilities={"a": 0.3, "b": 0.7}),
        prediction("z", "a", None, probabilities={"a": 0.3, "b": 0.7}),
        prediction("w", "a", "a"),
    ]
    group_of = dict.fromkeys("xyzw", "g")
    [found] = scores_by_group(predictions, group_of, labels=LABELS, confidence=None)
    assert found.overconfidence.value == pytest.approx((0.9 + 0.7) / 2 - 1 / 2)
    assert found.accuracy.value == 0.5


def test_a_single_session_has_no_interval_and_an_empty_group_no_row() -> None:
    predictions = [prediction("x", "a", "a", session="s"), prediction("y", "a", "b", session="s")]
    [found] = scores_by_group(
        predictions, {"x": "g", "y": "g", "q": "h"}, labels=LABELS, confidence=0.95
    )
    assert (found.group, found.n, found.accuracy.low) == ("g", 2, None)
    assert found.accuracy.reason.startswith("1 session is too few")


def test_the_least_likely_gold_labels_come_first() -> None:
    predictions = [
        prediction("x", "a", "a", probabilities={"a": 0.6, "b": 0.4}),
        prediction("y", "a", "b", probabilities={"a": 0.2, "b": 0.8}),
        prediction("z", "b", "a", probabilities={"a": 0.7, "b": 0.3}),
        prediction("w", "b", "a"),
    ]
    found = hardest_examples(predictions, most=2)
    assert [(one.id, one.gold_probability) for one in found] == [("y", 0.2), ("z", 0.3)]


def test_wrong_in_all_runs_by_hand() -> None:
    first = [prediction(key, "a", label) for key, label in zip("uvwxy", "abbbb", strict=True)]
    second = [prediction(key, "a", label) for key, label in zip("uvwx", "bbca", strict=True)]
    found = wrong_in_all([first, second])
    assert found is not None
    assert (found.runs, found.examples, found.ids) == (2, 4, ("v", "w"))
    assert (found.same_answer, found.by_gold) == (1, {"a": 2})
    assert math.isclose(found.by_chance, 4 * (3 / 4) * (3 / 4))
    assert wrong_in_all([first]) is None
    assert wrong_in_all([first, [prediction("q", "a", "a")]]) is None
