"""A run's folder on disk: names that never change, files that are written whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from recap.config import RunConfig, result_options, to_dict, validated
from recap.errors import ConfigError, DataError
from recap.system.files import lock, open_lock, read_yaml, refuse_links, write_atomic

Part = int | Literal["final"]
"""A fold by its number, or the model on all data."""

PROMPTED_KEYS = ("client", "shots", "shot_categories")
"""Keys of config.yaml that a prompted system has beside those of a training."""


class _At:
    """The place of something in a folder, under a name that never changes."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: Any, _: type) -> Path:
        return Path(folder.path / self._name)


@dataclass(frozen=True, kw_only=True)
class FoldFolder:
    """The files of one fold, or of the ``final`` model."""

    path: Path

    predictions = _At("predictions.jsonl")
    """One JSON object per evaluated example, in data order."""
    selection = _At("selection.jsonl")
    """The same of the examples that selected the epoch; under ``cv.protocol=nested`` alone."""
    scores = _At("scores.json")
    """Metrics of this fold; written last, so its presence means that the fold is finished."""
    history = _At("history.csv")
    """Loss, learning rate and speed over optimizer steps."""
    checkpoints = _At("checkpoints")
    """What an unfinished fold resumes from."""
    model = _At("model")
    """A Hugging Face folder or PEFT adapter."""

    @property
    def finished(self) -> bool:
        """Whether this fold's scores are there."""
        return self.scores.is_file()


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    config = _At("config.yaml")
    """The resolved configuration."""
    manifest = _At("manifest.json")
    """Versions, seeds, hashes, device, wall times."""
    data = _At("data.json")
    """What was read: rows, counts, and every row that was left out."""
    leakage = _At("leakage.json")
    """Duplicates, shared sessions and history overlap between folds."""
    summary = _At("summary.json")
    """Mean, standard deviation and values over folds."""
    summary_table = _At("summary.md")
    """The same as a Markdown table."""

    @property
    def final(self) -> FoldFolder:
        """The model trained on all data."""
        return FoldFolder(path=self.path / "final")

    def fold(self, index: int) -> FoldFolder:
        """Return the files of fold ``index``."""
        return FoldFolder(path=self.path / f"fold{index}")

    def part(self, part: Part) -> FoldFolder:
        """Return the files of a fold by its number, or of the final model."""
        return self.final if part == "final" else self.fold(part)

    def read_manifest(self) -> dict[str, Any]:
        """Return the manifest, empty when there is none yet."""
        if not self.manifest.is_file():
            return {}
        found: dict[str, Any] = json.loads(self.manifest.read_text(encoding="utf-8"))
        return found

    def update_manifest(self, **entries: Any) -> None:
        """Set entries of the manifest; a mapping is merged into the mapping that is there."""
        with locked(self.path, wait=True):
            manifest = self.read_manifest()
            for key, value in entries.items():
                there = manifest.get(key)
                merge = isinstance(value, Mapping) and isinstance(there, dict)
                manifest[key] = {**there, **value} if merge and there else value
            write_json(self.manifest, manifest)


def open_run_folder(
    config: RunConfig,
    *,
    prompted: Mapping[str, Any] | None = None,
    write: bool = True,
) -> RunFolder:
    """Return the folder of a run, created when missing, with its config.yaml.

    A ``prompted`` system has keys of :data:`PROMPTED_KEYS` there besides; the other processes of a
    run on several devices do not ``write``.

    Raises:
        ConfigError: When the folder holds a run with other result-changing options, naming them.
    """
    folder = RunFolder(path=Path(config.runs_dir) / config.run)
    refuse_links(folder.path)
    if folder.config.is_file():
        _refuse_other_run(folder, result_options(config, prompted))
    else:
        folder.path.mkdir(parents=True, exist_ok=True)
    if write:
        write_atomic(
            folder.config,
            yaml.safe_dump(
                {**to_dict(config), **(prompted or {})}, sort_keys=False, allow_unicode=True
            ),
        )
    return folder


def read_config(folder: Path) -> RunConfig:
    """Return a run's configuration, less :data:`PROMPTED_KEYS`; a ``DataError`` for no run."""
    file = folder / "config.yaml"
    if not file.is_file():
        raise DataError(f"{folder}: not a run folder (it has no config.yaml)")
    values = read_yaml(file)
    own = {key: values[key] for key in values if key not in PROMPTED_KEYS}
    if isinstance(prompt := own.get("prompt"), dict):
        # Runs of earlier versions dropped as few turns as would do.
        own["prompt"] = {"cut": "turns", **prompt}
    return validated(RunConfig, own)


def read_prompted(folder: Path) -> dict[str, Any]:
    """Return what config.yaml holds of a prompted system, empty for a trained model."""
    values = read_yaml(folder / "config.yaml")
    return {key: values[key] for key in PROMPTED_KEYS if key in values}


def best_fold(folder: RunFolder) -> FoldFolder | None:
    """Return the finished fold with the lowest selection loss, ``None`` when none has one."""
    losses = {
        name: entry["select_loss"]
        for name, entry in folder.read_manifest().get("folds", {}).items()
        if FoldFolder(path=folder.path / name).finished and entry.get("select_loss") is not None
    }
    if not losses:
        return None
    return FoldFolder(path=folder.path / min(losses, key=lambda name: (losses[name], name)))


def model_folder(folder: RunFolder) -> Path:
    """Return a run's ``final`` model, else its best fold's; a ``ConfigError`` without one."""
    if folder.final.model.is_dir():
        return folder.final.model
    best = best_fold(folder)
    if best is None:
        raise ConfigError(
            f"{folder.path}: has neither a final model nor a finished fold that was trained; "
            "run recap.train with its options first"
        )
    if not best.model.is_dir():
        raise ConfigError(
            f"{best.model}: was not kept (keep_models); train a model on all data with "
            "cv.fold=final, or the folds again with another run=NAME and keep_models=best"
        )
    return best.model


def remove_models(folder: RunFolder, *, keep: Literal["all", "best", "none"]) -> None:
    """Delete the models of finished folds, but for those to keep; never the final model.

    Of two folds the worse one goes only when the better one is finished, so that a run which is
    stopped has the best of what it has finished.
    """
    if keep == "all":
        return
    with locked(folder.path, wait=True):
        best = best_fold(folder) if keep == "best" else None
        if keep == "best" and best is None:
            return
        for name in folder.read_manifest().get("folds", {}):
            fold = FoldFolder(path=folder.path / name)
            if fold.finished and fold != best and fold.model.is_dir():
                shutil.rmtree(fold.model)


def refuse_other_data(folder: RunFolder, **hashes: str) -> None:
    """Raise a ``DataError`` for finished folds that were made with other data or partitions."""
    manifest = folder.read_manifest()
    for name, value in hashes.items():
        if manifest.get(name, value) != value:
            raise DataError(
                f"{folder.path}: the {name.replace('_', ' ')} differs from the one this run was "
                "begun with: a data file or a prompt file has changed since, or recap's own words "
                "with its version; set run=NAME for a new run, or restore what it was"
            )


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes out of a folder while the block runs.

    ``wait`` for one that is in it already; else a ``ConfigError``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open_lock(folder / ".lock") as file:
        try:
            lock(file, wait=wait)
        except BlockingIOError as error:
            raise ConfigError(
                f"{folder}: another process is working on it; wait for it, or set run=NAME"
            ) from error
        yield


def write_json(path: Path, value: Any, *, private: bool = False) -> None:
    """Write strict JSON (no NaN), as :func:`write_atomic` does."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    write_atomic(path, text, private=private)


def _refuse_other_run(folder: RunFolder, given: Mapping[str, Any]) -> None:
    try:
        there = result_options(read_config(folder.path), read_prompted(folder.path))
    except ConfigError as error:
        raise ConfigError(
            f"{folder.path}: its config.yaml is not one of this version ({error}); "
            "set run=NAME for a new run"
        ) from error
    changed = [key for key in sorted({*there, *given}) if there.get(key) != given.get(key)]
    if changed:
        named = ", ".join(
            f"{key} ({there.get(key)!r} there, {given.get(key)!r} now)" for key in changed[:8]
        )
        more = f" and {len(changed) - 8} more" if len(changed) > 8 else ""
        raise ConfigError(
            f"{folder.path}: holds a run with other options: {named}{more}; "
            "set run=NAME for a new run"
        )
