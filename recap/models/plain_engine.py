"""Inference by whole forward passes and transformers' own ``generate``, for any architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from recap.models.decode import generate
from recap.models.finetune import causal_model
from recap.models.label_tree import LabelTree
from recap.models.openings import Opening, Start


class PlainEngine:
    """Answers prompts of models whose rows are not known to be exact: slowly, and as they are.

    Args:
        model: A ``transformers`` causal language model, or a PEFT model around one; in evaluation
            mode whenever it is used.
        tree: The labels.
        end_of_turn_id: Ends an answer.
        pad_id: Fills short rows.
        in_step: As in :func:`recap.models.decode.generate`.
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

    def open(self, prompts: Sequence[Sequence[int]]) -> Opening:
        """Return what the model makes of a batch of prompts, one pass for every label."""
        tree = self._tree
        edges = torch.zeros((len(prompts), len(tree.tokens)), dtype=torch.float64)
        likeliest = torch.zeros((len(prompts), 1 + tree.n_inner), dtype=torch.long)
        for path in tree.paths:
            logits = self._logits(prompts, tree.path_tokens(path[:-1]))
            chances = torch.log_softmax(logits.double(), dim=2)
            for place, node in enumerate(path):
                edges[:, node] = chances[:, place, tree.tokens[node]]
                likeliest[:, tree.parents[node] + 1] = logits[:, place].argmax(dim=1)
        return Opening(edges=edges, likeliest=likeliest, kept=[list(prompt) for prompt in prompts])

    def extend(self, opening: Opening, starts: Sequence[Start], *, most: int) -> list[list[int]]:
        """Return the greedy tokens after each start, without the end of turn."""
        if self._in_step and not starts:
            # The other devices go on, and need this one to compute along.
            self.extend(opening, [Start(row=0, nodes=(), token=self._end)], most=most)
            return []
        begun = [(*self._tree.path_tokens(start.nodes), start.token) for start in starts]
        answers = generate(
            self._causal,
            [(*opening.kept[s.row], *b) for s, b in zip(starts, begun, strict=True)],
            max_new_tokens=max(1, most - 1),
            end_of_turn_id=self._end,
            pad_id=self._pad,
            batch_size=max(1, len(starts)),
            in_step=self._in_step,
        )
        return [answer[: max(0, most - len(b))] for answer, b in zip(answers, begun, strict=True)]

    def forget(self) -> None:
        """Do nothing: nothing is kept."""

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
