"""UniView: F frames, uniformly from the whole clip, decoded with PyAV and resized by swscale.

Axes: F sampled frames; h w height and width after the resize, in pixels.

Rules. The frames of a clip are those that decode, in the order they are shown: n is counted by decoding, never read
from a header. The indices are linspace(0, n - 1, F) cut to integers (as in the authors' public code), so a clip of
n < F frames gives frames more than once. The short side becomes ``short_side``, the long side
round(long * short_side / short). Frames are resized by swscale's area filter with exact rounding and chroma at full
resolution: as near to an anti-aliased bilinear resize as its bilinear filter, at half of its time, and the same bits on
any processor. A stream's rotation mark is not applied.
A damaged stream gives what still decodes; a file that gives no frame at all is `UnreadableClip`.
"""

import threading
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import Int64, UInt8

from taghead.errors import InputError

DECODER = "uniview-area-1"  # names the rules above: another decoder, filter or rule gets another name
_FILTER = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT
_of_thread = threading.local()


class UnreadableClip(InputError):
    """A video file that gives no frame.

    Attributes:
        path: The file.
        reason: Why, in some words without the file's name.
    """

    def __init__(self, path: Path, reason: str):
        super().__init__(path, reason)  # both, so that the error survives pickling
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: no frame can be decoded ({self.reason}); replace the file, or leave the clip out."


def frame_indices(num_decoded: int, num_frames: int) -> Int64[np.ndarray, " F"]:
    """UniView's indices: linspace(0, n - 1, F), cut to integers.

    Args:
        num_decoded: Frames n that the clip has, at least 1.
        num_frames: Frames F to sample.
    """
    return np.linspace(0, num_decoded - 1, num_frames).astype(np.int64)


def resized(height: int, width: int, *, short_side: int) -> tuple[int, int]:
    """Height and width after the short side became ``short_side``, in pixels."""
    short = min(height, width)
    return round(height * short_side / short), round(width * short_side / short)


def sample_frames(path: str | Path, num_frames: int, *, short_side: int) -> UInt8[np.ndarray, "F h w 3"]:
    """Samples F frames uniformly from a whole clip (UniView) and resizes them.

    Only sampled frames are converted. Which these are depends on n, which is known at the end: so packets are counted
    first (which decodes nothing), and the clip is decoded again in the rare case that n comes out different.

    Args:
        path: Video file.
        num_frames: F, at least 1.
        short_side: Pixels of the shorter side in the result, at least 1.

    Returns:
        RGB frames, in the order they are shown.

    Raises:
        UnreadableClip: The file gives no frame: missing, empty, truncated before its index, no video.
        InputError: ``num_frames`` or ``short_side`` below 1.
    """
    for name, value in (("num_frames", num_frames), ("short_side", short_side)):
        if value < 1:
            raise InputError(f"{name} >= 1 must hold, but got {value}.")
    path = Path(path)
    try:
        expected = max(_count_packets(path), 1)
        decoded, frames = _decode(path, frame_indices(expected, num_frames), short_side=short_side)
        if decoded not in (0, expected):
            _, frames = _decode(path, frame_indices(decoded, num_frames), short_side=short_side)
    except (av.FFmpegError, OSError) as error:
        raise UnreadableClip(path, error.strerror or type(error).__name__) from None
    if not decoded:
        raise UnreadableClip(path, "its video stream is empty or damaged")
    return frames


def _count_packets(path: Path) -> int:
    """How many frames a sound stream will give: one a packet, but for those that an edit list discards."""
    with av.open(str(path)) as container:
        return sum(packet.size > 0 and not packet.is_discard for packet in _packets(path, container))


def _decode(
    path: Path, indices: Int64[np.ndarray, " F"], *, short_side: int
) -> tuple[int, UInt8[np.ndarray, "F h w 3"]]:
    """Decodes all of a clip and converts the frames of the sorted ``indices``.

    Returns:
        How many frames decoded; and the frames, undefined from the first index on that the clip does not reach.
    """
    frames = np.empty((len(indices), 0, 0, 3), np.uint8)
    decoded = filled = 0
    with av.open(str(path)) as container:
        for frame in _frames(path, container):
            if decoded == 0:  # the first frame decides the size, should it change later
                size = resized(frame.height, frame.width, short_side=short_side)
                frames = np.empty((len(indices), *size, 3), np.uint8)
            end = int(np.searchsorted(indices, decoded, side="right"))
            if end > filled:
                frames[filled:end] = _rgb(frame, height=frames.shape[1], width=frames.shape[2])
                filled = end
            decoded += 1
    return decoded, frames


def _packets(path: Path, container: av.container.InputContainer) -> Iterator[av.Packet]:
    """The packets of the video stream, up to the place where the file breaks off."""
    stream = container.streams.best("video")  # the video, and no cover picture beside it
    if not isinstance(stream, av.VideoStream):
        raise UnreadableClip(path, "it has no video stream")
    stream.thread_type = "NONE"  # clips are decoded side by side: one thread each wastes the least
    try:
        yield from container.demux(stream)
    except av.FFmpegError:
        return


def _frames(path: Path, container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
    """The frames that decode; packets that do not are passed over."""
    for packet in _packets(path, container):
        try:
            yield from packet.decode()
        except av.FFmpegError:
            continue


def _rgb(frame: av.VideoFrame, *, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """One resized RGB frame; the conversion's tables are kept a thread, where `frame.reformat` builds them anew."""
    if not hasattr(_of_thread, "reformatter"):
        _of_thread.reformatter = VideoReformatter()
    small = _of_thread.reformatter.reformat(frame, width, height, "rgb24", interpolation=_FILTER, threads=1)
    return small.to_ndarray()
