"""A task: the examples it takes, the labels it gives, its prompts and its answers.

A prompt is the constant part, the same for every example, and the dialogue to be judged. A prompt
of the user's own is a text with placeholders such as ``{taxonomy}`` and ``{dialogue}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import yaml

from recap.config import LabelForm, Language, PromptHistory, PromptLayout, PromptStyle
from recap.errors import ConfigError, DataError, did_you_mean, quote_id, quote_label
from recap.records import Answer, Example, Message, Turn
from recap.tasks.answer import AnswerFormat, LabelReader
from recap.tasks.wording import WORDING
from recap.taxonomy import Taxonomy

CONSTANT_PLACEHOLDERS = ("role", "task", "taxonomy", "labels", "examples", "format")
"""Filled with the same text for every example."""

DIALOGUE_PLACEHOLDERS = ("dialogue", "history", "response")
"""Filled from the example; ``dialogue`` is history and response together, under headings."""

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


def read_prompt_file(path: Path, *, language: str) -> str:
    """Return the prompt text that a file holds for ``language``, checked.

    A ``.yaml`` or ``.yml`` file maps languages to texts; any other file is the text itself.

    Raises:
        ConfigError: When the file cannot be read, has no text for the language, or the text is not
            usable.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"prompt file {path} cannot be read ({error}); give the path of a UTF-8 text file"
        ) from error
    if path.suffix in (".yaml", ".yml"):
        text = _text_in(path, text, language)
    check_prompt(text, source=str(path))
    return text


def check_prompt(text: str, *, source: str = "the prompt text") -> None:
    """Check that ``text`` can serve as a prompt.

    Raises:
        ConfigError: When it shows no response to judge, or has a placeholder that does not exist.
    """
    known = (*CONSTANT_PLACEHOLDERS, *DIALOGUE_PLACEHOLDERS)
    found = _PLACEHOLDER.findall(text)
    for name in found:
        if name not in known:
            raise ConfigError(
                f"{source} has the unknown placeholder {{{name}}}{did_you_mean(name, known)}; "
                f"known: {', '.join(f'{{{n}}}' for n in known)}"
            )
    if "dialogue" not in found and "response" not in found:
        raise ConfigError(
            f"{source} lacks the placeholder {{dialogue}}: put it where the dialogue goes, after "
            "all that is the same for every example (or {history} and {response} where the two go)"
        )


def split_prompt(
    text: str, values: Mapping[str, str], data: Mapping[str, str], *, has_shots: bool
) -> tuple[str, str]:
    """Return a filled prompt in two: the constant part, and all from the first dialogue on.

    Every placeholder is replaced once, so braces inside what is filled in stay as they are. Shots
    without a place to show them (``{examples}``) are a ``ConfigError``.
    """
    if has_shots and "{examples}" not in text:
        raise ConfigError(
            "the prompt text lacks the placeholder {examples}: "
            "add it where the shots go, or set shots=0"
        )
    first = min(text.index(f"{{{name}}}") for name in data if f"{{{name}}}" in text)
    filled = {**values, **data}
    constant, varying = (
        _PLACEHOLDER.sub(lambda match: filled[match.group(1)], part).strip()
        for part in (text[:first], text[first:])
    )
    return constant, varying


def _text_in(path: Path, text: str, language: str) -> str:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"prompt file {path} is not valid YAML: {error}") from error
    found = content.get(language) if isinstance(content, dict) else None
    if not isinstance(found, str):
        raise ConfigError(
            f"prompt file {path} has no text for language {language!r}; "
            f"add the key '{language}:' with the text"
        )
    return found


def taxonomy_text(task: Task) -> str:
    """Return the definitions that matter: the task's labels, all below them and all above.

    A label also says when another one is the right choice; categories that are no labels do not.
    """
    taxonomy, words = task.taxonomy, WORDING[task.language]
    above = {name for label in task.labels for name in taxonomy.lineage(label)[1:]}
    lines = []
    for category in taxonomy.categories:
        lineage = taxonomy.lineage(category.name)
        if category.name not in above and not set(lineage).intersection(task.labels):
            continue
        text = category.definition.get(task.language, "")
        if category.name in task.labels:
            text = words.space.join(filter(None, (text, category.contrast.get(task.language))))
        indent = "  " * (len(lineage) - 1)
        lines.append(f"{indent}- {task.written(category.name)}" + (text and words.colon + text))
    return "\n".join(lines)


def labels_text(task: Task) -> str:
    """Return the labels that may be answered, each in quotation marks, in class order."""
    words = WORDING[task.language]
    opening, closing = words.quotes
    return words.comma.join(f"{opening}{task.written(label)}{closing}" for label in task.labels)


def format_text(task: Task) -> str:
    """Return how an answer is to look."""
    words = WORDING[task.language]
    if task.style == "brief" and task.prompt_text is None:
        return words.brief_with_reason if task.rationale else words.brief_label_only
    return words.format_with_reason if task.rationale else words.format_label_only


def brief_labels_text(task: Task) -> str:
    """Return the label names in few tokens: a line per pattern, its name written once."""
    words = WORDING[task.language]
    groups: dict[str, list[str]] = {}
    for label in task.labels:
        bare = task.taxonomy[label].name_in(task.language)
        groups.setdefault(task.written(label).removesuffix(bare), []).append(bare)
    lines = [before + words.comma.join(names) for before, names in groups.items()]
    return "\n".join(lines)


def history_lines(task: Task, example: Example) -> tuple[str, ...]:
    """Return the turns before the response that ``task.history`` keeps, one line each."""
    turns: Sequence[Turn] = ()
    if task.history == "full":
        turns = example.history
    elif task.history == "intervention":
        turns = intervention(example.history)
    words = WORDING[task.language]
    names = {"counselor": words.counselor, "client": words.client}
    return tuple(f"{turn.called(names)}{words.colon}{one_line(turn.text)}" for turn in turns)


def one_line(text: str) -> str:
    """Return ``text`` with single spaces for all white space: no utterance can fake a turn."""
    return " ".join(text.split())


def intervention(history: Sequence[Turn]) -> Sequence[Turn]:
    """Return what the client answers: what was said since the client's last turn.

    It begins with the counselor; what others said before that is no part of it.
    """
    start = len(history)
    while start and history[start - 1].speaker != "client":
        start -= 1
    while start < len(history) and history[start].speaker == "other":
        start += 1
    return history[start:]


def _full_prompt(task: Task, example: Example, shots: Sequence[Example]) -> tuple[str, str]:
    words = WORDING[task.language]
    constant = [
        f"{words.role_heading}\n{task.role_text}",
        f"{words.task_heading}\n{task.instruction_text}",
        f"{words.taxonomy_heading}\n{taxonomy_text(task)}",
        f"{words.labels_heading}\n{labels_text(task)}",
    ]
    if shots:
        constant.append(f"{words.examples_heading}\n{_shots_text(task, shots)}")
    varying = [_full_dialogue(task, example)]
    form = f"{words.format_heading}\n{format_text(task)}"
    (varying if task.layout == "format_last" else constant).append(form)
    return "\n\n".join(constant), "\n\n".join(varying)


def _brief_prompt(task: Task, example: Example, shots: Sequence[Example]) -> tuple[str, str]:
    constant = [WORDING[task.language].brief, brief_labels_text(task)]
    if shots:
        constant.append(_shots_text(task, shots))
    varying = [_brief_dialogue(task, example)]
    (varying if task.layout == "format_last" else constant).append(format_text(task))
    return "\n".join(constant), "\n".join(varying)


def _own_prompt(task: Task, example: Example, shots: Sequence[Example]) -> tuple[str, str]:
    words = WORDING[task.language]
    values = {
        "role": task.role_text,
        "task": task.instruction_text,
        "taxonomy": taxonomy_text(task),
        "labels": labels_text(task),
        "format": format_text(task),
        "examples": _shots_text(task, shots),
    }
    history = "\n".join(history_lines(task, example)) or words.no_history
    response = one_line(example.response)
    data = {"dialogue": _full_dialogue(task, example), "history": history, "response": response}
    return split_prompt(task.prompt_text or "", values, data, has_shots=bool(shots))


def _full_dialogue(task: Task, example: Example) -> str:
    words = WORDING[task.language]
    response = f"{words.response_heading}\n{words.client}{words.colon}{one_line(example.response)}"
    if task.history == "none":
        return response
    before = "\n".join(history_lines(task, example)) or words.no_history
    return f"{words.history_heading}\n{before}\n\n{response}"


def _brief_dialogue(task: Task, example: Example) -> str:
    """Return a dialogue without headings, its response marked."""
    response = WORDING[task.language].response_brief + one_line(example.response)
    return "\n".join((*history_lines(task, example), response))


def _shots_text(task: Task, shots: Iterable[Example]) -> str:
    words = WORDING[task.language]
    brief = task.style == "brief" and task.prompt_text is None
    texts = []
    for number, shot in enumerate(shots, start=1):
        if task.rationale and not (shot.rationale or "").strip():
            raise DataError(
                f"example {quote_id(shot.id)} cannot be shown in the prompt, for it has no "
                "rationale; choose examples that have one, or set rationale=false"
            )
        answer = task.render(Answer(label=task.gold(shot), rationale=shot.rationale))
        title = "" if brief else words.example_title.format(number=number) + "\n"
        texts.append(f"{title}{_brief_dialogue(task, shot)}\n{answer}")
    return ("\n" if brief else "\n\n").join(texts)


_CHOICES = {
    "language": get_args(Language),
    "label_form": get_args(LabelForm),
    "style": get_args(PromptStyle),
    "history": get_args(PromptHistory),
    "layout": get_args(PromptLayout),
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
    style: PromptStyle = "full"
    """``brief`` leaves out role and definitions: for small models that learn them from the data."""
    history: PromptHistory = "full"
    """Earlier turns shown; ``intervention``: the counselor's words since the client's last turn."""
    layout: PromptLayout = "format_last"
    """Where the output format stands: after the dialogue, or before it, shared by all examples."""
    role: Mapping[str, str] = field(default_factory=dict)
    """Language to the text that says who the model is; missing languages have a built-in one."""
    instruction: Mapping[str, str] = field(default_factory=dict)
    """Language to the text that says what to do; missing languages have a built-in one."""
    prompt_text: str | None = None
    """A prompt with placeholders (:mod:`recap.tasks.task`) in place of the built-in one."""

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
        """Return the label at or above an example's own; a ``DataError`` where there is none."""
        label = self._reader.label_at_or_above(example.label or "")
        if not self.select(example) or label is None:
            raise DataError(
                f"example {quote_id(example.id)} has no label of task {self.name!r}; "
                "leave out what Task.select refuses"
            )
        return label

    def index(self, label: str) -> int:
        """Return the class index of a label; a ``DataError`` where the task has none such."""
        if label not in self._indices:
            raise DataError(
                f"label {quote_label(label, self.labels)} is not in task {self.name!r}"
                f"{did_you_mean(label, self.labels)}; known: {', '.join(self.labels)}"
            )
        return self._indices[label]

    def messages(self, example: Example, shots: Sequence[Example] = ()) -> tuple[Message, ...]:
        """Return the prompt: a system message, the same for every example, and the dialogue.

        Shots, labeled examples shown with their answers, are part of the constant text. Texts of
        the data are inserted last and never searched for placeholders; each utterance becomes one
        line.

        Raises:
            DataError: When a shot has no label of the task, or no rationale though the task gives
                one.
            ConfigError: When there are shots and a prompt file without ``{examples}``.
        """
        prompt = _brief_prompt if self.style == "brief" else _full_prompt
        constant, varying = (_own_prompt if self.prompt_text is not None else prompt)(
            self, example, shots
        )
        return Message(role="system", text=constant), Message(role="user", text=varying)

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

    ``labels`` are at any level, in any spelling that the taxonomy knows; by default all leaves.
    Only categories below the one ``within`` which they are to be are taken. ``role`` says who the
    model is, ``instruction`` what it is to do: a text, or a text per language. ``options`` are any
    other fields of :class:`Task`.

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
        raise _no_category(task, taxonomy, text)
    return found


def _no_category(task: str, taxonomy: Taxonomy, text: str) -> ConfigError:
    return ConfigError(
        f"task {task!r}: taxonomy {taxonomy.name!r} has no category {text!r}"
        f"{did_you_mean(str(text), taxonomy.spellings())}"
    )


def _check_labels(task: str, taxonomy: Taxonomy, labels: tuple[str, ...]) -> None:
    if not labels:
        raise ConfigError(
            f"task {task!r} has no labels; list some under 'labels' or widen 'within'"
        )
    for label in labels:
        if label not in taxonomy:
            raise _no_category(task, taxonomy, label)
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
