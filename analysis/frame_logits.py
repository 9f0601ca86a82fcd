"""A trained head's logits under any graph (Eq. 2 and 3), from the frames' means that its trial keeps: one pass for all.

Under the mean readout logits depend on the graph through T frame weights only (derivation in `taghead.graph`), so the
frames' means of a clip's tokens (``frame_means.npz``) and the classifier (``weights.safetensors``) give them all.

Legend: m test clips, n of them that decode, T time steps, P sites, C channels, K classes, S settings of the graph.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import nn

from analysis.cells import read_arrays, trial_in_words
from analysis.frame_weights import GRAPHS, NO_EDGES
from analysis.provenance import run_command
from studies.plan import Cell, Plan
from taghead.config import Config
from taghead.errors import InputError, nearest
from taghead.graph import split_edges
from taghead.head import TAGHead
from taghead.model import load_trained

KEPT = ("frame_means.npz", "weights.safetensors")


@dataclass(frozen=True)
class FrameLogits:
    """What a head's classifier says of each frame's mean by itself; the logits under a graph are a mean of these.

    Attributes:
        logits: Of the classifier's linear map, without its bias.
        bias: The classifier's.
        covariance: Of the frames' means, over the channels, where the classifier normalises the pooled vector first:
            under frame weights w its variance is w^T covariance w. None for a classifier that is linear.
        epsilon: What the norm adds to that variance.
    """

    logits: Float[ndarray, "n T K"]
    bias: Float[ndarray, " K"]
    covariance: Float[ndarray, "n T T"] | None = None
    epsilon: float = 0.0

    @cached_property
    def plain(self) -> Float[ndarray, "n K"]:
        """The logits under plain averaging of the frames: no graph."""
        scale = self._scale(np.zeros((1, self.logits.shape[1])))
        return (self._mean * scale[0, :, None] + self.bias).astype(np.float32)

    def changes(self, deviations: Float[ndarray, "S T"]) -> Float[ndarray, "S n K"]:
        """By how much graphs change the logits of plain averaging.

        The change itself is computed and not the difference of two logits: it keeps its digits, and 0 is exactly 0.

        Args:
            deviations: T*w - 1 of each graph, as from `deviations`.
        """
        clips, time, classes = self.logits.shape
        change = ((deviations / time).astype(np.float32) @ self._by_frame).reshape(-1, clips, classes)
        if self.covariance is not None:
            scale = self._scale(deviations)[..., None]
            plain = self._scale(np.zeros((1, time)))[..., None]
            change *= scale.astype(np.float32)
            change += (scale - plain).astype(np.float32) * self._mean.astype(np.float32)
        return change

    @cached_property
    def _mean(self) -> Float[ndarray, "n K"]:
        return self.logits.mean(axis=1)

    @cached_property
    def _by_frame(self) -> Float[ndarray, "T nK"]:
        return np.ascontiguousarray(self.logits.swapaxes(0, 1), np.float32).reshape(self.logits.shape[1], -1)

    def _scale(self, deviations: Float[ndarray, "S T"]) -> Float[ndarray, "S n"]:
        if self.covariance is None:
            return np.ones((len(deviations), len(self.logits)))
        # from that of plain averaging, so that no deviation leaves its very bits
        time = self.logits.shape[1]
        moved = deviations / time
        variance = self.covariance.mean(axis=(1, 2)) + np.einsum(
            "st,ntu,su->sn", moved, self.covariance, moved + 2 / time, optimize=True
        )
        return 1 / np.sqrt(variance + self.epsilon)


def frame_logits(classifier: nn.Module, means: Float[ndarray, "n T C"]) -> FrameLogits:
    """Applies a head's classifier to each frame's mean, in float64.

    Args:
        classifier: A linear map, or a LayerNorm and a linear map.
        means: The mean over the sites of each time step's tokens, as they enter the graph.
    """
    norm, linear = classifier if isinstance(classifier, nn.Sequential) else (None, classifier)
    assert isinstance(linear, nn.Linear)
    weight, bias = (tensor.detach().double().cpu().numpy() for tensor in (linear.weight, linear.bias))
    means = means.astype(np.float64)
    if not isinstance(norm, nn.LayerNorm):
        return FrameLogits(means @ weight.T, bias)
    gain, shift = (tensor.detach().double().cpu().numpy() for tensor in (norm.weight, norm.bias))
    centred = means - means.mean(axis=2, keepdims=True)
    covariance = centred @ centred.swapaxes(1, 2) / means.shape[2]
    return FrameLogits(centred @ (weight * gain).T, bias + weight @ shift, covariance, norm.eps)


@dataclass(frozen=True)
class Trained:
    """One trained trial, as far as its predictions under any graph follow from it.

    Attributes:
        frames: Of the clips that decode.
        grid: (T, P).
        labels: The classes of all test clips.
        read: Which of them decode; the others count as wrong.
        row: Of the study.
        dataset: Of the study.
        seed: The trial's seed.
        setting: Graph (of `GRAPHS`, or ``no edges``), alpha and K_prop that it was trained with.
        error: The largest difference of its stored logits from those that follow from the frames' means.
        synthetic: Whether the clips are generated.
    """

    frames: FrameLogits
    grid: tuple[int, int]
    labels: Int[ndarray, " m"]
    read: Bool[ndarray, " m"]
    row: str = "TAG-Head"
    dataset: str = ""
    seed: int = 0
    setting: tuple[str, float, int] = (NO_EDGES, 0.0, 0)
    error: float = 0.0
    synthetic: bool = False


def load(
    results: Path, plan: Plan, *, row: str | None = None, dataset: str | None = None
) -> tuple[list[Trained], list[str]]:
    """The trials of one cell that kept weights and frames' means.

    Args:
        results: The results folder.
        plan: The study.
        row: One of its rows; None: the last with a TAG-Head under the mean readout.
        dataset: One of its columns; None: the first.

    Returns:
        The trials by seed, and a sentence on each that cannot be read or kept too little.

    Raises:
        InputError: No such row or column, a row whose logits see more than frames' means, or no trial that can be read;
            tells the command that makes what is missing.
    """
    cell = _cell(plan, row, dataset)
    found, left_out, lacking = [], [], []
    for seed in plan.seeds:
        folder = results / "trials" / cell.trials[seed]
        if not all((folder / name).is_file() for name in (*KEPT, "predictions.npz")):
            lacking.append(seed)
            continue
        try:
            found.append(_read(folder, cell, seed))
        except InputError as error:
            left_out.append(f"{trial_in_words(cell, seed)} was left out: {error}".rstrip(".") + ".")
    if lacking:
        left_out.append(_how_to_keep(results, plan, cell, lacking))
    if not found:
        raise InputError(f"study {plan.name}: no trained model to put under other graphs. {' '.join(left_out)}")
    return found, left_out


def _how_to_keep(results: Path, plan: Plan, cell: Cell, lacking: list[int]) -> str:
    others = tuple(name for name in plan.keep if name not in ("weights", "frame_means"))
    command = run_command(plan.model_copy(update={"keep": others}), results)
    how = "launch it again with" if command.startswith("#") else f"run {command}"
    seeds = f"seed{'s' if len(lacking) > 1 else ''} {', '.join(map(str, lacking))}"
    return (
        f"{cell.row}, {cell.dataset}, {seeds}: no {' and '.join(KEPT)} kept; {how} --keep weights --keep frame_means."
    )


def _cell(plan: Plan, row: str | None, dataset: str | None) -> Cell:
    for name, valid, what in ((row, plan.rows, "row"), (dataset, plan.datasets, "data set")):
        if name is not None and name not in valid:
            raise InputError(f"study {plan.name} has no {what} {name!r}{nearest(name, valid)}")
    dataset = dataset or plan.datasets[0]
    if row is not None:
        if obstacle := _obstacle((cell := plan.cell(row, dataset)).config):
            raise InputError(f"study {plan.name}, row {row}: {obstacle}; choose a row with the mean readout.")
        return cell
    fit = [name for name in plan.rows if not _obstacle(plan.cell(name, dataset).config)]
    if not fit:
        raise InputError(
            f"study {plan.name} has no row with a TAG-Head under the mean readout; take one that has, components say."
        )
    return plan.cell(fit[-1], dataset)


def _obstacle(config: Config) -> str | None:
    """Why a model's logits under other graphs do not follow from its frames' means, if so."""
    if config.model.head != "tag":
        return "its head is linear and has no graph"
    if config.head.readout != "mean":
        return f"its readout, {config.head.readout}, sees more of the tokens than the frames' means"
    if config.head.rewiring is not None:
        return "its graph is the rewired control, whose weights are not by frame"
    return None


def _read(folder: Path, cell: Cell, seed: int) -> Trained:
    ids, labels, means = read_arrays(folder / KEPT[0], ("ids", "labels", "frame_means"))
    known, logits = read_arrays(folder / "predictions.npz", ("ids", "logits"))
    head = load_trained(folder).model.head
    if not isinstance(head, TAGHead) or means.shape[1:] != (head.grid[0], _width(head)):
        raise InputError(f"{KEPT[0]} and {KEPT[1]} do not belong together")
    classes = logits.shape[-1]
    if not np.array_equal(ids, known) or labels.dtype.kind not in "iu" or not set(labels) <= set(range(classes)):
        raise InputError(f"{KEPT[0]} and predictions.npz are not of the same clips")
    read = ~np.isnan(means).any(axis=(1, 2))
    if not read.any():
        raise InputError("none of its test clips decodes")
    with threadpool_limits(1):  # sums in another order have other bits
        frames = frame_logits(head.classifier, means[read])
        own = head.grid[0] * head.frame_weights.numpy()[None] - 1
        error = float(np.abs(frames.plain + frames.changes(own)[0] - logits[read]).max())
    return Trained(
        frames, head.grid, labels, read, cell.row, cell.dataset, seed, _setting(cell.config), error, cell.synthetic
    )


def _width(head: TAGHead) -> int:
    linear = head.classifier[-1] if isinstance(head.classifier, nn.Sequential) else head.classifier
    assert isinstance(linear, nn.Linear)
    return linear.in_features


def _setting(config: Config) -> tuple[str, float, int]:
    head = config.head
    wanted = split_edges(head.edges, edge_combination=head.edge_combination)
    names = [name for name, (edges, how) in GRAPHS.items() if split_edges(edges, edge_combination=how) == wanted]
    return (names[0] if names else NO_EDGES), head.alpha, head.k_prop
