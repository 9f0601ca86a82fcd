"""What the commands say of plans and of the store, in words: ``plan``, ``status``, and the end of ``run``."""

import csv
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from studies.feed import trials_of
from studies.launch import count
from studies.plan import Plan
from studies.store import Store
from studies.trial import FINAL, Outcome, Trial

STATES = {
    "complete": "complete",
    "diverged": "diverged",
    "failed": "failed",
    "pruned": "pruned",
    "running": "running",
    "begun": "begun, to go on from the checkpoint",
    "evaluate": "complete, to be evaluated once more for what is kept",
    "again": "complete, to be trained again for what is kept (their weights were not kept)",
    "new": "new",
}


def show_plan(plan: Plan, trials: Sequence[Trial], store: Store) -> None:
    """Prints what a launch of a plan would do."""
    cells = f"{len(plan.rows)} rows x {len(plan.datasets)} data sets x {len(plan.seeds)} seeds"
    print(f"{plan.name}: {plan.title}; {cells} = {len(trials)} different trials")
    for state, number in _in_order(count(trials, store)):
        print(f"  {number:5} {STATES[state]}")


def show_status(plan: Plan, store: Store) -> None:
    """Prints where a launched study stands, with the epoch of what runs and the errors of what failed."""
    trials = trials_of([plan])
    states = ", ".join(f"{number} {state}" for state, number in _in_order(count(trials, store)))
    print(f"{plan.name}: {len(trials)} trials: {states}")
    for trial in trials:
        if store.is_running(trial.trial_id):
            print(f"  running  {trial.label}: {_last_epoch(store.running / trial.trial_id, trial)}")
    _show_failures([plan], store)


def show_end(plans: Sequence[Plan], trials: Sequence[Trial], outcomes: Mapping[str, Outcome], store: Store) -> int:
    """Prints how a launch ended and which command shows its tables.

    Returns:
        The exit status: 0 where all trials are complete; 2 where the user can mend what is in the way; else 1.
    """
    refused = dict.fromkeys(one.message for one in outcomes.values() if one.ending in ("refused", "full"))
    open_ = {key: one for key, one in outcomes.items() if one.ending not in FINAL}
    for plan in plans:
        states = count(trials_of([plan]), store)
        words = ", ".join(f"{number} {state}" for state, number in _in_order(states))
        nothing_ran = "nothing to run, " if not outcomes else ""
        print(f"{plan.name}: {nothing_ran}{sum(states.values())} trials: {words}")
    _show_failures(plans, store)
    for trial in trials:
        if (one := open_.get(trial.trial_id)) and one.ending in ("lost", "interrupted"):
            print(f"  {one.ending:8} {trial.label}: {one.message} (tried again at the next launch)")
    for plan in plans:
        print(f"tables: taghead-analysis tables {plan.name} --results {_short(store.root)}")
    for message in refused:
        print(f"error: {message}", file=sys.stderr)
    if refused:
        return 2
    complete = all((ending := store.ending(trial.trial_id)) and ending[0] == "complete" for trial in trials)
    return 0 if complete and not open_ else 1


def _show_failures(plans: Sequence[Plan], store: Store) -> None:
    for trial in trials_of(plans):
        status, error = store.ending(trial.trial_id) or ("", "")
        if status in ("failed", "diverged"):
            print(f"  {status:8} {trial.label}: {error} ({store.trials / trial.trial_id})")
    for plan in plans:
        found = {ending[0] for trial_id in plan.trial_ids() if (ending := store.ending(trial_id))}
        if found & {"failed", "diverged"}:
            diverged = " --diverged" if "diverged" in found else ""
            print(f"to run them again: taghead-studies retry {plan.name}{diverged} --results {_short(store.root)}")


def _last_epoch(folder: Path, trial: Trial) -> str:
    try:
        with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        rows = []
    if not rows:
        return "in its first epoch"
    last = rows[-1]
    return f"epoch {last['epoch']}/{trial.config.train.epochs}, loss {float(last['loss']):.3f}"


def _in_order(states: Counter[str]) -> list[tuple[str, int]]:
    return [(state, states[state]) for state in STATES if states[state]]


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
