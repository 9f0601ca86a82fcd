"""Trials of workers that do not see the results folder: run in a folder of their own, delivered whole to the driver.

The driver claims such a trial for its worker and sends what it has of it (a checkpoint, or the finished trial that
lacks files); the worker runs it in a temporary store that holds just that, and hands back the finished trial's files,
which the driver moves into the results in one step. Until then nothing of it is there but the claim and the history.
"""

import json
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from studies import deadline
from studies.claim import Worker, this_worker
from studies.store import Claim, LostClaimError, Store
from studies.trial import FINAL, Outcome, Row, Trial, Work, not_final
from taghead.errors import InputError
from taghead.files import write_text, written_whole

Files = Mapping[str, bytes]  # by "trials/<name>" or "running/<name>"
HISTORY = "history.csv"


@dataclass(frozen=True)
class Token:
    """A file in the results folder by which a worker knows that it sees the same folder as the driver.

    Attributes:
        path: Where it is.
        text: What it says, as no other does.
    """

    path: Path
    text: str

    @classmethod
    def leave(cls, store: Store) -> Self:
        """Writes one, and removes those of drivers that were killed."""
        store.running.mkdir(parents=True, exist_ok=True)
        for path in store.running.glob(".shared-*"):
            with suppress(OSError, ValueError, TypeError):
                if Worker(**json.loads(path.read_text(encoding="utf-8"))).is_gone():
                    path.unlink()
        token = cls(store.running / f".shared-{uuid4().hex}", json.dumps(asdict(this_worker())))
        write_text(token.path, token.text)
        return token

    def is_here(self) -> bool:
        """Whether this process sees it."""
        try:
            return self.path.read_text(encoding="utf-8") == self.text
        except (OSError, ValueError):
            return False

    def remove(self) -> None:
        """Takes it away."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def missing_here(machine: Any) -> str | None:
    """Which file or folder that a trial reads this host has not, as a sentence; None where all are there.

    Args:
        machine: A `taghead.machine.Machine`.
    """
    for name, option in (("data_root", "--data-root"), ("weights", "--weights")):
        path = getattr(machine, name, None)
        if path is not None and not path.exists():
            return (
                f"{socket.gethostname()}: no {path}; every machine that runs trials needs what {option} names at the "
                "same path."
            )
    return None


def no_device_here(device: str) -> str | None:
    """Why a device is not to be had on this host, as a sentence; None where it is: no trial falls back to another."""
    if device == "cpu":
        return None
    from taghead.machine import find_device

    try:
        find_device(device)
    except InputError as error:
        return f"{socket.gethostname()}: {error}"
    return None


def run_apart(work: Work, trial: Trial, files: Files, on_epoch: Callable[[Row, bytes], None]) -> tuple[Outcome, Files]:
    """Does one trial in a temporary store of this worker's own.

    Args:
        work: What does it in the store that this worker does not see.
        trial: Which one.
        files: What the driver has of it.
        on_epoch: Is told of every epoch, with the history up to it.

    Returns:
        What became of it, and the finished trial's files.
    """
    with tempfile.TemporaryDirectory(prefix="taghead-", ignore_cleanup_errors=True) as folder:
        store = Store(Path(folder) / "results")
        store.check_writable()
        for name, content in files.items():
            part, _, file = name.partition("/")
            _write(store.root / part / trial.trial_id / file, content)
        history = store.running / trial.trial_id / HISTORY
        outcome = replace(work, root=store.root)(trial, lambda row: on_epoch(row, _read(history)))
        if outcome.ending == "full":  # this disk is not the one that the other trials are written to
            outcome = replace(outcome, ending="interrupted", message=f"{socket.gethostname()}: {outcome.message}")
        return outcome, _pack(store.trials / trial.trial_id, "trials") if outcome.ending in FINAL else {}


class Delivery:
    """The driver's side: the claim on a trial that a worker runs elsewhere."""

    def __init__(self, claim: Claim, *, timeout: float | None) -> None:
        self._claim, self._timeout = claim, timeout
        self._began = time.monotonic()
        self._alive = ExitStack()
        self._alive.enter_context(claim.alive())

    @classmethod
    def begin(cls, store: Store, trial: Trial, *, timeout: float | None = None) -> "tuple[Delivery, Files] | Outcome":
        """Claims a trial, so that no other driver runs it and `status` shows it.

        Args:
            store: The results.
            trial: Which one.
            timeout: Seconds after which its worker ends itself; None for never.

        Returns:
            The delivery, and the files to send, with a claim before, so that the worker counts the attempts on; or what
            became of the trial, where there is nothing to do.
        """
        claim = None
        try:
            claim = store.claim(trial.trial_id)
            if claim is None:
                return Outcome("taken")
            need = store.need(trial.trial_id, trial.keep, pruned_counts=trial.pruned_counts)
            if need == "nothing" and (record := store.read(trial.trial_id)):
                claim.drop()
                return Outcome(record.status, record.error or "", dict(record.metrics))
            files = {f"running/claim.{claim.attempt - 1}.json": b'{"released": true}', **_pack(claim.folder, "running")}
            if need in ("evaluate", "again"):
                files |= _pack(store.trials / trial.trial_id, "trials")
            begun = cls(claim, timeout=timeout)
        except (OSError, InputError) as error:
            if claim is not None:
                claim.release()
            return not_final(error, store.root)
        return begun, files

    def epoch(self, history: bytes) -> None:
        """Keeps the history where `status` reads it."""
        with suppress(OSError):  # the end will tell
            _write(self._claim.folder / HISTORY, history)

    def lost(self, outcome: Outcome) -> Outcome:
        """Its worker died; where that had its time, whoever comes next finds the note that the worker kept to itself.

        Args:
            outcome: What is known of that.

        Returns:
            What became of the trial.
        """
        late = self._timeout is not None and time.monotonic() - self._began >= self._timeout
        if self._timeout is not None and late and not outcome.out_of_memory:
            with suppress(OSError):  # it is tried once more then
                deadline.leave(self._claim.folder, self._timeout)
        return self.end(outcome, {})

    def end(self, outcome: Outcome, files: Files) -> Outcome:
        """Moves a finished trial into the results, or leaves it to whoever comes next.

        Args:
            outcome: What the worker says of it.
            files: What it delivered.

        Returns:
            What became of it.
        """
        try:
            return self._finish(outcome, files) if outcome.ending in FINAL else outcome
        except LostClaimError:
            return Outcome("taken")
        except OSError as error:
            return not_final(error, self._claim.store.root)
        finally:
            self._alive.close()
            self._claim.release()

    def _finish(self, outcome: Outcome, files: Files) -> Outcome:
        claim = self._claim
        claim.check_held()
        claim.clear()
        for name in sorted(files, key=lambda name: name.endswith("/record.json")):  # last: it tells that all is there
            _write(claim.folder / Path(name).name, files[name])
        if not claim.is_done():
            claim.clear()
            return Outcome("lost", "its worker delivered no whole trial")
        claim.finish()
        return outcome


def _pack(folder: Path, part: str) -> dict[str, bytes]:
    paths = [path for path in sorted(folder.glob("[!.]*")) if path.is_file() and not path.match("claim.*.json")]
    return {f"{part}/{path.name}": path.read_bytes() for path in paths}


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as beside:
        beside.write_bytes(content)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
