"""Who calls recap from Python is told what the console tells, once, and nothing else."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from detectors import small_task, write_model

import recap

OPTIONS = ["experiment=smoke", "runs_dir=runs", "logger=none", "run=r"]
SCRIPT = f"""
import json, logging, sys, warnings
if "before" in sys.argv: logging.basicConfig(level=logging.INFO, format="%(name)s|%(message)s")
import recap
import lightning.pytorch, transformers
from transformers.utils import logging as hugging_face

def state():
    names = ("", "recap", "lightning", "lightning.pytorch", "lightning.fabric", "transformers")
    loggers = [logging.getLogger(name) for name in names]
    shown = hugging_face.is_progress_bar_enabled()
    return [[x.level, x.propagate, len(x.handlers)] for x in loggers], shown, warnings.filters[:]

if __name__ == "__main__":
    config, cross_validate = recap.load_config({OPTIONS}), recap.cross_validate
    before = state()
    summary = cross_validate(config)
    print(json.dumps([summary.task, state() == before]))
"""
ADVERTISED = ("litlogger", "GPU available", "weights_only", "num_workers", "Loading weights")
ON_RESULTS = ("This corpus is synthetic", "times a session lies in test", "hold no label")


def test_every_public_name_is_there() -> None:
    assert len({getattr(recap, name) for name in recap.__all__}) == len(recap.__all__)


def run_script(
    folder: Path, root: Path, *arguments: str, python: tuple[str, ...] = (), end: str = ""
) -> subprocess.CompletedProcess[str]:
    (folder / "study.py").write_text(SCRIPT, encoding="utf-8")
    words = [sys.executable, *python, "study.py", *arguments]
    return subprocess.run(
        ["sh", "-c", f'"$@" {end}', "sh", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )


def without_seconds(line: str) -> str:
    return re.sub(r"\d+ s\b.*", "", line.removeprefix("recap|")).strip()


def test_a_script_is_warned_of_what_bears_on_results_and_hears_nothing_else(
    tmp_path: Path, project_root: Path
) -> None:
    done = run_script(tmp_path, project_root)
    assert done.returncode == 0, done.stderr
    # Nothing of other libraries is left changed.
    assert json.loads(done.stdout) == ["fine_grained", True]
    said = [line for line in done.stderr.splitlines() if not line.startswith("  ")]
    assert all(re.match(r"\S*study\.py:\d+: RecapWarning: ", line) for line in said), done.stderr
    for words in ON_RESULTS:
        assert sum(words in line for line in said) == 1
    assert not [word for word in ADVERTISED if word in done.stderr]


@pytest.mark.slow
def test_the_logger_says_what_the_console_says_and_no_warning_twice(
    tmp_path: Path, project_root: Path
) -> None:
    done = run_script(tmp_path, project_root, "before")
    (tmp_path / "runs").rename(tmp_path / "earlier")
    shown = subprocess.run(
        [sys.executable, "-m", "recap.train", *OPTIONS],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(project_root)},
        capture_output=True,
        text=True,
        check=True,
    )
    logged = [line for line in done.stderr.splitlines() if line.startswith("recap|")]
    warned = re.findall("RecapWarning: (.*)", done.stderr)
    assert not [line for line in done.stderr.splitlines() if "lightning" in line]
    said = [*map(without_seconds, logged), *warned]
    assert sorted(said) == sorted(filter(None, map(without_seconds, shown.stdout.splitlines())))
    assert shown.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("python", "end"),
    [
        (("-W", "error", "-W", "default::recap.errors.RecapWarning"), ""),
        ((), "2>&-"),
        ((), ">&- 2>&-"),
    ],
)
def test_other_libraries_warnings_and_closed_outputs_stop_nothing(
    python: tuple[str, ...], end: str, tmp_path: Path, project_root: Path
) -> None:
    done = run_script(tmp_path, project_root, python=python, end=end)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "r" / "summary.json").is_file()


def test_a_detector_counts_in_the_log_and_warns_where_labels_are_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = write_model(tmp_path / "m", small_task("binary"))
    caplog.set_level(logging.INFO, logger="recap")
    free = recap.Detector.from_pretrained(model, decoding="free")
    with pytest.warns(recap.RecapWarning, match="1 of 1 answers .100 %. hold no label") as caught:
        free.predict(["No.", " "])
    assert [(Path(warning.filename).name, len(caught)) for warning in caught] == [
        ("test_python_users.py", 1)
    ]
    assert caplog.messages == ["2 utterances; 1 skipped (empty); 1 invalid"]
    caplog.clear()
    scored = recap.Detector.from_pretrained(model, threshold=0.0)
    assert [found.label for found in scored.predict(iter(["No."]))] == ["Resistance"]
    assert caplog.messages == ["1 utterance; none skipped", "Resistance 1"]
