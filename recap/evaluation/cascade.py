"""Two finished runs as one system: end to end over all labels, stage by stage, error by error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from recap.build import build_task
from recap.config import RunConfig
from recap.errors import ConfigError, DataError, RecapError
from recap.evaluation.answering import Answered, answer_examples
from recap.evaluation.loading import find_model
from recap.evaluation.options import EvaluateConfig
from recap.evaluation.result import Evaluation, evaluate_predictions
from recap.partition import draw_partition
from recap.records import Example, Prediction, Scores
from recap.run_folder import RunFolder, read_config
from recap.scoring.cascade import (
    CascadeErrors,
    CascadeLabels,
    cascade_labels,
    count_errors,
    join_stages,
)
from recap.scoring.confusion import score
from recap.scoring.files import predictions_from_jsonl, scores_to_dict
from recap.tasks.task import Task

NAME = "cascade"
"""The task that joint predictions name."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One of the two runs."""

    option: str
    """The option that names it."""
    folder: RunFolder
    config: RunConfig
    task: Task
    folds: tuple[int, ...]
    """Finished ones."""

    def predictions(self, fold: int) -> tuple[Prediction, ...]:
        """Return the predictions of a finished fold."""
        file = self.folder.fold(fold).predictions
        return predictions_from_jsonl(file.read_text(encoding="utf-8"), source=str(file))


def evaluate_cascade(config: EvaluateConfig) -> Evaluation:
    """Return two runs over one partition scored as a cascade, on the folds that both finished.

    The second stage's own predictions cover what it was made for. What the first stage wrongly
    passes on to it (false alarms) it has never answered: with ``false_alarms=ask`` each fold's
    model is asked now, with ``invalid`` these count as unreadable. They are wrong either way, so
    that recall and accuracy are the same; only with ``ask`` do they lower the precision of the
    behaviours that they are taken for.

    Raises:
        ConfigError: When a run is not there, the two do not fit together, or a model that is to be
            asked was not kept.
        DataError: When predictions cannot be read.
    """
    first = _stage("binary", str(config.binary))
    second = _stage("fine_grained", str(config.fine_grained))
    labels = cascade_labels(first.task.taxonomy, first.task.labels, second.task.labels)
    folds = _shared_folds(first, second, config.training.cv.fold)
    passed_on: dict[int, list[Prediction]] = {
        fold: [p for p in first.predictions(fold) if _is_false_alarm(p, labels)] for fold in folds
    }
    asked = _ask(second, passed_on, config) if config.false_alarms == "ask" else {}
    before: list[Prediction] = []
    joined: list[Prediction] = []
    own: list[Prediction] = []
    for fold in folds:
        judged, answers = first.predictions(fold), second.predictions(fold)
        known = {p.id: p for p in (*answers, *(asked[fold].predictions if fold in asked else ()))}
        before += judged
        own += answers
        joined += join_stages(judged, known, labels=labels, task=NAME)
    errors = count_errors(before, joined, labels=labels, taxonomy=first.task.taxonomy)
    stages = {
        "binary": score(before, task=first.task.name, labels=first.task.labels),
        "fine_grained": score(own, task=second.task.name, labels=second.task.labels),
    }
    return evaluate_predictions(
        joined,
        subject=f"{first.folder.path} and {second.folder.path}",
        task=NAME,
        labels=labels.together,
        notes=[
            f"folds {', '.join(map(str, folds))} of one partition",
            _false_alarm_note(sum(map(len, passed_on.values())), config.false_alarms),
            *(f"fold {fold}: {note}" for fold in asked for note in asked[fold].notes()),
        ],
        protocol=first.config.cv.protocol,
        figures=cascade_figures(stages, errors),
    )


def cascade_figures(stages: Mapping[str, Scores], errors: CascadeErrors) -> dict[str, Any]:
    """Return stage-wise scores and the shares of errors as plain values."""
    counts = {name: n for name, n in asdict(errors).items() if name != "n"}
    return {
        "stages": {name: scores_to_dict(scores) for name, scores in stages.items()},
        "errors": {
            "total": errors.total,
            "first_stage": errors.first_stage,
            "second_stage": errors.second_stage,
            "counts": counts,
            "shares": {
                "first_stage": errors.share(errors.first_stage),
                "second_stage": errors.share(errors.second_stage),
                **{name: errors.share(n) for name, n in counts.items()},
            },
        },
    }


def _stage(option: str, path: str) -> Stage:
    folder = RunFolder(path=Path(path))
    try:
        config = read_config(folder.path)
    except DataError as error:
        raise ConfigError(f"{option}={path}: {error}; give a run folder") from error
    finished = [k for k in range(config.cv.folds) if folder.fold(k).finished]
    if not finished:
        raise ConfigError(f"{option}={path}: has no finished fold; run recap.train with it first")
    return Stage(
        option=option,
        folder=folder,
        config=config,
        task=build_task(config),
        folds=tuple(finished),
    )


def _shared_folds(first: Stage, second: Stage, asked: int | str) -> list[int]:
    """Return the folds that both runs have finished.

    Raises:
        ConfigError: When the partitions differ, or no fold is shared.
    """
    hashes = [stage.folder.read_manifest().get("partition_hash") for stage in (first, second)]
    if None in hashes or hashes[0] != hashes[1]:
        raise ConfigError(
            f"binary={first.folder.path} has the partition {hashes[0]}, "
            f"fine_grained={second.folder.path} the partition {hashes[1]}: examples that one "
            "tests, the other trains on; run both with the same data and cv options"
        )
    shared = [fold for fold in first.folds if fold in second.folds]
    if isinstance(asked, int):
        shared = [fold for fold in shared if fold == asked]
    if not shared:
        which = "no fold" if asked == "all" else f"not cv.fold={asked}"
        raise ConfigError(
            f"{first.folder.path} and {second.folder.path} have {which} in common; finished are "
            f"{', '.join(map(str, first.folds))} and {', '.join(map(str, second.folds))}"
        )
    return shared


def _is_false_alarm(prediction: Prediction, labels: CascadeLabels) -> bool:
    return prediction.label == labels.opened and prediction.gold != labels.opened


def _ask(
    second: Stage, passed_on: Mapping[int, Sequence[Prediction]], config: EvaluateConfig
) -> dict[int, Answered]:
    """Return what each fold's second-stage model says of that fold's false alarms."""
    if not any(passed_on.values()):
        return {}
    examples = _examples_by_id(second)
    answers = {}
    for fold, alarms in passed_on.items():
        if not alarms:
            continue
        chosen = replace(second.config, cv=replace(second.config.cv, fold=fold))
        try:
            saved = find_model(second.folder.path, chosen)
        except ConfigError as error:
            raise ConfigError(
                f"{len(alarms)} examples of fold {fold} were passed on wrongly, and the second "
                f"stage cannot be asked about them: {error}; or set false_alarms=invalid, which "
                "counts them as unreadable"
            ) from error
        answers[fold] = answer_examples(
            saved,
            [examples[alarm.id] for alarm in alarms],
            golds=[alarm.gold for alarm in alarms],
            fold=fold,
            batch_size=config.training.decoding.batch_size,
            accelerator=config.training.trainer.accelerator,
        )
    return answers


def _examples_by_id(stage: Stage) -> dict[str, Example]:
    try:
        data = draw_partition(replace(stage.config, rationale=False))
    except RecapError as error:
        raise ConfigError(
            f"{stage.folder.path}: its data cannot be read again to ask the second stage about "
            f"false alarms: {error}; or set false_alarms=invalid, which counts them as unreadable"
        ) from error
    if data.hashes["partition_hash"] != stage.folder.read_manifest()["partition_hash"]:
        raise ConfigError(
            f"{stage.folder.path}: its data have changed since, so the second stage cannot be "
            "asked about false alarms; restore the file, or set false_alarms=invalid"
        )
    return {example.id: example for example in data.corpus.examples}


def _false_alarm_note(n: int, how: str) -> str:
    if not n:
        return "the first stage passed nothing on wrongly"
    if how == "ask":
        return f"the second stage was asked about {n} examples that were passed on wrongly"
    return (
        f"{n} examples that were passed on wrongly have no second answer (false_alarms=invalid): "
        "precision and F1 of the behaviours are upper bounds, recall and accuracy are exact"
    )
