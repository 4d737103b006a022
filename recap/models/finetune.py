"""How a model is tuned: which of its weights, by which optimizer, under which schedule and rate."""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from recap.config import FinetuneMethod, OptimizerConfig, SchedulerConfig
from recap.errors import ConfigError, did_you_mean
from recap.models.hub import silence_bitsandbytes
from recap.registry import Registry

METHODS = get_args(FinetuneMethod)

_ROUTERS = ("gate", "router", "shared_expert_gate")

_PEFT_PREFIX = "base_model.model."
"""What peft puts before the names of a model that it wraps."""


def apply_finetune(
    model: Any,
    *,
    method: str,
    rank: int = 8,
    alpha: float = 16,
    dropout: float = 0.0,
    target_modules: Sequence[str] | None = None,
    seed: int = 0,
) -> Any:
    """Return the model, changed in place, with exactly those weights trainable that are tuned.

    ``full``: every weight; ``lora``: adapters through ``peft``, scaled by ``alpha / rank`` (paper:
    a rank of 8), the rest frozen; ``qlora``: the same over a model that was loaded in 4 bits;
    ``none``: nothing. Adapters stand beside the layers called ``target_modules``, by default all
    :func:`projections`; ``seed`` is that of their first weights, and the global random state is
    left alone.

    Raises:
        ConfigError: When the method is unknown, no layer has one of the names, or ``qlora`` meets a
            model that is not in 4 bits.
    """
    if method not in METHODS:
        raise ConfigError(
            f"there is no finetune.method {method!r}{did_you_mean(method, METHODS)}; "
            f"known: {', '.join(METHODS)}"
        )
    if method in ("full", "none"):
        return model.requires_grad_(method == "full")
    if method == "qlora" and not getattr(model, "is_loaded_in_4bit", False):
        raise ConfigError(
            "finetune.method=qlora needs a model in 4 bits; "
            "load it with load_backbone(quantize=True), or use lora"
        )
    targets = _targets(model, target_modules)
    silence_bitsandbytes()
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # a scale; peft divides it by the rank
        lora_dropout=dropout,
        target_modules=targets,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config)
    config.target_modules = sorted(targets)  # a set is written in any order
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if is_adapter_weight(name) and not weight.is_meta:
                weight.copy_(draw_adapter(name, weight, seed))
    return adapted


def plain_name(name: str) -> str:
    """Return the name that a weight of an adapted model has without adapters."""
    return name.removeprefix(_PEFT_PREFIX).replace(".base_layer.", ".")


def is_adapter_weight(name: str) -> bool:
    """Return whether a parameter of that name is a factor of an adapter of a linear layer."""
    return ".lora_A." in name or ".lora_B." in name


def draw_adapter(name: str, like: Tensor, seed: int) -> Tensor:
    """Return the first value of an adapter's factor, the same in whatever order factors are drawn.

    The distributions are peft's own (0.21): the first factor uniform within 1 / sqrt(fan in), the
    second zero, so that an adapter changes nothing to begin with. The parameter's name and the seed
    make the random numbers; the values of ``like``, and whether it has any, do not matter.
    """
    if ".lora_B." in name:
        return torch.zeros(like.shape, dtype=like.dtype)
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
    bound = like.shape[1] ** -0.5
    drawn = torch.empty(like.shape).uniform_(-bound, bound, generator=generator)
    return drawn.to(like.dtype)


def checkpoint_gradients(model: Any) -> None:
    """Have every layer computed again in the backward: the same gradients, less memory.

    Without re-entrance, so that a frozen embedding below adapters needs no gradient of its own, and
    layers meet the very arguments again that they met first.
    """
    with warnings.catch_warnings():
        # transformers 5.23 announces another name for this method, which earlier releases lack.
        warnings.simplefilter("ignore", FutureWarning)
        causal_model(model).gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False}
        )


def causal_model(model: Any) -> Any:
    """Return the causal language model out of a PEFT wrapper; the adapters stay in place."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class OutputLayer:
    """The output layer of a causal language model, with what its architecture does to logits.

    Granite divides them (``logits_scaling``), Cohere multiplies (``logit_scale``), Gemma 2 bounds
    them (``final_logit_softcapping``).

    Attributes:
        layer: Takes states ``(..., hidden)``, which are to be multiplied by ``scale`` before.
        cap: What no logit's magnitude exceeds; ``None`` without a bound.
    """

    def __init__(self, model: Any) -> None:
        causal = causal_model(model)
        config = causal.config
        self.layer = causal.get_output_embeddings()
        scale = getattr(config, "logit_scale", None) or 1.0
        self.scale = scale / (getattr(config, "logits_scaling", None) or 1.0)
        self.cap: float | None = getattr(config, "final_logit_softcapping", None)

    def __call__(self, states: Tensor) -> Tensor:
        """Return the logits ``(..., vocabulary)`` of last hidden states ``(..., hidden)``."""
        logits: Tensor = self.layer(states * self.scale if self.scale != 1 else states)
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


def is_adapted(model: Any) -> bool:
    """Return whether a model carries adapters beside frozen weights."""
    return hasattr(model, "peft_config")


def projections(model: Any) -> list[str]:
    """Return the names of the matrices in a model's layers, as QLoRA adapts them (section 4).

    Those of attention and feed-forward blocks, fused or not, and of shared experts; what routes
    tokens to experts stays as it is, as do experts that are kept in one tensor.
    """
    layers = model.get_decoder().layers
    names = (name for name, module in layers.named_modules() if isinstance(module, nn.Linear))
    last = dict.fromkeys(name.rpartition(".")[2] for name in names)
    return [name for name in last if name not in _ROUTERS]


def _targets(model: Any, asked: Sequence[str] | None) -> list[str]:
    """Return the layers that get adapters; peft would pass over a misspelt one in silence."""
    targets = list(asked or projections(model))
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    for target in targets:
        if target not in names:
            raise ConfigError(
                f"finetune.target_modules: the model has no layer {target!r}"
                f"{did_you_mean(target, names)}; name a layer of the model"
            )
    return targets


ParameterGroups = list[dict[str, Any]]
OPTIMIZERS: Registry[Callable[..., Optimizer]] = Registry("optimizer")
SCHEDULERS: Registry[Callable[..., LRScheduler]] = Registry("scheduler")


def build_optimizer(model: nn.Module, settings: OptimizerConfig) -> Optimizer:
    """Return the optimizer over a model's trainable weights."""
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    matrices = [weight for weight in trainable if weight.ndim >= 2]
    vectors = [weight for weight in trainable if weight.ndim < 2]
    groups: ParameterGroups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return OPTIMIZERS.get(settings.name)(
        [group for group in groups if group["params"]],
        learning_rate=settings.learning_rate,
        betas=settings.betas,
        eps=settings.eps,
    )


def build_scheduler(
    optimizer: Optimizer, settings: SchedulerConfig, *, n_steps: int
) -> LRScheduler:
    """Return the schedule over ``n_steps`` optimizer steps, to be advanced after each."""
    n_warmup_steps = math.ceil(settings.warmup_fraction * n_steps)
    return SCHEDULERS.get(settings.name)(optimizer, n_steps=n_steps, n_warmup_steps=n_warmup_steps)


def configured_optimizers(
    model: nn.Module, optimizer: OptimizerConfig, scheduler: SchedulerConfig, *, n_steps: int
) -> dict[str, Any]:
    """Return what Lightning's ``configure_optimizers`` returns: one schedule, moved every step."""
    built = build_optimizer(model, optimizer)
    schedule = build_scheduler(built, scheduler, n_steps=n_steps)
    return {"optimizer": built, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@OPTIMIZERS.register("adamw")
def adamw(
    groups: ParameterGroups, *, learning_rate: float, betas: tuple[float, float], eps: float
) -> Optimizer:
    """Return torch's AdamW over parameter groups that carry their own weight decay, fused."""
    built: Any = AdamW(groups, lr=learning_rate, betas=betas, eps=eps, fused=True)
    # Else a fused one divides by the scale of 16 bits in its step, too late to clip gradients, and
    # Lightning (2.6) refuses to, whether there is a scale or not.
    built._step_supports_amp_scaling = False
    optimizer: Optimizer = built
    return optimizer


def _bitsandbytes(kind: str) -> Callable[..., Optimizer]:
    """Return what builds an AdamW of bitsandbytes (0.50).

    With 8 bits, moments go by blocks of 256, but tensors of fewer than 4,096 weights keep them in
    32 bits. Paged moments are moved to the host by a GPU whose memory runs out.
    """

    def build(
        groups: ParameterGroups, *, learning_rate: float, betas: tuple[float, float], eps: float
    ) -> Optimizer:
        from bitsandbytes.optim import adamw as bitsandbytes

        build: Callable[..., Optimizer] = getattr(bitsandbytes, kind)
        return build(groups, lr=learning_rate, betas=betas, eps=eps)

    return build


OPTIMIZERS.register("adamw8bit")(_bitsandbytes("AdamW8bit"))
OPTIMIZERS.register("paged_adamw8bit")(_bitsandbytes("PagedAdamW8bit"))
OPTIMIZERS.register("paged_adamw32bit")(_bitsandbytes("PagedAdamW32bit"))


def _schedule(fall: Callable[[float], float]) -> Callable[..., LRScheduler]:
    """Return what builds a linear warm-up, and then ``fall`` of the share of steps behind it."""

    def build(optimizer: Optimizer, *, n_steps: int, n_warmup_steps: int) -> LRScheduler:
        def factor(step: int) -> float:
            if step < n_warmup_steps:
                return step / n_warmup_steps
            return fall(min(1.0, (step - n_warmup_steps) / max(1, n_steps - n_warmup_steps)))

        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    return build


# Half a cosine down to zero, a straight line down to zero, and a rate that stays.
SCHEDULERS.register("cosine")(_schedule(lambda done: 0.5 * (1.0 + math.cos(math.pi * done))))
SCHEDULERS.register("linear")(_schedule(lambda done: 1.0 - done))
SCHEDULERS.register("constant")(_schedule(lambda done: 1.0))
