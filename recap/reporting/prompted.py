"""What a prompted run says on the console: the data, the calls, a row a fold, mean ± SD, tokens."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from recap.fold import FoldResult
from recap.partition import Partition
from recap.prompted import Estimate, PromptedRun, PromptListener, total_usage
from recap.prompting.endpoint import endpoint, is_loopback
from recap.prompting.options import PromptedConfig
from recap.prompting.remote import prices_of
from recap.prompting.system import Workload
from recap.records import Scores, Summary
from recap.reporting.console import ConsoleListener, console_for, print_data
from recap.telling import TextSample


class PromptConsole(PromptListener):
    """Prints a prompted run as it goes; on a terminal with a bar of the answers.

    Args:
        console: Where to; standard output by default.
        bar: Whether a terminal gets the bar.
    """

    def __init__(self, console: Console | None = None, *, bar: bool = True) -> None:
        self._console = console or console_for()
        self._training = ConsoleListener(self._console)
        self._shows_bar = bar and self._console.is_terminal
        self._bar: Progress | None = None

    def prepared(self, run: PromptedRun) -> None:
        """Print what was read, who is asked, and what leaks between folds."""
        self._console.print(f"run      {run.folder.path}")
        _print_partition(self._console, run.prompted, run.partition)

    def estimated(self, config: PromptedConfig, partition: Partition, estimate: Estimate) -> None:
        """Print what a run would send and cost at most."""
        _print_partition(self._console, config, partition)
        work, say = estimate.work, self._console.print
        counted = "" if estimate.exact else "about "
        say(f"dry run  {work.calls} calls to make, {work.kept} answers kept from before")
        say(f"         {counted}{work.input_tokens} tokens of prompts", end="")
        say("" if estimate.exact else " (a quarter of ASCII characters, and all others)")
        say(
            f"         at most {estimate.output_tokens} tokens of answers "
            f"(decoding.max_new_tokens={config.training.decoding.max_new_tokens} each)"
        )
        if estimate.cost is not None:
            say(f"         {counted}{estimate.cost:.2f} at most, in the currency of the prices")
        elif config.remote:
            say("         cost unknown: set client.price_per_million_input and _output")
        if config.remote and not is_loopback(endpoint(config.client)):
            allowed = config.privacy.allow_external
            say(
                "         would leave this machine; "
                + ("allowed" if allowed else "needs privacy.allow_external=true")
            )
        say("         nothing was sent")

    def asking(self, name: str, work: Workload, n_shots: int) -> None:
        """Print the size of a fold, and start its bar."""
        kept = f", {work.kept} answers kept from before" if work.kept else ""
        self._console.print(f"{name}    {work.calls} prompts with {n_shots} examples each{kept}")
        if self._shows_bar:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.add_task(name, total=work.calls + work.kept)
            self._bar.start()

    def answered(self) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0])

    def asked(self, shortened: Mapping[str, int]) -> None:
        """Take the bar away, and print what prompts lost."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if shortened.get("dropped_turns"):
            self._console.print(
                f"         {shortened['truncated_examples']} prompts lost "
                f"{shortened['dropped_turns']} of their oldest turns (prompt.max_tokens)"
            )
        if shortened.get("still_too_long"):
            self._console.print(
                f"         {shortened['still_too_long']} prompts are over prompt.max_tokens "
                "with nothing left to lose"
            )

    def texts(self, sample: TextSample) -> None:
        """Print what the user asked to see."""
        self._training.texts(sample)

    def fold_ended(self, result: FoldResult) -> None:
        """Print the scores of a fold, just computed or found."""
        self._training.fold_ended(result)

    def ended(self, run: PromptedRun, summary: Summary, scores: Mapping[int, Scores]) -> None:
        """Print the tables of metrics and categories, and what the answers have used."""
        self._training.ended(run.folder, summary, scores)
        usage, prices = total_usage(run.folder), prices_of(run.prompted)
        cost = f", cost {prices.cost(usage):.4f}" if prices else ""
        self._console.print(
            f"{usage.answers} answers; tokens: {usage.input_tokens} of prompts, "
            f"{usage.output_tokens} of answers{cost}"
        )


def _print_partition(console: Console, config: PromptedConfig, partition: Partition) -> None:
    print_data(
        console,
        corpus=partition.corpus,
        task=partition.task,
        n_selected=len(partition.selected),
        leakage=partition.leakage,
    )
    where = config.training.backbone.name
    if config.remote:
        where = f"{config.client.model} at {endpoint(config.client)} ({config.client.name})"
    console.print(f"model    {where}, shots={config.shots}")
