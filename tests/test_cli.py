from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from recap import cli


def test_every_verb_is_a_command_with_a_main() -> None:
    assert all(callable(import_module(f"recap.{verb}").main) for verb in cli.VERBS)


def test_without_a_verb_the_verbs_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert "train" in capsys.readouterr().out


def test_an_unknown_verb_is_answered_with_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian"]) == 2
    assert "did you mean 'train'?" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["train", "prompt", "evaluate", "plan"])
def test_help_explains_groups_and_examples_without_loading_torch(
    verb: str, tmp_path: Path, project_root: Path
) -> None:
    code = (
        f"import sys, recap.{verb} as t; c = t.main(['--help']); "
        "print('torch' in sys.modules); sys.exit(c)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(project_root)},
        check=True,
    )
    assert "task: annomi_talk, binary, fine_grained, flat" in done.stdout
    assert f"python -m recap.{verb} " in done.stdout
    shown = {
        "train": "experiment=smoke",
        "prompt": "client: anthropic, local, openai",
        "plan": "plan.tflops=989",
        "evaluate": "method=tfidf,encoder",
    }
    assert shown[verb] in done.stdout
    assert done.stdout.rstrip().endswith("False")
