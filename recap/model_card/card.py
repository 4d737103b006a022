"""The card of a model: a README.md that says what it is, how it was scored, what it is not for.

The front matter is that of Hugging Face's model cards. Everything is filled in from the run; no
text of a client, no session or client and no path of this machine stands in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from recap.data.safe_cells import plain_markdown
from recap.model_card.caveats import MEMORISATION, USE, licence_of, limits_of
from recap.model_card.facts import METRIC_TITLES, CardFacts
from recap.model_card.front_matter import front_matter
from recap.model_card.tables import percent, table
from recap.scoring.summary import spread_text


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
            "means over the labels; an unreadable answer counts as wrong."
        )
    if scores is not None or summary is not None:
        lines += [_metric_table(facts), _label_table(facts)]
    return "\n\n".join(lines)


def _metric_table(facts: CardFacts) -> str:
    scores, summary = facts.scores, facts.summary
    heads = ["Metric", *([facts.part] if scores else []), *(["mean ± SD"] if summary else [])]
    rows = []
    for name, title in METRIC_TITLES.items():
        row = [title]
        if scores is not None:
            row.append(percent(scores.metrics[name]))
        if summary is not None:
            row.append(spread_text(summary.metrics[name]))
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
