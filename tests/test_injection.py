"""Texts that other programs would act upon, as labels, names and ids: shown as they stand."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import openpyxl
import pytest
import yaml
from markdown_it import MarkdownIt

from recap.cli.command import main
from recap.output.excel import sheet_names, workbook_bytes
from recap.system.plain_text import markdown, plain_markdown

RICH = ("[red]a[/red]", "[/]", "[link=http://e.org]b[/link]", ":smile:", "[bold", "[blink]c")
FORMULAS = ("$\\frac{}", "$x$ and $y$", "_under", "a_b^c", "\\alpha$", "__init__", "^2")
MARKDOWN = (
    *("![i](http://e.org/i.png)", "[l](javascript:a())", "<http://e.org>", "http://e.org/x"),
    *("| pipe | b", "`code` ``x", "# heading", "- item", "1. one", "> quoted", "*a* **b** ~~c~~"),
    *("&lt;b&gt;", "<b>bold</b>", "[ref]: http://e.org", "www.e.org", "===", "C #"),
)
CELLS = ("=1+1", "+1+1", "-1+1", "@SUM(1)")
LABELS = (*RICH, *FORMULAS, *MARKDOWN, *CELLS)
ESCAPES = ("\x1b[31mred", "a\u202eb", "\x07bell", "c\rd")
ACTED_ON = frozenset({"html_block", "html_inline", "link_open", "code_block", "fence", "hr"})


def tokens_of(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield kind, text and address of everything that Markdown holds, by another's parser."""
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for token in reader.parse(text):
        for one in (token, *(token.children or [])):
            yield one.type, one.content, str(one.attrs.get("src", ""))


def shown_in(text: str) -> str:
    """Return what a reader of Markdown sees, white space apart."""
    kinds = ("text", "text_special", "code_inline", "softbreak")
    return "".join("".join(c for kind, c, _ in tokens_of(text) if kind in kinds).split())


@pytest.mark.parametrize("text", [*LABELS, *ESCAPES, "a\n# b\n1. c\n\n    d", "\\*x\\*", "x  \ny"])
@pytest.mark.parametrize("form", ["{}", "# {}", "- {}", "> {}", "**{}**!", "| a |\n|---|\n| {} |"])
def test_markdown_shows_a_text_as_it_stands(text: str, form: str) -> None:
    cell = form.startswith("|")
    one_line = " ".join(text.split()) if form != "{}" else text
    written = form.format(plain_markdown(one_line)) if cell else markdown(form, one_line)
    found = list(tokens_of(written))
    assert not ACTED_ON & {kind for kind, _, _ in found}, found
    assert not [kind for kind, _, address in found if address]
    for kind in ("em_open", "s_open", "code_inline"):
        assert kind not in {kind for kind, _, _ in found}
    expected = re.sub("[\x1b\x07\u202e]", "\N{REPLACEMENT CHARACTER}", one_line.replace("\r", ""))
    if not form.startswith("**"):
        expected = f"a{expected}" if cell else expected
        assert shown_in(written) == "".join(expected.split())


def test_sheet_names_are_those_that_excel_takes() -> None:
    texts = (*LABELS, *ESCAPES, "x" * 40, "X" * 40, "x" * 31, "'a'", "", "a[]:*?/\\b", "History")
    sheets = {f"{text}{' ' * n}": (("h",), (("=1",),)) for n, text in enumerate(texts)}
    names = sheet_names(sheets)
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert 0 < len(name) <= 31
        assert not re.search(r"[\[\]:*?/\\\x00-\x1f\u202e]", name)
        assert name.strip("' ") == name
        assert name != "History"
    book = openpyxl.load_workbook(io.BytesIO(workbook_bytes(sheets)))
    assert book.sheetnames == names


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return dialogues, predictions and a task whose labels, names and ids are all such texts."""
    root = tmp_path_factory.mktemp("injected")
    (root / "conf" / "task").mkdir(parents=True)
    categories = [{"name": "Resistance"}]
    categories += [{"name": label, "parent": "Resistance"} for label in LABELS]
    taxonomy = {"name": "odd", "categories": categories}
    task = {"name": "odd", "taxonomy": taxonomy, "labels": None}
    (root / "conf" / "task" / "odd.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    talks, answers = [], []
    for n, label in enumerate([*LABELS] * 4):
        session = f"{label} {n}"
        said = ESCAPES[n % len(ESCAPES)]
        talks.append(
            {
                "session": session,
                "client": f"{label} client",
                "counselor": label,
                "turns": [
                    {"speaker": "counselor", "text": f"{said} asked {n}"},
                    {"speaker": "client", "text": f"{label} {said} {n % 7}", "label": label},
                ],
            }
        )
        answers.append(
            {"id": f"{session}:1", "session": session, "turn": 1, "label": label, "parsed": True}
            | {"probabilities": {label: 0.75, "Resistance": 0.25}, "rationale": f"{label} {said}"}
        )
    for name, rows in (("talks", talks), ("answers", answers)):
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        (root / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return root


COMMANDS = {
    "describe": ["corpus", "action=describe"],
    "codebook": ["corpus", "action=codebook"],
    "sessions": ["insights", "action=sessions", "resamples=20"],
    "supervision": [
        *("insights", "action=supervision", "predictions=answers.jsonl"),
        "supervision.excel=true",
    ],
    "card": ["insights", "action=card", "predictions=answers.jsonl"],
}


def issues_in(file: Path) -> Iterator[str]:
    """Yield what in a file something would act upon."""
    if file.suffix == ".md":
        for kind, content, address in tokens_of(file.read_text(encoding="utf-8")):
            own = address.endswith(".svg") and ":" not in address
            if kind in ACTED_ON or (address and not own):
                yield f"{kind} {content}"
    elif file.suffix in (".svg", ".html"):
        text = file.read_text(encoding="utf-8")
        yield from re.findall("[\x1b\x07\u202e]", text)
        if file.suffix == ".svg":
            ElementTree.fromstring(text)
    elif file.suffix == ".xlsx":
        rows = (row for sheet in openpyxl.load_workbook(file) for row in sheet.iter_rows())
        yield from (str(cell.value) for row in rows for cell in row if cell.data_type == "f")


@pytest.mark.parametrize("command", COMMANDS)
def test_no_output_of_a_command_acts_upon_a_text(
    command: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    source = ["data=dialogues", "data.path=talks.jsonl", "task=odd", f"out={tmp_path / 'out'}"]
    assert main([*COMMANDS[command], *source]) == 0
    printed = capsys.readouterr().out
    assert not re.findall("[\x1b\x07\u202e]", printed)
    found = {file.name: list(issues_in(file)) for file in tmp_path.rglob("*") if file.is_file()}
    assert len(found) > 4
    assert not {name: issues[:3] for name, issues in found.items() if issues}
    if command in ("describe", "codebook"):
        seen = "".join(re.sub(r"[│\s]", "", printed).split())
        page = shown_in((tmp_path / "out" / f"{command}.md").read_text(encoding="utf-8"))
        for label in LABELS:
            assert "".join(label.split()) in seen, label
            assert "".join(label.split()) in page, label


def test_a_report_on_such_labels_and_names_shows_them(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    source = ["data=dialogues", "data.path=talks.jsonl", "task=odd", "cv.folds=2", "logger=none"]
    for run in ("[red]$x$_r[_]", "_b $y$"):
        more = [f"run='{run}'", f"runs_dir={tmp_path / 'runs'}", f"seed={len(run)}"]
        assert main(["evaluate", "method=tfidf", *source, *more]) == 0
        assert run in capsys.readouterr().out
    out = tmp_path / "out"
    assert main(["report", f"runs={tmp_path / 'runs'}", f"out={out}", "resamples=20"]) == 0
    found = {file.name: list(issues_in(file)) for file in out.rglob("*") if file.is_file()}
    assert not {name: issues[:3] for name, issues in found.items() if issues}
    drawn = (out / "categories_odd.svg").read_text(encoding="utf-8")
    texts = {"".join(t.itertext()) for t in ElementTree.fromstring(drawn).iter() if t.text}
    for label in (*FORMULAS, *RICH):
        assert label in texts, label
    page = (tmp_path / "runs" / "[red]$x$_r[_]" / "summary.md").read_text(encoding="utf-8")
    assert "".join(["[l](javascript:a())"]) in shown_in(page)
