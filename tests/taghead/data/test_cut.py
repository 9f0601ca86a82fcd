import errno
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from videos import numbered, numbers, write

from taghead.data import cut as cut_file
from taghead.data.cut import cut, plan_cuts
from taghead.data.decode import sample_frames
from taghead.errors import InputError

FIRST, SECOND, ABSENT = "a-_E_bc0123", "bbbbbbbbbbb", "ccccccccccc"
CLIPS = {
    f"{FIRST}_E_000000_000001_A_0000_0000": [5, 6, 7, 8, 9],
    f"{FIRST}_E_000000_000001_A_0000_0001": [10],
    f"{SECOND}_E_000001_000002_A_0000_0001": [25, 26, 27],
}
CLIP = next(iter(CLIPS))


def event(start: float, **segments: list[list[float]]) -> dict[str, Any]:
    return {
        "event": 1,
        "timestamps": [[start, start + 1]],
        "segments": {name: {"stages": len(times), "timestamps": times} for name, times in segments.items()},
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three videos are annotated and two are there; of their four clips one is beyond its video's end."""
    (tmp_path / "videos").mkdir()
    write(tmp_path / "videos" / f"{FIRST}.mp4", numbered(40))
    write(tmp_path / "videos" / f"{SECOND}.webm", numbered(40), codec="libvpx", options={"deadline": "realtime"})
    data = {
        FIRST: {"E_000000_000001": event(0.2, A_0000_0000=[[0, 0.1], [0.1, 0.2]], A_0000_0001=[[0.2, 0.2]])},
        SECOND: {"E_000001_000002": event(1.0, A_0000_0001=[[0, 0.12]], A_0009_0010=[[9, 10]])},
        ABSENT: {"E_000000_000001": event(0.2, A_0000_0001=[[0, 0.2]])},
    }
    (tmp_path / "annotations.json").write_text(json.dumps(data))
    return tmp_path


def plan(source: Path, **kw: Any):
    return plan_cuts(source / "videos", source / "annotations.json", source / "gym", **kw)


def made(source: Path) -> dict[str, list[int]]:
    paths = sorted((source / "gym" / "clips").iterdir())
    return {path.stem: list(dict.fromkeys(numbers(sample_frames(path, 8, short_side=48)))) for path in paths}


@pytest.mark.parametrize("workers", [1, 2])
def test_clips_are_cut_by_the_json_and_what_is_not_made_is_listed_with_its_reason(source, workers):
    outcome = cut(plan(source), workers=workers)
    assert made(source) == CLIPS and sorted(outcome.made) == sorted(CLIPS)
    assert (source / "gym" / "not_made.txt").read_text().splitlines() == [
        f"{SECOND}_E_000001_000002_A_0009_0010\tits time, 10.00 to 11.00 s, is beyond the video's end at 1.60 s",
        f"{ABSENT}_E_000000_000001_A_0000_0001\tvideo {ABSENT} is not there",
    ]
    assert outcome.text() == "3 clips made, 0 were there, 2 not made (reasons in not_made.txt)."


def test_the_plan_tells_the_work_ahead(source):
    assert plan(source).text().splitlines() == [
        f"4 clips (0.0 minutes) of 2 videos to {source / 'gym' / 'clips'}, 0 of them there already.",
        "1 videos are not there, which loses 1 clips; 0 other entries cannot be cut.",
    ]
    cut(plan(source), workers=1)
    assert plan(source).num_there == 3


def test_what_is_there_is_not_made_again_and_what_is_torn_is(source):
    cut(plan(source), workers=1)
    first, second, _ = sorted((source / "gym" / "clips").iterdir())
    kept = first.stat().st_mtime_ns
    second.write_bytes(second.read_bytes()[:500])
    outcome = cut(plan(source), workers=1)
    assert outcome.made == [second.stem] and len(outcome.there) == 2
    assert first.stat().st_mtime_ns == kept and made(source) == CLIPS


def test_only_the_clips_of_the_lists_are_cut_and_one_that_no_video_has_is_named(source):
    wanted, strange = list(CLIPS)[1], f"{FIRST}_E_000007_000008_A_0000_0001"
    (source / "train.txt").write_text(f"{wanted} 4\r\n")
    (source / "val.txt").write_text(f"{strange} 7\n")
    outcome = cut(plan(source, lists=[source / "train.txt", source / "val.txt"]), workers=1)
    assert outcome.made == [wanted] and outcome.not_made == {strange: "not in annotations.json"}


def test_a_listed_clip_of_a_malformed_event_is_told_why(source):
    (source / "annotations.json").write_text(
        json.dumps({FIRST: {"E_000000_000001": {"timestamps": 3, "segments": {}}}})
    )
    (source / "train.txt").write_text(f"{CLIP} 4\n")
    reasons = plan(source, lists=[source / "train.txt"]).not_made
    assert reasons[CLIP].startswith("expected timestamps as")


def test_a_broken_video_loses_its_own_clips_only(source):
    (source / "videos" / f"{FIRST}.mp4").write_text("no video")
    outcome = cut(plan(source), workers=1)
    assert len(outcome.made) == 1
    assert outcome.not_made[CLIP].startswith(f"video {FIRST}.mp4 cannot be read on (Invalid data")


def test_mistaken_arguments_are_told(source):
    with pytest.raises(InputError, match=r"no folder of videos .*nowhere: give the one that holds"):
        plan_cuts(source / "nowhere", source / "annotations.json", source / "gym")
    (source / "train.txt").write_text("no label\n")
    with pytest.raises(InputError, match=r"train.txt:1: expected .<clip id> <label>."):
        plan(source, lists=[source / "train.txt"])


def test_a_full_disk_stops_the_work_with_the_remedy(source, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cut_file, "cut_spans", full)
    with pytest.raises(InputError, match="the disk is full; make room and start again"):
        cut(plan(source), workers=1)


def test_progress_counts_clips_by_video(source):
    seen: list[tuple[int, int]] = []
    cut(plan(source), workers=1, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 4), (4, 4)]


def test_an_interrupt_leaves_whole_files_only(tmp_path):
    (tmp_path / "videos").mkdir()
    video = write(tmp_path / "videos" / f"{FIRST}.mp4", numbered(60, height=480, width=640))
    (tmp_path / "videos" / f"{SECOND}.mp4").write_bytes(video.read_bytes())
    many = {f"A_{number:04d}_0002": [[number / 1000, 2]] for number in range(40)}
    (tmp_path / "annotations.json").write_text(
        json.dumps({name: {"E_000000_000002": event(0, **many)} for name in (FIRST, SECOND)})
    )
    script = tmp_path / "script.py"
    script.write_text(
        "import signal, sys; from pathlib import Path; from taghead.data.cut import cut, plan_cuts\n"
        "root = Path(sys.argv[1])\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it\n"
        "    cut(plan_cuts(root / 'videos', root / 'annotations.json', root / 'gym'), workers=2)\n"
    )
    clips = tmp_path / "gym" / "clips"
    process = subprocess.Popen([sys.executable, script, tmp_path], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (clips.is_dir() and any(clips.iterdir())):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == -signal.SIGINT or "KeyboardInterrupt" in stderr
    there = [path.name for path in clips.iterdir()]
    assert len(there) < 80 and not [name for name in there if name.startswith(".")]
    assert all(len(sample_frames(clips / name, 2, short_side=8)) == 2 for name in there)
