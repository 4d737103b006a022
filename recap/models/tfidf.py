"""TF-IDF with logistic regression: what words alone give away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from recap.errors import ConfigError, DataError
from recap.records import Example

Analyzer = Literal["word", "char"]
Context = Literal["response", "intervention", "full"]

_NGRAMS: dict[Analyzer, tuple[int, int]] = {"word": (1, 2), "char": (1, 3)}
MAX_ITERATIONS = 1000


def example_text(example: Example, *, context: Context = "response") -> str:
    """Return the text of an example that a bag of words is made of, a line for each turn.

    ``context`` is the ``"response"`` alone, with the ``"intervention"`` (the counselor's last turn)
    before it, or with the ``"full"`` history before it; a ``ConfigError`` for another one.
    """
    if context == "response":
        before: list[str] = []
    elif context == "intervention":
        before = [turn.text for turn in example.history if turn.speaker == "counselor"][-1:]
    elif context == "full":
        before = [turn.text for turn in example.history]
    else:
        raise ConfigError(f"context {context!r} is none of response, intervention, full")
    return "\n".join([*before, example.response])


def tfidf_probabilities(
    train_texts: Sequence[str],
    train_labels: Sequence[str],
    test_texts: Sequence[str],
    *,
    analyzer: Analyzer = "word",
    class_weight: Literal["balanced"] | None = None,
    seed: int = 0,
) -> list[dict[str, float]]:
    """Return a probability for each training label and test text.

    From TF-IDF over the words of the training texts, and multinomial logistic regression
    (scikit-learn). The analyzer ``"word"`` takes words and pairs of words, one-letter words
    included; ``"char"`` one to three characters, for Chinese, which writes no spaces. The class
    weight ``"balanced"`` weighs classes inversely to their frequency; ``seed`` is the solver's.

    Raises:
        ConfigError: For another analyzer.
        DataError: When texts and labels differ in number, or no training text holds a word.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
    from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]

    if analyzer not in _NGRAMS:
        raise ConfigError(f"analyzer {analyzer!r} is neither 'word' nor 'char'")
    if len(train_texts) != len(train_labels) or not train_texts:
        raise DataError(
            f"{len(train_texts)} training texts and {len(train_labels)} labels: give one label for "
            "each text, and at least one of both"
        )
    if len(set(train_labels)) == 1:
        return [{train_labels[0]: 1.0} for _ in test_texts]
    if not test_texts:
        return []
    # scikit-learn's own pattern drops one-letter words, "I" among them.
    vectorizer = TfidfVectorizer(
        analyzer=analyzer,
        ngram_range=_NGRAMS[analyzer],
        sublinear_tf=True,
        token_pattern=r"(?u)\b\w+\b" if analyzer == "word" else None,
    )
    regression = LogisticRegression(
        max_iter=MAX_ITERATIONS, class_weight=class_weight, random_state=seed
    )
    model = make_pipeline(vectorizer, regression)
    try:
        model.fit(list(train_texts), list(train_labels))
    except ValueError as error:
        raise DataError(
            f"TF-IDF cannot be fitted to these {len(train_texts)} texts (analyzer {analyzer!r}): "
            "no text holds a word; use analyzer='char'"
        ) from error
    labels = [str(label) for label in model.classes_]
    rows = model.predict_proba(list(test_texts)).tolist()
    return [dict(zip(labels, row, strict=True)) for row in rows]
