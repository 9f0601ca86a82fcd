"""Training: Adam, cosine annealing by epoch, cross-entropy, end to end (Section 4).

Every epoch draws its order, augmentation and dropout from (seed, epoch) alone, so that a run resumed after any epoch
has the bits of one that was never disturbed (on a CPU; a GPU's kernels may add in another order each time).
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv3d, cross_entropy
from torch.overrides import TorchFunctionMode

from taghead.adam import Adam
from taghead.checkpoint import TrainState
from taghead.config import TrainConfig
from taghead.data.batches import Batch
from taghead.model import VideoModel

History = dict[str, Any]


class DivergedError(ArithmeticError):
    """Loss or logits are no longer numbers.

    Attributes:
        epoch: The epoch, counted from 1.
    """

    def __init__(self, epoch: int, what: str) -> None:
        super().__init__(f"{what} in epoch {epoch}")
        self.epoch = epoch


def seed_for(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose, as 63 bits of a hash."""
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:8], "big") >> 1


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """The learning rate of an epoch (counted from 0): cosine annealing to 0 by epoch, as PyTorch's scheduler has it."""
    if config.schedule == "constant":
        return config.lr
    return config.lr * 0.5 * (1 + math.cos(math.pi * epoch / config.epochs))


def selected_epoch(history: list[History], config: TrainConfig) -> int:
    """The epoch, counted from 1, that is evaluated: the last, or the first of those that validation likes best."""
    if config.selection == "last":
        return len(history)
    return max(history, key=lambda row: (row["val_top1"], -row["epoch"]))["epoch"]


def fit(
    model: VideoModel,
    config: TrainConfig,
    state: TrainState,
    *,
    seed: int,
    device: torch.device,
    batches: Callable[[int], Iterable[Batch]],
    validate: Callable[[], dict[str, float]] | None,
    save: Callable[[TrainState], None],
) -> None:
    """Trains from where ``state`` stands to the last epoch, and leaves the selected weights in the model.

    Args:
        model: The model on its device; what ``state`` holds is loaded into it.
        config: The training section of a config.
        state: Where the training stands; brought forward in place.
        seed: The trial's seed.
        device: Where the model is.
        batches: Gives the training batches of an epoch (counted from 0).
        validate: Gives the validation split's metrics, or None where there is no such split.
        save: Called after each epoch.

    Raises:
        DivergedError: The loss is not finite.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = Adam(trained, weight_decay=config.weight_decay)
    if state.model is not None and state.optimizer is not None:
        model.load_state_dict(state.model)
        optimizer.load_state_dict(state.optimizer)
    for epoch in range(len(state.history), config.epochs):
        torch.manual_seed(seed_for(seed, f"epoch {epoch}"))
        optimizer.lr = learning_rate(config, epoch)
        row = train_epoch(model, optimizer, batches(epoch), epoch=epoch, device=device, precision=config.precision)
        if validate is not None:
            row |= {f"val_{name}": value for name, value in validate().items()}
        _remember(state, model, optimizer, {**row, "lr": optimizer.lr}, config)
        save(state)
    if state.best is not None:
        model.load_state_dict(state.best)


def _remember(state: TrainState, model: VideoModel, optimizer: Adam, row: History, config: TrainConfig) -> None:
    """Adds an epoch to the state; of equally good epochs the first one is the best."""
    if config.selection == "best_val":
        if selected_epoch([*state.history, row], config) == row["epoch"]:
            state.best = deepcopy(model.state_dict())
    state.history.append(row)
    state.model, state.optimizer = model.state_dict(), optimizer.state_dict()


@contextmanager
def products_in(precision: str, device: torch.device) -> Iterator[None]:
    """Lets a training step's forward pass compute in bfloat16 within a ``with``, where ``precision`` says so."""
    half = precision == "bfloat16"
    small = _SmallConvolutions() if half and device.type == "cpu" else nullcontext()
    with torch.autocast(device.type, torch.bfloat16, enabled=half), small:
        yield


class _SmallConvolutions(TorchFunctionMode):
    """Keeps convolutions in float32 whose kernel is longer than what it goes over, along any axis.

    oneDNN's gradients of such a kernel in bfloat16 hold numbers from memory that nobody wrote, on processors with
    bfloat16 products (seen in torch 2.13: a kernel of 3 over 2 time steps, of 7 over 2 sites).
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, is_conv3d = kwargs or {}, func is conv3d
        if is_conv3d and any(s < k for s, k in zip(args[0].shape[2:], args[1].shape[2:], strict=True)):
            with torch.autocast("cpu", enabled=False):
                return func(*(one.float() if isinstance(one, Tensor) else one for one in args), **kwargs)
        return func(*args, **kwargs)


def train_epoch(
    model: VideoModel,
    optimizer: Adam,
    batches: Iterable[Batch],
    *,
    epoch: int,
    device: torch.device,
    precision: str,
) -> History:
    """One pass over the training clips.

    Args:
        model: The model on its device.
        optimizer: Over the parameters that are trained.
        batches: The clips.
        epoch: Counted from 0.
        device: Where the model is.
        precision: ``float32``, or ``bfloat16`` for autocast.

    Returns:
        The history's row: epoch counted from 1, mean loss, Top-1 over the training clips as they were seen.

    Raises:
        DivergedError: The loss is not finite.
    """
    model.train()
    seen = right = 0
    total = 0.0
    for step, batch in enumerate(batches, start=1):
        with products_in(precision, device):
            logits = model(batch.frames)
        loss = cross_entropy(logits.float(), batch.labels)
        if not math.isfinite(value := loss.item()):
            raise DivergedError(epoch + 1, f"the loss became {value} at step {step}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen += len(batch.ids)
        total += value * len(batch.ids)
        right += int((logits.argmax(dim=1) == batch.labels).sum())
    return {"epoch": epoch + 1, "loss": total / max(seen, 1), "train_top1": right / max(seen, 1)}
