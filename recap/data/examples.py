"""From a record to the examples in it: one for each client turn that answers the counselor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from recap.config import NoIntervention
from recap.records import Dialogue, Example, State, Turn, Turns


@dataclass(frozen=True, kw_only=True, slots=True)
class _Utterance:
    """A turn, or several of one speaker merged; ``index`` is the turn that it stands for."""

    turn: Turn
    index: int


def examples_of(
    record: Dialogue | Example,
    *,
    merge_adjacent: bool = True,
    no_intervention: NoIntervention = "skip",
    require_labels: bool = False,
    empty_apart: bool = False,
    counts: Counter[str] | None = None,
) -> Iterator[Example]:
    """Yield one example for each client turn, its history the turns before it.

    Turns of one speaker in a row are merged, texts on lines of their own, unless their names say
    that two people speak. The merged turn takes label, rationale, id and index from its last
    labeled part, else from its last part; parts whose labels differ from that one are counted,
    never lost in silence. An example without an id of its own gets ``<session>:<turn index>``. Of
    a record that is an example, only the history is merged: the response stays as it is.

    Every client turn ends in exactly one of the counts ``examples``, ``merged_client_turns`` (gone
    into a neighbor), ``unlabelled``, ``no_intervention`` or ``empty``; together they give
    ``client_turns``.

    Args:
        record: A dialogue, its turns in order, or one client turn with its history.
        merge_adjacent: Whether to merge.
        no_intervention: What to do with a client turn that no counselor turn directly precedes.
        require_labels: Whether client turns without a label make no example.
        empty_apart: Whether a client turn without text becomes an example of its own whatever
            stands before it; no turn without text is merged or stands in a history then.
        counts: Where to add the counts; also ``dialogues``, ``counselor_turns``,
            ``merged_counselor_turns``, ``merged_label_conflicts``, ``merged_act_conflicts``, and
            turns of others alike.
    """
    counts = Counter() if counts is None else counts
    if isinstance(record, Example):
        yield from _of_example(record, merge_adjacent, no_intervention, empty_apart, counts)
        return
    counts["dialogues"] += 1
    for turn in record.turns:
        counts[f"{turn.speaker}_turns"] += 1
    utterances = [_Utterance(turn=turn, index=index) for index, turn in enumerate(record.turns)]
    empty: list[_Utterance] = []
    if empty_apart:
        empty = [u for u in utterances if u.turn.speaker == "client" and not _says(u)]
        utterances = [u for u in utterances if u.turn.speaker == "counselor" or _says(u)]
    if merge_adjacent:
        utterances = _merged(utterances, counts)
    if empty_apart:
        utterances = [u for u in utterances if _says(u)]
    history = Turns(tuple(utterance.turn for utterance in utterances))
    position = 0
    for utterance in sorted((*utterances, *empty), key=lambda u: u.index):
        before = history.first(position)
        outcome = "empty"
        if not empty_apart or _says(utterance):
            position += 1
            outcome = _outcome(utterance.turn, before, no_intervention, require_labels)
        if utterance.turn.speaker == "client":
            counts[outcome] += 1
            if outcome in ("examples", "empty"):
                yield _example(record, utterance, before)


def client_turns(record: Dialogue | Example) -> Iterator[Example]:
    """Return the client turns of a record as they stand."""
    return examples_of(record, merge_adjacent=False, no_intervention="keep")


def _of_example(
    example: Example,
    merge_adjacent: bool,
    no_intervention: NoIntervention,
    empty_apart: bool,
    counts: Counter[str],
) -> Iterator[Example]:
    history = example.history
    if empty_apart:
        history = tuple(turn for turn in history if turn.text.strip())
    if merge_adjacent:
        utterances = [_Utterance(turn=turn, index=index) for index, turn in enumerate(history)]
        history = tuple(utterance.turn for utterance in _merged(utterances, Counter()))
    if len(history) < len(example.history):
        example = replace(example, history=history)
    outcome = "examples"
    if empty_apart and not example.response.strip():
        outcome = "empty"
    elif no_intervention == "skip" and not answers_counselor(history):
        outcome = "no_intervention"
    counts["client_turns"] += 1
    counts[outcome] += 1
    if outcome != "no_intervention":
        yield example


def _outcome(
    turn: Turn, before: Sequence[Turn], no_intervention: NoIntervention, require_labels: bool
) -> str:
    if require_labels and turn.label is None:
        return "unlabelled"
    if no_intervention == "skip" and not answers_counselor(before):
        return "no_intervention"
    return "examples"


def _example(dialogue: Dialogue, utterance: _Utterance, before: Sequence[Turn]) -> Example:
    turn = utterance.turn
    return Example(
        id=turn_id(dialogue.session, utterance.index, turn),
        session=dialogue.session,
        client=dialogue.client,
        counselor=dialogue.counselor,
        turn=utterance.index,
        history=before,
        response=turn.text,
        label=turn.label,
        rationale=turn.rationale,
        meta=dialogue.meta,
        extra={**dialogue.extra, **turn.extra} if turn.extra else dialogue.extra,
    )


def _says(utterance: _Utterance) -> bool:
    return bool(utterance.turn.text.strip())


def answers_counselor(history: Sequence[Turn]) -> bool:
    """Whether what comes next answers the counselor, whatever others said in between."""
    last = next((turn.speaker for turn in reversed(history) if turn.speaker != "other"), None)
    return last == "counselor"


def turn_id(session: str, index: int, turn: Turn) -> str:
    """Return the id of a turn: its own, else ``<session>:<index>``."""
    return turn.id or f"{session}:{index}"


def _merged(utterances: list[_Utterance], counts: Counter[str]) -> list[_Utterance]:
    runs: list[list[_Utterance]] = []
    called: str | None = None
    for utterance in utterances:
        turn = utterance.turn
        # Two names are two people; a turn without one may be anybody's.
        of_two = called is not None and turn.name is not None and turn.name != called
        if runs and runs[-1][0].turn.speaker == turn.speaker and not of_two:
            runs[-1].append(utterance)
            called = called or turn.name
        else:
            runs.append([utterance])
            called = turn.name
    return [run[0] if len(run) == 1 else _one_of_run(run, counts) for run in runs]


def _one_of_run(run: list[_Utterance], counts: Counter[str]) -> _Utterance:
    labeled = [utterance for utterance in run if utterance.turn.label is not None]
    chosen = (labeled or run)[-1]
    speaker = chosen.turn.speaker
    counts[f"merged_{speaker}_turns"] += len(run) - 1
    conflict = {"client": "merged_label_conflicts", "counselor": "merged_act_conflicts"}.get(
        speaker, "merged_other_conflicts"
    )
    counts[conflict] += sum(utterance.turn.label != chosen.turn.label for utterance in labeled)
    text = "\n".join(utterance.turn.text for utterance in run if _says(utterance))
    name = next((u.turn.name for u in run if u.turn.name), None)
    return _Utterance(turn=replace(chosen.turn, text=text, name=name), index=chosen.index)


def over_history(
    history: Sequence[Turn], name: str, start: State, step: Callable[[State, Turn], State]
) -> State:
    """Return what ``step`` makes of ``start`` and the turns, one after the other.

    Of histories that begin one dialogue no turn is looked at twice; the states are theirs under
    ``name``, and must not be changed.
    """
    if isinstance(history, Turns):
        return history.running(name, start, step)
    return reduce(step, history, start)
