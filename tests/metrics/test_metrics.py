"""The metric of the training loop: counts that add up over batches and ranks."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from recap.errors import DataError, RecapError
from recap.metrics.category_scores import CategoryScores, TokenMean

LABELS = ("a", "b", "c")


@st.composite
def batches(draw):
    """Class indices, gold and predicted (3 for an unparsed answer), with a way to cut them up."""
    pairs = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=50))
    return pairs, draw(st.integers(1, 50)), draw(st.permutations(pairs))


def counted(pairs, size):
    metric = CategoryScores(labels=LABELS)
    for start in range(0, len(pairs), size):
        gold, predicted = zip(*pairs[start : start + size], strict=True)
        metric.update(torch.tensor(predicted), torch.tensor(gold))
    return metric


def count_on_one_rank(rank, address, pairs, results):
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    metric = counted(pairs[rank::2], 2)
    results.put((rank, metric.scores(task="t"), int(metric.confusion.sum())))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.multiprocess
def test_two_real_ranks_with_unequal_shares_agree_on_the_scores_of_all(tmp_path):
    pairs = [(0, 0), (1, 3), (2, 1), (0, 2), (1, 1)]
    context = torch.multiprocessing.get_context("spawn")
    results = context.Queue()
    address = f"file://{tmp_path / 'rendezvous'}"
    ranks = [
        context.Process(target=count_on_one_rank, args=(rank, address, pairs, results), daemon=True)
        for rank in range(2)
    ]
    for rank in ranks:
        rank.start()
    found = sorted((results.get(timeout=120) for _ in ranks), key=lambda result: result[0])
    for rank in ranks:
        rank.join(timeout=60)
        assert rank.exitcode == 0
    expected = counted(pairs, 5).scores(task="t")
    assert found == [(0, expected, 3), (1, expected, 2)]


@settings(max_examples=100, deadline=None)
@given(case=batches())
def test_neither_batch_size_nor_order_changes_the_scores(case):
    pairs, size, permuted = case
    whole = counted(pairs, len(pairs)).scores(task="t")
    assert counted(permuted, size).scores(task="t") == whole
    gold, predicted = zip(*pairs, strict=True)
    expected = f1_score(gold, predicted, labels=[0, 1, 2], average="macro", zero_division=0)
    assert whole.metrics["macro_f1"] == pytest.approx(expected, abs=1e-12)


def test_the_states_of_two_ranks_are_summed_as_lightning_does_it():
    pairs = [(0, 0), (1, 3), (2, 1), (0, 2), (1, 1)]
    ranks = [counted(pairs[::2], 2), counted(pairs[1::2], 1)]

    def gather(state, group=None):  # stands in for all_gather: every rank's state, in order
        return [rank.confusion for rank in ranks]

    first = ranks[0]
    first.dist_sync_fn = gather
    first.distributed_available_fn = lambda: True
    assert first.compute().tolist() == counted(pairs, 5).compute().tolist()
    # After the synchronised figure the rank goes on with its own counts.
    assert first.confusion.sum() == 3


def test_counts_survive_merging_and_are_forgotten_on_reset():
    metric, other = counted([(0, 0)], 1), counted([(1, 3), (2, 2)], 2)
    metric.merge_state(other)
    assert metric.compute().tolist() == [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]
    metric.reset()
    assert metric.confusion.sum() == 0


def test_a_figure_once_computed_does_not_change_with_the_next_batch():
    metric = counted([(0, 0)], 1)
    before = metric.compute()
    metric.update(torch.tensor([1]), torch.tensor([1]))
    assert before.sum() == 1
    assert metric.compute().sum() == 2


def test_counting_works_under_deterministic_algorithms():
    torch.use_deterministic_algorithms(True)
    try:
        assert counted([(0, 0), (0, 0), (1, 3)], 3).compute()[0, 0] == 2
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
def test_counting_works_on_a_device_under_deterministic_algorithms():
    torch.use_deterministic_algorithms(True)
    try:
        metric = CategoryScores(labels=LABELS).to("cuda")
        metric.update(torch.tensor([0, 3], device="cuda"), torch.tensor([0, 1], device="cuda"))
        assert metric.scores(task="t").confusion == ((1, 0, 0, 0), (0, 0, 0, 1), (0, 0, 0, 0))
    finally:
        torch.use_deterministic_algorithms(False)


def test_an_empty_batch_counts_nothing_and_nothing_counted_cannot_be_scored():
    metric = CategoryScores(labels=LABELS)
    metric.update(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long))
    assert metric.compute().sum() == 0
    with pytest.raises(DataError, match="no prediction to score"):
        metric.scores(task="t")


@pytest.mark.parametrize(("predicted", "gold"), [([4], [0]), ([-1], [0]), ([0], [3]), ([0], [-1])])
def test_an_index_outside_the_labels_is_refused(predicted, gold):
    with pytest.raises(RecapError, match="0 to 2, and 3 for an unparsed answer"):
        CategoryScores(labels=LABELS).update(torch.tensor(predicted), torch.tensor(gold))


def test_predicted_and_gold_of_different_shapes_are_refused():
    with pytest.raises(RecapError, match=r"\(batch,\), got \(2,\) and \(1,\)"):
        CategoryScores(labels=LABELS).update(torch.tensor([0, 1]), torch.tensor([0]))


def test_the_loss_is_handed_on():
    assert counted([(0, 0)], 1).scores(task="t", loss=0.5).metrics["loss"] == 0.5


def test_the_token_mean_is_that_of_all_tokens_however_they_are_cut() -> None:
    losses = torch.rand(97, dtype=torch.float64)
    for sizes in ([97], [1, 96], [13, 13, 14, 57]):
        metric = TokenMean()
        for part in losses.split(sizes):
            metric.update(part.sum(), len(part))
        assert metric.compute().item() == pytest.approx(losses.mean().item(), rel=1e-12)


def test_a_batch_whose_loss_is_not_a_number_is_not_left_out() -> None:
    metric = TokenMean()
    metric.update(torch.tensor(1.0), 3)
    metric.update(torch.tensor(float("nan")), 5)
    assert metric.compute().isnan()
