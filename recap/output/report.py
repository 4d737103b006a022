"""What an action has found out, printed and written: JSON, Markdown, LaTeX, CSV, figures.

Files that are read are never written over.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rich.console import Console

from recap.errors import ConfigError, DataError
from recap.metrics.files import json_text
from recap.output.charts import drawing, picture
from recap.output.format import console_for
from recap.output.tables import ReportTable
from recap.system.files import protect_cell, write_atomic
from recap.system.plain_text import markdown, plain_markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_LISTED_IN_A_FOLDER = 8

FILE_ENDINGS = ("json", "md", "tex", "csv")
"""Of the files that every report is written to."""

NO_MATPLOTLIB = "no figures: they need matplotlib: pip install recap-counseling[plot]"

NO_CHINESE_FONT = (
    "the .png figures lack Chinese characters, since this machine has no font for them: install "
    "one (Noto Sans CJK SC, say), or take the .svg figures, which show them wherever there is one"
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one action has found out, ready to be shown."""

    action: str
    """Stem of the files."""
    title: str
    """Heading of the page."""
    figures: Mapping[str, Any]
    """Every figure at full precision, snake_case keys; the JSON file."""
    sheets: tuple[ReportTable, ...]
    """Tables for the console, the page and LaTeX."""
    notes: tuple[str, ...] = ()
    """Sentences under the tables: what was left out, what was assumed."""
    rows: Sequence[Mapping[str, Any]] = ()
    """Rows of the CSV file; without any it lists all figures, one a line."""
    charts: Mapping[str, Callable[[], Figure]] = field(default_factory=dict)
    """File stem to a function that draws the figure."""
    pages: Mapping[str, str] = field(default_factory=dict)
    """Names of further files to what they hold."""
    private_pages: Mapping[str, str | bytes] = field(default_factory=dict)
    """Further files that hold the words of clients: no other account may read them."""
    on_console: str = ""
    """Printed, never written: what the user asked to see, the words of clients included."""
    failure: str | None = None
    """Why the command ends with exit code 2 once everything is shown; ``None``: it does not."""
    private: bool = False
    """Whether all files hold words of clients or name their sessions, so that no other account may
    read them."""
    parts: tuple[Report, ...] = ()
    """Sections that the files show one after the other; the console shows ``sheets`` alone."""

    @property
    def file_names(self) -> tuple[str, ...]:
        """All files that :func:`write_report` may write."""
        own = [f"{self.action}.{ending}" for ending in FILE_ENDINGS]
        drawn = [f"{stem}.{ending}" for stem in self.charts for ending in ("png", "svg")]
        return (*own, *self.pages, *self.private_pages, *drawn)


def deliver(
    report: Report,
    out: str | None,
    *,
    inputs: Mapping[str, str | Sequence[str] | None] | None = None,
) -> None:
    """Print a report, write its files, and end in its failure if it is one.

    Args:
        report: What was found out.
        out: Folder for the files; ``None``: the console alone.
        inputs: Option to the path, or the paths, that it names: files that were read.

    Raises:
        ConfigError: When a file would take the place of one that was read.
        DataError: When the report has failed.
        OSError: When the disk does not take the files.
    """
    keep_inputs(inputs or {}, out, report.file_names)
    print_report(report)
    if out is not None:
        write_report(report, Path(out))
    if report.failure is not None:
        raise DataError(report.failure)


def print_report(report: Report, console: Console | None = None) -> None:
    """Print tables and notes."""
    console = console or console_for()
    console.print(report.title)
    for sheet in report.sheets:
        console.print(sheet.table(), soft_wrap=False)
    for note in (*report.notes, *([report.on_console] if report.on_console else [])):
        console.print(note)


def write_report(report: Report, folder: Path, console: Console | None = None) -> tuple[Path, ...]:
    """Write all files of the report and return them, saying which.

    Without matplotlib there are no figures, which is said too.

    Raises:
        ConfigError: When a file would be outside of the folder.
        OSError: When the disk does not take them; files that were not there before are gone again.
    """
    console = console or console_for()
    stem = report.action
    sheets = [sheet for part in report.parts or (report,) for sheet in part.sheets]
    for name in report.file_names:
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise ConfigError(f"out={folder}: a file would be {name!r}, outside of it; rename that")
    with _all_or_none([folder / name for name in report.file_names]):
        folder.mkdir(parents=True, exist_ok=True)
        drawn, missing = _write_charts(report, folder)
        texts = {
            f"{stem}.json": json_text(report.figures),
            f"{stem}.md": _page(report, drawn),
            f"{stem}.tex": "\n".join(sheet.latex() for sheet in sheets),
            f"{stem}.csv": _csv(report),
            **report.pages,
        }
        for name, text in texts.items():
            write_atomic(folder / name, text, private=report.private)
        for name, content in report.private_pages.items():
            write_atomic(folder / name, content, private=True)
    if missing:
        console.print(missing)
    files = [*texts, *report.private_pages]
    names = [*files, *drawn]
    pictures = drawn if len(drawn) <= _LISTED_IN_A_FOLDER else [f"{len(drawn)} figures"]
    listed = ", ".join([*_shortened(files), *pictures])
    console.print(f"{folder}: {listed}")
    return tuple(folder / name for name in names)


def _shortened(names: Sequence[str]) -> list[str]:
    """Return file names, those of a folder with many files as the folder and their number."""
    folders = Counter(name.partition("/")[0] for name in names if "/" in name)
    many = {folder: n for folder, n in folders.items() if n > _LISTED_IN_A_FOLDER}
    shown = {
        f"{top}/ ({many[top]} files)" if "/" in name and top in many else name: None
        for name in names
        for top in (name.partition("/")[0],)
    }
    return list(shown)


def one_by_one(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every figure under a dotted name; items of a list are numbered from 0."""
    if isinstance(value, Mapping | list | tuple):
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in pairs:
            yield from one_by_one(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _page(report: Report, drawn: Sequence[str]) -> str:
    if report.parts:
        parts = [_page(part, drawn) for part in report.parts]
        return "\n".join([markdown("# {}\n", report.title), *parts])
    tables = "\n".join(sheet.markdown() for sheet in report.sheets)
    pictures = "".join(
        f"\n![{plain_markdown(stem)}]({quote(f'{stem}.svg')})\n"
        for stem in report.charts
        if f"{stem}.svg" in drawn
    )
    notes = "".join(markdown("\n- {}", note) for note in report.notes)
    return f"{markdown('# {}', report.title)}\n\n{tables}{pictures}{notes}\n"


def _csv(report: Report) -> str:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    if report.rows:
        header = list(report.rows[0])
        writer.writerow(map(_cell, header))
        writer.writerows([_cell(row[name]) for name in header] for row in report.rows)
    else:
        writer.writerow(("figure", "value"))
        writer.writerows(map(_cell, pair) for pair in one_by_one(report.figures))
    return table.getvalue()


def _cell(value: object) -> object:
    return protect_cell(value) if isinstance(value, str) else value


@contextmanager
def _all_or_none(files: Iterable[Path]) -> Iterator[None]:
    """Have a failure of the block leave no file that was not there before.

    Sheets to be filled in are never written over: some of them would be in the way next time.
    """
    new = [file for file in files if not file.exists()]
    try:
        yield
    except BaseException:
        for file in new:
            with suppress(OSError):
                file.unlink()
        raise


def _write_charts(report: Report, folder: Path) -> tuple[list[str], str | None]:
    charts = report.charts
    names: list[str] = []
    if not charts:
        return names, None
    try:
        with drawing(report.action) as caught:
            for stem, draw in charts.items():
                figure = draw()
                for ending in ("png", "svg"):
                    names.append(f"{stem}.{ending}")
                    drawn = picture(figure, ending)
                    write_atomic(folder / names[-1], drawn, private=report.private)
    except ImportError:
        return [], NO_MATPLOTLIB
    glyphs = any("missing from font" in str(warning.message) for warning in caught)
    return names, NO_CHINESE_FONT if glyphs else None


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
