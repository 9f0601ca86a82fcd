"""The 3D backbones that a head can stand on: their names, and which clips they take. Nothing in here loads torch.

``BACKBONES[name](**keywords)`` builds a network that maps a clip (B, 3, F, h, w) to features (B, C, T, H, W).
A new one is a file beside this and an entry in the table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from taghead.errors import InputError, nearest

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What is published for a backbone; stands at the end of the backbone's own file.

    Attributes:
        mean: Red, green and blue of the pixels in 0..1 that training subtracted.
        std: What it divided by.
        files: Public files by name, and where each can be had; the first one is the default.
        clip: Frames and pixels of the clips that the first one was trained with, where it is known.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    files: Mapping[str, str] = field(default_factory=dict)
    clip: tuple[int, int] | None = None


@dataclass(frozen=True)
class Backbone:
    """One backbone, known by what a config must know before anything heavy is loaded; calling it builds the network.

    Attributes:
        name: Its key in `BACKBONES`.
        module: The file that builds it; holds a function of the backbone's name, and ``WEIGHTS``.
        channels: C of its features.
        temporal_stride: Frames of the clip for each time step of the features.
        spatial_stride: Pixels for each site, along height and along width.
    """

    name: str
    module: str
    channels: int
    temporal_stride: int
    spatial_stride: int

    def __call__(self, **keywords: Any) -> "nn.Module":
        """Builds the network, untrained, with an attribute ``channels``.

        Args:
            keywords: As the function of the same name in the backbone's file takes them. Where they change the
                network's widths or strides, the numbers of this table are no longer its own.
        """
        return getattr(import_module(self.module), self.name)(**keywords)

    @property
    def weights(self) -> Weights:
        """Its public files and the colour statistics that they were trained with (loads torch)."""
        return import_module(self.module).WEIGHTS[self.name]


BACKBONES: dict[str, Backbone] = {
    backbone.name: backbone
    for backbone in (
        Backbone("r2plus1d_34", "taghead.backbones.r2plus1d", channels=512, temporal_stride=8, spatial_stride=16),
        Backbone("r2plus1d_18", "taghead.backbones.r2plus1d", channels=512, temporal_stride=8, spatial_stride=16),
        Backbone("r3d_18", "taghead.backbones.r2plus1d", channels=512, temporal_stride=8, spatial_stride=16),
        Backbone("i3d_r50", "taghead.backbones.resnet3d", channels=2048, temporal_stride=2, spatial_stride=32),
        Backbone("slow_r50", "taghead.backbones.resnet3d", channels=2048, temporal_stride=1, spatial_stride=32),
        Backbone("csn_r101", "taghead.backbones.resnet3d", channels=2048, temporal_stride=8, spatial_stride=32),
        Backbone("slowfast_r50", "taghead.backbones.slowfast", channels=2304, temporal_stride=4, spatial_stride=32),
        Backbone("x3d_m", "taghead.backbones.x3d", channels=192, temporal_stride=1, spatial_stride=32),
        Backbone("ir_csn_152", "taghead.backbones.csn", channels=2048, temporal_stride=8, spatial_stride=32),
        Backbone("r2plus1d_narrow", "taghead.backbones.r2plus1d", channels=128, temporal_stride=4, spatial_stride=16),
    )
}


def check_input(name: str, num_frames: int, crop_size: int) -> None:
    """Refuses a clip that the backbone cannot take.

    Frames must fill the time steps, so that each step of the features has seen equally many; a crop that does not
    fill the sites is fine, its last row and column see some padding.

    Args:
        name: A key of `BACKBONES`.
        num_frames: F.
        crop_size: Height and width of the clip in pixels.

    Raises:
        InputError: No such backbone, or a clip that is too short, too small or no whole number of time steps.
    """
    if name not in BACKBONES:
        raise InputError(f"{name!r} is no backbone{nearest(name, BACKBONES)}")
    backbone = BACKBONES[name]
    step, site = backbone.temporal_stride, backbone.spatial_stride
    if num_frames < step or num_frames % step:
        below = max(step, num_frames // step * step)
        raise InputError(
            f"num_frames must be a positive multiple of {step} for {name}, but got {num_frames}; "
            f"try {below} or {below + step}."
        )
    if crop_size < site:
        raise InputError(f"crop_size >= {site} pixels must hold for {name}, but got {crop_size}; try {site}.")


def grid_of(name: str, num_frames: int, crop_size: int) -> tuple[int, int, int]:
    """The grid (T, H, W) of a backbone's features; ``r2plus1d_34`` at 32 frames of 112 pixels: (4, 7, 7).

    Args:
        name: A key of `BACKBONES`.
        num_frames: F.
        crop_size: Height and width of the clip in pixels.

    Raises:
        InputError: As `check_input`.
    """
    check_input(name, num_frames, crop_size)
    backbone = BACKBONES[name]
    # Odd kernels with half their size as padding: each stride divides and rounds up, so their product does.
    sites = -(-crop_size // backbone.spatial_stride)
    return num_frames // backbone.temporal_stride, sites, sites


def freeze(module: "nn.Module") -> None:
    """Freezes a network for good (stage TL of Fig. 3): no gradients, and norms that keep their running statistics.

    From here on the network is in eval mode, also after ``train()`` is called on it or on a module that holds it.
    Names in the state dict stay as they are, and copies (`copy.deepcopy`, pickle) are frozen too.

    Args:
        module: Any network; changed in place.
    """
    module.requires_grad_(False)
    # A parent's train() calls its children's, and an attribute of the instance goes before the class's method.
    # A partial, since it survives pickling, which a method bound to the instance would not.
    module.train = partial(_stay_in_eval, module)  # type: ignore[method-assign]
    module.eval()


def _stay_in_eval(module: "nn.Module", mode: bool = True) -> "nn.Module":
    return type(module).train(module, False)
