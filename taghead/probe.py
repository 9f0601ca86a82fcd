"""What a trial will take, before it runs: time and memory of one training step, and the sizes of its files.

Legend: B clips, F frames, S pixels of the crop's side, T time steps, D channels of the pooled vector, K classes.
"""

import platform
import time
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from taghead.adam import Adam
from taghead.complexity import NoDraws
from taghead.config import Config, stores_tokens
from taghead.data.batches import Batch
from taghead.data.clips import Clip
from taghead.errors import InputError
from taghead.evaluate import predict
from taghead.fit import train_epoch
from taghead.model import VideoModel, build_model
from taghead.tokens import TokenModel

CPU_BATCH = 2  # clips of a probe's batch on a CPU, where time goes with their number
SLOW = 2.0  # seconds of a step on a CPU from which warming up first would change little


@dataclass(frozen=True)
class StepCost:
    """What one training step takes, measured.

    Attributes:
        seconds_per_clip: Of a training step (forward, loss, backward, Adam), by the clips of its batch.
        evaluation_seconds_per_clip: Of a forward pass in evaluation, likewise.
        peak_memory_bytes: The most that torch's allocator took from the GPU (reserved): what other processes cannot
            have. None elsewhere: what a CPU process holds depends on all that it did before.
        allocated_bytes: The most that tensors held of it, or None. With less than this a step cannot run at all; in
            between, the allocator gives cached blocks back and goes on, slower.
        parameters: Of the whole model, frozen ones among them.
        batch_size: Clips in the measured batch.
    """

    seconds_per_clip: float
    evaluation_seconds_per_clip: float
    peak_memory_bytes: int | None
    allocated_bytes: int | None
    parameters: int
    batch_size: int


@dataclass(frozen=True)
class FileSizes:
    """The sizes of what a trial writes, by the shapes of its model.

    Attributes:
        weights_bytes: Of parameters and buffers, as ``weights.safetensors`` holds them.
        checkpoint_bytes: Of the state to resume from: model (its head alone, where tokens are stored), Adam's two
            moments of what is trained, and the best epoch's model where validation selects.
        embedding_channels: D.
        time_steps: T; None for a linear head, which keeps no frame means.
    """

    weights_bytes: int
    checkpoint_bytes: int
    embedding_channels: int
    time_steps: int | None


def device_name(device: str) -> str:
    """What records call a device: the GPU's name, or the kind of device and of machine.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; it must be there.
    """
    kind = torch.device(device)
    return torch.cuda.get_device_name(kind) if kind.type == "cuda" else f"{kind.type} ({platform.machine()})"


def step_cost(
    config: Config, *, num_classes: int, machine_device: str = "cpu", threads: int = 1, batches: int = 1
) -> StepCost:
    """Measures training steps on random frames of the config's shapes, from random weights.

    The steps are those of `taghead.fit.train_epoch`, precision and frozen parts included, at a learning rate of 0 so
    that nothing diverges. One step warms up; Adam's state is there from then on, so the peak is that of a whole
    training. On a CPU a step of more than `SLOW` seconds is not repeated. No clip is decoded.

    Args:
        config: The experiment. On a CPU at most `CPU_BATCH` clips of its batch are shown, and the time is by the clip.
        num_classes: K.
        machine_device: Where to measure.
        threads: For torch on the CPU.
        batches: Timed steps; the seconds are their mean.

    Raises:
        InputError: The step does not fit into the GPU's memory, or a user's own backbone fails.
    """
    device = torch.device(machine_device)
    size = min(config.train.batch_size, CPU_BATCH) if device.type == "cpu" else config.train.batch_size
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        model = build_model(config, num_classes).to(device)
        training, evaluating = _measure(model, config, _random_batch(config, size, device), batches=batches)
    except torch.OutOfMemoryError:
        raise InputError(
            f"a training step of {size} clips ({config.model.backbone}, {config.data.num_frames} frames of "
            f"{config.data.crop_size} pixels) does not fit into what is free of {device_name(machine_device)}; lower "
            "train.batch_size, or use train.precision=bfloat16."
        ) from None
    finally:
        torch.set_num_threads(before)
    on_gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_reserved(device) if on_gpu else None
    allocated = torch.cuda.max_memory_allocated(device) if on_gpu else None
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if on_gpu:
        del model
        torch.cuda.empty_cache()  # trials come to this card
    return StepCost(
        seconds_per_clip=training / size,
        evaluation_seconds_per_clip=evaluating / size,
        peak_memory_bytes=peak,
        allocated_bytes=allocated,
        parameters=parameters,
        batch_size=size,
    )


def _measure(model: VideoModel, config: Config, batch: Batch, *, batches: int) -> tuple[float, float]:
    """Seconds of a training step and of an evaluation; both end by reading a number, which waits for the device."""
    device, precision = batch.frames.device, config.train.precision
    best = deepcopy(model.state_dict()) if config.train.selection == "best_val" else None  # a training holds it too
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = Adam(trained, weight_decay=config.train.weight_decay)

    def train(steps: int) -> None:
        train_epoch(model, optimizer, [batch] * steps, epoch=0, device=device, precision=precision)

    training = _seconds(lambda: train(1))
    if device.type != "cpu" or training < SLOW:
        training = _seconds(lambda: train(batches)) / batches
    evaluating = _seconds(lambda: predict(model, [batch], num_classes=1, device=device, precision=precision))
    del best
    return training, evaluating


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _random_batch(config: Config, size: int, device: torch.device) -> Batch:
    data = config.data
    clips = tuple(Clip(f"random {number}", Path(), 0, "train") for number in range(size))
    frames = torch.randn(size, 3, data.num_frames, data.crop_size, data.crop_size, device=device)
    return Batch(frames, torch.zeros(size, dtype=torch.int64, device=device), clips, ())


def file_sizes(config: Config, *, num_classes: int) -> FileSizes:
    """The sizes of a trial's weights and checkpoint, from shapes alone: nothing is computed.

    Args:
        config: The experiment.
        num_classes: K.

    Raises:
        InputError: A user's own backbone fails.
    """
    model = _shapes_of(config, num_classes)
    trained = TokenModel(model.head) if stores_tokens(config) else model  # what a training holds, and saves
    state = _bytes(trained.state_dict().values())
    # Adam: two moments and a step count for each parameter that is trained
    adam = sum(2 * _bytes([one]) + 4 for one in trained.parameters() if one.requires_grad)
    best = state if config.train.selection == "best_val" else 0
    grid = getattr(model.head, "grid", None)
    classifier = next(part for part in model.head.classifier.modules() if isinstance(part, nn.Linear))
    weights = _bytes(model.state_dict().values())
    return FileSizes(weights, state + adam + best, classifier.in_features, grid[0] if grid else None)


def _shapes_of(config: Config, num_classes: int) -> VideoModel:
    if config.model.backbone_source is not None:  # whose code may need numbers
        return build_model(config, num_classes)
    with torch.device("meta"), NoDraws():
        return build_model(config, num_classes)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(one.numel() * one.element_size() for one in tensors)
