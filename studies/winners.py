"""What came of a search's candidates, by the records of their trials, and which of them win.

No sampler is needed to read a search.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from studies.candidates import Candidate, SearchState, config_of, overrides_of
from studies.plan import Identity
from studies.store import Store
from studies.study import BASE, OBJECTIVES, Search
from studies.trial import Trial
from taghead.config import Config, evolve
from taghead.errors import InputError
from taghead.record import Keep, trial_id


@dataclass(frozen=True)
class Result:
    """What came of a candidate.

    Attributes:
        state: ``fail`` where a trial failed or diverged, or is no valid experiment; ``open`` until it is known.
        values: One for each objective, means over the seeds, where it is complete.
        curve: The first objective by epoch, of the first seed, where epochs have it.
        reason: Why it failed.
    """

    state: Literal["complete", "pruned", "fail", "open"]
    values: tuple[float, ...] = ()
    curve: Mapping[int, float] = field(default_factory=dict)
    reason: str = ""


def expected_trials(search: Search, state: SearchState, *, identity: Identity, store: Store) -> list[Trial]:
    """The trials that a search has left, as far as that is known, by which time and disk can be estimated.

    Those of candidates that are not chosen yet, and of the winner, are stand-ins: of the base's size.

    Args:
        search: The search.
        state: As it stands.
        identity: The fingerprints of its base.
        store: Where its trials are.
    """
    known: dict[str, Any] = {"data": identity.data, "synthetic": identity.synthetic}
    made: list[tuple[str, Config, int, tuple[Keep, ...]]] = []
    results = [own_result_of(state, one, store) for one in state.candidates]
    for one, result in zip(state.candidates, results, strict=True):
        if one.is_new and result.state == "open":
            config = config_of(search, one.params, identity=identity)
            made += [(name, config, seed, ()) for seed, name in one.trials.items()]
    stand_in = config_of(search, {}, identity=identity)
    for number in range(state.num_new, search.num_trials):
        made += [(f"{search.name}-{number}-{seed}", stand_in, seed, ()) for seed in search.seeds]
    searching = bool(made)
    rows = {BASE: {}, "winner": {}} if searching else final_rows(search, state, results)[0]
    for row, overrides in rows.items():
        config = evolve(search.base, overrides)
        for seed in search.study({BASE: {}}).seeds:
            name = trial_id(config, seed=seed, data=identity.data, weights=identity.weights)
            made.append((f"{row}-{seed}" if searching and row != BASE else name, config, seed, search.keep))
    return [
        Trial(trial_id=name, config=config, seed=seed, keep=frozenset(keep), label=name, **known)
        for name, config, seed, keep in made
    ]


def result_of(state: SearchState, candidate: Candidate, store: Store) -> Result:
    """What came of a candidate, by the records of its trials.

    Args:
        state: The search.
        candidate: One of its candidates; one that repeats another has the other's result.
        store: Where the trials are.
    """
    if candidate.same_as is not None:
        return result_of(state, state.candidates[candidate.same_as], store)
    if reason := candidate.invalid or candidate.given_up:
        return Result("fail", reason=reason)
    endings = [store.ending(name) for name in candidate.trials.values()]
    reasons = [ending[1] for ending in endings if ending and ending[0] in ("failed", "diverged")]
    if reasons and candidate.stopped is None:  # after the stop it was another study that went on
        return Result("fail", reason=reasons[0])
    if None in endings:
        return Result("open")
    try:
        return _scored(state, candidate, store, [ending[0] for ending in endings if ending])
    except InputError as error:  # a damaged history
        return Result("fail", reason=f"{error} To train it again: taghead-studies retry {state.name}.")


def own_result_of(state: SearchState, candidate: Candidate, store: Store) -> Result:
    """As `result_of`, but open where another search's pruner stopped the trial, which a launch trains to its end.

    Args:
        state: The search.
        candidate: One of its candidates.
        store: Where the trials are.
    """
    result = result_of(state, candidate, store)
    new = candidate if candidate.same_as is None else state.candidates[candidate.same_as]
    return Result("open") if result.state == "pruned" and new.stopped is None else result


def damaged(state: SearchState, store: Store) -> set[str]:
    """The ids of complete trials of which a search can make nothing.

    Where a candidate failed because one of its seeds did, the others are as they should be.
    """
    found: set[str] = set()
    for one in state.candidates:
        endings = [store.ending(name) for name in one.trials.values()]
        complete = all(ending is not None and ending[0] == "complete" for ending in endings)
        if one.is_new and complete and not one.given_up and result_of(state, one, store).state == "fail":
            alone = {name: one.model_copy(update={"trials": {seed: name}}) for seed, name in one.trials.items()}
            found |= {name for name, each in alone.items() if result_of(state, each, store).state == "fail"}
    return found


def _scored(state: SearchState, candidate: Candidate, store: Store, endings: Sequence[str]) -> Result:
    names = list(candidate.trials.values())
    curve = curve_of(store.trials / names[0], state.objectives[0])
    if candidate.stopped is not None:
        return Result("pruned", curve={epoch: value for epoch, value in curve.items() if epoch <= candidate.stopped})
    if "pruned" in endings:  # by another search, if this one has no pruner
        return Result("pruned", curve=curve) if state.definition["pruner"] else Result("open")
    by_seed = [[_value(store, name, objective) for objective in state.objectives] for name in names]
    values = tuple(math.fsum(column) / len(column) for column in zip(*by_seed, strict=True))
    if not all(map(math.isfinite, values)):
        return Result("fail", curve=curve, reason="a score is no number")
    return Result("complete", values, curve)


def curve_of(folder: Path, name: str) -> dict[int, float]:
    """A column of a trial's history by epoch; empty where there is none.

    Raises:
        InputError: The history is damaged.
    """
    path = folder / "history.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {int(row["epoch"]): float(row[name]) for row in csv.DictReader(file) if row.get(name)}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, csv.Error) as error:
        raise InputError(f"{path}: a damaged history ({error}).") from None


def winners(state: SearchState, results: Sequence[Result]) -> list[Candidate]:
    """The best candidate, or those of the Pareto front, the best in the first objective first.

    Of equally good ones the earliest counts.

    Args:
        state: The search.
        results: Of each candidate.
    """
    signs = [1 if OBJECTIVES[name] == "maximize" else -1 for name in state.objectives]
    scored = {
        one.number: tuple(sign * value for sign, value in zip(signs, result.values, strict=True))
        for one, result in zip(state.candidates, results, strict=True)
        if one.is_new and result.state == "complete"
    }
    front: dict[tuple[float, ...], int] = {}
    for number, score in scored.items():
        beaten = any(
            other != score and all(a >= b for a, b in zip(other, score, strict=True)) for other in scored.values()
        )
        if not beaten:
            front.setdefault(score, number)
    return [state.candidates[number] for _, number in sorted(front.items(), reverse=True)]


def in_words(state: SearchState, candidate: Candidate, result: Result) -> str:
    """A candidate's scores and what was chosen, on one line."""
    scores = [
        f"{name} {value:.1%}" if OBJECTIVES[name] == "maximize" else f"{name} {value:,.0f}"
        for name, value in zip(state.objectives, result.values, strict=False)
    ]
    return f"{', '.join(scores) or result.state}; {params_in_words(candidate.params)}"


def params_in_words(params: Mapping[str, Any]) -> str:
    """What was chosen: the keys and values, numbers to four digits."""
    return ", ".join(f"{key} {v:.4g}" if isinstance(v, float) else f"{key} {v}" for key, v in params.items())


def final_rows(search: Search, state: SearchState, results: Sequence[Result]) -> tuple[dict[str, dict[str, Any]], str]:
    """The base and the winners, which are run again over fresh seeds, and what must be said of them.

    Args:
        search: The search.
        state: As it stands.
        results: Of each candidate.

    Returns:
        Overrides by label, and the sentences.
    """
    best = winners(state, results)
    several = len(state.objectives) > 1
    rows = {f"front {number}" if several else "winner": one for number, one in enumerate(best, start=1)}
    counts = {name: sum(r.state == name for r, one in zip(results, state.candidates, strict=True) if one.is_new)
              for name in ("complete", "pruned", "fail")}  # fmt: skip
    told = ", ".join(f"{number} {'failed' if name == 'fail' else name}" for name, number in counts.items() if number)
    repeated = sum(one.same_as is not None for one in state.candidates)
    seeds = ", ".join(map(str, search.seeds))
    note = (
        f"{'The front' if several else 'The winner'} was picked from {state.num_new} candidates ({told}"
        f"{f'; {repeated} more repeated one of them' if repeated else ''}) by {' and '.join(state.objectives)} at seed "
        f"{seeds}; base and {'front' if several else 'winner'} were run again over seeds that no choice was made by."
    )
    if {"top1", "mca"} & set(state.objectives):
        note += " The choice was made on the test clips, so that these scores flatter it all the same."
    for label, one in rows.items():
        note += f" {label}: candidate {one.number}, {params_in_words(one.params)}."
    return {BASE: {}, **{label: overrides_of(search.space, one.params) for label, one in rows.items()}}, note


def _value(store: Store, trial_id: str, objective: str) -> float:
    record = store.read(trial_id)
    if record is None:
        raise InputError(f"{store.trials / trial_id}: has gone while it was read.")
    if objective in record.metrics:
        return record.metrics[objective]
    if objective.startswith("val_"):
        curve = curve_of(store.trials / trial_id, objective)
        if not curve:
            raise InputError(f"{store.trials / trial_id}/history.csv: no column {objective}, which is searched for.")
        return curve[record.epoch] if record.epoch in curve else curve[max(curve)]
    from taghead import complexity

    count = {"multiply_adds": complexity.multiply_adds, "parameters": complexity.parameters}[objective]
    return float(count(record.config, num_classes=record.data.num_classes))
