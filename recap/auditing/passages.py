"""Where a response or a rationale stands among the tokens that a model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from recap.auditing.options import TextField
from recap.data.encode import ChatEncoder, PromptEncoder
from recap.models.reading import Passage
from recap.records import Answer, Example
from recap.tasks.task import Task

_PROBES = ("A", "一", "1")
"""Texts that no text begins or ends like: at least one of them differs in its first token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """All tokens that a model read, and where a text lies in them (``start`` up to ``end``)."""

    ids: tuple[int, ...]
    start: int
    end: int

    def behind(self, n: int, *, shortest: int) -> Passage | None:
        """Return the text's tokens behind its first ``n``; ``None`` where fewer are left."""
        if self.end - self.start - n < shortest:
            return None
        return Passage(ids=self.ids[: self.end], start=self.start + n)


class Spans:
    """Finds texts among the tokens of prompt and answer, as training lays them out.

    Args:
        task: Writes prompts and answers.
        encoder: The model's tokenizer.
        max_tokens: Longest prompt, as in training.
    """

    def __init__(self, task: Task, encoder: ChatEncoder, *, max_tokens: int | None) -> None:
        self._task = task
        self._encoder = encoder
        self._prompts = PromptEncoder(task, encoder, max_tokens=max_tokens)

    def of(self, example: Example, field: TextField) -> Span:
        """Return where a field of an example stands."""
        prompt = self._prompts.encode(example)
        if field == "rationale":
            answer, start = self._answer(example)
            # What ends the turn is no part of the text.
            whole = (*prompt.ids, *answer)
            return Span(ids=whole, start=len(prompt.ids) + start, end=len(whole) - 1)
        cut = replace(example, history=example.history[prompt.dropped_turns :])
        probes = [
            self._encoder.prompt_ids(self._task.messages(replace(cut, response=text)))
            for text in _PROBES
        ]
        start = min(_common(prompt.ids, probe) for probe in probes)
        behind = min(_common(prompt.ids[::-1], probe[::-1]) for probe in probes)
        return Span(ids=prompt.ids, start=start, end=len(prompt.ids) - behind)

    def _answer(self, example: Example) -> tuple[tuple[int, ...], int]:
        """Return the tokens of the answer, and where its rationale begins."""
        label = self._task.gold(example)
        own, *probes = (
            self._encoder.answer_ids(self._task.render(Answer(label=label, rationale=text)))
            for text in (example.rationale, *_PROBES)
        )
        return own, min(_common(own, probe) for probe in probes)


def candidates(spans: Sequence[Span]) -> list[Passage]:
    """Return the same text with several secrets, each from where the first of them differs."""
    first = spans[0]
    start = min(_common(first.ids, span.ids) for span in spans[1:])
    return [Passage(ids=span.ids[: span.end], start=max(1, start)) for span in spans]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many leading tokens two sequences share."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
