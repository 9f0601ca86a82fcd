"""What our executor adds to a trial, as a ratio to Ray Tune itself and to a bare pool, on trials that do nothing.

    python benchmarks/bench_overhead.py

A trial is one epoch that computes nothing. All ways take turns, each in a process of its own; a way's seconds a trial
are those after its first fifth, so that the start of Ray and of workers is told apart from it. Ours are the real
store, records and progress, fsync included; the peers keep what they keep by themselves. The second table is what a
launch does beside its trials, by how many trials the results folder holds. Writes overhead.json and overhead.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from machine import machine
from turns import Row, arguments, ratio, spread, turns_of, write

CPUS = 2
STORED = (0, 1_000, 10_000)  # trials in the results folder
NEW = 100  # trials of the study whose launch is timed


class Clock:
    """Is told of every trial that ended; begins to measure when a fifth of them has."""

    def __init__(self, number: int) -> None:
        self._skipped = number // 5
        self._number = number
        self._began = time.perf_counter()
        self._times: list[float] = []

    def ended(self) -> None:
        """A trial has ended."""
        self._times.append(time.perf_counter())

    def result(self) -> dict[str, float]:
        """Seconds until the first trial ended, and seconds a trial after the first fifth."""
        assert len(self._times) == self._number
        trials = self._number - self._skipped
        each = (self._times[-1] - self._times[self._skipped - 1]) / trials
        return {"start": self._times[0] - self._began, "each": each}


def trivial_run(config: Any, *, seed: int, machine: Any, folder: Path, on_epoch: Callable, attempt: int, **_: Any):
    """What `taghead.run.run` leaves, and no more: a history of one epoch and a record."""
    from taghead.files import write_text
    from taghead.record import DataFacts, MachineFacts, Record, trial_id, write_record

    write_text(folder / "history.csv", "epoch,loss\n1,0.5\n")
    on_epoch({"epoch": 1, "epochs": 1, "loss": 0.5})
    counts = {"num_classes": 3, "num_train": 9, "num_val": 0, "num_test": 3}
    record = Record(
        trial_id=trial_id(config, seed=seed, data="clips", weights=None),
        seed=seed,
        status="complete",
        config=config,
        data=DataFacts(dataset="haa500", fingerprint="clips", synthetic=False, **counts),
        metrics={"top1": 0.5, "mca": 0.5},
        machine=MachineFacts(device="cpu", threads=1, python="3", torch="2"),
        attempt=attempt,
    )
    write_record(record, folder)
    return record


def trials_and_work(root: Path, number: int) -> tuple[list[Any], Any]:
    """So many trials of one study, and what does one of them in a results folder."""
    from studies.trial import Trial, Work
    from taghead.config import Config, TrainConfig
    from taghead.record import trial_id

    config = Config(train=TrainConfig(epochs=1))
    trials = [
        Trial(
            trial_id=trial_id(config, seed=seed, data="clips", weights=None),
            config=config,
            seed=seed,
            keep=frozenset(),
            data="clips",
            synthetic=False,
            label=f"bench: row, haa500, seed {seed}",
        )
        for seed in range(number)
    ]
    machine = SimpleNamespace(device="cpu", threads=1, data_root=root)
    return trials, Work(root=root, machines={"haa500": machine}, run=trivial_run, complete=lambda *_, **__: None)


def ours(folder: Path, number: int, clock: Clock) -> None:
    """The way of ``taghead-studies run``: feed, store, progress, Ray."""
    from studies.executor import run_on_ray
    from studies.feed import GridFeed
    from studies.progress import Progress
    from studies.room import Resources
    from studies.store import Store

    store = Store(folder)
    store.check_writable()
    trials, work = trials_and_work(folder, number)

    class Timed(Progress):
        def ended(self, trial: Any, outcome: Any) -> None:
            super().ended(trial, outcome)
            clock.ended()

    feed = GridFeed(trials, store=store)
    with (folder / "log.txt").open("w") as log, redirect_stdout(log), Timed(trials, there=0) as progress:
        run_on_ray(feed, work, resources=Resources(total_cpus=CPUS), watch=progress)
    assert {one.ending for one in feed.outcomes.values()} == {"complete"} and len(feed.outcomes) == number


def tune_itself(folder: Path, number: int, clock: Clock, *, reuse: bool) -> None:
    """Ray Tune's own `Tuner`, with its defaults or with workers that stay and no files of its loggers."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0"}
    if reuse:
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    import ray
    from ray import tune

    class Timed(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            clock.ended()

    def objective(config: dict) -> None:
        tune.report({"loss": 0.5})

    ray.init("local", num_cpus=CPUS, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    tuner = tune.Tuner(
        tune.with_resources(objective, {"cpu": 1}),
        param_space={"seed": tune.randint(0, 10**6)},
        tune_config=tune.TuneConfig(num_samples=number, metric="loss", mode="min", reuse_actors=reuse),
        run_config=tune.RunConfig(storage_path=str(folder), name="tune", callbacks=[Timed()], verbose=0),
    )
    assert len(tuner.fit()) == number
    ray.shutdown()


def pool(folder: Path, number: int, clock: Clock) -> None:
    """Processes of the standard library that hand a number back."""
    _pooled(_nothing, list(range(number)), clock)


def pool_with_store(folder: Path, number: int, clock: Clock) -> None:
    """The same processes, keeping our records in our store."""
    _pooled(partial(_work, folder), trials_and_work(folder, number)[0], clock)


def _nothing(seed: int) -> dict[str, float]:
    return {"loss": 0.5}


def _work(root: Path, trial: Any) -> Any:
    return trials_and_work(root, 0)[1](trial, lambda row: None)


def _pooled(function: Callable, tasks: list, clock: Clock) -> None:
    with ProcessPoolExecutor(CPUS) as processes:
        for _ in processes.map(function, tasks):
            clock.ended()


WAYS: dict[str, tuple[str, Callable[[Path, int, Clock], None], int]] = {  # what it is called, how it runs, trials
    "reused": ("Ray Tune, reused workers, no logger files", partial(tune_itself, reuse=True), 100),
    "ours": ("ours (`taghead-studies run`)", ours, 100),
    "tuner": ("Ray Tune as documented (`Tuner`)", partial(tune_itself, reuse=False), 10),
    "pool_with_store": ("process pool, our store and records, no Ray", pool_with_store, 100),
    "pool": ("process pool, nothing kept", pool, 1000),
}


def store_of(folder: Path, number: int) -> None:
    """A results folder with so many finished trials of another study."""
    from taghead.record import read_record

    trials, work = trials_and_work(folder, 1)
    (folder / "trials").mkdir(parents=True)
    work(trials[0], lambda row: None)
    made = folder / "trials" / trials[0].trial_id
    record, history = (made / "record.json").read_text(), (made / "history.csv").read_text()
    assert read_record(made).status == "complete"
    for count in range(number):
        name = f"{count:016x}"
        (folder / "trials" / name).mkdir()
        (folder / "trials" / name / "record.json").write_text(record.replace(trials[0].trial_id, name))
        (folder / "trials" / name / "history.csv").write_text(history)
    for path in made.iterdir():
        path.unlink()
    made.rmdir()


def one_way(name: str, number: int, stored: int) -> dict[str, float]:
    """Runs one way in this process."""
    with tempfile.TemporaryDirectory(prefix="taghead-bench-") as folder:
        store_of(Path(folder), stored)
        clock = Clock(number)
        WAYS[name][1](Path(folder), number, clock)
        return clock.result()


def in_its_own(name: str, *, number: int | None = None, stored: int = 0) -> dict[str, float]:
    """Runs one way in a process of its own."""
    words = ["--way", name, "--trials", str(number or WAYS[name][2]), "--stored", str(stored)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def beside(stored: int) -> dict[str, float]:
    """Seconds of what a launch of `NEW` trials does beside them, in a folder with so many finished ones of another.

    ``again``: of a study of all those trials, which is launched though nothing is left of it.
    """
    from dataclasses import replace

    from studies.feed import GridFeed
    from studies.launch import count, left
    from studies.store import Store

    with tempfile.TemporaryDirectory(prefix="taghead-bench-") as name:
        folder = Path(name)
        store_of(folder, stored)
        store, (new, _) = Store(folder), trials_and_work(folder, NEW)
        old = [replace(new[0], trial_id=f"{number:016x}") for number in range(stored)]
        steps: dict[str, Callable[[], Any]] = {
            "left": lambda: left(new, store),
            "count": lambda: count(new, store),
            "feed": lambda: GridFeed(new, store=store).next(),
            "left again": lambda: left(old, store),
            "count again": lambda: count(old, store),
            "end again": lambda: [store.ending(one.trial_id) for one in old],
        }
        return {step: _seconds(call) for step, call in steps.items()} | {"estimate": _seconds(lambda: _past(store))}


def _past(store: Any) -> None:
    from studies.estimate import hours

    hours([], store=store, clips=lambda config: None, slots=1, device="cpu", threads=1, probe=lambda *_: None)  # type: ignore[arg-type, return-value]


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def rows_of(found: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Medians of each way, and of its ratio to Tune with reused workers in the same turn."""
    rows = []
    for name, turns in found.items():
        ratios = [one["each"] / peer["each"] for one, peer in zip(turns, found["reused"], strict=True)]
        row = {what: statistics.median(one[what] for one in turns) for what in ("each", "start")}
        row |= {"ratio": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
        rows.append({"way": WAYS[name][0], "trials": WAYS[name][2], **row})
    return rows


def markdown(result: dict[str, Any]) -> str:
    where = result["machine"]
    lines = [
        "# Overhead of a trial",
        "",
        f"{where['date']}, {where['cpu']}, {where['cores']} cores, load {where['load_before']} before; Ray "
        f"{where['ray']}, {CPUS} CPUs; {result['turns']} turns, in which the ways alternate. Trials do nothing.",
        "A ratio is to the first way in the same turn; in brackets its range over the turns. Start: until the first "
        "trial ended, with imports.",
        "",
        "| way | trials | a trial, ms | ratio | start, s |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        ratio = f"{row['ratio']:.2g} ({row['min']:.2g} to {row['max']:.2g})"
        lines.append(f"| {row['way']} | {row['trials']} | {1e3 * row['each']:.3g} | {ratio} | {row['start']:.1f} |")
    steps = list(result["beside"][0]["seconds"])
    lines += [
        "",
        f"By trials in the results folder: ours, a trial; and what a launch does beside its trials, once, in ms, of a "
        f"study of {NEW} new trials (left, count, feed; estimate: what `plan` reads to tell the time), and of a study "
        "of all those stored (again).",
        "",
        f"| stored | a trial, ms | {' | '.join(steps)} |",
        "|---" * (len(steps) + 2) + "|",
    ]
    for row in result["beside"]:
        cells = [f"{1e3 * row['seconds'][step]:,.3g}" for step in steps]
        lines.append(f"| {row['stored']:,} | {1e3 * row['each']:.3g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def targets(found: dict[str, list[dict[str, float]]], grown: list[dict[str, Any]]) -> list[Row]:
    """Ours by Tune both ways, and by itself in a full folder."""
    each = {name: [one["each"] for one in turns] for name, turns in found.items()}
    most = max(grown, key=lambda one: one["stored"])
    growth = most["each"] / next(one["each"] for one in grown if not one["stored"])
    return [
        Row("overhead of a trial", WAYS["reused"][0], ratio(each["ours"], each["reused"]), "time", 1.25, "at most"),
        Row("overhead of a trial", WAYS["tuner"][0], ratio(each["tuner"], each["ours"]), "speed", 30, "at least"),
        Row(
            f"overhead of a trial, {most['stored']:,} stored trials", "none stored", spread([growth]), "time", 1.25,
            "at most",
        ),
    ]  # fmt: skip


def main() -> None:
    parser = arguments(__doc__, turns=3, quick_turns=1)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--trials", type=int, default=100, help=argparse.SUPPRESS)
    parser.add_argument("--stored", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(one_way(args.way, args.trials, args.stored)))
        return
    where, found, turns = machine("ray"), {name: [] for name in WAYS}, turns_of(args)
    for turn in range(turns):
        for name in WAYS:
            found[name].append(in_its_own(name))
            print(f"turn {turn + 1}: {name}: {1e3 * found[name][-1]['each']:.3g} ms a trial", flush=True)
    grown = [
        {"stored": stored, "each": in_its_own("ours", stored=stored)["each"], "seconds": beside(stored)}
        for stored in (STORED[:: len(STORED) - 1] if args.quick else STORED)
    ]
    result = {"machine": where, "turns": turns, "rows": rows_of(found), "beside": grown}
    write("overhead", targets(found, grown), out=args.out, text=markdown(result), **result)


if __name__ == "__main__":
    main()
