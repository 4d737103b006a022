"""What a saved model answers to examples, one prediction each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recap.build import model_settings
from recap.detector.stage import AnswerOptions, Stage
from recap.evaluation.loading import SavedModel, load_saved
from recap.models.answerer import ModelAnswer
from recap.records import Example, Prediction


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Predictions in the order of the examples, and what became of long prompts."""

    predictions: list[Prediction]
    truncated_prompts: int
    too_long: int
    """Examples whose prompts have no room in the model; not asked, their answers unreadable."""

    def notes(self) -> list[str]:
        """Return a sentence for each of what became of long prompts."""
        said = {
            "prompts lost some of their oldest turns to fit": self.truncated_prompts,
            "prompts do not fit the model: it was not asked, and these count as unreadable "
            "(prompt.history=none or intervention trains one that reads less)": self.too_long,
        }
        return [f"{n} {text}" for text, n in said.items() if n]


def answer_examples(
    saved: SavedModel,
    examples: Sequence[Example],
    *,
    golds: Sequence[str],
    fold: int | None,
    batch_size: int,
    accelerator: str = "auto",
) -> Answered:
    """Return what a saved model answers, under the prompt and decoding that it was trained with.

    Args:
        saved: Where the model is, and what it was trained to do.
        examples: With or without labels.
        golds: What counts as right for each of them.
        fold: The fold that predictions name.
        batch_size: Prompts answered together.
        accelerator: ``cpu``, ``gpu``, or ``auto`` for a GPU where there is one.

    Raises:
        ConfigError: When the model cannot be loaded.
    """
    if not examples:
        return Answered(predictions=[], truncated_prompts=0, too_long=0)
    config, task = saved.config, saved.task
    stage = Stage(
        load_saved(saved, accelerator=accelerator),
        model_settings(config, task),
        task,
        AnswerOptions(
            decoding=config.decoding.name,
            with_rationale=task.rationale,
            batch_size=batch_size,
        ),
        threshold=config.decoding.threshold,
    )
    prompts = stage.prompts(examples)
    fitting = [i for i, prompt in enumerate(prompts) if prompt.fits]
    answers = dict(zip(fitting, stage.answer([prompts[i] for i in fitting]), strict=True))
    return Answered(
        predictions=[
            _prediction(example, answers.get(i), task=task.name, gold=gold, fold=fold)
            for i, (example, gold) in enumerate(zip(examples, golds, strict=True))
        ],
        truncated_prompts=sum(prompts[i].dropped_turns > 0 for i in fitting),
        too_long=len(prompts) - len(fitting),
    )


def _prediction(
    example: Example, answer: ModelAnswer | None, *, task: str, gold: str, fold: int | None
) -> Prediction:
    return Prediction(
        id=example.id,
        session=example.session,
        fold=fold,
        task=task,
        gold=gold,
        label=answer.label if answer else None,
        probabilities=answer.probabilities if answer else None,
        rationale=answer.rationale if answer else None,
        text=answer.text if answer else "",
        parsed=answer is not None and answer.label is not None,
    )
