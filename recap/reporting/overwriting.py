"""Files that are read are never written over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from recap.errors import ConfigError


def keep_inputs(
    inputs: Mapping[str, str | Sequence[str] | None], folder: str | None, names: Iterable[str]
) -> None:
    """Check that no file that is about to be written would take the place of one that is read.

    Args:
        inputs: Option to the path, or the paths, that it names.
        folder: Where files are written; ``None``: nowhere.
        names: Of the files in it.

    Raises:
        ConfigError: Naming the option and the file.
    """
    if folder is None:
        return
    written = {_place(Path(folder) / name) for name in names}
    for option, value in inputs.items():
        for path in [value] if isinstance(value, str) else value or []:
            if _place(Path(path)) in written:
                raise ConfigError(
                    f"out={folder}: would write over {option}={path}; name another folder"
                )


def _place(path: Path) -> Path:
    return path.expanduser().resolve()
