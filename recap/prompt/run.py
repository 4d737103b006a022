"""Prompted systems under cross-validation: the folds, prompts, parser and scorer of a training.

What a dry run says: the calls that a run would make, their tokens, and what they cost at most.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console

from recap.cli.prompted import PromptedConfig, prompted_keys
from recap.config import check_combinations
from recap.errors import ConfigError
from recap.folds.console import print_data
from recap.folds.fold import FoldAnswers, FoldListener, predictions_of, run_folds
from recap.folds.prompts import read_prompted
from recap.folds.run import Run, check_fold, open_run
from recap.output.format import console_for, lost_turns
from recap.prompt.clients import build_client, endpoint, is_loopback
from recap.prompt.requests import UnansweredRequests
from recap.prompt.systems import (
    LocalModel,
    PromptedModel,
    RemoteModel,
    check_prompted,
)
from recap.records import Fold, Summary, Usage
from recap.runs.folder import RunFolder, locked
from recap.runs.history import Tracker
from recap.system.processes import is_launched


def prompt_folds(config: PromptedConfig, *, listener: FoldListener | None = None) -> Summary:
    """Answer, score and write the unfinished folds that ``cv.fold`` asks for.

    Returns:
        The summary of all finished folds.

    Raises:
        UserError: When configuration or data are at fault, or the budget ends.
        RecapError: When a server does not answer; what it did answer is kept.
    """
    listener = listener or FoldListener()
    _check(config)
    # A missing package or key is told before data are read.
    client = None
    if config.remote:
        client = build_client(config.client, max_new_tokens=config.training.decoding.max_new_tokens)
    run = _read(config)
    # Before the folder: a backbone without weights should leave nothing behind.
    local = LocalModel(run.config, run.task) if client is None else None
    open_run(run)
    notes = [] if local is None else local.encoder.notes
    listener.prepared(run, [_model_line(config), *notes])
    unanswered = UnansweredRequests(_budget_folder(run))
    # Other processes must not spend the same budget: neither would know of the other.
    with locked(_budget_folder(run)) if _has_budget(config) else nullcontext():
        model: PromptedModel = local or RemoteModel(
            config,
            run.task,
            client=client,
            spent=_spent(config, run, unanswered),
            unanswered=unanswered,
        )
        return run_folds(run, PromptedSystem(config=config, run=run, model=model), listener)


@dataclass(frozen=True, kw_only=True)
class PromptedSystem:
    """Answers the examples of a fold by prompting a model as it is."""

    config: PromptedConfig
    run: Run
    model: PromptedModel
    n_processes = 0
    """This one asks."""

    def answer(self, fold: Fold, tracker: Tracker, listener: FoldListener) -> FoldAnswers:
        """Have the test examples answered, with the fold's shots in every prompt."""
        config, task, model = self.config, self.run.task, self.model
        test, shots = self.run.examples(fold.test), self.run.shots.get(fold.index, ())
        began, work = time.monotonic(), model.workload(test, shots)
        name = self.run.folder.fold(fold.index).path.name
        listener.prompting(name, calls=work["calls"], kept=work["kept"], n_shots=len(shots))
        try:
            answers, usage = model.answer(test, shots, on_answer=listener.answered)
        finally:
            listener.prompted(lost_turns(model.shortened, model.limit))
        return FoldAnswers(
            predictions=predictions_of(task, fold.index, test, answers),
            prompt=task.messages(test[0], shots),
            entries={
                "system": {
                    "kind": "prompted",
                    "client": config.client.name,
                    "model": _model_name(config),
                    "shots": config.shots,
                    "shot_categories": config.shot_categories,
                },
                "device": model.device,
            },
            fold_entries={
                "shots": [shot.id for shot in shots],
                "usage": asdict(usage),
                "encoding": dict(model.shortened),
                "test_seconds": round(time.monotonic() - began, 3),
            },
        )


def total_usage(folder: RunFolder) -> Usage:
    """Return what the answers of a run's finished folds have used."""
    folds = folder.read_manifest().get("folds", {}).values()
    return sum((Usage(**entry["usage"]) for entry in folds), Usage())


def _check(config: PromptedConfig) -> None:
    check_fold(config.training.cv)
    check_combinations(config.training)
    check_prompted(config)
    if is_launched():
        raise ConfigError("recap.prompt asks from one process; start it without torchrun or srun")


def _read(config: PromptedConfig) -> Run:
    run = read_prompted(config.training, shots=config.shots, categories=config.shot_categories)
    return replace(run, prompted=prompted_keys(config))


def _has_budget(config: PromptedConfig) -> bool:
    return config.client.max_cost is not None or config.client.max_total_tokens is not None


def _budget_folder(run: Run) -> Path:
    return run.folder.path / ".budget"


def _spent(config: PromptedConfig, run: Run, unanswered: UnansweredRequests) -> Usage:
    """Return what the run's answers, and requests without one, have used in any process."""
    if not _has_budget(config):
        return Usage()
    spent, model = total_usage(run.folder), RemoteModel(config, run.task)
    for fold in _unfinished(run, range(len(run.folds))):
        spent += model.kept_usage(run.examples(fold.test), run.shots.get(fold.index, ()))
    return spent + unanswered.total()


def _unfinished(run: Run, indices: Iterable[int | str]) -> list[Fold]:
    return [f for f in run.folds if f.index in indices and not run.folder.fold(f.index).finished]


def print_estimate(config: PromptedConfig, console: Console | None = None) -> None:
    """Print what a run would send and cost at most, without sending or writing anything.

    Raises:
        UserError: When configuration or data are at fault.
    """
    console = console or console_for()
    _check(config)
    run = _read(config)
    work, limit = _workload(config, run), config.training.decoding.max_new_tokens
    calls, tokens, say = work["calls"], work["input_tokens"], console.print
    print_data(console, run, [_model_line(config)])
    # Tokens of a server's prompts are estimated, not counted.
    about = "about " if config.remote else ""
    how = " (a quarter of ASCII characters, and all others)" if config.remote else ""
    say(f"dry run  {calls} calls to make, {work['kept']} answers kept from before")
    say(f"         {about}{tokens} tokens of prompts{how}")
    say(
        f"         at most {calls * limit} tokens of answers (decoding.max_new_tokens={limit} each)"
    )
    prices = config.prices
    if prices is not None:
        most = Usage(input_tokens=tokens, output_tokens=calls * limit)
        say(f"         {about}{prices.cost(most):.2f} at most, in the currency of the prices")
    elif config.remote:
        say("         cost unknown: set client.price_per_million_input and _output")
    if config.remote and not is_loopback(endpoint(config.client)):
        allowed = config.privacy.allow_external
        permission = "allowed" if allowed else "needs privacy.allow_external=true"
        say(f"         would leave this machine; {permission}")
    say("         nothing was sent")


def _workload(config: PromptedConfig, run: Run) -> Counter[str]:
    """Return what the unfinished folds that ``cv.fold`` asks for would send."""
    model: PromptedModel = (
        RemoteModel(config, run.task)
        if config.remote
        else LocalModel(run.config, run.task, dry_run=True)
    )
    folds = [
        (run.examples(f.test), run.shots.get(f.index, ())) for f in _unfinished(run, run.parts)
    ]
    return sum((model.workload(*fold) for fold in folds), Counter[str]())


def print_usage(config: PromptedConfig, console: Console | None = None) -> None:
    """Print what the answers of a run have used."""
    folder = RunFolder(path=Path(config.training.runs_dir) / config.run)
    usage, prices = total_usage(folder), config.prices
    cost = f", cost {prices.cost(usage):.4f}" if prices else ""
    (console or console_for()).print(
        f"{usage.answers} answers; tokens: {usage.input_tokens} of prompts, "
        f"{usage.output_tokens} of answers{cost}"
    )


def _model_name(config: PromptedConfig) -> str | None:
    return config.client.model if config.remote else config.training.backbone.name


def _model_line(config: PromptedConfig) -> str:
    where = _model_name(config)
    if config.remote:
        where = f"{where} at {endpoint(config.client)} ({config.client.name})"
    return f"model {where}, shots={config.shots}"
