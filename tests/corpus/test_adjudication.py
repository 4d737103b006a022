from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recap.corpus.adjudicate import adjudicate, decide
from recap.corpus.assign import assign
from recap.data.annotations import AnnotatorLabel
from recap.errors import ConfigError


def judged(*labels: str, rounds: str = "") -> list[AnnotatorLabel]:
    """Return the labels of annotators A, B, C... of one example."""
    return [
        AnnotatorLabel(
            id="e",
            annotator="ABCDEFG"[place],
            label=label,
            session="s",
            round=rounds[place] if rounds else "1",
            rationale=f"reason {place}",
        )
        for place, label in enumerate(labels)
    ]


@pytest.mark.parametrize(
    ("labels", "rule", "min_votes", "status", "label"),
    [
        ("xx", "plurality", 2, "unanimous", "x"),
        ("xy", "plurality", 2, "tie", None),
        ("xyx", "plurality", 2, "majority", "x"),
        ("xyz", "plurality", 2, "tie", None),
        ("x", "plurality", 2, "short", None),
        ("x", "plurality", 1, "unanimous", "x"),
        ("xxyz", "plurality", 2, "majority", "x"),
        ("xxyz", "majority", 2, "tie", None),
        ("xxxyz", "majority", 2, "majority", "x"),
        ("xxyyz", "plurality", 2, "tie", None),
        ("xxy", "plurality", 3, "short", None),
    ],
)
def test_a_label_wins_by_the_rule(
    labels: str, rule: str, min_votes: int, status: str, label: str | None
) -> None:
    [verdict] = adjudicate(judged(*labels), rule=rule, min_votes=min_votes)  # type: ignore[arg-type]
    assert (verdict.status, verdict.label, verdict.open) == (status, label, label is None)
    assert verdict.votes == Counter(labels)


def test_the_rationale_is_one_for_the_final_label() -> None:
    [verdict] = adjudicate(judged("y", "x", "x", rounds="112"))
    assert (verdict.label, verdict.rationale, verdict.session) == ("x", "reason 1", "s")
    assert (verdict.annotators, verdict.rounds) == (("A", "B", "C"), ("1", "2"))


def test_of_one_annotators_labels_the_last_counts() -> None:
    again = AnnotatorLabel(id="e", annotator="A", label="y", round="2")
    [verdict] = adjudicate([*judged("x", "y"), again])
    assert (verdict.status, verdict.label, verdict.votes) == ("unanimous", "y", {"y": 2})


def test_a_decision_counts_more_than_votes() -> None:
    verdicts = decide(adjudicate(judged("x", "y")), {"e": "z"})
    assert [(v.status, v.label, v.open) for v in verdicts] == [("decided", "z", False)]
    assert decide(verdicts, {}) == verdicts


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 60),
    people=st.integers(1, 7),
    data=st.data(),
    seed=st.integers(0, 5),
)
def test_every_example_goes_to_different_annotators_and_all_have_alike_to_do(
    n: int, people: int, data: st.DataObject, seed: int
) -> None:
    per_example = data.draw(st.integers(1, people))
    ids = [f"e{i}" for i in range(n)]
    names = [f"annotator {i}" for i in range(people)]
    assigned = assign(ids, names, per_example=per_example, seed=seed)
    assert list(assigned) == ids
    assert all(len(set(team)) == per_example for team in assigned.values())
    load = Counter(name for team in assigned.values() for name in team)
    assert max((load[name] for name in names), default=0) - min(load[n] for n in names) <= 1
    assert assign(ids, names, per_example=per_example, seed=seed) == assigned


def test_pairs_of_annotators_meet_about_equally_often() -> None:
    names = "ABCD"
    assigned = assign([str(i) for i in range(600)], names, seed=3)
    pairs = Counter(map(frozenset, assigned.values()))
    # Six pairs, 100 each.
    assert all(abs(pairs[frozenset(pair)] - 100) <= 10 for pair in combinations(names, 2))
    assert assign([str(i) for i in range(600)], names, seed=4) != assigned


def test_nobody_is_asked_twice_about_one_example() -> None:
    taken = {"1": {"A", "B"}, "2": {"A", "B", "C"}}
    assigned = assign(["1", "2", "3"], "ABC", per_example=2, taken=taken)
    assert (assigned["1"], assigned["2"]) == (("C",), ())
    assert len(assigned["3"]) == 2


@pytest.mark.parametrize("names", [["A"], ["A", "A"]])
def test_too_few_annotators_are_refused(names: list[str]) -> None:
    with pytest.raises(ConfigError, match="annotators"):
        assign(["1"], names)
