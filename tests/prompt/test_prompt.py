"""The prompting command as a whole, against servers on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import read_json, read_jsonl
from fake_servers import GOOD, Request, Server, serving
from sklearn.metrics import accuracy_score, f1_score
from wandb_files import read_run

from recap.prompt import __main__ as prompt
from recap.report import __main__ as report
from recap.runs.folder import read_config, read_prompted
from recap.tasks.library import builtin_task
from recap.tasks.task import one_line
from recap.train import __main__ as train

LABELS = builtin_task("flat").labels
KEY = "sk-canary-4711"
CONTRACT_FILES = [
    *("config.yaml", "manifest.json", "leakage.json", "data.json", "summary.json", "summary.md"),
    *(f"fold{k}/{name}" for k in (0, 1) for name in ("predictions.jsonl", "scores.json")),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four examples of each of fourteen labels, each with a rationale."""
    rows = []
    for number in range(56):
        turn = {"speaker": "counselor", "text": f"What do you make of thought {number}?"}
        rows.append(
            {
                "id": f"e{number}",
                "session": f"s{number}",
                "history": [turn],
                "response": f"Canary utterance number {number} of somebody.",
                "label": LABELS[number % 14],
                "rationale": f"Canary rationale number {number} of somebody.",
            }
        )
    file = tmp_path_factory.mktemp("data") / "corpus.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def options(corpus: Path, runs_dir: Path, server: Server, *more: str) -> list[str]:
    kind = "anthropic" if "client=anthropic" in more else "openai"
    return [
        *("data=dialogues", f"data.path={corpus}", f"runs_dir={runs_dir}", "cv.folds=2"),
        *(f"client={kind}", "client.model=acme/m-1", "logger=none", "client.backoff_seconds=0"),
        f"client.base_url={server.url}" + ("" if kind == "anthropic" else "/v1"),
        *(word for word in more if not word.startswith("client=")),
    ]


def rows_of(fold: Path) -> list[dict[str, Any]]:
    return read_jsonl(fold / "predictions.jsonl")


def said_of(request: Request) -> str:
    """Return the response that a request asks about."""
    return request.prompt.rpartition("Client: ")[2].splitlines()[0]


def label_of(request: Request) -> str:
    """Answer rightly, but for every fifth example."""
    number = int(said_of(request).split()[3])
    label = LABELS[(number + (number % 5 == 0)) % 14]
    return f"Behavior: {label}\nReason: It fits."


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_prompted_run_leaves_the_folder_of_a_trained_one(
    kind: str, corpus: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(answer=label_of) as server:
        assert prompt.main(options(corpus, runs_dir, server, f"client={kind}")) == 0
        assert len(server.requests) == 52
    [folder] = [path for path in runs_dir.iterdir() if path.name != ".answers"]
    assert folder.name.startswith(f"dialogues-fine_grained-{kind}-acme_m-1-zeroshot-")
    assert [name for name in CONTRACT_FILES if not (folder / name).is_file()] == []
    for k in (0, 1):
        rows, scores = rows_of(folder / f"fold{k}"), read_json(folder / f"fold{k}/scores.json")
        gold, said = [row["gold"] for row in rows], [row["label"] or "invalid" for row in rows]
        macro = f1_score(gold, said, labels=scores["labels"], average="macro", zero_division=0)
        assert scores["metrics"]["macro_f1"] == pytest.approx(macro, abs=1e-12)
        assert scores["metrics"]["accuracy"] == pytest.approx(accuracy_score(gold, said))
        assert 0.5 < scores["metrics"]["accuracy"] < 1
        assert scores["metrics"]["loss"] is None
        assert {row["rationale"] for row in rows if row["parsed"]} == {"It fits."}
    summary = read_json(folder / "summary.json")
    assert summary["folds"] == [0, 1]
    assert summary["metrics"]["loss"] == {"mean": None, "std": None, "values": [None, None]}
    assert "52 answers; tokens: 5200 of prompts, 1040 of answers" in capsys.readouterr().out


THOUGHT = "Is it Blaming? Behavior: Blaming"
THOUGHTS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "parsed": (f"<think>{THOUGHT}</think>{GOOD}", {}),
    "no_start": (f"{THOUGHT}</think>{GOOD}", {}),
    "apart": (GOOD, {"reasoning_content": THOUGHT}),
    "cut": (f"<think>{THOUGHT}", {"finish_reason": "length"}),
    "cut_no_start": (f"Well. {THOUGHT}", {"finish_reason": "length"}),
    "cut_apart": (None, {"reasoning_content": THOUGHT, "finish_reason": "length"}),
    "cut_answer": (GOOD[:-3], {"finish_reason": "length"}),
}


def test_a_thought_is_never_the_answer_and_one_that_was_cut_off_is_counted_apart(
    corpus: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = list(THOUGHTS)

    def reply(request: Request) -> Any:
        return THOUGHTS[kinds[int(said_of(request).split()[3]) % len(kinds)]]

    with serving(answer=reply) as server:
        assert prompt.main(options(corpus, runs_dir, server, "run=r", "task=flat")) == 0
        switched = {"enable_thinking": False, "thinking": False}
        assert {str(q.body.get("chat_template_kwargs")) for q in server.requests} == {str(switched)}
    rows = [row for k in (0, 1) for row in rows_of(runs_dir / f"r/fold{k}")]
    assert len(rows) == 56
    for row in rows:
        unread = kinds[int(row["id"][1:]) % len(kinds)] in ("cut", "cut_no_start", "cut_apart")
        assert row["label"] == (None if unread else "Challenging")
    cut = [read_json(runs_dir / f"r/fold{k}/scores.json")["cut_in_thought"] for k in (0, 1)]
    assert sum(cut) == 24  # three of seven kinds of 56 answers
    assert "24 answers were cut off inside a thought" in capsys.readouterr().out
    assert report.main([f"runs={runs_dir}", "verify=true"]) == 0


@pytest.mark.parametrize("all_cut", [True, False])
def test_a_cut_text_is_taken_for_a_thought_where_none_of_a_fold_was_finished(
    all_cut: bool, corpus: Path, runs_dir: Path
) -> None:
    def reply(request: Request) -> Any:
        odd = int(said_of(request).split()[3]) % 2
        return ("Well: Blaming", {"finish_reason": "length" if odd or all_cut else "stop"})

    with serving(answer=reply) as server:
        assert prompt.main(options(corpus, runs_dir, server, "run=r", "task=flat")) == 0
    rows = [row for k in (0, 1) for row in rows_of(runs_dir / f"r/fold{k}")]
    # As of a model on this machine, whose thoughts are known, the label is read.
    assert {row["label"] for row in rows} == ({None} if all_cut else {"Blaming"})


BROKEN_OFF = ("drip", "drip_headers", "deep", "deep_error", "packed")


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_servers_that_never_end_an_answer_are_broken_off_and_asked_again(
    kind: str, corpus: Path, runs_dir: Path
) -> None:
    with serving(script=list(BROKEN_OFF), answer=label_of) as server:
        more = (f"client={kind}", "run=r", "client.longest_answer_seconds=1")
        began = time.monotonic()
        assert prompt.main(options(corpus, runs_dir, server, *more)) == 0
        assert len(server.requests) == 52 + len(BROKEN_OFF)
        assert time.monotonic() - began < 30
    assert read_json(runs_dir / "r/summary.json")["metrics"]["accuracy"]["mean"] > 0.75
    left = (runs_dir / "r/.budget/unanswered.jsonl").read_text().split()
    # Of all but the error, which no server charges, answers may have been on their way.
    assert left.count('{"answers":') == len(BROKEN_OFF) - 1


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [("drip", "client.longest_answer_seconds=0.5"), ("endless", "client.longest_answer_bytes=")],
)
def test_what_a_server_would_send_for_ever_ends_the_command(
    behaviour: str, said: str, corpus: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(always=behaviour) as server:
        more = ("client.attempts=1", "client.longest_answer_seconds=0.5", "run=r")
        if behaviour == "endless":
            more = ("client.attempts=3", "run=r")
        assert prompt.main(options(corpus, runs_dir, server, *more)) == 1
        assert len(server.requests) <= 4  # those in flight, each of them once
    assert said in capsys.readouterr().err


def test_counts_that_no_request_can_have_used_are_not_believed(
    corpus: Path, runs_dir: Path
) -> None:
    with serving(usage=(10**30, 10**12), answer=label_of) as server:
        given = options(corpus, runs_dir, server, "run=r", "decoding.max_new_tokens=20")
        assert prompt.main(given) == 0
        longest = max(len(request.prompt.encode()) for request in server.requests)
    for fold in read_json(runs_dir / "r/manifest.json")["folds"].values():
        assert fold["usage"]["output_tokens"] == 26 * 10 * 20
        assert fold["usage"]["input_tokens"] <= 26 * 10 * (longest + 64)


@pytest.mark.parametrize("behaviour", ["hang", "drip_headers"])
def test_sigterm_ends_with_143_within_seconds_whatever_the_server_does(
    behaviour: str, corpus: Path, runs_dir: Path, project_root: Path
) -> None:
    with serving(always=behaviour) as server:
        given = options(corpus, runs_dir, server, "run=r")
        process = subprocess.Popen(
            [sys.executable, "-m", "recap.prompt", *given],
            cwd=project_root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while len(server.requests) < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(("unread", "share"), [(12, "21 %"), (11, None)])
def test_from_a_fifth_of_unparsed_answers_on_the_console_says_what_to_do(
    unread: int,
    share: str | None,
    corpus: Path,
    runs_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def reply(request: Request) -> str:
        return "I cannot tell." if int(said_of(request).split()[3]) < unread else GOOD

    with serving(answer=reply) as server:
        assert prompt.main(options(corpus, runs_dir, server, "run=r", "task=flat")) == 0
    out = capsys.readouterr().out
    assert ("hold no label" in out) is (share is not None)
    if share:
        said = out.partition(f"12 of 56 answers ({share}) hold no label")[2].split("fold0")[-1]
        for named in ("predictions.jsonl", "decoding=scored", "decoding=constrained", "tuning"):
            assert named in said


def test_folds_prompts_and_partition_are_those_of_a_training(corpus: Path, runs_dir: Path) -> None:
    shared = ["data=dialogues", f"data.path={corpus}", f"runs_dir={runs_dir}", "cv.folds=2"]
    small = ["trainer.max_epochs=1", "decoding.max_new_tokens=2", "logger=none", "trainer=cpu"]
    full = ["prompt=full", "prompt.history=full", "prompt.max_tokens=null"]
    assert train.main([*shared, *small, *full, "cv.fold=0", "run=trained"]) == 0
    with serving() as server:
        asked = options(corpus, runs_dir, server, "run=prompted", "decoding.max_new_tokens=2")
        assert prompt.main(asked) == 0
    trained, prompted = runs_dir / "trained", runs_dir / "prompted"
    for name in ("data_hash", "partition_hash", "prompt_hash"):
        assert (
            read_json(trained / "manifest.json")[name]
            == read_json(prompted / "manifest.json")[name]
        )
    ids = [row["id"] for row in rows_of(trained / "fold0")]
    assert [row["id"] for row in rows_of(prompted / "fold0")] == ids
    assert set(rows_of(prompted / "fold0")[0]) == set(rows_of(trained / "fold0")[0])
    assert read_config(prompted).backbone.name == "acme/m-1"
    assert read_prompted(prompted)["client"]["name"] == "openai"
    assert read_prompted(trained) == {}


def test_an_untouched_backbone_answers_a_prompt_as_recap_train_has_it(
    corpus: Path, runs_dir: Path
) -> None:
    shared = ["data=dialogues", f"data.path={corpus}", f"runs_dir={runs_dir}", "cv.folds=2"]
    shared += ["cv.fold=0", "decoding.max_new_tokens=4", "logger=none", "trainer=cpu"]
    assert train.main([*shared, "finetune=none", "run=trained"]) == 0
    assert prompt.main([*shared, "run=prompted"]) == 0
    texts = [
        [row["text"] for row in rows_of(runs_dir / name / "fold0")]
        for name in ("trained", "prompted")
    ]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 1 or texts[0][0]
    manifest = read_json(runs_dir / "prompted" / "manifest.json")
    assert manifest["system"] == {
        "kind": "prompted",
        "client": "local",
        "model": "tiny",
        "shots": 0,
        "shot_categories": "labels",
    }
    assert manifest["folds"]["fold0"]["usage"]["answers"] == len(texts[0])


def test_a_local_model_decodes_nothing_twice(
    corpus: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recap.prompt import systems as local_answers

    given = ["data=dialogues", f"data.path={corpus}", f"runs_dir={runs_dir}", "cv.folds=2"]
    given += ["cv.fold=0", "decoding.max_new_tokens=2", "logger=none", "trainer=cpu", "shots=1"]
    assert prompt.main([*given, "run=first"]) == 0

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("weights were loaded again")

    monkeypatch.setattr(local_answers, "load_backbone", refuse)
    assert prompt.main([*given, "run=second"]) == 0
    first, second = (rows_of(runs_dir / name / "fold0") for name in ("first", "second"))
    assert first == second


def test_shots_come_from_the_training_part_of_the_fold_alone(corpus: Path, runs_dir: Path) -> None:
    with serving() as server:
        given = options(corpus, runs_dir, server, "shots=1", "run=r", "client.max_in_flight=1")
        assert prompt.main(given) == 0
    folder = runs_dir / "r"
    rows = read_jsonl(corpus)
    response = {row["id"]: row["response"] for row in rows}
    manifest = read_json(folder / "manifest.json")
    for k, requests in ((0, server.requests[:26]), (1, server.requests[26:])):
        tested = {row["id"] for row in rows_of(folder / f"fold{k}")}
        shown = manifest["folds"][f"fold{k}"]["shots"]
        assert len(shown) == 13
        assert not tested & set(shown)
        for request in requests:
            own = said_of(request)
            others = {i for i in tested if response[i] in request.prompt and response[i] != own}
            assert others == set()
            assert all(response[i] in request.prompt for i in shown)
            assert all(request.prompt.count(f"number {i[1:]} of") >= 2 for i in shown)


@pytest.mark.parametrize(("categories", "n"), [("labels", 2), ("leaves", 14)])
def test_the_binary_task_shows_two_or_fourteen(
    categories: str, n: int, corpus: Path, runs_dir: Path
) -> None:
    with serving() as server:
        more = ["task=binary", "shots=1", f"shot_categories={categories}", "cv.fold=1", "run=r"]
        assert prompt.main(options(corpus, runs_dir, server, *more)) == 0
    assert server.requests[0].prompt.count("## Example") == n
    assert len(read_json(runs_dir / "r/manifest.json")["folds"]["fold1"]["shots"]) == n


def test_shots_without_a_rationale_are_refused_before_anything_is_sent(
    corpus: Path, runs_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_jsonl(corpus)
    bare = tmp_path / "bare.jsonl"
    for row in rows:
        del row["rationale"]
    bare.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with serving() as server:
        assert prompt.main(options(bare, runs_dir, server, "shots=1")) == 2
        assert "rationale=false" in capsys.readouterr().err
        assert server.requests == []
        assert prompt.main(options(bare, runs_dir, server, "cv.fold=0")) == 0
        assert prompt.main(options(bare, runs_dir, server, "shots=1", "rationale=false")) == 0


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_what_is_no_label_is_recorded_as_unparsed_and_counts_as_wrong(
    kind: str, corpus: Path, runs_dir: Path
) -> None:
    with serving(script=["refusal", "empty", "outside"], answer=label_of) as server:
        more = [f"client={kind}", "cv.fold=0", "client.max_in_flight=1", "run=r"]
        assert prompt.main(options(corpus, runs_dir, server, *more)) == 0
        assert len(server.requests) == 26
    rows = rows_of(runs_dir / "r/fold0")
    unread = [row for row in rows if not row["parsed"]]
    assert [(row["label"], row["rationale"]) for row in unread] == [(None, None)] * 3
    assert {row["text"].split("\n")[0] for row in unread} == {
        "I cannot call this Blaming.",
        "",
        "Behavior: Sulking",
    }
    scores = read_json(runs_dir / "r/fold0/scores.json")
    assert scores["metrics"]["invalid_rate"] == pytest.approx(3 / 26)


def test_a_run_against_a_server_that_errs_all_the_time_ends_as_against_a_good_one(
    corpus: Path, runs_dir: Path
) -> None:
    errors = ["429", "500", "cut", "dropped", "invalid_json", "other_form", "web_page"] * 3
    with serving(script=list(errors), answer=label_of) as server:
        more = ["cv.fold=0", "run=bad", "client.attempts=30"]
        assert prompt.main(options(corpus, runs_dir, server, *more)) == 0
        assert len(server.requests) == 26 + len(errors)
    with serving(answer=label_of) as server:
        assert prompt.main(options(corpus, runs_dir, server, "cv.fold=0", "run=good")) == 0
    assert rows_of(runs_dir / "bad/fold0") == rows_of(runs_dir / "good/fold0")


def test_after_the_last_attempt_it_ends_with_one_message_and_the_rerun_goes_on(
    corpus: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as server:
        given = options(corpus, runs_dir, server, "client.attempts=2", "run=r")
        server.answer = _failing_after(30, server)
        assert prompt.main(given) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "tried 2 times" in said
        assert "the same command goes on" in said
        assert (runs_dir / "r/fold0/scores.json").is_file()
        assert not (runs_dir / "r/fold1/scores.json").exists()
        server.always, server.answer = None, lambda request: GOOD
        asked = [said_of(request) for request in server.requests]
        answered = len(list((runs_dir / ".answers").rglob("*.json")))
        assert prompt.main(given) == 0
        again = [said_of(request) for request in server.requests[len(asked) :]]
    assert len(again) == 52 - answered
    assert len(set(asked) - set(again)) == answered


def _failing_after(n: int, server: Server) -> Any:
    def answer(request: Request) -> str:
        if len(server.requests) >= n:
            server.always = "500"
        return GOOD

    return answer


def test_finished_folds_are_never_asked_about_again(
    corpus: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as server:
        given = options(corpus, runs_dir, server, "run=r")
        assert prompt.main(given) == 0
        asked = len(server.requests)
        assert prompt.main(given) == 0
        assert len(server.requests) == asked
    assert capsys.readouterr().out.count("finished before") == 2


def test_a_run_of_another_name_pays_nothing_for_the_same_questions(
    corpus: Path, runs_dir: Path
) -> None:
    with serving() as server:
        assert prompt.main(options(corpus, runs_dir, server, "run=first")) == 0
        asked = len(server.requests)
        assert prompt.main(options(corpus, runs_dir, server, "run=second")) == 0
        assert len(server.requests) == asked
        changed = options(corpus, runs_dir, server, "run=third", "client.temperature=0.5")
        assert prompt.main(changed) == 0
        assert len(server.requests) == 2 * asked


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop", "code", "lost"),
    [(signal.SIGKILL, -signal.SIGKILL, 3), (signal.SIGTERM, 143, 0), (signal.SIGINT, 130, 0)],
)
def test_a_kill_costs_at_most_what_was_in_flight(
    stop: signal.Signals, code: int, lost: int, corpus: Path, runs_dir: Path, project_root: Path
) -> None:
    with serving(delay_seconds=0.1, answer=label_of) as server:
        given = options(corpus, runs_dir, server, "run=r", "client.max_in_flight=3")
        process = subprocess.Popen(
            [sys.executable, "-m", "recap.prompt", *given],
            cwd=project_root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=dict(os.environ),
            # A background job of a shell is started with SIGINT ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        deadline = time.monotonic() + 120
        while len(server.requests) < 20 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(stop)
        assert process.wait() == code
        assert 20 <= len(server.requests) < 52
        assert prompt.main(given) == 0
        assert len(server.requests) <= 52 + lost
    assert read_json(runs_dir / "r/summary.json")["folds"] == [0, 1]


def test_requests_under_way_are_bounded_and_many(corpus: Path, runs_dir: Path) -> None:
    with serving(delay_seconds=0.02) as server:
        more = ["run=r", "client.max_in_flight=3"]
        assert prompt.main(options(corpus, runs_dir, server, *more)) == 0
        assert server.most_at_a_time == 3


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_server_elsewhere_is_refused_before_data_are_read(
    kind: str, runs_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"client={kind}", "client.model=m", f"runs_dir={runs_dir}", "data=dialogues"]
    given += [f"data.path={tmp_path / 'missing.jsonl'}"]
    assert prompt.main(given) == 2
    assert "privacy.allow_external=true" in capsys.readouterr().err
    assert not runs_dir.exists()


def test_a_budget_stops_before_it_is_exceeded_and_a_larger_one_goes_on(
    corpus: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(usage=(1000, 20)) as server:
        prices = ["client.price_per_million_input=1", "client.price_per_million_output=10"]
        given = options(corpus, runs_dir, server, "run=r", *prices)
        assert prompt.main([*given, "client.max_cost=0.04"]) == 2
        said = capsys.readouterr().err
        assert "client.max_cost=0.04" in said
        asked = len(server.requests)
        # An answer costs 0.0012: thirty-three would fit, and each could cost five times as much.
        assert 26 < asked <= 33
        assert prompt.main([*given, "client.max_cost=0.04"]) == 2
        assert len(server.requests) == asked, "what earlier processes spent counts"
        capsys.readouterr()
        assert prompt.main([*given, "client.max_cost=1"]) == 0
        assert len(server.requests) == 52
    assert "cost 0.0624" in capsys.readouterr().out


def test_requests_that_were_cut_count_in_the_next_process_too(
    corpus: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as server:
        server.always = "cut"
        given = options(corpus, runs_dir, server, "run=r", "client.max_in_flight=1")
        given += ["client.attempts=1"]
        assert prompt.main([*given, "client.max_total_tokens=1000000"]) == 1
        file = runs_dir / "r" / ".budget" / "unanswered.jsonl"
        [used] = [json.loads(line) for line in file.read_text().splitlines() if line]
        most = int(1.5 * (used["input_tokens"] + used["output_tokens"]))
        server.always = None
        assert prompt.main([*given, f"client.max_total_tokens={most}"]) == 2
        assert f"client.max_total_tokens={most}" in capsys.readouterr().err
        assert len(server.requests) == 1


def test_two_processes_do_not_spend_one_budget(
    corpus: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from recap.runs.folder import locked

    with serving() as server, locked(runs_dir / "r" / ".budget"):
        given = options(corpus, runs_dir, server, "run=r", "client.max_total_tokens=1000000")
        assert prompt.main(given) == 2
        assert "another process" in capsys.readouterr().err
        assert server.requests == []


def test_a_dry_run_sends_and_writes_nothing(
    corpus: Path,
    runs_dir: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    prices = ["client.price_per_million_input=1", "client.price_per_million_output=10"]
    with serving() as server:
        given = options(corpus, runs_dir, server, "run=r", *prices)
        assert prompt.main([*given, "dry_run=true"]) == 0
        said = capsys.readouterr().out
        assert server.requests == []
        assert not runs_dir.exists()
        assert "52 calls to make, 0 answers kept" in said
        assert "at most 6656 tokens of answers" in said  # 52 x 128
        tokens = int(said.partition("about ")[2].split()[0])
        assert f"about {(tokens + 10 * 6656) / 1e6:.2f} at most" in said
        assert prompt.main([*given, "cv.fold=0"]) == 0
        capsys.readouterr()
        assert prompt.main([*given, "dry_run=true"]) == 0
        assert "26 calls to make, 0 answers kept" in capsys.readouterr().out
        elsewhere = [word for word in given if not word.startswith("client.base_url")]
        assert prompt.main([*elsewhere, "dry_run=true"]) == 0
        assert "needs privacy.allow_external=true" in capsys.readouterr().out


def test_no_text_of_a_client_and_no_key_gets_where_it_does_not_belong(
    corpus: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(script=["429", "500"], answer=lambda r: f"{GOOD} {said_of(r)}") as server:
        more = ["logger=wandb", "run=r", "shots=1"]
        assert prompt.main(options(corpus, runs_dir, server, *more)) == 0
        server.always = "too_long"
        failing = options(corpus, runs_dir, server, "run=failed", "logger=wandb")
        assert prompt.main(failing) == 2
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    printed = capsys.readouterr()
    files = [file for file in runs_dir.rglob("*") if file.is_file()]
    answers = [f for f in files if f.name == "predictions.jsonl" or ".answers" in f.parts]
    assert answers
    assert any(file.suffix == ".wandb" for file in files)
    for name, held in [("console", f"{printed.out}{printed.err}".encode())] + [
        (str(file), file.read_bytes()) for file in files
    ]:
        assert KEY.encode() not in held, name
        if name == "console" or Path(name) not in answers:
            assert b"Canary" not in held, name
    assert all(b"# Role" not in file.read_bytes() for file in answers), "a prompt was kept"


def test_wandb_holds_a_run_per_fold_and_a_summary_as_for_a_training(
    corpus: Path, runs_dir: Path
) -> None:
    with serving(answer=label_of) as server:
        assert prompt.main(options(corpus, runs_dir, server, "logger=wandb", "run=r")) == 0
    runs = {r["name"]: r for r in map(read_run, (runs_dir / "r/wandb").rglob("*.wandb"))}
    assert set(runs) == {"r/fold0", "r/fold1", "r/summary"}
    assert {r["group"] for r in runs.values()} == {"r"}
    metrics = read_json(runs_dir / "r/summary.json")["metrics"]["macro_f1"]
    told = runs["r/summary"]["summary"]
    assert [told["macro_f1/mean"], told["macro_f1/std"]] == [metrics["mean"], metrics["std"]]
    assert told["loss/values"] == [None, None]
    logged = {key.split("/")[0] for row in runs["r/summary"]["history"] for key in row}
    assert {"per_category", "confusion", "metrics_over_folds", "f1_over_folds"} <= logged
    assert not [key for key in logged if key.startswith("learning_curves")]
    sent = runs["r/fold0"]["config"]
    assert [sent["client.name"], sent["client.model"], sent["shots"]] == ["openai", "acme/m-1", 0]
    assert not [key for key in sent if "url" in key or "path" in key]


def test_a_folder_of_another_system_is_refused_by_name(
    corpus: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as server:
        given = options(corpus, runs_dir, server, "run=r", "cv.fold=0")
        assert prompt.main(given) == 0
        assert prompt.main([*given, "client.model=other"]) == 2
        assert "client.model" in capsys.readouterr().err
        assert prompt.main([*given, "shots=1"]) == 2
        assert "shots" in capsys.readouterr().err
        shared = [word for word in given if not word.startswith("client")]
        assert train.main(shared) == 2
        assert "client.name" in capsys.readouterr().err
        free = ["client.max_in_flight=1", "client.timeout_seconds=9", "privacy=external"]
        assert prompt.main([*given, *free]) == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("finetune=lora", "trains nothing"),
        ("cv.fold=final", "cv.fold=all"),
        ("cv.fold=7", "no fold 7"),
        ("prompt.max_tokens=300", "prompt.max_tokens=null"),
        ("backbone=qwen7b", "belongs to client=local"),
        ("client.max_cost=1", "client.price_per_million_input"),
        ("client.model=null", "client.model=NAME"),
        ("client.base_url=nowhere", "http://127.0.0.1:8000/v1"),
        ("client.attempts=0", "client.attempts"),
        ("shots=2", "shots"),
        ("clientt=openai", "did you mean client"),
    ],
)
def test_choices_that_cannot_be_had_are_refused_with_the_mend(
    wrong: str, said: str, corpus: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as server:
        assert prompt.main(options(corpus, runs_dir, server, wrong)) == 2
        assert server.requests == []
    assert said in capsys.readouterr().err.replace("'", "")
    assert not runs_dir.exists()


def test_several_devices_are_refused_for_a_local_model(
    runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prompt.main(["trainer=ddp", f"runs_dir={runs_dir}"]) == 2
    assert "vLLM" in capsys.readouterr().err


def test_a_sweep_fills_a_folder_a_job_and_ends_with_one_table(
    corpus: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(answer=label_of) as server:
        given = options(corpus, runs_dir, server, "cv.fold=0")
        assert prompt.main(["-m", *given, "shots=0,1"]) == 0
    names = sorted(path.parent.name for path in runs_dir.glob("*/summary.json"))
    kinds = [name.rpartition("-")[0].partition("acme_m-1-")[2] for name in names]
    assert kinds == ["oneshot", "zeroshot"]
    assert "All jobs" in capsys.readouterr().out


def test_the_configuration_is_kept_with_the_client_and_without_a_key(
    corpus: Path, runs_dir: Path
) -> None:
    with serving() as server:
        assert prompt.main(options(corpus, runs_dir, server, "run=r", "cv.fold=0")) == 0
    kept = yaml.safe_load((runs_dir / "r/config.yaml").read_text(encoding="utf-8"))
    assert kept["client"]["model"] == "acme/m-1"
    assert kept["client"]["temperature"] == 0
    assert kept["client"]["top_p"] == 1
    assert kept["privacy"] == {"allow_external": False, "log_text": False}
    assert kept["shots"] == 0
    assert not [key for key in kept["client"] if "key" in key]


def test_each_prompt_is_the_one_that_a_training_shows(corpus: Path, runs_dir: Path) -> None:
    from recap.folds.run import build_corpus
    from recap.tasks.library import build_task

    with serving() as server:
        assert prompt.main(options(corpus, runs_dir, server, "run=r")) == 0
    config = read_config(runs_dir / "r")
    task = build_task(config)
    examples = [e for e in build_corpus(config, task).examples if task.select(e)]
    shown = {
        tuple((m["role"], m["content"]) for m in request.body["messages"])
        for request in server.requests
    }
    assert shown == {
        tuple((message.role, message.text) for message in task.messages(example))
        for example in examples
    }
    assert all(one_line(example.response) in str(shown) for example in examples)
