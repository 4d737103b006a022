"""``action=assign``: client turns become batches for Doccano, each for two random annotators.

Examples are dealt out at random and evenly, one file an annotator; predictions may fill in labels.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from itertools import combinations

from recap.config import DataConfig
from recap.corpus.options import CorpusConfig
from recap.corpus.sources import (
    CorpusSource,
    examples_in,
    find_task,
    keep_filled_in,
    label_of_task,
    label_order,
    named_path,
    open_source,
)
from recap.data.names import identity
from recap.data.readers.doccano import batch_to_jsonl, label_text, labels_to_json
from recap.errors import ConfigError, DataError
from recap.metrics.files import predictions_from_jsonl
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.records import Example, Prediction

_NOBODY: Mapping[str, Set[str]] = {}


def assign(
    ids: Sequence[str],
    annotators: Sequence[str],
    *,
    per_example: int = 2,
    seed: int = 0,
    taken: Mapping[str, Set[str]] = _NOBODY,
) -> dict[str, tuple[str, ...]]:
    """Return who annotates which example (Section 4.2: two annotators each, at random).

    Examples are dealt in random order, each to those with the least to do, and among these to those
    who share the fewest examples with one another. Where nobody is left out, no annotator has more
    than one example more than another. The result has the order of the ``ids``. Where fewer than
    ``per_example`` are left, an example gets those; annotators in ``taken`` are not asked about an
    example, since they annotated it before.

    Raises:
        ConfigError: When there are too few annotators, or two of one name.
    """
    repeated = [name for name, n in Counter(map(identity, annotators)).items() if n > 1]
    if repeated:
        raise ConfigError(f"annotators: {repeated[0]!r} is named twice; name each once")
    if len(annotators) < per_example:
        raise ConfigError(
            f"annotators: {len(annotators)} named, {per_example} are asked about each example; "
            f"name {per_example} or more"
        )
    rng = random.Random(f"assignment {seed}")
    order = list(ids)
    rng.shuffle(order)
    load: Counter[str] = Counter()
    together: Counter[frozenset[str]] = Counter()
    chosen: dict[str, tuple[str, ...]] = {}
    for identifier in order:
        free = [name for name in annotators if name not in taken.get(identifier, ())]
        team: list[str] = []
        while free and len(team) < per_example:
            rng.shuffle(free)
            shared = {name: sum(together[frozenset((name, m))] for m in team) for name in free}
            free.sort(key=lambda name: (load[name], shared[name]))
            team.append(free.pop(0))
        for name in team:
            load[name] += 1
            together.update(frozenset((name, mate)) for mate in team if mate < name)
        chosen[identifier] = tuple(sorted(team, key=annotators.index))
    return {identifier: chosen[identifier] for identifier in ids}


_FILE_NAME = re.compile(r"[^/\\:*?\"<>|\x00-\x1f]+")


def read_utterances(source: CorpusSource, data: DataConfig) -> list[Example]:
    """Return the client turns as training sees them; a ``DataError`` where none is left."""
    examples = [example for record in source.records for example in examples_in(record, data)]
    if not examples:
        why = "no client turn follows a counselor turn; data.no_intervention=keep keeps the others"
        raise DataError(f"{source.file}: {source.issues.unrecognized or why}")
    return examples


def batch_pages(
    examples: Mapping[str, Example],
    assignments: Mapping[str, Sequence[str]],
    *,
    round_name: str,
    language: str | None,
    batch_size: int | None = None,
    labels: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the files ``round<name>/<annotator>.jsonl`` that Doccano imports.

    ``assignments`` say who annotates which example; ``labels`` stand there beforehand, by example
    id. With ``batch_size``, files hold so many examples (``<annotator>.1.jsonl``).
    """
    by_annotator: dict[str, list[Example]] = {}
    for identifier, names in assignments.items():
        for name in names:
            by_annotator.setdefault(name, []).append(examples[identifier])
    pages = {}
    for name, own in by_annotator.items():
        size = batch_size or len(own)
        for number, begin in enumerate(range(0, len(own), size), start=1):
            part = f"{name}.{number}" if batch_size else name
            pages[f"round{round_name}/{part}.jsonl"] = batch_to_jsonl(
                own[begin : begin + size], round_name=round_name, language=language, labels=labels
            )
    return pages


def check_file_name(option: str, name: str) -> None:
    """Refuse a name that cannot be that of a file, with a ``ConfigError``."""
    if not _FILE_NAME.fullmatch(name) or name.strip(". ") != name or re.search(r"\.\d+$", name):
        raise ConfigError(
            f"{option}: {name!r} cannot name a file; use letters, digits, '-' and '_'"
        )


def read_predictions(option: str, path: str) -> dict[str, Prediction]:
    """Return predictions by their ids, those without a label left out.

    Raises:
        ConfigError: When there is no such file.
        DataError: When it holds anything else.
    """
    try:
        text = named_path(option, path).read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError):
        raise DataError(f"{path}: is no text in UTF-8; name a predictions.jsonl") from None
    predictions = predictions_from_jsonl(text, source=path)
    return {p.id: p for p in predictions if p.label is not None}


def assign_examples(config: CorpusConfig) -> Report:
    """Return who annotates what, with the batches; a ``ConfigError`` without ``out``."""
    options = config.assign
    if config.out is None:
        raise ConfigError("action=assign: needs out=FOLDER, where the batches go")
    for name in (*options.annotators, options.round):
        check_file_name("assign.annotators", name)
    source = open_source(config)
    examples = read_utterances(source, config.data)
    if options.size is not None and options.size < len(examples):
        draw = random.Random(f"annotation sample {options.seed}")
        examples = [examples[i] for i in sorted(draw.sample(range(len(examples)), options.size))]
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
    pages, language = {}, config.data.language
    if config.labels == "canonical":
        task = find_task(config)
        pages["labels.json"] = labels_to_json(task.taxonomy, task.labels, language=language)
    filled_in = sum(identifier in labels for identifier in by_id)
    load = Counter(name for names in assignments.values() for name in names)
    together = Counter(pair for names in assignments.values() for pair in combinations(names, 2))
    pairs = {pair: together[pair] for pair in combinations(options.annotators, 2)}
    return Report(
        action="assign",
        title=f"{len(assignments):,} examples for {len(options.annotators)} annotators",
        figures={
            "round": options.round,
            "seed": options.seed,
            "examples": len(assignments),
            "per_example": options.per_example,
            "filled_in": filled_in,
            "annotators": {name: load[name] for name in options.annotators},
            "pairs": [{"first": a, "second": b, "examples": n} for (a, b), n in pairs.items()],
        },
        sheets=_sheets(options.annotators, load, pairs),
        notes=(*source.notes(), *_notes(config, filled_in)),
        rows=[
            {
                "id": identifier,
                "session": by_id[identifier].session or "",
                "round": options.round,
                "annotator": name,
            }
            for identifier, names in assignments.items()
            for name in names
        ],
        pages=pages,
        private=True,
        private_pages=batches,
    )


def _labels_beforehand(config: CorpusConfig) -> dict[str, str]:
    if config.assign.predictions is None:
        return {}
    found = read_predictions("assign.predictions", config.assign.predictions)
    labels = {identifier: str(prediction.label) for identifier, prediction in found.items()}
    if config.labels != "canonical":
        return labels
    task = find_task(config)
    for identifier, label in labels.items():
        canonical = label_of_task(task, task.taxonomy.resolve(label))
        labels[identifier] = label_text(task.taxonomy, canonical, language=config.data.language)
    return labels


def _sheets(
    annotators: Sequence[str], load: Counter[str], pairs: dict[tuple[str, str], int]
) -> tuple[ReportTable, ...]:
    work = table_of(
        "Examples of each annotator",
        annotators,
        {"annotator": str, "examples": lambda name: f"{load[name]:,}"},
    )
    shared = table_of(
        "Examples that two annotators share",
        pairs,
        {"pair": ", ".join, "examples": lambda pair: f"{pairs[pair]:,}"},
    )
    return (work, shared) if any(pairs.values()) else (work,)


def _notes(config: CorpusConfig, filled_in: int) -> list[str]:
    options = config.assign
    files = f"round{options.round}/<annotator>.jsonl"
    after = (
        "name each export after its annotator and put all into one folder: it is the "
        "annotations.path of action=agreement and action=adjudicate"
    )
    import_it = "import it in Doccano (text classification, JSONL), one project an annotator"
    notes = [f"{files}: {import_it}", after]
    if label_order(config):
        notes.append("labels.json: import it under Labels")
    if options.predictions is not None:
        notes.append(
            f"{filled_in:,} examples show a predicted label: annotators lean towards it, so "
            "agreement will be higher than without"
        )
    return notes
