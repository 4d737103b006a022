"""What a report calls the systems that its runs scored, and which runs are of one system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recap.prompting.options import COMPARED
from recap.report_sections.runs import ReportedRun
from recap.result_options import flatten, result_options

_TUNINGS = {"full": "full", "none": "untrained"}
_MOST_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class System:
    """One system, whatever tasks it was scored on."""

    model: str
    """Backbone, served model or baseline."""
    setting: str
    """Tuning, or shots."""
    rationale: bool | None
    """Whether it gives reasons; ``None`` for a baseline, which never does."""
    note: str
    """What tells it from others of the same model, setting and rationale; empty where none is."""
    runs: Mapping[str, ReportedRun]
    """Its runs by task."""

    @property
    def name(self) -> str:
        """All of it in one line."""
        reasons = {True: "with rationale", False: "label only", None: ""}[self.rationale]
        return ", ".join(part for part in (self.model, self.setting, reasons, self.note) if part)

    @property
    def cells(self) -> tuple[str, str, str]:
        """Model, setting and rationale as a table has them."""
        mark = {True: "✓", False: "✗", None: "–"}[self.rationale]
        setting = f"{self.setting} ({self.note})" if self.note else self.setting
        return self.model, setting, mark


def group_systems(runs: Sequence[ReportedRun]) -> tuple[System, ...]:
    """Return the systems of the runs, in the order in which they come first.

    Runs are of one system when all their result-changing options are the same but for the task.
    """
    groups: list[tuple[dict[str, Any], dict[str, ReportedRun]]] = []
    for run in runs:
        options = system_options(run)
        for known, by_task in groups:
            if known == options and run.task.name not in by_task:
                by_task[run.task.name] = run
                break
        else:
            groups.append((options, {run.task.name: run}))
    visible = [_visible(next(iter(by_task.values()))) for _, by_task in groups]
    return tuple(
        System(
            model=visible[i][0],
            setting=visible[i][1],
            rationale=visible[i][2],
            note=_note(i, groups, [j for j, other in enumerate(visible) if other == visible[i]]),
            runs=by_task,
        )
        for i, (_, by_task) in enumerate(groups)
    )


def system_options(run: ReportedRun) -> dict[str, Any]:
    """Return a run's result-changing options without those of its task."""
    options = result_options(run.config)
    if run.prompted:
        flat = flatten(run.prompted)
        options |= {key: flat.get(key) for key in COMPARED}
    return {key: value for key, value in options.items() if not key.startswith("task.")}


def _visible(run: ReportedRun) -> tuple[str, str, bool | None]:
    config = run.config
    if run.kind == "baseline":
        method = dict(config.baseline or {}).get("method")
        if method == "tfidf":
            return "TF-IDF", "linear", None
        return config.backbone.name, f"{method}", None
    if run.kind == "prompted":
        client = run.prompted["client"]
        local = client["name"] == "local"
        model = config.backbone.name if local else str(client["model"])
        return model, "few-shot" if run.prompted["shots"] else "zero-shot", config.rationale
    method = config.finetune.method
    setting = _TUNINGS.get(method, f"{method} r{config.finetune.rank}")
    return config.backbone.name, setting, config.rationale


def _note(
    index: int,
    groups: Sequence[tuple[dict[str, Any], dict[str, ReportedRun]]],
    alike: Sequence[int],
) -> str:
    """Return the options by which a system differs from those that look the same."""
    if len(alike) == 1:
        return ""
    own = groups[index][0]
    keys = sorted({key for i in alike for key in groups[i][0]})
    different = [k for k in keys if len({repr(groups[i][0].get(k)) for i in alike}) > 1]
    if not different or len(different) > _MOST_NAMED:
        return next(iter(groups[index][1].values())).name
    return ", ".join(f"{key}={own.get(key)}" for key in different)
