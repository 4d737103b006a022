"""Cross-validation of a language model that is tuned on each fold, and of its merged adapters."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from recap.config import (
    RunConfig,
    TrainerConfig,
    check_combinations,
    compute_dtype,
    taught,
    weights_dtype,
)
from recap.data.batches import BatchLimits, ScoringLoader
from recap.data.encode import ChatEncoder, EncodedExample, encode_examples
from recap.errors import ConfigError, RecapError
from recap.folds.console import listener_or_log
from recap.folds.fold import (
    FoldAnswers,
    FoldListener,
    card_of,
    end_part,
    finish_fold,
    finished_scores,
    in_processes,
    predictions_of,
    read_scores,
    recorded,
    run_folds,
    write_model_cards,
    write_summary,
)
from recap.folds.run import FoldExamples, Run, check_fold, open_run, read_run
from recap.folds.training import Training, build_tuned, settle_learning_rate, training_plan
from recap.metrics.scores import score
from recap.models.backbone import load_backbone, load_positions, load_skeleton, load_tokenizer
from recap.models.engine.loss import choose_batching
from recap.models.export import (
    Merged,
    ModelSettings,
    is_adapter_folder,
    mean_answer_loss,
    merge_adapter,
    save_model,
)
from recap.models.hub import read_adapter
from recap.records import Fold, Scores, Summary
from recap.runs.folder import FoldFolder
from recap.runs.history import Tracker, selection_loss
from recap.system.processes import (
    device_type,
    environment,
    is_first_process,
    is_launched,
    quiet_libraries,
    world_size,
)


@quiet_libraries()
def cross_validate(config: RunConfig, *, listener: FoldListener | None = None) -> Summary | None:
    """Run the unfinished folds that ``cv.fold`` asks for; return the summary of all finished ones.

    Without a listener the run is told to the logger ``recap``, and what bears on its results comes
    as a :class:`recap.RecapWarning`. ``None`` is returned when no fold is finished,
    which happens only for ``cv.fold=final`` in a fresh folder.

    On several devices each fold is trained by processes of its own, which import the script that
    calls this: its work has to stand under ``if __name__ == "__main__":``.

    Raises:
        UserError: When the configuration or the data are at fault.
    """
    listener = listener_or_log(listener)
    tuned = prepare(config)
    run, summary = tuned.run, None
    listener.prepared(run, tuned.encoder.notes)
    if config.cv.fold != "final":
        summary = run_folds(run, tuned, listener)
    else:
        finish_final(tuned, listener)
        if finished := finished_scores(run):
            summary = write_summary(run)
            listener.ended(run, summary, finished)
    merge_models(tuned, [run.folder.part(part) for part in run.parts], listener)
    return summary


@quiet_libraries()
def fit_fold(config: RunConfig, fold: int, *, listener: FoldListener | None = None) -> Scores:
    """Train, decode and score one fold (unless finished), write its folder, return its scores.

    A ``UserError`` where the configuration or the data are at fault.
    """
    listener = listener_or_log(listener)
    tuned = prepare(config)
    listener.prepared(tuned.run, tuned.encoder.notes)
    scores = finish_fold(tuned.run, fold, tuned, listener)
    # Of a fold that was found: who finished it may have been killed before it wrote the cards.
    listener.ended(tuned.run, write_summary(tuned.run), finished_scores(tuned.run))
    merge_models(tuned, [tuned.run.folder.fold(fold)], listener)
    return scores


def prepare(config: RunConfig) -> TunedSystem:
    """Return a run with the tokenizer of its model, and write the run folder's first files."""
    check_fold(config.cv)
    check_combinations(config)
    world_size(config.trainer)
    run = read_run(config)
    # Before the folder: a backbone without weights should leave nothing behind.
    source = config.backbone.source
    encoder = ChatEncoder(load_tokenizer(**source))
    if config.batching in ("packed", "trunk"):
        # What is forced and cannot be is refused now, and not after minutes of loading.
        choose_batching(load_skeleton(**source), config.batching)
    encoding = encode_examples(
        run.examples(),
        run.task,
        encoder,
        max_tokens=config.prompt.max_tokens,
        positions=load_positions(encoder.tokenizer, **source),
        max_new_tokens=config.decoding.max_new_tokens,
        cut=config.prompt.cut,
    )
    run = replace(run, encoding=encoding)
    open_run(run)
    return TunedSystem(run=run, encoder=encoder)


@dataclass(frozen=True, kw_only=True)
class TunedSystem:
    """Answers the examples of a fold by a model that is tuned on the fold's training examples."""

    run: Run
    encoder: ChatEncoder

    @property
    def n_processes(self) -> int:
        """One a device, unless a launcher has started them already."""
        trainer = self.run.config.trainer
        n = world_size(trainer)
        return 0 if is_launched() or (n == 1 and trainer.strategy != "fsdp") else n

    def answer(self, fold: Fold, tracker: Tracker, listener: FoldListener) -> FoldAnswers:
        """Train, keep the best model, and have it answer the test examples."""
        run, folder, began = self.run, self.run.folder.fold(fold.index), time.monotonic()
        assert run.encoding is not None
        training = self.training(
            folder, tracker, listener, run.examples_of(fold), run.config.trainer.max_epochs
        )
        training.fit()
        trained = time.monotonic()
        selected_epoch = training.test()
        if selected_epoch:
            self.save(training, folder)
        scores = training.module.scores()
        tested = time.monotonic()
        selection = training.selection_predictions(run, fold)
        # Whatever another process still has to read of the checkpoints, it has read now.
        training.barrier()
        examples, said = run.examples(fold.test), training.module.generations
        if [example.id for example in examples] != [one.id for one in said]:
            raise RecapError("answers came back in another order than the examples; report this")
        answers = [one.answer for one in said]
        predictions = predictions_of(run.task, fold.index, examples, answers)
        loss = scores.metrics["loss"]
        if score(predictions, task=run.task.name, labels=run.task.labels, loss=loss) != scores:
            raise RecapError("scores differ from those of predictions.jsonl; report this")
        return FoldAnswers(
            predictions=predictions,
            selection=selection,
            loss=loss,
            prompt=run.task.messages(examples[0]),
            entries={"device": training.device, "encoding": dict(run.encoding.counts)},
            fold_entries={
                "selected_epoch": selected_epoch,
                "select_loss": selection_loss(folder.history, selected_epoch),
                # No prediction holds it: this is what scores.json is verified by.
                "test_loss": loss,
                "train_seconds": round(trained - began, 3),
                "test_seconds": round(tested - trained, 3),
                "selection_seconds": round(time.monotonic() - tested, 3),
            },
            barrier=training.barrier,
        )

    def training(
        self,
        folder: FoldFolder,
        tracker: Tracker,
        listener: FoldListener,
        examples: FoldExamples,
        max_epochs: int,
    ) -> Training:
        """Return a training that is set up, and write down where a killed one is taken up."""
        run, name = self.run, folder.path.name
        listener.training(training_plan(run.config, name, examples, max_epochs))
        rate = settle_learning_rate(
            run, self.encoder, folder, examples["train"], on_found=listener.rate_found
        )
        training, choice = build_tuned(
            run,
            self.encoder,
            folder,
            tracker,
            examples=examples,
            learning_rate=rate,
            on_epoch=listener.epoch_ended,
            max_epochs=max_epochs,
        )
        listener.batched(choice, training.data.prefix)
        resumed = training.resumes_at()
        if resumed is not None and is_first_process():
            entry = {"fold": name, "step": resumed[1], "at": resumed[0]}
            earlier = run.folder.read_manifest().get("resumes", [])
            run.folder.update_manifest(resumes=[*earlier, entry])
        return training

    def save(self, training: Training, folder: FoldFolder) -> None:
        """Write the model of a fold, or the final one, with what it has to be told and its card."""
        save_model(
            training.module.model,
            training.tokenizer,
            folder.model,
            end_of_turn_id=self.encoder.end_of_turn_id,
            pad_id=self.encoder.pad_id,
            settings=ModelSettings(task=self.run.task, **taught(self.run.config)),
            # Written again once there are scores; a kill leaves no model without a card.
            card=card_of(self.run, folder),
        )


def finish_final(tuned: TunedSystem, listener: FoldListener) -> None:
    """Make the model on all data, unless it is there."""
    run, folder, began = tuned.run, tuned.run.folder.final, time.monotonic()
    found = folder.model.is_dir()
    if not found:
        in_processes(train_final, tuned, n=tuned.n_processes, folder=folder, listener=listener)
    end_part(run, folder, listener, None, None if found else time.monotonic() - began)


def train_final(tuned: TunedSystem, listener: FoldListener) -> None:
    """Train one model on all examples, for the mean selected epoch of the finished folds."""
    run, folder = tuned.run, tuned.run.folder.final
    assert run.encoding is not None
    with recorded(run, folder) as tracker:
        began = time.monotonic()
        # Written down first: folds that finish later must not change a training that is resumed.
        epochs = run.folder.read_manifest().get("final", {}).get("epochs") or _epochs_for_all(run)
        if is_first_process():
            run.folder.update_manifest(final={"epochs": epochs, "environment": environment()})
        examples: FoldExamples = {"train": run.encoding.examples}
        training = tuned.training(folder, tracker, listener, examples, epochs)
        training.fit()
        tuned.save(training, folder)
        training.barrier()
        if is_first_process():
            seconds = round(time.monotonic() - began, 3)
            run.folder.update_manifest(final={"train_seconds": seconds})
        training.barrier()
        tracker.log_fold(None)


def _epochs_for_all(run: Run) -> int:
    """Return the finished folds' mean selected epoch, ``trainer.max_epochs`` when there is none."""
    folds = run.folder.read_manifest().get("folds", {})
    selected = [fold["selected_epoch"] for fold in folds.values()]
    return round(statistics.fmean(selected)) if selected else run.config.trainer.max_epochs


N_EXAMPLES = 256
"""How many examples the final model is compared on: none are held out, so its own are taken."""


def default_tolerance(config: RunConfig) -> float:
    """Return how much merging may change the loss, in nats a token, unless the user says.

    Rounding in 32 bits stays far below 1e-5, and in 16 bits below 0.01. Weights in 4 bits differ
    from the unquantized ones, and 0.05 nats (a perplexity of 5 % more or less) are accepted.
    """
    if config.finetune.method == "qlora":
        return 0.05
    computed = compute_dtype(config.trainer.precision, config.backbone.dtype)
    return 1e-5 if computed == "float32" else 0.01


def merge_models(tuned: TunedSystem, folders: Sequence[FoldFolder], listener: FoldListener) -> None:
    """Put merged models in the place of these folds' or the final adapters, under ``merge=true``.

    A fold's merged model has to come near the loss in its scores.json on all of its test examples;
    the final one near that of its adapter on at most :data:`N_EXAMPLES` of its training examples.
    The manifest keeps both losses. A fold without an adapter is passed over.

    Raises:
        ConfigError: When one comes not near enough, after the others were merged; that adapter
            stays.
    """
    run, refused = tuned.run, []
    if not run.config.merge or not is_first_process():
        return
    for folder in folders:
        if not is_adapter_folder(folder.model):
            continue
        name = folder.path.name
        try:
            merged = _merged(run, folder, tuned.encoder.pad_id)
        except ConfigError as error:
            refused.append(str(error))
            continue
        run.folder.update_manifest(merges={name: asdict(merged)})
        listener.merged(name, merged)
    write_model_cards(run)
    if refused:
        raise ConfigError("\n".join(refused))


def _merged(run: Run, folder: FoldFolder, pad_id: int) -> Merged:
    config = run.config
    device = device_type(config.trainer)
    fold = next((f for f in run.folds if run.folder.fold(f.index) == folder), None)
    if fold is None:
        assert run.encoding is not None
        every = -(-len(run.selected) // N_EXAMPLES)
        batches = _batches(run.encoding.examples[::every], config.trainer, pad_id)
        loss = _loss_of_adapter(config, folder.model, batches, device)
    else:
        batches = _batches(run.encoded(fold.test), config.trainer, pad_id)
        known = read_scores(folder).metrics["loss"]
        assert known is not None
        loss = known
    tolerance = config.merge_tolerance
    return merge_adapter(
        folder.model,
        folder.model,
        batches=batches,
        adapted_loss=loss,
        tolerance=default_tolerance(config) if tolerance is None else tolerance,
        dtype=weights_dtype(config.trainer.precision, config.backbone.dtype),
        device=device,
        precision=config.trainer.precision,
    )


def _loss_of_adapter(config: RunConfig, folder: Path, batches: ScoringLoader, device: str) -> float:
    """Return the loss with the adapter beside the weights that it was trained with."""
    precision = config.trainer.precision
    model, _ = load_backbone(
        **config.backbone.source,
        dtype=weights_dtype(precision, config.backbone.dtype),
        quantize=config.finetune.method == "qlora",
        compute_dtype=compute_dtype(precision),
        seed=config.seed,
    )
    adapted = read_adapter(model, folder).to(device)
    loss = mean_answer_loss(adapted, batches, precision=precision)
    del adapted, model
    gc.collect()
    torch.cuda.empty_cache()
    return loss


def _batches(
    examples: Sequence[EncodedExample], trainer: TrainerConfig, pad_id: int
) -> ScoringLoader:
    """Return padded batches: any model can be scored on them, however it was trained."""
    limits = BatchLimits(
        examples=trainer.per_device_batch_size, tokens=trainer.max_tokens_per_device
    )
    return ScoringLoader(examples, pad_id=pad_id, limits=limits)
