"""``python -m recap.corpus``: what it prints, the files that it writes, how it ends."""

from __future__ import annotations

import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from recap.corpus.__main__ import main
from recap.corpus.options import ACTIONS

MEASURE = """
import resource, sys, time
from recap.corpus import main
code = main(sys.argv[1:])
seconds = time.process_time()
print(code, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""
# Those who speak in CPsyCounD beside the two, and notes behind the two.
OTHERS = "妈妈 女儿 A B 小强 月月 父母 天远和文姗 孩子 娜娜的母亲 母亲 来访者1 来访者2"
NOTES = "姚先生 程女士 扮演自己 天远 文姗 小李 小王"
PLAYED = "扮演严肃女性 扮演排挤者 扮演老人 扮演丈夫 扮演外婆"
SMALL = ("data.options.size=120",)


def run(folder: Path, *arguments: str) -> tuple[int, Any]:
    action = next((a.split("=")[1] for a in arguments if a.startswith("action=")), "describe")
    code = main([*arguments, f"out={folder}"])
    file = folder / f"{action}.json"
    return code, json.loads(file.read_text("utf-8")) if file.exists() else {}


def write_dialogues(path: Path, dialogues: int) -> int:
    """Write dialogues of twenty different turns, ten of them the client's; return their number."""
    labels = ("Challenging", "Blaming", "Minimum Talk", "Collaboration", None)
    with path.open("w", encoding="utf-8") as file:
        for session in range(dialogues):
            turns = []
            for number in range(10):
                turns.append(
                    {"speaker": "counselor", "text": f"问题 {number} 你怎么看这件事情 {session}"}
                )
                said = {
                    "speaker": "client",
                    "text": f"我不知道该怎么说这件事 {session * 10 + number}",
                }
                label = labels[number % len(labels)]
                turns.append(said if label is None else {**said, "label": label})
            file.write(json.dumps({"session": f"s{session}", "turns": turns}) + "\n")
    return 10 * dialogues


def test_describe_writes_every_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, figures = run(tmp_path, *SMALL)
    assert code == 0
    endings = ("csv", "json", "md", "png", "svg", "tex")
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"describe.{e}" for e in endings]
    with (tmp_path / "describe.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["category"]: row for row in csv.DictReader(file)}
    by_name = {row["name"]: row for row in figures["categories"]}
    assert rows["Resistance"]["n"] == str(by_name["Resistance"]["n"])
    assert float(rows["Blaming"]["mean_words"]) == by_name["Blaming"]["words"]["mean"]
    assert figures["labelled"]["n"] == 120
    tex = (tmp_path / "describe.tex").read_text("utf-8")
    assert r"\toprule" in tex
    assert r"\quad{}\quad{}Blaming & " in tex
    printed = capsys.readouterr().out
    assert "synthetic" in printed
    assert "describe.svg" in printed
    assert "Minimum Talk" in printed


def test_the_same_corpus_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(tmp_path / name, *SMALL)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_examples_are_those_that_training_sees(tmp_path: Path) -> None:
    _, turns = run(tmp_path / "turns", *SMALL)
    _, examples = run(tmp_path / "examples", *SMALL, "describe.unit=examples")
    assert examples["total"]["n"] == turns["dialogues"]["after_counselor"]


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("action=descrbe", "did you mean 'describe'"),
        ("describe.unit=words", "describe.unit"),
        ("describe.tokeniser=tiny", "did you mean 'describe.tokenizer'"),
        ("describe.tokenizer=nowhere", "describe.tokenizer=nowhere"),
        ("cv.folds=3", "no such option"),
        ("data=dialogues", "data.path"),
    ],
)
def test_a_users_fault_is_one_line_and_exit_2(
    argument: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert "Traceback" not in printed.err


def test_help_teaches_with_examples(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capfd.readouterr().out
    assert "recap.corpus: what a corpus of counseling dialogues holds" in printed
    assert printed.count("python -m recap.corpus action=") >= 3
    assert "backbone" not in printed


def test_rows_at_fault_stop_the_command_or_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "data.jsonl"
    good = {"id": "a", "response": "No.", "label": "Blaming"}
    bad = {"id": "b", "response": "Yes.", "label": "Blamming"}
    file.write_text("\n".join(map(json.dumps, (good, bad))), encoding="utf-8")
    arguments = ("data=dialogues", f"data.path={file}")
    assert main([*arguments]) == 2
    assert f"{file}:2: label" in capsys.readouterr().err
    code, figures = run(tmp_path / "out", *arguments, "data.on_error=skip")
    assert code == 0
    assert (figures["rows_read"], figures["rows_rejected"]) == (2, 1)
    assert "1 of 2 rows were left out" in capsys.readouterr().out


def test_raw_labels_stand_as_they_are_unless_they_look_like_texts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "data.csv"
    file.write_text("text,label\n" + "".join(f"t{i},code {i % 3}\n" for i in range(9)), "utf-8")
    code, figures = run(tmp_path / "out", "data=table", f"data.path={file}", "labels=raw")
    assert code == 0
    assert [row["n"] for row in figures["categories"]] == [3, 3, 3]
    file.write_text("text,label\n" + "".join(f"t{i},said {i}\n" for i in range(101)), "utf-8")
    capsys.readouterr()
    assert main(["data=table", f"data.path={file}", "labels=raw"]) == 2
    printed = capsys.readouterr()
    assert "data.options.columns.label" in printed.err
    assert "said" not in printed.err + printed.out


@pytest.mark.slow
def test_a_hundred_thousand_utterances_are_described_in_20_seconds_and_1_gib(
    tmp_path: Path,
) -> None:
    file = tmp_path / "large.jsonl"
    assert write_dialogues(file, 10_000) == 100_000
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, "data=dialogues", f"data.path={file}", f"out={tmp_path}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    code, seconds, gib = int(measured[-3]), float(measured[-2]), float(measured[-1])
    assert code == 0
    assert json.loads((tmp_path / "describe.json").read_text("utf-8"))["total"]["n"] == 100_000
    print(f"100,000 utterances: {seconds:.1f} s of processor time, {gib:.2f} GiB")
    assert seconds < 20
    assert gib < 1


@pytest.mark.real_data
def test_the_figures_of_annomi_are_reproduced(tmp_path: Path, real_data: Path) -> None:
    file = real_data / "annomi" / "AnnoMI-simple.csv"
    code, found = run(tmp_path, "data=annomi", f"data.path={file}", "task=annomi_talk")
    assert code == 0
    dialogues, total = found["dialogues"], found["total"]
    rows = {row["name"]: row["n"] for row in found["categories"]}
    assert rows == {"neutral": 3102, "change": 1174, "sustain": 541}
    assert found["rows_read"] == 9699
    assert (dialogues["dialogues"], dialogues["client_turns"]) == (133, 4817)
    assert dialogues["counselor_turns"] == 4882
    assert dialogues["after_counselor"] == 4785
    assert dialogues["adjacent_same_speaker"] == 38
    assert dialogues["client_begins"] == 17
    assert round(total["words"]["mean"], 3) == 14.974
    assert round(total["characters"]["mean"], 3) == 75.774


@pytest.mark.real_data
def test_the_figures_of_the_chinese_corpora_are_reproduced(tmp_path: Path, real_data: Path) -> None:
    file = real_data / "cpsycound" / "cpsycound_raw.jsonl"
    # The known figures count none but 来访者： and 心理咨询师： as speakers.
    names = [*OTHERS.split(), *(f"来访者（{note}）" for note in NOTES.split())]
    names += [f"心理咨询师（{note}）" for note in PLAYED.split()]
    mapped = ", ".join(f"{name}: text" for name in names)
    option = f"data.options.speakers={{{mapped}}}"
    code, found = run(tmp_path / "c", "data=transcript", f"data.path={file}", option)
    assert code == 0
    dialogues, total = found["dialogues"], found["total"]
    assert (dialogues["dialogues"], found["empty"]) == (3084, 2)
    assert (total["n"], dialogues["counselor_turns"]) == (24974, 24806)
    assert dialogues["adjacent_same_speaker"] == 609
    assert dialogues["client_begins"] == 3084
    # Their lengths leave out the blank lines inside of turns.
    assert round(total["characters"]["mean"], 2) == 33.08
    assert 54.574 < dialogues["counselor_characters"]["mean"] < 54.63

    psyguard = ("data=psyguard", "labels=raw", "data.options.multi_label=first")
    file = real_data / "psyguard" / "valid.json"
    code, found = run(tmp_path / "p", *psyguard, f"data.path={file}")
    assert code == 0
    total = found["total"]
    assert (total["n"], round(total["characters"]["mean"], 3)) == (1480, 29.603)


def write_rows(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


SECRET = "13812345678"


def test_validate_lists_every_fault_and_prints_no_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_rows(
        tmp_path / "data.jsonl",
        {"id": "a", "response": f"ring {SECRET} tonight", "label": "Blaming"},
        {"id": "b", "response": "never", "label": "Blamming"},
        {"id": "c", "response": "", "label": "Blaming"},
        {"id": "a", "response": "never mind", "label": "Excusing"},
        {"id": "d", "response": f"ring {SECRET} tonight", "label": "Excusing"},
        {"id": "e", "response": "fine", "label": "Blaming", "rationale": "This is Excusing."},
    )
    arguments = ("action=validate", "data=dialogues", f"data.path={file}")
    code, found = run(tmp_path / "out", *arguments)
    printed = capsys.readouterr()
    assert code == 2
    assert "3 of 6 rows cannot be used" in printed.err
    assert [(fault["line"], fault["field"]) for fault in found["faults"]] == [
        (2, "label"),
        (3, "response"),
        (4, "id"),
    ]
    assert all(fault["reason"] and fault["mend"] for fault in found["faults"])
    counts = {kind: n for kind, n in found["hint_counts"].items() if n}
    assert counts == {"label_conflict": 1, "rationale_names_other": 1, "phone_like": 2}
    assert [hint["line"] for hint in found["hints"]] == [5, 6, 1, 5]
    written = "".join(path.read_text("utf-8") for path in (tmp_path / "out").iterdir())
    for text in (printed.out, printed.err, written):
        assert SECRET not in text
        assert "tonight" not in text
    assert "did you mean 'Blaming'" in written

    code, _ = run(tmp_path / "skipped", *arguments, "data.on_error=skip")
    assert code == 0


def test_validate_of_a_sound_corpus_ends_with_0(tmp_path: Path) -> None:
    code, found = run(tmp_path, "action=validate", *SMALL)
    assert code == 0
    assert (found["rows_rejected"], found["faults"]) == (0, [])
    assert found["labelled"] == 120


def test_validate_of_an_empty_file_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_rows(tmp_path / "data.jsonl")
    assert main(["action=validate", "data=dialogues", f"data.path={file}"]) == 2
    assert "holds no rows" in capsys.readouterr().err


def test_lexicon_follows_the_task_and_says_its_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    binary = ("action=lexicon", "data.options.size=400", "task=binary", "lexicon.top_k=3")
    code, found = run(tmp_path / "binary", *binary)
    assert code == 0
    assert [row["name"] for row in found["categories"]] == ["Resistance", "Collaboration"]
    assert all(len(row["terms"]) == 3 for row in found["categories"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "against the rest, corpus prior, tokens: words" in printed
    assert "at least 5 times" in printed

    code, found = run(
        tmp_path / "one",
        *("action=lexicon", "data.options.size=400", "lexicon.contrast=collaboration"),
        *("lexicon.prior=uniform", "lexicon.prior_tokens=20", "data.language=zh"),
    )
    assert code == 0
    assert "Collaboration" not in [row["name"] for row in found["categories"]]
    printed = " ".join(capsys.readouterr().out.split())
    assert "uniform prior of 20 tokens" in printed
    assert "jieba where a text is Chinese" in printed


def test_lexicon_needs_two_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"id": "a", "response": "no no", "label": "Blaming"}
    file = write_rows(tmp_path / "data.jsonl", row)
    arguments = ["action=lexicon", "data=dialogues", f"data.path={file}"]
    assert main(arguments) == 2
    assert "needs two" in capsys.readouterr().err
    assert main([*arguments, "lexicon.contrast=Nobody"]) == 2
    assert "is no label of task" in capsys.readouterr().err


@pytest.mark.parametrize(("language", "title"), [("en", "Arguing"), ("zh", "争辩")])
def test_the_codebook_is_a_page_of_its_own(tmp_path: Path, language: str, title: str) -> None:
    code, found = run(tmp_path, "action=codebook", f"codebook.language={language}")
    assert code == 0
    page = (tmp_path / "codebook.html").read_text("utf-8")
    assert "http" not in page.replace("http-equiv", "")
    assert f"<h3>{title}" in page or title in page
    markdown = (tmp_path / "codebook.md").read_text("utf-8")
    prompt = (tmp_path / "codebook_prompt.txt").read_text("utf-8")
    assert len(found["categories"]) == 19
    for category in found["categories"]:
        for text in (category["definition"], category["example"], category["contrast"]):
            assert text is None or (text in markdown)
        assert category["definition"] in prompt
    confusable = {c["name"]: c["confusable"] for c in found["categories"]}
    title = {c["name"]: c["title"] for c in found["categories"]}
    assert title["Discounting"] in confusable["Challenging"]
    assert title["Challenging"] in confusable["Discounting"]
    assert confusable["Denying"] == []


def test_the_codebook_in_a_prompt_file_fills_its_place(tmp_path: Path) -> None:
    from recap.tasks.task import read_prompt_file

    run(tmp_path, "action=codebook")
    text = read_prompt_file(tmp_path / "codebook_prompt.txt", language="en")
    assert "{dialogue}" in text
    assert "{format}" in text


def test_hints_on_a_table_of_utterances_name_the_line_of_each(tmp_path: Path) -> None:
    file = tmp_path / "talk.csv"
    rows = ("s,counselor,Well?", "s,client,QQ 1234567", "s,client,", "s,client,a@b.org")
    file.write_text("session,speaker,text\n" + "\n".join(rows) + "\n", encoding="utf-8")
    code, found = run(tmp_path / "out", "action=validate", "data=table", f"data.path={file}")
    assert code == 2
    assert [(fault["line"], fault["field"]) for fault in found["faults"]] == [(4, "text")]
    lines = {hint["kind"]: hint["line"] for hint in found["hints"]}
    assert lines == {"qq_like": 3, "email_like": 5}


def test_help_names_every_action_and_every_choice(
    capfd: pytest.CaptureFixture[str], project_root: Path
) -> None:
    assert main(["--help"]) == 0
    printed = capfd.readouterr().out
    for action in ACTIONS:
        assert f"\n{action}: " in printed
    for group in ("data", "task"):
        choices = sorted(file.stem for file in (project_root / "conf" / group).glob("*.yaml"))
        assert choices
        assert f" {group}: {', '.join(choices)} " in " ".join(printed.split())


def test_every_action_has_its_options_in_the_configuration(project_root: Path) -> None:
    from recap.cli.compose import load_verb

    config = load_verb("corpus")
    plain = yaml.safe_load((project_root / "conf" / "corpus.yaml").read_text("utf-8"))
    for action in ACTIONS:
        options = json.loads(json.dumps(dataclasses.asdict(getattr(config, action))))
        assert options == plain[action]
        assert getattr(config, action) == type(getattr(config, action))()


def test_a_sweep_runs_every_action(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["-m", "action=describe,codebook", *SMALL, "out=out"]) == 0
    assert {"describe.json", "codebook.json"} <= {p.name for p in (tmp_path / "out").iterdir()}


def test_without_matplotlib_there_are_tables_and_a_word_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _ = run(tmp_path, *SMALL)
    assert code == 0
    assert "pip install recap-counseling[plot]" in " ".join(capsys.readouterr().out.split())
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".md", ".tex", ".csv"}
    assert ".svg" not in (tmp_path / "describe.md").read_text("utf-8")


def test_a_folder_that_cannot_be_written_is_the_users_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main([*SMALL, f"out={tmp_path / 'file'}"]) == 2
    assert "another folder" in capsys.readouterr().err


def test_histories_are_measured_in_tokens_of_a_chosen_tokenizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(tmp_path / "tokenizer.json"))
    turns = [
        {"speaker": "counselor", "text": "How are you"},
        {"speaker": "client", "text": "Not so well"},
        {"speaker": "counselor", "text": "Tell me"},
        {"speaker": "client", "text": "No"},
    ]
    file = write_rows(tmp_path / "data.jsonl", {"session": "s", "turns": turns})
    corpus = ("data=dialogues", f"data.path={file}")
    for name in (tmp_path, tmp_path / "tokenizer.json"):
        _, found = run(tmp_path / "out", *corpus, f"describe.tokenizer={name}")
        assert (found["history_tokens"]["mean"], found["history_tokens"]["most"]) == (5.5, 8)
    _, found = run(tmp_path / "tiny", *corpus, "describe.tokenizer=tiny")
    assert found["history_tokens"]["most"] >= 8
    broken = tmp_path / "broken.json"
    broken.write_text("{}", encoding="utf-8")
    capsys.readouterr()
    assert main([*corpus, f"describe.tokenizer={broken}"]) == 2
    assert "is no tokenizer" in capsys.readouterr().err


def test_a_corpus_whose_rows_are_all_rejected_is_no_empty_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_rows(tmp_path / "data.jsonl", {"id": "a", "response": "no", "label": "Nonsense"})
    assert main(["data=dialogues", f"data.path={file}", "data.on_error=skip"]) == 2
    assert "all 1 rows were rejected; action=validate" in capsys.readouterr().err


@pytest.mark.real_data
def test_the_words_of_annomi_are_those_of_its_topics(tmp_path: Path, real_data: Path) -> None:
    file = real_data / "annomi" / "AnnoMI-simple.csv"
    arguments = ("action=lexicon", "data=annomi", f"data.path={file}", "task=annomi_talk")
    code, found = run(tmp_path, *arguments)
    assert code == 0
    terms = {row["name"]: {t["term"] for t in row["terms"]} for row in found["categories"]}
    assert {"i'll", "i need"} <= terms["change"]
    assert {"smoking", "it's"} <= terms["sustain"]
    assert {"yeah", "okay"} <= terms["neutral"]


@pytest.mark.real_data
def test_the_faults_of_cpsycound_are_found(tmp_path: Path, real_data: Path) -> None:
    file = real_data / "cpsycound" / "cpsycound_raw.jsonl"
    arguments = ("action=validate", "data=transcript", f"data.path={file}", "data.language=zh")
    code, found = run(tmp_path, *arguments)
    assert code == 2
    # In the order of lines; speakers stand once, where the first of them is.
    reasons = {f["field"]: f["reason"] for f in found["faults"]}
    assert reasons.pop("text").startswith("unknown speakers: 妈妈 (9), 女儿 (8), B (5), ")
    assert reasons == {"turns[44].text": "is empty", "turns[60].text": "is empty"}
    lines = [f["line"] for f in found["faults"]]
    assert lines == sorted(lines)
    # One dialogue is there twice, under two names: all of its utterances are repeats.
    assert found["hint_counts"]["duplicate"] > 5
