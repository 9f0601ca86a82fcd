from pathlib import Path

import av
import pytest
from av.video.frame import PictureType
from videos import numbered, write

from taghead.data.packets import Packet, Packets, demuxed, main_stream, num_out_of_order, open_video

NO_PYRAMID = {"x264-params": "bframes=2:b-adapt=0:b-pyramid=none:scenecut=0"}


def counted(path: Path) -> Packets:
    packets = main_stream(path)
    assert packets is not None
    return packets


def b_times(path: Path) -> set[int | None]:
    """When the B-frames are shown, as the decoder says."""
    with av.open(str(path)) as container:
        return {frame.pts for frame in container.decode(video=0) if frame.pict_type == PictureType.B}


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_spare_packets_are_the_b_frames_where_none_refers_to_another(tmp_path, name):
    path = write(tmp_path / name, numbered(20), options=NO_PYRAMID)
    packets = counted(path)
    assert packets.sound == (name != "a.ts") and packets.num_shown == 20 and b_times(path)
    assert {packet.time for packet in packets.all if packet.spare} == b_times(path)


def test_b_frames_that_others_refer_to_are_not_spare(tmp_path):
    options = {"x264-params": "bframes=3:b-adapt=0:b-pyramid=strict:scenecut=0"}
    path = write(tmp_path / "a.mp4", numbered(20), options=options)
    spare = {packet.time for packet in counted(path).all if packet.spare}
    assert spare and spare < b_times(path)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"bf": "0"}),
        ("a.mkv", "libx265", {"x265-params": "log-level=none:pools=1"}),
        ("a.mp4", "mpeg4", {"bf": "2"}),
        ("a.webm", "libvpx-vp9", {}),
    ],
)
def test_other_codecs_and_streams_without_b_frames_have_no_spare_packet(tmp_path, name, codec, options):
    packets = counted(write(tmp_path / name, numbered(12), codec=codec, options=options))
    assert packets.num_shown == 12 and not any(packet.spare for packet in packets.all)


def test_what_is_sampled_is_never_spared(tmp_path):
    packets = counted(write(tmp_path / "a.mp4", numbered(20), options=NO_PYRAMID))
    spare = {packet.time for packet in packets.all if packet.spare}
    assert packets.spare_times([]) == spare and packets.spare_times(packets.times()) == set()
    assert packets.spare_times(packets.times()[:10]) == spare - set(packets.times()[:10])


def test_a_packet_whose_header_cannot_be_read_makes_the_stream_unsound(tmp_path):
    path = write(tmp_path / "a.mp4", numbered(12), options=NO_PYRAMID)
    with av.open(str(path)) as container:
        place, data = next(
            (packet.pos, bytes(packet)) for packet in list(container.demux(video=0))[3:] if packet.pos is not None
        )
    content = bytearray(path.read_bytes())
    assert content[place : place + len(data)] == data
    content[place + 4] |= 0x80  # the bit of a unit's header that must be zero
    path.write_bytes(content)
    assert not counted(path).sound


@pytest.mark.parametrize("name", ["a.ts", "a.avi", "a.h264"])
def test_containers_that_lose_frames_unnoticed_are_never_taken_for_sound(tmp_path, name):
    assert not counted(write(tmp_path / name, numbered(5))).sound


def test_the_order_of_a_stream_is_known_by_how_many_frames_must_be_held_back():
    assert num_out_of_order([]) == num_out_of_order([0, 1, 2, 3]) == 0
    assert num_out_of_order([0, 3, 1, 2, 6, 4, 5]) == 1
    assert num_out_of_order([0, 8, 4, 2, 1, 3, 6, 5, 7]) == 3


def test_nothing_is_spared_where_the_decoder_holds_back_too_few_frames():
    order = [Packet(time, shown=True, spare=time in (1, 3)) for time in (0, 4, 2, 1, 3)]
    assert Packets(0, held_back=2, all=order).spare_times([]) == {1, 3}
    assert Packets(0, held_back=1, all=order).spare_times([]) == set()


@pytest.mark.parametrize("times", [[0, None, 2], [0, 1, 1]])
def test_times_that_are_unknown_or_come_twice_are_no_promise(times):
    assert Packets(0, all=[Packet(time, shown=True, spare=False) for time in times]).times() == []


def test_what_an_edit_list_discards_is_not_shown():
    packets = Packets(0, all=[Packet(time, shown=time >= 0, spare=False) for time in (-2, 1, -1, 0)])
    assert packets.times() == [0, 1] and packets.num_shown == 2


def test_a_stream_that_begins_midway_ends_the_packets_without_an_error(tmp_path):
    one = write(tmp_path / "one.ts", numbered(8))
    with av.open(str(tmp_path / "two.ts"), "w") as target:
        for _ in range(6):
            stream = target.add_stream("libx264", rate=25, options={"threads": "1"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for stream in target.streams:
            for number, picture in enumerate(numbered(4)):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = number
                target.mux(stream.encode(frame))  # type: ignore[union-attr]
            target.mux(stream.encode())  # type: ignore[union-attr]
    one.write_bytes(one.read_bytes() + (tmp_path / "two.ts").read_bytes())
    with open_video(one) as container:
        assert sum(packet.size > 0 for packet in demuxed(container, list(container.streams.video), lenient=False)) >= 8
