"""Many requests: bounded, kept, never paid for twice, stopped before the budget ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recap.cli.prompted import ClientConfig
from recap.errors import ConfigError, RecapError
from recap.prompt.clients import Reply, RequestError
from recap.prompt.requests import (
    AnswerCache,
    Budget,
    PromptRequest,
    RequestRunner,
    UnansweredRequests,
    most_tokens,
    request_key,
)
from recap.records import Message, Prices, Usage

NO_WAIT = ClientConfig(name="openai", attempts=2, backoff_seconds=0.0, longest_wait_seconds=0.0)


class Echo:
    """A client that says what it was asked; fails for good on the texts it is told to."""

    def __init__(self, *, fails_on: Sequence[str] = (), seconds: float = 0.0) -> None:
        self.fails_on = fails_on
        self.seconds = seconds
        self.asked: list[str] = []
        self.at_a_time = self.most_at_a_time = 0
        self._lock = threading.Lock()

    def complete(self, messages: Sequence[Message]) -> Reply:
        text = messages[0].text.strip()
        with self._lock:
            self.asked.append(text)
            self.at_a_time += 1
            self.most_at_a_time = max(self.most_at_a_time, self.at_a_time)
        time.sleep(self.seconds)
        with self._lock:
            self.at_a_time -= 1
        if text in self.fails_on:
            raise RequestError("status 500", temporary=True)
        return Reply(text=f"said {text}", input_tokens=100, output_tokens=10)


def requests(n: int) -> list[PromptRequest]:
    return [
        PromptRequest(
            id=f"e{i}",
            messages=(Message(role="user", text=f"{i}{' ' * 200}"),),
            key=request_key({"text": str(i)}),
        )
        for i in range(n)
    ]


def runner(
    client: Echo, folder: Path, *, budget: Budget | None = None, max_in_flight: int = 3
) -> RequestRunner:
    return RequestRunner(
        client,
        replace(NO_WAIT, max_in_flight=max_in_flight),
        cache=AnswerCache(folder, Reply),
        budget=budget or Budget(),
        max_new_tokens=10,
    )


def test_answers_come_in_the_order_of_the_requests(tmp_path: Path) -> None:
    replies = runner(Echo(seconds=0.001), tmp_path, max_in_flight=8).answer(requests(20))
    assert [reply.text for reply in replies] == [f"said {i}" for i in range(20)]


def test_one_fold_after_another_is_answered_however_slowly(tmp_path: Path) -> None:
    asking = runner(Echo(seconds=0.3), tmp_path)
    asked = requests(2)
    assert [asking.answer([each])[0].text for each in asked] == ["said 0", "said 1"]


def test_no_more_are_under_way_than_allowed(tmp_path: Path) -> None:
    client = Echo(seconds=0.02)
    runner(client, tmp_path, max_in_flight=3).answer(requests(12))
    assert client.most_at_a_time == 3


def test_what_was_answered_is_never_asked_again(tmp_path: Path) -> None:
    runner(Echo(), tmp_path).answer(requests(5))
    client = Echo()
    replies = runner(client, tmp_path).answer(requests(8))
    assert sorted(client.asked) == ["5", "6", "7"]
    assert [reply.text for reply in replies] == [f"said {i}" for i in range(8)]


def test_equal_questions_are_asked_once_and_all_count_as_answered(tmp_path: Path) -> None:
    client, answered = Echo(), []
    again = [*requests(2), *requests(2)]
    replies = runner(client, tmp_path).answer(again, on_answer=lambda: answered.append(1))
    assert sorted(client.asked) == ["0", "1"]
    assert [reply.text for reply in replies] == ["said 0", "said 1"] * 2
    assert len(answered) == 4


def test_a_file_that_holds_no_answer_is_asked_for_again(tmp_path: Path) -> None:
    runner(Echo(), tmp_path).answer(requests(2))
    for number, file in enumerate(sorted(tmp_path.rglob("*.json"))):
        file.write_text(['{"text": "hal', '{"label": 1}'][number], encoding="utf-8")
    client = Echo()
    runner(client, tmp_path).answer(requests(2))
    assert sorted(client.asked) == ["0", "1"]


def test_a_failure_names_the_example_and_loses_nothing_that_was_under_way(tmp_path: Path) -> None:
    client = Echo(fails_on=["1"], seconds=0.02)
    with pytest.raises(RecapError, match=r"example 'e1': status 500 \(tried 2 times\)"):
        runner(client, tmp_path, max_in_flight=3).answer(requests(40))
    answered = {text for text in client.asked if text != "1"}
    assert len(answered) < 20, "nothing new is sent after the failure"
    later = Echo()
    runner(later, tmp_path).answer(requests(40))
    assert sorted(later.asked) == sorted({str(i) for i in range(40)} - answered)


@pytest.mark.parametrize("max_in_flight", [1, 4])
def test_a_budget_in_tokens_is_used_and_not_exceeded(tmp_path: Path, max_in_flight: int) -> None:
    budget = Budget(max_total_tokens=1000)
    client = Echo(seconds=0.005)
    with pytest.raises(ConfigError, match=r"client\.max_total_tokens=1000 \(770 used\)"):
        runner(client, tmp_path, budget=budget, max_in_flight=max_in_flight).answer(requests(30))
    # A prompt has 201 or 202 bytes: at most 234 tokens, and 10 of answer; 770 + 243 > 1000.
    assert len(client.asked) == 7
    assert budget.spent == Usage(answers=7, input_tokens=700, output_tokens=70)


def test_a_budget_in_money_is_not_exceeded(tmp_path: Path) -> None:
    budget = Budget(prices=Prices(input=10.0, output=100.0), max_cost=0.0101)
    client = Echo()
    with pytest.raises(ConfigError, match=r"client\.max_cost=0\.0101 \(0\.0080 spent\)"):
        runner(client, tmp_path, budget=budget, max_in_flight=1).answer(requests(30))
    # An answer costs 0.002, and could cost 0.0033: 0.008 + 0.0033 > 0.0101.
    assert len(client.asked) == 4


def test_what_was_spent_before_counts(tmp_path: Path) -> None:
    budget = Budget(max_total_tokens=1000, spent=Usage(answers=9, input_tokens=990))
    client = Echo()
    with pytest.raises(ConfigError, match="990 used"):
        runner(client, tmp_path, budget=budget).answer(requests(1))
    assert client.asked == []


def test_an_attempt_that_may_have_been_charged_counts_at_its_most(tmp_path: Path) -> None:
    class Silent(Echo):
        def complete(self, messages: Sequence[Message]) -> Reply:
            raise RequestError("silent", temporary=True, maybe_served=True)

    budget, [request] = Budget(), requests(1)
    with pytest.raises(RecapError, match="tried 2 times"):
        runner(Silent(), tmp_path, budget=budget).answer([request])
    assert budget.spent.input_tokens == 2 * most_tokens(request.messages)
    assert budget.spent.output_tokens == 2 * 10


def test_a_later_process_counts_what_may_have_been_charged_without_an_answer(
    tmp_path: Path,
) -> None:
    class Cut(Echo):
        def complete(self, messages: Sequence[Message]) -> Reply:
            raise RequestError("cut", temporary=True, maybe_served=True)

    [request] = requests(1)
    for _ in range(2):
        kept = UnansweredRequests(tmp_path / "run")
        with pytest.raises(RecapError, match="tried 2 times"):
            RequestRunner(
                Cut(),
                replace(NO_WAIT, max_in_flight=1),
                cache=AnswerCache(tmp_path, Reply),
                budget=Budget(),
                max_new_tokens=10,
                unanswered=kept,
            ).answer([request])
        with (tmp_path / "run" / "unanswered.jsonl").open("a", encoding="utf-8") as file:
            file.write('{"answers": 1, "inp')
    most = most_tokens(request.messages)
    total = UnansweredRequests(tmp_path / "run").total()
    assert total == Usage(answers=4, input_tokens=4 * most, output_tokens=40)


def test_a_reply_without_counts_is_kept_at_its_most(tmp_path: Path) -> None:
    class Uncounted(Echo):
        def complete(self, messages: Sequence[Message]) -> Reply:
            return Reply(text="said")

    [request] = requests(1)
    [reply] = runner(Uncounted(), tmp_path).answer([request])
    assert (reply.input_tokens, reply.output_tokens) == (most_tokens(request.messages), 10)
    assert runner(Echo(), tmp_path).answer([request]) == [reply]


@given(st.text())
def test_no_prompt_has_more_tokens_than_the_most(text: str) -> None:
    messages = (Message(role="user", text=text),)
    assert most_tokens(messages) > len(text.encode("utf-8", "surrogatepass"))


def test_the_hash_covers_everything_that_is_asked_and_no_order_of_keys() -> None:
    asked = {"model": "m", "messages": [["user", "不"]], "temperature": 0}
    assert request_key(asked) == request_key(dict(reversed(asked.items())))
    changed = [{**asked, "model": "n"}, {**asked, "temperature": 1}, {**asked, "messages": []}]
    assert len({request_key(request) for request in [asked, *changed]}) == 4
