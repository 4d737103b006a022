"""Power and sample size for the interaction of group and phase."""

from __future__ import annotations

from dataclasses import dataclass

from scipy import stats

_MOST = 10_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class InteractionDesign:
    """A design with groups and repeated measures, and how its interaction will be tested."""

    n_groups: int = 2
    n_phases: int = 2
    rho: float
    """Correlation between the phases, below 1."""
    alpha: float = 0.05

    @property
    def df(self) -> int:
        """Degrees of freedom of the interaction."""
        return (self.n_groups - 1) * (self.n_phases - 1)

    def df_error(self, n: int) -> int:
        """Degrees of freedom of its error term with ``n`` participants in all groups together."""
        return (n - self.n_groups) * (self.n_phases - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleSize:
    """The participants that a wanted power asks for, and the power that these give."""

    n: int
    """In all groups together, equally many in each."""
    power: float


def interaction_noncentrality(f: float, n: int, design: InteractionDesign) -> float:
    """Return the noncentrality of the interaction's F, ``f^2 n m / (1 - rho)``.

    This is G*Power's convention (Faul et al. 2007, "ANOVA: Repeated measures, within-between
    interaction", effect size "as in G*Power 3.0"; sphericity holds), in which ``f`` is measured
    against the spread of one phase: Cohen's .10, .25 and .40 belong here.

    Args:
        f: Cohen's f.
        n: Participants in all groups together.
        design: Groups, phases and their correlation.
    """
    return f**2 * n * design.n_phases / (1 - design.rho)


def interaction_power(f: float, n: int, design: InteractionDesign) -> float:
    """Return the power of the interaction's F test, by :func:`interaction_noncentrality`."""
    return power_of_noncentrality(interaction_noncentrality(f, n, design), n, design)


def power_of_noncentrality(noncentrality: float, n: int, design: InteractionDesign) -> float:
    """Return the probability that F, with this noncentrality, is significant at ``alpha``."""
    df, df_error = design.df, design.df_error(n)
    critical = stats.f.isf(design.alpha, df, df_error)
    return float(stats.ncf.sf(critical, df, df_error, noncentrality))


def interaction_sample_size(f: float, power: float, design: InteractionDesign) -> SampleSize | None:
    """Return the smallest sample, equally many in each group, that has at least this power.

    ``None`` where ten million participants would not do.

    >>> interaction_sample_size(0.25, 0.80, InteractionDesign(rho=0.5)).n
    34

    Args:
        f: Cohen's f, as for :func:`interaction_noncentrality`; above 0.
        power: Between ``alpha`` and 1.
        design: Groups, phases and their correlation.
    """
    groups = design.n_groups

    def enough(size: int) -> bool:
        return interaction_power(f, size * groups, design) >= power

    high = 2
    while not enough(high):
        high *= 2
        if high * groups > _MOST:
            return None
    low = max(1, high // 2)  # never enough, unless two a group are
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    n = high * groups
    return SampleSize(n=n, power=interaction_power(f, n, design))
