"""Hands trials to workers and hears from them; `studies.executor` carries what they say to each other.

A worker asks for a trial (``ready``), says ``epoch`` after each epoch, and asks for another as it hands in what became
of it (``ended``); one that does not see the results folder asks for what there is of the trial first (``apart``). None
in place of a trial tells it that there is nothing left for it. It is ``lost`` where it says so itself, as where its GPU
has failed, or where the executor saw it die; what it had then comes again.
"""

import re
import socket
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from studies.delivery import Delivery, Files, Token, missing_here, no_device_here, run_apart
from studies.feed import Feed, Watch
from studies.store import Store
from studies.trial import OUT_OF_MEMORY, Outcome, PrunedError, Row, Trial, Work
from taghead.errors import InputError

LOOK_AHEAD = 16  # trials that are taken from the feed before a worker that has their share of a GPU is free
STILLBORN = 10  # workers in turn that die at their start, after which no more are started


class BrokenWorkerError(RuntimeError):
    """This process or its machine is of no use for trials any more; the driver hears that the worker is lost."""


class Line(Protocol):
    """A worker's line to the driver."""

    def say(self, what: str, *content: Any) -> None:
        """Says one of the words above."""

    def ask(self, what: str, *content: Any) -> Any:
        """Says one and waits for what the driver answers."""


def work_off(line: Line, work: Work, *, token: Token, prunes: bool) -> None:
    """Does one trial after another, in a worker, until there is nothing left for it.

    Args:
        line: To the driver.
        work: Does one trial.
        token: Lies in the results folder.
        prunes: Whether the driver answers each epoch by whether the trial is to go on.

    Raises:
        BrokenWorkerError: Every trial would fail here: data or a GPU are missing, or that has failed. So it takes no
            more than one attempt of one trial with it, and a new process may do better.
    """
    try:
        _work_off(line, work, token=token, prunes=prunes)
    except BrokenWorkerError as error:
        line.say("lost", str(error))  # Ray tells the driver that it died, and not of what
        raise


def _work_off(line: Line, work: Work, *, token: Token, prunes: bool) -> None:
    def tell(row: Row, history: bytes | None = None) -> None:
        if not prunes:
            line.say("epoch", dict(row), history)
        elif not line.ask("epoch", dict(row), history):
            raise PrunedError

    for machine in work.machines.values():
        _check_here(machine)
    trial: Trial | None = line.ask("ready")
    while trial is not None:
        machine = work.machines[trial.config.data.dataset]
        _check_here(machine)
        done: tuple[Outcome, Files]
        if token.is_here():
            done = work(trial, tell), {}
        else:
            answer: Files | Outcome = line.ask("apart", work.timeout)
            done = (answer, {}) if isinstance(answer, Outcome) else run_apart(work, trial, answer, tell)
        if done[0].of_the_device and machine.device != "cpu":
            raise BrokenWorkerError(f"{socket.gethostname()}: {done[0].message}")
        trial = line.ask("ended", *done)


def _check_here(machine: Any) -> None:
    if missing := missing_here(machine) or no_device_here(machine.device):
        raise BrokenWorkerError(missing.rstrip("."))


class Dispatcher:
    """The driver's side: which worker has which trial, and how many workers there is work for.

    Two threads may call: one that hears workers, one that starts them.

    Args:
        feed: What to do.
        store: The results.
        token: Lies in their folder.
        watch: Is told of all that happens.
        share: The part of a GPU that a trial takes; it is given to a worker that has just that.
        answer: Gives a worker what it asked for.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        store: Store,
        token: Token,
        watch: Watch,
        share: Callable[[Trial], float],
        answer: Callable[[str, Any], None],
    ) -> None:
        self._feed, self._store, self._token, self._watch = feed, store, token, watch
        self._share, self._answer = share, answer
        self._shares: dict[str, float] = {}  # of all workers, those that are to be started among them
        self._starting: set[str] = set()
        self._ready: dict[str, None] = {}  # workers that wait for a trial, the longest wait first
        self._running: dict[str, Trial] = {}  # by worker
        self._deliveries: dict[str, Delivery] = {}  # likewise: of those that do not see the store
        self._waiting: deque[Trial] = deque()  # taken from the feed, for which no worker was free
        self._stillborn: list[str] = []  # of what workers died in turn before they were ready
        self._lock = threading.RLock()

    def hire(self, worker: str, *, most: int | None) -> float | None:
        """Notes a new worker, where there is work for one more.

        Args:
            worker: Its name.
            most: How many there may be.

        Returns:
            Its part of a GPU; None where no worker is wanted now.

        Raises:
            InputError: One is wanted, there is none, and those that were started last died of it.
        """
        with self._lock:
            if most is not None and len(self._shares) >= most:
                return None
            if len(self._stillborn) >= STILLBORN:
                if not self._shares and next(self._untaken(), None) is not None:
                    raise InputError(f"{self._why_none()}, and launch again to go on.")
                return None
            free = Counter(share for worker, share in self._shares.items() if worker not in self._running)
            for trial in self._untaken():
                share = self._share(trial)
                if not free[share]:
                    self._shares[worker] = share
                    self._starting.add(worker)
                    return share
                free[share] -= 1
            return None

    def is_finished(self) -> bool:
        """Whether no worker will be wanted any more."""
        with self._lock:
            return not self._waiting and self._feed.is_finished()

    def hear(self, worker: str, what: str, *content: Any) -> None:
        """Takes note of what a worker said; of one that is known to be lost nothing counts any more."""
        with self._lock:
            if worker in self._shares:
                getattr(self, f"_hear_{what}")(worker, *content)

    def give(self) -> None:
        """Gives trials to the workers that wait; lets those go for which there is nothing left."""
        with self._lock:
            for worker in list(self._ready):
                share = self._shares[worker]
                trial = next((trial for trial in self._untaken() if self._share(trial) == share), None)
                if trial is not None:
                    self._waiting.remove(trial)
                    self._running[worker] = trial
                    self._watch.began(trial)
                elif not (self._waiting or self._feed.is_finished()):
                    continue  # for what is chosen next, or for what a worker that is lost leaves
                del self._ready[worker]
                self._answer(worker, trial)

    def dismissed(self, worker: str) -> None:
        """A worker that was let go has gone."""
        with self._lock:
            self._shares.pop(worker, None)
            self._starting.discard(worker)

    def close(self) -> None:
        """Gives back the claims on trials of which nothing will come any more."""
        with self._lock:
            for delivery in self._deliveries.values():
                delivery.end(Outcome("lost"), {})

    def _untaken(self) -> Iterator[Trial]:
        """The trials that no worker has, in order; so many are taken from the feed as are asked for."""
        yield from tuple(self._waiting)
        while len(self._waiting) < LOOK_AHEAD and (trial := self._feed.next()) is not None:
            self._waiting.append(trial)
            yield trial

    def _hear_ready(self, worker: str) -> None:
        self._ready[worker] = None
        self._starting.discard(worker)
        self._stillborn.clear()

    def _hear_apart(self, worker: str, timeout: float | None) -> None:
        begun: tuple[Delivery, Files] | Outcome = Outcome("full", f"{self._store.root}: it was moved or removed.")
        if self._token.is_here():
            begun = Delivery.begin(self._store, self._running[worker], timeout=timeout)
        if isinstance(begun, Outcome):
            self._answer(worker, begun)
        else:
            self._deliveries[worker], files = begun
            self._answer(worker, files)

    def _hear_epoch(self, worker: str, row: Row, history: bytes | None) -> None:
        trial = self._running[worker]
        if history is not None:
            self._deliveries[worker].epoch(history)
        self._watch.epoch(trial, row)
        goes_on = self._feed.epoch(trial, row)
        if self._feed.prunes:
            self._answer(worker, goes_on)

    def _hear_ended(self, worker: str, outcome: Outcome, files: Files) -> None:
        trial, delivery = self._running.pop(worker), self._deliveries.pop(worker, None)
        if delivery is not None:
            outcome = delivery.lost(outcome) if outcome.ending == "lost" else delivery.end(outcome, files)
        self._watch.ended(trial, outcome)
        self._feed.done(trial, outcome)
        self._ready[worker] = None

    def _hear_lost(self, worker: str, reason: str) -> None:
        if worker in self._running:
            self._hear_ended(worker, Outcome("lost", reason), {})
        self._ready.pop(worker, None)
        del self._shares[worker]
        if worker not in self._starting:
            self._stillborn.clear()  # there is room now where a worker has lived
            return
        self._starting.remove(worker)
        self._stillborn.append(reason)
        if len(self._stillborn) == STILLBORN and (self._running or self._ready):
            print(f"{self._why_none()}; the trials that run go on.", file=sys.stderr)

    def _why_none(self) -> str:
        return (
            f"{STILLBORN} workers in turn died while they started, the last so: {self._stillborn[-1]}; no more are "
            "started: mend what is wrong on that machine, or take it out of the cluster"
        )


def why_lost(error: str, *, with_address: bool) -> str:
    """Of what a worker died, in few words.

    Args:
        error: What Ray says of it; may be empty.
        with_address: Whether to name the machine's address, where Ray does.
    """
    if "OutOfMemory" in error or "low on memory" in error:
        said = f"{OUT_OF_MEMORY}: Ray ended its worker process"
    elif "actor died" in error.lower() or "actor is dead" in error.lower() or not error.strip():
        said = "its worker process died"
    else:
        said = error.strip().splitlines()[-1]
    address = re.search(r"\bip[:=] ?([\w.:]+)", error)
    return f"{said} on {address[1]}" if with_address and address else said
