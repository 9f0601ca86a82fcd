"""The table of backbones, and freezing (stage TL)."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from taghead.backbones import BACKBONES, check_input, freeze, grid_of
from taghead.errors import InputError

USES_THE_TABLE = "from taghead.backbones import grid_of; assert grid_of('r2plus1d_34', 32, 112) == (4, 7, 7)"


def _loads_torch(code: str) -> bool:
    probe = f"{code}; import sys; print('torch' in sys.modules)"
    return subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout == "True\n"


def test_the_table_of_clips_and_grids_needs_no_torch():
    assert not _loads_torch(USES_THE_TABLE)


def test_the_check_for_torch_can_fail():
    assert _loads_torch(f"{USES_THE_TABLE}; from taghead.backbones import BACKBONES; BACKBONES['r2plus1d_18'].weights")


@pytest.mark.parametrize(
    ("name", "num_frames", "crop_size", "message"),
    [
        (
            "r2plus1d_34",
            30,
            112,
            "num_frames must be a positive multiple of 8 for r2plus1d_34, but got 30; try 24 or 32.",
        ),
        (
            "r2plus1d_narrow",
            0,
            48,
            "num_frames must be a positive multiple of 4 for r2plus1d_narrow, but got 0; try 4 or 8.",
        ),
        ("i3d_r50", 9, 224, "num_frames must be a positive multiple of 2 for i3d_r50, but got 9; try 8 or 10."),
        (
            "slowfast_r50",
            30,
            224,
            "num_frames must be a positive multiple of 4 for slowfast_r50, but got 30; try 28 or 32.",
        ),
        ("slow_r50", 0, 224, "num_frames must be a positive multiple of 1 for slow_r50, but got 0; try 1 or 2."),
        ("r2plus1d_18", 16, 8, "crop_size >= 16 pixels must hold for r2plus1d_18, but got 8; try 16."),
        ("x3d_m", 16, 31, "crop_size >= 32 pixels must hold for x3d_m, but got 31; try 32."),
        ("r2plus1d_35", 16, 112, "'r2plus1d_35' is no backbone; did you mean 'r2plus1d_34'?"),
    ],
)
def test_a_clip_that_does_not_fit_is_refused_with_the_rule(name, num_frames, crop_size, message):
    for check in (check_input, grid_of):
        with pytest.raises(InputError) as caught:
            check(name, num_frames, crop_size)
        assert str(caught.value) == message


def test_public_files_are_named_with_the_colours_they_were_trained_with():
    weights = BACKBONES["r2plus1d_34"].weights
    assert next(iter(weights.files)) == "r2plus1d_34_clip32_ig65m_from_scratch-449a7af9.pth"
    assert all(url.endswith(f"/{name}") for name, url in weights.files.items())
    assert weights.mean == (0.43216, 0.394666, 0.37645)
    assert weights.std == (0.22803, 0.22145, 0.216989)
    assert BACKBONES["r2plus1d_narrow"].weights.mean == (0.45, 0.45, 0.45)


class _Parent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.Dropout(0.5))
        self.head = nn.Linear(4, 2)

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(clip).mean((2, 3, 4)))


def _as_it_is(model: nn.Module) -> nn.Module:
    return model


def _pickled(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("made", [_as_it_is, copy.deepcopy, _pickled])
def test_a_frozen_backbone_stays_what_it_was_through_training(made):
    model = _Parent()
    freeze(model.backbone)
    model = made(model)
    before = copy.deepcopy(model.backbone.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    head = model.head.weight.clone()
    for mode in (True, False, True):
        model.train(mode)
        assert not any(module.training for module in model.backbone.modules())
        assert model.head.training is mode
        model(torch.randn(2, 3, 2, 4, 4) + 5).sum().backward()
        optimizer.step()
    assert not torch.equal(model.head.weight, head)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.backbone.state_dict().items())


def test_running_statistics_move_where_nothing_is_frozen():
    model = _Parent().train()
    model(torch.randn(2, 3, 2, 4, 4) + 5)
    assert not torch.equal(model.backbone.get_buffer("1.running_mean"), torch.zeros(4))


def test_freezing_changes_no_name():
    model = _Parent()
    names = list(model.state_dict())
    freeze(model.backbone)
    assert list(model.state_dict()) == names
