"""What an encoder reads: the turns before the response, and the response, each closed by a mark.

``[CLS] speaker: turn [SEP] … [SEP] response [SEP]``, in the marks of the encoder's own tokenizer. A
dialogue that is too long loses whole turns, the oldest first; the response is never cut.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any, Literal

from recap.data.encode import EncodedExample, Encoding
from recap.errors import ConfigError, DataError, quote_id
from recap.records import Example, Turn
from recap.tasks.task import Task
from recap.tasks.wording import WORDING

History = Literal["none", "intervention", "full"]


class EncoderInput:
    """Turns examples into the ids that an encoder reads.

    Args:
        tokenizer: The encoder's tokenizer.
        max_tokens: Longest input in tokens, marks included.
        longest: Tokens that the model can read at all.

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
        close = _first_of(tokenizer.sep_token_id, tokenizer.eos_token_id)
        if close is None:
            raise ConfigError(
                "the encoder's tokenizer has neither a sep_token nor an eos_token to close a turn "
                "with; name one in tokenizer_config.json"
            )
        self.close_id = close
        first = _first_of(tokenizer.cls_token_id, tokenizer.bos_token_id, close)
        pad = _first_of(tokenizer.pad_token_id, close)
        assert first is not None
        assert pad is not None
        self.first_id, self.pad_id = first, pad
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._longest = longest
        added = [token.content for token in tokenizer.added_tokens_decoder.values()]
        names = sorted((name for name in added if len(name) > 1), key=len, reverse=True)
        self._mark = re.compile(f"(?={'|'.join(map(re.escape, names)) or '(?!)'})")
        # What is not in the vocabulary is read as unknown, which marks nothing.
        self._marks = frozenset(tokenizer.added_tokens_decoder) - {tokenizer.unk_token_id}
        self._ids_of: dict[str, tuple[int, ...]] = {}

    def encode(
        self, examples: Sequence[Example], task: Task, *, history: History = "full"
    ) -> Encoding:
        """Return the ids of examples that the task has selected, in the order given.

        All but the last id is the ``prompt``, the closing mark of the response the one token of the
        ``answer``: so :class:`recap.data.module.DataModule` serves as it is, and its mean over
        answer tokens is a mean over examples.

        Raises:
            DataError: When a response alone is longer than the model can read.
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

    def _ids(self, example: Example, task: Task, history: History) -> tuple[tuple[int, ...], int]:
        """Return the ids of one example, and how many turns it lost."""
        words = WORDING[task.language]
        names = {"counselor": words.counselor, "client": words.client}
        response = (*self._text_ids(example.response), self.close_id)
        room = self._max_tokens - 1 - len(response)
        if 1 + len(response) > self._longest:
            raise DataError(
                f"example {quote_id(example.id)}: its response has {len(response)} tokens, more "
                f"than the {self._longest - 1} that this encoder can read, and a response is never "
                "cut; leave it out, or take an encoder that reads more"
            )
        turns = shown_turns(example, history)
        kept: list[tuple[int, ...]] = []
        for turn in reversed(turns):
            ids = self._text_ids(f"{names[turn.speaker]}{words.colon}{turn.text}")
            if len(ids) + 1 > room:
                break
            room -= len(ids) + 1
            kept.append((*ids, self.close_id))
        before = itertools.chain.from_iterable(reversed(kept))
        return (self.first_id, *before, *response), len(turns) - len(kept)

    def _text_ids(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text; a mark's name in it is read as the letters it consists of."""
        if text not in self._ids_of:
            # Cut inside every mark's name: split_special_tokens leaves some of them alone.
            starts = [match.start() + 1 for match in self._mark.finditer(text)]
            cuts = itertools.pairwise([0, *starts, len(text)])
            ids = self._encoded([text[start:end] for start, end in cuts if end > start])
            if not self._marks.isdisjoint(ids):
                # A normaliser can make a mark's name of look-alikes (of capitals, of full width).
                ids = self._encoded(list(text))
            self._ids_of[text] = tuple(token for token in ids if token not in self._marks)
        return self._ids_of[text]

    def _encoded(self, pieces: list[str]) -> tuple[int, ...]:
        found = self._tokenizer(
            pieces, add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"] if pieces else []  # fmt: skip
        return tuple(token for piece in found for token in piece)


def shown_turns(example: Example, history: History) -> tuple[Turn, ...]:
    """Return the turns before the response that are read, oldest first.

    ``intervention`` stands for the counsellor's turns since the client's last one.
    """
    if history == "full":
        return example.history
    shown = 0
    if history == "intervention":
        for turn in reversed(example.history):
            if turn.speaker != "counselor":
                break
            shown += 1
    return example.history[len(example.history) - shown :]


def _first_of(*ids: int | None) -> int | None:
    return next((int(found) for found in ids if found is not None), None)
