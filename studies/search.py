"""Optuna's samplers and pruners as a feed: which candidate comes next, and which are stopped early.

Every candidate is asked for in an Optuna study of its own, in memory, that holds just what it may know: the results of
the candidates up to ``ahead`` before it, and what the others between chose. So a choice is a function of the search's
seed and of those results: not of which worker was faster, and not of interruptions. Nothing of Optuna's is stored; what
it chose is written to ``search.json`` before it is run.
"""

import itertools
import random
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from studies.candidates import Candidate, Params, SearchState, config_of
from studies.feed import GridFeed
from studies.plan import Identity
from studies.sampling import MOST_POINTS, check_options, choose, frozen, new_study, points
from studies.store import Store
from studies.study import Search
from studies.trial import FINAL, Outcome, Row, Trial
from studies.winners import Result, curve_of, own_result_of
from taghead.config import Config
from taghead.errors import InputError
from taghead.record import trial_id

PATIENCE = 20  # repeats in a row after which a finite space is looked through for what is left; 10 x that end others


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
        exhausted: Whether there is nothing left to choose.
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
        self._asked: dict[int, optuna.Trial] = {}  # of a search with a pruner
        self._stops: dict[int, int] = {}  # the epoch after which the pruner stops a candidate
        self._points = points(search) if search.sampler == "grid" else None
        if search.sampler == "grid" and self._points is None:
            raise InputError(f"a grid has at most {MOST_POINTS:,} points; use larger steps, or --sampler random.")
        check_options(search)
        for candidate in state.candidates:
            self._hand_out(candidate)
        self.exhausted = self._nothing_left()

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
        number, epoch = self._numbers[trial.trial_id], int(row["epoch"])
        candidate = self.state.candidates[number]
        if candidate.judged is None:
            begun_before = number not in self._asked
            curve = {epoch: float(value)} | (self._curve(number) if begun_before else {})
            self._report(number, curve, epochs=trial.config.train.epochs)
        stop = self._stops.get(number) if candidate.stopped is None else candidate.stopped
        return stop is None or epoch < stop

    def done(self, trial: Trial, outcome: Outcome) -> None:
        """Takes note; a candidate whose trial cannot be brought to an end counts as failed, until `retry`."""
        self._grid.done(trial, outcome)
        if trial.trial_id not in self._grid.outcomes:
            return  # it comes again
        number = self._numbers[trial.trial_id]
        if outcome.ending in ("full", "refused"):
            self.stopped = outcome.message
        elif outcome.ending not in FINAL:
            self._change(number, given_up=outcome.message or outcome.ending)
        self._settle(number)

    @property
    def num_known(self) -> int:
        """How many different candidates have a result."""
        return sum(one.is_new and self._result(one.number).state != "open" for one in self.state.candidates)

    def results(self) -> list[Result]:
        """What came of each candidate so far."""
        return [self._result(candidate.number) for candidate in self.state.candidates]

    def _may_choose(self) -> bool:
        if self.exhausted or self.stopped or self.state.num_new >= self.state.num_trials:
            return False
        visible = len(self.state.candidates) - self._search.ahead  # the last that is known to the next
        return all(self._result(number).state != "open" for number in range(max(0, visible + 1)))

    def _result(self, number: int) -> Result:
        candidate = self.state.candidates[number]
        if candidate.same_as is not None:
            return self._result(candidate.same_as)
        return self._results.get(number) or Result("open")

    def _settle(self, number: int) -> None:
        """Takes note of a result.

        A trial that ended as pruned, though this search's pruner lets it go on, was stopped by another search. Here it
        is trained to its end, or else it would matter which of the two ran first.
        """
        if self.prunes and self.state.candidates[number].is_new:
            self._judge(number)
        candidate = self.state.candidates[number]
        result = own_result_of(self.state, candidate, self._store)
        if result.state != "open":
            self._results[number] = result
        elif self.prunes and self._ending(number) == "pruned" and self.stopped is None:
            config, found = self._checked(candidate)
            for seed, name in candidate.trials.items():
                self._grid.outcomes.pop(name, None)  # where another driver's pruner ended it just now
                self._add(candidate, seed, config, found, pruned_counts=False)

    def _judge(self, number: int) -> None:
        """Lets the pruner judge the whole curve of a trial that has ended, unless it has judged it before.

        That counts also where the trial did not hear it: its worker died just then, or another study had trained it to
        its end. It is done once, since the candidates by which it is judged may come to another end by `retry`.
        """
        candidate, ending = self.state.candidates[number], self._ending(number)
        if candidate.judged is not None or ending not in ("complete", "pruned"):
            return
        try:
            curve = curve_of(self._store.trials / self._name(number), self.state.objectives[0])
        except InputError:  # damaged; its result tells
            return
        self._report(number, curve, epochs=config_of(self._search, candidate.params, identity=self._base).train.epochs)
        stopped = self._stops.get(number) if candidate.stopped is None else candidate.stopped
        if stopped is not None or ending == "complete":
            self._change(number, stopped=stopped, judged=_notes(self._asked_for(number)))
        else:
            self._asked.pop(number, None)  # if it is trained anew, `epoch` reads what was trained before this launch

    def _change(self, number: int, **changes: Any) -> None:
        candidates = list(self.state.candidates)
        candidates[number] = candidates[number].model_copy(update=changes)
        self.state = self.state.model_copy(update={"candidates": tuple(candidates)})
        self._save(self.state)

    def _choose(self) -> None:
        params: Params | None = None
        if self._points is not None or self._repeats() >= PATIENCE:
            params = self._left_over()
        asked = self._ask(len(self.state.candidates), params, ahead=self._search.ahead)
        candidate = self._candidate(len(self.state.candidates), asked)
        self.state = self.state.model_copy(update={"candidates": (*self.state.candidates, candidate)})
        self._save(self.state)
        if candidate.is_new and self.prunes:
            self._asked[candidate.number] = asked
        self._hand_out(candidate)
        self.exhausted = self._nothing_left()

    def _candidate(self, number: int, asked: optuna.Trial) -> Candidate:
        known: dict[str, Any] = {"number": number, "params": asked.params, "attrs": _notes(asked)}
        known["ahead"] = self._search.ahead
        try:
            config = config_of(self._search, asked.params, identity=self._base)
            found = self._identify(config)
        except InputError as error:
            return Candidate(**known, invalid=str(error))
        trials = self._trials(config, found)
        same_as = next((one.number for one in self.state.candidates if one.is_new and one.trials == trials), None)
        return Candidate(**known, trials=trials, same_as=same_as)

    def _hand_out(self, candidate: Candidate) -> None:
        if candidate.same_as is not None:
            return
        if candidate.is_new:
            config, found = self._checked(candidate)
        for seed, name in candidate.trials.items():
            self._numbers[name] = candidate.number
            need = self._store.need(name, (), pruned_counts=self.prunes)
            if need != "nothing" and candidate.given_up is None:
                self._add(candidate, seed, config, found, pruned_counts=self.prunes)
        self._settle(candidate.number)

    def _add(self, candidate: Candidate, seed: int, config: Config, found: Identity, *, pruned_counts: bool) -> None:
        self._grid.add(
            Trial(
                trial_id=candidate.trials[seed],
                config=config,
                seed=seed,
                keep=frozenset(),
                data=found.data,
                synthetic=found.synthetic,
                label=f"{self.state.name}: candidate {candidate.number}, seed {seed}",
                pruned_counts=pruned_counts,
            )
        )

    def _checked(self, candidate: Candidate) -> tuple[Config, Identity]:
        try:
            config = config_of(self._search, candidate.params, identity=self._base)
            found = self._identify(config)
            reason = "its trials are others" if self._trials(config, found) != candidate.trials else None
        except InputError as error:
            reason = str(error)
        if reason:
            raise InputError(
                f"studies/{self.state.name}/search.json: candidate {candidate.number} was changed ({reason}); remove "
                "the file to choose anew: finished trials are not run again."
            )
        return config, found

    def _trials(self, config: Config, found: Identity) -> dict[int, str]:
        return {
            seed: trial_id(config, seed=seed, data=found.data, weights=found.weights) for seed in self._search.seeds
        }

    def _ask(self, number: int, params: Params | None, *, ahead: int) -> optuna.Trial:
        study = new_study(self._search, number)
        study.add_trials([self._frozen(earlier, is_known=earlier <= number - ahead) for earlier in range(number)])
        if params is not None:
            study.enqueue_trial(params)
        asked = study.ask()
        choose(asked, self._search)
        return asked

    def _frozen(self, number: int, *, is_known: bool) -> FrozenTrial:
        candidate = self.state.candidates[number]
        result = self._result(number) if is_known else Result("open")
        attrs = dict(candidate.attrs)
        if self._search.pruner == "successive_halving" and result.state in ("complete", "pruned"):
            new = candidate if candidate.same_as is None else self.state.candidates[candidate.same_as]
            attrs |= new.judged or {}  # its rungs
        return frozen(candidate, result, self._search.space, attrs=attrs)

    def _asked_for(self, number: int) -> optuna.Trial:
        """A candidate as it was asked for, in this launch or an earlier one."""
        if number not in self._asked:
            candidate = self.state.candidates[number]
            self._asked[number] = self._ask(number, candidate.params, ahead=candidate.ahead)
        return self._asked[number]

    def _report(self, number: int, curve: Mapping[int, float], *, epochs: int) -> None:
        """Tells the pruner of epochs that it does not know yet, up to the one after which it stops the candidate.

        The last epoch is no place to stop: nothing would be saved.
        """
        asked = self._asked_for(number)
        for epoch in sorted(set(curve) - set(_as_stored(asked).intermediate_values)):
            if number in self._stops:
                return
            asked.report(curve[epoch], epoch)
            if asked.should_prune() and epoch < epochs:
                self._stops[number] = epoch

    def _curve(self, number: int) -> dict[int, float]:
        name, objective = self._name(number), self.state.objectives[0]
        return curve_of(self._store.running / name, objective) or curve_of(self._store.trials / name, objective)

    def _name(self, number: int) -> str:
        """The trial of a candidate of a search with a pruner, which has one seed."""
        return next(iter(self.state.candidates[number].trials.values()))

    def _ending(self, number: int) -> str | None:
        ending = self._store.ending(self._name(number))
        return ending[0] if ending else None

    def _repeats(self) -> int:
        """How many of the last candidates, in a row, brought no new experiment."""
        last = itertools.takewhile(lambda one: not one.is_new, reversed(self.state.candidates))
        return sum(1 for _ in last)

    def _left_over(self) -> Params | None:
        """The next point of a finite space that was not chosen yet: in order for a grid, else in an order drawn."""
        if self._points is not None:
            return next(iter(self._points[len(self.state.candidates) :]), None)
        every = points(self._search) or []
        random.Random(self._search.seed).shuffle(every)
        chosen = {frozenset(one.params.items()) for one in self.state.candidates}
        return next((point for point in every if frozenset(point.items()) not in chosen), None)

    def _nothing_left(self) -> bool:
        """Whether the space is exhausted, or seems to be."""
        if self._points is not None:
            return len(self.state.candidates) >= len(self._points)
        repeats = self._repeats()
        if repeats < PATIENCE:
            return False
        return repeats >= 10 * PATIENCE if points(self._search) is None else self._left_over() is None


def _notes(asked: optuna.Trial) -> dict[str, Any]:
    noted = _as_stored(asked).system_attrs
    return {key: value for key, value in noted.items() if not key.startswith(("fixed_params", "tpe:"))}


def _as_stored(asked: optuna.Trial) -> FrozenTrial:
    return asked.study.get_trials(deepcopy=False)[asked.number]
