"""Two machines of a Ray cluster, played by two sets of Ray's own processes on the loopback, each with one CPU."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
from fakes import EPOCHS, trial

from studies.store import Store

SEEDS = (0, 1, 2, 3, 4)
HERE = Path(__file__).parent
RAY = Path(sys.executable).with_name("ray")
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])]),
    "RAY_AUTH_MODE": "token",  # Ray listens beyond the loopback: only these processes may talk to it
    "RAY_AUTH_TOKEN": os.urandom(32).hex(),
    "RAY_USAGE_STATS_ENABLED": "0",
}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def family(pid):
    """A process and all that it has started, which Ray puts in sessions of their own."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *(one for child in children for one in family(int(child)))]


class Cluster:
    """A head that runs trials, and workers beside it; `kill` is what a power cut is."""

    def __init__(self, folder):
        self.folder, self.port, self.nodes = folder, free_port(), []
        self.address = f"127.0.0.2:{self.port}"
        self.add("--head", f"--port={self.port}", "--include-dashboard=false")

    def add(self, *options, cpus=1, inside=()):
        number = len(self.nodes)
        log = self.folder / f"node{number}.log"
        options = [*(options or [f"--address={self.address}"]), f"--node-ip-address=127.0.0.{number + 2}", "--block"]
        options += [f"--num-cpus={cpus}", "--num-gpus=0", f"--temp-dir={self.folder}/{number}"]
        with log.open("w") as file:
            command = [*inside, RAY, "start", *options, "--object-store-memory=80000000"]
            node = subprocess.Popen(command, env=ENVIRONMENT, stdout=file, stderr=subprocess.STDOUT)
        self.nodes.append(node)
        deadline = time.monotonic() + 90
        while "Ray runtime started" not in log.read_text():
            assert node.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        return node

    def kill(self, node):
        for pid in family(node.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait()

    def drive(self, root, seconds, *seeds, **options):
        return subprocess.Popen(
            [sys.executable, HERE / "driver.py", root, str(seconds), *map(str, seeds)],
            env={**ENVIRONMENT, "DRIVER": json.dumps({"address": self.address, "workers": None, **options})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def log_of(root):
    path = root.parent / "epochs.log"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def finish(driver, said=()):
    """What a driver says in all, and how each seed ended."""
    rest, _ = driver.communicate(timeout=300)
    lines = [*said, *rest.splitlines(keepends=True)]
    return "".join(lines), {line.split()[1]: line.split()[2] for line in lines if line.startswith("outcome")}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    made = Cluster(Path(tempfile.mkdtemp(prefix="ray-")))  # short: Ray's sockets lie in there
    yield made
    for node in reversed(made.nodes):
        made.kill(node)
    shutil.rmtree(made.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cut(cluster, tmp_path_factory):
    """A study on two machines, of which one dies while it trains."""
    root, worker, said = tmp_path_factory.mktemp("cut") / "results", cluster.add(), []
    driver = cluster.drive(root, 0.5, *SEEDS, meet=2)
    for line in driver.stdout:
        said.append(line)
        there = set(map(str, family(worker.pid)))
        if sum(pid in there for _, _, pid in log_of(root)) == 2:
            break
    cluster.kill(worker)
    return root, there, *finish(driver, said)


def test_a_study_runs_on_all_machines_and_loses_nothing_with_one_of_them(cut):
    root, there, said, outcomes = cut
    assert outcomes == {str(seed): "complete" for seed in SEEDS}, said
    trials_at = [{name for name, _, pid in log_of(root) if (pid in there) is remote} for remote in (True, False)]
    assert all(trials_at)
    lost = trials_at[0] & trials_at[1]
    assert {Store(root).read(name).attempt for name in lost} == {2}


def test_no_epoch_is_trained_twice_where_the_folder_is_shared(cut):
    root, _, _, _ = cut
    done = [(name, int(epoch)) for name, epoch, _ in log_of(root)]
    assert sorted(done) == sorted((trial(seed).trial_id, epoch) for seed in SEEDS for epoch in range(1, EPOCHS + 1))


@pytest.fixture(scope="module")
def apart(cluster, tmp_path_factory):
    """A study on two machines, of which one has an empty folder where the other has the results."""
    root = tmp_path_factory.mktemp("apart") / "results"
    (root / "data").mkdir(parents=True)
    hide = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(root))
    if subprocess.run([*hide, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    worker = cluster.add(inside=hide)
    refused, _ = finish(cluster.drive(root, 0.0, 0, data_root=str(root / "data")))
    driver, said, seen = cluster.drive(root, 0.5, *SEEDS, meet=2), [], {}
    for line in driver.stdout:
        said.append(line)
        if line.startswith("epoch"):
            name = trial(int(line.split()[1])).trial_id
            running = Store(root).running / name
            if (running / "claim.1.json").exists():
                pid = json.loads((running / "claim.1.json").read_text())["pid"]
                seen[name] = (pid == driver.pid, Store(root).is_running(name), (running / "history.csv").exists())
    said, outcomes = finish(driver, said)
    cluster.kill(worker)
    return root, seen, said, outcomes, refused


def test_a_machine_without_the_results_folder_delivers_whole_trials(apart):
    root, _, said, outcomes, _ = apart
    assert outcomes == {str(seed): "complete" for seed in SEEDS}, said
    here = {name for name, _, _ in log_of(root)}
    delivered = {trial(seed).trial_id for seed in SEEDS} - here
    assert here and delivered
    for name in delivered:
        assert {path.name for path in (root / "trials" / name).iterdir()} == {"record.json", "history.csv"}
        assert len((root / "trials" / name / "history.csv").read_text().splitlines()) == EPOCHS + 1
        assert Store(root).read(name).attempt == 1
    assert [path.name for path in (root / "running").iterdir()] == []


def test_the_driver_claims_what_such_a_machine_runs_and_its_history_is_seen(apart):
    root, seen, _, _, _ = apart
    here = {name for name, _, _ in log_of(root)}
    assert {claimed for name, claimed in seen.items() if name not in here} == {(True, True, True)}
    assert {by_driver for name, (by_driver, _, _) in seen.items() if name in here} <= {False}


def test_a_machine_without_the_data_is_refused_by_name_before_anything_runs(apart):
    *_, said = apart
    lines = said.splitlines()  # Ray's own remarks about a node that died before may stand between
    assert any(line.startswith(f"refused {socket.gethostname()}: no ") for line in lines), said
    assert not any(line.startswith("began") for line in lines), said


def test_a_cluster_in_which_no_machine_has_room_any_more_ends_the_study(cluster, tmp_path):
    big = cluster.add(cpus=2)
    driver, said = cluster.drive(tmp_path / "results", 0.3, *SEEDS, cpus=2, patience=3), []
    for line in driver.stdout:
        said.append(line)
        if line.startswith("epoch"):
            break
    cluster.kill(big)
    said, _ = finish(driver, said)
    assert "refused for 3 s no machine that Ray knows has had room for a trial (2 CPU and 0 GPU)" in said, said
    assert not any(Store(tmp_path / "results").is_running(trial(seed).trial_id) for seed in SEEDS)
