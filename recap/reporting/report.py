"""What an action of ``recap.insights`` or ``recap.corpus`` finds, and its files."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from recap.errors import ConfigError
from recap.reporting.plots import draw
from recap.reporting.sheets import Sheet
from recap.run_folder import write_atomic, write_json

WIDTH_OF_FILES = 110
"""Characters a line where the console is no terminal."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure; ``draw`` gets an empty matplotlib figure of ``size`` (inches) and fills it."""

    name: str
    draw: Callable[[Any], None]
    size: tuple[float, float] = (6.4, 4.0)


@dataclass(frozen=True, kw_only=True)
class Page:
    """One more file of text, such as a card; only the user may read it where ``private``."""

    name: str
    text: str | bytes
    private: bool = False


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of one action."""

    name: str
    """Of the action, and of its files."""
    title: str
    figures: Mapping[str, Any]
    """Every figure at full precision, for ``<name>.json``: snake_case keys, no NaN."""
    sheets: tuple[Sheet, ...]
    """Tables for the console, Markdown and LaTeX."""
    rows: tuple[Mapping[str, Any], ...]
    """``<name>.csv``: one mapping a row, all with the same keys."""
    notes: tuple[str, ...] = ()
    """What a reader must know to judge the figures: assumptions, what was left out."""
    drawings: tuple[Drawing, ...] = ()
    pages: tuple[Page, ...] = ()


def print_report(report: Report, console: Console | None = None) -> None:
    """Print title, tables and notes."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_FILES
    console.print(report.title, soft_wrap=True, markup=False)
    for sheet in report.sheets:
        console.print(sheet.table())
    for note in report.notes:
        console.print(note, soft_wrap=True, markup=False)


def write_report(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write ``<name>.json``, ``.md``, ``.tex`` and ``.csv``, the figures and the pages.

    Returns:
        The files, in the order written.

    Raises:
        ConfigError: When the folder cannot be written, or figures need the extra ``plot``.
    """
    texts = {
        ".md": _markdown(report),
        ".tex": "\n".join(sheet.latex() for sheet in report.sheets),
        ".csv": _csv(report.rows),
    }
    written = [folder / f"{report.name}{ending}" for ending in (".json", *texts)]
    try:
        write_json(written[0], report.figures)
        for path, text in zip(written[1:], texts.values(), strict=True):
            write_atomic(path, text)
        for page in report.pages:
            written.append(folder / page.name)
            write_page(folder / page.name, page)
        for drawing in report.drawings:
            written += draw(drawing.draw, folder / drawing.name, drawing.size)
    except OSError as error:
        raise ConfigError(
            f"out={folder}: cannot be written ({error.strerror}); name a folder you may write"
        ) from error
    return tuple(written)


def write_page(path: Path, page: Page) -> None:
    """Write a page whole or not at all; a private one is never readable by others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = page.text if isinstance(page.text, bytes) else page.text.encode("utf-8")
    # mkstemp creates with mode 0600.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        if not page.private:
            temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _markdown(report: Report) -> str:
    parts = [f"# {report.title}\n", *(sheet.markdown() for sheet in report.sheets)]
    parts += [f"![{drawing.name}]({drawing.name}.png)\n" for drawing in report.drawings]
    parts += ["\n".join(f"- {note}" for note in report.notes) + "\n"] if report.notes else []
    return "\n".join(parts)


def _csv(rows: tuple[Mapping[str, Any], ...]) -> str:
    table = io.StringIO()
    if rows:
        writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return table.getvalue()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
