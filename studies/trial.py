"""One trial in the store: claimed, run or completed, finished, whatever becomes of it; and how that is told.

`Work` is called by a worker process of Ray or in the driver's own, and is all that either has to know.
"""

import errno
import os
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any, Literal, Protocol

from studies import deadline
from studies.store import Claim, LostClaimError, Store
from taghead.config import Config
from taghead.errors import InputError
from taghead.files import write_text
from taghead.record import (
    DataFacts,
    Keep,
    MachineFacts,
    Record,
    Status,
    code_commit,
    keepable,
    read_record,
    write_record,
)

Row = Mapping[str, Any]  # what an epoch reports: epoch, epochs, loss, ...
Ending = Literal["complete", "pruned", "diverged", "failed", "refused", "interrupted", "lost", "taken", "full"]
FINAL: frozenset[Ending] = frozenset(("complete", "pruned", "diverged", "failed"))
OUT_OF_MEMORY = "out of memory"  # what the message of such an outcome holds
_NO_MEMORY = "can't allocate memory"  # torch, on the CPU
_DEVICE_ERROR = "AcceleratorError"  # torch's class
_NO_DEVICE = ("not compiled with CUDA", "CUDA error", "No CUDA GPUs")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_NOT_OURS = (errno.EACCES, errno.EPERM)  # in the results folder: its modes were changed


class PrunedError(Exception):
    """The feed stops this trial before its end; raised where an epoch is told."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One experiment to be run, and what to call it.

    Attributes:
        trial_id: Its name in the store.
        config: The experiment but for the seed.
        seed: The seed.
        keep: What is to be kept of it; of what is given, what its head can give.
        data: The fingerprint of its clips.
        synthetic: Whether those were generated.
        label: For people: study, row, data set, seed of one of the cells that it belongs to.
        pruned_counts: Whether it may be stopped early, or may have been: so in a search with a pruner, never in a grid.
    """

    trial_id: str
    config: Config
    seed: int
    keep: frozenset[Keep]
    data: str
    synthetic: bool
    label: str
    pruned_counts: bool = False

    def __post_init__(self) -> None:
        """A file that never comes to be would have the trial run again at every launch."""
        object.__setattr__(self, "keep", keepable(self.config, self.keep))


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        ending: ``complete``, ``pruned``, ``diverged`` and ``failed`` are recorded and final. Not final, and tried again
            at a later launch: ``refused`` (the user's input), ``interrupted`` (out of memory, unreadable disk),
            ``lost`` (its process died), ``full`` (nothing can be written any more). ``taken``: another process has it.
        message: One line for people, or empty.
        metrics: The scores, where it is complete.
    """

    ending: Ending
    message: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def out_of_memory(self) -> bool:
        """Whether it ended for want of memory, of the host or of a GPU, which others may free."""
        return self.ending in ("lost", "interrupted") and OUT_OF_MEMORY in self.message

    @property
    def of_the_device(self) -> bool:
        """Whether it ended by an error of the GPU, after which that may fail whatever this process asks of it."""
        known = any(text in self.message for text in (_DEVICE_ERROR, *_NO_DEVICE))
        return self.ending == "interrupted" and known and not self.out_of_memory


class Machine(Protocol):
    """Where a trial runs; see `taghead.machine.Machine`."""

    @property
    def device(self) -> str:
        """The device."""

    @property
    def threads(self) -> int:
        """The number of threads."""


class RunFunction(Protocol):
    """Trains, or resumes, in a folder and writes the record there last; see `taghead.run.run`."""

    def __call__(
        self,
        config: Config,
        *,
        seed: int,
        machine: Any,
        folder: Path,
        keep: Iterable[Keep],
        on_epoch: Callable[[Row], None],
        attempt: int,
        expect: str | None = None,
    ) -> Record:
        """Runs one trial; refuses, before it trains, where that would be another than the expected id names."""


class CompleteFunction(Protocol):
    """Adds kept files to a finished trial by one evaluation; see `taghead.run.complete`."""

    def __call__(self, folder: Path, *, machine: Any, keep: Iterable[Keep]) -> None:
        """Completes one trial."""


def run(config: Config, **options: Any) -> Record:
    """`taghead.run.run`, which is loaded where it is called: a driver needs no torch."""
    from taghead.run import run

    return run(config, **options)


def complete(folder: Path, **options: Any) -> None:
    """`taghead.run.complete`, likewise."""
    from taghead.run import complete

    complete(folder, **options)


@dataclass(frozen=True, kw_only=True)
class Work:
    """Does one trial after another; a value that travels to other processes.

    Attributes:
        root: The results folder.
        machines: Where a trial runs, by data set.
        run: `run`, or another function of the shape of `taghead.run.run`.
        complete: `complete`, likewise.
        timeout: Seconds that one attempt at a trial may take before its process ends itself; whoever takes the trial
            over then records it as failed. None: as many as it likes.
    """

    root: Path
    machines: Mapping[str, Any]
    run: RunFunction
    complete: CompleteFunction
    timeout: float | None = None

    def __call__(self, trial: Trial, on_epoch: Callable[[Row], None]) -> Outcome:
        """Does one trial.

        Args:
            trial: Which one.
            on_epoch: Is told of every epoch.

        Returns:
            What became of it; only what stops the process itself is raised.
        """
        store, claim = Store(self.root), None
        if _is_gone(self.root):
            return _gone(self.root)
        try:
            claim = store.claim(trial.trial_id)
            if claim is None:
                return Outcome("taken")
            with claim.alive():
                return self._claimed(store, claim, trial, lambda row: on_epoch(_plain(row)))
        except LostClaimError:
            return Outcome("taken")
        except Exception as error:
            if isinstance(error, InputError) and claim and not (claim.folder / "checkpoint.pt").exists():
                claim.drop()  # nothing was begun
            return not_final(error, self.root)
        finally:
            if claim is not None:
                claim.release()

    def _claimed(self, store: Store, claim: Claim, trial: Trial, on_epoch: Callable[[Row], None]) -> Outcome:
        if claim.is_done():  # its process died between the record and the move
            for name in ("checkpoint.pt", deadline.NOTE):
                (claim.folder / name).unlink(missing_ok=True)
            outcome = _finish(claim)
            return self(trial, on_epoch) if outcome.ending in FINAL else outcome  # does it hold all that is asked for?
        if (claim.folder / "record.json").exists():
            claim.clear()
        need = store.need(trial.trial_id, trial.keep, pruned_counts=trial.pruned_counts)
        if over := deadline.passed(claim.folder):
            return self._out_of_time(claim, trial, *over)
        if need in ("train", "again"):
            self._train(claim, trial, on_epoch)
            return _finish(claim)
        if need == "evaluate":
            with deadline.limit(claim.folder, self.timeout):
                place = self.machines[trial.config.data.dataset]
                self.complete(store.trials / trial.trial_id, machine=place, keep=sorted(trial.keep))
        claim.drop()
        return _told(store.read(trial.trial_id))

    def _train(self, claim: Claim, trial: Trial, on_epoch: Callable[[Row], None]) -> None:
        keep = sorted(trial.keep | claim.store.kept(trial.trial_id))
        machine = self.machines[trial.config.data.dataset]
        run = partial(self.run, trial.config, seed=trial.seed, machine=machine, folder=claim.folder, keep=keep)
        try:
            with deadline.limit(claim.folder, self.timeout):
                record = run(on_epoch=on_epoch, attempt=claim.attempt, expect=trial.trial_id)
            if record.trial_id != trial.trial_id:  # changed between the check and the reading
                claim.clear()
                raise InputError("the clips or the weights have changed since the study was planned; launch it again.")
        except PrunedError:
            self._record(claim, trial, "pruned")
        except (InputError, MemoryError, OSError):
            raise
        except Exception as error:
            if _is_the_machines(error):
                raise
            write_text(claim.folder / "traceback.txt", traceback.format_exc())
            self._record(claim, trial, "failed", error=_line(error))

    def _out_of_time(self, claim: Claim, trial: Trial, error: str, frames: str) -> Outcome:
        """Tells of the process before, which ended itself."""
        write_text(claim.folder / "traceback.txt", frames)
        self._record(claim, trial, "failed", error=error)
        (claim.folder / deadline.NOTE).unlink()
        return _finish(claim)

    def _record(self, claim: Claim, trial: Trial, status: Status, *, error: str | None = None) -> None:
        """Records an end without scores; such a trial is not gone on with, so that it needs no checkpoint."""
        write_record(_scoreless(trial, claim, self.machines[trial.config.data.dataset], status, error), claim.folder)
        (claim.folder / "checkpoint.pt").unlink(missing_ok=True)


def _finish(claim: Claim) -> Outcome:
    record = read_record(claim.folder)
    if claim.finish():
        return _told(record)
    said = f"{record.status}: {record.error}" if record.error else record.status
    return Outcome("interrupted", f"run again for what is kept, it ended as {said}; what was complete stays")


def _told(record: Record | None) -> Outcome:
    if record is None:  # cannot be: it was just finished, and only `retry` removes one
        return Outcome("lost", "its record has been removed")
    return Outcome(record.status, record.error or "", dict(record.metrics))


def _scoreless(trial: Trial, claim: Claim, machine: Machine, status: Status, error: str | None) -> Record:
    return Record(
        trial_id=trial.trial_id,
        seed=trial.seed,
        status=status,
        error=error,
        config=trial.config,
        data=DataFacts(
            dataset=trial.config.data.dataset,
            fingerprint=trial.data,
            synthetic=trial.synthetic,
            num_classes=0,
            num_train=0,
            num_val=0,
            num_test=0,
        ),
        epoch=_epochs_done(claim.folder),
        machine=MachineFacts(
            device=machine.device, threads=machine.threads, python=python_version(), torch=version("torch")
        ),
        commit=code_commit(),
        attempt=claim.attempt,
    )


def _epochs_done(folder: Path) -> int:
    try:
        return len((folder / "history.csv").read_text(encoding="utf-8").splitlines()) - 1
    except FileNotFoundError:
        return 0


def _plain(row: Row) -> Row:
    """A row of Python's own numbers, whatever numpy or torch scalars it was made of."""
    return {name: value.item() if hasattr(value, "item") else value for name, value in row.items()}


def not_final(error: Exception, root: Path) -> Outcome:
    """What an error makes of a trial that is left to a later launch.

    Args:
        error: What was raised.
        root: The results folder; only where nothing can be written there any more the study ends.
    """
    if _is_gone(root):
        return _gone(root)
    if isinstance(error, InputError):
        return Outcome("refused", str(error))
    if cause := _cannot_write(error, root):
        return Outcome("full", cause)
    line = _line(error)
    return Outcome("interrupted", f"{OUT_OF_MEMORY}: {line}" if _is_out_of_memory(error) else line)


def _is_gone(root: Path) -> bool:
    try:
        return not root.is_dir()
    except OSError:  # out of reach, perhaps not for long
        return False


def _gone(root: Path) -> Outcome:
    return Outcome(
        "full",
        f"{root}: the results folder was moved or removed while the study ran; "
        "launch it again with --results where the folder is now.",
    )


def _cannot_write(error: Exception, root: Path) -> str | None:
    """Why nothing more can be written to the results folder, where an error tells that."""
    where = "the results folder"
    if isinstance(error, OSError):
        within = str(root) in str(error.filename)
        if error.errno in _NO_ROOM or (error.errno in _NOT_OURS and within):
            return f"{error.filename or where}: {error.strerror}"
    full = os.strerror(errno.ENOSPC)
    return f"{where}: {full}" if full in str(error) else None  # safetensors has an error of its own


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "OutOfMemoryError" in _kinds(error) or _NO_MEMORY in str(error)


def _is_the_machines(error: Exception) -> bool:
    """Out of memory or of room, a device that is gone or never was, or Ray's own trouble while an epoch is told."""
    known = _is_out_of_memory(error) or _DEVICE_ERROR in _kinds(error) or type(error).__module__.startswith("ray.")
    return known or any(text in str(error) for text in (*_NO_DEVICE, os.strerror(errno.ENOSPC)))


def _kinds(error: Exception) -> set[str]:
    """The names of an error's classes, since this file loads no torch."""
    return {kind.__name__ for kind in type(error).__mro__}


def _line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
