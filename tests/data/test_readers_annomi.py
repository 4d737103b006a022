"""AnnoMI, simple and full."""

from __future__ import annotations

import csv
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from recap.corpus.__main__ import main
from recap.data.corpus import Corpus, read_corpus
from recap.data.issues import IssueLog
from recap.data.readers.annomi import read_annomi
from recap.errors import DataError
from recap.records import Dialogue
from recap.taxonomy import Taxonomy, taxonomy_from_dict

COLUMNS = [
    *("mi_quality", "transcript_id", "topic", "utterance_id", "interlocutor", "utterance_text"),
    *("annotator_id", "main_therapist_behaviour", "client_talk_type"),
]
TALK = ("change", "neutral", "sustain")


@pytest.fixture(scope="module")
def talk() -> Taxonomy:
    return taxonomy_from_dict({"name": "talk", "categories": [{"name": name} for name in TALK]})


def write(tmp_path: Path, *rows: tuple[str, str, str, str]) -> Path:
    """Write rows of (utterance, interlocutor, annotator, label) of one transcript."""
    path = tmp_path / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number, who, annotator, label in rows:
            act, said = (label, "n/a") if who == "therapist" else ("n/a", label)
            writer.writerow(["high", "7", "sleep", number, who, f"t{number}", annotator, act, said])
    return path


def read(path: Path, annotations: str = "majority") -> tuple[list[Dialogue], IssueLog]:
    issues = IssueLog(path.name)
    return list(read_annomi(path, issues=issues, annotations=annotations)), issues


def labels(dialogues: list[Dialogue]) -> list[str | None]:
    return [turn.label for dialogue in dialogues for turn in dialogue.turns]


def test_acts_talk_types_ids_and_meta_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path, ("0", "therapist", "1", "question"), ("1", "client", "1", "change"))
    (found,), _ = read(path)
    assert (found.session, found.meta) == ("7", {"mi_quality": "high", "topic": "sleep"})
    assert [(t.speaker, t.id, t.text, t.label) for t in found.turns] == [
        ("counselor", "7:0", "t0", "question"),
        ("client", "7:1", "t1", "change"),
    ]


def test_several_annotators_add_up_as_stated(tmp_path: Path) -> None:
    votes = ["sustain", "change", "change", "neutral", "sustain", "change", "sustain", "n/a"]
    rows = [(str(1 + n // 4), "client", str(n), label) for n, label in enumerate(votes)]
    path = write(tmp_path, ("0", "therapist", "1", "other"), *rows)
    # Utterance 1: sustain, change, change, neutral; utterance 2: sustain, change, sustain, n/a.
    assert labels(read(path)[0]) == ["other", "change", "sustain"]
    assert labels(read(path, "first")[0]) == ["other", "sustain", "sustain"]


def test_an_even_vote_leaves_no_label_takes_the_first_or_is_a_fault(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        ("0", "client", "1", "neutral"),
        ("1", "client", "1", "sustain"),
        ("1", "client", "2", "change"),
    )
    for rule, expected in (("majority", None), ("first", "sustain")):
        found, issues = read(path, rule)
        assert labels(found) == ["neutral", expected]
        assert issues.counts["annotation_ties"] == 1
        assert not issues.issues
    found, issues = read(path, "reject")
    assert labels(found) == ["neutral"]
    assert [fault.line for fault in issues.issues] == [3]
    assert (issues.rows_read, issues.rows_rejected) == (3, 2)


def test_a_file_that_is_not_annomi_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("session,text\n1,a\n")
    with pytest.raises(DataError, match=r"no column 'transcript_id'.*data=table"):
        read(path)


def rows_of(tmp_path: Path, *rows: tuple[str, str, str, str]) -> Path:
    """Write rows of transcript, utterance, interlocutor and text, as the simple file has them."""
    path = tmp_path / "simple.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([name for name in COLUMNS if name != "annotator_id"])
        for transcript, number, who, text in rows:
            labels = ("question", "n/a") if who == "therapist" else ("n/a", "change")
            writer.writerow(["high", transcript, "sleep", number, who, text, *labels])
    return path


@pytest.mark.parametrize(
    ("second", "field", "lines", "accepted"),
    [
        (("7", "1", "therapist", "a"), "interlocutor", [3], 2),
        (("7", "1", "client", "b"), "utterance_text", [3], 2),
        (("7", "", "client", "b"), "utterance_id", [4], 3),
        (("7", "1.0", "client", "a"), "utterance_id", [3, 4], 2),
        (("", "3", "client", "a"), "transcript_id", [4], 3),
    ],
)
def test_rows_that_contradict_each_other_are_rejected_and_named(
    tmp_path: Path,
    second: tuple[str, str, str, str],
    field: str,
    lines: list[int],
    accepted: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = [("7", "0", "therapist", "q"), ("7", "1", "client", "a")]
    path = rows_of(tmp_path, *first, second, ("7", "2", "therapist", "r"))
    arguments = ["data=annomi", "task=annomi_talk", f"data.path={path}", f"out={tmp_path / 'out'}"]
    assert main(["action=validate", *arguments]) == 2
    found = json.loads((tmp_path / "out" / "validate.json").read_text("utf-8"))
    assert [(fault["line"], fault["field"]) for fault in found["faults"]] == [
        (line, field) for line in lines
    ]
    counts = [found[key] for key in ("rows_read", "rows_accepted", "rows_rejected")]
    assert counts == [4, accepted, 4 - accepted]


def test_an_annotator_who_judges_an_utterance_twice_is_a_fault(tmp_path: Path) -> None:
    path = write(tmp_path, ("0", "client", "1", "change"), ("0", "client", "1", "sustain"))
    found, issues = read(path)
    assert found == []
    assert [fault.field for fault in issues.issues] == ["annotator_id"]
    assert (issues.rows_read, issues.rows_rejected) == (2, 2)


def describe(path: Path, *more: str) -> dict[str, Any]:
    out = path.parent / "out"
    arguments = ["data=annomi", "task=annomi_talk", f"data.path={path}", f"out={out}"]
    assert main(["action=describe", *arguments, *more]) == 0
    return dict(json.loads((out / "describe.json").read_text("utf-8")))


def test_votes_count_by_label_however_it_is_spelled_and_by_person_however_written(
    tmp_path: Path,
) -> None:
    votes = (("1", "change"), ("2", "Change"), ("3", "sustain"), ("4", "sustain"), ("5", "change"))
    path = write(tmp_path, *(("0", "client", who, label) for who, label in votes))
    found = describe(path)
    counts = {one["name"]: one["n"] for one in found["categories"]}
    assert counts == {"change": 1, "neutral": 0, "sustain": 0}
    outvoted = [{"taken": "change", "others": ["sustain"], "rows": 1}]
    assert found["cut_to_one_label"] == {"rows": 1, "combinations": outvoted}
    names = ("Zo\u00eb", "Zoe\u0308")
    twice = write(tmp_path, *(("0", "client", name, "change") for name in names))
    assert [fault.field for fault in read(twice)[1].issues] == ["annotator_id"]


def test_speakers_that_are_not_known_can_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = rows_of(tmp_path, ("7", "0", "therapist", "q"), ("7", "1", "Kim", "a"))
    arguments = ["data=annomi", "task=annomi_talk", f"data.path={path}"]
    assert main(["action=describe", *arguments]) == 2
    assert "data.options.speakers={Kim: other}" in capsys.readouterr().err
    found = describe(path, "data.options.speakers={Kim: client}")
    assert found["labelled"]["n"] == 1


def corpus(real_data: Path, name: str, taxonomy: Taxonomy, **options: str) -> Corpus:
    path = real_data / "annomi" / name
    return read_corpus(reader="annomi", path=path, taxonomy=taxonomy, options=options)


@pytest.mark.real_data
def test_annomi_simple_has_its_known_figures(real_data: Path) -> None:
    found, issues = read(real_data / "annomi" / "AnnoMI-simple.csv")
    turns = [turn for dialogue in found for turn in dialogue.turns]
    client = [turn for turn in turns if turn.speaker == "client"]
    assert (issues.rows_read, issues.rows_rejected, len(turns)) == (9699, 0, 9699)
    quality = Counter(dialogue.meta["mi_quality"] for dialogue in found)
    assert quality == {"high": 110, "low": 23}
    assert (len(turns) - len(client), len(client)) == (4882, 4817)
    talk_types = Counter(turn.label for turn in client)
    assert talk_types == {"neutral": 3102, "change": 1174, "sustain": 541}
    assert round(mean(len(turn.text.split()) for turn in client), 3) == 14.974
    assert round(mean(len(turn.text) for turn in client), 3) == 75.774
    texts = Counter(turn.text for turn in client)
    assert (len(texts), texts["Yeah."]) == (3645, 490)
    pairs = [(a.speaker, b.speaker) for d in found for a, b in pairwise(d.turns)]
    assert pairs.count(("counselor", "client")) == 4785
    assert sum(a == b for a, b in pairs) == 38
    assert sum(dialogue.turns[0].speaker == "client" for dialogue in found) == 17


@pytest.mark.real_data
def test_annomi_in_another_order_of_rows_gives_the_same_examples(
    real_data: Path, tmp_path: Path, talk: Taxonomy
) -> None:
    with (real_data / "annomi" / "AnnoMI-simple.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    path = tmp_path / "sorted.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: row["utterance_id"]))
    found = read_corpus(reader="annomi", path=path, taxonomy=talk)
    assert len(found.examples) == 4785
    assert found.examples == corpus(real_data, "AnnoMI-simple.csv", talk).examples


@pytest.mark.real_data
def test_every_client_turn_of_annomi_is_an_example_or_counted(
    real_data: Path, talk: Taxonomy
) -> None:
    found = corpus(real_data, "AnnoMI-simple.csv", talk)
    # 4,817 client turns, 17 that open a dialogue, 15 that follow another client turn.
    assert len(found.examples) == 4785
    assert (found.rows_read, found.rows_accepted) == (9699, 9699)
    assert found.counts["no_intervention"] == 17
    assert found.counts["merged_client_turns"] + found.counts["merged_counselor_turns"] == 38
    assert found.examples[0].meta == {
        "mi_quality": "high",
        "topic": "reducing alcohol consumption",
    }
    acts = {turn.label for e in found.examples for turn in e.history if turn.speaker == "counselor"}
    assert acts == {"question", "reflection", "therapist_input", "other"}


@pytest.mark.real_data
def test_annomi_full_has_its_known_majority_votes(real_data: Path, talk: Taxonomy) -> None:
    found, issues = read(real_data / "annomi" / "AnnoMI-full.csv")
    client = [t for d in found for t in d.turns if t.speaker == "client"]
    assert issues.rows_read == 13_551
    talk_types = Counter(turn.label for turn in client)
    assert talk_types == {"neutral": 3095, "change": 1173, "sustain": 539, None: 10}
    assert issues.counts["annotation_ties"] == 10
    rejecting = read_corpus(
        reader="annomi",
        path=real_data / "annomi" / "AnnoMI-full.csv",
        taxonomy=talk,
        on_error="skip",
        options={"annotations": "reject"},
    )
    assert (rejecting.rows_read, rejecting.rows_accepted) == (13_551, 13_551 - 10 * 10)
    first = corpus(real_data, "AnnoMI-full.csv", talk, annotations="first")
    assert first.counts.get("unlabelled", 0) == 0


@pytest.mark.real_data
def test_the_share_of_sustain_talk_by_quality_is_as_computed_elsewhere(real_data: Path) -> None:
    found, _ = read(real_data / "annomi" / "AnnoMI-simple.csv")
    shares: dict[str, list[float]] = {"high": [], "low": []}
    for dialogue in found:
        said = [turn.label for turn in dialogue.turns if turn.speaker == "client"]
        shares[dialogue.meta["mi_quality"]].append(said.count("sustain") / len(said))
    assert {key: round(mean(values), 4) for key, values in shares.items()} == {
        "high": 0.1285,
        "low": 0.2235,
    }
