"""A disk that does not give a clip, against a clip that is damaged."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av.container import InputContainer
from av.error import err_check
from videos import numbered, numbers, write

from taghead.data import decode, packets
from taghead.data.decode import UnreadableClip, sample_frames


class Failing:
    """A container whose packets end by an error after the first few."""

    __class__ = property(lambda self: InputContainer)  # type: ignore[assignment]  # to whoever checks types

    def __init__(self, container: Any, number: int) -> None:
        self._container, self._number = container, number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def __enter__(self) -> "Failing":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def demux(self, *streams: Any) -> Iterator[Any]:
        for count, packet in enumerate(self._container.demux(*streams)):
            if count == 5:
                err_check(-self._number)
            yield packet


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write(tmp_path / "clip.mp4", numbered(24), options={"bf": "0"})


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Lets the first so many openings of any file end in mid-file with an error."""

    def fail(number: int, times: int) -> None:
        opened: list[Path] = []
        whole = packets.open_video

        def open_video(path: Path) -> Any:
            opened.append(path)
            return Failing(whole(path), number) if len(opened) <= times else whole(path)

        for file in (packets, decode):
            monkeypatch.setattr(file, "open_video", open_video)

    return fail


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("number", sorted(packets.OF_THE_DISK))
def test_a_hiccup_of_the_disk_costs_no_frame(clip, fails, number, times):
    fails(number, times)
    assert numbers(sample_frames(clip, 24, short_side=48)) == list(range(24))


def test_a_disk_that_goes_on_failing_is_told_as_such(clip, fails, monkeypatch):
    def broken(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    fails(errno.EIO, 100)
    monkeypatch.setattr(decode, "_read_through", broken)
    with pytest.raises(OSError, match=r"clip\.mp4") as told:
        sample_frames(clip, 24, short_side=48)
    assert not isinstance(told.value, UnreadableClip)


def test_a_file_that_reads_well_and_is_said_to_fail_breaks_off_there(clip, fails):
    fails(errno.EIO, 100)
    assert sorted(set(numbers(sample_frames(clip, 24, short_side=48)))) == list(range(5))


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="has no file that cannot be read")
def test_a_real_file_that_the_system_does_not_give_is_no_unreadable_clip(tmp_path):
    (tmp_path / "clip.mp4").symlink_to("/proc/self/mem")  # opens, and fails at its first byte
    with pytest.raises(OSError, match="Input/output error"):
        sample_frames(tmp_path / "clip.mp4", 4, short_side=48)


def test_damage_alone_is_no_matter_of_the_disk(clip):
    clip.write_bytes(np.random.default_rng(0).bytes(4096))
    with pytest.raises(UnreadableClip):
        sample_frames(clip, 4, short_side=48)
