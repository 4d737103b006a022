"""Answers by the thousand: fuzzed, altered, naming two labels, and a megabyte long."""

from __future__ import annotations

import random
import time

import pytest

from recap.tasks.library import builtin_task

TASKS = [
    builtin_task(name, language=language, label_form=form)
    for name in ("binary", "fine_grained", "flat", "annomi_talk")
    for language in ("en", "zh")
    for form in ("qualified", "bare")
]
FINE = builtin_task("fine_grained")


def test_5000_fuzzed_strings_raise_nothing():
    _fuzz(5_000)


@pytest.mark.slow
def test_100000_fuzzed_strings_raise_nothing():
    _fuzz(100_000)


def test_1000_altered_answers_parse_to_their_own_label():
    assert _share_of_altered_answers_read(1_000) >= 0.999


@pytest.mark.slow
def test_10000_altered_answers_parse_to_their_own_label():
    assert _share_of_altered_answers_read(10_000) >= 0.999


def test_1000_answers_that_name_two_labels_parse_to_none():
    rng = random.Random(3)
    for _ in range(1_000):
        task = rng.choice(TASKS)
        first, second = rng.sample(task.labels, 2)
        a, b = _spelling(rng, task, first), _spelling(rng, task, second)
        text = rng.choice(
            [
                f"Behavior: {a} or {b}\nReason: both fit",
                f"Behavior: {a}, {b}",
                f"行为：{a}、{b}\n理由：都有",
                f"Behavior: {a} / {b}\nReason: r",
                f"{a} and {b}",
                f"Behavior: {a}\nBehavior: {b}",
                f"Behavior: {a}\nReason: r\n\nBehavior: {b}\nReason: s",
                f"It could be {a}, but also {b}.",
                f"可能是{a}，也可能是{b}。",
                f"{a}\n{b}",
                f"Behavior: {a}\n{b}\nReason: r",
                f"Behavior: {a} ({b})",
                f"- {a}\n- {b}",
            ]
        )
        assert task.parse(text).label is None, (task.name, text)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "Behavior: " * 100_000,
        "Behavior " * 100_000,
        "minimum" + " " * 1_000_000,
        "minimum " * 100_000,
        " \t" * 500_000,
        "`" * 1_000_000,
        "*" * 1_000_000 + ":",
        "e\u0301\u0327" * 300_000,
        " - " * 300_000,
        "Reason:\n" * 100_000,
        "Behavior: Blaming\n" * 50_000,
        "Behavior: Blaming\nReason: " + "Behavior: x\n" * 80_000,
        "不" * 1_000_000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_a_megabyte_costs_time_in_proportion(text):
    # Four times the text: four times the time when linear, sixteen times when quadratic.
    quarter, whole = _seconds(text[: len(text) // 4]), _seconds(text)
    assert whole < max(0.5, 12 * quarter)


def _seconds(text):
    best = float("inf")
    for _ in range(2):
        start = time.perf_counter()
        FINE.parse(text)
        best = min(best, time.perf_counter() - start)
    return best


def _fuzz(n):
    rng = random.Random(7)
    chosen = TASKS
    pieces = [
        *FINE.taxonomy.spellings(),
        *(
            "Behavior:",
            "Reason:",
            "行为：",
            "理由：",
            "label",
            "：",
            ":",
            "\n",
            "\r\n",
            " ",
            "**",
            "```",
            "```json\n",
        ),
        *(
            "not ",
            "no ",
            "n't",
            "不",
            "or",
            "或",
            "{",
            "}",
            "%s",
            "\\",
            "\x00",
            "\ud800",
            "\u202e",
            "İ",
            "ß",
            "🙂",
        ),
        *("<|im_end|>", "-", " - ", "–", "/", '"', "’", "(", "?", "\u3000", "ﷺ", "e\u0301"),
    ]
    for _ in range(n):
        if rng.random() < 0.5:
            text = "".join(rng.choice(pieces) for _ in range(rng.randrange(25)))
        else:
            text = "".join(chr(rng.randrange(0x110000)) for _ in range(rng.randrange(60)))
        task = rng.choice(chosen)
        assert task.parse(text).label in (None, *task.labels)


def _share_of_altered_answers_read(n):
    rng = random.Random(11)
    right = 0
    for _ in range(n):
        task = rng.choice(TASKS)
        label = rng.choice(task.labels)
        right += task.parse(_altered(rng, task, label)).label == label
    return right / n


def _altered(rng, task, label):
    """A valid answer as models write it: other spelling, keys, decoration, or words around it."""
    written = _spelling(rng, task, label)
    written = rng.choice([str, str, str.upper, str.lower])(written)
    quote = rng.choice(
        ["{}", "{}", '"{}"', "'{}'", "“{}”", "「{}」", "**{}**", "`{}`", "{}.", "{}。", " {} "]
    )
    written = quote.format(written)
    colon = rng.choice([": ", ":", "：", " : ", "： "])
    behavior, reason = rng.choice(
        [("Behavior", "Reason"), ("BEHAVIOR", "REASON"), ("behaviour", "reason"), ("行为", "理由")]
    )
    if rng.random() < 0.2:
        behavior, reason = f"**{behavior}**", f"**{reason}**"
    other = task.written(rng.choice(task.labels))
    rationale = rng.choice(
        ["the client turns away", f"not {other}", "来访者没有接话", f"{other}\nis not it"]
    )
    sentence = rng.choice(
        [
            "{}",
            "{}",
            "The label is {}",
            "I would say {}.",
            "The client's response shows {}, I think.",
            "最合适的是{}。",
        ]
    ).format(written)
    lines = rng.choice(
        [
            f"{behavior}{colon}{sentence}\n{reason}{colon}{rationale}",
            f"{behavior}{colon}{sentence}\n\n{reason}{colon}{rationale}",
            f"{behavior}{colon}{sentence}",
            f"{sentence}\n{reason}{colon}{rationale}",
            sentence,
        ]
    )
    around = rng.choice(
        [
            "{}",
            "{}",
            "```\n{}\n```",
            "\n\n{}\n",
            "Sure! Here it is.\n\n{}",
            "好的，判断如下。\n{}",
            "> {}",
        ]
    )
    return around.replace("{}", lines)


def _spelling(rng, task, label):
    """Any spelling of a label that the taxonomy knows, qualified or not."""
    category = task.taxonomy[label]
    own = [label, *category.names.values(), *category.aliases]
    forms = [
        *own,
        *(
            task.taxonomy.written(label, language=language, qualified=qualified)
            for language in ("en", "zh")
            for qualified in (True, False)
        ),
    ]
    return rng.choice(forms)
