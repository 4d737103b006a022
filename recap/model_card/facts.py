"""What a model's card is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recap.config import RunConfig
from recap.records import Scores, Summary
from recap.tasks.task import Task

LANGUAGES = {"en": ("en",), "zh": ("zh",), "both": ("en", "zh")}
"""Codes by ``data.language``."""

METRIC_TITLES = {
    "macro_f1": "Macro-F1",
    "macro_precision": "Macro precision",
    "macro_recall": "Macro recall",
    "accuracy": "Accuracy",
    "invalid_rate": "Unreadable answers",
}
"""What is shown, in order."""


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a model's card is made of."""

    part: str
    """``fold0`` and so on, or ``final``."""
    config: RunConfig
    task: Task
    synthetic: bool
    """Whether the corpus says that it is made up."""
    counts: Mapping[str, Mapping[str, int]]
    """Examples of each label in each part: ``train``, ``select``, ``test``."""
    leakage: Mapping[str, Any] | None = None
    """What the fold's test part shares with the others, as in leakage.json; none for ``final``."""
    scores: Scores | None = None
    """Of this fold; ``None`` for ``final``, and before the fold is scored."""
    summary: Summary | None = None
    """Over the folds finished so far; ``None`` when there is none."""
    selected_epoch: int | None = None
    """From 1; how many epochs, for ``final``."""
    learning_rate: float | None = None
    """The one that was found, where one was looked for."""
    adapter: bool = False
    """Whether the folder holds a PEFT adapter."""

    @property
    def final(self) -> bool:
        """Whether this is the model on all data."""
        return self.part == "final"

    @property
    def encoder(self) -> bool:
        """Whether it is the encoder baseline, which writes no text."""
        return self.config.baseline is not None

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the dialogues' languages; the prompt's where the data's are not stated."""
        return LANGUAGES[self.config.data.language or self.task.language]
