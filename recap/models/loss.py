"""Cross-entropy over the tokens of the answers, computed only where there is one.

Prompts are far longer than answers, and the logits of a whole sequence over a vocabulary of 150
thousand are the largest tensor of a training step. Hidden states are therefore gathered at the
positions that predict an answer token before the output layer is applied.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from recap.data.batches import Batch


def causal_model(model: Any) -> Any:
    """Return the causal language model out of a PEFT wrapper; the adapters stay in place."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def answer_loss(model: Any, batch: Batch) -> Tensor:
    """Return the negative log-likelihood of all answer tokens of a batch, a float32 scalar in nats.

    The sum, not a mean: what to divide by is the number of answer tokens of the whole optimiser
    step, which the batch's plan knows. Zero, with a gradient of zeros, for a filler.

    Args:
        model: A ``transformers`` causal language model, or a PEFT model around one.
        batch: Right-padded rows. No attention mask is needed: padding comes after every token that
            counts, and attention is causal, which also lets the fastest kernels be used.
    """
    causal = causal_model(model)
    hidden = causal.get_decoder()(input_ids=batch.input_ids, use_cache=False).last_hidden_state
    # The state at position t predicts the token at t + 1.
    predicts_answer = batch.answer_mask[:, 1:]
    states = hidden[:, :-1][predicts_answer]
    targets = batch.input_ids[:, 1:][predicts_answer]
    logits = causal.get_output_embeddings()(states)
    with torch.autocast(device_type=logits.device.type, enabled=False):
        return cross_entropy(logits.float(), targets, reduction="sum")
