"""Bytes on one device, by kind and by moment of an optimizer step.

What a forward keeps for its backward is counted off transformers' Qwen2 and Llama layers (5.23),
torch's kernels (2.13) and peft's adapters (0.21); ``tests/plan/test_activations.py`` holds it
against the tensors that autograd saves. On a CPU a row's backward may be split
(:mod:`recap.models.engine.training`): then the prefix is kept, and a few suffixes at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from recap.data.layout import NO_TRUNK, Layout, Span
from recap.models.engine.attention import query_parts
from recap.models.engine.loss import LOGITS_BYTES
from recap.models.engine.training import (
    groups_at_once,
    numbers_saved,
    splitting_pays,
)
from recap.plan.architecture import Architecture, ParameterCounts
from recap.plan.workload import (
    NF4_BYTES,
    OPTIMIZER_BYTES,
    PROJECTIONS,
    SMALL_BYTES,
    PlannedBatch,
    Setting,
)

_FUSED = dict.fromkeys(PROJECTIONS[:3], "qkv_proj") | dict.fromkeys(
    PROJECTIONS[4:6], "gate_up_proj"
)
"""What the matrix is called that some architectures put in the place of several."""

_STATISTIC = 4
"""Bytes of a norm's reciprocal root, one a token, and of attention's log-sum-exp, one a head."""


@dataclass(frozen=True, kw_only=True)
class SplitRow:
    """A row's prefix, and those of its suffixes that are computed together and keep most."""

    prefix: PlannedBatch
    """As a row of its own."""
    suffixes: PlannedBatch
    """As a row of their own, without the prefix."""
    whole: PlannedBatch
    """The same with the prefix, which they see."""


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
        _planned(prefix, group.suffixes),
        layers=architecture.layers,
        numbers=numbers_saved(
            architecture.hidden, architecture.intermediate, again=setting.gradient_checkpointing
        ),
        width=setting.weight_bytes,
        gradient_bytes=setting.tuned_bytes * counts.trainable,
    )
    if not pays:
        return None
    parts = groups_at_once(group.suffixes)
    tokens = [sum(group.suffixes[part]) for part in parts]
    largest = parts[tokens.index(max(tokens))]
    chosen = group.answers[largest]
    return SplitRow(
        prefix=PlannedBatch(lengths=(prefix,), answers=(1,), prefix=0),
        suffixes=PlannedBatch(lengths=group.suffixes[largest], answers=chosen, prefix=0),
        whole=PlannedBatch(lengths=group.lengths[largest], answers=chosen, prefix=prefix),
    )


def _planned(prefix: int, suffixes: tuple[int, ...]) -> Layout:
    """Return a row in which examples share these instructions, and nothing else."""
    trunk = Span(owner=0, parent=NO_TRUNK, seen=0, length=prefix)
    teeth = (Span(owner=i, parent=0, seen=prefix, length=n) for i, n in enumerate(suffixes))
    return Layout(trunks=(trunk,), teeth=tuple(teeth))


class Activations:
    """Bytes of activations of one architecture as it is trained."""

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
        return once + self._sizes.layers * self.layer(group)

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
        return kept + mask + self._sizes.layers * self._seen(row)

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

    def _attention(self, group: PlannedBatch) -> float:
        """Queries, keys, values and outputs as the kernel takes and gives them."""
        # Each suffix keeps the shared keys and values once more, beside its own.
        seen = group.tokens + (group.seen if group.prefix else 0)
        own = 2 * self._sizes.query * group.tokens
        return self._setting.attention_bytes * (own + 2 * self._sizes.key * seen)

    def _seen(self, row: SplitRow) -> float:
        """What a layer keeps since suffixes see a prefix: its keys and values, their weights."""
        beside = row.whole.seen - row.suffixes.tokens
        keys = 2 * self._sizes.key * self._setting.attention_bytes * beside
        if not self._keeps_weights:
            return keys
        weights = sum(map(_attention_weights, row.whole.lengths, row.suffixes.lengths))
        # Instead of the kernel's statistic, four bytes a query.
        of_query = self._setting.attention_bytes * weights - 4 * row.suffixes.tokens
        return keys + self._sizes.heads * of_query

    def _learns(self, name: str) -> bool:
        """Return whether a projection has a weight, its own or an adapter's, that learns."""
        if not self._setting.adapted:
            return True
        return not {name, _FUSED.get(name, name)}.isdisjoint(self._setting.target_modules)

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
    return sum((end - start) * (length - suffix + end) for start, end in query_parts(suffix))


KINDS = ("weights", "gradients", "optimizer", "activations", "logits", "cache", "runtime")
"""What a device's memory is filled with."""

RUNTIME_BYTES = 1 * 2**30
"""What a GPU holds beside tensors: CUDA's context, workspaces, fragments. An allowance of ours."""


_CPU_TEMPORARIES = {"adamw": 0, "adamw8bit": 4, "paged_adamw8bit": 4}
"""Numbers a weight of the largest tensor that a step on a CPU makes in passing: torch's fused AdamW
none (2.13), bitsandbytes four when it unpacks moments of 8 bits (0.50; measured), others two."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one device: ``table[moment][kind]``.

    Moments: the end of the ``forward`` with its loss; the ``backward``; the optimizer's ``step``;
    ``decoding``, the answering of prompts.
    """

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
class DecodedBatch:
    """The largest batch that is decoded."""

    n_examples: int
    prompt: int
    """Tokens of the longest."""
    answer: int
    """Most new tokens."""
    prefix: int = 0
    """Tokens that all prompts begin with and that are kept once."""


def device_memory(
    architecture: Architecture,
    counts: ParameterCounts,
    setting: Setting,
    *,
    group: PlannedBatch,
    decoding: DecodedBatch | None = None,
) -> Memory:
    """Return what one device holds, at each moment, with these largest batches.

    Without a batch that is decoded, that moment is left out.
    """
    parts, table = _Parts(architecture, counts, setting, group), dict[str, dict[str, float]]()
    if setting.method != "none":
        table = {"forward": parts.forward(), "backward": parts.backward(), "step": parts.step()}
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
        self.activations = Activations(architecture, setting)
        self.split = split_row(architecture, counts, setting, group)
        self._share = 1 / setting.n_devices if setting.strategy == "fsdp" else 1.0
        if setting.strategy == "fsdp" and setting.cpu_offload:
            self._share = 0.0

    def forward(self) -> dict[str, float]:
        """Return what is held when the loss is computed: all activations, no new gradients."""
        if self.split is not None:
            return self._suffixes(self.split)[0]
        dropped = self.setting.gradient_checkpointing
        gradients = self._head_gradient()
        if self.setting.accumulates:
            gradients += self._gradients()
        return {
            "weights": self._weights() + self._gathered() + self._copies(kept=not dropped),
            "gradients": gradients,
            "optimizer": self._optimizer(),
            "activations": self.activations.kept(self.group),
            "logits": self._logits(self.group.predicted),
        }

    def _suffixes(self, row: SplitRow) -> list[dict[str, float]]:
        """Return what is held at the loss of a few suffixes, then at their backward's two ends.

        Gradients gather beside those of the step's earlier micro-batches.
        """
        setting = self.setting
        prefix = self.activations.split_prefix(row)
        kept = self.activations.split_suffixes(row)
        passing = self.activations.passing(row.suffixes)
        one_layer = self.activations.split_layer(row)
        again = one_layer if setting.gradient_checkpointing else 0.0
        common = {
            "weights": self._weights() + self._copies(kept=not setting.gradient_checkpointing),
            "gradients": (2 if setting.accumulates else 1) * self._gradients()
            + self._head_gradient(),
            "optimizer": self._optimizer(),
        }
        logits = {"logits": self._logits(row.suffixes.predicted)}
        begins = common | {"activations": prefix + kept + passing + again}
        ends = common | {"activations": prefix + passing + one_layer}
        if not setting.adapted:
            ends["gradients"] += setting.weight_bytes * self.counts.embedding
        return [common | {"activations": prefix + kept} | logits, begins, ends]

    def backward(self) -> dict[str, float]:
        """Return the larger of the backward's two ends; of a split one, of those of either part.

        On the way activations go and gradients come, both evenly, so one of the ends is the peak.
        """
        if self.split is None:
            ends = self._ends(self.group, self.activations.kept(self.group))
        else:
            prefix = self.activations.split_prefix(self.split)
            ends = self._suffixes(self.split)[1:] + self._ends(self.split.prefix, prefix)
        return max(ends, key=lambda held: sum(held.values()))

    def _ends(self, group: PlannedBatch, kept: float) -> list[dict[str, float]]:
        """Return what is held at the begin and at the end of the backward of all that is kept."""
        setting = self.setting
        one_layer = self.activations.layer(group)
        passing = self.activations.passing(group)
        if setting.gradient_checkpointing:
            passing += one_layer
        accumulated = self._gradients() if setting.accumulates else 0.0
        gathered = self._gradients() if self.split is not None else self._head_gradient()
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

    def decoding(self, batch: DecodedBatch) -> dict[str, float]:
        """Return what is held when the last token of the longest prompts is made."""
        sizes, setting = self.architecture, self.setting
        width = setting.attention_bytes
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

    def _logits(self, predicted: int) -> float:
        """A chunk of logits, their log-softmax, and the states with their gradients."""
        setting, sizes = self.setting, self.architecture
        whole = 4 * predicted * sizes.vocabulary
        chunk = min(LOGITS_BYTES["cuda" if setting.on_gpu else "cpu"], whole)
        states = 2 * predicted * sizes.hidden * setting.weight_bytes
        head = 2 * sizes.vocabulary * sizes.hidden if setting.mixed else 0
        return 2 * chunk + states + head
