"""The same annotation on many machines: Ray Data hands parts of the input to workers."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recap import errors
from recap.data.utterances import state_file
from recap.errors import ConfigError, RecapError
from recap.predict.job import (
    STAGES,
    AnnotationJob,
    AnnotationListener,
    AnnotationReport,
    Prepared,
    Shard,
    annotate_file,
)
from recap.predict.options import RayConfig
from recap.predict.output import AnnotationFile
from recap.runs.detector import Detector
from recap.system.processes import switch_telemetry_off

SHARDS_PER_WORKER = 4
"""So that workers end at about the same time though parts differ."""


class _Worker:
    """Holds the models, and annotates one part after the other as a process on its own would."""

    def __init__(self, job: AnnotationJob, known: Prepared) -> None:
        self._job = job
        self._known = known
        self._detector = Detector.from_pretrained(**job.detector)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        done = []
        for shard, count in zip(batch["shard"].tolist(), batch["count"].tolist(), strict=True):
            shard_of = Shard(index=shard, count=count)
            part = dataclasses.replace(self._job, output=self._job.rows, shard=shard_of)
            report = annotate_file(part, detector=self._detector, known=self._known)
            done.append(dataclasses.asdict(report))
        return {"report": [json.dumps(report, default=str) for report in done]}


def annotate_over_ray(
    job: AnnotationJob, ray_config: RayConfig, listener: AnnotationListener | None = None
) -> AnnotationReport:
    """Annotate a file with workers under Ray; the output is that of a single process.

    Workers write parts beside the output and go on from what is there of them, so a stopped run is
    taken up; at the end the parts are joined and removed. All machines have to see the same files
    under the same paths.
    """
    if find_spec("ray") is None:
        raise ConfigError(
            "engine=ray needs Ray: pip install 'recap-counseling[ray]'; or leave engine out"
        )
    job, parts = _with_whole_paths(job), list[Path]()

    def fill(
        known: Prepared, file: AnnotationFile, listener: AnnotationListener
    ) -> tuple[int, Mapping[str, int]]:
        n_windows = -(-known.checked.utterances // known.window)
        count = min(ray_config.shards or SHARDS_PER_WORKER * ray_config.workers, n_windows)
        shards = [Shard(index=index, count=count) for index in range(count)]
        listener.began(0, known.checked.utterances)
        done = _run(job, known, ray_config, shards, listener)
        parts.extend(shard.output(job.rows) for shard in shards)
        file.join(parts)
        outcomes = sum((Counter(part["outcomes"]) for part in done), Counter[str]())
        return sum(part["found"] for part in done), dict(outcomes)

    report = annotate_file(job, listener, fill=fill)
    for part in parts:
        part.unlink()
        state_file(part).unlink()
    return report


def _run(
    job: AnnotationJob,
    known: Prepared,
    config: RayConfig,
    shards: list[Shard],
    listener: AnnotationListener,
) -> list[dict[str, Any]]:
    """Have the workers annotate all parts; return the report of each."""
    switch_telemetry_off()
    import ray
    import ray.data

    # The context is Ray's own, of this process; a bar of ours is shown already.
    started = not ray.is_initialized()
    if started:
        here: dict[str, Any] = {"num_cpus": max(2, config.workers)} if not config.address else {}
        ray.init(address=config.address, logging_level="ERROR", log_to_driver=False, **here)
    ray.data.DataContext.get_current().enable_progress_bars = False
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        items = [{"shard": shard.index, "count": shard.count} for shard in shards]
        data = ray.data.from_items(items, override_num_blocks=len(items))
        annotated = data.map_batches(
            _Worker,
            fn_constructor_args=(job, known),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(config.workers, len(shards))),
            num_gpus=config.gpus,
        )
        done = []
        for row in annotated.iter_rows():
            done.append(json.loads(row["report"]))
            listener.advanced(done[-1]["utterances"])
        return done
    except ray.exceptions.RayError as error:
        raise _cause(error) from error
    finally:
        if started:
            ray.shutdown()


def _cause(error: Exception) -> RecapError:
    """Return what a worker raised, which Ray hands on as the text of a traceback."""
    raised = re.search(r"^recap\.errors\.(\w+): (.*)", str(error), re.MULTILINE)
    kind = getattr(errors, raised[1], None) if raised else None
    if raised and isinstance(kind, type) and issubclass(kind, RecapError):
        return kind(raised[2])
    return RecapError(f"a worker under Ray failed ({type(error).__name__})")


def _with_whole_paths(job: AnnotationJob) -> AnnotationJob:
    """Return the job with paths that mean the same in every working directory."""
    detector = dict(job.detector)
    for name in (*STAGES, "base"):
        folder = detector.get(name)
        # A base may also be the id of a model on the hub.
        if folder is not None and (name != "base" or Path(folder).is_dir()):
            detector[name] = str(Path(folder).resolve())
    return dataclasses.replace(
        job,
        data=dataclasses.replace(job.data, path=str(job.input.resolve())),
        detector=detector,
        output=job.output.resolve(),
    )
