"""The index of a checkpoint in shares, read without running what its pickle may say.

torch reads ``.metadata`` with ``pickle.load`` (2.13), and entries that are no tensors without
``weights_only``: a file from elsewhere could run anything. Here the index may name nothing but the
classes that an index of tensors consists of, and nothing but tensors is read by it.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

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
    """Reads the tensors of a checkpoint's folder; see the module.

    Args:
        path: The folder.
        wanted: Names of what is to be read; ``None``: only the index is looked at.
    """

    def __init__(self, path: Path, wanted: Iterable[str] | None = None) -> None:
        super().__init__(path)
        self._wanted = None if wanted is None else frozenset(wanted)

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return the index.

        Raises:
            pickle.UnpicklingError: When it names anything beyond an index of tensors, or what is
                wanted is no tensor.
        """
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
