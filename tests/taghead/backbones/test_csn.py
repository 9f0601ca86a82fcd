"""ir-CSN in mmaction2's layout: restated from the names of its tensors."""

import pytest
import torch
from torch import Tensor, nn

from taghead.backbones.csn import CSN, Bottleneck
from taghead.backbones.layers import batch_norm

NORM = batch_norm(None, eps=1e-3)


def _clip(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_features_are_those_of_the_network_restated_from_its_names(randomised, restated):
    depths = (1, 2, 3, 1)  # the depths are the only difference from ir-CSN-152, and its names show them
    network = randomised(CSN(depths=depths, norm=NORM))
    plain, clip = restated(network.state_dict(), eps=1e-3), _clip(2, 3, 9, 40, 40)

    def normed(x: Tensor, name: str, stride: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
        return plain.norm(plain.conv(x, f"{name}.conv", stride), f"{name}.bn")

    x = nn.functional.max_pool3d(normed(clip, "conv1", (1, 2, 2)).relu(), (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for layer, depth in enumerate(depths, start=1):
        for number in range(depth):
            name, stride = f"layer{layer}.{number}", (2, 2, 2) if layer > 1 and number == 0 else (1, 1, 1)
            y = normed(normed(x, f"{name}.conv1").relu(), f"{name}.conv2.0", stride).relu()
            around = normed(x, f"{name}.downsample", stride) if number == 0 else x
            x = (normed(y, f"{name}.conv3") + around).relu()
    torch.testing.assert_close(network(clip), x)


def test_a_block_whose_last_norm_is_zero_lets_its_positive_input_through():
    block = Bottleneck(8, 8, stride=(1, 1, 1), norm=NORM)
    nn.init.zeros_(block.get_parameter("conv3.bn.weight"))
    features = torch.randn(2, 8, 3, 5, 5)
    assert torch.equal(block(features), features.relu())


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2)])
def test_gradients_are_those_of_the_function(stride, randomised):
    torch.manual_seed(0)
    block = randomised(Bottleneck(3, 4, stride=stride, norm=NORM))
    assert torch.autograd.gradcheck(block, (_clip(1, 3, 2, 3, 3).requires_grad_(),))
