"""The systems that are compared: which worker runs them, in which environment."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
WORKERS = Path(__file__).resolve().parent.parent / "workers"
ROW_TOKENS = 4096
"""Tokens of a row where a peer packs: its own setting, not searched."""


@dataclass(frozen=True, kw_only=True)
class System:
    """One way of training.

    Attributes:
        name: As rows and ratios name it.
        worker: The script that runs its optimiser steps.
        peer: Its environment under ``.peers/``; ``None`` for recap's own.
        spec: What the worker has to know beside the work.
        searches: Whether its micro-batch is searched. A peer's packs come one a micro-batch.
        claims: Whether a ratio against it means anything; see ``note``.
        note: Printed with its figures.
    """

    name: str
    worker: str
    peer: str | None = None
    spec: dict[str, str] = field(default_factory=dict)
    searches: bool = True
    claims: bool = True
    note: str = ""

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        if self.peer is None:
            return Path(sys.executable)
        return ROOT / ".peers" / self.peer / "bin" / "python"

    @property
    def missing(self) -> str | None:
        """Why it cannot be run here, or ``None``."""
        if self.python.exists():
            return None
        return f".peers/{self.peer} is not there; run make bench-peers"

    def environment(self, threads: int) -> dict[str, str]:
        """Return the environment variables of its process."""
        paths = [WORKERS.parent] if self.peer else [WORKERS.parent, ROOT]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "DISABLE_VERSION_CHECK": "1",  # LLaMA-Factory's own; its ranges exclude tested versions
        }


_DENSE = "packs with a dense mask on a CPU: no evidence about packing where FlashAttention runs"

OWN = (
    System(name="trunk", worker="recap_steps.py", spec={"batching": "trunk"}),
    System(name="packed", worker="recap_steps.py", spec={"batching": "packed"}),
    System(name="padded", worker="recap_steps.py", spec={"batching": "padded"}),
)
PEERS = (
    System(name="hf_trainer", worker="hf_trainer_steps.py"),
    System(name="trl", worker="trl_steps.py", peer="trl", spec={"variant": "plain"}),
    System(
        name="trl_packed",
        worker="trl_steps.py",
        peer="trl",
        spec={"variant": "packed"},
        searches=False,
        claims=False,
        note=_DENSE,
    ),
    System(
        name="trl_padding_free",
        worker="trl_steps.py",
        peer="trl",
        spec={"variant": "padding_free"},
        claims=False,
        note=_DENSE,
    ),
    System(
        name="llamafactory",
        worker="llamafactory_steps.py",
        peer="llamafactory",
        spec={"variant": "plain"},
    ),
    System(
        name="llamafactory_packed",
        worker="llamafactory_steps.py",
        peer="llamafactory",
        spec={"variant": "packed"},
        searches=False,
        claims=False,
        note=_DENSE,
    ),
)
