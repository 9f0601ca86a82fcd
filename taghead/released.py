"""The authors' released checkpoints (public repository ImtiazUlHassan/Tag-Head): names, and what the shapes tell.

``haa500_best.pth``, ``gym99_best.pth`` and ``gym288_last.pth`` hold a whole model: R(2+1)D-34 by number, the positional
encoding, PyTorch's own encoder, the edge list of the token graph, and LayerNorm and linear map as the classifier. A
later version of the code calls the backbone ``csnmodel`` and the classifier ``mlp_head``, and keeps no edge list.

Legend: N nodes, E directed edges.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from taghead.backbones import BACKBONES, grid_of
from taghead.data import finegym, haa500
from taghead.errors import InputError
from taghead.graph import adjacency
from taghead.recipes import recipe
from taghead.weights_file import described

NUM_CLASSES = {**finegym.NUM_CLASSES, "haa500": haa500.NUM_CLASSES}
_BASE = recipe("haa500", name="released")
_BACKBONE = BACKBONES[_BASE.model.backbone]
_SITES = grid_of(_BACKBONE.name, _BASE.data.num_frames, _BASE.data.crop_size)[1:]
_PARTS = ("stem", "layer1", "layer2", "layer3", "layer4")  # their numbers in the file are their places here
_NAMES = (
    (re.compile(r"(?:backbone|csnmodel)\.([0-4])\.(.+)"), lambda found: f"backbone.{_PARTS[int(found[1])]}.{found[2]}"),
    (re.compile(r"(?:classifier|mlp_head)\.(.+)"), lambda found: f"head.classifier.{found[1]}"),
    (re.compile(r"pos_embedding|transformer\..+"), lambda found: f"head.{found[0]}"),
)


@dataclass(frozen=True)
class ReleasedFacts:
    """What the shapes of a released checkpoint tell of its head.

    Attributes:
        grid: (T, P): time steps, and sites of a time step.
        num_frames: F of the clips that give as many time steps.
        num_classes: K.
        ffn_dim: Width of the encoder's feed-forward part.
        num_layers: Of the encoder.
    """

    grid: tuple[int, int]
    num_frames: int
    num_classes: int
    ffn_dim: int
    num_layers: int

    @property
    def dataset(self) -> str | None:
        """The data set of the paper that has as many classes."""
        return next((name for name, count in NUM_CLASSES.items() if count == self.num_classes), None)

    def __str__(self) -> str:
        time, sites = self.grid
        return (
            f"{self.num_classes} classes ({self.dataset or 'of no data set of the paper'}), N = {time * sites} "
            f"(T = {time} steps of {sites} sites: {self.num_frames} frames), FFN width {self.ffn_dim}, "
            f"{self.num_layers} layers"
        )


def is_released(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a released checkpoint, in either spelling."""
    return "pos_embedding" in tensors and any(_NAMES[0][0].fullmatch(name) for name in tensors)


def model_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of `taghead.model.VideoModel`, without the edge list; unknown names stay."""
    return {_model_name(name): tensor for name, tensor in tensors.items() if name != "edge_index"}


def _model_name(name: str) -> str:
    return next((rename(found) for pattern, rename in _NAMES if (found := pattern.fullmatch(name))), name)


def facts_of(tensors: Mapping[str, Tensor], *, path: Path) -> ReleasedFacts:
    """Reads the facts off the shapes of a released checkpoint.

    Args:
        tensors: By name, in either spelling.
        path: For the error message.

    Raises:
        InputError: A tensor that tells one is not there or of another rank; positions that fill no time steps.
    """
    named = model_names(tensors)

    def shape(name: str, rank: int) -> tuple[int, ...]:
        if name not in named or named[name].ndim != rank:
            found = described(named[name]) if name in named else "nothing of that name"
            raise InputError(f"{path}: a released TAG-Head has {name} with {rank} axes, but it has {found}.")
        return tuple(named[name].shape)

    num_positions, sites = shape("head.pos_embedding", 3)[1], _SITES[0] * _SITES[1]
    if num_positions < sites or num_positions % sites:
        raise InputError(
            f"{path}: positions must come in whole time steps of {sites} ({_SITES[0]} x {_SITES[1]} sites of "
            f"{_BASE.data.crop_size} pixels), but it has {num_positions}."
        )
    layers = {name.split(".")[3] for name in named if name.startswith("head.transformer.layers.")}
    return ReleasedFacts(
        grid=(num_positions // sites, sites),
        num_frames=num_positions // sites * _BACKBONE.temporal_stride,
        num_classes=shape("head.classifier.1.weight", 2)[0],
        ffn_dim=shape("head.transformer.layers.0.linear1.weight", 2)[0],
        num_layers=len(layers),
    )


def check_edges(edge_index: Tensor, grid: tuple[int, int], *, path: Path) -> None:
    """Refuses an edge list that is not the graph of IF-FC and TAT edges in one (``union``).

    Order does not matter, and self-loops neither, since APPNP adds those that are not there. An edge that stands
    there twice would count twice.

    Args:
        edge_index: (2, E), from node to node; node t*P + p is site p of time step t.
        grid: (T, P).
        path: For the error message.

    Raises:
        InputError: Another graph, or no edge list.
    """
    num_nodes = grid[0] * grid[1]
    kinds = (torch.int32, torch.int64)
    if edge_index.ndim != 2 or edge_index.shape[0] != 2 or edge_index.dtype not in kinds:
        raise InputError(f"{path}: edge_index must be int64 (2, E), but it is {described(edge_index)}.")
    wanted = (adjacency(grid) > 0).int().fill_diagonal_(0)
    if edge_index.numel() and not 0 <= edge_index.min() <= edge_index.max() < num_nodes:
        raise InputError(f"{path}: edge_index names nodes beyond the {num_nodes} of its positional encoding.")
    found = _counts(edge_index.long(), num_nodes)
    if not torch.equal(found, wanted):
        raise InputError(
            f"{path}: edge_index is another graph than that of intra-frame and time-aligned edges on T, P = {grid}: "
            f"{int(((found > 0) != (wanted > 0)).sum())} of {int(wanted.sum())} directed edges differ, "
            f"{int((found > 1).sum())} stand there more than once. Its logits cannot be given here."
        )


def _counts(edge_index: Int[Tensor, "2 E"], num_nodes: int) -> Int[Tensor, "N N"]:
    counts = torch.zeros(num_nodes, num_nodes, dtype=torch.int32)
    ones = torch.ones(edge_index.shape[1], dtype=torch.int32)
    return counts.index_put_((edge_index[0], edge_index[1]), ones, accumulate=True).fill_diagonal_(0)
