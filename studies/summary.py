"""What the commands say of plans and of the store, in words: ``plan``, ``status``, and the end of ``run``."""

import csv
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from studies import estimate, footprint
from studies.candidates import SearchState
from studies.feed import trials_of
from studies.launch import count
from studies.plan import Plan
from studies.store import Store
from studies.study import Search
from studies.trial import FINAL, Outcome, Trial
from studies.winners import Result, in_words, result_of, winners

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


def show_costs(
    todo: Sequence[Trial],
    store: Store,
    machines: Mapping[str, Any],
    *,
    device: str,
    threads: int,
    slots: int | None,
    cache: Path | None = None,
    num_gpus: int | None = None,
    auto_gpus: bool = False,
) -> None:
    """Prints how long the trials that are left will take, and the disk; says before it measures anything.

    Args:
        todo: Trials with something left to do; with none, nothing is printed.
        store: Where they will be.
        machines: By data set: where it lies (`taghead.machine.Machine`).
        device: Of the trials.
        threads: Of a trial.
        slots: How many trials run at once (`studies.estimate.slots`), with ``auto_gpus`` as if none took a GPU; None
            where that is a cluster's to say.
        cache: The folder for decoded frames, if there will be one.
        num_gpus: GPUs that Ray may use; None: those that torch sees.
        auto_gpus: Whether to measure what share of a GPU each trial takes, which then says how many run at once.
    """
    if not todo:
        return
    probe, clips = estimate.measure(device, threads), estimate.count_clips(machines)
    if auto_gpus:
        shares = footprint.measured_shares(todo, clips=clips, probe=probe).values()
        print(f"  gpus: each trial takes {_range(shares)} of a GPU, by the memory of one training step")
        room: dict[str, Any] = {"workers": None, "total_cpus": None, "num_gpus": num_gpus, "address": None}
        slots = min(estimate.slots(threads=threads, gpus=max(shares), **room) or 1, slots or len(todo))
    where: dict[str, Any] = {"store": store, "clips": clips, "slots": slots}
    print(f"  {estimate.hours(todo, **where, device=device, threads=threads, probe=probe)}")
    for line in footprint.disk(todo, **where, cache=cache).lines():
        print(f"  {line}")


def _range(shares: Collection[float]) -> str:
    least, most = min(shares), max(shares)
    return f"{most:.2g}" if least == most else f"{least:.2g} to {most:.2g}"


def show_status(plan: Plan, store: Store) -> None:
    """Prints where a launched study stands, with the epoch of what runs and the errors of what failed."""
    trials = trials_of([plan])
    states = ", ".join(f"{number} {state}" for state, number in _in_order(count(trials, store)))
    print(f"{plan.name}: {len(trials)} trials: {states}")
    for trial in trials:
        if store.is_running(trial.trial_id):
            epoch = last_epoch(store.running / trial.trial_id, of=trial.config.train.epochs)
            print(f"  running  {trial.label}: {epoch}")
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


def show_search_plan(search: Search, state: SearchState, store: Store) -> None:
    """Prints what a launch of a search would do."""
    print(
        f"{search.name}: {search.title}; {search.num_trials} candidates over {len(search.space)} keys by "
        f"{search.sampler}, x {len(search.seeds)} seeds; then base and winner x {search.final_seeds} seeds"
    )
    states = Counter[str](result_of(state, one, store).state for one in state.candidates if one.is_new)
    states["not chosen yet"] = max(0, search.num_trials - state.num_new)
    for word, number in states.items():
        print(f"  {number:5} {word}")


def show_search(state: SearchState, results: Sequence[Result], store: Store, *, stopped: str | None = None) -> int:
    """Prints what came of a search's candidates, and the best of them.

    Args:
        state: The search.
        results: Of each candidate.
        store: Where the trials are.
        stopped: Why no more candidates are chosen, where something is in the way.

    Returns:
        The exit status: 0 where there is a winner and nothing is left; 2 where the user can mend what is in the way;
        else 1.
    """
    new = [(one, result) for one, result in zip(state.candidates, results, strict=True) if one.is_new]
    told = Counter("failed" if result.state == "fail" else result.state for _, result in new)
    words = [f"{number} {name}" for name, number in told.items()] or ["none chosen yet"]
    if repeats := sum(one.same_as is not None for one in state.candidates):
        words.append(f"{repeats} more repeat one of them")
    print(f"{state.name}: {len(new)} of {state.num_trials} candidates: {', '.join(words)}")
    for reason, number in Counter(result.reason for _, result in new if result.state == "fail").items():
        print(f"  failed   {number} x {reason}")
    if told["failed"]:
        diverged = any((store.ending(name) or ("",))[0] == "diverged" for name in state.trial_ids())
        option = " --diverged" if diverged else ""
        print(f"to run them again: taghead-studies retry {state.name}{option} --results {_short(store.root)}")
    for reason, number in Counter(one.invalid for one in state.candidates if one.invalid).items():
        print(f"  invalid  {number} x {reason}")
    best = winners(state, results)
    for one in best:
        print(f"  best     candidate {one.number}: {in_words(state, one, results[one.number])}")
    if stopped:
        print(f"error: {stopped}", file=sys.stderr)
        return 2
    if not best:
        print(f"  no candidate of {state.name} is complete, so that there is no winner")
    return 0 if best and not told["open"] else 1


def show_search_status(state: SearchState, store: Store) -> None:
    """Prints where a launched search stands, with what runs."""
    show_search(state, [result_of(state, one, store) for one in state.candidates], store)
    for one in state.candidates:
        for seed, trial_id in one.trials.items():
            if one.is_new and store.is_running(trial_id):
                print(f"  running  candidate {one.number}, seed {seed}: {last_epoch(store.running / trial_id)}")


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


def last_epoch(folder: Path, *, of: int | None = None) -> str:
    """How far a running trial is, by its history.

    Args:
        folder: The trial's.
        of: How many epochs it will have.
    """
    try:
        with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        rows = []
    if not rows:
        return "in its first epoch"
    last = rows[-1]
    return f"epoch {last['epoch']}{f'/{of}' if of else ''}, loss {float(last['loss']):.3f}"


def _in_order(states: Counter[str]) -> list[tuple[str, int]]:
    return [(state, states[state]) for state in STATES if states[state]]


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
