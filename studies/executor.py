"""Works a feed off on Ray Tune, by workers that live from the first trial to the last (in process: `feed.run_here`).

The only file that loads Ray. Ray is a pool of processes here and nothing more: it restores nothing and keeps no
results, and what Tune writes lies in a temporary folder and goes with it. A worker that dies takes one attempt of one
trial with it; the feed gives that trial again, and another worker goes on from its checkpoint.
"""

import logging
import os
import signal
import socket
import tempfile
import threading
from dataclasses import dataclass
from typing import Any

for _name, _value in {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # no warning that trials without a GPU see the GPUs as they are
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths that the user gave stay what they are
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",  # the feed tells that, by the trial's name
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # a stop is ours to handle
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Tune's own state, which nobody reads
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
}.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402 (it reads the environment while it is loaded)
from ray import tune  # noqa: E402
from ray.tune.experiment import Trial as TuneTrial  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

from studies.feed import Feed, Watch, WorkFunction  # noqa: E402
from studies.trial import Outcome, Trial  # noqa: E402
from taghead.errors import InputError  # noqa: E402

_ROW = "row/"  # Tune flattens what is reported


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a trial takes, and of what.

    Attributes:
        cpus: CPUs a trial.
        gpus: GPUs a trial; a fraction lets several share one.
        workers: How many trials run at once at the most; None: as many as there is room for.
        total_cpus: CPUs that a Ray started here may use; None: ``workers x cpus``, or all.
        address: A running cluster's address; None starts one on this machine and stops it at the end.
    """

    cpus: int = 1
    gpus: float = 0.0
    workers: int | None = None
    total_cpus: int | None = None
    address: str | None = None


def run_on_ray(feed: Feed, work: WorkFunction, *, resources: Resources, watch: Watch) -> None:
    """Works a feed off on Ray Tune.

    Args:
        feed: What to do.
        work: Does one trial (`studies.trial.Work`); it is sent to the workers once.
        resources: What a trial takes.
        watch: Is told of all that happens.

    Raises:
        InputError: No machine of the cluster has what one trial takes, or the cluster cannot be reached.
    """
    with tempfile.TemporaryDirectory(prefix="taghead-", ignore_cleanup_errors=True) as folder:
        _start(resources)
        try:
            _check_room(resources)
            _tune(_Searcher(feed, workers=resources.workers, watch=watch), work, resources=resources, folder=folder)
        finally:
            ray.shutdown()


def _start(resources: Resources) -> None:
    local: dict[str, Any] = {}
    if resources.address is None:
        cpus = resources.total_cpus or (resources.workers and resources.workers * resources.cpus)
        local = {"num_cpus": cpus, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    else:
        _check_address(resources.address)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(resources.address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray puts its own there, which aborts
    except ConnectionError as error:
        raise InputError(f"--address {resources.address}: no Ray cluster is there ({error}).") from None


def _check_address(address: str) -> None:
    """Ray itself tries for many minutes before it gives up."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if address == "auto":
        return  # Ray looks it up on this machine
    if not colon:
        raise InputError(f"--address {address}: it is HOST:PORT, or auto.")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise InputError(f"--address {address}: nothing answers there ({error}); it is HOST:PORT, or auto.") from None


def _check_room(resources: Resources) -> None:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for what, key, asked in (("CPU", "CPU", resources.cpus), ("GPU", "GPU", resources.gpus)):
        most = max((node.get(key, 0) for node in nodes), default=0)
        if asked > most:
            remedy = "--threads-per-trial" if what == "CPU" else "--gpus-per-trial"
            raise InputError(
                f"a trial asks for {asked:g} {what}, but no machine has more than {most:g}; lower {remedy}."
            )


def _tune(searcher: "_Searcher", work: WorkFunction, *, resources: Resources, folder: str) -> None:
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # ends of workers are told by the feed

    def trainable(config: dict[str, Any]) -> None:
        outcome = work(config["trial"], lambda row: tune.report({"row": dict(row)}))
        tune.report({"outcome": outcome})

    tune.run(
        tune.with_resources(trainable, {"cpu": resources.cpus, "gpu": resources.gpus}),
        search_alg=searcher,
        num_samples=-1,
        reuse_actors=True,
        storage_path=folder,
        name="tune",
        verbose=0,
        raise_on_failed_trial=False,
        trial_dirname_creator=lambda trial: trial.trial_id,
        callbacks=[_Listener(searcher)],
    )


class _Searcher(Searcher):
    """A feed as Tune asks it: what to run next, and what became of it."""

    def __init__(self, feed: Feed, *, workers: int | None, watch: Watch) -> None:
        super().__init__()
        self._feed = feed
        self._most = workers
        self._watch = watch
        self._running: dict[str, Trial] = {}  # by Tune's id

    def suggest(self, trial_id: str) -> Any:  # a config, None or FINISHED, which Ray's own signature forgets
        if self._feed.is_finished():
            return Searcher.FINISHED
        if self._most is not None and len(self._running) >= self._most:
            return None
        trial = self._feed.next()
        if trial is None:
            return Searcher.FINISHED if self._feed.is_finished() else None
        self._running[trial_id] = trial
        return {"trial": trial}

    def began(self, trial_id: str) -> None:
        self._watch.began(self._running[trial_id])

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        row = {name.removeprefix(_ROW): value for name, value in result.items() if name.startswith(_ROW)}
        if row:
            self._watch.epoch(self._running[trial_id], row)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if not error:  # what errors are, only `_Listener` is told
            self.ended(trial_id, (result or {}).get("outcome") or Outcome("lost", "its worker said nothing"))

    def ended(self, trial_id: str, outcome: Outcome) -> None:
        trial = self._running.pop(trial_id)
        self._watch.ended(trial, outcome)
        self._feed.done(trial, outcome)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the store is the state."""


class _Listener(tune.Callback):
    """Tells the searcher what a `Searcher` is not told: that a worker begins a trial, and of what a worker died."""

    def __init__(self, searcher: _Searcher) -> None:
        self._searcher = searcher

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._searcher.began(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._searcher.ended(trial.trial_id, Outcome("lost", _reason(str(trial.get_error() or ""))))


def _reason(error: str) -> str:
    if "OutOfMemory" in error:
        return "out of memory: Ray ended its worker process"
    if "ActorDied" in error or not error.strip():
        return "its worker process died"
    return error.strip().splitlines()[-1]
