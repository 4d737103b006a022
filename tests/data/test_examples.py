"""Examples of a dialogue: merged, skipped, and every client turn accounted for."""

from __future__ import annotations

import hashlib
import json
import pickle
import tracemalloc
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recap.data.examples import answers_counselor, examples_of
from recap.data.folds import content_key
from recap.records import Dialogue, Example, Speaker, Turn, Turns

LABELS = (None, "Blaming", "Excusing")


def dialogue(*turns: tuple[str, str, str | None]) -> Dialogue:
    said = {"T": "counselor", "C": "client"}
    return Dialogue(
        session="s1",
        client="c7",
        meta={"topic": "sleep"},
        turns=tuple(Turn(speaker=said[who], text=text, label=label) for who, text, label in turns),
    )


def test_each_client_turn_becomes_an_example_with_all_turns_before_it_as_history() -> None:
    found = list(
        examples_of(
            dialogue(
                ("T", "a", "question"), ("C", "b", "Blaming"), ("T", "c", None), ("C", "d", None)
            )
        )
    )
    assert [(e.id, e.turn, e.response, e.label) for e in found] == [
        ("s1:1", 1, "b", "Blaming"),
        ("s1:3", 3, "d", None),
    ]
    assert [turn.text for turn in found[1].history] == ["a", "b", "c"]
    assert found[0].history[0].label == "question"
    assert (found[0].session, found[0].client, found[0].meta) == ("s1", "c7", {"topic": "sleep"})


def test_a_turn_keeps_its_own_id() -> None:
    turns = (Turn(speaker="counselor", text="a"), Turn(speaker="client", text="b", id="u-9"))
    (example,) = examples_of(Dialogue(session="s", turns=turns))
    assert example.id == "u-9"


def test_adjacent_turns_merge_into_one_with_texts_on_lines_of_their_own() -> None:
    counts: Counter[str] = Counter()
    (example,) = examples_of(
        dialogue(("T", "a", None), ("T", "b", None), ("C", "c", None), ("C", "d", "Blaming")),
        counts=counts,
    )
    assert [turn.text for turn in example.history] == ["a\nb"]
    assert (example.response, example.label, example.turn) == ("c\nd", "Blaming", 3)
    assert counts["merged_counselor_turns"] == 1
    assert counts["merged_client_turns"] == 1
    assert counts["merged_label_conflicts"] == 0


def test_a_merged_turn_takes_the_id_and_label_of_its_last_labeled_part() -> None:
    (example,) = examples_of(
        dialogue(("T", "a", None), ("C", "b", "Blaming"), ("C", "c", None)),
    )
    assert (example.id, example.label, example.response) == ("s1:1", "Blaming", "b\nc")


def test_labels_lost_by_merging_are_counted() -> None:
    counts: Counter[str] = Counter()
    (example,) = examples_of(
        dialogue(
            *(("T", "a", "question"), ("T", "b", "reflection")),
            *(("C", "c", "Blaming"), ("C", "d", "Excusing")),
        ),
        counts=counts,
    )
    assert example.label == "Excusing"
    assert counts["merged_label_conflicts"] == 1
    assert counts["merged_act_conflicts"] == 1


def test_without_merging_every_turn_stands_alone() -> None:
    found = examples_of(
        dialogue(("T", "a", None), ("C", "b", None), ("C", "c", None)),
        merge_adjacent=False,
        no_intervention="keep",
    )
    assert [(e.response, len(e.history)) for e in found] == [("b", 1), ("c", 2)]


def test_a_client_turn_that_follows_no_counselor_turn_is_skipped_and_counted_or_kept() -> None:
    opening = dialogue(("C", "a", None), ("T", "b", None), ("C", "c", None))
    counts: Counter[str] = Counter()
    assert [e.response for e in examples_of(opening, counts=counts)] == ["c"]
    assert counts["no_intervention"] == 1
    assert [e.response for e in examples_of(opening, no_intervention="keep")] == ["a", "c"]


def test_unlabeled_client_turns_make_no_example_where_labels_are_required() -> None:
    counts: Counter[str] = Counter()
    found = examples_of(
        dialogue(("T", "a", None), ("C", "b", None), ("T", "c", None), ("C", "d", "Blaming")),
        require_labels=True,
        counts=counts,
    )
    assert [e.response for e in found] == ["d"]
    assert counts["unlabelled"] == 1


@given(
    turns=st.lists(st.tuples(st.sampled_from("TC"), st.text(min_size=1), st.sampled_from(LABELS))),
    merge=st.booleans(),
    skip=st.booleans(),
    require=st.booleans(),
)
def test_every_client_turn_is_accounted_for_once(
    turns: list[tuple[str, str, str | None]], merge: bool, skip: bool, require: bool
) -> None:
    counts: Counter[str] = Counter()
    found = list(
        examples_of(
            dialogue(*turns),
            merge_adjacent=merge,
            no_intervention="skip" if skip else "keep",
            require_labels=require,
            counts=counts,
        )
    )
    assert len(found) == counts["examples"]
    assert counts["client_turns"] == sum(who == "C" for who, _, _ in turns)
    fates = ("examples", "unlabelled", "no_intervention", "merged_client_turns")
    assert sum(counts[fate] for fate in fates) == counts["client_turns"]
    assert len({example.id for example in found}) == len(found)
    if merge:
        for example in found:
            speakers = [turn.speaker for turn in example.history] + ["client"]
            assert all(a != b for a, b in pairwise(speakers))


@pytest.mark.parametrize(
    ("speakers", "expected"),
    [("", False), ("T", True), ("TC", False), ("CT", True)],
)
def test_an_intervention_is_a_counselor_turn_directly_before(speakers: str, expected: bool) -> None:
    turns = dialogue(*((who, "x", None) for who in speakers)).turns
    assert answers_counselor(turns) is expected


def test_an_examples_history_is_merged_and_its_response_left_alone() -> None:
    turns = dialogue(("T", "a", None), ("T", "b", None), ("C", "c", None)).turns
    (example,) = examples_of(Example(id="e", history=turns, response="y"), no_intervention="keep")
    assert [turn.text for turn in example.history] == ["a\nb", "c"]
    assert example.response == "y"


def long_dialogue(n: int) -> Dialogue:
    speakers: tuple[Speaker, Speaker] = ("counselor", "client")
    turns = (Turn(speaker=speakers[i % 2], text=f"Turn {i}, Zürich\n") for i in range(n))
    return Dialogue(session="s", turns=tuple(turns))


def test_the_histories_of_a_dialogue_share_its_turns() -> None:
    """20,000 rows without a session column held 1,560 MB as copies."""
    tracemalloc.start()
    try:
        examples = list(examples_of(long_dialogue(4_000)))
        keys = {content_key(example) for example in examples}
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # As copies, the histories alone hold 2,000 tuples of 2,000 pointers on average: 32 MB.
    assert held < 8 * 2**20
    assert len(keys) == len(examples) == 2_000


def test_a_shared_history_is_the_tuple_of_its_turns_in_every_way() -> None:
    dialogue = long_dialogue(9)
    for example in examples_of(dialogue):
        plain = dialogue.turns[: example.turn]
        assert example.history == plain
        assert plain == example.history
        assert example.history != plain[1:]
        assert (*example.history,) == plain
        assert example.history[-1] == plain[-1]
        assert example.history[1:] == plain[1:]
        assert hash(example.history) == hash(plain)
        with pytest.raises(IndexError):
            example.history[len(plain)]
        again = pickle.loads(pickle.dumps(example))  # noqa: S301 - our own
        assert again == example
        assert content_key(again) == content_key(example)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_a_content_key_is_the_hash_of_speakers_and_texts_as_json(n: int) -> None:
    last = [*examples_of(long_dialogue(6), no_intervention="keep")][-1]
    texts = [[turn.speaker, " ".join(turn.text.split())] for turn in last.history[:n]]
    written = json.dumps([texts, "Turn 5, Zürich"]).encode("ascii")
    for history in (last.history[:n], Turns(tuple(last.history)).first(n)):
        key = content_key(replace(last, history=history))
        assert key == hashlib.sha256(written).hexdigest()
