"""Answers to prompts that begin alike, by recap and by plain Hugging Face ``generate``."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from harness.measure import Meter
from harness.workload import ANSWER, TokenExample, Workload, examples, workload_of
from recap.data.encode import ChatEncoder
from recap.models.backbone import load_backbone
from recap.models.engine.generate import generate
from recap.models.engine.label_scoring import LabelScorer
from recap.tasks.library import get_task

LABEL_TOKENS = 6
"""Tokens of a label's line with its pattern, as plain generation has to emit them."""

RESISTANT_SHARE = 0.17
"""Of client utterances, as published for text counselling: what the second stage gets."""

WINDOW = 256
"""Prompts answered at a time while a large input streams by."""


class Work:
    """Model, tokenizer and prompts of one measurement."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.model, tokenizer = load_backbone(
            name="benchmark",
            family="qwen2",
            path=spec["model"],
            dtype=spec.get("dtype", "float32"),
        )
        self.model.eval()
        self.encoder = ChatEncoder(tokenizer)
        self.workload = workload_of(spec["workload"])
        self.batch_size = int(spec["micro_batch"])

    def prompts(self, workload: Workload | None = None) -> list[tuple[int, ...]]:
        """Return the prompts of a workload."""
        return [example.prompt for example in examples(workload or self.workload)]

    def answerer(self, task: str = "fine_grained", **more: Any) -> LabelScorer:
        """Return an answerer of prompts."""
        return LabelScorer(
            self.model, get_task(task), self.encoder, batch_size=self.batch_size, **more
        )


def answers(work: Work, meter: Meter) -> None:
    """Answer every prompt once, the constant part's encoding included."""
    mode, prompts = work.spec["mode"], work.prompts()
    run = _runner(work, mode)
    meter.load_ends()
    run(prompts[:1])  # neither the first use of a library nor of a kernel is timed
    run = _runner(work, mode)
    meter.start()
    found = run(prompts)
    meter.step()
    meter.note(answers=[_digest(tokens) for tokens in found])


def _runner(work: Work, mode: str) -> Callable[[Sequence[tuple[int, ...]]], list[Sequence[int]]]:
    if mode == "label":
        answerer = work.answerer(decoding="scored", rationale=False)
    elif mode == "rationale":
        answerer = work.answerer(max_new_tokens=ANSWER)
    else:
        n_tokens = LABEL_TOKENS if mode == "hf_generate_label" else ANSWER
        return lambda chosen: generate(
            work.model,
            chosen,
            max_new_tokens=n_tokens,
            end_of_turn_id=work.encoder.end_of_turn_id,
            pad_id=work.encoder.pad_id,
            batch_size=work.batch_size,
        )
    return lambda chosen: [answer.tokens for answer in answerer.answer(chosen)]


def cascade(work: Work, meter: Meter) -> None:
    """Judge every utterance by one stage, or by two of which the second gets a share."""
    first = work.prompts()
    second = work.prompts(replace(work.workload, seed=1))
    resistant = second[: round(RESISTANT_SHARE * len(second))]
    options: dict[str, Any] = {"decoding": "scored", "rationale": False}

    def run(n: int) -> None:
        work.answerer("binary", **options).answer(first[:n])
        if work.spec["mode"] == "cascade":
            work.answerer(**options).answer(resistant[:n])

    meter.load_ends()
    run(1)
    meter.start()
    run(len(first))
    meter.step()


def latency(work: Work, meter: Meter) -> None:
    """Judge dialogues turn by turn as they come in, and note the seconds of each turn."""
    drawn = examples(work.workload)
    seconds: list[float] = []
    turn, tail = 40, 40
    meter.load_ends()
    answerer = work.answerer(decoding="scored", rationale=False)
    answerer.answer([drawn[0].prompt[: work.workload.prefix + 1]])
    meter.start()
    for example in drawn:
        conversation = answerer.branch()
        for prompt in _growing(example, work.workload.prefix, turn, tail):
            since = time.perf_counter()
            if work.spec["mode"] == "conversation":
                conversation.answer([prompt])
            else:
                answerer.branch().answer([prompt])
            seconds.append(time.perf_counter() - since)
    meter.step()
    meter.note(turn_seconds=seconds)


def _growing(example: TokenExample, prefix: int, turn: int, tail: int) -> Iterable[tuple[int, ...]]:
    """Yield a dialogue's prompts, each longer by an utterance of both, the format always last."""
    start, own = example.prompt[:prefix], example.prompt[prefix:]
    form = own[-tail:]
    for end in range(turn, max(turn, len(own) - tail) + 1, 2 * turn):
        yield (*start, *own[:end], *form)


def stream(work: Work, meter: Meter) -> None:
    """Judge many utterances, a window of them at a time, as an annotation of a large file does."""
    n = work.spec["n_examples"]
    answerer = None
    meter.load_ends()
    meter.start()
    for start in range(0, n, WINDOW):
        size = min(WINDOW, n - start)
        prompts = work.prompts(replace(work.workload, n_examples=size))
        if answerer is None:
            answerer = work.answerer(decoding="scored", rationale=False)
        answerer.answer(prompts)
    meter.step()


def _digest(tokens: Sequence[int]) -> str:
    return hashlib.sha256(json.dumps(list(tokens)).encode()).hexdigest()[:16]


PARTS = {"answers": answers, "cascade": cascade, "latency": latency, "stream": stream}


def run(spec: dict[str, Any]) -> None:
    """Measure the part that ``spec`` names and write a result."""
    meter = Meter()
    with torch.no_grad():
        PARTS[spec["part"]](Work(spec), meter)
    meter.write(spec["result"])


if __name__ == "__main__":
    run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
