"""A taxonomy of client behaviours as data: categories with definitions, names and colours."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from recap.errors import DataError, WrittenError, did_you_mean, quote_label

_EDGE = " \t\r\n\"'`*“”‘’「」『』《》()（）[]【】.。,，;；:：!！"
_JOINER = re.compile(r"\s*[-–—−_/－]+\s*")
_SPACES = re.compile(r"\s+")
# Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties 16.0): never drawn by themselves.
INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)


@dataclass(frozen=True, kw_only=True)
class Category:
    """One node of a taxonomy.

    ``names``, ``definition``, ``example`` and ``contrast`` map a language (``"en"``, ``"zh"``) to a
    text; ``name`` is the canonical one, under which labels are stored. ``parent`` is another
    category's name.
    """

    name: str
    parent: str | None = None
    """The category above this one, ``None`` at the top."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Name in each language, where it differs from ``name``."""
    aliases: tuple[str, ...] = ()
    """Other spellings that readers and the parser accept."""
    definition: Mapping[str, str] = field(default_factory=dict)
    """What the category means, for the prompt and the codebook."""
    example: Mapping[str, str] = field(default_factory=dict)
    """A client utterance that shows it."""
    contrast: Mapping[str, str] = field(default_factory=dict)
    """When it is not this category but another."""
    color: str | None = None
    """Colour in figures, ``#rrggbb``."""
    qualifies: bool = True
    """Whether the names of categories below are written with this one's in front."""

    def name_in(self, language: str) -> str:
        """Return the name in ``language``, the canonical name where there is none."""
        return self.names.get(language, self.name)


@dataclass(frozen=True, kw_only=True)
class Taxonomy:
    """Categories in canonical order; parents may come before or after their children.

    Raises:
        WrittenError: For an unknown parent, a cycle, a name without a letter, or a spelling that
            stands for two categories.
    """

    name: str
    categories: tuple[Category, ...]
    rejected: Mapping[str, str] = field(default_factory=dict)
    """Spellings that are refused on purpose, each with the reason that the error gives."""

    def __post_init__(self) -> None:
        for index, category in enumerate(self.categories):
            self._check_parents(index, category)
        _ = self._by_spelling

    def __getitem__(self, name: str) -> Category:
        """Return the category of a canonical name; ``KeyError`` where there is none."""
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        """Whether ``name`` is a canonical name."""
        return name in self._by_name

    @cached_property
    def leaves(self) -> tuple[str, ...]:
        """Canonical names of the categories that have none below them, in canonical order."""
        parents = {category.parent for category in self.categories}
        return tuple(c.name for c in self.categories if c.name not in parents)

    def lineage(self, name: str) -> tuple[str, ...]:
        """Return ``name`` and the categories above it, nearest first."""
        found: list[str] = []
        step: str | None = name
        while step is not None:
            found.append(step)
            step = self._by_name[step].parent
        return tuple(found)

    def pattern(self, name: str) -> str | None:
        """Return the category above that the qualified name carries, ``None`` where none does."""
        parent = self._by_name[name].parent
        return parent if parent is not None and self._by_name[parent].qualifies else None

    def written(self, name: str, *, language: str = "en", qualified: bool = True) -> str:
        """Return a label as prompts and answers write it, such as ``Arguing - Challenging``."""
        bare = self._by_name[name].name_in(language)
        pattern = self.pattern(name)
        if not qualified or pattern is None:
            return bare
        separator = "-" if language == "zh" else " - "
        return f"{self._by_name[pattern].name_in(language)}{separator}{bare}"

    def find(self, text: str) -> str | None:
        """Return the canonical name that a spelling stands for, ``None`` when it is not known.

        Accepts names in any language, aliases, and qualified forms with any dash or slash between
        the parts (``争辩/Arguing-挑战/Challenging``), whatever case, width or outer punctuation.
        """
        return self._by_spelling.get(normalize_label(text))

    def resolve(self, text: str) -> str:
        """Return the canonical name that a spelling stands for.

        Raises:
            DataError: When it is unknown; the text is quoted only where that is safe.
        """
        found = self.find(text)
        if found is None:
            reason = self.refusal(text)
            if reason is not None:
                raise DataError(
                    f"label {text.strip()!r} is refused by taxonomy {self.name!r}: {reason}"
                )
            known = self.spellings()
            raise DataError(
                f"label {quote_label(text, known)} is not in taxonomy {self.name!r}"
                f"{did_you_mean(text, known)}"
            )
        return found

    def refusal(self, text: str) -> str | None:
        """Return why the taxonomy refuses a spelling, ``None`` where it does not."""
        return self._rejections.get(normalize_label(text))

    def spellings(self) -> list[str]:
        """Return every canonical name, name in a language, and alias."""
        return [s for category in self.categories for s in _own_spellings(category)]

    @cached_property
    def _by_name(self) -> dict[str, Category]:
        return {category.name: category for category in self.categories}

    @cached_property
    def _rejections(self) -> dict[str, str]:
        return {normalize_label(spelling): reason for spelling, reason in self.rejected.items()}

    @cached_property
    def _by_spelling(self) -> dict[str, str]:
        table: dict[str, int] = {}
        for index, category in enumerate(self.categories):
            for spelling in (*_own_spellings(category), *self._qualified_spellings(category)):
                if not INVISIBLE.sub("", spelling).strip():
                    raise self._error("a name or an alias is empty; write it", index)
                first = table.setdefault(normalize_label(spelling), index)
                if first != index:
                    other = self.categories[first].name
                    raise self._error(
                        f"{spelling!r} stands for both {other!r} and {category.name!r}; rename "
                        "one, or remove the alias",
                        index,
                    )
        return {key: self.categories[index].name for key, index in table.items()}

    def _error(self, fault: str, index: int, *keys: str) -> WrittenError:
        return WrittenError(f"taxonomy {self.name!r}: {fault}", ("categories", index, *keys))

    def _qualified_spellings(self, category: Category) -> list[str]:
        pattern = self.pattern(category.name)
        if pattern is None:
            return []
        above = _joined_spellings(self._by_name[pattern])
        return [f"{a}-{b}" for a in above for b in _joined_spellings(category)]

    def _check_parents(self, index: int, category: Category) -> None:
        seen = {category.name}
        parent = category.parent
        while parent is not None:
            if parent not in self._by_name:
                close = did_you_mean(parent, self._by_name)
                fault = f"{category.name!r} has the unknown parent {parent!r}{close}"
                raise self._error(fault, index, "parent")
            if parent in seen:
                raise self._error(f"{category.name!r} is its own ancestor", index, "parent")
            seen.add(parent)
            parent = self._by_name[parent].parent


def normalize_label(text: str) -> str:
    """Return the form in which spellings are compared.

    That is NFKC, folded case, ``-`` between parts, and nothing that is never seen.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", INVISIBLE.sub("", text))
    text = text.casefold().strip(_EDGE)
    # Spaces first: otherwise a long run of them costs time in the square of its length.
    return _JOINER.sub("-", _SPACES.sub(" ", text))


_COLOR = re.compile(r"#[0-9A-Fa-f]{6}|#[0-9A-Fa-f]{3}|[A-Za-z]{3,30}")


def taxonomy_from_dict(data: Mapping[str, Any]) -> Taxonomy:
    """Return the taxonomy that a YAML file describes: ``name``, ``categories``, ``rejected``.

    ``categories`` is a list; ``rejected`` may be left out. A text field of a category may be a
    plain string, which then serves every language.

    Raises:
        WrittenError: For missing or unknown keys, naming them, and values of another kind.
    """
    unknown = set(data) - {"name", "categories", "rejected"}
    if unknown or not data.get("name") or not data.get("categories"):
        raise WrittenError(
            "a taxonomy needs the keys 'name' and 'categories' (a list), may have 'rejected', "
            "and no others; "
            f"found {', '.join(sorted(map(str, data))) or 'none'}",
            (),
        )
    check_kinds(data, {"name": "text", "categories": "rows", "rejected": "texts"})
    name = data["name"]
    return Taxonomy(
        name=name,
        categories=tuple(_category(name, i, row) for i, row in enumerate(data["categories"])),
        rejected=dict(data.get("rejected") or {}),
    )


_KINDS = {
    "name": "text",
    "parent": "text",
    "names": "texts",
    "aliases": "list",
    "definition": "texts",
    "example": "texts",
    "contrast": "texts",
    "color": "text",
    "qualifies": "flag",
}


def check_kinds(
    values: Mapping[str, Any], kinds: Mapping[str, str], keys: tuple[str | int, ...] = ()
) -> None:
    """Check that the values of a mapping, as YAML has it, are of their kinds; null is of each.

    Args:
        values: The mapping; keys that ``kinds`` lacks are not looked at.
        kinds: Of each key: ``text``; ``texts``, a text or one a language; ``list`` of texts;
            ``rows``, a list of mappings; ``flag``.
        keys: Where the mapping stands, for the error.

    Raises:
        WrittenError: For the first value of another kind.
    """
    for key, kind in kinds.items():
        value, path = values.get(key), (*keys, key)
        if value is None:
            continue
        if kind == "flag":
            _check(value, isinstance(value, bool), "true or false", path)
        elif kind == "rows":
            _check(value, isinstance(value, list | tuple), "a list", path)
            for index, row in enumerate(value):
                _check(row, isinstance(row, Mapping), "a mapping of keys to values", (*path, index))
        elif kind == "list":
            _check(value, isinstance(value, list | tuple), "a list: [...]", path)
            for index, item in enumerate(value):
                _check_text(item, (*path, index))
        elif kind == "texts" and isinstance(value, Mapping):
            for inner, item in value.items():
                _check_text(inner, path)
                _check_text(item, (*path, inner))
        else:
            _check_text(value, path)


def _check_text(value: object, keys: tuple[str | int, ...]) -> None:
    _check(value, isinstance(value, str), "a text; write it in quotes", keys)


def _check(value: object, fits: bool, wanted: str, keys: tuple[str | int, ...]) -> None:
    if fits:
        return
    shown = f"the {type(value).__name__} {value}"
    if isinstance(value, bool):
        shown = f"the truth value {str(value).lower()} (which is how YAML reads Yes, No, On, Off)"
    elif isinstance(value, int | float):
        shown = f"the number {value}"
    elif isinstance(value, str | Mapping | list | tuple) or value is None:
        kinds = {str: "a text", type(None): "empty"}
        shown = kinds.get(type(value), "a mapping" if isinstance(value, Mapping) else "a list")
    path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    raise WrittenError(f"{path.removeprefix('.')}: is {shown}, and has to be {wanted}", keys)


def _category(taxonomy: str, index: int, row: Mapping[str, Any]) -> Category:
    known, place = [f.name for f in fields(Category)], ("categories", index)
    if "name" not in row:
        raise WrittenError(f"taxonomy {taxonomy!r}: every category needs a 'name'", place)
    for key in row:
        if key not in known:
            raise WrittenError(
                f"taxonomy {taxonomy!r}: category {row['name']!r} has the unknown key {key!r}"
                f"{did_you_mean(str(key), known)}",
                (*place, str(key)),
            )
    if row["name"] is None:
        _check_text(None, (*place, "name"))
    check_kinds(row, _KINDS, place)
    values: dict[str, Any] = {
        key: value for key, value in row.items() if value is not None or _KINDS[key] == "text"
    }
    for key in ("names", "definition", "example", "contrast"):
        if isinstance(values.get(key), str):
            values[key] = {"en": values[key], "zh": values[key]}
    color = values.get("color")
    if color is not None and not _COLOR.fullmatch(color):
        raise WrittenError(
            f"taxonomy {taxonomy!r}: category {row['name']!r} has no colour that pages and figures "
            "know; write it as '#a63603'",
            (*place, "color"),
        )
    values["aliases"] = tuple(values.get("aliases", ()))
    return Category(**values)


def _own_spellings(category: Category) -> Sequence[str]:
    return list(dict.fromkeys((category.name, *category.names.values(), *category.aliases)))


def _joined_spellings(category: Category) -> list[str]:
    """Return a category's spellings and the ``Chinese/English`` pairs of Doccano projects."""
    own = [s for s in _own_spellings(category) if "-" not in normalize_label(s)]
    pairs = [f"{category.names['zh']}/{s}" for s in own] if "zh" in category.names else []
    return own + pairs
