"""Encoders of a few thousand weights, saved as real ones are: what loads them loads the real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = (
    "counselor client : yes no i will try that never helps why how are you what then good bad "
    "it is all their fault maybe later fine . ? ! , [ ] cls sep pad < > / s"
)


def word_tokenizer(style: str) -> Any:
    """Return a tokenizer of whole words, with BERT's or RoBERTa's marks."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    marks = {
        "bert": {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
        "roberta": {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"},
    }[style]
    vocabulary = {word: i for i, word in enumerate([*marks.values(), *WORDS.split()])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=marks["unk"]))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    names = {f"{name}_token": mark for name, mark in marks.items()}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **names)


def save_encoder(folder: Path, style: str, *, body_only: bool = True) -> Path:
    """Save an encoder with random weights, without a head unless ``body_only`` is false."""
    import torch
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        BertModel,
        RobertaConfig,
        RobertaForSequenceClassification,
        RobertaModel,
    )

    tokenizer = word_tokenizer(style)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "pad_token_id": tokenizer.pad_token_id,
        "num_labels": 5,
    }
    torch.manual_seed(0)
    if style == "bert":
        config: Any = BertConfig(max_position_embeddings=64, **sizes)
        model: Any = (BertModel if body_only else BertForSequenceClassification)(config)
    else:
        config = RobertaConfig(max_position_embeddings=66, type_vocab_size=1, **sizes)
        model = (RobertaModel if body_only else RobertaForSequenceClassification)(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
