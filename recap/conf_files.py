"""Where the YAML choices live: inside the package when installed, beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

from recap.errors import RecapError


def conf_dir() -> Path:
    """Return the folder that holds ``train.yaml`` and ``task/``.

    Raises:
        RecapError: When neither place holds it, which means a broken installation.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file() and (folder / "task").is_dir():
            return folder
    raise RecapError("recap's conf/ is missing; install recap again")
