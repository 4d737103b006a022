"""From prompts to answers: label, probabilities, reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch

from recap.data.encode import ChatEncoder
from recap.errors import ConfigError
from recap.models.engine.generate import PlainEngine, evaluating
from recap.models.engine.kv_cache import Context, PrefixEngine, shared_length
from recap.models.engine.label_tree import Opening, Start, best_path, greedy_start, label_tree
from recap.models.engine.prefix_attention import why_not_served
from recap.models.finetune import causal_model
from recap.models.strategy import is_out_of_memory, tell_of_halving
from recap.records import Example, Turn
from recap.tasks.task import Task

Decoding = Literal["free", "constrained", "scored"]
"""``free``: greedy text, read by the parser; ``constrained``: greedy among tokens that lead to a
label; ``scored``: the likeliest label."""


T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelAnswer:
    """What a model says to one prompt.

    Attributes:
        tokens: What it emitted, or the tokens of the label that was decided for and of the reason;
            without the end of turn.
        text: The same as text.
        label: Canonical name; ``None`` for free text without a readable label.
        rationale: ``None`` where there is none, or none was asked for.
        log_probabilities: Of every label's whole token sequence, what ends it included; in nats.
        probabilities: The same, made to add up to 1 over the labels, to 6 significant digits: what
            comes after them changes with the batch.
    """

    tokens: tuple[int, ...]
    text: str
    label: str | None
    rationale: str | None
    log_probabilities: Mapping[str, float]
    probabilities: Mapping[str, float]


class Answerer:
    """Answers a task's prompts with one model.

    The constant part of the prompts is encoded once, all labels are tried in the pass that encodes
    the rest, and answers of a batch are decoded together. In float32 the tokens are those of plain
    greedy decoding, whatever the batches.

    Args:
        model: A ``transformers`` causal language model, or a PEFT model around one.
        task: Its labels are told apart; reads answers.
        encoder: The model's tokenizer.
        shots: Solved examples that stand in every prompt.
        constant: Tokens that the prompts begin with; ``None``: found from task and shots. Prompts
            that begin otherwise are answered all the same, only slower.
        decoding: How the label is decided.
        max_new_tokens: Longest answer; a longer one is cut.
        batch_size: Prompts answered together, halved for good when memory runs out; ``None``: all.
        rationale: Whether reasons are wanted; ``None``: where the task has them.
        threshold: Of the first of two labels: it is decided for wherever its probability reaches
            this, and nowhere else. For ``scored`` decoding alone; ``None``: the likelier label.
        adapter: A PEFT adapter that is switched on before each use, where several share one base.
        in_step: Whether devices go on until the last of them is done, which weights spread over
            devices need.

    Raises:
        ConfigError: For a threshold without ``scored`` decoding of two labels.
    """

    def __init__(
        self,
        model: Any,
        task: Task,
        encoder: ChatEncoder,
        *,
        shots: Sequence[Example] = (),
        constant: Sequence[int] | None = None,
        decoding: Decoding = "free",
        max_new_tokens: int = 128,
        batch_size: int | None = 32,
        rationale: bool | None = None,
        threshold: float | None = None,
        adapter: str | None = None,
        in_step: bool = False,
    ) -> None:
        self._model = model
        self._causal = causal_model(model)
        self._task = task
        self._encoder = encoder
        self._decoding = decoding
        self._max_new_tokens = max_new_tokens
        self._batch_size = batch_size
        self._halved = False
        self._explains = task.rationale and rationale is not False
        self._threshold = threshold
        self._adapter = adapter
        self._in_step = in_step
        check_threshold(threshold, task, decoding)
        self._tree = label_tree(task, encoder)
        end = encoder.end_of_turn_id
        self._engine: PrefixEngine | PlainEngine
        if why_not_served(self._causal):
            self._engine = PlainEngine(
                model, self._tree, end_of_turn_id=end, pad_id=encoder.pad_id, in_step=in_step
            )
        else:
            self._engine = PrefixEngine(
                model,
                self._tree,
                end_of_turn_id=end,
                constant=constant_ids(task, encoder, shots) if constant is None else constant,
                in_step=in_step,
            )

    def answer(self, prompts: Sequence[Sequence[int]]) -> list[ModelAnswer]:
        """Return the answers to prompts of token ids, in the order given.

        Raises:
            ConfigError: When memory runs out for a single prompt.
        """
        return self._in_batches(prompts, self._answer_batch)

    def judge(self, prompts: Sequence[Sequence[int]]) -> list[dict[str, float]]:
        """Return the probability of every label for each prompt, in the order given.

        They are those of :meth:`answer`; nothing is generated.

        Raises:
            ConfigError: When memory runs out for a single prompt.
        """
        return self._in_batches(prompts, self._judge_batch)

    def conversation(self) -> Conversation:
        """Return answers to the growing prompts of one dialogue, as its turns come in."""
        return Conversation(self)

    def forget(self) -> None:
        """Forget what was encoded once: the model's weights have changed."""
        self._engine.forget()

    def _in_batches(
        self,
        prompts: Sequence[Sequence[int]],
        compute: Callable[[Sequence[Sequence[int]]], list[T]],
    ) -> list[T]:
        """Return what is computed of prompts, neighbors in length together."""
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        found: dict[int, T] = {}
        with self._in_use():
            while order:
                batch = order[: self._batch_size]
                try:
                    computed = compute([prompts[i] for i in batch])
                except (RuntimeError, MemoryError) as error:
                    self._shrink(len(batch), error)
                    continue
                found.update(zip(batch, computed, strict=True))
                order = order[len(batch) :]
        return [found[i] for i in range(len(prompts))]

    def _answer_batch(self, prompts: Sequence[Sequence[int]]) -> list[ModelAnswer]:
        return self._answers(self._engine.open(prompts))

    def _judge_batch(self, prompts: Sequence[Sequence[int]]) -> list[dict[str, float]]:
        scores = self._engine.open(prompts).log_probabilities(self._tree).double()
        return [self._named(row) for row in torch.softmax(scores, dim=1)]

    def _named(self, chances: torch.Tensor) -> dict[str, float]:
        """Return one row of probabilities by label, to 6 significant digits."""
        rounded = [float(f"{chance:.6g}") for chance in chances.tolist()]
        return dict(zip(self._task.labels, rounded, strict=True))

    def _answers(self, opening: Opening) -> list[ModelAnswer]:
        scores = opening.log_probabilities(self._tree).double()
        chances = torch.softmax(scores, dim=1)
        labels = [self._decided(opening, row, chances[row]) for row in range(len(scores))]
        tokens = self._tokens(opening, labels)
        names = self._task.labels
        answers = []
        for row, (label, emitted) in enumerate(zip(labels, tokens, strict=True)):
            text = self._encoder.text(emitted)
            read = self._task.parse(text)
            answers.append(
                ModelAnswer(
                    tokens=tuple(emitted),
                    text=text,
                    label=read.label if label is None else names[label],
                    rationale=read.rationale if self._explains else None,
                    log_probabilities=dict(zip(names, scores[row].tolist(), strict=True)),
                    probabilities=self._named(chances[row]),
                )
            )
        return answers

    def _decided(self, opening: Opening, row: int, chances: torch.Tensor) -> int | None:
        """Return the label that is decided for before anything is generated, if any."""
        if self._decoding == "free":
            return None
        if self._decoding == "constrained":
            return best_path(opening, self._tree, row)
        if self._threshold is None:
            return int(chances.argmax())
        return 0 if chances[0] >= self._threshold else 1

    def _tokens(self, opening: Opening, labels: Sequence[int | None]) -> list[list[int]]:
        """Return the tokens of every answer, decoded where they are not known yet."""
        tree, end = self._tree, self._encoder.end_of_turn_id
        starts, ended = [], []
        for row, label in enumerate(labels):
            if label is None:
                start, leaf = greedy_start(opening, tree, row)
            else:
                *nodes, leaf = tree.paths[label]
                start = Start(row=row, nodes=tuple(nodes), token=tree.tokens[leaf])
            starts.append(start)
            ended.append(start.token == end or (leaf is not None and not self._explains))
        going = [start for start, over in zip(starts, ended, strict=True) if not over]
        followed: Iterator[list[int]] = iter(())
        if going or self._in_step:
            followed = iter(self._engine.extend(opening, going, most=self._max_new_tokens))
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

    def _shrink(self, n: int, error: Exception) -> None:
        """Halve the batches when memory ran out; any other error is raised again."""
        if not is_out_of_memory(error):
            raise error
        if self._in_step:
            raise ConfigError(
                f"memory runs out for {n} prompts at once; lower decoding.batch_size: devices that "
                "share weights need batches of a size"
            ) from error
        if n == 1:
            raise ConfigError(
                "memory runs out for a single prompt; set prompt.max_tokens, or use a smaller model"
            ) from error
        if not self._halved:
            tell_of_halving("prompts", n)
        self._halved = True
        self._batch_size = n // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class Conversation:
    """Answers to the prompts of one dialogue, each of which repeats most of the one before.

    What two prompts in a row share is not computed again. The answers are those of
    :meth:`Answerer.answer`.
    """

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer
        self._context: Context | None = None

    def answer(self, prompt: Sequence[int]) -> ModelAnswer:
        """Return the answer to the dialogue's next prompt."""
        answerer = self._answerer
        engine = answerer._engine
        with answerer._in_use():
            if isinstance(engine, PlainEngine):
                return answerer._answer_batch([prompt])[0]
            context = self._context
            if context is not None:
                context = context.first(shared_length(context.ids, [prompt]))
            opening = engine.open([prompt], context=context)
            self._context = engine.whole_context(opening, 0, prompt)
            return answerer._answers(opening)[0]


def constant_ids(
    task: Task, encoder: ChatEncoder, shots: Sequence[Example] = ()
) -> tuple[int, ...]:
    """Return the tokens that all prompts of a task begin with."""
    turns = (Turn(speaker="counselor", text="A"), Turn(speaker="client", text="一"))
    probes = [
        Example(id="", history=(), response="A"),
        Example(id="", history=turns[:1], response="一"),
        Example(id="", history=turns[1:], response="1"),
    ]
    first, *others = (encoder.prompt_ids(task.messages(probe, shots)) for probe in probes)
    return first[: shared_length(first, others)]


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
