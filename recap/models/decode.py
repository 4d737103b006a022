"""Greedy decoding of many prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from recap.models.finetune import causal_model


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end_of_turn_id: int,
    pad_id: int,
    batch_size: int = 32,
    in_step: bool = False,
) -> list[list[int]]:
    """Return what the model answers to each prompt, in the order given, without the end of turn.

    Greedy (the paper's temperature 0, top-p 1): at every step the likeliest token. Sampling
    settings that came with a checkpoint, such as Qwen2.5's repetition penalty, are not applied.

    Sums are taken in an order that depends on ``batch_size`` and on the processor. In float32 that
    decides between tokens that are as likely as each other to the seventh digit, and else changes
    no answer; in bfloat16 it changes a token now and then.

    Args:
        model: A ``transformers`` causal language model, or a PEFT model around one.
        prompts: Token ids, each ending with the header of the assistant's turn.
        max_new_tokens: Longest answer; a longer one is cut.
        end_of_turn_id: Ends an answer.
        pad_id: Fills short rows.
        batch_size: Prompts decoded together; neighbours in length share a batch.
        in_step: Whether devices go on until the last of them is done, which weights spread over
            devices need: each token gathers them.
    """
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    answers: list[list[int]] = [[] for _ in prompts]
    causal = causal_model(model)
    with evaluating(causal), _clean_generation_config(causal), torch.no_grad():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            rows = [list(prompts[i]) for i in chosen]
            input_ids, mask = _left_padded(rows, pad_id, causal.device)
            output = causal.generate(
                input_ids=input_ids,
                attention_mask=mask,
                generation_config=_greedy(max_new_tokens, end_of_turn_id, pad_id),
                synced_gpus=in_step,
            )
            for i, row in zip(chosen, output[:, input_ids.shape[1] :].tolist(), strict=True):
                answers[i] = row[: row.index(end_of_turn_id)] if end_of_turn_id in row else row
    return answers


def _left_padded(
    rows: list[list[int]], pad_id: int, device: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask ``(batch, time)``, padded on the left: every row goes on at its end."""
    time = max(map(len, rows))
    ids = torch.tensor([[pad_id] * (time - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (time - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


def _greedy(max_new_tokens: int, end_of_turn_id: int, pad_id: int) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        eos_token_id=end_of_turn_id,
        pad_token_id=pad_id,
    )


@contextmanager
def _clean_generation_config(causal: Any) -> Iterator[None]:
    """Put the checkpoint's settings aside, from which ``generate`` fills unset fields (5.23)."""
    from transformers import GenerationConfig

    own = causal.generation_config
    causal.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        causal.generation_config = own


@contextmanager
def evaluating(causal: Any) -> Iterator[None]:
    """Switch dropout off, and back to what it was."""
    was_training = causal.training
    causal.eval()
    try:
        yield
    finally:
        causal.train(was_training)
