"""Small real videos for the tests of the data path, and how a finding is looked for."""

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from taghead.data.listing import Finding

_SPEC = importlib.util.spec_from_file_location("videos", Path(__file__).with_name("videos.py"))
sys.modules["videos"] = importlib.util.module_from_spec(_SPEC)  # importlib mode puts no folder on the path
_SPEC.loader.exec_module(sys.modules["videos"])

Paint = Callable[[int], np.ndarray]  # frame number -> (height, width, 3) uint8


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
    def write(
        path: Path, paint: Paint, *, num_frames: int, crf: int = 10, options: dict[str, str] | None = None
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width, _ = paint(0).shape
        with av.open(str(path), "w", options=options or {}) as container:
            stream = container.add_stream("libx264", rate=25, options={"crf": "10", "threads": "1"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for number in range(num_frames):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(paint(number), format="rgb24")))
            container.mux(stream.encode())
        return path

    return write


@pytest.fixture
def grey_by_number() -> Paint:
    """Frames that tell their number: frame i is grey of 4 i + 10."""
    return lambda number: np.full((48, 64, 3), 4 * number + 10, np.uint8)


@pytest.fixture
def noise() -> Paint:
    """Coloured blocks that move: no frame is like another."""
    blocks = np.random.default_rng(0).integers(0, 255, (8, 10, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    return lambda number: np.roll(blocks, 3 * number, axis=1)


@pytest.fixture
def told() -> Callable[..., None]:
    """Asserts that just one finding of a level (or of another number) says what a pattern does."""

    def assert_told(findings: list[Finding], pattern: str, *, level: str = "error", times: int = 1) -> None:
        messages = [finding.message for finding in findings if finding.level == level]
        assert sum(bool(re.search(pattern, message)) for message in messages) == times, messages

    return assert_told
