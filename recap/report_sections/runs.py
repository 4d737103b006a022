"""Run folders as a report reads them; what does not belong together is refused by name."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from recap.build import build_corpus, build_task
from recap.config import RunConfig
from recap.data.folds import data_hash
from recap.errors import ConfigError, DataError
from recap.records import Example, Prediction, Scores, Summary
from recap.results import made_with, read_made_with, read_scores
from recap.run_folder import RunFolder, read_config, read_prompted
from recap.scoring.files import predictions_from_jsonl
from recap.scoring.summary import summarize
from recap.tasks.task import Task

Kind = Literal["trained", "prompted", "baseline"]


@dataclass(frozen=True, kw_only=True)
class ReportedRun:
    """One run with its finished folds."""

    folder: RunFolder
    config: RunConfig
    prompted: Mapping[str, Any]
    """What config.yaml holds of a prompted system beside: client, shots; empty for others."""
    manifest: Mapping[str, Any]
    task: Task
    scores: Mapping[int, Scores]
    """Of the finished folds, by index, in order."""
    predictions: Mapping[int, tuple[Prediction, ...]]
    """Of the finished folds, by index, in the order of the data."""
    summary: Summary
    """Over the finished folds."""
    leakage: Mapping[str, Any]
    """What folds share (leakage.json); empty where it is missing."""
    data: Mapping[str, Any]
    """What was read (data.json); empty where it is missing."""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.path.name

    @property
    def kind(self) -> Kind:
        """Trained here, prompted, or a baseline."""
        if self.prompted:
            return "prompted"
        return "trained" if self.config.baseline is None else "baseline"

    @property
    def missing(self) -> tuple[int, ...]:
        """Folds of the partition that are not finished."""
        return tuple(k for k in range(self.config.cv.folds) if k not in self.scores)

    @property
    def all_predictions(self) -> tuple[Prediction, ...]:
        """The predictions of all finished folds, fold after fold."""
        return tuple(p for fold in self.predictions.values() for p in fold)

    @property
    def has_probabilities(self) -> bool:
        """Whether every prediction has the probabilities of the labels."""
        return all(p.probabilities is not None for p in self.all_predictions)


def read_runs(patterns: Sequence[str]) -> tuple[ReportedRun, ...]:
    """Return the runs that folders and patterns stand for, each once, in order.

    A folder that is no run stands for the runs directly inside it.

    Raises:
        ConfigError: When one stands for no run.
        DataError: When a run has no finished fold or cannot be read, a fold was made with other
            data, folds or options than its run, or runs were made with other data or folds.
    """
    if not patterns:
        raise ConfigError("runs: names no run; set it to run folders, as in runs='runs/demo-*'")
    runs = tuple(map(read_run, find_runs(patterns)))
    _refuse_strangers(runs)
    return runs


def find_runs(patterns: Sequence[str]) -> tuple[RunFolder, ...]:
    """Return the run folders that folders and patterns stand for, each once, in order.

    Raises:
        ConfigError: When one stands for no run, or two have one name.
    """
    folders: dict[Path, Path] = {}
    for pattern in patterns:
        for folder in _run_folders(pattern):
            folders.setdefault(folder.resolve(), folder)
    names = Counter(folder.name for folder in folders.values())
    twice = [name for name, n in names.items() if n > 1]
    if twice:
        raise ConfigError(
            f"runs: {', '.join(map(repr, twice))} is the name of several folders, and a report "
            "tells runs apart by their names; rename a folder, or report them separately"
        )
    return tuple(RunFolder(path=folder) for folder in folders.values())


def read_run(folder: RunFolder) -> ReportedRun:
    """Return one run with its finished folds.

    Raises:
        DataError: When none is finished, a file cannot be read, or a fold was made with other data,
            folds or options than the run.
    """
    config = read_config(folder.path)
    folds = [k for k in range(config.cv.folds) if folder.fold(k).finished]
    if not folds:
        raise DataError(
            f"{folder.path}: has no finished fold; run its command again, or leave it out of runs="
        )
    _refuse_strange_folds(folder, folds)
    scores = {k: read_scores(folder.fold(k)) for k in folds}
    return ReportedRun(
        folder=folder,
        config=config,
        prompted=read_prompted(folder.path),
        manifest=folder.read_manifest(),
        task=build_task(replace(config, prompt=replace(config.prompt, file=None))),
        scores=scores,
        predictions={k: _predictions(folder, k) for k in folds},
        summary=summarize(scores, protocol=config.cv.protocol),
        leakage=_json(folder.leakage),
        data=_json(folder.data),
    )


def read_examples(run: ReportedRun) -> dict[str, Example]:
    """Return the examples of a run's data by id, read again from where they were.

    Raises:
        DataError: When the data are not there, cannot be read, or have changed since.
    """
    corpus = build_corpus(replace(run.config, rationale=False), run.task)
    recorded = run.manifest.get("data_hash")
    if recorded is not None and data_hash(corpus.examples) != recorded:
        raise DataError(
            f"{run.config.data.path or run.config.data.name}: has changed since {run.name} was "
            "run; restore it, so that texts and metadata are those that were judged"
        )
    return {example.id: example for example in corpus.examples}


def _run_folders(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    folders = [path] if path.is_dir() else sorted(Path(path.anchor).glob(_relative(path)))
    runs: list[Path] = []
    for folder in folders:
        if (folder / "config.yaml").is_file():
            runs.append(folder)
        elif folder.is_dir():
            runs += [file.parent for file in sorted(folder.glob("*/config.yaml"))]
    if not runs:
        raise ConfigError(
            f"runs={pattern}: stands for no run folder (one with a config.yaml); name run folders, "
            "a folder of them, or a pattern such as 'runs/demo-*'"
        )
    return runs


def _relative(path: Path) -> str:
    return str(path.relative_to(path.anchor)) if path.anchor else str(path)


def _predictions(folder: RunFolder, fold: int) -> tuple[Prediction, ...]:
    file = folder.fold(fold).predictions
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file}: cannot be read; delete {file.parent / 'scores.json'} to run this fold again"
        ) from error
    return predictions_from_jsonl(text, source=str(file))


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: is not JSON; run the command of this run again") from error
    return found


def _refuse_strange_folds(folder: RunFolder, folds: Sequence[int]) -> None:
    """Refuse a fold that was copied from another run, or options that were changed since."""
    expected = made_with(folder)
    for fold in folds:
        found = read_made_with(folder.fold(fold))
        compared = {"data_hash", "partition_hash"} & set(expected) & set(found)
        if found.get("options_hash") == expected["options_hash"]:
            compared.add("configuration_hash")
        for name in sorted(compared):
            if found[name] != expected[name]:
                raise DataError(
                    f"{folder.fold(fold).path}: was made with another {name.replace('_', ' ')} "
                    f"({found[name]}) than its run ({expected[name]}); put back the fold or the "
                    "config.yaml that belong here, or delete the fold and run it again"
                )


def _refuse_strangers(runs: Sequence[ReportedRun]) -> None:
    """Refuse runs whose folds do not test the same examples.

    Repetitions of one cross-validation (``cv.seed``) have partitions of their own.
    """
    first = runs[0]
    for run in runs[1:]:
        compared = ["data_hash"]
        if run.config.cv.seed == first.config.cv.seed:
            compared.append("partition_hash")
        for name in compared:
            here, there = run.manifest.get(name), first.manifest.get(name)
            if here != there:
                raise DataError(
                    f"{run.name} has the {name.replace('_', ' ')} {here}, {first.name} the "
                    f"{name.replace('_', ' ')} {there}: their folds test different examples and "
                    "cannot stand in one table; report them separately"
                )
