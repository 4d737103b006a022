"""The texts that a model was trained on, others of the same kind, and the model itself."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from recap.auditing.options import AuditConfig
from recap.build import model_settings
from recap.data.folds import content_key
from recap.errors import ConfigError
from recap.evaluation.labelled import read_labelled
from recap.evaluation.loading import SavedModel, find_model
from recap.evaluation.saved import own_data
from recap.models.settings import ModelSettings, read_settings
from recap.records import Example


@dataclass(frozen=True, kw_only=True)
class Audited:
    """A saved model, its settings, and examples that it was trained on and that it was not."""

    saved: SavedModel
    settings: ModelSettings
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
    trained, held_out, notes = _own(saved) if saved.run is not None else _named(config, saved)
    if config.held_out is not None:
        given = config.training
        source = replace(given, data=replace(given.data, path=config.held_out))
        held_out = read_labelled(source, saved.task).examples
        notes.append(f"held out: {config.held_out}")
    known = {content_key(example) for example in trained}
    new = tuple(example for example in held_out if content_key(example) not in known)
    if len(new) < len(held_out):
        notes.append(
            f"{len(held_out) - len(new)} examples held out are trained on as well: left out"
        )
    if not new:
        notes.append("nothing was held out, so shares have nothing to be compared with (held_out=)")
    settings = read_settings(saved.folder) or model_settings(saved.config, saved.task)
    return Audited(
        saved=saved, settings=settings, trained=trained, held_out=new, notes=tuple(notes)
    )


def drawn(examples: Sequence[Example], most: int, *, seed: int) -> tuple[Example, ...]:
    """Return at most so many examples, drawn without looking at them, in their order."""
    if len(examples) <= most:
        return tuple(examples)
    chosen = sorted(random.Random(seed).sample(range(len(examples)), most))
    return tuple(examples[i] for i in chosen)


def _own(saved: SavedModel) -> tuple[tuple[Example, ...], tuple[Example, ...], list[str]]:
    data = own_data(saved)
    name = saved.config.data.name
    if saved.fold is None:
        everything = data.examples(range(len(data.corpus.examples)))
        return everything, (), [f"trained on: all {len(everything)} examples of {name!r}"]
    fold = data.folds[saved.fold]
    trained, held_out = data.examples(fold.train), data.examples(fold.test)
    notes = [f"trained on: {len(trained)} examples of {name!r}; held out: {len(held_out)}"]
    return trained, held_out, notes


def _named(
    config: AuditConfig, saved: SavedModel
) -> tuple[tuple[Example, ...], tuple[Example, ...], list[str]]:
    examples = read_labelled(config.training, saved.task).examples
    note = (
        f"the model lies in no run folder: {config.training.data.name!r} is taken for what it was "
        "trained on"
    )
    return examples, (), [note]
