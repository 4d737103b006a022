"""No command feeds a model more than its positions, and all commands show it the same prompts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import read_json, read_jsonl

from recap.data.encode import ChatEncoder, EncodedPrompt, PromptEncoder
from recap.evaluate import __main__ as evaluate
from recap.models.backbone import load_tiny
from recap.predict import __main__ as predict
from recap.prompt import __main__ as prompt
from recap.records import Example, Turn
from recap.runs.detector import Detector
from recap.tasks.library import get_task
from recap.train import __main__ as train

POSITIONS, ROOM = 256, 12
N_UTTERANCES = 20
DATA = ("task=binary", "rationale=false", "data=dialogues", "prompt=brief", "prompt.history=full")
RUN = (
    *("prompt.max_tokens=null", f"decoding.max_new_tokens={ROOM}", "cv.folds=2", "logger=none"),
    *("trainer=cpu", "cv.group=null"),
)


def corpus(sessions: str = "ab") -> list[Example]:
    """Return the client turns of long dialogues, all that was said before in each history."""
    found = []
    for session in sessions:
        turns: list[Turn] = []
        for number in range(N_UTTERANCES):
            turns.append(Turn(speaker="counselor", text=f"And {session} was then {number}?"))
            said = f"Well, {number} " + "and so on " * (number % 4)
            label = "Blaming" if number % 2 else "Collaboration"
            found.append(
                Example(
                    id=f"{session}{number}",
                    session=session,
                    history=tuple(turns),
                    response=said,
                    label=label,
                )
            )
            turns.append(Turn(speaker="client", text=said))
    return found


def as_row(example: Example) -> dict[str, Any]:
    history = [{"speaker": turn.speaker, "text": turn.text} for turn in example.history]
    keys = ("id", "session", "response", "label")
    return {**{key: getattr(example, key) for key in keys}, "history": history}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, and the weights of a small model of few positions."""
    folder = tmp_path_factory.mktemp("files")
    for name, sessions in (("rows", "ab"), ("new", "cd")):
        rows = "".join(json.dumps(as_row(example)) + "\n" for example in corpus(sessions))
        (folder / f"{name}.jsonl").write_text(rows, encoding="utf-8")
    model, tokenizer = load_tiny(seed=0)
    model.config.max_position_embeddings = POSITIONS
    model.save_pretrained(folder / "weights")
    tokenizer.save_pretrained(folder / "weights")
    return folder


@pytest.fixture
def highest() -> Iterator[list[int]]:
    """The positions that a model is asked about, each the highest of one forward."""
    seen: list[int] = []

    def look(module: torch.nn.Module, arguments: Any) -> None:
        if type(module).__name__ == "Qwen2RotaryEmbedding":
            seen.append(int(arguments[1].max()))

    hook = torch.nn.modules.module.register_module_forward_pre_hook(look)
    yield seen
    hook.remove()


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, EncodedPrompt]:
    """The prompts that a command makes, by the example's id."""
    made: dict[str, EncodedPrompt] = {}
    encode = PromptEncoder.encode

    def keep(self: PromptEncoder, example: Example, *limit: int) -> EncodedPrompt:
        made[example.id] = encode(self, example, *limit)
        return made[example.id]

    monkeypatch.setattr(PromptEncoder, "encode", keep)
    return made


def by_hand() -> tuple[dict[str, tuple[int, ...]], int]:
    """Return whole prompts, and how many of them leave the answer too little room."""
    task = get_task("binary", style="brief", rationale=False)
    encoder = ChatEncoder(load_tiny(seed=0)[1])
    whole = {e.id: encoder.prompt_ids(task.messages(e)) for e in corpus()}
    return whole, sum(len(ids) + ROOM > POSITIONS for ids in whole.values())


def test_all_commands_cut_the_same_prompts_say_so_and_stay_within_the_positions(
    files: Path,
    tmp_path: Path,
    highest: list[int],
    shown: dict[str, EncodedPrompt],
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, n_cut = by_hand()
    assert 10 < n_cut < len(whole)
    source = (f"data.path={files / 'rows.jsonl'}", f"runs_dir={tmp_path}")
    model = (f"backbone.path={files / 'weights'}",)
    prompts: dict[str, dict[str, tuple[int, ...]]] = {}

    def run(name: str, command: Any, *given: str) -> str:
        assert command.main([*given]) == 0
        prompts[name] = {i: one.ids for i, one in shown.items()}
        shown.clear()
        assert 0 < max(highest) < POSITIONS
        highest.clear()
        return capsys.readouterr().out

    learnt = ("trainer.max_epochs=1", "run=r", "finetune=lora")
    said = run("train", train, *DATA, *RUN, *source, *model, *learnt)
    cut = {i for i, ids in prompts["train"].items() if ids != whole[i]}
    counts = read_json(tmp_path / "r" / "manifest.json")["encoding"]
    assert len(cut) == n_cut == counts["truncated_examples"]
    n_turns = counts["dropped_turns"]
    reason = f"the model's {POSITIONS} positions, {ROOM} of them for the answer"
    assert (
        re.sub(r"\s+", " ", said).count(
            f"{n_cut} prompts lost {n_turns} of their oldest turns ({reason})"
        )
        == 1
    )
    asked = ("client=local", "run=asked", "decoding=scored")
    run("prompt", prompt, *DATA, *RUN, *source, *model, *asked)
    own = (f"model={tmp_path / 'r'}", "data=dialogues", "trainer=cpu")
    said = run("evaluate", evaluate, *own, f"data.path={files / 'new.jsonl'}", source[1])
    assert f"of their oldest turns ({reason})" in re.sub(r"\s+", " ", said)
    folder, answers = tmp_path / "r" / "fold0" / "model", tmp_path / "answers.jsonl"
    given = (f"model={folder}", f"input={files / 'rows.jsonl'}", f"output={answers}")
    said = run("predict", predict, "data=dialogues", *given)
    assert f"{n_cut} prompts lost {n_turns} of their oldest turns" in said
    assert all(row["skipped"] is None for row in read_jsonl(answers))
    detector = Detector.from_pretrained(folder)
    new = {e.id: detector.prompt_ids(as_row(e)) for e in corpus("cd")}
    assert prompts.pop("evaluate") == new
    prompts["detector"] = {e.id: detector.prompt_ids(as_row(e)) for e in corpus()}
    for found in prompts.values():
        assert found == prompts["train"]


def test_a_response_that_no_cut_makes_fit_is_refused_before_anything_is_trained(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [as_row(example) for example in corpus()]
    rows[7]["response"] = "so it goes " * POSITIONS
    data = tmp_path / "long.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = (f"data.path={data}", f"backbone.path={files / 'weights'}", f"runs_dir={tmp_path}")
    for command, own in ((train, ()), (prompt, ("client=local",))):
        assert command.main([*DATA, *RUN, *source, *own, "run=r"]) == 2
        said = capsys.readouterr().err
        assert f"1 prompts need more positions than the model's {POSITIONS}" in said
        assert "'a7'" in said
        assert "prompt.history=none" in said
        assert "so it goes" not in said
    # Where nothing is trained, the others are asked all the same.
    assert (
        train.main([*DATA, *RUN, f"data.path={files / 'rows.jsonl'}", *source[1:], "run=ok"]) == 0
    )
    answers = tmp_path / "answers.jsonl"
    model = f"model={tmp_path / 'ok' / 'fold0'}"
    assert predict.main([model, "data=dialogues", f"input={data}", f"output={answers}"]) == 0
    assert [row["id"] for row in read_jsonl(answers) if row["skipped"] == "too_long"] == ["a7"]


@pytest.mark.parametrize("cut", ["blocks", "turns"])
def test_a_model_remembers_how_its_prompts_were_cut(cut: str, files: Path, tmp_path: Path) -> None:
    source = (f"data.path={files / 'rows.jsonl'}", f"backbone.path={files / 'weights'}")
    given = (f"prompt.cut={cut}", "cv.fold=0", "trainer.max_epochs=1", "run=r")
    assert train.main([*DATA, *RUN, *source, f"runs_dir={tmp_path}", *given]) == 0
    folder = tmp_path / "r" / "fold0" / "model"
    settings = read_json(folder / "recap.json")
    assert settings["cut"] == cut
    ids = Detector.from_pretrained(folder).prompt_ids(as_row(corpus()[-1]))
    if cut == "turns":
        # Of an earlier version, which knew no other way.
        del settings["cut"]
        (folder / "recap.json").write_text(json.dumps(settings), encoding="utf-8")
        assert Detector.from_pretrained(folder).prompt_ids(as_row(corpus()[-1])) == ids
        assert POSITIONS - ROOM - len(ids) < 40
