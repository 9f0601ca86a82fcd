"""X3D: a narrow network of depthwise 3D kernels with squeeze-and-excitation, for few multiply-adds.

Feichtenhofer, "X3D: Expanding Architectures for Efficient Video Recognition" (CVPR 2020), as PyTorchVideo has it, with
its names in the state dict.

Axes: B clips; C channels, T time steps, H and W sites.
"""

from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn

from taghead.backbones.layers import ONES, Norm, Triple, batch_norm, convolution
from taghead.backbones.resnet3d import Residual, ResNet3D, kinetics, residuals

WIDTHS = (24, 48, 96, 192)
INNER = (54, 108, 216, 432)  # 2.25 times
SQUEEZED = (8, 8, 16, 32)  # about a sixteenth of INNER, in whole eights
DEPTHS = (3, 5, 11, 7)


class SqueezeExcitation(nn.Module):
    """Scales each channel by what two small maps make of all channels' means (Hu et al., CVPR 2018).

    Args:
        channels: C.
        squeezed: Channels between the two maps.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv3d(channels, squeezed, 1), nn.ReLU(inplace=True), nn.Conv3d(squeezed, channels, 1), nn.Sigmoid()
        )

    def forward(self, features: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C T H W"]:
        """The features, scaled."""
        return features * self.block(features.mean((2, 3, 4), keepdim=True))


def _stem(outputs: int, *, norm: Norm) -> nn.Sequential:
    # In the public names conv_t is the spatial convolution and conv_xy the temporal one, depthwise.
    convolutions = nn.Sequential(
        OrderedDict(
            conv_t=convolution(3, outputs, kernel=(1, 3, 3), stride=(1, 2, 2)),
            conv_xy=convolution(outputs, outputs, kernel=(5, 1, 1), groups=outputs),
        )
    )
    return nn.Sequential(OrderedDict(conv=convolutions, norm=norm(outputs), activation=nn.ReLU(inplace=True)))


def _bottleneck(
    inputs: int, inner: int, outputs: int, *, stride: Triple, squeezed: int | None, norm: Norm
) -> nn.Sequential:
    scaled = nn.Identity() if squeezed is None else SqueezeExcitation(inner, squeezed)
    return nn.Sequential(
        OrderedDict(
            conv_a=convolution(inputs, inner),
            norm_a=norm(inner),
            act_a=nn.ReLU(inplace=True),
            conv_b=convolution(inner, inner, kernel=(3, 3, 3), stride=stride, groups=inner),
            norm_b=nn.Sequential(norm(inner), scaled),
            act_b=nn.SiLU(),
            conv_c=convolution(inner, outputs),
            norm_c=norm(outputs),
        )
    )


def x3d_m(*, norm_momentum: float | None = None) -> ResNet3D:
    """X3D-M; 2,006,130 parameters.

    (B, 3, F, h, w) to (B, 192, F, h / 32, w / 32): time is never strided. The public network's head first widens to
    432 and 2048 channels; these are the features before it.

    Args:
        norm_momentum: The share of the new batch in the running statistics of the norms. None: 0.1.
    """
    norm = batch_norm(norm_momentum)
    blocks: list[nn.Module] = [_stem(WIDTHS[0], norm=norm)]
    inputs = WIDTHS[0]
    for width, inner, squeezed, depth in zip(WIDTHS, INNER, SQUEEZED, DEPTHS, strict=True):
        stage = []
        for number in range(depth):
            stride = (1, 2, 2) if number == 0 else ONES
            every_other = squeezed if number % 2 == 0 else None
            branch = _bottleneck(inputs, inner, width, stride=stride, squeezed=every_other, norm=norm)
            stage.append(Residual(branch, inputs, width, stride=stride, norm=norm))
            inputs = width
        blocks.append(residuals(stage))
    return ResNet3D(blocks, channels=WIDTHS[-1])


WEIGHTS = {"x3d_m": kinetics("X3D_M.pyth", clip=(16, 224))}
