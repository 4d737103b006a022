"""Scores: equal to scikit-learn's, and to what the paper's counts give by hand."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from builders import prediction
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from recap.errors import DataError
from recap.metrics.scores import confusion_of, score, scores_from_confusion
from recap.records import LabelScores

BINARY = ("Resistance", "Collaboration")
TABLE_3_RESISTANT = {
    "Challenging": 682,
    "Discounting": 1094,
    "Blaming": 422,
    "Disagreeing": 1698,
    "Excusing": 336,
    "Minimizing": 368,
    "Pessimism": 856,
    "Reluctance": 586,
    "Unwillingness": 384,
    "Minimum Talk": 1018,
    "Limit Setting": 850,
    "Inattention": 1040,
    "Sidetracking": 1064,
}


def predictions(pairs):
    return [prediction(f"e{i}", gold, label) for i, (gold, label) in enumerate(pairs)]


@st.composite
def answers(draw):
    labels = [f"label {i}" for i in range(draw(st.integers(1, 6)))]
    one = st.tuples(st.sampled_from(labels), st.sampled_from([*labels, None]))
    return labels, draw(st.lists(one, min_size=1, max_size=80))


@settings(max_examples=300, deadline=None)
@given(case=answers())
def test_scores_equal_scikit_learns_on_random_cases(case):
    labels, pairs = case
    gold = [g for g, _ in pairs]
    answered = [label or "invalid" for _, label in pairs]
    ours = score(predictions(pairs), task="t", labels=labels)
    precision, recall, f1, support = precision_recall_fscore_support(
        gold, answered, labels=labels, average=None, zero_division=0
    )
    for i, label in enumerate(labels):
        row = ours.per_label[label]
        assert row.support == support[i]
        if row.support:
            assert row.precision == pytest.approx(precision[i], abs=1e-12)
            assert row.recall == pytest.approx(recall[i], abs=1e-12)
            assert row.f1 == pytest.approx(f1[i], abs=1e-12)
        else:
            assert (row.recall, row.f1) == (None, None)
            assert row.precision == (0 if label in answered else None)
    macro = precision_recall_fscore_support(
        gold, answered, labels=labels, average="macro", zero_division=0
    )
    assert ours.metrics["macro_precision"] == pytest.approx(macro[0], abs=1e-12)
    assert ours.metrics["macro_recall"] == pytest.approx(macro[1], abs=1e-12)
    assert ours.metrics["macro_f1"] == pytest.approx(macro[2], abs=1e-12)
    assert ours.metrics["accuracy"] == pytest.approx(accuracy_score(gold, answered), abs=1e-12)
    assert ours.metrics["invalid_rate"] == answered.count("invalid") / len(pairs)
    theirs = confusion_matrix(gold, answered, labels=[*labels, "invalid"])
    assert [list(row) for row in ours.confusion] == theirs[:-1].tolist()
    assert ours.n == len(pairs)


@settings(max_examples=100, deadline=None)
@given(case=answers(), shuffling=st.randoms(use_true_random=False))
def test_the_order_of_the_predictions_does_not_matter(case, shuffling):
    labels, pairs = case
    shuffled = list(pairs)
    shuffling.shuffle(shuffled)
    assert score(predictions(pairs), task="t", labels=labels) == score(
        predictions(shuffled), task="t", labels=labels
    )


def test_the_majority_answer_to_the_papers_binary_task_has_the_scores_that_follow_by_hand():
    gold = ["Collaboration"] * 13_532 + ["Resistance"] * 10_398
    scores = score(predictions((g, "Collaboration") for g in gold), task="binary", labels=BINARY)
    assert round(100 * scores.metrics["accuracy"], 2) == 56.55
    assert round(100 * scores.metrics["macro_f1"], 2) == 36.12


def test_the_majority_answer_to_the_papers_fine_grained_task_has_the_scores_that_follow_by_hand():
    gold = [label for label, n in TABLE_3_RESISTANT.items() for _ in range(n)]
    scores = score(
        predictions((g, "Disagreeing") for g in gold),
        task="fine_grained",
        labels=list(TABLE_3_RESISTANT),
    )
    assert round(100 * scores.metrics["accuracy"], 2) == 16.33
    assert round(100 * scores.metrics["macro_f1"], 2) == 2.16


def test_an_invalid_answer_is_wrong_and_counted_but_is_no_class_of_the_macro_mean():
    pairs = [("Resistance", None), ("Resistance", "Resistance"), ("Collaboration", "Collaboration")]
    scores = score(predictions(pairs), task="binary", labels=BINARY)
    assert scores.metrics["accuracy"] == pytest.approx(2 / 3)
    assert scores.metrics["invalid_rate"] == pytest.approx(1 / 3)
    assert scores.metrics["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)  # F1 2/3 and 1
    assert scores.confusion == ((1, 0, 1), (0, 1, 0))


def test_a_label_that_never_occurs_counts_as_zero_in_the_macro_mean():
    scores = score(predictions([("a", "a")]), task="t", labels=["a", "b"])
    assert scores.metrics["macro_f1"] == 0.5
    assert scores.per_label["b"] == LabelScores(precision=None, recall=None, f1=None, support=0)


def test_labels_keep_the_order_of_the_task():
    labels = ["z", "a", "m"]
    scores = score(predictions([("m", "a"), ("z", "z")]), task="t", labels=labels)
    assert scores.labels == tuple(scores.per_label) == ("z", "a", "m")
    assert scores.confusion == ((1, 0, 0, 0), (0, 0, 0, 0), (0, 1, 0, 0))


def test_the_loss_is_handed_on_and_one_that_json_cannot_hold_is_none():
    one = predictions([("a", "a")])
    assert score(one, task="t", labels=["a"], loss=0.25).metrics["loss"] == 0.25
    assert score(one, task="t", labels=["a"]).metrics["loss"] is None
    assert score(one, task="t", labels=["a"], loss=float("nan")).metrics["loss"] is None


def test_nothing_to_score_is_an_error_that_names_the_mend():
    with pytest.raises(DataError, match="no prediction to score; give examples"):
        score([], task="t", labels=["a"])


def test_a_label_of_another_task_is_an_error_that_prints_no_text():
    said = "I told you already that I do not want to talk about it"
    with pytest.raises(DataError, match=r"'e0': gold a text of 54 characters .* task 'binary'"):
        score(predictions([(said, None)]), task="binary", labels=BINARY)
    with pytest.raises(DataError, match="'e0': label 'Resistence' is not a label"):
        score(predictions([("Resistance", "Resistence")]), task="binary", labels=BINARY)


def test_a_matrix_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\), got \(2, 2\)"):
        scores_from_confusion("t", ["a", "b"], [[1, 0], [0, 1]])


def test_counts_of_parts_add_up_to_the_counts_of_the_whole():
    rng = random.Random(0)
    labels = ["a", "b", "c"]
    pairs = [(rng.choice(labels), rng.choice([*labels, None])) for _ in range(200)]
    whole = confusion_of(predictions(pairs), task="t", labels=labels)
    parts = [
        confusion_of(predictions(pairs[i : i + 7]), task="t", labels=labels)
        for i in range(0, 200, 7)
    ]
    assert (sum(parts) == whole).all()


def test_scoring_files_needs_no_torch():
    code = (
        "import sys, recap.metrics.scores, recap.metrics.files, recap.metrics.scores;"
        "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
