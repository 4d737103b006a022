"""Dialogues, prompts and answers on the console, for those who asked for ``privacy.log_text``."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from recap.records import Prediction
from recap.telling import TextSample


def print_texts(console: Console, sample: TextSample) -> None:
    """Print one whole prompt of a fold, and some dialogues with what was answered."""
    for message in sample.prompt:
        _say(console, f"{sample.name}    prompt, {message.role}:\n{message.text}")
    for example, prediction in sample.pairs:
        turns = [f"{turn.speaker}: {turn.text}" for turn in example.history]
        dialogue = "\n".join([*turns, f"client: {example.response}"])
        _say(console, f"{sample.name}    example {example.id}:\n{dialogue}")
        print_answers(console, [prediction])


def print_answers(console: Console, predictions: Sequence[Prediction]) -> None:
    """Print answers as they were given, beside what was read off them and what is right."""
    for prediction in predictions:
        label = prediction.label or "unreadable"
        _say(
            console,
            f"answer to {prediction.id} (annotated {prediction.gold}, read {label}):\n"
            f"{prediction.text}",
        )


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, markup=False)
