"""``action=assign``: client turns become batches for Doccano, each for two random annotators.

Examples are dealt out at random and evenly, one file an annotator; predictions may fill in labels.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import combinations

from recap.corpus.options import CorpusConfig
from recap.corpus.sources import (
    examples_in,
    find_task,
    find_taxonomy,
    keep_filled_in,
    label_of_task,
    label_order,
    named_path,
    open_source,
)
from recap.data.readers.doccano import batch_to_jsonl, label_text, labels_to_json
from recap.errors import ConfigError, DataError
from recap.metrics.files import predictions_from_jsonl
from recap.output.report import Report
from recap.output.tables import ReportTable
from recap.records import Example, Prediction

_NOBODY: Mapping[str, Set[str]] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """An example and those who are to annotate it."""

    id: str
    annotators: tuple[str, ...]


def assign(
    ids: Sequence[str],
    annotators: Sequence[str],
    *,
    per_example: int = 2,
    seed: int = 0,
    taken: Mapping[str, Set[str]] = _NOBODY,
) -> tuple[Assignment, ...]:
    """Return who annotates which example (Section 4.2: two annotators each, at random).

    Examples are dealt in random order, each to those with the least to do, and among these to those
    who share the fewest examples with one another. Where nobody is left out, no annotator has more
    than one example more than another.

    Args:
        ids: The examples; the assignments come in their order.
        annotators: Who can be asked.
        per_example: Annotators of one example; where fewer are left, an example gets those.
        seed: Another seed, another assignment.
        taken: Annotators who are not asked about an example, since they annotated it before.

    Raises:
        ConfigError: When there are too few annotators, or two of one name.
    """
    repeated = [name for name, n in Counter(annotators).items() if n > 1]
    if repeated:
        raise ConfigError(f"annotators: {repeated[0]!r} is named twice; name each once")
    if len(annotators) < per_example:
        raise ConfigError(
            f"annotators: {len(annotators)} named, {per_example} are asked about each example; "
            f"name {per_example} or more"
        )
    rng = random.Random(f"assignment {seed}")
    order = list(range(len(ids)))
    rng.shuffle(order)
    load: Counter[str] = Counter()
    together: Counter[frozenset[str]] = Counter()
    chosen: dict[int, tuple[str, ...]] = {}
    for place in order:
        free = [name for name in annotators if name not in taken.get(ids[place], ())]
        team: list[str] = []
        while free and len(team) < per_example:
            rng.shuffle(free)
            mates = tuple(team)
            free.sort(key=lambda name: (load[name], _shared(together, name, mates)))
            team.append(free.pop(0))
        for name in team:
            load[name] += 1
            together.update(frozenset((name, mate)) for mate in team if mate < name)
        chosen[place] = tuple(sorted(team, key=annotators.index))
    return tuple(Assignment(id=ids[place], annotators=chosen[place]) for place in range(len(ids)))


def _shared(together: Counter[frozenset[str]], name: str, mates: tuple[str, ...]) -> int:
    return sum(together[frozenset((name, mate))] for mate in mates)


_FILE_NAME = re.compile(r"[^/\\:*?\"<>|\x00-\x1f]+")


@dataclass(frozen=True, kw_only=True)
class Utterances:
    """Client turns, and notes on where they come from."""

    examples: list[Example]
    notes: list[str]


def read_utterances(config: CorpusConfig) -> Utterances:
    """Return the client turns of the data as training sees them, labeled or not.

    Raises:
        DataError: When none is left, or two have one id.
    """
    source = open_source(config, find_taxonomy(config))
    examples = [
        example for record in source.records for example in examples_in(record, config.data)
    ]
    if not examples:
        raise DataError(
            f"{source.file}: no client turn follows a counselor turn; keep the others with "
            "data.no_intervention=keep"
        )
    return Utterances(examples=examples, notes=source.notes())


def batch_pages(
    examples: Mapping[str, Example],
    assignments: Iterable[Assignment],
    *,
    round_name: str,
    language: str | None,
    batch_size: int | None = None,
    labels: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the files ``round<name>/<annotator>.jsonl`` that Doccano imports.

    Args:
        examples: By their ids.
        assignments: Who annotates which of them.
        round_name: The round.
        language: Of the data.
        batch_size: Examples of one file (``<annotator>.1.jsonl``); ``None``: all in one.
        labels: Labels that stand there beforehand, by example id.

    Raises:
        ConfigError: When an annotator's name cannot be that of a file.
    """
    by_annotator: dict[str, list[Example]] = {}
    for assignment in assignments:
        for name in assignment.annotators:
            by_annotator.setdefault(name, []).append(examples[assignment.id])
    pages = {}
    for name, own in by_annotator.items():
        for part, batch in _parts(name, own, batch_size):
            pages[f"round{round_name}/{part}.jsonl"] = batch_to_jsonl(
                batch, round_name=round_name, language=language, labels=labels
            )
    return pages


def check_file_name(option: str, name: str) -> None:
    """Check that a name can be that of a file.

    Raises:
        ConfigError: When it cannot.
    """
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


def _parts(
    name: str, examples: Sequence[Example], batch_size: int | None
) -> Iterator[tuple[str, Sequence[Example]]]:
    if batch_size is None:
        yield name, examples
        return
    for number, begin in enumerate(range(0, len(examples), batch_size), start=1):
        yield f"{name}.{number}", examples[begin : begin + batch_size]


def assign_examples(config: CorpusConfig) -> Report:
    """Return who annotates which client turn, with the batches as further files.

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
) -> tuple[ReportTable, ...]:
    work = ReportTable(
        title="Examples of each annotator",
        header=("annotator", "examples"),
        rows=tuple((name, f"{load[name]:,}") for name in annotators),
    )
    shared = ReportTable(
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
