"""What runs took: seconds, devices, tokens, money, and folds that were taken up again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from recap.prompting.costs import Prices, Usage
from recap.report_sections.runs import ReportedRun


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What the finished folds of one run took; ``None`` where its manifest does not say."""

    device: str | None
    train_seconds: float | None
    """Of all finished folds together; ``None`` for a system that is not trained."""
    test_seconds: float | None
    """Of decoding and scoring."""
    selected_epochs: tuple[int, ...]
    """Of each finished fold, counted from 1; empty where nothing is trained."""
    usage: Usage | None
    """Tokens of a prompted system."""
    cost: float | None
    """In the currency of the prices."""
    resumes: tuple[str, ...]
    """Folds that a stopped process left and another took up, one entry a time."""


def resources_of(run: ReportedRun) -> Resources:
    """Return what a run took, as its manifest has it."""
    folds = finished_entries(run)
    usage = _usage(folds.values())
    prices = _prices(run)
    epochs = (entry.get("selected_epoch") for entry in folds.values())
    return Resources(
        device=run.manifest.get("device"),
        train_seconds=_total(folds.values(), "train_seconds"),
        test_seconds=_total(folds.values(), "test_seconds"),
        selected_epochs=tuple(epoch for epoch in epochs if epoch),
        usage=usage,
        cost=prices.cost(usage) if prices is not None and usage is not None else None,
        resumes=tuple(_resume_text(entry) for entry in run.manifest.get("resumes", ())),
    )


def finished_entries(run: ReportedRun) -> dict[str, Mapping[str, Any]]:
    """Return what the manifest says of the finished folds, by name (``fold0``)."""
    entries = run.manifest.get("folds", {})
    return {name: entries[name] for name in (f"fold{k}" for k in run.scores) if name in entries}


def _total(folds: Iterable[Mapping[str, Any]], key: str) -> float | None:
    seconds = [fold[key] for fold in folds if fold.get(key) is not None]
    return float(sum(seconds)) if seconds else None


def _usage(folds: Iterable[Mapping[str, Any]]) -> Usage | None:
    used = [Usage(**fold["usage"]) for fold in folds if "usage" in fold]
    return sum(used[1:], start=used[0]) if used else None


def _prices(run: ReportedRun) -> Prices | None:
    client = run.prompted.get("client", {})
    prices = [client.get(f"price_per_million_{way}") for way in ("input", "output")]
    if None in prices or not client:
        return None
    return Prices(input=prices[0], output=prices[1])


def _resume_text(entry: Mapping[str, Any]) -> str:
    doing = "training" if entry["at"] == "train" else "decoding"
    return f"{entry['fold']} at step {entry['step']} ({doing})"
