"""A server that others wrote, with a real model: transformers' own, over loopback."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from socket import socket
from typing import Any
from urllib.request import urlopen

import pytest
from builders import read_jsonl, write_jsonl

from recap.prompt import __main__ as prompt

NAME = "smollm2-135m-instruct"
NEEDED = ("fastapi", "uvicorn", "openai")
SECONDS_TO_START = 90


@pytest.fixture(scope="module")
def server(
    project_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """Start ``transformers serve``; yield its address, and what it calls the model."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        pytest.skip(f"transformers serve needs {', '.join(missing)}: pip install -e '.[dev]'")
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = str(project_root / ".pretrained" / NAME)
    serve = ["-m", "transformers.cli.transformers", "serve", folder, "--host", "127.0.0.1"]
    serve += ["--port", str(port), "--device", "cpu", "--dtype", "float32"]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, *serve], stdout=out, stderr=out)
        try:
            _await(process, port, log)
            yield f"http://127.0.0.1:{port}/v1", folder
        finally:
            process.kill()
            process.wait()


def said_of_drinking() -> list[dict[str, Any]]:
    """Return ten labeled utterances of clients who are asked about drinking."""
    asked = [{"speaker": "counselor", "text": "What would you like to do about your drinking?"}]
    said = {
        "change": "I want to stop, and I will begin this",
        "neutral": "I had two glasses of beer on",
        "sustain": "I like it as it is, and I will drink on",
    }
    days = ["Monday", "Tuesday", "Wednesday", "Thursday"]
    pairs = [(label, day) for day in days for label in said][:10]
    return [
        {"id": f"e{n}", "history": asked, "response": f"{said[label]} {day}.", "label": label}
        for n, (label, day) in enumerate(pairs)
    ]


def _await(process: Any, port: int, log: Path) -> None:
    ends = time.monotonic() + SECONDS_TO_START
    while process.poll() is None and time.monotonic() < ends:
        with suppress(OSError):
            urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return
        time.sleep(0.2)
    raise AssertionError(log.read_text(errors="replace")[-2000:])


@pytest.mark.pretrained
def test_a_server_gives_the_labels_of_the_same_model_on_this_machine(
    server: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, model = server
    data = write_jsonl(tmp_path / "talk.jsonl", said_of_drinking())
    common = ["data=dialogues", f"data.path={data}", "data.language=en", "task=annomi_talk"]
    common += [f"runs_dir={tmp_path}", "logger=none", "cv.folds=2", "cv.fold=0"]
    common += ["prompt=full", "decoding.max_new_tokens=14"]
    asked = ["client=openai", f"client.base_url={url}", f"client.model={model}"]
    # Slow machines share two cores with other tests.
    asked += ["client.timeout_seconds=300", "client.max_in_flight=1"]
    assert prompt.main([*common, "run=here", "backbone=smollm2", "trainer=cpu"]) == 0
    assert prompt.main([*common, "run=there", *asked]) == 0

    def answers(run: str) -> list[dict[str, Any]]:
        return read_jsonl(tmp_path / run / "fold0/predictions.jsonl")

    here, there = answers("here"), answers("there")
    assert len(here) == 5
    assert any(row["label"] for row in here)
    for key in ("id", "label", "text"):
        assert [row[key] for row in there] == [row[key] for row in here], key
    # It takes top_logprobs, and tells none.
    assert {str(row["probabilities"]) for row in there} == {"None"}
    capsys.readouterr()
    # A model that the server does not have: one message, at once.
    wrong = [*common, "run=wrong", *asked[:2], "client.model=other"]
    assert prompt.main(wrong) == 2
    assert "check client.model and client.base_url" in capsys.readouterr().err
