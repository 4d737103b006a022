"""Whatever stands in data, no file that is written runs it: HTML, spreadsheets, Markdown, LaTeX."""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import openpyxl
import pytest
import yaml
from faults import record_fault

from recap.cli.command import main
from recap.corpus import options as corpus_options
from recap.errors import ConfigError
from recap.insights import options as insights_options
from recap.insights.cards import _file_names
from recap.taxonomy import taxonomy_from_dict

MARK = "payload"
SCRIPT = f'"><script>{MARK}()</script><img src=x onerror={MARK}()><svg onload={MARK}()>'
FORMULA = f'=HYPERLINK("http://example.org?{MARK}","x")'
OTHERS = ("+1+cmd|' /C calc'!A0", "@SUM(1)", "-2+3", "\t=1", "＝1＋1", "\u200b=1+1")
LATEX = r"\input{/etc/passwd}\write18{touch x} $a_b%c#d&e~f^g{h}"
TEXTS = (SCRIPT, FORMULA, *OTHERS, LATEX, "x\x1b[2Jy", "| a | <b>c</b> |", "[l](javascript:a())")
LABEL = f"Odd<script>{MARK}()</script>"
OTHER = '=cmd" onmouseover="x'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with dialogues, annotations and a taxonomy that are hostile throughout."""
    root = tmp_path_factory.mktemp("hostile")
    rows = []
    for i in range(24):
        said = TEXTS[i % len(TEXTS)]
        # Control characters in names are faults.
        name, who = (text.replace("\x1b", "") for text in (TEXTS[(i + 3) % len(TEXTS)], said))
        name = f"{name} {i}"
        turns = []
        for turn in range(3):
            turns.append({"speaker": "counselor", "text": f"{said} {turn}", "label": None})
            turns.append(
                {
                    "speaker": "client",
                    "text": f"{said} {i} {turn}",
                    "label": (LABEL, OTHER)[(i + turn) % 2],
                    "rationale": said,
                    "id": f"{name} {turn}",
                }
            )
        rows.append(
            {
                "session": f"{name} ../../{MARK}",
                "client": who,
                "counselor": who,
                "meta": {FORMULA: said},
                "turns": [{k: v for k, v in t.items() if v is not None} for t in turns],
            }
        )
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (root / "talks.jsonl").write_text(lines, encoding="utf-8")
    with (root / "judged.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "session", "annotator", "label", "rationale"])
        for row in rows:
            for turn in row["turns"]:  # type: ignore[attr-defined]
                if turn["speaker"] == "client":
                    for who in ("ann", "bo"):
                        cells = [turn["id"], row["session"], who, turn["label"], turn["rationale"]]
                        writer.writerow(cells)
    conf = root / "conf"
    (conf / "task").mkdir(parents=True)
    said = {"en": SCRIPT, "zh": SCRIPT}
    categories = [
        {
            "name": name,
            "definition": said,
            "contrast": said,
            "color": "#a63603",
            "aliases": [f"{name} {SCRIPT}"],
        }
        for name in (LABEL, OTHER)
    ]
    task = {"name": "odd", "taxonomy": {"name": "odd", "categories": categories}, "labels": None}
    (conf / "task" / "odd.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    return root


ACTIONS = {
    "describe": ["corpus"],
    "validate": ["corpus"],
    "codebook": ["corpus"],
    "lexicon": ["corpus", "lexicon.minimum_count=1", "lexicon.shared_only=false"],
    "assign": ["corpus", "assign.annotators=[ann,bo]"],
    "ratings": ["corpus", "ratings.size=10"],
    "agreement": ["corpus", "annotations.path=judged.csv", "agreement.replicates=20"],
    "adjudicate": ["corpus", "annotations.path=judged.csv"],
    "sessions": ["insights", "resamples=20", f"resistance=['{LABEL}']"],
    "card": ["insights", f"resistance=['{LABEL}']"],
    "supervision": ["insights", "supervision.excel=true", f"resistance=['{LABEL}']"],
    "study_materials": [
        *("insights", "study_materials.participants=4", "study_materials.excel=true"),
        *("study_materials.per_behavior=1", "study_materials.collaborative=1"),
        f"resistance=['{LABEL}']",
    ],
}
WITHOUT_TEXT = {"exam", "alliance", "study"}
"""Actions that write ids and figures alone."""


def test_every_action_is_tried_or_writes_no_text() -> None:
    assert {*corpus_options.ACTIONS, *insights_options.ACTIONS} == ACTIONS.keys() | WITHOUT_TEXT


TAGS = re.findall(
    r"\S+",
    """
    html head meta title style body h1 h2 h3 h4 p b br dl dt dd span i article section table thead
    tbody caption tr th td ul li nav a main details summary figure figcaption img div strong small
    svg rect text line circle g path image defs clippath use metadata rdf:rdf cc:work dc:type
    dc:format dc:creator cc:agent dc:title dc:date
    """,
)
"""What pages and drawings consist of, none of which runs anything by itself."""


class Page(HTMLParser):
    """Notes what of a page could run or load anything."""

    ALLOWED = frozenset(TAGS)

    def __init__(self) -> None:
        super().__init__()
        self.issues: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.ALLOWED:
            self.issues.append(f"<{tag}>")
        for name, value in attrs:
            address = name in ("src", "href", "xlink:href", "action", "srcset", "data")
            loaded = address and not (value or "").startswith(("data:image/", "#"))
            if name.startswith("on") or loaded or name == "srcdoc":
                self.issues.append(f"{name}={value}")


def runs_as_formula(cell: str) -> bool:
    """Whether a spreadsheet might compute a cell (OWASP, CSV Injection)."""
    if cell[:1] in ("\t", "\r", "\n"):
        return True
    seen = [c for c in cell if not c.isspace() and unicodedata.category(c) not in ("Cc", "Cf")]
    first = unicodedata.normalize("NFKC", seen[0]) if seen else ""
    return first in ("=", "+", "-", "@") and not re.fullmatch(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?", cell)


def faults_in(path: Path) -> Iterator[str]:
    """Yield what in a file would run or load anything where people open such files."""
    ending = path.suffix
    if ending in (".html", ".svg", ".md"):
        text = path.read_text(encoding="utf-8")
        if ending == ".md":
            # CommonMark's own escape, and code spans, show a tag as it stands.
            text = re.sub(r"\\<|`[^`\n]*`", "", text)
        page = Page()
        page.feed(text)
        yield from page.issues
    elif ending == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from (cell for row in csv.reader(file) for cell in row if runs_as_formula(cell))
    elif ending == ".xlsx":
        for sheet in openpyxl.load_workbook(path):
            for cell in (cell for row in sheet.iter_rows() for cell in row):
                if cell.data_type == "f" or runs_as_formula(str(cell.value or "")):
                    yield str(cell.value)
    elif ending == ".tex":
        text = path.read_text(encoding="utf-8")
        yield from re.findall(r"\\(?:input|write|include|openin|immediate)\b", text)


@pytest.mark.parametrize("action", ACTIONS)
def test_no_file_of_an_action_runs_what_stands_in_the_data(
    action: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    verb, *more = ACTIONS[action]
    out = tmp_path / "in" / "out"
    source = ["data=dialogues", "data.path=talks.jsonl", "task=odd"]
    code = main([verb, f"action={action}", *source, *more, f"out={out}"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "\x1b[2J" not in printed.out
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert all(path.is_relative_to(out) for path in written)
    found = {str(path.relative_to(out)): list(faults_in(path)) for path in written}
    bad = {name: issues[:3] for name, issues in found.items() if issues}
    record_fault(
        "malicious texts in reports",
        tried=len(found),
        survived=len(found) - len(bad),
        lost=len(bad),
    )
    assert not bad


def test_the_search_sees_each_kind_of_fault(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active["A1"] = "=1+1"
    book.save(tmp_path / "a.xlsx")
    texts = {
        "a.html": "<p onclick=x>",
        "b.html": "<script>",
        "c.html": "<img src=http://example.org>",
        "a.csv": 'a,"=1"\n',
        "b.csv": "＋1\n",
        "a.md": "a <b onload=x>",
        "a.tex": r"\input{x}",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for path in tmp_path.iterdir():
        assert list(faults_in(path)), path.name


@pytest.mark.parametrize(
    "session", ["../../x", "/etc/x", "..", "a/../../b", "𝔞" * 200, "\x00\n", ""]
)
def test_a_sessions_name_cannot_lead_a_page_elsewhere(session: str) -> None:
    [name] = _file_names([session])
    assert "/" not in name
    assert name.startswith("supervision-")
    assert len(f".{name}.xlsx.xxxxxxxx".encode()) <= 255


@pytest.mark.parametrize(
    "color",
    ["red;background:url(http://example.org)", '"><script>', "url(x)", "#12345", "var(--x)"],
)
def test_a_taxonomys_colour_is_a_colour(color: str) -> None:
    category = {"name": "Odd", "color": color}
    with pytest.raises(ConfigError, match="has no colour"):
        taxonomy_from_dict({"name": "odd", "categories": [category]})
    assert taxonomy_from_dict({"name": "odd", "categories": [{"name": "Odd", "color": "#a63603"}]})
