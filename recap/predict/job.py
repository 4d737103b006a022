"""A file annotated from end to end: checked, streamed through the detector, appended to.

Beside the output a state file says of which input, models and options it is, so that another
process can go on with it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from recap.config import DataConfig, flatten
from recap.data.corpus import account_notes
from recap.data.issues import IssueLog
from recap.data.readers.files import existing_file, is_several
from recap.data.readers.registry import files_to_read
from recap.data.utterances import read_utterances, state_file
from recap.errors import ConfigError, DataError, RecapError
from recap.models.export import model_files
from recap.models.identity import DIGESTS_FILE, changed_files
from recap.output.excel import MOST_ROWS
from recap.output.format import console_for, duration_text, lost_turns, print_warning
from recap.predict.output import (
    AnnotationFile,
    Checked,
    check_input,
    columns_without_text,
    is_csv,
    label_columns,
    row_of,
    table_columns,
    table_row,
    without_text,
    write_workbook,
)
from recap.records import Provenance
from recap.runs.detector import WINDOW_BATCHES, Detector, count_of, outcome_of, print_outcomes
from recap.runs.folder import write_json
from recap.runs.provenance import provenance_of, provenance_text
from recap.runs.saved import find_model_folder, find_saved_settings

if TYPE_CHECKING:
    from recap.records import Annotation, Example


LEAST_WINDOWS = 16
"""Windows of an input with at least as many utterances, so that shards of it hold about as much."""

STAGES = ("model", "binary", "fine_grained")
"""Arguments of a detector that name the folder of a stage."""

_FORMAT = 2
"""Of rows, windows and state; outputs of another one are not gone on with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One of ``count`` parts of an input; ``index`` counts from 0."""

    index: int
    count: int

    def windows(self, n_windows: int) -> range:
        """Return the numbers of the windows of this part, out of all."""
        return range(
            self.index * n_windows // self.count, (self.index + 1) * n_windows // self.count
        )

    def output(self, path: Path) -> Path:
        """Return where this part goes: ``answers.03-of-12.jsonl`` for ``answers.jsonl``."""
        digits = len(str(self.count - 1))
        name = f"{path.stem}.{self.index:0{digits}}-of-{self.count}{path.suffix}"
        return path.with_name(name)


def parse_shard(text: str) -> Shard:
    """Return the part that ``i/n`` names; a ``ConfigError`` when it names none."""
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if found is None or not int(found[1]) < int(found[2]):
        raise ConfigError(
            f"shard={text}: has to be i/n with i from 0 to n-1, such as shard=0/4 for the first "
            "of four parts"
        )
    return Shard(index=int(found[1]), count=int(found[2]))


@dataclass(frozen=True, kw_only=True)
class AnnotationJob:
    """A file to annotate, with what, and where to."""

    data: DataConfig
    """The file, and how it is read."""
    detector: Mapping[str, Any]
    """The arguments of :meth:`recap.runs.detector.Detector.from_pretrained`."""
    output: Path
    shard: Shard | None = None
    resume: bool = True
    replace_text: bool = False
    """Whether rows hold their ids in the place of texts."""

    @property
    def input(self) -> Path:
        """The file to annotate."""
        return Path(str(self.data.path))

    @property
    def files(self) -> list[Path]:
        """The files that are read, one or more."""
        return files_to_read(self.data.reader, self.input)

    @property
    def models(self) -> tuple[Provenance, ...]:
        """Where the models come from, in the order of the stages."""
        folders = (self.detector.get(name) for name in STAGES)
        return tuple(provenance_of(Path(folder)) for folder in folders if folder is not None)

    @property
    def part(self) -> Path:
        """The file that is written: the output, or this shard's part of it."""
        return self.output if self.shard is None else self.shard.output(self.output)

    @property
    def rows(self) -> Path:
        """The file that rows are appended to: the part, or what an Excel file is made of."""
        excel = self.part.suffix.lower() == ".xlsx"
        return self.part.with_name(f"{self.part.name}.rows.csv") if excel else self.part


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A job whose input has been read once."""

    identity: Mapping[str, Any]
    """What has to be the same for an output to be gone on with."""
    checked: Checked
    window: int
    """Utterances that are computed and written together."""
    probabilities: Mapping[str, Sequence[str]]
    """The labels that have columns in a table, each with those below it."""
    begun: bool
    """Whether the output was begun by the same job."""
    complete_bytes: int | None
    """Size of the finished output, ``None`` where it is not finished."""


def prepare_job(job: AnnotationJob, known: Prepared | None = None) -> Prepared:
    """Return what is known of a job before anything is written.

    What is ``known`` of another part of the same input spares reading it again.

    Raises:
        DataError: When the input is at fault.
        ConfigError: When the output is another one's, or the input itself.
    """
    is_csv(job.output)
    _refuse_input(job)
    job.output.parent.mkdir(parents=True, exist_ok=True)
    identity = {
        **(_identity(job) if known is None else known.identity),
        "shard": None if job.shard is None else f"{job.shard.index}/{job.shard.count}",
    }
    # Of a command that failed before its first row, the next one need not be the same.
    begun = job.resume and (_holds_rows(job.part) or _holds_rows(job.rows))
    state = _read_state(state_file(job.part)) if begun else None
    _refuse_other(job, state, identity)
    checked = known.checked if known else _checked(state["checked"]) if state else None
    if checked is None:
        checked = check_input(job.data, rejects=rejects_file(job.part))
    complete = (state or {}).get("complete") or {}
    folders = [folder for name in STAGES if (folder := job.detector.get(name)) is not None]
    tasks = [find_saved_settings(folder)[1].task for folder in folders]
    # Several batches, of small inputs a fair part.
    batches = WINDOW_BATCHES * int(job.detector.get("batch_size", 32))
    return Prepared(
        identity=identity,
        checked=checked,
        window=min(batches, -(-checked.utterances // LEAST_WINDOWS)),
        probabilities=label_columns(tasks),
        begun=state is not None,
        complete_bytes=complete.get("bytes"),
    )


def write_state(
    job: AnnotationJob, prepared: Prepared, *, complete: Mapping[str, int] | None
) -> None:
    """Write down of which input, models and options an output is, and whether it is finished."""
    checked = dataclasses.asdict(prepared.checked)
    models = list(map(dataclasses.asdict, job.models))
    state = {**prepared.identity, "models": models, "checked": checked, "complete": complete}
    write_json(state_file(job.part), state, private=True)


def rejects_file(output: Path) -> Path:
    """Return the file that lists the faults of rows that are left out."""
    return output.with_name(f"{output.name}.rejected.txt")


def _identity(job: AnnotationJob) -> dict[str, Any]:
    data = job.data
    digest = _digest_of([existing_file(file) for file in job.files])
    cache = job.output.parent / DIGESTS_FILE
    files = {
        f"{stage}/{name}": digest
        for stage in STAGES
        if (path := job.detector.get(stage)) is not None
        for name, digest in model_files(
            find_model_folder(Path(path)), base=job.detector.get("base"), cache=cache
        ).items()
    }
    # Where the weights lie and what computes does not change the answers.
    apart = (*STAGES, "device", "base")
    identity = {
        "format": _FORMAT,
        "input": {
            "sha256": digest,
            "reader": data.reader,
            "on_error": data.on_error,
            "merge_adjacent": data.merge_adjacent,
            "no_intervention": data.no_intervention,
            "options": dict(data.options),
        },
        "model_files": files,
        "detector": {k: v for k, v in job.detector.items() if k not in apart},
        "replace_text": job.replace_text,
    }
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


def _digest_of(files: Sequence[Path]) -> str:
    """Return the SHA-256 of a file; of several, that of their names and digests."""
    digests = []
    for path in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    if len(files) == 1:
        return digests[0]
    named = [f"{path.name} {digest}" for path, digest in zip(files, digests, strict=True)]
    return hashlib.sha256("\n".join(named).encode("utf-8", "surrogatepass")).hexdigest()


def _read_state(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"{path}: is not JSON; remove it and the output beside it, or name another output"
        ) from error
    return state


def _holds_rows(path: Path) -> bool:
    """Return whether there is a file that holds something, a table below its header."""
    if not path.is_file():
        return False
    with path.open("rb") as lines:
        return any(islice(lines, int(path.suffix.lower() == ".csv"), None))


def _refuse_input(job: AnnotationJob) -> None:
    """Refuse to write over the input."""
    beside = (state_file(job.part), rejects_file(job.part))
    for written in (job.output, job.part, job.rows, *beside):
        for file in (job.input, *job.files):
            both_there = written.exists() and file.exists()
            if written.resolve() == file.resolve() or (both_there and written.samefile(file)):
                raise ConfigError(
                    f"{written}: is the input, which would be overwritten; name another output"
                )
    # It would be read as part of the input the next time.
    if is_several(job.input) and job.output.resolve().parent in {
        file.resolve().parent for file in job.files
    }:
        raise ConfigError(
            f"{job.output}: lies among the files that are read; name an output in another folder"
        )


def _refuse_other(
    job: AnnotationJob, state: Mapping[str, Any] | None, identity: Mapping[str, Any]
) -> None:
    """Refuse an output that was not made by this job, naming what differs."""
    if state is None:
        is_filled = job.part.exists() and job.part.stat().st_size
        if job.resume and is_filled and not state_file(job.part).exists():
            raise ConfigError(
                f"{job.part}: is there already, and no {state_file(job.part).name} says what it "
                "is; name another output, or overwrite it with resume=never"
            )
        return
    mend = "name another output, or begin again with resume=never"
    if state.get("format") != _FORMAT:
        raise ConfigError(f"{job.part}: was begun by another version of recap; {mend}")
    if became := changed_files(state.get("model_files") or {}, identity["model_files"]):
        raise ConfigError(
            f"{job.part}: was made by another model: {became}; put back what it was, {mend}"
        )
    there = flatten({key: state.get(key) for key in identity})
    now = flatten(identity)
    changed = [key for key in sorted({*there, *now}) if there.get(key) != now.get(key)]
    if changed:
        raise ConfigError(
            f"{job.part}: was made from another input or with other options "
            f"({', '.join(changed)}); {mend}"
        )


def _checked(values: Mapping[str, Any]) -> Checked:
    try:
        lists = {name: tuple(values.get(name, ())) for name in ("columns", "notes")}
        return Checked(**{**values, **lists})
    except (TypeError, KeyError) as error:
        raise RecapError("the state file is of another version; use resume=never") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotationReport:
    """What became of a job; ``outcomes`` are of the utterances that this process annotated.

    Their keys are those of :func:`recap.runs.detector.outcome_of`, and what prompts lost:
    ``lost truncated_examples``, ``lost dropped_turns``.
    """

    output: Path
    utterances: int
    found: int
    """Utterances that were annotated before this process."""
    outcomes: Mapping[str, int]
    seconds: float
    notes: Sequence[str] = ()
    """What of the rows the output has no room for."""
    models: tuple[Provenance, ...] = ()


class AnnotationListener:
    """Follows an annotation; this one keeps silent."""

    def checked(self, checked: Checked) -> None:
        """The input has been read once."""

    def began(self, found: int, total: int) -> None:
        """Models are loaded; so many of all utterances are there already."""

    def advanced(self, utterances: int) -> None:
        """So many more utterances are on the disk."""

    def ended(self, report: AnnotationReport) -> None:
        """All utterances are on the disk."""


Fill = Callable[[Prepared, AnnotationFile, AnnotationListener], tuple[int, Mapping[str, int]]]
"""Writes an output's rows; returns how many were there already, and the outcomes of the others."""


def annotate_file(
    job: AnnotationJob,
    listener: AnnotationListener | None = None,
    *,
    detector: Detector | None = None,
    known: Prepared | None = None,
    fill: Fill | None = None,
) -> AnnotationReport:
    """Annotate a file, going on from what is there already, and return what became of it.

    The output is appended to in whole windows, each of them on the disk before the next begins.
    ``detector`` are the loaded models, and ``known`` is what is known of the input, where that is
    so already; ``fill`` writes the rows, by default in this process. A ``DataError`` for an input
    at fault, or one that changes while it is read; a ``ConfigError`` for an output that is another
    one's.
    """
    listener = listener or AnnotationListener()
    began = time.monotonic()
    before = _stamp(job)
    prepared = prepare_job(job, known)
    listener.checked(prepared.checked)
    _, total = _part_of(job, prepared)
    columns = table_columns(prepared.checked, prepared.probabilities)
    columns = columns_without_text(columns) if job.replace_text else columns
    notes: list[str] = []
    done = _is_complete(job, prepared, total)
    with AnnotationFile(job.rows, columns=columns, window=prepared.window) as file:
        if not prepared.begun:
            # Before the state: rows of another job must never stand under this one's.
            file.clear()
            if job.rows != job.part:
                job.part.unlink(missing_ok=True)
            write_state(job, prepared, complete=None)
        found = total
        outcomes: Mapping[str, int] = {}
        if not done:
            write = fill or partial(_fill, job, detector)
            found, outcomes = write(prepared, file, listener)
        if _stamp(job) != before:
            raise DataError(f"{job.input}: was changed while it was read; begin again")
        if job.rows != job.part and not done:
            notes = write_workbook(job.part, job.rows, texts=prepared.checked.texts)
        size = job.part.stat().st_size
        write_state(job, prepared, complete={"bytes": size, "utterances": total})
    if job.rows != job.part:
        job.rows.unlink()
    report = AnnotationReport(
        output=job.part,
        utterances=total,
        found=found,
        outcomes=outcomes,
        seconds=time.monotonic() - began,
        notes=notes,
        models=job.models,
    )
    listener.ended(report)
    return report


def _is_complete(job: AnnotationJob, prepared: Prepared, total: int) -> bool:
    """Return whether the output is finished; refuse Excel files that cannot be."""
    size = job.part.stat().st_size if job.part.is_file() else None
    done = prepared.complete_bytes is not None and prepared.complete_bytes == size
    if done or job.rows == job.part:
        return done
    if prepared.complete_bytes is not None and size is not None:
        raise ConfigError(
            f"{job.part}: was changed since it was written; name another output, or overwrite it "
            "with resume=never"
        )
    if total >= MOST_ROWS:
        raise ConfigError(
            f"output={job.part}: a sheet of Excel holds {MOST_ROWS - 1:,} rows below its header, "
            f"and there are {total:,} utterances; name an output that ends with .csv or .jsonl"
        )
    return False


def _fill(
    job: AnnotationJob,
    detector: Detector | None,
    prepared: Prepared,
    file: AnnotationFile,
    listener: AnnotationListener,
) -> tuple[int, Mapping[str, int]]:
    first, total = _part_of(job, prepared)
    found = file.find_kept().rows if prepared.begun else 0
    if found > total:
        raise ConfigError(
            f"{job.part}: holds more rows than the input has utterances; name another output, or "
            "begin again with resume=never"
        )
    examples = _from(job.data, first + found, file if found else None)
    file.cut()
    if found == total:
        return found, {}
    detector = detector or Detector.from_pretrained(**job.detector)
    listener.began(found, total)
    outcomes: Counter[str] = Counter()
    wanted, before = total - found, Counter(detector.shortened)
    while wanted:
        taken = list(islice(examples, min(prepared.window, wanted)))
        if not taken:
            raise DataError(f"{file.path}: the input became shorter while it was read")
        annotations = detector.annotate(taken)
        file.append(_rows(job, prepared, zip(taken, annotations, strict=True)))
        wanted -= len(taken)
        outcomes.update(map(outcome_of, annotations))
        listener.advanced(len(taken))
    lost = detector.shortened - before
    outcomes.update({f"lost {name}": n for name, n in lost.items()})
    return found, dict(outcomes)


def _part_of(job: AnnotationJob, prepared: Prepared) -> tuple[int, int]:
    """Return the first utterance of a job's shard, and how many it has."""
    window, utterances = prepared.window, prepared.checked.utterances
    windows = (job.shard or Shard(index=0, count=1)).windows(-(-utterances // window))
    first = windows.start * window
    return first, max(0, min(windows.stop * window, utterances) - first)


def _rows(
    job: AnnotationJob, prepared: Prepared, pairs: Iterable[tuple[Example, Annotation]]
) -> Iterator[dict[str, Any]]:
    for example, annotation in pairs:
        row = row_of(example, annotation)
        if is_csv(job.rows):
            row = table_row(row, example, prepared.probabilities)
            row[prepared.checked.said] = example.response
        yield without_text(row) if job.replace_text else row


def _from(data: DataConfig, start: int, file: AnnotationFile | None) -> Iterator[Example]:
    """Return the utterances from the ``start``-th on; the one before is the file's last row."""
    issues = IssueLog(str(data.path))
    examples = _forgetting(read_utterances(data, issues), issues)
    last = deque(islice(examples, start), maxlen=1)
    if file is not None and last:
        file.check_last(last[0].id)
    return examples


def _forgetting(examples: Iterator[Example], issues: IssueLog) -> Iterator[Example]:
    """Pass utterances on; faults were listed in the first pass and need no memory now."""
    for example in examples:
        if issues.issues:
            issues.take()
        yield example


def _stamp(job: AnnotationJob) -> list[tuple[str, int, int]]:
    stats = [(str(file), existing_file(file).stat()) for file in job.files]
    return [(name, there.st_size, there.st_mtime_ns) for name, there in stats]


SECONDS_BETWEEN_LINES = 60.0
"""Between two lines of progress in a file or a pipe."""


class AnnotationConsole(AnnotationListener):
    """Prints a job as it goes: a bar with an estimate on a terminal, now and then a line elsewhere.

    A context manager, so that the bar ends with the job.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or console_for()
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._began = self._last_line = time.monotonic()
        self._found = self._done = self._total = 0

    def __enter__(self) -> AnnotationConsole:
        """Return this."""
        return self

    def __exit__(self, *error: object) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()

    def checked(self, checked: Checked) -> None:
        """Print what the input holds, and what becomes of its turns."""
        self._console.print(
            f"input    {checked.rows_read} rows, {checked.rows_read - checked.rows_rejected} "
            f"accepted, {checked.rows_rejected} rejected; {checked.utterances} utterances"
        )
        for note in (*checked.notes, *account_notes(checked.counts)):
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
        for model in report.models:
            self._console.print(f"model    {provenance_text(model)}")
        self._console.print(f"output   {report.output}")
        print_outcomes(
            self._console,
            report.outcomes,
            n=report.utterances,
            where=report.output,
            also=[
                *([f"{report.found} found"] if report.found else []),
                duration_text(report.seconds),
            ],
            before=" " * 9,
        )
        lost = count_of(report.outcomes, "lost")
        notes = [*lost_turns(lost, "prompt.max_tokens or the model's positions"), *report.notes]
        for note in notes:
            print_warning(self._console, note, before=" " * 9)

    def _speed(self) -> str:
        seconds = max(time.monotonic() - self._began, 1e-9)
        speed = (self._done - self._found) / seconds
        left = (self._total - self._done) / speed if speed else 0.0
        return f"{speed:.1f} a second, about {duration_text(left)} left"
