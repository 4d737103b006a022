"""The plan as a whole: from overrides to figures, tables and files."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

import recap
from recap.cli.compose import load_verb
from recap.errors import ConfigError
from recap.plan.__main__ import main
from recap.plan.options import PlanOptions
from recap.plan.plan import Plan, make_plan, plan_dict, verdict
from tests.shrunk import write_family

FEW = ("cv.folds=2", "cv.max_examples=60")


def plan_of(*overrides: str, **options: Any) -> Plan:
    return make_plan(recap.load_config(["run=r", *FEW, *overrides]), PlanOptions(**options))


def test_its_options_stand_beside_those_of_the_run() -> None:
    config = load_verb("plan", ["task=binary", "plan.utilization=0.5", "out=there"])
    assert config.training == recap.load_config(["task=binary"])
    assert (config.plan.utilization, config.out, config.run) == (0.5, "there", config.training.run)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("plan.utilisation=0.5", "did you mean 'plan.utilization'?"),
        ("plan.utilization=2", "plan.utilization"),
        ("+plan.flops=2", "plan.flops: there is no such option"),
        ("task=fine_graned", "did you mean 'fine_grained'?"),
    ],
)
def test_a_mistake_is_answered_with_what_would_have_been_right(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_verb("plan", [override])
    assert said in str(caught.value)


def test_steps_are_counted_by_hand() -> None:
    plan = plan_of("trainer.max_epochs=3")
    # Folds of 60 examples in two halves train on some 30 each, in steps of 8.
    trained = [len(training.train) for training in plan.workload.trainings]
    assert sum(trained) == len(plan.workload.examples)
    assert plan.steps == tuple(3 * math.ceil(n / 8) for n in trained)


def test_one_fold_and_the_final_model_are_one_training() -> None:
    assert len(plan_of("cv.fold=1").steps) == 1
    final = plan_of("cv.fold=final")
    assert len(final.steps) == 1
    assert final.workload.trainings[0].train == final.workload.examples
    assert "decoding" not in final.demand.memory.table


def test_sharing_saves_operations_and_hours_in_proportion() -> None:
    plan = plan_of("backbone=llama8b", "trainer=gpu")
    shared, packed, padded = (plan.operations[name].total for name in ("trunk", "packed", "padded"))
    assert shared < packed <= padded
    hours = plan.hours("padded")
    assert hours is not None
    assert hours == pytest.approx(padded / (312e12 * 0.4) / 3600)
    assert plan.hours() == pytest.approx(hours * shared / padded)


def test_more_devices_and_faster_ones_take_less_time() -> None:
    wide = ("trainer.strategy=fsdp", "trainer.devices=8", "trainer.nodes=2")
    one = plan_of("backbone=llama8b", tflops=100.0).hours("padded")
    many = plan_of("backbone=llama8b", *wide, tflops=100.0)
    assert many.demand.setting.n_devices == 16
    assert one is not None
    # Ragged last micro-batches cost the sixteen a little more padding.
    assert one / 17 < (many.hours("padded") or 0) < one / 8


def test_a_cpu_has_no_known_peak_and_the_memory_of_this_machine() -> None:
    plan = plan_of("trainer=cpu")
    assert plan.hours() is None
    assert 1e9 < plan.limit_bytes < 1e14
    assert plan.demand.memory.table["forward"]["runtime"] == 0


def test_a_local_tokenizer_counts_the_tokens(tmp_path: Path) -> None:
    write_family(tmp_path, "llama")
    plan = plan_of("backbone=llama8b", f"backbone.path={tmp_path}")
    assert plan.workload.counted_by == "the tokenizer of llama8b"
    assert plan.demand.counts.total < 1e6
    assert plan_of("backbone=llama8b").workload.counted_by.startswith("an estimate")


def test_what_does_not_fit_is_told_with_what_would() -> None:
    plan = plan_of("backbone=llama8b", "trainer=gpu")
    assert not plan.fits
    first, *changes = verdict(plan)
    assert first.startswith("does not fit")
    assert any("finetune=qlora" in change for change in changes)
    assert verdict(plan_of())[0].startswith("fits")


def test_an_untuned_backbone_takes_no_steps() -> None:
    plan = plan_of("backbone=qwen0_5b", "finetune=none")
    assert plan.steps == (0, 0)
    assert plan.operations["padded"].training == 0
    assert plan.disk.most == 0


def test_every_figure_is_in_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["backbone=qwen7b", "trainer=gpu", "run=r", *FEW, f"out={tmp_path / 'plans'}"]
    assert main(arguments) == 0
    assert "does not fit" in capsys.readouterr().out
    figures = json.loads((tmp_path / "plans" / "plan.json").read_text(encoding="utf-8"))
    assert figures == plan_dict(plan_of("backbone=qwen7b", "trainer=gpu"))
    assert figures["parameters"]["total"] == 7_615_616_512
    rows = dict(csv.reader((tmp_path / "plans" / "plan.csv").open(encoding="utf-8")))
    assert float(rows["memory.peak_bytes"]) == figures["memory"]["peak_bytes"]
    markdown = (tmp_path / "plans" / "plan.md").read_text(encoding="utf-8")
    assert "| parameters | 7,615,616,512 |" in markdown
    latex = (tmp_path / "plans" / "plan.tex").read_text(encoding="utf-8")
    assert r"100.00 \%" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 4


def test_planning_touches_no_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*FEW]) == 0
    assert "fits" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["data=dialogues", "data.path=missing.jsonl"], "missing.jsonl"),
        (["finetune=qlora"], "finetune=lora"),
        (["cv.fold=7"], "cv.fold"),
        (["trainer.max_tokens_per_device=20", *FEW], "trainer.max_tokens_per_device"),
    ],
)
def test_what_the_user_can_mend_ends_with_two_and_one_message(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert hint in said
    assert "Traceback" not in said


def test_a_folder_that_cannot_be_written_is_the_users_to_mend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main([*FEW, f"out={tmp_path / 'file' / 'plans'}"]) == 2
    assert "out=" in capsys.readouterr().err


def test_a_sweep_plans_each_of_its_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["-m", "finetune=full,lora", *FEW]) == 0
    assert capsys.readouterr().out.count("Plan of ") == 2
