import itertools
import os
import re
import signal
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import fakes
import pytest

from studies import __main__ as command
from studies.plan import read_plan
from studies.store import Store
from taghead.errors import InputError

OWN = """
from fakes import BASE, EPOCHS, RAISES, DIVERGES, REFUSED, study
from studies.space import Choice, Range
from studies.study import Search
STUDY = study(text="Ours.")
FAILS = study(name="fails", seeds=(0, RAISES))
DIVERGES = study(name="diverges", seeds=(DIVERGES,))
REFUSED = study(name="refused", seeds=(REFUSED,))
KEPT = study(name="kept", keep=("embeddings",))
SPACE = {"train.lr": Range(1e-5, 1e-1, log=True), "head.readout": Choice(("mean", "max"))}
SEARCH = Search(name="sought", title="A search", datasets={"haa500": BASE}, space=SPACE, num_trials=4, ahead=2)
"""


@pytest.fixture
def scored(run, monkeypatch):
    """As `run`, with a training whose validation scores are made up."""
    monkeypatch.setattr(sys.modules["taghead.run"], "run", fakes.scored)
    return run


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command in an empty folder, with the stand-in in place of `taghead.run`; gives status, output, errors."""
    module = types.ModuleType("taghead.run")
    module.run, module.complete = fakes.run, fakes.complete
    monkeypatch.setattr(command.summary, "show_costs", lambda *_, **__: None)  # has tests of its own
    monkeypatch.setitem(sys.modules, "taghead.run", module)
    monkeypatch.setattr("taghead.machine.Machine", Place)
    monkeypatch.setattr("taghead.machine.find_device", find_device)
    monkeypatch.setattr("taghead.identity.identify", lambda config, machine: fakes.identify(config))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "data").mkdir()

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["taghead-studies", *words])
        with pytest.raises(SystemExit) as stop:
            command.main()
        said = capsys.readouterr()
        return stop.value.code or 0, said.out, said.err

    return call


def find_device(name):
    if name == "cuda":
        raise InputError("--device cuda: not to be had here; use cpu, or auto.")
    return "cpu"


@dataclass(frozen=True)
class Place(fakes.Machine):
    data_root: Path | None = None
    weights: Path | None = None
    missing: str = "error"
    cache: Path | None = None


def test_a_study_runs_once_and_then_says_that_it_is_finished(run, epochs):
    status, said, _ = run("run", "own.py:STUDY", "--in-process")
    assert status == 0
    assert "4 trials, 4 to run" in said
    assert "mine: 4 trials: 4 complete" in said
    assert said.splitlines()[-1] == "tables: taghead-analysis tables mine --results results"
    trained = len(epochs())
    status, said, _ = run("run", "own.py:STUDY", "--in-process")
    assert (status, len(epochs())) == (0, trained)
    assert said.splitlines() == [
        "mine: nothing to run, 4 trials: 4 complete",
        "tables: taghead-analysis tables mine --results results",
    ]


def test_more_seeds_run_only_the_new_ones(run):
    run("run", "own.py:STUDY", "--in-process", "--seeds", "1")
    _, said, _ = run("run", "own.py:STUDY", "--in-process", "--seeds", "2")
    assert "4 trials, 2 to run" in said


def test_two_studies_at_once_share_their_trials(run, root):
    status, said, _ = run("run", "own.py:STUDY", "own.py:KEPT", "--in-process")
    assert status == 0
    assert "4 trials, 4 to run" in said
    assert all(Store(root).kept(path.name) == {"embeddings"} for path in (root / "trials").iterdir())


def test_a_failed_trial_is_named_gives_status_1_and_is_run_again_only_after_retry(run, epochs):
    status, said, _ = run("run", "own.py:FAILS", "--in-process")
    assert status == 1
    assert "fails: 4 trials: 2 complete, 2 failed" in said
    assert f"failed   fails: B, haa500, seed {fakes.RAISES}: RuntimeError: shapes do not match (" in said
    status, said, _ = run("run", "own.py:FAILS", "--in-process")
    assert status == 1
    assert "nothing to run" in said
    status, said, _ = run("retry", "fails")
    assert (status, said) == (0, "fails: 2 forgotten; run the study again to train them.\n")
    assert "4 trials, 2 to run" in run("run", "own.py:FAILS", "--in-process")[1]


def test_a_damaged_trial_stops_no_command_and_retry_forgets_it(run, root):
    run("run", "own.py:STUDY", "--in-process", "--seeds", "1")
    first, second = sorted((root / "trials").iterdir())
    (first / "record.json").write_text("{")
    (second / "record.json").unlink()
    status, said, _ = run("run", "own.py:STUDY", "--in-process")
    assert status == 1
    assert "4 trials, 2 to run" in said
    assert "mine: 4 trials: 2 complete, 2 failed" in said
    assert said.count("not a result record") == said.count("no such result record") == 1
    assert "4 trials: 2 complete, 2 failed" in run("status", "mine")[1]
    assert run("retry", "mine")[1] == "mine: 2 forgotten; run the study again to train them.\n"
    assert run("run", "own.py:STUDY", "--in-process")[0] == 0


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("FAILS", "retry fails --results results\n"), ("DIVERGES", "retry diverges --diverged --results results\n")],
)
def test_how_to_run_again_what_failed_is_told_at_the_end_and_by_status(run, name, remedy):
    assert f"to run them again: taghead-studies {remedy}" in run("run", f"own.py:{name}", "--in-process")[1]
    assert f"to run them again: taghead-studies {remedy}" in run("status")[1]


def test_a_damaged_plan_is_told_by_status_and_mended_by_a_launch(run, root):
    run("run", "own.py:STUDY", "--in-process")
    (root / "studies" / "mine" / "plan.json").write_text("{")
    status, _, errors = run("status", "mine")
    assert status == 2
    assert "launch the study again" in errors
    assert run("run", "own.py:STUDY", "--in-process")[0] == 0
    assert run("status", "mine")[0] == 0


def test_input_that_a_trial_refuses_is_told_once_with_status_2(run):
    status, _, errors = run("run", "own.py:REFUSED", "--in-process")
    assert status == 2
    assert errors == "error: labels must be below 3, but got 7; mend the list.\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "compnents"], "no study 'compnents'; did you mean 'components'?"),
        (["run", "components", "--set", "head.alhpa=0.2"], "unknown key 'head.alhpa'; did you mean 'head.alpha'?"),
        (["run", "own.py:STUDY", "--data-root", "none"], "no such data root: none; give the folder"),
        (["run", "components"], "data: no sub-folder gym288; several data sets need one each."),
        (["run", "own.py:STUDY", "--missing", "ignore"], "--missing is error or skip, but got 'ignore'."),
        (["run", "own.py:STUDY", "own.py:KEPT", "--name", "x"], "--name renames one study"),
        (["run", "own.py:STUDY", "--results", "own.py"], "own.py: results cannot be written there"),
        (["run", "own.py:STUDY", "--gpus-per-trial", "1", "--in-process"], "--device cuda: not to be had here"),
        (["run", "own.py:STUDY", "--device", "cuda:1"], "are given their card by Ray; use cuda."),
        (["run", "own.py:STUDY", "--address", "127.0.0.1:1"], "no GPU here by which --device auto could tell"),
        (["run", "own.py:STUDY", "--address", "a:1", "--num-cpus", "2"], "limit what runs at a:1 by --workers."),
        (
            ["plan", "own.py:STUDY", "--address", "a:1", "--num-gpus", "2"],
            "--num-gpus is for a Ray that is started here",
        ),
        (["status", "mine"], "no plan of study 'mine'; none was launched there yet."),
        (["run", "own.py:STUDY", "--trials", "3"], "--trials is for searches; mine is a study of fixed rows."),
        (["run", "own.py:SEARCH", "--dataset", "gym99", "--dataset", "haa500"], "a search has one data set"),
        (["run", "own.py:SEARCH", "--sampler", "tpee"], "unknown sampler 'tpee'; did you mean 'tpe'?"),
        (["run", "own.py:SEARCH", "--set", "train.lr=1e-3", "--set", "head.readout=max"], "space must not be empty"),
        (["run", "own.py:STUDY", "--dashboard"], "--dashboard shows one search at a time, but got 0."),
        (["run", "own.py:STUDY", "--trial-timeout", "9", "--in-process"], "--trial-timeout needs workers"),
        (["run", "own.py:STUDY", "--gpus-per-trial", "half"], "--gpus-per-trial is auto, a part of one GPU as 0.5"),
        (["run", "own.py:STUDY", "--gpus-per-trial", "1.5"], "or a whole number, but got '1.5'"),
        (["run", "own.py:STUDY", "--workers", "2", "--in-process"], "--workers needs workers; leave out --in-process"),
        (["run", "own.py:STUDY", "--weights", "nowhere"], "--weights nowhere: no such file or folder."),
        (["run", "own.py:STUDY", "--cache", "own.py"], "--cache own.py: not a folder."),
        (["dashboard", "mine"], "no search 'mine' was launched there"),
        (["status"], "results: no study was launched there."),
        (["retry", "mine"], "no plan of study 'mine'"),
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(run, words, message):
    status, _, errors = run(*words)
    assert status == 2
    assert errors.startswith("error: ")
    assert message in errors
    assert errors.count("\n") == 1


def test_plan_tells_what_a_launch_would_do_and_changes_nothing(run, root):
    _, said, _ = run("plan", "own.py:STUDY")
    assert "mine: A study; 2 rows x 1 data sets x 2 seeds = 4 different trials\n      4 new\n" in said
    assert not root.exists()
    run("run", "own.py:STUDY", "--in-process", "--seeds", "1")
    _, said, _ = run("plan", "own.py:KEPT")
    assert "2 complete, to be trained again for what is kept (their weights were not kept)" in said
    assert "2 new" in said


def test_a_changed_study_says_what_becomes_of_the_trials_before(run):
    run("run", "own.py:STUDY", "--in-process")
    _, said, _ = run("run", "own.py:STUDY", "--in-process", "--set", "train.lr=0.5")
    assert "mine: 4 trials of its last launch are no part of this one and stay in the results." in said


def test_status_shows_what_runs_with_epoch_and_loss_and_what_failed(run, root):
    run("run", "own.py:FAILS", "--in-process")
    store = Store(root)
    name = next(path.name for path in (root / "trials").iterdir() if store.read(path.name).status == "complete")
    history = (root / "trials" / name / "history.csv").read_text().splitlines()
    store.forget(name)
    claim = store.claim(name)
    _, said, _ = run("status", "fails")
    assert "seed 0: in its first epoch" in said
    (claim.folder / "history.csv").write_text("\n".join(history[:3]))
    _, said, _ = run("status")
    assert "fails: 4 trials: 1 complete, 2 failed, 1 running" in said
    assert "seed 0: epoch 2/4, loss 0.500" in said
    assert said.count("RuntimeError: shapes do not match") == 2


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_cleanly_and_the_same_command_goes_on(run, epochs, monkeypatch, number, status):
    real = fakes.run

    def interrupted(*args, on_epoch, **options):
        def stop(row):
            on_epoch(row)
            if row["epoch"] == 2:
                os.kill(os.getpid(), number)

        return real(*args, on_epoch=stop, **options)

    before = signal.getsignal(number)
    monkeypatch.setattr(sys.modules["taghead.run"], "run", interrupted)
    code, said, _ = run("run", "own.py:STUDY", "--in-process")
    assert code == status
    assert "stopped with 4 of 4 trials left; the same command goes on." in said
    assert signal.getsignal(number) == before
    monkeypatch.setattr(sys.modules["taghead.run"], "run", real)
    assert run("run", "own.py:STUDY", "--in-process")[0] == 0
    assert len(epochs()) == len(set(epochs())) == 4 * fakes.EPOCHS


def test_a_search_runs_its_candidates_then_base_and_winner_over_fresh_seeds(scored, root):
    status, said, _ = scored("run", "own.py:SEARCH", "--in-process")
    assert status == 0
    assert "sought: 4 of 4 candidates: 4 complete" in said
    assert "best     candidate " in said
    plan = read_plan(root, "sought")
    assert (plan.rows, plan.seeds, plan.base_row) == (("base", "winner"), (1, 2, 3), "base")
    assert "picked from 4 candidates" in plan.note
    assert len(list((root / "trials").iterdir())) == 4 + 2 * 3
    again, said, _ = scored("run", "own.py:SEARCH", "--in-process")
    assert again == 0 and "sought: nothing to run, 6 trials: 6 complete" in said
    assert len(list((root / "trials").iterdir())) == 10


def test_more_trials_extend_a_search_and_options_change_it_only_under_another_name(scored, root):
    scored("run", "own.py:SEARCH", "--in-process", "--final-seeds", "1")
    status, said, _ = scored("run", "own.py:SEARCH", "--in-process", "--final-seeds", "1", "--trials", "6")
    assert status == 0 and "sought: 6 of 6 candidates" in said
    status, _, errors = scored("run", "own.py:SEARCH", "--in-process", "--sampler", "random")
    assert status == 2
    assert "sampler: tpe -> random" in errors and "--name" in errors
    again = ("run", "own.py:SEARCH", "--in-process", "--sampler", "random", "--name", "other")
    assert scored(*again)[0] == 0


@pytest.mark.parametrize("names", [("SEARCH", "STUDY"), ("STUDY", "SEARCH")])
def test_a_search_and_a_grid_cannot_have_one_name(scored, names):
    first, second = names
    assert scored("run", f"own.py:{first}", "--in-process", "--name", "both")[0] == 0
    status, _, errors = scored("run", f"own.py:{second}", "--in-process", "--name", "both")
    assert status == 2 and "of the name both; give this one another --name." in errors


def test_plan_status_and_retry_know_searches(scored, root, monkeypatch):
    _, said, _ = scored("plan", "own.py:SEARCH")
    assert "sought: A search; 4 candidates over 2 keys by tpe, x 1 seeds; then base and winner x 3 seeds" in said
    assert "      4 not chosen yet\n" in said and not root.exists()
    monkeypatch.setattr(sys.modules["taghead.run"], "run", fakes.fails_often)
    scored("run", "own.py:SEARCH", "--in-process", "--trials", "8")
    _, said, _ = scored("status")
    failed = int(re.search(r"(\d+) failed", said)[1])
    assert failed and f"failed   {failed} x RuntimeError: no such learning rates" in said
    assert scored("retry", "sought")[1].startswith(f"sought: {failed} forgotten")


def test_a_search_of_which_nothing_is_complete_has_no_winner_and_status_1(run, root, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("never")

    monkeypatch.setattr(sys.modules["taghead.run"], "run", fails)
    status, said, _ = run("run", "own.py:SEARCH", "--in-process")
    assert status == 1
    assert "no candidate of sought is complete, so that there is no winner" in said


def test_a_stopped_search_goes_on_and_ends_as_an_undisturbed_one(scored, root, monkeypatch):
    calls = itertools.count(1)

    def interrupted(*args, on_epoch, **options):
        def stop(row):
            on_epoch(row)
            if next(calls) % 9 == 0:
                os.kill(os.getpid(), signal.SIGTERM)

        return fakes.scored(*args, on_epoch=stop, **options)

    scored("run", "own.py:SEARCH", "--in-process", "--results", "whole")
    monkeypatch.setattr(sys.modules["taghead.run"], "run", interrupted)
    statuses = [scored("run", "own.py:SEARCH", "--in-process")[0]]
    while statuses[-1] and len(statuses) < 20:
        statuses.append(scored("run", "own.py:SEARCH", "--in-process")[0])
    assert statuses[-1] == 0 and statuses.count(143) == len(statuses) - 1 >= 3
    for name in ("search.json", "plan.json"):
        studies = Path("studies") / "sought" / name
        assert (root / studies).read_text() == (root.parent / "whole" / studies).read_text()


@pytest.mark.parametrize("words", [["list"], ["--help"], ["run", "--help"]])
def test_listing_and_help_load_nothing_heavy(words):
    assert loaded(f"sys.argv[1:] = {words!r}\ntry: main()\nexcept SystemExit: pass") == set()


def test_a_launch_is_planned_without_torch(tiny_clips, root):
    """It would be loaded a second time beside Ray's start, whose workers need it and whose driver does not."""
    words = ["run", "components", "--dataset", "synthetic", "--data-root", str(tiny_clips), "--results", str(root)]
    stop = "import studies.drive; studies.drive.Driver.run = lambda *_: 7"
    assert loaded(f"sys.argv[1:] = {words!r}\n{stop}\ntry: main()\nexcept SystemExit as end: assert end.code == 7") <= {
        "numpy"
    }


def test_what_is_loaded_can_be_seen():
    assert loaded("import studies.executor") == {"ray", "pandas", "numpy"}


def loaded(code):
    heavy = "{'torch', 'ray', 'pandas', 'numpy', 'matplotlib', 'optuna'}"
    script = f"import sys\nfrom studies.__main__ import main\n{code}\nprint('loaded', *({heavy} & set(sys.modules)))"
    root = Path(command.__file__).parents[1]
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root)
    return set(out.stdout.splitlines()[-1].split()[1:])
