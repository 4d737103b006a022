"""The checkpoints of one training, each written whole or not at all, and the disk space for them.

Lightning's own save (2.6.6) leaves half a file where the temporary folder is on another disk, and
puts the whole checkpoint together in memory first. Here checkpoints are numbered in the order in
which they were written, and one never takes the place of another, so that a kill can at most leave
a partial one behind. The newest whole one is what a training goes on from.

Where weights are spread over devices a checkpoint is a folder that any number of ranks writes and
reads: spread tensors go through torch's distributed checkpoints under flat names, everything else
into one file beside them. Names and positions are those of an ordinary checkpoint, so that a
training may go on with another number of devices, or with one.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import pickle
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor, distribute_tensor

from recap.errors import ConfigError
from recap.system.files import sync, write_atomic, writing

_CLASSES = {
    "torch.distributed.checkpoint.metadata": {
        *("Metadata", "MetadataIndex", "StorageMeta", "TensorProperties", "_MEM_FORMAT_ENCODING"),
        *("TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata"),
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "pathlib": {"PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"},
    "collections": {"OrderedDict"},
}


class TensorReader(FileSystemReader):
    """Reads the ``wanted`` tensors of a checkpoint's folder; ``None``: its index alone."""

    def __init__(self, path: Path, wanted: Iterable[str] | None = None) -> None:
        super().__init__(path)
        self._wanted = None if wanted is None else frozenset(wanted)

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return the index; an ``UnpicklingError`` for more than tensors, or not what is wanted."""
        with self.fs.create_stream(self._get_metadata_path(kwargs.get("rank")), "rb") as file:
            metadata = _IndexUnpickler(file).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError("the index is none")
        entries = metadata.state_dict_metadata
        for name in self._wanted or ():
            if not isinstance(entries.get(name), TensorStorageMetadata):
                raise pickle.UnpicklingError("what should be a tensor is none")
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _IndexUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _CLASSES.get(module, ()):
            return super().find_class(module, name)
        if module == "torch":
            found = getattr(torch, name, None)
            if found is torch.Size or isinstance(found, torch.dtype):
                return found
        raise pickle.UnpicklingError(f"the index names {module}.{name}")


SUMS = "SHA256SUMS"
"""The list of digests in a folder."""

_MARK = b"sha256:"
_COMMENT_BYTES = len(_MARK) + 2 * hashlib.sha256().digest_size
_LENGTH_BYTES = 2
"""Of the field before the comment, the last one of an archive without a comment."""

_NO_COMMENT = bytes(_LENGTH_BYTES)
_BLOCK_BYTES = 1 << 20


class _Digesting:
    """A file as ``torch.save`` wants it, which adds up the digest of what goes through."""

    def __init__(self, file: BinaryIO) -> None:
        self.digest = hashlib.sha256()
        self.error: OSError | None = None
        self._file = file

    def write(self, data: memoryview) -> int:
        self.digest.update(data)
        try:
            return self._file.write(data)
        except OSError as error:
            # torch hides it behind complaints about places in the archive (2.13).
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def save_digested(content: Any, path: Path) -> None:
    """Write what ``torch.save`` would, with its SHA-256 in the archive's comment, onto the disk.

    Tensors go to the file one after another: there is never a second copy of them in memory.
    """
    with path.open("wb") as file:
        through = _Digesting(file)
        try:
            torch.save(content, through)  # type: ignore[arg-type]
        except RuntimeError:
            if through.error is not None:
                raise through.error from None
            raise
        comment = _MARK + through.digest.hexdigest().encode()
        file.seek(-_LENGTH_BYTES, os.SEEK_END)
        file.write(len(comment).to_bytes(_LENGTH_BYTES, "little") + comment)
    sync(path)


def write_sums(folder: Path, digests: Mapping[str, str]) -> None:
    """Write the list of a folder's digests, by file name."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(digests.items())]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")
    sync(folder / SUMS)


def digests_of(files: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of some files, by name."""
    found = {}
    for path in files:
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def fault_of(path: Path) -> str | None:
    """Return what is wrong with a checkpoint, file or folder; ``None`` when it is as written.

    It is read as a whole for that, but only once a process as long as it stays the same.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return _fault(path, tuple(_state(file) for file in files))


def _state(file: Path) -> tuple[str, int, int, int]:
    found = file.stat()
    return file.name, found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=64)
def _fault(path: Path, state: tuple[tuple[str, int, int, int], ...]) -> str | None:
    return _folder_fault(path) if path.is_dir() else _file_fault(path)


def _file_fault(path: Path) -> str | None:
    digested = path.stat().st_size - _COMMENT_BYTES - _LENGTH_BYTES
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(max(0, digested))
        ending = file.read()
        if not ending.startswith(_COMMENT_BYTES.to_bytes(_LENGTH_BYTES, "little") + _MARK):
            return "is cut short, or was written without a checksum"
        file.seek(0)
        left = digested
        while left > 0:
            block = file.read(min(left, _BLOCK_BYTES))
            digest.update(block)
            left -= len(block)
    digest.update(_NO_COMMENT)
    expected = ending[_LENGTH_BYTES + len(_MARK) :].decode("ascii", errors="replace")
    return None if digest.hexdigest() == expected else "does not match its checksum"


def _folder_fault(folder: Path) -> str | None:
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return "is incomplete, or was written without checksums"
    expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    if not all((folder / name).is_file() for name in expected):
        return "lacks some of its files"
    found = digests_of(folder / name for name in expected)
    return None if found == expected else "does not match its checksums"


REST = "rest.pt"
"""The file of everything that is not spread over devices."""

_WEIGHT, _OPTIMIZER = "weight:", "optimizer:"


def is_sharded_checkpoint(path: Path) -> bool:
    """Return whether a path is a checkpoint in the form of a folder."""
    return (path / REST).is_file()


def write_sharded(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint whose weights and optimizer states are this rank's ``DTensor`` shares.

    Called by every rank together; the folder appears whole or not at all. What has its name is
    deleted first, so that a name is best a new one.
    """
    tensors, rest = _split(checkpoint)
    partial = partial_of(path)
    first = is_first_rank()
    if first:
        _remove(partial)
        partial.mkdir(parents=True)
    dist.barrier()
    try:
        with writing(path):
            _save(tensors, partial)
    except OSError:
        if first:
            _remove(partial)
        raise
    # Each rank reads again what it has written itself.
    shares: list[dict[str, str]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(shares, digests_of(partial.glob(f"__{dist.get_rank()}_*")))
    if first:
        save_digested(rest, partial / REST)
        digests = {name: digest for share in shares for name, digest in share.items()}
        others = [file for file in partial.iterdir() if file.name not in digests]
        write_sums(partial, digests | digests_of(others))
        sync(partial)
        _remove(path)
        partial.rename(path)
        sync(path.parent)
    dist.barrier()


def _save(tensors: dict[str, Tensor], folder: Path) -> None:
    try:
        save(tensors, checkpoint_id=folder)
    except CheckpointException as error:  # a BaseException; every rank gets those of all
        cause, _ = next(iter(error.failures.values()))
        if isinstance(cause, RuntimeError):
            # What torch says of files that take no more (2.13): a place in them, not the reason.
            cause = OSError(errno.EIO, os.strerror(errno.EIO))
        raise cause from None


def _read_rest(path: Path) -> dict[str, Any]:
    rest: dict[str, Any] = torch.load(path / REST, map_location="cpu", weights_only=True)
    return rest


def read_sharded(
    path: Path,
    *,
    like: Mapping[str, Tensor] | None = None,
    optimized: list[list[Tensor]] | None = None,
) -> dict[str, Any]:
    """Return the checkpoint of a folder, as Lightning puts it together.

    Weights are spread as those of ``like`` are, by name; ``None`` reads every tensor whole, in this
    process alone. Optimizer states are read for the ``optimized`` weights of each optimizer.
    """
    rest = _read_rest(path)
    if like is None:
        sizes = TensorReader(path).read_metadata().state_dict_metadata
        wanted = {
            key: torch.empty(found.size, dtype=found.properties.dtype)
            for key, found in sizes.items()
            if isinstance(found, TensorStorageMetadata)
        }
        load(wanted, storage_reader=TensorReader(path, wanted), no_dist=True)
    else:
        wanted = {f"{_WEIGHT}{name}": torch.empty_like(like[name]) for name in rest["state_dict"]}
        for number, weights in enumerate(optimized or []):
            for key, places in _spread_states(rest, number):
                wanted[key] = torch.empty_like(weights[places])
        load(wanted, storage_reader=TensorReader(path, wanted))
    return _joined(wanted, rest)


def spread_like(
    checkpoint: dict[str, Any], like: Mapping[str, Tensor], optimized: list[list[Tensor]]
) -> dict[str, Any]:
    """Return an ordinary checkpoint with its tensors cut into this rank's shares.

    Every rank reads the same file, so that nothing is sent. Weights are cut as those of ``like``
    are, by name, and moments as the ``optimized`` weights of each optimizer.
    """
    states = [
        {
            **state,
            "state": {
                place: {key: _spread(value, weights[place]) for key, value in entry.items()}
                for place, entry in state["state"].items()
            },
        }
        for state, weights in zip(checkpoint["optimizer_states"], optimized, strict=False)
    ]
    weights = {name: _spread(value, like[name]) for name, value in checkpoint["state_dict"].items()}
    return {**checkpoint, "state_dict": weights, "optimizer_states": states}


def whole_weights(module: torch.nn.Module, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """Return the whole weights of a module on the CPU; on ranks other than the first, nothing.

    Called by every rank together. One weight at a time is whole on the other ranks. Weights that
    are tied stay one tensor.
    """
    first = is_first_rank()
    whole: dict[str, Tensor] = {}
    known: dict[int, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if not wanted(name):
            continue
        if id(tensor) not in known:
            full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            known[id(tensor)] = full.detach().cpu() if first else full.new_empty(0)
        whole[name] = known[id(tensor)]
    return whole if first else {}


def is_first_rank() -> bool:
    """Return whether this process is the one that writes what all devices share."""
    return not dist.is_initialized() or dist.get_rank() == 0


def partial_of(path: Path) -> Path:
    """Return where a checkpoint stands while it is written."""
    return path.with_name(f".{path.name}.partial")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _spread(value: Any, like: Tensor) -> Any:
    """Return this rank's share of a value that has the shape of what is spread."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    # Without a source rank each takes its own share of what it has read.
    return distribute_tensor(
        value.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )


def _key(number: int, place: int, key: str) -> str:
    return f"{_OPTIMIZER}{number}:{place}:{key}"


def _split(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what is spread over devices, by flat names, and the rest with names in its place."""
    weights = checkpoint["state_dict"]
    tensors = {f"{_WEIGHT}{name}": tensor for name, tensor in weights.items()}
    states = []
    for number, state in enumerate(checkpoint.get("optimizer_states", [])):
        entries: dict[int, dict[str, Any]] = {}
        for place, entry in state["state"].items():
            spread = [key for key, value in entry.items() if isinstance(value, DTensor)]
            tensors |= {_key(number, place, key): entry[key] for key in spread}
            kept = {key: value for key, value in entry.items() if key not in spread}
            entries[place] = {"kept": kept, "spread": spread}
        states.append({**state, "state": entries})
    return tensors, {**checkpoint, "state_dict": list(weights), "optimizer_states": states}


def _spread_states(rest: Mapping[str, Any], number: int) -> list[tuple[str, int]]:
    """Return name and weight's place of everything that is spread in one optimizer's state."""
    entries = rest["optimizer_states"][number]["state"]
    return [
        (_key(number, place, key), place)
        for place, entry in entries.items()
        for key in entry["spread"]
    ]


def _joined(tensors: Mapping[str, Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    """Undo :func:`_split`; optimizer states whose tensors were not read are left out."""
    states = []
    for number, state in enumerate(rest["optimizer_states"]):
        names = _spread_states(rest, number)
        if all(key in tensors for key, _ in names):
            entries = {
                place: entry["kept"]
                | {key: tensors[_key(number, place, key)] for key in entry["spread"]}
                for place, entry in state["state"].items()
            }
            states.append({**state, "state": entries})
    weights = {name: tensors[f"{_WEIGHT}{name}"] for name in rest["state_dict"]}
    return {**rest, "state_dict": weights, "optimizer_states": states}


_UNREADABLE = (
    *(RuntimeError, EOFError, pickle.UnpicklingError, OSError, KeyError),
    CheckpointException,  # a BaseException
)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds, its tensors mapped from the file; a folder is read whole.

    A ``ConfigError`` names one that is not what was written, or cannot be read.
    """
    with _readable(path):
        if path.is_dir():
            return read_sharded(path)
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return content


def _read_head(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds beside tensors that are spread over devices."""
    if not path.is_dir():
        return read_checkpoint(path)
    with _readable(path):
        return _read_rest(path)


def read_progress(path: Path) -> tuple[int, int]:
    """Return the epoch (from 0) and the optimizer step that a checkpoint was written at."""
    content = _read_head(path)
    return int(content["epoch"]), int(content["global_step"])


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        fault = fault_of(path)
        if fault is None:
            yield
            return
    except _UNREADABLE as error:
        raise ConfigError(
            f"{path}: this checkpoint cannot be read, so the fold cannot go on from it; "
            "resume=never trains the fold again"
        ) from error
    raise ConfigError(
        f"{path}: this checkpoint {fault}, so the fold cannot go on from it; "
        "resume=never trains the fold again"
    )


KEPT = "KeepCheckpoints"
"""Under which key of a checkpoint's callbacks it stands which ones are kept, and why."""

_TRAINED = "trained"
_LOG = logging.getLogger(__name__)


class CheckpointFolder:
    """The folder ``checkpoints/`` of a fold, which need not be there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._warned: set[Path] = set()

    def newest(self) -> Path | None:
        """Return the newest checkpoint that is as it was written, ``None`` when there is none.

        A ``ConfigError`` where there are some, and none of them is whole.
        """
        there = sorted(self.path.glob("*.ckpt"), reverse=True)
        found = self._first_whole(there)
        if there and found is None:
            raise ConfigError(
                f"{there[0]}: this checkpoint {fault_of(there[0])}, and there is no whole one "
                "before it to go on from; resume=never trains the fold again"
            )
        return found

    def stage(self) -> tuple[str, int] | None:
        """Return stage and optimizer step of the newest checkpoint; ``None``: a fresh start.

        The stage is ``"train"``, or ``"decode"`` once the training is over.
        """
        newest = self.newest()
        if newest is None:
            return None
        step, mark = read_progress(newest)[1], self.path / _TRAINED
        done = mark.is_file() and mark.read_text(encoding="utf-8") == str(step)
        return ("decode" if done else "train"), step

    def mark_trained(self) -> None:
        """Write down that the training ended with the newest checkpoint."""
        newest = self.newest()
        assert newest is not None
        write_atomic(self.path / _TRAINED, str(read_progress(newest)[1]))

    def best(self) -> Path:
        """Return the checkpoint of the lowest selection loss, or the best one before it.

        A ``ConfigError`` where no selection loss was a number, or no such checkpoint is whole.
        """
        newest = self.newest()
        names = [] if newest is None else _read_head(newest)["callbacks"][KEPT]["best"]
        if not names:
            raise ConfigError(
                f"{self.path}: the selection loss was no finite number after any epoch, so there "
                "is no best one; lower optimizer.learning_rate, or set trainer.precision=32-true"
            )
        found = self._first_whole([self.path / name for name in names])
        if found is None:
            raise ConfigError(
                f"{self.path / names[0]}: the best checkpoint is not whole, and there is none "
                "before it; resume=never trains the fold again"
            )
        return found

    def clear(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.path, ignore_errors=True)

    def keep_only(self, names: Collection[str]) -> None:
        """Delete everything but checkpoints of these names: what a kill left behind, too."""
        for other in self.path.glob("*"):
            if other.name not in names:
                _remove(other)

    def _first_whole(self, paths: list[Path]) -> Path | None:
        for path in paths:
            fault = fault_of(path) if path.exists() else "is not there any more"
            if fault is None:
                return path
            if path not in self._warned:
                self._warned.add(path)
                _LOG.warning("%s: this checkpoint %s; the one before it is taken", path, fault)
        return None


_AT_ONCE = 3
"""Two whole checkpoints and one that is being written: no training of three saves has fewer."""

_GIGABYTE = 1e9


def require_free_space(folder: Path, model: Any, *, optimizer: str, n_saves: int) -> None:
    """Check that there is disk space for a training's checkpoints and its model.

    What is required is the least that ``n_saves`` checkpoints will need, less what lies in the
    folder already, so that no run that could end is refused; quotas are not seen. A ``ConfigError``
    says what is needed and what is there.
    """
    written = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    needed = least_bytes(model, optimizer=optimizer, n_saves=n_saves) - written
    there = folder
    while not there.is_dir():
        there = there.parent
    free = shutil.disk_usage(there).free
    if needed > free:
        raise ConfigError(
            f"{folder}: training needs at least {needed / _GIGABYTE:.3f} GB on this disk for its "
            f"checkpoints and the model, and {free / _GIGABYTE:.3f} GB are free; make room, set "
            "runs_dir to a folder on another disk, or tune less (finetune=lora)"
        )


def least_bytes(model: nn.Module, *, optimizer: str, n_saves: int) -> int:
    """Return how many bytes checkpoints and the model take together, at least.

    A checkpoint holds trainable weights and the optimizer's moments: two numbers a weight, of its
    own type (torch's AdamW), of 32 bits or of 8 (bitsandbytes 0.50). Nothing is assumed of other
    optimizers.
    """
    tuned = [weight for weight in model.parameters() if weight.requires_grad]
    # Only what is tuned is written where the rest is frozen.
    exported = sum(weight.numel() * weight.element_size() for weight in tuned)
    checkpoint = exported + sum(_moments(weight, optimizer) for weight in tuned)
    exporting = min(n_saves, _AT_ONCE - 1) * checkpoint + exported
    return max(min(n_saves, _AT_ONCE) * checkpoint, exporting)


def _moments(weight: Tensor, optimizer: str) -> int:
    width = {"adamw": weight.element_size(), "paged_adamw32bit": 4}.get(optimizer, 0)
    width = 1 if optimizer in ("adamw8bit", "paged_adamw8bit") else width
    return 2 * width * weight.numel()
