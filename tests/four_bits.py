"""What weights of 4 bits stand for, read by hand from the bytes that bitsandbytes keeps."""

from __future__ import annotations

from typing import Any

import torch

# Dettmers et al. (2023), appendix E.
NF4 = torch.tensor(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
)


def constants(weight: Any) -> torch.Tensor:
    """Return the constant of each block of weights ``(blocks)``, itself kept in 8 bits."""
    state = weight.quant_state
    outer = state.state2.absmax.repeat_interleave(state.state2.blocksize)
    return state.state2.code[state.absmax.long()] * outer[: state.absmax.numel()] + state.offset


def read(weight: Any) -> torch.Tensor:
    """Return the matrix that a parameter of 4 bits stands for, in float32.

    Two weights are a byte, the first in its upper half; blocks go on from row to row.
    """
    packed = weight.data.reshape(-1)
    indices = torch.stack([packed >> 4, packed & 15], dim=1).reshape(-1).long()
    of_each = constants(weight).repeat_interleave(weight.quant_state.blocksize)
    return (NF4[indices] * of_each[: len(indices)]).reshape(weight.quant_state.shape)
