"""The official clients against servers that misbehave, over real HTTP on loopback."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import pytest
from fake_servers import GOOD, Server, serving

from recap.cli.prompted import ClientConfig
from recap.errors import ConfigError, RecapError
from recap.prompt.clients import (
    ChatClient,
    RequestError,
    asked_wait,
    build_client,
    retry_wait,
    with_retries,
)
from recap.records import Message

SECRET = "the thing with my brother that nobody knows"
MESSAGES = (Message(role="system", text="Label it."), Message(role="user", text=SECRET))
KINDS = ("openai", "anthropic")
PASSING = (
    *("429", "500", "529", "cut", "dropped", "slow"),
    *("invalid_json", "web_page", "other_form", "list"),
)


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def client_of(kind: str, server: Server, **options: Any) -> ChatClient:
    path = "/v1" if kind == "openai" else ""
    values = {"model": "m", "timeout_seconds": 0.4, **options}
    config = ClientConfig(name=kind, base_url=server.url + path, **values)  # type: ignore[arg-type]
    return build_client(config, max_new_tokens=64)


def asked(client: ChatClient, attempts: int = 3, backoff_seconds: float = 0.0) -> Any:
    policy = ClientConfig(
        name="openai",
        attempts=attempts,
        backoff_seconds=backoff_seconds,
        longest_wait_seconds=2.0,
    )
    return with_retries(lambda: client.complete(MESSAGES), policy)


def test_an_openai_request_is_greedy_and_carries_system_and_user_message() -> None:
    with serving() as server:
        reply = client_of("openai", server).complete(MESSAGES)
    [request] = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Label it."},
            {"role": "user", "content": SECRET},
        ],
        "temperature": 0,
        "top_p": 1,
        "max_tokens": 64,
        "logprobs": True,
        "top_logprobs": 20,
        "chat_template_kwargs": {"enable_thinking": False, "thinking": False},
    }
    assert (reply.text, reply.refused) == (GOOD, False)
    assert (reply.input_tokens, reply.output_tokens) == (100, 20)


def test_an_anthropic_request_is_greedy_and_has_its_system_text_apart() -> None:
    with serving() as server:
        reply = client_of("anthropic", server, top_p=None).complete(MESSAGES)
    [request] = server.requests
    assert request.path == "/v1/messages"
    assert request.body == {
        "model": "m",
        "system": "Label it.",
        "messages": [{"role": "user", "content": SECRET}],
        "temperature": 0,
        "max_tokens": 64,
    }
    assert (reply.text, reply.input_tokens, reply.output_tokens) == (GOOD, 100, 20)


@pytest.mark.parametrize("kind", KINDS)
def test_sampling_parameters_are_left_out_where_a_model_refuses_them(kind: str) -> None:
    with serving() as server:
        client_of(kind, server, temperature=None, top_p=None).complete(MESSAGES)
    assert not {"temperature", "top_p"} & set(server.requests[0].body)


def test_nothing_is_said_of_thinking_where_it_is_wanted() -> None:
    with serving() as server:
        client_of("openai", server, thinking=True).complete(MESSAGES)
    assert "chat_template_kwargs" not in server.requests[0].body


def test_a_thought_of_anthropics_that_was_cut_off_is_marked_as_one() -> None:
    blocks = [{"type": "thinking", "thinking": "Is it Blaming?"}]
    answer = (None, {"content": blocks, "stop_reason": "max_tokens"})
    with serving(answer=lambda request: answer) as server:
        assert client_of("anthropic", server).complete(MESSAGES).text == "<think>Is it Blaming?"


def test_the_longest_answer_goes_under_the_name_that_the_model_knows() -> None:
    with serving() as server:
        limit = "max_completion_tokens"
        client_of("openai", server, limit_parameter=limit).complete(MESSAGES)
    assert server.requests[0].body[limit] == 64
    assert "max_tokens" not in server.requests[0].body


@pytest.mark.parametrize("behaviour", PASSING)
@pytest.mark.parametrize("kind", KINDS)
def test_what_may_pass_is_tried_again(kind: str, behaviour: str) -> None:
    with serving(script=[behaviour]) as server:
        reply = asked(client_of(kind, server))
    assert reply.text == GOOD
    # The clients' own retries are off: one failure, one more request.
    assert len(server.requests) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_asks_to_wait_is_waited_for(kind: str) -> None:
    with serving(script=["429_wait"]) as server:
        client = client_of(kind, server)
        began = time.monotonic()
        asked(client)
    assert time.monotonic() - began >= 0.3


def test_a_server_that_asks_to_wait_for_long_ends_it() -> None:
    with serving(script=["429_tomorrow"]) as server:
        with pytest.raises(RecapError, match=r"asks to wait 86400 s.*longest_wait_seconds"):
            asked(client_of("openai", server))
        assert len(server.requests) == 1


@pytest.mark.parametrize("behaviour", ["500", "invalid_json", "slow"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_last_attempt_ends_it_without_a_word_of_the_client(kind: str, behaviour: str) -> None:
    with serving(always=behaviour) as server:
        with pytest.raises(RecapError, match="tried 2 times") as caught:
            asked(client_of(kind, server), attempts=2)
        assert len(server.requests) == 2
    assert caught.value.exit_code == 1
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("401", "environment variable"),
        ("404", "client.model"),
        ("too_long", "prompt.history=intervention"),
        ("quota", "nothing left"),
        ("too_long_in_words", "prompt.history=intervention"),
        ("parameter", "client.temperature=null"),
        ("redirect", "redirections are not followed"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_the_user_can_mend_is_said_at_once(kind: str, behaviour: str, said: str) -> None:
    with serving(always=behaviour) as server:
        with pytest.raises(ConfigError, match=said) as caught:
            asked(client_of(kind, server))
        # It may be the log-probabilities that are refused.
        again = kind == "openai" and behaviour == "parameter"
        assert len(server.requests) == 1 + again
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("status", [400, 403, 422])
def test_a_server_that_refuses_log_probabilities_is_asked_for_none(status: int) -> None:
    with serving(always=f"no_logprobs_{status}") as server:
        client = client_of("openai", server)
        assert [client.complete(MESSAGES).text for _ in range(3)] == [GOOD] * 3
    assert ["logprobs" in request.body for request in server.requests] == [True, *[False] * 3]
    with serving() as server:
        client_of("openai", server, top_logprobs=None).complete(MESSAGES)
    assert not {"logprobs", "top_logprobs"} & set(server.requests[0].body)


@pytest.mark.parametrize("behaviour", ["no_system", "no_system_in_detail", "no_system_of_openai"])
def test_a_system_message_that_a_server_refuses_begins_the_users(behaviour: str) -> None:
    with serving(always=behaviour) as server:
        client = client_of("openai", server)
        assert [client.complete(MESSAGES).text for _ in range(2)] == [GOOD] * 2
    assert len(server.requests) == 3
    joined = [{"role": "user", "content": f"Label it.\n\n{SECRET}"}]
    assert [request.body["messages"] for request in server.requests[1:]] == [joined] * 2
    assert "logprobs" in server.requests[2].body


def test_a_server_that_is_not_there_is_named() -> None:
    config = ClientConfig(name="openai", model="m", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(RecapError, match=r"no server answers at 127\.0\.0\.1:9: is it running"):
        asked(build_client(config, max_new_tokens=8), attempts=1)


def test_the_parameter_that_a_server_names_is_named() -> None:
    said = r"status 400 \(unsupported_value: temperature\): "
    with serving(always="parameter") as server, pytest.raises(ConfigError, match=said):
        asked(client_of("openai", server))


@pytest.mark.parametrize(
    ("kind", "behaviour"),
    [(kind, how) for kind in KINDS for how in ("refusal", "filtered", "filtered_in_words")],
)
def test_a_refusal_is_an_answer(kind: str, behaviour: str) -> None:
    with serving(script=[behaviour]) as server:
        reply = asked(client_of(kind, server))
        assert len(server.requests) == 1
    charged = (100, 20) if behaviour == "refusal" else (0, 0)
    assert (reply.refused, reply.input_tokens, reply.output_tokens) == (True, *charged)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_answer_is_an_answer(kind: str) -> None:
    with serving(script=["empty"]) as server:
        assert asked(client_of(kind, server)).text == ""


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_that_a_server_does_not_count_are_unknown(kind: str) -> None:
    with serving(usage=None) as server:
        reply = client_of(kind, server).complete(MESSAGES)
    assert (reply.input_tokens, reply.output_tokens) == (None, None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_proxy_of_the_environment_is_not_used_on_loopback(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as proxy, serving() as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        client_of(kind, server).complete(MESSAGES)
    assert len(server.requests) == 1
    assert proxy.requests == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_key_comes_from_the_official_variable(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}[kind]
    with serving() as server:
        client_of(kind, server).complete(MESSAGES)
        monkeypatch.setenv(variable, "k-123")
        client_of(kind, server).complete(MESSAGES)
    headers = [
        request.headers.get("x-api-key") or request.headers["authorization"]
        for request in server.requests
    ]
    assert [header.removeprefix("Bearer ") for header in headers] == ["none", "k-123"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_elsewhere_needs_a_key(kind: str) -> None:
    variable = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}[kind]
    with pytest.raises(ConfigError, match=variable):
        build_client(ClientConfig(name=kind, model="m"), max_new_tokens=8)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_package_is_told_with_what_installs_it(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(ConfigError, match=r'pip install "recap-counseling\[api\]"'):
        build_client(
            ClientConfig(name=kind, model="m", base_url="http://127.0.0.1:1"),  # type: ignore[arg-type]
            max_new_tokens=8,
        )


@pytest.mark.parametrize("kind", KINDS)
def test_the_official_clients_write_no_prompt_into_logs(
    kind: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k-123")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k-123")
    caplog.set_level(logging.DEBUG)
    logging.getLogger(kind).setLevel(logging.DEBUG)  # as OPENAI_LOG=debug has it
    with serving(script=["500"]) as server:
        asked(client_of(kind, server))
    assert SECRET not in caplog.text
    assert "k-123" not in caplog.text


def test_waits_double_and_are_shortened_by_up_to_half() -> None:
    policy = ClientConfig(name="openai", backoff_seconds=1.0, longest_wait_seconds=5.0)
    assert [retry_wait(policy, n, None, 0.0) for n in (1, 2, 3, 4)] == [1.0, 2.0, 4.0, 5.0]
    assert retry_wait(policy, 2, None, 1.0) == 1.0
    assert retry_wait(policy, 2, 7.5, 1.0) == 7.5


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "2", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:30 GMT"}, 10.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:10 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "inf"}, None),
    ],
)
def test_retry_after_is_read_as_seconds_milliseconds_or_a_date(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert asked_wait(headers, now=20.0) == seconds


def test_a_stop_breaks_off_the_waiting() -> None:
    tried = []

    def failing() -> None:
        tried.append(1)
        raise RequestError("no", temporary=True)

    def broken_off(seconds: float) -> None:
        raise KeyboardInterrupt

    policy = ClientConfig(name="openai", attempts=5, backoff_seconds=1.0, longest_wait_seconds=1.0)
    with pytest.raises(KeyboardInterrupt):
        with_retries(failing, policy, pause=broken_off)
    assert len(tried) == 1
