"""Second epoch: frames from the cache to normalised, cropped, flipped batches, against decoding and against less work.

    python benchmarks/bench_frames.py --threads 2

An epoch of `train_batches` over a cache folder that is filled, against the same epoch without a cache, and against
what bench_decode.py calls naive. The batches of the former two are compared bit for bit before anything is timed.
"Normalising alone" is PyTorch on arrays that are in memory, clip by clip in the main thread: crop, flip, to float32,
minus mean, by standard deviation. "A plain read" reads the cache's files and does nothing with them. Then a small
training: a narrow backbone and the head, whose steps are fed from the cache; the share of the time in which the step
waits for its batch. Writes frames.json and frames.md.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_decode import naive
from jaxtyping import Float, UInt8
from machine import machine
from moving_clips import H264, write_clip
from torch import Tensor
from torch.nn import functional
from turns import Row, arguments, measure, ratio, spread, turns_of, write

from taghead.backbones import BACKBONES
from taghead.data.batches import Batch, train_batches
from taghead.data.clips import Clip
from taghead.data.frame_cache import FrameCache
from taghead.data.transforms import Draw, draw_train
from taghead.head import TAGHead

NUM_FRAMES, SHORT_SIDE, CROP, BATCH, LENGTH = 32, 126, 112, 4, 100
MEAN, STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
NUM_CLIPS, FEW_CLIPS = 24, 8
NEVER = 0.01  # of the time; what counts as not waiting
CLASSES = 5


def epoch(clips: Sequence[Clip], cache: FrameCache, number: int = 0) -> Iterator[Batch]:
    view: dict[str, Any] = {"crop": "random", "crop_size": CROP, "flip": 0.5, "mean": MEAN, "std": STD}
    return train_batches(clips, cache=cache, seed=0, epoch=number, batch_size=BATCH, **view)


def through(clips: Sequence[Clip], cache: FrameCache) -> int:
    return sum(len(made.clips) for made in epoch(clips, cache))


def normalised(frames: UInt8[np.ndarray, "F h w 3"], draw: Draw) -> Float[Tensor, "3 F S S"]:
    patch = torch.from_numpy(frames)[:, draw.top : draw.top + draw.side, draw.left : draw.left + draw.side]
    patch = patch.permute(3, 0, 1, 2)
    pixels = (patch.flip(-1) if draw.flip else patch).float()
    shift, scale = (255 * torch.tensor(value).view(3, 1, 1, 1) for value in (MEAN, STD))
    return pixels.sub_(shift).div_(scale)


def normalise_all(frames: Sequence[UInt8[np.ndarray, "F h w 3"]], draws: Sequence[Draw]) -> None:
    for one, draw in zip(frames, draws, strict=True):
        normalised(one, draw)


def read_all(folder: Path) -> int:
    return sum(len(file.read_bytes()) for file in folder.iterdir())


def check(clips: Sequence[Clip], cache: FrameCache, decoding: FrameCache, draws: dict[str, Draw]) -> None:
    """Stops unless the cache's batches are those of decoding, and those of normalising by PyTorch."""
    for one, other in zip(epoch(clips, cache), epoch(clips, decoding), strict=True):
        assert one.ids == other.ids
        assert torch.equal(one.frames, other.frames)
        for clip, pixels in zip(one.clips, one.frames, strict=True):
            assert torch.equal(pixels, normalised(np.ascontiguousarray(cache.get(clip)), draws[clip.id]))


def speed_rows(clips: Sequence[Clip], cache: FrameCache, folder: Path, turns: int) -> tuple[list[Row], dict]:
    decoding = FrameCache(None, num_frames=NUM_FRAMES, short_side=SHORT_SIDE, memory_bytes=0)
    held = [np.ascontiguousarray(cache.get(clip)) for clip in clips]
    setting: dict[str, Any] = {"seed": 0, "epoch": 0, "crop": "random", "crop_size": CROP, "flip": 0.5}
    draws = {
        clip.id: draw_train(one.shape[1:3], clip_id=clip.id, **setting) for clip, one in zip(clips, held, strict=True)
    }
    check(clips, cache, decoding, draws)
    ways = {
        "decoding": partial(through, clips, decoding),
        "naive": lambda: [naive(clip.path) for clip in clips],
        "cache": partial(through, clips, cache),
        "normalising": partial(normalise_all, held, list(draws.values())),
        "read": partial(read_all, folder),
    }
    times = measure(ways, turns=turns)
    cached = times["cache"]
    rows = [
        Row("frame cache, an epoch of batches", "decoding", ratio(times["decoding"], cached), "speed", 40, "at least"),
        Row(
            "frame cache, an epoch of batches",
            "naive decoding, no batches made of it",
            ratio(times["naive"], cached),
            "speed",
        ),
        Row(
            "frame cache, an epoch of batches",
            "normalising alone",
            ratio(cached, times["normalising"]),
            "time",
            1.5,
            "at most",
        ),
        Row("frame cache, an epoch of batches", "a plain read", ratio(cached, times["read"]), "time"),
    ]
    return rows, times


class Step:
    """A training step of a narrow backbone with the head."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.backbone = BACKBONES["r2plus1d_narrow"]()
        with torch.no_grad():
            grid = self.backbone(torch.zeros(1, 3, NUM_FRAMES, CROP, CROP)).shape[2:]
        self.head = TAGHead(self.backbone.channels, tuple(grid), CLASSES)
        parameters = [*self.backbone.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-4)

    def __call__(self, made: Batch) -> None:
        """Forward, backward, update."""
        maps = self.backbone(made.frames)
        loss = functional.cross_entropy(self.head(maps.flatten(3).permute(0, 2, 3, 1)), made.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def waiting(step: Step, clips: Sequence[Clip], cache: FrameCache, number: int) -> float:
    """The share of an epoch's time in which the step waits for a batch, that for the first one included."""
    begin = time.perf_counter()
    waited, asked = 0.0, begin
    for made in epoch(clips, cache, number):
        waited += time.perf_counter() - asked
        step(made)
        asked = time.perf_counter()
    return waited / (time.perf_counter() - begin)


def main() -> None:
    args = arguments(__doc__, turns=9, quick_turns=3).parse_args()
    torch.set_num_threads(args.threads)
    where = machine("av", "torch", "numpy", threads=args.threads)
    turns, num_clips = turns_of(args), FEW_CLIPS if args.quick else NUM_CLIPS
    with tempfile.TemporaryDirectory() as name:
        paths = [write_clip(Path(name), H264, LENGTH, seed=number) for number in range(num_clips)]
        clips = [Clip(f"clip {number}", path, number % CLASSES, "train") for number, path in enumerate(paths)]
        folder = Path(name) / "frames"
        cache = FrameCache(folder, num_frames=NUM_FRAMES, short_side=SHORT_SIDE)
        through(clips, cache)
        rows, times = speed_rows(clips, cache, folder, turns)
        step = Step()
        shares = [waiting(step, clips, cache, number) for number in range(turns + 1)][1:]
    part = f"frame cache, share of a narrow backbone's training that waits for a batch of {BATCH}"
    rows.append(Row(part, "the epoch's time", spread(shares), "number", NEVER, "at most"))
    text = (
        f"# Frame cache\n\n{where['date']}, {where['cpu']}, {where['cores']} cores, {args.threads} threads, load "
        f"{where['load_before']} before; PyAV {where['av']}, torch {where['torch']}. {turns} turns.\n"
        f"{num_clips} clips of {LENGTH} frames, 320 x 256 H.264; {NUM_FRAMES} frames at a short side of {SHORT_SIDE}, "
        f"crops of {CROP}. The batches equal those of decoding, bit for bit."
    )
    write("frames", rows, out=args.out, machine=where, text=text, seconds=times, waiting=shares)


if __name__ == "__main__":
    main()
