"""How far a number can be trusted: spread over seeds, 95 % intervals, paired differences. The paper prints none."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scipy import special  # scipy.stats has the same quantiles, and takes a second to load

ROUNDING = 1e-9  # percentage points: a standard deviation below is that of rounding


@dataclass(frozen=True)
class Spread:
    """A mean over ``n`` runs, in the unit of the values.

    Attributes:
        mean: NaN where there are no runs.
        n: The number of runs.
        sd: The standard deviation with n - 1 in the denominator; None for fewer than two runs.
        low: The lower end of the 95 % t-interval of the mean; None for fewer than two runs.
        high: Its upper end.
    """

    mean: float
    n: int
    sd: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def varies(self) -> bool:
        """Whether there is a spread to judge by: few runs that happen to agree are no proof that all would."""
        return self.sd is not None and self.sd > ROUNDING


def spread(values: Iterable[float], *, confidence: float = 0.95) -> Spread:
    """Mean, standard deviation and the t-interval of the mean, mean +- t(n - 1) sd / sqrt(n).

    One run has no spread, and none is made up for it.

    Args:
        values: One number a run.
        confidence: The interval's coverage.
    """
    numbers = [float(value) for value in values]
    n = len(numbers)
    if not n:
        return Spread(math.nan, 0)
    mean = math.fsum(numbers) / n
    if n == 1:
        return Spread(mean, 1)
    sd = math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / (n - 1))
    half = float(special.stdtrit(n - 1, (1 + confidence) / 2)) * sd / math.sqrt(n)
    return Spread(mean, n, sd, mean - half, mean + half)


def one_more(known: Spread, *, confidence: float = 0.95) -> tuple[float, float] | None:
    """Where one more run falls with that probability: mean +- t(n - 1) sd sqrt(1 + 1 / n).

    A single printed run is to be held against this interval; that of the mean would reject a true one far too often.

    Args:
        known: The runs that there are.
        confidence: The interval's coverage.

    Returns:
        Its two ends; None for fewer than two runs, and for runs that do not vary.
    """
    if known.sd is None or not known.varies:
        return None
    half = float(special.stdtrit(known.n - 1, (1 + confidence) / 2)) * known.sd * math.sqrt(1 + 1 / known.n)
    return known.mean - half, known.mean + half


def paired_difference(ours: Mapping[int, float], base: Mapping[int, float], *, confidence: float = 0.95) -> Spread:
    """The mean difference ``ours - base`` over the seeds that both have, with its interval.

    Pairing takes out what a seed does to both rows alike (data order, augmentation, initial weights).

    Args:
        ours: Value by seed.
        base: Value by seed of the row to compare with.
        confidence: The interval's coverage.
    """
    common = sorted(ours.keys() & base.keys())
    return spread((ours[seed] - base[seed] for seed in common), confidence=confidence)


def paired_numbers(ours: Mapping[int, float], base: Mapping[int, float]) -> tuple[tuple[int, float], ...]:
    """The paired differences by seed, to know by them which tests are one.

    Args:
        ours: Value by seed.
        base: Value by seed of the row to compare with.
    """
    # Top-1 and MCA of balanced classes differ in their last bits
    return tuple((seed, round(ours[seed] - base[seed], 9)) for seed in sorted(ours.keys() & base.keys()))
