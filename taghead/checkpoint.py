"""The state to resume from: everything that the next epoch depends on, written whole after each one.

What a random generator needs is not here: every epoch seeds its own (see `taghead.fit`), so that an epoch depends on
the seed and its number only, and a resumed run has the bits of an undisturbed one.
"""

import warnings
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch

from taghead.files import written_whole

_NO_MEMORY = "can't allocate memory"  # torch, on the CPU


@dataclass
class TrainState:
    """Where a training stands.

    Attributes:
        trial: The trial id it belongs to.
        threads: The number of threads it began with, which a resumed run must use for the same bits.
        history: One row an epoch that is done.
        model: The model's state after the last of them.
        optimizer: The optimizer's state likewise.
        best: The model's state at the epoch that validation likes best so far, where the rule asks for it.
        seconds: Spent training so far, over all attempts.
        unreadable: Clips found that do not decode, with the reason.
    """

    trial: str
    threads: int
    history: list[dict[str, Any]] = field(default_factory=list)
    model: dict[str, Any] | None = None
    optimizer: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    seconds: float = 0.0
    unreadable: dict[str, str] = field(default_factory=dict)

    def begin_anew(self) -> None:
        """Forgets the training, but neither the time it took nor the clips that it found."""
        self.history, self.model, self.optimizer, self.best = [], None, None, None


def save_state(state: TrainState, path: Path) -> None:
    """Writes the state whole: a process that dies while writing leaves the one before.

    Raises:
        OSError: The disk is full, or cannot be written to.
    """
    with written_whole(path) as beside:
        try:
            with beside.open("wb") as file:  # a path torch would open itself, and hide why it cannot write
                torch.save(vars(state), file)  # no `asdict`, which would copy all tensors on the device
        except RuntimeError as error:
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def load_state(path: Path) -> TrainState | None:
    """Reads the state of a trial, or None where there is none or it is damaged: then the training starts over.

    Args:
        path: The checkpoint file.

    Raises:
        OSError: The file is there and the disk does not give it: it may be good.
        MemoryError: There is no room for it, or a RuntimeError of torch that says so.
    """
    try:
        content = BytesIO(path.read_bytes())
    except FileNotFoundError:
        return None
    try:
        if ZipFile(content).testzip() is not None:  # torch itself does not look at the sums
            return None
        content.seek(0)
        with warnings.catch_warnings(action="ignore"):  # of what a damaged file might have been
            return TrainState(**torch.load(content, map_location="cpu", weights_only=True))
    except MemoryError:
        raise
    except Exception as error:  # there is no end to what a damaged file can raise, and all of it means the same
        if _NO_MEMORY in str(error):
            raise
        return None
