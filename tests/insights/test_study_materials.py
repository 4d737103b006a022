from __future__ import annotations

import csv
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from recap.insights.__main__ import main

Row = dict[str, str]
SMALL = (
    *("study_materials.participants=6", "data.options.size=800", "resamples=50"),
    *("study_materials.per_behavior=1", "study_materials.collaborative=2"),
)


def materials(out: Path, *overrides: str) -> int:
    return main(["action=study_materials", f"out={out}", *SMALL, *overrides])


def rows_of(path: Path) -> list[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def fill(path: Path, column: str, value: Callable[[Row], str]) -> None:
    """Write into one column of a sheet, as a participant or a rater does."""
    rows = rows_of(path)
    for row in rows:
        row[column] = value(row)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """Return the folder of a study whose participants have responded."""
    assert materials(tmp_path) == 0
    for sheet in tmp_path.glob("participants/*/*.csv"):
        said = f"I hear you, {sheet.parent.name} {sheet.stem}"
        fill(sheet, "response", lambda row, said=said: f"{said} {row['scenario']}")
    return tmp_path


def groups(folder: Path) -> dict[str, str]:
    return {r["participant"]: r["group"] for r in rows_of(folder / "key" / "participants.csv")}


def test_only_the_experimental_group_has_cards(
    drawn: Path,
) -> None:
    assert sorted(groups(drawn).values()) == ["control"] * 3 + ["experimental"] * 3
    for participant, group in groups(drawn).items():
        names = {path.name for path in (drawn / "participants" / participant).iterdir()}
        cards = {"cards.html", "cards.txt"} if group == "experimental" else set()
        assert names == {"pre.csv", "post.csv"} | cards


def test_the_console_counts_the_files_of_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert materials(tmp_path) == 0
    printed = capsys.readouterr().out
    assert (
        "README.txt, participants/ (18 files), key/participants.csv, key/scenarios.csv" in printed
    )


def test_cards_stand_in_the_order_of_the_second_phase(drawn: Path) -> None:
    [first, *_] = [p for p, group in groups(drawn).items() if group == "experimental"]
    folder = drawn / "participants" / first
    order = [row["scenario"] for row in rows_of(folder / "post.csv")]
    text = (folder / "cards.txt").read_text("utf-8")
    places = [text.index(f"Scenario {place} ({code})") for place, code in enumerate(order, 1)]
    assert places == sorted(places)


def test_sheets_tell_neither_label_nor_group(drawn: Path) -> None:
    labels = {row["label"] for row in rows_of(drawn / "key" / "scenarios.csv")}
    assert len(labels) == 14
    for sheet in drawn.glob("participants/*/*.csv"):
        assert list(rows_of(sheet)[0]) == ["order", "scenario", "context", "client", "response"]


def test_files_with_clients_words_are_for_their_owner_alone(drawn: Path) -> None:
    assert materials(drawn, "study_materials.step=rate") == 0
    files = [p for name in ("participants", "key", "ratings") for p in drawn.glob(f"{name}/**/*")]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in files if path.is_file()}
    # The fixture filled the sheets in place, which keeps their mode.
    assert modes == {0o600}


def test_what_is_handed_out_is_never_overwritten(
    drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert materials(drawn) == 2
    assert "holds response sheets already" in capsys.readouterr().err
    assert materials(drawn, "study_materials.step=rate") == 0
    assert materials(drawn, "study_materials.step=rate") == 2


def test_rating_sheets_show_neither_group_nor_phase_nor_participant(drawn: Path) -> None:
    assert materials(drawn, "study_materials.step=rate") == 0
    key = {row["rating_id"]: row for row in rows_of(drawn / "key" / "ratings.csv")}
    sheets = [rows_of(drawn / "ratings" / f"rater{n}.csv") for n in (1, 2)]
    assert [r["rating_id"] for r in sheets[0]] != [r["rating_id"] for r in sheets[1]]
    for rows in sheets:
        assert list(rows[0]) == ["rating_id", "context", "client", "response", "rating", "remark"]
        assert {row["rating_id"] for row in rows} == set(key)
        assert len(rows) == 6 * 2 * 15
        for row in rows:
            hidden = key[row["rating_id"]]
            expected = f"{hidden['participant']} {hidden['phase']} {hidden['scenario']}"
            assert row["response"].endswith(expected)


def test_ratings_become_scores_that_the_study_reads(
    drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert materials(drawn, "study_materials.step=rate") == 0
    key = {row["rating_id"]: row for row in rows_of(drawn / "key" / "ratings.csv")}

    def value(row: Row) -> str:
        hidden = key[row["rating_id"]]
        better = hidden["phase"] == "post" and hidden["group"] == "experimental"
        number = int(hidden["scenario"][1:]) + int(hidden["participant"][1:])
        return "1" if better and number % 5 else str(number % 3 - 1)

    for rater in (1, 2):
        fill(drawn / "ratings" / f"rater{rater}.csv", "rating", value)
    assert materials(drawn, "study_materials.step=score") == 0
    found = json.loads((drawn / "study_materials_score.json").read_text("utf-8"))
    assert found["agreement"]["fleiss_kappa"]["value"] == pytest.approx(1.0)
    scores = rows_of(drawn / "study_materials_score.csv")
    assert len(scores) == 12
    [one] = [s for s in scores if (s["participant"], s["phase"]) == ("P01", "pre")]
    by_hand = [(scenario + 1) % 3 - 1 for scenario in range(1, 16)]
    assert float(one["score"]) == pytest.approx(sum(by_hand) / 15)
    capsys.readouterr()
    assert main(["action=study", f"data.path={drawn / 'study_materials_score.csv'}"]) == 0
    assert "F(1, 4)" in capsys.readouterr().out


def test_empty_responses_and_wrong_ratings_are_listed(
    drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = drawn / "participants" / "P02" / "pre.csv"
    fill(sheet, "response", lambda row: "" if row["order"] == "3" else row["response"])
    assert materials(drawn, "study_materials.step=rate") == 2
    assert "pre.csv" in (said := capsys.readouterr().err)
    assert "is empty, have it written" in said
    assert materials(drawn, "study_materials.step=rate", "data.on_error=skip") == 0
    fill(drawn / "ratings" / "rater1.csv", "rating", lambda row: "2")
    fill(drawn / "ratings" / "rater2.csv", "rating", lambda row: "-1")
    capsys.readouterr()
    assert materials(drawn, "study_materials.step=score") == 2
    assert "rater1.csv" in (said := capsys.readouterr().err)
    assert "is none of -1, 0 and 1" in said


def test_no_cell_runs_as_a_formula(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    corpus = tmp_path / "corpus.jsonl"
    turns = [
        {"speaker": "counselor", "text": "=1+1"},
        {"speaker": "client", "text": "=HYPERLINK(1)", "label": "Collaboration"},
    ]
    line = json.dumps({"session": "a", "turns": turns})
    corpus.write_text(line + "\n", encoding="utf-8")
    wanted = ("study_materials.per_behavior=0", "study_materials.collaborative=1")
    given = [f"data.path={corpus}", "study_materials.participants=4", *wanted]
    assert main(["action=study_materials", f"out={tmp_path / 'a'}", *given]) == 0
    [row] = rows_of(tmp_path / "a" / "participants" / "P01" / "pre.csv")
    assert row["client"] == "'=HYPERLINK(1)"
    assert row["context"].startswith("Counselor: ")
    excel = "study_materials.excel=true"
    assert main(["action=study_materials", f"out={tmp_path / 'b'}", excel, *given]) == 0
    book = openpyxl.load_workbook(tmp_path / "b" / "participants" / "P01" / "pre.xlsx")
    cell = book.active["D2"]
    assert (cell.value, cell.data_type) == ("'=HYPERLINK(1)", "s")


def test_excel_sheets_go_round(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    assert materials(tmp_path, "study_materials.excel=true") == 0
    for sheet in tmp_path.glob("participants/*/*.xlsx"):
        book = openpyxl.load_workbook(sheet)
        for row in book.active.iter_rows(min_row=2):
            row[4].value = "- so you would rather not"
        book.save(sheet)
    assert materials(tmp_path, "study_materials.step=rate", "study_materials.excel=true") == 0
    rated = openpyxl.load_workbook(tmp_path / "ratings" / "rater1.xlsx").active
    assert rated["D2"].value == "'- so you would rather not"
    for place in (1, 2):
        path = tmp_path / "ratings" / f"rater{place}.xlsx"
        book = openpyxl.load_workbook(path)
        for number, row in enumerate(book.active.iter_rows(min_row=2)):
            row[4].value = number % 3 - 1
        book.save(path)
    assert materials(tmp_path, "study_materials.step=score") == 0


def test_without_a_folder_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["action=study_materials"]) == 2
    assert "out=FOLDER" in capsys.readouterr().err


def test_messages_hold_no_words_of_clients(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = drawn / "participants" / "P01" / "pre.csv"
    words = [row["client"] for row in rows_of(sheet)]
    fill(sheet, "scenario", lambda row: row["client"])
    assert materials(drawn, "study_materials.step=rate") == 2
    said = capsys.readouterr()
    assert not [w for w in words if len(w) > 12 and w in said.err + said.out]


def test_one_rater_gives_scores_without_agreement(drawn: Path) -> None:
    assert materials(drawn, "study_materials.step=rate", "study_materials.raters=1") == 0
    fill(drawn / "ratings" / "rater1.csv", "rating", lambda row: "+1")
    assert materials(drawn, "study_materials.step=score") == 0
    found = json.loads((drawn / "study_materials_score.json").read_text("utf-8"))
    assert found["agreement"] is None
    assert found["distribution"] == {"rater1": {"-1": 0, "0": 0, "1": 180}}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["study_materials.step=rate"], "study_materials.step=draw"),
        (["study_materials.step=score"], "no ratings.csv"),
        (["study_materials.phases=[pre,pre]"], "study_materials.phases"),
        (["study_materials.phases=[pre,a/b]"], "study_materials.phases"),
        (["study_materials.per_behavior=99"], "lower study_materials.per_behavior"),
    ],
)
def test_what_cannot_be_done_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], said: str
) -> None:
    assert materials(tmp_path / "empty", *overrides) == 2
    assert said in capsys.readouterr().err


def test_phases_and_groups_have_the_names_that_they_were_drawn_with(tmp_path: Path) -> None:
    names = (
        'study_materials.phases=["前测","后测"]',
        'study_materials.groups=["对照组","实验组"]',
    )
    assert materials(tmp_path, "data.language=zh", *names) == 0
    assert len(list(tmp_path.glob("participants/*/后测.csv"))) == 6
    for sheet in tmp_path.glob("participants/*/*.csv"):
        fill(sheet, "response", lambda row: "嗯，请您再说说。")
    assert materials(tmp_path, "study_materials.step=rate") == 0
    key = rows_of(tmp_path / "key" / "ratings.csv")
    assert {(row["group"], row["phase"]) for row in key} == {
        (group, phase) for group in ("对照组", "实验组") for phase in ("前测", "后测")
    }


@pytest.mark.real_data
def test_scenarios_are_drawn_from_annomi(
    tmp_path: Path, real_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = [
        "data=annomi",
        f"data.path={real_data / 'annomi' / 'AnnoMI-simple.csv'}",
        "task=annomi_talk",
        "resistance=[sustain]",
    ]
    wanted = ["study_materials.per_behavior=26", "study_materials.collaborative=4"]
    assert main(["action=study_materials", f"out={tmp_path}", *corpus, *wanted]) == 0
    scenarios = rows_of(tmp_path / "key" / "scenarios.csv")
    assert [row["label"] for row in scenarios].count("sustain") == 26
    assert len({row["session"] for row in scenarios}) == len(scenarios) == 30
    printed = capsys.readouterr()
    assert not [
        row for row in scenarios if len(row["client"]) > 12 and row["client"] in printed.out
    ]
