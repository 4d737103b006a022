"""Answers: labels and tokens of plain decoding, and the probabilities of whole forward passes."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import shrunk
import torch
from same_answers import assert_same_answer

from recap.data.batches import MicroBatch, collate
from recap.data.encode import ChatEncoder, encode_examples
from recap.data.layout import WORTH_SHARING
from recap.errors import ConfigError, RecapError
from recap.models.engine import label_scoring
from recap.models.engine.generate import generate, grow_tree, label_tree
from recap.models.engine.label_scoring import LabelScorer
from recap.models.engine.loss import answer_loss
from recap.models.finetune import apply_finetune
from recap.records import Example, Turn
from recap.tasks.library import get_task
from recap.tasks.task import Task

FAMILIES = ("qwen2", "qwen3", "llama")
SAID = (
    "I don't know.",
    "You keep asking me that, and nothing changes anyway. What was it like?",
    "Nothing changes",
    "It sounds as if that week has been hard. You doubt what the counselor said, I answer openly.",
    "我不知道，你总是这样问我。",
    "That week has been very hard for you, and what was it like? I don't know.",
    "Fine.",
)


def examples(task: Task) -> list[Example]:
    """Return labeled examples with histories of none to five turns."""
    made = []
    for i, response in enumerate(SAID):
        history = tuple(
            Turn(speaker=("counselor", "client")[(i + j) % 2], text=SAID[(i + j) % len(SAID)])
            for j in range(i % 6)
        )
        made.append(
            Example(
                id=f"e{i}",
                history=history,
                response=response,
                label=task.labels[i * 5 % len(task.labels)],
                rationale=f"The client answers {i} times." if task.rationale else None,
            )
        )
    return made


@lru_cache
def tokenizer(family: str) -> ChatEncoder:
    return ChatEncoder(shrunk.tokenizer_of("llama" if family == "llama" else "qwen2"))


def random_model(family: str, dtype: torch.dtype = torch.float32) -> Any:
    return shrunk.model_of(family, len(tokenizer(family).tokenizer), seed=3).to(dtype)


@lru_cache
def trained(family: str, rationale: bool) -> tuple[Any, Task, list[tuple[int, ...]]]:
    """Return a model that answers in the format more often than not, and its prompts."""
    task = get_task("fine_grained", rationale=rationale, style="brief")
    encoder = tokenizer(family)
    encoded = encode_examples(examples(task), task, encoder).examples
    model = shrunk.model_of(family, len(encoder.tokenizer), seed=3)
    plan = MicroBatch(indices=tuple(range(5)), step_tokens=1, number=0, ends_step=True)
    batch = collate(encoded, plan, encoder.pad_id)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(80 if family == "llama" else 40):
        optimizer.zero_grad()
        answer_loss(model, batch).backward()
        optimizer.step()
    return model.eval(), task, [example.prompt for example in encoded]


def sequence_of(task: Task, encoder: ChatEncoder, label: str) -> tuple[int, ...]:
    """Return the tokens that spell a label, from a whole answer's text and its tokens alone."""
    line = f"Behavior: {task.written(label)}"
    if not task.rationale:
        return encoder.answer_ids(line)
    ids = encoder.answer_ids(f"{line}\nReason: it")
    return next(ids[:end] for end in range(len(ids)) if encoder.text(ids[:end]) == f"{line}\n")


def log_probability(model: Any, prompt: tuple[int, ...], sequence: tuple[int, ...]) -> float:
    """Return the log-probability of a continuation by one whole forward pass."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *sequence]])).logits[0]
    chances = torch.log_softmax(logits.double(), dim=1)
    start = len(prompt) - 1
    return float(sum(chances[start + i, token] for i, token in enumerate(sequence)))


@pytest.mark.parametrize("rationale", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_are_those_of_plain_forward_passes(family: str, rationale: bool) -> None:
    model, task, prompts = trained(family, rationale)
    encoder = tokenizer(family)
    answers = LabelScorer(model, task, encoder, decoding="scored", batch_size=3).answer(prompts)
    spread = []
    for prompt, answer in zip(prompts, answers, strict=True):
        expected = {
            label: log_probability(model, prompt, sequence_of(task, encoder, label))
            for label in task.labels
        }
        assert answer.log_probabilities == pytest.approx(expected, abs=1e-4, rel=1e-5)
        total = math.fsum(map(math.exp, expected.values()))
        chances = {label: math.exp(value) / total for label, value in expected.items()}
        assert answer.probabilities == pytest.approx(chances, abs=1e-5)
        assert answer.label == max(expected, key=expected.__getitem__)
        spread.append(max(chances.values()) - min(chances.values()))
    assert max(spread) > 0.5, "labels that are all equally likely would prove little"
    judged = LabelScorer(model, task, encoder, batch_size=2).label_probabilities(prompts)
    for row, answer in zip(judged, answers, strict=True):
        assert row == pytest.approx(answer.probabilities, abs=1e-5)
        assert list(row) == list(task.labels)


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_are_exact_in_float64(family: str) -> None:
    model = random_model(family, torch.float64)
    task = get_task("flat", style="brief")
    encoder = tokenizer(family)
    prompts = [e.prompt for e in encode_examples(examples(task), task, encoder).examples]
    for prompt, answer in zip(
        prompts, LabelScorer(model, task, encoder, max_new_tokens=1).answer(prompts), strict=True
    ):
        for label in task.labels:
            expected = log_probability(model, prompt, sequence_of(task, encoder, label))
            assert answer.log_probabilities[label] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rationale", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_free_tokens_are_those_of_generate(family: str, rationale: bool) -> None:
    model, task, prompts = trained(family, rationale)
    encoder = tokenizer(family)
    for n in (1, 3, 30):
        options = {"end_of_turn_id": encoder.end_of_turn_id, "pad_id": encoder.pad_id}
        expected = generate(model, prompts, max_new_tokens=n, **options)
        for batch_size in (1, 3, 32):
            found = LabelScorer(model, task, encoder, max_new_tokens=n, batch_size=batch_size)
            answers = found.answer(prompts)
            if batch_size == 1:
                alone = answers
            for answer, by_itself in zip(answers, alone, strict=True):
                assert_same_answer(answer, by_itself)
            assert [list(answer.tokens) for answer in answers] == expected
            assert [a.label for a in answers] == [
                task.parse(encoder.text(t)).label for t in expected
            ]
    labels = {answer.label for answer in answers}
    assert len(labels) > 2, "a model that says one thing would prove nothing"


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_of_a_model_that_follows_no_format_are_those_of_generate(family: str) -> None:
    model, encoder = random_model(family), tokenizer(family)
    task = get_task("fine_grained", style="brief")
    found = [e.prompt for e in encode_examples(examples(task), task, encoder).examples]
    constant = _common(min(found), max(found))
    own = [[3 + (i * 31 + j * 17) % 290 for j in range(2 + i * 5 % 13)] for i in range(11)]
    prompts = [(*constant, *rest) for rest in own]
    expected = generate(
        model, prompts, max_new_tokens=70, end_of_turn_id=encoder.end_of_turn_id,
        pad_id=encoder.pad_id,
    )  # fmt: skip
    assert len({tuple(answer) for answer in expected}) > 5
    found = LabelScorer(model, task, encoder, max_new_tokens=70, batch_size=4).answer(prompts)
    assert [list(answer.tokens) for answer in found] == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_after_a_label_that_was_decided_for_goes_what_generate_says(family: str) -> None:
    model, task, prompts = trained(family, True)
    encoder = tokenizer(family)
    answers = LabelScorer(model, task, encoder, decoding="scored", max_new_tokens=30).answer(
        prompts
    )
    for prompt, answer in zip(prompts, answers, strict=True):
        sequence = sequence_of(task, encoder, answer.label or "")
        (followed,) = generate(
            model,
            [(*prompt, *sequence)],
            max_new_tokens=30 - len(sequence),
            end_of_turn_id=encoder.end_of_turn_id,
            pad_id=encoder.pad_id,
        )
        assert list(answer.tokens) == [*sequence, *followed]
        assert answer.rationale == task.parse(answer.text).rationale


@pytest.mark.parametrize("family", FAMILIES)
def test_constrained_answers_are_greedy_among_the_tokens_of_labels(family: str) -> None:
    model, encoder = random_model(family), tokenizer(family)
    task = get_task("fine_grained", style="brief", rationale=False)
    prompts = [e.prompt for e in encode_examples(examples(task), task, encoder).examples]
    answers = LabelScorer(model, task, encoder, decoding="constrained").answer(prompts)
    by_sequence = {sequence_of(task, encoder, label): label for label in task.labels}
    for prompt, answer in zip(prompts, answers, strict=True):
        said: tuple[int, ...] = ()
        while said not in by_sequence:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*prompt, *said]])).logits[0, -1]
            allowed = {s[len(said)] for s in by_sequence if s[: len(said)] == said}
            said = (*said, max(allowed, key=lambda token: float(logits[token])))
        assert answer.label == by_sequence[said]
        assert answer.text == f"Behavior: {task.written(answer.label)}"


def test_a_label_without_a_reason_costs_no_further_tokens() -> None:
    model, task, prompts = trained("qwen2", True)
    encoder = tokenizer("qwen2")
    whole = LabelScorer(model, task, encoder, decoding="scored").answer(prompts)
    for decoding in ("scored", "free"):
        short = LabelScorer(model, task, encoder, decoding=decoding, rationale=False).answer(
            prompts
        )
        for a, b in zip(short, whole, strict=True):
            assert a.probabilities == pytest.approx(b.probabilities, abs=1e-5)
            assert a.rationale is None
        if decoding == "scored":
            assert [a.label for a in short] == [b.label for b in whole]
            assert [a.text for a in short] == [b.text.split("\n")[0] for b in whole]


def test_a_threshold_decides_for_its_label_and_the_next_best_otherwise() -> None:
    model, encoder = random_model("qwen2"), tokenizer("qwen2")
    task = get_task("binary", style="brief", rationale=False)
    items = [replace(e, label="Resistance") for e in examples(task)]
    prompts = [e.prompt for e in encode_examples(items, task, encoder).examples]
    options: dict[str, Any] = {"decoding": "scored"}
    chances = [
        a.probabilities["Resistance"]
        for a in LabelScorer(model, task, encoder, **options).answer(prompts)
    ]
    least = sum(sorted(chances)[2:4]) / 2
    deciding = LabelScorer(model, task, encoder, **options, threshold=least)
    labels = [answer.label for answer in deciding.answer(prompts)]
    assert labels == ["Resistance" if p >= least else "Collaboration" for p in chances]
    assert set(labels) == {"Resistance", "Collaboration"}
    with pytest.raises(ConfigError, match="decoding=scored"):
        LabelScorer(model, task, encoder, decoding="free", threshold=0.5)
    with pytest.raises(ConfigError, match="two labels"):
        LabelScorer(model, get_task("flat"), encoder, decoding="scored", threshold=0.5)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_what_prompts_share_is_encoded_once_whatever_the_batches(batch_size: int) -> None:
    model, task, prompts = trained("qwen2", True)
    encoder = tokenizer("qwen2")
    calls = []
    hook = model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    scorer = LabelScorer(
        model, task, encoder, decoding="scored", rationale=False, batch_size=batch_size
    )
    scorer.answer(prompts)
    hook.remove()
    beginnings = {prompt[:n] for prompt in prompts for n in range(1, len(prompt) + 1)}
    own = sum(calls) - len(prompts) * label_tree(task, encoder).n_inner
    # A few tokens that two prompts share by chance are no trunk of their own.
    assert len(beginnings) <= own <= len(beginnings) + len(prompts) * WORTH_SHARING
    assert own < 0.5 * sum(map(len, prompts))


def test_prompts_that_begin_otherwise_are_answered_all_the_same() -> None:
    model, task, prompts = trained("llama", True)
    encoder = tokenizer("llama")
    other = [prompt[40:] for prompt in prompts[:3]]
    mixed = [*prompts, *other, prompts[0][:5]]
    options = {"end_of_turn_id": encoder.end_of_turn_id, "pad_id": encoder.pad_id}
    expected = generate(model, mixed, max_new_tokens=12, **options)
    found = LabelScorer(model, task, encoder, max_new_tokens=12).answer(mixed)
    assert [list(answer.tokens) for answer in found] == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_a_conversation_answers_as_a_batch_does_and_computes_only_what_is_new(family: str) -> None:
    model, task, _ = trained(family, True)
    encoder = tokenizer(family)
    turns = tuple(
        Turn(speaker=("counselor", "client")[i % 2], text=SAID[i % len(SAID)]) for i in range(12)
    )
    dialogue = [
        Example(id=str(i), history=turns[:i], response=turns[i].text) for i in range(1, 12, 2)
    ]
    prompts = [encoder.prompt_ids(task.messages(example)) for example in dialogue]
    scorer = LabelScorer(model, task, encoder, max_new_tokens=12)
    expected = scorer.answer(prompts)
    calls: list[int] = []
    hook = model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    conversation = LabelScorer(model, task, encoder, max_new_tokens=12).branch()
    for prompt, batch_answer in zip(prompts, expected, strict=True):
        calls.clear()
        answer = conversation.answer([prompt])[0]
        assert answer.tokens == batch_answer.tokens
        assert answer.log_probabilities == pytest.approx(
            batch_answer.log_probabilities, rel=1e-5, abs=1e-4
        )
    hook.remove()
    new = len(prompts[-1]) - len(_common(prompts[-2], prompts[-1]))
    assert new < 0.5 * len(prompts[-1])
    assert calls[0] == new + label_tree(task, encoder).n_inner


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return a[: next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))]


def test_batches_are_halved_when_memory_runs_out_and_answers_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, task, prompts = trained("qwen2", True)
    encoder = tokenizer("qwen2")
    expected = LabelScorer(model, task, encoder, max_new_tokens=9).answer(prompts)
    scorer = LabelScorer(model, task, encoder, max_new_tokens=9, batch_size=7)
    opened = scorer._engine.prefill
    sizes = []

    def limited(batch: Any, *known: Any) -> Any:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return opened(batch, *known)

    monkeypatch.setattr(scorer._engine, "prefill", limited)
    found = scorer.answer(prompts)
    for part, among in zip(found, expected, strict=True):
        assert_same_answer(part, among)
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]

    def never(batch: Any, *known: Any) -> Any:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes")

    monkeypatch.setattr(scorer._engine, "prefill", never)
    with pytest.raises(ConfigError, match=r"prompt\.max_tokens"):
        scorer.answer(prompts)


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model, task, prompts = trained("qwen2", True)
    scorer = LabelScorer(model, task, tokenizer("qwen2"))

    def broken(batch: Any, *known: Any) -> Any:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(scorer._engine, "prefill", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        scorer.answer(prompts)


def test_adapters_share_a_base_and_answer_as_alone() -> None:
    encoder = tokenizer("qwen2")
    task = get_task("fine_grained", style="brief")
    prompts = [e.prompt for e in encode_examples(examples(task), task, encoder).examples]
    alone = []
    for seed in (1, 2):
        model = apply_finetune(random_model("qwen2"), method="lora", rank=4, seed=seed)
        _shake(model, seed)
        alone.append(LabelScorer(model, task, encoder, max_new_tokens=8).answer(prompts))
    shared = apply_finetune(random_model("qwen2"), method="lora", rank=4, seed=1)
    shared.add_adapter("second", shared.peft_config["default"])
    _shake(shared, 1, "default")
    _shake(shared, 2, "second")
    both = [
        LabelScorer(shared, task, encoder, max_new_tokens=8, adapter=name)
        for name in ("default", "second")
    ]
    for _ in range(2):
        for scorer, expected in zip(both, alone, strict=True):
            found = scorer.answer(prompts)
            for a, b in zip(found, expected, strict=True):
                assert_same_answer(a, b)
    assert [a.tokens for a in alone[0]] != [a.tokens for a in alone[1]]


def _shake(model: Any, seed: int, adapter: str = "default") -> None:
    """Give an adapter weights that matter, drawn from ``seed``, in the order of its names."""
    generator = torch.Generator().manual_seed(seed)
    named = sorted(
        (name, weight) for name, weight in model.named_parameters() if f".{adapter}." in name
    )
    for _, weight in named:
        weight.data = torch.randn(weight.shape, generator=generator) * 0.3


def test_an_architecture_that_is_not_served_answers_the_slow_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, task, prompts = trained("qwen2", True)
    encoder = tokenizer("qwen2")
    for decoding in ("free", "constrained", "scored"):
        options: dict[str, Any] = {"decoding": decoding, "max_new_tokens": 20, "batch_size": 3}
        expected = LabelScorer(model, task, encoder, **options).answer(prompts)
        with monkeypatch.context() as patch:
            patch.setattr(label_scoring, "why_unsupported", lambda causal: "another family")
            plain = LabelScorer(model, task, encoder, **options)
        assert type(plain._engine).__name__ == "PlainEngine"
        found = plain.answer(prompts)
        for a, b in zip(found, expected, strict=True):
            assert_same_answer(a, b)
        for judged, answer in zip(plain.label_probabilities(prompts), found, strict=True):
            assert judged == pytest.approx(answer.probabilities, abs=1e-5)


def test_a_model_comes_back_in_the_mode_it_was_in() -> None:
    model, task, prompts = trained("qwen2", True)
    model.train()
    LabelScorer(model, task, tokenizer("qwen2"), max_new_tokens=2).answer(prompts[:1])
    assert model.training
    model.eval()


def test_no_prompts_give_no_answers() -> None:
    model, task, _ = trained("qwen2", True)
    assert LabelScorer(model, task, tokenizer("qwen2")).answer([]) == []


def test_a_tree_holds_common_beginnings_once() -> None:
    tree = grow_tree([(5, 6, 7), (5, 6, 8), (5, 9)])
    assert tree.tokens == (5, 6, 7, 8, 9)
    assert tree.parents == (-1, 0, 1, 1, 0)
    assert tree.paths == ((0, 1, 2), (0, 1, 3), (0, 4))
    assert tree.n_inner == 2
    assert tree.children == ((0,), (1, 4), (2, 3))
    assert tree.depths == (0, 1, 2, 2, 1)
    assert tree.ancestors == ((0,), (0, 1), (0, 1, 2), (0, 1, 3), (0, 4))


@pytest.mark.parametrize("sequences", [[(1, 2), (1,)], [(1, 2), (1, 2)], [()]])
def test_a_label_that_begins_another_is_refused(sequences: list[tuple[int, ...]]) -> None:
    with pytest.raises(RecapError, match="beginning of another"):
        grow_tree(sequences)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_label_sequences_begin_what_the_model_is_trained_to_answer(
    family: str, language: str
) -> None:
    encoder = tokenizer(family)
    for rationale in (True, False):
        task = get_task("flat", rationale=rationale, language=language)
        tree = label_tree(task, encoder)
        for example in examples(task):
            (encoded,) = encode_examples([example], task, encoder).examples
            path = tree.paths[task.index(example.label or "")]
            assert encoded.answer[: len(path)] == tuple(tree.path_tokens(path))
            if not rationale:
                assert encoded.answer == tuple(tree.path_tokens(path))
