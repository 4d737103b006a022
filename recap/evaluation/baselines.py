"""Baselines under cross-validation: the folds, files and tables of a trained run."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from recap.baselines.tfidf import example_text, tfidf_probabilities
from recap.config import RunConfig
from recap.data.corpus import Corpus
from recap.environment import environment
from recap.errors import ConfigError
from recap.evaluation.options import EvaluateConfig, baseline_run
from recap.fold import FoldResult, Listener, judges_selection, recorded
from recap.launch import is_launched, world_size
from recap.partition import Partition, check_fold, draw_partition, record_partition
from recap.records import Answer, Example, Fold, Prediction, Scores, Summary
from recap.results import (
    finished_scores,
    read_scores,
    track_summary,
    write_scores,
    write_selection,
    write_summary,
)
from recap.run_folder import FoldFolder, RunFolder, open_run_folder, remove_models, write_atomic
from recap.scoring.confusion import score
from recap.scoring.files import predictions_to_jsonl
from recap.tasks.task import Task
from recap.telling import tell_texts
from recap.tracking.tracker import Tracker

NOTHING_LOST: Mapping[str, int] = {"dropped_turns": 0, "truncated_examples": 0, "still_too_long": 0}


@dataclass(frozen=True, kw_only=True)
class BaselineRun:
    """A baseline's run, ready for its folds; see :class:`recap.partition.FoldedRun`."""

    config: RunConfig
    data: Partition
    folder: RunFolder
    lost_turns: Mapping[str, int]
    token_limit: str

    @property
    def task(self) -> Task:
        """What is told apart."""
        return self.data.task

    @property
    def corpus(self) -> Corpus:
        """The examples, before the task selects."""
        return self.data.corpus

    @property
    def selected(self) -> tuple[int, ...]:
        """Those that the task takes, as indices into the corpus."""
        return self.data.selected

    @property
    def folds(self) -> tuple[Fold, ...]:
        """The partition."""
        return self.data.folds

    @property
    def leakage(self) -> Mapping[str, Any]:
        """What folds share."""
        return self.data.leakage


@dataclass(frozen=True, kw_only=True)
class JudgedFold:
    """What a baseline says of a fold's test examples.

    ``probabilities`` has a row an example, in the order of the examples; ``selection`` likewise of
    those that select, ``None`` where they are the same. ``manifest`` is what the run's manifest
    keeps of the fold.
    """

    probabilities: Sequence[Mapping[str, float]]
    selection: Sequence[Mapping[str, float]] | None
    manifest: Mapping[str, Any]
    device: str


FoldJudge = Callable[[BaselineRun, int, Tracker, Listener], JudgedFold]
"""Learns a fold's training examples and judges its test examples."""


def cross_validate_baseline(config: EvaluateConfig, *, listener: Listener | None = None) -> Summary:
    """Run the unfinished folds of a baseline; return the summary of all finished ones.

    Raises:
        UserError: When the configuration or the data are at fault.
    """
    listener = listener or Listener()
    run = baseline_run(config)
    _check(config, run)
    data = draw_partition(run)
    judge: FoldJudge = _tfidf_fold
    lost_turns, token_limit = NOTHING_LOST, "no limit"
    if config.method == "encoder":
        from recap.evaluation.encoder_fold import EncoderFolds

        # Before the folder: an encoder without weights should leave nothing behind.
        encoder = EncoderFolds(run, data)
        judge, lost_turns = encoder.judge, encoder.encoding.counts
        token_limit = f"encoder.max_tokens={config.encoder.max_tokens}"
    folder = open_run_folder(run)
    record_partition(folder, data, seed=run.seed)
    setup = BaselineRun(
        config=run,
        data=data,
        folder=folder,
        lost_turns=lost_turns,
        token_limit=token_limit,
    )
    listener.prepared(setup)
    wanted = range(run.cv.folds) if run.cv.fold == "all" else [int(run.cv.fold)]
    for index in wanted:
        result = _found(setup, index) or _judged(setup, index, judge, listener)
        listener.fold_ended(result)
        shutil.rmtree(result.folder.checkpoints, ignore_errors=True)
    summary = write_summary(setup)
    track_summary(setup, summary)
    listener.ended(setup.folder, summary, finished_scores(setup))
    return summary


def _check(config: EvaluateConfig, run: RunConfig) -> None:
    if run.cv.fold == "final":
        raise ConfigError(
            f"cv.fold=final: method={config.method} is a baseline for comparison and makes no "
            "model for use; set cv.fold=all, or train one with recap.train"
        )
    check_fold(run)
    if is_launched() or world_size(run.trainer) > 1 or run.trainer.strategy == "fsdp":
        raise ConfigError(
            f"method={config.method} works on one device; set trainer.devices=1 and trainer=auto, "
            "and start one process"
        )


def _found(setup: BaselineRun, index: int) -> FoldResult | None:
    folder = setup.folder.fold(index)
    if not folder.finished:
        return None
    return FoldResult(
        name=folder.path.name, folder=folder, scores=read_scores(folder), seconds=0.0, found=True
    )


def _judged(setup: BaselineRun, index: int, judge: FoldJudge, listener: Listener) -> FoldResult:
    """Judge one fold, and write its folder."""
    folder, name = setup.folder.fold(index), f"fold{index}"
    with recorded(setup, folder, name) as tracker:
        began = time.monotonic()
        judged = judge(setup, index, tracker, listener)
        scores = write_judgements(setup, index, folder, judged.probabilities)
        if judged.selection is not None:
            select = setup.data.examples(setup.folds[index].select)
            write_selection(setup, index, select, judged.selection)
        setup.folder.update_manifest(
            device=judged.device,
            encoding=dict(setup.lost_turns),
            folds={name: {**judged.manifest, "environment": environment()}},
        )
        examples = setup.data.examples(setup.folds[index].test)
        tell_texts(setup.config, folder, examples, tracker=tracker, tell=listener.texts)
        write_scores(folder, scores)
        tracker.log_fold(scores)
    result = FoldResult(name=name, folder=folder, scores=scores, seconds=time.monotonic() - began)
    write_summary(setup)
    remove_models(setup.folder, keep=setup.config.keep_models)
    return result


def write_judgements(
    setup: BaselineRun,
    index: int,
    folder: FoldFolder,
    probabilities: Sequence[Mapping[str, float]],
) -> Scores:
    """Write the predictions of one fold, an example's likeliest label each; return the scores."""
    task = setup.task
    examples = setup.data.examples(setup.folds[index].test)
    predictions = [
        _prediction(task, example, index, row)
        for example, row in zip(examples, probabilities, strict=True)
    ]
    write_atomic(folder.predictions, predictions_to_jsonl(predictions), private=True)
    return score(predictions, task=task.name, labels=task.labels)


def _prediction(task: Task, example: Example, fold: int, found: Mapping[str, float]) -> Prediction:
    # Over all labels of the task, 0 for one that the training examples never have.
    probabilities = {label: found.get(label, 0.0) for label in task.labels}
    label = max(probabilities, key=lambda name: probabilities[name])
    return Prediction(
        id=example.id,
        session=example.session,
        fold=fold,
        task=task.name,
        gold=task.gold(example),
        label=label,
        probabilities=probabilities,
        rationale=None,
        text=replace(task, rationale=False).render(Answer(label=label)),
        parsed=True,
    )


def _tfidf_fold(setup: BaselineRun, index: int, tracker: Tracker, listener: Listener) -> JudgedFold:
    options = setup.config.baseline or {}
    fold, task = setup.folds[index], setup.task
    train, test = setup.data.examples(fold.train), setup.data.examples(fold.test)
    select = setup.data.examples(fold.select) if judges_selection(setup.config) else ()
    began = time.monotonic()
    probabilities = tfidf_probabilities(
        [example_text(example, context=options["context"]) for example in train],
        [task.gold(example) for example in train],
        [example_text(example, context=options["context"]) for example in (*test, *select)],
        analyzer=options["analyzer"],
        class_weight=options["class_weight"],
        seed=setup.config.seed,
    )
    seconds = round(time.monotonic() - began, 3)
    return JudgedFold(
        probabilities=probabilities[: len(test)],
        selection=probabilities[len(test) :] if select else None,
        manifest={"select_loss": None, "train_seconds": seconds, "test_seconds": 0.0},
        device="cpu",
    )
