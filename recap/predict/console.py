"""What annotating a file prints on the console: what was read, how it goes, what came out."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from recap.data.corpus import account_notes
from recap.folds.console import WIDTH_OF_FILES, duration_text
from recap.predict.job import AnnotationListener, AnnotationReport
from recap.predict.output import Checked

SECONDS_BETWEEN_LINES = 60.0
"""Between two lines of progress in a file or a pipe."""


class AnnotationConsole(AnnotationListener):
    """Prints a job as it goes: a bar with an estimate on a terminal, now and then a line elsewhere.

    A context manager, so that the bar ends with the job.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        if not self._console.is_terminal:
            self._console.width = WIDTH_OF_FILES
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._began = self._last_line = time.monotonic()
        self._found = self._done = self._total = 0

    def __enter__(self) -> AnnotationConsole:
        """Return this."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()

    def checked(self, checked: Checked) -> None:
        """Print what the input holds, and what becomes of its turns."""
        self._console.print(
            f"input    {checked.rows_read} rows, {checked.rows_read - checked.rows_rejected} "
            f"accepted, {checked.rows_rejected} rejected; {checked.utterances} utterances"
        )
        for note in account_notes(checked.counts):
            self._console.print(f"         {note}")

    def began(self, found: int, total: int) -> None:
        """Show the bar."""
        self._began = self._last_line = time.monotonic()
        self._found, self._done, self._total = found, found, total
        if found:
            self._console.print(f"         {found} of {total} utterances are there already")
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("annotate"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed]}"),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
            self._progress.start()
            self._task = self._progress.add_task("", total=total, completed=found, speed="")

    def advanced(self, utterances: int) -> None:
        """Move the bar, or print a line when the last one is a while ago."""
        self._done += utterances
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self._done, speed=self._speed())
        elif time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._console.print(f"         {self._done} of {self._total}, {self._speed()}")

    def ended(self, report: AnnotationReport) -> None:
        """Print one line on what came out."""
        if self._progress is not None:
            self._progress.stop()
        skipped = ", ".join(
            f"{n} skipped ({why})" for why, n in sorted(report.counts("skipped").items())
        )
        invalid, labels = report.outcomes.get("invalid", 0), report.counts("label")
        parts = [f"{report.utterances} utterances", skipped or "none skipped"]
        parts += [f"{invalid} invalid"] if invalid else []
        parts += [f"{report.found} found"] if report.found else []
        self._console.print(f"output   {report.output}")
        self._console.print(f"         {'; '.join(parts)}; {duration_text(report.seconds)}")
        if labels:
            counts = sorted(labels.items(), key=lambda item: -item[1])
            self._console.print(f"         {', '.join(f'{label} {n}' for label, n in counts)}")

    def _speed(self) -> str:
        seconds = max(time.monotonic() - self._began, 1e-9)
        speed = (self._done - self._found) / seconds
        left = (self._total - self._done) / speed if speed else 0.0
        return f"{speed:.1f} a second, about {duration_text(left)} left"
