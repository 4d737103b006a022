"""Inference that computes what prompts share once, tries all labels at once, and steps together.

A batch of prompts is one row of trunks and teeth, with the beginnings of all labels behind each
tooth (:class:`recap.models.engine.attention.Row`); an :class:`AnswerRow` is the next token of every
answer. Attention to a trunk that answers share is one product for all of them (Hydragen, Juravsky
et al. 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from recap.data.layout import lay_out
from recap.models.engine.attention import Cache, Row, attach, run_row
from recap.models.engine.generate import DecodeStart, LabelTree, Prefill
from recap.models.finetune import OutputLayer, causal_model

GROWTH_TOKENS = 32
"""Tokens by which the KV cache of answers grows when it is full."""

LOGITS_AT_ONCE = 2**23
"""Logits in memory together while labels are scored (64 MB in 64 bits)."""

KEPT_SHARE = 3 / 4
"""When no more than this share of the answers goes on, the others leave the batch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CachedPath:
    """Tokens from the beginning of a prompt on, with their keys and values."""

    ids: tuple[int, ...]
    cache: Cache


@dataclass(kw_only=True, eq=False)
class _SharedTrunk:
    """A trunk that answers look back to.

    Attributes:
        cache: Its keys and values.
        start: Its first token's place in the answers' sequences.
        rows: ``(n,)``: which answers.
        inside: ``(n, tokens)``: what each of them sees of it.
    """

    cache: Cache
    start: int
    rows: Tensor
    inside: Tensor

    def keep(self, places: Tensor) -> _SharedTrunk | None:
        """Return the same for some of the answers; ``places``: where each now stands, or -1."""
        going = places[self.rows] >= 0
        if not going.any():
            return None
        return _SharedTrunk(
            cache=self.cache,
            start=self.start,
            rows=places[self.rows[going]],
            inside=self.inside[going],
        )


class AnswerRow:
    """The next token of each of many answers, which sees its prompt's trunks and what is its own.

    Args:
        row: The prompts, with their keys and values.
        paths: For each answer its prompt's place, and the nodes behind it that it has taken.
        device: Where the model is.
    """

    def __init__(
        self, row: Row, paths: Sequence[tuple[int, Sequence[int]]], device: torch.device
    ) -> None:
        layout, n_trunks = row.layout, len(row.layout.trunks)
        teeth = [layout.teeth[prompt] for prompt, _ in paths]
        places = [
            [*range(tooth.length), *(tooth.length + node for node in nodes)]
            for tooth, (_, nodes) in zip(teeth, paths, strict=True)
        ]
        lengths = list(map(len, places))
        self._width = max(lengths)
        index = torch.tensor([each + [0] * (self._width - len(each)) for each in places])
        index = index.to(device)
        numbers = [n_trunks + prompt for prompt, _ in paths]
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        for layer in row.found[numbers[0]]:
            held = [row.found[number][layer] for number in numbers]
            for to, which in ((self._keys, 0), (self._values, 1)):
                own = [each[which][0][:, at] for each, at in zip(held, index, strict=True)]
                to.append(torch.stack(own))
        self._seen = torch.tensor([tooth.seen for tooth in teeth], device=device)
        self._lengths = torch.tensor(lengths, device=device)
        self._rows = torch.arange(len(paths), device=device)
        pieces = [layout.pieces(number) for number in numbers]
        shared = (self._shared(row, trunk, pieces) for trunk in range(n_trunks))
        self._trunks = [trunk for trunk in shared if trunk is not None]
        self._hidden = torch.zeros((), dtype=torch.bool)

    def _shared(
        self, row: Row, trunk: int, pieces: Sequence[Sequence[tuple[int, int]]]
    ) -> _SharedTrunk | None:
        seen = {i: n for i, each in enumerate(pieces) for number, n in each if number == trunk}
        if not seen:
            return None
        most, device = max(seen.values()), self._seen.device
        cuts = torch.tensor(list(seen.values()), device=device)
        held = row.found.get(trunk) or row.before[trunk]
        return _SharedTrunk(
            cache={layer: (k[:, :, :most], v[:, :, :most]) for layer, (k, v) in held.items()},
            start=row.layout.trunks[trunk].seen,
            rows=torch.tensor(list(seen), device=device),
            inside=torch.arange(most, device=device) < cuts[:, None],
        )

    def positions(self) -> Tensor:
        """Return the place ``(batch, 1)`` of each next token in its own prompt and answer."""
        return (self._seen + self._lengths)[:, None]

    def begin(self) -> None:
        """Let the KV cache grow by a token, before each step."""
        self._width += 1
        if self._width > self._keys[0].shape[2]:
            grown = (0, 0, 0, GROWTH_TOKENS)
            self._keys = [pad(key, grown) for key in self._keys]
            self._values = [pad(value, grown) for value in self._values]

    def end(self) -> None:
        """Count the token, after each step."""
        self._lengths = self._lengths + 1

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the answers alone."""
        chosen = torch.tensor(list(rows), device=self._lengths.device)
        places = torch.full_like(self._lengths, -1)
        places[chosen] = torch.arange(len(rows), device=chosen.device)
        self._keys = [key[chosen] for key in self._keys]
        self._values = [value[chosen] for value in self._values]
        self._seen, self._lengths = self._seen[chosen], self._lengths[chosen]
        self._rows = places[chosen]
        self._trunks = [kept for trunk in self._trunks if (kept := trunk.keep(places)) is not None]
        self._width = int(self._lengths.max())

    def attend(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        window: int | None,
        scale: float,
    ) -> Tensor:
        """Return the attention of one token each, ``(batch, heads, 1, head_dim)``."""
        layer, (batch, heads, _, width) = module.layer_idx, query.shape
        self._keys[layer][self._rows, :, self._lengths] = key[:, :, 0]
        self._values[layer][self._rows, :, self._lengths] = value[:, :, 0]
        keys, values = (kept[layer][:, :, : self._width] for kept in (self._keys, self._values))
        groups = key.shape[1]
        # Heads that share keys stand together: (batch, key_value_heads, heads of a group, width).
        own = (query * scale).view(batch, groups, heads // groups, width)
        n_shared = max((t.start + t.inside.shape[1] for t in self._trunks), default=0)
        scores = own.new_full((batch, groups, own.shape[2], n_shared + self._width), -torch.inf)
        for trunk in self._trunks:
            # What goes on from a trunk comes after it, and takes the place of its rest.
            columns = slice(trunk.start, trunk.start + trunk.inside.shape[1])
            found = _together(own[trunk.rows], trunk.cache[layer][0].transpose(2, 3))
            scores[trunk.rows, :, :, columns] = found.masked_fill(
                ~trunk.inside[:, None, None], -torch.inf
            )
        scores[..., n_shared:] = own @ keys.transpose(2, 3)
        scores.masked_fill_(self._unseen(n_shared, window)[:, None, None], -torch.inf)
        exact = torch.promote_types(scores.dtype, torch.float32)
        weights = torch.softmax(scores, dim=3, dtype=exact).to(query.dtype)
        attended: Tensor = weights[..., n_shared:] @ values
        for trunk in self._trunks:
            columns = slice(trunk.start, trunk.start + trunk.inside.shape[1])
            of_trunk = weights[trunk.rows, :, :, columns] * trunk.inside[:, None, None]
            attended[trunk.rows] += _together(of_trunk, trunk.cache[layer][1])
        return attended.reshape(batch, heads, 1, width)

    def _unseen(self, n_shared: int, window: int | None) -> Tensor:
        """Return what no answer looks at: beyond its last token, or out of its window."""
        columns = torch.arange(self._width, device=self._lengths.device)
        hidden = pad(columns > self._lengths[:, None], (n_shared, 0))
        if window is None:
            return hidden
        shared = torch.arange(n_shared, device=columns.device).expand(len(hidden), -1)
        places = torch.cat([shared, self._seen[:, None] + columns], dim=1)
        return hidden | (places <= self.positions() - window)


def _together(rows: Tensor, shared: Tensor) -> Tensor:
    """Return ``rows`` ``(n, groups, heads, a)`` times ``shared`` ``(1, groups, a, b)``."""
    n, groups, heads, _ = rows.shape
    product = rows.transpose(0, 1).reshape(groups, n * heads, -1) @ shared[0]
    return product.view(groups, n, heads, -1).transpose(0, 1)


class TrunkEngine:
    """Answers prompts that begin alike, for the architectures that rows are exact for.

    Args:
        model: A ``transformers`` causal language model, or a PEFT model around one; in evaluation
            mode whenever it is used.
        tree: The labels.
        end_of_turn_id: Ends an answer.
        in_step: Whether devices go on until the last of them is done, which weights spread over
            devices need: each token gathers them.
    """

    def __init__(
        self, model: Any, tree: LabelTree, *, end_of_turn_id: int, in_step: bool = False
    ) -> None:
        self._causal = causal_model(model)
        self._decoder = self._causal.get_decoder()
        self._head = OutputLayer(self._causal)
        self._tree = tree
        self._end = end_of_turn_id
        self._in_step = in_step
        attach(self._decoder)

    def prefill(self, prompts: Sequence[Sequence[int]], known: CachedPath | None = None) -> Prefill:
        """Return what the model makes of a batch of prompts.

        Args:
            prompts: Token ids.
            known: The path of a prompt from before; what they share with it is not computed again.
        """
        tree, device = self._tree, self._head.layer.weight.device
        layout = lay_out(prompts, known=known.ids if known else ())
        before = {0: known.cache} if known and layout.known else None
        row = Row(layout, before=before, tree=tree, keeps=True)
        ids: list[int] = []
        positions: list[int] = []
        ends: list[int] = []
        nodes, depths = list(tree.tokens[: tree.n_inner]), tree.depths[: tree.n_inner]
        for number in row.chosen:
            span = layout.spans[number]
            end = span.seen + span.length
            ids += prompts[span.owner][span.seen : end]
            positions += range(span.seen, end)
            if number >= len(layout.trunks):
                ends += range(len(ids) - 1, len(ids) + len(nodes))
                ids += nodes
                positions += (end + depth for depth in depths)
        states = run_row(
            self._decoder,
            row,
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.tensor([positions], device=device),
        )
        scored = states[0, ends].view(len(prompts), 1 + len(nodes), -1)
        edges, likeliest = self._scores(scored)
        return Prefill(edges=edges, likeliest=likeliest, cache=row)

    def path(self, prefill: Prefill, prompts: Sequence[Sequence[int]]) -> CachedPath:
        """Return the path of the last of a batch's prompts in the order of ids.

        No prompt that comes after it in that order shares more with any other of them.
        """
        row: Row = prefill.cache
        last = max(range(len(prompts)), key=lambda i: tuple(prompts[i]))
        number = len(row.layout.trunks) + last
        length = row.layout.spans[number].length
        cache = {}
        for layer, own in row.found[number].items():
            pieces = [
                [each[:, :, :n] for each in (row.found.get(trunk) or row.before[trunk])[layer]]
                for trunk, n in row.layout.pieces(number)
            ]
            both = zip(*pieces, [each[:, :, :length] for each in own], strict=True)
            keys, values = (torch.cat(each, dim=2) for each in both)
            cache[layer] = keys, values
        return CachedPath(ids=tuple(prompts[last]), cache=cache)

    def decode(
        self, prefill: Prefill, starts: Sequence[DecodeStart], *, max_new_tokens: int
    ) -> list[list[int]]:
        """Return the greedy tokens after each start, without the end of turn."""
        answers: list[list[int]] = [[] for _ in starts]
        left = [max_new_tokens - len(start.nodes) - 1 for start in starts]
        active = [i for i in range(len(starts)) if left[i] > 0]
        if not self._goes_on(active):
            return answers
        # A device that is done computes on with one answer, whose tokens nobody looks at.
        rows = active or [-1]
        begun = [
            starts[i] if i >= 0 else DecodeStart(row=0, nodes=(), token=self._end) for i in rows
        ]
        device = self._head.layer.weight.device
        row = AnswerRow(prefill.cache, [(start.row, start.nodes) for start in begun], device)
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

    def _scores(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return edges and likeliest tokens from states ``(batch, 1 + inner nodes, hidden)``."""
        parents = [parent + 1 for parent in self._tree.parents]
        tokens = list(self._tree.tokens)
        at_once = max(1, LOGITS_AT_ONCE // (states.shape[1] * self._head.layer.weight.shape[0]))
        edges, likeliest = [], []
        for part in torch.split(states, at_once):
            # In 64 bits: a label's log-probability is a sum over its tokens, and errors add up.
            logits = self._head(part).double()
            normalizers = torch.logsumexp(logits, dim=2)
            edges.append((logits[:, parents, tokens] - normalizers[:, parents]).cpu())
            likeliest.append(logits.argmax(dim=2).cpu())
        return torch.cat(edges), torch.cat(likeliest)

    def _step(self, row: AnswerRow, tokens: list[int]) -> list[int]:
        """Return the likeliest token after each answer's last."""
        row.begin()
        states = run_row(
            self._decoder,
            row,
            input_ids=torch.tensor(tokens, device=self._head.layer.weight.device)[:, None],
            position_ids=row.positions(),
        )
        row.end()
        found: list[int] = self._head(states[:, -1]).argmax(dim=1).tolist()
        return found

    def _goes_on(self, active: Sequence[int]) -> bool:
        """Return whether there is a next step, on this device or on any that keeps step with it."""
        if not self._in_step:
            return bool(active)
        flag = torch.tensor([len(active)], device=self._head.layer.weight.device)
        dist.all_reduce(flag)
        return bool(flag.item())
