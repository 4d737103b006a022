from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from recap.insights.__main__ import main

SCORES = (
    "participant,group,phase,score\n"
    "P1,control,post,0.1\nP1,control,pre,0.2\nP2,control,pre,0.0\nP2,control,post,-0.1\n"
    "P3,control,pre,-0.4\nP3,control,post,-0.2\nP4,experimental,pre,0.0\n"
    "P4,experimental,post,0.6\nP5,experimental,pre,-0.2\nP5,experimental,post,0.3\n"
    "P6,experimental,pre,0.1\nP6,experimental,post,0.4\n"
)


def study(tmp_path: Path, *overrides: str, text: str = SCORES) -> int:
    (tmp_path / "scores.csv").write_text(text, encoding="utf-8")
    return main(["action=study", f"data.path={tmp_path / 'scores.csv'}", *overrides])


def test_without_a_table_the_sample_size_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["action=study", f"out={tmp_path}"]) == 0
    planning = json.loads((tmp_path / "study.json").read_text("utf-8"))["planning"]
    assert planning["n"] == 34
    assert planning["power"] == pytest.approx(0.807, abs=5e-4)
    assert "34" in capsys.readouterr().out


def test_a_table_becomes_files_and_sentences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert study(tmp_path, f"out={out}") == 0
    names = {path.name for path in out.iterdir()}
    assert names == {f"study.{e}" for e in ("json", "md", "tex", "csv", "png", "svg")}
    found = json.loads((out / "study.json").read_text("utf-8"))
    interaction = found["anova"]["interaction"]
    # Changes -.1, -.1, .2 and .6, .5, .3: t = 3.5 with 4 df (scipy.stats.ttest_ind).
    assert interaction["f"] == pytest.approx(12.25)
    assert interaction["p"] == pytest.approx(0.02489616346)
    assert interaction["partial_eta_squared"] == pytest.approx(12.25 / 16.25)
    assert "F(1, 4) = 12.25, p = .025, ηp² = .75" in capsys.readouterr().out
    with (out / "study.csv").open(encoding="utf-8") as file:
        names = [row["effect"] for row in csv.DictReader(file)]
    assert names == ["group", "phase", "phase_unweighted", "interaction"]
    assert "η" not in (out / "study.tex").read_text("utf-8")


def test_names_of_groups_stand_in_sentences_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study(tmp_path, text=SCORES.replace("control", "R&D <1>")) == 0
    assert "group (R&D <1>, experimental) between" in capsys.readouterr().out


def test_groups_of_unequal_size_show_the_phase_both_ways(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study(tmp_path) == 0
    assert "Type III" not in capsys.readouterr().out
    assert study(tmp_path, text=SCORES + "P7,control,pre,0.3\nP7,control,post,0.1\n") == 0
    assert "phase, Type III" in capsys.readouterr().out


def test_what_is_significant_follows_alpha(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study(tmp_path, "study.alpha=0.01") == 0
    assert "interaction of group and phase was not significant" in capsys.readouterr().out


def test_a_participant_typed_on_two_systems_is_one_person(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SCORES.replace("P1,control,post", "Zoe\u0308,control,post")
    text = text.replace("P1,control,pre", "Zo\u00eb\u200b,control,pre")
    assert study(tmp_path, text=text) == 0
    assert "F(1, 4) = 12.25, p = .025" in capsys.readouterr().out


def test_columns_can_have_other_names(tmp_path: Path) -> None:
    text = SCORES.replace("participant,group,phase,score", "who,arm,when,value")
    names = ["participant=who", "group=arm", "phase=when", "score=value"]
    assert study(tmp_path, *(f"study.{name}" for name in names), text=text) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SCORES.replace("P2,control,post,-0.1\n", ""), "'P2'"),
        (SCORES.replace("P2,control,post,-0.1", "P2,control,post,none"), "scores.csv:5: score"),
        (SCORES.replace(",score", ",points"), "study.score=COLUMN"),
        (SCORES.replace("P3,control,pre", ",control,pre"), "scores.csv:6: participant: is empty"),
    ],
)
def test_faults_of_the_table_end_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    assert study(tmp_path, text=text) == 2
    assert said in capsys.readouterr().err


def test_rows_at_fault_can_be_left_out_where_the_study_stays_whole(tmp_path: Path) -> None:
    assert study(tmp_path, "data.on_error=skip", text=SCORES + "P7,control,pre,x\n") == 0


def test_an_excel_file_is_read_like_a_csv(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    header, *lines = (line.split(",") for line in SCORES.splitlines())
    book.active.append(header)
    for *names, score in lines:
        book.active.append([*names, float(score)])
    book.save(tmp_path / "scores.xlsx")
    assert main(["action=study", f"data.path={tmp_path / 'scores.xlsx'}"]) == 0


TENTHS = [(0.2, 0.6), (0.1 + 0.2, 0.5), (0.4, 0.4), (0.5, 0.1 + 0.2), (0.25, 0.55), (0.35, 0.45)]
"""Scores before and after; everybody's mean is .4, but for the last digit."""


def long(before_and_after: dict[str, list[tuple[float, float]]]) -> str:
    return "participant,group,phase,score\n" + "".join(
        f"{group}{place},{group},{phase},{score!r}\n"
        for group, rows in before_and_after.items()
        for place, scores in enumerate(rows)
        for phase, score in zip(("pre", "post"), scores, strict=True)
    )


def test_two_identical_groups_whose_means_never_vary_are_not_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = long({"control": TENTHS, "experimental": TENTHS})
    assert study(tmp_path, f"out={tmp_path}", text=text) == 0
    anova = json.loads((tmp_path / "study.json").read_text("utf-8"))["anova"]
    group, phase, both = anova["group"], anova["phase"], anova["interaction"]
    assert (group["f"], group["p"], group["partial_eta_squared"]) == (None, None, None)
    assert (group["sum_of_squares"], group["error_sum_of_squares"]) == (0, 0)
    # Changes .4, .2, 0, -.2, .3, .1, twice: mean 2/15, F is the square of their t against 0.
    change = np.array([0.4, 0.2, 0, -0.2, 0.3, 0.1])
    pooled = change.var(ddof=1)
    assert phase["f"] == pytest.approx(change.mean() ** 2 / (pooled / 12))
    assert (both["f"], both["p"], both["partial_eta_squared"]) == (0, 1, 0)
    printed = capsys.readouterr().out
    assert "The main effect of group was not testable, F(1, 10) = –" in printed
    assert "48.00" not in printed


def test_scores_that_vary_in_their_last_digit_alone_give_no_test_at_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 0.3 and 0.1 + 0.2 are one score.
    noise = [(0.3, 0.1 + 0.2), (0.1 + 0.2, 0.3), (0.3, 0.3), (0.1 + 0.2, 0.3)]
    text = long({"control": noise, "experimental": noise[1:] + noise[:1]})
    assert study(tmp_path, f"out={tmp_path}", text=text) == 0
    found = json.loads((tmp_path / "study.json").read_text("utf-8"))
    assert {e["f"] for e in found["anova"].values()} == {None}
    assert {c["test"]["t"] for c in found["comparisons"]} == {None}
    sizes = [c[name] for c in found["comparisons"] for name in ("d_s", "d_z", "d_av")]
    assert {size["d"] for size in sizes if size} == {None}
    assert {c["p"] for c in found["checks"]} == {None}
    assert (found["correlation"], found["post_hoc"]) == (None, None)
    assert "significant" not in capsys.readouterr().out
