"""One trial in the store: claimed, run or completed, finished, whatever becomes of it; and how that is told.

`Work` is called by a worker process of Ray or in the driver's own, and is all that either has to know.
"""

import errno
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any, Literal, Protocol

from studies.store import Claim, LostClaimError, Store
from taghead.config import Config
from taghead.errors import InputError
from taghead.record import DataFacts, Keep, MachineFacts, Record, code_commit, write_record

Row = Mapping[str, Any]  # what an epoch reports: epoch, epochs, loss, ...
Ending = Literal["complete", "pruned", "diverged", "failed", "refused", "interrupted", "lost", "taken", "full"]
FINAL: frozenset[Ending] = frozenset(("complete", "pruned", "diverged", "failed"))
_NO_DEVICE = ("can't allocate memory", "not compiled with CUDA", "CUDA error", "No CUDA GPUs")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One experiment to be run, and what to call it.

    Attributes:
        trial_id: Its name in the store.
        config: The experiment but for the seed.
        seed: The seed.
        keep: What is to be kept of it.
        data: The fingerprint of its clips.
        synthetic: Whether those were generated.
        label: For people: study, row, data set, seed of one of the cells that it belongs to.
    """

    trial_id: str
    config: Config
    seed: int
    keep: frozenset[Keep]
    data: str
    synthetic: bool
    label: str


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


class Machine(Protocol):
    """Where a trial runs; see `taghead.run.Machine`."""

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


@dataclass(frozen=True, kw_only=True)
class Work:
    """Does one trial after another; a value that travels to other processes.

    Attributes:
        root: The results folder.
        machines: Where a trial runs, by data set.
        run: `taghead.run.run`, or another function of that shape.
        complete: `taghead.run.complete`, likewise.
    """

    root: Path
    machines: Mapping[str, Any]
    run: RunFunction
    complete: CompleteFunction

    def __call__(self, trial: Trial, on_epoch: Callable[[Row], None]) -> Outcome:
        """Does one trial.

        Args:
            trial: Which one.
            on_epoch: Is told of every epoch.

        Returns:
            What became of it; only what stops the process itself is raised.
        """
        store, claim = Store(self.root), None
        try:
            claim = store.claim(trial.trial_id)
            if claim is None:
                return Outcome("taken")
            with claim.alive():
                return self._claimed(store, claim, trial, on_epoch)
        except LostClaimError:
            return Outcome("taken")
        except Exception as error:
            if isinstance(error, InputError) and claim and not (claim.folder / "checkpoint.pt").exists():
                claim.drop()  # nothing was begun
            return _not_final(error)
        finally:
            if claim is not None:
                claim.release()

    def _claimed(self, store: Store, claim: Claim, trial: Trial, on_epoch: Callable[[Row], None]) -> Outcome:
        if claim.is_done():  # its process died between the record and the move
            (claim.folder / "checkpoint.pt").unlink(missing_ok=True)
            claim.finish()
            return self(trial, on_epoch)  # which sees whether it holds all that is asked for
        if (claim.folder / "record.json").exists():
            claim.clear()
        need = store.need(trial.trial_id, trial.keep)
        machine = self.machines[trial.config.data.dataset]
        if need in ("train", "again"):
            self._train(claim, trial, machine, on_epoch)
            claim.finish()
        else:
            if need == "evaluate":
                self.complete(store.trials / trial.trial_id, machine=machine, keep=sorted(trial.keep))
            claim.drop()
        return _told(store.read(trial.trial_id))

    def _train(self, claim: Claim, trial: Trial, machine: Machine, on_epoch: Callable[[Row], None]) -> None:
        keep = sorted(trial.keep | claim.store.kept(trial.trial_id))
        run = partial(self.run, trial.config, seed=trial.seed, machine=machine, folder=claim.folder, keep=keep)
        try:
            record = run(on_epoch=on_epoch, attempt=claim.attempt, expect=trial.trial_id)
            if record.trial_id != trial.trial_id:  # changed between the check and the reading
                claim.clear()
                raise InputError("the clips or the weights have changed since the study was planned; launch it again.")
        except (InputError, MemoryError, OSError):
            raise
        except Exception as error:
            if _is_the_machines(error):
                raise
            (claim.folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
            write_record(_failed(trial, machine, attempt=claim.attempt, error=error), claim.folder)


def _told(record: Record | None) -> Outcome:
    if record is None:  # cannot be: it was just finished, and only `retry` removes one
        return Outcome("lost", "its record has been removed")
    return Outcome(record.status, record.error or "", dict(record.metrics))


def _failed(trial: Trial, machine: Machine, *, attempt: int, error: Exception) -> Record:
    return Record(
        trial_id=trial.trial_id,
        seed=trial.seed,
        status="failed",
        error=_line(error),
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
        machine=MachineFacts(
            device=machine.device, threads=machine.threads, python=python_version(), torch=version("torch")
        ),
        commit=code_commit(),
        attempt=attempt,
    )


def _not_final(error: Exception) -> Outcome:
    if isinstance(error, InputError):
        return Outcome("refused", str(error))
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return Outcome("full", f"{error.filename or 'the results folder'}: {error.strerror}")
    return Outcome("interrupted", _line(error))


def _is_the_machines(error: Exception) -> bool:
    """Out of memory, or a device that is gone or never was: told by name, since this file loads no torch."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(kinds & {"OutOfMemoryError", "AcceleratorError"}) or any(text in str(error) for text in _NO_DEVICE)


def _line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
