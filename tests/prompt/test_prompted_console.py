"""What a prompted run shows on a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from recap.prompt.run import PromptConsole
from recap.prompt.systems import PromptWorkload


def shown(*, terminal: bool, bar: bool = True) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, highlight=False)
    listener = PromptConsole(console, bar=bar)
    listener.asking("fold0", PromptWorkload(calls=3, kept=1, input_tokens=9), 13)
    for _ in range(4):
        listener.answered()
    listener.asked({"dropped_turns": 5, "truncated_examples": 2, "still_too_long": 1})
    listener.answered()  # late, and of no fold
    return out.getvalue()


def test_a_terminal_gets_a_bar_of_all_answers() -> None:
    assert "4/4" in shown(terminal=True)
    assert "4/4" not in shown(terminal=True, bar=False)
    assert "4/4" not in shown(terminal=False)


def test_calls_kept_answers_and_what_prompts_lost_are_said() -> None:
    said = shown(terminal=False)
    assert "fold0    3 prompts with 13 examples each, 1 answers kept from before" in said
    assert "2 prompts lost 5 of their oldest turns" in said
    assert "1 prompts are over prompt.max_tokens" in said
