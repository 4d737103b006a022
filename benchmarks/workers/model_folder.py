"""Writes the random model that all systems load: a small Qwen2 in Qwen2.5-0.5B's proportions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def write_model(
    folder: Path, *, vocabulary: int, hidden: int, layers: int, own_head: bool = False
) -> None:
    """Write model and tokenizer in Hugging Face's format, random from a seed.

    With an ``own_head`` the output layer is untied and scaled: tied to random embeddings, a model
    repeats one token whatever it is given, and equal answers prove nothing.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from recap.models.backbone import tiny_tokenizer

    config: Any = Qwen2Config
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        config(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=hidden * 11 // 2,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=16384,
            tie_word_embeddings=not own_head,
        )
    )
    if own_head:
        torch.nn.init.normal_(model.lm_head.weight, std=1.0)
    tokenizer = tiny_tokenizer()
    model.config.bos_token_id = None
    model.config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    write_model(
        Path(spec["folder"]),
        vocabulary=spec["vocabulary"],
        hidden=spec["hidden"],
        layers=spec["layers"],
        own_head=spec.get("own_head", False),
    )
    Path(spec["result"]).write_text("{}", encoding="utf-8")
