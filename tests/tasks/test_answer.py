"""Answers: what is written is read back, much else is read, and nothing is guessed."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recap.errors import DataError
from recap.records import Answer
from recap.tasks.answer import cut_text, ends_in_thought
from recap.tasks.library import builtin_task
from recap.tasks.task import format_text

NAMES = ("binary", "fine_grained", "flat", "annomi_talk")
TASKS = {
    (name, language, form): builtin_task(name, language=language, label_form=form)
    for name in NAMES
    for language in ("en", "zh")
    for form in ("qualified", "bare")
}
FINE = TASKS["fine_grained", "en", "qualified"]
BINARY = TASKS["binary", "en", "qualified"]
CHINESE = TASKS["fine_grained", "zh", "qualified"]

tasks = st.sampled_from(list(TASKS.values()))
rationales = st.one_of(
    st.none(),
    st.text(min_size=1).map(str.strip).filter(bool),
    st.lists(
        st.sampled_from([*FINE.taxonomy.spellings(), "not", "\n", "Reason:", ",", "so"]), min_size=1
    )
    .map(" ".join)
    .map(str.strip)
    .filter(bool),
)


@given(tasks, st.data(), rationales)
def test_a_rendered_answer_is_parsed_to_itself(task, data, rationale):
    answer = Answer(label=data.draw(st.sampled_from(task.labels)), rationale=rationale)
    assert task.parse(task.render(answer)) == answer


def test_the_format_is_the_papers_two_lines():
    answer = Answer(label="Challenging", rationale="doubts the advice")
    assert FINE.render(answer) == "Behavior: Arguing - Challenging\nReason: doubts the advice"
    bare = TASKS["fine_grained", "en", "bare"]
    assert bare.render(answer) == "Behavior: Challenging\nReason: doubts the advice"
    assert (
        CHINESE.render(Answer(label="Challenging", rationale="不信"))
        == "行为：争辩-挑战\n理由：不信"
    )


def test_a_label_only_task_writes_no_reason():
    task = builtin_task("fine_grained", rationale=False)
    text = task.render(Answer(label="Blaming", rationale="a husband is at fault"))
    assert text == "Behavior: Denying - Blaming"
    assert task.parse(text) == Answer(label="Blaming")


def test_a_rationale_keeps_its_lines_and_may_name_other_labels():
    rationale = "first line\n\nnot Denying - Blaming,\nand no Excusing either"
    answer = Answer(label="Pessimism", rationale=rationale)
    assert FINE.parse(FINE.render(answer)) == answer


def test_a_rationale_line_that_reads_as_another_answer_is_joined_to_the_line_before():
    answer = Answer(label="Pessimism", rationale="one might say\nBehavior: Blaming")
    assert FINE.parse(FINE.render(answer)) == Answer(
        label="Pessimism", rationale="one might say Behavior: Blaming"
    )


@pytest.mark.parametrize("label", [None, "Collaboration", "Arguing"])
def test_an_answer_without_a_label_of_the_task_cannot_be_written(label):
    with pytest.raises(DataError, match="can be written"):
        FINE.render(Answer(label=label, rationale="r"))


@pytest.mark.parametrize(
    "text",
    [
        "Behavior: Denying - Blaming\nReason: r",
        "behaviour：denying - blaming\nreason：r",
        "行为：否认-责怪\n理由：r",
        "行为: 否认/Denying-责怪/Blaming\n理由: r",
        "**Behavior:** **Denying - Blaming**\n**Reason:** r",
        "**Behavior**: Denying - Blaming\n\n**Reason**: r",
        "```\nBehavior: Denying - Blaming\nReason: r\n```",
        "```text\nBehavior: Denying - Blaming\nReason: r\n```",
        "Sure, here is my answer:\n\nBehavior: Denying - Blaming\nReason: r",
        'Behavior: "Denying - Blaming"\nReason: r',
        "Behavior: “Blaming”\nReason: r",
        "Behavior: Denying/Blaming.\nReason: r",
        "Behavior: Denying — Blaming\r\nReason: r\r\n",
        "- Behavior: Blaming\n- Reason: r",
        "Behavior:\nDenying - Blaming\nReason: r",
        "Behavior: Denying - Blaming Reason: r",
        "Reason: r\nBehavior: Denying - Blaming",
        "Denying - Blaming\nReason: r",
        "Behavior: The client's response is best described as Denying - Blaming.\nReason: r",
        "The behavior here is Denying - Blaming.\nReason: r",
        "这句回应属于否认-责怪。\n理由：r",
        "Label: Blaming\nExplanation: r",
        "Behavior: <Denying - Blaming>\nReason: r",
        "Behavior: Denying - Blaming\nReason: r\n",
    ],
)
def test_altered_answers_are_seen_through(text):
    assert FINE.parse(text) == Answer(label="Blaming", rationale="r")
    assert CHINESE.parse(text) == Answer(label="Blaming", rationale="r")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        "I cannot tell.",
        "Behavior:",
        "Behavior: Denying",
        "Behavior: Resistance",
        "Behavior: Collaboration\nReason: r",
        "Behavior: Denying - Challenging",
        "Behavior: Blaming or Excusing\nReason: r",
        "Behavior: Blaming / Excusing",
        "Behavior: Blaming\nBehavior: Excusing",
        "Behavior: Blaming\nReason: r\nBehavior: Excusing\nReason: s",
        "Behavior: Blaming\nor Excusing",
        "Behavior: Blaming\nExcusing",
        "Either Blaming or Excusing fits.",
        "Behavior: not Denying - Blaming",
        "This is not blaming.",
        "It isn't Denying - Blaming",
        "Blaming is not what the client does.",
        "Blaming?",
        "这不是责怪",
        "行为：责怪或找借口",
        "Behavior: 回避-理智化\nReason: r",
    ],
)
def test_what_is_unclear_or_no_label_of_the_task_is_not_guessed(text):
    assert FINE.parse(text) == Answer(label=None)
    assert CHINESE.parse(text) == Answer(label=None)


SAID = "Behavior: Denying - Blaming\nReason: r"


@pytest.mark.parametrize(
    "text",
    [
        f"<think>Excusing?</think>{SAID}",
        f"<think>\n\n</think>\n\n{SAID}",
        f"Behavior: Excusing\nReason: so it seems. No:</think>\n{SAID}",
        f"<think>a</think>Excusing?<think>b</think></think>{SAID}",
        f"<THINKING>Excusing</THINKING>{SAID}",
        f"[THINK]Excusing[/THINK]{SAID}",
        f"◁think▷Excusing◁/think▷{SAID}",
        f"<seed:think>Excusing</seed:think>{SAID}",
        f"{SAID}<think>Or Excusing? Behavior: Excusing",
    ],
)
def test_a_thought_is_no_part_of_the_answer(text):
    assert FINE.parse(text) == Answer(label="Blaming", rationale="r")
    assert CHINESE.parse(text) == Answer(label="Blaming", rationale="r")


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        (f"<think>{SAID}", True),
        (f"<think>{SAID}</think>", False),
        (f"{SAID}</think>", False),
        (f"a</think><think>{SAID}", True),
        (cut_text("So the client says that Blaming"), True),
        (cut_text("Okay. Is the behavior Blaming? Behavior: Blaming"), True),
    ],
)
def test_a_thought_without_an_answer_is_unparsed(text, cut):
    assert FINE.parse(text) == Answer(label=None)
    assert ends_in_thought(text) is cut


@pytest.mark.parametrize(
    "text",
    [
        "Behavior: <label>\nReason: <why it fits, in one or two sentences>",
        "Behavior: <label>",
        "Behavior: <label>\nBlaming is what the client does.",
        "行为：<标签>\n理由：<用一两句话说明为什么>",
        "Behavior: {label}\n\nReason: it is Blaming",
        "**Behavior:** [one of the labels]\n\nThe client blames: Blaming.",
        "Behavior: <behaviour>\nDenying - Blaming",
        "<label>\nBlaming",
    ],
)
def test_a_gap_that_was_copied_is_no_answer_whatever_follows(text):
    for task in TASKS.values():
        assert task.parse(text) == Answer(label=None)


def test_a_label_in_the_place_of_a_gap_is_one():
    for text in ("Behavior: <label> Blaming", "Behavior: <label>Blaming</label>", "[Blaming]"):
        assert FINE.parse(text).label == "Blaming"


@pytest.mark.parametrize("style", ["full", "brief"])
@pytest.mark.parametrize("rationale", [True, False])
def test_how_an_answer_is_to_look_holds_no_answer(style, rationale):
    for task in TASKS.values():
        shown = format_text(dataclasses.replace(task, style=style, rationale=rationale))
        assert task.parse(shown) == Answer(label=None)
        key, _, reason = task.render(Answer(label=task.labels[0], rationale="r")).partition("\n")
        assert key.removesuffix(task.written(task.labels[0])).strip() in shown
        assert (reason.removesuffix("r").strip() in shown) == rationale
        assert not set("<>[]{}_") & set(shown)


@pytest.mark.parametrize("text", [SAID, "**Behavior:** Blaming\nReason: it", "<think>x</think>ab"])
def test_an_answer_that_had_begun_when_it_was_cut_off_stays(text):
    assert cut_text(text) == text


def test_the_marks_of_a_thought_in_a_rationale_do_not_hide_the_answer():
    answer = Answer(label="Blaming", rationale="The client types <think> and </think> too.")
    assert FINE.parse(FINE.render(answer)).label == "Blaming"
    assert FINE.render(answer).endswith("The client types   and   too.")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Behavior: Arguing - Challenging", "Resistance"),
        ("Behavior: Ignoring", "Resistance"),
        ("The client shows resistance (Denying - Blaming).", "Resistance"),
        ("Behavior: Cooperation", "Collaboration"),
        ("合作-无阻抗", "Collaboration"),
        ("合作/Collaboration-未阻抗/NA", "Collaboration"),
        ("Behavior: not Resistance", None),
        ("There is no resistance here.", None),
        ("non-resistance", None),
        ("Resistance is absent", None),
        ("不合作", None),
        ("Resistance or Collaboration", None),
    ],
)
def test_in_the_binary_task_a_finer_category_counts_and_a_denied_one_does_not(text, label):
    assert BINARY.parse(text).label == label


def test_naming_the_pattern_of_the_label_is_no_second_label():
    assert FINE.parse("The pattern is Denying, more exactly Blaming").label == "Blaming"
    assert FINE.parse("The pattern is Arguing, more exactly Blaming").label is None


def test_the_longest_spelling_at_a_place_counts():
    assert CHINESE.parse("应归为不愿改变").label == "Unwillingness"
    assert FINE.parse("this is minimal talk").label == "Minimum Talk"
    assert TASKS["flat", "zh", "bare"].parse("属于合作-无阻抗").label == "Collaboration"


def test_a_label_inside_a_word_is_none():
    assert FINE.parse("Unchallenging remarks").label is None
    assert TASKS["annomi_talk", "en", "bare"].parse("exchanges of views").label is None


@given(tasks, st.text())
def test_any_text_is_parsed_without_an_error(task, text):
    answer = task.parse(text)
    assert answer.label is None or answer.label in task.labels


@given(tasks, st.text(alphabet="Behavior: -\n*`\"'：行为理由责怪不Blamingor>", max_size=200))
def test_text_that_resembles_answers_is_parsed_without_an_error(task, text):
    assert task.parse(text).label in (None, *task.labels)
