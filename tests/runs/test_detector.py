"""The detector answers as the models it is made of, in every form in which it can be asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from detectors import LATER, TALK, small_task, write_adapter, write_cascade, write_model
from peft import PeftModel
from shrunk import IN_BLOCKS, write_family
from transformers import AutoModelForCausalLM, AutoTokenizer

import recap
from recap.data.encode import ChatEncoder, encode_examples
from recap.errors import ConfigError, DataError
from recap.records import Answer, Dialogue, Example, Turn
from recap.runs.detector import Detector
from recap.tasks.library import task_from_saved, task_to_dict
from recap.tasks.task import Task
from recap.train import __main__ as train

ASKED = ["s1:0", "s1:3", "s1:6", "s1:7"]
"""Ids of TALK's annotations: two turns are one, and a turn without text is one of its own."""


@pytest.fixture(scope="module")
def cascade_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_cascade(tmp_path_factory.mktemp("cascade"))


@pytest.fixture(scope="module")
def cascade(cascade_folders: tuple[Path, Path]) -> Detector:
    binary, fine_grained = cascade_folders
    return recap.Detector.from_pretrained(binary=binary, fine_grained=fine_grained)


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    folder = write_model(tmp_path_factory.mktemp("binary") / "model", small_task("binary"))
    return recap.Detector.from_pretrained(folder)


def label_probabilities(model: Any, tokenizer: Any, task: Task, prompt: tuple[int, ...]) -> Any:
    """Return each label's probability, from one plain forward of transformers a label."""
    encoder = ChatEncoder(tokenizer)
    scores = []
    for label in task.labels:
        answer = encoder.answer_ids(task.render(Answer(label=label)))
        ids = torch.tensor([[*prompt, *answer]])
        with torch.no_grad():
            logits = model(ids).logits[0, len(prompt) - 1 : -1].double()
        chosen = torch.log_softmax(logits, dim=-1).gather(1, torch.tensor(answer)[:, None])
        scores.append(chosen.sum())
    return dict(zip(task.labels, torch.softmax(torch.stack(scores), 0).tolist(), strict=True))


def loaded(folder: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def adapted(folder: Path, base: Path) -> Any:
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder)).eval()


def test_a_label_and_its_probabilities_are_those_of_a_plain_forward(binary: Detector) -> None:
    [annotation] = binary.predict(LATER)
    [folder] = binary.folders
    model, tokenizer = loaded(folder)
    expected = label_probabilities(model, tokenizer, small_task("binary"), binary.prompt_ids(LATER))
    assert annotation.probabilities == pytest.approx(expected, abs=1e-5)
    assert annotation.label == max(expected, key=lambda label: expected[label])
    assert (annotation.id, annotation.session, annotation.turn) == ("own", "s2", 1)
    assert annotation.text == f"Behavior: {annotation.label}"
    assert annotation.parsed


def test_the_prompt_is_the_one_that_training_encodes(binary: Detector) -> None:
    example = Example(id="x", history=LATER.turns[:1], response=LATER.turns[1].text)
    tokenizer = AutoTokenizer.from_pretrained(binary.folders[0])
    encoding = encode_examples([example], small_task("binary"), ChatEncoder(tokenizer))
    assert binary.prompt_ids(LATER) == encoding.examples[0].prompt
    assert binary.prompt_ids(example) == encoding.examples[0].prompt


def test_each_client_turn_is_annotated_once_and_in_order(binary: Detector) -> None:
    answers = binary.predict([TALK, LATER])
    assert [answer.id for answer in answers] == [*ASKED, "own"]
    assert [answer.skipped for answer in answers] == [None, None, "empty", None, None]
    empty = answers[2]
    assert (empty.label, empty.pattern, empty.probabilities, empty.parsed) == (
        None,
        None,
        None,
        False,
    )


def test_turns_can_be_kept_apart(binary: Detector) -> None:
    apart = recap.Detector.from_pretrained(binary.folders[0], merge_adjacent=False)
    assert [answer.id for answer in apart.predict(TALK)] == [
        f"s1:{index}" for index in (0, 2, 3, 6, 7)
    ]


def test_one_thing_can_be_asked_in_several_forms(binary: Detector) -> None:
    expected = binary.predict([LATER])
    row = {"session": "s2", "turns": [{"speaker": t.speaker, "text": t.text} for t in LATER.turns]}
    assert binary.predict(LATER) == expected
    assert binary.predict(row)[0].probabilities == expected[0].probabilities
    assert binary.predict((LATER,)) == expected
    said = binary.predict("No.")
    assert [s.id for s in binary.predict(["No.", "Yes."])] == ["0", "1"]
    assert said == binary.predict(Example(id="0", history=(), response="No."))


def test_an_iterator_is_read_as_its_annotations_are_taken(binary: Detector) -> None:
    read: list[int] = []

    def talks() -> Iterator[Dialogue]:
        for number in range(10_000):
            read.append(number)
            yield Dialogue(session=str(number), turns=(Turn(speaker="client", text="No."),))

    answers = binary.predict(talks())
    assert not read
    assert next(answers).id == "0:0"
    assert len(read) <= 4 * binary.options.batch_size + 1
    assert [next(answers).id for _ in range(3)] == ["1:0", "2:0", "3:0"]


def test_a_row_that_is_no_dialogue_is_refused_without_its_words(binary: Detector) -> None:
    with pytest.raises(DataError, match="speaker: unknown speakers: a text of") as refused:
        binary.predict({"turns": [{"speaker": "secret words of a client", "text": "private"}]})
    assert "secret" not in str(refused.value)
    assert "private" not in str(refused.value)


def test_the_second_stage_is_asked_about_what_the_first_calls_resistant(
    cascade: Detector, cascade_folders: tuple[Path, Path]
) -> None:
    base = cascade_folders[0].parent / "base"
    tokenizer = AutoTokenizer.from_pretrained(base)
    stages = [adapted(folder, base) for folder in cascade_folders]
    prompts = [
        ChatEncoder(tokenizer).prompt_ids(
            task.messages(Example(id="", history=LATER.turns[:1], response=LATER.turns[1].text))
        )
        for task in (small_task("binary"), small_task("fine_grained"))
    ]
    gate = label_probabilities(stages[0], tokenizer, small_task("binary"), prompts[0])
    kinds = label_probabilities(stages[1], tokenizer, small_task("fine_grained"), prompts[1])
    joint = {label: gate["Resistance"] * p for label, p in kinds.items()}

    [resistant] = cascade.predict(LATER, threshold=0.0)
    assert resistant.label == max(kinds, key=lambda label: kinds[label])
    assert resistant.probabilities == pytest.approx(
        {"Collaboration": gate["Collaboration"], **joint}, abs=1e-5
    )
    assert sum((resistant.probabilities or {}).values()) == pytest.approx(1)
    assert resistant.pattern in ("Arguing", "Denying", "Avoiding", "Ignoring")
    assert len(cascade.labels) == 14
    assert set(cascade.labels) == set(resistant.probabilities or {})

    [other] = cascade.predict(LATER, threshold=1.0)
    assert (other.label, other.pattern) == ("Collaboration", "Collaboration")
    assert other.probabilities == pytest.approx(gate, abs=1e-5)


def test_a_pattern_that_is_a_label_is_its_own_pattern(tmp_path: Path) -> None:
    patterns = ("Arguing", "Denying", "Avoiding", "Ignoring")
    task = replace(small_task("fine_grained"), name="patterns", labels=patterns)
    detector = recap.Detector.from_pretrained(write_model(tmp_path / "model", task))
    [found] = detector.predict(LATER)
    assert found.label in patterns
    assert found.pattern == found.label


def test_two_adapters_over_one_base_share_it(cascade: Detector) -> None:
    first, second = cascade._trained
    assert first.model is second.model
    assert (first.adapter, second.adapter) == ("stage0", "stage1")


def test_a_threshold_decides_from_the_probability_that_it_names(binary: Detector) -> None:
    [answer] = binary.predict(LATER)
    assert answer.probabilities is not None
    p = answer.probabilities["Resistance"]
    for threshold, expected in ((p * 0.999, "Resistance"), (p * 1.001, "Collaboration")):
        [decided] = binary.predict(LATER, threshold=threshold)
        assert decided.label == expected
        assert decided == binary.predict(LATER, threshold={"Resistance": threshold})[0]
    q = answer.probabilities["Collaboration"]
    [decided] = binary.predict(LATER, threshold={"Collaboration": q * 0.999})
    assert decided.label == "Collaboration"


def test_a_reason_is_written_only_when_asked_for(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", small_task("binary", rationale=True), seed=3)
    detector = recap.Detector.from_pretrained(folder)
    [short] = detector.predict(LATER)
    [long] = detector.predict(LATER, with_rationale=True)
    assert short.rationale is None
    assert long.label == short.label
    assert len(long.text or "") > len(short.text or "")


def test_a_model_without_reasons_is_not_asked_for_them(binary: Detector) -> None:
    with pytest.raises(ConfigError, match="trained without rationales"):
        binary.predict(LATER, with_rationale=True)


def test_the_language_of_the_prompt_can_be_changed(binary: Detector) -> None:
    [answer] = binary.predict(LATER, language="zh")
    assert answer.text is not None
    assert answer.text.startswith("行为：")
    assert answer.label in binary.labels


def test_a_turn_that_the_model_cannot_read_is_skipped_with_the_reason(tmp_path: Path) -> None:
    detector = recap.Detector.from_pretrained(
        write_model(tmp_path / "model", small_task("binary"), tokens=400)
    )
    long, short = detector.predict(["word " * 2000, "No."])
    assert (long.label, long.skipped) == (None, "too_long")
    assert short.label is not None


@pytest.mark.parametrize("which", ["binary", "cascade"])
def test_a_session_answers_as_the_whole_dialogue_does(
    which: str, request: pytest.FixtureRequest
) -> None:
    detector: Detector = request.getfixturevalue(which)
    session = detector.session("s1")
    said = [session.add(turn.speaker, turn.text) for turn in TALK.turns]
    assert [a is None for a in said] == [t.speaker == "counselor" for t in TALK.turns]
    latest = {answer.id: answer for answer in said if answer is not None}
    for expected in detector.predict(TALK):
        got = latest[expected.id]
        assert (got.label, got.pattern, got.turn, got.skipped) == (
            expected.label,
            expected.pattern,
            expected.turn,
            expected.skipped,
        )
        assert (got.probabilities or {}) == pytest.approx(expected.probabilities or {}, abs=1e-5)
    assert session.dialogue == TALK
    with pytest.raises(DataError, match="speaker"):
        session.add("somebody", "hello")


def test_a_session_computes_little_more_than_what_is_new(binary: Detector) -> None:
    computed: list[int] = []
    embedding = binary._trained[0].model.get_input_embeddings()
    hook = embedding.register_forward_pre_hook(lambda _, args: computed.append(args[0].numel()))
    session = binary.session()
    try:
        for number in range(8):
            session.add("counselor", f"What came to your mind when you read page {number}?")
            computed.clear()
            session.add("client", f"I did not read page {number}, and I will not.")
    finally:
        hook.remove()
    prompt = binary.prompt_ids(session.dialogue)
    assert 0 < sum(computed) < len(prompt) / 2


def test_many_thresholds_do_not_pile_up_in_memory(binary: Detector) -> None:
    for threshold in range(20):
        binary.predict(LATER, threshold=threshold / 20)
    assert len(binary._variants) <= 8


def test_a_quantised_base_is_loaded_in_four_bits(tmp_path: Path) -> None:
    base = write_family(tmp_path / "base", "qwen2", widths=IN_BLOCKS)
    settings = {"quantize": True, "compute_dtype": "float32"}
    folder = write_adapter(tmp_path / "adapter", small_task("binary"), base, **settings)
    detector = recap.Detector.from_pretrained(folder, device="cpu")
    assert detector._trained[0].model.get_base_model().is_loaded_in_4bit
    assert detector.predict(LATER)[0].label in detector.labels


def test_an_adapters_base_can_be_named_when_it_has_moved(tmp_path: Path) -> None:
    base = write_family(tmp_path / "base", "qwen2")
    folder = write_adapter(tmp_path / "adapter", small_task("binary"), base)
    expected = recap.Detector.from_pretrained(folder).predict(LATER)
    base.rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match="base=FOLDER"):
        recap.Detector.from_pretrained(folder)
    moved = recap.Detector.from_pretrained(folder, base=tmp_path / "moved")
    assert moved.predict(LATER) == expected


@pytest.mark.parametrize("name", ["binary", "fine_grained", "flat", "annomi_talk"])
def test_a_saved_task_is_the_task(name: str) -> None:
    task = small_task(name, rationale=True)
    again = task_from_saved(json.loads(json.dumps(task_to_dict(task))))
    assert again == task


def test_a_saved_task_of_another_version_is_refused() -> None:
    values = task_to_dict(small_task("binary"))
    with pytest.raises(ConfigError, match="mood"):
        task_from_saved({**values, "mood": 1})


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    code = train.main(
        [
            *("task=binary", "rationale=false", "cv.folds=2", "cv.max_examples=24"),
            *("trainer.max_epochs=1", "logger=none", "trainer=cpu", "decoding.max_new_tokens=4"),
            *("prompt.max_tokens=300", "run=r", f"runs_dir={runs}"),
        ]
    )
    assert code == 0
    return runs / "r"


def test_a_run_stands_for_its_best_fold_and_its_model_can_be_copied_elsewhere(
    run_folder: Path, tmp_path: Path
) -> None:
    manifest = json.loads((run_folder / "manifest.json").read_text(encoding="utf-8"))
    losses = {name: fold["select_loss"] for name, fold in manifest["folds"].items()}
    best = min(losses, key=lambda name: losses[name])
    detector = recap.Detector.from_pretrained(run_folder)
    assert detector.folders == (run_folder / best / "model",)
    expected = detector.predict(TALK)

    copy = tmp_path / "elsewhere"
    shutil.copytree(run_folder / best / "model", copy)
    assert recap.Detector.from_pretrained(copy).predict(TALK) == expected
    assert recap.Detector.from_pretrained(run_folder / best).predict(TALK) == expected
    said = (copy / "recap.json").read_text(encoding="utf-8")
    assert str(run_folder.parent) not in said
    assert json.loads(said)["max_prompt_tokens"] == 300

    # A run of an earlier version has no such file; its model is asked as its config.yaml says.
    old = tmp_path / "old"
    shutil.copytree(run_folder, old)
    for file in old.glob("fold*/model/recap.json"):
        file.unlink()
    assert recap.Detector.from_pretrained(old).predict(TALK) == expected
    (copy / "recap.json").unlink()
    with pytest.raises(ConfigError, match=r"lacks recap\.json"):
        recap.Detector.from_pretrained(copy)


def test_what_is_no_model_is_told_with_the_mend(
    tmp_path: Path, cascade_folders: tuple[Path, Path]
) -> None:
    binary, fine_grained = cascade_folders
    load = recap.Detector.from_pretrained
    with pytest.raises(ConfigError, match="no such folder"):
        load(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="holds no model"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="binary= and fine_grained="):
        load(binary=binary)
    with pytest.raises(ConfigError, match="make no cascade"):
        load(binary=fine_grained, fine_grained=binary)
    with pytest.raises(ConfigError, match="one of two labels"):
        load(fine_grained, threshold=0.5)
    with pytest.raises(ConfigError, match="no probability"):
        load(binary, threshold=1.5)
    with pytest.raises(ConfigError, match="one label"):
        load(binary, threshold={"Resistance": 0.1, "Collaboration": 0.2})


def test_a_model_of_an_earlier_version_decides_for_the_likeliest_label(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", small_task("binary"))
    file = folder / "recap.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    del settings["decoding"], settings["threshold"]
    file.write_text(json.dumps(settings), encoding="utf-8")
    expected = recap.Detector.from_pretrained(folder, decoding="scored").predict(TALK)
    assert recap.Detector.from_pretrained(folder).predict(TALK) == expected
