"""Many prompts to one server: a few at a time, each answer kept as soon as it is there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from typing import Any

from recap.errors import ConfigError, RecapError, quote_id
from recap.prompting.cache import AnswerCache
from recap.prompting.clients import ChatClient, Reply
from recap.prompting.costs import Budget, Usage, most_tokens
from recap.prompting.failures import RequestError
from recap.prompting.retry import RetryPolicy, with_retries
from recap.prompting.unanswered import UnansweredRequests
from recap.records import Message


class _Stopped(Exception):  # noqa: N818 - no error: another question's is told
    """The wait before another attempt was broken off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One prompt, the example that it is about, and the hash that its answer is kept under."""

    id: str
    messages: tuple[Message, ...]
    key: str


class Asker:
    """Answers questions from the cache, and from a server where the cache has none.

    Args:
        client: The server.
        cache: Where answers are kept.
        retry: What happens to requests that fail.
        budget: What may be used.
        max_in_flight: Most requests under way at a time.
        max_new_tokens: Longest answer.
        unanswered: Where requests are counted that may have been charged and brought no answer;
            ``None``: in memory alone.
    """

    def __init__(
        self,
        client: ChatClient,
        *,
        cache: AnswerCache,
        retry: RetryPolicy,
        budget: Budget,
        max_in_flight: int,
        max_new_tokens: int,
        unanswered: UnansweredRequests | None = None,
    ) -> None:
        self._client = client
        self._cache = cache
        self._retry = retry
        self._budget = budget
        self._max_in_flight = max_in_flight
        self._max_new_tokens = max_new_tokens
        self._unanswered = unanswered

    def answer(
        self, questions: Sequence[Question], *, on_answer: Callable[[], None] = lambda: None
    ) -> list[Reply]:
        """Return the replies in the order of the questions; equal ones are asked once.

        The first request that fails for good ends it all: nothing new is sent, and what is under
        way is waited for and kept.

        Args:
            questions: What to ask.
            on_answer: Called for every question that has its reply.

        Raises:
            RecapError: What the failed request said, with the id of its example.
        """
        replies: dict[str, Reply] = {}
        open_questions: dict[str, Question] = {}
        for question in questions:
            if question.key not in replies and question.key not in open_questions:
                found = cached_reply(self._cache, question.key)
                if found is None:
                    open_questions[question.key] = question
                    continue
                replies[question.key] = found
            on_answer()
        replies |= self._ask_all(list(open_questions.values()), on_answer)
        return [replies[question.key] for question in questions]

    def _ask_all(
        self, questions: Sequence[Question], on_answer: Callable[[], None]
    ) -> dict[str, Reply]:
        stop = threading.Event()
        pool = ThreadPoolExecutor(self._max_in_flight, thread_name_prefix="recap-ask")
        futures: dict[Future[Reply | None], Question] = {
            pool.submit(self._ask, question, stop): question for question in questions
        }
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
                    replies[futures[future].key] = reply
                    on_answer()
        finally:
            # Also after Ctrl-C: answers that are under way are paid for.
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
        if failures:
            raise failures[0]
        return replies

    def _ask(self, question: Question, stop: threading.Event) -> Reply | None:
        """Return the reply to one question, kept in the cache; ``None`` after the stop."""
        if stop.is_set():
            return None

        def pause(seconds: float) -> None:
            if stop.wait(seconds):
                raise _Stopped

        try:
            return with_retries(lambda: self._attempt(question), self._retry, pause=pause)
        except _Stopped:
            return None
        except RecapError as error:
            stop.set()
            kind = ConfigError if isinstance(error, ConfigError) else RecapError
            raise kind(
                f"example {quote_id(question.id)}: {error}; what was answered is kept in "
                f"{self._cache.folder}, and the same command goes on from there"
            ) from error

    def _attempt(self, question: Question) -> Reply:
        most = Usage(
            answers=1,
            input_tokens=most_tokens(question.messages),
            output_tokens=self._max_new_tokens,
        )
        used, kept = Usage(), False
        self._budget.reserve(most)
        try:
            reply = self._client.complete(question.messages)
            used = _used(reply, most)
            # Where the server counted nothing, the most it can have been.
            reply = replace(reply, input_tokens=used.input_tokens, output_tokens=used.output_tokens)
            self._cache.write(question.key, asdict(reply))
            kept = True
        except RequestError as failure:
            used = most if failure.maybe_served else Usage()
            raise
        finally:
            self._budget.settle(most, used)
            if self._unanswered is not None and used.tokens and not kept:
                self._unanswered.add(used)
        return reply


def cached_reply(cache: AnswerCache, key: str) -> Reply | None:
    """Return the reply kept under a key, ``None`` where there is none of that form."""
    found: Any = cache.read(key)
    try:
        return None if found is None else Reply(**{name: found[name] for name in _FIELDS})
    except KeyError:
        return None


def usage_of(replies: Sequence[Reply]) -> Usage:
    """Return what replies from the cache have used, as it was counted when they came."""
    total = Usage()
    for reply in replies:
        total += Usage(
            answers=1,
            input_tokens=reply.input_tokens or 0,
            output_tokens=reply.output_tokens or 0,
        )
    return total


_FIELDS = ("text", "refused", "input_tokens", "output_tokens")


def _used(reply: Reply, most: Usage) -> Usage:
    given, said = reply.input_tokens, reply.output_tokens
    return Usage(
        answers=1,
        input_tokens=most.input_tokens if given is None else given,
        output_tokens=most.output_tokens if said is None else said,
    )
