"""The encoder baseline: loaded as real ones are, fed as they expect, trained to tell apart."""

from __future__ import annotations

import copy
from pathlib import Path

import lightning
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_encoders import save_encoder

from recap.config import OptimizerConfig, SchedulerConfig
from recap.data.batches import (
    Batch,
)
from recap.data.encode import EncodedExample
from recap.data.loaders import DataModule
from recap.errors import ConfigError, RecapError
from recap.models.encoder import (
    EncoderInput,
    EncoderModule,
    LoadedEncoder,
    load_encoder,
    model_inputs,
)
from recap.records import Example, Turn
from recap.tasks.library import get_task

TASK = get_task("binary")
ASKED = (Turn(speaker="counselor", text="how are you ?"),)
EXAMPLES = [
    Example(id=f"e{i}", history=ASKED, response=text, label=label)
    for i, (text, label) in enumerate(
        [
            ("yes i will try that", "Collaboration"),
            ("no that never helps", "Resistance"),
            ("yes good", "Collaboration"),
            ("it is all their fault", "Resistance"),
        ]
        * 4
    )
]


@pytest.fixture(scope="module", params=["bert", "roberta"])
def encoder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> LoadedEncoder:
    folder = save_encoder(tmp_path_factory.mktemp("weights") / request.param, request.param)
    return load_encoder(name="mine", labels=TASK.labels, path=folder, seed=3)


def encoded(loaded: LoadedEncoder) -> tuple[EncoderInput, tuple[EncodedExample, ...]]:
    inputs = EncoderInput(loaded.tokenizer, max_tokens=32, longest=loaded.longest)
    return inputs, inputs.encode(EXAMPLES, TASK).examples


def data_of(inputs: EncoderInput, examples: tuple[EncodedExample, ...], **options) -> DataModule:
    return DataModule(
        train=examples, select=examples, test=examples, pad_id=inputs.pad_id,
        **{"global_batch_size": 8, "per_device_batch_size": 4, "decoding_batch_size": 3, **options},
    )  # fmt: skip


def module_of(loaded: LoadedEncoder, inputs: EncoderInput, **options) -> EncoderModule:
    return EncoderModule(
        model=loaded.model,
        labels=TASK.labels,
        task_name="binary",
        close_id=inputs.close_id,
        optimizer=OptimizerConfig(learning_rate=1e-2),
        scheduler=SchedulerConfig(name="linear"),
        **{"total_steps": 60, **options},
    )


def quiet_trainer(folder: Path, **options) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder, **options,
    )  # fmt: skip


def test_saved_weights_come_back_under_a_new_head(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / "bert", "bert", body_only=False)  # a head of five labels
    loaded = load_encoder(name="mine", labels=TASK.labels, path=folder)
    saved = load_file(folder / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(loaded.model.state_dict()[name], saved[name])
    assert loaded.model.classifier.out_features == 2
    assert loaded.model.config.id2label == {0: "Resistance", 1: "Collaboration"}


def test_the_head_follows_the_seed_and_the_random_state_stays(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / "bert", "bert")
    torch.manual_seed(7)
    before = torch.get_rng_state()
    heads = [
        load_encoder(
            name="mine", labels=TASK.labels, path=folder, seed=seed
        ).model.classifier.weight
        for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_positions_are_counted_as_the_family_counts_them(encoder: LoadedEncoder) -> None:
    # BERT has 64 positions; RoBERTa's 66 begin behind the padding's id, 1. The tokenizer says 64.
    assert encoder.longest == 64
    ids = torch.full((1, encoder.longest), 7)
    assert encoder.model(input_ids=ids).logits.shape == (1, 2)


def test_a_folder_without_an_encoder_is_refused_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"encoder\.path="):
        load_encoder(name="bert", labels=TASK.labels, path=tmp_path)
    with pytest.raises(ConfigError, match=r"give encoder\.path=FOLDER"):
        load_encoder(name="mine", labels=TASK.labels)
    with pytest.raises(ConfigError, match=r"weights of encoder 'bert'.*encoder=tiny"):
        load_encoder(name="bert", labels=TASK.labels, hub_id="nobody/nothing")


def test_weights_that_lack_a_part_of_the_encoder_are_refused(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / "bert", "bert")
    weights = load_file(folder / "model.safetensors")
    lost = [name for name in weights if "layer.0.attention" in name]
    kept = {name: tensor for name, tensor in weights.items() if name not in lost}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=f"{len(lost)} weights of the encoder itself are missing"):
        load_encoder(name="mine", labels=TASK.labels, path=folder)


def test_mask_and_segments_are_what_a_pair_of_texts_would_have(tmp_path: Path) -> None:
    loaded = load_encoder(
        name="mine", labels=TASK.labels, path=save_encoder(tmp_path / "bert", "bert")
    )
    inputs, examples = encoded(loaded)
    batch: Batch = next(
        iter(data_of(inputs, examples[:2], decoding_batch_size=2).test_dataloader())
    )
    found = model_inputs(loaded.model, batch, inputs.close_id)
    # [CLS] counselor : how are you ? [SEP] = 8 tokens; the responses have 5 and 4, then [SEP].
    assert batch.plan.indices == (1, 0)  # the shorter one first
    assert found["token_type_ids"].tolist() == [[0] * 8 + [1] * 5 + [0], [0] * 8 + [1] * 6]
    assert found["attention_mask"].tolist() == [[1] * 13 + [0], [1] * 14]


def test_padding_changes_no_logit(encoder: LoadedEncoder) -> None:
    inputs, examples = encoded(encoder)
    module = copy.deepcopy(module_of(encoder, inputs)).eval()
    with torch.no_grad():
        for weight in module.parameters():
            if weight.ndim == 2:
                weight *= 20  # as they are made, attention hardly changes a thing
    together = next(iter(data_of(inputs, examples, decoding_batch_size=16).test_dataloader()))
    fed = model_inputs(module.model, together, inputs.close_id)
    seen = fed | {"attention_mask": torch.ones_like(fed["attention_mask"])}
    assert (module.model(**seen).logits - module(together)).abs().max() > 1e-2
    rows = dict(zip(together.plan.indices, module(together), strict=True))
    for batch in data_of(inputs, examples, decoding_batch_size=1).test_dataloader():
        [index] = batch.plan.indices
        torch.testing.assert_close(module(batch)[0], rows[index], rtol=1e-5, atol=1e-5)


def test_a_step_has_the_mean_over_its_examples_however_it_is_cut(
    encoder: LoadedEncoder, tmp_path: Path
) -> None:
    inputs, examples = encoded(encoder)
    losses = []
    for limits in (2, 8):
        data = data_of(inputs, examples[:8], per_device_batch_size=limits)
        module = module_of(encoder, inputs, total_steps=1)
        module.model.eval()  # no dropout
        trainer = quiet_trainer(
            tmp_path, max_steps=1, accumulate_grad_batches=data.accumulation(),
            limit_val_batches=0,
        )  # fmt: skip
        state = {name: value.clone() for name, value in module.state_dict().items()}
        trainer.fit(module, datamodule=data)
        losses.append(float(trainer.callback_metrics["train_loss"]))
        module.load_state_dict(state)
    batch = next(iter(data_of(inputs, examples[:8], decoding_batch_size=8).test_dataloader()))
    gold = torch.tensor([example.gold for example in batch.examples])
    expected = torch.nn.functional.cross_entropy(module(batch), gold)
    assert losses == pytest.approx([expected.item()] * 2, rel=1e-5)


def test_it_learns_to_tell_yes_from_no_and_says_how_sure_it_is(
    encoder: LoadedEncoder, tmp_path: Path
) -> None:
    inputs, examples = encoded(encoder)
    data, module = data_of(inputs, examples), module_of(encoder, inputs)
    with pytest.raises(RecapError, match=r"before trainer\.test"):
        module.scores()
    trainer = quiet_trainer(tmp_path, max_epochs=30, accumulate_grad_batches=data.accumulation())
    trainer.fit(module, datamodule=data)
    assert float(trainer.callback_metrics["val_loss"]) < 0.3
    trainer.test(module, datamodule=data, verbose=False)
    assert [found.id for found in module.label_probabilities] == [e.id for e in examples]
    assert all(sum(j.probabilities) == pytest.approx(1) for j in module.label_probabilities)
    assert module.scores().metrics["accuracy"] == 1.0
