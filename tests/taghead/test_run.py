import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from taghead.config import Config, evolve, flatten
from taghead.data.clips import read_clips
from taghead.errors import InputError
from taghead.evaluate import Predictions
from taghead.fit import learning_rate
from taghead.identity import identify
from taghead.machine import Machine, find_device
from taghead.metrics import mca, top1
from taghead.recipes import recipe
from taghead.record import Record, read_record, trial_id, write_record
from taghead.run import ROUNDING, complete, run

SIZES = (
    "data.num_frames", "data.short_side", "data.crop_size", "model.backbone", "model.pretrained", "train.epochs",
    "train.batch_size",
)  # fmt: skip
TINY = evolve(
    recipe("synthetic"),
    {"data.num_frames": 8, "data.short_side": 36, "data.crop_size": 32, "model.pretrained": False,
     "train.epochs": 3, "train.batch_size": 16, "head.ffn_dim": 32, "head.dropout": 0.1},
)  # fmt: skip


def trial(folder: Path, clips: Path, config: Config = TINY, **options: Any) -> Record:
    return run(config, seed=options.pop("seed", 0), machine=Machine(data_root=clips), folder=folder, **options)


def predictions(folder: Path) -> dict[str, Any]:
    with np.load(folder / "predictions.npz", allow_pickle=False) as file:
        return dict(file)


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_clips: Path) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    trial(folder, tiny_clips, keep=("weights", "embeddings", "frame_means"))
    return folder


def test_a_trial_leaves_its_record_and_what_was_to_be_kept(undisturbed: Path, tiny_clips: Path) -> None:
    assert {path.name for path in undisturbed.iterdir()} == {
        "record.json", "history.csv", "predictions.npz", "weights.safetensors", "embeddings.npz", "frame_means.npz",
    }  # fmt: skip
    record = read_record(undisturbed)
    assert (record.status, record.epoch, record.selection) == ("complete", 3, "last")
    assert (record.data.num_train, record.data.num_val, record.data.num_test) == (64, 4, 12)
    assert record.data.synthetic
    assert record.data.classes == read_clips("synthetic", tiny_clips).classes
    assert record.machine.threads == 1


def test_the_scores_are_those_of_the_predictions(undisturbed: Path) -> None:
    kept, record = predictions(undisturbed), read_record(undisturbed)
    assert record.metrics["top1"] == top1(kept["logits"], kept["labels"])
    assert record.metrics["mca"] == mca(kept["logits"], kept["labels"])
    assert list(kept["ids"]) == sorted(kept["ids"])


def test_the_record_carries_the_id_that_its_parts_give(undisturbed: Path, tiny_clips: Path) -> None:
    who = identify(TINY, machine=Machine(data_root=tiny_clips))
    assert read_record(undisturbed).trial_id == trial_id(TINY, seed=0, data=who.data, weights=who.weights)


def test_the_history_has_one_row_an_epoch(undisturbed: Path) -> None:
    rows = history(undisturbed)
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert [float(row["lr"]) for row in rows] == [learning_rate(TINY.train, epoch) for epoch in range(3)]


def test_the_cosine_starts_at_the_rate_and_would_end_at_nothing() -> None:
    assert learning_rate(TINY.train, 0) == TINY.train.lr
    assert learning_rate(TINY.train, TINY.train.epochs) == pytest.approx(0, abs=1e-12)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([parameter], lr=TINY.train.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, TINY.train.epochs)
    for epoch in range(TINY.train.epochs):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(learning_rate(TINY.train, epoch))
        optimizer.step()
        schedule.step()


KILLED = """
import os, signal, sys
from pathlib import Path
from taghead.config import load
from taghead.machine import Machine
from taghead.run import run
def kill(row):
    if row["epoch"] == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
run(load(sys.argv[1]), seed=0, machine=Machine(data_root=Path(sys.argv[2])), folder=Path(sys.argv[3]), on_epoch=kill)
"""


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_killed_run_goes_on_to_the_bits_of_an_undisturbed_one(
    epoch: int, tmp_path: Path, tiny_clips: Path, undisturbed: Path
) -> None:
    words = [sys.executable, "-c", KILLED, TINY.model_dump_json(), tiny_clips, tmp_path, epoch]
    killed = subprocess.run([str(word) for word in words], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "record.json").exists()
    epochs: list[int] = []
    trial(tmp_path, tiny_clips, on_epoch=lambda row: epochs.append(row["epoch"]))
    assert epochs == list(range(epoch + 1, 4)), "finished epochs are not run again"
    assert np.array_equal(predictions(tmp_path)["logits"], predictions(undisturbed)["logits"])
    assert (tmp_path / "history.csv").read_text() == (undisturbed / "history.csv").read_text()
    assert read_record(tmp_path).metrics == read_record(undisturbed).metrics
    assert not (tmp_path / "checkpoint.pt").exists()


def stop_after(epoch: int) -> Any:
    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    return stop


def test_a_damaged_checkpoint_is_not_believed(tmp_path: Path, tiny_clips: Path, undisturbed: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trial(tmp_path, tiny_clips, on_epoch=stop_after(1))
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    trial(tmp_path, tiny_clips)
    assert np.array_equal(predictions(tmp_path)["logits"], predictions(undisturbed)["logits"])


def test_another_trial_s_folder_is_refused(tmp_path: Path, tiny_clips: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trial(tmp_path, tiny_clips, seed=1, on_epoch=stop_after(2))
    with pytest.raises(InputError, match="holds the beginning of another trial"):
        trial(tmp_path, tiny_clips)


def test_a_trial_that_is_not_the_planned_one_is_refused_before_it_trains(tmp_path: Path, tiny_clips: Path) -> None:
    with pytest.raises(InputError, match="have changed since the study was planned"):
        trial(tmp_path, tiny_clips, expect="0" * 16, on_epoch=stop_after(1))
    assert list(tmp_path.iterdir()) == []


def test_another_seed_gives_other_bits(tmp_path: Path, tiny_clips: Path, undisturbed: Path) -> None:
    trial(tmp_path, tiny_clips, seed=1)
    assert not np.array_equal(predictions(tmp_path)["logits"], predictions(undisturbed)["logits"])


def test_a_loss_that_is_no_number_ends_the_trial_as_diverged(tmp_path: Path, tiny_clips: Path) -> None:
    record = trial(tmp_path, tiny_clips, evolve(TINY, {"train.lr": 1e30}))
    assert record.status == "diverged"
    assert record.epoch == 1
    assert record.error is not None
    assert "epoch 1" in record.error
    assert record.metrics == {}
    assert read_record(tmp_path) == record


def test_a_trial_whose_last_step_diverges_is_not_called_complete(tmp_path: Path, tiny_clips: Path) -> None:
    config = evolve(TINY, {"train.lr": 1e30, "train.epochs": 1, "train.batch_size": 64})
    record = trial(tmp_path, tiny_clips, config)
    assert (record.status, record.epoch, record.metrics) == ("diverged", 1, {})
    assert record.error == "the logits of test clips are no numbers in epoch 1"


def test_intra_frame_edges_leave_training_under_a_mean_readout_as_it_is(tmp_path: Path, tiny_clips: Path) -> None:
    one_epoch = evolve(TINY, {"train.epochs": 1, "data.num_frames": 16})
    logits = {}
    for edges in ((), ("intra_frame",), ("time_aligned",)):
        folder = tmp_path / "-".join(("edges", *edges))
        trial(folder, tiny_clips, evolve(one_epoch, {"head.edges": edges}))
        logits[edges] = predictions(folder)["logits"]
    assert np.array_equal(logits[()], logits["intra_frame",])
    assert not np.array_equal(logits[()], logits["time_aligned",])


def test_a_frozen_backbone_comes_out_as_it_went_in(tmp_path: Path, tiny_clips: Path) -> None:
    from safetensors.torch import load_file

    frozen = evolve(TINY, {"model.freeze_backbone": True, "model.head": "linear", "train.epochs": 1})
    states = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        trial(folder, tiny_clips, evolve(frozen, {"train.lr": 0.01 * number}), keep=("weights",))
        states.append(load_file(folder / "weights.safetensors"))
    backbone = [name for name in states[0] if name.startswith("backbone.")]
    assert any("running_mean" in name for name in backbone)
    assert all(torch.equal(states[0][name], states[1][name]) for name in backbone)
    assert not torch.equal(states[0]["head.classifier.weight"], states[1]["head.classifier.weight"])


def test_what_a_study_asks_for_later_comes_from_the_kept_weights(
    tmp_path: Path, tiny_clips: Path, undisturbed: Path
) -> None:
    folder = tmp_path / "trial"
    shutil.copytree(undisturbed, folder)
    for name in ("embeddings", "frame_means"):
        (folder / f"{name}.npz").unlink()
    complete(folder, machine=Machine(data_root=tiny_clips), keep=("embeddings", "frame_means"))
    for name in ("embeddings", "frame_means"):
        with np.load(folder / f"{name}.npz") as new, np.load(undisturbed / f"{name}.npz") as old:
            assert np.array_equal(new[name], old[name])


def test_completing_a_trial_writes_what_it_lacks_and_nothing_else(
    tmp_path: Path, tiny_clips: Path, undisturbed: Path
) -> None:
    folder = tmp_path / "trial"
    shutil.copytree(undisturbed, folder)
    (folder / "frame_means.npz").unlink()
    before = {path.name: path.stat() for path in folder.iterdir()}
    complete(folder, machine=Machine(data_root=tiny_clips), keep=("embeddings", "frame_means"))
    after = {path.name: path.stat() for path in folder.iterdir()}
    assert set(after) - set(before) == {"frame_means.npz"}
    assert all(after[name].st_ino == stat.st_ino for name, stat in before.items())
    (folder / "predictions.npz").write_bytes(b"damaged")
    (folder / "embeddings.npz").unlink()
    complete(folder, machine=Machine(data_root=tiny_clips), keep=("embeddings",))
    assert np.array_equal(predictions(folder)["logits"], predictions(undisturbed)["logits"])


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def replaced(path: Path) -> None:
    """Puts another clip in a clip's place, filled up to its size."""
    others = path.parents[1].glob("*/*_01[789].mp4")
    other = min((one.read_bytes() for one in others if one.parent != path.parent), key=len)
    path.write_bytes(other.ljust(path.stat().st_size, b"\0"))


@pytest.mark.parametrize(
    ("spoil", "pattern", "message"),
    [
        (zeroed, "video/*/*_01[789].mp4", "none of the 12 test clips can be used; the first: "),
        (zeroed, "video/turn_one_left/*_018.mp4", "clip turn_one_left_018 gets no score now and got one when the tria"),
        (replaced, "video/turn_one_left/*_018.mp4", "to 0.01 of the largest .* clip turn_one_left_018 are .* off; put"),
    ],
    ids=["none decodes", "one does not decode", "one is another"],
)
def test_clips_that_are_not_those_of_the_trial_add_nothing_to_it(
    tmp_path: Path, tiny_clips: Path, undisturbed: Path, spoil: Any, pattern: str, message: str
) -> None:
    folder, root = tmp_path / "trial", tmp_path / "clips"
    shutil.copytree(undisturbed, folder)
    shutil.copytree(tiny_clips, root)
    (folder / "embeddings.npz").unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in root.glob(pattern):
        spoil(path)
    with pytest.raises(InputError, match=message):
        complete(folder, machine=Machine(data_root=root), keep=("embeddings",))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("spoil", [Path.unlink, zeroed], ids=["lost", "damaged"])
def test_where_predictions_are_lost_new_ones_must_give_the_scores_of_the_record(
    tmp_path: Path, tiny_clips: Path, undisturbed: Path, spoil: Any
) -> None:
    folder, root = tmp_path / "trial", tmp_path / "clips"
    shutil.copytree(undisturbed, folder)
    shutil.copytree(tiny_clips, root)
    spoil(folder / "predictions.npz")
    (folder / "embeddings.npz").unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    paths = sorted(root.glob("video/*/*_01[789].mp4"), key=lambda path: path.stat().st_size)
    for path in paths[1:]:
        path.write_bytes(paths[0].read_bytes().ljust(path.stat().st_size, b"\0"))
    message = r"its record says (top1|mca|loss) [\d.]+, but its clips give [\d.]+ to [\d.]+ now; put back the clips"
    with pytest.raises(InputError, match=message):
        complete(folder, machine=Machine(data_root=root), keep=("embeddings",))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    complete(folder, machine=Machine(data_root=tiny_clips), keep=("embeddings",))
    assert np.array_equal(predictions(folder)["logits"], predictions(undisturbed)["logits"])


@pytest.mark.parametrize("change", [-1, 1], ids=["one right clip fewer", "one more"])
def test_scores_may_differ_by_the_clips_that_rounding_can_flip(
    tmp_path: Path, tiny_clips: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch, change: int
) -> None:
    folder = tmp_path / "trial"
    shutil.copytree(undisturbed, folder)
    kept, record = predictions(folder), read_record(folder)
    assert 0 < record.metrics["top1"] < 1
    write_record(record.model_copy(update={"metrics": {"top1": record.metrics["top1"] + change / 12}}), folder)
    own = kept["logits"][np.arange(12), kept["labels"]]
    others = kept["logits"].copy()
    others[np.arange(12), kept["labels"]] = -np.inf
    lead = -change * (own - others.max(axis=1))  # of a clip that must flip
    needed = float(lead[lead > 0].min() / 2 / np.abs(kept["logits"]).max())  # both logits move
    for within, fails in ((0.99 * needed, True), (1.01 * needed, False)):
        for name in ("predictions.npz", "embeddings.npz"):
            (folder / name).unlink(missing_ok=True)
        monkeypatch.setitem(ROUNDING, "float32", within)
        with pytest.raises(InputError, match="its record says top1") if fails else nullcontext():
            complete(folder, machine=Machine(data_root=tiny_clips), keep=("embeddings",))
        assert (folder / "predictions.npz").exists() is not fails


def test_nothing_can_be_added_to_a_trial_that_kept_no_weights(
    tmp_path: Path, tiny_clips: Path, undisturbed: Path
) -> None:
    folder = tmp_path / "trial"
    shutil.copytree(undisturbed, folder)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(InputError, match="kept no weights"):
        complete(folder, machine=Machine(data_root=tiny_clips), keep=("embeddings",))


def test_a_class_name_that_is_no_text_stands_in_the_record_all_the_same(tmp_path: Path, tiny_clips: Path) -> None:
    root = tmp_path / "clips"
    shutil.copytree(tiny_clips, root)
    odd = os.fsdecode(b"turn_\xff")
    for path in (root / "video" / "turn_one_left").iterdir():
        path.rename(path.with_name(f"{odd}_{path.stem[-3:]}.mp4"))
    (root / "video" / "turn_one_left").rename(root / "video" / odd)
    trial(tmp_path / "trial", root, evolve(TINY, {"train.epochs": 1}))
    assert "turn_?" in read_record(tmp_path / "trial").data.classes


@pytest.fixture
def with_broken_clips(tmp_path: Path, tiny_clips: Path) -> Path:
    """A copy of the clips in which one of the training and one of the test split does not decode."""
    root = tmp_path / "broken"
    shutil.copytree(tiny_clips, root)
    for number in ("003", "018"):
        (path,) = (root / "video/turn_one_left").glob(f"*_{number}.mp4")
        path.write_bytes(path.read_bytes()[:100])
    return root


def test_clips_that_do_not_decode_are_named_and_counted_wrong(tmp_path: Path, with_broken_clips: Path) -> None:
    record = trial(tmp_path / "trial", with_broken_clips, evolve(TINY, {"train.epochs": 1}))
    assert sorted(record.data.unreadable) == ["turn_one_left_003", "turn_one_left_018"]
    kept = predictions(tmp_path / "trial")
    (row,) = (index for index, name in enumerate(kept["ids"]) if name == "turn_one_left_018")
    assert np.isnan(kept["logits"][row]).all()
    assert record.data.num_test == 12 == len(kept["ids"])
    assert record.metrics["top1"] <= 11 / 12


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_of_which_no_clip_decodes_is_an_error_and_no_score(
    tmp_path: Path, tiny_clips: Path, split: str
) -> None:
    root = tmp_path / "broken"
    shutil.copytree(tiny_clips, root)
    for clip in read_clips("synthetic", root).split(split):
        clip.path.write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(InputError, match=f"none of the .* {split} clips can be used; the first: "):
        trial(tmp_path / "trial", root, evolve(TINY, {"train.epochs": 1}))
    assert not (tmp_path / "trial" / "record.json").exists()


def test_bfloat16_is_another_experiment_that_trains(tmp_path: Path, tiny_clips: Path, undisturbed: Path) -> None:
    record = trial(tmp_path, tiny_clips, evolve(TINY, {"train.precision": "bfloat16"}))
    assert record.status == "complete"
    assert record.trial_id != read_record(undisturbed).trial_id
    assert not np.array_equal(predictions(tmp_path)["logits"], predictions(undisturbed)["logits"])


def test_the_released_recipe_trains(tmp_path: Path, tiny_clips: Path) -> None:
    small = {key: value for key, value in flatten(TINY).items() if key in SIZES}
    released = evolve(recipe("haa500", name="released"), {**small, "data.dataset": "synthetic"})
    record = trial(tmp_path, tiny_clips, released)
    assert record.status == "complete"
    assert (record.selection, record.config.head.norm_first) == ("best_val", False)


def test_best_val_evaluates_the_epoch_that_validation_likes_best(tmp_path: Path, tiny_clips: Path) -> None:
    record = trial(tmp_path, tiny_clips, evolve(TINY, {"train.selection": "best_val"}))
    scores = [float(row["val_top1"]) for row in history(tmp_path)]
    assert record.epoch == scores.index(max(scores)) + 1
    assert record.selection == "best_val"


def test_best_val_needs_a_validation_split_which_may_be_held_out(tmp_path: Path, tiny_clips: Path) -> None:
    root = tmp_path / "clips"
    shutil.copytree(tiny_clips, root)
    for path in root.glob("video/*/*_016.mp4"):
        path.unlink()
    config = evolve(TINY, {"train.selection": "best_val"})
    machine = Machine(data_root=root, missing="skip")
    with pytest.raises(InputError, match=r"needs a validation split .*, or hold out .* by --set data.holdout=0.1"):
        identify(config, machine=machine)
    held_out = evolve(config, {"data.holdout": 0.25})
    assert identify(held_out, machine=machine).data == identify(TINY, machine=machine).data, "of the lists"
    record = run(held_out, seed=0, machine=machine, folder=tmp_path / "trial")
    assert (record.data.num_train, record.data.num_val, record.data.num_test) == (48, 16, 12)
    scores = [float(row["val_top1"]) for row in history(tmp_path / "trial")]
    assert record.epoch == scores.index(max(scores)) + 1
    whole = run(TINY, seed=0, machine=machine, folder=tmp_path / "whole")
    assert (whole.data.num_train, whole.data.num_val) == (64, 0)
    assert whole.trial_id != record.trial_id


def test_holding_out_is_refused_before_training_where_there_is_a_validation_split(tiny_clips: Path) -> None:
    with pytest.raises(InputError, match=r"synthetic has one of its own \(4 clips\)"):
        identify(evolve(TINY, {"data.holdout": 0.1}), machine=Machine(data_root=tiny_clips))


def test_a_pretrained_backbone_without_weights_says_where_they_come_from(tiny_clips: Path) -> None:
    config = evolve(TINY, {"model.backbone": "r2plus1d_34", "model.pretrained": True})
    with pytest.raises(InputError, match=r"--weights FILE .*or start from nothing by --set model.pretrained=false"):
        identify(config, machine=Machine(data_root=tiny_clips))


def test_a_folder_without_the_weights_names_their_files(tiny_clips: Path, tmp_path: Path) -> None:
    config = evolve(TINY, {"model.backbone": "r2plus1d_34", "model.pretrained": True})
    with pytest.raises(InputError, match=r"no weights of r2plus1d_34; expected one of r2plus1d_34_clip32"):
        identify(config, machine=Machine(data_root=tiny_clips, weights=tmp_path))


@pytest.mark.parametrize("name", ["cudda", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="--device"):
        find_device(name)


def test_a_clip_without_a_score_is_wrong_in_every_metric() -> None:
    nan = np.full((1, 2), np.nan, np.float32)
    said = Predictions(
        ids=("a", "b"), labels=np.array([0, 0]), logits=np.concatenate([nan, np.array([[1, 0]], np.float32)]),
        embeddings=np.zeros((2, 1), np.float32), num_read=1, finite=True,
    )  # fmt: skip
    assert said.metrics()["top1"] == 0.5


def command(*words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_COLOR": "1"}
    full = [sys.executable, "-m", "taghead", *(str(word) for word in words)]
    return subprocess.run(full, capture_output=True, text=True, check=False, env=environment)


def test_the_command_writes_the_record_of_run(tmp_path: Path, tiny_clips: Path, undisturbed: Path) -> None:
    changes = [f"--set={key}={value}" for key, value in {
        "data.num_frames": 8, "data.short_side": 36, "data.crop_size": 32, "model.pretrained": "false",
        "train.epochs": 3, "train.batch_size": 16, "train.lr": TINY.train.lr, "head.ffn_dim": 32, "head.dropout": 0.1,
    }.items()]  # fmt: skip
    words = ("train", "--out", tmp_path / "trial", "--data-root", tiny_clips, "--device", "cpu", *changes)
    first = command(*words)
    assert first.returncode == 0, first.stderr
    one, other = (json.loads((folder / "record.json").read_text()) for folder in (tmp_path / "trial", undisturbed))
    assert {key for key in one if one[key] != other[key]} <= {"seconds", "commit"}
    assert "is done already" in command(*words).stdout
    other_seed = command(*words, "--seed", 1)
    assert other_seed.returncode == 2
    assert "holds another trial" in other_seed.stderr
    added = command(*words, "--keep", "embeddings")
    assert added.returncode == 2
    assert "kept no weights" in added.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "head.alhpa=0.2"), "unknown key 'head.alhpa'; did you mean 'head.alpha'?"),
        (("--dataset", "gym98"), "no data set 'gym98'; did you mean 'gym99'?"),
        (("--data-root", "nowhere"), "no such data root: nowhere"),
        (("--keep", "wieghts"), "did you mean 'weights'?"),
        (("--device", "cuda:77"), "--device cuda:77: not to be had here"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_status_2(
    words: tuple[str, ...], message: str, tmp_path: Path, tiny_clips: Path
) -> None:
    done = command("train", "--out", tmp_path / "trial", "--data-root", tiny_clips, "--device", "cpu", *words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
