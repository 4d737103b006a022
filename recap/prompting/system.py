"""What answers prompts, on a server or on this machine, as the folds see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from recap.prompting.costs import Usage
from recap.records import Example


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """What a system says of one example; ``label`` is ``None`` where none can be read."""

    text: str
    label: str | None
    rationale: str | None
    probabilities: Mapping[str, float] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """Prompts that have no answer yet, those that have one, and the tokens of the former."""

    calls: int
    kept: int
    input_tokens: int

    def __add__(self, other: Workload) -> Workload:
        return Workload(
            calls=self.calls + other.calls,
            kept=self.kept + other.kept,
            input_tokens=self.input_tokens + other.input_tokens,
        )


class System(Protocol):
    """A language model that is prompted."""

    @property
    def device(self) -> str:
        """Where it runs, for the manifest."""

    @property
    def shortened(self) -> Mapping[str, int]:
        """What prompts lost to ``prompt.max_tokens``, as :class:`recap.data.encode.Encoding`.

        Of the examples last asked about; empty where there is no limit.
        """

    def answer(
        self,
        examples: Sequence[Example],
        shots: Sequence[Example],
        *,
        on_answer: Callable[[], None],
    ) -> tuple[list[Answered], Usage]:
        """Return what it says of each example, in order, and what the answers have used.

        Args:
            examples: To be judged.
            shots: Solved examples shown in every prompt.
            on_answer: Called for every example that has its answer.
        """

    def workload(self, examples: Sequence[Example], shots: Sequence[Example]) -> Workload:
        """Return what answering these examples takes, without asking anything."""
