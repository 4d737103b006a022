"""``action=assign``: client turns become batches for Doccano, each for two random annotators."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from recap.analysis.assignment import Assignment, assign
from recap.corpus_actions.annotations import label_of_task, label_order
from recap.corpus_actions.batches import (
    batch_pages,
    check_file_name,
    read_predictions,
    read_utterances,
)
from recap.corpus_actions.options import CorpusConfig
from recap.corpus_actions.overwriting import keep_filled_in
from recap.corpus_actions.sources import find_task
from recap.data.doccano_batches import label_text, labels_to_json
from recap.errors import ConfigError
from recap.records import Example
from recap.reporting.findings import Findings
from recap.reporting.sheets import Sheet


def assign_examples(config: CorpusConfig) -> Findings:
    """Return who judges which client turn, with the batches as further files.

    Raises:
        ConfigError: When annotators or the folder are missing.
        DataError: When the data cannot be used.
    """
    options = config.assign
    if config.out is None:
        raise ConfigError("action=assign: needs out=FOLDER, where the batches go")
    for name in (*options.annotators, options.round):
        check_file_name("assign.annotators", name)
    read = read_utterances(config)
    examples = _drawn(read.examples, options.size, options.seed)
    by_id = {example.id: example for example in examples}
    assignments = assign(
        list(by_id), options.annotators, per_example=options.per_example, seed=options.seed
    )
    labels = _labels_beforehand(config)
    batches = batch_pages(
        by_id,
        assignments,
        round_name=options.round,
        language=config.data.language,
        batch_size=options.batch_size,
        labels=labels,
    )
    keep_filled_in(config, batches)
    pages = {}
    if config.labels == "canonical":
        task = find_task(config)
        pages["labels.json"] = labels_to_json(
            task.taxonomy, task.labels, language=config.data.language
        )
    filled_in = sum(identifier in labels for identifier in by_id)
    load = Counter(name for a in assignments for name in a.annotators)
    return Findings(
        action="assign",
        title=f"{len(assignments):,} examples for {len(options.annotators)} annotators",
        figures={
            "round": options.round,
            "seed": options.seed,
            "examples": len(assignments),
            "per_example": options.per_example,
            "filled_in": filled_in,
            "annotators": {name: load[name] for name in options.annotators},
            "pairs": [
                {"first": a, "second": b, "examples": n}
                for (a, b), n in _pairs(options.annotators, assignments).items()
            ],
        },
        sheets=_sheets(options.annotators, load, _pairs(options.annotators, assignments)),
        notes=(*read.notes, *_notes(config, filled_in)),
        rows=[
            {
                "id": a.id,
                "session": by_id[a.id].session or "",
                "round": options.round,
                "annotator": name,
            }
            for a in assignments
            for name in a.annotators
        ],
        pages=pages,
        private=True,
        private_pages=batches,
    )


def _drawn(examples: list[Example], size: int | None, seed: int) -> list[Example]:
    if size is None or size >= len(examples):
        return examples
    chosen = random.Random(f"annotation sample {seed}").sample(range(len(examples)), size)
    return [examples[place] for place in sorted(chosen)]


def _labels_beforehand(config: CorpusConfig) -> dict[str, str]:
    if config.assign.predictions is None:
        return {}
    found = read_predictions("assign.predictions", config.assign.predictions)
    task = find_task(config) if config.labels == "canonical" else None
    labels = {identifier: str(prediction.label) for identifier, prediction in found.items()}
    if task is None:
        return labels
    resolved = {i: task.taxonomy.resolve(label) for i, label in labels.items()}
    return {
        i: label_text(task.taxonomy, label_of_task(task, label), language=config.data.language)
        for i, label in resolved.items()
    }


def _pairs(
    annotators: Sequence[str], assignments: Sequence[Assignment]
) -> dict[tuple[str, str], int]:
    together = Counter(pair for a in assignments for pair in combinations(a.annotators, 2))
    return {pair: together[pair] for pair in combinations(annotators, 2)}


def _sheets(
    annotators: Sequence[str], load: Counter[str], pairs: dict[tuple[str, str], int]
) -> tuple[Sheet, ...]:
    work = Sheet(
        title="Examples of each annotator",
        header=("annotator", "examples"),
        rows=tuple((name, f"{load[name]:,}") for name in annotators),
    )
    shared = Sheet(
        title="Examples that two annotators share",
        header=("pair", "examples"),
        rows=tuple((f"{a}, {b}", f"{n:,}") for (a, b), n in pairs.items()),
    )
    return (work, shared) if any(pairs.values()) else (work,)


def _notes(config: CorpusConfig, filled_in: int) -> list[str]:
    options = config.assign
    files = f"round{options.round}/<annotator>.jsonl"
    after = (
        "name each export after its annotator and put all into one folder: it is the "
        "annotations.path of action=agreement and action=adjudicate"
    )
    notes = [
        f"{files}: import it in Doccano (text classification, JSONL), one project an annotator",
        after,
    ]
    if label_order(config):
        notes.append("labels.json: import it under Labels")
    if options.predictions is not None:
        notes.append(
            f"{filled_in:,} examples show a predicted label: annotators lean towards it, so "
            "agreement will be higher than without"
        )
    return notes
