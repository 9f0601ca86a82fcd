"""Whether a difference is one: paired tests over seeds and over clips, Holm's correction, and what n seeds can show.

Two questions are kept apart. The paired t-test over seeds asks whether training again would show the difference. The
exact sign-flip test over clips asks whether these very models, as they were trained, differ on clips like these.
"""

import math
from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from jaxtyping import Int, Shaped
from numpy import ndarray
from scipy import special  # scipy.stats has the same functions, and takes a second to load
from scipy.optimize import brentq

from analysis.intervals import Spread

LEVEL = 0.05  # of every test
POWER = 0.8  # with which a difference is to be seen
MOST_SEEDS = 10_000
ERRORS = np.linspace(-9, 9, 4001)  # of a mean, in standard errors
CHANCES = np.exp(-(ERRORS**2) / 2) / np.exp(-(ERRORS**2) / 2).sum()


def paired_t(difference: Spread) -> float:
    """The two-sided p-value of the paired t-test over seeds, t = mean / (sd / sqrt(n)) with n - 1 degrees of freedom.

    Args:
        difference: Of the paired values, as from `analysis.intervals.paired_difference`.

    Returns:
        The p-value; NaN where it is not defined: fewer than two seeds, or differences that do not vary.
    """
    if difference.sd is None or not difference.varies:
        return math.nan
    t = difference.mean / (difference.sd / math.sqrt(difference.n))
    return float(2 * special.stdtr(difference.n - 1, -abs(t)))


def net_counts(
    ours: Mapping[int, tuple[ndarray, ndarray]], base: Mapping[int, tuple[ndarray, ndarray]]
) -> tuple[Shaped[ndarray, " m"], Int[ndarray, " m"]]:
    """In how many seeds more, or fewer, one row gets a clip right than another, over the seeds that both have.

    Args:
        ours: By seed, the clips' ids in order and whether each was right.
        base: Likewise, of the row to compare with.

    Returns:
        The ids of the clips for which this number is not 0, in order, and the number: positive for ours, negative for
        the base. Only clips that both have count.
    """
    changes = [_changes(ours[seed], base[seed]) for seed in sorted(ours.keys() & base.keys())]
    if not changes:
        return np.array([], str), np.array([], int)
    each = [ids for ids, _ in changes]
    if all(ids is each[0] for ids in each):
        known, net = each[0], np.sum([change for _, change in changes], axis=0)
    else:
        known, places = np.unique(np.concatenate(each), return_inverse=True)
        net = np.bincount(places, weights=np.concatenate([change for _, change in changes])).astype(int)
    return known[net != 0], net[net != 0]


def _changes(ours: tuple[ndarray, ndarray], base: tuple[ndarray, ndarray]) -> tuple[ndarray, ndarray]:
    """The clips that both have, and for which of the two each is: 1, -1 or 0."""
    if ours[0] is base[0]:  # as `analysis.predictions.correct` has it of trials on the same clips
        return ours[0], ours[1].astype(int) - base[1]
    ids, first, second = np.intersect1d(ours[0], base[0], return_indices=True)
    return ids, ours[1][first].astype(int) - base[1][second]


def sign_flip_test(net: Int[ndarray, " m"]) -> float:
    """The exact two-sided p-value of a sum of net counts: a permutation test that turns the sign of each clip.

    Of two rows that are alike a clip's net count is as likely for the one as for the other, whatever its size. So p is
    the share of the 2^m ways to sign the counts whose sum is as far from 0 as theirs, or farther. The sum is that of
    the rows' right answers, hence has the sign of their difference in Top-1; a clip that all seeds get right or wrong
    together counts as one clip. With one seed this is McNemar's exact test.

    A sum is 2 U - total with U = sum_k k B_k, B_k binomial over the clips of abs(count) k: a convolution of few terms.

    Args:
        net: As from `net_counts`.
    """
    total, found = int(np.abs(net).sum()), int(net.sum())
    tail = (total - abs(found)) // 2  # U of the smaller side
    chances = np.ones(1)
    for size, num_clips in enumerate(np.bincount(np.abs(net)).tolist()):
        if size and num_clips:
            term = np.zeros(size * num_clips + 1)
            term[::size] = _coin_flips(num_clips)
            chances = np.convolve(chances, term[: tail + 1])[: tail + 1]
    return min(1.0, 2 * float(chances.sum()))


def _coin_flips(n: int) -> ndarray:
    """The probabilities of 0 to n heads; by logarithms, since 2^n overflows."""
    heads = np.arange(n + 1)
    ways = special.gammaln(n + 1) - special.gammaln(heads + 1) - special.gammaln(n - heads + 1)
    return np.asarray(np.exp(ways - n * math.log(2)))


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


def holm_once(p_values: Sequence[float], contents: Sequence[Hashable]) -> tuple[list[float], int]:
    """Holm's correction where tests of the same numbers count once: of identical rows, of metrics that are equal.

    Args:
        p_values: Of all tests of one family; NaN where there was none.
        contents: What each test was made of; equal contents give equal p-values.

    Returns:
        Adjusted p-values in the same order, and the number of tests that were corrected for.
    """
    once: dict[Hashable, float] = {}
    for content, p in zip(contents, p_values, strict=True):
        if not math.isnan(p):
            once.setdefault(content, p)
    adjusted = dict(zip(once, holm(list(once.values())), strict=True))
    corrected = [p if math.isnan(p) else adjusted[one] for one, p in zip(contents, p_values, strict=True)]
    return corrected, len(once)


def power(difference: float, *, sd: float, n: int, level: float = LEVEL) -> float:
    """How often a paired t-test over n seeds sees a true difference.

    The probability that abs(t) is beyond the critical value, for a mean that is off by z standard errors, averaged over
    z. The library's non-central t gives NaN in places.

    Args:
        difference: The true mean difference.
        sd: The standard deviation of the paired differences, in the same unit.
        n: Seeds.
        level: Of the test.
    """
    critical = special.stdtrit(n - 1, 1 - level / 2)
    reached = (abs(difference) / sd * math.sqrt(n) + ERRORS) / critical
    return float(CHANCES @ special.chdtr(n - 1, (n - 1) * reached**2))


def detectable(*, sd: float, n: int, level: float = LEVEL) -> float:
    """The smallest true difference that a paired t-test over n seeds sees with probability `POWER`.

    Args:
        sd: The standard deviation of the paired differences.
        n: Seeds, two or more.
        level: Of the test.
    """
    most = 10 + 2 * float(special.stdtrit(n - 1, 1 - level / 2))
    return float(brentq(lambda times: power(times, sd=1, n=n, level=level) - POWER, 0, most)) * sd


def seeds_needed(difference: float, *, sd: float, level: float = LEVEL) -> int | None:
    """The fewest seeds with which a paired t-test sees a true difference with probability `POWER`.

    Args:
        difference: The true mean difference, not 0.
        sd: The standard deviation of the paired differences.
        level: Of the test.

    Returns:
        The number; None where it is more than `MOST_SEEDS`.
    """

    def seen(n: int) -> bool:
        return power(difference, sd=sd, n=n, level=level) >= POWER

    if not seen(MOST_SEEDS):
        return None
    return bisect_left(range(MOST_SEEDS + 1), True, lo=2, key=seen)
