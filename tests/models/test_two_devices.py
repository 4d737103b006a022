"""The same training, selection and scores on two devices as on one (two processes, gloo)."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import lightning
import pytest
import shrunk
import torch
from built_once import BuiltOnce
from lightning.pytorch.callbacks import Callback
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.multiprocessing.spawn import start_processes
from transformers import AutoModelForCausalLM

from recap.config import OptimizerConfig
from recap.data.encode import ChatEncoder, encode_examples
from recap.data.loaders import DataModule
from recap.models.backbone import load_backbone, load_backbone_lazily
from recap.models.callbacks import AtomicCheckpointIO
from recap.models.engine import training
from recap.models.export import save_model
from recap.models.finetune import apply_finetune, checkpoint_gradients
from recap.models.module import ResponseModule
from recap.models.strategy import build_strategy
from recap.records import Example
from recap.tasks.library import builtin_task

TASK = builtin_task("binary", style="brief", rationale=False)
# 13 examples in steps of 12: the last one has a device without any.
LABELS = ["Resistance", "Collaboration", "Collaboration"] * 4 + ["Resistance"]
EPOCHS = 2
PHASES: dict[str, Any] = {
    "TOKENS_AT_ONCE": 1,
    "splitting_pays": lambda layout, **_: bool(layout.trunks),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to train, on two devices unless ``strategy`` is ``auto``."""

    strategy: str = "fsdp"
    method: str = "full"
    family: str = "qwen2"
    tied: bool = False
    precision: Any = "32-true"
    dtype: str = "float32"
    per_device: int = 6
    options: tuple[tuple[str, Any], ...] = (("batching", "trunk"),)
    gradient_checkpointing: bool = False
    cpu_offload: bool = False
    deferred: bool = False
    in_phases: bool = False
    """Whether a shared row is computed in two phases, one example at a time, however small."""
    stop_after: int = EPOCHS
    within: float = 1e-5
    """Relative difference of losses that is allowed."""
    resume_from: str | None = None
    """Name of the case whose checkpoint this one goes on from."""

    @property
    def alone(self) -> Case:
        """The plain training on one device that has to come to the same."""
        alone = replace(
            Case(strategy="auto", method=self.method, family=self.family, tied=self.tied),
            dtype=self.dtype,
        )
        if self.precision == "32-true" and self.dtype == "float32":
            return replace(alone, options=(("batching", "padded"),))
        # Three digits: only rows of the same shape come to the same.
        return replace(alone, precision=self.precision, per_device=self.per_device)


CASES = {
    "ddp": Case(strategy="ddp", options=(("batching", "padded"),), per_device=2),
    "ddp lora": Case(strategy="ddp", method="lora"),
    "ddp tokens": Case(
        strategy="ddp",
        options=(("batching", "trunk"), ("max_tokens_per_device", 120)),
    ),
    "ddp in phases": Case(strategy="ddp", tied=True, in_phases=True),
    "ddp lora in phases": Case(strategy="ddp", method="lora", per_device=3, in_phases=True),
    "one batch a step": Case(),
    "three batches a step": Case(per_device=2),
    "padded": Case(options=(("batching", "padded"),), per_device=2),
    "tied": Case(tied=True, per_device=2),
    "llama": Case(family="llama"),
    "lora": Case(method="lora", per_device=2),
    # A weight whose sums differ in the eighth digit may be rounded to the next of three digits.
    "half precision": Case(precision="bf16-mixed", per_device=3, within=5e-4),
    "half precision lora": Case(method="lora", precision="bf16-mixed", per_device=3, within=5e-4),
    "adapters over half precision": Case(
        method="lora", dtype="bfloat16", per_device=3, deferred=True, within=5e-4
    ),
    "ddp adapters over 4 bits": Case(strategy="ddp", method="qlora"),
    "checkpointed": Case(gradient_checkpointing=True, per_device=2),
    "offloaded": Case(cpu_offload=True),
    "deferred": Case(deferred=True),
    "deferred tied": Case(deferred=True, tied=True, per_device=2),
    "deferred lora": Case(deferred=True, method="lora"),
    "deferred llama": Case(deferred=True, family="llama", method="lora", per_device=2),
    "stopped": Case(stop_after=1),
    "stopped lora": Case(stop_after=1, method="lora", tied=True),
    "stopped ddp": Case(strategy="ddp", stop_after=1),
    "went on": Case(resume_from="stopped"),
    "two from one": Case(resume_from="stopped alone"),
    "two from one lora": Case(resume_from="stopped alone lora", method="lora", tied=True),
    "ddp from fsdp": Case(strategy="ddp", resume_from="stopped"),
    "fsdp from ddp": Case(resume_from="stopped ddp"),
}
STOPPED_ALONE = {
    "stopped alone": Case(strategy="auto", stop_after=1),
    "stopped alone lora": Case(strategy="auto", stop_after=1, method="lora", tied=True),
}
ONE_FROM_TWO = {
    "one from two": Case(strategy="auto", resume_from="stopped"),
    "one from two lora": Case(
        strategy="auto", resume_from="stopped lora", method="lora", tied=True
    ),
}

QUICK = {"ddp", "deferred lora", "stopped alone", "stopped", "went on", "one from two"}
"""What the default suite runs; all others are slow."""


class Record(Callback):
    """Writes what the first process knows: losses of the steps, then scores and generations."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.losses: list[float] = []

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch.plan.ends_step:
            self.losses.append(float(trainer.callback_metrics["train_loss"]))

    def on_train_end(self, trainer: Any, module: Any) -> None:
        val_loss = float(trainer.callback_metrics["val_loss"])
        self._write(trainer, "train", {"losses": self.losses, "val_loss": val_loss})

    def on_test_end(self, trainer: Any, module: Any) -> None:
        scores = module.scores()
        found = {
            "tokens": [list(g.answer.tokens) for g in module.generations],
            "ids": [g.id for g in module.generations],
        }
        self._write(
            trainer, "test", found | {"confusion": scores.confusion, "loss": scores.metrics["loss"]}
        )

    def on_predict_end(self, trainer: Any, module: Any) -> None:
        judged = [[j.id, *j.probabilities] for j in module.label_probabilities]
        answered = [[g.id, *g.answer.probabilities.values()] for g in module.generations]
        self._write(trainer, "predict", {"judged": judged, "answered": answered})

    def _write(self, trainer: Any, name: str, values: dict[str, Any]) -> None:
        if trainer.is_global_zero:
            (self.folder / f"{name}.json").write_text(json.dumps(values))


def backbone(folder: Path, case: Case) -> Path:
    wide = "-wide" if case.method == "qlora" else ""
    return folder / f"{case.family}{'-tied' if case.tied else ''}{wide}"


def run(folder: Path, name: str, case: Case) -> None:
    """Train, test, checkpoint and save as a case says; each process of it calls this."""
    here = folder / name
    here.mkdir(exist_ok=True)
    source = {
        "name": "shrunk",
        "family": case.family,
        "path": backbone(folder, case),
        "dtype": case.dtype,
    }
    weights = None
    if case.deferred:
        model, tokenizer, weights = load_backbone_lazily(**source)
    else:
        model, tokenizer = load_backbone(**source, quantize=case.method == "qlora")
    encoder = ChatEncoder(tokenizer)
    examples = encode_examples(
        [
            Example(id=f"e{i}", history=(), response="no " * (1 + i * 5 % 7), label=label)
            for i, label in enumerate(LABELS)
        ],
        TASK,
        encoder,
    ).examples
    model = apply_finetune(model, method=case.method)
    if case.gradient_checkpointing:
        checkpoint_gradients(model)
    data = DataModule(
        train=examples,
        select=examples,
        test=examples,
        pad_id=encoder.pad_id,
        global_batch_size=12,
        per_device_batch_size=case.per_device,
        decoding_batch_size=4,
        **dict(case.options),
    )
    module = ResponseModule(
        model=model,
        task=TASK,
        encoder=encoder,
        optimizer=OptimizerConfig(learning_rate=1e-3),
        max_new_tokens=6,
        total_steps=2 * EPOCHS,
        weights=weights,
    )
    n_devices = 1 if case.strategy == "auto" else 2
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=n_devices,
        strategy=build_strategy(case.strategy, world_size=n_devices, cpu_offload=case.cpu_offload),
        precision=case.precision,
        max_epochs=case.stop_after,
        accumulate_grad_batches=data.accumulation(n_devices),
        gradient_clip_val=0.5,
        use_distributed_sampler=False,
        inference_mode=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[Record(here)],
        plugins=[AtomicCheckpointIO()],
        log_every_n_steps=1,
    )
    resumed = folder / str(case.resume_from) / "last.ckpt" if case.resume_from else None
    patched = mock.patch.multiple(training, **PHASES) if case.in_phases else nullcontext()
    with patched:
        trainer.fit(module, data, ckpt_path=resumed, weights_only=True)
    trainer.save_checkpoint(here / "last.ckpt")
    trainer.test(module, data, verbose=False)
    trainer.predict(module, datamodule=data, return_predictions=False)
    save_model(
        module.model,
        tokenizer,
        here / "model",
        end_of_turn_id=encoder.end_of_turn_id,
        pad_id=encoder.pad_id,
    )


def run_all(rank: int, cases: dict[str, Case], folder: Path, port: int) -> None:
    """Run cases of two devices in this process, the ``rank``-th of two."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    for name, case in cases.items():
        run(folder, name, case)


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, built_once: BuiltOnce) -> Path:
    """Return the folder in which the cases were run that are asked for: all, or the quick ones."""
    here = [item for item in request.session.items if item.path == Path(__file__)]
    quick = not any(item.get_closest_marker("slow") for item in here)
    return built_once(f"devices-{quick}", lambda folder: run_cases(folder, quick))


def run_cases(folder: Path, quick: bool) -> None:
    """Run the cases on one device, then on two, then on one that goes on from two."""
    before, on_two, after = (
        {name: case for name, case in cases.items() if not quick or name in QUICK}
        for cases in (STOPPED_ALONE, CASES, ONE_FROM_TWO)
    )
    for case in on_two.values():
        if not backbone(folder, case).exists():
            widths = {"widths": shrunk.IN_BLOCKS} if case.method == "qlora" else {}
            shrunk.write_family(backbone(folder, case), case.family, tied=case.tied, **widths)
        if not (folder / name_of(case.alone)).exists():
            run(folder, name_of(case.alone), case.alone)
    for name, case in before.items():
        run(folder, name, case)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start_processes(run_all, args=(on_two, folder, port), nprocs=2, start_method="fork")
    for name, case in after.items():
        run(folder, name, case)


def name_of(case: Case) -> str:
    return f"alone {case.method} {case.family} {case.tied} {case.precision} {case.dtype}"


def read(folder: Path, name: str, part: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / name / f"{part}.json").read_text())
    return values


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    found = [load_file(file) for file in sorted(folder.glob("*.safetensors"))]
    assert found
    return {name: tensor for part in found for name, tensor in part.items()}


WHOLE = {name: case for name, case in CASES.items() if case.stop_after == EPOCHS} | ONE_FROM_TWO
RESUMED = [name for name, case in WHOLE.items() if case.resume_from]


def slow_unless_quick(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in names]


@pytest.mark.multiprocess
@pytest.mark.parametrize("name", slow_unless_quick(WHOLE))
def test_two_devices_learn_select_and_score_as_one(folder: Path, name: str) -> None:
    case = WHOLE[name]
    alone = name_of(case.alone)
    one, two = read(folder, alone, "train"), read(folder, name, "train")
    assert len(one["losses"]) == 2 * EPOCHS
    assert two["losses"] == pytest.approx(one["losses"][-len(two["losses"]) :], rel=case.within)
    assert two["val_loss"] == pytest.approx(one["val_loss"], rel=case.within)
    one, two = read(folder, alone, "test"), read(folder, name, "test")
    assert two["ids"] == [f"e{i}" for i in range(len(LABELS))]
    assert two["loss"] == pytest.approx(one["loss"], rel=case.within)
    if case.within == 1e-5:
        assert two["tokens"] == one["tokens"]
        assert two["confusion"] == one["confusion"]


@pytest.mark.multiprocess
@pytest.mark.parametrize("name", slow_unless_quick(WHOLE))
def test_what_is_only_judged_has_the_probabilities_of_answers(folder: Path, name: str) -> None:
    found = read(folder, name, "predict")
    assert [row[0] for row in found["judged"]] == [f"e{i}" for i in range(len(LABELS))]
    for judged, answered in zip(found["judged"], found["answered"], strict=True):
        # Behind them stand the last digits of 32 bits, in sums over other batches.
        assert judged[1:] == pytest.approx(answered[1:], rel=1e-4)


@pytest.mark.multiprocess
@pytest.mark.parametrize("name", slow_unless_quick(WHOLE))
def test_two_devices_leave_the_model_that_one_leaves(folder: Path, name: str) -> None:
    case = WHOLE[name]
    one = tensors(folder / name_of(case.alone) / "model")
    two = tensors(folder / name / "model")
    assert one.keys() == two.keys()
    for key, weight in one.items():
        assert torch.allclose(two[key], weight, atol=2e-6 if case.within == 1e-5 else 5e-5), key


@pytest.mark.multiprocess
@pytest.mark.parametrize("name", slow_unless_quick(RESUMED))
def test_what_goes_on_does_not_start_again(folder: Path, name: str) -> None:
    assert len(read(folder, name, "train")["losses"]) == 2


@pytest.mark.multiprocess
def test_checkpoints_of_spread_weights_are_folders_of_shares(folder: Path) -> None:
    spread, whole = folder / "stopped" / "last.ckpt", folder / "stopped alone" / "last.ckpt"
    assert {file.name for file in spread.iterdir()} == {
        ".metadata",
        "SHA256SUMS",
        "rest.pt",
        "__0_0.distcp",
        "__1_0.distcp",
    }
    assert whole.is_file()
    found = FileSystemReader(spread).read_metadata()
    weights = [name for name in found.state_dict_metadata if name.startswith("weight:")]
    assert len(weights) == len(torch.load(whole, weights_only=True)["state_dict"])
    for name, tensor in found.state_dict_metadata.items():
        halves = [chunk.sizes.numel() for chunk in tensor.chunks]
        assert len(halves) == 2, name
        assert sum(halves) == tensor.size.numel()
        assert max(halves) <= 0.6 * sum(halves) + 32


@pytest.mark.slow
@pytest.mark.multiprocess
def test_plain_transformers_loads_what_two_devices_saved(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder / "tied" / "model")
    assert model.lm_head.weight is model.get_input_embeddings().weight
    saved = tensors(folder / "tied" / "model")
    assert torch.equal(saved["model.embed_tokens.weight"], model.lm_head.weight)
    assert "lm_head.weight" not in saved


def test_every_case_that_goes_on_comes_after_the_one_it_goes_on_from() -> None:
    names = [*STOPPED_ALONE, *CASES, *ONE_FROM_TWO]
    for name, case in {**CASES, **ONE_FROM_TWO}.items():
        if case.resume_from:
            assert names.index(case.resume_from) < names.index(name)
    assert replace(Case(), resume_from="x").alone == Case().alone
