"""What is promised of an answer whose prompt stood among others, or in another kind of batch."""

from __future__ import annotations

import pytest

from recap.models.engine.label_scoring import ModelAnswer

RELATIVE = 1e-5
"""Of a log-probability: 84 units in the last place of float32, for sums over a width, over layers
and over a label's tokens. At most 1e-8 was seen of shrunk models, 5e-6 of one with 30 layers."""

ABSOLUTE = 1e-4
"""Of a log-probability near zero, which is a difference of logits of 10 and more, and of a
probability, which moves by at most half of what two log-probabilities move by."""


def assert_same_answer(found: ModelAnswer, expected: ModelAnswer) -> None:
    """Compare two answers of a model in float32 to one prompt.

    Tokens, label and reason have to be equal; numbers as nearly as sums in another order are.
    """
    assert found.tokens == expected.tokens
    assert found.text == expected.text
    assert (found.label, found.rationale) == (expected.label, expected.rationale)
    log_probabilities = pytest.approx(expected.log_probabilities, rel=RELATIVE, abs=ABSOLUTE)
    assert found.log_probabilities == log_probabilities
    assert found.probabilities == pytest.approx(expected.probabilities, abs=ABSOLUTE)
