"""Every architecture that is said to be exact, and one that is not known, through the real code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import shrunk
import torch
from test_label_scoring import examples
from test_shared_prefix import (
    LARGEST_DIFFERENCE,
    PREFIX,
    RATIONALES,
    batch_of,
    build,
    difference,
    gradient,
    separately,
)

from recap.data.encode import ChatEncoder, encode_examples
from recap.models.backbone import load_backbone
from recap.models.engine.attention import TESTED, why_unsupported
from recap.models.engine.decode import TrunkEngine
from recap.models.engine.label_scoring import LabelScorer
from recap.models.engine.loss import answer_loss, choose_batching
from recap.models.finetune import apply_finetune, projections
from recap.tasks.library import get_task

SLOWER = {
    "gemma2": "bounds the scores of attention",
}
"""Those that cannot share a prefix exactly, and what is said of it."""

EXPERTS = ("mixtral", "qwen3_moe")
"""torch (2.13) multiplies grouped experts in 32 bits at most."""


def test_every_architecture_that_is_said_to_be_exact_is_tested() -> None:
    assert set(shrunk.FAMILIES) == set(TESTED)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("family", TESTED)
def test_loss_and_gradients_are_those_of_plain_forwards_in_each_batching(
    family: str, method: str
) -> None:
    dtype = torch.float32 if family in EXPERTS else torch.float64
    model = build(family, method=method, dtype=dtype).eval()
    loss, expected = separately(model, RATIONALES)
    batchings: dict[str, int | None] = {"padded": None, "packed": 0, "trunk": PREFIX}
    if family in SLOWER:
        batchings.pop("trunk")
    for batching, prefix in batchings.items():
        assert choose_batching(model, batching).batching == batching
        found = answer_loss(model, batch_of(RATIONALES, prefix))
        assert found.item() == pytest.approx(loss, rel=1e-5 if family in EXPERTS else 1e-7)
        assert difference(gradient(model, found), expected) <= LARGEST_DIFFERENCE[dtype]


@pytest.mark.parametrize("family", TESTED)
def test_the_slower_exact_way_is_taken_and_said_where_a_prefix_cannot_be_shared(
    family: str,
) -> None:
    choice = choose_batching(shrunk.model_of(family, 50))
    assert choice.batching == ("packed" if family in SLOWER else "trunk")
    assert SLOWER.get(family, "") in choice.reason


def test_what_the_configuration_says_of_attention_is_found_out() -> None:
    model = shrunk.model_of("mistral", 50)
    assert not why_unsupported(model)
    model.config.attn_logit_softcapping = 16
    assert "attn_logit_softcapping" in why_unsupported(model)


@pytest.mark.parametrize("family", TESTED)
def test_greedy_tokens_and_label_probabilities_are_those_of_transformers(
    family: str, tmp_path: Path
) -> None:
    tokenizer = shrunk.qwen2_tokenizer()
    shrunk.model_of(family, len(tokenizer), seed=3).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model: Any
    model, loaded = load_backbone(name="any", family=None, path=tmp_path)
    task = get_task("binary", rationale=True, style="brief")
    encoder = ChatEncoder(loaded)
    prompts = [e.prompt for e in encode_examples(examples(task), task, encoder).examples]
    scorer = LabelScorer(model.eval(), task, encoder, decoding="free", max_new_tokens=12)
    assert isinstance(scorer._engine, TrunkEngine) == (family not in SLOWER)
    end = encoder.end_of_turn_id
    for prompt, answer in zip(prompts, scorer.answer(prompts), strict=True):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            whole = model.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=end)
        expected = [token for token in whole[0, len(prompt) :].tolist() if token != end]
        assert answer.text == encoder.text(expected)
        for label, found in answer.log_probabilities.items():
            spelled = encoder.answer_ids(f"Behavior: {task.written(label)}\nReason: it")
            line = next(
                spelled[:n]
                for n in range(len(spelled))
                if encoder.text(spelled[:n]) == f"Behavior: {task.written(label)}\n"
            )
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *line]])).logits[0, len(prompt) - 1 : -1]
            scores = torch.log_softmax(logits.double(), dim=1)
            nats = scores.gather(1, torch.tensor(line)[:, None]).sum().item()
            assert found == pytest.approx(nats, abs=1e-4, rel=1e-5)


@pytest.mark.parametrize("family", TESTED)
def test_adapters_are_on_every_matrix_of_the_layers_but_routers(family: str) -> None:
    model = shrunk.model_of(family, 50)
    found = projections(model)
    assert "o_proj" in found
    assert not {"gate", "router", "lm_head", "embed_tokens"} & set(found)
    matrices = {
        name
        for name, module in model.get_decoder().named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    adapted = apply_finetune(model, method="lora")
    places = {
        name.split(".lora_A")[0].partition("layers.")[2]
        for name, _ in adapted.named_parameters()
        if ".lora_A" in name
    }
    assert places == {name.partition("layers.")[2] for name in matrices if "router" not in name}
