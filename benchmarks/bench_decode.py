"""Decoding: F frames of a clip at a short side of 126 (UniView), against what a user of the libraries would write.

    python benchmarks/bench_decode.py --threads 2

Naive is PyAV as its documentation shows it (its own choice of threads): every frame to a full-size RGB array, all of
them stacked, the sampled ones resized by PyTorch's bilinear filter in float32 (without anti-aliasing, which would cost
it more), one clip after another. "Naive, all resized" resizes whole clips and samples then. Ours decodes clips side by
side, one thread each, as the loader does. "Everything decoded" is PyAV with one thread over the same packets, the
sampled frames resized by our filter; clip by clip, like ours beside it. Before anything is timed our frames are
compared, bit for bit, with those of every frame decoded and converted by a fresh context. Writes decode.json and
decode.md.
"""

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from jaxtyping import Float, UInt8
from machine import machine
from moving_clips import H264, OTHERS, RATE, Kind, write_clip
from torch import Tensor
from torch.nn import functional
from turns import Row, arguments, measure, ratio, turns_of, write

from taghead.data.decode import _FILTER, frame_indices, resized, sample_frames

NUM_FRAMES, SHORT_SIDE = 32, 126
LENGTHS = (64, 100, 150)
OTHER_LENGTH = 100
Way = Callable[[], object]


def arrays(path: Path) -> UInt8[np.ndarray, "n height width 3"]:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def small(frames: UInt8[np.ndarray, "F height width 3"]) -> Float[Tensor, "F 3 h w"]:
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    size = resized(*frames.shape[1:3], short_side=SHORT_SIDE)
    return functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False)


def naive(path: Path) -> Float[Tensor, "F 3 h w"]:
    frames = arrays(path)
    return small(frames[frame_indices(len(frames), NUM_FRAMES)])


def naive_all(path: Path) -> Float[Tensor, "F 3 h w"]:
    frames = small(arrays(path))
    return frames[frame_indices(len(frames), NUM_FRAMES)]


def everything(path: Path) -> UInt8[np.ndarray, "F h w 3"]:
    """Every frame decoded by one thread; the sampled ones converted, each by a fresh context."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        frames = list(container.decode(video=0))
    height, width = resized(frames[0].height, frames[0].width, short_side=SHORT_SIDE)
    chosen = [
        frames[index].reformat(width, height, "rgb24", interpolation=_FILTER).to_ndarray()
        for index in frame_indices(len(frames), NUM_FRAMES)
    ]
    return np.stack(chosen)


def decoder_alone(path: Path) -> int:
    """Every frame decoded by one thread, and nothing else."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        return sum(1 for _ in container.decode(video=0))


def ours(path: Path) -> UInt8[np.ndarray, "F h w 3"]:
    return sample_frames(path, NUM_FRAMES, short_side=SHORT_SIDE)


def megabits(path: Path, num_frames: int) -> float:
    """Of a second."""
    return 8 * path.stat().st_size / num_frames * RATE / 1e6


def check(path: Path) -> None:
    """Stops unless our frames are those of decoding everything."""
    np.testing.assert_array_equal(ours(path), everything(path))


def side_by_side(way: Callable[[Path], object], paths: list[Path], pool: ThreadPoolExecutor) -> None:
    for _ in pool.map(way, paths):
        pass


def in_turn(way: Callable[[Path], object], paths: list[Path]) -> None:
    for path in paths:
        way(path)


def h264_rows(folder: Path, length: int, threads: int, turns: int) -> tuple[list[Row], dict[str, list[float]]]:
    paths = [write_clip(folder, H264, length, seed=number) for number in range(2 * threads)]
    for path in paths:
        check(path)
    with ThreadPoolExecutor(threads) as pool:
        ways: dict[str, Way] = {
            "naive": partial(in_turn, naive, paths),
            "naive, all resized": partial(in_turn, naive_all, paths),
            "ours": partial(side_by_side, ours, paths, pool),
            "naive, side by side": partial(side_by_side, naive, paths, pool),
            "ours, in turn": partial(in_turn, ours, paths),
            "the decoder alone, in turn": partial(in_turn, decoder_alone, paths),
        }
        times = measure(ways, turns=turns)
    part, here = f"decode, {length} frames of H.264, {NUM_FRAMES} sampled", f"{threads} clips at once"
    rows = [
        Row(f"{part}, {here}", peer, ratio(times[peer], times["ours"]), "speed", 4.5, "at least")
        for peer in ("naive", "naive, all resized")
    ]
    rows.append(Row(f"{part}, {here}", f"naive, {here}", ratio(times["naive, side by side"], times["ours"]), "speed"))
    for way in ("ours, in turn", "the decoder alone, in turn"):
        what = way.removeprefix("ours, ")
        rows.append(Row(f"{part}, {what}", "naive", ratio(times["naive"], times[way]), "speed"))
    return rows, times


def other_row(folder: Path, kind: Kind, turns: int) -> tuple[Row, list[float], list[float]]:
    path = write_clip(folder, kind, OTHER_LENGTH)
    check(path)
    times = measure({"everything": partial(everything, path), "ours": partial(ours, path)}, turns=turns)
    found = ratio(times["everything"], times["ours"])
    part = f"decode, {OTHER_LENGTH} frames of {kind.name}"
    return Row(part, "everything decoded", found, "speed", 1.0, "at least"), times["everything"], times["ours"]


def main() -> None:
    args = arguments(__doc__, turns=15, quick_turns=5).parse_args()
    torch.set_num_threads(args.threads)
    where = machine("av", "torch", "numpy", threads=args.threads)
    turns, lengths = turns_of(args), LENGTHS[::2] if args.quick else LENGTHS
    with tempfile.TemporaryDirectory() as name:
        rows: list[Row] = []
        seconds: dict[str, dict[str, list[float]]] = {}
        for length in lengths:
            found, seconds[f"H.264, {length} frames"] = h264_rows(Path(name), length, args.threads, turns)
            rows += found
        rates = ", ".join(f"{megabits(write_clip(Path(name), H264, length), length):.2f}" for length in lengths)
        for kind in OTHERS:
            row, peer, own = other_row(Path(name), kind, turns)
            rows.append(row)
            seconds[kind.name] = {"everything": peer, "ours": own}
    text = (
        f"# Decoding\n\n{where['date']}, {where['cpu']}, {where['cores']} cores, {args.threads} threads, load "
        f"{where['load_before']} before; PyAV {where['av']}, torch {where['torch']}. {turns} turns.\n"
        f"320 x 256 pixels (H.264 at {rates} Mbit/s), {NUM_FRAMES} frames sampled to a short side of {SHORT_SIDE}; "
        "equal to every frame decoded and converted, bit for bit."
    )
    write("decode", rows, out=args.out, machine=where, text=text, seconds=seconds)


if __name__ == "__main__":
    main()
