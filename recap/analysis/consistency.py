"""What looks wrong in examples that can be read: contradictions, repeats, labels, details."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from recap.analysis.describe import content_digest
from recap.analysis.near_duplicates import find_near_duplicates
from recap.analysis.personal_details import count_details
from recap.errors import quote_id
from recap.records import Example
from recap.tasks.mentions import LabelReader
from recap.tasks.task import Task

KINDS = {
    "label_conflict": "context and response of an earlier example, another label",
    "duplicate": "context and response of an earlier example",
    "near_duplicate": "text almost that of an earlier utterance",
    "unsupported_label": "label that the task does not tell apart",
    "rationale_names_other": "rationale that names another label",
    "email_like": "text that looks like an e-mail address",
    "id_number_like": "text that looks like an ID number",
    "wechat_like": "text that looks like a WeChat name",
    "qq_like": "text that looks like a QQ number",
    "phone_like": "text that looks like a telephone number",
    "address_like": "text that looks like an address",
}
"""Kinds of hints, each with what it means."""

MENDS = {
    "label_conflict": "decide on one label",
    "duplicate": "remove one, or set data.duplicates=drop",
    "near_duplicate": "see whether one was copied; cv.group=session keeps sessions together",
    "unsupported_label": "training leaves it out; choose another task or a finer label",
    "rationale_names_other": "correct the label or the rationale",
    **dict.fromkeys(list(KINDS)[-6:], "replace it by a placeholder"),
}
"""What to do about each kind."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hint:
    """One thing that may be wrong; an id and numbers, never a text."""

    kind: str
    line: int
    id: str
    """Id of the utterance as messages may show it."""
    reason: str
    mend: str


class ConsistencyChecker:
    """Judges examples one by one, and against those before them.

    Args:
        task: Whose labels count; ``None`` leaves out what needs a taxonomy.
        near_duplicates: Least similarity of near-duplicates; ``None`` does not look for them.
        shortest: Characters of the shortest text that near-duplicates are looked for among.
    """

    def __init__(
        self, *, task: Task | None, near_duplicates: float | None = 0.8, shortest: int = 12
    ) -> None:
        self._task = task
        self._reader = None if task is None else LabelReader(task.taxonomy, task.labels)
        self._threshold = near_duplicates
        self._shortest = shortest
        self._first: dict[bytes, tuple[str, int, str | None]] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._labels_of_text: defaultdict[str, set[str]] = defaultdict(set)
        self._seen: set[str] = set()
        self._hints: list[Hint] = []

    def add(self, example: Example, line: int) -> None:
        """Judge one example of the row at ``line``."""
        name = _shown(example.id)
        self._repeats(example, name, line)
        self._label(example, name, line)
        self.add_text(example.response, example.id, line)
        self.add_text(example.rationale or "", example.id, line)
        text = " ".join(example.response.split()).lower()
        if example.label is not None:
            self._labels_of_text[text].add(example.label)
        if self._threshold is not None and len(text) >= self._shortest:
            self._places.setdefault(text, (name, line))

    def add_text(self, text: str, identifier: str, line: int) -> None:
        """Look for personal details in a text that is no example, such as a counsellor's turn."""
        for kind, n in _details(text).items():
            times = "" if n == 1 else f", {n} times"
            self._hint(f"{kind}_like", line, _shown(identifier), times)

    def add_history(self, example: Example, line: int) -> None:
        """Look for personal details in the turns before an utterance, once in each text."""
        for turn in example.history:
            if turn.text not in self._seen and _details(turn.text):
                self._seen.add(turn.text)
                self.add_text(turn.text, example.id, line)

    def hints(self) -> tuple[Hint, ...]:
        """Return everything found, by kind in the order of :data:`KINDS`, then by line."""
        order = {kind: place for place, kind in enumerate(KINDS)}
        found = [*self._hints, *self._near()]
        return tuple(sorted(found, key=lambda hint: (order[hint.kind], hint.line)))

    @property
    def texts_of_several_labels(self) -> int:
        """Different response texts that carry more than one label, whatever their contexts."""
        return sum(len(labels) > 1 for labels in self._labels_of_text.values())

    def _hint(self, kind: str, line: int, name: str, more: str = "") -> None:
        self._hints.append(
            Hint(
                kind=kind,
                line=line,
                id=name,
                reason=KINDS[kind] + more,
                mend=MENDS[kind],
            )
        )

    def _repeats(self, example: Example, name: str, line: int) -> None:
        first = self._first.setdefault(content_digest(example), (name, line, example.label))
        if first[:2] == (name, line):
            return
        where = f" (id {first[0]}, line {first[1]})"
        other = None not in (first[2], example.label) and first[2] != example.label
        self._hint("label_conflict" if other else "duplicate", line, name, where)

    def _label(self, example: Example, name: str, line: int) -> None:
        if self._task is None or self._reader is None or example.label is None:
            return
        gold = self._reader.label_at_or_above(example.label)
        if gold is None:
            self._hint("unsupported_label", line, name, f" ({example.label})")
        elif example.rationale:
            named = self._reader.named(example.rationale).label
            if named not in (None, gold):
                self._hint("rationale_names_other", line, name, f" ({named}, labelled {gold})")

    def _near(self) -> Iterator[Hint]:
        if self._threshold is None:
            return
        texts: Sequence[str] = list(self._places)
        places = list(self._places.values())
        for pair in find_near_duplicates(texts, threshold=self._threshold):
            (first, first_line), (second, line) = places[pair.first], places[pair.second]
            yield Hint(
                kind="near_duplicate",
                line=line,
                id=second,
                reason=f"{KINDS['near_duplicate']} (id {first}, line {first_line}; similarity "
                f"{pair.similarity:.2f})",
                mend=MENDS["near_duplicate"],
            )


def _shown(identifier: str) -> str:
    return quote_id(identifier).strip("'")


def count_hints(hints: Sequence[Hint]) -> dict[str, int]:
    """Return how many hints there are of every kind."""
    counts = Counter(hint.kind for hint in hints)
    return {kind: counts[kind] for kind in KINDS}


@lru_cache(maxsize=4096)
def _details(text: str) -> Counter[str]:
    return count_details(text)
