from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logit

from recap.data.utterances import Utterance, labels_in_use, list_client_turns, membership
from recap.records import Dialogue, Turn
from recap.statistics.sessions import after_acts, count_sessions, development, prevalence
from recap.tasks.library import builtin_task

LABELS = ("Disagreeing", "Blaming", "Collaboration")


def is_resistant(label: str) -> bool:
    return label != "Collaboration"


def said(session: str, labels: str, acts: str | None = None) -> list[Utterance]:
    """Utterances of one session: D, B, C or - for no label; acts are letters."""
    names = {"D": "Disagreeing", "B": "Blaming", "C": "Collaboration", "-": None}
    return [
        Utterance(
            id=f"{session}:{i}",
            session=session,
            response="…",
            label=names[letter],
            act=None if acts is None or acts[i] == "." else acts[i],
        )
        for i, letter in enumerate(labels)
    ]


# By hand: A 2 of 4, B 0 of 2, C 1 of 1 resistant; 3 of 7 in all; distinct 2, 0, 1.
SAID = [*said("A", "DBCC"), *said("B", "CC-"), *said("C", "D")]


def test_shares_by_hand() -> None:
    sessions = count_sessions(SAID, LABELS, is_resistant)
    assert [(s.session, s.counts, s.resistant) for s in sessions] == [
        ("A", (1, 1, 2), 2),
        ("B", (0, 0, 2), 0),
        ("C", (1, 0, 0), 1),
    ]
    found = prevalence(sessions, [True, True, False], confidence=None)
    assert (found.n_sessions, found.n_utterances, found.n_resistant) == (3, 7, 3)
    assert found.share_of_utterances.value == pytest.approx(3 / 7)
    assert found.mean_session_share.value == pytest.approx((0.5 + 0 + 1) / 3)
    assert found.share_of_sessions.value == pytest.approx(2 / 3)
    assert found.distinct_behaviors.value == pytest.approx(1)
    assert found.distinct_where_any == pytest.approx(1.5)
    assert [i.value for i in found.label_shares] == pytest.approx([2 / 7, 1 / 7, 4 / 7])
    assert found.share_of_utterances.low is None


def test_intervals_hold_the_value_and_say_why_there_is_none() -> None:
    many = [u for n in range(12) for u in said(f"s{n}", "DBCC" if n % 3 else "CC")]
    found = prevalence(count_sessions(many, LABELS, is_resistant), [True, True, False])
    for one in (found.share_of_utterances, found.mean_session_share, found.distinct_behaviors):
        assert one.low < one.value < one.high
        assert (one.cluster, one.clusters) == ("session", 12)
    alike = [u for n in range(12) for u in said(f"s{n}", "DC")]
    share = prevalence(count_sessions(alike, LABELS, is_resistant), [True, True, False])
    assert share.share_of_utterances.reason == "the same whichever session is left out"
    nine = prevalence(count_sessions(many[:28], LABELS, is_resistant), [True, True, False])
    assert nine.n_sessions == 9
    assert nine.share_of_utterances.reason.startswith("9 sessions are too few")


def test_a_client_of_several_sessions_counts_whole_and_else_the_counselor() -> None:
    many = [u for n in range(24) for u in said(f"s{n}", "DBCC" if n % 4 < 2 else "CC")]
    sessions = count_sessions(many, LABELS, is_resistant)
    of_clients = [replace(s, client=f"c{n // 2}") for n, s in enumerate(sessions)]
    of_counselors = [replace(s, counselor=f"c{n // 8}") for n, s in enumerate(sessions)]
    alone, pairs, few = (
        prevalence(given, [True, True, False]).mean_session_share
        for given in (sessions, of_clients, of_counselors)
    )
    assert (pairs.cluster, pairs.clusters) == ("client", 12)
    # Both sessions of a client are alike: half as many observations.
    width = [np.ptp(logit(one.interval)) for one in (alone, pairs)]
    assert width[1] / width[0] == pytest.approx(np.sqrt(2), rel=0.15)
    assert few.reason == "3 counselors are too few: under 10 there is no interval and no p"


def test_development_puts_the_middle_of_each_utterance_into_its_part() -> None:
    # Of two utterances the middles are 1/4 and 3/4; of four 1/8, 3/8, 5/8, 7/8; of one 1/2.
    found = development([*said("A", "DC"), *said("B", "DDCB"), *said("C", "B")], LABELS,
                        is_resistant, bins=4, confidence=None)  # fmt: skip
    assert [part.n for part in found] == [1, 2, 2, 2]
    assert [part.share.value for part in found] == pytest.approx([1, 1, 1 / 2, 1 / 2])
    assert found[2].counts == (0, 1, 1)
    halves = development(said("A", "DC"), LABELS, is_resistant, bins=10, confidence=None)
    assert [part.share.value for part in halves] == [
        1.0 if part == 2 else 0.0 if part == 7 else None for part in range(10)
    ]


def test_acts_count_only_where_act_and_label_are_known() -> None:
    found = after_acts([*said("A", "DC-B", "qqq."), *said("B", "BC", "rq")], LABELS, is_resistant,
                       confidence=None)  # fmt: skip
    assert [(act, part.n, part.resistant, part.counts) for act, part in found.items()] == [
        ("q", 3, 1, (1, 0, 2)),
        ("r", 1, 1, (0, 1, 0)),
    ]
    assert after_acts(said("A", "DC"), LABELS, is_resistant) == {}


def test_client_turns_become_utterances_with_the_act_just_before_them() -> None:
    dialogue = Dialogue(
        session="S",
        turns=(
            Turn(speaker="client", text="a"),
            Turn(speaker="counselor", text="b", label="question"),
            Turn(speaker="client", text="c", label="Blaming", id="x"),
            Turn(speaker="client", text="d"),
        ),
    )
    found = list_client_turns(dialogue)
    assert [(u.id, u.turn, u.act, u.label, len(u.history)) for u in found] == [
        ("S:0", 0, None, None, 0),
        ("x", 2, "question", "Blaming", 2),
        ("S:3", 3, None, None, 3),
    ]


def test_labels_in_use_are_leaves_unless_the_annotation_stops_above_them() -> None:
    taxonomy = builtin_task("flat").taxonomy
    assert labels_in_use(taxonomy, ["Resistance", "Collaboration"]) == (
        "Resistance",
        "Collaboration",
    )
    assert set(labels_in_use(taxonomy, ["Blaming"])) == set(taxonomy.leaves)
    mixed = labels_in_use(taxonomy, ["Arguing", "Blaming"])
    assert "Challenging" not in mixed
    assert {"Arguing", "Blaming", "Minimum Talk"} <= set(mixed)


def test_membership_reaches_down_from_the_named_categories() -> None:
    member = membership(builtin_task("flat").taxonomy, ["Denying", "Sidetracking"])
    assert [member(n) for n in ("Denying", "Blaming", "Sidetracking", "Challenging")] == [
        True,
        True,
        True,
        False,
    ]


def test_what_never_occurs_has_no_interval_that_pretends_to_know_how_rare_it_is() -> None:
    many = [u for n in range(12) for u in said(f"s{n}", "DC" if n else "D")]
    found = prevalence(count_sessions(many, LABELS, is_resistant), [True, True, False])
    assert (found.label_shares[1].value, found.label_shares[1].high) == (0, None)
    assert (found.share_of_sessions.value, found.share_of_sessions.low) == (1, None)
    assert "at an end of its range" in found.share_of_sessions.reason
