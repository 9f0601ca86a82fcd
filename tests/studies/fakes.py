"""A stand-in for `taghead.run`: the same contract (checkpoint, history, record last), and no video at all.

What it does goes by the seed: see `run`. Each epoch it does is a line in ``epochs.log`` beside the results folder.
"""

import errno
import math
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from studies.plan import make_plan
from studies.store import Store
from studies.study import Study
from studies.trial import Trial, Work
from taghead.config import Config, TrainConfig
from taghead.errors import InputError
from taghead.files import write_text, written_whole
from taghead.record import KEPT_FILES, DataFacts, MachineFacts, Record, write_record
from taghead.record import trial_id as name_of

EPOCHS = 4
BASE = Config(train=TrainConfig(epochs=EPOCHS))
DIES_ONCE, RAISES, DIVERGES, OUT_OF_MEMORY, REFUSED, FULL, HANGS, DIES_WRITING = range(101, 109)  # seeds
DATA = "fingerprint-of-it"


@dataclass(frozen=True)
class Machine:
    device: str = "cpu"
    threads: int = 1
    seconds: float = 0.0  # an epoch


@dataclass(frozen=True)
class Place(Machine):
    """A machine as the commands make them."""

    data_root: Path | None = None
    weights: Path | None = None
    missing: str = "error"
    cache: Path | None = None
    seconds: float = float(os.environ.get("SECONDS_AN_EPOCH", 0))


def run(config, *, seed, machine, folder, keep, on_epoch, attempt, expect=None):
    at = folder / "checkpoint.pt"
    begun = int(at.read_text()) if at.exists() else 0
    for epoch in range(begun + 1, config.train.epochs + 1):
        _misbehave(seed, epoch, attempt, at)
        time.sleep(machine.seconds)
        with (folder.parents[2] / "epochs.log").open("a") as log:
            log.write(f"{folder.name} {epoch} {os.getpid()}\n")
        write_text(at, str(epoch))
        _write_history(folder, epoch)
        on_epoch({"epoch": epoch, "epochs": np.int64(config.train.epochs), "loss": np.float64(1 / epoch)})
    _write_history(folder, config.train.epochs)
    for name in keep:
        np.savez(folder / KEPT_FILES[name], seed) if name != "weights" else write_text(folder / KEPT_FILES[name], "w")
    diverged = {"status": "diverged", "error": "loss is not finite in epoch 1"} if seed == DIVERGES else None
    outcome = diverged or {"status": "complete", "metrics": {"top1": 1 / (seed + 2), "mca": 0.25}}
    record = Record(
        trial_id=name_of(config, seed=seed, data=DATA, weights=None),
        seed=seed,
        config=config,
        data=DataFacts(
            dataset="haa500", fingerprint=DATA, synthetic=False, num_classes=3, num_train=9, num_val=0, num_test=3
        ),
        machine=MachineFacts(device="cpu", threads=1, python="3", torch="2"),
        attempt=attempt,
        **outcome,
    )
    write_record(record, folder)
    at.unlink()
    return record


def _write_history(folder, epochs):
    write_text(folder / "history.csv", "epoch,loss\n" + "".join(f"{n},{1 / n}\n" for n in range(1, epochs + 1)))


def _misbehave(seed, epoch, attempt, checkpoint):
    if seed == DIES_ONCE and attempt == 1 and epoch == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == DIES_WRITING and attempt == 1 and epoch == 3:
        with written_whole(checkpoint) as beside:
            beside.write_text("a ha")
            os.kill(os.getpid(), signal.SIGKILL)
    if seed == HANGS and epoch == 3:
        re.match("(a+)+$", "a" * 64 + "b")  # for years, in C, with the interpreter's lock
    if seed == RAISES:
        raise RuntimeError("shapes do not match\nand more of it")
    if seed == OUT_OF_MEMORY:
        raise MemoryError
    if seed == REFUSED:
        raise InputError("labels must be below 3, but got 7; mend the list.")
    if seed == FULL:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")


def complete(folder, *, machine, keep):
    for name in keep:
        (folder / KEPT_FILES[name]).write_text("by evaluation")


def identify(config):
    return SimpleNamespace(data=DATA, weights=None, synthetic=False, validation=True)


def study(**changes):
    values = {"name": "mine", "title": "A study", "rows": {"B": {"model.head": "linear"}, "Full": {}}, "seeds": (0, 1)}
    return Study(**{"datasets": {"haa500": BASE}, **values, **changes})


def plan(**changes):
    return make_plan(study(**changes), identify=identify)


def trial(seed=0, *, config=BASE, keep=(), label="a trial"):
    name = name_of(config, seed=seed, data=DATA, weights=None)
    return Trial(trial_id=name, config=config, seed=seed, keep=frozenset(keep), data=DATA, synthetic=False, label=label)


def work(root, *, seconds=0.0, timeout=None):
    root.mkdir(parents=True, exist_ok=True)  # as a launch does
    return Work(root=root, machines={"haa500": Machine(seconds=seconds)}, run=run, complete=complete, timeout=timeout)


class Watch:
    """Remembers what it is told."""

    def __init__(self):
        self.told = []

    def began(self, trial):
        self.told.append(("began", trial.seed))

    def epoch(self, trial, row):
        self.told.append(("epoch", trial.seed, row["epoch"]))

    def ended(self, trial, outcome):
        self.told.append(("ended", trial.seed, outcome.ending))


def score(config):
    """A made-up score: best at a learning rate of 1e-3 and the max readout."""
    return 0.8 - abs(math.log10(config.train.lr) + 3) / 5 + 0.1 * (config.head.readout == "max")


def scored(config, *, seed, machine, folder, keep, on_epoch, attempt, expect=None):
    """Another stand-in: its history has a validation score that grows to `score`."""
    text = "epoch,val_top1\n"
    for epoch in range(1, config.train.epochs + 1):
        value = score(config) * epoch / config.train.epochs
        text += f"{epoch},{value}\n"
        write_text(folder / "history.csv", text)
        on_epoch({"epoch": epoch, "epochs": config.train.epochs, "val_top1": value})
    record = Record(
        trial_id=name_of(config, seed=seed, data=DATA, weights=None),
        seed=seed,
        status="complete",
        config=config,
        data=DataFacts(
            dataset="haa500", fingerprint=DATA, synthetic=False, num_classes=3, num_train=9, num_val=3, num_test=3
        ),
        machine=MachineFacts(device="cpu", threads=1, python="3", torch="2"),
        epoch=config.train.epochs,
        metrics={"top1": score(config), "mca": score(config)},
        attempt=attempt,
    )
    write_record(record, folder)
    return record


def fails_often(config, **more):
    """As `scored`, but for learning rates that are too high."""
    if config.train.lr > 1e-3:
        raise RuntimeError("no such learning rates")
    return scored(config, **more)


_HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_HERE), str(_HERE.parents[1])])}
_COMMAND = """
import fakes
from studies import trial
from taghead import identity, machine
machine.Machine, machine.find_device = fakes.Place, lambda name: "cpu"
identity.identify = lambda config, machine: fakes.identify(config)
trial.run, trial.complete = fakes.run, fakes.complete
from studies.__main__ import main
main()
"""
_OWN = """
from fakes import DIVERGES, RAISES, study
STUDY = study(seeds=(0, 1, 2))
DIVERGES = study(name="diverges", seeds=(DIVERGES,))
"""


@contextmanager
def commands(folder):
    """Gives a function that starts ``taghead-studies run`` in a folder of its own, at so many seconds an epoch."""
    (folder / "own.py").write_text(_OWN)
    (folder / "data").mkdir()
    begun = []

    def start(*words, study="STUDY", seconds=0.0, place="--in-process", files=None):
        command = [sys.executable, "-c", _COMMAND, "run", f"own.py:{study}", place, *words]
        if files is not None:
            command = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
        environment = {**ENVIRONMENT, "SECONDS_AN_EPOCH": str(seconds)}
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def end(process):
    said, errors = process.communicate(timeout=300)
    return process.returncode, said, errors


def wait_for(condition, process):
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_whole(root):
    """Every trial is there with one row an epoch, and nothing is left over; gives how many."""
    store = Store(root)
    for path in store.trials.iterdir():
        assert store.read(path.name).status == "complete"
        assert (path / "history.csv").read_text().count("\n") == EPOCHS + 1
        assert {file.name for file in path.iterdir()} <= {
            "history.csv",
            "record.json",
            "claim.1.json",
        }  # the last, of a kill
    assert [path.name for path in store.running.iterdir()] == []
    return len(list(store.trials.iterdir()))
