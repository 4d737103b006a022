"""Cross-entropy over the tokens of the answers, computed only where there is one.

Prompts are far longer than answers, and the logits of a whole sequence over a vocabulary of 150
thousand are the largest tensor of a training step. Hidden states are therefore gathered at the
positions that predict an answer token before the output layer is applied, and that layer is applied
to a few positions at a time, so that their logits never exist whole either.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint

from recap.data.batches import Batch, Batching, MicroBatch, collate
from recap.data.encode import EncodedExample
from recap.errors import ConfigError
from recap.models.engine.attention import TESTED, Row, attach, run_row, why_unsupported
from recap.models.engine.generate import evaluating
from recap.models.finetune import OutputLayer, causal_model


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchingChoice:
    """How batches are laid out, and why not as they would best be (empty when they are)."""

    batching: Batching
    reason: str = ""


def choose_batching(model: Any, requested: str = "auto") -> BatchingChoice:
    """Return how batches for a model are laid out.

    Args:
        model: A ``transformers`` causal language model, or a PEFT model around one.
        requested: ``auto`` takes the fastest that is exact: ``trunk``, or ``packed``, or
            ``padded``. Any of these three is taken as it is, or refused.

    Raises:
        ConfigError: When what was requested would not be exact for this model.
    """
    causal = causal_model(model)
    not_shared, not_packed = _why_not_shared(causal), _why_not_packed(causal)
    if requested == "padded" or (requested == "auto" and not_shared and not_packed):
        return BatchingChoice(batching="padded", reason=not_packed if requested == "auto" else "")
    if requested == "packed" or (requested == "auto" and not_shared):
        if not_packed:
            raise ConfigError(f"batching=packed: {not_packed}; set batching=padded")
        return BatchingChoice(batching="packed", reason=not_shared if requested == "auto" else "")
    if not_shared:
        other = "padded" if not_packed else "packed"
        raise ConfigError(f"batching=trunk: {not_shared}; set batching={other}")
    return BatchingChoice(batching="trunk")


LOGITS_BYTES = {"cpu": 32 * 2**20, "cuda": 512 * 2**20}
"""Size of the logits that exist at once, in float32. More gains no speed: on a GPU it takes more
positions until the gradient of the output layer is worth its traffic."""


def hidden_states(model: Any, batch: Batch) -> Tensor:
    """Return the last hidden states ``(batch, time, hidden)`` of a batch, whatever its layout.

    Args:
        model: A ``transformers`` causal language model, or a PEFT model around one.
        batch: Padded rows or one row of several examples.

    Raises:
        ConfigError: When the batch shares a prefix and the model cannot.
    """
    causal = causal_model(model)
    decoder = causal.get_decoder()
    options: dict[str, Any] = {}
    if batch.layout is not None:
        assert batch.position_ids is not None
        not_shared = _why_not_shared(causal)
        if not not_shared:
            attach(decoder)
            ids, positions = batch.input_ids, batch.position_ids
            return run_row(decoder, Row(batch.layout), input_ids=ids, position_ids=positions)
        if batch.layout.trunks:
            raise ConfigError(f"batching=trunk: {not_shared}; set batching=packed")
        # transformers finds from the positions where examples begin, and masks (5.23).
        options = {"position_ids": batch.position_ids}
    states: Tensor = decoder(
        input_ids=batch.input_ids, use_cache=False, **options
    ).last_hidden_state
    return states


def predicting_states(model: Any, batch: Batch) -> Tensor:
    """Return the last hidden states ``(positions, hidden)`` that predict the answers' tokens.

    The state at a position predicts the token after it. That also holds within a row of several
    examples: each has a last prompt token of its own before its answer.

    Raises:
        ConfigError: When the batch shares a prefix and the model cannot.
    """
    return hidden_states(model, batch)[:, :-1][batch.answer_mask[:, 1:]]


def answer_loss(model: Any, batch: Batch, *, logits_bytes: int | None = None) -> Tensor:
    """Return the negative log-likelihood of all answer tokens of a batch, a scalar in nats.

    The sum, not a mean: what to divide by is the number of answer tokens of the whole optimizer
    step, which the batch's plan knows. Zero, with a gradient of zeros, for a filler. In float32,
    in float64 for a model in float64.

    Args:
        model: A ``transformers`` causal language model, or a PEFT model around one.
        batch: Rows padded on the right or one row of several examples. Padded rows need no
            attention mask: padding comes after every token that counts, and attention is causal,
            which also lets the fastest kernels be used.
        logits_bytes: Most bytes of logits at once; ``None`` for :data:`LOGITS_BYTES`.
    """
    states = predicting_states(model, batch)
    targets = batch.input_ids[batch.answer_mask]
    return loss_of_states(model, states, targets, logits_bytes=logits_bytes)


def loss_of_states(
    model: Any, states: Tensor, targets: Tensor, *, logits_bytes: int | None = None
) -> Tensor:
    """Return the same of last hidden states that predict tokens.

    Args:
        model: As in :func:`answer_loss`.
        states: ``(positions, hidden)``.
        targets: ``(positions,)``, the token that follows each.
        logits_bytes: As in :func:`answer_loss`.
    """
    head = OutputLayer(model)
    n_positions = _positions_at_once(causal_model(model), states, logits_bytes)
    if type(head.layer) is torch.nn.Linear and head.cap is None:
        scaled = states * head.scale if head.scale != 1 else states
        loss: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
            scaled,
            head.layer.weight,
            head.layer.bias,
            targets,
            n_positions,
            torch.is_grad_enabled(),
        )
        return loss
    parts = zip(torch.split(states, n_positions), torch.split(targets, n_positions), strict=True)
    # An adapted, quantized or bounded output layer: its logits are made again in the backward.
    losses = [checkpoint(_cross_entropy, head, *part, use_reentrant=False) for part in parts]
    return torch.stack(losses).sum()


def _positions_at_once(causal: Any, states: Tensor, logits_bytes: int | None = None) -> int:
    if logits_bytes is None:
        logits_bytes = LOGITS_BYTES.get(states.device.type, LOGITS_BYTES["cuda"])
    return max(1, logits_bytes // (4 * int(causal.config.vocab_size)))


def _cross_entropy(head: Any, states: Tensor, targets: Tensor) -> Tensor:
    logits = head(states)
    with torch.autocast(device_type=logits.device.type, enabled=False):
        return cross_entropy(_at_least_float32(logits), targets, reduction="sum")


def scaled_gradients(ctx: Any, scale: Tensor) -> list[Tensor | None]:
    """Return the gradients that a forward made and kept in its context, times ``scale``.

    Only once, since it changes them in place.
    """
    gradients, ctx.gradients = ctx.gradients, None
    if gradients is None:
        raise RuntimeError("the backward of this loss has run; compute the loss again")
    return [None if gradient is None else gradient.mul_(scale) for gradient in gradients]


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy behind a linear layer, whose gradients are made with the loss itself.

    The gradient of the logits is known as soon as they are, so nothing is kept of them or computed
    again in the backward, which only scales.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        n_positions: int,
        learning: bool,
    ) -> Tensor:
        """Return the loss of ``states`` ``(positions, hidden)`` against ``targets``."""
        device = states.device.type
        dtype = states.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        wanted = [learning and needed for needed in ctx.needs_input_grad[:3]]
        gradients = [
            torch.zeros_like(tensor) if want and tensor is not None else None
            for want, tensor in zip(wanted, (states, weight, bias), strict=True)
        ]
        with torch.autocast(device_type=device, enabled=False):
            layer = weight.to(dtype), None if bias is None else bias.to(dtype)
            loss = states.new_zeros((), dtype=torch.promote_types(dtype, torch.float32))
            for start in range(0, len(targets), n_positions):
                part = slice(start, start + n_positions)
                loss += _add_gradients(
                    states[part].to(dtype), layer, targets[part], gradients, part
                )
        ctx.gradients = gradients
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, scale: Tensor) -> Any:
        """Return the gradients times ``scale``."""
        return *scaled_gradients(ctx, scale), None, None, None


def _add_gradients(
    states: Tensor,
    layer: tuple[Tensor, Tensor | None],
    targets: Tensor,
    gradients: list[Tensor | None],
    part: slice,
) -> Tensor:
    """Return the loss of a few positions, and add its gradients by states, weight and bias."""
    weight, bias = layer
    scores = _at_least_float32(linear(states, weight, bias)).log_softmax(dim=-1)
    target = targets[:, None]
    loss = -scores.gather(1, target).sum()
    of_states, of_weight, of_bias = gradients
    if of_states is None and of_weight is None and of_bias is None:
        return loss
    # Softmax less the one-hot target, in the place of the scores.
    slope = scores.exp_().scatter_add_(1, target, scores.new_full(target.shape, -1.0))
    slope = slope.to(states.dtype)
    if of_states is not None:
        of_states[part] = slope @ weight
    if of_weight is not None and of_weight.dtype == slope.dtype:
        of_weight.addmm_(slope.T, states)
    elif of_weight is not None:
        of_weight += slope.T @ states
    if of_bias is not None:
        of_bias += slope.sum(dim=0)
    return loss


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


@dataclass(frozen=True, kw_only=True, slots=True)
class LoglikelihoodRequest:
    """Tokens, of which those from ``start`` on are scored; ``start`` is at least 1."""

    ids: tuple[int, ...]
    start: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Loglikelihood:
    """How likely a model holds the tokens that are asked for.

    ``log_perplexity``: minus the logarithm of the probability of the tokens from ``start`` on,
    given those before, in nats (their sum, as in Carlini et al. 2019, not a mean). ``greedy``:
    whether each of them is the likeliest one, so that greedy decoding gives exactly them.
    """

    log_perplexity: float
    greedy: bool


def loglikelihoods(
    model: Any,
    requests: Sequence[LoglikelihoodRequest],
    *,
    batch_size: int = 16,
    on_scored: Callable[[int], None] = lambda n: None,
) -> list[Loglikelihood]:
    """Return the loglikelihood of each request, in their order.

    Tokens that those of a batch begin with are encoded once.

    Args:
        model: A ``transformers`` causal language model, or a PEFT model around one.
        requests: Each with at least one token to score.
        batch_size: Passages computed together.
        on_scored: Called with how many more are done.
    """
    causal = causal_model(model)
    prefix = {"trunk": 1, "packed": 0}.get(choose_batching(causal).batching)
    examples = [
        EncodedExample(
            id="", prompt=request.ids[: request.start], answer=request.ids[request.start :]
        )
        for request in requests
    ]
    order = sorted(range(len(requests)), key=lambda i: requests[i].ids)
    found: dict[int, Loglikelihood] = {}
    with evaluating(causal), torch.no_grad():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            plan = MicroBatch(indices=tuple(chosen), step_tokens=1, number=0, ends_step=True)
            # Padding on the right comes after all that counts, and attention is causal.
            batch = collate(examples, plan, 0, prefix).to(causal.device)
            lengths = [len(examples[i].answer) for i in chosen]
            states = torch.split(predicting_states(causal, batch), lengths)
            targets = torch.split(batch.input_ids[batch.answer_mask], lengths)
            found.update(
                zip(chosen, map(partial(_loglikelihood, causal), states, targets), strict=True)
            )
            on_scored(len(chosen))
    return [found[i] for i in range(len(requests))]


def _loglikelihood(causal: Any, states: Tensor, targets: Tensor) -> Loglikelihood:
    """Return the loglikelihood of targets ``(n,)`` that states ``(n, hidden)`` predict."""
    head = OutputLayer(causal)
    at_once = _positions_at_once(causal, states)
    nats, greedy = 0.0, True
    for part, wanted in zip(
        torch.split(states, at_once), torch.split(targets, at_once), strict=True
    ):
        scores = head(part).float().log_softmax(dim=-1)
        nats -= float(scores.gather(1, wanted[:, None]).sum())
        greedy = greedy and bool((scores.argmax(dim=-1) == wanted).all())
    return Loglikelihood(log_perplexity=nats, greedy=greedy)


def _why_not_shared(causal: Any) -> str:
    """Return why a prefix cannot be shared exactly; empty when it can."""
    not_served = why_unsupported(causal)
    if not_served:
        return not_served
    if any(layer.self_attn.attention_dropout for layer in causal.get_decoder().layers):
        return "shared tokens would share the model's attention dropout (its attention_dropout)"
    return ""


def _why_not_packed(causal: Any) -> str:
    """Return why several examples in one row would see each other; empty when they do not."""
    family = causal.config.model_type
    kinds = set(getattr(causal.config, "layer_types", None) or ())
    decoder = causal.get_decoder()
    masked_by_positions = (
        getattr(decoder, "_supports_attention_backend", False)
        and "position_ids" in inspect.signature(decoder.forward).parameters
        # Layers that carry a state from token to token do not look at positions.
        and kinds <= {"full_attention", "sliding_attention"}
        and (kinds or family in TESTED)
    )
    if masked_by_positions:
        return ""
    return f"models of type {family!r} are not known to keep the examples of a row apart"
