"""Inference by whole forward passes and transformers' own ``generate``, for any architecture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from recap.models.engine.label_tree import DecodeStart, LabelTree, Prefill
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
        batch_size: Prompts decoded together; neighbors in length share a batch.
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


class PlainEngine:
    """Answers prompts of models whose rows are not known to be exact: slowly, and as they are.

    Args:
        model: A ``transformers`` causal language model, or a PEFT model around one; in evaluation
            mode whenever it is used.
        tree: The labels.
        end_of_turn_id: Ends an answer.
        pad_id: Fills short rows.
        in_step: As in :func:`recap.models.engine.generate.generate`.
    """

    def __init__(
        self,
        model: Any,
        tree: LabelTree,
        *,
        end_of_turn_id: int,
        pad_id: int,
        in_step: bool = False,
    ) -> None:
        self._causal = causal_model(model)
        self._tree = tree
        self._end = end_of_turn_id
        self._pad = pad_id
        self._in_step = in_step

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Prefill:
        """Return what the model makes of a batch of prompts, one pass for every label."""
        tree = self._tree
        edges = torch.zeros((len(prompts), len(tree.tokens)), dtype=torch.float64)
        likeliest = torch.zeros((len(prompts), 1 + tree.n_inner), dtype=torch.long)
        for path in tree.paths:
            logits = self._logits(prompts, tree.path_tokens(path[:-1]))
            log_probabilities = torch.log_softmax(logits.double(), dim=2)
            for place, node in enumerate(path):
                edges[:, node] = log_probabilities[:, place, tree.tokens[node]]
                likeliest[:, tree.parents[node] + 1] = logits[:, place].argmax(dim=1)
        return Prefill(edges=edges, likeliest=likeliest, cache=[list(prompt) for prompt in prompts])

    def decode(
        self, prefill: Prefill, starts: Sequence[DecodeStart], *, max_new_tokens: int
    ) -> list[list[int]]:
        """Return the greedy tokens after each start, without the end of turn."""
        if self._in_step and not starts:
            # The other devices go on, and need this one to compute along.
            self.decode(
                prefill,
                [DecodeStart(row=0, nodes=(), token=self._end)],
                max_new_tokens=max_new_tokens,
            )
            return []
        begun = [(*self._tree.path_tokens(start.nodes), start.token) for start in starts]
        answers = generate(
            self._causal,
            [(*prefill.cache[s.row], *b) for s, b in zip(starts, begun, strict=True)],
            max_new_tokens=max(1, max_new_tokens - 1),
            end_of_turn_id=self._end,
            pad_id=self._pad,
            batch_size=max(1, len(starts)),
            in_step=self._in_step,
        )
        return [
            answer[: max(0, max_new_tokens - len(b))]
            for answer, b in zip(answers, begun, strict=True)
        ]

    def _logits(self, prompts: Sequence[Sequence[int]], tokens: list[int]) -> Tensor:
        """Return logits ``(batch, 1 + tokens, vocabulary)`` after the prompts and each token."""
        rows = [[*prompt, *tokens] for prompt in prompts]
        time = max(map(len, rows))
        device = self._causal.device
        ids = torch.tensor([row + [self._pad] * (time - len(row)) for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (time - len(row)) for row in rows])
        logits = self._causal(input_ids=ids, attention_mask=mask.to(device), use_cache=False).logits
        return (
            torch.stack(
                [logits[i, len(row) - len(tokens) - 1 : len(row)] for i, row in enumerate(rows)]
            )
            .cpu()
            .float()
        )
