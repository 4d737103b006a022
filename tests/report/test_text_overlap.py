"""chrF and character BLEU: equal to torchmetrics' and sacrebleu's."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torchmetrics.functional.text import bleu_score, chrf_score

from recap.report.rationale_content import text_overlap

TEXTS = [
    "The client blames other people after the counselor asked a question.",
    "来访者否认建议，认为无用。",
    "No answer.",
]
REFERENCES = [
    "The client blames his mother when the counselor asks.",
    "来访者不认同咨询师的建议。",
    "The client gives a minimal answer.",
]


def spaced(text):
    return " ".join("".join(text.split()))


def test_equals_sacrebleu() -> None:
    # sacrebleu 2.6.0: CHRF(word_order=0, eps_smoothing=True); BLEU(tokenize="none",
    # smooth_method="none") over characters with spaces between them.
    found = text_overlap(TEXTS, REFERENCES)
    assert found.chrf == pytest.approx(0.4372380269596918, abs=1e-12)
    assert found.bleu == pytest.approx(0.4743219978375811, abs=1e-12)
    of_pair = (0.62382707846916325, 0.14656177156177163, 0.1953444381705251)
    assert found.chrf_of_pair == pytest.approx(of_pair, abs=1e-9)


_TEXT = st.text(alphabet="ab c否认", min_size=1, max_size=14).filter(lambda text: text.strip())


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(_TEXT, _TEXT), min_size=1, max_size=3))
def test_equals_torchmetrics_where_pairs_overlap(pairs) -> None:
    assume(all(set("".join(a.split())) & set("".join(b.split())) for a, b in pairs))
    texts, references = ([pair[i] for pair in pairs] for i in (0, 1))
    found = text_overlap(texts, references)
    chrf, of_pair = chrf_score(
        texts, [[r] for r in references], n_word_order=0, return_sentence_level_score=True
    )
    bleu = bleu_score([spaced(t) for t in texts], [[spaced(r)] for r in references])
    assert found.chrf == pytest.approx(chrf.item(), abs=1e-5)
    assert found.chrf_of_pair == pytest.approx(of_pair.tolist(), abs=1e-5)
    assert found.bleu == pytest.approx(bleu.item(), abs=1e-5)


def test_a_pair_without_a_common_character_keeps_its_reference() -> None:
    # sacrebleu 2.6.0 gives 8.33 and 31.57; torchmetrics 1.9 gives 13.89 for the first.
    assert text_overlap(["a", "a"], ["a", "b"]).chrf == pytest.approx(0.0833333333, abs=1e-9)
    found = text_overlap(["the client refuses", "来访者"], ["the client agrees"] * 2)
    assert found.chrf == pytest.approx(0.3157250038570984, abs=1e-9)


def test_the_same_text_scores_one_and_a_strange_one_nothing() -> None:
    assert text_overlap(["a long answer"], ["a long answer"]).chrf == pytest.approx(1)
    assert text_overlap(["a long answer"], ["a long answer"]).bleu == pytest.approx(1)
    assert text_overlap(["xyz"], ["完全不同"]).chrf == 0


def test_every_text_needs_its_reference() -> None:
    with pytest.raises(ValueError, match="zip"):
        text_overlap(["a", "b"], ["a"])
