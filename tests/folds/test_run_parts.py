from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import recap
from recap.errors import ConfigError
from recap.folds.run import build_corpus, draw_examples
from recap.folds.training import build_callbacks
from recap.records import Example
from recap.tasks.library import build_task, get_task


def examples(**counts: int) -> list[Example]:
    return [
        Example(id=f"{label}{i}", history=(), response=f"{label} {i}", label=label)
        for label, n in counts.items()
        for i in range(n)
    ]


def test_drawn_labels_keep_their_shares() -> None:
    # Of 103, 20 drawn: 9.7, 9.7 and 0.6.
    drawn = draw_examples(examples(a=50, b=50, c=3), 20)
    counts = Counter(e.label for e in drawn)
    assert counts["c"] == 1
    assert {counts["a"], counts["b"]} == {9, 10}


def test_examples_drawn_evenly_are_even_over_the_tasks_labels_as_far_as_the_data_go() -> None:
    task = get_task("fine_grained")
    rows = examples(Collaboration=50, Blaming=50, Excusing=50, Sidetracking=3)
    drawn = draw_examples(rows, 13, task)
    counts = Counter(e.label for e in drawn)
    assert counts == {"Blaming": 5, "Excusing": 5, "Sidetracking": 3}
    assert len(draw_examples(rows, 140, task)) == 103


@pytest.mark.parametrize("even", [True, False])
def test_the_same_examples_are_drawn_from_any_order_of_rows(even: bool) -> None:
    rows, task = examples(Blaming=20, Excusing=20), get_task("flat") if even else None
    once, again = draw_examples(rows, 7, task), draw_examples(rows[::-1], 7, task)
    assert {e.id for e in once} == {e.id for e in again}


def test_the_prompt_follows_the_language_of_the_data() -> None:
    assert build_task(recap.load_config(["data.language=zh"])).language == "zh"
    assert build_task(recap.load_config(["data.language=both"])).language == "en"
    assert (
        build_task(recap.load_config(["data.language=zh", "prompt.language=en"])).language == "en"
    )


def test_a_task_that_a_package_registers_needs_its_name_alone() -> None:
    from recap.tasks.library import builtin_task

    recap.register_task("half_past")(builtin_task("binary"))
    config = recap.load_config(["task=binary"])
    named = replace(
        config, task=replace(config.task, name="half_past", taxonomy=None), rationale=False
    )
    assert build_task(named).labels == ("Resistance", "Collaboration")
    assert not build_task(named).rationale


def test_a_prompt_file_of_ones_own_replaces_the_built_in_prompt(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("Pick one of {labels}.\n{format}\n{dialogue}\n", encoding="utf-8")
    config = recap.load_config(["task=binary", f"prompt.file={file}", "data.options.size=60"])
    task = build_task(config)
    example = build_corpus(config, task).examples[0]
    system, user = task.messages(example)
    assert system.text.startswith("Pick one of")
    assert example.response in user.text


def test_a_callback_of_ones_own_gets_its_arguments() -> None:
    entry = "{name: 'lightning.pytorch.callbacks:Timer', duration: '00:01:00:00'}"
    (built,) = build_callbacks(recap.load_config([f"+callbacks.timer={entry}"]).callbacks)
    assert type(built).__name__ == "Timer"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{duration: 1}", "callbacks.mine: needs a name"),
        ("{name: 'lightning.pytorch.callbacks:Tymer'}", "cannot be imported"),
        ("{name: 'lightning.pytorch.callbacks:Timer', colour: red}", "refuses its arguments"),
    ],
)
def test_a_callback_that_cannot_be_built_is_named(entry: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build_callbacks(recap.load_config([f"+callbacks.mine={entry}"]).callbacks)
