"""What the forward keeps for the backward, tensor by tensor.

Counted off transformers' Qwen2 and Llama layers (5.23), torch's kernels (2.13) and peft's adapters
(0.21); ``tests/planning/test_activations.py`` holds it against the tensors that autograd saves.
"""

from __future__ import annotations

from recap.models.architecture import Architecture
from recap.planning.groups import Group
from recap.planning.setting import Setting

_STATISTIC = 4
"""Bytes of a norm's reciprocal root, one a token, and of attention's log-sum-exp, one a head."""


def layer_bytes(architecture: Architecture, setting: Setting, group: Group) -> float:
    """Return the bytes that one decoder layer keeps for its backward, without weights."""
    per_token: float = (
        _norms(architecture, setting)
        + _inputs(architecture, setting, laid_out=group.prefix is not None)
        + _feed_forward(architecture, setting)
        + _adapters(setting)
        + _STATISTIC * (2 + architecture.heads)
    )
    return per_token * group.tokens + _attention(architecture, setting, group)


def kept_bytes(architecture: Architecture, setting: Setting, group: Group) -> float:
    """Return the bytes that the whole forward keeps, without weights and without the loss."""
    hidden = architecture.hidden
    width = setting.weight_bytes
    # The rotation's sine and cosine, token ids, the embedding's output and the last norm.
    last_norm = 4 + (0 if setting.adapted else width)
    per_token = 2 * architecture.head_dim * width + 8 + (last_norm + width) * hidden
    once: float = per_token * group.tokens
    once += _shared_mask(setting, group)
    if setting.gradient_checkpointing:
        return once + architecture.layers * hidden * width * group.tokens
    return once + architecture.layers * layer_bytes(architecture, setting, group)


def passing_bytes(architecture: Architecture, setting: Setting, group: Group) -> float:
    """Return the most bytes that live only while one layer is computed, in either direction.

    In the backward of a feed-forward block: the gradients of its product, of both factors and of
    two residual streams.
    """
    inside = setting.compute_bytes if setting.method != "qlora" else setting.weight_bytes
    streams = 2 * architecture.hidden * setting.weight_bytes
    return (3 * architecture.intermediate * inside + streams) * group.tokens


def _norms(architecture: Architecture, setting: Setting) -> float:
    """Two norms: what they normalise in 32 bits, and the normalised for the scale's gradient."""
    tuned = 0 if setting.adapted else setting.weight_bytes
    return 2 * architecture.hidden * (4 + tuned)


def _copied(setting: Setting) -> int | None:
    """Return the bytes of an input's copy that each layer makes for itself; ``None`` for none."""
    if setting.adapted and setting.weight_bytes == 2 and setting.precision != "bf16-true":
        # peft casts the input to the adapter's 32 bits, and autocast back to 16.
        return 2 if setting.precision.endswith("-mixed") else 4
    return 2 if setting.mixed else None


def _inputs(architecture: Architecture, setting: Setting, *, laid_out: bool) -> float:
    """Inputs of the projections of queries, keys, values, outputs, gates and ups."""
    copied = _copied(setting)
    hidden, query = architecture.hidden, architecture.query
    total = 0.0
    for names in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")):
        count = sum(_learns(name, setting) for name in names)
        if copied is not None:
            total += count * copied * hidden
        elif count:
            total += setting.weight_bytes * hidden
    if _learns("o_proj", setting):
        # Attention's own output serves where it needs neither a cast nor a turn.
        if copied is not None and setting.adapted:
            total += copied * query
        elif laid_out:
            total += setting.compute_bytes * query
    return total


def _feed_forward(architecture: Architecture, setting: Setting) -> float:
    """Gate, its activation, up; and their product as the input of down."""
    inside = setting.weight_bytes if setting.method == "qlora" else setting.compute_bytes
    product = 0
    if _learns("down_proj", setting):
        product = (_copied(setting) or inside) if setting.adapted else inside
    return architecture.intermediate * (3 * inside + product)


def _adapters(setting: Setting) -> float:
    """What lies between the two matrices of each adapter."""
    if not setting.adapted:
        return 0
    width = 2 if setting.precision.endswith("-mixed") else setting.adapter_bytes
    return width * setting.rank * len(setting.target_modules)


def _attention(architecture: Architecture, setting: Setting, group: Group) -> float:
    """Queries, keys, values and outputs as the kernel takes and gives them."""
    query, key = architecture.query, architecture.key
    width = setting.compute_bytes
    if setting.precision.endswith("-mixed"):
        width = 2
    own = 2 * query * group.tokens
    if not group.prefix:
        return width * (own + 2 * key * group.tokens)
    # Each rest keeps the shared keys and values once more, beside its own.
    joined = 2 * key * group.seen
    cast_values = setting.mixed and setting.method == "qlora"
    first_keys = group.prefix if setting.mixed else group.tokens
    first_values = group.prefix if cast_values else group.tokens
    masks = 0
    if setting.mixed:
        # Autocast copies the mask in each layer, for each rest.
        masks = sum(rest * length for rest, length in zip(group.rests, group.lengths, strict=True))
    return width * (own + joined + key * (first_keys + first_values) + masks)


def _shared_mask(setting: Setting, group: Group) -> float:
    if not group.prefix:
        return 0
    return setting.weight_bytes * max(group.rests) * max(group.lengths)


def _learns(name: str, setting: Setting) -> bool:
    """Return whether a projection has a weight, its own or an adapter's, that learns."""
    return name in setting.target_modules if setting.adapted else True
