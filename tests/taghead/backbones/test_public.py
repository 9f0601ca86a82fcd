"""Every backbone against what is published of it: names, sizes, multiply-adds, norms, files."""

import copy
import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from taghead.backbones import BACKBONES, freeze, grid_of

# As the public networks' own code names its tensors, classifier included: a number is a batch norm of so many channels
# (five entries), a list the shape of a weight.
PUBLIC_NAMES = json.loads((Path(__file__).parent / "public_names.json").read_text())
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
PUBLIC = sorted(PUBLIC_NAMES)

# Parameters; the usual clip, its grid and multiply-adds in 10^9; the same at 32 and at 64 frames of 112 pixels.
SIZES = {
    "r2plus1d_34": (63_491_975, ((8, 112), (1, 7, 7), "38.09"), ((4, 7, 7), "152.356"), ((8, 7, 7), "304.71")),
    "r2plus1d_18": (31_300_125, ((16, 112), (2, 7, 7), "40.52"), ((4, 7, 7), "81.04"), ((8, 7, 7), "162.08")),
    "r3d_18": (33_166_272, ((16, 112), (2, 7, 7), "40.70"), ((4, 7, 7), "81.39"), ((8, 7, 7), "162.79")),
    "i3d_r50": (27_223_872, ((8, 224), (4, 7, 7), "28.41"), ((16, 4, 4), "29.40"), ((32, 4, 4), "58.80")),
    "slow_r50": (31_634_496, ((8, 224), (8, 7, 7), "41.74"), ((32, 4, 4), "43.97"), ((64, 4, 4), "87.95")),
    "csn_r101": (21_394_176, ((32, 224), (4, 7, 7), "56.47"), ((4, 4, 4), "14.23"), ((8, 4, 4), "28.46")),
    "slowfast_r50": (33_644_488, ((32, 224), (8, 7, 7), "50.31"), ((8, 4, 4), "13.19"), ((16, 4, 4), "26.37")),
    "x3d_m": (2_006_130, ((16, 224), (16, 7, 7), "4.67"), ((32, 4, 4), "2.47"), ((64, 4, 4), "4.95")),
    "ir_csn_152": (28_883_968, ((32, 224), (4, 7, 7), "74.05"), ((4, 4, 4), "18.62"), ((8, 4, 4), "37.24")),
}
NUM_ENTRIES = {"r2plus1d_34": 416, "r2plus1d_18": 224, "r3d_18": 122}  # with the classifier


@functools.cache
def _on_meta(name: str) -> Any:
    with torch.device("meta"):
        return BACKBONES[name]()


@functools.cache
def _without_norms(name: str) -> nn.Module:
    """The network that has the same convolutions: a norm changes no shape and has no products, but takes time."""
    network = copy.deepcopy(_on_meta(name)).eval()
    for parent in list(network.modules()):
        for child, module in parent.named_children():
            if isinstance(module, nn.BatchNorm3d):
                setattr(parent, child, nn.Identity())
    return network


@torch.no_grad()
def _features(name: str, num_frames: int, crop_size: int) -> torch.Tensor:
    return _without_norms(name)(torch.empty(1, 3, num_frames, crop_size, crop_size, device="meta"))


def _entries(tree: int | list[int] | dict, name: str = "") -> dict[str, tuple[int, ...]]:
    """The tree of names as a state dict's names and shapes."""
    if isinstance(tree, int):
        return {f"{name}.{part}": () if part == NORM[-1] else (tree,) for part in NORM}
    if isinstance(tree, list):
        return {name if name.endswith(("weight", "bias")) else f"{name}.weight": tuple(tree)}
    parts = (_entries(child, f"{name}.{part}".lstrip(".")) for part, child in tree.items())
    return {key: shape for entries in parts for key, shape in entries.items()}


def test_every_backbone_but_our_own_narrow_one_is_checked():
    assert PUBLIC == sorted(SIZES) == sorted(set(BACKBONES) - {"r2plus1d_narrow"})


@pytest.mark.parametrize("name", PUBLIC)
def test_names_and_shapes_are_those_of_the_public_network_without_its_classifier(name):
    public = _entries(PUBLIC_NAMES[name])
    classifier = _on_meta(name).classifier_prefixes
    ours = {key: tuple(tensor.shape) for key, tensor in _on_meta(name).state_dict().items()}
    assert ours == {key: shape for key, shape in public.items() if not key.startswith(classifier)}
    assert 0 < len(public) - len(ours) < 10  # the classifier, and nothing else
    assert len(public) == NUM_ENTRIES.get(name, len(public))


@pytest.mark.parametrize(
    ("name", "key", "shape"),
    [
        ("r3d_18", "stem.0.weight", (64, 3, 3, 7, 7)),
        ("r3d_18", "layer2.0.conv1.0.weight", (128, 64, 3, 3, 3)),
        ("i3d_r50", "blocks.0.conv.weight", (64, 3, 5, 7, 7)),
        ("i3d_r50", "blocks.3.res_blocks.1.branch2.conv_a.weight", (128, 512, 1, 1, 1)),
        ("i3d_r50", "blocks.5.res_blocks.1.branch2.conv_a.weight", (512, 2048, 3, 1, 1)),
        ("slow_r50", "blocks.1.res_blocks.0.branch1_norm.weight", (256,)),
        ("slow_r50", "blocks.4.res_blocks.2.branch2.conv_a.weight", (512, 2048, 3, 1, 1)),
        ("csn_r101", "blocks.3.res_blocks.22.branch2.conv_b.weight", (256, 1, 3, 3, 3)),
        ("slowfast_r50", "blocks.0.multipathway_fusion.conv_fast_to_slow.weight", (16, 8, 7, 1, 1)),
        ("slowfast_r50", "blocks.1.multipathway_blocks.0.res_blocks.0.branch2.conv_a.weight", (64, 80, 1, 1, 1)),
        ("x3d_m", "blocks.0.conv.conv_t.weight", (24, 3, 1, 3, 3)),
        ("x3d_m", "blocks.0.conv.conv_xy.weight", (24, 1, 5, 1, 1)),
        ("x3d_m", "blocks.4.res_blocks.6.branch2.norm_b.1.block.2.weight", (432, 32, 1, 1, 1)),
        ("ir_csn_152", "conv1.conv.weight", (64, 3, 3, 7, 7)),
        ("ir_csn_152", "layer3.35.conv2.0.conv.weight", (256, 1, 3, 3, 3)),
        ("ir_csn_152", "layer1.0.downsample.bn.running_var", (256,)),
    ],
)
def test_well_known_entries_are_there(name, key, shape):
    assert _on_meta(name).state_dict()[key].shape == shape


@pytest.mark.parametrize(("name", "layers"), [("slow_r50", 50), ("csn_r101", 101), ("ir_csn_152", 152)])
def test_a_network_has_as_many_layers_of_weights_as_its_name_says(name, layers):
    shapes = {key: tensor.shape for key, tensor in _on_meta(name).state_dict().items() if tensor.ndim == 5}
    in_line = [key for key in shapes if "branch1" not in key and "downsample" not in key]
    assert len(in_line) + len(("the classifier",)) == layers


@pytest.mark.parametrize("name", PUBLIC)
def test_parameters_are_as_many_as_published(name):
    assert sum(parameter.numel() for parameter in _on_meta(name).parameters()) == SIZES[name][0]


@pytest.mark.parametrize("name", PUBLIC)
def test_multiply_adds_and_grids_are_those_of_the_usual_clip_and_of_the_papers(name):
    _, native, short, long = SIZES[name]
    for (num_frames, crop_size), grid, giga in (native, ((32, 112), *short), ((64, 112), *long)):
        with FlopCounterMode(display=False) as counter:
            features = _features(name, num_frames, crop_size)
        digits = len(giga.split(".")[1])
        assert f"{counter.get_total_flops() / 2 / 1e9:.{digits}f}" == giga
        assert features.shape == (1, BACKBONES[name].channels, *grid)
        assert grid_of(name, num_frames, crop_size) == grid


@pytest.mark.parametrize("name", sorted(BACKBONES))
@settings(max_examples=6)
@given(steps=st.integers(1, 9), extra=st.integers(0, 98))
def test_the_table_foretells_the_features_of_every_legal_clip(name, steps, extra):
    row = BACKBONES[name]
    num_frames, crop_size = steps * row.temporal_stride, row.spatial_stride + extra
    assert _features(name, num_frames, crop_size).shape == (1, row.channels, *grid_of(name, num_frames, crop_size))
    assert _without_norms(name).channels == row.channels


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_norms_are_those_of_the_public_code_but_for_a_momentum_that_is_given(name):
    eps = 1e-3 if name in ("r2plus1d_34", "ir_csn_152") else 1e-5
    with torch.device("meta"):
        without_any = BACKBONES[name](norm_momentum=0.0)
    for network, momentum in ((_on_meta(name), 0.9 if name == "r2plus1d_34" else 0.1), (without_any, 0.0)):
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm3d)]
        assert {(norm.eps, norm.momentum) for norm in norms} == {(eps, momentum)}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_frozen_network_keeps_its_norms_in_training(name):
    network = copy.deepcopy(_on_meta(name))
    freeze(network)
    nn.Sequential(network).train()
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("name", PUBLIC)
def test_public_files_are_named_with_where_they_are_and_the_clips_they_were_made_from(name):
    weights = BACKBONES[name].weights
    assert weights.files
    assert all(url.startswith("https://") and url.endswith(f"/{file}") for file, url in weights.files.items())
    assert weights.clip is not None
    assert grid_of(name, *weights.clip)
    assert all(0 < value < 1 for value in (*weights.mean, *weights.std))


def test_networks_of_pytorchvideo_were_trained_with_its_gray_and_mmaction2s_with_imagenets_colours():
    for name in ("i3d_r50", "slow_r50", "csn_r101", "slowfast_r50", "x3d_m"):
        weights = BACKBONES[name].weights
        assert (weights.mean, weights.std) == ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))
    of_mmaction2 = BACKBONES["ir_csn_152"].weights
    assert [255 * value for value in of_mmaction2.mean] == pytest.approx([123.675, 116.28, 103.53])
    assert [255 * value for value in of_mmaction2.std] == pytest.approx([58.395, 57.12, 57.375])
