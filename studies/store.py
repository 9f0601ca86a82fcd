"""The results folder: what has been run, what is running, and what each study asks for.

``trials/<id>/`` holds a finished trial, ``running/<id>/`` one that is being worked on or was given up, with its
checkpoint; ``studies/<name>/plan.json`` says which trials a study is made of. Trials belong to no study: the same
experiment in three tables is one folder. What holds, whatever is killed and however many drivers share the folder:

1. A trial is in ``trials/`` whole or not at all: it gets there by one rename.
2. Only one live process works on a trial (`studies.claim`); a dead one's claim is taken over, with its checkpoint.
3. A finished trial is replaced only by one that holds all it held and more, and only because a study asked for more;
   one that is complete never by one that is not.
4. Nothing here is needed to read a trial but the files in its folder.

A process that was stopped for minutes (a suspended laptop) and whose claim was taken over meanwhile finds that out when
it wants to finish, and leaves the trial to the other.
"""

import os
import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal
from uuid import uuid4

from studies import claim as claims
from taghead.errors import InputError
from taghead.files import remove_leftovers
from taghead.record import KEPT_FILES, Keep, Record, Status, read_record

Need = Literal["nothing", "train", "evaluate", "again"]


class LostClaimError(RuntimeError):
    """Another process took the trial over while this one was silent."""


@dataclass(frozen=True)
class Claim:
    """The right to work on one trial, until it is finished, released or dropped.

    Attributes:
        store: Where the trial is.
        trial_id: Which one.
        attempt: How often somebody has begun on it, this time included.
    """

    store: "Store"
    trial_id: str
    attempt: int

    @property
    def folder(self) -> Path:
        """Where the trial is run; holds the checkpoint of the attempt before, if that left one."""
        return self.store.running / self.trial_id

    def alive(self) -> AbstractContextManager[None]:
        """Tells other processes that this one lives, while a block runs."""
        return claims.heartbeat(self.folder, self.attempt)

    def is_done(self) -> bool:
        """Whether the trial has its own record already: the attempt before died just before it could finish."""
        try:
            return read_record(self.folder).trial_id == self.trial_id
        except InputError:
            return False

    def clear(self) -> None:
        """Removes all but the claim: results of another experiment, whose files must not be mixed with this one's."""
        paths = [path for path in self.folder.iterdir() if not path.match("claim.*.json")]
        for path in sorted(paths, key=lambda path: path.name == "record.json"):  # last: it tells that there is a rest
            path.unlink()

    def finish(self) -> bool:
        """Moves the trial to the finished ones, in place of an older one under the same id.

        Returns:
            Whether it was moved; where one that is complete would be lost by that, this one is dropped.

        Raises:
            LostClaimError: Another process has taken it over.
            InputError: It has no record, or one that cannot be read.
        """
        self.check_held()
        before = self.store.ending(self.trial_id)
        if before and before[0] == "complete" and read_record(self.folder).status != "complete":
            self.drop()
            return False
        final = self.store.trials / self.trial_id
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():
            aside = self.store.running / f".replaced-{self.trial_id}-{os.getpid()}"
            final.rename(aside)
            self.folder.rename(final)
            shutil.rmtree(aside, ignore_errors=True)  # another launch may sweep it at the same time
        else:
            self.folder.rename(final)
        claims.clear(final)  # after the move: until then they keep others off
        return True

    def release(self) -> None:
        """Leaves the trial, with its checkpoint, to whoever comes next."""
        if claims.is_held(self.folder, self.attempt):
            with suppress(OSError):  # it cannot be written to any more: the claim then ends with this process
                claims.release(self.folder, self.attempt)

    def drop(self) -> None:
        """Gives the claim up and removes its folder: there was nothing to do.

        In one step for all others: where the claim went first, another could put its own beside the rest.
        """
        if claims.is_held(self.folder, self.attempt):
            aside = self.store.running / f".dropped-{self.trial_id}-{uuid4().hex}"
            self.folder.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)

    def check_held(self) -> None:
        """Refuses to go on where the claim is lost.

        Raises:
            LostClaimError: Another process has taken the trial over.
        """
        if not claims.is_held(self.folder, self.attempt):
            raise LostClaimError(f"trial {self.trial_id} was taken over by another process")


@dataclass(frozen=True)
class Store:
    """A results folder.

    Attributes:
        root: The folder; it is made when something is written to it.
    """

    root: Path

    @property
    def trials(self) -> Path:
        """The finished trials, a folder each."""
        return self.root / "trials"

    @property
    def running(self) -> Path:
        """The trials that are worked on or were given up, a folder each."""
        return self.root / "running"

    def check_writable(self) -> None:
        """Refuses a folder that trials could not be written to, and tidies one that they can.

        Raises:
            InputError: It cannot be made or written to.
        """
        try:
            for folder in (self.trials, self.running):
                folder.mkdir(parents=True, exist_ok=True)
            probe = self.running / f".probe-{os.getpid()}"
            probe.write_bytes(b"probe")
            probe.unlink(missing_ok=True)
            self._sweep()
        except OSError as error:
            raise InputError(
                f"{self.root}: results cannot be written there ({error.strerror}); give another folder with --results."
            ) from None

    def _sweep(self) -> None:
        """Removes what was set aside, and left there by a process that was killed before it could remove it."""
        for name in (".probe-*", ".replaced-*", ".forgotten-*", ".dropped-*"):
            for path in self.running.glob(name):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def read(self, trial_id: str) -> Record | None:
        """The record of a finished trial, or None.

        Raises:
            InputError: The record is damaged, another trial's, or a newer version wrote it.
        """
        folder = self.trials / trial_id
        if not folder.exists():
            return None
        record = read_record(folder)
        if record.trial_id != trial_id:
            raise InputError(
                f"{folder}: holds the record of another trial, {record.trial_id}; "
                "forget it with `taghead-studies retry NAME`, or remove the folder."
            )
        return record

    def ending(self, trial_id: str) -> tuple[Status, str] | None:
        """How a finished trial ended, and of what if not well; None where there is none.

        A trial whose record cannot be read counts as failed, so that one damaged file does not stop a study.

        Raises:
            InputError: A newer version wrote the record, which is no damage.
        """
        try:
            stamp = (self.trials / trial_id / "record.json").stat()
        except OSError:
            return _ending(self, trial_id)
        return _known_ending(self, trial_id, stamp.st_ino, stamp.st_mtime_ns, stamp.st_size)

    def need(self, trial_id: str, keep: Iterable[Keep], *, pruned_counts: bool = False) -> Need:
        """What is left to do so that a trial is there with all that is asked for.

        Args:
            trial_id: Which trial.
            keep: What is asked for.
            pruned_counts: Whether one that a search's pruner stopped early is as good as a whole one.

        Returns:
            ``train``; ``nothing``; or, where a finished trial lacks files, ``evaluate`` if its weights were kept and
            else ``again``. A trial that failed or diverged has nothing to keep, and is left as it is.

        Raises:
            InputError: As for `ending`.
        """
        ending = self.ending(trial_id)
        if ending is None or (ending[0] == "pruned" and not pruned_counts):
            return "train"
        folder = self.trials / trial_id
        missing = [name for name in keep if not (folder / KEPT_FILES[name]).exists()]
        if ending[0] != "complete" or not missing:
            return "nothing"
        return "evaluate" if (folder / KEPT_FILES["weights"]).exists() else "again"

    def kept(self, trial_id: str) -> frozenset[Keep]:
        """What is kept of a finished trial."""
        return frozenset(name for name, file in KEPT_FILES.items() if (self.trials / trial_id / file).exists())

    def claim(self, trial_id: str) -> Claim | None:
        """Claims a trial for this process; None where another live process has it.

        Whether there is still something to do has to be asked after this, not before: another may have just done it.

        Raises:
            OSError: The folder cannot be written to.
        """
        number = claims.take(self.running / trial_id)
        if number is None:
            return None
        for folder in (self.running / trial_id, self.trials / trial_id):  # `evaluate` adds to the second
            remove_leftovers(folder)
        return Claim(self, trial_id, number)

    def is_running(self, trial_id: str) -> bool:
        """Whether a live process works on a trial."""
        return claims.is_live(self.running / trial_id)

    def forget(self, trial_id: str) -> None:
        """Removes a finished trial, so that the next launch runs it anew."""
        aside = self.running / f".forgotten-{trial_id}-{os.getpid()}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        (self.trials / trial_id).rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _ending(store: Store, trial_id: str) -> tuple[Status, str] | None:
    try:
        record = store.read(trial_id)
    except InputError as error:
        if "newer taghead" in str(error):
            raise
        return "failed", str(error)
    return None if record is None else (record.status, record.error or "")


@lru_cache(maxsize=100_000)
def _known_ending(store: Store, trial_id: str, *stamp: int) -> tuple[Status, str] | None:
    """A launch asks several times of each trial; the record's file tells whether anything has changed."""
    return _ending(store, trial_id)
