"""Baselines under cross-validation: words alone, and an encoder that is fine-tuned on each fold."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from recap.config import RunConfig
from recap.data.loaders import DataModule
from recap.errors import ConfigError
from recap.evaluate.options import EvaluateConfig, baseline_run
from recap.folds.fold import FoldAnswers, FoldListener, card_of, likeliest_predictions, run_folds
from recap.folds.run import Run, check_fold, open_run, read_run
from recap.folds.training import Training, batch_options, training_plan
from recap.models.encoder import EncoderInput, EncoderModule, LoadedEncoder, load_encoder
from recap.models.export import CARD_FILE
from recap.models.tfidf import example_text, tfidf_probabilities
from recap.records import Answer, Fold, Prediction, Summary
from recap.runs.folder import FoldFolder
from recap.runs.history import Tracker, selection_loss
from recap.system.files import whole_folder
from recap.system.processes import is_launched, world_size
from recap.tasks.task import Task


def cross_validate_baseline(
    config: EvaluateConfig, *, listener: FoldListener | None = None
) -> Summary:
    """Run the unfinished folds of a baseline; return the summary of all finished ones."""
    listener = listener or FoldListener()
    settled = baseline_run(config)
    _check(config, settled)
    run = read_run(settled)
    # Before the folder: an encoder without weights should leave nothing behind.
    system: TfidfSystem | EncoderSystem = (
        read_with_encoder(run) if config.method == "encoder" else TfidfSystem(run=run)
    )
    open_run(system.run)
    listener.prepared(system.run, ())
    return run_folds(system.run, system, listener)


def _check(config: EvaluateConfig, run: RunConfig) -> None:
    if run.cv.fold == "final":
        raise ConfigError(
            f"cv.fold=final: method={config.method} is a baseline for comparison and makes no "
            "model for use; set cv.fold=all, or train one with recap.train"
        )
    check_fold(run.cv)
    if is_launched() or world_size(run.trainer) > 1 or run.trainer.strategy == "fsdp":
        raise ConfigError(
            f"method={config.method} works on one device; set trainer.devices=1 and trainer=auto, "
            "and start one process"
        )


def _predictions(
    run: Run, index: int, indices: Sequence[int], rows: Sequence[dict[str, float]]
) -> list[Prediction]:
    """Return the likeliest labels of test examples, as an answer would have them."""
    bare = replace(run.task, rationale=False)
    return likeliest_predictions(
        run.task,
        index,
        run.examples(indices),
        rows,
        text=lambda label: bare.render(Answer(label=label)),
    )


@dataclass(frozen=True, kw_only=True)
class TfidfSystem:
    """Answers the examples of a fold by the words of its training examples."""

    run: Run

    n_processes = 0
    """This one counts the words."""

    def answer(self, fold: Fold, tracker: Tracker, listener: FoldListener) -> FoldAnswers:
        """Learn from the training examples, and judge the others."""
        run, options = self.run, self.run.config.baseline or {}
        train, test = run.examples(fold.train), run.examples(fold.test)
        select = run.examples(fold.select) if run.judges_selection else ()
        began = time.monotonic()
        rows = tfidf_probabilities(
            [example_text(example, context=options["context"]) for example in train],
            [run.task.gold(example) for example in train],
            [example_text(example, context=options["context"]) for example in (*test, *select)],
            analyzer=options["analyzer"],
            class_weight=options["class_weight"],
            seed=run.config.seed,
        )
        seconds = round(time.monotonic() - began, 3)
        selection = likeliest_predictions(run.task, fold.index, select, rows[len(test) :])
        return FoldAnswers(
            predictions=_predictions(run, fold.index, fold.test, rows[: len(test)]),
            selection=selection or None,
            entries={"device": "cpu", "encoding": NOTHING_LOST},
            fold_entries={"select_loss": None, "train_seconds": seconds, "test_seconds": 0.0},
        )


NOTHING_LOST = {"dropped_turns": 0, "truncated_examples": 0, "still_too_long": 0}


def read_with_encoder(run: Run) -> EncoderSystem:
    """Return a run with its examples as an encoder reads them."""
    options = run.config.baseline or {}
    encoder = _load(run.config, run.task)
    inputs = EncoderInput(
        encoder.tokenizer, max_tokens=options["max_tokens"], longest=encoder.longest
    )
    encoding = inputs.encode(run.examples(), run.task, history=options["history"])
    return EncoderSystem(run=replace(run, encoding=encoding), inputs=inputs)


def _load(config: RunConfig, task: Task) -> LoadedEncoder:
    backbone = config.backbone
    return load_encoder(
        name=backbone.name.removeprefix("encoder-"),
        labels=task.labels,
        hub_id=backbone.hub_id,
        path=backbone.path,
        seed=config.seed,
    )


@dataclass(frozen=True, kw_only=True)
class EncoderSystem:
    """Answers the examples of a fold by an encoder that is fine-tuned on its training examples."""

    run: Run
    inputs: EncoderInput
    n_processes = 0
    """This one trains."""

    def answer(self, fold: Fold, tracker: Tracker, listener: FoldListener) -> FoldAnswers:
        """Train, keep the best epoch, and judge the test examples with it."""
        run, folder = self.run, self.run.folder.fold(fold.index)
        assert run.encoding is not None
        config = run.config
        examples = run.examples_of(fold)
        data = DataModule(
            **examples,
            pad_id=self.inputs.pad_id,
            batching="padded",
            decoding_batch_size=config.trainer.per_device_batch_size,
            **batch_options(config),
        )
        epochs = config.trainer.max_epochs
        listener.training(training_plan(config, folder.path.name, examples, epochs))
        began = time.monotonic()
        training = self._training(folder, tracker, listener, data)
        training.fit()
        trained = time.monotonic()
        epoch = training.test()
        tested = time.monotonic()
        rows = training.judged(run.examples(fold.test), run.task.labels)
        selection = training.selection_predictions(run, fold)
        self._save(training, folder)
        return FoldAnswers(
            predictions=_predictions(run, fold.index, fold.test, rows),
            selection=selection,
            entries={"device": training.device, "encoding": dict(run.encoding.counts)},
            fold_entries={
                "selected_epoch": epoch,
                "select_loss": selection_loss(folder.history, epoch),
                "train_seconds": round(trained - began, 3),
                "test_seconds": round(tested - trained, 3),
                "selection_seconds": round(time.monotonic() - tested, 3),
            },
        )

    def _training(
        self, folder: FoldFolder, tracker: Tracker, listener: FoldListener, data: DataModule
    ) -> Training:
        run, config, encoder = self.run, self.run.config, _load(self.run.config, self.run.task)
        module = EncoderModule(
            model=encoder.model,
            labels=run.task.labels,
            task_name=run.task.name,
            close_id=self.inputs.close_id,
            optimizer=config.optimizer,
            scheduler=config.scheduler,
            total_steps=config.trainer.max_epochs * data.steps_per_epoch,
            seed=config.seed,
        )
        return Training(
            config,
            folder,
            tracker,
            module=module,
            data=data,
            tokenizer=encoder.tokenizer,
            on_epoch=listener.epoch_ended,
            max_epochs=config.trainer.max_epochs,
        )

    def _save(self, training: Training, folder: FoldFolder) -> None:
        """Write model and card as a folder that plain transformers loads, whole or not at all."""
        with whole_folder(folder.model) as partial:
            training.module.model.save_pretrained(partial)
            training.tokenizer.save_pretrained(partial)
            card = card_of(self.run, folder)
            (partial / CARD_FILE).write_text(card, encoding="utf-8")
