"""The leakage of every run and fold, by kind, as leakage.json and the manifest have it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import run_with
from fake_servers import serving

from recap.prompt.__main__ import main as prompt
from recap.report.__main__ import main as report
from recap.report.manifest import leakage_section, shots_in_test
from recap.report.options import ReportConfig
from recap.report.runs import ReportedRun, read_run
from recap.runs.folder import RunFolder

OPTIONS = ReportConfig(runs=("runs",))
KINDS = ("duplicates", "near_duplicates", "shared_sessions", "shared_clients", "history_overlap")


def fold_report(fold: int, **counts: int) -> dict[str, Any]:
    found: dict[str, Any] = {"fold": fold, "train": 40, "select": 0, "test": 1200}
    for kind in KINDS:
        found[kind] = {"count": counts.get(kind, 0), "ids": []}
        if kind.startswith("shared"):
            found[kind]["test_examples"] = 10 * counts.get(kind, 0)
    return found


def leaking(name: str, *folds: dict[str, Any], **more: Any) -> ReportedRun:
    return replace(run_with(name, ["task=binary"], {0: 0.5}), leakage={"folds": folds, **more})


def test_runs_of_one_partition_share_a_table_with_a_row_a_fold() -> None:
    folds = [fold_report(0, near_duplicates=3, shared_sessions=2), fold_report(1)]
    findings = leakage_section([leaking("a", *folds), leaking("b", *folds)], OPTIONS)
    assert findings is not None
    [sheet] = findings.sheets
    assert sheet.title.endswith(": a; b")
    assert [row[0] for row in sheet.rows] == ["fold 0", "fold 1"]
    first = dict(zip(sheet.header, sheet.rows[0], strict=True))
    assert first["Tested, all labels"] == "1,200"
    assert first["Near duplicates"] == "3"
    # Test examples in the two sessions, not the number of sessions.
    assert first["In shared sessions"] == "20"
    assert findings.figures["runs"][0]["folds"][0]["near_duplicates"] == 3
    json.dumps(dict(findings.figures), allow_nan=False)


def test_other_partitions_get_tables_of_their_own() -> None:
    runs = [leaking("a", fold_report(0)), leaking("b", fold_report(0, history_overlap=1))]
    findings = leakage_section(runs, OPTIONS)
    assert findings is not None
    assert len(findings.sheets) == 2


def test_a_kind_that_an_earlier_version_did_not_look_for_has_no_figure() -> None:
    old = fold_report(0)
    del old["near_duplicates"]
    findings = leakage_section([leaking("a", old)], OPTIONS)
    assert findings is not None
    [sheet] = findings.sheets
    assert dict(zip(sheet.header, sheet.rows[0], strict=True))["Near duplicates"] == "–"


def test_runs_without_a_report_are_named_and_alone_make_no_section() -> None:
    bare = run_with("bare", ["task=binary"], {0: 0.5})
    assert leakage_section([bare], OPTIONS) is None
    findings = leakage_section([leaking("a", fold_report(0)), bare], OPTIONS)
    assert findings is not None
    assert "No leakage.json: bare." in findings.notes


def test_examples_without_a_session_cannot_be_judged_and_it_is_said() -> None:
    findings = leakage_section(
        [leaking("a", fold_report(0), without_session=5, in_folds=60)], OPTIONS
    )
    assert findings is not None
    assert any("5 of 60 examples have no session" in note for note in findings.notes)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few-shot run of two folds."""
    runs_dir = tmp_path_factory.mktemp("shots")
    with pytest.MonkeyPatch.context() as patch, serving() as server:
        patch.setenv("OPENAI_API_KEY", "none")
        options = ["experiment=smoke", "task=binary", "logger=none", "run=asked", "shots=1"]
        options += ["client=openai", "client.model=m", f"client.base_url={server.url}/v1"]
        assert prompt([*options, f"runs_dir={runs_dir}"]) == 0
    return runs_dir / "asked"


def test_shots_have_a_table_of_their_own(asked: Path) -> None:
    findings = leakage_section([read_run(RunFolder(path=asked))], OPTIONS)
    assert findings is not None
    sheet = findings.sheets[-1]
    assert [row[:4] for row in sheet.rows] == [
        ("asked", "fold 0", "2", "0"),
        ("asked", "fold 1", "2", "0"),
    ]


def test_a_shot_that_is_tested_is_found_by_its_id(asked: Path, tmp_path: Path) -> None:
    shutil.copytree(asked, tmp_path / "asked")
    folder = RunFolder(path=tmp_path / "asked")
    tested = read_run(folder).predictions[1][0].id
    folder.update_manifest(folds={"fold1": {"shots": [tested, "another"]}})
    run = read_run(folder)
    assert shots_in_test(run) == {0: (), 1: (tested,)}
    findings = leakage_section([run], OPTIONS)
    assert findings is not None
    assert findings.sheets[-1].rows[1][3] == "1"
    assert "asked: 1 examples in prompts are tested themselves." in findings.notes


def test_the_command_verifies_and_ends_with_1_at_a_changed_figure(
    small_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(small_runs / "words", tmp_path / "words")
    options = [f"runs={tmp_path / 'words'}", "verify=true", f"out={tmp_path / 'out'}"]
    assert report(options) == 0
    assert "verified words: " in capsys.readouterr().err
    file = tmp_path / "words" / "fold1" / "scores.json"
    scores = json.loads(file.read_text(encoding="utf-8"))
    scores["metrics"]["macro_f1"] += 1e-9
    file.write_text(json.dumps(scores), encoding="utf-8")
    assert report(options) == 1
    said = capsys.readouterr().err
    assert "fold1/scores.json: metrics.macro_f1: recorded " in said
    assert "Traceback" not in said
