"""A task as a value: which examples it takes, their gold label, and what it refuses."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

from recap.errors import ConfigError, DataError
from recap.records import Example
from recap.tasks.library import builtin_task, load_taxonomy
from recap.tasks.task import define_task
from recap.taxonomy import taxonomy_from_dict

PSYFIRE = load_taxonomy("psyfire")


def labeled(label):
    return Example(id=f"is-{label}", history=(), response="…", label=label)


def test_binary_takes_every_example_and_folds_the_thirteen_behaviors_into_resistance():
    task = builtin_task("binary")
    assert task.labels == ("Resistance", "Collaboration")
    golds = [task.gold(labeled(leaf)) for leaf in PSYFIRE.leaves]
    assert golds == ["Resistance"] * 13 + ["Collaboration"]


def test_fine_grained_takes_resistant_examples_only():
    task = builtin_task("fine_grained")
    assert len(task.labels) == 13
    assert not task.select(labeled("Collaboration"))
    assert all(task.gold(labeled(name)) == name for name in task.labels)


def test_flat_takes_all_fourteen():
    task = builtin_task("flat")
    assert task.labels == PSYFIRE.leaves
    assert all(task.gold(labeled(name)) == name for name in task.labels)


def test_an_example_labeled_coarser_than_the_task_is_not_selected():
    assert not builtin_task("fine_grained").select(labeled("Arguing"))
    assert builtin_task("binary").gold(labeled("Arguing")) == "Resistance"


def test_an_unlabeled_example_is_not_selected_and_still_gets_a_prompt():
    task = builtin_task("flat")
    assert not task.select(labeled(None))
    assert len(task.messages(labeled(None))) == 2


def test_gold_of_an_example_outside_the_task_is_refused_by_id():
    with pytest.raises(DataError, match="'is-Collaboration'"):
        builtin_task("fine_grained").gold(labeled("Collaboration"))


def test_a_label_outside_the_taxonomy_is_refused_with_the_nearest_name():
    with pytest.raises(DataError, match=r"'Agreeing'.*did you mean 'Disagreeing'"):
        builtin_task("fine_grained").select(labeled("Agreeing"))


def test_the_class_index_is_the_place_in_the_list_of_labels():
    task = builtin_task("flat")
    assert [task.index(label) for label in task.labels] == list(range(14))
    with pytest.raises(DataError, match="did you mean 'Blaming'"):
        task.index("Blamin")


def test_labels_may_be_nodes_of_any_level_in_any_spelling():
    task = define_task(
        name="patterns", taxonomy=PSYFIRE, labels=["争辩", "Denying", "Avoidance", "ignoring"]
    )
    assert task.labels == ("Arguing", "Denying", "Avoiding", "Ignoring")
    assert task.gold(labeled("Minimum Talk")) == "Avoiding"
    assert not task.select(labeled("Collaboration"))


def test_within_limits_the_leaves_to_one_branch():
    task = define_task(name="denial", taxonomy=PSYFIRE, within="Denying")
    assert task.labels[0] == "Blaming"
    assert len(task.labels) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["Arguing", "Challenging"]}, "must not overlap"),
        ({"labels": ["Blaming", "Blaming"]}, "must not overlap"),
        ({"labels": ["Blamin"]}, "did you mean 'Blaming'"),
        ({"labels": []}, "no labels"),
        ({"within": "Denyin"}, "did you mean 'Denying'"),
        ({"within": "Denying", "labels": ["Challenging"]}, "not below 'Denying'"),
        ({"within": "Blaming"}, "no labels"),
        ({"style": "breif"}, "did you mean 'brief'"),
        ({"language": "fr"}, "choose one of en, zh"),
        ({"history": "all"}, "none, intervention, full"),
        ({"layout": "last"}, "format_last"),
        ({"label_form": "long"}, "qualified, bare"),
        ({"prompt_text": "Label {labels}."}, "{dialogue}"),
        ({"role": {"de": "Du"}}, "'role'"),
    ],
)
def test_what_cannot_be_a_task_is_refused_with_the_mend(options, message):
    with pytest.raises(ConfigError, match=message):
        define_task(name="t", taxonomy=PSYFIRE, **options)


def test_a_label_above_all_labels_does_not_hide_the_one_between():
    taxonomy = taxonomy_from_dict(
        {
            "name": "deep",
            "categories": [
                {"name": "top", "qualifies": False},
                {"name": "middle", "parent": "top"},
                {"name": "low", "parent": "middle"},
                {"name": "side", "parent": "top"},
            ],
        }
    )
    task = define_task(name="t", taxonomy=taxonomy, labels=["middle", "side"])
    assert task.gold(labeled("low")) == "middle"
    assert task.parse("Behavior: low").label == "middle"
    assert task.parse("Behavior: top").label is None


def test_a_task_is_the_same_in_another_language_and_after_pickling():
    task = builtin_task("fine_grained")
    chinese = dataclasses.replace(task, language="zh")
    assert chinese == builtin_task("fine_grained", language="zh")
    assert pickle.loads(pickle.dumps(chinese)) == chinese  # noqa: S301 - our own bytes
    assert chinese.written("Blaming") == "否认-责怪"


def test_a_text_without_languages_serves_both():
    task = define_task(
        name="t", taxonomy=PSYFIRE, role="R!", instruction={"zh": "任务"}, language="zh"
    )
    assert (task.role_text, task.instruction_text) == ("R!", "任务")
    english = dataclasses.replace(task, language="en")
    assert english.role_text == "R!"
    assert english.instruction_text.startswith("You get part")
