import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
from fakes import BASE, EPOCHS, trial, work

from studies import footprint
from studies.estimate import Clips
from studies.footprint import CONTEXT_BYTES, HEAD_ROOM, SMALL_FILES, Disk, amount, disk, gpu_shares, measured_shares
from studies.store import Store
from taghead.array_folder import HEAD_BYTES
from taghead.config import evolve
from taghead.errors import InputError

CLIPS = Clips(num_classes=5, train=100, val=10, test=20, id_length=10)
SIZES = SimpleNamespace(weights_bytes=1_000_000, checkpoint_bytes=3_000_000, embedding_channels=512, time_steps=4)
AN_ID = 4 * 10 + 8  # bytes of an id and a label
GIB = 2**30


def space(todo, root, *, slots=1, cache=None, sizes=lambda config, num_classes: SIZES):
    return disk(todo, store=Store(root), clips=lambda config: CLIPS, slots=slots, cache=cache, sizes=sizes)


def test_every_trial_keeps_its_predictions_and_what_is_asked_for(root):
    predictions = SMALL_FILES + 20 * (AN_ID + 4 * 5)
    assert space([trial(0)], root).kept == predictions
    assert space([trial(0), trial(1)], root).kept == 2 * predictions
    assert space([trial(0, keep=("weights",))], root).kept == predictions + 1_000_000
    embeddings = 20 * (AN_ID + 4 * 512)
    assert space([trial(0, keep=("embeddings",))], root).kept == predictions + embeddings
    means = 20 * (AN_ID + 4 * 4 * 512)
    assert space([trial(0, keep=("embeddings", "frame_means"))], root).kept == predictions + embeddings + means


def test_checkpoints_are_those_of_the_trials_that_run_at_once_and_each_is_there_twice(root):
    todo = [trial(seed) for seed in range(5)]
    assert space(todo, root, slots=2).checkpoints == 2 * 2 * 3_000_000
    assert space(todo, root, slots=9).checkpoints == 5 * 2 * 3_000_000


def test_the_largest_checkpoints_may_meet(root):
    def sizes(config, num_classes):
        return SimpleNamespace(**{**vars(SIZES), "checkpoint_bytes": config.head.ffn_dim})

    todo = [trial(config=evolve(BASE, {"head.ffn_dim": width})) for width in (10, 1000, 100)]
    assert space(todo, root, slots=2, sizes=sizes).checkpoints == 2 * (1000 + 100)


def test_what_is_only_evaluated_adds_only_what_it_lacks(root):
    work(root)(trial(0, keep=("weights",)), lambda row: None)
    found = space([trial(0, keep=("weights", "embeddings"))], root)
    assert (found.kept, found.checkpoints) == (20 * (AN_ID + 4 * 512), 0)


def test_frames_count_once_for_each_way_of_sampling(root, tmp_path):
    short = evolve(BASE, {"data.num_frames": 8, "data.short_side": 120})
    todo = [trial(0, config=short), trial(1, config=short), trial(0, config=evolve(short, {"data.num_frames": 16}))]
    assert space(todo, root, cache=tmp_path).frames == 130 * (8 + 16) * 120 * 160 * 3
    assert space(todo, root).frames == 0


def test_frames_that_are_there_need_no_more_room(root, tmp_path):
    needed = space([trial(0)], root, cache=tmp_path).frames
    (tmp_path / "one.frames").write_bytes(b"0" * 1000)
    assert space([trial(0)], root, cache=tmp_path).frames == needed - 1000


TL = {"model.freeze_backbone": True, "model.head": "linear"}
TOKENS = 512 * 4 * 7 * 7 * 4 + HEAD_BYTES


def test_tokens_count_once_for_all_trials_and_seeds_that_share_them(root, tmp_path):
    centre = evolve(BASE, {"model.freeze_backbone": True, "train.token_views": 0})
    todo = [trial(seed, config=evolve(centre, {"head.alpha": alpha})) for seed in (0, 1) for alpha in (0.1, 0.2)]
    found = space(todo, root, cache=tmp_path)
    assert (found.tokens, found.token_clip) == (130 * TOKENS, (TOKENS, TOKENS))
    (tmp_path / "one.tokens").write_bytes(b"0" * 1000)
    assert space(todo, root, cache=tmp_path).tokens == 130 * TOKENS - 1000
    views = space([trial(0, config=evolve(centre, {"train.token_views": 3}))], root, cache=tmp_path / "new")
    assert views.tokens == (3 * 100 + 30) * TOKENS
    random = [trial(seed, config=evolve(centre, {"model.pretrained": False})) for seed in (0, 1)]
    assert space(random, root, cache=tmp_path / "new").tokens == 2 * 130 * TOKENS, "another backbone each"
    pooled = space([trial(0, config=evolve(centre, TL))], root, cache=tmp_path / "new")
    assert pooled.token_clip == (512 * 4 + HEAD_BYTES,) * 2


def test_views_that_no_epoch_trains_on_are_not_counted(root, tmp_path):
    many = evolve(BASE, {"model.freeze_backbone": True, "train.token_views": 99})
    assert space([trial(0, config=many)], root, cache=tmp_path).tokens == (EPOCHS * 100 + 30) * TOKENS


def test_the_plan_says_what_tokens_take_a_clip(root, tmp_path):
    half = evolve(BASE, {"model.freeze_backbone": True, "train.token_views": 0, "train.token_dtype": "float16"})
    todo = [trial(0, config=half), trial(0, config=evolve(half, TL))]
    line = next(line for line in space(todo, root, cache=tmp_path).lines() if line.startswith("tokens"))
    assert line == f"tokens: 2 kB to 201 kB a clip and view, up to 26 MB more in {tmp_path}"
    (line,) = space(todo[:1], root).lines()[1:]
    assert line.startswith("tokens: 201 kB a clip and view, in memory as far as it goes; name --cache")
    assert not any(line.startswith("tokens") for line in space([trial(0)], root, cache=tmp_path).lines())


def test_tokens_that_do_not_fit_are_warned_of_with_the_frames(root, tmp_path, monkeypatch):
    together = Disk(**{**ROOM, "root": root}, cache=tmp_path, frames=10**9, tokens=10**9, token_clip=(1, 1))
    assert together.lines()[-1] == "warning: results, frames and tokens do not fit: 6.0 GB of 5.0 GB free."
    monkeypatch.setattr(footprint, "_disk", lambda path: path)
    apart = replace(together, cache_free=10**9)
    assert f"warning: the frames and tokens do not fit into {tmp_path}: name another --cache." in apart.lines()


def test_the_sizes_come_from_the_shapes_of_the_model_unless_given(root):
    found = disk([trial(0)], store=Store(root), clips=lambda config: CLIPS, slots=1, cache=None)
    assert 2 * 3 * 4 * 60_000_000 < found.checkpoints < 2 * 3 * 4 * 70_000_000  # R(2+1)D-34


ROOM = {"root": None, "kept": 3 * 10**9, "checkpoints": 10**9, "free": 5 * 10**9}


def test_what_fits_is_told_in_one_line(root):
    assert Disk(**{**ROOM, "root": root}).lines() == [
        f"disk: 3.0 GB to keep, and up to 1.0 GB of checkpoints on the way; 5.0 GB free in {root}"
    ]


def test_what_does_not_fit_is_warned_of(root, tmp_path):
    full = Disk(**{**ROOM, "root": root, "free": 2 * 10**9})
    assert full.lines()[1:] == ["warning: the results do not fit: 4.0 GB of 2.0 GB free."]
    fits = Disk(**{**ROOM, "root": root}, cache=tmp_path, frames=9 * 10**8, cache_free=5 * 10**9)
    assert not any("warning" in line for line in fits.lines())
    together = replace(fits, frames=2 * 10**9)  # both on one disk
    assert together.lines()[-1] == "warning: results and frames do not fit: 6.0 GB of 5.0 GB free."


def test_frames_on_a_disk_of_their_own_are_warned_of_alone(root, tmp_path, monkeypatch):
    monkeypatch.setattr(footprint, "_disk", lambda path: path)
    apart = Disk(**{**ROOM, "root": root}, cache=tmp_path, frames=9 * 10**9, cache_free=5 * 10**9)
    assert apart.lines()[-1] == f"warning: the frames do not fit into {tmp_path}: name another --cache."


def test_free_space_is_that_of_the_folder_that_will_be_made(root):
    assert space([trial(0)], root).free == pytest.approx(shutil.disk_usage(root.parent).free, rel=0.05)


def shares(peaks, *, memory):
    """By the FFN width of each trial, which stands for its peak."""
    todo = [trial(config=evolve(BASE, {"head.ffn_dim": width})) for width in peaks]
    found = gpu_shares(
        todo,
        clips=lambda config: CLIPS,
        peak_bytes=lambda config, num_classes: peaks[config.head.ffn_dim],
        gpu_bytes=memory,
    )
    return [found[one.trial_id] for one in todo]


def test_a_share_is_one_nth_of_a_gpu_where_n_such_trials_fit():
    peaks = {1: 30 * GIB, 2: 20 * GIB, 3: 10 * GIB}  # 33.6, 22.6 and 11.6 GiB with head-room and context
    assert shares(peaks, memory=80 * GIB) == [0.5, 0.3333, 0.1666]


def test_shares_that_fill_a_gpu_never_take_more_memory_than_it_has():
    for tenth in range(1, 700):
        (share,) = shares({1: tenth * GIB // 10}, memory=80 * GIB)
        n = int(1 / share + 1e-6)
        assert n * share <= 1
        assert n * (HEAD_ROOM * tenth * GIB / 10 + CONTEXT_BYTES) <= 80 * GIB


def test_a_trial_that_fits_just_so_has_a_gpu_for_itself_and_a_larger_one_is_refused():
    just = int((16 * GIB - CONTEXT_BYTES) / HEAD_ROOM)
    assert shares({1: just}, memory=16 * GIB) == [1.0]
    with pytest.raises(InputError, match=r"must fit into one GPU, but a trial takes .* of 16\.0 GiB; lower"):
        shares({1: just + GIB}, memory=16 * GIB)


def test_each_kind_of_model_is_asked_for_its_peak_once():
    asked = []
    todo = [trial(seed, config=evolve(BASE, {"head.alpha": alpha})) for seed in (0, 1) for alpha in (0.1, 0.2)]
    gpu_shares(todo, clips=lambda config: CLIPS, peak_bytes=lambda *one: asked.append(one) or GIB, gpu_bytes=80 * GIB)
    assert [num_classes for _, num_classes in asked] == [5]


def test_shares_cannot_be_measured_without_a_gpu(monkeypatch):
    monkeypatch.setattr(footprint, "device_name", lambda device: None)
    with pytest.raises(InputError, match=r"--gpus-per-trial auto measures .* there is none; give a number"):
        measured_shares([trial(0)], clips=lambda config: CLIPS, probe=lambda config, num_classes: None)


def test_measured_shares_are_made_of_the_peak_of_a_step_and_the_memory_of_the_gpu(monkeypatch):
    monkeypatch.setattr(footprint, "device_name", lambda device: "a GPU")
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: SimpleNamespace(total_memory=80 * GIB))
    step = SimpleNamespace(peak_memory_bytes=30 * GIB)
    found = measured_shares([trial(0)], clips=lambda config: CLIPS, probe=lambda config, num_classes: step)
    assert list(found.values()) == [0.5]


@pytest.mark.parametrize(
    ("size", "text"), [(1, "1 kB"), (340_000_000, "340 MB"), (1_240_000_000, "1.2 GB"), (35_400_000_000, "35 GB")]
)
def test_an_amount_is_told_in_the_unit_that_fits(size, text):
    assert amount(size) == text
