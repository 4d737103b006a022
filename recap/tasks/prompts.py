"""Prompts: the constant part, the same for every example, and the dialogue to be judged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from recap.errors import DataError, quote_id
from recap.records import Answer, Example, Message, Turn
from recap.tasks.prompt_file import split_prompt
from recap.tasks.wording import WORDING

if TYPE_CHECKING:
    from recap.tasks.task import Task


def render_messages(
    task: Task, example: Example, shots: Sequence[Example] = ()
) -> tuple[Message, ...]:
    """Return the prompt for one example: a system message that never varies, then the dialogue.

    Shots are part of the constant text. Texts of the data are inserted last and never searched for
    placeholders; each utterance becomes one line.

    Raises:
        DataError: When a shot has no label of the task, or no rationale though the task gives one.
        ConfigError: When there are shots and a prompt file without ``{examples}``.
    """
    if task.prompt_text is not None:
        constant, varying = _own_prompt(task, example, shots)
    elif task.style == "brief":
        constant, varying = _brief_prompt(task, example, shots)
    else:
        constant, varying = _full_prompt(task, example, shots)
    return Message(role="system", text=constant), Message(role="user", text=varying)


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
        said = category.definition.get(task.language, "")
        if category.name in task.labels:
            said = words.space.join(filter(None, (said, category.contrast.get(task.language))))
        indent = "  " * (len(lineage) - 1)
        lines.append(f"{indent}- {task.written(category.name)}" + (said and words.colon + said))
    return "\n".join(lines)


def labels_text(task: Task) -> str:
    """Return the labels that may be answered, each in quotation marks, in class order."""
    words = WORDING[task.language]
    opening, closing = words.quotes
    return words.comma.join(f"{opening}{task.written(label)}{closing}" for label in task.labels)


def format_text(task: Task) -> str:
    """Return how an answer is to look, written by the same code that writes answers."""
    words = WORDING[task.language]
    told = words.format_with_reason if task.rationale else words.format_label_only
    slot = words.reason_slot if task.rationale else None
    return f"{told}\n{task.answer_format.lines(words.label_slot, slot)}"


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
    return tuple(f"{names[turn.speaker]}{words.colon}{one_line(turn.text)}" for turn in turns)


def one_line(text: str) -> str:
    """Return ``text`` with single spaces for all white space: no utterance can fake a turn."""
    return " ".join(text.split())


def intervention(history: Sequence[Turn]) -> Sequence[Turn]:
    """Return what the counsellor said since the client's last turn."""
    start = len(history)
    while start and history[start - 1].speaker == "counselor":
        start -= 1
    return history[start:]


def _full_prompt(task: Task, example: Example, shots: Sequence[Example]) -> tuple[str, str]:
    words = WORDING[task.language]
    form = f"{words.format_heading}\n{format_text(task)}"
    sections = [
        f"{words.role_heading}\n{task.role_text}",
        f"{words.task_heading}\n{task.instruction_text}",
        f"{words.taxonomy_heading}\n{taxonomy_text(task)}",
        f"{words.labels_heading}\n{labels_text(task)}",
    ]
    if shots:
        sections.append(f"{words.examples_heading}\n{_shots_text(task, shots)}")
    varying = [_full_dialogue(task, example)]
    (varying if task.layout == "format_last" else sections).append(form)
    return "\n\n".join(sections), "\n\n".join(varying)


def _brief_prompt(task: Task, example: Example, shots: Sequence[Example]) -> tuple[str, str]:
    words = WORDING[task.language]
    slot = words.brief_reason_slot if task.rationale else None
    form = task.answer_format.lines(words.brief_label_slot, slot)
    constant = [words.brief, brief_labels_text(task)]
    if shots:
        constant.append(_shots_text(task, shots))
    varying = [_brief_dialogue(task, example)]
    (varying if task.layout == "format_last" else constant).append(form)
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
    said = f"{words.response_heading}\n{words.client}{words.colon}{one_line(example.response)}"
    if task.history == "none":
        return said
    before = "\n".join(history_lines(task, example)) or words.no_history
    return f"{words.history_heading}\n{before}\n\n{said}"


def _brief_dialogue(task: Task, example: Example) -> str:
    said = WORDING[task.language].response_brief + one_line(example.response)
    return "\n".join((*history_lines(task, example), said))


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
        if brief:
            texts.append(f"{_brief_dialogue(task, shot)}\n{answer}")
        else:
            title = words.example_title.format(number=number)
            texts.append(f"{title}\n{_shot_dialogue(task, shot)}\n{answer}")
    return ("\n" if brief else "\n\n").join(texts)


def _shot_dialogue(task: Task, shot: Example) -> str:
    """Return a shot's dialogue without headings, its response marked as in the brief style."""
    words = WORDING[task.language]
    said = f"{words.response_brief}{one_line(shot.response)}"
    return "\n".join((*history_lines(task, shot), said))
