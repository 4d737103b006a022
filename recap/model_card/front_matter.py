"""The YAML at the head of a model's card."""

from __future__ import annotations

from typing import Any

from recap.model_card.facts import METRIC_TITLES, CardFacts
from recap.records import Scores


def front_matter(facts: CardFacts) -> dict[str, Any]:
    """Return the metadata of a card, as Hugging Face's hub reads them."""
    backbone, method = facts.config.backbone, facts.config.finetune.method
    front: dict[str, Any] = {
        "language": list(facts.languages),
        "license": "other",
        "license_name": "see-the-section-on-the-licence",
    }
    if backbone.hub_id is not None and backbone.path is None:
        front["license_link"] = f"https://huggingface.co/{backbone.hub_id}"
        front["base_model"] = backbone.hub_id
        front["base_model_relation"] = "adapter" if facts.adapter else "finetune"
    front |= {
        "library_name": "peft" if facts.adapter else "transformers",
        "pipeline_tag": "text-classification" if facts.encoder else "text-generation",
        "tags": ["recap", "counseling", "client-resistance", facts.task.name]
        + ([] if facts.encoder else [method]),
    }
    if facts.scores is not None:
        front["metrics"] = ["f1", "accuracy"]
        front["model-index"] = [_index(facts, facts.scores)]
    return front


def _index(facts: CardFacts, scores: Scores) -> dict[str, Any]:
    shown = {"macro_f1": "f1", "accuracy": "accuracy"}
    return {
        "name": f"{facts.config.run}, {facts.part}",
        "results": [
            {
                "task": {"type": "text-classification", "name": facts.task.name},
                "dataset": {
                    "type": facts.config.data.name,
                    "name": f"{facts.config.data.name}, test part of {facts.part}",
                },
                "metrics": [
                    {"type": kind, "name": METRIC_TITLES[name], "value": scores.metrics[name]}
                    for name, kind in shown.items()
                ],
            }
        ],
    }
