"""A model on this machine that is prompted as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from recap.config import RunConfig
from recap.data.chat import ChatEncoder
from recap.data.encode import encode_examples
from recap.errors import ConfigError
from recap.models.answerer import Answerer, ModelAnswer
from recap.models.backbone import load_backbone, load_tokenizer
from recap.models.export import CARD_FILE
from recap.models.hub import hub_folder
from recap.prompting.cache import FOLDER, AnswerCache, content_key
from recap.prompting.costs import Usage
from recap.prompting.system import Answered, Workload
from recap.records import Example
from recap.tasks.task import Task

_BATCHES_BETWEEN_WRITES = 4
_AUTOCAST = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}
_WHOLE = {"bf16-true": "bfloat16", "64-true": "float64"}


class LocalModel:
    """A prompted backbone; see :class:`recap.prompting.system.System`.

    Answers are kept as those of servers are, under a hash of prompt, decoding and weights (names,
    sizes and times of their files).

    Args:
        config: Names the backbone, where it runs, and how answers are decoded.
        task: Writes prompts and reads answers.

    Raises:
        ConfigError: When there is no such backbone.
    """

    def __init__(self, config: RunConfig, task: Task) -> None:
        self._config = config
        self._task = task
        self._cache = AnswerCache(Path(config.runs_dir) / FOLDER)
        self._encoder = ChatEncoder(load_tokenizer(**self._source))
        self.shortened: Mapping[str, int] = {}

    @property
    def device(self) -> str:
        """Where the model runs."""
        import torch

        wanted = self._config.trainer.accelerator
        use_gpu = wanted == "gpu" or (wanted == "auto" and torch.cuda.is_available())
        return "cuda" if use_gpu else "cpu"

    def answer(
        self,
        examples: Sequence[Example],
        shots: Sequence[Example],
        *,
        on_answer: Callable[[], None] = lambda: None,
    ) -> tuple[list[Answered], Usage]:
        """Return what the model says of each example, decoding only what it has not before."""
        prompts = self._prompts(examples, shots)
        keys = [self._key(prompt) for prompt in prompts]
        answers: dict[str, Answered] = {}
        still: dict[str, tuple[int, ...]] = {}
        for key, prompt in zip(keys, prompts, strict=True):
            found = self._kept(key)
            if found is None and key not in still:
                still[key] = prompt
            else:
                on_answer()
            if found is not None:
                answers[key] = found
        for key, answer in self._decoded(still, shots):
            self._cache.write(key, asdict(answer))
            answers[key] = answer
            on_answer()
        distinct = dict(zip(keys, prompts, strict=True))
        usage = Usage(
            answers=len(distinct),
            input_tokens=sum(map(len, distinct.values())),
            output_tokens=sum(self._encoder.count_tokens([answers[key].text for key in distinct])),
        )
        return [answers[key] for key in keys], usage

    def workload(self, examples: Sequence[Example], shots: Sequence[Example]) -> Workload:
        """Return the number of prompts still to be answered, and their tokens, exactly."""
        prompts = {self._key(prompt): prompt for prompt in self._prompts(examples, shots)}
        still = [prompt for key, prompt in prompts.items() if self._kept(key) is None]
        return Workload(
            calls=len(still),
            kept=len(prompts) - len(still),
            input_tokens=sum(map(len, still)),
        )

    def _decoded(
        self, prompts: Mapping[str, tuple[int, ...]], shots: Sequence[Example]
    ) -> Iterator[tuple[str, Answered]]:
        """Yield keys and answers, the longest prompts first, some batches at a time."""
        if not prompts:
            return
        decoding = self._config.decoding
        answerer = Answerer(
            self._model,
            self._task,
            self._encoder,
            shots=shots,
            decoding=decoding.name,
            max_new_tokens=decoding.max_new_tokens,
            batch_size=decoding.batch_size,
            threshold=decoding.threshold,
        )
        order = sorted(prompts, key=lambda key: -len(prompts[key]))
        step = _BATCHES_BETWEEN_WRITES * decoding.batch_size
        for start in range(0, len(order), step):
            keys = order[start : start + step]
            with self._precision():
                said = answerer.answer([prompts[key] for key in keys])
            yield from zip(keys, map(_answered, said), strict=True)

    def _prompts(
        self, examples: Sequence[Example], shots: Sequence[Example]
    ) -> list[tuple[int, ...]]:
        encoding = encode_examples(
            examples,
            self._task,
            self._encoder,
            max_tokens=self._config.prompt.max_tokens,
            shots=shots,
        )
        self.shortened = dict(encoding.counts)
        return [example.prompt for example in encoding.examples]

    def _kept(self, key: str) -> Answered | None:
        found = self._cache.read(key)
        try:
            return None if found is None else Answered(**found)
        except TypeError:
            return None

    def _key(self, prompt: Sequence[int]) -> str:
        return content_key({**self._asked, "prompt": list(prompt)})

    @cached_property
    def _asked(self) -> dict[str, Any]:
        """All that an answer depends on beside the prompt."""
        config, task = self._config, self._task
        return {
            "api": "local",
            "weights": _fingerprint(config),
            "dtype": config.backbone.dtype,
            "precision": config.trainer.precision,
            "decoding": [config.decoding.name, config.decoding.threshold],
            "max_new_tokens": config.decoding.max_new_tokens,
            "labels": [*task.labels, task.language, task.label_form, task.rationale],
        }

    @cached_property
    def _model(self) -> Any:
        """The weights, loaded when the first prompt needs them."""
        import torch

        config, device = self._config, self.device
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError(
                "trainer.accelerator=gpu: there is no GPU here; use trainer=cpu or trainer=auto"
            )
        model, _ = load_backbone(**self._source, dtype=config.backbone.dtype, seed=config.seed)
        whole = _WHOLE.get(config.trainer.precision)
        return model.to(device=device, dtype=getattr(torch, whole) if whole else None)

    @property
    def _source(self) -> dict[str, Any]:
        backbone = self._config.backbone
        return {
            "name": backbone.name,
            "family": backbone.family,
            "hub_id": backbone.hub_id,
            "path": backbone.path,
        }

    def _precision(self) -> AbstractContextManager[Any]:
        import torch

        mixed = _AUTOCAST.get(self._config.trainer.precision)
        return torch.autocast(self.device, getattr(torch, mixed)) if mixed else nullcontext()


def _answered(answer: ModelAnswer) -> Answered:
    return Answered(
        text=answer.text,
        label=answer.label,
        rationale=answer.rationale,
        probabilities=dict(answer.probabilities),
    )


def _fingerprint(config: RunConfig) -> list[Any]:
    """Return what tells one backbone's weights from another's, without reading them."""
    backbone = config.backbone
    if backbone.path is not None:
        folder = Path(backbone.path)
    elif backbone.hub_id is not None:
        folder = hub_folder(backbone.hub_id, backbone.name, backbone.family)
    else:
        return [backbone.name, config.seed]
    # A model's card changes as other folds are finished, and is no part of the model.
    files = sorted(f for f in folder.iterdir() if f.is_file() and f.name != CARD_FILE)
    return [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]
