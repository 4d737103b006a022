"""From several labels to one: who won the vote, what is still open, what was decided by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from recap.analysis.judgements import Judgement

Rule = Literal["plurality", "majority"]
Status = Literal["unanimous", "majority", "decided", "tie", "short"]

STATUSES: Mapping[str, str] = {
    "unanimous": "all annotators agree",
    "majority": "one label won the vote",
    "decided": "decided by hand",
    "tie": "no label won the vote",
    "short": "the leading label has too few votes",
}
"""What became of an example; those of the last two are open."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the annotators of one example add up to."""

    id: str
    session: str | None
    status: Status
    label: str | None
    """The final label, ``None`` while the example is open."""
    votes: Mapping[str, int]
    """Votes of each label, most first."""
    annotators: tuple[str, ...]
    rounds: tuple[str, ...]
    rationale: str | None = None
    """That of the first annotator who gave the final label and a reason."""

    @property
    def open(self) -> bool:
        """Whether the example has no final label yet."""
        return self.label is None


def adjudicate(
    judgements: Iterable[Judgement], *, rule: Rule = "plurality", min_votes: int = 2
) -> tuple[Verdict, ...]:
    """Return a verdict on every example, in order of appearance.

    Two annotators first, then others until one label has won, is Section 4.2; it does not say what
    wins, so that is an option. All rounds count; of one annotator's labels for one example, the
    last.

    Args:
        judgements: Those of one example in order of their rounds.
        rule: ``plurality``: more votes than any other label; ``majority``: more than half.
        min_votes: Votes that the winning label needs.
    """
    by_example: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        by_example.setdefault(judgement.id, []).append(judgement)
    return tuple(_verdict(group, rule, min_votes) for group in by_example.values())


def decide(verdicts: Sequence[Verdict], decisions: Mapping[str, str]) -> tuple[Verdict, ...]:
    """Return the verdicts, each example with a decision under the label decided on.

    A decision counts more than any vote. Examples that have none keep their verdict.
    """
    return tuple(
        replace(verdict, status="decided", label=decisions[verdict.id])
        if verdict.id in decisions
        else verdict
        for verdict in verdicts
    )


def _verdict(group: Sequence[Judgement], rule: Rule, min_votes: int) -> Verdict:
    by_annotator = {judgement.annotator: judgement for judgement in group}
    counted = list(by_annotator.values())
    votes = Counter(judgement.label for judgement in counted)
    ranked = votes.most_common()
    label, leading = ranked[0]
    second = ranked[1][1] if len(ranked) > 1 else 0
    won = leading > second if rule == "plurality" else 2 * leading > len(counted)
    status: Status
    if not won:
        status = "tie"
    elif leading < min_votes:
        status = "short"
    else:
        status = "unanimous" if len(ranked) == 1 else "majority"
    final = label if status in ("unanimous", "majority") else None
    reasons = [j.rationale for j in counted if j.label == final and j.rationale]
    return Verdict(
        id=group[0].id,
        session=next((j.session for j in group if j.session is not None), None),
        status=status,
        label=final,
        votes=dict(sorted(votes.items(), key=lambda item: (-item[1], item[0]))),
        annotators=tuple(by_annotator),
        rounds=tuple(dict.fromkeys(j.round for j in group)),
        rationale=reasons[0] if reasons else None,
    )
