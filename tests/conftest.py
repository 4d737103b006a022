"""What every test stands on: no network, one thread, and marks that skip aloud."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

GUARDS = Path(__file__).resolve().parent / "guards"
sys.path.insert(1, str(GUARDS))

import network_guard  # noqa: E402 - found through the line above
from built_once import BuiltOnce, SharedFolders  # noqa: E402 - tests are on the path after all
from faults import record_fault  # noqa: E402 - tests are on the path after all

REAL_DATA = "RECAP_REAL_DATA"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

# Set before anything imports torch or a hub client, and inherited by the commands that tests start.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_ERROR_REPORTING"] = "false"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"
# A tiny model loses time to a second thread, and sums in one order are the same on every machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Thousands of tests keep their modules; to go through these less often saves a tenth of the time.
gc.set_threshold(20_000)
# In this process and, through sitecustomize, in those that tests start; each worker has its file.
_outgoing = tempfile.NamedTemporaryFile(prefix="recap-outgoing-")  # noqa: SIM115 - to the end
os.environ[network_guard.ATTEMPTS_FILE] = _outgoing.name
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(GUARDS), os.environ.get("PYTHONPATH")])
)
network_guard.install()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine lacks the data or the device for."""
    if not os.environ.get(REAL_DATA):
        _skip(items, "real_data", f"set {REAL_DATA} to the folder that holds annomi/, psyguard/, …")
    if not (Path(__file__).resolve().parents[1] / ".pretrained/smollm2-135m-instruct").is_dir():
        _skip(items, "pretrained", "needs real weights: make pretrained")
    if any(item.get_closest_marker("gpu") for item in items) and not _has_gpu():
        _skip(items, "gpu", "needs a CUDA device")
    if not any(map(shutil.which, BROWSERS)):
        _skip(items, "browser", "needs a browser: apt install chromium")


def pytest_collection_finish() -> None:
    """Spare the collector what stays to the end: half a million objects of imported libraries."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests on real data ran, so that nobody takes a skip for a pass."""
    stats = terminalreporter.stats

    def count(*outcomes: str) -> int:
        reports = [report for outcome in outcomes for report in stats.get(outcome, [])]
        return sum("real_data" in report.keywords for report in reports)

    ran, skipped = count("passed", "failed"), count("skipped")
    if ran or skipped:
        terminalreporter.write_line(f"real_data: {ran} ran, {skipped} skipped")


def _skip(items: list[pytest.Item], mark: str, reason: str) -> None:
    for item in items:
        if item.get_closest_marker(mark):
            item.add_marker(pytest.mark.skip(reason=reason))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(autouse=True)
def _no_outgoing_connections() -> Iterator[None]:
    """Fail a test that tried to reach another machine, even where the attempt was swallowed."""
    attempts = Path(_outgoing.name)
    before = attempts.stat().st_size
    yield
    told = attempts.read_bytes()[before:].decode()
    record_fault(
        "tests with outgoing sockets blocked",
        tried=1,
        survived=int(not told),
        lost=int(bool(told)),
    )
    if told:
        pytest.fail(f"left this machine:\n{told}")


@pytest.fixture(scope="session")
def project_root() -> Path:
    """Return the checkout that the tests belong to."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def browser() -> str:
    """Return a browser's program; for tests marked ``browser``."""
    return next(filter(None, map(shutil.which, BROWSERS)))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real corpora; for tests marked ``real_data``."""
    folder = Path(os.environ[REAL_DATA]).expanduser().resolve()
    assert folder.is_dir(), f"{REAL_DATA} names {folder}, which is not a folder"
    return folder


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuiltOnce]:
    """Return what makes a folder once for all workers; who changes anything copies it first."""
    shared = SharedFolders(tmp_path_factory)
    yield shared.built
    assert shared.changed() == [], "a test has written into a folder that others read"


@pytest.fixture(scope="session")
def corpus(built_once: BuiltOnce) -> Path:
    """Return a corpus of eighty examples that a tiny model can learn."""
    return built_once("corpus", _write_corpus) / "corpus.jsonl"


def _write_corpus(folder: Path) -> None:
    from builders import write_jsonl
    from talk import rows

    write_jsonl(folder / "corpus.jsonl", rows())


@pytest.fixture(scope="session")
def trained(corpus: Path, built_once: BuiltOnce) -> Path:
    """Return the folder of ``binary``, with W&B, and ``fine``: runs whose models have learned."""

    def train(folder: Path) -> None:
        from talk import LEARNING

        from recap.train.__main__ import main

        common = [*LEARNING, f"data.path={corpus}", f"runs_dir={folder}"]
        assert main([*common, "task=binary", "run=binary"]) == 0
        assert main([*common, "task=fine_grained", "run=fine", "logger=none"]) == 0

    return built_once("trained", train)


@pytest.fixture(scope="session")
def small_runs(built_once: BuiltOnce) -> Path:
    """Return the folder of ``trained``, ``words`` (TF-IDF) and ``asked``, over one partition."""

    def make(folder: Path) -> None:
        from recap.evaluate.__main__ import main as evaluate
        from recap.prompt.__main__ import main as prompt
        from recap.train.__main__ import main as train

        common = ["experiment=smoke", "task=binary", "logger=none", f"runs_dir={folder}"]
        assert train([*common, "run=trained"]) == 0
        assert evaluate([*common, "method=tfidf", "run=words"]) == 0
        assert prompt([*common, "run=asked"]) == 0

    return built_once("small_runs", make)
