"""The last decoder layer, computed only for the tokens whose states are asked for.

Only states that predict an answer token have a loss, and behind the last layer nothing looks at any
other: there all but keys and values is computed for those alone. One layer of 4 is a good part of a
step, one of 28 is not.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from recap.data.batches import Layout

WANTED = "recap_wanted"
"""The keyword under which a decoder is told what is asked of its last layer."""

ASKED = "recap_asked"
"""The keyword under which the last layer passes it on to its attention alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """What is asked of the last layer: ``positions`` of one row, in order, and its layout."""

    positions: Tensor
    layout: Layout

    def places(self) -> list[Tensor]:
        """Return the positions of each rest, counted from its start."""
        positions, start, found = self.positions.tolist(), self.layout.prefix, []
        for length in self.layout.lengths:
            own = [place - start for place in positions if start <= place < start + length]
            found.append(torch.tensor(own, dtype=torch.long, device=self.positions.device))
            start += length
        return found


def crop_last_layer(layer: Any) -> None:
    """Make a layer compute only what a call asks for under :data:`WANTED`.

    In any other call it runs as it did.

    Args:
        layer: A decoder's last, with the norms, attention and residuals of Llama.
    """
    layer.forward = functools.partial(_forward, layer, layer.forward)


def _forward(layer: Any, whole: Any, hidden_states: Tensor, *rest: Any, **options: Any) -> Any:
    """Return the layer's output ``(1, positions, hidden)``, or that of its ``whole`` forward."""
    asked: Asked | None = options.pop(WANTED, None)
    if asked is None:
        return whole(hidden_states, *rest, **options)
    attended, _ = layer.self_attn(
        *rest, hidden_states=layer.input_layernorm(hidden_states), **options, **{ASKED: asked}
    )
    states = hidden_states[:, asked.positions] + attended[:, asked.positions]
    return states + layer.mlp(layer.post_attention_layernorm(states))


def attention_of_asked(
    asked: Asked,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    before: tuple[Tensor, Tensor] | None = None,
    **shared: Any,
) -> Tensor:
    """Return the attention of one row in the last layer, as large as ``query``.

    It is zero where nothing is asked for.

    Args:
        asked: What is.
        query: ``(1, heads, time, head_dim)``.
        key: ``(1, key_value_heads, time, head_dim)``.
        value: As ``key``.
        before: Keys and values of a prefix that is no part of the row.
        **shared: Options of every call of torch's attention.
    """
    sizes = [asked.layout.prefix, *asked.layout.lengths]
    queries, keys, values = (torch.split(each, sizes, dim=2) for each in (query, key, value))
    first_key, first_value = before or (keys[0], values[0])
    prefix = first_key.shape[2]
    outputs = []
    for places, own, *parts in zip(asked.places(), queries[1:], keys[1:], values[1:], strict=True):
        time = torch.arange(prefix + own.shape[2], device=own.device)
        outputs.append(
            scaled_dot_product_attention(
                own[:, :, places],
                _behind(first_key, parts[0]),
                _behind(first_value, parts[1]),
                attn_mask=time <= prefix + places[:, None],
                **shared,
            )
        )
    found = torch.cat(outputs, dim=2)
    return found.new_zeros(query.shape).index_copy(2, asked.positions, found)


def _behind(first: Tensor, own: Tensor) -> Tensor:
    return torch.cat([first, own], dim=2)
