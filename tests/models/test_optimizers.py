"""Optimizers and schedules against transformers' own schedules and against hand-counted groups."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from recap.config import OptimizerConfig, SchedulerConfig
from recap.errors import UnknownNameError
from recap.models.finetune import build_optimizer, build_scheduler


def rates(scheduler_of: object, n_steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = scheduler_of(optimizer)  # type: ignore[operator]
    seen = []
    for _ in range(n_steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


@pytest.mark.parametrize("n_steps", [1, 7, 40])
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("cosine", lambda o, w, n: get_cosine_schedule_with_warmup(o, w, n)),
        ("linear", lambda o, w, n: get_linear_schedule_with_warmup(o, w, n)),
        ("constant", lambda o, w, n: get_constant_schedule_with_warmup(o, w)),
    ],
)
def test_schedules_are_those_of_transformers(name: str, reference: object, n_steps: int) -> None:
    n_warmup = {1: 1, 7: 1, 40: 4}[n_steps]  # a tenth, rounded up
    ours = rates(lambda o: build_scheduler(o, SchedulerConfig(name=name), n_steps=n_steps), n_steps)
    theirs = rates(lambda o: reference(o, n_warmup, n_steps), n_steps)  # type: ignore[operator]
    assert ours == pytest.approx(theirs, rel=1e-12)


def test_biases_norms_and_frozen_weights_do_not_decay() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2))
    model[2].requires_grad_(False)
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.1, learning_rate=1e-3))
    shapes = {
        group["weight_decay"]: [tuple(p.shape) for p in group["params"]]
        for group in optimizer.param_groups
    }
    assert shapes == {0.1: [(4, 3)], 0.0: [(4,), (4,), (4,)]}


def test_an_optimizer_of_ones_own_is_found_by_module_and_name() -> None:
    settings = OptimizerConfig(name="recap.models.finetune:adamw", learning_rate=3e-4)
    optimizer = build_optimizer(torch.nn.Linear(2, 2), settings)
    assert [group["lr"] for group in optimizer.param_groups] == [3e-4, 3e-4]


def test_an_unknown_schedule_is_refused_with_the_closest() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    with pytest.raises(UnknownNameError, match=r"no scheduler 'cosin' \(did you mean 'cosine'\?\)"):
        build_scheduler(optimizer, SchedulerConfig(name="cosin"), n_steps=3)


def stepped(name: str, n_steps: int, *, stop_after: int | None = None) -> torch.Tensor:
    """Return a matrix after some steps, saved to a file and taken back in between if asked."""

    def fresh() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layer = torch.nn.Linear(128, 64)  # bitsandbytes keeps less than 4096 weights in 32 bits
        settings = OptimizerConfig(name=name, learning_rate=1e-3, weight_decay=0.01)
        return layer, build_optimizer(layer, settings)

    layer, optimizer = fresh()
    for step in range(n_steps):
        if step == stop_after:
            file = io.BytesIO()
            torch.save((layer.state_dict(), optimizer.state_dict()), file)
            file.seek(0)
            weights, moments = torch.load(file, weights_only=True)
            layer, optimizer = fresh()
            layer.load_state_dict(weights)
            optimizer.load_state_dict(moments)
        inputs = torch.randn(8, 128, generator=torch.Generator().manual_seed(step))
        layer(inputs).pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return layer.weight.detach()


def test_adamw_is_fused_everywhere_and_steps_as_torchs_loop_does() -> None:
    layer = torch.nn.Linear(128, 64)
    optimizer = build_optimizer(layer, OptimizerConfig(learning_rate=1e-3, weight_decay=0.01))
    assert all(group["fused"] for group in optimizer.param_groups)
    other = copy.deepcopy(layer)
    # Biases do not decay; eps and betas are torch's defaults.
    loop = torch.optim.AdamW(
        [
            {"params": [other.weight], "weight_decay": 0.01},
            {"params": [other.bias], "weight_decay": 0.0},
        ],
        lr=1e-3,
        foreach=False,
    )
    for step in range(6):
        inputs = torch.randn(8, 128, generator=torch.Generator().manual_seed(step))
        for model, taken in ((layer, optimizer), (other, loop)):
            model(inputs).pow(2).mean().backward()
            taken.step()
            taken.zero_grad()
    assert (layer.weight - other.weight).abs().max() <= 1e-6
    assert (layer.bias - other.bias).abs().max() <= 1e-6


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize(
    ("name", "nearness"),
    # Blockwise 8-bit moments (Dettmers et al. 2022): a few per cent of six steps of 1e-3.
    [("adamw8bit", 5e-4), ("paged_adamw8bit", 5e-4), ("paged_adamw32bit", 1e-6)],
)
def test_the_optimizers_of_bitsandbytes_step_as_torch_does_and_resume_exactly(
    name: str, nearness: float
) -> None:
    found = stepped(name, 6)
    assert (found - stepped("adamw", 6)).abs().max() <= nearness
    # The same operations on the same shapes.
    assert torch.equal(found, stepped(name, 6, stop_after=3))
