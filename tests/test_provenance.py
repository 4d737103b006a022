"""Pages, cards and reports say which model speaks, what it learned from and how good it is."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import openpyxl
import pytest

from recap.cli.command import main
from recap.data.demo import generate_dialogues
from recap.data.readers.native import records_to_jsonl


@pytest.fixture(scope="module")
def annotated(small_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with dialogues, and what a model of a run said of them."""
    root = tmp_path_factory.mktemp("annotated")
    talks = "".join(records_to_jsonl(generate_dialogues(size=20, seed=1, language="en")))
    talks = talks.replace('"session": "demo-en-00001"', '"session": "session1"')
    (root / "talks.jsonl").write_text(talks, encoding="utf-8")
    given = [f"input={root / 'talks.jsonl'}", "decoding=scored"]
    model = small_runs / "trained"
    assert main(["predict", f"model={model}", f"output={root / 'a.jsonl'}", *given]) == 0
    # The same model without its run: as it comes from somebody else.
    shutil.copytree(model / "fold0" / "model", root / "elsewhere")
    there = [f"model={root / 'elsewhere'}", f"output={root / 'b.jsonl'}"]
    assert main(["predict", *there, *given]) == 0
    return root


def text_of(page: Path) -> str:
    body = page.read_text(encoding="utf-8").partition("</style>")[2]
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body)))


def pages(annotated: Path, out: Path, predictions: str, *more: str) -> Path:
    given = [f"data.path={annotated / 'talks.jsonl'}", f"predictions={annotated / predictions}"]
    assert main(["insights", "action=supervision", *given, f"out={out}", *more]) == 0
    assert main(["insights", "action=card", *given, f"out={out}", *more]) == 0
    return out


def test_predict_says_whose_labels_these_are(
    annotated: Path, small_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"input={annotated / 'talks.jsonl'}", f"output={tmp_path / 'o.jsonl'}"]
    assert main(["predict", f"model={small_runs / 'trained'}", *given]) == 0
    printed = capsys.readouterr().out
    assert "run trained, fold" in printed
    assert "demo, a synthetic corpus, and says nothing about real clients" in printed
    noted = json.loads((tmp_path / "o.jsonl.state.json").read_text("utf-8"))["models"]
    part = small_runs / "trained" / noted[0]["part"]
    scores = json.loads((part / "scores.json").read_text("utf-8"))
    assert (noted[0]["n"], noted[0]["macro_f1"]) == (scores["n"], scores["metrics"]["macro_f1"])
    assert (noted[0]["data"], noted[0]["synthetic"], noted[0]["run"]) == ("demo", True, "trained")


def test_pages_tell_model_run_data_and_score_with_n(annotated: Path, tmp_path: Path) -> None:
    out = pages(annotated, tmp_path, "a.jsonl")
    noted = json.loads((annotated / "a.jsonl.state.json").read_text("utf-8"))["models"][0]
    score = f"a macro-F1 of {100 * noted['macro_f1']:.1f} % on {noted['n']} test examples"
    texts = [text_of(out / name) for name in ("supervision-session1.html", "card.html")]
    texts.append(" ".join((out / "card.txt").read_text("utf-8").split()))
    for text in texts:
        assert "Model tiny for the task binary, run trained" in text
        assert "a synthetic corpus, and says nothing about real clients" in text
        assert f"{score}, which are too few to rely on" in text
        assert "The dialogues are synthetic" in text
    assert json.loads((out / "card.json").read_text("utf-8"))["models"] == [noted]


def test_a_model_from_elsewhere_is_not_known(annotated: Path, tmp_path: Path) -> None:
    text = text_of(pages(annotated, tmp_path, "b.jsonl") / "supervision-session1.html")
    assert "Model elsewhere: it is not known which run it comes from" in text
    (annotated / "c.jsonl").write_bytes((annotated / "b.jsonl").read_bytes())
    text = text_of(pages(annotated, tmp_path / "c", "c.jsonl") / "supervision-session1.html")
    assert "Which model gave these labels is not known" in text


def test_turns_have_one_number_in_file_page_card_and_workbook(
    annotated: Path, tmp_path: Path
) -> None:
    lines = (annotated / "a.jsonl").read_text("utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["session"] == "session1"]
    out = pages(annotated, tmp_path, "a.jsonl", "supervision.excel=true")
    page = text_of(out / "supervision-session1.html")
    for row in rows:
        assert f"turn {row['turn']} Client: {row['response'][:20]}" in page
    sheets = openpyxl.load_workbook(out / "supervision-session1.xlsx")
    said = {row[2].value: row[0].value for row in sheets["The whole session"].iter_rows()}
    assert all(said[row["response"]] == row["turn"] for row in rows)
    card = json.loads((out / "card.json").read_text("utf-8"))
    assert f", turn {card['turn']}" in text_of(out / "card.html")
    for text in (page, text_of(out / "card.html"), (out / "card.txt").read_text("utf-8")):
        assert "session session1" not in text.casefold()


def test_resistance_stands_beside_the_behavior_and_the_strip_has_a_legend(tmp_path: Path) -> None:
    turns = [{"speaker": "client", "text": f"words {n}"} for n in range(2)]
    talk = {"session": "s", "turns": turns}
    given = [("Excusing", {"Excusing": 0.25, "Blaming": 0.375, "Collaboration": 0.375})]
    # A model that only knows resistant labels takes everything for resistant.
    given.append(("Blaming", {"Blaming": 0.75, "Excusing": 0.25}))
    answers = [
        {"id": f"s:{n}", "session": "s", "turn": n, "label": label, "parsed": True}
        | {"probabilities": p, "rationale": "because"}
        for n, (label, p) in enumerate(given)
    ]
    for name, rows in (("talks", [talk]), ("answers", answers)):
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    page = text_of(pages(tmp_path, tmp_path / "out", "answers.jsonl") / "supervision-s.html")
    # 0.25 + 0.375 by hand.
    assert "Denying - Excusing P(resistance) 62 %" in page
    assert "P(resistance) is not known" in page
    assert "A bar is an utterance of the client" in page
    assert "Why, in the model's own words" in page
    card = json.loads((tmp_path / "out" / "card.json").read_text("utf-8"))
    assert card["resistance_probability"] == 0.625


def test_a_report_names_data_and_n_and_no_winner_of_few_examples(
    small_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = shutil.copytree(small_runs, tmp_path / "runs")
    for run in ("trained", "words"):
        shutil.rmtree(runs / run / "fold1")
    given = [f"runs={runs / 'trained'},{runs / 'words'}", "resamples=20"]
    assert main(["report", *given, f"out={tmp_path / 'few'}"]) == 0
    few = text_of(tmp_path / "few" / "report.html")
    assert "80 test examples, too few for a winner (fewer than 100)" in few
    assert "has the best" not in few + capsys.readouterr().out
    assert "<strong>" not in (tmp_path / "few" / "report.html").read_text("utf-8")
    assert main(["report", f"runs={small_runs}", "resamples=20", f"out={tmp_path / 'all'}"]) == 0
    page = text_of(tmp_path / "all" / "report.html")
    assert "has the best macro-F1" in page
    assert "160 test examples" in page
    assert "demo (synthetic)" in page
    assert page.index("This corpus is synthetic") < page.index("Overview")
    assert "TF-IDF, linear classifier − " in page or " − TF-IDF, linear classifier" in page
