"""Examples as token ids: the prompt a model sees and the answer it is trained to give.

Long dialogues lose whole turns, the oldest first, until their prompt fits; how many is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from recap.data.chat import ChatEncoder
from recap.records import Answer, Example, Turn

if TYPE_CHECKING:
    from recap.tasks.task import Task

__all__ = ["ChatEncoder", "EncodedExample", "Encoding", "PromptEncoder", "encode_examples"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedExample:
    """One example as token ids.

    ``answer`` ends with the end of turn and is empty for an example without a label; ``gold`` is
    the index of its category in the task's labels, ``None`` without a label.
    """

    id: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    gold: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """Encoded examples in the order given, and what the limit on prompts cost.

    ``counts``: ``dropped_turns`` in all, ``truncated_examples`` that lost at least one,
    ``still_too_long`` examples whose prompt exceeds the limit with nothing left to drop.
    """

    examples: tuple[EncodedExample, ...]
    counts: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedPrompt:
    """One prompt's ids, the turns it lost, and whether it is within the limit."""

    ids: tuple[int, ...]
    dropped_turns: int
    fits: bool


class PromptEncoder:
    """Turns examples into prompts of at most ``max_tokens`` tokens.

    The response, the counsellor's intervention before it, the examples shown and the task's own
    text are never cut; only turns before the intervention go, whole and the oldest first, and no
    more than needed.

    Args:
        task: Renders an example as messages.
        encoder: Turns messages into ids.
        max_tokens: Longest prompt in tokens, the generation header included; ``None`` for no limit.
        shots: Solved examples shown in every prompt.
    """

    def __init__(
        self,
        task: Task,
        encoder: ChatEncoder,
        *,
        max_tokens: int | None = None,
        shots: Sequence[Example] = (),
    ) -> None:
        self._task = task
        self._encoder = encoder
        self._max_tokens = max_tokens
        self._shots = tuple(shots)
        self._tokens_of: dict[str, int] = {}
        # Tokens that a turn costs beside its text (speaker, line end); learned from exact
        # encodings.
        self._tokens_per_turn = 4.0

    def count_turns(self, examples: Iterable[Example]) -> None:
        """Count the tokens of all turns at once, ahead of encoding many examples.

        Histories of one dialogue share their turns, so this is far less than the text of all
        prompts.
        """
        if self._max_tokens is None or self._task.history != "full":
            return
        texts = {turn.text for example in examples for turn in example.history}
        new = sorted(texts - self._tokens_of.keys())
        self._tokens_of.update(zip(new, self._encoder.count_tokens(new), strict=True))

    def encode(self, example: Example) -> EncodedPrompt:
        """Return the prompt of one example, without its oldest turns where it would be too long."""
        limit = self._max_tokens
        if limit is None:
            return EncodedPrompt(ids=self._ids(example, 0), dropped_turns=0, fits=True)
        most = _droppable(example.history) if self._task.history == "full" else 0
        self.count_turns([example])
        # The texts alone are a lower bound: most prompts are judged without being encoded.
        if most == 0 or sum(self._tokens(turn) for turn in example.history) <= limit:
            whole = self._ids(example, 0)
            if len(whole) <= limit or most == 0:
                return EncodedPrompt(ids=whole, dropped_turns=0, fits=len(whole) <= limit)
        shortest = self._ids(example, most)
        if len(shortest) >= limit:
            return EncodedPrompt(ids=shortest, dropped_turns=most, fits=len(shortest) == limit)
        dropped, ids = self._fewest_drops(example, limit, most, shortest)
        return EncodedPrompt(ids=ids, dropped_turns=dropped, fits=True)

    def _fewest_drops(
        self, example: Example, limit: int, most: int, shortest: tuple[int, ...]
    ) -> tuple[int, tuple[int, ...]]:
        """Return the smallest number of dropped turns whose prompt fits, and that prompt."""
        known = {most: shortest}

        def ids(dropped: int) -> tuple[int, ...]:
            if dropped not in known:
                known[dropped] = self._ids(example, dropped)
            return known[dropped]

        dropped = self._guess(example.history, most, limit - len(shortest))
        while len(ids(dropped)) > limit:
            dropped += 1
        # Adding a turn costs at least its text: only where that would fit is the next prompt
        # encoded.
        while (
            dropped > 0 and len(ids(dropped)) + self._tokens(example.history[dropped - 1]) <= limit
        ):
            if len(ids(dropped - 1)) > limit:
                break
            dropped -= 1
        self._learn(example.history[dropped:most], len(ids(dropped)) - len(shortest))
        return dropped, ids(dropped)

    def _guess(self, history: Sequence[Turn], most: int, budget: float) -> int:
        for dropped in range(most, 0, -1):
            budget -= self._tokens(history[dropped - 1]) + self._tokens_per_turn
            if budget < 0:
                return dropped
        return 0

    def _learn(self, kept: Sequence[Turn], cost: int) -> None:
        if kept:
            self._tokens_per_turn = max(0.0, (cost - sum(map(self._tokens, kept))) / len(kept))

    def _tokens(self, turn: Turn) -> int:
        return self._tokens_of[turn.text]

    def _ids(self, example: Example, dropped: int) -> tuple[int, ...]:
        cut = replace(example, history=example.history[dropped:]) if dropped else example
        return self._encoder.prompt_ids(self._task.messages(cut, self._shots))


def encode_examples(
    examples: Sequence[Example],
    task: Task,
    encoder: ChatEncoder,
    *,
    max_tokens: int | None = None,
    shots: Sequence[Example] = (),
) -> Encoding:
    """Return the ids of prompts and answers of examples that the task has selected.

    Args:
        examples: In the order in which they come back; one without a label gets no answer.
        task: Renders prompts and answers.
        encoder: Turns messages and answers into ids.
        max_tokens: Longest prompt in tokens; longer ones lose whole oldest turns. The answer is
            never cut and not counted. ``None`` for no limit.
        shots: Solved examples shown in every prompt.
    """
    prompts = PromptEncoder(task, encoder, max_tokens=max_tokens, shots=shots)
    prompts.count_turns(examples)
    encoded: list[EncodedExample] = []
    counts = {"dropped_turns": 0, "truncated_examples": 0, "still_too_long": 0}
    for example in examples:
        prompt = prompts.encode(example)
        counts["dropped_turns"] += prompt.dropped_turns
        counts["truncated_examples"] += prompt.dropped_turns > 0
        counts["still_too_long"] += not prompt.fits
        encoded.append(_encoded(example, prompt.ids, task, encoder))
    return Encoding(examples=tuple(encoded), counts=counts)


def _encoded(
    example: Example, prompt: tuple[int, ...], task: Task, encoder: ChatEncoder
) -> EncodedExample:
    if example.label is None:
        return EncodedExample(id=example.id, prompt=prompt, answer=())
    label = task.gold(example)
    text = task.render(Answer(label=label, rationale=example.rationale if task.rationale else None))
    return EncodedExample(
        id=example.id, prompt=prompt, answer=encoder.answer_ids(text), gold=task.index(label)
    )


def _droppable(history: Sequence[Turn]) -> int:
    """Return how many turns stand before the intervention, the counsellor's last turn or turns."""
    kept = 0
    for turn in reversed(history):
        if turn.speaker != "counselor":
            break
        kept += 1
    return len(history) - kept
