"""Whether scores vary at all, or only by the rounding of their last digits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROUNDING = 1e-13
"""Share of the largest score that rounding may amount to; doubles have 16 digits."""


def vanishes(spread: float, *scores: NDArray[np.float64]) -> bool:
    """Whether a standard deviation or a range is nothing but rounding of the scores it is made of.

    The differences of 0.3 and 0.2, and of 0.2 and 0.1, differ by 3e-17; a mean divided by that is
    no effect.
    """
    return spread <= _ROUNDING * max(float(np.abs(part).max()) for part in scores)
