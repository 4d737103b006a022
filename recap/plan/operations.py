"""Floating-point operations of a training, multiplications and additions counted apart.

A matrix product costs two for each weight and token; attention four for each pair of a query and a
key it may see and each unit of their width. The backward of a layer whose weights are tuned costs
twice its forward, that of a frozen one once (Kaplan et al. 2020, section 2.1; Hu et al. 2022).
Softmax, norms, rotations and the optimizer's step, under a percent together, are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from recap.plan.architecture import Architecture, ParameterCounts
from recap.plan.workload import PlannedBatch, Setting


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What groups amount to together."""

    tokens: int
    """Computed tokens."""
    pairs: int
    """Pairs of a query and a key that it sees."""
    predicted: int
    """Tokens with a loss."""
    fed: int
    """Tokens that reach the last layer's feed-forward block."""
    last_pairs: int
    """Pairs of a query and a key in the last layer."""


def add_up(groups: Iterable[PlannedBatch]) -> Totals:
    """Return the totals of micro-batches."""
    listed = list(groups)
    return Totals(
        **{
            field.name: sum(getattr(group, field.name) for group in listed)
            for field in fields(Totals)
        }
    )


def forward_operations(
    architecture: Architecture, counts: ParameterCounts, totals: Totals
) -> float:
    """Return the operations of one forward with the loss over tokens and pairs."""
    adapters = 2.0 * counts.adapters * totals.tokens
    head = 2.0 * architecture.hidden * architecture.vocabulary * totals.predicted
    matrices = _matrices(architecture, counts, totals)
    return matrices + adapters + head + _attention(architecture, totals)


def training_operations(
    architecture: Architecture, counts: ParameterCounts, setting: Setting, totals: Totals
) -> float:
    """Return the operations of a forward and backward over tokens and pairs."""
    frozen = setting.adapted
    matrices = _matrices(architecture, counts, totals)
    adapters = 2.0 * counts.adapters * totals.tokens
    attention = _attention(architecture, totals)
    head = 2.0 * architecture.hidden * architecture.vocabulary * totals.predicted
    again = matrices + adapters + attention if setting.gradient_checkpointing else 0.0
    weights = (2 if frozen else 3) * (matrices + head)
    return weights + 3 * (adapters + attention) + again


def decoding_operations(
    architecture: Architecture,
    counts: ParameterCounts,
    examples: Iterable[tuple[int, int]],
    *,
    prefix: int = 0,
) -> float:
    """Return the operations of answering prompts one token at a time, with a cache.

    The tokens of labels that are tried behind each prompt are not counted.

    Args:
        architecture: The backbone's sizes.
        counts: Its parameters.
        examples: Tokens of each prompt and of its answer.
        prefix: Tokens that all prompts begin with and that are computed once.
    """
    shared = prefix * (prefix + 1) // 2
    once = Totals(tokens=prefix, pairs=shared, predicted=0, fed=prefix, last_pairs=shared)
    total = forward_operations(architecture, counts, once)
    for prompt, answer in examples:
        length = prompt + answer
        own, pairs = length - prefix, length * (length + 1) // 2 - shared
        totals = Totals(tokens=own, pairs=pairs, predicted=answer, fed=own, last_pairs=pairs)
        total += forward_operations(architecture, counts, totals)
    return total


def _matrices(architecture: Architecture, counts: ParameterCounts, totals: Totals) -> float:
    """Products with the layers' matrices; the last layer feeds on fewer tokens in one row."""
    block = 3 * architecture.hidden * architecture.intermediate
    spared = block * (totals.tokens - totals.fed)
    return 2.0 * (counts.layer_matrices * totals.tokens - spared)


def _attention(architecture: Architecture, totals: Totals) -> float:
    pairs = (architecture.layers - 1) * totals.pairs + totals.last_pairs
    return 4.0 * architecture.query * pairs
