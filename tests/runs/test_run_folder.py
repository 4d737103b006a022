from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import recap
from recap.config import RunConfig
from recap.errors import ConfigError, DataError
from recap.runs.folder import (
    RunFolder,
    best_fold,
    model_folder,
    open_run_folder,
    read_config,
    refuse_other_data,
    remove_models,
    write_json,
)
from recap.system.files import write_atomic

PIECES = (
    *("..", ".", "/", "\\", "~", "\0", "a", " ", "心", "-m", "CON", ":", "%2e", "\ud83d", "\n"),
    *("x" * 100, ".lock", "config.yaml", "$HOME", "*", "\u202e", "\x1b[2J"),
)
NAMES = st.text(max_size=12) | st.lists(st.sampled_from(PIECES), max_size=4).map("".join)


@cache
def recap_config() -> RunConfig:
    return recap.load_config()


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return replace(recap.load_config(), runs_dir=str(tmp_path), run="r")


def test_a_folder_keeps_the_configuration_it_was_made_with(config: RunConfig) -> None:
    assert read_config(open_run_folder(config).path) == config


@settings(max_examples=80, deadline=None)
@given(name=NAMES)
def test_a_run_is_one_folder_in_its_place_whatever_it_is_called(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    place = tmp_path_factory.mktemp("runs")
    try:
        config = replace(recap_config(), runs_dir=str(place / "in"), run=name)
    except ValidationError:
        assert re.search(r"^\.|[/\\:\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", name) or not (
            0 < len(name.encode("utf-8", "replace")) <= 200
        )
        return
    folder = open_run_folder(config).path
    assert [entry.name for entry in place.iterdir()] == ["in"]
    assert [entry.name for entry in (place / "in").iterdir()] == [name]
    assert folder.resolve() == place.resolve() / "in" / name
    assert read_config(folder) == config


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/b", "..", ".hidden", "'a:b'", "x" * 201])
def test_a_name_that_would_lead_elsewhere_is_refused_on_the_command_line(name: str) -> None:
    with pytest.raises(ConfigError, match="run: has to be the name of one folder"):
        recap.load_config([f"run={name}"])


def test_the_same_configuration_opens_the_folder_again(config: RunConfig) -> None:
    open_run_folder(config)
    later = replace(config, logger=replace(config.logger, name="csv"))
    assert read_config(open_run_folder(later).path).logger.name == "csv"


def test_other_options_are_refused_with_old_and_new_value(config: RunConfig) -> None:
    open_run_folder(config)
    with pytest.raises(ConfigError, match=r"seed \(0 there, 5 now\).*run=NAME"):
        open_run_folder(replace(config, seed=5))


def test_a_configuration_of_another_version_is_refused(config: RunConfig) -> None:
    folder = open_run_folder(config)
    stored = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
    folder.config.write_text(yaml.safe_dump({**stored, "temperature": 1}), encoding="utf-8")
    with pytest.raises(ConfigError, match="not one of this version"):
        open_run_folder(config)


def test_a_folder_without_configuration_is_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a run folder"):
        read_config(tmp_path)


def test_data_that_changed_since_are_refused(config: RunConfig) -> None:
    folder = open_run_folder(config)
    refuse_other_data(folder, data_hash="a")
    folder.update_manifest(data_hash="a")
    refuse_other_data(folder, data_hash="a")
    with pytest.raises(DataError, match="data hash differs"):
        refuse_other_data(folder, data_hash="b")


def test_mappings_in_the_manifest_are_merged(config: RunConfig) -> None:
    folder = open_run_folder(config)
    folder.update_manifest(folds={"fold0": 1}, seed=1)
    folder.update_manifest(folds={"fold1": 2}, seed=2)
    assert json.loads(folder.manifest.read_text()) == {"folds": {"fold0": 1, "fold1": 2}, "seed": 2}


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(file, {"a": float("nan")})
    with pytest.raises(UnicodeEncodeError):
        write_atomic(file, "half \ud800")
    assert json.loads(file.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [file]


def test_written_files_have_the_ordinary_permissions(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


LOSSES = {"fold0": 0.5, "fold1": 0.3, "fold2": 0.3, "fold3": None, "fold4": 0.1}
"""Of folds that are all finished but the last; the fourth was not trained."""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run whose last fold has a model and a loss but no scores yet."""
    folder = RunFolder(path=tmp_path / "run")
    for name in LOSSES:
        (folder.path / name / "model").mkdir(parents=True)
        if name != "fold4":
            write_json(folder.path / name / "scores.json", {})
    folder.update_manifest(folds={name: {"select_loss": loss} for name, loss in LOSSES.items()})
    return folder


def models(folder: RunFolder) -> list[str]:
    return sorted(path.parent.name for path in folder.path.glob("*/model"))


def test_the_best_fold_is_the_finished_one_with_the_lowest_loss_the_first_of_equals(
    folder: RunFolder,
) -> None:
    assert best_fold(folder) == folder.fold(1)
    write_json(folder.fold(4).scores, {})
    assert best_fold(folder) == folder.fold(4)


def test_a_run_stands_for_its_final_model_else_for_that_of_the_best_fold(
    folder: RunFolder,
) -> None:
    assert model_folder(folder) == folder.path / "fold1" / "model"
    folder.final.model.mkdir(parents=True)
    assert model_folder(folder) == folder.path / "final" / "model"


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ("all", ["final", "fold0", "fold1", "fold2", "fold3", "fold4"]),
        ("best", ["final", "fold1", "fold4"]),  # the last fold is not finished
        ("none", ["final", "fold4"]),
    ],
)
def test_models_are_kept_as_asked_and_the_final_one_and_unfinished_folds_always(
    folder: RunFolder, keep: str, kept: list[str]
) -> None:
    folder.final.model.mkdir(parents=True)
    remove_models(folder, keep=keep)  # type: ignore[arg-type]
    remove_models(folder, keep=keep)  # type: ignore[arg-type]
    assert models(folder) == kept


def test_a_run_without_the_model_it_stands_for_says_how_to_get_one(
    folder: RunFolder, tmp_path: Path
) -> None:
    remove_models(folder, keep="none")
    with pytest.raises(ConfigError, match=r"not kept .*cv.fold=final"):
        model_folder(folder)
    with pytest.raises(ConfigError, match="neither a final model nor a finished fold"):
        model_folder(RunFolder(path=tmp_path))


def test_where_no_fold_is_known_to_be_best_all_models_stay(folder: RunFolder) -> None:
    folder.update_manifest(folds={name: {} for name in LOSSES})
    remove_models(folder, keep="best")
    assert models(folder) == sorted(LOSSES)
