"""Inference that computes what prompts share once, tries all labels at once, and steps together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from recap.data.batches import Layout
from recap.models.cached_rows import Context, OpeningRow, SteppingRow
from recap.models.finetune import causal_model
from recap.models.label_tree import LabelTree
from recap.models.last_layer import WANTED, Asked
from recap.models.openings import Opening, Start
from recap.models.row_attention import ROW, attach, without_mask

LOGITS_AT_ONCE = 2**23
"""Logits in memory together while labels are scored (64 MB in 64 bits)."""

KEPT_SHARE = 3 / 4
"""When no more than this share of the answers goes on, the others leave the batch."""

_NO_TREE = LabelTree(tokens=(), parents=(), paths=(), n_inner=0)


class PrefixEngine:
    """Answers prompts that begin alike, for the architectures that rows are exact for.

    Args:
        model: A ``transformers`` causal language model, or a PEFT model around one; in evaluation
            mode whenever it is used.
        tree: The labels.
        end_of_turn_id: Ends an answer.
        constant: Tokens that all prompts are likely to begin with; those that do not are answered
            all the same.
        in_step: Whether devices go on until the last of them is done, which weights spread over
            devices need: each token gathers them.
    """

    def __init__(
        self,
        model: Any,
        tree: LabelTree,
        *,
        end_of_turn_id: int,
        constant: Sequence[int] = (),
        in_step: bool = False,
    ) -> None:
        self._causal = causal_model(model)
        self._decoder = self._causal.get_decoder()
        self._head = self._causal.get_output_embeddings()
        self._tree = tree
        self._end = end_of_turn_id
        self._constant = tuple(constant)
        self._in_step = in_step
        self._context: Context | None = None
        attach(self._decoder)

    def open(self, prompts: Sequence[Sequence[int]], *, context: Context | None = None) -> Opening:
        """Return what the model makes of a batch of prompts.

        Args:
            prompts: Token ids.
            context: Known beginning of every prompt; ``None`` for the constant one.
        """
        context = self._shared_context(prompts) if context is None else context
        row, states = self._run(prompts, context, self._tree)
        edges, likeliest = self._scores(states.view(len(prompts), -1, states.shape[-1]))
        return Opening(edges=edges, likeliest=likeliest, kept=row)

    def extend(self, opening: Opening, starts: Sequence[Start], *, most: int) -> list[list[int]]:
        """Return the greedy tokens after each start, without the end of turn."""
        answers: list[list[int]] = [[] for _ in starts]
        left = [most - len(start.nodes) - 1 for start in starts]
        active = [i for i in range(len(starts)) if left[i] > 0]
        if not self._goes_on(active):
            return answers
        # A device that is done computes on with one answer, whose tokens nobody looks at.
        rows = active or [-1]
        begun = [starts[i] if i >= 0 else Start(row=0, nodes=(), token=self._end) for i in rows]
        row: SteppingRow = opening.kept.answers([(start.row, start.nodes) for start in begun])
        tokens = [start.token for start in begun]
        while True:
            tokens = self._step(row, tokens)
            going = []
            for place, (i, token) in enumerate(zip(rows, tokens, strict=True)):
                if i < 0 or token == self._end or len(answers[i]) >= left[i]:
                    rows[place] = -1
                    continue
                answers[i].append(token)
                if len(answers[i]) < left[i]:
                    going.append(place)
                else:
                    rows[place] = -1
            if not self._goes_on(going):
                return answers
            if len(going) <= KEPT_SHARE * len(rows):
                going = going or [0]
                row.keep(going)
                rows, tokens = [rows[p] for p in going], [tokens[p] for p in going]

    def whole_context(self, opening: Opening, row: int, prompt: Sequence[int]) -> Context:
        """Return the context of an opened prompt as a whole."""
        whole: Context = opening.kept.whole_context(row, prompt)
        return whole

    def forget(self) -> None:
        """Forget the constant context: the weights have changed, or other adapters are on."""
        self._context = None

    def _shared_context(self, prompts: Sequence[Sequence[int]]) -> Context:
        if self._context is None:
            self._context = Context()
            if self._constant:
                row, _ = self._run([self._constant], Context(), _NO_TREE)
                self._context = row.whole_context(0, self._constant)
        return self._context.first(shared_length(self._context.ids, prompts))

    def _run(
        self, prompts: Sequence[Sequence[int]], context: Context, tree: LabelTree
    ) -> tuple[OpeningRow, Tensor]:
        """Return the row of opened prompts and the states that it was asked for."""
        n = len(context.ids)
        nodes, depths = list(tree.tokens[: tree.n_inner]), tree.depths[: tree.n_inner]
        ids: list[int] = []
        positions: list[int] = []
        for prompt in prompts:
            ids += [*prompt[n:], *nodes]
            positions += [*range(n, len(prompt)), *(len(prompt) + depth for depth in depths)]
        device = self._head.weight.device
        row = OpeningRow(context, [len(prompt) - n for prompt in prompts], tree, device)
        layout = Layout(prefix=0, lengths=tuple(len(prompt) - n + len(nodes) for prompt in prompts))
        input_ids = torch.tensor([ids], device=device)
        options = {
            ROW: row,
            WANTED: Asked(positions=row.asked(), layout=layout),
            "position_ids": torch.tensor([positions], device=device),
            "attention_mask": without_mask(input_ids),
        }
        states = self._decoder(input_ids=input_ids, use_cache=False, **options).last_hidden_state
        return row, states[0]

    def _scores(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return edges and likeliest tokens from states ``(batch, 1 + inner nodes, hidden)``."""
        parents = [parent + 1 for parent in self._tree.parents]
        tokens = list(self._tree.tokens)
        at_once = max(1, LOGITS_AT_ONCE // (states.shape[1] * self._head.weight.shape[0]))
        edges, likeliest = [], []
        for part in torch.split(states, at_once):
            # In 64 bits: a label's log-probability is a sum over its tokens, and errors add up.
            logits = self._head(part).double()
            normalizers = torch.logsumexp(logits, dim=2)
            edges.append((logits[:, parents, tokens] - normalizers[:, parents]).cpu())
            likeliest.append(logits.argmax(dim=2).cpu())
        return torch.cat(edges), torch.cat(likeliest)

    def _step(self, row: SteppingRow, tokens: list[int]) -> list[int]:
        """Return the likeliest token after each answer's last."""
        input_ids = torch.tensor(tokens, device=self._head.weight.device)[:, None]
        row.begin()
        options = {
            ROW: row,
            "position_ids": row.positions(),
            "attention_mask": without_mask(input_ids),
        }
        states = self._decoder(input_ids=input_ids, use_cache=False, **options).last_hidden_state
        row.end()
        found: list[int] = self._head(states[:, -1]).argmax(dim=1).tolist()
        return found

    def _goes_on(self, active: Sequence[int]) -> bool:
        """Return whether there is a next step, on this device or on any that keeps step with it."""
        if not self._in_step:
            return bool(active)
        flag = torch.tensor([len(active)], device=self._head.weight.device)
        dist.all_reduce(flag)
        return bool(flag.item())


def shared_length(ids: Sequence[int], prompts: Sequence[Sequence[int]]) -> int:
    """Return how many leading tokens of ``ids`` all prompts begin with, less than any of them."""
    shared = min([len(ids), *(len(prompt) - 1 for prompt in prompts)])
    for prompt in prompts:
        if tuple(prompt[:shared]) != tuple(ids[:shared]):
            shared = next(i for i in range(shared) if prompt[i] != ids[i])
    return shared
