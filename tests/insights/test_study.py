from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from recap.errors import ConfigError, DataError
from recap.insights.options import StudyOptions
from recap.insights.study import ScoreRow, ScoreTable, Study, analyse_study, arrange_scores


def study_of(scores: np.ndarray, group: list[int], welch: bool = False) -> Study:
    table = ScoreTable(
        participants=tuple(f"P{i}" for i in range(len(group))),
        groups=("control", "experimental"),
        phases=("pre", "post"),
        group=np.array(group),
        scores=scores,
        rows_a_score=1,
    )
    return analyse_study(table, StudyOptions(f=0.25, rho=0.5, welch=welch))


def table_of(text: str, **options: Any) -> ScoreTable:
    return arrange_scores(rows(text), StudyOptions(**options), file="scores.csv")


def random_study(welch: bool = False) -> Study:
    generator = np.random.default_rng(2)
    group = [0] * 9 + [1] * 14
    return study_of(generator.normal([0, 0.5], size=(23, 2)), group, welch)


def rows(text: str) -> list[ScoreRow]:
    """Return the rows of ``participant group phase score`` separated by semicolons."""
    found = []
    for line, row in enumerate(text.split(";"), start=2):
        participant, group, phase, score = row.split()
        found.append(
            ScoreRow(
                line=line, participant=participant, group=group, phase=phase, score=float(score)
            )
        )
    return found


WHOLE = "a C post 2;a C pre 1;b C pre 2;b C post 2;c E pre 1;c E post 5;d E pre 0;d E post 4"


def test_the_test_of_changes_is_the_interaction() -> None:
    found = random_study()
    [changes] = [c for c in found.comparisons if c.kind == "changes"]
    assert changes.test.t is not None
    assert changes.test.t**2 == pytest.approx(found.anova.interaction.f)
    assert changes.test.p == pytest.approx(found.anova.interaction.p)


def test_differences_are_second_minus_first() -> None:
    found = study_of(np.array([[0.0, 1], [1, 2.5], [0, 5], [1, 7]]), [0, 0, 1, 1])
    by_name = {(c.kind, c.within): c for c in found.comparisons}
    assert by_name["phases", "experimental"].test.difference == pytest.approx(5.5)
    assert by_name["groups", "post"].test.difference == pytest.approx(4.25)
    assert by_name["changes", None].test.difference == pytest.approx(5.5 - 1.25)


def test_welch_concerns_the_groups_alone() -> None:
    student, welch = random_study(), random_study(welch=True)
    for one, other in zip(student.comparisons, welch.comparisons, strict=True):
        assert (one.test == other.test) == (one.kind == "phases")


def test_holm_adjusts_the_four_comparisons() -> None:
    comparisons = random_study().comparisons
    tested = sorted(float(c.test.p) for c in comparisons if c.kind != "changes")
    expected, so_far = {}, 0.0
    for place, p in enumerate(tested):
        so_far = max(so_far, min(1.0, (4 - place) * p))
        expected[p] = so_far
    for comparison in comparisons:
        if comparison.kind != "changes":
            assert comparison.p_holm == pytest.approx(expected[comparison.test.p])


def test_post_hoc_power_at_the_papers_figures() -> None:
    # F(1, 60) = 17.29 and N = 62: the changes' t is the root of F, with unit variance of changes.
    change = np.tile([-1.0, 1.0], 31) / math.sqrt(62 / 60)
    change[31:] += math.sqrt(17.29 * 2 / 31)
    change[:31] -= change[:31].mean()
    change[31:] += math.sqrt(17.29 * 2 / 31) - change[31:].mean()
    spread = math.sqrt((change[:31].var(ddof=1) + change[31:].var(ddof=1)) / 2)
    change[31:] += math.sqrt(17.29 * 2 / 31) * (spread - 1)
    found = study_of(np.stack([np.zeros(62), change], axis=1), [0] * 31 + [1] * 31)
    assert found.anova.interaction.f == pytest.approx(17.29)
    assert found.anova.interaction.partial_eta_squared == pytest.approx(0.2237, abs=5e-5)
    assert found.post_hoc is not None
    assert found.post_hoc.f == pytest.approx(0.537, abs=5e-4)
    assert found.post_hoc.noncentrality == pytest.approx(17.29)
    # rho .5: lambda = f^2 N 2 / .5, four times that of the F times 62 / 60.
    assert found.post_hoc.noncentrality_of_partial_f == pytest.approx(4 * 17.29 * 62 / 60)
    assert found.post_hoc.power_of_partial_f == pytest.approx(1.0, abs=1e-6)
    assert found.post_hoc.f_gpower == pytest.approx(math.sqrt(17.29 * 0.5 / 124))


def test_the_pooled_correlation_leaves_differences_of_groups_out() -> None:
    scores = np.array([[0.0, 1], [1, 0], [10, 11], [11, 10]])
    assert study_of(scores, [0, 0, 1, 1]).correlation == pytest.approx(-1)


def test_scores_without_any_spread_give_a_study_without_tests() -> None:
    found = study_of(np.ones((4, 2)), [0, 0, 1, 1])
    assert found.post_hoc is None
    assert found.correlation is None
    assert all(c.test.p is None and c.p_holm is None for c in found.comparisons)


def test_known_names_set_the_order_and_others_come_as_they_are() -> None:
    table = table_of(WHOLE)
    assert table.phases == ("pre", "post")
    assert table.groups == ("C", "E")
    assert table.scores.tolist() == [[1, 2], [2, 2], [1, 5], [0, 4]]
    turned = table_of(WHOLE, groups=["E", "C"], phases=["post", "pre"])
    assert turned.scores[0].tolist() == [2, 1]
    assert turned.group.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (WHOLE.replace(";b C post 2", "").replace(";d E post 4", ""), "2 participants without"),
        (WHOLE.replace("b C post", "b E post"), "'b'"),
        (WHOLE + ";b C post 3", "study.repeated=mean"),
        (WHOLE.replace("d E", "c E").replace("c E pre 0;c E post 4", "a C pre 1"), "several"),
        (WHOLE.replace("E", "C"), "has 1 groups"),
        (WHOLE + ";d E later 3", "has 3 phases"),
        (";".join(WHOLE.split(";")[:6]), "has one participant"),
    ],
)
def test_incomplete_studies_are_refused_with_the_participants(text: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        table_of(text)
    assert str(caught.value).startswith("scores.csv: ")


def test_missing_phases_name_their_participants() -> None:
    text = WHOLE.replace(";b C post 2", "").replace(";d E post 4", "")
    with pytest.raises(DataError, match=r"phase 'post': 'b', 'd'; complete"):
        table_of(text)


def test_an_id_that_may_be_a_name_is_not_printed_but_its_line_is() -> None:
    text = WHOLE.replace("b C", "张三 C").replace(";张三 C post 2", "")
    with pytest.raises(DataError, match=r"1 participant without .*: the one of line 4") as caught:
        table_of(text)
    assert "张三" not in str(caught.value)


def test_repeated_rows_are_averaged_on_request() -> None:
    table = table_of(WHOLE + ";b C post 3", repeated="mean")
    assert table.scores[1].tolist() == [2, 2.5]
    assert table.rows_a_score == 2


def test_a_chosen_group_has_to_occur() -> None:
    with pytest.raises(ConfigError, match=r"study\.groups"):
        table_of(WHOLE, groups=["C", "X"])
