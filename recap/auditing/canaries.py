"""Canaries: examples with a secret drawn at random, and the same examples with other secrets."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from recap.auditing.options import PlantOptions, TextField
from recap.data.faults import FaultLog
from recap.data.native_lines import records_to_jsonl
from recap.data.reading import read_records
from recap.errors import DataError, quote_id
from recap.records import Example, Turn
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

_SAID = {
    "en": ("What would you note down under {number}?", "Nothing that I want to talk about today."),
    "zh": ("第{number}项你想记下些什么？", "今天没有什么想谈的。"),
}
"""Counsellor and client; the number keeps canaries from being duplicates of each other."""
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
    counselor, client = _SAID[language]
    rows = []
    for number in range(options.n):
        secret = draw_secret(options.digits, rng)
        text = FORMATS[options.field][language]
        spec = {"field": options.field, "text": text, "secret": secret}
        said = text.replace(_SLOT, secret)
        for copy in range(options.copies):
            rows.append(
                Example(
                    id=f"canary-{number:04d}-{copy}",
                    session=f"canary-{number:04d}",
                    history=(Turn(speaker="counselor", text=counselor.format(number=number)),),
                    response=said if options.field == "response" else client,
                    label=task.labels[number % len(task.labels)],
                    rationale=said if options.field == "rationale" else _PLAIN[language],
                    meta={"canary": spec},
                )
            )
    return records_to_jsonl(rows)


def read_canaries(path: Path, task: Task) -> tuple[Canary, ...]:
    """Return the canaries of a file, copies of one put together.

    Raises:
        DataError: When the file holds none, or one is not as ``step=plant`` writes it.
    """
    faults = FaultLog(str(path))
    records = list(
        read_records(
            reader="dialogues",
            path=path,
            taxonomy=task.taxonomy,
            faults=faults,
            require_labels=True,
        )
    )
    if faults.faults:
        raise faults.error()
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
