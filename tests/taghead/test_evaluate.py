import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from taghead.data.batches import eval_batches
from taghead.data.clips import Clip
from taghead.data.frame_cache import FrameCache
from taghead.evaluate import Predictions, predict
from taghead.head import LinearHead, TAGHead
from taghead.model import VideoModel

NUM_CLASSES = 3
COLOURS = np.eye(NUM_CLASSES, dtype=np.uint8) * 255  # class k is a clip of pure red, green or blue
NO_VIDEO = "no video\n" * 20


class Painted(FrameCache):
    """Gives a clip the colour that its id ends with, unless there is a file to decode."""

    def __init__(self) -> None:
        super().__init__(None, num_frames=4, short_side=8)

    def get(self, clip: Clip) -> np.ndarray:
        if clip.path.exists():
            return super().get(clip)
        return np.broadcast_to(COLOURS[int(clip.id[-1])], (4, 8, 10, 3)).copy()


class Colours(nn.Module):
    """A backbone whose channels are red, green and blue, on a grid of 2 x 1 x 1."""

    channels = NUM_CLASSES

    def forward(self, clip: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool3d(clip, (2, 1, 1))


def reader() -> VideoModel:
    """A model that names the colour of a clip."""
    head = LinearHead(NUM_CLASSES, NUM_CLASSES)
    with torch.no_grad():
        head.classifier.weight.copy_(torch.eye(NUM_CLASSES))
        head.classifier.bias.zero_()
    return VideoModel(Colours(), head)


def clips_of(folder: Path, looks: Sequence[int], labels: Sequence[int]) -> list[Clip]:
    """Clips that look like one class and are labelled as another, or the same."""
    return [
        Clip(f"clip {number} {look}", folder / f"{number}.mp4", label, "test")
        for number, (look, label) in enumerate(zip(looks, labels, strict=True))
    ]


def evaluate(clips: Sequence[Clip], model: VideoModel | None = None, *, batch_size: int = 4, **kw: Any) -> Predictions:
    batches = eval_batches(
        clips, cache=Painted(), batch_size=batch_size, crop_size=8, mean=(0.45,) * 3, std=(0.225,) * 3
    )
    return predict(model or reader(), batches, num_classes=NUM_CLASSES, device=torch.device("cpu"), **kw)


LOOKS = [0, 1, 2, 0, 1, 2, 0, 1, 2]
ONE_WRONG = [0, 1, 2, 0, 1, 2, 0, 1, 0]


@pytest.mark.parametrize("batch_size", range(1, 11))
def test_eight_right_of_nine_are_eight_ninths_at_any_batch_size(tmp_path, batch_size):
    metrics = evaluate(clips_of(tmp_path, LOOKS, ONE_WRONG), batch_size=batch_size).metrics()
    assert metrics["top1"] == 8 / 9
    assert metrics["mca"] == pytest.approx((3 / 4 + 1 + 1) / 3)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 9, 10])
@pytest.mark.parametrize("broken", [0, 4, 8])
def test_an_unreadable_clip_is_counted_wrong_named_and_never_replaced(tmp_path, batch_size, broken):
    clips = clips_of(tmp_path, LOOKS, LOOKS)
    clips[broken].path.write_text(NO_VIDEO)
    predictions = evaluate(clips, batch_size=batch_size)
    assert predictions.ids == tuple(clip.id for clip in clips)
    assert predictions.num_read == 8 and predictions.finite
    without = np.isnan(predictions.logits).all(axis=1)
    assert [name for name, nothing in zip(predictions.ids, without, strict=True) if nothing] == [clips[broken].id]
    assert np.array_equal(predictions.labels, LOOKS)
    assert predictions.metrics()["top1"] == 8 / 9 and predictions.metrics()["mca"] == pytest.approx((2 / 3 + 1 + 1) / 3)


def test_the_loss_is_that_of_the_clips_that_decode(tmp_path):
    clips = clips_of(tmp_path, LOOKS, ONE_WRONG)
    whole = evaluate(clips[1:]).metrics()["loss"]
    clips[0].path.write_text(NO_VIDEO)
    assert evaluate(clips).metrics()["loss"] == pytest.approx(whole)


def test_the_predictions_stand_in_the_order_of_the_ids_whatever_that_of_the_clips(tmp_path):
    clips = clips_of(tmp_path, LOOKS, ONE_WRONG)
    clips[3].path.write_text(NO_VIDEO)
    forward, backward = evaluate(clips), evaluate(clips[::-1], batch_size=2)
    assert forward.ids == backward.ids == tuple(sorted(clip.id for clip in clips))
    for name in ("labels", "logits", "embeddings"):
        assert np.array_equal(getattr(forward, name), getattr(backward, name), equal_nan=True)


def test_a_class_without_a_clip_in_the_split_has_no_voice_in_mca(tmp_path):
    predictions = evaluate(clips_of(tmp_path, [0, 0, 1], [0, 1, 1]))
    assert predictions.metrics()["mca"] == 0.75  # of two classes, not of three


def test_a_split_of_which_nothing_decodes_is_all_wrong_and_has_no_loss(tmp_path):
    clips = clips_of(tmp_path, [0, 1], [0, 1])
    for clip in clips:
        clip.path.write_text(NO_VIDEO)
    predictions = evaluate(clips)
    assert predictions.num_read == 0 and predictions.logits.shape == (2, NUM_CLASSES)
    assert predictions.metrics() == {"top1": 0, "mca": 0}


def test_logits_that_are_no_numbers_are_wrong_and_told_apart_from_clips_that_do_not_decode(tmp_path):
    clips = clips_of(tmp_path, LOOKS, LOOKS)
    clips[0].path.write_text(NO_VIDEO)
    diverged = reader()
    with torch.no_grad():
        diverged.head.classifier.bias.fill_(float("nan"))
    predictions = evaluate(clips, diverged)
    assert (predictions.num_read, predictions.finite) == (8, False)
    assert predictions.metrics() == {"top1": 0, "mca": 0}


def test_frame_means_are_those_of_the_tokens_that_enter_the_graph(tmp_path):
    head = TAGHead(NUM_CLASSES, (2, 1, 1), NUM_CLASSES, num_layers=0, positional_encoding=False)
    clips = clips_of(tmp_path, LOOKS, LOOKS)
    clips[5].path.write_text(NO_VIDEO)
    predictions = evaluate(clips, VideoModel(Colours(), head), frame_means=True)
    assert predictions.frame_means is not None and predictions.frame_means.shape == (9, 2, NUM_CLASSES)
    assert np.isnan(predictions.frame_means[5]).all()
    expected = (COLOURS[LOOKS[0]] / 255 - 0.45) / 0.225
    assert predictions.frame_means[0] == pytest.approx(np.stack([expected] * 2), abs=1e-5)
    assert evaluate(clips, VideoModel(Colours(), head)).frame_means is None


def test_predicting_neither_trains_nor_mixes_the_clips_of_a_batch(tmp_path):
    model = reader()
    model.backbone = nn.Sequential(nn.BatchNorm3d(NUM_CLASSES), nn.Dropout(0.5), Colours()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    clips = clips_of(tmp_path, LOOKS, LOOKS)
    ones, fours = (evaluate(clips, model, batch_size=size) for size in (1, 4))
    assert np.array_equal(ones.logits, fours.logits)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_is_saved_is_what_was_predicted(tmp_path):
    clips = clips_of(tmp_path, LOOKS, ONE_WRONG)
    clips[2].path.write_text(NO_VIDEO)
    predictions = evaluate(clips)
    predictions.save(tmp_path, keep=["embeddings", "frame_means"])
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as file:
        assert tuple(file["ids"]) == predictions.ids
        assert np.array_equal(file["labels"], predictions.labels)
        assert np.array_equal(file["logits"], predictions.logits, equal_nan=True)
    with np.load(tmp_path / "embeddings.npz", allow_pickle=False) as file:
        assert np.array_equal(file["embeddings"], predictions.embeddings, equal_nan=True)
    assert not (tmp_path / "frame_means.npz").exists()


def test_logits_are_those_of_an_earlier_evaluation_up_to_rounding(tmp_path):
    clips = clips_of(tmp_path, LOOKS, LOOKS)
    clips[2].path.write_text(NO_VIDEO)
    predictions = evaluate(clips)
    ids, logits = list(predictions.ids), predictions.logits
    largest = np.nanmax(np.abs(logits))
    assert predictions.differs(ids, logits, within=0) is None
    moved = logits.copy()
    moved[4, 1] += 0.01 * largest
    assert predictions.differs(ids, moved, within=0.02) is None
    assert re.fullmatch(
        r"logits must be .* those of clip clip 4 1 are .* off", predictions.differs(ids, moved, within=0.005)
    )
    moved[4] = np.nan
    assert predictions.differs(ids, moved, within=1) == "clip clip 4 1 gets a score now and got none when the trial ran"
    moved[4], moved[2] = logits[4], 0
    assert predictions.differs(ids, moved, within=1) == "clip clip 2 2 gets no score now and got one when the trial ran"
    for others in ((ids[:-1], logits[:-1]), (ids, logits[:, :-1])):
        assert predictions.differs(*others, within=1) == "the test clips are not those of its predictions"
