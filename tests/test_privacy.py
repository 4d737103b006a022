"""Words of clients stand where they are meant to stand: a handful of commands.

``tests/test_canaries.py`` has all commands, under the mark ``slow``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import prediction, read_jsonl
from canaries import CANARIES, World, corpus_lines, faulty_lines, token_forms
from wandb_files import read_table

from recap.predict.output import OWN_COLUMNS
from recap.records import Example
from recap.runs.wandb import WandbTracker

ALLOWED = {
    "stdout": {"data_path", "example_id"},
    "stderr": {"data_path", "example_id"},
    "title": {"data_path"},
    "*/config.yaml": {"data_path"},
    "*/leakage.json": {"session", "client", "example_id"},
    "*/predictions.jsonl": {"session", "example_id"},
}
TRAIN = (
    *("train", "task=binary", "experiment=smoke", "prompt=brief", "prompt.max_tokens=300"),
    *("decoding.max_new_tokens=8", "cv.fold=0", "run=r", "data=dialogues"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tree=tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def corpus(world: World) -> Path:
    return world.given(f"{CANARIES['data_path']}/corpus.jsonl", corpus_lines())


@pytest.fixture(scope="module")
def trained(world: World, corpus: Path) -> Path:
    ended = world.run(*TRAIN, f"data.path={corpus}")
    assert ended.code == 0, ended.stderr
    extra = token_forms("utterance", "history_client", "rationale")
    assert world.finds(ended, ALLOWED, extra=extra) == []
    assert world.open_to_others() == []
    world.settle()
    return world.cwd / "runs/r"


def test_training_leaves_no_words_outside_of_predictions(trained: Path) -> None:
    assert (trained / "wandb").is_dir()
    for name in ("fold0/predictions.jsonl", "leakage.json"):
        assert (trained / name).stat().st_mode & 0o777 == 0o600


def test_rows_at_fault_are_described_and_not_quoted(world: World) -> None:
    faulty = world.given("faulty.jsonl", faulty_lines())
    ended = world.run("corpus", "action=validate", "data=dialogues", f"data.path={faulty}")
    assert ended.code == 2
    assert "19 of 19 rows cannot be used" in ended.stderr
    assert world.finds(ended, ALLOWED) == []


def test_ids_can_take_the_place_of_texts_in_annotations(
    world: World, corpus: Path, trained: Path
) -> None:
    given = (f"model={trained}", f"input={corpus}", "output=a.jsonl", "prompt.max_tokens=300")
    ended = world.run("predict", *given, "privacy.replace_text=true")
    assert ended.code == 0, ended.stderr
    allowed = {**ALLOWED, "a.jsonl": {"session", "example_id"}, "a.jsonl.state.json": {"meta_key"}}
    assert world.finds(ended, allowed) == []
    assert world.open_to_others() == []
    rows = read_jsonl(world.cwd / "a.jsonl")
    assert len(rows) == 16 * 3  # every client turn
    skipped = [row["skipped"] for row in rows if row["skipped"]]
    assert len(skipped) < 10, skipped
    for row in rows:
        assert row["response"] == row["id"]
        assert row["text"] == (None if row["skipped"] else row["id"])
        assert set(row) <= {*OWN_COLUMNS, "gold", "gold_rationale"}
    assert {row["gold_rationale"] for row in rows if "gold" in row} == {
        f"{CANARIES['example_id']}-{number}" for number in range(16)
    }


def test_wandb_gets_a_table_of_texts_from_those_who_ask_for_it(tmp_path: Path) -> None:
    tracker = WandbTracker(folder=tmp_path, group="g", project="p", mode="offline", options={})
    example = Example(id="e1", history=(), response="I would rather not.", label="Reluctance")
    said = prediction("e1", "Reluctance", None, text="?")
    tracker.start_fold("fold0")
    tracker.log_texts([(example, said)])
    tracker.log_fold(None)
    (file,) = tmp_path.rglob("*.wandb")
    assert read_table(file, "predictions") == [
        {
            "id": "e1",
            "dialogue": "client: I would rather not.",
            "gold": "Reluctance",
            "gold_rationale": "",
            "label": "",
            "rationale": "",
            "text": "?",
        }
    ]
