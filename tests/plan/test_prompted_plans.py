"""``recap.plan`` of models that are prompted as they are, against what ``recap.prompt`` sends."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from recap.data.encode import ChatEncoder
from recap.folds.prompts import read_prompted
from recap.models.backbone import tiny_tokenizer
from recap.plan.__main__ import main
from recap.plan.options import load_plan
from recap.prompt.__main__ import main as prompt

DATA = ("data.options.size=300", "cv.folds=2")
SERVER = ("client=openai", "client.model=NAME")
PRICES = ("client.price_per_million_input=2.5", "client.price_per_million_output=10")


def plan(tmp_path: Path, *overrides: str) -> dict[str, Any]:
    out = tmp_path / "out"
    assert main([*DATA, f"out={out}", f"runs_dir={tmp_path}", *overrides]) == 0
    found: dict[str, Any] = json.loads((out / "plan.json").read_text("utf-8"))
    return found


SHORT = ("client=local", "prompt.history=full", "prompt.max_tokens=180")
CHOSEN = {
    "server": (*SERVER, *PRICES),
    "local": ("client=local",),
    "short": SHORT,
    "turns": (*SHORT, "prompt.cut=turns"),
}


@pytest.mark.parametrize("chosen", CHOSEN.values(), ids=CHOSEN.keys())
@pytest.mark.parametrize("shots", [0, 1])
def test_the_plan_counts_what_a_dry_run_would_send(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], chosen: tuple[str, ...], shots: int
) -> None:
    run = (*DATA, f"runs_dir={tmp_path}", *chosen, f"shots={shots}")
    assert prompt([*run, "dry_run=true"]) == 0
    said = capsys.readouterr().out
    calls, tokens, most = (
        int(re.findall(form, said)[0])
        for form in (r"(\d+) calls", r"(\d+) tokens of prompts", r"at most (\d+) tokens")
    )
    asked = plan(tmp_path, *chosen, f"shots={shots}")["prompts"]
    assert (asked["calls"], asked["prompt_tokens"]) == (calls, tokens)
    assert asked["most_answer_tokens"] == most == 128 * calls
    assert asked["shots"] == 13 * shots
    if PRICES[0] in chosen:
        assert asked["most_cost"] == pytest.approx((2.5 * tokens + 10 * most) / 1e6)
        assert asked["cost"] == pytest.approx(
            (2.5 * tokens + 10 * asked["answer_tokens"]) / 1e6, abs=1e-4
        )
        assert asked["counted_by"].startswith("an estimate")
    else:
        assert (asked["cost"], asked["counted_by"]) == (None, "the tokenizer of tiny")


def test_a_tokenizer_that_is_there_counts_a_servers_tokens(tmp_path: Path) -> None:
    asked = plan(tmp_path, *SERVER, "shots=1", "plan.tokenizer=tiny")["prompts"]
    assert asked["counted_by"] == "the tokenizer of tiny"
    config = load_plan([*DATA, *SERVER, "shots=1"])
    run = read_prompted(config.training, shots=1, categories="labels")
    encoder = ChatEncoder(tiny_tokenizer())
    lengths = [
        len(encoder.prompt_ids(run.task.messages(example, run.shots[fold.index])))
        for fold in run.folds
        for example in run.examples(fold.test)
    ]
    assert (asked["calls"], asked["prompt_tokens"]) == (len(lengths), sum(lengths))
    assert asked["longest_prompt"] == max(lengths)


def test_a_backbone_that_is_prompted_has_memory_and_hours_and_no_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ("experiment=paper/prompted", "backbone=qwen7b", "trainer=gpu")
    whole = plan(tmp_path, *chosen, "backbone.dtype=bfloat16")
    assert list(whole["memory"]["moments"]) == ["decoding"]
    assert whole["hours"]["padded"] > 0
    operations = whole["operations"]["padded"]
    assert (operations["training"], operations["selection"]) == (0, 0)
    # Two operations a weight and token of the prompts, within what attention adds.
    least = 2 * whole["parameters"]["layer_matrices"] * whole["prompts"]["prompt_tokens"]
    assert least < operations["decoding"] < 1.3 * least
    assert whole["run"].endswith("zeroshot") or "zeroshot-" in whole["run"]
    assert "Disk" not in capsys.readouterr().out
    few = plan(tmp_path, *chosen, "backbone.dtype=bfloat16", "shots=1")
    assert few["hours"]["padded"] > whole["hours"]["padded"]


def test_of_a_server_neither_memory_nor_time_is_said(tmp_path: Path) -> None:
    assert plan(tmp_path, *SERVER).keys() == {"run", "prompts"}


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (("client=openai",), "client=openai needs a model: set client.model=NAME"),
        ((*SERVER, "finetune=lora"), "finetune=lora: recap.prompt trains nothing"),
        ((*SERVER, "decoding=scored"), "decoding=scored reads what a model thinks"),
        ((*SERVER, "plan.tokenizer=nowhere"), "nowhere"),
        ((*SERVER, "client.modl=x"), "client.modl"),
        (("client=opanai",), "did you mean 'openai'?"),
    ],
)
def test_what_prompting_refuses_its_plan_refuses(
    capsys: pytest.CaptureFixture[str], chosen: tuple[str, ...], said: str
) -> None:
    assert main([*DATA, *chosen]) == 2
    assert said in capsys.readouterr().err
