"""Memory that runs out where nothing is learned: smaller batches, the same results, said once."""

from __future__ import annotations

import logging
import re
import resource
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import lightning
import pytest
import shrunk
import torch
from faults import record_fault
from same_answers import assert_same_answer

from recap.data.batches import (
    Batching,
    halves,
)
from recap.data.encode import ChatEncoder, EncodedExample, encode_examples
from recap.data.loaders import DataModule
from recap.errors import ConfigError
from recap.models.batch_size import AutomaticBatchSize
from recap.models.engine.label_scoring import LabelScorer, ModelAnswer
from recap.models.module import ResponseModule
from recap.records import Example
from recap.tasks.library import builtin_task

TASK = builtin_task("binary", style="brief", rationale=False)
MEBIBYTE = 1 << 20


def encoded(n: int, encoder: ChatEncoder, words: int = 1) -> tuple[EncodedExample, ...]:
    examples = [
        Example(id=f"e{i}", history=(), response="no " * (words + i % 5), label=TASK.labels[i % 2])
        for i in range(n)
    ]
    return encode_examples(examples, TASK, encoder).examples


def limited(module: Any, most: int) -> list[int]:
    """Have a model run out of memory for more rows than so many; return the sizes it was given."""
    sizes: list[int] = []

    def check(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        ids = named["input_ids"] if "input_ids" in named else arguments[0]
        sizes.append(ids.numel())
        if ids.numel() > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    module.register_forward_pre_hook(check, with_kwargs=True)
    return sizes


def run(batching: Batching, most: int | None) -> tuple[ResponseModule, dict[str, float], list[int]]:
    tokenizer = shrunk.qwen2_tokenizer()
    encoder = ChatEncoder(tokenizer)
    examples = encoded(12, encoder)
    model = shrunk.model_of("qwen2", len(tokenizer))
    sizes = [] if most is None else limited(model.get_decoder(), most)
    module = ResponseModule(model=model, task=TASK, encoder=encoder, max_new_tokens=4)
    data = DataModule(
        select=examples,
        test=examples,
        pad_id=encoder.pad_id,
        per_device_batch_size=12,
        decoding_batch_size=12,
        batching=batching,
    )
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    (validated,) = trainer.validate(module, data, verbose=False)
    (tested,) = trainer.test(module, data, verbose=False)
    return module, dict(validated) | dict(tested), sizes


@pytest.mark.parametrize("batching", ["padded", "trunk"])
def test_selection_loss_answers_and_scores_are_those_of_whole_batches(
    batching: Batching, caplog: pytest.LogCaptureFixture
) -> None:
    whole, expected, sizes = run(batching, 10**9)
    room = min(size for size in sizes if size > 12) // 2
    module, found, sizes = run(batching, room)
    assert max(sizes) > room, "it did run out"
    for part, among in zip(module.generations, whole.generations, strict=True):
        assert_same_answer(part.answer, among.answer)
    assert module.scores().confusion == whole.scores().confusion
    for name, value in expected.items():
        # Sums over batches of other sizes: their terms and their order differ in the last digits.
        assert found[name] == pytest.approx(value, rel=1e-5), name
    said = [r.getMessage() for r in caplog.records if r.name.startswith("recap.")]
    assert len([line for line in said if "12 examples" in line]) == 1
    assert len([line for line in said if "12 prompts" in line]) == 1
    record_fault("out of memory", tried=1, survived=1, lost=0, note=batching)


def test_halves_hold_every_example_once_and_in_order() -> None:
    encoder = ChatEncoder(shrunk.qwen2_tokenizer())
    for batching in ("padded", "trunk", "packed"):
        data = DataModule(
            select=encoded(5, encoder),
            pad_id=encoder.pad_id,
            per_device_batch_size=5,
            batching=batching,
        )
        (batch,) = data.val_dataloader()
        first, second = halves(batch)
        assert first.examples + second.examples == batch.examples
        assert first.plan.indices + second.plan.indices == batch.plan.indices
        assert (len(first.examples), len(second.examples)) == (2, 3)
        answers = [int(part.answer_mask.sum()) for part in (first, second)]
        assert sum(answers) == int(batch.answer_mask.sum())
        for part in (first, second):
            held = part.input_ids[part.answer_mask].tolist()
            assert held == [token for example in part.examples for token in example.answer]


def test_a_single_example_or_a_batch_that_devices_share_is_refused_with_the_mend() -> None:
    encoder = ChatEncoder(shrunk.qwen2_tokenizer())
    data = DataModule(select=encoded(4, encoder), pad_id=encoder.pad_id)
    (batch,) = data.val_dataloader()

    def never(_: Any) -> None:
        raise MemoryError

    with pytest.raises(ConfigError, match=r"a single example; set prompt\.max_tokens"):
        list(AutomaticBatchSize(option="x").each(never, batch))
    with pytest.raises(ConfigError, match=r"4 examples at once; lower decoding\.batch_size"):
        list(AutomaticBatchSize(option="decoding.batch_size").each(never, batch, whole=True))

    def broken(_: Any) -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        list(AutomaticBatchSize(option="x").each(broken, batch))


def answers_within_a_limit(
    room: int,
) -> tuple[list[ModelAnswer], list[ModelAnswer], list[str]]:
    """Answer prompts, then again with so many bytes of address space left; also what was said."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("recap").addHandler(handler)
    tokenizer = shrunk.qwen2_tokenizer()
    encoder = ChatEncoder(tokenizer)
    prompts = [e.prompt for e in encoded(128, encoder, words=300)]
    model = shrunk.model_of("qwen2", len(tokenizer)).eval()
    options: dict[str, Any] = {"max_new_tokens": 2}
    expected = LabelScorer(model, TASK, encoder, batch_size=4, **options).answer(prompts)
    (size,) = re.findall(r"VmSize:\s*(\d+) kB", Path("/proc/self/status").read_text())
    limit = 1024 * int(size) + room
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    found = LabelScorer(model, TASK, encoder, batch_size=128, **options).answer(prompts)
    return found, expected, lines


@pytest.mark.slow
def test_with_a_real_limit_of_memory_the_answers_are_the_same() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        limited = pool.submit(answers_within_a_limit, 16 * MEBIBYTE)
        found, expected, lines = limited.result()
    for answer, among in zip(found, expected, strict=True):
        assert_same_answer(answer, among)
    assert len(lines) == 1
    assert lines[0].startswith("memory ran out for 128 prompts at once")
    record_fault("out of memory", tried=1, survived=1, lost=0, note="RLIMIT_AS")
