"""Texts as tokens: words between spaces, Chinese words (jieba), or Chinese characters."""

from __future__ import annotations

import importlib.util
import re
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from recap.errors import ConfigError

Segmenter = Literal["auto", "words", "jieba", "characters"]

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_STRETCH_END = re.compile(r"[^\w\s'’_-]+|\n")
_HAN_OR_WORD = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|[^\\W_\u3400-\u9fff]+")

Stretches = list[list[str]]
"""Tokens between two punctuation marks or line ends, in order."""


def segmenter(name: Segmenter) -> tuple[str, Callable[[str], Stretches]]:
    """Return the segmenter's full name and its function; tokens are in lower case.

    ``auto`` takes words for a text in another script, and jieba for a Chinese one, or characters
    where jieba is not installed.

    Raises:
        ConfigError: For ``jieba`` when it is not installed.
    """
    if name == "words":
        return name, _words
    if name == "characters":
        return name, _characters
    there = importlib.util.find_spec("jieba") is not None
    if name == "jieba" and not there:
        raise ConfigError(
            "lexicon.segmenter=jieba: jieba is not installed: pip install recap-counseling[zh], "
            "or set lexicon.segmenter=characters"
        )
    chinese = _jieba() if there else _characters
    if name == "jieba":
        return "jieba", chinese
    title = f"words; {'jieba' if there else 'characters'} where a text is Chinese"
    return title, lambda text: chinese(text) if is_chinese(text) else _words(text)


def _by_stretch(tokens: Callable[[str], list[str]]) -> Callable[[str], Stretches]:
    return lambda text: [
        tokens(part) for part in _STRETCH_END.split(text.replace("’", "'").lower())
    ]


_words = _by_stretch(_WORD.findall)
_characters = _by_stretch(_HAN_OR_WORD.findall)


def _jieba() -> Callable[[str], Stretches]:
    import logging

    import jieba  # type: ignore[import-untyped]

    # It tells of its dictionary on stderr otherwise.
    jieba.setLogLevel(logging.WARNING)

    return _by_stretch(lambda part: [t for t in jieba.lcut(part) if _WORD.fullmatch(t)])


_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Mean, sample SD (ddof 1), median and maximum of ``n`` lengths; ``None`` where undefined."""

    n: int
    mean: float | None
    std: float | None
    median: float | None
    most: int | None


def is_chinese(text: str) -> bool:
    """Whether at least half of a text's letters are Chinese characters."""
    han = len(_HAN.findall(text))
    return han > 0 and 2 * han >= sum(map(str.isalpha, text))


def summarize(lengths: Iterable[int]) -> Lengths:
    """Return the summary of lengths."""
    values = np.asarray(lengths if isinstance(lengths, array) else list(lengths), dtype=float)
    n = len(values)
    return Lengths(
        n=n,
        mean=float(values.mean()) if n else None,
        std=float(values.std(ddof=1)) if n > 1 else None,
        median=float(np.median(values)) if n else None,
        most=int(values.max()) if n else None,
    )
