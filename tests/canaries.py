"""Planted texts, and the search for them in everything that a process has left behind."""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.parse
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from wandb_files import read_records

GUARDS = Path(__file__).resolve().parent / "guards"
ROOT = Path(__file__).resolve().parent.parent

STEM = "Qz7Kanari"
_NAMED = (
    *("utterance", "history_client", "history_counselor", "rationale", "shot", "reason_of_shot"),
    *("session", "client", "counselor", "example_id", "meta_value", "meta_key", "label"),
    *("faulty_row", "prompt_file", "api_key", "long_text", "data_path", "answer", "formula"),
)
CANARIES: Mapping[str, str] = {
    **{kind: f"{STEM}{kind.replace('_', '').upper()}9x" for kind in _NAMED},
    "base64_like": "UXo3S2FuYXJpQkFTRTY0bGlrZQ",
    "chinese": "鹤唳惊弦渡寒塘",
    "emoji": "🦜🪕🧿🦤",
}
"""Kinds of planted text to the texts: each is found nowhere else."""

SPOKEN = frozenset(
    {"utterance", "history_client", "history_counselor", "shot", "long_text"}
    | {"base64_like", "chinese", "emoji", "formula"}
)
"""What was said in the dialogues."""
REASONS = frozenset({"rationale", "reason_of_shot"})
NAMES = frozenset({"session", "client", "counselor", "example_id", "meta_value", "meta_key"})
TEXTS = SPOKEN | REASONS | NAMES
"""All that stands in the rows of a corpus."""

READ_BY_ALL = frozenset({"example_id", "data_path", "prompt_file"})
"""What may stand in files that other accounts may read."""


@cache
def forms(text: str) -> Mapping[str, bytes]:
    """Return the ways in which a text may stand in a file: UTF-8, UTF-16, escaped, base64, …"""
    raw = text.encode()
    escaped = json.dumps(text)[1:-1]
    found = {
        "utf-8": raw,
        "utf-16-le": text.encode("utf-16-le"),
        "utf-16-be": text.encode("utf-16-be"),
        "json": escaped.encode(),
        "json, upper case": escaped.upper().replace("\\U", "\\u").encode(),
        "python": text.encode("unicode_escape"),
        "python, upper case": text.encode("unicode_escape").upper().replace(b"\\U", b"\\U"),
        "url": urllib.parse.quote(text).encode(),
        "html": "".join(f"&#{ord(c)};" if ord(c) > 127 else html.escape(c) for c in text).encode(),
        "hex": raw.hex().encode(),
    }
    for name, encoded in (("utf-8", raw), ("utf-16-le", text.encode("utf-16-le"))):
        for shift in range(3):
            found[f"base64 of {name}, {shift}"] = _base64_core(encoded, shift)
    return found


def _base64_core(encoded: bytes, shift: int) -> bytes:
    """Return what of a text's base64 does not depend on what stands around it."""
    start = (3 - shift) % 3  # to the next whole group of three bytes
    whole = (len(encoded) - start) // 3 * 3
    return base64.b64encode(encoded[start : start + whole])


@dataclass(frozen=True, kw_only=True)
class Find:
    """A planted text, found."""

    kind: str
    form: str
    where: str
    """A file inside the world, perhaps with a member of it; ``stdout``, ``stderr``, ``title``."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A process that has ended."""

    code: int
    stdout: str
    stderr: str
    titles: frozenset[str]
    """Command lines of all of its processes, as anybody on the machine could see them."""
    vanished: frozenset[str]
    """Files that it opened to write to, and that are no more."""

    def temporary(self, folder: Path) -> list[str]:
        """Return which of them were in a temporary folder, for whatever they held.

        W&B's own media pass through there, as tables of labels and figures, and Python tries with
        an empty file whether the folder can be written.
        """
        inside = [Path(path) for path in self.vanished if Path(path).is_relative_to(folder)]
        return [
            str(path)
            for path in inside
            if "wandb-media" not in path.parent.name
            and not (path.parent == folder and re.fullmatch(r"[a-z0-9_]{8}", path.name))
        ]


@dataclass(kw_only=True)
class World:
    """A machine of one's own: home, caches and temporary folder lie in one watched tree."""

    tree: Path
    environment: dict[str, str] = field(default_factory=dict)
    before: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("home", "tmp", "cwd", "in"):
            (self.tree / name).mkdir(parents=True, exist_ok=True)
        home = str(self.tree / "home")
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("XDG_", "HF_H", "WANDB_", "RECAP_", "TORCH", "COV_"))
            or key in ("HF_HUB_OFFLINE", "RECAP_TEST_OUTGOING")
        }
        temporary = dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(self.tree / "tmp"))
        modules = (GUARDS, ROOT)
        self.environment = {
            **kept,
            **temporary,
            "HOME": home,
            "XDG_RUNTIME_DIR": str(self.tree / "tmp"),
            "PYTHONPATH": os.pathsep.join(map(str, modules)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OPENAI_API_KEY": CANARIES["api_key"],
            "ANTHROPIC_API_KEY": CANARIES["api_key"],
            "RECAP_TEST_WRITES": str(self.tree / "writes"),
        }

    @property
    def cwd(self) -> Path:
        """Where commands run."""
        return self.tree / "cwd"

    def given(self, name: str, content: str | bytes) -> Path:
        """Write an input file, which is not searched as long as nobody changes it."""
        path = self.tree / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.before[path] = _stamp(path)
        return path

    def run(
        self,
        *arguments: str,
        until: Callable[[], bool] | None = None,
        signal_number: int | None = None,
        **environment: str,
    ) -> Ended:
        """Run ``python -m recap.<verb> …`` to its end, or to the signal that it gets.

        Args:
            arguments: The verb and its options.
            until: When the signal is sent.
            signal_number: The signal.
            environment: Further variables.
        """
        verb, *options = arguments
        (self.tree / "writes").unlink(missing_ok=True)
        with (self.tree / "stdout").open("w+b") as out, (self.tree / "stderr").open("w+b") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", f"recap.{verb}", *options],
                cwd=self.cwd,
                env={**self.environment, **environment},
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
                umask=0,
            )
            with _Titles(str(self.tree)) as titles:
                if until is not None and signal_number is not None:
                    while process.poll() is None and not until():
                        time.sleep(0.05)
                    process.send_signal(signal_number)
                code = process.wait()
            out.seek(0)
            err.seek(0)
            stdout, stderr = out.read(), err.read()
        return Ended(
            code=code,
            stdout=stdout.decode(),
            stderr=stderr.decode(),
            titles=frozenset(titles),
            vanished=self._vanished(),
        )

    def _vanished(self) -> frozenset[str]:
        written = self.tree / "writes"
        paths = os.fsdecode(written.read_bytes()).splitlines() if written.exists() else []
        return frozenset(path for path in paths if not Path(path).exists())

    def settle(self) -> None:
        """Take the tree as it is for what was there before the next command."""
        self.before = {path: _stamp(path) for path in self.tree.rglob("*") if path.is_file()}

    def files(self) -> list[Path]:
        """Return every file of the tree that was written since the world was settled."""
        own = {self.tree / name for name in ("stdout", "stderr", "writes")}
        return [
            path
            for path in sorted(self.tree.rglob("*"))
            if path.is_file()
            and not path.is_symlink()
            and path not in own
            and self.before.get(path) != _stamp(path)
        ]

    def finds(
        self, ended: Ended, allowed: Mapping[str, Iterable[str]], *, extra: Sequence[bytes] = ()
    ) -> list[Find]:
        """Return what was found where it must not stand.

        Args:
            ended: The process, whose output counts as files called stdout, stderr and title.
            allowed: Patterns of names relative to the working directory, to the kinds of text that
                may stand there.
            extra: Byte strings that are looked for as well.
        """
        places: list[tuple[str, Iterator[tuple[str, bytes]]]] = [
            ("stdout", iter([("", ended.stdout.encode())])),
            ("stderr", iter([("", ended.stderr.encode())])),
            ("title", iter([("", "\n".join(ended.titles).encode())])),
        ]
        places += [(os.path.relpath(file, self.cwd), readings(file)) for file in self.files()]
        found = []
        for name, contents in places:
            may = {k for pattern, kinds in allowed.items() if fnmatch(name, pattern) for k in kinds}
            # A path is text too, and says what the file is called.
            for inner, content in [("name", name.encode()), *contents]:
                where = f"{name}!{inner}" if inner else name
                found += [
                    Find(kind=kind, form=form, where=where)
                    for kind, form in search(content)
                    if kind not in may
                ]
                found += [
                    Find(kind="extra", form=text.hex(), where=where)
                    for text in extra
                    if text in content
                ]
        return found

    def open_to_others(self) -> list[str]:
        """Return the files that hold words of clients and that other accounts may read."""
        return [
            os.path.relpath(file, self.cwd)
            for file in self.files()
            if file.stat().st_mode & 0o077
            and any(
                kind not in READ_BY_ALL
                for _, content in readings(file)
                for kind, _ in search(content)
            )
        ]


def search(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield kind and form of every planted text in some bytes."""
    stems = [core for core in map(_stem_core, forms(STEM).values()) if core in content]
    for kind, text in CANARIES.items():
        if text.startswith(STEM) and not stems:
            continue
        for form, wanted in forms(text).items():
            if wanted in content:
                yield kind, form
                break


@cache
def token_forms(*kinds: str) -> list[bytes]:
    """Return planted texts as the ids of the tiny model's tokenizer, in the forms of tensors."""
    from recap.models.backbone import tiny_tokenizer

    tokenizer, found = tiny_tokenizer(), []
    for kind in kinds:
        ids = tokenizer(CANARIES[kind], add_special_tokens=False)["input_ids"]
        # The first and the last may come out otherwise beside other words.
        inner = np.asarray(ids[2:-2])
        assert len(inner) > 3
        found += [inner.astype(f"<i{size}").tobytes() for size in (2, 4, 8)]
        found += [", ".join(map(str, inner)).encode(), ",".join(map(str, inner)).encode()]
    return found


def _stem_core(stem: bytes) -> bytes:
    # The base64 of a longer text may go on otherwise in its last group.
    return stem[:-4]


def readings(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield what a file holds: as it is, and unpacked, whatever its name says it is."""
    content = path.read_bytes()
    yield from _unpacked("", content)
    if path.suffix == ".wandb":
        # Records are cut at block borders; what was cut stands here in one piece.
        try:
            for number, record in enumerate(read_records(path)):
                yield f"record {number}", record.SerializeToString()
        except DecodeError:  # a kill has cut the last one off
            return


def _unpacked(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    yield name, content
    if content[:2] == b"\x1f\x8b":
        yield from _unpacked(f"{name}(gz)", gzip.decompress(content))
    elif content[:4] == b"PK\x03\x04":
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for member in archive.namelist():
                    yield from _unpacked(f"{name}({member})", archive.read(member))
        except zipfile.BadZipFile:  # a kill has cut it off
            return
    elif content[:1] == b"\x78":
        try:
            yield from _unpacked(f"{name}(zlib)", zlib.decompress(content))
        except zlib.error:
            return


def _stamp(path: Path) -> tuple[int, int]:
    there = path.stat()
    return there.st_size, there.st_mtime_ns


class _Titles:
    """Collects, while it is open, the command lines of processes that have a world's home."""

    def __init__(self, home: str) -> None:
        self._home = home.encode()
        self._seen: set[str] = set()
        self._ours: dict[str, bool] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> set[str]:
        self._thread.start()
        return self._seen

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.5):
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    if process.name not in self._ours:
                        self._ours[process.name] = self._home in (process / "environ").read_bytes()
                    if self._ours[process.name]:
                        for file in ("cmdline", "comm"):
                            title = (process / file).read_bytes().replace(b"\0", b" ")
                            self._seen.add(title.decode("utf-8", "replace"))
                except OSError:  # it has ended, or is another account's
                    continue


SIXTEEN = (*("Collaboration",) * 14, "Excusing", "Excusing")
"""Labels of which a few-shot prompt for resistance has to show one of the last two."""


def corpus_lines(labels: Sequence[str] = SIXTEEN) -> str:
    """Return a corpus of dialogues with a planted text in every place that a text can have.

    The last client turn of each dialogue is annotated with one of the labels.
    """
    rows = []
    for number, label in enumerate(labels):
        resists = label != "Collaboration"
        said = CANARIES["shot"] if resists else CANARIES["utterance"]
        reason = CANARIES["reason_of_shot"] if resists else CANARIES["rationale"]
        spoken = " ".join(CANARIES[kind] for kind in ("base64_like", "chinese", "emoji"))
        long = f"{'so it went on ' * 5_500}{CANARIES['long_text']}{' and on' * 5_500}"
        rows.append(
            {
                "session": f"{CANARIES['session']}-{number}",
                "client": f"{CANARIES['client']}-{number // 2}",
                "counselor": f"{CANARIES['counselor']}-{number // 8}",
                "meta": {"topic": f"{CANARIES['meta_value']}", CANARIES["meta_key"]: "x"},
                "turns": [
                    {"speaker": "counselor", "text": long if number == 0 else "Hello."},
                    {"speaker": "client", "text": f"={CANARIES['formula']}() {number} {spoken}"},
                    {"speaker": "counselor", "text": f"{CANARIES['history_counselor']} {number}?"},
                    {"speaker": "client", "text": f"Well, {CANARIES['history_client']} {number}."},
                    {"speaker": "counselor", "text": f"Would you try it, number {number}?"},
                    {
                        "speaker": "client",
                        "text": f"I {said} {number}, {spoken}.",
                        "label": label,
                        "rationale": f"Because {reason} {number}.",
                        "id": f"{CANARIES['example_id']}-{number}",
                    },
                ],
            }
        )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def faulty_lines() -> str:
    """Return rows that are at fault in every way, with client text where something else belongs."""
    # Longer than a label may be to be shown.
    text, label = CANARIES["faulty_row"], f"{CANARIES['label']} as nobody ever wrote it"
    turns = [{"speaker": "counselor", "text": "Hm?"}, {"speaker": "client", "text": text}]
    good = {"session": "s", "turns": turns}
    rows: list[Any] = [
        {**good, "session": "s1", "turns": [turns[0], {**turns[1], "label": label}]},
        {
            **good,
            "session": "s2",
            "turns": [turns[0], {**turns[1], "label": f"{label} {text} and more"}],
        },
        {**good, "session": {text: 1}},
        {**good, "session": [text]},
        {**good, "turns": text},
        {**good, "turns": [text]},
        # A name of a word or three is shown as it stands, for that is who speaks.
        {**good, "turns": [{"speaker": f"{text} is what I said", "text": "x"}]},
        {**good, "turns": [{"speaker": "client", "text": {text: text}}]},
        {**good, "turns": [{"speaker": "client", text: text}]},
        {text: text},
        {**good, text: text, "meta": text},
        {
            "id": f"{text} with blanks",
            "history": [],
            "response": text,
            "label": f"{text} in a sentence",
        },
        {"id": "a", "history": text, "response": 3, "label": "Excusing"},
        {"id": "b", "history": [{"speaker": "client", "text": text}], "response": "", "label": ""},
        [text],
        text,
    ]
    broken = [f'{{"session": "{text}", "turns": [', f"{text}, not JSON at all", f'"{text}" "x"']
    return "\n".join([*(json.dumps(row) for row in rows), *broken]) + "\n"
