"""The leakage report counts what folds share, and prints no text."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from recap.data.folds import split_folds
from recap.data.leakage import (
    LIKELIEST_COMPARED,
    MAX_IDS_LISTED,
    NearTexts,
    find_near_duplicates,
    leakage_report,
    with_shots,
)
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


def test_a_counselors_words_are_no_client_turn():
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


@pytest.mark.slow
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
    assert time.process_time() - started < 20  # about 8 s on an idle core


ASKED = "What would have to happen so that you could sleep through the night again?"
SAID = "If my neighbor stopped drilling holes at midnight, I would sleep like a stone."
OTHER = "The new manager reads out our figures each Monday, and nobody dares to look up."


def asked(identifier, response, question=ASKED, opening="Hello."):
    history = (
        Turn(speaker="counselor", text=opening),
        Turn(speaker="client", text=f"Good morning, said {identifier}."),
        Turn(speaker="counselor", text=question),
    )
    return Example(id=identifier, history=history, response=response, session=identifier, label="a")


@pytest.mark.parametrize(
    ("response", "question", "found"),
    [
        (SAID.replace("midnight", "two o'clock"), ASKED, 1),
        (SAID.upper(), ASKED, 1),
        (SAID, ASKED, 1),  # after another opening: no exact duplicate
        (SAID, ASKED.replace("would have", "has"), 1),
        (OTHER, ASKED, 0),
        (SAID, "And your sister, the one who moved to the coast, what does she say of it?", 0),
    ],
)
def test_a_near_duplicate_is_one_of_question_and_answer_together(response, question, found):
    examples = [asked("one", SAID), asked("two", response, question, opening="So we meet again.")]
    near = only(leakage_report(examples, [fold([0], (1,))]))["near_duplicates"]
    assert near == {"count": found, "ids": ["two"] * found}


def test_one_question_with_opposite_short_answers_is_no_near_duplicate():
    examples = [asked("one", "Yes, gladly."), asked("two", "No, never!", opening="Oh.")]
    assert only(leakage_report(examples, [fold([0], (1,))]))["near_duplicates"]["count"] == 0


def test_short_exchanges_that_anybody_might_have_are_no_near_duplicates():
    examples = [asked("one", "Yeah.", "Mm-hmm."), asked("two", "Yeah.", "Mm-hmm.", opening="Oh.")]
    assert only(leakage_report(examples, [fold([0], (1,))]))["near_duplicates"]["count"] == 0


def test_an_exact_duplicate_is_no_near_one_and_counts_wherever_it_lies():
    (one,), (other,) = dialogue("s1", None, [SAID]), dialogue("s2", None, [SAID])
    (third,) = dialogue("s3", None, [OTHER])
    apart = leakage_report([one, other, third], [fold([0, 2], (1,))])
    assert only(apart)["duplicates"]["ids"] == ["s2:0"]
    assert only(apart)["near_duplicates"]["count"] == 0
    together = leakage_report([one, other, third], [fold([2], (0, 1))])
    assert only(together)["duplicates"]["count"] == 0
    assert together["repeats"] == apart["repeats"] == {"count": 1, "ids": ["s2:0"]}


def test_near_duplicates_between_two_parts_are_those_of_all_pairs_compared():
    random = np.random.default_rng(1)
    alphabet = list("abcdefghij我你他不是")
    texts = ["".join(random.choice(alphabet, 40)) for _ in range(120)]
    for number in range(120):
        letters = list(texts[number])
        for place in random.integers(0, 40, int(random.integers(1, 5))):
            letters[place] = "z"
        texts.append("".join(letters))

    def jaccard(i, j):
        a, b = ({t[k : k + 3] for k in range(len(t) - 2)} for t in (texts[i], texts[j]))
        return len(a & b) / len(a | b)

    crossed = [*range(120)], [*range(120, 240)]
    expected = {i for i in crossed[0] if max(jaccard(i, j) for j in crossed[1]) >= 0.7}
    assert len(expected) > 50
    assert set(NearTexts(texts).nearest(*crossed, threshold=0.7)) == expected


def test_shots_that_are_tested_or_share_anything_with_the_test_are_found():
    examples = [
        asked("shot", SAID),
        asked("near", SAID.replace("midnight", "two o'clock"), opening="Oh."),
        *dialogue("s1", None, [OTHER, "I would rather not go into that today."]),
        asked("clean", "My sister paints fences green whenever it rains.", "How is she?"),
    ]
    folds = [fold([0, 2], (1, 3, 4)), replace(fold([1, 3, 4], (0, 2)), index=1)]
    report = leakage_report(examples, folds)
    shots = {0: [examples[0], examples[2]], 1: [examples[0], examples[4]]}
    first, second = (one["shots"] for one in with_shots(report, examples, folds, shots)["folds"])
    assert first["ids"] == ["shot", "s1:0"]
    assert first["in_test"] == {"count": 0, "ids": []}
    assert first["near_duplicates"]["ids"] == ["near"]
    assert first["shared_sessions"] == {"count": 1, "test_examples": 1}
    assert first["history_overlap"]["ids"] == ["s1:1"]
    assert second["in_test"] == {"count": 1, "ids": ["shot"]}
    assert second["duplicates"]["ids"] == ["shot"]
    clean = with_shots(report, examples, folds, {0: [], 1: [examples[4]]})["folds"][1]["shots"]
    kinds = ("in_test", "duplicates", "near_duplicates", "shared_sessions", "history_overlap")
    assert [clean[kind]["count"] for kind in kinds] == [0] * 5


def test_a_crowd_of_near_equal_texts_costs_each_of_them_a_few_comparisons() -> None:
    """100,000 of them took longer than anybody waits; a few comparisons each are linear."""
    texts = [f"I do not know what to say about number {n}, as nothing changes." for n in range(900)]
    compared = 0

    class Counted(NearTexts):
        def _similarity(self, text: int, other: int) -> float:
            nonlocal compared
            compared += 1
            return super()._similarity(text, other)

    pairs = Counted(texts).among_earlier(0.8)
    assert [pair.second for pair in pairs] == list(range(1, 900))
    assert pairs == find_near_duplicates(texts)
    assert compared <= LIKELIEST_COMPARED * len(texts)


def test_similarity_is_that_of_the_sets_of_trigrams() -> None:
    texts = ["they never listen to me", "they never listen to you", "they never listened to me"]
    sets = [{text[i : i + 3] for i in range(len(text) - 2)} for text in texts]
    for pair in find_near_duplicates(texts, threshold=0.3):
        left, right = sets[pair.first], sets[pair.second]
        assert pair.similarity == pytest.approx(len(left & right) / len(left | right))
