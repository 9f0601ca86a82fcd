"""A search's space, sampler and pruner as Optuna's, and a candidate as one of its trials."""

import random
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna import distributions as optuna_distributions
from optuna.trial import FrozenTrial, TrialState, create_trial

from studies.candidates import Candidate, Params
from studies.space import Choice, Range, Space, text_of
from studies.study import OBJECTIVES, Search
from studies.winners import Result
from taghead.config import flatten
from taghead.errors import InputError

MOST_POINTS = 100_000  # of a space that is looked through
STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "fail": TrialState.FAIL,
          "open": TrialState.RUNNING}  # fmt: skip


def new_study(search: Search, number: int) -> optuna.Study:
    """An empty study in memory with the sampler and the pruner of one candidate.

    Args:
        search: The search.
        number: Of the candidate.

    Raises:
        InputError: Options that sampler or pruner do not take.
    """
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        return optuna.create_study(
            directions=[OBJECTIVES[name] for name in search.objectives],
            sampler=sampler_of(search, number),
            pruner=pruner_of(search),
        )


def check_options(search: Search) -> None:
    """Tries a sampler and a pruner out.

    Raises:
        InputError: They do not take their options.
    """
    try:
        choose(new_study(search, 0).ask(), search)
    except (TypeError, ValueError, AttributeError) as error:
        options = f"{search.sampler} {dict(search.sampler_options)}, {search.pruner} {dict(search.pruner_options)}"
        raise InputError(f"search {search.name}: options that do not fit ({options}): {error}") from None


def choose(asked: optuna.Trial, search: Search) -> None:
    """Lets a sampler choose a value for each key of the space that is searched under those chosen before.

    Args:
        asked: Optuna's trial; holds the choice afterwards.
        search: The search.
    """
    values = _start(search)
    for key, one in search.space.items():
        if _applies(one, values):
            values[key] = _suggested(asked, key, distribution(one))


def _suggested(asked: optuna.Trial, key: str, one: optuna_distributions.BaseDistribution) -> Any:
    if isinstance(one, optuna_distributions.CategoricalDistribution):
        return asked.suggest_categorical(key, one.choices)
    if isinstance(one, optuna_distributions.IntDistribution):
        return asked.suggest_int(key, one.low, one.high, log=one.log, step=one.step)
    assert isinstance(one, optuna_distributions.FloatDistribution)
    return asked.suggest_float(key, one.low, one.high, log=one.log, step=one.step)


def distribution(one: Choice | Range) -> optuna_distributions.BaseDistribution:
    """Optuna's distribution of one key; of a choice, values that Optuna cannot hold stand as their texts.

    Args:
        one: A choice or a range.
    """
    if isinstance(one, Choice):
        return optuna_distributions.CategoricalDistribution(tuple(map(_plain, one.values)))
    if one.whole:
        return optuna_distributions.IntDistribution(int(one.low), int(one.high), log=one.log, step=int(one.step or 1))
    return optuna_distributions.FloatDistribution(one.low, one.high, log=one.log, step=one.step)


def points(search: Search) -> list[Params] | None:
    """Every combination of a finite space once, the last key changing fastest; None where it has no end or too many.

    Args:
        search: The search, whose base says what a condition on a key that is not searched comes to.
    """
    start = _start(search)
    every: list[Params] = [{}]
    for key, one in search.space.items():
        values = one.all_values()
        if values is None or len(every) * len(values) > MOST_POINTS:
            return None
        chosen = [{key: _plain(value)} for value in values]
        every = [
            {**point, **more} for point in every for more in (chosen if _applies(one, {**start, **point}) else [{}])
        ]
    return every


def frozen(candidate: Candidate, result: Result, space: Space, *, attrs: dict[str, Any]) -> FrozenTrial:
    """A candidate as a trial of Optuna's, with the curve where there is one objective.

    Args:
        candidate: The candidate.
        result: What came of it.
        space: What is searched.
        attrs: What sampler and pruner noted.
    """
    last = result.curve[max(result.curve)] if result.state == "pruned" and result.curve else None
    return create_trial(
        state=STATES[result.state],
        values=list(result.values) or None if last is None else [last],
        params=candidate.params,
        distributions={key: distribution(space[key]) for key in candidate.params},
        intermediate_values=dict(result.curve) if len(result.values) < 2 else {},
        system_attrs=attrs,
    )


def sampler_of(search: Search, number: int) -> optuna.samplers.BaseSampler:
    """The sampler of one candidate, with a seed of its own.

    Raises:
        InputError: Options that it does not take.
    """
    kinds: dict[str, Any] = {
        "tpe": optuna.samplers.TPESampler,
        "random": optuna.samplers.RandomSampler,
        "grid": optuna.samplers.RandomSampler,  # every value is given to it
        "nsga2": optuna.samplers.NSGAIISampler,
    }
    options: dict[str, Any] = {"constant_liar": True} if search.sampler == "tpe" else {}
    seed = random.Random(f"{search.seed} {number}").getrandbits(32)
    return _made(
        kinds[search.sampler], {**options, **search.sampler_options, "seed": seed}, f"sampler {search.sampler}"
    )


def pruner_of(search: Search) -> optuna.pruners.BasePruner:
    """The pruner; one that stops nothing where there is none.

    Raises:
        InputError: Options that it does not take.
    """
    kinds: dict[str, Any] = {
        "median": optuna.pruners.MedianPruner,
        "successive_halving": optuna.pruners.SuccessiveHalvingPruner,
    }
    kind = kinds.get(search.pruner or "", optuna.pruners.NopPruner)
    return _made(kind, dict(search.pruner_options) if search.pruner else {}, f"pruner {search.pruner}")


def _made(kind: Callable[..., Any], options: dict[str, Any], what: str) -> Any:
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what}: {str(error).splitlines()[0]}") from None


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else text_of(value)


def _start(search: Search) -> dict[str, Any]:
    return {**flatten(search.base), **search.while_searching}


def _applies(one: Choice | Range, values: Mapping[str, Any]) -> bool:
    return all(text_of(values[key]) in map(text_of, allowed) for key, allowed in one.only_if.items())
