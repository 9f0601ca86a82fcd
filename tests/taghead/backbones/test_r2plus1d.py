"""R(2+1)D and R3D: restated from the names of their tensors, and in the cases that have an answer."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taghead.backbones.r2plus1d import Block, r2plus1d_18, r2plus1d_34, r2plus1d_narrow, r3d_18
from taghead.errors import InputError


def _no_norm(channels: int) -> nn.Module:
    return nn.Identity()


def test_the_narrow_network_is_small_and_has_a_grid_of_its_own():
    network = r2plus1d_narrow()
    assert sum(parameter.numel() for parameter in network.parameters()) == 440_488
    assert sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values()) < 2_000_000
    assert network(torch.zeros(2, 3, 16, 48, 48)).shape == (2, 128, 4, 3, 3)
    wide = r2plus1d_narrow(stem=(4, 8), widths=(8, 24), depths=(2, 1), strides=((1, 2), (2, 1)))
    assert wide.channels == 24
    assert wide(torch.zeros(1, 3, 6, 16, 16)).shape == (1, 24, 3, 4, 4)


def test_layers_without_a_stride_each_are_refused():
    with pytest.raises(InputError, match=r"one entry for each layer, but have 3, 4 and 4\.$"):
        r2plus1d_narrow(widths=(8, 16, 32))


def test_where_relu_does_nothing_the_pair_is_the_3d_convolution_with_the_product_of_its_kernels():
    pair = Block(2, 3, mid_planes=(5, 5), norm=_no_norm, stride=(2, 2)).conv1[0].double()
    for parameter in pair.parameters():
        parameter.data.uniform_(0, 1)
    spatial, temporal = pair.get_parameter("0.weight"), pair.get_parameter("3.weight")
    kernel = torch.einsum("omt,mihw->oithw", temporal[..., 0, 0], spatial[:, :, 0])
    clip = torch.rand(2, 2, 6, 7, 7, dtype=torch.float64)
    torch.testing.assert_close(pair(clip), F.conv3d(clip, kernel, stride=2, padding=1))


def test_a_block_whose_last_norm_is_zero_lets_its_positive_input_through():
    block = Block(4, 4, mid_planes=(9, 9), norm=nn.BatchNorm3d, stride=(1, 1))
    nn.init.zeros_(block.get_parameter("conv2.1.weight"))
    features = torch.randn(2, 4, 3, 5, 5)
    assert torch.equal(block(features), features.relu())


@pytest.mark.parametrize(
    ("factory", "depths", "eps"),
    [(r2plus1d_18, (2, 2, 2, 2), 1e-5), (r2plus1d_34, (3, 4, 6, 3), 1e-3), (r3d_18, (2, 2, 2, 2), 1e-5)],
)
@torch.no_grad()
def test_features_are_those_of_the_network_restated_from_its_names(factory, depths, eps, randomised, restated):
    torch.manual_seed(0)
    network = randomised(factory())
    plain = restated(network.state_dict(), eps=eps)
    clip = torch.randn(1, 3, 8, 20, 20, dtype=torch.float64)

    def taken(x: Tensor, name: str, stride: int) -> Tensor:
        if f"{name}.weight" in plain.state:
            return plain.conv(x, name, (stride, stride, stride))
        x = plain.norm(plain.conv(x, f"{name}.0", (1, stride, stride)), f"{name}.1").relu()
        return plain.conv(x, f"{name}.3", (stride, 1, 1))

    x = plain.norm(plain.conv(clip, "stem.0", (1, 2, 2)), "stem.1").relu()
    if factory is not r3d_18:
        x = plain.norm(plain.conv(x, "stem.3"), "stem.4").relu()
    for layer, depth in enumerate(depths, start=1):
        for block in range(depth):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            y = plain.norm(taken(x, f"{name}.conv1.0", stride), f"{name}.conv1.1").relu()
            y = plain.norm(taken(y, f"{name}.conv2.0", 1), f"{name}.conv2.1")
            if stride == 2:
                x = plain.norm(plain.conv(x, f"{name}.downsample.0", (2, 2, 2)), f"{name}.downsample.1")
            x = (x + y).relu()
    torch.testing.assert_close(network(clip), x)


def test_gradients_are_those_of_the_function(randomised):
    torch.manual_seed(0)
    network = randomised(r2plus1d_narrow(stem=(2, 2), widths=(2, 3), depths=(1, 1), strides=((1, 1), (2, 2))))
    clip = torch.randn(1, 3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(network, (clip,))


def test_a_clip_does_not_see_the_others_of_its_batch_in_eval_mode(randomised):
    torch.manual_seed(0)
    network = randomised(r2plus1d_narrow())
    clips = torch.randn(2, 3, 8, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(network(clips)[1:], network(clips[1:]))
