"""A run's examples as numbers of tokens, the micro-batches of them, and how they are trained on.

Of floating-point operations multiplications and additions are counted apart. A matrix product costs
two for each weight and token; attention four for each pair of a query and a key it may see and each
unit of their width. The backward of a layer whose weights are tuned costs twice its forward, that
of a frozen one once (Kaplan et al. 2020, section 2.1; Hu et al. 2022). Softmax, norms, rotations
and the optimizer's step, under a percent together, are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from recap.config import FinetuneMethod, RunConfig, weights_dtype
from recap.data.batches import (
    Batching,
    BatchLimits,
    MicroBatch,
    common_prefix,
    plan_epoch,
    plan_scoring,
    require_fit,
)
from recap.data.encode import ChatEncoder, EncodedExample, Encoding, encode_examples
from recap.folds.run import Run, check_fold, read_run
from recap.models.backbone import positions_of, torch_dtype
from recap.plan.architecture import Architecture, ParameterCounts, find_tokenizer
from recap.records import Example, Message


@dataclass(frozen=True, kw_only=True)
class PlannedBatch:
    """One micro-batch in numbers."""

    lengths: tuple[int, ...]
    """Tokens of each example, prompt and answer."""
    answers: tuple[int, ...]
    """Tokens of each answer."""
    prefix: int | None
    """Tokens that all share and that are computed once; 0 for a row without sharing, ``None`` for
    padded rows."""

    @property
    def suffixes(self) -> tuple[int, ...]:
        """Tokens of each example after the shared ones."""
        return tuple(length - (self.prefix or 0) for length in self.lengths)

    @property
    def tokens(self) -> int:
        """Tokens that are computed, padding included.

        >>> [PlannedBatch(lengths=(10, 14), answers=(2, 2), prefix=p).tokens for p in (None, 0, 8)]
        [28, 24, 16]
        """
        limits = BatchLimits(examples=len(self.lengths), prefix=self.prefix)
        return limits.tokens_of(self.lengths) if self.lengths else self.prefix or 0

    @property
    def seen(self) -> int:
        """Keys that all suffixes see together, the shared ones once for each."""
        return sum(self.lengths)

    @property
    def pairs(self) -> int:
        """Pairs of a query and a key before or at its place.

        >>> [PlannedBatch(lengths=(2, 3), answers=(1, 1), prefix=p).pairs for p in (None, 0, 1)]
        [12, 9, 8]
        """
        if self.prefix is None:
            longest = max(self.lengths, default=0)
            return len(self.lengths) * _causal(longest)
        own = sum(self.prefix * suffix + _causal(suffix) for suffix in self.suffixes)
        return _causal(self.prefix) + own

    @property
    def predicted(self) -> int:
        """Tokens with a loss."""
        return sum(self.answers)


def _causal(length: int) -> int:
    return length * (length + 1) // 2


def largest_group(
    examples: Sequence[tuple[int, int]],
    *,
    n_examples: int,
    n_tokens: int | None,
    prefix: int | None,
) -> PlannedBatch:
    """Return the most that a device ever computes at once.

    The longest examples together, as many as the limits allow.

    Args:
        examples: Tokens of each example and of its answer.
        n_examples: Most examples at once.
        n_tokens: Most computed tokens at once; ``None`` for no limit.
        prefix: As in :class:`PlannedBatch`.
    """
    longest = sorted(examples, reverse=True)[:n_examples]
    count = len(longest)
    while count > 1 and n_tokens is not None and _group(longest[:count], prefix).tokens > n_tokens:
        count -= 1
    return _group(longest[:count], prefix)


def _group(examples: Sequence[tuple[int, int]], prefix: int | None) -> PlannedBatch:
    return PlannedBatch(
        lengths=tuple(length for length, _ in examples),
        answers=tuple(answer for _, answer in examples),
        prefix=prefix,
    )


CHARACTERS_PER_TOKEN = 4.3
"""Of text that is not Chinese: Qwen's tokenizer over our English prompts (4.34), the demo corpus's
dialogues (4.14) and answers (4.78)."""

HAN_PER_TOKEN = 1.5
"""Chinese characters a token: the same over our Chinese prompts (1.44 beside their other text),
dialogues (1.54) and answers (1.52)."""

TOKENS_PER_MESSAGE = 5
"""Control tokens, role and line ends that a chat template puts around a message (Qwen2.5: 5)."""

_HAN_RANGES = (("\u3000", "\u303f"), ("\u3400", "\u9fff"), ("\uff00", "\uffef"))


class EstimatedEncoder:
    """Stands for a ``ChatEncoder`` whose tokenizer is not here: cuts tokens of a usual length.

    Two texts that begin alike begin with the same ids, so that shared prefixes, batches and limits
    on prompts come out as with a real tokenizer, within its few percent.
    """

    end_of_turn_id = 0
    pad_id = 1

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def prompt_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Return one id for each piece of the messages, and for what a template adds."""
        template = (self.pad_id,) * TOKENS_PER_MESSAGE
        ids = [token for message in messages for token in (*template, *self._cut(message.text))]
        return (*ids, *template)

    def answer_ids(self, text: str) -> tuple[int, ...]:
        """Return one id for each piece of an answer, and the end of turn."""
        return (*self._cut(text), self.end_of_turn_id)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of pieces of each text."""
        return [len(_pieces(text)) for text in texts]

    def _cut(self, text: str) -> list[int]:
        return [self._ids.setdefault(piece, len(self._ids) + 2) for piece in _pieces(text)]


def _pieces(text: str) -> list[str]:
    """Return the text cut where a token of the usual length would be full."""
    pieces, start, filled = [], 0, 0.0
    for place, character in enumerate(text, start=1):
        filled += _share(character)
        if filled >= 1:
            pieces.append(text[start:place])
            start, filled = place, filled - 1
    if start < len(text):
        pieces.append(text[start:])
    return pieces


@lru_cache(maxsize=2**16)
def _share(character: str) -> float:
    """Return how much of a token a character is."""
    is_han = any(first <= character <= last for first, last in _HAN_RANGES)
    return 1 / (HAN_PER_TOKEN if is_han else CHARACTERS_PER_TOKEN)


Examples = Sequence[EncodedExample]


@dataclass(frozen=True, kw_only=True)
class PlannedTraining:
    """The examples of one training: a fold's, or all of them for the final model."""

    train: Examples
    select: Examples
    test: Examples
    prefix: int
    """Leading tokens that all of its prompts share."""


@dataclass(frozen=True, kw_only=True)
class RunWorkload:
    """What a run computes."""

    trainings: tuple[PlannedTraining, ...]
    """One for each fold that ``cv.fold`` asks for, or the final one."""
    examples: Examples
    """All that the task selects."""
    prefix: int
    """Leading tokens that all prompts share."""
    counted_by: str
    """How tokens were counted, in words."""


def encode_prompts(
    run: Run, encoder: Any, counted_by: str, *, positions: int | None = None
) -> RunWorkload:
    """Return the examples of a prompted run in tokens, under the shots of their fold."""
    trainings = []
    for index in run.parts:
        fold = run.folds[int(index)]
        test = _encoded(
            run, encoder, run.examples(fold.test), positions, run.shots.get(fold.index, ())
        ).examples
        trainings.append(
            PlannedTraining(train=(), select=(), test=test, prefix=common_prefix(test))
        )
    return RunWorkload(
        trainings=tuple(trainings),
        examples=tuple(example for part in trainings for example in part.test),
        prefix=min(part.prefix for part in trainings),
        counted_by=counted_by,
    )


def _encoded(
    run: Run,
    encoder: Any,
    examples: Sequence[Example],
    positions: int | None,
    shots: Sequence[Example] = (),
) -> Encoding:
    """Return examples in tokens, cut as the run itself cuts them."""
    return encode_examples(
        examples,
        run.task,
        encoder,
        max_tokens=run.config.prompt.max_tokens,
        positions=positions,
        max_new_tokens=run.config.decoding.max_new_tokens,
        cut=run.config.prompt.cut,
        shots=shots,
    )


def read_workload(config: RunConfig, architecture: Architecture) -> RunWorkload:
    """Return the examples of a run in tokens, without touching its folder.

    Raises:
        ConfigError: For a fold that does not exist, and as :func:`recap.folds.run.read_run`.
        DataError: For data at fault.
    """
    check_fold(config.cv)
    run = read_run(config)
    encoder, counted_by = backbone_encoder(config, architecture)
    encoding = _encoded(run, encoder, run.examples(), positions_of(architecture.config))
    run = replace(run, encoding=encoding)
    prefix = common_prefix(encoding.examples)
    if config.cv.fold == "final":
        trainings = [PlannedTraining(train=encoding.examples, select=(), test=(), prefix=prefix)]
    else:
        folds = [run.folds[int(part)] for part in run.parts]
        trainings = [PlannedTraining(**run.examples_of(fold), prefix=prefix) for fold in folds]
    return RunWorkload(
        trainings=tuple(trainings),
        examples=encoding.examples,
        prefix=prefix,
        counted_by=counted_by,
    )


def shared_tokens(batching: Batching, prefix: int) -> int | None:
    """Return what :class:`recap.plan.workload.PlannedBatch` calls the prefix of a batching."""
    return {"trunk": prefix, "packed": 0, "padded": None}[batching]


def training_groups(
    config: RunConfig, training: PlannedTraining, prefix: int | None, n_devices: int
) -> list[PlannedBatch]:
    """Return the micro-batches of one epoch on all devices.

    Those of the first epoch: later ones differ in order alone.

    Raises:
        ConfigError: When an example has no room in ``trainer.max_tokens_per_device``.
    """
    limits = _limits(config, prefix)
    require_fit(training.train, limits)
    return [
        group_of(training.train, planned, prefix)
        for rank in range(n_devices)
        for planned in plan_epoch(
            training.train,
            global_batch_size=config.global_batch_size,
            limits=limits,
            seed=config.seed,
            epoch=0,
            world_size=n_devices,
            rank=rank,
            order=config.order,
        )
        if planned.indices
    ]


def scoring_groups(config: RunConfig, examples: Examples, prefix: int | None) -> list[PlannedBatch]:
    """Return the micro-batches that a selection loss is computed in."""
    if not examples:
        return []
    planned = plan_scoring(examples, limits=_limits(config, prefix))
    return [group_of(examples, batch, prefix) for batch in planned]


def group_of(examples: Examples, batch: MicroBatch, prefix: int | None) -> PlannedBatch:
    """Return a micro-batch in numbers."""
    return _group(sizes(examples[i] for i in batch.indices), prefix)


def sizes(examples: Iterable[EncodedExample]) -> tuple[tuple[int, int], ...]:
    """Return the tokens of each example and of its answer."""
    return tuple((len(one.prompt) + len(one.answer), len(one.answer)) for one in examples)


def _limits(config: RunConfig, prefix: int | None) -> BatchLimits:
    trainer = config.trainer
    return BatchLimits(
        examples=trainer.per_device_batch_size, tokens=trainer.max_tokens_per_device, prefix=prefix
    )


def backbone_encoder(config: RunConfig, architecture: Architecture) -> tuple[Any, str]:
    """Return what turns prompts into ids, and how that counts tokens, in words."""
    tokenizer = find_tokenizer(architecture, config.backbone.name)
    if tokenizer is not None:
        return ChatEncoder(tokenizer), f"the tokenizer of {config.backbone.name}"
    return EstimatedEncoder(), (
        f"an estimate: {CHARACTERS_PER_TOKEN} characters a token, {HAN_PER_TOKEN} Chinese ones "
        f"(the tokenizer of {config.backbone.name} is not on this machine)"
    )


PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The matrices of a layer of Llama."""

Strategy = Literal["one", "ddp", "fsdp"]

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight in 4 bits: half a byte, a scale of one byte for each 64, and one of four bytes
for each 256 of those (Dettmers et al. 2023, section 3, double quantization)."""

OPTIMIZER_BYTES = {"adamw": 8.0, "paged_adamw32bit": 8.0} | dict.fromkeys(
    ("adamw8bit", "paged_adamw8bit"), 2 + 2 * 4 / 256
)
"""Bytes of state for each tuned weight: two moments in 32 bits, or in 8 bits with a scale of four
bytes for each block of 256 (bitsandbytes 0.50)."""

SMALL_BYTES = 8.0
"""bitsandbytes keeps both moments of tensors below 4,096 weights in 32 bits."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a model is trained, as far as memory and operations depend on it."""

    method: FinetuneMethod = "full"
    """As ``finetune.method``."""
    rank: int = 8
    """Of the adapters."""
    target_modules: Sequence[str] = PROJECTIONS
    """Projections that get adapters."""
    dtype: str = "float32"
    """Type in which weights are loaded (``backbone.dtype``)."""
    precision: str = "32-true"
    """As ``trainer.precision``."""
    optimizer: str = "adamw"
    """As ``optimizer.name``."""
    gradient_checkpointing: bool = False
    """Whether layers are computed again in the backward."""
    accumulates: bool = False
    """Whether an optimizer step takes more than one micro-batch."""
    strategy: Strategy = "one"
    """``one``: a single device; ``ddp``: a whole model on each; ``fsdp``: a share on each."""
    n_devices: int = 1
    """Devices of all nodes together."""
    cpu_offload: bool = False
    """Whether ``fsdp`` keeps its shares in the host's memory."""
    on_gpu: bool = True
    """Whether the device is a GPU."""

    @property
    def weight_bytes(self) -> int:
        """Bytes of a weight that is not in 4 bits."""
        return torch_dtype(weights_dtype(self.precision, self.dtype)).itemsize

    @property
    def autocast(self) -> bool:
        """Whether matrix products and attention are computed under autocast, in 16 bits."""
        return self.precision in ("bf16-mixed", "16-mixed")

    @property
    def mixed(self) -> bool:
        """Whether autocast computes in another type than the weights have."""
        return self.autocast and self.weight_bytes == 4

    @property
    def compute_bytes(self) -> int:
        """Bytes of a number that a matrix product gives."""
        return 2 if self.mixed else self.weight_bytes

    @property
    def attention_bytes(self) -> int:
        """Bytes of a number that attention takes and gives."""
        return 2 if self.autocast else self.compute_bytes

    @property
    def adapter_bytes(self) -> int:
        """Bytes of an adapter's weight: peft keeps 16-bit ones in 32 bits (0.21)."""
        return max(4, self.weight_bytes) if self.precision != "bf16-true" else 2

    @property
    def adapted(self) -> bool:
        """Whether adapters are tuned and the rest is frozen."""
        return self.method in ("lora", "qlora")

    @property
    def tuned_bytes(self) -> int:
        """Bytes of a tuned weight, and of its gradient."""
        return self.adapter_bytes if self.adapted else self.weight_bytes


def forward_operations(
    architecture: Architecture, counts: ParameterCounts, groups: Sequence[PlannedBatch]
) -> float:
    """Return the operations of one forward with the loss over micro-batches."""
    return sum(_terms(architecture, counts, groups))


def training_operations(
    architecture: Architecture,
    counts: ParameterCounts,
    setting: Setting,
    groups: Sequence[PlannedBatch],
) -> float:
    """Return the operations of a forward and backward over micro-batches."""
    matrices, adapters, head, attention = _terms(architecture, counts, groups)
    again = matrices + adapters + attention if setting.gradient_checkpointing else 0.0
    weights = (2 if setting.adapted else 3) * (matrices + head)
    return weights + 3 * (adapters + attention) + again


def decoding_operations(
    architecture: Architecture,
    counts: ParameterCounts,
    examples: Iterable[tuple[int, int, int]],
) -> float:
    """Return the operations of answering prompts one token at a time, with a cache.

    The tokens of labels that are tried behind each prompt are not counted. ``examples`` gives the
    tokens of each prompt, those at its beginning that are computed already, and its answer's.
    """
    examples = list(examples)
    whole = _group([(prompt + answer, answer) for prompt, _, answer in examples], 0)
    computed = _group([(before, 0) for _, before, _ in examples], 0)
    return forward_operations(architecture, counts, [whole]) - forward_operations(
        architecture, counts, [computed]
    )


def _terms(
    architecture: Architecture, counts: ParameterCounts, groups: Sequence[PlannedBatch]
) -> tuple[float, float, float, float]:
    """Return the operations of a forward in matrices, adapters, output layer and attention."""
    tokens, predicted = sum(one.tokens for one in groups), sum(one.predicted for one in groups)
    matrices = 2.0 * counts.layer_matrices * tokens
    adapters = 2.0 * counts.adapters * tokens
    head = 2.0 * architecture.hidden * architecture.vocabulary * predicted
    pairs = sum(one.pairs for one in groups)
    attention = 4.0 * architecture.layers * architecture.query * pairs
    return matrices, adapters, head, attention
