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
    laid_out = group.prefix is not None
    return (
        _attended(architecture, setting, laid_out=laid_out) * group.tokens
        + _attention(architecture, setting, group)
        + _fed(architecture, setting) * group.tokens
        + _STATISTIC * architecture.heads * group.tokens
    )


def last_layer_bytes(architecture: Architecture, setting: Setting, group: Group) -> float:
    """Return the same of the last layer, which in one row feeds on the tokens with a loss alone."""
    if group.prefix is None:
        return layer_bytes(architecture, setting, group)
    return (
        _attended(architecture, setting, laid_out=True) * group.tokens
        + _attention(architecture, setting, group, asked=group.predicted)
        + _fed(architecture, setting) * group.predicted
    )


def kept_bytes(architecture: Architecture, setting: Setting, group: Group) -> float:
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


def passing_bytes(architecture: Architecture, setting: Setting, group: Group) -> float:
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
    """What a norm normalises, in 32 bits, and the normalised for the scale's gradient."""
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
    architecture: Architecture, setting: Setting, group: Group, asked: int | None = None
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


def shared_mask_bytes(setting: Setting, group: Group) -> float:
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
