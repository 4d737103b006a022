"""Inference that computes what prompts share once, tries all labels at once, and steps together.

The constant beginning of all prompts is a :class:`CachedPrefix`, encoded once. A
:class:`PrefillRow` holds the suffixes of a batch of prompts, one after another, each with the
beginnings of all labels behind it; a :class:`DecodeRow` the next token of every answer. Attention
to a prefix that rows share is one product for all of them (Hydragen, Juravsky et al. 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from recap.models.engine.generate import DecodeStart, LabelTree, Prefill
from recap.models.engine.prefix_attention import attach, run_row
from recap.models.finetune import OutputLayer, causal_model

GROWTH_TOKENS = 32
"""Tokens by which the KV cache of answers grows when it is full."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CachedPrefix:
    """Tokens at the beginning of a prompt, with their keys and values.

    Attributes:
        ids: The tokens.
        keys: For each layer ``(1, key_value_heads, time, head_dim)``; nothing without tokens.
        values: As ``keys``.
    """

    ids: tuple[int, ...] = ()
    keys: tuple[Tensor, ...] = ()
    values: tuple[Tensor, ...] = ()

    def first(self, n: int) -> CachedPrefix:
        """Return the first ``n`` tokens of it, without copying."""
        if n == len(self.ids):
            return self
        if n == 0:
            return CachedPrefix()
        return CachedPrefix(
            ids=self.ids[:n],
            keys=tuple(key[:, :, :n] for key in self.keys),
            values=tuple(value[:, :, :n] for value in self.values),
        )

    def before(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return a layer's keys and values with those of the prefix before them."""
        if not self.ids:
            return keys, values
        return (
            torch.cat([self.keys[layer], keys], dim=2),
            torch.cat([self.values[layer], values], dim=2),
        )


class PrefillRow:
    """The suffixes of prompts behind a prefix, each followed by the inner nodes of a label tree.

    A suffix sees the prefix and causally itself; a node sees the prefix, the suffix and the nodes
    above it. Keys and values of all layers stay here afterwards.

    Args:
        prefix: What all prompts begin with.
        lengths: Tokens of each suffix.
        tree: The labels.
        device: Where the model is.
    """

    own_attention: str

    def __init__(
        self, prefix: CachedPrefix, lengths: Sequence[int], tree: LabelTree, device: torch.device
    ) -> None:
        self.prefix = prefix
        self.lengths = tuple(lengths)
        self.n_nodes = tree.n_inner
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self._device = device
        self._above = torch.zeros((self.n_nodes, self.n_nodes), dtype=torch.bool, device=device)
        for node in range(self.n_nodes):
            self._above[node, list(tree.ancestors[node])] = True
        self._masks: dict[int, Tensor] = {}
        self.starts: list[int] = []
        place = 0
        for length in self.lengths:
            self.starts.append(place)
            place += length + self.n_nodes

    def last_positions(self) -> Tensor:
        """Return where each suffix's last token and its nodes are, ``(batch * (1 + nodes),)``."""
        places = [
            torch.arange(start + length - 1, start + length + self.n_nodes, device=self._device)
            for start, length in zip(self.starts, self.lengths, strict=True)
        ]
        return torch.cat(places)

    def attend(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        **shared: Any,
    ) -> Tensor:
        """Return the attention of one row."""
        layer = module.layer_idx
        self.keys[layer], self.values[layer] = key, value
        sizes = [length + self.n_nodes for length in self.lengths]
        outputs = []
        for length, own_query, *own in zip(
            self.lengths, *(torch.split(each, sizes, dim=2) for each in (query, key, value)),
            strict=True,
        ):  # fmt: skip
            keys, values = self.prefix.before(layer, *own)
            mask = self._mask(length, query.dtype)
            outputs.append(
                scaled_dot_product_attention(own_query, keys, values, attn_mask=mask, **shared)
            )
        return torch.cat(outputs, dim=2)

    def _mask(self, length: int, dtype: torch.dtype) -> Tensor:
        """Return what a suffix and its nodes see ``(time, prefix + time)``, to add to scores."""
        if length not in self._masks:
            n = length + self.n_nodes
            seen = torch.ones((n, n), dtype=torch.bool, device=self._device).tril()
            seen[length:, length:] = self._above
            hidden = pad(~seen, (len(self.prefix.ids), 0))
            self._masks[length] = torch.zeros(
                hidden.shape, dtype=dtype, device=self._device
            ).masked_fill_(hidden, -torch.inf)
        return self._masks[length]

    def cached_prompt(self, row: int, ids: Sequence[int]) -> CachedPrefix:
        """Return the prefix of a whole prompt, whose tokens are ``ids``: for the next turn."""
        start = self.starts[row]
        own = slice(start, start + self.lengths[row])
        both = [
            self.prefix.before(layer, self.keys[layer][:, :, own], self.values[layer][:, :, own])
            for layer in range(len(self.keys))
        ]
        return CachedPrefix(
            ids=tuple(ids),
            keys=tuple(keys for keys, _ in both),
            values=tuple(values for _, values in both),
        )

    def decode_row(self, paths: Sequence[tuple[int, Sequence[int]]]) -> DecodeRow:
        """Return a row for the next token of answers, and lay down the keys and values held here.

        Args:
            paths: For each answer its prompt's row, and the nodes that it has taken.
        """
        lengths = [self.lengths[row] + len(nodes) for row, nodes in paths]
        places = torch.zeros((len(paths), max(lengths)), dtype=torch.long)
        for i, (row, nodes) in enumerate(paths):
            start, length = self.starts[row], self.lengths[row]
            places[i, :length] = torch.arange(start, start + length)
            after = torch.tensor(list(nodes), dtype=torch.long)
            places[i, length : lengths[i]] = start + length + after
        places = places.to(self._device)
        layers = range(len(self.keys))
        return DecodeRow(
            self.prefix,
            # Given up layer by layer, so that they do not exist twice.
            [self.keys.pop(layer)[0][:, places].transpose(0, 1) for layer in layers],
            [self.values.pop(layer)[0][:, places].transpose(0, 1) for layer in layers],
            torch.tensor(lengths, device=self._device),
        )


class DecodeRow:
    """The next token of each of many answers, which sees the prefix and what is its own.

    Args:
        prefix: What all of them begin with.
        keys: For each layer ``(batch, key_value_heads, time, head_dim)``, filled from the left.
        values: As ``keys``.
        lengths: ``(batch,)``: how many are filled.
    """

    own_attention: str

    def __init__(
        self, prefix: CachedPrefix, keys: list[Tensor], values: list[Tensor], lengths: Tensor
    ) -> None:
        self._prefix = prefix
        self._keys = keys
        self._values = values
        self._lengths = lengths
        self._rows = torch.arange(len(lengths), device=lengths.device)
        self._width = int(lengths.max())
        self._hidden = torch.zeros((), dtype=torch.bool)

    def positions(self) -> Tensor:
        """Return the place ``(batch, 1)`` of each next token in its own prompt and answer."""
        return (len(self._prefix.ids) + self._lengths)[:, None]

    def begin(self) -> None:
        """Let the KV cache grow by a token, before each step."""
        self._width += 1
        if self._width > self._keys[0].shape[2]:
            grown = (0, 0, 0, GROWTH_TOKENS)
            self._keys = [pad(key, grown) for key in self._keys]
            self._values = [pad(value, grown) for value in self._values]
        columns = torch.arange(self._width, device=self._lengths.device)
        self._hidden = (columns > self._lengths[:, None])[None, :, None]

    def end(self) -> None:
        """Count the token, after each step."""
        self._lengths = self._lengths + 1

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the answers alone."""
        chosen = torch.tensor(list(rows), device=self._lengths.device)
        self._keys = [key[chosen] for key in self._keys]
        self._values = [value[chosen] for value in self._values]
        self._lengths = self._lengths[chosen]
        self._rows = torch.arange(len(rows), device=chosen.device)
        self._width = int(self._lengths.max())

    def attend(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        **shared: Any,
    ) -> Tensor:
        """Return the attention of one token each, ``(batch, heads, 1, head_dim)``."""
        layer, (batch, heads, _, width) = module.layer_idx, query.shape
        self._keys[layer][self._rows, :, self._lengths] = key[:, :, 0]
        self._values[layer][self._rows, :, self._lengths] = value[:, :, 0]
        keys, values = (kept[layer][:, :, : self._width] for kept in (self._keys, self._values))
        groups = key.shape[1]
        scale = shared["scale"] or width**-0.5
        # Heads that share keys stand together: (key_value_heads, batch, heads of a group, ...).
        own = (query * scale).view(batch, groups, heads // groups, width)
        scores = (own @ keys.transpose(2, 3)).transpose(0, 1).float()
        scores = scores.masked_fill(self._hidden, -torch.inf)
        n_shared = len(self._prefix.ids)
        if n_shared:
            together = own.transpose(0, 1).reshape(groups, -1, width)
            before = together @ self._prefix.keys[layer][0].transpose(1, 2)
            before = before.view(groups, batch, -1, n_shared)
            scores = torch.cat([before.float(), scores], dim=3)
        weights = torch.softmax(scores, dim=3).to(query.dtype)
        found = weights[..., n_shared:].transpose(0, 1) @ values
        if n_shared:
            first = weights[..., :n_shared].reshape(groups, -1, n_shared)
            shared_part = (first @ self._prefix.values[layer][0]).view(groups, batch, -1, width)
            found = found + shared_part.transpose(0, 1)
        attended: Tensor = found.reshape(batch, heads, 1, width)
        return attended


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
        self._head = OutputLayer(self._causal)
        self._tree = tree
        self._end = end_of_turn_id
        self._constant = tuple(constant)
        self._in_step = in_step
        self._prefix: CachedPrefix | None = None
        attach(self._decoder)

    def prefill(
        self, prompts: Sequence[Sequence[int]], *, prefix: CachedPrefix | None = None
    ) -> Prefill:
        """Return what the model makes of a batch of prompts.

        Args:
            prompts: Token ids.
            prefix: Known beginning of every prompt; ``None`` for the constant one.
        """
        prefix = self._shared_prefix(prompts) if prefix is None else prefix
        row, states = self._run(prompts, prefix, self._tree)
        edges, likeliest = self._scores(states.view(len(prompts), -1, states.shape[-1]))
        return Prefill(edges=edges, likeliest=likeliest, cache=row)

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
        row: DecodeRow = prefill.cache.decode_row([(start.row, start.nodes) for start in begun])
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

    def cached_prompt(self, prefill: Prefill, row: int, prompt: Sequence[int]) -> CachedPrefix:
        """Return the prefix of an opened prompt as a whole."""
        whole: CachedPrefix = prefill.cache.cached_prompt(row, prompt)
        return whole

    def _shared_prefix(self, prompts: Sequence[Sequence[int]]) -> CachedPrefix:
        if self._prefix is None:
            self._prefix = CachedPrefix()
            if self._constant:
                row, _ = self._run([self._constant], CachedPrefix(), _NO_TREE)
                self._prefix = row.cached_prompt(0, self._constant)
        return self._prefix.first(shared_length(self._prefix.ids, prompts))

    def _run(
        self, prompts: Sequence[Sequence[int]], prefix: CachedPrefix, tree: LabelTree
    ) -> tuple[PrefillRow, Tensor]:
        """Return the row of prompts and the states after each of them and each of its nodes."""
        n = len(prefix.ids)
        nodes, depths = list(tree.tokens[: tree.n_inner]), tree.depths[: tree.n_inner]
        ids: list[int] = []
        positions: list[int] = []
        for prompt in prompts:
            ids += [*prompt[n:], *nodes]
            positions += [*range(n, len(prompt)), *(len(prompt) + depth for depth in depths)]
        device = self._head.layer.weight.device
        row = PrefillRow(prefix, [len(prompt) - n for prompt in prompts], tree, device)
        states = run_row(
            self._decoder,
            row,
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.tensor([positions], device=device),
        )
        return row, states[0, row.last_positions()]

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

    def _step(self, row: DecodeRow, tokens: list[int]) -> list[int]:
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


def shared_length(ids: Sequence[int], prompts: Sequence[Sequence[int]]) -> int:
    """Return how many leading tokens of ``ids`` all prompts begin with, less than any of them."""
    shared = min([len(ids), *(len(prompt) - 1 for prompt in prompts)])
    for prompt in prompts:
        if tuple(prompt[:shared]) != tuple(ids[:shared]):
            shared = next(i for i in range(shared) if prompt[i] != ids[i])
    return shared
