"""Which choices a prompted run cannot have, found before anything is read or sent."""

from __future__ import annotations

from collections.abc import Iterator

from recap.errors import ConfigError
from recap.prompting.endpoint import check_destination
from recap.prompting.options import PromptedConfig


def check_prompted(config: PromptedConfig) -> None:
    """Refuse what cannot work, and text to another machine where that is not allowed.

    A dry run sends nothing, and needs no permission.

    Raises:
        ConfigError: With one line for every fault, each naming what to set instead.
    """
    faults = [*_untrained(config), *(_remote(config) if config.remote else _local(config))]
    if faults:
        raise ConfigError("\n".join(faults))
    if config.remote:
        allowed = config.privacy.allow_external or config.dry_run
        check_destination(config.client, allow_external=allowed)


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
            f"decoding={run.decoding.name} reads a model's probabilities, which servers do not "
            "give; set decoding=free, or client=local"
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
