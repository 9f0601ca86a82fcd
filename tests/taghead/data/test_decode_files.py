import shutil
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from videos import corners, numbered, numbers, patched, quarters, remux, with_matrix, write

from taghead.data import packets
from taghead.data.decode import UnreadableClip, resized, sample_frames
from taghead.data.packets import main_stream

FINE_VP8 = {"crf": "4", "b": "9M", "auto-alt-ref": "0"}
FINE_MPEG4 = {"qmin": "1", "qmax": "1"}
FORMATS: dict[str, dict[str, Any]] = {
    "MP4, index at the end": {"name": "a.mp4"},
    "MP4, index in front": {"name": "a.mp4", "container": {"movflags": "faststart"}},
    "MP4, fragments": {"name": "a.mp4", "container": {"movflags": "frag_keyframe+empty_moov"}},
    "Matroska": {"name": "a.mkv"},
    "WebM, VP9": {"name": "a.webm", "codec": "libvpx-vp9"},
    "WebM, VP8": {"name": "a.webm", "codec": "libvpx", "options": FINE_VP8},
    "AVI, MPEG-4": {"name": "a.avi", "codec": "mpeg4", "options": FINE_MPEG4},
    "transport stream": {"name": "a.ts"},
}
ONE = 1 << 16  # 1 in a display matrix
LAST = 1 << 30  # its last number


def write_format(folder: Path, kind: str, pictures: Sequence[np.ndarray], **options: str) -> Path:
    setting = {"options": {}} | FORMATS[kind]
    setting["options"] = {"g": "10"} | setting["options"] | options
    return write(folder / setting.pop("name"), pictures, **setting)


def seen(path: Path) -> list[int]:
    """The numbers of all frames that the decoder finds, each once."""
    return sorted(set(numbers(sample_frames(path, 200, short_side=48))))


# which frames


@pytest.mark.parametrize("kind", FORMATS)
def test_all_frames_count_in_every_container_and_those_of_one_frame_too(tmp_path, kind):
    assert numbers(sample_frames(write_format(tmp_path, kind, numbered(23)), 23, short_side=48)) == list(range(23))
    assert numbers(sample_frames(write_format(tmp_path, kind, numbered(1)), 4, short_side=48)) == [0, 0, 0, 0]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_cut_anywhere_gives_its_first_frames_or_is_unreadable(tmp_path, kind):
    path = write_format(tmp_path, kind, numbered(24), bf="0")
    whole, counts = path.read_bytes(), []
    for part in range(25):
        path.write_bytes(whole[: len(whole) * part // 24])
        try:
            found = seen(path)
        except UnreadableClip:
            found = []
        assert found == list(range(len(found)))
        counts.append(len(found))
    assert counts[0] == 0 and counts[-1] == 24
    assert (kind == "MP4, index at the end") == (set(counts) == {0, 24}), "an index at the end is all or nothing"


def test_the_frames_that_a_decoder_holds_back_are_given_where_a_file_becomes_unreadable(tmp_path):
    fragments = {"movflags": "frag_keyframe+empty_moov"}
    path = write(tmp_path / "a.mp4", numbered(30), options={"bf": "3", "g": "8"}, container=fragments)
    parts = path.read_bytes().split(b"tfhd")  # of the third fragment: version, track, where its data shall begin
    parts[3] = parts[3][:8] + b"\xff" * 4 + parts[3][12:]
    path.write_bytes(b"tfhd".join(parts))
    with av.open(str(path)) as container, pytest.raises(av.FFmpegError):
        list(container.demux(video=0))
    assert seen(path) == list(range(16)), "two fragments of eight, of which two frames wait for their successors"


def header_count(path: Path) -> int:
    with av.open(str(path)) as container:
        return container.streams.video[0].frames


@pytest.mark.parametrize("says", [3, 4000])
def test_a_wrong_number_of_frames_in_an_avi_header_is_not_believed(tmp_path, says):
    path = write(tmp_path / "a.avi", numbered(20), codec="mpeg4", options=FINE_MPEG4)
    content = bytearray(path.read_bytes())
    for chunk, offset in ((b"avih", 24), (b"strh", 40)):  # dwTotalFrames and dwLength
        start = content.index(chunk) + offset
        assert struct.unpack_from("<I", content, start) == (20,)
        struct.pack_into("<I", content, start, says)
    path.write_bytes(content)
    assert header_count(path) == says
    assert numbers(sample_frames(path, 20, short_side=48)) == list(range(20))


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libx264"), ("a.webm", "libvpx-vp9")])
def test_a_live_recording_without_duration_and_index_is_counted(tmp_path, name, codec):
    path = write(tmp_path / name, numbered(20), codec=codec, container={"live": "1"})
    with av.open(str(path)) as container:
        assert container.duration is None and container.streams.video[0].frames == 0
    assert numbers(sample_frames(path, 20, short_side=48)) == list(range(20))


def test_a_wrong_duration_in_a_matroska_header_is_not_believed(tmp_path):
    path = write(tmp_path / "a.mkv", numbered(20))
    patched(path, b"\x44\x89\x88" + struct.pack(">d", 800.0), b"\x44\x89\x88" + struct.pack(">d", 9e9))
    assert numbers(sample_frames(path, 20, short_side=48)) == list(range(20))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_frames_are_counted_whatever_their_times(tmp_path, name):
    path = write(tmp_path / name, numbered(10), times=[0, 1, 2, 3, 4, 5, 6, 7, 200, 900])
    assert numbers(sample_frames(path, 4, short_side=48)) == [0, 3, 6, 9]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_start_that_is_not_zero_loses_no_frame(tmp_path, name):
    path = write(tmp_path / name, numbered(10), times=range(500, 510), container={"avoid_negative_ts": "disabled"})
    with av.open(str(path)) as container:
        assert container.streams.video[0].start_time != 0
    assert numbers(sample_frames(path, 10, short_side=48)) == list(range(10))


def test_a_clip_cut_in_an_open_group_of_pictures_starts_with_the_first_that_decodes(tmp_path):
    options = {"x264-params": "open-gop=1:keyint=8:min-keyint=8:bframes=3:b-adapt=0:scenecut=0"}
    whole = write(tmp_path / "whole.mkv", numbered(30), options=options)
    assert numbers(sample_frames(whole, 30, short_side=48)) == list(range(30))
    with av.open(str(whole)) as container:
        keys = [packet.pts for packet in container.demux(video=0) if packet.is_keyframe]
        assert len(keys) > 2
    started: list[bool] = []
    cut = remux(
        whole,
        tmp_path / "cut.mkv",
        lambda packet: bool(started) or bool(packet.pts == keys[1] and not started.append(True)),
    )
    first = round(keys[1] * 25 / 1000)
    found = numbers(sample_frames(cut, 30 - first, short_side=48))
    counted = main_stream(cut)
    assert counted is not None and counted.num_shown > 30 - first, (
        "pictures before the key frame are in the file, and cannot decode"
    )
    assert found == list(range(first, 30))


# which stream


def picture_packet(height: int, width: int) -> av.Packet:
    """A JPEG picture."""
    encoder: Any = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, "yuvj420p", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 250, np.uint8), format="rgb24")
    frame.pts = 0
    (packet,) = encoder.encode(frame.reformat(format="yuvj420p"))
    return packet


def write_streams(path: Path, *, cover: bool | None, video: int, sound: bool = False) -> Path:
    """A file with a picture (marked as a cover, or not; None: without), then ``video`` frames, then sound."""
    with av.open(str(path), "w") as target:
        streams: dict[str, Any] = {}
        if cover is not None:
            streams["cover"] = target.add_stream("mjpeg", rate=25)
            streams["cover"].width, streams["cover"].height, streams["cover"].pix_fmt = 320, 240, "yuvj420p"
            streams["cover"].disposition = Disposition.attached_pic if cover else Disposition.default
        if video:
            streams["video"] = target.add_stream("libx264", rate=25, options={"threads": "1"})
            streams["video"].width, streams["video"].height, streams["video"].pix_fmt = 64, 48, "yuv420p"
        if sound:
            streams["sound"] = target.add_stream("aac", rate=8000)
        if cover is not None:
            packet = picture_packet(240, 320)
            packet.stream, packet.pts, packet.dts, packet.time_base = streams["cover"], 0, 0, Fraction(1, 25)
            target.mux(packet)
        for picture in numbered(video):
            target.mux(streams["video"].encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        if sound:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 8000
            target.mux(streams["sound"].encode(silence))
        for name in {"video", "sound"} & set(streams):
            target.mux(streams[name].encode())
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
@pytest.mark.parametrize("marked", [True, False])
def test_a_cover_picture_in_front_is_not_taken_for_the_clip(tmp_path, name, marked):
    path = write_streams(tmp_path / name, cover=marked, video=10, sound=True)
    assert numbers(sample_frames(path, 10, short_side=48)) == list(range(10))


def test_a_cover_that_stands_before_the_track_is_not_taken_for_the_clip(tmp_path):
    path = write_streams(tmp_path / "a.mp4", cover=True, video=10)
    content = path.read_bytes()
    udta, track = content.rindex(b"udta") - 4, content.index(b"trak") - 4
    content = content[:track] + content[udta:] + content[track:udta]  # the index is at the end: no offset changes
    path.write_bytes(content)
    with av.open(str(path)) as container:
        assert [stream.codec_context.name for stream in container.streams.video] == ["mjpeg", "h264"]
    assert numbers(sample_frames(path, 10, short_side=48)) == list(range(10))


def test_a_song_with_a_cover_is_no_video(tmp_path):
    path = write_streams(tmp_path / "a.mp4", cover=True, video=0, sound=True)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    with pytest.raises(UnreadableClip, match="no video stream"):
        sample_frames(path, 4, short_side=30)


def test_a_codec_that_nobody_knows_is_unreadable(tmp_path):
    path = patched(write(tmp_path / "a.mp4", numbered(3)), b"avc1", b"zzz1", count=2)
    with pytest.raises(UnreadableClip, match="none of a known codec"):
        sample_frames(path, 4, short_side=30)


# what size, which way up


TURNS: dict[str, tuple[tuple[int, int, int, int], list[str]]] = {  # a, b, c, d: x' = a x + c y, y' = b x + d y
    "as it is": ((1, 0, 0, 1), ["red", "green", "blue", "dark"]),
    "clockwise, as of a phone held upright": ((0, 1, -1, 0), ["blue", "red", "dark", "green"]),
    "upside down": ((-1, 0, 0, -1), ["dark", "blue", "green", "red"]),
    "counter-clockwise": ((0, -1, 1, 0), ["green", "dark", "red", "blue"]),
    "mirrored, left and right": ((-1, 0, 0, 1), ["green", "red", "dark", "blue"]),
    "mirrored, up and down": ((1, 0, 0, -1), ["blue", "dark", "red", "green"]),
    "transposed": ((0, 1, 1, 0), ["red", "blue", "green", "dark"]),
    "transposed the other way": ((0, -1, -1, 0), ["dark", "green", "blue", "red"]),
    "nothing but zeros": ((0, 0, 0, 0), ["red", "green", "blue", "dark"]),
}


@pytest.mark.parametrize("turn", TURNS)
def test_a_display_matrix_turns_and_mirrors_the_frames(tmp_path, turn):
    (a, b, c, d), expected = TURNS[turn]
    path = write(tmp_path / "a.mp4", [quarters()] * 3)
    plain = sample_frames(path, 2, short_side=30)
    with_matrix(path, [a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, LAST])
    frames = sample_frames(path, 2, short_side=30)
    assert corners(plain[0]) == TURNS["as it is"][1] and corners(frames[1]) == expected
    assert frames.shape == ((2, 40, 30, 3) if a == 0 != b else (2, 30, 40, 3))
    assert frames.transpose(0, 3, 1, 2).flags.c_contiguous and np.array_equal(
        np.sort(frames, axis=None), np.sort(plain, axis=None)
    )


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_rotation_is_the_library_s_own_count_of_degrees_counter_clockwise(tmp_path, name, degrees):
    path = write(tmp_path / name, [quarters()] * 2)
    plain = sample_frames(path, 1, short_side=30)[0]
    write(path, [quarters()] * 2, prepare=lambda stream: stream.set_display_rotation(degrees))
    assert np.array_equal(sample_frames(path, 1, short_side=30)[0], np.rot90(plain, degrees // 90))


@pytest.mark.parametrize(("degrees", "quarter_turns"), [(3, 0), (44, 0), (46, 1), (93, 1), (-80, 3)])
def test_a_slanted_rotation_is_the_nearest_quarter_turn(tmp_path, degrees, quarter_turns):
    path = write(tmp_path / "a.mp4", [quarters()])
    plain = sample_frames(path, 1, short_side=30)[0]
    write(path, [quarters()], prepare=lambda stream: stream.set_display_rotation(degrees))
    assert np.array_equal(sample_frames(path, 1, short_side=30)[0], np.rot90(plain, quarter_turns))


def test_pixels_are_square_whatever_the_aspect_mark_says(tmp_path):
    def stretch(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)

    path = write(tmp_path / "a.mp4", numbered(2), prepare=stretch)
    with av.open(str(path)) as container:
        assert container.streams.video[0].sample_aspect_ratio == 2
    assert sample_frames(path, 1, short_side=24).shape == (1, 24, 32, 3)


@pytest.mark.parametrize(("height", "width"), [(51, 35), (35, 51), (2, 2), (2, 64), (64, 2), (1, 1), (3, 5)])
@pytest.mark.parametrize("short_side", [1, 7, 126])
def test_odd_and_tiny_clips_come_out_in_the_size_of_the_rule(tmp_path, height, width, short_side):
    path = write(tmp_path / "a.mkv", numbered(3, height=height, width=width), codec="ffv1", options={"level": "1"})
    frames = sample_frames(path, 3, short_side=short_side)
    assert frames.shape == (3, *resized(height, width, short_side=short_side), 3)
    assert numbers(frames) == [0, 1, 2]


def test_frames_of_another_size_are_stretched_to_that_of_the_first(tmp_path):
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as target:
        stream: Any = target.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number, (height, width) in enumerate([(48, 64), (80, 40), (20, 60), (48, 64)]):
            packet = picture_packet(height, width)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 25)
            target.mux(packet)
    with av.open(str(path)) as container:
        assert [(frame.height, frame.width) for frame in container.decode(video=0)][1] == (80, 40)
    frames = sample_frames(path, 4, short_side=24).astype(int)
    assert frames.shape == (4, 24, 32, 3) and np.abs(frames - 250).max() <= 3


@pytest.mark.parametrize(("height", "width"), [(2, 66), (66, 2), (2, 16384)])
def test_frames_far_longer_than_wide_are_damage_and_cost_no_memory(tmp_path, height, width):
    path = write(tmp_path / "a.mkv", numbered(2, height=height, width=width))
    with pytest.raises(UnreadableClip, match=rf"says that its frames have {width} x {height} pixels"):
        sample_frames(path, 32, short_side=126)


def test_frames_of_more_pixels_than_the_limit_are_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", numbered(2))
    monkeypatch.setattr(packets, "MAX_PIXELS", 64 * 48 * 2)
    assert numbers(sample_frames(path, 2, short_side=24)) == [0, 1]
    monkeypatch.setattr(packets, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(UnreadableClip, match="empty or damaged"):
        sample_frames(path, 2, short_side=24)


# names and titles


@pytest.mark.parametrize(
    "name",
    ["10:30.mp4", "data:x.mp4", "pipe:0", "http:x.mp4", "concat:a|b.mp4", "a%03d.mp4", "-", " a?#.mp4", "跳水 🤸.mp4"],
)
def test_a_name_is_a_name_and_never_a_protocol_or_a_pattern(tmp_path, monkeypatch, name):
    shutil.copy(write(tmp_path / "a.mp4", numbered(3)), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert numbers(sample_frames(name, 3, short_side=48)) == [0, 1, 2]


def test_a_title_that_is_no_utf8_does_not_matter(tmp_path):
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as target:
        target.metadata["title"] = "caXXe"
        stream: Any = target.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for picture in numbered(3):
            target.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        target.mux(stream.encode())
    patched(path, b"caXXe", b"caf\xe9e")
    with pytest.raises(UnicodeDecodeError), av.open(str(path)):
        pass
    assert numbers(sample_frames(path, 3, short_side=48)) == [0, 1, 2]


def test_a_folder_is_no_clip(tmp_path):
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(UnreadableClip, match="Is a directory"):
        sample_frames(tmp_path / "a.mp4", 4, short_side=30)
