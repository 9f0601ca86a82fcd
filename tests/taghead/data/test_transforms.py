from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from taghead.data.transforms import AREA, Draw, batch, draw_centre, draw_train, stream
from taghead.errors import InputError

PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
sizes = st.tuples(st.integers(20, 200), st.integers(20, 200))


def pixels(height: int, width: int, *, num_frames: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), np.uint8)


def draws(count: int, **kw: Any) -> list[Draw]:
    setting: dict[str, Any] = {"seed": 0, "epoch": 0, "crop": "random", "crop_size": 24, "flip": 0.5} | kw
    size = setting.pop("size", (27, 34))
    return [draw_train(size, clip_id=f"clip {number}", **setting) for number in range(count)]


def test_a_draw_depends_on_seed_epoch_and_clip_and_on_nothing_else():
    def drawn(names: list[str], seed: int, epoch: int) -> dict[str, Draw]:
        setting: dict[str, Any] = {"seed": seed, "epoch": epoch, "crop": "random", "crop_size": 24, "flip": 0.5}
        return {name: draw_train((90, 120), clip_id=name, **setting) for name in names}

    names = [f"clip {number}" for number in range(50)]
    first = drawn(names, 1, 2)
    assert first == drawn(names[::-1], 1, 2) and len(set(first.values())) > 45
    for seed, epoch in ((2, 2), (1, 3), (2, 1)):
        other = drawn(names, seed, epoch)
        assert sum(other[name] != first[name] for name in names) > 45


def test_the_streams_are_the_same_on_every_machine_and_version():
    """A change here changes what a stored trial means."""
    assert stream("augmentation", 0, 0, "clip").random(2).tolist() == [0.9626065075995367, 0.6207336379018532]


@given(sizes, st.integers(0, 1000))
def test_every_random_crop_lies_in_the_frame(size, seed):
    crop_size = min(size) - min(size) // 3
    draw = draw_train(size, seed=seed, epoch=0, clip_id="a", crop="random", crop_size=crop_size, flip=0.5)
    assert draw.side == crop_size
    assert 0 <= draw.top <= size[0] - draw.side and 0 <= draw.left <= size[1] - draw.side


@given(sizes, st.integers(0, 1000))
def test_every_random_resized_crop_is_a_square_of_half_to_all_of_the_area_that_lies_in_the_frame(size, seed):
    draw = draw_train(size, seed=seed, epoch=0, clip_id="a", crop="random_resized", crop_size=16, flip=0.5)
    assert 0 <= draw.top <= size[0] - draw.side and 0 <= draw.left <= size[1] - draw.side
    smallest = AREA[0] * size[0] * size[1]
    assert (draw.side + 0.5) ** 2 >= smallest or draw.side == min(size)  # the side is rounded to a pixel


def test_random_crops_reach_every_place_about_as_often():
    drawn = draws(4000, size=(27, 34), crop_size=24)  # 4 places from the top, 11 from the left
    tops, lefts = (np.bincount([getattr(draw, name) for draw in drawn]) for name in ("top", "left"))
    assert len(tops) == 4 and len(lefts) == 11
    for counts in (tops, lefts):
        expected = 4000 / len(counts)
        assert ((counts - expected) ** 2 / expected).sum() < 35  # chi2 with 10 degrees of freedom: 29.6 at p = 0.001


def test_random_resized_crops_have_areas_spread_evenly_over_half_to_all_of_a_square_frame():
    drawn = draws(2000, size=(100, 100), crop="random_resized")
    areas = np.array([draw.side**2 / 100**2 for draw in drawn])
    assert areas.min() < 0.52 and areas.max() > 0.98 and areas.mean() == pytest.approx(0.75, abs=0.02)


def test_a_frame_into_which_no_such_square_fits_gives_the_largest_in_its_centre():
    (draw,) = draws(1, size=(30, 100), crop="random_resized", flip=0.0)
    assert draw == Draw(0, 35, 30)


@pytest.mark.parametrize(("flip", "low", "high"), [(0.0, 0, 0), (0.5, 900, 1100), (1.0, 2000, 2000)])
def test_clips_are_flipped_as_often_as_asked(flip, low, high):
    assert low <= sum(draw.flip for draw in draws(2000, flip=flip)) <= high


def test_the_flip_does_not_change_where_the_crop_lies():
    plain, flipped = draws(50, flip=0.0), draws(50, flip=1.0)
    assert [(draw.top, draw.left) for draw in plain] == [(draw.top, draw.left) for draw in flipped]


def test_evaluation_crops_the_centre_and_never_flips():
    assert draw_centre((126, 158), crop_size=112) == Draw(7, 23, 112, False)
    assert draw_centre((112, 113), crop_size=112) == Draw(0, 0, 112, False)


@pytest.mark.parametrize("crop_size", [0, 28])
def test_a_crop_that_does_not_fit_is_refused_with_the_remedy(crop_size):
    message = (
        f"0 < crop_size <= short side must hold, but got crop_size={crop_size} for frames of 27 x 34 pixels; lower"
    )
    with pytest.raises(InputError, match=message):
        draw_centre((27, 34), crop_size=crop_size)
    with pytest.raises(InputError, match=message):
        draws(1, size=(27, 34), crop_size=crop_size)


def test_clips_of_several_sizes_make_one_batch():
    frames = [pixels(27, 34), pixels(40, 27), pixels(24, 24)]
    made = batch(frames, [draw_centre(array.shape[1:3], crop_size=24) for array in frames], crop_size=24, **PLAIN)
    assert made.shape == (3, 3, 2, 24, 24) and made.dtype == torch.float32 and made.is_contiguous()


def test_a_batch_is_the_crop_of_the_pixels_normalised_by_colour():
    frames, mean, std = pixels(27, 34), (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
    made = batch([frames], [Draw(2, 5, 24)], crop_size=24, mean=mean, std=std)[0].numpy()
    expected = (frames[:, 2:26, 5:29].astype(np.float64) / 255 - mean) / std
    np.testing.assert_allclose(made, expected.transpose(3, 0, 1, 2), rtol=0, atol=1e-6)


def test_a_flip_mirrors_left_and_right():
    frames = pixels(27, 34)
    plain, flipped = batch([frames, frames], [Draw(2, 5, 24), Draw(2, 5, 24, True)], crop_size=24, **PLAIN)
    assert torch.equal(flipped, plain.flip(-1)) and not torch.equal(flipped, plain)


def test_a_crop_of_another_side_is_resized_as_the_library_does():
    frames = pixels(60, 70)
    for side in (20, 32, 57):
        made = batch([frames], [Draw(1, 3, side)], crop_size=32, **PLAIN)[0]
        patch = torch.from_numpy(frames[:, 1 : 1 + side, 3 : 3 + side]).permute(0, 3, 1, 2).double() / 255
        expected = functional.interpolate(patch, size=(32, 32), mode="bilinear", antialias=True)
        torch.testing.assert_close(made.permute(1, 0, 2, 3).double(), expected, rtol=0, atol=1e-6)


def test_a_constant_clip_stays_constant_through_crop_resize_and_flip():
    frames = np.full((2, 50, 60, 3), 51, np.uint8)
    made = batch([frames], [Draw(0, 0, 45, True)], crop_size=24, mean=(0.1, 0.2, 0.3), std=(0.1, 0.1, 0.1))
    expected = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1, 1).expand_as(made)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", [24, 17])
@pytest.mark.parametrize("flip", [False, True])
def test_planes_in_memory_give_the_bits_of_interleaved_frames(side, flip):
    frames = pixels(27, 34)
    planes = np.ascontiguousarray(frames.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    setting: dict[str, Any] = {"crop_size": 24, "mean": (0.43216, 0.394666, 0.37645), "std": (0.22803, 0.22145, 0.217)}
    one, other = (batch([array], [Draw(1, 2, side, flip)], **setting) for array in (frames, planes))
    assert torch.equal(one, other)


def test_the_decoded_frames_are_left_as_they_were():
    frames = pixels(27, 34)
    before = frames.copy()
    batch([frames], [Draw(0, 0, 27, True)], crop_size=27, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert np.array_equal(frames, before)


def test_without_clips_a_batch_is_empty():
    assert batch([], [], crop_size=24, **PLAIN).shape == (0, 3, 0, 24, 24)
