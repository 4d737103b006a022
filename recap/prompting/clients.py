"""The official clients of OpenAI-style and Anthropic servers, reduced to one question, one answer.

Their own retries are switched off: :mod:`recap.prompting.retry` has the only policy. Answers are
read from the JSON that came, for the clients' types do not check what a server sends.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from recap.errors import ConfigError
from recap.prompting.endpoint import api_key, endpoint, is_loopback
from recap.prompting.failures import RequestError, failed_status
from recap.prompting.options import ClientConfig
from recap.records import Message


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What a server answered.

    ``refused``: it declined to answer; ``text`` is then what it said instead, or empty. Token
    counts are the server's own, ``None`` where it gives none.
    """

    text: str
    refused: bool = False
    input_tokens: int | None = None
    output_tokens: int | None = None


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
            **_sampling(client),
        }

    def complete(self, messages: Sequence[Message]) -> Reply:
        """Return the answer to one prompt; errors as in :class:`ChatClient`."""
        chat = [{"role": message.role, "content": message.text} for message in messages]
        create = self._client.chat.completions.with_raw_response.create
        try:
            body = _asked(self._sdk, lambda: create(messages=chat, **self._parameters))
        except RequestError as failure:
            return _declined(failure)
        choices = body.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, Mapping) else None
        if not isinstance(choice, Mapping) or not isinstance(message, Mapping):
            raise _malformed()
        refusal = message.get("refusal")
        usage = body.get("usage")
        return Reply(
            text=_text(message.get("content")) or _text(refusal),
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
        chat = [{"role": m.role, "content": m.text} for m in messages if m.role != "system"]
        create = self._client.messages.with_raw_response.create
        options = {**self._parameters, **({"system": system} if system else {})}
        try:
            body = _asked(self._sdk, lambda: create(messages=chat, **options))
        except RequestError as failure:
            return _declined(failure)
        blocks, usage = body.get("content"), body.get("usage")
        if not isinstance(blocks, list):
            raise _malformed()
        texts = [
            b.get("text") for b in blocks if isinstance(b, Mapping) and b.get("type") == "text"
        ]
        inputs = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        counted = [count for name in inputs if (count := _count(usage, name)) is not None]
        return Reply(
            text="".join(map(_text, texts)),
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
        # A proxy of the environment, or a redirection, would carry text off this machine.
        "http_client": sdk.DefaultHttpxClient(
            trust_env=not is_loopback(url), follow_redirects=False, timeout=client.timeout_seconds
        ),
    }


def _sampling(client: ClientConfig) -> dict[str, float]:
    wanted = {"temperature": client.temperature, "top_p": client.top_p}
    return {name: value for name, value in wanted.items() if value is not None}


def _asked(sdk: Any, ask: Any) -> Mapping[str, Any]:
    """Return the JSON object that a request came back with."""
    try:
        body = ask().http_response.json()
    except sdk.APIStatusError as error:
        raise failed_status(error.status_code, error.body, error.response.headers) from error
    except sdk.APITimeoutError as error:
        raise RequestError(
            "the server was silent for longer than client.timeout_seconds",
            temporary=True,
            maybe_served=True,
        ) from error
    except sdk.APIConnectionError as error:
        connected = type(error.__cause__).__name__ not in ("ConnectError", "ConnectTimeout")
        said = "was cut" if connected else "failed"
        raise RequestError(
            f"the connection {said}", temporary=True, maybe_served=connected
        ) from error
    except (sdk.APIError, ValueError) as error:
        raise _malformed() from error
    if not isinstance(body, Mapping):
        raise _malformed()
    return body


def _declined(failure: RequestError) -> Reply:
    """Return the reply of a server that declines by an error's status; any other error is one."""
    if failure.refused:
        # An error's status is not charged.
        return Reply(text="", refused=True, input_tokens=0, output_tokens=0)
    raise failure


def _malformed() -> RequestError:
    return RequestError(
        "the server's answer is not of the form that its API has", temporary=True, maybe_served=True
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(usage: object, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
