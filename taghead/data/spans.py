"""Time spans of a video re-encoded as clips of their own: decoded once and in order, encoded frame by frame.

Seconds count from the start of the file, as players and the ffmpeg program count them.
"""

import errno
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
from av.video.frame import PictureType

from taghead.data.events import Segment
from taghead.files import written_whole

_SAME = 0.001  # seconds: times closer than this are equal (containers round to milliseconds)
_SLACK = 0.5  # seconds by which a span may outlast its video
_WORTH_SEEKING = 10.0  # seconds between spans
_BEFORE = 1.0  # seconds before a span to which is sought, since an index may be off by some frames
_ENCODER = {"crf": "18", "preset": "fast"}
_SUBSAMPLED = ("420", "422", "nv12", "nv21")  # formats that an odd width or height does not fit into


class Shown(NamedTuple):
    """A decoded frame with its time."""

    frame: av.VideoFrame
    pts: int  # as it was decoded: an encoder changes the frame's own
    start: float  # seconds
    end: float
    rate: Fraction | None  # of the source, in frames a second


Outcome = tuple[Segment, str | None]  # a span, and why it was not made
Writer = Generator[None, Shown | None, None]  # takes frames, and None at the end; closed, it leaves no file


def cut_spans(video: Path, spans: dict[Segment, Path]) -> Iterator[Outcome]:
    """Writes each span's clip.

    Args:
        video: The source.
        spans: Where the clip of each goes.

    Yields:
        Each span when it is dealt with, and why it was not made, or None.

    Raises:
        av.FFmpegError: The video cannot be opened, or a clip cannot be encoded.
        OSError: A clip cannot be written, or the video is marked as turned.
    """
    groups: list[deque[Segment]] = []
    until = 0.0
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        if not groups or span.start - until > _WORTH_SEEKING:
            groups.append(deque())
        groups[-1].append(span)
        until = max(until, span.end)
    for group in groups:
        yield from _cut_group(video, group, spans)


def _cut_group(video: Path, waiting: deque[Segment], paths: dict[Segment, Path]) -> Iterator[Outcome]:
    """Neighbouring spans, in one pass over the frames."""
    writers: dict[Segment, Writer] = {}
    last: Shown | None = None
    try:
        for shown in _frames(video, waiting[0].start):
            while waiting and waiting[0].start < shown.start + _SAME:
                span = waiting.popleft()
                writers[span] = _writer(paths[span])
                if span.end - _SAME <= shown.start:  # no frame is first shown within it: the one on screen then
                    writers[span].send(last if last and span.start < shown.start - _SAME else shown)
            for span in [span for span in writers if span.end - _SAME <= shown.start]:
                _finish(writers.pop(span))
                yield span, None
            for writer in writers.values():
                writer.send(shown)
            last = shown
            if not waiting and not writers:
                return
        yield from _at_the_end(last, waiting, writers, paths)
    finally:
        for writer in writers.values():
            writer.close()


def _at_the_end(
    last: Shown | None, waiting: deque[Segment], writers: dict[Segment, Writer], paths: dict[Segment, Path]
) -> Iterator[Outcome]:
    """The spans that the video's last frame left open, and those that it left waiting."""
    for span in [*writers, *waiting]:
        if last is None:
            yield span, "no frame of its video decodes there"
        elif span.end > last.end + _SLACK or span.start > last.end + _SAME:
            yield span, f"its time, {span.start:.2f} to {span.end:.2f} s, is beyond the video's end at {last.end:.2f} s"
        else:
            if span not in writers:
                writers[span] = _writer(paths[span])
                writers[span].send(last)
            _finish(writers.pop(span))
            yield span, None


def _frames(video: Path, start: float) -> Iterator[Shown]:
    """The frames from some time before ``start`` on: from the beginning, where seeking does not lead there."""
    for seek in (True, False) if start > _WORTH_SEEKING else (False,):
        with av.open(str(video)) as container:
            frames = _decoded(container, seek_to=start - _BEFORE if seek else None)
            first = next(frames, None)
            if seek and (first is None or first.start > start + _SAME):
                continue
            if first is None:
                return
            if first.frame.rotation:
                raise OSError(errno.EINVAL, f"it is marked as turned by {first.frame.rotation} degrees: turn it first")
            yield first
            yield from frames
            return


def _decoded(container: av.container.InputContainer, *, seek_to: float | None) -> Iterator[Shown]:
    """What decodes of the best video stream, in the order it is shown; damaged packets are passed over."""
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream):
        return
    stream.thread_type = "NONE"  # videos are cut side by side: one thread each wastes the least
    origin = (container.start_time or 0) / av.time_base
    latest: int | None = None
    with suppress(av.FFmpegError):
        if seek_to is not None:
            container.seek(int((seek_to + origin) * av.time_base))
        for packet in container.demux(stream):
            for frame in _of_packet(packet):
                if frame.pts is None or frame.time_base is None or (latest is not None and frame.pts <= latest):
                    continue
                latest = frame.pts
                begin = float(frame.pts * frame.time_base) - origin
                rate = stream.average_rate
                lasts = frame.duration * frame.time_base if frame.duration else 1 / rate if rate else 0
                yield Shown(frame, frame.pts, begin, begin + float(lasts), rate)


def _of_packet(packet: av.Packet) -> list[av.VideoFrame]:
    try:
        return packet.decode()
    except av.FFmpegError:
        return []


def _writer(path: Path) -> Writer:
    """Something that takes the frames of one clip, ready for the first."""
    writer = _write(path)
    next(writer)
    return writer


def _finish(writer: Writer) -> None:
    with suppress(StopIteration):
        writer.send(None)


def _write(path: Path) -> Writer:
    first = shown = yield
    if first is None:
        return
    with (
        written_whole(path) as beside,
        av.open(str(beside), "w", format="mp4", options={"fflags": "+bitexact"}) as container,
    ):
        stream = _add_stream(container, first)
        while shown is not None:
            shown.frame.pts = shown.pts - first.pts
            shown.frame.pict_type = PictureType.NONE  # else the encoder copies the source's key frames
            container.mux(stream.encode(shown.frame))
            shown = yield
        container.mux(stream.encode(None))


def _add_stream(container: av.container.OutputContainer, first: Shown) -> av.VideoStream:
    """An H.264 stream of the size, clock and colours of the source."""
    frame = first.frame
    stream = container.add_stream("libx264", rate=first.rate or 25, options=_ENCODER)
    stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, _pixel_format(frame)
    context = stream.codec_context
    context.thread_count = 1
    context.time_base = frame.time_base or context.time_base
    if frame.format.name.startswith(("yuv", "nv")):  # of others the conversion decides
        for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
            setattr(context, name, getattr(frame, name))
    return stream


def _pixel_format(frame: av.VideoFrame) -> str:
    """The source's, where the encoder has it and the size fits it."""
    name = frame.format.name
    if (frame.width % 2 or frame.height % 2) and any(part in name for part in _SUBSAMPLED):
        return "yuv444p"
    known = {known.name for known in av.Codec("libx264", "w").video_formats or ()}
    return name if name in known else "yuv420p"
