"""A corpus, and two stages trained on it once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from talk import rows, write_rows

from recap.train import __main__ as train

TRAINED = [
    *("data=dialogues", "rationale=false", "cv.folds=2", "global_batch_size=8", "logger=none"),
    *("trainer.max_epochs=8", "trainer.patience=8", "optimizer.learning_rate=3e-3"),
    *("decoding.max_new_tokens=12", "prompt.history=none", "trainer=cpu"),
]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "corpus.jsonl", rows())


@pytest.fixture(scope="session")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the finished runs ``binary`` and ``fine``."""
    runs_dir = tmp_path_factory.mktemp("trained")
    for task, run in (("binary", "binary"), ("fine_grained", "fine")):
        overrides = [f"task={task}", f"run={run}", f"data.path={corpus}", f"runs_dir={runs_dir}"]
        assert train.main([*overrides, *TRAINED]) == 0
    return runs_dir
