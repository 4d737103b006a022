"""The bag-of-words baseline learns words, in English and in Chinese, and nothing else."""

from __future__ import annotations

import csv

import pytest
from sklearn.metrics import f1_score
from sklearn.model_selection import GroupKFold

from recap.errors import ConfigError, DataError
from recap.models.tfidf import example_text, tfidf_probabilities
from recap.records import Example, Turn

ENGLISH = {
    "yes": ["yes I will try that", "I will try it tomorrow", "yes that helps me"],
    "no": ["no that never works", "it never helps at all", "no point in trying"],
}
CHINESE = {
    "yes": ["好的我会试试看", "我愿意明天试试", "嗯这个办法可以"],
    "no": ["没有用的算了吧", "说了也没有用", "算了我不想说"],
}
EXAMPLE = Example(
    id="e",
    history=(
        Turn(speaker="counselor", text="How are you?"),
        Turn(speaker="client", text="Bad."),
        Turn(speaker="counselor", text="Why?"),
    ),
    response="No idea.",
)


def flat(corpus):
    texts = [text for group in corpus.values() for text in group]
    return texts, [label for label, group in corpus.items() for _ in group]


def likeliest(*texts_and_labels, **options):
    rows = tfidf_probabilities(*texts_and_labels, **options)
    assert all(sum(row.values()) == pytest.approx(1) for row in rows)
    return [max(row, key=row.get) for row in rows]


def test_english_is_told_apart_by_its_words():
    texts, labels = flat(ENGLISH)
    found = likeliest(texts, labels, ["I will try", "never helps"], analyzer="word", seed=0)
    assert found == ["yes", "no"]


def test_chinese_is_told_apart_by_its_characters_where_words_find_nothing():
    texts, labels = flat(CHINESE)
    answers = ["那我试试", "真的没有用"]
    assert likeliest(texts, labels, answers, analyzer="char", seed=0) == ["yes", "no"]
    by_word = likeliest(texts, labels, answers, analyzer="word", seed=0)
    assert len(set(by_word)) == 1  # without spaces each sentence is one unknown word


def test_one_letter_words_count():
    found = likeliest(["I", "u"] * 4, ["me", "you"] * 4, ["I", "u"], analyzer="word", seed=0)
    assert found == ["me", "you"]


def test_balanced_weights_let_a_rare_class_be_found():
    texts = ["the sea is blue"] * 40 + ["the sea is green"] * 2
    labels = ["common"] * 40 + ["rare"] * 2
    asked = {"analyzer": "word", "seed": 0}
    assert likeliest(texts, labels, ["green"], class_weight="balanced", **asked) == ["rare"]
    assert likeliest(texts, labels, ["is"], **asked) == ["common"]


def test_the_same_seed_gives_the_same_answers():
    texts, labels = flat(ENGLISH)
    first, second = (likeliest(texts, labels, texts, analyzer="word", seed=3) for _ in range(2))
    assert first == second == labels


@pytest.mark.real_data
def test_on_real_client_talk_it_beats_the_majority_answer_in_every_fold_of_sessions(real_data):
    with (real_data / "annomi" / "AnnoMI-simple.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["interlocutor"] == "client"]
    texts = [row["utterance_text"] for row in rows]
    labels = [row["client_talk_type"] for row in rows]
    sessions = [row["transcript_id"] for row in rows]
    for train, test in GroupKFold(5).split(texts, labels, sessions):
        found = likeliest(
            [texts[i] for i in train],
            [labels[i] for i in train],
            [texts[i] for i in test],
            analyzer="word",
            class_weight="balanced",
            seed=0,
        )
        # The majority answer, neutral, has a macro-F1 of 0.26.
        assert f1_score([labels[i] for i in test], found, average="macro") > 0.40


def test_a_single_class_needs_no_model_and_no_texts_get_no_answers():
    assert likeliest(["a b"], ["x"], ["c", "d"], analyzer="word", seed=0) == ["x", "x"]
    assert likeliest(["a", "b"], ["x", "y"], [], analyzer="word", seed=0) == []


def test_texts_without_a_word_are_an_error_that_names_the_mend():
    with pytest.raises(DataError, match="use analyzer='char'"):
        likeliest(["…", "!"], ["x", "y"], ["?"], analyzer="word", seed=0)


def test_texts_and_labels_must_pair_up():
    with pytest.raises(DataError, match="2 training texts and 1 labels"):
        likeliest(["a", "b"], ["x"], [], analyzer="word", seed=0)


def test_an_unknown_analyzer_or_context_is_refused():
    with pytest.raises(ConfigError, match="neither 'word' nor 'char'"):
        likeliest(["a", "b"], ["x", "y"], ["a"], analyzer="wrod", seed=0)
    with pytest.raises(ConfigError, match="response, intervention, full"):
        example_text(EXAMPLE, context="all")


def test_the_text_of_an_example_holds_as_much_context_as_asked_for():
    assert example_text(EXAMPLE) == "No idea."
    assert example_text(EXAMPLE, context="intervention") == "Why?\nNo idea."
    assert example_text(EXAMPLE, context="full") == "How are you?\nBad.\nWhy?\nNo idea."
    alone = Example(id="x", history=(), response="Hm.")
    assert example_text(alone, context="intervention") == "Hm."
