"""The plan of a run whose model is prompted as it is: calls, tokens, what they cost.

Of a backbone on this machine the plan of its decoding stands beside it: memory, operations, hours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from recap.cli.prompted import PromptedConfig, refuse_impossible
from recap.config import check_combinations
from recap.data.encode import ChatEncoder
from recap.folds.prompts import estimated_tokens, read_prompted
from recap.folds.run import check_fold
from recap.models.backbone import tiny_tokenizer
from recap.models.hub import read_tokenizer
from recap.output.format import DASH, number
from recap.output.report import Report
from recap.output.tables import ReportTable
from recap.plan.options import PlanOptions
from recap.plan.plan import make_plan, plan_report
from recap.plan.workload import RunWorkload, encode_prompts
from recap.records import Message, Usage


class ServerTokens:
    """Stands for the encoder of a server, whose tokens nobody knows here: ids are as many as those.

    The first id is a hash of the text, so that equal prompts are equal.
    """

    def prompt_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Return about as many ids as a prompt has tokens."""
        said = tuple((message.role, message.text) for message in messages)
        return (hash(said), *(0,) * (estimated_tokens(messages) - 1))

    def answer_ids(self, text: str) -> tuple[int, ...]:
        """Return about as many ids as an answer has tokens."""
        return self.prompt_ids([Message(role="assistant", text=text)])

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return about how many tokens each text has."""
        return [len(self.answer_ids(text)) for text in texts]


@dataclass(frozen=True, kw_only=True)
class PromptedWork:
    """What a prompted run asks, as if nothing were answered yet; equal prompts of a fold once."""

    calls: int
    shots: int
    """Solved examples in each prompt."""
    counted_by: str
    """How tokens were counted, in words."""
    prompt_tokens: int
    longest_prompt: int
    answer_tokens: float
    """If answers are as long as those of the data."""
    most_answer_tokens: int
    """If every answer is as long as ``decoding.max_new_tokens`` allows."""
    cost: float | None
    """In the currency of the prices; ``None`` without both."""
    most_cost: float | None


def prompted_work(config: PromptedConfig, workload: RunWorkload, shots: int) -> PromptedWork:
    """Return what the prompts of a run add up to."""
    folds = [{example.prompt for example in part.test} for part in workload.trainings]
    lengths = [len(prompt) for prompts in folds for prompt in prompts]
    calls, tokens = len(lengths), sum(lengths)
    answers = calls * fmean(len(example.answer) for example in workload.examples)
    most = calls * config.training.decoding.max_new_tokens

    def cost(output: float) -> float | None:
        used = Usage(answers=calls, input_tokens=tokens, output_tokens=round(output))
        return None if config.prices is None else config.prices.cost(used)

    return PromptedWork(
        calls=calls,
        shots=shots,
        counted_by=workload.counted_by,
        prompt_tokens=tokens,
        longest_prompt=max(lengths),
        answer_tokens=answers,
        most_answer_tokens=most,
        cost=cost(answers),
        most_cost=cost(most),
    )


def prompted_report(config: PromptedConfig, options: PlanOptions) -> Report:
    """Return the plan of a prompted run; of a server it knows neither memory nor time.

    Raises:
        ConfigError: For choices that cannot go together.
        DataError: For data at fault.
    """
    check_fold(config.training.cv)
    refuse_impossible(config)
    check_combinations(config.training)
    run = read_prompted(config.training, shots=config.shots, categories=config.shot_categories)
    if config.remote:
        workload = encode_prompts(run, *_server_encoder(options))
        whole = Report(action="plan", title=f"Plan of {config.run}", figures={}, sheets=())
    else:
        plan = make_plan(config.training, options, run=run)
        workload, whole = plan.workload, plan_report(plan)
    work = prompted_work(config, workload, max(map(len, run.shots.values()), default=0))
    model = config.client.model if config.remote else config.training.backbone.name
    asked = {"client": config.client.name, "model": model, **asdict(work)}
    # Of a model that is as it is, nothing is left on the disk.
    sheets = [sheet for sheet in whole.sheets if not sheet.title.startswith("Disk")]
    return replace(
        whole,
        figures={"run": config.run, **whole.figures, "prompts": asked},
        sheets=(_sheet(config, model, work), *sheets),
        notes=(*whole.notes, "Nothing was sent; answers that are kept already are counted too."),
    )


def _sheet(config: PromptedConfig, model: str | None, work: PromptedWork) -> ReportTable:
    limit = config.training.decoding.max_new_tokens
    unknown = DASH if not config.remote else "unknown: set client.price_per_million_input, _output"
    rows = [
        ("model", f"{model}, client={config.client.name}"),
        ("calls", f"{work.calls:,}"),
        ("solved examples in a prompt", f"{work.shots}"),
        ("tokens counted by", work.counted_by),
        ("tokens of prompts", f"{work.prompt_tokens:,}"),
        ("tokens of the longest prompt", f"{work.longest_prompt:,}"),
        ("tokens of answers like those of the data", f"{work.answer_tokens:,.0f}"),
        (f"tokens of answers at most ({limit} each)", f"{work.most_answer_tokens:,}"),
        ("cost", unknown if work.cost is None else number(work.cost)),
        ("cost at most", unknown if work.most_cost is None else number(work.most_cost)),
    ]
    return ReportTable(title="What is asked", header=("what", "figure"), rows=tuple(rows))


def _server_encoder(options: PlanOptions) -> tuple[Any, str]:
    name = options.tokenizer
    if name is None:
        return ServerTokens(), "an estimate: a quarter of ASCII characters, and all others"
    tokenizer = tiny_tokenizer() if name == "tiny" else read_tokenizer(Path(name))
    return ChatEncoder(tokenizer), f"the tokenizer of {name}"
