"""Optuna's samplers and pruners as a feed: which candidate comes next, and which are stopped early.

Every candidate is asked for in an Optuna study of its own, in memory, that holds just what it may know: the results of
the candidates up to ``ahead`` before it, and what the others between chose. So a choice is a function of the search's
seed and of those results: not of which worker was faster, and not of interruptions. Nothing of Optuna's is stored; what
it chose is written to ``search.json`` before it is run.
"""

import itertools
import random
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna import distributions as optuna_distributions
from optuna.trial import FrozenTrial, TrialState, create_trial

from studies.candidates import Candidate, Params, Result, SearchState, config_of, curve_of, result_of
from studies.feed import GridFeed
from studies.plan import Identity
from studies.store import Store
from studies.study import OBJECTIVES, Choice, Range, Search, Space, text_of
from studies.trial import FINAL, Outcome, Row, Trial
from taghead.config import Config
from taghead.errors import InputError
from taghead.record import trial_id

PATIENCE = (
    20  # repeats in a row after which a finite space is looked through for what is left, and 10 x that for others
)
MOST_POINTS = 100_000  # of a space that is looked through
STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "fail": TrialState.FAIL,
          "open": TrialState.RUNNING}  # fmt: skip


class SearchFeed:
    """The candidates of a search, one after another; told as complete, pruned or failed.

    Args:
        search: What is searched.
        state: Where it stands, as from `studies.candidates.resume`.
        store: Where the trials are.
        identify: Gives the fingerprints of a config's clips and weights.
        save: Is given the state whenever a candidate is chosen.

    Attributes:
        outcomes: What became of each trial that was run, by trial id.
        state: Where the search stands.
        prunes: Whether it has a pruner.
        stopped: Why no candidate is chosen any more though the search is not at its end, if so.
    """

    def __init__(
        self,
        search: Search,
        state: SearchState,
        *,
        store: Store,
        identify: Callable[[Config], Identity],
        save: Callable[[SearchState], None],
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.state = state
        self.prunes = search.pruner is not None
        self.stopped: str | None = None
        self._search, self._store, self._identify, self._save = search, store, identify, save
        self._base = identify(search.base)
        self._grid = GridFeed([], store=store)
        self._numbers: dict[str, int] = {}  # of the candidate, by trial id
        self._results: dict[int, Result] = {}  # those that are known
        self._asked: dict[int, optuna.Trial] = {}
        self._exhausted = False
        for candidate in state.candidates:
            self._hand_out(candidate)

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """What became of each trial that was run."""
        return self._grid.outcomes

    def next(self) -> Trial | None:
        """A trial of a candidate, chosen now if need be."""
        trial = self._grid.next()
        while trial is None and self._may_choose():
            self._choose()
            trial = self._grid.next()
        return trial

    def is_finished(self) -> bool:
        """Whether all candidates are chosen, and nothing of them waits or runs."""
        return self._grid.is_finished() and not self._may_choose()

    def epoch(self, trial: Trial, row: Row) -> bool:
        """Asks the pruner, which knows of this trial's earlier epochs too where it was interrupted.

        After the last epoch there is nothing to be saved: such a trial is complete.
        """
        value = row.get(self.state.objectives[0])
        if not self.prunes or value is None:
            return True
        number, curve = self._numbers[trial.trial_id], {int(row["epoch"]): float(value)}
        if number not in self._asked:  # it was begun in an earlier launch
            curve |= self._curve(number)
        return not _stops(self._asked_for(number), curve) or row["epoch"] == row.get("epochs")

    def done(self, trial: Trial, outcome: Outcome) -> None:
        """Takes note; a trial that cannot be brought to an end counts as failed until the next launch."""
        self._grid.done(trial, outcome)
        if trial.trial_id not in self._grid.outcomes:
            return  # it comes again
        number = self._numbers[trial.trial_id]
        if outcome.ending in ("full", "refused"):
            self.stopped = outcome.message
        elif outcome.ending not in FINAL:
            self._results[number] = Result("fail", reason=outcome.message)
        else:
            self._settle(number)

    def results(self) -> list[Result]:
        """What came of each candidate so far."""
        return [self._result(candidate.number) for candidate in self.state.candidates]

    def _may_choose(self) -> bool:
        if self._exhausted or self.stopped or self.state.num_new >= self.state.num_trials:
            return False
        visible = len(self.state.candidates) - self._search.ahead
        return all(self._result(number).state != "open" for number in range(max(0, visible + 1)))

    def _result(self, number: int) -> Result:
        candidate = self.state.candidates[number]
        if candidate.same_as is not None:
            return self._result(candidate.same_as)
        return self._results.get(number) or Result("open")

    def _settle(self, number: int) -> None:
        result = result_of(self.state, self.state.candidates[number], self._store)
        if result.state != "open":
            self._results[number] = result

    def _choose(self) -> None:
        number = len(self.state.candidates)
        params: Params | None = None
        if self._search.sampler == "grid" or self._repeats() >= PATIENCE:
            every = points(self._search.space)
            params = self._left_over(every or [])
            self._exhausted = params is None if every else self._repeats() >= 10 * PATIENCE
        if self._exhausted:
            return
        asked = self._ask(number, params)
        candidate = self._candidate(number, asked)
        self.state = self.state.model_copy(update={"candidates": (*self.state.candidates, candidate)})
        self._save(self.state)
        if candidate.is_new:
            self._asked[number] = asked
        self._hand_out(candidate)

    def _candidate(self, number: int, asked: optuna.Trial) -> Candidate:
        known: dict[str, Any] = {"number": number, "params": asked.params, "attrs": _notes(asked)}
        try:
            config = config_of(self._search, asked.params, identity=self._base)
            found = self._identify(config)
        except InputError as error:
            return Candidate(**known, invalid=str(error))
        trials = {
            seed: trial_id(config, seed=seed, data=found.data, weights=found.weights) for seed in self._search.seeds
        }
        same_as = next((one.number for one in self.state.candidates if one.is_new and one.trials == trials), None)
        return Candidate(**known, trials=trials, same_as=same_as)

    def _hand_out(self, candidate: Candidate) -> None:
        if candidate.same_as is not None:
            return
        if candidate.is_new:
            config = config_of(self._search, candidate.params, identity=self._base)
            found = self._identify(config)
        for seed, name in candidate.trials.items():
            self._numbers[name] = candidate.number
            if self._store.need(name, (), pruned_counts=self.prunes) != "nothing":
                self._grid.add(
                    Trial(
                        trial_id=name,
                        config=config,
                        seed=seed,
                        keep=frozenset(),
                        data=found.data,
                        synthetic=found.synthetic,
                        label=f"{self.state.name}: candidate {candidate.number}, seed {seed}",
                        pruned_counts=self.prunes,
                    )
                )
        self._settle(candidate.number)

    def _ask(self, number: int, params: Params | None) -> optuna.Trial:
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            study = optuna.create_study(
                directions=[OBJECTIVES[name] for name in self.state.objectives],
                sampler=sampler_of(self._search, number),
                pruner=pruner_of(self._search),
            )
        study.add_trials([self._frozen(earlier, known_to=number) for earlier in range(number)])
        if params is not None:
            study.enqueue_trial(params)
        asked = study.ask()
        choose(asked, self._search)
        return asked

    def _frozen(self, number: int, *, known_to: int) -> FrozenTrial:
        candidate, is_known = self.state.candidates[number], number <= known_to - self._search.ahead
        result = self._result(number) if is_known else Result("open")
        attrs = dict(candidate.attrs)
        if is_known and self._search.pruner == "successive_halving" and result.state in ("complete", "pruned"):
            asked = self._asked_for(number if candidate.same_as is None else candidate.same_as)
            _stops(asked, result.curve)  # notes the rungs, where that was in an earlier launch
            attrs |= _notes(asked)
        return frozen(candidate, result, self._search.space, attrs=attrs)

    def _asked_for(self, number: int) -> optuna.Trial:
        """A candidate as it was asked for, in this launch or an earlier one."""
        if number not in self._asked:
            self._asked[number] = self._ask(number, self.state.candidates[number].params)
        return self._asked[number]

    def _curve(self, number: int) -> dict[int, float]:
        name = next(iter(self.state.candidates[number].trials.values()))
        objective = self.state.objectives[0]
        return curve_of(self._store.running / name, objective) or curve_of(self._store.trials / name, objective)

    def _repeats(self) -> int:
        """How many of the last candidates, in a row, brought no new experiment."""
        last = itertools.takewhile(lambda one: not one.is_new, reversed(self.state.candidates))
        return sum(1 for _ in last)

    def _left_over(self, every: list[Params]) -> Params | None:
        """The next point of a finite space that was not chosen yet: in order for a grid, else in an order drawn."""
        if self._search.sampler != "grid":
            random.Random(self._search.seed).shuffle(every)
        chosen = [one.params for one in self.state.candidates]
        return next((point for point in every if point not in chosen), None)


def choose(asked: optuna.Trial, search: Search) -> None:
    """Lets a sampler choose a value for each key of the space that is searched under those chosen before.

    Args:
        asked: Optuna's trial; holds the choice afterwards.
        search: The search.
    """
    values = {key: value for section, of in search.base.model_dump().items()
              for key, value in ((f"{section}.{name}", value) for name, value in of.items())}  # fmt: skip
    for key, one in search.space.items():
        if all(text_of(values[other]) in map(text_of, allowed) for other, allowed in one.only_if.items()):
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


def points(space: Space) -> list[Params] | None:
    """Every combination of a finite space once, the last key changing fastest; None where it is not finite."""
    every: list[Params] = [{}]
    for key, one in space.items():
        values = one.all_values()
        if values is None or len(every) * len(values) > MOST_POINTS:
            return None
        plain = list(map(_plain, values))
        every = [
            {**point, **chosen}
            for point in every
            for chosen in ([{key: value} for value in plain] if _applies(one, point) else [{}])
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


def _applies(one: Choice | Range, point: Params) -> bool:
    return all(key not in point or text_of(point[key]) in map(text_of, values) for key, values in one.only_if.items())


def _notes(asked: optuna.Trial) -> dict[str, Any]:
    noted = _as_stored(asked).system_attrs
    return {key: value for key, value in noted.items() if not key.startswith(("fixed_params", "tpe:"))}


def _stops(asked: optuna.Trial, curve: Mapping[int, float]) -> bool:
    """Reports the epochs that are not known yet, and says whether the pruner stops at one of them."""
    stops = False
    for epoch in sorted(set(curve) - set(_as_stored(asked).intermediate_values)):
        asked.report(curve[epoch], epoch)
        stops = asked.should_prune() or stops
    return stops


def _as_stored(asked: optuna.Trial) -> FrozenTrial:
    return asked.study.get_trials(deepcopy=False)[asked.number]
