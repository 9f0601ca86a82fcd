"""X3D: restated from the names of its tensors; squeeze-and-excitation in the cases that have an answer."""

import torch
from torch import Tensor, nn

from taghead.backbones.x3d import SqueezeExcitation, x3d_m


def _clip(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_features_are_those_of_the_network_restated_from_its_names(randomised, restated):
    network = randomised(x3d_m())
    plain, clip = restated(network.state_dict()), _clip(2, 3, 3, 40, 40)
    spatial = plain.conv(clip, "blocks.0.conv.conv_t", (1, 2, 2))
    x = plain.norm(plain.conv(spatial, "blocks.0.conv.conv_xy"), "blocks.0.norm").relu()
    for number in (1, 2, 3, 4):
        x = plain.stage(x, f"blocks.{number}", (1, 2, 2))
    torch.testing.assert_close(network(clip), x)


def test_every_other_block_squeezes_beginning_with_the_first():
    with torch.device("meta"):
        network = x3d_m()
    squeezing = {name for name, module in network.named_modules() if isinstance(module, SqueezeExcitation)}
    assert squeezing == {
        f"blocks.{stage}.res_blocks.{number}.branch2.norm_b.1"
        for stage, depth in ((1, 3), (2, 5), (3, 11), (4, 7))
        for number in range(0, depth, 2)
    }


def test_squeeze_and_excitation_without_weights_halves_and_with_large_biases_is_the_identity():
    scale, features = SqueezeExcitation(6, 2), torch.randn(2, 6, 3, 4, 4)
    for parameter in scale.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(scale(features), features / 2)
    nn.init.constant_(scale.get_parameter("block.2.bias"), 100.0)
    assert torch.equal(scale(features), features)


@torch.no_grad()
def test_squeeze_and_excitation_is_two_matrix_products_of_the_channels_means():
    torch.manual_seed(0)
    scale, features = SqueezeExcitation(6, 2).double(), _clip(2, 6, 3, 4, 4)
    squeeze, squeeze_bias, excite, excite_bias = scale.parameters()
    means = features.flatten(2).mean(2)
    hidden = (means @ squeeze.flatten(1).T + squeeze_bias).relu()
    scales = (hidden @ excite.flatten(1).T + excite_bias).sigmoid()
    torch.testing.assert_close(scale(features), features * scales[:, :, None, None, None])


def test_gradients_of_squeeze_and_excitation_are_those_of_the_function():
    torch.manual_seed(0)
    scale = SqueezeExcitation(4, 2).double()
    assert torch.autograd.gradcheck(scale, (_clip(2, 4, 2, 2, 2).requires_grad_(),))
