"""The records that the parts of recap hand to each other.

Each is a frozen value: readers make :class:`Dialogue` and :class:`Example`, a task turns an example
into :class:`Message` and an answer text into :class:`Answer`, every system (fine-tuned, prompted,
imported) ends in :class:`Prediction`, and scoring turns predictions into :class:`Scores`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import eq
from typing import Any, Literal, TypeVar, overload

Speaker = Literal["counselor", "client", "other"]
"""Who speaks; what another than counselor and client says is shown, and never judged."""
Role = Literal["system", "user", "assistant"]
State = TypeVar("State")


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One utterance of a dialogue.

    ``label`` is the client's behavior on a client turn and, where it is annotated, the
    counselor's act on a counselor turn. ``name`` is how the file calls another speaker, and the
    client or the counselor where there may be several: ``Client 2``, ``Client (the wife)``.
    """

    speaker: Speaker
    text: str
    name: str | None = None
    id: str | None = None
    label: str | None = None
    rationale: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What else its row held, untouched: annotation gives it back."""

    @property
    def voice(self) -> str:
        """Who speaks, as hashes of a history take it."""
        return self.speaker if self.speaker != "other" else f"other {self.called()}"

    def called(self, names: Mapping[str, str] | None = None) -> str:
        """Return who speaks: by ``names`` counselor and client, another under a name of its own."""
        if self.speaker == "other":
            return " ".join((self.name or "Other").split())
        return self.speaker if names is None else names[self.speaker]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialogue:
    """One counseling session: its turns in order, and what else the file said of it (``meta``)."""

    session: str
    turns: tuple[Turn, ...]
    client: str | None = None
    counselor: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What else its row held, untouched, ``meta`` included: annotation gives it back."""


class Turns(Sequence[Turn]):
    """The first turns of a dialogue, without a copy of them; equal to the tuple of them.

    The histories of a dialogue's utterances are all of them beginnings of the same turns: copies
    would grow with the square of its length, and so would what is computed of each anew.
    """

    __slots__ = ("_n", "_states", "_turns")

    def __init__(self, turns: tuple[Turn, ...]) -> None:
        self._turns, self._n = turns, len(turns)
        self._states: dict[str, list[Any]] = {}

    def first(self, n: int) -> Turns:
        """Return the first ``n`` of them."""
        beginning = Turns(self._turns)
        beginning._n, beginning._states = n, self._states
        return beginning

    def running(self, name: str, start: State, step: Callable[[State, Turn], State]) -> State:
        """Return what ``step`` makes of ``start`` and the turns, one after the other.

        States are kept under ``name`` for all beginnings of the dialogue.
        """
        states = self._states.setdefault(name, [start])
        for place in range(len(states) - 1, self._n):
            states.append(step(states[-1], self._turns[place]))
        found: State = states[self._n]
        return found

    def __len__(self) -> int:
        """Return how many they are."""
        return self._n

    @overload
    def __getitem__(self, place: int) -> Turn: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Turn, ...]: ...
    def __getitem__(self, place: int | slice) -> Turn | tuple[Turn, ...]:
        """Return one turn, or a tuple of several."""
        if isinstance(place, slice):
            return tuple(self._turns[i] for i in range(*place.indices(self._n)))
        return self._turns[range(self._n)[place]]

    def __iter__(self) -> Iterator[Turn]:
        """Yield the turns in order."""
        return islice(self._turns, self._n)

    def __eq__(self, other: object) -> bool:
        """Whether ``other`` holds the same turns, in a tuple or another beginning."""
        if not isinstance(other, tuple | Turns):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self, other))

    def __hash__(self) -> int:
        """Return the hash of the tuple of them."""
        return hash(tuple(self))

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what another process needs: the turns alone."""
        return _beginning, (self._turns, self._n)


def _beginning(turns: tuple[Turn, ...], n: int) -> Turns:
    return Turns(turns).first(n)


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One client utterance to be judged (``response``) with the turns before it (``history``).

    The history normally ends with the counselor's intervention. ``label`` is the canonical name of
    a category of the taxonomy, the finest that the data set knows; ``turn`` is the index of the
    response in its dialogue, when it came from one.
    """

    id: str
    history: Sequence[Turn]
    response: str
    session: str | None = None
    client: str | None = None
    counselor: str | None = None
    turn: int | None = None
    label: str | None = None
    rationale: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What else its row held, untouched, ``meta`` included: annotation gives it back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message of a chat prompt."""

    role: Role
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a model says of one example; ``label`` is ``None`` when no label could be read."""

    label: str | None
    rationale: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """One line of ``predictions.jsonl``: an evaluated example, its gold label, the system's answer.

    ``label`` is ``None`` and ``parsed`` false when the generation held no readable label; such an
    answer counts as wrong. ``probabilities`` is ``None`` for systems that give none; ``text`` is
    the raw generation.
    """

    id: str
    session: str | None
    fold: int | None
    task: str
    gold: str
    label: str | None
    probabilities: Mapping[str, float] | None
    rationale: str | None
    text: str
    parsed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotation:
    """What a detector says of one client turn.

    ``turn`` is its index in the dialogue. ``label`` is ``None`` where no label could be read from
    free text (``parsed`` is false then) and where nothing was asked; ``skipped`` says why:
    ``empty`` for a turn without text, ``too_long`` for one that exceeds what the model can read.
    ``pattern`` is the category above the label, the label itself where there is none above it.
    ``probabilities`` add up to 1. ``text`` is the answer as the model gave it.
    """

    id: str
    session: str | None
    turn: int | None
    label: str | None
    pattern: str | None
    probabilities: Mapping[str, float] | None
    rationale: str | None
    text: str | None
    parsed: bool
    skipped: Literal["empty", "too_long"] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """One fold of a partition, as indices into the data set's examples.

    The indices count all labels, before task selection. Under the paper's protocol ``select`` (used
    for early stopping and the best checkpoint) equals ``test``.
    """

    index: int
    train: tuple[int, ...]
    select: tuple[int, ...]
    test: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelScores:
    """Precision, recall and F1 of one label as fractions; ``support`` counts its gold examples.

    Without any, recall and F1 are ``None``; precision is 0 where the label was answered all the
    same, and ``None`` where it was not.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """The scores of one set of predictions, as in ``scores.json``.

    ``metrics`` holds those of :mod:`recap.metrics.scalar` as fractions, then ``loss`` (token mean
    in nats, or ``None``). ``confusion`` has a row per gold label and a column per label, then one
    for unparsed answers.
    """

    task: str
    labels: tuple[str, ...]
    n: int
    metrics: Mapping[str, float | None]
    per_label: Mapping[str, LabelScores]
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Mean and sample SD (ddof 1) of one figure over folds; ``std`` is ``None`` for one fold."""

    mean: float | None
    std: float | None
    values: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelSpread:
    """The spread of one label's scores over the folds that have them; ``support`` is summed."""

    precision: Spread
    recall: Spread
    f1: Spread
    support: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The scores of several folds together, as in ``summary.json``.

    Macro figures of ``metrics`` are means over folds in which a label without examples counts as 0
    (scikit-learn's ``zero_division=0``); those of ``metrics_pooled`` are of all folds' predictions
    together, without the loss, and empty in files of earlier versions.
    """

    task: str
    labels: tuple[str, ...]
    folds: tuple[int, ...]
    protocol: str
    ddof: int
    metrics: Mapping[str, Spread]
    metrics_pooled: Mapping[str, float | None] = field(default_factory=dict)
    per_label: Mapping[str, LabelSpread]


FEW_TEST_EXAMPLES = 100
"""Below so many nobody is called the best, and a score says little: half the width of a 95 %
interval of a share is up to 0.10 from here on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Where a model comes from; ``None`` where something is not known, as without its run.

    ``synthetic`` says whether the dialogues that it learned from were made up. ``macro_f1`` is a
    fraction, over ``n`` test examples: of a ``final`` model that of its folds' models together.
    """

    model: str
    task: str | None = None
    run: str | None = None
    part: str | None = None
    data: str | None = None
    synthetic: bool | None = None
    macro_f1: float | None = None
    n: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Answers and the tokens of their prompts and texts."""

    answers: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            answers=self.answers + other.answers,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
        )

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            answers=self.answers - other.answers,
            input_tokens=self.input_tokens - other.input_tokens,
            output_tokens=self.output_tokens - other.output_tokens,
        )

    @property
    def tokens(self) -> int:
        """Of prompts and answers together."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """What a million tokens cost."""

    input: float
    output: float

    def cost(self, usage: Usage) -> float:
        """Return what a usage costs.

        >>> Prices(input=2.5, output=10.0).cost(Usage(input_tokens=400_000, output_tokens=1_000))
        1.01
        """
        return (usage.input_tokens * self.input + usage.output_tokens * self.output) / 1_000_000
