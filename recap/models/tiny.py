"""The backbone that needs no download: a small Qwen2 and its tokenizer, both made on the spot.

It has the architecture, the tokenizer class, the control tokens and the chat template of Qwen2.5,
at less than a thousandth of the size, and is trained from random weights: what works with it works
with the real ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, get_args

from recap.config import Language

if TYPE_CHECKING:
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer


PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML as Qwen2.5 writes it, without the system message that Qwen2.5 adds of its own accord."""

TASKS = ("binary", "fine_grained", "flat", "annomi_talk")
"""Built-in tasks whose prompts the tokenizer knows."""

DEMO_SIZE = 1600
"""Labeled demo utterances that the tokenizer is built from; more would add no new words."""

BRIEF_WEIGHT, FULL_WEIGHT = 50, 2
"""How often the brief and the full prompts count beside the demo corpus."""

_HAN = "\u3000-\u303f\u3400-\u9fff\uff00-\uffef"
_PIECES = re.compile(f"[{_HAN}]|[^{_HAN}]+")
"""Chinese characters and punctuation one by one, anything else in one piece. No token is learned
across pieces: Chinese has no spaces, and whole phrases of the demo corpus would become tokens."""


@dataclass(frozen=True, kw_only=True)
class TinySizes:
    """Sizes of the tiny model; the defaults make about a million weights."""

    vocabulary: int = 4096
    """Tokens of the vocabulary at most, control tokens apart."""
    hidden: int = 128
    layers: int = 3
    heads: int = 4
    key_value_heads: int = 2
    intermediate: int = 384
    max_positions: int = 8192
    """Longest sequence, in tokens."""


def build_tiny_tokenizer(
    texts: Iterable[str], *, vocabulary: int = TinySizes.vocabulary
) -> Qwen2Tokenizer:
    """Train a byte-level BPE tokenizer on ``texts`` and return it as a ``Qwen2Tokenizer``.

    Normalizer (NFC) and pre-tokenizer are Qwen2's own, since ``AutoTokenizer`` puts those in place
    beside a Qwen2 configuration, whatever ``tokenizer.json`` says (transformers 5.23): so a saved
    folder gives the same ids through ``AutoTokenizer``. The same texts give the same tokenizer in
    every process. Padding is ``<|endoftext|>``; a turn ends with ``<|im_end|>``.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    blank = Qwen2Tokenizer()
    trained = Tokenizer(models.BPE())
    trained.normalizer = blank.backend_tokenizer.normalizer
    trained.pre_tokenizer = blank.backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    trained.train_from_iterator(texts, trainer)
    learned: dict[str, Any] = json.loads(trained.to_str())["model"]
    merges: list[Any] = [tuple(pair) for pair in learned["merges"]]
    return Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=merges,
        eos_token=END,
        pad_token=PAD,
        unk_token=PAD,
        extra_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        model_max_length=TinySizes.max_positions,
    )


def tiny_config(
    *,
    n_tokens: int,
    pad_id: int | None = None,
    end_id: int | None = None,
    sizes: TinySizes | None = None,
) -> Qwen2Config:
    """Return the configuration of the tiny model."""
    from transformers import Qwen2Config

    sizes = sizes or TinySizes()
    return Qwen2Config(
        vocab_size=n_tokens,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.key_value_heads,
        max_position_embeddings=sizes.max_positions,
        tie_word_embeddings=True,
        pad_token_id=pad_id,
        eos_token_id=end_id,
        bos_token_id=None,
    )


def load_tiny(
    *, seed: int, sizes: TinySizes | None = None
) -> tuple[Qwen2ForCausalLM, Qwen2Tokenizer]:
    """Return a tiny model with random weights drawn from ``seed``, and its tokenizer.

    The tokenizer is built once a process; the global random state stays as it was.
    """
    import torch
    from transformers import Qwen2ForCausalLM

    sizes = sizes or TinySizes()
    tokenizer = tiny_tokenizer(sizes.vocabulary)
    config = tiny_config(
        n_tokens=len(tokenizer),
        pad_id=tokenizer.pad_token_id,
        end_id=tokenizer.eos_token_id,
        sizes=sizes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config), tokenizer


@lru_cache(maxsize=2)
def tiny_tokenizer(vocabulary: int = TinySizes.vocabulary) -> Qwen2Tokenizer:
    """Return the tokenizer of the tiny backbone, built from :func:`tiny_texts`.

    Every caller in a process shares it: do not change it.
    """
    return build_tiny_tokenizer(tiny_texts(), vocabulary=vocabulary)


def tiny_texts() -> Iterator[str]:
    """Yield what the tiny tokenizer is made of: demo corpus and prompts, never user data."""
    from recap.data.demo import demo_texts

    for text in demo_texts(language="both", size=DEMO_SIZE):
        yield from _PIECES.findall(text)
    yield from prompt_texts()


def prompt_texts() -> Iterator[str]:
    """Yield the prompts and answers of every built-in task: Chinese, English, brief and full.

    The brief prompt and the labels come often enough for each of their words to become a token.
    """
    from recap.records import Answer, Example, Turn
    from recap.tasks.library import builtin_task

    turns = (Turn(speaker="counselor", text=""), Turn(speaker="client", text=""))
    example = Example(id="prompt", history=turns, response="")
    for name in TASKS:
        for language in get_args(Language):
            brief = builtin_task(name, language=language, style="brief")
            full = builtin_task(name, language=language, style="full")
            texts = [message.text for message in brief.messages(example)]
            texts += [brief.render(Answer(label=label, rationale="")) for label in brief.labels]
            yield from texts * BRIEF_WEIGHT
            for message in full.messages(example):
                yield from _PIECES.findall(message.text) * FULL_WEIGHT
