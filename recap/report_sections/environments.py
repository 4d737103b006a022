"""What folds ran in: versions, platform, code; and where it was not the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recap.report_sections.grouped import distinct, named
from recap.report_sections.resources import finished_entries
from recap.report_sections.runs import ReportedRun

COMMIT = "git commit of recap"
NOT_INSTALLED = "not installed"
UNKNOWN = "not recorded"


def environments_of(run: ReportedRun) -> dict[str, dict[str, str]]:
    """Return what each finished fold ran in: fold (``fold0``) to entry to value.

    A fold that recorded nothing of its own counts with what the run was begun in.
    """
    entries = finished_entries(run)
    return {
        f"fold{k}": _flat(entries.get(f"fold{k}", {}).get("environment") or run.manifest)
        for k in run.scores
    }


def places_of(runs: Sequence[ReportedRun]) -> dict[str, dict[str, str]]:
    """Return every entry's values, each with the runs or folds that have it.

    A run whose folds agree is named as a whole; of others, the folds are named.
    """
    by_run = {run.name: environments_of(run) for run in runs}
    entries = dict.fromkeys(e for folds in by_run.values() for fold in folds.values() for e in fold)
    return {entry: _places(entry, by_run, runs) for entry in entries}


def uneven_folds(run: ReportedRun) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the entries in which a run's own folds differ: to value to folds."""
    folds = environments_of(run)
    entries = dict.fromkeys(entry for fold in folds.values() for entry in fold)
    found = {}
    for entry in entries:
        values = distinct({name: fold.get(entry, UNKNOWN) for name, fold in folds.items()})
        if len(values) > 1:
            found[entry] = {str(value): names for value, names in values.items()}
    return found


def _places(
    entry: str, by_run: Mapping[str, Mapping[str, Mapping[str, str]]], runs: Sequence[ReportedRun]
) -> dict[str, str]:
    whole: dict[str, list[ReportedRun]] = {}
    parts: dict[str, list[str]] = {}
    for run in runs:
        values = distinct({k: f.get(entry, UNKNOWN) for k, f in by_run[run.name].items()})
        for value, folds in values.items():
            if len(values) == 1:
                whole.setdefault(str(value), []).append(run)
            else:
                parts.setdefault(str(value), []).append(f"{run.name} ({', '.join(folds)})")
    return {
        value: ", ".join(
            [
                *([named(whole[value], among=runs)] if value in whole else []),
                *parts.get(value, []),
            ]
        )
        for value in dict.fromkeys([*whole, *parts])
    }


def _flat(environment: Mapping[str, Any]) -> dict[str, str]:
    versions = {
        package: version or NOT_INSTALLED
        for package, version in environment.get("versions", {}).items()
    }
    return {
        **versions,
        "platform": environment.get("platform") or UNKNOWN,
        COMMIT: environment.get("git_commit") or UNKNOWN,
    }
