"""Whether a difference is one: paired tests over seeds and over clips, Holm's correction, and what n seeds can show.

Two questions are kept apart. The paired t-test over seeds asks whether training again would show the difference. The
exact test over clips asks whether these very models, as they were trained, differ on clips like these.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence

import numpy as np
from numpy import ndarray
from scipy import special  # scipy.stats has the same functions, and takes a second to load
from scipy.optimize import brentq

from analysis.intervals import Spread

LEVEL = 0.05  # of every test
ROUNDING = 1e-9  # percentage points: a standard deviation below is that of rounding
POWER = 0.8  # with which a difference is to be seen
MOST_SEEDS = 10_000


def paired_t(difference: Spread) -> float:
    """The two-sided p-value of the paired t-test over seeds, t = mean / (sd / sqrt(n)) with n - 1 degrees of freedom.

    Args:
        difference: Of the paired values, as from `analysis.intervals.paired_difference`.

    Returns:
        The p-value; NaN where it is not defined: fewer than two seeds, or differences that do not vary.
    """
    if difference.sd is None or difference.sd < ROUNDING:
        return math.nan
    t = difference.mean / (difference.sd / math.sqrt(difference.n))
    return float(2 * special.stdtr(difference.n - 1, -abs(t)))


def clip_counts(
    ours: Mapping[int, tuple[ndarray, ndarray]], base: Mapping[int, tuple[ndarray, ndarray]]
) -> tuple[int, int]:
    """The clips that one row gets right more often than another over the seeds that both have, and the other way round.

    With one seed these are McNemar's two discordant counts. Each clip counts once, whatever the number of seeds, since
    the models of several seeds err on the same clips.

    Args:
        ours: By seed, the clips' ids in order and whether each was right.
        base: Likewise, of the row to compare with.

    Returns:
        How many clips are for ours, and how many for the base; only clips that both have count.
    """
    changes = [_changes(ours[seed], base[seed]) for seed in sorted(ours.keys() & base.keys())]
    if not changes:
        return 0, 0
    ids = [one for one, _ in changes]
    if all(one is ids[0] for one in ids):
        net = np.sum([change for _, change in changes], axis=0)
    else:
        places = np.unique(np.concatenate(ids), return_inverse=True)[1]
        net = np.bincount(places, weights=np.concatenate([change for _, change in changes]))
    return int((net > 0).sum()), int((net < 0).sum())


def _changes(ours: tuple[ndarray, ndarray], base: tuple[ndarray, ndarray]) -> tuple[ndarray, ndarray]:
    """The clips that both have, and for which of the two each is: 1, -1 or 0."""
    if ours[0] is base[0]:  # as `analysis.predictions.correct` has it of trials on the same clips
        return ours[0], ours[1].astype(int) - base[1]
    ids, first, second = np.intersect1d(ours[0], base[0], return_indices=True)
    return ids, ours[1][first].astype(int) - base[1][second]


def exact_sign_test(won: int, lost: int) -> float:
    """McNemar's test in its exact form: the two-sided binomial p-value of a split of discordant clips.

    Args:
        won: Clips for the one.
        lost: Clips for the other.
    """
    n = won + lost
    return min(1.0, 2 * float(special.bdtr(min(won, lost), n, 0.5))) if n else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction for the number of tests; NaN stays NaN and does not count.

    Args:
        p_values: Of all tests of one family.

    Returns:
        Adjusted p-values in the same order: below a level, they hold at that level for the whole family.
    """
    known = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    adjusted, largest = list(p_values), 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[index] = largest
    return adjusted


def power(difference: float, *, sd: float, n: int) -> float:
    """How often a paired t-test at `LEVEL` over n seeds sees a true difference (non-central t).

    Args:
        difference: The true mean difference.
        sd: The standard deviation of the paired differences, in the same unit.
        n: Seeds.
    """
    critical = special.stdtrit(n - 1, 1 - LEVEL / 2)
    shift = min(abs(difference) / sd * math.sqrt(n), 30.0)  # farther out nothing changes but the library's accuracy
    wrong_side = special.nctdtr(n - 1, shift, -critical) if shift < 5 else 0.0  # less than 1e-8
    return float(1 - special.nctdtr(n - 1, shift, critical) + wrong_side)


def detectable(*, sd: float, n: int) -> float:
    """The smallest true difference that a paired t-test over n seeds sees with probability `POWER`.

    Args:
        sd: The standard deviation of the paired differences.
        n: Seeds, two or more.
    """
    return float(brentq(lambda times: power(times, sd=1, n=n) - POWER, 0, 30)) * sd


def seeds_needed(difference: float, *, sd: float) -> int | None:
    """The fewest seeds with which a paired t-test sees a true difference with probability `POWER`.

    Args:
        difference: The true mean difference, not 0.
        sd: The standard deviation of the paired differences.

    Returns:
        The number; None where it is more than `MOST_SEEDS`.
    """

    def seen(n: int) -> bool:
        return power(difference, sd=sd, n=n) >= POWER

    if not seen(MOST_SEEDS):
        return None
    return bisect_left(range(MOST_SEEDS + 1), True, lo=2, key=seen)
