"""Answers to items about data, folds and what folds share.

What was done with the data, in sentences: read, left out, dealt into folds, scored.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from recap.data.folds import SELECT_PARTS
from recap.report import system_card as systems
from recap.report.answer import AnswerFunction, ChecklistAnswer, answer_of, told
from recap.report.runs import ReportedRun, span
from recap.report.system_card import is_trained

MOST_LABELS = 20
"""Labels that are listed with their support; of more, only the rarest and the commonest."""

_FIELD = re.compile(r".*?:\d+: (?P<field>[\w .\[\]-]{1,40}): ")
_LANGUAGES = {"en": "English", "zh": "Chinese", "both": "English and Chinese"}
_SHARED = {
    "duplicates": "history and response (exact duplicates)",
    "near_duplicates": "nearly the same words (near duplicates)",
    "shared_sessions": "the session",
    "shared_clients": "the client",
    "history_overlap": "an utterance of the same session that stands in a history",
}


def data_source(run: ReportedRun) -> str:
    """Return which data set was read, and its hash."""
    data = run.config.data
    made_up = " (synthetic: made up by a program, and says nothing about real clients)"
    language = _LANGUAGES.get(data.language or "")
    return (
        f"{run.data.get('name', data.name)}{made_up if run.data.get('synthetic') else ''}, "
        f"read by the reader {data.reader}{f', in {language}' if language else ''}; "
        f"data hash {run.manifest.get('data_hash', 'not recorded')}."
    )


def rows(run: ReportedRun) -> str | None:
    """Return how many rows were read, and how many gave examples."""
    account = run.data
    if not account:
        return None
    rejected = account["rows_read"] - account["rows_accepted"]
    issues = Counter(_field(fault) for fault in account.get("faults", ()))
    fields = ", ".join(f"{name} {n}" for name, n in issues.most_common())
    why = f", by the field at fault: {fields}" if fields else ""
    return (
        f"{account['rows_read']} rows read, {account['rows_accepted']} accepted, {rejected} "
        f"rejected{why}; {account['examples']} examples, {account['selected_by_task']} of them "
        f"of the task {run.task.name}."
    )


def left_out(run: ReportedRun) -> str | None:
    """Return everything that was left out, merged or found twice."""
    if not run.data:
        return None
    return f"{'; '.join(run.data.get('notes', ())) or 'nothing'}."


def turns(run: ReportedRun) -> str:
    """Return how turns of a dialogue became examples."""
    data = run.config.data
    merged = "were merged into one" if data.merge_adjacent else "stayed apart"
    skipped = "made no example" if data.no_intervention == "skip" else "made examples as well"
    return (
        f"Turns of one speaker in a row {merged} (data.merge_adjacent); client turns that no "
        f"counsellor turn precedes {skipped} (data.no_intervention={data.no_intervention})."
    )


def duplicates(run: ReportedRun) -> str:
    """Return what happened to examples with the same history and response."""
    done = {
        "warn": "were counted and kept, all of them in one fold",
        "drop": "were dropped, but for the first of each",
        "error": "would have stopped the run",
    }[run.config.data.duplicates]
    counts = run.data.get("counts", {})
    found = f"{counts.get('duplicates', 0)} such examples" if counts else "their number is unknown"
    conflicts = counts.get("label_conflicts", 0)
    other = f", {conflicts} of them with another label than the first" if conflicts else ""
    return f"Examples that repeat the history and response of another {done}; {found}{other}."


def support(run: ReportedRun) -> str:
    """Return the labels and how often each is gold in the finished folds."""
    counts = {label: run.summary.per_label[label].support for label in run.summary.labels}
    if len(counts) > MOST_LABELS:
        ordered = sorted(counts, key=lambda label: counts[label])
        rare, common = ordered[0], ordered[-1]
        listed = f"{counts[rare]} ({rare}) to {counts[common]} ({common})"
    else:
        listed = ", ".join(f"{label} {n}" for label, n in counts.items())
    folds = ", ".join(map(str, run.scores))
    return f"Tested in folds {folds}, by the {len(counts)} labels of {run.task.name}: {listed}."


def folds(run: ReportedRun) -> str:
    """Return how the data were dealt into folds."""
    cv = run.config.cv
    group = f"Examples of one {cv.group} lie in one fold" if cv.group else "Nothing is grouped"
    drawn = (
        f" Of the data, {cv.max_examples} examples at most were drawn, about even over the finest "
        "labels."
        if cv.max_examples
        else ""
    )
    return (
        f"{cv.folds} folds, drawn once over all labelled examples, before any task selects its "
        f"own, stratified over the finest labels with the seed {cv.seed}. {group}, beyond examples "
        "with the same history and response, which are never in two folds. "
        f"{_sizes(run)}Partition hash {run.manifest.get('partition_hash', 'not recorded')}.{drawn}"
    )


def fold_sizes(run: ReportedRun) -> Mapping[str, tuple[int, ...]]:
    """Return the examples that each fold trains on, selects on and tests, all tasks together."""
    entries = run.leakage.get("folds", ())
    return {part: tuple(e[part] for e in entries) for part in ("train", "select", "test")}


def _sizes(run: ReportedRun) -> str:
    sizes = fold_sizes(run)
    if not sizes["test"]:
        return ""
    return f"A fold trains on {span(sizes['train'])} examples and tests {span(sizes['test'])}. "


def selection(run: ReportedRun) -> str:
    """Return what chose the model that is scored, and what that means for the figures."""
    if not is_trained(run):
        return "No checkpoint is selected, so tested examples do not help to choose the model."
    if run.config.cv.protocol == "paper":
        return (
            "cv.protocol=paper: of each training the epoch with the lowest loss on the held-out "
            "fold is kept and scored on that same fold, as in the paper (Section 5.2). The tested "
            "examples have helped to choose the model, so the figures tend to be too high; "
            "cv.protocol=nested measures by how much."
        )
    return (
        "cv.protocol=nested: the epoch is chosen by the loss on a part of the training folds, "
        f"about one in {SELECT_PARTS} examples, set aside with the same stratification and "
        "grouping. The tested fold plays no part before it is scored."
    )


def shared(run: ReportedRun) -> str | None:
    """Return what test examples share with the examples that shaped the model of their fold."""
    entries: Sequence[Mapping[str, Any]] = run.leakage.get("folds", ())
    if not entries:
        return None
    tested = sum(entry["test"] for entry in entries)
    parts = [
        f"{sum(_n_shared(entry[key]) for entry in entries)} {words}"
        for key, words in _SHARED.items()
        if all(key in entry for entry in entries)
    ]
    blind = run.leakage.get("without_session", 0)
    unknown = f"; {blind} have no session, so that theirs is not known" if blind else ""
    return (
        f"Of {tested} test examples of all folds, so many share with training examples: "
        f"{'; '.join(parts)}{unknown}."
    )


def _n_shared(found: Mapping[str, int]) -> int:
    return found.get("test_examples", found["count"])


def _field(fault: str) -> str:
    """Return the field of a row's fault (``file:line: field: reason``), never its reason."""
    match = _FIELD.match(fault)
    return match["field"] if match else "another"


Runs = Sequence[ReportedRun]

_HELD_OUT = (
    "Folds are drawn before anything is learned; weights, vocabularies and solved examples in "
    "prompts come from the training part of each fold."
)
_FOUND_RATE = (
    "A learning rate that was looked for comes from the training part of the first fold, whose "
    "examples other folds test."
)


def _distribution(runs: Runs) -> ChecklistAnswer | None:
    return answer_of(runs, rows, support)


def _preparation(runs: Runs) -> ChecklistAnswer | None:
    return answer_of(runs, rows, left_out, turns, duplicates, systems.shortened)


def _missing_data(runs: Runs) -> ChecklistAnswer | None:
    return answer_of(runs, left_out, systems.classes)


def _flow(runs: Runs) -> ChecklistAnswer | None:
    return answer_of(runs, rows, left_out, _split_sizes_of, support)


def _split_sizes_of(run: ReportedRun) -> str | None:
    """Return the examples in every part of every fold, all tasks together."""
    sizes = fold_sizes(run)
    parts = zip(sizes["train"], sizes["select"], sizes["test"], strict=True)
    listed = "; ".join(
        f"fold {k}: {train}, {select}, {test}" for k, (train, select, test) in enumerate(parts)
    )
    if not listed:
        return None
    same = " (under cv.protocol=paper selected and tested examples are the same)"
    shown = same if run.config.cv.protocol == "paper" else ""
    return f"Examples to train, select on and test{shown}: {listed}."


def _events_of(run: ReportedRun) -> str:
    sessions = {prediction.session for prediction in run.all_predictions} - {None}
    n = len(run.all_predictions)
    return f"{n} tested examples of {len(sessions)} sessions. {support(run)}"


def _missing_share_of(run: ReportedRun) -> str | None:
    if not run.data:
        return None
    read = run.data["rows_read"]
    rejected = read - run.data["rows_accepted"]
    counts = run.data.get("counts", {})
    of_turns = ""
    if counts.get("client_turns"):
        without = counts.get("unlabelled", 0)
        share = 100 * without / counts["client_turns"]
        of_turns = (
            f"; {without} of {counts['client_turns']} client turns ({share:.1f} %) have no label"
        )
    share = 100 * rejected / read if read else 0.0
    return (
        f"{rejected} of {read} rows ({share:.1f} %) could not be used{of_turns}; what has no label "
        "has no class to be split by."
    )


def _corrupt_of(run: ReportedRun) -> str | None:
    row_counts = rows(run)
    if row_counts is None:
        return None
    done = {
        "fail": "A row at fault stops the run, after all of them were listed",
        "skip": "Rows at fault are left out, each listed with its reason",
    }[run.config.data.on_error]
    return f"{done} (data.on_error={run.config.data.on_error}). {row_counts}"


def _evaluation(runs: Runs) -> ChecklistAnswer | None:
    return answer_of(runs, folds, _split_sizes_of, support)


def _dependencies(runs: Runs) -> ChecklistAnswer | None:
    return answer_of(runs, duplicates, _grouping_of, shared)


def _grouping_of(run: ReportedRun) -> str:
    group = run.config.cv.group
    if group is None:
        return "Utterances of one session may lie in several folds (cv.group=null)."
    return f"All examples of one {group} lie in one fold (cv.group={group})."


def _held_out(runs: Runs) -> ChecklistAnswer | None:
    found = any(run.config.optimizer.find_learning_rate for run in runs)
    return answer_of(runs, selection, also=f"{_HELD_OUT} {_FOUND_RATE if found else ''}".rstrip())


def _data_identity(runs: Runs) -> ChecklistAnswer | None:
    made_here = all(run.config.data.reader == "demo" for run in runs)
    also = "The corpus comes with recap and is made by data=demo." if made_here else ""
    return answer_of(runs, data_source, also=also, whole=made_here)


def _categories_of(run: ReportedRun) -> str:
    taxonomy = run.task.taxonomy
    n = len(taxonomy.categories)
    defined = sum(bool(category.definition) for category in taxonomy.categories)
    shown = sum(bool(category.example) for category in taxonomy.categories)
    return (
        f"Labels are categories of the taxonomy {taxonomy.name}: {n} categories, {defined} with a "
        f"definition, {shown} with an example."
    )


def _outcome_distribution(runs: Runs) -> ChecklistAnswer | None:
    return answer_of(runs, _categories_of, support)


DATA_ANSWERS: Mapping[str, AnswerFunction] = {
    "categories": told(_categories_of),
    "corrupt": told(_corrupt_of),
    "data_identity": _data_identity,
    "data_source": told(data_source),
    "dependencies": _dependencies,
    "distribution": _distribution,
    "evaluation": _evaluation,
    "events": told(_events_of),
    "flow": _flow,
    "held_out": _held_out,
    "left_out": told(left_out),
    "missing_data": _missing_data,
    "missing_share": told(_missing_share_of),
    "outcome_distribution": _outcome_distribution,
    "preparation": _preparation,
    "selection": told(selection),
    "split_sizes": told(_split_sizes_of),
}
"""Key of checklists.yaml to the function that answers it."""
