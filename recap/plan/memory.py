"""Bytes on one device, by kind and by moment of an optimizer step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recap.models.engine.loss import LOGITS_BYTES
from recap.plan.activations import Activations, SplitRow, split_row
from recap.plan.architecture import Architecture, ParameterCounts
from recap.plan.workload import NF4_BYTES, OPTIMIZER_BYTES, SMALL_BYTES, PlannedBatch, Setting

KINDS = ("weights", "gradients", "optimizer", "activations", "logits", "cache", "runtime")
"""What a device's memory is filled with."""

RUNTIME_BYTES = 1 * 2**30
"""What a GPU holds beside tensors: CUDA's context, workspaces, fragments. An allowance of ours."""


_CPU_TEMPORARIES = {"adamw8bit": 4, "paged_adamw8bit": 4}
"""Numbers a weight of the largest tensor that a step on a CPU makes in passing: torch's AdamW two
(2.13), bitsandbytes four when it unpacks moments of 8 bits (0.50; measured)."""


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

    def as_dict(self) -> dict[str, Any]:
        """Return the table with the totals and the peak, as plain values."""
        moments = {m: {**held, "total": self.total(m)} for m, held in self.table.items()}
        return {"moments": moments, "peak_moment": self.peak_moment, "peak_bytes": self.peak}


@dataclass(frozen=True, kw_only=True)
class DecodedBatch:
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
    decoding: DecodedBatch | None = None,
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
