"""Prevalence of ``action=sessions`` corrected with the confusion of a run's folds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recap.analysis.correction import CorrectedShares, correct_shares
from recap.analysis.utterances import Utterance
from recap.errors import ConfigError, DataError
from recap.insight_actions.options import InsightsConfig
from recap.insight_actions.source import Source
from recap.records import Scores
from recap.scoring.files import scores_from_dict
from recap.taxonomy import Taxonomy


def read_confusion(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Return labels and confusion of a ``scores.json``, or of a run's folds, added up.

    Raises:
        DataError: When there is none, or folds differ in their labels.
    """
    files = [path] if path.is_file() else sorted(path.glob("fold*/scores.json"))
    if not files:
        raise DataError(
            f"sessions.confusion={path}: is no scores.json, and no run folder with "
            "fold*/scores.json; name one"
        )
    scores = [_scores(file) for file in files]
    if any(score.labels != scores[0].labels for score in scores):
        raise DataError(f"{path}: its folds have different labels; name one run")
    return scores[0].labels, np.sum([score.confusion for score in scores], axis=0)


def corrected(config: InsightsConfig, source: Source) -> CorrectedShares:
    """Return the shares of a run's labels, corrected for the errors of its folds.

    Labels of the utterances count as the run's label at or above them, so that the confusion of a
    binary run corrects a cascade's answers too. Utterances under none of the run's labels are left
    out.

    Raises:
        ConfigError: When labels were annotated, not predicted.
        DataError: When the confusion does not fit.
    """
    path = Path(str(config.sessions.confusion))
    if not source.annotated.predicted:
        raise ConfigError(
            "sessions.confusion: these labels are annotated, not predicted, so there is no "
            "misclassification to correct; leave it out, or name what recap.predict wrote"
        )
    labels, confusion = read_confusion(path)
    strangers = [label for label in labels if label not in source.taxonomy]
    if strangers:
        raise DataError(
            f"{path}: its label {strangers[0]!r} is not in taxonomy {source.taxonomy.name!r}; "
            "name the task of the predictions with task=…"
        )
    seen = confusion.sum(axis=1) > 0
    if not seen.all():
        missing = ", ".join(label for label, there in zip(labels, seen, strict=True) if not there)
        raise DataError(
            f"{path}: counts no example of {missing}; use a run that has all its labels"
        )
    answers = _answers(source.annotated.utterances, labels, source.taxonomy)
    if not answers.sum():
        raise DataError(
            f"{path}: none of the predicted labels is, or lies below, one of its labels: "
            f"{', '.join(labels)}"
        )
    unseen = (answers.sum(axis=0) > 0) & (confusion.sum(axis=0) == 0)
    if unseen.any():
        names = [*labels, "no readable label"]
        said = ", ".join(name for name, is_new in zip(names, unseen, strict=True) if is_new)
        raise DataError(
            f"{path}: never saw the model answer {said}, as it does here; use a confusion over "
            "more examples, from answers that were decoded in the same way"
        )
    return correct_shares(
        answers,
        confusion,
        labels,
        resamples=config.resamples,
        confidence=config.confidence,
        seed=config.seed,
    )


def correction_notes(config: InsightsConfig, source: Source, found: CorrectedShares) -> list[str]:
    """Return what the correction rests on."""
    answers = _answers(source.annotated.utterances, found.labels, source.taxonomy)
    left_out = len(source.annotated.utterances) - int(answers.sum())
    how = (
        "Corrected shares: the shares under which the answers are most likely given the errors in "
        f"{config.sessions.confusion} (EM; Saerens et al. 2002, Vucetic and Obradovic 2001), and "
        "the adjusted count by the inverse of the confusion matrix (Rogan and Gladen 1978, Forman "
        "2008). They hold if the model errs here as it did in its folds, decoded in the same way. "
        "Intervals resample sessions and the examples of the confusion."
    )
    notes = [how]
    if found.condition is not None and found.condition > _ILL_CONDITIONED:
        notes.append(
            f"The confusion matrix is nearly singular (condition number {found.condition:.0f}): "
            "the model confuses labels so much that corrected shares are uncertain."
        )
    if found.inverse is None:
        notes.append("The confusion matrix has no inverse: labels are not told apart.")
    if left_out:
        notes.append(
            f"{left_out} utterances have labels that the confusion does not know: corrected shares "
            "are among the others, as if that part of the labelling were right."
        )
    return notes


_ILL_CONDITIONED = 30
"""A rule of thumb for condition numbers (Belsley, Kuh and Welsch 1980, Regression diagnostics)."""


def _scores(file: Path) -> Scores:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as JSON ({type(error).__name__})") from error
    if not isinstance(data, dict):
        raise DataError(f"{file}: is no scores.json")
    return scores_from_dict(data, source=str(file))


def _answers(
    utterances: Sequence[Utterance], labels: Sequence[str], taxonomy: Taxonomy
) -> np.ndarray:
    """Return counts ``(sessions, n_labels + 1)``, answers without a label in the last column."""
    rows: dict[str, np.ndarray] = {}
    for utterance in utterances:
        above = () if utterance.label is None else taxonomy.lineage(utterance.label)
        place = next((labels.index(label) for label in above if label in labels), None)
        if place is None and utterance.label is not None:
            continue
        row = rows.setdefault(utterance.session, np.zeros(len(labels) + 1))
        row[len(labels) if place is None else place] += 1
    return np.array(list(rows.values())).reshape(-1, len(labels) + 1)
