"""Texts of a fold shown to those who asked for them (``privacy.log_text``); to nobody else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recap.config import RunConfig
from recap.records import Example, Message, Prediction
from recap.run_folder import FoldFolder
from recap.scoring.files import predictions_from_jsonl
from recap.tracking.tracker import Tracker

N_SHOWN = 3
"""Examples of a fold that the console shows; a tracker gets all."""


@dataclass(frozen=True, kw_only=True)
class TextSample:
    """What a fold was asked and what it answered, as the console shows it."""

    name: str
    """The fold's."""
    prompt: tuple[Message, ...]
    """The first example's prompt as a whole; empty for systems that have none."""
    pairs: tuple[tuple[Example, Prediction], ...]
    """Some test examples, each with its answer."""


def tell_texts(
    config: RunConfig,
    folder: FoldFolder,
    examples: Sequence[Example],
    *,
    tracker: Tracker,
    tell: Callable[[TextSample], None],
    prompt: Callable[[Example], tuple[Message, ...]] = lambda example: (),
) -> None:
    """Pass a fold's dialogues and answers on, if ``privacy.log_text`` allows it.

    Args:
        config: The run's.
        folder: The fold's, with its predictions written.
        examples: Its test examples, in the order of the predictions.
        tracker: Gets all of them.
        tell: Gets a few for the console.
        prompt: What an example's prompt is.
    """
    if not config.privacy.log_text:
        return
    text = folder.predictions.read_text(encoding="utf-8")
    predictions = predictions_from_jsonl(text, source=str(folder.predictions))
    pairs = tuple(zip(examples, predictions, strict=True))
    tracker.log_texts(pairs)
    tell(TextSample(name=folder.path.name, prompt=prompt(examples[0]), pairs=pairs[:N_SHOWN]))
