"""optuna-dashboard on a search: ``taghead-studies dashboard NAME``, or ``run NAME --dashboard``.

What it shows is a mirror in memory, filled from ``search.json`` and the store and renewed while it is looked at: there
is no file that a killed driver could leave half-written, and closing it loses nothing.
"""

import multiprocessing
import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

import optuna

from studies.candidates import Candidate, SearchState, read_search, searches, space_of
from studies.sampling import STATES, frozen
from studies.store import Store
from studies.study import OBJECTIVES
from studies.winners import curve_of, own_result_of
from taghead.errors import InputError

EVERY = 2.0  # seconds between two looks at the store


class Mirror:
    """An Optuna study in memory that follows a search.

    Args:
        name: Of the search.
        results: The results folder.

    Attributes:
        storage: What optuna-dashboard is given.
        study: The study in it.
    """

    def __init__(self, name: str, *, results: Path) -> None:
        self._name, self._results, self._store = name, results, Store(results)
        self._open: dict[int, int] = {}  # Optuna's id of a candidate whose result is not known
        self._count = 0
        state = read_search(results, name)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.storage = optuna.storages.InMemoryStorage()
        self.study = optuna.create_study(
            storage=self.storage, study_name=name, directions=[OBJECTIVES[one] for one in state.objectives]
        )
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            self.study.set_metric_names(list(state.objectives))
        self.renew()

    def renew(self) -> None:
        """Takes over what was chosen, trained and ended since the last time."""
        state = read_search(self._results, self._name)
        for candidate in state.candidates[self._count :]:
            self._add(state, candidate)
            self._count += 1
        for number in [number for number in self._open if number < len(state.candidates)]:  # it may be begun anew
            self._follow(state, state.candidates[number])

    def _add(self, state: SearchState, candidate: Candidate) -> None:
        result = own_result_of(state, candidate, self._store)
        mirrored = frozen(candidate, result, space_of(state), attrs={})
        notes = {"trial ids": ", ".join(candidate.trials.values()), "why it failed": result.reason}
        notes["repeats candidate"] = "" if candidate.same_as is None else str(candidate.same_as)
        for key, value in notes.items():
            if value:
                mirrored.set_user_attr(key, value)
        if result.state != "open":
            mirrored.datetime_start, mirrored.datetime_complete = self._times(candidate)
        self.study.add_trial(mirrored)
        if result.state == "open":
            storage, study_id = self.storage, self.study._study_id
            self._open[candidate.number] = storage.get_trial_id_from_study_id_trial_number(study_id, candidate.number)

    def _times(self, candidate: Candidate) -> tuple[datetime, datetime]:
        """When it began and ended, by its records; the time that it stood still between two launches is left out."""
        ends = datetime.now()
        names = [name for name in candidate.trials.values() if (self._store.ending(name) or ("",))[0] == "complete"]
        records = [record for name in names if (record := self._store.read(name))]
        for record in records[-1:]:
            written = (self._store.trials / record.trial_id / "record.json").stat().st_mtime
            ends = datetime.fromtimestamp(written)
        return ends - timedelta(seconds=sum(record.seconds for record in records)), ends

    def _follow(self, state: SearchState, candidate: Candidate) -> None:
        known_as, result = self._open[candidate.number], own_result_of(state, candidate, self._store)
        names = list(candidate.trials.values())
        curve = result.curve or (curve_of(self._store.running / names[0], state.objectives[0]) if names else {})
        if len(state.objectives) == 1:
            for epoch, value in curve.items():
                self.storage.set_trial_intermediate_value(known_as, epoch, value)
        if result.reason:
            self.storage.set_trial_user_attr(known_as, "why it failed", result.reason)
        if result.state != "open":
            self.storage.set_trial_state_values(known_as, STATES[result.state], result.values or None)
            del self._open[candidate.number]


def serve(
    name: str,
    *,
    results: Path,
    host: str = "127.0.0.1",
    port: int = 8080,
    remedy: str = "give another --port",
) -> None:
    """Shows a search until it is interrupted.

    Args:
        name: Of the search.
        results: The results folder.
        host: Where to listen.
        port: Where to listen.
        remedy: What to do where that place is taken.

    Raises:
        InputError: optuna-dashboard is not installed, or the place is taken.
    """
    try:
        import optuna_dashboard
    except ImportError:
        raise InputError("the dashboard needs a package: pip install optuna-dashboard.") from None
    mirror = Mirror(name, results=results)
    threading.Thread(target=_renew_for_ever, args=(mirror,), daemon=True, name="mirror").start()
    print(f"{name}: http://{host}:{port}/dashboard/studies/{mirror.study._study_id} (end it by Ctrl-C)", flush=True)
    try:
        with suppress(KeyboardInterrupt):
            optuna_dashboard.run_server(mirror.storage, host=host, port=port)
    except OSError as error:
        raise InputError(f"{host}:{port}: {error.strerror}; {remedy}.") from None


@contextmanager
def beside(name: str, *, results: Path, port: int = 8080) -> Iterator[None]:
    """Shows a search, in a process of its own, while a block runs.

    Args:
        name: Of the search; the process waits until it is launched.
        results: The results folder.
        port: Where to listen.
    """
    process = multiprocessing.get_context("spawn").Process(
        target=_serve_when_there, args=(name, results, port), daemon=True, name="dashboard"
    )
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def _serve_when_there(name: str, results: Path, port: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True, name="parent").start()
    remedy = f"to see the search: taghead-studies dashboard {name} --results {results} --port N"
    with suppress(KeyboardInterrupt):
        while name not in searches(results):
            time.sleep(EVERY)
        try:
            serve(name, results=results, port=port, remedy=remedy)
        except InputError as error:
            print(f"--dashboard: {error}", file=sys.stderr)


def _end_with_parent() -> None:
    """A killed parent ends nobody, and the process would hold its port for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _renew_for_ever(mirror: Mirror) -> None:
    while True:
        time.sleep(EVERY)
        with suppress(InputError):  # a file that was just being replaced by a newer version, say
            mirror.renew()
