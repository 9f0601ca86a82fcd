import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from taghead.data import batches, frame_cache
from taghead.data.batches import Batch, eval_batches, train_batches, training_order
from taghead.data.clips import Clip
from taghead.data.decode import sample_frames
from taghead.data.frame_cache import FrameCache
from taghead.data.transforms import batch, draw_centre

NUM_CLIPS = 9
VIEW: dict[str, Any] = {"crop_size": 24, "mean": (0.45,) * 3, "std": (0.225,) * 3}


@pytest.fixture
def clips(tmp_path: Path, write_video: Callable[..., Path]) -> list[Clip]:
    def video(number: int) -> Path:
        rng = np.random.default_rng(number)
        return write_video(
            tmp_path / f"{number}.mp4",
            lambda _: rng.integers(0, 255, (4, 5, 3), np.uint8).repeat(8, 0).repeat(8, 1),
            num_frames=3,
        )

    return [Clip(f"clip {number}", video(number), number, "train") for number in range(NUM_CLIPS)]


@pytest.fixture
def cache() -> FrameCache:
    return FrameCache(None, num_frames=4, short_side=27)


def train(clips: list[Clip], cache: FrameCache, **kw: Any) -> list[Batch]:
    setting = {"seed": 0, "epoch": 0, "batch_size": 4, "crop": "random", "flip": 0.5, **VIEW} | kw
    return list(train_batches(clips, cache=cache, **setting))


def evaluate(clips: list[Clip], cache: FrameCache, **kw: Any) -> list[Batch]:
    setting: dict[str, Any] = {"batch_size": 4, **VIEW} | kw
    return list(eval_batches(clips, cache=cache, **setting))


def ids(batches: list[Batch]) -> list[tuple[str, ...]]:
    return [made.ids for made in batches]


def by_id(batches: list[Batch]) -> dict[str, torch.Tensor]:
    return {name: frames for made in batches for name, frames in zip(made.ids, made.frames, strict=True)}


def break_clip(clip: Clip) -> Clip:
    clip.path.write_text("no video")
    return clip


def test_the_order_is_a_permutation_that_seed_and_epoch_decide():
    order = training_order(50, seed=1, epoch=2)
    assert sorted(order) == list(range(50)) and order == training_order(50, seed=1, epoch=2)
    assert order != training_order(50, seed=1, epoch=3) != training_order(50, seed=2, epoch=2)
    assert training_order(0, seed=1, epoch=2) == []


def test_a_batch_holds_frames_labels_and_clips_in_one_order(clips, cache):
    made = evaluate(clips, cache)[0]
    assert made.frames.shape == (4, 3, 4, 24, 24) and made.labels.dtype == torch.int64
    assert made.labels.tolist() == [clip.label for clip in made.clips] == [0, 1, 2, 3]
    arrays = [sample_frames(clip.path, 4, short_side=27) for clip in made.clips]
    draws = [draw_centre(array.shape[1:3], crop_size=24) for array in arrays]
    assert torch.equal(made.frames, batch(arrays, draws, **VIEW))


def test_evaluation_gives_every_clip_once_and_in_order(clips, cache):
    assert sum(ids(evaluate(clips, cache)), ()) == tuple(clip.id for clip in clips)
    assert [len(made.clips) for made in evaluate(clips, cache)] == [4, 4, 1]


def test_training_gives_every_clip_once_in_the_drawn_order(clips, cache):
    order = training_order(NUM_CLIPS, seed=3, epoch=5)
    assert sum(ids(train(clips, cache, seed=3, epoch=5, batch_size=3)), ()) == tuple(f"clip {index}" for index in order)


@pytest.mark.parametrize("kind", ["random", "random_resized"])
def test_the_same_seed_and_epoch_give_the_same_bits_whatever_the_number_of_threads(clips, cache, kind):
    runs = [train(clips, cache, crop=kind, num_threads=count) for count in (0, 1, 3)]
    for run in runs[1:]:
        assert ids(run) == ids(runs[0])
        assert all(torch.equal(made.frames, first.frames) for made, first in zip(run, runs[0], strict=True))


def test_the_augmentation_of_a_clip_does_not_depend_on_its_batch(clips, cache):
    fours, threes = (by_id(train(clips, cache, batch_size=size)) for size in (4, 3))
    assert len(fours) == 8 and all(torch.equal(frames, threes[name]) for name, frames in fours.items())


def test_another_order_leaves_the_augmentation_as_it_is(clips, cache):
    own, fixed = (train(clips, cache, epoch=1, batch_size=3, **kw) for kw in ({}, {"order": (42, 0)}))
    assert ids(own) != ids(fixed) == ids(train(clips, cache, seed=7, epoch=2, batch_size=3, order=(42, 0)))
    assert all(torch.equal(by_id(own)[name], frames) for name, frames in by_id(fixed).items())


def test_a_last_training_batch_of_a_single_clip_is_left_out_and_of_two_is_kept(clips, cache):
    assert [len(made.clips) for made in train(clips, cache, batch_size=4)] == [4, 4]
    assert [len(made.clips) for made in train(clips, cache, batch_size=7)] == [7, 2]
    assert [len(made.clips) for made in train(clips, cache, batch_size=1)] == [1] * NUM_CLIPS


def test_an_unreadable_training_clip_is_left_out_reported_and_never_replaced(clips, cache):
    whole = train(clips, cache, batch_size=3)
    cache = FrameCache(None, num_frames=4, short_side=27)
    bad = break_clip(clips[4])
    left = train(clips, cache, batch_size=3)
    assert ids(left) == [tuple(name for name in group if name != bad.id) for group in ids(whole)]
    assert [made.unreadable for made in left if made.unreadable] == [(bad,)]
    assert list(cache.unreadable) == [bad.id] and "Invalid data" in cache.unreadable[bad.id]


def test_a_training_batch_left_with_a_single_clip_is_left_out(clips, cache):
    whole = train(clips, cache, batch_size=2)
    cache = FrameCache(None, num_frames=4, short_side=27)
    break_clip(whole[1].clips[0])
    assert ids(train(clips, cache, batch_size=2)) == [group for number, group in enumerate(ids(whole)) if number != 1]


def test_evaluation_names_the_clips_it_cannot_read_even_when_a_batch_has_no_other(clips, cache):
    bad = [break_clip(clips[index]) for index in (1, 8)]
    made = evaluate(clips, cache)
    assert ids(made) == [("clip 0", "clip 2", "clip 3"), ("clip 4", "clip 5", "clip 6", "clip 7"), ()]
    assert [clip for one in made for clip in one.unreadable] == bad
    assert made[2].frames.shape[0] == 0 and made[2].labels.shape == (0,)


@pytest.mark.parametrize("num_threads", [0, 1, 3])
def test_an_unreadable_clip_shifts_no_frames_and_no_label_of_the_others(clips, cache, num_threads):
    whole = by_id(evaluate(clips, cache))
    bad = break_clip(clips[5])
    cache = FrameCache(None, num_frames=4, short_side=27)
    left = evaluate(clips, cache, num_threads=num_threads)
    assert by_id(left).keys() == whole.keys() - {bad.id}
    assert all(torch.equal(frames, whole[name]) for name, frames in by_id(left).items())
    assert all(made.labels.tolist() == [clip.label for clip in made.clips] for made in left)


class Counting(FrameCache):
    """Counts what is asked of it."""

    def __init__(self):
        super().__init__(None, num_frames=4, short_side=27)
        self.asked: list[str] = []

    def get(self, clip: Clip) -> np.ndarray:
        self.asked.append(clip.id)
        return super().get(clip)


def test_no_more_than_three_batches_are_decoded_before_the_first_is_used_up(clips):
    cache = Counting()
    many = clips * 5
    running = eval_batches(many, cache=cache, batch_size=2, **VIEW)
    next(running)
    running.close()
    assert 2 <= len(cache.asked) <= 3 * 2


def test_the_next_batch_is_made_while_one_is_used(clips, cache, monkeypatch):
    made = threading.Semaphore(0)

    def telling(*args: Any, **kw: Any) -> torch.Tensor:
        pixels = batch(*args, **kw)
        made.release()
        return pixels

    monkeypatch.setattr(batches, "batch", telling)
    running = eval_batches(clips, cache=cache, batch_size=2, **VIEW)
    with closing(running):
        next(running)
        assert all(made.acquire(timeout=30) for _ in range(2)), "the first, and a second that nobody asked for yet"
        assert not made.acquire(timeout=0.2), "and no third"


def test_as_many_clips_are_decoded_at_once_as_torch_has_threads(clips, cache, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    together = threading.Barrier(3)  # passed by three at a time, or never

    def get(clip: Clip) -> np.ndarray:
        together.wait(timeout=30)
        return FrameCache.get(cache, clip)

    monkeypatch.setattr(cache, "get", get)
    assert len(by_id(evaluate(clips, cache))) == NUM_CLIPS == 9


def test_trials_that_begin_together_share_the_decoding_of_their_clips(clips, tmp_path, monkeypatch):
    decoded = []

    def decode(path: Path, *args: Any, **options: Any) -> np.ndarray:
        decoded.append(path)
        time.sleep(0.02)  # longer than any other part of it
        return sample_frames(path, *args, **options)

    monkeypatch.setattr(frame_cache, "sample_frames", decode)
    caches = [FrameCache(tmp_path / "cache", num_frames=4, short_side=27) for _ in range(3)]
    with ThreadPoolExecutor(3) as trials:
        running = list(trials.map(lambda cache: ids(train(clips, cache, batch_size=NUM_CLIPS, num_threads=0)), caches))
    assert running[0] == running[1] == running[2]  # whatever the order in which each one reads
    assert set(decoded) == {clip.path for clip in clips} and len(decoded) < 2.5 * NUM_CLIPS  # 3 times, each alone


def test_an_epoch_that_is_abandoned_leaves_no_thread_behind(clips, cache):
    before = threading.active_count()
    setting = {"cache": cache, "batch_size": 2, "num_threads": 3, **VIEW}
    evaluation = eval_batches(clips, **setting)
    training = train_batches(clips, seed=0, epoch=0, crop="random", flip=0.0, **setting)
    for running in (evaluation, training):
        next(running)
        assert threading.active_count() > before
        running.close()
    assert threading.active_count() == before


def test_an_error_that_is_not_the_clip_s_is_raised(clips, cache, monkeypatch):
    def broken(clip: Clip) -> np.ndarray:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(cache, "get", broken)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        evaluate(clips, cache)
