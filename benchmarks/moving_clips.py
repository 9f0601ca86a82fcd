"""Clips for the benchmarks of the data path: 320 x 256 pixels, textures that drift and a textured square that crosses.

Drawn from fixed random numbers, so that every run encodes the same pictures; at x264's usual quality they take about
as many bits as filmed clips of that size (0.4 to 0.8 Mbit/s).
"""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8

HEIGHT, WIDTH, RATE = 256, 320, 25
GRAIN = 6.0  # of 255, as a camera's


@dataclass(frozen=True)
class Kind:
    """How a clip is encoded.

    Attributes:
        name: In the table.
        suffix: Of the file, which says the container.
        codec: An encoder of FFmpeg's.
        options: Its options.
    """

    name: str
    suffix: str
    codec: str
    options: dict[str, str] = field(default_factory=dict)


H264 = Kind("H.264", ".mp4", "libx264")
OTHERS = (
    Kind("H.264, a key frame every 8", ".mp4", "libx264", {"g": "8"}),
    Kind("H.264 without B-frames", ".mp4", "libx264", {"bf": "0"}),
    Kind("HEVC", ".mkv", "libx265", {"preset": "fast", "x265-params": "log-level=error:pools=1"}),
    Kind("MPEG-4", ".avi", "mpeg4", {"b": "700k"}),
    Kind("VP9", ".webm", "libvpx-vp9", {"crf": "35", "b": "0", "deadline": "realtime", "cpu-used": "7"}),
)


def write_clip(folder: Path, kind: Kind, num_frames: int, *, seed: int = 0) -> Path:
    """Encodes one clip, unless it is there."""
    path = folder / f"{kind.codec}_{'_'.join(kind.options)}_{num_frames}_{seed}{kind.suffix}"
    if path.exists():
        return path
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(kind.codec, rate=RATE, options={"threads": "1"} | kind.options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number, picture in enumerate(pictures(num_frames, seed=seed)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def pictures(num_frames: int, *, seed: int) -> list[UInt8[np.ndarray, "h w 3"]]:
    """What is seen: two layers of texture that drift against each other, and a square of a third that crosses them."""
    random = np.random.default_rng(seed)
    far, near, square = (_texture(random, cells) for cells in (6, 24, 40))
    found = []
    for number in range(num_frames):
        picture = 0.6 * np.roll(far, number, axis=1) + 0.4 * np.roll(near, (number // 2, -2 * number), axis=(0, 1))
        top, left = 40 + number % 120, (3 * number) % (WIDTH - 80)
        picture[top : top + 80, left : left + 80] = square[:80, :80]
        picture += random.normal(0.0, GRAIN, (HEIGHT, WIDTH, 1))
        found.append(picture.clip(0, 255).astype(np.uint8))
    return found


def _texture(random: np.random.Generator, cells: int) -> np.ndarray:
    """Random colours of ``cells`` cells a row, blended smoothly; it meets itself at the edges."""
    colours = random.uniform(20, 235, (cells, cells, 3))
    for axis, length in ((0, HEIGHT), (1, WIDTH)):
        place = np.arange(length) * cells / length
        low = place.astype(int)
        shape = [1, 1, 1]
        shape[axis] = length
        part = (place - low).reshape(shape)
        colours = (1 - part) * colours.take(low, axis=axis) + part * colours.take((low + 1) % cells, axis=axis)
    return colours
