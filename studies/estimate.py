"""How long a launch will take, before it runs: ``taghead-studies plan``.

Time comes from trials in the store whose models cost the same on such a device; where there are none, from one training
step that is measured now. Loads torch only where it counts clips or measures.
"""

import heapq
import json
import math
import os
import platform
import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Protocol

from studies.room import num_sharing
from studies.store import Store
from studies.trial import Trial
from taghead.config import Config, defaults, flatten, stores_tokens

# Fields that change a trial's score and hardly its cost; any other field, a new one too, tells costs apart.
FREE = frozenset(
    (
        *(f"data.{name}" for name in ("dataset", "flip", "mean", "std", "train_crop", "holdout")),
        *(f"model.{name}" for name in ("pretrained", "norm_momentum")),
        *(f"head.{name}" for name in ("position_init", "positional_encoding", "num_heads", "norm_first", "activation")),
        *(f"head.{name}" for name in ("edges", "edge_combination", "alpha", "k_prop", "readout", "classifier_norm")),
        *(f"train.{name}" for name in ("epochs", "lr", "weight_decay", "schedule", "order")),
    )
)
BACKBONE = (  # what most of the time goes by
    *("model.backbone", "model.backbone_source", "model.freeze_backbone"),
    *("data.num_frames", "data.crop_size", "train.precision", "train.token_views"),
)
TOKENS = (  # what stored tokens depend on, beside the clips and the view of them
    *("model.backbone", "model.backbone_source", "model.pretrained", "model.head", "data.num_frames"),
    *("data.short_side", "data.crop_size", "data.mean", "data.std", "train.precision", "train.token_dtype"),
)
STEPS = 3  # that a probe times
FORWARD = 1 / 3  # of a training step's time is its forward pass; all of it where the backbone is frozen


class Step(Protocol):
    """What one training step takes; see `taghead.probe.StepCost`."""

    @property
    def seconds_per_clip(self) -> float:
        """Of a training step."""

    @property
    def evaluation_seconds_per_clip(self) -> float:
        """Of a forward pass in evaluation."""


class Clips(NamedTuple):
    """How many clips a data set has, by split; and of how many classes."""

    num_classes: int
    train: int
    val: int
    test: int
    id_length: int  # characters of the longest id


Probe = Callable[[Config, int], Step | None]  # a config and K; None where the device is not here
CountClips = Callable[[Config], Clips]


def count_clips(machines: Mapping[str, Any]) -> CountClips:
    """A function that counts the clips of a config, reading each data set's lists once.

    Args:
        machines: By data set: where it lies and what to do about missing clips (`taghead.machine.Machine`).
    """
    known: dict[tuple[str, float, str], Clips] = {}

    def count(config: Config) -> Clips:
        key = (config.data.dataset, config.data.holdout, config.train.selection)
        if key not in known:
            from taghead.identity import clips_of

            found = clips_of(config, machine=machines[config.data.dataset])
            train, val, test = (len(found.split(name)) for name in ("train", "val", "test"))
            known[key] = Clips(len(found.classes), train, val, test, max(len(clip.id) for clip in found.clips))
        return known[key]

    return count


def measure(device: str, threads: int) -> Probe:
    """A probe that measures one training step of each kind of model once, and says so before it does.

    Args:
        device: Where; None comes back for each config where it is not on this machine.
        threads: For torch on the CPU.
    """
    known: dict[str, Step] = {}

    def probe(config: Config, num_classes: int) -> Step | None:
        if device_name(device) is None:
            return None
        key = cost_key(flatten(config))
        if key not in known:
            from taghead.probe import step_cost

            model = f"{config.model.backbone} with a {config.model.head} head"
            size = f"{config.data.num_frames} frames of {config.data.crop_size} pixels"
            print(f"measuring one training step of {model} on {device} ({size}) ...", flush=True)
            where: dict[str, Any] = {"machine_device": device, "threads": threads}
            known[key] = step_cost(config, num_classes=num_classes, batches=STEPS, **where)
        return known[key]

    return probe


def device_name(device: str) -> str | None:
    """What records call a device; None where it is not on this machine."""
    if device == "cpu":
        return f"cpu ({platform.machine()})"
    from taghead import probe

    try:
        return probe.device_name(device)
    except (RuntimeError, AssertionError):
        return None


def slots(
    *, workers: int | None, threads: int, total_cpus: int | None, gpus: float, num_gpus: int | None, address: str | None
) -> int | None:
    """How many trials run at once, as far as can be told without asking Ray; None where it is a cluster's to say.

    Args:
        workers: The most that are wanted; None: all that fit.
        threads: CPUs a trial.
        total_cpus: CPUs that Ray may use; None: ``workers x threads``, or the machine's.
        gpus: GPUs a trial, 0 or more.
        num_gpus: GPUs of this machine; None: those that torch sees.
        address: Of a running cluster, or None.
    """
    if address is not None:
        return workers
    cpus = total_cpus or (workers and workers * threads) or os.cpu_count() or 1
    most = [cpus // threads]
    if workers is not None:
        most.append(workers)
    if gpus:
        there = _num_gpus() if num_gpus is None else num_gpus
        most.append(num_sharing(there, gpus))
    return max(1, min(most))


def _num_gpus() -> int:
    import torch

    return torch.cuda.device_count()


@dataclass(frozen=True)
class Time:
    """How long a launch takes.

    Attributes:
        seconds: From start to end on ``slots`` workers; of all trials together where ``slots`` is None.
        slots: How many run at once.
        sources: Where the numbers come from, in words.
        unknown: Trials of which nothing is known, and which are not in the seconds.
    """

    seconds: float
    slots: int | None
    sources: tuple[str, ...]
    unknown: int = 0

    def __str__(self) -> str:
        """One line for people."""
        if not self.sources:
            return "time: not known: no trial like these is in the store, and their device is not here to measure"
        at_once = "in all" if self.slots is None else f"on {self.slots} worker{'s' * (self.slots > 1)}"
        without = f"; {self.unknown} trials of which nothing is known not counted" if self.unknown else ""
        return f"time: about {duration(self.seconds)} {at_once} ({'; '.join(self.sources)}{without})"


def hours(
    todo: Sequence[Trial],
    *,
    store: Store,
    clips: CountClips,
    slots: int | None,
    device: str,
    threads: int,
    probe: Probe,
) -> Time:
    """How long trials take that are left; of those that were begun, the epochs that are left.

    Args:
        todo: Trials with something left to do.
        store: Where like trials may be.
        clips: Counts a config's clips.
        slots: How many run at once; None where that is not known.
        device: Of the trials.
        threads: Of a trial.
        probe: Measures a training step of a config that no trial in the store is like; decoding is not in it.
    """
    past = _Past(store, device=device_name(device), threads=threads)
    made: set[Hashable] = set()  # tokens that an earlier trial stores for all
    seconds: list[float] = []
    used: dict[str, set[str]] = defaultdict(set)
    for trial in todo:
        found = past.rate(trial)
        there, epochs = clips(trial.config), _epochs_left(trial, store)
        if found is not None:
            used[found.likeness] |= found.trials
            seconds.append(found.seconds * _passes(there, epochs, trial.config.model.freeze_backbone))
        elif (step := probe(trial.config, there.num_classes)) is not None:
            used[_STEP] |= {cost_key(flatten(trial.config))}
            seconds.append(_by_steps(trial, step, there, epochs, made))
    sources = tuple(_source(likeness, len(which), device) for likeness, which in used.items())
    length = sum(seconds) if slots is None else schedule(seconds, slots)
    return Time(length, slots, sources, unknown=len(todo) - len(seconds))


def _by_steps(trial: Trial, step: Step, clips: Clips, epochs: int, made: set[Hashable]) -> float:
    """Seconds of a trial by those of a step; where tokens are stored, the first of its kind runs the backbone."""
    evaluated, trained = epochs * clips.val + clips.test, epochs * clips.train
    if not stores_tokens(trial.config):
        return trained * step.seconds_per_clip + evaluated * step.evaluation_seconds_per_clip
    # the probe's steps run the backbone, which is all but all of an evaluation
    head = max(0.0, step.seconds_per_clip - step.evaluation_seconds_per_clip)
    views = token_views(trial, clips)
    needed = sum(number for view, number in views.items() if view not in made)
    made.update(views)
    return trained * head + needed * step.evaluation_seconds_per_clip


def token_views(trial: Trial, clips: Clips) -> dict[Hashable, int]:
    """How many views of clips a trial stores the tokens of, by what tells them from other trials'.

    Args:
        trial: Whose config stores tokens.
        clips: Of its data set.
    """
    config, values = trial.config, flatten(trial.config)
    drawn_weights = None if config.model.pretrained else trial.seed
    kind = (trial.data, drawn_weights, cost_key(values, TOKENS))
    views = config.train.token_views
    if not views:
        return {kind: clips.train + clips.val + clips.test}
    augmentation = (config.data.train_crop, config.data.flip)
    found: dict[Hashable, int] = {kind: clips.val + clips.test}
    for view in range(min(views, config.train.epochs)):
        found[(*kind, *augmentation, view)] = clips.train
    return found


_STEP = "step"
_LIKE = {
    "exact": "like these in the store",
    "backbone": "with the same backbone and clips in the store",
    "elsewhere": "with the same backbone on other clips in the store",
}


def _source(likeness: str, number: int, device: str) -> str:
    if likeness == _STEP:
        models = "" if number == 1 else f" of each of {number} models"
        return f"from one training step{models} on {device}; decoding not counted"
    return f"from {number} trial{'s' * (number > 1)} {_LIKE[likeness]}"


def schedule(seconds: Iterable[float], slots: int) -> float:
    """Seconds until the last of some trials ends, when the longest begin first and each free worker takes the next."""
    ends = [0.0] * slots
    for one in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + one)
    return max(ends)


class _Rate(NamedTuple):
    """Seconds a clip and training pass, how like the trials are that it comes from, and their ids."""

    seconds: float
    likeness: str
    trials: set[str]


class _Past:
    """What complete trials of a store took on one kind of device, by how like another trial they are."""

    def __init__(self, store: Store, *, device: str | None, threads: int) -> None:
        self._by_key: dict[tuple[str, ...], dict[str, float]] = defaultdict(dict)  # seconds a pass, by trial id
        for path in store.trials.glob("*/record.json"):
            try:
                values = json.loads(path.read_text(encoding="utf-8"))
                machine = values["machine"]
                if values["status"] == "complete" and (machine["device"], machine["threads"]) == (device, threads):
                    self._add(values)
            except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
                continue  # a damaged record says nothing; `status` tells of it

    def _add(self, values: dict[str, Any]) -> None:
        config = dict(_defaults())
        for part, fields in values["config"].items():
            config |= {f"{part}.{name}": value for name, value in fields.items()}
        data = values["data"]
        there = Clips(data["num_classes"], data["num_train"], data["num_val"], data["num_test"], 0)
        passes = _passes(there, config["train.epochs"], config["model.freeze_backbone"])
        for key in _likenesses(config, data["fingerprint"]).values():
            self._by_key[key][values["trial_id"]] = values["seconds"] / passes

    def rate(self, trial: Trial) -> _Rate | None:
        """The median over the trials that are most like one; None where none is."""
        for likeness, key in _likenesses(flatten(trial.config), trial.data).items():
            if found := self._by_key.get(key):
                return _Rate(statistics.median(found.values()), likeness, set(found))
        return None


@cache
def _defaults() -> dict[str, Any]:
    """Every field's default, for records from before a field was there."""
    return defaults()


def _likenesses(config: Mapping[str, Any], data: str) -> dict[str, tuple[str, ...]]:
    """Keys under which a trial finds others, from those that cost the same to those that cost about as much."""
    backbone = cost_key(config, BACKBONE)
    return {"exact": (data, cost_key(config)), "backbone": (data, backbone), "elsewhere": (backbone,)}


def cost_key(config: Mapping[str, Any], names: Iterable[str] | None = None) -> str:
    """What tells the costs of configs apart: the given fields, or all that are not free and are read."""
    unread = "head." if config["model.head"] == "linear" else " "
    if names is None:
        names = (name for name in sorted(config) if name not in FREE and not name.startswith(unread))
    return json.dumps([config[name] for name in names])


def _passes(clips: Clips, epochs: int, frozen: bool) -> float:
    """The clips that a trial trains on, over all epochs; those that it only evaluates count by their forward pass."""
    return epochs * clips.train + (1.0 if frozen else FORWARD) * (epochs * clips.val + clips.test)


def _epochs_left(trial: Trial, store: Store) -> int:
    need = store.need(trial.trial_id, trial.keep)
    if need in ("evaluate", "nothing"):
        return 0
    try:
        history = (store.running / trial.trial_id / "history.csv").read_text(encoding="utf-8")
    except FileNotFoundError:
        return trial.config.train.epochs
    return max(0, trial.config.train.epochs - max(0, len(history.splitlines()) - 1))


def duration(seconds: float) -> str:
    """Seconds in the unit that people would use: ``40 s``, ``25 min``, ``2.1 h``, ``3.4 days``."""
    for most, unit, size in ((90, "s", 1), (90 * 60, "min", 60), (72 * 3600, "h", 3600)):
        if seconds < most:
            number = seconds / size
            return f"{number:.1f} {unit}" if unit == "h" else f"{max(1, math.ceil(number))} {unit}"
    return f"{seconds / 86400:.1f} days"
