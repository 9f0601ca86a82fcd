"""The mirror that optuna-dashboard is shown, against the search and the store that it mirrors."""

import errno
import os
import signal
import subprocess
import sys

import fakes
import pytest
from optuna.trial import TrialState

from studies import dashboard
from studies.candidates import resume, write_search
from studies.dashboard import Mirror, serve
from studies.feed import run_here
from studies.search import SearchFeed
from studies.space import Choice, Range
from studies.store import Store
from studies.study import Search
from studies.trial import Work
from taghead.errors import InputError
from taghead.files import write_text

SPACE = {"train.lr": Range(1e-5, 1e-1, log=True), "head.edges": Choice(((), ("intra_frame", "time_aligned")))}


def search(num_trials=12, **changes):
    common = {"name": "mine", "title": "A search", "datasets": {"haa500": fakes.BASE}, "space": SPACE}
    return Search(**{**common, **changes}, num_trials=num_trials)


@pytest.fixture
def feed(root):
    """Gives a feed over the results folder, worked off or not."""

    def make(search, *, run=fakes.scored, done=True):
        state = resume(search, identity=fakes.identify(search.base), results=root)
        feed = SearchFeed(
            search,
            state,
            store=Store(root),
            identify=fakes.identify,
            save=lambda state: write_search(state, results=root),
        )
        if done:
            work = Work(root=root, machines={"haa500": fakes.Machine()}, run=run, complete=None)
            run_here(feed, work, watch=fakes.Watch())
        return feed

    return make


def test_the_mirror_has_the_states_and_values_and_choices_of_the_store(root, feed):
    done = feed(search(40, seed=3, pruner="median", pruner_options={"n_startup_trials": 2}), run=fakes.fails_often)
    mirrored = Mirror("mine", results=root).study.trials
    results = done.results()
    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "fail": TrialState.FAIL}
    assert {result.state for result in results} == set(states)
    assert [trial.state for trial in mirrored] == [states[result.state] for result in results]
    assert [trial.params for trial in mirrored] == [one.params for one in done.state.candidates]
    for trial, result in zip(mirrored, results, strict=True):
        assert (trial.values or []) == list(result.values) or result.state == "pruned"
        assert trial.intermediate_values == result.curve
    assert all(trial.datetime_start <= trial.datetime_complete for trial in mirrored)
    failed = next(number for number, result in enumerate(results) if result.state == "fail")
    assert "no such learning rates" in mirrored[failed].user_attrs["why it failed"]


def test_the_mirror_follows_what_runs_and_what_ends(root, feed):
    mine = feed(search(2), done=False)
    first = mine.next()
    mirror = Mirror("mine", results=root)
    assert [trial.state for trial in mirror.study.trials] == [TrialState.RUNNING]
    folder = Store(root).running / first.trial_id
    folder.mkdir(parents=True)
    write_text(folder / "history.csv", "epoch,val_top1\n1,0.25\n")
    mirror.renew()
    assert mirror.study.trials[0].intermediate_values == {1: 0.25}
    work = Work(root=root, machines={"haa500": fakes.Machine()}, run=fakes.scored, complete=None)
    mine.done(first, work(first, lambda row: None))
    mine.next()
    mirror.renew()
    assert [trial.state for trial in mirror.study.trials] == [TrialState.COMPLETE, TrialState.RUNNING]
    assert mirror.study.trials[0].value == pytest.approx(fakes.score(first.config))


def test_the_mirror_follows_what_is_trained_on_after_another_searchs_pruner_stopped_it(root, feed):
    options = {"seed": 3, "pruner_options": {"n_startup_trials": 2}}
    pruned = feed(search(40, pruner="median", **options))
    number = next(number for number, result in enumerate(pruned.results()) if result.state == "pruned")
    candidates = list(pruned.state.candidates)
    candidates[number] = candidates[number].model_copy(update={"stopped": None, "judged": None})
    write_search(pruned.state.model_copy(update={"candidates": tuple(candidates)}), results=root)
    mirror = Mirror("mine", results=root)
    assert mirror.study.trials[number].state == TrialState.RUNNING
    write_search(pruned.state, results=root)
    mirror.renew()
    assert mirror.study.trials[number].state == TrialState.PRUNED


def test_a_damaged_record_is_a_failed_trial_of_the_mirror(root, feed):
    done = feed(search(3))
    path = Store(root).trials / done.state.candidates[1].trials[0] / "record.json"
    path.write_text(path.read_text()[:100])
    states = [trial.state.name for trial in Mirror("mine", results=root).study.trials]
    assert states == ["COMPLETE", "FAIL", "COMPLETE"]


def test_two_objectives_are_mirrored_with_their_directions_and_names(root, feed):
    feed(search(4, objectives=("val_top1", "parameters"), sampler="random"))
    study = Mirror("mine", results=root).study
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["val_top1", "parameters"]
    assert study.best_trials


def test_without_optuna_dashboard_the_remedy_is_told(root, feed, monkeypatch):
    feed(search(1))
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(InputError, match="pip install optuna-dashboard"):
        serve("mine", results=root)


def test_what_is_served_is_the_mirror(root, feed, monkeypatch, capsys):
    feed(search(2))
    served = {}
    fake = type(sys)("optuna_dashboard")
    fake.run_server = lambda storage, host, port: served.update(storage=storage, host=host, port=port)
    monkeypatch.setitem(sys.modules, "optuna_dashboard", fake)
    monkeypatch.setattr(dashboard, "EVERY", 60.0)
    serve("mine", results=root, port=8123)
    assert served["port"] == 8123 and served["host"] == "127.0.0.1"
    assert len(served["storage"].get_all_trials(0)) == 2
    assert "http://127.0.0.1:8123" in capsys.readouterr().out


@pytest.fixture
def taken(monkeypatch):
    """An optuna-dashboard whose port another process has."""

    def run_server(storage, host, port):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    fake = type(sys)("optuna_dashboard")
    fake.run_server = run_server
    monkeypatch.setitem(sys.modules, "optuna_dashboard", fake)
    monkeypatch.setattr(dashboard, "EVERY", 60.0)


def test_a_port_that_is_taken_is_told_with_a_remedy_that_the_command_has(root, feed, taken, capsys):
    feed(search(1))
    with pytest.raises(InputError, match=r"^127.0.0.1:8123: Address already in use; give another --port\.$"):
        serve("mine", results=root, port=8123)
    dashboard._serve_when_there("mine", root, 8123)  # as by `run`, which has no --port
    told = capsys.readouterr().err
    assert "--dashboard: 127.0.0.1:8123: Address already in use" in told
    assert f"taghead-studies dashboard mine --results {root} --port N" in told


def test_an_interrupt_while_the_search_is_waited_for_is_no_error(root, monkeypatch):
    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(dashboard.time, "sleep", interrupted)
    dashboard._serve_when_there("mine", root, 8123)


_BESIDE = """
import multiprocessing, sys, time
from pathlib import Path
from studies.dashboard import beside
with beside("mine", results=Path(sys.argv[1])):
    print(multiprocessing.active_children()[0].pid, flush=True)
    time.sleep(600)
"""


def test_the_process_beside_a_run_ends_with_it_even_where_that_is_killed(root):
    command = [sys.executable, "-c", _BESIDE, str(root)]
    driver = subprocess.Popen(command, env=fakes.ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    child = int(driver.stdout.readline())
    driver.kill()
    try:
        driver.communicate(timeout=60)  # to the end of what it prints, which the process beside it holds open too
    except subprocess.TimeoutExpired:
        os.kill(child, signal.SIGKILL)
        pytest.fail("it outlives the run")
    finally:
        driver.stdout.close()
        driver.wait()
