"""Dialogues as trunks and teeth, against each prompt by itself: tokens, time, and equal answers.

python benchmarks/dialogues.py annomi AnnoMI-simple.csv --dialogues 3
python benchmarks/dialogues.py cpsycound cpsycound_raw.jsonl --dialogues 100 --only tokens

Prompts hold the whole history. The model is that of `make pretrained`; systems take turns, one
dialogue each, on as many threads as `--threads` says, and the time is the processor's.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recap.cli.compose import load_config
from recap.data.encode import ChatEncoder, PromptEncoder
from recap.data.layout import common_length, lay_out
from recap.folds.run import build_corpus
from recap.models.backbone import load_backbone
from recap.models.engine.label_scoring import LabelScorer
from recap.tasks.library import build_task

Prompts = list[tuple[int, ...]]
FOLDER = Path(".pretrained/smollm2-135m-instruct")


def main() -> None:
    """Print what was counted and measured."""
    options = parse()
    torch.set_num_threads(options.threads)
    config = load_config(
        [f"data={options.data}", f"data.path={options.path}", "backbone=smollm2", *options.more]
    )
    task = build_task(config)
    model, tokenizer = load_backbone(name="smollm2", family=None, path=FOLDER)
    encoder = ChatEncoder(tokenizer)
    encode = PromptEncoder(task, encoder, max_tokens=None).encode
    dialogues: dict[str, Prompts] = {}
    for example in build_corpus(config, task).examples:
        prompt = encode(example).ids
        if len(prompt) <= options.longest:
            dialogues.setdefault(example.session or example.id, []).append(prompt)
    count(list(itertools.chain(*dialogues.values())))
    if options.only == "tokens":
        return
    least, most = options.utterances
    chosen = [p for p in dialogues.values() if least <= len(p) <= most][: options.dialogues]
    scorer = LabelScorer(model.eval(), task, encoder, decoding="scored")
    compare(
        {
            "trunk": lambda prompts: scorer.branch().answer(prompts),
            "alone": lambda prompts: [scorer.branch().answer([one])[0] for one in prompts],
        },
        chosen,
    )


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="a choice of conf/data")
    parser.add_argument("path", help="its file")
    parser.add_argument("more", nargs="*", default=["prompt.history=full"])
    parser.add_argument("--dialogues", type=int, default=3)
    parser.add_argument("--utterances", type=int, nargs=2, default=(20, 60))
    parser.add_argument("--longest", type=int, default=8000, help="tokens of a prompt")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=["tokens"])
    return parser.parse_args()


def count(prompts: Prompts) -> None:
    """Print how many tokens are computed, each prompt by itself, as we do, and at least."""
    arrays = [np.asarray(prompt) for prompt in [(), *sorted(prompts)]]
    beginnings = sum(
        len(one) - common_length(before, one) for before, one in itertools.pairwise(arrays)
    )
    print(f"{len(prompts):,} prompts, {sum(map(len, prompts)):,} tokens; {beginnings:,} at least")
    for size in (16, 32, 128):
        found = list(rows(prompts, size))
        total = sum(tokens for tokens, _ in found)
        print(
            f"{size:>4} a batch: {total:,} tokens ({total / beginnings:.3f} of the bound), at most "
            f"{max(tokens for tokens, _ in found):,} in a row of {max(n for _, n in found)} spans"
        )


def rows(prompts: Prompts, size: int) -> Any:
    """Yield the tokens and spans of each batch, which goes on from the last prompt before it."""
    ordered = sorted(prompts)
    known: tuple[int, ...] = ()
    for start in range(0, len(ordered), size):
        batch = ordered[start : start + size]
        layout = lay_out(batch, known=known)
        standing = [layout.spans[number].length for number in layout.standing]
        yield sum(standing), len(standing)
        known = batch[-1]


def compare(ways: dict[str, Callable[[Prompts], Any]], dialogues: list[Prompts]) -> None:
    """Print the processor's time for each dialogue, and how far apart the answers are."""
    totals = dict.fromkeys(ways, 0.0)
    for number, prompts in enumerate(dialogues):
        found = {}
        for way in sorted(ways, reverse=number % 2 == 1):
            since = time.process_time()
            found[way] = ways[way](prompts)
            totals[way] += time.process_time() - since
        pairs = list(zip(found["trunk"], found["alone"], strict=True))
        apart = max(
            abs(one.log_probabilities[label] - other.log_probabilities[label])
            for one, other in pairs
            for label in one.log_probabilities
        )
        same = sum(one.label == other.label for one, other in pairs)
        print(f"dialogue {number}: {same} of {len(pairs)} labels equal, {apart:.1e} nats apart")
    n = sum(map(len, dialogues))
    for way, seconds in totals.items():
        print(f"{way}: {seconds:.1f} s, {n / seconds:.2f} utterances a second")
    print(f"{totals['alone'] / totals['trunk']:.1f} times as fast")


if __name__ == "__main__":
    main()
