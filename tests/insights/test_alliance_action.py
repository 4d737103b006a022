from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats import multitest

from recap.insights.__main__ import main


def figures(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "alliance.json").read_text("utf-8"))
    return found


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_two_tables_are_joined_and_correlated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write(tmp_path / "a.csv", "id,x\n1,1\n2,2\n3,4\n4,4\n9,0\n")
    b = write(tmp_path / "b.csv", "id,goal\n4,2\n3,3\n2,5\n1.0,7\n")
    out = tmp_path / "out"
    command = ["action=alliance", f"data.path={a}", f"outcomes.path={b}", "on=[id]"]
    assert main([*command, "predictors=[x]", "outcomes=[goal]", f"out={out}"]) == 0
    [found] = figures(out)["correlations"]
    expected = stats.pearsonr([1, 2, 4, 4], [7, 5, 3, 2])
    assert (found["n"], found["r"]) == pytest.approx((4, expected.statistic), abs=1e-12)
    printed = capsys.readouterr().out
    few = "4 sessions are too few: under 10 there is no interval and no p"
    assert (found["p"], found["low"], found["reason"]) == (None, None, few)
    assert f"No interval of x · goal: {few}." in printed
    assert "4 sessions are in both files; 1 of data.path and 0 of outcomes.path" in printed
    assert {path.suffix for path in out.iterdir()} == {
        ".json",
        ".md",
        ".tex",
        ".csv",
        ".png",
        ".svg",
    }


@pytest.mark.parametrize("only", ["data.path", "outcomes.path"])
def test_one_file_may_hold_both(only: str, tmp_path: Path) -> None:
    both = write(tmp_path / "both.csv", "session,x,y\n1,1,2\n2,2,1\n3,4,3\n4,3,5\n")
    command = ["action=alliance", f"{only}={both}", "predictors=[x]", "outcomes=[y]"]
    assert main([*command, f"out={tmp_path / 'out'}"]) == 0
    [found] = figures(tmp_path / "out")["correlations"]
    assert found["r"] == pytest.approx(stats.pearsonr([1, 2, 4, 3], [2, 1, 3, 5]).statistic)


def test_a_column_in_both_files_is_taken_from_its_own(tmp_path: Path) -> None:
    a = write(tmp_path / "a.csv", "session,v\n1,1\n2,2\n3,3\n4,9\n")
    b = write(tmp_path / "b.csv", "session,v\n1,4\n2,1\n3,3\n4,2\n")
    command = ["action=alliance", f"data.path={a}", f"outcomes.path={b}"]
    assert main([*command, "predictors=[v]", "outcomes=[v]", f"out={tmp_path / 'out'}"]) == 0
    [found] = figures(tmp_path / "out")["correlations"]
    assert found["r"] == pytest.approx(stats.pearsonr([1, 2, 3, 9], [4, 1, 3, 2]).statistic)


def test_a_column_that_varies_in_its_last_digit_alone_has_no_correlation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"{i},{0.1 + 0.2 if i % 2 else 0.3!r},{i % 2 + i / 9}\n" for i in range(12))
    file = write(tmp_path / "both.csv", f"session,x,y\n{rows}")
    command = ["action=alliance", f"data.path={file}", "predictors=[x]", "outcomes=[y]"]
    assert main([*command, f"out={tmp_path / 'out'}"]) == 0
    [found] = figures(tmp_path / "out")["correlations"]
    names = ("r", "low", "p", "rho", "rho_p", "cluster_low")
    assert [found[name] for name in names] == [None] * 6
    assert "never varies" in capsys.readouterr().out


def talks(path: Path, *, with_goal: bool) -> Path:
    turn = {"speaker": "client", "text": "x"}
    rows = []
    for session, labels in enumerate(("BBCC", "BCCC", "EEEC", "CCCC", "EBCC")):
        names = {"B": "Blaming", "E": "Excusing", "C": "Collaboration"}
        turns = [{**turn, "label": names[letter]} for letter in labels]
        meta = {"meta": {"goal": 10 - session}} if with_goal else {}
        rows.append({"session": f"S{session}", "client": "KL"[session % 2], **meta, "turns": turns})
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


RESISTANCE = [0.5, 0.25, 0.75, 0, 0.5]
BLAMING = [0.5, 0.25, 0, 0, 0.25]


def test_shares_of_behaviours_are_computed_from_dialogues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = talks(tmp_path / "talks.jsonl", with_goal=False)
    wai = write(tmp_path / "wai.csv", "sid,goal\nS0,3\nS1,5\nS2,1\nS3,6\nS4,4\n")
    command = ["action=alliance", f"data.path={file}", f"outcomes.path={wai}", "on=[sid]"]
    assert main([*command, "outcomes=[goal]", f"out={tmp_path / 'out'}"]) == 0
    found = {c["predictor"]: c for c in figures(tmp_path / "out")["correlations"]}
    goal = [3, 5, 1, 6, 4]
    assert found["Resistance"]["r"] == pytest.approx(stats.pearsonr(RESISTANCE, goal).statistic)
    assert found["Blaming"]["r"] == pytest.approx(stats.pearsonr(BLAMING, goal).statistic)
    # Table 13 has the thirteen behaviours and all of them together.
    assert len(found) == 14
    assert found["Challenging"]["r"] is None
    assert figures(tmp_path / "out")["clustered_by"] == "client"
    assert "never varies" in capsys.readouterr().out


def test_outcomes_may_stand_in_the_dialogues(tmp_path: Path) -> None:
    file = talks(tmp_path / "talks.jsonl", with_goal=True)
    command = ["action=alliance", f"data.path={file}", "outcomes=[goal]"]
    assert main([*command, f"out={tmp_path / 'out'}"]) == 0
    found = {c["predictor"]: c["r"] for c in figures(tmp_path / "out")["correlations"]}
    expected = stats.pearsonr(RESISTANCE, [10, 9, 8, 7, 6]).statistic
    assert found["Resistance"] == pytest.approx(expected)


def test_an_outcome_of_0_is_a_figure_and_0_names_a_client(tmp_path: Path) -> None:
    file = talks(tmp_path / "talks.jsonl", with_goal=True)
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    goal = (0, 3, 1, 5, "")
    for number, row in enumerate(rows):
        row["meta"] = {"goal": goal[number], "case": number % 3}
    write(file, "".join(json.dumps(row) + "\n" for row in rows))
    command = ["action=alliance", f"data.path={file}", "outcomes=[goal]", "alliance.client=case"]
    assert main([*command, f"out={tmp_path / 'out'}"]) == 0
    found = figures(tmp_path / "out")
    [whole] = [c for c in found["correlations"] if c["predictor"] == "Resistance"]
    expected = stats.pearsonr(RESISTANCE[:4], goal[:4])
    assert (whole["n"], whole["r"]) == pytest.approx((4, expected.statistic))
    assert whole["reason"].startswith("3 clients are too few")
    assert found["clustered_by"] == "case"


@pytest.mark.parametrize(
    ("meta", "overrides", "said"),
    [
        (
            {"goal": "Mr Secret"},
            [],
            "goal: cannot be used in 5 of 5 sessions of the dialogues; ses",
        ),
        ({"goal": 1, "k": 7}, ["on=[k]"], "session 2 '7' is that of session 1 already"),
    ],
)
def test_fields_of_dialogues_that_do_not_fit_end_with_2(
    meta: dict[str, Any],
    overrides: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = talks(tmp_path / "talks.jsonl", with_goal=False)
    rows = [{**json.loads(line), "meta": meta} for line in file.read_text("utf-8").splitlines()]
    write(file, "".join(json.dumps(row) + "\n" for row in rows))
    wai = write(tmp_path / "wai.csv", "k,other\n7,3\n8,5\n")
    tables = [f"data.path={file}", *([f"outcomes.path={wai}"] if overrides else [])]
    assert main(["action=alliance", "outcomes=[goal]", *tables, *overrides]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Secret" not in error


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["predictors=[x]"], "outcomes=["),
        (["predictors=[x]", "outcomes=[goa]"], "did you mean 'goal'"),
        (["predictors=[x]", "outcomes=[goal]", "on=[nr]"], "has no column 'nr'"),
        (["predictors=[name]", "outcomes=[goal]"], ":2: name: is no number"),
        (["predictors=[x]", "outcomes=[goal]", "alliance.client=K"], "no file has a column 'K'"),
    ],
)
def test_what_does_not_fit_ends_with_2(
    overrides: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write(tmp_path / "a.csv", "session,x,name\n1,1,Mr Secret\n2,2,b\n3,3,c\n")
    b = write(tmp_path / "b.csv", "session,goal\n1,1\n2,2\n3,1\n")
    assert main(["action=alliance", f"data.path={a}", f"outcomes.path={b}", *overrides]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Secret" not in error


@pytest.mark.real_data
def test_the_wai_data_give_what_scipy_and_statsmodels_give(real_data: Path, tmp_path: Path) -> None:
    a = real_data / "wai" / "mi_batch_behavior_eval_logs.csv"
    b = real_data / "wai" / "survey_wai_logs.csv"
    predictors = ["Confront", "Persuade", "SR", "CR", "percent_mi_adherent", "total_mi_adherent"]
    outcomes = ["total_wai_goal", "total_wai_task", "total_wai_bond", "composite_wai"]
    command = ["action=alliance", f"data.path={a}", f"outcomes.path={b}"]
    keys = ["on=[pairing_id,session_id]", "alliance.client=pairing_id", "resamples=200"]
    columns = [f"predictors=[{','.join(predictors)}]", f"outcomes=[{','.join(outcomes)}]"]
    assert main([*command, *keys, *columns, f"out={tmp_path}"]) == 0
    found = figures(tmp_path)
    assert found["n_sessions"] == 277

    def rows(path: Path) -> dict[tuple[str, str], dict[str, str]]:
        with path.open(encoding="utf-8", newline="") as file:
            return {(r["pairing_id"], r["session_id"]): r for r in csv.DictReader(file)}

    first, second = rows(a), rows(b)
    shared = [key for key in first if key in second]
    assert len(shared) == 277
    composite = [float(second[key]["composite_wai"]) for key in shared]
    assert np.mean(composite) == pytest.approx(112.22, abs=0.005)
    cells = {(c["predictor"], c["outcome"]): c for c in found["correlations"]}
    assert len(cells) == 24
    for (predictor, outcome), cell in cells.items():
        x = [float(first[key][predictor]) for key in shared]
        y = [float(second[key][outcome]) for key in shared]
        theirs, ranks = stats.pearsonr(x, y), stats.spearmanr(x, y)
        ends = theirs.confidence_interval(0.95)
        assert (cell["r"], cell["p"], cell["low"], cell["high"]) == pytest.approx(
            (theirs.statistic, theirs.pvalue, ends.low, ends.high), abs=1e-10
        )
        assert (cell["rho"], cell["rho_p"]) == pytest.approx(
            (ranks.statistic, ranks.pvalue), abs=1e-10
        )
        assert cell["n_clusters"] == 150
        assert cell["cluster_low"] < cell["r"] < cell["cluster_high"]
    p = [c["p"] for c in found["correlations"]]
    for key, method in (("p_holm", "holm"), ("p_bh", "fdr_bh")):
        ours = [c[key] for c in found["correlations"]]
        np.testing.assert_allclose(ours, multitest.multipletests(p, method=method)[1], atol=1e-12)
