"""What the test part of a fold shares with the data that shaped its model: ``leakage.json``.

Texts that are almost the same are found by MinHash over character shingles, and compared by Jaccard
similarity. As exact duplicates are judged on context and response together, so are near ones:
"Yeah." after another question is another example. Of the context the counselor's words right before
the response count, so that a dialogue that was cut elsewhere, or begins with another greeting,
still resembles its copy.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recap.data.folds import content_key
from recap.records import Example, Fold
from recap.tasks.task import intervention

SHINGLE_CHARACTERS = 3
BANDS, ROWS_A_BAND = 20, 4
"""A pair of similarity s is met with probability 1 - (1 - s^4)^20: 0.99997 at 0.8."""

MOST_COMPARED = 20
"""Texts of a bucket that each of its texts is compared with, at most; keeps time linear."""

LIKELIEST_COMPARED = 20
"""Candidates of a text that it is compared with, those in most buckets first."""

_PRIME = (1 << 31) - 1
_FEATURES = 1 << 22
_NONE = np.zeros(1, dtype=np.int32)


@dataclass(frozen=True, kw_only=True, slots=True)
class NearPair:
    """Two texts, by their places (``first`` before ``second``), and how similar they are."""

    first: int
    second: int
    similarity: float


def find_near_duplicates(texts: Sequence[str], *, threshold: float = 0.8) -> list[NearPair]:
    """Return, for each text that resembles earlier ones, the pair with the most similar it met.

    Similarity is that of the sets of :data:`SHINGLE_CHARACTERS` neighboring characters, case and
    white space apart: what both have over what either has (Jaccard). Only candidates are found by
    chance (MinHash, Broder 1997); their similarity is exact but for collisions of 22-bit hashes.
    The same texts always give the same pairs. Texts have to differ from each other, and to have
    :data:`SHINGLE_CHARACTERS` or more.
    """
    return NearTexts(texts).among_earlier(threshold) if len(texts) > 1 else []


class NearTexts:
    """Texts of which any part can be looked through for near-duplicates of any other part.

    Signatures are made once, so that every fold of a partition can be judged with them. Candidates
    are those that share a MinHash bucket, at most :data:`MOST_COMPARED` a bucket; the
    :data:`LIKELIEST_COMPARED` with most buckets in common are compared exactly. Texts without a
    shingle resemble nothing.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._starts, self._members = _shingles(texts) if texts else (_NONE, _NONE)
        # The shingles of the text that was compared last: ten times as fast as to sort for each
        # pair what both have.
        self._marks = np.zeros(_FEATURES, dtype=np.bool_)
        self._marked: int | None = None
        rows = np.flatnonzero(np.diff(self._starts))
        self._buckets: dict[int, list[int]] = {}
        if len(rows):
            buckets = _shared_buckets(_signatures(self._starts, self._members, rows))
            self._buckets = dict(zip(rows.tolist(), buckets, strict=True))

    def among_earlier(self, threshold: float) -> list[NearPair]:
        """Return, for each text that resembles earlier ones, the pair with the most similar met."""
        buckets: dict[int, list[int]] = defaultdict(list)
        found = []
        for text in self._buckets:
            pairs = list(self._alike(text, buckets, threshold))
            if pairs:
                found.append(max(pairs, key=lambda pair: pair.similarity))
            self._put(text, buckets)
        return found

    def nearest(
        self,
        texts: Sequence[int],
        others: Sequence[int],
        *,
        threshold: float,
        accepted: Callable[[int, int], bool] = lambda text, other: True,
    ) -> dict[int, NearPair]:
        """Return, for each text that resembles one of the others, a pair of it with one of them.

        The first one found of its likeliest candidates; which texts are found does not depend on
        the order of either part, but for buckets that are full. All are places of texts; a text is
        not compared with itself, and a pair counts only where it is ``accepted``.
        """
        buckets: dict[int, list[int]] = defaultdict(list)
        for other in others:
            self._put(other, buckets)
        found = {}
        for text in texts:
            pairs = self._alike(text, buckets, threshold)
            pair = next((one for one in pairs if accepted(one.first, one.second)), None)
            if pair is not None:
                found[text] = pair
        return found

    def _put(self, text: int, buckets: dict[int, list[int]]) -> None:
        for bucket in self._buckets.get(text, ()):
            if len(buckets[bucket]) < MOST_COMPARED:
                buckets[bucket].append(text)

    def _alike(
        self, text: int, buckets: Mapping[int, Sequence[int]], threshold: float
    ) -> Iterator[NearPair]:
        """Yield a text's pairs with those that share most of its buckets, where they are alike."""
        shared: Counter[int] = Counter()
        for bucket in self._buckets.get(text, ()):
            shared.update(buckets.get(bucket, ()))
        shared.pop(text, None)
        for other, _ in shared.most_common(LIKELIEST_COMPARED):
            similarity = self._similarity(text, other)
            if similarity >= threshold:
                first, second = sorted((text, other))
                yield NearPair(first=first, second=second, similarity=similarity)

    def _similarity(self, text: int, other: int) -> float:
        left, right = self._shingles_of(text), self._shingles_of(other)
        if self._marked != text:
            if self._marked is not None:
                self._marks[self._shingles_of(self._marked)] = False
            self._marks[left] = True
            self._marked = text
        shared = int(np.count_nonzero(self._marks[right]))
        return shared / (len(left) + len(right) - shared)

    def _shingles_of(self, text: int) -> NDArray[np.int32]:
        return self._members[self._starts[text] : self._starts[text + 1]]


def _shingles(texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return where each text's shingles start, and the hashes of all of them, sorted in a text."""
    from sklearn.feature_extraction.text import (  # type: ignore[import-untyped]
        HashingVectorizer,
    )

    vectorizer = HashingVectorizer(
        analyzer="char",
        ngram_range=(SHINGLE_CHARACTERS, SHINGLE_CHARACTERS),
        n_features=_FEATURES,
        binary=True,
        norm=None,
        alternate_sign=False,
        dtype=np.float32,
    )
    shingles = vectorizer.transform(texts)
    shingles.sort_indices()
    return shingles.indptr, shingles.indices


def _shared_buckets(signatures: NDArray[np.int64]) -> list[list[int]]:
    """Return for each row the numbers of its buckets, one a band, that another row shares."""
    buckets: list[list[int]] = [[] for _ in signatures]
    n_before = 0
    for band in range(BANDS):
        part = np.ascontiguousarray(signatures[:, band * ROWS_A_BAND : (band + 1) * ROWS_A_BAND])
        keys = part.view([("", part.dtype)] * ROWS_A_BAND).ravel()
        _, numbers, sizes = np.unique(keys, return_inverse=True, return_counts=True)
        for row in np.flatnonzero(sizes[numbers] > 1).tolist():
            buckets[row].append(n_before + int(numbers[row]))
        n_before += len(sizes)
    return buckets


def _signatures(
    starts: NDArray[np.int32], members: NDArray[np.int32], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return ``(rows, hashes)``: the least value of each hash function over a row's shingles."""
    random = np.random.default_rng(0)
    n_hashes = BANDS * ROWS_A_BAND
    factors = random.integers(1, _PRIME, n_hashes, dtype=np.int64)
    shifts = random.integers(0, _PRIME, n_hashes, dtype=np.int64)
    values = members.astype(np.int64) + 1
    # A row without shingles would make reduceat read its neighbor's: such rows are left out.
    begins = starts[:-1][rows]
    return np.stack(
        [
            np.minimum.reduceat((values * factor + shift) % _PRIME, begins)
            for factor, shift in zip(factors, shifts, strict=True)
        ],
        axis=1,
    )


SIMILARITY = 0.8
"""Least Jaccard similarity of the character trigrams of intervention and response together."""

RESPONSE_SIMILARITY = 0.5
"""Least similarity of the responses alone: the same question may get opposite answers."""

SHORTEST = 20
"""Characters of intervention and response together; shorter exchanges are anybody's."""


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split()).casefold()


def _trigrams(text: str) -> set[str]:
    return {text[start : start + 3] for start in range(max(len(text) - 2, 1))}


MAX_IDS_LISTED = 50
"""Ids listed under each heading; the count beside them is always the full one."""


def leakage_report(examples: Sequence[Example], folds: Sequence[Fold]) -> Mapping[str, Any]:
    """Return, for every fold, what its test examples share with training and selection examples.

    A split by utterance shares much: the history of one turn holds the turn before it word for
    word, and that turn may be tested. Counts are of test examples; no text is in the report.

    Returns:
        A mapping that JSON can hold: ``examples``, ``in_folds``, ``without_session``,
        ``without_client`` (of those in folds; sharing cannot be judged for them),
        ``near_duplicates`` (what is taken for one: thresholds of :mod:`recap.data.leakage`),
        ``repeats`` (examples in folds with the (context, response) of an earlier one, whether or
        not on the same side),
        and ``folds``, each with its sizes and

        - ``duplicates``: test examples whose (context, response) is also trained on;
        - ``near_duplicates``: test examples that are nearly the same as one that is trained on;
        - ``shared_sessions``, ``shared_clients``: how many of either lie on both sides (``count``),
          and the test examples in them;
        - ``history_overlap``: test examples whose response stands verbatim as a client turn in the
          history of a training example of the same session, or the other way round.
    """
    overlap = _Overlap(examples)
    inside = {i for fold in folds for i in (*fold.train, *fold.select, *fold.test)}
    return {
        "examples": len(examples),
        "in_folds": len(inside),
        "without_session": sum(not examples[i].session for i in inside),
        "without_client": sum(not examples[i].client for i in inside),
        "ids_listed_at_most": MAX_IDS_LISTED,
        "repeats": overlap.listed(overlap.repeats(sorted(inside))),
        "near_duplicates": {
            "similarity": SIMILARITY,
            "response_similarity": RESPONSE_SIMILARITY,
            "shortest_characters": SHORTEST,
        },
        "folds": [
            {
                "fold": fold.index,
                "train": len(fold.train),
                "select": len(fold.select),
                "test": len(fold.test),
                # Under the paper's protocol the selection part is the test part itself and shares
                # nothing new.
                **overlap.shared(sorted({*fold.train, *fold.select} - set(fold.test)), fold.test),
            }
            for fold in folds
        ],
    }


def with_shots(
    report: Mapping[str, Any],
    examples: Sequence[Example],
    folds: Sequence[Fold],
    shots: Mapping[int, Sequence[Example]],
) -> Mapping[str, Any]:
    """Return a leakage report that also holds what the solved examples of prompts share.

    A prompted system has seen nothing but these. Each fold gets ``shots``: their ``ids``,
    ``in_test`` (those that are test examples themselves), and the headings of
    :func:`leakage_report`, counting test examples that share something with a shot. ``shots`` holds
    the solved examples by the index of their fold.
    """
    overlap = _Overlap(examples)
    places = {example.id: place for place, example in enumerate(examples)}
    reports = {fold["fold"]: dict(fold) for fold in report["folds"]}
    for fold in folds:
        shown = [places[shot.id] for shot in shots[fold.index]]
        reports[fold.index]["shots"] = {
            "ids": [shot.id for shot in shots[fold.index]],
            "in_test": overlap.listed(set(shown) & set(fold.test)),
            **overlap.shared(shown, fold.test),
        }
    return {**report, "folds": list(reports.values())}


class _Overlap:
    """Finds what test examples share with examples that a model has seen."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples
        # Equal keys are exact duplicates.
        self._keys = [content_key(example) for example in examples]
        self._responses: list[str] = []
        self._place: dict[int, int] = {}
        places: dict[str, int] = {}
        for index, example in enumerate(examples):
            before = " ".join(turn.text for turn in intervention(example.history))
            response = _plain(example.response)
            text = f"{_plain(before)} {response}".strip()
            if len(text) < SHORTEST:
                continue
            if text not in places:
                places[text] = len(self._responses)
                self._responses.append(response)
            self._place[index] = places[text]
        self._near = NearTexts(list(places))

    def repeats(self, indices: Sequence[int]) -> list[int]:
        """Return those of the indices whose context and response an earlier one has too."""
        first: dict[str, int] = {}
        return [i for i in indices if first.setdefault(self._keys[i], i) != i]

    def shared(self, seen: Sequence[int], test: Sequence[int]) -> dict[str, Any]:
        """Return a heading for each kind; both parts are indices into the examples."""
        examples, keys = self._examples, self._keys
        seen_keys = {keys[i] for i in seen}
        return {
            "duplicates": self.listed([i for i in test if keys[i] in seen_keys]),
            "near_duplicates": self.listed(self._near_duplicates(test, seen)),
            "shared_sessions": self._shared("session", seen, test),
            "shared_clients": self._shared("client", seen, test),
            "history_overlap": self.listed(_history_overlap(examples, seen, test)),
        }

    def listed(self, indices: Collection[int]) -> dict[str, Any]:
        """Return how many examples there are, and the ids of the first."""
        ids = sorted(self._examples[i].id for i in indices)
        return {"count": len(ids), "ids": ids[:MAX_IDS_LISTED]}

    def _shared(self, key: str, seen: Sequence[int], test: Sequence[int]) -> dict[str, int]:
        trained, tested = ([getattr(self._examples[i], key) for i in part] for part in (seen, test))
        known = set(trained)
        inside = [value for value in tested if value and value in known]
        return {"count": len(set(inside)), "test_examples": len(inside)}

    def _near_duplicates(self, test: Sequence[int], seen: Sequence[int]) -> list[int]:
        """Return the test examples that resemble one of those seen, in the order given.

        Both are indices into the examples. An exact duplicate alone does not count, nor does an
        example that is on both sides.
        """
        keys_of_text: dict[int, set[str]] = defaultdict(set)
        for index in seen:
            if index in self._place:
                keys_of_text[self._place[index]].add(self._keys[index])
        places = list(dict.fromkeys(self._place[i] for i in test if i in self._place))
        found = self._near.nearest(
            places, list(keys_of_text), threshold=SIMILARITY, accepted=self._responses_alike
        )
        return [
            index
            for index in test
            if index in self._place
            and (
                self._place[index] in found
                # The same words after another history.
                or keys_of_text.get(self._place[index], set()) - {self._keys[index]}
            )
        ]

    def _responses_alike(self, text: int, other: int) -> bool:
        left, right = _trigrams(self._responses[text]), _trigrams(self._responses[other])
        return len(left & right) >= RESPONSE_SIMILARITY * len(left | right)


def _history_overlap(
    examples: Sequence[Example], seen: Sequence[int], test: Sequence[int]
) -> list[int]:
    responses: dict[str, set[str]] = {}
    histories: dict[str, set[str]] = {}
    for i in seen:
        session = examples[i].session
        if session:
            responses.setdefault(session, set()).add(examples[i].response)
            histories.setdefault(session, set()).update(_client_texts(examples[i]))
    found = []
    for i in test:
        session = examples[i].session
        if not session or session not in responses:
            continue
        backward = examples[i].response in histories[session]
        if backward or not responses[session].isdisjoint(_client_texts(examples[i])):
            found.append(i)
    return found


def _client_texts(example: Example) -> list[str]:
    return [turn.text for turn in example.history if turn.speaker == "client"]
