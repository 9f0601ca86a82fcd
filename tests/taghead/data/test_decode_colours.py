from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from videos import BT601, BT709, BT2020, plain, write

from taghead.data.decode import resized, sample_frames

Colour = tuple[int, int, int]
COLOURS: tuple[Colour, ...] = ((200, 40, 90), (10, 220, 30), (30, 60, 240), (255, 255, 255), (0, 0, 0))
NEAR = 3  # of 255
EVEN, ODD, TINY = (64, 48), (35, 51), (2, 2)
QUIET = {"x265-params": "log-level=none:pools=none"}
LIMITED, FULL = 1, 2  # AVCOL_RANGE_*
YCGCO, BT2020_CONSTANT = 8, 10  # AVCOL_SPC_*

# HEVC as a bare stream: the encoder in PyAV 18's wheel loses, now and then, the header that a container needs
CODECS: dict[str, dict[str, Any]] = {
    "H.264": {"name": "a.mp4", "codec": "libx264", "pix_fmt": "yuv420p"},
    "H.264 4:2:2": {"name": "a.mp4", "codec": "libx264", "pix_fmt": "yuv422p"},
    "H.264 4:4:4": {"name": "a.mkv", "codec": "libx264", "pix_fmt": "yuv444p", "sizes": (EVEN, ODD, TINY)},
    "H.264 10-bit": {"name": "a.mp4", "codec": "libx264", "pix_fmt": "yuv420p10le"},
    "HEVC": {"name": "a.hevc", "codec": "libx265", "pix_fmt": "yuv420p", "options": QUIET, "sizes": (EVEN,)},
    "HEVC 10-bit": {"name": "a.hevc", "codec": "libx265", "pix_fmt": "yuv420p10le", "options": QUIET, "sizes": (EVEN,)},
    "MPEG-4": {"name": "a.avi", "codec": "mpeg4", "pix_fmt": "yuv420p", "sizes": (EVEN, ODD, TINY)},
    "MPEG-2": {"name": "a.mpg", "codec": "mpeg2video", "pix_fmt": "yuv420p", "sizes": (EVEN, ODD, TINY)},
    "VP9": {"name": "a.webm", "codec": "libvpx-vp9", "pix_fmt": "yuv420p", "sizes": (EVEN, ODD, TINY)},
    "VP9 alpha": {"name": "a.webm", "codec": "libvpx-vp9", "pix_fmt": "yuva420p", "sizes": (EVEN, ODD, TINY)},
    "VP8": {"name": "a.webm", "codec": "libvpx", "pix_fmt": "yuv420p", "sizes": (EVEN, ODD, TINY)},
    "FFV1": {"name": "a.mkv", "codec": "ffv1", "pix_fmt": "yuv420p", "sizes": (EVEN, ODD, TINY)},
    "ProRes alpha": {"name": "a.mov", "codec": "prores_ks", "pix_fmt": "yuva444p10le", "sizes": (EVEN, ODD, TINY)},
}


def farthest(path: Path, colour: Colour, *, width: int, height: int) -> int:
    """How far the worst pixel of the clip is from the colour, over sizes below, equal to and above the clip's."""
    worst = 0
    for short_side in (29, min(width, height), 126):
        frames = sample_frames(path, 2, short_side=short_side).astype(int)
        assert frames.shape == (2, *resized(height, width, short_side=short_side), 3)
        worst = max(worst, int(np.abs(frames - np.array(colour)).max()))
    return worst


def marked(matrix: int, colour_range: int) -> Any:
    """Writes matrix (AVCOL_SPC_*) and range (AVCOL_RANGE_*) into the stream."""

    def mark(stream: Any) -> None:
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, colour_range

    return mark


@pytest.mark.parametrize("codec", CODECS)
def test_a_constant_colour_is_kept_to_the_last_column_and_row_in_every_codec(tmp_path, codec):
    setting = {"options": {}, "sizes": (EVEN, TINY)} | CODECS[codec]
    for width, height in setting["sizes"]:
        for colour in COLOURS[:2]:
            frames = [plain(colour, setting["pix_fmt"], width=width, height=height) for _ in range(2)]
            path = write(
                tmp_path / setting["name"],
                frames,
                codec=setting["codec"],
                pix_fmt=setting["pix_fmt"],
                options=setting["options"],
            )
            assert farthest(path, colour, width=width, height=height) <= NEAR, (width, height, colour)


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize(
    ("matrix", "weights", "colour_range", "pix_fmt"),
    [
        (1, BT709, LIMITED, "yuv420p"),
        (1, BT709, FULL, "yuvj420p"),
        (1, BT709, LIMITED, "yuv420p10le"),
        (5, BT601, LIMITED, "yuv420p"),
        (6, BT601, FULL, "yuvj420p"),
        (9, BT2020, LIMITED, "yuv420p10le"),
    ],
)
def test_matrix_and_range_are_those_of_the_marks(tmp_path, colour, matrix, weights, colour_range, pix_fmt):
    frame = plain(colour, pix_fmt, width=64, height=48, weights=weights, full_range=colour_range == FULL)
    path = write(tmp_path / "a.mp4", [frame], pix_fmt=pix_fmt, prepare=marked(matrix, colour_range))
    assert farthest(path, colour, width=64, height=48) <= NEAR


@pytest.mark.parametrize(("width", "height"), [(64, 48), (1280, 720)])
def test_without_a_mark_it_is_bt601_in_the_limited_range_however_large(tmp_path, width, height):
    frames = {
        weights: plain(COLOURS[1], "yuv420p", width=width, height=height, weights=weights) for weights in (BT601, BT709)
    }
    worst = {
        weights: farthest(write(tmp_path / "a.mp4", [frame]), COLOURS[1], width=width, height=height)
        for weights, frame in frames.items()
    }
    assert worst[BT601] <= NEAR < worst[BT709]


@pytest.mark.parametrize("matrix", [YCGCO, BT2020_CONSTANT])
def test_a_matrix_that_cannot_be_calculated_is_as_none(tmp_path, matrix):
    frame = plain(COLOURS[0], "yuv420p", width=64, height=48)
    path = write(tmp_path / "a.mp4", [frame], prepare=marked(matrix, LIMITED))
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).colorspace == matrix
    assert farthest(path, COLOURS[0], width=64, height=48) <= NEAR


@pytest.mark.parametrize("pix_fmt", ["yuvj420p", "yuvj422p", "yuvj444p"])
@pytest.mark.parametrize(("width", "height"), [EVEN, ODD, TINY])
def test_motion_jpeg_is_full_range(tmp_path, pix_fmt, width, height):
    frame = plain(COLOURS[0], pix_fmt, width=width, height=height, full_range=True)
    path = write(tmp_path / "a.avi", [frame], codec="mjpeg", pix_fmt=pix_fmt, options={"qscale": "1"})
    assert farthest(path, COLOURS[0], width=width, height=height) <= NEAR


@pytest.mark.parametrize(("codec", "name"), [("libx264", "a.mp4"), ("ffv1", "a.mkv"), ("libx265", "a.hevc")])
def test_a_clip_without_colour_planes_is_grey_in_full_contrast(tmp_path, codec, name):
    for level in (0, 200, 255):
        frame = plain((level,) * 3, "gray", width=64, height=48, full_range=True)
        options = QUIET if codec == "libx265" else {}
        path = write(tmp_path / name, [frame], codec=codec, pix_fmt="gray", options=options, prepare=marked(2, FULL))
        assert farthest(path, (level,) * 3, width=64, height=48) <= NEAR


@pytest.mark.parametrize(
    ("codec", "name", "pix_fmt"),
    [
        ("libx264rgb", "a.mp4", "rgb24"),
        ("libvpx-vp9", "a.webm", "gbrp"),
        ("qtrle", "a.mov", "rgb24"),
        ("rawvideo", "a.avi", "bgr24"),
        ("png", "a.mov", "rgb24"),
        ("apng", "a.apng", "rgb24"),
    ],
)
@pytest.mark.parametrize(("width", "height"), [EVEN, ODD, TINY])
def test_an_rgb_stream_keeps_its_colours(tmp_path, codec, name, pix_fmt, width, height):
    picture = np.full((height, width, 3), COLOURS[0], np.uint8)
    prepare = (
        (lambda stream: setattr(stream.codec_context, "colorspace", 0)) if pix_fmt == "gbrp" else lambda stream: None
    )
    path = write(tmp_path / name, [picture, picture], codec=codec, pix_fmt=pix_fmt, prepare=prepare)
    assert farthest(path, COLOURS[0], width=width, height=height) <= NEAR


def test_a_gif_gives_its_palette_s_colours(tmp_path):
    picture = np.full((48, 64, 3), (255, 0, 0), np.uint8)  # of FFmpeg's fixed palette
    path = write(tmp_path / "a.gif", [picture] * 3, codec="gif", pix_fmt="rgb8")
    assert farthest(path, (255, 0, 0), width=64, height=48) <= NEAR


@pytest.mark.parametrize("alpha", [0, 100, 255])
def test_transparency_shows_the_colours_that_are_stored(tmp_path, alpha):
    pixels = np.full((48, 64, 4), (*COLOURS[0], alpha), np.uint8)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgba")
    path = write(tmp_path / "a.mov", [frame], codec="png", pix_fmt="rgba")
    assert farthest(path, COLOURS[0], width=64, height=48) <= NEAR


@pytest.mark.parametrize("short_side", [31, 48, 95])
def test_frames_marked_interlaced_are_resized_whole(tmp_path, short_side):
    rows, columns = np.mgrid[:96, :128]
    waves = [128 + 100 * np.sin(rows / 7 + columns / 11), 128 + 100 * np.cos(rows / 5), 128 + 100 * np.sin(columns / 6)]
    pictures = [np.stack(waves, axis=-1).astype(np.uint8)] * 3
    fine = {"crf": "4"}
    progressive = write(tmp_path / "p.mp4", pictures, options=fine)
    interlaced = write(tmp_path / "i.mp4", pictures, options=fine | {"x264-params": "interlaced=1:tff=1"})
    whole, fields = (sample_frames(path, 3, short_side=short_side).astype(int) for path in (progressive, interlaced))
    assert np.abs(whole - fields).mean() < 2.5  # of the other coding; fields resized one by one: 3.9 to 6.8
