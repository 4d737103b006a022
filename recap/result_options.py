"""Which options change a run's results, and so name its folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from recap.config import RunConfig, to_dict

NOT_RESULT_CHANGING = (
    "run",
    "runs_dir",
    "resume",
    "keep_models",
    "merge",
    "merge_tolerance",
    "batching",
    "checkpoint.",
    "logger.",
    "privacy.",
    "cv.fold",
    "backbone.architecture",
    "backbone.architecture.",
    "decoding.batch_size",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.nodes",
    "trainer.strategy",
    "trainer.cpu_offload",
    "trainer.per_device_batch_size",
    "trainer.max_tokens_per_device",
    "trainer.gradient_checkpointing",
    "trainer.max_skipped_steps",
    "trainer.workers",
    "trainer.log_every_steps",
    "trainer.progress",
)
"""Options that may differ between processes on one run folder; a final dot means a group."""


def result_options(config: RunConfig) -> dict[str, Any]:
    """Return every result-changing option as ``{"cv.folds": 5, ...}``."""
    flat = flatten(to_dict(config))
    return {key: value for key, value in flat.items() if not _is_free(key)}


def _is_free(key: str) -> bool:
    return any(
        key.startswith(free) if free.endswith(".") else key == free for free in NOT_RESULT_CHANGING
    )


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def hash_of_changes(given: Mapping[str, Any], default: Mapping[str, Any]) -> list[str]:
    """Return the hash of what differs from the defaults, nothing where nothing does."""
    changed = {
        key: value for key, value in given.items() if key not in default or default[key] != value
    }
    return [_hash(changed)] if changed else []


def _hash(options: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()[:8]
