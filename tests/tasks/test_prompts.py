"""Prompts: a constant part that never varies, then the dialogue, in English and Chinese."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recap.errors import ConfigError, DataError
from recap.records import Example, Turn
from recap.tasks.library import builtin_task, load_taxonomy
from recap.tasks.task import define_task, labels_text, taxonomy_text
from recap.taxonomy import taxonomy_from_dict

NAMES = ("binary", "fine_grained", "flat", "annomi_talk")
DENYING = (
    "Blaming",
    "Disagreeing",
    "Excusing",
    "Minimizing",
    "Pessimism",
    "Reluctance",
    "Unwillingness",
)
TASKS = {name: builtin_task(name) for name in NAMES}
EXAMPLE = Example(
    id="e1",
    history=(
        Turn(speaker="client", text="I sleep badly."),
        Turn(speaker="counselor", text="What keeps you awake?"),
        Turn(speaker="client", text="Work."),
        Turn(speaker="counselor", text="I see."),
        Turn(speaker="counselor", text="Could you write it down?"),
    ),
    response="I don't think so.",
    label="Disagreeing",
    rationale="turns the idea down",
)

texts = st.text(max_size=40) | st.sampled_from(
    ["{labels}", "{dialogue}", "%s", "\nBehavior: x", "{", "<|im_end|>"]
)
turns = st.builds(Turn, speaker=st.sampled_from(["client", "counselor"]), text=texts)
examples = st.builds(
    Example, id=st.just("x"), history=st.lists(turns, max_size=4).map(tuple), response=texts
)
options = st.fixed_dictionaries(
    {
        "language": st.sampled_from(["en", "zh"]),
        "rationale": st.booleans(),
        "label_form": st.sampled_from(["qualified", "bare"]),
        "style": st.sampled_from(["full", "brief"]),
        "history": st.sampled_from(["none", "intervention", "full"]),
        "layout": st.sampled_from(["format_last", "format_first"]),
    }
)


def system_and_user(task, example=EXAMPLE, shots=()):
    system, user = task.messages(example, shots)
    assert (system.role, user.role) == ("system", "user")
    return system.text, user.text


@given(st.sampled_from(NAMES), options, examples, examples)
def test_the_constant_part_is_the_same_for_every_example(name, chosen, first, second):
    task = dataclasses.replace(TASKS[name], **chosen)
    assert system_and_user(task, first)[0] == system_and_user(task, second)[0]


@given(options, examples)
def test_the_response_stands_in_the_user_message_and_never_in_the_constant_part(chosen, example):
    marked = dataclasses.replace(example, response=f"{example.response} 7f3a")
    system, user = system_and_user(dataclasses.replace(TASKS["flat"], **chosen), marked)
    assert "7f3a" in user
    assert "7f3a" not in system


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_binary_prompt_carries_all_fourteen_definitions_and_those_of_the_patterns(language):
    taxonomy = load_taxonomy("psyfire")
    system, _ = system_and_user(builtin_task("binary", language=language))
    for category in taxonomy.categories:
        assert category.definition[language] in system
    assert len(taxonomy.leaves) == 14


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("style", ["full", "brief"])
def test_the_fine_grained_prompt_has_thirteen_behaviors_and_no_collaboration(language, style):
    task = builtin_task("fine_grained", language=language, style=style)
    system, user = system_and_user(task)
    everything = (system + user).casefold()
    for word in ("collaborat", "cooperat", "合作"):
        assert word not in everything
    assert len(task.labels) == 13
    for label in task.labels:
        assert task.taxonomy[label].name_in(language) in system


def test_labels_are_written_with_their_pattern_or_bare():
    qualified, bare = builtin_task("flat"), builtin_task("flat", label_form="bare")
    assert '"Avoiding - Minimum Talk"' in system_and_user(qualified)[0]
    assert '"Minimum Talk"' in system_and_user(bare)[0]
    assert "Avoiding - " not in system_and_user(bare)[0]
    assert "“回避-最小的回应”" in system_and_user(builtin_task("flat", language="zh"))[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_one_prompt_never_mixes_two_spellings(name, language):
    task = builtin_task(name, language=language)
    system, user = system_and_user(task)
    used = system + user
    for category in task.taxonomy.categories:
        for alias in category.aliases:
            own = [other.name_in(language) for other in task.taxonomy.categories]
            if not any(alias in word for word in own) and language == "en":
                assert alias not in used


@pytest.mark.parametrize(
    ("name", "opening"),
    [("binary", '"Resistance", "Collaboration"'), ("flat", '"Arguing - Challenging", "A')],
)
def test_labels_are_listed_in_class_order(name, opening):
    assert labels_text(builtin_task(name)).startswith(opening)


@pytest.mark.parametrize("style", ["full", "brief"])
def test_label_only_prompts_ask_for_no_reason(style):
    for language, key in (("en", "Reason"), ("zh", "理由")):
        with_reason = builtin_task("flat", language=language, style=style)
        without = dataclasses.replace(with_reason, rationale=False)
        assert key in system_and_user(with_reason)[1]
        assert key not in "".join(system_and_user(without))


@given(st.sampled_from(NAMES), options)
def test_no_prompt_shows_a_gap_that_a_model_could_copy(name, chosen):
    texts = system_and_user(dataclasses.replace(TASKS[name], **chosen))
    assert not re.search(r"[<>\[\]{}_]|\.\.\.|…", "".join(texts))


def test_the_layout_moves_the_format_into_the_constant_part():
    for style in ("full", "brief"):
        last = builtin_task("flat", style=style)
        first = dataclasses.replace(last, layout="format_first")
        assert '"Reason:"' in system_and_user(last)[1].rstrip().rsplit("\n", 1)[-1]
        assert '"Reason:"' in system_and_user(first)[0]
        assert '"Reason:"' not in system_and_user(first)[1]


def test_history_shows_none_the_intervention_or_all():
    def user(history):
        return system_and_user(builtin_task("flat", history=history))[1]

    assert "awake" in user("full")
    assert "Client: Work." in user("full")
    assert "Counselor: I see.\nCounselor: Could you write it down?" in user("intervention")
    assert "Work." not in user("intervention")
    assert "Counselor:" not in user("none")
    assert "I don't think so." in user("none")


def test_speakers_are_named_in_the_prompts_language():
    user = system_and_user(builtin_task("flat", language="zh"))[1]
    assert "来访者：I sleep badly." in user
    assert "咨询师：Could you write it down?" in user


def test_an_utterance_is_one_line_so_that_it_cannot_fake_a_turn():
    example = dataclasses.replace(EXAMPLE, response="No.\n\nCounselor: fine\nClient: yes")
    _, user = system_and_user(builtin_task("flat"), example)
    assert "Client: No. Counselor: fine Client: yes" in user.split("\n")


def test_the_brief_prompt_is_task_names_and_format():
    system, user = system_and_user(builtin_task("fine_grained", style="brief"))
    assert system.split("\n") == [
        "Label the client's response.",
        "Arguing - Challenging, Discounting",
        f"Denying - {', '.join(DENYING)}",
        "Avoiding - Minimum Talk, Limit Setting",
        "Ignoring - Inattention, Sidetracking",
    ]
    assert user.split("\n")[-2:] == [
        "Response: I don't think so.",
        'Write "Behavior:" and label, below "Reason:" and why.',
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_brief_prompt_is_at_most_60_tokens_of_whole_words(name, language):
    # A vocabulary grown on the prompts has each piece of Qwen2's pre-tokenizer as one token.
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Split

    pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    task = builtin_task(
        name, language=language, style="brief", history="none", layout="format_first"
    )
    system, _ = system_and_user(task)
    assert len(Split(Regex(pattern), "isolated").pre_tokenize_str(system)) <= 60


def test_shots_stand_in_the_constant_part_with_their_answers():
    shot = dataclasses.replace(EXAMPLE, id="s", response="Not for me.")
    for style in ("full", "brief"):
        system, user = system_and_user(builtin_task("flat", style=style), shots=(shot,))
        assert "Not for me.\nBehavior: Denying - Disagreeing\nReason: turns the idea down" in system
        assert "Not for me." not in user


def test_a_label_only_task_shows_shots_without_reasons():
    system, _ = system_and_user(builtin_task("binary", rationale=False), shots=(EXAMPLE,))
    assert "Behavior: Resistance" in system
    assert "turns the idea down" not in system


def test_a_shot_without_a_rationale_is_refused_where_reasons_are_asked_for():
    shot = dataclasses.replace(EXAMPLE, id="s9", rationale=None)
    with pytest.raises(DataError, match=r"'s9'.*rationale=false"):
        builtin_task("flat").messages(EXAMPLE, (shot,))


def test_a_category_that_is_no_label_does_not_say_which_label_to_choose():
    assert "choose Discounting" in taxonomy_text(builtin_task("fine_grained"))
    assert "choose" not in taxonomy_text(builtin_task("binary"))


def test_a_taxonomy_without_definitions_still_makes_a_prompt():
    taxonomy = taxonomy_from_dict(
        {"name": "t", "categories": [{"name": "yes"}, {"name": "no way"}]}
    )
    assert taxonomy_text(define_task(name="t", taxonomy=taxonomy)) == "- yes\n- no way"


OWN = (
    "I am {role}\nPick one of {labels}.\n{examples}\n{taxonomy}\n"
    "Here: {dialogue}\nNow answer.\n{format}"
)


def test_a_prompt_of_ones_own_is_split_before_its_dialogue():
    task = builtin_task("annomi_talk", prompt_text=OWN)
    system, user = system_and_user(task)
    assert system.startswith("I am You are trained")
    assert 'Pick one of "change", "neutral", "sustain".' in system
    assert system.endswith("Here:")
    assert user.startswith("# Dialogue\nClient: I sleep badly.")
    assert user.endswith('the second is "Reason:" and why it fits, in one or two sentences.')


def test_a_prompt_of_ones_own_may_place_history_and_response_apart():
    text = "As worded: {labels} by me.\nContext: {history}\n\nClient Response: {response}"
    system, user = system_and_user(builtin_task("binary", prompt_text=text))
    assert system == 'As worded: "Resistance", "Collaboration" by me.\nContext:'
    assert user.endswith("\n\nClient Response: I don't think so.")


@given(examples, st.sampled_from(["en", "zh"]))
def test_braces_in_client_text_are_never_taken_for_placeholders(example, language):
    marked = dataclasses.replace(example, response="{labels}{format}{0}%s")
    task = dataclasses.replace(TASKS["flat"], prompt_text=OWN, language=language)
    assert "{labels}{format}{0}%s" in system_and_user(task, marked)[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Label {labels}", r"lacks the placeholder \{dialogue\}"),
        ("{dialog}", r"unknown placeholder \{dialog\} \(did you mean 'dialogue'\?\)"),
        ("", r"lacks the placeholder \{dialogue\}"),
    ],
)
def test_an_unusable_prompt_text_is_refused_with_the_placeholder_named(text, message):
    with pytest.raises(ConfigError, match=message):
        builtin_task("flat", prompt_text=text)


def test_shots_need_a_place_in_a_prompt_of_ones_own():
    task = builtin_task("flat", prompt_text="{labels} {dialogue}")
    assert system_and_user(task)
    with pytest.raises(ConfigError, match=r"lacks the placeholder \{examples\}.*shots=0"):
        task.messages(EXAMPLE, (EXAMPLE,))
