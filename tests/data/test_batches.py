"""Steps, micro-batches and shards: nothing lost, nothing twice, the same steps however cut."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recap.data.batches import (
    BatchLimits,
    MicroBatch,
    ScoringLoader,
    TrainingLoader,
    collate,
    count_rounds,
    plan_epoch,
    plan_scoring,
)
from recap.data.encode import EncodedExample
from recap.errors import ConfigError


def examples_of(n: int) -> list[EncodedExample]:
    """Return examples whose prompt and answer lengths vary independently."""
    return [
        EncodedExample(
            id=str(i),
            prompt=tuple(range(1, 2 + max(1, i * 7 % 11))),
            answer=(9,) * (1 + i * 5 % 4),
            gold=0,
        )
        for i in range(n)
    ]


def steps_of(plans: list[tuple[MicroBatch, ...]]) -> list[list[MicroBatch]]:
    """Return all ranks' micro-batches by optimizer step."""
    steps: list[list[MicroBatch]] = [[]]
    for round_ in zip(*plans, strict=True):
        steps[-1] += round_
        if round_[0].ends_step:
            steps.append([])
    return steps[:-1]


def indices(step: list[MicroBatch]) -> list[int]:
    return [i for micro in step if not micro.filler for i in micro.indices]


SIZES = {
    "n": st.integers(1, 60),
    "global_batch_size": st.integers(1, 20),
    "per_device": st.integers(1, 8),
    "world_size": st.integers(1, 4),
    "epoch": st.integers(0, 3),
}


@given(**SIZES)
@settings(max_examples=150, deadline=None)
def test_an_epoch_is_steps_of_exactly_the_global_batch_size_and_holds_every_example_once(
    n: int, global_batch_size: int, per_device: int, world_size: int, epoch: int
) -> None:
    examples = examples_of(n)
    plans = [
        plan_epoch(
            examples,
            global_batch_size=global_batch_size,
            limits=BatchLimits(examples=per_device),
            seed=3,
            epoch=epoch,
            world_size=world_size,
            rank=rank,
        )
        for rank in range(world_size)
    ]
    steps = steps_of(plans)
    sizes = [len(indices(step)) for step in steps]
    assert sizes[:-1] == [global_batch_size] * (len(sizes) - 1)
    assert sorted(i for step in steps for i in indices(step)) == list(range(n))
    rounds = count_rounds(examples, BatchLimits(examples=per_device), global_batch_size, world_size)
    assert rounds == math.ceil(global_batch_size / (per_device * world_size))
    for step in steps:
        assert max(len(micro.indices) for micro in step) <= per_device
        assert {micro.step_tokens for micro in step} == {
            sum(len(examples[i].answer) for i in indices(step))
        }
    for step in steps[:-1]:
        assert len(step) == rounds * world_size
    numbers = [[micro.number for micro in plan] for plan in plans]
    assert numbers == [list(range(epoch * len(plans[0]), (epoch + 1) * len(plans[0])))] * world_size


@given(**SIZES)
@settings(max_examples=60, deadline=None)
def test_which_examples_share_a_step_does_not_depend_on_devices_or_memory(
    n: int, global_batch_size: int, per_device: int, world_size: int, epoch: int
) -> None:
    examples = examples_of(n)

    def members(per_device: int, world_size: int) -> list[set[int]]:
        options = {
            "global_batch_size": global_batch_size,
            "limits": BatchLimits(examples=per_device),
            "seed": 1,
            "epoch": epoch,
        }
        plans = [
            plan_epoch(examples, **options, world_size=world_size, rank=r)
            for r in range(world_size)
        ]
        return [set(indices(step)) for step in steps_of(plans)]

    assert members(per_device, world_size) == members(global_batch_size, 1)


def test_order_depends_on_seed_and_epoch_and_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()

    def order(seed: int, epoch: int) -> list[int]:
        plan = plan_epoch(
            examples_of(50),
            global_batch_size=1,
            limits=BatchLimits(examples=1),
            seed=seed,
            epoch=epoch,
        )
        return [micro.indices[0] for micro in plan]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    assert torch.equal(before, torch.random.get_rng_state())


def test_examples_of_one_micro_batch_are_neighbors_in_length() -> None:
    examples = examples_of(64)
    plan = plan_epoch(
        examples, global_batch_size=64, limits=BatchLimits(examples=8), seed=0, epoch=0
    )
    lengths = [
        [len(examples[i].prompt) + len(examples[i].answer) for i in micro.indices] for micro in plan
    ]
    assert all(max(short) <= min(long) for short, long in itertools.pairwise(lengths))


@given(n=st.integers(1, 50), batch_size=st.integers(1, 9), world_size=st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_scoring_takes_every_example_once_over_all_devices(
    n: int, batch_size: int, world_size: int
) -> None:
    plans = [
        plan_scoring(
            examples_of(n),
            limits=BatchLimits(examples=batch_size),
            world_size=world_size,
            rank=rank,
        )
        for rank in range(world_size)
    ]
    assert len({len(plan) for plan in plans}) == 1, "devices compute equally often"
    assert sorted(i for plan in plans for i in indices(list(plan))) == list(range(n))
    assert max(len(micro.indices) for plan in plans for micro in plan) <= batch_size


def test_the_mask_covers_exactly_the_answer() -> None:
    examples = [
        EncodedExample(id="a", prompt=(5, 6, 7), answer=(8, 2), gold=0),
        EncodedExample(id="b", prompt=(5,), answer=(9, 9, 2), gold=1),
    ]
    plan = MicroBatch(indices=(1, 0), step_tokens=5, number=0, ends_step=True)
    batch = collate(examples, plan, pad_id=0)
    assert batch.input_ids.tolist() == [[5, 9, 9, 2, 0], [5, 6, 7, 8, 2]]
    assert batch.answer_mask.long().tolist() == [[0, 1, 1, 1, 0], [0, 0, 0, 1, 1]]
    assert [example.id for example in batch.examples] == ["b", "a"]


def test_a_filler_is_computed_but_nothing_of_it_is_learned() -> None:
    plan = MicroBatch(indices=(0,), step_tokens=5, number=0, ends_step=True, filler=True)
    assert not collate(examples_of(1), plan, pad_id=0).answer_mask.any()


LIMITS = st.builds(
    BatchLimits,
    examples=st.integers(1, 8),
    tokens=st.integers(15, 60),  # the longest example has 15
    prefix=st.sampled_from([None, 0, 1]),
)


def lengths(examples: list[EncodedExample], micro: MicroBatch) -> list[int]:
    return [len(examples[i].prompt) + len(examples[i].answer) for i in micro.indices]


def computed(examples: list[EncodedExample], micro: MicroBatch, prefix: int | None) -> int:
    """Return the tokens of the tensors themselves."""
    return collate(examples, micro, 0, prefix).input_ids.numel()


@given(
    n=st.integers(1, 60),
    global_batch_size=st.integers(1, 20),
    limits=LIMITS,
    world_size=st.integers(1, 4),
    epoch=st.integers(0, 3),
)
@settings(max_examples=200, deadline=None)
def test_a_budget_in_tokens_holds_and_changes_neither_steps_nor_their_number_of_rounds(
    n: int, global_batch_size: int, limits: BatchLimits, world_size: int, epoch: int
) -> None:
    examples = examples_of(n)
    options = {"global_batch_size": global_batch_size, "seed": 3, "epoch": epoch}
    plans = [
        plan_epoch(examples, **options, limits=limits, world_size=world_size, rank=rank)
        for rank in range(world_size)
    ]
    whole = plan_epoch(examples, **options, limits=BatchLimits(examples=global_batch_size))
    steps = steps_of(plans)
    assert [sorted(indices(step)) for step in steps] == [sorted(m.indices) for m in whole]
    rounds = count_rounds(examples, limits, global_batch_size, world_size)
    for step, micro_whole in zip(steps, whole, strict=True):
        assert {micro.step_tokens for micro in step} == {micro_whole.step_tokens}
        assert len(step) <= rounds * world_size
        for micro in step:
            assert len(micro.indices) <= limits.examples
            assert computed(examples, micro, limits.prefix) <= (limits.tokens or 0)
        empty = [not micro.indices for micro in step]
        assert empty == sorted(empty, reverse=True), "empty rounds come first"
        assert len(set(empty[-world_size:])) == 1, "on all devices alike"
        assert sum(empty) % world_size == 0
        assert not any(empty[-world_size:]), "the step ends with something to learn"
    if n >= global_batch_size:
        assert {len(step) for step in steps if len(indices(step)) == global_batch_size} == {
            rounds * world_size
        }
    assert [micro.number for micro in plans[0]] == [
        epoch * len(plans[0]) + i for i in range(len(plans[0]))
    ]


@given(n=st.integers(1, 40), limits=LIMITS, world_size=st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_scoring_keeps_to_a_budget_in_tokens_too(
    n: int, limits: BatchLimits, world_size: int
) -> None:
    examples = examples_of(n)
    plans = [
        plan_scoring(examples, limits=limits, world_size=world_size, rank=rank)
        for rank in range(world_size)
    ]
    assert len({len(plan) for plan in plans}) == 1
    assert sorted(i for plan in plans for i in indices(list(plan))) == list(range(n))
    assert all(
        computed(examples, micro, limits.prefix) <= (limits.tokens or 0)
        for plan in plans
        for micro in plan
    )


def test_groups_of_a_budget_are_as_few_and_as_even_as_can_be() -> None:
    examples = [
        EncodedExample(id=str(i), prompt=(1,) * n, answer=(2,), gold=0)
        for i, n in enumerate([3, 3, 3, 3, 7, 7])  # 4, 4, 4, 4, 8, 8 tokens
    ]

    def sizes(limits: BatchLimits) -> list[list[int]]:
        plan = plan_epoch(examples, global_batch_size=6, limits=limits, seed=0, epoch=0)
        return [lengths(examples, micro) for micro in plan]

    assert sizes(BatchLimits(examples=6, tokens=24, prefix=0)) == [[4, 4, 4, 4], [8, 8]]
    assert sizes(BatchLimits(examples=6, tokens=20, prefix=2)) == [[4, 4, 4, 4, 8], [8]] or sizes(
        BatchLimits(examples=6, tokens=20, prefix=2)
    ) == [[4, 4, 4, 4], [8, 8]]
    assert sizes(BatchLimits(examples=6, tokens=16)) == [[4, 4, 4, 4], [8, 8]]
    assert sizes(BatchLimits(examples=3, tokens=99)) == [[4, 4, 4], [4, 8, 8]]


def test_an_example_longer_than_the_budget_is_refused_with_its_length() -> None:
    long = EncodedExample(id="s1:4", prompt=(1,) * 30, answer=(2,), gold=0)
    with pytest.raises(ConfigError, match=r"=20 has no room for example 's1:4' of 31 tokens"):
        ScoringLoader([*examples_of(4), long], pad_id=0, limits=BatchLimits(examples=4, tokens=20))


def loader() -> TrainingLoader:
    return TrainingLoader(
        examples_of(23), pad_id=0, global_batch_size=8, limits=BatchLimits(examples=3), seed=0
    )


def numbers(batches: object) -> list[int]:
    return [batch.plan.number for batch in batches]  # type: ignore[attr-defined]


def test_a_loader_counts_its_own_epochs() -> None:
    training = loader()
    assert numbers(training) == list(range(9))
    assert numbers(training) == list(range(9, 18))
    assert len(training) == 9


def test_a_loader_goes_on_with_the_next_micro_batch_of_an_interrupted_epoch() -> None:
    first = loader()
    list(first)
    iterator = iter(first)
    seen = [next(iterator) for _ in range(4)]
    resumed = loader()
    resumed.load_state_dict(first.state_dict())
    rest = list(resumed)
    assert numbers(seen) + numbers(rest) == list(range(9, 18))
    unbroken = loader().plan(1)
    assert [batch.plan.indices for batch in [*seen, *rest]] == [micro.indices for micro in unbroken]


def test_a_loader_saved_at_the_end_of_an_epoch_goes_on_with_the_next() -> None:
    first = loader()
    list(first)
    resumed = loader()
    resumed.load_state_dict(first.state_dict())
    assert numbers(resumed) == list(range(9, 18))


def test_a_loader_that_is_told_another_epoch_starts_it_and_its_own_epoch_leaves_it_in_place() -> (
    None
):
    told = loader()
    told.set_epoch(1)
    assert numbers(told) == list(range(9, 18))
    midway = loader()
    midway.load_state_dict({"epoch": 1, "done": 4})
    midway.set_epoch(1)
    assert numbers(midway) == list(range(13, 18))


def test_an_empty_set_and_an_example_without_a_label_are_refused() -> None:
    with pytest.raises(ConfigError, match="no example to train on"):
        TrainingLoader([], pad_id=0, global_batch_size=8, limits=BatchLimits(examples=3), seed=0)
    unlabeled = EncodedExample(id="s1:4", prompt=(1,), answer=())
    with pytest.raises(ConfigError, match="'s1:4' has no label"):
        ScoringLoader([unlabeled], pad_id=0, limits=BatchLimits(examples=2))
