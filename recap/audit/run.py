"""``recap.audit``: how exposed canaries are, and how many texts a model can be made to repeat."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from recap.audit.options import AuditConfig, TextField
from recap.audit.probes import (
    CHANCE,
    Canary,
    Share,
    TokenSpan,
    TokenSpans,
    candidates,
    exposure,
    exposure_p,
    more_than,
    other_secrets,
    plant,
    read_canaries,
    share_of,
    trained_on,
)
from recap.data.encode import ChatEncoder
from recap.data.folds import content_key
from recap.errors import ConfigError
from recap.folds.run import read_labeled, read_own_data
from recap.models.engine.loss import Loglikelihood, LoglikelihoodRequest, loglikelihoods
from recap.models.export import TrainedModel
from recap.output.format import p_cell, percent_with_ends
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.records import Example
from recap.runs.saved import SavedModel, find_model, load_saved
from recap.tasks.library import build_task


@dataclass(frozen=True, kw_only=True)
class Audited:
    """A saved model, and examples that it was trained on and that it was not."""

    saved: SavedModel
    trained: tuple[Example, ...]
    held_out: tuple[Example, ...]
    notes: tuple[str, ...]


def read_audited(config: AuditConfig) -> Audited:
    """Return what ``model=`` and ``held_out=`` name.

    The data are those of the model's run; of a model without one, those of ``data=``. Held out is
    the test part of its fold, unless a file is named.

    Raises:
        ConfigError: When no model is named or found.
        DataError: When data cannot be read.
    """
    if config.model is None:
        raise ConfigError("model: name a run folder or a model's, as in model=runs/RUN")
    saved = find_model(Path(config.model), config.training)
    if saved.run is not None:
        trained, held_out, notes = _own(saved)
    else:
        trained, held_out = read_labeled(config.training, saved.task).examples(), ()
        named = config.training.data.name
        notes = [f"the model lies in no run folder: {named!r} is taken for what it was trained on"]
    if config.held_out is not None:
        given = config.training
        source = replace(given, data=replace(given.data, path=config.held_out))
        held_out = read_labeled(source, saved.task).examples()
        notes.append(f"held out: {config.held_out}")
    known = {content_key(example) for example in trained}
    new = tuple(example for example in held_out if content_key(example) not in known)
    if len(new) < len(held_out):
        notes.append(
            f"{len(held_out) - len(new)} examples held out are trained on as well: left out"
        )
    if not new:
        notes.append("nothing was held out, so shares have nothing to be compared with (held_out=)")
    return Audited(saved=saved, trained=trained, held_out=new, notes=tuple(notes))


def drawn(examples: Sequence[Example], most: int, *, seed: int) -> tuple[Example, ...]:
    """Return at most so many examples, drawn without looking at them, in their order."""
    if len(examples) <= most:
        return tuple(examples)
    chosen = sorted(random.Random(seed).sample(range(len(examples)), most))
    return tuple(examples[i] for i in chosen)


def _own(saved: SavedModel) -> tuple[tuple[Example, ...], tuple[Example, ...], list[str]]:
    data = read_own_data(saved)
    name = saved.config.data.name
    if saved.fold is None:
        everything = data.examples()
        return everything, (), [f"trained on: all {len(everything)} examples of {name!r}"]
    fold = data.folds[saved.fold]
    trained, held_out = data.examples(fold.train), data.examples(fold.test)
    notes = [f"trained on: {len(trained)} examples of {name!r}; held out: {len(held_out)}"]
    return trained, held_out, notes


_PLANTED = (
    "Put the rows of canaries.jsonl to a copy of the training data, train on that with "
    "data=dialogues, and give the file back with canaries=. Such a model serves the audit alone."
)
_GROUPS = ("trained", "held out", "elsewhere")


@dataclass(frozen=True, kw_only=True)
class Exposed:
    """One canary, whether the model was trained on it, and its exposure in bits."""

    canary: Canary
    group: str
    exposure: float


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """Texts of one field, given so many of their tokens: which were gone on with verbatim."""

    field: TextField
    prefix_tokens: int
    trained: Share
    held_out: Share
    ids: tuple[str, ...]
    """Of the examples trained on that were reproduced."""
    texts: tuple[str, ...]


def plant_canaries(config: AuditConfig) -> Report:
    """Return canaries to train on; their file may be read by its owner alone.

    Raises:
        ConfigError: Without ``out``.
    """
    if config.out is None:
        raise ConfigError("step=plant writes canaries.jsonl; name a folder for it with out=FOLDER")
    task, options = build_task(config.training), config.plant
    text = plant(task, options, language=task.language, seed=config.training.seed)
    kept = dataclasses.asdict(options)
    return Report(
        action="plant",
        title=f"{options.n} canaries, {options.copies} rows each",
        figures={**kept, "task": task.name, "seed": config.training.seed},
        sheets=(),
        notes=(_PLANTED,),
        private_pages={"canaries.jsonl": text},
    )


def audit_model(config: AuditConfig) -> Report:
    """Return exposure and extraction of a saved model.

    Raises:
        ConfigError: When there is no such model, or canaries in a field that it never learned.
        DataError: When data or canaries cannot be read.
    """
    audited = read_audited(config)
    accelerator = config.training.trainer.accelerator
    reader = _Reader(audited, load_saved(audited.saved, accelerator=accelerator), config)
    exposed = _expose(config, audited, reader) if config.canaries is not None else []
    fields: tuple[TextField, ...] = ("rationale", "response")
    extracted = [
        found
        for field in (fields if audited.saved.task.rationale else fields[1:])
        for found in _extract(config, audited, reader, field)
    ]
    return _report(config, audited, exposed, extracted)


class _Reader:
    """The loaded model, with a bar for what it has read."""

    def __init__(self, audited: Audited, trained: TrainedModel, config: AuditConfig) -> None:
        self._trained = trained
        self._batch_size = config.training.decoding.batch_size
        encoder = ChatEncoder(trained.tokenizer)
        self.decode = encoder.text
        self.spans = TokenSpans(
            audited.saved.task, encoder, max_tokens=audited.saved.settings.max_prompt_tokens
        )

    def read(self, passages: Sequence[LoglikelihoodRequest], what: str) -> list[Loglikelihood]:
        if self._trained.adapter is not None:
            self._trained.model.set_adapter(self._trained.adapter)
        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        hidden = not console.is_terminal
        with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
            line = progress.add_task(what, total=len(passages))
            return loglikelihoods(
                self._trained.model,
                passages,
                batch_size=self._batch_size,
                on_scored=lambda n: progress.advance(line, n),
            )


def _expose(config: AuditConfig, audited: Audited, reader: _Reader) -> list[Exposed]:
    canaries = read_canaries(Path(str(config.canaries)), audited.saved.task)
    if not audited.saved.task.rationale and any(c.field == "rationale" for c in canaries):
        raise ConfigError(
            f"canaries={config.canaries}: their secrets stand in rationales, and the model was "
            "trained without; plant them with plant.field=response"
        )
    trained = [example.id for example in audited.trained]
    held_out = [example.id for example in audited.held_out]
    found = []
    for number, canary in enumerate(canaries, start=1):
        others = other_secrets(canary, config.candidates, seed=config.training.seed)
        spans = [
            reader.spans.of(canary.with_secret(secret), canary.field)
            for secret in (canary.secret, *others)
        ]
        readings = reader.read(candidates(spans), f"canary {number} of {len(canaries)}")
        own, *rest = (reading.log_perplexity for reading in readings)
        group = trained_on(canary, trained, held_out)
        found.append(Exposed(canary=canary, group=group, exposure=exposure(own, rest)))
    return found


def _extract(
    config: AuditConfig, audited: Audited, reader: _Reader, field: TextField
) -> list[Extracted]:
    seed = config.training.seed
    parts = {
        name: [e for e in drawn(examples, config.most, seed=seed) if getattr(e, field)]
        for name, examples in (("trained", audited.trained), ("held out", audited.held_out))
    }
    spans = {
        name: [reader.spans.of(example, field) for example in examples]
        for name, examples in parts.items()
    }
    results = []
    for n in config.prefix_tokens:
        asked = {
            name: _asked(parts[name], spans[name], n, shortest=config.shortest) for name in parts
        }
        read = {
            name: reader.read([p for _, p in tried], f"{field}, {n} tokens given, {name}")
            for name, tried in asked.items()
        }
        greedy = {name: [reading.greedy for reading in found] for name, found in read.items()}
        hits = [pair for pair, hit in zip(asked["trained"], greedy["trained"], strict=True) if hit]
        results.append(
            Extracted(
                field=field,
                prefix_tokens=n,
                trained=share_of(greedy["trained"]),
                held_out=share_of(greedy["held out"]),
                ids=tuple(example.id for example, _ in hits),
                texts=tuple(reader.decode(p.ids[p.start :]) for _, p in hits),
            )
        )
    return results


def _asked(
    examples: Sequence[Example], spans: Sequence[TokenSpan], n: int, *, shortest: int
) -> list[tuple[Example, LoglikelihoodRequest]]:
    pairs = (
        (example, span.behind(n, shortest=shortest))
        for example, span in zip(examples, spans, strict=True)
    )
    return [(example, passage) for example, passage in pairs if passage is not None]


def _report(
    config: AuditConfig,
    audited: Audited,
    exposed: Sequence[Exposed],
    extracted: Sequence[Extracted],
) -> Report:
    groups = {
        group: [each.exposure for each in exposed if each.group == group] for group in _GROUPS
    }
    with_text = config.privacy.include_text
    rows = [_row(each) for each in extracted]
    figures: dict[str, Any] = {
        "model": str(audited.saved.folder),
        "task": audited.saved.task.name,
        "candidates": config.candidates,
        "shortest": config.shortest,
        "canaries": [
            {"id": e.canary.key, "field": e.canary.field, "group": e.group, "exposure": e.exposure}
            for e in exposed
        ],
        "exposure": {
            group.replace(" ", "_"): {
                "n": len(found),
                "mean": sum(found) / len(found) if found else None,
                "p": exposure_p(found),
            }
            for group, found in groups.items()
        },
        "extraction": [
            {**row, "ids": list(each.ids), **({"texts": list(each.texts)} if with_text else {})}
            for row, each in zip(rows, extracted, strict=True)
        ],
    }
    return Report(
        action="audit",
        title=f"What {audited.saved.folder} has kept of its training texts",
        figures=figures,
        sheets=(*([_exposure_sheet(groups)] if exposed else []), _extraction_sheet(extracted)),
        notes=(*audited.notes, *_notes(config, exposed)),
        rows=rows,
        private=with_text,
    )


def _row(each: Extracted) -> dict[str, Any]:
    parts = {
        "trained": dataclasses.asdict(each.trained),
        "held_out": dataclasses.asdict(each.held_out),
    }
    return {
        "field": each.field,
        "prefix_tokens": each.prefix_tokens,
        **{f"{name}_{key}": value for name, part in parts.items() for key, value in part.items()},
        "p": more_than(each.trained, each.held_out),
    }


def _exposure_sheet(groups: dict[str, list[float]]) -> ReportTable:
    return table_of(
        "Exposure of canaries",
        [(group, found) for group, found in groups.items() if found],
        {
            "canaries": lambda row: row[0],
            "n": lambda row: str(len(row[1])),
            "mean exposure, bits": lambda row: f"{sum(row[1]) / len(row[1]):.2f}",
            "least": lambda row: f"{min(row[1]):.2f}",
            "greatest": lambda row: f"{max(row[1]):.2f}",
            "p": lambda row: p_cell(exposure_p(row[1])),
        },
    )


def _notes(config: AuditConfig, exposed: Sequence[Exposed]) -> tuple[str, str]:
    most = exposure(0.0, [1.0] * config.candidates)
    of_canaries = (
        f"Exposure: log2 of {config.candidates + 1} candidates less log2 of the rank by "
        f"log-perplexity; by chance {CHANCE:.2f} bits on average, here at most "
        f"{most:.2f}. p: of a mean as high without memorization."
    )
    if not exposed:
        of_canaries = (
            "No canaries were given (canaries=); step=plant makes them, for a training to come"
        )
    of_texts = (
        "Extraction: a text counts where greedy decoding, given the tokens before, gives all of "
        f"its remaining tokens (at least {config.shortest}). Compare with texts held out: what is "
        "said often is guessed, not remembered. p: Fisher's exact test, one-sided."
    )
    return of_canaries, of_texts


def _extraction_sheet(extracted: Sequence[Extracted]) -> ReportTable:
    return table_of(
        "Texts reproduced word for word",
        extracted,
        {
            "text": lambda each: each.field,
            "tokens given": lambda each: str(each.prefix_tokens),
            "trained on, %": lambda each: _share(each.trained),
            "held out, %": lambda each: _share(each.held_out),
            "p": lambda each: p_cell(more_than(each.trained, each.held_out)),
        },
    )


def _share(share: Share) -> str:
    text = percent_with_ends(share.share, share.low, share.high)
    return f"{text} of {share.n}" if share.n else text
