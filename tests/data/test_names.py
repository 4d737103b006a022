"""Which cells hold nothing, and which names are one, in every kind of file and through commands."""

from __future__ import annotations

import csv
import json
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recap.corpus.__main__ import main as corpus
from recap.data.issues import IssueLog
from recap.data.names import identity
from recap.data.readers.registry import Fields
from recap.evaluate.__main__ import main as evaluate
from recap.insights.__main__ import main as insights

SCHEME = """\
name: scheme
taxonomy:
  name: scheme
  categories:
    - name: Closer
    - name: Further
      aliases: ["-"]
    - name: "N/A"
      names: {zh: None}
"""
COMPOSED, APART = "Zo\u00eb", "Zoe\u0308"
TALK = [
    *("session,speaker,text,label", "a,counselor,q1,", "a,client,w1,Closer", "a,counselor,q2,n/a"),
    *("a,client,w2,N/A", "b,counselor,q3,", "b,client,w3,-", "b,counselor,q4,", "b,client,w4,None"),
    *("c,counselor,q5,", "c,client,w5,n/a", "c,counselor,q6,", "c,client,w6,NaN"),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("conf/task/scheme.yaml", SCHEME)
    return tmp_path


def write(name: str, *lines: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return name


def figures(action: str, *arguments: str, command: Any = corpus) -> dict[str, Any]:
    assert command([f"action={action}", *arguments, "out=out"]) == 0
    return dict(json.loads(Path(f"out/{action}.json").read_text("utf-8")))


@pytest.mark.usefixtures("here")
def test_a_category_called_like_an_empty_cell_is_one_where_it_is_spelled_so() -> None:
    file = write("talk.csv", *TALK)
    found = figures("describe", "task=scheme", "data=table", f"data.path={file}")
    counts = {row["name"]: row["n"] for row in found["categories"]}
    # N/A and its Chinese name None; an alias "-"; the lower-case n/a and NaN are no labels.
    assert counts == {"Closer": 1, "Further": 1, "N/A": 2}


@pytest.mark.usefixtures("here")
def test_annotators_agree_on_a_category_called_like_an_empty_cell() -> None:
    rows = ["1,A,N/A", "1,B,N/A", "2,A,Closer", "2,B,Closer", "3,A,N/A", "3,B,Further"]
    rows += ["4,A,Further", "4,B,Further", "5,A,nan", "5,B,Closer"]
    file = write("labels.csv", "id,annotator,label", *rows)
    found = figures("agreement", "task=scheme", f"annotations.path={file}")
    # scikit-learn 1.7: cohen_kappa_score([N, C, N, F], [N, C, F, F])
    assert found["mean_pairwise_cohen_kappa"] == pytest.approx(0.636364, abs=1e-6)
    raw = figures("agreement", "labels=raw", f"annotations.path={file}")
    assert raw["mean_pairwise_cohen_kappa"] == 1.0


@pytest.mark.usefixtures("here")
def test_imported_predictions_know_the_same_empty_cells() -> None:
    data = write("talk.csv", *TALK[:10])
    answers = ["a:1,Closer", "a:3,N/A", "b:1,-", "b:3,<NA>", "c:1,null"]
    file = write("predictions.csv", "id,label", *answers[:4])
    arguments = ["task=scheme", "data=table", f"data.path={data}", f"predictions={file}"]
    assert evaluate([*arguments, "out=scores", "data.language=en"]) == 0
    scores = json.loads(next(Path("scores").rglob("scores.json")).read_text("utf-8"))
    assert scores["metrics"]["accuracy"] == 0.75
    assert scores["metrics"]["invalid_rate"] == 0.25


@pytest.mark.usefixtures("here")
def test_tables_of_sessions_know_the_same_empty_cells_and_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = write("a.csv", "session,x", f"{COMPOSED},1", "s\u00ad2,2", "s3,3", "s4,—", "s5,5")
    second = write("b.csv", "session,y", f"{APART},1", "s2\u200b,3", "s3,2", "s4,9", "s5,<NA>")
    arguments = [f"data.path={first}", f"outcomes.path={second}", "on=[session]"]
    found = figures(
        "alliance",
        *(*arguments, "predictors=[x]", "outcomes=[y]", "resamples=0"),
        command=insights,
    )
    assert found["n_sessions"] == 5
    (pair,) = found["correlations"]
    # Pearson's r of (1, 2, 3) and (1, 3, 2)
    assert (pair["n"], pair["r"]) == (3, pytest.approx(0.5))
    assert "2 names are written in two forms" in " ".join(capsys.readouterr().out.split())


def export(path: str, *files: tuple[str, str]) -> str:
    """Write a zip of exports, each a name and the label of s:1; the round is the file's digit."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, label in files:
            row = {"example_id": "s:1", "session": "s", "round": path[1:2], "label": [label]}
            archive.writestr(name, json.dumps(row) + "\n")
    return path


@pytest.mark.usefixtures("here")
def test_one_annotator_in_two_forms_has_one_vote_and_the_pair_is_reported(
    capsys: pytest.CaptureFixture[str],
) -> None:
    turns = [{"speaker": "counselor", "text": "q"}, {"speaker": "client", "text": "w"}]
    data = write("d.jsonl", json.dumps({"session": "s", "turns": turns}))
    first = export("r1.zip", (f"{COMPOSED}.jsonl", "Blaming"), ("Bo.jsonl", "Excusing"))
    second = export("r2.zip", (f"{APART}.jsonl", "Blaming"))
    paths = f"annotations.path=[{first},{second}]"
    found = figures("adjudicate", paths, "data=dialogues", f"data.path={data}")
    assert (found["statuses"]["tie"], found["open"]) == (1, ["s:1"])
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        f"1 names are written in two forms that look alike, and count as one each: '{COMPOSED}'"
        in printed
    )


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "cp437"])
@pytest.mark.usefixtures("here")
def test_names_in_a_zip_are_read_in_the_encoding_that_wrote_them(encoding: str) -> None:
    name = "Jérôme Süß" if encoding == "cp437" else "王小明"
    written = f"{name}.jsonl".encode(encoding)
    # As many letters keep the place; the bytes are put there afterwards.
    held = "x" * (len(written) - 6) + ".jsonl"
    path = export("r1.zip", (held, "Blaming"), ("Bo.jsonl", "Excusing"))
    Path(path).write_bytes(Path(path).read_bytes().replace(held.encode(), written))
    figures("adjudicate", f"annotations.path={path}")
    (row,) = csv.DictReader(Path("out/todo.csv").read_text("utf-8-sig").splitlines())
    assert sorted(row["annotators"].split(", ")) == ["Bo", name]


@pytest.mark.usefixtures("here")
def test_columns_and_options_name_annotators_in_any_form() -> None:
    file = write("wide.csv", f"id,{APART},Bo", "1,Blaming,Blaming", "2,Excusing,Blaming")
    found = figures(
        "agreement", f"annotations.path={file}", f"annotations.annotators=['{COMPOSED}',Bo]"
    )
    assert found["units"] == 2 if "units" in found else found["annotators"] is not None


@pytest.mark.usefixtures("here")
def test_a_session_in_two_forms_is_one_and_a_control_character_is_a_fault(
    capsys: pytest.CaptureFixture[str],
) -> None:
    head = "session,speaker,text,label"
    rows = [f"{COMPOSED},counselor,q,", f"{APART},client,w,Blaming", "\ufeffb\u00a01,counselor,q,"]
    file = write("talk.csv", head, *rows, "b 1,client,w2,Blaming", "c\x07,client,w3,Blaming")
    assert corpus(["action=validate", "data=table", f"data.path={file}", "out=out"]) == 2
    found = json.loads(Path("out/validate.json").read_text("utf-8"))
    assert [(f["line"], f["field"]) for f in found["faults"]] == [(6, "session")]
    assert (found["rows_read"], found["rows_accepted"], found["rows_rejected"]) == (5, 4, 1)
    # The two others are whole: a counselor's turn before the client's.
    figures("describe", "data=table", f"data.path={file}", "data.on_error=skip")
    assert "2 names are written in two forms" in " ".join(capsys.readouterr().out.split())


@given(st.text(max_size=12))
def test_the_form_of_a_name_is_its_own_form(name: str) -> None:
    form = identity(name)
    assert identity(form) == form
    for other in ("NFC", "NFD"):
        assert identity(unicodedata.normalize(other, name)) == form
    assert identity(f"\ufeff {name}\u200b\u00a0") == form


def test_a_number_of_json_and_its_digits_are_one_id_and_01_is_another() -> None:
    issues = IssueLog("x")
    rows = [{"id": 1}, {"id": "1"}, {"id": " 1\u200b"}, {"id": "01"}, {"id": "1.0"}, {"id": "nan"}]
    found = [Fields(row, line=1, issues=issues).identifier("id") for row in rows]
    assert found == ["1", "1", "1", "01", "1.0", None]
    assert not issues.issues


@pytest.mark.usefixtures("here")
def test_turns_and_points_written_with_a_fraction_of_zero_are_whole_numbers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = ["a,1.0,A,Closer", "a,1,B,Closer", "a,03,A,Further", "a,3.0,B,Closer"]
    labels = write("labels.csv", "session,turn,annotator,label", *rows)
    found = figures("agreement", "task=scheme", f"annotations.path={labels}")
    # Two examples, by hand: one agreement of two, as chance has it.
    assert [(pair["examples"], pair["cohen_kappa"]) for pair in found["pairs"]] == [(2, 0.0)]
    criteria = "label_alignment,context_relevance,rationality,clarity"
    rated = ["1,A,4.0,3.0,5.0,5.0", "1,B,4,3,5,5", "2,A,NA,3.0,5.0,n/a", "2,B,,3,5,5"]
    sheet = write("sheet.csv", f"id,rater,{criteria}", *rated)
    assert corpus(["action=ratings", f"ratings.path={sheet}"]) == 0
    assert "3 cells are empty" in capsys.readouterr().out


@pytest.mark.usefixtures("here")
def test_predictions_are_put_in_the_order_of_their_turns() -> None:
    rows = ["a:3,a,3.0,Pessimism,true", "b:1,b,1.0,Blaming,true", "a:1,a,1.0,Collaboration,true"]
    file = write("answers.csv", "id,session,turn,label,parsed", *rows)
    found = figures("sessions", f"data.path={file}", "sessions.bins=2", command=insights)
    line = [(one["turn"], one["label"]) for one in found["timeline"]["utterances"]]
    assert line == [(1, "Collaboration"), (3, "Pessimism")]


@pytest.mark.usefixtures("here")
def test_a_rationale_that_only_says_that_there_is_none_is_none() -> None:
    rows = ["a,counselor,q,,", "a,client,w,Closer,N/A", "b,counselor,q,,", "b,client,w2,Closer,no"]
    file = write("talk.csv", "session,speaker,text,label,rationale", *rows)
    found = figures("validate", "task=scheme", "data=table", f"data.path={file}")
    assert found["without_rationale"] == 1
