"""Which choices cannot go together, found before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator

from recap.config import RunConfig, weights_dtype
from recap.errors import ConfigError

BITSANDBYTES_OPTIMIZERS = ("adamw8bit", "paged_adamw8bit", "paged_adamw32bit")
"""On a GPU their kernels take gradients of 32 and 16 bits only (bitsandbytes 0.50)."""

USUAL_WEIGHT = 0.02
"""Standard deviation that Qwen2 and Llama draw their matrices with (``initializer_range``)."""

_MANTISSA_BITS = {"bfloat16": 8, "float16": 11}
"""Significant bits, the implied one among them."""


def check_combinations(config: RunConfig) -> None:
    """Refuse what cannot work together.

    Raises:
        ConfigError: With one line for every fault, each naming what to set instead.
    """
    issues = [
        *_quantized(config),
        *_optimizer(config),
        *_weights(config),
        *_untrained(config),
        *_spread(config),
    ]
    if issues:
        raise ConfigError("\n".join(issues))


def vanishing_update(dtype: str, weight: float = USUAL_WEIGHT) -> float:
    """Return the largest change of a weight that rounding to the nearest undoes.

    Half the distance between the numbers of that type around the weight. AdamW changes a weight by
    about the learning rate a step, so below this a weight of that size never moves.

    Args:
        dtype: ``bfloat16`` or ``float16``.
        weight: Magnitude of the weight, at most 1 and not subnormal.
    """
    return _distance(dtype, weight) / 2


def _distance(dtype: str, weight: float) -> float:
    exponent = 0
    while 2.0**exponent > weight:
        exponent -= 1
    return float(2.0 ** (exponent + 1 - _MANTISSA_BITS[dtype]))


def _quantized(config: RunConfig) -> Iterator[str]:
    if config.finetune.method != "qlora":
        return
    backbone, precision = config.backbone, config.trainer.precision
    if backbone.path is None and backbone.hub_id is None:
        yield (
            f"finetune=qlora: backbone {backbone.name!r} is made on the spot, and only weights "
            "that are loaded are quantized; set finetune=lora, or a backbone with weights "
            "(backbone=qwen0_5b, backbone.path=FOLDER)"
        )
    if precision == "64-true":
        yield (
            "finetune=qlora: 4-bit weights are multiplied in 16 or 32 bits, never in "
            "trainer.precision=64-true; set trainer.precision=32-true or finetune=lora"
        )


def _optimizer(config: RunConfig) -> Iterator[str]:
    name, trainer = config.optimizer.name, config.trainer
    on_cpu = trainer.accelerator == "cpu"
    if name in BITSANDBYTES_OPTIMIZERS and trainer.precision == "64-true" and not on_cpu:
        yield (
            f"optimizer.name={name}: on a GPU bitsandbytes has no step for the gradients of "
            "trainer.precision=64-true; set optimizer=adamw, trainer.precision=32-true or "
            "trainer=cpu"
        )


def _weights(config: RunConfig) -> Iterator[str]:
    """Find weights whose updates would be rounded away, or that a precision cannot train."""
    dtype, precision = _tuned_dtype(config), config.trainer.precision
    if dtype not in _MANTISSA_BITS:
        return
    if precision == "16-mixed":
        yield (
            "trainer.precision=16-mixed scales gradients of float32 weights, not of "
            f"backbone.dtype={dtype}; set backbone.dtype=float32"
        )
    rate, lost = config.optimizer.learning_rate, vanishing_update(dtype)
    if rate < lost and not config.optimizer.find_learning_rate:
        yield (
            f"optimizer.learning_rate={rate:g} is too small for weights in {dtype}: with "
            f"{_MANTISSA_BITS[dtype]} bits of mantissa a weight of {USUAL_WEIGHT} has a step of "
            f"{2 * lost:.1e}, and a change of about {rate:g} is below half of it and rounds "
            "away; set backbone.dtype=float32, and trainer.precision=bf16-mixed to compute in "
            "bfloat16 over such master weights"
        )


def _tuned_dtype(config: RunConfig) -> str:
    """Return the type in which the tuned weights are kept from step to step."""
    # peft keeps adapters in float32 beside a backbone of 16 bits (0.21).
    adapted = config.finetune.method in ("lora", "qlora", "none")
    return weights_dtype(config.trainer.precision, "float32" if adapted else config.backbone.dtype)


def _untrained(config: RunConfig) -> Iterator[str]:
    if config.finetune.method == "none" and config.cv.fold == "final":
        yield (
            "finetune=none trains nothing, so there is no final model; set cv.fold=all to score "
            "the backbone, or another finetune"
        )
    if config.finetune.method == "none" and config.optimizer.find_learning_rate:
        yield (
            "finetune=none trains nothing, so there is no learning rate to find; set "
            "optimizer.find_learning_rate=false, or another finetune"
        )


def _spread(config: RunConfig) -> Iterator[str]:
    """Find what does not hold for weights that are spread over devices."""
    trainer, name = config.trainer, config.optimizer.name
    if trainer.strategy != "fsdp":
        if trainer.cpu_offload:
            yield "trainer.cpu_offload=true belongs to trainer.strategy=fsdp; set that, or false"
        return
    if config.finetune.method == "qlora":
        yield (
            "finetune=qlora: weights in 4 bits cannot be spread over devices, and fit one; set "
            "trainer=ddp for a copy on every device, or finetune=lora"
        )
    if name in BITSANDBYTES_OPTIMIZERS:
        yield (
            f"optimizer.name={name}: its moments in blocks cannot be spread over devices; set "
            "optimizer=adamw, or trainer=ddp"
        )
    if trainer.precision == "16-mixed":
        yield (
            "trainer.precision=16-mixed: the scale of its gradients is not shared by devices that "
            "hold shares of the weights; set trainer.precision=bf16-mixed"
        )
