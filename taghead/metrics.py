"""Top-1 and MCA (mean class accuracy), as fractions, from the scores of clips.

Legend: n clips, K classes. NumPy only: whoever reads results needs no torch.
"""

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


def _right(scores: Float[ndarray, "n K"], labels: Int[ndarray, " n"]) -> Bool[ndarray, " n"]:
    if len(labels) == 0 or len(scores) != len(labels):
        raise InputError(
            f"one label for each of the clips, and at least one clip, but got {len(labels)} for {len(scores)}."
        )
    return (scores.argmax(axis=1) == labels) & ~np.isnan(scores).any(axis=1)
