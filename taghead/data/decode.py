"""UniView: F frames, uniformly from the whole clip, decoded with PyAV and resized by swscale.

Axes: F sampled frames; h w height and width after the resize, in pixels.

Which frames. The frames of a clip are those that decode, in the order they are shown: n is counted by decoding, never
read from a header, and times play no part. The indices are linspace(0, n - 1, F) cut to integers (as in the authors'
public code), so a clip of n < F frames gives frames more than once. Of several video streams the one with the most
packets counts; cover pictures are none. A stream that is damaged or breaks off gives what still decodes; a file that
gives no frame at all is `UnreadableClip`, and so is one whose frames no camera makes (`_MAX_PIXELS`, `_MAX_ASPECT`): a
few bytes of a damaged header must not cost gigabytes.

What size. The short side becomes ``short_side``, the long side round(long * short_side / short), by swscale's area
filter with exact rounding and chroma at full resolution: as near to an anti-aliased bilinear resize as its bilinear
filter, at half of its time, and the same bits on any processor. The first frame decides; frames of another size are
stretched to it. A display matrix (a phone's rotation, a mirror) is applied as players do, to the nearest quarter turn.
Pixels are taken to be square whatever the aspect mark says, as the backbones' public weights were trained; frames that
are marked interlaced are resized whole and keep their combs.

Which colours. Matrix and range are those of the stream's marks. Without a mark, or with one that swscale has no matrix
for, it is BT.601 in the limited range at any size, as in FFmpeg's own conversion (players guess BT.709 for HD); a
format without colour planes is full range, likewise. High dynamic range is not mapped to the normal one. Transparency
is ignored: the colours are those stored beneath it.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import Int32, Int64, UInt8

from taghead.errors import InputError

DECODER = "uniview-area-2"  # names the rules above: another decoder, filter or rule gets another name
_FILTER = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT
_MAX_PIXELS = 2**26  # 8192 x 8192: an 8K frame is half of it
_MAX_ASPECT = 32  # long side by short side
_UNMARKED = 2  # AVCOL_SPC_UNSPECIFIED
_MATRICES = (0, 1, _UNMARKED, 4, 5, 6, 7, 9)  # the AVCOL_SPC_* that swscale knows; it refuses frames with others
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
    """Samples F frames uniformly from a whole clip (UniView), resizes them and turns them upright.

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
        stream, expected = _main_stream(path)
        decoded, frames = _decode(path, stream, frame_indices(expected, num_frames), short_side=short_side)
        if decoded not in (0, expected):
            _, frames = _decode(path, stream, frame_indices(decoded, num_frames), short_side=short_side)
    except (av.FFmpegError, OSError) as error:
        raise UnreadableClip(path, error.strerror or type(error).__name__) from None
    if not decoded:
        raise UnreadableClip(path, "its video stream is empty or damaged")
    return frames


def _open(path: Path) -> av.container.InputContainer:
    # file: "10:30.mp4" is a name and no protocol; ignore: titles are not always UTF-8
    return av.open(f"file:{path}", metadata_errors="ignore", options=_limits())


def _main_stream(path: Path) -> tuple[int, int]:
    """The stream to decode, and how many frames it gives if sound: one a packet, but for what an edit list discards.

    Returns:
        Which of the video streams it is; and the count, at least 1.
    """
    with _open(path) as container:
        streams = [stream for stream in container.streams.video if _is_video(stream)]
        if not streams:
            raise UnreadableClip(path, "it has no video stream, or none of a known codec")
        shown = Counter[int]()
        for packet in _packets(container, streams):
            shown[packet.stream_index] += packet.size > 0 and not packet.is_discard
        best = max(streams, key=lambda stream: shown[stream.index])
        return container.streams.video.index(best), max(shown[best.index], 1)


def _is_video(stream: av.VideoStream) -> bool:
    """Whether it is no cover picture, and of a codec that there is a decoder for."""
    return not stream.disposition & Disposition.attached_pic and stream.codec_context is not None


def _decode(
    path: Path, stream: int, indices: Int64[np.ndarray, " F"], *, short_side: int
) -> tuple[int, UInt8[np.ndarray, "F h w 3"]]:
    """Decodes all of a stream and converts the frames of the sorted ``indices``.

    Returns:
        How many frames decoded; and the frames, undefined from the first index on that the clip does not reach.
    """
    frames = np.empty((len(indices), 0, 0, 3), np.uint8)
    matrix: Any = None
    decoded = filled = 0
    with _open(path) as container:
        for frame in _frames(container, container.streams.video[stream]):
            if decoded == 0:
                _check_size(path, frame)
                height, width = resized(frame.height, frame.width, short_side=short_side)
                frames = np.empty((len(indices), height, width, 3), np.uint8)
                matrix = frame.side_data.get("DISPLAYMATRIX")
            end = int(np.searchsorted(indices, decoded, side="right"))
            if end > filled:
                frames[filled:end] = _rgb(frame, height=frames.shape[1], width=frames.shape[2])
                filled = end
            decoded += 1
    return decoded, frames if matrix is None else _upright(frames, np.frombuffer(matrix, np.int32))


def _packets(container: av.container.InputContainer, streams: list[av.VideoStream]) -> Iterator[av.Packet]:
    """The packets of some streams, up to the place where the file breaks off."""
    with suppress(av.FFmpegError):
        yield from container.demux(streams)


def _frames(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """The frames that decode; packets that do not are passed over."""
    stream.thread_type = "NONE"  # clips are decoded side by side: one thread each wastes the least
    stream.codec_context.options = _limits()
    for packet in _packets(container, [stream]):
        with suppress(av.FFmpegError):
            yield from packet.decode()
    with suppress(av.FFmpegError):  # what a decoder still holds where a file breaks off; refused where it does not
        yield from stream.decode(None)


def _limits() -> dict[str, str]:
    """Options for FFmpeg, whose decoders then refuse larger frames before they allocate them."""
    return {"max_pixels": str(_MAX_PIXELS)}


def _check_size(path: Path, frame: av.VideoFrame) -> None:
    if max(frame.width, frame.height) > _MAX_ASPECT * min(frame.width, frame.height):
        raise UnreadableClip(path, f"it says that its frames have {frame.width} x {frame.height} pixels")


def _rgb(frame: av.VideoFrame, *, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """One resized RGB frame; the conversion's tables are kept a thread, where `frame.reformat` builds them anew."""
    if not hasattr(_of_thread, "reformatter"):
        _of_thread.reformatter = VideoReformatter()
    if frame.colorspace not in _MATRICES:
        frame.colorspace = _UNMARKED
    if frame.interlaced_frame:  # swscale would resize each field by itself: take the mark off, in RGB at full size
        whole = frame.reformat(format="rgb24", interpolation=_FILTER, threads=1)
        frame = av.VideoFrame.from_ndarray(whole.to_ndarray(), format="rgb24")
    small = _of_thread.reformatter.reformat(frame, width, height, "rgb24", interpolation=_FILTER, threads=1)
    return small.to_ndarray()


def _upright(frames: UInt8[np.ndarray, "F h w 3"], matrix: Int32[np.ndarray, " 9"]) -> UInt8[np.ndarray, "F h2 w2 3"]:
    """Turns and mirrors frames by a display matrix: (x', y') = (a x + c y, b x + d y), signs alone."""
    a, b, _, c, d = matrix[:5].tolist()
    if abs(b) > abs(a):  # nearer to a quarter turn: x' goes with y
        frames, a, d = frames.swapaxes(1, 2), c, b
    return np.ascontiguousarray(frames[:, :: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
