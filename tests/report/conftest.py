"""Three small runs over one partition: trained, TF-IDF and prompted."""

from __future__ import annotations

from pathlib import Path

import pytest

from recap.evaluate.__main__ import main as evaluate
from recap.prompt.__main__ import main as prompt
from recap.train.__main__ import main as train


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that holds the runs; copy it before you change anything in it."""
    folder = tmp_path_factory.mktemp("reported") / "runs"
    common = ["experiment=smoke", "task=binary", "logger=none", f"runs_dir={folder}"]
    assert train([*common, "run=trained"]) == 0
    assert evaluate([*common, "method=tfidf", "run=words"]) == 0
    assert prompt([*common, "run=asked"]) == 0
    return folder
