"""What users type, understood as it is meant or answered with one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import recap
from recap.cli import command as cli
from recap.cli.arguments import SCHEMAS, understood
from recap.cli.compose import all_folders, load_verb
from recap.errors import ConfigError
from recap.plan.options import load_plan

TALK = "session,speaker,text,label\ns,T,Why?,\ns,C,No,sustain\ns,T,And?,\ns,C,Yes,change\n"
SPEAKERS = "data.options.speakers={T: counselor, C: client}"
STRANGE = (
    "pydantic",
    "antlr",
    "lexer",
    "hydra",
    "omegaconf",
    "Traceback",
    "NoViableAlt",
    "mismatched",
)


def one_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line that a refused command prints."""
    assert cli.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert not [word for word in STRANGE if word.casefold() in line.casefold()]
    return line.removeprefix("error: ")


def test_there_is_a_schema_for_every_verb() -> None:
    assert SCHEMAS.keys() == cli.VERBS.keys()


@pytest.mark.parametrize(
    "name",
    [
        *("数据.csv", "Gespräch 3.csv", "o'brien.csv", 'a "quoted" one.csv', "a,b.csv", "a=b.csv"),
        *("x [1].csv", "[old] x.csv", "{x}.csv", "100%#1 & $x;!.csv", "🙂.csv", "C:\\dir\\x.csv"),
        *(
            "o’brien.csv",
            "（全角）：，.csv",
            "null.csv",
            "~x.csv",
            "--x.csv",
            "x(1).csv",
            "1e3.csv",
        ),
    ],
)
def test_a_file_of_any_name_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(TALK, encoding="utf-8")
    given = ["describe", "data=table", f"data.path={name}", SPEAKERS, "task=annomi_talk", "out=o"]
    assert cli.main(["corpus", *given]) == 0, capsys.readouterr().err
    figures = json.loads((tmp_path / "o" / "describe.json").read_text(encoding="utf-8"))
    assert figures["rows_read"] == 4


@pytest.mark.parametrize(
    "typed",
    [
        [SPEAKERS],
        # As shells hand them over where nobody quotes them.
        SPEAKERS.split(" "),
        ["data.options.speakers=T:counselor", "data.options.speakers=C:client"],
        ["data.options.speakers.T=counselor", "data.options.speakers.C=client"],
        ["data.options.speakers={'T': \"counselor\", C: 'client'}"],
        # As documents and other keyboards have it.
        ["data.options.speakers={“T”: counselor, ‘C’: client}"],
        ["data.options.speakers＝｛T：counselor，C：client｝"],
        ["data.options={speakers: {T: counselor, C: client}}"],
        ["data={options: {speakers: {T: counselor, C: client}}}"],
        ["--data.options.speakers", "{T: counselor, C: client}"],
    ],
)
def test_a_mapping_is_understood_however_it_is_typed(typed: list[str]) -> None:
    speakers = recap.load_config(typed).data.options["speakers"]
    assert speakers == {"T": "counselor", "C": "client"}


@pytest.mark.parametrize(
    ("typed", "mapping"),
    [
        (
            "data.options.speakers={治疗师: counselor, O'Brien: client}",
            {"治疗师": "counselor", "O'Brien": "client"},
        ),
        ("data.options.speakers={'A, B: C': other}", {"A, B: C": "other"}),
        (
            "data.options.speakers={No: client, 1: other, null: text}",
            {"No": "client", "1": "other", "null": "text"},
        ),
        ("data.options.speakers={Dr. X: client}", {"Dr. X": "client"}),
        ("data.options.speakers.张三=client", {"张三": "client"}),
        (r"data.options.speakers={C:\x: client}", {r"C:\x": "client"}),
    ],
)
def test_names_in_a_mapping_may_be_anything(typed: str, mapping: dict[str, str]) -> None:
    assert recap.load_config([typed]).data.options["speakers"] == mapping


def test_numbers_null_and_lists_in_mappings_are_what_they_seem() -> None:
    typed = "callbacks.mine={name: pkg.mod:Class, rate: 1e-3, n: 3, on: true, off: null, l: [a,1]}"
    mine = recap.load_config([typed]).callbacks["mine"]
    assert mine == {
        "name": "pkg.mod:Class",
        "rate": 1e-3,
        "n": 3,
        "on": True,
        "off": None,
        "l": ["a", 1],
    }
    columns = "annotations.columns={id: [A, B C], label: null, annotator: 标注员}"
    config = load_verb("corpus", [columns])
    assert config.annotations.columns == {"id": ["A", "B C"], "label": None, "annotator": "标注员"}
    table = recap.load_config(["data=table", "data.options.columns={turn: false}"])
    assert table.data.options["columns"] == {"turn": False}
    sheet = recap.load_config(["data=table", "data.options.sheet=2024"]).data.options["sheet"]
    assert sheet == "2024"


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("[张三,李四]", ["张三", "李四"]),
        ("[张三，李四]", ["张三", "李四"]),
        ("张三、李四", ["张三", "李四"]),
        ("[1,2,3]", ["1", "2", "3"]),
        ("[01, 1.0, true]", ["01", "1.0", "true"]),
        ("[O'Brien, 'a, b', “c d”]", ["O'Brien", "a, b", "c d"]),
        ("ann,bo", ["ann", "bo"]),
        ("Ann Lee", ["Ann Lee"]),
    ],
)
def test_a_list_of_names_is_understood(typed: str, names: list[str]) -> None:
    config = load_verb("corpus", [f"assign.annotators={typed}"])
    assert config.assign.annotators == names


@pytest.mark.parametrize("run", ["1e3", "007", "1_000", "true", "a'b", "名", "no", "1.10"])
def test_a_text_stays_as_it_was_typed(run: str) -> None:
    assert recap.load_config([f"run={run}"]).run == run


@pytest.mark.parametrize(
    ("typed", "option", "value"),
    [
        (["seed", "=", "3"], None, None),
        (["--seed=3"], "seed", 3),
        (["--seed", "3"], "seed", 3),
        (["—seed", "3"], "seed", 3),
        (["seed＝３"], "seed", 3),
        (["\u00a0seed =\u00a03\u00a0"], "seed", 3),
        (["+seed=3"], "seed", 3),
        (["seed=1", "seed=3"], "seed", 3),
        (["--rationale=false"], "rationale", False),
        (["rationale=no"], "rationale", False),
        (["runs_dir=“my runs”"], "runs_dir", "my runs"),
        (["runs_dir='my", "runs'"], "runs_dir", "my runs"),
        (["runs_dir=~/x"], "runs_dir", str(Path("~/x").expanduser())),
        (["global_batch_size=1_000"], "global_batch_size", 1000),
    ],
)
def test_an_option_is_understood_however_it_is_typed(
    typed: list[str], option: str | None, value: object
) -> None:
    if option is None:
        with pytest.raises(ConfigError, match="seed: its value goes behind a =; write seed=VALUE"):
            recap.load_config(typed)
    else:
        assert getattr(recap.load_config(typed), option) == value


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("train data.path=", "data.path: nothing stands behind the =; write data.path=VALUE"),
        ("train seed=abc", "seed: has to be a whole number, not 'abc'"),
        ("train seed=-1", "seed: has to be at least 0, not -1"),
        ("train trainer.max_epochs=1.5", "trainer.max_epochs: has to be a whole number, not 1.5"),
        ("train optimizer.learning_rate=abc", "has to be a number, not 'abc'"),
        ("train cv.fold=x", "cv.fold: has to be 'all', 'final' or a whole number, not 'x'"),
        ("train rationale=maybe", "rationale: has to be true or false, not 'maybe'"),
        ("train prompt.history=ful", "not 'ful' (did you mean 'full'?)"),
        ("train optimizer.betas=[1,2,3]", "has to be a list of at most 2, not a list of 3"),
        ("train optimizer.betas=0.9", "optimizer.betas: has to be a longer list, not a list of 1"),
        ("train batch_size=4", "there is no such option; write global_batch_size=4"),
        ("train task.labels=[Sulking]", "taxonomy 'psyfire' has no category 'Sulking'"),
        ("train data=table data.path=[a,b]", "takes one file, a folder, or a pattern"),
        ("train run=a/b", "run: has to be the name of one folder"),
        ("train lr=1e-5", "lr: there is no such option; write optimizer.learning_rate=1e-5"),
        ("train epochs=3", "epochs: there is no such option; write trainer.max_epochs=3"),
        ("train folds=3", "write cv.folds=3"),
        ("evaluate learning_rate=3", "optimizer.learning_rate or encoder.learning_rate"),
        ("train data=sessions.csv", "write data=table data.path=sessions.csv"),
        ("predict data=talks.vtt", "write data=vtt data.path=talks.vtt"),
        ("train -m backbone=tiny,/models/x", "write backbone.path=/models/x apart from names"),
        ("plan dry_run=true", "dry_run: there is no such option"),
        ("train client.model=x", "client.model: only recap.prompt has this option"),
        ("train seed 3", "seed: its value goes behind a =; write seed=VALUE"),
        ("train data.path=Gespräch 3.csv", 'quotation marks: "data.path=Gespräch 3.csv"'),
        ("train seed=1,2", "seed: several values; add -m to run one job for each"),
        ("train finetune.rank=4", "finetune.rank: belongs to finetune=lora"),
        ("train data.options.speakers={T", "data.options.speakers: a bracket stays open"),
        (
            "train data.options.speakers={T}",
            "is a mapping; write 'data.options.speakers={NAME: VALUE",
        ),
        ("train data.options.speakers=T", "is a mapping"),
        (
            "train checkpoint=5",
            "checkpoint: holds several options; name one of checkpoint.every_steps",
        ),
        ("train trainer=null", "trainer: null is no choice"),
        ("train 数据=x", "数据: there is no such option"),
        ("train =3", "=3: no option is named"),
        ("train --seed", "seed: nothing stands behind the ="),
        ("train --cfg", "--cfg: needs a value behind it"),
        ("train --cfg foo", "--cfg foo: there is no such flag"),
        ("train --config-name=x", "config_name: there is no such option"),
        ("train data.path=${foo}", "what stands in ${…} is no option"),
        ("train data.path=a${b", "what stands in ${…} is no option"),
        (
            "predict threshold=x",
            "threshold: has to be a number or a mapping, as {NAME: VALUE}, not 'x'",
        ),
        ("predict threshold={Resistance:x}", "threshold.Resistance: has to be a number, not 'x'"),
        ("predict task=binary", "task: there is no such option"),
        ("predict talks.txt", "name the file to write with output="),
        ("predict talks.txt output=o.csv", "name the model with model=FOLDER"),
        ("evaluate binary=runs/B", "name one thing to score: model=FOLDER, predictions=FILE"),
        ("corpus describ", "not 'describ' (did you mean 'describe'?)"),
        ("corpus exam.ddof=2", "exam.ddof: has to be 0 or 1, not 2"),
        ("insights sesions", "not 'sesions' (did you mean 'sessions'?)"),
        ("report nowhere", "runs=nowhere: stands for no run folder"),
        ("plan x", "x: stands without an option"),
        ("seed=3 train", "the verb comes first: recap train seed=3"),
    ],
)
def test_what_cannot_be_meant_is_answered_in_one_sentence(
    typed: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in one_error(capsys, *typed.split(" "))


@pytest.mark.parametrize("verb", ["corpus describe", "train", "plan"])
def test_a_file_without_its_option_is_answered_with_it(
    verb: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my talk.csv").touch()
    said = one_error(capsys, *verb.split(), "my talk.csv")
    assert said == (
        'my talk.csv: stands without an option; write data=table data.path="my talk.csv"'
    )


@pytest.mark.parametrize(
    ("typed", "chosen"),
    [
        ("backbone.path=/models/x", ["backbone.path='/models/x'", "backbone=local"]),
        ("backbone=/models/x", ["backbone.path='/models/x'", "backbone=local"]),
        ("backbone=x.Q4_K_M.gguf", ["backbone.path=x.Q4_K_M.gguf", "backbone=local"]),
        ("backbone=~/models/x", [f"backbone.path='{Path.home()}/models/x'", "backbone=local"]),
        ("backbone={path: /x}", ["backbone.path='/x'", "backbone=local"]),
        ("backbone=/x,/y", ["backbone.path='/x','/y'", "backbone=local"]),
        ("backbone.hub_id=me/x", ["backbone.hub_id=me/x", "backbone=hub"]),
        ("backbone=qwen7b backbone.path=/x", ["backbone=qwen7b", "backbone.path='/x'"]),
        ("backbone.path=null", ["backbone.path=null"]),
    ],
)
@pytest.mark.parametrize("command", ["train", "prompt", "plan"])
def test_weights_of_ones_own_choose_the_backbone(
    command: str, typed: str, chosen: list[str]
) -> None:
    once = understood(command, typed.split(" "), lambda _: all_folders())[1]
    assert once == chosen
    assert understood(command, once, lambda _: all_folders())[1] == chosen


def test_a_plan_has_the_options_of_prompts() -> None:
    plan = load_plan(["client=openai", "client.model=m", "shots=1", "privacy.allow_external=true"])
    assert plan.prompted is not None
    assert (plan.prompted.client.model, plan.prompted.shots) == ("m", 1)


def test_words_without_an_option_are_understood() -> None:
    assert load_verb("corpus", ["agreement"]).action == "agreement"
    assert load_verb("report", ["runs/a", "runs/b"]).runs == (
        "runs/a",
        "runs/b",
    )
    predict = load_verb("predict", ["Gespräch 3.vtt", "output=a.jsonl"])
    assert (predict.input, predict.data.reader) == ("Gespräch 3.vtt", "vtt")


@pytest.mark.parametrize("typed", [["--version"], ["train", "--version"], ["-V"]])
def test_the_version_is_recaps(typed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(typed) == 0
    assert capsys.readouterr().out == f"recap {recap.__version__}\n"


def test_values_of_a_sweep_may_hold_blanks_and_commas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("Gespräch 3.csv", "a,b.csv", "数据.csv"):
        (tmp_path / name).write_text(TALK, encoding="utf-8")
    swept = "data.path=Gespräch 3.csv,'a,b.csv',数据.csv"
    given = ["describe", "data=table", swept, SPEAKERS, "task=annomi_talk"]
    assert cli.main(["corpus", "-m", *given]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert [
        printed.count(f"{n}: 2 counselor") for n in ("Gespräch 3.csv", "a,b.csv", "数据.csv")
    ] == [1] * 3


@pytest.mark.parametrize(
    "typed",
    [
        [SPEAKERS],
        ["data.path=o'b.csv"],
        ["-m", "seed=1,2"],
        [r"data.path=C:\x" + "\\"],
        ["seed=range(1,3)"],
    ],
)
def test_what_was_understood_is_understood_again_alike(typed: list[str]) -> None:
    flags, overrides = understood("train", typed, all_folders)
    assert understood("train", [*flags, *overrides], all_folders) == (flags, overrides)


def test_a_data_choice_brings_its_task_unless_one_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recap.load_config(["data=annomi"]).task.name == "annomi_talk"
    assert recap.load_config(["data=annomi", "task=binary"]).task.name == "binary"
    assert recap.load_config(["data=annomi", "experiment=smoke"]).task.name == "annomi_talk"
    columns = ("transcript_id", "utterance_id", "interlocutor", "utterance_text")
    rows = [
        ",".join((*columns, "main_therapist_behaviour", "client_talk_type", "annotator_id")),
        *(f"1,0,client,No,,{talk},{who}" for who, talk in enumerate(("sustain", "sustain"))),
        *(f"1,1,client,Yes,,{talk},{who}" for who, talk in enumerate(("change", "neutral"))),
    ]
    file = tmp_path / "full.csv"
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    given = ["action=agreement", "data=annomi", f"data.path={file}", f"out={tmp_path / 'o'}"]
    assert cli.main(["corpus", *given]) == 0, capsys.readouterr().err
    figures = json.loads((tmp_path / "o" / "agreement.json").read_text(encoding="utf-8"))
    # Fleiss by hand: P = (1 + 0) / 2; shares 1/2, 1/4, 1/4; Pe = 3/8; (1/2 - 3/8) / (5/8) = 0.2.
    assert figures["fleiss_kappa"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    "table",
    ["text,who\nNo,x\n", "text,label\nNo,Blaming\nYes,oops\n", "text,label\nNo,Blaming\n"],
)
def test_a_table_without_speakers_is_told_so_first(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "t.csv"
    file.write_text(table, encoding="utf-8")
    given = ["data=table", f"data.path={file}", "rationale=false", f"runs_dir={tmp_path}"]
    assert cli.main(["train", *given]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        f"error: {file}: no column is recognized as speaker or session (there are "
    )
    assert "data.options.columns={speaker: NAME, session: NAME}" in said
    assert "on_error" not in said
    assert "no_intervention" not in said


@pytest.mark.parametrize(
    ("file", "typed", "right"),
    [
        ("talk.csv", "dialogues", "table"),
        ("talk.txt", "dialogues", "transcript"),
        ("talk.vtt", "dialogues", "vtt"),
        ("talk.jsonl", "table", "dialogues"),
    ],
)
def test_a_reader_of_another_kind_of_file_is_answered_with_the_right_one(
    file: str,
    typed: str,
    right: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    line = '{"session": "s", "turns": []}' if file.endswith("jsonl") else "T: Why?"
    Path(file).write_text(f"{line}\n", encoding="utf-8")
    said = one_error(capsys, "corpus", "describe", f"data={typed}", f"data.path={file}")
    assert said.startswith(f"{file}: ")
    assert said.endswith(f"; read it with data={right}")


def test_the_console_script_takes_what_a_shell_hands_over(
    tmp_path: Path, project_root: Path
) -> None:
    (tmp_path / "Gespräch 3.csv").write_text(TALK, encoding="utf-8")
    line = (
        f"{sys.executable} -m recap corpus describe data=table "
        "data.path=Gespräch\\ 3.csv task=annomi_talk "
        "data.options.speakers={T: counselor, C: client}"
    )
    done = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(project_root)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Gespräch 3.csv: 2 counselor, 2 client and 0 other turns" in done.stdout


def test_a_page_that_is_not_read_to_its_end_is_no_error(project_root: Path) -> None:
    line = f"set -o pipefail; {sys.executable} -m recap train --options | head -1"
    environment = {**os.environ, "PYTHONPATH": str(project_root)}
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.stdout, done.stderr) == ("task.name: text = fine_grained\n", "")
