"""Faults put into the files that readers are given: the same ones for the same seed.

A mutation takes a sound file as :class:`~sample_files.Sample` and returns the bytes of a faulty
one; where it cannot be put into that format it returns ``None``.
"""

from __future__ import annotations

import functools
import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import openpyxl
from sample_files import SECRET, Sample, with_sheet, zipped

TEXTS = (".txt", ".vtt")
TABLES = (".csv", ".xlsx")
PACKED = (".xlsx", ".zip")
MEGABYTE = 2**20

Mutation = Callable[[Sample, Random], bytes | None]
MUTATIONS: dict[str, Mutation] = {}


def _mutation(function: Mutation) -> Mutation:
    MUTATIONS[function.__name__] = function
    return function


def _on_text(name: str, change: Callable[[bytes, Random], bytes]) -> None:
    """Add a mutation of the bytes of a text; an Excel file holds none."""

    def mutate(sample: Sample, random: Random) -> bytes | None:
        if sample.ending == ".xlsx":
            return None
        return sample.holding(change(sample.inner(), random))

    MUTATIONS[name] = mutate


def _on_file(name: str, change: Callable[[bytes, Random], bytes]) -> None:
    """Add a mutation of the bytes of any file, packed ones too."""
    MUTATIONS[name] = lambda sample, random: change(sample.content(), random)


def _recoded(encoding: str, mark: bytes = b"") -> Callable[[bytes, Random], bytes]:
    return lambda content, random: mark + content.decode().encode(encoding, "replace")


def _cut(content: bytes, random: Random) -> bytes:
    begin = content.rstrip().rfind(b"\n") + 1
    return content[: random.randrange(begin, len(content))]


def _cut_in_character(content: bytes, random: Random) -> bytes:
    ends = [at for at, byte in enumerate(content) if byte & 0xC0 == 0x80]
    return content[: random.choice(ends)]


def _flipped(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.randrange(1, 8)):
        changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


def _inserted(piece: bytes) -> Callable[[bytes, Random], bytes]:
    def insert(content: bytes, random: Random) -> bytes:
        at = random.randrange(len(content))
        return content[:at] + piece + content[at:]

    return insert


_on_text("byte_order_mark", lambda content, random: b"\xef\xbb\xbf" + content)
_on_text("utf_16", _recoded("utf-16"))
_on_text("utf_16_without_mark", _recoded("utf-16-le"))
_on_text("utf_16_cut", lambda content, random: content.decode().encode("utf-16")[:-1])
_on_text("utf_32", _recoded("utf-32"))
_on_text("gbk", _recoded("gbk"))
_on_text("latin_1", _recoded("latin-1"))
_on_text("crlf", lambda content, random: content.replace(b"\n", b"\r\n"))
_on_text("old_mac_line_ends", lambda content, random: content.replace(b"\n", b"\r"))
_on_text("raw_nul", _inserted(b"\0"))
_on_text("cut_last_line", _cut)
_on_text("cut_in_character", _cut_in_character)
_on_text("file_twice", lambda content, random: content + content)
_on_text("quotation_mark", _inserted(b'"'))
_on_text("blank_lines", lambda content, random: b"\n\n" + content.replace(b"\n", b"\n \n"))
_on_text("gzip", lambda content, random: gzip.compress(content, mtime=0))
_on_file("flipped_bytes", _flipped)
_on_file("cut_anywhere", lambda content, random: content[: random.randrange(len(content))])
_on_file("empty_file", lambda content, random: b"")


def _places(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield every object and key under which one of ``keys`` stands, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in keys and isinstance(inner, str | int | float | list):
                yield value, key
            yield from _places(inner, keys)
    elif isinstance(value, list):
        for inner in value:
            yield from _places(inner, keys)


def _on_value(name: str, roles: str, values: Callable[[Random], Any]) -> None:
    """Add a mutation that sets what stands in one role (``text``, ``label``, ``id``) of one row."""

    def mutate(sample: Sample, random: Random) -> bytes | None:
        changed = replace(sample, rows=deepcopy(sample.rows))
        keys = tuple(key for role in roles.split() for key in getattr(sample, role))
        places = list(_places(changed.rows, keys))
        if not places:
            return None
        holder, key = random.choice(places)
        holder[key] = values(random)
        return changed.content()

    MUTATIONS[name] = mutate


def _long(random: Random) -> str:
    unit = random.choice(["a", " ", "\n", "心", "a b\n\n", "-", "Client: a\n", "'"])
    return f"{SECRET} {unit * (MEGABYTE // len(unit))} {SECRET}"


_FORMULAS = ("=1+1", "@SUM(A1)", "+cmd|'/C calc'!A0", "\t=1", "＝1", "-", "#NAME?", "#N/A", "#REF!")
_WRONG = (None, 3, 1.5, True, [], {}, [1, [2]], {"a": 1}, "x", -1, 10**30, 10**400, 1e308)
_DEEP: Any = functools.reduce(lambda inner, _: [inner], range(90), "x")

_on_value("empty_text", "text", lambda random: random.choice(["", " ", "\u3000", "\n", "\u200b"]))
_on_value("long_text", "text", _long)
_on_value("long_label", "label", _long)
_on_value("long_id", "id", _long)
# Names of up to three words are shown.
_LABELS = ["Blamin", f"{SECRET} {SECRET}", "理智化", "0"]
_on_value("unknown_label", "label", lambda random: random.choice(_LABELS))
_on_value("empty_label", "label", lambda random: random.choice(["", " ", None, "n/a"]))
_on_value("lone_surrogate", "text label id", lambda random: f"a \ud83d {SECRET}")
_on_value("escaped_nul", "text label id", lambda random: f"a \0 {SECRET}")
_on_value("formula_text", "text label id", lambda random: random.choice(_FORMULAS))
_on_value("wrong_type", "text label id", lambda random: random.choice(_WRONG))
_on_value("nested_json", "text label id", lambda random: deepcopy(_DEEP))
_on_value(
    "control_characters", "text label id", lambda random: f"\x1b[2J\x07{SECRET}\u202e\u2028\r"
)
_on_value("markup", "text label id", lambda random: f"<script>{SECRET}</script>[bold]{{x}}%s${{y}}")


@_mutation
def bottomless_json(sample: Sample, random: Random) -> bytes | None:
    """Return a file with a value nested deeper than any parser follows."""
    if sample.ending in (".xlsx", *TEXTS):
        return None
    deep = "[" * 100_000 + "]" * 100_000
    inner = sample.inner().decode()
    value = re.sub(r'"[^"]*zanzibar[^"]*"', lambda found: deep, inner, count=1)
    return sample.holding((value if value != inner else inner + deep).encode())


@_mutation
def numbers_that_are_none(sample: Sample, random: Random) -> bytes | None:
    """Return a file with NaN, or a number of five thousand digits, for a value."""
    if sample.ending in TABLES or sample.ending in TEXTS:
        return None
    said = random.choice(["NaN", "-Infinity", "9" * 5000, "1e999"])
    return sample.holding(re.sub(rb'"[^"]*zanzibar[^"]*"', said.encode(), sample.inner(), count=1))


@_mutation
def repeated_key(sample: Sample, random: Random) -> bytes | None:
    """Return a file in which an object has a key twice."""
    if sample.ending in TABLES or sample.ending == ".txt":
        return None
    twice = f'{{"x": 1, "x": "{SECRET}", '.encode()
    places = [found.start() for found in re.finditer(rb'\{(?=")', sample.inner())]
    if not places:
        return None
    at = random.choice(places)
    return sample.holding(sample.inner()[:at] + twice + sample.inner()[at + 1 :])


@_mutation
def marks_inside(sample: Sample, random: Random) -> bytes | None:
    """Return a file put together of two that each begin with a byte-order mark."""
    if sample.ending == ".xlsx":
        return None
    head, _, rest = sample.inner().partition(b"\n")
    mark = b"\xef\xbb\xbf"
    return sample.holding(mark + head + b"\n" + mark + rest)


@_mutation
def duplicate_rows(sample: Sample, random: Random) -> bytes | None:
    """Return a file in which some rows stand twice."""
    again = [deepcopy(random.choice(sample.rows)) for _ in range(2)]
    return replace(sample, rows=[*sample.rows, *again]).content()


@_mutation
def duplicate_ids(sample: Sample, random: Random) -> bytes | None:
    """Return a file in which two rows have one id, and different texts."""
    rows = deepcopy(sample.rows)
    places = [list(_places(row, sample.id)) for row in rows]
    first, second = random.sample([found[0] for found in places if found], 2)
    second[0][second[1]] = first[0][first[1]]
    return replace(sample, rows=rows).content()


@_mutation
def swapped_columns(sample: Sample, random: Random) -> bytes | None:
    """Return a file in which two columns have each other's values."""
    rows = deepcopy(sample.rows)
    one, other = random.sample(sorted(rows[0]), 2)
    for row in rows:
        row[one], row[other] = row.get(other), row.get(one)
    return replace(sample, rows=rows).content()


@_mutation
def renamed_column(sample: Sample, random: Random) -> bytes | None:
    """Return a file in which one column is called like a client's words."""
    name = random.choice(sorted(sample.rows[0]))
    rows = [{SECRET if key == name else key: v for key, v in row.items()} for row in sample.rows]
    return None if sample.ending in TEXTS else replace(sample, rows=rows).content()


@_mutation
def ragged_rows(sample: Sample, random: Random) -> bytes | None:
    """Return a file in which rows lack a column, or have one more."""
    rows = deepcopy(sample.rows)
    rows[-1].pop(random.choice(sorted(rows[-1])))
    rows[0][SECRET] = SECRET
    if sample.ending == ".csv":
        return sample.content() + f"{SECRET}\n".encode() + b",".join([SECRET.encode()] * 30)
    return None if sample.ending in TEXTS else replace(sample, rows=rows).content()


@_mutation
def rows_of_other_kinds(sample: Sample, random: Random) -> bytes | None:
    """Return a file with rows that are no objects, or hold nothing."""
    odd: list[Any] = [None, 1, SECRET, [SECRET], {}, {SECRET: SECRET}]
    rows = [*sample.rows, *random.sample(odd, 3)]
    if sample.ending == ".json":
        return json.dumps(rows, ensure_ascii=False).encode()
    if sample.ending not in (".jsonl", ".zip"):
        return None
    return sample.holding("".join(f"{json.dumps(row)}\n" for row in rows).encode())


@functools.cache
def _zeros() -> bytes:
    """Return a megabyte more of zeros than archives may unpack to, packed."""
    content = io.BytesIO()
    with (
        zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("bomb.jsonl", "w", force_zip64=True) as file,
    ):
        for _ in range(257):
            file.write(b"0" * MEGABYTE)
    return content.getvalue()


@_mutation
def zip_bomb(sample: Sample, random: Random) -> bytes | None:
    """Return an archive that unpacks to more than it may, in one part or in very many."""
    if sample.ending not in PACKED:
        return zipped({f"{number}.jsonl": sample.inner() for number in range(3)})
    if random.random() < 0.5:
        return _zeros()
    return zipped({f"{number}.jsonl": b"" for number in range(10_001)})


@_mutation
def entity_bomb(sample: Sample, random: Random) -> bytes | None:
    """Return an Excel file whose XML defines entities in terms of each other."""
    if sample.ending != ".xlsx":
        return None
    names = "abcdefgh"
    entities = '<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in pairwise(names)
    )

    def expand(xml: str) -> str:
        declared = f"<!DOCTYPE worksheet [{entities}]>{xml}"
        return declared.replace("<sheetData>", "<sheetData><row><c><v>&h;</v></c></row>")

    return with_sheet(sample.content(), expand)


@_mutation
def row_bomb(sample: Sample, random: Random) -> bytes | None:
    """Return an Excel file that says its last row is far below the others."""
    if sample.ending != ".xlsx":
        return None
    far = f'<row r="{10 ** random.choice([7, 12])}"><c t="n"><v>1</v></c></row></sheetData>'
    return with_sheet(sample.content(), lambda xml: xml.replace("</sheetData>", far))


@_mutation
def formula_cells(sample: Sample, random: Random) -> bytes | None:
    """Return an Excel file with formulas whose values were not saved."""
    if sample.ending != ".xlsx":
        return None
    book = openpyxl.load_workbook(io.BytesIO(sample.content()))
    page = book.active
    for _ in range(2):
        row, column = random.randrange(2, page.max_row + 1), random.randrange(page.max_column)
        page.cell(row, column + 1).value = random.choice(["=1+1", "=A1", '=HYPERLINK("x")'])
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


@_mutation
def short_dimension(sample: Sample, random: Random) -> bytes | None:
    """Return an Excel file that says of itself to be a single cell."""
    if sample.ending != ".xlsx":
        return None
    return with_sheet(
        sample.content(), lambda xml: re.sub(r'<dimension ref="[^"]*"', '<dimension ref="A1"', xml)
    )


@_mutation
def broken_sheet(sample: Sample, random: Random) -> bytes | None:
    """Return an Excel file with a sheet that breaks off, or cells that point nowhere."""
    if sample.ending != ".xlsx":
        return None
    broken = random.choice(
        [
            lambda xml: xml[: len(xml) // 2],
            lambda xml: re.sub(r"<v>\d+</v>", "<v>99999</v>", xml),
            lambda xml: re.sub(r'<c r="[A-Z]+', '<c r="ZZZZZZ', xml),
            lambda xml: xml.replace("<row r=", '<row r="x" q='),
            lambda xml: xml.replace('t="s"', 't="d"').replace('t="inlineStr"', 't="b"'),
        ]
    )
    return with_sheet(sample.content(), broken)
