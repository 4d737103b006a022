"""Label probabilities from what a server tells of an answer's tokens; expected values by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from builders import read_jsonl
from fake_servers import Request, serving

from recap.prompt import __main__ as prompt
from recap.prompt.logprobs import label_probabilities, read_tokens
from recap.report import __main__ as report
from recap.tasks.library import builtin_task

TALK = builtin_task("annomi_talk")

Place = tuple[str | bytes, dict[str | bytes, float]]


def entry(token: str | bytes, probability: float) -> dict[str, Any]:
    raw = token.encode() if isinstance(token, str) else token
    shown = raw.decode("utf-8", "replace")
    return {"token": shown, "bytes": list(raw), "logprob": math.log(probability)}


def logprobs(*places: Place) -> dict[str, Any]:
    """Return a choice's ``logprobs``, of tokens with the probabilities of all that could stand."""
    told = [
        {**entry(token, others[token]), "top_logprobs": [entry(t, p) for t, p in others.items()]}
        for token, others in places
    ]
    return {"content": told}


def probabilities(*places: Place, task: str = "annomi_talk", **options: Any) -> Any:
    tokens = read_tokens({"logprobs": logprobs(*places)})
    return label_probabilities(builtin_task(task, **options), tokens)


def sure(*tokens: str) -> list[Place]:
    return [(token, {token: 1.0}) for token in tokens]


def test_labels_that_part_at_one_token_share_its_probabilities() -> None:
    here: Place = (" change", {" change": 0.5, " neutral": 0.2, " sustain": 0.1, " the": 0.2})
    found = probabilities(*sure("Behavior", ":"), here, *sure("\n", "Reason"))
    assert found == {"change": 0.625, "neutral": 0.25, "sustain": 0.125}


def test_all_ways_to_begin_a_label_count_for_it() -> None:
    here: Place = (" sustain", {" sustain": 0.4, " s": 0.1, " neutral": 0.3, " change": 0.2})
    assert probabilities(*sure("Behavior", ":"), here) == {
        "change": 0.2,
        "neutral": 0.3,
        "sustain": 0.5,
    }


def test_what_labels_share_is_counted_up_to_where_they_part() -> None:
    # "Resistance" and "Collaboration" part at once, behind a blank of its own.
    blank: Place = (" ", {" ": 0.8, " Coll": 0.2})
    here: Place = ("Resist", {"Resist": 0.75, "Collaboration": 0.25})
    found = probabilities(*sure("Behavior:"), blank, here, *sure("ance"), task="binary")
    # 0.8 x 0.75 against 0.2 + 0.8 x 0.25.
    assert found == {"Resistance": 0.6, "Collaboration": 0.4}


def test_quotation_marks_and_half_characters_do_not_hide_a_label() -> None:
    raw = TALK.written("change").encode()
    assert raw == b"change"
    places = [*sure('Behavior: "'), ("ch", {"ch": 0.5, "neutral": 0.25, "sustain": 0.25})]
    assert probabilities(*places, *sure('ange"')) == {
        "change": 0.5,
        "neutral": 0.25,
        "sustain": 0.25,
    }
    task = builtin_task("binary", language="zh")
    yes, no = (task.written(label).encode() for label in task.labels)
    other: Place = (yes[:2], {yes[:2]: 0.9, no[:4]: 0.1})
    tokens = read_tokens({"logprobs": logprobs(*sure("行为："), other, (yes[2:], {yes[2:]: 1.0}))})
    assert label_probabilities(task, tokens) == dict(zip(task.labels, (0.9, 0.1), strict=True))


@pytest.mark.parametrize(
    "places",
    [
        # A label that is not among the alternatives.
        [*sure("Behavior: "), ("change", {"change": 0.9, "neutral": 0.1})],
        # No label, another spelling, a thought, words before the answer.
        sure("Behavior: none"),
        [*sure("Behavior: "), ("Change", {"Change": 0.5, "neutral": 0.3, "sustain": 0.2})],
        [*sure("<think>"), ("change", {"change": 0.5, "neutral": 0.3, "sustain": 0.2})],
        [*sure("I say: "), ("change", {"change": 0.5, "neutral": 0.3, "sustain": 0.2})],
        [],
    ],
)
def test_what_does_not_tell_of_every_label_gives_no_probabilities(places: list[Place]) -> None:
    assert probabilities(*places) is None


def test_labels_that_part_later_than_the_alternatives_show_have_no_probabilities() -> None:
    task = builtin_task("fine_grained")
    # " Denying - " begins several labels, and which of them is not told.
    here: Place = (" Arguing - ", {" Arguing - ": 0.6, " Denying - ": 0.4})
    then: Place = ("Challenging", {"Challenging": 0.7, "Discounting": 0.3})
    assert task.written("Challenging") == "Arguing - Challenging"
    assert probabilities(*sure("Behavior:"), here, then, task="fine_grained") is None


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"logprobs": None},
        {"logprobs": {"content": None}},
        {"logprobs": {"tokens": ["a"], "token_logprobs": [-0.1]}},
        {"logprobs": {"content": [{"token": "a", "logprob": -0.1}]}},
        {"logprobs": {"content": [{"token": "a", "logprob": "x", "top_logprobs": []}]}},
        {"logprobs": {"content": [{"token": "a", "logprob": 1e9, "top_logprobs": []}]}},
        {"logprobs": {"content": [{"token": "a", "bytes": [900], "logprob": 0}]}},
        {"logprobs": {"content": ["a"]}},
    ],
)
def test_a_server_that_tells_nothing_or_something_else_gives_none(choice: dict[str, Any]) -> None:
    assert read_tokens(choice) == ()


def test_predictions_carry_the_probabilities_of_a_server_and_null_where_it_tells_none(
    tmp_path: Path,
) -> None:
    rows = [
        {
            "id": f"e{n}",
            "session": f"s{n}",
            "history": [{"speaker": "counselor", "text": f"Question {n}?"}],
            "response": f"Utterance number {n}.",
            "label": ("Resistance", "Collaboration")[n % 2],
            "rationale": "It fits.",
        }
        for n in range(8)
    ]
    data = tmp_path / "d.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def answer(request: Request) -> Any:
        if "Utterance number 3." in request.prompt:
            return "Behavior: Resistance\nReason: So.", {}
        here: Place = (" Resistance", {" Resistance": 0.75, " Collaboration": 0.25})
        told = logprobs(*sure("Behavior", ":"), here, *sure("\n"))
        return "Behavior: Resistance\nReason: So.", {"logprobs": told}

    with serving(answer=answer) as server:
        given = [f"data.path={data}", "data=dialogues", "task=binary", "cv.folds=2", "run=r"]
        given += ["client=openai", "client.model=m", f"client.base_url={server.url}/v1"]
        given += [f"runs_dir={tmp_path}", "logger=none"]
        assert prompt.main(given) == 0
        n_asked = len(server.requests)
        # Another run of the same requests takes them from where they are kept.
        assert prompt.main([*given, "run=again"]) == 0
        assert len(server.requests) == n_asked
    for run in ("r", "again"):
        found = [
            row for k in (0, 1) for row in read_jsonl(tmp_path / run / f"fold{k}/predictions.jsonl")
        ]
        assert len(found) == 8
        for row in found:
            told = {"Resistance": 0.75, "Collaboration": 0.25}
            assert row["probabilities"] == (None if row["id"] == "e3" else told)
    assert report.main([f"runs={tmp_path / 'r'}", f"out={tmp_path / 'out'}", "verify=true"]) == 0
