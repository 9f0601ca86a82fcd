import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from taghead import array_folder
from taghead.array_folder import HEAD_BYTES
from taghead.data import frame_cache
from taghead.data.clips import Clip
from taghead.data.decode import UnreadableClip, sample_frames
from taghead.data.frame_cache import FrameCache


@pytest.fixture
def clip(tmp_path: Path, write_video: Callable[..., Path], noise: Callable) -> Clip:
    return Clip("a", write_video(tmp_path / "videos" / "a.mp4", noise, num_frames=6), 0, "train")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files decoded since."""
    paths: list[Path] = []

    def counting(path: Path, num_frames: int, **setting: int) -> np.ndarray:
        paths.append(path)
        return sample_frames(path, num_frames, **setting)

    monkeypatch.setattr(frame_cache, "sample_frames", counting)
    return paths


def open_cache(folder: Path | None, *, num_frames: int = 4, short_side: int = 30, **kw: int) -> FrameCache:
    return FrameCache(folder, num_frames=num_frames, short_side=short_side, **kw)


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_a_clip_is_decoded_once_by_all_that_share_a_folder(tmp_path, clip, decoded):
    first = open_cache(tmp_path / "cache").get(clip)
    second = open_cache(tmp_path / "cache").get(clip)
    assert decoded == [clip.path]
    assert np.array_equal(first, second) and np.array_equal(first, sample_frames(clip.path, 4, short_side=30))
    assert (second.shape, second.dtype) == ((4, 30, 38, 3), np.uint8)


def test_a_cache_of_one_byte_changed_anywhere_is_rebuilt(tmp_path, clip, decoded):
    frames = open_cache(tmp_path / "cache").get(clip)
    file = only_file(tmp_path / "cache")
    good = file.read_bytes()
    places = [*range(HEAD_BYTES), len(good) // 2, len(good) - 1]
    for place in places:
        bad = bytearray(good)
        bad[place] ^= 0x10
        file.write_bytes(bad)
        assert np.array_equal(open_cache(tmp_path / "cache").get(clip), frames)
        assert file.read_bytes() == good
    assert len(decoded) == 1 + len(places)


def test_a_file_is_summed_once_and_again_when_it_has_changed(tmp_path, clip, decoded, monkeypatch):
    frames = open_cache(tmp_path / "cache").get(clip)
    summed: list[int] = []

    def counting(data: bytes | memoryview, start: int = 0) -> int:
        summed.append(memoryview(data).nbytes)
        return crc32(data, start)

    monkeypatch.setattr(array_folder.zlib, "crc32", counting)
    cache = open_cache(tmp_path / "cache")
    for _ in range(3):
        assert np.array_equal(cache.get(clip), frames)
    assert summed.count(frames.nbytes) == 1 and len(decoded) == 1
    file = only_file(tmp_path / "cache")
    bad = bytearray(file.read_bytes())
    bad[-1] ^= 1
    file.write_bytes(bad)
    assert np.array_equal(cache.get(clip), frames) and len(decoded) == 2, "changed in place: summed, found wrong"


def test_what_a_cache_wrote_itself_it_does_not_sum_when_it_reads_it(tmp_path, clip, decoded, monkeypatch):
    cache = open_cache(tmp_path / "cache")
    frames = cache.get(clip)
    monkeypatch.setattr(array_folder.zlib, "crc32", lambda *_: pytest.fail("summed"))
    assert np.array_equal(cache.get(clip), frames) and len(decoded) == 1


def test_the_planes_of_a_clip_lie_one_after_another_in_memory(tmp_path, clip):
    for cache in (open_cache(tmp_path / "cache"), open_cache(tmp_path / "cache"), open_cache(None)):
        assert cache.get(clip).transpose(0, 3, 1, 2).flags.c_contiguous


@pytest.mark.parametrize("length", [0, 7, HEAD_BYTES, HEAD_BYTES + 1, 1000])
def test_a_cache_cut_short_is_rebuilt(tmp_path, clip, decoded, length):
    frames = open_cache(tmp_path / "cache").get(clip)
    file = only_file(tmp_path / "cache")
    good = file.read_bytes()
    file.write_bytes(good[:length])
    assert np.array_equal(open_cache(tmp_path / "cache").get(clip), frames)
    assert file.read_bytes() == good and len(decoded) == 2


def test_a_changed_clip_is_decoded_again(tmp_path, clip, decoded, write_video, grey_by_number):
    open_cache(tmp_path / "cache").get(clip)
    write_video(clip.path, grey_by_number, num_frames=6)
    again = open_cache(tmp_path / "cache").get(clip)
    assert np.array_equal(again, sample_frames(clip.path, 4, short_side=30)) and len(decoded) == 2


def test_a_clip_replaced_by_one_of_the_same_size_is_decoded_again(tmp_path, clip, decoded):
    open_cache(tmp_path / "cache").get(clip)
    status = clip.path.stat()
    os.utime(clip.path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    open_cache(tmp_path / "cache").get(clip)
    assert len(decoded) == 2


def test_other_rules_of_the_decoder_make_a_cache_outdated(tmp_path, clip, decoded, monkeypatch):
    open_cache(tmp_path / "cache").get(clip)
    monkeypatch.setattr(frame_cache, "DECODER", "another")
    open_cache(tmp_path / "cache").get(clip)
    assert len(decoded) == 2


def test_settings_share_a_folder_without_pushing_each_other_out(tmp_path, clip, decoded):
    settings = [(4, 30), (5, 30), (4, 24)]
    for _ in range(2):
        caches = [open_cache(tmp_path / "cache", num_frames=count, short_side=side) for count, side in settings]
        shapes = [cache.get(clip).shape for cache in caches]
    assert shapes == [(4, 30, 38, 3), (5, 30, 38, 3), (4, 24, 30, 3)] and len(decoded) == 3


def test_without_a_folder_frames_stay_in_memory(clip, decoded):
    cache = open_cache(None)
    assert cache.get(clip) is cache.get(clip)
    assert decoded == [clip.path]


def test_memory_is_bounded_and_what_does_not_fit_is_decoded_each_time(clip, decoded):
    size = 4 * 30 * 38 * 3
    cache = open_cache(None, memory_bytes=size * 3 // 2)
    other = Clip("b", clip.path.with_name("b.mp4"), 0, "train")
    other.path.write_bytes(clip.path.read_bytes())
    for _ in range(2):
        cache.get(clip)
        cache.get(other)
    assert decoded == [clip.path, other.path, other.path]


def test_a_folder_that_cannot_be_made_costs_one_warning_and_the_run_goes_on(tmp_path, clip, decoded):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match=r"cannot be kept in .*file/cache .*going on with what fits in memory"):
        cache = open_cache(tmp_path / "file" / "cache")
    assert np.array_equal(cache.get(clip), cache.get(clip))
    assert decoded == [clip.path]


def test_a_full_disk_costs_one_warning_and_leaves_no_half_file(tmp_path, clip, decoded, monkeypatch):
    cache = open_cache(tmp_path / "cache")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.warns(UserWarning, match="No space left on device") as warned:
        cache.get(clip)
        cache.get(clip)
        cache.get(Clip("b", clip.path, 0, "train"))
    assert len(warned) == 1 and list((tmp_path / "cache").iterdir()) == [] and decoded == [clip.path]


def test_what_was_kept_before_the_disk_was_full_is_read_on(tmp_path, clip, decoded, monkeypatch):
    cache = open_cache(tmp_path / "cache", memory_bytes=0)
    frames = cache.get(clip)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(array_folder, "_write", full)
    other = Clip("b", clip.path.with_name("b.mp4"), 0, "train")
    other.path.write_bytes(clip.path.read_bytes())
    with pytest.warns(UserWarning, match="No space left on device"):
        cache.get(other)
    assert np.array_equal(cache.get(clip), frames) and cache.holds(clip)
    assert decoded == [clip.path, other.path]


def test_half_files_of_killed_processes_are_cleared_away_and_those_being_written_left(tmp_path):
    (tmp_path / "old.frames.1.part").touch()
    os.utime(tmp_path / "old.frames.1.part", (0, 0))
    (tmp_path / "new.frames.2.part").touch()
    open_cache(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new.frames.2.part"]


def test_an_unreadable_clip_is_told_with_its_reason_and_not_tried_again(tmp_path, decoded):
    empty = Clip("empty", tmp_path / "empty.mp4", 0, "train")
    empty.path.touch()
    cache = open_cache(tmp_path / "cache")
    for _ in range(2):
        with pytest.raises(UnreadableClip, match=r"empty\.mp4.*Invalid data"):
            cache.get(empty)
    assert set(cache.unreadable) == {"empty"} and decoded == [empty.path]


@pytest.mark.parametrize("cached", [False, True])
def test_a_clip_whose_file_goes_is_no_unreadable_one(tmp_path, clip, cached):
    own = Clip("a clip", tmp_path / "a.mp4", 0, "train")
    own.path.write_bytes(clip.path.read_bytes())
    cache = open_cache(tmp_path / "cache")
    if cached:
        cache.get(own)
    own.path.unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.mp4"):  # a share that went, say: not a result of these clips
        cache.get(own)
    assert not cache.unreadable


def test_threads_that_want_one_clip_all_get_it_whole(tmp_path, clip):
    cache = open_cache(tmp_path / "cache")
    reference = sample_frames(clip.path, 4, short_side=30)
    with ThreadPoolExecutor(8) as pool:
        assert all(np.array_equal(frames, reference) for frames in pool.map(cache.get, [clip] * 40))
    assert not cache.unreadable and only_file(tmp_path / "cache").suffix == ".frames"


WRITER = """
import sys
from collections.abc import Callable
from pathlib import Path
from taghead.data.clips import Clip
from taghead.data.frame_cache import FrameCache
folder, path = map(Path, sys.argv[1:])
for _ in range(60):
    for file in folder.glob("*.frames"):
        file.unlink(missing_ok=True)
    FrameCache(folder, num_frames=4, short_side=30).get(Clip("a", path, 0, "train"))
"""


def test_processes_that_rebuild_one_file_all_the_time_never_read_a_part_of_it(tmp_path, clip):
    reference = sample_frames(clip.path, 4, short_side=30)
    folder = tmp_path / "cache"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(clip.path)]) for _ in range(2)]
    wrong = 0
    while any(writer.poll() is None for writer in writers):
        wrong += not np.array_equal(open_cache(folder).get(clip), reference)
    assert wrong == 0 and [writer.returncode for writer in writers] == [0, 0]
    assert not list(folder.glob("*.part"))


def test_a_cache_says_whether_it_holds_a_clip_without_decoding(tmp_path, clip, decoded):
    cache = open_cache(tmp_path / "cache")
    assert not cache.holds(clip) and not open_cache(None).holds(clip)
    cache.get(clip)
    assert cache.holds(clip) and not open_cache(tmp_path / "cache", num_frames=5).holds(clip)
    file = only_file(tmp_path / "cache")
    file.write_bytes(file.read_bytes()[:-1])
    assert not cache.holds(clip) and decoded == [clip.path]
