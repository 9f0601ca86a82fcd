"""SlowFast: its two paths restated, which frames the slow one sees, and what their joined tokens mean."""

import copy

import pytest
import torch
from torch import Tensor, nn

from taghead.backbones.layers import batch_norm
from taghead.backbones.resnet3d import slow_r50
from taghead.backbones.slowfast import FastToSlow, SlowFast, slow_frames, slowfast_r50


def _clip(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network() -> SlowFast:
    torch.manual_seed(0)
    network = slowfast_r50().double().eval()
    for tensor in network.state_dict().values():
        if tensor.ndim == 1:
            tensor.uniform_(0.5, 1.0)
    return network


@pytest.mark.parametrize(
    ("num_frames", "expected"),
    [(4, [0]), (8, [0, 7]), (12, [0, 5, 11]), (32, [0, 4, 8, 13, 17, 22, 26, 31])],
)
def test_the_slow_path_sees_a_quarter_of_the_frames_from_the_first_to_the_last(num_frames, expected):
    clip = torch.arange(num_frames, dtype=torch.float32).expand(1, 3, 2, 2, -1).permute(0, 1, 4, 2, 3)
    assert slow_frames(clip)[0, 0, :, 0, 0].tolist() == expected


@torch.no_grad()
def test_the_mean_over_joined_tokens_is_the_mean_of_each_path_side_by_side(network):
    clip = _clip(2, 3, 12, 40, 40)
    slow, fast = network.paths(clip)
    assert slow.shape == (2, 2048, 3, 2, 2)
    assert fast.shape == (2, 256, 12, 2, 2)
    features = network(clip)
    assert features.shape == (2, network.channels, 3, 2, 2)
    means = torch.cat((slow.mean((2, 3, 4)), fast.mean((2, 3, 4))), dim=1)
    torch.testing.assert_close(features.mean((2, 3, 4)), means)


@torch.no_grad()
def test_a_joined_token_holds_its_own_step_of_the_slow_path_and_its_four_of_the_fast_one(network):
    clip = _clip(1, 3, 8, 32, 32)
    slow, fast = network.paths(clip)
    features = network(clip)
    assert torch.equal(features[:, :2048], slow)
    torch.testing.assert_close(features[:, 2048:, 1], fast[:, :, 4:].mean(2))


@torch.no_grad()
def test_both_paths_are_those_of_the_network_restated_from_its_names(network, restated):
    plain, clip = restated(network.state_dict()), _clip(1, 3, 8, 40, 40)
    slow, fast = clip[:, :, [0, 7]], clip
    for number in range(5):
        name, stride = f"blocks.{number}", (1, 1, 1) if number == 1 else (1, 2, 2)
        paths = [f"{name}.multipathway_blocks.{path}" for path in (0, 1)]
        if number == 0:
            slow, fast = (plain.stem(x, f"{path}.") for x, path in zip((slow, fast), paths, strict=True))
        else:
            slow, fast = (plain.stage(x, path, stride) for x, path in zip((slow, fast), paths, strict=True))
        if number < 4:
            lent = plain.conv(fast, f"{name}.multipathway_fusion.conv_fast_to_slow", (4, 1, 1))
            slow = torch.cat((slow, plain.norm(lent, f"{name}.multipathway_fusion.norm").relu()), dim=1)
    for got, expected in zip(network.paths(clip), (slow, fast), strict=True):
        torch.testing.assert_close(got, expected)


@torch.no_grad()
def test_without_what_the_fast_path_lends_the_slow_path_is_slow_r50(network):
    with torch.device("meta"):
        alone = slow_r50().eval()
    inside = network.state_dict()
    state = {}
    for name, tensor in alone.state_dict().items():
        block, number, rest = name.split(".", 2)
        found = inside[f"{block}.{number}.multipathway_blocks.0.{rest}"]
        state[name] = found[:, : tensor.shape[1]] if tensor.ndim == 5 else found
    alone.load_state_dict(state, assign=True)
    unlent = copy.deepcopy(network)
    for module in unlent.modules():
        if isinstance(module, FastToSlow):
            nn.init.zeros_(module.get_parameter("norm.weight"))
            nn.init.zeros_(module.get_parameter("norm.bias"))
    clip = _clip(1, 3, 8, 32, 32)
    torch.testing.assert_close(unlent.paths(clip)[0], alone(slow_frames(clip)))


@torch.no_grad()
def test_a_fusion_whose_kernel_is_one_in_the_middle_lends_every_fourth_step():
    fusion = FastToSlow(2, norm=batch_norm(None)).eval()
    nn.init.zeros_(fusion.conv_fast_to_slow.weight)
    fusion.conv_fast_to_slow.weight[[0, 1, 2, 3], [0, 1, 0, 1], 3] = 1
    slow, fast = torch.rand(1, 5, 2, 3, 3), torch.rand(1, 2, 8, 3, 3)
    joined = fusion(slow, fast)
    assert torch.equal(joined[:, :5], slow)
    torch.testing.assert_close(joined[:, 5:], fast[:, :, ::4].repeat(1, 2, 1, 1, 1), rtol=1e-4, atol=0)


def test_gradients_of_the_fusion_are_those_of_the_function(randomised):
    torch.manual_seed(0)
    fusion = randomised(FastToSlow(2, norm=batch_norm(None)))
    paths = _clip(1, 3, 2, 2, 2).requires_grad_(), _clip(1, 2, 8, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(fusion, paths)
