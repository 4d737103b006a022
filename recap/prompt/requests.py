"""Many requests to one server: a few at a time, each answer kept as soon as it is there.

Answers are kept on disk under a hash of the whole request, so that nothing is paid for twice; and
so is what requests may have cost that brought no answer, so that a later process counts it. A
budget is asked before every request, and never exceeded.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from recap.cli.prompted import ClientConfig
from recap.errors import ConfigError, RecapError, quote_id
from recap.metrics.files import json_text
from recap.prompt.clients import ChatClient, Reply, RequestError, with_retries
from recap.records import Message, Prices, Usage
from recap.system.files import write_atomic, writing

FOLDER = ".answers"
"""Under ``runs_dir``, so that runs of several names share what was answered."""


def request_key(request: Mapping[str, Any]) -> str:
    """Return the hash of a request: server, model, messages, parameters."""
    text = json.dumps(request, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class _Record(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


Asked = TypeVar("Asked")
Kept = TypeVar("Kept", bound=_Record)


class AnswerCache(Generic[Kept]):
    """Answers by the hash of their requests, one file each, written whole or not at all.

    The files hold answers, which may quote a client, and never a prompt or a key. The folder is
    made with the first answer; ``form`` is the dataclass that all are of.
    """

    def __init__(self, folder: Path, form: type[Kept]) -> None:
        self.folder = folder
        self._form = form

    def read(self, key: str) -> Kept | None:
        """Return the answer under a key, ``None`` where there is none that can be read."""
        names = [field.name for field in fields(self._form)]
        try:
            found = json.loads(self._path(key).read_text(encoding="utf-8"))
            # Those of earlier versions lack what has a default.
            return self._form(**{name: found[name] for name in names if name in found})
        # One that may not be read is another matter: it would be paid for twice.
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def write(self, key: str, answer: Kept) -> None:
        """Keep an answer."""
        write_atomic(self._path(key), json_text(asdict(answer)), private=True)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


FILE = "unanswered.jsonl"


class UnansweredRequests:
    """A file with a line for every request that may have been charged and was not answered.

    Lines hold numbers alone. They are only ever added; one that a kill cut off is passed over. The
    folder is made with the first line.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._lock = threading.Lock()

    def add(self, most: Usage) -> None:
        """Write down the most that one request can have used."""
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with writing(self._path), self._path.open("a", encoding="utf-8") as file:
                # First, so that a line that was cut off spoils none that follows.
                file.write(f"\n{json.dumps(asdict(most))}\n")

    def total(self) -> Usage:
        """Return what all of them can have used together."""
        total = Usage()
        if self._path.is_file():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                try:
                    total += Usage(**json.loads(line))
                except (ValueError, TypeError):
                    continue
        return total


_GRACE_SECONDS = 3.0
"""How long answers under way are waited for when the command is ended from outside."""

_TICK_SECONDS = 0.1


class _Stopped(Exception):  # noqa: N818 - no error: another request's is reported
    """The wait before another attempt was broken off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptRequest:
    """One prompt, the example that it is about, and the hash that its answer is kept under."""

    id: str
    messages: tuple[Message, ...]
    key: str


def answer_once(
    asked: Sequence[tuple[str, Asked]],
    cache: AnswerCache[Kept],
    send: Callable[[dict[str, Asked], Callable[[], None]], Mapping[str, Kept]],
    on_answer: Callable[[], None],
) -> list[Kept]:
    """Return the answers in the order of what is asked; what is equal or kept is not sent again.

    Args:
        asked: Requests, each with the key that its answer is kept under.
        cache: Where answers are kept.
        send: Gets those still to be sent, by their keys, and ``on_answer``, which it calls for each
            of them; gives their answers.
        on_answer: Called for every request that has its answer.
    """
    answers: dict[str, Kept] = {}
    unsent: dict[str, Asked] = {}
    for key, request in asked:
        if key not in answers and key not in unsent:
            found = cache.read(key)
            if found is None:
                unsent[key] = request
                continue
            answers[key] = found
        on_answer()
    answers |= send(unsent, on_answer)
    return [answers[key] for key, _ in asked]


class RequestRunner:
    """Answers requests from the cache, and from a server where the cache has none.

    Requests that may have been charged and brought no answer are counted in ``unanswered``;
    ``None``: in memory alone. What ``judge`` makes of a reply's tokens, label probabilities, is
    kept in their place.
    """

    def __init__(
        self,
        client: ChatClient,
        options: ClientConfig,
        *,
        cache: AnswerCache[Reply],
        budget: Budget,
        max_new_tokens: int,
        unanswered: UnansweredRequests | None = None,
        judge: Callable[[Reply], Mapping[str, float] | None] = lambda reply: None,
    ) -> None:
        self._client, self._options, self._judge = client, options, judge
        self._cache, self._budget = cache, budget
        self._max_new_tokens = max_new_tokens
        self._unanswered = unanswered
        self._given_up = threading.Event()

    def answer(
        self, requests: Sequence[PromptRequest], *, on_answer: Callable[[], None] = lambda: None
    ) -> list[Reply]:
        """Return the replies in the order of the requests; equal ones are sent once.

        The first request that fails for good ends it all: nothing new is sent, and what is under
        way is waited for and kept.

        Raises:
            RecapError: What the failed request said, with the id of its example.
        """
        asked = [(request.key, request) for request in requests]
        return answer_once(asked, self._cache, self._send_all, on_answer)

    def _send_all(
        self, requests: Mapping[str, PromptRequest], on_answer: Callable[[], None]
    ) -> dict[str, Reply]:
        stop = threading.Event()
        self._given_up.clear()
        pool = ThreadPoolExecutor(self._options.max_in_flight, thread_name_prefix="recap-request")
        futures = {pool.submit(self._send, request, stop): key for key, request in requests.items()}
        replies: dict[str, Reply] = {}
        failures: list[RecapError] = []
        try:
            for future in as_completed(futures):
                try:
                    reply = future.result()
                except RecapError as error:
                    failures.append(error)
                    stop.set()
                    continue
                if reply is not None:
                    replies[futures[future]] = reply
                    on_answer()
        finally:
            # After Ctrl-C or SIGTERM too, for they are paid for; but not for one that never ends.
            stop.set()
            wait([future for future in futures if future.running()], timeout=_GRACE_SECONDS)
            self._given_up.set()
            pool.shutdown(wait=True, cancel_futures=True)
        if failures:
            raise failures[0]
        return replies

    def _send(self, request: PromptRequest, stop: threading.Event) -> Reply | None:
        """Return the reply to one request, kept in the cache; ``None`` after the stop."""
        if stop.is_set():
            return None

        def pause(seconds: float) -> None:
            if stop.wait(seconds):
                raise _Stopped

        try:
            return with_retries(lambda: self._attempt(request), self._options, pause=pause)
        except _Stopped:
            return None
        except RecapError as error:
            stop.set()
            kind = ConfigError if isinstance(error, ConfigError) else RecapError
            raise kind(
                f"example {quote_id(request.id)}: {error}; what was answered is kept in "
                f"{self._cache.folder}, and the same command goes on from there"
            ) from error

    def _attempt(self, request: PromptRequest) -> Reply:
        most = Usage(
            answers=1,
            input_tokens=most_tokens(request.messages),
            output_tokens=self._max_new_tokens,
        )
        used, kept = Usage(), False
        self._budget.reserve(most)
        try:
            reply = self._complete(request.messages)
            used = _used(reply, most)
            # Where the server counted nothing, the most it can have been.
            reply = replace(
                reply,
                input_tokens=used.input_tokens,
                output_tokens=used.output_tokens,
                tokens=(),
                probabilities=self._judge(reply),
            )
            self._cache.write(request.key, reply)
            kept = True
        except RequestError as failure:
            used = most if failure.maybe_served else Usage()
            raise
        finally:
            self._budget.settle(most, used)
            if self._unanswered is not None and used.tokens and not kept:
                self._unanswered.add(used)
        return reply

    def _complete(self, messages: Sequence[Message]) -> Reply:
        """Return the server's reply, in time or not at all.

        The thread that waits is left behind: nothing else ends a wait for headers that drip.
        """
        replied: Future[Reply] = Future()

        def ask() -> None:
            try:
                replied.set_result(self._client.complete(messages))
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                replied.set_exception(error)

        threading.Thread(target=ask, name="recap-answer", daemon=True).start()
        ends = time.monotonic() + self._options.longest_seconds
        while not wait([replied], timeout=_TICK_SECONDS).done:
            if self._given_up.is_set() or time.monotonic() > ends:
                longest = f"client.longest_answer_seconds={self._options.longest_seconds:g}"
                said = f"the server's answer was not whole after {longest}"
                raise RequestError(said, temporary=True, maybe_served=True)
        return replied.result()


def usage_of(replies: Sequence[Reply]) -> Usage:
    """Return what replies from the cache have used, as it was counted when they came."""
    return Usage(
        answers=len(replies),
        input_tokens=sum(reply.input_tokens or 0 for reply in replies),
        output_tokens=sum(reply.output_tokens or 0 for reply in replies),
    )


_BELIEVED = 10
"""Times the most that a request can use: a server may show the model more, or limit it less."""


def _used(reply: Reply, most: Usage) -> Usage:
    def bounded(given: int | None, at_most: int) -> int:
        return at_most if given is None else min(given, _BELIEVED * at_most)

    return Usage(
        answers=1,
        input_tokens=bounded(reply.input_tokens, most.input_tokens),
        output_tokens=bounded(reply.output_tokens, most.output_tokens),
    )


_TOKENS_PER_MESSAGE = 32
"""More than any chat template adds to a message."""


def most_tokens(messages: Sequence[Message]) -> int:
    """Return a number of tokens that a prompt cannot exceed: no token is shorter than a byte."""
    size = sum(len(message.text.encode("utf-8", "surrogatepass")) for message in messages)
    return size + _TOKENS_PER_MESSAGE * len(messages)


class Budget:
    """What a run may use; asked before every request, so that it is never exceeded.

    Each request is counted at the most it could use until the server says what it did use. What is
    ``None`` is no limit; ``max_cost`` needs prices. ``spent`` is what was used before.
    """

    def __init__(
        self,
        *,
        prices: Prices | None = None,
        max_cost: float | None = None,
        max_total_tokens: int | None = None,
        spent: Usage | None = None,
    ) -> None:
        self._prices, self._max_cost = prices, max_cost
        self._max_total_tokens = max_total_tokens
        self.spent = spent or Usage()
        """What was used so far."""
        self._reserved = Usage()
        self._changed = threading.Condition()

    def reserve(self, most: Usage) -> None:
        """Set aside what a request could use, waiting for others under way where that may help.

        Raises:
            ConfigError: When it could exceed the budget.
        """
        with self._changed:
            while (said := self._exceeded(self.spent + self._reserved + most)) is not None:
                if not self._reserved.tokens:
                    raise ConfigError(
                        f"{said} could be exceeded by the next request; raise it to go on"
                    )
                self._changed.wait()
            self._reserved += most

    def settle(self, most: Usage, used: Usage) -> None:
        """Count what a request did use in place of what was set aside for it."""
        with self._changed:
            self._reserved -= most
            self.spent += used
            self._changed.notify_all()

    def _exceeded(self, usage: Usage) -> str | None:
        if self._max_total_tokens is not None and usage.tokens > self._max_total_tokens:
            return f"client.max_total_tokens={self._max_total_tokens} ({self.spent.tokens} used)"
        if self._max_cost is None or self._prices is None:
            return None
        if self._prices.cost(usage) <= self._max_cost:
            return None
        return f"client.max_cost={self._max_cost:g} ({self._prices.cost(self.spent):.4f} spent)"
