from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import krippendorff
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import fleiss_kappa as fleiss_of_statsmodels

from recap.data.annotations import MISSING, AnnotationTable, AnnotatorLabel, tabulate
from recap.statistics.agreement import (
    OVERALL,
    Agreement,
    cohen_kappa,
    measure_agreement,
    ordinal_alpha,
)

CASES = 320
TOLERANCE = 1e-8


def random_codes(*, holes: bool, case: int) -> NDArray[np.int64]:
    """Return labels of shape (examples, annotators) who agree now more, now less."""
    generator = np.random.default_rng(case)
    n_labels = int(generator.integers(2, 8))
    shape = int(generator.integers(3, 40)), int(generator.integers(2, 7))
    truth = generator.integers(n_labels, size=(shape[0], 1))
    careless = generator.random(shape) < generator.uniform(0.05, 1.0)
    codes = np.where(careless, generator.integers(n_labels, size=shape), truth)
    if holes:
        codes = np.where(generator.random(shape) < 0.3, MISSING, codes)
    # Two labels at least, on an example that two annotators judged: else nothing is defined.
    codes[0, :2], codes[1, :2] = (0, 1), (1, 1)
    return codes


def table_of(codes: NDArray[np.int64], sessions: tuple[str | None, ...] = ()) -> AnnotationTable:
    return AnnotationTable(
        ids=tuple(f"e{row}" for row in range(len(codes))),
        annotators=tuple(f"a{column}" for column in range(codes.shape[1])),
        labels=tuple(f"label {code}" for code in range(int(codes.max()) + 1)),
        sessions=sessions or (None,) * len(codes),
        codes=codes,
    )


def measured(codes: NDArray[np.int64]) -> Agreement:
    return measure_agreement(table_of(codes), level=None)


def pairs_of(codes: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    for first in range(codes.shape[1]):
        for second in range(first + 1, codes.shape[1]):
            both = (codes[:, first] != MISSING) & (codes[:, second] != MISSING)
            if both.any():
                yield codes[both, first], codes[both, second]


@pytest.mark.filterwarnings("ignore")  # scikit-learn warns where kappa is undefined
@pytest.mark.parametrize("holes", [False, True])
def test_cohens_kappa_is_that_of_scikit_learn(holes: bool) -> None:
    for case in range(CASES // 2):
        codes = random_codes(holes=holes, case=case)
        found = measured(codes)
        kappas = [cohen_kappa_score(a, b) for a, b in pairs_of(codes)]
        ours = [np.nan if p.cohen_kappa is None else p.cohen_kappa for p in found.pairs]
        np.testing.assert_allclose(ours, kappas, atol=TOLERANCE)
        mean = found.coefficients["mean_pairwise_cohen_kappa"].value
        np.testing.assert_allclose(mean, np.nanmean(kappas), atol=TOLERANCE)


@pytest.mark.filterwarnings("ignore")
def test_cohens_kappa_of_each_label_is_that_of_the_label_against_the_rest() -> None:
    for case in range(25):
        codes = random_codes(holes=case % 2 == 1, case=case)
        for code, row in enumerate(measured(codes).per_label):
            kappas = [cohen_kappa_score(a == code, b == code) for a, b in pairs_of(codes)]
            value = row.coefficients["cohen_kappa"].value
            assert (value is None) == bool(np.isnan(kappas).all())
            if value is not None:
                np.testing.assert_allclose(value, np.nanmean(kappas), atol=TOLERANCE)


@pytest.mark.parametrize("weights", ["linear", "quadratic"])
def test_weighted_kappa_is_that_of_scikit_learn(weights: str) -> None:
    for case in range(CASES):
        codes = random_codes(holes=False, case=case)
        n_labels = int(codes.max()) + 1
        confusion = np.zeros((n_labels, n_labels))
        np.add.at(confusion, (codes[:, 0], codes[:, 1]), 1)
        theirs = cohen_kappa_score(
            codes[:, 0], codes[:, 1], labels=range(n_labels), weights=weights
        )
        ours = cohen_kappa(confusion, weights)  # type: ignore[arg-type]
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


def test_fleiss_kappa_is_that_of_statsmodels() -> None:
    for case in range(CASES):
        table = table_of(random_codes(holes=False, case=case))
        theirs = fleiss_of_statsmodels(table.counts())
        value = measure_agreement(table, level=None).coefficients["fleiss_kappa"].value
        np.testing.assert_allclose(value, theirs, atol=TOLERANCE)


def test_fleiss_kappa_of_each_label_is_that_of_the_label_against_the_rest() -> None:
    for case in range(25):
        codes = random_codes(holes=False, case=case)
        for code, row in enumerate(measured(codes).per_label):
            value = row.coefficients["fleiss_kappa"].value
            given = int((codes == code).sum())
            assert (value is None) == (given in (0, codes.size))
            if value is not None:
                theirs = fleiss_of_statsmodels(table_of((codes == code).astype(np.int64)).counts())
                np.testing.assert_allclose(value, theirs, atol=TOLERANCE)


def test_alpha_of_ranks_with_missing_ones_is_that_of_krippendorff() -> None:
    for case in range(CASES):
        counts = table_of(random_codes(holes=True, case=case)).counts()
        theirs = krippendorff.alpha(value_counts=counts, level_of_measurement="ordinal")
        np.testing.assert_allclose(ordinal_alpha(counts), theirs, atol=TOLERANCE)


def test_alpha_of_a_table_and_of_each_label_is_that_of_krippendorff() -> None:
    for case in range(CASES):
        codes = random_codes(holes=True, case=case)
        found = measured(codes)
        theirs = krippendorff.alpha(
            value_counts=table_of(codes).counts(), level_of_measurement="nominal"
        )
        alpha = found.coefficients["krippendorff_alpha"].value
        np.testing.assert_allclose(alpha, theirs, atol=TOLERANCE)
        for code, row in enumerate(found.per_label):
            one = np.where(codes == MISSING, np.nan, codes == code)
            value = row.coefficients["krippendorff_alpha"].value
            if value is not None:
                theirs = krippendorff.alpha(one.T, level_of_measurement="nominal")
                np.testing.assert_allclose(value, theirs, atol=TOLERANCE)


def test_figures_by_hand() -> None:
    # Rows: examples. Agreeing pairs: 3 of 3, 1 of 3, 0 of 1; the last was judged once.
    codes = np.array([[0, 0, 0], [0, 1, 1], [0, 1, -1], [-1, 1, -1]])
    found = measured(codes)
    assert (found.examples, found.paired_examples, found.judgements) == (4, 3, 9)
    assert found.coefficients["percent_agreement"].value == pytest.approx(4 / 7)
    assert found.coefficients["unanimous_share"].value == pytest.approx(1 / 3)
    assert found.annotators == {"a0": 3, "a1": 4, "a2": 2}
    assert [(p.first, p.second, p.examples, p.confusion) for p in found.pairs] == [
        ("a0", "a1", 3, ((1, 2), (0, 0))),
        ("a0", "a2", 2, ((1, 1), (0, 0))),
        ("a1", "a2", 2, ((1, 0), (0, 1))),
    ]
    assert found.confusion == ((6, 3), (3, 2))
    # Kappa: 0 for a0 with the others (a0 knows one label only), 1 for a1 with a2.
    assert found.coefficients["mean_pairwise_cohen_kappa"].value == pytest.approx(1 / 3)
    assert found.coefficients["weighted_pairwise_cohen_kappa"].value == pytest.approx(2 / 7)


@pytest.mark.parametrize(
    ("codes", "percent"),
    [
        ([[0, 0], [0, 0], [0, 0]], 1.0),  # one label only
        ([[0], [1], [0]], None),  # one annotator
        ([[0, -1], [-1, 1]], None),  # nothing judged twice
    ],
)
def test_what_is_not_defined_is_none(codes: list[list[int]], percent: float | None) -> None:
    found = measure_agreement(table_of(np.array(codes)))
    shares = {"percent_agreement", "unanimous_share"}
    assert {found.coefficients[name].value for name in OVERALL if name not in shares} == {None}
    assert {found.coefficients[name].value for name in shares} == {percent}
    assert all(e.value is None for row in found.per_label for e in row.coefficients.values())


def test_sessions_count_whole_and_too_few_of_them_give_no_interval() -> None:
    codes = np.array([[0, 0]] * 30 + [[0, 1]] * 30)
    two = measure_agreement(table_of(codes, ("s",) * 30 + ("t",) * 30))
    twelve = measure_agreement(table_of(codes, tuple(f"s{row // 5}" for row in range(60))))
    single = measure_agreement(table_of(codes))
    assert [(found.cluster, found.clusters) for found in (two, twelve, single)] == [
        *(("session", 2), ("session", 12), ("example", 60))
    ]
    few, wide, narrow = (x.coefficients["percent_agreement"] for x in (two, twelve, single))
    assert few.reason == "2 sessions are too few: under 10 there is no interval and no p"
    # Binomial(60, 1/2): half plus or minus 2 standard errors is .37 to .63; of 12, .19 to .81.
    assert (narrow.low, narrow.high) == pytest.approx((0.37, 0.63), abs=0.01)
    assert (wide.low, wide.high) == pytest.approx((0.21, 0.79), abs=0.03)


def test_clients_count_whole_where_they_are_known() -> None:
    codes = random_codes(holes=False, case=3)
    codes = np.vstack([codes] * 4)
    table = replace(
        table_of(codes, tuple(f"s{row}" for row in range(len(codes)))),
        people=tuple((f"c{row // 4}", None) for row in range(len(codes))),
    )
    found = measure_agreement(table)
    assert (found.cluster, found.clusters) == ("client", -(-len(codes) // 4))


def test_leaving_a_session_out_is_the_table_without_it() -> None:
    # The jackknife written out on whole tables, against sums.
    for case in range(8):
        codes = random_codes(holes=True, case=case)
        codes = np.vstack([codes] * 3)
        sessions = np.arange(len(codes)) % 11
        paired = (codes != MISSING).sum(axis=1) > 1
        names = tuple(f"s{session}" for session in sessions)
        one = measure_agreement(table_of(codes, names)).coefficients["fleiss_kappa"]
        kept = [s for s in range(11) if (paired & (sessions == s)).any()]
        if len(kept) < 10:
            continue
        whole = one.value
        without = np.array(
            [measured(codes[sessions != s]).coefficients["fleiss_kappa"].value for s in kept]
        )
        off = np.arctanh(without) - np.arctanh(without).mean()
        n = len(kept)
        error = np.sqrt((n - 1) / n * ((np.arctanh(without) - np.arctanh(whole)) ** 2).sum())
        df = max((1 + n / (n + 80)) * (off**2).sum() ** 2 / (off**4).sum() - 1, 1)
        df = min(df, n - 1)
        low = np.tanh(np.arctanh(whole) - stats.t.ppf(0.975, df) * error)
        assert one.low == pytest.approx(low, abs=TOLERANCE)


@pytest.mark.parametrize("named", [(0,), (1,), (2,), (0, 1)])
def test_an_example_is_of_the_session_that_any_of_its_judgements_names(
    named: tuple[int, ...],
) -> None:
    who = (("ann", "1"), ("bo", "1"), ("ann", "2"))
    judgements = [
        AnnotatorLabel(
            id="e", annotator=name, label="x", round=n, session="s" if place in named else None
        )
        for place, (name, n) in enumerate(who)
    ]
    assert tabulate(judgements).sessions == ("s",)


def test_the_last_round_counts_and_labels_keep_the_order_given() -> None:
    rows = [("1", "A", "no", "2"), ("1", "A", "yes", "10"), ("1", "B", "maybe", "1")]
    judgements = [
        AnnotatorLabel(id=i, annotator=a, label=label, round=r) for i, a, label, r in rows
    ]
    table = tabulate(judgements, labels=("yes", "never"))
    assert table.labels == ("yes", "maybe")
    assert table.codes.tolist() == [[0, 1]]


@pytest.mark.real_data
def test_annomi_has_the_published_agreement() -> None:
    with (Path(os.environ["RECAP_REAL_DATA"]) / "annomi" / "AnnoMI-full.csv").open(
        encoding="utf-8"
    ) as file:
        judgements = [
            AnnotatorLabel(
                id=f"{row['transcript_id']}:{row['utterance_id']}",
                annotator=row["annotator_id"],
                label=row["client_talk_type"],
                session=row["transcript_id"],
            )
            for row in csv.DictReader(file)
            if row["client_talk_type"] != "n/a"
        ]
    found = measure_agreement(tabulate(judgements))
    assert (found.paired_examples, found.clusters, len(found.annotators)) == (212, 7, 10)
    figures = {name: round(found.coefficients[name].value or 0, 4) for name in OVERALL[:4]}
    assert figures["fleiss_kappa"] == 0.4669
    assert figures["mean_pairwise_cohen_kappa"] == 0.4703
    assert figures["krippendorff_alpha"] == 0.4671
