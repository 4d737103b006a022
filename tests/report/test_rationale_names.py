"""Which behaviours a rationale names: spellings, word families, denials, what fits a label."""

from __future__ import annotations

import pytest

from recap.report.rationale_content import MASK, NameFinder, shares_of_naming
from recap.tasks.library import load_taxonomy
from recap.taxonomy import Category, Taxonomy


@pytest.fixture(scope="module")
def finder() -> NameFinder:
    return NameFinder(load_taxonomy("psyfire"))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("This is Blaming.", ["Blaming"]),
        ("A clear MINIMAL TALK, then side-tracking", ["Minimum Talk", "Sidetracking"]),
        ("Denying - Pessimism", ["Denying", "Pessimism"]),
        ("来访者的回应属于否认-悲观。", ["Denying", "Pessimism"]),
        ("来访者不认同提议", ["Disagreeing"]),
        ("最小的回应而非最小化", ["Minimum Talk", "Minimizing"]),
        ("Ｂｌａｍｉｎｇ", ["Blaming"]),
        ("unblaming, Blamings", []),
        ("The client answers.", []),
    ],
)
def test_spellings_are_found_as_whole_names(finder, text, named) -> None:
    assert [m.category for m in finder.mentions(text) if m.spelled] == named


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("The client disagrees with the proposal", "Disagreeing"),
        ("a disagreement", "Disagreeing"),
        ("blames his mother", "Blaming"),
        ("is reluctant", "Reluctance"),
        ("is unwilling to change", "Unwillingness"),
        ("is inattentive", "Inattention"),
        ("collaborates openly", "Collaboration"),
        ("minimized it", "Minimizing"),
        ("resists", "Resistance"),
    ],
)
def test_words_of_a_family_are_told_apart_from_spellings(finder, text, category) -> None:
    [mention] = finder.mentions(text)
    assert (mention.category, mention.spelled) == (category, False)


@pytest.mark.parametrize(
    ("text", "denied"),
    [
        ("This is not Blaming", True),
        ("rather than simply Blaming", True),
        ("He doesn't show Pessimism", True),
        ("并非悲观", True),
        ("不是在责怪", True),
        ("毫无悲观", True),
        ("This is not only Blaming", False),
        ("He does not answer, Blaming others", False),
        ("It is not about guilt but about Blaming", False),
        ("不仅悲观", False),
        ("没有回答，悲观", False),
        ("来访者不认同", False),
    ],
)
def test_a_denied_name_is_no_naming(finder, text, denied) -> None:
    [mention] = finder.mentions(text)
    assert mention.denied is denied


def test_naming_is_seen_from_the_label(finder) -> None:
    text = "Denying - Pessimism, while blaming others and challenging the counselor; not Reluctance"
    naming = finder.naming(text, "Pessimism")
    assert (naming.own, naming.own_spelled, naming.above) == (True, True, True)
    assert naming.others == ("Blaming", "Challenging")


def test_what_lies_below_a_label_names_it_and_what_lies_above_is_no_other(finder) -> None:
    assert finder.naming("Blaming", "Resistance").own
    assert finder.naming("Resistance", "Blaming").others == ()
    assert finder.naming("Resistance, Denying", "Blaming").above
    assert finder.naming("Collaboration", "Blaming").others == ("Collaboration",)
    assert finder.naming("Arguing", "Blaming").others == ("Arguing",)
    assert finder.naming("he argues", "Blaming").other_families == ("Arguing",)


def test_shares_by_hand(finder) -> None:
    namings = [
        finder.naming("Blaming", "Blaming"),
        finder.naming("he blames her", "Blaming"),
        finder.naming("Denying", "Blaming"),
        finder.naming("Pessimism", "Blaming"),
        finder.naming("Blaming and Pessimism", "Blaming"),
        finder.naming("he talks", "Blaming"),
        finder.naming("he disagrees", "Blaming"),
        finder.naming("it is late", "Blaming"),
    ]
    assert shares_of_naming(namings) == {
        "own": 3 / 8,
        "own_spelled": 2 / 8,
        "only_above": 1 / 8,
        "another": 3 / 8,
        "another_spelled": 2 / 8,
        "another_and_not_own": 2 / 8,
        "nothing": 2 / 8,
    }
    assert set(shares_of_naming([]).values()) == {None}


def test_the_mask_leaves_no_name(finder) -> None:
    masked = finder.masked("Blaming: he BLAMES her, 而非悲观, not Reluctance.")
    assert masked == f"{MASK}: he {MASK} her, 而非{MASK}, not {MASK}."
    assert finder.mentions(masked) == ()


def test_a_rest_that_two_categories_share_stands_for_neither() -> None:
    taxonomy = Taxonomy(name="t", categories=(Category(name="Relating"), Category(name="Relation")))
    assert NameFinder(taxonomy).mentions("it relates") == ()
    assert (
        NameFinder(Taxonomy(name="t", categories=(Category(name="sustain"),))).mentions("x") == ()
    )
