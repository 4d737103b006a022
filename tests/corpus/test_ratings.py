from __future__ import annotations

from pathlib import Path

import krippendorff
import numpy as np
import pandas as pd
import pingouin
import pytest
from sklearn.metrics import cohen_kappa_score

from recap.corpus.__main__ import main
from recap.corpus.ratings import intraclass_correlation, summarize_ratings
from recap.data.sheets import Rating

CASES = 300


def ratings_of(table: list[list[int]]) -> list[Rating]:
    """Return the ratings of a table of examples by raters; 0 is no rating."""
    return [
        Rating(id=f"e{row}", rater=f"r{column}", criterion="clarity", points=points)
        for row, line in enumerate(table)
        for column, points in enumerate(line)
        if points
    ]


def random_table(case: int, raters: int | None = None) -> np.ndarray:
    generator = np.random.default_rng(case)
    shape = int(generator.integers(5, 30)), raters or int(generator.integers(2, 5))
    truth = generator.integers(1, 6, size=(shape[0], 1))
    noise = generator.integers(-2, 3, size=shape)
    table = np.clip(truth + noise, 1, 5)
    table[0, :2], table[1, :2] = (1, 2), (4, 5)
    return table


@pytest.mark.filterwarnings("ignore")
def test_intraclass_correlations_are_those_of_pingouin() -> None:
    for case in range(CASES):
        table = random_table(case)
        rows, columns = np.indices(table.shape)
        frame = pd.DataFrame({"e": rows.ravel(), "r": columns.ravel(), "p": table.ravel()})
        theirs = pingouin.intraclass_corr(frame, "e", "r", "p")["ICC"].to_numpy()
        ours = intraclass_correlation(table.astype(float))
        # Their order is ICC1, ICC2, ICC3, then the same for means.
        np.testing.assert_allclose(ours, theirs[[1, 4]], atol=1e-8)


def test_alpha_and_weighted_kappa_are_those_of_the_oracles() -> None:
    for case in range(CASES):
        table = random_table(case, raters=2)
        [found] = summarize_ratings(ratings_of(table.tolist()), criteria=["clarity"])
        alpha = krippendorff.alpha(
            table.T, level_of_measurement="ordinal", value_domain=range(1, 6)
        )
        kappa = cohen_kappa_score(*table.T, labels=range(1, 6), weights="quadratic")
        assert found.alpha_ordinal == pytest.approx(alpha, abs=1e-8)
        assert found.weighted_kappa == pytest.approx(kappa, abs=1e-8)


def test_figures_by_hand() -> None:
    [found] = summarize_ratings(
        ratings_of([[4, 4], [3, 4], [5, 3], [2, 0]]), criteria=["clarity"], points=5
    )
    assert (found.examples, found.n, found.rated_by_all) == (4, 7, 3)
    assert found.mean == pytest.approx(25 / 7)
    # Squared deviations from 25/7 sum to 95 - 625/7 = 40/7; over 6 degrees of freedom 20/21.
    assert found.std == pytest.approx((20 / 21) ** 0.5)
    assert found.counts == (0, 1, 2, 3, 1)
    assert [(r.rater, r.n, r.mean) for r in found.raters] == [
        ("r0", 4, 3.5),
        ("r1", 3, pytest.approx(11 / 3)),
    ]
    assert (found.exact_agreement, found.within_one) == (
        pytest.approx(1 / 3),
        pytest.approx(2 / 3),
    )


@pytest.mark.parametrize("table", [[[4], [5]], [[4, 4], [4, 4]], [[4, 0], [0, 5]]])
def test_agreement_that_is_not_defined_is_none(table: list[list[int]]) -> None:
    [found] = summarize_ratings(ratings_of(table), criteria=["clarity"])
    assert (found.alpha_ordinal, found.weighted_kappa) == (None, None)
    assert (found.icc_single, found.icc_mean) == (None, None)


def test_a_criterion_that_nobody_rated_has_no_figures() -> None:
    found = summarize_ratings(ratings_of([[4, 4]]), criteria=["clarity", "rationality"])
    assert (found[1].n, found[1].mean, found[1].std, found[1].alpha_ordinal) == (
        0,
        None,
        None,
        None,
    )


def test_a_rater_is_one_person_however_the_name_is_written_and_rates_an_id_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "filled.csv"
    rows = ["id,rater,clarity", "e1,José,4", "e1,Jose\u0301,5", "e2,José,3"]
    sheet.write_text("\n".join(rows), encoding="utf-8")
    arguments = [f"ratings.path={sheet}", "ratings.criteria=[clarity]", f"out={tmp_path / 'out'}"]
    assert main(["action=ratings", *arguments]) == 2
    message = capsys.readouterr().err
    assert "filled.csv:3: id: rater " in message
    assert "has rated id 'e1' before" in message
    sheet.write_text("id,rater,clarity\ne1,A,4\n", encoding="utf-8")
    arguments[1] = "ratings.criteria=[warmth]"
    assert main(["action=ratings", *arguments]) == 2
    assert "has no column 'warmth'" in capsys.readouterr().err
