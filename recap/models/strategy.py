"""How Lightning trains: the strategy of many devices, how weights are spread, oneDNN's products.

``fsdp`` is FSDP2 (torch's ``fully_shard``) under Lightning's ``ModelParallelStrategy``. Lightning's
``FSDPStrategy`` is the older FSDP1: it refuses CPUs (2.6.6), so nothing of it could be tested
without several GPUs, and it keeps flat parameters, which neither adapters beside frozen weights nor
checkpoints for another number of devices suit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import Precision
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, fully_shard
from torch.optim import Optimizer

from recap.models.backbone import LazyWeights
from recap.models.checkpoints import (
    is_sharded_checkpoint,
    read_checkpoint,
    read_sharded,
    spread_like,
    write_sharded,
)
from recap.models.finetune import causal_model
from recap.models.precision import onednn_matmul


def build_strategy(name: str, *, world_size: int, cpu_offload: bool = False) -> Strategy | str:
    """Return what ``lightning.Trainer(strategy=)`` takes.

    ``auto`` and ``ddp`` are the same for several devices; ``cpu_offload`` has ``fsdp`` keep shares
    and optimizer state in the host's memory.
    """
    if name == "fsdp":
        return ShardedStrategy(world_size=world_size, cpu_offload=cpu_offload)
    if world_size > 1:
        # Gradients are views of the buffers that are sent: no second copy of them.
        return DDPStrategy(gradient_as_bucket_view=True)
    return "auto"


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all devices, with checkpoints that any number of devices can go on from."""

    def __init__(self, *, world_size: int, cpu_offload: bool = False) -> None:
        super().__init__(
            data_parallel_size=world_size,
            tensor_parallel_size=1,
            # Shares on the host are summed there, those on a GPU by NCCL.
            process_group_backend="cpu:gloo,cuda:nccl"
            if cpu_offload and torch.cuda.is_available()
            else None,
        )
        self.cpu_offload = cpu_offload

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Optimizer states come back through :meth:`load_optimizer_state_dict`."""
        return True

    def model_to_device(self) -> None:
        """Move the model, but for shares that are kept in the host's memory."""
        assert self.model is not None
        if not self.cpu_offload:
            super().model_to_device()
            return
        for module in self.model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                module._buffers[name] = buffer.to(self.root_device)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return this rank's shares by name."""
        assert self.lightning_module is not None
        return self.lightning_module.state_dict()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return an optimizer's state, this rank's shares by the weights' places."""
        state: dict[str, Any] = getattr(optimizer, "_optimizer", optimizer).state_dict()
        return state

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        """Write a folder, every rank its shares."""
        write_sharded(checkpoint, Path(self.broadcast(filepath)))

    def load_checkpoint(
        self, checkpoint_path: Any, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Return a checkpoint of any number of devices, cut into this rank's shares."""
        path = Path(self.broadcast(checkpoint_path))
        assert self.lightning_module is not None
        like = self.lightning_module.state_dict()
        optimized = [
            [weight for group in optimizer.param_groups for weight in group["params"]]
            for optimizer in self.optimizers
        ]
        if is_sharded_checkpoint(path):
            return read_sharded(path, like=like, optimized=optimized)
        return spread_like(read_checkpoint(path), like, optimized)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take back the weights."""
        assert self.lightning_module is not None
        self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take back the optimizers' states."""
        states = checkpoint["optimizer_states"]
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)


def is_sharded(module: torch.nn.Module) -> bool:
    """Return whether :func:`shard` was called on a module."""
    return isinstance(module, FSDPModule)


def shard(
    module: torch.nn.Module,
    model: Any,
    mesh: DeviceMesh,
    *,
    cpu_offload: bool = False,
    weights: LazyWeights | None = None,
) -> None:
    """Spread the weights of a model over the devices of a mesh, one decoder layer at a time.

    Each layer is a group of its own, gathered when it computes; embeddings, last norm and output
    layer, which may be tied, are the group of ``module``, which holds the model, and through whose
    ``forward`` everything has to be computed. ``weights`` of a model on the meta device are read a
    layer at a time, so that no rank ever holds more than its shares and one layer.
    """
    options: dict[str, Any] = {"mesh": mesh}
    if cpu_offload:
        options["offload_policy"] = CPUOffloadPolicy(pin_memory=mesh.device_type == "cuda")
    for layer in causal_model(model).get_decoder().layers:
        if weights is not None:
            weights.fill(model, layer)
        fully_shard(layer, **options)
    if weights is not None:
        weights.fill(model, model)
        causal_model(model).tie_weights()
    fully_shard(module, **options)


class OneDnnPrecision(Precision):
    """Lightning's 32-true, with oneDNN's matrix products in steps of training and selection."""

    precision = "32-true"

    @contextmanager
    def train_step_context(self) -> Iterator[None]:
        """Multiply so in the forward of a step."""
        with onednn_matmul(), super().train_step_context():
            yield

    @contextmanager
    def val_step_context(self) -> Iterator[None]:
        """Multiply so when the epoch is selected."""
        with onednn_matmul(), super().val_step_context():
            yield

    def backward(self, tensor: Tensor, *arguments: Any, **options: Any) -> None:
        """Multiply so in the backward."""
        with onednn_matmul():
            super().backward(tensor, *arguments, **options)
