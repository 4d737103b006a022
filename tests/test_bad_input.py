"""Mutated files through every reader: an account of every row, or one message; never a crash."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from faults import record_fault
from input_readers import (
    INPUT_READERS,
    InputReader,
    receive,
)
from mutations import MUTATIONS
from sample_files import Sample
from sound_files import REGISTERED

import recap.data.readers
from recap.data.readers.registry import READERS, get_reader

READS = {
    "recap.data.readers.files": {"json_rows", "text_lines"},
    "recap.data.readers.tables": {"read_sheet"},
    "recap.data.corpus": {"read_records"},
    "recap.metrics.files": {"predictions_from_jsonl"},
}
"""Functions through which rows of users' files come in."""

OWN_FILES = {
    "audit.run": "the canaries that it has planted, through data.corpus",
    "evaluate.cascade": "predictions.jsonl of runs",
    "report.runs": "predictions.jsonl and selection.jsonl of runs",
    "report.verify": "predictions.jsonl of runs",
    "corpus.sources": "what data.corpus yields",
}
"""Modules that use one of these on what the library has written, or on top of a reader below."""

LONGEST_SECONDS = 20
CASES = [(reader, sample) for reader in INPUT_READERS for sample in reader.samples]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One mutated file, and what is wrong with how it was received; empty when nothing is."""

    name: str
    applied: bool = True
    told: bool = False
    complaint: str = ""


def tried(reader: InputReader, sample: Sample, mutation: str, seed: int, folder: Path) -> Trial:
    name = f"{mutation} in {sample.ending} of {reader.name}, seed {seed}"
    content = MUTATIONS[mutation](sample, Random(name))
    if content is None:
        return Trial(name=name, applied=False)
    path = folder / f"input{sample.ending}"
    path.write_bytes(content)
    begun = time.process_time()
    verdict = receive(reader, path)
    seconds = time.process_time() - begun
    complaint = verdict.complaint
    if not complaint and seconds > LONGEST_SECONDS:
        complaint = f"took {seconds:.0f} s"
    return Trial(name=name, told=verdict.told, complaint=complaint)


def modules_that_read() -> set[str]:
    root = Path(recap.__file__).parent
    found = set()
    for file in root.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if not any(name in text for names in READS.values() for name in names):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and READS.get(str(node.module), set()) & {
                alias.name for alias in node.names
            }:
                found.add(".".join(file.relative_to(root).with_suffix("").parts))
    return found


def test_every_reader_of_the_registry_has_sound_files_here() -> None:
    modules = list(pkgutil.iter_modules(recap.data.readers.__path__))
    assert len(modules) > 5
    for module in modules:
        importlib.import_module(f"recap.data.readers.{module.name}")
    get_reader("demo")  # the one that reads no file
    assert set(READERS.names()) == {*REGISTERED, "demo"}


def test_every_module_that_reads_rows_is_among_the_readers_tried() -> None:
    covered = {module for reader in INPUT_READERS for module in reader.modules}
    reading = {m for m in modules_that_read() if not m.startswith("data.readers.")}
    assert len(reading) > 10
    assert reading - covered - OWN_FILES.keys() == set()
    assert OWN_FILES.keys() <= reading


@pytest.mark.parametrize(("reader", "sample"), CASES, ids=[f"{r.name}{s.ending}" for r, s in CASES])
def test_sound_files_are_read_without_a_fault(
    tmp_path: Path, reader: InputReader, sample: Sample
) -> None:
    path = tmp_path / f"input{sample.ending}"
    path.write_bytes(sample.content())
    account = reader.read(path)
    if account is not None:
        assert account.issues in ((), [])
        assert account.read == account.accepted >= 3


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutated_file_ends_in_an_account_or_one_message(tmp_path: Path, mutation: str) -> None:
    wanted = 2
    trials: list[Trial] = []
    start = list(MUTATIONS).index(mutation) * 7
    for step in range(len(CASES)):
        reader, sample = CASES[(start + step * 5) % len(CASES)]
        trial = tried(reader, sample, mutation, 0, tmp_path)
        trials += [trial] if trial.applied else []
        if len(trials) == wanted:
            break
    assert len(trials) == wanted
    assert [trial for trial in trials if trial.complaint] == []


@pytest.mark.slow
@pytest.mark.parametrize("reader", INPUT_READERS, ids=lambda reader: reader.name)
def test_every_mutation_of_every_reader_ends_in_an_account_or_one_message(
    tmp_path: Path, reader: InputReader
) -> None:
    trials = [
        trial
        for sample in reader.samples
        for mutation in MUTATIONS
        for seed in range(3)
        if (trial := tried(reader, sample, mutation, seed, tmp_path)).applied
    ]
    failed = [trial for trial in trials if trial.complaint]
    record_fault(
        "mutated input files",
        tried=len(trials),
        survived=len(trials) - len(failed),
        lost=len(failed),
    )
    assert len(trials) > 30
    assert sum(trial.told for trial in trials) > len(trials) / 3
    assert failed == []
