"""``action=codebook``: the taxonomy as a page to print, and as text for a prompt."""

from __future__ import annotations

from dataclasses import asdict

from recap.analysis.describe import in_tree_order
from recap.corpus_actions.options import CorpusConfig
from recap.corpus_actions.sources import find_task
from recap.reporting.codebook import (
    WORDS,
    Entry,
    codebook_html,
    codebook_markdown,
    codebook_prompt,
)
from recap.reporting.findings import Findings
from recap.reporting.sheets import Sheet
from recap.tasks.answer import Language
from recap.tasks.task import Task
from recap.taxonomy import Taxonomy


def codebook(config: CorpusConfig) -> Findings:
    """Return the task's codebook: its labels, what lies below and above them. Reads no data."""
    language: Language = config.codebook.language or (
        "zh" if config.data.language == "zh" else "en"
    )
    task = find_task(config)
    entries = codebook_entries(task, language)
    words = WORDS[language]
    return Findings(
        action="codebook",
        title=f"{words.title}{words.colon}{task.name}",
        figures={
            "task": task.name,
            "taxonomy": task.taxonomy.name,
            "language": language,
            "categories": [asdict(entry) for entry in entries],
        },
        sheets=(_sheet(entries, language),),
        rows=[_row(entry) for entry in entries],
        pages={
            "codebook.md": codebook_markdown(task.name, entries, language),
            "codebook.html": codebook_html(task.name, entries, language),
            "codebook_prompt.txt": codebook_prompt(entries, language),
        },
    )


def codebook_entries(task: Task, language: Language) -> tuple[Entry, ...]:
    """Return an entry for each category that the task's labels touch, parents before children."""
    taxonomy = task.taxonomy
    above = {name for label in task.labels for name in taxonomy.lineage(label)[1:]}
    entries = []
    for name in in_tree_order(taxonomy):
        category, lineage = taxonomy[name], taxonomy.lineage(name)
        if name not in above and not set(lineage).intersection(task.labels):
            continue
        title = category.name_in(language)
        names = dict.fromkeys((category.name, *category.names.values(), *category.aliases))
        entries.append(
            Entry(
                name=name,
                title=title,
                other_names=tuple(other for other in names if other != title),
                parent=category.parent,
                level=len(lineage) - 1,
                is_label=name in task.labels,
                definition=category.definition.get(language),
                example=category.example.get(language),
                contrast=category.contrast.get(language),
                confusable=_confusable(taxonomy, name, language),
                color=category.color,
            )
        )
    return tuple(entries)


def _confusable(taxonomy: Taxonomy, name: str, language: Language) -> tuple[str, ...]:
    """Return the titles of leaves that a contrast holds against this one, either way."""
    own = taxonomy[name]
    found = []
    for other in (taxonomy[leaf] for leaf in taxonomy.leaves if leaf != name):
        there = other.name_in(language) in own.contrast.get(language, "")
        back = own.name_in(language) in other.contrast.get(language, "")
        if name in taxonomy.leaves and (there or back):
            found.append(other.name_in(language))
    return tuple(found)


def _row(entry: Entry) -> dict[str, object]:
    joined = {key: "; ".join(getattr(entry, key)) for key in ("other_names", "confusable")}
    return {**asdict(entry), **joined}


def _sheet(entries: tuple[Entry, ...], language: Language) -> Sheet:
    words = WORDS[language]
    return Sheet(
        title=words.title,
        header=("category", "definition", words.example.lower(), words.contrast.lower()),
        rows=tuple(
            (
                "\u2003" * entry.level + entry.title,
                entry.definition or "",
                entry.example or "",
                entry.contrast or "",
            )
            for entry in entries
        ),
        text_columns=(0, 1, 2, 3),
    )
