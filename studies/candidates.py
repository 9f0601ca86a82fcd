"""A search as it stands, ``results/studies/<name>/search.json``: what is searched, and the candidates chosen so far.

What came of a candidate is not in it but in the store, as for every trial; so a search can be killed between any two
lines and goes on. Who wins is worked out here, from the two; no sampler is needed to read a search.
"""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from studies.plan import Identity
from studies.space import Choice, Range, Space, text_of
from studies.store import Store
from studies.study import BASE, OBJECTIVES, Search
from studies.trial import Trial
from taghead.config import Config, Value, defaults, evolve, flatten
from taghead.errors import InputError
from taghead.files import write_text
from taghead.record import RECIPE_VERSION, Keep, trial_id

SCHEMA_VERSION = 1  # of search.json
Params = dict[str, bool | int | float | str | None]  # what a sampler chose, by dotted key; tuples as texts


class Candidate(Value):
    """One choice of the sampler.

    Attributes:
        number: From 0, in the order of choosing.
        params: What was chosen.
        trials: Its trial ids by seed; none where it is no valid experiment.
        invalid: Why it is none.
        same_as: The number of an earlier candidate that is the same experiment.
        attrs: What the sampler noted for itself.
        ahead: The search's, when it was chosen: it knew the results of those so far before it.
        stopped: The epoch after which the pruner stops it, if it does.
        given_up: Why its trials could not be brought to an end, which counts as failed until `retry`.
    """

    number: int
    params: Params
    trials: dict[int, str] = Field(default_factory=dict)
    invalid: str | None = None
    same_as: int | None = None
    attrs: dict[str, Any] = Field(default_factory=dict)
    ahead: int = 4
    stopped: int | None = None
    given_up: str | None = None

    @property
    def is_new(self) -> bool:
        """Whether it counts as a trial of the search."""
        return self.invalid is None and self.same_as is None


class SearchState(Value):
    """A search as it was last launched, and its candidates."""

    schema_version: int = SCHEMA_VERSION
    name: str
    title: str
    objectives: tuple[str, ...]
    num_trials: int
    definition: dict[str, Any]  # what may not change while a search goes on, by what it is called
    candidates: tuple[Candidate, ...] = ()

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        known = {one.number for one in self.candidates if one.is_new}
        for place, one in enumerate(self.candidates):
            if one.number != place or (one.same_as is not None and one.same_as not in known - {place}):
                raise ValueError(f"candidate {place} is missing, or repeats one that is not there")
            if not one.params.keys() <= self.definition["space"].keys():
                raise ValueError(f"candidate {place} has keys that are not searched")
        if not set(self.objectives) <= OBJECTIVES.keys():
            raise ValueError(f"unknown objectives {self.objectives}")
        return self

    @property
    def num_new(self) -> int:
        """How many different candidates there are."""
        return sum(one.is_new for one in self.candidates)

    def trial_ids(self) -> tuple[str, ...]:
        """Every trial of the candidates once, in the order of choosing."""
        return tuple(dict.fromkeys(name for one in self.candidates for name in one.trials.values()))


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


def start(search: Search, *, identity: Identity) -> SearchState:
    """A search of which no candidate is chosen yet.

    Args:
        search: The search.
        identity: The fingerprints of its base.

    Raises:
        InputError: It is searched by validation clips, and there are none.
    """
    known = defaults()
    if _holds_out(search, identity) and not search.holdout:
        raise InputError(
            f"search {search.name}: {next(iter(search.datasets))} has no validation clips, by which it chooses, and "
            "holdout is 0; hold out 0.2, say."
        )
    base = {key: value for key, value in flatten(search.base).items() if value != known[key]}
    definition = {
        "base": base,
        "space": {key: asdict(one) for key, one in search.space.items()},
        **{name: getattr(search, name) for name in ("objectives", "sampler", "sampler_options")},
        **{name: getattr(search, name) for name in ("pruner", "pruner_options", "seed", "seeds", "while_searching")},
        "holdout": search.holdout if _holds_out(search, identity) else 0.0,
        "dataset": next(iter(search.datasets)),
        "data": identity.data,
        "weights": identity.weights,
        "recipe": RECIPE_VERSION,
    }
    as_json = json.loads(json.dumps(definition))  # as it will be read again
    common = {name: getattr(search, name) for name in ("name", "title", "objectives", "num_trials")}
    return SearchState(definition=as_json, **common)


def resume(search: Search, *, identity: Identity, results: Path) -> SearchState:
    """A search as it stands in the results folder, or at its start where it was never launched.

    Args:
        search: The search.
        identity: The fingerprints of its base.
        results: The results folder.

    Raises:
        InputError: The stored one is another; tells the difference and how to extend it.
    """
    new = start(search, identity=identity)
    if not _path(results, search.name).exists():
        return new
    old = read_search(results, search.name)
    before, after = (_flat(state.definition) for state in (old, new))
    changed = [key for key in {**before, **after} if before.get(key, "not there") != after.get(key, "not there")]
    if changed and old.candidates:
        lines = [f"  {key}: {before.get(key, 'not there')} -> {after.get(key, 'not there')}" for key in changed]
        raise InputError(
            f"search {search.name} was begun otherwise in {results}; changed are\n" + "\n".join(lines) + "\n"
            "More trials (--trials) extend a search; for another base or space give it another --name, where trials "
            "that are the same are not run again."
        )
    more = max(new.num_trials, old.num_new)
    return new.model_copy(update={"candidates": old.candidates, "num_trials": more})


def write_search(state: SearchState, *, results: Path) -> None:
    """Writes ``search.json`` whole."""
    path = _path(results, state.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(state.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n")


def read_search(results: Path, name: str) -> SearchState:
    """Reads a search that was launched.

    Raises:
        InputError: There is none of that name, it is damaged, or a newer version wrote it.
    """
    path = _path(results, name)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["schema_version"] > SCHEMA_VERSION:
            raise InputError(f"{path}: written by a newer taghead; upgrade.")
        return SearchState.model_validate(values)
    except FileNotFoundError:
        raise InputError(f"{results}: no search {name!r} was launched there.") from None
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).splitlines()[0]
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False)[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
        raise InputError(
            f"{path}: not a search ({reason}); remove the file to choose anew: finished trials are not run again."
        ) from None


def taken_up(state: SearchState) -> SearchState:
    """The same search, with the candidates that could not be brought to an end left to be tried again."""
    again = tuple(one.model_copy(update={"given_up": None}) for one in state.candidates)
    return state.model_copy(update={"candidates": again})


def searches(results: Path) -> list[str]:
    """The searches that were launched in a results folder, sorted."""
    return sorted(path.parent.name for path in (results / "studies").glob("*/search.json"))


def space_of(state: SearchState) -> Space:
    """The space that a stored search is over."""
    stored = state.definition["space"].items()
    return {key: Choice(**one) if "values" in one else Range(**one) for key, one in stored}


def config_of(search: Search, params: Mapping[str, Any], *, identity: Identity) -> Config:
    """The experiment of a candidate.

    Args:
        search: The search.
        params: What was chosen.
        identity: The fingerprints of the search's base.

    Raises:
        InputError: The values do not go together.
    """
    held_out = {"data.holdout": search.holdout} if _holds_out(search, identity) else {}
    return evolve(search.base, {**held_out, **search.while_searching, **overrides_of(search.space, params)})


def overrides_of(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """What a candidate changes in the base: the chosen texts as the values they stand for."""
    found = {}
    for key, chosen in params.items():
        one = space[key]
        by_text = {text_of(value): value for value in one.values} if isinstance(one, Choice) else {}
        found[key] = by_text.get(text_of(chosen), chosen)
    return found


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
    results = [result_of(state, one, store) for one in state.candidates]
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
    if reasons:
        return Result("fail", reason=reasons[0])
    if None in endings:
        return Result("open")
    try:
        return _scored(state, candidate, store, [ending[0] for ending in endings if ending])
    except InputError as error:  # a damaged history
        return Result("fail", reason=f"{error} To train it again: taghead-studies retry {state.name}.")


def damaged(state: SearchState, store: Store) -> set[str]:
    """The ids of complete trials of which a search can make nothing."""
    found: set[str] = set()
    for one in state.candidates:
        endings = {name: store.ending(name) for name in one.trials.values()}
        if one.is_new and result_of(state, one, store).state == "fail" and not one.given_up:
            found |= {name for name, ending in endings.items() if ending and ending[0] == "complete"}
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


def _holds_out(search: Search, identity: Identity) -> bool:
    return not identity.validation and any(name.startswith("val_") for name in search.objectives)


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


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _path(results: Path, name: str) -> Path:
    return results / "studies" / name / "search.json"
