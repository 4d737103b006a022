"""What the forward of a micro-batch keeps for its backward, tensor by tensor.

Counted off transformers' Qwen2 and Llama layers (5.23), torch's kernels (2.13) and peft's adapters
(0.21); ``tests/plan/test_activations.py`` holds it against the tensors that autograd saves. On a
CPU a row's backward may be split (:mod:`recap.models.engine.prefix_backward`): then the prefix is
kept, and a few suffixes at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from recap.data.batches import Layout
from recap.models.engine.prefix_backward import (
    QUERIES_AT_ONCE,
    numbers_saved,
    splitting_pays,
    suffix_groups,
)
from recap.plan.architecture import Architecture, ParameterCounts
from recap.plan.workload import PlannedBatch, Setting

_STATISTIC = 4
"""Bytes of a norm's reciprocal root, one a token, and of attention's log-sum-exp, one a head."""


@dataclass(frozen=True, kw_only=True)
class SplitRow:
    """A row's prefix, and those of its suffixes that are computed together and keep most.

    Attributes:
        prefix: As a row of its own.
        suffixes: As a row of their own, without the prefix.
        whole: The same with the prefix, which they see.
    """

    prefix: PlannedBatch
    suffixes: PlannedBatch
    whole: PlannedBatch


def split_row(
    architecture: Architecture, counts: ParameterCounts, setting: Setting, group: PlannedBatch
) -> SplitRow | None:
    """Return how a micro-batch's backward is split; ``None`` where it is computed at once."""
    if setting.on_gpu or setting.strategy == "fsdp" or not group.prefix:
        return None
    # As its row is laid out: from short to long.
    pairs = sorted(zip(group.lengths, group.answers, strict=True))
    lengths, answers = (tuple(each) for each in zip(*pairs, strict=True))
    group = PlannedBatch(lengths=lengths, answers=answers, prefix=group.prefix)
    prefix = group.prefix or 0
    pays = splitting_pays(
        Layout(prefix=prefix, lengths=group.suffixes),
        layers=architecture.layers,
        numbers=numbers_saved(
            architecture.hidden, architecture.intermediate, again=setting.gradient_checkpointing
        ),
        width=setting.weight_bytes,
        gradient_bytes=setting.tuned_bytes * counts.trainable,
    )
    if not pays:
        return None
    parts = suffix_groups(group.suffixes)
    tokens = [sum(group.suffixes[part]) for part in parts]
    largest = parts[tokens.index(max(tokens))]
    chosen = group.answers[largest]
    return SplitRow(
        prefix=PlannedBatch(lengths=(prefix,), answers=(1,), prefix=0),
        suffixes=PlannedBatch(lengths=group.suffixes[largest], answers=chosen, prefix=0),
        whole=PlannedBatch(lengths=group.lengths[largest], answers=chosen, prefix=prefix),
    )


class Activations:
    """Bytes of activations of one architecture as it is trained.

    Args:
        architecture: The backbone's sizes.
        setting: How it is trained.
    """

    def __init__(self, architecture: Architecture, setting: Setting) -> None:
        self._sizes = architecture
        self._setting = setting
        self._copied = _copied_bytes(setting)

    def layer(self, group: PlannedBatch) -> float:
        """Return the bytes that one decoder layer keeps for its backward, without weights."""
        return (
            self._attended(laid_out=group.prefix is not None) * group.tokens
            + self._attention(group)
            + self._fed() * group.tokens
            + _STATISTIC * self._sizes.heads * group.tokens
        )

    def last_layer(self, group: PlannedBatch) -> float:
        """Return the same of the last layer, which in one row feeds on tokens with a loss alone."""
        if group.prefix is None:
            return self.layer(group)
        return (
            self._attended(laid_out=True) * group.tokens
            + self._attention(group, queries=group.predicted)
            + self._fed() * group.predicted
        )

    def kept(self, group: PlannedBatch) -> float:
        """Return the bytes that the whole forward keeps, without weights and without the loss."""
        hidden, width = self._sizes.hidden, self._setting.weight_bytes
        # The rotation's sine and cosine, token ids, the embedding's output and the last norm.
        last_norm = 4 + (0 if self._setting.adapted else width)
        per_token = 2 * self._sizes.head_dim * width + 8 + (last_norm + width) * hidden
        once: float = per_token * group.tokens
        once += self.mask(group)
        if self._setting.gradient_checkpointing:
            return once + self._sizes.layers * hidden * width * group.tokens
        return once + (self._sizes.layers - 1) * self.layer(group) + self.last_layer(group)

    def passing(self, group: PlannedBatch) -> float:
        """Return the most bytes that live only while one layer is computed, in either direction.

        In the backward of a feed-forward block: the gradients of its product, of both factors and
        of two residual streams.
        """
        streams = 2 * self._sizes.hidden * self._setting.weight_bytes
        return (3 * self._sizes.intermediate * self._inside + streams) * group.tokens

    def mask(self, group: PlannedBatch) -> float:
        """Return the bytes of the mask of the longest suffix, where the kernel takes one."""
        if not group.prefix:
            return 0
        width = 2 if self._setting.autocast else self._setting.weight_bytes
        if self._setting.on_gpu and width == 2:
            return 0  # FlashAttention takes none
        return width * max(group.suffixes) * max(group.lengths)

    def split_prefix(self, row: SplitRow) -> float:
        """Return what is kept of the prefix, and its keys' and values' gradients."""
        width = self._setting.attention_bytes
        shared = 2 * self._sizes.layers * self._sizes.key * width * row.prefix.tokens
        # Layers that are computed again keep their inputs alone, but for what the suffixes see.
        beside = shared if self._setting.gradient_checkpointing else 0
        return self.kept(row.prefix) + beside + shared

    def split_suffixes(self, row: SplitRow) -> float:
        """Return what the forward of suffixes keeps for their backward."""
        kept = self.kept(row.suffixes)
        mask = 0.0 if self._keeps_weights else self.mask(row.whole)
        if self._setting.gradient_checkpointing:
            return kept + mask
        layers = (self._sizes.layers - 1) * self._seen(row)
        return kept + mask + layers + self._seen_keys(row)

    def split_layer(self, row: SplitRow) -> float:
        """Return the part of one layer."""
        return self.layer(row.suffixes) + self._seen(row)

    def _attended(self, *, laid_out: bool) -> float:
        """For each token: what leads to queries, keys and values, and from attention's output on.

        The projection of outputs has attention's own output for its input, where that needs no cast
        and no turn.
        """
        output = 0
        if self._learns("o_proj"):
            if self._copied is not None and self._setting.adapted:
                output = self._copied * self._sizes.query
            elif laid_out:
                output = self._setting.compute_bytes * self._sizes.query
        inputs = ("q_proj", "k_proj", "v_proj")
        return self._norm() + self._inputs(*inputs) + output + self._adapters(*inputs, "o_proj")

    def _fed(self) -> float:
        """For each token: what the feed-forward block and its norm keep.

        Gate, its activation, up; and their product as the input of down.
        """
        product = 0
        if self._learns("down_proj"):
            product = self._inside
            if self._setting.adapted:
                product = self._copied or self._inside
        block = self._sizes.intermediate * (3 * self._inside + product)
        inputs = ("gate_proj", "up_proj")
        return self._norm() + self._inputs(*inputs) + block + self._adapters(*inputs, "down_proj")

    def _norm(self) -> float:
        """What a norm normalizes, in 32 bits, and the normalized for the scale's gradient."""
        tuned = 0 if self._setting.adapted else self._setting.weight_bytes
        return self._sizes.hidden * (4 + tuned) + _STATISTIC

    def _inputs(self, *names: str) -> float:
        """Input of the projections that stand behind one norm."""
        count = sum(map(self._learns, names))
        if self._copied is not None:
            return count * self._copied * self._sizes.hidden
        return self._setting.weight_bytes * self._sizes.hidden if count else 0

    def _adapters(self, *names: str) -> float:
        """What lies between the two matrices of each adapter."""
        setting = self._setting
        if not setting.adapted:
            return 0
        width = 2 if setting.autocast else setting.adapter_bytes
        return width * setting.rank * sum(map(self._learns, names))

    def _attention(self, group: PlannedBatch, queries: int | None = None) -> float:
        """Queries, keys, values and outputs as the kernel takes and gives them.

        ``queries`` is their number in a last layer that does not compute all.
        """
        if queries is not None:
            seen = group.seen
        elif group.prefix:
            # Each suffix keeps the shared keys and values once more, beside its own.
            seen = group.tokens + group.seen
        else:
            seen = group.tokens
        own = 2 * self._sizes.query * (group.tokens if queries is None else queries)
        return self._setting.attention_bytes * (own + 2 * self._sizes.key * seen)

    def _seen(self, row: SplitRow) -> float:
        """What a layer keeps since suffixes see a prefix: its keys and values, their weights."""
        keys = self._seen_keys(row)
        if not self._keeps_weights:
            return keys
        weights = sum(map(_attention_weights, row.whole.lengths, row.suffixes.lengths))
        # Instead of the kernel's statistic, four bytes a query.
        of_query = self._setting.attention_bytes * weights - 4 * row.suffixes.tokens
        return keys + self._sizes.heads * of_query

    def _seen_keys(self, row: SplitRow) -> float:
        beside = row.whole.seen - row.suffixes.tokens
        return 2 * self._sizes.key * self._setting.attention_bytes * beside

    def _learns(self, name: str) -> bool:
        """Return whether a projection has a weight, its own or an adapter's, that learns."""
        return name in self._setting.target_modules if self._setting.adapted else True

    @property
    def _inside(self) -> int:
        """Bytes of a number inside the feed-forward block."""
        setting = self._setting
        return setting.weight_bytes if setting.method == "qlora" else setting.compute_bytes

    @property
    def _keeps_weights(self) -> bool:
        """Whether a suffix keeps its attention weights for the backward."""
        return self._setting.attention_bytes > 2


def _copied_bytes(setting: Setting) -> int | None:
    """Return the bytes of an input's copy that each layer makes for itself; ``None`` for none."""
    if setting.adapted and setting.weight_bytes == 2 and setting.precision != "bf16-true":
        # peft casts the input to the adapter's 32 bits, and autocast back to 16.
        return 2 if setting.autocast else 4
    return 2 if setting.mixed else None


def _attention_weights(length: int, suffix: int) -> int:
    """Return the weights of one head, for parts of the queries up to the last of each.

    >>> _attention_weights(1000, 200)  # 128 queries see 928 tokens, 72 see 1,000
    190784
    """
    starts = range(0, suffix, QUERIES_AT_ONCE)
    ends = [min(start + QUERIES_AT_ONCE, suffix) for start in starts]
    return sum(
        (end - start) * (length - suffix + end) for start, end in zip(starts, ends, strict=True)
    )
