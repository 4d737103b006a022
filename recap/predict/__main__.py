"""The annotation command: dialogues in, a label for every client turn out, in any number."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from recap.cli.command import Command, ended_by_sigterm, run_command

if TYPE_CHECKING:
    from recap.predict.job import AnnotationJob
    from recap.predict.options import PredictConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Annotate what ``argv`` describes; return 0 (done), 2 (user's fault) or 1 (anything else)."""
    return run_command(Command(name="predict", job=_predict), argv)


def _predict(config: PredictConfig) -> None:
    from recap.predict.job import AnnotationConsole, annotate_file
    from recap.predict.ray_parts import annotate_over_ray

    job = _job(config)
    with ended_by_sigterm(), AnnotationConsole() as listener:
        if config.engine == "ray":
            annotate_over_ray(job, config.ray, listener)
        else:
            annotate_file(job, listener)


def _job(config: PredictConfig) -> AnnotationJob:
    from recap.errors import ConfigError
    from recap.predict.job import AnnotationJob, parse_shard

    data, decoding = config.data, config.decoding
    path = config.input or data.path
    stages = (config.model, config.binary, config.fine_grained)
    needed = {
        "the file to annotate with input=FILE": path,
        "the file to write with output=FILE.jsonl, FILE.csv or FILE.xlsx": config.output,
        "the model with model=FOLDER (or binary=FOLDER fine_grained=FOLDER)": any(stages) or None,
    }
    missing = [what for what, given in needed.items() if given is None]
    if path is None or config.output is None or missing:
        raise ConfigError(f"name {' and '.join(missing)}")
    if config.shard is not None and config.engine == "ray":
        raise ConfigError("engine=ray makes parts itself; leave shard out")
    return AnnotationJob(
        data=replace(data, path=path),
        detector={
            "model": config.model,
            "binary": config.binary,
            "fine_grained": config.fine_grained,
            "threshold": decoding.threshold if config.threshold is None else config.threshold,
            "with_rationale": config.rationale,
            "language": config.language,
            "decoding": decoding.name,
            "max_prompt_tokens": config.prompt.max_tokens,
            "max_new_tokens": decoding.max_new_tokens,
            "batch_size": decoding.batch_size,
            "merge_adjacent": data.merge_adjacent,
            "base": config.base,
            "device": config.device,
            "dtype": config.dtype,
        },
        output=Path(config.output),
        shard=None if config.shard is None else parse_shard(config.shard),
        resume=config.resume == "auto",
        replace_text=config.privacy.replace_text,
    )


if __name__ == "__main__":
    sys.exit(main())
