from collections import namedtuple
from pathlib import Path

import pytest
from videos import numbered, write

from taghead.array_folder import HEAD_BYTES
from taghead.data import fill as fill_file
from taghead.data.clips import Clip
from taghead.data.fill import Estimate, fill
from taghead.data.frame_cache import FrameCache
from taghead.errors import InputError

SETTINGS = {"num_frames": 4, "short_side": 24}
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Five clips of 48 x 64 pixels, and a file that is none."""
    folder = tmp_path_factory.mktemp("videos")
    paths = [write(folder / f"{number}.mp4", numbered(5 + number)) for number in range(5)]
    (folder / "broken.mp4").write_text("no video")
    return [Clip(path.stem, path, 0, "train") for path in [*paths, folder / "broken.mp4"]]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_cache_holds_the_bytes_that_training_would_write(tmp_path, clips, workers):
    filled = fill(clips, tmp_path / "filled", workers=workers, **SETTINGS)
    trained = FrameCache(tmp_path / "trained", **SETTINGS)
    for clip in clips[:5]:
        trained.get(clip)
    assert files(tmp_path / "filled") == files(tmp_path / "trained") and len(files(tmp_path / "filled")) == 5
    assert (filled.num_made, filled.num_there, set(filled.unreadable)) == (5, 0, {"broken"})
    assert filled.text().splitlines()[0] == "5 clips decoded, 0 were there, 1 unreadable."
    assert filled.text().splitlines()[1].startswith("broken: Invalid data")


def test_what_is_there_is_skipped_and_what_is_outdated_is_not(tmp_path, clips, monkeypatch):
    fill(clips[:4], tmp_path, workers=1, **SETTINGS)
    torn = min(tmp_path.iterdir())
    good = torn.read_bytes()
    torn.write_bytes(good[:100])
    others = {name: (tmp_path / name).stat().st_mtime_ns for name in files(tmp_path) if name != torn.name}
    filled = fill(clips[:5], tmp_path, workers=1, **SETTINGS)
    assert (filled.num_made, filled.num_there) == (2, 3) and torn.read_bytes() == good
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in others} == others
    assert fill(clips[:5], tmp_path, workers=1, num_frames=5, short_side=24).num_made == 5


def test_the_estimate_is_frames_by_height_by_width_and_comes_first(tmp_path, clips):
    seen: list[tuple[Estimate, int]] = []
    fill(
        clips[:5],
        tmp_path,
        workers=1,
        on_estimate=lambda guess: seen.append((guess, len(files(tmp_path)))),
        **SETTINGS,
    )
    ((guess, written),) = seen
    assert guess.num_bytes == 5 * (4 * 24 * 32 * 3 + HEAD_BYTES) == sum(map(len, files(tmp_path).values()))
    assert written == 0 and guess.text().startswith("5 clips to decode, 0 are there: about 0.0 MB, of ")


def test_frames_that_do_not_fit_on_the_disk_are_refused_before_any_is_written(tmp_path, clips, monkeypatch):
    monkeypatch.setattr(fill_file.shutil, "disk_usage", lambda _: Usage(1, 1, 40_000))
    with pytest.raises(InputError, match=r"must fit on the disk of .*, but 0.0 MB are needed .*; make room, or name"):
        fill(clips[:5], tmp_path, workers=1, **SETTINGS)
    assert files(tmp_path) == {}
    assert fill(clips[:4], tmp_path, workers=1, **SETTINGS).num_made == 4


def test_a_folder_that_cannot_be_written_is_an_error_and_no_warning(tmp_path, clips, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be kept in .*cache \(Not a directory\); name a folder that can"):
        fill(clips, tmp_path / "file" / "cache", workers=1, **SETTINGS)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(InputError, match=r"\(No space left on device\); name a folder .*, or make room"):
            fill(clips[:2], tmp_path / "cache", workers=1, **SETTINGS)
    assert fill(clips[:2], tmp_path / "cache", workers=1, **SETTINGS).num_made == 2
    assert len(files(tmp_path / "cache")) == 2


def test_progress_counts_the_clips_that_are_to_be_decoded(tmp_path, clips):
    fill(clips[:2], tmp_path, workers=1, **SETTINGS)
    seen: list[tuple[int, int]] = []
    fill(clips, tmp_path, workers=1, on_progress=lambda *count: seen.append(count), **SETTINGS)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
