"""Cross-validation: the folds that are not yet finished, one after another, and their summary."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import Any, Literal

from recap.config import RunConfig
from recap.fold import FoldResult, Listener, TrainingPlan, train_final, train_fold
from recap.launch import is_first_process, is_launched, run_processes, world_size
from recap.merging import merge_models
from recap.models.shared_prefix import BatchingChoice
from recap.prepare import Setup, prepare
from recap.quiet import quiet_libraries
from recap.records import Scores, Summary
from recap.results import (
    finished_scores,
    read_scores,
    track_summary,
    write_model_cards,
    write_summary,
)
from recap.run_folder import remove_models
from recap.telling import TextSample

Part = int | Literal["final"]
"""A fold by its number, or the model on all data."""


def cross_validate(config: RunConfig, *, listener: Listener | None = None) -> Summary | None:
    """Run the unfinished folds that ``cv.fold`` asks for; return the summary of all finished ones.

    ``None`` when no fold is finished, which happens only for ``cv.fold=final`` in a fresh folder.
    On several devices each fold is trained by processes of its own, which import the script that
    calls this: its work has to stand under ``if __name__ == "__main__":``.

    Raises:
        UserError: When the configuration or the data are at fault.
    """
    listener = listener or Listener()
    setup = prepare(config)
    listener.prepared(setup)
    if config.cv.fold == "final":
        results = [_part(setup, "final", listener)]
        summary = write_summary(setup) if finished_scores(setup) else None
    else:
        wanted = range(config.cv.folds) if config.cv.fold == "all" else [config.cv.fold]
        results = [_part(setup, fold, listener) for fold in wanted]
        summary = write_summary(setup)
        if is_first_process():
            # Also of folds that were all found: an earlier call may have been killed before this.
            track_summary(setup, summary)
    if summary is not None:
        listener.ended(setup.folder, summary, finished_scores(setup))
    _merge(setup, results, listener)
    return summary


def fit_fold(config: RunConfig, fold: int, *, listener: Listener | None = None) -> Scores:
    """Train, decode and score one fold (unless finished), write its folder, return its scores.

    Raises:
        UserError: When the configuration or the data are at fault.
    """
    listener = listener or Listener()
    setup = prepare(config)
    result = _part(setup, fold, listener)
    _merge(setup, [result], listener)
    if result.found and is_first_process():
        # The process that finished it may have been killed before it wrote them.
        write_model_cards(setup)
    assert result.scores is not None
    return result.scores


def _part(setup: Setup, part: Part, listener: Listener) -> FoldResult:
    """Return a fold or the final model, as it was found or trained now, and tidy up after it."""
    result = _found(setup, part) or _trained(setup, part, listener)
    listener.fold_ended(result)
    if is_first_process():
        # There still when the process that finished the fold was killed right then.
        shutil.rmtree(result.folder.checkpoints, ignore_errors=True)
        remove_models(setup.folder, keep=setup.config.keep_models)
    return result


def _merge(setup: Setup, results: Sequence[FoldResult], listener: Listener) -> None:
    if setup.config.merge and is_first_process():
        merge_models(setup, [result.name for result in results], on_merged=listener.merged)


def _found(setup: Setup, part: Part) -> FoldResult | None:
    folder = setup.folder.part(part)
    scores = None
    if part == "final":
        if not folder.model.is_dir():
            return None
    elif folder.finished:
        scores = read_scores(folder)
    else:
        return None
    return FoldResult(name=folder.path.name, folder=folder, scores=scores, seconds=0.0, found=True)


def _trained(setup: Setup, part: Part, listener: Listener) -> FoldResult:
    trainer = setup.config.trainer
    n = world_size(trainer)
    if is_launched() or (n == 1 and trainer.strategy != "fsdp"):
        result = _train(setup, part, listener)
    else:
        result = _train_in_processes(setup, part, n, listener)
    if part != "final":
        write_summary(setup)
    return result


def _train(setup: Setup, part: Part, listener: Listener) -> FoldResult:
    if part == "final":
        return train_final(setup, listener)
    return train_fold(setup, part, listener)


def _train_in_processes(setup: Setup, part: Part, n: int, listener: Listener) -> FoldResult:
    folder = setup.folder.part(part)
    # Encoded once, not in every process.
    assert setup.encoding.examples
    began = time.monotonic()

    def told(name: str, values: tuple[Any, ...]) -> None:
        getattr(listener, name)(*values)

    run_processes(_one_process, setup, part, n=n, what=folder.path.name, on_message=told)
    scores = None if part == "final" else read_scores(folder)
    seconds = time.monotonic() - began
    return FoldResult(name=folder.path.name, folder=folder, scores=scores, seconds=seconds)


def _one_process(send: Any, setup: Setup, part: Part) -> None:
    """Train as one of several processes."""
    quiet_libraries()
    _train(setup, part, _Sender(send))


class _Sender(Listener):
    """Passes on what happens inside a fold to the process that started this one."""

    def __init__(self, send: Any) -> None:
        self._send = send

    def training(self, plan: TrainingPlan) -> None:
        self._send("training", plan)

    def rate_found(self, learning_rate: float, found_on: str) -> None:
        self._send("rate_found", learning_rate, found_on)

    def batched(self, choice: BatchingChoice, prefix: int | None) -> None:
        self._send("batched", choice, prefix)

    def texts(self, sample: TextSample) -> None:
        self._send("texts", sample)

    def epoch_ended(self, epoch: int, select_loss: float | None, seconds: float) -> None:
        self._send("epoch_ended", epoch, select_loss, seconds)
