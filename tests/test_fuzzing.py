"""A coverage-guided fuzzer finds no input that a reader or the parser cannot take."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from faults import record_fault
from fuzzing import TARGETS, write_seeds, write_words

SECONDS = int(os.environ.get("RECAP_FUZZ_SECONDS", "60"))
"""How long each target is fuzzed."""


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_the_fuzzer_finds_nothing(tmp_path: Path, project_root: Path, target: str) -> None:
    pytest.importorskip("atheris", reason="the fuzzer is installed on Linux (x86-64) alone")
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    write_seeds(target, seeds)
    write_words(tmp_path / "words")
    done = subprocess.run(
        [
            *(sys.executable, str(project_root / "tests" / "fuzzing.py"), target, str(seeds)),
            *(f"-max_total_time={SECONDS}", "-max_len=4096", "-timeout=30", "-rss_limit_mb=2048"),
            *(
                "-print_final_stats=1",
                "-seed=1",
                f"-dict={tmp_path / 'words'}",
                f"-artifact_prefix={tmp_path}/",
            ),
        ],
        env={**os.environ, "PYTHONPATH": str(project_root), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS + 300,
    )
    tried = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
    found = [
        p.read_bytes() for kind in ("crash", "oom", "timeout") for p in tmp_path.glob(f"{kind}-*")
    ]
    units = int(tried[1]) if tried else 0
    record_fault(
        "fuzzed inputs",
        tried=units,
        survived=units - len(found),
        lost=len(found),
        note=f"{SECONDS} s each of readers and parser",
    )
    assert (done.returncode, found) == (0, []), done.stderr[-3000:]
    assert units > 10 * len(list(seeds.glob("seed*")))
