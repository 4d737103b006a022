"""Texts of others as what they are: nothing in them is a command to a terminal or to Markdown."""

from __future__ import annotations

import re
import unicodedata

_JOINERS = "\u200c\u200d"
"""Without them words of Persian, and many emoji, are others."""

_MARKUP = re.compile(
    r"""
    (?P<interval> \[ [-−+.,\d\s]*\d[-−+.,\d\s]* \] (?![(\[:]) )
    | [\\`*<|~$\[\]]                    # code, emphasis, HTML, columns of tables, formulas, links
    | _ (?![^\W_]) | (?<![^\W_]) _      # emphasis, where it is not inside a word
    | & (?= \#?\w+; )                   # characters by their names
    | : (?= // | [\w+-]+: )             # addresses, and emoji by their names
    | (?<= \bwww ) \. | (?<= \w ) @     # addresses without a scheme
    | (?<! [^\s\#] ) \# (?= \#*\s*$ )   # the end of a heading
    """,
    re.VERBOSE | re.MULTILINE,
)
_LINE_START = re.compile(
    r"^[ \t]*(\d{1,9}(?=[.)](?:\s|$))|)(?=(>|\#{1,6}(?!\S)|[-+](?![^\s-])|=+\s*$|(?<=\d)[.)]|))",
    re.MULTILINE,
)
"""Spaces, digits and a character that make a line code, a heading, a quotation, an item of a
list, or what underlines the line before."""


def printable(text: str) -> str:
    """Return a text without control characters, which could rewrite a terminal's lines.

    Those that turn the direction of writing are among them: they show a name as another one.
    """
    kept = (
        c
        if c in "\n\t" or c in _JOINERS or c.isprintable() or unicodedata.category(c)[0] == "Z"
        else "\N{REPLACEMENT CHARACTER}"
        for c in text.replace("\r", "")
    )
    return "".join(kept)


def plain_markdown(text: object) -> str:
    r"""Return Markdown that shows a text as it stands, by the rules of CommonMark and GitHub.

    >>> plain_markdown("![x](http://e.org) <b> $a$ [61.20, 70.45] macro_f1")
    '!\\[x\\](http\\://e.org) \\<b> \\$a\\$ [61.20, 70.45] macro_f1'
    """
    return _MARKUP.sub(lambda m: m["interval"] or f"\\{m[0]}", printable(str(text)))


def markdown(form: str, *texts: object) -> str:
    r"""Return a line of Markdown with a text in the place of each ``{}``, shown as it stands.

    A text of several lines gives several, none of which is a heading, an item or a quotation.

    >>> markdown("- {}: **{}**", "# one", "*two*")
    '- \\# one: **\\*two\\***'
    """
    return form.format(*(_LINE_START.sub(_opened, plain_markdown(text)) for text in texts))


def _opened(found: re.Match[str]) -> str:
    return found[1] + ("\\" if found[2] else "")


def code_span(text: object) -> str:
    """Return a text as code in a line of Markdown.

    >>> code_span("a`b"), code_span("`")
    ('``a`b``', '`` ` ``')
    """
    shown = " ".join(printable(str(text)).split()) or " "
    fence = "`" * (max(map(len, re.findall("`+", shown)), default=0) + 1)
    pad = " " if "`" in (shown[0], shown[-1]) else ""
    return f"{fence}{pad}{shown}{pad}{fence}"
