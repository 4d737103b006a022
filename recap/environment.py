"""What a run depended on beside its options and its data."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = (
    "recap-counseling",
    "torch",
    "lightning",
    "transformers",
    "peft",
    "torchmetrics",
    "hydra-core",
    "wandb",
    "openai",
    "anthropic",
    "scikit-learn",
)


_NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_ERROR_REPORTING": "false",
}


def switch_telemetry_off() -> None:
    """Tell what is loaded from now on, and processes started from now on, to report to nobody.

    What the environment says already stays. Hugging Face's libraries look when they are imported.
    """
    for name, value in _NO_TELEMETRY.items():
        os.environ.setdefault(name, value)


def environment() -> dict[str, Any]:
    """Return what else a run depended on: package versions, Python, platform, the code's commit."""
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "versions": {"python": platform.python_version(), **versions},
        "platform": f"{platform.system()} {platform.machine()}",
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """Return the commit of recap's own checkout; ``None`` when it is installed without one."""
    if not (Path(__file__).parent.parent / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
