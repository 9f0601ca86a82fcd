"""Works a feed off on Ray Tune, by workers that live from the first trial to the last (in process: `feed.run_here`).

The only file that loads Ray. Ray is a pool of processes here and nothing more: it restores nothing and keeps no
results, and what Tune writes lies in a temporary folder and goes with it. A worker that dies takes one attempt of one
trial with it; the feed gives that trial again, and another worker goes on from its checkpoint.

A worker reports ``row/...`` after each epoch and ``outcome`` at the end; each report waits for the driver to have seen
it. What goes the other way (that the feed stops a trial) and files (`studies.delivery`) go by `_Post`.
"""

import base64
import importlib
import json
import logging
import os
import pickle
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
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
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

from studies.delivery import Delivery, Files, Token, missing_here, no_device_here, run_apart  # noqa: E402
from studies.feed import Feed, Watch  # noqa: E402
from studies.store import Store  # noqa: E402
from studies.track import TRACKERS, LoggerCallback, TrackingWatch, check_tracker  # noqa: E402
from studies.trial import OUT_OF_MEMORY, Outcome, PrunedError, Row, Trial, Work  # noqa: E402
from taghead.errors import InputError  # noqa: E402

PATIENCE = 60.0  # seconds for which a cluster without a machine that has room may get one again
_POST = "taghead-post"  # of this driver: Ray gives each its own name space


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a trial takes, and of what.

    Attributes:
        cpus: CPUs a trial.
        gpus: GPUs a trial; a fraction lets several share one. Or a function that says for each trial what part of one
            GPU it takes.
        workers: How many trials run at once at the most; None: as many as there is room for.
        total_cpus: CPUs that a Ray started here may use; None: ``workers x cpus``, or all.
        total_gpus: GPUs that a Ray started here may hand out; None: those that it finds.
        address: A running cluster's address; None starts one on this machine and stops it at the end.
    """

    cpus: int = 1
    gpus: float | Callable[[Trial], float] = 0.0
    workers: int | None = None
    total_cpus: int | None = None
    total_gpus: int | None = None
    address: str | None = None

    @property
    def most_gpus(self) -> float:
        """The most that one trial takes."""
        return 1.0 if callable(self.gpus) else self.gpus


def run_on_ray(feed: Feed, work: Work, *, resources: Resources, watch: Watch, track: str | None = None) -> None:
    """Works a feed off on Ray Tune.

    Args:
        feed: What to do.
        work: Does one trial; it is sent to the workers once.
        resources: What a trial takes.
        watch: Is told of all that happens.
        track: The tracker that is told too, one of `studies.track.TRACKERS`.

    Raises:
        InputError: No machine of the cluster has what one trial takes, or none has it any more; the cluster cannot be
            reached; one of its machines has not the data; or the tracker's package is not installed.
    """
    track_folder = work.root / "track"
    tracker = _tracker(track, folder=track_folder) if track else None
    with tempfile.TemporaryDirectory(prefix="taghead-", ignore_cleanup_errors=True) as folder:
        _start(resources)
        try:
            nodes = _room(resources)
            if resources.address is not None:
                _check_nodes(nodes, work)
            told = closing(TrackingWatch(watch, tracker, folder=track_folder)) if tracker else nullcontext(watch)
            with told as watch:
                _work_off(feed, work, resources=resources, watch=watch, folder=folder)
        finally:
            ray.shutdown()


def _tracker(name: str, *, folder: Path) -> LoggerCallback:
    """Ray's callback for a tracker, which writes to a folder unless its own environment variables say otherwise."""
    check_tracker(name)
    try:
        importlib.import_module(TRACKERS[name])
    except ImportError:
        raise InputError(f"--track {name} needs the package {TRACKERS[name]}: pip install 'taghead[track]'.") from None
    folder.mkdir(parents=True, exist_ok=True)
    if name == "tensorboard":
        from ray.tune.logger import TBXLoggerCallback

        return TBXLoggerCallback()
    if name == "wandb":
        from ray.air.integrations.wandb import WandbLoggerCallback

        return WandbLoggerCallback(project=os.environ.get("WANDB_PROJECT", "taghead"), dir=str(folder))
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    address = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    return MLflowLoggerCallback(address, experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME", "taghead"))


def _work_off(feed: Feed, work: Work, *, resources: Resources, watch: Watch, folder: str) -> None:
    store = Store(work.root)
    token = Token.leave(store)
    searcher = _Searcher(feed, store=store, token=token, workers=resources.workers, watch=watch)
    try:
        _tune(searcher, work, token=token, resources=resources, folder=folder)
    finally:
        searcher.close()
        token.remove()


def _start(resources: Resources) -> None:
    local: dict[str, Any] = {}
    if resources.address is None:
        cpus = resources.total_cpus or (resources.workers and resources.workers * resources.cpus)
        local = {"num_cpus": cpus, "num_gpus": resources.total_gpus}
        local |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    else:
        _check_address(resources.address)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(resources.address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray puts its own there, which aborts
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        raise InputError(
            f"--address {resources.address}: no Ray cluster that takes this process ({error}); where there is one, "
            "give RAY_AUTH_TOKEN its token."
        ) from None


def _check_address(address: str) -> None:
    """Ray itself tries for many minutes before it gives up."""
    if address == "auto":
        return  # Ray looks it up on this machine
    host, colon, port = address.rpartition(":")
    if not colon or "/" in host:  # ray:// would run the driver elsewhere, where the results folder may not be
        raise InputError(f"--address {address}: it is HOST:PORT, or auto.")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise InputError(f"--address {address}: nothing answers there ({error}); it is HOST:PORT, or auto.") from None


def _room(resources: Resources) -> list[str]:
    """The ids of the machines that have what one trial takes.

    Raises:
        InputError: There is none.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    for what, asked in (("CPU", resources.cpus), ("GPU", resources.most_gpus)):
        most = max((node["Resources"].get(what, 0) for node in nodes), default=0)
        if asked > most:
            remedy = "--threads-per-trial" if what == "CPU" else "--gpus-per-trial"
            raise InputError(
                f"a trial asks for {asked:g} {what}, but no machine has more than {most:g}; lower {remedy}."
            )
    wanted = {"CPU": resources.cpus, "GPU": resources.most_gpus}
    fitting = [node for node in nodes if all(node["Resources"].get(what, 0) >= asked for what, asked in wanted.items())]
    if not fitting:
        raise InputError(
            f"a trial asks for {_asked(resources)}, but no machine has both; lower "
            "--threads-per-trial or --gpus-per-trial."
        )
    return [node["NodeID"] for node in fitting]


def _asked(resources: Resources) -> str:
    return f"{resources.cpus} CPU and {resources.most_gpus:g} GPU"


def _check_nodes(nodes: Iterable[str], work: Work) -> None:
    """Refuses a cluster of which a machine has not what trials read, before they fail there one by one."""

    @ray.remote(num_cpus=0, max_retries=0)
    def look() -> list[str]:
        return [said for machine in work.machines.values() if (said := missing_here(machine))]

    looks = [
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote() for node in nodes
    ]
    done, _ = ray.wait(looks, num_returns=len(looks), timeout=PATIENCE)
    for one in done:
        with suppress(ray.exceptions.RayError):  # a machine that just went: its trials will tell
            if missing := ray.get(one):
                raise InputError(missing[0])


def _tune(searcher: "_Searcher", work: Work, *, token: Token, resources: Resources, folder: str) -> None:
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # ends of workers are told by the feed
    prunes = searcher.prunes

    def trainable(config: dict[str, Any]) -> None:
        trial, letter = _unpacked(config["trial"]), config["letter"]
        tell = partial(_tell, letter if prunes else None)
        machine = work.machines[trial.config.data.dataset]
        if missing := missing_here(machine) or no_device_here(machine.device):
            outcome = Outcome("refused", missing)
        elif token.is_here():
            outcome = work(trial, tell)
        else:
            outcome = _apart(work, trial, letter, tell)
        tune.report({"outcome": outcome, "done": True})  # saves the round trip in which Tune learns that it has ended

    tune.run(
        tune.with_resources(trainable, _resources_of(resources)),
        search_alg=searcher,
        num_samples=-1,
        reuse_actors=True,
        storage_path=folder,
        name="tune",
        verbose=0,
        raise_on_failed_trial=False,
        trial_dirname_creator=lambda trial: trial.trial_id,
        callbacks=[_Listener(searcher, resources)],
    )


def _packed(trial: Trial) -> str:
    """A trial as a text, which Tune copies and encodes in no time, as often as it does."""
    return base64.b64encode(pickle.dumps(trial)).decode()


def _unpacked(text: str) -> Trial:
    return pickle.loads(base64.b64decode(text))


def _resources_of(resources: Resources) -> Any:
    """What Tune asks Ray for: the same for all trials, or by trial; workers are used again by trials that ask alike."""
    gpus = resources.gpus
    if not callable(gpus):
        return {"cpu": resources.cpus, "gpu": gpus}
    return lambda config: tune.PlacementGroupFactory([{"CPU": resources.cpus, "GPU": gpus(_unpacked(config["trial"]))}])


def _tell(letter: str | None, row: Row, history: bytes | None = None) -> None:
    """Reports an epoch, in a worker; raises where the driver has answered that the trial is to stop."""
    told: dict[str, Any] = {"row": json.dumps(dict(row))}  # as a text: of each number Tune would keep statistics
    tune.report(told if history is None else told | {"history": history})
    if letter is not None and ray.get(ray.get_actor(_POST).take.remote(letter)):
        raise PrunedError


def _apart(work: Work, trial: Trial, letter: str, tell: Callable[..., None]) -> Outcome:
    """Does a trial in a worker that does not see the results folder."""
    tune.report({"apart": True})
    post = ray.get_actor(_POST)
    reference: Any = post.take.remote(letter)
    answer: Files | Outcome = ray.get(reference)
    if isinstance(answer, Outcome):
        return answer
    outcome, files = run_apart(work, trial, answer, tell)
    if files:
        ray.get(post.put.remote(letter, files))
    return outcome


class _Letters:
    """What the driver and a worker leave for each other, by trial; runs beside the driver, and lives as long."""

    def __init__(self) -> None:
        self._letters: dict[str, Any] = {}

    def put(self, letter: str, content: Any) -> None:
        self._letters[letter] = content

    def take(self, letter: str) -> Any:
        return self._letters.pop(letter, None)


class _Post:
    """The driver's end of `_Letters`, which are only there once something is sent or may be."""

    def __init__(self) -> None:
        self._actor: Any = None

    def open(self) -> None:
        if self._actor is None:
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            letters: Any = ray.remote(_Letters)
            self._actor = letters.options(num_cpus=0, name=_POST, scheduling_strategy=here).remote()

    def put(self, letter: str, content: Any) -> None:
        self.open()
        ray.get(self._actor.put.remote(letter, content))

    def take(self, letter: str) -> Any:
        return ray.get(self._actor.take.remote(letter))


class _Searcher(Searcher):
    """A feed as Tune asks it: what to run next, and what became of it."""

    def __init__(self, feed: Feed, *, store: Store, token: Token, workers: int | None, watch: Watch) -> None:
        super().__init__()
        self._feed = feed
        self._store = store
        self._token = token
        self._most = workers
        self._watch = watch
        self._running: dict[str, Trial] = {}  # by Tune's id
        self._deliveries: dict[str, Delivery] = {}  # likewise: of trials of workers that do not see the store
        self._post = _Post()
        self.prunes = feed.prunes
        if feed.prunes:
            self._post.open()

    def suggest(self, trial_id: str) -> Any:  # a config, None or FINISHED, which Ray's own signature forgets
        if self._feed.is_finished():
            return Searcher.FINISHED
        if self._most is not None and len(self._running) >= self._most:
            return None
        trial = self._feed.next()
        if trial is None:
            return Searcher.FINISHED if self._feed.is_finished() else None
        self._running[trial_id] = trial
        return {"trial": _packed(trial), "letter": trial_id}

    def began(self, trial_id: str) -> None:
        self._watch.began(self._running[trial_id])

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "apart" in result and trial_id not in self._deliveries:
            self._begin_delivery(trial_id)
        if "history" in result:
            self._deliveries[trial_id].epoch(result["history"])
        if "row" in result:
            row = json.loads(result["row"])
            trial = self._running[trial_id]
            self._watch.epoch(trial, row)
            if not self._feed.epoch(trial, row):
                self._post.put(trial_id, "stop")

    def _begin_delivery(self, trial_id: str) -> None:
        begun: tuple[Delivery, Files] | Outcome = Outcome("full", f"{self._store.root}: it was moved or removed.")
        if self._token.is_here():
            begun = Delivery.begin(self._store, self._running[trial_id])
        if isinstance(begun, Outcome):
            self._post.put(trial_id, begun)
        else:
            self._deliveries[trial_id], files = begun
            self._post.put(trial_id, files)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if not error:  # what errors are, only `_Listener` is told
            self.ended(trial_id, (result or {}).get("outcome") or Outcome("lost", "its worker said nothing"))

    def ended(self, trial_id: str, outcome: Outcome) -> None:
        trial, delivery = self._running.pop(trial_id), self._deliveries.pop(trial_id, None)
        if delivery is not None:
            outcome = delivery.end(outcome, self._post.take(trial_id) or {})
        self._watch.ended(trial, outcome)
        self._feed.done(trial, outcome)

    def all_lost(self, reason: str) -> None:
        """Ends what runs or waits for room that will not come."""
        for trial_id in list(self._running):
            self.ended(trial_id, Outcome("lost", reason))

    def close(self) -> None:
        """Gives back the claims on trials of which nothing will come any more."""
        for delivery in self._deliveries.values():
            delivery.end(Outcome("lost"), {})

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the store is the state."""


class _Listener(tune.Callback):
    """Tells the searcher what a `Searcher` is not told: that a worker begins a trial, and of what a worker died.

    Ends the whole where no machine is left that has room for a trial: Tune itself would wait for ever.
    """

    def __init__(self, searcher: _Searcher, resources: Resources) -> None:
        self._searcher = searcher
        self._resources = resources
        self._looked = self._had_room = time.monotonic()

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        if (now := time.monotonic()) - self._looked < PATIENCE / 20:
            return
        self._looked = now
        try:
            _room(self._resources)
            self._had_room = now
        except InputError:
            if now - self._had_room > PATIENCE:
                self._searcher.all_lost("no machine has room for it any more")
                raise InputError(
                    f"for {PATIENCE:.0f} s no machine that Ray knows has had room for a trial "
                    f"({_asked(self._resources)}); launch again to go on."
                ) from None

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._searcher.began(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._searcher.ended(trial.trial_id, Outcome("lost", _reason(str(trial.get_error() or ""))))


def _reason(error: str) -> str:
    if "OutOfMemory" in error:
        return f"{OUT_OF_MEMORY}: Ray ended its worker process"
    if "ActorDied" in error or not error.strip():
        return "its worker process died"
    return error.strip().splitlines()[-1]
