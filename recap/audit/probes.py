"""What a language model has kept of texts that it was trained on: exposure and extraction.

Exposure is that of Carlini et al. 2019 (The Secret Sharer, section 4.2): a canary holds a secret
drawn from a known space, and is ranked by log-perplexity among the same text with other secrets.
Extraction follows Carlini et al. 2023 (Quantifying Memorization, section 3): given the tokens
before, greedy decoding goes on with the very text.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recap.audit.options import PlantOptions, TextField
from recap.data.corpus import read_records
from recap.data.encode import ChatEncoder, PromptEncoder
from recap.data.issues import IssueLog
from recap.data.readers.native import records_to_jsonl
from recap.errors import DataError, quote_id
from recap.models.engine.loss import LoglikelihoodRequest
from recap.records import Answer, Example, Turn
from recap.tasks.task import Task

FORMATS: dict[TextField, dict[str, str]] = {
    "rationale": {
        "en": "The client gives the reference number {secret} and no reason.",
        "zh": "来访者给出编号{secret}，没有说明理由。",
    },
    "response": {
        "en": "My reference number is {secret}, that is all.",
        "zh": "我的编号是{secret}，就这些。",
    },
}
"""Texts around a secret, by field and language."""

_TURNS = {
    "en": ("What would you note down under {number}?", "Nothing that I want to talk about today."),
    "zh": ("第{number}项你想记下些什么？", "今天没有什么想谈的。"),
}
"""Counselor and client; the number keeps canaries from being duplicates of each other."""
_PLAIN = {"en": "The client does not want to talk.", "zh": "来访者不想谈。"}
_SLOT = "{secret}"


@dataclass(frozen=True, kw_only=True)
class Canary:
    """One canary: an example without its secret, the secret, and the ids of its copies."""

    key: str
    ids: tuple[str, ...]
    example: Example
    field: TextField
    secret: str

    def with_secret(self, secret: str) -> Example:
        """Return the example with a secret in its place."""
        text = getattr(self.example, self.field).replace(_SLOT, secret)
        return replace(self.example, **{self.field: text})


def draw_secret(digits: int, rng: random.Random) -> str:
    """Return digits with spaces between them, so that each is a token of its own."""
    return " ".join(str(rng.randrange(10)) for _ in range(digits))


def plant(task: Task, options: PlantOptions, *, language: Literal["en", "zh"], seed: int) -> str:
    """Return canaries as native JSON lines, to be put to a training set; labels go round."""
    rng = random.Random(seed)
    counselor, client = _TURNS[language]
    rows = []
    for number in range(options.n):
        secret = draw_secret(options.digits, rng)
        text = FORMATS[options.field][language]
        spec = {"field": options.field, "text": text, "secret": secret}
        filled = text.replace(_SLOT, secret)
        for copy in range(options.copies):
            rows.append(
                Example(
                    id=f"canary-{number:04d}-{copy}",
                    session=f"canary-{number:04d}",
                    history=(Turn(speaker="counselor", text=counselor.format(number=number)),),
                    response=filled if options.field == "response" else client,
                    label=task.labels[number % len(task.labels)],
                    rationale=filled if options.field == "rationale" else _PLAIN[language],
                    meta={"canary": spec},
                )
            )
    return records_to_jsonl(rows)


def read_canaries(path: Path, task: Task) -> tuple[Canary, ...]:
    """Return the canaries of a file, copies of one put together.

    Raises:
        DataError: When the file holds none, or one is not as ``step=plant`` writes it.
    """
    issues = IssueLog(str(path))
    records = list(
        read_records(
            reader="dialogues",
            path=path,
            taxonomy=task.taxonomy,
            issues=issues,
            require_labels=True,
        )
    )
    if issues.issues:
        raise issues.error()
    found: dict[str, list[Canary]] = {}
    for record in records:
        if not isinstance(record, Example):
            raise DataError(f"{path}: holds dialogues; give the file that step=plant wrote")
        one = _canary(path, record)
        found.setdefault(one.key, []).append(one)
    if not found:
        raise DataError(f"{path}: holds no canaries; give the file that step=plant wrote")
    return tuple(
        replace(copies[0], ids=tuple(i for copy in copies for i in copy.ids))
        for copies in found.values()
    )


def other_secrets(canary: Canary, n: int, *, seed: int) -> tuple[str, ...]:
    """Return ``n`` different secrets of the same space, the canary's own not among them."""
    rng = random.Random(f"{seed}:{canary.key}")
    digits = len(canary.secret.split())
    if n >= 10**digits:
        raise DataError(f"candidates={n}: there are only {10**digits} secrets of {digits} digits")
    drawn: dict[str, None] = {}
    while len(drawn) < n:
        secret = draw_secret(digits, rng)
        if secret != canary.secret:
            drawn[secret] = None
    return tuple(drawn)


def _canary(path: Path, example: Example) -> Canary:
    spec: Any = example.meta.get("canary")
    try:
        field, text, secret = spec["field"], spec["text"], spec["secret"]
        sound = getattr(example, field) == text.replace(_SLOT, secret) and _SLOT in text
        sound = sound and field in FORMATS and all(d.isdecimal() for d in secret.split())
    except (TypeError, KeyError, AttributeError):
        sound = False
    if not sound:
        raise DataError(
            f"{path}: id {quote_id(example.id)} is no canary as step=plant writes it; plant them "
            "again, and train on these"
        )
    blank = replace(example, **{field: text})
    return Canary(
        key=example.session or example.id,
        ids=(example.id,),
        example=blank,
        field=field,
        secret=secret,
    )


def trained_on(canary: Canary, trained: Sequence[str], held_out: Sequence[str]) -> str:
    """Return ``trained``, ``held out``, or ``elsewhere`` where the model's data lack the canary."""
    if set(canary.ids) & set(trained):
        return "trained"
    return "held out" if set(canary.ids) & set(held_out) else "elsewhere"


_PROBES = ("A", "一", "1")
"""Texts that no text begins or ends like: at least one of them differs in its first token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenSpan:
    """All tokens that a model read, and where a text lies in them (``start`` up to ``end``)."""

    ids: tuple[int, ...]
    start: int
    end: int

    def behind(self, n: int, *, shortest: int) -> LoglikelihoodRequest | None:
        """Return the text's tokens behind its first ``n``; ``None`` where fewer are left."""
        if self.end - self.start - n < shortest:
            return None
        return LoglikelihoodRequest(ids=self.ids[: self.end], start=self.start + n)


class TokenSpans:
    """Finds texts among the tokens of prompt and answer, as training lays them out.

    Args:
        task: Writes prompts and answers.
        encoder: The model's tokenizer.
        max_tokens: Longest prompt, as in training.
    """

    def __init__(self, task: Task, encoder: ChatEncoder, *, max_tokens: int | None) -> None:
        self._task = task
        self._encoder = encoder
        self._prompts = PromptEncoder(task, encoder, max_tokens=max_tokens)

    def of(self, example: Example, field: TextField) -> TokenSpan:
        """Return where a field of an example stands."""
        prompt = self._prompts.encode(example)
        if field == "rationale":
            answer, start = self._answer(example)
            # What ends the turn is no part of the text.
            whole = (*prompt.ids, *answer)
            return TokenSpan(ids=whole, start=len(prompt.ids) + start, end=len(whole) - 1)
        cut = replace(example, history=example.history[prompt.dropped_turns :])
        probes = [
            self._encoder.prompt_ids(self._task.messages(replace(cut, response=text)))
            for text in _PROBES
        ]
        start = min(_common(prompt.ids, probe) for probe in probes)
        behind = min(_common(prompt.ids[::-1], probe[::-1]) for probe in probes)
        return TokenSpan(ids=prompt.ids, start=start, end=len(prompt.ids) - behind)

    def _answer(self, example: Example) -> tuple[tuple[int, ...], int]:
        """Return the tokens of the answer, and where its rationale begins."""
        label = self._task.gold(example)
        own, *probes = (
            self._encoder.answer_ids(self._task.render(Answer(label=label, rationale=text)))
            for text in (example.rationale, *_PROBES)
        )
        return own, min(_common(own, probe) for probe in probes)


def candidates(spans: Sequence[TokenSpan]) -> list[LoglikelihoodRequest]:
    """Return the same text with several secrets, each from where the first of them differs."""
    first = spans[0]
    start = min(_common(first.ids, span.ids) for span in spans[1:])
    return [LoglikelihoodRequest(ids=span.ids[: span.end], start=max(1, start)) for span in spans]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many leading tokens two sequences share."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many of some texts, with the ends of Wilson's 95 % interval; ``None`` for none."""

    count: int
    n: int
    share: float | None
    low: float | None
    high: float | None


def rank_among(own: float, others: Sequence[float]) -> int:
    """Return the place of a log-perplexity among others, from 1 for the lowest.

    Equal ones count as lower, so that a model that tells nothing apart shows no exposure.
    """
    return 1 + sum(other <= own for other in others)


def exposure(own: float, others: Sequence[float]) -> float:
    """Return log2 of the candidates, itself among them, less log2 of the rank, in bits.

    With a sample of the space in place of all of it (section 4.3 there) the most that can be seen
    is log2 of the sample's size.

    >>> exposure(1.0, [2.0, 3.0, 4.0]), exposure(5.0, [2.0, 3.0, 4.0])
    (2.0, 0.0)
    """
    return math.log2(1 + len(others)) - math.log2(rank_among(own, others))


CHANCE = 1 / math.log(2)
"""Mean exposure of a secret that the model has never met, in bits: its rank is uniform."""


def exposure_p(exposures: Sequence[float]) -> float | None:
    """Return the probability of a mean exposure as high without memorization, ``None`` for none.

    The rank is uniform then, and ln(2) times the exposure exponential with mean 1, or less for a
    finite sample: their sum follows at most a gamma distribution.
    """
    if not exposures:
        return None
    from scipy.stats import gamma

    return float(gamma.sf(math.log(2) * sum(exposures), a=len(exposures)))


def share_of(found: Sequence[bool]) -> Share:
    """Return the share of texts that were reproduced."""
    n, count = len(found), sum(found)
    if n == 0:
        return Share(count=0, n=0, share=None, low=None, high=None)
    from scipy.stats import binomtest

    ends = binomtest(count, n).proportion_ci(0.95, method="wilson")
    return Share(count=count, n=n, share=count / n, low=float(ends.low), high=float(ends.high))


def more_than(trained: Share, held_out: Share) -> float | None:
    """Return Fisher's exact one-sided p for a larger share of trained texts; ``None`` for none."""
    if trained.n == 0 or held_out.n == 0:
        return None
    from scipy.stats import fisher_exact

    table = np.array([[each.count, each.n - each.count] for each in (trained, held_out)])
    return float(fisher_exact(table, alternative="greater").pvalue)
