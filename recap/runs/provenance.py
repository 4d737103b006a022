"""Where a model comes from: its run, the data it learned from, its score; on pages and cards alike.

Known of a model that lies in its run's folder. Its name alone is known of any other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recap.output.format import percent
from recap.output.templates import read_texts, render_text
from recap.records import FEW_TEST_EXAMPLES, Provenance
from recap.runs.folder import RunFolder, read_config
from recap.runs.saved import find_model_folder


def provenance_of(path: Path) -> Provenance:
    """Return where a model comes from.

    Args:
        path: A run folder, a fold's folder, or a model's.

    Raises:
        ConfigError: When there is no model.
    """
    folder = find_model_folder(path).resolve()
    part, run = folder.parent.name, RunFolder(path=folder.parent.parent)
    if not run.config.is_file():
        return Provenance(model=folder.name)
    config = read_config(run.path)
    found = _json(run.summary if part == "final" else folder.parent / "scores.json")
    metrics = found.get("metrics_pooled" if part == "final" else "metrics", {})
    return Provenance(
        model=config.backbone.name,
        task=config.task.name,
        run=run.path.name,
        part=part,
        data=config.data.name,
        synthetic=_json(run.data).get("synthetic"),
        macro_f1=metrics.get("macro_f1"),
        n=sum(row["support"] for row in found.get("per_label", {}).values()) if metrics else None,
    )


def _json(file: Path) -> Mapping[str, Any]:
    """Return what a file of a run holds; nothing where it is missing or broken."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def learned_from(data: str, synthetic: bool | None) -> str:
    """Return the data that models learned from, for a cell of a table."""
    return (
        data + {True: " (synthetic)", False: "", None: " (synthetic or not: not known)"}[synthetic]
    )


def provenance_text(model: Provenance, language: str = "en") -> str:
    """Return a sentence or two on where a model comes from, and how far its answers can be trusted.

    Args:
        model: What is known of it.
        language: ``en`` or ``zh``.
    """
    score = None if model.macro_f1 is None else percent(model.macro_f1, 1)
    facts = {**asdict(model), "score": score, "few": FEW_TEST_EXAMPLES}
    return render_text(read_texts("runs/templates/provenance.yaml")[language], facts)
