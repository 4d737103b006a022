"""Disks that are full, read-only or closed, at each kind of write: nothing lost, one message."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path

import pytest
from fake_servers import serving
from faults import record_fault
from small_disk import Case, Outcome, Walk, may_mount, walked

from recap.data.demo import generate_dialogues
from recap.errors import ConfigError
from recap.system.files import DiskError, disk_error, whole_folder, writing
from recap.train import __main__ as train

needs_mount = pytest.mark.skipif(not may_mount(), reason="needs the right to mount a small tmpfs")

ROW = "full, read-only and closed disks"

VOLATILE = (
    "*manifest.json",
    "*history.csv",
    "*.lock",
    "*/logs/*",
    "*.state.json",
    "*.model-digests.json",
    "*/.budget/*",
    "*.xlsx",
)
"""They hold times, or what failed on the way."""

SMALL = ("data=demo", "data.options.size=160")
BRIEF = ("prompt=brief", "prompt.max_tokens=300", "decoding.max_new_tokens=8", "cv.folds=2")
SMOKE = ("task=binary", *SMALL, *BRIEF, "trainer.max_epochs=1", "logger=none")


def check(walk: Walk, *, row: str) -> None:
    """Check every outcome of a case, and write down how many there were."""
    assert walk.plain.code == 0, walk.plain.err
    issues = [(each, "No space left on device|needs at least", "make room") for each in walk.full]
    issues += [
        (walk.read_only, "Read-only file system", "another folder"),
        (walk.closed, "Permission denied", "another folder"),
    ]
    assert walk.full[0].code != 0, "the smallest disk was large enough"
    for outcome, reason, hint in issues:
        if outcome.code != 0:
            assert one_message(outcome, reason, hint), outcome.err
        else:  # a disk that was large enough
            assert reason.startswith("No space")
            assert sound(outcome.files) == sound(walk.plain.files)
        for name, digest in sound(walk.before).items():
            assert outcome.files.get(name) in (digest, walk.plain.files.get(name)), name
        assert [name for name in outcome.files if half_written(name)] == []
    for outcome in walk.resumed:
        assert outcome.code == 0, outcome.err
        assert sound(outcome.files) == sound(walk.plain.files)
    record_fault(row, tried=len(issues), survived=len(issues), lost=0)


def one_message(outcome: Outcome, reason: str, hint: str) -> bool:
    said = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    traceback = "Traceback" in outcome.err
    return (
        len(said) == 1
        and re.search(reason, said[0]) is not None
        and hint in said[0]
        and not traceback
    )


def sound(files: dict[str, str]) -> dict[str, str]:
    return {
        name: digest
        for name, digest in files.items()
        if not any(fnmatch(name, pattern) for pattern in VOLATILE)
    }


def half_written(name: str) -> bool:
    return any(
        part.endswith((".partial", ".replaced")) or re.fullmatch(r"\..+\.\w{8}", part)
        for part in Path(name).parts
    )


def place(tmp_path: Path) -> str:
    folder = tmp_path / "disk"
    folder.mkdir()
    return str(folder)


def one_answer(_: object) -> str:
    return "Behavior: Collaboration\nReason: it answers."


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run, of which other commands make use."""
    runs = tmp_path_factory.mktemp("trained")
    assert train.main([*SMOKE, "finetune=lora", "run=r", f"runs_dir={runs}"]) == 0
    return runs / "r"


@needs_mount
def test_tables_and_sheets(tmp_path: Path) -> None:
    given = [*SMALL, "action=assign", "out=found", "assign.annotators=[ann,bo]"]
    before = [[*given, "assign.annotators=[ann,cy]"]]
    case = Case(
        module="recap.corpus", arguments=given, before=before, points=4, place=place(tmp_path)
    )
    check(walked(case), row=f"{ROW}: corpus")


CORPUS = {
    "describe": (),
    "validate": (),
    "codebook": (),
    "lexicon": (),
    "ratings": (),
}


@needs_mount
@pytest.mark.slow
@pytest.mark.parametrize("action", CORPUS)
def test_the_corpus_command(action: str, tmp_path: Path) -> None:
    given = [*SMALL, f"action={action}", "out=found", *CORPUS[action]]
    # Sheets that may have been filled in are not replaced.
    before = [] if action == "ratings" else [[*given, "data.options.seed=1"]]
    case = Case(module="recap.corpus", arguments=given, before=before, place=place(tmp_path))
    check(walked(case), row=f"{ROW}: corpus")


@needs_mount
@pytest.mark.slow
@pytest.mark.parametrize("action", ["sessions", "supervision", "card"])
def test_the_insights_command(action: str, tmp_path: Path) -> None:
    given = [*SMALL, f"action={action}", "out=found", "resamples=20"]
    given += ["supervision.excel=true"] if action == "supervision" else []
    before = [[*given, "data.options.seed=1"]]
    case = Case(module="recap.insights", arguments=given, before=before, place=place(tmp_path))
    check(walked(case), row=f"{ROW}: insights")


@needs_mount
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_training(kind: str, tmp_path: Path) -> None:
    given = [*SMOKE, f"finetune={kind}", "run=r", "checkpoint.every_steps=2"]
    before = [[*given, "cv.fold=0"], [*SMOKE, "run=other", "cv.fold=1"]]
    case = Case(
        module="recap.train", arguments=given, before=before, points=12, place=place(tmp_path)
    )
    check(walked(case), row=f"{ROW}: training")


@needs_mount
@pytest.mark.slow
@pytest.mark.parametrize("method", ["tfidf", "encoder"])
def test_baselines(method: str, tmp_path: Path) -> None:
    given = [*SMALL, f"method={method}", "task=binary", "cv.folds=2", "run=b", "logger=none"]
    given += ["encoder.max_epochs=1"]
    case = Case(module="recap.evaluate", arguments=given, points=12, place=place(tmp_path))
    check(walked(case), row=f"{ROW}: baselines")


@needs_mount
@pytest.mark.slow
def test_an_evaluation(run: Path, tmp_path: Path) -> None:
    given = [f"model={run}", "cv.fold=0", "out=found"]
    case = Case(
        module="recap.evaluate",
        arguments=given,
        before=[[f"model={run}", "cv.fold=1", "out=found"]],
        place=place(tmp_path),
    )
    check(walked(case), row=f"{ROW}: evaluation")


@needs_mount
@pytest.mark.slow
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_annotation(ending: str, run: Path, tmp_path: Path) -> None:
    dialogues = tmp_path / "dialogues.jsonl"
    rows = (asdict(dialogue) for dialogue in generate_dialogues(size=64, seed=3))
    dialogues.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    given = [
        f"model={run}/fold0/model",
        f"input={dialogues}",
        f"output=found.{ending}",
    ]
    case = Case(module="recap.predict", arguments=given, points=12, place=place(tmp_path))
    check(walked(case), row=f"{ROW}: annotation")


@needs_mount
@pytest.mark.slow
def test_a_prompted_run(tmp_path: Path) -> None:
    with serving(answer=one_answer) as server:
        given = [*SMALL, "task=binary", "cv.folds=2", "run=asked", "logger=none"]
        given += ["client=openai", "client.model=m", f"client.base_url={server.url}/v1"]
        case = Case(module="recap.prompt", arguments=given, points=12, place=place(tmp_path))
        check(walked(case), row=f"{ROW}: prompted runs")


@needs_mount
@pytest.mark.slow
@pytest.mark.parametrize("module", ["plan", "report", "audit"])
def test_findings_of_other_commands(module: str, run: Path, tmp_path: Path) -> None:
    given = {
        "plan": [*SMOKE, "out=found"],
        "report": [f"runs={run}", "resamples=20", "out=found"],
        "audit": [f"model={run}", "cv.fold=0", "most=8", "out=found"],
    }[module]
    case = Case(module=f"recap.{module}", arguments=given, before=[given], place=place(tmp_path))
    check(walked(case), row=f"{ROW}: {module}")


def raised(call: Callable[[], None]) -> BaseException:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - it is what is asked for
        return error
    raise AssertionError("nothing was raised")


def test_a_write_that_does_not_fit_names_the_file_and_the_mend(tmp_path: Path) -> None:
    file = tmp_path / "a.json"

    def write() -> None:
        with writing(file):
            raise OSError(errno.ENOSPC, "No space left on device")

    told = disk_error(raised(write))
    assert isinstance(told, DiskError)
    assert re.search(rf"{file}: No space left.*MB are free there.*make room", str(told))


def test_errors_of_libraries_that_name_the_systems_code_are_understood() -> None:
    def write() -> None:
        try:
            raise ValueError("I/O error: No space left on device (os error 28)")
        except ValueError:
            raise KeyError("what a full disk has spoilt") from None

    assert isinstance(disk_error(raised(write)), DiskError)


def test_a_denial_that_was_dealt_with_hides_no_later_error() -> None:
    def deny() -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "f")

    def go_on() -> None:
        try:
            deny()
        finally:
            raise KeyError("a mistake of ours")

    assert isinstance(disk_error(raised(deny)), ConfigError)
    assert disk_error(raised(go_on)) is None


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for text in ("old", "new"):
        with whole_folder(folder) as partial:
            (partial / "a").write_text(text)
            assert not folder.exists() or (folder / "a").read_text() == "old"

    def fail() -> None:
        with whole_folder(folder) as partial:
            (partial / "a").write_text("half")
            raise ZeroDivisionError

    assert isinstance(raised(fail), ZeroDivisionError)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (folder / "a").read_text() == "new"


def test_what_was_told_in_our_words_keeps_them(tmp_path: Path) -> None:
    def write() -> None:
        with writing(tmp_path / "a"):
            try:
                raise PermissionError(errno.EACCES, "Permission denied", "f")
            except PermissionError as error:
                raise ConfigError("name another base") from error

    assert str(raised(write)) == "name another base"
