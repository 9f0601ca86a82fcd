"""Trained models on splits and on single files."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from taghead import infer
from taghead.config import evolve
from taghead.data.batches import Batch
from taghead.errors import InputError
from taghead.evaluate import Predictions, predict
from taghead.infer import classify, evaluate_split, read_class_names, summary
from taghead.machine import Machine
from taghead.metrics import mca_interval, wilson
from taghead.model import Trained, VideoModel, load_trained
from taghead.recipes import recipe
from taghead.record import read_record
from taghead.run import run

TINY = evolve(
    recipe("synthetic"),
    {"data.num_frames": 8, "data.short_side": 36, "data.crop_size": 32, "model.pretrained": False, "train.epochs": 1,
     "head.ffn_dim": 32},
)  # fmt: skip


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory, tiny_clips: Path) -> Path:
    folder = tmp_path_factory.mktemp("trial")
    run(TINY, seed=0, machine=Machine(data_root=tiny_clips), folder=folder, keep=("weights",))
    return folder


@pytest.fixture(scope="module")
def trained(trial: Path) -> Trained:
    return load_trained(trial)


@pytest.fixture
def clips(tmp_path: Path, tiny_clips: Path) -> Path:
    return Path(shutil.copytree(tiny_clips, tmp_path / "clips"))


def stored(folder: Path) -> dict[str, Any]:
    with np.load(folder / "predictions.npz", allow_pickle=False) as file:
        return dict(file)


def test_a_kept_model_gives_the_logits_that_its_trial_gave(trial: Path, trained: Trained, tiny_clips: Path) -> None:
    found = evaluate_split(trained, machine=Machine(data_root=tiny_clips))
    np.testing.assert_array_equal(found.predictions.logits, stored(trial)["logits"])
    assert found.predictions.metrics() == read_record(trial).metrics


@pytest.mark.parametrize("batch_size", [1, 5, 12])
def test_the_scores_do_not_depend_on_the_size_of_a_batch(
    trial: Path, trained: Trained, tiny_clips: Path, batch_size: int
) -> None:
    found = evaluate_split(trained, machine=Machine(data_root=tiny_clips), batch_size=batch_size)
    np.testing.assert_allclose(found.predictions.logits, stored(trial)["logits"], atol=1e-4)


def test_every_split_can_be_evaluated(trained: Trained, tiny_clips: Path) -> None:
    sizes = {
        split: len(evaluate_split(trained, machine=Machine(data_root=tiny_clips), split=split).predictions.ids)
        for split in ("train", "val", "test")
    }
    assert sizes == {"train": 64, "val": 4, "test": 12}


def test_the_summary_names_scores_intervals_and_the_clips_they_are_of(trained: Trained, clips: Path) -> None:
    paths = sorted(clips.glob("video/*/*_01[789].mp4"))
    paths[0].write_bytes(paths[0].read_bytes()[:100])
    paths[1].unlink()
    found = evaluate_split(trained, machine=Machine(data_root=clips, missing="skip"))
    logits, labels = found.predictions.logits, found.predictions.labels
    right = int((np.nan_to_num(logits, nan=-1).argmax(1) == labels)[~np.isnan(logits).any(1)].sum())
    low, high = wilson(right, 11)
    lines = summary(found).splitlines()
    assert lines[0] == (
        "synthetic, test: 11 clips of 4 of 4 classes; 1 of 12 listed are not there and were left out; "
        "1 do not decode and count as wrong"
    )
    assert lines[1] == f"Top-1 {100 * right / 11:.1f} % (95 % interval {100 * low:.1f} % to {100 * high:.1f} %)"
    low, high = mca_interval(logits, labels)
    assert f"(95 % interval {100 * low:.1f} % to {100 * high:.1f} %), the mean over the 4 classes" in lines[2]
    assert lines[3].startswith(f"does not decode: {paths[0].stem}: ")
    assert lines[4] == "SYNTHETIC DATA: generated clips."


def test_other_classes_are_refused(trained: Trained, clips: Path) -> None:
    first = min((clips / "video").iterdir())
    for path in first.iterdir():
        path.rename(path.with_name(path.name.replace(first.name, "zumba")))
    first.rename(first.with_name("zumba"))
    with pytest.raises(InputError, match=r"class 0 is '.*' to the model, but '.*' in synthetic under"):
        evaluate_split(trained, machine=Machine(data_root=clips))
    shutil.rmtree(clips / "video" / "zumba")
    with pytest.raises(InputError, match=r"the model tells 4 classes apart, but synthetic under .* has 3"):
        evaluate_split(trained, machine=Machine(data_root=clips))


def test_a_split_of_which_nothing_decodes_has_no_score(trained: Trained, clips: Path) -> None:
    for path in clips.glob("video/*/*_016.mp4"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="none of the 4 val clips can be used"):
        evaluate_split(trained, machine=Machine(data_root=clips), split="val")


def test_one_file_gets_the_classes_that_evaluation_gives_it(trial: Path, trained: Trained, tiny_clips: Path) -> None:
    known = stored(trial)
    name = str(known["ids"][3])
    (path,) = tiny_clips.glob(f"video/*/{name}.mp4")
    best = classify(trained, path, device=torch.device("cpu"), top=9)
    chances = torch.from_numpy(known["logits"][3]).softmax(0)
    assert [label for label, _ in best] == chances.argsort(descending=True).tolist()
    assert [chance for _, chance in best] == pytest.approx(sorted(chances.tolist(), reverse=True), abs=1e-5)


@pytest.mark.parametrize("head", ["tag", "linear"])
def test_one_file_is_scored_in_the_precision_that_evaluation_has(tmp_path: Path, tiny_clips: Path, head: str) -> None:
    config = evolve(TINY, {"train.precision": "bfloat16", "model.head": head})
    run(config, seed=0, machine=Machine(data_root=tiny_clips), folder=tmp_path, keep=("weights",))
    trained = load_trained(tmp_path)
    found = evaluate_split(trained, machine=Machine(data_root=tiny_clips), batch_size=1)
    clip = found.clips.split("test")[0]
    chances = torch.from_numpy(found.predictions.logits[found.predictions.ids.index(clip.id)]).softmax(0)
    best = classify(trained, clip.path, device=torch.device("cpu"), top=9)
    assert dict(best) == dict(enumerate(chances.tolist()))


@pytest.mark.parametrize(("head", "usual"), [("tag", [8, 4]), ("linear", [12])])
def test_stored_tokens_come_in_batches_of_the_size_that_is_asked_for(
    tmp_path: Path, tiny_clips: Path, monkeypatch: pytest.MonkeyPatch, head: str, usual: list[int]
) -> None:
    changes = {"model.freeze_backbone": True, "train.token_views": 0, "train.batch_size": 8, "model.head": head}
    machine, sizes = Machine(data_root=tiny_clips), []
    run(evolve(TINY, changes), seed=0, machine=machine, folder=tmp_path, keep=("weights",))

    def watched(model: VideoModel, batches: Iterable[Batch], **options: Any) -> Predictions:
        seen = list(batches)
        sizes.append([len(one.ids) for one in seen])
        return predict(model, seen, **options)

    monkeypatch.setattr(infer, "predict", watched)
    for batch_size in (5, None):
        found = evaluate_split(load_trained(tmp_path), machine=machine, batch_size=batch_size)
        np.testing.assert_allclose(found.predictions.logits, stored(tmp_path)["logits"], atol=1e-4)
    assert sizes == [[5, 5, 2], usual]


def test_a_file_that_is_no_video_is_named(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("no video")
    with pytest.raises(InputError, match=r"notes.mp4: no frame can be decoded"):
        classify(trained, tmp_path / "notes.mp4", device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("jump, high\nrun (fast)\n", ("jump, high", "run (fast)")),
        ("\ufeffa\r\nb\r\n\r\n", ("a", "b")),
    ],
)
def test_names_of_classes_are_read_one_a_line(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    (tmp_path / "names.txt").write_bytes(text.encode())
    assert read_class_names(tmp_path / "names.txt", num_classes=2) == names


def test_finegyms_categories_are_names_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "gym99_categories.txt"
    path.write_text("Clabel:   1; set:  1; Glabel:   3; (VT) b, c\nClabel:   0; set:  1; Glabel:   1; (VT) a\n")
    assert read_class_names(path, num_classes=2) == ("(VT) a", "(VT) b, c")
    with pytest.raises(InputError, match="each label of 0 to 0 must occur once, but got 1"):
        read_class_names(path, num_classes=1)


def test_another_number_of_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match=r"names.txt: expected 3 names, one a line, got 2"):
        read_class_names(tmp_path / "names.txt", num_classes=3)
