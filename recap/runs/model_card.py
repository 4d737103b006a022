"""The card of a model: a README.md that says what it is, how it was scored, what it is not for.

The front matter is that of Hugging Face's model cards, the body templates/model_card.md.
Everything is filled in from the run; no text of a client, no session or client and no path of this
machine stands in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recap.config import RunConfig
from recap.metrics.scalar import SCALAR_METRICS, metric_of
from recap.metrics.scores import spread_text, support_warning
from recap.output.format import percent
from recap.output.tables import ReportTable
from recap.output.templates import Markdown, render_markdown
from recap.records import Provenance, Scores, Summary
from recap.runs.provenance import provenance_text
from recap.tasks.task import Task

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

LANGUAGES = {"en": ("en",), "zh": ("zh",), "both": ("en", "zh")}
"""Codes by ``data.language``."""

FEW_EXAMPLES = 30
"""Tested examples of a label below which the card warns; half the width of a 95 % interval of a
share is then up to 0.18."""

_PARTS = {"train": "trained on", "select": "selected on", "test": "tested on"}
_LEAKS = ("near_duplicates", "history_overlap")
_LABEL_FIGURES = ("precision", "recall", "f1")
_METHODS = {"full": "all weights", "lora": "LoRA", "qlora": "QLoRA (base in 4 bits)"}


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a model's card is made of."""

    part: str
    """``fold0`` and so on, or ``final``."""
    config: RunConfig
    task: Task
    synthetic: bool
    """Whether the corpus says that it is made up."""
    counts: Mapping[str, Mapping[str, int]]
    """Examples of each label in each part: ``train``, ``select``, ``test``."""
    leakage: Mapping[str, Any] | None = None
    """What the fold's test part shares with the others, as in leakage.json; none for ``final``."""
    scores: Scores | None = None
    """Of this fold; ``None`` for ``final``, and before the fold is scored."""
    summary: Summary | None = None
    """Over the folds finished so far; ``None`` when there is none."""
    selected_epoch: int | None = None
    """From 1; how many epochs, for ``final``."""
    learning_rate: float | None = None
    """The one that was found, where one was looked for."""
    adapter: bool = False
    """Whether the folder holds a PEFT adapter."""

    @property
    def encoder(self) -> bool:
        """Whether it is the encoder baseline, which writes no text."""
        return self.config.baseline is not None

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the dialogues' languages; the prompt's where the data's are not stated."""
        return LANGUAGES[self.config.data.language or self.task.language]


def model_card(facts: CardFacts) -> str:
    """Return the text of ``README.md``."""
    body = render_markdown("runs/templates/model_card.md", **body_facts(facts))
    return f"---\n{front_matter(facts).to_yaml()}\n---\n\n{body}\n"


def front_matter(facts: CardFacts) -> ModelCardData:
    """Return the metadata of a card, as Hugging Face's hub reads them."""
    from huggingface_hub import ModelCardData

    backbone = facts.config.backbone
    derived: dict[str, Any] = {}
    if backbone.hub_id is not None and backbone.path is None:
        derived = {
            "license_link": f"https://huggingface.co/{backbone.hub_id}",
            "base_model": backbone.hub_id,
            "base_model_relation": "adapter" if facts.adapter else "finetune",
        }
    method = [] if facts.encoder else [facts.config.finetune.method]
    return ModelCardData(
        language=list(facts.languages),
        license="other",
        license_name="see-the-section-on-the-license",
        library_name="peft" if facts.adapter else "transformers",
        pipeline_tag="text-classification" if facts.encoder else "text-generation",
        tags=["recap", "counseling", "client-resistance", facts.task.name, *method],
        **derived,
        **({} if facts.scores is None else _results(facts, facts.scores)),
    )


def _results(facts: CardFacts, scores: Scores) -> dict[str, Any]:
    from huggingface_hub import EvalResult

    data = facts.config.data.name
    return {
        "metrics": ["f1", "accuracy"],
        "model_name": f"{facts.config.run}, {facts.part}",
        "eval_results": [
            EvalResult(
                task_type="text-classification",
                task_name=facts.task.name,
                dataset_type=data,
                dataset_name=f"{data}, test part of {facts.part}",
                metric_type=kind,
                metric_name=metric_of(name).title,
                metric_value=scores.metrics[name],
            )
            for name, kind in (("macro_f1", "f1"), ("accuracy", "accuracy"))
        ],
    }


def body_facts(facts: CardFacts) -> dict[str, Any]:
    """Return the facts that templates/model_card.md is filled in with."""
    tested = facts.counts.get("test", {})
    leakage = facts.leakage or {}
    parts = [part for part in _PARTS if part in facts.counts]
    if facts.config.cv.protocol == "paper" and "test" in parts:
        parts.remove("select")
    kind = "SequenceClassification" if facts.encoder else "CausalLM"
    peft = "Peft" if facts.adapter and not facts.encoder else ""
    return {
        **vars(facts),
        "percent": percent,
        "table": table,
        "provenance": provenance_text(_provenance(facts)),
        "final": facts.part == "final",
        "encoder": facts.encoder,
        "languages": facts.languages,
        "count_heads": ["Label", *(_PARTS[part] for part in parts)],
        "count_rows": [
            *(
                [label, *(facts.counts[p].get(label, 0) for p in parts)]
                for label in facts.task.labels
            ),
            ["all", *(sum(facts.counts[p].values()) for p in parts)],
        ],
        "few": [
            label for label in facts.task.labels if tested and tested.get(label, 0) < FEW_EXAMPLES
        ],
        "few_examples": FEW_EXAMPLES,
        "leaks": {
            **{kind: leakage[kind]["count"] if leakage else 0 for kind in _LEAKS},
            "shared_sessions": leakage["shared_sessions"]["test_examples"] if leakage else 0,
        },
        "warning": support_warning(facts.summary) if facts.summary else None,
        **_score_tables(facts),
        "settings": _settings(facts),
        "auto_class": f"Auto{peft}ModelFor{kind}",
    }


def _provenance(facts: CardFacts) -> Provenance:
    scored, summary = facts.scores, facts.summary
    of_folds = summary.metrics_pooled if summary else {}
    supports = summary.per_label.values() if summary else ()
    return Provenance(
        model=facts.config.backbone.name,
        task=facts.task.name,
        run=facts.config.run,
        part=facts.part,
        data=facts.config.data.name,
        synthetic=facts.synthetic,
        macro_f1=(scored.metrics if scored else of_folds).get("macro_f1"),
        n=scored.n if scored else sum(row.support for row in supports),
    )


def _score_tables(facts: CardFacts) -> dict[str, Any]:
    """Return heads and rows of both tables of scores: this model's, then those over folds."""
    scores, summary = facts.scores, facts.summary
    heads = [*([facts.part] if scores else []), *(["mean ± SD"] if summary else [])]
    metric_rows = [
        [
            metric.title,
            *([percent(scores.metrics.get(name))] if scores else []),
            *([spread_text(summary.metrics.get(name))] if summary else []),
        ]
        for name, metric in SCALAR_METRICS.items()
    ]
    label_rows = []
    for label in facts.task.labels:
        row = [label]
        if scores:
            row += [percent(getattr(scores.per_label[label], name)) for name in _LABEL_FIGURES]
        if summary:
            row += [spread_text(getattr(summary.per_label[label], name)) for name in _LABEL_FIGURES]
        label_rows.append(row)
    return {
        "metric_head": ["Metric", *heads],
        "metric_rows": metric_rows,
        "label_head": ["Label", *(f"{name}, {head}" for head in heads for name in _LABEL_FIGURES)],
        "label_rows": label_rows,
    }


def _settings(facts: CardFacts) -> list[tuple[str, Any]]:
    config, tuning, prompt = facts.config, facts.config.finetune, facts.config.prompt
    backbone, optimizer = config.backbone, config.optimizer
    source = backbone.hub_id if backbone.path is None else "a local folder"
    rate = facts.learning_rate or optimizer.learning_rate
    merged = "" if facts.adapter else "; merged into the base"
    rank = f"rank {tuning.rank}, alpha {tuning.alpha:g}, dropout {tuning.dropout:g}{merged}"
    tuned = [("tuned", _METHODS.get(tuning.method, tuning.method))]
    if tuning.method in ("lora", "qlora"):
        tuned.append(("adapters", rank))
    shown = (
        f"{prompt.style}, history {prompt.history}, in `{facts.task.language}`, longest: "
        f"{f'{prompt.max_tokens} tokens' if prompt.max_tokens else 'as the model has positions'}, "
        f"cut by {prompt.cut}"
    )
    read = f"{config.decoding.name}, at most {config.decoding.max_new_tokens} tokens"
    decay = f"weight decay {optimizer.weight_decay:g}"
    return [
        ("base model", f"{backbone.name} ({source or 'from random weights'})"),
        *([] if facts.encoder else tuned),
        ("optimizer", f"{optimizer.name}, learning rate {rate:g}, {decay}"),
        ("schedule", f"{config.scheduler.name}, warm-up {config.scheduler.warmup_fraction:g}"),
        ("epochs", f"at most {config.trainer.max_epochs}, patience {config.trainer.patience}"),
        ("examples a step", config.global_batch_size),
        ("sampling", config.sampling),
        ("precision", f"{config.trainer.precision}, weights {backbone.dtype}"),
        *([] if facts.encoder else [("prompt", shown), ("decoding", read)]),
    ]


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> Markdown:
    """Return a Markdown table, its first column on the left, the others on the right."""
    written = tuple(tuple(map(str, row)) for row in rows)
    sheet = ReportTable(title="", header=tuple(heads), rows=written)
    return Markdown(sheet.markdown_table())
