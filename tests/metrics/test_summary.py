"""The spread over folds: sample standard deviation, and no figure where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from recap.errors import ConfigError
from recap.metrics.scores import scores_from_confusion, spread_text, summarize, summary_markdown

LABELS = ("Resistance", "Collaboration")


def fold(right, wrong, invalid=0, loss=0.5, task="binary", labels=LABELS):
    return scores_from_confusion(task, labels, [[right, wrong, invalid], [wrong, right, 0]], loss)


def test_the_spread_is_numpys_mean_and_sample_deviation_with_values_in_fold_order():
    scores = {2: fold(8, 2, loss=0.3), 0: fold(5, 5, 1, loss=0.1), 1: fold(9, 1, loss=0.7)}
    summary = summarize(scores, protocol="paper")
    assert summary.folds == (0, 1, 2)
    assert (summary.task, summary.labels, summary.ddof) == ("binary", LABELS, 1)
    for name, spread in summary.metrics.items():
        values = [scores[k].metrics[name] for k in (0, 1, 2)]
        assert spread.values == tuple(values)
        assert spread.mean == pytest.approx(np.mean(values), abs=1e-15)
        assert spread.std == pytest.approx(np.std(values, ddof=1), abs=1e-15)
    recalls = [scores[k].per_label["Resistance"].recall for k in (0, 1, 2)]
    spread = summary.per_label["Resistance"].recall
    assert spread.std == pytest.approx(np.std(recalls, ddof=1), abs=1e-15)
    assert summary.per_label["Resistance"].support == 11 + 10 + 10
    assert summary.per_label["Collaboration"].support == 30


def test_the_deviation_of_equal_folds_is_zero():
    summary = summarize({k: fold(9, 1) for k in range(5)}, protocol="paper")
    assert summary.metrics["accuracy"].std == 0.0


def test_one_fold_has_no_standard_deviation():
    summary = summarize({3: fold(9, 1)}, protocol="nested")
    assert summary.folds == (3,)
    assert summary.metrics["accuracy"].std is None
    assert summary.metrics["accuracy"].mean == 0.9
    assert summary.per_label["Resistance"].f1.std is None


def test_a_system_without_a_loss_has_neither_its_mean_nor_its_deviation():
    for losses in ((None, None), (0.5, None)):
        folds = {k: fold(9, 1, loss=loss) for k, loss in enumerate(losses)}
        spread = summarize(folds, protocol="paper").metrics["loss"]
        assert (spread.mean, spread.std, spread.values) == (None, None, losses)


def test_folds_of_different_tasks_or_labels_are_not_put_together():
    with pytest.raises(ConfigError, match="summarize folds of one run"):
        summarize({0: fold(9, 1), 1: fold(9, 1, task="talk")}, protocol="paper")
    with pytest.raises(ConfigError, match="summarize folds of one run"):
        summarize({0: fold(9, 1), 1: fold(9, 1, labels=LABELS[::-1])}, protocol="paper")


def test_no_folds_cannot_be_summarized():
    with pytest.raises(ConfigError, match="run at least one"):
        summarize({}, protocol="paper")


def test_the_page_gives_percentages_with_deviation_and_says_what_they_are():
    page = summary_markdown(summarize({0: fold(8, 2), 1: fold(9, 1, 1)}, protocol="nested"))
    lines = page.splitlines()
    assert lines[0] == "# binary"
    assert "ddof = 1" in page
    assert "Folds 0, 1;" in page
    assert "Protocol `nested`" in page
    # accuracies 16/20 and 18/21: mean 0.82857, sample deviation 0.04041
    assert "| Accuracy | 82.86 ± 4.04 | 80.00 | 85.71 |" in lines
    assert "| Loss (nats per token) | 0.5000 ± 0.0000 | 0.5000 | 0.5000 |" in lines
    # 34 of 41 are right together; an answer of the second fold is unparsed.
    gold = ["Resistance"] * 21 + ["Collaboration"] * 20
    said = [*["Resistance"] * 17, *["Collaboration"] * 3, "-", *["Resistance"] * 3]
    macro = f1_score(gold, [*said, *["Collaboration"] * 17], labels=LABELS, average="macro")
    pooled = f"Pooled, all folds' predictions together: Macro-F1 {100 * macro:.2f},"
    assert any(line.startswith(pooled) and "Accuracy 82.93," in line for line in lines)
    (row,) = [line for line in lines if line.startswith("| Collaboration |")]
    assert row.endswith("| 20 |")
    assert row.count("±") == 3


def test_the_page_of_one_fold_without_a_loss_shows_neither_deviation_nor_loss():
    page = summary_markdown(summarize({0: fold(8, 2, loss=None)}, protocol="paper"))
    assert "±" not in page
    assert "no standard deviation" in page
    assert "| Loss (nats per token) | – | – |" in page
    assert "selected on the fold that is reported" in page


def test_every_row_of_a_table_has_as_many_cells_as_its_head():
    page = summary_markdown(summarize({k: fold(8, 2) for k in range(5)}, protocol="paper"))
    for table in page.split("\n\n"):
        rows = [line for line in table.strip().splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1


def test_a_spread_is_written_in_percent_with_two_decimals():
    spread = summarize({0: fold(8, 2), 1: fold(9, 1)}, protocol="paper").metrics["accuracy"]
    assert spread_text(spread) == "85.00 ± 7.07"  # sqrt(0.5) * 0.1
