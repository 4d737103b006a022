"""One model and one task: from client turns to prompts, from prompts to answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from recap.data.chat import ChatEncoder
from recap.data.encode import PromptEncoder
from recap.errors import ConfigError
from recap.models.finetune import causal_model
from recap.records import Example

if TYPE_CHECKING:
    from recap.models.answerer import Conversation, ModelAnswer
    from recap.models.settings import ModelSettings
    from recap.models.trained import TrainedModel
    from recap.tasks.task import Task

Decoding = Literal["free", "constrained", "scored"]


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """How answers are read off the models of a detector."""

    decoding: Decoding = "scored"
    """``scored``: the likeliest label; ``constrained``, ``free``: greedy text."""
    with_rationale: bool = False
    """Whether the reason is written too."""
    threshold: float | tuple[str, float] | None = None
    """Probability from which the first of two labels, or the named one, is decided for."""
    max_prompt_tokens: int | None = None
    """Longest prompt; ``None``: as in training."""
    max_new_tokens: int | None = None
    """Longest answer; ``None``: as in training."""
    batch_size: int = 32
    """Prompts answered together."""
    language: Literal["en", "zh"] | None = None
    """Of prompt and answer; ``None``: as in training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One prompt's token ids, whether the model has as many positions, and the turns it lost."""

    ids: tuple[int, ...]
    fits: bool
    dropped_turns: int = 0


class Stage:
    """Asks one model about client turns, in the prompts that it was trained with.

    Args:
        trained: The model.
        settings: How it was trained.
        task: Its task, perhaps in another language.
        options: How it is asked.
        threshold: Probability from which the first of two labels is decided for.

    Raises:
        ConfigError: When reasons are asked of a model that was trained without, or a threshold
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
        from recap.models.answerer import Answerer

        if options.with_rationale and not task.rationale:
            raise ConfigError(
                f"the model of task {task.name!r} was trained without reasons and has none to "
                "give; leave with_rationale (rationale=true) out, or use another model"
            )
        self.task = task
        self._encoder = ChatEncoder(trained.tokenizer)
        max_new_tokens = options.max_new_tokens or settings.max_new_tokens
        positions = causal_model(trained.model).config.max_position_embeddings
        self._longest = positions - max_new_tokens
        wanted = options.max_prompt_tokens or settings.max_prompt_tokens or self._longest
        self._max_tokens = min(wanted, self._longest)
        self._answerer = Answerer(
            trained.model,
            task,
            self._encoder,
            decoding=options.decoding,
            max_new_tokens=max_new_tokens,
            batch_size=options.batch_size,
            rationale=options.with_rationale,
            threshold=threshold,
            adapter=trained.adapter,
        )

    def prompts(self, examples: Sequence[Example]) -> list[Prompt]:
        """Return the prompts of some client turns; long ones lose whole oldest turns."""
        # One encoder a call: it remembers the length of every turn that it has met.
        encoder = PromptEncoder(self.task, self._encoder, max_tokens=self._max_tokens)
        encoder.count_turns(examples)
        encoded = [encoder.encode(example) for example in examples]
        return [
            Prompt(
                ids=prompt.ids,
                fits=len(prompt.ids) <= self._longest,
                dropped_turns=prompt.dropped_turns,
            )
            for prompt in encoded
        ]

    def answer(self, prompts: Sequence[Prompt]) -> list[ModelAnswer]:
        """Return the answers to prompts that fit, in the order given."""
        return self._answerer.answer([prompt.ids for prompt in prompts])

    def conversation(self) -> Conversation:
        """Return answers to the growing prompts of one dialogue."""
        return self._answerer.conversation()
