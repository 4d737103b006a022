"""``action=describe``: counts and lengths of a corpus by category, and what its dialogues are."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from recap.analysis.describe import CategoryRow, CorpusCounter, Description, Lengths
from recap.corpus_actions.options import CorpusConfig
from recap.corpus_actions.sources import Source, find_taxonomy, open_source
from recap.corpus_actions.tokens import token_counter
from recap.data.examples import examples_of, has_intervention, with_merged_history
from recap.records import Dialogue, Example
from recap.reporting.charts import Bar, bar_chart
from recap.reporting.findings import Findings
from recap.reporting.sheets import Sheet

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.figure import Figure

    from recap.taxonomy import Taxonomy

_DASH = "–"
_INDENT = "\u2003"


def describe(config: CorpusConfig) -> Findings:
    """Return what a corpus holds.

    Raises:
        DataError: When rows are at fault and ``data.on_error`` is ``fail``.
    """
    taxonomy = find_taxonomy(config)
    source = open_source(config, taxonomy, keep_empty=True)
    counter = CorpusCounter(
        language=config.data.language, count_tokens=token_counter(config.describe.tokenizer)
    )
    _count(source, counter, config)
    found = counter.result(taxonomy)
    return Findings(
        action="describe",
        title=f"What {config.data.name} holds",
        figures=_figures(config, source, found),
        sheets=(_categories(found), _dialogues(found)),
        notes=tuple(_notes(config, source, found)),
        rows=[_flat(row) for row in _all_rows(found)],
        charts={"describe": partial(_chart, found, taxonomy)},
    )


def _all_rows(found: Description) -> tuple[CategoryRow, ...]:
    return (*found.categories, found.labelled, found.unlabelled, found.total)


def _count(source: Source, counter: CorpusCounter, config: CorpusConfig) -> None:
    for record in source.records:
        if isinstance(record, Dialogue):
            counter.add_dialogue(record)
        else:
            counter.add_single()
        for example in _utterances(record, config):
            counter.add_utterance(example)


def _utterances(record: Dialogue | Example, config: CorpusConfig) -> Iterable[Example]:
    if config.describe.unit == "turns":
        if isinstance(record, Example):
            return [record]
        return examples_of(record, merge_adjacent=False, no_intervention="keep")
    data = config.data
    if isinstance(record, Dialogue):
        return examples_of(
            record, merge_adjacent=data.merge_adjacent, no_intervention=data.no_intervention
        )
    record = with_merged_history(record) if data.merge_adjacent else record
    return [record] if data.no_intervention == "keep" or has_intervention(record) else []


def _figures(config: CorpusConfig, source: Source, found: Description) -> dict[str, object]:
    return {
        "data": config.data.name,
        "unit": config.describe.unit,
        "tokenizer": config.describe.tokenizer,
        "rows_read": source.faults.rows_read,
        "rows_rejected": source.faults.rows_rejected,
        **asdict(found),
    }


def _flat(row: CategoryRow) -> dict[str, object]:
    return {
        "category": row.name,
        "parent": row.parent,
        "n": row.n,
        "distinct": row.distinct,
        "share": row.share,
        "mean_characters": row.characters.mean,
        "std_characters": row.characters.std,
        "mean_characters_distinct": row.distinct_characters.mean,
        "mean_words": row.words.mean,
        "std_words": row.words.std,
        "without_rationale": row.without_rationale,
    }


def _categories(found: Description) -> Sheet:
    rows = [*found.categories] if found.labelled.n else []
    if found.labelled.n and found.unlabelled.n:
        rows += [found.labelled, found.unlabelled]
    rows.append(found.total)
    with_words = found.total.words.n > 0
    header = ["category", "n", "%", "distinct", "characters"]
    header += ["words"] if with_words else []
    header.append("no rationale")
    cells = []
    for row in rows:
        line = [
            _INDENT * row.level + row.name,
            f"{row.n:,}",
            _DASH if row.share is None else f"{100 * row.share:.2f}",
            f"{row.distinct:,}",
            _mean(row.characters),
        ]
        line += [_mean(row.words)] if with_words else []
        line.append(f"{row.without_rationale:,}")
        cells.append(tuple(line))
    lengths = "characters and words" if with_words else "characters"
    return Sheet(
        title=f"Client utterances by category, mean length in {lengths}",
        header=tuple(header),
        rows=tuple(cells),
    )


def _dialogues(found: Description) -> Sheet:
    d = found.dialogues
    rows = [("sessions", f"{d.sessions:,}"), ("clients", f"{d.clients:,}" if d.clients else _DASH)]
    if d.dialogues:
        rows += [
            ("dialogues", f"{d.dialogues:,}"),
            ("turns a dialogue", _spread(d.turns_per_dialogue)),
            ("client turns", f"{d.client_turns:,}"),
            ("counsellor turns", f"{d.counselor_turns:,}"),
            ("characters of a counsellor turn", _spread(d.counselor_characters)),
            ("pairs of turns of one speaker", f"{d.adjacent_same_speaker:,}"),
            ("dialogues that the client begins", f"{d.client_begins:,}"),
        ]
    if d.single_examples:
        rows.append(("utterances with a history of their own", f"{d.single_examples:,}"))
    if found.empty:
        rows.append(("utterances without text", f"{found.empty:,}"))
    rows += [
        ("utterances directly after a counsellor turn", f"{d.after_counselor:,}"),
        ("turns of a history", _spread(found.history_turns)),
        ("characters of a history", _spread(found.history_characters)),
    ]
    if found.history_tokens is not None:
        rows.append(("tokens of a history", _spread(found.history_tokens)))
    return Sheet(title="Dialogues", header=("what", "figure"), rows=tuple(rows))


def _notes(config: CorpusConfig, source: Source, found: Description) -> Iterable[str]:
    yield from source.notes()
    if config.describe.unit == "turns":
        yield "every client turn counts as it stands (describe.unit=turns)"
    else:
        yield (
            f"turns as training sees them: data.merge_adjacent={config.data.merge_adjacent}, "
            f"data.no_intervention={config.data.no_intervention}"
        )
    yield "distinct: pairs of context and response that differ; SD is the sample's (ddof 1)"
    if found.label_conflicts:
        yield f"{found.label_conflicts} distinct pairs carry more than one label"


def _chart(found: Description, taxonomy: Taxonomy | None) -> Figure:
    leaves = (
        found.categories
        if taxonomy is None
        else [row for row in found.categories if row.name in taxonomy.leaves]
    )
    return bar_chart(
        [
            Bar(
                name=row.name,
                value=row.n,
                color=None if taxonomy is None else taxonomy[row.name].color,
            )
            for row in leaves
        ],
        axis="client utterances",
    )


def _mean(lengths: Lengths) -> str:
    return _DASH if lengths.mean is None else f"{lengths.mean:.2f}"


def _spread(lengths: Lengths) -> str:
    if lengths.mean is None:
        return _DASH
    std = "" if lengths.std is None else f" ± {lengths.std:.1f}"
    return f"{lengths.mean:.2f}{std}, at most {lengths.most:,}"
