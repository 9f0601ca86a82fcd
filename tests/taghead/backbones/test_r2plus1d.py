"""R(2+1)D against the sizes of its public weights, and against a restatement from the names of its tensors."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from taghead.backbones import BACKBONES
from taghead.backbones.r2plus1d import Block, r2plus1d_18, r2plus1d_34, r2plus1d_narrow
from taghead.errors import InputError


@functools.cache
def _on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return BACKBONES[name]()


def _no_norm(channels: int) -> nn.Module:
    return nn.Identity()


def _randomised(network: nn.Module) -> nn.Module:
    """In float64 and eval mode, with norms that are no identity."""
    for tensor in network.double().eval().state_dict().values():
        if tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)
    return network


@pytest.mark.parametrize(("num_frames", "steps"), [(32, 4), (64, 8)])
@pytest.mark.parametrize("name", ["r2plus1d_34", "r2plus1d_18"])
def test_features_have_the_shape_that_the_paper_gives(name, num_frames, steps):
    features = _on_meta(name)(torch.empty(2, 3, num_frames, 112, 112, device="meta"))
    assert features.shape == (2, 512, steps, 7, 7)


@pytest.mark.parametrize(
    ("name", "num_parameters", "num_entries"), [("r2plus1d_34", 63_491_975, 416), ("r2plus1d_18", 31_300_125, 224)]
)
def test_sizes_are_those_of_the_public_weights(name, num_parameters, num_entries):
    network = _on_meta(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == num_parameters
    assert len(network.state_dict()) == num_entries - len(("fc.weight", "fc.bias"))


@pytest.mark.parametrize(
    ("name", "num_frames", "giga"),
    [("r2plus1d_34", 32, 152.356), ("r2plus1d_34", 64, 304.711), ("r2plus1d_18", 32, 81.04)],
)
def test_multiply_adds_are_those_of_the_paper(name, num_frames, giga):
    with FlopCounterMode(display=False) as counter:
        _on_meta(name)(torch.empty(1, 3, num_frames, 112, 112, device="meta"))
    assert counter.get_total_flops() / 2 / 1e9 == pytest.approx(giga, abs=0.5 * 10 ** -len(str(giga).split(".")[1]))


@pytest.mark.parametrize(
    ("key", "shape_34", "shape_18"),
    [
        ("stem.0.weight", (45, 3, 1, 7, 7), (45, 3, 1, 7, 7)),
        ("stem.3.weight", (64, 45, 3, 1, 1), (64, 45, 3, 1, 1)),
        ("layer1.0.conv1.0.0.weight", (144, 64, 1, 3, 3), (144, 64, 1, 3, 3)),
        ("layer1.0.conv1.0.1.weight", (144,), (144,)),
        ("layer1.0.conv1.0.3.weight", (64, 144, 3, 1, 1), (64, 144, 3, 1, 1)),
        ("layer1.0.conv1.1.running_var", (64,), (64,)),
        ("layer2.0.conv1.0.0.weight", (230, 64, 1, 3, 3), (230, 64, 1, 3, 3)),
        ("layer2.0.conv2.0.0.weight", (288, 128, 1, 3, 3), (230, 128, 1, 3, 3)),
        ("layer3.0.conv2.0.0.weight", (576, 256, 1, 3, 3), (460, 256, 1, 3, 3)),
        ("layer4.0.conv2.0.0.weight", (1152, 512, 1, 3, 3), (921, 512, 1, 3, 3)),
        ("layer2.0.downsample.0.weight", (128, 64, 1, 1, 1), (128, 64, 1, 1, 1)),
        ("layer2.0.downsample.1.weight", (128,), (128,)),
        ("layer4.1.conv2.1.num_batches_tracked", (), ()),
    ],
)
def test_names_and_shapes_are_those_of_the_public_weights(key, shape_34, shape_18):
    assert _on_meta("r2plus1d_34").state_dict()[key].shape == shape_34
    assert _on_meta("r2plus1d_18").state_dict()[key].shape == shape_18


@pytest.mark.parametrize(
    ("factory", "eps", "momentum"), [(r2plus1d_34, 1e-3, 0.9), (r2plus1d_18, 1e-5, 0.1), (r2plus1d_narrow, 1e-5, 0.1)]
)
def test_norms_are_those_of_the_public_code_but_for_a_momentum_that_is_given(factory, eps, momentum):
    for given, expected in ((None, momentum), (0.25, 0.25), (0.0, 0.0)):
        with torch.device("meta"):
            network = factory(norm_momentum=given)
        norms = {(norm.eps, norm.momentum) for norm in network.modules() if isinstance(norm, nn.BatchNorm3d)}
        assert norms == {(eps, expected)}


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


def _restated(clip: Tensor, state: dict[str, Tensor], *, depths: tuple[int, ...], eps: float) -> Tensor:
    """The network as its tensors' names tell it, without a module."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{part}"].view(-1, 1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + eps).sqrt() * weight + bias

    def pair(x: Tensor, name: str, stride: int) -> Tensor:
        x = F.conv3d(x, state[f"{name}.0.weight"], stride=(1, stride, stride), padding=(0, 1, 1))
        return F.conv3d(
            norm(x, f"{name}.1").relu(), state[f"{name}.3.weight"], stride=(stride, 1, 1), padding=(1, 0, 0)
        )

    x = norm(F.conv3d(clip, state["stem.0.weight"], stride=(1, 2, 2), padding=(0, 3, 3)), "stem.1").relu()
    x = norm(F.conv3d(x, state["stem.3.weight"], padding=(1, 0, 0)), "stem.4").relu()
    for layer, depth in enumerate(depths, start=1):
        for block in range(depth):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            y = norm(pair(x, f"{name}.conv1.0", stride), f"{name}.conv1.1").relu()
            y = norm(pair(y, f"{name}.conv2.0", 1), f"{name}.conv2.1")
            if stride == 2:
                x = norm(F.conv3d(x, state[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
            x = (x + y).relu()
    return x


@pytest.mark.parametrize(
    ("factory", "depths", "eps"), [(r2plus1d_18, (2, 2, 2, 2), 1e-5), (r2plus1d_34, (3, 4, 6, 3), 1e-3)]
)
def test_features_are_those_of_the_network_restated_from_its_names(factory, depths, eps):
    torch.manual_seed(0)
    network = _randomised(factory())
    clip = torch.randn(1, 3, 8, 20, 20, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(clip), _restated(clip, network.state_dict(), depths=depths, eps=eps))


def test_gradients_are_those_of_the_function():
    torch.manual_seed(0)
    network = _randomised(r2plus1d_narrow(stem=(2, 2), widths=(2, 3), depths=(1, 1), strides=((1, 1), (2, 2))))
    clip = torch.randn(1, 3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(network, (clip,))


def test_a_clip_does_not_see_the_others_of_its_batch_in_eval_mode():
    torch.manual_seed(0)
    network = _randomised(r2plus1d_narrow())
    clips = torch.randn(2, 3, 8, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(network(clips)[1:], network(clips[1:]))
