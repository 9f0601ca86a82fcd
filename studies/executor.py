"""Works a feed off on Ray Tune, by workers that live from the first trial to the last (in process: `feed.run_here`).

The only file that loads Ray. Ray is a pool of processes here and nothing more: it restores nothing and keeps no
results, and what Tune writes lies in a temporary folder and goes with it. A worker that dies takes one attempt of one
trial with it; the feed gives that trial again, and another worker goes on from its checkpoint.

What Tune calls a trial is a worker here: Tune finds it a machine, starts it and sees it die. What it does and says
goes by `studies.switchboard` to and from `studies.dispatch`, so that one of our trials costs no turn of Tune's own.
"""

import importlib
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
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
    "TUNE_MAX_PENDING_TRIALS_PG": "64",  # workers that start at once; else one after another
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
}.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402 (it reads the environment while it is loaded)
from ray import tune  # noqa: E402
from ray.tune.experiment import Trial as TuneTrial  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

from studies.delivery import Token, missing_here  # noqa: E402
from studies.dispatch import Dispatcher, why_lost, work_off  # noqa: E402
from studies.feed import Feed, Watch  # noqa: E402
from studies.room import Resources, check_address, fitting_nodes, most_workers  # noqa: E402
from studies.store import Store  # noqa: E402
from studies.switchboard import Switchboard  # noqa: E402
from studies.track import TRACKERS, LoggerCallback, TrackingWatch, check_tracker  # noqa: E402
from studies.trial import Work  # noqa: E402
from taghead.command import look_for_garbage_less  # noqa: E402
from taghead.errors import InputError  # noqa: E402

PATIENCE = 60.0  # seconds for which a cluster without a machine that has room may get one again
_SWITCHBOARD = "taghead-switchboard"  # of this driver: Ray gives each its own name space


def run_on_ray(
    feed: Feed,
    work: Work,
    *,
    resources: Resources,
    watch: Watch,
    track: str | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Works a feed off on Ray Tune.

    Args:
        feed: What to do.
        work: Does one trial; it is sent to the workers once.
        resources: What a trial takes.
        watch: Is told of all that happens.
        track: The tracker that is told too, one of `studies.track.TRACKERS`.
        stopped: Whether the user has stopped it.

    Raises:
        KeyboardInterrupt: It is stopped.
        InputError: No machine of the cluster has what one trial takes, or none has it any more; the cluster cannot be
            reached; one of its machines has not the data; or the tracker's package is not installed.
    """
    track_folder = work.root / "track"
    tracker = _tracker(track, folder=track_folder) if track else None
    with tempfile.TemporaryDirectory(prefix="taghead-", ignore_cleanup_errors=True) as folder:
        _start(resources)
        try:
            nodes = fitting_nodes(ray.nodes(), resources)
            if resources.address is not None:
                _check_nodes(nodes, work)
            told = closing(TrackingWatch(watch, tracker, folder=track_folder)) if tracker else nullcontext(watch)
            with told as watch:
                _work_off(feed, work, resources=resources, watch=watch, folder=folder, stopped=stopped)
        finally:
            ray.shutdown()


def _tracker(name: str, *, folder: Path) -> LoggerCallback:
    """Ray's callback for a tracker, which writes to a folder unless its own environment variables say otherwise."""
    check_tracker(name)
    try:
        importlib.import_module(TRACKERS[name])
    except ImportError:
        raise InputError(f"--track {name} needs a package: pip install {TRACKERS[name]}.") from None
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


def _work_off(
    feed: Feed, work: Work, *, resources: Resources, watch: Watch, folder: str, stopped: Callable[[], bool]
) -> None:
    store = Store(work.root)
    token = Token.leave(store)
    exchange = _Exchange(resources)
    gpus = resources.gpus
    share = gpus if callable(gpus) else lambda trial: gpus
    dispatcher = Dispatcher(feed, store=store, token=token, watch=watch, share=share, answer=exchange.answer)
    serve = partial(work_off, work=work, token=token, prunes=feed.prunes)
    try:
        with exchange.listening(dispatcher):

            def check() -> None:
                exchange.check()
                if stopped():
                    raise KeyboardInterrupt

            hiring, listener = _Hiring(dispatcher, resources, check), _Listener(exchange, resources, check)
            _tune(hiring, listener, serve, resources=resources, folder=folder)
    finally:
        dispatcher.close()
        token.remove()


def _start(resources: Resources) -> None:
    local: dict[str, Any] = {}
    if resources.address is None:
        cpus = resources.total_cpus or (resources.workers and resources.workers * resources.cpus)
        local = {"num_cpus": cpus, "num_gpus": resources.total_gpus}
        local |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    else:
        check_address(resources.address)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(resources.address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray puts its own there, which aborts
    except SystemExit:  # by Ray's handler, which is in place while it starts
        signal.signal(signal.SIGTERM, handler)
        signal.raise_signal(signal.SIGTERM)
        raise
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        raise InputError(
            f"--address {resources.address}: no Ray cluster that takes this process ({error}); where there is one, "
            "give RAY_AUTH_TOKEN its token."
        ) from None
    except RuntimeError as error:
        if not str(error).startswith("Version mismatch"):
            raise
        said = " ".join(str(error).split())
        raise InputError(
            f"--address {resources.address}: {said} Install the same Python and Ray on all machines."
        ) from None


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


def _tune(
    hiring: "_Hiring",
    listener: "_Listener",
    serve: Callable[["_Line"], None],
    *,
    resources: Resources,
    folder: str,
) -> None:
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # ends of workers are told by the feed

    def trainable(config: dict[str, Any]) -> None:
        look_for_garbage_less()
        serve(_Line(config["worker"]))
        tune.report({"done": True})

    tune.run(
        tune.with_resources(
            trainable, lambda config: tune.PlacementGroupFactory([{"CPU": resources.cpus, "GPU": config["gpus"]}])
        ),
        search_alg=hiring,
        num_samples=-1,
        reuse_actors=True,
        storage_path=folder,
        name="tune",
        verbose=0,
        raise_on_failed_trial=False,
        trial_dirname_creator=lambda trial: trial.trial_id,
        callbacks=[listener],
    )


class _Line:
    """A worker's end; see `studies.dispatch.Line`."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._switchboard: Any = ray.get_actor(_SWITCHBOARD)
        self._said: Any = None

    def say(self, what: str, *content: Any) -> None:
        if self._said is not None:
            ray.get(self._said)  # what was said last has come: Ray keeps no order of calls to such an actor
        self._said = self._switchboard.say.remote(self._worker, what, *content)

    def ask(self, what: str, *content: Any) -> Any:
        self.say(what, *content)
        return ray.get(self._switchboard.hear.remote(self._worker))


class _Exchange:
    """The driver's end: a thread hears the workers, while Tune's loop starts them and sees them die."""

    def __init__(self, resources: Resources) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        threads = {"say": 1, "turn": 1, "hear": max(64, 2 * (most_workers(ray.nodes(), resources) or 0))}
        remote: Any = ray.remote
        for method, group in ((Switchboard.say, "say"), (Switchboard.hear, "hear"), (Switchboard.turn, "turn")):
            ray.method(concurrency_group=group)(method)
        actor = remote(num_cpus=0, concurrency_groups=threads)(Switchboard)
        self._switchboard = actor.options(name=_SWITCHBOARD, scheduling_strategy=here).remote()
        self._answers: list[tuple[str, Any]] = []
        self._over = threading.Event()
        self._error: BaseException | None = None

    def answer(self, worker: str, answer: Any) -> None:
        """Gives a worker what it waits for; called while it is heard."""
        self._answers.append((worker, answer))

    def lost(self, worker: str, reason: str) -> None:
        """Says in a dead worker's name that it is lost, after all that it said itself."""
        self._switchboard.say.remote(worker, "lost", reason)

    @contextmanager
    def listening(self, dispatcher: Dispatcher) -> Iterator[None]:
        """Hears the workers within a ``with``."""
        thread = threading.Thread(target=self._listen, args=(dispatcher,), name="dispatch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._switchboard.say.remote("", "over")  # no worker's word: so that the thread looks up at once
            thread.join(timeout=10)  # it may wait for the switchboard to start
        self.check()

    def check(self) -> None:
        """Raises what went wrong in the thread."""
        if isinstance(self._error, ray.exceptions.RayActorError):
            raise InputError("the process through which Ray's workers are heard was killed; launch again to go on.")
        if self._error is not None:
            raise self._error

    def _listen(self, dispatcher: Dispatcher) -> None:
        try:
            while not self._over.is_set():
                answers, self._answers = self._answers, []
                for said in ray.get(self._switchboard.turn.remote(answers)):
                    dispatcher.hear(*said)
                dispatcher.give()
        except BaseException as error:
            self._error = error


class _Hiring(Searcher):
    """What Tune takes for a sampler: each of its trials is a worker, which does ours one after another."""

    def __init__(self, dispatcher: Dispatcher, resources: Resources, check: Callable[[], None]) -> None:
        super().__init__()
        self._check = check
        self._dispatcher = dispatcher
        self._resources = resources
        self._most = most_workers(ray.nodes(), resources)
        self._looked = time.monotonic()

    def suggest(self, trial_id: str) -> Any:  # a config, None or FINISHED, which Ray's own signature forgets
        self._check()  # here too: while there is no worker, Tune takes no step
        if self._dispatcher.is_finished():
            return Searcher.FINISHED
        if time.monotonic() - self._looked > PATIENCE / 20:
            self._looked, self._most = time.monotonic(), most_workers(ray.nodes(), self._resources)
        gpus = self._dispatcher.hire(trial_id, most=self._most)
        return None if gpus is None else {"worker": trial_id, "gpus": gpus}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if not error:  # what errors are, only `_Listener` is told
            self._dispatcher.dismissed(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the store is the state."""


class _Listener(tune.Callback):
    """Tells of what a worker died, which a `Searcher` is not told.

    Ends the whole where no machine is left that has room for a trial: Tune itself would wait for ever.
    """

    def __init__(self, exchange: _Exchange, resources: Resources, check: Callable[[], None]) -> None:
        self._check = check
        self._exchange = exchange
        self._resources = resources
        self._looked = self._had_room = time.monotonic()

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        self._check()
        if (now := time.monotonic()) - self._looked < PATIENCE / 20:
            return
        self._looked = now
        try:
            fitting_nodes(ray.nodes(), self._resources)
            self._had_room = now
        except InputError:
            if now - self._had_room > PATIENCE:
                raise InputError(
                    f"for {PATIENCE:.0f} s no machine that Ray knows has had room for a trial "
                    f"({self._resources}); launch again to go on."
                ) from None

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._exchange.lost(
            trial.trial_id, why_lost(_words_of(trial), with_address=self._resources.address is not None)
        )


def _words_of(trial: TuneTrial) -> str:
    """What Tune wrote of a worker's end; its own `get_error` looks where that is put later."""
    try:
        return Path(trial.error_file).read_text(errors="replace") if trial.error_file else ""
    except OSError:
        return ""
