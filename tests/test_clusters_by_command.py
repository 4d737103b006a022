"""Clients, else counselors, else sessions count whole, in every command that prints intervals."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import write_jsonl
from scipy import special, stats

from recap.corpus.__main__ import main as corpus
from recap.evaluate.__main__ import main as evaluate
from recap.insights.__main__ import main as insights
from recap.report.__main__ import main as report

FEW = "too few: under 10 there is no interval and no p"


def talks(file: Path, people: Sequence[dict[str, str]], seed: int = 0) -> tuple[Path, np.ndarray]:
    """Write a session for each of some people; return also its resistant and all utterances.

    Sessions of one client share one propensity to resist.
    """
    rng = np.random.default_rng(seed)
    own = {json.dumps(one): rng.beta(1, 5) for one in people}
    rows, counts = [], []
    for number, one in enumerate(people):
        labels = [
            "Blaming" if rng.uniform() < own[json.dumps(one)] else "Collaboration"
            for _ in range(int(rng.integers(3, 20)))
        ]
        turns = [{"speaker": "client", "text": f"w{i}", "label": x} for i, x in enumerate(labels)]
        rows.append({"session": f"s{number}", **one, "turns": turns})
        counts.append((labels.count("Blaming"), len(labels)))
    return write_jsonl(file, rows), np.array(counts, dtype=float)


def jackknifed(counts: np.ndarray, whose: Sequence[int]) -> tuple[float, float]:
    """Return the interval of a share, written out: logit, one of whose left out after another."""
    names = sorted(set(whose))
    left = [counts[np.array(whose) != name].sum(axis=0) for name in names]
    without = np.array([special.logit(part / whole) for part, whole in left])
    middle = special.logit(counts[:, 0].sum() / counts[:, 1].sum())
    n, off = len(names), without - without.mean()
    error = np.sqrt((n - 1) / n * ((without - middle) ** 2).sum())
    df = min((1 + n / (n + 80)) * (off**2).sum() ** 2 / (off**4).sum() - 1, n - 1)
    half = stats.t.ppf(0.975, df) * error
    low, high = special.expit([middle - half, middle + half])
    return float(low), float(high)


def found(out: Path, action: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((out / f"{action}.json").read_text("utf-8"))
    return figures


@pytest.mark.parametrize("role", ["client", "counselor"])
def test_prevalence_leaves_out_clients_or_counselors_and_is_wider_for_it(
    role: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whose = [int(n) for n in np.random.default_rng(1).integers(25, size=200)]
    path, counts = talks(tmp_path / "a.jsonl", [{role: f"c{n}"} for n in whose])
    alone = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    bare = write_jsonl(tmp_path / "b.jsonl", [{**row, role: None} for row in alone])
    for file in (path, bare):
        assert insights([f"data.path={file}", f"out={tmp_path / file.stem}"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"over {role}s, each with all that is of it (n = 25;" in printed
    clustered = found(tmp_path / "a", "sessions")["share_of_utterances"]
    single = found(tmp_path / "b", "sessions")["share_of_utterances"]
    assert clustered["interval"] == pytest.approx(jackknifed(counts, whose))
    assert single["interval"] == pytest.approx(jackknifed(counts, range(200)))
    assert (clustered["cluster"], clustered["clusters"]) == (role, 25)
    assert (single["cluster"], single["clusters"]) == ("session", 200)
    width, narrow = (np.ptp(one["interval"]) for one in (clustered, single))
    assert width > 1.5 * narrow


def test_a_table_with_a_column_of_clients_counts_them_whole(tmp_path: Path) -> None:
    file = tmp_path / "talks.csv"
    with file.open("w", encoding="utf-8", newline="") as text:
        rows = csv.writer(text)
        rows.writerow(["session_id", "client_id", "speaker", "text", "label"])
        for session in range(48):
            for turn in range(4):
                label = "Blaming" if (session // 4 + turn) % 3 == 0 else "Collaboration"
                rows.writerow([f"s{session}", f"c{session // 4}", "client", f"w {turn}", label])
    out = tmp_path / "out"
    assert insights([f"data.path={file}", f"out={out}"]) == 0
    share = found(out, "sessions")["share_of_utterances"]
    assert (share["cluster"], share["clusters"]) == ("client", 12)


def scores(folder: Path) -> Path:
    """Write a run's confusion."""
    file = folder / "fold0" / "scores.json"
    file.parent.mkdir(parents=True)
    labels = ("Resistance", "Collaboration")
    row = {"precision": 0.9, "recall": 0.9, "f1": 0.9, "support": 50}
    metrics = dict.fromkeys(("macro_f1", "macro_precision", "macro_recall", "accuracy"), 0.9)
    given = {"task": "binary", "labels": labels, "n": 100, "per_label": dict.fromkeys(labels, row)}
    metrics |= {"invalid_rate": 0.0, "loss": 0.0}
    confusion = [[45, 5, 0], [4, 46, 0]]
    file.write_text(json.dumps({**given, "metrics": metrics, "confusion": confusion}), "utf-8")
    return folder


@pytest.mark.parametrize(("sessions", "printed"), [(1, False), (9, False), (12, True)])
def test_a_corrected_share_of_few_sessions_has_no_interval_and_says_why(
    sessions: int, printed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ["Resistance"] * 3 + ["Collaboration"] * 2
    rows = [
        {
            "id": f"s{s}:{i}",
            "session": f"s{s}",
            "label": labels[(i + s) % 5 * (s % 2)],
            "parsed": True,
        }
        for s in range(sessions)
        for i in range(4)
    ]
    file = write_jsonl(tmp_path / "answers.jsonl", rows)
    given = [f"sessions.confusion={scores(tmp_path / 'run')}", "task=binary"]
    assert insights([f"data.path={file}", *given, f"out={tmp_path / 'out'}"]) == 0
    one = found(tmp_path / "out", "sessions")["corrected"]["labels"]["Resistance"]["em"]
    assert (one["interval"] is not None) == printed
    said = " ".join(capsys.readouterr().out.split())
    assert (FEW in said) == (not printed)
    assert printed or FEW in one["reason"]


def two_runs(folder: Path, n_sessions: int, client_of: Any = None) -> Path:
    """Train two baselines on sessions of 20 turns."""
    rng = np.random.default_rng(3)
    rows = []
    for session in range(n_sessions):
        turns = []
        for turn in range(20):
            resists = bool(rng.uniform() < 0.5)
            words = "why who says that" if resists else "yes okay good idea"
            label = "Challenging" if resists != (rng.uniform() < 0.2) else "Collaboration"
            turns.append({"speaker": "counselor", "text": f"question {session} {turn}"})
            turns.append({"speaker": "client", "text": f"{words} {session} {turn}", "label": label})
        person = {} if client_of is None else {"client": f"c{client_of(session)}"}
        rows.append({"session": f"s{session}", **person, "turns": turns})
    data = write_jsonl(folder / "data.jsonl", rows)
    runs = folder / "runs"
    given = ["data=dialogues", f"data.path={data}", "task=binary", "cv.folds=2", "logger=none"]
    given += ["rationale=false", f"runs_dir={runs}"]
    assert evaluate([*given, "method=tfidf", "run=a"]) == 0
    tiny = ["method=encoder", "encoder=tiny", "encoder.max_epochs=1", "trainer=cpu"]
    # So slow that it does not learn all: the two runs are to differ.
    tiny += ["encoder.learning_rate=1e-5"]
    assert evaluate([*given, *tiny, "run=b"]) == 0
    return runs


def test_a_report_over_two_sessions_has_neither_intervals_nor_p_and_says_why(
    tmp_path: Path,
) -> None:
    runs = two_runs(tmp_path, 2)
    assert report([f"runs={runs}", f"out={tmp_path / 'out'}"]) == 0
    figures = found(tmp_path / "out", "report")
    [pair] = figures["comparison"]["families"]["binary"]
    assert set(pair["p"].values()) == {None}
    assert pair["pooled"]["macro_f1"]["interval"] is None
    assert set(pair["no_p_because"].values()) == {f"2 sessions are {FEW}"}
    assert (pair["corrected_t"]["low"], pair["mcnemar"]["p"]) == (None, None)
    for run in figures["variance"]["runs"].values():
        assert run["pooled"]["accuracy"]["reason"] == f"2 sessions are {FEW}"
        assert run["folds"]["accuracy"]["low"] is None
    for run in figures["errors"]["runs"].values():
        assert run["overall"]["accuracy"]["interval"] is None
    page = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert f"2 sessions are {FEW}" in page


def test_a_report_leaves_out_clients_where_the_data_have_them(tmp_path: Path) -> None:
    runs = two_runs(tmp_path, 36, lambda session: session // 3)
    assert report([f"runs={runs}", f"out={tmp_path / 'out'}"]) == 0
    figures = found(tmp_path / "out", "report")
    [pair] = figures["comparison"]["families"]["binary"]
    assert (pair["pooled"]["macro_f1"]["cluster"], pair["pooled"]["n_units"]) == ("client", 12)
    assert pair["p"]["bootstrap"] is not None
    run = figures["variance"]["runs"]["a"]
    assert (run["resampled_by"], run["n_resampled"]) == ("client", 12)
    assert figures["errors"]["runs"]["a"]["overall"]["accuracy"]["clusters"] == 12


def test_correlations_take_a_column_of_clients_without_being_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    lines = ["session,client_id,x,y"]
    for client in range(30):
        x, y = rng.normal(size=2)
        lines += [
            f"{client}-{n},c{client},{x + rng.normal() / 3},{y + rng.normal() / 3}" for n in "abc"
        ]
    file = tmp_path / "t.csv"
    file.write_text("\n".join(lines) + "\n", "utf-8")
    given = ["action=alliance", f"outcomes.path={file}", "predictors=[x]", "outcomes=[y]"]
    assert insights([*given, f"out={tmp_path / 'out'}"]) == 0
    figures = found(tmp_path / "out", "alliance")
    [pair] = figures["correlations"]
    assert (figures["cluster"], pair["n_clusters"], pair["n"]) == ("client", 30, 90)
    assert pair["cluster_high"] - pair["cluster_low"] > 1.3 * (pair["high"] - pair["low"])


def test_agreement_leaves_out_clients_where_a_column_names_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    rows = [["id", "annotator", "label", "session", "client"]]
    for example in range(240):
        truth = rng.choice(["Blaming", "Excusing"])
        for name in ("ann", "bo"):
            label = truth if rng.uniform() < 0.8 else "Excusing"
            rows.append([f"e{example}", name, label, f"s{example // 5}", f"c{example // 20}"])
    file = tmp_path / "judged.csv"
    file.write_text("\n".join(map(",".join, rows)) + "\n", "utf-8")
    assert corpus(["action=agreement", f"data.path={file}", f"out={tmp_path / 'out'}"]) == 0
    figures = found(tmp_path / "out", "agreement")
    assert (figures["cluster"], figures["clusters"]) == ("client", 12)
    one = figures["intervals"]["fleiss_kappa"]
    assert one["low"] < figures["fleiss_kappa"] < one["high"]
    assert (one["cluster"], one["interval"]) == ("client", [one["low"], one["high"]])
