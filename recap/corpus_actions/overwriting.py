"""What people filled in is never written over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from recap.corpus_actions.options import CorpusConfig
from recap.errors import ConfigError
from recap.reporting import overwriting

_ENDINGS = ("json", "md", "tex", "csv")


def keep_inputs(config: CorpusConfig) -> None:
    """Check that no file of the findings would take the place of a file that is read.

    Raises:
        ConfigError: Naming the option and the file.
    """
    names = [f"{config.action}.{ending}" for ending in _ENDINGS]
    names += ["labels.jsonl"] if config.action == "adjudicate" else []
    overwriting.keep_inputs(
        {
            "data.path": config.data.path,
            "annotations.path": config.annotations.path,
            "assign.predictions": config.assign.predictions,
            "adjudicate.decisions": config.adjudicate.decisions,
            "exam.key": config.exam.key,
            "exam.scores": config.exam.scores,
            "ratings.path": config.ratings.path,
            "ratings.predictions": config.ratings.predictions,
        },
        config.out,
        names,
    )


def keep_filled_in(config: CorpusConfig, pages: Mapping[str, str | bytes]) -> None:
    """Check that no file for people to fill in is there already with another content.

    Raises:
        ConfigError: Naming the first that is.
    """
    for name, content in pages.items() if config.out is not None else ():
        file = Path(config.out or "") / name
        new = content.encode("utf-8") if isinstance(content, str) else content
        if file.is_file() and file.read_bytes() != new:
            raise ConfigError(
                f"{file}: is there already and may have been filled in; name another folder with "
                "out=FOLDER, or move it away"
            )
