from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from recap.cli import command as cli
from recap.cli.arguments import options_of
from recap.cli.command import ended_by_sigterm, with_exit_code


def test_every_verb_is_a_command_with_a_main() -> None:
    assert all(callable(import_module(f"recap.{verb}.__main__").main) for verb in cli.VERBS)


def test_without_a_verb_the_verbs_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert "train" in capsys.readouterr().out


def test_an_unknown_verb_is_answered_with_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian"]) == 2
    assert "did you mean 'train'?" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["train", "prompt", "evaluate", "plan", "audit"])
def test_help_explains_groups_and_examples_without_loading_torch(
    verb: str, tmp_path: Path, project_root: Path
) -> None:
    code = (
        f"import sys, recap.{verb}.__main__ as t; c = t.main(['--help']); "
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
        "audit": "step=plant",
        "evaluate": "method=tfidf,encoder",
    }
    assert shown[verb] in done.stdout
    assert done.stdout.rstrip().endswith("False")


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_fits_two_screens_and_options_tells_of_each_what_it_takes_and_means(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([verb, "--help"]) == 0
    page = capsys.readouterr().out
    assert len(page.splitlines()) <= 90
    assert "Examples" in page
    assert cli.main([verb, "--options"]) == 0
    told = capsys.readouterr().out
    blocks = re.split(r"\n(?! )", told.rstrip())
    assert {block.partition(":")[0] for block in blocks} == set(options_of(verb))
    assert [block for block in blocks if "\n    " not in block] == []
    assert not re.search(r"None|``|:class:|\bdict\b|\bstr\b|pydantic", told)


def test_options_shows_what_is_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--options", "task=binary", "cv.folds=3"]) == 0
    told = capsys.readouterr().out
    assert "\ncv.folds: whole number = 3\n" in told
    assert "\ncv.fold: all | final | whole number = all\n" in told
    assert "task.name: text = binary\n" in told
    assert "\noptimizer.betas: [number, ...] = [0.9, 0.999]\n    Decay rates" in told


def test_sigterm_ends_a_command_with_143_and_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def job() -> int:
        with ended_by_sigterm():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        return 0

    assert with_exit_code(job) == 143
    assert "the same command goes on where it was" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("verb", ["train", "prompt", "evaluate", "corpus"])
def test_a_file_without_its_reader_is_not_taken_for_the_demo(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("{}\n", encoding="utf-8")
    more = {"evaluate": ["method=tfidf"], "corpus": ["action=describe"]}.get(verb, [])
    runs = [] if verb == "corpus" else [f"runs_dir={tmp_path / 'runs'}"]
    assert cli.main([verb, f"data.path={file}", *more, *runs]) == 2
    assert "data=dialogues" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
