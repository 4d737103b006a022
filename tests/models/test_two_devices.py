"""The same training, selection and scores on two devices as on one (two processes, gloo)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning
import pytest
import shrunk
from lightning.pytorch.callbacks import Callback

from recap.data.encode import ChatEncoder, encode_examples
from recap.data.module import DataModule
from recap.models.finetune import apply_finetune
from recap.models.module import ResponseModule
from recap.models.optimizers import OptimizerSettings
from recap.records import Example
from recap.tasks.library import builtin_task

TASK = builtin_task("binary", style="brief", rationale=False)
TOKENIZER = shrunk.qwen2_tokenizer()
ENCODER = ChatEncoder(TOKENIZER)
LABELS = [
    "Resistance",
    "Collaboration",
    "Collaboration",
] * 3  # 9: the last step of 8 has a device without any
EXAMPLES = encode_examples(
    [
        Example(id=f"e{i}", history=(), response="no " * (1 + i * 5 % 7), label=label)
        for i, label in enumerate(LABELS)
    ],
    TASK,
    ENCODER,
).examples


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
            "tokens": [list(g.tokens) for g in module.generations],
            "ids": [g.id for g in module.generations],
        }
        self._write(
            trainer, "test", found | {"confusion": scores.confusion, "loss": scores.metrics["loss"]}
        )

    def _write(self, trainer: Any, name: str, values: dict[str, Any]) -> None:
        if trainer.is_global_zero:
            (self.folder / f"{name}.json").write_text(json.dumps(values))


def run(
    folder: Path, n_devices: int, method: str, **options: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    folder.mkdir()
    model = apply_finetune(shrunk.model_of("qwen2", len(TOKENIZER)), method=method)
    data = DataModule(
        train=EXAMPLES,
        select=EXAMPLES,
        test=EXAMPLES,
        pad_id=ENCODER.pad_id,
        global_batch_size=8,
        per_device_batch_size=3,
        decoding_batch_size=4,
        **options,
    )
    module = ResponseModule(
        model=model,
        task=TASK,
        encoder=ENCODER,
        optimizer=OptimizerSettings(learning_rate=1e-3),
        max_new_tokens=6,
    )

    def trainer(**options: Any) -> lightning.Trainer:
        return lightning.Trainer(
            accelerator="cpu",
            devices=n_devices,
            strategy="ddp_fork" if n_devices > 1 else "auto",
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            callbacks=[Record(folder)],
            log_every_n_steps=1,
            **options,
        )

    trainer(max_epochs=2, accumulate_grad_batches=data.accumulation(n_devices)).fit(module, data)
    trainer().test(module, data, verbose=False)
    train, test = (json.loads((folder / f"{name}.json").read_text()) for name in ("train", "test"))
    return train, test


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("full", {}),
        ("lora", {}),
        ("full", {"batching": "shared_prefix"}),
        ("lora", {"batching": "shared_prefix", "max_tokens_per_device": 120}),
    ],
)
def test_two_devices_learn_select_and_score_as_one(
    tmp_path: Path, method: str, options: dict[str, Any]
) -> None:
    one, two = run(tmp_path / "one", 1, method), run(tmp_path / "two", 2, method, **options)
    assert len(one[0]["losses"]) == 4
    assert two[0]["losses"] == pytest.approx(one[0]["losses"], rel=1e-5)
    assert two[0]["val_loss"] == pytest.approx(one[0]["val_loss"], rel=1e-5)
    assert two[1]["ids"] == [example.id for example in EXAMPLES]
    assert two[1]["tokens"] == one[1]["tokens"]
    assert two[1]["confusion"] == one[1]["confusion"]
    assert two[1]["loss"] == pytest.approx(one[1]["loss"], rel=1e-5)
