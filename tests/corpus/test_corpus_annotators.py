"""``recap.corpus`` on annotators: agreement, assign, adjudicate, exam and ratings, end to end."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from recap.corpus.__main__ import main
from recap.data.corpus import read_corpus

ENDINGS = ("csv", "json", "md", "tex")
DEMO = ("data.options.size=80",)


def run(out: Path, action: str, *arguments: str) -> dict[str, Any]:
    assert main([f"action={action}", *arguments, f"out={out}"]) == 0
    assert all((out / f"{action}.{ending}").is_file() for ending in ENDINGS)
    found: dict[str, Any] = json.loads((out / f"{action}.json").read_text("utf-8"))
    return found


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def demo_labels() -> dict[str, str]:
    corpus = read_corpus(reader="demo", path=None, taxonomy=None, options={"size": 80})
    return {example.id: str(example.label) for example in corpus.examples}


def annotate(folder: Path, answer: Callable[[str, str], str]) -> Path:
    """Fill in batches as annotators would, ``answer`` saying what one says of an example."""
    for batch in folder.glob("*.jsonl"):
        rows = [json.loads(line) for line in batch.read_text("utf-8").splitlines()]
        for number, row in enumerate(rows, start=1):
            row["data"], row["id"] = row.pop("text"), number
            row["label"] = [answer(batch.stem.split(".")[0], row["example_id"])]
            row["Comments"] = [f"{batch.stem} thinks so"]
        batch.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


LONG = [
    {"id": f"e{i}", "session": f"s{i // 4}", "annotator": name, "label": label}
    for i in range(24)
    for name, label in (
        ("ann", "Blaming" if i % 3 else "Excusing"),
        ("bo", "Blaming" if i % 4 else "Excusing"),
    )
]


def test_the_three_forms_of_annotations_have_one_agreement(tmp_path: Path) -> None:
    long = write_rows(tmp_path / "long.csv", LONG)
    by_id: dict[str, dict[str, str]] = {}
    for row in LONG:
        wide = by_id.setdefault(row["id"], {"id": row["id"], "session": row["session"]})
        wide[row["annotator"]] = row["label"]
    wide_file = write_rows(tmp_path / "wide.csv", list(by_id.values()))
    with zipfile.ZipFile(tmp_path / "doccano.zip", "w") as archive:
        for name in ("ann", "bo"):
            own = [
                {"id": row["id"], "session": row["session"], "data": "x", "label": [row["label"]]}
                for row in LONG
                if row["annotator"] == name
            ]
            archive.writestr(f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in own))
    found = [
        run(tmp_path / "a", "agreement", f"data.path={long}"),
        run(
            tmp_path / "b", "agreement", f"data.path={wide_file}", "annotations.annotators=[ann,bo]"
        ),
        run(tmp_path / "c", "agreement", f"annotations.path={tmp_path / 'doccano.zip'}"),
    ]
    assert found[0] == found[1] == found[2]
    # By hand: of 24, ann says Excusing 8 times, bo 6 times, both twice. Observed 14/24; expected
    # (8/24)(6/24) + (16/24)(18/24) = 7/12, which is the same: kappa 0.
    assert found[0]["mean_pairwise_cohen_kappa"] == pytest.approx(0.0)
    assert found[0]["percent_agreement"] == pytest.approx(14 / 24)
    # Fleiss: expected (14/48)² + (34/48)² of the pairs.
    expected = (14**2 + 34**2) / 48**2
    assert found[0]["fleiss_kappa"] == pytest.approx((14 / 24 - expected) / (1 - expected))
    assert found[0]["clusters"] == 6
    assert set(found[0]["per_label"]) == {"Blaming", "Excusing"}
    assert (tmp_path / "a" / "agreement.svg").is_file()


def test_columns_are_named_for_the_data_or_for_the_annotations(tmp_path: Path) -> None:
    rows = [{"nr": r["id"], "who": r["annotator"], "what": r["label"]} for r in LONG]
    file = write_rows(tmp_path / "own.csv", rows)
    names = ("annotations.columns.annotator=who", "annotations.columns.id=nr")
    first = run(
        tmp_path / "a", "agreement", f"data.path={file}", *names, "annotations.columns.label=what"
    )
    second = run(
        tmp_path / "b",
        "agreement",
        "data=table",
        f"data.path={file}",
        *names,
        "data.options.columns.label=what",
    )
    assert first == second
    assert first["examples"] == 24


def test_agreement_at_the_level_of_the_task(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "long.csv", LONG)
    found = run(tmp_path / "out", "agreement", f"data.path={file}", "task=binary")
    # Both behaviours are Resistance: nothing that chance would not give.
    assert found["labels"] == ["Resistance"]
    assert found["percent_agreement"] == 1.0
    assert found["mean_pairwise_cohen_kappa"] is None
    assert found["krippendorff_alpha"] is None
    assert found["fleiss_kappa"] is None


def test_from_dialogues_to_final_labels_in_two_rounds(tmp_path: Path) -> None:
    people = ("ann", "bo", "cy")
    gold = demo_labels()
    assigned = run(tmp_path / "first", "assign", *DEMO, "assign.annotators=[ann,bo,cy]")
    assert assigned["examples"] == 80
    assert sum(assigned["annotators"].values()) == 160
    assert max(assigned["annotators"].values()) - min(assigned["annotators"].values()) <= 1
    listed = rows_of(tmp_path / "first" / "assign.csv")
    assert len({(row["id"], row["annotator"]) for row in listed}) == 160
    for row in json.loads((tmp_path / "first" / "labels.json").read_text("utf-8")):
        assert row["backgroundColor"].startswith("#")

    # ann is always right; bo and cy are wrong on a quarter each, each in a way of one's own.
    rng = random.Random(1)
    wrong = {name: {i for i in gold if rng.random() < 0.25} for name in ("bo", "cy")}

    def answer(name: str, example: str) -> str:
        if example in wrong.get(name, ()):
            names = ("Blaming", "Excusing", "Pessimism")
            others = [label for label in names if label != gold[example]]
            return others[0 if name == "bo" else 1]
        return gold[example]

    exports = tmp_path / "exports"
    shutil.copytree(annotate(tmp_path / "first" / "round1", answer), exports / "round1")
    first = run(tmp_path / "second", "adjudicate", *DEMO, f"annotations.path={exports / 'round1'}")
    assert first["statuses"]["tie"] == len(first["open"]) > 0
    assert first["statuses"]["unanimous"] == 80 - len(first["open"])
    assert first["rounds"][0]["examples"] == 80
    assert 0 < first["rounds"][0]["mean_pairwise_cohen_kappa"] < 1
    agreed = run(tmp_path / "agreed", "agreement", f"annotations.path={exports / 'round1'}")
    for name in ("mean_pairwise_cohen_kappa", "fleiss_kappa", "krippendorff_alpha"):
        assert agreed[name] == first["rounds"][0][name]
        assert agreed["intervals"][name]["low"] < agreed[name] < agreed["intervals"][name]["high"]
    # Who agreed on an example is unanimous about it.
    assert agreed["unanimous_share"] == pytest.approx(first["statuses"]["unanimous"] / 80)
    assert "Labels that most often stood" in (tmp_path / "agreed" / "agreement.md").read_text(
        "utf-8"
    )

    # Each open example goes to the third annotator, and to nobody who judged it.
    before = {(row["id"], row["annotator"]) for row in listed}
    next_round = tmp_path / "second" / "round2"
    asked = {
        (json.loads(line)["example_id"], batch.stem)
        for batch in next_round.glob("*.jsonl")
        for line in batch.read_text("utf-8").splitlines()
    }
    assert {identifier for identifier, _ in asked} == set(first["open"])
    assert not asked & before

    shutil.copytree(annotate(next_round, answer), exports / "round2")
    second = run(tmp_path / "third", "adjudicate", *DEMO, f"annotations.path={exports}")
    assert [row["round"] for row in second["rounds"]] == ["1", "2"]
    # Whoever judged in the second round did so alone.
    assert second["rounds"][1]["mean_pairwise_cohen_kappa"] is None
    both_wrong = wrong["bo"] & wrong["cy"]
    assert second["open"]
    assert set(second["open"]) == both_wrong & set(first["open"])

    todo = tmp_path / "third" / "todo.csv"
    rows = rows_of(todo)
    assert [row["id"] for row in rows] == second["open"]
    assert all("Client: " in row["dialogue"] and not row["final_label"] for row in rows)
    for row in rows:
        row["final_label"] = gold[row["id"]]
    decided = write_rows(tmp_path / "decided.csv", rows)
    last = run(
        tmp_path / "fourth",
        "adjudicate",
        *DEMO,
        f"annotations.path={exports}",
        f"adjudicate.decisions={decided}",
    )
    assert last["open"] == []
    assert last["statuses"]["decided"] == len(rows)
    corpus = read_corpus(
        reader="dialogues", path=tmp_path / "fourth" / "labels.jsonl", taxonomy=None
    )
    final = {example.id: example for example in corpus.examples}
    # Where two were wrong together (each in a way of one's own) nobody won but the decision.
    assert {i: e.label for i, e in final.items()} == gold
    assert all(str(e.rationale).split()[0] in people for e in final.values() if e.rationale)


def test_annotations_that_stand_in_data_path_are_adjudicated_without_dialogues(
    tmp_path: Path,
) -> None:
    file = write_rows(tmp_path / "labels.csv", LONG)
    found = run(tmp_path / "out", "adjudicate", f"data.path={file}")
    verdicts = {row["id"]: row for row in rows_of(tmp_path / "out" / "adjudicate.csv")}
    # Both say Excusing where 12 divides the number, Blaming where neither 3 nor 4 does.
    agreed = {f"e{i}" for i in range(24) if i % 12 == 0 or (i % 3 and i % 4)}
    assert {name for name, row in verdicts.items() if row["label"]} == agreed
    assert len(rows_of(tmp_path / "out" / "todo.csv")) == 24 - len(agreed)
    assert not (tmp_path / "out" / "labels.jsonl").exists()
    named = run(tmp_path / "named", "adjudicate", f"annotations.path={file}")
    assert named == found
    missing = tmp_path / "talks.jsonl"
    missing.write_text('{"session": "s", "turns": [{"speaker": "client", "text": "x"}]}', "utf-8")
    command = [f"annotations.path={file}", "data=dialogues", f"data.path={missing}"]
    assert main(["action=adjudicate", *command]) == 2


def test_predictions_stand_in_the_batches_beforehand(tmp_path: Path) -> None:
    identifier, label = next(iter(demo_labels().items()))
    row: Mapping[str, Any] = {
        "id": identifier,
        "session": None,
        "fold": 0,
        "task": "flat",
        "gold": label,
        "label": "Blaming",
        "probabilities": None,
        "rationale": None,
        "text": "",
        "parsed": True,
    }
    (tmp_path / "predictions.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    found = run(
        tmp_path / "out",
        "assign",
        *DEMO,
        "assign.annotators=[ann,bo]",
        f"assign.predictions={tmp_path / 'predictions.jsonl'}",
        "assign.batch_size=30",
    )
    assert found["filled_in"] == 1
    batches = sorted(p.name for p in (tmp_path / "out" / "round1").iterdir())
    assert batches == [f"{name}.{part}.jsonl" for name in ("ann", "bo") for part in (1, 2, 3)]
    rows = [
        json.loads(line)
        for batch in (tmp_path / "out" / "round1").glob("ann.*")
        for line in batch.read_text("utf-8").splitlines()
    ]
    filled = {row["example_id"]: row["label"] for row in rows if row["label"]}
    assert filled == {identifier: ["Blaming"]}


def test_chinese_annotators_see_chinese_labels_that_are_read_back(tmp_path: Path) -> None:
    run(tmp_path / "out", "assign", *DEMO, "data.language=zh", "assign.annotators=[ann,bo]")
    labels = json.loads((tmp_path / "out" / "labels.json").read_text("utf-8"))
    assert "责怪" in [row["text"] for row in labels]
    batch = tmp_path / "out" / "round1" / "ann.jsonl"
    rows = [json.loads(line) for line in batch.read_text("utf-8").splitlines()]
    assert all("来访者：" in row["text"] for row in rows)
    for name in ("ann", "bo"):
        annotate_as = [{**row, "label": [labels[n % 14]["text"]]} for n, row in enumerate(rows)]
        text = "".join(json.dumps(row) + "\n" for row in annotate_as)
        (tmp_path / "out" / "round1" / f"{name}.jsonl").write_text(text, encoding="utf-8")
    found = run(tmp_path / "agreed", "agreement", f"annotations.path={tmp_path / 'out' / 'round1'}")
    assert found["krippendorff_alpha"] == pytest.approx(1.0)
    assert len(found["labels"]) == 14


def test_batches_are_for_their_owner_only_and_the_rest_holds_no_client_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run(out, "assign", *DEMO, "assign.annotators=[ann,bo]")
    batch = out / "round1" / "ann.jsonl"
    assert batch.stat().st_mode & 0o777 == 0o600
    said = json.loads(batch.read_text("utf-8").splitlines()[0])["text"].rsplit("Client: ")[-1]
    open_files = [out / f"assign.{ending}" for ending in ENDINGS]
    assert not any(said in file.read_text("utf-8") for file in open_files)
    printed = capsys.readouterr().out
    assert said not in printed
    assert "synthetic" in printed


def test_exams_are_marked_and_explained(tmp_path: Path) -> None:
    gold = demo_labels()
    ids = list(gold)[:40]
    wrong = {"ann": 2, "bo": 9}
    answers = [
        {
            "id": item,
            "candidate": name,
            "exam": 1 + place // 20,
            "label": "Blaming"
            if place % 20 < wrong[name] and gold[item] != "Blaming"
            else gold[item],
        }
        for name in wrong
        for place, item in enumerate(ids)
    ]
    file = write_rows(tmp_path / "answers.csv", answers)
    found = run(tmp_path / "out", "exam", *DEMO, f"annotations.path={file}", "exam.top=1")
    key = write_rows(tmp_path / "key.csv", [{"id": i, "label": gold[i]} for i in ids])
    with_key = run(
        tmp_path / "key", "exam", *DEMO, f"annotations.path={file}", f"exam.key={key}", "exam.top=1"
    )
    assert found == with_key
    right = {
        name: [
            sum(
                a["label"] == gold[a["id"]]
                for a in answers
                if (a["candidate"], a["exam"]) == (name, e)
            )
            / 20
            for e in (1, 2)
        ]
        for name in wrong
    }
    assert {c["candidate"]: c["accuracies"] for c in found["candidates"]} == right
    assert [(c["candidate"], c["selected"]) for c in found["candidates"]] == [
        ("ann", True),
        ("bo", False),
    ]
    page = (tmp_path / "out" / "feedback" / "bo.md").read_text("utf-8")
    mistakes = [a for a in answers if a["candidate"] == "bo" and a["label"] != gold[a["id"]]]
    assert page.count("Your label: **Blaming**") == len(mistakes) > 0
    assert all(f"### {a['id']}\n" in page for a in mistakes)
    assert page.count("> Client: ") >= len(mistakes)


def test_table_6_from_its_accuracies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table_6 = {
        "1": (0.53, 0.48, 0.79),
        "2": (0.58, 0.57, 0.62),
        "3": (0.47, 0.57, 0.64),
        "4": (0.47, 0.52, 0.64),
    }
    rows = [
        {"candidate": name, "exam": exam, "accuracy": value}
        for name, values in table_6.items()
        for exam, value in enumerate(values, start=1)
    ]
    file = write_rows(tmp_path / "scores.csv", rows)
    found = run(tmp_path / "out", "exam", f"exam.scores={file}", "exam.ddof=0")
    assert [round(c["mean"], 2) for c in found["candidates"]] == [0.60, 0.59, 0.56, 0.54]
    assert "ddof 0" in capsys.readouterr().out


@pytest.mark.parametrize("ending", ["csv", "xlsx"])
def test_rating_sheets_are_filled_and_read_back(tmp_path: Path, ending: str) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    blank = run(tmp_path / "blank", "ratings", *DEMO, "ratings.size=12", "ratings.raters=[ann,bo]")
    assert len(blank["examples"]) == 12
    criteria = blank["criteria"]
    assert criteria == ["label_alignment", "context_relevance", "rationality", "clarity"]
    points = {"ann": 4, "bo": 3}
    for name, value in points.items():
        file = tmp_path / "blank" / f"ratings_{name}.{ending}"
        if ending == "csv":
            rows = rows_of(file)
            for row in rows:
                row.update(dict.fromkeys(criteria, str(value)))
            write_rows(file, rows)  # type: ignore[arg-type]
        else:
            book = openpyxl.load_workbook(file)
            page = book.active
            header = [cell.value for cell in page[1]]
            for number in range(2, page.max_row + 1):
                for name_of in criteria:
                    page.cell(number, header.index(name_of) + 1, value)
            book.save(file)
    files = ",".join(str(tmp_path / "blank" / f"ratings_{name}.{ending}") for name in points)
    found = run(tmp_path / "out", "ratings", f"ratings.path=[{files}]")
    clarity = found["criteria"]["clarity"]
    assert (clarity["n"], clarity["mean"], clarity["rated_by_all"]) == (24, 3.5, 12)
    assert [(r["rater"], r["mean"]) for r in clarity["raters"]] == [("ann", 4.0), ("bo", 3.0)]
    assert (clarity["exact_agreement"], clarity["within_one"]) == (0.0, 1.0)
    assert clarity["icc_single"] == pytest.approx(0.0)


def test_an_intraclass_correlation_whose_formula_divides_by_zero_is_undefined(
    tmp_path: Path,
) -> None:
    # Shrout & Fleiss, case 2, in fractions: MS of examples 1/6, of raters 0, of error 1/2; the
    # ICC of single raters is (1/6 - 1/2) / (1/6 + 1/2 - 1/3) = -1, that of means has 1/6 - 1/6
    # below the line.
    points = {"ann": (1, 1, 2), "bo": (1, 2, 1)}
    files = [
        write_rows(
            tmp_path / f"{name}.csv",
            [{"id": f"e{place}", "clarity": value} for place, value in enumerate(given)],
        )
        for name, given in points.items()
    ]
    found = run(
        tmp_path / "out",
        "ratings",
        f"ratings.path=[{files[0]},{files[1]}]",
        "ratings.criteria=[clarity]",
    )
    clarity = found["criteria"]["clarity"]
    assert clarity["icc_single"] == pytest.approx(-1)
    assert clarity["icc_mean"] is None


def test_what_people_filled_in_is_never_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assign = ("action=assign", *DEMO, "assign.annotators=[ann,bo]", f"out={out}")
    assert main([*assign]) == 0
    assert main([*assign]) == 0  # the same again does no harm
    annotate(out / "round1", lambda name, example: "Blaming" if name == "bo" else "Excusing")
    before = (out / "round1" / "ann.jsonl").read_bytes()
    assert main([*assign]) == 2
    assert "ann.jsonl: is there already and may have been filled in" in capsys.readouterr().err
    assert (out / "round1" / "ann.jsonl").read_bytes() == before

    adjudicate = ("action=adjudicate", *DEMO, f"annotations.path={out / 'round1'}", f"out={out}")
    assert main([*adjudicate]) == 0
    rows = rows_of(out / "todo.csv")
    rows[0]["final_label"] = "Blaming"
    todo = write_rows(out / "todo.csv", rows)  # type: ignore[arg-type]
    for more in ((), (f"adjudicate.decisions={todo}",)):
        assert main([*adjudicate, *more]) == 2
        assert "todo.csv: is there already" in capsys.readouterr().err
    assert rows_of(todo)[0]["final_label"] == "Blaming"


@pytest.mark.parametrize(
    ("action", "option"),
    [
        ("ratings", "ratings.path"),
        ("exam", "exam.scores"),
        ("agreement", "data.path"),
        ("describe", "data.path"),
        ("lexicon", "data.path"),
        ("validate", "data.path"),
    ],
)
def test_no_input_is_written_over(
    action: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_rows(tmp_path / f"{action}.csv", LONG)
    assert main([f"action={action}", f"{option}={file}", f"out={tmp_path}"]) == 2
    assert f"would write over {option}" in capsys.readouterr().err
    assert rows_of(file) == LONG


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("action=agreement",), "needs annotations.path=FILE"),
        (("action=agreement", "data.path=missing.csv"), "there is no such file"),
        (("action=assign", "assign.annotators=[a,b]"), "needs out=FOLDER"),
        (("action=assign", "assign.annotators=[a]", "out=x"), "name 2 or more"),
        (("action=assign", "assign.annotators=[a,'b/c']", "out=x"), "cannot name a file"),
        (("action=adjudicate",), "needs annotations.path=FILE"),
        (("action=exam",), "needs annotations.path=FILE"),
        (("action=exam", "exam.scores=missing.csv"), "there is no such file"),
        (("action=ratings",), "needs out=FOLDER"),
        (("action=ratings", "ratings.path=missing.csv"), "there is no such file"),
        (("action=exam", "exam.ddof=2"), "exam.ddof"),
        (
            ("action=assign", "assign.predictions=no.jsonl", "assign.annotators=[a,b]", "out=x"),
            "no such",
        ),
    ],
)
def test_what_is_missing_ends_with_2_and_a_mend(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "option", "content", "message"),
    [
        ("d.csv", "adjudicate.decisions", "id,final_label\ne1,Blamin\nx,Blaming", "did you mean"),
        ("d.csv", "adjudicate.decisions", "id,label\ne1,Blaming", "no column 'final_label'"),
        ("k.csv", "exam.key", "id,label\ne1,Blaming\ne1,Excusing", "two correct labels"),
        ("s.csv", "exam.scores", "candidate,exam,accuracy\na,1,62", "write 0.62 for 62 %"),
        ("r.csv", "ratings.path", "id,clarity\ne1,6", "no whole number from 1 to 5"),
    ],
)
def test_faulty_rows_are_listed(
    name: str,
    option: str,
    content: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, annotations = tmp_path / name, write_rows(tmp_path / "long.csv", LONG)
    file.write_text(content + "\n", encoding="utf-8")
    action = option.split(".")[0]
    more = ["ratings.criteria=[clarity]"] if action == "ratings" else []
    arguments = [f"action={action}", f"annotations.path={annotations}", f"{option}={file}", *more]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(file) in error


def test_a_column_of_texts_is_not_taken_for_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "I never told anybody that I took the money from my brother's drawer."
    file = write_rows(tmp_path / "a.csv", [{"id": 1, "annotator": "a", "label": secret}])
    for labels in ("raw", "canonical"):
        assert main(["action=agreement", f"data.path={file}", f"labels={labels}"]) == 2
        printed = capsys.readouterr()
        assert secret not in printed.err + printed.out


@pytest.mark.real_data
def test_annomi_has_the_published_agreement_and_majority(tmp_path: Path) -> None:
    full = Path(os.environ["RECAP_REAL_DATA"]) / "annomi" / "AnnoMI-full.csv"
    data = ("data=annomi", f"data.path={full}", "task=annomi_talk")
    found = run(tmp_path / "a", "agreement", *data)
    assert round(found["fleiss_kappa"], 4) == 0.4669
    assert round(found["mean_pairwise_cohen_kappa"], 4) == 0.4703
    assert round(found["krippendorff_alpha"], 4) == 0.4671
    assert (found["paired_examples"], len(found["annotators"])) == (212, 10)
    votes = run(tmp_path / "b", "adjudicate", *data, "adjudicate.min_votes=1")
    assert votes["labels"] == {"change": 1173, "neutral": 3095, "sustain": 539}
    assert votes["statuses"]["tie"] == 10
    corpus = read_corpus(
        reader="dialogues",
        path=tmp_path / "b" / "labels.jsonl",
        taxonomy=None,
        merge_adjacent=False,
        no_intervention="keep",
    )
    assert len(corpus.examples) == 4807
