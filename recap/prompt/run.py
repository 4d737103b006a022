"""Prompted systems under cross-validation: the folds, prompts, parser and scorer of a training.

What a prompted run says on the console: the data, the calls, a row a fold, mean ± SD, tokens.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from recap.config import COMPARED, RunConfig
from recap.config_checks import check_combinations
from recap.data.corpus import Corpus
from recap.data.leakage import with_shots
from recap.errors import ConfigError
from recap.folds.console import TrainingConsole, console_for, print_data
from recap.folds.fold import FoldResult, TextSample, tell_texts
from recap.folds.partition import Partition, check_fold, draw_partition, record_partition
from recap.folds.results import (
    finished_scores,
    prediction_of,
    read_scores,
    track_summary,
    write_scores,
    write_summary,
)
from recap.metrics.files import predictions_to_jsonl
from recap.metrics.scores import score
from recap.prompt.clients import build_client, endpoint, is_loopback
from recap.prompt.options import PromptedConfig, prompted_keys, prompted_options
from recap.prompt.requests import UnansweredRequests
from recap.prompt.systems import (
    LocalModel,
    PromptedAnswer,
    PromptedSystem,
    PromptWorkload,
    RemoteModel,
    check_prompted,
    draw_shots,
    prices_of,
)
from recap.records import Example, Fold, Scores, Summary
from recap.runs.build import build_tracker
from recap.runs.costs import Usage
from recap.runs.folder import RunFolder, locked, open_run_folder
from recap.system.files import write_atomic
from recap.system.processes import environment, is_launched
from recap.tasks.task import Task

Shots = Mapping[int, tuple[Example, ...]]
"""The solved examples of every fold."""


@dataclass(frozen=True, kw_only=True)
class PromptedRun:
    """A prompted run, ready to ask."""

    prompted: PromptedConfig
    partition: Partition
    folder: RunFolder

    @property
    def config(self) -> RunConfig:
        """Task, data, prompt and protocol."""
        return self.prompted.training

    @property
    def task(self) -> Task:
        """What is told apart."""
        return self.partition.task

    @property
    def leakage(self) -> Mapping[str, Any]:
        """What folds share with each other and with the examples in prompts."""
        return self.partition.leakage

    @property
    def corpus(self) -> Corpus:
        """The data set."""
        return self.partition.corpus

    @property
    def folds(self) -> Sequence[Fold]:
        """Its folds."""
        return self.partition.folds


@dataclass(frozen=True, kw_only=True)
class RequestEstimate:
    """What a run would send."""

    work: PromptWorkload
    output_tokens: int
    """At most: every answer as long as ``decoding.max_new_tokens`` allows."""
    cost: float | None
    """At most, in the currency of the prices; ``None`` where they are not given."""
    exact: bool
    """Whether the tokens of prompts are counted, not estimated."""


class PromptListener:
    """Is told how a prompted run goes; this one keeps silent."""

    def prepared(self, run: PromptedRun) -> None:
        """Data are read and folds are drawn."""

    def estimated(
        self, config: PromptedConfig, partition: Partition, estimate: RequestEstimate
    ) -> None:
        """A dry run is done."""

    def asking(self, name: str, work: PromptWorkload, n_shots: int) -> None:
        """A fold's prompts are about to be answered."""

    def answered(self) -> None:
        """One more prompt has its answer."""

    def asked(self, shortened: Mapping[str, int]) -> None:
        """A fold's prompts are answered, or will not be: one of them failed."""

    def texts(self, sample: TextSample) -> None:
        """A fold has answered, and its texts may be shown."""

    def fold_ended(self, result: FoldResult) -> None:
        """A fold is scored, or was found to be."""

    def ended(self, run: PromptedRun, summary: Summary, scores: Mapping[int, Scores]) -> None:
        """All folds that were asked for are done; ``scores`` holds every finished one."""


def prompt_folds(
    config: PromptedConfig, *, listener: PromptListener | None = None
) -> Summary | None:
    """Answer, score and write the unfinished folds that ``cv.fold`` asks for.

    Returns:
        The summary of all finished folds; ``None`` after a dry run.

    Raises:
        UserError: When configuration or data are at fault, or the budget ends.
        RecapError: When a server does not answer; what it did answer is kept.
    """
    listener = listener or PromptListener()
    check_fold(config.training)
    check_combinations(config.training)
    check_prompted(config)
    if is_launched():
        raise ConfigError("recap.prompt asks from one process; start it without torchrun or srun")
    # A missing package or key is told before data are read.
    client = None
    if config.remote and not config.dry_run:
        client = build_client(config.client, max_new_tokens=config.training.decoding.max_new_tokens)
    partition = draw_partition(config.training, needs_rationales=False)
    folder = RunFolder(path=Path(config.training.runs_dir) / config.run)
    shots = _shots(config, partition)
    if config.shots:
        leakage = with_shots(partition.leakage, partition.corpus.examples, partition.folds, shots)
        partition = replace(partition, leakage=leakage)
    if config.dry_run:
        listener.estimated(config, partition, _estimate(config, partition, folder, shots))
        return None
    # Before the folder: a backbone without weights should leave nothing behind.
    local = LocalModel(config.training, partition.task) if client is None else None
    folder = open_run_folder(config.training, prompted=prompted_keys(config), compared=COMPARED)
    record_partition(folder, partition, seed=config.training.seed)
    run = PromptedRun(prompted=config, partition=partition, folder=folder)
    listener.prepared(run)
    with _spending_alone(run):
        system: PromptedSystem = local or RemoteModel(
            config,
            partition.task,
            client=client,
            spent=_spent(run, shots),
            unanswered=_unanswered(run),
        )
        folder.update_manifest(system=_described(config), device=system.device)
        for fold in _wanted(config):
            _fold(run, fold, system, shots[fold], listener)
    summary = write_summary(run)
    track_summary(run, summary, options=prompted_options(config))
    listener.ended(run, summary, finished_scores(run))
    return summary


def total_usage(folder: RunFolder) -> Usage:
    """Return what the answers of a run's finished folds have used."""
    total = Usage()
    for entry in folder.read_manifest().get("folds", {}).values():
        total += Usage(**entry["usage"])
    return total


def _wanted(config: PromptedConfig) -> Sequence[int]:
    fold = config.training.cv.fold
    return [fold] if isinstance(fold, int) else range(config.training.cv.folds)


def _shots(config: PromptedConfig, partition: Partition) -> Shots:
    """Return every fold's shots, so that a category without one is told before the first call."""
    if not config.shots:
        return {fold.index: () for fold in partition.folds}
    return {
        fold.index: draw_shots(
            partition.examples(fold.train),
            partition.task,
            categories=config.shot_categories,
            seed=config.training.seed,
            fold=fold.index,
        )
        for fold in partition.folds
    }


def _described(config: PromptedConfig) -> dict[str, object]:
    return {
        "kind": "prompted",
        "client": config.client.name,
        "model": config.client.model if config.remote else config.training.backbone.name,
        "shots": config.shots,
        "shot_categories": config.shot_categories,
    }


def _unfinished(folder: RunFolder, folds: Sequence[int]) -> list[int]:
    return [fold for fold in folds if not folder.fold(fold).finished]


def _has_budget(config: PromptedConfig) -> bool:
    return config.client.max_cost is not None or config.client.max_total_tokens is not None


def _budget_folder(run: PromptedRun) -> Path:
    return run.folder.path / ".budget"


def _unanswered(run: PromptedRun) -> UnansweredRequests:
    return UnansweredRequests(_budget_folder(run))


def _spending_alone(run: PromptedRun) -> AbstractContextManager[None]:
    """Keep other processes from spending the same budget: neither would know of the other."""
    return locked(_budget_folder(run)) if _has_budget(run.prompted) else nullcontext()


def _spent(run: PromptedRun, shots: Shots) -> Usage:
    """Return what the run's answers, and requests without one, have used in any process."""
    if not _has_budget(run.prompted):
        return Usage()
    spent, model = total_usage(run.folder), RemoteModel(run.prompted, run.partition.task)
    for fold in _unfinished(run.folder, range(len(run.folds))):
        test = run.partition.examples(run.folds[fold].test)
        spent += model.kept_usage(test, shots[fold])
    return spent + _unanswered(run).total()


def _estimate(
    config: PromptedConfig, partition: Partition, folder: RunFolder, shots: Shots
) -> RequestEstimate:
    system: PromptedSystem
    if config.remote:
        system = RemoteModel(config, partition.task)
    else:
        system = LocalModel(config.training, partition.task)
    work = PromptWorkload(calls=0, kept=0, input_tokens=0)
    for fold in _unfinished(folder, _wanted(config)):
        work += system.workload(partition.examples(partition.folds[fold].test), shots[fold])
    output = work.calls * config.training.decoding.max_new_tokens
    prices = prices_of(config)
    usage = Usage(input_tokens=work.input_tokens, output_tokens=output)
    return RequestEstimate(
        work=work,
        output_tokens=output,
        cost=prices.cost(usage) if prices else None,
        exact=not config.remote,
    )


def _fold(
    run: PromptedRun,
    index: int,
    system: PromptedSystem,
    shots: tuple[Example, ...],
    listener: PromptListener,
) -> None:
    """Answer and score a fold, unless it is found finished."""
    folder, name = run.folder.fold(index), f"fold{index}"
    if folder.finished:
        scores = read_scores(folder)
        listener.fold_ended(
            FoldResult(name=name, folder=folder, scores=scores, seconds=0.0, found=True)
        )
        return
    options = prompted_options(run.prompted)
    with locked(folder.path):
        tracker = build_tracker(run.config, run.folder.path, options=options)
        tracker.start_fold(name)
        try:
            began = time.monotonic()
            answers, usage = _answers(run, index, system, shots, listener)
            seconds = time.monotonic() - began
            scores = _write_fold(run, index, answers)
            run.folder.update_manifest(
                folds={
                    name: {
                        "shots": [shot.id for shot in shots],
                        "usage": asdict(usage),
                        "encoding": dict(system.shortened),
                        "test_seconds": round(seconds, 3),
                        "environment": environment(),
                    }
                },
            )
            tell_texts(
                run.config,
                folder,
                run.partition.examples(run.folds[index].test),
                tracker=tracker,
                tell=listener.texts,
                prompt=lambda example: run.partition.task.messages(example, shots),
            )
            write_scores(folder, scores)
            tracker.log_fold(scores)
        except BaseException:
            tracker.abandon()
            raise
    write_summary(run)
    listener.fold_ended(FoldResult(name=name, folder=folder, scores=scores, seconds=seconds))


def _answers(
    run: PromptedRun,
    index: int,
    system: PromptedSystem,
    shots: tuple[Example, ...],
    listener: PromptListener,
) -> tuple[list[PromptedAnswer], Usage]:
    test = run.partition.examples(run.folds[index].test)
    listener.asking(f"fold{index}", system.workload(test, shots), len(shots))
    try:
        return system.answer(test, shots, on_answer=listener.answered)
    finally:
        listener.asked(system.shortened)


def _write_fold(run: PromptedRun, index: int, answers: Sequence[PromptedAnswer]) -> Scores:
    """Write a fold's predictions, and return their scores."""
    task: Task = run.partition.task
    test = run.partition.examples(run.folds[index].test)
    predictions = [
        prediction_of(task, example, index, answer)
        for example, answer in zip(test, answers, strict=True)
    ]
    text = predictions_to_jsonl(predictions)
    write_atomic(run.folder.fold(index).predictions, text, private=True)
    return score(predictions, task=task.name, labels=task.labels)


class PromptConsole(PromptListener):
    """Prints a prompted run as it goes; on a terminal with a bar of the answers.

    Args:
        console: Where to; standard output by default.
        bar: Whether a terminal gets the bar.
    """

    def __init__(self, console: Console | None = None, *, bar: bool = True) -> None:
        self._console = console or console_for()
        self._training = TrainingConsole(self._console)
        self._shows_bar = bar and self._console.is_terminal
        self._bar: Progress | None = None

    def prepared(self, run: PromptedRun) -> None:
        """Print what was read, who is asked, and what leaks between folds."""
        self._console.print(f"run      {run.folder.path}")
        _print_partition(self._console, run.prompted, run.partition)

    def estimated(
        self, config: PromptedConfig, partition: Partition, estimate: RequestEstimate
    ) -> None:
        """Print what a run would send and cost at most."""
        _print_partition(self._console, config, partition)
        work, say = estimate.work, self._console.print
        counted = "" if estimate.exact else "about "
        say(f"dry run  {work.calls} calls to make, {work.kept} answers kept from before")
        say(f"         {counted}{work.input_tokens} tokens of prompts", end="")
        say("" if estimate.exact else " (a quarter of ASCII characters, and all others)")
        say(
            f"         at most {estimate.output_tokens} tokens of answers "
            f"(decoding.max_new_tokens={config.training.decoding.max_new_tokens} each)"
        )
        if estimate.cost is not None:
            say(f"         {counted}{estimate.cost:.2f} at most, in the currency of the prices")
        elif config.remote:
            say("         cost unknown: set client.price_per_million_input and _output")
        if config.remote and not is_loopback(endpoint(config.client)):
            allowed = config.privacy.allow_external
            say(
                "         would leave this machine; "
                + ("allowed" if allowed else "needs privacy.allow_external=true")
            )
        say("         nothing was sent")

    def asking(self, name: str, work: PromptWorkload, n_shots: int) -> None:
        """Print the size of a fold, and start its bar."""
        kept = f", {work.kept} answers kept from before" if work.kept else ""
        self._console.print(f"{name}    {work.calls} prompts with {n_shots} examples each{kept}")
        if self._shows_bar:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.add_task(name, total=work.calls + work.kept)
            self._bar.start()

    def answered(self) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0])

    def asked(self, shortened: Mapping[str, int]) -> None:
        """Take the bar away, and print what prompts lost."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if shortened.get("dropped_turns"):
            self._console.print(
                f"         {shortened['truncated_examples']} prompts lost "
                f"{shortened['dropped_turns']} of their oldest turns (prompt.max_tokens)"
            )
        if shortened.get("still_too_long"):
            self._console.print(
                f"         {shortened['still_too_long']} prompts are over prompt.max_tokens "
                "with nothing left to lose"
            )

    def texts(self, sample: TextSample) -> None:
        """Print what the user asked to see."""
        self._training.texts(sample)

    def fold_ended(self, result: FoldResult) -> None:
        """Print the scores of a fold, just computed or found."""
        self._training.fold_ended(result)

    def ended(self, run: PromptedRun, summary: Summary, scores: Mapping[int, Scores]) -> None:
        """Print the tables of metrics and categories, and what the answers have used."""
        self._training.ended(run.folder, summary, scores)
        usage, prices = total_usage(run.folder), prices_of(run.prompted)
        cost = f", cost {prices.cost(usage):.4f}" if prices else ""
        self._console.print(
            f"{usage.answers} answers; tokens: {usage.input_tokens} of prompts, "
            f"{usage.output_tokens} of answers{cost}"
        )


def _print_partition(console: Console, config: PromptedConfig, partition: Partition) -> None:
    print_data(
        console,
        corpus=partition.corpus,
        task=partition.task,
        n_selected=len(partition.selected),
        leakage=partition.leakage,
    )
    where = config.training.backbone.name
    if config.remote:
        where = f"{config.client.model} at {endpoint(config.client)} ({config.client.name})"
    console.print(f"model    {where}, shots={config.shots}")
