"""What a trial predicted: which clips it got right, and a hash by which equal predictions are known.

Each file is read once while a report is made. What is remembered of it is a bit a clip, and of many trials on the same
clips their ids once.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Shaped
from numpy import ndarray

from analysis.cells import read_arrays
from taghead.errors import InputError

NAME = "predictions.npz"


def digest(folder: Path) -> str:
    """A hash of ids and logits, the same for the same arrays, bit for bit.

    Args:
        folder: The trial's.

    Raises:
        InputError: The file is damaged or not there.
    """
    return _known(folder).digest


def correct(folder: Path) -> tuple[Shaped[ndarray, " n"], Bool[ndarray, " n"]]:
    """The clips' ids in order, and whether each was told right; a clip that does not decode was not.

    Args:
        folder: The trial's.

    Returns:
        Both as long as each other. Trials on the same clips share one array of ids, which cannot be written to.

    Raises:
        InputError: The file is damaged or not there.
    """
    known = _known(folder)
    return known.ids, np.unpackbits(known.right, count=len(known.ids)).astype(bool)


@dataclass(frozen=True, slots=True)
class _Predictions:
    digest: str
    ids: ndarray
    right: ndarray  # eight clips a byte


def _known(folder: Path) -> _Predictions:
    path = os.path.join(folder, NAME)
    try:
        stamp = os.stat(path)
    except OSError:
        return _read(path)  # which says what is wrong
    return _remembered(path, stamp.st_ino, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=100_000)
def _remembered(path: str, *stamp: int) -> _Predictions:
    """A report asks several times of each trial; the file's stamp tells whether it has changed."""
    return _read(path)


def _read(name: str) -> _Predictions:
    path = Path(name)
    ids, labels, logits = read_arrays(path, ("ids", "labels", "logits"))
    if logits.ndim != 2 or not logits.shape[1] or logits.dtype.kind != "f" or ids.ndim != 1 or labels.ndim != 1:
        raise InputError(f"{path.name} cannot be read (not an id, a label and a row of logits for each clip)")
    content = b"".join(str((part.dtype, part.shape)).encode() + part.tobytes() for part in (ids, logits))
    in_order, places = _sorted(ids.dtype.str, ids.tobytes())
    right = (logits.argmax(axis=1) == labels) & ~np.isnan(logits).any(axis=1)
    return _Predictions(sha256(content).hexdigest(), in_order, np.packbits(right[places]))


@lru_cache(maxsize=1_000)
def _sorted(dtype: str, content: bytes) -> tuple[Shaped[ndarray, " n"], Int[ndarray, " n"]]:
    """Ids in order, and the place of each in the file."""
    ids = np.frombuffer(content, np.dtype(dtype))
    places = np.argsort(ids, kind="stable")
    in_order = ids[places]
    in_order.flags.writeable = False
    return in_order, places
