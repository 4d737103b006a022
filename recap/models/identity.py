"""Whether a model is still the one that answered: a digest of every file that matters, whole.

Whatever goes on with answers that are there (annotations, folds of a run, kept answers to prompts)
compares these digests first.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from recap.models.hub import NOT_NEEDED, local_path
from recap.system.files import lock, open_lock

DIGESTS_FILE = ".model-digests.json"
"""Beside what a command writes: what was digested, with the sizes and times of the files."""

_TEMPLATES = "additional_chat_templates"
"""The one folder inside a model's that a tokenizer is read from (transformers 5.23)."""

_CONFIGURATIONS = ("config.json", "adapter_config.json")
_PLACE = re.compile(rb'"(?:base_model)?_name_or_path"\s*:\s*(?:"(?:[^"\\]|\\.)*"|null)\s*,?\s*')
"""Where in a configuration it says where something lay when it was written."""


def model_digests(
    folder: Path, *, base: Path | None = None, cache: Path | None = None
) -> dict[str, str]:
    """Return the SHA-256 of every file that a model's answers may depend on, by name.

    That is all but cards, hidden files and what is never read (pickles, programs); the files of an
    adapter's ``base`` are named ``base/...``. Names and digests do not say where the folder lies:
    places that configurations name are left out. A ``cache`` keeps digests: a file is read again
    when its path, with links followed, its size, its mtime or its ctime is another one. Without
    one, or a spoiled one, everything is read.
    """
    files = {f"base/{name}": file for name, file in _files_of(base)} if base else {}
    files |= dict(_files_of(folder))
    with _kept(cache) as known, ThreadPoolExecutor() as pool:
        digests = pool.map(lambda file: _digest(file, known), files.values())
        return dict(sorted(zip(files, digests, strict=True)))


def digest_of(digests: Mapping[str, str]) -> str:
    """Return one short hash for all files of a model."""
    return _sum(json.dumps(digests, sort_keys=True))[:16]


_SAMPLES, _SAMPLE_BYTES = 256, 4096


def sampled_digest(path: str | Path | None) -> str | None:
    """Return a hash of a model's files that is taken in a moment, ``None`` where there are none.

    Of the same files as :func:`model_digests`, by name and size; of what is larger than a MiB 256
    samples of 4 KiB, evenly spaced. Models that are tuned apart differ in some of them; those that
    do not, :func:`model_digests` tells apart.
    """
    place = None if path is None else local_path(path)
    if place is None or not place.exists():
        return None
    digests = {}
    for name, file in _files_of(place):
        size = file.stat().st_size
        if size <= _SAMPLES * _SAMPLE_BYTES:
            digests[name] = _digest(file, {})
            continue
        with file.open("rb") as opened:
            sampled = hashlib.sha256(str(size).encode())
            for sample in range(_SAMPLES):
                opened.seek(sample * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
                sampled.update(opened.read(_SAMPLE_BYTES))
        digests[name] = sampled.hexdigest()
    return digest_of(digests)


def changed_files(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return what became of the files of a model, in words; empty where all are as they were."""
    said = [
        f"{name} {'is gone' if name not in now else 'has changed' if name in before else 'is new'}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    more = f" (and {len(said) - 3} more)" if len(said) > 3 else ""
    return ", ".join(said[:3]) + more


def _files_of(folder: Path) -> Iterator[tuple[str, Path]]:
    if folder.is_file():  # in llama.cpp's format
        yield folder.name, folder
        return
    for file in (*folder.iterdir(), *folder.glob(f"{_TEMPLATES}/*")):
        name = file.relative_to(folder).as_posix()
        passed_over = any(fnmatch.fnmatch(name, pattern) for pattern in (*NOT_NEEDED, "*.md", ".*"))
        if file.is_file() and not passed_over:
            yield name, file


def _digest(file: Path, known: dict[str, Any]) -> str:
    """Return a file's digest, and keep it among those that are known."""
    if file.name in _CONFIGURATIONS:
        return hashlib.sha256(_PLACE.sub(b"", file.read_bytes())).hexdigest()
    real = file.resolve()
    with real.open("rb") as opened:
        # Taken first: what changes while it is read is read again the next time.
        found = os.fstat(opened.fileno())
        stamp = [found.st_size, found.st_mtime_ns, found.st_ctime_ns]
        *before, digest = known.get(str(real), [None])
        if before != stamp:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
            known[str(real)] = [*stamp, digest]
    return str(digest)


@contextmanager
def _kept(cache: Path | None) -> Iterator[dict[str, Any]]:
    """Yield what a cache holds, by path, and write down what was added.

    A second process waits here, and finds what the first one has read.
    """
    file = None
    with suppress(OSError):
        file = None if cache is None else open_lock(cache)
    if file is None:
        yield {}
        return
    with file:
        lock(file, wait=True)
        known = _read(file)
        before = dict(known)
        yield known
        if known != before:
            there = {path: entry for path, entry in known.items() if Path(path).exists()}
            text = json.dumps(there, sort_keys=True)
            # Digests are worth no failure: those of a full disk are taken again.
            with suppress(OSError):
                os.ftruncate(file.fileno(), 0)
                os.pwrite(file.fileno(), f"{_sum(text)}\n{text}".encode(), 0)


def _read(file: IO[str]) -> dict[str, Any]:
    """Return what a cache holds; nothing where it is not what was written."""
    with suppress(UnicodeDecodeError):
        digest, _, text = file.read().partition("\n")
        if digest == _sum(text):
            return dict(json.loads(text))
    return {}


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
