"""A prompt of the user's own: text with placeholders such as ``{taxonomy}`` and ``{dialogue}``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from recap.errors import ConfigError, did_you_mean

CONSTANT_PLACEHOLDERS = ("role", "task", "taxonomy", "labels", "examples", "format")
"""Filled with the same text for every example."""

DIALOGUE_PLACEHOLDERS = ("dialogue", "history", "response")
"""Filled from the example; ``dialogue`` is history and response together, under headings."""

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


def read_prompt_file(path: Path, *, language: str) -> str:
    """Return the prompt text that a file holds for ``language``, checked.

    A ``.yaml`` or ``.yml`` file maps languages to texts; any other file is the text itself.

    Raises:
        ConfigError: When the file cannot be read, has no text for the language, or the text is not
            usable.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"prompt file {path} cannot be read ({error}); give the path of a UTF-8 text file"
        ) from error
    if path.suffix in (".yaml", ".yml"):
        text = _text_in(path, text, language)
    check_prompt(text, source=str(path))
    return text


def check_prompt(text: str, *, source: str = "the prompt text") -> None:
    """Return nothing when ``text`` can serve as a prompt.

    Raises:
        ConfigError: When it shows no response to judge, or has a placeholder that does not exist.
    """
    known = (*CONSTANT_PLACEHOLDERS, *DIALOGUE_PLACEHOLDERS)
    found = _PLACEHOLDER.findall(text)
    for name in found:
        if name not in known:
            raise ConfigError(
                f"{source} has the unknown placeholder {{{name}}}{did_you_mean(name, known)}; "
                f"known: {', '.join(f'{{{n}}}' for n in known)}"
            )
    if "dialogue" not in found and "response" not in found:
        raise ConfigError(
            f"{source} lacks the placeholder {{dialogue}}: put it where the dialogue goes, after "
            "all that is the same for every example (or {history} and {response} where the two go)"
        )


def split_prompt(
    text: str, values: Mapping[str, str], data: Mapping[str, str], *, has_shots: bool
) -> tuple[str, str]:
    """Return a filled prompt in two: the constant part, and all from the first dialogue on.

    Every placeholder is replaced once, so braces inside what is filled in stay as they are.

    Raises:
        ConfigError: When there are shots and no ``{examples}`` to show them in.
    """
    if has_shots and "{examples}" not in text:
        raise ConfigError(
            "the prompt text lacks the placeholder {examples}: "
            "add it where the shots go, or set shots=0"
        )
    first = min(text.index(f"{{{name}}}") for name in data if f"{{{name}}}" in text)
    filled = {**values, **data}

    def fill(part: str) -> str:
        return _PLACEHOLDER.sub(lambda match: filled[match.group(1)], part).strip()

    return fill(text[:first]), fill(text[first:])


def _text_in(path: Path, text: str, language: str) -> str:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"prompt file {path} is not valid YAML: {error}") from error
    found = content.get(language) if isinstance(content, dict) else None
    if not isinstance(found, str):
        raise ConfigError(
            f"prompt file {path} has no text for language {language!r}; "
            f"add the key '{language}:' with the text"
        )
    return found
