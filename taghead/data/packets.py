"""Packets: what a video file holds before any of it is decoded, and which of it need not be decoded for UniView."""

import errno
from bisect import bisect, insort
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import av
from av.bitstream import BitStreamFilterContext
from av.stream import Disposition

# What the disk or the system says, and not the file, which may be whole.
OF_THE_DISK = frozenset((errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE))
MAX_PIXELS = 2**26  # 8192 x 8192: an 8K frame is half of it
_FRAMED = (
    "mp4",
    "matroska",
)  # these keep each packet's length; what others lose, a decoder fills in from its last frames


class Packet(NamedTuple):
    """One packet.

    Attributes:
        time: When its frame is shown, in the stream's unit; None where the container does not say.
        shown: Whether it gives a frame if the stream is sound: not where an edit list discards it.
        spare: Whether no other frame refers to it.
    """

    time: int | None
    shown: bool
    spare: bool


@dataclass
class Packets:
    """The packets of a video stream.

    Attributes:
        number: Which of the file's video streams.
        held_back: Frames that its decoder holds back to put them in order.
        all: In the order of the file.
        sound: Whether all of it could be read, from a container out of which no frame can be lost unnoticed.
    """

    number: int
    held_back: int = 0
    all: list[Packet] = field(default_factory=list)
    sound: bool = True

    @property
    def num_shown(self) -> int:
        """How many frames the stream gives if it is sound."""
        return sum(packet.shown for packet in self.all)

    def times(self) -> list[int]:
        """When the frames are shown, in order; empty where that is not known, or two come at once."""
        known = [packet.time for packet in self.all if packet.time is not None]
        if len(set(known)) < len(self.all):
            return []
        return sorted(packet.time for packet in self.all if packet.shown and packet.time is not None)

    def spare_times(self, sampled: Collection[int]) -> set[int]:
        """The times of packets that need not be decoded: neither sampled nor referred to.

        Args:
            sampled: When the frames that are wanted are shown.
        """
        times = [packet.time for packet in self.all if packet.time is not None]
        if num_out_of_order(times) > self.held_back:
            return set()  # the decoder then drops frames, and which ones depends on the frames it is given
        spare = {packet.time for packet in self.all if packet.time is not None and packet.spare}
        return spare.difference(sampled)


def num_out_of_order(times: list[int]) -> int:
    """The most frames that stand before another in the file and after it in the order shown."""
    before: list[int] = []
    most = 0
    for time in times:
        most = max(most, len(before) - bisect(before, time))
        insort(before, time)
    return most


def open_video(path: Path) -> av.container.InputContainer:
    """A file as FFmpeg's demuxer sees it."""
    # file: "10:30.mp4" is a name and no protocol; ignore: titles are not always UTF-8
    return av.open(f"file:{path}", metadata_errors="ignore", options=limits())


def limits() -> dict[str, str]:
    """Options for FFmpeg, whose decoders then refuse larger frames before they allocate them."""
    return {"max_pixels": str(MAX_PIXELS)}


def demuxed(
    container: av.container.InputContainer, streams: list[av.VideoStream], *, lenient: bool
) -> Iterator[av.Packet]:
    """The packets of some streams, up to the place where the file breaks off.

    Args:
        container: The file.
        streams: Of it.
        lenient: Whether an error of `OF_THE_DISK` is taken for such a place.

    Raises:
        av.FFmpegError: One of `OF_THE_DISK`.
    """
    with suppress(IndexError):  # at the end of a file in which a stream began midway
        try:
            yield from container.demux(streams)
        except av.FFmpegError as error:
            if error.errno in OF_THE_DISK and not lenient:
                raise


def main_stream(path: Path, *, lenient: bool = False) -> Packets | None:
    """The video stream with the most packets that are shown; None if there is none that could be decoded.

    Args:
        path: The file.
        lenient: As in `demuxed`.

    Raises:
        av.FFmpegError: The file cannot be opened, or read.
    """
    with open_video(path) as container:
        framed = any(name in container.format.name for name in _FRAMED)
        counted = {}
        for number, stream in enumerate(container.streams.video):
            if _is_video(stream):
                packets = Packets(number, stream.codec_context.reorder_depth, sound=framed)
                counted[stream.index] = (stream, packets, _reference_filter(stream))
        if not counted:
            return None
        for packet in demuxed(container, [stream for stream, *_ in counted.values()], lenient=lenient):
            if packet.size:
                _count(packet, *counted[packet.stream_index][1:])
    return max((packets for _, packets, _ in counted.values()), key=lambda packets: packets.num_shown)


def _is_video(stream: av.VideoStream) -> bool:
    """Whether it is no cover picture, and of a codec that there is a decoder for."""
    return not stream.disposition & Disposition.attached_pic and stream.codec_context is not None


def _reference_filter(stream: av.VideoStream) -> BitStreamFilterContext | None:
    """A filter that lets nothing pass of packets that no other frame refers to, and refuses headers it cannot read.

    H.264 only: HEVC's mark holds for frames of the same temporal layer alone, and for other codecs there is no filter.
    """
    if stream.codec_context.name != "h264":
        return None
    try:
        return BitStreamFilterContext("h264_metadata=aud=remove,filter_units=discard=nonref", stream)
    except av.FFmpegError:  # parameter sets that it cannot read
        return None


def _count(packet: av.Packet, packets: Packets, references: BitStreamFilterContext | None) -> None:
    time, shown, spare = packet.pts, not packet.is_discard, False
    packets.sound &= not packet.is_corrupt
    if references is not None:
        try:
            spare = not references.filter(packet)  # which empties the packet
        except av.FFmpegError:
            packets.sound = False
    packets.all.append(Packet(time, shown, spare))
