"""Examples as token ids: the prompt a model sees and the answer it is trained to give.

A chat template joins control tokens (``<|im_start|>``) and text into one string, and a tokenizer
that is given that string cannot tell a control token of the template from the same letters typed by
a client. Here the template is rendered with a placeholder for every message, so that its own
control tokens are known by position; everything between them is encoded as plain text. Long
dialogues lose whole turns, the oldest first, until their prompt fits; how many is counted.

Turns go in blocks whose ends lie at the same turns for every utterance of a dialogue, whatever was
encoded before: the next utterances begin with the same tokens, until the next block has to go.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from typing import Any

from recap.config import PromptCut
from recap.errors import ConfigError, RecapError, quote_id
from recap.records import Answer, Example, Message, Turn
from recap.tasks.answer import THOUGHT_MARK
from recap.tasks.task import Task, intervention

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
_EMPTY_THOUGHT = re.compile(rf"(?:{THOUGHT_MARK.pattern})\s*(?:{THOUGHT_MARK.pattern})\s*$")
_STRFTIME_CALL = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")


@dataclass(frozen=True, slots=True)
class _Slot:
    """The place of one message's text in a rendered template."""

    index: int


_Part = int | str | _Slot
"""A piece of a rendered template: a control token's id, plain text, or the place of a message."""


class PlainTextEncoder:
    """Encodes texts so that the name of a control token in them is read as its letters.

    Args:
        tokenizer: A ``transformers`` tokenizer.

    Attributes:
        id_of: The ids of added tokens whose name can stand in a text, the longest name first.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = {token.content: i for i, token in tokenizer.added_tokens_decoder.items()}
        # A character alone cannot be told from text, nor cut in two.
        names = sorted((name for name in added if len(name) > 1), key=len, reverse=True)
        self.id_of = {name: added[name] for name in names}
        self.pattern = "|".join(map(re.escape, names)) or "(?!)"
        self._any_start = re.compile(f"(?={self.pattern})")

    def ids(self, text: str, forbidden: frozenset[int]) -> tuple[int, ...]:
        """Return the ids of a text, with those ``forbidden`` only where its letters give them."""
        # split_special_tokens leaves added tokens alone that are not marked special (Qwen's
        # <tool_call>): cutting each inside its name keeps the tokenizer from seeing it.
        starts = [match.start() + 1 for match in self._any_start.finditer(text)]
        cuts = itertools.pairwise([0, *starts, len(text)])
        ids = self._encoded([text[start:end] for start, end in cuts if end > start])
        if not forbidden.isdisjoint(ids):
            # A normalizer can make a token's name of look-alikes (NFKC: of full-width letters).
            ids = self._encoded(list(text))
        return ids

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text on its own (fast: one call for all)."""
        return [len(ids) for ids in self._ids_of_each(texts)]

    def _encoded(self, pieces: list[str]) -> tuple[int, ...]:
        return tuple(token for ids in self._ids_of_each(pieces) for token in ids)

    def _ids_of_each(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        found: list[list[int]] = self._tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]
        return found


class ChatEncoder:
    """Turns messages and answers into token ids for one tokenizer.

    ``prompt_ids(messages) + answer_ids(text)`` is the training sequence, and
    ``prompt_ids(messages)`` is what the model sees at inference: one function makes both. On text
    that names no control token the ids equal those of the tokenizer's own ``apply_chat_template``,
    told not to think where it can be (``enable_thinking=False``); a thought that a template opens
    all the same is closed at once.

    Where the template knows no system message (Gemma 2), it begins the user's. Without a template,
    as base models are, messages stand one below the other.

    Args:
        tokenizer: A ``transformers`` tokenizer.

    Attributes:
        notes: A sentence for what is not as instruct models have it.
        end_of_turn_id: The control token that the template puts after an assistant's text.
        pad_id: A token for padding, never ``end_of_turn_id``.

    Raises:
        ConfigError: When the chat template cannot be taken apart, or ends no turn.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._texts = PlainTextEncoder(tokenizer)
        self._id_of = self._texts.id_of
        self._control_token = re.compile(f"({self._texts.pattern})")
        self._forbidden = frozenset(self._id_of.values()) | {
            i for i, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        added = tokenizer.added_tokens_decoder.items()
        self._thought_ids = {i for i, token in added if THOUGHT_MARK.fullmatch(token.content)}
        self._template = _pinned_template(tokenizer)
        self._skeletons: dict[tuple[Any, ...], tuple[_Part, ...]] = {}
        self._constant: dict[str, tuple[int, ...]] = {}
        self._joins = not self._takes_system()
        self.notes = [_NO_TEMPLATE] if self._template.startswith(_PLAIN) else []
        self.notes += [_NO_SYSTEM] if self._joins else []
        self.end_of_turn_id = self._find_end_of_turn()
        self.pad_id = self._choose_pad()

    def prompt_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Return the ids of a prompt, up to and including the header of the assistant's turn.

        Raises:
            ConfigError: When the chat template refuses the messages' roles or drops one of them.
        """
        if self._joins:
            messages = joined_system(messages)
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
        return self._texts.lengths(texts)

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of generated ids, without control tokens other than a thought's marks."""
        thinks = not self._thought_ids.isdisjoint(ids)
        if thinks:
            special = set(self.tokenizer.all_special_ids) - self._thought_ids
            ids = [i for i in ids if i not in special]
        decoded: str = self.tokenizer.decode(
            list(ids), skip_special_tokens=not thinks, clean_up_tokenization_spaces=False
        )
        return decoded

    def _plain_ids(self, text: str, constant: bool = False) -> tuple[int, ...]:
        """Return ids of a text, none of them a control token's; ``constant`` text is remembered."""
        if not text:
            return ()
        if text in self._constant:
            return self._constant[text]
        ids = self._texts.ids(text, self._forbidden)
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
                # Qwen3's name for it, and DeepSeek's and Granite's.
                enable_thinking=False,
                thinking=False,
            )
        except (
            Exception
        ) as error:  # the template is a program of its own: jinja passes on whatever it raises
            roles = ", ".join(role for role, _, _ in shape)
            raise ConfigError(
                f"the backbone's chat template refuses messages of the roles {roles} ({error}); "
                "use a model whose template takes a system and a user message"
            ) from error
        return _closed(rendered) if prompt else rendered

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

    def _takes_system(self) -> bool:
        """Return whether the template shows a system message before the user's."""
        try:
            self._skeleton((("system", "", ""), ("user", "", "")), prompt=True)
        except ConfigError:
            return False
        return True

    def _find_end_of_turn(self) -> int:
        user, assistant = ("user", "", ""), ("assistant", "", "")
        opening = self._render((user,), prompt=True)
        # A template may leave an empty thought out of turns that are over.
        beginnings = opening, _EMPTY_THOUGHT.sub("", opening)
        if not self._render((user, assistant), prompt=False).startswith(beginnings):
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


def joined_system(messages: Sequence[Message]) -> Sequence[Message]:
    """Return messages for a model that takes no system message: it begins the user's."""
    if messages[0].role != "system":
        return messages
    return [replace(messages[1], text=f"{messages[0].text}\n\n{messages[1].text}"), *messages[2:]]


def _closed(prompt: str) -> str:
    """Return a rendered prompt, with a thought that it ends in closed."""
    mark = next(reversed([*THOUGHT_MARK.finditer(prompt)]), None)
    if mark is None or mark.lastindex is not None or prompt[mark.end() :].strip():
        return prompt
    return f"{prompt.rstrip()}\n\n{mark[0][0]}/{mark[0][1:]}\n\n"


def _outer_space(text: str) -> tuple[str, str]:
    """Return the white space around a text: a template that strips it has to meet it."""
    core = text.strip()
    if not core:
        return text, ""
    start = text.index(core)
    return text[:start], text[start + len(core) :]


_PLAIN = "{# no chat template #}"
_ONE_BELOW_THE_OTHER = (
    "{% for message in messages %}{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n\\n' }}{% endfor %}"
)
_NO_TEMPLATE = (
    "the model has no chat template: prompts are plain text, as for a base model; an Instruct "
    "version answers better untrained"
)
_NO_SYSTEM = "its chat template has no system message: instructions begin the user's message"


def _pinned_template(tokenizer: Any) -> str:
    """Return the chat template with its clock stopped.

    Templates read the date through ``date_string`` or by calling ``strftime_now``. transformers
    5.23 passes no functions into a template, so the call is answered by a macro put before it.
    """
    try:
        template: str = tokenizer.get_chat_template()
    except ValueError:
        bos = tokenizer.bos_token_id
        begins = bos is not None and tokenizer("a")["input_ids"][:1] == [bos]
        return _PLAIN + ("{{ bos_token }}" if begins else "") + _ONE_BELOW_THE_OTHER
    formats = {match[1] for match in _STRFTIME_CALL.findall(template)}
    if "strftime_now" not in template:
        return template
    dates = {format_: PINNED_DATE.strftime(format_) for format_ in sorted(formats)}
    fallback = PINNED_DATE.strftime("%d %b %Y")
    looked_up = f"{{{{ {dates!r}.get(format, {fallback!r}) }}}}"
    return f"{{%- macro strftime_now(format) -%}}{looked_up}{{%- endmacro -%}}{template}"


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedExample:
    """One example as token ids.

    ``answer`` ends with the end of turn and is empty for an example without a label; ``gold`` is
    the index of its category in the task's labels, ``None`` without a label.
    """

    id: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    gold: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """Encoded examples in the order given, and what the limit on prompts cost.

    ``counts``: ``dropped_turns`` in all, ``truncated_examples`` that lost at least one,
    ``still_too_long`` examples whose prompt exceeds the limit with nothing left to drop. ``limit``
    names it.
    """

    examples: tuple[EncodedExample, ...]
    counts: Mapping[str, int]
    limit: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedPrompt:
    """One prompt's ids, the turns it lost, and whether it is within the limit."""

    ids: tuple[int, ...]
    dropped_turns: int
    fits: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptLimit:
    """How long prompts may be: ``max_tokens``, or what the answer leaves of the model's positions.

    ``answer`` tokens are kept free for it. ``None``: no such limit.
    """

    max_tokens: int | None
    positions: int | None
    answer: int

    @property
    def tokens(self) -> int | None:
        """Longest prompt in tokens, the generation header included."""
        given = self.max_tokens, None if self.positions is None else self.positions - self.answer
        return min((limit for limit in given if limit is not None), default=None)

    def __str__(self) -> str:
        """Return which limit it is, in words."""
        if self.max_tokens is not None and self.max_tokens == self.tokens:
            return f"prompt.max_tokens={self.max_tokens}"
        return f"the model's {self.positions} positions, {self.answer} of them for the answer"

    def exceeded_by(self, prompt: Sequence[int], answer: Sequence[int] = ()) -> bool:
        """Return whether a prompt and its answer need more positions than there are."""
        needed = len(prompt) + max(len(answer), self.answer)
        return self.positions is not None and needed > self.positions


def prompt_limit(
    task: Task,
    encoder: ChatEncoder,
    *,
    max_tokens: int | None,
    positions: int | None,
    max_new_tokens: int,
) -> PromptLimit:
    """Return how long prompts may be, so that any label and ``max_new_tokens`` find room.

    The same for training, scoring and prompting, so that all of them show the same prompts.
    """
    empty = "" if task.rationale else None
    answers = (task.render(Answer(label=label, rationale=empty)) for label in task.labels)
    room = max([max_new_tokens, *(len(encoder.answer_ids(text)) for text in answers)])
    return PromptLimit(max_tokens=max_tokens, positions=positions, answer=room)


BLOCKS = 4
"""A block holds about this share of the room for turns: larger ones are shared by more utterances,
and leave less history to the first prompt behind them."""

_TOKENS_PER_TURN = 4
"""About what a turn costs beside its text: speaker and line end."""


class PromptEncoder:
    """Turns examples into prompts of at most ``max_tokens`` tokens.

    The response, the counselor's intervention before it, the examples shown and the task's own
    text are never cut; only turns before the intervention go, whole and the oldest first.

    Args:
        task: Renders an example as messages.
        encoder: Turns messages into ids.
        max_tokens: Longest prompt in tokens, the generation header included; ``None`` for no limit.
        cut: How many turns go: ``blocks``, of which as few as will do (single turns where no block
            is left), or as few ``turns`` as will do.
        shots: Solved examples shown in every prompt.
    """

    def __init__(
        self,
        task: Task,
        encoder: ChatEncoder,
        *,
        max_tokens: int | None = None,
        cut: PromptCut = "blocks",
        shots: Sequence[Example] = (),
    ) -> None:
        self._task = task
        self._encoder = encoder
        self._max_tokens = max_tokens
        self._cut = cut
        self._shots = tuple(shots)
        self._tokens_of: dict[str, int] = {}
        # Learned from exact encodings; only how soon the right cut is found hangs on it.
        self._tokens_per_turn = float(_TOKENS_PER_TURN)

    def count_turns(self, examples: Iterable[Example]) -> None:
        """Count the tokens of all turns at once, ahead of encoding many examples.

        Histories of one dialogue share their turns, so this is far less than the text of all
        prompts.
        """
        if self._max_tokens is None or self._task.history != "full":
            return
        texts = {turn.text for example in examples for turn in example.history}
        new = sorted(texts - self._tokens_of.keys())
        self._tokens_of.update(zip(new, self._encoder.count_tokens(new), strict=True))

    def encode(self, example: Example, limit: int | None = None) -> EncodedPrompt:
        """Return the prompt of one example, without its oldest turns where it would be too long.

        Args:
            example: Any of the dialogue's utterances: no other one counts.
            limit: Longest prompt in tokens, below ``max_tokens``; by default these.
        """
        limit = self._max_tokens if limit is None else limit
        if limit is None:
            return EncodedPrompt(ids=self._ids(example, 0), dropped_turns=0, fits=True)
        most = 0
        if self._task.history == "full":
            most = len(example.history) - len(intervention(example.history))
        self.count_turns([example])
        # The texts alone are a lower bound: most prompts are judged without being encoded.
        if most == 0 or sum(self._tokens(turn) for turn in example.history) <= limit:
            whole = self._ids(example, 0)
            if len(whole) <= limit or most == 0:
                return EncodedPrompt(ids=whole, dropped_turns=0, fits=len(whole) <= limit)
        shortest = self._ids(example, most)
        if len(shortest) >= limit:
            return EncodedPrompt(ids=shortest, dropped_turns=most, fits=len(shortest) == limit)
        dropped, ids = self._fewest_drops(example, limit, self._ends(example, most), shortest)
        if dropped == most and self._cut == "blocks":
            dropped, ids = self._fewest_drops(example, limit, range(most + 1), shortest)
        return EncodedPrompt(ids=ids, dropped_turns=dropped, fits=True)

    def _ends(self, example: Example, most: int) -> Sequence[int]:
        """Return the numbers of turns that may be dropped together, the last of them ``most``."""
        if self._cut == "turns":
            return range(most + 1)
        costs = (self._tokens(turn) + _TOKENS_PER_TURN for turn in example.history[:most])
        filled = [total // self._block for total in itertools.accumulate(costs, initial=0)]
        ends = [i for i in range(1, most) if filled[i] > filled[i - 1]]
        return [0, *ends, most]

    @cached_property
    def _block(self) -> int:
        """Tokens of a block: a share of what the prompt's own text and the shots leave."""
        assert self._max_tokens is not None
        own = len(self._ids(Example(id="", history=(), response=""), 0))
        return max(1, (self._max_tokens - own) // BLOCKS)

    def _fewest_drops(
        self, example: Example, limit: int, allowed: Sequence[int], shortest: tuple[int, ...]
    ) -> tuple[int, tuple[int, ...]]:
        """Return the smallest allowed number of dropped turns whose prompt fits, and that prompt.

        The last of these numbers makes the ``shortest`` prompt, which fits.
        """
        most = allowed[-1]
        known = {most: shortest}

        def ids(dropped: int) -> tuple[int, ...]:
            if dropped not in known:
                known[dropped] = self._ids(example, dropped)
            return known[dropped]

        place = bisect_left(allowed, self._guess(example.history, most, limit - len(shortest)))
        while len(ids(allowed[place])) > limit:
            place += 1
        while place > 0:
            before, dropped = allowed[place - 1], allowed[place]
            # Turns cost at least their text: only where that would fit is their prompt encoded.
            least = sum(map(self._tokens, example.history[before:dropped]))
            if len(ids(dropped)) + least > limit or len(ids(before)) > limit:
                break
            place -= 1
        dropped = allowed[place]
        self._learn(example.history[dropped:most], len(ids(dropped)) - len(shortest))
        return dropped, ids(dropped)

    def _guess(self, history: Sequence[Turn], most: int, budget: float) -> int:
        for dropped in range(most, 0, -1):
            budget -= self._tokens(history[dropped - 1]) + self._tokens_per_turn
            if budget < 0:
                return dropped
        return 0

    def _learn(self, kept: Sequence[Turn], cost: int) -> None:
        if kept:
            self._tokens_per_turn = max(0.0, (cost - sum(map(self._tokens, kept))) / len(kept))

    def _tokens(self, turn: Turn) -> int:
        return self._tokens_of[turn.text]

    def _ids(self, example: Example, dropped: int) -> tuple[int, ...]:
        cut = replace(example, history=example.history[dropped:]) if dropped else example
        return self._encoder.prompt_ids(self._task.messages(cut, self._shots))


def encode_examples(
    examples: Sequence[Example],
    task: Task,
    encoder: ChatEncoder,
    *,
    max_tokens: int | None = None,
    positions: int | None = None,
    max_new_tokens: int = 128,
    cut: PromptCut = "blocks",
    shots: Sequence[Example] = (),
) -> Encoding:
    """Return the ids of prompts and answers of examples that the task has selected.

    Prompt and answer never need more than ``positions``: an answer of more than ``max_new_tokens``
    tokens has its own prompt shortened.

    Args:
        examples: In the order in which they come back; one without a label gets no answer.
        task: Renders prompts and answers.
        encoder: Turns messages and answers into ids.
        max_tokens: Longest prompt in tokens; longer ones lose whole oldest turns. The answer is
            never cut and not counted. ``None`` for no limit.
        positions: Of the model; ``None`` for no limit.
        max_new_tokens: Longest answer that is generated, in tokens.
        cut: As for :class:`PromptEncoder`.
        shots: Solved examples shown in every prompt.

    Raises:
        ConfigError: When a prompt needs more than the positions with nothing left to lose.
    """
    limit = prompt_limit(
        task, encoder, max_tokens=max_tokens, positions=positions, max_new_tokens=max_new_tokens
    )
    prompts = PromptEncoder(task, encoder, max_tokens=limit.tokens, cut=cut, shots=shots)
    prompts.count_turns(examples)
    encoded: list[EncodedExample] = []
    beyond: list[EncodedExample] = []
    counts = {"dropped_turns": 0, "truncated_examples": 0, "still_too_long": 0}
    for example in examples:
        answer, gold = _answered(example, task, encoder)
        prompt = prompts.encode(example)
        if positions is not None and limit.exceeded_by(prompt.ids, answer):
            prompt = prompts.encode(example, positions - max(limit.answer, len(answer)))
        counts["dropped_turns"] += prompt.dropped_turns
        counts["truncated_examples"] += prompt.dropped_turns > 0
        counts["still_too_long"] += not prompt.fits
        made = EncodedExample(id=example.id, prompt=prompt.ids, answer=answer, gold=gold)
        encoded.append(made)
        if limit.exceeded_by(prompt.ids, answer):
            beyond.append(made)
    if beyond:
        raise ConfigError(_beyond(beyond, limit))
    return Encoding(examples=tuple(encoded), counts=counts, limit=str(limit))


def _answered(
    example: Example, task: Task, encoder: ChatEncoder
) -> tuple[tuple[int, ...], int | None]:
    """Return the answer and the index of the label, nothing without one."""
    if example.label is None:
        return (), None
    label = task.gold(example)
    text = task.render(Answer(label=label, rationale=example.rationale if task.rationale else None))
    return encoder.answer_ids(text), task.index(label)


def _beyond(examples: Sequence[EncodedExample], limit: PromptLimit) -> str:
    first = examples[0]
    room = max(limit.answer, len(first.answer))
    return (
        f"{len(examples)} prompts need more positions than the model's {limit.positions}, and have "
        f"no turns left to lose; the first is example {quote_id(first.id)} with "
        f"{len(first.prompt)} tokens and {room} for the answer. Set prompt=brief, "
        "prompt.history=none, fewer shots or a smaller decoding.max_new_tokens, leave these rows "
        "out, or take a backbone with more positions"
    )
