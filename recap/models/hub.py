"""Models of the Hugging Face hub, from the cache or fetched, and folders of them, read as data.

A file of llama.cpp's format (``*.gguf``) stands wherever a folder does: transformers makes float
weights, configuration and tokenizer of it.

A folder can name code of its own (``auto_map``), keep its weights as a pickle, which is a program,
and ask for kernels from the hub. All of that is refused here, and nothing of recap calls
``from_pretrained`` elsewhere.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recap.errors import ConfigError
from recap.system.processes import switch_telemetry_off

HUB_TIMEOUT_SECONDS = 8.0
"""How long the hub may take to answer before a run without weights is given up."""

WEIGHT_FILES = "*.safetensors"
"""Files of which a folder with weights has at least one: pickles are programs."""

WEIGHTS_INDEX = "model.safetensors.index.json"
"""Which of several files holds each weight."""

GGUF = ".gguf"
"""How the name of a model in llama.cpp's format ends."""

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
NOT_NEEDED = ("original/*", "*.gguf", "*.h5", "*.msgpack", "*.ot", "*.onnx", *_PICKLES, "*.py")
"""The same weights in other formats, those that are programs among them, and programs."""


def hub_folder(hub_id: str, name: str, family: str, *, group: str = "backbone") -> Path:
    """Return where a model's files are on this machine; fetch them when they can be had.

    Name and ``group`` (the options that it is chosen by) stand in messages; the license of the
    ``family`` ``llama`` has to be accepted.

    Raises:
        ConfigError: When the files are not here and cannot be fetched; within seconds when the hub
            does not answer.
    """
    switch_telemetry_off()
    from huggingface_hub import snapshot_download

    cached = cached_folder(hub_id)
    if cached is not None and _has_all_weights(cached):
        return cached
    try:
        _require_hub(hub_id)
        return Path(snapshot_download(hub_id, ignore_patterns=list(NOT_NEEDED)))
    except Exception as error:  # the client's own, httpx's and the operating system's errors
        terms = " (after accepting its license on the hub and `hf auth login`)"
        raise ConfigError(
            f"the weights of {group} {name!r} ({hub_id}) are not on this machine and cannot be "
            f"fetched: {_first_line(error)}. On a machine with access run `hf download {hub_id} "
            f"--local-dir FOLDER`{terms if family == 'llama' else ''}, copy FOLDER here and add "
            f"{group}.path=FOLDER; or use {group}=tiny, which needs no download"
        ) from error


def cached_folder(hub_id: str) -> Path | None:
    """Return the hub's snapshot in the local cache, with weights or without, if there is one."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(hub_id, local_files_only=True))
    except Exception:  # noqa: BLE001 - nothing cached, or unreadable
        return None
    return folder if (folder / "config.json").is_file() else None


def _has_all_weights(folder: Path) -> bool:
    """Return whether a cached model has all of its weights; a download may have been cut off."""
    index = folder / WEIGHTS_INDEX
    if index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return all((folder / shard).is_file() for shard in shards)
    return any(folder.glob(WEIGHT_FILES))


def _require_hub(hub_id: str) -> None:
    """Fail when the hub does not answer for this model within seconds."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    failure: list[Exception] = [OSError("the hub did not answer")]

    def ask() -> None:
        try:
            HfApi().model_info(hub_id, timeout=HUB_TIMEOUT_SECONDS)
            failure.clear()
        except Exception as error:  # noqa: BLE001 - raised below, whatever it is
            failure[:] = [error]

    # In a thread: looking a host name up has no timeout of its own.
    request = threading.Thread(target=ask, daemon=True)
    request.start()
    request.join(HUB_TIMEOUT_SECONDS)
    if failure:
        raise failure[0]


def find_folder(
    *, name: str, family: str, hub_id: str | None, path: str | Path | None, group: str = "backbone"
) -> Path | None:
    """Return the folder to load a model from, ``None`` for ``tiny``, which is made on the spot.

    A ``path`` (a folder in Hugging Face's format, a file in llama.cpp's) goes before ``hub_id``,
    which is looked for in the local cache first; see :func:`hub_folder`.

    Raises:
        ConfigError: Before anything slow, when there are no weights, or they are a pickle.
    """
    if path is None and hub_id is not None:
        return hub_folder(hub_id, name, family, group=group)
    if path is None and name == "tiny":
        return None
    if path is None:
        raise ConfigError(
            f"{group} {name!r} has neither path nor hub_id; give {group}.path=FOLDER with its "
            "weights"
        )
    folder, lacking = local_path(path), None
    if folder.suffix == GGUF and folder.is_file():
        return folder
    if not folder.is_dir() and folder.parts[:1] == (PRETRAINED,):
        raise ConfigError(
            f"{group} {name!r} is not on this machine: run `make pretrained` in recap's checkout, "
            f"or name a folder that holds it with {group}.path=FOLDER"
        )
    if not folder.is_dir():
        lacking = "is not a folder"
    elif not (folder / "config.json").is_file():
        lacking = "holds no config.json"
    elif not any(folder.glob(WEIGHT_FILES)):
        _refuse_pickles(folder)
        lacking = "holds no *.safetensors"
    if lacking is not None:
        raise ConfigError(
            f"{group}.path={folder} {lacking}; it has to be a folder in Hugging Face's format with "
            f"the weights and tokenizer of {name!r} (config.json, *.safetensors, tokenizer.json), "
            f"or a *{GGUF} file"
        )
    return folder


ADAPTER_WEIGHTS = "adapter_model.safetensors"
"""The file of an adapter's weights."""

PRETRAINED = ".pretrained"
"""Where ``make pretrained`` puts a model, in the checkout."""


def local_path(path: str | Path) -> Path:
    """Return where a model is: below the current folder, or what ``make pretrained`` has made."""
    given = Path(path).expanduser()
    if given.parts[:1] != (PRETRAINED,) or given.exists():
        return given
    beside = Path(__file__).resolve().parents[2] / given
    return beside if beside.exists() else given


_WITHOUT_CODE = {"local_files_only": True, "trust_remote_code": False}


def read_model_config(folder: str | Path) -> Any:
    """Return the ``transformers`` configuration that ``config.json`` describes.

    A ``ConfigError`` where it cannot be read, or names code to run.
    """
    from transformers import AutoConfig

    mend = "copy it again from where the weights come from"
    if Path(folder).suffix == GGUF:
        what, mend = "transformers cannot load this file", f"{mend}, or name a folder of the model"
    else:
        what, mend = "config.json cannot be read", f"{mend}, or update transformers"
    with _refusing(f"{folder}: {what}", mend):
        config = AutoConfig.from_pretrained(**_where(folder))
        kernel = str(getattr(config, "_attn_implementation", None) or "")
        if "/" in kernel:
            raise ValueError("it asks for attention kernels from the hub, which is code")
    return config


def read_tokenizer(folder: str | Path) -> Any:
    """Return the tokenizer of a folder; a ``ConfigError`` for a bad one, or for code to run."""
    from transformers import AutoTokenizer

    auto_tokenizer: Any = AutoTokenizer
    mend = "copy the whole folder again, tokenizer.json (or tokenizer.model) among it"
    with _refusing(f"{folder}: its tokenizer cannot be loaded", mend):
        return auto_tokenizer.from_pretrained(**_where(folder))


def read_model(auto_model: Any, folder: Path, **options: Any) -> Any:
    """Return what ``auto_model.from_pretrained`` makes of ``*.safetensors``, or of a GGUF file.

    A ``ConfigError`` where the weights cannot be read, or the folder names code to run.
    """
    read_model_config(folder)
    mend = "it has to hold config.json, *.safetensors and the tokenizer's files"
    with _refusing(f"{folder}: the model cannot be loaded", mend):
        made = auto_model.from_pretrained(**_where(folder), use_safetensors=True, **options)
    if folder.suffix == GGUF:
        # The weights are plain numbers now; transformers (5.23) refuses to save them while it says
        # that they were quantized.
        model = made[0] if isinstance(made, tuple) else made
        del model.config.quantization_config
        # Adapters name their base by it: the file, not the folder that it lies in.
        model.name_or_path = model.config._name_or_path = str(folder)
        model.hf_quantizer = None
    return made


def _where(source: str | Path) -> dict[str, Any]:
    """Return what ``from_pretrained`` takes for a folder, or for a GGUF file."""
    path = Path(source)
    if path.suffix != GGUF:
        return {"pretrained_model_name_or_path": path, **_WITHOUT_CODE}
    if find_spec("gguf") is None:
        raise ConfigError(
            f"{path}: GGUF files need the package gguf: pip install 'recap-counseling[gguf]', or "
            "name a folder with *.safetensors"
        )
    return {
        "pretrained_model_name_or_path": path.parent,
        "gguf_file": path.name,
        **_WITHOUT_CODE,
    }


def silence_bitsandbytes() -> None:
    """Have bitsandbytes (0.50) ask for no further package; called before it is imported.

    peft imports it for any adapter, and it asks where a processor has AVX512-BF16: to multiply
    packed weights, which recap keeps none of.
    """
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def read_adapter(model: Any, folder: Path, *, name: str = "default") -> Any:
    """Return a PEFT model: a base, or one that has adapters, with the adapter of a folder.

    A ``ConfigError`` where its weights are a pickle, cannot be read, or do not fit.
    """
    silence_bitsandbytes()
    from peft import PeftModel

    # Else peft would look for a pickle next, or for an adapter of that name on the hub.
    if not (folder / ADAPTER_WEIGHTS).is_file():
        _refuse_pickles(folder)
        raise ConfigError(f"{folder}: lacks {ADAPTER_WEIGHTS}; copy the whole folder again")
    mend = "name the base that it was trained on with base=FOLDER"
    with _refusing(f"{folder}: this adapter does not fit its base", mend):
        if not isinstance(model, PeftModel):
            return PeftModel.from_pretrained(model, str(folder), adapter_name=name)
        model.load_adapter(str(folder), adapter_name=name, is_trainable=False)
        return model


def _refuse_pickles(folder: Path) -> None:
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if pickles:
        raise ConfigError(
            f"{folder} holds no *.safetensors but {pickles[0]}, a pickle: a program that would run "
            "with your rights. Get the weights as *.safetensors, or, where you trust who made "
            "them, convert them as docs/security.md shows"
        )


@contextmanager
def _refusing(what: str, mend: str) -> Iterator[None]:
    """Have whatever the libraries raise about a folder be one line, and what to do."""
    try:
        yield
    except Exception as error:  # tokenizers, safetensors and peft raise their own, or plain ones
        raise ConfigError(f"{what} ({_first_line(error)}); {mend}") from error


def _first_line(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    # Whole sentences, where the first one is not longer than a line may be.
    return line[:200].rpartition(". ")[0] if len(line) > 200 and ". " in line[:200] else line[:200]
