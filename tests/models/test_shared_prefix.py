"""One row with the common beginning once: the loss and gradients of separate padded forwards."""

from __future__ import annotations

from typing import Any

import pytest
import shrunk
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import masking_utils

from recap.data.batches import Batch, MicroBatch, collate, common_prefix
from recap.data.encode import EncodedExample
from recap.data.layout import Layout, Span
from recap.errors import ConfigError
from recap.models.engine import attention
from recap.models.engine.generate import generate
from recap.models.engine.loss import (
    BatchingChoice,
    answer_loss,
    choose_batching,
    hidden_states,
)
from recap.models.engine.training import training_loss
from recap.models.finetune import apply_finetune, causal_model, checkpoint_gradients

FAMILIES = ("qwen2", "qwen3", "llama")
N_TOKENS = 100
START = tuple(range(3, 40))
LARGEST_DIFFERENCE = {torch.float64: 1e-7, torch.float32: 5e-6, torch.bfloat16: 2e-2}
"""Norm of the difference of all gradients over their norm. In float64 transformers' own norms and
rotations stay in float32; in bfloat16 a weight has three significant digits."""


def examples_of(answer_lengths: tuple[int, ...], *, own: int = 17) -> list[EncodedExample]:
    """Return examples that share ``START`` and go on with 1 to ``own`` tokens of their own."""
    generator = torch.Generator().manual_seed(len(answer_lengths))

    def draw(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, N_TOKENS, (n,), generator=generator).tolist())

    return [
        # The second token after the start differs, whatever is drawn: the common run is START + 1.
        EncodedExample(
            id=str(i), prompt=(*START, 7, 50 + i, *draw(i * 5 % own)), answer=draw(n), gold=0
        )
        for i, n in enumerate(answer_lengths)
    ]


LABELS = examples_of((3, 2, 4, 2, 3))
RATIONALES = examples_of((31, 8, 22, 40))
PREFIX = len(START) + 1


def batch_of(examples: list[EncodedExample], prefix: int | None) -> Batch:
    plan = MicroBatch(indices=tuple(range(len(examples))), step_tokens=1, number=0, ends_step=True)
    return collate(examples, plan, 0, prefix)


def build(family: str, *, method: str = "full", dtype: torch.dtype = torch.float64) -> Any:
    """Return a model whose layers all matter: ordinary random ones hardly change what they get."""
    model = shrunk.model_of(family, N_TOKENS)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            generator = torch.Generator().manual_seed(len(name))
            if weight.ndim == 2 and "embed" not in name and "lm_head" not in name:
                weight.normal_(std=weight.shape[1] ** -0.5, generator=generator)
            elif "norm" in name:
                weight.uniform_(0.5, 1.5, generator=generator)
            else:
                weight.normal_(std=0.5, generator=generator)
    tuned = apply_finetune(model, method=method)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return tuned.to(dtype).train()


def gradient(model: Any, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return all_gradients(model)


def all_gradients(model: Any) -> torch.Tensor:
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    return torch.cat([weight.grad.flatten().double() for weight in learned])


def separately(model: Any, examples: list[EncodedExample]) -> tuple[float, torch.Tensor]:
    """Return loss and gradients of one forward an example by transformers alone, added up."""
    model.zero_grad()
    total = 0.0
    for example in examples:
        ids = torch.tensor([example.prompt + example.answer])
        logits = model(input_ids=ids).logits[0, len(example.prompt) - 1 : -1]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = cross_entropy(logits, torch.tensor(example.answer), reduction="sum")
        loss.backward()
        total += loss.item()
    return total, all_gradients(model)


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert expected.norm() > 0
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", LARGEST_DIFFERENCE, ids=str)
@pytest.mark.parametrize("examples", [LABELS, RATIONALES], ids=["labels", "rationales"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("prefix", [PREFIX, 1, 0], ids=["shared", "one", "packed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_equal_those_of_separate_forwards(
    family: str, prefix: int, method: str, examples: list[EncodedExample], dtype: torch.dtype
) -> None:
    model = build(family, method=method, dtype=dtype)
    expected_loss, expected = separately(model, examples)
    loss = answer_loss(model, batch_of(examples, prefix))
    assert loss.item() == pytest.approx(expected_loss, rel=LARGEST_DIFFERENCE[dtype])
    assert difference(gradient(model, loss), expected) <= LARGEST_DIFFERENCE[dtype]


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_changes_no_gradient(
    family: str, method: str, reentrant: bool
) -> None:
    model = build(family, method=method)
    expected_loss, expected = separately(model, RATIONALES)
    causal = causal_model(model)
    causal.gradient_checkpointing_enable({"use_reentrant": reentrant})
    causal.enable_input_require_grads()
    runs = []
    causal.get_decoder().layers[0].register_forward_pre_hook(lambda *_: runs.append(1))
    causal.get_decoder().layers[0].self_attn.register_forward_pre_hook(lambda *_: runs.append(2))
    loss = answer_loss(model, batch_of(RATIONALES, PREFIX))
    found = gradient(model, loss)
    assert runs == [1, 2, 2], "the layer's inside ran again in the backward"
    assert loss.item() == pytest.approx(expected_loss, rel=1e-7)
    assert difference(found, expected) <= LARGEST_DIFFERENCE[torch.float64]


def test_gradients_of_several_groups_add_up_to_those_of_one() -> None:
    model = build("qwen2")
    expected = separately(model, LABELS)[1]
    model.zero_grad()
    for group in (LABELS[:1], LABELS[1:4], LABELS[4:]):
        answer_loss(model, batch_of(group, PREFIX)).backward()
    assert difference(all_gradients(model), expected) <= LARGEST_DIFFERENCE[torch.float64]


@pytest.mark.parametrize("prefix", [PREFIX, 0])
def test_mixed_precision_is_as_near_to_float32_as_separate_forwards_in_it(prefix: int) -> None:
    model = build("llama", dtype=torch.float32)
    exact = separately(model, RATIONALES)[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        apart = difference(separately(model, RATIONALES)[1], exact)
        loss = answer_loss(model, batch_of(RATIONALES, prefix))
    assert loss.dtype == torch.float32
    assert difference(gradient(model, loss), exact) <= 1.5 * apart
    assert apart < 5e-2


@pytest.mark.filterwarnings("ignore:.*attention can't be used")
@pytest.mark.parametrize("family", FAMILIES)
def test_torchs_own_bias_gives_the_loss_and_gradients_of_the_mask(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(family)
    loss = answer_loss(model, batch_of(RATIONALES, PREFIX))
    expected = gradient(model, loss)
    # On a CPU the bias fills its pattern in, so that its pattern is what is compared here.
    monkeypatch.setattr(attention, "flash_supports", lambda *_, **__: True)
    monkeypatch.setattr(attention.Row, "_mask", _no_kernel)
    biased = answer_loss(model, batch_of(RATIONALES, PREFIX))
    assert biased.item() == pytest.approx(loss.item(), rel=1e-12)
    assert difference(gradient(model, biased), expected) <= 1e-12


def test_torchs_own_bias_meets_one_type_under_mixed_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = build("llama", dtype=torch.float32)
    exact = separately(model, RATIONALES)[1]
    found = []
    for flash in (False, True):
        monkeypatch.setattr(attention, "flash_supports", lambda *_, flash=flash, **__: flash)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = answer_loss(model, batch_of(RATIONALES, PREFIX))
        found.append(difference(gradient(model, loss), exact))
    assert found[1] == pytest.approx(found[0], rel=0.2)


@pytest.mark.gpu
@pytest.mark.parametrize("family", FAMILIES)
def test_flash_attention_serves_the_shared_prefix_in_16_bits(family: str) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    exact = separately(build(family), RATIONALES)[1]
    model = build(family, dtype=torch.float32).cuda()
    batch = batch_of(RATIONALES, PREFIX).to("cuda")
    apart = difference(gradient(model, answer_loss(model, batch)).cpu(), exact)
    assert apart <= 1e-4, "in float32 there is no flash kernel, and the mask is used"
    # With this kernel alone a mask would be refused.
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), torch.autocast("cuda", dtype=torch.bfloat16):
        loss = answer_loss(model, batch)
        found = gradient(model, loss).cpu()
    assert difference(found, exact) <= 5e-2


def test_no_example_sees_another() -> None:
    model = build("qwen3")
    first, second = RATIONALES[:2]
    other = EncodedExample(id="x", prompt=(*second.prompt[:PREFIX], 9, 9, 9), answer=(9, 9), gold=0)
    batch, changed = (batch_of([first, second], PREFIX), batch_of([first, other], PREFIX))
    end = len(first.prompt + first.answer)
    with torch.no_grad():
        before, after = (hidden_states(model, each)[:, :end] for each in (batch, changed))
    # The rows differ in length, and so does the order in which some kernels add up.
    assert difference(after, before) <= LARGEST_DIFFERENCE[torch.float64]


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_feed_forward_block_in_parts_has_the_gradients_of_the_whole(
    family: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = build(family, method=method), build(family, method=method)
    batch = batch_of(RATIONALES, PREFIX)
    expected = gradient(whole, answer_loss(whole, batch))
    monkeypatch.setattr(attention, "TOKENS_AT_ONCE", 16)
    seen: list[int] = []
    first = causal_model(parts).get_decoder().layers[0].mlp.act_fn
    first.register_forward_pre_hook(lambda _, states: seen.append(states[0].shape[1]))
    found = gradient(parts, answer_loss(parts, batch))
    n = batch.input_ids.shape[1]
    assert seen == [16] * (n // 16) + [n % 16] * (n % 16 > 0)
    assert difference(found, expected) <= 1e-7


@pytest.mark.parametrize("fails", [False, True])
def test_without_a_row_a_model_has_its_own_attention(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("llama", dtype=torch.float32)
    prompts = [example.prompt for example in LABELS]
    options = {"max_new_tokens": 6, "end_of_turn_id": 2, "pad_id": 0}
    expected = generate(model, prompts, **options)
    if fails:
        with monkeypatch.context() as patch:
            patch.setattr(attention, "scaled_dot_product_attention", _no_kernel)
            with pytest.raises(RuntimeError, match="no kernel"):
                answer_loss(model, batch_of(LABELS, PREFIX))
    else:
        answer_loss(model, batch_of(LABELS, PREFIX)).backward()
    assert generate(model, prompts, **options) == expected


def _no_kernel(*_: Any, **__: Any) -> None:
    raise RuntimeError("no kernel")


def test_no_mask_over_the_whole_row_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.integrations import sdpa_attention

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the row is not transformers' business")

    model = build("qwen2")
    monkeypatch.setattr(masking_utils, "sdpa_mask", refuse)
    monkeypatch.setattr(sdpa_attention, "sdpa_attention_forward", refuse)
    monkeypatch.setitem(masking_utils.ALL_MASK_ATTENTION_FUNCTIONS._global_mapping, "sdpa", refuse)
    assert torch.isfinite(answer_loss(model, batch_of(LABELS, PREFIX)))


# What the data share.


def test_the_prefix_is_the_common_run_of_ids_and_leaves_every_prompt_a_token() -> None:
    def prefix_of(*prompts: tuple[int, ...]) -> int:
        return common_prefix(
            [EncodedExample(id="", prompt=prompt, answer=(1,)) for prompt in prompts]
        )

    assert prefix_of((1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 3, 9)) == 2
    assert prefix_of((1, 2, 3), (1, 2, 3, 4, 5)) == 2, "one prompt begins the other"
    assert prefix_of((1, 2, 3), (1, 2, 3)) == 2
    assert prefix_of((1, 2), (3, 2)) == 0
    assert prefix_of((1,), (1,)) == 0
    assert prefix_of((10, 2), (9, 2), (10, 3)) == 0, "ids are compared as numbers"
    assert prefix_of((1, 2, 3)) == 2
    assert prefix_of() == 0


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple), min_size=1, max_size=8)
)
def test_no_longer_prefix_would_be_shared(prompts: list[tuple[int, ...]]) -> None:
    shared = common_prefix([EncodedExample(id="", prompt=p, answer=()) for p in prompts])
    assert len({prompt[:shared] for prompt in prompts}) == 1
    assert all(len(prompt) > shared for prompt in prompts)
    longer = {prompt[: shared + 1] for prompt in prompts}
    assert len(longer) > 1 or any(len(prompt) == shared + 1 for prompt in prompts)


def test_a_row_holds_the_prefix_once_and_positions_go_on_from_it() -> None:
    examples = [
        EncodedExample(id="a", prompt=(5, 6, 7), answer=(8, 2), gold=0),
        EncodedExample(id="b", prompt=(5, 6, 4, 3), answer=(9,), gold=1),
    ]
    batch = batch_of(examples, 2)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 2, 4, 3, 9]]
    assert batch.position_ids is not None
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 2, 3, 4]]
    assert batch.answer_mask.long().tolist() == [[0, 0, 0, 1, 1, 0, 0, 1]]
    assert batch.layout == Layout(
        trunks=(Span(owner=1, parent=-1, seen=0, length=2),),
        teeth=(
            Span(owner=0, parent=0, seen=2, length=3),
            Span(owner=1, parent=0, seen=2, length=3),
        ),
    )


def test_a_group_of_one_and_a_filler_are_rows_too() -> None:
    model = build("qwen2")
    expected_loss, expected = separately(model, LABELS[:1])
    loss = answer_loss(model, batch_of(LABELS[:1], PREFIX))
    assert loss.item() == pytest.approx(expected_loss, rel=1e-7)
    assert difference(gradient(model, loss), expected) <= LARGEST_DIFFERENCE[torch.float64]
    filler = MicroBatch(indices=(0,), step_tokens=1, number=0, ends_step=True, filler=True)
    nothing = answer_loss(model, collate(LABELS, filler, 0, PREFIX))
    assert nothing.item() == 0
    assert not gradient(model, nothing).any()


# Which layout a model gets.


def sliding(window: int) -> Any:
    from transformers import Qwen2ForCausalLM

    config = build("qwen2").config
    config.sliding_window = window
    config.layer_types = ["full_attention", "sliding_attention"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Qwen2ForCausalLM(config).double()


@pytest.mark.parametrize("family", FAMILIES)
def test_known_architectures_share_the_prefix(family: str) -> None:
    model = build(family, method="lora")
    assert choose_batching(model) == BatchingChoice(batching="trunk")
    for requested in ("trunk", "packed", "padded"):
        assert choose_batching(model, requested) == BatchingChoice(batching=requested)


@pytest.mark.parametrize("window", [4, 30, 60])
@pytest.mark.parametrize("prefix", [PREFIX, 0])
def test_layers_that_see_a_window_of_tokens_share_a_prefix_exactly(
    window: int, prefix: int
) -> None:
    model = sliding(window=window)
    assert choose_batching(model).batching == "trunk"
    expected_loss, expected = separately(model, RATIONALES)
    loss = answer_loss(model, batch_of(RATIONALES, prefix))
    assert loss.item() == pytest.approx(expected_loss, rel=1e-7)
    assert difference(gradient(model, loss), expected) <= LARGEST_DIFFERENCE[torch.float64]
    split = training_loss(model, batch_of(RATIONALES, prefix))
    assert difference(gradient(model, split), expected) <= LARGEST_DIFFERENCE[torch.float64]


def test_attention_dropout_is_packed_and_refuses_to_share() -> None:
    model = build("llama")
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.1
    assert choose_batching(model).batching == "packed"
    with pytest.raises(ConfigError, match=r"attention dropout .* set batching=packed"):
        choose_batching(model, "trunk")


@pytest.mark.parametrize("family", ["mamba", "gpt2"])
def test_a_model_that_is_not_known_to_keep_examples_apart_is_padded(family: str) -> None:
    from transformers import AutoModelForCausalLM, GPT2Config, MambaConfig

    small = {"vocab_size": N_TOKENS, "hidden_size": 8, "num_hidden_layers": 1}
    config = (
        MambaConfig(state_size=4, **small)
        if family == "mamba"
        else GPT2Config(num_attention_heads=2, **small)
    )
    model = AutoModelForCausalLM.from_config(config)
    choice = choose_batching(model)
    assert choice.batching == "padded"
    assert repr(family) in choice.reason
    for requested in ("trunk", "packed"):
        with pytest.raises(ConfigError, match=f"batching={requested}: .*; set batching=padded"):
            choose_batching(model, requested)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_layers_that_are_computed_again_share_the_prefix_again(method: str) -> None:
    model = build("qwen2", method=method)
    expected = gradient(model, answer_loss(model, batch_of(RATIONALES, PREFIX)))
    checkpoint_gradients(model)
    found = gradient(model, answer_loss(model, batch_of(RATIONALES, PREFIX)))
    # The same operations on the same shapes.
    assert torch.equal(found, expected)
