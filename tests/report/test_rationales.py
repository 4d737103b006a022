"""Length, distinctness and likeness of rationales, and what they give away of their labels."""

from __future__ import annotations

from collections import Counter

import pytest

from recap.models.tfidf import tfidf_probabilities
from recap.report.rationale_content import (
    Explained,
    distinctness,
    draw_by_label,
    length_in_characters,
    length_in_words,
    likeness,
    simulatability,
)

LABELS = ("Blaming", "Pessimism")


def test_words_are_counted_where_a_text_is_not_chinese() -> None:
    texts = ["one two three", "来访者否认"]
    assert length_in_characters(texts).mean == 9
    assert (length_in_words(texts).n, length_in_words(texts).mean) == (1, 3)


def test_distinctness_by_hand() -> None:
    # Tokens: a b a | 我 想 | a b a; pairs: ab ba | 我想 | ab ba.
    found = distinctness(["a b, a", "我想", "A  b, a"])
    assert found.distinct_1 == 4 / 8
    # The comma parts "a b" from "a": pairs ab, 我想, ab.
    assert found.distinct_2 == 2 / 3
    assert (found.duplicates, found.different, found.most_common) == (2 / 3, 2, 2 / 3)
    assert distinctness(["?"]).distinct_1 is None


def test_likeness_is_held_against_another_example_of_the_same_label() -> None:
    gold = {"a": "x", "b": "x", "c": "y"}
    rationales = {"a": "the first", "b": "second", "c": "third"}
    found = likeness(rationales, {"a": "the first", "b": "second", "c": " "}, gold)
    assert found is not None
    assert (found.n, found.chrf, found.bleu) == (2, pytest.approx(1), pytest.approx(1))
    assert found.chrf_of == {"a": pytest.approx(1), "b": pytest.approx(1)}
    # "thefirst" and "second" share e and s, either way: 4 of 14 characters, and no longer n-gram.
    assert found.chrf_same_label == pytest.approx(4 / 14 / 6)
    assert likeness(rationales, {}, gold) is None


def test_every_label_is_drawn_as_often_while_it_lasts() -> None:
    labels = {f"x{i}": "x" for i in range(90)} | {f"y{i}": "y" for i in range(8)} | {"z": "z"}
    drawn = draw_by_label(labels, size=21, seed=1)
    assert Counter(labels[key] for key in drawn) == {"x": 12, "y": 8, "z": 1}
    assert drawn == draw_by_label(labels, size=21, seed=1) != draw_by_label(labels, size=21, seed=2)
    assert draw_by_label(labels, size=500, seed=1) == list(labels)


def explained(texts, folds=3):
    return [
        Explained(fold=k, label=label, rationale=text.format(k))
        for k in range(folds)
        for label, text in texts
        for _ in range(4)
    ]


def recovered(given):
    return simulatability(
        given,
        labels=LABELS,
        mask=lambda text: text.replace("Blaming", "_").replace("Pessimism", "_"),
        classify=lambda texts, labels, asked: tfidf_probabilities(texts, labels, asked),
    )


def test_names_give_labels_away_and_the_mask_takes_them() -> None:
    texts = [("Blaming", "this is Blaming"), *[("Pessimism", "this is Pessimism")] * 2]
    found = recovered(explained(texts))
    assert found.unmasked.accuracy.values == (1, 1, 1)
    assert found.masked.accuracy.values == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert found.majority.accuracy.mean == pytest.approx(2 / 3)
    # Always the more frequent label: F1 of 4/5 and 0.
    assert found.majority.macro_f1.mean == pytest.approx(0.4)
    assert (found.unmasked.folds, found.unmasked.n) == ((0, 1, 2), 36)


def test_other_words_can_give_a_label_away_as_well() -> None:
    texts = [("Blaming", "this is Blaming of others"), ("Pessimism", "this Pessimism is gloom")]
    assert recovered(explained(texts)).masked.accuracy.mean == 1


def test_a_fold_is_asked_about_that_was_not_learned_from() -> None:
    # What fold k says of a label only fold k says: nothing to learn from the others.
    texts = [("Blaming", "aa{0} bb{0}"), *[("Pessimism", "cc{0} dd{0}")] * 2]
    assert recovered(explained(texts)).unmasked.accuracy.mean == pytest.approx(2 / 3)


def test_a_single_fold_has_nothing_to_learn_from() -> None:
    assert recovered(explained([("Blaming", "a"), ("Pessimism", "b")], folds=1)) is None
