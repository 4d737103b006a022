"""What a report says of its runs in sentences: the templates of statements.yaml over their facts.

Python computes facts and writes no sentence; statements.yaml has the sentences and computes
nothing. Two sections are made of them: the protocol statement, exactly what was done, with the
options by which runs differ; and the items of two reporting guidelines, what the runs answer and
what the authors have to.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from recap.config import COMPARED, flatten, result_options
from recap.data.folds import SELECT_PARTS
from recap.metrics.scalar import SCALAR_METRICS
from recap.metrics.scores import missing_labels, spread_text
from recap.output.format import DASH, duration_text, percent
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.output.templates import read_texts, render_notes, render_text
from recap.report.manifest import (
    COMMIT,
    KINDS,
    NOT_INSTALLED,
    UNKNOWN,
    Resources,
    finished_entries,
    leakage_counts,
    places_of,
    resources_of,
    value_sheet,
)
from recap.report.options import ReportConfig
from recap.report.runs import ALL, ReportedRun, distinct, in_one_text, named, statements_of

Facts = dict[str, Any]

_FIELD = re.compile(r".*?:\d+: (?P<field>[\w .\[\]-]{1,40}): ")
_SOFTWARE = ("python", "torch", "lightning", "transformers", "peft")


class Statements:
    """The statements and answers about some runs; what is known of each is computed once."""

    def __init__(self, runs: Sequence[ReportedRun]) -> None:
        self.texts = read_texts("report/statements.yaml")
        words = {"words": self.texts["words"]}
        self._runs = tuple(runs)
        self._of_run = {run.name: {**run_facts(run), **words} for run in runs}
        told = {"each": self._each, "answer": self.answer}
        self._of_all = {**all_facts(runs), **words, **told}

    def about(self, name: str, run: ReportedRun) -> str | None:
        """Return what a statement of statements.yaml says of a run; ``None`` for nothing."""
        facts = {**self._of_run[run.name], "statement": lambda other: self.about(other, run)}
        return render_text(self.texts["statements"][name], facts) or None

    def answer(self, name: str) -> str:
        """Return what the runs together answer; empty where they cannot."""
        return self.of_all(self.texts["answers"][name])

    def of_all(self, text: str) -> str:
        """Return a template filled in with the facts about all runs."""
        return render_text(text, self._of_all)

    def _each(self, *names: str, of: Sequence[ReportedRun] | None = None) -> str:
        runs = self._runs if of is None else of
        texts = [in_one_text(runs, partial(self.about, name)) for name in names]
        return " ".join(text for text in texts if text)


def run_facts(run: ReportedRun) -> Facts:
    """Return the facts about one run that its statements are made of."""
    predictions = run.all_predictions
    folds = run.leakage.get("folds", ())
    leaks = [leakage_counts(fold) for fold in folds]
    baseline = run.config.baseline or {}
    # A row's fault is ``file:line: field: reason``; of the reason nothing is told.
    matches = map(_FIELD.match, run.data.get("faults", ()))
    fields = [match["field"] if match else "another" for match in matches]
    found_rate = run.manifest.get("learning_rate")
    shots = (entry.get("shots", ()) for entry in finished_entries(run).values())
    return {
        "run": run,
        "config": run.config,
        "task": run.task,
        "manifest": run.manifest,
        "data": run.data,
        "counts": run.data.get("counts", {}),
        "issues": dict(Counter(fields).most_common()),
        "tested_folds": list(run.scores),
        "support": {label: run.summary.per_label[label].support for label in run.summary.labels},
        "n_predictions": len(predictions),
        "n_sessions": len({prediction.session for prediction in predictions} - {None}),
        "leakage": run.leakage,
        "sizes": folds,
        "shared": {
            kind: sum(counts)
            for kind, counts in ((kind, [fold[kind] for fold in leaks]) for kind in KINDS)
            if None not in counts
        },
        "select_parts": SELECT_PARTS,
        "baseline": _baseline(run),
        "found_rate": found_rate if run.config.optimizer.find_learning_rate else None,
        "answer_parts": "label and rationale" if run.config.rationale else "label alone",
        "shown_history": baseline.get("context")
        or baseline.get("history")
        or run.config.prompt.history,
        "shortened": _shortened(run),
        "n_shots": max(map(len, shots), default=0),
        **_server(run),
    }


def _baseline(run: ReportedRun) -> Facts:
    """Return method and options of a baseline, of paths the last part alone."""
    options = dict(run.config.baseline or {})
    method = options.pop("method", run.config.backbone.name)
    shown = {
        name: Path(value).name if isinstance(value, str) and "/" in value else value
        for name, value in sorted(options.items())
    }
    return {"method": method, "options": shown}


def _shortened(run: ReportedRun) -> Mapping[str, int]:
    of_run: Mapping[str, int] | None = run.manifest.get("encoding")
    if of_run is not None:
        return of_run
    total: Counter[str] = Counter()
    for entry in finished_entries(run).values():
        total.update(entry.get("encoding", {}))
    return total


def _server(run: ReportedRun) -> Facts:
    client = dict(run.prompted.get("client", {}))
    for name in ("temperature", "top_p"):
        value = client.get(name)
        client[name] = None if value is None else f"{value:g}"
    url = client.get("base_url")
    return {"client": client, "host": urlsplit(url).hostname if url else None}


def all_facts(runs: Sequence[ReportedRun]) -> Facts:
    """Return the facts about all runs that answers to checklists are made of."""
    generating = [run for run in runs if run.kind != "baseline"]
    backbones = [run.config.backbone for run in runs]
    kinds = [kind for kind in ("trained", "prompted", "baseline") if of_kind(runs, kind)]
    answers = [run.all_predictions for run in generating]
    shares = sorted(100 * sum(not p.parsed for p in own) / len(own) for own in answers)
    return {
        "runs": runs,
        "named": lambda some: named(some, among=runs),
        "runs_by_kind": {kind: of_kind(runs, kind) for kind in kinds},
        "generating": generating,
        "prompted": of_kind(runs, "prompted"),
        "trained": [run for run in runs if run.is_trained],
        "tuned": [run for run in of_kind(runs, "trained") if run.is_trained],
        "closed": any(run.is_remote for run in runs),
        "pretrained": any(backbone.hub_id or backbone.path for backbone in backbones),
        "made_here": all(run.config.data.reader == "demo" for run in runs),
        "with_probabilities": [run for run in runs if run.has_probabilities],
        "with_rationales": [run for run in generating if run.config.rationale],
        "rate_searched": any(run.config.optimizer.find_learning_rate for run in runs),
        "unparsed": {"low": f"{shares[0]:.2f}", "high": f"{shares[-1]:.2f}"} if shares else {},
        "same_folds": len({run.manifest.get("partition_hash") for run in runs}) == 1,
        "used": _used(runs),
        "scalar_metrics": [metric.title for metric in SCALAR_METRICS.values()],
        "macro_f1": _macro_f1(runs),
        **_environments(runs),
    }


def of_kind(runs: Sequence[ReportedRun], kind: str) -> list[ReportedRun]:
    """Return the runs of a kind."""
    return [run for run in runs if run.kind == kind]


def _used(runs: Sequence[ReportedRun]) -> Facts:
    used = [resources_of(run) for run in runs]
    trained, tested, usages, costs, devices = (
        [value for one in used if (value := getattr(one, name)) is not None]
        for name in ("train_seconds", "test_seconds", "usage", "cost", "device")
    )
    return {
        "timed": bool(trained or tested),
        "train_seconds": sum(trained),
        "test_seconds": sum(tested),
        "devices": list(dict.fromkeys(filter(None, devices))),
        "usage": sum(usages[1:], start=usages[0]) if usages else None,
        "cost": sum(costs) if costs else None,
    }


def _macro_f1(runs: Sequence[ReportedRun]) -> dict[str, list[str]]:
    """Return the runs of each task with their macro-F1, the lowest first."""
    found: dict[str, list[str]] = {task: [] for task in dict.fromkeys(r.task.name for r in runs)}
    for run in sorted(runs, key=lambda run: run.summary.metrics["macro_f1"].mean or 0.0):
        name = run.name
        if missing_labels(run.summary):
            # Not to be copied as it stands: labels that a fold lacks count as 0 in the mean.
            pooled = percent(run.summary.metrics_pooled.get("macro_f1"))
            name += f"; pooled {pooled}, for not every fold has every label"
        text = f"{spread_text(run.summary.metrics['macro_f1'])} ({name})"
        found[run.task.name].append(text)
    return found


def _environments(runs: Sequence[ReportedRun]) -> Facts:
    places = places_of(runs)
    commits = places.get(COMMIT, {})
    return {
        "commits": {commit: where for commit, where in commits.items() if commit != UNKNOWN},
        "same_commit": len(commits) == 1,
        "platforms": list(places.get("platform", {UNKNOWN: ""})),
        "software": {
            name: " or ".join(values)
            for name, values in places.items()
            if name in _SOFTWARE and NOT_INSTALLED not in values
        },
    }


MOST_CHARACTERS = 60
"""Longest value that is shown; a longer one is shown as its hash."""

_TRAINING = ("optimizer.", "scheduler.", "trainer.", "finetune.", "callbacks.")
_TRAINING_TOO = frozenset({"callbacks", "global_batch_size", "sampling"})
_ADAPTERS = frozenset({f"finetune.{key}" for key in ("rank", "alpha", "dropout", "target_modules")})
_HASH_CHARACTERS = 8


def differing_options(runs: Sequence[ReportedRun]) -> dict[str, dict[str, str]]:
    """Return the options that differ: name to the value of each run that it plays a part in.

    An option that only some runs have, such as the learning rate beside a prompted system, differs
    where two of those runs disagree. ``system`` says what kind of run it is. Paths, which say
    nothing of results while the hashes agree, are left out or shortened to their last part.
    """
    by_run = {run.name: run_options(run) for run in runs}
    names = dict.fromkeys(name for options in by_run.values() for name in options)
    found: dict[str, dict[str, str]] = {}
    for name in names:
        values = {run: options[name] for run, options in by_run.items() if name in options}
        if len(set(values.values())) > 1:
            found[name] = values
    return found


def run_options(run: ReportedRun) -> dict[str, str]:
    """Return the options that play a part in a run, by dotted name, as short texts."""
    options = {
        name: value
        for name, value in result_options(run.config).items()
        if _plays_a_part(run, name) and not name.startswith("task.taxonomy.")
    }
    taxonomy = run.config.task.taxonomy
    if isinstance(taxonomy, Mapping):
        options["task.taxonomy"] = _digest(taxonomy)
    prompted = flatten(run.prompted)
    options |= {name: prompted.get(name) for name in COMPARED if run.prompted}
    if run.prompted and not run.is_remote:
        for name in ("client.model", "client.base_url", "client.temperature", "client.top_p"):
            options.pop(name, None)
    shown = {name: _shown(name, value) for name, value in options.items()}
    return {"system": run.kind, **shown}


def _plays_a_part(run: ReportedRun, name: str) -> bool:
    if name in ("data.path", "prompt.file", "finetune.method") or name.startswith("baseline."):
        return name not in ("data.path", "prompt.file")
    if run.kind == "baseline":
        # What an encoder is trained with stands among the baseline's own options.
        return name.startswith(("task.", "data.", "cv.", "seed"))
    if run.is_remote and (name.startswith("backbone.") or name == "decoding.name"):
        return False
    if name.startswith(_TRAINING) or name in _TRAINING_TOO:
        adapters = run.config.finetune.method in ("lora", "qlora")
        return run.is_trained and (adapters or name not in _ADAPTERS)
    return True


def _shown(name: str, value: Any) -> str:
    if name == "backbone.path" and value is not None:
        return Path(str(value)).name
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MOST_CHARACTERS else _digest(value)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:_HASH_CHARACTERS]}…"


def protocol_section(runs: Sequence[ReportedRun], options: ReportConfig) -> Report:
    """Return what was done, by which options the runs differ, and how long they took."""
    statements = Statements(runs)
    parts = {
        part: statements_of(runs, partial(statements.about, name))
        for part, name in statements.texts["protocol"].items()
    }
    differences = differing_options(runs)
    resources = {run.name: resources_of(run) for run in runs}
    who = partial(named, among=runs)
    rows = [
        (part, text if who(own) == ALL else f"{who(own)}: {text}")
        for part, texts in parts.items()
        for text, own in texts.items()
    ]
    stated = {"": lambda row: row[0], "statement": lambda row: row[1]}
    sheets = [table_of("What was done", rows, stated, text_columns=(0, 1))]
    if differences:
        by_name = {run.name: run for run in runs}
        where = {
            option: {
                value: who([by_name[run] for run in names])
                for value, names in distinct(values).items()
            }
            for option, values in differences.items()
        }
        sheets.append(value_sheet("Options that differ", ("option", "value", "runs"), where))
    sheets.append(_time_sheet(resources))
    return Report(
        action="protocol",
        title="Protocol: what was done",
        figures={
            "statements": [
                {"part": part, "runs": [run.name for run in own], "text": text}
                for part, texts in parts.items()
                for text, own in texts.items()
            ],
            "differences": differences,
            "runs": {run.name: _run_figures(run, resources[run.name]) for run in runs},
        },
        sheets=tuple(sheets),
        notes=render_notes(
            "report/notes.yaml",
            "protocol",
            n_runs=len(runs),
            epochs=any(used.selected_epochs for used in resources.values()),
            differences=differences,
            resumed={name: used.resumes for name, used in resources.items() if used.resumes},
        ),
    )


def _time_sheet(resources: Mapping[str, Resources]) -> ReportTable:
    return table_of(
        "Time of all finished folds",
        resources.items(),
        {
            "run": lambda row: row[0],
            "device": lambda row: row[1].device or DASH,
            "training": lambda row: duration_text(row[1].train_seconds),
            "testing": lambda row: duration_text(row[1].test_seconds),
            "epochs": lambda row: " ".join(map(str, row[1].selected_epochs)) or DASH,
        },
        text_columns=(0, 1),
    )


def _run_figures(run: ReportedRun, used: Resources) -> dict[str, Any]:
    return {
        "kind": run.kind,
        "folds": list(run.scores),
        "missing_folds": list(run.missing),
        "device": used.device,
        "train_seconds": used.train_seconds,
        "test_seconds": used.test_seconds,
        "selected_epochs": list(used.selected_epochs),
        "resumes": list(used.resumes),
        "support": {label: row.support for label, row in run.summary.per_label.items()},
    }


STATUSES = ("filled", "in_part", "open")
"""An item that the runs answer, answer in part, or leave to the authors."""

OPEN = "open: to be answered by the authors"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One item of a guideline."""

    number: str
    """The guideline's own."""
    section: str
    """Where it stands in the guideline."""
    asks: str
    """What it wants to know, in our words."""
    answer: str | None = None
    """Which of the answers in statements.yaml; ``None``: no run can tell."""
    evidence: str = ""
    """Where in a run folder the answer comes from."""
    remains: str = ""
    """What the authors have to add: a template over the facts about all runs."""


@dataclass(frozen=True, kw_only=True)
class Checklist:
    """One guideline."""

    key: str
    name: str
    source: str
    items: tuple[Item, ...]


@cache
def read_checklists() -> tuple[Checklist, ...]:
    """Return the guidelines of checklists.yaml."""
    return tuple(
        Checklist(**{**found, "items": tuple(Item(**item) for item in found["items"])})
        for found in read_texts("report/checklists.yaml")
    )


def answered(item: Item, statements: Statements) -> dict[str, str | None]:
    """Return an item with what the runs answer and what remains, as the figures have it."""
    answer = statements.answer(item.answer) if item.answer is not None else ""
    remains = statements.of_all(item.remains) if answer else ""
    return {
        "section": item.section,
        "asks": item.asks,
        "status": "open" if not answer else "in_part" if remains else "filled",
        "answer": answer or None,
        "evidence": item.evidence or None,
        "remains": remains or None,
    }


def checklist_section(runs: Sequence[ReportedRun], options: ReportConfig) -> Report:
    """Return the items of TRIPOD-LLM and REFORMS, each answered or marked open."""
    statements = Statements(runs)
    figures = {
        checklist: {item.number: answered(item, statements) for item in checklist.items}
        for checklist in read_checklists()
    }
    counts = {
        checklist: Counter(one["status"] for one in items.values())
        for checklist, items in figures.items()
    }
    return Report(
        action="checklist",
        title="Reporting checklists",
        figures={
            checklist.key: {
                "source": checklist.source,
                "n_items": len(items),
                **{status: counts[checklist][status] for status in STATUSES},
                "items": items,
            }
            for checklist, items in figures.items()
        },
        sheets=(
            table_of(
                "Items that the runs fill in",
                counts.items(),
                {
                    "guideline": lambda row: row[0].name,
                    "filled": lambda row: f"{row[1]['filled']}",
                    "in part": lambda row: f"{row[1]['in_part']}",
                    "open": lambda row: f"{row[1]['open']}",
                },
            ),
            *_item_sheets(figures),
        ),
        notes=render_notes(
            "report/notes.yaml", "checklist", checklists=[{"checklist": one} for one in figures]
        ),
    )


def _item_sheets(
    figures: Mapping[Checklist, Mapping[str, Mapping[str, str | None]]],
) -> Iterator[ReportTable]:
    """Yield a sheet a guideline; an answer that was given before is not repeated."""
    given: dict[str, str] = {}
    for checklist, items in figures.items():
        rows = []
        for number, one in items.items():
            shown, answer = OPEN, one["answer"]
            if answer is not None:
                remains = f" Open: {one['remains']}." if one["remains"] else ""
                told = f"As at {given[answer]}." if answer in given else answer
                shown = f"{told} [{one['evidence'] or ''}]{remains}"
                given.setdefault(answer, f"{checklist.name} {number}")
            rows.append((f"{number} {one['section']}: {one['asks']}", shown))
        yield ReportTable(
            title=checklist.name,
            header=("item", "answer [evidence in the run folder]"),
            rows=tuple(rows),
            text_columns=(0, 1),
        )
