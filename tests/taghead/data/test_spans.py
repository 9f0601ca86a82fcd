import errno
from pathlib import Path

import av
import numpy as np
import pytest
from videos import corners, numbered, numbers, plain, quarters, with_matrix, write

from taghead.data import spans
from taghead.data.decode import sample_frames
from taghead.data.events import Segment
from taghead.data.spans import cut_spans


def cut(video: Path, *times: tuple[float, float]) -> list[tuple[list[int], str | None]]:
    """The numbers of the frames of each clip, in the order of the given times, and why it was not made."""
    segments = [Segment(f"clip{number}", "video", start, end) for number, (start, end) in enumerate(times)]
    folder = video.parent / "clips"
    folder.mkdir(exist_ok=True)
    paths = {segment: folder / f"{segment.clip_id}.mp4" for segment in segments}
    reasons = dict(cut_spans(video, paths))
    assert list(reasons) and set(reasons) == set(segments)
    assert {path.name for path in folder.iterdir()} == {paths[s].name for s in segments if reasons[s] is None}
    return [(numbers(pictures(paths[s])) if reasons[s] is None else [], reasons[s]) for s in segments]


def pictures(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [round(float(frame.time), 3) for frame in container.decode(video=0)]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """50 numbered frames at 25 a second, a key frame each 10."""
    return write(tmp_path / "video.mp4", numbered(50), options={"g": "10", "crf": "10"})


def test_a_clip_has_the_frames_first_shown_from_its_start_to_before_its_end(video):
    assert cut(video, (0.4, 0.8)) == [(list(range(10, 20)), None)]
    assert cut(video, (0.41, 0.81)) == [(list(range(11, 21)), None)]
    assert cut(video, (0, 2)) == [(list(range(50)), None)]


def test_times_that_rounding_has_put_off_by_less_than_a_millisecond_are_the_same(video):
    assert cut(video, (0.4004, 0.8004), (0.3996, 0.7996)) == [(list(range(10, 20)), None)] * 2


@pytest.mark.parametrize(
    ("at", "shown"), [(0.0, 0), (0.8, 20), (0.83, 20), (0.838, 20), (0.84, 21), (1.98, 49), (2, 49)]
)
def test_a_segment_of_length_zero_is_the_frame_on_screen_at_that_time(video, at, shown):
    assert cut(video, (at, at)) == [([shown], None)]


def test_a_segment_between_two_frames_is_the_frame_on_screen(video):
    assert cut(video, (0.81, 0.83)) == [([20], None)]


def test_clips_may_overlap_hold_each_other_and_be_given_in_any_order(video):
    spans = [(1.0, 1.4), (0.4, 0.8), (0.6, 1.2), (0.64, 0.68), (0.7, 0.7), (0.4, 0.8)]
    expected = [range(25, 35), range(10, 20), range(15, 30), [16], [17], range(10, 20)]
    assert cut(video, *spans) == [(list(frames), None) for frames in expected]


def test_a_clip_beyond_the_videos_end_is_not_made_but_half_a_second_is_forgiven(video):
    (made, late, after) = cut(video, (1.6, 2.4), (1.6, 2.6), (2.2, 2.3))
    assert made == (list(range(40, 50)), None)
    assert late == ([], "its time, 1.60 to 2.60 s, is beyond the video's end at 2.00 s")
    assert after == ([], "its time, 2.20 to 2.30 s, is beyond the video's end at 2.00 s")


def test_variable_frame_rates_keep_their_times(tmp_path):
    shown = [0, 1, 2, 10, 11, 30, 31, 32, 50, 51]
    video = write(tmp_path / "video.mkv", numbered(10), times=shown)
    assert cut(video, (0.08, 1.28)) == [([2, 3, 4, 5, 6], None)]
    assert times(tmp_path / "clips" / "clip0.mp4") == [0, 0.32, 0.36, 1.12, 1.16]
    assert cut(video, (0.8, 0.9)) == [([4], None)]  # on screen for long


def test_times_count_from_the_start_of_the_file_as_players_do(tmp_path):
    video = write(tmp_path / "video.mkv", numbered(20), times=range(100, 120))
    assert cut(video, (0.4, 0.6)) == [([10, 11, 12, 13, 14], None)]


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx-vp9")])
def test_seeking_gives_the_bits_of_decoding_from_the_start(tmp_path, monkeypatch, suffix, codec):
    options = {"g": "12", "bf": "3", "crf": "20", "x264-params": "open-gop=1"}
    if codec != "libx264":
        options = {"g": "12", "crf": "20", "cpu-used": "8", "deadline": "realtime"}
    video = write(tmp_path / f"video.{suffix}", numbered(60), codec=codec, options=options)
    wanted = [(0.5, 0.7), (1.4, 1.6), (2.1, 2.3)]
    plain = cut(video, *wanted)
    files = [path.read_bytes() for path in sorted((tmp_path / "clips").iterdir())]
    monkeypatch.setattr(spans, "_WORTH_SEEKING", 0.1)
    monkeypatch.setattr(spans, "_BEFORE", 0.0)
    sought, decoded = [], spans._decoded
    monkeypatch.setattr(
        spans, "_decoded", lambda file, *, seek_to: sought.append(seek_to) or decoded(file, seek_to=seek_to)
    )
    assert (
        cut(video, *wanted) == plain and sought == [0.5, 1.4, 2.1] and [len(frames) for frames, _ in plain] == [5, 5, 5]
    )
    assert [path.read_bytes() for path in sorted((tmp_path / "clips").iterdir())] == files


def test_seeking_that_leads_too_far_falls_back_to_the_start(video, monkeypatch):
    monkeypatch.setattr(spans, "_WORTH_SEEKING", 0.1)
    monkeypatch.setattr(spans, "_BEFORE", -1.0)
    assert cut(video, (0.6, 0.8)) == [([15, 16, 17, 18, 19], None)]


def test_far_apart_clips_are_sought_and_near_ones_are_read_in_one_pass(video, monkeypatch):
    opened = []
    frames = spans._frames
    monkeypatch.setattr(spans, "_frames", lambda path, start: opened.append(start) or frames(path, start))
    monkeypatch.setattr(spans, "_WORTH_SEEKING", 0.5)
    cut(video, (0.2, 0.4), (0.8, 0.9), (1.5, 1.6), (1.6, 1.7))
    assert opened == [0.2, 1.5]


@pytest.mark.parametrize(
    ("pix_fmt", "size", "becomes"),
    [
        ("yuv420p", (48, 64), "yuv420p"),
        ("yuv444p", (35, 51), "yuv444p"),
        ("yuvj420p", (48, 64), "yuvj420p"),
        ("yuv420p10le", (48, 64), "yuv420p10le"),
    ],
)
def test_size_and_pixel_format_are_kept_and_colours_stay(tmp_path, pix_fmt, size, becomes):
    height, width = size
    full = pix_fmt == "yuvj420p"
    frame = plain((200, 60, 30), pix_fmt, width=width, height=height, full_range=full)
    video = write(tmp_path / "video.mkv", [frame] * 5, pix_fmt=pix_fmt, options={"crf": "5"})
    assert [reason for _, reason in cut(video, (0, 0.2))] == [None]
    with av.open(str(tmp_path / "clips" / "clip0.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width, stream.pix_fmt, len(container.streams)) == (*size, becomes, 1)
    before, after = (sample_frames(path, 1, short_side=24) for path in (video, tmp_path / "clips" / "clip0.mp4"))
    assert np.abs(before.astype(int) - after).max() <= 3


def test_an_odd_size_is_kept_though_its_chroma_cannot_be_halved(tmp_path):
    video = write(tmp_path / "video.mkv", [quarters(height=34, width=50)] * 3, codec="ffv1")
    with av.open(str(video)) as container:
        odd = [frame.reformat(51, 35) for frame in container.decode(video=0)]
    odd_video = write(tmp_path / "odd.mkv", odd, codec="ffv1")
    assert [reason for _, reason in cut(odd_video, (0, 0.1))] == [None]
    (frame, *_) = pictures(tmp_path / "clips" / "clip0.mp4")
    assert frame.shape == (35, 51, 3) and corners(frame) == ["red", "green", "blue", "dark"]


def test_sound_is_left_out_and_cover_pictures_are_no_video(tmp_path):
    path = tmp_path / "video.mkv"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=48_000)
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for picture in numbered(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        silence.sample_rate = 48_000
        container.mux(sound.encode(silence))
        for each in (stream, sound):
            container.mux(each.encode())
    assert cut(path, (0.2, 0.4))[0][0] in ([5, 6, 7, 8, 9], [4, 5, 6, 7, 8])  # the sound may begin before the picture
    with av.open(str(tmp_path / "clips" / "clip0.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_a_video_that_breaks_off_gives_the_clips_before_that(tmp_path):
    video = write(tmp_path / "video.mkv", [np.roll(quarters(), n, axis=1) for n in range(60)], options={"g": "10"})
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 6 // 10])
    (early, late) = cut(video, (0.2, 0.4), (2.2, 2.3))
    assert early[1] is None and len(early[0]) == 5 and "beyond the video's end" in late[1]


def test_a_turned_video_is_refused_rather_than_cut_sideways(video):
    with_matrix(video, (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30))
    with pytest.raises(OSError, match=r"marked as turned by .*90 degrees: turn it first"):
        cut(video, (0, 1))


def test_an_error_in_the_middle_leaves_no_file(video, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        cut(video, (0.2, 0.4), (0.3, 1.0))
    assert list((video.parent / "clips").iterdir()) == []


def test_who_stops_listening_leaves_no_half_file(video):
    folder = video.parent / "clips"
    folder.mkdir()
    segments = [Segment("a", "video", 0, 0.2), Segment("b", "video", 0.1, 1.8)]
    outcomes = cut_spans(video, {segment: folder / f"{segment.clip_id}.mp4" for segment in segments})
    assert next(outcomes) == (segments[0], None)
    outcomes.close()
    assert [path.name for path in folder.iterdir()] == ["a.mp4"]
