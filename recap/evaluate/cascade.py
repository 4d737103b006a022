"""Two finished runs scored as one system: is it resistance at all, and if so, which behavior.

The first stage tells a label apart that the second opens up into finer ones. What the first stage
gets wrong is wrong end to end, whatever the second says of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recap.config import RunConfig
from recap.errors import ConfigError, DataError, RecapError, quote_id
from recap.evaluate.options import EvaluateConfig
from recap.evaluate.saved_model import Evaluation, evaluate_predictions
from recap.folds.run import read_run
from recap.metrics.files import predictions_from_jsonl, scores_to_dict
from recap.metrics.scores import score
from recap.records import Example, Prediction
from recap.runs.folder import RunFolder, read_config
from recap.runs.saved import answer_examples, find_model
from recap.tasks.library import build_task
from recap.tasks.task import Task
from recap.taxonomy import Taxonomy

FIRST_STAGE = ("missed", "false_alarms", "confused", "unreadable_first")
"""Errors of the first stage: examples of the opened label that got another one, those of others
that got the opened one, those of others that got a wrong other one (there is none where it has only
one), and those without a label."""

SECOND_STAGE = ("wrong_pattern", "wrong_behavior", "unreadable_second")
"""Errors on examples that went on rightly: a behavior of another pattern, another one of the right
pattern, none."""


def cascade_labels(
    taxonomy: Taxonomy, first: Sequence[str], second: Sequence[str]
) -> tuple[str, tuple[str, ...]]:
    """Return the label of the first stage that the second opens up, and those of both together.

    That is the second stage's labels and the first stage's others, in the taxonomy's order. Stages
    that do not follow each other are refused.
    """
    above = {next((n for n in taxonomy.lineage(x)[1:] if n in first), None) for x in second}
    if len(above) != 1 or None in above:
        raise DataError(
            "these two runs are no cascade: the labels of the second "
            f"({', '.join(second)}) do not all lie below one label of the first "
            f"({', '.join(first)}); give binary= a run of task=binary and fine_grained= one of "
            "task=fine_grained"
        )
    opened = str(above.pop())
    wanted = {*second, *first} - {opened}
    order = [category.name for category in taxonomy.categories]
    return opened, tuple(sorted(wanted, key=order.index))


def join_stages(
    first: Iterable[Prediction],
    second: Mapping[str, Prediction],
    *,
    opened: str,
    task: str = "cascade",
) -> list[Prediction]:
    """Return what the two stages answer together, an answer for each one of the first stage.

    The label is the first stage's, or the second's where the first gave the opened label. An answer
    of the second stage is looked up by id; for an example of another label (a false alarm) there
    may be none, and the joint answer then has no label, which is as wrong as any that the second
    stage could have given. One to an example of its own has to be there.
    """
    joined = []
    for prediction in first:
        finer = second.get(prediction.id)
        if prediction.gold == opened and finer is None:
            raise DataError(
                f"example {quote_id(prediction.id)} is {opened}, and the second stage has "
                "no answer to it; score runs over the same data and folds"
            )
        gold = finer.gold if prediction.gold == opened and finer else prediction.gold
        answer = prediction
        if prediction.label == opened:
            answer = finer or replace(prediction, label=None, rationale=None, text="")
        joined.append(
            replace(
                prediction,
                task=task,
                gold=gold,
                label=answer.label,
                probabilities=joint_probabilities(prediction, finer, opened),
                rationale=answer.rationale,
                text=answer.text,
                parsed=answer.label is not None,
            )
        )
    return joined


def joint_probabilities(
    first: Prediction, second: Prediction | None, opened: str
) -> Mapping[str, float] | None:
    """Return the probability of every label: the first stage's, times the second's below it.

    ``None`` where one of the two gives none.
    """
    if second is None or first.probabilities is None or second.probabilities is None:
        return None
    rest = {label: p for label, p in first.probabilities.items() if label != opened}
    finer = {label: first.probabilities[opened] * p for label, p in second.probabilities.items()}
    return {**finer, **rest}


def count_errors(
    first: Iterable[Prediction],
    joined: Sequence[Prediction],
    *,
    opened: str,
    taxonomy: Taxonomy,
) -> dict[str, Any]:
    """Return where the errors of the joint answers arise; every error is counted once.

    As scores.json has it: ``total``, ``first_stage`` and ``second_stage``, ``counts`` by kind, and
    the ``shares`` of stages and kinds in the total, ``None`` where there are no errors.
    """
    found = Counter(
        _kind_of_error(judged, answer, opened, taxonomy)
        for judged, answer in zip(first, joined, strict=True)
    )
    counts = {kind: found[kind] for kind in (*FIRST_STAGE, *SECOND_STAGE)}
    stages = {
        "first_stage": sum(counts[kind] for kind in FIRST_STAGE),
        "second_stage": sum(counts[kind] for kind in SECOND_STAGE),
    }
    total = sum(counts.values())
    shares = {name: n / total if total else None for name, n in {**stages, **counts}.items()}
    return {"total": total, **stages, "counts": counts, "shares": shares}


def _kind_of_error(
    judged: Prediction, answer: Prediction, opened: str, taxonomy: Taxonomy
) -> str | None:
    if judged.label is None:
        return "unreadable_first"
    if judged.label != judged.gold:
        if judged.gold == opened:
            return "missed"
        return "false_alarms" if judged.label == opened else "confused"
    if judged.gold != opened or answer.label == answer.gold:
        return None
    if answer.label is None:
        return "unreadable_second"
    same = taxonomy[answer.label].parent == taxonomy[answer.gold].parent
    return "wrong_behavior" if same else "wrong_pattern"


NAME = "cascade"
"""The task that joint predictions name."""


@dataclass(frozen=True, kw_only=True)
class CascadeStage:
    """One of the two runs."""

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
    model is asked now, with ``invalid`` these count as unparsed. They are wrong either way, so
    that recall and accuracy are the same; only with ``ask`` do they lower the precision of the
    behaviors that they are taken for.

    Raises:
        ConfigError: When a run is not there, the two do not fit together, or a model that is to be
            asked was not kept.
        DataError: When predictions cannot be read.
    """
    first = _stage("binary", str(config.binary))
    second = _stage("fine_grained", str(config.fine_grained))
    opened, labels = cascade_labels(first.task.taxonomy, first.task.labels, second.task.labels)
    folds = _shared_folds(first, second, config.training.cv.fold)
    passed_on = {
        fold: [p for p in first.predictions(fold) if p.label == opened and p.gold != opened]
        for fold in folds
    }
    asked = _ask(second, passed_on, config) if config.false_alarms == "ask" else {}
    before: list[Prediction] = []
    joined: list[Prediction] = []
    own: list[Prediction] = []
    for fold in folds:
        judged, answers = first.predictions(fold), second.predictions(fold)
        known = {p.id: p for p in (*answers, *(asked[fold][0] if fold in asked else ()))}
        before += judged
        own += answers
        joined += join_stages(judged, known, opened=opened, task=NAME)
    stages = {
        "binary": score(before, task=first.task.name, labels=first.task.labels),
        "fine_grained": score(own, task=second.task.name, labels=second.task.labels),
    }
    return evaluate_predictions(
        joined,
        subject=f"{first.folder.path} and {second.folder.path}",
        task=NAME,
        labels=labels,
        notes=[
            f"folds {', '.join(map(str, folds))} of one partition",
            _false_alarm_note(sum(map(len, passed_on.values())), config.false_alarms),
            *(f"fold {fold}: {note}" for fold in asked for note in asked[fold][1]),
        ],
        protocol=first.config.cv.protocol,
        figures={
            "stages": {name: scores_to_dict(scores) for name, scores in stages.items()},
            "errors": count_errors(before, joined, opened=opened, taxonomy=first.task.taxonomy),
        },
    )


def _stage(option: str, path: str) -> CascadeStage:
    folder = RunFolder(path=Path(path))
    try:
        config = read_config(folder.path)
    except DataError as error:
        raise ConfigError(f"{option}={path}: {error}; give a run folder") from error
    finished = tuple(k for k in range(config.cv.folds) if folder.fold(k).finished)
    if not finished:
        raise ConfigError(f"{option}={path}: has no finished fold; run recap.train with it first")
    return CascadeStage(folder=folder, config=config, task=build_task(config), folds=finished)


def _shared_folds(first: CascadeStage, second: CascadeStage, asked: int | str) -> list[int]:
    """Return the folds that both runs have finished; a ``ConfigError`` where there is none."""
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


def _ask(
    second: CascadeStage, passed_on: Mapping[int, Sequence[Prediction]], config: EvaluateConfig
) -> dict[int, tuple[list[Prediction], list[str]]]:
    """Return what each fold's second-stage model says of its false alarms, and notes on that."""
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
                "counts them as unparsed"
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


def _examples_by_id(stage: CascadeStage) -> dict[str, Example]:
    try:
        data = read_run(replace(stage.config, rationale=False))
    except RecapError as error:
        raise ConfigError(
            f"{stage.folder.path}: its data cannot be read again to ask the second stage about "
            f"false alarms: {error}; or set false_alarms=invalid, which counts them as unparsed"
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
        "precision and F1 of the behaviors are upper bounds, recall and accuracy are exact"
    )
