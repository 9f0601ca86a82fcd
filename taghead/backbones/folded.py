"""A backbone for inference alone: norms folded into the convolutions before them, 3D kernels computed as 2D ones.

Features stay in torch's channels_last_3d format from layer to layer: in memory they are (B, T, H, W, C). There the
frames of a clip are a batch of images (B T, C, H, W), and a clip is one image (B, C, T, H W), without a copy. So a
1xkxk kernel is a 2D one on the first, a kx1x1 kernel one on the second, and a 1x1x1 kernel is a matrix product. A whole
3D kernel stays what it is, faster in this format where it is depthwise; on small grids it is a matrix product too.

Axes: B clips, F frames, h and w pixels; C channels, T time steps, H and W sites, and D, U, I, J the like after a layer.
"""

import copy
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import fuse_conv_bn_eval

from taghead.backbones import csn, freeze, r2plus1d, resnet3d, slowfast, x3d
from taghead.backbones.layers import ONES, Triple
from taghead.errors import InputError

PRECISIONS = ("float32", "bfloat16")
FEW = 8  # input channels under which torch's 3D convolution is faster in the plain format: those of a clip
# B C T H up to which torch computes a 3D convolution of one clip without oneDNN, several times slower.
SMALL = 20480
# What a network may consist of; in these, what follows what is known, and no two layers share a module.
_CONTAINERS = {
    nn.Sequential,
    nn.ModuleList,
    r2plus1d.R2Plus1D,
    r2plus1d.Block,
    resnet3d.ResNet3D,
    resnet3d.Residual,
    csn.CSN,
    csn.Bottleneck,
    slowfast.SlowFast,
    slowfast.Pathways,
    slowfast.FastToSlow,
    x3d.SqueezeExcitation,
}
_LAYERS = {nn.Conv3d, nn.BatchNorm3d, nn.ReLU, nn.SiLU, nn.Sigmoid, nn.MaxPool3d, nn.Identity}
# Convolution and norm that follow each other in a forward of ours, outside any nn.Sequential.
_NORMED = {
    resnet3d.Residual: ("branch1_conv", "branch1_norm"),
    slowfast.FastToSlow: ("conv_fast_to_slow", "norm"),
}


def inference_backbone(backbone: nn.Module, *, precision: str = "float32") -> nn.Module:
    """A network with the features of a backbone in eval mode, made for inference on a CPU.

    In float32 the features differ by rounding alone, about 1e-6 of their norm. It is a snapshot with weights of its
    own: training the backbone further does not change it. A network that does not wholly consist of this package's
    layers (a user's own), or is not on a CPU, is given back itself; for bfloat16, under autocast.

    Args:
        backbone: Maps (B, 3, F, h, w) to (B, C, T, H, W); left as it is.
        precision: ``float32``, or ``bfloat16`` for weights and layers, with features in float32. The latter is fast
            where the processor has instructions for it only.

    Returns:
        A network in eval mode for good, whose weights take no gradients; its features may lie otherwise in memory.

    Raises:
        InputError: No such precision, or a backbone in training mode.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision is one of {', '.join(PRECISIONS)}, but got {precision!r}.")
    if backbone.training:
        raise InputError("A backbone must be in eval mode, but is in training mode; call its eval() first.")
    if not _is_ours(backbone):
        return backbone if precision == "float32" else _Bfloat16(backbone, autocast=True)
    network = copy.deepcopy(backbone)
    _fold_norms(network)
    _replace_convolutions(network)
    freeze(network)
    return network if precision == "float32" else _Bfloat16(network.to(torch.bfloat16), autocast=False)


def _is_ours(backbone: nn.Module) -> bool:
    """Whether all of it is known, watched by no hook, in eval mode and on a CPU."""
    for module in backbone.modules():
        hooked = module._forward_hooks or module._forward_pre_hooks
        if type(module) not in _CONTAINERS | _LAYERS or hooked or module.training:
            return False
    return all(parameter.device.type == "cpu" for parameter in backbone.parameters())


Place = tuple[nn.Module, str]  # a module's parent, and its name there


def _fold_norms(network: nn.Module) -> None:
    for module in network.modules():
        places: list[Place] = []
        if type(module) is nn.Sequential:
            places = _in_turn(module)
        elif type(module) in _NORMED:
            places = [(module, name) for name in _NORMED[type(module)]]
        for first, second in pairwise(places):
            _fold(first, second)


def _in_turn(sequence: nn.Sequential) -> list[Place]:
    """The layers of nested sequences in the order in which they are called."""
    places: list[Place] = []
    for name, module in sequence.named_children():
        places += _in_turn(module) if type(module) is nn.Sequential else [(sequence, name)]
    return places


def _fold(first: Place, second: Place) -> None:
    convolution, norm = (getattr(parent, name) for parent, name in (first, second))
    if type(convolution) is nn.Conv3d and type(norm) is nn.BatchNorm3d and norm.running_mean is not None:
        setattr(*first, fuse_conv_bn_eval(convolution, norm))
        setattr(*second, nn.Identity())


def _replace_convolutions(network: nn.Module) -> None:
    for module in list(network.modules()):
        for name, layer in list(module.named_children()):
            if type(layer) is nn.Conv3d:
                setattr(module, name, _fast(layer))


def _fast(conv: nn.Conv3d) -> nn.Module:
    """The same map, computed in the way that its kernel allows."""
    if conv.padding_mode != "zeros" or conv.dilation != ONES or isinstance(conv.padding, str):
        return conv
    time, *space = (size == 1 and not padding for size, padding in zip(conv.kernel_size, conv.padding, strict=True))
    if time and all(space) and conv.groups == 1:
        return _Pointwise(conv)
    if time and conv.stride[0] == 1:
        return _Spatial(conv)
    if all(space) and conv.stride[1:] == (1, 1):
        return _Temporal(conv)
    if conv.groups == 1:
        return _Plain(conv) if conv.in_channels < FEW else _Whole(conv)
    return _Formatted(conv)


def _channels_last(features: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C T H W"]:
    """No copy where they are so already, as all but the clip are."""
    return features.contiguous(memory_format=torch.channels_last_3d)


def _images(features: Float[Tensor, "B C T H W"]) -> Float[Tensor, "BT C H W"]:
    return _channels_last(features).transpose(1, 2).flatten(0, 1)


def _clips(images: Float[Tensor, "BT C H W"], clips: int) -> Float[Tensor, "B C T H W"]:
    return images.unflatten(0, (clips, -1)).transpose(1, 2)


def _triple(values: tuple[int, ...] | str) -> Triple:
    time, height, width = (int(value) for value in values)
    return time, height, width


class _Replacement(nn.Module):
    """A convolution's weights, laid out anew.

    Args:
        conv: What is replaced.
        weight: Its weights as the replacement needs them.
    """

    def __init__(self, conv: nn.Conv3d, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach())
        self.bias = conv.bias
        self.stride, self.padding, self.groups = _triple(conv.stride), _triple(conv.padding), conv.groups


class _Pointwise(_Replacement):
    """A 1x1x1 kernel as a matrix product."""

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__(conv, conv.weight.flatten(1))

    def forward(self, features: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B D U I J"]:
        time, height, width = self.stride
        seen = _channels_last(features)[:, :, ::time, ::height, ::width].movedim(1, -1)
        return functional.linear(seen, self.weight, self.bias).movedim(-1, 1)


class _Spatial(_Replacement):
    """A 1xkxk kernel on frames as a batch of images."""

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__(conv, conv.weight.squeeze(2).contiguous(memory_format=torch.channels_last))

    def forward(self, features: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B D T I J"]:
        images = functional.conv2d(
            _images(features), self.weight, self.bias, self.stride[1:], self.padding[1:], groups=self.groups
        )
        return _clips(images, len(features))


class _Temporal(_Replacement):
    """A kx1x1 kernel on a clip as one image, time by sites."""

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__(conv, conv.weight.squeeze(4).contiguous(memory_format=torch.channels_last))

    def forward(self, features: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B D U H W"]:
        image, stride, padding = _channels_last(features).flatten(3), (self.stride[0], 1), (self.padding[0], 0)
        image = functional.conv2d(image, self.weight, self.bias, stride, padding, groups=self.groups)
        return image.unflatten(3, features.shape[3:])


class _Whole(_Replacement):
    """A whole 3D kernel: on small grids a matrix product of all that each output sees."""

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__(conv, _channels_last(conv.weight))

    def forward(self, features: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B D U I J"]:
        features = _channels_last(features)
        if len(features) > 1 or features[..., 0].numel() > SMALL:
            return functional.conv3d(features, self.weight, self.bias, self.stride, self.padding)
        time, height, width = self.padding
        seen = functional.pad(features.movedim(1, -1), (0, 0, width, width, height, height, time, time))
        for axis, (size, stride) in enumerate(zip(self.weight.shape[2:], self.stride, strict=True), start=1):
            seen = seen.unfold(axis, size, stride)  # a view; the kernel's axes come last
        matrix = self.weight.movedim(1, -1).flatten(1)  # no copy either
        return functional.linear(seen.movedim(4, -1).flatten(4), matrix, self.bias).movedim(-1, 1)


class _Formatted(_Replacement):
    """A depthwise (or otherwise grouped) 3D kernel."""

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__(conv, _channels_last(conv.weight))

    def forward(self, features: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B D U I J"]:
        return functional.conv3d(
            _channels_last(features), self.weight, self.bias, self.stride, self.padding, groups=self.groups
        )


class _Plain(_Replacement):
    """A whole 3D kernel on a clip, whose few channels torch's own convolution takes as they are."""

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__(conv, conv.weight)

    def forward(self, clip: Float[Tensor, "B 3 F h w"]) -> Float[Tensor, "B C T H W"]:
        return _channels_last(functional.conv3d(clip, self.weight, self.bias, self.stride, self.padding))


class _Bfloat16(nn.Module):
    """A network in bfloat16 whose features are float32.

    Args:
        network: Whose weights are bfloat16, or which is to run under autocast.
        autocast: The latter.
    """

    def __init__(self, network: nn.Module, *, autocast: bool) -> None:
        super().__init__()
        self.network = network
        self.autocast = autocast

    def forward(self, clip: Float[Tensor, "B 3 F h w"]) -> Float[Tensor, "B C T H W"]:
        with torch.autocast(clip.device.type, torch.bfloat16, enabled=self.autocast):
            return self.network(clip if self.autocast else clip.bfloat16()).float()
