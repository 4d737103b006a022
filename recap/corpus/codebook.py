"""``action=codebook``: the taxonomy as a page for annotators, and as a prompt for a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from recap.config import Language
from recap.corpus.describe import in_tree_order
from recap.corpus.options import CorpusConfig
from recap.corpus.sources import find_task
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.output.templates import read_texts, render
from recap.system.plain_text import markdown
from recap.tasks.task import Task
from recap.taxonomy import Taxonomy


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One category of a codebook, its texts in the codebook's language."""

    name: str
    """Canonical name."""
    title: str
    """Name in the codebook's language."""
    other_names: tuple[str, ...]
    """Names in other languages and further spellings that are read."""
    parent: str | None
    level: int
    """Categories above it."""
    is_label: bool
    """Whether it may be given to an utterance."""
    definition: str | None
    example: str | None
    contrast: str | None
    confusable: tuple[str, ...]
    """Titles of categories that its contrast names, or whose contrast names it."""
    color: str | None


def _words(language: Language) -> Mapping[str, str]:
    words: Mapping[str, str] = read_texts("corpus/words.yaml")[language]
    return words


def codebook_markdown(title: str, entries: Sequence[Entry], language: Language) -> str:
    """Return the codebook in Markdown, a heading a category."""
    words = _words(language)
    colon = words["colon"]
    lines = [markdown("# {}", title), ""]
    for entry in entries:
        lines += [markdown(f"{'#' * min(entry.level + 2, 6)} {{}}", entry.title), ""]
        if entry.other_names:
            lines += [markdown("*{} {}*", words["also"], ", ".join(entry.other_names)), ""]
        if entry.definition:
            lines += [markdown("{}", entry.definition), ""]
        if entry.example:
            lines += [markdown("> **{}** “{}”", words["example"] + colon, entry.example), ""]
        if entry.contrast:
            lines += [markdown("**{}** {}", words["contrast"] + colon, entry.contrast), ""]
        if entry.confusable:
            named = ", ".join(entry.confusable)
            lines += [markdown("{}", f"{words['confusable']}{colon}{named}"), ""]
    return "\n".join(lines)


def codebook_prompt(entries: Sequence[Entry], language: Language) -> str:
    """Return a prompt file (``prompt.file=``) that shows definitions, examples and contrasts."""
    words = _words(language)
    colon = words["colon"]
    lines = ["{role}", "", "{task}", "", f"# {words['title']}"]
    for entry in entries:
        parts = [entry.definition or ""]
        parts += [f"{words['example']}{colon}“{entry.example}”"] if entry.example else []
        parts += [f"{words['contrast']}{colon}{entry.contrast}"] if entry.contrast else []
        text = words["gap"].join(filter(None, parts))
        lines.append(f"{'  ' * entry.level}- {entry.title}{colon}{text}")
    lines += ["", f"# {words['labels']}", "{labels}", "", "{examples}", ""]
    return "\n".join([*lines, f"# {words['answer']}", "{format}", "", "{dialogue}", ""])


def codebook(config: CorpusConfig) -> Report:
    """Return the task's codebook: its labels, what lies below and above them. Reads no data."""
    language: Language = config.codebook.language or config.data.prompt_language
    task = find_task(config)
    entries = codebook_entries(task, language)
    words = _words(language)
    title = f"{words['title']}{words['colon']}{task.name}"
    page = render(
        "corpus/templates/codebook.html",
        title=title,
        language=language,
        words=words,
        entries=entries,
    )
    return Report(
        action="codebook",
        title=title,
        figures={
            "task": task.name,
            "taxonomy": task.taxonomy.name,
            "language": language,
            "categories": [asdict(entry) for entry in entries],
        },
        sheets=(_sheet(entries, language),),
        rows=[_row(entry) for entry in entries],
        pages={
            "codebook.md": codebook_markdown(title, entries, language),
            "codebook.html": page,
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


def _sheet(entries: tuple[Entry, ...], language: Language) -> ReportTable:
    words = _words(language)
    return table_of(
        words["title"],
        entries,
        {
            "category": lambda entry: "\u2003" * entry.level + entry.title,
            "definition": lambda entry: entry.definition or "",
            words["example"].lower(): lambda entry: entry.example or "",
            words["contrast"].lower(): lambda entry: entry.contrast or "",
        },
        text_columns=(0, 1, 2, 3),
    )
