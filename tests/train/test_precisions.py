"""Every precision that is offered trains, answers, resumes and exports, through the commands."""

from __future__ import annotations

import csv
import json
import math
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from builders import read_json, read_jsonl
from safetensors.torch import load_file
from shrunk import IN_BLOCKS, write_family
from talk import rows
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from recap.config import TrainerConfig
from recap.evaluate import __main__ as evaluate
from recap.models.backbone import load_tiny
from recap.models.precision import LARGEST_ERROR, LEAST_GAIN, probe_onednn
from recap.plan import __main__ as plan
from recap.predict import __main__ as predict
from recap.prompt import __main__ as prompt
from recap.records import Example, Turn
from recap.runs.history import History
from recap.tasks.library import get_task
from recap.train import __main__ as train

OFFERED = sorted({*typing.get_args(typing.get_type_hints(TrainerConfig)["precision"])} - {"auto"})
KEPT_IN = {"bf16-true": torch.bfloat16, "64-true": torch.float64}
"""Types of weights; those of all other precisions stay in float32."""
# RMSNorm computes in float32 whatever comes in (transformers 5.23).
APART = {"32-true": 1e-5, "64-true": 1e-6, "16-mixed": 2e-3, "bf16-mixed": 2e-2, "bf16-true": 2e-2}
"""How far rounding may move a loss of about eight nats, relative."""

RUN = (
    *("task=binary", "rationale=false", "data=dialogues", "cv.folds=2", "cv.fold=0", "run=r"),
    *("prompt=brief", "decoding.max_new_tokens=4", "logger=none", "trainer=cpu"),
)
TRAINING = (
    *("trainer.max_epochs=1", "global_batch_size=4", "optimizer.learning_rate=1e-3", "seed=0"),
    *("scheduler=constant", "scheduler.warmup_fraction=0"),
)
QUANTIZED = ("finetune=qlora", "backbone=llama8b")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("corpus") / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows(16)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_family(tmp_path_factory.mktemp("weights"), "llama", widths=IN_BLOCKS)


@pytest.fixture(params=OFFERED)
def run(request: pytest.FixtureRequest, corpus: Path, tmp_path: Path) -> Callable[..., int]:
    """Give ``recap.train`` in one of the precisions, into ``tmp_path``."""
    place = (f"data.path={corpus}", f"runs_dir={tmp_path}")

    def train_in_it(*overrides: str) -> int:
        precision = f"trainer.precision={request.param}"
        return train.main([*RUN, *TRAINING, *place, precision, *overrides])

    train_in_it.precision = request.param  # type: ignore[attr-defined]
    return train_in_it


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*model.safetensors")
    return dict(load_file(file))


def plain_loss(model: Any, tokenizer: Any, ids: set[str]) -> float:
    """Return the token mean of the gold answers' loss, one plain forward an example."""
    task, total, n = get_task("binary", style="brief", rationale=False), 0.0, 0
    for row in rows(16):
        if row["id"] not in ids:
            continue
        asked = tuple(Turn(**turn) for turn in row["history"])
        example = Example(id=row["id"], history=asked, response=row["response"])
        chat = [{"role": said.role, "content": said.text} for said in task.messages(example)]
        opening = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        gold = "Collaboration" if row["label"] == "Collaboration" else "Resistance"
        texts = (opening, f"Behavior: {gold}<|im_end|>")
        shown, answer = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts)
        labels = torch.tensor([[-100] * len(shown) + answer])
        with torch.no_grad():
            found = model(input_ids=torch.tensor([shown + answer]), labels=labels)
        total += float(found.loss) * len(answer)
        n += len(answer)
    return total / n


def test_five_precisions_are_offered() -> None:
    assert set(OFFERED) == APART.keys()


def test_a_run_on_a_cpu_is_in_float32_and_stays_in_what_it_was_begun_with(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = (f"data.path={corpus}", f"runs_dir={tmp_path}", "backbone=tiny")
    plain = {"used": "32-true", "matmul": "default", "matmul_error": None, "matmul_speedup": None}
    assert train.main([*RUN, *TRAINING, *place]) == 0
    manifest = read_json(tmp_path / "r" / "manifest.json")
    assert manifest["precision"] == {**plain, "optimizer": "adamw, fused"}
    assert yaml.safe_load((tmp_path / "r" / "config.yaml").read_text())["trainer"]["precision"] == (
        "32-true"
    )
    assert "mixed" not in capsys.readouterr().out
    mixed = [*RUN, *TRAINING, *place, "run=mixed"]
    assert train.main([*mixed, "trainer.precision=bf16-mixed"]) == 0
    assert train.main([*mixed, "cv.fold=1"]) == 0
    assert "         bf16-mixed\n" in capsys.readouterr().out
    assert read_json(tmp_path / "mixed" / "manifest.json")["precision"]["used"] == "bf16-mixed"
    assert train.main([*mixed, "cv.fold=1", "trainer.precision=32-true"]) == 2
    said = capsys.readouterr().err
    assert "trainer.precision ('bf16-mixed' there, '32-true' now); set run=NAME" in said


def test_onednns_products_are_taken_as_the_probe_allows_and_said(
    corpus: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probe = probe_onednn()
    asked = [*RUN, *TRAINING, f"data.path={corpus}", f"runs_dir={tmp_path}", "finetune=lora"]
    asked += [f"backbone.path={weights}"]
    for run, matmul in (("auto", "auto"), ("default", "default")):
        assert train.main([*asked, f"run={run}", f"trainer.matmul={matmul}"]) == 0
        found = read_json(tmp_path / run / "manifest.json")["precision"]["matmul"]
        exact_and_faster = probe.error <= LARGEST_ERROR and probe.speedup >= LEAST_GAIN
        assert found == ("onednn" if exact_and_faster and matmul == "auto" else "default")
        said = "32-true, training with oneDNN's matrix products: "
        assert (said in capsys.readouterr().out) == (found == "onednn")
    code = train.main([*asked, "run=forced", "trainer.matmul=onednn"])
    if probe.error > LARGEST_ERROR:
        assert code == 2
        assert "trainer.matmul=onednn: on this processor" in capsys.readouterr().err
        return
    assert code == 0
    numbers = read_json(tmp_path / "forced" / "manifest.json")["precision"]
    assert numbers["matmul"] == "onednn"
    assert numbers["matmul_error"] == probe.error
    # Answers of the untuned backbone do not depend on it.
    for run, matmul in (("asked", "onednn"), ("asked-plainly", "default")):
        settings = [*RUN, f"data.path={corpus}", f"runs_dir={tmp_path}", f"backbone.path={weights}"]
        assert prompt.main([*settings, f"run={run}", f"trainer.matmul={matmul}"]) == 0
    first, second = (
        tmp_path / run / "fold0/predictions.jsonl" for run in ("asked", "asked-plainly")
    )
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("overrides", "said", "warned"),
    [
        (["trainer=auto"], "bf16-mixed", False),
        (["trainer=fsdp"], "bf16-mixed", False),
        (["trainer=auto", "trainer.precision=32-true"], "32-true", True),
        (["trainer=cpu", "trainer.matmul=default"], "32-true", False),
    ],
)
def test_a_plan_says_what_a_run_computes_with(
    overrides: list[str], said: str, warned: bool, tmp_path: Path, corpus: Path, capsys: Any
) -> None:
    chosen = [*RUN, f"data.path={corpus}", *overrides, f"out={tmp_path}"]
    assert plan.main(chosen) == 0
    figures = read_json(tmp_path / "plan.json")
    assert (figures["precision"], figures["matmul"]) == (said, "default")
    out = capsys.readouterr().out
    assert ("trainer.precision=32-true on a GPU: several times slower" in out) == warned
    table = (tmp_path / "plan.md").read_text(encoding="utf-8")
    assert f"| precision | {said} |" in table
    assert "| tuning | full, adamw, fused |" in table


@pytest.mark.parametrize("batching", ["trunk", "packed", "padded"])
def test_a_full_training_ends_with_the_loss_that_plain_transformers_finds(
    run: Any, batching: str, tmp_path: Path
) -> None:
    assert run(f"batching={batching}", "finetune=full") == 0
    fold = tmp_path / "r" / "fold0"
    kept = KEPT_IN.get(run.precision, torch.float32)
    assert {weight.dtype for weight in weights_of(fold / "model").values()} == {kept}
    with (fold / "history.csv").open(encoding="utf-8", newline="") as file:
        assert all(math.isfinite(float(row["loss"])) for row in csv.DictReader(file))
    model: Any = AutoModelForCausalLM.from_pretrained(fold / "model", dtype=kept)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(fold / "model")
    tested = {row["id"] for row in read_jsonl(fold / "predictions.jsonl")}
    expected = plain_loss(model, tokenizer, tested)
    found = read_json(fold / "scores.json")["metrics"]["loss"]
    assert found == pytest.approx(expected, rel=APART[run.precision])


@pytest.mark.parametrize("method", ["full", "lora"])
def test_an_interrupted_training_ends_with_the_same_weights_and_answers(
    run: Any, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = (f"finetune={method}", "trainer.max_epochs=2", "decoding=constrained")
    assert run(*longer, "run=whole") == 0
    go_on = History.on_train_batch_end

    def interrupt(self: Any, trainer: Any, *arguments: Any) -> None:
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt
        go_on(self, trainer, *arguments)

    monkeypatch.setattr(History, "on_train_batch_end", interrupt)
    assert run(*longer, "run=cut") == 130
    monkeypatch.undo()
    assert run(*longer, "run=cut") == 0
    whole, cut = (tmp_path / name / "fold0" for name in ("whole", "cut"))
    assert read_json(tmp_path / "cut" / "manifest.json")["resumes"][0]["at"] == "train"
    expected, found = weights_of(whole / "model"), weights_of(cut / "model")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    for name in ("predictions.jsonl", "scores.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_gradients_are_clipped_at_their_own_scale(run: Any, tmp_path: Path) -> None:
    # With eps=1 a step is the rate times about the gradient, and not its sign alone.
    step = (
        *("finetune=full", "optimizer.eps=1"),
        *("optimizer.learning_rate=1", "optimizer.weight_decay=0"),
    )
    moved = {}
    start = {k: v.double() for k, v in load_tiny(seed=0)[0].state_dict().items()}
    for clip in ("null", "1e-6"):
        assert run(*step, f"optimizer.gradient_clip={clip}", f"run=at-{clip}") == 0
        found = weights_of(tmp_path / f"at-{clip}" / "fold0" / "model")
        kept = KEPT_IN.get(run.precision, torch.float32)
        moved[clip] = max(
            float((found[name].double() - start[name].to(kept).double()).abs().max())
            for name in found
        )
    assert moved["null"] > 1e-3
    assert moved["1e-6"] <= 3e-6  # two steps


def test_adapters_are_merged_in_the_type_of_the_weights_and_answer(
    run: Any, tmp_path: Path
) -> None:
    assert run("finetune=lora", "merge=true", "decoding=scored", "cv.fold=final") == 0
    merged = tmp_path / "r" / "final" / "model"
    kept = KEPT_IN.get(run.precision, torch.float32)
    assert {weight.dtype for weight in weights_of(merged).values()} == {kept}
    spoken = {"session": "s", "turns": [{"speaker": "client", "text": "Not today."}]}
    talk, answers = tmp_path / "talk.jsonl", tmp_path / "answers.jsonl"
    talk.write_text(json.dumps(spoken) + "\n", encoding="utf-8")
    assert predict.main([f"model={merged}", f"input={talk}", f"output={answers}"]) == 0
    (answer,) = read_jsonl(answers)
    assert answer["label"] in ("Resistance", "Collaboration")
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-3)


def test_adapters_over_4_bits_train_or_are_refused_with_what_would(
    run: Any, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(*QUANTIZED, f"backbone.path={weights}")
    if run.precision == "64-true":
        assert code == 2
        assert "never in trainer.precision=64-true; set" in capsys.readouterr().err
        return
    assert code == 0
    tuned = weights_of(tmp_path / "r" / "fold0" / "model")
    assert any(bool(tensor.any()) for name, tensor in tuned.items() if "lora_B" in name)
    assert math.isfinite(read_json(tmp_path / "r" / "fold0" / "scores.json")["metrics"]["loss"])


def test_an_encoder_and_a_prompted_backbone_run_in_it(
    run: Any, corpus: Path, tmp_path: Path
) -> None:
    shared = [
        *("task=binary", "data=dialogues", f"data.path={corpus}", "cv.folds=2", "cv.fold=0"),
        *("trainer=cpu", "logger=none", f"runs_dir={tmp_path}", "rationale=false"),
        f"trainer.precision={run.precision}",
    ]
    encoder = ["method=encoder", "encoder=tiny", "encoder.max_epochs=1", "run=encoder"]
    assert evaluate.main([*shared, *encoder]) == 0
    asked = ["client=local", "prompt=brief", "decoding.max_new_tokens=4", "run=asked"]
    assert prompt.main([*shared, *asked]) == 0
    for name in ("encoder", "asked"):
        scores = read_json(tmp_path / name / "fold0" / "scores.json")
        assert scores["n"] == 8
    labels = [row["label"] for row in read_jsonl(tmp_path / "encoder" / "fold0/predictions.jsonl")]
    assert set(labels) <= {"Resistance", "Collaboration"}
    kept = KEPT_IN.get(run.precision, torch.float32)
    types = {weight.dtype for weight in weights_of(tmp_path / "encoder/fold0/model").values()}
    assert types == {kept}
