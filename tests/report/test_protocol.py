"""The statement of what was done."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from jinja2 import meta, nodes

from recap.evaluate.__main__ import main as evaluate
from recap.output.report import Report
from recap.output.templates import environment, read_texts
from recap.prompt.__main__ import main as prompt
from recap.report.options import ReportConfig
from recap.report.runs import ReportedRun, read_examples, read_run, read_runs
from recap.report.statements import all_facts, differing_options, protocol_section, run_facts
from recap.runs.folder import RunFolder
from tests.fake_servers import serving

OPTIONS = ReportConfig(runs=("runs",))


@pytest.fixture
def three(small_runs: Path) -> tuple[ReportedRun, ...]:
    """Return the runs asked (prompted), trained and words (TF-IDF)."""
    return read_runs([str(small_runs)])


def statements(findings: Report, part: str) -> dict[tuple[str, ...], str]:
    """Return what a part says, by the runs that it is said of."""
    return {
        tuple(found["runs"]): found["text"]
        for found in findings.figures["statements"]
        if found["part"] == part
    }


def only(findings: Report, part: str) -> str:
    """Return the one thing that a part says of all runs."""
    [text] = statements(findings, part).values()
    return text


def named_run(runs: Sequence[ReportedRun], name: str) -> ReportedRun:
    [run] = [run for run in runs if run.name == name]
    return run


def test_what_runs_have_in_common_is_said_once(three: tuple[ReportedRun, ...]) -> None:
    findings = protocol_section(three, OPTIONS)
    for part in ("Data", "Rows", "Turns", "Duplicates", "Labels and support", "Folds", "Figures"):
        assert list(statements(findings, part)) == [("asked", "trained", "words")]
    shown = dict(findings.sheets[0].rows)
    assert not shown["Folds"].startswith("asked")
    assert [row[1] for row in findings.sheets[0].rows if row[0] == "Tuning"] == [
        "asked: No weight is tuned: the model answers as it is.",
        (
            "trained: All weights are tuned; the loss is the cross-entropy over the tokens of the "
            "answer (label and rationale)."
        ),
    ]


def test_data_folds_and_hashes_are_those_of_the_run(three: tuple[ReportedRun, ...]) -> None:
    findings = protocol_section(three, OPTIONS)
    manifest = json.loads((three[0].folder.path / "manifest.json").read_text())
    assert manifest["data_hash"] in only(findings, "Data")
    assert "synthetic" in only(findings, "Data")
    # experiment=smoke draws 160 examples for 2 folds.
    assert "160 examples, 160 of them of the task binary" in only(findings, "Rows")
    assert "2 folds" in only(findings, "Folds")
    assert "trains on 80 examples and tests 80" in only(findings, "Folds")
    assert manifest["partition_hash"] in only(findings, "Folds")
    assert "ddof 1" in only(findings, "Figures")
    [first, *_] = three
    gold = [prediction.gold for prediction in first.all_predictions]
    for label in first.task.labels:
        assert f"{label} {gold.count(label)}" in only(findings, "Labels and support")


def test_shared_examples_are_counted_as_the_leakage_report_counts_them(
    three: tuple[ReportedRun, ...],
) -> None:
    leakage = json.loads((three[0].folder.path / "leakage.json").read_text())
    sessions = sum(fold["shared_sessions"]["test_examples"] for fold in leakage["folds"])
    overlap = sum(fold["history_overlap"]["count"] for fold in leakage["folds"])
    said = only(protocol_section(three, OPTIONS), "Shared with training")
    assert f"; {sessions} the session;" in said
    assert f"; {overlap} an utterance" in said


def test_the_model_statement_tells_tuned_prompted_and_baseline_apart(
    three: tuple[ReportedRun, ...],
) -> None:
    findings = protocol_section(three, OPTIONS)
    models = statements(findings, "Model")
    assert models[("asked", "trained")].startswith("tiny (qwen2), random weights of seed 0")
    assert models[("words",)].startswith("TF-IDF with multinomial logistic regression")
    assert list(statements(findings, "Optimizer")) == [("trained",)]
    assert "learning rate 0.0015" in statements(findings, "Optimizer")[("trained",)]
    assert list(statements(findings, "Solved examples")) == [("asked",)]
    assert list(statements(findings, "Decoding")) == [("asked", "trained")]


def test_the_protocol_says_whether_tested_examples_chose_the_model(
    three: tuple[ReportedRun, ...],
) -> None:
    trained = named_run(three, "trained")
    said = statements(protocol_section(three, OPTIONS), "Selection")
    assert "figures tend to be too high" in said[("trained",)]
    assert "No checkpoint is selected" in said[("asked", "words")]
    nested = replace(
        trained, config=replace(trained.config, cv=replace(trained.config.cv, protocol="nested"))
    )
    text = only(protocol_section([nested], OPTIONS), "Selection")
    assert "plays no part before it is scored" in text
    assert "too high" not in text


def test_adapters_are_described_by_rank_and_scale(three: tuple[ReportedRun, ...]) -> None:
    trained = named_run(three, "trained")
    lora = replace(trained.config.finetune, method="lora", rank=8, alpha=16.0)
    run = replace(trained, config=replace(trained.config, finetune=lora, rationale=False))
    text = only(protocol_section([run], OPTIONS), "Tuning")
    assert "rank 8, alpha 16" in text
    assert "(label alone)" in text


def test_an_option_differs_only_among_runs_in_which_it_plays_a_part(
    three: tuple[ReportedRun, ...],
) -> None:
    # A prompted system and TF-IDF have no learning rate, whatever their config.yaml says.
    words = named_run(three, "words")
    assert words.config.optimizer.learning_rate != 0.0015
    assert set(differing_options(three)) == {"system", "finetune.method"}


def test_options_that_differ_are_listed_with_the_runs_that_have_them(
    three: tuple[ReportedRun, ...],
) -> None:
    first = named_run(three, "trained")
    config = replace(first.config, optimizer=replace(first.config.optimizer, learning_rate=5e-7))
    moved = replace(config, data=replace(config.data, path="/somewhere/else.jsonl"))
    second = replace(first, config=moved, folder=RunFolder(path=Path("slow")))
    findings = protocol_section([first, second], replace(OPTIONS))
    assert findings.figures["differences"] == {
        "optimizer.learning_rate": {"trained": "0.0015", "slow": "5e-07"}
    }
    [sheet] = [sheet for sheet in findings.sheets if sheet.title == "Options that differ"]
    assert sheet.rows == (
        ("optimizer.learning_rate", "0.0015", "trained"),
        ("", "5e-07", "slow"),
    )


def test_a_long_value_that_differs_is_shown_by_its_hash(three: tuple[ReportedRun, ...]) -> None:
    first = named_run(three, "trained")
    task = replace(first.config.task, role={"en": "You are an experienced supervisor. " * 4})
    second = replace(
        first, config=replace(first.config, task=task), folder=RunFolder(path=Path("other"))
    )
    third = replace(
        first,
        config=replace(first.config, task=replace(task, role={"en": "A reader of dialogues."})),
        folder=RunFolder(path=Path("third")),
    )
    [values] = [
        values for name, values in differing_options([second, third]).items() if "role" in name
    ]
    assert re.fullmatch(r"sha256 [0-9a-f]{8}…", values["other"])
    assert values["third"] == "A reader of dialogues."


def test_seconds_are_added_up_over_the_finished_folds(small_runs: Path) -> None:
    manifest = json.loads((small_runs / "trained" / "manifest.json").read_text())
    entries = manifest["folds"].values()
    runs = read_runs([str(small_runs / "trained")])
    found = protocol_section(runs, OPTIONS).figures["runs"]["trained"]
    assert found["train_seconds"] == pytest.approx(sum(e["train_seconds"] for e in entries))
    assert found["test_seconds"] == pytest.approx(sum(e["test_seconds"] for e in entries))
    assert found["device"] == "cpu"
    # One epoch at most.
    assert found["selected_epochs"] == [1, 1]


def test_a_missing_fold_and_a_resumed_one_are_named(small_runs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_runs / "trained", tmp_path / "trained"))
    (folder / "fold1" / "scores.json").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["resumes"] = [{"fold": "fold0", "step": 7, "at": "train"}]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    findings = protocol_section([read_run(RunFolder(path=folder))], OPTIONS)
    assert only(findings, "Not finished").startswith("folds 1 are not finished")
    assert findings.figures["runs"]["trained"]["train_seconds"] == pytest.approx(
        manifest["folds"]["fold0"]["train_seconds"]
    )
    assert any("fold0 at step 7 (training)" in note for note in findings.notes)


def test_rows_at_fault_are_counted_by_field_without_their_reasons(
    three: tuple[ReportedRun, ...],
) -> None:
    words = named_run(three, "words")
    account = {
        **words.data,
        "rows_read": 3,
        "rows_accepted": 1,
        "faults": [
            "C:/notes: old/a.jsonl:2: label: a text of 143 characters is none, choose one",
            "a.jsonl:3: turns[0].text: is empty, fill it",
        ],
    }
    text = only(protocol_section([replace(words, data=account)], OPTIONS), "Rows")
    assert "2 rejected, by the field at fault: label 1, turns[0].text 1;" in text
    assert "143" not in text


def test_a_server_is_named_by_model_host_and_temperature(tmp_path: Path) -> None:
    common = ["experiment=smoke", "task=binary", "logger=none", f"runs_dir={tmp_path}"]
    with serving() as server:
        asked = ["client=openai", "client.model=some-model", f"client.base_url={server.url}/v1"]
        assert prompt([*common, *asked, "shots=1", "run=far"]) == 0
    findings = protocol_section(read_runs([str(tmp_path / "far")]), OPTIONS)
    assert only(findings, "Model") == ("some-model, asked at 127.0.0.1 through the API of openai.")
    assert "temperature 0 and top-p 1" in only(findings, "Decoding")
    # Two labels, so two shots.
    assert "One solved example of each label (2 a prompt)" in only(findings, "Solved examples")


def test_a_baseline_that_reads_more_differs_in_that_option(
    small_runs: Path, tmp_path: Path
) -> None:
    common = ["experiment=smoke", "task=binary", "logger=none", f"runs_dir={tmp_path}"]
    assert evaluate([*common, "method=tfidf", "tfidf.context=full", "run=wide"]) == 0
    runs = read_runs([str(small_runs / "words"), str(tmp_path / "wide")])
    assert differing_options(runs) == {"baseline.context": {"words": "response", "wide": "full"}}


def test_no_words_of_clients_stand_in_the_statement(three: tuple[ReportedRun, ...]) -> None:
    findings = protocol_section(three, OPTIONS)
    shown = json.dumps(findings.figures, ensure_ascii=False) + "".join(
        sheet.markdown() for sheet in findings.sheets
    )
    responses = {example.response for example in read_examples(three[0]).values()}
    assert any(len(response) > 20 for response in responses)
    assert not [response for response in responses if len(response) > 20 and response in shown]


def test_every_part_is_said_of_some_run(three: tuple[ReportedRun, ...]) -> None:
    said = {found["part"] for found in protocol_section(three, OPTIONS).figures["statements"]}
    assert set(read_texts("report/statements.yaml")["protocol"]) - said == {"Not finished"}


def test_every_statement_is_used_and_every_name_stands_for_one() -> None:
    found = read_texts("report/statements.yaml")
    used = set(found["protocol"].values())
    for text in (*found["statements"].values(), *found["answers"].values()):
        for names in re.findall(r"\b(?:each|statement)\(([^)]*)\)", text):
            used |= set(re.findall(r"'(\w+)'", names))
    assert used == set(found["statements"])


def test_templates_name_no_fact_that_there_is_not(three: tuple[ReportedRun, ...]) -> None:
    found = read_texts("report/statements.yaml")
    of_run = {*run_facts(three[0]), "statement", "words"}
    of_all = {*all_facts(three), "each", "answer", "words"}
    remains = [
        item["remains"]
        for c in read_texts("report/checklists.yaml")
        for item in c["items"]
        if "remains" in item
    ]
    texts = [(text, of_run) for text in found["statements"].values()]
    texts += [(text, of_all) for text in (*found["answers"].values(), *remains)]
    assert len(texts) > 80
    for text, facts in texts:
        tree = environment("text").parse(text)
        own = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}
        assert meta.find_undeclared_variables(tree) <= facts | own, text
