"""Answers to items about data, folds and what folds share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recap.report_sections import data_statements as data
from recap.report_sections import system_statements as systems
from recap.report_sections.answer import Answer, AnswerFunction, answer_of, told
from recap.report_sections.runs import ReportedRun

Runs = Sequence[ReportedRun]

_HELD_OUT = (
    "Folds are drawn before anything is learned; weights, vocabularies and solved examples in "
    "prompts come from the training part of each fold."
)
_FOUND_RATE = (
    "A learning rate that was looked for comes from the training part of the first fold, whose "
    "examples other folds test."
)


def _distribution(runs: Runs) -> Answer | None:
    return answer_of(runs, data.rows, data.support)


def _preparation(runs: Runs) -> Answer | None:
    return answer_of(runs, data.rows, data.left_out, data.turns, data.duplicates, systems.shortened)


def _missing_data(runs: Runs) -> Answer | None:
    return answer_of(runs, data.left_out, systems.classes)


def _flow(runs: Runs) -> Answer | None:
    return answer_of(runs, data.rows, data.left_out, _split_sizes_of, data.support)


def _split_sizes_of(run: ReportedRun) -> str | None:
    """Return the examples in every part of every fold, all tasks together."""
    sizes = data.fold_sizes(run)
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
    return f"{n} tested examples of {len(sessions)} sessions. {data.support(run)}"


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
    rows = data.rows(run)
    if rows is None:
        return None
    done = {
        "fail": "A row at fault stops the run, after all of them were listed",
        "skip": "Rows at fault are left out, each listed with its reason",
    }[run.config.data.on_error]
    return f"{done} (data.on_error={run.config.data.on_error}). {rows}"


def _evaluation(runs: Runs) -> Answer | None:
    return answer_of(runs, data.folds, _split_sizes_of, data.support)


def _dependencies(runs: Runs) -> Answer | None:
    return answer_of(runs, data.duplicates, _grouping_of, data.shared)


def _grouping_of(run: ReportedRun) -> str:
    group = run.config.cv.group
    if group is None:
        return "Utterances of one session may lie in several folds (cv.group=null)."
    return f"All examples of one {group} lie in one fold (cv.group={group})."


def _held_out(runs: Runs) -> Answer | None:
    found = any(run.config.optimizer.find_learning_rate for run in runs)
    return answer_of(
        runs, data.selection, also=f"{_HELD_OUT} {_FOUND_RATE if found else ''}".rstrip()
    )


def _data_identity(runs: Runs) -> Answer | None:
    made_here = all(run.config.data.reader == "demo" for run in runs)
    also = "The corpus comes with recap and is made by data=demo." if made_here else ""
    return answer_of(runs, data.data_source, also=also, whole=made_here)


def _categories_of(run: ReportedRun) -> str:
    taxonomy = run.task.taxonomy
    n = len(taxonomy.categories)
    defined = sum(bool(category.definition) for category in taxonomy.categories)
    shown = sum(bool(category.example) for category in taxonomy.categories)
    return (
        f"Labels are categories of the taxonomy {taxonomy.name}: {n} categories, {defined} with a "
        f"definition, {shown} with an example."
    )


def _outcome_distribution(runs: Runs) -> Answer | None:
    return answer_of(runs, _categories_of, data.support)


DATA_ANSWERS: Mapping[str, AnswerFunction] = {
    "categories": told(_categories_of),
    "corrupt": told(_corrupt_of),
    "data_identity": _data_identity,
    "data_source": told(data.data_source),
    "dependencies": _dependencies,
    "distribution": _distribution,
    "evaluation": _evaluation,
    "events": told(_events_of),
    "flow": _flow,
    "held_out": _held_out,
    "left_out": told(data.left_out),
    "missing_data": _missing_data,
    "missing_share": told(_missing_share_of),
    "outcome_distribution": _outcome_distribution,
    "preparation": _preparation,
    "selection": told(data.selection),
    "split_sizes": told(_split_sizes_of),
}
"""Key of checklists.yaml to the function that answers it."""
