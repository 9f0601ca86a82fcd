"""Odd clips for the tests of the decoder: any codec, container, time, colour mark; boxes patched by hand."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy import ndarray

RATE = 25
RED, GREEN, BLUE, DARK = (220, 30, 30), (30, 220, 30), (30, 30, 220), (50, 50, 50)
BT601, BT709, BT2020 = (0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)  # the weights of red and blue in luma


def write(
    path: Path,
    pictures: Sequence[ndarray | av.VideoFrame],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    prepare: Callable[[Any], object] = lambda stream: None,
) -> Path:
    """Encodes pictures (RGB arrays or frames) into a file; its suffix says which container.

    Args:
        path: The file.
        pictures: Arrays of (height, width, 3), or frames of ``pix_fmt``.
        codec: An encoder of FFmpeg's.
        pix_fmt: What it shall encode.
        options: For the encoder.
        container: For the muxer.
        times: When each picture is shown, in units of 1 / RATE seconds; None: 0, 1, 2, ...
        prepare: Is given the stream before the first picture.
    """
    frames = [_frame(picture) for picture in pictures]
    with av.open(str(path), "w", options=container or {}) as target:
        stream: Any = target.add_stream(codec, rate=RATE, options={"threads": "1"} | (options or {}))
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, pix_fmt
        prepare(stream)
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = times[number] if times else number, Fraction(1, RATE)
            target.mux(stream.encode(frame))
        target.mux(stream.encode())
    return path


def _frame(picture: ndarray | av.VideoFrame) -> av.VideoFrame:
    return picture if isinstance(picture, av.VideoFrame) else av.VideoFrame.from_ndarray(picture, format="rgb24")


def numbered(count: int, *, height: int = 48, width: int = 64) -> list[ndarray]:
    """Pictures that tell their number: the i-th is grey of 4 i + 10."""
    return [np.full((height, width, 3), 4 * number + 10, np.uint8) for number in range(count)]


def numbers(frames: ndarray) -> list[int]:
    """The numbers of `numbered` pictures."""
    return [round((float(frame.mean()) - 10) / 4) for frame in frames]


def quarters(*, height: int = 48, width: int = 64) -> ndarray:
    """A picture without any symmetry: red, green above blue, dark."""
    picture = np.empty((height, width, 3), np.uint8)
    for rows, columns, colour in ((0, 0, RED), (0, 1, GREEN), (1, 0, BLUE), (1, 1, DARK)):
        picture[rows * height // 2 :, columns * width // 2 :] = colour
    return picture


def corners(frame: ndarray) -> list[str]:
    """The names of the colours of `quarters`, from left to right and down."""
    named = {"red": RED, "green": GREEN, "blue": BLUE, "dark": DARK}
    height, width, _ = frame.shape
    spots = [frame[y, x].astype(int) for y in (height // 4, height * 3 // 4) for x in (width // 4, width * 3 // 4)]
    return [min(named, key=lambda name: int(np.abs(spot - named[name]).sum())) for spot in spots]


def plain(
    colour: tuple[int, int, int],
    pix_fmt: str,
    *,
    width: int,
    height: int,
    weights: tuple[float, float] = BT601,
    full_range: bool = False,
    alpha: int = 255,
) -> av.VideoFrame:
    """A frame of one colour, whose planes are calculated here and not by the library under test."""
    frame = av.VideoFrame(width, height, pix_fmt)
    bits = frame.format.components[0].bits
    values = _planes(colour, weights, bits, full_range=full_range)
    if frame.format.is_rgb:  # planar: green, blue, red
        values = [colour[1], colour[2], colour[0]]
    for plane, value in zip(frame.planes, [*values, alpha], strict=False):
        kind = np.uint16 if bits > 8 else np.uint8
        plane.update(np.full(plane.buffer_size // np.dtype(kind).itemsize, value, kind).tobytes())
    return frame


def _planes(colour: tuple[int, int, int], weights: tuple[float, float], bits: int, *, full_range: bool) -> list[int]:
    """Luma and chroma as BT.601, BT.709 and BT.2020 have them; limited: 16 to 235 and 16 to 240 in 8 bits."""
    (red, green, blue), (of_red, of_blue) = (np.array(colour) / 255), weights
    luma = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    chroma = np.array([(blue - luma) / (2 - 2 * of_blue), (red - luma) / (2 - 2 * of_red)])
    unit, middle = 2 ** (bits - 8), 2 ** (bits - 1)
    if full_range:
        return [round(luma * (2**bits - 1)), *(round(value * (2**bits - 1) + middle) for value in chroma)]
    return [round((16 + 219 * luma) * unit), *(round(224 * value * unit + middle) for value in chroma)]


def remux(source: Path, target: Path, keep: Callable[[Any], bool]) -> Path:
    """Copies the packets that ``keep`` likes, without decoding."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None and keep(packet):
                packet.stream = stream
                new.mux(packet)
    return target


def patched(path: Path, old: bytes, new: bytes, *, count: int = 1) -> Path:
    """Replaces bytes of a file by as many others; ``count`` says how often they must occur."""
    content = path.read_bytes()
    assert content.count(old) == count and len(old) == len(new)
    path.write_bytes(content.replace(old, new))
    return path


def with_matrix(path: Path, matrix: Sequence[int]) -> Path:
    """Writes a display matrix (a, b, u, c, d, v, x, y, w as 32-bit numbers) into the only track of an MP4 file."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44  # after version, times, id, duration, layer, group, volume
    content[start : start + 36] = np.array(matrix, ">i4").tobytes()
    path.write_bytes(content)
    return path
