"""What a report says of its runs in sentences: the templates of statements.yaml over their facts.

Python computes facts and writes no sentence; statements.yaml has the sentences and computes
nothing. The protocol statement and the answers to checklists are both made of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from recap.data.folds import SELECT_PARTS
from recap.metrics.scores import spread_text
from recap.report.manifest import (
    COMMIT,
    NOT_INSTALLED,
    UNKNOWN,
    finished_entries,
    places_of,
    resources_of,
)
from recap.report.runs import ReportedRun, in_one_text, named
from recap.report.templates import Facts, read_texts, render

_FIELD = re.compile(r".*?:\d+: (?P<field>[\w .\[\]-]{1,40}): ")
_SHARED = ("duplicates", "near_duplicates", "shared_sessions", "shared_clients", "history_overlap")
_SOFTWARE = ("python", "torch", "lightning", "transformers", "peft")


class Statements:
    """The statements and answers about some runs; what is known of each is computed once."""

    def __init__(self, runs: Sequence[ReportedRun]) -> None:
        self.runs = tuple(runs)
        self._of_run: dict[str, Facts] = {}
        self._of_all: Facts = {}

    def about(self, name: str, run: ReportedRun) -> str | None:
        """Return what a statement of statements.yaml says of a run; ``None`` for nothing."""
        if run.name not in self._of_run:
            self._of_run[run.name] = run_facts(run)
        facts = self._of_run[run.name]
        text = read_texts("statements.yaml")["statements"][name]
        return render(text, {**facts, "statement": lambda other: self.about(other, run)}) or None

    def answer(self, name: str) -> str:
        """Return what the runs together answer; empty where they cannot."""
        return self.of_all(read_texts("statements.yaml")["answers"][name])

    def of_all(self, text: str) -> str:
        """Return a template filled in with the facts about all runs."""
        if not self._of_all:
            self._of_all = {**all_facts(self.runs), "each": self._each, "answer": self.answer}
        return render(text, self._of_all)

    def _each(self, *names: str, of: Sequence[ReportedRun] | None = None) -> str:
        runs = self.runs if of is None else of
        texts = [in_one_text(runs, partial(self.about, name)) for name in names]
        return " ".join(text for text in texts if text)


def run_facts(run: ReportedRun) -> Facts:
    """Return the facts about one run that its statements are made of."""
    predictions = run.all_predictions
    folds = run.leakage.get("folds", ())
    found_rate = run.manifest.get("learning_rate")
    shots = (entry.get("shots", ()) for entry in finished_entries(run).values())
    return {
        "run": run,
        "config": run.config,
        "task": run.task,
        "manifest": run.manifest,
        "data": run.data,
        "counts": run.data.get("counts", {}),
        "issues": dict(Counter(map(_field, run.data.get("faults", ()))).most_common()),
        "tested_folds": list(run.scores),
        "support": {label: run.summary.per_label[label].support for label in run.summary.labels},
        "n_predictions": len(predictions),
        "n_sessions": len({prediction.session for prediction in predictions} - {None}),
        "leakage": run.leakage,
        "sizes": folds,
        "shared": {
            kind: sum(fold[kind].get("test_examples", fold[kind]["count"]) for fold in folds)
            for kind in _SHARED
            if all(kind in fold for fold in folds)
        },
        "select_parts": SELECT_PARTS,
        "baseline": _baseline(run),
        "found_rate": found_rate if run.config.optimizer.find_learning_rate else None,
        "answer_parts": "label and rationale" if run.config.rationale else "label alone",
        "shown_history": _shown_history(run),
        "shortened": _shortened(run),
        "n_shots": max(map(len, shots), default=0),
        **_server(run),
    }


def _field(fault: str) -> str:
    """Return the field of a row's fault (``file:line: field: reason``), never its reason."""
    match = _FIELD.match(fault)
    return match["field"] if match else "another"


def _baseline(run: ReportedRun) -> Facts:
    """Return method and options of a baseline, of paths the last part alone."""
    options = dict(run.config.baseline or {})
    method = options.pop("method", run.config.backbone.name)
    shown = {
        name: Path(value).name if isinstance(value, str) and "/" in value else value
        for name, value in sorted(options.items())
    }
    return {"method": method, "options": shown}


def _shown_history(run: ReportedRun) -> str:
    options = run.config.baseline or {}
    return options.get("context") or options.get("history") or run.config.prompt.history


def _shortened(run: ReportedRun) -> Mapping[str, int]:
    """Return the counts of shortened prompts, over all folds."""
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
    shares = [f"{share:.2f}" for share in sorted(map(_unparsed_percent, generating))]
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
        "unparsed": {"low": shares[0], "high": shares[-1]} if shares else {},
        "same_folds": len({run.manifest.get("partition_hash") for run in runs}) == 1,
        "used": _used(runs),
        "macro_f1": _macro_f1(runs),
        **_environments(runs),
    }


def of_kind(runs: Sequence[ReportedRun], kind: str) -> list[ReportedRun]:
    """Return the runs of a kind."""
    return [run for run in runs if run.kind == kind]


def _unparsed_percent(run: ReportedRun) -> float:
    predictions = run.all_predictions
    return 100 * sum(not prediction.parsed for prediction in predictions) / len(predictions)


def _used(runs: Sequence[ReportedRun]) -> Facts:
    """Return time, devices, tokens and cost of all runs together."""
    used = [resources_of(run) for run in runs]
    trained = [one.train_seconds for one in used if one.train_seconds is not None]
    tested = [one.test_seconds for one in used if one.test_seconds is not None]
    usages = [one.usage for one in used if one.usage is not None]
    costs = [one.cost for one in used if one.cost is not None]
    return {
        "timed": bool(trained or tested),
        "train_seconds": sum(trained),
        "test_seconds": sum(tested),
        "devices": list(dict.fromkeys(one.device for one in used if one.device)),
        "usage": sum(usages[1:], start=usages[0]) if usages else None,
        "cost": sum(costs) if costs else None,
    }


def _macro_f1(runs: Sequence[ReportedRun]) -> dict[str, list[str]]:
    """Return the runs of each task with their macro-F1, the lowest first."""
    found: dict[str, list[str]] = {task: [] for task in dict.fromkeys(r.task.name for r in runs)}
    for run in sorted(runs, key=lambda run: run.summary.metrics["macro_f1"].mean or 0.0):
        text = f"{spread_text(run.summary.metrics['macro_f1'])} ({run.name})"
        found[run.task.name].append(text)
    return found


def _environments(runs: Sequence[ReportedRun]) -> Facts:
    """Return commits with the runs that have each, platforms and versions."""
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
