"""A server on loopback that speaks OpenAI's chat completions and Anthropic's messages, and errs."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = "Behavior: Arguing - Challenging\nReason: It doubts the counselor."


@dataclass(frozen=True, kw_only=True)
class Request:
    """What came in."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def prompt(self) -> str:
        """All text of the messages."""
        parts = [self.body.get("system", ""), *(m["content"] for m in self.body["messages"])]
        return "\n".join(parts)


@dataclass(kw_only=True)
class Server:
    """Counts what it is asked; errs by ``script``, then answers.

    ``script`` holds one behaviour a request, in the order of arrival; when it is empty, requests
    get ``answer(request)`` (a text, or a text and what else the reply says), or ``always`` if
    it is set.
    """

    url: str = ""
    script: list[str] = field(default_factory=list)
    always: str | None = None
    answer: Callable[[Request], str | tuple[str | None, dict[str, Any]]] = lambda request: GOOD
    delay_seconds: float = 0.0
    usage: tuple[int, int] | None = (100, 20)
    requests: list[Request] = field(default_factory=list)
    most_at_a_time: int = 0
    _at_a_time: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arrive(self, request: Request) -> str | None:
        with self._lock:
            self.requests.append(request)
            self._at_a_time += 1
            self.most_at_a_time = max(self.most_at_a_time, self._at_a_time)
            return self.script.pop(0) if self.script else self.always

    def leave(self) -> None:
        with self._lock:
            self._at_a_time -= 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: Server

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(path=self.path, headers=headers, body=body)
        behaviour = self.server_of.arrive(request)
        try:
            time.sleep(self.server_of.delay_seconds)
            if behaviour is None:
                said = self.server_of.answer(request)
                text, changes = (said, {}) if isinstance(said, str) else said
                self._send(200, self._reply(text, **changes))
            else:
                getattr(self, f"_{behaviour}")(request)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client gave up
        finally:
            self.server_of.leave()

    def do_GET(self) -> None:
        self._send(404, {})

    def log_message(self, *args: object) -> None:
        pass

    @property
    def _is_openai(self) -> bool:
        return self.path.endswith("/chat/completions")

    def _reply(self, text: str | None, **changes: Any) -> dict[str, Any]:
        given, said = self.server_of.usage or (0, 0)
        if self._is_openai:
            refusal = changes.pop("refusal", None)
            message = {"role": "assistant", "content": text, "refusal": refusal}
            if "reasoning_content" in changes:
                message["reasoning_content"] = changes.pop("reasoning_content")
            choice = {"index": 0, "message": message, "finish_reason": "stop", **changes}
            body: dict[str, Any] = {
                "id": "c",
                "object": "chat.completion",
                "created": 0,
                "model": "m",
                "choices": [choice],
            }
            usage = {"prompt_tokens": given, "completion_tokens": said}
        else:
            blocks = [] if text is None else [{"type": "text", "text": text}]
            body = {
                "id": "m",
                "type": "message",
                "role": "assistant",
                "model": "m",
                "content": blocks,
                "stop_reason": "end_turn",
                "stop_sequence": None,
                **changes,
            }
            usage = {"input_tokens": given, "output_tokens": said}
        return {**body, "usage": usage} if self.server_of.usage else body

    def _send(
        self, status: int, body: object, headers: dict[str, str] | None = None, cut: int = 0
    ) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw[: len(raw) - cut])
        if cut:
            self.wfile.flush()
            self.close_connection = True

    def _error(
        self, status: int, code: str, request: Request, why: str = "refused", **headers: str
    ) -> None:
        # Real servers quote the prompt in their messages now and then.
        error = {"message": f"{why}: {request.prompt}", "type": code, "code": code, "param": None}
        if code == "unsupported_value":
            error["param"] = "temperature"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._send(status, {"type": "error", "error": error}, named)

    def _429(self, request: Request) -> None:
        self._error(429, "rate_limit_error", request)

    def _429_wait(self, request: Request) -> None:
        self._error(429, "rate_limit_error", request, retry_after="0.3")

    def _429_tomorrow(self, request: Request) -> None:
        self._error(429, "rate_limit_error", request, retry_after="86400")

    def _quota(self, request: Request) -> None:
        self._error(429, "insufficient_quota", request)

    def _500(self, request: Request) -> None:
        self._error(500, "api_error", request)

    def _529(self, request: Request) -> None:
        self._error(529, "overloaded_error", request)

    def _401(self, request: Request) -> None:
        self._error(401, "authentication_error", request)

    def _key(self, request: Request) -> None:
        key = request.headers.get("x-api-key") or request.headers["authorization"].split()[-1]
        self._error(400, key, request, f"no such key as {key}")

    def _404(self, request: Request) -> None:
        self._error(404, "model_not_found", request)

    def _too_long(self, request: Request) -> None:
        self._error(400, "context_length_exceeded", request)

    def _too_long_in_words(self, request: Request) -> None:
        self._error(400, "BadRequestError", request, "This model's maximum context length is 9")

    def _parameter(self, request: Request) -> None:
        self._error(400, "unsupported_value", request)

    def _without(self, lacking: bool, status: int, body: object) -> None:
        self._send(status, body) if lacking else self._send(200, self._reply(GOOD))

    def _no_logprobs_400(self, request: Request) -> None:
        error = {"message": "no", "type": "invalid_request_error", "param": "logprobs"}
        self._without("logprobs" in request.body, 400, {"error": error})

    def _no_logprobs_403(self, request: Request) -> None:
        why = "You are not allowed to request logprobs from this model"
        self._without("logprobs" in request.body, 403, {"error": {"message": why}})

    def _no_logprobs_422(self, request: Request) -> None:
        self._without("logprobs" in request.body, 422, {"detail": [{"msg": "extra"}]})

    def _refusing_system(self, request: Request, body: object) -> None:
        self._without(request.body["messages"][0]["role"] == "system", 400, body)

    def _no_system(self, request: Request) -> None:
        self._refusing_system(request, {"message": "System role not supported", "code": 400})

    def _no_system_in_detail(self, request: Request) -> None:
        why = "Conversation roles must alternate user/assistant/user/assistant/..."
        self._refusing_system(request, {"detail": why})

    def _no_system_of_openai(self, request: Request) -> None:
        why = "Unsupported value: 'messages[0].role' does not support 'system' with this model."
        self._refusing_system(request, {"error": {"message": why, "code": "unsupported_value"}})

    def _filtered_in_words(self, request: Request) -> None:
        why = "Output blocked by content filtering policy"
        self._error(400, "invalid_request_error", request, why)

    def _filtered(self, request: Request) -> None:
        self._error(400, "content_filter", request)

    def _cut(self, request: Request) -> None:
        self._send(200, self._reply(GOOD), cut=30)

    def _dropped(self, request: Request) -> None:
        self.close_connection = True

    def _slow(self, request: Request) -> None:
        time.sleep(1.0)
        self._send(200, self._reply(GOOD))

    def _drip(self, request: Request) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self._write_on(b" ", pause=0.05)

    def _drip_headers(self, request: Request) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        self._write_on(b"x", pause=0.05)

    def _endless(self, request: Request) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self._write_on(b" " * 65536)

    def _write_on(self, part: bytes, pause: float = 0.0) -> None:
        """Write the same until the client or the test has gone."""
        self.close_connection = True
        ends = time.monotonic() + 60
        while time.monotonic() < ends:
            self.wfile.write(part)
            self.wfile.flush()
            time.sleep(pause)

    def _deep(self, request: Request) -> None:
        self._send(200, b"[" * 200_000 + b"]" * 200_000)

    def _deep_error(self, request: Request) -> None:
        self._send(500, b"[" * 200_000 + b"]" * 200_000)

    def _packed(self, request: Request) -> None:
        whole = json.dumps(self._reply(" " * 50_000_000)).encode()
        self._send(200, gzip.compress(whole, 1), {"Content-Encoding": "gzip"})

    def _hang(self, request: Request) -> None:
        time.sleep(60)

    def _invalid_json(self, request: Request) -> None:
        self._send(200, b'{"choices": [{"mess')

    def _web_page(self, request: Request) -> None:
        self._send(200, b"<html>busy</html>", {"Content-Type": "text/html"})

    def _other_form(self, request: Request) -> None:
        self._send(200, {"choices": ["no"], "content": None})

    def _list(self, request: Request) -> None:
        self._send(200, [1, 2])

    def _refusal(self, request: Request) -> None:
        said = "I cannot call this Blaming."
        if self._is_openai:
            self._send(200, self._reply(None, refusal=said))
        else:
            self._send(200, self._reply(said, stop_reason="refusal"))

    def _empty(self, request: Request) -> None:
        self._send(200, self._reply(None))

    def _outside(self, request: Request) -> None:
        self._send(200, self._reply("Behavior: Sulking\nReason: It sulks."))

    def _redirect(self, request: Request) -> None:
        self._send(307, {}, {"Location": f"{self.server_of.url}/elsewhere{self.path}"})


@contextmanager
def serving(**options: Any) -> Iterator[Server]:
    """Yield a server that listens on a free port of loopback."""
    server = Server(**options)
    handler = type("Handler", (_Handler,), {"server_of": server})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
