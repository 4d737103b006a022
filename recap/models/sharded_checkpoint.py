"""Checkpoints as folders: every rank writes the shares that it holds, any number of ranks reads.

Tensors that are spread over devices go through torch's distributed checkpoints under flat names,
everything else into one file beside them. Names and positions are those of an ordinary checkpoint,
so that a training may go on with another number of devices, or with one.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor, distribute_tensor

from recap.disks import sync, writing
from recap.models.checkpoint_index import TensorReader
from recap.models.digests import digests_of, save_digested, write_sums

REST = "rest.pt"
"""The file of everything that is not spread over devices."""

_WEIGHT, _OPTIMIZER = "weight:", "optimizer:"


def is_sharded_checkpoint(path: Path) -> bool:
    """Return whether a path is a checkpoint in the form of a folder."""
    return (path / REST).is_file()


def write_sharded(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint whose weights and optimiser states are spread over devices.

    Called by every rank together; the folder appears whole or not at all.

    Args:
        checkpoint: As Lightning puts it together, ``state_dict`` and ``optimizer_states`` holding
            this rank's ``DTensor`` shares.
        path: The folder; what has that name is deleted first, so that a name is best a new one.
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


def read_rest(path: Path) -> dict[str, Any]:
    """Return what a folder holds beside tensors that are spread over devices."""
    rest: dict[str, Any] = torch.load(path / REST, map_location="cpu", weights_only=True)
    return rest


def read_sharded(
    path: Path,
    *,
    like: Mapping[str, Tensor] | None = None,
    optimized: list[list[Tensor]] | None = None,
) -> dict[str, Any]:
    """Return the checkpoint of a folder, as Lightning puts it together.

    Args:
        path: The folder.
        like: Weights by name, whose way of being spread is taken over; ``None`` reads every tensor
            whole, in this process alone.
        optimized: With ``like``: the weights of each optimiser, in its order. Left out, optimiser
            states are not read.
    """
    rest = read_rest(path)
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


def spread_like(checkpoint: dict[str, Any], like: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return an ordinary checkpoint with its tensors cut into this rank's shares.

    Every rank reads the same file, so that nothing is sent.

    Args:
        checkpoint: As Lightning reads it from one file.
        like: Weights by name, spread over devices.
    """
    weights = {
        name: _spread(tensor, like[name]) for name, tensor in checkpoint["state_dict"].items()
    }
    return {**checkpoint, "state_dict": weights}


def spread_states(state: Mapping[str, Any], weights: list[Tensor]) -> dict[str, Any]:
    """Return an optimiser's state with its moments cut into shares, as the weights are."""
    spread = {
        place: {
            key: _spread(value, weights[place])
            if isinstance(value, Tensor) and value.shape == weights[place].shape and value.ndim
            else value
            for key, value in entry.items()
        }
        for place, entry in state["state"].items()
    }
    return {**state, "state": spread}


def gathered(module: torch.nn.Module, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """Return the whole weights of a module on the CPU; on ranks other than the first, nothing.

    Called by every rank together. One weight at a time is whole on the other ranks. Weights that
    are tied stay one tensor.

    Args:
        module: Weights spread over devices, or not.
        wanted: Whether a weight of this name is asked for.
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


def _spread(tensor: Tensor, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor):
        return tensor
    # Without a source rank each takes its own share of what it has read.
    return distribute_tensor(
        tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None
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
    """Return name and weight's place of everything that is spread in one optimiser's state."""
    entries = rest["optimizer_states"][number]["state"]
    return [
        (_key(number, place, key), place)
        for place, entry in entries.items()
        for key in entry["spread"]
    ]


def _joined(tensors: Mapping[str, Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    """Undo :func:`_split`; optimiser states whose tensors were not read are left out."""
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
