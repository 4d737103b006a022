"""Run folders as a report reads them, what it calls them, and which of them belong together.

Runs that cannot stand in one report are refused by name; what several have in common is stated
once; runs of one system, its repetitions and its twins under the other protocol are found.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from recap.config import COMPARED, RunConfig, flatten, result_options
from recap.data.folds import data_hash
from recap.errors import ConfigError, DataError, UserError
from recap.folds.fold import made_with, read_made_with, read_scores
from recap.folds.run import build_corpus
from recap.metrics.files import predictions_from_jsonl
from recap.metrics.scores import summarize
from recap.output.format import DASH
from recap.records import Example, Prediction, Scores, Summary
from recap.runs.folder import RunFolder, read_config, read_prompted
from recap.statistics.clusters import People
from recap.tasks.library import build_task
from recap.tasks.task import Task

RunKind = Literal["trained", "prompted", "baseline"]


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
    people: Mapping[str, People] | None = None
    """Client and counselor of examples by id; ``None`` where the data could not be read again."""
    system: str = ""
    """What a report calls its system; empty: as its folder."""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.path.name

    @property
    def title(self) -> str:
        """What tables and figures call it."""
        return self.system or self.name

    @property
    def kind(self) -> RunKind:
        """Trained here, prompted, or a baseline."""
        if self.prompted:
            return "prompted"
        return "trained" if self.config.baseline is None else "baseline"

    @property
    def is_trained(self) -> bool:
        """Whether its folds are trained with epochs, of which one is selected."""
        return self.kind != "prompted" and self.config.finetune.method != "none"

    @property
    def is_remote(self) -> bool:
        """Whether a server answers."""
        return bool(self.prompted) and self.prompted["client"]["name"] != "local"

    @property
    def missing(self) -> tuple[int, ...]:
        """Folds of the partition that are not finished."""
        return tuple(k for k in range(self.config.cv.folds) if k not in self.scores)

    @property
    def n_predictions(self) -> int:
        """Of all finished folds."""
        return sum(scores.n for scores in self.scores.values())

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
    examples, fault = read_examples_again(runs)
    people = {e.id: (e.client, e.counselor) for e in examples.values()}
    known = None if fault else people
    several = len({run.task.name for run in runs}) > 1
    names = {
        run.name: f"{system.name}, {task}" if several else system.name
        for system in group_systems(runs)
        for task, run in system.runs.items()
    }
    return tuple(replace(run, system=names[run.name], people=known) for run in runs)


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
        predictions={k: read_predictions(folder.fold(k).predictions) for k in folds},
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
            "run; restore it, so that texts and metadata are those that were scored"
        )
    return {example.id: example for example in corpus.examples}


def _run_folders(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    within = str(path.relative_to(path.anchor))
    folders = [path] if path.is_dir() else sorted(Path(path.anchor).glob(within))
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


def read_predictions(file: Path) -> tuple[Prediction, ...]:
    """Return what a file of a fold holds.

    Raises:
        DataError: When it cannot be read.
    """
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
        compared = {"data_hash", "partition_hash", "backbone_hash"} & set(expected) & set(found)
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


def read_examples_again(
    runs: Sequence[ReportedRun],
) -> tuple[Mapping[str, Example], str | None]:
    """Return the examples of the first run whose data can be read, by id.

    Where there is none, what is at fault and how to mend it. Runs of one report have one data hash,
    so that the examples of one are those of all.
    """
    fault = "no run was given"
    for run in runs:
        try:
            return read_examples(run), None
        except UserError as error:
            # A list of faulty rows may follow.
            fault = str(error).split("\n", 1)[0]
    return {}, fault


_TUNINGS = {"full": "full", "none": "untrained"}
_SPOKEN = {"full": "full fine-tuning", "linear": "linear classifier"}
_MOST_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class ReportedSystem:
    """One system, whatever tasks it was scored on."""

    model: str
    """Backbone, served model or baseline."""
    called: str
    """The same as its makers call it."""
    setting: str
    """Tuning, or shots."""
    rationale: bool | None
    """Whether it gives rationales; ``None`` for a baseline, which never does."""
    note: str
    """What tells it from others of the same model, setting and rationale; empty where none is."""
    runs: Mapping[str, ReportedRun]
    """Its runs by task."""

    @property
    def name(self) -> str:
        """All of it in one line."""
        rationale = {True: "with rationale", False: "label only", None: ""}[self.rationale]
        setting = _SPOKEN.get(self.setting, self.setting)
        return ", ".join(part for part in (self.called, setting, rationale, self.note) if part)

    @property
    def cells(self) -> tuple[str, str, str]:
        """Model, setting and rationale as a table has them."""
        mark = {True: "✓", False: "✗", None: DASH}[self.rationale]
        setting = f"{self.setting} ({self.note})" if self.note else self.setting
        return self.called, setting, mark


def group_systems(runs: Sequence[ReportedRun]) -> tuple[ReportedSystem, ...]:
    """Return the systems of the runs, in the order in which they come first.

    Runs are of one system when all their result-changing options are the same but for the task.
    """
    groups: list[tuple[dict[str, Any], dict[str, ReportedRun]]] = []
    for run in runs:
        options = system_options(run)
        for known, by_task in groups:
            if known == options and run.task.name not in by_task:
                by_task[run.task.name] = run
                break
        else:
            groups.append((options, {run.task.name: run}))
    alike: dict[tuple[str, str, bool | None], list[int]] = {}
    for place, (_, by_task) in enumerate(groups):
        alike.setdefault(_visible(next(iter(by_task.values()))), []).append(place)
    systems = {}
    for (model, setting, rationale), places in alike.items():
        others = [groups[i][0] for i in places]
        for place in places:
            systems[place] = ReportedSystem(
                model=model,
                called=_called(model, groups[place][1]),
                setting=setting,
                rationale=rationale,
                note="" if len(places) == 1 else _note(groups[place], others),
                runs=groups[place][1],
            )
    return tuple(systems[place] for place in range(len(groups)))


def system_options(run: ReportedRun) -> dict[str, Any]:
    """Return a run's result-changing options without those of its task."""
    options = result_options(run.config)
    if run.prompted:
        flat = flatten(run.prompted)
        options |= {key: flat.get(key) for key in COMPARED}
    return {key: value for key, value in options.items() if not key.startswith("task.")}


def _called(model: str, runs: Mapping[str, ReportedRun]) -> str:
    """Return a backbone's name on the hub; that of a folder or of a served model as it is."""
    backbone = next(iter(runs.values())).config.backbone
    if model != backbone.name or backbone.hub_id is None or backbone.path is not None:
        return model
    return backbone.hub_id.rpartition("/")[2]


def _visible(run: ReportedRun) -> tuple[str, str, bool | None]:
    config = run.config
    if run.kind == "baseline":
        method = dict(config.baseline or {}).get("method")
        if method == "tfidf":
            return "TF-IDF", "linear", None
        return config.backbone.name, f"{method}", None
    if run.kind == "prompted":
        client = run.prompted["client"]
        local = client["name"] == "local"
        model = config.backbone.name if local else str(client["model"])
        return model, "few-shot" if run.prompted["shots"] else "zero-shot", config.rationale
    method = config.finetune.method
    setting = _TUNINGS.get(method, f"{method} r{config.finetune.rank}")
    return config.backbone.name, setting, config.rationale


def _note(
    own: tuple[dict[str, Any], dict[str, ReportedRun]], alike: Sequence[dict[str, Any]]
) -> str:
    """Return the options by which a system differs from those that look the same."""
    options, by_task = own
    keys = sorted({key for other in alike for key in other})
    different = [k for k in keys if len({repr(other.get(k)) for other in alike}) > 1]
    if not different or len(different) > _MOST_NAMED:
        return next(iter(by_task.values())).name
    return ", ".join(f"{key}={options.get(key)}" for key in different)


ALL = "all runs"

MOST_NAMED = 6
"""Runs that are named one by one; of more, the others are named where they are fewer."""

_KINDS: Mapping[RunKind, str] = {
    "trained": "all trained runs",
    "prompted": "all prompted runs",
    "baseline": "all baselines",
}


def statements_of(
    runs: Sequence[ReportedRun], state: Callable[[ReportedRun], str | None]
) -> dict[str, list[ReportedRun]]:
    """Return each distinct statement with the runs it holds for; ``None`` states nothing."""
    by_text: dict[str, list[ReportedRun]] = {}
    for run in runs:
        text = state(run)
        if text is not None:
            by_text.setdefault(text, []).append(run)
    return by_text


def by_task(runs: Sequence[ReportedRun]) -> dict[str, list[ReportedRun]]:
    """Return the runs of each task, by its name."""
    return statements_of(runs, lambda run: run.task.name)


def in_one_text(
    runs: Sequence[ReportedRun], state: Callable[[ReportedRun], str | None]
) -> str | None:
    """Return all distinct statements as one text, ``None`` without any.

    Runs are named wherever a statement does not hold for all of them.
    """
    found = statements_of(runs, state)
    texts = [f"{named(own, among=runs)}: {text}" for text, own in found.items()]
    if len(found) == 1 and named(next(iter(found.values())), among=runs) == ALL:
        return next(iter(found))
    return " ".join(text if text.endswith(".") else f"{text}." for text in texts) or None


def named(some: Sequence[ReportedRun], *, among: Sequence[ReportedRun]) -> str:
    """Return how runs are called among others: all of them, all of a kind, or their names."""
    chosen = {run.name for run in some}
    if chosen == {run.name for run in among}:
        return ALL
    kinds = {run.kind for run in some}
    of_kind = {run.name for run in among if run.kind in kinds}
    if len(kinds) == 1 and len(chosen) > 1 and chosen == of_kind:
        return _KINDS[some[0].kind]
    others = [run.name for run in among if run.name not in chosen]
    if len(chosen) > MOST_NAMED and len(others) < len(chosen):
        return f"{ALL} but {', '.join(others)}"
    return ", ".join(run.name for run in some)


def distinct(values: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return each distinct value with the names that have it, in their order."""
    by_value: dict[str, list[str]] = {}
    for name, value in values.items():
        by_value.setdefault(value, []).append(name)
    return {value: tuple(names) for value, names in by_value.items()}


SEEDS = ("seed", "cv.seed")
"""Options that repetitions may differ in."""

Repeats = tuple[ReportedRun, ...]
"""Runs that differ in seeds alone; mostly a single one."""


def group_repeats(runs: Sequence[ReportedRun], free: Sequence[str] = SEEDS) -> tuple[Repeats, ...]:
    """Return runs of one task and the same options together, but for those that are free."""

    def described(run: ReportedRun) -> str:
        options = {key: value for key, value in system_options(run).items() if key not in free}
        return json.dumps([run.task.name, run.kind, options], sort_keys=True, default=str)

    return tuple(map(tuple, statements_of(runs, described).values()))


def protocol_twins(runs: Sequence[ReportedRun]) -> tuple[tuple[Repeats, Repeats], ...]:
    """Return systems that were run under both protocols, as pairs ``(paper, nested)``.

    They have every option in common but ``cv.protocol`` and seeds, and so the same test folds
    wherever the partition seed is the same: only what is trained on and selected on differs.
    Prompted systems train nothing and are left out.
    """
    trained = [run for run in runs if run.kind != "prompted"]
    pairs = []
    for group in group_repeats(trained, free=(*SEEDS, "cv.protocol")):
        paper, nested = (
            tuple(run for run in group if run.config.cv.protocol == protocol)
            for protocol in ("paper", "nested")
        )
        if partitions(paper) & partitions(nested):
            pairs.append((paper, nested))
    return tuple(pairs)


def partitions(group: Repeats) -> set[str]:
    """Return the hashes of which example is tested in which fold."""
    return {str(run.manifest.get("partition_hash")) for run in group}


def group_name(group: Repeats) -> str:
    """Return the name of the first run, with the number of repetitions."""
    return group[0].name if len(group) == 1 else f"{group[0].name} (× {len(group)} seeds)"


def group_title(group: Repeats) -> str:
    """Return what tables call a system: what the names of its repetitions have in common."""
    if len(group) == 1:
        return group[0].title
    first, *others = (run.title.split(", ") for run in group)
    common = [part for part in first if all(part in other for other in others)]
    return f"{', '.join(common) or group[0].name} (× {len(group)} seeds)"
