"""Options by which runs differ, among those that play a part in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recap.prompting.options import COMPARED
from recap.report_sections.runs import ReportedRun
from recap.report_sections.system_statements import is_remote, is_trained
from recap.result_options import flatten, result_options

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
    told = flatten(run.prompted)
    options |= {name: told.get(name) for name in COMPARED if run.prompted}
    if run.prompted and not is_remote(run):
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
    if is_remote(run) and (name.startswith("backbone.") or name == "decoding.name"):
        return False
    if name.startswith(_TRAINING) or name in _TRAINING_TOO:
        adapters = run.config.finetune.method in ("lora", "qlora")
        return is_trained(run) and (adapters or name not in _ADAPTERS)
    return True


def _shown(name: str, value: Any) -> str:
    if name == "backbone.path" and value is not None:
        return Path(str(value)).name
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MOST_CHARACTERS else _digest(value)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:_HASH_CHARACTERS]}…"
