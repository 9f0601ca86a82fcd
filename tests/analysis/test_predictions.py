"""What a trial predicted, clip by clip."""

import os
from pathlib import Path

import numpy as np
import pytest
from stored import draw

from analysis import predictions
from analysis.predictions import correct, digest
from taghead.errors import InputError
from taghead.metrics import top1


def write(folder: Path, **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    arrays = {name: values for name, values in draw(0, 0).items() if name != "embeddings"}
    np.savez(folder / "predictions.npz", **{**arrays, **changes})  # type: ignore[arg-type]
    return folder


def test_equal_arrays_have_one_digest_and_any_changed_bit_another(tmp_path: Path) -> None:
    logits = draw(0, 0)["logits"]
    first, again = write(tmp_path / "a"), write(tmp_path / "b")
    logits[3, 1] = np.nextafter(logits[3, 1], np.float32(9))
    assert digest(first) == digest(again) != digest(write(tmp_path / "c", logits=logits))


def test_the_share_of_clips_told_right_is_top1(tmp_path: Path) -> None:
    arrays = draw(0, 0)
    ids, right = correct(write(tmp_path / "a"))
    assert right.dtype == bool
    assert right.mean() == top1(arrays["logits"], arrays["labels"])
    assert ids.tolist() == sorted(arrays["ids"].tolist())


def test_clips_are_in_the_order_of_their_ids_whatever_that_of_the_file(tmp_path: Path) -> None:
    arrays = draw(0, 0)
    shuffled = np.random.default_rng(0).permutation(len(arrays["ids"]))
    changed = {name: arrays[name][shuffled] for name in ("ids", "labels", "logits")}
    for found, expected in zip(correct(write(tmp_path / "a", **changed)), correct(write(tmp_path / "b")), strict=True):
        assert found.tolist() == expected.tolist()


def test_a_clip_that_does_not_decode_is_wrong_even_of_the_first_class(tmp_path: Path) -> None:
    logits = draw(0, 0)["logits"]
    logits[0] = np.nan  # of class 0, which is where argmax finds the first NaN
    ids, right = correct(write(tmp_path / "a", logits=logits))
    assert not right[ids.tolist().index(draw(0, 0)["ids"][0])]


def test_trials_on_the_same_clips_share_their_ids(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b", logits=draw(1, 0)["logits"])
    ids = correct(first)[0]
    assert ids is correct(second)[0]
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = "another"


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    monkeypatch.setattr(
        predictions,
        "read_arrays",
        lambda path, names, read=predictions.read_arrays: reads.append(path) or read(path, names),
    )
    folder = write(tmp_path / "a")
    before = digest(folder), correct(folder), digest(folder)
    assert len(reads) == 1
    write(folder, logits=draw(1, 0)["logits"])
    os.utime(folder / "predictions.npz", (1, 1))
    assert digest(folder) != before[0]
    assert len(reads) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"logits": np.zeros(24, np.float32)},
        {"logits": np.zeros((24, 0), np.float32)},
        {"logits": np.zeros((24, 4), int)},
        {"labels": np.zeros((24, 1), int)},
        {"labels": np.zeros(23, int)},
        {"ids": np.array([None] * 24)},
    ],
)
def test_arrays_that_are_no_predictions_are_refused(tmp_path: Path, changes: dict[str, np.ndarray]) -> None:
    folder = write(tmp_path / "a", **changes)
    for ask in (digest, correct):
        with pytest.raises(InputError, match=r"predictions\.npz cannot be read \("):
            ask(folder)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"predictions\.npz cannot be read \("):
        correct(tmp_path)
