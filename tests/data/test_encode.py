"""Chat prompts as ids: the template's part, the client's, and what gives way when too long."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import shrunk
from hypothesis import given, settings
from hypothesis import strategies as st

from recap.data.encode import ChatEncoder, encode_examples
from recap.errors import ConfigError
from recap.records import Answer, Example, Message, Turn
from recap.tasks.library import builtin_task

FAMILIES = ("qwen2", "llama")
TOKENIZERS = {family: shrunk.tokenizer_of(family) for family in FAMILIES}
ENCODERS = {family: ChatEncoder(tokenizer) for family, tokenizer in TOKENIZERS.items()}

BENIGN = {
    "system and user": [
        ("system", "Decide what it does.\nTwo lines."),
        ("user", "Client: I don't know."),
    ],
    "user alone": [("user", "Client: nothing changes anyway")],
    "several turns": [
        ("user", "Hi"),
        ("assistant", "Behavior: Collaboration"),
        ("user", "What?!  No."),
    ],
    "Chinese": [
        ("system", "判断来访者的最后一句话。"),
        ("user", "咨询师：听起来不容易。\n来访者：我不知道，…"),
    ],
    "space around": [("system", " a \n"), ("user", "\n\n  So... \tit is 1999, isn't it? \n ")],
    "nothing said": [("system", ""), ("user", "   ")],
    "not in normal form": [("user", "Cafe\u0301 \u212b é 😀")],
}


def chat(messages: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in messages]


def records(messages: list[tuple[str, str]]) -> list[Message]:
    return [Message(role=role, text=text) for role, text in messages]  # type: ignore[arg-type]


@pytest.mark.parametrize("messages", BENIGN.values(), ids=BENIGN)
@pytest.mark.parametrize("family", FAMILIES)
def test_prompt_ids_equal_the_tokenizers_own_on_benign_text(
    family: str, messages: list[tuple[str, str]]
) -> None:
    expected = TOKENIZERS[family].apply_chat_template(chat(messages), add_generation_prompt=True)
    assert list(ENCODERS[family].prompt_ids(records(messages))) == expected["input_ids"]


@pytest.mark.parametrize(
    "answer", ["Behavior: Arguing - Challenging\nReason: Doubts.", "行为：争辩-挑战\n理由：怀疑。"]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_training_sequence_is_the_whole_rendered_chat_up_to_the_end_of_turn(
    family: str, answer: str
) -> None:
    encoder, messages = ENCODERS[family], BENIGN["system and user"]
    trained = [*encoder.prompt_ids(records(messages)), *encoder.answer_ids(answer)]
    rendered = TOKENIZERS[family].apply_chat_template(chat([*messages, ("assistant", answer)]))[
        "input_ids"
    ]
    assert trained == rendered[: len(trained)]
    assert TOKENIZERS[family].decode(rendered[len(trained) :]).strip() == ""


@pytest.mark.parametrize("kind", shrunk.THINKING)
def test_a_template_that_thinks_is_told_not_to_in_training_and_inference_alike(kind: str) -> None:
    tokenizer, messages = shrunk.thinking_tokenizer(kind), BENIGN["system and user"]
    encoder = ChatEncoder(tokenizer)
    prompt = encoder.prompt_ids(records(messages))
    shown = tokenizer.decode(prompt)
    assert shown.rpartition("<|im_start|>assistant\n")[2] in (
        "<think>\n\n</think>\n\n",
        "</think>",
    )
    off = {"enable_thinking": False, "thinking": False}
    own = tokenizer.apply_chat_template(chat(messages), add_generation_prompt=True, **off)
    assert list(prompt)[: len(own["input_ids"])] == own["input_ids"] or kind.startswith("always")
    if kind != "always_left_out":
        answer = "Behavior: Collaboration"
        whole = tokenizer.apply_chat_template(chat([*messages, ("assistant", answer)]))["input_ids"]
        trained = [*prompt, *encoder.answer_ids(answer)]
        assert trained == whole[: len(trained)]


@pytest.mark.parametrize("special", [True, False])
def test_the_marks_of_a_thought_stay_in_a_generated_text(special: bool) -> None:
    encoder = ChatEncoder(shrunk.thinking_tokenizer("switched", special=special))
    ids = encoder.tokenizer("<think>a</think>Behavior: b<|im_end|>")["input_ids"]
    assert encoder.text(ids) == "<think>a</think>Behavior: b"


def test_the_end_of_turn_is_the_templates_own() -> None:
    names = {
        family: TOKENIZERS[family].convert_ids_to_tokens(ENCODERS[family].end_of_turn_id)
        for family in FAMILIES
    }
    assert names == {"qwen2": "<|im_end|>", "llama": "<|eot_id|>"}


def test_there_is_one_beginning_of_sequence_where_the_family_has_one() -> None:
    tokenizer = TOKENIZERS["llama"]
    ids = ENCODERS["llama"].prompt_ids(records(BENIGN["system and user"]))
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    assert TOKENIZERS["qwen2"].bos_token_id is None


CONTROL_NAMES = [
    "<|im_end|>",
    "<|im_start|>",
    "<|endoftext|>",
    "<tool_call>",
    "<|begin_of_text|>",
    "<|eot_id|>",
]
HOSTILE = st.lists(
    st.sampled_from(
        [
            *CONTROL_NAMES,
            "<",
            "<|",
            "|>",
            "im_end|>",
            "_call>",
            "<to",
            "\n",
            " ",
            "a",
            "不",
            "assistant",
        ]
    ),
    max_size=12,
).map("".join)


@pytest.mark.parametrize("family", FAMILIES)
@given(text=HOSTILE)
@settings(max_examples=80, deadline=None)
def test_text_of_a_client_never_becomes_a_control_token(family: str, text: str) -> None:
    encoder, tokenizer = ENCODERS[family], TOKENIZERS[family]
    control = set(tokenizer.added_tokens_decoder)
    said = f"Client: {text}."
    plain = [token for token in encoder.prompt_ids(records([("user", "x")])) if token in control]
    hostile = encoder.prompt_ids(records([("user", said)]))
    assert [token for token in hostile if token in control] == plain
    assert said in tokenizer.decode(hostile)
    assert not control & set(encoder.answer_ids(said)[:-1])


def test_a_control_token_put_together_from_template_and_text_stays_text() -> None:
    tokenizer = shrunk.qwen2_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "message.content +", "'<|im_' + message.content +"
    )
    encoder = ChatEncoder(tokenizer)
    ids = encoder.prompt_ids(records([("user", "end|>")]))
    assert ids.count(encoder.end_of_turn_id) == 2  # the default system message's and the user's


@pytest.mark.parametrize(
    ("clock", "shown"),
    [("given", "26 Jul 2024"), ("today_unless_given", "26 Jul 2024"), ("today", "2024-07-26")],
)
def test_a_dated_template_always_shows_the_same_day(clock: str, shown: str) -> None:
    tokenizer = shrunk.llama_tokenizer(clock)
    assert f"Today Date: {shown}\n\n" in tokenizer.decode(
        ChatEncoder(tokenizer).prompt_ids(records([("user", "x")]))
    )


def test_padding_is_never_the_end_of_turn_even_where_the_tokenizer_says_so() -> None:
    names = {
        family: TOKENIZERS[family].convert_ids_to_tokens(ENCODERS[family].pad_id)
        for family in FAMILIES
    }
    assert names == {"qwen2": "<|endoftext|>", "llama": "<|finetune_right_pad_id|>"}
    for family in FAMILIES:
        tokenizer = shrunk.tokenizer_of(family)
        tokenizer.pad_token = tokenizer.eos_token
        encoder = ChatEncoder(tokenizer)
        assert encoder.pad_id != encoder.end_of_turn_id
        assert encoder.pad_id < len(tokenizer)


GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<start>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' }}"
    "{{ message['content'] | trim + '<end>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start>model\\n' }}{% endif %}"
)
"""As Gemma 2 has it, with other names of control tokens."""
ASKED = [
    Message(role="system", text="Judge."),
    Message(role="user", text="Client: No."),
    Message(role="assistant", text="Behavior: A"),
    Message(role="user", text="Client: Well."),
]


@pytest.mark.parametrize("dropped", [False, True])
def test_a_template_without_a_system_message_has_it_begin_the_users(dropped: bool) -> None:
    tokenizer = shrunk.llama_tokenizer()
    tokenizer.add_tokens(["<start>", "<end>"], special_tokens=True)
    tokenizer.chat_template = (
        GEMMA.replace(
            "{{ raise_exception('System role not supported') }}",
            "{% set messages = messages[1:] %}",
        )
        if dropped
        else GEMMA
    )
    encoder = ChatEncoder(tokenizer)
    joined = [{"role": "user", "content": "Judge.\n\nClient: No."}]
    joined += [{"role": message.role, "content": message.text} for message in ASKED[2:]]
    expected = tokenizer.apply_chat_template(joined, add_generation_prompt=True, return_dict=False)
    assert list(encoder.prompt_ids(ASKED)) == expected
    assert encoder.end_of_turn_id == tokenizer.convert_tokens_to_ids("<end>")
    assert encoder.notes == [
        "its chat template has no system message: instructions begin the user's message"
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_model_without_a_template_gets_plain_text(family: str) -> None:
    tokenizer = shrunk.tokenizer_of(family)
    tokenizer.chat_template = None
    encoder = ChatEncoder(tokenizer)
    # Only Llama's tokenizer begins plain texts with a token of its own.
    text = "Judge.\n\nClient: No.\n\nBehavior: A{end}\n\nClient: Well.\n\n"
    expected = tokenizer(text.format(end=tokenizer.eos_token))["input_ids"]
    assert list(encoder.prompt_ids(ASKED)) == expected
    assert encoder.end_of_turn_id == tokenizer.eos_token_id
    assert encoder.answer_ids("Behavior: A")[-1] == tokenizer.eos_token_id
    assert "no chat template" in encoder.notes[0]


def test_instruct_models_have_nothing_to_note() -> None:
    assert [encoder.notes for encoder in ENCODERS.values()] == [[]] * len(ENCODERS)


def test_the_text_of_generated_ids_has_no_control_tokens() -> None:
    encoder = ENCODERS["qwen2"]
    assert (
        encoder.text(encoder.answer_ids("Behavior: A ,  b\n咨询师")) == "Behavior: A ,  b\n咨询师"
    )


TASK = builtin_task("fine_grained", style="brief")
ENCODER = ENCODERS["qwen2"]


def long_example(n_turns: int = 21, label: str | None = "Challenging") -> Example:
    speakers = ("counselor", "client")
    history = tuple(
        Turn(speaker=speakers[i % 2], text=f"turn{i} " + "and so on " * (i * 7 % 5))  # type: ignore[arg-type]
        for i in range(n_turns)
    )
    return Example(
        id="long", history=history, response="No, target.", label=label, rationale="Doubts."
    )


def without_oldest(example: Example, n: int) -> Example:
    return dataclasses.replace(example, history=example.history[n:])


def prompt_length(example: Example, dropped: int) -> int:
    return len(ENCODER.prompt_ids(TASK.messages(without_oldest(example, dropped))))


EMPTY = Example(id="", history=(), response="")
ROOM = prompt_length(EMPTY, 0) + 500
"""Positions that leave room for a part of a long dialogue."""


@pytest.mark.parametrize("room", [0, 1, 7, *range(40, 60), 150, 10_000])
def test_a_long_prompt_loses_as_few_of_its_oldest_turns_as_will_do(room: int) -> None:
    example = long_example()
    limit = prompt_length(example, 20) + room
    expected = next(n for n in range(21) if prompt_length(example, n) <= limit)
    encoding = encode_examples([example], TASK, ENCODER, max_tokens=limit, cut="turns")
    assert encoding.counts == {
        "dropped_turns": expected,
        "truncated_examples": int(expected > 0),
        "still_too_long": 0,
    }
    shown = ENCODER.text(encoding.examples[0].prompt)
    assert [int(i) for i in re.findall(r"turn(\d+)", shown)] == list(range(expected, 21))
    assert len(encoding.examples[0].prompt) == prompt_length(example, expected)


def test_the_fewest_turns_go_whatever_was_encoded_before() -> None:
    examples = [dataclasses.replace(long_example(n), id=str(n)) for n in range(3, 30, 2)]
    shortest = max(prompt_length(example, len(example.history) - 1) for example in examples)
    for limit in (shortest + 30, shortest + 90):
        encoding = encode_examples(examples, TASK, ENCODER, max_tokens=limit, cut="turns")
        for example, encoded in zip(examples, encoding.examples, strict=True):
            fewest = next(
                n for n in range(len(example.history)) if prompt_length(example, n) <= limit
            )
            assert len(encoded.prompt) == prompt_length(example, fewest)


def test_target_intervention_and_answer_stay_even_where_they_are_too_long() -> None:
    encoding = encode_examples([long_example()], TASK, ENCODER, max_tokens=16)
    assert encoding.counts == {"dropped_turns": 20, "truncated_examples": 1, "still_too_long": 1}
    shown = ENCODER.text(encoding.examples[0].prompt)
    assert "turn20" in shown
    assert "No, target." in shown
    assert "turn19" not in shown
    whole = encode_examples([long_example()], TASK, ENCODER)
    assert encoding.examples[0].answer == whole.examples[0].answer


def test_a_history_that_the_task_does_not_show_is_not_counted_as_lost() -> None:
    for history in ("none", "intervention"):
        task = dataclasses.replace(TASK, history=history)
        counts = encode_examples([long_example()], task, ENCODER, max_tokens=16).counts
        assert counts == {"dropped_turns": 0, "truncated_examples": 0, "still_too_long": 1}


def growing_dialogue(n_turns: int = 81) -> list[Example]:
    """Return every client turn of one dialogue with all that was said before it."""
    whole = (*long_example(n_turns).history, Turn(speaker="client", text="No, target."))
    return [
        Example(id=f"s:{i}", history=whole[:i], response=whole[i].text, label="Challenging")
        for i in range(1, len(whole), 2)
    ]


def dropped_of(example: Example, ids: tuple[int, ...]) -> int:
    """Return how many turns a prompt lost: the one number whose record has that very prompt."""
    found = [
        n
        for n in range(len(example.history))
        if ENCODER.prompt_ids(TASK.messages(without_oldest(example, n))) == ids
    ]
    (n,) = found
    return n


def n_shared(one: Sequence[int], other: Sequence[int]) -> int:
    return next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)


def test_neighbors_begin_with_the_same_tokens_until_the_next_block_goes() -> None:
    examples = growing_dialogue()
    limit = prompt_length(examples[0], 0) + 400
    encoded = encode_examples(examples, TASK, ENCODER, max_tokens=limit).examples
    lost = [dropped_of(e, one.prompt) for e, one in zip(examples, encoded, strict=True)]
    assert lost == sorted(lost)
    few = encode_examples(examples, TASK, ENCODER, max_tokens=limit, cut="turns").examples
    fewest = [dropped_of(e, one.prompt) for e, one in zip(examples, few, strict=True)]
    assert all(own >= least for own, least in zip(lost, fewest, strict=True))
    assert [n > 0 for n in lost] == [n > 0 for n in fewest]
    # A cut by single turns begins anew with nearly every utterance.
    assert len(set(fewest)) > 2 * len(set(lost)) > 6
    assert all(len(one.prompt) <= limit for one in encoded)
    for place, (one, other) in enumerate(itertools.pairwise(encoded)):
        if lost[place] == lost[place + 1]:
            # All turns before the former's response are shared.
            shared = ENCODER.text(one.prompt[: n_shared(one.prompt, other.prompt)])
            turns = without_oldest(examples[place], lost[place]).history
            assert [f"turn{i}" for i in re.findall(r"turn(\d+)\b", shared)] == [
                turn.text.split()[0] for turn in turns
            ]
    # A block is a quarter of the room: of a cut prompt, more than half of it is left.
    own = prompt_length(EMPTY, 0)
    kept = [len(one.prompt) for one, n in zip(encoded, lost, strict=True) if n]
    assert min(kept) > own + (limit - own) / 2


@pytest.mark.parametrize("cut", ["blocks", "turns"])
def test_a_prompt_is_the_same_whatever_was_encoded_before(cut: Any) -> None:
    examples = growing_dialogue(51)
    limit = prompt_length(examples[0], 0) + 150

    def prompts(chosen: list[Example]) -> dict[str, tuple[int, ...]]:
        encoding = encode_examples(chosen, TASK, ENCODER, max_tokens=limit, cut=cut)
        return {one.id: one.prompt for one in encoding.examples}

    alone = {e.id: prompts([e])[e.id] for e in examples}
    assert prompts(examples) == prompts(examples[::-1]) == alone


def test_single_turns_go_where_a_block_would_leave_no_history() -> None:
    # The response leaves less room than the turns behind the last block's end take.
    examples = growing_dialogue(41)
    room = 200
    limit = prompt_length(EMPTY, 0) + room
    last = dataclasses.replace(examples[-1], response="no " * (room - 60))
    (encoded,) = encode_examples([last], TASK, ENCODER, max_tokens=limit).examples
    (few,) = encode_examples([last], TASK, ENCODER, max_tokens=limit, cut="turns").examples
    assert 0 < dropped_of(last, encoded.prompt) < len(last.history) - 1
    assert len(few.prompt) <= limit


def test_the_answer_has_room_among_the_positions_and_a_smaller_limit_rules() -> None:
    examples = growing_dialogue(41)
    labels = [TASK.render(Answer(label=label, rationale="")) for label in TASK.labels]
    for room in (1, 60):
        encoding = encode_examples(examples, TASK, ENCODER, positions=ROOM, max_new_tokens=room)
        kept_free = max(room, *(len(ENCODER.answer_ids(label)) for label in labels))
        same = encode_examples(examples, TASK, ENCODER, max_tokens=ROOM - kept_free)
        assert encoding.examples == same.examples
        assert encoding.limit == f"the model's {ROOM} positions, {kept_free} of them for the answer"
    smaller = encode_examples(examples, TASK, ENCODER, positions=ROOM, max_tokens=ROOM - 150)
    assert (
        smaller.examples == encode_examples(examples, TASK, ENCODER, max_tokens=ROOM - 150).examples
    )
    assert smaller.limit == f"prompt.max_tokens={ROOM - 150}"


def test_an_answer_that_is_longer_than_those_that_are_generated_shortens_its_own_prompt() -> None:
    *others, last = growing_dialogue(41)
    long = dataclasses.replace(last, rationale="so it goes " * 30)
    found = encode_examples([*others, long], TASK, ENCODER, positions=ROOM, max_new_tokens=1)
    usual = encode_examples([*others, last], TASK, ENCODER, positions=ROOM, max_new_tokens=1)
    assert found.examples[:-1] == usual.examples[:-1]
    own = found.examples[-1]
    assert ROOM - 200 < len(own.prompt) + len(own.answer) <= ROOM
    assert dropped_of(long, own.prompt) > dropped_of(last, usual.examples[-1].prompt)


def test_a_prompt_that_needs_more_than_the_positions_is_refused_by_name() -> None:
    examples = growing_dialogue(5)
    long = dataclasses.replace(examples[1], id="too/long", response="no " * 500)
    with pytest.raises(ConfigError, match=f"1 prompts need more .* model's {ROOM}") as refused:
        encode_examples([*examples, long], TASK, ENCODER, positions=ROOM, max_new_tokens=20)
    assert "'too/long'" in str(refused.value)
    assert "prompt.history=none" in str(refused.value)
    assert "no no" not in str(refused.value)


def test_an_answer_is_what_the_task_renders_and_gold_its_class() -> None:
    (encoded,) = encode_examples([long_example(2)], TASK, ENCODER).examples
    assert encoded.answer[-1] == ENCODER.end_of_turn_id
    answer = TASK.parse(ENCODER.text(encoded.answer))
    assert (answer.label, answer.rationale) == ("Challenging", "Doubts.")
    assert encoded.gold == TASK.labels.index("Challenging")


def test_without_rationale_the_answer_is_the_label_alone() -> None:
    task = dataclasses.replace(TASK, rationale=False)
    (encoded,) = encode_examples([long_example(2)], task, ENCODER).examples
    assert "Doubts" not in ENCODER.text(encoded.answer)
    assert task.parse(ENCODER.text(encoded.answer)).label == "Challenging"


def test_an_example_without_a_label_has_a_prompt_and_no_answer() -> None:
    (encoded,) = encode_examples([long_example(2, label=None)], TASK, ENCODER).examples
    assert encoded.prompt
    assert encoded.answer == ()
    assert encoded.gold is None


@pytest.mark.real_data
def test_annomi_with_its_long_histories_is_encoded_within_a_minute() -> None:
    from recap.data.corpus import read_corpus

    task = builtin_task("annomi_talk", style="brief", rationale=False)
    path = Path(os.environ["RECAP_REAL_DATA"]) / "annomi" / "AnnoMI-simple.csv"
    corpus = read_corpus(reader="annomi", path=path, taxonomy=task.taxonomy, on_error="skip")
    examples = [example for example in corpus.examples if task.select(example)]
    assert len(examples) > 4000
    start = time.perf_counter()
    encoding = encode_examples(examples, task, ENCODER, max_tokens=256)
    assert time.perf_counter() - start < 60
    assert encoding.counts["truncated_examples"] > 1000
