"""I3D, Slow and CSN: bottleneck residual networks with 3D kernels (the backbones of the paper's Table 3).

The paper cites Carreira and Zisserman (CVPR 2017) for I3D, Feichtenhofer et al. (ICCV 2019) for the Slow path of
SlowFast, and Tran et al. (ICCV 2019) for CSN, and says neither depth nor source of its weights. PyTorchVideo publishes
all three, pre-trained on Kinetics-400: these are its I3D-R50, Slow-R50 and CSN-R101 (interaction-reduced), with its
names in the state dict, so that its files fit as they are; the head, its last block, is left out.

Axes: B clips, F frames, h and w pixels; C channels, T time steps, H and W sites, and D, U, I, J the like after a block.
"""

from collections import OrderedDict
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from taghead.backbones import Weights
from taghead.backbones.layers import ONES, Norm, Triple, batch_norm, convolution, initialise

WIDTHS = (256, 512, 1024, 2048)
DEPTHS_50 = (3, 4, 6, 3)
DEPTHS_101 = (3, 4, 23, 3)


def stem(outputs: int, *, time: int, norm: Norm) -> nn.Sequential:
    """A convolution and a pooling, each of which halves height and width.

    Args:
        outputs: Channels after it.
        time: The kernel's size along time.
        norm: Makes the norm.
    """
    return nn.Sequential(
        OrderedDict(
            conv=convolution(3, outputs, kernel=(time, 7, 7), stride=(1, 2, 2)),
            norm=norm(outputs),
            activation=nn.ReLU(inplace=True),
            pool=nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        )
    )


def bottleneck(
    inputs: int, inner: int, outputs: int, *, time: int, kernel: Triple, stride: Triple, groups: int, norm: Norm
) -> nn.Sequential:
    """Three convolutions: to few channels (and along time), the one that sees neighbours, and to many channels.

    Args:
        inputs: Channels that come in.
        inner: Channels within.
        outputs: Channels that go out.
        time: Size along time of the first kernel.
        kernel: The second kernel.
        stride: Of the second convolution.
        groups: Of the second convolution.
        norm: Makes the norms.
    """
    return nn.Sequential(
        OrderedDict(
            conv_a=convolution(inputs, inner, kernel=(time, 1, 1)),
            norm_a=norm(inner),
            act_a=nn.ReLU(inplace=True),
            conv_b=convolution(inner, inner, kernel=kernel, stride=stride, groups=groups),
            norm_b=norm(inner),
            act_b=nn.ReLU(inplace=True),
            conv_c=convolution(inner, outputs),
            norm_c=norm(outputs),
        )
    )


class Residual(nn.Module):
    """A branch, and the way around it: a 1x1x1 convolution where sizes change, normed where channels change.

    Args:
        branch: What is added.
        inputs: Channels that come in.
        outputs: Channels after the branch.
        stride: What the branch strides by.
        norm: Makes the norm.
    """

    def __init__(self, branch: nn.Module, inputs: int, outputs: int, *, stride: Triple, norm: Norm) -> None:
        super().__init__()
        changed = inputs != outputs or stride != ONES
        self.branch1_conv = convolution(inputs, outputs, stride=stride) if changed else None
        self.branch1_norm = norm(outputs) if inputs != outputs else None
        self.branch2 = branch
        self.activation = nn.ReLU(inplace=True)

    def forward(self, features: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B D U I J"]:
        """Features with the branch's channels, and its strides taken."""
        around = features
        for layer in (self.branch1_conv, self.branch1_norm):
            if layer is not None:
                around = layer(around)
        return self.activation(around + self.branch2(features))


def stage(
    inputs: int,
    inner: int,
    outputs: int,
    *,
    depth: int,
    times: Sequence[int],
    norm: Norm,
    stride: Triple = ONES,
    kernel: Triple = (1, 3, 3),
    groups: int = 1,
) -> nn.Sequential:
    """Bottlenecks with ways around them; the first one takes the stride.

    Args:
        inputs: Channels that come in.
        inner: Channels within a bottleneck.
        outputs: Channels that go out.
        depth: How many bottlenecks.
        times: Sizes along time of their first kernels, in turn.
        norm: Makes the norms.
        stride: Of the first bottleneck.
        kernel: Of the second convolution of each.
        groups: Of the second convolution of each.
    """
    blocks = []
    for number in range(depth):
        step = stride if number == 0 else ONES
        branch = bottleneck(
            inputs,
            inner,
            outputs,
            time=times[number % len(times)],
            kernel=kernel,
            stride=step,
            groups=groups,
            norm=norm,
        )
        blocks.append(Residual(branch, inputs, outputs, stride=step, norm=norm))
        inputs = outputs
    return residuals(blocks)


def residuals(blocks: Sequence[Residual]) -> nn.Sequential:
    """A stage under the name that the public files have for it.

    Args:
        blocks: In order.
    """
    return nn.Sequential(OrderedDict(res_blocks=nn.Sequential(*blocks)))


class ResNet3D(nn.Module):
    """A stem and stages, one after the other; no head.

    Args:
        blocks: In order; the public files' next block is the head.
        channels: C of the last one.
    """

    def __init__(self, blocks: Sequence[nn.Module], *, channels: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.channels = channels
        self.classifier_prefixes = (f"blocks.{len(blocks)}.",)
        initialise(self)

    def forward(self, clip: Float[Tensor, "B 3 F h w"]) -> Float[Tensor, "B C T H W"]:
        """The features of normalised clips."""
        return self.blocks(clip)


def _resnet50(*, stem_time: int, times: Sequence[Sequence[int]], norm: Norm) -> list[nn.Module]:
    """The blocks of a ResNet-50 that strides along height and width only."""
    blocks: list[nn.Module] = [stem(64, time=stem_time, norm=norm)]
    inputs = 64
    for width, depth, sizes in zip(WIDTHS, DEPTHS_50, times, strict=True):
        stride = ONES if width == WIDTHS[0] else (1, 2, 2)
        blocks.append(stage(inputs, width // 4, width, depth=depth, times=sizes, stride=stride, norm=norm))
        inputs = width
    return blocks


def slow_r50(*, norm_momentum: float | None = None) -> ResNet3D:
    """Slow-R50: the Slow path of SlowFast alone, as PyTorchVideo has it; 31,634,496 parameters.

    (B, 3, F, h, w) to (B, 2048, F, h / 32, w / 32): time is never strided.

    Args:
        norm_momentum: The share of the new batch in the running statistics of the norms. None: 0.1.
    """
    blocks = _resnet50(stem_time=1, times=((1,), (1,), (3,), (3,)), norm=batch_norm(norm_momentum))
    return ResNet3D(blocks, channels=WIDTHS[-1])


def i3d_r50(*, norm_momentum: float | None = None) -> ResNet3D:
    """I3D-R50: a ResNet-50 inflated along time, as PyTorchVideo has it; 27,223,872 parameters.

    (B, 3, F, h, w) to (B, 2048, F / 2, h / 32, w / 32). Carreira and Zisserman inflated an Inception network; this is
    the ResNet of the same name.

    Args:
        norm_momentum: The share of the new batch in the running statistics of the norms. None: 0.1.
    """
    blocks = _resnet50(stem_time=5, times=((3,), (3, 1), (3, 1), (1, 3)), norm=batch_norm(norm_momentum))
    blocks.insert(2, nn.MaxPool3d((2, 1, 1)))  # its own number in the public names, though it has no weights
    return ResNet3D(blocks, channels=WIDTHS[-1])


def csn_r101(*, norm_momentum: float | None = None) -> ResNet3D:
    """CSN-R101, interaction-reduced (ir): channels mix in 1x1x1 kernels only; 21,394,176 parameters.

    (B, 3, F, h, w) to (B, 2048, F / 8, h / 32, w / 32), as PyTorchVideo has it. The 3x3x3 kernels are depthwise.

    Args:
        norm_momentum: The share of the new batch in the running statistics of the norms. None: 0.1.
    """
    norm = batch_norm(norm_momentum)
    blocks: list[nn.Module] = [stem(64, time=3, norm=norm)]
    inputs = 64
    for width, depth in zip(WIDTHS, DEPTHS_101, strict=True):
        inner, stride = width // 4, ONES if width == WIDTHS[0] else (2, 2, 2)
        blocks.append(
            stage(
                inputs,
                inner,
                width,
                depth=depth,
                times=(1,),
                stride=stride,
                kernel=(3, 3, 3),
                groups=inner,
                norm=norm,
            )
        )
        inputs = width
    return ResNet3D(blocks, channels=WIDTHS[-1])


def kinetics(file: str, *, clip: tuple[int, int]) -> Weights:
    """A file of PyTorchVideo's model zoo, pre-trained on Kinetics-400; its keys are our own, under ``model_state``.

    Args:
        file: Its name.
        clip: Frames and pixels of the clips that it was trained with.
    """
    url = f"https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/{file}"
    return Weights(mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225), files={file: url}, clip=clip)


WEIGHTS = {
    "slow_r50": kinetics("SLOW_8x8_R50.pyth", clip=(8, 224)),
    "i3d_r50": kinetics("I3D_8x8_R50.pyth", clip=(8, 224)),
    "csn_r101": kinetics("CSN_32x2_R101.pyth", clip=(32, 224)),
}
