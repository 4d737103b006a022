"""The sheets of a counsellor study: what is handed out as CSV or Excel, and read back filled in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from recap.analysis.study_design import Response
from recap.analysis.study_ratings import SCALE, Key, Rating
from recap.data.faults import FaultLog
from recap.data.readers.columns import require_column
from recap.data.readers.sheets import read_sheet
from recap.data.safe_cells import bare_cell
from recap.errors import DataError, quote_id

RESPONSE_COLUMNS = ("order", "scenario", "context", "client", "response")
RATING_COLUMNS = ("rating_id", "context", "client", "response", "rating", "remark")
KEY_COLUMNS = ("rating_id", "participant", "group", "phase", "scenario")
GROUP_COLUMNS = ("participant", "group")
SCENARIO_COLUMNS = ("scenario", "id", "session", "label")

T = TypeVar("T")

_ENDINGS = (".csv", ".xlsx")


def find_sheet(folder: Path, stem: str) -> Path:
    """Return ``folder/stem.csv`` or ``.xlsx``, whichever is there; the later saved of two.

    Raises:
        DataError: When neither is there.
    """
    there = [path for ending in _ENDINGS if (path := folder / f"{stem}{ending}").is_file()]
    if not there:
        raise DataError(
            f"{folder}: holds no {stem}.csv and no {stem}.xlsx; put the sheet back there, "
            "or begin with study_materials.step=draw in another folder"
        )
    return max(there, key=lambda path: path.stat().st_mtime)


def own_sheet(read: Callable[[Path, FaultLog], T], path: Path) -> T:
    """Return what ``read`` finds in a sheet that was not handed out, and so has no faults.

    Raises:
        DataError: Listing the rows that somebody has damaged since.
    """
    faults = FaultLog(str(path))
    found = read(path, faults)
    if faults.faults:
        raise faults.error()
    return found


def read_groups(path: Path, faults: FaultLog) -> dict[str, str]:
    """Return the group of every participant."""
    rows = _by(path, GROUP_COLUMNS, faults)
    return {participant: row["group"] for participant, row in rows.items()}


def read_scenarios(path: Path, faults: FaultLog) -> dict[str, tuple[str, str]]:
    """Return context and client utterance of every scenario, by its code."""
    rows = _by(path, ("scenario", "context", "client"), faults)
    return {scenario: (row["context"], row["client"]) for scenario, row in rows.items()}


def read_key(path: Path, faults: FaultLog) -> dict[str, Key]:
    """Return whose response each rating id stands for."""
    return {
        rating_id: Key(
            participant=row["participant"],
            group=row["group"],
            phase=row["phase"],
            scenario=row["scenario"],
        )
        for rating_id, row in _by(path, KEY_COLUMNS, faults).items()
    }


def read_responses(
    path: Path, *, participant: str, phase: str, scenarios: Sequence[str], faults: FaultLog
) -> list[Response]:
    """Return the responses of a filled sheet; empty ones and missing scenarios are faults."""
    found: dict[str, Response] = {}
    for line, row in _rows(path, ("scenario", "response"), faults):
        scenario = row["scenario"]
        if scenario not in scenarios:
            reason = f"{quote_id(scenario)} is no scenario of this study"
            faults.reject(line, "scenario", reason, "leave the column as it was")
        elif scenario in found:
            faults.reject(line, "scenario", f"{scenario} is there twice", "remove one row")
        elif not row["response"]:
            mend = "have it written, or leave it out with data.on_error=skip"
            faults.reject(line, "response", f"to {scenario} is empty", mend)
        else:
            found[scenario] = Response(
                participant=participant, phase=phase, scenario=scenario, text=row["response"]
            )
    return list(found.values())


def read_ratings(
    path: Path, *, rater: str, keys: Mapping[str, Key], faults: FaultLog
) -> list[Rating]:
    """Return the ratings of a filled sheet; anything but -1, 0 and 1 is a fault."""
    found: dict[str, Rating] = {}
    for line, row in _rows(path, ("rating_id", "rating"), faults):
        rating_id = row["rating_id"]
        value = row["rating"].removeprefix("+").removesuffix(".0").replace("−", "-")
        if rating_id not in keys:
            reason = f"{quote_id(rating_id)} is not in the key"
            faults.reject(line, "rating_id", reason, "leave the column as it was")
        elif rating_id in found:
            faults.reject(line, "rating_id", f"{rating_id} is there twice", "remove one row")
        elif value not in SCALE:
            reason = "is empty" if not value else "is none of -1, 0 and 1"
            faults.reject(line, "rating", reason, "rate it, or leave it out: data.on_error=skip")
        else:
            found[rating_id] = Rating(rater=rater, rating_id=rating_id, value=int(value))
    return list(found.values())


def _by(path: Path, columns: Sequence[str], faults: FaultLog) -> dict[str, dict[str, str]]:
    """Return rows by what stands in the first of the columns; a second one of it is a fault."""
    found: dict[str, dict[str, str]] = {}
    for line, row in _rows(path, columns, faults):
        key = row[columns[0]]
        if not key:
            faults.reject(line, columns[0], "is empty", "put the sheet back as it was")
        elif key in found:
            reason = f"{quote_id(key)} is there twice"
            faults.reject(line, columns[0], reason, "put the sheet back as it was")
        else:
            found[key] = row
    return found


def _rows(path: Path, columns: Sequence[str], faults: FaultLog) -> list[tuple[int, dict[str, str]]]:
    table = read_sheet(path, faults)
    for column in columns:
        require_column(path, table.columns, column, "leave the columns of the sheet as they were")
    return [
        (line, {column: bare_cell(row[column].strip()).strip() for column in columns})
        for line, row in table.rows
    ]
