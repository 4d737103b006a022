"""What is wrong with the rows of a file, without repeating what a client wrote.

Among it: texts that no model or table can take, and names that were used already.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from recap.data.names import identity, is_missing
from recap.errors import DataError, did_you_mean, quote_cell
from recap.tasks.library import tasks_that_know
from recap.taxonomy import Taxonomy

LISTED_FAULTS = 20
"""Faults that one error message lists; the rest are only counted."""


def listed(faults: Sequence[object], n: int | None = None) -> str:
    """Return a line for each of the first faults, and how many of all ``n`` follow."""
    more = (len(faults) if n is None else n) - len(faults[:LISTED_FAULTS])
    tail = [f"  and {more} more"] if more > 0 else []
    return "\n".join([*(f"  {fault}" for fault in faults[:LISTED_FAULTS]), *tail])


@dataclass(frozen=True, kw_only=True, slots=True)
class RowIssue:
    """One reason why one row was rejected; ``str()`` gives ``file:line: field: reason, mend``."""

    file: str
    line: int
    """First line of the row, counted from 1; in a spreadsheet, the row's number."""
    field: str
    reason: str
    hint: str
    """What to do about it."""
    rows: int = 1
    """Rows of the file that are lost with it; none where only something before it is missing."""

    def as_json(self) -> dict[str, str | int]:
        """Return the issue as files of results hold it; there the hint is called ``mend``."""
        shown = {key: getattr(self, key) for key in ("file", "line", "field", "reason")}
        return {**shown, "mend": self.hint}

    def __str__(self) -> str:
        """Return the line that users see."""
        return f"{self.file}:{self.line}: {self.field}: {self.reason}, {self.hint}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a record, or one turn of it, stands: its first line, and how many rows make it up."""

    line: int
    rows: int = 1
    gap: bool | None = None
    """Whether something before it is missing; ``None``: where a row before it was rejected."""


class Line(int):
    """The line that a row begins on where others do too, as in a JSON list written on one line."""

    item: int
    """Index of the row in that list."""

    def __new__(cls, line: int, *, item: int) -> Line:
        """Return a line that knows which of its rows is meant."""
        row = super().__new__(cls, line)
        row.item = item
        return row

    def __getnewargs_ex__(self) -> tuple[tuple[int], dict[str, int]]:
        """Return what a copy is made of."""
        return (int(self),), {"item": self.item}


_RowKey = tuple[int, int | None]


def _key(line: int) -> _RowKey:
    return int(line), line.item if isinstance(line, Line) else None


class IssueLog:
    """What a reader reports: rows met, rows rejected and why, and anything else it counts.

    A reader calls :meth:`row` for every row, then either :meth:`reject` or, before it yields a
    record, :meth:`at` or :meth:`at_turns`, so that faults found later still name the right line. A
    reader that makes its records up calls none of them; each record then counts as one row.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self._issues: list[RowIssue] = []
        self.n_faults = 0
        """Faults noted, each value that is not known among them in every row."""
        self.unrecognized = ""
        """Which columns a table seems to lack, as a sentence that comes before its faults."""
        self.counts: Counter[str] = Counter()
        self.rows_read = 0
        self._rejected: dict[_RowKey, int] = {}
        self._values: dict[tuple[str, str, str, str], tuple[int, Counter[str]]] = {}
        self._rejected_and_taken = 0
        self._places: tuple[Place, ...] = ()
        self._by_turn = False
        self._forms = FirstLines()
        self._last: dict[str, tuple[str, str]] = {}
        self.twins: dict[str, None] = {}
        """Names that are written in two forms."""
        self.taxonomy: Taxonomy | None = None
        """Whose labels the rows carry, where they are those of a task."""
        self.cut: Counter[tuple[str, ...]] = Counter()
        """Labels of rows that carry several, the one that was taken first."""
        self._several: dict[_RowKey, list[tuple[str, ...]]] = {}
        self.text_column: str | None = None
        """Name of the column that what is said came from, in tables."""
        self.turns: dict[str, Counter[str]] = {}
        """Turns of every file by who speaks."""
        self.lines: tuple[int, ...] = ()
        """Where the record that was read last stands: a line for each turn, or one for all."""

    @property
    def issues(self) -> list[RowIssue]:
        """The faults in the order in which they were met."""
        self._list_values()
        return self._issues

    @property
    def rows_rejected(self) -> int:
        """Rows that have at least one fault."""
        return self._rejected_and_taken + sum(self._rejected.values())

    def row(self) -> None:
        """Count one more row of the file."""
        self.rows_read += 1

    def name(self, role: str, written: str) -> str:
        """Return a name as it is compared, ``""`` for none; two forms of one name are counted.

        Names of two roles (``annotator``) are never compared.
        """
        # Rows of one session follow each other.
        last = self._last.get(role)
        if last is not None and last[0] == written:
            return last[1]
        name = "" if is_missing(written) else identity(written)
        self._last[role] = written, name
        form = _hash(written.strip()) % 2**32
        if name and self._forms.add(f"{role}\0{name}", form) != form:
            self.twins[name] = None
            self.counts["names_in_two_forms"] = len(self.twins)
        return name

    def several_labels(self, line: int, labels: Sequence[str]) -> None:
        """Note the labels of a row, the first of which is taken."""
        if len(labels) > 1:
            cut = (labels[0], *sorted(labels[1:]))
            self._several.setdefault(_key(line), []).append(cut)

    def count_cut(self, lines: Iterable[int]) -> None:
        """Count the accepted rows at these lines that carry more than the label taken."""
        # Raw ones are refused elsewhere where they may be texts.
        known = self.taxonomy.find if self.taxonomy else str
        for line in lines if self._several else ():
            for labels in self._several.pop(_key(line), ()):
                named = [known(one) or quote_cell(one).strip("'\"") for one in labels]
                self.cut[tuple(named)] += 1
                self.counts["multi_label"] += 1

    def missing_label(self, cell: str) -> bool:
        """Return whether a cell of labels holds none."""
        return is_missing(cell, self.taxonomy)

    def reject(self, line: int, field: str, reason: str, hint: str, *, rows: int = 1) -> None:
        """Note one fault of the row at ``line``; a row with several faults is rejected once.

        ``line`` is the first of the row, a :class:`Line` where several rows begin on it; ``field``
        the column or key at fault. The reason holds no client text. Several ``rows`` of the file
        are lost with it when one utterance has many annotators.
        """
        if isinstance(line, Line):
            field = f"[{line.item}]" if field == "row" else f"[{line.item}].{field}"
        self.n_faults += 1
        self._note(int(line), field, reason, hint, rows)
        self._lose(line, rows)

    def _note(self, line: int, field: str, reason: str, hint: str, rows: int = 1) -> None:
        issue = RowIssue(
            file=self.file, line=line, field=field, reason=reason, hint=hint, rows=rows
        )
        self._issues.append(issue)

    def _lose(self, line: int, rows: int) -> None:
        key = _key(line)
        self._rejected[key] = max(rows, self._rejected.get(key, 0))

    def reject_values(
        self,
        line: int,
        field: str,
        values: Counter[str],
        *,
        kind: str,
        known: str,
        hint: str,
        rows: int = 1,
    ) -> None:
        """Note that a row holds values that are not known; each is listed once for a whole file.

        ``values`` are no words of clients, each with the times that it occurs in the row, ``kind``
        says what they are (``unknown speakers``), and ``NAME`` in the hint stands for one of them.
        """
        self.n_faults += 1
        _, counts = self._values.setdefault((field, kind, known, hint), (line, Counter()))
        counts.update(values)
        self._lose(line, rows)

    def reject_label(
        self,
        line: int,
        field: str,
        label: str,
        taxonomy: Taxonomy,
        *,
        hint: str = "correct them, or add them to the taxonomy",
        rows: int = 1,
    ) -> None:
        """Note that a row holds a label that the taxonomy does not know, or refuses.

        ``hint`` counts where no other task knows the labels of the file.
        """
        refusal = taxonomy.refusal(label)
        self.reject_values(
            line,
            field,
            Counter([label.strip()]),
            kind=_UNKNOWN_LABELS if refusal is None else "refused labels",
            known=", ".join(c.name for c in taxonomy.categories) + f" (taxonomy {taxonomy.name!r})",
            hint=refusal or hint,
            rows=rows,
        )

    def _list_values(self) -> None:
        """Note the values that were not known, once each."""
        for (field, kind, known, hint), (line, counts) in self._values.items():
            # So many are no names, but the texts of an exchanged column.
            named, example = f"{len(counts)} different ones ({counts.total()})", "NAME"
            if len(counts) <= LISTED_FAULTS:
                listed = Counter[str]()
                for value, n in counts.items():
                    listed[quote_cell(value).strip("'\"")] += n
                labels = known.partition(" (")[0].split(", ") if kind == _UNKNOWN_LABELS else []
                close = {value: did_you_mean(value, labels) for value in listed}
                named = ", ".join(f"{v} ({n}){close[v]}" for v, n in listed.most_common())
                example = next((name for name in counts if name in listed), example)
            tasks = tasks_that_know(counts) if kind == _UNKNOWN_LABELS else []
            if tasks:
                hint = f"set {' or '.join(f'task={name}' for name in tasks)}, which knows them"
            item = f"[{line.item}]." if isinstance(line, Line) else ""
            fault = RowIssue(
                file=self.file,
                line=int(line),
                field=f"{item}{field}",
                reason=f"{kind}: {named}; known: {known}",
                hint=hint.replace("NAME", example),
            )
            later = (n for n, i in enumerate(self._issues) if i.file == self.file and i.line > line)
            self._issues.insert(next(later, len(self._issues)), fault)
        self._values = {}

    def begin(self, file: str) -> None:
        """Say that what follows is about another file."""
        self._list_values()
        self.file = file
        self._settle()

    def _settle(self) -> None:
        """Count the rows rejected so far, and forget which they are."""
        self._several = {}
        self._rejected_and_taken += sum(self._rejected.values())
        self._rejected = {}

    def count_turns(self, speakers: Iterable[str]) -> None:
        """Count turns of the file by who speaks: ``counselor``, ``client`` or ``other``."""
        self.turns.setdefault(self.file, Counter()).update(speakers)

    def rejected_lines(self) -> list[int]:
        """Return the lines of rows that were rejected since the file, or a piece of it, began."""
        return [line for line, _ in self._rejected]

    def at(self, line: int, *, rows: int = 1) -> None:
        """Say that the record about to be yielded is the row at ``line``, one of ``rows``."""
        self._places, self._by_turn = (Place(line=line, rows=rows),), False

    def at_turns(self, places: Sequence[Place]) -> None:
        """Say that each turn of the dialogue about to be yielded has rows of its own."""
        self._places, self._by_turn = tuple(places), True

    def take_places(self) -> tuple[tuple[Place, ...], bool]:
        """Return where the record just yielded stands, and whether that is one place a turn.

        Counts a row of its own for a record whose reader named no place.
        """
        if not self._places:
            self.row()
            self.at(self.rows_read)
        places, self._places = self._places, ()
        return places, self._by_turn

    def take(self) -> list[RowIssue]:
        """Return the faults noted since the last call, and forget all but their number.

        For files of any size; to be called only between two records.
        """
        if not self._issues:
            return []  # values that are not known come at the end of a file
        taken, self._issues = self._issues, []
        self._settle()
        return taken

    def error(self) -> DataError:
        """Return the error that lists the first faults and counts the others."""
        return rows_error(
            self.file,
            self.issues,
            rows_rejected=self.rows_rejected,
            rows_read=self.rows_read,
            unrecognized=self.unrecognized,
        )


_UNKNOWN_LABELS = "unknown labels"

_LISTED_FILES = 3
_LISTED_CUTS = 10


def cut_notes(cut: Mapping[tuple[str, ...], int]) -> list[str]:
    """Return a sentence on the labels of rows that carry several, of which one was taken.

    >>> cut_notes({("Blaming", "Excusing"): 2})
    ['labels that were cut to the first: Blaming + Excusing (2)']
    """
    often = sorted(cut.items(), key=lambda pair: (-pair[1], pair[0]))
    listed = [f"{' + '.join(labels)} ({n})" for labels, n in often[:_LISTED_CUTS]]
    listed += [f"{len(cut) - _LISTED_CUTS} more combinations"] if len(cut) > _LISTED_CUTS else []
    return [f"labels that were cut to the first: {', '.join(listed)}"] if cut else []


def cut_figures(cut: Mapping[tuple[str, ...], int]) -> dict[str, Any]:
    """Return how many rows were cut to one label, and which labels they carry."""
    often = sorted(cut.items(), key=lambda pair: (-pair[1], pair[0]))
    return {
        "rows": sum(cut.values()),
        "combinations": [{"taken": c[0], "others": [*c[1:]], "rows": n} for c, n in often],
    }


def turn_notes(turns: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return a sentence on who speaks in each file, of many files one on all of them.

    Folders are not named: summaries, which are passed on, hold these notes.

    >>> turn_notes({"talks/a.txt": {"counselor": 2, "client": 3}})
    ['a.txt: 2 counselor, 3 client and 0 other turns']
    """
    if len(turns) > _LISTED_FILES:
        total: Counter[str] = Counter()
        for counts in turns.values():
            total.update(counts)
        turns = {f"{len(turns)} files": total}
    return [
        f"{Path(file).name}: {counts.get('counselor', 0)} counselor, "
        f"{counts.get('client', 0)} client and {counts.get('other', 0)} other turns"
        for file, counts in turns.items()
    ]


def rows_error(
    file: str,
    faults: Sequence[RowIssue],
    *,
    rows_rejected: int,
    rows_read: int,
    n_faults: int | None = None,
    unrecognized: str = "",
) -> DataError:
    """Return the error that lists the first faults of a file's rows and counts the others."""
    lost, lines = f"{rows_rejected} of {rows_read} rows cannot be used", listed(faults, n_faults)
    if unrecognized:
        return DataError(f"{file}: {unrecognized}; as it is, {lost}:\n{lines}")
    some = ", or leave them out with data.on_error=skip" if rows_rejected < rows_read else ""
    said = lost if rows_rejected else "its rows are not complete"
    return DataError(f"{file}: {said}:\n{lines}\nmend them{some}")


LONGEST_TEXT = 131_072
"""Characters of one text: more than two hours of speech, and what Python's CSV reader takes."""

ERROR_CELLS = frozenset({"#DIV/0!", "#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!"})
"""What a spreadsheet shows instead of a text that it took for a formula."""

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")


def damage(text: str) -> tuple[str, str] | None:
    """Return what is broken about a text and what to do, ``None`` for a sound one."""
    if "\0" in text:
        return "holds a NUL character", "remove it"
    if _HALF_CHARACTER.search(text):
        return "holds half of a character (a lone surrogate)", "export the file again as UTF-8"
    return None


def name_damage(text: str) -> tuple[str, str] | None:
    """Return what is broken about a name or an id and what to do, ``None`` for a sound one."""
    if _CONTROL.search(text) and "\0" not in text:
        return "holds a control character", "remove it (was the file damaged?)"
    return damage(text)


def no_utterance(text: str) -> tuple[str, str] | None:
    """Return why a text can be no utterance, ``None`` where it can."""
    if text.strip() in ERROR_CELLS:
        return (
            f"is the error {text.strip()} of a spreadsheet",
            "write the words there again, in a cell formatted as text",
        )
    return too_long(len(text)) if len(text) > LONGEST_TEXT else damage(text)


def too_long(n: int) -> tuple[str, str]:
    """Return why a text of ``n`` characters is too long, and what to do."""
    return (
        f"has {n:,} characters, more than the {LONGEST_TEXT:,} of one text",
        "split it (is a whole file in one field?)",
    )


_MOST_FULL = 0.6
_SMALLEST = 1 << 10


class FirstLines:
    """The line at which each name was first met; 20 to 40 bytes a name, however long it is.

    Names are told apart by 64 bits of a hash. That two of ten million names share these has a
    probability of 3e-6.
    """

    def __init__(self) -> None:
        self._n = 0
        self._hashes = array("Q", [0]) * _SMALLEST
        self._lines = array("I", [0]) * _SMALLEST

    def find(self, name: str) -> int | None:
        """Return the line that ``name`` was first met at, ``None`` where it was not."""
        place = self._place(_hash(name))
        return self._lines[place] if self._hashes[place] else None

    def add(self, name: str, line: int) -> int:
        """Return the line that ``name`` was first met at: ``line`` when it is new."""
        value = _hash(name)
        place = self._place(value)
        if self._hashes[place]:
            return self._lines[place]
        self._hashes[place], self._lines[place] = value, line
        self._n += 1
        if self._n > _MOST_FULL * len(self._hashes):
            self._grow()
        return line

    def _place(self, value: int) -> int:
        """Return where a hash stands, or the free place where it would."""
        size = len(self._hashes)
        place = value % size
        while self._hashes[place] not in (0, value):
            place = (place + 1) % size
        return place

    def _grow(self) -> None:
        old = zip(self._hashes, self._lines, strict=True)
        size = 2 * len(self._hashes)
        self._hashes, self._lines = array("Q", [0]) * size, array("I", [0]) * size
        for value, line in old:
            if value:
                place = self._place(value)
                self._hashes[place], self._lines[place] = value, line


def _hash(name: str) -> int:
    """Return 64 bits of a hash, never 0, which marks a free place."""
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1
