"""Processes: which of several this one is, how they are started and ended, and what they run on.

Under torchrun or srun every process runs the whole command, and they meet inside each training.
Without them, each fold on several devices is trained by processes of its own, which this module
starts and watches: nothing of one fold, or of one job of a sweep, is left for the next.

Signals that ask a command to end are noted while a step is finished. SIGTERM ends it. SIGUSR1, by
which SLURM gives notice before the time is up (``#SBATCH --signal=USR1@120``), ends it too, and has
the job queued again.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import socket
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from recap.config import TrainerConfig
from recap.errors import ConfigError, RecapError
from recap.system.files import disk_error
from recap.system.privacy import safe_traceback

_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_END = 20.0
"""How long the others may take to end once one process has failed."""

_ENDED_BY_SIGTERM = 143
_SPAWNED = "RECAP_SPAWNED"


def device_count(trainer: TrainerConfig) -> int:
    """Return the number of devices of this machine that a run uses."""
    if trainer.devices != "auto":
        return trainer.devices
    if trainer.accelerator == "cpu":
        return 1
    import torch

    return max(1, torch.cuda.device_count())


_CONTAINER_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def host_memory() -> int:
    """Return the bytes of memory of this machine, or of the container that this is."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in _CONTAINER_LIMITS:
        # "max" where there is no limit.
        with suppress(OSError, ValueError):
            found.append(int(file.read_text()))
    return min(found)


def device_type(trainer: TrainerConfig) -> Literal["cpu", "cuda"]:
    """Return what a run computes on; ``cuda`` where a GPU is asked for, though there be none."""
    if trainer.accelerator != "auto":
        return "cpu" if trainer.accelerator == "cpu" else "cuda"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def world_size(trainer: TrainerConfig) -> int:
    """Return the number of devices over all machines.

    Raises:
        ConfigError: When torchrun or srun started another number of processes, or nobody starts
            those of the other machines.
    """
    size, started = device_count(trainer) * trainer.nodes, _started_by_launcher()
    if started is not None and started != size:
        raise ConfigError(
            f"the launcher started {started} processes, but trainer.devices={trainer.devices} "
            f"and trainer.nodes={trainer.nodes} make {size}; let the numbers agree"
        )
    if started is None and trainer.nodes > 1:
        raise ConfigError(
            f"trainer.nodes={trainer.nodes}: nobody starts the processes of the other machines; "
            "run the command under torchrun or srun on each of them (docs/scaling.md)"
        )
    return size


def is_launched() -> bool:
    """Return whether this is one of several processes, whoever has started them."""
    return _started_by_launcher() is not None


def is_spawned() -> bool:
    """Return whether :func:`run_processes` has started this process."""
    return _SPAWNED in os.environ


def is_first_process() -> bool:
    """Return whether this process is the one that prints and writes what all share."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0


def run_processes(
    function: Callable[..., None],
    *arguments: Any,
    n: int,
    what: str,
    on_message: Callable[[str, tuple[Any, ...]], None],
) -> None:
    """Run a function in ``n`` new processes that find each other, until all of them are done.

    Each is called as ``function(send, *arguments)``. When one fails, all are ended.

    Args:
        function: At the top level of a module.
        arguments: Can be pickled.
        n: Processes, and devices.
        what: Named in errors, such as ``"fold0"``.
        on_message: Called here with what a process gave to ``send(name, *values)``.

    Raises:
        RecapError: What a process raised, or that it died, naming its rank.
        SIGTERMException: When SIGTERM ended this process and with it the others.
    """
    from lightning.pytorch.utilities.exceptions import SIGTERMException
    from torch.multiprocessing.spawn import (
        ProcessExitedException,
        ProcessRaisedException,
        start_processes,
    )

    messages = get_context("spawn").SimpleQueue()
    errors: dict[str, list[Any]] = {"error": [], "crash": []}

    def read_messages() -> None:
        while not messages.empty():
            name, values = messages.get()
            if name in errors:
                errors[name].append(values[0])
            else:
                on_message(name, values)

    with _environment(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(_free_port())):
        processes: Any = start_processes(  # type: ignore[no-untyped-call]
            _run_one, args=(n, messages, function, arguments), nprocs=n, join=False
        )
    failure: Exception | None = None
    try:
        with _passing_on_sigterm(processes.pids):
            while not processes.join(timeout=_SECONDS_BETWEEN_LOOKS, grace_period=_SECONDS_TO_END):
                read_messages()
    except (ProcessExitedException, ProcessRaisedException) as ended:
        failure = ended
    finally:
        for process in processes.processes:
            process.kill()
    read_messages()
    for error in errors["error"]:
        raise error
    if failure is not None:
        codes = [process.exitcode for process in processes.processes]
        by_signal = {_ENDED_BY_SIGTERM, *(-number for number in SIGNALS)}
        if by_signal.issuperset(code for code in codes if code):
            raise SIGTERMException
        cause = next(iter(errors["crash"]), str(failure))
        raise RecapError(f"{what}: {_failure_message(codes, cause)}")


def _failure_message(codes: list[int | None], failure: str) -> str:
    """Return what became of the process that failed first, as far as is known."""
    for rank, code in enumerate(codes):
        # One that is gone takes the others along: their complaints tell nothing.
        if code is not None and code < 0 and code != -signal.SIGTERM:
            return (
                f"rank {rank} of {len(codes)} was killed by {signal.Signals(-code).name}, and the "
                "others were ended; the same command goes on from the last checkpoint (a process "
                "that is killed without a word has often met the end of the machine's memory)"
            )
    return f"one of {len(codes)} ranks failed, and the others were ended: {failure}"


def _run_one(
    rank: int, n: int, messages: Any, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    """Run the function in one of ``n`` processes, and send its errors home."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    os.environ |= {"WORLD_SIZE": str(n), _SPAWNED: str(n)}
    import torch
    import torch.distributed as dist

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // n))

    def send(name: str, *values: Any) -> None:
        if rank == 0:
            messages.put((name, values))

    try:
        function(send, *arguments)
        if dist.is_initialized():
            # Threads of gloo that outlive the group abort the process (2.13).
            dist.destroy_process_group()
    except SystemExit as stop:
        if type(stop).__name__ == "SIGTERMException":
            raise SystemExit(_ENDED_BY_SIGTERM) from None
        raise
    except Exception as error:  # noqa: BLE001 - torch would write what it says to a temporary file
        known = error if isinstance(error, RecapError) else disk_error(error)
        if known is None:
            messages.put(("crash", (f"\n{safe_traceback(error)}",)))
            raise SystemExit(1) from None
        messages.put(("error", (known,)))
        raise SystemExit(known.exit_code) from None


def _started_by_launcher() -> int | None:
    """Return how many processes torchrun, srun or this module started, ``None`` without them."""
    if is_spawned():
        return int(os.environ[_SPAWNED])
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    # srun of one task, and a shell on a node, are no launch of several processes.
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    tasks = int(os.environ.get("SLURM_NTASKS", "1"))
    return tasks if tasks > 1 and not interactive else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set variables for the processes that are started meanwhile."""
    before: Mapping[str, str | None] = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _passing_on_sigterm(pids: Callable[[], list[int]]) -> Iterator[None]:
    """Have SIGTERM and SIGUSR1 end the processes with a checkpoint, and this one after them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def pass_on(number: int, frame: Any) -> None:
        note(number)
        for pid in pids():
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:  # it has ended by itself
                continue

    with answering_signals(pass_on):
        yield


SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""From the weaker to the stronger."""

_noted: set[int] = set()


@contextmanager
def answering_signals(answer: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have a function called for SIGTERM and SIGUSR1 while the block runs, in the main thread."""
    before = {number: signal.signal(number, answer) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def note(number: int, frame: FrameType | None = None) -> None:
    """Take a note of a signal; made to be a signal's handler."""
    _noted.add(number)


def strongest_noted() -> int:
    """Return 0 when no signal was noted, 1 for SIGTERM, 2 for SIGUSR1."""
    return max((SIGNALS.index(number) + 1 for number in SIGNALS if number in _noted), default=0)


def forget() -> None:
    """Forget all signals."""
    _noted.clear()


def listen() -> None:
    """Have the signals noted and nothing else done, from now on."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, note)


def requeue() -> bool | None:
    """Have SLURM queue this job again if SIGUSR1 was noted; return whether it did.

    ``None`` without that signal, or outside of SLURM.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or signal.SIGUSR1 not in _noted:
        return None
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None:
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


_PACKAGES = (
    "recap-counseling",
    "torch",
    "lightning",
    "transformers",
    "peft",
    "torchmetrics",
    "hydra-core",
    "wandb",
    "openai",
    "anthropic",
    "scikit-learn",
)


_NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_ERROR_REPORTING": "false",
}


def switch_telemetry_off() -> None:
    """Tell what is loaded from now on, and processes started from now on, to report to nobody.

    What the environment says already stays. Hugging Face's libraries look when they are imported.
    """
    for name, value in _NO_TELEMETRY.items():
        os.environ.setdefault(name, value)


def environment() -> dict[str, Any]:
    """Return what else a run depended on: package versions, Python, platform, the code's commit."""
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "versions": {"python": platform.python_version(), **versions},
        "platform": f"{platform.system()} {platform.machine()}",
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """Return the commit of recap's own checkout; ``None`` when it is installed without one."""
    if not (Path(__file__).parents[2] / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the advice, advertisements and progress of Lightning and transformers in the block.

    They are about choices that recap makes. Afterwards all is as it was: a user's own trainer and
    models speak as they did. As a decorator: while the function runs.
    """
    # Loaded in the block, it would set its loggers back (2.6.6).
    import lightning.pytorch  # noqa: F401
    from transformers.utils import logging as hugging_face

    shown = hugging_face.is_progress_bar_enabled()
    hugging_face.disable_progress_bar()  # type: ignore[no-untyped-call]
    names = ("lightning", "lightning.pytorch", "lightning.fabric", "transformers")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
            # peft asks transformers under the name of an earlier release (0.21, 5.23).
            warnings.filterwarnings("ignore", message=r".*is_gradient_checkpointing.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if shown:
            hugging_face.enable_progress_bar()  # type: ignore[no-untyped-call]
