"""What the figures of ``action=sessions`` show."""

from __future__ import annotations

from recap.analysis.sessions import Prevalence
from recap.analysis.utterances import Utterance
from recap.insight_actions.source import Source
from recap.reporting.session_charts import Mark, Slice

_NO_COLOR = "#999999"


def donuts(source: Source, overall: Prevalence) -> tuple[list[Slice], list[Slice]]:
    """Return the parts of both donuts: resistance among all, behaviours among resistant ones."""
    shares = dict(zip(source.labels, (i.value or 0.0 for i in overall.label_shares), strict=True))
    behaviors = source.behaviors
    resistant = sum(shares[label] for label in behaviors)
    others = [label for label in source.labels if label not in behaviors]
    whole = [
        Slice(
            name=source.resistance[0] if len(source.resistance) == 1 else "Resistance",
            share=resistant,
            color=source.category(source.resistance[0]).color or _NO_COLOR,
        ),
        *(
            Slice(name=o, share=shares[o], color=source.category(o).color or _NO_COLOR)
            for o in others
        ),
    ]
    parts = [
        Slice(
            name=label,
            share=shares[label] / resistant,
            color=source.category(label).color or _NO_COLOR,
        )
        for label in behaviors
        if shares[label]
    ]
    return whole, parts


def timeline_marks(source: Source, session: str) -> list[Mark]:
    """Return the labelled utterances of one session."""
    said: list[Utterance] = [u for u in source.annotated.utterances if u.session == session]
    resistant = source.is_resistant
    return [
        Mark(
            place=u.turn if u.turn is not None else index,
            label=u.label,
            color=source.category(u.label).color or _NO_COLOR,
            resistant=resistant(u.label),
        )
        for index, u in enumerate(said)
        if u.label is not None
    ]
