"""A model on a server: examples become questions, replies become answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from recap.prompting.asking import Asker, Question, cached_reply, usage_of
from recap.prompting.cache import FOLDER, AnswerCache, content_key
from recap.prompting.clients import ChatClient, Reply
from recap.prompting.costs import Budget, Prices, Usage, estimated_tokens
from recap.prompting.endpoint import endpoint
from recap.prompting.options import PromptedConfig
from recap.prompting.retry import RetryPolicy
from recap.prompting.system import Answered, Workload
from recap.prompting.unanswered import UnansweredRequests
from recap.records import Example
from recap.tasks.task import Task


class RemoteModel:
    """A prompted model on a server; see :class:`recap.prompting.system.System`.

    Args:
        config: Which model, how it is asked, what it may cost.
        task: Writes prompts and reads answers.
        client: Asks the server; ``None`` for an estimate, which asks nothing.
        spent: What the run's requests have used so far.
        unanswered: Where requests are counted that may have been charged and brought no answer.
    """

    def __init__(
        self,
        config: PromptedConfig,
        task: Task,
        *,
        client: ChatClient | None = None,
        spent: Usage | None = None,
        unanswered: UnansweredRequests | None = None,
    ) -> None:
        options = config.client
        self._task = task
        self._cache = AnswerCache(Path(config.training.runs_dir) / FOLDER)
        max_new_tokens = config.training.decoding.max_new_tokens
        self._asked = {
            "api": options.name,
            "base_url": endpoint(options),
            "model": options.model,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "max_new_tokens": max_new_tokens,
        }
        self._asker: Asker | None = None
        if client is not None:
            self._asker = Asker(
                client,
                cache=self._cache,
                retry=RetryPolicy(
                    attempts=options.attempts,
                    backoff_seconds=options.backoff_seconds,
                    longest_wait_seconds=options.longest_wait_seconds,
                ),
                budget=Budget(
                    prices=prices_of(config),
                    max_cost=options.max_cost,
                    max_total_tokens=options.max_total_tokens,
                    spent=spent,
                ),
                max_in_flight=options.max_in_flight,
                max_new_tokens=max_new_tokens,
                unanswered=unanswered,
            )

    @property
    def device(self) -> str:
        """Not this machine's."""
        return "remote"

    @property
    def shortened(self) -> Mapping[str, int]:
        """Nothing: prompts to a server have no limit in tokens."""
        return {}

    def answer(
        self,
        examples: Sequence[Example],
        shots: Sequence[Example],
        *,
        on_answer: Callable[[], None] = lambda: None,
    ) -> tuple[list[Answered], Usage]:
        """Return what the model says of each example, asking only what was never answered.

        Raises:
            RecapError: When a request fails for good, or the budget ends.
        """
        assert self._asker is not None, "an estimate asks nothing"
        questions = self._questions(examples, shots)
        replies = self._asker.answer(questions, on_answer=on_answer)
        distinct = dict(zip((q.key for q in questions), replies, strict=True))
        return [self._read(reply) for reply in replies], usage_of(list(distinct.values()))

    def workload(self, examples: Sequence[Example], shots: Sequence[Example]) -> Workload:
        """Return the number of requests still to be sent, and about how many tokens they have."""
        questions = {q.key: q for q in self._questions(examples, shots)}
        still = [q for key, q in questions.items() if cached_reply(self._cache, key) is None]
        return Workload(
            calls=len(still),
            kept=len(questions) - len(still),
            input_tokens=sum(estimated_tokens(q.messages) for q in still),
        )

    def kept_usage(self, examples: Sequence[Example], shots: Sequence[Example]) -> Usage:
        """Return what the answers that are there already have used."""
        found = (cached_reply(self._cache, q.key) for q in self._questions(examples, shots))
        return usage_of([reply for reply in found if reply is not None])

    def _questions(self, examples: Sequence[Example], shots: Sequence[Example]) -> list[Question]:
        questions = []
        for example in examples:
            messages = self._task.messages(example, shots)
            said = [[message.role, message.text] for message in messages]
            key = content_key({**self._asked, "messages": said})
            questions.append(Question(id=example.id, messages=messages, key=key))
        return questions

    def _read(self, reply: Reply) -> Answered:
        # Words of a refusal may name a label, and give none.
        answer = None if reply.refused else self._task.parse(reply.text)
        return Answered(
            text=reply.text,
            label=answer.label if answer else None,
            rationale=answer.rationale if answer else None,
        )


def prices_of(config: PromptedConfig) -> Prices | None:
    """Return what tokens cost, ``None`` where that is not known."""
    given = config.client.price_per_million_input
    said = config.client.price_per_million_output
    return None if given is None or said is None else Prices(input=given, output=said)
