"""Formats of single samples: alpaca, ClientResistance, PsyGUARD.

A sample may carry several labels, or a label above its reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from recap.data.issues import IssueLog
from recap.data.readers.files import existing_file, json_rows
from recap.data.readers.registry import Fields, one_of, register_reader
from recap.data.readers.speakers import SpeakerNames, sample_of
from recap.data.readers.tools import refuse_export
from recap.records import Example, Turn

_LABEL_KEY = re.compile(r"^(?:behaviou?r|label|category|行为|标签|类别)\s*[:：]\s*", re.IGNORECASE)
_REASON_KEY = re.compile(
    r"^(?:reason|rationale|explanation|理由|原因|解释)\s*[:：]\s*", re.IGNORECASE | re.MULTILINE
)


def single_label(
    fields: Fields,
    field: str,
    labels: Sequence[str],
    multi_label: str,
    *,
    annotators: int = 1,
    option: str = "data.options.multi_label",
) -> str | None:
    """Return the label of a row that may carry several, ``None`` where it carries none.

    Args:
        fields: The row.
        field: Where the labels stand in it.
        labels: What stands there.
        multi_label: ``first`` takes the first of several (counted as ``multi_label``), ``reject``
            rejects the row.
        annotators: How many gave these labels.
        option: Where ``multi_label`` is said.
    """
    distinct = list(dict.fromkeys(label.strip() for label in labels))
    if len(distinct) < 2:
        return distinct[0] if distinct else None
    fields.issues.counts["multi_label"] += 1
    if multi_label == "first":
        return distinct[0]
    reason = f"holds {len(distinct)} labels"
    hint = f"keep one, or take the first with {option}=first"
    if annotators > 1:
        reason += f" of {annotators} annotators"
        hint = f"settle it (recap.corpus action=adjudicate), or take the first with {option}=first"
    fields.reject(field, reason, hint)
    return None


def label_and_reason(output: str) -> tuple[str | None, str | None]:
    """Return the label and the rationale of an answer as training files write it.

    The label is the first line, with or without ``Behavior:`` in front; the rationale is what
    follows, with or without ``Reason:``.
    """
    head, _, rest = output.strip().partition("\n")
    label = _LABEL_KEY.sub("", head.strip()).strip()
    reason = _REASON_KEY.sub("", rest.strip(), count=1).strip()
    return label or None, reason or None


def text_example(
    fields: Fields,
    field: str,
    names: SpeakerNames,
    *,
    fallback_id: str,
    label: str | None,
    rationale: str | None,
) -> Example:
    """Return the example of a row whose text is a context above its response.

    Args:
        fields: The row; not sound any more where its text cannot be taken apart.
        field: Where the text stands in it.
        names: Of those who speak in it.
        fallback_id: Of a row without an id.
        label: The row's.
        rationale: The row's.
    """
    text = fields.text(field)
    written = names.read_cell(fields.issues, fields.line, field, text)
    history: tuple[Turn, ...] = ()
    response = ""
    if written is None:
        fields.sound = False
    else:
        history, response, fault = sample_of(written)
        if fault is not None:
            fields.reject(field, *fault)
    return Example(
        id=fields.identifier("id") or fallback_id,
        session=fields.identifier("session"),
        client=fields.identifier("client"),
        history=history,
        response=response,
        label=label,
        rationale=rationale,
    )


@register_reader("alpaca")
def read_alpaca(
    path: Path | None, *, issues: IssueLog, speakers: Mapping[str, str] | None = None
) -> Iterator[Example]:
    """Yield an example for each ``{"instruction", "input", "output"}``, in a list or a line each.

    The response is the last client turn of ``input``, as
    :func:`~recap.data.readers.speakers.sample_of` has it. ``output`` is a label alone, or a label
    above its reason. ``instruction`` is not used: prompts come from the task.

    Args:
        path: The file.
        issues: Where bad rows are noted.
        speakers: Names of speakers beside the usual ones, each with its role.
    """
    path = existing_file(path)
    names = SpeakerNames(speakers)
    for number, (line, row) in enumerate(json_rows(path, issues), start=1):
        fields = Fields(row, line=line, issues=issues)
        if row.get("input") == "" or str(row.get("input", "x")).isspace():
            fields.reject("input", "is empty", "write the dialogue there, not in the instruction")
            continue
        label, reason = label_and_reason(fields.optional_text("output") or "")
        example = text_example(
            fields,
            "input",
            names,
            fallback_id=f"{path.stem}:{number}",
            label=label,
            rationale=reason,
        )
        if fields.sound:
            issues.at(line)
            yield example


@register_reader("client_resistance")
def read_client_resistance(
    path: Path | None, *, issues: IssueLog, speakers: Mapping[str, str] | None = None
) -> Iterator[Example]:
    """Yield an example for each ``{"text", "label"}`` whose text is a context above a response.

    The response is the last client turn, as :func:`~recap.data.readers.speakers.sample_of` has it.
    A sample may also carry ``id``, ``session``, ``client`` and ``rationale``.

    Args:
        path: The file.
        issues: Where bad rows are noted.
        speakers: Names of speakers beside the usual ones, each with its role.
    """
    path = existing_file(path)
    names = SpeakerNames(speakers)
    for number, (line, row) in enumerate(json_rows(path, issues), start=1):
        refuse_export(issues, line, row)
        fields = Fields(row, line=line, issues=issues)
        example = text_example(
            fields,
            "text",
            names,
            fallback_id=f"{path.stem}:{number}",
            label=fields.optional_text("label") or None,
            rationale=fields.optional_text("rationale") or None,
        )
        if fields.sound:
            issues.at(line)
            yield example


@register_reader("psyguard")
def read_psyguard(
    path: Path | None, *, issues: IssueLog, multi_label: str = "reject"
) -> Iterator[Example]:
    """Yield an example without history for each ``{"idx", "text", "labels": [...]}``.

    Args:
        path: The file.
        issues: Where bad rows are noted.
        multi_label: What to do with a message of several labels: ``reject`` it, or take the
            ``first``.
    """
    one_of("multi_label", multi_label, ("reject", "first"))
    path = existing_file(path)
    for number, (line, row) in enumerate(json_rows(path, issues), start=1):
        refuse_export(issues, line, row)
        fields = Fields(row, line=line, issues=issues)
        labels = fields.items("labels") if row.get("labels") is not None else []
        if not all(isinstance(label, str) for label in labels):
            fields.reject("labels", "holds something that is no text", 'write "labels": ["..."]')
            continue
        source = fields.optional_text("data_source")
        example = Example(
            id=_id(fields.identifier("idx"), source) or f"{path.stem}:{number}",
            history=(),
            response=fields.text("text"),
            label=single_label(fields, "labels", labels, multi_label),
            meta={} if source is None else {"data_source": source},
        )
        if fields.sound:
            issues.at(line)
            yield example


def _id(number: str | None, source: str | None) -> str | None:
    # PsyGUARD numbers its messages anew in each of its sources.
    return f"{source}:{number}" if number is not None and source is not None else number
