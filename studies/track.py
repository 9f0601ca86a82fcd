"""Experiment trackers (``--track tensorboard|wandb|mlflow``), told of trials by their label, config and epochs.

Ray's own callbacks write; they are handed what a tracker shows in place of what Tune knows of a trial.
"""

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from studies.feed import Watch
from studies.trial import Outcome, Row, Trial
from taghead.config import flatten
from taghead.errors import InputError, nearest

TRACKERS = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}  # and the package that each needs
MOST_BYTES = 200  # of a folder's name: file systems take 255, and trackers add to it


def check_tracker(name: str | None) -> None:
    """Refuses a tracker that is not known.

    Raises:
        InputError: It is not.
    """
    if name is not None and name not in TRACKERS:
        raise InputError(f"--track {name}: no such tracker{nearest(name, TRACKERS)}")


@dataclass(frozen=True, eq=False)
class Tracked:
    """A trial as Ray's logger callbacks see one.

    Attributes:
        trial_id: Its name in the store.
        label: The name of the run.
        config: The flattened config and the seed, as ``model.head`` and the like.
        local_path: The folder of its files.
    """

    trial_id: str
    label: str
    config: Mapping[str, Any]
    local_path: str

    @classmethod
    def of(cls, trial: Trial, folder: Path) -> "Tracked":
        """What is shown of a trial."""
        config = {name: _plain(value) for name, value in flatten(trial.config).items()} | {"seed": trial.seed}
        return cls(trial.trial_id, trial.label, config, str(folder / _file_name(trial)))

    @property
    def evaluated_params(self) -> Mapping[str, Any]:
        """The hyperparameters."""
        return self.config

    @property
    def experiment_dir_name(self) -> str:
        """The group: a label begins with its study's name."""
        return self.label.partition(":")[0]

    def init_local_path(self) -> None:
        """Makes the folder."""
        Path(self.local_path).mkdir(parents=True, exist_ok=True)

    def __str__(self) -> str:
        return self.label


class LoggerCallback(Protocol):
    """What is used of `ray.tune.logger.LoggerCallback`."""

    def setup(self) -> None:
        """Before the first trial."""

    def log_trial_start(self, trial: Any) -> None:
        """A trial begins."""

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """A trial tells numbers, at ``training_iteration``."""

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        """A trial has ended."""

    def on_experiment_end(self, trials: list[Any]) -> None:
        """After the last trial."""


class TrackingWatch:
    """Tells a tracker, and another who looks on.

    Args:
        watch: The other.
        callback: The tracker.
        folder: Where its files go.
    """

    def __init__(self, watch: Watch, callback: LoggerCallback, *, folder: Path) -> None:
        self._watch = watch
        self._callback = callback
        self._folder = folder
        self._running: dict[str, tuple[Tracked, int]] = {}  # with the epoch
        self._broken = False
        self._tell(self._callback.setup)

    def began(self, trial: Trial) -> None:
        """A worker has begun a trial."""
        self._watch.began(trial)
        tracked = Tracked.of(trial, self._folder)
        self._running[trial.trial_id] = tracked, 0
        self._tell(tracked.init_local_path)  # wandb's goes there before it makes it
        self._tell(self._callback.log_trial_start, tracked)

    def epoch(self, trial: Trial, row: Row) -> None:
        """A trial has finished an epoch."""
        self._watch.epoch(trial, row)
        if trial.trial_id in self._running:
            tracked, epoch = self._running[trial.trial_id][0], int(row["epoch"])
            self._running[trial.trial_id] = tracked, epoch
            numbers = {name: value for name, value in row.items() if name not in ("epoch", "epochs")}
            self._tell(self._callback.log_trial_result, epoch, tracked, {"training_iteration": epoch, **numbers})

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        """A trial has ended, for good or not; its scores belong to its last epoch."""
        self._watch.ended(trial, outcome)
        if trial.trial_id in self._running:
            tracked, epoch = self._running.pop(trial.trial_id)
            if outcome.metrics:
                scores: dict[str, Any] = {f"test_{name}": value for name, value in outcome.metrics.items()}
                scores["training_iteration"] = epoch or 1
                self._tell(self._callback.log_trial_result, epoch, tracked, scores)
            self._tell(self._callback.log_trial_end, tracked, failed=outcome.ending not in ("complete", "pruned"))

    def close(self) -> None:
        """Ends what is open, and waits until all is written."""
        for tracked, _ in self._running.values():
            self._tell(self._callback.log_trial_end, tracked, failed=True)
        self._tell(self._callback.on_experiment_end, [])

    def _tell(self, what: Callable[..., None], *values: Any, **options: Any) -> None:
        """Tells the tracker, until that fails: a study does not end because its tracker is out of reach."""
        if self._broken:
            return
        try:
            what(*values, **options)
        except Exception as error:
            self._broken = True
            print(f"the tracker is told no more: {type(error).__name__}: {error}", file=sys.stderr)


def _file_name(trial: Trial) -> str:
    """The label; of a long one as much as file systems take, with what keeps two trials from sharing a folder."""
    name = re.sub(r"[^\w.,=+-]+", "_", trial.label)
    if len(name.encode()) <= MOST_BYTES:
        return name
    end = f"_seed_{trial.seed}_{trial.trial_id}"
    return name.encode()[: MOST_BYTES - len(end)].decode(errors="ignore") + end


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
