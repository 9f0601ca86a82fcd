"""Whose tensors a file holds: every backbone of ours by its public names, and those that are not to be had here."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from taghead.backbones import BACKBONES
from taghead.errors import InputError
from taghead.recipes import recipe
from taghead.weights import load_backbone
from taghead.weights_file import WeightsFile
from taghead.weights_layout import recognise, views

State = dict[str, Tensor]
# Class counts and last layers of the public files.
CLASSIFIERS = {
    "r2plus1d_34": ("fc", 359),
    "r2plus1d_18": ("fc", 400),
    "r3d_18": ("fc", 400),
    "r2plus1d_narrow": ("fc", 7),
    "i3d_r50": ("blocks.6.proj", 400),
    "slow_r50": ("blocks.5.proj", 400),
    "csn_r101": ("blocks.5.proj", 400),
    "slowfast_r50": ("blocks.6.proj", 400),
    "x3d_m": ("blocks.5.proj", 400),
    "ir_csn_152": ("cls_head.fc_cls", 400),
}


def public(name: str) -> State:
    """A backbone's tensors with the public classifier: sizes alone."""
    with torch.device("meta"):
        network = BACKBONES[name]()
        layer, classes = CLASSIFIERS[name]
        channels = BACKBONES[name].channels
        head = nn.Linear(channels, classes).state_dict()
    return network.state_dict() | {f"{layer}.{key}": value for key, value in head.items()}


def opened(tensors: State, **metadata: str) -> WeightsFile:
    return WeightsFile(Path("any.pth"), "torch file", (), tensors, metadata)


def prefixed(tensors: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def test_every_backbone_has_its_line_here() -> None:
    assert CLASSIFIERS.keys() == BACKBONES.keys()


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_is_recognised_with_its_classes(name: str) -> None:
    found = recognise(opened(public(name)))
    assert (found.kind, found.name, found.num_classes) == ("backbone", name, CLASSIFIERS[name][1])
    assert str(found) == f"{name}, with a classifier of {found.num_classes} classes"


def test_prefixes_missing_counters_and_a_missing_classifier_do_not_hide_a_backbone() -> None:
    state = {
        name: tensor
        for name, tensor in public("r3d_18").items()
        if not name.endswith("num_batches_tracked") and not name.startswith("fc.")
    }
    for prefix in ("", "module.", "model.", "backbone.", "model.module.backbone."):
        found = recognise(opened(prefixed(state, prefix)))
        assert (found.name, found.num_classes, found.view.prefix) == ("r3d_18", None, prefix)
        assert str(found) == "r3d_18, without classifier"


def test_a_classifier_may_stand_beside_the_prefix_backbone() -> None:
    state = prefixed(BACKBONES["r2plus1d_narrow"]().state_dict(), "backbone.")
    found = recognise(opened(state | {"cls_head.fc_cls.weight": torch.ones(9, 128), "cls_head.scale": torch.ones(1)}))
    assert (found.name, found.num_classes) == ("r2plus1d_narrow", 9)
    assert found.view.beside == ("cls_head.fc_cls.weight", "cls_head.scale")


def test_prefixes_are_taken_off_one_by_one() -> None:
    state = {"model.backbone.a": torch.ones(1), "model.head.b": torch.ones(1)}
    assert [(view.prefix, list(view.tensors), view.beside) for view in views(state)] == [
        ("", ["model.backbone.a", "model.head.b"], ()),
        ("model.", ["backbone.a", "head.b"], ()),
        ("model.backbone.", ["a"], ("model.head.b",)),
    ]


FOREIGN = [
    ("conv1.conv.conv_s.weight", (83, 3, 1, 7, 7), "mmaction2's own r2plus1d_34"),
    ("layer2.0.conv1.0.weight", (128, 64, 1, 3, 3), "torchvision's mc3_18"),
    ("conv1.conv.weight", (64, 3, 1, 7, 7), "mmaction2's SlowOnly"),
    ("conv1.conv.weight", (64, 3, 5, 7, 7), "mmaction2's I3D"),
    ("slow_path.conv1.conv.weight", (64, 3, 1, 7, 7), "mmaction2's SlowFast"),
    ("s1.pathway0_stem.conv.weight", (64, 3, 1, 7, 7), "facebookresearch/SlowFast"),
    ("Conv3d_1a_7x7.conv3d.weight", (64, 3, 7, 7, 7), "the Inception I3D"),
    ("conv1.weight", (64, 3, 7, 7, 7), "a 3D ResNet"),
    ("conv1.weight", (64, 3, 7, 7), "a 2D ResNet"),
    ("conv_proj.weight", (96, 3, 3, 7, 7), "torchvision's MViT"),
    ("patch_embed.proj.weight", (768, 3, 2, 16, 16), "a vision Transformer"),
]


@pytest.mark.parametrize(("name", "shape", "words"), FOREIGN)
@pytest.mark.parametrize("prefix", ["", "module.backbone."])
def test_networks_that_are_not_here_are_named(name: str, shape: tuple[int, ...], words: str, prefix: str) -> None:
    found = recognise(opened({f"{prefix}{name}": torch.empty(shape, device="meta")}))
    assert found.kind == "foreign" and found.name.startswith(words)
    assert found.remedy.startswith(f"They are those of {words}")


def test_an_unknown_network_is_told_by_what_it_is_nearest_to() -> None:
    state = public("r2plus1d_18")
    del state["layer4.1.conv2.1.weight"]
    found = recognise(opened(state))
    assert (found.kind, found.name) == ("unknown", "184 of the 185 tensors of r2plus1d_18 are there")
    nothing = recognise(opened({"a.b": torch.ones(1), "a.c": torch.ones(1), "d": torch.ones(1)}))
    assert str(nothing) == "no network known here; their names begin with a, d"


def trial(**metadata: str) -> WeightsFile:
    tensors = {"backbone.x": torch.ones(1), "head.classifier.1.weight": torch.ones(5, 2)}
    return opened(tensors, trial_id="0" * 16, **metadata)


def test_a_trial_of_ours_is_told_by_its_metadata() -> None:
    found = recognise(trial(config=recipe("synthetic").model_dump_json()))
    assert str(found) == "a trial of ours: r2plus1d_narrow with a head, with a classifier of 5 classes"
    assert "those of a trial on r2plus1d_narrow" in found.remedy
    assert "a backbone that it does not name" in str(recognise(trial()))
    with pytest.raises(InputError, match=r"any\.pth: unknown key 'no'"):
        recognise(trial(config=json.dumps({"no": 1})))


def test_the_public_r2plus1d_34_and_the_other_one_of_its_name_are_kept_apart(tmp_path: Path) -> None:
    state = {"backbone.conv1.conv.conv_s.weight": torch.zeros(()).expand(83, 3, 1, 7, 7)}
    torch.save({"state_dict": state}, tmp_path / "r2plus1d_r34.pth")
    with pytest.raises(InputError) as caught:
        load_backbone(BACKBONES["r2plus1d_narrow"](), tmp_path / "r2plus1d_r34.pth")
    assert "IG-65M's has 45" in str(caught.value)
