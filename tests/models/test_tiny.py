"""The backbone that needs no download: its tokenizer, its template, its weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM, Qwen2Tokenizer

from recap.data.demo import demo_texts
from recap.models.backbone import VOCABULARY, build_tiny_tokenizer, load_tiny, tiny_tokenizer
from recap.records import Answer, Example
from recap.tasks.library import builtin_task

ODD_TEXTS = [
    "Ünïcode e\u0301 你好 🙂 1234 don't  \n\n x",
    "\t tabs,\r\nlines and   runs of spaces   ",
    "<|im_end|> typed by somebody <|im_start|>",
    "混合 mixed，全角。。。",
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    model, tokenizer = load_tiny(seed=0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_saved_folder_gives_the_same_ids_through_auto_tokenizer(saved: Path) -> None:
    own, auto = tiny_tokenizer(), AutoTokenizer.from_pretrained(saved)
    assert isinstance(auto, Qwen2Tokenizer)
    for text in [*demo_texts(size=40), *ODD_TEXTS]:
        assert auto(text)["input_ids"] == own(text)["input_ids"]
    talk = [{"role": "system", "content": "A"}, {"role": "user", "content": "你好"}]
    assert auto.apply_chat_template(talk)["input_ids"] == own.apply_chat_template(talk)["input_ids"]


def test_a_saved_folder_gives_the_same_weights_through_auto_model(saved: Path) -> None:
    model, tokenizer = load_tiny(seed=0)
    loaded = AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32)
    assert isinstance(loaded, Qwen2ForCausalLM)
    weights = loaded.state_dict()
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], weight) for name, weight in model.state_dict().items())
    ids = torch.tensor([tokenizer("How have things been?")["input_ids"]])
    with torch.no_grad():
        # Loaded weights lie otherwise in memory, where some kernels add up in another order.
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-5)


def test_every_text_comes_back_from_its_ids_in_nfc() -> None:
    tokenizer = tiny_tokenizer()
    for text in ["Ünïcode é 你好 🙂", "a\r\n b\t c", "“中文引号”——……"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_template_is_chatml() -> None:
    messages = [{"role": "system", "content": "Judge."}, {"role": "user", "content": "Hello."}]
    text = tiny_tokenizer().apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>system\nJudge.<|im_end|>\n<|im_start|>user\nHello.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_padding_is_no_end_of_turn_and_both_are_control_tokens() -> None:
    tokenizer = tiny_tokenizer()
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>"):
        assert len(tokenizer(token)["input_ids"]) == 1
        assert tokenizer.added_tokens_decoder[tokenizer.convert_tokens_to_ids(token)].special


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", ["binary", "fine_grained", "flat", "annomi_talk"])
def test_the_brief_prompt_takes_at_most_60_tokens(name: str, language: str) -> None:
    task = builtin_task(name, language=language, style="brief")
    messages = task.messages(Example(id="x", history=(), response=""))
    tokenizer = tiny_tokenizer()
    assert sum(len(tokenizer(message.text)["input_ids"]) for message in messages) <= 60


@pytest.mark.parametrize("language", ["en", "zh"])
def test_an_answer_takes_at_most_35_tokens(language: str) -> None:
    from recap.data.demo import generate_dialogues

    task, tokenizer = builtin_task("flat", language=language), tiny_tokenizer()
    for dialogue in generate_dialogues(size=200, seed=5, language=language):
        for turn in dialogue.turns:
            if turn.rationale:
                text = task.render(Answer(label=turn.label, rationale=turn.rationale))
                assert len(tokenizer(text)["input_ids"]) <= 35


def test_no_token_of_the_vocabulary_joins_chinese_words_of_the_demo_corpus() -> None:
    tokenizer = tiny_tokenizer()
    known = {tokenizer.decode([index]) for index in range(len(tokenizer))}
    assert "来访者" in known  # a name that every prompt carries
    assert "我老板" not in known
    assert "洗衣机" not in known


def test_the_model_is_about_a_million_weights_of_qwen2() -> None:
    model, tokenizer = load_tiny(seed=0)
    assert model.config.model_type == "qwen2"
    assert 0.5e6 < sum(weight.numel() for weight in model.parameters()) < 2e6
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    assert len(tokenizer) <= VOCABULARY + 3


def test_weights_follow_the_seed_and_leave_the_global_random_state_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, again, other = (load_tiny(seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)
    )
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_the_vocabulary_is_the_same_in_another_process() -> None:
    program = (
        "import sys; from recap.models.backbone import tiny_tokenizer;"
        "sys.stdout.buffer.write(tiny_tokenizer().backend_tokenizer.to_str().encode())"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": "1", "PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        check=True,
    )
    assert elsewhere.stdout.decode() == tiny_tokenizer().backend_tokenizer.to_str()


def test_a_tokenizer_knows_only_the_texts_that_it_was_given() -> None:
    tokenizer = build_tiny_tokenizer(["hullabaloo"] * 3, vocabulary=400)
    assert len(tokenizer("hullabaloo")["input_ids"]) == 1
    assert len(tokenizer("zymurgy")["input_ids"]) == len("zymurgy")
