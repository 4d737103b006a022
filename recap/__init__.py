"""recap: detect and explain client resistance in counselling dialogues, and trust what is measured.

Names are loaded when they are used, so that ``import recap`` itself loads neither torch nor
Lightning. What commands print goes to the logger ``recap``, and what bears on results is a
:class:`recap.RecapWarning`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recap.cli.compose import load_config as load_config
    from recap.data.loaders import DataModule as DataModule
    from recap.errors import RecapWarning as RecapWarning
    from recap.folds.tuned import cross_validate as cross_validate
    from recap.folds.tuned import fit_fold as fit_fold
    from recap.metrics.category_scores import CategoryScores as CategoryScores
    from recap.models.module import ResponseModule as ResponseModule
    from recap.runs.detector import Detector as Detector
    from recap.tasks.library import register_task as register_task

__version__ = "0.1.0"

_HOMES = {
    "load_config": "recap.cli.compose",
    "cross_validate": "recap.folds.tuned",
    "fit_fold": "recap.folds.tuned",
    "register_task": "recap.tasks.library",
    "Detector": "recap.runs.detector",
    "DataModule": "recap.data.loaders",
    "ResponseModule": "recap.models.module",
    "CategoryScores": "recap.metrics.category_scores",
    "RecapWarning": "recap.errors",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'recap' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
