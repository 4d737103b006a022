"""Predictions as a spreadsheet program opens them, and as recap reads them back."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from builders import read_jsonl
from detectors import small_task, write_cascade, write_model

from recap.evaluate import __main__ as evaluate
from recap.insights import __main__ as insights
from recap.predict import __main__ as predict

openpyxl = pytest.importorskip("openpyxl", reason="needs the extra excel")

LONG = "很" * 32_000 + "🙂" * 600  # 33,200 units of UTF-16
SAID = ("=1+1", "'=no", "-5", "007", "12", 'tab\there, "quoted"\nbroken', "@me ' ", LONG)
"""One utterance a session; none comes back changed."""


def write_table(path: Path) -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["session", "speaker", "utterance", "age", "note", "label"])
        for number, said in enumerate(SAID):
            gold = ("Resistance", "Collaboration")[number % 2]
            # What is read back has to have a quote where a spreadsheet would run it.
            written = f"'{said}" if said.lstrip("'")[0] in "=@" else said
            rows.writerow([f"s{number}", "counselor", f"And {number}?", "", "", ""])
            rows.writerow([f"s{number}", "client", written, 30 + number, "0012", gold])
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "m", small_task("binary"))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "in.csv")


def annotate(model: Path, table: Path, output: Path, *options: str) -> int:
    words = [f"model={model}", f"input={table}", f"output={output}", "decoding.batch_size=1"]
    return predict.main([*words, *options])


def sheet_rows(path: Path) -> list[dict[str, Any]]:
    page = openpyxl.load_workbook(path).worksheets[0]
    header, *rows = ([cell.value for cell in row] for row in page.iter_rows())
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_a_csv_has_a_column_a_probability_the_counselors_turn_and_the_utterances_own_name(
    model: Path, table: Path, tmp_path: Path
) -> None:
    assert annotate(model, table, tmp_path / "out.csv") == 0
    assert annotate(model, table, tmp_path / "out.jsonl") == 0
    # With the mark by which Excel knows UTF-8.
    assert (tmp_path / "out.csv").read_bytes().startswith(b"\xef\xbb\xbfid,session,turn,")
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]][3:9] == [
        *("counselor_turn", "utterance", "label", "pattern", "P(Resistance)", "P(Collaboration)")
    ]
    lines = read_jsonl(tmp_path / "out.jsonl")
    # What JSON lines hold is what it was: the utterance as "response", no more keys.
    assert {"utterance", "counselor_turn", "P(Resistance)"}.isdisjoint(lines[0])
    for number, (row, line) in enumerate(zip(rows, lines, strict=True)):
        said = line["response"]
        assert said == SAID[number].strip()
        protected = f"'{said}" if said.lstrip("'")[0] in "=@" else said
        assert row["utterance"] == row["response"] == protected
        assert row["counselor_turn"] == f"And {number}?"
        for label, p in (line["probabilities"] or {}).items():
            assert float(row[f"P({label})"]) == p
        assert json.loads(row["probabilities"] or "null") == line["probabilities"]
        assert (row["age"], row["note"], row["turn"]) == (str(30 + number), "0012", "1")


def test_an_excel_file_holds_numbers_as_numbers_and_cuts_nothing_without_a_word(
    model: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert annotate(model, table, tmp_path / "out.jsonl") == 0
    capsys.readouterr()
    assert annotate(model, table, tmp_path / "out.xlsx") == 0
    printed = capsys.readouterr()
    assert "2 cells of" in printed.out, printed.err
    assert "cut at 32,767 characters" in printed.out
    lines, rows = read_jsonl(tmp_path / "out.jsonl"), sheet_rows(tmp_path / "out.xlsx")
    assert {path.name for path in tmp_path.glob("out.xlsx*")} == {
        *("out.xlsx", "out.xlsx.state.json")
    }
    assert (tmp_path / "out.xlsx").stat().st_mode & 0o777 == 0o600
    for number, (row, line) in enumerate(zip(rows, lines, strict=True)):
        for label, p in (line["probabilities"] or {}).items():
            assert row[f"P({label})"] == p
        assert (row["turn"], row["age"], row["note"]) == (1, 30 + number, "0012")
        assert row["counselor_turn"] == f"And {number}?"
    assert [row["utterance"] for row in rows[:5]] == ["'=1+1", "''=no", "-5", "007", "12"]
    assert rows[-1]["utterance"].endswith("[cut: 32,600 characters, of which a cell holds 32,767]")
    assert len(rows[-1]["utterance"].encode("utf-16-le")) <= 2 * 32_767
    page = openpyxl.load_workbook(tmp_path / "out.xlsx").worksheets[0]
    assert page.freeze_panes == "A2"
    assert page["E3"].alignment.wrap_text
    assert page.column_dimensions["E"].width == 60
    kinds = {cell.data_type for row in page.iter_rows() for cell in row}
    assert "f" not in kinds


@pytest.mark.parametrize("name", ["out.csv", "out.xlsx"])
def test_what_a_spreadsheet_shows_is_read_back_with_the_same_figures(
    name: str, model: Path, table: Path, tmp_path: Path
) -> None:
    for output in (name, "out.jsonl"):
        assert annotate(model, table, tmp_path / output, "decoding=scored") == 0
    found: dict[str, Any] = {}
    for output in (name, "out.jsonl"):
        file, folder = tmp_path / output, tmp_path / f"figures-{output}"
        given = [f"data.path={table}", "task=binary", "cv.folds=2"]
        scored = [f"predictions={file}", "data=table", f"out={folder / 'scores'}"]
        assert evaluate.main([*scored, *given, "privacy.log_text=false"]) == 0
        counted = ["action=sessions", "data=table", f"data.path={file}", f"out={folder}"]
        assert insights.main([*counted, "task=binary", "sessions.by=note"]) == 0
        found[output] = [
            json.loads((folder / "scores" / "scores.json").read_text("utf-8")),
            json.loads((folder / "sessions.json").read_text("utf-8")),
        ]
    assert str(found[name]).replace(name, "out.jsonl") == str(found["out.jsonl"])


def test_of_the_cascade_each_label_has_its_column_and_resistance_the_sum_of_its_behaviors(
    tmp_path: Path, table: Path
) -> None:
    binary, fine_grained = write_cascade(tmp_path)
    words = [f"binary={binary}", f"fine_grained={fine_grained}", f"input={table}"]
    for threshold in (0, 1):
        output = tmp_path / f"out{threshold}.xlsx"
        assert predict.main([*words, f"output={output}", f"threshold={threshold}"]) == 0
    asked, alone = (sheet_rows(tmp_path / f"out{threshold}.xlsx") for threshold in (0, 1))
    columns = [name for name in asked[0] if name.startswith("P(")]
    assert columns[0] == "P(Resistance)"
    behaviors = [n for n in columns if n not in ("P(Resistance)", "P(Collaboration)")]
    assert asked[-1]["skipped"] == "too_long"
    for row, other in zip(asked[:-1], alone, strict=False):
        assert row["P(Resistance)"] == pytest.approx(sum(row[name] for name in behaviors), rel=1e-4)
        assert row["P(Resistance)"] == pytest.approx(other["P(Resistance)"], rel=1e-4)
        assert {other[name] for name in behaviors} == {None}


def test_texts_that_are_replaced_stand_in_no_column(
    model: Path, table: Path, tmp_path: Path
) -> None:
    assert annotate(model, table, tmp_path / "out.csv", "privacy.replace_text=true") == 0
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"utterance", "counselor_turn", "note"}.isdisjoint(rows[0])
    assert rows[0]["response"] == rows[0]["id"]
    assert float(rows[0]["P(Resistance)"]) > 0


def test_a_column_of_the_outputs_own_name_keeps_its_texts_under_another(
    model: Path, tmp_path: Path
) -> None:
    source = tmp_path / "in.csv"
    header = "session,speaker,text,P(Resistance),counselor_turn,input_text"
    source.write_text(f"{header}\na,counselor,So?,,,\na,client,No.,x,y,z\n", "utf-8")
    assert annotate(model, source, tmp_path / "out.csv") == 0
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        [row] = csv.DictReader(file)
    assert row["input_input_text"] == "No."
    assert (row["input_P(Resistance)"], row["input_counselor_turn"]) == ("x", "y")
    assert (row["input_text"], row["counselor_turn"]) == ("z", "So?")


def test_an_excel_file_that_somebody_changed_is_not_written_over(
    model: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.xlsx"
    assert annotate(model, table, output) == 0
    before = output.read_bytes()
    assert annotate(model, table, output) == 0
    assert output.read_bytes() == before
    book = openpyxl.load_workbook(output)
    book.worksheets[0]["A2"] = "mine"
    book.save(output)
    changed = output.read_bytes()
    capsys.readouterr()
    assert annotate(model, table, output) == 2
    assert "was changed since it was written" in capsys.readouterr().err
    assert output.read_bytes() == changed
    assert annotate(model, table, output, "resume=never") == 0
    assert sheet_rows(output)[0]["id"] == "s0:1"
    output.unlink()
    assert annotate(model, table, output) == 0
    assert len(sheet_rows(output)) == len(SAID)


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_nothing_of_an_excel_file(
    model: Path, tmp_path: Path, project_root: Path
) -> None:
    turns = [{"speaker": "counselor", "text": "So?"}, {"speaker": "client", "text": "No."}]
    talks = [{"session": f"t{number}", "turns": turns} for number in range(400)]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(talk) + "\n" for talk in talks), "utf-8")
    output, rows = tmp_path / "out.xlsx", tmp_path / "out.xlsx.rows.csv"
    words = [f"model={model}", f"input={source}", f"output={output}", "decoding.batch_size=1"]
    kept = 0
    for share in (0.1, 0.5, 0.9):
        running = subprocess.Popen(
            [sys.executable, "-m", "recap.predict", *words],
            env={**os.environ, "PYTHONPATH": str(project_root)},
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while running.poll() is None and time.monotonic() < deadline:
            if rows.is_file() and rows.read_bytes().count(b"\n") > share * 400:
                break
            time.sleep(0.002)
        running.send_signal(signal.SIGKILL)
        running.wait()
        assert not output.exists()
        assert rows.read_bytes().count(b"\n") >= kept
        kept = rows.read_bytes().count(b"\n") // 16 * 16
    assert predict.main(words) == 0
    assert [row["id"] for row in sheet_rows(output)] == [f"t{n}:1" for n in range(400)]
    assert not rows.exists()
