"""Token ids of a chat prompt and its answer, with client text kept apart from control tokens.

A chat template joins control tokens (``<|im_start|>``) and text into one string, and a tokenizer
that is given that string cannot tell a control token of the template from the same letters typed by
a client. Here the template is rendered with a placeholder for every message, so that its own
control tokens are known by position; everything between them is encoded as plain text.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from recap.errors import ConfigError, RecapError
from recap.records import Message

PINNED_DATE = date(2024, 7, 26)
"""What a dated template takes for today (Llama 3.1's own fallback), so that a prompt never changes
overnight.
"""

_PAD_TOKENS = (
    "<|finetune_right_pad_id|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<pad>",
    "<|pad|>",
    "[PAD]",
)
"""Tokens that models reserve for padding, tried in this order when the tokenizer names none of its
own.
"""

_SLOT = "recap-slot-{}-of-message"
_SLOT_PATTERN = re.compile(r"recap-slot-(\d+)-of-message")
_STRFTIME_CALL = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")


@dataclass(frozen=True, slots=True)
class _Slot:
    """The place of one message's text in a rendered template."""

    index: int


_Part = int | str | _Slot
"""A piece of a rendered template: a control token's id, plain text, or the place of a message."""


class ChatEncoder:
    """Turns messages and answers into token ids for one tokenizer.

    ``prompt_ids(messages) + answer_ids(text)`` is the training sequence, and
    ``prompt_ids(messages)`` is what the model sees at inference: one function makes both. On text
    that names no control token the ids equal those of the tokenizer's own ``apply_chat_template``.

    Args:
        tokenizer: A ``transformers`` tokenizer with a chat template.

    Attributes:
        end_of_turn_id: The control token that the template puts after an assistant's text.
        pad_id: A token for padding, never ``end_of_turn_id``.

    Raises:
        ConfigError: When there is no chat template, or one that cannot be taken apart.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        added = {
            token.content: (i, token.special) for i, token in tokenizer.added_tokens_decoder.items()
        }
        # A character alone cannot be told from text, nor cut in two.
        names = sorted((name for name in added if len(name) > 1), key=len, reverse=True)
        alternatives = "|".join(map(re.escape, names)) or "(?!)"
        self._control_token = re.compile(f"({alternatives})")
        self._any_control_start = re.compile(f"(?={alternatives})")
        self._id_of = {name: added[name][0] for name in names}
        self._forbidden = frozenset(self._id_of.values()) | {
            i for i, special in added.values() if special
        }
        self._template = _pinned_template(tokenizer)
        self._skeletons: dict[tuple[Any, ...], tuple[_Part, ...]] = {}
        self._constant: dict[str, tuple[int, ...]] = {}
        self.end_of_turn_id = self._find_end_of_turn()
        self.pad_id = self._choose_pad()

    def prompt_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Return the ids of a prompt, up to and including the header of the assistant's turn.

        Raises:
            ConfigError: When the chat template refuses the messages' roles or drops one of them.
        """
        shape = tuple((message.role, *_outer_space(message.text)) for message in messages)
        ids: list[int] = []
        run, constant = "", True
        for part in self._skeleton(shape, prompt=True):
            if isinstance(part, int):
                ids += self._plain_ids(run, constant)
                ids.append(part)
                run, constant = "", True
            elif isinstance(part, str):
                run += part
            else:
                run += messages[part.index].text.strip()
                constant = constant and messages[part.index].role == "system"
        return (*ids, *self._plain_ids(run, constant))

    def answer_ids(self, text: str) -> tuple[int, ...]:
        """Return the ids of an answer and the end of turn: what the model is trained to emit."""
        return (*self._plain_ids(text.strip()), self.end_of_turn_id)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text on its own (fast: one call for all)."""
        if not texts:
            return []
        encoded = self.tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False
        )
        return [len(ids) for ids in encoded["input_ids"]]

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of generated ids, without control tokens."""
        decoded: str = self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return decoded

    def _plain_ids(self, text: str, constant: bool = False) -> tuple[int, ...]:
        """Return ids of a text, none of them a control token's; ``constant`` text is remembered."""
        if not text:
            return ()
        if text in self._constant:
            return self._constant[text]
        # split_special_tokens leaves added tokens alone that are not marked special (Qwen's
        # <tool_call>): cutting each inside its name keeps the tokenizer from seeing it.
        cuts = [
            0,
            *(match.start() + 1 for match in self._any_control_start.finditer(text)),
            len(text),
        ]
        pieces = [text[start:end] for start, end in itertools.pairwise(cuts) if end > start]
        ids = self._encoded(pieces)
        if not self._forbidden.isdisjoint(ids):
            # A normaliser can make a token's name of look-alikes (NFKC: of full-width letters).
            ids = self._encoded(list(text))
        if not self._forbidden.isdisjoint(ids):
            raise RecapError(
                f"a text of {len(text)} characters was encoded with a control token of the model; "
                "this tokenizer cannot be used safely, please report its name"
            )
        if constant:
            if len(self._constant) >= 64:
                self._constant.clear()
            self._constant[text] = ids
        return ids

    def _encoded(self, pieces: list[str]) -> tuple[int, ...]:
        encoded = self.tokenizer(
            pieces, add_special_tokens=False, split_special_tokens=True, verbose=False
        )
        return tuple(token for piece in encoded["input_ids"] for token in piece)

    def _skeleton(
        self, shape: tuple[tuple[str, str, str], ...], *, prompt: bool
    ) -> tuple[_Part, ...]:
        """Return the template around messages of these (role, space before, space after)."""
        key = (shape, prompt)
        if key not in self._skeletons:
            if len(self._skeletons) >= 256:
                self._skeletons.clear()
            self._skeletons[key] = self._take_apart(self._render(shape, prompt=prompt), len(shape))
        return self._skeletons[key]

    def _render(self, shape: tuple[tuple[str, str, str], ...], *, prompt: bool) -> str:
        chat = [
            {"role": role, "content": f"{before}{_SLOT.format(i)}{after}"}
            for i, (role, before, after) in enumerate(shape)
        ]
        try:
            rendered: str = self.tokenizer.apply_chat_template(
                chat,
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=prompt,
                date_string=PINNED_DATE.strftime("%d %b %Y"),
            )
        except (
            Exception
        ) as error:  # the template is a program of its own: jinja passes on whatever it raises
            roles = ", ".join(role for role, _, _ in shape)
            raise ConfigError(
                f"the backbone's chat template refuses messages of the roles {roles} ({error}); "
                "use a model whose template takes a system and a user message"
            ) from error
        return rendered

    def _take_apart(self, rendered: str, n_messages: int) -> tuple[_Part, ...]:
        parts: list[_Part] = []
        for piece in self._control_token.split(rendered):
            if piece in self._id_of:
                parts.append(self._id_of[piece])
                continue
            # Even places are text, odd ones the number captured from a placeholder.
            for place, text in enumerate(_SLOT_PATTERN.split(piece)):
                if place % 2:
                    parts.append(_Slot(int(text)))
                elif text:
                    parts.append(text)
        found = [part.index for part in parts if isinstance(part, _Slot)]
        if found != list(range(n_messages)):
            raise ConfigError(
                f"the backbone's chat template renders messages {found} of {n_messages}, not each "
                "once and in order; use a model whose template takes a system and a user message"
            )
        return tuple(parts)

    def _find_end_of_turn(self) -> int:
        user, assistant = ("user", "", ""), ("assistant", "", "")
        opening = self._render((user,), prompt=True)
        if not self._render((user, assistant), prompt=False).startswith(opening):
            raise ConfigError(
                "the backbone's chat template does not begin an assistant's turn with its own "
                "generation prompt, so that training and inference would differ; use the template "
                "that came with the model"
            )
        parts = self._skeleton((user, assistant), prompt=False)
        after = parts[parts.index(_Slot(1)) + 1 :]
        end = next((part for part in after if isinstance(part, int)), self.tokenizer.eos_token_id)
        if end is None:
            raise ConfigError(
                "the backbone's chat template ends an assistant's turn with no control token and "
                "the tokenizer names no eos_token; set eos_token in tokenizer_config.json"
            )
        return int(end)

    def _choose_pad(self) -> int:
        """Padding is masked and never learned: any token serves but the one that ends an answer."""
        named = [self.tokenizer.pad_token_id]
        reserved = [self._id_of.get(name) for name in _PAD_TOKENS]
        for candidate in (*named, *reserved, self.tokenizer.unk_token_id, 0, 1):
            if candidate is not None and candidate != self.end_of_turn_id:
                return int(candidate)
        raise AssertionError("0 and 1 cannot both be the end of a turn")


def _outer_space(text: str) -> tuple[str, str]:
    """Return the white space around a text: a template that strips it has to meet it."""
    core = text.strip()
    if not core:
        return text, ""
    start = text.index(core)
    return text[:start], text[start + len(core) :]


def _pinned_template(tokenizer: Any) -> str:
    """Return the chat template with its clock stopped.

    Templates read the date through ``date_string`` or by calling ``strftime_now``. transformers
    5.23 passes no functions into a template, so the call is answered by a macro put before it.
    """
    try:
        template: str = tokenizer.get_chat_template()
    except ValueError as error:
        raise ConfigError(
            "the backbone's tokenizer has no chat template; use the Instruct version of the model, "
            "or put its chat_template.jinja into the folder that backbone.path names"
        ) from error
    formats = {match[1] for match in _STRFTIME_CALL.findall(template)}
    if "strftime_now" not in template:
        return template
    dates = {format_: PINNED_DATE.strftime(format_) for format_ in sorted(formats)}
    fallback = PINNED_DATE.strftime("%d %b %Y")
    looked_up = f"{{{{ {dates!r}.get(format, {fallback!r}) }}}}"
    return f"{{%- macro strftime_now(format) -%}}{looked_up}{{%- endmacro -%}}{template}"
