"""Bytes on one device, by kind and by moment of an optimizer step.

What the forward keeps for the backward, tensor by tensor.

Counted off transformers' Qwen2 and Llama layers (5.23), torch's kernels (2.13) and peft's adapters
(0.21); ``tests/plan/test_activations.py`` holds it against the tensors that autograd saves.

A row in two phases (:mod:`recap.models.engine.two_phase`): when, and what the forward keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recap.data.batches import Layout
from recap.models.architecture import Architecture, ParameterCounts
from recap.models.engine.loss import LOGITS_BYTES
from recap.models.engine.two_phase import QUERIES_AT_ONCE, numbers_kept, phases_pay, rests_at_once
from recap.plan.workload import NF4_BYTES, OPTIMIZER_BYTES, SMALL_BYTES, PlannedBatch, Setting

_STATISTIC = 4
"""Bytes of a norm's reciprocal root, one a token, and of attention's log-sum-exp, one a head."""


def layer_bytes(architecture: Architecture, setting: Setting, group: PlannedBatch) -> float:
    """Return the bytes that one decoder layer keeps for its backward, without weights."""
    laid_out = group.prefix is not None
    return (
        _attended(architecture, setting, laid_out=laid_out) * group.tokens
        + _attention(architecture, setting, group)
        + _fed(architecture, setting) * group.tokens
        + _STATISTIC * architecture.heads * group.tokens
    )


def last_layer_bytes(architecture: Architecture, setting: Setting, group: PlannedBatch) -> float:
    """Return the same of the last layer, which in one row feeds on the tokens with a loss alone."""
    if group.prefix is None:
        return layer_bytes(architecture, setting, group)
    return (
        _attended(architecture, setting, laid_out=True) * group.tokens
        + _attention(architecture, setting, group, asked=group.predicted)
        + _fed(architecture, setting) * group.predicted
    )


def kept_bytes(architecture: Architecture, setting: Setting, group: PlannedBatch) -> float:
    """Return the bytes that the whole forward keeps, without weights and without the loss."""
    hidden = architecture.hidden
    width = setting.weight_bytes
    # The rotation's sine and cosine, token ids, the embedding's output and the last norm.
    last_norm = 4 + (0 if setting.adapted else width)
    per_token = 2 * architecture.head_dim * width + 8 + (last_norm + width) * hidden
    once: float = per_token * group.tokens
    once += shared_mask_bytes(setting, group)
    if setting.gradient_checkpointing:
        return once + architecture.layers * hidden * width * group.tokens
    layers = (architecture.layers - 1) * layer_bytes(architecture, setting, group)
    return once + layers + last_layer_bytes(architecture, setting, group)


def passing_bytes(architecture: Architecture, setting: Setting, group: PlannedBatch) -> float:
    """Return the most bytes that live only while one layer is computed, in either direction.

    In the backward of a feed-forward block: the gradients of its product, of both factors and of
    two residual streams.
    """
    inside = setting.compute_bytes if setting.method != "qlora" else setting.weight_bytes
    streams = 2 * architecture.hidden * setting.weight_bytes
    return (3 * architecture.intermediate * inside + streams) * group.tokens


def _attended(architecture: Architecture, setting: Setting, *, laid_out: bool) -> float:
    """For each token: what leads to queries, keys and values, and from attention's output on."""
    inputs = _inputs(architecture, setting, ("q_proj", "k_proj", "v_proj"))
    output = _output_input(architecture, setting, laid_out=laid_out)
    names = ("q_proj", "k_proj", "v_proj", "o_proj")
    return _norm(architecture, setting) + inputs + output + _adapters(setting, names)


def _fed(architecture: Architecture, setting: Setting) -> float:
    """For each token: what the feed-forward block and its norm keep."""
    inputs = _inputs(architecture, setting, ("gate_proj", "up_proj"))
    block = _feed_forward(architecture, setting)
    names = ("gate_proj", "up_proj", "down_proj")
    return _norm(architecture, setting) + inputs + block + _adapters(setting, names)


def _norm(architecture: Architecture, setting: Setting) -> float:
    """What a norm normalizes, in 32 bits, and the normalized for the scale's gradient."""
    tuned = 0 if setting.adapted else setting.weight_bytes
    return architecture.hidden * (4 + tuned) + _STATISTIC


def _copied(setting: Setting) -> int | None:
    """Return the bytes of an input's copy that each layer makes for itself; ``None`` for none."""
    if setting.adapted and setting.weight_bytes == 2 and setting.precision != "bf16-true":
        # peft casts the input to the adapter's 32 bits, and autocast back to 16.
        return 2 if setting.precision.endswith("-mixed") else 4
    return 2 if setting.mixed else None


def _inputs(architecture: Architecture, setting: Setting, names: tuple[str, ...]) -> float:
    """Input of the projections that stand behind one norm."""
    copied, count = _copied(setting), sum(_learns(name, setting) for name in names)
    if copied is not None:
        return count * copied * architecture.hidden
    return setting.weight_bytes * architecture.hidden if count else 0


def _output_input(architecture: Architecture, setting: Setting, *, laid_out: bool) -> float:
    """Input of the projection of outputs: attention's own, where it needs no cast and no turn."""
    copied = _copied(setting)
    if not _learns("o_proj", setting):
        return 0
    if copied is not None and setting.adapted:
        return copied * architecture.query
    return setting.compute_bytes * architecture.query if laid_out else 0


def _feed_forward(architecture: Architecture, setting: Setting) -> float:
    """Gate, its activation, up; and their product as the input of down."""
    inside = setting.weight_bytes if setting.method == "qlora" else setting.compute_bytes
    product = 0
    if _learns("down_proj", setting):
        product = (_copied(setting) or inside) if setting.adapted else inside
    return architecture.intermediate * (3 * inside + product)


def _adapters(setting: Setting, names: tuple[str, ...]) -> float:
    """What lies between the two matrices of each adapter."""
    if not setting.adapted:
        return 0
    width = 2 if setting.precision.endswith("-mixed") else setting.adapter_bytes
    return width * setting.rank * sum(_learns(name, setting) for name in names)


def _attention(
    architecture: Architecture, setting: Setting, group: PlannedBatch, asked: int | None = None
) -> float:
    """Queries, keys, values and outputs as the kernel takes and gives them.

    ``asked`` is the number of queries of a last layer that computes those alone.
    """
    query, key = architecture.query, architecture.key
    width = setting.compute_bytes
    if setting.precision.endswith("-mixed"):
        width = 2
    own = (query * (asked if asked is not None else group.tokens)) * 2
    if asked is not None:
        return width * (own + 2 * key * group.seen)
    if not group.prefix:
        return width * (own + 2 * key * group.tokens)
    # Each rest keeps the shared keys and values once more, beside its own.
    return width * (own + 2 * key * (group.tokens + group.seen))


def shared_mask_bytes(setting: Setting, group: PlannedBatch) -> float:
    """Return the bytes of the mask of the longest rest, where the kernel takes one."""
    if not group.prefix:
        return 0
    width = 2 if setting.precision.endswith("-mixed") else setting.weight_bytes
    if setting.on_gpu and width == 2:
        return 0  # FlashAttention takes none
    return width * max(group.rests) * max(group.lengths)


def _learns(name: str, setting: Setting) -> bool:
    """Return whether a projection has a weight, its own or an adapter's, that learns."""
    return name in setting.target_modules if setting.adapted else True


@dataclass(frozen=True, kw_only=True)
class Phases:
    """A row's prefix, and those of its rests that are computed together and keep most.

    Attributes:
        prefix: As a row of its own.
        rests: As a row of their own, without the prefix.
        behind: The same with the prefix, which they see.
    """

    prefix: PlannedBatch
    rests: PlannedBatch
    behind: PlannedBatch


def phases_of(
    architecture: Architecture, counts: ParameterCounts, setting: Setting, group: PlannedBatch
) -> Phases | None:
    """Return the phases of a micro-batch; ``None`` where it is computed at once."""
    prefix = group.prefix
    if setting.on_gpu or setting.strategy == "fsdp" or not prefix:
        return None
    group = _by_length(group)
    pay = phases_pay(
        Layout(prefix=prefix, lengths=group.rests),
        layers=architecture.layers,
        numbers=numbers_kept(
            architecture.hidden, architecture.intermediate, again=setting.gradient_checkpointing
        ),
        width=setting.weight_bytes,
        gradient_bytes=setting.tuned_bytes * counts.trainable,
    )
    if not pay:
        return None
    parts = {part.start: part for part in rests_at_once(group.rests)}
    largest = parts[max(parts, key=lambda start: sum(group.rests[parts[start]]))]
    answers = group.answers[largest]
    return Phases(
        prefix=PlannedBatch(lengths=(prefix,), answers=(1,), prefix=0),
        rests=PlannedBatch(lengths=group.rests[largest], answers=answers, prefix=0),
        behind=PlannedBatch(lengths=group.lengths[largest], answers=answers, prefix=prefix),
    )


def _by_length(group: PlannedBatch) -> PlannedBatch:
    """Return a group as its row is laid out, from short to long."""
    pairs = sorted(zip(group.lengths, group.answers, strict=True))
    lengths, answers = (tuple(each) for each in zip(*pairs, strict=True))
    return PlannedBatch(lengths=lengths, answers=answers, prefix=group.prefix)


def prefix_bytes(architecture: Architecture, setting: Setting, phases: Phases) -> float:
    """Return what is kept of the prefix, and its keys' and values' gradients."""
    shared = 2 * architecture.layers * architecture.key * _width(setting) * phases.prefix.tokens
    # Layers that are computed again keep their inputs alone, but for what the rests see of them.
    beside = shared if setting.gradient_checkpointing else 0
    return kept_bytes(architecture, setting, phases.prefix) + beside + shared


def rests_bytes(architecture: Architecture, setting: Setting, phases: Phases) -> float:
    """Return what the forward of rests keeps for their backward."""
    kept = kept_bytes(architecture, setting, phases.rests)
    mask = 0.0 if _keeps_weights(setting) else shared_mask_bytes(setting, phases.behind)
    if setting.gradient_checkpointing:
        return kept + mask
    layers = (architecture.layers - 1) * _seen_bytes(architecture, setting, phases)
    return kept + mask + layers + _keys_bytes(architecture, setting, phases)


def rests_layer_bytes(architecture: Architecture, setting: Setting, phases: Phases) -> float:
    """Return the part of one layer."""
    own = layer_bytes(architecture, setting, phases.rests)
    return own + _seen_bytes(architecture, setting, phases)


def _seen_bytes(architecture: Architecture, setting: Setting, phases: Phases) -> float:
    """What one layer keeps since rests see a prefix: its keys and values, and their weights."""
    keys = _keys_bytes(architecture, setting, phases)
    if not _keeps_weights(setting):
        return keys
    weights = sum(map(_weights, phases.behind.lengths, phases.rests.lengths))
    # Instead of the kernel's statistic, four bytes a query.
    of_query = _width(setting) * weights - 4 * phases.rests.tokens
    return keys + architecture.heads * of_query


def _keys_bytes(architecture: Architecture, setting: Setting, phases: Phases) -> float:
    beside = phases.behind.seen - phases.rests.tokens
    return 2 * architecture.key * _width(setting) * beside


def _weights(length: int, rest: int) -> int:
    """Return the weights of one head, for parts of the queries up to the last of each.

    >>> _weights(1000, 200)  # 128 queries see 928 tokens, 72 see 1,000
    190784
    """
    starts = range(0, rest, QUERIES_AT_ONCE)
    ends = [min(start + QUERIES_AT_ONCE, rest) for start in starts]
    return sum(
        (end - start) * (length - rest + end) for start, end in zip(starts, ends, strict=True)
    )


def _keeps_weights(setting: Setting) -> bool:
    return _width(setting) > 2


def _width(setting: Setting) -> int:
    return 2 if setting.precision.endswith("-mixed") else setting.compute_bytes


KINDS = ("weights", "gradients", "optimizer", "activations", "logits", "cache", "runtime")
"""What a device's memory is filled with."""

MOMENTS = ("forward", "backward", "step", "decoding")
"""The end of the forward with its loss; the backward; the optimizer's step; answering prompts."""

RUNTIME_BYTES = 1 * 2**30
"""What a GPU holds beside tensors: CUDA's context, workspaces, fragments. An allowance of ours."""


_CPU_TEMPORARIES = {"adamw8bit": 4, "paged_adamw8bit": 4}
"""Numbers a weight of the largest tensor that a step on a CPU makes in passing: torch's AdamW two
(2.13), bitsandbytes four when it unpacks moments of 8 bits (0.50; measured)."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one device: ``table[moment][kind]``."""

    table: Mapping[str, Mapping[str, float]]

    def total(self, moment: str) -> float:
        """Return all bytes at one moment."""
        return sum(self.table[moment].values())

    @property
    def peak_moment(self) -> str:
        """The moment at which most is held."""
        return max(self.table, key=self.total)

    @property
    def peak(self) -> float:
        """Most bytes at once."""
        return self.total(self.peak_moment)


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """The largest batch that is decoded.

    Attributes:
        n_examples: Prompts at once.
        prompt: Tokens of the longest.
        answer: Most new tokens.
        prefix: Tokens that all prompts begin with and that are kept once.
    """

    n_examples: int
    prompt: int
    answer: int
    prefix: int = 0


def device_memory(
    architecture: Architecture,
    counts: ParameterCounts,
    setting: Setting,
    *,
    group: PlannedBatch,
    decoding: Decoding | None = None,
) -> Memory:
    """Return what one device holds, at each moment.

    Args:
        architecture: The backbone's sizes.
        counts: Its parameters under ``setting.method``.
        setting: How it is trained.
        group: The largest micro-batch.
        decoding: The largest batch that is decoded; ``None`` leaves that moment out.
    """
    parts = _Parts(architecture, counts, setting, group)
    table: dict[str, dict[str, float]] = {}
    if setting.method != "none":
        table = {
            "forward": parts.forward(),
            "backward": parts.backward(),
            "step": parts.step(),
        }
    if decoding is not None:
        table["decoding"] = parts.decoding(decoding)
    runtime = RUNTIME_BYTES if setting.on_gpu else 0
    return Memory(
        table={
            moment: {kind: held.get(kind, 0.0) for kind in KINDS} | {"runtime": float(runtime)}
            for moment, held in table.items()
        }
    )


class _Parts:
    """The terms of one device's memory."""

    def __init__(
        self,
        architecture: Architecture,
        counts: ParameterCounts,
        setting: Setting,
        group: PlannedBatch,
    ) -> None:
        self.architecture, self.counts = architecture, counts
        self.setting, self.group = setting, group
        self.phases = phases_of(architecture, counts, setting, group)
        self._share = 1 / setting.n_devices if setting.strategy == "fsdp" else 1.0
        if setting.strategy == "fsdp" and setting.cpu_offload:
            self._share = 0.0

    def forward(self) -> dict[str, float]:
        """Return what is held when the loss is computed: all activations, no new gradients."""
        if self.phases is not None:
            return self._rests(self.phases)[0]
        dropped = self.setting.gradient_checkpointing
        gradients = self._head_gradient()
        if self.setting.accumulates:
            gradients += self._gradients()
        return {
            "weights": self._weights() + self._gathered() + self._copies(kept=not dropped),
            "gradients": gradients,
            "optimizer": self._optimizer(),
            "activations": self._kept(),
            "logits": self._logits(self.group.predicted),
        }

    def _rests(self, phases: Phases) -> list[dict[str, float]]:
        """Return what is held when a few rests' loss is computed, then their backward's two ends.

        Gradients gather beside those of the step's earlier micro-batches.
        """
        sizes, setting = self.architecture, self.setting
        prefix = prefix_bytes(sizes, setting, phases)
        kept = rests_bytes(sizes, setting, phases)
        passing = passing_bytes(sizes, setting, phases.rests)
        one_layer = rests_layer_bytes(sizes, setting, phases)
        again = one_layer if setting.gradient_checkpointing else 0.0
        common = {
            "weights": self._weights() + self._copies(kept=not setting.gradient_checkpointing),
            "gradients": (2 if setting.accumulates else 1) * self._gradients()
            + self._head_gradient(),
            "optimizer": self._optimizer(),
        }
        logits = {"logits": self._logits(phases.rests.predicted)}
        begins = common | {"activations": prefix + kept + passing + again}
        ends = common | {"activations": prefix + passing + one_layer}
        if not setting.adapted:
            ends["gradients"] += setting.weight_bytes * self.counts.embedding
        return [common | {"activations": prefix + kept} | logits, begins, ends]

    def backward(self) -> dict[str, float]:
        """Return the larger of the backward's two ends; in two phases, of those of either.

        On the way activations go and gradients come, both evenly, so one of the ends is the peak.
        """
        if self.phases is None:
            ends = self._ends(self.group, self._kept())
        else:
            prefix = prefix_bytes(self.architecture, self.setting, self.phases)
            ends = self._rests(self.phases)[1:] + self._ends(self.phases.prefix, prefix)
        return max(ends, key=lambda held: sum(held.values()))

    def _ends(self, group: PlannedBatch, kept: float) -> list[dict[str, float]]:
        """Return what is held at the begin and at the end of the backward of all that is kept."""
        setting = self.setting
        one_layer = layer_bytes(self.architecture, setting, group)
        passing = passing_bytes(self.architecture, setting, group)
        if setting.gradient_checkpointing:
            passing += one_layer
        accumulated = self._gradients() if setting.accumulates else 0.0
        gathered = self._gradients() if self.phases is not None else self._head_gradient()
        common = {"optimizer": self._optimizer()}
        weights = self._weights() + self._gathered()
        copies = self._copies(kept=not setting.gradient_checkpointing)
        begins = common | {
            "weights": weights + copies,
            "gradients": accumulated + gathered,
            "activations": kept + passing,
        }
        ends = common | {
            "weights": weights,
            "gradients": self._gradients() + self._embedding_gradient() + self._unreduced(),
            "activations": passing if setting.gradient_checkpointing else passing + one_layer,
        }
        return [begins, ends]

    def step(self) -> dict[str, float]:
        """Return what is held while the optimizer steps; fused kernels of GPUs need no room."""
        temporaries = 0.0
        if not self.setting.on_gpu:
            numbers = _CPU_TEMPORARIES.get(self.setting.optimizer, 2)
            temporaries = numbers * self.setting.tuned_bytes * self.counts.largest_trainable
        return {
            "weights": self._weights(),
            "gradients": self._gradients(),
            "optimizer": self._optimizer() + temporaries,
        }

    def decoding(self, batch: Decoding) -> dict[str, float]:
        """Return what is held when the last token of the longest prompts is made."""
        sizes, setting = self.architecture, self.setting
        width = 2 if setting.precision.endswith("-mixed") else setting.compute_bytes
        prompts = batch.n_examples * (batch.prompt - batch.prefix)
        cached = batch.prefix + prompts + batch.n_examples * batch.answer
        inside = (3 * sizes.intermediate + 2 * sizes.query) * width
        return {
            "weights": self._weights() + self._gathered() + self._copies(kept=False),
            # Lightning moves the optimizer's state off a GPU when a training ends (2.6.6).
            "optimizer": 0.0 if setting.on_gpu else self._optimizer(),
            "activations": prompts * (inside + 3 * sizes.hidden * setting.weight_bytes),
            "logits": batch.n_examples * sizes.vocabulary * (4 + width),
            "cache": 2 * sizes.layers * sizes.key * width * cached,
        }

    def _weights(self) -> float:
        counts, setting = self.counts, self.setting
        plain = counts.embedding + counts.head + counts.vectors
        matrices = NF4_BYTES if setting.method == "qlora" else setting.weight_bytes
        adapters = setting.adapter_bytes * counts.adapters
        whole = setting.weight_bytes * plain + matrices * counts.layer_matrices + adapters
        return self._share * whole

    def _gathered(self) -> float:
        """What ``fsdp`` has gathered whole: two layers, and what is outside of layers."""
        counts, setting = self.counts, self.setting
        if setting.strategy != "fsdp":
            return 0.0
        layers = 2 * counts.layer_matrices / self.architecture.layers
        return setting.weight_bytes * (counts.embedding + counts.head + layers)

    def _copies(self, *, kept: bool) -> float:
        """Autocast's 16-bit copies of matrices: of all layers or, where none are kept, of one.

        The backward needs them, so that under ``fsdp`` too every device holds those of all layers,
        unless layers are computed again. Lightning switches autocast's own cache off (2.6.6). A
        matrix in 4 bits is unpacked while it is used.
        """
        counts, setting = self.counts, self.setting
        matrices: float = counts.layer_matrices
        one = matrices / self.architecture.layers
        if setting.method == "qlora":
            return setting.compute_bytes * one / 3
        if not setting.mixed:
            return 0.0
        held = matrices if kept else one
        return 2 * (held + counts.adapters)

    def _gradients(self) -> float:
        return self._share * self.setting.tuned_bytes * self.counts.trainable

    def _head_gradient(self) -> float:
        """The output layer's gradient, which is made with the loss."""
        if self.setting.adapted:
            return 0.0
        counts = self.counts
        return float(self.setting.weight_bytes * (counts.head or counts.embedding))

    def _embedding_gradient(self) -> float:
        """A tied embedding's gradient is made dense before it joins the output layer's."""
        if self.setting.adapted or (self.counts.head and not self.setting.accumulates):
            return 0.0
        return float(self.setting.weight_bytes * self.counts.embedding)

    def _unreduced(self) -> float:
        """Gradients that ``fsdp`` has not cut into shares yet: outside of layers, and of one."""
        if self.setting.strategy != "fsdp" or self.setting.adapted:
            return 0.0
        one_layer = self.counts.layer_matrices / self.architecture.layers
        return self.setting.weight_bytes * (self.counts.embedding + self.counts.head + one_layer)

    def _optimizer(self) -> float:
        per_weight = OPTIMIZER_BYTES.get(self.setting.optimizer, OPTIMIZER_BYTES["adamw"])
        small = self.counts.small if per_weight < SMALL_BYTES else 0
        state = per_weight * (self.counts.trainable - small) + SMALL_BYTES * small
        return self._share * state

    def _kept(self) -> float:
        return kept_bytes(self.architecture, self.setting, self.group)

    def _logits(self, predicted: int) -> float:
        """A chunk of logits, their log-softmax, and the states with their gradients."""
        setting, sizes = self.setting, self.architecture
        whole = 4 * predicted * sizes.vocabulary
        chunk = min(LOGITS_BYTES["cuda" if setting.on_gpu else "cpu"], whole)
        states = 2 * predicted * sizes.hidden * setting.weight_bytes
        head = 2 * sizes.vocabulary * sizes.hidden if setting.mixed else 0
        return 2 * chunk + states + head


def as_dict(memory: Memory) -> dict[str, Any]:
    """Return the table with the totals and the peak, as plain values."""
    moments = {
        moment: {**held, "total": memory.total(moment)} for moment, held in memory.table.items()
    }
    return {"moments": moments, "peak_moment": memory.peak_moment, "peak_bytes": memory.peak}
