"""Answers to items about models, prompts, figures and what they took.

What was done with the models, in sentences: tuning, prompts, decoding, scoring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from recap.folds.console import duration_text
from recap.metrics.scores import spread_text
from recap.report.answer import AnswerFunction, ChecklistAnswer, answer_of, does_not_apply, told
from recap.report.manifest import (
    COMMIT,
    NOT_INSTALLED,
    UNKNOWN,
    finished_entries,
    places_of,
    resources_of,
)
from recap.report.runs import ReportedRun, RunKind, named

_STYLES = {
    "full": "role, task, the categories with their definitions, output format",
    "brief": "task, names of the labels, output format",
}
_HISTORIES = {
    "none": "the response alone",
    "intervention": "the response and the counsellor's words since the client's last turn",
    "full": "the response and the whole dialogue before it",
}
_LANGUAGES = {"en": "English", "zh": "Chinese"}
_LAYOUTS = {"format_last": "after the dialogue", "format_first": "before the dialogue"}
_DECODINGS = {
    "free": "greedy text, from which the parser reads the label",
    "constrained": "greedy text, of which only the tokens of a label may come first",
    "scored": "the label whose whole token sequence is the likeliest",
}


def is_trained(run: ReportedRun) -> bool:
    """Whether a run's folds are trained with epochs, of which one is selected."""
    return run.kind != "prompted" and run.config.finetune.method != "none"


def is_remote(run: ReportedRun) -> bool:
    """Whether a server answers."""
    return bool(run.prompted) and run.prompted["client"]["name"] != "local"


def model(run: ReportedRun) -> str:
    """Return which model answers."""
    if is_remote(run):
        client = run.prompted["client"]
        url = client.get("base_url")
        host = urlsplit(url).hostname if url else "the company's own server"
        return f"{client['model']}, asked at {host} through the API of {client['name']}."
    if run.kind == "baseline":
        return _baseline(run)
    backbone = run.config.backbone
    weights = f"random weights of seed {run.config.seed}"
    if backbone.path:
        weights = f"weights of a local folder ({Path(backbone.path).name})"
    elif backbone.hub_id:
        weights = f"weights of the hub's {backbone.hub_id}"
    return f"{backbone.name} ({backbone.family}), {weights}, {backbone.dtype} in memory."


def _baseline(run: ReportedRun) -> str:
    options = dict(run.config.baseline or {})
    method = options.pop("method", run.config.backbone.name)
    told = ", ".join(f"{name} {_value(value)}" for name, value in sorted(options.items()))
    if method == "tfidf":
        return f"TF-IDF with multinomial logistic regression (scikit-learn): {told}."
    return f"an encoder with a classification head: {told}."


def _value(value: object) -> str:
    return Path(value).name if isinstance(value, str) and "/" in value else str(value)


def tuning(run: ReportedRun) -> str | None:
    """Return which weights are tuned, and on what; ``None`` for a baseline."""
    if run.kind == "baseline":
        return None
    if not is_trained(run):
        return "No weight is tuned: the model answers as it is."
    options = run.config.finetune
    weights = "All weights are tuned"
    if options.method in ("lora", "qlora"):
        base = "a backbone in 4 bits" if options.method == "qlora" else "the frozen backbone"
        layers = ", ".join(options.target_modules or ("the projections of the family",))
        weights = (
            f"Low-rank adapters over {base}: rank {options.rank}, alpha {options.alpha:g}, dropout "
            f"{options.dropout:g}, on {layers}"
        )
    answer = "label and rationale" if run.config.rationale else "label alone"
    return f"{weights}; the loss is the cross-entropy over the tokens of the answer ({answer})."


def optimiser(run: ReportedRun) -> str | None:
    """Return how the weights move; ``None`` where none does."""
    if not is_trained(run):
        return None
    options, schedule = run.config.optimizer, run.config.scheduler
    found = run.manifest.get("learning_rate")
    rate = f"{options.learning_rate:g}"
    if options.find_learning_rate and found:
        rate = f"{found['used']:.3g} (found by a range test on {found['found_on']})"
    clip = f"{options.gradient_clip:g}" if options.gradient_clip else "none"
    return (
        f"{options.name}: peak learning rate {rate}, weight decay {options.weight_decay:g}, betas "
        f"{options.betas[0]:g} and {options.betas[1]:g}, gradient norm at most {clip}; "
        f"{schedule.name} schedule after a warm-up of {100 * schedule.warmup_fraction:g} % of the "
        "steps."
    )


def epochs(run: ReportedRun) -> str | None:
    """Return how long a fold trains, and with what batches; ``None`` where none does."""
    if not is_trained(run):
        return None
    trainer = run.config.trainer
    return (
        f"Epochs: at most {trainer.max_epochs}, fewer when the selection loss has not fallen for "
        f"{trainer.patience}. {run.config.global_batch_size} examples an optimiser step; precision "
        f"{trainer.precision}. {classes(run)}"
    )


def classes(run: ReportedRun) -> str | None:
    """Return what is done about rare classes while training; ``None`` where none is trained."""
    if run.kind == "prompted":
        return None
    options = run.config.baseline or {}
    if options.get("method") == "tfidf":
        inversely = options.get("class_weight") == "balanced"
        return f"Classes weigh {'inversely to their frequency' if inversely else 'as they come'}."
    if run.config.sampling == "balanced":
        return "Each class is trained on equally often, by repeating examples of rare ones."
    return "Each training example is taken once an epoch, rare classes as rarely as they come."


def seeds(run: ReportedRun) -> str:
    """Return the seeds."""
    return f"Seed {run.config.cv.seed} draws the folds, seed {run.config.seed} everything else."


def prompt(run: ReportedRun) -> str | None:
    """Return what a model is shown; ``None`` for a baseline, which has no prompt."""
    if run.kind == "baseline":
        return None
    options = run.config.prompt
    holds = "a prompt file of the user's own" if options.file else _STYLES[options.style]
    limit = "of any length"
    if options.max_tokens is not None:
        limit = f"at most {options.max_tokens} tokens, for which the oldest turns give way"
    return (
        f"Prompts ({options.style}) hold {holds}, in {_LANGUAGES[run.task.language]}, with "
        f"{options.label_form} label names; they show {_HISTORIES[options.history]}; the format "
        f"stands {_LAYOUTS[options.layout]}; {limit}."
    )


def prompt_hash(run: ReportedRun) -> str | None:
    """Return the hash of all that a prompt says beside the dialogue; ``None`` for a baseline."""
    if run.kind == "baseline":
        return None
    return f"Hash {run.manifest.get('prompt_hash', 'not recorded')}."


def shortened(run: ReportedRun) -> str | None:
    """Return what the limit on prompts cost; ``None`` where nothing was recorded."""
    counts = _shortened(run)
    if not counts:
        return None
    over = counts.get("still_too_long", 0)
    too_long = f"; {over} are over the limit with nothing left to lose" if over else ""
    return (
        f"{counts.get('truncated_examples', 0)} examples lost {counts.get('dropped_turns', 0)} "
        f"turns to the limit{too_long}."
    )


def _shortened(run: ReportedRun) -> Mapping[str, int]:
    """Return the counts of shortened prompts, over all folds."""
    of_run: Mapping[str, int] | None = run.manifest.get("encoding")
    if of_run is not None:
        return of_run
    total: dict[str, int] = {}
    for entry in finished_entries(run).values():
        for name, n in entry.get("encoding", {}).items():
            total[name] = total.get(name, 0) + n
    return total


def decoding(run: ReportedRun) -> str | None:
    """Return how answers are read off the model; ``None`` for a baseline."""
    if run.kind == "baseline":
        return None
    options = run.config.decoding
    cut = (
        f"; {run.task.labels[0]} is decided for from a probability of {options.threshold:g}"
        if options.threshold is not None
        else ""
    )
    how = f"Decoding {options.name}: {_DECODINGS[options.name]}{cut}"
    if is_remote(run):
        client = run.prompted["client"]
        how = (
            f"Text of the server at temperature {_sent(client.get('temperature'))} and top-p "
            f"{_sent(client.get('top_p'))}, from which the parser reads the label"
        )
    answer = "label and rationale" if run.config.rationale else "label alone"
    return f"{how}; at most {options.max_new_tokens} tokens; asked for {answer}."


def _sent(value: float | None) -> str:
    return "left to the server" if value is None else f"{value:g}"


def shown_history(run: ReportedRun) -> str:
    """Return what a system reads of a dialogue."""
    options = run.config.baseline or {}
    history = options.get("context") or options.get("history") or run.config.prompt.history
    return _HISTORIES["none" if history == "response" else history]


def shots(run: ReportedRun) -> str | None:
    """Return the solved examples that prompts show; ``None`` where none could be."""
    if run.kind != "prompted":
        return None
    if not run.prompted.get("shots"):
        return "Zero-shot: prompts show no solved example."
    per_fold = [len(entry.get("shots", ())) for entry in finished_entries(run).values()]
    of_each = (
        "each label" if run.prompted["shot_categories"] == "labels" else "each finest category"
    )
    return (
        f"One solved example of {of_each} ({max(per_fold, default=0)} a prompt), drawn for each "
        "fold from its own training part; their ids stand in manifest.json."
    )


def counted_as_wrong(run: ReportedRun) -> str:
    """Return what counts as wrong."""
    return (
        "A label other than the gold one, and an answer without a readable label: that is a miss "
        "of its gold label and no false alarm of another."
    )


def scoring(run: ReportedRun) -> str:
    """Return how figures come about."""
    return (
        "Macro figures are plain means over the labels of a fold. Mean and sample standard "
        f"deviation (ddof {run.summary.ddof}) are those over the finished folds; one fold has no "
        "standard deviation."
    )


def unreadable_share(run: ReportedRun) -> float:
    """Return the share of answers without a readable label, 0 to 1."""
    predictions = run.all_predictions
    return sum(not prediction.parsed for prediction in predictions) / len(predictions)


def missing_folds(run: ReportedRun) -> str | None:
    """Return the folds that are not finished; ``None`` without any."""
    if not run.missing:
        return None
    return f"folds {', '.join(map(str, run.missing))} are not finished: all figures lack them."


Runs = Sequence[ReportedRun]

MOST_FIGURES = 6
"""Runs of a task whose figure is given; of more, only the lowest and the highest."""

_KINDS: Mapping[RunKind, str] = {
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


def _systems(runs: Runs) -> ChecklistAnswer | None:
    tasks = ", ".join(dict.fromkeys(run.task.name for run in runs))
    by_kind = {kind: [run.name for run in runs if run.kind == kind] for kind in _KINDS}
    told = " ".join(f"{_KINDS[k]}: {', '.join(names)}." for k, names in by_kind.items() if names)
    tuned = sum(is_trained(run) for run in runs)
    return ChecklistAnswer(
        text=f"Systems on the task {tasks}, {tuned} of {len(runs)} tuned here. {told}"
    )


def _comparison(runs: Runs) -> ChecklistAnswer | None:
    if len(runs) < 2:
        return None
    partitions = {run.manifest.get("partition_hash") for run in runs}
    over = "over the same folds" if len(partitions) == 1 else "over the same data, folds redrawn"
    said = _systems(runs)
    return said and ChecklistAnswer(text=f"Compared with one another {over}. {said.text}")


def _models(runs: Runs) -> ChecklistAnswer | None:
    backbones = [run.config.backbone for run in runs]
    pretrained = any(backbone.hub_id or backbone.path for backbone in backbones)
    closed = any(is_remote(run) for run in runs)
    return answer_of(runs, model, whole=not (pretrained or closed))


def _training(runs: Runs) -> ChecklistAnswer | None:
    return answer_of(runs, tuning, optimiser, epochs) or _models(runs)


def _generation(runs: Runs) -> ChecklistAnswer | None:
    asked = _prompted_or_tuned(runs)
    if not asked:
        return does_not_apply("no system of these runs generates text")
    return answer_of(asked, prompt, shots, decoding, seeds)


def _outputs(runs: Runs) -> ChecklistAnswer | None:
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


def _decisions(runs: Runs) -> ChecklistAnswer | None:
    return answer_of(runs, decoding, _probability_of)


def _probability_of(run: ReportedRun) -> str | None:
    if run.kind == "baseline":
        return "The likeliest label is decided for, without a threshold."
    if not run.has_probabilities:
        return "No probabilities are known; the label is the one that the text names."
    return (
        "Probabilities are those of each label's whole token sequence, made to add up to 1 over "
        "the labels; they are not calibrated."
    )


def _generated_text(runs: Runs) -> ChecklistAnswer | None:
    asked = _prompted_or_tuned(runs)
    if not asked:
        return does_not_apply("no system of these runs generates text")
    shares = [100 * unreadable_share(run) for run in asked]
    with_reasons = [run for run in asked if run.config.rationale]
    reasons = (
        f" Rationales, kept beside each label: {named(with_reasons, among=runs)}."
        if with_reasons
        else " No rationale is asked for."
    )
    low, high = f"{min(shares):.2f} %", f"{max(shares):.2f} %"
    share = low if low == high else f"{low} to {high}"
    return ChecklistAnswer(
        text=f"{share} of the answers have no readable label.{reasons}", whole=not with_reasons
    )


def _outcome(runs: Runs) -> ChecklistAnswer | None:
    also = (
        "The outcome is the label of the data set, the prediction the label that is read from a "
        "system's answer; an unreadable answer is wrong."
    )
    closed = any(is_remote(run) for run in runs)
    return answer_of(runs, decoding, scoring, also=also, whole=not closed)


def _prompts(runs: Runs) -> ChecklistAnswer | None:
    asked = _prompted_or_tuned(runs)
    if not asked:
        return does_not_apply("no system of these runs is prompted")
    return answer_of(asked, prompt, prompt_hash)


def _prompt_data(runs: Runs) -> ChecklistAnswer | None:
    asked = [run for run in runs if run.kind == "prompted"]
    if not asked:
        return does_not_apply("no model is prompted as it is")
    return answer_of(asked, shots)


def _no_summaries(runs: Runs) -> ChecklistAnswer | None:
    return does_not_apply("the task is classification")


def _instruction_tuning(runs: Runs) -> ChecklistAnswer | None:
    tuned = [run for run in runs if run.kind == "trained" and is_trained(run)]
    if not tuned:
        return does_not_apply("no language model is tuned")
    also = "Scored by the labels of the data alone, as the metrics say."
    return answer_of(tuned, tuning, prompt, also=also)


def _compute(runs: Runs) -> ChecklistAnswer | None:
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
    return ChecklistAnswer(
        text=f"All finished folds of {len(runs)} runs: training {duration_text(sum(trained))}, "
        f"testing {duration_text(sum(tested))}, on {devices or 'devices not recorded'}.{asked}"
    )


def _code_version(runs: Runs) -> ChecklistAnswer | None:
    commits = places_of(runs).get(COMMIT, {})
    known = {commit: where for commit, where in commits.items() if commit != UNKNOWN}
    if not known:
        return None
    listed = "; ".join(
        commit if len(commits) == 1 else f"{commit} ({where})" for commit, where in known.items()
    )
    return ChecklistAnswer(text=f"recap at the commit {listed}.")


def _infrastructure(runs: Runs) -> ChecklistAnswer | None:
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


def _reproduction(runs: Runs) -> ChecklistAnswer | None:
    commands = dict.fromkeys(
        {"trained": "recap.train", "prompted": "recap.prompt", "baseline": "recap.evaluate"}[
            run.kind
        ]
        for run in runs
    )
    return ChecklistAnswer(
        text=f"Made by {', '.join(commands)} with the options of each run's config.yaml; the same "
        "options, data and seed give the same folds and prompts."
    )


def _hyperparameters(runs: Runs) -> ChecklistAnswer | None:
    also = (
        "All options were fixed before each run and stand in its config.yaml; a run searches "
        "none, but for the epoch and a learning rate where it says so."
    )
    return answer_of(runs, optimiser, also=also)


def _model_details(runs: Runs) -> ChecklistAnswer | None:
    return answer_of(runs, model, tuning, prompt)


def _inputs(runs: Runs) -> ChecklistAnswer | None:
    also = (
        "No system sees labels, ids, sessions or other columns of an example that it is tested on, "
        "nor turns after the response."
    )
    return answer_of(runs, _input_of, also=also)


def _input_of(run: ReportedRun) -> str:
    return f"A system reads {shown_history(run)}."


def _metrics(runs: Runs) -> ChecklistAnswer | None:
    selects = any(is_trained(run) for run in runs)
    chosen = "The epoch is selected by the loss on the selection part." if selects else ""
    return ChecklistAnswer(text=f"{_METRICS} {chosen}".rstrip())


def _performance(runs: Runs) -> ChecklistAnswer | None:
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
    return ChecklistAnswer(text=f"{how} {'; '.join(parts)}.")


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
    "uncertainty": told(scoring),
}
"""Key of checklists.yaml to the function that answers it."""
