"""The labels of a task as a tree of tokens, and what a model's prefill says of each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor

from recap.errors import RecapError

if TYPE_CHECKING:
    from recap.data.encode import ChatEncoder
    from recap.tasks.task import Task


CONTEXT = -1
"""The parent of a label's first token: the prompt."""


@dataclass(frozen=True, kw_only=True)
class LabelTree:
    """Token sequences of labels, their common beginnings once.

    A sequence goes up to and including what ends a label, so that no label is the beginning of
    another and none gains by being short. A parent has a smaller number than its children, and the
    nodes that have children come before those that end a label.

    Attributes:
        tokens: The token of each node.
        parents: The node before each node; :data:`CONTEXT` for the first token.
        paths: For each label the nodes of its sequence, in order.
        n_inner: How many nodes have children.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]
    n_inner: int

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """The nodes below the prompt (first entry), then below each inner node."""
        below: list[list[int]] = [[] for _ in range(1 + self.n_inner)]
        for node, parent in enumerate(self.parents):
            below[parent + 1].append(node)
        return tuple(map(tuple, below))

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """How many tokens stand between the prompt and each node."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent == CONTEXT else depths[parent] + 1)
        return tuple(depths)

    @cached_property
    def ancestors(self) -> tuple[tuple[int, ...], ...]:
        """For each node the nodes on its path, itself included."""
        found: list[tuple[int, ...]] = []
        for node, parent in enumerate(self.parents):
            found.append((node,) if parent == CONTEXT else (*found[parent], node))
        return tuple(found)

    def path_tokens(self, nodes: Sequence[int]) -> list[int]:
        """Return the tokens of nodes."""
        return [self.tokens[node] for node in nodes]


def grow_tree(sequences: Sequence[Sequence[int]]) -> LabelTree:
    """Return the tree of token sequences, one a label.

    Raises:
        RecapError: When a sequence is empty, or one is another's beginning.
    """
    inner = {tuple(s[:end]) for s in sequences for end in range(1, len(s))}
    ends = [tuple(sequence) for sequence in sequences]
    if len(set(ends)) < len(ends) or not inner.isdisjoint(ends) or () in ends:
        raise RecapError(
            "a label's tokens are the beginning of another label's, so that their probabilities "
            "cannot be told apart; give the taxonomy's labels names that differ"
        )
    # Shorter before longer, and within one length as the labels come.
    ordered = dict.fromkeys(
        tuple(s[:end])
        for end in range(1, max(map(len, sequences)))
        for s in sequences
        if end < len(s)
    )
    number = {beginning: node for node, beginning in enumerate([*ordered, *ends])}
    return LabelTree(
        tokens=tuple(beginning[-1] for beginning in number),
        parents=tuple(number.get(beginning[:-1], CONTEXT) for beginning in number),
        paths=tuple(
            tuple(number[tuple(s[:end])] for end in range(1, len(s) + 1)) for s in sequences
        ),
        n_inner=len(ordered),
    )


def label_tree(task: Task, encoder: ChatEncoder) -> LabelTree:
    """Return the tree of a task's labels as the model was trained to write them.

    Each sequence is ``Behavior: <label>`` and what follows at once: the end of the turn where an
    answer is a label alone, the end of the line where a reason comes after it.

    Raises:
        RecapError: When the tokenizer does not end the label's line in the same way for any reason.
    """
    return grow_tree([_label_ids(task, encoder, label) for label in task.labels])


def _label_ids(task: Task, encoder: ChatEncoder, label: str) -> tuple[int, ...]:
    lines, written = task.answer_format.lines, task.written(label)
    if not task.rationale:
        return encoder.answer_ids(lines(written, None))
    found = {
        _through_line_end(encoder, encoder.answer_ids(lines(written, reason)))
        for reason in ("The client", "来访者")
    }
    if len(found) > 1:
        raise RecapError(
            f"the tokenizer ends the line of label {label!r} in different ways before different "
            "reasons, so that it has no probability of its own; please report its name"
        )
    return found.pop()


def _through_line_end(encoder: ChatEncoder, ids: tuple[int, ...]) -> tuple[int, ...]:
    """Return the leading tokens whose text first holds a line end."""
    end = next(end for end in range(1, len(ids)) if "\n" in encoder.text(ids[:end]))
    return ids[:end]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prefill:
    """What a model makes of a batch of prompts with all labels tried behind each.

    Attributes:
        edges: ``(batch, nodes)``: log-probability of each node's token after the tokens above it.
        likeliest: ``(batch, 1 + inner nodes)``: the likeliest token after the prompt, and after
            each inner node.
        cache: What the engine decodes on from.
    """

    edges: Tensor
    likeliest: Tensor
    cache: Any

    def log_probabilities(self, tree: LabelTree) -> Tensor:
        """Return the log-probability ``(batch, labels)`` of each label's whole sequence."""
        import torch

        return torch.stack([self.edges[:, list(path)].sum(dim=1) for path in tree.paths], dim=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeStart:
    """How an answer begins.

    Attributes:
        row: Its prompt's place in the batch.
        nodes: Inner nodes that it has taken.
        token: The token after them.
    """

    row: int
    nodes: tuple[int, ...]
    token: int


def greedy_start(prefill: Prefill, tree: LabelTree, row: int) -> tuple[DecodeStart, int | None]:
    """Return how a greedy answer begins, and the node of the label that it comes to, if any."""
    nodes: list[int] = []
    place = CONTEXT
    while True:
        token = int(prefill.likeliest[row, place + 1])
        found = next((n for n in tree.children[place + 1] if tree.tokens[n] == token), None)
        if found is None or found >= tree.n_inner:
            return DecodeStart(row=row, nodes=tuple(nodes), token=token), found
        nodes.append(found)
        place = found


def best_path(prefill: Prefill, tree: LabelTree, row: int) -> int:
    """Return the label that greedy decoding comes to when no other token is allowed."""
    place = CONTEXT
    while place < tree.n_inner:
        below = tree.children[place + 1]
        place = max(below, key=lambda node: float(prefill.edges[row, node]))
    return next(label for label, path in enumerate(tree.paths) if path[-1] == place)
