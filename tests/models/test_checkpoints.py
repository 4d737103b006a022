"""Checkpoints on the disk: whole or not at all, checked before use, never twice in memory."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from faults import record_fault
from lightning.fabric.plugins import TorchCheckpointIO

from recap.errors import ConfigError
from recap.models.callbacks import AtomicCheckpointIO
from recap.models.checkpoints import (
    CheckpointFolder,
    fault_of,
    read_checkpoint,
    read_progress,
    read_sharded,
    write_sharded,
)
from recap.system.files import disk_error

MEBIBYTE = 1 << 20


def content(step: int = 0, n: int = 1000) -> dict[str, Any]:
    return {
        "state_dict": {"weight": torch.arange(float(n)) + step},
        "optimizer_states": [],
        "epoch": 0,
        "global_step": step,
        "callbacks": {"KeepCheckpoints": {"best": []}},
    }


def save(path: Path, step: int = 0) -> Path:
    AtomicCheckpointIO().save_checkpoint(content(step), path)
    return path


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def save_sharded(path: Path, step: int = 0) -> Path:
    write_sharded(content(step), path)
    return path


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_checkpoint_is_an_ordinary_archive_that_carries_its_sha256(tmp_path: Path) -> None:
    path = save(tmp_path / "1.ckpt", step=7)
    assert re.fullmatch(rb"sha256:[0-9a-f]{64}", zipfile.ZipFile(path).comment)
    assert zipfile.ZipFile(path).testzip() is None
    for mapped in (True, False):
        found = torch.load(path, weights_only=True, mmap=mapped)
        assert torch.equal(found["state_dict"]["weight"], torch.arange(1000.0) + 7)
    assert read_progress(path) == (0, 7)


def test_any_flipped_byte_and_any_cut_is_found(tmp_path: Path) -> None:
    path = save(tmp_path / "1.ckpt")
    whole = path.read_bytes()
    tried = found = 0
    for place in (0, 40, len(whole) // 2, len(whole) - 74, len(whole) - 73, len(whole) - 1):
        flip(path, place)
        tried += 1
        found += fault_of(path) is not None
        path.write_bytes(whole)
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 73, len(whole) - 1):
        path.write_bytes(whole[:length])
        tried += 1
        found += fault_of(path) is not None
    assert found == tried
    record_fault("corrupt checkpoint", tried=tried, survived=found, lost=0, note="one file")
    with pytest.raises(ConfigError, match=r"1\.ckpt: this checkpoint .*resume=never"):
        read_checkpoint(path)
    path.write_bytes(whole)
    assert fault_of(path) is None


def test_a_folder_of_several_devices_is_checked_file_by_file(
    tmp_path: Path, one_rank: None
) -> None:
    path = save_sharded(tmp_path / "1.ckpt", step=3)
    assert fault_of(path) is None
    assert torch.equal(read_sharded(path)["state_dict"]["weight"], torch.arange(1000.0) + 3)
    tried = found = 0
    names = sorted(file.name for file in path.iterdir())
    assert ".metadata" in names
    assert "rest.pt" in names
    for name in names:
        whole = (path / name).read_bytes()
        flip(path / name, len(whole) // 2)
        tried += 1
        found += fault_of(path) is not None
        (path / name).unlink()
        tried += 1
        found += fault_of(path) is not None
        (path / name).write_bytes(whole)
    assert found == tried >= 8
    record_fault("corrupt checkpoint", tried=tried, survived=found, lost=0, note="folders")
    assert fault_of(path) is None


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_one_before_a_broken_checkpoint_is_taken_and_it_is_said(
    kind: str, tmp_path: Path, one_rank: None, caplog: pytest.LogCaptureFixture
) -> None:
    write = save if kind == "file" else save_sharded
    paths = [write(tmp_path / f"{n:06d}.ckpt", step=n) for n in (1, 2, 3)]
    folder = CheckpointFolder(tmp_path)
    assert folder.newest() == paths[2]
    flip(paths[2] if kind == "file" else paths[2] / "rest.pt", 50)
    assert folder.newest() == folder.newest() == paths[1]
    assert folder.stage() == ("train", 2)
    said = [r.getMessage() for r in caplog.records if r.name.startswith("recap.")]
    assert len(said) == 1
    assert re.search(r"000003\.ckpt: .* checksums?; the one before it is taken", said[0])
    for path in paths[:2]:
        flip(path if kind == "file" else path / "rest.pt", 50)
    with pytest.raises(ConfigError, match=r"no whole one before it.*resume=never"):
        folder.newest()


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Have a folder of 1 MB, if this machine lets us mount one."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def limited_files(folder: Path) -> Iterator[None]:
    """Have files end at 1 MB, as a quota would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEBIBYTE, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_broken_best_checkpoint_gives_way_to_the_best_one_before_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [tmp_path / f"{n:06d}.ckpt" for n in (1, 2, 3)]
    for step, path in enumerate(paths):
        kept = {"best": [paths[1].name, paths[0].name]}
        AtomicCheckpointIO().save_checkpoint(
            {**content(step), "callbacks": {"KeepCheckpoints": kept}}, path
        )
    folder = CheckpointFolder(tmp_path)
    assert folder.best() == paths[1]
    flip(paths[1], 50)
    assert folder.best() == paths[0]
    assert "000002.ckpt: this checkpoint does not match its checksum" in caplog.text
    paths[0].unlink()
    with pytest.raises(ConfigError, match=r"000002\.ckpt: the best .*resume=never"):
        folder.best()


def test_without_a_finite_selection_loss_there_is_no_best_checkpoint(tmp_path: Path) -> None:
    save(tmp_path / "000001.ckpt")
    with pytest.raises(ConfigError, match=r"no finite number.*learning_rate"):
        CheckpointFolder(tmp_path).best()


@pytest.mark.parametrize("write", [AtomicCheckpointIO().save_checkpoint, write_sharded])
@pytest.mark.parametrize(
    ("limit", "reason"), [(full_disk, "No space left"), (limited_files, "File too large")]
)
def test_a_full_disk_leaves_the_old_checkpoint_and_says_what_to_do(
    limit: Any, reason: str, write: Any, tmp_path: Path, one_rank: None
) -> None:
    with limit(tmp_path):
        first = save(tmp_path / "000001.ckpt", step=1)
        if write is write_sharded:
            reason = "Input/output error"  # torch keeps what it was to itself
        with pytest.raises(OSError, match=reason) as caught:
            write(content(2, n=MEBIBYTE), tmp_path / "000002.ckpt")
        told = str(disk_error(caught.value))
        assert re.search(rf"000002\.ckpt.*: {reason}.*make room", told)
        assert [file.name for file in tmp_path.glob("*0*")] == [first.name]
        assert CheckpointFolder(tmp_path).stage() == ("train", 1)


def test_what_a_kill_left_behind_is_deleted(tmp_path: Path) -> None:
    kept = save(tmp_path / "000002.ckpt")
    (tmp_path / ".000003.ckpt.partial").write_bytes(b"half")
    (tmp_path / ".000004.ckpt.partial").mkdir()
    save(tmp_path / "000001.ckpt")
    CheckpointFolder(tmp_path).keep_only({kept.name})
    assert [file.name for file in tmp_path.iterdir()] == [kept.name]


def test_saving_makes_no_second_copy_of_the_state(tmp_path: Path) -> None:
    size = 128 * MEBIBYTE
    # Forked: a new process would need four seconds to import what this one has.
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        ours = pool.submit(peak_of_saving, AtomicCheckpointIO, tmp_path / "1.ckpt", size).result()
        lightnings = pool.submit(
            peak_of_saving, TorchCheckpointIO, tmp_path / "2.ckpt", size
        ).result()
    assert lightnings > 0.9 * size, "a second copy is seen by this measurement"
    assert ours < 0.1 * size


def peak_of_saving(kind: type[Any], path: Path, size: int) -> int:
    """Return by how many bytes the process's memory grows at its peak."""
    state = {"state_dict": {f"w{i}": torch.ones(size // 16) for i in range(4)}}
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = resident("VmRSS")
    kind().save_checkpoint(state, path)
    assert path.stat().st_size > size
    return resident("VmHWM") - before


def resident(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    (kibibytes,) = re.findall(rf"{name}:\s*(\d+) kB", status)
    return 1024 * int(kibibytes)
