"""A built-in, synthetic, bilingual corpus of counseling dialogues, generated from a seed.

No client ever said a word of it: every utterance is put together from invented parts
(``demo_parts/*.yaml``), so that the library can be tried, tested and demonstrated where no data may
be shared. It shows that a model learns; it says nothing about resistance in real counseling.

How it is made, and why:

* The categories keep the proportions of ClientResistance (paper, Table 3).
* A response is opener + core + tail with slots, parts that vary independently. Most combinations of
  a test fold therefore never occur in its training folds, though their parts do.
* About half of the responses come from blocks that two or three labels share. Only the act of the
  counselor's turn before them (question, suggestion, interpretation, …) says which label it is.
* A small share of labels (``noise`` in ``design.yaml``) stands on a dialogue that was written for
  another plausible label, and cannot be learned.
* The rationale names the behavior and the counselor's act.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from recap.data.issues import IssueLog
from recap.data.readers.registry import register_reader
from recap.errors import ConfigError, did_you_mean
from recap.records import Dialogue, Turn

Language = Literal["en", "zh", "both"]
PARTS = Path(__file__).parent / "demo_parts"
DEFAULT_SIZE = 2900
"""Labeled utterances; 1,260 of them are resistant, the number that the fine-grained task sees."""


def generate_dialogues(
    *, size: int = DEFAULT_SIZE, seed: int = 0, language: str = "en"
) -> Iterator[Dialogue]:
    """Yield synthetic sessions that hold ``size`` labeled client turns in all.

    The same arguments give the same dialogues in every process; ``language="both"`` gives half of
    each. Every counselor turn carries its act as ``label``. ``meta["synthetic"]`` is true, and
    ``meta["composition"]`` tells of each labeled turn, by its id, how it was made: ``template``
    (the response with its slots left open), ``act`` (of the counselor before it), ``fits`` (the
    labels that the response alone fits) and ``noisy`` (whether its label cannot be learned).

    Raises:
        ConfigError: For a size below one or an unknown language.
    """
    if size < 1:
        raise ConfigError(f"the demo corpus needs data.options.size of at least 1, not {size}")
    if language not in get_args(Language):
        raise ConfigError(
            f"the demo corpus has no language {language!r}"
            f"{did_you_mean(language, get_args(Language))}; "
            f"choose data.language={'|'.join(get_args(Language))}"
        )
    if language == "both":
        yield from generate_dialogues(size=(size + 1) // 2, seed=seed, language="en")
        if size > 1:
            yield from generate_dialogues(size=size // 2, seed=seed, language="zh")
        return
    labels = _labels(size)
    random.Random(f"labels/{language}/{seed}").shuffle(labels)
    yield from _sessions(labels, language, random.Random(f"sessions/{language}/{seed}"))


@register_reader("demo")
def read_demo(
    path: Path | None = None,
    *,
    issues: IssueLog | None = None,
    size: int = DEFAULT_SIZE,
    seed: int = 0,
    language: str = "en",
) -> Iterator[Dialogue]:
    """Yield the demo corpus as a reader does; a ``ConfigError`` for a ``path``, which is none."""
    if path is not None:
        raise ConfigError(
            f"data.path={path}: data=demo is the built-in corpus and reads no file; say how yours "
            "is read: data=dialogues for JSON lines, data=table for CSV and Excel, or another "
            "choice of data (--help)"
        )
    return generate_dialogues(size=size, seed=seed, language=language)


def demo_texts(
    *, language: str = "both", size: int = 2 * DEFAULT_SIZE, seed: int = 0
) -> Iterator[str]:
    """Yield every utterance and rationale of a demo corpus, for building the tiny tokenizer."""
    for dialogue in generate_dialogues(size=size, seed=seed, language=language):
        for turn in dialogue.turns:
            yield turn.text
            if turn.rationale is not None:
                yield turn.rationale


def _design() -> Mapping[str, Any]:
    return _parts("design")


@lru_cache
def _parts(name: str) -> Mapping[str, Any]:
    """Return ``design.yaml``, or the parts of a language."""
    loaded: Mapping[str, Any] = yaml.safe_load((PARTS / f"{name}.yaml").read_text(encoding="utf-8"))
    return loaded


def _labels(size: int) -> list[str]:
    """Return ``size`` labels in the proportions of Table 3, rounded by largest remainder."""
    counts: Mapping[str, int] = _design()["counts"]
    total = sum(counts.values())
    shares = {label: size * count / total for label, count in counts.items()}
    whole = {label: int(share) for label, share in shares.items()}
    by_remainder = sorted(shares, key=lambda label: whole[label] - shares[label])
    for label in by_remainder[: size - sum(whole.values())]:
        whole[label] += 1
    return [label for label, n in whole.items() for _ in range(n)]


def _sessions(labels: Sequence[str], language: str, rng: random.Random) -> Iterator[Dialogue]:
    start, number, client, left = 0, 0, 0, 0
    while start < len(labels):
        if left == 0:
            client, left = client + 1, rng.randint(1, 4)
        number, left = number + 1, left - 1
        length = rng.randint(2, 4)
        yield _Session(language, f"demo-{language}-{number:05d}", rng).dialogue(
            labels[start : start + length], client=f"demo-{language}-client-{client:04d}"
        )
        start += length


class _Session:
    """One session under construction: its topic, the client's own story, and the turns so far."""

    def __init__(self, language: str, session: str, rng: random.Random) -> None:
        self._parts, self._rng, self._language, self._id = _parts(language), rng, language, session
        slots: Mapping[str, Sequence[str]] = self._parts["slots"]
        self._topic = rng.choice(slots["topic"])
        self._story = {"person": rng.choice(slots["person"]), "event": rng.choice(slots["event"])}
        self._turns: list[Turn] = []
        self._composition: dict[str, dict[str, Any]] = {}

    def dialogue(self, labels: Iterable[str], *, client: str) -> Dialogue:
        """Return the session: an opening turn, then an act and a response for each label."""
        self._say("client", self._fill(self._draw(self._parts["opening"]), self._story))
        for label in labels:
            self._exchange(label)
        meta = {"synthetic": True, "language": self._language, "composition": self._composition}
        return Dialogue(session=self._id, client=client, turns=tuple(self._turns), meta=meta)

    def _exchange(self, label: str) -> None:
        design, rng = _design(), self._rng
        noisy = rng.random() < design["noise"]
        written_for = rng.choice(design["plausible"][label]) if noisy else label
        block = self._block(written_for)
        of_block = {written_for: design["own_acts"][written_for]}
        if block is not None:
            of_block = design["shared"][block]
        act = rng.choice(of_block[written_for])
        counselor = self._parts["counselor"]
        self._say(
            "counselor", self._fill(self._draw(counselor, counselor["acts"][act]), {}), label=act
        )
        wording = self._parts["own"][written_for] if block is None else self._parts["shared"][block]
        template = self._draw(
            {**wording, "openers": self._parts["client"]["openers"]}, wording["cores"]
        )
        own_story = written_for == "Inattention"
        text = self._fill(template, self._story if own_story else self._elsewhere())
        turn = self._say("client", text, label=label, rationale=self._rationale(label, act))
        self._composition[turn] = {
            "template": template,
            "act": act,
            "fits": [*of_block],
            "noisy": noisy,
        }

    def _block(self, label: str) -> str | None:
        """Return a shared block that ``label`` draws from, or ``None`` for its own wording."""
        draw = self._rng.random()
        for block, chance in _design()["mix"][label].items():
            if draw < chance:
                return str(block)
            draw -= chance
        return None

    def _elsewhere(self) -> dict[str, str]:
        """Return a person and an event that are not those of the client's own story."""
        slots = self._parts["slots"]
        return {
            slot: self._rng.choice([word for word in slots[slot] if word != own])
            for slot, own in self._story.items()
        }

    def _draw(self, wording: Mapping[str, Any], cores: Sequence[str] | None = None) -> str:
        """Return a template: opener, core and tail drawn independently."""
        parts = (wording["openers"], cores or wording["cores"], wording["tails"])
        drawn = [self._rng.choice(part) for part in parts]
        return str(self._parts["joiner"]).join(filter(None, drawn))

    def _fill(self, template: str, given: Mapping[str, str]) -> str:
        slots = self._parts["slots"]
        words = {
            slot: self._rng.choice(slots[slot])
            for slot in ("person", "place", "when", "step", "event")
        }
        words |= {"topic": self._topic, **given}
        words |= {slot.capitalize(): word[:1].upper() + word[1:] for slot, word in words.items()}
        return template.format(**words)

    def _rationale(self, label: str, act: str) -> str:
        words = self._parts["rationale"]
        frame: str = words["frame"]
        return frame.format(
            behavior=words["behaviors"][label], act=words["acts"][act], topic=self._topic
        )

    def _say(
        self,
        speaker: Literal["counselor", "client"],
        text: str,
        *,
        label: str | None = None,
        rationale: str | None = None,
    ) -> str:
        identity = f"{self._id}-{len(self._turns)}"
        self._turns.append(
            Turn(speaker=speaker, text=text, id=identity, label=label, rationale=rationale)
        )
        return identity
