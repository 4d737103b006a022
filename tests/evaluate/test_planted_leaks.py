"""Leaks planted in clean data are found by the commands themselves, and clean data have none."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import read_json, write_jsonl
from fake_servers import serving

from recap.evaluate import __main__ as evaluate
from recap.prompt import __main__ as prompt

Rows = list[dict[str, Any]]
KINDS = ("duplicates", "near_duplicates", "shared_sessions", "history_overlap")


def sentence(chance: random.Random, n: int) -> str:
    """Return words that nobody else says."""
    syllables = ["ba", "ko", "mi", "ru", "te", "lo", "sa", "ne", "vi", "du", "pa", "zo"]
    return " ".join(
        "".join(chance.choice(syllables) for _ in range(chance.randint(1, 4))) for _ in range(n)
    )


def clean_rows(n: int = 60) -> Rows:
    """Return examples, each of a session of its own and in words of its own."""
    chance = random.Random(7)
    return [
        {
            "id": f"e{number}",
            "session": f"s{number}",
            "history": [{"speaker": "counselor", "text": sentence(chance, 8)}],
            "response": sentence(chance, 9),
            "label": ["Collaboration", "Blaming"][number % 2],
            "rationale": "It fits.",
        }
        for number in range(n)
    ]


def same_session(rows: Rows) -> Rows:
    return [{**row, "session": f"s{number // 2}"} for number, row in enumerate(rows)]


def repeated(rows: Rows) -> Rows:
    return [*rows, *({**row, "id": row["id"] + "x", "session": None} for row in rows[:20])]


def nearly_repeated(rows: Rows) -> Rows:
    copies = [
        {**row, "id": row["id"] + "x", "session": None, "response": row["response"] + " well"}
        for row in rows
    ]
    return [*rows, *copies]


def continued(rows: Rows) -> Rows:
    """Let every second example go on where the first one ended."""
    found: Rows = []
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        said = {"speaker": "client", "text": first["response"]}
        history = [*first["history"], said, *second["history"]]
        found += [first, {**second, "session": first["session"], "history": history}]
    return found


PLANTED: dict[str, Callable[[Rows], Rows]] = {
    "near_duplicates": nearly_repeated,
    "shared_sessions": same_session,
    "history_overlap": continued,
}


def report_of(rows: Rows, folder: Path, *overrides: str) -> tuple[int, Any]:
    file = write_jsonl(folder / "corpus.jsonl", rows)
    status = evaluate.main(
        [
            *("data=dialogues", f"data.path={file}", f"runs_dir={folder}", "cv.folds=3"),
            *("logger=none", "task=binary", "run=it", "method=tfidf", *overrides),
        ]
    )
    return status, read_json(folder / "it" / "leakage.json")


def count(report: Any, kind: str) -> int:
    return sum(fold[kind]["count"] for fold in report["folds"])


def test_clean_data_have_no_leak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, report = report_of(clean_rows(), tmp_path)
    assert status == 0
    assert {kind: count(report, kind) for kind in KINDS} == dict.fromkeys(KINDS, 0)
    assert report["repeats"]["count"] == 0
    said = capsys.readouterr().out
    assert "nearly the same" not in said
    assert "session lies" not in said


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_leak_is_found_and_told(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, report = report_of(PLANTED[kind](clean_rows()), tmp_path)
    assert count(report, kind) > 10
    said = " ".join(capsys.readouterr().out.split())
    line = {
        "near_duplicates": "test examples are nearly the same as one that is trained on",
        "shared_sessions": "times a session lies in test and training",
        "history_overlap": "test responses stand in a training history",
    }[kind]
    assert f"{count(report, kind)} {line}" in said


@pytest.mark.parametrize("kind", ["shared_sessions", "history_overlap"])
def test_sessions_kept_together_leak_no_more(kind: str, tmp_path: Path) -> None:
    _, report = report_of(PLANTED[kind](clean_rows()), tmp_path, "cv.group=session")
    assert {kind: count(report, kind) for kind in KINDS} == dict.fromkeys(KINDS, 0)


def test_planted_duplicates_are_counted_and_kept_on_one_side(tmp_path: Path) -> None:
    _, report = report_of(repeated(clean_rows()), tmp_path)
    assert report["repeats"]["count"] == 20
    assert count(report, "duplicates") == 0


def prompted(rows: Rows, folder: Path) -> Any:
    file = write_jsonl(folder / "corpus.jsonl", rows)
    with serving(answer=lambda request: "Behavior: Resistance\nReason: It fits.") as server:
        status = prompt.main(
            [
                *("data=dialogues", f"data.path={file}", f"runs_dir={folder}", "cv.folds=2"),
                *("task=binary", "run=it", "shots=1", "client=openai", "client.model=m"),
                *(f"client.base_url={server.url}/v1", "logger=none"),
            ]
        )
    assert status == 0
    return read_json(folder / "it" / "leakage.json")


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")


def test_shots_of_clean_data_share_nothing_with_the_test(tmp_path: Path) -> None:
    folds = prompted(clean_rows(), tmp_path)["folds"]
    manifest = read_json(tmp_path / "it" / "manifest.json")["folds"]
    for fold in folds:
        shots = fold["shots"]
        assert shots["ids"] == manifest[f"fold{fold['fold']}"]["shots"]
        assert len(shots["ids"]) == 2
        assert [shots[kind]["count"] for kind in ("in_test", *KINDS)] == [0] * 5


@pytest.mark.parametrize("kind", PLANTED)
def test_a_shot_that_gives_a_test_example_away_is_found_and_told(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = prompted(PLANTED[kind](clean_rows()), tmp_path)
    found = sum(fold["shots"][kind]["count"] for fold in report["folds"])
    assert found > 0
    said = {
        "near_duplicates": "test examples are nearly the same as one that is shown solved",
        "shared_sessions": "times a session lies in test and among the examples in prompts",
        "history_overlap": "test responses stand in the history of an example in prompts",
    }[kind]
    assert f"{found} {said}" in " ".join(capsys.readouterr().out.split())
