"""Memory of one loss and its gradients: a whole vocabulary's logits, or recap's chunks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from harness.measure import Meter
from harness.workload import examples, workload_of
from recap.data.batches import MicroBatch, collate
from recap.data.encode import EncodedExample
from recap.models.engine.loss import answer_loss


def run(spec: dict[str, Any]) -> None:
    """Compute loss and gradients of one micro-batch, and write a result.

    The model is embedding, norm and output layer alone, the embedding frozen: what remains is what
    the loss takes.
    """
    work = workload_of(spec["workload"])
    config: Any = Qwen2Config
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        config(
            vocab_size=work.vocabulary,
            hidden_size=256,
            intermediate_size=256,
            num_hidden_layers=0,
            num_attention_heads=4,
            tie_word_embeddings=False,
        )
    )
    model.get_input_embeddings().requires_grad_(False)
    drawn = examples(work)
    encoded = [
        EncodedExample(id=str(i), prompt=each.prompt, answer=each.answer)
        for i, each in enumerate(drawn)
    ]
    plan = MicroBatch(indices=tuple(range(len(encoded))), step_tokens=1, number=0, ends_step=True)
    batch = collate(encoded, plan, pad_id=0)
    labels = batch.input_ids.masked_fill(~batch.answer_mask, -100)
    n_answer = int(batch.answer_mask.sum())
    meter = Meter()
    meter.load_ends()
    meter.start()
    if spec["variant"] == "chunked":
        loss = answer_loss(model, batch) / n_answer
    else:
        loss = model(input_ids=batch.input_ids, labels=labels).loss
    loss.backward()
    meter.step()
    meter.note(
        loss=float(loss.detach()),
        gradient_norm=float(torch.linalg.vector_norm(model.lm_head.weight.grad)),
    )
    meter.write(spec["result"])


if __name__ == "__main__":
    run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
