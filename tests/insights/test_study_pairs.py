"""A counselor's original beside the rewritten response (paper, Table 12), through the command."""

from __future__ import annotations

import csv
import json
import stat
from pathlib import Path

import openpyxl
import pytest

from recap.insights.__main__ import main
from recap.tasks.library import get_task

SMALL = (
    *("study_materials.participants=4", "data.options.size=800"),
    *("study_materials.per_behavior=1", "study_materials.collaborative=1"),
)


def step(out: Path, *overrides: str) -> int:
    return main(["action=study_materials", f"out={out}", *SMALL, *overrides])


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def respond(folder: Path) -> None:
    """Fill in all sheets; the first scenario gets the same response in both phases."""
    for sheet in folder.glob("participants/*/*.csv"):
        rows = rows_of(sheet)
        for row in rows:
            again = "" if row["scenario"] == "S01" else f" {sheet.stem}"
            row["response"] = f"I <hear> you, {sheet.parent.name} {row['scenario']}{again}"
        with sheet.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    assert step(tmp_path) == 0
    respond(tmp_path)
    return tmp_path


def test_every_pair_stands_beside_utterance_behavior_and_definition(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert step(filled, "study_materials.step=pairs") == 0
    pairs = rows_of(filled / "pairs.csv")
    assert len(pairs) == 4 * 14
    key = {row["scenario"]: row for row in rows_of(filled / "key" / "scenarios.csv")}
    groups = {r["participant"]: r["group"] for r in rows_of(filled / "key" / "participants.csv")}
    taxonomy = get_task("flat").taxonomy
    for pair in pairs:
        scenario = key[pair["scenario"]]
        assert pair["group"] == groups[pair["participant"]]
        assert (pair["client"], pair["context"]) == (scenario["client"], scenario["context"])
        assert pair["rationale"] == scenario["rationale"] != ""
        assert pair["behavior"].endswith(scenario["label"])
        assert pair["meaning"] == taxonomy[scenario["label"]].definition["en"]
        said = f"I <hear> you, {pair['participant']} {pair['scenario']}"
        same = pair["scenario"] == "S01"
        assert pair["original"] == (said if same else f"{said} pre")
        assert pair["rewritten"] == (said if same else f"{said} post")
    found = json.loads((filled / "study_materials_pairs.json").read_text("utf-8"))
    assert (found["pairs"], found["responses_without_another"]) == (56, 0)
    assert found["groups"]["experimental"] == {"pairs": 28, "unchanged": 2}
    assert "you, P01" not in capsys.readouterr().out
    modes = {stat.S_IMODE((filled / name).stat().st_mode) for name in ("pairs.csv", "pairs.html")}
    assert modes == {0o600}


def test_the_page_has_a_card_for_each_pair_that_was_written_with_feedback(filled: Path) -> None:
    assert step(filled, "study_materials.step=pairs") == 0
    page = (filled / "pairs.html").read_text("utf-8")
    groups = {r["participant"]: r["group"] for r in rows_of(filled / "key" / "participants.csv")}
    for who, group in groups.items():
        shown = page.count(f"Participant {who},")
        assert shown == (14 if group == "experimental" else 0)
    assert page.count("Original response") == page.count("Rewritten response") == 28
    assert "I &lt;hear&gt; you" in page
    assert "<hear>" not in page


def test_pairs_come_as_a_workbook_and_in_chinese_where_asked(filled: Path) -> None:
    chosen = ("study_materials.excel=true", "study_materials.language=zh")
    assert step(filled, "study_materials.step=pairs", *chosen) == 0
    sheet = openpyxl.load_workbook(filled / "pairs.xlsx").active
    header = [cell.value for cell in sheet[1]]
    assert header[-2:] == ["original", "rewritten"]
    assert sheet.max_row == 57
    assert "改写后的回应" in (filled / "pairs.html").read_text("utf-8")


def test_a_response_without_another_is_counted_and_a_strange_label_refused(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = filled / "participants" / "P01" / "post.csv"
    text = sheet.read_text("utf-8").replace("I <hear> you, P01 S02 post", "")
    sheet.write_text(text, encoding="utf-8")
    assert step(filled, "study_materials.step=pairs") == 2
    assert "post.csv" in capsys.readouterr().err
    assert step(filled, "study_materials.step=pairs", "data.on_error=skip") == 0
    found = json.loads((filled / "study_materials_pairs.json").read_text("utf-8"))
    assert (found["pairs"], found["responses_without_another"]) == (55, 1)
    assert "1 responses have no other" in capsys.readouterr().out
    other = ("data.on_error=skip", "task=annomi_talk", "resistance=[sustain]")
    assert step(filled, "study_materials.step=pairs", *other) == 2
    assert "is not in the taxonomy" in capsys.readouterr().err


def test_nothing_is_paired_before_anybody_responds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert step(tmp_path) == 0
    assert step(tmp_path, "study_materials.step=pairs", "data.on_error=skip") == 2
    assert "nobody has responded" in capsys.readouterr().err
