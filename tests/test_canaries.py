"""Planted texts through every command: none is found outside of the files that are there for it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from canaries import (
    CANARIES,
    NAMES,
    REASONS,
    SPOKEN,
    TEXTS,
    Ended,
    World,
    corpus_lines,
    faulty_lines,
    token_forms,
)
from fake_servers import serving
from faults import record_fault

from recap.corpus import options as corpus_options
from recap.insights import options as insights_options
from recap.tasks.library import builtin_task

pytestmark = pytest.mark.slow

Allowed = Mapping[str, Iterable[str]]

EVERYWHERE: Allowed = {
    # Paths and ids are what messages name things by.
    "stdout": {"data_path", "example_id"},
    "stderr": {"data_path", "example_id"},
    "title": {"data_path"},
    # A run folder.
    "*/config.yaml": {"data_path"},
    "*/manifest.json": {"data_path", "example_id"},
    "*/data.json": {"data_path", "example_id"},
    "*/leakage.json": {"session", "client", "example_id"},
    "*/predictions.jsonl": {"session", "example_id", "answer"},
    # What a prompt says beside the dialogue belongs to the model.
    "*/model/recap.json": {"prompt_file"},
    "runs/.answers/*": {"answer"},
}
"""Patterns of files to the kinds of text that may stand there, whatever the command."""

SMOKE = (
    *("experiment=smoke", "prompt=brief", "prompt.max_tokens=300", "global_batch_size=8"),
    "decoding.max_new_tokens=8",
)
BINARY = ("task=binary", *SMOKE)
CRASH = """
import lightning
from canaries import CANARIES

class Crash(lightning.Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        try:
            dict()[CANARIES["history_client"]]
        except KeyError as error:
            error.add_note(CANARIES["rationale"])
            raise ValueError("cannot make sense of " + CANARIES["utterance"]) from error
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tree=tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def data(world: World) -> tuple[str, str]:
    file = world.given(f"{CANARIES['data_path']}/corpus.jsonl", corpus_lines())
    return "data=dialogues", f"data.path={file}"


@pytest.fixture(scope="module")
def faulty(world: World) -> Path:
    return world.given(f"{CANARIES['data_path']}/faulty.jsonl", faulty_lines())


@pytest.fixture(scope="module")
def prompt_file(world: World) -> Path:
    text = f"{CANARIES['prompt_file']}\n\n{{labels}}\n\n{{format}}\n\n{{history}}\n\n{{response}}\n"
    return world.given("prompt.txt", text)


@pytest.fixture(scope="module")
def runs(world: World, data: tuple[str, str]) -> Path:
    """Two trained stages, of which other commands make use."""
    for task in ("binary", "fine_grained"):
        ended = world.run("train", f"task={task}", *SMOKE, *data, f"run={task}")
        assert ended.code == 0, ended.stderr
        check(world, ended)
    return world.cwd / "runs"


def check(world: World, ended: Ended, allowed: Allowed | None = None, *, code: int = 0) -> None:
    """Check what a command has left behind, and write down what was searched for."""
    assert ended.code == code, ended.stderr[-3000:]
    found = world.finds(
        ended,
        {**EVERYWHERE, **(allowed or {})},
        extra=token_forms("utterance", "shot", "history_client", "rationale"),
    )
    others = world.open_to_others()
    world.settle()
    lost = {find.kind for find in found}
    record_fault(
        "canaries searched for",
        tried=len(CANARIES),
        survived=len(CANARIES) - len(lost),
        lost=len(lost),
    )
    record_fault(
        "commands whose files with text are their owner's alone",
        tried=1,
        survived=int(not others),
        lost=int(bool(others)),
    )
    assert found == []
    assert others == []
    assert ended.temporary(world.tree / "tmp") == []


def test_training(world: World, runs: Path, data: tuple[str, str], prompt_file: Path) -> None:
    own = ("run=final", "cv.fold=final", f"prompt.file={prompt_file}", "finetune=lora")
    check(world, world.run("train", *BINARY, "prompt=full", *data, *own))


def test_a_sweep(world: World, data: tuple[str, str]) -> None:
    own = ("-m", "seed=1,2", "cv.fold=0", "logger=none")
    check(world, world.run("train", *BINARY, *data, *own))
    assert not list(world.tree.rglob("multirun.yaml"))


def test_training_on_rows_at_fault(world: World, faulty: Path) -> None:
    given = (*BINARY, "data=dialogues", f"data.path={faulty}", "run=faulty")
    check(world, world.run("train", *given), code=2)


def test_training_with_rows_at_fault_left_out(world: World, data: tuple[str, str]) -> None:
    mixed = world.given(f"{CANARIES['data_path']}/mixed.jsonl", corpus_lines() + faulty_lines())
    own = (f"data.path={mixed}", "data.on_error=skip", "run=mixed", "cv.fold=0")
    check(world, world.run("train", *BINARY, *data, *own))


def test_a_crash_inside_training(world: World, data: tuple[str, str]) -> None:
    world.given("crashes.py", CRASH)
    folders = (world.environment["PYTHONPATH"], str(Path(__file__).parent), str(world.tree / "in"))
    path = os.pathsep.join(folders)
    own = ("+callbacks.crash.name=crashes:Crash", "run=crash")
    ended = world.run("train", *BINARY, *data, *own, PYTHONPATH=path)
    assert "ValueError" in ended.stderr
    assert "crashes.py" in ended.stderr
    check(world, ended, code=1)
    # Who asks for the words gets them.
    ended = world.run("train", *BINARY, *data, *own, "privacy.log_text=true", PYTHONPATH=path)
    assert CANARIES["utterance"] in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_training_that_is_ended(world: World, data: tuple[str, str], number: int) -> None:
    run = f"ended{number}"
    folder = world.cwd / "runs" / run

    def trains() -> bool:
        return any(folder.rglob("*.ckpt"))

    given = ("trainer.max_epochs=500", "trainer.patience=500", f"run={run}")
    ended = world.run("train", *BINARY, *data, *given, until=trains, signal_number=number)
    assert list(folder.rglob("*.ckpt")), "nothing to search"
    # W&B's own logs stay where its process was killed; the next call removes them.
    check(world, ended, code=143 if number == signal.SIGTERM else -number)


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_prompted_run(world: World, data: tuple[str, str], kind: str) -> None:
    answer = f"Behavior: Collaboration\nReason: {CANARIES['answer']}"
    with serving(answer=lambda request: answer) as server:
        ended = world.run(*prompted(kind, server.url, data), "shots=1", f"run={kind}")
        asked = "\n".join(request.prompt for request in server.requests)
    assert all(CANARIES[k] in asked for k in ("utterance", "shot", "history_client"))
    check(world, ended)


@pytest.mark.parametrize("behaviour", ["401", "key", "too_long", "500", "invalid_json"])
def test_a_server_that_quotes_prompt_and_key_in_its_errors(
    world: World, data: tuple[str, str], behaviour: str
) -> None:
    with serving(always=behaviour) as server:
        ended = world.run(
            *prompted("openai", server.url, data), f"run=refused_{behaviour}", "client.attempts=2"
        )
    check(world, ended, code=2 if behaviour in ("401", "key", "too_long") else 1)


def prompted(kind: str, url: str, data: tuple[str, str]) -> tuple[str, ...]:
    return (
        *("prompt", "task=binary", "cv.folds=2", *data, f"client={kind}", "client.model=m"),
        f"client.base_url={url}" + ("/v1" if kind == "openai" else ""),
        "client.backoff_seconds=0",
    )


def test_a_prompted_model_of_this_machine(world: World, data: tuple[str, str]) -> None:
    given = ("shots=1", "prompt.max_tokens=600", "decoding.max_new_tokens=8", "cv.folds=2")
    check(world, world.run("prompt", "task=binary", "prompt=brief", *data, *given, "run=local"))


def test_a_key_in_an_option_is_refused(world: World, data: tuple[str, str]) -> None:
    options = {
        "client.model=${oc.env:OPENAI_API_KEY}": "takes nothing from the environment",
        f"run={CANARIES['api_key']}": "OPENAI_API_KEY",
    }
    for option, said in options.items():
        ended = world.run("prompt", "client=openai", *data, "client.model=m", option)
        assert said in ended.stderr
        title = {"title": {"api_key", "data_path"}}  # it was typed on the command line
        check(world, ended, title, code=2)


@pytest.mark.parametrize("method", ["tfidf", "encoder"])
def test_baselines(world: World, data: tuple[str, str], method: str) -> None:
    given = (f"method={method}", "task=binary", *data, "cv.folds=2", "encoder.max_epochs=1")
    check(world, world.run("evaluate", *given, f"run={method}"))


def test_evaluations(world: World, data: tuple[str, str], runs: Path) -> None:
    check(world, world.run("evaluate", f"model={runs}/binary", "cv.fold=0", "out=evaluated"))
    file = runs / "binary/fold0/predictions.jsonl"
    given = (f"predictions={file}", "task=binary", *data, "on_missing=drop", "out=scored")
    check(world, world.run("evaluate", *given))
    stages = (f"binary={runs}/binary", f"fine_grained={runs}/fine_grained")
    check(world, world.run("evaluate", *stages, "out=cascade"))


def test_an_evaluation_of_predictions_at_fault(world: World, data: tuple[str, str]) -> None:
    rows = [
        {
            "id": CANARIES["faulty_row"] + " x",
            "label": f"{CANARIES['label']} as nobody ever wrote it",
        },
        {
            "id": f"{CANARIES['example_id']}-0",
            "label": f"{CANARIES['faulty_row']} as nobody ever wrote it",
        },
        {"id": [CANARIES["faulty_row"]], "label": 3},
    ]
    broken = world.given("broken.jsonl", "\n".join(map(json.dumps, rows)) + "\n{")
    ended = world.run("evaluate", f"predictions={broken}", "task=binary", *data)
    check(world, ended, code=2)


GIVEN_BACK = TEXTS | {"answer", "data_path"}
"""An annotated file holds what the input held."""


@pytest.mark.parametrize("output", ["answers.jsonl", "answers.csv"])
def test_annotation(world: World, data: tuple[str, str], runs: Path, output: str) -> None:
    path = data[1].removeprefix("data.path=")
    given = (f"model={runs}/binary", f"input={path}", f"output={output}", "rationale=true")
    allowed = {output: GIVEN_BACK, f"{output}.state.json": {"meta_key"}}
    check(world, world.run("predict", *given, "prompt.max_tokens=300"), allowed)


@pytest.mark.parametrize("output", ["replaced.jsonl", "replaced.csv"])
def test_annotation_without_texts(
    world: World, data: tuple[str, str], runs: Path, output: str
) -> None:
    path = data[1].removeprefix("data.path=")
    given = (f"model={runs}/binary", f"input={path}", f"output={output}", "rationale=true")
    given = (*given, "privacy.replace_text=true", "prompt.max_tokens=300")
    allowed = {output: {"session", "example_id"}, f"{output}.state.json": {"meta_key"}}
    check(world, world.run("predict", *given), allowed)


def test_annotation_of_rows_at_fault(world: World, runs: Path, faulty: Path) -> None:
    given = (f"model={runs}/binary", f"input={faulty}", "output=faulty.jsonl")
    check(world, world.run("predict", *given), code=2)
    left_out = {
        "faulty.jsonl": {"faulty_row", "label"},
        "faulty.jsonl.rejected.txt": {"data_path"},
        "faulty.jsonl.state.json": {"faulty_row"},
    }
    check(world, world.run("predict", *given, "data.on_error=skip"), left_out)


CORPUS: Mapping[str, tuple[tuple[str, ...], Allowed]] = {
    "describe": ((), {}),
    # A turn without an id is called after its session: <session>:<turn>.
    "validate": (
        (),
        {
            "found/validate.*": {"example_id", "session", "data_path"},
            "stdout": {"example_id", "session", "data_path"},
        },
    ),
    "codebook": ((), {}),
    "lexicon": (("lexicon.minimum_count=1",), {}),
    "assign": (
        ("assign.annotators=[ann,bo]",),
        {"found/*.jsonl": TEXTS, "found/assign.csv": {"session", "example_id"}},
    ),
    "agreement": (("annotations.path={judgements}",), {}),
    "adjudicate": (
        ("annotations.path={judgements}", "adjudicate.annotators=[ann,bo,cy]"),
        {
            "found/*.jsonl": TEXTS,
            "found/todo.csv": TEXTS,
            "found/adjudicate.*": {"example_id"},
        },
    ),
    "exam": (
        ("annotations.path={judgements}", "exam.key={key}"),
        {"found/feedback/*": TEXTS},
    ),
    "ratings": ((), {"found/ratings*": TEXTS}),
}


@pytest.mark.parametrize("action", CORPUS)
def test_corpus(world: World, data: tuple[str, str], action: str) -> None:
    rows = ["id,annotator,label,rationale"]
    for number in range(16):
        for annotator in ("ann", "bo"):
            label = "Excusing" if number % 5 == 0 and annotator == "bo" else "Collaboration"
            reason = CANARIES["rationale"]
            rows.append(f"{CANARIES['example_id']}-{number},{annotator},{label},{reason}")
    judgements = world.given("judgements.csv", "\n".join(rows) + "\n")
    options, allowed = CORPUS[action]
    ids = [f"{CANARIES['example_id']}-{number},Collaboration" for number in range(16)]
    key = world.given("key.csv", "\n".join(["id,label", *ids]) + "\n")
    filled = [option.format(judgements=judgements, key=key) for option in options]
    ended = world.run("corpus", f"action={action}", *data, *filled, "out=found")
    check(world, ended, allowed)


def test_the_validation_of_rows_at_fault(world: World, faulty: Path) -> None:
    given = ("action=validate", "data=dialogues", f"data.path={faulty}", "out=invalid")
    allowed = {"invalid/validate.*": {"example_id", "data_path"}}
    check(world, world.run("corpus", *given), allowed, code=2)


PAGES = {"found/*": SPOKEN | REASONS | NAMES}
INSIGHTS: Mapping[str, tuple[tuple[str, ...], Allowed]] = {
    "sessions": ((), {"found/sessions/sessions*": NAMES}),
    "alliance": (
        ("outcomes.path={outcomes}", "outcomes=[bond]"),
        {},
    ),
    "study_materials": (
        (
            *("study_materials.participants=4", "study_materials.per_behavior=1"),
            *("study_materials.collaborative=1", "data.path={every_label}"),
        ),
        PAGES,
    ),
    "card": ((), {**PAGES, "stdout": NAMES}),
    "supervision": (("supervision.excel=true",), {**PAGES, "stdout": {"session"}}),
}


def test_every_action_is_searched_for_canaries() -> None:
    assert corpus_options.ACTIONS.keys() == CORPUS.keys()
    # The tables of a study hold no words of clients.
    assert insights_options.ACTIONS.keys() == INSIGHTS.keys() | {"study"}


@pytest.mark.parametrize("action", INSIGHTS)
def test_insights(world: World, data: tuple[str, str], action: str) -> None:
    rows = [f"{CANARIES['session']}-{number},{number % 5}" for number in range(16)]
    outcomes = world.given("outcomes.csv", "\n".join(["session,bond", *rows]) + "\n")
    options, allowed = INSIGHTS[action]
    labels = [label for label in builtin_task("flat").labels for _ in range(2)]
    every_label = world.given(f"{CANARIES['data_path']}/all.jsonl", corpus_lines(labels))
    filled = [option.format(outcomes=outcomes, every_label=every_label) for option in options]
    given = (f"action={action}", *data, *filled, "resamples=20", f"out=found/{action}")
    check(world, world.run("insights", *given), allowed)


def test_a_study(world: World) -> None:
    rows = [
        f"{CANARIES['client']}-{who},{'control' if who % 2 else 'experimental'},{phase},{who % 7}"
        for who in range(12)
        for phase in ("pre", "post")
    ]
    scores = world.given("study.csv", "\n".join(["participant,group,phase,score", *rows]) + "\n")
    given = ("action=study", f"data.path={scores}", "resamples=20", "out=study")
    check(world, world.run("insights", *given))


def test_a_plan(world: World, data: tuple[str, str]) -> None:
    check(world, world.run("plan", "task=binary", *data, "prompt=brief", "out=planned"))


def test_a_report(world: World, runs: Path) -> None:
    given = (f"runs={runs}/binary,{runs}/fine_grained", "out=reported", "resamples=20")
    # It names examples by their ids.
    check(world, world.run("report", *given), {"reported/*": {"example_id"}})


def test_texts_that_are_asked_for_are_shown(world: World, data: tuple[str, str]) -> None:
    own = ("run=shown", "cv.fold=0", "privacy.log_text=true")
    ended = world.run("train", *BINARY, *data, *own)
    assert ended.code == 0
    assert CANARIES["utterance"] in ended.stdout
    tables = list((world.cwd / "runs/shown").rglob("*.table.json"))
    assert any(CANARIES["utterance"] in table.read_text(encoding="utf-8") for table in tables)
