"""Real Ray, real processes, real kills: each driver below is a process of its own, on two CPUs and the loopback."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import DIES_ONCE, DIVERGES, EPOCHS, RAISES, Watch, trial, work

from studies.feed import GridFeed, run_here
from studies.store import Store

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}


def start(root, seconds, *seeds, **options):
    return subprocess.Popen(
        [sys.executable, HERE / "driver.py", root, str(seconds), *map(str, seeds)],
        env={**ENVIRONMENT, "DRIVER": json.dumps(options)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def metrics(root, *seeds):
    return [Store(root).read(trial(seed).trial_id).metrics for seed in seeds]


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory):
    """A study on Ray in which one worker dies, one trial raises and one diverges."""
    root = tmp_path_factory.mktemp("disturbed") / "results"
    driver = start(root, 0.0, 0, DIES_ONCE, RAISES, DIVERGES, 1)
    said, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, said
    lines = [line.split() for line in said.splitlines()]
    return root, said, {int(line[1]): line[2] for line in lines if line[0] == "outcome"}


def test_ray_runs_a_feed_whatever_becomes_of_its_trials(disturbed):
    _, _, outcomes = disturbed
    ends_badly = {RAISES: "failed", DIVERGES: "diverged"}
    assert outcomes == {0: "complete", DIES_ONCE: "complete", 1: "complete", **ends_badly}


def test_epochs_reach_the_driver_and_ray_itself_says_nothing(disturbed):
    _, said, _ = disturbed
    assert [line for line in said.splitlines() if line.startswith("epoch 0 ")] == [
        f"epoch 0 {epoch}" for epoch in range(1, EPOCHS + 1)
    ]
    assert {line.split()[0] for line in said.splitlines()} == {"began", "epoch", "ended", "outcome"}


def test_the_trial_of_a_killed_worker_goes_on_from_its_checkpoint(disturbed):
    root, _, _ = disturbed
    name = trial(DIES_ONCE).trial_id
    log = [line.split() for line in (root.parent / "epochs.log").read_text().splitlines()]
    assert [int(epoch) for trial_id, epoch, _ in log if trial_id == name] == [1, 2, 3, 4]
    assert len({pid for trial_id, _, pid in log if trial_id == name}) == 2
    assert Store(root).read(name).attempt == 2


def test_workers_live_from_trial_to_trial(disturbed):
    root, _, _ = disturbed
    log = [line.split() for line in (root.parent / "epochs.log").read_text().splitlines()]
    pids = {pid for _, _, pid in log}
    assert len(pids) < len({(trial_id, pid) for trial_id, _, pid in log})


@pytest.fixture(scope="module")
def sharing(tmp_path_factory):
    """A search's study on two GPUs that are only numbers, of which trials take parts; odd seeds are stopped."""
    root = tmp_path_factory.mktemp("sharing") / "results"
    options = {"workers": None, "total_cpus": 8, "total_gpus": 2, "meet": 4, "prunes": True}
    options["gpus"] = [1.0, 0.5, 0.25, 0.25, 0.25, 0.25]
    said, _ = (driver := start(root, 0.0, *range(6), **options)).communicate(timeout=300)
    assert driver.returncode == 0, said
    return root, said


def test_a_trial_that_the_feed_stops_ends_there_and_is_recorded_as_pruned(sharing):
    root, said = sharing
    log = [line.split() for line in (root.parent / "epochs.log").read_text().splitlines()]
    for seed in range(6):
        record, name = Store(root).read(trial(seed).trial_id), trial(seed).trial_id
        pruned = seed % 2 == 1
        assert (record.status, f"outcome {seed} {record.status}" in said) == ("pruned" if pruned else "complete", True)
        assert len([epoch for at, epoch, _ in log if at == name]) == (1 if pruned else EPOCHS)
    assert not list((root / "running").iterdir())


def test_a_trial_that_takes_a_whole_gpu_has_it_alone_and_those_that_take_parts_share_the_other(sharing):
    root, _ = sharing
    seen = sorted(path.read_text() for path in (root.parent / "meeting").iterdir())[:4]
    assert sorted(map(seen.count, ("0", "1"))) == [1, 3]


def test_trials_that_take_alike_use_a_worker_again(sharing):
    root, _ = sharing
    assert len(list((root.parent / "meeting").iterdir())) < 6


def test_a_killed_driver_takes_its_workers_with_it_and_the_next_launch_goes_on(root, epochs):
    seeds = (0, 1, 2)
    driver = start(root, 1.0, *seeds)
    try:
        for line in driver.stdout:
            if line.startswith("epoch 0 1"):
                break
    finally:
        driver.kill()
        driver.wait()
    driver.stdout.close()
    store, name = Store(root), trial(0).trial_id
    deadline = time.monotonic() + 60
    while store.is_running(name) and time.monotonic() < deadline:
        time.sleep(0.1)
    before = len(epochs())
    feed = GridFeed([trial(seed) for seed in seeds], store=store)

    run_here(feed, work(root), watch=Watch())
    assert [outcome.ending for outcome in feed.outcomes.values()] == ["complete"] * 3
    done = [epoch for trial_id, epoch in epochs() if trial_id == name]
    assert done == list(range(1, EPOCHS + 1))  # none twice
    assert before + len(epochs()[before:]) == len(seeds) * EPOCHS
    assert store.read(name).attempt == 2
    assert metrics(root, *seeds) == [{"top1": 1 / (seed + 2), "mca": 0.25} for seed in seeds]


def test_a_stop_whose_interrupt_was_lost_on_the_way_is_heeded_all_the_same(root):
    said, _ = (driver := start(root, 0.5, *range(20), stop_at=3)).communicate(timeout=120)
    assert driver.returncode == 0 and "\nstopped\n" in said, said
    assert said.count("none") > 10 and not any(Store(root).is_running(trial(seed).trial_id) for seed in range(20))


def test_a_cluster_of_another_version_is_refused_by_its_versions(tmp_path):
    script = (
        "import sys; from studies import executor; from studies.feed import GridFeed\n"
        "from studies.room import Resources\n"
        "from fakes import Watch, trial, work; from pathlib import Path; from studies.store import Store\n"
        "from taghead.errors import InputError; root = Path(sys.argv[1]); done_by = work(root)\n"
        "def init(*_, **__): raise RuntimeError('Version mismatch: The cluster was started with:\\n    Ray: 2.1')\n"
        "executor.ray.init = init; executor.check_address = print; feed = GridFeed([trial()], store=Store(root))\n"
        "try: executor.run_on_ray(feed, done_by, resources=Resources(address='host:1'), watch=Watch())\n"
        "except InputError as error: print(error)\n"
    )
    out = subprocess.run([sys.executable, "-c", script, tmp_path], env=ENVIRONMENT, capture_output=True, text=True)
    said = "Version mismatch: The cluster was started with: Ray: 2.1 Install the same Python and Ray on all machines."
    assert out.stdout == f"host:1\n--address host:1: {said}\n", out.stderr


def test_a_sigterm_while_ray_starts_is_a_stop_like_any_other(tmp_path):
    script = (
        "import signal, sys; from studies import drive, executor\n"
        "from fakes import Watch, trial, work; from studies.feed import GridFeed; from studies.store import Store\n"
        "from pathlib import Path; root = Path(sys.argv[1]); stop = drive.Stop(); done_by = work(root)\n"
        "from studies.room import Resources\n"
        "def init(*_, **__):\n"
        "    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as Ray does\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "executor.ray.init = init; signal.signal(signal.SIGTERM, stop)\n"
        "feed = GridFeed([trial()], store=Store(root))\n"
        "try: executor.run_on_ray(feed, done_by, resources=Resources(), watch=Watch())\n"
        "except KeyboardInterrupt: print('stopped by', stop.number)\n"
    )
    out = subprocess.run([sys.executable, "-c", script, tmp_path], env=ENVIRONMENT, capture_output=True, text=True)
    assert out.stdout == "stopped by 15\n", out.stderr


def test_here_a_stop_is_heeded_between_two_trials(root):
    watch, feed = Watch(), GridFeed([trial(0), trial(1)], store=Store(root))
    with pytest.raises(KeyboardInterrupt):
        run_here(feed, work(root), watch=watch, stopped=lambda: bool(watch.told))
    assert watch.told[-1] == ("ended", 0, "complete")


def test_here_does_the_same_without_ray_in_order(root):

    watch, feed = Watch(), GridFeed([trial(0), trial(RAISES)], store=Store(root))
    run_here(feed, work(root), watch=watch)
    assert watch.told == [
        ("began", 0),
        *(("epoch", 0, epoch) for epoch in range(1, EPOCHS + 1)),
        ("ended", 0, "complete"),
        ("began", RAISES),
        ("ended", RAISES, "failed"),
    ]


REFUSED = {
    "64 GPUs": ({"gpus": 64, "workers": 1}, None, "a trial asks for 64 GPU, but no machine has more than 0; lower"),
    "no port": ({"address": "127.0.0.1:1"}, None, "--address 127.0.0.1:1: nothing answers there"),
    "no number": ({"address": "127.0.0.1:port"}, None, "--address 127.0.0.1:port: nothing answers there"),
    "Ray Client": ({"address": "ray://127.0.0.1:1"}, None, "--address ray://127.0.0.1:1: it is HOST:PORT, or auto."),
    "no address": ({"address": "foo"}, None, "--address foo: it is HOST:PORT, or auto."),
    "no tracker": ({}, "aim", "--track aim: no such tracker; valid names: mlflow, tensorboard, wandb."),
    "no extra": ({}, "mlflow", "--track mlflow needs a package: pip install mlflow."),
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """What is said of each of `REFUSED`, by one process, and the folder that nothing is to be written to."""
    root = tmp_path_factory.mktemp("refused") / "results"
    script = (
        "import sys; sys.modules['mlflow'] = None  # as if it were not installed\n"
        "from fakes import Watch, trial, work; from pathlib import Path; from test_executor import REFUSED\n"
        "from studies.executor import run_on_ray; from studies.feed import GridFeed\n"
        "from studies.room import Resources; from studies.store import Store; from taghead.errors import InputError\n"
        "root = Path(sys.argv[1]); done_by = work(root); root.rmdir()\n"
        "for name, (resources, track, _) in REFUSED.items():\n"
        "    feed = GridFeed([trial()], store=Store(root))\n"
        "    try: run_on_ray(feed, done_by, resources=Resources(**resources), watch=Watch(), track=track)\n"
        "    except InputError as error: print(name, error, sep=': ')\n"
    )
    out = subprocess.run([sys.executable, "-c", script, root], env=ENVIRONMENT, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return dict(line.split(": ", 1) for line in out.stdout.splitlines()), root


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_run_is_refused_at_once_and_leaves_nothing(refusals, name):
    said, root = refusals
    assert said[name].startswith(REFUSED[name][2])
    assert not root.exists()
