"""The language model to tune and its tokenizer: made on the spot, from a folder or the hub.

The backbone ``tiny``, made on the spot, has the architecture, the tokenizer class, the control
tokens and the chat template of Qwen2.5 at less than a thousandth of the size: what works with it
works with the real ones.

Where weights are spread over devices, the model is built on the meta device, where it takes no
memory. Then each layer is filled from the files and spread at once (:class:`LazyWeights`), so that
a rank never holds the whole model.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from recap.config import Language
from recap.errors import ConfigError
from recap.models.engine.attention import TESTED
from recap.models.finetune import OutputLayer, draw_adapter, is_adapter_weight, plain_name
from recap.models.hub import (
    WEIGHT_FILES,
    WEIGHTS_INDEX,
    find_folder,
    read_model,
    read_model_config,
    read_tokenizer,
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

VOCABULARY = 4096
"""Tokens of the tiny vocabulary at most, control tokens apart."""

MAX_POSITIONS = 8192
"""Longest sequence of the tiny model, in tokens."""


def build_tiny_tokenizer(texts: Iterable[str], *, vocabulary: int = VOCABULARY) -> Qwen2Tokenizer:
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
        model_max_length=MAX_POSITIONS,
    )


def tiny_config() -> Qwen2Config:
    """Return the configuration of the tiny model, of about a million weights."""
    from transformers import Qwen2Config

    tokenizer = tiny_tokenizer()
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )


def load_tiny(*, seed: int) -> tuple[Qwen2ForCausalLM, Qwen2Tokenizer]:
    """Return a tiny model with random weights drawn from ``seed``, and its tokenizer.

    The global random state stays as it was.
    """
    from transformers import Qwen2ForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(tiny_config()), tiny_tokenizer()


@lru_cache(maxsize=1)
def tiny_tokenizer() -> Qwen2Tokenizer:
    """Return the tokenizer of the tiny backbone, built from :func:`tiny_texts`.

    Every caller in a process shares it: do not change it.
    """
    return build_tiny_tokenizer(tiny_texts())


def tiny_texts() -> Iterator[str]:
    """Yield what the tiny tokenizer is made of, never user data.

    The demo corpus, and prompts and answers of every built-in task: Chinese, English, brief and
    full. The brief prompt and the labels come often enough for each of their words to become a
    token.
    """
    from recap.data.demo import demo_texts
    from recap.records import Answer, Example, Turn
    from recap.tasks.library import builtin_task

    for text in demo_texts(language="both", size=DEMO_SIZE):
        yield from _PIECES.findall(text)
    turns = (Turn(speaker="counselor", text=""), Turn(speaker="client", text=""))
    example = Example(id="prompt", history=turns, response="")
    for name, language in itertools.product(TASKS, get_args(Language)):
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
    family: str | None,
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
        family: ``qwen2`` or ``llama``; weights of another architecture are refused. ``None``: any.
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
        tiny, tokenizer = load_tiny(seed=seed)
        return tiny.to(dtype=torch_dtype(dtype)), tokenizer  # type: ignore[call-arg]
    from transformers import AutoModelForCausalLM

    tokenizer = read_tokenizer(source)
    model, found = read_model(
        AutoModelForCausalLM,
        source,
        dtype=torch_dtype(dtype),
        output_loading_info=True,
        quantization_config=_four_bits(compute_dtype) if quantize else None,
    )
    if found["missing_keys"]:
        # transformers would go on with random weights in their place.
        raise ConfigError(
            f"backbone {name!r}: {len(found['missing_keys'])} weights are missing in {source}; "
            "copy all *.safetensors of the model"
        )
    _check_rows(tokenizer, model, source, name)
    if model.config.model_type not in TESTED:
        _check_output(model, source, name)
    if quantize:
        _secure_packed_weights(model, source, name)
    return model, tokenizer


def load_backbone_lazily(
    *,
    name: str,
    family: str | None,
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
    config = read_model_config(source)
    model = build_skeleton(config, dtype=torch_dtype(dtype))
    decoder = model.get_decoder()
    # Frequencies are computed, not stored.
    decoder.rotary_emb = type(decoder.rotary_emb)(config=config)
    left = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if left:
        raise ConfigError(
            f"models of type {config.model_type!r} cannot be spread while they are loaded "
            f"({left[0]} is computed); set trainer.strategy=ddp"
        )
    tokenizer = read_tokenizer(source)
    _check_rows(tokenizer, model, source, name)
    return model, tokenizer, LazyWeights(source, seed=seed)


def load_tokenizer(
    *, name: str, family: str | None, hub_id: str | None = None, path: str | Path | None = None
) -> Any:
    """Return the tokenizer that :func:`load_backbone` returns, without loading the model.

    Raises:
        ConfigError: As :func:`load_backbone`, except for what only the weights show.
    """
    source = _source(name, family, hub_id, path)
    return tiny_tokenizer() if source is None else read_tokenizer(source)


def load_positions(tokenizer: Any, **source: Any) -> int | None:
    """Return the positions of the model that :func:`load_backbone` returns, without loading it.

    Args:
        tokenizer: The model's.
        source: As for :func:`load_tokenizer`.

    Raises:
        ConfigError: As :func:`load_tokenizer`.
    """
    folder = _source(source["name"], source["family"], source["hub_id"], source["path"])
    return positions_of(tiny_config() if folder is None else read_model_config(folder), tokenizer)


def positions_of(config: Any, tokenizer: Any = None) -> int | None:
    """Return the length of the longest sequence that a model reads, ``None`` for any.

    As ``config.json`` has it, since tokenizers name the length of their training; the tokenizer's
    where the model has no such number. YaRN stretches the positions that were trained by its
    factor, which no other scaling of rotary positions does to ``max_position_embeddings``. A
    sliding window bounds how far a token looks back, not how many there are.
    """
    config = config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions < 1:
        longest = getattr(tokenizer, "model_max_length", None)
        return None if longest is None or longest >= _NO_LENGTH else int(longest)
    rope = getattr(config, "rope_parameters", None) or {}
    # One set for all layers, or one for each type of layer.
    for each in (rope, *(found for found in rope.values() if isinstance(found, dict))):
        if each.get("rope_type") == "yarn":
            trained = each.get("original_max_position_embeddings") or positions
            positions = max(positions, int(trained * (each.get("factor") or 1)))
    return int(positions)


_NO_LENGTH = 1 << 30
"""transformers writes 10^30 for a tokenizer that names no length."""


def load_skeleton(
    *, name: str, family: str | None, hub_id: str | None = None, path: str | Path | None = None
) -> Any:
    """Return the model that :func:`load_backbone` returns, on the meta device: without weights.

    It shows what only needs the architecture, in a second where weights take minutes.

    Raises:
        ConfigError: As :func:`load_backbone`, except for what only the weights show.
    """
    source = _source(name, family, hub_id, path)
    return build_skeleton(tiny_config() if source is None else read_model_config(source))


def build_skeleton(config: Any, *, dtype: torch.dtype | None = None) -> Any:
    """Return the causal language model of a configuration with shapes and without memory."""
    from transformers import AutoModelForCausalLM

    auto_model: Any = AutoModelForCausalLM
    with torch.device("meta"):
        return auto_model.from_config(config, dtype=dtype)


def _source(
    name: str, family: str | None, hub_id: str | None, path: str | Path | None
) -> Path | None:
    """Return the folder to load from, ``None`` for the backbone that is made on the spot."""
    source = find_folder(name=name, family=family or "", hub_id=hub_id, path=path)
    if source is not None:
        require_family(read_model_config(source), family, name=name, folder=source)
    return source


def require_family(config: Any, family: str | None, *, name: str, folder: Path) -> None:
    """Check that a folder's configuration is of a backbone's family; ``None`` takes any.

    Raises:
        ConfigError: When it is another one's.
    """
    if family not in (None, config.model_type):
        raise ConfigError(
            f"backbone {name!r} expects weights of the family {family!r}, but {folder} holds "
            f"{config.model_type!r}; choose the backbone that fits them, or set "
            f"backbone.family={config.model_type}"
        )


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


def _secure_packed_weights(model: Any, source: Path, name: str) -> None:
    """Refuse 4-bit weights that bitsandbytes (0.50) would read wrongly, and keep others whole.

    With AVX-512 it begins each row at a block's beginning when it reads weights of 4 bits, though
    it wrote them through: where rows do not end where the blocks end that share a constant, as
    those of real models do, they come back with other blocks' constants, without an error. Without
    AVX-512 and on GPUs they come back right. With AVX512-BF16, a forward in evaluation mode without
    gradients packs the weights for good, and later gradients are wrong without an error.
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
        module.support_avx512bf16_for_cpu = False


def _check_rows(tokenizer: Any, model: Any, source: Path, name: str) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ConfigError(
            f"backbone {name!r}: the tokenizer in {source} has {len(tokenizer)} tokens, the "
            f"weights only {rows}; they do not belong together, put the model's own tokenizer into "
            "the folder"
        )


def _check_output(model: Any, source: Path, name: str) -> None:
    """Refuse an architecture whose logits are not made of its last states as elsewhere."""
    ids = torch.arange(4, device=model.device)[None]
    with torch.no_grad():
        expected = model(input_ids=ids, use_cache=False).logits
        states = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        found = OutputLayer(model)(states)
    if not torch.allclose(found.float(), expected.float(), rtol=1e-3, atol=1e-3):
        raise ConfigError(
            f"backbone {name!r}: models of type {model.config.model_type!r}, as in {source}, make "
            "their logits in a way that recap does not know, so that its losses would be wrong; "
            "take another backbone"
        )


class LazyWeights:
    """The weights of a Hugging Face folder, read by name, and those that adapters begin with.

    Args:
        folder: Holds ``*.safetensors``.
        seed: Of the adapters' first weights.
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


def _files_by_name(folder: Path) -> dict[str, Path]:
    from safetensors import safe_open

    index = folder / WEIGHTS_INDEX
    if index.is_file():
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {name: folder / file for name, file in found.items()}
    names: dict[str, Path] = {}
    for path in sorted(folder.glob(WEIGHT_FILES)):
        with safe_open(path, framework="pt") as file:
            names |= dict.fromkeys(file.keys(), path)
    return names
