"""What looks wrong in a corpus: contradictions, repeats, near-duplicates, personal details."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from recap.corpus.validate import (
    DETAIL_KINDS,
    KINDS,
    MENDS,
    ConsistencyChecker,
    ConsistencyFlag,
    count_details,
    count_flags,
)
from recap.data.leakage import find_near_duplicates
from recap.records import Example, Turn
from recap.tasks.library import builtin_task


def example(number: int, text: str, label: str | None = None, **rest: object) -> Example:
    return Example(**{"id": f"e{number}", "history": (), "response": text, "label": label, **rest})


def hints_of(
    examples: list[Example], task: str = "flat", **options: object
) -> tuple[ConsistencyFlag, ...]:
    checker = ConsistencyChecker(task=builtin_task(task), **options)
    for line, one in enumerate(examples, start=1):
        checker.add(one, line)
    return checker.hints()


def test_every_kind_says_what_to_do() -> None:
    assert KINDS.keys() == MENDS.keys()
    assert {f"{kind}_like" for kind in DETAIL_KINDS} < KINDS.keys()


def test_one_context_and_response_under_two_labels_is_a_conflict() -> None:
    before = (Turn(speaker="counselor", text="Why?"),)
    found = hints_of(
        [
            example(1, "No.", "Blaming"),
            example(2, "No.", "Excusing"),
            example(3, " No. ", "Blaming"),
            example(4, "No.", "Excusing", history=before),
            example(5, "No."),
        ]
    )
    assert [(hint.kind, hint.line, hint.id) for hint in found] == [
        ("label_conflict", 2, "e2"),
        ("duplicate", 3, "e3"),
        ("duplicate", 5, "e5"),
    ]
    assert "line 1" in found[0].reason
    assert "No" not in found[0].reason


def test_texts_of_several_labels_are_counted_whatever_their_context() -> None:
    checker = ConsistencyChecker(task=None)
    turns = [(Turn(speaker="counselor", text=str(i)),) for i in range(3)]
    for line, (text, label) in enumerate([("Yes", "a"), ("yes ", "b"), ("ok", "a")]):
        checker.add(example(line, text, label, history=turns[line]), line)
    assert checker.texts_of_several_labels == 1
    assert checker.hints() == ()


def test_labels_that_the_task_does_not_tell_apart_are_named() -> None:
    found = hints_of(
        [example(1, "a", "Collaboration"), example(2, "b", "Denying"), example(3, "c", "Blaming")],
        task="fine_grained",
    )
    assert [(hint.kind, hint.id) for hint in found] == [
        ("unsupported_label", "e1"),
        ("unsupported_label", "e2"),
    ]
    assert "(Denying)" in found[1].reason


@pytest.mark.parametrize(
    ("rationale", "other"),
    [
        ("The client shifts the fault, which is Blaming.", False),
        ("The client finds a way out, which is Excusing.", True),
        ("This is Excusing rather than Blaming.", False),
        ("The client says that others are at fault.", False),
        ("来访者在找借口。", True),
    ],
)
def test_a_rationale_that_names_only_another_label_is_a_hint(rationale: str, other: bool) -> None:
    found = hints_of([example(1, "It was them.", "Blaming", rationale=rationale)])
    assert [hint.kind for hint in found] == ["rationale_names_other"] * other
    if other:
        assert "(Excusing, labelled Blaming)" in found[0].reason


def test_near_duplicates_are_named_with_the_text_they_resemble() -> None:
    text = "I have told you before that this way of talking never works for us"
    found = hints_of(
        [
            example(1, text, "Blaming", session="a"),
            example(2, "Something else altogether happened on the way", session="a"),
            example(3, text + " two", "Blaming", session="b"),
            example(4, "I don't know"),
            example(5, "I don't know!"),
        ],
        shortest=14,
    )
    assert [(hint.kind, hint.line) for hint in found] == [("near_duplicate", 3)]
    assert "id e1, line 1" in found[0].reason
    assert hints_of([example(1, text), example(2, text + " two")], near_duplicates=None) == ()


def jaccard(left: str, right: str) -> float:
    a, b = ({text[i : i + 3] for i in range(len(text) - 2)} for text in (left, right))
    return len(a & b) / len(a | b)


def test_near_duplicates_are_those_of_all_pairs_compared() -> None:
    random = np.random.default_rng(0)
    alphabet = list("abcdefghij我你他不是")
    texts = ["".join(random.choice(alphabet, 40)) for _ in range(150)]
    for number in range(150):
        letters = list(texts[number])
        for place in random.integers(0, 40, int(random.integers(1, 5))):
            letters[place] = "z"
        texts.append("".join(letters))
    texts = list(dict.fromkeys(texts))
    found = {(pair.second): pair for pair in find_near_duplicates(texts, threshold=0.7)}
    expected = {}
    for second in range(len(texts)):
        best = max(((jaccard(texts[i], texts[second]), -i) for i in range(second)), default=(0, 0))
        if best[0] >= 0.7:
            expected[second] = best[0]
    assert len(expected) > 60
    assert found.keys() == expected.keys()
    for second, similarity in expected.items():
        assert found[second].similarity == pytest.approx(similarity, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to anna.b@mail.example.org please", "email"),
        ("我的身份证是11010519491231002X", "id_number"),
        ("my number is 078-05-1120", "id_number"),
        ("加我微信 abc_12345", "wechat"),
        ("微信号：zhangsan88", "wechat"),
        ("my WeChat id is anna_98765", "wechat"),
        ("我的QQ是123456789", "qq"),
        ("扣扣 87654321", "qq"),
        ("打我电话13812345678", "phone"),
        ("打我电话１３８１２３４５６７８", "phone"),
        ("+86 138-1234-5678", "phone"),
        ("座机 010-12345678", "phone"),
        ("call (212) 555-0187 tonight", "phone"),
        ("+44 20 7946 0958", "phone"),
        ("我住在中山路12号", "address"),
        ("幸福小区3栋", "address"),
        ("3号楼201", "address"),
        ("we live at 12 Long Acre Road", "address"),
    ],
)
def test_personal_details_are_found_once_by_their_kind(text: str, kind: str) -> None:
    assert count_details(text) == Counter({kind: 1})


@pytest.mark.parametrize(
    "text",
    [
        "I slept 8 hours in 2 weeks",
        "I was born in 1990 and left in 2010",
        "we used WeChat yesterday and wechat conversation was long",
        "我在微信上跟她说了",
        "他发了QQ消息",
        "我今年25岁，工作了3年",
        "一路走来十分辛苦",
        "it happened at 10:30 on 2024-05-17",
        "I took 2 buses down the road",
        "",
    ],
)
def test_ordinary_talk_holds_no_details(text: str) -> None:
    assert not count_details(text)


def test_hints_on_details_never_repeat_them() -> None:
    found = hints_of(
        [
            example(1, "13812345678 or 13987654321", rationale="a@b.org"),
            example(2, "fine", history=(Turn(speaker="counselor", text="QQ 1234567"),)),
        ]
    )
    assert count_flags(found)["phone_like"] == 1
    assert "2 times" in next(hint.reason for hint in found if hint.kind == "phone_like")
    assert count_flags(found)["email_like"] == 1
    assert not [hint for hint in found if any(c in hint.reason for c in ("138", "@b"))]


def test_a_history_that_many_examples_share_is_looked_at_once() -> None:
    shared = (Turn(speaker="counselor", text="QQ 1234567"),)
    checker = ConsistencyChecker(task=None)
    for line in range(3):
        checker.add_history(example(line, "fine", history=shared), line)
    assert count_flags(checker.hints())["qq_like"] == 1


def test_ids_that_may_be_texts_are_not_shown() -> None:
    [hint] = hints_of([example(1, "a@b.org", id="I told her so")])
    assert hint.id == "of 13 characters"
