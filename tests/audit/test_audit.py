"""``recap.audit``: a model that was made to learn secrets by heart, and one that was not."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import read_jsonl, write_jsonl
from shrunk import model_of, qwen2_tokenizer

from recap.audit.__main__ import main
from recap.data.corpus import read_corpus
from recap.data.encode import ChatEncoder, encode_examples
from recap.models.export import ModelSettings, save_model
from recap.records import Example
from recap.tasks.library import builtin_task
from recap.tasks.task import Task

SECRET_PART = "gives the reference number"
TASK = builtin_task("binary", style="brief")
WORDS = ("moon", "bread", "river", "lamp", "stone", "cloud", "glass", "paper")
CANDIDATES = 63


def examples_file(path: Path, words: tuple[str, ...], start: int) -> Path:
    rows = [
        {
            "id": f"e{start + i}",
            "session": f"s{start + i}",
            "history": [{"speaker": "counselor", "text": f"What about {word}?"}],
            "response": f"Nothing is as it was with the {word}, not since number {start + i}.",
            "label": ("Blaming", "Collaboration")[i % 2],
            "rationale": f"The client turns to the {word} of {start + i} and away from others.",
        }
        for i, word in enumerate(words)
    ]
    return write_jsonl(path, rows)


def learn_by_heart(model: Any, task: Task, examples: list[Example]) -> None:
    """Train on the answers alone, as recap does, far beyond what generalises."""
    encoder = ChatEncoder(qwen2_tokenizer())
    rows = encode_examples(examples, task, encoder).examples
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    longest = max(len(row.prompt) + len(row.answer) for row in rows)
    ids = torch.full((len(rows), longest), encoder.pad_id)
    labels = torch.full((len(rows), longest), -100)
    for i, row in enumerate(rows):
        whole = [*row.prompt, *row.answer]
        ids[i, : len(whole)] = torch.tensor(whole)
        labels[i, len(row.prompt) : len(whole)] = torch.tensor(row.answer)
    model.train()
    for _ in range(160):
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
    model.eval()
    assert float(loss.detach()) < 0.05, "the model did not learn its examples by heart"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with canaries, data, and two models: ``knows`` and ``ignorant``."""
    root = tmp_path_factory.mktemp("audit")
    arguments = ["step=plant", "plant.n=3", "plant.digits=6", "task=binary", f"out={root}"]
    assert main(arguments) == 0
    plain = examples_file(root / "plain.jsonl", WORDS, 0)
    examples_file(root / "new.jsonl", WORDS, 100)
    canaries = root / "canaries.jsonl"
    text = plain.read_text(encoding="utf-8") + canaries.read_text(encoding="utf-8")
    (root / "data.jsonl").write_text(text, encoding="utf-8")
    corpus = read_corpus(reader="dialogues", path=root / "data.jsonl", taxonomy=TASK.taxonomy)
    tokenizer = qwen2_tokenizer()
    encoder = ChatEncoder(tokenizer)
    for name in ("knows", "ignorant"):
        torch.manual_seed(0)
        model = model_of("qwen2", len(tokenizer))
        if name == "knows":
            learn_by_heart(model, TASK, list(corpus.examples))
        save_model(
            model,
            tokenizer,
            root / name,
            end_of_turn_id=encoder.end_of_turn_id,
            pad_id=encoder.pad_id,
            settings=ModelSettings(task=TASK),
        )
    return root


def audit(folder: Path, model: str, out: Path, *more: str) -> dict[str, Any]:
    arguments = [
        *(f"model={folder / model}", "data=dialogues", f"data.path={folder / 'data.jsonl'}"),
        *(f"canaries={folder / 'canaries.jsonl'}", f"held_out={folder / 'new.jsonl'}"),
        *(f"candidates={CANDIDATES}", "prefix_tokens=[4]", f"out={out}"),
    ]
    assert main([*arguments, *more]) == 0
    found: dict[str, Any] = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    return found


def extraction(found: dict[str, Any], field: str) -> dict[str, Any]:
    [row] = [row for row in found["extraction"] if row["field"] == field]
    return dict(row)


def test_secrets_learned_by_heart_are_exposed_and_texts_repeated(
    folder: Path, tmp_path: Path
) -> None:
    found = audit(folder, "knows", tmp_path / "out")
    assert [c["exposure"] for c in found["canaries"]] == [6.0] * 3  # log2(64): the first of all
    assert found["exposure"]["trained"]["p"] < 0.001
    rationales = extraction(found, "rationale")
    assert rationales["trained_share"] > 0.8
    assert rationales["held_out_share"] < 0.3
    assert rationales["p"] < 0.01
    assert set(rationales["ids"]) <= {f"e{i}" for i in range(8)} | {
        f"canary-{i:04d}-0" for i in range(3)
    }


def test_an_untrained_model_shows_chance_and_repeats_nothing(folder: Path, tmp_path: Path) -> None:
    found = audit(folder, "ignorant", tmp_path / "out")
    assert found["exposure"]["trained"]["mean"] < 4
    assert found["exposure"]["trained"]["p"] > 0.01
    for field in ("rationale", "response"):
        assert extraction(found, field)["trained_count"] == 0


def test_no_text_stands_in_the_files_unless_asked_for(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audit(folder, "knows", tmp_path / "plain")
    written = [path.read_text(encoding="utf-8") for path in (tmp_path / "plain").iterdir()]
    said = "".join([*written, *capsys.readouterr()])
    assert "e0" in said
    assert SECRET_PART not in said
    assert "of others" not in said
    assert "away from" not in said
    found = audit(folder, "knows", tmp_path / "texts", "privacy.include_text=true")
    assert any("away from" in text for text in extraction(found, "rationale")["texts"])
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "texts").iterdir()}
    assert modes == {0o600}
    assert "away from" not in capsys.readouterr().out


def test_canaries_are_examples_with_a_secret_of_their_own(folder: Path) -> None:
    rows = read_jsonl(folder / "canaries.jsonl")
    secrets = [row["meta"]["canary"]["secret"] for row in rows]
    assert len(set(secrets)) == 3
    assert all(len(secret.split()) == 6 for secret in secrets)
    assert all(secret in row["rationale"] for secret, row in zip(secrets, rows, strict=True))
    assert stat.S_IMODE((folder / "canaries.jsonl").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["model=null"], "model: name a run folder"),
        (["canaries=PLAIN"], "is no canary as step=plant writes it"),
        (["candidates=1000000"], "there are only 1000000 secrets"),
        (["step=plant", "out=null"], "name a folder"),
    ],
)
def test_what_cannot_be_audited_is_told(
    change: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        *(f"model={folder / 'ignorant'}", "data=dialogues", f"data.path={folder / 'data.jsonl'}"),
        f"canaries={folder / 'canaries.jsonl'}",
    ]
    changed = [word.replace("PLAIN", str(folder / "plain.jsonl")) for word in change]
    code = main([*given, *changed])
    printed = capsys.readouterr().err
    assert (code, said in printed) == (2, True), printed
