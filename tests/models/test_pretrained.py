"""Real weights (``make pretrained``): the equalities with transformers, and a model that learns."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from builders import read_json, read_jsonl, write_jsonl
from conftest import REAL_DATA
from talk import rows
from test_label_scoring import examples, log_probability, sequence_of
from test_shared_prefix import batch_of, difference, gradient, separately

from recap.data.batches import common_prefix
from recap.data.encode import ChatEncoder, EncodedExample, encode_examples
from recap.models.backbone import load_backbone
from recap.models.engine.decode import TrunkEngine
from recap.models.engine.label_scoring import LabelScorer
from recap.models.engine.training import training_loss
from recap.prompt import __main__ as prompt
from recap.records import Example
from recap.tasks.library import get_task
from recap.tasks.task import Task
from recap.train import __main__ as train

NAME = "smollm2-135m-instruct"
BRIEF = get_task("binary", rationale=True, style="brief")


@pytest.fixture(scope="module")
def folder(project_root: Path) -> Path:
    return project_root / ".pretrained" / NAME


@pytest.fixture(scope="module")
def real(folder: Path) -> tuple[Any, ChatEncoder]:
    model, tokenizer = load_backbone(name="smollm2", family="llama", path=folder)
    return model.eval(), ChatEncoder(tokenizer)


def some(task: Task) -> list[Example]:
    """Return four labeled examples, with histories and without."""
    return examples(task)[:4]


def encoded(encoder: ChatEncoder, task: Task = BRIEF) -> list[EncodedExample]:
    return list(encode_examples(some(task), task, encoder).examples)


@pytest.mark.pretrained
@pytest.mark.parametrize(("name", "style"), [("binary", "brief"), ("fine_grained", "full")])
def test_ids_of_prompts_are_those_of_the_models_own_template(
    name: str, style: Any, real: tuple[Any, ChatEncoder]
) -> None:
    _, encoder = real
    task = get_task(name, rationale=True, style=style)
    for example, found in zip(some(task), encoded(encoder, task), strict=True):
        chat = [{"role": said.role, "content": said.text} for said in task.messages(example)]
        expected = encoder.tokenizer.apply_chat_template(chat, add_generation_prompt=True)
        assert list(found.prompt) == expected["input_ids"]


@pytest.mark.pretrained
def test_loss_and_gradients_of_each_batching_are_those_of_plain_forwards(
    real: tuple[Any, ChatEncoder],
) -> None:
    model, encoder = real
    asked = encoded(encoder)[:3]
    # Gradients of the first layer go through all others; those of all weights are a gigabyte.
    model.requires_grad_(False)
    for place in (0, 14, 29):
        model.get_decoder().layers[place].requires_grad_(True)
    loss, expected = separately(model, asked)
    for prefix in (None, 0, common_prefix(asked)):  # padded, packed, and shared
        found = training_loss(model, batch_of(asked, prefix))
        assert found.item() == pytest.approx(loss, rel=5e-6)
        assert difference(gradient(model, found), expected) <= 5e-6
    model.zero_grad()


@pytest.mark.pretrained
def test_answers_are_those_of_generate_token_for_token(real: tuple[Any, ChatEncoder]) -> None:
    model, encoder = real
    prompts = [example.prompt for example in encoded(encoder)]
    scorer = LabelScorer(model, BRIEF, encoder, decoding="free", max_new_tokens=8)
    assert isinstance(scorer._engine, TrunkEngine)
    end = encoder.end_of_turn_id
    for asked, answer in zip(prompts, scorer.answer(prompts), strict=True):
        with torch.no_grad():
            ids = torch.tensor([asked])
            whole = model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=end)
        expected = [token for token in whole[0, len(asked) :].tolist() if token != end]
        assert list(answer.tokens) == expected


@pytest.mark.pretrained
def test_log_probabilities_of_labels_are_those_of_plain_forwards(
    real: tuple[Any, ChatEncoder],
) -> None:
    model, encoder = real
    task = get_task("binary", rationale=False, style="brief")
    prompts = [example.prompt for example in encoded(encoder, task)]
    scorer = LabelScorer(model, task, encoder, decoding="scored")
    for asked, answer in zip(prompts, scorer.answer(prompts), strict=True):
        for label in task.labels:
            expected = log_probability(model, asked, sequence_of(task, encoder, label))
            assert answer.log_probabilities[label] == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.pretrained
def test_a_gguf_file_and_its_folder_hold_the_same_model(
    folder: Path, real: tuple[Any, ChatEncoder]
) -> None:
    model, encoder = real
    file = folder.with_name(f"{NAME}.gguf")
    other, tokenizer = load_backbone(name="gguf", family=None, path=file)
    state = other.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(weight, state[name]) for name, weight in model.state_dict().items())
    again = ChatEncoder(tokenizer)
    for task in (BRIEF, get_task("fine_grained", rationale=True, style="full")):
        assert encoded(again, task) == encoded(encoder, task)
    prompts = [example.prompt for example in encoded(encoder)][:2]
    said = [
        LabelScorer(one, BRIEF, coder, decoding="free", max_new_tokens=8).answer(prompts)
        for one, coder in ((model, encoder), (other.eval(), again))
    ]
    assert said[0] == said[1]


@pytest.mark.pretrained
def test_twenty_steps_of_adapters_lower_the_loss_and_tell_what_they_computed_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", rows(32))
    chosen = [
        *("backbone=smollm2", "finetune=lora", "task=binary", "rationale=false", "prompt=brief"),
        *("data=dialogues", f"data.path={file}", f"runs_dir={tmp_path}", "run=r", "trainer=cpu"),
        *("cv.folds=4", "cv.fold=0", "global_batch_size=2", "trainer.max_epochs=2", "logger=none"),
        *("decoding=scored", "trainer.log_every_steps=1", "keep_models=none"),
    ]
    assert train.main(chosen) == 0
    with (tmp_path / "r/fold0/history.csv").open(encoding="utf-8", newline="") as history:
        taken = [row for row in csv.DictReader(history) if row["split"] == "train"]
    losses = [float(row["loss"]) for row in taken]
    assert len(losses) >= 20
    assert fmean(losses[16:20]) < 0.5 * fmean(losses[:4])
    numbers = read_json(tmp_path / "r" / "manifest.json")["precision"]
    assert (numbers["used"], numbers["optimizer"]) == ("32-true", "adamw, fused")
    told = "training with oneDNN's matrix products" in capsys.readouterr().out
    assert told == (numbers["matmul"] == "onednn")
    parsed = [row["parsed"] for row in read_jsonl(tmp_path / "r/fold0/predictions.jsonl")]
    assert parsed == [True] * 8


def corpora() -> list[Any]:
    file = Path(os.environ.get(REAL_DATA, "."), "annomi", "AnnoMI-simple.csv")
    annomi = ("task=annomi_talk", "data=annomi", f"data.path={file}", "prompt.history=intervention")
    return [
        pytest.param(("task=binary", "data=demo", "rationale=false"), id="demo"),
        pytest.param(annomi, id="annomi", marks=pytest.mark.real_data),
    ]


@pytest.mark.pretrained
@pytest.mark.parametrize("corpus", corpora())
def test_every_scored_answer_of_the_model_as_it_is_can_be_read(
    corpus: tuple[str, ...], tmp_path: Path
) -> None:
    asked = ["backbone=smollm2", "decoding=scored", "cv.fold=0", "cv.folds=2", "trainer=cpu"]
    place = [f"runs_dir={tmp_path}", "run=r", "logger=none"]
    assert prompt.main([*asked, *corpus, "cv.max_examples=16", *place]) == 0
    answers = read_jsonl(tmp_path / "r" / "fold0" / "predictions.jsonl")
    assert len(answers) >= 6
    assert all(answer["parsed"] and answer["label"] for answer in answers)
    scores = read_json(tmp_path / "r" / "fold0" / "scores.json")
    assert scores["metrics"]["invalid_rate"] == 0


def test_a_model_that_is_not_there_is_told_with_the_command_that_makes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["backbone=smollm2", "backbone.path=.pretrained/not-made", f"runs_dir={tmp_path}"]
    for command in (train, prompt):
        assert command.main(chosen) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "backbone 'smollm2' is not on this machine: run `make pretrained`" in line
        assert "backbone.path=FOLDER" in line
    assert not any(tmp_path.iterdir())
