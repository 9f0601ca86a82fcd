"""The command line, as a user types it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from taghead import __main__ as command
from taghead.config import evolve
from taghead.data.clips import read_clips
from taghead.data.frame_cache import FrameCache
from taghead.machine import Machine
from taghead.recipes import recipe
from taghead.run import run

Call = Callable[..., tuple[int, str, str]]
TINY = evolve(
    recipe("synthetic"),
    {"data.num_frames": 8, "data.short_side": 36, "data.crop_size": 32, "model.pretrained": False, "train.epochs": 1,
     "head.ffn_dim": 32},
)  # fmt: skip

TRAINED = {
    "data.num_frames": 8, "data.short_side": 36, "data.crop_size": 32, "model.pretrained": "false", "train.epochs": 1,
    "model.head": "linear",
}  # fmt: skip


@pytest.fixture
def taghead(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command; gives status, output, errors."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["taghead", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            command.main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    return call


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory, tiny_clips: Path) -> Path:
    folder = tmp_path_factory.mktemp("trial")
    run(TINY, seed=0, machine=Machine(data_root=tiny_clips), folder=folder, keep=("weights",))
    return folder


def test_a_linear_head_that_is_to_keep_frame_means_is_done_when_it_is_trained(
    taghead: Call, tiny_clips: Path, tmp_path: Path
) -> None:
    words = [f"--set={key}={value}" for key, value in TRAINED.items()]
    for _ in range(2):
        status, out, err = taghead(
            "train", "--out", tmp_path / "trial", "--data-root", tiny_clips, "--device", "cpu", *words,
            "--keep", "frame_means",
        )  # fmt: skip
        assert status == 0, err
    assert "this trial is done already" in out


@pytest.mark.parametrize("when", ["at its start", "at its end"])
def test_training_removes_what_killed_ones_left_half_written_and_nothing_else(
    taghead: Call, tiny_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    left = [".checkpoint.pt.4711", ".record.json.0123456789012345", ".weights.safetensors.4711"]
    others = [".notes.4711", ".checkpoint.pt.old", "weights.4711", ".history.csv.4711"]
    for name in (*left, *others):
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (0, 0))
    os.utime(tmp_path / others[-1])  # as one that is written to now
    if when == "at its end":
        for name in left:
            os.utime(tmp_path / name)
        monkeypatch.setattr(command, "_show", lambda row: [os.utime(tmp_path / name, (0, 0)) for name in left])
    words = [f"--set={key}={value}" for key, value in TRAINED.items()]
    status, _, err = taghead("train", "--out", tmp_path, "--data-root", tiny_clips, "--device", "cpu", *words)
    assert status == 0, err
    assert {path.name for path in tmp_path.iterdir()} == {"record.json", "history.csv", "predictions.npz", *others}


def test_evaluate_prints_both_scores_and_keeps_the_predictions(
    taghead: Call, trial: Path, tiny_clips: Path, tmp_path: Path
) -> None:
    status, out, _ = taghead("evaluate", "--weights", trial, "--data-root", tiny_clips, "--out", tmp_path / "p")
    assert status == 0
    assert "12 clips of 4 of 4 classes" in out
    assert "Top-1" in out
    assert "MCA" in out
    assert (tmp_path / "p" / "predictions.npz").is_file()


def test_positions_of_other_clips_are_stretched_on_request_only(taghead: Call, trial: Path, tiny_clips: Path) -> None:
    words = ("evaluate", "--weights", trial, "--data-root", tiny_clips, "--num-frames", 16)
    status, _, err = taghead(*words)
    assert status == 2
    assert "positional encodings are of 2 time steps (8 frames), but 16 frames give 4" in err
    assert taghead(*words, "--interpolate-positions")[0] == 0


def test_predict_prints_the_best_classes_of_each_file_and_names_those_it_cannot_read(
    taghead: Call, trial: Path, tiny_clips: Path, tmp_path: Path
) -> None:
    videos = sorted(tiny_clips.glob("video/*/*_017.mp4"))[:2]
    (tmp_path / "no.mp4").write_text("no video")
    status, out, err = taghead("predict", videos[0], tmp_path / "no.mp4", videos[1], "--weights", trial, "--top", 3)
    assert status == 1
    assert [line for line in out.splitlines() if not line.startswith(" ")] == [str(video) for video in videos]
    assert len(out.splitlines()) == 2 + 2 * 3
    assert "no.mp4: no frame can be decoded" in err
    names = tmp_path / "names.txt"
    names.write_text("eins\nzwei\ndrei\nvier\n")
    assert "drei" in taghead("predict", videos[0], "--weights", trial, "--classes", names)[1]


def test_what_a_file_of_weights_is_can_be_asked(taghead: Call, trial: Path, tmp_path: Path) -> None:
    status, out, _ = taghead("weights", "inspect", trial / "weights.safetensors")
    assert status == 0
    assert "r2plus1d_narrow" in out
    torch.save({"state_dict": {"a": torch.zeros(2)}}, tmp_path / "a.pth")
    assert taghead("weights", "convert", tmp_path / "a.pth", "--out", tmp_path / "a.safetensors")[0] == 0
    assert (tmp_path / "a.safetensors").is_file()
    status, _, err = taghead("weights", "convert", tmp_path / "a.pth", "--out", tmp_path / "a.bin")
    assert status == 2
    assert "a.bin: what is written must be a file whose name ends in .safetensors" in err


def test_a_check_of_a_good_data_set_ends_well_and_of_a_broken_one_does_not(
    taghead: Call, tiny_clips: Path, tmp_path: Path
) -> None:
    words = ("datasets", "check", "--dataset", "synthetic", "--data-root")
    status, out, _ = taghead(*words, tiny_clips, "--workers", 1)
    assert status == 0
    assert "no errors" in out
    clips = Path(shutil.copytree(tiny_clips, tmp_path / "clips"))
    lost = sorted(clips.glob("video/*/*_003.mp4"))[0]
    lost.unlink()
    lists = ("--missing-list", tmp_path / "missing.txt", "--json", tmp_path / "check.json")
    status, out, _ = taghead(*words, clips, "--workers", 1, *lists)
    assert status == 1
    assert "1 error" in out
    assert (tmp_path / "missing.txt").read_text() == f"{lost.relative_to(clips)}\n"
    assert json.loads((tmp_path / "check.json").read_text())["exit_status"] == 1
    assert taghead(*words, clips, "--workers", 1, "--missing", "skip")[0] == 0


def test_a_cache_is_filled_once_and_training_finds_its_frames(taghead: Call, tiny_clips: Path, tmp_path: Path) -> None:
    sizes = ("--set", "data.num_frames=8", "--set", "data.short_side=36", "--set", "data.crop_size=32")
    words = ("prepare", "cache", "--data-root", tiny_clips, "--cache", tmp_path / "frames", "--workers", 1, *sizes)
    status, out, _ = taghead(*words, "--split", "val")
    assert status == 0
    assert "4 clips to decode" in out
    assert "4 clips decoded, 0 were there, 0 unreadable" in out
    assert "76 clips decoded, 4 were there" in taghead(*words)[1]
    frames = FrameCache(tmp_path / "frames", num_frames=8, short_side=36)
    assert all(frames.holds(clip) for clip in read_clips("synthetic", tiny_clips).clips)


def test_a_command_whose_reader_has_gone_ends_quietly_and_not_as_if_it_were_done(trial: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    words = [sys.executable, "-u", "-m", "taghead", "weights", "inspect", trial / "weights.safetensors"]
    done = subprocess.run(words, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("evaluate --weights nowhere --data-root .", "nowhere: no such file of weights"),
        ("predict a.mp4 --weights nowhere.pth", "nowhere.pth: no such file of weights"),
        ("weights inspect nowhere.pth", "nowhere.pth: no such file of weights"),
        ("datasets check --dataset gym98 --data-root .", "no data set 'gym98'; did you mean 'gym9"),
        ("datasets check --dataset gym99 --data-root nowhere", "no such data root: nowhere"),
        ("datasets check --dataset gym99 --data-root . --json no/a.json", "no folder no to write a.json to"),
        ("predict a.mp4 --weights nowhere.pth --dataset gym9", "no released model is for 'gym9'; did you mean 'gym9"),
        ("prepare finegym --videos . --annotations a.json --out o", "a.json: cannot be read (No such file"),
        (
            "prepare finegym --videos . --annotations b.json --out o",
            "b.json: describes none of the clips; give",
        ),
        ("prepare finegym --videos nowhere --annotations a.json --out o", "no folder of videos nowhere"),
    ],
)
def test_a_mistake_is_one_line(
    taghead: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.json").write_text('{"trial_id": "x", "data": {}}')
    status, _, err = taghead(*words.split())
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
