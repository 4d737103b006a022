"""What is gone on with was made by the same model, byte for byte; what differs is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import talk
from detectors import small_task, write_adapter, write_model
from shrunk import write_family

from recap.models.identity import DIGESTS_FILE, model_digests
from recap.predict import __main__ as predict
from recap.prompt import __main__ as prompt
from recap.train import __main__ as train

MIB = 1 << 20


def flip(file: Path) -> None:
    """Change the byte in the middle of a file, and give it back the time that it had."""
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = write_model(tmp_path / "model", small_task("binary"))
    # Longer than what the ends of a file show.
    (folder / "model-2.safetensors").write_bytes(bytes(3 * MIB))
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("{{ messages }}")
    return folder


@pytest.fixture
def again(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Annotate once; return what gives the same command again, its exit code and its words."""
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in talk.rows(4)), encoding="utf-8")
    out = tmp_path / "out" / "answers.jsonl"

    def command(*options: str) -> tuple[int, str]:
        given = [f"input={source}", f"output={out}", "device=cpu", *options]
        code = predict.main(given if options else [*given, f"model={model}"])
        told = capsys.readouterr()
        return code, told.out + told.err

    return command


@pytest.mark.parametrize(
    "name",
    [
        *("model.safetensors", "model-2.safetensors", "config.json", "generation_config.json"),
        *("tokenizer.json", "tokenizer_config.json", "recap.json", "chat_template.jinja"),
        "additional_chat_templates/tools.jinja",
    ],
)
def test_a_byte_of_any_file_makes_another_model(
    name: str, model: Path, again: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    assert again()[0] == 0
    before = (tmp_path / "out/answers.jsonl").read_bytes()
    if name.endswith(".json") and name != "tokenizer.json":
        values = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps({**values, "max_new_tokens": 13}))
    else:
        flip(model / name)
    code, said = again()
    assert code == 2
    assert f"was made by another model: model/{name} has changed;" in said
    assert "put back what it was, name another output, or begin again with resume=never" in said
    assert (tmp_path / "out/answers.jsonl").read_bytes() == before


def test_files_that_come_go_or_are_renamed_are_named(
    model: Path, again: Callable[..., tuple[int, str]]
) -> None:
    assert again()[0] == 0
    (model / "chat_template.jinja").rename(model / "added_tokens.json")
    code, said = again()
    assert code == 2
    assert "model/added_tokens.json is new, model/chat_template.jinja is gone;" in said


def test_a_model_may_move_be_touched_and_get_another_card(
    model: Path, again: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    assert again()[0] == 0
    moved = shutil.copytree(model, tmp_path / "moved")
    for file in moved.iterdir():
        os.utime(file, ns=(1, 1))
    (moved / "README.md").write_text("another card")
    (moved / ".cache").mkdir()
    config = (moved / "config.json").read_text()
    named = '{\n  "_name_or_path": "' + str(moved) + '",\n  '
    (moved / "config.json").write_text(config.replace("{\n  ", named, 1))
    code, said = again(f"model={moved}")
    assert code == 0
    assert "4 found" in said


def test_links_of_a_hub_cache_are_followed(
    model: Path, again: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    blobs = shutil.copytree(model, tmp_path / "blobs")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(file)
    assert again()[0] == 0
    assert again(f"model={snapshot}")[0] == 0
    other = shutil.copy(model / "tokenizer.json", tmp_path / "other.json")
    other.write_text(other.read_text() + "\n")
    (snapshot / "tokenizer.json").unlink()
    (snapshot / "tokenizer.json").symlink_to(other)
    code, said = again(f"model={snapshot}")
    assert code == 2
    assert "model/tokenizer.json has changed;" in said


@pytest.mark.parametrize("given", [True, False])
def test_an_adapter_is_as_much_its_base_as_itself(
    given: bool, again: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    base = write_family(tmp_path / "base", "qwen2")
    adapter = write_adapter(tmp_path / "adapter", small_task("binary"), base)
    assert again(f"model={adapter}")[0] == 0
    options = [f"model={adapter}"]
    if given:
        base = base.rename(tmp_path / "elsewhere")
        options.append(f"base={base}")
    assert again(*options)[0] == 0
    flip(base / "model.safetensors")
    code, said = again(*options)
    assert code == 2
    assert "model/base/model.safetensors has changed;" in said


@pytest.mark.parametrize("content", [None, b"", b"\xff\x00garbage", b"[]", b'0\n{"a": 1}', b"cut"])
def test_a_cache_that_is_gone_or_spoiled_costs_a_reading_and_no_more(
    content: bytes | None,
    model: Path,
    again: Callable[..., tuple[int, str]],
    tmp_path: Path,
) -> None:
    assert again()[0] == 0
    cache = tmp_path / "out" / DIGESTS_FILE
    whole = cache.read_bytes()
    assert cache.stat().st_mode & 0o777 == 0o600
    if content is None:
        cache.unlink()
    else:
        cache.write_bytes(whole[:-9] if content == b"cut" else content)
    assert again()[0] == 0
    assert cache.read_bytes() == whole
    digest = model_digests(model)["model.safetensors"].encode()
    cache.write_bytes(whole.replace(digest, b"0" * 64))
    assert again()[0] == 0


def test_weights_are_read_once_while_size_and_times_stay(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / DIGESTS_FILE
    first = model_digests(model, cache=cache)

    def read(action: Callable[[], object]) -> int:
        """Return how many bytes of the model are read while something is done."""
        before = _bytes_read()
        action()
        return _bytes_read() - before

    assert read(lambda: model_digests(model)) > 3 * MIB
    assert read(lambda: model_digests(model, cache=cache)) < MIB
    assert model_digests(model, cache=cache) == first
    (tmp_path / "file").mkdir()
    assert model_digests(model, cache=tmp_path / "file") == first
    assert model_digests(model, cache=tmp_path / "nowhere" / "x") == first


def _bytes_read() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])


def test_processes_at_once_find_the_same_digests(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / DIGESTS_FILE
    program = (
        "import json, sys; from pathlib import Path\n"
        "from recap.models.identity import model_digests\n"
        "print(json.dumps(model_digests(Path(sys.argv[1]), cache=Path(sys.argv[2]))))"
    )
    command = [sys.executable, "-c", program, str(model), str(cache)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate(timeout=120)[0] for process in started]
    assert [json.loads(one) for one in said] == [model_digests(model)] * 4
    assert len(json.loads(cache.read_text().partition("\n")[2])) >= 8


@pytest.fixture
def run_options(tmp_path: Path) -> list[str]:
    source = tmp_path / "labeled.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in talk.rows(16)), encoding="utf-8")
    base = write_family(tmp_path / "weights", "qwen2")
    given = ["data=dialogues", f"data.path={source}", f"runs_dir={tmp_path / 'runs'}", "cv.folds=2"]
    given += ["rationale=false", "logger=none", "trainer=cpu", "decoding.max_new_tokens=2"]
    return [*given, "task=binary", f"backbone.path={base}", "backbone.family=qwen2"]


@pytest.mark.parametrize("verb", ["train", "prompt"])
def test_folds_of_a_run_begin_from_one_model(
    verb: str, run_options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = {"train": train.main, "prompt": prompt.main}[verb]
    options = [*run_options, "run=r"]
    options += ["finetune=lora", "trainer.max_epochs=1"] if verb == "train" else []
    assert command([*options, "cv.fold=0"]) == 0
    assert command([*options, "cv.fold=0"]) == 0
    flip(tmp_path / "weights" / "model.safetensors")
    capsys.readouterr()
    assert command([*options, "cv.fold=1"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "is no longer the one that this run was begun with: model.safetensors has ch" in said
    assert "set run=NAME for a new run, or restore the files" in said


def test_kept_answers_to_prompts_are_those_of_the_same_bytes(
    run_options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "weights"
    assert prompt.main([*run_options, "cv.fold=0", "run=a"]) == 0
    for file in weights.iterdir():
        os.utime(file, ns=(1, 1))
    (weights / "README.md").write_text("a card")
    dry = [*run_options, "cv.fold=0", "run=b", "dry_run=true"]
    cache = tmp_path / "runs" / DIGESTS_FILE
    kept = cache.read_bytes()
    capsys.readouterr()
    assert prompt.main(dry) == 0
    assert "0 calls to make, 8 answers kept" in capsys.readouterr().out
    flip(weights / "model.safetensors")
    assert prompt.main(dry) == 0
    assert "8 calls to make, 0 answers kept" in capsys.readouterr().out
    assert cache.read_bytes() == kept


def test_a_model_that_learned_other_words_is_asked_and_that_is_said(
    model: Path, again: Callable[..., tuple[int, str]], caplog: pytest.LogCaptureFixture
) -> None:
    assert again()[0] == 0
    assert not caplog.messages
    values = json.loads((model / "recap.json").read_text())
    assert values["format"] == 2
    (model / "recap.json").write_text(json.dumps({**values, "format": 1}))
    code, _ = again(f"model={model}", "resume=never")
    assert code == 0
    assert [m for m in caplog.messages if "whose prompts described the answer in other words" in m]
