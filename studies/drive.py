"""Brings plans and searches to their end: what is written first, progress, signals, the last words, the exit status."""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from studies import summary
from studies.candidates import SearchState, resume, searches, write_search
from studies.feed import Feed, GridFeed, trials_of
from studies.launch import left, no_longer
from studies.plan import Identity, Plan, make_plan, names, write_plan
from studies.progress import Progress
from studies.store import Store
from studies.study import Search
from studies.trial import Trial, Work, complete, run
from studies.winners import final_rows
from taghead.config import Config
from taghead.errors import InputError

STOPPED = 128  # and the signal's number: the exit status of what was stopped by one


class Stop:
    """A handler of the signals that stop a run; remembers which one came, since Ray raises its own in place of ours.

    What it raises may be lost where it comes in a destructor or a callback from C, whose errors Python ignores; so that
    an executor asks too, from time to time.
    """

    number = int(signal.SIGINT)
    came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Interrupts whatever runs."""
        self.number, self.came = number, True
        raise KeyboardInterrupt


@dataclass(frozen=True, kw_only=True)
class Driver:
    """Runs what it is given; a value.

    Attributes:
        results: The results folder.
        machines: Where a trial runs, by data set.
        identify: Gives the fingerprints of a config's clips and weights; remembers them.
        executor: `studies.feed.run_here`, or another function of that shape.
        timeout: Seconds that one attempt at a trial may take; None for as many as it likes.
    """

    results: Path
    machines: Mapping[str, Any]
    identify: Callable[[Config], Identity]
    executor: Callable[..., None]
    timeout: float | None = None

    def run(self, plans: Sequence[Plan], searched: Sequence[Search]) -> int:
        """Runs plans together, then searches one by one.

        Args:
            plans: Those of grids.
            searched: The searches.

        Returns:
            The exit status: 0 where all is complete; 2 where the user can mend what is in the way; 128 and a signal's
            number where one stopped it; else 1.

        Raises:
            InputError: A search was begun with another base or space.
        """
        self._check_names([plan.name for plan in plans], [search.name for search in searched])
        status = self.run_plans(plans) if plans else 0
        for search in searched:
            if status >= STOPPED:
                break
            status = max(status, self.run_search(search))
        return status

    def _check_names(self, grids: Sequence[str], searched: Sequence[str]) -> None:
        there = set(searches(self.results))
        mixed = [name for name in grids if name in there]
        mixed += [name for name in searched if name in set(names(self.results)) - there]
        if mixed:
            raise InputError(
                f"{self.results} holds a {'search' if mixed[0] in there else 'study of fixed rows'} of the name "
                f"{mixed[0]}; give this one another --name."
            )

    def run_plans(self, plans: Sequence[Plan]) -> int:
        """Writes the plans, runs what is left of them, and tells how it ended.

        Args:
            plans: Those of grids.

        Returns:
            The exit status: 0 where all trials are complete.
        """
        store = Store(self.results)
        for one in plans:
            if number := no_longer(one, self.results):
                print(
                    f"{one.name}: {number} trials of its last launch are no part of this one and stay in the results."
                )
            write_plan(one, results=self.results)
        trials = trials_of(plans)
        todo = left(trials, store)
        feed = GridFeed(todo, store=store)
        if todo:
            print(f"{len(trials)} trials, {len(todo)} to run", flush=True)
            if number := self._execute(feed, todo, there=len(trials) - len(todo)):
                print(
                    f"stopped with {len(left(trials, store))} of {len(trials)} trials left; the same command goes on."
                )
                return number
        return summary.show_end(plans, trials, feed.outcomes, store)

    def run_search(self, search: Search) -> int:
        """Chooses and runs candidates to the search's end, then its winners and the base over fresh seeds.

        Args:
            search: The search.

        Returns:
            The exit status, as of `run_plans`.

        Raises:
            InputError: It was begun with another base or space.
        """
        from studies.search import SearchFeed

        store, identity = Store(self.results), self.identify(search.base)
        state = resume(search, identity=identity, results=self.results)

        def save(state: SearchState) -> None:
            write_search(state, results=self.results)

        feed = SearchFeed(search, state, store=store, identify=self.identify, save=save)
        save(feed.state)
        if not feed.is_finished():
            known = feed.num_known
            print(f"{search.name}: {state.num_trials} candidates, {known} are known", flush=True)
            counts = {"there": known, "to_come": state.num_trials - known}
            if number := self._execute(feed, [], **{name: n * len(search.seeds) for name, n in counts.items()}):
                print(f"stopped with {feed.state.num_new} candidates chosen; the same command goes on.")
                return number
        results = feed.results()
        if feed.exhausted:
            print(f"{search.name}: its space holds no more than {feed.state.num_new} different experiments.")
        status = summary.show_search(feed.state, results, store, stopped=feed.stopped)
        if status:
            return status
        rows, note = final_rows(search, feed.state, results)
        return self.run_plans([make_plan(search.study(rows, note=note), identify=self.identify)])

    def _execute(self, feed: Feed, trials: Sequence[Trial], *, there: int, to_come: int = 0) -> int:
        """Works a feed off; gives 0, or the exit status where a signal stopped it."""
        work = Work(root=self.results, machines=self.machines, run=run, complete=complete, timeout=self.timeout)
        stop = Stop()
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with Progress(trials, there=there, to_come=to_come) as progress:
                self.executor(feed, work, watch=progress, stopped=lambda: stop.came)
        except KeyboardInterrupt:
            return STOPPED + stop.number
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return 0
