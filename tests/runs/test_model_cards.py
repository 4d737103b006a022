"""Every model's folder has a card that says what the model is, from the moment it is there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import read_json
from huggingface_hub import ModelCard
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import recap
from recap.config import RunConfig
from recap.evaluate import __main__ as evaluate
from recap.folds import fold
from recap.folds.run import build_corpus
from recap.metrics.scores import scores_from_confusion, summarize
from recap.records import LabelScores, Scores
from recap.runs.model_card import CardFacts, model_card
from recap.tasks.library import build_task
from recap.train import __main__ as train

SMALL = [
    *("task=binary", "cv.folds=2", "cv.max_examples=42", "trainer.max_epochs=1"),
    *("prompt.history=none", "decoding.max_new_tokens=4", "trainer=cpu", "logger=none"),
]


def card_in(folder: Path) -> str:
    return (folder / "model" / "README.md").read_text(encoding="utf-8")


def front_of(text: str) -> dict[str, Any]:
    _, front, _ = text.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(front)
    return found


def row(text: str, title: str) -> list[str]:
    """Return the cells of the first table row with this title."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {title} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapted run: fold 0, then all folds, then the final model, merged at last."""
    runs_dir = tmp_path_factory.mktemp("runs")
    base = [*SMALL, "finetune=lora", "run=it", f"runs_dir={runs_dir}"]
    assert train.main([*base, "cv.fold=0"]) == 0
    (runs_dir / "first.md").write_text(card_in(runs_dir / "it" / "fold0"), encoding="utf-8")
    assert train.main(base) == 0
    assert train.main([*base, "cv.fold=final", "merge=true"]) == 0
    return runs_dir / "it"


def test_every_model_has_a_card_that_the_hubs_own_library_reads(folder: Path) -> None:
    for name in ("fold0", "fold1", "final"):
        card = ModelCard(card_in(folder / name))
        assert card.data.tags is not None
        assert {"recap", "client-resistance", "binary", "lora"} <= set(card.data.tags)
        assert card.data.language == ["en"]
        assert (card.data.license, card.data.pipeline_tag) == ("other", "text-generation")
        scores = None if name == "final" else read_json(folder / name / "scores.json")
        results = {r.metric_type: r.metric_value for r in card.data.eval_results or []}
        metrics = scores and {
            "f1": scores["metrics"]["macro_f1"],
            "accuracy": scores["metrics"]["accuracy"],
        }
        assert results == (metrics or {})


def test_scores_of_the_fold_stand_beside_mean_and_deviation_of_all_finished_ones(
    folder: Path,
) -> None:
    first = (folder.parent / "first.md").read_text(encoding="utf-8")
    summary = read_json(folder / "summary.json")
    for title, name in (("Accuracy", "accuracy"), ("Unparsed answers", "invalid_rate")):
        figures = summary["metrics"][name]
        own = f"{100 * figures['values'][0]:.2f}"
        assert row(first, title) == [own, own]
        both = f"{100 * figures['mean']:.2f} ± {100 * figures['std']:.2f}"
        assert row(card_in(folder / "fold0"), title) == [own, both]
    assert "over the 1 of 2 folds" in first
    assert "over the 2 of 2 folds" in card_in(folder / "fold0")


def test_the_final_models_card_says_that_it_was_not_scored(folder: Path) -> None:
    text = card_in(folder / "final")
    assert "**This model itself was not scored**" in text
    figures = read_json(folder / "summary.json")["metrics"]["accuracy"]
    assert row(text, "Accuracy") == [f"{100 * figures['mean']:.2f} ± {100 * figures['std']:.2f}"]
    assert "for the mean selected epoch" in text


def test_a_merged_model_is_no_adapter_on_its_card(folder: Path) -> None:
    assert not (folder / "final" / "model" / "adapter_config.json").exists()
    final, adapter = card_in(folder / "final"), card_in(folder / "fold0")
    assert front_of(final)["library_name"] == "transformers"
    assert "merged into the base" in final
    assert front_of(adapter)["library_name"] == "peft"
    assert "AutoPeftModelForCausalLM" in adapter
    AutoModelForCausalLM.from_pretrained(folder / "final" / "model")
    AutoPeftModelForCausalLM.from_pretrained(folder / "fold0" / "model")


def test_counts_of_labels_are_those_of_the_predictions_and_of_the_rest(folder: Path) -> None:
    golds = [
        [json.loads(line)["gold"] for line in (folder / f"fold{k}/predictions.jsonl").open()]
        for k in (0, 1)
    ]
    text = card_in(folder / "fold0")
    for label in ("Resistance", "Collaboration"):
        assert row(text, label) == [str(golds[1].count(label)), str(golds[0].count(label))]
    assert row(card_in(folder / "final"), "all") == [str(len(golds[0]) + len(golds[1]))]


def test_no_text_no_session_and_no_path_stands_in_a_card(folder: Path) -> None:
    config = recap.load_config([*SMALL, "run=it"])
    examples = build_corpus(config, build_task(config)).examples
    for name in ("fold0", "final"):
        text = card_in(folder / name)
        said = {t.text for e in examples for t in e.history} | {e.response for e in examples}
        named = {e.id for e in examples} | {str(e.session) for e in examples}
        assert len(said | named) > 100
        assert [found for found in said | named if len(found) > 3 and found in text] == []
        assert str(folder.parent) not in text


def test_a_model_that_a_kill_left_without_scores_has_a_card_and_gets_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*args: object) -> None:
        raise KeyboardInterrupt

    base = [*SMALL, "run=it", f"runs_dir={tmp_path}", "cv.fold=0"]
    with monkeypatch.context() as patch:
        patch.setattr(fold, "write_predictions", die)
        with pytest.raises(KeyboardInterrupt):
            recap.cross_validate(recap.load_config(base))
    killed = card_in(tmp_path / "it" / "fold0")
    assert "**This model is not scored yet.**" in killed
    assert "model-index" not in front_of(killed)
    assert train.main(base) == 0
    whole = card_in(tmp_path / "it" / "fold0")
    assert "not scored yet" not in whole
    # A kill after scores.json and before the summary leaves the card of before.
    (tmp_path / "it" / "fold0" / "model" / "README.md").write_text(killed, encoding="utf-8")
    recap.fit_fold(recap.load_config(base), fold=0)
    assert card_in(tmp_path / "it" / "fold0") == whole


def test_models_that_were_not_kept_get_no_folder_of_a_card_alone(tmp_path: Path) -> None:
    base = [*SMALL, "run=it", f"runs_dir={tmp_path}", "keep_models=none"]
    assert train.main(base) == 0
    assert train.main(base) == 0
    assert [k for k in (0, 1) if (tmp_path / "it" / f"fold{k}" / "model").exists()] == []


def test_the_encoder_baseline_has_a_card_of_its_own_kind(tmp_path: Path) -> None:
    options = ["task=binary", "cv.folds=2", "cv.max_examples=42", "logger=none", "trainer=cpu"]
    options += ["method=encoder", "encoder.max_epochs=1", "run=it", f"runs_dir={tmp_path}"]
    assert evaluate.main(options) == 0
    text = card_in(tmp_path / "it" / "fold1")
    assert front_of(text)["pipeline_tag"] == "text-classification"
    assert "AutoModelForSequenceClassification" in text
    assert "recap.Detector" not in text
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "it" / "fold1" / "model")


LABELS = ("Resistance", "Collaboration")


def scores_of(f1: float) -> Scores:
    labelled = LabelScores(precision=f1, recall=f1, f1=f1, support=40)
    metrics = {"macro_f1": f1, "macro_precision": f1, "macro_recall": f1, "accuracy": f1}
    return Scores(
        task="binary",
        labels=LABELS,
        n=80,
        metrics={**metrics, "invalid_rate": 0.025, "loss": 1.0},
        per_label=dict.fromkeys(LABELS, labelled),
        confusion=((40, 0, 0), (0, 40, 0)),
    )


def facts(*overrides: str, **changes: Any) -> CardFacts:
    config: RunConfig = recap.load_config(["task=binary", "run=it", *overrides])
    values: dict[str, Any] = {
        "part": "fold0",
        "config": config,
        "task": build_task(config),
        "synthetic": False,
        "counts": {part: dict.fromkeys(LABELS, 40) for part in ("train", "select", "test")},
        "scores": scores_of(0.5),
        "summary": summarize({0: scores_of(0.5), 1: scores_of(0.75)}, protocol="nested"),
        "selected_epoch": 3,
    }
    return CardFacts(**{**values, **changes})


def test_a_base_model_is_named_by_its_hub_id_and_its_license_is_to_be_looked_up() -> None:
    text = model_card(facts("backbone=qwen7b", "finetune=lora", adapter=True))
    front = front_of(text)
    assert front["base_model"] == "Qwen/Qwen2.5-7B-Instruct"
    assert front["base_model_relation"] == "adapter"
    assert front["license_link"] == "https://huggingface.co/Qwen/Qwen2.5-7B-Instruct"
    assert "stand under its license: look it up" in text


def test_a_folder_of_weights_on_this_machine_is_not_named(tmp_path: Path) -> None:
    text = model_card(facts("backbone=qwen7b", f"backbone.path={tmp_path}"))
    assert str(tmp_path) not in text
    assert "base_model" not in front_of(text)
    assert "read from a local folder" in text


def test_mean_and_deviation_are_those_of_the_folds() -> None:
    # Of 50 and 75: mean 62.5, sample deviation 25 / sqrt(2) = 17.68.
    assert row(model_card(facts()), "Macro-F1") == ["50.00", "62.50 ± 17.68"]


def test_labels_that_folds_lack_are_named_with_the_pooled_macro_f1() -> None:
    # The second fold has two examples of one label: macro-F1 100 and 50, pooled 100.
    folds = ([[1, 0, 0], [0, 1, 0]], [[0, 0, 0], [0, 2, 0]])
    scores = [scores_from_confusion("binary", LABELS, fold) for fold in folds]
    summary = summarize(dict(enumerate(scores)), protocol="nested")
    text = model_card(facts(scores=scores[1], summary=summary))
    assert "- No tested example of Resistance (fold 1): recall and F1 are undefined there" in text
    assert "Pooled macro-F1, all folds' predictions together: 100.00." in text
    figures = [line for line in text.splitlines() if line.startswith("| Resistance |")][-1]
    assert figures == "| Resistance | – | – | – | 100.00 | 100.00 | 100.00 |"


def test_protocol_language_and_corpus_are_told_as_they_are() -> None:
    nested = model_card(facts("cv=nested", "cv.group=session", "data.language=zh"))
    assert "on a part of the training folds (`cv.protocol=nested`)" in nested
    assert "over whole sessions" in nested
    assert row(nested, "Resistance") == ["40", "40", "40"]
    assert front_of(nested)["language"] == ["zh"]
    assert "2.50 % of its answers on the test part could not be read." in nested
    assert "Fewer than" not in nested
    assert "synthetic corpus" not in nested
    assert "**The corpus is synthetic**" in model_card(facts(synthetic=True))
    assert "which flatters the scores" in model_card(facts())


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("near_duplicates", "7 test examples are nearly the same as a training example."),
        ("history_overlap", "7 test examples share an utterance with the history"),
        ("shared_sessions", "7 test examples lie in sessions that are trained on"),
    ],
)
def test_what_leaks_into_the_test_part_is_a_limit(kind: str, said: str) -> None:
    kinds = ("near_duplicates", "history_overlap", "shared_sessions")
    clean = {name: {"count": 0, "test_examples": 0} for name in kinds}
    leaking = {**clean, kind: {"count": 7, "test_examples": 7}}
    assert said not in model_card(facts(leakage=clean))
    assert said in model_card(replace(facts(), leakage=leaking))


def test_what_it_must_not_be_used_for_stands_in_every_card() -> None:
    for part in ("fold0", "final"):
        text = model_card(facts(part=part, scores=None, summary=None))
        for said in ("to diagnose", "decide anything about a client automatically", "consent"):
            assert said in text
        assert "word for word" in text
        assert "Apache License 2.0" in text
