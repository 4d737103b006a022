"""Answers to items about models, prompts, figures and what they took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recap.report_sections import system_statements as systems
from recap.report_sections.answer import Answer, AnswerFunction, answer_of, does_not_apply, told
from recap.report_sections.environments import COMMIT, NOT_INSTALLED, UNKNOWN, places_of
from recap.report_sections.grouped import named
from recap.report_sections.resources import resources_of
from recap.report_sections.runs import Kind, ReportedRun
from recap.reporting.time_left import duration_text
from recap.scoring.summary import spread_text

Runs = Sequence[ReportedRun]

MOST_FIGURES = 6
"""Runs of a task whose figure is given; of more, only the lowest and the highest."""

_KINDS: Mapping[Kind, str] = {
    "trained": "Run by recap.train",
    "prompted": "Prompted as it is",
    "baseline": "Baseline",
}
_SOFTWARE = ("python", "torch", "lightning", "transformers", "peft")
_METRICS = (
    "Macro-F1, macro precision, macro recall, accuracy, the share of unreadable answers, the loss "
    "in nats a token, and precision, recall, F1 and support of every label."
)


def _prompted_or_tuned(runs: Runs) -> tuple[ReportedRun, ...]:
    return tuple(run for run in runs if run.kind != "baseline")


def _systems(runs: Runs) -> Answer | None:
    tasks = ", ".join(dict.fromkeys(run.task.name for run in runs))
    by_kind = {kind: [run.name for run in runs if run.kind == kind] for kind in _KINDS}
    told = " ".join(f"{_KINDS[k]}: {', '.join(names)}." for k, names in by_kind.items() if names)
    tuned = sum(systems.is_trained(run) for run in runs)
    return Answer(text=f"Systems on the task {tasks}, {tuned} of {len(runs)} tuned here. {told}")


def _comparison(runs: Runs) -> Answer | None:
    if len(runs) < 2:
        return None
    partitions = {run.manifest.get("partition_hash") for run in runs}
    over = "over the same folds" if len(partitions) == 1 else "over the same data, folds redrawn"
    said = _systems(runs)
    return said and Answer(text=f"Compared with one another {over}. {said.text}")


def _models(runs: Runs) -> Answer | None:
    backbones = [run.config.backbone for run in runs]
    pretrained = any(backbone.hub_id or backbone.path for backbone in backbones)
    closed = any(systems.is_remote(run) for run in runs)
    return answer_of(runs, systems.model, whole=not (pretrained or closed))


def _training(runs: Runs) -> Answer | None:
    return answer_of(runs, systems.tuning, systems.optimiser, systems.epochs) or _models(runs)


def _generation(runs: Runs) -> Answer | None:
    asked = _prompted_or_tuned(runs)
    if not asked:
        return does_not_apply("no system of these runs generates text")
    return answer_of(asked, systems.prompt, systems.shots, systems.decoding, systems.seeds)


def _outputs(runs: Runs) -> Answer | None:
    scored = [run for run in runs if run.has_probabilities]
    probable = f"Probabilities of all labels: {named(scored, among=runs)}." if scored else ""
    return answer_of(runs, _output_of, also=probable)


def _output_of(run: ReportedRun) -> str:
    if run.kind == "baseline":
        return "First the probabilities of all labels, then the likeliest label."
    return (
        "First the text of the answer, kept as it came; then the label that is read from it, under "
        "its canonical name, or none."
    )


def _decisions(runs: Runs) -> Answer | None:
    return answer_of(runs, systems.decoding, _probability_of)


def _probability_of(run: ReportedRun) -> str | None:
    if run.kind == "baseline":
        return "The likeliest label is decided for, without a threshold."
    if not run.has_probabilities:
        return "No probabilities are known; the label is the one that the text names."
    return (
        "Probabilities are those of each label's whole token sequence, made to add up to 1 over "
        "the labels; they are not calibrated."
    )


def _generated_text(runs: Runs) -> Answer | None:
    asked = _prompted_or_tuned(runs)
    if not asked:
        return does_not_apply("no system of these runs generates text")
    shares = [100 * systems.unreadable_share(run) for run in asked]
    with_reasons = [run for run in asked if run.config.rationale]
    reasons = (
        f" Rationales, kept beside each label: {named(with_reasons, among=runs)}."
        if with_reasons
        else " No rationale is asked for."
    )
    low, high = f"{min(shares):.2f} %", f"{max(shares):.2f} %"
    share = low if low == high else f"{low} to {high}"
    return Answer(
        text=f"{share} of the answers have no readable label.{reasons}", whole=not with_reasons
    )


def _outcome(runs: Runs) -> Answer | None:
    also = (
        "The outcome is the label of the data set, the prediction the label that is read from a "
        "system's answer; an unreadable answer is wrong."
    )
    closed = any(systems.is_remote(run) for run in runs)
    return answer_of(runs, systems.decoding, systems.scoring, also=also, whole=not closed)


def _prompts(runs: Runs) -> Answer | None:
    asked = _prompted_or_tuned(runs)
    if not asked:
        return does_not_apply("no system of these runs is prompted")
    return answer_of(asked, systems.prompt, systems.prompt_hash)


def _prompt_data(runs: Runs) -> Answer | None:
    asked = [run for run in runs if run.kind == "prompted"]
    if not asked:
        return does_not_apply("no model is prompted as it is")
    return answer_of(asked, systems.shots)


def _no_summaries(runs: Runs) -> Answer | None:
    return does_not_apply("the task is classification")


def _instruction_tuning(runs: Runs) -> Answer | None:
    tuned = [run for run in runs if run.kind == "trained" and systems.is_trained(run)]
    if not tuned:
        return does_not_apply("no language model is tuned")
    also = "Scored by the labels of the data alone, as the metrics say."
    return answer_of(tuned, systems.tuning, systems.prompt, also=also)


def _compute(runs: Runs) -> Answer | None:
    used = [resources_of(run) for run in runs]
    trained = [one.train_seconds for one in used if one.train_seconds is not None]
    tested = [one.test_seconds for one in used if one.test_seconds is not None]
    if not trained and not tested:
        return None
    devices = ", ".join(dict.fromkeys(one.device for one in used if one.device))
    usages = [one.usage for one in used if one.usage is not None]
    costs = [one.cost for one in used if one.cost is not None]
    asked = (
        f" Prompted runs used {sum(u.input_tokens for u in usages)} tokens of prompts and "
        f"{sum(u.output_tokens for u in usages)} of answers"
        f"{f', at a cost of {sum(costs):.4f}' if costs else ''}."
        if usages
        else ""
    )
    return Answer(
        text=f"All finished folds of {len(runs)} runs: training {duration_text(sum(trained))}, "
        f"testing {duration_text(sum(tested))}, on {devices or 'devices not recorded'}.{asked}"
    )


def _code_version(runs: Runs) -> Answer | None:
    commits = places_of(runs).get(COMMIT, {})
    known = {commit: where for commit, where in commits.items() if commit != UNKNOWN}
    if not known:
        return None
    listed = "; ".join(
        commit if len(commits) == 1 else f"{commit} ({where})" for commit, where in known.items()
    )
    return Answer(text=f"recap at the commit {listed}.")


def _infrastructure(runs: Runs) -> Answer | None:
    places = places_of(runs)
    software = [
        f"{name} {' or '.join(values)}"
        for name, values in places.items()
        if name in _SOFTWARE and NOT_INSTALLED not in values
    ]
    platforms = " or ".join(places.get("platform", {UNKNOWN: ""}))
    return answer_of(
        runs, _device_of, also=f"{platforms}; {', '.join(software) or 'versions not recorded'}."
    )


def _device_of(run: ReportedRun) -> str:
    return f"Device {run.manifest.get('device', UNKNOWN)}."


def _reproduction(runs: Runs) -> Answer | None:
    commands = dict.fromkeys(
        {"trained": "recap.train", "prompted": "recap.prompt", "baseline": "recap.evaluate"}[
            run.kind
        ]
        for run in runs
    )
    return Answer(
        text=f"Made by {', '.join(commands)} with the options of each run's config.yaml; the same "
        "options, data and seed give the same folds and prompts."
    )


def _hyperparameters(runs: Runs) -> Answer | None:
    also = (
        "All options were fixed before each run and stand in its config.yaml; a run searches "
        "none, but for the epoch and a learning rate where it says so."
    )
    return answer_of(runs, systems.optimiser, also=also)


def _model_details(runs: Runs) -> Answer | None:
    return answer_of(runs, systems.model, systems.tuning, systems.prompt)


def _inputs(runs: Runs) -> Answer | None:
    also = (
        "No system sees labels, ids, sessions or other columns of an example that it is tested on, "
        "nor turns after the response."
    )
    return answer_of(runs, _input_of, also=also)


def _input_of(run: ReportedRun) -> str:
    return f"A system reads {systems.shown_history(run)}."


def _metrics(runs: Runs) -> Answer | None:
    selects = any(systems.is_trained(run) for run in runs)
    chosen = "The epoch is selected by the loss on the selection part." if selects else ""
    return Answer(text=f"{_METRICS} {chosen}".rstrip())


def _performance(runs: Runs) -> Answer | None:
    parts = []
    for task in dict.fromkeys(run.task.name for run in runs):
        of_task = [run for run in runs if run.task.name == task]
        shown = sorted(of_task, key=lambda run: run.summary.metrics["macro_f1"].mean or 0.0)
        between = ", "
        if len(shown) > MOST_FIGURES:
            shown, between = [shown[0], shown[-1]], " to "
        figures = between.join(
            f"{spread_text(run.summary.metrics['macro_f1'])} ({run.name})" for run in shown
        )
        parts.append(f"{task}: {figures}")
    how = "Macro-F1 in percent, mean ± sample standard deviation over folds."
    return Answer(text=f"{how} {'; '.join(parts)}.")


SYSTEM_ANSWERS: Mapping[str, AnswerFunction] = {
    "code_version": _code_version,
    "comparison": _comparison,
    "compute": _compute,
    "decisions": _decisions,
    "generated_text": _generated_text,
    "generation": _generation,
    "hyperparameters": _hyperparameters,
    "infrastructure": _infrastructure,
    "inputs": _inputs,
    "instruction_tuning": _instruction_tuning,
    "metrics": _metrics,
    "model_details": _model_details,
    "models": _models,
    "no_summaries": _no_summaries,
    "outcome": _outcome,
    "outputs": _outputs,
    "performance": _performance,
    "prompt_data": _prompt_data,
    "prompts": _prompts,
    "reproduction": _reproduction,
    "systems": _systems,
    "training": _training,
    "uncertainty": told(systems.scoring),
}
"""Key of checklists.yaml to the function that answers it."""
