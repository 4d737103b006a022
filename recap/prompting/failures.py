"""Requests that failed: whether to try again, after how long, and what to say in the end."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from recap.errors import RecapError

_TEMPORARY = frozenset({408, 409, 425, 429})
_MENDS = {
    401: "the key was refused; set the environment variable of the client's key to a valid one",
    403: "the key may not use this model; choose another client.model, or another key",
    404: "there is no such model or address; check client.model and client.base_url",
    413: "the prompt is too long; show less with prompt.history=intervention or shots=0",
}
_PLAIN_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,59}")
_EXHAUSTED = frozenset({"insufficient_quota", "billing_error", "billing_hard_limit_reached"})
_TOO_LONG = frozenset({"context_length_exceeded"})
_FILTERED = frozenset({"content_filter", "content_policy_violation"})
# Some servers have no code for these. Messages may quote prompts: searched, never shown.
_TOO_LONG_WORDS = re.compile(r"context (?:length|window|size)|prompt is too long", re.IGNORECASE)
_FILTERED_WORDS = re.compile(r"blocked by content filtering policy", re.IGNORECASE)
_PARAMETERS = (
    "the model may refuse a parameter; client.temperature=null and client.top_p=null leave them "
    "out, client.limit_parameter=max_completion_tokens is what some want"
)


class RequestError(RecapError):
    """A request came to nothing.

    Args:
        said: What happened, without any text of the request or the answer.
        temporary: Whether trying again may help.
        mendable: Whether the user's configuration is at fault.
        wait_seconds: How long the server asks to wait.
        maybe_served: Whether the server may have answered, and charged, without its answer arriving
            whole.
        refused: Whether the server declined to answer this very prompt.
    """

    def __init__(
        self,
        said: str,
        *,
        temporary: bool,
        mendable: bool = False,
        wait_seconds: float | None = None,
        maybe_served: bool = False,
        refused: bool = False,
    ) -> None:
        super().__init__(said)
        self.temporary = temporary
        self.mendable = mendable
        self.wait_seconds = wait_seconds
        self.maybe_served = maybe_served
        self.refused = refused


def failed_status(status: int, body: object, headers: Mapping[str, str]) -> RequestError:
    """Return what an HTTP status of 300 and above means.

    Args:
        status: The status.
        body: The answer's JSON, if it was JSON; its message may quote the prompt and is not used.
        headers: The answer's headers.
    """
    codes = _codes(body)
    said = f"the server answered with status {status}" + (f" ({codes[0]})" if codes else "")
    message = _message(body)
    if status == 400 and (_FILTERED.intersection(codes) or _FILTERED_WORDS.search(message)):
        return RequestError(said, temporary=False, refused=True)
    if _EXHAUSTED.intersection(codes):
        mend = "the account has nothing left; top it up, what was answered is kept"
        return RequestError(f"{said}: {mend}", temporary=False, mendable=True)
    if status in _TEMPORARY or status >= 500:
        return RequestError(said, temporary=True, wait_seconds=asked_wait(headers))
    return RequestError(f"{said}: {_mend(status, codes, message)}", temporary=False, mendable=True)


def _mend(status: int, codes: list[str], message: str) -> str:
    if 300 <= status < 400:
        return "redirections are not followed; set client.base_url to the final address"
    if status == 400 and (_TOO_LONG.intersection(codes) or _TOO_LONG_WORDS.search(message)):
        return _MENDS[413]
    if status in _MENDS:
        return _MENDS[status]
    return f"check client.model and client.base_url; {_PARAMETERS}"


def asked_wait(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return the seconds that ``retry-after-ms`` or ``retry-after`` ask to wait, if either does.

    Args:
        headers: Names in lower case, or a mapping that does not care.
        now: Seconds since the epoch, for a date; the clock's by default.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    given = headers.get("retry-after")
    seconds = _number(given)
    if seconds is not None or given is None:
        return seconds
    try:
        then = parsedate_to_datetime(given).timestamp()
    except (TypeError, ValueError):
        return None
    return max(0.0, then - (time.time() if now is None else now))


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and math.isfinite(value) and value >= 0 else None


def _error(body: object) -> Mapping[str, Any]:
    """Return an error's fields; OpenAI's client has taken them out of ``error`` already."""
    inner = body.get("error") if isinstance(body, Mapping) else None
    error = inner if isinstance(inner, Mapping) else body
    return error if isinstance(error, Mapping) else {}


def _message(body: object) -> str:
    message = _error(body).get("message")
    return message if isinstance(message, str) else ""


def _codes(body: object) -> list[str]:
    """Return the machine-readable codes of an error's body, the most specific one first."""
    error = _error(body)
    found = [error.get("code"), error.get("type")]
    return [code for code in found if isinstance(code, str) and _PLAIN_CODE.fullmatch(code)]
