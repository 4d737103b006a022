"""Files are annotated whole, once, in order, in little memory, and whatever stops the process."""

from __future__ import annotations

import csv
import io
import json
import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from detectors import small_task, write_model
from hypothesis import given, settings
from hypothesis import strategies as st

from recap.config import DataConfig
from recap.data.utterances import state_file
from recap.errors import ConfigError, DataError
from recap.models.identity import model_digests
from recap.predict.job import (
    AnnotationConsole,
    AnnotationJob,
    AnnotationListener,
    Shard,
    annotate_file,
    parse_shard,
)
from recap.predict.options import RayConfig
from recap.predict.output import (
    AnnotationFile,
    check_input,
    csv_header,
    csv_line,
    whole_windows,
)
from recap.runs.detector import Detector, count_of
from recap.system.files import protect_cell

WORDS = ("=1+1", '"quoted", and\nbroken', "很好。", "plain", "tab\there", "a; b, c", "\u2028line\r")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "m", small_task("binary"))


@pytest.fixture(scope="module")
def detector(model: Path) -> Detector:
    return Detector.from_pretrained(model, batch_size=2)


def write_talks(path: Path, n_talks: int = 9) -> list[str]:
    """Write dialogues with all that is awkward, and return the ids of their utterances."""
    ids = []
    with path.open("w", encoding="utf-8") as file:
        for talk in range(n_talks):
            turns: list[dict[str, Any]] = []
            for pair in range(talk % 3 + 1):
                said = WORDS[(talk + pair) % len(WORDS)]
                turns += [
                    {"speaker": "counselor", "text": "And then?"},
                    {"speaker": "client", "text": said, "mood": talk},
                ]
                ids.append(f"t{talk}:{2 * pair + 1}")
            if talk == 4:
                turns.append({"speaker": "counselor", "text": "I am listening."})
                turns.append({"speaker": "client", "text": "  "})
                ids.append(f"t{talk}:{len(turns) - 1}")
            row = {"session": f"t{talk}", "turns": turns, "site": f"-{talk}x", "meta": {"a": [1]}}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return ids


def input_at(path: Path, **options: Any) -> DataConfig:
    return DataConfig(
        **{"name": "talks", "reader": "dialogues", "no_intervention": "keep", **options},
        path=str(path),
    )


def make_job(model: Path, folder: Path, name: str = "out.jsonl", **changes: Any) -> AnnotationJob:
    job = AnnotationJob(
        data=input_at(folder / "in.jsonl"),
        detector={"model": str(model), "batch_size": 2},
        output=folder / name,
    )
    return replace(job, **changes)


def rows_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_every_utterance_comes_out_once_and_in_order_with_all_that_came_in(
    name: str, model: Path, detector: Detector, tmp_path: Path
) -> None:
    ids = write_talks(tmp_path / "in.jsonl")
    report = annotate_file(make_job(model, tmp_path, name), detector=detector)
    rows = rows_of(tmp_path / name)
    assert [row["id"] for row in rows] == ids
    assert (report.utterances, report.found) == (len(ids), 0)
    assert count_of(report.outcomes, "skipped") == {"empty": 1}
    assert sum(count_of(report.outcomes, "label").values()) == len(ids) - 1
    [empty] = [row for row in rows if row["skipped"]]
    assert empty["id"] == "t4:5"
    assert empty["skipped"] == "empty"
    assert empty["label"] in (None, "")
    if name == "out.jsonl":
        assert {row["label"] for row in rows if not row["skipped"]} <= {*detector.labels}
        assert all(row["meta"] == {"a": [1]} for row in rows)
        assert [row["site"] for row in rows] == [f"-{row['session'][1:]}x" for row in rows]
        assert [row["mood"] for row in rows if not row["skipped"]] == [
            int(row["session"][1:]) for row in rows if not row["skipped"]
        ]
        assert rows[0]["response"] == WORDS[0]
    else:
        assert all(json.loads(row["meta"]) == {"a": [1]} for row in rows)
        assert [row["site"] for row in rows] == [f"'-{row['session'][1:]}x" for row in rows]
        assert rows[0]["response"] == f"'{WORDS[0]}"
        assert rows[0]["turn"] == "1"
        assert json.loads(rows[0]["probabilities"]).keys() == set(detector.labels)


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_an_output_cut_at_any_byte_ends_as_if_it_had_never_been_cut(
    name: str, model: Path, detector: Detector, tmp_path: Path
) -> None:
    write_talks(tmp_path / "in.jsonl")
    job = make_job(model, tmp_path, name)
    annotate_file(job, detector=detector)
    whole = job.output.read_bytes()
    state = state_file(job.output).read_bytes()
    unfinished = json.dumps({**json.loads(state), "complete": None}).encode()
    cuts = {0, 1, len(whole) - 1, *random.Random(0).sample(range(len(whole)), 24)}
    for cut in sorted(cuts):
        job.output.write_bytes(whole[:cut])
        state_file(job.output).write_bytes(unfinished if cut % 2 else state)
        annotate_file(job, detector=detector)
        assert job.output.read_bytes() == whole, cut
    assert annotate_file(job, detector=detector).found == len(rows_of(job.output))


def test_what_is_there_already_is_not_computed_again(
    model: Path, detector: Detector, tmp_path: Path
) -> None:
    ids = write_talks(tmp_path / "in.jsonl")
    job = make_job(model, tmp_path)
    annotate_file(job, detector=detector)
    lines = job.output.read_bytes().splitlines(keepends=True)
    job.output.write_bytes(b"".join(lines[:11]) + lines[11][:7])
    advanced: list[int] = []

    class Noting(AnnotationListener):
        def advanced(self, utterances: int) -> None:
            advanced.append(utterances)

    report = annotate_file(job, Noting(), detector=detector)
    assert report.found == 10  # windows of two, since there are only 19 utterances
    assert sum(advanced) == len(ids) - 10


def test_small_inputs_are_shared_out_about_evenly(
    model: Path, detector: Detector, tmp_path: Path
) -> None:
    write_talks(tmp_path / "in.jsonl")
    detector_source = {"model": str(model), "batch_size": 32}
    job = make_job(model, tmp_path, detector=detector_source)
    shares = [
        annotate_file(replace(job, shard=Shard(index=i, count=4)), detector=detector).utterances
        for i in range(4)
    ]
    assert sum(shares) == 19
    assert min(shares) >= 3


def test_shards_together_are_the_whole(model: Path, detector: Detector, tmp_path: Path) -> None:
    write_talks(tmp_path / "in.jsonl", n_talks=30)
    whole = make_job(model, tmp_path)
    annotate_file(whole, detector=detector)
    joined = b""
    for index in range(3):
        job = replace(whole, shard=parse_shard(f"{index}/3"))
        report = annotate_file(job, detector=detector)
        assert report.utterances
        assert job.part.name == f"out.{index}-of-3.jsonl"
        joined += job.part.read_bytes()
    assert joined == whole.output.read_bytes()


@given(n_windows=st.integers(0, 50), count=st.integers(1, 60))
def test_shards_partition_the_windows(n_windows: int, count: int) -> None:
    shards = [Shard(index=i, count=count).windows(n_windows) for i in range(count)]
    assert [w for shard in shards for w in shard] == list(range(n_windows))


@pytest.mark.parametrize("text", ["4/4", "1", "-1/3", "a/b", "0/0"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="i/n"):
        parse_shard(text)


def test_an_output_of_another_job_is_never_gone_on_with(
    model: Path, detector: Detector, tmp_path: Path
) -> None:
    write_talks(tmp_path / "in.jsonl")
    job = make_job(model, tmp_path)
    annotate_file(job, detector=detector)
    before = job.output.read_bytes()
    other_options = replace(job, detector={**job.detector, "threshold": 0.1})
    with pytest.raises(ConfigError, match=r"detector\.threshold.*resume=never"):
        annotate_file(other_options, detector=detector)
    other_model = write_model(tmp_path / "other", small_task("binary"), seed=5)
    with pytest.raises(ConfigError, match=r"another model: model/model\.safetensors has changed;"):
        annotate_file(make_job(other_model, tmp_path))
    write_talks(tmp_path / "in.jsonl", n_talks=10)
    with pytest.raises(ConfigError, match=r"input\.sha256"):
        annotate_file(job, detector=detector)
    assert job.output.read_bytes() == before

    assert annotate_file(replace(job, resume=False), detector=detector).found == 0
    state_file(job.output).unlink()
    with pytest.raises(ConfigError, match="is there already"):
        annotate_file(job, detector=detector)


@pytest.mark.parametrize("shard", [None, "0/2"])
@pytest.mark.parametrize("resume", [True, False])
def test_the_input_is_never_written_over(
    shard: str | None, resume: bool, model: Path, tmp_path: Path
) -> None:
    write_talks(tmp_path / "in.jsonl")
    before = (tmp_path / "in.jsonl").read_bytes()
    (tmp_path / "link").symlink_to(tmp_path)
    job = make_job(model, tmp_path / "link", "in.jsonl", resume=resume)
    job = replace(job, shard=None if shard is None else parse_shard(shard))
    with pytest.raises(ConfigError, match="is the input"):
        annotate_file(replace(job, data=input_at(tmp_path / "in.jsonl")))
    assert (tmp_path / "in.jsonl").read_bytes() == before


def test_a_part_of_the_output_is_not_written_over_the_input_either(
    model: Path, tmp_path: Path
) -> None:
    write_talks(tmp_path / "out.0-of-2.jsonl")
    before = (tmp_path / "out.0-of-2.jsonl").read_bytes()
    job = make_job(model, tmp_path, shard=parse_shard("0/2"), resume=False)
    with pytest.raises(ConfigError, match="is the input"):
        annotate_file(replace(job, data=input_at(job.part)))
    assert job.part.read_bytes() == before


def test_a_kill_at_any_moment_of_beginning_again_leaves_no_rows_of_the_former_job(
    model: Path, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_talks(tmp_path / "in.jsonl")
    job = make_job(model, tmp_path)
    annotate_file(job, detector=detector)
    options = {"batch_size": 2, "threshold": 0.0}
    other = replace(job, detector={**job.detector, **options}, resume=False)
    strict = Detector.from_pretrained(model, **options)
    kept_at_kill = []

    def killed(*_: object, **__: object) -> None:
        kept_at_kill.append(job.output.stat().st_size)
        raise KeyboardInterrupt

    for moment in ("write_state", "_from"):
        with monkeypatch.context() as patched:
            patched.setattr(f"recap.predict.job.{moment}", killed)
            with pytest.raises(KeyboardInterrupt):
                annotate_file(other, detector=strict)
    assert kept_at_kill == [0, 0]
    assert annotate_file(replace(other, resume=True), detector=strict).found == 0


def test_rows_that_are_not_those_of_the_input_are_noticed(
    model: Path, detector: Detector, tmp_path: Path
) -> None:
    write_talks(tmp_path / "in.jsonl")
    job = make_job(model, tmp_path)
    annotate_file(job, detector=detector)
    lines = job.output.read_bytes().splitlines(keepends=True)
    job.output.write_bytes(b"".join([*lines[:7], lines[8], lines[7]]))
    with pytest.raises(DataError, match="not about id"):
        annotate_file(job, detector=detector)
    job.output.write_bytes(b"".join([*lines, *lines[:8]]))
    with pytest.raises(ConfigError, match="more rows"):
        annotate_file(job, detector=detector)


def test_two_processes_do_not_write_one_output(
    model: Path, detector: Detector, tmp_path: Path
) -> None:
    write_talks(tmp_path / "in.jsonl")
    job = make_job(model, tmp_path)
    with (
        AnnotationFile(job.output, columns=(), window=8),
        pytest.raises(ConfigError, match="another process"),
    ):
        annotate_file(job, detector=detector)


def test_rows_at_fault_are_listed_and_nothing_is_written(
    model: Path, detector: Detector, tmp_path: Path
) -> None:
    ids = write_talks(tmp_path / "in.jsonl", n_talks=3)
    with (tmp_path / "in.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"session": "x"}\nnot json but private words\n')
    job = make_job(model, tmp_path)
    with pytest.raises(DataError) as refused:
        annotate_file(job, detector=detector)
    assert "in.jsonl:4: row: " in str(refused.value)
    assert "in.jsonl:5: row: " in str(refused.value)
    assert "2 of 5 rows" in str(refused.value)
    assert "private" not in str(refused.value)
    assert not job.output.exists()

    skipping = replace(job, data=replace(job.data, on_error="skip"))
    report = annotate_file(skipping, detector=detector)
    assert report.utterances == len(ids)
    state = json.loads(state_file(job.output).read_text(encoding="utf-8"))
    assert (state["checked"]["rows_read"], state["checked"]["rows_rejected"]) == (5, 2)
    assert [row["id"] for row in rows_of(job.output)] == ids
    rejected = (tmp_path / "out.jsonl.rejected.txt").read_text(encoding="utf-8")
    assert [line.split(": ")[0].rsplit(":")[-1] for line in rejected.splitlines()] == ["4", "5"]


def test_every_shard_lists_rows_at_fault_beside_its_own_part(
    model: Path, detector: Detector, tmp_path: Path
) -> None:
    write_talks(tmp_path / "in.jsonl", n_talks=3)
    with (tmp_path / "in.jsonl").open("a", encoding="utf-8") as file:
        file.write("not json\n")
    job = make_job(model, tmp_path)
    job = replace(job, data=replace(job.data, on_error="skip"))
    for index in range(2):
        annotate_file(replace(job, shard=parse_shard(f"{index}/2")), detector=detector)
    names = sorted(path.name for path in tmp_path.glob("*.rejected.txt"))
    assert names == [f"out.{index}-of-2.jsonl.rejected.txt" for index in range(2)]


def test_an_input_without_client_turns_is_refused(
    model: Path, detector: Detector, tmp_path: Path
) -> None:
    row = {"session": "a", "turns": [{"speaker": "counselor", "text": "Hello?"}]}
    (tmp_path / "in.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(DataError, match="no client turn"):
        annotate_file(make_job(model, tmp_path), detector=detector)


def test_a_key_that_is_the_outputs_own_comes_back_under_another_name(
    model: Path, detector: Detector, tmp_path: Path
) -> None:
    row = {"id": "e", "response": "No.", "label": "客户", "pattern": "mine", "history": []}
    (tmp_path / "in.jsonl").write_text(json.dumps(row), encoding="utf-8")
    annotate_file(make_job(model, tmp_path), detector=detector)
    [out] = rows_of(tmp_path / "out.jsonl")
    assert (out["input_pattern"], out["gold"], out["history"]) == ("mine", "客户", [])
    assert out["pattern"] == out["label"]


def peak_bytes(path: Path, n_talks: int) -> int:
    """Return the most memory that a first pass over a file of dialogues takes."""
    turns = [
        {"speaker": speaker, "text": f"{speaker} {'word ' * 20}"}
        for speaker in ("counselor", "client") * 5
    ]
    with path.open("w", encoding="utf-8") as file:
        for talk in range(n_talks):
            file.write(json.dumps({"session": f"t{talk}", "turns": turns}) + "\n")
            file.write("broken\n")
    data = input_at(path, on_error="skip")
    tracemalloc.start()
    checked = check_input(data, rejects=path.with_suffix(".txt"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (checked.utterances, checked.rows_rejected) == (5 * n_talks, n_talks)
    return peak


def test_a_file_ten_times_as_long_takes_no_more_memory(tmp_path: Path) -> None:
    small = peak_bytes(tmp_path / "small.jsonl", 300)
    # The table of sessions takes 40 bytes each, and half as much again while it grows.
    assert peak_bytes(tmp_path / "large.jsonl", 3000) < small + 60 * 3000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\rtwo", "one\rtwo"),
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+cmd", "'+cmd"),
        ("-no", "'-no"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ("  =1", "'  =1"),
        ("\u3000＝1", "'\u3000＝1"),
        ("\ufeff=1", "'\ufeff=1"),
        ("＋1", "'＋1"),
        ("－x", "'－x"),
        ("＠x", "'＠x"),
        ("-2.5", "-2.5"),
        ("+7", "+7"),
        ("1e-5", "1e-5"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_a_cell_that_a_spreadsheet_would_execute_gets_an_apostrophe(
    text: str, expected: str
) -> None:
    assert protect_cell(text) == expected
    [[header], [cell]] = csv.reader(
        io.StringIO(
            (csv_header([text]) + csv_line({text: text}, [text])).decode("utf-8-sig"), newline=""
        )
    )
    assert (header, cell) == (expected, expected)


def records(draw_text: str, header: bool) -> Iterator[bytes]:
    yield from ([b"a\n"] if header else [])
    for word in draw_text:
        yield csv_line({"a": word * 3, "b": WORDS[ord(word) % len(WORDS)]}, ["a", "b"])


@settings(deadline=None)
@given(words=st.text(max_size=30), window=st.integers(1, 7), data=st.data())
def test_whole_windows_are_found_in_any_torn_file(
    words: str,
    window: int,
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    pieces = list(records(words, header=True))
    ends = [sum(map(len, pieces[: n + 1])) for n in range(len(pieces))]
    text = b"".join(pieces)
    kept_bytes = data.draw(st.integers(0, len(text)))
    path = tmp_path_factory.mktemp("torn") / "f.csv"
    path.write_bytes(text[:kept_bytes])
    whole = sum(end <= kept_bytes for end in ends) - 1
    found = whole_windows(path, window=window, header=True)
    if whole < 0:
        assert (found.rows, found.end) == (0, 0)
    else:
        rows = whole // window * window
        assert (found.rows, found.end) == (rows, ends[rows])
        assert rows == 0 or found.last_start == ends[rows - 1]


def test_a_model_is_the_same_wherever_it_lies(model: Path, tmp_path: Path) -> None:
    again = write_model(tmp_path / "again", small_task("binary"))
    other = write_model(tmp_path / "other", small_task("binary"), seed=1)
    assert model_digests(again) == model_digests(model) != model_digests(other)
    assert {"model.safetensors", "tokenizer.json", "recap.json"} <= model_digests(model).keys()


@pytest.mark.slow
@pytest.mark.multiprocess
def test_two_workers_under_ray_write_what_one_process_writes(
    model: Path, detector: Detector, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    from recap.predict.ray_parts import annotate_over_ray

    write_talks(tmp_path / "in.jsonl", n_talks=40)
    alone = make_job(model, tmp_path, "alone.csv")
    annotate_file(alone, detector=detector)
    job = make_job(model, tmp_path, "many.csv")
    report = annotate_over_ray(job, RayConfig(workers=2))
    assert job.output.read_bytes() == alone.output.read_bytes()
    assert report.utterances == len(rows_of(job.output))
    assert not list(tmp_path.glob("many.*-of-*"))
    assert annotate_over_ray(job, RayConfig(workers=2)).found == report.utterances
    options = {"with_rationale": True}
    refused = make_job(model, tmp_path, detector={**job.detector, **options})
    with pytest.raises(ConfigError, match="trained without rationales"):
        annotate_over_ray(refused, RayConfig(workers=2))


def write_transcripts(folder: Path) -> Path:
    folder.mkdir()
    (folder / "b.txt").write_text("Client: Hm.\nTherapist: So?\nClient: No.\n", "utf-8")
    (folder / "a.txt").write_text("Therapist: So?\nHusband: He is.\nClient: No.\n", "utf-8")
    (folder / "notes.md").write_text("nothing", "utf-8")
    return folder


@pytest.mark.parametrize("path", ["talks", "talks/*.txt"])
def test_a_folder_of_transcripts_is_annotated_a_session_a_file(
    path: str,
    model: Path,
    detector: Detector,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write_transcripts(tmp_path / "talks")
    options = {"reader": "transcript", "options": {"speakers": {"Husband": "other"}}}
    job = make_job(model, tmp_path, data=input_at(tmp_path / path, **options))
    with AnnotationConsole() as console:
        annotate_file(job, console, detector=detector)
    assert [(row["id"], row["response"]) for row in rows_of(job.output)] == [
        *(("a:2", "No."), ("b:0", "Hm."), ("b:2", "No."))
    ]
    printed = capsys.readouterr().out
    assert "a.txt: 1 counselor, 1 client and 1 other turns" in printed
    assert "b.txt: 1 counselor, 2 client and 0 other turns" in printed
    (folder / "a.txt").write_text("Therapist: So?\nClient: Yes.\n", "utf-8")
    with pytest.raises(ConfigError, match=r"another input .*input\.sha256"):
        annotate_file(job, detector=detector)


def test_an_output_among_the_files_that_are_read_is_refused(model: Path, tmp_path: Path) -> None:
    folder = write_transcripts(tmp_path / "talks")
    data = input_at(folder, reader="transcript")
    with pytest.raises(ConfigError, match="lies among the files that are read"):
        annotate_file(make_job(model, tmp_path, data=data, output=folder / "out.jsonl"))
