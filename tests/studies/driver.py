"""A driver of its own process: ``driver.py ROOT SECONDS_AN_EPOCH SEED [SEED ...]`` runs those seeds on Ray.

Prints what happens as it happens, and what became of each seed at the end. Options come as JSON in ``DRIVER``: those
of `Resources` (``gpus`` may be a list, by the seed), ``prunes`` (odd seeds are stopped after their first epoch),
``patience`` (seconds), ``data_root``, ``meet`` (no trial begins before that many workers are there, each a file with
its GPUs in the folder ``meeting``), ``stop_at`` (the user stops it after that many epochs, and no signal tells it).
"""

import json
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from fakes import Machine, run, trial, work

from studies import executor
from studies.feed import GridFeed
from studies.room import Resources
from studies.store import Store
from taghead.errors import InputError


@dataclass(frozen=True)
class Sited(Machine):
    data_root: Path | None = None
    meeting: Path | None = None
    expected: int = 1


def run_together(config, *, machine, **options):
    """`run`, but not before all workers are there: one could be through with all before the next has started."""
    machine.meeting.mkdir(exist_ok=True)
    (machine.meeting / str(os.getpid())).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
    deadline = time.monotonic() + 60
    while len(list(machine.meeting.iterdir())) < machine.expected and time.monotonic() < deadline:
        time.sleep(0.05)
    return run(config, machine=machine, **options)


class Watch:
    epochs = 0

    def began(self, trial):
        print("began", trial.seed, flush=True)

    def epoch(self, trial, row):
        self.epochs += 1
        print("epoch", trial.seed, row["epoch"], flush=True)

    def ended(self, trial, outcome):
        print("ended", trial.seed, outcome.ending, outcome.message, flush=True)


class PruningFeed(GridFeed):
    """Stops every trial with an odd seed after one epoch."""

    prunes = True

    def epoch(self, trial, row):
        return trial.seed % 2 == 0 or row["epoch"] < 1


if __name__ == "__main__":
    root, seconds, seeds = Path(sys.argv[1]), float(sys.argv[2]), [int(seed) for seed in sys.argv[3:]]
    options = {"workers": 2} | json.loads(os.environ.get("DRIVER", "{}"))
    executor.PATIENCE = options.pop("patience", executor.PATIENCE)
    sites = {"data_root": Path(options.pop("data_root", root.parent)), "meeting": root.parent / "meeting"}
    machine = Sited(seconds=seconds, expected=options.pop("meet", 1), **sites)
    feed_class = PruningFeed if options.pop("prunes", False) else GridFeed
    trials, watch, stop_at = [trial(seed) for seed in seeds], Watch(), options.pop("stop_at", 10**6)
    feed = feed_class(trials, store=Store(root))
    try:
        if isinstance(shares := options.get("gpus"), list):
            options["gpus"] = lambda trial: shares[trial.seed]
        resources = Resources(**options)
        done_by = replace(work(root), machines={"haa500": machine}, run=run_together)
        executor.run_on_ray(feed, done_by, resources=resources, watch=watch, stopped=lambda: watch.epochs >= stop_at)
    except KeyboardInterrupt:
        print("stopped", flush=True)
    except InputError as error:
        print("refused", error, flush=True)
    for one in trials:
        print("outcome", one.seed, getattr(feed.outcomes.get(one.trial_id), "ending", "none"), flush=True)
