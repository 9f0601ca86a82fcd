"""Top-1 and MCA (mean class accuracy), as fractions, from the scores of clips.

Legend: n clips, K classes. NumPy only: whoever reads results needs no torch.
"""

import math
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from taghead.errors import InputError


def top1(scores: Float[ndarray, "n K"], labels: Int[ndarray, " n"]) -> float:
    """The share of clips whose label has the highest score.

    Of equal scores the first class counts; a clip with a score that is no number is wrong.

    Args:
        scores: Logits or probabilities.
        labels: 0 to K - 1.

    Raises:
        InputError: No clips, or not one label for each.
    """
    return float(_right(scores, labels).mean())


def mca(scores: Float[ndarray, "n K"], labels: Int[ndarray, " n"]) -> float:
    """Mean class accuracy: the mean, over the classes that occur in ``labels``, of each one's accuracy.

    Args:
        scores: Logits or probabilities.
        labels: 0 to K - 1.

    Raises:
        InputError: As `top1`.
    """
    right = _right(scores, labels)
    counts = np.bincount(labels)
    hits = np.bincount(labels, weights=right)
    return float((hits[counts > 0] / counts[counts > 0]).mean())


def mca_interval(
    scores: Float[ndarray, "n K"], labels: Int[ndarray, " n"], *, confidence: float = 0.95
) -> tuple[float, float]:
    """An interval of one run's `mca`, as `wilson`'s: what the finite number of test clips leaves open.

    If every class were equally hard, at accuracy p, the mean over K classes of n_k clips each would vary by
    p (1 - p) / m with m = K^2 / sum(1 / n_k): as the share of m clips. Wilson's interval for these m is taken. Classes
    that are not equally hard vary less than that, so it is rather too wide; with equally many clips a class m = n.

    Args:
        scores: Logits or probabilities.
        labels: 0 to K - 1.
        confidence: The interval's coverage.

    Raises:
        InputError: As `top1`.
    """
    counts = np.bincount(labels)
    present = counts[counts > 0]
    effective = float(len(present) ** 2 / (1 / present).sum())
    return wilson(mca(scores, labels) * effective, effective, confidence=confidence)


def wilson(correct: float, n: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of one run's accuracy, as a fraction: what the finite number of test clips leaves open.

    (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), z the normal quantile.

    Args:
        correct: Clips that were classified right.
        n: Clips in all; a fraction where they stand for another number of equal clips, as in `mca_interval`.
        confidence: The interval's coverage.

    Raises:
        ValueError: Not ``0 <= correct <= n`` with ``n > 0``.
    """
    if not 0 <= correct <= n or n <= 0:
        raise ValueError(f"0 <= correct <= n with n > 0 must hold, but got correct={correct}, n={n}.")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = correct / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)


def _right(scores: Float[ndarray, "n K"], labels: Int[ndarray, " n"]) -> Bool[ndarray, " n"]:
    if len(labels) == 0 or len(scores) != len(labels):
        raise InputError(
            f"one label for each of the clips, and at least one clip, but got {len(labels)} for {len(scores)}."
        )
    return (scores.argmax(axis=1) == labels) & ~np.isnan(scores).any(axis=1)
