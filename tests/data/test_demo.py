"""The built-in synthetic corpus: its proportions, its puzzles, and what it says about itself."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass

import pytest
from demo_rationales import rationale_checks

from recap.data.demo import DEFAULT_SIZE, demo_texts, generate_dialogues
from recap.data.readers.registry import get_reader
from recap.errors import ConfigError
from recap.records import Dialogue, Turn

TABLE_3 = {
    "Challenging": 682,
    "Discounting": 1094,
    "Blaming": 422,
    "Disagreeing": 1698,
    "Excusing": 336,
    "Minimizing": 368,
    "Pessimism": 856,
    "Reluctance": 586,
    "Unwillingness": 384,
    "Minimum Talk": 1018,
    "Limit Setting": 850,
    "Inattention": 1040,
    "Sidetracking": 1064,
    "Collaboration": 13532,
}


@dataclass
class Labeled:
    """A labeled client turn with what came before it and how it was made."""

    dialogue: Dialogue
    index: int

    @property
    def turn(self) -> Turn:
        return self.dialogue.turns[self.index]

    @property
    def counselor(self) -> Turn:
        return self.dialogue.turns[self.index - 1]

    @property
    def made(self) -> dict[str, object]:
        return self.dialogue.meta["composition"][self.turn.id]


def labeled(language: str = "en", size: int = DEFAULT_SIZE, seed: int = 0) -> list[Labeled]:
    return [
        Labeled(dialogue, index)
        for dialogue in generate_dialogues(size=size, seed=seed, language=language)
        for index, turn in enumerate(dialogue.turns)
        if turn.speaker == "client" and turn.label is not None
    ]


@pytest.fixture(scope="module", params=["en", "zh"])
def rows(request: pytest.FixtureRequest) -> list[Labeled]:
    return labeled(request.param)


@pytest.mark.parametrize("language", ["en", "zh", "both"])
@pytest.mark.parametrize("size", [1, 2, 13, 500])
def test_there_are_as_many_labeled_turns_as_asked_for(size: int, language: str) -> None:
    assert len(labeled(language, size)) == size


def test_the_whole_of_table_3_comes_back_at_its_own_size() -> None:
    counts = Counter(row.turn.label for row in labeled(size=sum(TABLE_3.values())))
    assert counts == TABLE_3


def test_a_smaller_corpus_keeps_the_proportions_to_within_one_example(rows: list[Labeled]) -> None:
    counts = Counter(row.turn.label for row in rows)
    for label, count in TABLE_3.items():
        assert abs(counts[label] - len(rows) * count / 23930) < 1


def test_the_fine_grained_task_sees_at_most_1300_examples_by_default(rows: list[Labeled]) -> None:
    assert sum(row.turn.label != "Collaboration" for row in rows) <= 1300


def test_the_same_arguments_give_the_same_corpus_in_another_process() -> None:
    program = (
        "import hashlib; from recap.data.demo import generate_dialogues as g;"
        "text = repr(list(g(size=60, seed=3, language='both')));"
        "print(hashlib.sha256(text.encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_another_seed_gives_another_corpus() -> None:
    first, second = (list(demo_texts(language="en", size=50, seed=seed)) for seed in (0, 1))
    assert first != second


def test_at_least_98_percent_of_contexts_with_responses_are_distinct(rows: list[Labeled]) -> None:
    seen = {(tuple(t.text for t in row.dialogue.turns[: row.index]), row.turn.text) for row in rows}
    assert len(seen) >= 0.98 * len(rows)


def test_about_half_of_the_responses_fit_two_or_three_labels(rows: list[Labeled]) -> None:
    fitting = [len(row.made["fits"]) for row in rows]  # type: ignore[arg-type]
    assert max(fitting) == 3
    assert 0.45 <= sum(n > 1 for n in fitting) / len(rows) <= 0.6
    resistant = [row for row in rows if row.turn.label != "Collaboration"]
    shared = [len(set(row.made["fits"]) - {"Collaboration"}) > 1 for row in resistant]  # type: ignore[call-overload]
    assert 0.45 <= sum(shared) / len(resistant) <= 0.65


def test_the_counselors_act_decides_which_of_the_fitting_labels_it_is(rows: list[Labeled]) -> None:
    decided = defaultdict(set)
    for row in rows:
        if len(row.made["fits"]) > 1 and not row.made["noisy"]:  # type: ignore[arg-type]
            decided[tuple(row.made["fits"]), row.counselor.label].add(row.turn.label)  # type: ignore[arg-type]
    assert decided
    assert all(len(labels) == 1 for labels in decided.values())


def test_about_4_percent_of_the_labels_cannot_be_learned(rows: list[Labeled]) -> None:
    assert 0.03 <= sum(bool(row.made["noisy"]) for row in rows) / len(rows) <= 0.055


def test_the_label_alone_predicts_the_act_in_at_most_half(rows: list[Labeled]) -> None:
    acts: dict[str | None, Counter[str | None]] = defaultdict(Counter)
    for row in rows:
        acts[row.turn.label][row.counselor.label] += 1
    assert sum(max(counts.values()) for counts in acts.values()) <= len(rows) / 2


def test_templates_of_a_fold_are_mostly_new_but_their_parts_are_not(rows: list[Labeled]) -> None:
    resistant = [row for row in rows if row.turn.label != "Collaboration"]
    for fold in range(5):
        held_out = {str(row.made["template"]) for row in resistant[fold::5]}
        rest = [str(r.made["template"]) for i, r in enumerate(resistant) if i % 5 != fold]
        assert len(held_out - set(rest)) >= len(held_out) / 2
        sentences = {part for text in rest for part in parts(text)}
        seen = [set(parts(text)) <= sentences for text in held_out]
        assert sum(seen) >= 0.95 * len(seen)


def parts(template: str) -> list[str]:
    """Return a template's sentences."""
    for mark in "。！？.!?":
        template = template.replace(mark, mark + "\n")
    return [part.strip() for part in template.splitlines() if part.strip()]


def test_every_rationale_names_the_behavior_and_the_act_before_it(rows: list[Labeled]) -> None:
    for row in rows:
        assert row.turn.rationale is not None
        assert row.turn.label is not None
        assert row.counselor.label is not None
        language = row.dialogue.meta["language"]
        check = rationale_checks(
            row.turn.rationale, label=row.turn.label, act=row.counselor.label, language=language
        )
        assert check.behavior
        assert check.act


def test_a_rationale_that_names_something_else_is_found_out() -> None:
    said = "The client blames other people after the counselor made a suggestion."
    wrong = rationale_checks(said, label="Excusing", act="exercise", language="en")
    assert (wrong.behavior, wrong.act) == (False, False)
    right = rationale_checks(said, label="Blaming", act="suggestion", language="en")
    assert (right.behavior, right.act) == (True, True)


def test_a_rationale_that_names_two_acts_names_none() -> None:
    said = (
        "The client blames other people after the suggestion: made a suggestion, gave information."
    )
    assert not rationale_checks(said, label="Blaming", act="suggestion", language="en").act


def test_sessions_hold_several_labeled_turns_and_clients_several_sessions() -> None:
    dialogues = list(generate_dialogues(size=400, seed=0, language="en"))
    turns = [sum(t.speaker == "client" and t.label is not None for t in d.turns) for d in dialogues]
    assert max(turns) > 1
    assert max(Counter(d.client for d in dialogues).values()) > 1
    assert len({d.session for d in dialogues}) == len(dialogues)


def test_a_counselor_turn_stands_before_every_labeled_turn_and_names_its_act(
    rows: list[Labeled],
) -> None:
    for row in rows:
        assert row.counselor.speaker == "counselor"
        assert row.counselor.label == row.made["act"]


def test_every_dialogue_says_that_it_is_synthetic() -> None:
    for dialogue in generate_dialogues(size=20, seed=0, language="both"):
        assert dialogue.meta["synthetic"] is True
        assert dialogue.session.startswith("demo-")
        assert all(turn.id is not None and turn.id.startswith("demo-") for turn in dialogue.turns)


def test_no_slot_is_left_open_and_each_language_keeps_to_its_script(rows: list[Labeled]) -> None:
    chinese = rows[0].dialogue.meta["language"] == "zh"
    for dialogue in {row.dialogue.session: row.dialogue for row in rows}.values():
        for turn in dialogue.turns:
            text = turn.text + (turn.rationale or "")
            assert not set("{}") & set(text)
            assert any("\u4e00" <= character <= "\u9fff" for character in text) == chinese
            assert any(character.isascii() and character.isalpha() for character in text) != chinese


def test_the_two_languages_are_made_of_the_same_parts() -> None:
    from recap.data.demo import _parts

    def shape(node: object) -> object:
        return (
            {key: shape(value) for key, value in node.items()} if isinstance(node, dict) else None
        )

    assert shape(dict(_parts("en"))) == shape(dict(_parts("zh")))


def test_both_languages_are_half_each() -> None:
    languages = Counter(row.dialogue.meta["language"] for row in labeled("both", 101))
    assert languages == {"en": 51, "zh": 50}


@pytest.mark.parametrize(
    ("options", "named"),
    [({"size": 0}, "data.options.size"), ({"language": "fr"}, "data.language=en|zh|both")],
)
def test_options_that_cannot_be_used_are_refused_with_the_option_to_mend(
    options: dict[str, object], named: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        list(generate_dialogues(**options))  # type: ignore[arg-type]
    assert named in str(raised.value)


def test_the_corpus_is_a_data_reader() -> None:
    read = get_reader("demo")
    assert list(read(None, issues=None, size=9, seed=2, language="zh")) == list(
        generate_dialogues(size=9, seed=2, language="zh")
    )
