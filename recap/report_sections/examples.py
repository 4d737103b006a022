"""The examples that runs over one data set were scored on, read again once for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recap.errors import UserError
from recap.records import Example
from recap.report_sections.runs import ReportedRun, read_examples


@dataclass(frozen=True, kw_only=True)
class ReadAgain:
    """Examples by id, or why there are none."""

    examples: Mapping[str, Example]
    """Empty where the data could not be read."""
    fault: str | None = None
    """The message that says what is at fault and what mends it."""

    def notes(self, missing: str) -> list[str]:
        """Return the note that ``missing`` is left out, none where the data were read."""
        return [] if self.fault is None else [f"Left out, since {self.fault}: {missing}."]


def read_examples_again(runs: Sequence[ReportedRun]) -> ReadAgain:
    """Return the examples of the first run whose data can be read.

    Runs of one report have one data hash, so that the examples of one are those of all.
    """
    fault = "no run was given"
    for run in runs:
        try:
            return ReadAgain(examples=read_examples(run))
        except UserError as error:
            # A list of faulty rows may follow.
            fault = str(error).split("\n", 1)[0]
    return ReadAgain(examples={}, fault=fault)
