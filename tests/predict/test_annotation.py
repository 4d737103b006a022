from __future__ import annotations

import io
from pathlib import Path

from recap.output.format import console_for
from recap.predict.job import AnnotationConsole, AnnotationReport
from recap.predict.output import Checked

CHECKED = Checked(
    utterances=10, rows_read=5, rows_rejected=1, counts={"merged_client_turns": 3}, columns=()
)
REPORT = AnnotationReport(
    output=Path("o.jsonl"),
    utterances=10,
    found=4,
    outcomes={
        "skipped empty": 2,
        "invalid other": 1,
        "label Resistance": 1,
        "label Collaboration": 2,
    },
    seconds=12,
)


def printed(*, terminal: bool) -> str:
    text = io.StringIO()
    with AnnotationConsole(console_for(file=text, force_terminal=terminal, width=120)) as listener:
        listener.checked(CHECKED)
        listener.began(4, 10)
        listener.advanced(3)
        listener.advanced(3)
        listener.ended(REPORT)
    return text.getvalue()


def test_it_accounts_for_every_row_and_every_utterance() -> None:
    said = printed(terminal=False)
    assert "5 rows, 4 accepted, 1 rejected; 10 utterances" in said
    assert "3 client turns were merged" in said
    assert "4 of 10 utterances are there already" in said
    assert "10 utterances; 2 skipped (empty); 1 invalid; 4 found; 12 s" in said
    assert "Collaboration 2, Resistance 1" in said


def test_a_terminal_has_a_bar_with_speed_and_time_left() -> None:
    said = printed(terminal=True)
    assert "10/10" in said
    assert "a second, about" in said
