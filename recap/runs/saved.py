"""Saved models: which one a folder stands for, what it was trained to do, and what it answers."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from recap.config import Decoding, Language, RunConfig, taught
from recap.data.encode import ChatEncoder, PromptEncoder, PromptLimit, prompt_limit
from recap.errors import ConfigError
from recap.metrics.files import prediction_of
from recap.models.backbone import positions_of
from recap.models.engine.label_scoring import LabelScorer, ModelAnswer
from recap.models.export import (
    ADAPTER_CONFIG,
    SETTINGS_FILE,
    ModelSettings,
    TrainedModel,
    is_adapter_folder,
    load_trained,
    read_settings,
)
from recap.models.finetune import causal_model
from recap.output.format import lost_turns
from recap.records import Example, Prediction
from recap.runs.folder import Part, RunFolder, model_folder, read_config
from recap.tasks.library import build_task
from recap.tasks.task import Task

_FOLD = re.compile(r"fold(\d+)")


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """A model on the disk, and what it was trained to do."""

    folder: Path
    config: RunConfig
    """Of the run that it comes from; without one, what ``recap.json`` and the command line say."""
    task: Task
    run: RunFolder | None
    """The run that it comes from, where its folder still lies in one."""
    fold: int | None
    """The fold that it was trained for; ``None`` for a final model, or one without a run."""

    @property
    def settings(self) -> ModelSettings:
        """What the model has to be told of how it was trained."""
        return read_settings(self.folder) or ModelSettings(
            format=1 if self.run else 2, task=self.task, **taught(self.config)
        )


def find_model_folder(path: Path, part: Part | Literal["all"] = "all") -> Path:
    """Return the folder of the model that a path stands for: a run's, a fold's, or a model's.

    A run folder stands for the model of ``part``, a fold or ``final``; for ``all``, for its final
    model if there is one, else for that of the fold with the lowest selection loss. A
    ``ConfigError`` where there is no model, or a baseline's.
    """
    if not path.is_dir():
        raise ConfigError(f"{path}: there is no such folder; give that of a run or a model")
    if _holds_model(path):
        return path
    if (path / "config.yaml").is_file():
        run = RunFolder(path=path)
        _refuse_baseline(run)
        folder = model_folder(run) if part == "all" else run.part(part).model
        if not folder.is_dir():
            raise ConfigError(
                f"{folder}: there is no such model (not trained, or not kept: keep_models); set "
                "cv.fold=all for the one that the run stands for"
            )
        return folder
    if _holds_model(path / "model"):
        return path / "model"
    raise ConfigError(
        f"{path}: holds no model: it is neither a run folder (config.yaml) nor a model's "
        f"(config.json or {ADAPTER_CONFIG}); give one of these"
    )


def _holds_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() or is_adapter_folder(folder)


def find_model(path: Path, fallback: RunConfig, *, task_given: bool = False) -> SavedModel:
    """Return the model that a path stands for, as :func:`find_model_folder` finds it.

    What a model does that lies in no run folder is said by ``fallback`` (where it has a
    ``recap.json``, task and lengths are those in it), and so are ``cv.fold`` and the run's own
    options. With ``task_given`` somebody chose the fallback's task, and it must be the model's.

    Raises:
        ConfigError: When there is no model, it is a baseline's or another fold's, or has another
            task's labels.
    """
    folder = find_model_folder(path, fallback.cv.fold)
    part, run = folder.parent, RunFolder(path=folder.parent.parent)
    if not run.config.is_file():
        return _without_run(folder, fallback, task_given=task_given)
    _refuse_baseline(run)
    config = read_config(run.path)
    number = _FOLD.fullmatch(part.name)
    fold = int(number[1]) if number else None
    asked = fallback.cv.fold
    if isinstance(asked, int) and asked != fold:
        raise ConfigError(
            f"cv.fold={asked}: {folder} was trained on most of that fold; give the run folder "
            f"(model={run.path}), so that each fold is labeled by its own model"
        )
    return SavedModel(folder=folder, config=config, task=build_task(config), run=run, fold=fold)


def load_saved(saved: SavedModel, *, accelerator: str = "auto") -> TrainedModel:
    """Return a saved model on its device, ready to answer."""
    if not is_adapter_folder(saved.folder):
        _refuse_encoder(saved.folder)
    device = {"gpu": "cuda"}.get(accelerator, accelerator)
    return load_trained([saved.folder], [saved.settings], device=device)[0]


def _without_run(folder: Path, fallback: RunConfig, *, task_given: bool) -> SavedModel:
    settings = read_settings(folder)
    if settings is None:
        task = build_task(fallback)
        return SavedModel(folder=folder, config=fallback, task=task, run=None, fold=None)
    if task_given and set(build_task(fallback).labels) != set(settings.task.labels):
        raise ConfigError(
            f"task={fallback.task.name}: {folder} was trained for the labels of task "
            f"{settings.task.name!r} ({SETTINGS_FILE}); leave task out, or give another model"
        )
    decoding = fallback.decoding
    if settings.decoding:
        decoding = replace(decoding, name=settings.decoding, threshold=settings.threshold)
    config = replace(fallback, decoding=decoding)
    return SavedModel(folder=folder, config=config, task=settings.task, run=None, fold=None)


def _refuse_baseline(run: RunFolder) -> None:
    baseline = read_config(run.path).baseline
    if baseline is not None:
        raise ConfigError(
            f"{run.path}: is the run of a baseline ({baseline.get('method')}), scored on its own "
            "folds already (summary.md); model= takes fine-tuned language models"
        )


def _refuse_encoder(folder: Path) -> None:
    names = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures")
    if names and not any("CausalLM" in str(name) for name in names):
        raise ConfigError(
            f"{folder}: holds {', '.join(map(str, names))}, no language model that answers; score "
            "an encoder with method=encoder encoder.path=FOLDER"
        )


def find_saved_settings(path: str | Path) -> tuple[Path, ModelSettings]:
    """Return the folder of the model that a path stands for, and what it was taught.

    It is found as by :func:`find_model_folder`, and has ``recap.json`` or lies where training put
    it; else a ``ConfigError``.
    """
    folder = find_model_folder(Path(path))
    settings, run = read_settings(folder), folder.resolve().parent.parent
    if settings is not None:
        return folder, settings
    if not (run / "config.yaml").is_file():
        raise ConfigError(
            f"{folder}: lacks {SETTINGS_FILE}, which says what the model was taught, and does not "
            "lie in a run folder; copy the folder whole from where it was trained"
        )
    config = read_config(run)
    return folder, ModelSettings(format=1, task=build_task(config), **taught(config))


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """How a detector's models are asked, as its ``from_pretrained`` has it; ``None``: as trained.

    A ``threshold`` of a named label is a pair; with one, ``decoding`` is ``scored`` by default.
    """

    decoding: Decoding | None = None
    with_rationale: bool = False
    threshold: float | tuple[str, float] | None = None
    max_prompt_tokens: int | None = None
    max_new_tokens: int | None = None
    batch_size: int = 32
    language: Language | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One prompt's token ids, whether the model has as many positions, and the turns it lost."""

    ids: tuple[int, ...]
    fits: bool
    dropped_turns: int = 0


def shortened(prompts: Iterable[Prompt]) -> Counter[str]:
    """Return how many prompts lost turns, and how many turns, as training counts them."""
    lost = [prompt.dropped_turns for prompt in prompts if prompt.dropped_turns]
    return Counter(truncated_examples=len(lost), dropped_turns=sum(lost))


def limit_of(
    trained: TrainedModel,
    task: Task,
    encoder: ChatEncoder,
    *,
    max_tokens: int | None,
    max_new_tokens: int,
) -> PromptLimit:
    """Return how long the prompts of a loaded model may be."""
    return prompt_limit(
        task,
        encoder,
        max_tokens=max_tokens,
        positions=positions_of(causal_model(trained.model).config, trained.tokenizer),
        max_new_tokens=max_new_tokens,
    )


class ModelStage:
    """Asks one model about client turns, in the prompts that it was trained with.

    The task may be in another language than that of the training; the threshold is the probability
    from which the first of two labels is decided for.

    Raises:
        ConfigError: When rationales are asked of a model that was trained without, or a threshold
            cannot be used.
    """

    def __init__(
        self,
        trained: TrainedModel,
        settings: ModelSettings,
        task: Task,
        options: AnswerOptions,
        threshold: float | None = None,
    ) -> None:
        if options.with_rationale and not task.rationale:
            raise ConfigError(
                f"the model of task {task.name!r} was trained without rationales and has none to "
                "give; leave with_rationale (rationale=true) out, or use another model"
            )
        decoding = options.decoding
        if decoding is None and threshold is None:
            decoding, threshold = settings.decoding, settings.threshold
        self.task = task
        self._encoder = ChatEncoder(trained.tokenizer)
        max_new_tokens = options.max_new_tokens or settings.max_new_tokens
        wanted = options.max_prompt_tokens or settings.max_prompt_tokens
        limited = partial(limit_of, trained, task, self._encoder, max_tokens=wanted)
        # A shorter answer than in training changes no prompt, but lets a long one be asked.
        self.limit = limited(max_new_tokens=max(max_new_tokens, settings.max_new_tokens))
        self._needed = limited(max_new_tokens=max_new_tokens)
        self._cut = settings.cut
        self._answerer = LabelScorer(
            trained.model,
            task,
            self._encoder,
            decoding=decoding or "scored",
            max_new_tokens=max_new_tokens,
            batch_size=options.batch_size,
            rationale=options.with_rationale,
            threshold=threshold,
            adapter=trained.adapter,
        )

    def prompts(self, examples: Sequence[Example]) -> list[Prompt]:
        """Return the prompts of some client turns; long ones lose whole oldest turns."""
        # One encoder a call: it remembers the length of every turn that it has met.
        tokens = self.limit.tokens
        encoder = PromptEncoder(self.task, self._encoder, max_tokens=tokens, cut=self._cut)
        encoder.count_turns(examples)
        return [
            Prompt(
                ids=p.ids, fits=not self._needed.exceeded_by(p.ids), dropped_turns=p.dropped_turns
            )
            for p in map(encoder.encode, examples)
        ]

    def answer(self, prompts: Sequence[Prompt]) -> list[ModelAnswer]:
        """Return the answers to prompts that fit, in the order given."""
        return self._answerer.answer([prompt.ids for prompt in prompts])

    def branch(self) -> ModelStage:
        """Return the same with a memory of its own: for the growing prompts of one dialogue."""
        branch = copy.copy(self)
        branch._answerer = self._answerer.branch()
        return branch


def answer_examples(
    saved: SavedModel,
    examples: Sequence[Example],
    *,
    golds: Sequence[str],
    fold: int | None,
    batch_size: int,
    accelerator: str = "auto",
) -> tuple[list[Prediction], list[str]]:
    """Return what a saved model answers, under the prompt and decoding that it was trained with.

    In the order of the examples, for each of which ``golds`` says what counts as right; the strings
    say what became of long prompts.
    """
    if not examples:
        return [], []
    config, task = saved.config, saved.task
    stage = ModelStage(
        load_saved(saved, accelerator=accelerator),
        saved.settings,
        task,
        AnswerOptions(
            decoding=config.decoding.name, with_rationale=task.rationale, batch_size=batch_size
        ),
        threshold=config.decoding.threshold,
    )
    prompts = stage.prompts(examples)
    fitting = [i for i, prompt in enumerate(prompts) if prompt.fits]
    answers = dict(zip(fitting, stage.answer([prompts[i] for i in fitting]), strict=True))
    said = lost_turns(shortened(prompts[i] for i in fitting), str(stage.limit))
    if too_long := len(prompts) - len(fitting):
        said.append(
            f"{too_long} prompts do not fit the model: it was not asked, and these count as "
            "unparsed (prompt.history=none or intervention trains one that reads less)"
        )
    predictions = [
        prediction_of(example, answers.get(i), task=task.name, gold=gold, fold=fold)
        for i, (example, gold) in enumerate(zip(examples, golds, strict=True))
    ]
    return predictions, said
