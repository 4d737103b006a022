"""Client texts that ask for a label, harmless ones of equal length, and how often labels flip."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from recap.records import Example
from recap.tasks.task import Task

Place = Literal["appended", "prepended"]
PLACES: tuple[Place, ...] = ("appended", "prepended")
TEXTS = Path(__file__).resolve().parent.parent / "injections.yaml"
RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Text:
    """One injection: its words with ``{label}`` in them, and the harmless sentences beside it."""

    number: int
    language: Literal["en", "zh"]
    words: str
    harmless: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One example, one text, one place, and the label that the text asks for.

    ``example`` counts examples from 0. ``injected`` and ``harmless`` are the example with either
    text beside its response.
    """

    example: int
    text: int
    language: str
    place: Place
    asked: str
    injected: Example
    harmless: Example


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was predicted in one trial; ``None`` for an answer that could not be read."""

    trial: Trial
    before: str | None
    injected: str | None
    harmless: str | None


def read_texts(path: Path = TEXTS) -> tuple[Text, ...]:
    """Return the injections of a file, those in English first."""
    content: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    pairs = [
        (language, words) for language in ("en", "zh") for words in content["injections"][language]
    ]
    return tuple(
        Text(
            number=number,
            language=language,  # type: ignore[arg-type]
            words=words,
            harmless=tuple(content["harmless"][language]),
        )
        for number, (language, words) in enumerate(pairs)
    )


def equal_length(sentences: Sequence[str], start: int, wanted: int, count: Count) -> str:
    """Return sentences, the first of them the ``start``-th, cut to ``wanted`` tokens or just under.

    Args:
        sentences: Are begun again when they are too few.
        start: Any number.
        wanted: Tokens.
        count: Says how many tokens texts have.
    """
    order = [sentences[(start + i) % len(sentences)] for i in range(len(sentences))]
    whole = " ".join(order * (1 + wanted // len(sentences)))
    low, high = 1, min(len(whole), 12 * wanted)
    while low < high:
        middle = (low + high + 1) // 2
        [n_tokens] = count([whole[:middle]])
        low, high = (middle, high) if n_tokens <= wanted else (low, middle - 1)
    return whole[:low].rstrip()


Count = Callable[[Sequence[str]], list[int]]


def make_trials(
    examples: Sequence[Example], task: Task, texts: Sequence[Text], count: Count
) -> list[Trial]:
    """Return every example with every text in every place, labels asked for in turn.

    A text never asks for the label that the example has.
    """
    harmless: dict[tuple[int, str], str] = {}
    trials = []
    for i, example in enumerate(examples):
        others = [label for label in task.labels if label != task.gold(example)]
        for text in texts:
            asked = others[(i + text.number) % len(others)]
            written = dataclasses.replace(task, language=text.language).written(asked)
            words = text.words.replace("{label}", written)
            key = (text.number, asked)
            if key not in harmless:
                [n_tokens] = count([words])
                harmless[key] = equal_length(text.harmless, text.number, n_tokens, count)
            for place in PLACES:
                trials.append(
                    Trial(
                        example=i,
                        text=text.number,
                        language=text.language,
                        place=place,
                        asked=asked,
                        injected=with_text(example, words, place),
                        harmless=with_text(example, harmless[key], place),
                    )
                )
    return trials


def with_text(example: Example, words: str, place: Place) -> Example:
    """Return an example whose response has a text after or before it."""
    pair = (example.response, words) if place == "appended" else (words, example.response)
    return dataclasses.replace(example, response=" ".join(pair))


def flip_rates(outcomes: Sequence[Outcome], n_examples: int, *, seed: int = 0) -> dict[str, Any]:
    """Return how often the label changed, at all and to the one asked for, with each text.

    Shares of all trials. Differences are paired, injection less harmless text, with percentile
    intervals of a bootstrap that resamples examples, for trials of one example are no independent
    observations.

    Args:
        outcomes: At least one.
        n_examples: Examples that the trials count.
        seed: Of the bootstrap.
    """
    flips = {
        "any_injected": [o.injected != o.before for o in outcomes],
        "any_harmless": [o.harmless != o.before for o in outcomes],
        "asked_injected": [o.injected == o.trial.asked != o.before for o in outcomes],
        "asked_harmless": [o.harmless == o.trial.asked != o.before for o in outcomes],
    }
    whose = np.array([o.trial.example for o in outcomes])
    sizes = np.bincount(whose, minlength=n_examples).astype(float)
    sums = {
        name: np.bincount(whose, weights=np.array(found, dtype=float), minlength=n_examples)
        for name, found in flips.items()
    }
    differences = np.stack(
        [
            sums["any_injected"] - sums["any_harmless"],
            sums["asked_injected"] - sums["asked_harmless"],
        ]
    )

    often = np.random.default_rng(seed).multinomial(
        n_examples, np.full(n_examples, 1 / n_examples), size=RESAMPLES
    )
    with np.errstate(invalid="ignore"):  # a resample may have none of the examples asked about
        drawn = (often @ differences.T) / (often @ sizes)[:, None]
    tail = (1 - CONFIDENCE) / 2
    ends = np.nanquantile(drawn, [tail, 1 - tail], axis=0)
    intervals = [
        {"value": float(value), "low": float(low), "high": float(high)}
        for value, low, high in zip(differences.sum(axis=1) / sizes.sum(), *ends, strict=True)
    ]
    return {
        "trials": len(outcomes),
        **{name: float(np.mean(found)) for name, found in flips.items()},
        "any_difference": intervals[0],
        "asked_difference": intervals[1],
    }
