from __future__ import annotations

import pytest

from recap.plan.workload import EstimatedEncoder
from recap.records import Message


def test_english_has_four_and_a_third_characters_a_token_and_chinese_one_and_a_half() -> None:
    encoder = EstimatedEncoder()
    assert encoder.count_tokens(["a" * 430])[0] == pytest.approx(100, abs=1)
    assert encoder.count_tokens(["你" * 150])[0] == pytest.approx(100, abs=1)
    assert encoder.count_tokens(["", "a"]) == [0, 1]


def test_prompts_that_begin_alike_begin_with_the_same_ids() -> None:
    encoder = EstimatedEncoder()
    common = "Decide what the client does. " * 20
    first, second = (
        encoder.prompt_ids([Message(role="user", text=common + rest)])
        for rest in ("The client agrees.", "A client who does not.")
    )
    shared = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    assert shared == pytest.approx(len(common) / 4.3 + 5, abs=2)


def test_an_answer_ends_with_the_end_of_turn() -> None:
    encoder = EstimatedEncoder()
    assert encoder.answer_ids("Sidetracking")[-1] == encoder.end_of_turn_id
    assert encoder.end_of_turn_id not in encoder.prompt_ids([Message(role="user", text="Yes.")])
