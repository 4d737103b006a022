"""The confusion matrix over folds, against numpy on the folds' own matrices."""

from __future__ import annotations

import numpy as np
import pytest
from builders import prediction
from sklearn.metrics import confusion_matrix

from recap.errors import ConfigError
from recap.metrics.scores import confusion_spread, score, scores_from_confusion
from recap.records import Scores

LABELS = ("Arguing", "Denying", "Avoiding")


def fold(number: int) -> tuple[Scores, np.ndarray]:
    """Return the scores of random answers, and scikit-learn's confusion matrix of the same."""
    random = np.random.default_rng(number)
    gold = random.choice(LABELS, 60).tolist()
    said = random.choice([*LABELS, "invalid"], 60).tolist()
    predictions = [
        prediction(str(i), g, None if s == "invalid" else s, fold=number)
        for i, (g, s) in enumerate(zip(gold, said, strict=True))
    ]
    theirs = confusion_matrix(gold, said, labels=[*LABELS, "invalid"])[:3]
    return score(predictions, task="t", labels=LABELS), theirs


def test_cells_have_numpys_mean_and_sample_deviation_of_counts_and_of_shares_of_their_row() -> None:
    ours, theirs = zip(*(fold(number) for number in range(4)), strict=True)
    counts = np.array(theirs)
    shares = counts / counts.sum(axis=2, keepdims=True)
    cells = confusion_spread(ours)
    assert [(c.gold, c.predicted) for c in cells[:5]] == [
        *(("Arguing", name) for name in (*LABELS, "invalid")),
        ("Denying", "Arguing"),
    ]
    assert [c.count.mean for c in cells] == pytest.approx(counts.mean(axis=0).ravel())
    assert [c.count.std for c in cells] == pytest.approx(counts.std(axis=0, ddof=1).ravel())
    assert [c.share.mean for c in cells] == pytest.approx(shares.mean(axis=0).ravel())
    assert [c.share.std for c in cells] == pytest.approx(shares.std(axis=0, ddof=1).ravel())
    assert {c.n_folds for c in cells} == {4}


def test_shares_are_over_the_folds_that_hold_the_label() -> None:
    # By hand: of A's examples 3 of 4, none there, 1 of 2 are answered A: mean .625, SD .125 * √2.
    folds = [[[3, 1, 0], [0, 5, 0]], [[0, 0, 0], [1, 4, 0]], [[1, 0, 1], [0, 5, 0]]]
    cells = confusion_spread([scores_from_confusion("t", ("A", "B"), one) for one in folds])
    assert cells[0].share.values == (0.75, None, 0.5)
    assert (cells[0].share.mean, cells[0].n_folds) == (0.625, 2)
    assert cells[0].share.std == pytest.approx(0.125 * 2**0.5)
    assert (cells[0].count.mean, cells[0].count.values) == (pytest.approx(4 / 3), (3, 0, 1))
    assert cells[-1].n_folds == 3


def test_a_label_that_never_occurs_has_no_share_and_one_fold_no_deviation() -> None:
    cells = confusion_spread([scores_from_confusion("t", ("A", "B"), [[0, 0, 0], [1, 2, 1]])])
    assert (cells[0].share.mean, cells[0].share.std, cells[0].n_folds) == (None, None, 0)
    assert (cells[3].share.mean, cells[3].share.std) == (0.25, None)


def test_folds_of_different_labels_are_refused() -> None:
    one = scores_from_confusion("t", ("A", "B"), [[1, 0, 0], [0, 1, 0]])
    other = scores_from_confusion("t", ("B", "A"), [[1, 0, 0], [0, 1, 0]])
    for folds in ([one, other], []):
        with pytest.raises(ConfigError, match="take one run's folds"):
            confusion_spread(folds)
