"""What a saved model answers to examples, one prediction each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recap.data.chat import ChatEncoder
from recap.data.encode import PromptEncoder
from recap.evaluation.loading import SavedModel, load_saved
from recap.models.answerer import Answerer
from recap.records import Example, Prediction


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Predictions in the order of the examples, and the turns that their prompts lost."""

    predictions: list[Prediction]
    truncated_prompts: int


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
        return Answered(predictions=[], truncated_prompts=0)
    trained = load_saved(saved, accelerator=accelerator)
    encoder = ChatEncoder(trained.tokenizer)
    config, task = saved.config, saved.task
    prompts = PromptEncoder(task, encoder, max_tokens=config.prompt.max_tokens)
    prompts.count_turns(examples)
    encoded = [prompts.encode(example) for example in examples]
    answerer = Answerer(
        trained.model,
        task,
        encoder,
        decoding=config.decoding.name,
        max_new_tokens=config.decoding.max_new_tokens,
        batch_size=batch_size,
        threshold=config.decoding.threshold,
        adapter=trained.adapter,
    )
    answers = answerer.answer([prompt.ids for prompt in encoded])
    predictions = [
        Prediction(
            id=example.id,
            session=example.session,
            fold=fold,
            task=task.name,
            gold=gold,
            label=answer.label,
            probabilities=answer.probabilities,
            rationale=answer.rationale,
            text=answer.text,
            parsed=answer.label is not None,
        )
        for example, gold, answer in zip(examples, golds, answers, strict=True)
    ]
    return Answered(
        predictions=predictions,
        truncated_prompts=sum(prompt.dropped_turns > 0 for prompt in encoded),
    )
