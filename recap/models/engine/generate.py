"""Labels as a tree of tokens, and their decoding by whole forward passes, for any architecture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recap.errors import RecapError
from recap.models.finetune import causal_model

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


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end_of_turn_id: int,
    pad_id: int,
    batch_size: int = 32,
    in_step: bool = False,
) -> list[list[int]]:
    """Return what the model answers to each prompt, in the order given, without the end of turn.

    Greedy (the paper's temperature 0, top-p 1): at every step the likeliest token. Sampling
    settings that came with a checkpoint, such as Qwen2.5's repetition penalty, are not applied.

    Sums are taken in an order that depends on ``batch_size`` and on the processor. In float32 that
    decides between tokens that are as likely as each other to the seventh digit, and else changes
    no answer; in bfloat16 it changes a token now and then.

    Args:
        model: A ``transformers`` causal language model, or a PEFT model around one.
        prompts: Token ids, each ending with the header of the assistant's turn.
        max_new_tokens: Longest answer; a longer one is cut.
        end_of_turn_id: Ends an answer.
        pad_id: Fills short rows.
        batch_size: Prompts decoded together; neighbors in length share a batch.
        in_step: Whether devices go on until the last of them is done, which weights spread over
            devices need: each token gathers them.
    """
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    answers: list[list[int]] = [[] for _ in prompts]
    causal = causal_model(model)
    with evaluating(causal), _clean_generation_config(causal), torch.no_grad():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            rows = [list(prompts[i]) for i in chosen]
            input_ids, mask = _left_padded(rows, pad_id, causal.device)
            output = causal.generate(
                input_ids=input_ids,
                attention_mask=mask,
                generation_config=_greedy(max_new_tokens, end_of_turn_id, pad_id),
                synced_gpus=in_step,
            )
            for i, row in zip(chosen, output[:, input_ids.shape[1] :].tolist(), strict=True):
                answers[i] = row[: row.index(end_of_turn_id)] if end_of_turn_id in row else row
    return answers


def _left_padded(
    rows: list[list[int]], pad_id: int, device: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask ``(batch, time)``, padded on the left: every row goes on at its end."""
    time = max(map(len, rows))
    ids = torch.tensor([[pad_id] * (time - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (time - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


def _greedy(max_new_tokens: int, end_of_turn_id: int, pad_id: int) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        eos_token_id=end_of_turn_id,
        pad_token_id=pad_id,
    )


@contextmanager
def _clean_generation_config(causal: Any) -> Iterator[None]:
    """Put the checkpoint's settings aside, from which ``generate`` fills unset fields (5.23)."""
    from transformers import GenerationConfig

    own = causal.generation_config
    causal.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        causal.generation_config = own


@contextmanager
def evaluating(causal: Any) -> Iterator[None]:
    """Switch dropout off, and back to what it was."""
    was_training = causal.training
    causal.eval()
    try:
        yield
    finally:
        causal.train(was_training)


class PlainEngine:
    """Answers prompts of models whose rows are not known to be exact: slowly, and as they are.

    Args:
        model: A ``transformers`` causal language model, or a PEFT model around one; in evaluation
            mode whenever it is used.
        tree: The labels.
        end_of_turn_id: Ends an answer.
        pad_id: Fills short rows.
        in_step: As in :func:`recap.models.engine.generate.generate`.
    """

    def __init__(
        self,
        model: Any,
        tree: LabelTree,
        *,
        end_of_turn_id: int,
        pad_id: int,
        in_step: bool = False,
    ) -> None:
        self._causal = causal_model(model)
        self._tree = tree
        self._end = end_of_turn_id
        self._pad = pad_id
        self._in_step = in_step

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Prefill:
        """Return what the model makes of a batch of prompts, one pass for every label."""
        tree = self._tree
        edges = torch.zeros((len(prompts), len(tree.tokens)), dtype=torch.float64)
        likeliest = torch.zeros((len(prompts), 1 + tree.n_inner), dtype=torch.long)
        for path in tree.paths:
            logits = self._logits(prompts, tree.path_tokens(path[:-1]))
            log_probabilities = torch.log_softmax(logits.double(), dim=2)
            for place, node in enumerate(path):
                edges[:, node] = log_probabilities[:, place, tree.tokens[node]]
                likeliest[:, tree.parents[node] + 1] = logits[:, place].argmax(dim=1)
        return Prefill(edges=edges, likeliest=likeliest, cache=[list(prompt) for prompt in prompts])

    def decode(
        self, prefill: Prefill, starts: Sequence[DecodeStart], *, max_new_tokens: int
    ) -> list[list[int]]:
        """Return the greedy tokens after each start, without the end of turn."""
        if self._in_step and not starts:
            # The other devices go on, and need this one to compute along.
            self.decode(
                prefill,
                [DecodeStart(row=0, nodes=(), token=self._end)],
                max_new_tokens=max_new_tokens,
            )
            return []
        begun = [(*self._tree.path_tokens(start.nodes), start.token) for start in starts]
        answers = generate(
            self._causal,
            [(*prefill.cache[s.row], *b) for s, b in zip(starts, begun, strict=True)],
            max_new_tokens=max(1, max_new_tokens - 1),
            end_of_turn_id=self._end,
            pad_id=self._pad,
            batch_size=max(1, len(starts)),
            in_step=self._in_step,
        )
        return [
            answer[: max(0, max_new_tokens - len(b))]
            for answer, b in zip(answers, begun, strict=True)
        ]

    def _logits(self, prompts: Sequence[Sequence[int]], tokens: list[int]) -> Tensor:
        """Return logits ``(batch, 1 + tokens, vocabulary)`` after the prompts and each token."""
        rows = [[*prompt, *tokens] for prompt in prompts]
        time = max(map(len, rows))
        device = self._causal.device
        ids = torch.tensor([row + [self._pad] * (time - len(row)) for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (time - len(row)) for row in rows])
        logits = self._causal(input_ids=ids, attention_mask=mask.to(device), use_cache=False).logits
        return (
            torch.stack(
                [logits[i, len(row) - len(tokens) - 1 : len(row)] for i, row in enumerate(rows)]
            )
            .cpu()
            .float()
        )
