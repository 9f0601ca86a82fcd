"""A search as it stands, ``results/studies/<name>/search.json``: what is searched, and the candidates chosen so far.

What came of a candidate is not in it but in the store, as for every trial; so a search can be killed between any two
lines and goes on; `studies.winners` works the rest out from the two.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from studies.plan import Identity
from studies.space import Choice, Range, Space, text_of
from studies.study import OBJECTIVES, Search
from taghead.config import Config, Value, defaults, evolve, flatten, read_versioned
from taghead.errors import InputError, nearest
from taghead.files import write_text
from taghead.record import RECIPE_VERSION

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
        judged: What the pruner noted when it judged the whole trial, which it does once; None until then.
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
    judged: dict[str, Any] | None = None
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
    if name not in (known := searches(results)):
        raise InputError(f"{results}: no search {name!r} was launched there{nearest(name, known) if known else '.'}")
    remedy = "; remove the file to choose anew: finished trials are not run again"
    path = _path(results, name)
    return read_versioned(path, SearchState, version=SCHEMA_VERSION, what="search", remedy=remedy)


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


def _holds_out(search: Search, identity: Identity) -> bool:
    return not identity.validation and any(name.startswith("val_") for name in search.objectives)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _path(results: Path, name: str) -> Path:
    return results / "studies" / name / "search.json"
