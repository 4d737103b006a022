"""The command: files in and out, exit codes, and a process that is killed for good."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import talk
from builders import read_jsonl
from detectors import LATER, TALK, small_task, write_cascade, write_model

import recap
from recap.predict import __main__ as predict
from recap.records import Dialogue
from recap.train import __main__ as train


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "m", small_task("binary"))


def as_row(dialogue: Dialogue) -> dict[str, Any]:
    turns = [
        {"speaker": t.speaker, "text": t.text, **({"id": t.id} if t.id else {})}
        for t in dialogue.turns
    ]
    return {"session": dialogue.session, "turns": turns}


def write_rows(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_command_writes_what_the_detector_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    binary, fine_grained = write_cascade(tmp_path)
    source = write_rows(tmp_path / "in.jsonl", as_row(TALK), as_row(LATER))
    arguments = [f"binary={binary}", f"fine_grained={fine_grained}", "threshold=0"]
    code = predict.main([*arguments, f"input={source}", f"output={tmp_path / 'out.jsonl'}"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    detector = recap.Detector.from_pretrained(
        binary=binary, fine_grained=fine_grained, threshold=0.0
    )
    rows = read_jsonl(tmp_path / "out.jsonl")
    expected = detector.predict([TALK, LATER])
    assert [row["id"] for row in rows] == [annotation.id for annotation in expected]
    for row, annotation in zip(rows, expected, strict=True):
        assert row["label"] == annotation.label
        assert row["pattern"] == annotation.pattern
        assert (row["probabilities"] or {}) == pytest.approx(
            annotation.probabilities or {}, rel=1e-4
        )
    assert "2 rows, 2 accepted, 0 rejected; 5 utterances" in printed.out
    assert "1 client turns hold no text" in printed.out
    assert "5 utterances; 1 skipped (empty)" in printed.out
    assert "Nothing changes" not in printed.out + printed.err


@pytest.mark.parametrize("name", ["free", "constrained", "scored"])
def test_labels_are_decoded_as_training_scored_them_unless_chosen_otherwise(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_rows(tmp_path / "in.jsonl", *talk.rows(40))
    # Nothing was learned: free text has no label, and the likeliest one is not the greedy one.
    given = [*talk.LEARNING, f"data.path={source}", f"runs_dir={tmp_path}", "run=r", "cv.fold=0"]
    given += ["trainer.max_epochs=1", f"decoding={name}", "task=binary", "logger=none"]
    given += ["decoding.threshold=0.9"] if name == "scored" else []
    assert train.main([*given, "optimizer.learning_rate=1e-6"]) == 0
    model = f"model={tmp_path / 'r/fold0/model'}"

    def said(*options: str) -> dict[str, tuple[str | None, str]]:
        out = f"output={tmp_path / f'out{len(options)}.jsonl'}"
        assert predict.main([model, f"input={source}", out, *options]) == 0
        rows = read_jsonl(tmp_path / f"out{len(options)}.jsonl")
        return {row["id"]: (row["label"], row["text"]) for row in rows}

    capsys.readouterr()
    found = said()
    advised = "answers (100 %) hold no label: read them in" in capsys.readouterr().out
    scored = read_jsonl(tmp_path / "r/fold0/predictions.jsonl")
    assert {row["id"]: (row["label"], found[row["id"]][1]) for row in scored} == {
        row["id"]: found[row["id"]] for row in scored
    }
    assert {label is None for label, _ in found.values()} == {name == "free"}
    assert advised == (name == "free")
    assert all(label for label, _ in said("decoding=scored").values())
    always = said("threshold=0", "decoding.batch_size=8")
    assert {label for label, _ in always.values()} == {"Resistance"}


def test_a_model_with_reasons_gives_the_labels_that_its_fold_was_scored_by(tmp_path: Path) -> None:
    talks = [{**row, "rationale": f"It is so, as for {row['id']}."} for row in talk.rows(40)]
    source = write_rows(tmp_path / "in.jsonl", *talks)
    given = [*talk.LEARNING, f"data.path={source}", f"runs_dir={tmp_path}", "run=r", "cv.fold=0"]
    given += ["task=flat", "rationale=true", "logger=none", "decoding.max_new_tokens=24"]
    # Learned by halves: some answers are right, some are wrong, and some cannot be read.
    assert train.main([*given, "trainer.max_epochs=12"]) == 0
    scored = read_jsonl(tmp_path / "r/fold0/predictions.jsonl")
    tested = {row["id"] for row in scored}
    held_out = write_rows(tmp_path / "test.jsonl", *(row for row in talks if row["id"] in tested))
    for rationale in ("true", "false"):
        out = tmp_path / f"{rationale}.jsonl"
        arguments = [f"model={tmp_path / 'r'}", f"input={held_out}", f"output={out}"]
        assert predict.main([*arguments, f"rationale={rationale}"]) == 0
        assert {row["id"]: row["label"] for row in read_jsonl(out)} == {
            row["id"]: row["label"] for row in scored
        }
    assert len({row["label"] for row in scored}) > 1


def test_a_table_and_a_transcript_are_known_by_their_endings(model: Path, tmp_path: Path) -> None:
    table = tmp_path / "in.csv"
    table.write_text(
        "session,speaker,text,room,label\na,counselor,So?,@1,\na,client,=No.,@2,Collaboration\n",
        encoding="utf-8",
    )
    out = tmp_path / "out.csv"
    assert predict.main([f"model={model}", f"input={table}", f"output={out}"]) == 0
    with out.open(encoding="utf-8-sig", newline="") as file:
        [row] = csv.DictReader(file)
    assert (row["id"], row["response"], row["room"]) == ("a:1", "'=No.", "'@2")
    assert row["gold"] == "Collaboration"

    transcript = tmp_path / "talk.txt"
    transcript.write_text("咨询师：你好。\n来访者：我不想说。\n", encoding="utf-8")
    out = tmp_path / "talk.jsonl"
    assert predict.main([f"model={model}", f"input={transcript}", f"output={out}"]) == 0
    assert [row["id"] for row in read_jsonl(out)] == ["talk:1"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["output=o.jsonl", "model=M"], "input=FILE"),
        (["input=in.jsonl", "model=M"], "output=FILE"),
        (["input=in.jsonl", "output=o.txt", "model=M"], "has to end with"),
        (["input=in.jsonl", "output=o.jsonl"], "binary="),
        (["input=no.jsonl", "output=o.jsonl", "model=M"], "no such file"),
        (["input=in.jsonl", "output=o.jsonl", "model=M", "shard=2/2"], "i/n"),
        (["input=in.jsonl", "output=o.jsonl", "model=M", "rationale=true"], "without rationales"),
        (
            ["input=in.jsonl", "output=o.jsonl", "model=M", "threshold=0.1", "decoding=free"],
            "set decoding=scored",
        ),
        (["input=in.jsonl", "output=o.jsonl", "model=M", "tresh=1"], "threshold"),
        (
            ["input=in.jsonl", "output=o.jsonl", "model=M", "engine=ray", "shard=0/2"],
            "leave shard out",
        ),
    ],
)
def test_what_the_user_can_mend_ends_with_2(
    arguments: list[str],
    said: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "in.jsonl", as_row(LATER))
    given = [a.replace("model=M", f"model={model}") for a in arguments]
    assert predict.main(given) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["jsonl", "csv", "xlsx"])
def test_a_command_that_failed_before_its_first_row_may_be_corrected(
    ending: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_rows(tmp_path / "in.jsonl", as_row(TALK))
    given = [f"model={model}", f"input={source}", f"output={tmp_path / f'out.{ending}'}"]
    assert predict.main([*given, "threshold={Resistence: 0.3}"]) == 2
    assert "threshold: 'Resistence' is not one of two labels" in capsys.readouterr().err
    assert predict.main([*given, "threshold={Resistance: 0.3}"]) == 0
    assert predict.main([*given, "threshold={Resistance: 0.4}"]) == 2
    assert "was made from another input or with other options" in capsys.readouterr().err


def test_what_no_output_could_give_back_is_rejected_by_name(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = [{"speaker": "counselor", "text": "q"}, {"speaker": "client", "text": "w"}]
    sound = json.dumps({"session": "a", "turns": said})
    rows = [
        sound,
        sound.replace('"a"', '"b", "note": {"score": 1e999}'),
        sound.replace('"a"', r'"c", "note": {"x\ud800": 1}'),
        sound.replace('"a"', '"d", "session": "e"'),
    ]
    (tmp_path / "in.jsonl").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    given = [f"model={model}", f"input={tmp_path / 'in.jsonl'}", f"output={tmp_path / 'o.jsonl'}"]
    assert predict.main(given) == 2
    message = capsys.readouterr().err
    for fault in (":2: row: ", ":3: note: ", ":4: row: key 'session' is there 2 times"):
        assert f"in.jsonl{fault}" in message
    assert predict.main([*given, "data.on_error=skip"]) == 0
    (row,) = (tmp_path / "o.jsonl").read_text("utf-8").splitlines()
    assert json.loads(row)["session"] == "a"


def test_a_job_of_a_sweep_has_an_output_of_its_own(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "in.jsonl", as_row(TALK), as_row(LATER))
    whole = [f"model={model}", "input=in.jsonl", "output=o.jsonl", "decoding.batch_size=1"]
    assert predict.main(whole) == 0
    assert predict.main(["-m", *whole, "shard=0/2,1/2"]) == 0
    parts = [(tmp_path / f"o.{i}-of-2.jsonl").read_bytes() for i in range(2)]
    assert b"".join(parts) == (tmp_path / "o.jsonl").read_bytes()


def test_help_names_the_choices_and_loads_no_torch(tmp_path: Path, project_root: Path) -> None:
    code = (
        "import sys, recap.predict.__main__ as p; c = p.main(['--help']); "
        "print('torch' in sys.modules); sys.exit(c)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(project_root)},
        check=True,
    )
    for group in ("data", "decoding"):
        choices = sorted(file.stem for file in (project_root / "conf" / group).glob("*.yaml"))
        assert f"{group}: {', '.join(choices)}" in " ".join(done.stdout.split())
    assert "python -m recap.predict " in done.stdout
    assert done.stdout.rstrip().endswith("False")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_a_killed_process_is_gone_on_with_and_nothing_is_lost_or_doubled(
    name: str, model: Path, tmp_path: Path, project_root: Path
) -> None:
    rows = [{**as_row(TALK), "session": f"t{number}"} for number in range(200)]
    source = write_rows(tmp_path / "in.jsonl", *rows)
    common = [f"model={model}", f"input={source}", "decoding.batch_size=1"]
    assert predict.main([*common, f"output={tmp_path / ('whole-' + name)}"]) == 0
    whole = (tmp_path / f"whole-{name}").read_bytes()
    output = tmp_path / name
    command = [sys.executable, "-m", "recap.predict", *common, f"output={output}"]
    for share in (0.01, 0.4, 0.8):
        running = subprocess.Popen(command, cwd=project_root, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while running.poll() is None and time.monotonic() < deadline:
            if output.is_file() and output.stat().st_size > share * len(whole):
                break
            time.sleep(0.002)
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        assert whole.startswith(output.read_bytes())
    assert predict.main([*common, f"output={output}"]) == 0
    assert output.read_bytes() == whole


@pytest.mark.real_data
def test_real_dialogues_are_annotated_turn_by_turn(
    model: Path, tmp_path: Path, real_data: Path
) -> None:
    lines = (real_data / "cpsycound" / "cpsycound_raw.jsonl").read_text("utf-8").splitlines()
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(lines[:12]), encoding="utf-8")
    arguments = ["data=transcript", "data.merge_adjacent=false", f"input={source}"]
    assert predict.main([f"model={model}", *arguments, f"output={tmp_path / 'o.jsonl'}"]) == 0
    rows = read_jsonl(tmp_path / "o.jsonl")
    # A turn begins with its speaker's name and a full-width colon.
    spoken = sum(json.loads(line)["text"].count("来访者：") for line in lines[:12])
    assert len(rows) == spoken
    assert len({row["id"] for row in rows}) == spoken
