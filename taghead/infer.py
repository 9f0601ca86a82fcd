"""A trained model (ours, or the authors' released one) on the clips of a split, or on single video files.

Single clip, single view, as in training's own evaluation: what `run` scored, this scores again, to the same logits on
the same device and number of threads.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from taghead.config import stores_tokens
from taghead.data.batches import Batch, eval_batches
from taghead.data.clips import ClipList, hold_out, read_clips
from taghead.data.decode import sample_frames
from taghead.data.finegym import read_categories
from taghead.data.frame_cache import FrameCache
from taghead.data.listing import Finding, Split, read_lines
from taghead.data.transforms import batch, draw_centre
from taghead.errors import InputError
from taghead.evaluate import Predictions, predict
from taghead.machine import Machine
from taghead.metrics import mca_interval, wilson
from taghead.model import Trained
from taghead.run import token_cache, view_of
from taghead.tokens import TokenModel


@dataclass(frozen=True)
class Evaluation:
    """What a trained model says of a split, and of which clips that is.

    Attributes:
        predictions: Of every clip of the split that is there.
        clips: The data set.
        split: The split's name.
        unreadable: Reasons by clip id of the split's clips that do not decode, which count as wrong.
    """

    predictions: Predictions
    clips: ClipList
    split: Split
    unreadable: dict[str, str]


def evaluate_split(
    trained: Trained,
    *,
    machine: Machine,
    dataset: str | None = None,
    split: Split = "test",
    batch_size: int | None = None,
) -> Evaluation:
    """Runs a trained model over a split.

    Args:
        trained: The model with its config.
        machine: Where the clips are, and with what to compute; its weights are not read.
        dataset: A key of `DATASETS`; None: that of the config.
        split: Which clips.
        batch_size: Clips at once; None: as many as the trial itself was evaluated on.

    Raises:
        InputError: The data set is not right, its classes are not those of the model, or no clip can be used.
    """
    config, device = trained.config, torch.device(machine.device)
    clips = read_clips(dataset or config.data.dataset, machine.data_root, missing=machine.missing)
    if clips.dataset == config.data.dataset:
        clips = hold_out(clips, config.data.holdout)
    check_classes(trained, clips.classes, source=f"{clips.dataset} under {clips.root}")
    wanted = clips.split(split)
    if not wanted:
        raise InputError(f"{clips.dataset} has no {split} clips under {clips.root}; choose another split.")
    torch.set_num_threads(machine.threads)
    cache = FrameCache(machine.cache, num_frames=config.data.num_frames, short_side=config.data.short_side)
    view = view_of(config, device=device)
    model = trained.model.to(device)
    size = batch_size or config.train.batch_size
    batches: Iterable[Batch] = eval_batches(wanted, cache=cache, batch_size=size, **view)
    if stores_tokens(config):
        tokens = token_cache(config, model, frames=cache, machine=machine)
        model, batches = TokenModel(model.head), tokens.evaluation_batches(wanted)
        if batch_size is not None:
            batches = tokens.batches(wanted, view=None, batch_size=batch_size)
    predictions = predict(
        model,
        batches,
        num_classes=trained.num_classes,
        device=device,
        precision=config.train.precision,
    )
    if not predictions.num_read:
        raise InputError(
            f"none of the {len(wanted)} {split} clips can be used; {next(iter(cache.unreadable.values()))}."
        )
    return Evaluation(predictions, clips, split, dict(sorted(cache.unreadable.items())))


def classify(trained: Trained, path: Path, *, device: torch.device, top: int = 5) -> list[tuple[int, float]]:
    """The most likely classes of one video file.

    Args:
        trained: The model with its config, on ``device``.
        path: The file.
        device: Where to compute.
        top: How many classes.

    Returns:
        Labels and probabilities (softmax), the most likely first.

    Raises:
        UnreadableClip: The file gives no frame.
    """
    data, half = trained.config.data, trained.config.train.precision == "bfloat16"
    frames = sample_frames(path, data.num_frames, short_side=data.short_side)
    crop = draw_centre(frames.shape[1:3], crop_size=data.crop_size)
    clip = batch([frames], [crop], **view_of(trained.config, device=device))
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=half):  # as `predict` of a split has it
        logits = trained.model.eval()(clip)[0]
    chances = logits.float().softmax(dim=0)
    best = chances.topk(min(top, len(chances)))
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def summary(evaluation: Evaluation) -> str:
    """Top-1 and MCA with their 95 % intervals, and which clips they are of, in lines.

    Args:
        evaluation: As from `evaluate_split`.
    """
    predictions, clips, split = evaluation.predictions, evaluation.clips, evaluation.split
    n, counts = len(predictions.ids), clips.counts[split]
    scores = predictions.metrics()
    top1 = wilson(scores["top1"] * n, n)
    mca = mca_interval(predictions.logits, predictions.labels)
    left_out = (
        f"; {counts.missing:,} of {counts.listed:,} listed are not there and were left out" if counts.missing else ""
    )
    broken = f"; {len(evaluation.unreadable):,} do not decode and count as wrong" if evaluation.unreadable else ""
    present = len(set(predictions.labels.tolist()))
    lines = [
        f"{clips.dataset}, {split}: {n:,} clips of {present} of {len(clips.classes)} classes{left_out}{broken}",
        f"Top-1 {_percent(scores['top1'])} (95 % interval {_percent(top1[0])} to {_percent(top1[1])})",
        f"MCA   {_percent(scores['mca'])} (95 % interval {_percent(mca[0])} to {_percent(mca[1])}), "
        f"the mean over the {present} classes that have clips",
        *(f"does not decode: {clip}: {reason}" for clip, reason in evaluation.unreadable.items()),
    ]
    if clips.synthetic:
        lines.append("SYNTHETIC DATA: generated clips.")
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def check_classes(trained: Trained, names: tuple[str, ...], *, source: str) -> None:
    """Refuses classes that are not those which a model was trained to tell apart.

    Args:
        trained: The model; it may know its classes' number only.
        names: Of the classes, by label.
        source: Where they are from, for the message.

    Raises:
        InputError: Another number of classes, or other names.
    """
    if len(names) != trained.num_classes:
        raise InputError(f"the model tells {trained.num_classes} classes apart, but {source} has {len(names)}.")
    for label, (ours, theirs) in enumerate(zip(trained.classes, names, strict=False)):
        if ours != theirs:
            raise InputError(f"class {label} is {ours!r} to the model, but {theirs!r} in {source}.")


def read_class_names(path: Path, *, num_classes: int) -> tuple[str, ...]:
    """The names of classes by label: FineGym's ``gym99_categories.txt`` and the like, or a plain list of one a line.

    Args:
        path: The file.
        num_classes: K.

    Raises:
        InputError: The file cannot be read, or does not name each of the K classes.
    """
    lines = read_lines(path)
    if lines and lines[0][1].startswith("Clabel"):
        findings: list[Finding] = []
        names = read_categories(path, num_classes=num_classes, findings=findings)
        if findings:
            raise InputError(findings[0].message)
        return tuple(names[label] for label in range(num_classes))
    if len(lines) != num_classes:
        raise InputError(f"{path}: expected {num_classes} names, one a line, got {len(lines)}.")
    return tuple(name for _, name in lines)
