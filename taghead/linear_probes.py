"""Linear probes: many trainings of linear heads on the pooled vectors of a frozen backbone as one program.

Trainings of one data set that differ in seed, learning rate, weight decay, batch size or order take their steps side by
side. Each has a matrix of its own, two products with it a step, and one pass of Adam over it; all that is done row by
row (softmax, loss, its gradient) is done for all of them at once.

What a training gives does not depend on its company, to the bit. Hence one product each and not one batched product:
`torch.bmm` gives a member other bits in other company, and a product gives other bits at another alignment in memory,
so that every operand has an allocation of its own. Softmax goes row by row, and Adam tensor by tensor, right after the
gradient is made: what bounds it is the memory that it moves.

Legend: n clips, C channels, K classes, B clips in a batch, R rows of the batches of all trainings.
"""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from taghead.adam import Adam
from taghead.checkpoint import TrainState
from taghead.config import TrainConfig
from taghead.data.batches import training_order
from taghead.fit import DivergedError, History, learning_rate, selected_epoch
from taghead.head import LinearHead

MATRIX = "matrix"  # under which a state keeps what Adam knows of it


@dataclass(frozen=True)
class Features:
    """One view of the training clips.

    Attributes:
        vectors: Of the clips that can be read, on the CPU.
        labels: Theirs.
        rows: Of every clip of the split, in its order: its row, or -1 for one that cannot be read.
    """

    vectors: Float[Tensor, "n C"]
    labels: Int64[Tensor, " n"]
    rows: Int64[Tensor, " clips"]


@dataclass(eq=False)
class Probe:
    """One training of a linear head.

    Attributes:
        head: On the CPU, with its initial weights; holds the selected ones at the end.
        config: The training section of a config, in float32.
        state: Where the training stands; brought forward in place.
        order: Gives seed and epoch that decide the order of an epoch's clips.
        save: Called after each epoch.
        validate: Gives the metrics of the head on the validation split, or None where there is no such split.
        error: What ended the training before its end, if anything did.
    """

    head: LinearHead
    config: TrainConfig
    state: TrainState
    order: Callable[[int], tuple[int, int]]
    save: Callable[[TrainState], None]
    validate: Callable[[], dict[str, float]] | None = None
    error: DivergedError | None = None
    _matrix: Float[Tensor, "K C1"] = field(init=False)  # weight beside bias
    _adam: Adam = field(init=False)

    def __post_init__(self) -> None:
        if self.state.model is not None:
            self._set(self.state.model)
        classifier = self.head.classifier
        self._matrix = torch.cat([classifier.weight.detach(), classifier.bias.detach()[:, None]], dim=1)
        self._adam = Adam([self._matrix], weight_decay=self.config.weight_decay)
        if self.state.optimizer is not None:
            self._adam.load_state_dict(self.state.optimizer[MATRIX])

    @property
    def epoch(self) -> int | None:
        """The next epoch, from 0; None where the training is at its end."""
        done = len(self.state.history)
        return None if self.error or done >= self.config.epochs else done

    @torch.no_grad()
    def _set(self, state: dict[str, Tensor]) -> None:
        self.head.load_state_dict({name.removeprefix("head."): value for name, value in state.items()})

    def _end_epoch(self, row: History) -> None:
        """Adds an epoch to the state as `taghead.fit` does, and saves it."""
        matrix, config, state = self._matrix, self.config, self.state
        values = {"weight": matrix[:, :-1].clone(), "bias": matrix[:, -1].clone()}
        state.model = {f"head.classifier.{name}": value for name, value in values.items()}
        self._set(state.model)
        if self.validate is not None:
            row |= {f"val_{name}": value for name, value in self.validate().items()}
        row["lr"] = learning_rate(config, row["epoch"] - 1)
        if config.selection == "best_val" and selected_epoch([*state.history, row], config) == row["epoch"]:
            state.best = deepcopy(state.model)
        state.history.append(row)
        state.optimizer = {MATRIX: deepcopy(self._adam.state_dict())}
        self.save(state)


def fit_probes(probes: Sequence[Probe], *, features: Callable[[int], Features]) -> None:
    """Trains linear heads side by side, each from where its state stands, and leaves the selected weights in them.

    Adam with L2 weight decay, cross-entropy, cosine annealing by epoch: as `taghead.fit.fit` trains a
    `taghead.head.LinearHead`, up to rounding. A training whose loss is no number has its ``error`` and stops; the
    others go on. What ``save`` raises ends all of them, at a state that each can be resumed from to the same bits.

    Args:
        probes: Which ones.
        features: The training clips as an epoch (from 0) sees them.
    """
    while going := [probe for probe in probes if probe.epoch is not None]:
        epoch = min(probe.epoch for probe in going if probe.epoch is not None)
        together = [probe for probe in going if probe.epoch == epoch]
        _train_epoch(together, features(epoch), epoch)
    for probe in probes:
        selected = probe.state.best or probe.state.model
        if selected is not None and probe.error is None:
            probe._set(selected)


def _batches(probe: Probe, rows: Int64[Tensor, " clips"], epoch: int) -> list[Int64[Tensor, " _"]]:
    """The rows of each batch of an epoch, of the clips that `taghead.data.batches.train_batches` puts into it."""
    seed, ordering = probe.order(epoch)
    size = probe.config.batch_size
    ordered = rows[torch.tensor(training_order(len(rows), seed=seed, epoch=ordering), dtype=torch.int64)]
    batches = list(ordered.split(size))
    if (rows < 0).any():
        batches = [batch[batch >= 0] for batch in batches]
    return [batch for batch in batches if len(batch) >= min(2, size)]


def _train_epoch(probes: list[Probe], seen: Features, epoch: int) -> None:
    inputs = torch.cat([seen.vectors, torch.ones(len(seen.vectors), 1)], dim=1)  # the bias is a channel's weight
    batches = {probe: _batches(probe, seen.rows, epoch) for probe in probes}
    totals = {probe: (0, 0.0, 0) for probe in probes}  # clips seen, their loss, how many are right
    for step in range(max(map(len, batches.values()), default=0)):
        going = [probe for probe in probes if step < len(batches[probe]) and probe.error is None]
        if not going:
            break
        chosen = [batches[probe][step] for probe in going]
        losses, right = _step(going, inputs, seen.labels, chosen, epoch=epoch, step=step + 1)
        for probe, batch, loss, hits in zip(going, chosen, losses, right, strict=True):
            total = totals[probe]
            totals[probe] = total[0] + len(batch), total[1] + loss * len(batch), total[2] + hits
    for probe, (clips, loss, hits) in totals.items():
        if probe.error is None:
            probe._end_epoch({"epoch": epoch + 1, "loss": loss / max(clips, 1), "train_top1": hits / max(clips, 1)})


@torch.no_grad()
def _step(
    probes: list[Probe],
    inputs: Float[Tensor, "n C1"],
    labels: Int64[Tensor, " n"],
    chosen: list[Int64[Tensor, " _"]],  # of batches of several sizes
    *,
    epoch: int,
    step: int,
) -> tuple[list[float], list[int]]:
    """One step of each training on its batch; gives their mean losses and how many clips each had right."""
    sizes = [len(batch) for batch in chosen]
    batches = [inputs.index_select(0, batch) for batch in chosen]
    wanted = labels.index_select(0, torch.cat(chosen))
    logits = torch.cat([batch @ probe._matrix.t() for batch, probe in zip(batches, probes, strict=True)])
    chances = logits.log_softmax(dim=1)
    losses = [math.fsum(part) / len(part) for part in _parts((-chances.gather(1, wanted[:, None])[:, 0]), sizes)]
    right = [sum(part) for part in _parts(logits.argmax(dim=1) == wanted, sizes)]
    gradient = chances.exp_()  # of the loss with respect to the logits: (softmax - one hot) / B
    gradient.scatter_add_(1, wanted[:, None], torch.full((len(wanted), 1), -1.0))
    gradient /= torch.tensor([float(size) for size in sizes for _ in range(size)])[:, None]
    matrix = torch.empty_like(probes[0]._matrix)
    for probe, loss, rows, batch in zip(probes, losses, gradient.split(sizes), batches, strict=True):
        if math.isfinite(loss):
            torch.mm(rows.clone().t(), batch, out=matrix)
            probe._adam.lr = learning_rate(probe.config, epoch)
            probe._adam.step([matrix])
        else:
            probe.error = DivergedError(epoch + 1, f"the loss became {loss} at step {step}")
    return losses, right


def _parts(values: Tensor, sizes: list[int]) -> list[list[Any]]:
    """A row's values as numbers, for each training."""
    numbers = iter(values.tolist())
    return [list(islice(numbers, size)) for size in sizes]
