"""Log-odds with a Dirichlet prior, against the published formula computed term by term."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from recap.corpus.lexicon import LexiconCounter, Prior, log_odds
from recap.data.words import segmenter
from recap.errors import ConfigError

# A hand-made corpus: label and text.
CORPUS = (
    ("deny", "no it is fine"),
    ("deny", "no no it is not"),
    ("go", "yes it is"),
    ("go", "yes I see it now"),
)


def direct_z(
    term: str, inside: Counter[str], outside: Counter[str], prior: dict[str, float]
) -> tuple[float, float]:
    """Return delta and z of one term, as Monroe, Colaresi and Quinn (2008) write them."""
    y_i, y_j, a = inside[term], outside[term], prior[term]
    n_i, n_j, a_0 = sum(inside.values()), sum(outside.values()), sum(prior.values())
    delta = math.log((y_i + a) / (n_i + a_0 - y_i - a)) - math.log(
        (y_j + a) / (n_j + a_0 - y_j - a)
    )
    return delta, delta / math.sqrt(1 / (y_i + a) + 1 / (y_j + a))


def counted(corpus: tuple[tuple[str, str], ...]) -> LexiconCounter:
    counter = LexiconCounter(segmenter("words")[1])
    for label, text in corpus:
        counter.add(text, label)
    return counter


def by_hand(size: int) -> dict[str, Counter[str]]:
    """Return the counts of n-grams of one size, by label."""
    counts: dict[str, Counter[str]] = {"deny": Counter(), "go": Counter()}
    for label, text in CORPUS:
        words = text.lower().split()
        counts[label].update(" ".join(words[i : i + size]) for i in range(len(words) - size + 1))
    return counts


@pytest.mark.parametrize("kind", ["corpus", "uniform"])
@pytest.mark.parametrize("size", [None, 3.5])
def test_terms_have_the_z_of_the_published_formula(kind: str, size: float | None) -> None:
    found = counted(CORPUS).result(
        ["deny", "go"],
        prior=Prior(kind=kind, size=size),
        minimum_count=1,
        top_k=100,
        shared_only=False,
    )
    assert [category.name for category in found] == ["deny", "go"]
    listed = 0
    for category in found:
        other = "go" if category.name == "deny" else "deny"
        for term in category.terms:
            counts = by_hand(1 if term.order == "unigram" else 2)
            whole = counts["deny"] + counts["go"]
            prior = {w: float(n) if kind == "corpus" else 0.01 for w, n in whole.items()}
            if size is not None:
                total = sum(prior.values())
                prior = {word: size * a / total for word, a in prior.items()}
            delta, z = direct_z(term.term, counts[category.name], counts[other], prior)
            assert term.delta == pytest.approx(delta, abs=1e-12)
            assert term.z == pytest.approx(z, abs=1e-12)
            assert (term.n, term.n_contrast) == (
                counts[category.name][term.term],
                counts[other][term.term],
            )
            listed += 1
    assert listed > 8


def test_signs_follow_who_says_a_word_more() -> None:
    counter = counted(CORPUS)
    deny, go = counter.result(
        ["deny", "go"], prior=Prior(), minimum_count=1, top_k=100, shared_only=False
    )
    assert "no" in {term.term for term in deny.terms}
    assert "yes" in {term.term for term in go.terms}
    assert "no" not in {term.term for term in go.terms}
    assert deny.terms[0].term == "no"
    assert (deny.utterances, deny.tokens, deny.contrast_tokens) == (2, 9, 8)
    assert [term.z for term in deny.terms] == sorted((t.z for t in deny.terms), reverse=True)


def test_z_agrees_with_the_formula_on_random_counts() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        n = int(random.integers(2, 40))
        inside, outside = random.integers(0, 200, (2, n)).astype(float)
        prior = random.uniform(0.001, 50, n)
        found = log_odds(inside, outside, prior)
        names = [str(i) for i in range(n)]
        counts = [Counter(dict(zip(names, map(int, y), strict=True))) for y in (inside, outside)]
        named = dict(zip(names, prior, strict=True))
        expected = [direct_z(name, counts[0], counts[1], named) for name in names]
        np.testing.assert_allclose(found.delta, [d for d, _ in expected], rtol=0, atol=1e-8)
        np.testing.assert_allclose(found.z, [z for _, z in expected], rtol=0, atol=1e-8)
        swapped = log_odds(outside, inside, prior)
        np.testing.assert_allclose(swapped.z, -found.z, rtol=0, atol=1e-12)


def test_a_heavier_prior_draws_z_towards_zero() -> None:
    inside, outside = np.array([30.0, 5.0, 65.0]), np.array([10.0, 25.0, 65.0])
    shape = inside + outside
    light, heavy = (log_odds(inside, outside, shape * scale) for scale in (0.01, 100))
    assert (np.abs(heavy.z) < np.abs(light.z))[:2].all()


def test_limits_decide_only_what_is_listed() -> None:
    counter = counted(CORPUS)
    every = {
        term.term: term.z
        for term in counter.result(
            ["deny"], prior=Prior(), minimum_count=1, top_k=99, shared_only=False
        )[0].terms
    }
    some = counter.result(["deny"], prior=Prior(), minimum_count=3, top_k=1, shared_only=False)
    assert [(t.term, t.z) for t in some[0].terms] == [("no", every["no"])]


def test_terms_of_a_single_session_are_left_out() -> None:
    counter = LexiconCounter(segmenter("words")[1])
    for session, text in (("1", "Anna Anna no"), ("1", "Anna no"), ("2", "no")):
        counter.add(text, "deny", session)
    counter.add("yes", "go", "3")
    shared, every = (
        {
            term.term
            for term in counter.result(
                ["deny"], prior=Prior(), minimum_count=1, top_k=9, shared_only=only
            )[0].terms
        }
        for only in (True, False)
    )
    assert shared == {"no"}
    assert every == {"anna", "no"}


def test_the_contrast_may_be_one_category() -> None:
    counter = counted((*CORPUS, ("wait", "maybe yes"), ("wait", "maybe no")))
    found = counter.result(
        ["deny", "go", "wait"],
        prior=Prior(),
        contrast="go",
        minimum_count=1,
        top_k=99,
        shared_only=False,
    )
    assert [category.name for category in found] == ["deny", "wait"]
    assert {category.contrast_tokens for category in found} == {8}
    with pytest.raises(ConfigError, match="did you mean 'go'"):
        counter.result(["deny", "go"], prior=Prior(), contrast="goo")


def test_bigrams_do_not_reach_across_punctuation() -> None:
    _, words = segmenter("words")
    assert [part for part in words("I don’t know, it's 5 o'clock.\nBye") if part] == [
        ["i", "don't", "know"],
        ["it's", "5", "o'clock"],
        ["bye"],
    ]


def test_chinese_is_cut_into_words_or_characters() -> None:
    _, characters = segmenter("characters")
    assert [part for part in characters("我不知道。OK吗") if part] == [
        ["我", "不", "知", "道"],
        ["ok", "吗"],
    ]
    pytest.importorskip("jieba")
    name, automatic = segmenter("auto")
    assert "jieba" in name
    assert [part for part in automatic("我不知道，谢谢你。") if part] == [
        ["我", "不", "知道"],
        ["谢谢", "你"],
    ]
    assert [part for part in automatic("I see.") if part] == [["i", "see"]]


def test_chinese_log_odds_find_the_words_of_a_category() -> None:
    pytest.importorskip("jieba")
    counter = LexiconCounter(segmenter("jieba")[1])
    for text in ("我觉得没有用", "没有用，真的", "根本没有用啊"):
        counter.add(text, "Discounting")
    for text in ("好的，我试试", "我愿意试试", "好的，谢谢"):
        counter.add(text, "Collaboration")
    discounting, collaboration = counter.result(
        ["Discounting", "Collaboration"], prior=Prior(), minimum_count=2
    )
    assert "没有" in discounting.terms[0].term
    assert {"好", "好的", "试试"} & {term.term for term in collaboration.terms}


def test_without_jieba_chinese_is_cut_into_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    name, automatic = segmenter("auto")
    assert name == "words; characters where a text is Chinese"
    assert automatic("不知道") == [["不", "知", "道"]]
    with pytest.raises(ConfigError, match=r"recap-counseling\[zh\]"):
        segmenter("jieba")
