import pytest
import torch
from torch import nn

from taghead.backbones import BACKBONES, freeze
from taghead.backbones.folded import SMALL, _fast, _Whole, inference_backbone
from taghead.errors import InputError


def clip_of(clips: int = 1) -> torch.Tensor:
    """Odd in height, so that strides round."""
    return torch.randn(clips, 3, 8, 17, 20, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def narrow(randomised):
    torch.manual_seed(0)
    return randomised(BACKBONES["r2plus1d_narrow"]())


def distance(ours: torch.Tensor, wanted: torch.Tensor) -> float:
    """Of all features, relative to their norm."""
    return ((ours - wanted).norm() / wanted.norm()).item()


class Own(nn.Module):
    """A user's network around one of ours."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, clip):
        return self.inner(clip)


@pytest.mark.parametrize("name", BACKBONES)
def test_features_are_those_of_the_backbone_and_no_norm_is_left(name, randomised):
    torch.manual_seed(0)
    backbone = randomised(BACKBONES[name]())
    clip = clip_of().double()
    network = inference_backbone(backbone)
    with torch.no_grad():
        torch.testing.assert_close(network(clip), backbone(clip), rtol=1e-9, atol=1e-12)
        assert distance(inference_backbone(backbone.float())(clip.float()), network(clip)) < 1e-5
    assert not [part for part in network.modules() if isinstance(part, nn.BatchNorm3d | nn.Conv3d)]


@pytest.mark.parametrize("kernel", [(1, 1, 1), (1, 3, 3), (3, 1, 1), (7, 1, 1), (3, 3, 3), (5, 7, 7), (3, 1, 3)])
@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 1, 1), (1, 2, 2), (2, 2, 2), (4, 1, 2)])
@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("clips", [1, 2])
def test_each_convolution_is_the_same_map(kernel, stride, groups, clips):
    torch.manual_seed(0)
    padding = tuple(size // 2 for size in kernel)
    conv = nn.Conv3d(8, 16, kernel, stride, padding, groups=groups).double()
    features = torch.randn(clips, 8, 7, 9, 8).double()
    with torch.no_grad():
        torch.testing.assert_close(_fast(conv)(features), conv(features))


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 0},
        {"kernel_size": 1, "padding": 1},
        {"kernel_size": (1, 3, 3), "padding": (1, 0, 1)},
        {"kernel_size": (3, 1, 1), "padding": (0, 1, 0)},
        {"kernel_size": 3, "padding": "same"},
        {"kernel_size": 3, "padding": 2, "dilation": 2},
        {"kernel_size": (1, 3, 3), "padding": (0, 1, 1), "padding_mode": "replicate"},
    ],
)
def test_unusual_paddings_and_dilations_are_the_same_map_too(options):
    conv = nn.Conv3d(8, 4, **options).double()
    features = torch.randn(1, 8, 7, 9, 8).double()
    with torch.no_grad():
        torch.testing.assert_close(_fast(conv)(features), conv(features))


def test_a_whole_kernel_is_the_same_map_on_both_sides_of_the_size_where_its_computation_changes():
    conv = nn.Conv3d(16, 8, 3, padding=1, bias=False)
    whole = _fast(conv)
    assert isinstance(whole, _Whole)
    height = SMALL // (16 * 4)
    for rows in (height, height + 1):
        features = torch.randn(1, 16, 4, rows, 3)
        with torch.no_grad():
            torch.testing.assert_close(whole(features), conv(features), rtol=1e-4, atol=1e-5)


def test_no_layer_copies_the_features_into_another_order(narrow):
    network = inference_backbone(narrow.float())
    seen = []

    def watch(layer, arguments, output):
        seen.append(all(one.is_contiguous(memory_format=torch.channels_last_3d) for one in (*arguments, output)))

    for part in network.modules():
        if hasattr(part, "weight"):
            part.register_forward_hook(watch)
    with torch.no_grad():
        network(clip_of(clips=2))
    assert len(seen) == 22
    assert all(seen)


def test_the_backbone_stays_as_it_was_and_its_further_training_changes_nothing(narrow):
    before = {name: tensor.clone() for name, tensor in narrow.state_dict().items()}
    clip = clip_of(clips=2).double()
    network = inference_backbone(narrow)
    with torch.no_grad():
        features = network(clip)
        assert narrow.state_dict().keys() == before.keys()
        for name, tensor in narrow.state_dict().items():
            assert torch.equal(tensor, before[name])
            tensor.mul_(2)
        assert torch.equal(network(clip), features)


def test_the_network_stays_in_eval_mode_and_takes_no_gradients(narrow):
    network = inference_backbone(narrow)
    network.train()
    assert not any(part.training for part in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_frozen_backbone_has_the_same_features_and_stays_frozen(narrow):
    freeze(narrow)
    clip = clip_of(clips=2).double()
    torch.testing.assert_close(inference_backbone(narrow)(clip), narrow(clip))
    assert not narrow.train().training


def test_the_same_clip_gives_the_same_bits(narrow):
    network, clip = inference_backbone(narrow.float()), clip_of(clips=2)
    assert torch.equal(network(clip), network(clip))
    assert torch.equal(network(clip), inference_backbone(narrow)(clip))


def test_a_network_that_is_not_ours_is_given_back_itself(narrow):
    own = Own(narrow).eval()
    assert inference_backbone(own) is own


def test_a_watched_network_is_given_back_itself(narrow):
    narrow.layer1.register_forward_hook(lambda *_: None)
    assert inference_backbone(narrow) is narrow


def test_a_network_with_a_part_in_training_mode_is_given_back_itself(narrow):
    narrow.layer1.train()
    assert inference_backbone(narrow) is narrow


@pytest.mark.parametrize("wrap", [lambda network: network, Own])
def test_bfloat16_moves_the_features_by_about_its_precision(narrow, wrap):
    backbone, clip = wrap(narrow.float()).eval(), clip_of(clips=2)
    with torch.no_grad():
        features = inference_backbone(backbone, precision="bfloat16")(clip)
        assert features.dtype == torch.float32
        assert 1e-4 < distance(features, backbone(clip)) < 1e-2


def test_errors_state_rule_value_and_remedy(narrow):
    with pytest.raises(InputError, match="one of float32, bfloat16, but got 'half'"):
        inference_backbone(narrow, precision="half")
    with pytest.raises(InputError, match="must be in eval mode, but is in training mode; call its eval"):
        inference_backbone(narrow.train())
