"""The leakage report counts what folds share, and prints no text."""

from __future__ import annotations

import json
import time

from recap.data.folds import split_folds
from recap.data.leakage import MAX_IDS_LISTED, leakage_report
from recap.records import Example, Fold, Turn

SECRET = "I have never told anybody about the lake"


def dialogue(session, client, texts):
    """One example for each client text, each with all the turns before it."""
    turns = []
    examples = []
    for number, text in enumerate(texts):
        turns.append(Turn(speaker="counselor", text=f"question {number}"))
        examples.append(
            Example(
                id=f"{session}:{number}",
                history=tuple(turns),
                response=text,
                session=session,
                client=client,
                label="a",
            )
        )
        turns.append(Turn(speaker="client", text=text))
    return examples


def fold(train, test, select=None):
    return Fold(
        index=0, train=tuple(train), select=tuple(test if select is None else select), test=test
    )


def only(report):
    (one,) = report["folds"]
    return one


def test_later_turns_of_a_tested_session_count_as_history_overlap_in_both_directions():
    examples = [*dialogue("s1", "c1", ["p", "q", "r"]), *dialogue("s2", "c1", ["t", "u"])]
    found = only(leakage_report(examples, [fold([0, 2, 3], (1, 4))]))
    # s1:1 stands in the history of s1:2 and has s1:0 in its own; s2:1 has s2:0 in its own.
    assert found["history_overlap"] == {"count": 2, "ids": ["s1:1", "s2:1"]}
    assert found["shared_sessions"] == {"count": 2, "test_examples": 2}
    assert found["shared_clients"] == {"count": 1, "test_examples": 2}
    assert found["duplicates"] == {"count": 0, "ids": []}


def test_only_the_first_turn_is_tested_and_the_second_trained_still_overlaps():
    examples = dialogue("s1", None, ["p", "q"])
    found = only(leakage_report(examples, [fold([1], (0,))]))
    assert found["history_overlap"]["ids"] == ["s1:0"]


def test_whole_sessions_apart_share_nothing_even_with_equal_texts():
    examples = [*dialogue("s1", "c1", ["p", "q"]), *dialogue("s2", "c2", ["q", "q"])]
    found = only(leakage_report(examples, [fold([0, 1], (2, 3))]))
    assert found["history_overlap"]["count"] == 0
    assert found["shared_sessions"] == {"count": 0, "test_examples": 0}
    assert found["shared_clients"] == {"count": 0, "test_examples": 0}


def test_a_counsellors_words_are_no_client_turn():
    first, second = dialogue("s1", None, ["p", "q"])
    echo = Example(id="x", history=(), response="question 0", session="s1", label="a")
    found = only(leakage_report([first, second, echo], [fold([0], (2,))]))
    assert found["history_overlap"]["count"] == 0


def test_exact_duplicates_across_the_border_are_counted_and_named():
    (one,) = dialogue("s1", None, ["p"])
    (other,) = dialogue("s2", None, ["p"])
    (third,) = dialogue("s3", None, ["z"])
    found = only(leakage_report([one, other, third], [fold([0, 2], (1,))]))
    assert found["duplicates"] == {"count": 1, "ids": ["s2:0"]}


def test_the_selection_part_counts_as_seen_unless_it_is_the_test_part():
    (one,) = dialogue("s1", None, ["p"])
    (other,) = dialogue("s2", None, ["p"])
    (third,) = dialogue("s3", None, ["z"])
    examples = [one, other, third]
    assert only(leakage_report(examples, [fold([2], (1,), select=[0])]))["duplicates"]["count"] == 1
    assert only(leakage_report(examples, [fold([2], (0, 1))]))["duplicates"]["count"] == 0


def test_the_folds_that_we_draw_share_no_duplicate_and_by_session_nothing_at_all():
    examples = [e for n in range(12) for e in dialogue(f"s{n}", f"c{n}", [f"p{n}", "q", f"r{n}"])]
    by_utterance = leakage_report(examples, split_folds(examples, n_folds=4, seed=0))
    by_session = leakage_report(examples, split_folds(examples, n_folds=4, seed=0, group="session"))
    assert all(one["duplicates"]["count"] == 0 for one in by_utterance["folds"])
    assert sum(one["history_overlap"]["count"] for one in by_utterance["folds"]) > 0
    for one in by_session["folds"]:
        for heading in ("duplicates", "shared_sessions", "shared_clients", "history_overlap"):
            assert one[heading]["count"] == 0


def test_what_cannot_be_judged_is_counted():
    examples = [Example(id=str(i), history=(), response=f"r{i}", label="a") for i in range(4)]
    examples.append(Example(id="unlabelled", history=(), response="r", label=None))
    report = leakage_report(examples, split_folds(examples, n_folds=2, seed=0))
    assert (report["examples"], report["in_folds"]) == (5, 4)
    assert (report["without_session"], report["without_client"]) == (4, 4)


def test_the_report_is_strict_json_of_bounded_length_without_any_text():
    examples = [e for n in range(3) for e in dialogue(f"s{n}", "c", [SECRET, *map(str, range(80))])]
    report = leakage_report(examples, split_folds(examples, n_folds=2, seed=0))
    text = json.dumps(report, allow_nan=False)
    assert SECRET not in text
    assert "question" not in text
    overlap = report["folds"][0]["history_overlap"]
    assert overlap["count"] > len(overlap["ids"]) == MAX_IDS_LISTED


def test_a_corpus_of_the_papers_size_is_split_and_judged_in_seconds():
    examples = [
        e
        for n in range(800)
        for e in dialogue(
            f"s{n}", f"c{n % 82}", [f"{n} {turn} {'word ' * 6}" for turn in range(30)]
        )
    ]
    assert len(examples) == 24_000
    started = time.process_time()
    leakage_report(examples, split_folds(examples, n_folds=5, seed=0, protocol="nested"))
    assert time.process_time() - started < 20  # about 5 s on an idle core
