"""What was done with the models, in sentences: tuning, prompts, decoding, scoring."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from recap.report_sections.resources import finished_entries
from recap.report_sections.runs import ReportedRun

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
