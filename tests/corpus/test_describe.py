"""Counts and lengths of a corpus, against counts by hand and the paper's Table 3."""

from __future__ import annotations

from statistics import mean, median, stdev

import pytest

from recap.corpus.describe import CorpusCounter, Description, content_digest, in_tree_order
from recap.data.examples import examples_of
from recap.data.folds import content_key
from recap.data.words import is_chinese, summarize
from recap.records import Dialogue, Example, Turn
from recap.tasks.library import builtin_task
from recap.taxonomy import Taxonomy

# Table 3 of the paper: utterances and mean characters.
TABLE_3 = {
    "Challenging": (682, 26.03),
    "Discounting": (1094, 33.18),
    "Blaming": (422, 35.99),
    "Disagreeing": (1698, 28.87),
    "Excusing": (336, 29.10),
    "Minimizing": (368, 22.59),
    "Pessimism": (856, 32.15),
    "Reluctance": (586, 16.37),
    "Unwillingness": (384, 20.26),
    "Minimum Talk": (1018, 6.41),
    "Limit Setting": (850, 18.05),
    "Sidetracking": (1064, 27.38),
    "Inattention": (1040, 32.01),
    "Collaboration": (13532, 31.79),
}
TABLE_3_SUMS = {
    "Arguing": 1776,
    "Denying": 4650,
    "Avoiding": 1868,
    "Ignoring": 2104,
    "Resistance": 10398,
    "total": 23930,
}


@pytest.fixture(scope="module")
def psyfire() -> Taxonomy:
    return builtin_task("flat").taxonomy


def example(text: str, label: str | None = None, **rest: object) -> Example:
    return Example(**{"id": text, "history": (), "response": text, "label": label, **rest})


def described(examples: list[Example], taxonomy: Taxonomy | None, **options: object) -> Description:
    counter = CorpusCounter(**options)
    for one in examples:
        counter.add_record(one)
        counter.add_utterance(one)
    return counter.result(taxonomy)


def lengths_with_mean(n: int, wanted: float) -> list[int]:
    """Return n whole lengths whose mean, to two decimals, is the wanted one."""
    total = round(n * wanted)
    short, longer = divmod(total, n)
    return [short + 1] * longer + [short] * (n - longer)


def test_table_3_of_a_corpus_with_the_papers_counts_adds_up(psyfire: Taxonomy) -> None:
    examples = [
        example("好" * length, label, id=f"{label} {index}", history=(turn(str(index)),))
        for label, (n, wanted) in TABLE_3.items()
        for index, length in enumerate(lengths_with_mean(n, wanted))
    ]
    found = described(examples, psyfire)
    rows = {row.name: row for row in (*found.categories, found.total)}
    assert {name: rows[name].n for name in TABLE_3_SUMS} == TABLE_3_SUMS
    assert {name: rows[name].n for name in TABLE_3} == {k: n for k, (n, _) in TABLE_3.items()}
    for name, (_, wanted) in TABLE_3.items():
        assert rows[name].characters.mean == pytest.approx(wanted, abs=0.005)
    # The paper prints 29.02 for the total; its own rows give 29.07.
    assert rows["Resistance"].characters.mean == pytest.approx(25.53, abs=0.01)
    assert rows["total"].characters.mean == pytest.approx(29.07, abs=0.01)
    assert rows["total"].words.n == 0
    shares = sum(rows[name].share for name in psyfire.leaves)
    assert shares == pytest.approx(1)


def turn(text: str, speaker: str = "counselor", label: str | None = None) -> Turn:
    return Turn(speaker=speaker, text=text, label=label)


def test_rows_stand_under_their_parents_in_canonical_order(psyfire: Taxonomy) -> None:
    order = in_tree_order(psyfire)
    assert order[:4] == ["Resistance", "Arguing", "Challenging", "Discounting"]
    assert order[-1] == "Collaboration"
    assert [name for name in order if name in psyfire.leaves] == list(psyfire.leaves)
    assert sorted(order) == sorted(category.name for category in psyfire.categories)


def test_lengths_are_summarized_as_statistics_does() -> None:
    values = [3, 1, 4, 1, 5, 9, 2, 6]
    found = summarize(values)
    assert (found.n, found.most) == (8, 9)
    assert found.mean == pytest.approx(mean(values))
    assert found.std == pytest.approx(stdev(values))
    assert found.median == median(values)
    one, none = summarize([7]), summarize([])
    assert (one.mean, one.std) == (7, None)
    assert (none.n, none.mean, none.std, none.median, none.most) == (0, None, None, None, None)


def test_distinct_counts_pairs_of_context_and_response(psyfire: Taxonomy) -> None:
    other = (turn("Why?"),)
    examples = [
        example("No.", "Disagreeing", id="a"),
        example(" No. ", "Disagreeing", id="b"),
        example("No.", "Minimum Talk", id="c"),
        example("No.", "Disagreeing", id="d", history=other),
    ]
    found = described(examples, psyfire)
    rows = {row.name: row for row in found.categories}
    assert (rows["Disagreeing"].n, rows["Disagreeing"].distinct) == (3, 2)
    assert (rows["Resistance"].n, rows["Resistance"].distinct) == (4, 2)
    assert (found.total.n, found.total.distinct) == (4, 2)
    assert found.label_conflicts == 1


def test_the_digest_is_as_equal_as_the_key_of_the_folds() -> None:
    histories = [(), (turn("a b"),), (turn("a  b"),), (turn("a b", "client"),), (turn("a"),) * 2]
    texts = ["x", " x", "x y", "é", "e\u0301"]
    examples = [example(text, history=history) for history in histories for text in texts]
    for left in examples:
        for right in examples:
            same = content_digest(left) == content_digest(right)
            assert same == (content_key(left) == content_key(right))


def test_words_are_counted_where_the_language_has_them() -> None:
    mixed = [example("I do not know"), example("我不知道")]
    chinese = [example("我不知道"), example("OK 的")]
    assert described(mixed, None, language="both").total.words.mean == 4
    assert described(mixed, None, language="zh").total.words.n == 0
    assert described(mixed, None, language="en").total.words.mean == 2.5
    assert described(chinese, None).total.words.n == 0
    assert described(mixed, None).total.words.n == 2
    assert is_chinese("好的 OK")
    assert not is_chinese("OK 好")
    assert not is_chinese("…")


def test_turns_sessions_and_clients_are_counted() -> None:
    dialogue = Dialogue(
        session="s1",
        client="c1",
        turns=(
            turn("Hi", "client"),
            turn("Hello there"),
            turn("And?"),
            turn("Well", "client"),
            turn("So", "client"),
        ),
    )
    counter = CorpusCounter(count_tokens=len)
    counter.add_record(dialogue)
    for one in examples_of(dialogue, merge_adjacent=False, no_intervention="keep"):
        counter.add_utterance(one)
    found = counter.result()
    counts = found.dialogues
    assert (counts.sessions, counts.clients, counts.dialogues, counts.single_examples) == (
        1,
        1,
        1,
        0,
    )
    assert (counts.client_turns, counts.counselor_turns) == (3, 2)
    assert (counts.adjacent_same_speaker, counts.client_begins, counts.after_counselor) == (2, 1, 1)
    assert counts.counselor_characters.mean == 7.5
    assert counts.counselor_words.mean == 1.5
    assert found.history_turns.mean == pytest.approx((0 + 3 + 4) / 3)
    assert found.history_characters.most == 2 + 11 + 4 + 4
    assert found.history_tokens == found.history_characters


def test_missing_rationales_are_those_of_labelled_utterances(psyfire: Taxonomy) -> None:
    found = described(
        [
            example("a", "Blaming", rationale="because"),
            example("b", "Blaming", rationale=" "),
            example("c", "Collaboration"),
            example("d"),
            example(""),
        ],
        psyfire,
    )
    rows = {row.name: row.without_rationale for row in found.categories}
    assert (rows["Blaming"], rows["Collaboration"]) == (1, 1)
    assert found.total.without_rationale == 2
    assert (found.labelled.n, found.unlabelled.n, found.empty) == (3, 2, 1)


def test_without_a_taxonomy_labels_stand_by_falling_count() -> None:
    found = described([example("1", "b"), example("2", "a"), example("3", "b")], None)
    assert [(row.name, row.n) for row in found.categories] == [("b", 2), ("a", 1)]
