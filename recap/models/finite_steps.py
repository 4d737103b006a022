"""Optimiser steps whose loss or gradient is no finite number: skipped, counted, in the end fatal.

One such step would make every weight NaN, and every later checkpoint with them.
"""

from __future__ import annotations

import logging
from typing import Any

import lightning
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from recap.data.batches import Batch
from recap.errors import ConfigError, quote_id

_MOST_NAMED = 8
_LOG = logging.getLogger(__name__)


class FiniteSteps(lightning.Callback):
    """Skips optimiser steps that would spoil the weights, and stops after several in a row.

    Weights, moments and decay stay as they are; the step counts, so that the learning rate moves
    on. Under ``16-mixed`` gradients that overflow are the loss scaler's affair, and only the loss
    is looked at.

    Args:
        most_in_a_row: At how many skipped steps in a row training stops.

    Attributes:
        skipped: Steps that were skipped so far.
    """

    def __init__(self, most_in_a_row: int) -> None:
        self.skipped = 0
        self._in_a_row = 0
        self._most_in_a_row = most_in_a_row
        self._ids: list[list[str]] = []
        self._finite: list[torch.Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the counts."""
        return {"skipped": self.skipped, "in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the counts back."""
        self.skipped, self._in_a_row = state_dict["skipped"], state_dict["in_a_row"]

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Note which examples the next loss is of."""
        self._ids.append([example.id for example in batch.examples])

    def on_before_backward(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        loss: torch.Tensor,
    ) -> None:
        """Note whether a micro-batch's loss is finite."""
        self._finite.append(torch.isfinite(loss.detach()))

    def on_before_optimizer_step(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        optimizer: Optimizer,
    ) -> None:
        """Drop the step's gradients if anything about them is not finite.

        Raises:
            ConfigError: After too many such steps in a row, naming the examples of the last one.
        """
        finite = torch.stack(self._finite).tolist()
        step_ids, self._ids, self._finite = self._ids, [], []
        judges_gradients = getattr(trainer.precision_plugin, "scaler", None) is None
        whole = all(finite) and (not judges_gradients or _has_finite_gradients(optimizer))
        if not _is_any(not whole, trainer):
            self._in_a_row = 0
            return
        # An optimiser leaves weights without a gradient alone.
        optimizer.zero_grad(set_to_none=True)
        self.skipped += 1
        self._in_a_row += 1
        suspects = [ids for ids, is_finite in zip(step_ids, finite, strict=True) if not is_finite]
        named = _named(_of_all(suspects or ([] if whole else step_ids)))
        step = trainer.global_step + 1
        if trainer.is_global_zero:
            _LOG.warning(
                "optimiser step %d skipped, the loss or its gradient is no finite number "
                "(%d in a row, %d in all): %s",
                *(step, self._in_a_row, self.skipped, named),
            )
        if self._in_a_row >= self._most_in_a_row:
            raise ConfigError(
                f"training stopped at optimiser step {step}: in {self._in_a_row} steps in a row "
                f"the loss or its gradient was no finite number, last with {named}; lower "
                "optimizer.learning_rate, set trainer.precision=32-true, or look at these "
                "examples (trainer.max_skipped_steps is the limit)"
            )


def _has_finite_gradients(optimizer: Optimizer) -> bool:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    if not gradients:
        return True
    norm = torch.nn.utils.get_total_norm(gradients)
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    return bool(torch.isfinite(norm))


def _is_any(flag: bool, trainer: lightning.Trainer) -> bool:
    """Return whether the flag is up on any device; every device has to ask."""
    if trainer.world_size == 1:
        return flag
    flags = torch.tensor(float(flag), device=trainer.strategy.root_device)
    dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    return bool(flags)


def _of_all(ids: list[list[str]]) -> list[str]:
    """Return the ids of all devices."""
    shares = [ids]
    if dist.is_available() and dist.is_initialized():
        shares = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(shares, ids)
    return list(dict.fromkeys(id_ for share in shares for batch in share for id_ in batch))


def _named(ids: list[str]) -> str:
    """Return ids as a message names them; never a text."""
    shown = ", ".join(quote_id(id_) for id_ in ids[:_MOST_NAMED])
    more = len(ids) - _MOST_NAMED
    rest = f" and {more} more" if more > 0 else ""
    return f"example{'s' * (len(ids) != 1)} {shown}{rest}"
