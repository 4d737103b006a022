"""``action=codebook``: the taxonomy as a page to print, and as text for a prompt.

A taxonomy as a page for annotators (HTML, Markdown) and as a prompt for a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape

from recap.config import Language
from recap.corpus.describe import in_tree_order
from recap.corpus.options import CorpusConfig
from recap.corpus.sources import find_task
from recap.output.report import Report
from recap.output.tables import ReportTable
from recap.system.escaping import plain_markdown
from recap.tasks.task import Task
from recap.taxonomy import Taxonomy

_STYLE = """
body { font: 16px/1.5 system-ui, "Noto Sans CJK SC", "Microsoft YaHei", sans-serif; color: #222;
       max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin: 2rem 0 .5rem; }
section { border-left: .4rem solid var(--color); padding: .1rem 0 .1rem 1rem; margin: 1rem 0;
          break-inside: avoid; }
section h2, section h3, section h4 { margin: .2rem 0; } .names { color: #666; font-weight: normal; }
p { margin: .3rem 0; } .example { font-style: italic; } .contrast { background: #f4f4f4;
padding: .3rem .6rem; } .key { font-style: normal; font-weight: 600; }
@media print { body { margin: 0; max-width: none; font-size: 11pt; } }
"""


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


@dataclass(frozen=True, kw_only=True)
class CodebookWords:
    """The fixed words of a codebook in one language."""

    title: str
    example: str
    contrast: str
    confusable: str
    also: str
    taxonomy: str
    labels: str
    answer: str
    colon: str
    quotes: tuple[str, str]


WORDS: dict[Language, CodebookWords] = {
    "en": CodebookWords(
        title="Codebook",
        example="Example",
        contrast="To tell apart",
        confusable="Not to be confused with",
        also="also",
        taxonomy="# Codebook",
        labels="# Labels",
        answer="# Output format",
        colon=": ",
        quotes=("“", "”"),
    ),
    "zh": CodebookWords(
        title="编码手册",
        example="例句",
        contrast="辨析",
        confusable="不要与之混淆",
        also="又作",
        taxonomy="# 编码手册",
        labels="# 标签",
        answer="# 输出格式",
        colon="：",
        quotes=("“", "”"),
    ),
}


def codebook_markdown(task: str, entries: Sequence[Entry], language: Language) -> str:
    """Return the codebook in Markdown, a heading a category."""
    words = WORDS[language]
    lines = [f"# {words.title}{words.colon}{task}", ""]
    for entry in entries:
        lines += [f"{'#' * min(entry.level + 2, 6)} {entry.title}", ""]
        if entry.other_names:
            lines += [f"*{words.also} {', '.join(entry.other_names)}*", ""]
        if entry.definition:
            lines += [entry.definition, ""]
        if entry.example:
            lines += [f"> **{words.example}{words.colon}** {_quoted(words, entry.example)}", ""]
        if entry.contrast:
            lines += [f"**{words.contrast}{words.colon}** {entry.contrast}", ""]
        if entry.confusable:
            lines += [f"{words.confusable}{words.colon}{', '.join(entry.confusable)}", ""]
    return plain_markdown("\n".join(lines))


def codebook_html(task: str, entries: Sequence[Entry], language: Language) -> str:
    """Return the codebook as one HTML file that needs no other."""
    words = WORDS[language]
    title = escape(f"{words.title}{words.colon}{task}")
    sections = "\n".join(_section(words, entry) for entry in entries)
    return (
        f'<!doctype html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        f"{sections}\n</body>\n</html>\n"
    )


def codebook_prompt(entries: Sequence[Entry], language: Language) -> str:
    """Return a prompt file (``prompt.file=``) that shows definitions, examples and contrasts."""
    words = WORDS[language]
    lines = ["{role}", "", "{task}", "", words.taxonomy]
    for entry in entries:
        said = [entry.definition or ""]
        if entry.example:
            said.append(f"{words.example}{words.colon}{_quoted(words, entry.example)}")
        if entry.contrast:
            said.append(f"{words.contrast}{words.colon}{entry.contrast}")
        gap = " " if language == "en" else ""
        text = gap.join(filter(None, said))
        lines.append(f"{'  ' * entry.level}- {entry.title}{words.colon}{text}")
    lines += ["", words.labels, "{labels}", "", "{examples}", "", words.answer, "{format}", ""]
    return "\n".join([*lines, "{dialogue}", ""])


def _section(words: CodebookWords, entry: Entry) -> str:
    tag = f"h{min(entry.level + 2, 4)}"
    names = ""
    if entry.other_names:
        names = f' <span class="names">{escape(", ".join(entry.other_names))}</span>'
    parts = [f"<{tag}>{escape(entry.title)}{names}</{tag}>"]
    if entry.definition:
        parts.append(f"<p>{escape(entry.definition)}</p>")
    if entry.example:
        quoted = escape(_quoted(words, entry.example))
        key = f'<span class="key">{words.example}{words.colon}</span>'
        parts.append(f'<p class="example">{key}{quoted}</p>')
    if entry.contrast:
        key = f'<span class="key">{words.contrast}{words.colon}</span>'
        parts.append(f'<p class="contrast">{key}{escape(entry.contrast)}</p>')
    if entry.confusable:
        others = escape(", ".join(entry.confusable))
        parts.append(f'<p class="names">{words.confusable}{words.colon}{others}</p>')
    color = escape(entry.color or "#999999")
    return f'<section style="--color: {color}">\n' + "\n".join(parts) + "\n</section>"


def _quoted(words: CodebookWords, text: str) -> str:
    opening, closing = words.quotes
    return f"{opening}{text}{closing}"


def codebook(config: CorpusConfig) -> Report:
    """Return the task's codebook: its labels, what lies below and above them. Reads no data."""
    language: Language = config.codebook.language or (
        "zh" if config.data.language == "zh" else "en"
    )
    task = find_task(config)
    entries = codebook_entries(task, language)
    words = WORDS[language]
    return Report(
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


def _sheet(entries: tuple[Entry, ...], language: Language) -> ReportTable:
    words = WORDS[language]
    return ReportTable(
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
