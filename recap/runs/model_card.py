"""The card of a model: a README.md that says what it is, how it was scored, what it is not for.

The front matter is that of Hugging Face's model cards. Everything is filled in from the run; no
text of a client, no session or client and no path of this machine stands in it.

What a model's card is made of.

Tables and numbers of a model's card.

What a model's card warns of, and what it says of use and licence.

The YAML at the head of a model's card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from recap.config import RunConfig
from recap.metrics.scalar import SCALAR_METRICS, metric_of
from recap.metrics.scores import spread_text
from recap.records import Scores, Summary
from recap.system.escaping import plain_markdown
from recap.tasks.task import Task

LANGUAGES = {"en": ("en",), "zh": ("zh",), "both": ("en", "zh")}
"""Codes by ``data.language``."""


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
    def final(self) -> bool:
        """Whether this is the model on all data."""
        return self.part == "final"

    @property
    def encoder(self) -> bool:
        """Whether it is the encoder baseline, which writes no text."""
        return self.config.baseline is not None

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the dialogues' languages; the prompt's where the data's are not stated."""
        return LANGUAGES[self.config.data.language or self.task.language]


def percent(value: float | None) -> str:
    """Return a fraction in percent, a dash for none."""
    return "–" if value is None else f"{100 * value:.2f}"


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table, its first column on the left, the others on the right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


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
                    {"type": kind, "name": metric_of(name).title, "value": scores.metrics[name]}
                    for name, kind in shown.items()
                ],
            }
        ],
    }


def model_card(facts: CardFacts) -> str:
    """Return the text of ``README.md``."""
    front = yaml.safe_dump(front_matter(facts), sort_keys=False, allow_unicode=True)
    sections = [
        f"---\n{front}---",
        f"# {facts.config.run}, {facts.part}",
        _opening(facts),
        "## Data\n\n" + _data(facts),
        "## Protocol\n\n" + _protocol(facts),
        "## Scores\n\n" + _scores(facts),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits_of(facts)),
        "## Intended use\n\n" + USE,
        "## Memorisation\n\n" + MEMORISATION,
        "## Licence\n\n" + licence_of(facts),
        "## Training\n\n" + _training(facts),
        "## Loading it\n\n" + _loading(facts),
    ]
    # Names of labels are no HTML, whoever gave them; front matter and code stay as they are.
    shown = [sections[0], *map(plain_markdown, sections[1:-1]), sections[-1]]
    return "\n\n".join(shown) + "\n"


def _opening(facts: CardFacts) -> str:
    task = facts.task
    answer = "the label alone" if facts.encoder or not task.rationale else "a label and a reason"
    return (
        f"It reads a client's utterance in a counselling dialogue, with what was said before, and "
        f"answers {answer}. Task `{task.name}`: {', '.join(task.labels)}.\n\n"
        "This card was filled in by the run that made the model; nobody has reviewed it."
    )


def _data(facts: CardFacts) -> str:
    data, config = facts.config.data, facts.config
    language = {"en": "English", "zh": "Chinese", "both": "English and Chinese"}
    made = (
        "**The corpus is synthetic**: it shows that the software works, and says nothing about "
        "real clients."
        if facts.synthetic
        else "The corpus does not say of itself that it is synthetic."
    )
    parts = [part for part in ("train", "select", "test") if part in facts.counts]
    if config.cv.protocol == "paper" and "test" in parts:
        parts.remove("select")
    titles = {"train": "trained on", "select": "selected on", "test": "tested on"}
    rows = [
        [label, *(facts.counts[part].get(label, 0) for part in parts)]
        for label in facts.task.labels
    ]
    rows.append(["all", *(sum(facts.counts[part].values()) for part in parts)])
    stated = language.get(data.language or "", "not stated")
    return f"`{data.name}`; language: {stated}. {made} Examples:\n\n" + table(
        ["Label", *(titles[part] for part in parts)], rows
    )


def _protocol(facts: CardFacts) -> str:
    cv = facts.config.cv
    kept = "utterances, whatever their session" if cv.group is None else f"whole {cv.group}s"
    folds = (
        f"Stratified {cv.folds}-fold cross-validation over {kept} (partition seed {cv.seed}, "
        f"weights seed {facts.config.seed})."
    )
    if facts.final:
        return (
            f"{folds} This model was trained afterwards on the data of all folds, for the mean "
            f"selected epoch of the folds that were finished"
            + (f" ({facts.selected_epoch})." if facts.selected_epoch else ".")
        )
    how = {
        "paper": "its epoch was selected by the loss on the very fold that is reported "
        "(`cv.protocol=paper`), which flatters the scores",
        "nested": "its epoch was selected by the loss on a part of the training folds "
        "(`cv.protocol=nested`)",
    }[cv.protocol]
    chosen = f" Selected epoch: {facts.selected_epoch}." if facts.selected_epoch else ""
    return f"{folds} This model is that of {facts.part}; {how}.{chosen}"


def _scores(facts: CardFacts) -> str:
    scores, summary = facts.scores, facts.summary
    lines = []
    if facts.final:
        lines.append(
            "**This model itself was not scored**: no example was held out. "
            + ("Below are the models of the folds." if summary else "Nor was any fold.")
        )
    elif scores is None:
        lines.append("**This model is not scored yet.**")
    if summary is not None:
        n, of = len(summary.folds), facts.config.cv.folds
        lines.append(
            f"In percent. Mean and sample standard deviation (ddof {summary.ddof}) are over the "
            f"{n} of {of} folds that are finished; one fold has no deviation. Macro figures are "
            "means over the labels; an unparsed answer counts as wrong."
        )
    if scores is not None or summary is not None:
        lines += [_metric_table(facts), _label_table(facts)]
    return "\n\n".join(lines)


def _metric_table(facts: CardFacts) -> str:
    scores, summary = facts.scores, facts.summary
    heads = ["Metric", *([facts.part] if scores else []), *(["mean ± SD"] if summary else [])]
    rows = []
    for name, metric in SCALAR_METRICS.items():
        row = [metric.title]
        if scores is not None:
            row.append(percent(scores.metrics.get(name)))
        if summary is not None:
            spread = summary.metrics.get(name)
            row.append("–" if spread is None else spread_text(spread))
        rows.append(row)
    return table(heads, rows)


def _label_table(facts: CardFacts) -> str:
    scores, summary = facts.scores, facts.summary
    figures = ("precision", "recall", "f1")
    heads = ["Label"]
    heads += [f"{figure}, {facts.part}" for figure in figures] if scores else []
    heads += [f"{figure}, mean ± SD" for figure in figures] if summary else []
    rows = []
    for label in facts.task.labels:
        row = [label]
        if scores is not None:
            row += [percent(getattr(scores.per_label[label], figure)) for figure in figures]
        if summary is not None:
            row += [spread_text(getattr(summary.per_label[label], figure)) for figure in figures]
        rows.append(row)
    return table(heads, rows)


def _training(facts: CardFacts) -> str:
    config, tuning = facts.config, facts.config.finetune
    source = config.backbone.hub_id if config.backbone.path is None else "a local folder"
    method = {"full": "all weights", "lora": "LoRA", "qlora": "QLoRA (base in 4 bits)"}
    rows: list[Sequence[Any]] = [
        ["base model", f"`{config.backbone.name}` ({source or 'from random weights'})"],
    ]
    if not facts.encoder:
        rows.append(["tuned", method.get(tuning.method, tuning.method)])
        if tuning.method in ("lora", "qlora"):
            merged = "" if facts.adapter else "; merged into the base"
            rows.append(
                [
                    "adapters",
                    (
                        f"rank {tuning.rank}, alpha {tuning.alpha:g}, "
                        f"dropout {tuning.dropout:g}{merged}"
                    ),
                ]
            )
    rate = facts.learning_rate or config.optimizer.learning_rate
    rows += [
        [
            "optimiser",
            (
                f"{config.optimizer.name}, learning rate {rate:g}, weight decay "
                f"{config.optimizer.weight_decay:g}"
            ),
        ],
        ["schedule", f"{config.scheduler.name}, warm-up {config.scheduler.warmup_fraction:g}"],
        ["epochs", f"at most {config.trainer.max_epochs}, patience {config.trainer.patience}"],
        ["examples a step", config.global_batch_size],
        ["sampling", config.sampling],
        ["precision", f"{config.trainer.precision}, weights {config.backbone.dtype}"],
    ]
    if not facts.encoder:
        limit = config.prompt.max_tokens or "no limit"
        rows += [
            [
                "prompt",
                (
                    f"{config.prompt.style}, history {config.prompt.history}, in "
                    f"`{facts.task.language}`, longest: {limit} tokens"
                ),
            ],
            [
                "decoding",
                (f"{config.decoding.name}, at most {config.decoding.max_new_tokens} tokens"),
            ],
        ]
    return table(["Setting", "Value"], rows) + (
        "\n\nAll others, versions and hashes: `config.yaml` and `manifest.json` of the run."
    )


def _loading(facts: CardFacts) -> str:
    if facts.encoder:
        auto, library = "AutoModelForSequenceClassification", "transformers"
    elif facts.adapter:
        auto, library = "AutoPeftModelForCausalLM", "peft"
    else:
        auto, library = "AutoModelForCausalLM", "transformers"
    plain = (
        f"```python\nfrom {library} import {auto}\nfrom transformers import AutoTokenizer\n\n"
        f'model = {auto}.from_pretrained("FOLDER")\n'
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n```'
    )
    if facts.encoder:
        return plain
    return (
        f"{plain}\n\nWith recap, which asks it as it was asked in training (`recap.json`):\n\n"
        '```python\nimport recap\n\ndetector = recap.Detector.from_pretrained("FOLDER")\n'
        "answers = detector.predict([dialogue])\n```"
    )
