"""Servers that speak the APIs of OpenAI and Anthropic: addresses, keys, failures, retries.

The official clients' own retries are switched off: the policy here is the only one. Answers are
read from the JSON that came, for the clients' types do not check what a server sends. Text leaves
the machine only where it is allowed.
"""

from __future__ import annotations

import logging
import math
import os
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from importlib import import_module
from ipaddress import ip_address
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from recap.cli.prompted import ClientConfig
from recap.data.encode import joined_system
from recap.errors import ConfigError, RecapError
from recap.prompt.logprobs import AnswerToken, read_tokens
from recap.records import Message

_OFFICIAL = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
_PATHS = {"openai": "/v1", "anthropic": ""}
_KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}


def endpoint(client: ClientConfig) -> str:
    """Return the address that a client's requests go to.

    The official clients' own variables (``OPENAI_BASE_URL`` and the like) are not read: an address
    that no configuration names could not be checked.

    Raises:
        ConfigError: When ``client.base_url`` is not a plain address.
    """
    url = client.base_url if client.base_url is not None else _OFFICIAL[client.name]
    parts = urlsplit(url)
    plain = parts.scheme in ("http", "https") and parts.hostname and "\\" not in url
    if not plain or parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(
            "client.base_url: give scheme, host and path alone, such as http://127.0.0.1:8000/v1; "
            f"a key belongs into {_KEYS[client.name]}"
        )
    return url


def is_loopback(url: str) -> bool:
    """Whether an address is this machine: ``localhost``, 127.0.0.0/8 or ::1.

    Any other name counts as another machine, whatever it resolves to at the moment.

    >>> is_loopback("http://127.0.0.1:8000/v1"), is_loopback("http://localhost.example.org")
    (True, False)
    """
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_destination(client: ClientConfig, *, allow_external: bool) -> None:
    """Refuse a server elsewhere, unless sending text there is allowed.

    Raises:
        ConfigError: When it is not, or the address is not a plain one.
    """
    url = endpoint(client)
    if not is_loopback(url) and not allow_external:
        raise ConfigError(
            f"client={client.name} would send dialogues to {urlsplit(url).hostname}; where consent "
            "and approval cover that, set privacy.allow_external=true, otherwise name a server on "
            f"this machine with client.base_url=http://127.0.0.1:PORT{_PATHS[client.name]}"
        )


def api_key(client: ClientConfig) -> str:
    """Return the key for a server, from the official client's environment variable.

    A server on this machine may want none: without one, a placeholder is sent.

    Raises:
        ConfigError: When a server elsewhere lacks its key.
    """
    variable = _KEYS[client.name]
    key = os.environ.get(variable, "").strip()
    if not key and not is_loopback(endpoint(client)):
        raise ConfigError(
            f"client={client.name} needs a key, and the environment variable {variable} is not "
            f"set; export {variable}=… first (it is written to no file)"
        )
    return key or "none"


_TEMPORARY = frozenset({408, 409, 425, 429})
_HINTS = {
    401: "the key was refused; set the environment variable of the client's key to a valid one",
    403: "the key may not use this model; choose another client.model, or another key",
    404: "there is no such model or address; check client.model and client.base_url, which ends in "
    "/v1 at most servers",
    413: "the prompt is too long; show less with prompt.history=intervention or shots=0",
}
_REFUSING = frozenset({400, 403, 422})
_PLAIN_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,59}")
_EXHAUSTED = frozenset({"insufficient_quota", "billing_error", "billing_hard_limit_reached"})
_TOO_LONG = frozenset({"context_length_exceeded"})
_FILTERED = frozenset({"content_filter", "content_policy_violation"})
# Some servers have no code for these. Messages may quote prompts: searched, never shown.
_TOO_LONG_WORDS = re.compile(r"context (?:length|window|size)|prompt is too long", re.IGNORECASE)
_NO_SYSTEM_WORDS = re.compile(
    r"system (?:role|message)|role\W.{0,40}\bsystem\b|roles must alternate", re.IGNORECASE
)
_FILTERED_WORDS = re.compile(r"blocked by content filtering policy", re.IGNORECASE)
_PARAMETERS = (
    "the model may refuse a parameter; client.temperature=null, client.top_p=null and "
    "client.thinking=true leave them out, "
    "client.limit_parameter=max_completion_tokens is what some want"
)


class RequestError(RecapError):
    """A request came to nothing.

    Args:
        said: What happened, without any text of the request or the answer.
        temporary: Whether trying again may help.
        fixable: Whether the user's configuration is at fault.
        wait_seconds: How long the server asks to wait.
        maybe_served: Whether the server may have answered, and charged, without its answer arriving
            whole.
        refused: Whether the server declined to answer this very prompt.
        lacking: What of the request the server may not know: ``system`` messages, a ``parameter``.
    """

    def __init__(
        self,
        said: str,
        *,
        temporary: bool,
        fixable: bool = False,
        wait_seconds: float | None = None,
        maybe_served: bool = False,
        refused: bool = False,
        lacking: str = "",
    ) -> None:
        super().__init__(said)
        self.temporary = temporary
        self.fixable = fixable
        self.wait_seconds = wait_seconds
        self.maybe_served = maybe_served
        self.refused = refused
        self.lacking = lacking


def failed_status(status: int, body: object, headers: Mapping[str, str]) -> RequestError:
    """Return what an HTTP status of 300 and above means.

    Args:
        status: The status.
        body: The answer's JSON, if it was JSON; its message may quote the prompt and is not used.
        headers: The answer's headers.
    """
    codes = _codes(body)
    named = ": ".join([*codes[:1], *_plain(_error(body), "param")])
    said = f"the server answered with status {status}" + (f" ({named})" if named else "")
    message = _message(body)
    if status == 400 and (_FILTERED.intersection(codes) or _FILTERED_WORDS.search(message)):
        return RequestError(said, temporary=False, refused=True)
    if _EXHAUSTED.intersection(codes):
        hint = "the account has nothing left; top it up, what was answered is kept"
        return RequestError(f"{said}: {hint}", temporary=False, fixable=True)
    if status in _TEMPORARY or status >= 500:
        return RequestError(said, temporary=True, wait_seconds=asked_wait(headers))
    hint, lacking = _hint(status, codes, message), ""
    if status in _REFUSING and hint != _HINTS[413]:
        lacking = "system" if _NO_SYSTEM_WORDS.search(message) else "parameter"
    return RequestError(f"{said}: {hint}", temporary=False, fixable=True, lacking=lacking)


def _hint(status: int, codes: list[str], message: str) -> str:
    if 300 <= status < 400:
        return "redirections are not followed; set client.base_url to the final address"
    if status == 400 and (_TOO_LONG.intersection(codes) or _TOO_LONG_WORDS.search(message)):
        return _HINTS[413]
    if status in _HINTS:
        return _HINTS[status]
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
    error = _error(body)
    message = error.get("message", error.get("detail"))
    return message if isinstance(message, str) else ""


def _codes(body: object) -> list[str]:
    """Return the machine-readable codes of an error's body, the most specific one first."""
    return _plain(_error(body), "code", "type")


def _plain(error: Mapping[str, Any], *names: str) -> list[str]:
    found = [error.get(name) for name in names]
    return [word for word in found if isinstance(word, str) and _PLAIN_CODE.fullmatch(word)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What a server answered.

    ``refused``: it declined to answer; ``text`` is then what it said instead, or empty. Token
    counts are the server's own, ``None`` where it gives none. ``cut``: the limit ended the text,
    which may be a thought: the server sets none apart. ``tokens`` are there until the label's
    ``probabilities`` were taken from them.
    """

    text: str
    refused: bool = False
    input_tokens: int | None = None
    output_tokens: int | None = None
    cut: bool = False
    tokens: tuple[AnswerToken, ...] = field(default=(), compare=False)
    probabilities: Mapping[str, float] | None = None


class ChatClient(Protocol):
    """Something that answers a prompt; called from several threads at a time."""

    def complete(self, messages: Sequence[Message]) -> Reply:
        """Return the answer to one prompt, asked once.

        Raises:
            RequestError: When no answer came.
        """


def build_client(client: ClientConfig, *, max_new_tokens: int) -> ChatClient:
    """Return the client of a server.

    Args:
        client: Its options.
        max_new_tokens: Longest answer.

    Raises:
        ConfigError: When its package or its key is missing.
    """
    kind = OpenAIClient if client.name == "openai" else AnthropicClient
    return kind(client, max_new_tokens=max_new_tokens)


class OpenAIClient:
    """Asks a server that speaks OpenAI's chat completions: theirs, vLLM, Ollama and others."""

    def __init__(self, client: ClientConfig, *, max_new_tokens: int) -> None:
        self._sdk = _official("openai")
        self._client = self._sdk.OpenAI(**_connection(client, self._sdk))
        self._parameters = {
            "model": client.model,
            client.limit_parameter: max_new_tokens,
            "extra_body": thinking_off(client),
            **_sampling(client),
        }
        # What is done without from the first request on that a server refuses for it.
        self._takes_system = True
        self._logprobs: dict[str, Any] = {}
        if client.top_logprobs is not None:
            self._logprobs = {"logprobs": True, "top_logprobs": client.top_logprobs}

    def complete(self, messages: Sequence[Message]) -> Reply:
        """Return the answer to one prompt; errors as in :class:`ChatClient`.

        Where a server refuses log-probabilities, it is asked for none; where it refuses the system
        message, that begins the user's, as for a model on this machine.
        """
        create = self._client.chat.completions.with_raw_response.create
        while True:
            tried = self._takes_system, self._logprobs
            chat = _chat(messages if self._takes_system else joined_system(messages))
            ask = partial(create, messages=chat, **self._parameters, **self._logprobs)
            try:
                return _asked(self._sdk, ask, self._read)
            except RequestError as failure:
                self._takes_system &= failure.lacking != "system"
                self._logprobs = {} if failure.lacking == "parameter" else self._logprobs
                if tried == (self._takes_system, self._logprobs):
                    raise

    @staticmethod
    def _read(body: Mapping[str, Any]) -> Reply:
        choices = body.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, Mapping) else None
        if not isinstance(choice, Mapping) or not isinstance(message, Mapping):
            raise _malformed()
        refusal = message.get("refusal")
        usage = body.get("usage")
        text = _text(message.get("content")) or _text(refusal)
        thought = _text(message.get("reasoning_content") or message.get("reasoning"))
        cut = choice.get("finish_reason") == "length"
        return Reply(
            text=_spoken_of(text, thought) if cut else text,
            cut=cut and not thought,
            tokens=read_tokens(choice),
            refused=bool(refusal) or choice.get("finish_reason") == "content_filter",
            input_tokens=_count(usage, "prompt_tokens"),
            output_tokens=_count(usage, "completion_tokens"),
        )


class AnthropicClient:
    """Asks a server that speaks Anthropic's messages."""

    def __init__(self, client: ClientConfig, *, max_new_tokens: int) -> None:
        self._sdk = _official("anthropic")
        # Its traces could carry the prompts.
        connection = {**_connection(client, self._sdk), "open_telemetry": False}
        self._client = self._sdk.Anthropic(**connection)
        self._parameters = {
            "model": client.model,
            "max_tokens": max_new_tokens,
            # Not arguments of their own any more (anthropic 2.14), though servers take them.
            "extra_body": _sampling(client),
        }

    def complete(self, messages: Sequence[Message]) -> Reply:
        """Return the answer to one prompt; errors as in :class:`ChatClient`."""
        system = "\n\n".join(m.text for m in messages if m.role == "system")
        chat = _chat([message for message in messages if message.role != "system"])
        create = self._client.messages.with_raw_response.create
        options = {**self._parameters, **({"system": system} if system else {})}
        return _asked(self._sdk, partial(create, messages=chat, **options), self._read)

    @staticmethod
    def _read(body: Mapping[str, Any]) -> Reply:
        blocks, usage = body.get("content"), body.get("usage")
        if not isinstance(blocks, list):
            raise _malformed()
        text, thought = _text(blocks), _text(blocks, "thinking")
        inputs = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        counted = [count for name in inputs if (count := _count(usage, name)) is not None]
        return Reply(
            text=_spoken_of(text, thought) if body.get("stop_reason") == "max_tokens" else text,
            refused=body.get("stop_reason") == "refusal",
            input_tokens=sum(counted) if counted else None,
            output_tokens=_count(usage, "output_tokens"),
        )


def _official(package: str) -> Any:
    """Return the official client's package, its log kept from writing requests down."""
    try:
        sdk = import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"client={package} needs the package {package}; "
            'pip install "recap-counseling[api]" brings it'
        ) from error
    # OPENAI_LOG=debug and ANTHROPIC_LOG=debug would put whole prompts on the screen.
    logging.getLogger(package).setLevel(logging.WARNING)
    return sdk


def _connection(client: ClientConfig, sdk: Any) -> dict[str, Any]:
    url = endpoint(client)
    return {
        "api_key": api_key(client),
        "base_url": url,
        "max_retries": 0,
        "timeout": client.timeout_seconds,
        # A few packed bytes could unpack to gigabytes.
        "default_headers": {"Accept-Encoding": "identity"},
        # A proxy of the environment, or a redirection, would carry text off this machine.
        "http_client": sdk.DefaultHttpxClient(
            trust_env=not is_loopback(url),
            follow_redirects=False,
            timeout=client.timeout_seconds,
            event_hooks={"response": [partial(_read_bounded, client)]},
        ),
    }


def _read_bounded(client: ClientConfig, response: Any) -> None:
    """Read what a server answers here, where it can be broken off: the clients would read for ever.

    Raises:
        RequestError: When it is longer than it may be, or packed all the same.
    """
    if response.headers.get("content-encoding", "identity") != "identity":
        raise _malformed()
    stream, whole = response.stream, bytearray()
    most = client.longest_answer_bytes
    for part in stream:
        whole += part
        if len(whole) > most:
            said = f"the server's answer is longer than client.longest_answer_bytes={most}"
            raise RequestError(said, temporary=False, maybe_served=True)
    stream.close()
    # Each official client has an httpx of its own.
    httpx = import_module(type(response).__module__.partition(".")[0])
    response.stream = httpx.ByteStream(bytes(whole))


def thinking_off(client: ClientConfig) -> dict[str, Any]:
    """Return how a server's chat template is asked not to think; empty where it is not asked.

    vLLM, SGLang and llama.cpp hand these on to the template. OpenAI's own address refuses what it
    does not know.
    """
    if client.name != "openai" or client.base_url is None or client.thinking:
        return {}
    return {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}}


def _sampling(client: ClientConfig) -> dict[str, float]:
    wanted = {"temperature": client.temperature, "top_p": client.top_p}
    return {name: value for name, value in wanted.items() if value is not None}


def _asked(sdk: Any, ask: Callable[[], Any], read: Callable[[Mapping[str, Any]], Reply]) -> Reply:
    """Return the reply in the JSON object that a request came back with."""
    try:
        body = ask().http_response.json()
    except sdk.APIStatusError as error:
        failure = failed_status(error.status_code, error.body, error.response.headers)
        if failure.refused:
            # An error's status is not charged.
            return Reply(text="", refused=True, input_tokens=0, output_tokens=0)
        raise failure from error
    except sdk.APITimeoutError as error:
        raise RequestError(
            "the server was silent for longer than client.timeout_seconds",
            temporary=True,
            maybe_served=True,
        ) from error
    except sdk.APIConnectionError as error:
        if isinstance(error.__cause__, RequestError):
            raise error.__cause__ from None
        connected = type(error.__cause__).__name__ not in ("ConnectError", "ConnectTimeout")
        said = "the connection was cut"
        if not connected:
            place = error.request.url.netloc.decode()
            said = f"no server answers at {place}: is it running, is client.base_url right?"
        raise RequestError(said, temporary=True, maybe_served=connected) from error
    # JSON can be nested deeper than Python goes.
    except (sdk.APIError, ValueError, RecursionError) as error:
        raise _malformed() from error
    if not isinstance(body, Mapping):
        raise _malformed()
    return read(body)


def _malformed() -> RequestError:
    return RequestError(
        "the server's answer is not of the form that its API has", temporary=True, maybe_served=True
    )


def _text(value: object, kind: str = "text") -> str:
    """Return a text, of a list of blocks that of its blocks of a kind."""
    if isinstance(value, list):
        blocks = [b for b in value if isinstance(b, Mapping) and b.get("type") == kind]
        return "".join(_text(block.get(kind)) for block in blocks)
    return value if isinstance(value, str) else ""


def _spoken_of(text: str, thought: str) -> str:
    """Return a raw answer that was cut off; inside a thought, the thought, marked as one."""
    return text if text.strip() or not thought else f"<think>{thought}"


def _chat(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.text} for message in messages]


def _count(usage: object, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


Result = TypeVar("Result")


def retry_wait(client: ClientConfig, failures: int, asked: float | None, jitter: float) -> float:
    """Return the seconds to wait before a request is tried again.

    The wait doubles with every failure and is then shortened by up to half at random, so that
    requests which failed together do not come back together; a server's ``Retry-After`` is honoured
    in full.

    Args:
        client: Says how long the first wait and the longest are.
        failures: From 1.
        asked: What the server asked for, if it did.
        jitter: From 0 to 1.
    """
    grown = min(client.longest_wait_seconds, client.backoff_seconds * 2.0 ** (failures - 1))
    return max(grown * (1 - jitter / 2), asked or 0.0)


def with_retries(
    request: Callable[[], Result],
    client: ClientConfig,
    *,
    pause: Callable[[float], None] = time.sleep,
) -> Result:
    """Return what a request gives, tried again as long as options and failures allow.

    Args:
        request: Asks once.
        client: How often and after how long.
        pause: Waits so many seconds; what it raises ends the trying.

    Raises:
        RecapError: When the last attempt failed; a :class:`ConfigError` where the configuration is
            at fault.
    """
    for failures in range(1, client.attempts + 1):
        try:
            return request()
        except RequestError as failure:
            asked = failure.wait_seconds
            if not failure.temporary:
                raise (ConfigError if failure.fixable else RecapError)(str(failure)) from failure
            if asked is not None and asked > client.longest_wait_seconds:
                raise RecapError(
                    f"{failure}, and asks to wait {asked:.0f} s, longer than "
                    f"client.longest_wait_seconds={client.longest_wait_seconds:g}"
                ) from failure
            if failures == client.attempts:
                tried = "once" if failures == 1 else f"{failures} times"
                raise RecapError(f"{failure} (tried {tried})") from failure
            pause(retry_wait(client, failures, asked, random.random()))
    raise AssertionError("a request is tried at least once")
