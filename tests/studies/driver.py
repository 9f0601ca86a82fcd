"""A driver of its own process: ``driver.py ROOT SECONDS_AN_EPOCH SEED [SEED ...]`` runs those seeds on Ray.

Prints what happens as it happens, and what became of each seed at the end.
"""

import sys
from pathlib import Path

from fakes import trial, work

from studies.executor import Resources, run_on_ray
from studies.feed import GridFeed
from studies.store import Store


class Watch:
    def began(self, trial):
        print("began", trial.seed, flush=True)

    def epoch(self, trial, row):
        print("epoch", trial.seed, row["epoch"], flush=True)

    def ended(self, trial, outcome):
        print("ended", trial.seed, outcome.ending, flush=True)


if __name__ == "__main__":
    root, seconds, seeds = Path(sys.argv[1]), float(sys.argv[2]), [int(seed) for seed in sys.argv[3:]]
    trials = [trial(seed) for seed in seeds]
    feed = GridFeed(trials, store=Store(root))
    run_on_ray(feed, work(root, seconds=seconds), resources=Resources(workers=2), watch=Watch())
    for one in trials:
        print("outcome", one.seed, feed.outcomes[one.trial_id].ending, flush=True)
