"""What ``conf/prompt.yaml`` adds to the configuration of a run, and how its folder is named."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from recap.config import PrivacyConfig, RunConfig, hashed_name, result_options
from recap.errors import ConfigError
from recap.records import Prices

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ClientConfig:
    """Who answers, how it is asked, and what that may cost."""

    name: Literal["local", "openai", "anthropic"]
    """``local``: a backbone on this machine; the others: a server that speaks that API."""
    model: str | None = None
    """The model's name at the server."""
    base_url: str | None = None
    """Where the server is; ``None``: the address of the company whose API it is."""
    temperature: float | None = Field(default=0.0, ge=0)
    """Sent with every request; ``None`` leaves it out, for models that refuse it."""
    top_p: float | None = Field(default=1.0, gt=0, le=1)
    """Likewise."""
    top_logprobs: int | None = Field(default=20, ge=1)
    """How many tokens an OpenAI-style server is asked to tell the log-probabilities of, at each
    place of an answer, for label probabilities; ``None``: it is not asked."""
    limit_parameter: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What an OpenAI-style server calls the longest answer (decoding.max_new_tokens)."""
    thinking: bool = False
    """Whether the model may think first; ``False`` asks an OpenAI-style server at ``base_url`` to
    have its chat template leave that out."""
    max_in_flight: int = Field(default=4, ge=1)
    """Most requests under way at a time."""
    timeout_seconds: float = Field(default=60.0, gt=0)
    """How long a server may be silent before the request is given up."""
    longest_answer_seconds: float | None = Field(default=None, gt=0)
    """How long an answer may take in all, however it drips; ``None``: twice the former."""
    longest_answer_bytes: int = Field(default=4_194_304, ge=1024)
    """How large an answer may be."""
    attempts: int = Field(default=6, ge=1)
    """How often a request is tried in all."""
    backoff_seconds: float = Field(default=1.0, ge=0)
    """Wait after the first failure; it doubles with each further one."""
    longest_wait_seconds: float = Field(default=60.0, ge=0)
    """Longest such wait; a server that asks for a longer one ends the command."""
    price_per_million_input: float | None = Field(default=None, ge=0)
    """Price of a million tokens of prompts, in any currency; ``None``: cost unknown."""
    price_per_million_output: float | None = Field(default=None, ge=0)
    """Price of a million tokens of answers."""
    max_cost: float | None = Field(default=None, gt=0)
    """What the answers of the run may cost in all; needs both prices."""
    max_total_tokens: int | None = Field(default=None, ge=1)
    """How many tokens, of prompts and answers, the run may use in all."""

    @property
    def longest_seconds(self) -> float:
        """Seconds that an answer may take in all."""
        given = self.longest_answer_seconds
        return 2 * self.timeout_seconds if given is None else given


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PromptedConfig:
    """A run whose answers come from a model as it is."""

    training: RunConfig
    """Task, data, prompt, protocol, as ``recap.train`` would have them."""
    client: ClientConfig
    """Who answers."""
    shots: Literal[0, 1] = 0
    """Solved examples of each category shown in every prompt."""
    shot_categories: Literal["labels", "leaves"] = "labels"
    """Whether each label of the task gets its example, or each of the finest categories below."""
    dry_run: bool = False
    """Whether only the number of calls and their cost is estimated."""

    @property
    def run(self) -> str:
        """Name of the run."""
        return self.training.run

    @property
    def privacy(self) -> PrivacyConfig:
        """Where prompts may go."""
        return self.training.privacy

    @property
    def remote(self) -> bool:
        """Whether the answers come from a server."""
        return self.client.name != "local"

    @property
    def prices(self) -> Prices | None:
        """What tokens cost, ``None`` where that is not known."""
        given, said = self.client.price_per_million_input, self.client.price_per_million_output
        return None if given is None or said is None else Prices(input=given, output=said)


def refuse_impossible(config: PromptedConfig) -> None:
    """Check that choices go together.

    Raises:
        ConfigError: With one line for every fault, each naming what to set instead.
    """
    issues = [*_untrained(config), *(_remote(config) if config.remote else _local(config))]
    if issues:
        raise ConfigError("\n".join(issues))


def _untrained(config: PromptedConfig) -> Iterator[str]:
    if config.training.finetune.method != "none":
        yield (
            f"finetune={config.training.finetune.method}: recap.prompt trains nothing; leave "
            "finetune out, or train with recap.train"
        )
    if config.training.cv.fold == "final":
        yield "cv.fold=final: recap.prompt trains no model; set cv.fold=all"


def _remote(config: PromptedConfig) -> Iterator[str]:
    client, run = config.client, config.training
    if not client.model:
        yield f"client={client.name} needs a model: set client.model=NAME, as the server calls it"
    if run.backbone.path is not None or run.backbone.hub_id is not None:
        yield f"backbone: belongs to client=local; leave it out for client={client.name}"
    if run.prompt.max_tokens is not None:
        yield (
            "prompt.max_tokens counts in a tokenizer that a server keeps to itself; set "
            "prompt.max_tokens=null, and prompt.history=intervention for shorter prompts"
        )
    if run.decoding.name != "free":
        yield (
            f"decoding={run.decoding.name} reads what a model thinks of answers that it does not "
            "give, which servers do not tell; set decoding=free, or client=local"
        )
    priced = client.price_per_million_input, client.price_per_million_output
    if client.max_cost is not None and None in priced:
        yield (
            "client.max_cost needs client.price_per_million_input and "
            "client.price_per_million_output; set both, or limit tokens with "
            "client.max_total_tokens"
        )


def _local(config: PromptedConfig) -> Iterator[str]:
    trainer = config.training.trainer
    if trainer.devices != 1 or trainer.nodes != 1 or trainer.strategy != "auto":
        yield (
            "client=local uses one device; set trainer.devices=1 trainer.strategy=auto, or serve a "
            "model over several with vLLM and set client=openai client.base_url=http://127.0.0.1:"
            "PORT/v1"
        )


def prompted_keys(config: PromptedConfig) -> dict[str, Any]:
    """Return what config.yaml holds of a prompted run beside the keys of a training."""
    plain: dict[str, Any] = TypeAdapter(PromptedConfig).dump_python(config, mode="json")
    return {key: plain[key] for key in ("client", "shots", "shot_categories")}


def load_prompted(
    overrides: Sequence[str] = (), *, config_dir: str | Path | None = None
) -> PromptedConfig:
    """Return the configuration of ``recap.prompt``; arguments and errors as :func:`load_config`."""
    from recap.cli.compose import compose_run

    values, choices = compose_run("prompt", overrides, config_dir)
    config = _prompted_config(values, config_dir)
    if values["run"]:
        return config
    name = _name_of(config, choices, config_dir)
    return replace(config, training=replace(config.training, run=name))


def _prompted_config(values: Mapping[str, Any], config_dir: str | Path | None) -> PromptedConfig:
    from recap.cli.compose import command_config

    # A client without a model is refused later, with the option to set.
    backbone = {**values["backbone"], "name": values["backbone"]["name"] or "unnamed"}
    return command_config(PromptedConfig, {**values, "backbone": backbone})


def _name_of(
    config: PromptedConfig, choices: Mapping[str, str | None], config_dir: str | Path | None
) -> str:
    """Return the folder name of a prompted run: its model takes the place of the fine-tuning."""
    from recap.cli.compose import compose, named_options, usual_options, written

    groups = ["data", "task", "client", *([] if config.remote else ["backbone"])]
    base = [f"{group}={choices[group]}" for group in groups]
    base += [f"rationale={str(config.training.rationale).lower()}", f"shots={config.shots}"]
    base += ["backbone.path=."] if choices["backbone"] in ("local", "hub") else []
    values, _ = compose("prompt", base, config_dir)
    usual = _prompted_config(values, config_dir)
    given = named_options(config.training, prompted_keys(config))
    default = result_options(usual.training, prompted_keys(usual))
    parts = [written(choices, group) for group in ("data", "task")]
    if config.remote:
        # The model stands in the name, and need not be in the hash.
        default |= {key: given[key] for key in ("client.model", "backbone.name")}
        parts += [config.client.name, re.sub(r"[^\w.-]", "_", str(config.client.model))]
    else:
        default = usual_options(choices, given, default)
        parts.append(written(choices, "backbone", config.training.backbone))
    parts.append("oneshot" if config.shots else "zeroshot")
    parts += [] if config.training.rationale else ["labelonly"]
    return hashed_name(parts, given, default)
