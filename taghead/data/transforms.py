"""Crop, flip and normalise (the paper's 112 x 112 crops): drawn from seed, epoch and clip, done on the device.

Axes: B clips; F frames; S side of the crop, in pixels.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from taghead.errors import InputError

Crop = Literal["random", "random_resized"]
AREA = (0.5, 1.0)  # of the frame: the authors' public code crops a square of so much, then resizes it
_TRIES = 10


@dataclass(frozen=True)
class Draw:
    """A square of a clip's frames, in pixels, and whether it is mirrored left to right."""

    top: int
    left: int
    side: int
    flip: bool = False


def stream(*words: str | int) -> np.random.Generator:
    """A stream of random numbers that depends on the words alone, not on order, worker or batch.

    Only `Generator.random` is used of it: integers and permutations may change between NumPy's versions, the bits of
    Philox may not.
    """
    digest = hashlib.sha256("\0".join(str(word) for word in words).encode(errors="surrogateescape")).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def draw_train(
    size: tuple[int, int], *, seed: int, epoch: int, clip_id: str, crop: Crop, crop_size: int, flip: float
) -> Draw:
    """The crop and flip of one clip in one epoch of training; all its frames get the same.

    Args:
        size: Height and width of the decoded frames, in pixels.
        seed: The trial's.
        epoch: From 0.
        clip_id: Its id in the split list.
        crop: ``random`` (the paper): a square of ``crop_size`` anywhere. ``random_resized`` (the authors' public code):
            a square of 0.5 to 1 of the frame's area, resized to ``crop_size`` later; ten tries to fit into the frame,
            then the largest square in the centre.
        crop_size: S, in pixels.
        flip: Probability of a flip, 0 to 1. Leave it at 0 where left and right are classes.

    Raises:
        InputError: The crop is larger than the frame.
    """
    _check_crop(size, crop_size)
    random = stream("augmentation", seed, epoch, clip_id)
    flipped = bool(random.random() < flip)
    side = crop_size if crop == "random" else _fitting_side(size, random)
    if side is None:
        return replace(draw_centre(size, crop_size=min(size)), flip=flipped)
    top, left = (int(random.random() * (length - side + 1)) for length in size)
    return Draw(top, left, side, flipped)


def draw_centre(size: tuple[int, int], *, crop_size: int) -> Draw:
    """The crop of evaluation: the square of ``crop_size`` pixels in the centre, unmirrored.

    Raises:
        InputError: The crop is larger than the frame.
    """
    _check_crop(size, crop_size)
    return Draw((size[0] - crop_size) // 2, (size[1] - crop_size) // 2, crop_size)


def batch(
    frames: Sequence[UInt8[np.ndarray, "F _ _ 3"]],  # height and width differ from clip to clip
    draws: Sequence[Draw],
    *,
    crop_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
) -> Float[Tensor, "B 3 F S S"]:
    """Moves decoded clips to the device as bytes; crops, flips, resizes and normalises them there.

    Args:
        frames: One array a clip, all of F frames; their heights and widths may differ.
        draws: One a clip.
        crop_size: S, in pixels. A draw of another side is resized (bilinear, anti-aliased).
        mean: Of red, green and blue, in 0 to 1.
        std: Likewise.
        device: Where the batch shall be.

    Returns:
        (value / 255 - mean) / std in float32. Without clips it is empty.
    """
    num_frames = frames[0].shape[0] if frames else 0
    out = torch.empty(len(frames), 3, num_frames, crop_size, crop_size, device=device)
    shift, scale = ((255 * torch.tensor(value, device=device)).view(3, 1, 1, 1) for value in (mean, std))
    for clip, array, draw in zip(out, frames, draws, strict=True):
        whole = torch.from_numpy(array).to(device)
        patch = whole[:, draw.top : draw.top + draw.side, draw.left : draw.left + draw.side].permute(3, 0, 1, 2)
        if draw.side != crop_size:
            size = (crop_size, crop_size)
            patch = functional.interpolate(patch.float(), size=size, mode="bilinear", antialias=True)
        clip.copy_(patch.flip(-1) if draw.flip else patch)
        clip.sub_(shift).div_(scale)  # clip by clip: a whole batch would have left the processor's cache by then
    return out


def _fitting_side(size: tuple[int, int], random: np.random.Generator) -> int | None:
    """The side of a square of a random area that fits into the frame; None if no try did."""
    for _ in range(_TRIES):
        area = AREA[0] + (AREA[1] - AREA[0]) * random.random()
        side = round(math.sqrt(area * size[0] * size[1]))
        if side <= min(size):
            return side
    return None


def _check_crop(size: tuple[int, int], crop_size: int) -> None:
    if not 0 < crop_size <= min(size):
        raise InputError(
            f"0 < crop_size <= short side must hold, but got crop_size={crop_size} for frames of {size[0]} x {size[1]} "
            "pixels; lower crop_size or raise short_side."
        )
