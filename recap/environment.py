"""What a run depended on beside its options and its data."""

from __future__ import annotations

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
