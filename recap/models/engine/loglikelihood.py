"""Loglikelihoods of given tokens, and whether greedy decoding would give exactly them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recap.models.engine.generate import evaluating
from recap.models.engine.kv_cache import shared_length
from recap.models.engine.loss import LOGITS_BYTES
from recap.models.finetune import causal_model

_WORTH_SHARING = 16
"""Common tokens from which they are encoded once."""


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

    Tokens that all of them begin with are encoded once.

    Args:
        model: A ``transformers`` causal language model, or a PEFT model around one.
        requests: Each with at least one token to score.
        batch_size: Passages computed together.
        on_scored: Called with how many more are done.
    """
    if not requests:
        return []
    causal = causal_model(model)
    shared = shared_length(requests[0].ids, [p.ids for p in requests])
    shared = min(shared, *(p.start - 1 for p in requests))
    shared = shared if shared >= _WORTH_SHARING and len(requests) > 1 else 0
    order = sorted(range(len(requests)), key=lambda i: -len(requests[i].ids))
    found: dict[int, Loglikelihood] = {}
    with evaluating(causal), torch.no_grad():
        cache = _encoded(causal, requests[0].ids[:shared]) if shared else None
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            scored = _score_batch(causal, [requests[i] for i in chosen], shared, cache)
            found.update(zip(chosen, scored, strict=True))
            on_scored(len(chosen))
    return [found[i] for i in range(len(requests))]


def _encoded(causal: Any, ids: Sequence[int]) -> Any:
    """Return the keys and values of tokens."""
    row = torch.tensor([list(ids)], device=causal.device)
    return causal.get_decoder()(input_ids=row, use_cache=True).past_key_values


def _score_batch(
    causal: Any, requests: Sequence[LoglikelihoodRequest], shared: int, cache: Any
) -> Iterator[Loglikelihood]:
    rows = [list(request.ids[shared:]) for request in requests]
    time = max(map(len, rows))
    # Padding on the right comes after all that counts, and attention is causal.
    ids = torch.tensor([row + [0] * (time - len(row)) for row in rows], device=causal.device)
    options: dict[str, Any] = {"use_cache": False}
    if cache is not None:
        own = copy.deepcopy(cache)
        own.batch_repeat_interleave(len(rows))
        whole = torch.ones((len(rows), shared + time), dtype=torch.long, device=ids.device)
        options = {"past_key_values": own, "attention_mask": whole, "use_cache": True}
    states = causal.get_decoder()(input_ids=ids, **options).last_hidden_state
    for row, request, state in zip(rows, requests, states, strict=True):
        first = request.start - shared
        targets = torch.tensor(row[first:], device=ids.device)
        yield _loglikelihood(causal, state[first - 1 : len(row) - 1], targets)


def _loglikelihood(causal: Any, states: Tensor, targets: Tensor) -> Loglikelihood:
    """Return the loglikelihood of targets ``(n,)`` that states ``(n, hidden)`` predict."""
    head = causal.get_output_embeddings()
    n_bytes = LOGITS_BYTES.get(states.device.type, LOGITS_BYTES["cuda"])
    at_once = max(1, n_bytes // (4 * int(causal.config.vocab_size)))
    nats, greedy = 0.0, True
    for part, wanted in zip(
        torch.split(states, at_once), torch.split(targets, at_once), strict=True
    ):
        scores = head(part).float().log_softmax(dim=-1)
        nats -= float(scores.gather(1, wanted[:, None]).sum())
        greedy = greedy and bool((scores.argmax(dim=-1) == wanted).all())
    return Loglikelihood(log_perplexity=nats, greedy=greedy)
