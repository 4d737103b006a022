"""One training from examples to its folder: train, decode, score, write; on one device or many."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from recap import termination
from recap.build import build_tracker, model_settings
from recap.config import RunConfig
from recap.data.encode import EncodedExample
from recap.environment import environment
from recap.errors import RecapError
from recap.launch import is_first_process
from recap.learning_rate import settle_learning_rate
from recap.models.export import save_model
from recap.models.merge import Merged
from recap.models.shared_prefix import BatchingChoice
from recap.partition import FoldedRun
from recap.prepare import Setup
from recap.records import Scores, Summary
from recap.results import card_of, write_predictions, write_scores, write_selection
from recap.run_folder import FoldFolder, RunFolder, locked
from recap.telling import TextSample, tell_texts
from recap.tracking.history import selection_loss
from recap.tracking.tracker import NoTracker, Tracker
from recap.training import Training


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """The size of one training, as it is announced before it begins."""

    name: str
    n_train: int
    n_test: int
    steps_per_epoch: int
    longest_prompt: int
    """In tokens."""
    max_epochs: int


@dataclass(frozen=True, kw_only=True)
class FoldResult:
    """What became of one fold; ``scores`` is ``None`` for the final model (no test examples)."""

    name: str
    folder: FoldFolder
    scores: Scores | None
    seconds: float
    found: bool = False
    """Whether it was finished by an earlier process."""


class Listener:
    """Is told how a run goes; this one keeps silent."""

    def prepared(self, setup: FoldedRun) -> None:
        """Data are read, folds are drawn, prompts are encoded."""

    def training(self, plan: TrainingPlan) -> None:
        """A training is about to begin."""

    def rate_found(self, learning_rate: float, found_on: str) -> None:
        """A learning rate that was found, now or before, on the named fold is trained with."""

    def batched(self, choice: BatchingChoice, prefix: int | None) -> None:
        """It is settled how batches are laid out, and how many tokens they share."""

    def epoch_ended(self, epoch: int, select_loss: float | None, seconds: float) -> None:
        """One pass over the training examples is done (epochs count from 0)."""

    def texts(self, sample: TextSample) -> None:
        """A fold has answered, and its texts may be shown."""

    def fold_ended(self, result: FoldResult) -> None:
        """A fold is scored, or was found to be."""

    def merged(self, name: str, merged: Merged) -> None:
        """An adapter was merged onto its base, and the merged model took its place."""

    def ended(self, folder: RunFolder, summary: Summary, scores: Mapping[int, Scores]) -> None:
        """All folds that were asked for are done; ``scores`` holds every finished one."""


def train_fold(setup: Setup, index: int, listener: Listener) -> FoldResult:
    """Train, decode and score one fold, and write its folder.

    Every process of a training on several devices calls this; the first one writes.
    """
    fold, folder, name = setup.folds[index], setup.folder.fold(index), f"fold{index}"
    with recorded(setup, folder, name) as tracker:
        began = time.monotonic()
        train, test = setup.encoded(fold.train), setup.encoded(fold.test)
        max_epochs = setup.config.trainer.max_epochs
        listener.training(_plan(setup, name, train, test, max_epochs))
        rate = settle_learning_rate(setup, folder, train, on_found=listener.rate_found)
        training = Training(
            setup,
            folder,
            tracker,
            listener.epoch_ended,
            train=train,
            select=setup.encoded(fold.select),
            test=test,
            max_epochs=max_epochs,
            learning_rate=rate,
        )
        listener.batched(training.choice, training.data.prefix)
        _note_resume(setup, name, training)
        training.fit()
        trained = time.monotonic()
        selected_epoch = training.test()
        if selected_epoch:
            _save(training, setup, folder)
        scores = training.module.scores()
        tested = time.monotonic()
        if judges_selection(setup.config):
            training.judge_selection()
        # Whatever another process still has to read of the checkpoints, it has read now.
        training.meet()
        ended = time.monotonic()
        if is_first_process():
            examples = setup.examples(fold.test)
            write_predictions(setup, index, training.module, examples)
            if judges_selection(setup.config):
                _write_selection(setup, index, training)
            setup.folder.update_manifest(
                device=training.device,
                encoding=dict(setup.encoding.counts),
                folds={
                    name: {
                        "selected_epoch": selected_epoch,
                        "select_loss": selection_loss(folder.history, selected_epoch),
                        # No prediction holds it: this is what scores.json is verified by.
                        "test_loss": scores.metrics["loss"],
                        "train_seconds": round(trained - began, 3),
                        "test_seconds": round(tested - trained, 3),
                        "selection_seconds": round(ended - tested, 3),
                        "environment": environment(),
                    }
                },
            )
            tell_texts(
                setup.config,
                folder,
                examples,
                tracker=tracker,
                tell=listener.texts,
                prompt=setup.task.messages,
            )
            write_scores(folder, scores)
        # Under torchrun every process reads what the first one has written.
        training.meet()
        tracker.log_fold(scores)
    return FoldResult(name=name, folder=folder, scores=scores, seconds=ended - began)


def train_final(setup: Setup, listener: Listener) -> FoldResult:
    """Train one model on all examples, for the mean selected epoch of the finished folds.

    Every process of a training on several devices calls this; the first one writes.
    """
    folder = setup.folder.final
    with recorded(setup, folder, "final") as tracker:
        began = time.monotonic()
        # Written down first: folds that finish later must not change a training that is resumed.
        epochs = setup.folder.read_manifest().get("final", {}).get("epochs")
        epochs = epochs or _epochs_for_all(setup)
        if is_first_process():
            setup.folder.update_manifest(final={"epochs": epochs, "environment": environment()})
        examples = setup.encoding.examples
        listener.training(_plan(setup, "final", examples, (), epochs))
        rate = settle_learning_rate(setup, folder, examples, on_found=listener.rate_found)
        training = Training(
            setup,
            folder,
            tracker,
            listener.epoch_ended,
            train=examples,
            max_epochs=epochs,
            learning_rate=rate,
        )
        listener.batched(training.choice, training.data.prefix)
        _note_resume(setup, "final", training)
        training.fit()
        _save(training, setup, folder)
        training.meet()
        seconds = time.monotonic() - began
        if is_first_process():
            setup.folder.update_manifest(final={"train_seconds": round(seconds, 3)})
        training.meet()
        tracker.log_fold(None)
    return FoldResult(name="final", folder=folder, scores=None, seconds=seconds)


@contextmanager
def recorded(setup: FoldedRun, folder: FoldFolder, name: str) -> Iterator[Tracker]:
    """Keep other runs out of a fold while it is trained, and have the first process record it."""
    if not is_first_process():
        yield NoTracker()
        return
    with locked(folder.path):
        tracker = build_tracker(setup.config, setup.folder.path)
        tracker.start_fold(name)
        try:
            yield tracker
        except BaseException:
            tracker.abandon(preempted=termination.strongest_noted() > 0)
            raise


def judges_selection(config: RunConfig) -> bool:
    """Whether folds write selection.jsonl: the examples that select are not those reported."""
    return config.cv.protocol == "nested"


def _write_selection(setup: Setup, index: int, training: Training) -> None:
    examples = setup.examples(setup.folds[index].select)
    judgements = training.module.judgements
    if [example.id for example in examples] != [judgement.id for judgement in judgements]:
        raise RecapError("judgements came back in another order than the examples; report this")
    labels = setup.task.labels
    rows = [dict(zip(labels, one.probabilities, strict=True)) for one in judgements]
    write_selection(setup, index, examples, rows)


def _note_resume(setup: Setup, name: str, training: Training) -> None:
    """Write down in the manifest where a killed process is taken up, if it is."""
    resumed = training.resumes_at()
    if resumed is not None and is_first_process():
        entry = {"fold": name, "step": resumed[1], "at": resumed[0]}
        setup.folder.update_manifest(
            resumes=[*setup.folder.read_manifest().get("resumes", []), entry]
        )


def _epochs_for_all(setup: Setup) -> int:
    """Return the finished folds' mean selected epoch, ``trainer.max_epochs`` when there is none."""
    folds = setup.folder.read_manifest().get("folds", {})
    selected = [fold["selected_epoch"] for fold in folds.values()]
    return round(statistics.fmean(selected)) if selected else setup.config.trainer.max_epochs


def _plan(
    setup: Setup,
    name: str,
    train: Sequence[EncodedExample],
    test: Sequence[EncodedExample],
    max_epochs: int,
) -> TrainingPlan:
    return TrainingPlan(
        name=name,
        n_train=len(train),
        n_test=len(test),
        steps_per_epoch=-(-len(train) // setup.config.global_batch_size),
        longest_prompt=max(len(example.prompt) for example in (*train, *test)),
        max_epochs=max_epochs,
    )


def _save(training: Training, setup: Setup, folder: FoldFolder) -> None:
    save_model(
        training.module.model,
        training.tokenizer,
        folder.model,
        end_of_turn_id=setup.encoder.end_of_turn_id,
        pad_id=setup.encoder.pad_id,
        settings=model_settings(setup.config, setup.task),
        # Written again once there are scores; a kill leaves no model without a card.
        card=card_of(setup, folder),
    )
