"""Who took part in a study, and how helpful they found the feedback (paper, Appendix D.2)."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from recap.insights.__main__ import main

HEADER = ("participant", "group", "age", "gender", "experience", "recognizing", "managing", "note")
# Appendix D.2: 62 counselors, 28 women, 23 men, 11 who did not say; years of experience.
GENDERS = ["female"] * 28 + ["male"] * 23 + [""] * 11
EXPERIENCE = ["<1"] * 34 + ["1-2"] * 10 + ["2-3"] * 8 + ["3-4"] * 3 + ["4-5"] * 3 + [">5"] * 4
AGES = [21, 23, 24, 27, 29, 31, 40] * 9
# 15 fives and a four or so: 143 and 134 of 32 are 4.47 and 4.19, as Section 7 has them.
RECOGNIZING, MANAGING = [5] * 15 + [4] * 17, [5] * 6 + [4] * 26


def people() -> list[dict[str, Any]]:
    """Return a row for each participant, 30 of control and 32 of the experimental group."""
    rows = []
    for n in range(62):
        rated = (RECOGNIZING[n - 30], MANAGING[n - 30]) if n >= 30 else ("", "")
        group = "experimental" if n >= 30 else "control"
        told = (AGES[n], GENDERS[n], EXPERIENCE[n], *rated, f"said {n}")
        rows.append(dict(zip(HEADER, (f"P{n}", group, *told), strict=True)))
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def scores(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**row, "phase": phase, "score": (7 * n + 3 * len(phase)) % 11 / 10}
        for n, row in enumerate(rows)
        for phase in ("pre", "post")
    ]


def study(tmp_path: Path, *overrides: str) -> dict[str, Any]:
    assert main(["action=study", f"out={tmp_path / 'out'}", *overrides]) == 0
    found: dict[str, Any] = json.loads((tmp_path / "out" / "study.json").read_text("utf-8"))
    return found["people"] | {
        one["column"]: one for one in (*found["people"]["columns"], *found["people"]["helpfulness"])
    }


RATED = "study.helpfulness=[recognizing,managing]"


def test_participants_are_described_as_in_the_paper(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [{k: row[k] for k in HEADER[:2]} for row in people()]
    table = write(tmp_path / "scores.csv", scores(keys))
    who = write(tmp_path / "people.csv", people())
    found = study(tmp_path, f"data.path={table}", f"study.participants={who}", RATED)
    assert (found["n"], found["groups"]) == (62, {"control": 30, "experimental": 32})
    assert found["gender"]["total"]["counts"] == {"female": 28, "male": 23}
    assert found["gender"]["total"]["missing"] == 11
    assert found["experience"]["total"]["counts"] == {
        "<1": 34,
        "1-2": 10,
        "2-3": 8,
        ">5": 4,
        "3-4": 3,
        "4-5": 3,
    }
    age, own = found["age"]["total"], AGES[:62]
    assert age["mean"] == pytest.approx(statistics.mean(own))
    assert age["sd"] == pytest.approx(statistics.stdev(own))
    assert (age["n"], age["min"], age["max"]) == (62, 21, 40)
    assert found["age"]["groups"]["control"]["mean"] == pytest.approx(statistics.mean(own[:30]))
    by_group = found["recognizing"]["groups"]
    assert round(by_group["experimental"]["mean"], 2) == 4.47
    assert by_group["experimental"]["sd"] == pytest.approx(statistics.stdev(RECOGNIZING))
    assert (by_group["control"]["n"], by_group["control"]["mean"]) == (0, None)
    assert round(found["managing"]["groups"]["experimental"]["mean"], 2) == 4.19
    printed = capsys.readouterr().out
    assert "gender: female" in printed
    assert "28 (45 %)" in printed
    assert "gender: female 28, male 23, not given 11." in printed
    assert "Helpfulness, managing: experimental M = 4.19, SD = 0.40, n = 32." in printed
    # Remarks are counted by nobody and shown to nobody.
    assert found["texts"] == ["note"]
    assert "said 7" not in printed + (tmp_path / "out" / "study.json").read_text("utf-8")
    assert "Helpful" in (tmp_path / "out" / "study.md").read_text("utf-8").title()


def test_columns_of_the_scores_describe_participants_too(tmp_path: Path) -> None:
    table = write(tmp_path / "scores.csv", scores(people()))
    found = study(tmp_path, f"data.path={table}", "study.describe=[age,gender]", RATED)
    assert [one["column"] for one in found["columns"]] == ["age", "gender"]
    assert found["age"]["total"]["n"] == 62
    assert found["gender"]["total"]["counts"] == {"female": 28, "male": 23}


def test_participants_are_described_before_there_are_scores(tmp_path: Path) -> None:
    who = write(tmp_path / "people.csv", people())
    found = study(tmp_path, f"study.participants={who}", "study.describe=[age]")
    assert found["groups"] == {"control": 30, "experimental": 32}


def test_codes_are_counted_where_they_are_named(tmp_path: Path) -> None:
    rows = [{**row, "gender": n % 2 + 1} for n, row in enumerate(people())]
    who = write(tmp_path / "people.csv", rows)
    found = study(tmp_path, f"study.participants={who}", "study.categories=[gender]")
    assert found["gender"]["total"]["counts"] == {"1": 31, "2": 31}


def test_one_number_has_no_deviation(tmp_path: Path) -> None:
    rows = people()[29:32]
    who = write(tmp_path / "people.csv", rows)
    age = study(tmp_path, f"study.participants={who}", "study.describe=[age]")["age"]
    assert (age["groups"]["control"]["mean"], age["groups"]["control"]["sd"]) == (AGES[29], None)


def test_who_has_no_scores_or_no_row_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path / "scores.csv", scores([*people()[20:40], {**people()[0]}]))
    who = write(tmp_path / "people.csv", people()[1:])
    found = study(tmp_path, f"data.path={table}", f"study.participants={who}")
    assert (found["n"], found["strangers"], found["age"]["total"]["missing"]) == (21, 41, 1)
    assert "41 participants of the table have no scores" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "more", "said"),
    [
        ({"age": "old"}, (), "people.csv:3: age: is no number but a text of 3 characters"),
        ({"group": "experimental"}, (), "people.csv:3: group: contradicts another row on 'P1'"),
        ({"participant": ""}, (), "people.csv:3: participant: is empty"),
        ({"participant": "P0"}, (), "people.csv:3: age: contradicts another row on 'P0'"),
        ({}, ("study.describe=[note]",), "column 'note' holds too many different texts"),
        ({}, ("study.describe=[years]",), "'years'"),
        ({}, ("study.helpfulness=[gender]",), "people.csv:2: gender: is no number"),
    ],
)
def test_what_does_not_fit_is_refused_by_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, str],
    more: tuple[str, ...],
    said: str,
) -> None:
    rows = people()
    table = write(tmp_path / "scores.csv", scores(rows))
    rows[1] = {**rows[1], **changed}
    who = write(tmp_path / "people.csv", rows)
    files = (f"data.path={table}", f"study.participants={who}")
    assert main(["action=study", *files, *more]) == 2
    assert said in capsys.readouterr().err


def test_a_table_of_other_people_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path / "scores.csv", scores(people()))
    others = [{**row, "participant": f"X{n}"} for n, row in enumerate(people())]
    who = write(tmp_path / "people.csv", others)
    assert main(["action=study", f"data.path={table}", f"study.participants={who}"]) == 2
    assert "none of its 62 participants has scores" in capsys.readouterr().err
