"""One training: the parts that Lightning brings together, and the learning rate of a run."""

from __future__ import annotations

import gc
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping

from recap.config import RunConfig, TrainerConfig, check_combinations, compute_dtype
from recap.data.encode import ChatEncoder, EncodedExample
from recap.data.loaders import DataModule
from recap.errors import ConfigError, RecapError
from recap.folds.fold import TrainingPlan, likeliest_predictions
from recap.folds.run import FoldExamples, Run
from recap.models.backbone import LazyWeights, load_backbone, load_backbone_lazily
from recap.models.callbacks import (
    N_STEPS,
    AtomicCheckpointIO,
    FiniteSteps,
    KeepCheckpoints,
    RangeTest,
    suggest_rate,
)
from recap.models.checkpoints import CheckpointFolder, read_progress, require_free_space
from recap.models.engine.loss import BatchingChoice, choose_batching
from recap.models.finetune import apply_finetune, checkpoint_gradients
from recap.models.module import ResponseModule
from recap.models.strategy import OneDnnPrecision, ShardedStrategy, build_strategy
from recap.records import Example, Fold, Prediction
from recap.registry import Registry
from recap.runs.folder import FoldFolder
from recap.runs.history import EpochClock, History, OnEpoch, Tracker, TrainingBar
from recap.system.processes import device_count, is_first_process, is_spawned, world_size


class Training:
    """One model on its way: data, Lightning module and trainer of one fold, or of the final model.

    Every process of a training on several devices builds one. ``on_epoch`` is called after each
    epoch, its loss ``None`` without selection examples; a ``range_test`` tries learning rates in
    place of the training, for :meth:`try_rates` alone.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: FoldFolder,
        tracker: Tracker,
        *,
        module: Any,
        data: DataModule,
        tokenizer: Any,
        on_epoch: OnEpoch,
        max_epochs: int,
        range_test: RangeTest | None = None,
    ) -> None:
        if config.trainer.precision == "64-true":
            # Lightning (2.6) turns weights only after it has restored them, and would round them.
            module.double()
        self.module, self.data, self.tokenizer = module, data, tokenizer
        self._checkpoints = CheckpointFolder(folder.checkpoints)
        self._resume = config.resume == "auto"
        self._trains = config.finetune.method != "none"
        self._optimizer = config.optimizer.name
        selecting = bool(data.select)
        # Early stopping cannot end it sooner.
        self._n_saves = min(max_epochs, config.trainer.patience + 1) if selecting else max_epochs
        finite = FiniteSteps(config.trainer.max_skipped_steps)
        every_steps = config.trainer.log_every_steps
        history = History(folder.history, tracker, every_steps=every_steps, finite=finite)
        kept = KeepCheckpoints(
            self._checkpoints, every_steps=config.checkpoint.every_steps, selecting=selecting
        )
        # Checked with the validation, not at the epoch's end: a resume right after one would not
        # know val_loss.
        patience = config.trainer.patience
        stops = EarlyStopping("val_loss", patience=patience, check_on_train_epoch_end=False)
        bars = [TrainingBar(history)] if _shows_bar(config.trainer) else []
        callbacks = [history, finite, *([stops] if selecting else []), kept, *bars]
        callbacks += [EpochClock(on_epoch), *build_callbacks(config.callbacks)]
        self._trainer = build_trainer(
            config.trainer,
            callbacks=[range_test] if range_test else callbacks,
            gradient_clip_val=config.optimizer.gradient_clip,
            # Under SLURM Lightning goes on from checkpoints of its own that lie here (2.6.6).
            default_root_dir=folder.path.parent,
            max_epochs=max_epochs,
            accumulate_grad_batches=data.accumulation(world_size(config.trainer)),
        )

    def try_rates(self) -> None:
        """Train as long as the range test wants, without selection and checkpoints."""
        self._trainer.fit(self.module, datamodule=self.data)

    def resumes_at(self) -> tuple[str, int] | None:
        """Return where a killed process stopped, as :meth:`CheckpointFolder.stage` does."""
        return self._checkpoints.stage() if self._resume else None

    def fit(self) -> None:
        """Train until the last epoch or until the selection loss stops falling.

        A killed run goes on from where it stopped. Nothing happens for ``finetune=none``.
        """
        if not self._trains:
            return
        resumed = self.resumes_at()
        if resumed is not None and resumed[0] == "decode":
            return
        if resumed is None and is_first_process():
            # What an abandoned training left must never be taken for this one's.
            self._checkpoints.clear()
        require_free_space(
            self._checkpoints.path,
            self.module.model,
            optimizer=self._optimizer,
            n_saves=self._n_saves,
        )
        self._trainer.fit(
            self.module,
            datamodule=self.data,
            ckpt_path=self._checkpoints.newest() if resumed else None,
            weights_only=True,
        )
        if is_first_process():
            self._checkpoints.mark_trained()

    def test(self) -> int:
        """Decode and score the test examples with the best checkpoint; return its epoch from 1.

        0 stands for the untouched backbone of ``finetune=none``.
        """
        if not self._trains:
            self._trainer.test(self.module, datamodule=self.data, verbose=False)
            return 0
        best = self._checkpoints.best()
        self._trainer.test(
            self.module, datamodule=self.data, ckpt_path=best, weights_only=True, verbose=False
        )
        return read_progress(best)[0] + 1

    def selection_predictions(self, run: Run, fold: Fold) -> list[Prediction] | None:
        """Return what the weights that were tested hold of the selection examples.

        Nothing is generated. ``None`` where who selects is who is reported.
        """
        if not run.judges_selection:
            return None
        self._trainer.predict(self.module, datamodule=self.data, return_predictions=False)
        examples = run.examples(fold.select)
        rows = self.judged(examples, run.task.labels)
        return likeliest_predictions(run.task, fold.index, examples, rows)

    def judged(self, examples: Sequence[Example], labels: Sequence[str]) -> list[dict[str, float]]:
        """Return how likely each label was held of the examples that were judged last."""
        found = self.module.label_probabilities
        if [example.id for example in examples] != [one.id for one in found]:
            raise RecapError("labels came back in another order than the examples; report this")
        return [dict(zip(labels, one.probabilities, strict=True)) for one in found]

    @property
    def device(self) -> str:
        """The device, and how many of them are used in which way."""
        strategy, kind = self._trainer.strategy, self._trainer.strategy.root_device.type
        if self._trainer.world_size == 1 and not isinstance(strategy, ShardedStrategy):
            return str(strategy.root_device)
        name = "fsdp" if isinstance(strategy, ShardedStrategy) else "ddp"
        return f"{self._trainer.world_size} x {kind} ({name})"

    def barrier(self) -> None:
        """Wait until every process of this training has come here."""
        self._trainer.strategy.barrier()


def build_trainer(
    options: TrainerConfig, *, callbacks: list[lightning.Callback], **others: Any
) -> lightning.Trainer:
    """Return Lightning's trainer for one training of a run; ``others`` are arguments of it.

    A ``ConfigError`` where the machine lacks the device.
    """
    onednn = options.matmul == "onednn"
    # Inside a SLURM job too: processes of our own are not SLURM's.
    own = [LightningEnvironment()] if is_spawned() else []
    try:
        return lightning.Trainer(
            accelerator=options.accelerator,
            devices=device_count(options),
            num_nodes=options.nodes,
            strategy=build_strategy(
                options.strategy, world_size=world_size(options), cpu_offload=options.cpu_offload
            ),
            precision=None if onednn or options.precision == "auto" else options.precision,
            callbacks=callbacks,
            use_distributed_sampler=False,
            logger=False,
            enable_model_summary=False,
            enable_progress_bar=_shows_bar(options),
            # Where nothing is to be saved Lightning must not bring a checkpoint of its own.
            enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
            num_sanity_val_steps=0,
            # FSDP2's gathered weights would be unfit for training after inference mode.
            inference_mode=options.strategy != "fsdp",
            plugins=[AtomicCheckpointIO(), *own, *([OneDnnPrecision()] if onednn else [])],
            **others,
        )
    except MisconfigurationException as error:
        raise ConfigError(
            f"trainer.accelerator={options.accelerator}: {error}; use trainer=cpu or trainer=auto"
        ) from error


def _shows_bar(options: TrainerConfig) -> bool:
    # A process whose standard output is closed has none.
    return options.progress and sys.stdout is not None and sys.stdout.isatty()


def build_callbacks(callbacks: Mapping[str, Any]) -> list[lightning.Callback]:
    """Return the user's own callbacks; a ``ConfigError`` where one cannot be made."""
    built: list[lightning.Callback] = []
    for key, entry in callbacks.items():
        arguments = dict(entry)
        name = arguments.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError(f"callbacks.{key}: needs a name, such as name: package.module:Class")
        made = Registry[Any]("callback").get(name)
        if not isinstance(made, type) or not issubclass(made, lightning.Callback):
            raise ConfigError(f"callbacks.{key}: {name} is no subclass of lightning.Callback")
        try:
            built.append(made(**arguments))
        except TypeError as error:
            raise ConfigError(f"callbacks.{key}: {name} refuses its arguments ({error})") from error
    return built


def build_tuned(
    run: Run,
    encoder: ChatEncoder,
    folder: FoldFolder,
    tracker: Tracker,
    *,
    examples: FoldExamples,
    learning_rate: float,
    **how: Any,
) -> tuple[Training, BatchingChoice]:
    """Return the training of a run's language model, and how its batches are laid out.

    ``how`` are further arguments of the training.
    """
    config = run.config
    model, tokenizer, weights = build_model(config)
    choice = choose_batching(model, config.batching)
    data = DataModule(
        **examples,
        pad_id=encoder.pad_id,
        batching=choice.batching,
        decoding_batch_size=config.decoding.batch_size,
        **batch_options(config),
    )
    module = ResponseModule(
        model=model,
        encoder=encoder,
        task=run.task,
        optimizer=replace(config.optimizer, learning_rate=learning_rate),
        scheduler=config.scheduler,
        max_new_tokens=config.decoding.max_new_tokens,
        decoding=config.decoding.name,
        threshold=config.decoding.threshold,
        engine=config.decoding.engine,
        # The final model stops early on the very schedule that the folds followed.
        total_steps=config.trainer.max_epochs * data.steps_per_epoch,
        seed=config.seed,
        weights=weights,
    )
    training = Training(
        config, folder, tracker, module=module, data=data, tokenizer=tokenizer, **how
    )
    return training, choice


def build_model(config: RunConfig) -> tuple[Any, Any, LazyWeights | None]:
    """Return the model to tune, its tokenizer, and its weights if they are still to be read."""
    backbone, finetune = config.backbone, config.finetune
    source, weights = backbone.source, None
    if config.trainer.strategy == "fsdp" and (backbone.path or backbone.hub_id):
        model, tokenizer, weights = load_backbone_lazily(
            **source, dtype=backbone.dtype, seed=config.seed
        )
    else:
        model, tokenizer = load_backbone(
            **source,
            dtype=backbone.dtype,
            quantize=finetune.method == "qlora",
            compute_dtype=compute_dtype(config.trainer.precision),
            seed=config.seed,
        )
    tuned = apply_finetune(model, **asdict(finetune), seed=config.seed)
    if config.trainer.gradient_checkpointing:
        checkpoint_gradients(tuned)
    return tuned, tokenizer, weights


def batch_options(config: RunConfig) -> dict[str, Any]:
    """Return what a run says of its batches, as arguments of the data module."""
    trainer = config.trainer
    return {
        "global_batch_size": config.global_batch_size,
        "per_device_batch_size": trainer.per_device_batch_size,
        "max_tokens_per_device": trainer.max_tokens_per_device,
        "seed": config.seed,
        "sampling": config.sampling,
        "order": config.order,
        "workers": trainer.workers,
    }


def training_plan(
    config: RunConfig, name: str, examples: FoldExamples, max_epochs: int
) -> TrainingPlan:
    """Return the size of a training, as it is announced before it begins."""
    train, test = examples["train"], examples.get("test", ())
    return TrainingPlan(
        name=name,
        n_train=len(train),
        n_test=len(test),
        steps_per_epoch=-(-len(train) // config.global_batch_size),
        longest_prompt=max(len(example.prompt) for example in (*train, *test)),
        max_epochs=max_epochs,
    )


def settle_learning_rate(
    run: Run,
    encoder: ChatEncoder,
    folder: FoldFolder,
    train: Sequence[EncodedExample],
    *,
    on_found: Callable[[float, str], None],
) -> float:
    """Return the learning rate to train with; ``on_found`` is told of one that was found.

    With ``optimizer.find_learning_rate`` it is found once a run, on the training examples of the
    fold that trains first, with a model of its own that is thrown away; the manifest keeps it for
    the other folds and for resuming. A ``ConfigError`` where no rate can be suggested, or the
    weights' type cannot take up the one that is.
    """
    config = run.config
    if not config.optimizer.find_learning_rate:
        return config.optimizer.learning_rate
    found = run.folder.read_manifest().get("learning_rate")
    if found is None:
        found = _find(run, encoder, folder, train)
        if is_first_process():
            run.folder.update_manifest(learning_rate=found)
    rate = float(found["used"])
    settled = replace(config.optimizer, learning_rate=rate, find_learning_rate=False)
    check_combinations(replace(config, optimizer=settled))
    on_found(rate, found["found_on"])
    return rate


def _find(
    run: Run, encoder: ChatEncoder, folder: FoldFolder, train: Sequence[EncodedExample]
) -> dict[str, Any]:
    began = time.monotonic()
    test = RangeTest()
    steps_per_epoch = math.ceil(len(train) / run.config.global_batch_size)
    training, _ = build_tuned(
        run,
        encoder,
        folder,
        Tracker(),
        examples={"train": train},
        learning_rate=run.config.optimizer.learning_rate,
        on_epoch=lambda *_: None,
        max_epochs=math.ceil(N_STEPS / steps_per_epoch),
        range_test=test,
    )
    training.try_rates()
    del training
    # A trainer and its module hold each other; two models need not be in memory together.
    gc.collect()
    torch.cuda.empty_cache()
    return {
        "used": suggest_rate(test.rates, test.losses),
        "found_on": folder.path.name,
        "seconds": round(time.monotonic() - began, 3),
        "tried": list(test.rates),
        "losses": [loss if math.isfinite(loss) else None for loss in test.losses],
    }
