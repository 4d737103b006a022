"""From prompts to answers: label, label probabilities, rationale."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from recap.config import Decoding, Engine
from recap.data.encode import ChatEncoder
from recap.errors import ConfigError
from recap.models.batch_size import AutomaticBatchSize
from recap.models.engine.attention import why_unsupported
from recap.models.engine.decode import CachedPath, TrunkEngine
from recap.models.engine.generate import (
    DecodeStart,
    PlainEngine,
    Prefill,
    best_path,
    evaluating,
    greedy_start,
    label_tree,
)
from recap.models.finetune import causal_model
from recap.tasks.task import Task

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelAnswer:
    """A model's answer to one prompt.

    Attributes:
        tokens: What it emitted, or the tokens of the label that was decided for and of the
            rationale; without the end of turn.
        text: The same as text.
        label: Canonical name; ``None`` for free text without a readable label.
        rationale: ``None`` where there is none, or none was wanted.
        log_probabilities: Of every label's whole token sequence, what ends it included; in nats.
        probabilities: The same, made to add up to 1 over the labels, to 6 significant digits. In
            float32 another batch or processor changes them by less than 1e-4 (docs/decoding.md).
    """

    tokens: tuple[int, ...]
    text: str
    label: str | None
    rationale: str | None
    log_probabilities: Mapping[str, float]
    probabilities: Mapping[str, float]


class LabelScorer:
    """Answers a task's prompts with one model.

    What prompts begin with is encoded once, instructions and the turns of a dialogue alike: they
    are answered in the order of their ids, so that a dialogue's stand together, and each batch goes
    on from the last prompt of the one before. All labels are tried in the pass that encodes the
    rest, and answers of a batch are decoded together. In float32 the tokens are those of plain
    greedy decoding, whatever the batches, but where rounding decides between two.

    Args:
        model: A ``transformers`` causal language model, or a PEFT model around one.
        task: Whose labels are scored; parses answers.
        encoder: The model's tokenizer.
        max_new_tokens: Longest answer; a longer one is cut.
        batch_size: Prompts answered together, halved for good when memory runs out; ``None``: all.
        rationale: Whether rationales are wanted; ``None``: where the task has them.
        decoding: ``free``: greedy text, parsed; ``constrained``: greedy among tokens that lead to a
            label; ``scored``: the likeliest label.
        threshold: Of the first of two labels: it is decided for wherever its probability reaches
            this, and nowhere else. For ``scored`` decoding alone; ``None``: the likelier label.
        adapter: A PEFT adapter that is switched on before each use, where several share one base.
        in_step: Whether devices go on until the last of them is done, which weights spread over
            devices need.
        engine: ``trunk`` computes what prompts share once; ``plain`` is transformers' ``generate``;
            ``auto``: the first where it is exact.

    Raises:
        ConfigError: For a threshold without ``scored`` decoding of two labels, or for a model that
            the engine asked for would not be exact for.
    """

    def __init__(
        self,
        model: Any,
        task: Task,
        encoder: ChatEncoder,
        *,
        decoding: Decoding = "free",
        max_new_tokens: int = 128,
        batch_size: int | None = 32,
        rationale: bool | None = None,
        threshold: float | None = None,
        adapter: str | None = None,
        in_step: bool = False,
        engine: Engine = "auto",
    ) -> None:
        self._model = model
        self._causal = causal_model(model)
        self._task = task
        self._encoder = encoder
        self._decoding = decoding
        self._max_new_tokens = max_new_tokens
        self._batch_size = AutomaticBatchSize(
            option="decoding.batch_size", what="prompt", most=batch_size
        )
        self._with_rationale = task.rationale and rationale is not False
        self._threshold = threshold
        self._adapter = adapter
        self._in_step = in_step
        check_threshold(threshold, task, decoding)
        self._tree = label_tree(task, encoder)
        end = encoder.end_of_turn_id
        self._path: CachedPath | None = None
        self._engine: TrunkEngine | PlainEngine
        why = why_unsupported(self._causal)
        if engine == "trunk" and why:
            raise ConfigError(f"decoding.engine=trunk: {why}; set decoding.engine=plain")
        if why or engine == "plain":
            self._engine = PlainEngine(
                model, self._tree, end_of_turn_id=end, pad_id=encoder.pad_id, in_step=in_step
            )
        else:
            self._engine = TrunkEngine(model, self._tree, end_of_turn_id=end, in_step=in_step)

    def answer(self, prompts: Sequence[Sequence[int]]) -> list[ModelAnswer]:
        """Return the answers to prompts of token ids, in the order given.

        Raises:
            ConfigError: When memory runs out for a single prompt.
        """
        return self._in_batches(prompts, lambda batch: self._answers(self._prefill(batch)))

    def label_probabilities(self, prompts: Sequence[Sequence[int]]) -> list[dict[str, float]]:
        """Return the probability of every label for each prompt, in the order given.

        They are those of :meth:`answer`; nothing is generated.

        Raises:
            ConfigError: When memory runs out for a single prompt.
        """
        return self._in_batches(prompts, self._label_probabilities)

    def branch(self) -> LabelScorer:
        """Return the same with a memory of its own: for the growing prompts of one dialogue."""
        return copy.copy(self)

    def _in_batches(
        self,
        prompts: Sequence[Sequence[int]],
        compute: Callable[[Sequence[Sequence[int]]], list[T]],
    ) -> list[T]:
        """Return what is computed of prompts, those that begin alike, or are alike in length."""
        order = sorted(range(len(prompts)), key=lambda i: tuple(prompts[i]))
        if isinstance(self._engine, PlainEngine):
            order.sort(key=lambda i: -len(prompts[i]))
        found: dict[int, T] = {}
        with self._in_use():
            while order:
                batch = order[: self._batch_size.most]
                try:
                    computed = compute([prompts[i] for i in batch])
                except (RuntimeError, MemoryError) as error:
                    self._batch_size.shrink(len(batch), error, whole=self._in_step)
                    continue
                found.update(zip(batch, computed, strict=True))
                order = order[len(batch) :]
        return [found[i] for i in range(len(prompts))]

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> Prefill:
        if isinstance(self._engine, PlainEngine):
            return self._engine.prefill(prompts)
        prefill = self._engine.prefill(prompts, self._path)
        self._path = self._engine.path(prefill, prompts)
        return prefill

    def _label_probabilities(self, prompts: Sequence[Sequence[int]]) -> list[dict[str, float]]:
        scores = self._prefill(prompts).log_probabilities(self._tree).double()
        return [self._by_label(row) for row in torch.softmax(scores, dim=1)]

    def _by_label(self, probabilities: torch.Tensor) -> dict[str, float]:
        """Return one row of probabilities by label, to 6 significant digits."""
        rounded = [float(f"{p:.6g}") for p in probabilities.tolist()]
        return dict(zip(self._task.labels, rounded, strict=True))

    def _answers(self, prefill: Prefill) -> list[ModelAnswer]:
        scores = prefill.log_probabilities(self._tree).double()
        probabilities = torch.softmax(scores, dim=1)
        labels = [self._decided(prefill, row, probabilities[row]) for row in range(len(scores))]
        tokens = self._tokens(prefill, labels)
        names = self._task.labels
        answers = []
        for row, (label, emitted) in enumerate(zip(labels, tokens, strict=True)):
            text = self._encoder.text(emitted)
            parsed = self._task.parse(text)
            answers.append(
                ModelAnswer(
                    tokens=tuple(emitted),
                    text=text,
                    label=parsed.label if label is None else names[label],
                    rationale=parsed.rationale if self._with_rationale else None,
                    log_probabilities=dict(zip(names, scores[row].tolist(), strict=True)),
                    probabilities=self._by_label(probabilities[row]),
                )
            )
        return answers

    def _decided(self, prefill: Prefill, row: int, probabilities: torch.Tensor) -> int | None:
        """Return the label that is decided for before anything is generated, if any."""
        if self._decoding == "free":
            return None
        if self._decoding == "constrained":
            return best_path(prefill, self._tree, row)
        if self._threshold is None:
            return int(probabilities.argmax())
        return 0 if probabilities[0] >= self._threshold else 1

    def _tokens(self, prefill: Prefill, labels: Sequence[int | None]) -> list[list[int]]:
        """Return the tokens of every answer, decoded where they are not known yet."""
        tree, end = self._tree, self._encoder.end_of_turn_id
        starts, ended = [], []
        for row, label in enumerate(labels):
            if label is None:
                start, leaf = greedy_start(prefill, tree, row)
            else:
                *nodes, leaf = tree.paths[label]
                start = DecodeStart(row=row, nodes=tuple(nodes), token=tree.tokens[leaf])
            starts.append(start)
            ended.append(start.token == end or (leaf is not None and not self._with_rationale))
        going = [start for start, over in zip(starts, ended, strict=True) if not over]
        followed: Iterator[list[int]] = iter(())
        if going or self._in_step:
            followed = iter(
                self._engine.decode(prefill, going, max_new_tokens=self._max_new_tokens)
            )
        tokens = []
        for start, over in zip(starts, ended, strict=True):
            emitted = tree.path_tokens(start.nodes)
            # A line end that ends a label is not part of it.
            emitted += [] if over else [start.token, *next(followed)]
            tokens.append(emitted[: self._max_new_tokens])
        return tokens

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Have the model evaluate, with the right adapter on."""
        if self._adapter is not None:
            self._model.set_adapter(self._adapter)
        with evaluating(self._causal), torch.no_grad():
            yield


def check_threshold(threshold: float | None, task: Task, decoding: str) -> None:
    """Check that a threshold goes with task and decoding.

    Raises:
        ConfigError: When it does not.
    """
    if threshold is None:
        return
    if decoding != "scored":
        raise ConfigError(
            f"threshold={threshold}: it looks at probabilities, and decoding={decoding} does not; "
            "set decoding=scored"
        )
    if len(task.labels) != 2:
        raise ConfigError(
            f"threshold={threshold}: it decides between two labels, and task {task.name!r} has "
            f"{len(task.labels)}; leave it null"
        )
