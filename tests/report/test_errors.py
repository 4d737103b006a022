"""What a report says of errors: equal to what is counted by hand over the same answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sklearn.metrics import accuracy_score, f1_score

from recap.errors import ConfigError
from recap.output.report import write_report
from recap.report.errors import error_section
from recap.report.options import ReportConfig, ReportPrivacy
from recap.report.runs import ReportedRun, read_examples, read_run
from recap.runs.folder import RunFolder

OPTIONS = ReportConfig(runs=("x",), by=("client", "language"), resamples=200)


@pytest.fixture(scope="module")
def runs(small_runs: Path) -> list[ReportedRun]:
    return [read_run(RunFolder(path=small_runs / name)) for name in ("words", "trained")]


@pytest.fixture(scope="module")
def findings(runs):
    found = error_section(runs, OPTIONS)
    assert found is not None
    return found


def test_scores_of_all_and_of_a_group_are_those_of_scikit_learn(runs, findings) -> None:
    for run in runs:
        found = findings.figures["runs"][run.name]
        gold = [p.gold for p in run.all_predictions]
        said = [p.label or "invalid" for p in run.all_predictions]
        assert found["overall"]["accuracy"]["value"] == pytest.approx(accuracy_score(gold, said))
        expected = f1_score(gold, said, labels=run.task.labels, average="macro")
        assert found["overall"]["macro_f1"]["value"] == pytest.approx(expected)
        [english] = found["breakdowns"]["language"]["groups"]
        assert (english["group"], english["n"]) == ("en", len(gold))
        assert english["accuracy"] == found["overall"]["accuracy"]


def test_every_breakdown_parts_the_same_examples(runs, findings) -> None:
    n = len(runs[0].all_predictions)
    breakdowns = findings.figures["runs"]["words"]["breakdowns"]
    assert {"client", "language", "length", "history", "negation"} <= set(breakdowns)
    for name in ("language", "length", "history", "negation"):
        assert sum(group["n"] for group in breakdowns[name]["groups"]) == n
    assert breakdowns["client"]["n_groups"] > len(breakdowns["client"]["groups"]) == 20


def test_resistance_read_as_collaboration_is_counted_with_its_ids(runs, findings) -> None:
    words = runs[0]
    missed = [
        p.id for p in words.all_predictions if (p.gold, p.label) == ("Resistance", "Collaboration")
    ]
    [(name, kind)] = findings.figures["runs"]["words"]["kinds"].items()
    assert name == "subtle resistance read as collaboration"
    assert sorted(kind["ids"]) == sorted(missed)
    assert kind["n"] == sum(p.gold == "Resistance" for p in words.all_predictions)
    by_wording = findings.figures["runs"]["words"]["resistance_missed_by_wording"]
    assert sum(count["count"] for count in by_wording.values()) == len(missed)


def test_what_both_runs_got_wrong_is_named(runs, findings) -> None:
    wrong = [{p.id for p in run.all_predictions if p.label != p.gold} for run in runs]
    shared = findings.figures["wrong_in_all"]["binary"]
    assert set(shared["ids"]) == wrong[0] & wrong[1]


def test_the_figures_are_of_the_best_run_and_the_files_hold_no_words(
    runs, findings, tmp_path
) -> None:
    best = max(runs, key=lambda run: run.summary.metrics["macro_f1"].mean).name
    assert set(findings.charts) == {f"errors_confusion_{best}", f"errors_groups_{best}"}
    write_report(findings, tmp_path)
    written = "".join(
        file.read_text(encoding="utf-8") for file in tmp_path.iterdir() if file.suffix != ".png"
    )
    assert not [e.id for e in read_examples(runs[0]).values() if e.response in written]


def test_with_text_the_responses_stand_beside_the_ids(runs) -> None:
    found = error_section(runs, replace(OPTIONS, privacy=ReportPrivacy(include_text=True)))
    assert found is not None
    [hardest] = [sheet for sheet in found.sheets if sheet.title.startswith("Hardest")]
    examples = read_examples(runs[0])
    assert all(" ".join(examples[row[1]].response.split()) == row[-1] for row in hardest.rows)


def test_a_column_that_nobody_has_is_refused_with_the_known_ones(runs) -> None:
    with pytest.raises(ConfigError, match="did you mean 'client'") as caught:
        error_section(runs, replace(OPTIONS, by=("cleint",)))
    assert "session, client" in str(caught.value)
    # Not a column of words: how each synthetic turn was made.
    assert "composition" not in str(caught.value)


def test_without_the_data_what_needs_predictions_alone_stays(runs) -> None:
    changed = [replace(run, manifest={**run.manifest, "data_hash": "another"}) for run in runs]
    found = error_section(changed, OPTIONS)
    assert found is not None
    own = found.figures["runs"]["words"]
    assert own["breakdowns"] == own["resistance_missed_by_wording"] == {}
    assert own["overall"]["accuracy"]["value"] is not None
    assert own["kinds"]
    assert any("restore it" in note for note in found.notes)


def test_runs_without_an_error_have_no_section(runs) -> None:
    right = replace(
        runs[0],
        predictions={
            k: tuple(replace(p, label=p.gold) for p in own)
            for k, own in runs[0].predictions.items()
        },
    )
    assert error_section([right], OPTIONS) is None
