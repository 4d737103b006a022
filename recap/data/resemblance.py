"""Examples that are nearly the same: counsellor's words and response alike but for a few letters.

As exact duplicates are judged on context and response together, so are near ones: "Yeah." after
another question is another example. Of the context the counsellor's words right before the response
count, so that a dialogue that was cut elsewhere, or begins with another greeting, still resembles
its copy.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from recap.analysis.near_duplicates import NearTexts
from recap.records import Example
from recap.tasks.prompts import intervention

SIMILARITY = 0.8
"""Least Jaccard similarity of the character trigrams of intervention and response together."""

RESPONSE_SIMILARITY = 0.5
"""Least similarity of the responses alone: the same question may get opposite answers."""

SHORTEST = 20
"""Characters of intervention and response together; shorter exchanges are anybody's."""


class Resemblance:
    """Finds examples that are nearly the same as others, exact duplicates apart.

    Args:
        examples: All that may be compared.
        keys: A hash of context and response for each; equal ones are exact duplicates.
    """

    def __init__(self, examples: Sequence[Example], keys: Sequence[str]) -> None:
        self._keys = keys
        self._texts: list[str] = []
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
                places[text] = len(self._texts)
                self._texts.append(text)
                self._responses.append(response)
            self._place[index] = places[text]
        self._near = NearTexts(self._texts)

    def near(self, tested: Sequence[int], seen: Sequence[int]) -> list[int]:
        """Return the tested examples that resemble one of those seen, in the order given.

        Both are indices into the examples. An exact duplicate alone does not count, nor does an
        example that is on both sides.
        """
        keys_of_text: dict[int, set[str]] = defaultdict(set)
        for index in seen:
            if index in self._place:
                keys_of_text[self._place[index]].add(self._keys[index])
        places = list(dict.fromkeys(self._place[i] for i in tested if i in self._place))
        found = self._near.nearest(
            places, list(keys_of_text), threshold=SIMILARITY, accepted=self._responses_alike
        )
        return [
            index
            for index in tested
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


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split()).casefold()


def _trigrams(text: str) -> set[str]:
    return {text[start : start + 3] for start in range(max(len(text) - 2, 1))}
