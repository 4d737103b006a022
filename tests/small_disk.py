"""Runs of commands on a small file system of their own: full, read-only, or closed to them.

``python tests/small_disk.py`` reads one :class:`Case` as JSON and prints what became of it. It
mounts a file system in memory, for which it needs a mount namespace: ``unshare`` gives it one.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PAGE = 4096
ROOMY = "size=1g"
NAMESPACE = ("unshare", "--map-root-user", "--mount")
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2
_CAPABILITIES_3 = 0x20080522
_PATIENCE = 300
"""Seconds that one run may take."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command whose every write is to fail once."""

    module: str
    """Its ``main(arguments)`` is called, in the small file system."""
    arguments: list[str]
    """They give everything but the folders to write to as absolute paths."""
    before: list[list[str]] = field(default_factory=list)
    """Arguments of calls that have written what is there already."""
    points: int = 8
    """So many sizes of disk are tried, from what is there to what there will be."""
    place: str = ""
    """Where the file system is mounted."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one call did."""

    code: int
    """Exit code; -1 for one that did not end."""
    err: str
    """Standard error."""
    files: dict[str, str]
    """Digest of each file that is there afterwards."""


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What a case came to."""

    before: dict[str, str]
    """Files that were there before."""
    plain: Outcome
    """With room enough."""
    full: list[Outcome]
    """On a disk that is full at one point after the other."""
    resumed: list[Outcome]
    """Once more after each of these, with room."""
    read_only: Outcome
    """On a file system that takes no writes."""
    closed: Outcome
    """In folders that only others may write to."""


def walked(case: Case) -> Walk:
    """Return what a case came to, in a namespace of its own."""
    ended = subprocess.run(
        [*NAMESPACE, sys.executable, __file__],
        input=json.dumps(asdict(case)),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    return Walk(
        before=found["before"],
        **{key: Outcome(**found[key]) for key in ("plain", "read_only", "closed")},
        **{key: [Outcome(**each) for each in found[key]] for key in ("full", "resumed")},
    )


def may_mount() -> bool:
    """Return whether this machine lets us have a mount namespace."""
    if shutil.which("unshare") is None:
        return False
    tried = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(tried, capture_output=True).returncode == 0


def _walk(case: Case) -> dict[str, Any]:
    place = Path(case.place)
    seed = Path(tempfile.mkdtemp(dir=place.parent))
    _mount(place, ROOMY)
    for arguments in case.before:
        ended = _run(case, arguments)
        assert ended.code == 0, ended.err
    shutil.copytree(place, seed, dirs_exist_ok=True)
    begun = _used(place)
    plain = _run(case, case.arguments)
    # Where files are replaced, the new ones stand beside the old ones for a while.
    room = max(_used(place) - begun, begun)
    _unmount(place)
    full, resumed = [], []
    for point in range(case.points):
        size = max((begun + room * point // case.points) // PAGE, 1) * PAGE
        _mount(place, ROOMY)
        shutil.copytree(seed, place, dirs_exist_ok=True)
        _remount(place, f"size={size}")
        full.append(_run(case, case.arguments))
        _remount(place, ROOMY)
        resumed.append(_run(case, case.arguments))
        _unmount(place)
    _mount(place, ROOMY)
    shutil.copytree(seed, place, dirs_exist_ok=True)
    _remount(place, "ro")
    read_only = _run(case, case.arguments)
    _remount(place, "rw")
    for path in [place, *place.rglob("*")]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    closed = _run(case, case.arguments, powerless=True)
    _unmount(place)
    return {
        "before": _digests(seed),
        "plain": asdict(plain),
        "full": [asdict(each) for each in full],
        "resumed": [asdict(each) for each in resumed],
        "read_only": asdict(read_only),
        "closed": asdict(closed),
    }


def _mount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)


def _remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def _unmount(place: Path) -> None:
    os.chdir(place.parent)
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def _used(place: Path) -> int:
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def _digests(place: Path) -> dict[str, str]:
    return {
        str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(place.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def _run(case: Case, arguments: list[str], *, powerless: bool = False) -> Outcome:
    """Call the command in a process that has all imports already."""
    place = Path(case.place)
    with tempfile.TemporaryFile() as err:
        process = os.fork()
        if process == 0:
            _child(case, arguments, err.fileno(), powerless=powerless)
        code = _waited(process)
        err.seek(0)
        said = err.read().decode("utf-8", "replace")
    return Outcome(code=code, err=said, files=_digests(place))


def _waited(process: int) -> int:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(process, 9)
    os.waitpid(process, 0)
    return -1


def _child(case: Case, arguments: list[str], err: int, *, powerless: bool) -> None:
    code = 70
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        os.dup2(err, 2)
        os.chdir(case.place)
        if powerless:
            _give_up_capabilities()
        code = importlib.import_module(f"{case.module}.__main__").main(arguments)
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - a fork must not go on with its parent's work
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    os._exit(code)


def _give_up_capabilities() -> None:
    """Have permissions hold for root too."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[0] &= ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
    assert libc.capset(header, sets) == 0


def main() -> None:
    """Walk the case on standard input."""
    case = Case(**json.load(sys.stdin))
    importlib.import_module(f"{case.module}.__main__")
    if case.module in ("recap.train", "recap.prompt", "recap.predict", "recap.evaluate"):
        importlib.import_module("recap.folds.tuned")
    out = os.dup(1)
    os.dup2(2, 1)  # what libraries print belongs to nobody
    found = json.dumps(_walk(case))
    with os.fdopen(out, "w", encoding="utf-8") as file:
        file.write(found)


if __name__ == "__main__":
    main()
