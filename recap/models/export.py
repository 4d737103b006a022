"""A trained model as a folder that plain transformers or peft loads, and back.

Beside the weights, ``recap.json`` holds the task and the settings that the model answers under. An
adapter can be merged onto its unquantized base, which adds the adapters' product to the weights
that they stand beside. Over a base in full precision nothing but rounding changes. QLoRA's adapters
were trained beside weights in 4 bits and made up for their errors too, so that beside the
unquantized weights they are not quite at home: how much that costs is measured, never assumed.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import torch
from torch import Tensor

from recap.config import Decoding, PromptCut, explain_faults
from recap.data.batches import Batch
from recap.errors import ConfigError
from recap.models.backbone import load_backbone
from recap.models.checkpoints import is_first_rank, whole_weights
from recap.models.engine.loss import answer_loss
from recap.models.finetune import causal_model, is_adapted, plain_name
from recap.models.hub import hub_folder, local_path, read_adapter, read_tokenizer
from recap.models.identity import digest_of, model_digests
from recap.models.precision import mixed
from recap.system.files import whole_folder
from recap.tasks.library import task_from_saved, task_to_dict
from recap.tasks.task import Task

SETTINGS_FILE = "recap.json"
Dtype = Annotated[str, pydantic.Field(pattern="^(float32|float16|bfloat16|float64)$")]
"""A type of numbers, by its name in torch; no other attribute of torch is looked up."""


@pydantic.dataclasses.dataclass(
    frozen=True, kw_only=True, config=pydantic.ConfigDict(strict=True, extra="forbid")
)
class ModelSettings:
    """The task of a tuned model, its limits, and the types that it was trained in.

    Enough to prompt it the same way on another machine; nothing of the data, and no path.
    """

    format: Literal[1, 2] = 2
    """Version of this file, and of what built-in prompts say of the answer's form; 1 showed it with
    gaps (``Behavior: <label>``)."""
    task: pydantic.InstanceOf[Task]
    """Labels, prompt and answer format."""
    max_prompt_tokens: pydantic.PositiveInt | None = None
    """Longest prompt; longer ones lost whole oldest turns."""
    cut: PromptCut = "turns"
    """How many turns they lost; an earlier version dropped as few as would do."""
    max_new_tokens: pydantic.PositiveInt = 128
    """Longest answer."""
    decoding: Decoding | None = None
    """How its labels were decided when it was scored; ``None``: by an earlier version."""
    threshold: Annotated[float, pydantic.Field(ge=0, le=1)] | None = None
    """Probability from which the first of two labels was decided for."""
    dtype: Dtype = "float32"
    """Type of the weights in memory, by its name in torch."""
    compute_dtype: Dtype = "float32"
    """Type that matrices were multiplied in."""
    quantize: bool = False
    """Whether an adapter's base was held in 4 bits."""


_ADDED = {"cut", "decoding", "threshold"}
"""Settings that earlier versions did not write."""

_LOG = logging.getLogger(__name__)


def read_settings(folder: Path) -> ModelSettings | None:
    """Return the settings in a model's folder, ``None`` where it has no ``recap.json``.

    A ``ConfigError`` where the file cannot be read, or is of another version.
    """
    file = folder / SETTINGS_FILE
    if not file.is_file():
        return None
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        names = {field.name for field in fields(ModelSettings)}
        if values["format"] not in (1, 2) or values.keys() | _ADDED != names:
            raise ConfigError("it was written by another version of recap")
        return ModelSettings(**{**values, "task": task_from_saved(values["task"])})
    except pydantic.ValidationError as error:
        reason = explain_faults(error, ModelSettings, values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ConfigError) as error:
        reason = str(error) if isinstance(error, ConfigError) else "it is damaged"
    raise ConfigError(
        f"{file}: cannot be used ({reason}); copy it again from where the model was trained"
    )


CARD_FILE = "README.md"
"""A model's card; no library loads a model from it."""

BASE_FOLDER = "base"
"""Where the frozen weights stand, inside an adapter's folder, when they exist nowhere else."""


def save_model(
    model: Any,
    tokenizer: Any,
    folder: Path,
    *,
    end_of_turn_id: int,
    pad_id: int,
    settings: ModelSettings | None = None,
    card: str | None = None,
) -> None:
    """Write a model, its tokenizer with the chat template, and settings to generate with.

    A fully tuned model becomes a Hugging Face folder, an adapted one a PEFT adapter. An adapter
    names its frozen base by hub id or folder; a base that was made on the spot (``backbone=tiny``)
    is saved beside it under ``base/``. The folder appears whole or not at all; one that is there
    already is replaced, and its parents have to exist.

    Of a model that is spread over devices, every rank calls this, and the first one writes.
    ``generate`` stops at ``end_of_turn_id``; ``settings`` are kept as ``recap.json``, and ``card``
    as ``README.md``, in place of the empty form that peft writes.
    """
    adapted = is_adapted(model)
    alone = not adapted or not model.active_peft_config.base_model_name_or_path
    state = whole_weights(model, lambda name: alone or ".lora_" in name)
    if not is_first_rank():
        return
    causal = causal_model(model)
    own = causal.generation_config
    causal.generation_config = _greedy(causal, end_of_turn_id, pad_id)
    with whole_folder(folder) as partial:
        try:
            if adapted:
                _save_adapter(model, tokenizer, partial, folder, state)
            else:
                causal.save_pretrained(partial, state_dict=state)
            causal.generation_config.save_pretrained(partial)
        finally:
            causal.generation_config = own
        tokenizer.save_pretrained(partial)
        if settings is not None:
            values = {each.name: getattr(settings, each.name) for each in fields(settings)}
            values["task"] = task_to_dict(settings.task)
            text = json.dumps(values, ensure_ascii=False, indent=2, allow_nan=False)
            (partial / SETTINGS_FILE).write_text(f"{text}\n", encoding="utf-8")
        if card is not None:
            (partial / CARD_FILE).write_text(card, encoding="utf-8")


def _save_adapter(
    model: Any, tokenizer: Any, partial: Path, folder: Path, state: dict[str, Tensor]
) -> None:
    config = model.active_peft_config
    named = config.base_model_name_or_path
    if not named:
        base = partial / BASE_FOLDER
        # The frozen weights, under the names that they have without adapters.
        plain = {plain_name(name): tensor for name, tensor in state.items() if ".lora_" not in name}
        causal_model(model).save_pretrained(base, state_dict=plain)
        tokenizer.save_pretrained(base)
        config.base_model_name_or_path = str((folder / BASE_FOLDER).resolve())
    elif local_path(named).exists():
        # The model is used from other folders too.
        config.base_model_name_or_path = str(local_path(named).resolve())
    try:
        # Embeddings are not tuned; by default peft looks the base up, on the hub too, to find out.
        model.save_pretrained(partial, state_dict=state, save_embedding_layers=False)
    finally:
        config.base_model_name_or_path = named


def _greedy(causal: Any, end_of_turn_id: int, pad_id: int) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=causal.config.bos_token_id,
        eos_token_id=end_of_turn_id,
        pad_token_id=pad_id,
        do_sample=False,
    )


ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Merged:
    """What merging changed: the answers' loss before and after, token means in nats."""

    adapted_loss: float
    merged_loss: float
    tolerance: float


def is_adapter_folder(folder: Path) -> bool:
    """Return whether a folder holds a PEFT adapter and not a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


def merge_adapter(
    folder: Path,
    output: Path,
    *,
    batches: Iterable[Batch],
    adapted_loss: float,
    tolerance: float,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
    precision: str = "32-true",
) -> Merged:
    """Write an adapter merged onto its unquantized base as a Hugging Face folder.

    Args:
        folder: A PEFT adapter as :func:`recap.models.export.save_model` writes it.
        output: Where the merged model goes, whole or not at all; may be ``folder`` itself.
        batches: Examples to score the merged model on, the ones behind ``adapted_loss``.
        adapted_loss: :func:`mean_answer_loss` of the model with its adapter, as it was trained.
        tolerance: Largest difference of the two losses, in nats a token.
        dtype: Type of the base's weights and of the merged ones, by its name in torch.
        device: Where the merged model is scored; it has to fit there.
        precision: As ``trainer.precision`` of the training.

    Raises:
        ConfigError: When the folder holds no adapter, its base is not there, or the losses differ
            by more than the tolerance; nothing is written then.
    """
    from transformers import GenerationConfig

    if not is_adapter_folder(folder):
        raise ConfigError(f"{folder}: holds no adapter ({ADAPTER_CONFIG}), so nothing to merge")
    source = _base_folder(folder, None)
    base, _ = load_backbone(name=source.name, family=None, path=source, dtype=dtype)
    model = read_adapter(base, folder).merge_and_unload()
    merged_loss = mean_answer_loss(model.to(device), batches, precision=precision)
    difference = abs(merged_loss - adapted_loss)
    # Written so that a loss that is not a number is refused.
    if not difference <= tolerance:
        raise ConfigError(
            f"{folder}: the merged model's loss is {merged_loss:.6f} nats a token, that of the "
            f"adapter as it was trained {adapted_loss:.6f}; they differ by {difference:.1e}, more "
            f"than {tolerance:.1e}. The adapter is kept as it was; use it unmerged (merge=false), "
            "or set merge_tolerance if that much is acceptable"
        )
    trained, card = read_settings(folder), folder / CARD_FILE
    generation = GenerationConfig.from_pretrained(folder)
    save_model(
        model.to("cpu"),
        read_tokenizer(folder),
        output,
        end_of_turn_id=generation.eos_token_id,
        pad_id=generation.pad_token_id,
        settings=trained and replace(trained, dtype=dtype, quantize=False),
        card=card.read_text(encoding="utf-8") if card.is_file() else None,
    )
    return Merged(adapted_loss=adapted_loss, merged_loss=merged_loss, tolerance=tolerance)


def mean_answer_loss(model: Any, batches: Iterable[Batch], *, precision: str = "32-true") -> float:
    """Return the answers' loss over all batches, the mean over their tokens in nats."""
    device = next(model.parameters()).device
    total, n_tokens = 0.0, 0
    model.eval()
    with torch.no_grad(), mixed(precision, device.type):
        for batch in batches:
            total += float(answer_loss(model, batch.to(device)))
            n_tokens += int(batch.answer_mask.sum())
    return total / n_tokens


_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model ready to answer; ``adapter`` is to be switched on before each use, if there is one.

    Models whose ``model`` is the same object share their base.
    """

    model: Any
    tokenizer: Any
    adapter: str | None


def load_trained(
    folders: Sequence[Path],
    settings: Sequence[ModelSettings],
    *,
    base: str | Path | None = None,
    device: str = "auto",
    dtype: str | None = None,
) -> list[TrainedModel]:
    """Return the models of some folders; adapters over one base share it in memory.

    Args:
        folders: Hugging Face folders or PEFT adapters, as training writes them.
        settings: How each was trained.
        base: Folder or hub id of the adapters' base, where it is not where they say.
        device: ``cpu``, ``cuda`` or ``auto``: a GPU where there is one.
        dtype: Of the weights; by default what training computed in, on a CPU what the weights had.

    Raises:
        ConfigError: When a folder's weights or an adapter's base cannot be loaded.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device={device}: there is no GPU here; set device=cpu, or leave it out")
    shared: dict[tuple[Any, ...], Any] = {}
    loaded = []
    for number, (folder, own) in enumerate(zip(folders, settings, strict=True)):
        if own.format == 1 and "{format}" in (own.task.prompt_text or "{format}"):
            _LOG.warning(
                "%s: was trained by an earlier version of recap, whose prompts described the "
                "answer in other words than those it is asked in now, and may answer worse; train "
                "it again, or use the version that it was trained with",
                folder,
            )
        adapter = f"stage{number}" if is_adapter_folder(folder) else None
        source = folder if adapter is None else _base_folder(folder, base)
        chosen = dtype or _dtype_for(device, own)
        key: tuple[Any, ...] = (number,)
        if adapter is not None:
            # Copies of a base that adapters brought along are one.
            same = (
                digest_of(model_digests(source)) if source.name == BASE_FOLDER else source.resolve()
            )
            key = (same, chosen, own.quantize, own.compute_dtype)
        if key not in shared:
            shared[key], _ = load_backbone(
                name=source.name,
                family=None,
                path=source,
                dtype=chosen,
                quantize=own.quantize,
                compute_dtype=own.compute_dtype,
            )
        if adapter is not None:
            shared[key] = read_adapter(shared[key], folder, name=adapter)
        shared[key].to(device).eval().requires_grad_(False)
        tokenizer = read_tokenizer(folder)
        loaded.append(TrainedModel(model=shared[key], tokenizer=tokenizer, adapter=adapter))
    return loaded


def model_files(
    folder: Path, *, base: str | Path | None = None, cache: Path | None = None
) -> dict[str, str]:
    """Return the :func:`model_digests` of a folder, with an adapter's base."""
    below = _base_folder(folder, base) if is_adapter_folder(folder) else None
    return model_digests(folder, base=below, cache=cache)


def _dtype_for(device: str, settings: ModelSettings) -> str:
    if device != "cpu":
        return settings.compute_dtype
    # A CPU has no fast arithmetic of this type.
    return "float32" if settings.dtype == "float16" else settings.dtype


def _base_folder(folder: Path, base: str | Path | None) -> Path:
    """Return where an adapter's base is; one inside the folder moves with it."""
    if base is None and (folder / BASE_FOLDER).is_dir():
        return folder / BASE_FOLDER
    if base is None:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        base = config["base_model_name_or_path"]
    named = str(base)
    if local_path(named).exists():
        return local_path(named)
    if _HUB_ID.fullmatch(named):
        return hub_folder(named, named, "")
    raise ConfigError(
        f"{folder}: the adapter's base is not at {named}; put its weights back there, or name "
        "their folder with base=FOLDER"
    )
