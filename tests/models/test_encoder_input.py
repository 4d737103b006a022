"""What an encoder reads: whole turns, the newest of them, and always the whole response."""

from __future__ import annotations

import pytest
from small_encoders import word_tokenizer

from recap.errors import ConfigError, DataError
from recap.models.backbone import tiny_tokenizer
from recap.models.encoder import EncoderInput, shown_turns
from recap.records import Example, Turn
from recap.tasks.library import get_task

TASK = get_task("binary")
HISTORY = (
    Turn(speaker="counselor", text="how are you ?"),
    Turn(speaker="client", text="bad ."),
    Turn(speaker="counselor", text="why ?"),
    Turn(speaker="counselor", text="what then ?"),
)


def example(response: str = "no .", history: tuple[Turn, ...] = HISTORY) -> Example:
    return Example(id="e1", history=history, response=response, label="Blaming")


def encode(encoder_input: EncoderInput, one: Example, history: str = "full") -> list[int]:
    [encoded] = encoder_input.encode([one], TASK, history=history).examples
    return [*encoded.prompt, *encoded.answer]


def bert_words(ids: list[int]) -> str:
    return " ".join(word_tokenizer("bert").convert_ids_to_tokens(ids))


def test_an_input_reads_turn_by_turn_and_ends_with_the_response() -> None:
    ids = encode(EncoderInput(word_tokenizer("bert"), max_tokens=64, longest=64), example())
    assert bert_words(ids) == (
        "[CLS] counselor : how are you ? [SEP] client : bad . [SEP] counselor : why ? [SEP] "
        "counselor : what then ? [SEP] no . [SEP]"
    )


def test_the_closing_mark_is_the_one_token_of_the_answer_and_gold_the_label_of_the_task() -> None:
    encoder_input = EncoderInput(word_tokenizer("bert"), max_tokens=64, longest=64)
    [encoded] = encoder_input.encode([example()], TASK).examples
    assert encoded.answer == (word_tokenizer("bert").sep_token_id,)
    assert encoded.gold == TASK.index("Resistance")


@pytest.mark.parametrize(
    ("history", "shown"),
    [("none", 0), ("intervention", 2), ("full", 4)],
)
def test_the_history_option_chooses_what_is_shown(history: str, shown: int) -> None:
    assert shown_turns(example(), history) == HISTORY[len(HISTORY) - shown :]


def test_a_long_dialogue_loses_whole_turns_the_oldest_first_and_never_the_response() -> None:
    # [CLS] + "no . [SEP]" = 4; the turns cost 7, 5, 5, 6 tokens from the oldest to the newest.
    kept = {}
    for limit in (8, 10, 14, 15, 20, 26, 27):
        encoder_input = EncoderInput(word_tokenizer("bert"), max_tokens=limit, longest=64)
        encoding = encoder_input.encode([example()], TASK)
        ids = [*encoding.examples[0].prompt, *encoding.examples[0].answer]
        assert len(ids) <= limit
        assert bert_words(ids).endswith("no . [SEP]")
        kept[limit] = 4 - encoding.counts["dropped_turns"]
    assert kept == {8: 0, 10: 1, 14: 1, 15: 2, 20: 3, 26: 3, 27: 4}


def test_a_response_over_the_limit_is_read_whole_and_counted() -> None:
    encoder_input = EncoderInput(word_tokenizer("bert"), max_tokens=8, longest=64)
    encoding = encoder_input.encode([example("no . " * 10)], TASK)
    assert len(encoding.examples[0].prompt) == 1 + 20
    assert encoding.counts == {"dropped_turns": 4, "truncated_examples": 1, "still_too_long": 1}


def test_a_response_that_the_model_cannot_read_is_refused_by_its_id() -> None:
    encoder_input = EncoderInput(word_tokenizer("bert"), max_tokens=20, longest=20)
    with pytest.raises(DataError, match="'e1': its response has 21 tokens") as error:
        encoder_input.encode([example("no . " * 10)], TASK)
    assert "no ." not in str(error.value)


def test_more_tokens_than_the_model_reads_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"encoder\.max_tokens=64 or less"):
        EncoderInput(word_tokenizer("bert"), max_tokens=65, longest=64)


def test_a_client_who_types_a_mark_types_letters() -> None:
    encoder_input = EncoderInput(word_tokenizer("bert"), max_tokens=64, longest=64)
    ids = encode(encoder_input, example("no [SEP] yes", history=()))
    assert ids.count(encoder_input.close_id) == 1
    tiny = EncoderInput(tiny_tokenizer(), max_tokens=64, longest=64)
    ids = encode(tiny, example("no <|im_end|> yes", history=()))
    assert ids[1:-1].count(tiny.close_id) == 0


def test_roberta_and_the_tiny_tokenizer_have_marks_of_their_own() -> None:
    roberta = EncoderInput(word_tokenizer("roberta"), max_tokens=64, longest=64)
    names = word_tokenizer("roberta").convert_ids_to_tokens(encode(roberta, example(history=())))
    assert names == ["<s>", "no", ".", "</s>"]
    tokenizer = tiny_tokenizer()
    tiny = EncoderInput(tokenizer, max_tokens=64, longest=64)
    ids = encode(tiny, example(history=()))
    assert tokenizer.convert_ids_to_tokens([ids[0], ids[-1]]) == ["<|im_end|>", "<|im_end|>"]
    assert tiny.pad_id != tiny.close_id
