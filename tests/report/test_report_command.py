"""``recap.report``: run folders in, tables, figures and one page out."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from recap.cli.compose import load_verb
from recap.metrics.files import summary_from_dict
from recap.report.__main__ import main


@pytest.fixture(scope="module")
def report(small_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a report over the three small runs."""
    out = tmp_path_factory.mktemp("report") / "out"
    assert main([f"runs={small_runs}", f"out={out}", "reference=paper", "resamples=100"]) == 0
    return out


def test_the_report_is_written_in_every_form(report: Path) -> None:
    names = {path.name for path in report.iterdir()}
    assert {f"report.{ending}" for ending in ("html", "json", "md", "tex", "csv")} <= names
    assert r"\toprule" in (report / "tables" / "tables_1.tex").read_text()
    assert (report / "categories_binary.svg").is_file()


def test_the_json_holds_the_runs_figures_at_full_precision(report: Path, small_runs: Path) -> None:
    found = json.loads((report / "report.json").read_text())
    rows = {row["run"]: row for row in found["tables"]["rows"]}
    assert set(rows) == {"trained", "words", "asked"}
    for name, row in rows.items():
        summary = summary_from_dict(json.loads((small_runs / name / "summary.json").read_text()))
        assert row["metrics"]["macro_f1"]["mean"] == summary.metrics["macro_f1"].mean
        assert row["metrics"]["accuracy"]["std"] == summary.metrics["accuracy"].std


class _Page(HTMLParser):
    """Collects what a page refers to, and checks that tags are closed in order."""

    void = frozenset({"meta", "img", "br", "link", "hr", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_sound_loads_nothing_and_its_links_lead_to_its_sections(report: Path) -> None:
    page = _Page()
    text = (report / "report.html").read_text(encoding="utf-8")
    page.feed(text)
    assert page.open == []
    assert "script" not in page.tags
    assert page.addresses
    assert all(a.startswith(("#", "data:image/svg+xml;base64,")) for a in page.addresses)
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r"url\(|@import", text)


def test_no_words_of_clients_stand_in_the_report(report: Path, small_runs: Path) -> None:
    from recap.report.runs import read_examples, read_run
    from recap.runs.folder import RunFolder

    run = read_run(RunFolder(path=small_runs / "trained"))
    examples = read_examples(run).values()
    words = {example.response for example in examples if len(example.response) > 20}
    words |= {p.text for p in run.all_predictions if len(p.text) > 20}
    words |= {turn.text for e in examples for turn in e.history if len(turn.text) > 20}
    assert len(words) > 100
    written = [
        p for p in report.rglob("*") if p.suffix in (".html", ".json", ".md", ".csv", ".tex")
    ]
    assert len(written) > 5
    for file in written:
        text = file.read_text(encoding="utf-8")
        assert not [word for word in words if word in text], file.name


def test_lists_are_written_with_commas() -> None:
    config = load_verb("report", ["runs=runs/a b,c", "by=[topic,age]"])
    assert config.runs == ("runs/a b", "c")
    assert config.by == ("topic", "age")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "runs: names no run; set it to run folders"),
        (["runs=nowhere"], "runs=nowhere: stands for no run folder"),
        (["runs=x", "prior=2"], "prior"),
    ],
)
def test_what_cannot_be_reported_is_said_in_one_message(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert "Traceback" not in printed.err


def test_without_out_nothing_is_written(
    small_runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([f"runs={small_runs / 'words'}", "resamples=0"]) == 0
    assert "Overall, binary" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_report_with_words_of_clients_is_for_its_owner_alone(
    small_runs: Path, tmp_path: Path
) -> None:
    run = small_runs / "trained"
    asked = ["resamples=0", "privacy.include_text=true"]
    assert main([f"runs={run}", f"out={tmp_path}", *asked]) == 0
    written = [path for path in tmp_path.rglob("*") if path.suffix not in (".png", ".svg")]
    files = [path for path in written if path.is_file()]
    assert len(files) > 5
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in files} == {
        path.name: "0o600" for path in files
    }
