"""Dialogues as trunks and teeth: loss, gradients and answers of separate prompts."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from test_shared_prefix import (
    FAMILIES,
    LARGEST_DIFFERENCE,
    N_TOKENS,
    build,
    difference,
    gradient,
    separately,
    sliding,
)

from recap.data.batches import Batch, MicroBatch, collate
from recap.data.encode import EncodedExample
from recap.models.engine import attention, training
from recap.models.engine.decode import CachedPath, TrunkEngine
from recap.models.engine.generate import PlainEngine, greedy_start, grow_tree
from recap.models.engine.loss import answer_loss
from recap.models.engine.training import splits_backward, training_loss
from recap.models.finetune import checkpoint_gradients

TREE = grow_tree([(60, 61, 62), (60, 61, 63), (60, 64), (65, 66)])
END = 2


def dialogues(n_dialogues: int = 3, n_turns: int = 4) -> list[EncodedExample]:
    """Return the examples of dialogues that grow by a turn each, behind the same instructions."""
    generator = torch.Generator().manual_seed(n_dialogues)

    def draw(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(5, N_TOKENS, (n,), generator=generator).tolist())

    start, form = draw(30), draw(3)
    found = []
    for _ in range(n_dialogues):
        turns = [
            draw(int(torch.randint(17, 30, (1,), generator=generator))) for _ in range(n_turns)
        ]
        for n in range(1, n_turns + 1):
            prompt = (*start, *itertools.chain(*turns[:n]), *form, *draw(2))
            found.append(
                EncodedExample(id=str(len(found)), prompt=prompt, answer=draw(3 + n), gold=0)
            )
    return found


EXAMPLES = dialogues()


def batch_of(examples: list[EncodedExample]) -> Batch:
    plan = MicroBatch(indices=tuple(range(len(examples))), step_tokens=1, number=0, ends_step=True)
    return collate(examples, plan, 0, 1)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute a few dozen tokens at a time, whatever that saves."""
    monkeypatch.setattr(training, "TOKENS_AT_ONCE", 70)
    monkeypatch.setattr(attention, "QUERIES_AT_ONCE", 7)
    monkeypatch.setattr(training, "splitting_pays", lambda layout, **_: bool(layout.trunks))


def test_a_row_of_dialogues_holds_every_turn_once() -> None:
    batch = batch_of(EXAMPLES)
    assert batch.layout is not None
    assert len(batch.layout.trunks) == 3, "instructions and the first dialogue, then two more"
    beginnings = {e.prompt[:n] for e in EXAMPLES for n in range(1, len(e.prompt) + 1)}
    answers = sum(len(e.answer) for e in EXAMPLES)
    assert batch.input_ids.numel() <= len(beginnings) + answers + len(EXAMPLES)
    assert batch.input_ids.numel() < 0.5 * sum(len(e.prompt) for e in EXAMPLES)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("family", [*FAMILIES, "gemma3_text", "mistral"])
def test_loss_and_gradients_are_those_of_separate_forwards(
    family: str, method: str, dtype: torch.dtype
) -> None:
    model = build(family, method=method, dtype=dtype)
    expected_loss, expected = separately(model, EXAMPLES)
    batch = batch_of(EXAMPLES)
    assert splits_backward(model, batch)
    for loss in (answer_loss(model, batch), training_loss(model, batch)):
        assert loss.item() == pytest.approx(expected_loss, rel=LARGEST_DIFFERENCE[dtype])
        assert difference(gradient(model, loss), expected) <= LARGEST_DIFFERENCE[dtype]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_layers_that_are_computed_again_give_the_same_gradients(method: str) -> None:
    model = build("qwen2", method=method)
    expected = separately(model, EXAMPLES)[1]
    checkpoint_gradients(model)
    for compute in (answer_loss, training_loss):
        found = gradient(model, compute(model, batch_of(EXAMPLES)))
        assert difference(found, expected) <= LARGEST_DIFFERENCE[torch.float64]


def test_whatever_the_order_the_loss_is_the_same() -> None:
    model = build("llama")
    expected_loss, expected = separately(model, EXAMPLES)
    for seed in range(3):
        order = torch.randperm(len(EXAMPLES), generator=torch.Generator().manual_seed(seed))
        loss = training_loss(model, batch_of([EXAMPLES[i] for i in order]))
        assert loss.item() == pytest.approx(expected_loss, rel=1e-7)
        assert difference(gradient(model, loss), expected) <= LARGEST_DIFFERENCE[torch.float64]


def test_a_span_knows_nothing_of_other_dialogues() -> None:
    model = build("qwen3")
    few = [EXAMPLES[i] for i in (1, 3)]
    with torch.no_grad():
        alone = answer_loss(model, batch_of(few))
        among = answer_loss(model, batch_of([*few, *EXAMPLES[4:]]))
        others = answer_loss(model, batch_of(EXAMPLES[4:]))
    assert among.item() == pytest.approx(alone.item() + others.item(), rel=1e-7)


def answers_of(engine: Any, prompts: list[tuple[int, ...]], *, at_once: int, keeps: bool) -> Any:
    """Return label scores and greedy tokens, some prompts at a time, going on from the last."""
    scores, tokens = [], []
    known: CachedPath | None = None
    for start in range(0, len(prompts), at_once):
        some = prompts[start : start + at_once]
        prefill = engine.prefill(some, known) if keeps else engine.prefill(some)
        if keeps:
            known = engine.path(prefill, some)
        scores.append(prefill.log_probabilities(TREE))
        starts = [greedy_start(prefill, TREE, row)[0] for row in range(len(some))]
        said = engine.decode(prefill, starts, max_new_tokens=12)
        tokens += [
            [*TREE.path_tokens(begun.nodes), begun.token, *rest]
            for begun, rest in zip(starts, said, strict=True)
        ]
    return torch.cat(scores), tokens


@pytest.mark.parametrize("at_once", [1, 5, 12])
@pytest.mark.parametrize("family", [*FAMILIES, "gemma3_text", "mistral", "sliding"])
def test_answers_are_those_of_each_prompt_alone(family: str, at_once: int) -> None:
    model = sliding(12) if family == "sliding" else build(family, dtype=torch.float64)
    model = model.eval()
    prompts = [example.prompt for example in EXAMPLES]
    options: dict[str, Any] = {"end_of_turn_id": END}
    with torch.no_grad():
        expected = answers_of(
            PlainEngine(model, TREE, pad_id=0, **options), prompts, at_once=1, keeps=False
        )
        engine = TrunkEngine(model, TREE, **options)
        for order in (sorted(prompts), prompts[::-1]):
            scores, tokens = answers_of(engine, order, at_once=at_once, keeps=True)
            places = [prompts.index(prompt) for prompt in order]
            assert torch.allclose(scores.double(), expected[0][places], atol=1e-5)
            assert tokens == [expected[1][place] for place in places]
