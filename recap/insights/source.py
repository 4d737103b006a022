"""What actions have in common: annotated utterances that they are about, and written notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from recap.data.utterances import Annotated, Utterance, labels_in_use, membership, read_annotated
from recap.errors import ConfigError, DataError
from recap.insights.options import InsightsConfig
from recap.output.format import degrees, interval, number, p_value, share
from recap.output.templates import read_texts, render
from recap.runs.provenance import provenance_text
from recap.tasks.library import configured_task
from recap.taxonomy import Taxonomy

USUAL_RESISTANCE = "Resistance"
"""What counts as resistance where ``resistance`` says nothing: this category and all below it."""

NO_COLOR = "#999999"
"""Of labels whose category has none."""


@dataclass(frozen=True, kw_only=True)
class AnnotatedSource:
    """Annotated utterances, and what their labels mean."""

    annotated: Annotated
    taxonomy: Taxonomy
    labels: tuple[str, ...]
    """Categories that the annotation tells apart, in canonical order."""
    resistance: tuple[str, ...]
    """Categories that count as resistance, with all below them."""
    language: str
    """``en`` or ``zh``."""

    @property
    def is_resistant(self) -> Callable[[str], bool]:
        """Whether a label counts as resistance."""
        return membership(self.taxonomy, self.resistance)

    @property
    def behaviors(self) -> tuple[str, ...]:
        """The labels that count as resistance."""
        return tuple(filter(self.is_resistant, self.labels))

    def resistance_probability(self, utterance: Utterance) -> float | None:
        """Return P(resistance): that of all resistant labels together.

        ``None`` where the model gave no probabilities, or knows nothing but resistant labels: then
        it takes every utterance for resistant.
        """
        given = utterance.probabilities or {}
        found = {self.taxonomy.find(name): p for name, p in given.items()}
        known = {label: self.is_resistant(label) for label in found if label is not None}
        if len(known) < len(given) or all(known.values()):
            return None
        return sum(p for label, p in found.items() if known[str(label)])

    def origins(self, language: str) -> tuple[str, ...]:
        """Return what is known of where the labels and the dialogues come from."""
        words, found = card_words()[language], self.annotated
        texts = [provenance_text(model, language) for model in found.models]
        if found.predicted and not texts:
            texts = [words["model_not_known"]]
        texts += [words["synthetic"]] if found.synthetic else []
        return (*texts, words["turns_counted"])

    def color(self, label: str) -> str:
        """Return the color of a label's category, gray where it has none."""
        return self.taxonomy[label].color or NO_COLOR


def card_words() -> Mapping[str, Mapping[str, str]]:
    """Return the fixed words of cards and supervision pages, by language."""
    words: Mapping[str, Mapping[str, str]] = read_texts("insights/words.yaml")
    return words


def read_source(config: InsightsConfig) -> AnnotatedSource:
    """Return the utterances of ``data`` under the labels of ``task``, or of ``predictions``.

    Raises:
        ConfigError: When it is not said what counts as resistance.
        DataError: When a file cannot be used.
    """
    data = config.data
    language = data.prompt_language
    taxonomy = configured_task(config.task, language=language).taxonomy
    resistance = _resistance(config, taxonomy)
    predictions = None if config.predictions is None else Path(config.predictions)
    annotated = read_annotated(data, taxonomy, predictions)
    return AnnotatedSource(
        annotated=annotated,
        taxonomy=taxonomy,
        labels=labels_in_use(taxonomy, (u.label for u in annotated.utterances if u.label)),
        resistance=resistance,
        language=language,
    )


def _resistance(config: InsightsConfig, taxonomy: Taxonomy) -> tuple[str, ...]:
    if config.resistance is None:
        if USUAL_RESISTANCE in taxonomy:
            return (USUAL_RESISTANCE,)
        raise ConfigError(
            f"taxonomy {taxonomy.name!r} has no category {USUAL_RESISTANCE!r}; say what counts as "
            f"resistance with resistance=[…], some of: "
            f"{', '.join(category.name for category in taxonomy.categories)}"
        )
    if not config.resistance:
        raise ConfigError(
            "resistance=[] leaves nothing to look for; leave it out, or name categories"
        )
    try:
        return tuple(map(taxonomy.resolve, config.resistance))
    except DataError as error:
        raise ConfigError(f"resistance: {error}") from None


_WORDINGS = {f.__name__: f for f in (degrees, interval, number, p_value, share)}


def notes_of(name: str, **facts: object) -> tuple[str, ...]:
    """Return the paragraphs of ``templates/NAME.txt``, filled in with facts, each on one line."""
    text = render(f"insights/templates/{name}.txt", **_WORDINGS, **facts)
    return tuple(" ".join(note.split()) for note in text.split("\n\n") if note.strip())
