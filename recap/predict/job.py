"""A file annotated from end to end: checked, streamed through the detector, appended to.

A job of annotation, and the state file that lets another process go on with it.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recap.config import flatten
from recap.data.issues import IssueLog
from recap.data.readers.files import existing_file
from recap.errors import ConfigError, DataError, RecapError
from recap.models.export import model_identity
from recap.predict.options import Shard
from recap.predict.output import (
    AnnotationFile,
    AnnotationInput,
    Checked,
    check_source,
    columns_without_text,
    is_csv,
    row_of,
    without_text,
)
from recap.runs.detector import WINDOW_BATCHES, Detector
from recap.runs.folder import write_json
from recap.runs.saved import find_model_folder

if TYPE_CHECKING:
    from recap.records import Annotation, Example
    from recap.runs.detector import Detector


LEAST_WINDOWS = 16
"""Windows of an input with at least as many utterances, so that shards of it hold about as much."""

_FORMAT = 1
"""Of rows, windows and state; outputs of another one are not gone on with."""


@dataclass(frozen=True, kw_only=True)
class DetectorSource:
    """The arguments of :meth:`recap.runs.detector.Detector.from_pretrained`."""

    model: str | None = None
    binary: str | None = None
    fine_grained: str | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def load(self) -> Detector:
        """Return the detector."""
        return Detector.from_pretrained(
            self.model, binary=self.binary, fine_grained=self.fine_grained, **self.options
        )

    def identity(self) -> dict[str, Any]:
        """Return what has to be the same for an output to be gone on with."""
        named = {"model": self.model, "binary": self.binary, "fine_grained": self.fine_grained}
        models = {
            name: model_identity(find_model_folder(Path(folder)))
            for name, folder in named.items()
            if folder is not None
        }
        # Where the weights lie and what computes does not change what is asked.
        asked = {k: v for k, v in self.options.items() if k not in ("device", "base")}
        return {**models, **asked}


@dataclass(frozen=True, kw_only=True)
class AnnotationJob:
    """A file to annotate, with what, and where to."""

    source: AnnotationInput
    detector: DetectorSource
    output: Path
    shard: Shard | None = None
    resume: bool = True
    replace_text: bool = False
    """Whether rows hold their ids in the place of texts."""

    def columns(self, checked: Checked) -> tuple[str, ...]:
        """Return the columns of a CSV output."""
        return columns_without_text(checked.columns) if self.replace_text else checked.columns

    @property
    def part(self) -> Path:
        """The file that is written: the output, or this shard's part of it."""
        return self.output if self.shard is None else self.shard.output(self.output)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A job whose input has been read once; ``complete`` when its output is finished already."""

    identity: Mapping[str, Any]
    checked: Checked
    window: int
    """Utterances that are computed and written together."""
    begun: bool
    """Whether the output was begun by the same job."""
    complete_bytes: int | None
    """Size of the finished output."""


def prepare_job(job: AnnotationJob, known: Prepared | None = None) -> Prepared:
    """Return what is known of a job before anything is written.

    Args:
        job: What is to be done.
        known: The same of another part of the same input, which spares reading it again.

    Raises:
        DataError: When the input is at fault.
        ConfigError: When the output is another one's, or the input itself.
    """
    is_csv(job.output)
    _refuse_input(job)
    identity = {**(_identity(job) if known is None else known.identity), "shard": _shard_text(job)}
    state = _read_state(state_file(job.part)) if job.resume else None
    _refuse_other(job, state, identity)
    checked = known.checked if known else _checked(state["checked"]) if state else None
    if checked is None:
        job.output.parent.mkdir(parents=True, exist_ok=True)
        checked = check_source(job.source, rejects=rejects_file(job.part))
    complete = (state or {}).get("complete") or {}
    return Prepared(
        identity=identity,
        checked=checked,
        window=_window(job, checked),
        begun=state is not None,
        complete_bytes=complete.get("bytes"),
    )


def write_state(
    job: AnnotationJob, prepared: Prepared, *, complete: Mapping[str, int] | None
) -> None:
    """Write down of which input, models and options an output is, and whether it is finished."""
    checked = dataclasses.asdict(prepared.checked)
    state = {**prepared.identity, "checked": checked, "complete": complete}
    write_json(state_file(job.part), state, private=True)


def state_file(output: Path) -> Path:
    """Return the file that says of which input, models and options an output is."""
    return output.with_name(f"{output.name}.state.json")


def rejects_file(output: Path) -> Path:
    """Return the file that lists the faults of rows that are left out."""
    return output.with_name(f"{output.name}.rejected.txt")


def _identity(job: AnnotationJob) -> dict[str, Any]:
    identity = {
        "format": _FORMAT,
        "input": job.source.identity(),
        "detector": job.detector.identity(),
        "replace_text": job.replace_text,
    }
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


def _window(job: AnnotationJob, checked: Checked) -> int:
    """Return how many utterances make a window: several batches, of small inputs a fair part."""
    batches = WINDOW_BATCHES * int(job.detector.options.get("batch_size", 32))
    return min(batches, -(-checked.utterances // LEAST_WINDOWS))


def _shard_text(job: AnnotationJob) -> str | None:
    return None if job.shard is None else f"{job.shard.index}/{job.shard.count}"


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


def _refuse_input(job: AnnotationJob) -> None:
    """Refuse to write over the input.

    Raises:
        ConfigError: When a file that would be written is the input.
    """
    for written in (job.output, job.part, state_file(job.part), rejects_file(job.part)):
        if _is_same(written, job.source.path):
            raise ConfigError(
                f"{written}: is the input, which would be overwritten; name another output"
            )


def _is_same(one: Path, other: Path) -> bool:
    both_there = one.exists() and other.exists()
    return one.resolve() == other.resolve() or (both_there and one.samefile(other))


def _refuse_other(
    job: AnnotationJob, state: Mapping[str, Any] | None, identity: Mapping[str, Any]
) -> None:
    """Refuse an output that was not made by this job.

    Raises:
        ConfigError: Naming what differs.
    """
    if state is None:
        if job.resume and job.part.exists() and job.part.stat().st_size:
            raise ConfigError(
                f"{job.part}: is there already, and no {state_file(job.part).name} says what it "
                "is; name another output, or overwrite it with resume=never"
            )
        return
    there = flatten({key: state.get(key) for key in identity})
    now = flatten(identity)
    changed = [key for key in sorted({*there, *now}) if there.get(key) != now.get(key)]
    if changed:
        raise ConfigError(
            f"{job.part}: was made from another input or with other options "
            f"({', '.join(changed)}); name another output, or begin again with resume=never"
        )


def _checked(values: Mapping[str, Any]) -> Checked:
    try:
        return Checked(**{**values, "columns": tuple(values["columns"])})
    except (TypeError, KeyError) as error:
        raise RecapError("the state file is of another version; use resume=never") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class JobReport:
    """What became of a job; counts of answers are of this process alone."""

    output: Path
    checked: Checked
    utterances: int
    found: int
    """Utterances that were annotated before this process."""
    skipped: Mapping[str, int]
    invalid: int
    labels: Mapping[str, int]
    seconds: float


class AnnotationListener:
    """Is told how an annotation goes; this one keeps silent."""

    def checked(self, checked: Checked) -> None:
        """The input has been read once."""

    def began(self, found: int, total: int) -> None:
        """Models are loaded; so many of all utterances are there already."""

    def advanced(self, utterances: int) -> None:
        """So many more utterances are on the disk."""

    def ended(self, report: JobReport) -> None:
        """All utterances are on the disk."""


def annotate_file(
    job: AnnotationJob,
    listener: AnnotationListener | None = None,
    *,
    detector: Detector | None = None,
    known: Prepared | None = None,
) -> JobReport:
    """Annotate a file, going on from what is there already, and return what became of it.

    The output is appended to in whole windows, each of them on the disk before the next begins.
    Beside it, ``<output>.state.json`` says of which input, models and options it is.

    Args:
        job: What to do.
        listener: Is told how it goes.
        detector: The loaded models, where they are.
        known: What is known of the input already.

    Raises:
        DataError: When the input is at fault, or changes while it is read.
        ConfigError: When the output is another one's, or options do not fit the models.
    """
    listener = listener or AnnotationListener()
    began = time.monotonic()
    before = _stamp(job.source.path)
    prepared = prepare_job(job, known)
    listener.checked(prepared.checked)
    columns = job.columns(prepared.checked)
    with AnnotationFile(job.part, columns=columns, window=prepared.window) as file:
        if not prepared.begun:
            # Before the state: rows of another job must never stand under this one's.
            file.clear()
            write_state(job, prepared, complete=None)
        report = _go_on(job, prepared, file, listener, detector, began)
        if _stamp(job.source.path) != before:
            raise DataError(f"{job.source.path}: was changed while it was read; begin again")
        write_state(job, prepared, complete={"bytes": file.size, "utterances": report.utterances})
    listener.ended(report)
    return report


def _go_on(
    job: AnnotationJob,
    prepared: Prepared,
    file: AnnotationFile,
    listener: AnnotationListener,
    detector: Detector | None,
    began: float,
) -> JobReport:
    checked = prepared.checked
    window = prepared.window
    n_windows = -(-checked.utterances // window)
    windows = (job.shard or Shard(index=0, count=1)).windows(n_windows)
    first = windows.start * window
    total = max(0, min(windows.stop * window, checked.utterances) - first)
    counted: Counter[str] = Counter()
    if prepared.complete_bytes is not None and prepared.complete_bytes == file.size:
        found = total
    else:
        found = file.find_kept().rows if prepared.begun else 0
        if found > total:
            raise _grown(job.part)
        examples = _from(job.source, first + found, file if found else None)
        file.cut()
        if found < total:
            detector = detector or job.detector.load()
            listener.began(found, total)
            shown = without_text if job.replace_text else dict
            for annotations in _windows(examples, total - found, window, detector, file, shown):
                _count(annotations, counted)
                listener.advanced(len(annotations))
    return JobReport(
        output=job.part,
        checked=checked,
        utterances=total,
        found=found,
        skipped={k.removeprefix("skipped "): n for k, n in counted.items() if k[:8] == "skipped "},
        invalid=counted["invalid"],
        labels={k.removeprefix("label "): n for k, n in counted.items() if k[:6] == "label "},
        seconds=time.monotonic() - began,
    )


def _windows(
    examples: Iterator[Example],
    wanted: int,
    window: int,
    detector: Detector,
    file: AnnotationFile,
    shown: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> Iterator[list[Annotation]]:
    """Annotate and write window after window."""
    while wanted:
        taken = list(islice(examples, min(window, wanted)))
        if not taken:
            raise DataError(f"{file.path}: the input became shorter while it was read")
        annotations = detector.annotate(taken)
        file.append(shown(row_of(e, a)) for e, a in zip(taken, annotations, strict=True))
        wanted -= len(taken)
        yield annotations


def _from(source: AnnotationInput, start: int, file: AnnotationFile | None) -> Iterator[Example]:
    """Return the utterances from the ``start``-th on; the one before is the file's last row."""
    issues = IssueLog(str(source.path))
    examples = _forgetting(source.utterances(issues), issues)
    last = deque(islice(examples, start), maxlen=1)
    if file is not None and last:
        file.check_last(last[0].id)
    return examples


def _forgetting(examples: Iterator[Example], issues: IssueLog) -> Iterator[Example]:
    """Pass utterances on; faults were told in the first pass and need no memory now."""
    for example in examples:
        if issues.issues:
            issues.take()
        yield example


def _count(annotations: list[Annotation], counted: Counter[str]) -> None:
    for annotation in annotations:
        if annotation.skipped:
            counted[f"skipped {annotation.skipped}"] += 1
        elif annotation.label is None:
            counted["invalid"] += 1
        else:
            counted[f"label {annotation.label}"] += 1


def _stamp(path: Path) -> tuple[int, int]:
    there = existing_file(path).stat()
    return there.st_size, there.st_mtime_ns


def _grown(path: Path) -> ConfigError:
    return ConfigError(
        f"{path}: holds more rows than the input has utterances; name another output, or begin "
        "again with resume=never"
    )
