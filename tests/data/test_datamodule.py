"""The data module, and a script of one's own with a plain Trainer and callback."""

from __future__ import annotations

import lightning
import pytest
import shrunk

from recap.data.encode import EncodedExample
from recap.data.loaders import DataModule
from recap.errors import ConfigError

EXAMPLES = [
    EncodedExample(id=str(i), prompt=(5, 6, 7 + i), answer=(8, 2), gold=0) for i in range(19)
]


def test_steps_and_accumulation_follow_from_the_global_batch_size() -> None:
    data = DataModule(train=EXAMPLES, pad_id=0, global_batch_size=8, per_device_batch_size=3)
    assert data.steps_per_epoch == 3
    assert [data.accumulation(world_size) for world_size in (1, 2, 3, 4)] == [3, 2, 1, 1]


def test_accumulation_follows_from_the_longest_examples_under_a_budget_in_tokens() -> None:
    long = EncodedExample(id="long", prompt=tuple(range(5, 17)), answer=(8, 2), gold=0)
    options = {"pad_id": 0, "global_batch_size": 4, "per_device_batch_size": 4}
    rows = {"train": [*EXAMPLES, long], "max_tokens_per_device": 20, **options}
    # 5, 5, 5 and 14 tokens; the first two are shared.
    assert DataModule(**rows, batching="padded").accumulation() == 2
    assert DataModule(**rows, batching="trunk").accumulation() == 2
    assert DataModule(**rows | {"max_tokens_per_device": 29}, batching="packed").accumulation() == 1
    assert DataModule(test=EXAMPLES, max_tokens_per_device=20, **options).accumulation() == 1


def test_the_prefix_is_what_all_sets_of_the_module_share() -> None:
    other = EncodedExample(id="o", prompt=(5, 9, 7), answer=(8, 2), gold=0)
    assert DataModule(train=EXAMPLES, pad_id=0, batching="trunk").prefix == 2
    assert DataModule(train=EXAMPLES, test=[other], pad_id=0, batching="trunk").prefix == 1
    assert DataModule(train=EXAMPLES, pad_id=0, batching="packed").prefix == 0
    assert DataModule(train=EXAMPLES, pad_id=0).prefix is None


def test_loaders_hold_their_own_set_in_their_own_batch_size() -> None:
    data = DataModule(
        train=EXAMPLES,
        select=EXAMPLES[:5],
        test=EXAMPLES[5:],
        pad_id=0,
        global_batch_size=8,
        per_device_batch_size=4,
        decoding_batch_size=7,
    )
    sizes = {
        name: [len(batch.examples) for batch in loader()]
        for name, loader in [
            ("train", data.train_dataloader),
            ("select", data.val_dataloader),
            ("test", data.test_dataloader),
        ]
    }
    assert sizes == {"train": [4, 4, 4, 4, 3], "select": [2, 3], "test": [7, 7]}


def test_a_trainer_that_accumulates_another_number_is_refused_with_the_right_one() -> None:
    from recap.data.encode import ChatEncoder
    from recap.models.module import ResponseModule
    from recap.tasks.library import builtin_task

    tokenizer = shrunk.qwen2_tokenizer()
    module = ResponseModule(
        model=shrunk.model_of("qwen2", len(tokenizer)),
        task=builtin_task("binary"),
        encoder=ChatEncoder(tokenizer),
    )
    data = DataModule(train=EXAMPLES, pad_id=0, global_batch_size=8, per_device_batch_size=3)
    assert data.val_dataloader() == [], "no examples to select by, no selection"
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    with pytest.raises(ConfigError, match="accumulate_grad_batches=3"):
        trainer.fit(module, data)


def test_a_script_of_ones_own_trains_with_its_own_trainer_and_callback() -> None:
    # What a user writes, without Hydra or any configuration:
    from recap.config import OptimizerConfig
    from recap.data.encode import ChatEncoder, encode_examples
    from recap.models.backbone import load_tiny
    from recap.models.finetune import apply_finetune
    from recap.models.module import ResponseModule
    from recap.records import Example
    from recap.tasks.library import builtin_task

    class Watch(lightning.Callback):
        def __init__(self) -> None:
            self.losses: list[float] = []

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):  # type: ignore[no-untyped-def]
            self.losses.append(float(trainer.callback_metrics["train_loss"]))

    model, tokenizer = load_tiny(seed=0)
    task, encoder = builtin_task("binary", style="brief", rationale=False), ChatEncoder(tokenizer)
    said = [("I won't talk about that.", "Resistance"), ("Yes, on Monday.", "Collaboration")] * 8
    examples = [
        Example(id=str(i), history=(), response=text, label=label)
        for i, (text, label) in enumerate(said)
    ]
    encoded = encode_examples(examples, task, encoder).examples
    data = DataModule(
        train=encoded,
        select=encoded,
        test=encoded,
        pad_id=encoder.pad_id,
        global_batch_size=8,
        per_device_batch_size=8,
    )
    module = ResponseModule(
        model=apply_finetune(model, method="full"),
        task=task,
        encoder=encoder,
        optimizer=OptimizerConfig(learning_rate=1e-2),
        max_new_tokens=16,
    )
    watch = Watch()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=15,
        accumulate_grad_batches=data.accumulation(),
        use_distributed_sampler=False,
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    # What it has to come to:
    assert len(watch.losses) == 15 * data.steps_per_epoch
    assert watch.losses[-1] < watch.losses[0] / 4
    assert [generation.id for generation in module.generations] == [
        example.id for example in examples
    ]
    assert module.scores().n == 16
