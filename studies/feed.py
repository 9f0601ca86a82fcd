"""A feed hands out trials and is told what became of them; executors know nothing else of a study.

`GridFeed` walks plans; a search's feed would ask its sampler instead.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from studies.plan import Plan
from studies.store import Store
from studies.trial import Outcome, PrunedError, Row, Trial

ATTEMPTS = 3  # of a trial whose process dies, in one launch
LOOK_AGAIN = 2.0  # seconds between two looks at the trials that other drivers run

WorkFunction = Callable[[Trial, Callable[[Row], None]], Outcome]  # does one trial, telling of its epochs


class Feed(Protocol):
    """What an executor works off.

    Attributes:
        prunes: Whether `epoch` may ever stop a trial.
    """

    prunes: bool

    def next(self) -> Trial | None:
        """A trial to begin now; None where there is none at the moment, or none any more."""

    def epoch(self, trial: Trial, row: Row) -> bool:
        """Is told of a finished epoch; False stops the trial, as pruned."""

    def done(self, trial: Trial, outcome: Outcome) -> None:
        """Tells what became of a trial that `next` gave."""

    def is_finished(self) -> bool:
        """Whether `next` will never give a trial again, whatever becomes of those that run."""


class Watch(Protocol):
    """Who looks on."""

    def began(self, trial: Trial) -> None:
        """A worker has begun a trial."""

    def epoch(self, trial: Trial, row: Row) -> None:
        """A trial has finished an epoch."""

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        """A trial has ended, for good or not."""


class GridFeed:
    """Every trial of a grid once; those that another driver runs when it is done or dead.

    A lost one comes again at once; one that ran out of memory once more, after the others, when less may run beside it.

    Attributes:
        outcomes: What became of each trial, by trial id; without those that another driver still runs.
    """

    prunes = False  # it would cut off just the weak rows, which a table must show

    def __init__(self, trials: Iterable[Trial], *, store: Store) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self._waiting = deque(trials)
        self._running: set[str] = set()
        self._elsewhere: deque[Trial] = deque()
        self._attempts: Counter[str] = Counter()
        self._starved: set[str] = set()  # those that ran out of memory
        self._store = store
        self._looked = 0.0
        self._stopped = False

    def next(self) -> Trial | None:
        """The next trial of the grid, or one whose other driver has finished or died."""
        trial = self._waiting.popleft() if self._waiting else self._left_by_others()
        if trial is not None:
            self._running.add(trial.trial_id)
            self._attempts[trial.trial_id] += 1
        return trial

    def add(self, trial: Trial) -> None:
        """Puts a trial behind those that wait."""
        self._waiting.append(trial)

    def epoch(self, trial: Trial, row: Row) -> bool:
        """Every trial of a grid goes on to its end."""
        return True

    def done(self, trial: Trial, outcome: Outcome) -> None:
        """Takes note; ``full`` ends the grid, since nothing that follows could be written either."""
        self._running.discard(trial.trial_id)
        if outcome.ending == "taken":
            self._attempts[trial.trial_id] -= 1
            self._elsewhere.append(trial)
        elif outcome.out_of_memory and trial.trial_id not in self._starved:
            self._starved.add(trial.trial_id)
            self._waiting.append(trial)
        elif outcome.ending == "lost" and not outcome.out_of_memory and self._attempts[trial.trial_id] < ATTEMPTS:
            self._waiting.appendleft(trial)
        else:
            self.outcomes[trial.trial_id] = outcome
            if outcome.ending == "full":
                self._stopped = True
        if self._stopped:
            self._waiting.clear()
            self._elsewhere.clear()

    def is_finished(self) -> bool:
        """Whether nothing waits, runs, or is run by another driver."""
        return not (self._waiting or self._running or self._elsewhere)

    def _left_by_others(self) -> Trial | None:
        if not self._elsewhere or time.monotonic() - self._looked < LOOK_AGAIN:
            return None
        self._looked = time.monotonic()
        for _ in range(len(self._elsewhere)):
            trial = self._elsewhere.popleft()
            if not self._store.is_running(trial.trial_id):
                return trial
            self._elsewhere.append(trial)
        return None


def run_here(feed: Feed, work: WorkFunction, *, watch: Watch, stopped: Callable[[], bool] = lambda: False) -> None:
    """Works a feed off in this process, one trial after another: for debuggers and small tests.

    Args:
        feed: What to do.
        work: Does one trial (`studies.trial.Work`).
        watch: Is told of all that happens.
        stopped: Whether the user has stopped it.

    Raises:
        KeyboardInterrupt: It is stopped.
    """
    while not feed.is_finished():
        if stopped():
            raise KeyboardInterrupt
        trial = feed.next()
        if trial is None:
            time.sleep(0.2)  # another driver has what is left
            continue
        watch.began(trial)
        outcome = work(trial, partial(_epoch, feed, watch, trial))
        watch.ended(trial, outcome)
        feed.done(trial, outcome)


def _epoch(feed: Feed, watch: Watch, trial: Trial, row: Row) -> None:
    watch.epoch(trial, row)
    if not feed.epoch(trial, row):
        raise PrunedError


def trials_of(plans: Iterable[Plan]) -> list[Trial]:
    """The trials of several plans, each once, keeping for all of them what any of them asks for.

    They come seed by seed, so that a half-finished study has every row early.
    """
    found: dict[str, Trial] = {}
    for plan in plans:
        for seed in plan.seeds:
            for cell in plan.cells:
                trial_id = cell.trials[seed]
                old = found.get(trial_id)
                found[trial_id] = Trial(
                    trial_id=trial_id,
                    config=cell.config,
                    seed=seed,
                    keep=frozenset(plan.keep) | (old.keep if old else frozenset()),
                    data=cell.data,
                    synthetic=cell.synthetic,
                    label=old.label if old else f"{plan.name}: {cell.row}, {cell.dataset}, seed {seed}",
                )
    return list(found.values())
