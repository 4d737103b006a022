"""Run folders as a report reads them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from recap.errors import ConfigError, DataError
from recap.report.runs import read_examples, read_run, read_runs
from recap.runs.folder import RunFolder


@pytest.fixture
def runs(small_runs: Path, tmp_path: Path) -> Path:
    """Return a copy of the small runs that a test may change."""
    return Path(shutil.copytree(small_runs, tmp_path / "runs"))


def test_a_folder_of_runs_stands_for_all_of_them_and_each_says_what_it_is(small_runs: Path) -> None:
    found = {run.name: run.kind for run in read_runs([str(small_runs)])}
    assert found == {"trained": "trained", "words": "baseline", "asked": "prompted"}


def test_patterns_and_folders_name_a_run_once(small_runs: Path) -> None:
    named = [str(small_runs / "words"), str(small_runs / "*r*"), str(small_runs)]
    assert [run.name for run in read_runs(named)] == ["words", "trained", "asked"]


def test_predictions_of_a_run_are_all_examples_of_its_data_that_the_task_takes(
    small_runs: Path,
) -> None:
    run = read_run(RunFolder(path=small_runs / "words"))
    assert {p.id for p in run.all_predictions} == set(read_examples(run))
    assert run.missing == ()
    assert run.has_probabilities


def test_a_pattern_without_runs_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing-\*: stands for no run folder"):
        read_runs([str(tmp_path / "nothing-*")])


def test_two_runs_of_one_name_are_refused(runs: Path, small_runs: Path) -> None:
    with pytest.raises(ConfigError, match="'words' is the name of several folders"):
        read_runs([str(runs / "words"), str(small_runs / "words")])


def test_a_fold_that_is_missing_is_named(runs: Path) -> None:
    (runs / "words" / "fold1" / "scores.json").unlink()
    run = read_run(RunFolder(path=runs / "words"))
    assert run.missing == (1,)
    assert list(run.scores) == [0]


def test_a_run_without_a_finished_fold_is_refused(runs: Path) -> None:
    for fold in (0, 1):
        (runs / "words" / f"fold{fold}" / "scores.json").unlink()
    with pytest.raises(DataError, match="words: has no finished fold"):
        read_runs([str(runs)])


def test_a_fold_copied_from_a_run_with_other_options_is_refused_by_name(runs: Path) -> None:
    shutil.rmtree(runs / "trained" / "fold1")
    shutil.copytree(runs / "words" / "fold1", runs / "trained" / "fold1")
    scores = runs / "trained" / "fold1" / "scores.json"
    content = json.loads(scores.read_text())
    own = json.loads((runs / "trained" / "fold0" / "scores.json").read_text())
    # Versions with the same options have the same options_hash.
    content["made_with"]["options_hash"] = own["made_with"]["options_hash"]
    scores.write_text(json.dumps(content))
    with pytest.raises(DataError, match="fold1: was made with another configuration hash"):
        read_runs([str(runs / "trained")])


def test_an_option_changed_after_the_run_is_refused(runs: Path) -> None:
    file = runs / "trained" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    config["optimizer"]["learning_rate"] *= 2
    file.write_text(yaml.safe_dump(config))
    with pytest.raises(DataError, match="fold0: was made with another configuration hash"):
        read_runs([str(runs / "trained")])


@pytest.mark.parametrize("name", ["data_hash", "partition_hash"])
def test_a_fold_of_another_split_or_data_is_refused_by_name(runs: Path, name: str) -> None:
    file = runs / "trained" / "fold1" / "scores.json"
    content = json.loads(file.read_text())
    content["made_with"][name] = "0" * 16
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"fold1: was made with another {name.replace('_', ' ')}"):
        read_runs([str(runs / "trained")])


def test_runs_over_other_folds_are_refused_by_name(runs: Path) -> None:
    manifest = runs / "asked" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["partition_hash"] = "0" * 16
    manifest.write_text(json.dumps(content))
    for fold in (0, 1):
        scores = runs / "asked" / f"fold{fold}" / "scores.json"
        changed = json.loads(scores.read_text())
        changed["made_with"]["partition_hash"] = "0" * 16
        scores.write_text(json.dumps(changed))
    with pytest.raises(DataError, match=r"trained has the partition hash \w+, asked the partition"):
        read_runs([str(runs / "asked"), str(runs / "trained")])


def test_data_that_changed_since_are_not_taken_for_those_that_were_judged(runs: Path) -> None:
    manifest = runs / "words" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["data_hash"] = "0" * 16
    manifest.write_text(json.dumps(content))
    for fold in (0, 1):
        (runs / "words" / f"fold{fold}" / "scores.json").write_text(
            json.dumps(
                {
                    key: value
                    for key, value in json.loads(
                        (runs / "words" / f"fold{fold}" / "scores.json").read_text()
                    ).items()
                    if key != "made_with"
                }
            )
        )
    run = read_run(RunFolder(path=runs / "words"))
    with pytest.raises(DataError, match="has changed since words was run"):
        read_examples(run)
