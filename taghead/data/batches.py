"""Batches of clips on the device: made ahead by a few threads, in an order that seed and epoch alone decide.

Axes: B clips; F frames; S side of the crop, in pixels.
"""

import random
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from taghead.data.clips import Clip
from taghead.data.decode import UnreadableClip
from taghead.data.frame_cache import FrameCache
from taghead.data.parallel import in_threads
from taghead.data.transforms import Crop, Draw, batch, draw_centre, draw_train, stream

_Placed = tuple[int, Clip]  # with its place in the order of the epoch
_Frames = UInt8[np.ndarray, "F _ _ 3"]  # height and width differ from clip to clip


@dataclass(frozen=True)
class Batch:
    """Clips ready for the backbone.

    Attributes:
        frames: Cropped and normalised, on the device.
        labels: Likewise.
        clips: What they are of.
        unreadable: The batch's clips that gave no frame: not in the other fields. An evaluation counts them as wrong.
    """

    frames: Float[Tensor, "B 3 F S S"]
    labels: Int64[Tensor, " B"]
    clips: tuple[Clip, ...]
    unreadable: tuple[Clip, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """Of `clips`."""
        return tuple(clip.id for clip in self.clips)


def training_order(num_clips: int, *, seed: int, epoch: int) -> list[int]:
    """A permutation of 0 to num_clips - 1 that depends on seed and epoch alone."""
    return np.argsort(stream("order", seed, epoch).random(num_clips), kind="stable").tolist()


def train_batches(
    clips: Sequence[Clip],
    *,
    cache: FrameCache,
    seed: int,
    epoch: int,
    batch_size: int,
    crop: Crop,
    crop_size: int,
    flip: float,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
    order: tuple[int, int] | None = None,
    num_threads: int | None = None,
) -> Generator[Batch, None, None]:
    """The batches of one epoch of training.

    Which clips share a batch is settled by the order alone. A clip that gives no frame is left out of its batch and
    never replaced; its reason is in ``cache.unreadable``. A batch that holds a single clip, though ``batch_size`` is
    larger, is left out: batch norm would learn from one clip what the others are like.

    Args:
        clips: Of the training split.
        cache: Gives the decoded frames.
        seed: The trial's: decides crops and flips.
        epoch: From 0.
        batch_size: Clips in a batch; the last may have fewer.
        crop: See `draw_train`.
        crop_size: S, in pixels.
        flip: Probability of a flip.
        mean: Of red, green and blue, in 0 to 1.
        std: Likewise.
        device: Where the batches shall be.
        order: Seed and epoch that decide the order; None: those above. The authors' public code has the same in every
            epoch.
        num_threads: Threads that decode ahead, beside one that makes the batches where there are several; None: as many
            as torch has; 0 does all when a batch is asked for. Changes no bit of the result.
    """
    order_seed, order_epoch = order or (seed, epoch)
    ordered = [clips[index] for index in training_order(len(clips), seed=order_seed, epoch=order_epoch)]

    def draw(clip: Clip, size: tuple[int, int]) -> Draw:
        return draw_train(size, seed=seed, epoch=epoch, clip_id=clip.id, crop=crop, crop_size=crop_size, flip=flip)

    collate = partial(batch, crop_size=crop_size, mean=mean, std=std, device=device)
    batches = _batches(ordered, draw, collate, cache=cache, batch_size=batch_size, num_threads=num_threads)
    with closing(batches):
        for made in batches:
            if len(made.clips) >= min(2, batch_size):
                yield made


def eval_batches(
    clips: Sequence[Clip],
    *,
    cache: FrameCache,
    batch_size: int,
    crop_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
    num_threads: int | None = None,
) -> Generator[Batch, None, None]:
    """All clips in their order, cropped in the centre (single clip, single view); the last batch may be smaller.

    A clip that gives no frame is in its batch's ``unreadable``; a batch may consist of such clips only (B = 0:
    nothing to run the network on).
    The arguments are those of `train_batches`.
    """

    def draw(clip: Clip, size: tuple[int, int]) -> Draw:
        return draw_centre(size, crop_size=crop_size)

    collate = partial(batch, crop_size=crop_size, mean=mean, std=std, device=device)
    return _batches(clips, draw, collate, cache=cache, batch_size=batch_size, num_threads=num_threads)


def _batches(
    clips: Sequence[Clip],
    draw: Callable[[Clip, tuple[int, int]], Draw],
    collate: Callable[[list[_Frames], list[Draw]], Float[Tensor, "B 3 F S S"]],
    *,
    cache: FrameCache,
    batch_size: int,
    num_threads: int | None,
) -> Generator[Batch, None, None]:

    def get(placed: _Placed) -> _Frames | None:
        try:
            return cache.get(placed[1])
        except UnreadableClip:
            return None

    threads = torch.get_num_threads() if num_threads is None else num_threads
    reading = _own_order(clips, batch_size=batch_size)
    # one thread alone decodes where the batch is made, which is ahead too: no clip is handed from thread to thread
    decoded = in_threads(get, reading, num_threads=threads if threads > 1 else 0, most=batch_size)
    made = _made(decoded, draw, collate, batch_size=batch_size)
    return made if num_threads == 0 else _one_ahead(made)


def _own_order(clips: Sequence[Clip], *, batch_size: int) -> Iterator[_Placed]:
    """The clips with their places, those of a batch in an order of this process's own.

    Trials of one seed that begin together want the same clips at the same time: so each decodes others of a batch
    first, and finds what the rest have put into the cache.
    """
    own = random.Random()
    for start in range(0, len(clips), batch_size):
        places = range(start, min(start + batch_size, len(clips)))
        yield from ((place, clips[place]) for place in own.sample(places, len(places)))


def _made(
    decoded: Generator[tuple[_Placed, _Frames | None], None, None],
    draw: Callable[[Clip, tuple[int, int]], Draw],
    collate: Callable[[list[_Frames], list[Draw]], Float[Tensor, "B 3 F S S"]],
    *,
    batch_size: int,
) -> Generator[Batch, None, None]:
    with closing(decoded):
        while read := sorted(islice(decoded, batch_size), key=lambda one: one[0][0]):
            group = [(clip, frames) for (_, clip), frames in read]
            readable = [(clip, frames) for clip, frames in group if frames is not None]
            draws = [draw(clip, frames.shape[1:3]) for clip, frames in readable]
            pixels = collate([frames for _, frames in readable], draws)
            used = tuple(clip for clip, _ in readable)
            labels = torch.tensor([clip.label for clip in used], dtype=torch.int64, device=pixels.device)
            yield Batch(pixels, labels, used, tuple(clip for clip, frames in group if frames is None))


def _one_ahead(batches: Generator[Batch, None, None]) -> Generator[Batch, None, None]:
    """The same batches, each made by another thread while the one before it is used."""
    with closing(batches), ThreadPoolExecutor(1, thread_name_prefix="collate") as maker:
        upcoming = maker.submit(next, batches, None)
        while (made := upcoming.result()) is not None:
            upcoming = maker.submit(next, batches, None)
            yield made
