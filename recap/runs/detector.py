"""The detector: one model, or the cascade of two, over utterances, dialogues and streams."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, overload

from rich.console import Console

from recap.config import Decoding, Language
from recap.data.examples import examples_of
from recap.data.readers.native import record_from_row
from recap.data.readers.speakers import SpeakerNames
from recap.errors import ConfigError, DataError, quote_cell
from recap.models.engine.label_scoring import ModelAnswer
from recap.models.export import ModelSettings, TrainedModel, load_trained
from recap.output.format import LogConsole, print_warning, unparsed_notes
from recap.records import Annotation, Dialogue, Example, Turn
from recap.runs.saved import AnswerOptions, ModelStage, Prompt, find_saved_settings, shortened
from recap.system.processes import quiet_libraries
from recap.tasks.answer import ends_in_thought
from recap.tasks.task import Task


def stage_folders(
    model: str | Path | None, binary: str | Path | None, fine_grained: str | Path | None
) -> list[str | Path]:
    """Return the folders of the stages, in their order; a ``ConfigError`` for a half cascade."""
    if model is not None and binary is None and fine_grained is None:
        return [model]
    if model is None and binary is not None and fine_grained is not None:
        return [binary, fine_grained]
    raise ConfigError("name one model (model=FOLDER), or both stages (binary= and fine_grained=)")


def find_gate(first: Task, second: Task) -> str:
    """Return the label of the first stage that the second stage's labels lie below.

    A ``ConfigError`` where there is none.
    """
    above = [set(second.taxonomy.lineage(label)[1:]) for label in second.labels]
    gates = [label for label in first.labels if all(label in names for names in above)]
    if len(gates) != 1:
        raise ConfigError(
            f"tasks {first.name!r} and {second.name!r} make no cascade: no label of the first lies "
            "above all labels of the second; name a model of the binary task with binary= and one "
            "of the fine-grained task with fine_grained="
        )
    return gates[0]


def one_label(
    threshold: float | Mapping[str, float] | None,
) -> float | tuple[str, float] | None:
    """Return a threshold as a value that can be compared; a ``ConfigError`` for several labels."""
    if not isinstance(threshold, Mapping):
        return threshold
    if len(threshold) != 1:
        raise ConfigError("threshold takes one label, such as {'Resistance': 0.3}")
    return next(iter(threshold.items()))


def first_label_threshold(
    threshold: float | tuple[str, float] | None, task: Task, gate: str | None
) -> float | None:
    """Return from which probability on the first of two labels is decided for.

    The threshold is of a named label; without a name, of the ``gate`` that leads on to the second
    stage, else of the first label of the first stage's task. A ``ConfigError`` where the task has
    no such label or not two, or the number is no probability.
    """
    if threshold is None:
        return None
    named = threshold if isinstance(threshold, tuple) else (gate or task.labels[0], threshold)
    label, least = named
    if label not in task.labels or len(task.labels) != 2:
        raise ConfigError(
            f"threshold: {label!r} is not one of two labels of task {task.name!r}, and a threshold "
            "decides between two; leave it out, or use a model of two labels"
        )
    if not 0 <= least <= 1:
        raise ConfigError(f"threshold: {least:g} is no probability; give a number from 0 to 1")
    # The second label is decided for from ``least`` on: the first one above what is left.
    return least if label == task.labels[0] else math.nextafter(1 - least, 2)


Talk = str | Dialogue | Example | Mapping[str, Any]
"""An utterance, a dialogue, an example, or one of the latter as a mapping (native JSON)."""

Ask = Callable[[int, list[Prompt]], list[ModelAnswer]]
"""Answers the prompts of a stage."""

MOST_VARIANTS = 8
"""Sets of options whose prompts' constant part is kept in memory."""

WINDOW_BATCHES = 4
"""Batches that are put together before any is answered, so that like lengths come together."""


def outcome_of(annotation: Annotation) -> str:
    """Return ``label <label>``, ``skipped <why>``, ``invalid cut`` (off in a thought) or ``other``.

    Answers without a label are the ones that are invalid.
    """
    if annotation.skipped:
        return f"skipped {annotation.skipped}"
    if annotation.label is not None:
        return f"label {annotation.label}"
    return "invalid cut" if ends_in_thought(annotation.text or "") else "invalid other"


def count_of(outcomes: Mapping[str, int], kind: str) -> Counter[str]:
    """Return the outcomes of a kind (``label``, ``skipped``, ``invalid``) by what follows it."""
    found = ((*outcome.partition(" "), n) for outcome, n in outcomes.items())
    return Counter({what: n for its_kind, _, what, n in found if its_kind == kind})


def print_outcomes(
    console: Console,
    outcomes: Mapping[str, int],
    *,
    n: int,
    where: object,
    also: Sequence[str] = (),
    before: str = "",
) -> None:
    """Print what became of ``n`` client turns, and what to do about it.

    ``outcomes`` says how often each of :func:`outcome_of` came; turns that were annotated earlier
    have none. ``where`` has the texts of the answers, ``also`` is to be said too, and ``before``
    stands in front of every line.
    """
    labels, skipped, invalid = (count_of(outcomes, k) for k in ("label", "skipped", "invalid"))
    left_out = ", ".join(f"{count} skipped ({why})" for why, count in sorted(skipped.items()))
    parts = [f"{n} utterance{'s' if n != 1 else ''}", left_out or "none skipped"]
    parts += [f"{invalid.total()} invalid"] if invalid else []
    console.print(f"{before}{'; '.join([*parts, *also])}")
    if labels:
        counts = ", ".join(f"{label} {count}" for label, count in labels.most_common())
        console.print(f"{before}{counts}", markup=False)
    asked = labels.total() + invalid.total()
    notes = unparsed_notes(invalid.total(), asked, cut=invalid["cut"], where=where)
    if skipped["too_long"]:
        notes.append(
            f"{skipped['too_long']} of {n} utterances are longer than the model reads, and have no "
            "label: allow longer prompts (prompt.max_tokens), or take a model that reads more"
        )
    for line in notes:
        print_warning(console, line, before=before)


class Detector:
    """Says of client turns which behavior they show; :meth:`from_pretrained` loads one.

    With two stages, the first tells resistance from collaboration, and the second names the
    behavior of what was judged resistant. The models' folders, with what they were taught, and the
    loaded models come in the order of the stages.

    Attributes:
        shortened: ``truncated_examples``, prompts so far that lost turns, and ``dropped_turns``.

    Raises:
        ConfigError: When two stages do not follow each other, or an option does not fit the models.
    """

    def __init__(
        self,
        found: Sequence[tuple[Path, ModelSettings]],
        trained: Sequence[TrainedModel],
        options: AnswerOptions,
        *,
        merge_adjacent: bool = True,
    ) -> None:
        self._found = tuple(found)
        self._trained = tuple(trained)
        self._variants: dict[AnswerOptions, Detector] = {options: self}
        self.options = options
        self.merge_adjacent = merge_adjacent
        self.shortened: Counter[str] = Counter()
        tasks = [
            dataclasses.replace(taught.task, language=options.language or taught.task.language)
            for _, taught in found
        ]
        self._gate = find_gate(*tasks) if len(tasks) > 1 else None
        threshold = first_label_threshold(options.threshold, tasks[0], self._gate)
        self.stages = tuple(
            ModelStage(model, taught, task, options, None if number else threshold)
            for number, (model, (_, taught), task) in enumerate(
                zip(trained, found, tasks, strict=True)
            )
        )

    @classmethod
    @quiet_libraries()
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        binary: str | Path | None = None,
        fine_grained: str | Path | None = None,
        threshold: float | Mapping[str, float] | None = None,
        with_rationale: bool = False,
        language: Language | None = None,
        decoding: Decoding | None = None,
        max_prompt_tokens: int | None = None,
        max_new_tokens: int | None = None,
        batch_size: int = 32,
        merge_adjacent: bool = True,
        base: str | Path | None = None,
        device: str = "auto",
        dtype: str | None = None,
    ) -> Detector:
        """Return a detector of one stage (``model``) or of the cascade.

        Args:
            model: A run folder, a fold's folder, or a model's: a whole model or a PEFT adapter.
            binary: The cascade's first stage, which tells Resistance from Collaboration.
            fine_grained: Its second stage. Two adapters over one base share it in memory.
            threshold: Probability from which the first of two labels (Resistance) is decided for,
                or ``{label: probability}`` for the other; by default the likelier label is taken.
            with_rationale: Whether the rationale is written too, which takes much longer.
            language: Of prompt and answer; by default that of the training.
            decoding: ``scored`` compares all labels and always gives one of them; ``constrained``
                is greedy and always gives one; ``free`` is greedy text, as in the paper. By default
                as the model was scored in training, and ``scored`` with a threshold.
            max_prompt_tokens: Longest prompt; longer ones lose whole oldest turns.
            max_new_tokens: Longest answer.
            batch_size: Prompts answered together.
            merge_adjacent: Whether several turns of one speaker in a row are read as one.
            base: Folder or hub id of an adapter's base, where it is not where training had it.
            device: ``cpu``, ``cuda``, or ``auto``: a GPU where there is one.
            dtype: Type of the weights; by default that of the training.

        Raises:
            ConfigError: When a folder holds no such model, or an option does not fit it.
        """
        folders = stage_folders(model, binary, fine_grained)
        found = [find_saved_settings(folder) for folder in folders]
        options = AnswerOptions(
            decoding=decoding,
            with_rationale=with_rationale,
            threshold=one_label(threshold),
            max_prompt_tokens=max_prompt_tokens,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            language=language,
        )
        trained = load_trained(
            [folder for folder, _ in found],
            [taught for _, taught in found],
            base=base,
            device=device,
            dtype=dtype,
        )
        return cls(found, trained, options, merge_adjacent=merge_adjacent)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that annotations carry."""
        first = self.stages[0].task.labels
        if self._gate is None:
            return first
        return (*(x for x in first if x != self._gate), *self.stages[1].task.labels)

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders of the models, in the order of the stages."""
        return tuple(folder for folder, _ in self._found)

    @overload
    def predict(  # type: ignore[overload-overlap]  # an iterator is an iterable too
        self,
        talk: Iterator[Talk],
        *,
        threshold: float | Mapping[str, float] | None = None,
        with_rationale: bool | None = None,
        language: Language | None = None,
    ) -> Iterator[Annotation]: ...
    @overload
    def predict(
        self,
        talk: Talk | Iterable[Talk],
        *,
        threshold: float | Mapping[str, float] | None = None,
        with_rationale: bool | None = None,
        language: Language | None = None,
    ) -> list[Annotation]: ...
    def predict(
        self,
        talk: Talk | Iterable[Talk],
        *,
        threshold: float | Mapping[str, float] | None = None,
        with_rationale: bool | None = None,
        language: Language | None = None,
    ) -> list[Annotation] | Iterator[Annotation]:
        """Return an annotation of each client turn, in one flat list and in order.

        What became of them is told to the logger ``recap`` when all are annotated; where many have
        no label, that is a :class:`recap.RecapWarning`.

        Args:
            talk: An utterance without context, a dialogue, or several of them. An iterator is read
                as its annotations are taken, and gives an iterator.
            threshold: In place of the detector's own.
            with_rationale: In place of the detector's own.
            language: In place of the detector's own.

        Raises:
            DataError: When a mapping is no dialogue and no example.
            ConfigError: When an option does not fit the models.
        """
        changed: dict[str, Any] = {"with_rationale": with_rationale, "language": language}
        changed["threshold"] = one_label(threshold)
        variant = self._variant({k: v for k, v in changed.items() if v is not None})
        if isinstance(talk, Iterator):
            return variant._stream(talk)
        several = [talk] if isinstance(talk, str | Dialogue | Example | Mapping) else talk
        return list(variant._stream(iter(several)))

    def annotate(self, examples: Sequence[Example]) -> list[Annotation]:
        """Return an annotation of each example, in order; all of them are in memory together."""
        return self.judge(examples, lambda stage, prompts: self.stages[stage].answer(prompts))

    def session(self, session: str = "session") -> Session:
        """Return a dialogue that is annotated while it goes on."""
        return Session(self, session)

    def prompt_ids(self, talk: Talk) -> tuple[int, ...]:
        """Return the ids of the (first) model's prompt for the last client turn.

        Raises:
            DataError: When no client turn has a text.
        """
        spoken = [e for e in self.utterances(talk, 0) if e.response.strip()]
        if not spoken:
            raise DataError("the dialogue has no client turn with a text, so there is no prompt")
        return self.stages[0].prompts(spoken[-1:])[0].ids

    def utterances(self, talk: Talk, number: int) -> list[Example]:
        """Return the client turns of what :meth:`predict` takes as one item, its ``number``-th."""
        if isinstance(talk, str):
            talk = Example(id=str(number), history=(), response=talk)
        elif isinstance(talk, Mapping):
            talk = record_from_row(talk, number)
        merge = self.merge_adjacent
        return [*examples_of(talk, merge_adjacent=merge, no_intervention="keep", empty_apart=True)]

    def judge(self, examples: Sequence[Example], ask: Ask) -> list[Annotation]:
        """Return an annotation of each example; ``ask`` has a stage answer prompts."""
        annotations = [self._annotation(example, skipped="empty") for example in examples]
        spoken = [i for i, example in enumerate(examples) if example.response.strip()]
        first = self._ask(0, examples, spoken, annotations, ask)
        resistant = [i for i in first if self._gate is not None and first[i].label == self._gate]
        second = self._ask(1, examples, resistant, annotations, ask) if resistant else {}
        for i in first:
            if i not in resistant:
                annotations[i] = self._annotation(examples[i], first[i])
            elif i in second:
                annotations[i] = self._annotation(examples[i], first[i], second[i])
        return annotations

    def _ask(
        self,
        stage: int,
        examples: Sequence[Example],
        wanted: list[int],
        annotations: list[Annotation],
        ask: Ask,
    ) -> dict[int, ModelAnswer]:
        """Return a stage's answers by example; those that do not fit are noted as skipped."""
        prompts = self.stages[stage].prompts([examples[i] for i in wanted])
        fitting = [(i, prompt) for i, prompt in zip(wanted, prompts, strict=True) if prompt.fits]
        self.shortened += shortened(prompt for _, prompt in fitting)
        for i in set(wanted) - {i for i, _ in fitting}:
            annotations[i] = self._annotation(examples[i], skipped="too_long")
        answers = ask(stage, [prompt for _, prompt in fitting]) if fitting else []
        return {i: answer for (i, _), answer in zip(fitting, answers, strict=True)}

    def _annotation(
        self,
        example: Example,
        first: ModelAnswer | None = None,
        second: ModelAnswer | None = None,
        skipped: Literal["empty", "too_long"] | None = None,
    ) -> Annotation:
        last = second or first
        label = last.label if last else None
        pattern = self.stages[1 if second else 0].task.taxonomy.pattern(label) if label else None
        return Annotation(
            id=example.id,
            session=example.session,
            turn=example.turn,
            label=label,
            pattern=pattern or label,
            probabilities=self._probabilities(first, second) if first else None,
            rationale=last.rationale if last and self.options.with_rationale else None,
            text=last.text if last else None,
            parsed=label is not None,
            skipped=skipped,
        )

    def _probabilities(
        self, first: ModelAnswer, second: ModelAnswer | None
    ) -> dict[str, float] | None:
        """Return the label's probabilities; of both stages, P(resistance) x P(behavior)."""
        if first.probabilities is None or second is None or second.probabilities is None:
            return None if first.probabilities is None else dict(first.probabilities)
        rest = {label: p for label, p in first.probabilities.items() if label != self._gate}
        resistance = first.probabilities[self._gate or ""]
        return {**rest, **{label: resistance * p for label, p in second.probabilities.items()}}

    def _stream(self, talk: Iterator[Talk]) -> Iterator[Annotation]:
        examples = (e for number, one in enumerate(talk) for e in self.utterances(one, number))
        outcomes: Counter[str] = Counter()
        while window := list(islice(examples, WINDOW_BATCHES * self.options.batch_size)):
            annotations = self.annotate(window)
            outcomes.update(map(outcome_of, annotations))
            yield from annotations
        print_outcomes(LogConsole(), outcomes, n=outcomes.total(), where="the annotations")

    def _variant(self, changed: Mapping[str, Any]) -> Detector:
        """Return this detector with other options, on the same models."""
        options = dataclasses.replace(self.options, **changed)
        if options not in self._variants:
            if len(self._variants) >= MOST_VARIANTS:
                self._variants = {self.options: self}
            self._variants[options] = Detector(
                self._found, self._trained, options, merge_adjacent=self.merge_adjacent
            )
        return self._variants[options]


class Session:
    """Takes the turns of one dialogue as they come, and annotates each client turn at once.

    What one prompt shares with the one before is kept and not computed again. Annotations are those
    of :meth:`recap.runs.detector.Detector.predict` on the dialogue so far. When a client says
    several things in a row, each annotation takes in what was said since the counselor spoke: the
    last of them is the one that the whole dialogue has.
    """

    def __init__(self, detector: Detector, session: str = "session") -> None:
        self._detector = detector
        self._session = session
        self._turns: list[Turn] = []
        self._names = SpeakerNames()
        self._stages = [stage.branch() for stage in detector.stages]

    @property
    def dialogue(self) -> Dialogue:
        """The dialogue so far."""
        return Dialogue(session=self._session, turns=tuple(self._turns))

    def add(self, speaker: str, text: str, *, id: str | None = None) -> Annotation | None:  # noqa: A002
        """Add a turn; return its annotation, ``None`` when it is not the client's.

        The speaker is ``client`` or ``counselor``, a usual name of either (therapist, 来访者), or
        ``other`` for whoever else speaks, else a ``DataError``; by default the turn's id is
        ``<session>:<index>``.
        """
        voice = self._names.find(speaker)
        if voice is None:
            raise DataError(
                f"speaker: {quote_cell(speaker)} is not known; write counselor, client or other"
            )
        self._turns.append(Turn(speaker=voice.speaker, name=voice.name, text=text, id=id))
        if voice.speaker != "client":
            return None
        latest = self._detector.utterances(self.dialogue, 0)[-1:]
        return self._detector.judge(latest, self._ask)[0]

    def _ask(self, stage: int, prompts: list[Prompt]) -> list[ModelAnswer]:
        return self._stages[stage].answer(prompts)
