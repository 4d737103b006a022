"""Self-contained HTML pages: no script, nothing loaded, light and dark, printable."""

from __future__ import annotations

from html import escape

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2327; --paper: #ffffff; --faint: #5c6670;
  --line: #d5dade; --soft: #f3f5f7; --warn: #8a4b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --paper: #15181b;
  --faint: #9aa5ae; --line: #343b41; --soft: #1f2428; --warn: #ffb454; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 52rem; background: var(--paper);
  color: var(--ink); font: 16px/1.55 system-ui, "Noto Sans", "Noto Sans SC", sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.35rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
h3 { margin: 0 0 .6rem; font-size: 1.05rem; }
h4 { margin: .8rem 0 .2rem; font-size: .85rem; color: var(--faint); font-weight: 600; }
.card { border: 1px solid var(--line); border-left: .5rem solid var(--tone);
  border-radius: .4rem; padding: .9rem 1.1rem; margin: 0 0 1.2rem; break-inside: avoid; }
.said { margin: .15rem 0; }
.mark { background: var(--soft); padding: .4rem .6rem; border-radius: .3rem; }
dl { margin: .8rem 0 0; } dd { margin: 0; }
dt { font-size: .85rem; font-weight: 600; color: var(--faint); margin-top: .5rem; }
.unsure { color: var(--warn); font-weight: 600; }
.faint, .note { color: var(--faint); }
.note { font-size: .9rem; border-top: 1px solid var(--line); padding-top: .6rem; }
.bar { display: block; height: .45rem; background: var(--soft); border-radius: .25rem;
  border: 1px solid var(--line); margin-top: .3rem; }
.bar i { display: block; height: 100%; background: var(--tone); border-radius: .25rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .25rem .6rem .25rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); font-weight: normal; }
svg { width: 100%; height: auto; }
.tag { font-size: .8rem; padding: 0 .4rem; border-radius: .6rem; border: 1px solid var(--tone); }
details { margin-top: 2rem; } summary { cursor: pointer; }
"""


def html_page(*, title: str, language: str, body: str, style: str = "") -> str:
    """Return a whole page.

    Args:
        title: Plain text.
        language: ``en`` or ``zh``.
        body: HTML in which every text is escaped already; pictures are ``data:`` addresses.
        style: CSS beside that of all pages.
    """
    return (
        f'<!doctype html>\n<html lang="{escape(language)}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n"
        f"<title>{escape(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n"
        f"{body}\n</body>\n</html>\n"
    )
