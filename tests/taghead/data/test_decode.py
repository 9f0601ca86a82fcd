import pickle
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taghead.data import decode
from taghead.data.decode import UnreadableClip, frame_indices, resized, sample_frames
from taghead.data.packets import Packet, Packets, main_stream
from taghead.errors import InputError


def decode_everything(path: Path, num_frames: int, *, short_side: int) -> np.ndarray:
    """The reference: every frame decoded and converted by a fresh context, then the sampled ones picked."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    height, width = resized(frames[0].height, frames[0].width, short_side=short_side)
    small = [frame.reformat(width, height, "rgb24", interpolation=decode._FILTER).to_ndarray() for frame in frames]
    return np.stack([small[index] for index in np.linspace(0, len(small) - 1, num_frames).astype(int)])


def greys(frames: np.ndarray) -> list[int]:
    """The numbers of the `grey_by_number` frames."""
    return [round((float(frame.mean()) - 10) / 4) for frame in frames]


def test_the_result_is_f_frames_with_the_short_side_asked_for(tmp_path, write_video, noise):
    path = write_video(tmp_path / "a.mp4", noise, num_frames=9)  # 80 x 64
    frames = sample_frames(path, 5, short_side=27)
    assert (frames.shape, frames.dtype) == ((5, 27, 34, 3), np.uint8)
    assert sample_frames(str(path), 5, short_side=64).shape == (5, 64, 80, 3)


@pytest.mark.parametrize("num_frames", [1, 2, 7, 20, 32, 45])
def test_sampled_frames_are_bit_for_bit_those_of_decoding_everything(tmp_path, write_video, noise, num_frames):
    path = write_video(tmp_path / "a.mp4", noise, num_frames=20)
    assert np.array_equal(
        sample_frames(path, num_frames, short_side=30), decode_everything(path, num_frames, short_side=30)
    )


def test_frames_are_uniform_from_the_first_to_the_last(tmp_path, write_video, grey_by_number):
    path = write_video(tmp_path / "a.mp4", grey_by_number, num_frames=10)
    assert greys(sample_frames(path, 4, short_side=48)) == [0, 3, 6, 9]


def test_a_clip_shorter_than_f_repeats_frames_in_order(tmp_path, write_video, grey_by_number):
    path = write_video(tmp_path / "a.mp4", grey_by_number, num_frames=3)
    assert greys(sample_frames(path, 8, short_side=48)) == [0, 0, 0, 0, 1, 1, 1, 2]


def test_a_clip_of_one_frame_gives_it_f_times(tmp_path, write_video, grey_by_number):
    path = write_video(tmp_path / "a.mp4", grey_by_number, num_frames=1)
    assert greys(sample_frames(path, 4, short_side=48)) == [0, 0, 0, 0]


@given(st.integers(1, 500), st.integers(1, 128))
def test_indices_are_sorted_within_the_clip_and_include_its_ends(num_decoded, num_frames):
    indices = frame_indices(num_decoded, num_frames)
    assert len(indices) == num_frames
    assert indices[0] == 0 and indices.max() <= num_decoded - 1 and (np.diff(indices) >= 0).all()
    assert num_frames == 1 or indices[-1] == num_decoded - 1


@pytest.mark.parametrize(("height", "width"), [(48, 64), (50, 62), (242, 322), (64, 48)])
@pytest.mark.parametrize("short_side", [29, 31, 42, 47, 48])
@pytest.mark.parametrize("colour", [(200, 40, 90), (255, 255, 255), (10, 220, 30)])
def test_a_constant_colour_comes_out_within_three_of_it_to_the_last_column(
    tmp_path, write_video, height, width, short_side, colour
):
    path = write_video(tmp_path / "a.mp4", lambda _: np.full((height, width, 3), colour, np.uint8), num_frames=2)
    frames = sample_frames(path, 1, short_side=short_side).astype(int)
    assert frames.shape == (1, *resized(height, width, short_side=short_side), 3)
    assert np.abs(frames - np.array(colour)).max() <= 3


def test_the_long_side_is_rounded_to_the_nearest_pixel():
    assert resized(256, 320, short_side=126) == (126, 158)  # 157.5: to even
    assert resized(240, 321, short_side=126) == (126, 169)  # 168.525
    assert resized(640, 360, short_side=126) == (224, 126)
    assert resized(100, 100, short_side=126) == (126, 126)


def test_clips_of_several_sizes_in_turn_do_not_disturb_each_other(tmp_path, write_video, noise):
    wide = write_video(tmp_path / "wide.mp4", noise, num_frames=4)
    tall = write_video(tmp_path / "tall.mp4", lambda i: np.ascontiguousarray(noise(i).swapaxes(0, 1)), num_frames=4)
    for path in (wide, tall, wide):
        assert np.array_equal(sample_frames(path, 3, short_side=30), decode_everything(path, 3, short_side=30))


def test_threads_give_the_bits_of_one_thread(tmp_path, write_video, noise):
    path = write_video(tmp_path / "a.mp4", noise, num_frames=12)
    alone = sample_frames(path, 6, short_side=30)
    started = threading.Barrier(4)

    def sample(_: int) -> np.ndarray:
        started.wait(timeout=30)
        return sample_frames(path, 6, short_side=30)

    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(frames, alone) for frames in pool.map(sample, range(4)))


@pytest.mark.parametrize("header_says", [1, 5, 500])
def test_the_number_of_frames_is_counted_and_never_believed(
    tmp_path, write_video, grey_by_number, monkeypatch, header_says
):
    path = write_video(tmp_path / "a.mp4", grey_by_number, num_frames=10)
    packets = Packets(0, all=[Packet(None, True, False)] * header_says)
    monkeypatch.setattr(decode, "main_stream", lambda path, lenient: packets)
    assert greys(sample_frames(path, 4, short_side=48)) == [0, 3, 6, 9]


def test_frames_that_an_edit_list_hides_do_not_count(tmp_path, write_video, grey_by_number):
    whole = write_video(tmp_path / "whole.mp4", grey_by_number, num_frames=30)
    cut = tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(cut), "w") as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None and packet.pts is not None and packet.duration is not None:
                start = 10 * packet.duration  # shown from frame 10 on: what is before lies at negative times
                packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, copy
                target.mux(packet)
    with av.open(str(cut)) as container:
        shown = sum(1 for _ in container.decode(video=0))
    frames = sample_frames(cut, shown, short_side=48)
    assert shown < 30 and greys(frames) == list(range(30 - shown, 30))
    counted = main_stream(cut)
    assert counted is not None and counted.num_shown == shown


def test_a_file_that_breaks_off_gives_the_frames_before(tmp_path, write_video, noise):
    front_index = {"movflags": "faststart"}
    path = write_video(tmp_path / "a.mp4", noise, num_frames=40, options=front_index)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    frames = sample_frames(path, 8, short_side=30)
    assert np.array_equal(frames, decode_what_decodes(path, 8))
    assert len({frame.tobytes() for frame in frames}) > 1


def decode_what_decodes(path: Path, num_frames: int) -> np.ndarray:
    frames = []
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        for packet in container.demux(video=0):
            try:
                frames += [
                    f.reformat(38, 30, "rgb24", interpolation=decode._FILTER).to_ndarray() for f in packet.decode()
                ]
            except av.FFmpegError:
                continue
    return np.stack([frames[index] for index in np.linspace(0, len(frames) - 1, num_frames).astype(int)])


def test_damage_in_the_middle_costs_no_error_and_the_same_frames_each_time(tmp_path, write_video, noise):
    path = write_video(tmp_path / "a.mp4", noise, num_frames=40)
    damaged = bytearray(path.read_bytes())
    middle = len(damaged) // 3
    damaged[middle : middle + 400] = random.Random(0).randbytes(400)
    path.write_bytes(damaged)
    assert np.array_equal(sample_frames(path, 8, short_side=30), sample_frames(path, 8, short_side=30))


def test_files_without_a_frame_are_unreadable_and_say_why(tmp_path, write_video, noise, capfd):
    path = write_video(tmp_path / "cut.mp4", noise, num_frames=10)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # the index is at the end
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 40)
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    reasons = {
        "cut.mp4": "Invalid data",
        "empty.mp4": "Invalid data",
        "text.mp4": "Invalid data",
        "sound.mp4": "no video stream",
        "gone.mp4": "No such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(
            UnreadableClip, match=f"{name}: no frame can be decoded .*{reason}.*; replace the file"
        ) as error:
            sample_frames(tmp_path / name, 4, short_side=30)
        assert reason in error.value.reason
        assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
    assert capfd.readouterr() == ("", "")  # no message of the decoder's own


@pytest.mark.parametrize(
    ("num_frames", "short_side", "message"), [(0, 30, "num_frames >= 1"), (4, 0, "short_side >= 1")]
)
def test_sizes_below_one_are_refused(tmp_path, num_frames, short_side, message):
    with pytest.raises(InputError, match=f"{message} must hold, but got 0"):
        sample_frames(tmp_path / "a.mp4", num_frames, short_side=short_side)
