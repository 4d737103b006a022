"""Count the files of recap/ whose functions a command executes: what a reader could have to open.

Three walks, each in a process of its own: a smoke training, one predicted dialogue, a report of one
run. ``python benchmarks/walk.py`` prints the counts, ``--list`` the files too, ``--json FILE``
writes both. docs/architecture.md has the figures.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent / "recap"
DIALOGUE = {
    "session": "s1",
    "turns": [
        {"speaker": "counselor", "text": "What would help you this week?"},
        {"speaker": "client", "text": "Nothing would. I have tried it all before."},
    ],
}
TRAIN = ["train", "experiment=smoke", "logger=csv", "runs_dir=runs", "run=walk"]
WALKS = {
    "smoke training": (TRAIN,),
    "one predicted dialogue": (
        TRAIN,
        ["predict", "model=runs/walk", "input=dialogue.jsonl", "output=answers.jsonl"],
    ),
    "report of one run": (TRAIN, ["report", "runs=runs/walk", "out=report"]),
}
"""The commands of each walk; the last one is watched."""


def watched(arguments: list[str]) -> list[str]:
    """Run one command in this process and return the files whose functions it executed."""
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            seen.add(frame.f_code)

    from importlib import import_module

    verb, *rest = arguments
    main = import_module(f"recap.{verb}.__main__").main
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        code = main(rest)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert code == 0, f"recap {verb} ended with {code}"
    # Modules and class bodies run when they are imported; only functions have optimized locals.
    files = {Path(code.co_filename) for code in seen if code.co_flags & inspect.CO_OPTIMIZED}
    return sorted(
        str(file.relative_to(PACKAGE.parent)) for file in files if file.is_relative_to(PACKAGE)
    )


def walk(commands: tuple[list[str], ...], folder: Path) -> list[str]:
    """Run the commands in processes of their own in ``folder``; return what the last executed."""
    (folder / "dialogue.jsonl").write_text(json.dumps(DIALOGUE) + "\n", encoding="utf-8")
    found = folder / "files.json"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "HF_HUB_OFFLINE": "1"}
    for command in commands:
        subprocess.run(
            [sys.executable, __file__, "--watch", str(found), *command],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            check=True,
        )
    files: list[str] = json.loads(found.read_text(encoding="utf-8"))
    return files


def main() -> None:
    """Print how many files each walk executes functions of."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="name the files")
    parser.add_argument("--json", type=Path, help="write counts and files")
    parser.add_argument("--watch", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.watch:
        target, *command = given.watch
        Path(target).write_text(json.dumps(watched(command)), encoding="utf-8")
        return
    found = {}
    for name, commands in WALKS.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = walk(commands, Path(folder))
        print(f"{name:<24}{len(found[name]):>4} files", flush=True)
        if given.list:
            print("".join(f"    {file}\n" for file in found[name]), end="")
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
