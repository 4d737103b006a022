"""A file annotated from end to end: checked, streamed through the detector, appended to."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recap.annotate.check import Checked, Source
from recap.annotate.job import AnnotationJob, Prepared, prepare_job, write_state
from recap.annotate.options import Shard
from recap.annotate.output import AnnotationFile
from recap.annotate.rows import row_of, without_text
from recap.data.faults import FaultLog
from recap.data.readers.files import existing_file
from recap.errors import ConfigError, DataError

if TYPE_CHECKING:
    from recap.detector.detector import Detector
    from recap.records import Annotation, Example


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
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


class Listener:
    """Is told how an annotation goes; this one keeps silent."""

    def checked(self, checked: Checked) -> None:
        """The input has been read once."""

    def began(self, found: int, total: int) -> None:
        """Models are loaded; so many of all utterances are there already."""

    def advanced(self, utterances: int) -> None:
        """So many more utterances are on the disk."""

    def ended(self, report: Report) -> None:
        """All utterances are on the disk."""


def annotate_file(
    job: AnnotationJob,
    listener: Listener | None = None,
    *,
    detector: Detector | None = None,
    known: Prepared | None = None,
) -> Report:
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
    listener = listener or Listener()
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
    listener: Listener,
    detector: Detector | None,
    began: float,
) -> Report:
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
    return Report(
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


def _from(source: Source, start: int, file: AnnotationFile | None) -> Iterator[Example]:
    """Return the utterances from the ``start``-th on; the one before is the file's last row."""
    faults = FaultLog(str(source.path))
    examples = _forgetting(source.utterances(faults), faults)
    last = deque(islice(examples, start), maxlen=1)
    if file is not None and last:
        file.check_last(last[0].id)
    return examples


def _forgetting(examples: Iterator[Example], faults: FaultLog) -> Iterator[Example]:
    """Pass utterances on; faults were told in the first pass and need no memory now."""
    for example in examples:
        if faults.faults:
            faults.take()
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
