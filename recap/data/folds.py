"""The one partition of a data set: stratified folds that keep together what belongs together.

Folds are drawn over every labeled example before any task selects its own, so that fold ``k`` of
one task is a part of fold ``k`` of every other. The unit that is dealt out is never a row: it is a
set of examples that must stay together. One rule deals them, largest first: each goes to the fold
that holds the least of the labels it brings. Where units are single examples this spreads every
class, and the whole, to within one example, as scikit-learn's ``StratifiedKFold`` does; unlike it
and ``StratifiedGroupKFold`` it also takes classes that are smaller than the number of folds, all of
them at once if need be, and never leaves a fold empty.
"""

from __future__ import annotations

import hashlib
import json
import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from recap.config import FoldGroup, SelectionProtocol
from recap.data.examples import over_history
from recap.errors import ConfigError, DataError, quote_id
from recap.records import Example, Fold, Turn

SELECT_PARTS = 10
"""``protocol="nested"`` selects on one of so many parts of the training folds; our own choice."""

MAX_IDS_NAMED = 5
"""An error names this many examples and counts the others."""

HASH_CHARACTERS = 16
"""Length of a hash as manifests show it (64 bits)."""


def split_folds(
    examples: Sequence[Example],
    *,
    n_folds: int,
    seed: int,
    group: FoldGroup | None = None,
    protocol: SelectionProtocol = "paper",
) -> tuple[Fold, ...]:
    """Return ``n_folds`` folds over the labeled examples, the same ones for any order of the rows.

    Stratified over ``Example.label``. Examples with equal (context, response) never come to lie in
    two folds, nor do those of one session or client when ``group`` asks for it. Examples without a
    label are in no fold.

    Args:
        examples: The whole data set; folds hold indices into it, in ascending order.
        n_folds: At least 2, at most the number of units (distinct examples, sessions or clients).
        seed: Another seed gives another partition.
        group: What must not straddle folds, beside duplicates.
        protocol: ``"paper"`` selects the checkpoint on the test fold itself (Section 5.2);
            ``"nested"`` on about a tenth of the training folds, stratified and grouped alike, at
            least one example a class where the class has one to spare. The test folds are the same
            under both.

    Raises:
        ConfigError: For a number of folds that cannot be had, or when ``"nested"`` has nothing to
            set aside.
        DataError: When no example has a label, or a labeled one lacks the value to group by.
    """
    if n_folds < 2:
        raise ConfigError(
            f"cv.folds={n_folds}: cross-validation needs at least 2 folds; use cv.folds=2 or more, "
            "or cv.fold=final for one model on all data"
        )
    units = _units(examples, group)
    if n_folds > len(units):
        what = "distinct examples" if group is None else f"{group}s that share no example"
        hint = f"use cv.folds={len(units)} or fewer" if len(units) >= 2 else "add data"
        raise ConfigError(
            f"cv.folds={n_folds}: there are only {len(units)} {what}; {hint}, or cv.fold=final "
            "for one model on all data"
        )
    counts = [Counter(str(examples[i].label) for i in unit) for unit in units]
    dealt = _deal(counts, n_folds, random.Random(f"folds {seed}"))
    return tuple(_fold(index, units, counts, dealt, seed, protocol) for index in range(n_folds))


def content_key(example: Example) -> str:
    """Return a hash that two examples share exactly when context and response are equal.

    The context is the speakers and texts of the history; ids, labels and sessions play no part, nor
    does white space, which no prompt shows as it stood.
    """
    # The hash of the JSON of [[[speaker, text], ...], response], turn by turn.
    before = over_history(example.history, "content_key", _NO_TURNS, _with_turn).copy()
    before.update(f"], {json.dumps(_shown(example.response))}]".encode("ascii"))
    return before.hexdigest()


_NO_TURNS = hashlib.sha256(b"[[")


def _with_turn(before: Any, turn: Turn) -> Any:
    state = before.copy()
    state.update(_written(turn.voice, turn.text, first=before is _NO_TURNS))
    return state


@lru_cache(maxsize=8192)
def _written(voice: str, text: str, *, first: bool) -> bytes:
    written = json.dumps([voice, _shown(text)])
    return (written if first else f", {written}").encode("ascii")


def _shown(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def partition_hash(examples: Sequence[Example], folds: Sequence[Fold]) -> str:
    """Return a hash of which example is tested in which fold, whatever the order of the rows.

    It depends on contents and fold numbers alone, not on ids, so runs of different tasks over one
    partition share it. How a fold selects its checkpoint is no part of it.
    """
    rows = [f"{content_key(examples[i])} {fold.index}" for fold in folds for i in fold.test]
    return _digest("\n".join(sorted(rows)))[:HASH_CHARACTERS]


def data_hash(examples: Sequence[Example]) -> str:
    """Return a hash of every example: id, session, client, texts, label and rationale.

    The order of the rows plays no part.
    """
    rows = [
        json.dumps([e.id, e.session, e.client, content_key(e), e.label, e.rationale])
        for e in examples
    ]
    return _digest("\n".join(sorted(rows)))[:HASH_CHARACTERS]


def _digest(text: str) -> str:
    # Cannot fail: json.dumps has escaped all that is not ASCII, lone surrogates included.
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _units(examples: Sequence[Example], group: FoldGroup | None) -> list[tuple[int, ...]]:
    """Return the sets of labeled examples that must stay together.

    The sets come in an order that does not depend on that of the rows.
    """
    labeled = [i for i, example in enumerate(examples) if example.label is not None]
    if not labeled:
        raise DataError(
            f"none of the {len(examples)} examples has a label, and folds are stratified over "
            "labels; give a labeled data set"
        )
    keys = {i: content_key(examples[i]) for i in labeled}
    labeled.sort(key=lambda i: (keys[i], examples[i].id, str(examples[i].label)))
    parent = {i: i for i in labeled}

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    ties = [keys] if group is None else [keys, _group_values(examples, labeled, group)]
    for tie in ties:
        first: dict[str, int] = {}
        for i in labeled:
            parent[root(i)] = root(first.setdefault(tie[i], i))
    members: dict[int, list[int]] = {}
    for i in labeled:
        members.setdefault(root(i), []).append(i)
    return [tuple(unit) for unit in members.values()]


def _group_values(
    examples: Sequence[Example], indices: Sequence[int], group: FoldGroup
) -> dict[int, str]:
    values = {i: getattr(examples[i], group) for i in indices}
    missing = sorted(examples[i].id for i, value in values.items() if not value)
    if missing:
        named = ", ".join(f"id {quote_id(name)}" for name in missing[:MAX_IDS_NAMED])
        more = len(missing) - MAX_IDS_NAMED
        raise DataError(
            f"cv.group={group}: {len(missing)} examples have no {group!r}: {named}"
            f"{f' and {more} more' if more > 0 else ''}; fill the field {group!r} in the data, "
            "or use cv.group=null"
        )
    return {i: str(value) for i, value in values.items()}


def _deal(counts: Sequence[Counter[str]], n_folds: int, rng: random.Random) -> list[int]:
    """Return the fold of each unit; ``counts`` holds the labels of its examples."""
    totals = _summed(counts)
    order = list(range(len(counts)))
    rng.shuffle(order)
    # Label by label among units of one size: only then do the totals stay level too.
    order.sort(key=lambda unit: (-counts[unit].total(), min(counts[unit])))
    held = {label: [0] * n_folds for label in totals}
    sizes = [0] * n_folds
    dealt = [0] * len(counts)
    for unit in order:
        alike = [0.0] * n_folds
        for label, n in sorted(counts[unit].items()):
            share = n / totals[label]
            alike = [a + share * h for a, h in zip(alike, held[label], strict=True)]
        _, _, fold = min(zip(alike, sizes, range(n_folds), strict=True))
        dealt[unit] = fold
        sizes[fold] += counts[unit].total()
        for label, n in counts[unit].items():
            held[label][fold] += n
    return dealt


def _summed(counts: Iterable[Counter[str]]) -> Counter[str]:
    return Counter(label for count in counts for label in count.elements())


def _fold(
    index: int,
    units: Sequence[tuple[int, ...]],
    counts: Sequence[Counter[str]],
    dealt: Sequence[int],
    seed: int,
    protocol: SelectionProtocol,
) -> Fold:
    def rows(chosen: Sequence[int]) -> tuple[int, ...]:
        return tuple(sorted(i for unit in chosen for i in units[unit]))

    test = [unit for unit, fold in enumerate(dealt) if fold == index]
    train = [unit for unit, fold in enumerate(dealt) if fold != index]
    if protocol == "paper":
        return Fold(index=index, train=rows(train), select=rows(test), test=rows(test))
    rng = random.Random(f"selection {seed} {index}")
    rng.shuffle(train)
    select = _set_aside({unit: counts[unit] for unit in train}, rng)
    if not select:
        raise ConfigError(
            f"cv.protocol=nested: the training part of fold {index} has no class that can spare an "
            "example; use cv.protocol=paper or add data"
        )
    kept = [unit for unit in train if unit not in select]
    return Fold(index=index, train=rows(kept), select=rows(sorted(select)), test=rows(test))


def _set_aside(counts: Mapping[int, Counter[str]], rng: random.Random) -> set[int]:
    """Return the units to select on: about a tenth of every class, at least one, never all."""
    units = list(counts)
    parts = min(SELECT_PARTS, len(units))
    dealt = _deal([counts[unit] for unit in units], parts, rng)
    left = _summed(counts.values())
    chosen: set[int] = set()

    def take(unit: int) -> None:
        # A class whose last examples would leave training stays there: it must be learned first.
        if unit not in chosen and all(left[label] > n for label, n in counts[unit].items()):
            chosen.add(unit)
            left.subtract(counts[unit])

    # The last part is dealt the smallest units, which matters when there are only a few sessions.
    for unit, part in zip(units, dealt, strict=True):
        if part == parts - 1:
            take(unit)
    by_size = sorted(units, key=lambda unit: counts[unit].total())
    for label in sorted(left, key=lambda label: (left[label], label)):
        for unit in (unit for unit in by_size if counts[unit][label]):
            if any(counts[other][label] for other in chosen):
                break
            take(unit)
    return chosen
