import csv
import json
import platform
from collections import defaultdict
from dataclasses import replace
from inspect import unwrap
from pathlib import Path

import av
import numpy as np
import pytest
from scipy.stats import kruskal

from taghead.data import synthetic
from taghead.data.clips import read_clips
from taghead.data.haa500 import split_of
from taghead.data.motions import COARSE, FINE, TIME_ALONE
from taghead.data.synthetic import classes_of, make_dataset, nuisance, render, stream_of, write_video
from taghead.errors import InputError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "tiny", size="tiny", kind="fine", seed=3, workers=2)


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def rows(root: Path) -> list[dict[str, str]]:
    with (root / "clips.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_data_set_has_the_layout_of_haa500(tiny: Path) -> None:
    clips = sorted((tiny / "video").glob("*/*"))
    assert [c.name for c in clips] == [
        f"{n}_{k:03d}.mp4" for n in classes_of(size="tiny", kind="fine") for k in range(20)
    ]
    assert all(clip.parent.name == clip.stem[:-4] for clip in clips)
    assert json.loads((tiny / "synthetic.json").read_text())["synthetic"] is True
    assert "no camera has seen them" in (tiny / "README.md").read_text()


def test_clips_are_h264_of_24_to_80_frames_at_25_a_second(tiny: Path) -> None:
    for row in rows(tiny)[::7]:
        with av.open(str(tiny / "video" / row["class"] / f"{row['clip']}.mp4")) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.format.name) == ("h264", "yuv420p")
            assert stream.average_rate == 25
            assert sum(1 for _ in container.decode(stream)) == int(row["num_frames"])
        assert 24 <= int(row["num_frames"]) <= 80


def test_encoded_clips_look_like_the_rendered_ones(tiny: Path) -> None:
    rendered = render("turn_one_left", 4, seed=3, kind="fine").astype(float)
    decoded = decode(tiny / "video/turn_one_left/turn_one_left_004.mp4")
    assert np.abs(decoded - rendered).mean() < 6


def test_the_table_tells_each_clips_draws_and_its_drift(tiny: Path) -> None:
    table = rows(tiny)
    assert len(table) == 80
    for row in table[::9]:
        name, number = row["class"], int(row["clip"][-3:])
        drawn = nuisance(stream_of(name, number, kind="fine"), number, seed=3, kind="fine")
        assert row["split"] == split_of(number)
        assert float(row["drift_pixels"]) == pytest.approx(np.hypot(drawn.drift_x, drawn.drift_y), abs=1e-3)
        assert float(row["facing_degrees"]) == pytest.approx(drawn.facing_degrees, abs=1e-3)


def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(tiny: Path, tmp_path: Path) -> None:
    for name, number in (("turn_one_left", 0), ("squat_then_raise_arms", 19)):
        write_video(tmp_path / "clip.mp4", render(name, number, seed=3, kind="fine"))
        assert (tmp_path / "clip.mp4").read_bytes() == (tiny / f"video/{name}/{name}_{number:03d}.mp4").read_bytes()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x264 rounds otherwise elsewhere")
def test_every_processor_makes_the_same_clips(tiny_clips: Path) -> None:
    """Those with AVX-512 too, whose code in x264 gives other bytes each time."""
    assert read_clips("synthetic", tiny_clips).fingerprint == "01ffb6286ac02992"


def test_another_seed_gives_other_clips() -> None:
    first, second = (render("hop_once", 0, seed=seed, kind="fine") for seed in (0, 1))
    assert first.shape != second.shape or (first != second).any()


def test_a_finished_data_set_is_left_alone(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny.rglob("*")}
    monkeypatch.setattr(synthetic, "render", None)
    assert make_dataset(tiny, size="tiny", kind="fine", seed=3, workers=1) == tiny
    assert {path: path.stat().st_mtime_ns for path in tiny.rglob("*")} == before


def test_a_killed_run_is_completed_to_the_same_bytes(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy stops at its third clip; the second call makes what is missing."""
    videos = {path.name: path for path in tiny.rglob("*.mp4")}
    made: list[str] = []

    def copy(path: Path, frames: object) -> None:
        if len(made) == 3:
            raise KeyboardInterrupt
        path.write_bytes(videos[path.name].read_bytes())
        made.append(path.name)

    monkeypatch.setattr(synthetic, "render", lambda *_, **__: None)
    monkeypatch.setattr(synthetic, "write_video", copy)
    root = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        make_dataset(root, size="tiny", kind="fine", seed=3, workers=1)
    assert json.loads((root / "synthetic.json").read_text())["finished"] is False
    monkeypatch.setattr(synthetic, "write_video", lambda p, _: p.write_bytes(videos[p.name].read_bytes()))
    make_dataset(root, size="tiny", kind="fine", seed=3, workers=1)
    assert content(root) == content(tiny)


@pytest.mark.parametrize("other", [{"seed": 4}, {"kind": "coarse"}, {"size": "small"}])
def test_another_data_set_in_the_folder_is_refused(tiny: Path, other: dict) -> None:
    wanted = {"size": "tiny", "kind": "fine", "seed": 3} | other
    with pytest.raises(
        InputError, match=r"holds another synthetic data set \(.*; name a new folder, or delete that one"
    ):
        make_dataset(tiny, **wanted)


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="must be empty or hold this synthetic data set"):
        make_dataset(tmp_path, size="tiny", kind="fine")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_unknown_size_is_told_with_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "_about", unwrap(synthetic._about))  # without the types' own check, as users have it
    with pytest.raises(InputError, match="one of tiny, small, medium must be given, but got 'huge'"):
        unwrap(make_dataset)(tmp_path / "new", size="huge", kind="fine")


def test_training_clips_of_one_number_differ_in_nothing_but_the_motion() -> None:
    for number in (n for n in range(40) if split_of(n) == "train"):
        assert len({stream_of(name, number, kind="fine") for name in FINE}) == 1


def test_twins_share_every_draw_and_no_two_groups_share_a_test_scene() -> None:
    for number in (n for n in range(40) if split_of(n) != "train"):
        by_stream = defaultdict(set)
        for name in FINE:
            by_stream[stream_of(name, number, kind="fine")].add(name)
        assert {frozenset(group) for group in by_stream.values()} == {frozenset(group) for group in TIME_ALONE}


def test_no_two_scenes_are_drawn_alike_and_none_is_seen_in_training_and_test() -> None:
    clips = [(name, number) for name in FINE for number in range(40)]
    scenes = defaultdict(set)
    for name, number in clips:
        drawn = nuisance(stream_of(name, number, kind="fine"), number, seed=0, kind="fine")
        scenes[split_of(number)].add(drawn)
    assert {split: len(drawn) for split, drawn in scenes.items()} == {"train": 32, "val": 6 * 2, "test": 6 * 6}
    assert scenes["train"].isdisjoint(scenes["test"] | scenes["val"])
    coarse = {nuisance(stream_of(n, k, kind="coarse"), k, seed=0, kind="coarse") for n in COARSE for k in range(40)}
    assert len(coarse) == len(COARSE) * 40
    assert coarse.isdisjoint(scenes["train"] | scenes["val"] | scenes["test"])


def test_all_streams_draw_from_the_same_distributions() -> None:
    """A rank test over 30 streams of 40: were one of them shifted, as a class that leaks would be, it would show."""
    drawn = [[nuisance(stream, number, seed=0, kind="coarse") for number in range(40)] for stream in range(30)]
    for field in (
        "num_frames",
        "motion_frames",
        "motion_start",
        "facing_degrees",
        "height_pixels",
        "drift_x",
        "place_x",
    ):
        values = np.array([[getattr(n, field) for n in stream] for stream in drawn], dtype=float)
        assert kruskal(*values).pvalue > 1e-3, field
        values[0] += 2 * values.std()
        assert kruskal(*values).pvalue < 1e-3, field


def test_a_clip_begins_and_its_motion_ends_within_it() -> None:
    for number in range(300):
        drawn = nuisance(0, number, seed=1, kind="fine")
        assert 0 <= drawn.motion_start <= drawn.motion_start + drawn.motion_frames <= drawn.num_frames
        assert np.hypot(drawn.drift_x, drawn.drift_y) <= 12


def test_fine_and_coarse_classes_have_no_name_in_common() -> None:
    assert not FINE.keys() & COARSE.keys()
    assert len(FINE) >= 12
    assert set(classes_of(size="tiny", kind="fine")) < set(classes_of(size="small", kind="fine")) == set(FINE)


@pytest.mark.parametrize("group", TIME_ALONE, ids=" / ".join)
def test_twins_show_the_same_frames_in_another_order(group: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without camera drift and idle arm, each frame of the one occurs in the other."""
    plain = replace(
        nuisance(0, 5, seed=0, kind="fine"), drift_x=0.0, drift_y=0.0, idle=(0, 0.0, 0.0, 0.0),
        num_frames=81, motion_start=8.0, motion_frames=64.0,
    )  # fmt: skip
    # A half turn ends where it has not begun: its twin starts there.
    turned = float(group[0].startswith("turn_one_and_half") or group[0].startswith("turn_half"))
    facing = iter((plain, replace(plain, facing_degrees=plain.facing_degrees + 180 * turned)))
    monkeypatch.setattr(synthetic, "nuisance", lambda *_, **__: next(facing))
    first, second = (render(name, 5, seed=0, kind="fine")[8:73].astype(int) for name in group)
    apart = np.abs(first[:, None] - second[None]).max(axis=(2, 3, 4))
    assert apart[::2].min(axis=1).max() <= 1
    assert apart[:, ::2].min(axis=0).max() <= 1
    assert np.diagonal(apart).max() > 60
