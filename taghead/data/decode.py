"""UniView: F frames, uniformly from the whole clip, decoded with PyAV and resized by swscale.

Axes: F sampled frames; h w height and width after the resize, in pixels.

Which frames. The frames of a clip are those that decode, in the order they are shown: n is counted by decoding, never
read from a header, and times play no part. The indices are linspace(0, n - 1, F) cut to integers (as in the authors'
public code), so a clip of n < F frames gives frames more than once. Of several video streams the one with the most
packets counts; cover pictures are none. A stream that is damaged or breaks off gives what still decodes; a file that
gives no frame at all is `UnreadableClip`, and so is one whose frames no camera makes (`packets.MAX_PIXELS`,
`_MAX_ASPECT`): a few bytes of a damaged header must not cost gigabytes.

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

How fast. Packets are counted first, which decodes nothing. In H.264, packets that no other frame refers to and that
are not sampled are left out: the same bits in less time, if the stream is sound. So that is for MP4 and Matroska alone,
out of which no frame is lost unnoticed; the decoder is told to refuse whatever is amiss, and the frames must come out
with just the times that their packets have. At the first that does not, all is decoded from the start. What cannot be
seen is damage to the numbers in the header of a frame that was left out, where it can still be read: that frame counts
as one that decodes, and harms no other. A clip is decoded by one thread, and several clips side by side: FFmpeg's
threads give damaged clips now these bits, now those.
"""

import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import Int32, Int64, UInt8

from taghead.data.packets import OF_THE_DISK, Packets, demuxed, limits, main_stream, open_video
from taghead.errors import InputError

_RELEASES = (".".join(map(str, av.library_versions[name])) for name in ("libavcodec", "libswscale"))
# Names the rules above, and who follows them: another filter, rule or release of FFmpeg may give other bits.
DECODER = " ".join(("uniview-area-2", *_RELEASES))
_FILTER = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT
_MAX_ASPECT = 32  # long side by short side
_UNMARKED = 2  # AVCOL_SPC_UNSPECIFIED
_MATRICES = (0, 1, _UNMARKED, 4, 5, 6, 7, 9)  # the AVCOL_SPC_* that swscale knows; it refuses frames with others
_PLANAR = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "yuv420p10le")
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


class _UnsoundError(Exception):
    """A stream whose frames are not just those that its packets promise."""


def sample_frames(path: str | Path, num_frames: int, *, short_side: int) -> UInt8[np.ndarray, "F h w 3"]:
    """Samples F frames uniformly from a whole clip (UniView), resizes them and turns them upright.

    Only sampled frames are converted. Which these are depends on n, which is known at the end: so packets are counted
    first, and the clip is decoded again in the rare case that n comes out different.

    Args:
        path: Video file.
        num_frames: F, at least 1.
        short_side: Pixels of the shorter side in the result, at least 1.

    Returns:
        RGB frames, in the order they are shown; a view of their colour planes (F, 3, h, w), which are quicker to fill,
        to crop and to normalise.

    Raises:
        UnreadableClip: The file gives no frame: missing, empty, truncated before its index, no video.
        OSError: The disk does not give the file, which may be whole.
        InputError: ``num_frames`` or ``short_side`` below 1.
    """
    for name, value in (("num_frames", num_frames), ("short_side", short_side)):
        if value < 1:
            raise InputError(f"{name} >= 1 must hold, but got {value}.")
    path = Path(path)
    try:
        return _sampled(path, num_frames, short_side=short_side, lenient=False)
    except OSError:  # of the disk, or of the file: FFmpeg says the same of some damaged ones
        _read_through(path)
    return _sampled(path, num_frames, short_side=short_side, lenient=True)


def _read_through(path: Path) -> None:
    with path.open("rb") as file:
        while file.read(2**20):
            pass


def _sampled(path: Path, num_frames: int, *, short_side: int, lenient: bool) -> UInt8[np.ndarray, "F h w 3"]:
    """As `sample_frames`; errors of `OF_THE_DISK` are raised as they are, or if lenient taken for damage."""
    try:
        packets = main_stream(path, lenient=lenient)
        if packets is None:
            raise UnreadableClip(path, "it has no video stream, or none of a known codec")
        quick = _decode_sound(path, packets, num_frames, short_side=short_side)
        if quick is not None:
            return quick.transpose(0, 2, 3, 1)
        expected = max(packets.num_shown, 1)
        decode = partial(_decode, path, packets.number, short_side=short_side, lenient=lenient)
        decoded, planes = decode(frame_indices(expected, num_frames))
        if decoded not in (0, expected):
            _, planes = decode(frame_indices(decoded, num_frames))
    except (av.FFmpegError, OSError) as error:
        if error.errno in OF_THE_DISK and not lenient:
            raise
        raise UnreadableClip(path, error.strerror or type(error).__name__) from None
    if not decoded:
        raise UnreadableClip(path, "its video stream is empty or damaged")
    return planes.transpose(0, 2, 3, 1)


def _decode_sound(
    path: Path, packets: Packets, num_frames: int, *, short_side: int
) -> UInt8[np.ndarray, "F 3 h w"] | None:
    """The sampled frames the quick way; None where nothing can be left out, or at the first sign of damage."""
    times = packets.times()
    if not packets.sound or not times:
        return None
    sampled = [times[index] for index in frame_indices(len(times), num_frames)]
    left_out = packets.spare_times(sampled)
    if not left_out:
        return None
    promised = [time for time in times if time not in left_out]
    try:
        with open_video(path) as container:
            stream = container.streams.video[packets.number]
            frames = _sound_frames(container, stream, promised, left_out=left_out)
            decoded, planes = _fill(path, frames, np.searchsorted(promised, sampled), short_side=short_side)
    except (av.FFmpegError, UnreadableClip, _UnsoundError):
        return None
    return planes if decoded == len(promised) else None


def _sound_frames(
    container: av.container.InputContainer, stream: av.VideoStream, promised: list[int], *, left_out: set[int]
) -> Iterator[av.VideoFrame]:
    """The frames of a sound stream without those left out.

    Raises:
        av.FFmpegError: Something is amiss.
        _UnsoundError: A frame comes out that is not the next one promised.
    """
    stream.thread_type = "NONE"
    stream.codec_context.options = limits() | {"err_detect": "explode"}
    awaited = iter(promised)
    for packet in container.demux(stream):
        if packet.size and packet.pts in left_out:
            continue
        for frame in packet.decode():
            if frame.is_corrupt or frame.pts != next(awaited, None):
                raise _UnsoundError
            yield frame


def _decode(
    path: Path, stream: int, indices: Int64[np.ndarray, " F"], *, short_side: int, lenient: bool
) -> tuple[int, UInt8[np.ndarray, "F 3 h w"]]:
    """Decodes all of a stream, whatever is damaged, and converts the frames of the sorted ``indices``.

    Returns:
        As `_fill`.
    """
    with open_video(path) as container:
        frames = _frames(container, container.streams.video[stream], lenient=lenient)
        return _fill(path, frames, indices, short_side=short_side)


def _fill(
    path: Path, decoding: Iterator[av.VideoFrame], indices: Int64[np.ndarray, " F"], *, short_side: int
) -> tuple[int, UInt8[np.ndarray, "F 3 h w"]]:
    """Converts the frames of the sorted ``indices``.

    Returns:
        How many frames decoded; and the frames, undefined from the first index on that the clip does not reach.
    """
    planes = np.empty((len(indices), 3, 0, 0), np.uint8)
    matrix: Any = None
    decoded = filled = 0
    for frame in decoding:
        if decoded == 0:
            _check_size(path, frame)
            height, width = resized(frame.height, frame.width, short_side=short_side)
            planes = np.empty((len(indices), 3, height, width), np.uint8)
            matrix = frame.side_data.get("DISPLAYMATRIX")
        end = int(np.searchsorted(indices, decoded, side="right"))
        if end > filled:
            _convert(frame, planes[filled])
            planes[filled + 1 : end] = planes[filled]
            filled = end
        decoded += 1
    return decoded, planes if matrix is None else _upright(planes, np.frombuffer(matrix, np.int32))


def _frames(
    container: av.container.InputContainer, stream: av.VideoStream, *, lenient: bool
) -> Iterator[av.VideoFrame]:
    """The frames that decode; packets that do not are passed over."""
    stream.thread_type = "NONE"  # clips are decoded side by side: one thread each wastes the least
    stream.codec_context.options = limits()
    for packet in demuxed(container, [stream], lenient=lenient):
        with suppress(av.FFmpegError):
            yield from packet.decode()
    with suppress(av.FFmpegError):  # what a decoder still holds where a file breaks off; refused where it does not
        yield from stream.decode(None)


def _check_size(path: Path, frame: av.VideoFrame) -> None:
    if max(frame.width, frame.height) > _MAX_ASPECT * min(frame.width, frame.height):
        raise UnreadableClip(path, f"it says that its frames have {frame.width} x {frame.height} pixels")


def _convert(frame: av.VideoFrame, out: UInt8[np.ndarray, "3 h w"]) -> None:
    """Resizes one frame to RGB; the conversion's tables are kept a thread, where `frame.reformat` builds them anew.

    To planar RGB swscale converts 2.5 times as fast as to interleaved, with the same bits where each row is made of
    three or more: of two it makes interleaved RGB by a rule of its own.
    """
    height, width = out.shape[1:]
    if frame.colorspace not in _MATRICES:
        frame.colorspace = _UNMARKED
    if frame.interlaced_frame:  # swscale would resize each field by itself: take the mark off, in RGB at full size
        whole = frame.reformat(format="rgb24", interpolation=_FILTER, threads=1)
        frame = av.VideoFrame.from_ndarray(whole.to_ndarray(), format="rgb24")
    if frame.format.name in _PLANAR and 3 * frame.height >= 5 * height:
        small = _reformatter("gbrp").reformat(frame, width, height, "gbrp", interpolation=_FILTER, threads=1)
        for channel, plane in zip((1, 2, 0), small.planes, strict=True):
            out[channel] = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)[:, :width]
    else:
        small = _reformatter("rgb24").reformat(frame, width, height, "rgb24", interpolation=_FILTER, threads=1)
        out[:] = small.to_ndarray().transpose(2, 0, 1)


def _reformatter(pixel_format: str) -> VideoReformatter:
    """This thread's, one for each format that is made: to change it would build the tables anew."""
    if not hasattr(_of_thread, "reformatters"):
        _of_thread.reformatters = {}
    return _of_thread.reformatters.setdefault(pixel_format, VideoReformatter())


def _upright(planes: UInt8[np.ndarray, "F 3 h w"], matrix: Int32[np.ndarray, " 9"]) -> UInt8[np.ndarray, "F 3 h2 w2"]:
    """Turns and mirrors frames by a display matrix: (x', y') = (a x + c y, b x + d y), signs alone."""
    a, b, _, c, d = matrix[:5].tolist()
    if abs(b) > abs(a):  # nearer to a quarter turn: x' goes with y
        planes, a, d = planes.swapaxes(2, 3), c, b
    return np.ascontiguousarray(planes[:, :, :: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
