"""What a report says of rationales, over answers that are known by heart."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from recap.corpus.__main__ import main as corpus
from recap.output.report import write_report
from recap.report.options import ReportConfig, ReportPrivacy
from recap.report.rationales import rationale_section
from recap.report.runs import ReportedRun, read_examples, read_run
from recap.runs.folder import RunFolder

OPTIONS = ReportConfig(runs=("x",))
WITH_TEXT = ReportConfig(runs=("x",), privacy=ReportPrivacy(include_text=True))


@pytest.fixture(scope="module")
def run(small_runs: Path) -> ReportedRun:
    """The trained run, answering as its annotators did, each answer with a rationale of ours."""
    own = read_run(RunFolder(path=small_runs / "trained"))
    examples = read_examples(own)

    def answered(prediction, place):
        response = examples[prediction.id].response.split()
        quote = " ".join(response[:3])
        rationale = {
            0: f"{prediction.gold}: the client says “{quote}”.",
            1: f"The client says “{quote} {quote} {quote} nowhere”.",
            2: "Resistance and Collaboration.",
            3: examples[prediction.id].rationale,
        }[place % 4]
        return replace(prediction, label=prediction.gold, parsed=True, rationale=rationale)

    return replace(
        own,
        predictions={
            fold: tuple(answered(p, i) for i, p in enumerate(predictions))
            for fold, predictions in own.predictions.items()
        },
    )


@pytest.fixture(scope="module")
def findings(run):
    return rationale_section([run], OPTIONS)


def test_a_run_without_rationales_has_no_section(small_runs: Path) -> None:
    words = read_run(RunFolder(path=small_runs / "words"))
    assert rationale_section([words], OPTIONS) is None


def test_figures_are_those_of_the_planted_rationales(run, findings) -> None:
    places = [i % 4 for own in run.predictions.values() for i in range(len(own))]
    n = len(places)
    found = findings.figures["runs"]["trained"]
    assert (found["answers"], found["rationales"]) == (n, n)
    # Of the annotators' own words only "voices pessimism" spells a category.
    spelled = [p for p in run.all_predictions if "voices pessimism" in (p.rationale or "")]
    n_own = places.count(0) + places.count(2) + len(spelled)
    assert found["names"]["own_spelled"] == pytest.approx(n_own / n)
    assert found["names"]["another_spelled"] == pytest.approx(places.count(2) / n)
    assert set(found["names"]["another_ids"]) >= {
        p.id for own in run.predictions.values() for i, p in enumerate(own) if i % 4 == 2
    }
    assert found["names"]["gold_where_wrong"] is None
    grounding = found["grounding"]
    assert grounding["quotes"] == places.count(0) + places.count(1)
    assert grounding["exact"] == pytest.approx(places.count(0) / grounding["quotes"])
    assert grounding["in_response"] == 1
    assert found["grounding_by_chance"]["exact"] < grounding["exact"]
    assert found["likeness"]["n"] == n
    assert found["likeness"]["chrf"] > found["likeness"]["chrf_same_label"]
    assert found["simulatability"]["unmasked"]["folds"] == (0, 1)
    recovered = found["simulatability"]
    resistant = [
        sum(p.label == "Resistance" for p in own) / len(own) for own in run.predictions.values()
    ]
    assert min(resistant) >= 0.5
    assert recovered["majority"]["accuracy"]["values"] == pytest.approx(resistant)
    assert found["simulatability_of_annotators"]["masked"]["n"] == n


def test_examples_stand_there_by_id_and_no_word_of_clients_does(run, findings, tmp_path) -> None:
    [page] = [sheet for sheet in findings.sheets if sheet.title == "Examples by id"]
    assert {row[1] for row in page.rows} == {
        "names another",
        "worst grounded",
        "best grounded",
        "least like the annotators'",
        "most like the annotators'",
    }
    worst = {row[2] for row in page.rows if row[1] == "worst grounded"}
    assert worst <= {p.id for own in run.predictions.values() for p in own[1::4]}
    write_report(findings, tmp_path)
    written = "".join(file.read_text(encoding="utf-8") for file in tmp_path.iterdir())
    assert "nowhere" not in written
    for example in read_examples(run).values():
        assert example.response not in written


def test_with_text_the_rationales_stand_beside_the_ids(run) -> None:
    found = rationale_section([run], WITH_TEXT)
    assert found is not None
    [page] = [sheet for sheet in found.sheets if sheet.title == "Examples by id"]
    assert any("nowhere" in row[-1] for row in page.rows)
    assert found.pages == {}
    assert "nowhere" in found.private_pages["rationales_to_rate_trained.csv"]


@pytest.mark.parametrize("options", [OPTIONS, WITH_TEXT])
def test_a_filled_sheet_is_read_by_the_action_for_ratings(run, options, tmp_path) -> None:
    found = rationale_section([run], options)
    assert found is not None
    write_report(found, tmp_path)
    blank = (tmp_path / "rationales_to_rate_trained.csv").read_text(encoding="utf-8-sig")
    assert blank.count("\n") > len(found.figures["runs"]["trained"]["to_rate"])
    filled = tmp_path / "ratings_ann.csv"
    filled.write_text(blank.replace(",,,,,\n", ",4,3,5,4,\n"), encoding="utf-8")
    out = tmp_path / "rated"
    assert corpus(["action=ratings", f"ratings.path={filled}", f"out={out}"]) == 0
    rated = json.loads((out / "ratings.json").read_text(encoding="utf-8"))
    assert rated["raters"] == ["ann"]
    assert rated["criteria"]["label_alignment"]["n"] == len(
        found.figures["runs"]["trained"]["to_rate"]
    )
    assert rated["criteria"]["rationality"]["mean"] == 5


def test_without_the_data_the_rest_stays_and_the_note_names_the_mend(run, tmp_path) -> None:
    shutil.copytree(run.folder.path, tmp_path / "trained")
    changed = replace(run, manifest={**run.manifest, "data_hash": "another"})
    found = rationale_section([changed], OPTIONS)
    assert found is not None
    figures = found.figures["runs"]["trained"]
    assert figures["grounding"] is figures["likeness"] is None
    assert figures["names"]["own"] > 0
    assert figures["simulatability"] is not None
    assert any("restore it" in note for note in found.notes)
