"""What a prompted run shows on a terminal."""

from __future__ import annotations

import io

from recap.folds.console import RunConsole
from recap.output.format import console_for, lost_turns


def shown(*, terminal: bool, bar: bool = True) -> str:
    out = io.StringIO()
    console = console_for(file=out, force_terminal=terminal, width=100)
    listener = RunConsole(console, bar=bar)
    listener.prompting("fold0", calls=3, kept=1, n_shots=13)
    for _ in range(4):
        listener.answered()
    counts = {"dropped_turns": 5, "truncated_examples": 2, "still_too_long": 1}
    listener.prompted(lost_turns(counts, "prompt.max_tokens=300"))
    listener.answered()  # late, and of no fold
    return out.getvalue()


def test_a_terminal_gets_a_bar_of_all_answers() -> None:
    assert "4/4" in shown(terminal=True)
    assert "4/4" not in shown(terminal=True, bar=False)
    assert "4/4" not in shown(terminal=False)


def test_calls_kept_answers_and_what_prompts_lost_are_said() -> None:
    said = shown(terminal=False)
    assert "fold0    3 prompts with 13 examples each, 1 answers kept from before" in said
    assert "2 prompts lost 5 of their oldest turns (prompt.max_tokens=300)" in said
    assert "1 prompts are over that limit with nothing left to lose" in said
