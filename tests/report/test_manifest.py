"""What the runs were made with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from recap.output.report import Report
from recap.prompt.__main__ import main as prompt
from recap.report.manifest import manifest_section
from recap.report.options import ReportConfig
from recap.report.runs import read_runs
from tests.fake_servers import serving

OPTIONS = ReportConfig(runs=("runs",))


@pytest.fixture
def runs(small_runs: Path, tmp_path: Path) -> Path:
    """Return a copy of the small runs that a test may change."""
    return Path(shutil.copytree(small_runs, tmp_path / "runs"))


def changed(run: Path, change: Any) -> None:
    """Change a run's manifest.json in place."""
    file = run / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def section(folder: Path) -> Report:
    return manifest_section(read_runs([str(folder)]), OPTIONS)


def rows(findings: Report, title: str) -> list[tuple[str, ...]]:
    return [row for sheet in findings.sheets if sheet.title == title for row in sheet.rows]


def test_what_is_the_same_everywhere_is_said_once(small_runs: Path) -> None:
    manifest = json.loads((small_runs / "words" / "manifest.json").read_text())
    findings = section(small_runs)
    same = dict(rows(findings, "What is the same everywhere"))
    assert same["torch"] == manifest["versions"]["torch"]
    assert same["platform"] == manifest["platform"]
    assert same["partition hash"] == manifest["partition_hash"]
    assert same["device"] == "cpu"
    assert findings.figures["differing"] == {}
    assert not rows(findings, "What differs")
    assert not [note for note in findings.notes if "Not the same" in note]


def test_folds_that_ran_in_another_environment_are_pointed_out(runs: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["folds"]["fold1"]["environment"]["versions"]["torch"] = "2.9.0"

    changed(runs / "words", change)
    findings = section(runs)
    torch = json.loads((runs / "words" / "manifest.json").read_text())["versions"]["torch"]
    assert findings.figures["differing"] == {
        "torch": {torch: "asked, trained, words (fold0)", "2.9.0": "words (fold1)"}
    }
    assert findings.sheets[0].title == "What differs"
    assert findings.sheets[0].rows == (
        ("torch", torch, "asked, trained, words (fold0)"),
        ("", "2.9.0", "words (fold1)"),
    )
    assert any(
        note == f"The folds of words were not run alike: torch: {torch} in fold0; 2.9.0 in fold1."
        for note in findings.notes
    )


def test_runs_of_another_commit_or_device_are_pointed_out(runs: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["device"] = "cuda:0"
        for fold in manifest["folds"].values():
            fold["environment"]["git_commit"] = "0" * 40

    changed(runs / "trained", change)
    findings = section(runs)
    assert findings.figures["differing"]["device"] == {"cpu": "asked, words", "cuda:0": "trained"}
    assert findings.figures["differing"]["git commit of recap"]["0" * 40] == "trained"
    [note] = [note for note in findings.notes if note.startswith("Not the same")]
    assert "git commit of recap, device" in note
    assert not [note for note in findings.notes if "not run alike" in note]


def test_a_fold_without_a_record_of_its_own_counts_with_that_of_its_run(runs: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        del manifest["folds"]["fold0"]["environment"]
        manifest["platform"] = "Darwin arm64"

    changed(runs / "words", change)
    platforms = section(runs).figures["differing"]["platform"]
    assert platforms["Darwin arm64"] == "words (fold0)"


def test_hashes_seconds_and_resumes_are_those_of_the_folder(runs: Path) -> None:
    entry = {"fold": "fold1", "step": 3, "at": "decode"}
    changed(runs / "trained", lambda manifest: manifest.update(resumes=[entry]))
    manifest = json.loads((runs / "trained" / "manifest.json").read_text())
    scores = json.loads((runs / "trained" / "fold0" / "scores.json").read_text())
    findings = section(runs)
    found = findings.figures["runs"]["trained"]
    assert found["configuration_hash"] == scores["made_with"]["configuration_hash"]
    assert found["prompt_hash"] == manifest["prompt_hash"]
    assert found["train_seconds"]["fold1"] == manifest["folds"]["fold1"]["train_seconds"]
    assert found["resumes"] == [entry]
    assert any("trained was stopped" in n and "fold1 at step 3" in n for n in findings.notes)


def test_tokens_and_cost_are_those_that_the_server_charged(tmp_path: Path) -> None:
    common = ["experiment=smoke", "task=binary", "logger=none", f"runs_dir={tmp_path}"]
    prices = ["client.price_per_million_input=1", "client.price_per_million_output=10"]
    with serving() as server:
        server.usage = (100, 20)
        asked = ["client=openai", "client.model=m", f"client.base_url={server.url}/v1"]
        assert prompt([*common, *asked, *prices, "run=far"]) == 0
    findings = section(tmp_path / "far")
    found = findings.figures["runs"]["far"]
    # 160 answers: 16,000 tokens at 1 and 3,200 at 10 a million.
    assert (found["answers"], found["input_tokens"], found["output_tokens"]) == (160, 16000, 3200)
    assert found["cost"] == pytest.approx(0.048)
    assert rows(findings, "Tokens and cost of prompted runs") == [
        ("far", "160", "16000", "3200", "0.0480")
    ]
