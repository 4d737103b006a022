"""One fold of the encoder baseline: fine-tuned, the best epoch kept, its test examples judged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recap.baselines.encoder import EncoderModule
from recap.baselines.encoder_input import EncoderInput
from recap.baselines.encoder_model import LoadedEncoder, load_encoder
from recap.config import RunConfig
from recap.data.encode import EncodedExample
from recap.data.module import DataModule
from recap.disks import whole_folder
from recap.evaluation.baselines import BaselineRun, JudgedFold
from recap.fold import Listener, TrainingPlan, judges_selection
from recap.models.checkpoint import read_progress
from recap.models.checkpoint_folder import CheckpointFolder
from recap.models.export import CARD_FILE
from recap.models.finite_steps import FiniteSteps
from recap.models.optimizers import OptimizerSettings, SchedulerSettings
from recap.partition import Partition
from recap.results import card_of
from recap.run_folder import FoldFolder
from recap.tasks.task import Task
from recap.tracking.clock import EpochClock
from recap.tracking.history import History, selection_loss
from recap.tracking.tracker import Tracker
from recap.training import build_checkpoints, build_progress, build_trainer


class EncoderFolds:
    """The folds of an encoder; their examples are encoded once.

    Args:
        run: The baseline's run, as :func:`recap.evaluation.options.baseline_run` gives it.
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
        self, setup: BaselineRun, index: int, tracker: Tracker, listener: Listener
    ) -> JudgedFold:
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
        judged = JudgedFold(
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
            for judgement in training.module.judgements
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
        listener: Listener,
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
