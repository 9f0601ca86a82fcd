"""Searches by real samplers and pruners over a made-up training whose scores are known."""

import itertools
import json
import random
from types import SimpleNamespace

import fakes
import pytest

from studies import feed as feeds
from studies.candidates import read_search, resume, taken_up, write_search
from studies.plan import make_plan
from studies.sampling import points
from studies.search import SearchFeed
from studies.space import Choice, Range
from studies.store import Store
from studies.study import Search
from studies.trial import Outcome, PrunedError, Work
from studies.winners import curve_of, damaged, expected_trials, final_rows, own_result_of, result_of, winners
from taghead.config import evolve
from taghead.errors import InputError
from taghead.files import write_text

READOUT = {"head.readout": ("max",)}
SPACE = {
    "train.lr": Range(1e-5, 1e-1, log=True),
    "head.readout": Choice(("mean", "max")),
    "head.alpha": Range(0.05, 0.5, only_if=READOUT),
    "head.edges": Choice((("intra_frame",), ())),
}
FINITE = {
    "head.readout": Choice(("mean", "max")),
    "head.edges": Choice(((), ("intra_frame",))),
    "head.k_prop": Range(1, 2),  # of no effect without edges
}


def search(space=SPACE, name="mine", **changes):
    return Search(name=name, title="A search", space=space, datasets={"haa500": fakes.BASE}, **changes)


def feed_of(search, root, identify=fakes.identify):
    state = resume(search, identity=identify(search.base), results=root)
    return SearchFeed(
        search, state, store=Store(root), identify=identify, save=lambda state: write_search(state, results=root)
    )


def drive(search, root, *, order=0, stop=None, run=fakes.scored):
    """Three workers at once that finish in an order drawn; ``stop`` of them, or all."""
    feed, work = feed_of(search, root), Work(root=root, machines={"haa500": fakes.Machine()}, run=run, complete=None)
    drawn, running, ended = random.Random(order), [], 0
    while not feed.is_finished() and ended != stop:
        while len(running) < 3 and (trial := feed.next()):
            running.append(trial)
        if not running:
            break
        trial = running.pop(drawn.randrange(len(running)))
        feed.done(trial, work(trial, lambda row, trial=trial: _goes_on(feed, trial, row)))
        ended += 1
    return feed


def _goes_on(feed, trial, row):
    if not feed.epoch(trial, row):
        raise PrunedError


KINDS = {
    "tpe": {},
    "random": {"sampler": "random"},
    "nsga2": {
        "sampler": "nsga2",
        "objectives": ("val_top1", "parameters"),
        "sampler_options": {"population_size": 5},
    },
    "median": {"pruner": "median", "pruner_options": {"n_startup_trials": 3}},
    "successive_halving": {"pruner": "successive_halving"},
    "two seeds": {"seeds": (0, 1)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_chosen_depends_on_no_order_of_finishing_and_on_no_interruption(kind, tmp_path):
    mine = search(num_trials=16, **KINDS[kind])
    run = fakes.fails_often if kind == "random" else fakes.scored
    feeds = [drive(mine, tmp_path / str(order), order=order, run=run) for order in (1, 2)]
    for stop in (4, 5, 3):
        drive(mine, tmp_path / "3", order=3, stop=stop, run=run)
    feeds.append(drive(mine, tmp_path / "3", order=3, run=run))
    texts = {(tmp_path / name / "studies/mine/search.json").read_text() for name in "123"}
    assert len(texts) == 1
    assert feeds[0].results() == feeds[1].results() == feeds[2].results()
    assert feeds[0].state.num_new == 16


def test_the_sampler_learns(tmp_path):
    feed = drive(search(num_trials=30, seed=1), tmp_path)
    values = [result.values[0] for result in feed.results()]
    assert sum(values[-10:]) > sum(values[:10])  # ten at random first
    best = winners(feed.state, feed.results())[0]
    assert best.params["head.readout"] == "max" and 1e-4 < best.params["train.lr"] < 1e-2


def test_a_pruned_candidate_is_told_and_recorded_as_pruned_with_the_epochs_that_it_had(tmp_path):
    feed = drive(search(num_trials=16, **KINDS["median"]), tmp_path)
    pruned = [number for number, result in enumerate(feed.results()) if result.state == "pruned"]
    assert pruned
    record = Store(tmp_path).read(feed.state.candidates[pruned[0]].trials[0])
    assert record.status == "pruned" and not record.metrics
    assert len(feed.results()[pruned[0]].curve) < fakes.EPOCHS
    assert not {one.number for one in winners(feed.state, feed.results())} & set(pruned)


def test_a_grid_trains_to_its_end_what_a_search_had_pruned(tmp_path):
    feed = drive(search(num_trials=16, **KINDS["median"]), tmp_path)
    number = next(number for number, result in enumerate(feed.results()) if result.state == "pruned")
    trial_id = feed.state.candidates[number].trials[0]
    assert Store(tmp_path).need(trial_id, (), pruned_counts=True) == "nothing"
    assert Store(tmp_path).need(trial_id, ()) == "train"


def test_a_search_over_what_is_in_the_store_runs_nothing(tmp_path):
    mine = search(num_trials=6)
    drive(mine, tmp_path)
    (tmp_path / "studies/mine/search.json").unlink()
    again = feed_of(mine, tmp_path)
    assert again.next() is None and again.is_finished()
    assert again.state.num_new == 6


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_space_that_is_exhausted_ends_and_repeats_are_counted_not_run(sampler, tmp_path):
    feed = drive(search(FINITE, sampler=sampler, num_trials=100), tmp_path)
    assert feed.is_finished()
    assert feed.state.num_new == 6  # of 8 points: without edges k_prop is not read
    repeats = [one for one in feed.state.candidates if one.same_as is not None]
    assert len(repeats) >= 2
    assert len(list((tmp_path / "trials").iterdir())) == 6
    results = feed.results()
    assert all(results[one.number] == results[one.same_as] for one in repeats)


CONDITIONAL = {"head.edges": Choice(((), ("intra_frame",))), "head.alpha": Choice((0.1, 0.2), only_if=READOUT)}


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
def test_a_condition_on_a_key_that_is_not_searched_is_asked_of_the_base(sampler, tmp_path):
    never = drive(search(CONDITIONAL, sampler=sampler, num_trials=9), tmp_path / "never")
    assert never.is_finished() and never.state.num_new == 2
    always = search(CONDITIONAL, sampler=sampler, num_trials=9, while_searching={"head.readout": "max"})
    assert drive(always, tmp_path / "always").state.num_new == 3  # without edges alpha is not read


def test_what_another_searchs_pruner_stopped_is_no_result_of_a_search_without_one(tmp_path):
    drive(search(num_trials=16, **KINDS["median"]), tmp_path)
    plain = search(num_trials=16)
    feed = drive(plain.override({"head.ffn_dim": plain.base.head.ffn_dim}), tmp_path / "apart")
    (tmp_path / "studies/mine/search.json").unlink()
    assert drive(plain, tmp_path).results() == feed.results()
    assert {result.state for result in feed.results()} == {"complete"}


LONGER = {"num_trials": 16, "while_searching": {"train.epochs": 9}}
TWO = {"median": search(**LONGER, **KINDS["median"]),
       "successive_halving": search(**LONGER, name="other", **KINDS["successive_halving"])}  # fmt: skip


def crossing(config, *, folder, on_epoch, **more):
    """As `fakes.scored`, but the mean readout is ahead at first and falls behind."""

    def value(epoch):
        done = epoch / config.train.epochs
        return fakes.score(config) * (min(0.6, 3 * done) if config.head.readout == "mean" else done)

    def tell(row):
        rows = [f"{epoch},{value(epoch)}\n" for epoch in range(1, row["epoch"] + 1)]
        write_text(folder / "history.csv", "".join(["epoch,val_top1\n", *rows]))
        on_epoch({**row, "val_top1": value(row["epoch"])})

    return fakes.scored(config, folder=folder, on_epoch=tell, **more)


@pytest.mark.parametrize("kind", TWO)
def test_what_another_searchs_pruner_stopped_is_trained_to_where_this_ones_stops_it(kind, tmp_path):
    mine, (other,) = TWO[kind], (one for name, one in TWO.items() if name != kind)
    alone = drive(mine, tmp_path / "alone", run=crossing)
    drive(other, tmp_path / "both", run=crossing)
    first = {one.trials[0]: result.curve for one, result in zip(alone.state.candidates, alone.results(), strict=True)}
    cut = {name: curve_of(tmp_path / "both/trials" / name, "val_top1") for name in first}
    assert any(curve and len(curve) < len(first[name]) for name, curve in cut.items())
    after = drive(mine, tmp_path / "both", order=1, run=crossing)
    assert after.state == alone.state and after.results() == alone.results()
    again = feed_of(other, tmp_path / "both")  # is not moved by what the other trained on
    assert again.next() is None and again.is_finished()
    assert again.state == drive(other, tmp_path / "alone of other", run=crossing).state


@pytest.mark.parametrize("kind", TWO)
def test_a_search_after_another_is_not_moved_by_kills_within_its_trials(kind, tmp_path):
    mine, (other,) = TWO[kind], (one for name, one in TWO.items() if name != kind)
    calls, kills = itertools.count(1), 0

    def killed(config, *, folder, on_epoch, **more):
        at = folder / "checkpoint.pt"
        begun = int(at.read_text()) if at.exists() else 0

        def tell(row):
            if row["epoch"] > begun:
                at.write_text(str(row["epoch"]))
                if next(calls) % 3 == 0:
                    raise KeyboardInterrupt
                on_epoch(row)

        return crossing(config, folder=folder, on_epoch=tell, **more)

    drive(other, tmp_path / "both", run=crossing)
    feed = None
    while feed is None:
        try:
            feed = drive(mine, tmp_path / "both", order=kills, run=killed)
        except KeyboardInterrupt:
            kills += 1
    assert kills > 1
    alone = drive(mine, tmp_path / "alone", run=crossing)
    assert feed.state == alone.state and feed.results() == alone.results()


def test_what_another_searchs_pruner_stopped_is_among_the_trials_that_are_left(tmp_path):
    mine, store = TWO["median"], Store(tmp_path)
    feed = drive(mine, tmp_path)
    number = next(one.number for one in feed.state.candidates if one.stopped is not None)
    candidates = list(feed.state.candidates)
    candidates[number] = candidates[number].model_copy(update={"stopped": None, "judged": None})
    state = feed.state.model_copy(update={"candidates": tuple(candidates)})
    left = [one.trial_id for one in expected_trials(mine, state, identity=fakes.identify(mine.base), store=store)]
    assert left[0] == candidates[number].trials[0]
    assert own_result_of(state, candidates[number], store).state == "open"


def test_a_trial_that_cannot_be_trained_past_another_searchs_stop_ends_the_launch(tmp_path):
    drive(TWO["median"], tmp_path)

    def refuses(*_, **__):
        raise InputError("no clips")

    feed = drive(TWO["successive_halving"], tmp_path, run=refuses)
    assert feed.is_finished() and feed.stopped == "no clips"


@pytest.mark.parametrize("ending", ["pruned", "taken"])
def test_a_trial_that_another_driver_prunes_meanwhile_is_taken_up_afterwards(ending, tmp_path, monkeypatch):
    monkeypatch.setattr(feeds, "LOOK_AGAIN", 0.0)
    mine, other = TWO["successive_halving"], TWO["median"]
    alone = drive(mine, tmp_path / "alone")
    drive(other, tmp_path / "both")
    store, aside = Store(tmp_path / "both"), tmp_path / "aside"
    names = [one.trials[0] for one in alone.state.candidates if one.stopped is None]
    name = next(name for name in names if (found := store.ending(name)) and found[0] == "pruned")
    (store.trials / name).rename(aside)  # as it was when this search began
    feed, said = feed_of(mine, tmp_path / "both"), iter(["pruned", ending])
    work = Work(root=tmp_path / "both", machines={"haa500": fakes.Machine()}, run=fakes.scored, complete=None)
    while trial := feed.next():
        if trial.trial_id == name and (what := next(said, None)):
            if aside.exists():
                aside.rename(store.trials / name)
            feed.done(trial, Outcome(what))
        else:
            feed.done(trial, work(trial, lambda row, trial=trial: _goes_on(feed, trial, row)))
    assert feed.is_finished() and feed.results() == alone.results()


def test_what_went_wrong_in_another_study_after_the_stop_does_not_count(tmp_path):
    feed = drive(TWO["median"], tmp_path)
    number = next(number for number, result in enumerate(feed.results()) if result.state == "pruned")
    path = Store(tmp_path).trials / feed.state.candidates[number].trials[0] / "record.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "status": "diverged", "error": "loss is not finite"}))
    assert feed_of(TWO["median"], tmp_path).results() == feed.results()


def test_what_was_judged_is_not_judged_again_after_earlier_candidates_were_retried(tmp_path):
    mine = search(num_trials=16, **KINDS["median"])

    def fails_at_first(config, **more):
        if fakes.score(config) > 0.5:
            raise RuntimeError("out of luck")
        return fakes.scored(config, **more)

    first = drive(mine, tmp_path, run=fails_at_first)
    store = Store(tmp_path)
    failed = {one.number: one.trials[0] for one, result in zip(first.state.candidates, first.results(), strict=True)
              if result.state == "fail"}  # fmt: skip
    assert failed and min(failed) < 6
    for name in failed.values():
        store.forget(name)
    write_search(taken_up(first.state), results=tmp_path)
    retried = drive(mine, tmp_path)
    assert all(retried.results()[number].state != "fail" for number in failed)
    kept = [number for number in range(16) if number not in failed]
    assert [retried.results()[number] for number in kept] == [first.results()[number] for number in kept]
    again = feed_of(mine, tmp_path)
    assert again.next() is None
    assert again.state == retried.state and again.results() == retried.results()


def test_what_was_judged_and_then_forgotten_is_trained_to_the_same_end(tmp_path):
    mine, store = search(num_trials=16, **KINDS["median"]), Store(tmp_path)
    feed = drive(mine, tmp_path)
    for one in feed.state.candidates:
        store.forget(one.trials[0])
    again = drive(mine, tmp_path, order=5)
    assert again.state == feed.state and again.results() == feed.results()


def test_a_search_file_of_before_candidates_were_said_to_be_judged_is_read(tmp_path):
    mine = search(num_trials=16, **KINDS["successive_halving"])
    feed = drive(mine, tmp_path)
    path = tmp_path / "studies/mine/search.json"
    found = json.loads(path.read_text())
    for one in found["candidates"]:
        del one["judged"]
    path.write_text(json.dumps(found))
    assert [one.stopped for one in read_search(tmp_path, "mine").candidates] == [
        one.stopped for one in feed.state.candidates
    ]
    again = feed_of(mine, tmp_path)
    assert again.state == feed.state and again.results() == feed.results()


@pytest.mark.parametrize("kind", ["median", "successive_halving"])
def test_a_stop_that_its_worker_did_not_live_to_hear_holds_all_the_same(kind, tmp_path):
    mine = search(num_trials=16, **KINDS[kind])
    heard = drive(mine, tmp_path / "heard")
    deaf = feed_of(mine, tmp_path / "deaf")
    work = Work(root=tmp_path / "deaf", machines={"haa500": fakes.Machine()}, run=fakes.scored, complete=None)
    while trial := deaf.next():
        deaf.done(trial, work(trial, lambda row, trial=trial: deaf.epoch(trial, row) and None))
    assert [one.stopped for one in deaf.state.candidates] == [one.stopped for one in heard.state.candidates]
    assert any(one.stopped for one in deaf.state.candidates)
    assert deaf.results() == heard.results()


def test_a_condition_leaves_a_key_out_where_it_does_not_hold(tmp_path):
    feed = drive(search(num_trials=8), tmp_path)
    for one in feed.state.candidates:
        assert ("head.alpha" in one.params) == (one.params["head.readout"] == "max")
    assert len(points(search(FINITE))) == 8
    assert points(search()) is None


def test_no_more_candidates_are_ahead_than_were_asked_for(tmp_path):
    feed = feed_of(search(ahead=2), tmp_path)
    assert [feed.next() is not None for _ in range(3)] == [True, True, False]
    assert not feed.is_finished()


def test_a_candidate_that_fails_is_told_so_and_the_search_goes_on(tmp_path):
    feed = drive(search(num_trials=5), tmp_path, run=fakes.fails_often)
    states = [result.state for result in feed.results()]
    assert states.count("fail") >= 1 and states.count("complete") >= 1 and len(states) == 5
    assert "learning rates" in next(result.reason for result in feed.results() if result.state == "fail")


def test_values_that_do_not_go_together_are_a_failed_candidate_that_is_no_trial(tmp_path):
    heads = {"head.num_heads": Choice((8, 7)), "train.lr": Range(1e-5, 1e-1, log=True)}
    feed = drive(search(heads, num_trials=6), tmp_path)
    invalid = [one for one in feed.state.candidates if one.invalid]
    assert invalid and all("num_heads must divide" in one.invalid for one in invalid)
    assert feed.state.num_new == 6


def test_more_trials_extend_a_search_by_those_alone(tmp_path):
    drive(search(num_trials=5), tmp_path)
    before = {path.name for path in (tmp_path / "trials").iterdir()}
    feed = drive(search(num_trials=8), tmp_path)
    after = {path.name for path in (tmp_path / "trials").iterdir()}
    assert before < after and len(after) == feed.state.num_new == 8


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"space": {**SPACE, "train.lr": Range(1e-4, 1e-1, log=True)}}, "space.train.lr.low: 1e-05 -> 0.0001"),
        ({"sampler": "random"}, "sampler: tpe -> random"),
        ({"while_searching": {"train.epochs": 2}}, "while_searching.train.epochs: not there -> 2"),
    ],
)
def test_another_space_or_base_is_refused_with_the_difference_and_the_way_on(changed, said, tmp_path):
    drive(search(num_trials=3), tmp_path)
    with pytest.raises(InputError) as error:
        feed_of(search(**{"space": SPACE, **changed}), tmp_path)
    assert said in str(error.value) and "--trials" in str(error.value) and "--name" in str(error.value)


def test_another_base_is_refused_with_the_difference(tmp_path):
    drive(search(num_trials=3), tmp_path)
    with pytest.raises(InputError, match=r"base.head.ffn_dim: not there -> 77"):
        feed_of(search().override({"head.ffn_dim": 77}), tmp_path)


def test_training_clips_are_held_out_where_there_is_no_validation_split_and_only_while_searching(tmp_path):
    def identify(config):
        return SimpleNamespace(**{**vars(fakes.identify(config)), "validation": False})

    feed = feed_of(search(), tmp_path, identify)
    assert feed.next().config.data.holdout == 0.2
    assert search().study({"base": {}}).datasets["haa500"].data.holdout == 0


def test_winner_and_base_are_run_over_seeds_that_chose_nothing_and_the_table_says_of_how_many(tmp_path):
    mine = search(num_trials=6, seeds=(1,), final_seeds=3)
    feed = drive(mine, tmp_path)
    rows, note = final_rows(mine, feed.state, feed.results())
    final = mine.study(rows, note=note)
    assert list(final.rows) == ["base", "winner"] and final.base_row == "base" and final.seeds == (0, 2, 3)
    assert "picked from 6 candidates (6 complete) by val_top1 at seed 1" in final.note
    assert "flatter" not in note
    by_test = feed.state.model_copy(update={"objectives": ("top1",)})
    assert "flatter" in final_rows(mine, by_test, feed.results())[1]
    assert evolve(mine.base, final.rows["winner"])


def test_the_front_holds_all_that_no_other_beats_in_both(tmp_path):
    mine = search(num_trials=12, **KINDS["nsga2"])
    feed = drive(mine, tmp_path)
    best = winners(feed.state, feed.results())
    values = [result.values for result in feed.results()]
    for one in best:
        score, cost = values[one.number]
        assert not [other for other in values if other[0] >= score and other[1] <= cost and other != (score, cost)]
    assert list(final_rows(mine, feed.state, feed.results())[0])[:2] == ["base", "front 1"]


def test_a_damaged_or_newer_search_file_is_refused_by_name(tmp_path):
    drive(search(num_trials=2), tmp_path)
    path = tmp_path / "studies/mine/search.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(InputError, match=r"search.json: not a search .* remove the file"):
        read_search(tmp_path, "mine")
    path.write_text('{"schema_version": 99}')
    with pytest.raises(InputError, match="newer taghead"):
        read_search(tmp_path, "mine")
    with pytest.raises(InputError, match="no search 'other'"):
        read_search(tmp_path, "other")


def test_a_trial_that_is_lost_for_good_counts_as_failed_until_it_is_taken_up_again(tmp_path):
    mine = search(num_trials=2, ahead=1)
    feed = feed_of(mine, tmp_path)
    first = again = feed.next()
    while again.trial_id == first.trial_id:
        feed.done(first, Outcome("lost", "its worker process died"))
        again = feed.next()
    assert feed.results()[0].state == "fail"
    later = feed_of(mine, tmp_path)
    assert later.results()[0].reason == "its worker process died"
    assert later.next().trial_id == again.trial_id
    write_search(taken_up(later.state), results=tmp_path)
    assert feed_of(mine, tmp_path).next().trial_id == first.trial_id


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objectives": ("accuracy",)}, "unknown objective 'accuracy'"),
        ({"sampler": "tpee"}, "unknown sampler 'tpee'; did you mean 'tpe'"),
        ({"pruner": "median", "seeds": (0, 1)}, "a pruner needs one seed and one objective"),
        ({"space": {}}, "space must not be empty"),
        ({"space": {"head.alfa": Choice((0.1, 0.2))}}, "unknown key 'head.alfa'"),
        ({"space": {"head.alpha": Range(0.1, 1.5)}}, "head.alpha: .*1.5"),
        ({"space": {"head.alpha": Range(0.1, 0.5)}, "sampler": "grid"}, "needs a step in the range of head.alpha"),
        ({"space": {"head.alpha": Range(0.1, 0.5, only_if=READOUT), "head.readout": Choice(("max",))}}, "must come"),
        ({"num_trials": 0}, "num_trials must be a whole number from 1"),
        ({"num_trials": True}, "num_trials must be a whole number"),
        ({"objectives": "val_top1"}, "objectives must be a tuple"),
        ({"objectives": ("val_top1", "val_top1")}, "objectives must be different"),
        ({"space": {"head.alpha": [0.1, 0.2]}}, "head.alpha must be a Choice or a Range"),
        ({"space": [1]}, "space must be a dict"),
        ({"sampler_options": {"seed": 1}}, "given as seed"),
        ({"metrics": ()}, "metrics must not be empty"),
        ({"final_seeds": 0}, "final_seeds must be a whole number from 1"),
        ({"seeds": (0, 0)}, "seeds must be different"),
        ({"while_searching": {"train.epochs": -1}}, "while searching: train.epochs"),
        ({"holdout": 1.5}, "while searching: data.holdout"),
        ({"space": {"head.alpha": Choice((0.1, 0.2), only_if={"head.readuot": ("max",)})}}, "key 'head.readuot'"),
        ({"space": {"head.alpha": Choice((0.1, 0.2), only_if={"head.readout": ("maxx",)})}}, "only if head.readout is"),
        ({"objectives": ("parameters",), "space": {"model.backbone": Choice(("a:b", "c:d"))}}, "not known before"),
    ],
)
def test_a_search_is_checked_when_it_is_made(changes, said):
    with pytest.raises(InputError, match=said):
        search(**{"space": SPACE, **changes})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Range(0.1, 0.5, step=0), "step > 0"),
        (lambda: Range(0.1, 0.5, step="x"), "are numbers, but got 'x'"),
        (lambda: Range(0.5, 0.1), "low < high"),
        (lambda: Choice(5), r"Choice\(\(0.1, 0.2\)\), but got 5"),
        (lambda: Choice((0.1, 0.1)), "different values"),
        (lambda: Choice((0.1, 0.2), only_if={"head.readout": "max"}), "only_if is given as"),
    ],
)
def test_choices_and_ranges_are_checked_when_they_are_made(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_a_search_by_validation_clips_needs_some(tmp_path):
    def identify(config):
        return SimpleNamespace(**{**vars(fakes.identify(config)), "validation": False})

    with pytest.raises(InputError, match="no validation clips, by which it chooses, and holdout is 0"):
        feed_of(search(holdout=0), tmp_path, identify)


@pytest.mark.parametrize("text", ["epoch,val_top1\nx,y\n", "epoch,los", None])
def test_a_damaged_history_is_one_failed_candidate_that_can_be_trained_again(text, tmp_path):
    mine, store = search(num_trials=4), Store(tmp_path)
    feed = drive(mine, tmp_path)
    name = feed.state.candidates[1].trials[0]
    path = store.trials / name / "history.csv"
    path.unlink() if text is None else path.write_text(text)
    again = feed_of(mine, tmp_path)
    assert [result.state for result in again.results()] == ["complete", "fail", "complete", "complete"]
    assert "history.csv" in again.results()[1].reason and "retry mine" in again.results()[1].reason
    assert damaged(again.state, store) == {name}


def test_a_seed_that_failed_makes_no_damage_of_the_other(tmp_path):
    mine, store = search(num_trials=2, seeds=(0, 1)), Store(tmp_path)
    feed = drive(mine, tmp_path)
    ended, whole = feed.state.candidates
    path = store.trials / ended.trials[1] / "record.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "status": "diverged", "error": "loss is not finite"}))
    assert result_of(feed.state, ended, store).state == "fail"
    assert damaged(feed.state, store) == set()
    (store.trials / whole.trials[1] / "history.csv").write_text("epoch,val_top1\nx,y\n")
    assert damaged(feed.state, store) == {whole.trials[1]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found["candidates"].pop(1), "candidate 1 is missing"),
        (lambda found: found["candidates"][1].update(same_as=99), "repeats one that is not there"),
        (lambda found: found["candidates"][1].update(same_as=1), "repeats one that is not there"),
        (lambda found: found["candidates"][1]["params"].update({"head.foo": 1}), "keys that are not searched"),
        (lambda found: found.update(objectives=["foo"]), "unknown objectives"),
        (lambda found: found["definition"].pop("space"), "not a search"),
    ],
)
def test_a_search_file_that_does_not_hold_together_is_refused(change, said, tmp_path):
    drive(search(num_trials=3), tmp_path)
    path = tmp_path / "studies/mine/search.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    with pytest.raises(InputError, match=said):
        read_search(tmp_path, "mine")


def test_a_search_file_whose_candidates_were_changed_is_refused(tmp_path):
    mine = search(num_trials=3)
    drive(mine, tmp_path)
    path = tmp_path / "studies/mine/search.json"
    found = json.loads(path.read_text())
    one, other = found["candidates"][:2]
    one["trials"], other["trials"] = other["trials"], one["trials"]
    path.write_text(json.dumps(found))
    with pytest.raises(InputError, match=r"search.json: candidate 0 was changed \(its trials are others\)"):
        feed_of(mine, tmp_path)


def test_fewer_trials_leave_a_search_as_it_is(tmp_path):
    drive(search(num_trials=5), tmp_path)
    assert feed_of(search(num_trials=2), tmp_path).state.num_trials == 5


def test_options_that_a_sampler_does_not_take_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="foo"):
        feed_of(search(sampler_options={"foo": 1}), tmp_path)
    assert not (tmp_path / "studies").exists()


def test_a_grid_of_too_many_points_is_refused(tmp_path):
    wide = {key: Range(1, 1000) for key in ("head.ffn_dim", "head.k_prop")}
    with pytest.raises(InputError, match="at most 100,000 points"):
        feed_of(search(wide, sampler="grid"), tmp_path)


def test_what_a_finished_search_has_left_is_nothing(tmp_path):
    mine, store = search(num_trials=4), Store(tmp_path)
    identity = fakes.identify(mine.base)
    expected = expected_trials(mine, feed_of(mine, tmp_path).state, identity=identity, store=store)
    assert len(expected) == 4 + 2 * 3
    feed = drive(mine, tmp_path)
    final = make_plan(mine.study(*final_rows(mine, feed.state, feed.results())[:1]), identify=fakes.identify)
    expected = expected_trials(mine, feed.state, identity=identity, store=store)
    assert [one.trial_id for one in expected] and {one.trial_id for one in expected} == set(final.trial_ids())


def test_a_key_given_by_hand_is_fixed_and_no_longer_searched():
    fixed = search().override({"train.lr": 1e-3})
    assert "train.lr" not in fixed.space and fixed.base.train.lr == 1e-3
