"""A run as it was written passes; any figure, line or label that was changed since is named."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import read_json, read_jsonl
from fake_servers import serving

from recap.errors import DataError, UserError, VerificationError
from recap.prompt.__main__ import main as prompt
from recap.report.verify import verify_run
from recap.runs.folder import RunFolder
from recap.train.__main__ import main as train

Path_ = tuple[str | int, ...]
Change = Callable[[Any], Any]


@pytest.fixture
def run(small_runs: Path, tmp_path: Path) -> RunFolder:
    """A copy of the trained run, to be changed."""
    shutil.copytree(small_runs / "trained", tmp_path / "trained")
    return RunFolder(path=tmp_path / "trained")


def numeric_leaves(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Yield the place of every number, and of every null that stands for one."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from numeric_leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from numeric_leaves(item, (*path, index))
    elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        yield path


def changed(value: Any, path: Path_, change: Change) -> str:
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = change(inner[path[-1]])
    return json.dumps(copy)


def a_little(number: float | None) -> float | None:
    """Return another number, as near as a billionth."""
    if isinstance(number, int):
        return number + 1
    return 1e-9 if number is None else (number * (1 + 1e-9) or 1e-9)


def error_of(run: RunFolder) -> str:
    with pytest.raises(VerificationError) as caught:
        verify_run(run)
    assert not isinstance(caught.value, UserError)
    assert caught.value.exit_code == 1
    return str(caught.value)


@pytest.mark.parametrize("name", ["trained", "words", "asked"])
def test_a_run_as_it_was_written_passes(name: str, small_runs: Path) -> None:
    folder = small_runs / name
    verified = verify_run(RunFolder(path=folder))
    lines = [
        line for k in (0, 1) for line in (folder / f"fold{k}/predictions.jsonl").open("rb") if line
    ]
    assert (verified.run, verified.folds, verified.predictions) == (name, (0, 1), len(lines))
    for file in ("fold0/scores.json", "fold1/scores.json", "summary.json"):
        n_numbers = len(list(numeric_leaves(read_json(folder / file))))
        assert verified.values[file] >= n_numbers > 20
    assert verified.values["summary.md"] > 10


@pytest.mark.parametrize("file", ["fold0/scores.json", "fold1/scores.json", "summary.json"])
@pytest.mark.parametrize("change", [a_little, lambda number: 0.5 if number is None else None])
def test_every_number_that_is_changed_is_named_with_its_file(
    file: str, change: Change, run: RunFolder
) -> None:
    path = run.path / file
    original = read_json(path)
    leaves = list(numeric_leaves(original))
    assert len(leaves) > 20
    for leaf in leaves:
        path.write_text(changed(original, leaf, change), encoding="utf-8")
        said = error_of(run)
        assert said.startswith(f"{path}: {'.'.join(map(str, leaf))}: recorded "), said
    path.write_text(json.dumps(original), encoding="utf-8")
    verify_run(run)


@pytest.mark.parametrize("name", ["words", "asked"])
def test_numbers_of_systems_without_training_are_verified_too(
    name: str, small_runs: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_runs / name, tmp_path / name)
    run = RunFolder(path=tmp_path / name)
    for file in (run.fold(1).scores, run.summary):
        original = read_json(file)
        for leaf in list(numeric_leaves(original)):
            file.write_text(changed(original, leaf, a_little), encoding="utf-8")
            assert error_of(run).startswith(f"{file}: {'.'.join(map(str, leaf))}: ")
        file.write_text(json.dumps(original), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda scores: scores["per_label"].pop("Resistance"), "per_label.Resistance"),
        (lambda scores: scores.pop("argmax_disagreement"), "argmax_disagreement"),
        (lambda scores: scores.update(bonus=1.0), "bonus"),
        (lambda scores: scores["labels"].reverse(), "labels.0"),
        (lambda scores: scores["confusion"].pop(), "confusion"),
        (lambda scores: scores.update(task="flat"), "task"),
        (lambda scores: scores["made_with"].update(data_hash="0"), "made_with.data_hash"),
        (lambda scores: scores.update(n=float(scores["n"])), "n"),
        (lambda scores: scores.update(metrics=None), "metrics"),
    ],
)
def test_keys_that_go_or_come_are_named(
    change: Callable[[dict[str, Any]], Any], key: str, run: RunFolder
) -> None:
    file = run.fold(0).scores
    scores = read_json(file)
    change(scores)
    file.write_text(json.dumps(scores), encoding="utf-8")
    assert error_of(run).startswith(f"{file}: {key}: ")


def test_a_loss_that_is_no_number_is_refused(run: RunFolder) -> None:
    for file in (run.fold(0).scores, run.manifest):
        text = file.read_text(encoding="utf-8")
        loss = repr(read_json(run.fold(0).scores)["metrics"]["loss"])
        file.write_text(text.replace(loss, "NaN"), encoding="utf-8")
        assert "metrics.loss" in error_of(run)
        file.write_text(text, encoding="utf-8")


def test_a_loss_that_was_changed_in_both_records_contradicts_the_history(run: RunFolder) -> None:
    loss = read_json(run.fold(0).scores)["metrics"]["loss"]
    for file in (run.fold(0).scores, run.manifest):
        text = file.read_text(encoding="utf-8")
        assert repr(loss) in text
        file.write_text(text.replace(repr(loss), repr(loss * 1.001)), encoding="utf-8")
    assert "the selection loss of history.csv" in error_of(run)


def predictions_of(run: RunFolder, fold: int = 0) -> list[dict[str, Any]]:
    return read_jsonl(run.fold(fold).predictions)


def write_predictions(run: RunFolder, rows: list[dict[str, Any]], fold: int = 0) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    run.fold(fold).predictions.write_text(text, encoding="utf-8")


def test_a_deleted_line_is_noticed(run: RunFolder) -> None:
    write_predictions(run, predictions_of(run)[1:])
    said = error_of(run)
    assert re.search(r"fold0/scores\.json: [\w. ]+: recorded \d+, recomputed \d+", said), said


def test_a_duplicated_line_is_noticed(run: RunFolder) -> None:
    rows = predictions_of(run)
    write_predictions(run, [*rows, rows[0]])
    assert f"{run.fold(0).scores}: n: recorded {len(rows)}, recomputed {len(rows) + 1}" in error_of(
        run
    )


def other_label(row: dict[str, Any]) -> dict[str, Any]:
    """Change label and text, so that the row is one that might have been."""
    label = next(name for name in row["probabilities"] if name != row["label"])
    return {**row, "label": label, "parsed": True, "text": f"Behavior: {label}", "rationale": None}


@pytest.mark.parametrize("whole", [False, True])
def test_an_altered_label_is_noticed(whole: bool, run: RunFolder) -> None:
    rows = predictions_of(run)
    altered = other_label(rows[3])
    if not whole:
        altered = {**rows[3], "label": altered["label"], "parsed": True}
    write_predictions(run, [*rows[:3], altered, *rows[4:]])
    said = error_of(run)
    wanted = f"{run.fold(0).scores}: " if whole else f"{run.fold(0).predictions}:4: id '"
    assert wanted in said
    assert whole or "label: another one than its text gives" in said


ROW_FAULTS: dict[str, tuple[Change, str]] = {
    "fold": (lambda row: {**row, "fold": 1}, "fold: 1 in the folder of fold 0"),
    "task": (lambda row: {**row, "task": "flat"}, "task: another one"),
    "gold": (lambda row: {**row, "gold": "Blaming"}, "gold: no label of task 'binary'"),
    "label": (lambda row: {**row, "label": "Blaming"}, "label: no label of task 'binary'"),
    "parsed": (lambda row: {**row, "parsed": not row["parsed"]}, "parsed: "),
    "one probability": (
        lambda row: {**row, "probabilities": {"Resistance": 1.0}},
        "probabilities: not those of the task's labels",
    ),
    "sum": (
        lambda row: {**row, "probabilities": {"Resistance": 0.7, "Collaboration": 0.31}},
        "probabilities: add up to 1.01",
    ),
    "negative": (
        lambda row: {**row, "probabilities": {"Resistance": 1.5, "Collaboration": -0.5}},
        "probabilities: not all between 0 and 1",
    ),
    "rationale": (lambda row: {**row, "rationale": "Because."}, "rationale: "),
}


@pytest.mark.parametrize("fault", ROW_FAULTS)
def test_a_prediction_that_cannot_be_is_named(fault: str, run: RunFolder) -> None:
    change, said = ROW_FAULTS[fault]
    rows = predictions_of(run)
    write_predictions(run, [rows[0], change(rows[1]), *rows[2:]])
    assert f"{run.fold(0).predictions}:2: id " in (found := error_of(run))
    assert said in found


def test_an_example_of_two_folds_is_named(run: RunFolder) -> None:
    rows, others = predictions_of(run, 0), predictions_of(run, 1)
    # The same gold and the same answer, so that the scores of fold 1 stay what they are.
    alike = [(i, row) for i, row in enumerate(others) for one in rows if same(row, one)]
    place, row = alike[0]
    twin = next(one for one in rows if same(row, one))
    write_predictions(run, [*others[:place], {**twin, "fold": 1}, *others[place + 1 :]], 1)
    assert f"id '{twin['id']}': id: stands in fold 0 already" in error_of(run)


def same(row: dict[str, Any], other: dict[str, Any]) -> bool:
    def disagrees(one: dict[str, Any]) -> bool:
        found = one["probabilities"]
        return one["label"] is None or found[one["label"]] != max(found.values())

    return (row["gold"], row["label"], disagrees(row)) == (
        other["gold"],
        other["label"],
        disagrees(other),
    )


def test_predictions_that_are_fewer_than_the_examples_are_noticed(run: RunFolder) -> None:
    data = read_json(run.data)
    run.data.write_text(json.dumps({**data, "selected_by_task": data["selected_by_task"] + 1}))
    assert "selected_by_task" in error_of(run)


def test_a_shot_that_is_tested_is_named(small_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(small_runs / "asked", tmp_path / "asked")
    run = RunFolder(path=tmp_path / "asked")
    tested = predictions_of(run)[2]["id"]
    run.update_manifest(folds={"fold0": {"shots": [tested]}})
    assert f"predictions.jsonl:3: id '{tested}': is tested, and stands solved" in error_of(run)


def test_a_changed_summary_page_is_named_with_its_line_and_cell(run: RunFolder) -> None:
    page = run.summary_table.read_text(encoding="utf-8")
    lines = page.split("\n")
    number = next(i for i, line in enumerate(lines) if line.startswith("| Accuracy"))
    changes = [("| Accuracy | ", "| Accuracy | 1", 2), ("Accuracy", "Macro-F1", 1)]
    for old, new, cell in changes:
        changed = [*lines[:number], lines[number].replace(old, new), *lines[number + 1 :]]
        run.summary_table.write_text("\n".join(changed), encoding="utf-8")
        assert f"{run.summary_table}: line {number + 1}, cell {cell}: " in error_of(run)
    run.summary_table.write_text(page.replace("ddof = 1", "ddof = 0"), encoding="utf-8")
    assert f"{run.summary_table}: line 3: recorded " in error_of(run)
    run.summary_table.write_text(page + "More.\n", encoding="utf-8")
    assert f"{run.summary_table}: " in error_of(run)


IN_EARLIER_WORDS = {
    "an unparsed answer counts as wrong": "an unreadable answer counts as wrong",
    "| Unparsed answers |": "| Invalid answers |",
}
"""What summary.md says now, and what it said before the titles were changed."""


def test_a_summary_page_in_earlier_words_passes_until_a_figure_is_changed(run: RunFolder) -> None:
    page = run.summary_table.read_text(encoding="utf-8")
    for now, then in IN_EARLIER_WORDS.items():
        assert now in page
        page = page.replace(now, then)
    run.summary_table.write_text(page, encoding="utf-8")
    assert verify_run(run).values["summary.md"] > 10
    row = next(line for line in page.split("\n") if line.startswith("| Invalid answers |"))
    cells = row.split(" | ")
    assert re.fullmatch(r"\d+\.\d\d", cells[-2])
    other = " | ".join([*cells[:-2], f"{float(cells[-2]) + 0.01:.2f}", cells[-1]])
    run.summary_table.write_text(page.replace(row, other), encoding="utf-8")
    number = page.split("\n").index(row) + 1
    said = error_of(run)
    assert f"{run.summary_table}: line {number}, cell {len(cells) - 1}: recorded " in said
    assert f"recomputed '{cells[-2]}'" in said


@pytest.mark.parametrize("name", ["summary.json", "summary.md", "manifest.json", "data.json"])
def test_a_missing_file_is_named(name: str, run: RunFolder) -> None:
    (run.path / name).unlink()
    assert f"{run.path / name}: is missing" in error_of(run)


def test_a_file_that_is_cut_off_is_named(run: RunFolder) -> None:
    for file in (run.summary, run.fold(1).scores, run.fold(0).predictions):
        text = file.read_text(encoding="utf-8")
        # Within a line: whole lines less would be another file, but a sound one.
        file.write_text(text[: len(text) // 2 + 1].rstrip()[:-1], encoding="utf-8")
        assert str(file) in error_of(run)
        file.write_text(text, encoding="utf-8")


def test_a_run_without_a_finished_fold_is_the_users_to_mend(run: RunFolder) -> None:
    for k in (0, 1):
        run.fold(k).scores.unlink()
    with pytest.raises(DataError, match="no finished fold"):
        verify_run(run)


def test_a_partial_run_is_verified_as_far_as_it_goes(run: RunFolder) -> None:
    run.fold(1).scores.unlink()
    # The summary still holds both folds.
    assert f"{run.summary}: folds: recorded 2 entries, recomputed 1 entries" in error_of(run)


@pytest.mark.parametrize("decoding", ["constrained", "scored"])
def test_answers_that_were_decided_otherwise_are_verified_too(
    decoding: str, tmp_path: Path
) -> None:
    options = ["experiment=smoke", "cv.max_examples=40", "cv.protocol=nested", "logger=none"]
    options += [f"decoding={decoding}", "decoding.max_new_tokens=8", "finetune=lora", "run=it"]
    assert train([*options, "task=binary", f"runs_dir={tmp_path}"]) == 0
    run = RunFolder(path=tmp_path / "it")
    assert verify_run(run).folds == (0, 1)
    rows = predictions_of(run)
    label = other_label(rows[0])["label"]
    write_predictions(run, [{**rows[0], "label": label}, *rows[1:]])
    assert "label: another one than its text begins with" in error_of(run)


def test_a_servers_refusal_and_answers_in_other_words_are_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    said = "I would say: resistance.\nReason: a no."
    with serving(script=["refusal"], answer=lambda request: said) as server:
        options = ["experiment=smoke", "task=binary", "logger=none", "run=it", "client=openai"]
        options += ["client.model=m", f"client.base_url={server.url}/v1", "shots=1"]
        assert prompt([*options, f"runs_dir={tmp_path}", "rationale=false"]) == 0
    run = RunFolder(path=tmp_path / "it")
    assert verify_run(run).folds == (0, 1)
    rows = [*predictions_of(run, 0), *predictions_of(run, 1)]
    assert {row["label"] for row in rows} == {"Resistance", None}
