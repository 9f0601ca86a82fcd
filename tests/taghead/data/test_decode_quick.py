"""The quick ways of the decoder: packets left out, planar RGB. None may change a bit."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from videos import write

from taghead.data import decode
from taghead.data.decode import UnreadableClip, sample_frames
from taghead.data.packets import Packet, Packets, main_stream

GROUPS = "keyint=12:min-keyint=12:scenecut=0:b-adapt=0"
STREAMS: dict[str, dict[str, Any]] = {
    "B-frames": {"name": "a.mp4"},
    "B-pyramid of five": {"name": "a.mp4", "options": {"x264-params": f"{GROUPS}:bframes=5:b-pyramid=normal:ref=4"}},
    "open groups": {"name": "a.mkv", "options": {"x264-params": f"{GROUPS}:bframes=3:open-gop=1"}},
    "short groups": {"name": "a.mp4", "options": {"g": "4"}},
    "slices": {"name": "a.mp4", "options": {"x264-params": "slices=3:bframes=3"}},
    "transport stream": {"name": "a.ts"},
    "interlaced": {"name": "a.mp4", "options": {"x264-params": "tff=1:bframes=3"}},
    "intra refresh": {"name": "a.mp4", "options": {"x264-params": "intra-refresh=1:keyint=10:bframes=2"}},
    "no B-frames": {"name": "a.mp4", "options": {"bf": "0"}},
    "no times": {"name": "a.avi"},
    "bare": {"name": "a.h264"},
    "HEVC": {"name": "a.mkv", "codec": "libx265", "options": {"x265-params": "log-level=none:pools=1:keyint=12"}},
    "MPEG-4": {"name": "a.mp4", "codec": "mpeg4", "options": {"bf": "2"}},
    "VP9": {"name": "a.webm", "codec": "libvpx-vp9"},
}


def blocks(count: int, *, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Blocks that move: no frame is like another."""
    noise = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    picture = noise.repeat(8, axis=0).repeat(8, axis=1)
    return [np.roll(picture, (number, 3 * number), axis=(0, 1)) for number in range(count)]


def write_stream(folder: Path, kind: str, count: int = 30) -> Path:
    setting = dict(STREAMS[kind])
    return write(folder / setting.pop("name"), blocks(count), **setting)


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> Callable[..., np.ndarray]:
    """The same frames without any of the quick ways: all decoded, to interleaved RGB."""

    def sample(path: Path, num_frames: int, **setting: int) -> np.ndarray:
        with monkeypatch.context() as patch:
            patch.setattr(decode, "_decode_sound", lambda *_, **__: None)
            patch.setattr(decode, "_PLANAR", ())
            return sample_frames(path, num_frames, **setting)  # type: ignore[arg-type]

    return sample


@pytest.mark.parametrize("kind", STREAMS)
def test_the_quick_ways_change_no_bit_of_any_stream(tmp_path, slowly, kind):
    path = write_stream(tmp_path, kind)
    for num_frames in (1, 5, 12, 30, 40):
        quick = sample_frames(path, num_frames, short_side=20)
        assert np.array_equal(quick, slowly(path, num_frames, short_side=20))


@pytest.mark.parametrize("kind", ["B-frames", "B-pyramid of five", "open groups", "short groups", "slices"])
def test_packets_that_are_neither_sampled_nor_referred_to_are_not_decoded(tmp_path, monkeypatch, kind):
    path = write_stream(tmp_path, kind)
    decoded: list[int] = []
    original = decode._fill

    def counting(*args: Any, **kw: Any) -> Any:
        result = original(*args, **kw)
        decoded.append(result[0])
        return result

    monkeypatch.setattr(decode, "_fill", counting)
    sample_frames(path, 5, short_side=20)
    assert len(decoded) == 1 and decoded[0] < 30
    sample_frames(path, 30, short_side=20)
    assert len(decoded) == 2 and decoded[1] == 30


@pytest.mark.parametrize("kind", ["B-frames", "open groups", "slices", "transport stream", "MPEG-4", "VP9", "HEVC"])
def test_damaged_streams_give_what_decoding_all_of_them_gives(tmp_path, slowly, kind):
    path = write_stream(tmp_path, kind)
    whole, draw = path.read_bytes(), random.Random(0)
    for _ in range(12):
        damaged = bytearray(whole)
        for _ in range(draw.choice([1, 5, 50])):
            damaged[draw.randrange(len(damaged) // 8, len(damaged))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged[: draw.choice([len(whole), draw.randrange(len(whole))])])
        assert told(sample_frames, path) == told(slowly, path)


def told(sample: Callable[..., np.ndarray], path: Path) -> bytes | str:
    try:
        return sample(path, 6, short_side=20).tobytes()
    except UnreadableClip as error:
        return str(error)


@pytest.mark.parametrize("change", ["a time that no frame has", "one frame too many", "one frame too few", "unsound"])
def test_a_stream_that_breaks_its_promise_is_decoded_from_the_start(tmp_path, monkeypatch, slowly, change):
    path = write_stream(tmp_path, "B-frames")
    expected = slowly(path, 5, short_side=20)
    packets = main_stream(path)
    assert packets is not None
    if change == "a time that no frame has":
        packets.all[7] = packets.all[7]._replace(time=10**9)
    elif change == "one frame too many":
        packets.all.append(Packet(10**9, shown=True, spare=False))
    elif change == "one frame too few":
        packets.all.pop()
    packets.sound = change != "unsound"
    monkeypatch.setattr(decode, "main_stream", lambda path, lenient: packets)
    assert decode._decode_sound(path, packets, 5, short_side=20) is None
    assert np.array_equal(sample_frames(path, 5, short_side=20), expected)


def test_an_empty_promise_is_none():
    assert decode._decode_sound(Path("a.mp4"), Packets(0), 5, short_side=20) is None


@pytest.mark.parametrize("pix_fmt", decode._PLANAR)
@pytest.mark.parametrize("mark", [1, 2, 9])
def test_planar_rgb_has_the_bits_of_interleaved_rgb_wherever_it_is_used(pix_fmt, mark):
    for height, width, out_height, out_width in [(256, 320, 126, 158), (210, 120, 126, 126), (40, 62, 24, 31)]:
        frame = noise(height, width, pix_fmt, mark)
        found = np.empty((3, out_height, out_width), np.uint8)
        decode._convert(frame, found)
        assert np.array_equal(found.transpose(1, 2, 0), converted(frame, out_height, out_width, "rgb24"))


def test_rows_made_of_two_differ_between_planar_and_interleaved_rgb_so_that_the_rule_is_needed():
    frame = noise(36, 64, "yuv420p", 2)
    planar, interleaved = (converted(frame, 24, 40, kind) for kind in ("gbrp", "rgb24"))
    assert not np.array_equal(planar, interleaved)


def noise(height: int, width: int, pix_fmt: str, mark: int) -> av.VideoFrame:
    frame = av.VideoFrame(width, height, pix_fmt)
    for plane in frame.planes:
        values = np.random.default_rng(plane.buffer_size).integers(0, 256, plane.buffer_size, np.uint8)
        if "10" in pix_fmt:
            values[1::2] &= 3
        plane.update(values.tobytes())
    frame.colorspace = mark
    return frame


def converted(frame: av.VideoFrame, height: int, width: int, kind: str) -> np.ndarray:
    small = VideoReformatter().reformat(frame, width, height, kind, interpolation=decode._FILTER, threads=1)
    return small.to_ndarray()
