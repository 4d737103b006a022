from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from recap.insights.__main__ import main
from recap.metrics.category_scores import scores_from_confusion
from recap.metrics.files import scores_to_dict

FAST = ("resamples=50",)


def answers(path: Path, sessions: dict[str, list[str | None]]) -> Path:
    """Write rows as recap.predict has them: the labels of each session."""
    rows = [
        {
            "id": f"{session}:{index}",
            "session": session,
            "turn": index,
            "label": label,
            "probabilities": None,
            "rationale": None,
            "text": "",
            "parsed": label is not None,
        }
        for session, labels in sessions.items()
        for index, label in enumerate(labels)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def figures(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "sessions.json").read_text("utf-8"))
    return found


@pytest.mark.parametrize(
    ("probabilities", "said"),
    [
        ('{"Blaming": 0.9, "Excusing": 0.9}', "add up to 1.8, write numbers from 0 to 1"),
        ("0.9", 'is no object, write "probabilities": {...}, or leave it out'),
        ("[0.9, 0.1]", "is no object"),
        ('"high"', "is no object"),
        ("true", "is no object"),
    ],
)
@pytest.mark.parametrize("overlaid", [True, False])
def test_probabilities_that_are_none_are_refused(
    overlaid: bool,
    probabilities: str,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = answers(tmp_path / "answers.jsonl", {"A": ["Blaming", "Excusing"]})
    first, second = path.read_text("utf-8").splitlines()
    second = second.replace('"probabilities": null', f'"probabilities": {probabilities}')
    path.write_text(f"{first}\n{second}\n", "utf-8")
    turns = [{"speaker": "client", "text": text, "id": f"A:{k}"} for k, text in enumerate("xy")]
    talk = tmp_path / "talk.jsonl"
    talk.write_text(json.dumps({"session": "A", "turns": turns}) + "\n", "utf-8")
    given = [f"data.path={talk}", f"predictions={path}"] if overlaid else [f"data.path={path}"]
    assert main([*given, *FAST]) == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert f"answers.jsonl:2: probabilities: {said}" in printed
    assert main([*given, *FAST, "data.on_error=skip"]) == 0


def test_all_faults_of_a_predicted_row_are_listed_under_the_file_as_others_name_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = answers(tmp_path / "answers.jsonl", {"A": ["Blaming", "Sulking", "Blaming"]})
    path.write_text(path.read_text("utf-8").replace("null", "0.5", 2), "utf-8")  # both of row 1
    path.write_text(path.read_text("utf-8").replace("null", "[]", 1), "utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["data.path=./answers.jsonl", *FAST]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: answers.jsonl: 2 of 3 rows cannot be used:"
    found = [line.split(", ")[0].strip() for line in lines[1:-1]]
    assert found == [
        "answers.jsonl:1: probabilities: is no object",
        "answers.jsonl:1: rationale: is no text",
        "answers.jsonl:2: probabilities: is no object",
        "answers.jsonl:2: label: unknown labels: Sulking (1); known: Resistance",
    ]


def test_predicted_labels_are_counted_and_marked_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = answers(
        tmp_path / "answers.jsonl",
        {"A": ["Blaming", "Excusing", "Collaboration", None], "B": ["Collaboration"] * 2},
    )
    out = tmp_path / "out"
    assert main([f"data.path={path}", f"out={out}", *FAST]) == 0
    found = figures(out)
    assert found["predicted"]
    assert found["share_of_utterances"]["value"] == pytest.approx(2 / 5)
    assert found["mean_session_share"]["value"] == pytest.approx(1 / 3)
    assert found["share_of_sessions"]["value"] == pytest.approx(1 / 2)
    assert found["distinct_behaviors"]["value"] == pytest.approx(1)
    assert found["label_shares"]["Blaming"]["value"] == pytest.approx(1 / 5)
    assert found["counts"]["unparsed"] == 1
    assert found["timeline"]["session"] == "A"
    assert [(u["turn"], u["label"], u["resistant"]) for u in found["timeline"]["utterances"]] == [
        (0, "Blaming", True),
        (1, "Excusing", True),
        (2, "Collaboration", False),
    ]
    printed = capsys.readouterr().out
    assert "predicted labels" in printed
    for ending in (".md", ".tex"):
        assert "predicted labels" in (out / f"sessions{ending}").read_text("utf-8")
    for stem in ("sessions", "sessions_development", "sessions_timeline"):
        assert "predicted" in (out / f"{stem}.svg").read_text("utf-8")
        assert (out / f"{stem}.png").read_bytes()[:4] == b"\x89PNG"
    with (out / "sessions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(r["session"], r["n_resistant"], r["predicted"]) for r in rows] == [
        ("A", "2", "True"),
        ("B", "0", "True"),
    ]


def test_annotated_labels_are_not_marked_as_predicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data.options.size=60", f"out={tmp_path}", *FAST]) == 0
    assert not figures(tmp_path)["predicted"]
    assert "predicted" not in capsys.readouterr().out
    assert "predicted" not in (tmp_path / "sessions.svg").read_text("utf-8")


def run_folder(path: Path, confusion: list[list[int]], labels: list[str]) -> Path:
    for fold, part in enumerate((confusion, confusion)):
        scores = scores_from_confusion(task="binary", labels=labels, confusion=part, loss=None)
        file = path / f"fold{fold}" / "scores.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(scores_to_dict(scores)), encoding="utf-8")
    return path


def test_prevalence_is_corrected_with_the_confusion_of_all_folds(tmp_path: Path) -> None:
    # Sensitivity .8, specificity .9; observed 45 % of 100: by hand 50 %.
    labels: dict[str, list[str | None]] = {
        f"S{i}": ["Resistance" if 10 * i + k < 45 else "Collaboration" for k in range(10)]
        for i in range(10)
    }
    path = answers(tmp_path / "answers.jsonl", labels)
    run = run_folder(tmp_path / "run", [[8, 2, 0], [1, 9, 0]], ["Resistance", "Collaboration"])
    out = tmp_path / "out"
    command = [f"data.path={path}", "task=binary", f"sessions.confusion={run}", f"out={out}"]
    assert main([*command, "resamples=200"]) == 0
    corrected = figures(out)["corrected"]["labels"]["Resistance"]
    assert corrected["observed"] == pytest.approx(0.45)
    assert corrected["inverse"] == pytest.approx(0.5)
    assert corrected["em"]["value"] == pytest.approx(0.5, abs=1e-6)
    assert corrected["em"]["low"] < 0.5 < corrected["em"]["high"]
    assert "Rogan" in (out / "sessions.md").read_text("utf-8")


def test_skipped_utterances_play_no_part_in_the_correction(tmp_path: Path) -> None:
    path = answers(tmp_path / "a.jsonl", {"A": ["Resistance", "Collaboration"] * 2})
    run = run_folder(tmp_path / "run", [[8, 2, 0], [1, 9, 0]], ["Resistance", "Collaboration"])
    row = json.loads(path.read_text("utf-8").splitlines()[0])
    row |= {"id": "A:9", "label": None, "parsed": False, "skipped": "empty"}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    out = tmp_path / "out"
    command = [f"data.path={path}", "task=binary", f"sessions.confusion={run}", f"out={out}"]
    assert main([*command, *FAST]) == 0
    found = figures(out)
    assert found["corrected"]["labels"]["Resistance"]["observed"] == pytest.approx(0.5)
    assert (found["counts"]["unparsed"], found["counts"]["skipped"]) == (0, 1)


def test_a_binary_confusion_corrects_the_answers_of_a_cascade(tmp_path: Path) -> None:
    path = answers(tmp_path / "a.jsonl", {"A": ["Blaming", "Collaboration"], "B": ["Excusing"]})
    run = run_folder(tmp_path / "run", [[9, 1, 0], [2, 8, 0]], ["Resistance", "Collaboration"])
    out = tmp_path / "out"
    assert main([f"data.path={path}", f"sessions.confusion={run}", f"out={out}", *FAST]) == 0
    labels = figures(out)["corrected"]["labels"]
    assert labels["Resistance"]["observed"] == pytest.approx(2 / 3)


def test_answers_that_the_confusion_never_saw_end_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = answers(tmp_path / "a.jsonl", {"A": ["Resistance", None]})
    run = run_folder(tmp_path / "run", [[9, 1, 0], [2, 8, 0]], ["Resistance", "Collaboration"])
    assert main([f"data.path={path}", "task=binary", f"sessions.confusion={run}", *FAST]) == 2
    assert "never saw the model answer no readable label" in capsys.readouterr().err


def test_a_file_without_any_readable_answer_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = answers(tmp_path / "a.jsonl", {"A": [None, None]})
    assert main([f"data.path={path}", *FAST]) == 2
    assert "decoding=scored" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["sessions.confusion=nowhere"], "annotated, not predicted"),
        (["sessions.by=ward"], "sessions.by=ward"),
        (["sessions.timeline=S-1"], "no session 'S-1'"),
        (["resistance=[Denyin]"], "did you mean 'Denying'"),
        (["task=annomi_talk", "data.path=x"], "resistance=[…]"),
        (["predictions=nowhere.jsonl"], "no such file"),
    ],
)
def test_what_does_not_fit_ends_with_2_and_its_mend(
    overrides: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data.options.size=30", "data=demo", *FAST, *overrides]) == 2
    assert said in capsys.readouterr().err


def test_sessions_can_be_broken_down_by_a_field(tmp_path: Path) -> None:
    file = tmp_path / "talks.jsonl"
    turn = {"speaker": "client", "text": "x"}
    talks = [
        {"session": s, "meta": {"arm": a}, "turns": [{**turn, "label": x} for x in labels]}
        for s, a, labels in (
            ("1", "new", ["Blaming", "Collaboration"]),
            ("2", "new", ["Collaboration"]),
            ("3", "old", ["Blaming"]),
        )
    ]
    file.write_text("".join(json.dumps(t) + "\n" for t in talks), encoding="utf-8")
    assert main([f"data.path={file}", "sessions.by=arm", f"out={tmp_path / 'o'}", *FAST]) == 0
    groups = figures(tmp_path / "o")["by"]["groups"]
    assert groups["new"]["mean_session_share"]["value"] == pytest.approx(0.25)
    assert groups["old"]["mean_session_share"]["value"] == 1


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert main(["data.options.size=60", f"out={tmp_path / name}", *FAST]) == 0
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def annomi(real_data: Path, file: str, out: Path) -> dict[str, Any]:
    command = ["data=annomi", f"data.path={real_data / 'annomi' / file}", "task=annomi_talk"]
    options = ["resistance=[sustain]", "sessions.by=mi_quality", "resamples=0", f"out={out}"]
    assert main([*command, *options]) == 0
    return figures(out)


@pytest.mark.real_data
def test_annomi_has_the_session_shares_that_its_readme_gives(
    real_data: Path, tmp_path: Path
) -> None:
    found = annomi(real_data, "AnnoMI-simple.csv", tmp_path)
    assert (found["n_sessions"], found["n_utterances"], found["n_resistant"]) == (133, 4817, 541)
    groups = found["by"]["groups"]
    assert (groups["high"]["n_sessions"], groups["low"]["n_sessions"]) == (110, 23)
    shares = [groups[quality]["mean_session_share"]["value"] for quality in ("high", "low")]
    assert shares == pytest.approx([0.1285, 0.2235], abs=5e-5)


@pytest.mark.real_data
def test_annomis_ties_between_annotators_play_no_part(real_data: Path, tmp_path: Path) -> None:
    found = annomi(real_data, "AnnoMI-full.csv", tmp_path)
    assert (found["n_utterances"], found["n_resistant"]) == (3095 + 1173 + 539, 539)
    assert found["counts"]["unlabelled"] == 10
