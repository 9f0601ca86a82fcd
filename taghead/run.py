"""`run` makes one trial out of a config: the only way a record comes to be, whoever calls."""

import csv
import io
import json
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from taghead.adam import STATE
from taghead.backbones import BACKBONES, Weights, own
from taghead.checkpoint import TrainState, load_state, save_state
from taghead.config import Config, stores_tokens
from taghead.data.batches import Batch, eval_batches, train_batches
from taghead.data.frame_cache import FrameCache
from taghead.errors import InputError
from taghead.evaluate import Predictions, predict, read_logits
from taghead.files import fingerprint, write_text
from taghead.fit import DivergedError, fit, seed_for, selected_epoch
from taghead.head import LinearHead
from taghead.identity import clips_of
from taghead.linear_probes import MATRIX, Features, Probe, fit_probes
from taghead.machine import Machine, find_weights
from taghead.memory import keep_freed_memory
from taghead.model import VideoModel, build_model
from taghead.record import (
    KEPT_FILES,
    DataFacts,
    Keep,
    MachineFacts,
    Record,
    WeightFacts,
    code_commit,
    read_record,
    trial_id,
    write_record,
)
from taghead.tokens import POOLED_BATCH, TokenCache, TokenModel
from taghead.weights import load_backbone, load_weights, save_weights

CHECKPOINT = "checkpoint.pt"
ROUNDING = {"float32": 0.01, "bfloat16": 0.1}  # the most that another device moves a logit, of the largest one
FIXED_ORDER_SEED = 42  # of the released code's loader: the same order in every epoch, whatever the seed


def view_of(config: Config, *, device: torch.device) -> dict[str, Any]:
    """How a config's clips become batches, but for where they are: crop size, colours, device.

    The colours are normalised by the config's mean and std, or by those that the backbone's weights were trained with.
    """
    name, data = config.model.backbone, config.data
    weights = BACKBONES[name].weights if name in BACKBONES else Weights(mean=own.MEAN, std=own.STD)
    mean, std = data.mean or weights.mean, data.std or weights.std
    return {"crop_size": data.crop_size, "mean": mean, "std": std, "device": device}


def token_cache(config: Config, model: VideoModel, *, frames: FrameCache, machine: Machine) -> TokenCache:
    """Where the tokens of a config that `stores_tokens` come from.

    Args:
        config: The experiment.
        model: With its weights, on the machine's device.
        frames: Gives the decoded frames.
        machine: Where and with what.
    """
    view = view_of(config, device=torch.device(machine.device))
    del view["crop_size"]  # the config's
    return TokenCache(config, model.backbone, frames=frames, folder=machine.cache, **view)


class _Trial:
    """One trial's data, model and place, as `run` and `complete` share them."""

    def __init__(self, config: Config, *, seed: int, machine: Machine) -> None:
        self.config, self.seed, self.machine = config, seed, machine
        self.device = torch.device(machine.device)
        self.clips = clips_of(config, machine=machine)
        data = config.data
        self.cache = FrameCache(machine.cache, num_frames=data.num_frames, short_side=data.short_side)
        self.view = view_of(config, device=self.device) | {
            "batch_size": config.train.batch_size,
            "cache": self.cache,
        }
        self.tokens: TokenCache | None = None
        self._features: dict[int | None, Features] = {}

    def build(self) -> VideoModel:
        """The model with its initial weights drawn from the seed, before any weights file is read."""
        torch.manual_seed(seed_for(self.seed, "initial weights"))
        return build_model(self.config, len(self.clips.classes)).to(self.device)

    def load_weights(self, model: VideoModel) -> WeightFacts | None:
        """Reads the weights that the backbone starts from, if the config wants some."""
        file = find_weights(self.config, self.machine.weights)
        if file is None:
            return None
        report = load_backbone(model.backbone, file)
        return WeightFacts(file=file.name, fingerprint=fingerprint(file), summary=str(report))

    def begin(self, model: VideoModel) -> VideoModel:
        """What is trained and evaluated: the model, or its head alone on stored tokens; once the weights are loaded."""
        if not stores_tokens(self.config):
            return model
        self.tokens = token_cache(self.config, model, frames=self.cache, machine=self.machine)
        return TokenModel(model.head)

    def order(self, epoch: int) -> tuple[int, int]:
        """Seed and epoch that decide the order of an epoch's clips."""
        return (FIXED_ORDER_SEED, 0) if self.config.train.order == "fixed" else (self.seed, epoch)

    def train_batches(self, epoch: int) -> Iterable[Batch]:
        """The training clips of an epoch, in its order and with its augmentation."""
        clips, order, config = self.clips.split("train"), self.order(epoch), self.config
        batches: Iterable[Batch]
        if self.tokens is not None:
            size = config.train.batch_size
            batches = self.tokens.train_batches(clips, epoch=epoch, order=order, batch_size=size)
        else:
            drawn: dict[str, Any] = {"seed": self.seed, "crop": config.data.train_crop, "flip": config.data.flip}
            batches = train_batches(clips, epoch=epoch, order=order, **drawn, **self.view)
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise self.nothing_decodes("train")

    def features(self, epoch: int) -> Features:
        """The pooled vectors of all training clips, as an epoch sees them."""
        assert self.tokens is not None
        clips, view = self.clips.split("train"), self.tokens.view_of(epoch)
        if view not in self._features:
            batches = list(self.tokens.batches(clips, view=view, batch_size=POOLED_BATCH))
            used = {name: row for row, name in enumerate(name for batch in batches for name in batch.ids)}
            if len(used) < min(2, self.config.train.batch_size):
                raise self.nothing_decodes("train")
            vectors = torch.cat([batch.frames.flatten(1) for batch in batches if batch.ids])
            labels = torch.cat([batch.labels for batch in batches])
            self._features[view] = Features(vectors, labels, torch.tensor([used.get(clip.id, -1) for clip in clips]))
        return self._features[view]

    def train(self, model: VideoModel, state: TrainState, save: Callable[[TrainState], None]) -> None:
        """Trains what `begin` gave; a linear head on stored tokens as `fit_probes` does."""
        config = self.config.train
        validate = (lambda: self.predict(model, "val").metrics()) if self.clips.has_validation else None
        plain = self.tokens is not None and self.device.type == "cpu" and config.precision == "float32"
        head = model.head if plain and isinstance(model.head, LinearHead) else None
        if state.optimizer is not None and not _is_of_this_loop(state.optimizer, probes=head is not None):
            state.begin_anew()
        if head is not None:
            probe = Probe(head, config, state, order=self.order, save=save, validate=validate)
            fit_probes([probe], features=self.features)
            if probe.error is not None:
                raise probe.error
            return
        options: dict[str, Any] = {"seed": self.seed, "device": self.device}
        fit(model, config, state, batches=self.train_batches, validate=validate, save=save, **options)

    def nothing_decodes(self, split: Literal["train", "test"]) -> InputError:
        """The error for a split of which no clip gives a frame."""
        reason = next(iter(self.cache.unreadable.values()), "no batch could be made of them")
        return InputError(f"none of the {len(self.clips.split(split))} {split} clips can be used; the first: {reason}.")

    def predict(self, model: VideoModel, split: Literal["val", "test"], *, frame_means: bool = False) -> Predictions:
        """What the model says of a split."""
        clips = self.clips.split(split)
        batches: Iterable[Batch] = (
            eval_batches(clips, **self.view) if self.tokens is None else self.tokens.evaluation_batches(clips)
        )
        return predict(
            model,
            batches,
            num_classes=len(self.clips.classes),
            device=self.device,
            precision=self.config.train.precision,
            frame_means=frame_means,
        )

    def facts(self, unreadable: dict[str, str]) -> DataFacts:
        """Which clips were used."""
        clips, test = self.clips, self.clips.split("test")
        counts = Counter(clip.label for clip in clips.split("train"))
        return DataFacts(
            dataset=clips.dataset,
            fingerprint=clips.fingerprint,
            synthetic=clips.synthetic,
            num_classes=len(clips.classes),
            classes=tuple(name.encode(errors="replace").decode() for name in clips.classes),  # no half characters
            num_train=counts.total(),
            train_counts=tuple(counts[label] for label in range(len(clips.classes))),
            num_val=len(clips.split("val")),
            num_test=len(test),
            test_classes=len({clip.label for clip in test}),
            test_missing=clips.counts["test"].missing,
            test_unreadable=sum(clip.id in unreadable for clip in test),
            missing=clips.missing,
            unreadable=dict(sorted(unreadable.items())),
        )


def _is_of_this_loop(optimizer: dict[str, Any], *, probes: bool) -> bool:
    """Whether an optimizer's state has the form of this loop, and not of the other one, which another device takes.

    Nor of an earlier version: that of its linear probes had the names of `STATE` too, but steps in one number.
    """
    if probes:
        return {*optimizer} == {MATRIX}
    return {*optimizer} == {*STATE} and isinstance(optimizer["step"], list)


def run(
    config: Config,
    *,
    seed: int,
    machine: Machine,
    folder: Path,
    keep: Iterable[Keep] = (),
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    attempt: int = 1,
    expect: str | None = None,
) -> Record:
    """Trains, evaluates on the test split, and writes the record; goes on from the folder's checkpoint if it has one.

    Args:
        config: The experiment.
        seed: Of the initial weights, the order of the clips, their augmentation and dropout.
        machine: Where and with what.
        folder: Holds checkpoint and history on the way, and ``record.json``, ``history.csv``, ``predictions.npz`` and
            what is kept at the end. Made if it is not there.
        keep: What to keep beside that: ``weights``, ``embeddings``, ``frame_means``.
        on_epoch: Called after each epoch with its row of the history, and ``epochs``, the number there will be.
        attempt: How often this trial has been started, for the record.
        expect: The trial id that was planned, if one was.

    Returns:
        The record, of status ``complete`` or ``diverged``.

    Raises:
        InputError: Something about the data set or the weights is not right; they are not those of the plan; the folder
            holds another trial; or no clip decodes.
    """
    start = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    trial = _Trial(config, seed=seed, machine=machine)
    model = trial.build()
    weights = trial.load_weights(model)
    name = trial_id(config, seed=seed, data=trial.clips.fingerprint, weights=weights.fingerprint if weights else None)
    if expect not in (None, name):
        raise InputError("the clips or the weights have changed since the study was planned; launch it again.")
    state = load_state(folder / CHECKPOINT) or TrainState(trial=name, threads=machine.threads)
    if state.trial != name:
        raise InputError(f"{folder} holds the beginning of another trial ({state.trial}); name another folder.")
    torch.set_num_threads(state.threads)
    if trial.device.type == "cpu":
        keep_freed_memory()
    earlier = state.seconds

    def save(state: TrainState) -> None:
        state.seconds = earlier + time.monotonic() - start
        state.unreadable |= trial.cache.unreadable
        save_state(state, folder / CHECKPOINT)
        _write_history(state.history, folder)
        if on_epoch:
            on_epoch({**state.history[-1], "epochs": config.train.epochs})

    outcome = _train_and_evaluate(trial, model, state, folder=folder, keep=frozenset(keep), save=save)
    record = Record(
        trial_id=name,
        seed=seed,
        config=config,
        data=trial.facts(state.unreadable | trial.cache.unreadable),
        weights=weights,
        selection=config.train.selection,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        machine=_machine_facts(trial.device, state.threads),
        commit=code_commit(),
        attempt=attempt,
        seconds=earlier + time.monotonic() - start,
        **outcome,
    )
    write_record(record, folder)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return record


def _train_and_evaluate(
    trial: _Trial,
    model: VideoModel,
    state: TrainState,
    *,
    folder: Path,
    keep: frozenset[Keep],
    save: Callable[[TrainState], None],
) -> dict[str, Any]:
    """Writes predictions and what is kept; gives the record's status, epoch, metrics or error."""
    config, trained = trial.config.train, trial.begin(model)
    try:
        trial.train(trained, state, save)
        _write_history(state.history, folder)  # a process that was killed may have left it one row short
        predictions = trial.predict(trained, "test", frame_means="frame_means" in keep)
        if not predictions.finite:
            raise DivergedError(config.epochs, "the logits of test clips are no numbers")
    except DivergedError as error:
        _write_history(state.history, folder)
        return {"status": "diverged", "error": str(error), "epoch": error.epoch}
    if not predictions.num_read:
        raise trial.nothing_decodes("test")
    predictions.save(folder, keep=keep)
    if "weights" in keep:
        facts = {
            "trial_id": state.trial,
            "config": trial.config.model_dump_json(),
            "classes": json.dumps(trial.clips.classes),
        }
        save_weights(model, folder / KEPT_FILES["weights"], metadata=facts)
    return {"status": "complete", "epoch": selected_epoch(state.history, config), "metrics": predictions.metrics()}


def complete(folder: Path, *, machine: Machine, keep: Iterable[Keep]) -> None:
    """Adds to a finished trial what it lacks, by one evaluation from its kept weights.

    Args:
        folder: The trial's folder, with ``weights.safetensors``.
        machine: Where and with what.
        keep: What to add: ``embeddings``, ``frame_means``.

    Raises:
        InputError: The folder has no weights, or the clips are not those that the trial used, or give other logits, or,
            where its predictions are lost, other scores.
    """
    keep = [name for name in keep if not (folder / KEPT_FILES[name]).is_file()]
    record = read_record(folder)
    path = folder / KEPT_FILES["weights"]
    if not path.is_file():
        raise InputError(f"{folder}: the trial kept no weights, so that it must be trained again.")
    trial = _Trial(record.config, seed=record.seed, machine=replace(machine, threads=record.machine.threads))
    if trial.clips.fingerprint != record.data.fingerprint:
        raise InputError(f"{folder}: {machine.data_root} holds other clips than the trial used.")
    torch.set_num_threads(record.machine.threads)
    model = trial.build()
    load_weights(model, path)
    predictions = trial.predict(trial.begin(model), "test", frame_means="frame_means" in keep)
    if not predictions.num_read:
        raise trial.nothing_decodes("test")
    stored, within = read_logits(folder), ROUNDING[record.config.train.precision]
    if stored is not None:
        how = predictions.differs(*stored, within=within)
    else:
        how = _contradiction(record.metrics, predictions, within=within)
    if how:
        raise InputError(f"{folder}: {how}; put back the clips that the trial used, or train it again.")
    predictions.save(folder, keep=keep, logits=stored is None)


def _contradiction(metrics: dict[str, float], predictions: Predictions, *, within: float) -> str | None:
    """How scores are not those of predictions, in words; None where rounding alone may tell them apart.

    Each logit may lie ``within`` of the largest off. For Top-1, MCA and loss nothing is worse than that a clip's own
    class sinks by this much while all others rise, nor better than the opposite: these two are the scores' bounds.
    """
    apart = 2 * within * np.nanmax(np.abs(predictions.logits))
    bounds = []
    for shift in (-apart, apart):
        logits = predictions.logits.copy()
        logits[np.arange(len(logits)), predictions.labels] += shift
        bounds.append(replace(predictions, logits=logits).metrics())
    for name, value in metrics.items():
        low, high = sorted(scores.get(name, value) for scores in bounds)
        if not low <= value <= high:
            return f"its record says {name} {value:.4f}, but its clips give {low:.4f} to {high:.4f} now"
    return None


def _write_history(history: list[dict[str, Any]], folder: Path) -> None:
    if not history:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(folder / "history.csv", text.getvalue())


def _machine_facts(device: torch.device, threads: int) -> MachineFacts:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"
    return MachineFacts(device=name, threads=threads, python=platform.python_version(), torch=torch.__version__)
