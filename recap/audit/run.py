"""``recap.audit``: how exposed canaries are, and how many texts a model can be made to repeat.

Exposure is that of Carlini et al. 2019 (The Secret Sharer, section 4.2): a canary holds a secret
drawn from a known space, and is ranked by log-perplexity among the same text with other secrets.
Extraction follows Carlini et al. 2023 (Quantifying Memorization, section 3): given the tokens
before, greedy decoding goes on with the very text.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from recap.audit.options import AuditConfig, PlantOptions, TextField
from recap.data.corpus import read_records
from recap.data.encode import ChatEncoder, PromptEncoder
from recap.data.folds import content_key
from recap.data.issues import IssueLog
from recap.data.readers.native import records_to_jsonl
from recap.errors import ConfigError, DataError, quote_id
from recap.folds.run import read_labeled, read_own_data
from recap.models.engine.loss import Loglikelihood, LoglikelihoodRequest, loglikelihoods
from recap.output.format import console_for, p_cell, percent_with_ends
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.records import Answer, Example, Turn
from recap.runs.saved import SavedModel, find_model, limit_of, load_saved
from recap.tasks.library import build_task
from recap.tasks.task import Task

FORMATS: dict[TextField, dict[str, str]] = {
    "rationale": {
        "en": "The client gives the reference number {secret} and no reason.",
        "zh": "来访者给出编号{secret}，没有说明理由。",
    },
    "response": {
        "en": "My reference number is {secret}, that is all.",
        "zh": "我的编号是{secret}，就这些。",
    },
}
"""Texts around a secret, by field and language."""

_TURNS = {
    "en": ("What would you note down under {number}?", "Nothing that I want to talk about today."),
    "zh": ("第{number}项你想记下些什么？", "今天没有什么想谈的。"),
}
"""Counselor and client; the number keeps canaries from being duplicates of each other."""
_PLAIN = {"en": "The client does not want to talk.", "zh": "来访者不想谈。"}
_SLOT = "{secret}"


@dataclass(frozen=True, kw_only=True)
class Canary:
    """One canary: an example without its secret, the secret, and the ids of its copies."""

    key: str
    ids: tuple[str, ...]
    example: Example
    field: TextField
    secret: str

    def with_secret(self, secret: str) -> Example:
        """Return the example with a secret in its place."""
        text = getattr(self.example, self.field).replace(_SLOT, secret)
        return replace(self.example, **{self.field: text})


def _draw_secret(digits: int, rng: random.Random) -> str:
    # Spaces between digits have each be a token of its own.
    return " ".join(str(rng.randrange(10)) for _ in range(digits))


def plant(task: Task, options: PlantOptions, *, language: Literal["en", "zh"], seed: int) -> str:
    """Return canaries as native JSON lines, to be put to a training set; labels go round."""
    rng = random.Random(seed)
    counselor, client = _TURNS[language]
    text, rows = FORMATS[options.field][language], []
    for number in range(options.n):
        secret = _draw_secret(options.digits, rng)
        filled = text.replace(_SLOT, secret)
        row = Example(
            id="",
            session=f"canary-{number:04d}",
            history=(Turn(speaker="counselor", text=counselor.format(number=number)),),
            response=filled if options.field == "response" else client,
            label=task.labels[number % len(task.labels)],
            rationale=filled if options.field == "rationale" else _PLAIN[language],
            meta={"canary": {"field": options.field, "text": text, "secret": secret}},
        )
        rows += [replace(row, id=f"{row.session}-{copy}") for copy in range(options.copies)]
    return records_to_jsonl(rows)


def read_canaries(path: Path, task: Task) -> tuple[Canary, ...]:
    """Return what ``step=plant`` wrote, copies put together; a ``DataError`` for anything else."""
    issues = IssueLog(str(path))
    records = read_records(
        reader="dialogues", path=path, taxonomy=task.taxonomy, issues=issues, require_labels=True
    )
    listed, found = list(records), dict[str, Canary]()
    if issues.issues:
        raise issues.error()
    for record in listed:
        if not isinstance(record, Example):
            raise DataError(f"{path}: holds dialogues; give the file that step=plant wrote")
        one = _canary(path, record)
        known = found.get(one.key)
        found[one.key] = replace(known, ids=known.ids + one.ids) if known else one
    if not found:
        raise DataError(f"{path}: holds no canaries; give the file that step=plant wrote")
    return tuple(found.values())


def other_secrets(canary: Canary, n: int, *, seed: int) -> tuple[str, ...]:
    """Return ``n`` different secrets of the same space, the canary's own not among them."""
    rng = random.Random(f"{seed}:{canary.key}")
    digits = len(canary.secret.split())
    if n >= 10**digits:
        raise DataError(f"candidates={n}: there are only {10**digits} secrets of {digits} digits")
    drawn: dict[str, None] = {}
    while len(drawn) < n:
        secret = _draw_secret(digits, rng)
        if secret != canary.secret:
            drawn[secret] = None
    return tuple(drawn)


def _canary(path: Path, example: Example) -> Canary:
    spec: Any = example.meta.get("canary")
    try:
        field, text, secret = spec["field"], spec["text"], spec["secret"]
        sound = getattr(example, field) == text.replace(_SLOT, secret) and _SLOT in text
        sound = sound and field in FORMATS and all(d.isdecimal() for d in secret.split())
    except (TypeError, KeyError, AttributeError):
        sound = False
    if not sound:
        raise DataError(
            f"{path}: id {quote_id(example.id)} is no canary as step=plant writes it; plant them "
            "again, and train on these"
        )
    key, blank = example.session or example.id, replace(example, **{field: text})
    return Canary(key=key, ids=(example.id,), example=blank, field=field, secret=secret)


_PROBES = ("A", "一", "1")
"""Texts that no text begins or ends like: at least one of them differs in its first token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenSpan:
    """All tokens that a model read, and where a text lies in them (``start`` up to ``end``)."""

    ids: tuple[int, ...]
    start: int
    end: int

    def behind(self, n: int, *, shortest: int) -> LoglikelihoodRequest | None:
        """Return the text's tokens behind its first ``n``; ``None`` where fewer are left."""
        if self.end - self.start - n < shortest:
            return None
        return LoglikelihoodRequest(ids=self.ids[: self.end], start=self.start + n)


class TokenSpans:
    """Finds texts among the tokens of prompt and answer, as training lays them out."""

    def __init__(self, task: Task, encoder: ChatEncoder, prompts: PromptEncoder) -> None:
        self._task = task
        self._encoder = encoder
        self._prompts = prompts

    def of(self, example: Example, field: TextField) -> TokenSpan:
        """Return where a field of an example stands."""
        prompt = self._prompts.encode(example)
        if field == "rationale":
            label = self._task.gold(example)
            answer, *probes = (
                self._encoder.answer_ids(self._task.render(Answer(label=label, rationale=text)))
                for text in (example.rationale, *_PROBES)
            )
            start = len(prompt.ids) + min(_common(answer, probe) for probe in probes)
            # What ends the turn is no part of the text.
            whole = (*prompt.ids, *answer)
            return TokenSpan(ids=whole, start=start, end=len(whole) - 1)
        cut = replace(example, history=example.history[prompt.dropped_turns :])
        probes = [
            self._encoder.prompt_ids(self._task.messages(replace(cut, response=text)))
            for text in _PROBES
        ]
        start = min(_common(prompt.ids, probe) for probe in probes)
        behind = min(_common(prompt.ids[::-1], probe[::-1]) for probe in probes)
        return TokenSpan(ids=prompt.ids, start=start, end=len(prompt.ids) - behind)


def candidates(spans: Sequence[TokenSpan]) -> list[LoglikelihoodRequest]:
    """Return the same text with several secrets, each from where the first of them differs."""
    first = spans[0]
    start = min(_common(first.ids, span.ids) for span in spans[1:])
    return [LoglikelihoodRequest(ids=span.ids[: span.end], start=max(1, start)) for span in spans]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many of some texts, with the ends of Wilson's 95 % interval; ``None`` for none."""

    count: int
    n: int
    share: float | None = None
    low: float | None = None
    high: float | None = None


def exposure(own: float, others: Sequence[float]) -> float:
    """Return log2 of the candidates, itself among them, less log2 of the rank, in bits.

    Equal ones rank before it, so that a model that tells nothing apart shows no exposure. With a
    sample of the space in place of all of it (section 4.3 there) the most that can be seen
    is log2 of the sample's size.

    >>> exposure(1.0, [2.0, 3.0, 4.0]), exposure(5.0, [2.0, 3.0, 4.0])
    (2.0, 0.0)
    """
    return math.log2(1 + len(others)) - math.log2(1 + sum(other <= own for other in others))


CHANCE = 1 / math.log(2)
"""Mean exposure of a secret that the model has never met, in bits: its rank is uniform."""


def exposure_p(exposures: Sequence[float]) -> float | None:
    """Return the probability of a mean exposure as high without memorization, ``None`` for none.

    The rank is uniform then, and ln(2) times the exposure exponential with mean 1, or less for a
    finite sample: their sum follows at most a gamma distribution.
    """
    if not exposures:
        return None
    from scipy.stats import gamma

    return float(gamma.sf(math.log(2) * sum(exposures), a=len(exposures)))


def share_of(found: Sequence[bool]) -> Share:
    """Return the share of texts that were reproduced."""
    n, count = len(found), sum(found)
    if n == 0:
        return Share(count=0, n=0)
    from scipy.stats import binomtest

    ends = binomtest(count, n).proportion_ci(0.95, method="wilson")
    return Share(count=count, n=n, share=count / n, low=float(ends.low), high=float(ends.high))


def more_than(trained: Share, held_out: Share) -> float | None:
    """Return Fisher's exact one-sided p for a larger share of trained texts; ``None`` for none."""
    if trained.n == 0 or held_out.n == 0:
        return None
    from scipy.stats import fisher_exact

    table = np.array([[each.count, each.n - each.count] for each in (trained, held_out)])
    return float(fisher_exact(table, alternative="greater").pvalue)


_PLANTED = (
    "Put the rows of canaries.jsonl to a copy of the training data, train on that with "
    "data=dialogues, and give the file back with canaries=. Such a model serves the audit alone."
)
_GROUPS = ("trained", "held out", "elsewhere")
"""Where the model's data have a canary."""

Parts = Mapping[str, Sequence[Example]]
"""Examples that the model was ``trained`` on, and that were ``held out``."""
Read = Callable[[Sequence[LoglikelihoodRequest], str], list[Loglikelihood]]
"""The model, reading what it is asked for under a bar with a title."""


def plant_canaries(config: AuditConfig) -> Report:
    """Return canaries to train on; their file, in ``out``, may be read by its owner alone."""
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
    if config.model is None:
        raise ConfigError("model: name a run folder or a model's, as in model=runs/RUN")
    saved = find_model(Path(config.model), config.training)
    parts, notes = _read_parts(config, saved)
    loaded = load_saved(saved, accelerator=config.training.trainer.accelerator)
    if loaded.adapter is not None:
        loaded.model.set_adapter(loaded.adapter)
    encoder = ChatEncoder(loaded.tokenizer)
    own = saved.settings
    limit = limit_of(
        loaded,
        saved.task,
        encoder,
        max_tokens=own.max_prompt_tokens,
        max_new_tokens=own.max_new_tokens,
    )
    prompts = PromptEncoder(saved.task, encoder, max_tokens=limit.tokens, cut=own.cut)
    spans = TokenSpans(saved.task, encoder, prompts)
    read = partial(_read, loaded.model, config.training.decoding.batch_size)
    exposed: list[dict[str, Any]] = []
    if config.canaries is not None:
        canaries = read_canaries(Path(config.canaries), saved.task)
        if not saved.task.rationale and any(c.field == "rationale" for c in canaries):
            raise ConfigError(
                f"canaries={config.canaries}: their secrets stand in rationales, and the model was "
                "trained without; plant them with plant.field=response"
            )
        exposed = list(_expose(config, canaries, parts, spans, read))
    fields: tuple[TextField, ...] = ("rationale", "response")
    extracted = [
        found
        for field in fields[not saved.task.rationale :]
        for found in _extract(config, field, parts, spans, read)
    ]
    if config.privacy.include_text:
        extracted = [
            each | {"texts": [encoder.text(ids) for ids in each["texts"]]} for each in extracted
        ]
    return _report(config, saved, notes, exposed, extracted)


def _read_parts(config: AuditConfig, saved: SavedModel) -> tuple[Parts, list[str]]:
    """Return the model's examples, and notes on where they come from.

    The data are those of the model's run; of a model without one, those of ``data=``. Held out is
    the test part of its fold, unless a file is named.
    """
    held_out: Sequence[Example] = ()
    if saved.run is None:
        trained = read_labeled(config.training, saved.task).examples()
        named = config.training.data.name
        notes = [f"the model lies in no run folder: {named!r} is taken for what it was trained on"]
    elif saved.fold is None:
        trained, name = read_own_data(saved).examples(), saved.config.data.name
        notes = [f"trained on: all {len(trained)} examples of {name!r}"]
    else:
        data, name = read_own_data(saved), saved.config.data.name
        fold = data.folds[saved.fold]
        trained, held_out = data.examples(fold.train), data.examples(fold.test)
        notes = [f"trained on: {len(trained)} examples of {name!r}; held out: {len(held_out)}"]
    if config.held_out is not None:
        given = config.training
        source = replace(given, data=replace(given.data, path=config.held_out))
        held_out = read_labeled(source, saved.task).examples()
        notes.append(f"held out: {config.held_out}")
    known = {content_key(example) for example in trained}
    new = [example for example in held_out if content_key(example) not in known]
    if len(new) < len(held_out):
        notes.append(
            f"{len(held_out) - len(new)} examples held out are trained on as well: left out"
        )
    if not new:
        notes.append("nothing was held out, so shares have nothing to be compared with (held_out=)")
    return {"trained": trained, "held out": new}, notes


def _read(
    model: Any, batch_size: int, requests: Sequence[LoglikelihoodRequest], what: str
) -> list[Loglikelihood]:
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = console_for(stderr=True)
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        line = progress.add_task(what, total=len(requests))
        return loglikelihoods(
            model, requests, batch_size=batch_size, on_scored=lambda n: progress.advance(line, n)
        )


def _expose(
    config: AuditConfig, canaries: Sequence[Canary], parts: Parts, spans: TokenSpans, read: Read
) -> Iterator[dict[str, Any]]:
    """Yield each canary's id, field, group and exposure in bits."""
    ids = {name: {example.id for example in examples} for name, examples in parts.items()}
    for number, canary in enumerate(canaries, start=1):
        others = other_secrets(canary, config.candidates, seed=config.training.seed)
        tried = [
            spans.of(canary.with_secret(secret), canary.field)
            for secret in (canary.secret, *others)
        ]
        readings = read(candidates(tried), f"canary {number} of {len(canaries)}")
        own, *rest = (reading.log_perplexity for reading in readings)
        group = next((name for name in ids if ids[name].intersection(canary.ids)), "elsewhere")
        found = {"id": canary.key, "field": canary.field, "group": group}
        yield {**found, "exposure": exposure(own, rest)}


def _extract(
    config: AuditConfig, field: TextField, parts: Parts, spans: TokenSpans, read: Read
) -> Iterator[dict[str, Any]]:
    """Yield, for each number of given tokens, the shares of a field that were gone on with.

    With the ids of the examples trained on that were reproduced, and the tokens of their texts.
    """
    known = {
        name: [
            (example.id, spans.of(example, field))
            for example in _drawn(examples, config.most, seed=config.training.seed)
            if getattr(example, field)
        ]
        for name, examples in parts.items()
    }
    for n in config.prefix_tokens:
        shares, hits = {}, {}
        for name, texts in known.items():
            asked = [
                (id_, request)
                for id_, span in texts
                if (request := span.behind(n, shortest=config.shortest)) is not None
            ]
            found = read([each for _, each in asked], f"{field}, {n} tokens given, {name}")
            shares[name] = share_of([reading.greedy for reading in found])
            hits[name] = [pair for pair, at in zip(asked, found, strict=True) if at.greedy]
        yield {
            "field": field,
            "prefix_tokens": n,
            **{
                f"{name.replace(' ', '_')}_{key}": value
                for name, share in shares.items()
                for key, value in dataclasses.asdict(share).items()
            },
            "p": more_than(shares["trained"], shares["held out"]),
            "ids": [id_ for id_, _ in hits["trained"]],
            "texts": [request.ids[request.start :] for _, request in hits["trained"]],
        }


def _drawn(examples: Sequence[Example], most: int, *, seed: int) -> Sequence[Example]:
    """Return at most so many examples, drawn without looking at them, in their order."""
    if len(examples) <= most:
        return examples
    return [examples[i] for i in sorted(random.Random(seed).sample(range(len(examples)), most))]


def _report(
    config: AuditConfig,
    saved: SavedModel,
    notes: Sequence[str],
    exposed: Sequence[Mapping[str, Any]],
    extracted: Sequence[Mapping[str, Any]],
) -> Report:
    groups = {
        group: [each["exposure"] for each in exposed if each["group"] == group] for group in _GROUPS
    }
    with_text = config.privacy.include_text
    left_out = () if with_text else ("texts",)
    figures: dict[str, Any] = {
        "model": str(saved.folder),
        "task": saved.task.name,
        "candidates": config.candidates,
        "shortest": config.shortest,
        "canaries": exposed,
        "exposure": {
            group.replace(" ", "_"): {
                "n": len(found),
                "mean": sum(found) / len(found) if found else None,
                "p": exposure_p(found),
            }
            for group, found in groups.items()
        },
        "extraction": [_without(each, *left_out) for each in extracted],
    }
    return Report(
        action="audit",
        title=f"What {saved.folder} has kept of its training texts",
        figures=figures,
        sheets=(*([_exposure_sheet(groups)] if exposed else []), _extraction_sheet(extracted)),
        notes=(*notes, *_notes(config, given=bool(exposed))),
        rows=[_without(each, "ids", "texts") for each in extracted],
        private=with_text,
    )


def _without(figures: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in figures.items() if key not in keys}


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


def _notes(config: AuditConfig, *, given: bool) -> tuple[str, str]:
    most = exposure(0.0, [1.0] * config.candidates)
    of_canaries = (
        "No canaries were given (canaries=); step=plant makes them, for a training to come"
    )
    if given:
        of_canaries = (
            f"Exposure: log2 of {config.candidates + 1} candidates less log2 of the rank by "
            f"log-perplexity; by chance {CHANCE:.2f} bits on average, here at most "
            f"{most:.2f}. p: of a mean as high without memorization."
        )
    of_texts = (
        "Extraction: a text counts where greedy decoding, given the tokens before, gives all of "
        f"its remaining tokens (at least {config.shortest}). Compare with texts held out: what is "
        "said often is guessed, not remembered. p: Fisher's exact test, one-sided."
    )
    return of_canaries, of_texts


def _extraction_sheet(extracted: Sequence[Mapping[str, Any]]) -> ReportTable:
    return table_of(
        "Texts reproduced word for word",
        extracted,
        {
            "text": lambda row: row["field"],
            "tokens given": lambda row: str(row["prefix_tokens"]),
            "trained on, %": lambda row: _share_cell(row, "trained"),
            "held out, %": lambda row: _share_cell(row, "held_out"),
            "p": lambda row: p_cell(row["p"]),
        },
    )


def _share_cell(row: Mapping[str, Any], name: str) -> str:
    text = percent_with_ends(*(row[f"{name}_{key}"] for key in ("share", "low", "high")))
    return f"{text} of {row[f'{name}_n']}" if row[f"{name}_n"] else text
