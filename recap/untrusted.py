"""Names, links and YAML that come from elsewhere, and what they may not do."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, TextIO

import yaml

from recap.errors import ConfigError

_LONGEST_NAME = 200
_FOLDER_NAME = re.compile(r"[^/\\:\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def run_name(name: str) -> str:
    """Return the name of a run when it is that of one folder, which no path leads out of.

    Raises:
        ValueError: When it is none.
    """
    fits = len(name.encode("utf-8", "replace")) <= _LONGEST_NAME
    if not fits or name.startswith(".") or not _FOLDER_NAME.fullmatch(name):
        raise ValueError(
            "has to be the name of one folder: no slash, no dot in front, nothing unprintable, at "
            f"most {_LONGEST_NAME} bytes; runs_dir says where the folder is"
        )
    return name


def refuse_links(folder: Path) -> None:
    """Refuse links by which what is written to a run folder, or deleted in it, lies elsewhere.

    Raises:
        ConfigError: When the folder, or something directly in it, is one.
    """
    entries = folder.iterdir() if folder.is_dir() else ()
    for path in (folder, *entries):
        if path.is_symlink() and not path.resolve().is_relative_to(folder.parent.resolve()):
            raise ConfigError(
                f"{path}: is a link that leaves the run folder; set runs_dir to a folder that is "
                "where the runs are to be"
            )


def open_lock(path: Path) -> TextIO:
    """Return an opened lock file, made when missing; a link in its place is never followed.

    Raises:
        ConfigError: When it is a link.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if path.is_symlink():
            raise ConfigError(f"{path}: is a link, and a lock never is one; remove it") from error
        raise
    return os.fdopen(handle, "r+", encoding="utf-8")


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds; tags that build objects are refused.

    Raises:
        ConfigError: When it holds none, or cannot be read.
    """
    try:
        # Ten times as fast, where PyYAML was built with libyaml.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        values = loader(file.read_text(encoding="utf-8")).get_single_data()
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        why = getattr(error, "problem", None) or "is no UTF-8"
        raise ConfigError(f"{file}{line}: {why}; restore the file") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: holds no mapping of keys to values; restore the file")
    return values
