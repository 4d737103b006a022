"""The items of TRIPOD-LLM and REFORMS."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from recap.output.report import Report
from recap.output.templates import read_texts
from recap.prompt.__main__ import main as prompt
from recap.report.options import ReportConfig
from recap.report.runs import ReportedRun, read_runs
from recap.report.statements import OPEN, checklist_section, read_checklists
from tests.fake_servers import serving

OPTIONS = ReportConfig(runs=("runs",))

# Table 2 of the guideline: 19 main items.
TRIPOD_LLM_SUBITEMS = {
    3: "ab",
    5: "abcde",
    6: "abcde",
    7: "abcde",
    8: "abc",
    9: "ab",
    14: "abcdef",
    16: "abcd",
    19: "abcdefg",
}
# Table 1 of the paper: 32 items in eight modules.
REFORMS_ITEMS_OF_MODULES = [3, 5, 7, 3, 6, 3, 3, 2]


@pytest.fixture
def three(small_runs: Path) -> tuple[ReportedRun, ...]:
    """Return the runs asked (prompted), trained and words (TF-IDF)."""
    return read_runs([str(small_runs)])


def item(findings: Report, checklist: str, number: str) -> dict[str, str]:
    found: dict[str, str] = findings.figures[checklist]["items"][number]
    return found


def test_all_items_of_both_guidelines_are_there_under_their_numbers() -> None:
    tripod, reforms = read_checklists()
    assert [one.number for one in tripod.items] == [
        f"{main}{letter}" for main in range(1, 20) for letter in TRIPOD_LLM_SUBITEMS.get(main, [""])
    ]
    assert len(tripod.items) == 49
    assert [one.number for one in reforms.items] == [
        f"{module}{letter}"
        for module, n in enumerate(REFORMS_ITEMS_OF_MODULES, start=1)
        for letter in "abcdefg"[:n]
    ]
    assert len(reforms.items) == 32


def test_every_answer_has_its_template_and_every_template_its_item() -> None:
    asked = {one.answer for checklist in read_checklists() for one in checklist.items}
    assert asked - {None} == set(read_texts("report/statements.yaml")["answers"])


def test_an_item_without_an_answer_names_neither_evidence_nor_remainder() -> None:
    for checklist in read_checklists():
        for one in checklist.items:
            assert one.asks
            assert bool(one.evidence) == (one.answer is not None)
            assert not (one.remains and one.answer is None)


def test_the_evidence_is_where_the_checklist_says(small_runs: Path) -> None:
    folders = [small_runs / name for name in ("trained", "words", "asked")]
    n_checked = 0
    for checklist in read_checklists():
        for one in checklist.items:
            for place in filter(None, one.evidence.split("; ")):
                pattern, _, keys = place.partition(": ")
                files = [file for folder in folders for file in folder.glob(pattern)]
                assert files, place
                for key in filter(None, keys.split(", ")):
                    assert any(has(file, key.split(".")[0]) for file in files), place
                    n_checked += 1
    assert n_checked > 50


def has(file: Path, key: str) -> bool:
    """Whether a file has a top-level key, or one of its first line or of a figure's spread."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".jsonl":
        return key in json.loads(text.splitlines()[0])
    values = yaml.safe_load(text) if file.suffix == ".yaml" else json.loads(text)
    return key in values or key in values.get("metrics", {}).get("accuracy", {})


def test_filled_items_and_open_ones_add_up_to_all(three: tuple[ReportedRun, ...]) -> None:
    findings = checklist_section(three, OPTIONS)
    for key, n_items in (("tripod_llm", 49), ("reforms", 32)):
        figures = findings.figures[key]
        counted = Counter(one["status"] for one in figures["items"].values())
        assert figures["n_items"] == n_items
        assert figures["filled"] + figures["in_part"] + figures["open"] == n_items
        assert counted == {name: figures[name] for name in ("filled", "in_part", "open")}
    counts = {row[0]: row[1:] for row in findings.sheets[0].rows}
    tripod = findings.figures["tripod_llm"]
    assert counts["TRIPOD-LLM"] == tuple(str(tripod[k]) for k in ("filled", "in_part", "open"))


def test_what_no_run_can_tell_is_open(three: tuple[ReportedRun, ...]) -> None:
    findings = checklist_section(three, OPTIONS)
    for number in ("1", "3a", "5c", "8c", "13", "14a", "15", "19b"):
        assert item(findings, "tripod_llm", number)["status"] == "open"
    for number in ("1a", "3g", "8a"):
        assert item(findings, "reforms", number)["status"] == "open"
    [sheet] = [sheet for sheet in findings.sheets if sheet.title == "TRIPOD-LLM"]
    ethics = [row for row in sheet.rows if row[0].startswith("13 ")]
    assert [row[1] for row in ethics] == [OPEN]


def test_answers_are_the_figures_of_the_runs(three: tuple[ReportedRun, ...]) -> None:
    findings = checklist_section(three, OPTIONS)
    manifest = json.loads((three[0].folder.path / "manifest.json").read_text())
    performance = item(findings, "tripod_llm", "17")["answer"]
    for run in three:
        summary = json.loads((run.folder.path / "summary.json").read_text())
        macro_f1 = summary["metrics"]["macro_f1"]
        assert f"{100 * macro_f1['mean']:.2f} ± {100 * macro_f1['std']:.2f} ({run.name})" in (
            performance
        )
    assert manifest["git_commit"] in item(findings, "reforms", "2b")["answer"]
    assert manifest["versions"]["torch"] in item(findings, "reforms", "2c")["answer"]
    assert manifest["partition_hash"] in item(findings, "reforms", "5c")["answer"]
    # 976 of the demo dialogues' 3876 client turns carry no label (data.json).
    counts = json.loads((three[0].folder.path / "data.json").read_text())["counts"]
    share = 100 * counts["unlabelled"] / counts["client_turns"]
    assert f"({share:.1f} %) have no label" in item(findings, "reforms", "3f")["answer"]


def test_under_the_papers_protocol_the_leak_of_selection_is_admitted(
    three: tuple[ReportedRun, ...],
) -> None:
    answer = item(checklist_section(three, OPTIONS), "reforms", "6a")["answer"]
    assert "scored on that same fold" in answer


def test_a_rate_that_was_looked_for_on_one_fold_is_no_secret(
    three: tuple[ReportedRun, ...],
) -> None:
    [trained] = [run for run in three if run.name == "trained"]
    optimizer = replace(trained.config.optimizer, find_learning_rate=True)
    run = replace(trained, config=replace(trained.config, optimizer=optimizer))
    assert (
        "which other folds test"
        not in (item(checklist_section([trained], OPTIONS), "reforms", "6a")["answer"])
    )
    assert (
        "examples other folds test"
        in (item(checklist_section([run], OPTIONS), "reforms", "6a")["answer"])
    )


def test_what_gives_no_occasion_does_not_apply(small_runs: Path) -> None:
    findings = checklist_section(read_runs([str(small_runs / "words")]), OPTIONS)
    for number in ("6c", "7a", "9a", "9b", "10", "11"):
        found = item(findings, "tripod_llm", number)
        assert found["answer"].startswith("Does not apply: ")
        assert found["status"] == "filled"
        assert found["remains"] is None


def test_one_run_alone_is_compared_with_nothing(small_runs: Path) -> None:
    alone = checklist_section(read_runs([str(small_runs / "trained")]), OPTIONS)
    assert item(alone, "tripod_llm", "7e")["status"] == "open"
    assert item(alone, "reforms", "5f")["status"] == "open"


def test_a_run_of_a_recap_without_a_checkout_leaves_the_code_open(
    three: tuple[ReportedRun, ...],
) -> None:
    [words] = [run for run in three if run.name == "words"]
    folds = {
        name: {**entry, "environment": {**entry["environment"], "git_commit": None}}
        for name, entry in words.manifest["folds"].items()
    }
    run = replace(words, manifest={**words.manifest, "folds": folds})
    assert item(checklist_section([run], OPTIONS), "reforms", "2b")["status"] == "open"


def test_a_closed_model_leaves_the_date_of_asking_open(
    three: tuple[ReportedRun, ...], tmp_path: Path
) -> None:
    assert item(checklist_section(three, OPTIONS), "tripod_llm", "7c")["status"] == "filled"
    common = ["experiment=smoke", "task=binary", "logger=none", f"runs_dir={tmp_path}"]
    with serving() as server:
        asked = ["client=openai", "client.model=m", f"client.base_url={server.url}/v1"]
        assert prompt([*common, *asked, "run=far"]) == 0
    findings = checklist_section(read_runs([str(tmp_path / "far")]), OPTIONS)
    found = item(findings, "tripod_llm", "7c")
    assert (found["status"], found["remains"]) == (
        "in_part",
        "the dates on which the closed models were asked",
    )


def test_an_answer_that_was_given_is_not_repeated_on_the_page(
    three: tuple[ReportedRun, ...],
) -> None:
    findings = checklist_section(three, OPTIONS)
    [sheet] = [sheet for sheet in findings.sheets if sheet.title == "REFORMS"]
    [shown] = [row[1] for row in sheet.rows if row[0].startswith("2b ")]
    assert shown == (
        "As at TRIPOD-LLM 14f. [manifest.json: git_commit, versions] Open: a link or DOI of the "
        "code."
    )
    assert "recap at the commit" in item(findings, "reforms", "2b")["answer"]


def test_tables_have_few_columns(three: tuple[ReportedRun, ...]) -> None:
    for sheet in checklist_section(three, OPTIONS).sheets[1:]:
        assert len(sheet.header) == len(sheet.text_columns) == 2
