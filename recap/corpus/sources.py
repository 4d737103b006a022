"""What a corpus command is about: the records, the task, and what annotators gave as labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from recap.config import DataConfig
from recap.corpus.options import CorpusConfig
from recap.data.annotation_files import (
    USUAL_NAMES,
    AnnotationLayout,
    AnnotatorLabels,
    read_annotations,
)
from recap.data.corpus import SYNTHETIC, account_notes, is_synthetic, read_records
from recap.data.examples import examples_of
from recap.data.issues import IssueLog, cut_notes, turn_notes
from recap.data.readers.files import is_several
from recap.data.readers.registry import Record
from recap.data.sheets import raise_issues
from recap.errors import ConfigError, DataError, did_you_mean, quote_cell
from recap.records import Dialogue, Example
from recap.tasks.library import configured_task
from recap.tasks.task import Task
from recap.taxonomy import Taxonomy

MOST_RAW_LABELS = 100
"""Different labels that ``labels=raw`` accepts: a column of texts has more."""

LONGEST_RAW_LABEL = 60
"""Characters of the longest label that ``labels=raw`` accepts."""


@dataclass(frozen=True, kw_only=True)
class CorpusSource:
    """A corpus about to be read, once, record by record."""

    file: str
    """How messages call it."""
    issues: IssueLog
    """What was wrong with its rows; complete after the last record."""
    records: Iterator[Record] = field(repr=False)
    """Its records under canonical labels."""

    def notes(self) -> list[str]:
        """Return sentences on what corpus it is, on who speaks, and on rows that were left out."""
        notes = [SYNTHETIC] if self.issues.counts["synthetic"] else []
        notes += turn_notes(self.issues.turns)
        rejected, read = self.issues.rows_rejected, self.issues.rows_read
        if rejected:
            notes.append(f"{rejected} of {read} rows were left out; action=validate lists them")
        return notes + account_notes(self.issues.counts) + cut_notes(self.issues.cut)


def find_task(config: CorpusConfig) -> Task:
    """Return the task, in the language of the data."""
    return configured_task(config.task, language=config.data.prompt_language)


def find_taxonomy(config: CorpusConfig) -> Taxonomy | None:
    """Return the taxonomy that labels are looked up in, ``None`` for ``labels=raw``."""
    return find_task(config).taxonomy if config.labels == "canonical" else None


def open_source(
    config: CorpusConfig, *, keep_empty: bool = False, judge: bool = True
) -> CorpusSource:
    """Return the corpus, labeled or not, its labels looked up in the taxonomy of the task.

    With ``data.on_error=fail`` the iterator of records ends in an error when rows are at fault,
    which lists them. With ``keep_empty``, turns without a text are part of the corpus rather than
    faults; without ``judge``, neither rows at fault nor a lack of rows end in an error.
    """
    data, taxonomy = config.data, find_taxonomy(config)
    path = Path(data.path) if data.path is not None else None
    issues = IssueLog(str(path) if path is not None else data.reader)
    records = read_records(
        reader=data.reader,
        path=path,
        taxonomy=taxonomy,
        issues=issues,
        require_labels=False,
        keep_empty=keep_empty,
        options=data.reader_options,
    )
    strict = data.on_error == "fail"
    watched = _watched(records, issues, raw=taxonomy is None, judge=judge, strict=strict)
    return CorpusSource(file=issues.file, issues=issues, records=watched)


def _watched(
    records: Iterator[Record], issues: IssueLog, *, raw: bool, judge: bool, strict: bool
) -> Iterator[Record]:
    """Yield the records; refuse labels that may be client text, and at the end what is at fault."""
    labels: set[str] = set()
    any_records = False
    for record in records:
        any_records = True
        issues.counts["synthetic"] += is_synthetic(record.meta)
        if raw:
            given = record.turns if isinstance(record, Dialogue) else (record,)
            labels.update(one.label for one in given if one.label is not None)
            labels.update(*issues.cut)
            refuse_texts(
                labels,
                f"{issues.file}: labels=raw",
                "is this the column of labels? data.options.columns.label=NAME names it",
            )
        yield record
    if not judge:
        return
    if strict:
        raise_issues(issues)
    if not any_records:
        left = f"all {issues.rows_read} rows were rejected" if issues.rows_read else "holds no rows"
        raise DataError(f"{issues.file}: {left}; action=validate lists what is wrong")


def refuse_texts(labels: Set[str], where: str, hint: str) -> None:
    """Refuse raw labels that may be client text, which tables would print, with a ``DataError``."""
    if len(labels) > MOST_RAW_LABELS or max(map(len, labels), default=0) > LONGEST_RAW_LABEL:
        raise DataError(
            f"{where}: more than {MOST_RAW_LABELS} different labels, or one of more than "
            f"{LONGEST_RAW_LABEL} characters: {hint}"
        )


def examples_in(record: Record, data: DataConfig) -> Iterator[Example]:
    """Return the client turns of a record as training sees them."""
    return examples_of(
        record, merge_adjacent=data.merge_adjacent, no_intervention=data.no_intervention
    )


OF_THE_DATA = ("agreement", "adjudicate")
"""Actions that look for annotations in the data's own file where no other is named."""


def open_annotations(config: CorpusConfig) -> AnnotatorLabels:
    """Return the annotations under the labels of the task.

    A label finer than the task's becomes the one above it; one outside the task stays. Raises as
    :data:`~recap.corpus.options.Action` has it.
    """
    task = find_task(config) if config.labels == "canonical" else None
    options = config.annotations
    if options.path:
        paths = [named_path("annotations.path", part) for part in several(options.path)]
    elif config.action in OF_THE_DATA and config.data.path is not None:
        paths = [Path(config.data.path)]
    else:
        raise ConfigError(
            f"action={config.action}: needs annotations.path=FILE (a table, a zip or a folder of "
            "Doccano exports)"
        )
    of_data = {} if options.path else config.data.options
    found = read_annotations(
        paths,
        layout=AnnotationLayout(
            columns=_columns(config),
            form=options.format,
            annotators=tuple(options.annotators or ()),
            multi_label=options.multi_label,
            label_names=options.label_names or of_data.get("label_names") or {},
            speakers=config.data.options.get("speakers"),
        ),
        taxonomy=task.taxonomy if task is not None else None,
        skip_faults=config.data.on_error == "skip",
    )
    if task is None:
        refuse_texts(
            {annotation.label for annotation in found.annotations},
            "labels=raw",
            "is this the column of labels? name it with annotations.columns.label",
        )
        return found
    of_task = (replace(a, label=label_of_task(task, a.label)) for a in found.annotations)
    return replace(found, annotations=tuple(of_task))


def _columns(config: CorpusConfig) -> dict[str, str | list[str] | None]:
    """Return the named columns; where the data's own file is read, also what names those."""
    named = {role: name for role, name in config.annotations.columns.items() if name is not None}
    of_data = config.data.options.get("columns") if not config.annotations.path else None
    shared = of_data if isinstance(of_data, dict) else {}
    return {**{role: shared[role] for role in USUAL_NAMES if shared.get(role)}, **named}


def several(path: str | list[str]) -> list[str]:
    """Return the paths of an option that takes one or more."""
    return [path] if isinstance(path, str) else path


def named_path(option: str, path: str) -> Path:
    """Return the path that an option names; a ``ConfigError`` where nothing is there."""
    found = Path(path).expanduser()
    if not found.exists() and not is_several(found):
        beside = [p.name for p in found.parent.iterdir()] if found.parent.is_dir() else []
        raise ConfigError(
            f"{option}={path}: there is no such file{did_you_mean(found.name, beside)}"
        )
    return found


def label_order(config: CorpusConfig) -> tuple[str, ...]:
    """Return labels in the order of the taxonomy, none for ``labels=raw``."""
    if config.labels != "canonical":
        return ()
    task = find_task(config)
    return (*task.labels, *task.taxonomy.leaves)


_LISTED_TWINS = 5


def reading_notes(found: AnnotatorLabels) -> list[str]:
    """Return a sentence on rows that are no annotation, when some are."""
    notes = []
    if found.twins:
        shown = ", ".join(quote_cell(name) for name in found.twins[:_LISTED_TWINS])
        notes.append(
            f"{len(found.twins):,} names are written in two forms that look alike, and count as "
            f"one each: {shown}"
        )
    if found.columns:
        listed = ", ".join(map(quote_cell, found.columns))
        notes.append(f"a column an annotator: {listed} (annotations.annotators=[A,B] names others)")
    if found.unlabelled:
        notes.append(f"{found.unlabelled:,} rows or cells hold no label and are no annotation")
    if found.rows_rejected:
        notes.append(f"{found.rows_rejected:,} of {found.rows_read:,} rows were left out")
    return notes + account_notes(found.counts) + cut_notes(found.cut)


def label_of_task(task: Task, label: str) -> str:
    """Return the task's label at or above one of the taxonomy, itself where there is none."""
    above = [name for name in task.taxonomy.lineage(label) if name in task.labels]
    return above[0] if above else label


def token_counter(name: str | None) -> Callable[[str], int] | None:
    """Return what counts a text's tokens (control tokens apart), ``None`` for no tokenizer.

    ``name`` is ``tiny``, a folder that holds a ``tokenizer.json``, or such a file; a
    ``ConfigError`` for any other.
    """
    if name is None:
        return None
    if name == "tiny":
        from recap.models.backbone import tiny_tokenizer

        tokenizer = tiny_tokenizer().backend_tokenizer
    else:
        from tokenizers import Tokenizer

        path = Path(name).expanduser()
        path = path / "tokenizer.json" if path.is_dir() else path
        if not path.is_file():
            raise ConfigError(
                f"describe.tokenizer={name}: there is no {path}; name tiny, a model's folder or a "
                "tokenizer.json"
            )
        try:
            tokenizer = Tokenizer.from_file(str(path))
        # The tokenizers library (0.22) raises bare Exception for whatever it cannot read.
        except Exception:  # noqa: BLE001
            raise ConfigError(
                f"describe.tokenizer={name}: {path} is no tokenizer; name another tokenizer.json"
            ) from None
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def keep_filled_in(config: CorpusConfig, pages: Mapping[str, str | bytes]) -> None:
    """Refuse, by a ``ConfigError``, to replace a file that people may have filled in."""
    for name, content in pages.items() if config.out is not None else ():
        file = Path(config.out or "") / name
        new = content.encode("utf-8") if isinstance(content, str) else content
        if file.is_file() and file.read_bytes() != new:
            raise ConfigError(
                f"{file}: is there already and may have been filled in; name another folder with "
                "out=FOLDER, or move it away"
            )
