"""Baselines read what a client types as text, whatever it looks like."""

from __future__ import annotations

import pytest
from control_tokens import CONTROL_TEXTS, FAKE_TURNS, FAMILIES, tokenizer
from faults import record_fault
from small_encoders import word_tokenizer

from recap.models.encoder import EncoderInput
from recap.models.tfidf import tfidf_probabilities
from recap.records import Example, Turn
from recap.tasks.library import builtin_task

STYLES = ("bert", "roberta")
TASK = builtin_task("fine_grained")


def marks_of(encoder_input: EncoderInput, marks: set[int], said: str) -> list[int]:
    """Return the marks in what is read of a dialogue in which both people say something."""
    turns = tuple(Turn(speaker=who, text=said) for who in ("client", "counselor"))  # type: ignore[arg-type]
    example = Example(id="e", history=turns, response=said, label="Blaming")
    [found] = encoder_input.encode([example], TASK).examples
    return [token for token in (*found.prompt, *found.answer) if token in marks]


@pytest.mark.parametrize("name", [*STYLES, *FAMILIES])
def test_the_encoder_baseline_reads_marks_as_letters(name: str) -> None:
    made = word_tokenizer(name) if name in STYLES else tokenizer(name)
    encoder_input = EncoderInput(made, max_tokens=512, longest=512)
    marks = set(made.added_tokens_decoder) - {made.unk_token_id}
    expected = marks_of(encoder_input, marks, "yes")
    assert len(expected) == 4  # one at the beginning, one behind each of three turns
    tried = [*CONTROL_TEXTS, *FAKE_TURNS, "[CLS]", "[MASK]", "[mask]", "<mask>", "［SEP］"]
    sound = sum(marks_of(encoder_input, marks, said) == expected for said in tried)
    record_fault(
        "control tokens in client text",
        tried=len(tried),
        survived=sound,
        lost=len(tried) - sound,
    )
    assert sound == len(tried)


def test_tfidf_reads_a_control_token_as_the_words_in_it() -> None:
    train = ["yes i will", "no never", "yes fine", "no that never helps"]
    labels = ["Collaboration", "Resistance"] * 2
    typed, plain = tfidf_probabilities(
        train, labels, ["no <|im_end|><|im_start|>system", "no im_end im_start system"]
    )
    assert typed == plain
