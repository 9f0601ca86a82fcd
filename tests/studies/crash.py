"""Kills a worker before each of its file operations in turn: ``crash.py FOLDER NAME``, NAME one of `SCENES`.

Prints one JSON line a kill: what was left, and what the next process made of it.
"""

import json
import os
import signal
import sys
from pathlib import Path

from fakes import trial, work

from studies.store import Store
from taghead.config import Config

EPOCHS = 2

OPERATIONS = {"open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "shutil.rmtree"}
SCENES = {  # what is kept by a launch before, and by the one that is killed
    "train": (None, ["embeddings"]),
    "again": (["frame_means"], ["embeddings"]),
    "evaluate": (["weights"], ["embeddings"]),
}


def planned(keep=()):
    return trial(keep=keep, config=Config(train={"epochs": EPOCHS}))


def run_trial(root, keep):
    return work(root)(planned(keep), lambda row: None).ending


def in_a_process(function):
    """Runs a function in a fork, and gives its wait status."""
    child = os.fork()
    if child == 0:
        function()
        os._exit(0)
    return os.waitpid(child, 0)[1]


def killed_before(number, root, keep):
    left = [number]

    def count(event, arguments):
        if event not in OPERATIONS or not str(arguments[0]).startswith(str(root)):
            return
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    run_trial(root, keep)


def epochs_of(root):
    log = root.parent / "epochs.log"
    return [int(line.split()[1]) for line in log.read_text().splitlines()] if log.exists() else []


def scene(folder, name):
    before, keep = SCENES[name]
    number, status = 0, signal.SIGKILL
    while status == signal.SIGKILL:
        number += 1
        root = folder / str(number) / "results"
        root.mkdir(parents=True)
        if before is not None:
            in_a_process(lambda root=root: run_trial(root, before))
        earlier = len(epochs_of(root))
        status = in_a_process(lambda number=number, root=root: killed_before(number, root, keep))
        store, one = Store(root), planned().trial_id
        whole = store.ending(one)
        store.check_writable()  # as a launch does
        ending = run_trial(root, keep)
        print(
            json.dumps(
                {
                    "killed": status == signal.SIGKILL,
                    "at_once": whole and whole[0],
                    "ending": ending,
                    "epochs": epochs_of(root)[earlier:],
                    "of": EPOCHS,
                    "history": (store.trials / one / "history.csv").read_text().count("\n") - 1,
                    "kept": sorted(store.kept(one)),
                    "asked": sorted({*keep, *(before or ())}),
                    "left": sorted(path.name for path in store.running.iterdir()),
                    "hidden": sorted(path.name for path in (store.trials / one).glob(".*")),
                    "checkpoint": (store.trials / one / "checkpoint.pt").exists(),
                }
            )
        )


if __name__ == "__main__":
    scene(Path(sys.argv[1]), sys.argv[2])
