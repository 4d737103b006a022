from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

from recap.insight_actions.options import Action
from recap.insights import ACTIONS, load, main, with_usual_choices


def test_every_action_of_the_options_has_a_function() -> None:
    assert set(ACTIONS) == set(get_args(Action))
    for target in ACTIONS.values():
        module, _, function = target.partition(":")
        assert callable(getattr(import_module(module), function))


def test_outcomes_may_be_a_list_and_have_a_path_in_any_order() -> None:
    for order in (1, -1):
        words = ["outcomes.path=B.csv", "outcomes=[goal,task]"][::order]
        config = load(["action=alliance", *words])
        assert (config.outcomes.path, config.outcomes.columns) == ("B.csv", ("goal", "task"))


def test_a_single_name_is_a_list_of_one() -> None:
    config = load(["on=id", "predictors=x", "outcomes=goal", "resistance=Denying"])
    assert (config.on, config.predictors) == (("id",), ("x",))
    assert (config.outcomes.columns, config.resistance) == (("goal",), ("Denying",))
    assert load(["resistance=null"]).resistance is None


@pytest.mark.parametrize(
    ("file", "reader"),
    [("a.csv", "table"), ("a.jsonl", "dialogues"), ("a.txt", "transcript"), ("a.xlsx", "table")],
)
def test_the_reader_follows_the_ending_unless_it_is_said(file: str, reader: str) -> None:
    assert with_usual_choices([f"data.path={file}"])[-1] == f"data={reader}"
    assert with_usual_choices([f"data.path={file}", "data=annomi"])[-1] == "data=annomi"


def test_a_data_choice_that_sets_options_of_a_run_can_be_taken() -> None:
    config = load(["data=annomi", "data.path=x.csv", "task=annomi_talk"])
    assert config.data.reader == "annomi"


def test_an_unknown_action_and_an_unknown_option_end_with_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["action=session"]) == 2
    assert "sessions" in capsys.readouterr().err
    assert main(["sessions.bin=3"]) == 2
    assert "sessions.bins" in capsys.readouterr().err


def test_files_go_to_out(tmp_path: Path) -> None:
    assert main([f"out={tmp_path}"]) == 0
    assert {"sessions.json", "sessions.md", "sessions.tex", "sessions.csv"} <= {
        path.name for path in tmp_path.iterdir()
    }


def test_ids_may_look_like_numbers() -> None:
    config = load(["card.id=12", "supervision.session=121", "sessions.timeline=7"])
    assert (config.card.id, config.supervision.session, config.sessions.timeline) == (
        "12",
        "121",
        "7",
    )
    assert load(["card.id=121:14"]).card.id == "121:14"
