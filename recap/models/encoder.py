"""The encoder baseline: its input, its model, and the LightningModule that learns classes.

An encoder reads the turns before the response, and the response, each closed by a mark:
``[CLS] speaker: turn [SEP] … [SEP] response [SEP]``, in the marks of the encoder's own tokenizer. A
dialogue that is too long loses whole turns, the oldest first; the response is never cut.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from recap.config import OptimizerConfig, PromptHistory, SchedulerConfig
from recap.data.batches import Batch
from recap.data.encode import EncodedExample, Encoding, PlainTextEncoder
from recap.errors import ConfigError, DataError, RecapError, quote_id
from recap.metrics.category_scores import CategoryScores, TokenMean
from recap.models.backbone import tiny_tokenizer
from recap.models.batch_size import AutomaticBatchSize
from recap.models.finetune import configured_optimizers
from recap.models.hub import find_folder, read_model, read_tokenizer
from recap.models.module import LabelProbabilities, in_order, label_probabilities, seed_dropout
from recap.records import Example, Scores, Turn
from recap.tasks.task import Task, intervention
from recap.tasks.wording import WORDING


class EncoderModule(lightning.LightningModule):
    """Trains an encoder with a classification head, and labels held-out examples.

    Works with :class:`recap.data.batches.DataModule` (``batching="padded"``) over examples that
    :class:`recap.models.encoder.EncoderInput` has encoded. Logs ``train_loss``,
    ``val_loss``: cross-entropy in nats, the mean over the examples of a step or set.

    The order of ``labels`` is the class index; ``close_id`` is the token that closes every turn, so
    that the response stands between the last two; ``total_steps`` are those of the whole training.

    Attributes:
        label_probabilities: After a test or a prediction, one per example, in the set's order.
    """

    def __init__(
        self,
        *,
        model: Any,
        labels: Sequence[str],
        task_name: str,
        close_id: int,
        optimizer: OptimizerConfig,
        scheduler: SchedulerConfig,
        total_steps: int,
        seed: int = 0,
    ) -> None:
        super().__init__()
        # Pretrained models come in evaluation mode, and Lightning keeps whatever mode it finds.
        self.model = model.train()
        self._task_name = task_name
        self._close_id = close_id
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._total_steps = total_steps
        self._seed = seed
        self._batch_size = AutomaticBatchSize(option="trainer.per_device_batch_size")
        self._step_loss = 0.0
        self._val_loss = TokenMean()
        self._category_scores = CategoryScores(labels=labels)
        self.label_probabilities: list[LabelProbabilities] = []

    def forward(self, batch: Batch) -> Tensor:
        """Return logits ``(batch, label)``."""
        logits: Tensor = self.model(**model_inputs(self.model, batch, self._close_id)).logits
        return logits

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout from the micro-batch's number: a resumed run draws what it would have."""
        seed_dropout(self._seed, batch.plan.number)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return this micro-batch's share of the step's mean, before Lightning divides it."""
        share = self._loss(batch) / batch.plan.step_tokens
        self._step_loss += float(share.detach())
        if batch.plan.ends_step:
            self.log("train_loss", self._step_loss, prog_bar=True, batch_size=1)
            self._step_loss = 0.0
        scaled: Tensor = share * self.trainer.accumulate_grad_batches
        return scaled

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch of selection examples to ``val_loss``."""
        for part, loss in self._batch_size.each(self._loss, batch):
            self._val_loss.update(loss, len(part.examples))

    def on_validation_epoch_end(self) -> None:
        """Log the loss of the selection set."""
        self.log("val_loss", self._val_loss.compute(), prog_bar=True)
        self._val_loss.reset()

    def on_test_start(self) -> None:
        """Forget an earlier test."""
        self.label_probabilities = []
        self._category_scores.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Label a batch, and count its labels."""
        for part, logits in self._batch_size.each(self, batch):
            gold = torch.tensor([example.gold for example in part.examples], device=self.device)
            self._category_scores.update(logits.argmax(-1), gold)
            self._keep(part, logits)

    def on_test_epoch_end(self) -> None:
        """Put the label probabilities into the set's order."""
        self.label_probabilities = in_order(self.label_probabilities)

    def on_predict_start(self) -> None:
        """Forget an earlier prediction; the scores of a test stay."""
        self.label_probabilities = []

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return logits ``(batch, label)`` of examples that are not scored."""
        found = []
        for part, logits in self._batch_size.each(self, batch):
            self._keep(part, logits)
            found.append(logits)
        return torch.cat(found)

    on_predict_epoch_end = on_test_epoch_end

    def scores(self) -> Scores:
        """Return the scores of the last test; a ``RecapError`` where nothing was tested."""
        if not self.label_probabilities:
            raise RecapError(
                "there are no scores before trainer.test(module, datamodule=data) has run"
            )
        return self._category_scores.scores(task=self._task_name)

    def configure_optimizers(self) -> Any:
        """Return the optimizer, and the schedule over all optimizer steps of the training."""
        return configured_optimizers(
            self.model, self._optimizer, self._scheduler, n_steps=self._total_steps
        )

    def _keep(self, batch: Batch, logits: Tensor) -> None:
        rows = torch.softmax(logits.double(), dim=-1).tolist()
        self.label_probabilities += label_probabilities(batch, rows)

    def _loss(self, batch: Batch) -> Tensor:
        gold = torch.tensor([example.gold for example in batch.examples], device=self.device)
        return torch.nn.functional.cross_entropy(self(batch).float(), gold, reduction="sum")


def model_inputs(model: Any, batch: Batch, close_id: int) -> dict[str, Tensor]:
    """Return what an encoder is called with: ids, mask, and segments where it knows two.

    The second segment is the response, so that the model can tell it from the turns before. The one
    answer token of each padded row closes its response, as ``close_id`` closes every turn.
    """
    ids, last = batch.input_ids, batch.answer_mask
    # From the row's end up to each place: 0 behind the closing mark, 1 from there on.
    mask = last.flip(1).cumsum(1).flip(1).clamp(max=1)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if getattr(model.config, "type_vocab_size", 0) >= 2:
        closed = ((ids == close_id) & mask.bool()).flip(1).cumsum(1).flip(1)
        inputs["token_type_ids"] = ((closed == 1) & mask.bool()).long()
    return inputs


_WITH_OFFSET = ("roberta", "xlm-roberta", "camembert")
"""Families that count positions from behind the padding's id (transformers 5.23)."""


@dataclass(frozen=True, kw_only=True)
class LoadedEncoder:
    """An encoder with a head over some labels, and its tokenizer."""

    model: Any
    tokenizer: Any
    longest: int
    """Tokens that it can read."""


def load_encoder(
    *,
    name: str,
    labels: Sequence[str],
    hub_id: str | None = None,
    path: str | Path | None = None,
    seed: int = 0,
) -> LoadedEncoder:
    """Return an encoder whose classification head is new, one output a label.

    Arguments are those of :func:`recap.models.hub.find_folder`; the order of ``labels`` is the
    class index, and ``seed`` is that of the head, and of all weights of ``tiny``. The global random
    state is left alone. A ``ConfigError`` within seconds where there are no weights of an encoder.
    """
    source = find_folder(name=name, family="encoder", hub_id=hub_id, path=path, group="encoder")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, tokenizer = (
            _tiny(labels) if source is None else _load(source, name=name, labels=labels)
        )
    pad_id = tokenizer.pad_token_id
    if model.config.pad_token_id is None:
        model.config.pad_token_id = pad_id
    return LoadedEncoder(model=model, tokenizer=tokenizer, longest=_longest(model, tokenizer))


def _load(source: Path, *, name: str, labels: Sequence[str]) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification

    model, found = read_model(
        AutoModelForSequenceClassification,
        source,
        **_head(labels),
        output_loading_info=True,
        # A head for other labels, as a fine-tuned classifier has one, is replaced.
        ignore_mismatched_sizes=True,
    )
    body = f"{model.base_model_prefix}."
    missing = [
        key for key in found["missing_keys"] if key.startswith(body) and ".pooler." not in key
    ]
    if missing:
        raise ConfigError(
            f"encoder {name!r}: {len(missing)} weights of the encoder itself are missing in "
            f"{source}; copy all files of the model"
        )
    return model, read_tokenizer(source)


def _tiny(labels: Sequence[str]) -> tuple[Any, Any]:
    """Return an encoder of about a million random weights, and its tokenizer."""
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = tiny_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=384,
        max_position_embeddings=512,
        # BERT's 0.02 is meant for six times the width.
        initializer_range=0.06,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        pad_token_id=tokenizer.pad_token_id,
        **_head(labels),
    )
    return BertForSequenceClassification(config), tokenizer


def _head(labels: Sequence[str]) -> dict[str, Any]:
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: i for i, label in enumerate(labels)},
        "problem_type": "single_label_classification",
    }


def _longest(model: Any, tokenizer: Any) -> int:
    config = model.config
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions < 1:
        positions = tokenizer.model_max_length
    elif config.model_type in _WITH_OFFSET:
        positions -= config.pad_token_id + 1
    return int(min(positions, tokenizer.model_max_length))


class EncoderInput:
    """Turns examples into the ids that an encoder reads, at most ``max_tokens``, marks included.

    ``longest`` are the tokens that the model can read at all.

    Attributes:
        first_id: Opens an input: the tokenizer's ``cls``, else ``bos``, else what closes a turn.
        close_id: Closes a turn: the tokenizer's ``sep``, else ``eos``.
        pad_id: Fills short rows.

    Raises:
        ConfigError: When the tokenizer has nothing to close a turn with, or ``max_tokens`` is more
            than the model can read.
    """

    def __init__(self, tokenizer: Any, *, max_tokens: int, longest: int) -> None:
        if max_tokens > longest:
            raise ConfigError(
                f"encoder.max_tokens={max_tokens}: this encoder reads at most {longest} tokens; "
                f"set encoder.max_tokens={longest} or less"
            )
        if tokenizer.sep_token_id is None and tokenizer.eos_token_id is None:
            raise ConfigError(
                "the encoder's tokenizer has neither a sep_token nor an eos_token to close a turn "
                "with; name one in tokenizer_config.json"
            )
        self.close_id = _first_of(tokenizer.sep_token_id, tokenizer.eos_token_id)
        self.first_id = _first_of(tokenizer.cls_token_id, tokenizer.bos_token_id, self.close_id)
        self.pad_id = _first_of(tokenizer.pad_token_id, self.close_id)
        self._texts = PlainTextEncoder(tokenizer)
        self._max_tokens = max_tokens
        self._longest = longest
        # What is not in the vocabulary is read as unknown, which marks nothing.
        self._marks = frozenset(tokenizer.added_tokens_decoder) - {tokenizer.unk_token_id}
        self._ids_of: dict[str, tuple[int, ...]] = {}

    def encode(
        self, examples: Sequence[Example], task: Task, *, history: PromptHistory = "full"
    ) -> Encoding:
        """Return the ids of examples that the task has selected, in the order given.

        All but the last id is the ``prompt``, the closing mark of the response the one token of the
        ``answer``: so :class:`recap.data.batches.DataModule` serves as it is, and its mean over
        answer tokens is a mean over examples. A ``DataError`` for a response that is too long
        alone.
        """
        counts = {"dropped_turns": 0, "truncated_examples": 0, "still_too_long": 0}
        encoded = []
        for example in examples:
            ids, dropped = self._ids(example, task, history)
            counts["dropped_turns"] += dropped
            counts["truncated_examples"] += dropped > 0
            counts["still_too_long"] += len(ids) > self._max_tokens
            gold = task.index(task.gold(example))
            encoded.append(
                EncodedExample(id=example.id, prompt=ids[:-1], answer=ids[-1:], gold=gold)
            )
        return Encoding(examples=tuple(encoded), counts=counts)

    def _ids(
        self, example: Example, task: Task, history: PromptHistory
    ) -> tuple[tuple[int, ...], int]:
        """Return the ids of one example, and how many turns it lost."""
        words = WORDING[task.language]
        names = {"counselor": words.counselor, "client": words.client}
        response = (*self._text_ids(example.response), self.close_id)
        left = self._max_tokens - 1 - len(response)
        if 1 + len(response) > self._longest:
            raise DataError(
                f"example {quote_id(example.id)}: its response has {len(response)} tokens, more "
                f"than the {self._longest - 1} that this encoder can read, and a response is never "
                "cut; leave it out, or take an encoder that reads more"
            )
        turns = shown_turns(example, history)
        kept: list[tuple[int, ...]] = []
        for turn in reversed(turns):
            ids = self._text_ids(f"{turn.called(names)}{words.colon}{turn.text}")
            if len(ids) + 1 > left:
                break
            left -= len(ids) + 1
            kept.append((*ids, self.close_id))
        before = itertools.chain.from_iterable(reversed(kept))
        return (self.first_id, *before, *response), len(turns) - len(kept)

    def _text_ids(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text; a mark's name in it is read as the letters it consists of."""
        if text not in self._ids_of:
            ids = self._texts.ids(text, self._marks)
            self._ids_of[text] = tuple(token for token in ids if token not in self._marks)
        return self._ids_of[text]


def shown_turns(example: Example, history: PromptHistory) -> Sequence[Turn]:
    """Return the turns before the response that are read, oldest first.

    ``intervention`` stands for the counselor's turns since the client's last one, and for what
    others said since.
    """
    if history == "full":
        return example.history
    return tuple(intervention(example.history)) if history == "intervention" else ()


def _first_of(*ids: int | None) -> int:
    return next(int(found) for found in ids if found is not None)
