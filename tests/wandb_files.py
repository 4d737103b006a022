"""Reads W&B's offline files: a LevelDB log of protobuf records."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32 * 1024
HEADER = 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def read_records(path: Path) -> Iterator[Any]:
    """Yield the protobuf records of one ``.wandb`` file."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    position, parts = HEADER, b""
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        length = int.from_bytes(data[position + 4 : position + 6], "little")
        kind = data[position + 6]
        parts += data[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def read_run(path: Path) -> dict[str, Any]:
    """Return name, group, job type, config, history rows and last summary of a finished run."""
    run: dict[str, Any] = {"config": {}, "history": [], "summary": {}}
    for record in _finished(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run |= {
                "name": record.run.display_name,
                "group": record.run.run_group,
                "job_type": record.run.job_type,
            }
            run["config"] |= {u.key: json.loads(u.value_json) for u in record.run.config.update}
        elif kind == "history":
            run["history"].append({_key(i): json.loads(i.value_json) for i in record.history.item})
        elif kind == "summary":
            run["summary"] |= {_key(u): json.loads(u.value_json) for u in record.summary.update}
    return run


def _finished(path: Path) -> list[Any]:
    """Return the records of a run, as soon as it is written as a whole.

    ``Run.finish`` comes back about a millisecond before W&B's background process closes the file.
    """
    deadline = time.monotonic() + 5
    while True:
        records = list(read_records(path))
        if records and records[-1].WhichOneof("record_type") == "exit":
            return records
        assert time.monotonic() < deadline, f"{path.name} has no end"
        time.sleep(0.01)


def read_page(path: Path, key: str) -> str:
    """Return the HTML that an offline run logged last under a key."""
    return _media(path, key).read_text(encoding="utf-8")


def read_table(path: Path, key: str) -> list[dict[str, Any]]:
    """Return the rows of the table that an offline run logged last under a key."""
    table = json.loads(_media(path, key).read_text(encoding="utf-8"))
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def _media(path: Path, key: str) -> Path:
    """Return the file of what a ``.wandb`` file says was logged, checked against its hash."""
    said = read_run(path)["history"][-1]
    file = path.parent / "files" / said[f"{key}/path"]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == said[f"{key}/sha256"]
    return file


def _key(item: Any) -> str:
    return item.key or "/".join(item.nested_key)
