"""Baselines under cross-validation: the folds, files and tables of a trained run.

One fold of the encoder baseline: fine-tuned, the best epoch kept, its test examples judged.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recap.config import RunConfig
from recap.data.corpus import Corpus
from recap.data.encode import EncodedExample
from recap.data.loaders import DataModule
from recap.errors import ConfigError
from recap.evaluate.options import EvaluateConfig, baseline_run
from recap.folds.fold import (
    FoldListener,
    FoldResult,
    TrainingPlan,
    judges_selection,
    recorded,
    tell_texts,
)
from recap.folds.partition import Partition, check_fold, draw_partition, record_partition
from recap.folds.results import (
    card_of,
    finished_scores,
    read_scores,
    track_summary,
    write_scores,
    write_selection,
    write_summary,
)
from recap.folds.training import build_checkpoints, build_progress, build_trainer
from recap.metrics.files import predictions_to_jsonl
from recap.metrics.scores import score
from recap.models.callbacks import FiniteSteps
from recap.models.checkpoints import CheckpointFolder, read_progress
from recap.models.encoder import EncoderInput, EncoderModule, LoadedEncoder, load_encoder
from recap.models.export import CARD_FILE
from recap.models.optimizers import OptimizerSettings, SchedulerSettings
from recap.models.tfidf import example_text, tfidf_probabilities
from recap.records import Answer, Example, Fold, Prediction, Scores, Summary
from recap.runs.folder import FoldFolder, RunFolder, open_run_folder, remove_models
from recap.runs.history import EpochClock, History, Tracker, selection_loss
from recap.system.files import whole_folder, write_atomic
from recap.system.processes import environment, is_launched, world_size
from recap.tasks.task import Task

NOTHING_LOST: Mapping[str, int] = {"dropped_turns": 0, "truncated_examples": 0, "still_too_long": 0}


@dataclass(frozen=True, kw_only=True)
class BaselineRun:
    """A baseline's run, ready for its folds; see :class:`recap.folds.partition.FoldedRun`."""

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
class BaselineFold:
    """What a baseline says of a fold's test examples.

    ``probabilities`` has a row an example, in the order of the examples; ``selection`` likewise of
    those that select, ``None`` where they are the same. ``manifest`` is what the run's manifest
    keeps of the fold.
    """

    probabilities: Sequence[Mapping[str, float]]
    selection: Sequence[Mapping[str, float]] | None
    manifest: Mapping[str, Any]
    device: str


FoldBaseline = Callable[[BaselineRun, int, Tracker, FoldListener], BaselineFold]
"""Learns a fold's training examples and judges its test examples."""


def cross_validate_baseline(
    config: EvaluateConfig, *, listener: FoldListener | None = None
) -> Summary:
    """Run the unfinished folds of a baseline; return the summary of all finished ones.

    Raises:
        UserError: When the configuration or the data are at fault.
    """
    listener = listener or FoldListener()
    run = baseline_run(config)
    _check(config, run)
    data = draw_partition(run)
    judge: FoldBaseline = _tfidf_fold
    lost_turns, token_limit = NOTHING_LOST, "no limit"
    if config.method == "encoder":
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


def _judged(
    setup: BaselineRun, index: int, judge: FoldBaseline, listener: FoldListener
) -> FoldResult:
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


def _tfidf_fold(
    setup: BaselineRun, index: int, tracker: Tracker, listener: FoldListener
) -> BaselineFold:
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
    return BaselineFold(
        probabilities=probabilities[: len(test)],
        selection=probabilities[len(test) :] if select else None,
        manifest={"select_loss": None, "train_seconds": seconds, "test_seconds": 0.0},
        device="cpu",
    )


class EncoderFolds:
    """The folds of an encoder; their examples are encoded once.

    Args:
        run: The baseline's run, as :func:`recap.evaluate.options.baseline_run` gives it.
        data: The examples and their folds.

    Attributes:
        encoding: The selected examples as token ids, in their order.
    """

    def __init__(self, run: RunConfig, data: Partition) -> None:
        self._run = run
        self._options: dict[str, Any] = dict(run.baseline or {})
        self._data = data
        encoder = self._load()
        self._input = EncoderInput(
            encoder.tokenizer, max_tokens=self._options["max_tokens"], longest=encoder.longest
        )
        examples = [data.corpus.examples[i] for i in data.selected]
        self.encoding = self._input.encode(examples, data.task, history=self._options["history"])

    def judge(
        self, setup: BaselineRun, index: int, tracker: Tracker, listener: FoldListener
    ) -> BaselineFold:
        """Train on a fold's training examples and judge its test examples."""
        fold, folder = setup.folds[index], setup.folder.fold(index)
        train, test = self._encoded(fold.train), self._encoded(fold.test)
        listener.training(self._plan(folder.path.name, train, test))
        began = time.monotonic()
        training = _EncoderTraining(
            self._run,
            self._load(),
            self._input,
            self._data.task,
            folder,
            tracker,
            listener,
            train=train,
            select=self._encoded(fold.select),
            test=test,
        )
        training.fit()
        trained = time.monotonic()
        epoch = training.test()
        tested, probabilities = time.monotonic(), self._judged(training)
        selection = None
        if judges_selection(self._run):
            training.judge_selection()
            selection = self._judged(training)
        judged = BaselineFold(
            probabilities=probabilities,
            selection=selection,
            manifest={
                "selected_epoch": epoch,
                "select_loss": selection_loss(folder.history, epoch),
                "train_seconds": round(trained - began, 3),
                "test_seconds": round(tested - trained, 3),
                "selection_seconds": round(time.monotonic() - tested, 3),
            },
            device=training.device,
        )
        training.save(folder.model, card_of(setup, folder))
        return judged

    def _judged(self, training: _EncoderTraining) -> list[dict[str, float]]:
        labels = self._data.task.labels
        return [
            dict(zip(labels, judgement.probabilities, strict=True))
            for judgement in training.module.label_probabilities
        ]

    def _load(self) -> LoadedEncoder:
        backbone = self._run.backbone
        return load_encoder(
            name=backbone.name.removeprefix("encoder-"),
            labels=self._data.task.labels,
            hub_id=backbone.hub_id,
            path=backbone.path,
            seed=self._run.seed,
        )

    def _encoded(self, indices: Sequence[int]) -> tuple[EncodedExample, ...]:
        wanted = set(indices)
        pairs = zip(self._data.selected, self.encoding.examples, strict=True)
        return tuple(example for index, example in pairs if index in wanted)

    def _plan(
        self, name: str, train: Sequence[EncodedExample], test: Sequence[EncodedExample]
    ) -> TrainingPlan:
        return TrainingPlan(
            name=name,
            n_train=len(train),
            n_test=len(test),
            steps_per_epoch=-(-len(train) // self._run.global_batch_size),
            longest_prompt=max(len(example.prompt) for example in (*train, *test)),
            max_epochs=self._run.trainer.max_epochs,
        )


class _EncoderTraining:
    """One encoder on its way; a fold that was stopped goes on from its last checkpoint."""

    def __init__(
        self,
        run: RunConfig,
        encoder: LoadedEncoder,
        inputs: EncoderInput,
        task: Task,
        folder: FoldFolder,
        tracker: Tracker,
        listener: FoldListener,
        *,
        train: Sequence[EncodedExample],
        select: Sequence[EncodedExample],
        test: Sequence[EncodedExample],
    ) -> None:
        self._checkpoints = CheckpointFolder(folder.checkpoints)
        self._tokenizer = encoder.tokenizer
        self._resumed = self._checkpoints.stage() if run.resume == "auto" else None
        self._data = DataModule(
            train=train,
            select=select,
            test=test,
            pad_id=inputs.pad_id,
            global_batch_size=run.global_batch_size,
            per_device_batch_size=run.trainer.per_device_batch_size,
            decoding_batch_size=run.trainer.per_device_batch_size,
            batching="padded",
            seed=run.seed,
            sampling=run.sampling,
            workers=run.trainer.workers,
        )
        self.module = EncoderModule(
            model=encoder.model,
            labels=task.labels,
            task_name=task.name,
            close_id=inputs.close_id,
            optimizer=OptimizerSettings(
                name=run.optimizer.name,
                learning_rate=run.optimizer.learning_rate,
                weight_decay=run.optimizer.weight_decay,
            ),
            scheduler=SchedulerSettings(
                name=run.scheduler.name, warmup_fraction=run.scheduler.warmup_fraction
            ),
            total_steps=run.trainer.max_epochs * self._data.steps_per_epoch,
            seed=run.seed,
        )
        finite = FiniteSteps(run.trainer.max_skipped_steps)
        history = History(
            folder.history, tracker, every_steps=run.trainer.log_every_steps, finite=finite
        )
        self._trainer = build_trainer(
            run,
            max_epochs=run.trainer.max_epochs,
            accumulate_grad_batches=self._data.accumulation(),
            callbacks=[
                history,
                finite,
                *build_checkpoints(run, self._checkpoints, selecting=True),
                *build_progress(run, history),
                EpochClock(listener.epoch_ended),
            ],
        )

    @property
    def device(self) -> str:
        """What it is trained on."""
        return str(self._trainer.strategy.root_device)

    def fit(self) -> None:
        """Train until the last epoch, or until the selection loss stops falling."""
        if self._resumed and self._resumed[0] == "decode":
            return
        if not self._resumed:
            # What an abandoned training left must never be taken for this one's.
            self._checkpoints.clear()
        self._trainer.fit(
            self.module,
            datamodule=self._data,
            ckpt_path=self._checkpoints.newest() if self._resumed else None,
            weights_only=True,
        )
        self._checkpoints.mark_trained()

    def test(self) -> int:
        """Judge the test examples with the best checkpoint; return its epoch, from 1."""
        best = self._checkpoints.best()
        self._trainer.test(
            self.module, datamodule=self._data, ckpt_path=best, weights_only=True, verbose=False
        )
        return read_progress(best)[0] + 1

    def judge_selection(self) -> None:
        """Judge the selection examples with the weights that were tested."""
        self._trainer.predict(self.module, datamodule=self._data, return_predictions=False)

    def save(self, folder: Path, card: str) -> None:
        """Write model and card as a folder that plain transformers loads, whole or not at all."""
        with whole_folder(folder) as partial:
            self.module.model.save_pretrained(partial)
            self._tokenizer.save_pretrained(partial)
            (partial / CARD_FILE).write_text(card, encoding="utf-8")
