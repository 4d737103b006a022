"""Files of predictions, scores and summaries: what is written is read back, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recap.errors import DataError
from recap.metrics.files import (
    json_text,
    predictions_from_jsonl,
    predictions_to_jsonl,
    scores_from_dict,
    scores_to_dict,
    summary_from_dict,
    summary_to_dict,
)
from recap.metrics.scores import scores_from_confusion, summarize
from recap.records import Prediction

TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
PREDICTIONS = st.builds(
    Prediction,
    id=TEXT,
    session=st.none() | TEXT,
    fold=st.none() | st.integers(0, 9),
    task=TEXT,
    gold=TEXT,
    label=st.none() | TEXT,
    probabilities=st.none()
    | st.dictionaries(TEXT, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    rationale=st.none() | TEXT,
    text=TEXT,
    parsed=st.booleans(),
)
ONE = Prediction(
    id="s1:3",
    session="s1",
    fold=2,
    task="binary",
    gold="Resistance",
    label=None,
    probabilities={"Resistance": 0.25, "Collaboration": 0.75},
    rationale=None,
    text="说不清\u2028…",
    parsed=False,
)


@settings(max_examples=200, deadline=None)
@given(predictions=st.lists(PREDICTIONS, max_size=4))
def test_predictions_are_read_back_as_written_whatever_their_texts_hold(predictions):
    text = predictions_to_jsonl(predictions)
    assert text.count("\n") == len(predictions)
    assert list(predictions_from_jsonl(text.encode().decode())) == predictions


def test_a_line_has_the_fields_of_the_contract_in_order_and_readable_chinese():
    line = predictions_to_jsonl([ONE])
    assert list(json.loads(line)) == [
        "id",
        "session",
        "fold",
        "task",
        "gold",
        "label",
        "probabilities",
        "rationale",
        "text",
        "parsed",
    ]
    assert "说不清" in line


def test_every_faulty_line_is_listed_with_its_field_and_the_mend():
    good = predictions_to_jsonl([ONE])
    row = json.loads(good)
    without_gold = {key: value for key, value in row.items() if key != "gold"}
    lines = [
        good.strip(),
        "{",
        "[]",
        json.dumps(without_gold),
        json.dumps({**row, "fold": "two"}),
        json.dumps({**row, "probabilities": {"a": None}}),
        good.strip().replace("0.25", "NaN"),
        "",
    ]
    with pytest.raises(DataError) as refusal:
        predictions_from_jsonl("\n".join(lines), source="p.jsonl")
    message = str(refusal.value)
    assert [line.split(": ")[0:2] for line in message.splitlines()] == [
        ["p.jsonl:2", "line"],
        ["p.jsonl:3", "line"],
        ["p.jsonl:4", "gold"],
        ["p.jsonl:5", "fold"],
        ["p.jsonl:6", "probabilities"],
        ["p.jsonl:7", "line"],
    ]
    assert "说不清" not in message


def test_further_keys_and_other_line_ends_are_no_fault():
    row = {**json.loads(predictions_to_jsonl([ONE])), "note": "by hand"}
    assert predictions_from_jsonl(json.dumps(row) + "\r\n") == (ONE,)


def test_a_probability_that_is_not_finite_is_never_written():
    with pytest.raises(ValueError, match="JSON"):
        predictions_to_jsonl([replace(ONE, probabilities={"Resistance": float("nan")})])
    with pytest.raises(ValueError, match="JSON"):
        json_text({"loss": float("inf")})


def scores(loss=None):
    return scores_from_confusion(
        "binary", ("Resistance", "Collaboration"), [[3, 1, 1], [0, 5, 0]], loss
    )


def test_scores_have_the_keys_of_the_contract_and_are_read_back_as_written():
    data = json.loads(json_text(scores_to_dict(scores())))
    assert list(data) == ["task", "labels", "n", "metrics", "per_label", "confusion"]
    assert list(data["metrics"]) == [
        "macro_f1",
        "macro_precision",
        "macro_recall",
        "accuracy",
        "invalid_rate",
        "loss",
    ]
    assert data["metrics"]["loss"] is None
    assert list(data["per_label"]["Resistance"]) == ["precision", "recall", "f1", "support"]
    assert data["confusion"] == [[3, 1, 1], [0, 5, 0]]
    assert scores_from_dict(data) == scores()
    assert scores_to_dict(scores()) == data


@pytest.mark.parametrize("n_folds", [1, 3])
def test_a_summary_has_the_keys_of_the_contract_and_is_read_back_as_written(n_folds):
    summary = summarize({k: scores(loss=0.1 * k) for k in range(n_folds)}, protocol="paper")
    data = json.loads(json_text(summary_to_dict(summary)))
    keys = ["task", "labels", "folds", "protocol", "ddof", "metrics", "metrics_pooled", "per_label"]
    assert list(data) == keys
    assert list(data["metrics_pooled"]) == [name for name in data["metrics"] if name != "loss"]
    assert data["folds"] == list(range(n_folds))
    assert list(data["metrics"]["macro_f1"]) == ["mean", "std", "values"]
    assert set(data["per_label"]["Resistance"]) == {"precision", "recall", "f1", "support"}
    assert data["per_label"]["Resistance"]["support"] == 5 * n_folds
    assert (data["metrics"]["loss"]["std"] is None) == (n_folds == 1)
    assert summary_from_dict(data) == summary


def test_a_damaged_scores_or_summary_file_is_named_with_its_key():
    data = scores_to_dict(scores())
    with pytest.raises(DataError, match=r"fold0/scores\.json: the key 'confusion' is missing"):
        scores_from_dict(
            {key: value for key, value in data.items() if key != "confusion"},
            source="fold0/scores.json",
        )
    with pytest.raises(DataError, match=r"scores\.json: a value has another form"):
        scores_from_dict({**data, "metrics": []})
    with pytest.raises(DataError, match=r"summary\.json: the key 'folds' is missing"):
        summary_from_dict(data)
