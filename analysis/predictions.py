"""What a trial predicted: which clips it got right, and a hash by which equal predictions are known."""

from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy import ndarray

from analysis.cells import read_arrays


def digest(folder: Path) -> str:
    """A hash of ids and logits.

    Args:
        folder: The trial's.

    Raises:
        InputError: The file is damaged.
    """
    parts = read_arrays(folder / "predictions.npz", ("ids", "logits"))
    return sha256(b"".join(str((part.dtype, part.shape)).encode() + part.tobytes() for part in parts)).hexdigest()


def correct(folder: Path) -> tuple[ndarray, ndarray]:
    """The clips' ids in order, and whether each was told right; a clip that does not decode was not.

    Args:
        folder: The trial's.

    Raises:
        InputError: The file is damaged.
    """
    ids, labels, logits = read_arrays(folder / "predictions.npz", ("ids", "labels", "logits"))
    order = np.argsort(ids)
    right = (logits.argmax(axis=1) == labels) & ~np.isnan(logits).any(axis=1)
    return ids[order], right[order]
