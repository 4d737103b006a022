"""What a model makes of prompts before anything is decided: label probabilities, next tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from recap.models.label_tree import CONTEXT, LabelTree


@dataclass(frozen=True, kw_only=True, eq=False)
class Opening:
    """A batch of prompts with all labels tried behind each.

    Attributes:
        edges: ``(batch, nodes)``: log-probability of each node's token after the tokens above it.
        likeliest: ``(batch, 1 + inner nodes)``: the likeliest token after the prompt, and after
            each inner node.
        kept: What the engine needs to go on from here.
    """

    edges: Tensor
    likeliest: Tensor
    kept: Any

    def log_probabilities(self, tree: LabelTree) -> Tensor:
        """Return the log-probability ``(batch, labels)`` of each label's whole sequence."""
        import torch

        return torch.stack([self.edges[:, list(path)].sum(dim=1) for path in tree.paths], dim=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """How an answer begins.

    Attributes:
        row: Its prompt's place in the batch.
        nodes: Inner nodes that it has taken.
        token: The token after them.
    """

    row: int
    nodes: tuple[int, ...]
    token: int


class Engine(Protocol):
    """Opens prompts, and goes on with answers."""

    def open(self, prompts: Sequence[Sequence[int]]) -> Opening:
        """Return what the model makes of a batch of prompts."""
        ...

    def extend(self, opening: Opening, starts: Sequence[Start], *, most: int) -> list[list[int]]:
        """Return the greedy tokens after each start, without the end of turn.

        Args:
            opening: What :meth:`open` returned.
            starts: Answers to go on with.
            most: Longest answer in tokens, those of the start included.
        """
        ...


def greedy_start(opening: Opening, tree: LabelTree, row: int) -> tuple[Start, int | None]:
    """Return how a greedy answer begins, and the node of the label that it comes to, if any."""
    nodes: list[int] = []
    place = CONTEXT
    while True:
        token = int(opening.likeliest[row, place + 1])
        found = next((n for n in tree.children[place + 1] if tree.tokens[n] == token), None)
        if found is None or found >= tree.n_inner:
            return Start(row=row, nodes=tuple(nodes), token=token), found
        nodes.append(found)
        place = found


def best_path(opening: Opening, tree: LabelTree, row: int) -> int:
    """Return the label that greedy decoding comes to when no other token is allowed."""
    place = CONTEXT
    while place < tree.n_inner:
        below = tree.children[place + 1]
        place = max(below, key=lambda node: float(opening.edges[row, node]))
    return next(label for label, path in enumerate(tree.paths) if path[-1] == place)
