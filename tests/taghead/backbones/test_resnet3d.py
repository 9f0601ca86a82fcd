"""I3D, Slow and CSN: restated from the names of their tensors, and what each can see."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from taghead.backbones.layers import batch_norm
from taghead.backbones.resnet3d import Residual, bottleneck, csn_r101, i3d_r50, slow_r50, stage

NORM = batch_norm(None)


def _clip(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("factory", "stages", "stride"),
    [(slow_r50, (1, 2, 3, 4), (1, 2, 2)), (i3d_r50, (1, 3, 4, 5), (1, 2, 2)), (csn_r101, (1, 2, 3, 4), (2, 2, 2))],
)
@torch.no_grad()
def test_features_are_those_of_the_network_restated_from_its_names(factory, stages, stride, randomised, restated):
    network = randomised(factory())
    clip, plain = _clip(2, 3, 5, 40, 40), restated(network.state_dict())
    x = plain.stem(clip, "blocks.0.")
    for number in stages:
        x = plain.stage(x, f"blocks.{number}", (1, 1, 1) if number == 1 else stride)
        if factory is i3d_r50 and number == 1:
            x = torch.maximum(x[:, :, 0:4:2], x[:, :, 1:4:2])  # of two steps the larger; a last odd one is dropped
    torch.testing.assert_close(network(clip), x)


@torch.no_grad()
def test_slow_sees_each_frame_alone_until_its_third_stage(randomised):
    network, clip = randomised(slow_r50()), _clip(1, 3, 3, 32, 32)
    frame_by_frame = torch.cat([network.blocks[:3](frame) for frame in clip.split(1, dim=2)], dim=2)
    torch.testing.assert_close(network.blocks[:3](clip), frame_by_frame)
    moved = clip.clone()
    moved[:, :, 0] += 1
    assert not torch.equal(network(clip)[:, :, 2], network(moved)[:, :, 2])


@torch.no_grad()
def test_a_depthwise_kernel_sees_its_own_channel_alone():
    branch = bottleneck(5, 4, 8, time=1, kernel=(3, 3, 3), stride=(2, 2, 2), groups=4, norm=NORM).double()
    features, kernels = _clip(2, 4, 5, 6, 6), branch.get_parameter("conv_b.weight")
    channels = zip(features.split(1, dim=1), kernels.split(1), strict=True)
    one_by_one = [F.conv3d(channel, kernel, stride=2, padding=1) for channel, kernel in channels]
    torch.testing.assert_close(branch.get_submodule("conv_b")(features), torch.cat(one_by_one, dim=1))


def test_a_residual_whose_branch_is_nothing_lets_its_positive_input_through():
    branch = bottleneck(4, 2, 4, time=3, kernel=(1, 3, 3), stride=(1, 1, 1), groups=1, norm=NORM)
    block = Residual(branch, 4, 4, stride=(1, 1, 1), norm=NORM)
    nn.init.zeros_(branch.get_parameter("norm_c.weight"))
    features = torch.randn(2, 4, 3, 5, 5)
    before = features.clone()
    assert torch.equal(block(features), features.relu())
    assert torch.equal(features, before)


def test_first_kernels_of_a_stage_take_their_sizes_along_time_in_turn():
    made = stage(8, 2, 8, depth=5, times=(3, 1), norm=NORM)
    kernels = [made.get_parameter(f"res_blocks.{number}.branch2.conv_a.weight") for number in range(5)]
    assert [kernel.shape[2] for kernel in kernels] == [3, 1, 3, 1, 3]


def test_only_a_block_that_changes_sizes_has_a_convolution_around_it():
    strided = stage(8, 2, 8, depth=2, times=(1,), stride=(1, 2, 2), norm=NORM)
    assert {name for name in strided.state_dict() if "branch1" in name} == {"res_blocks.0.branch1_conv.weight"}
    widened = stage(4, 2, 8, depth=2, times=(1,), norm=NORM)
    around = {name.split(".", 2)[2] for name in widened.state_dict() if name.startswith("res_blocks.0.branch1")}
    assert {"branch1_conv.weight", "branch1_norm.weight"} <= around
    assert not any("branch1" in name for name in widened.state_dict() if name.startswith("res_blocks.1."))


def test_gradients_are_those_of_the_function(randomised):
    torch.manual_seed(0)
    network = randomised(stage(3, 2, 4, depth=2, times=(3,), stride=(1, 2, 2), norm=NORM))
    assert torch.autograd.gradcheck(network, (_clip(1, 3, 2, 4, 4).requires_grad_(),))
