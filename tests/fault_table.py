"""Writes docs/faults.md from what the fault tests have tried: ``make faults`` ends with it."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

from recap import __version__

PAGE = """# Faults tried

Written by `make faults`, which runs the tests that inject faults: {when}, recap {version},
Python {python}, {system}. Each row adds up what the tests of that name have tried. *Survived*:
everything was afterwards as it should be. *Lost*: results lost, texts leaked, inputs that crashed a
reader. How the tests do it: [resuming](resuming.md), [bad input](bad_input.md),
[privacy](privacy.md), [security](security.md), where the answers stand too that instructions in a
client's words change.

| fault or input | tried | survived | lost | note |
|---|---:|---:|---:|---|
{rows}
"""


def fault_rows(lines: list[str]) -> list[tuple[str, int, int, int, str]]:
    """Return the sums by row, in the order of the names: row, tried, survived, lost, notes."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    notes: dict[str, dict[str, None]] = defaultdict(dict)
    for line in filter(str.strip, lines):
        found = json.loads(line)
        for place, key in enumerate(("tried", "survived", "lost")):
            sums[found["row"]][place] += found[key]
        if found["note"]:
            notes[found["row"]][found["note"]] = None
    return [
        (row, tried, survived, lost, "; ".join(notes[row]))
        for row, (tried, survived, lost) in sorted(sums.items())
    ]


def page(rows: list[tuple[str, int, int, int, str]]) -> str:
    """Return the page."""
    return PAGE.format(
        when=datetime.now(UTC).date().isoformat(),
        version=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        rows="\n".join(
            f"| {row} | {tried:,} | {survived:,} | {lost:,} | {note} |"
            for row, tried, survived, lost, note in rows
        ),
    )


def main() -> int:
    """Write the page; 1 when nothing was tried or something was lost without a note."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("collected", type=Path, help="what the tests have written")
    parser.add_argument("page", type=Path, help="the page to write")
    arguments = parser.parse_args()
    rows = fault_rows(arguments.collected.read_text(encoding="utf-8").splitlines())
    if not rows:
        print(f"{arguments.collected}: nothing was tried", file=sys.stderr)
        return 1
    arguments.page.write_text(page(rows), encoding="utf-8")
    lost = [row for row, _, _, n_lost, note in rows if n_lost and not note]
    print(f"{arguments.page}: {len(rows)} rows; lost without a reason: {', '.join(lost) or 'none'}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
