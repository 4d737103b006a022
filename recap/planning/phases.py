"""A row in two phases (:mod:`recap.models.two_phase`): when, and what the forward keeps of each."""

from __future__ import annotations

from dataclasses import dataclass

from recap.data.batches import Layout
from recap.models.architecture import Architecture, ParameterCounts
from recap.models.behind_prefix import QUERIES_AT_ONCE
from recap.models.two_phase import numbers_kept, phases_pay, rests_at_once
from recap.planning.activations import kept_bytes, layer_bytes, shared_mask_bytes
from recap.planning.groups import Group
from recap.planning.setting import Setting


@dataclass(frozen=True, kw_only=True)
class Phases:
    """A row's prefix, and those of its rests that are computed together and keep most.

    Attributes:
        prefix: As a row of its own.
        rests: As a row of their own, without the prefix.
        behind: The same with the prefix, which they see.
    """

    prefix: Group
    rests: Group
    behind: Group


def phases_of(
    architecture: Architecture, counts: ParameterCounts, setting: Setting, group: Group
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
        prefix=Group(lengths=(prefix,), answers=(1,), prefix=0),
        rests=Group(lengths=group.rests[largest], answers=answers, prefix=0),
        behind=Group(lengths=group.lengths[largest], answers=answers, prefix=prefix),
    )


def _by_length(group: Group) -> Group:
    """Return a group as its row is laid out, from short to long."""
    pairs = sorted(zip(group.lengths, group.answers, strict=True))
    lengths, answers = (tuple(each) for each in zip(*pairs, strict=True))
    return Group(lengths=lengths, answers=answers, prefix=group.prefix)


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
