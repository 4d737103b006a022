"""Prompts in, answers out: greedy text, read by the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recap.data.chat import ChatEncoder
from recap.models.decode import generate
from recap.records import Example
from recap.tasks.task import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelAnswer:
    """A model's answer; ``label`` is ``None`` where none can be read in ``text``."""

    text: str
    label: str | None
    rationale: str | None
    probabilities: Mapping[str, float] | None


class Answerer:
    """Answers prompts with one model.

    Args:
        model: A ``transformers`` causal language model.
        task: Reads answers.
        encoder: The model's.
        shots: Solved examples that the prompts show.
        decoding: ``free``, the only one here.
        max_new_tokens: Longest answer.
        batch_size: Prompts decoded together.
    """

    def __init__(
        self,
        model: Any,
        task: Task,
        encoder: ChatEncoder,
        *,
        shots: Sequence[Example] = (),
        decoding: str = "free",
        max_new_tokens: int = 128,
        batch_size: int = 32,
    ) -> None:
        self._model = model
        self._task = task
        self._encoder = encoder
        self._max_new_tokens = max_new_tokens
        self._batch_size = batch_size

    def answer(self, prompts: Sequence[Sequence[int]]) -> list[ModelAnswer]:
        """Return the answer to each prompt (token ids), in order."""
        generated = generate(
            self._model,
            prompts,
            max_new_tokens=self._max_new_tokens,
            end_of_turn_id=self._encoder.end_of_turn_id,
            pad_id=self._encoder.pad_id,
            batch_size=self._batch_size,
        )
        answers = []
        for text in map(self._encoder.text, generated):
            answer = self._task.parse(text)
            answers.append(
                ModelAnswer(
                    text=text, label=answer.label, rationale=answer.rationale, probabilities=None
                )
            )
        return answers
