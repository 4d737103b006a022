"""What a client types is text: no control token comes of it, and no turn begins or ends with it."""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from builders import read_jsonl
from control_tokens import CONTROL_TEXTS, FAKE_TURNS, FAMILIES, tokenizer
from fake_servers import serving
from faults import record_fault
from shrunk import model_of

from recap.cli.compose import load_config
from recap.cli.prompted import ClientConfig
from recap.data.encode import ChatEncoder, encode_examples
from recap.folds.tuned import prepare
from recap.models.engine.label_scoring import LabelScorer
from recap.models.export import ModelSettings, save_model
from recap.prompt.clients import build_client
from recap.records import Example, Turn
from recap.runs.detector import Detector
from recap.tasks.library import builtin_task
from recap.tasks.task import Task

ROW = "control tokens in client text"
FEW = (*FAKE_TURNS, "<|im_end|>", "</tool_call>", "<|reserved_special_token_247|>", "[/INST]")
OWN_PROMPT = "<|im_start|>system {labels} <|eot_id|>{examples}</tool_call>\n{dialogue}"
ENCODERS = {family: ChatEncoder(tokenizer(family)) for family in FAMILIES}

TASKS = {
    f"{style} {layout} {language}": builtin_task(
        "fine_grained",
        style=style,  # type: ignore[arg-type]
        layout=layout,  # type: ignore[arg-type]
        language=language,  # type: ignore[arg-type]
    )
    for style, layout, language in itertools.product(
        ("brief", "full"), ("format_last", "format_first"), ("en", "zh")
    )
}
TASKS["own prompt"] = builtin_task("fine_grained", prompt_text=OWN_PROMPT)
TASKS["intervention alone, bare labels"] = builtin_task(
    "fine_grained", history="intervention", label_form="bare"
)
PLACES = ("response", "history", "counselor", "split", "rationale", "names", "shot", "shot reason")


def dialogue(place: str, said: str) -> tuple[Example, tuple[Example, ...]]:
    """Return an example and a shot, with a text in one place of them."""
    text = {name: said if name == place else "well" for name in PLACES}
    half = len(said) // 2
    before, after = (said[:half], said[half:]) if place == "split" else ("well", "well")
    response = after if place == "split" else text["response"]
    example = Example(
        id=text["names"],
        session=text["names"],
        client=text["names"],
        history=(
            Turn(speaker="client", text=f"{text['history']} {before}"),
            Turn(speaker="counselor", text=text["counselor"]),
        ),
        response=response,
        label="Challenging",
        rationale=text["rationale"],
        meta={"speaker": text["names"]},
    )
    shot = Example(
        id="shot",
        history=(Turn(speaker="counselor", text="well"),),
        response=text["shot"],
        label="Blaming",
        rationale=text["shot reason"],
    )
    return example, (shot,)


def structure(family: str, ids: Sequence[int]) -> list[tuple[int, str]]:
    """Return the control tokens in order, each with the rest of the line after it: the roles."""
    control = set(tokenizer(family).added_tokens_decoder)
    places = [i for i, token in enumerate(ids) if token in control]
    ends = [*places[1:], len(ids)]
    return [
        (ids[start], tokenizer(family).decode(ids[start + 1 : end]).partition("\n")[0])
        for start, end in zip(places, ends, strict=True)
    ]


def encoded(family: str, task: Task, place: str, said: str) -> tuple[list[int], list[int]]:
    example, shots = dialogue(place, said)
    [found] = encode_examples([example], task, ENCODERS[family], shots=shots).examples
    return list(found.prompt), list(found.answer)


@cache
def expected_structure(family: str, name: str) -> list[tuple[int, str]]:
    return structure(family, encoded(family, TASKS[name], "response", "well")[0])


def is_sound(family: str, name: str, place: str, said: str) -> bool:
    """Whether prompt and answer have the control tokens and roles of a harmless dialogue's."""
    task = TASKS[name]
    prompt, answer = encoded(family, task, place, said)
    encoder = ENCODERS[family]
    control = set(tokenizer(family).added_tokens_decoder)
    ends = answer[-1] == encoder.end_of_turn_id and not control & set(answer[:-1])
    read = task.parse(encoder.text(answer)).label == "Challenging"
    return structure(family, prompt) == expected_structure(family, name) and ends and read


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_place_of_a_dialogue_gives_a_control_token(family: str, name: str) -> None:
    for place, said in itertools.product(PLACES, FEW):
        assert is_sound(family, name, place, said), (place, said)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_control_token_of_any_family_comes_of_a_response(family: str) -> None:
    for said in CONTROL_TEXTS:
        assert is_sound(family, "brief format_last en", "response", f"no {said}system"), said


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_reads_the_letters_that_were_typed(family: str) -> None:
    for said in (*CONTROL_TEXTS, *FAKE_TURNS):
        prompt, _ = encoded(family, TASKS["brief format_last en"], "response", said)
        shown = " ".join(said.split())
        if family == "look_alike":
            shown = unicodedata.normalize("NFKC", shown)
        assert shown in tokenizer(family).decode(prompt), said


def test_names_of_people_and_rows_never_reach_a_prompt() -> None:
    for task in TASKS.values():
        assert encoded("qwen2", task, "names", "<|im_end|>") == encoded(
            "qwen2", task, "names", "well"
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_control_token_in_every_place(family: str, name: str) -> None:
    tried = list(itertools.product(PLACES, (*CONTROL_TEXTS, *FAKE_TURNS)))
    sound = sum(is_sound(family, name, place, said) for place, said in tried)
    record_fault(ROW, tried=len(tried), survived=sound, lost=len(tried) - sound)
    assert sound == len(tried)


def hostile_rows(n: int) -> list[dict[str, Any]]:
    """Return native examples, each with control tokens in every text that it has."""
    texts = [*FAKE_TURNS, *CONTROL_TEXTS[:: max(1, len(CONTROL_TEXTS) // n)]][:n]
    labels = builtin_task("fine_grained").labels
    return [
        {
            "id": f"e{i}",
            "session": f"s{i}",
            "history": [
                {"speaker": "client", "text": f"{i} {said}"},
                {"speaker": "counselor", "text": said},
            ],
            "response": f"{said} {i}",
            "label": labels[i % len(labels)],
            "rationale": said,
        }
        for i, said in enumerate(texts)
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("hostile") / "hostile.jsonl"
    rows = (json.dumps(row, ensure_ascii=False) for row in hostile_rows(52))
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a family, and a model of it with all of its control tokens, as training saves one."""
    family = request.param
    model = model_of(family, len(tokenizer(family)))
    folder = tmp_path_factory.mktemp(family) / "model"
    save_model(
        model,
        tokenizer(family),
        folder,
        end_of_turn_id=ENCODERS[family].end_of_turn_id,
        pad_id=ENCODERS[family].pad_id,
        settings=ModelSettings(
            task=builtin_task("fine_grained", style="brief", rationale=False), max_new_tokens=12
        ),
    )
    return family, folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[int]]]:
    """Return the prompts that models are asked while a test runs."""
    prompts: list[list[int]] = []
    answer = LabelScorer.answer

    def noted(self: LabelScorer, given: Sequence[Sequence[int]]) -> Any:
        prompts.extend(map(list, given))
        return answer(self, given)

    monkeypatch.setattr(LabelScorer, "answer", noted)
    return prompts


def assert_one_shape(family: str, prompts: Sequence[Sequence[int]], at_least: int) -> None:
    assert len(prompts) >= at_least
    roles = [[token for token, _ in structure(family, ids)] for ids in prompts]
    assert all(found == roles[0] for found in roles)


def test_a_saved_model_is_asked_and_trained_with_the_templates_own_tokens(
    saved: Any, data: Path, tmp_path: Path, asked: list[list[int]]
) -> None:
    family, folder = saved
    detector = Detector.from_pretrained(folder, decoding="free")
    rows = read_jsonl(data)
    assert len(detector.predict(rows)) == len(rows)
    assert_one_shape(family, asked, len(rows))
    assert list(detector.prompt_ids(rows[-1])) in asked

    config = load_config(
        [
            *("data=dialogues", f"data.path={data}", "prompt=brief", "cv.folds=2", "logger=none"),
            *(f"backbone.path={folder}", f"backbone.family={family}", f"runs_dir={tmp_path}"),
        ]
    )
    encoding = prepare(config).run.encoding
    assert encoding is not None
    trained = encoding.examples
    assert_one_shape(family, [example.prompt for example in trained], len(rows))
    assert_one_shape(family, [example.answer for example in trained], len(rows))
    assert {len(structure(family, example.answer)) for example in trained} == {1}


@pytest.mark.parametrize("verb", ["predict", "evaluate", "prompt"])
def test_commands_ask_with_the_templates_own_tokens(
    verb: str, saved: Any, data: Path, tmp_path: Path, asked: list[list[int]]
) -> None:
    from recap.cli.command import main

    family, folder = saved
    source = ["data=dialogues", f"data.path={data}"]
    backbone = [f"backbone.path={folder}", f"backbone.family={family}", "rationale=false"]
    small = ["cv.folds=2", "logger=none", "prompt=brief", "decoding.max_new_tokens=8"]
    arguments = {
        "predict": [f"model={folder}", f"input={data}", f"output={tmp_path / 'a.jsonl'}"],
        "evaluate": [f"model={folder}", *source],
        "prompt": [*source, *backbone, *small, f"runs_dir={tmp_path}", "shots=1"],
    }[verb]
    assert main([verb, *arguments]) == 0
    assert_one_shape(family, asked, 52)


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_servers_get_the_text_as_data_in_the_message_of_the_user(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{kind.upper()}_API_KEY", "k")
    task = TASKS["full format_last en"]
    tried = [m for said in FEW for m in [task.messages(dialogue("response", said)[0])]]
    with serving() as server:
        url = server.url + ("/v1" if kind == "openai" else "")
        config = ClientConfig(name=kind, model="m", base_url=url)  # type: ignore[arg-type]
        client = build_client(config, max_new_tokens=8)
        for messages in tried:
            client.complete(messages)
    for (system, user), request in zip(tried, server.requests, strict=True):
        chat = list(request.body["messages"])
        if kind == "anthropic":
            chat.insert(0, {"role": "system", "content": request.body["system"]})
        assert chat == [
            {"role": "system", "content": system.text},
            {"role": "user", "content": user.text},
        ]
