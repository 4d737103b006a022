"""What a run says on the console: the data, a row a fold, the time left, the table of mean ± SD."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from recap.config import RunConfig
from recap.data.corpus import SYNTHETIC
from recap.folds.fold import FoldListener, TrainingPlan, read_cut
from recap.folds.run import Run
from recap.metrics.files import summary_from_dict
from recap.metrics.scalar import SCALAR_METRICS, metric_of, without_loss
from recap.metrics.scores import spread_text, support_warning
from recap.models.engine.loss import BatchingChoice
from recap.models.export import Merged
from recap.models.precision import in_words, precision_warnings
from recap.output.format import (
    LogConsole,
    console_for,
    duration_text,
    percent,
    print_warning,
    unparsed_notes,
)
from recap.records import Example, Message, Prediction, Scores, Summary
from recap.runs.folder import FoldFolder, RunFolder
from recap.system.processes import device_type, is_first_process


def print_answers(console: Console, predictions: Sequence[Prediction]) -> None:
    """Print answers as they were given, beside what was read off them and what is right."""
    for prediction in predictions:
        label = prediction.label or "unparsed"
        said = f"answer to {prediction.id} (annotated {prediction.gold}, read {label})"
        console.print(f"{said}:\n{prediction.text}")


def estimate_time_left(
    *,
    epoch_seconds: Sequence[float],
    epochs_left: int,
    max_epochs: int,
    folds_left: int,
    finished: Sequence[Mapping[str, float]],
) -> tuple[float, float]:
    """Return about how many seconds the fold that trains now takes, and all that were asked for.

    Folds that stop early and what decoding takes are known from the finished folds; until there is
    one, every fold counts with all of its epochs and without decoding, so on the safe side.

    Args:
        epoch_seconds: What the epochs of this fold took in this process; at least one.
        epochs_left: Of this fold, if it does not stop early.
        max_epochs: Of each fold.
        folds_left: Folds that were asked for, without this one and the finished ones.
        finished: Of the finished folds, ``train_seconds`` and ``test_seconds``.
    """
    epoch = fmean(epoch_seconds)
    a_fold, decoding = epoch * max_epochs, 0.0
    if finished:
        decoding = fmean(fold["test_seconds"] for fold in finished)
        a_fold = fmean(fold["train_seconds"] for fold in finished) + decoding
    this_fold = epoch * epochs_left + decoding
    return this_fold, this_fold + folds_left * a_fold


SHARED = {
    "duplicates": "test examples are also trained on",
    "near_duplicates": "test examples are nearly the same as one that is trained on",
    "shared_sessions": (
        "times a session lies in test and training (cv.group=session keeps them together)"
    ),
    "history_overlap": "test responses stand in a training history, or the other way round",
}
"""What is said of each kind of leakage."""

SHARED_WITH_SHOTS = {
    "in_test": "examples in prompts are tested themselves",
    "duplicates": "test examples are shown solved in their prompts",
    "near_duplicates": "test examples are nearly the same as one that is shown solved",
    "shared_sessions": "times a session lies in test and among the examples in prompts",
    "history_overlap": "test responses stand in the history of an example in prompts, or it in "
    "theirs",
}
"""The same of solved examples in prompts."""

_INDENT = " " * 9


class RunConsole(FoldListener):
    """Prints a run as it goes; on a terminal a progress bar moves between its lines.

    Args:
        console: Where to; standard output by default.
        bar: Whether a terminal gets a bar of the answers to prompts; that of a training is
            Lightning's.
    """

    def __init__(self, console: Console | None = None, *, bar: bool = True) -> None:
        self._console = console or console_for()
        self._shows_bar = bar and self._console.is_terminal
        self._bar: Progress | None = None
        self._batching: str | None = None
        self._run: Run | None = None
        self._plan: TrainingPlan | None = None
        self._epoch_seconds: list[float] = []

    def prepared(self, run: Run, notes: Sequence[str]) -> None:
        """Print what was read, what the task selects, and what leaks between folds."""
        self._run = run
        self._console.print(f"run      {run.folder.path}")
        print_data(self._console, run, notes)

    def training(self, plan: TrainingPlan) -> None:
        """Print the size of what is about to be trained."""
        self._plan, self._epoch_seconds = plan, []
        self._console.print(
            f"{plan.name}    {plan.n_train} to train, {plan.n_test} to test, "
            f"{plan.steps_per_epoch} steps an epoch, "
            f"longest prompt {plan.longest_prompt} tokens"
        )

    def rate_found(self, learning_rate: float, found_on: str) -> None:
        """Print the learning rate, when it is not the configured one."""
        self._console.print(f"         learning rate {learning_rate:g}, found on {found_on}")

    def batched(self, choice: BatchingChoice, prefix: int | None) -> None:
        """Print one line on how batches are laid out, when it is not what it was before."""
        how = f"batching {choice.batching}"
        if choice.batching == "trunk":
            how += f": {prefix} leading tokens are computed once a batch"
        elif choice.reason:
            how += f", not trunk: {choice.reason}"
        if how != self._batching:
            self._console.print(f"         {how}")
        self._batching = how

    def epoch_ended(self, epoch: int, select_loss: float | None, seconds: float) -> None:
        """Print one line an epoch where no progress bar is seen."""
        self._epoch_seconds.append(seconds)
        if not self._console.is_terminal:
            loss = "" if select_loss is None else f"  selection loss {select_loss:.4f}"
            left = self._time_left(epoch)
            self._console.print(f"         epoch {epoch + 1}{loss}  {seconds:.0f} s{left}")

    def _time_left(self, epoch: int) -> str:
        run = self._run
        if run is None or self._plan is None or epoch + 1 >= self._plan.max_epochs:
            return ""
        entries = run.folder.read_manifest().get("folds", {})
        folders = [run.folder.fold(fold.index) for fold in run.folds]
        names = [folder.path.name for folder in folders if folder.finished]
        finished = {name: entries[name] for name in names if name in entries}
        asked_for = {run.folder.part(part).path.name for part in run.parts}
        others = asked_for - {*finished, self._plan.name}
        of_fold, of_run = estimate_time_left(
            epoch_seconds=self._epoch_seconds,
            epochs_left=self._plan.max_epochs - epoch - 1,
            max_epochs=self._plan.max_epochs,
            folds_left=len(others),
            finished=tuple(finished.values()),
        )
        of_all = f", {duration_text(of_run)} of the run" if others else ""
        return f", about {duration_text(of_fold)} of the fold{of_all} left"

    def prompting(self, name: str, *, calls: int, kept: int, n_shots: int) -> None:
        """Print the number of a fold's prompts, and start its bar."""
        before = f", {kept} answers kept from before" if kept else ""
        self._console.print(f"{name}    {calls} prompts with {n_shots} examples each{before}")
        if self._shows_bar:
            columns = ("{task.description}", BarColumn(), MofNCompleteColumn())
            self._bar = Progress(
                *columns, TimeRemainingColumn(), console=self._console, transient=True
            )
            self._bar.add_task(name, total=calls + kept)
            self._bar.start()

    def answered(self) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0])

    def prompted(self, lost: Sequence[str]) -> None:
        """Take the bar away, and print what prompts lost."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        for line in lost:
            print_warning(self._console, line, before=_INDENT)

    def texts(
        self, name: str, prompt: Sequence[Message], pairs: Sequence[tuple[Example, Prediction]]
    ) -> None:
        """Print one whole prompt of a fold, and some dialogues with what was answered."""
        for message in prompt:
            self._console.print(f"{name}    prompt, {message.role}:\n{message.text}")
        for example, prediction in pairs:
            turns = [f"{turn.called()}: {turn.text}" for turn in example.history]
            dialogue = "\n".join([*turns, f"client: {example.response}"])
            self._console.print(f"{name}    example {example.id}:\n{dialogue}")
            print_answers(self._console, [prediction])

    def fold_ended(self, folder: FoldFolder, scores: Scores | None, seconds: float | None) -> None:
        """Print the scores of a fold, just computed or found."""
        if scores is None:
            self._console.print(f"{folder.path.name}    trained  {folder.model}")
            return
        again = "finished before" if seconds is None else f"{seconds:.0f} s"
        self._console.print(f"{folder.path.name}    {_in_a_line(scores.metrics)}  ({again})")

    def merged(self, name: str, merged: Merged) -> None:
        """Print what merging changed."""
        self._console.print(
            f"{name}    merged: loss {merged.merged_loss:.6f} nats a token, as an adapter "
            f"{merged.adapted_loss:.6f} (up to {merged.tolerance:g} apart are accepted)"
        )

    def ended(self, run: Run, summary: Summary, scores: Mapping[int, Scores]) -> None:
        """Print the table of metrics and the one of categories."""
        self._console.print(_metric_table(summary))
        self._console.print(_label_table(summary, scores))
        self._console.print(
            f"mean ± sample SD (ddof {summary.ddof}) over folds, in percent; "
            f"{run.folder.summary_table}"
        )
        if len(summary.folds) > 1:
            self._console.print(f"pooled   {_in_a_line(summary.metrics_pooled)}")
        if warning := support_warning(summary):
            print_warning(self._console, warning, before="warning: ")
        cut = sum(read_cut(run.folder.fold(index)) for index in scores)
        unparsed = sum(gold[-1] for found in scores.values() for gold in found.confusion)
        where = run.folder.path / "fold*" / "predictions.jsonl"
        n_answers = sum(found.n for found in scores.values())
        for line in unparsed_notes(unparsed, n_answers, cut=cut, where=where):
            print_warning(self._console, line)


def listener_or_log(listener: FoldListener | None) -> FoldListener:
    """Return a listener, or the one of whoever gives none: it tells the logger ``recap``."""
    if listener is not None:
        return listener
    return RunConsole(LogConsole()) if is_first_process() else FoldListener()


def print_data(console: Console, run: Run, notes: Sequence[str] = ()) -> None:
    """Print what was read, what the task selects, further notes, and what leaks between folds."""
    say, corpus, task = console.print, run.corpus, run.task
    say(f"data     {corpus.name}: {corpus.rows_read} rows, {len(corpus.examples)} examples")
    faults = [f"left out: {fault}" for fault in corpus.issues[:10]]
    if len(corpus.issues) > 10:
        faults.append(f"left out: {len(corpus.issues) - 10} more rows")
    for warning in faults:
        print_warning(console, warning, before=_INDENT)
    for note in corpus.notes():
        if note == SYNTHETIC:
            print_warning(console, note, before=_INDENT)
        else:
            say(f"{_INDENT}{note}")
    say(f"task     {task.name}: {len(task.labels)} labels, {len(run.selected)} examples")
    for note in notes:
        say(f"{_INDENT}{note}")
    wasted: list[str] = []
    if run.numbers:
        wasted = precision_warnings(run.numbers["used"], device=device_type(run.config.trainer))
        # Of what everybody has, nothing is said.
        if (said := in_words(run.numbers)) != "32-true":
            say(f"{_INDENT}{said}")
    for warning in (*wasted, *run.lost_turns, *_leaks(run.leakage)):
        print_warning(console, warning, before=_INDENT)


def print_sweep(configs: Sequence[RunConfig]) -> None:
    """Print one table of all jobs of a sweep, a row a run folder."""
    heads = [metric.short for metric in SCALAR_METRICS.values()]
    table = Table("run", "folds", *heads, title="All jobs: mean ± SD over folds, in percent")
    warnings: list[str] = []
    for config in configs:
        file = RunFolder(path=Path(config.runs_dir) / config.run).summary
        if not file.is_file():
            table.add_row(config.run, "–", *("–" for _ in heads))
            continue
        summary = summary_from_dict(json.loads(file.read_text(encoding="utf-8")))
        found = [summary.metrics.get(name) for name in SCALAR_METRICS]
        cells = map(spread_text, found)
        table.add_row(config.run, str(len(summary.folds)), *cells)
        if warning := support_warning(summary):
            warnings.append(f"warning: {config.run}: {warning}")
    width = 40 + max(len(config.run) for config in configs) + 16 * len(heads)
    console = console_for()
    console.width = max(width, console.width)
    console.print(table)
    for warning in warnings:
        console.print(warning, style="yellow")


def _leaks(leakage: Mapping[str, Any]) -> list[str]:
    """Return one line for every way in which folds share data."""
    folds = leakage["folds"]
    shots = [fold["shots"] for fold in folds if fold.get("shots")]
    return [*_counted(folds, SHARED), *_counted(shots, SHARED_WITH_SHOTS)]


def _counted(reports: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> list[str]:
    counts = {kind: sum(report[kind]["count"] for report in reports) for kind in kinds}
    return [f"{count} {kinds[kind]}" for kind, count in counts.items() if count]


def _in_a_line(metrics: Mapping[str, float | None]) -> str:
    shown = without_loss(metrics).items()
    return "  ".join(f"{metric_of(name).short} {percent(value)}" for name, value in shown)


def _metric_table(summary: Summary) -> Table:
    table = Table(
        "metric", "mean ± SD", *(f"fold {fold}" for fold in summary.folds), title=summary.task
    )
    for name, spread in without_loss(summary.metrics).items():
        values = map(percent, spread.values)
        table.add_row(metric_of(name).short, spread_text(spread), *values)
    return table


def _label_table(summary: Summary, scores: Mapping[int, Scores]) -> Table:
    table = Table("category", "precision", "recall", "F1", "support", "predicted")
    for index, (label, row) in enumerate(summary.per_label.items()):
        cells = [spread_text(figures) for figures in (row.precision, row.recall, row.f1)]
        predicted = sum(gold[index] for s in scores.values() for gold in s.confusion)
        table.add_row(label, *cells, str(row.support), str(predicted))
    return table
