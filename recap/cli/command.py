"""What the commands share: Hydra's command line, exit codes, one message instead of a traceback.

The console script is here too: ``recap <verb> …`` is ``python -m recap.<verb> …``.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from recap.cli.arguments import understood
from recap.errors import ConfigError, RecapError, did_you_mean
from recap.system import processes
from recap.system.files import disk_error
from recap.system.plain_text import printable
from recap.system.privacy import FULL, safe_traceback, without_secrets


class NamedConfig(Protocol):
    """A configuration that knows which run it is about."""

    @property
    def run(self) -> str:
        """Name of the run."""


Config = TypeVar("Config", bound=NamedConfig)


@dataclass(frozen=True, kw_only=True)
class Command(Generic[Config]):
    """What ``python -m recap.<name>`` does."""

    name: str
    """``conf/<name>.yaml`` is its configuration."""
    job: Callable[[Config], object]
    """Runs one configuration."""
    own_load: Callable[..., Config] | None = None
    """Called with overrides and ``config_dir=``, returns the configuration that they describe;
    ``None``: as :func:`recap.cli.compose.load_verb` does."""
    after_sweep: Callable[[list[Config]], object] = lambda configs: None
    """Runs once after all jobs of a sweep."""

    def load(self, overrides: Sequence[str], config_dir: str | None) -> Config:
        """Return the configuration that overrides describe."""
        from recap.cli.compose import load_verb

        load = self.own_load or partial(load_verb, self.name)
        config: Config = load(overrides, config_dir=config_dir)
        return config


def load_function(path: str) -> Callable[..., Any]:
    """Return the function ``module:function``; its module is imported when it is asked for."""
    module, _, name = path.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def run_command(command: Command[Config], argv: Sequence[str] | None) -> int:
    """Compose the configuration that ``argv`` describes, run the job on it, return the exit code.

    ``-m`` runs one job for every combination, then ``after_sweep`` once on all configurations; a
    sweep is composed as a whole before its first job starts. ``--cfg`` and the like are Hydra's.
    """
    # Read when torch is loaded. libgomp's threads spin while they wait for each other: where
    # another process has a core, a step on two took 1 to 4 s instead of 0.14 s. This costs 5 %.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    processes.switch_telemetry_off()
    given = sys.argv[1:] if argv is None else argv
    return with_exit_code(lambda: _run(command, given))


def _run(command: Command[Config], given: Sequence[str]) -> int:
    from hydra._internal.utils import get_args_parser

    from recap.cli.compose import all_folders

    flags, overrides = understood(command.name, given, all_folders)
    if "--version" in flags:
        return print_version()
    asked = {"-h", "--help", "--options"}.intersection(flags)
    parser = get_args_parser()
    # Hydra itself cannot read flags that stand between overrides.
    ordered = [*(flag for flag in flags if flag not in asked), *overrides]
    try:
        with redirect_stderr(io.StringIO()):
            arguments = parser.parse_args(ordered)
    except SystemExit:
        raise ConfigError(f"{' '.join(flags)}: there is no such flag; see --help") from None
    if asked:
        from recap.cli.compose import compose
        from recap.cli.help import help_page, options_page

        values, _ = compose(command.name, overrides, arguments.config_dir)
        folders = all_folders(arguments.config_dir)
        told = options_page(command.name, values) if "--options" in asked else ""
        print(printable(told or help_page(command.name, folders)))
        return 0
    return _dispatch(arguments, ordered, command)


def print_version() -> int:
    """Print recap's version; return 0."""
    print(f"recap {import_module('recap').__version__}")
    return 0


def with_exit_code(action: Callable[[], int]) -> int:
    """Return what ``action`` returns, or print its error's message and return its exit code.

    An error that is none of ours has its traceback printed, without words that may quote data.
    """
    try:
        return action()
    except Exception as error:  # noqa: BLE001 - the interpreter would print what it says
        return report_error(error)
    except (KeyboardInterrupt, SystemExit) as stop:
        code = _signal_code(stop)
        if code is None:
            raise
        print(exit_message(), file=sys.stderr)
        return code
    finally:
        processes.forget()


def exit_message() -> str:
    """Return what is printed when a signal ended the command."""
    requeued = processes.requeue() if processes.is_first_process() else None
    if requeued is None:
        return "stopped; the same command goes on where it was"
    if requeued:
        return "stopped; the job is queued again, and goes on where it was"
    return "stopped; scontrol could not queue the job again: submit it, and it goes on where it was"


def report_error(error: Exception, run: str = "") -> int:
    """Print what is to be said of an error, and return its exit code."""
    if isinstance(error, BrokenPipeError):  # nobody reads on, as in recap train --help | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    if not isinstance(error, RecapError):
        error = disk_error(error) or error
    if isinstance(error, RecapError):
        print(printable(without_secrets(f"error: {run}{error}")), file=sys.stderr)
        return error.exit_code
    print(without_secrets(safe_traceback(error)), file=sys.stderr)
    return 1


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM and SIGUSR1 end the block as Ctrl-C does.

    Inside of it a training finishes its step and saves a checkpoint first.
    """

    def end(number: int, frame: FrameType | None) -> NoReturn:
        processes.note(number)
        raise SIGTERMException

    with processes.answering_signals(end):
        yield


class SIGTERMException(SystemExit):
    """SIGTERM or SIGUSR1 came, outside of a training."""


def _signal_code(stop: BaseException) -> int | None:
    """Return the exit code of a stop that a signal asked for, ``None`` for any other.

    Lightning answers Ctrl-C with ``SystemExit(1)`` and SIGTERM with ``SystemExit(0)`` (2.6.6).
    """
    if isinstance(stop, KeyboardInterrupt) or isinstance(stop.__context__, KeyboardInterrupt):
        return 130
    return 143 if type(stop).__name__ == "SIGTERMException" else None


def _dispatch(arguments: argparse.Namespace, argv: list[str], command: Command[Config]) -> int:
    if arguments.multirun:
        return _sweep(arguments, argv, command)
    if arguments.hydra_help or arguments.cfg or arguments.info:
        if arguments.cfg:
            command.load(arguments.overrides, arguments.config_dir)
        elif arguments.overrides:
            from recap.cli.compose import compose

            # Hydra sets its logging up for help too, and that can name what to run.
            compose(command.name, arguments.overrides, arguments.config_dir)
        return _hand_over(arguments, argv, command)
    return _done(command, command.load(arguments.overrides, arguments.config_dir))


def _done(command: Command[Config], config: Config, run: str = "") -> int:
    """Run the job, and return its exit code; its error's message is printed."""
    with _words_kept(config):
        try:
            command.job(config)
        except Exception as error:  # noqa: BLE001 - Hydra, too, would print what it says
            return report_error(error, run)
    return 0


@contextmanager
def _words_kept(config: object) -> Iterator[None]:
    """Have errors keep their words in the block, if ``privacy.log_text`` allows it."""
    asking = config if hasattr(config, "privacy") else getattr(config, "training", config)
    before = os.environ.get(FULL)
    if getattr(getattr(asking, "privacy", None), "log_text", False):
        os.environ[FULL] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(FULL, None)
        else:
            os.environ[FULL] = before


def _sweep(arguments: argparse.Namespace, argv: list[str], command: Command[Config]) -> int:
    from recap.cli.compose import expand_sweep

    jobs = expand_sweep(
        arguments.overrides, config_name=command.name, config_dir=arguments.config_dir
    )
    configs = [command.load(overrides, arguments.config_dir) for overrides in jobs]
    codes: list[int] = []

    def guarded(config: Config) -> None:
        # The other jobs of a sweep go on; a signal ends them all.
        codes.append(_done(command, config, f"{config.run}: "))

    code = _hand_over(arguments, argv, replace(command, job=guarded))
    command.after_sweep(configs)
    return max([code, *codes])


def _hand_over(arguments: argparse.Namespace, argv: list[str], command: Command[Config]) -> int:
    """Let Hydra itself run: it prints help and configurations, and launches the jobs of a sweep."""
    import hydra

    from recap.cli.compose import HYDRA_VERSION_BASE, register_search_path
    from recap.system.files import conf_dir

    register_search_path(arguments.config_dir)

    def launched(_: object) -> None:
        from hydra.core.hydra_config import HydraConfig

        hydra = HydraConfig.get()
        # All overrides, paths among them, in a file that nobody reads again.
        (Path(hydra.sweep.dir) / "multirun.yaml").unlink(missing_ok=True)
        overrides = list(hydra.overrides.task)
        command.job(command.load(overrides, arguments.config_dir))

    main = hydra.main(
        version_base=HYDRA_VERSION_BASE, config_path=str(conf_dir()), config_name=command.name
    )(launched)
    before = sys.argv
    sys.argv = [before[0], *argv]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            main()
    except SystemExit as stop:
        if _signal_code(stop) is not None:
            raise
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


VERBS = {
    "train": "fine-tune under cross-validation, decode, score, aggregate",
    "prompt": "zero-shot and few-shot baselines, of a model on this machine or on a server",
    "evaluate": "score a saved model, a predictions file, a baseline or a cascade",
    "predict": "annotate dialogues with trained models: streamed, resumed, shared out",
    "corpus": "what a corpus holds: counts, faults, words, codebook; annotators, their agreement",
    "insights": "prevalence per session, alliance, counselor studies, feedback cards, supervision",
    "report": "tables, figures and tests over run folders, and one page that shows them all",
    "audit": "what a trained model has kept of its training texts: canaries, verbatim repetition",
    "plan": "memory per device, steps, operations, hours and disk of a run, before it begins",
}
"""The commands and what each does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb = arguments.pop(0) if arguments else "--help"
    if verb in ("-h", "--help", "help"):
        print("usage: recap <verb> [options]; recap <verb> --help explains a verb\n")
        print("\n".join(f"  {name:<10}{does}" for name, does in VERBS.items()))
        return 0
    if verb in ("-V", "--version", "version"):
        return print_version()
    if verb not in VERBS:
        known = f"{did_you_mean(verb, VERBS)}; known: {', '.join(VERBS)}"
        late = next((word for word in arguments if word in VERBS), None)
        right = f"; the verb comes first: recap {late} {verb}" if late else known
        print(f"error: no verb {verb!r}{right}", file=sys.stderr)
        return 2
    code: int = import_module(f"recap.{verb}.__main__").main(arguments)
    return code
