"""R(2+1)D: residual networks whose 3D convolutions are a spatial one, then a temporal one (the paper's main backbone).

And R3D, their sibling with whole 3D convolutions. Tran et al., "A Closer Look at Spatiotemporal Convolutions"
(CVPR 2018). Names in the state dict are those of torchvision's video ResNets, so that public weights fit as they are;
the classifier ``fc`` is left out.

Axes: B clips, F frames, h and w pixels; C channels, T time steps, H and W sites, and D, U, I, J the like
after a block.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from taghead.backbones import Weights
from taghead.backbones.layers import Norm, batch_norm, convolution, initialise
from taghead.errors import InputError

Stride = tuple[int, int]  # along time, along height and width
# Of a block's two convolutions, from its inputs and outputs; None: a whole 3D convolution, not a pair.
MidPlanes = Callable[[int, int], tuple[int | None, int | None]]


def _as_many_weights(inputs: int, outputs: int) -> int:
    """Mid-planes with which the pair of convolutions has about as many weights as a full 3x3x3 one."""
    return inputs * outputs * 27 // (inputs * 9 + outputs * 3)


def _by_convolution(inputs: int, outputs: int) -> tuple[int, int]:
    return _as_many_weights(inputs, outputs), _as_many_weights(outputs, outputs)


def _by_block(inputs: int, outputs: int) -> tuple[int, int]:
    return _as_many_weights(inputs, outputs), _as_many_weights(inputs, outputs)


def _by_outputs(inputs: int, outputs: int) -> tuple[int, int]:
    return outputs, outputs


def _whole(inputs: int, outputs: int) -> tuple[None, None]:
    return None, None


def _layers(
    inputs: int, mid: int | None, outputs: int, *, norm: Norm, stride: Stride = (1, 1), kernel: int = 3
) -> list[nn.Module]:
    """A 1xkxk convolution, then a 3x1x1 one: "(2+1)D"; or a 3xkxk one."""
    time, space = stride
    if mid is None:
        return [convolution(inputs, outputs, kernel=(3, kernel, kernel), stride=(time, space, space))]
    return [
        convolution(inputs, mid, kernel=(1, kernel, kernel), stride=(1, space, space)),
        norm(mid),
        nn.ReLU(inplace=True),
        convolution(mid, outputs, kernel=(3, 1, 1), stride=(time, 1, 1)),
    ]


def _convolution(inputs: int, mid: int | None, outputs: int, *, norm: Norm, stride: Stride = (1, 1)) -> nn.Module:
    layers = _layers(inputs, mid, outputs, norm=norm, stride=stride)
    return layers[0] if mid is None else nn.Sequential(*layers)  # as the public names have it


class Block(nn.Module):
    """Two (2+1)D or 3D convolutions, and the way around them."""

    def __init__(
        self, inputs: int, outputs: int, *, mid_planes: tuple[int | None, int | None], norm: Norm, stride: Stride
    ) -> None:
        super().__init__()
        first, second = mid_planes
        self.conv1 = nn.Sequential(
            _convolution(inputs, first, outputs, norm=norm, stride=stride), norm(outputs), nn.ReLU(inplace=True)
        )
        self.conv2 = nn.Sequential(_convolution(outputs, second, outputs, norm=norm), norm(outputs))
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if inputs != outputs or stride != (1, 1):
            time, space = stride
            self.downsample = nn.Sequential(convolution(inputs, outputs, stride=(time, space, space)), norm(outputs))

    def forward(self, features: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B D U I J"]:
        """Features with the block's channels, and its strides taken."""
        around = features if self.downsample is None else self.downsample(features)
        return self.relu(self.conv2(self.conv1(features)) + around)


class R2Plus1D(nn.Module):
    """A stem, then ``layer1``, ``layer2`` and so on; no pooling, no classifier.

    Args:
        stem: Channels between the stem's 1x7x7 and 3x1x1 convolutions (None: one 3x7x7 convolution), and after them.
        widths: Channels of each layer; the last are the features' C.
        depths: Blocks of each layer.
        strides: Strides of each layer along time, and along height and width; its first block takes them.
        mid_planes: Channels between the halves of a block's two convolutions, or None where they are whole.
        norm: Makes the norm for so many channels.
        channels_last: Whether weights and features lie so in memory.

    Raises:
        InputError: Widths, depths and strides are not for the same number of layers.
    """

    classifier_prefixes = ("fc.",)

    def __init__(
        self,
        *,
        stem: tuple[int | None, int],
        widths: Sequence[int],
        depths: Sequence[int],
        strides: Sequence[Stride],
        mid_planes: MidPlanes,
        norm: Norm,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        if not len(widths) == len(depths) == len(strides) > 0:
            raise InputError(
                "widths, depths and strides must have one entry for each layer, "
                f"but have {len(widths)}, {len(depths)} and {len(strides)}."
            )
        mid, inputs = stem
        self.stem = nn.Sequential(
            *_layers(3, mid, inputs, norm=norm, stride=(1, 2), kernel=7), norm(inputs), nn.ReLU(inplace=True)
        )
        self.num_layers = len(widths)
        self.channels = widths[-1]
        for number, (width, depth, stride) in enumerate(zip(widths, depths, strides, strict=True), start=1):
            blocks = []
            for block_stride in [stride] + [(1, 1)] * (depth - 1):
                blocks.append(
                    Block(inputs, width, mid_planes=mid_planes(inputs, width), norm=norm, stride=block_stride)
                )
                inputs = width
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        initialise(self)
        self.channels_last = channels_last
        if channels_last:
            self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, clip: Float[Tensor, "B 3 F h w"]) -> Float[Tensor, "B C T H W"]:
        """The features of normalised clips."""
        if self.channels_last:  # here, or the first convolution does it in both of its passes
            clip = clip.contiguous(memory_format=torch.channels_last_3d)
        features = self.stem(clip)
        for number in range(1, self.num_layers + 1):
            features = self.get_submodule(f"layer{number}")(features)
        return features


def r2plus1d_34(*, norm_momentum: float | None = None) -> R2Plus1D:
    """R(2+1)D-34 as its IG-65M weights need it (public repository moabitcoin/ig65m-pytorch); 63,491,975 parameters.

    (B, 3, F, h, w) to (B, 512, F / 8, h / 16, w / 16). It comes from Caffe2, hence the mid-planes of each convolution
    by its own channels and the norms' epsilon. mmaction2's network of that name has other mid-planes and cannot take
    these weights.

    Args:
        norm_momentum: The share of the new batch in the running statistics of the norms. None: 0.9, as the public
            code has it. In PyTorch that nearly replaces the statistics at each step of a fine-tuning; 0.1 averages.
    """
    return R2Plus1D(
        stem=(45, 64),
        widths=(64, 128, 256, 512),
        depths=(3, 4, 6, 3),
        strides=((1, 1), (2, 2), (2, 2), (2, 2)),
        mid_planes=_by_convolution,
        norm=batch_norm(norm_momentum, usual=0.9, eps=1e-3),
    )


def r2plus1d_18(*, norm_momentum: float | None = None) -> R2Plus1D:
    """R(2+1)D-18 as torchvision has it; 31,300,125 parameters.

    (B, 3, F, h, w) to (B, 512, F / 8, h / 16, w / 16).

    Args:
        norm_momentum: The share of the new batch in the running statistics of the norms. None: 0.1.
    """
    return R2Plus1D(
        stem=(45, 64),
        widths=(64, 128, 256, 512),
        depths=(2, 2, 2, 2),
        strides=((1, 1), (2, 2), (2, 2), (2, 2)),
        mid_planes=_by_block,
        norm=batch_norm(norm_momentum),
    )


def r3d_18(*, norm_momentum: float | None = None) -> R2Plus1D:
    """R3D-18 as torchvision has it: the same network with 3x3x3 convolutions that are not taken apart.

    (B, 3, F, h, w) to (B, 512, F / 8, h / 16, w / 16); 33,166,272 parameters.

    Args:
        norm_momentum: The share of the new batch in the running statistics of the norms. None: 0.1.
    """
    return R2Plus1D(
        stem=(None, 64),
        widths=(64, 128, 256, 512),
        depths=(2, 2, 2, 2),
        strides=((1, 1), (2, 2), (2, 2), (2, 2)),
        mid_planes=_whole,
        norm=batch_norm(norm_momentum),
    )


def r2plus1d_narrow(
    *,
    stem: tuple[int, int] = (8, 16),
    widths: Sequence[int] = (16, 32, 64, 128),
    depths: Sequence[int] = (1, 1, 1, 1),
    strides: Sequence[Stride] = ((2, 2), (2, 2), (1, 2), (1, 1)),
    norm_momentum: float | None = None,
) -> R2Plus1D:
    """A network of the same family that a CPU can train: 440,488 parameters, 16 frames of 48 pixels to 4 x 3 x 3.

    (B, 3, F, h, w) to (B, 128, F / 4, h / 16, w / 16). The first layers are nearly all of the cost, so time and space
    are halved there first; mid-planes are as many as a convolution's outputs, half of what the large networks have.
    Its weights lie with the channels last: a training step on one CPU thread takes two thirds of the time. On the large
    networks that order costs a tenth to a third more, so they keep PyTorch's.

    Args:
        stem: Channels within and after the stem.
        widths: Channels of each layer.
        depths: Blocks of each layer.
        strides: Strides of each layer along time, and along height and width.
        norm_momentum: The share of the new batch in the running statistics of the norms. None: 0.1.
    """
    return R2Plus1D(
        stem=stem,
        widths=widths,
        depths=depths,
        strides=strides,
        mid_planes=_by_outputs,
        norm=batch_norm(norm_momentum),
        channels_last=True,
    )


_KINETICS = {"mean": (0.43216, 0.394666, 0.37645), "std": (0.22803, 0.22145, 0.216989)}
_IG65M = "https://github.com/moabitcoin/ig65m-pytorch/releases/download/v1.0.0/"

# The keys of these files are our own, with a classifier `fc` to leave out.
WEIGHTS = {
    "r2plus1d_34": Weights(
        **_KINETICS,
        files={
            name: _IG65M + name
            for name in (
                "r2plus1d_34_clip32_ig65m_from_scratch-449a7af9.pth",  # the one that the paper's authors used
                "r2plus1d_34_clip8_ig65m_from_scratch-9bae36ae.pth",
                "r2plus1d_34_clip32_ft_kinetics_from_ig65m-ade133f1.pth",
                "r2plus1d_34_clip8_ft_kinetics_from_ig65m-0aa0550b.pth",
            )
        },
        clip=(32, 112),
    ),
    "r2plus1d_18": Weights(
        **_KINETICS,
        files={"r2plus1d_18-91a641e6.pth": "https://download.pytorch.org/models/r2plus1d_18-91a641e6.pth"},
        clip=(16, 112),
    ),
    "r3d_18": Weights(
        **_KINETICS,
        files={"r3d_18-b3b3357e.pth": "https://download.pytorch.org/models/r3d_18-b3b3357e.pth"},
        clip=(16, 112),
    ),
    "r2plus1d_narrow": Weights(mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225), clip=(16, 48)),
}
