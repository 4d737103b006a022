"""Where a saved model is, which run it comes from, and the model itself."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recap.build import build_task
from recap.config import RunConfig
from recap.data.chat import ChatEncoder
from recap.errors import ConfigError
from recap.models.backbone import load_backbone, load_tokenizer
from recap.models.export import BASE_FOLDER
from recap.models.merge import ADAPTER_CONFIG, is_adapter_folder
from recap.run_folder import RunFolder, model_folder, read_config
from recap.tasks.task import Task
from recap.training import COMPUTE_DTYPES

_FOLD = re.compile(r"fold(\d+)")


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """A model on the disk, and what it was trained to do."""

    folder: Path
    config: RunConfig
    """Of the run that it comes from; without one, what the command line says."""
    task: Task
    run: RunFolder | None
    """The run that it comes from, where its folder still lies in one."""
    fold: int | None
    """The fold that it was trained for; ``None`` for a final model, or one without a run."""


def find_model(path: Path, fallback: RunConfig) -> SavedModel:
    """Return the model that a path stands for.

    A run folder stands for its final model if there is one, else for the fold with the lowest
    selection loss; with ``cv.fold`` set to a fold or ``final``, for that one. The folder of a fold
    stands for its model.

    Args:
        path: A run folder, a fold's folder, or a model's.
        fallback: Says what a model does that lies in no run folder; ``cv.fold`` and the run's own
            options are read from it.

    Raises:
        ConfigError: When there is no model, or it is a baseline's or another fold's.
    """
    fold = fallback.cv.fold
    if not path.is_dir():
        raise ConfigError(f"model={path}: there is no such folder; give a run's or a model's")
    if (path / "config.yaml").is_file():
        run = RunFolder(path=path)
        _refuse_baseline(run)
        folder = model_folder(run) if fold == "all" else run.part(fold).model
        if not folder.is_dir():
            raise ConfigError(
                f"{folder}: there is no such model (not trained, or not kept: keep_models); set "
                "cv.fold=all for the one that the run stands for"
            )
    else:
        folder = path / "model" if (path / "model").is_dir() else path
        if not (folder / "config.json").is_file() and not is_adapter_folder(folder):
            raise ConfigError(
                f"model={path}: is neither a run folder (config.yaml) nor a model's (config.json "
                f"or {ADAPTER_CONFIG}); give one of these"
            )
    return _saved(folder, fallback)


def load_saved(saved: SavedModel, *, accelerator: str = "auto") -> tuple[Any, ChatEncoder]:
    """Return a saved model on its device, ready to answer, and its tokenizer.

    An adapter is put on its base, which is looked for inside the folder first; that of a QLoRA run
    is loaded in 4 bits, as it was in training.

    Raises:
        ConfigError: When it cannot be loaded.
    """
    import torch

    folder, backbone = saved.folder, saved.config.backbone
    if is_adapter_folder(folder):
        model = _adapted(saved)
        source = {"path": _base(folder)[0], "hub_id": _base(folder)[1]}
        tokenizer = load_tokenizer(name=backbone.name, family=backbone.family, **source)
    else:
        family = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
        _refuse_encoder(folder, saved.config)
        model, tokenizer = load_backbone(
            name=backbone.name,
            family=backbone.family if saved.run else str(family),
            path=folder,
            dtype=backbone.dtype,
        )
    gpu = accelerator != "cpu" and torch.cuda.is_available()
    # Weights in 4 bits are where they are wanted already, and refuse to be moved.
    if not getattr(model, "is_loaded_in_4bit", False):
        model = model.to("cuda" if gpu else "cpu")
    return model.eval(), ChatEncoder(tokenizer)


def _adapted(saved: SavedModel) -> Any:
    from peft import PeftModel

    config = saved.config
    path, hub_id = _base(saved.folder)
    base, _ = load_backbone(
        name=config.backbone.name,
        family=config.backbone.family,
        path=path,
        hub_id=hub_id,
        dtype=config.backbone.dtype,
        quantize=config.finetune.method == "qlora",
        compute_dtype=COMPUTE_DTYPES.get(config.trainer.precision, "float32"),
    )
    adapted: Any = PeftModel.from_pretrained(base, str(saved.folder))
    return adapted


def _base(folder: Path) -> tuple[str | None, str | None]:
    """Return an adapter's base as a folder or as a hub id."""
    inside = folder / BASE_FOLDER
    if inside.is_dir():
        return str(inside), None
    settings = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    named = str(settings["base_model_name_or_path"])
    return (named, None) if Path(named).is_dir() else (None, named)


def _saved(folder: Path, fallback: RunConfig) -> SavedModel:
    part, run = folder.parent, RunFolder(path=folder.parent.parent)
    if not run.config.is_file():
        return SavedModel(
            folder=folder, config=fallback, task=build_task(fallback), run=None, fold=None
        )
    _refuse_baseline(run)
    config = read_config(run.path)
    number = _FOLD.fullmatch(part.name)
    fold = int(number[1]) if number else None
    asked = fallback.cv.fold
    if isinstance(asked, int) and asked != fold:
        raise ConfigError(
            f"cv.fold={asked}: {folder} was trained on most of that fold; give the run folder "
            f"(model={run.path}), so that each fold is labelled by its own model"
        )
    return SavedModel(folder=folder, config=config, task=build_task(config), run=run, fold=fold)


def _refuse_baseline(run: RunFolder) -> None:
    baseline = read_config(run.path).baseline
    if baseline is not None:
        raise ConfigError(
            f"{run.path}: is the run of a baseline ({baseline.get('method')}), scored on its own "
            "folds already (summary.md); model= takes fine-tuned language models"
        )


def _refuse_encoder(folder: Path, config: RunConfig) -> None:
    names = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures")
    if names and not any("CausalLM" in str(name) for name in names):
        raise ConfigError(
            f"{folder}: holds {', '.join(map(str, names))}, no language model that answers; score "
            "an encoder with method=encoder encoder.path=FOLDER"
        )
