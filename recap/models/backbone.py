"""The language model to tune and its tokenizer: made on the spot, from a folder or the hub.

The backbone ``tiny``, made on the spot, has the architecture, the tokenizer class, the control
tokens and the chat template of Qwen2.5 at less than a thousandth of the size: what works with it
works with the real ones.

Where weights are spread over devices, the model is built on the meta device, where it takes no
memory. Then each layer is filled from the files and spread at once (:class:`LazyWeights`), so that
a rank never holds the whole model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from recap.config import Language
from recap.errors import ConfigError
from recap.models.finetune import draw_adapter, is_adapter_weight, plain_name
from recap.models.hub import (
    WEIGHTS_INDEX,
    first_line,
    hub_folder,
    read_model,
    read_model_config,
    read_tokenizer,
    require_safetensors,
    silence_bitsandbytes,
)

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


def torch_dtype(name: str) -> torch.dtype:
    """Return the type of numbers that torch calls ``name``."""
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def load_backbone(
    *,
    name: str,
    family: str,
    hub_id: str | None = None,
    path: str | Path | None = None,
    dtype: str = "float32",
    quantize: bool = False,
    compute_dtype: str = "float32",
    seed: int = 0,
) -> tuple[Any, Any]:
    """Return a causal language model and its tokenizer.

    Args:
        name: Name of the backbone; ``tiny`` without a path is made from random weights.
        family: ``qwen2`` or ``llama``; weights of another architecture are refused.
        hub_id: Looked for in the local cache first, then on the hub.
        path: A folder with weights and tokenizer in Hugging Face's format, of any size; goes before
            ``hub_id``.
        dtype: Type of the weights in memory, by its name in torch.
        quantize: Whether the layers' matrices are kept in 4 bits (NF4, double quantization);
            embeddings, norms and output layer keep ``dtype``.
        compute_dtype: Type in which matrices of 4 bits are multiplied, by its name in torch.
        seed: Of the random weights of ``tiny``.

    Raises:
        ConfigError: Within seconds when there are no weights, or they are of another family, or the
            tokenizer does not belong to them; says how to supply them. Before anything is computed
            when a matrix that is to be quantised has rows that its blocks of 64 do not divide.
    """
    source = _source(name, family, hub_id, path)
    if source is None:
        if quantize:
            raise ConfigError(
                f"backbone {name!r} is made on the spot, and only weights that are loaded are "
                "quantized; set finetune=lora, or give backbone.path=FOLDER"
            )
        return _tiny(dtype, seed)
    from transformers import AutoModelForCausalLM

    _check_family(source, name, family)
    tokenizer = _load_tokenizer(source, name)
    try:
        model, found = read_model(
            AutoModelForCausalLM,
            source,
            dtype=torch_dtype(dtype),
            output_loading_info=True,
            quantization_config=_four_bits(compute_dtype) if quantize else None,
        )
    except (OSError, ValueError) as error:
        raise _unreadable(source, name, error) from error
    if found["missing_keys"]:
        # transformers would go on with random weights in their place.
        raise ConfigError(
            f"backbone {name!r}: {len(found['missing_keys'])} weights are missing in {source}; "
            "copy all *.safetensors of the model"
        )
    _check_rows(tokenizer, model, source, name)
    if quantize:
        _check_widths(model, source, name)
        _keep_off_packed_weights(model)
    return model, tokenizer


def load_backbone_lazily(
    *,
    name: str,
    family: str,
    hub_id: str | None = None,
    path: str | Path | None = None,
    dtype: str = "float32",
    seed: int = 0,
) -> tuple[Any, Any, LazyWeights]:
    """Return a model on the meta device, its tokenizer, and its weights, still to be read.

    For weights that are spread over devices (:func:`recap.models.strategy.shard`); arguments and
    errors are those of :func:`load_backbone`.
    """
    source = _source(name, family, hub_id, path)
    if source is None:
        raise ConfigError(
            f"backbone {name!r} is made on the spot; only weights in a folder are read later"
        )
    _check_family(source, name, family)
    tokenizer = _load_tokenizer(source, name)
    model = _build_lazily(source, dtype=torch_dtype(dtype))
    _check_rows(tokenizer, model, source, name)
    return model, tokenizer, LazyWeights(source, seed=seed)


def load_tokenizer(
    *, name: str, family: str, hub_id: str | None = None, path: str | Path | None = None
) -> Any:
    """Return the tokenizer that :func:`load_backbone` returns, without loading the model.

    Raises:
        ConfigError: As :func:`load_backbone`, except for what only the weights show.
    """
    source = _source(name, family, hub_id, path)
    if source is None:
        return tiny_tokenizer()
    _check_family(source, name, family)
    return _load_tokenizer(source, name)


def load_skeleton(
    *, name: str, family: str, hub_id: str | None = None, path: str | Path | None = None
) -> Any:
    """Return the model that :func:`load_backbone` returns, on the meta device: without weights.

    It shows what only needs the architecture, in a second where weights take minutes.

    Raises:
        ConfigError: As :func:`load_backbone`, except for what only the weights show.
    """
    source = _source(name, family, hub_id, path)
    if source is None:
        return _tiny("float32", seed=0)[0].to("meta")
    _check_family(source, name, family)
    return build_skeleton(read_model_config(source))


def build_skeleton(config: Any, *, dtype: torch.dtype | None = None) -> Any:
    """Return the causal language model of a configuration with shapes and without memory."""
    from transformers import AutoModelForCausalLM

    auto_model: Any = AutoModelForCausalLM
    with torch.device("meta"):
        return auto_model.from_config(config, dtype=dtype)


def _source(name: str, family: str, hub_id: str | None, path: str | Path | None) -> Path | None:
    """Return the folder to load from, ``None`` for the backbone that is made on the spot."""
    if path is not None:
        return _local_folder(Path(path), name)
    if hub_id is not None:
        return hub_folder(hub_id, name, family)
    if name != "tiny":
        raise ConfigError(
            f"backbone {name!r} has neither path nor hub_id; "
            "give backbone.path=FOLDER with its weights"
        )
    return None


def _tiny(dtype: str, seed: int) -> tuple[Any, Any]:

    model, tokenizer = load_tiny(seed=seed)
    tiny: Any = model  # the annotation of its to() loses self
    return tiny.to(dtype=torch_dtype(dtype)), tokenizer


def _four_bits(compute_dtype: str) -> Any:
    """Return QLoRA's quantization (Dettmers et al. 2023, section 3): NF4, constants in 8 bits."""
    silence_bitsandbytes()
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch_dtype(compute_dtype),
    )


def _check_widths(model: Any, source: Path, name: str) -> None:
    """Check that rows end where the blocks end that share a constant, as those of real models do.

    With AVX-512, bitsandbytes (0.50) begins each row at a block's beginning when it reads weights
    of 4 bits, though it wrote them through: other rows come back with other blocks' constants,
    without an error. Without AVX-512 and on GPUs they come back right.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for layer, module in model.named_modules():
        if not isinstance(module, Linear4bit):
            continue
        packed: Any = module.weight
        block = packed.blocksize
        if module.in_features % block:
            raise ConfigError(
                f"backbone {name!r}: {layer} in {source} has rows of {module.in_features} weights, "
                f"which blocks of {block} do not divide; bitsandbytes reads such a matrix wrongly "
                "from 4 bits on some processors; set finetune=lora, or take another backbone"
            )


def _keep_off_packed_weights(model: Any) -> None:
    """Keep evaluation on a CPU from repacking the weights, which corrupts the training after it.

    With AVX512-BF16, a forward in evaluation mode without gradients packs 4-bit weights for good,
    and later gradients are wrong without an error (bitsandbytes 0.50).
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _check_rows(tokenizer: Any, model: Any, source: Path, name: str) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ConfigError(
            f"backbone {name!r}: the tokenizer in {source} has {len(tokenizer)} tokens, the "
            f"weights only {rows}; they do not belong together, put the model's own tokenizer into "
            "the folder"
        )


def _load_tokenizer(source: Path, name: str) -> Any:
    try:
        return read_tokenizer(source)
    except (OSError, ValueError) as error:
        raise _unreadable(source, name, error) from error


def _unreadable(source: Path, name: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"backbone {name!r} cannot be loaded from {source}: {first_line(error)}; "
        "backbone.path=FOLDER has to hold config.json, *.safetensors and the tokenizer's files"
    )


def _check_family(source: Path, name: str, family: str) -> None:
    try:
        found = read_model_config(source).model_type
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"backbone {name!r}: {source}/config.json cannot be read ({first_line(error)}); "
            "copy it again from where the weights come from"
        ) from error
    if found != family:
        raise ConfigError(
            f"backbone {name!r} expects weights of the family {family!r}, but {source} holds "
            f"{found!r}; choose the backbone that fits them, or set backbone.family={found}"
        )


def _local_folder(folder: Path, name: str) -> Path:
    """Return a folder that holds a model; one that does not is refused before anything slow."""
    lacking = None
    if not folder.is_dir():
        lacking = "is not a folder"
    elif not (folder / "config.json").is_file():
        lacking = "holds no config.json"
    if lacking:
        raise ConfigError(
            f"backbone.path={folder} {lacking}; it has to be a folder in Hugging Face's "
            f"format with the weights and tokenizer of {name!r} (config.json, *.safetensors, "
            "tokenizer.json)"
        )
    require_safetensors(folder, f"backbone.path={folder}")
    return folder


class LazyWeights:
    """The weights of a Hugging Face folder, read by name, and those that adapters begin with.

    Args:
        folder: Holds ``*.safetensors``.
        seed: Of the adapters' first weights.

    Raises:
        ConfigError: When the folder holds no weights in this format.
    """

    def __init__(self, folder: Path, *, seed: int) -> None:
        self._folder = folder
        self._seed = seed
        self._file_of = _files_by_name(folder)

    def fill(self, model: Any, part: torch.nn.Module) -> None:
        """Give values to the weights of a part of a model that are still on the meta device.

        Args:
            model: The whole model, with or without adapters, whose names count.
            part: The model itself or a module within it.

        Raises:
            ConfigError: When the folder lacks a weight.
        """
        names = {id(weight): name for name, weight in model.named_parameters()}
        for module in part.modules():
            for key, weight in module.named_parameters(recurse=False):
                if weight.is_meta:
                    value = self._value(names[id(weight)], weight)
                    module._parameters[key] = torch.nn.Parameter(
                        value, requires_grad=weight.requires_grad
                    )

    def _value(self, name: str, weight: Tensor) -> Tensor:
        if is_adapter_weight(name):
            return draw_adapter(name, weight, self._seed)
        from safetensors import safe_open

        plain = plain_name(name)
        if plain not in self._file_of:
            raise ConfigError(
                f"backbone.path={self._folder}: the weight {plain} is missing; "
                "copy all *.safetensors of the model"
            )
        with safe_open(self._file_of[plain], framework="pt") as file:
            value: Tensor = file.get_tensor(plain)
        if value.shape != weight.shape:
            raise ConfigError(
                f"backbone.path={self._folder}: the weight {plain} is {tuple(value.shape)}, its "
                f"config.json says {tuple(weight.shape)}; they do not belong together"
            )
        return value.to(weight.dtype)


def _build_lazily(folder: Path, *, dtype: torch.dtype) -> Any:
    """Return the causal language model of a folder without its weights, on the meta device.

    Raises:
        ConfigError: When something other than weights would stay without values.
    """
    config = read_model_config(folder)
    model = build_skeleton(config, dtype=dtype)
    decoder = model.get_decoder()
    # Frequencies are computed, not stored.
    decoder.rotary_emb = type(decoder.rotary_emb)(config=config)
    left = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if left:
        raise ConfigError(
            f"models of type {config.model_type!r} cannot be spread while they are loaded "
            f"({left[0]} is computed); set trainer.strategy=ddp"
        )
    return model


def _files_by_name(folder: Path) -> dict[str, Path]:
    from safetensors import safe_open

    index = folder / WEIGHTS_INDEX
    if index.is_file():
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {name: folder / file for name, file in found.items()}
    names: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names |= dict.fromkeys(file.keys(), path)
    if not names:
        raise ConfigError(
            f"backbone.path={folder} holds no *.safetensors, which trainer.strategy=fsdp reads a "
            "layer at a time; save the weights in that format, or set trainer.strategy=ddp"
        )
    return names
