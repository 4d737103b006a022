"""``action=validate``: every fault of every row, and what looks wrong in the others.

That is contradictions, repeats, labels, and texts that seem to identify a person, by their form.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import groupby, islice
from operator import attrgetter

from recap.corpus.describe import content_digest
from recap.corpus.options import CorpusConfig
from recap.corpus.sources import CorpusSource, find_task, open_source
from recap.data.corpus import account_notes
from recap.data.examples import client_turns, turn_id
from recap.data.issues import RowIssue, cut_figures, cut_notes, turn_notes
from recap.data.leakage import find_near_duplicates
from recap.errors import quote_id
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.records import Dialogue, Example
from recap.tasks.answer import LabelReader
from recap.tasks.task import Task

_SHORTHANDS = {
    "NDB": r"(?<!\d)",
    "NDA": r"(?!\d)",
    "PLACES": "路|街|大道|大街|巷|弄|胡同|小区|花园|新村|公寓",
    "STREETS": "(?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|Place"
    "|Square)",
}
# In the order in which they are looked for: what one has found is hidden from those after it.
# Numbers of residents of China are region, date of birth, sequence and check digit (GB 11643). A
# WeChat name after a Latin word has a digit or a dash; without one it is a word like any other.
_FORMS = {
    "email": r"[\w.+-]{1,64}@[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})+",
    "id_number": (
        r"NDB[1-9]\d{5}(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dx](?![\dx])"
        r"|NDB\d{3}-\d{2}-\d{4}NDA"
    ),
    "wechat": (
        r"(?:微信|薇信|威信|v信)[\s号码是为叫:=]{0,6}[a-z0-9][a-z0-9_-]{5,19}"
        r"|(?<![a-z])(?:wechat|weixin|vx|wx)(?:\s?(?:id|number|account))?\s{0,2}(?:is|号|是|:|=)?"
        r"\s{0,2}(?=[a-z_-]{0,19}\d|[a-z]{1,19}[_-])[a-z0-9][a-z0-9_-]{5,19}"
    ),
    "qq": (
        r"(?:(?<![a-z])qq|扣扣|企鹅)(?:\s?(?:id|number))?[\s号码是为:=]{0,6}(?:is\s)?"
        r"[1-9]\d{4,10}NDA"
    ),
    "phone": (
        r"NDB(?:\+?86[- ]?)?1[3-9]\d[- ]?\d{4}[- ]?\d{4}NDA"
        r"|NDB0\d{2,3}[- ]\d{7,8}NDA"
        r"|NDB(?:\+?1[-. ])?\(?\d{3}\)?[-. ]\d{3}[-. ]\d{4}NDA"
        r"|\+\d{1,3}(?:[- ]?\d{2,4}){2,5}NDA"
    ),
    "address": (
        r"[\u4e00-\u9fff](?:PLACES)\s?[\d一二三四五六七八九十百]{1,5}\s?(?:号|弄|栋|幢|单元)"
        r"|\d{1,4}\s?(?:号楼|栋|幢|单元)\s?[\d一二三四五六七八九十]{1,5}"
        r"|(?<![\w-])\d{1,5}\s(?-i:(?:[A-Z][a-z'’]{1,20}\s){1,3})STREETS(?![a-z])"
    ),
}


def _compiled(form: str) -> re.Pattern[str]:
    for short, full in _SHORTHANDS.items():
        form = form.replace(short, full)
    return re.compile(form, re.IGNORECASE)


_PATTERNS = {kind: _compiled(form) for kind, form in _FORMS.items()}
_SIGNS = re.compile(r"\d|@|微信|薇信|威信|v信|wechat|weixin|vx|wx|[一二三四五六七八九十]", re.I)

DETAIL_KINDS = tuple(_PATTERNS)
"""What is looked for: e-mail, ID number, WeChat, QQ, telephone, postal address."""


def count_details(text: str) -> Counter[str]:
    """Return how many details of each kind a text seems to hold; never the details themselves.

    Forms of mainland China and of English-speaking countries. It finds candidates, not proof: names
    are not looked for, and a number may be something else.
    """
    found: Counter[str] = Counter()
    if not _SIGNS.search(text):
        return found
    text = unicodedata.normalize("NFKC", text)
    for kind, pattern in _PATTERNS.items():
        text, n = pattern.subn(" \0 ", text)
        if n:
            found[kind] += n
    return found


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
class ConsistencyFlag:
    """One thing that may be wrong; an id and numbers, never a text."""

    kind: str
    file: str
    line: int
    id: str
    """Id of the utterance as messages may show it."""
    reason: str
    hint: str
    """What to do about it."""

    def as_json(self) -> dict[str, str | int]:
        """Return the flag as files of results hold it; there the hint is called ``mend``."""
        figures = asdict(self)
        hint = figures.pop("hint")
        return {**figures, "mend": hint}


_details = lru_cache(maxsize=4096)(count_details)


class ConsistencyChecker:
    """Judges examples one by one, and against those before them.

    Without a ``task``, what needs a taxonomy is left out; without ``near_duplicates``, their least
    similarity, they are not looked for, nor among texts of fewer characters than ``shortest``.
    """

    def __init__(
        self, *, task: Task | None, near_duplicates: float | None = 0.8, shortest: int = 12
    ) -> None:
        self.file = ""
        """The file that is read."""
        self._task = task
        self._reader = None if task is None else LabelReader(task.taxonomy, task.labels)
        self._threshold = near_duplicates
        self._shortest = shortest
        self._first: dict[bytes, tuple[tuple[str, int, str], str | None]] = {}
        self._places: dict[str, tuple[str, int, str]] = {}
        self._labels_of_text: defaultdict[str, set[str]] = defaultdict(set)
        self._seen: set[str] = set()
        self._hints: list[ConsistencyFlag] = []

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
            self._places.setdefault(text, (name, line, self.file))

    def add_text(self, text: str, identifier: str, line: int) -> None:
        """Look for personal details in a text that is no example, such as a counselor's turn."""
        for kind, n in _details(text).items():
            times = "" if n == 1 else f", {n} times"
            self._hint(f"{kind}_like", line, _shown(identifier), times)

    def add_history(self, example: Example, line: int) -> None:
        """Look for personal details in the turns before an utterance, once in each text."""
        for turn in example.history:
            if turn.text not in self._seen and _details(turn.text):
                self._seen.add(turn.text)
                self.add_text(turn.text, example.id, line)

    def hints(self) -> tuple[ConsistencyFlag, ...]:
        """Return everything found, by kind in the order of :data:`KINDS`, then by line."""
        order = [*KINDS]
        found = [*self._hints, *self._near()]
        return tuple(sorted(found, key=lambda hint: (order.index(hint.kind), hint.line)))

    @property
    def texts_of_several_labels(self) -> int:
        """Different response texts that carry more than one label, whatever their contexts."""
        return sum(len(labels) > 1 for labels in self._labels_of_text.values())

    def _hint(self, kind: str, line: int, name: str, more: str = "") -> None:
        self._hints.append(_flag(kind, self.file, line, name, more))

    def _repeats(self, example: Example, name: str, line: int) -> None:
        own = ((name, line, self.file), example.label)
        first, label = self._first.setdefault(content_digest(example), own)
        if first != own[0]:
            other = None not in (label, example.label) and label != example.label
            kind = "label_conflict" if other else "duplicate"
            self._hint(kind, line, name, f" ({_earlier(first, self.file)})")

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

    def _near(self) -> Iterator[ConsistencyFlag]:
        if self._threshold is None:
            return
        places = list(self._places.values())
        for pair in find_near_duplicates(list(self._places), threshold=self._threshold):
            second, line, file = places[pair.second]
            first = _earlier(places[pair.first], file)
            more = f" ({first}; similarity {pair.similarity:.2f})"
            yield _flag("near_duplicate", file, line, second, more)


def _flag(kind: str, file: str, line: int, name: str, more: str) -> ConsistencyFlag:
    return ConsistencyFlag(
        kind=kind, file=file, line=line, id=name, reason=KINDS[kind] + more, hint=MENDS[kind]
    )


def _earlier(place: tuple[str, int, str], here: str) -> str:
    name, line, file = place
    return f"id {name}, line {line}" if file == here else f"id {name}, {file}:{line}"


def _shown(identifier: str) -> str:
    return quote_id(identifier).strip("'")


def count_flags(hints: Sequence[ConsistencyFlag]) -> dict[str, int]:
    """Return how many hints there are of every kind."""
    counts = Counter(hint.kind for hint in hints)
    return {kind: counts[kind] for kind in KINDS}


_CSV_COLUMNS = ("severity", "kind", "file", "line", "id", "field", "reason", "mend")


def validate(config: CorpusConfig) -> Report:
    """Return what is wrong with a corpus; nothing of its texts.

    The report is a failure when a row is at fault, unless ``data.on_error`` is ``skip``.
    """
    source = open_source(config, judge=False)
    hints, counted = _check(config, source)
    issues = source.issues
    counts = {
        "rows_read": issues.rows_read,
        "rows_accepted": issues.rows_read - issues.rows_rejected,
        "rows_rejected": issues.rows_rejected,
        **counted,
    }
    faults = [issue.as_json() for issue in issues.issues]
    flags = [flag.as_json() for flag in hints]
    rows: list[dict[str, object]] = [{"severity": "fault", "kind": "row", **row} for row in faults]
    rows += [{"severity": "hint", **row} for row in flags]
    return Report(
        action="validate",
        title=f"What is wrong with {issues.file}",
        figures={
            "data": config.data.name,
            "file": issues.file,
            **counts,
            "turns": {
                file: {f"{who}_turns": spoken[who] for who in ("counselor", "client", "other")}
                for file, spoken in issues.turns.items()
            },
            "cut_to_one_label": cut_figures(issues.cut),
            "hint_counts": count_flags(hints),
            "faults": faults,
            "hints": flags,
        },
        sheets=(
            _overview(counts, hints),
            _turns_by_file(issues.turns, config.validate.listed),
            *_fault_sheet(issues.issues, config.validate.listed),
            *_hint_sheet(hints, config.validate.listed),
        ),
        notes=(
            *_notes(config),
            *account_notes(issues.counts),
            *cut_notes(issues.cut),
            *turn_notes(issues.turns),
        ),
        rows=[{name: row.get(name) for name in _CSV_COLUMNS} for row in rows],
        failure=_failure(config, source),
        # Turns without an id are called after their sessions.
        private=True,
    )


def _check(
    config: CorpusConfig, source: CorpusSource
) -> tuple[tuple[ConsistencyFlag, ...], dict[str, int]]:
    checker = ConsistencyChecker(
        task=find_task(config) if config.labels == "canonical" else None,
        near_duplicates=config.validate.near_duplicates,
        shortest=config.validate.shortest,
    )
    counts = dict.fromkeys(("utterances", "labelled", "without_rationale"), 0)
    for record in source.records:
        lines, checker.file = source.issues.lines, source.issues.file
        for example in client_turns(record):
            checker.add(example, _line(lines, example.turn))
            counts["utterances"] += 1
            labeled = example.label is not None
            counts["labelled"] += labeled
            counts["without_rationale"] += labeled and not (example.rationale or "").strip()
        if isinstance(record, Dialogue):
            for index, turn in enumerate(record.turns):
                if turn.speaker != "client":
                    name = turn_id(record.session, index, turn)
                    checker.add_text(turn.text, name, _line(lines, index))
        else:
            checker.add_history(record, lines[0])
    return checker.hints(), {**counts, "texts_of_several_labels": checker.texts_of_several_labels}


def _line(lines: Sequence[int], turn: int | None) -> int:
    return lines[turn] if turn is not None and len(lines) > 1 else lines[0]


def _failure(config: CorpusConfig, source: CorpusSource) -> str | None:
    issues = source.issues
    if issues.rows_read == 0:
        return f"{issues.file}: holds no rows; write one dialogue or one example a row"
    if not issues.issues or config.data.on_error == "skip":
        return None
    lost = f"{issues.rows_rejected} of {issues.rows_read} rows cannot be used"
    if issues.unrecognized:
        return f"{issues.file}: {issues.unrecognized}; as it is, {lost}"
    return (
        f"{issues.file}: {lost if issues.rows_rejected else 'its rows are not complete'}; mend "
        "them as listed, or leave them out with data.on_error=skip"
    )


_COUNTED = {
    "rows_read": "rows read",
    "rows_accepted": "rows accepted",
    "rows_rejected": "rows rejected",
    "utterances": "client utterances",
    "labelled": "labeled",
    "without_rationale": "labeled without a rationale",
    "texts_of_several_labels": "texts of several labels, in whatever context",
}
"""What the table calls counts."""


def _turns_by_file(turns: Mapping[str, Mapping[str, int]], listed: int) -> ReportTable:
    more = f", the first {listed} of {len(turns)} files" if len(turns) > listed else ""
    return table_of(
        f"Turns of accepted rows by who speaks{more}",
        [*turns.items()][:listed],
        {
            "file": lambda item: item[0],
            "counselor": lambda item: f"{item[1]['counselor']:,}",
            "client": lambda item: f"{item[1]['client']:,}",
            "other": lambda item: f"{item[1]['other']:,}",
        },
    )


def _overview(counts: Mapping[str, int], hints: Sequence[ConsistencyFlag]) -> ReportTable:
    kinds = count_flags(hints)
    return table_of(
        "Rows and hints",
        {**counts, **kinds}.items(),
        {
            "what": lambda item: _COUNTED.get(item[0]) or KINDS[item[0]],
            "number": lambda item: f"{item[1]:,}",
            "what to do": lambda item: MENDS[item[0]] if item[0] in kinds and item[1] else "",
        },
        text_columns=(0, 2),
    )


def _file_column(
    found: Sequence[RowIssue] | Sequence[ConsistencyFlag],
) -> dict[str, Callable[[RowIssue | ConsistencyFlag], str]]:
    """Return the column that names the file of what was found, where that is not always one."""
    several = len({one.file for one in found}) > 1
    return {"file": lambda one: one.file} if several else {}


def _fault_sheet(issues: Sequence[RowIssue], listed: int) -> list[ReportTable]:
    more = f", the first {listed} of {len(issues)}" if len(issues) > listed else ""
    table = table_of(
        f"Faults{more}",
        issues[:listed],
        {
            **_file_column(issues),
            "line": lambda fault: str(fault.line),
            "field": lambda fault: fault.field,
            "reason": lambda fault: fault.reason,
            "what to do": lambda fault: fault.hint,
        },
        text_columns=(1, 2, 3),
    )
    return [table] if table.rows else []


def _hint_sheet(hints: Sequence[ConsistencyFlag], listed: int) -> list[ReportTable]:
    # They stand by kind.
    shown = [
        hint for _, kind in groupby(hints, attrgetter("kind")) for hint in islice(kind, listed)
    ]
    more = f", up to {listed} of a kind" if len(shown) < len(hints) else ""
    table = table_of(
        f"Hints{more}",
        shown,
        {
            **_file_column(hints),
            "line": lambda hint: str(hint.line),
            "id": lambda hint: hint.id,
            "what": lambda hint: hint.reason,
        },
        text_columns=(1, 2),
    )
    return [table] if table.rows else []


def _notes(config: CorpusConfig) -> Iterator[str]:
    yield "a fault keeps a row out; a hint does not, it wants a second look"
    if config.labels == "canonical":
        yield f"labels are those of task {config.task.name}"
    if config.validate.near_duplicates is not None:
        yield (
            f"near-duplicates: similarity of at least {config.validate.near_duplicates:g}, texts "
            f"of at least {config.validate.shortest} characters, each named with an earlier one"
        )
    yield "personal details are counted by their form alone: names are not looked for"
