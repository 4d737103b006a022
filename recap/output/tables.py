"""One table of text cells as Markdown, as LaTeX and on the console."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from rich.table import Table
from rich.text import Text

from recap.system.plain_text import markdown, plain_markdown, printable

Row = TypeVar("Row")

_LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "±": r"$\pm$",
    "✓": r"\checkmark{}",
    "✗": r"$\times$",
    "‡": r"$\ddagger$",
    "×": r"$\times$",
    "<": "$<$",
    ">": "$>$",
    "−": "$-$",
    "²": "$^2$",
    "η": r"$\eta$",
    "χ": r"$\chi$",
    "\u2003": r"\quad{}",
}

_LONG_CELL = 40
"""Characters from which a column of texts breaks its lines in LaTeX."""


@dataclass(frozen=True, kw_only=True)
class ReportTable:
    """A table; ``text_columns`` hold words and stand left, all others hold figures.

    ``bold`` are cells that stand out, as (row, column), rows counted from 0 below the header.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: tuple[int, ...] = (0,)
    bold: frozenset[tuple[int, int]] = frozenset()

    def markdown(self) -> str:
        """Return the table in Markdown, under its title."""
        return f"{markdown('## {}', self.title)}\n\n{self.markdown_table()}\n"

    def markdown_table(self) -> str:
        """Return the table alone."""
        rule = tuple("---" if i in self.text_columns else "---:" for i in range(len(self.header)))
        body = self._written(_in_markdown, "**{}**".format)
        lines = [tuple(map(_in_markdown, self.header)), rule, *body]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def latex(self) -> str:
        """Return the table in LaTeX, for the package booktabs."""
        columns = "".join(self._latex_columns())
        cells = [
            tuple(map(_in_latex, self.header)),
            *self._written(_in_latex, r"\textbf{{{}}}".format),
        ]
        head, *body = (" & ".join(line) + r" \\" for line in cells)
        return "\n".join(
            [
                r"\begin{table}",
                rf"\caption{{{_in_latex(self.title)}}}",
                rf"\begin{{tabular}}{{{columns}}}",
                r"\toprule",
                head,
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
                "",
            ]
        )

    def _written(
        self, escape: Callable[[str], str], embolden: Callable[[str], str]
    ) -> list[tuple[str, ...]]:
        """Return the rows with every cell escaped, and bold where it is to be."""
        return [
            tuple(
                embolden(escape(cell)) if (y, x) in self.bold else escape(cell)
                for x, cell in enumerate(row)
            )
            for y, row in enumerate(self.rows)
        ]

    def _latex_columns(self) -> list[str]:
        """Return a letter a column; long texts get a paragraph column, so that lines break."""
        longest = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        wide = [i for i in self.text_columns if i > 0 and longest[i] > _LONG_CELL]
        return [
            rf"p{{{0.8 / len(wide):.2f}\linewidth}}"
            if i in wide
            else "l"
            if i in self.text_columns
            else "r"
            for i in range(len(self.header))
        ]

    def table(self) -> Table:
        """Return the table for a rich console."""
        table = Table(title=self.title, title_justify="left")
        for place, name in enumerate(self.header):
            # Chinese has no spaces to break at, and would be cut off.
            table.add_column(
                name, justify="left" if place in self.text_columns else "right", overflow="fold"
            )
        for y, row in enumerate(self.rows):
            # Text, since a cell may hold brackets, which rich takes for markup.
            table.add_row(
                *(
                    Text(printable(cell), style="bold" if (y, x) in self.bold else "")
                    for x, cell in enumerate(row)
                )
            )
        return table


def _in_markdown(cell: str) -> str:
    return plain_markdown(" ".join(cell.splitlines()))


def _in_latex(cell: str) -> str:
    shown = [_LATEX_ESCAPES.get(c, c) for c in " ".join(printable(cell).splitlines())]
    # Behind the end of the row before, these would be its options.
    return "".join([f"{{{c}}}" if c in "[*" else c for c in shown[:1]] + shown[1:])


def table_of(
    title: str,
    rows: Iterable[Row],
    columns: Mapping[str, Callable[[Row], str]],
    *,
    text_columns: tuple[int, ...] = (0,),
) -> ReportTable:
    """Return a table with a line for each of the rows.

    Args:
        title: Of the table.
        rows: What its lines are about.
        columns: By their names, what returns the cell of a row.
        text_columns: Places of columns that hold words.

    >>> table_of("Words", ["no", "never"], {"word": str, "letters": lambda w: f"{len(w)}"}).rows
    (('no', '2'), ('never', '5'))
    """
    return ReportTable(
        title=title,
        header=tuple(columns),
        rows=tuple(tuple(cell(row) for cell in columns.values()) for row in rows),
        text_columns=text_columns,
    )
