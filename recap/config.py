"""The configuration of a run as frozen dataclasses, validated as a whole.

This is what the YAML under ``conf/`` becomes. Every field has a line of its own; ``validated``
reports all faults at once, in the words of the command line. Nothing here knows Hydra.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from recap.errors import ConfigError, did_you_mean

Schema = TypeVar("Schema")


def validated(schema: type[Schema], values: Mapping[str, Any]) -> Schema:
    """Return the instance of a pydantic dataclass that plain values describe.

    Raises:
        ConfigError: With one line for every fault.
    """
    try:
        return TypeAdapter(schema).validate_python(values)
    except ValidationError as error:
        raise ConfigError(explain_faults(error, schema, values)) from None


def explain_faults(error: ValidationError, schema: type, values: Mapping[str, Any]) -> str:
    """Return one line for every option at fault: its dotted name, and what it has to be.

    Args:
        error: What the validation found.
        schema: The dataclass that was validated, whose sections are dataclasses too.
        values: What it was made of.
    """
    wanted: dict[str, list[str]] = {}
    given: dict[str, Any] = {}
    lines = []
    for fault in error.errors(include_url=False):
        named = isinstance(fault["loc"][-1], str)
        absent = named and fault["type"] in ("missing", "unexpected_keyword_argument")
        where = _option_at(fault["loc"], values, absent=absent)
        if fault["type"] == "unexpected_keyword_argument":
            lines.append(f"{where}: there is no such option{_closest(where.split('.'), schema)}")
        elif fault["type"] == "missing" and named:
            lines.append(f"{where}: is not given; write {where}=VALUE")
        elif fault["type"] == "value_error":
            lines.append(f"{where}: {fault['ctx']['error']}")
        else:
            wanted.setdefault(where, []).append(_expected(fault))
            given[where] = fault["input"]
    for where, kinds in wanted.items():
        if any(other.startswith(f"{where}.") for other in wanted):
            continue  # of a mapping, what is in it is at fault
        words = re.findall(r"'([^']*)'", " ".join(kinds))
        close = did_you_mean(given[where], words) if isinstance(given[where], str) else ""
        *first, last = dict.fromkeys(kinds)
        listed = ", ".join(kind.replace(" or ", ", ") for kind in first)
        expected = f"{listed} or {last}" if first else last
        lines.append(f"{where}: has to be {expected}, not {_shown(given[where])}{close}")
    return "\n".join(dict.fromkeys(lines))


_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a number",
    "bool": "true or false",
    "string": "a text",
    "tuple": "a list, as [A,B]",
    "list": "a list, as [A,B]",
    "mapping": "a mapping, as {{NAME: VALUE}}",
    "dict": "a mapping, as {{NAME: VALUE}}",
    "dataclass": "a mapping, as {{NAME: VALUE}}",
    "literal_error": "{expected}",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "missing": "a longer list",
    "too_long": "a list of at most {max_length}",
    "too_short": "a list of at least {min_length}",
    "string_pattern_mismatch": "made of letters, digits, blanks, dots and hyphens",
}
"""What an option has to be, by the kind of its fault (pydantic 2.13), or how that begins."""


def _expected(fault: Mapping[str, Any]) -> str:
    kind = fault["type"]
    words = _EXPECTED.get(kind) or _EXPECTED.get(kind.partition("_")[0])
    return fault["msg"] if words is None else words.format(**fault.get("ctx", {}))


def _shown(given: object) -> str:
    if given is None or isinstance(given, bool):
        return {None: "null", True: "true", False: "false"}[given]
    if isinstance(given, str | int | float):
        return repr(given)
    n = f" of {len(given)}" if isinstance(given, list | tuple) else ""
    return "a mapping" if isinstance(given, Mapping) else f"a list{n}"


def _option_at(location: tuple[int | str, ...], values: Any, *, absent: bool) -> str:
    """Return an option's dotted name; what names no place in the values is pydantic's own."""
    kept = []
    for part in location:
        places = range(len(values)) if isinstance(values, list | tuple) else values
        if isinstance(places, Mapping | range) and part in places:
            values = values[part]
            kept.append(str(part))
    kept += [str(location[-1])] if absent else []
    return ".".join(kept)


def _closest(keys: Sequence[str], schema: Any) -> str:
    for key in keys[:-1]:
        schema = get_type_hints(schema).get(key)
        if not dataclasses.is_dataclass(schema):
            return ""
    return did_you_mean(keys[-1], [f.name for f in dataclasses.fields(schema)])


_STRICT = ConfigDict(extra="forbid")
Language = Literal["en", "zh"]
LabelForm = Literal["qualified", "bare"]
PromptStyle = Literal["full", "brief"]
PromptHistory = Literal["none", "intervention", "full"]
PromptLayout = Literal["format_last", "format_first"]
PromptCut = Literal["blocks", "turns"]
OnError = Literal["fail", "skip"]
Duplicates = Literal["warn", "error", "drop"]
NoIntervention = Literal["skip", "keep"]
FoldGroup = Literal["session", "client"]
SelectionProtocol = Literal["paper", "nested"]
Sampling = Literal["natural", "balanced"]
StepOrder = Literal["random", "dialogue"]
Engine = Literal["auto", "trunk", "plain"]
FinetuneMethod = Literal["full", "lora", "qlora", "none"]
KeepModels = Literal["all", "best", "none"]
Decoding = Literal["free", "constrained", "scored"]
"""How a label is read off a model: ``free``: greedy text, parsed; ``constrained``: greedy among the
tokens that lead to a label; ``scored``: the likeliest label."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TaskConfig:
    """What is to be told apart, as ``conf/task/*.yaml`` has it."""

    name: str
    """Name of the task; a registered one needs no other key."""
    taxonomy: Mapping[str, Any] | str | None = None
    """A file's name in conf/taxonomy/, or a taxonomy itself; ``None`` for a registered task."""
    labels: tuple[str, ...] | None = None
    """Categories of the taxonomy to tell apart, in order; ``None`` means its leaves."""
    within: str | None = None
    """Only leaves below this category."""
    role: Mapping[str, str] = Field(default_factory=dict)
    """First section of the prompt, by language; empty for the built-in text."""
    instruction: Mapping[str, str] = Field(default_factory=dict)
    """Second section of the prompt, by language; empty for the built-in text."""


def _one_path(path: object) -> object:
    if isinstance(path, list | tuple):
        raise ValueError("takes one file, a folder, or a pattern such as 'talks/*.jsonl'")
    return path


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DataConfig:
    """Where the examples come from."""

    name: str
    """Name of the data set in run folders and tables."""
    reader: str
    """Registered reader, or ``package.module:function``."""
    path: Annotated[str | None, BeforeValidator(_one_path)] = None
    """File or folder to read; the demo corpus needs none."""
    language: Literal["en", "zh", "both"] | None = None
    """Language of the dialogues; the prompt follows it."""
    on_error: OnError = "fail"
    """Whether rows at fault stop the run, after all of them were listed."""
    duplicates: Duplicates = "warn"
    """What happens to examples with the same history and response."""
    merge_adjacent: bool = True
    """Whether several turns of one speaker in a row become one."""
    no_intervention: NoIntervention = "skip"
    """What happens to client turns with no counselor turn before them."""
    options: Mapping[str, Any] = Field(default_factory=dict)
    """Options of this reader alone."""

    @property
    def prompt_language(self) -> Language:
        """The language that prompts and pages are in where nobody names one."""
        return "zh" if self.language == "zh" else "en"

    @property
    def reader_options(self) -> dict[str, Any]:
        """The options of the reader; the demo corpus is written in its language."""
        demo = self.reader == "demo" and self.language is not None
        return {"language": self.language, **self.options} if demo else dict(self.options)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PromptConfig:
    """How an example is put to the model."""

    style: PromptStyle = "full"
    """``full``: role, task, taxonomy, format; ``brief``: task, label names, format."""
    language: Language | None = None
    """Language of the prompt; ``None`` follows data.language (English for ``both``)."""
    label_form: LabelForm = "qualified"
    """``Pattern - Behavior`` or the behavior alone."""
    history: PromptHistory = "full"
    """How much of the dialogue before the response is shown."""
    layout: PromptLayout = "format_last"
    """Whether the output format follows the dialogue (the paper's order) or precedes it."""
    max_tokens: int | None = Field(default=None, ge=16)
    """Longest prompt in tokens; longer ones lose whole oldest turns. ``None``, or more than the
    model's positions less the answer's: as long as these."""
    cut: PromptCut = "blocks"
    """How many turns they lose: ``blocks`` of about a quarter of the room, so that prompts of
    neighboring utterances begin alike, or as few ``turns`` as will do."""
    file: str | None = None
    """A prompt of the user's own, with placeholders."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DecodingConfig:
    """How the answer is read off the model."""

    name: Decoding = "free"
    """``free``: greedy text, as in the paper; ``constrained``: greedy among the tokens of labels;
    ``scored``: the likeliest label."""
    threshold: float | None = Field(default=None, ge=0, le=1)
    """Least probability at which the first of two labels is decided for; ``None``: the likelier.
    Only for ``scored``."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest answer in tokens."""
    batch_size: int = Field(default=32, ge=1)
    """Examples decoded together on one device."""
    engine: Engine = "auto"
    """What decodes: ``trunk`` computes what prompts share once; ``plain`` is transformers' own
    ``generate``; ``auto``: the first where it is exact for the model."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class BackboneConfig:
    """The language model that is tuned."""

    name: str
    """Name in run folders and tables."""
    family: str | None = None
    """Architecture, as config.json names it; weights of another are refused, ``None`` takes any.
    ``remote``: reached through a client; ``other``: a baseline's."""
    hub_id: str | None = None
    """Model id on the Hugging Face hub."""
    path: str | None = None
    """Local folder, or a GGUF file, with weights and tokenizer; goes before ``hub_id``."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights in memory."""
    architecture: Mapping[str, Any] | None = None
    """Sizes as config.json names them, for planning without the weights."""

    @property
    def source(self) -> dict[str, Any]:
        """Which weights and tokenizer it has, as arguments of what loads them."""
        return {key: getattr(self, key) for key in ("name", "family", "hub_id", "path")}


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class FinetuneConfig:
    """Which weights are tuned."""

    method: FinetuneMethod
    """All weights, low-rank adapters (LoRA), adapters over a backbone in 4 bits (QLoRA), or none:
    the untouched backbone is evaluated."""
    rank: int = Field(default=8, ge=1)
    """Rank of the adapters (paper: 8)."""
    alpha: float = Field(default=16, gt=0)
    """Scale of the adapters is alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout inside the adapters."""
    target_modules: tuple[str, ...] | None = None
    """Layers that get adapters; ``None`` for the family's projections."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class OptimizerConfig:
    """The optimizer."""

    name: str = "adamw"
    """Registered optimizer, or ``package.module:function``."""
    learning_rate: float = Field(gt=0)
    """Peak learning rate."""
    find_learning_rate: bool = False
    """Whether a rate is found before the first fold trains, and used in its place."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decay of matrices; never of biases and norms."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's moments."""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW's denominator floor."""
    gradient_clip: float | None = Field(default=1.0, gt=0)
    """Largest gradient norm; ``None`` for no clipping."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SchedulerConfig:
    """How the learning rate moves over optimizer steps."""

    name: str = "cosine"
    """Registered schedule, or ``package.module:function``."""
    warmup_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of all steps during which the rate rises linearly (paper: 0.1)."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainerConfig:
    """Lightning's trainer."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """``auto``: a GPU where there is one."""
    devices: Literal["auto"] | PositiveInt = 1
    """Devices of a node; ``auto``: every GPU there is, else one process."""
    nodes: int = Field(default=1, ge=1)
    """Machines; more than one are started by torchrun or srun."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """``ddp``: a copy of the weights on every device; ``fsdp``: a share of them; ``auto``: ``ddp``
    where there are several devices."""
    cpu_offload: bool = False
    """Whether ``fsdp`` keeps shares and optimizer state in the host's memory."""
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed", "bf16-true", "64-true"] = "auto"
    """Lightning's precision flag; ``auto``: ``bf16-mixed`` on a GPU that computes in it, else
    ``32-true``."""
    matmul: Literal["auto", "onednn", "default"] = "auto"
    """Whose matrix products a training in ``32-true`` on a CPU takes: oneDNN's, torch's default, or
    for a pretrained model the faster ones that are exact (``auto``)."""
    max_epochs: int = Field(default=10, ge=1)
    """Most passes over the training examples (paper: 10)."""
    patience: int = Field(default=3, ge=1)
    """Epochs without a lower selection loss before training stops."""
    max_skipped_steps: int = Field(default=5, ge=1)
    """Optimizer steps in a row whose loss or gradient is no finite number before training stops;
    such steps are skipped."""
    per_device_batch_size: int = Field(default=4, ge=1)
    """Examples in memory together; accumulation follows from global_batch_size."""
    max_tokens_per_device: int | None = Field(default=None, ge=1)
    """Tokens in memory together while training and selecting; ``None``: no limit beside the
    examples."""
    gradient_checkpointing: bool = False
    """Whether each layer is computed again in the backward: the same gradients, less memory."""
    workers: int = Field(default=0, ge=0)
    """Processes that lay out batches ahead of the training; 0: it does so itself."""
    log_every_steps: int = Field(default=10, ge=1)
    """Optimizer steps between two rows of history.csv."""
    progress: bool = True
    """Whether a progress bar with speed, learning rate, memory and time left is shown on a
    terminal."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CheckpointConfig:
    """What a kill may cost."""

    every_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps between two checkpoints within an epoch; ``None``: after each epoch alone."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CvConfig:
    """Cross-validation."""

    folds: int = 5
    """Number of folds."""
    fold: Literal["all", "final"] | int = "all"
    """All folds, one of them, or one model on all data for use."""
    protocol: SelectionProtocol = "paper"
    """``paper``: the held-out fold also selects the epoch; ``nested``: an inner split does."""
    group: FoldGroup | None = None
    """Examples of one group stay in one fold."""
    seed: int = Field(default=0, ge=0)
    """Seed of the partition; not that of the weights, so that runs share their folds."""
    max_examples: int | None = Field(default=None, ge=1)
    """At most so many examples of the data set."""
    sample: Literal["natural", "balanced"] = "natural"
    """How they are drawn: every label by its share of the data, or evenly over the task's labels,
    which leaves out what the task does not select and gives every task data of its own."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class LoggerConfig:
    """Where curves and tables go beside the run folder's own files."""

    name: Literal["wandb", "csv", "none"] = "wandb"
    """``csv`` and ``none`` write the run folder alone."""
    project: str = "recap"
    """W&B project."""
    mode: Literal["offline", "online"] = "offline"
    """Offline files stay in the run folder until ``wandb sync``."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PrivacyConfig:
    """Where the text of clients may go, beside the data files of a run folder."""

    allow_external: bool = False
    """Whether prompts may be sent to another machine; recap.prompt alone asks one."""
    log_text: bool = False
    """Whether some prompts, dialogues and answers are shown on the console, all of a fold's stand
    in a table of its W&B run, and errors that nobody foresaw keep their words."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RunConfig:
    """One run: a task, a data set, a model and a protocol."""

    task: TaskConfig
    """What is told apart."""
    data: DataConfig
    """The examples."""
    prompt: PromptConfig
    """How they are put."""
    decoding: DecodingConfig
    """How answers are read."""
    backbone: BackboneConfig
    """The model."""
    finetune: FinetuneConfig
    """Which weights move."""
    optimizer: OptimizerConfig
    """How they move."""
    scheduler: SchedulerConfig
    """How fast, over time."""
    trainer: TrainerConfig
    """Where and how long."""
    cv: CvConfig
    """The protocol."""
    logger: LoggerConfig
    """Who is told."""
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    """What a kill may cost."""
    privacy: PrivacyConfig = Field(default_factory=PrivacyConfig)
    """What texts may be seen."""
    callbacks: Mapping[str, Any] = Field(default_factory=dict)
    """Name of an own callback (``package.module:Class``) -> its arguments."""
    rationale: bool = True
    """Whether the answer gives a rationale after the label."""
    seed: int = Field(default=0, ge=0)
    """Seed of weights, order and dropout."""
    global_batch_size: int = Field(default=16, ge=1)
    """Examples per optimizer step, over all devices and accumulation (paper: 128)."""
    sampling: Sampling = "natural"
    """``natural``: each training example once an epoch; ``balanced``: every class equally often in
    epochs of the same length, by repeating examples of small classes."""
    order: StepOrder = "random"
    """What stands together in a step: what chance brings; ``dialogue``: a few neighbors each of
    several dialogues, whose turns are computed once."""
    batching: Annotated[
        Literal["auto", "trunk", "packed", "padded"],
        BeforeValidator(lambda name: "trunk" if name == "shared_prefix" else name),
    ] = "auto"
    """How examples of a batch are laid out: one row in which what they begin with stands once, one
    row without sharing, padded rows; ``auto``: the first of these that is exact for the model.
    ``shared_prefix`` is an older name of ``trunk``."""
    baseline: Mapping[str, Any] | None = None
    """Method and options of a baseline's run (recap.evaluate), which has no backbone."""
    run: Annotated[str, AfterValidator(run_name)]
    """Name of the run folder, inside of ``runs_dir``."""
    runs_dir: str = "runs"
    """Where run folders are."""
    resume: Literal["auto", "never"] = "auto"
    """Whether an unfinished fold goes on from its last checkpoint."""
    keep_models: KeepModels = "all"
    """Which finished folds' ``model/`` folders stay: all, the one with the lowest selection loss,
    or none; that of the ``final`` model always stays."""
    merge: bool = False
    """Whether adapters end as whole models, merged onto the unquantized backbone and scored
    again."""
    merge_tolerance: float | None = Field(default=None, ge=0)
    """How much merging may change the answers' loss, in nats a token, however large that is;
    ``None``: 1e-5 in 32 bits (five units in the last place of a loss of 20), 0.01 where 16 bits
    play a part, 0.05 for qlora."""


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Return a configuration as plain dicts, lists and scalars."""
    plain: dict[str, Any] = TypeAdapter(RunConfig).dump_python(config, mode="json")
    return plain


_DTYPES = {"bf16": "bfloat16", "16": "float16", "64": "float64"}


def weights_dtype(precision: str, dtype: str) -> str:
    """Return what Lightning turns weights of a type into under ``trainer.precision``."""
    bits, _, kind = precision.partition("-")
    return _DTYPES.get(bits, dtype) if kind == "true" else dtype


def autocast_dtype(precision: str) -> str | None:
    """Return what is computed in beside the weights' own type under ``trainer.precision``."""
    bits, _, kind = precision.partition("-")
    return _DTYPES[bits] if kind == "mixed" else None


def compute_dtype(precision: str, dtype: str = "float32") -> str:
    """Return what matrices are multiplied in under ``trainer.precision``: 16 bits, or ``dtype``."""
    return "bfloat16" if precision == "bf16-true" else autocast_dtype(precision) or dtype


def taught(config: RunConfig) -> dict[str, Any]:
    """Return what a model of this run has to be told of how it was trained, beside its task."""
    precision = config.trainer.precision
    dtype = weights_dtype(precision, config.backbone.dtype)
    quantize = config.finetune.method == "qlora"
    return {
        "max_prompt_tokens": config.prompt.max_tokens,
        "cut": config.prompt.cut,
        "max_new_tokens": config.decoding.max_new_tokens,
        "decoding": config.decoding.name,
        "threshold": config.decoding.threshold,
        "dtype": dtype,
        "compute_dtype": compute_dtype(precision, "float32" if quantize else dtype),
        "quantize": quantize,
    }


_LONGEST_NAME = 200


_FOLDER_NAME = re.compile(r"[^/\\:\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def run_name(name: str) -> str:
    """Return the name of a run when it is that of one folder, which no path leads out of.

    Raises:
        ValueError: When it is none.
    """
    fits = len(name.encode("utf-8", "replace")) <= _LONGEST_NAME
    if not fits or name.startswith(".") or not _FOLDER_NAME.fullmatch(name):
        raise ValueError(
            "has to be the name of one folder: no slash, no dot in front, nothing unprintable, at "
            f"most {_LONGEST_NAME} bytes; runs_dir says where the folder is"
        )
    return name


COMPARED = (
    *(f"client.{key}" for key in ("name", "model", "base_url", "temperature", "top_p", "thinking")),
    *("shots", "shot_categories"),
)
"""The options of a prompted run's own that change its results."""


NOT_RESULT_CHANGING = (
    *("run", "runs_dir", "resume", "keep_models", "merge", "merge_tolerance", "batching"),
    *("checkpoint.", "logger.", "privacy.", "cv.fold", "decoding.batch_size"),
    *("backbone.architecture", "backbone.architecture."),
    *(f"trainer.{key}" for key in ("accelerator", "devices", "nodes", "strategy", "cpu_offload")),
    "trainer.matmul",
    *(f"trainer.{key}" for key in ("per_device_batch_size", "max_tokens_per_device", "workers")),
    *(f"trainer.{key}" for key in ("gradient_checkpointing", "max_skipped_steps")),
    *(f"trainer.{key}" for key in ("log_every_steps", "progress")),
)
"""Options that may differ between processes on one run folder; a final dot means a group."""


def result_options(config: RunConfig, prompted: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return every result-changing option as ``{"cv.folds": 5, ...}``.

    Args:
        config: Of the run.
        prompted: What config.yaml holds besides of a prompted system; :data:`COMPARED` of it count.
    """
    plain = flatten(to_dict(config))
    options = {k: value for k, value in plain.items() if not is_among(k, NOT_RESULT_CHANGING)}
    if prompted:
        own = flatten(prompted)
        options |= {key: own.get(key) for key in COMPARED}
    return options


def is_among(key: str, options: Iterable[str]) -> bool:
    """Return whether an option is one of these, of which a final dot means a group."""
    return any(key.startswith(o) if o.endswith(".") else key == o for o in options)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def hashed_name(parts: Iterable[str], given: Mapping[str, Any], default: Mapping[str, Any]) -> str:
    """Return parts of a folder's name, and a hash of the options that differ from the defaults."""
    changed = {k: value for k, value in given.items() if k not in default or default[k] != value}
    text = json.dumps(changed, sort_keys=True, default=str)
    return "-".join([*parts, *([hashlib.sha256(text.encode()).hexdigest()[:8]] if changed else [])])


BITSANDBYTES_OPTIMIZERS = ("adamw8bit", "paged_adamw8bit", "paged_adamw32bit")
"""On a GPU their kernels take gradients of 32 and 16 bits only (bitsandbytes 0.50)."""

USUAL_WEIGHT = 0.02
"""Standard deviation that Qwen2 and Llama draw their matrices with (``initializer_range``)."""

_MANTISSA_BITS = {"bfloat16": 8, "float16": 11}
"""Significant bits, the implied one among them."""


def check_combinations(config: RunConfig) -> None:
    """Refuse what cannot work together.

    Raises:
        ConfigError: With one line for every fault, each naming what to set instead.
    """
    issues = [
        *_quantized(config),
        *_optimizer(config),
        *_weights(config),
        *_untrained(config),
        *_spread(config),
    ]
    if issues:
        raise ConfigError("\n".join(issues))


def vanishing_update(dtype: str, weight: float = USUAL_WEIGHT) -> float:
    """Return the largest change of a weight that rounding to the nearest undoes.

    Half the distance between the numbers of that type around the weight. AdamW changes a weight by
    about the learning rate a step, so below this a weight of that size never moves.

    Args:
        dtype: ``bfloat16`` or ``float16``.
        weight: Magnitude of the weight, at most 1 and not subnormal.
    """
    return float(2.0 ** (math.frexp(weight)[1] - 1 - _MANTISSA_BITS[dtype]))


def _quantized(config: RunConfig) -> Iterator[str]:
    if config.finetune.method != "qlora":
        return
    backbone, precision = config.backbone, config.trainer.precision
    if backbone.path is None and backbone.hub_id is None:
        yield (
            f"finetune=qlora: backbone {backbone.name!r} is made on the spot, and only weights "
            "that are loaded are quantized; set finetune=lora, or a backbone with weights "
            "(backbone=qwen0_5b, backbone.path=FOLDER)"
        )
    if precision == "64-true":
        yield (
            "finetune=qlora: 4-bit weights are multiplied in 16 or 32 bits, never in "
            "trainer.precision=64-true; set trainer.precision=32-true or finetune=lora"
        )


def _optimizer(config: RunConfig) -> Iterator[str]:
    name, trainer = config.optimizer.name, config.trainer
    on_cpu = trainer.accelerator == "cpu"
    if name in BITSANDBYTES_OPTIMIZERS and trainer.precision == "64-true" and not on_cpu:
        yield (
            f"optimizer.name={name}: on a GPU bitsandbytes has no step for the gradients of "
            "trainer.precision=64-true; set optimizer=adamw, trainer.precision=32-true or "
            "trainer=cpu"
        )


def _weights(config: RunConfig) -> Iterator[str]:
    """Find weights whose updates would be rounded away, or that a precision cannot train."""
    dtype, precision = _tuned_dtype(config), config.trainer.precision
    if dtype not in _MANTISSA_BITS:
        return
    if precision == "16-mixed":
        yield (
            "trainer.precision=16-mixed scales gradients of float32 weights, not of "
            f"backbone.dtype={dtype}; set backbone.dtype=float32"
        )
    if dtype == "float16" and config.optimizer.eps < 2**-25:
        yield (
            f"optimizer.eps={config.optimizer.eps:g} is zero in weights of float16, and steps are "
            "no finite numbers; set backbone.dtype=float32, and trainer.precision=16-mixed or "
            "bf16-mixed to compute in 16 bits"
        )
    rate, lost = config.optimizer.learning_rate, vanishing_update(dtype)
    if rate < lost and not config.optimizer.find_learning_rate:
        yield (
            f"optimizer.learning_rate={rate:g} is too small for weights in {dtype}: with "
            f"{_MANTISSA_BITS[dtype]} bits of mantissa a weight of {USUAL_WEIGHT} has a step of "
            f"{2 * lost:.1e}, and a change of about {rate:g} is below half of it and rounds "
            "away; set backbone.dtype=float32, and trainer.precision=bf16-mixed to compute in "
            "bfloat16 over such master weights"
        )


def _tuned_dtype(config: RunConfig) -> str:
    """Return the type in which the tuned weights are kept from step to step."""
    # peft keeps adapters in float32 beside a backbone of 16 bits (0.21).
    adapted = config.finetune.method in ("lora", "qlora", "none")
    return weights_dtype(config.trainer.precision, "float32" if adapted else config.backbone.dtype)


def _untrained(config: RunConfig) -> Iterator[str]:
    if config.finetune.method == "none" and config.cv.fold == "final":
        yield (
            "finetune=none trains nothing, so there is no final model; set cv.fold=all to score "
            "the backbone, or another finetune"
        )
    if config.finetune.method == "none" and config.optimizer.find_learning_rate:
        yield (
            "finetune=none trains nothing, so there is no learning rate to find; set "
            "optimizer.find_learning_rate=false, or another finetune"
        )


def _spread(config: RunConfig) -> Iterator[str]:
    """Find what does not hold for weights that are spread over devices."""
    trainer, name = config.trainer, config.optimizer.name
    if trainer.strategy != "fsdp":
        if trainer.cpu_offload:
            yield "trainer.cpu_offload=true belongs to trainer.strategy=fsdp; set that, or false"
        return
    if config.finetune.method == "qlora":
        yield (
            "finetune=qlora: weights in 4 bits cannot be spread over devices, and fit one; set "
            "trainer=ddp for a copy on every device, or finetune=lora"
        )
    if name in BITSANDBYTES_OPTIMIZERS:
        yield (
            f"optimizer.name={name}: its moments in blocks cannot be spread over devices; set "
            "optimizer=adamw, or trainer=ddp"
        )
    if trainer.precision == "16-mixed":
        yield (
            "trainer.precision=16-mixed: the scale of its gradients is not shared by devices that "
            "hold shares of the weights; set trainer.precision=bf16-mixed"
        )
    if trainer.precision == "64-true":
        yield (
            "trainer.precision=64-true: shares of weights are held in 32 or 16 bits (Lightning "
            "2.6); set trainer=ddp, or trainer.precision=32-true"
        )
