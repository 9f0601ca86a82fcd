from pathlib import Path

import numpy as np
import pytest
import torch

from taghead import probe
from taghead.checkpoint import load_state
from taghead.config import Config, evolve
from taghead.machine import Machine
from taghead.model import build_model
from taghead.probe import device_name, file_sizes, step_cost
from taghead.recipes import recipe
from taghead.run import CHECKPOINT, run

TINY = evolve(
    recipe("synthetic"),
    {"data.num_frames": 8, "data.short_side": 36, "data.crop_size": 32, "head.ffn_dim": 32, "train.epochs": 1},
)  # fmt: skip
VARIANTS = {
    "tag": {},
    "projected": {"head.width": 64, "head.classifier_norm": True},
    "linear": {"model.head": "linear"},
    "frozen": {"model.freeze_backbone": True},
    "best epoch": {"train.selection": "best_val"},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a_step_is_measured_for_every_kind_of_model(changes: dict[str, object]) -> None:
    config = evolve(TINY, changes)
    cost = step_cost(config, num_classes=5)
    assert cost.seconds_per_clip > 0 and cost.evaluation_seconds_per_clip > 0
    assert cost.parameters == sum(one.numel() for one in build_model(config, 5).parameters())


def test_a_cpu_is_shown_few_clips_and_says_nothing_of_memory() -> None:
    cost = step_cost(TINY, num_classes=5)
    assert TINY.train.batch_size > cost.batch_size == probe.CPU_BATCH
    assert cost.peak_memory_bytes is None and cost.allocated_bytes is None
    assert step_cost(evolve(TINY, {"train.batch_size": 1}), num_classes=5).batch_size == 1


def steps_of(config: Config, monkeypatch: pytest.MonkeyPatch, *, slow: float) -> int:
    steps = []

    def train(model: object, optimizer: object, batches: list[object], **_: object) -> None:
        steps.extend(batches)

    monkeypatch.setattr(probe, "train_epoch", train)
    monkeypatch.setattr(probe, "SLOW", slow)
    step_cost(config, num_classes=5, batches=3)
    return len(steps)


def test_one_step_warms_up_unless_that_is_slow_enough_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps_of(TINY, monkeypatch, slow=1e9) == 4
    assert steps_of(TINY, monkeypatch, slow=0.0) == 1


def test_a_probe_leaves_the_number_of_threads_as_it_was() -> None:
    before = torch.get_num_threads()
    step_cost(TINY, num_classes=5, threads=before + 1)
    assert torch.get_num_threads() == before


def test_what_does_not_fit_into_a_gpu_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(probe, "train_epoch", full)
    with pytest.raises(ValueError, match=r"training step of 2 clips .*8 frames of 32 pixels.* lower train\.batch_size"):
        step_cost(TINY, num_classes=5)


STORED = {"model.freeze_backbone": True, "train.token_views": 0}
FILES = VARIANTS | {
    "stored tokens": STORED,
    "stored tokens, best epoch": {**STORED, "train.selection": "best_val"},
    "stored tokens, linear": {**STORED, "model.head": "linear"},
    "stored tokens, linear, another loop": {**STORED, "model.head": "linear", "train.precision": "bfloat16"},
}


@pytest.mark.parametrize("changes", FILES.values(), ids=FILES)
def test_the_sizes_are_those_of_the_files(changes: dict[str, object], tmp_path: Path, tiny_clips: Path) -> None:
    config, path = evolve(TINY, {"model.pretrained": False, **changes}), tmp_path / CHECKPOINT
    found: list[tuple[int, int]] = []  # bytes, tensors

    def look(row: object) -> None:
        state = load_state(path)
        assert state is not None and state.model is not None
        found.append((path.stat().st_size, (4 if state.best else 3) * len(state.model)))

    run(config, seed=0, machine=Machine(data_root=tiny_clips), folder=tmp_path, keep=("weights",), on_epoch=look)
    sizes, weights = file_sizes(config, num_classes=4), tmp_path / "weights.safetensors"
    found.append((weights.stat().st_size, len(build_model(config, 4).state_dict())))
    for (there, tensors), expected in zip(found, (sizes.checkpoint_bytes, sizes.weights_bytes), strict=True):
        assert expected <= there <= expected + 1024 * (tensors + 2), "beside numbers there are names and padding"


def test_the_shapes_of_kept_vectors_are_those_that_a_trial_keeps(tmp_path: Path, tiny_clips: Path) -> None:
    config = evolve(TINY, {"head.width": 64, "model.pretrained": False, "model.freeze_backbone": True})
    run(config, seed=0, machine=Machine(data_root=tiny_clips), folder=tmp_path, keep=("embeddings", "frame_means"))
    sizes = file_sizes(config, num_classes=4)
    with np.load(tmp_path / "frame_means.npz") as file:
        assert file["frame_means"].shape[1:] == (sizes.time_steps, sizes.embedding_channels)
    assert file_sizes(evolve(config, {"model.head": "linear"}), num_classes=4).time_steps is None


def test_a_device_is_called_what_records_call_it(tmp_path: Path, tiny_clips: Path) -> None:
    config = evolve(TINY, {"model.pretrained": False, "model.freeze_backbone": True})
    record = run(config, seed=0, machine=Machine(data_root=tiny_clips), folder=tmp_path)
    assert device_name("cpu") == record.machine.device


def test_sizes_of_a_large_model_are_asked_without_making_it() -> None:
    paper = file_sizes(recipe("haa500"), num_classes=500)
    assert 4 * 67_004_795 < paper.weights_bytes < 4 * 67_100_000  # batch norms keep statistics beside parameters
    assert paper.checkpoint_bytes > 2.9 * paper.weights_bytes
