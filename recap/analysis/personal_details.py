"""Text that looks as if it identified a person, found by its form and counted by kind."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

_NO_DIGIT_BEFORE, _NO_DIGIT_AFTER = r"(?<!\d)", r"(?!\d)"
_STREETS = r"(?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|Place|Square)"
_PLACES = "路|街|大道|大街|巷|弄|胡同|小区|花园|新村|公寓"

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
_SHORTHANDS = {
    "NDB": _NO_DIGIT_BEFORE,
    "NDA": _NO_DIGIT_AFTER,
    "PLACES": _PLACES,
    "STREETS": _STREETS,
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
