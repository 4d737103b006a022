"""What the commands share: Hydra's command line, exit codes, one message instead of a traceback."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from recap.config import RunConfig
from recap.errors import RecapError

Job = Callable[[RunConfig], object]


def run_command(
    job: Job, *, after_sweep: Callable[[list[RunConfig]], object], argv: Sequence[str] | None
) -> int:
    """Compose the configuration that ``argv`` describes, run ``job`` on it, return the exit code.

    ``-m`` runs one job for every combination, then ``after_sweep`` once on all configurations; a
    sweep is composed as a whole before its first job starts. ``--help``, ``--cfg`` and the like are
    Hydra's.
    """
    from hydra._internal.utils import get_args_parser

    # Read when torch is loaded. libgomp's threads spin while they wait for each other: where
    # another process has a core, a step on two took 1 to 4 s instead of 0.14 s. This costs 5 %.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = get_args_parser().parse_intermixed_args(given)
    # Hydra itself cannot read flags that stand between overrides.
    ordered = [a for a in given if a not in arguments.overrides] + arguments.overrides
    return with_exit_code(lambda: _dispatch(arguments, ordered, job, after_sweep))


def with_exit_code(action: Callable[[], int]) -> int:
    """Return what ``action`` returns, or print its error's message and return its exit code."""
    try:
        return action()
    except RecapError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, SystemExit) as stop:
        code = _signal_code(stop)
        if code is None:
            raise
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return code


def _signal_code(stop: BaseException) -> int | None:
    """Return the exit code of a stop that a signal asked for, ``None`` for any other.

    Lightning answers Ctrl-C with ``SystemExit(1)`` and SIGTERM with ``SystemExit(0)`` (2.6.6).
    """
    if isinstance(stop, KeyboardInterrupt) or isinstance(stop.__context__, KeyboardInterrupt):
        return 130
    return 143 if type(stop).__name__ == "SIGTERMException" else None


def _dispatch(
    arguments: argparse.Namespace,
    argv: list[str],
    job: Job,
    after_sweep: Callable[[list[RunConfig]], object],
) -> int:
    from recap.compose import load_config

    if arguments.multirun:
        return _sweep(arguments, argv, job, after_sweep)
    if arguments.help or arguments.hydra_help or arguments.cfg or arguments.info:
        if arguments.cfg:
            load_config(arguments.overrides, config_dir=arguments.config_dir)
        return _hand_over(arguments, argv, job)
    job(load_config(arguments.overrides, config_dir=arguments.config_dir))
    return 0


def _sweep(
    arguments: argparse.Namespace,
    argv: list[str],
    job: Job,
    after_sweep: Callable[[list[RunConfig]], object],
) -> int:
    from recap.compose import expand_sweep, load_config

    jobs = expand_sweep(arguments.overrides)
    configs = [load_config(overrides, config_dir=arguments.config_dir) for overrides in jobs]
    codes: list[int] = []

    def guarded(config: RunConfig) -> None:
        try:
            job(config)
        except RecapError as error:
            # The other jobs of a sweep go on; a signal ends them all.
            print(f"error: {config.run}: {error}", file=sys.stderr)
            codes.append(error.exit_code)

    code = _hand_over(arguments, argv, guarded)
    after_sweep(configs)
    return max([code, *codes])


def _hand_over(arguments: argparse.Namespace, argv: list[str], job: Job) -> int:
    """Let Hydra itself run: it prints help and configurations, and launches the jobs of a sweep."""
    import hydra

    from recap.compose import HYDRA_VERSION_BASE, load_config, register_search_path
    from recap.conf_files import conf_dir

    register_search_path(arguments.config_dir)

    def launched(_: object) -> None:
        from hydra.core.hydra_config import HydraConfig

        job(load_config(list(HydraConfig.get().overrides.task), config_dir=arguments.config_dir))

    main = hydra.main(
        version_base=HYDRA_VERSION_BASE, config_path=str(conf_dir()), config_name="train"
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
