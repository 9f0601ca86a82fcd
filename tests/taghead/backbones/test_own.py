"""A backbone of the user's own file."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from taghead.backbones.own import build_own, features_of, is_own, source_of
from taghead.config import Config, build, canonical, evolve, identity
from taghead.errors import InputError
from taghead.identity import identify
from taghead.infer import evaluate_split
from taghead.machine import Machine
from taghead.model import build_model, load_trained
from taghead.recipes import recipe
from taghead.record import read_record, trial_id
from taghead.run import run

SOURCE = """
from dataclasses import dataclass

from torch import nn


@dataclass
class Width:
    channels: "int" = 16


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, Width().channels, 3, stride=(2, 8, 8), padding=1)
        self.norm = nn.BatchNorm3d(Width().channels)

    def forward(self, clip):
        return self.norm(self.conv(clip)).relu()


def factory():
    return Net()


def tied():
    net = Net()
    net.again = nn.Conv3d(Width().channels, Width().channels, 3, padding=1)
    net.both = nn.Sequential(net.conv, net.norm)
    net.forward = lambda clip: net.again(net.both(clip).relu())
    return net


def with_numbers():
    net = Net()
    net.register_forward_hook(lambda module, inputs, output: output * float(output.max()))
    return net


def flat():
    return nn.Flatten()


def nothing():
    return None


def broken():
    return 1 / 0
"""
OWN = {"model.backbone": "my_net:factory", "model.pretrained": False}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_net.py").write_text(SOURCE)
    (tmp_path / "cut.py").write_text("def factory(:\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def small(**overrides: object) -> Config:
    sizes = {"data.num_frames": 8, "data.short_side": 36, "data.crop_size": 32, "train.epochs": 1, "head.ffn_dim": 16}
    return evolve(recipe("synthetic"), {**sizes, **OWN, **{key.replace("__", "."): v for key, v in overrides.items()}})


@pytest.mark.parametrize("name", ["my_net:factory", "my_lab.nets.video:make_3d", "_a:_b1"])
def test_a_module_and_a_function_are_a_backbone_of_ones_own(name: str) -> None:
    assert is_own(name)


@pytest.mark.parametrize("name", ["r2plus1d_34", "my-net:factory", "my_net:", ":factory", "../my_net:f", "a:b:c"])
def test_other_names_are_not(name: str) -> None:
    assert not is_own(name)
    assert source_of(name) is None


def test_the_source_is_read_when_the_backbone_is_set(folder: Path) -> None:
    config = evolve(Config(), OWN)
    assert config.model.backbone_source == SOURCE
    assert build(config.model_dump()) == config
    assert evolve(config, {"model.backbone": "r2plus1d_18"}).model.backbone_source is None


def test_the_source_is_part_of_the_identity(folder: Path) -> None:
    before = evolve(Config(), OWN)
    (folder / "my_net.py").write_text(SOURCE + "# another text\n")
    after = evolve(Config(), OWN)
    first, second = (trial_id(config, seed=0, data="d", weights=None) for config in (before, after))
    assert first != second
    assert evolve(before, {"head.alpha": 0.2}).model.backbone_source == SOURCE  # what was planned, not what lies there
    assert identity(canonical(before)) == identity(before)


def test_installed_modules_are_found_and_not_replaced(folder: Path) -> None:
    assert "class Sequential" in (source_of("torch.nn.modules.container:Sequential") or "")
    build_own("my_net:factory", SOURCE)
    with pytest.raises(ImportError):
        __import__("my_net")


def test_the_head_is_built_for_the_grid_that_comes_out(folder: Path) -> None:
    config = small()
    model = build_model(config, 5)
    assert model.head.grid == (4, 16)
    clip = torch.randn(2, 3, 8, 32, 32)
    assert model(clip).shape == (2, 5)
    assert build_model(evolve(config, {"model.head": "linear"}), 5)(clip).shape == (2, 5)


def test_looking_at_the_features_leaves_the_network_and_the_random_numbers_alone(folder: Path) -> None:
    backbone = build_own("my_net:factory", SOURCE)
    state, before = torch.get_rng_state(), {name: value.clone() for name, value in backbone.state_dict().items()}
    assert features_of(backbone, name="n", num_frames=8, crop_size=32) == (16, 4, 4, 4)
    assert torch.equal(torch.get_rng_state(), state)
    assert backbone.training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_a_network_that_needs_numbers_is_shown_some(folder: Path) -> None:
    assert features_of(build_own("my_net:with_numbers", SOURCE), name="n", num_frames=8, crop_size=32)[0] == 16


def test_batch_norms_take_the_configs_momentum_and_freezing(folder: Path) -> None:
    norms = [part for part in build_own("my_net:factory", SOURCE, norm_momentum=0.3).modules()]
    assert [part.momentum for part in norms if isinstance(part, nn.BatchNorm3d)] == [0.3]
    frozen = build_model(small(model__freeze_backbone=True), 5).train()
    assert not frozen.backbone.training
    assert frozen.head.training


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_nett:factory", "no my_nett.py in .*, and no installed module my_nett that is one file"),
        ("json:dumps", "no json.py in .*, and no installed module json that is one file"),
        ("json.decoder:py_scanstring", "json/decoder.py: TypeError: py_scanstring"),
        ("math:sqrt", "no math.py in"),
        ("my_net:factori", "my_net.py holds no function 'factori'"),
        ("my_net:nothing", "my_net:nothing must return a torch.nn.Module, but returned a NoneType"),
        ("my_net:broken", r"my_net.py:\d+: ZeroDivisionError: division by zero"),
        ("my_net:flat", r"my_net:flat must map \(B, 3, F, h, w\) to \(B, C, T, H, W\), but made \(1, 24576\)"),
        ("cut:factory", "cut.py:1: SyntaxError"),
        ("my-net:factory", "no backbone 'my-net:factory' .*my_module:factory"),
    ],
)
def test_what_does_not_work_is_one_line(folder: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build_model(small(model__backbone=name), 5)
    assert "\n" not in str(caught.value)


def test_a_clip_that_the_network_cannot_take_is_told(folder: Path) -> None:
    (folder / "picky.py").write_text(
        "from torch import nn\n\ndef factory():\n    return nn.Conv3d(3, 8, (9, 1, 1), stride=(1, 8, 8))\n"
    )
    with pytest.raises(InputError, match=r"picky:factory fails on a clip of \(1, 3, 8, 32, 32\): RuntimeError"):
        build_model(small(model__backbone="picky:factory"), 5)


@pytest.mark.parametrize("values", [{"backbone": "my_net:factory"}, {"backbone_source": "x = 1"}])
def test_a_source_stands_beside_a_backbone_of_ones_own_only(values: dict[str, str]) -> None:
    with pytest.raises(InputError, match="leave it out, and give backbones by --set"):
        build({"model": values})


def test_a_trial_runs_the_planned_text_wherever_it_runs(
    folder: Path, tiny_clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, config = Machine(data_root=tiny_clips), small()
    who = identify(config, machine=machine)
    planned = trial_id(config, seed=0, data=who.data, weights=None)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    os.remove(folder / "my_net.py")
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    monkeypatch.chdir(elsewhere)
    run(config, seed=0, machine=machine, folder=elsewhere / "trial", expect=planned)
    record = read_record(elsewhere / "trial")
    assert (record.status, record.trial_id) == ("complete", planned)
    assert record.config.model.backbone_source == SOURCE


def test_a_trial_on_tied_weights_keeps_them_and_they_come_back(folder: Path, tiny_clips: Path) -> None:
    machine = Machine(data_root=tiny_clips)
    record = run(
        small(model__backbone="my_net:tied"), seed=0, machine=machine, folder=folder / "trial", keep=("weights",)
    )
    trained = load_trained(folder / "trial")
    assert trained.model.backbone.both[0].weight is trained.model.backbone.conv.weight
    assert evaluate_split(trained, machine=machine).predictions.metrics() == record.metrics


def test_a_plan_fails_where_the_trials_would(folder: Path, tiny_clips: Path) -> None:
    with pytest.raises(InputError, match="ZeroDivisionError"):
        identify(small(model__backbone="my_net:broken"), machine=Machine(data_root=tiny_clips))
