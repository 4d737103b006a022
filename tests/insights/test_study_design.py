from __future__ import annotations

from collections import Counter

import pytest

from recap.data.utterances import Utterance
from recap.errors import DataError
from recap.insights.study_materials import allocate, draw_scenarios
from recap.insights.study_rating import Response, blind
from recap.records import Turn

ASKED = (Turn(speaker="counselor", text="And how was that?"),)
WANTED = {("Blaming",): 2, ("Excusing",): 2, ("Collaboration", "Other"): 3}


def utterances() -> list[Utterance]:
    """Return ten utterances of each of four labels, over ten sessions."""
    return [
        Utterance(
            id=f"{label}{n}",
            session=f"s{n}",
            response=f"{label} {n}",
            label=label,
            dialogue=ASKED,
            before=1,
        )
        for label in ("Blaming", "Excusing", "Collaboration", "Other")
        for n in range(10)
    ]


def test_as_many_are_drawn_of_each_label_as_are_wanted() -> None:
    drawn = draw_scenarios(utterances(), WANTED, seed=1)
    counts = Counter(utterance.label for utterance in drawn.values())
    assert (counts["Blaming"], counts["Excusing"]) == (2, 2)
    assert counts["Collaboration"] + counts["Other"] == 3
    assert list(drawn) == [f"S{n}" for n in range(1, 8)]


def test_sessions_do_not_repeat_while_there_are_others() -> None:
    for seed in range(20):
        drawn = draw_scenarios(utterances(), WANTED, seed=seed)
        assert len({utterance.session for utterance in drawn.values()}) == 7


def test_a_draw_follows_the_seed_and_not_the_order_of_the_file() -> None:
    first = draw_scenarios(utterances(), WANTED, seed=1)
    assert draw_scenarios(utterances()[::-1], WANTED, seed=1) == first
    assert draw_scenarios(utterances(), WANTED, seed=2) != first


def test_codes_say_nothing_of_labels() -> None:
    orders = {
        tuple(u.label for u in draw_scenarios(utterances(), WANTED, seed=seed).values())
        for seed in range(20)
    }
    assert len(orders) > 15


def test_only_different_utterances_that_answer_a_counselor_are_drawn() -> None:
    said = {"session": "s", "label": "Blaming"}
    client = (Turn(speaker="client", text="Hm."),)
    pool = [
        Utterance(id="a", response="It was them.", dialogue=ASKED, before=1, **said),
        Utterance(id="b", response="It was them.", dialogue=ASKED, before=1, **said),
        Utterance(id="c", response="They did it.", dialogue=client, before=1, **said),
        Utterance(id="d", response="They did it.", **said),
    ]
    with pytest.raises(DataError, match=r"Blaming \(has 1, needs 2\)"):
        draw_scenarios(pool, {("Blaming",): 2}, seed=0)


@pytest.mark.parametrize("n", [4, 7, 34])
def test_groups_are_of_equal_size_or_one_apart(n: int) -> None:
    sizes = set()
    for seed in range(20):
        dealt = allocate(n, groups=("c", "e"), n_phases=2, scenarios=["S1", "S2"], seed=seed)
        counts = Counter(participant.group for participant in dealt)
        assert abs(counts["c"] - counts["e"]) == n % 2
        sizes.add(counts["c"])
    assert len(sizes) == 1 + n % 2  # chance says who has one more


def test_every_participant_sees_all_scenarios_in_an_order_of_their_own() -> None:
    codes = [f"S{n}" for n in range(30)]
    dealt = allocate(20, groups=("c", "e"), n_phases=2, scenarios=codes, seed=0)
    orders = [order for participant in dealt for order in participant.orders]
    assert all(sorted(order) == sorted(codes) for order in orders)
    assert len(set(orders)) == 40


def test_blinded_ids_say_nothing_of_participant_or_phase() -> None:
    responses = [
        Response(participant=f"P{n}", phase=phase, scenario="S1", text="...")
        for phase in ("pre", "post")
        for n in range(50)
    ]
    coded = blind(responses, seed=3)
    assert sorted(coded.values(), key=repr) == sorted(responses, key=repr)
    first_half = Counter(r.phase for r in list(coded.values())[:50])
    assert 15 < first_half["pre"] < 35
    assert blind(responses[::-1], seed=3) == coded
