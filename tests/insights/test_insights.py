from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

from recap.cli.compose import load_verb
from recap.insights.__main__ import main
from recap.insights.options import ACTIONS, Action
from recap.metrics.category_scores import scores_from_confusion
from recap.metrics.files import scores_to_dict


def test_every_action_of_the_options_has_a_function() -> None:
    assert set(ACTIONS) == set(get_args(Action))
    for target in ACTIONS.values():
        module, _, function = target.partition(":")
        assert callable(getattr(import_module(module), function))


def test_outcomes_may_be_a_list_and_have_a_path_in_any_order() -> None:
    for order in (1, -1):
        words = ["outcomes.path=B.csv", "outcomes=[goal,task]"][::order]
        config = load_verb("insights", ["action=alliance", *words])
        assert (config.outcomes.path, config.outcomes.columns) == ("B.csv", ("goal", "task"))


def test_a_single_name_is_a_list_of_one() -> None:
    config = load_verb("insights", ["on=id", "predictors=x", "outcomes=goal", "resistance=Denying"])
    assert (config.on, config.predictors) == (("id",), ("x",))
    assert (config.outcomes.columns, config.resistance) == (("goal",), ("Denying",))
    assert load_verb("insights", ["resistance=null"]).resistance is None


@pytest.mark.parametrize(
    ("file", "reader"),
    [("a.csv", "table"), ("a.jsonl", "dialogues"), ("a.txt", "transcript"), ("a.xlsx", "table")],
)
def test_the_reader_follows_the_ending_unless_it_is_said(file: str, reader: str) -> None:
    assert load_verb("insights", [f"data.path={file}"]).data.reader == reader
    assert load_verb("insights", [f"data.path={file}", "data=annomi"]).data.reader == "annomi"


def test_a_data_choice_that_sets_options_of_a_run_can_be_taken() -> None:
    config = load_verb("insights", ["data=annomi", "data.path=x.csv"])
    assert (config.data.reader, config.task.name) == ("annomi", "annomi_talk")


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


SCORES = "participant,group,phase,score\n" + "".join(
    f"P{i},{'AB'[i % 2]},{phase},{(i * i + 3 * later) % 7}\n"
    for i in range(8)
    for later, phase in enumerate(("pre", "post"))
)
PAIRS = "session,x,y\n1,1,2\n2,2,1\n3,4,3\n4,3,5\n"
TABLE = "session,speaker,text,label\nA,client,x,Blaming\nA,client,y,Collaboration\n"
PREDICTED = "id,session,turn,label,parsed,response\nS:0,S,0,Blaming,true,x\n"


@pytest.mark.parametrize(
    ("action", "option", "text", "more"),
    [
        ("study", "data.path", SCORES, ()),
        ("sessions", "data.path", TABLE, ()),
        ("alliance", "data.path", PAIRS, ("predictors=[x]", "outcomes=[y]")),
        ("alliance", "outcomes.path", PAIRS, ("predictors=[x]", "outcomes=[y]")),
        ("card", "data.path", PREDICTED, ()),
    ],
)
def test_no_input_is_written_over(
    action: str,
    option: str,
    text: str,
    more: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / f"{action}.csv"
    file.write_text(text, encoding="utf-8")
    command = [f"action={action}", f"{option}={file}", "resamples=0", *more]
    assert main([*command, f"out={tmp_path}"]) == 2
    assert f"would write over {option}" in capsys.readouterr().err
    assert file.read_text("utf-8") == text
    assert list(tmp_path.iterdir()) == [file]
    assert main([*command, f"out={tmp_path / 'out'}"]) == 0


def test_predictions_and_a_confusion_are_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = {
        "session": "S",
        "turns": [{"speaker": "client", "text": "x"}, {"speaker": "client", "text": "y"}],
    }
    (tmp_path / "talks.jsonl").write_text(json.dumps(talk), encoding="utf-8")
    answers = tmp_path / "sessions.csv"
    answers.write_text(PREDICTED, encoding="utf-8")
    confusion = tmp_path / "sessions.json"
    scores = scores_from_confusion(
        task="binary",
        labels=["Resistance", "Collaboration"],
        confusion=[[8, 2, 0], [1, 9, 0]],
        loss=None,
    )
    confusion.write_text(json.dumps(scores_to_dict(scores)), encoding="utf-8")
    command = [f"data.path={tmp_path}/talks.jsonl", "resamples=0", f"out={tmp_path}"]
    assert main([*command, f"predictions={answers}"]) == 2
    assert "would write over predictions" in capsys.readouterr().err
    assert answers.read_text("utf-8") == PREDICTED
    other = answers.rename(tmp_path / "answers.csv")
    assert main([*command, f"predictions={other}", f"sessions.confusion={confusion}"]) == 2
    assert "would write over sessions.confusion" in capsys.readouterr().err


def test_ids_may_look_like_numbers() -> None:
    config = load_verb("insights", ["card.id=12", "supervision.session=121", "sessions.timeline=7"])
    assert (config.card.id, config.supervision.session, config.sessions.timeline) == (
        "12",
        "121",
        "7",
    )
    assert load_verb("insights", ["card.id=121:14"]).card.id == "121:14"
