"""A task: the examples it takes, the labels it gives, what a model is asked, what it answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from recap.errors import ConfigError, DataError, did_you_mean, quote_id, quote_label
from recap.records import Answer, Example, Message
from recap.tasks.answer import AnswerFormat, LabelForm, Language
from recap.tasks.mentions import LabelReader
from recap.tasks.prompt_file import check_prompt
from recap.tasks.prompts import render_messages
from recap.tasks.wording import WORDING
from recap.taxonomy import Taxonomy

Style = Literal["full", "brief"]
History = Literal["none", "intervention", "full"]
Layout = Literal["format_last", "format_first"]

_CHOICES = {
    "language": get_args(Language),
    "label_form": get_args(LabelForm),
    "style": get_args(Style),
    "history": get_args(History),
    "layout": get_args(Layout),
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """A classification task over a taxonomy, as a value; :func:`define_task` makes one.

    ``dataclasses.replace`` gives the same task in another language, style and so on.

    Raises:
        ConfigError: For a label that the taxonomy lacks, labels one of which lies below another, an
            option that does not exist, or an unusable prompt text.
    """

    name: str
    taxonomy: Taxonomy
    labels: tuple[str, ...]
    """Canonical names; their order is the class index."""
    language: Language = "en"
    """Of the prompt, the label names and the answer."""
    rationale: bool = True
    """Whether an answer gives a reason."""
    label_form: LabelForm = "qualified"
    """``qualified`` writes ``Arguing - Challenging``, ``bare`` writes ``Challenging``."""
    style: Style = "full"
    """``brief`` leaves out role and definitions: for small models that learn them from the data."""
    history: History = "full"
    """Earlier turns shown; ``intervention``: the counselor's words since the client's last turn."""
    layout: Layout = "format_last"
    """Where the output format stands: after the dialogue, or before it, shared by all examples."""
    role: Mapping[str, str] = field(default_factory=dict)
    """Language to the text that says who the model is; missing languages have a built-in one."""
    instruction: Mapping[str, str] = field(default_factory=dict)
    """Language to the text that says what to do; missing languages have a built-in one."""
    prompt_text: str | None = None
    """A prompt with placeholders (:mod:`recap.tasks.prompt_file`) in place of the built-in one."""

    def __post_init__(self) -> None:
        for option, known in _CHOICES.items():
            value = getattr(self, option)
            if value not in known:
                raise ConfigError(
                    f"task {self.name!r}: {option}={value!r} does not exist"
                    f"{did_you_mean(str(value), known)}; choose one of {', '.join(known)}"
                )
        _check_labels(self.name, self.taxonomy, self.labels)
        if self.prompt_text is not None:
            check_prompt(self.prompt_text)

    @property
    def role_text(self) -> str:
        """The text that says who the model is, in the task's language."""
        return self.role.get(self.language, WORDING[self.language].role)

    @property
    def instruction_text(self) -> str:
        """The text that says what to do, in the task's language."""
        return self.instruction.get(self.language, WORDING[self.language].instruction)

    def select(self, example: Example) -> bool:
        """Whether the example belongs to the task: its label is one of the task's, or below one.

        Raises:
            DataError: When the example's label is not a canonical name of the taxonomy.
        """
        if example.label is None:
            return False
        if example.label not in self.taxonomy:
            known = self.taxonomy.leaves
            raise DataError(
                f"example {quote_id(example.id)}: label {quote_label(example.label, known)} "
                f"is not in taxonomy {self.taxonomy.name!r}{did_you_mean(example.label, known)}; "
                "read the data with the taxonomy of the task"
            )
        return self._reader.label_at_or_above(example.label) is not None

    def gold(self, example: Example) -> str:
        """Return the task's label of an example: the listed category at or above the example's own.

        Raises:
            DataError: When the task does not select the example.
        """
        if not self.select(example):
            raise DataError(
                f"example {quote_id(example.id)} has no label of task {self.name!r}; "
                "leave out what Task.select refuses"
            )
        return self._reader.label_at_or_above(example.label or "") or ""

    def index(self, label: str) -> int:
        """Return the class index of a label.

        Raises:
            DataError: When the task has no such label.
        """
        if label not in self._indices:
            raise DataError(
                f"label {quote_label(label, self.labels)} is not in task {self.name!r}"
                f"{did_you_mean(label, self.labels)}; known: {', '.join(self.labels)}"
            )
        return self._indices[label]

    def messages(self, example: Example, shots: Sequence[Example] = ()) -> tuple[Message, ...]:
        """Return the prompt: a system message, the same for every example, and the dialogue.

        ``shots`` are labelled examples shown with their answers. Errors as in
        :func:`recap.tasks.prompts.render_messages`.
        """
        return render_messages(self, example, shots)

    def written(self, name: str) -> str:
        """Return how prompts and answers write a category."""
        return self.answer_format.written(name)

    def render(self, answer: Answer) -> str:
        """Return an answer as text; see :meth:`recap.tasks.answer.AnswerFormat.render`."""
        return self.answer_format.render(answer)

    def parse(self, text: str) -> Answer:
        """Return the answer in a text, its label ``None`` where none is clear. Never raises."""
        return self.answer_format.parse(text)

    @cached_property
    def answer_format(self) -> AnswerFormat:
        """How answers of this task are written and read."""
        return AnswerFormat(
            taxonomy=self.taxonomy,
            labels=self.labels,
            language=self.language,
            label_form=self.label_form,
            rationale=self.rationale,
        )

    @cached_property
    def _reader(self) -> LabelReader:
        return LabelReader(self.taxonomy, self.labels)

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {label: index for index, label in enumerate(self.labels)}


def define_task(
    *,
    name: str,
    taxonomy: Taxonomy,
    labels: Iterable[str] | None = None,
    within: str | None = None,
    role: Mapping[str, str] | str | None = None,
    instruction: Mapping[str, str] | str | None = None,
    **options: Any,
) -> Task:
    """Return a task over categories of a taxonomy.

    Args:
        name: Of the task.
        taxonomy: Its categories.
        labels: Categories at any level, in any spelling the taxonomy knows; all leaves by default.
        within: Only categories below this one.
        role: Who the model is: a text, or a text per language.
        instruction: What it is to do, likewise.
        options: Any other field of :class:`Task`.

    Raises:
        ConfigError: For names that the taxonomy lacks, no labels at all, or unknown options.
    """
    chosen = (
        taxonomy.leaves if labels is None else tuple(_category(name, taxonomy, x) for x in labels)
    )
    if within is not None:
        top = _category(name, taxonomy, within)
        inside = tuple(label for label in chosen if top in taxonomy.lineage(label)[1:])
        if labels is not None and inside != chosen:
            outside = ", ".join(label for label in chosen if label not in inside)
            raise ConfigError(
                f"task {name!r}: {outside} not below {top!r}; change 'labels' or 'within'"
            )
        chosen = inside
    return Task(
        name=name,
        taxonomy=taxonomy,
        labels=chosen,
        role=_per_language(name, "role", role),
        instruction=_per_language(name, "instruction", instruction),
        **options,
    )


def _category(task: str, taxonomy: Taxonomy, text: str) -> str:
    found = taxonomy.find(str(text))
    if found is None:
        raise ConfigError(
            f"task {task!r}: taxonomy {taxonomy.name!r} has no category {text!r}"
            f"{did_you_mean(str(text), taxonomy.spellings())}"
        )
    return found


def _check_labels(task: str, taxonomy: Taxonomy, labels: tuple[str, ...]) -> None:
    if not labels:
        raise ConfigError(
            f"task {task!r} has no labels; list some under 'labels' or widen 'within'"
        )
    for label in labels:
        if label not in taxonomy:
            raise ConfigError(
                f"task {task!r}: taxonomy {taxonomy.name!r} has no category {label!r}"
                f"{did_you_mean(label, taxonomy.spellings())}"
            )
        above = set(taxonomy.lineage(label)[1:]).intersection(labels)
        if above or labels.count(label) > 1:
            raise ConfigError(
                f"task {task!r}: label {label!r} is listed twice or lies below the label "
                f"{', '.join(sorted(above)) or label!r}; labels must not overlap"
            )


def _per_language(task: str, key: str, value: Mapping[str, str] | str | None) -> dict[str, str]:
    if value is None:
        return {}
    known = get_args(Language)
    if isinstance(value, str):
        return dict.fromkeys(known, value)
    if not isinstance(value, Mapping) or set(value).difference(known):
        raise ConfigError(
            f"task {task!r}: {key!r} must be a text, or a text for each of {', '.join(known)}"
        )
    return {language: str(text) for language, text in value.items()}
