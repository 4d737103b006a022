"""Whether a rationale of the demo corpus names the client's behavior and the counselor's act."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from recap.data.demo import PARTS


@dataclass(frozen=True, kw_only=True)
class RationaleCheck:
    """Whether a rationale names the behavior and the act, and no others."""

    behavior: bool
    act: bool


def rationale_checks(rationale: str, *, label: str, act: str, language: str) -> RationaleCheck:
    """Return whether ``rationale`` names the behavior ``label`` and the counselor's ``act``.

    ``label`` and ``act`` are canonical names, as a demo corpus carries them on its turns. Naming
    several behaviors, or several acts, counts as naming none.
    """
    parts = yaml.safe_load((PARTS / f"{language}.yaml").read_text(encoding="utf-8"))
    words = parts["rationale"]
    return RationaleCheck(
        behavior=_named(rationale, words["behaviors"]) == {label},
        act=_named(rationale, words["acts"]) == {act},
    )


def _named(text: str, phrases: Mapping[str, str]) -> set[str]:
    return {name for name, phrase in phrases.items() if phrase.casefold() in text.casefold()}
