"""Texts that are almost the same: Jaccard similarity of character shingles, found by MinHash."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHINGLE_CHARACTERS = 3
BANDS, ROWS_A_BAND = 20, 4
"""A pair of similarity s is met with probability 1 - (1 - s^4)^20: 0.99997 at 0.8."""

MOST_COMPARED = 20
"""Texts of a bucket that each of its texts is compared with, at most; keeps time linear."""

LIKELIEST_COMPARED = 20
"""Candidates of a text between two parts that it is compared with, those in most buckets first."""

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

    Similarity is that of the sets of :data:`SHINGLE_CHARACTERS` neighbouring characters, case and
    white space apart: what both have over what either has (Jaccard). Only candidates are found by
    chance (MinHash, Broder 1997); their similarity is exact but for collisions of 22-bit hashes.
    The same texts always give the same pairs.

    Args:
        texts: Different from each other; at least :data:`SHINGLE_CHARACTERS` long.
        threshold: Least similarity.
    """
    if len(texts) < 2:
        return []
    starts, members = _shingles(texts)
    best: dict[int, NearPair] = {}
    for first, second in _candidates(starts, members):
        similarity = _jaccard(
            members[starts[first] : starts[first + 1]], members[starts[second] : starts[second + 1]]
        )
        known = best.get(second)
        if similarity >= threshold and (known is None or similarity > known.similarity):
            best[second] = NearPair(first=first, second=second, similarity=similarity)
    return [best[second] for second in sorted(best)]


class NearTexts:
    """Texts of which any part can be looked through for near-duplicates of any other part.

    Signatures are made once, so that every fold of a partition can be judged with them. Candidates
    are those that share a MinHash bucket, at most :data:`MOST_COMPARED` a bucket; the
    :data:`LIKELIEST_COMPARED` with most buckets in common are compared exactly.

    Args:
        texts: In any order; those without a shingle resemble nothing.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._starts, self._members = _shingles(texts) if texts else (_NONE, _NONE)
        rows = np.flatnonzero(np.diff(self._starts))
        self._buckets: dict[int, list[int]] = {}
        if len(rows):
            buckets = _shared_buckets(_signatures(self._starts, self._members, rows))
            self._buckets = dict(zip(rows.tolist(), buckets, strict=True))

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
        the order of either part, but for buckets that are full.

        Args:
            texts: Places of the texts to judge.
            others: Places of those to compare them with; a text is not compared with itself.
            threshold: Least similarity.
            accepted: Whether a pair of places may count at all.
        """
        buckets: dict[int, list[int]] = defaultdict(list)
        for other in others:
            for bucket in self._buckets.get(other, ()):
                if len(buckets[bucket]) < MOST_COMPARED:
                    buckets[bucket].append(other)
        found = {}
        for text in texts:
            shared: Counter[int] = Counter()
            for bucket in self._buckets.get(text, ()):
                shared.update(buckets.get(bucket, ()))
            shared.pop(text, None)
            for other, _ in shared.most_common(LIKELIEST_COMPARED):
                similarity = self._similarity(text, other)
                if similarity >= threshold and accepted(text, other):
                    first, second = sorted((text, other))
                    found[text] = NearPair(first=first, second=second, similarity=similarity)
                    break
        return found

    def _similarity(self, text: int, other: int) -> float:
        starts, members = self._starts, self._members
        return _jaccard(
            members[starts[text] : starts[text + 1]], members[starts[other] : starts[other + 1]]
        )


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


def _candidates(starts: NDArray[np.int32], members: NDArray[np.int32]) -> Iterator[tuple[int, int]]:
    """Yield pairs of rows that share a bucket, each once, the earlier row first."""
    rows = np.flatnonzero(np.diff(starts))
    signatures = _signatures(starts, members, rows)
    met: set[tuple[int, int]] = set()
    for band in range(BANDS):
        buckets: dict[bytes, list[int]] = defaultdict(list)
        part = np.ascontiguousarray(signatures[:, band * ROWS_A_BAND : (band + 1) * ROWS_A_BAND])
        for row, key in zip(rows.tolist(), part, strict=True):
            bucket = buckets[key.tobytes()]
            for other in bucket:
                if (other, row) not in met:
                    met.add((other, row))
                    yield other, row
            if len(bucket) < MOST_COMPARED:
                bucket.append(row)


def _signatures(
    starts: NDArray[np.int32], members: NDArray[np.int32], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return ``(rows, hashes)``: the least value of each hash function over a row's shingles."""
    random = np.random.default_rng(0)
    n_hashes = BANDS * ROWS_A_BAND
    factors = random.integers(1, _PRIME, n_hashes, dtype=np.int64)
    shifts = random.integers(0, _PRIME, n_hashes, dtype=np.int64)
    values = members.astype(np.int64) + 1
    # A row without shingles would make reduceat read its neighbour's: such rows are left out.
    begins = starts[:-1][rows]
    return np.stack(
        [
            np.minimum.reduceat((values * factor + shift) % _PRIME, begins)
            for factor, shift in zip(factors, shifts, strict=True)
        ],
        axis=1,
    )


def _jaccard(left: NDArray[np.int32], right: NDArray[np.int32]) -> float:
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / (len(left) + len(right) - shared)
