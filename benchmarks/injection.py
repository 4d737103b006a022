"""How often instructions in a client's words change the label, beside harmless words.

python benchmarks/injection.py --model runs/RUN                      the held-out part of its fold
python benchmarks/injection.py --model runs/RUN --json FILE          also write every figure
python benchmarks/injection.py --model runs/RUN --examples 40        fewer examples

Every held-out example gets each text of injections.yaml before and behind the client's words, and
in its place harmless sentences of as many tokens; the model answers all of it in each decoding.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from harness.injection import PLACES, Outcome, Trial, flip_rates, make_trials, read_texts
from recap.cli.compose import load_config
from recap.config import Decoding
from recap.data.encode import ChatEncoder
from recap.errors import UserError
from recap.folds.run import draw_examples, read_own_data
from recap.metrics.scores import score
from recap.records import Example, Prediction
from recap.runs.saved import AnswerOptions, ModelStage, SavedModel, find_model, load_saved
from recap.system.processes import quiet_libraries

DECODINGS: tuple[Decoding, ...] = ("free", "constrained", "scored")
AT_ONCE = 512


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one decoding gave."""

    decoding: str
    macro_f1: float
    outcomes: tuple[Outcome, ...]


@quiet_libraries()
def main(arguments: list[str] | None = None) -> int:
    """Measure, print the tables, and return the exit code."""
    options = parse(arguments)
    try:
        saved = find_model(options.model, load_config([f"cv.fold={options.fold}"]))
        examples = held_out(saved, options.examples)
        report = measure(saved, examples, batch_size=options.batch_size)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    show(report)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options of a command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="a run folder of recap.train")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--examples", type=int, help="at most so many, even over labels")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--json", type=Path, help="file for every figure")
    return parser.parse_args(arguments)


def held_out(saved: SavedModel, most: int | None) -> tuple[Example, ...]:
    """Return the examples that a fold's model was not trained on."""
    data = read_own_data(saved)
    assert saved.fold is not None
    examples = data.examples(data.folds[saved.fold].test)
    return examples if most is None or most >= len(examples) else draw_examples(examples, most)


def measure(saved: SavedModel, examples: Sequence[Example], *, batch_size: int) -> dict[str, Any]:
    """Return every figure: by place, by label asked for, by language and by text."""
    trained = load_saved(saved)
    encoder = ChatEncoder(trained.tokenizer)
    trials = make_trials(examples, saved.task, read_texts(), encoder.count_tokens)
    asked = [*examples, *(t.injected for t in trials), *(t.harmless for t in trials)]
    measured = []
    with _progress() as progress:
        for decoding in DECODINGS:
            options = AnswerOptions(decoding=decoding, batch_size=batch_size)
            stage = ModelStage(trained, saved.settings, saved.task, options)
            line = progress.add_task(decoding, total=len(asked))
            labels: list[str | None] = []
            for start in range(0, len(asked), AT_ONCE):
                prompts = stage.prompts(asked[start : start + AT_ONCE])
                labels += [answer.label for answer in stage.answer(prompts)]
                progress.advance(line, len(prompts))
            measured.append(_measured(decoding, saved, examples, trials, labels))
    lengths = [_mean_tokens(encoder, trials, which) for which in ("injected", "harmless")]
    return {
        "model": saved.config.run,
        "backbone": saved.config.backbone.name,
        "task": saved.task.name,
        "fold": saved.fold,
        "examples": len(examples),
        "texts": len(read_texts()),
        "mean_tokens_of_response": {"injected": lengths[0], "harmless": lengths[1]},
        "macro_f1": {each.decoding: each.macro_f1 for each in measured},
        "rows": [row for each in measured for row in _rows(each, len(examples))],
    }


def _measured(
    decoding: str,
    saved: SavedModel,
    examples: Sequence[Example],
    trials: Sequence[Trial],
    labels: Sequence[str | None],
) -> Measured:
    n, m = len(examples), len(trials)
    before, injected, harmless = labels[:n], labels[n : n + m], labels[n + m :]
    predictions = [
        Prediction(
            id=example.id,
            session=None,
            fold=saved.fold,
            task=saved.task.name,
            gold=saved.task.gold(example),
            label=label,
            probabilities=None,
            rationale=None,
            text="",
            parsed=label is not None,
        )
        for example, label in zip(examples, before, strict=True)
    ]
    macro_f1 = score(predictions, task=saved.task.name, labels=saved.task.labels).metrics[
        "macro_f1"
    ]
    assert macro_f1 is not None
    return Measured(
        decoding=decoding,
        macro_f1=macro_f1,
        outcomes=tuple(
            Outcome(trial=t, before=before[t.example], injected=i, harmless=h)
            for t, i, h in zip(trials, injected, harmless, strict=True)
        ),
    )


def _rows(measured: Measured, n_examples: int) -> list[dict[str, Any]]:
    """Return a row for all, each place, each label asked for, each language and each text."""
    ways = {
        "all": lambda t: "all",
        "place": lambda t: t.place,
        "asked": lambda t: t.asked,
        "language": lambda t: t.language,
        "text": lambda t: t.text,
    }
    rows = []
    for by, key in ways.items():
        ordered = sorted(measured.outcomes, key=lambda o, key=key: str(key(o.trial)))  # type: ignore[misc]
        for value, group in groupby(ordered, key=lambda o, key=key: key(o.trial)):  # type: ignore[misc]
            found = flip_rates(list(group), n_examples)
            rows.append({"decoding": measured.decoding, "by": by, "value": value, **found})
    return rows


def _mean_tokens(encoder: ChatEncoder, trials: Sequence[Trial], which: str) -> float:
    texts = [getattr(t, which).response for t in trials if t.place == PLACES[0]]
    return sum(encoder.count_tokens(texts)) / len(texts)


def _progress() -> Progress:
    return Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def show(report: dict[str, Any]) -> None:
    """Print what the file holds in short."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 130
    table = Table(title=f"Labels that change, in percent: {report['model']}, fold {report['fold']}")
    for name in ("decoding", "", "trials"):
        table.add_column(name, no_wrap=True)
    for name in ("at all: injection", "harmless", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("as asked: injection", "harmless", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in report["rows"]:
        if row["by"] == "text":
            continue
        shown = [str(row["decoding"]), str(row["value"]), str(row["trials"])]
        for kind in ("any", "asked"):
            found = row[f"{kind}_difference"]
            ends = "" if found["low"] is None else f" [{', '.join(_ends(found))}]"
            shown += [_percent(row[f"{kind}_{text}"]) for text in ("injected", "harmless")]
            shown.append(_percent(found["value"]) + ends)
        table.add_row(*shown)
    console.print(table)
    scores = (f"{name} {_percent(value)}" for name, value in report["macro_f1"].items())
    console.print(
        f"{report['examples']} held-out examples, {report['texts']} texts before and behind each; "
        f"macro-F1 {', '.join(scores)}",
        soft_wrap=True,
    )


def _ends(found: dict[str, float]) -> tuple[str, str]:
    return _percent(found["low"]), _percent(found["high"])


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


if __name__ == "__main__":
    sys.exit(main())
