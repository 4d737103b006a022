"""A labeled corpus of eighty utterances that a tiny model can learn, and what tests ask of it."""

from __future__ import annotations

from typing import Any

SAID = {
    "Collaboration": "Yes, I will gladly try what you suggest about",
    "Blaming": "No, they alone are to blame for all the trouble with",
    "Minimizing": "It is no big thing at all, really, as for",
}
TOPICS = ["work", "my son", "the flat", "school", "my sister", "the move", "the exam", "my back"]
LABELS = ["Collaboration", "Blaming", "Collaboration", "Minimizing"]

LEARNING = [
    *("data=dialogues", "rationale=false", "cv.folds=2", "global_batch_size=8", "trainer=cpu"),
    *("trainer.max_epochs=8", "trainer.patience=8", "optimizer.learning_rate=3e-3"),
    *("decoding.max_new_tokens=12", "prompt.history=none"),
]
"""Enough for answers that can be read, most of them right and some wrong."""


def rows(n: int = 80) -> list[dict[str, Any]]:
    """Return labelled examples; every tenth label of the first two is exchanged."""
    asked = [{"speaker": "counselor", "text": "What do you make of that?"}]
    found = []
    for number in range(n):
        label = LABELS[number % 4]
        said = f"{SAID[label]} {TOPICS[number % 8]} and {TOPICS[number // 10 % 8]}, {number}."
        if number % 10 == 3:
            label = "Blaming" if label == "Collaboration" else "Collaboration"
        found.append({"id": f"e{number}", "history": asked, "response": said, "label": label})
    return found
