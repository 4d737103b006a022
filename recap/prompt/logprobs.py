"""Label probabilities, out of what a server tells of the tokens of its answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recap.tasks.task import Task

_UNTOLD = 0.01
"""Share of the labels' probability that may begin several of them, and is left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerToken:
    """A token of an answer, and the probabilities that the model gave to it and to others there."""

    text: bytes
    alternatives: Mapping[bytes, float]


def read_tokens(choice: Mapping[str, Any]) -> tuple[AnswerToken, ...]:
    """Return the tokens of a choice of OpenAI's chat completions; none where it tells of none."""
    try:
        return tuple(
            AnswerToken(
                text=_bytes(entry),
                alternatives={
                    _bytes(each): math.exp(each["logprob"])
                    for each in (*entry["top_logprobs"], entry)
                },
            )
            for entry in choice["logprobs"]["content"]
        )
    # Servers have forms of their own, and what one sends may be anything.
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        return ()


def _bytes(entry: Mapping[str, Any]) -> bytes:
    """Return a token's bytes: its text may be half a character."""
    given = entry.get("bytes")
    return bytes(given) if given else str(entry["token"]).encode("utf-8", "surrogatepass")


def label_probabilities(task: Task, tokens: tuple[AnswerToken, ...]) -> dict[str, float] | None:
    """Return the probabilities of a task's labels, where an answer's tokens tell all of them.

    A label's is that of the tokens which begin this label and no other: those that the answer
    shares with it, times those by which it parts from the answer. They are made to add up to 1, to
    6 significant digits, and hold given what the answer says before the label.

    ``None`` where the answer does not begin with a label as prompts write it; where a label is not
    among the alternatives; or where more than a hundredth would go to beginnings of several labels.
    """
    said = b"".join(token.text for token in tokens)
    text = said.decode("utf-8", "replace")
    start = task.answer_format.label_start(text)
    if start is None:
        return None
    lead = text[:start].encode()
    # Blanks before the label may be tokens of their own, where others begin the label.
    before_blanks = len(lead.rstrip(b" \t\r\n\"*'"))
    spelled = {label: lead + task.written(label).encode() for label in task.labels}
    found, untold, path, done = dict.fromkeys(task.labels, 0.0), 0.0, 1.0, b""
    for token in tokens:
        before, done = done, done + token.text
        if len(done) <= before_blanks:
            continue
        for alternative, probability in token.alternatives.items():
            fits = _fitting(before + alternative, spelled)
            if len(fits) == 1:
                found[fits[0]] += path * probability
            elif len(before + alternative) > len(lead) and fits and alternative != token.text:
                untold += path * probability
        if len(_fitting(done, spelled)) < 2:
            break
        path *= token.alternatives[token.text]
    total = sum(found.values())
    if not all(found.values()) or not untold <= _UNTOLD * total:
        return None
    return {label: float(f"{share / total:.6g}") for label, share in found.items()}


def _fitting(said: bytes, spelled: Mapping[str, bytes]) -> list[str]:
    """Return the labels that a text begins, or ends its spelling of."""
    return [
        label
        for label, whole in spelled.items()
        if whole.startswith(said)
        or (said.startswith(whole) and not said[len(whole) : len(whole) + 1].isalnum())
    ]
