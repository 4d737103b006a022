"""The paper's published figures (arXiv 2601.14780, Tables 4, 5, 10 and 11), to stand beside ours.

``published.csv`` holds every cell that our copy of the paper has, in percent. A cell is blank where
the paper contradicts itself (two tables print different figures, rows repeat or join others, means
do not fit the classes); its ``doubt`` says how. Cells that our copy lacks are not there at all.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from recap.report_sections.systems import System


@dataclass(frozen=True, kw_only=True)
class PublishedFigure:
    """One published cell, in percent; ``None`` where it is blank."""

    mean: float | None
    std: float | None
    tables: tuple[str, ...]
    """Numbers of the paper's tables that print it."""
    doubt: str
    """Why it, or its deviation, is blank."""


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One published system; ``figures`` by task, category (empty: over all) and metric."""

    model: str
    setting: str
    rationale: bool | None
    """``None`` where the paper does not say."""
    figures: Mapping[tuple[str, str, str], PublishedFigure]

    def figure(self, task: str, metric: str, category: str = "") -> PublishedFigure | None:
        """Return a figure, ``None`` where our copy of the paper has none."""
        return self.figures.get((task, category, metric))


_MODELS = {
    "gpt4o": "GPT-4o",
    "claude35sonnet": "Claude-3.5-Sonnet",
    "qwen7b": "Qwen2.5-7B-Instruct",
    "qwen14b": "Qwen2.5-14B-Instruct",
    "qwen32b": "Qwen2.5-32B-Instruct",
    "qwen72b": "Qwen2.5-72B-Instruct",
    "llama8b": "Llama-3.1-8B-Instruct",
    "llama70b": "Llama-3.1-70B-Instruct",
}
_SERVED = {
    "gpt4o": r"gpt-4o(-\d{4}-\d{2}-\d{2})?",
    "claude35sonnet": r"claude-3-5-sonnet(-\d{8}|-latest)?",
}
"""As their vendors call them; open models are called as on the hub."""
_RATIONALES = {"true": True, "false": False, "": None}


@cache
def published_rows() -> tuple[PublishedRow, ...]:
    """Return all published rows, baselines first."""
    grouped: dict[tuple[str, str, str, str], dict[tuple[str, str, str], PublishedFigure]] = {}
    text = files("recap.report_sections").joinpath("published.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        key = row["system"], row["shots"], row["tuning"], row["rationale"]
        grouped.setdefault(key, {})[row["task"], row["category"], row["metric"]] = PublishedFigure(
            mean=float(row["mean"]) if row["mean"] else None,
            std=float(row["std"]) if row["std"] else None,
            tables=tuple(row["tables"].split()),
            doubt=row["doubt"],
        )
    return tuple(
        PublishedRow(
            model=_MODELS[system],
            setting={"0": "zero-shot", "1": "few-shot"}.get(shots, tuning),
            rationale=_RATIONALES[rationale],
            figures=figures,
        )
        for (system, shots, tuning, rationale), figures in grouped.items()
    )


def published_row(system: System) -> PublishedRow | None:
    """Return the paper's row of a system: same model, tuning or shots, and rationale."""
    for row in published_rows():
        setting = "lora r8" if row.setting == "lora" else row.setting
        if system.setting != setting or row.rationale not in (None, system.rationale):
            continue
        key = next(key for key, name in _MODELS.items() if name == row.model)
        if system.model == key or re.fullmatch(_hub_name(key), system.model):
            return row
    return None


def _hub_name(key: str) -> str:
    return _SERVED.get(key, rf"([\w.-]+/)?(Meta-)?{re.escape(_MODELS[key])}")
