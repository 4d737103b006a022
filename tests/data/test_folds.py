"""Folds: one partition of the data set, balanced, and blind to the order of its rows."""

from __future__ import annotations

import csv
import json
import random
import warnings
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from recap.data.folds import content_key, data_hash, partition_hash, split_folds
from recap.errors import ConfigError, DataError
from recap.records import Example, Turn

TABLE_3 = {
    "Challenging": 682,
    "Discounting": 1094,
    "Blaming": 422,
    "Disagreeing": 1698,
    "Excusing": 336,
    "Minimizing": 368,
    "Pessimism": 856,
    "Reluctance": 586,
    "Unwillingness": 384,
    "Minimum Talk": 1018,
    "Limit Setting": 850,
    "Inattention": 1040,
    "Sidetracking": 1064,
    "Collaboration": 13532,
}


def example(number, *, label="a", response=None, session=None, client=None, history="And then?"):
    return Example(
        id=f"e{number}",
        history=(Turn(speaker="counselor", text=history),),
        response=f"answer {number}" if response is None else response,
        session=session,
        client=client,
        label=label,
    )


def labeled(counts):
    labels = [label for label, n in counts.items() for _ in range(n)]
    return [example(i, label=label) for i, label in enumerate(labels)]


@st.composite
def data_sets(draw):
    """Small data sets with rare classes, duplicates, sessions of all sizes and unlabeled rows."""
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["a", "b", "c", None]), st.integers(0, 25), st.integers(0, 12)
            ),
            min_size=1,
            max_size=60,
        )
    )
    return [
        example(i, label=label, response=f"r{text}", session=f"s{session}")
        for i, (label, text, session) in enumerate(rows)
    ]


def folds_or_refusal(examples, **options):
    try:
        return split_folds(examples, **options)
    except (ConfigError, DataError) as error:
        return type(error)


OPTIONS = {
    "n_folds": st.integers(2, 6),
    "seed": st.integers(0, 3),
    "group": st.sampled_from([None, "session"]),
    "protocol": st.sampled_from(["paper", "nested"]),
}


@settings(max_examples=150, deadline=None)
@given(examples=data_sets(), **OPTIONS)
def test_folds_partition_the_labeled_examples_and_nothing_that_belongs_together_straddles(
    examples, n_folds, seed, group, protocol
):
    folds = folds_or_refusal(examples, n_folds=n_folds, seed=seed, group=group, protocol=protocol)
    if isinstance(folds, type):
        return
    everything = {i for i, e in enumerate(examples) if e.label is not None}
    assert sorted(i for fold in folds for i in fold.test) == sorted(everything)
    assert [fold.index for fold in folds] == list(range(n_folds))
    for fold in folds:
        parts = [set(fold.train), set(fold.test)]
        if protocol == "paper":
            assert fold.select == fold.test
        else:
            parts.append(set(fold.select))
        assert all(parts)
        assert set.union(*parts) == everything
        assert sum(map(len, parts)) == len(everything)
        together = [content_key] if group is None else [content_key, lambda e: e.session]
        for key in together:
            keys = [{key(examples[i]) for i in part} for part in parts]
            assert sum(map(len, keys)) == len(set.union(*keys))


@settings(max_examples=150, deadline=None)
@given(examples=data_sets(), shuffling=st.randoms(use_true_random=False), **OPTIONS)
def test_the_order_of_the_rows_changes_neither_folds_nor_hashes(
    examples, shuffling, n_folds, seed, group, protocol
):
    options = {"n_folds": n_folds, "seed": seed, "group": group, "protocol": protocol}
    shuffled = list(examples)
    shuffling.shuffle(shuffled)
    before, after = folds_or_refusal(examples, **options), folds_or_refusal(shuffled, **options)
    assert data_hash(examples) == data_hash(shuffled)
    if isinstance(before, type):
        assert before is after
        return
    for one, other in zip(before, after, strict=True):
        for part in ("train", "select", "test"):
            ids = {examples[i].id for i in getattr(one, part)}
            assert ids == {shuffled[i].id for i in getattr(other, part)}
    assert partition_hash(examples, before) == partition_hash(shuffled, after)


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 23), min_size=1, max_size=6),
    n_folds=st.integers(2, 6),
    seed=st.integers(0, 5),
)
def test_classes_and_totals_are_spread_as_evenly_as_scikit_learn_spreads_them(sizes, n_folds, seed):
    examples = labeled({f"label {i}": size for i, size in enumerate(sizes)})
    if len(examples) < n_folds:
        return
    folds = split_folds(examples, n_folds=n_folds, seed=seed)
    y = np.array([e.label for e in examples])
    ours = [Counter(y[list(fold.test)].tolist()) for fold in folds]
    totals = [len(fold.test) for fold in folds]
    assert max(totals) - min(totals) <= 1
    if max(sizes) < n_folds:  # scikit-learn refuses to split these at all
        for label in set(y.tolist()):
            assert max(count[label] for count in ours) == 1
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        split = list(StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(y, y))
    theirs = [Counter(y[test].tolist()) for _, test in split]
    for label in set(y.tolist()):
        assert sorted(c[label] for c in ours) == sorted(c[label] for c in theirs)


def test_the_papers_counts_are_split_to_within_one_example_a_class():
    examples = labeled(TABLE_3)
    folds = split_folds(examples, n_folds=5, seed=1)
    assert [len(fold.test) for fold in folds] == [4786] * 5  # 23,930 / 5
    held = [Counter(examples[i].label for i in fold.test) for fold in folds]
    for label, n in TABLE_3.items():
        assert sorted(count[label] for count in held) == sorted(
            n // 5 + (k < n % 5) for k in range(5)
        )


def test_utterances_that_occur_twice_leave_the_folds_level():
    counts = {"a": 500, "b": 120, "c": 31}
    examples = labeled(counts)
    examples += [
        example(10_000 + i, label=e.label, response=e.response)
        for i, e in enumerate(examples)
        if i % 3 == 0
    ]
    folds = split_folds(examples, n_folds=5, seed=0)
    totals = [len(fold.test) for fold in folds]
    assert max(totals) - min(totals) <= 2
    for label in counts:
        held = [sum(examples[i].label == label for i in fold.test) for fold in folds]
        assert max(held) - min(held) <= 2


def sessions(seed, n_sessions=60):
    rng = random.Random(seed)
    examples = []
    for session in range(n_sessions):
        weights = [rng.random() ** 3 for _ in range(5)]
        for label in rng.choices("abcde", weights, k=rng.randint(1, 40)):
            number = len(examples)
            examples.append(
                example(number, label=label, session=f"s{session}", client=f"c{session // 3}")
            )
    return examples


@pytest.mark.parametrize("seed", range(5))
def test_sessions_are_balanced_over_folds_no_worse_than_by_stratified_group_k_fold(seed):
    examples = sessions(seed)
    y = np.array([e.label for e in examples])
    groups = np.array([e.session for e in examples])

    def unevenness(tests):
        counts = np.array([[(y[list(test)] == label).sum() for label in "abcde"] for test in tests])
        return (counts / counts.sum(axis=0)).std(axis=0).mean()

    ours = [fold.test for fold in split_folds(examples, n_folds=5, seed=seed, group="session")]
    split = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(y, y, groups)
    assert unevenness(ours) <= unevenness([test for _, test in split]) * 1.25
    assert unevenness(ours) < 0.02  # a perfect split has 0, shares are about 0.2


def test_clients_can_be_kept_together_instead_of_sessions():
    examples = sessions(0)
    for fold in split_folds(examples, n_folds=5, seed=0, group="client", protocol="nested"):
        clients = [
            {examples[i].client for i in part} for part in (fold.train, fold.select, fold.test)
        ]
        assert sum(map(len, clients)) == len(set.union(*clients))


def test_sessions_that_share_an_exact_duplicate_go_to_one_fold():
    examples = [
        example(0, response="same", session="s1"),
        example(1, session="s1"),
        example(2, response="same", session="s2"),
        example(3, session="s2"),
        example(4, session="s3"),
    ]
    folds = split_folds(examples, n_folds=2, seed=0, group="session")
    assert sorted(fold.test for fold in folds) == [(0, 1, 2, 3), (4,)]
    with pytest.raises(ConfigError, match="only 2 sessions"):
        split_folds(examples, n_folds=3, seed=0, group="session")


def test_equal_responses_after_different_interventions_are_no_duplicates():
    one, other = example(0, response="Yes."), example(1, response="Yes.", history="Why?")
    assert content_key(one) != content_key(other)
    assert content_key(one) == content_key(example(2, response="Yes.", label="b", session="s"))
    assert len(split_folds([one, other], n_folds=2, seed=0)) == 2


def test_a_class_smaller_than_the_number_of_folds_is_spread_without_a_warning():
    examples = labeled({"a": 40, "rare": 2, "single": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folds = split_folds(examples, n_folds=5, seed=0)
    rare = [sum(examples[i].label == "rare" for i in fold.test) for fold in folds]
    assert sorted(rare) == [0, 0, 0, 1, 1]


def test_another_seed_gives_another_partition():
    examples = labeled({"a": 40, "b": 20})
    hashes = {
        partition_hash(examples, split_folds(examples, n_folds=5, seed=seed)) for seed in range(5)
    }
    assert len(hashes) == 5


def test_nested_selection_is_a_tenth_of_the_training_folds_and_leaves_the_test_folds_alone():
    examples = labeled(TABLE_3)
    paper = split_folds(examples, n_folds=5, seed=1)
    nested = split_folds(examples, n_folds=5, seed=1, protocol="nested")
    assert partition_hash(examples, paper) == partition_hash(examples, nested)
    for one, other in zip(paper, nested, strict=True):
        assert one.test == other.test
        assert set(other.train) | set(other.select) == set(one.train)
        held = Counter(examples[i].label for i in other.select)
        for label, n in TABLE_3.items():
            assert held[label] == pytest.approx(0.1 * 0.8 * n, abs=1.5)


def test_nested_selection_is_a_tenth_when_sessions_are_kept_whole():
    examples = sessions(1)
    for fold in split_folds(examples, n_folds=5, seed=0, group="session", protocol="nested"):
        share = len(fold.select) / (len(fold.select) + len(fold.train))
        assert 0.07 < share < 0.13
        assert {examples[i].label for i in fold.select} == set("abcde")


def test_nested_selection_takes_one_of_a_rare_class_but_never_the_last_one():
    examples = labeled({"a": 60, "b": 30, "rare": 5, "single": 1})
    for fold in split_folds(examples, n_folds=5, seed=0, protocol="nested"):
        selected = Counter(examples[i].label for i in fold.select)
        trained = Counter(examples[i].label for i in fold.train)
        assert selected["rare"] == 1
        assert trained["rare"] == 3
        assert selected["single"] == 0


def test_nested_selection_with_nothing_to_spare_says_what_to_do():
    with pytest.raises(ConfigError, match=r"cv\.protocol=paper"):
        split_folds(labeled({"a": 2, "b": 2}), n_folds=2, seed=0, protocol="nested")


@pytest.mark.parametrize("n_folds", [1, 0, -3])
def test_fewer_than_two_folds_are_refused_with_the_mend(n_folds):
    with pytest.raises(ConfigError, match=r"at least 2 folds.*cv\.fold=final") as refusal:
        split_folds(labeled({"a": 9}), n_folds=n_folds, seed=0)
    assert refusal.value.exit_code == 2


def test_more_folds_than_distinct_examples_are_refused_with_the_mend():
    examples = [example(i, response=f"r{i % 3}") for i in range(9)]
    with pytest.raises(ConfigError, match=r"only 3 distinct examples; use cv\.folds=3 or fewer"):
        split_folds(examples, n_folds=4, seed=0)


def test_examples_without_the_field_to_group_by_are_named():
    examples = [example(i, session=None if i < 7 else "s") for i in range(9)]
    with pytest.raises(
        DataError, match=r"7 examples have no 'session': id 'e0', .* and 2 more.*null"
    ):
        split_folds(examples, n_folds=2, seed=0, group="session")


def test_data_without_labels_cannot_be_split():
    with pytest.raises(DataError, match="none of the 1 examples has a label"):
        split_folds([example(0, label=None)], n_folds=2, seed=0)


def test_the_data_hash_changes_with_any_text_label_or_id():
    examples = labeled({"a": 3, "b": 3})
    others = [
        example(5, label="a"),
        example(5, label="b", response="another answer"),
        example(6, label="b", response="answer 5"),
        example(5, label="b", history="What then?"),
    ]
    hashes = [data_hash(examples), *(data_hash([*examples[:5], other]) for other in others)]
    assert len(set(hashes)) == len(hashes)
    assert data_hash([*examples[:5], example(5, label="b")]) == hashes[0]


def test_the_partition_hash_ignores_ids_and_sees_which_fold_an_example_is_in():
    examples = labeled({"a": 6, "b": 4})
    folds = split_folds(examples, n_folds=2, seed=0)
    renamed = [example(f"x{i}", label=e.label, response=e.response) for i, e in enumerate(examples)]
    assert partition_hash(renamed, folds) == partition_hash(examples, folds)
    assert partition_hash(examples, folds[:1]) != partition_hash(examples, folds)


@pytest.mark.real_data
@pytest.mark.parametrize("protocol", ["paper", "nested"])
def test_a_real_class_of_two_rows_is_spread_over_two_folds(real_data, protocol):
    rows = json.loads((real_data / "psyguard" / "valid.json").read_text(encoding="utf-8"))
    examples = [
        Example(id=str(row["idx"]), history=(), response=row["text"], label=row["labels"][0])
        for row in rows
        if len(row["labels"]) == 1
    ]
    sizes = Counter(e.label for e in examples)
    rarest = min(sizes, key=sizes.__getitem__)
    assert sizes[rarest] == 2
    folds = split_folds(examples, n_folds=5, seed=1, protocol=protocol)
    held = [sum(examples[i].label == rarest for i in fold.test) for fold in folds]
    assert sorted(held) == [0, 0, 0, 1, 1]
    totals = [len(fold.test) for fold in folds]
    assert max(totals) - min(totals) <= 1


@pytest.mark.real_data
def test_real_sessions_are_kept_whole_with_every_class_near_a_fifth_in_each_fold(real_data):
    with (real_data / "annomi" / "AnnoMI-simple.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["interlocutor"] == "client"]
    examples = [
        Example(
            id=f"{row['transcript_id']}:{row['utterance_id']}",
            # The number stands for the history, which makes every utterance of a session distinct.
            history=(Turn(speaker="counselor", text=f"{i}"),),
            response=row["utterance_text"],
            session=row["transcript_id"],
            label=row["client_talk_type"],
        )
        for i, row in enumerate(rows)
    ]
    assert Counter(e.label for e in examples) == {"neutral": 3102, "change": 1174, "sustain": 541}
    for fold in split_folds(examples, n_folds=5, seed=1, group="session"):
        sessions = [{examples[i].session for i in part} for part in (fold.train, fold.test)]
        assert sessions[0].isdisjoint(sessions[1])
        held = Counter(examples[i].label for i in fold.test)
        assert held["neutral"] == pytest.approx(3102 / 5, rel=0.03)
        assert held["change"] == pytest.approx(1174 / 5, rel=0.03)
        assert held["sustain"] == pytest.approx(541 / 5, rel=0.03)


def test_indices_come_in_data_order():
    for fold in split_folds(sessions(2), n_folds=3, seed=0, protocol="nested"):
        for part in (fold.train, fold.select, fold.test):
            assert all(a < b for a, b in pairwise(part))
