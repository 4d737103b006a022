"""Cross-validation: the folds that are not yet finished, one after another, and their summary."""

from __future__ import annotations

import time
from typing import Any, Literal

from recap.build import build_tracker
from recap.config import RunConfig
from recap.errors import DataError
from recap.fold import FoldResult, Listener, TrainingPlan, train_final, train_fold
from recap.launch import is_first_process, is_launched, run_processes, world_size
from recap.models.shared_prefix import BatchingChoice
from recap.prepare import Setup, prepare
from recap.quiet import quiet_libraries
from recap.records import Scores, Summary
from recap.run_folder import FoldFolder, write_atomic
from recap.scoring.files import json_text, scores_from_dict, summary_to_dict
from recap.scoring.summary import summarize, summary_markdown

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
        _part(setup, "final", listener)
        summary = _summarize(setup) if _finished(setup) else None
    else:
        wanted = range(config.cv.folds) if config.cv.fold == "all" else [config.cv.fold]
        results = [_part(setup, fold, listener) for fold in wanted]
        summary = _summarize(setup)
        if is_first_process() and not all(result.found for result in results):
            build_tracker(config, setup.folder.path).log_summary(summary)
    if summary is not None:
        listener.ended(setup.folder, summary, _finished(setup))
    return summary


def fit_fold(config: RunConfig, fold: int, *, listener: Listener | None = None) -> Scores:
    """Train, decode and score one fold (unless finished), write its folder, return its scores.

    Raises:
        UserError: When the configuration or the data are at fault.
    """
    result = _part(prepare(config), fold, listener or Listener())
    assert result.scores is not None
    return result.scores


def _part(setup: Setup, part: Part, listener: Listener) -> FoldResult:
    """Return a fold or the final model: as it was found, or trained now."""
    result = _found(setup, part) or _trained(setup, part, listener)
    listener.fold_ended(result)
    return result


def _found(setup: Setup, part: Part) -> FoldResult | None:
    folder = setup.folder.part(part)
    scores = None
    if part == "final":
        if not folder.model.is_dir():
            return None
    elif folder.finished:
        scores = _read_scores(folder)
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
        _summarize(setup)
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
    scores = None if part == "final" else _read_scores(folder)
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

    def batched(self, choice: BatchingChoice, prefix: int | None) -> None:
        self._send("batched", choice, prefix)

    def epoch_ended(self, epoch: int, select_loss: float | None, seconds: float) -> None:
        self._send("epoch_ended", epoch, select_loss, seconds)


def _finished(setup: Setup) -> dict[int, Scores]:
    folders = {fold.index: setup.folder.fold(fold.index) for fold in setup.folds}
    return {index: _read_scores(folder) for index, folder in folders.items() if folder.finished}


def _summarize(setup: Setup) -> Summary:
    """Write and return the summary over the finished folds."""
    summary = summarize(_finished(setup), protocol=setup.config.cv.protocol)
    if is_first_process():
        write_atomic(setup.folder.summary, json_text(summary_to_dict(summary)))
        notes = setup.corpus.notes()
        write_atomic(setup.folder.summary_table, summary_markdown(summary, notes=notes))
    return summary


def _read_scores(folder: FoldFolder) -> Scores:
    import json

    try:
        data = json.loads(folder.scores.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"{folder.scores}: is not JSON; delete it to run this fold again"
        ) from error
    return scores_from_dict(data, source=str(folder.scores))
