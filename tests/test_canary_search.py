"""The search for planted texts finds them, in whatever form they lie."""

from __future__ import annotations

import base64
import gzip
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from canaries import CANARIES, STEM, World, corpus_lines, faulty_lines, readings, search

from recap.models.backbone import tiny_tokenizer

ENCODINGS: dict[str, Any] = {
    "utf-8": lambda text: text.encode(),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16-be": lambda text: text.encode("utf-16-be"),
    "json": lambda text: json.dumps({"a": [text]}).encode(),
    "repr": lambda text: ascii(text).encode(),
    "base64": lambda text: base64.b64encode(f"some {text} words".encode()),
    "base64, one on": lambda text: base64.b64encode(f"some. {text} words".encode()),
    "base64, two on": lambda text: base64.b64encode(f"some.. {text} words".encode()),
    "base64 of utf-16": lambda text: base64.b64encode(f"some {text} words".encode("utf-16-le")),
    "hex": lambda text: text.encode().hex().encode(),
}


def kinds_in(path: Path) -> set[str]:
    return {kind for _, content in readings(path) for kind, _ in search(content)}


@pytest.mark.parametrize("kind", CANARIES)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_kind_is_found_in_every_encoding(kind: str, encoding: str) -> None:
    content = b"before " + ENCODINGS[encoding](CANARIES[kind]) + b" after"
    assert [found for found, _ in search(content)] == [kind]
    assert list(search(b"before and after " + STEM[:-2].encode())) == []


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_texts_are_found_in_pickles_however_they_are_packed(protocol: int, tmp_path: Path) -> None:
    pickled = pickle.dumps({"a": list(CANARIES.values())}, protocol=protocol)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("deep/down.pkl", gzip.compress(pickled))
    file = tmp_path / "data.bin"
    file.write_bytes(inner.getvalue())
    assert kinds_in(file) == set(CANARIES)


def test_texts_are_found_in_checkpoints_and_so_are_their_ids(tmp_path: Path) -> None:
    from canaries import token_forms

    file = tmp_path / "a.ckpt"
    ids = tiny_tokenizer()(f"Well, {CANARIES['utterance']} then.", add_special_tokens=False)
    torch.save({"said": CANARIES["chinese"], "ids": torch.tensor(ids["input_ids"])}, file)
    assert kinds_in(file) == {"chinese"}
    contents = [content for _, content in readings(file)]
    assert any(form in content for form in token_forms("utterance") for content in contents)


def test_texts_across_the_blocks_of_wandbs_files_are_found(tmp_path: Path) -> None:
    from wandb.proto import wandb_internal_pb2

    # LevelDB's log format: 32 KiB blocks, a record cut into first, middle and last pieces.
    record = wandb_internal_pb2.Record()
    for number in range(4_000):
        record.output.line += f"{number} {CANARIES['utterance']}\n"
    data, log = record.SerializeToString(), bytearray(b"\0" * 7)
    begun = False
    while data:
        room = 32 * 1024 - len(log) % (32 * 1024) - 7
        piece, data = data[:room], data[room:]
        kind = {(False, True): 1, (False, False): 2, (True, False): 3, (True, True): 4}[
            begun, not data
        ]
        log += b"\0" * 4 + len(piece).to_bytes(2, "little") + bytes([kind]) + piece
        begun = True
    file = tmp_path / "run.wandb"
    file.write_bytes(log)
    (name, whole), *rest = list(readings(file))[1:]
    assert name == "record 0"
    assert not rest
    assert whole.count(CANARIES["utterance"].encode()) == 4_000
    assert log.count(CANARIES["utterance"].encode()) < 4_000


def test_a_world_is_searched_whole_and_inputs_count_only_when_changed(tmp_path: Path) -> None:
    world = World(tree=tmp_path)
    given = world.given("corpus.jsonl", corpus_lines())
    assert world.files() == []
    (tmp_path / "home" / ".cache").mkdir()
    (tmp_path / "home" / ".cache" / "x").write_text(CANARIES["emoji"], encoding="utf-8")
    (tmp_path / "tmp" / CANARIES["session"]).write_text("", encoding="utf-8")
    given.write_text(given.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    names = {path.name for path in world.files()}
    assert names == {"x", CANARIES["session"], "corpus.jsonl"}
    assert "../home/.cache/x" in world.open_to_others()


def test_every_kind_is_planted(tmp_path: Path) -> None:
    planted = {kind for kind, _ in search((corpus_lines() + faulty_lines()).encode())}
    elsewhere = {"prompt_file", "api_key", "answer", "data_path"}
    assert planted == set(CANARIES) - elsewhere
    assert len(CANARIES) >= 20
