"""The language model to tune and its tokenizer: made on the spot, from a folder or the hub."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from recap.errors import ConfigError
from recap.models.deferred import DeferredWeights, build_deferred

HUB_TIMEOUT_SECONDS = 8.0
"""How long the hub may take to answer before a run without weights is given up."""

_WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")


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
        quantize: Whether the layers' matrices are kept in 4 bits (NF4, double quantisation);
            embeddings, norms and output layer keep ``dtype``.
        compute_dtype: Type in which matrices of 4 bits are multiplied, by its name in torch.
        seed: Of the random weights of ``tiny``.

    Raises:
        ConfigError: Within seconds when there are no weights, or they are of another family, or the
            tokenizer does not belong to them; says how to supply them.
    """
    source = _source(name, family, hub_id, path)
    if source is None:
        if quantize:
            raise ConfigError(
                f"backbone {name!r} is made on the spot, and only weights that are loaded are "
                "quantised; set finetune=lora, or give backbone.path=FOLDER"
            )
        return _tiny(dtype, seed)
    quantization = _four_bits(compute_dtype) if quantize else None
    model, tokenizer = _load(
        source, name=name, family=family, dtype=dtype, quantization=quantization
    )
    if quantize:
        _keep_off_packed_weights(model)
    return model, tokenizer


def load_backbone_deferred(
    *,
    name: str,
    family: str,
    hub_id: str | None = None,
    path: str | Path | None = None,
    dtype: str = "float32",
    seed: int = 0,
) -> tuple[Any, Any, DeferredWeights]:
    """Return a model on the meta device, its tokenizer, and its weights, still to be read.

    For weights that are spread over devices (:func:`recap.models.strategy.shard`); arguments and
    errors are those of :func:`load_backbone`.
    """
    import torch

    source = _source(name, family, hub_id, path)
    if source is None:
        raise ConfigError(
            f"backbone {name!r} is made on the spot; only weights in a folder are read later"
        )
    _check_family(source, name, family)
    tokenizer = _load_tokenizer(source, name)
    model = build_deferred(source, dtype=getattr(torch, dtype))
    _check_rows(tokenizer, model, source, name)
    return model, tokenizer, DeferredWeights(source, seed=seed)


def load_tokenizer(
    *, name: str, family: str, hub_id: str | None = None, path: str | Path | None = None
) -> Any:
    """Return the tokenizer that :func:`load_backbone` returns, without loading the model.

    Raises:
        ConfigError: As :func:`load_backbone`, except for what only the weights show.
    """
    source = _source(name, family, hub_id, path)
    if source is None:
        from recap.models.tiny import tiny_tokenizer

        return tiny_tokenizer()
    _check_family(source, name, family)
    return _load_tokenizer(source, name)


def _source(name: str, family: str, hub_id: str | None, path: str | Path | None) -> Path | None:
    """Return the folder to load from, ``None`` for the backbone that is made on the spot."""
    if path is not None:
        return _local_folder(Path(path), name)
    if hub_id is not None:
        return _hub_folder(hub_id, name, family)
    if name != "tiny":
        raise ConfigError(
            f"backbone {name!r} has neither path nor hub_id; "
            "give backbone.path=FOLDER with its weights"
        )
    return None


def _tiny(dtype: str, seed: int) -> tuple[Any, Any]:
    import torch

    from recap.models.tiny import load_tiny

    model, tokenizer = load_tiny(seed=seed)
    tiny: Any = model  # the annotation of its to() loses self
    return tiny.to(dtype=getattr(torch, dtype)), tokenizer


def _four_bits(compute_dtype: str) -> Any:
    """Return QLoRA's quantisation (Dettmers et al. 2023, section 3): NF4, constants in 8 bits."""
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, compute_dtype),
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


def _load(
    source: Path, *, name: str, family: str, dtype: str, quantization: Any = None
) -> tuple[Any, Any]:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    _check_family(source, name, family)
    tokenizer = _load_tokenizer(source, name)
    auto_model: Any = AutoModelForCausalLM  # its annotations do not know output_loading_info
    try:
        # Other types of error: files cut off, and tensors of other shapes than config.json says.
        model, found = auto_model.from_pretrained(
            source,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            output_loading_info=True,
            quantization_config=quantization,
        )
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise _unreadable(source, name, error) from error
    if found["missing_keys"]:
        # transformers would go on with random weights in their place.
        raise ConfigError(
            f"backbone {name!r}: {len(found['missing_keys'])} weights are missing in {source}; "
            "copy all *.safetensors of the model"
        )
    _check_rows(tokenizer, model, source, name)
    return model, tokenizer


def _check_rows(tokenizer: Any, model: Any, source: Path, name: str) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ConfigError(
            f"backbone {name!r}: the tokenizer in {source} has {len(tokenizer)} tokens, the "
            f"weights only {rows}; they do not belong together, put the model's own tokenizer into "
            "the folder"
        )


def _load_tokenizer(source: Path, name: str) -> Any:
    from transformers import AutoTokenizer

    auto_tokenizer: Any = AutoTokenizer
    try:
        return auto_tokenizer.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError) as error:
        raise _unreadable(source, name, error) from error


def _unreadable(source: Path, name: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"backbone {name!r} cannot be loaded from {source}: {_first_line(error)}; "
        "backbone.path=FOLDER has to hold config.json, *.safetensors and the tokenizer's files"
    )


def _check_family(source: Path, name: str, family: str) -> None:
    from transformers import AutoConfig

    try:
        found = AutoConfig.from_pretrained(source, local_files_only=True).model_type
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"backbone {name!r}: {source}/config.json cannot be read ({_first_line(error)}); "
            "copy it again from where the weights come from"
        ) from error
    if found != family:
        raise ConfigError(
            f"backbone {name!r} expects weights of the family {family!r}, but {source} holds "
            f"{found!r}; choose the backbone that fits them, or set backbone.family={found}"
        )


def _local_folder(folder: Path, name: str) -> Path:
    """Return a folder that holds a model; one that does not is told before anything slow."""
    lacking = None
    if not folder.is_dir():
        lacking = "is not a folder"
    elif not (folder / "config.json").is_file():
        lacking = "holds no config.json"
    elif not any(next(folder.glob(pattern), None) for pattern in _WEIGHT_FILES):
        lacking = "holds no *.safetensors"
    if lacking:
        raise ConfigError(
            f"backbone.path={folder} {lacking}; it has to be a folder in Hugging Face's "
            f"format with the weights and tokenizer of {name!r} (config.json, *.safetensors, "
            "tokenizer.json)"
        )
    return folder


def _hub_folder(hub_id: str, name: str, family: str) -> Path:
    """Return where the hub's files are on this machine; fetch them when they can be had."""
    from huggingface_hub import snapshot_download

    cached = _cached_folder(hub_id)
    if cached is not None:
        return cached
    _require_hub(hub_id, name, family)
    try:
        return Path(snapshot_download(hub_id, ignore_patterns=["original/*", "*.pth", "*.gguf"]))
    except (
        Exception
    ) as error:  # the client raises its own, httpx's and the operating system's errors
        raise _no_weights(hub_id, name, family, _first_line(error)) from error


def _cached_folder(hub_id: str) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(hub_id, local_files_only=True))
    except Exception:  # noqa: BLE001 - nothing cached, or unreadable: the hub is asked next
        return None
    return folder if _is_complete(folder) else None


def _is_complete(folder: Path) -> bool:
    """Return whether a cached model has all of its files; a download may have been cut off."""
    if not (folder / "config.json").is_file():
        return False
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return all((folder / shard).is_file() for shard in shards)
    return any(next(folder.glob(pattern), None) for pattern in _WEIGHT_FILES)


def _require_hub(hub_id: str, name: str, family: str) -> None:
    """Fail when the hub does not answer for this model within seconds."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        raise _no_weights(hub_id, name, family, "HF_HUB_OFFLINE is set")
    failure: list[str] = ["the hub did not answer"]

    def ask() -> None:
        try:
            HfApi().model_info(hub_id, timeout=HUB_TIMEOUT_SECONDS)
            failure.clear()
        except Exception as error:  # noqa: BLE001 - reported below, whatever it is
            failure[:] = [_first_line(error)]

    # In a thread: looking a host name up has no timeout of its own.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HUB_TIMEOUT_SECONDS)
    if failure:
        raise _no_weights(hub_id, name, family, failure[0])


def _no_weights(hub_id: str, name: str, family: str, why: str) -> ConfigError:
    licence = (
        " (after accepting its licence on the hub and `hf auth login`)" if family == "llama" else ""
    )
    return ConfigError(
        f"the weights of backbone {name!r} ({hub_id}) are not on this machine and cannot be "
        f"fetched: {why}. On a machine with access run "
        f"`hf download {hub_id} --local-dir FOLDER`{licence}, copy FOLDER here and add "
        "backbone.path=FOLDER; or use backbone=tiny, which needs no download"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
