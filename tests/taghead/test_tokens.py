import errno
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from taghead import array_folder, tokens
from taghead.backbones.folded import inference_backbone
from taghead.config import Config, evolve
from taghead.data.batches import training_order
from taghead.data.clips import Clip, read_clips
from taghead.data.decode import sample_frames
from taghead.data.frame_cache import FrameCache
from taghead.data.transforms import batch, draw_train
from taghead.evaluate import predict
from taghead.fit import learning_rate, seed_for
from taghead.head import grid_tokens
from taghead.machine import Machine, find_weights
from taghead.model import VideoModel, build_model, load_trained
from taghead.recipes import recipe
from taghead.record import Record
from taghead.run import complete, run, token_cache, view_of
from taghead.tokens import VIEW_SEED, TokenCache, TokenModel, token_bytes
from taghead.weights import load_backbone

FROZEN = evolve(
    recipe("synthetic"),
    {"data.num_frames": 8, "data.short_side": 36, "data.crop_size": 32, "data.flip": 0.5,
     "model.freeze_backbone": True, "train.epochs": 3, "train.batch_size": 24, "train.token_views": 2,
     "head.ffn_dim": 32, "head.dropout": 0.1, "train.lr": 1e-2},
)  # fmt: skip
KEEP = ("weights", "embeddings", "frame_means")


def trial(folder: Path, clips: Path, changes: dict[str, Any] | None = None, **options: Any) -> Record:
    machine = Machine(data_root=clips, cache=options.pop("cache", None))
    return run(evolve(FROZEN, changes or {}), seed=options.pop("seed", 0), machine=machine, folder=folder, **options)


def logits(folder: Path) -> Any:
    with np.load(folder / "predictions.npz", allow_pickle=False) as file:
        return file["logits"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, tiny_clips: Path) -> Path:
    """A folder with a trial in ``trial`` and its tokens in ``cache``. Read it only."""
    root = tmp_path_factory.mktemp("stored")
    trial(root / "trial", tiny_clips, cache=root / "cache", keep=KEEP)
    return root


@pytest.fixture
def no_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the backbone was to be run")

    monkeypatch.setattr(tokens, "inference_backbone", refuse)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int | None]]:
    """Each clip and view that the backbone is run for."""
    seen: list[tuple[str, int | None]] = []
    make = tokens.TokenCache._make

    def noting(self: tokens.TokenCache, clip: Clip, frames: Any, view: int | None, place: Any) -> Any:
        seen.append((clip.id, view))
        return make(self, clip, frames, view, place)

    monkeypatch.setattr(tokens.TokenCache, "_make", noting)
    return seen


def by_hand(config: Config, clips: Path, *, seed: int) -> VideoModel:
    """A training in which the frozen backbone runs on the views in every epoch, clip by clip."""
    data = read_clips("synthetic", clips)
    torch.set_num_threads(1)
    torch.manual_seed(seed_for(seed, "initial weights"))
    model = build_model(config, len(data.classes))
    load_backbone(model.backbone, find_weights(config, None))  # type: ignore[arg-type]
    network, view = inference_backbone(model.backbone), view_of(config, device=torch.device("cpu"))
    optimizer = torch.optim.Adam(model.head.parameters(), lr=config.train.lr, fused=True)
    train, size = data.split("train"), config.train.batch_size
    for epoch in range(config.train.epochs):
        torch.manual_seed(seed_for(seed, f"epoch {epoch}"))
        optimizer.param_groups[0]["lr"] = learning_rate(config.train, epoch)
        order = training_order(len(train), seed=seed, epoch=epoch)
        for at in range(0, len(train), size):
            group = [train[index] for index in order[at : at + size]]
            seen = []
            for clip in group:
                frames = sample_frames(clip.path, config.data.num_frames, short_side=config.data.short_side)
                draw = draw_train(
                    frames.shape[1:3], seed=VIEW_SEED, epoch=epoch % 2, clip_id=clip.id, crop="random",
                    crop_size=config.data.crop_size, flip=config.data.flip,
                )  # fmt: skip
                with torch.no_grad():
                    seen.append(grid_tokens(network(batch([frames], [draw], **view))))
            model.head.train()
            loss = cross_entropy(model.head(torch.cat(seen).contiguous()), torch.tensor([clip.label for clip in group]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


def test_training_on_stored_tokens_has_the_bits_of_running_the_backbone_in_every_epoch(
    stored: Path, tiny_clips: Path
) -> None:
    state = load_file(stored / "trial" / "weights.safetensors")
    expected = by_hand(FROZEN, tiny_clips, seed=0).state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)


def test_wherever_tokens_are_kept_the_trial_has_the_same_bits(
    stored: Path, tmp_path: Path, tiny_clips: Path, monkeypatch: pytest.MonkeyPatch, made: list[Any]
) -> None:
    trial(tmp_path / "memory", tiny_clips)
    assert len(made) == len(set(made)) == 2 * 64 + 4 + 12, "once each"
    assert np.array_equal(logits(tmp_path / "memory"), logits(stored / "trial"))
    monkeypatch.setattr(tokens, "MEMORY_BYTES", 100_000)
    made.clear()
    with pytest.warns(UserWarning, match=r"do not fit into memory.*\(--cache\)"):
        trial(tmp_path / "nowhere", tiny_clips)
    assert len(made) > len(set(made)), "the backbone ran again for those that do not fit"
    assert np.array_equal(logits(tmp_path / "nowhere"), logits(stored / "trial"))


@pytest.mark.usefixtures("no_backbone")
@pytest.mark.parametrize(
    ("changes", "seed"),
    [({}, 0), ({"head.ffn_dim": 64, "head.readout": "max"}, 0), ({"train.lr": 1e-3, "train.batch_size": 8}, 7)],
    ids=["the same", "another head", "another seed and training"],
)
def test_trials_and_seeds_share_the_tokens_of_a_backbone(
    stored: Path, tmp_path: Path, tiny_clips: Path, changes: dict[str, Any], seed: int
) -> None:
    trial(tmp_path, tiny_clips, changes, cache=stored / "cache", seed=seed)
    assert np.array_equal(logits(tmp_path), logits(stored / "trial")) == (not changes)


def cache_of(changes: dict[str, Any], folder: Path | None, clips: Path) -> tuple[TokenCache, list[Clip]]:
    """The cache of a config with seed 0, and the clips."""
    config, data = evolve(FROZEN, changes), read_clips("synthetic", clips)
    torch.set_num_threads(1)
    torch.manual_seed(seed_for(0, "initial weights"))
    model = build_model(config, len(data.classes))
    if config.model.pretrained:
        load_backbone(model.backbone, find_weights(config, None))  # type: ignore[arg-type]
    frames = FrameCache(None, num_frames=config.data.num_frames, short_side=config.data.short_side)
    machine = Machine(data_root=clips, cache=folder)
    return token_cache(config, model, frames=frames, machine=machine), list(data.split("train"))


@pytest.mark.parametrize(
    ("changes", "centre", "drawn"),
    [
        ({}, False, False),
        ({"train.token_views": 1}, False, False),
        ({"data.flip": 0.0}, False, True),
        ({"data.train_crop": "random_resized"}, False, True),
        ({"model.pretrained": False}, True, True),
        ({"train.token_dtype": "float16"}, True, True),
        ({"data.mean": (0.5, 0.5, 0.5)}, True, True),
        ({"data.crop_size": 30}, True, True),
        ({"data.short_side": 40}, True, True),
        ({"train.precision": "bfloat16"}, True, True),
        ({"model.head": "linear"}, True, True),
    ],
    ids=lambda value: next(iter(value), "nothing") if isinstance(value, dict) else None,
)
def test_what_changes_tokens_finds_none_stored(
    stored: Path, tmp_path: Path, tiny_clips: Path, changes: dict[str, Any], centre: bool, drawn: bool, made: list[Any]
) -> None:
    shutil.copytree(stored / "cache", tmp_path / "cache")
    cache, clips = cache_of(changes, tmp_path / "cache", tiny_clips)
    cache.get(clips[5], 0)
    assert bool(made) == drawn
    made.clear()
    cache.fill(read_clips("synthetic", tiny_clips).split("val"), None)
    assert bool(made) == centre


def test_a_clip_that_has_changed_takes_the_place_of_the_old_one(
    tmp_path: Path, tiny_clips: Path, made: list[Any]
) -> None:
    cache, (clip, *_) = cache_of({}, tmp_path / "cache", tiny_clips)
    mine = replace(clip, path=tmp_path / "clip.mp4")
    for _ in range(2):
        shutil.copyfile(clip.path, mine.path)
        os.utime(mine.path, (len(made), len(made)))
        cache.get(mine, None)
        cache.get(mine, None)
    assert len(made) == 2
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("by", ["get", "fill"])
def test_a_clip_that_is_replaced_while_its_tokens_are_made_leaves_none_under_the_new_ones_key(
    tmp_path: Path, tiny_clips: Path, by: str
) -> None:
    cache, (clip, other, *_) = cache_of({}, tmp_path / "cache", tiny_clips)
    mine = replace(clip, path=tmp_path / "clip.mp4")
    shutil.copyfile(clip.path, mine.path)
    decode = cache._frames.get

    def replaced_meanwhile(one: Clip) -> Any:
        frames = decode(one)
        shutil.copyfile(other.path, mine.path)
        os.utime(mine.path, (1, 1))
        return frames

    cache._frames.get = replaced_meanwhile  # type: ignore[method-assign]
    cache.get(mine, None) if by == "get" else cache.fill([mine], None)
    later, _ = cache_of({}, tmp_path / "cache", tiny_clips)
    assert np.array_equal(later.get(mine, None), later.get(other, None))


@pytest.mark.parametrize(("views", "expected"), [(0, [None, None, None]), (1, [0, 0, 0]), (2, [0, 1, 0])])
def test_epoch_e_trains_on_view_e_mod_k(
    tiny_clips: Path, views: int, expected: list[int | None], made: list[Any]
) -> None:
    cache, clips = cache_of({"train.token_views": views}, None, tiny_clips)
    assert [cache.view_of(epoch) for epoch in range(3)] == expected
    for epoch in range(3):
        batches = list(cache.train_batches(clips[:6], epoch=epoch, order=(0, epoch), batch_size=4))
        assert [len(one.ids) for one in batches] == [4, 2]
    assert {view for _, view in made} == set(expected)
    assert len(made) == 6 * len(set(expected))


def test_the_views_of_a_clip_differ_and_evaluation_sees_the_centre(tiny_clips: Path) -> None:
    cache, (clip, *_) = cache_of({"train.token_views": 3}, None, tiny_clips)
    seen = [cache.get(clip, view) for view in (None, 0, 1, 2)]
    assert all(not np.array_equal(one, other) for one, other in combinations(seen, 2))
    (batch_,) = cache.evaluation_batches([clip])
    assert np.array_equal(batch_.frames[0].numpy(), seen[0])


@pytest.mark.usefixtures("no_backbone")
def test_what_is_kept_of_a_trial_is_kept_of_one_on_stored_tokens_and_can_be_added_later(
    stored: Path, tmp_path: Path, tiny_clips: Path
) -> None:
    folder = tmp_path / "trial"
    shutil.copytree(stored / "trial", folder)
    for name in ("embeddings", "frame_means"):
        (folder / f"{name}.npz").unlink()
    complete(folder, machine=Machine(data_root=tiny_clips, cache=stored / "cache"), keep=("embeddings", "frame_means"))
    for name in ("embeddings", "frame_means"):
        with np.load(folder / f"{name}.npz") as new, np.load(stored / "trial" / f"{name}.npz") as old:
            assert np.array_equal(new[name], old[name])
            assert len(old[name]) == 12


KILLED = """
import os, signal, sys
from pathlib import Path
from taghead import array_folder
from taghead.config import load
from taghead.machine import Machine
from taghead.run import run
count, write = 0, array_folder._write
def dying(place, head, array):
    global count
    count += place.suffix == ".tokens"
    if count == int(sys.argv[5]):
        place.with_name(place.name + ".1.part").write_bytes(head)
        os.kill(os.getpid(), signal.SIGKILL)
    return write(place, head, array)
array_folder._write = dying
root = Path(sys.argv[3])
run(load(sys.argv[1]), seed=0, machine=Machine(data_root=Path(sys.argv[2]), cache=Path(sys.argv[4])), folder=root)
"""


@pytest.mark.parametrize("count", [1, 64 + 4 + 20])
def test_a_run_that_is_killed_while_it_stores_tokens_goes_on_to_the_bits_of_an_undisturbed_one(
    stored: Path, tmp_path: Path, tiny_clips: Path, count: int, made: list[Any]
) -> None:
    words = [FROZEN.model_dump_json(), tiny_clips, tmp_path / "trial", tmp_path / "cache", count]
    killed = subprocess.run([sys.executable, "-c", KILLED, *map(str, words)], check=False)
    assert killed.returncode == -signal.SIGKILL
    trial(tmp_path / "trial", tiny_clips, cache=tmp_path / "cache")
    assert len(made) == 2 * 64 + 4 + 12 - (count - 1), "what was stored is not made again"
    assert np.array_equal(logits(tmp_path / "trial"), logits(stored / "trial"))
    history = "history.csv"
    assert (tmp_path / "trial" / history).read_text() == (stored / "trial" / history).read_text()


def test_a_run_that_is_stopped_between_epochs_goes_on_to_the_same_bits(
    stored: Path, tmp_path: Path, tiny_clips: Path
) -> None:
    def stop(row: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trial(tmp_path, tiny_clips, on_epoch=stop, cache=stored / "cache")
    trial(tmp_path, tiny_clips, cache=stored / "cache")
    assert np.array_equal(logits(tmp_path), logits(stored / "trial"))
    assert (tmp_path / "history.csv").read_text() == (stored / "trial" / "history.csv").read_text()


def test_several_processes_share_the_making_and_none_is_disturbed(
    stored: Path, tmp_path: Path, tiny_clips: Path
) -> None:
    code = KILLED.replace("count == int(sys.argv[5])", "False")
    started = []
    for number in range(2):
        words = [FROZEN.model_dump_json(), tiny_clips, tmp_path / str(number), tmp_path / "cache"]
        started.append(subprocess.Popen([sys.executable, "-c", code, *map(str, words)]))
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    for number in range(2):
        assert np.array_equal(logits(tmp_path / str(number)), logits(stored / "trial"))
    assert len(list((tmp_path / "cache").glob("*.tokens"))) == 2 * 64 + 4 + 12
    assert not list((tmp_path / "cache").glob("*.part"))


def test_tokens_that_are_damaged_or_gone_are_made_again(
    stored: Path, tmp_path: Path, tiny_clips: Path, made: list[Any]
) -> None:
    shutil.copytree(stored / "cache", tmp_path / "cache")
    damaged, emptied, gone, *_ = sorted((tmp_path / "cache").glob("*.tokens"))
    damaged.write_bytes(damaged.read_bytes()[:-7] + b"nothing")
    emptied.write_bytes(b"")
    gone.unlink()
    trial(tmp_path / "trial", tiny_clips, cache=tmp_path / "cache")
    assert len(set(made)) == 3
    assert np.array_equal(logits(tmp_path / "trial"), logits(stored / "trial"))
    made.clear()
    trial(tmp_path / "again", tiny_clips, cache=tmp_path / "cache")
    assert not made


def test_a_disk_that_fills_up_is_warned_of_and_changes_no_bit(
    stored: Path, tmp_path: Path, tiny_clips: Path, monkeypatch: pytest.MonkeyPatch, made: list[Any]
) -> None:
    written = 0
    write = array_folder._write

    def filling_up(place: Path, head: bytes, array: Any) -> Any:
        nonlocal written
        written += place.suffix == ".tokens"
        if place.suffix == ".tokens" and written > 30:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(place, head, array)

    monkeypatch.setattr(array_folder, "_write", filling_up)
    with pytest.warns(UserWarning, match="tokens cannot be kept in"):
        trial(tmp_path / "trial", tiny_clips, cache=tmp_path / "cache")
    assert len(made) == len(set(made)), "what was stored before is read on"
    assert np.array_equal(logits(tmp_path / "trial"), logits(stored / "trial"))


def test_half_precision_moves_the_logits_of_a_trained_head_by_a_hundredth_at_most(
    stored: Path, tiny_clips: Path
) -> None:
    head = load_trained(stored / "trial").model.head
    found = []
    for dtype in ("float32", "float16"):
        cache, _ = cache_of({"train.token_dtype": dtype}, None, tiny_clips)
        batches = cache.evaluation_batches(read_clips("synthetic", tiny_clips).split("test"))
        found.append(predict(TokenModel(head), batches, num_classes=4, device=torch.device("cpu")).logits)
    assert np.array_equal(found[0], logits(stored / "trial"))
    assert not np.array_equal(found[1], found[0])
    assert np.abs(found[1] - found[0]).max() <= 1e-2


def test_a_first_view_is_that_of_the_first_epoch_without_stored_tokens(tmp_path: Path, tiny_clips: Path) -> None:
    for views in (1, None):
        trial(tmp_path / str(views), tiny_clips, {"train.epochs": 1, "train.lr": 1e-3, "train.token_views": views})
    assert np.allclose(logits(tmp_path / "1"), logits(tmp_path / "None"), atol=1e-3)


def test_clips_that_do_not_decode_are_named_and_counted_wrong(tmp_path: Path, tiny_clips: Path) -> None:
    root = tmp_path / "broken"
    shutil.copytree(tiny_clips, root)
    for number in ("003", "018"):
        (path,) = (root / "video/turn_one_left").glob(f"*_{number}.mp4")
        path.write_bytes(path.read_bytes()[:100])
    records = [trial(tmp_path / name, root, {"train.epochs": 1}, cache=tmp_path / "cache") for name in ("1", "2")]
    records.append(trial(tmp_path / "3", root, {"train.epochs": 1}))
    for record in records:
        assert sorted(record.data.unreadable) == ["turn_one_left_003", "turn_one_left_018"]
        assert record.metrics == records[0].metrics
        assert record.metrics["top1"] <= 11 / 12
    assert np.isnan(logits(tmp_path / "1")).any(axis=1).sum() == 1


@pytest.mark.parametrize("changes", [{}, {"model.head": "linear"}, {"train.token_dtype": "float16"}])
def test_the_size_of_stored_tokens_is_known_before(tmp_path: Path, tiny_clips: Path, changes: dict[str, Any]) -> None:
    cache, clips = cache_of(changes, tmp_path, tiny_clips)
    cache.fill(clips[:2], None)
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [token_bytes(evolve(FROZEN, changes))] * 2


def test_tokens_of_the_paper_s_backbone_take_so_much_a_clip() -> None:
    config = evolve(recipe("haa500"), {"model.freeze_backbone": True, "train.token_views": 0})
    assert token_bytes(config) - array_folder.HEAD_BYTES == 512 * 4 * 7 * 7 * 4
    assert token_bytes(evolve(config, {"model.head": "linear"})) - array_folder.HEAD_BYTES == 512 * 4
