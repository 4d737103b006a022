"""Folders in Hugging Face's format with shrunk, random models of the families that recap loads.

Tokenizer classes, control tokens, chat templates and file names are those of Qwen2.5-Instruct and
Llama-3.1-Instruct; only sizes differ. So what works here works with downloaded weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

CORPUS = [
    "Counselor: It sounds as if that week has been very hard for you. What was it like?",
    "Client: I don't know. You keep asking me that, and nothing changes anyway.",
    "Behavior: Arguing - Challenging\nReason: The client doubts what the counselor said.",
    "Behavior: Collaboration\nReason: The client answers the question openly.",
    "咨询师：听起来这一周对你来说很不容易。来访者：我不知道，你总是这样问我。",
    "Decide what the client's last utterance does. Write two lines. Today Date: 26 Jul 2024",
] * 4

IN_BLOCKS = (64, 128)
"""Widths that 4-bit constants of 64 weights divide, as they divide those of real models."""

CHATML = (
    "{%- if messages[0]['role'] == 'system' %}"
    "{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}"
    "{%- else %}"
    "{{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. ' }}"
    "{{- 'You are a helpful assistant.<|im_end|>\\n' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{%- if not (message.role == 'system' and loop.first) %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

_LLAMA_DATE = {
    # Llama 3.1: a fixed day unless one is given.
    "given": (
        "{%- if not date_string is defined %}{%- set date_string = '26 Jul 2024' %}{%- endif %}"
    ),
    # Llama 3.2: today unless one is given.
    "today_unless_given": (
        "{%- if not date_string is defined %}"
        "{%- if strftime_now is defined %}{%- set date_string = strftime_now('%d %b %Y') %}"
        "{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}{%- endif %}"
    ),
    # Others: always today.
    "today": "{%- set date_string = strftime_now('%Y-%m-%d') %}",
}

_LLAMA = (
    "{{- bos_token }}"
    "{DATE}"
    "{%- if messages[0]['role'] == 'system' %}"
    "{%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}"
    "{%- else %}{%- set system_message = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}"
    "{{- 'Cutting Knowledge Date: December 2023\\n' }}"
    "{{- 'Today Date: ' + date_string + '\\n\\n' }}"
    "{{- system_message }}{{- '<|eot_id|>' }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
    " + message['content'] | trim + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)

_LLAMA_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def qwen2_tokenizer() -> Any:
    """Return a tokenizer like Qwen2.5-Instruct's, one control token of it not marked special."""
    from tokenizers import AddedToken
    from transformers import Qwen2Tokenizer

    vocabulary, merges = _train(Qwen2Tokenizer().backend_tokenizer.pre_tokenizer)
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=merges,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>"],
        chat_template=CHATML,
    )
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False)])
    return tokenizer


# What follows a prompt's turns in the templates of Qwen3, DeepSeek-V3.1, Qwen3-Thinking, and of
# DeepSeek-R1, which leaves thoughts out of turns that are over; the last column is a turn's own.
THINKING = {
    "switched": (
        "{%- if enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}",
        "<think>\\n\\n</think>\\n\\n",
    ),
    "other_switch": (
        "{{- '<think>' if thinking is not defined or thinking else '</think>' }}",
        "</think>",
    ),
    "always": ("{{- '<think>\\n' }}", "<think>\\n\\n</think>\\n\\n"),
    "always_left_out": ("{{- '<think>\\n' }}", ""),
}


def thinking_tokenizer(kind: str, *, special: bool = False) -> Any:
    """Return a tokenizer whose template has thoughts; an answer's turn begins as a prompt ends."""
    from tokenizers import AddedToken

    opening, own = THINKING[kind]
    tokenizer = qwen2_tokenizer()
    tokenizer.add_tokens([AddedToken(x, special=special) for x in ("<think>", "</think>")])
    tokenizer.chat_template = (
        "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
        f"{{%- if message.role == 'assistant' %}}{{{{- '{own}' }}}}{{%- endif %}}"
        "{{- message.content + '<|im_end|>' + '\\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
        f"{opening}{{%- endif %}}"
    )
    return tokenizer


def llama_tokenizer(date: str = "given") -> Any:
    """Return a tokenizer like Llama-3.1-Instruct's: it adds BOS to plain text, names no padding.

    ``date`` is where the template's date comes from: ``given``, ``today_unless_given`` or
    ``today``.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    vocabulary, merges = _train(pre_tokenizer)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoders.ByteLevel()
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>"]
    names += [
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eom_id|>",
        "<|eot_id|>",
        "<|python_tag|>",
    ]
    backend.add_special_tokens(names)
    bos = "<|begin_of_text|>"
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A {bos} $B",
        special_tokens=[(bos, backend.token_to_id(bos))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token="<|eot_id|>",
        chat_template=_LLAMA.replace("{DATE}", _LLAMA_DATE[date]),
    )


def tokenizer_of(family: str) -> Any:
    """Return the tokenizer of ``qwen2`` or ``llama``."""
    return {"qwen2": qwen2_tokenizer, "llama": llama_tokenizer}[family]()


_EIGHT = {"head_dim": 8}
_EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2}
_SHORT: dict[str, Any] = {"sliding_window": 16}
FAMILIES: dict[str, dict[str, Any]] = {
    "apertus": {},
    "arcee": {},
    "ernie4_5": {},
    "exaone4": _SHORT | {"layer_types": ["sliding_attention", "full_attention"]},
    "gemma": _EIGHT,
    "gemma2": _EIGHT | _SHORT | {"query_pre_attn_scalar": 8, "final_logit_softcapping": 3.0},
    "gemma3_text": _EIGHT | _SHORT | {"query_pre_attn_scalar": 8, "sliding_window_pattern": 2},
    "glm": _EIGHT,
    "glm4": _EIGHT,
    "granite": {"logits_scaling": 4.0, "attention_multiplier": 0.2, "residual_multiplier": 0.5},
    "llama": {},
    "mistral": _EIGHT | _SHORT,
    "mixtral": _EXPERTS | _SHORT,
    "olmo2": {},
    "olmo3": _SHORT | {"layer_types": ["sliding_attention", "full_attention"]},
    "phi3": _SHORT,
    "qwen2": {},
    "qwen3": _EIGHT,
    "qwen3_moe": _EIGHT | _EXPERTS | {"moe_intermediate_size": 16},
    "seed_oss": _EIGHT | {"attention_dropout": 0.0},
    "smollm3": {"no_rope_layers": [1, 0]},
}
"""What is said of each tested architecture beside the sizes, so that it differs from Llama."""


def model_of(
    family: str,
    n_tokens: int,
    *,
    seed: int = 0,
    tied: bool = False,
    widths: tuple[int, int] = (32, 48),
) -> Any:
    """Return a random model of two layers, of ``qwen2``, ``llama`` or another :data:`FAMILIES`.

    ``widths`` are those of the hidden state and of the feed-forward.

    Its output layer is untied and scaled: an ordinary random model repeats one token whatever it is
    given.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    common = {
        "vocab_size": n_tokens + 5,  # real models have rows to spare
        "hidden_size": widths[0],
        "intermediate_size": widths[1],
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": tied,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    config = AutoConfig.for_model(family, **(common | FAMILIES[family]))
    make_model: Any = AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_model.from_config(config)
        if not tied:
            torch.nn.init.normal_(model.lm_head.weight, std=1.0)
    return model.eval()


def write_family(folder: Path, family: str, **options: Any) -> Path:
    """Write a shrunk ``qwen2`` or ``llama`` as ``save_pretrained`` does, and return the folder.

    The options are those of :func:`model_of`.
    """
    tokenizer = tokenizer_of(family)
    model_of(family, len(tokenizer), **options).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _train(pre_tokenizer: Any) -> tuple[dict[str, int], list[tuple[str, str]]]:
    import json

    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]
