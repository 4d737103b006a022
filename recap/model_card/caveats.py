"""What a model's card warns of, and what it says of use and licence."""

from __future__ import annotations

from recap.model_card.facts import CardFacts
from recap.model_card.tables import percent

FEW_EXAMPLES = 30
"""Tested examples of a label below which the card warns; half the width of a 95 % interval of a
share is then up to 0.18."""

_LEAKS = {
    "near_duplicates": "are nearly the same as a training example",
    "history_overlap": "share an utterance with the history of a training example",
}

USE = """\
For research on client resistance in text-based counselling, and, with the consent of clients and
counsellors, as one voice among others in supervision and training of counsellors.

It must not be used

- to diagnose, or to judge how ill, truthful or motivated a client is;
- to decide anything about a client automatically: admission, treatment, its end, or its price;
- to rate or select counsellors, or to watch sessions without everybody's consent;
- as a live warning that somebody is in danger: it was not made to notice that.

Resistance is no fault of a client, and the label no fact: somebody who knows the dialogue has the
last word."""
"""Intended use and misuse."""

MEMORISATION = """\
A tuned language model can give back parts of what it was tuned on, word for word. Treat the weights
as confidentially as the dialogues themselves; whoever gets the folder may get the texts. Whether it
does so was not tested."""
"""Of weights as a copy of their data."""


def limits_of(facts: CardFacts) -> list[str]:
    """Return what is to be kept in mind, a sentence each."""
    tested = facts.counts.get("test", {})
    limits = []
    if facts.synthetic:
        limits.append("Trained on a synthetic corpus: of no use for real dialogues.")
    few = [label for label in facts.task.labels if tested.get(label, 0) < FEW_EXAMPLES]
    if tested and few:
        limits.append(
            f"Fewer than {FEW_EXAMPLES} tested examples of {', '.join(few)}: their scores say "
            "little."
        )
    if facts.scores is not None:
        share = percent(facts.scores.metrics["invalid_rate"])
        limits.append(f"{share} % of its answers on the test part could not be read.")
    limits += [
        f"{facts.leakage[kind]['count']} test examples {said}."
        for kind, said in _LEAKS.items()
        if facts.leakage and facts.leakage[kind]["count"]
    ]
    if facts.leakage and (n := facts.leakage["shared_sessions"]["test_examples"]):
        limits.append(
            f"{n} test examples lie in sessions that are trained on (`cv.group=session` keeps "
            "sessions together): on new sessions expect less."
        )
    languages = " and ".join(facts.languages)
    return [
        *limits,
        (
            "Its probabilities were not calibrated, and how well calibrated they are was not "
            "assessed for this card."
        ),
        (
            f"It knows the language of its training data alone ({languages}), and the clients, "
            "counsellors and services that they come from; how it does with others is not known, "
            "nor whether it is as good for every group of clients."
        ),
        (
            "The share of resistant utterances in the corpus need not be that of practice; with it "
            "precision changes."
        ),
    ]


def licence_of(facts: CardFacts) -> str:
    """Return under which licence the weights stand, as far as the run knows."""
    backbone = facts.config.backbone
    if backbone.path is not None:
        base = (
            f"The base model `{backbone.name}` was read from a local folder: look up under which "
            "licence its weights stand; it holds for these too."
        )
    elif backbone.hub_id is not None:
        base = (
            f"These weights derive from `{backbone.hub_id}` and stand under its licence: look it "
            f"up at https://huggingface.co/{backbone.hub_id} before you use or pass them on."
        )
    else:
        base = "These weights were trained from random ones: no base model's licence applies."
    return (
        f"{base} What the agreements over the training data allow comes on top of that. The code "
        "of recap is under the Apache License 2.0."
    )
