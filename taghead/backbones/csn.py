"""CSN in mmaction2's layout: the channel-separated network whose depthwise 3x3x3 kernels leave mixing to 1x1x1 ones.

Tran et al., "Video Classification with Channel-Separated Convolutional Networks" (ICCV 2019). mmaction2 publishes its
ir-CSN-152, pre-trained on IG-65M and fine-tuned on Kinetics-400; names in the state dict are those of its backbone.
(PyTorchVideo's smaller one, in other names, is `taghead.backbones.resnet3d.csn_r101`.)

Axes: B clips, F frames, h and w pixels; C channels, T time steps, H and W sites, and D, U, I, J the like after a block.
"""

from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn

from taghead.backbones import Weights
from taghead.backbones.layers import ONES, Norm, Triple, batch_norm, convolution, initialise
from taghead.backbones.resnet3d import WIDTHS

DEPTHS_152 = (3, 8, 36, 3)


def _normed(conv: nn.Conv3d, norm: Norm, *, activate: bool = True) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv, bn=norm(conv.out_channels))
    if activate:
        layers["activate"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


class Bottleneck(nn.Module):
    """Fewer channels, one 3x3x3 filter for each of them, many channels; and the way around.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out, four times those within.
        stride: Of the 3x3x3 filters.
        norm: Makes the norms.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: Triple, norm: Norm) -> None:
        super().__init__()
        inner = outputs // 4
        depthwise = convolution(inner, inner, kernel=(3, 3, 3), stride=stride, groups=inner)
        self.conv1 = _normed(convolution(inputs, inner), norm)
        self.conv2 = nn.Sequential(_normed(depthwise, norm))
        self.conv3 = _normed(convolution(inner, outputs), norm, activate=False)
        self.downsample: nn.Module | None = None
        if inputs != outputs:
            self.downsample = _normed(convolution(inputs, outputs, stride=stride), norm, activate=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B D U I J"]:
        """Features with the block's channels, and its strides taken."""
        around = features if self.downsample is None else self.downsample(features)
        return self.relu(self.conv3(self.conv2(self.conv1(features))) + around)


class CSN(nn.Module):
    """A stem, then ``layer1`` to ``layer4``; no head.

    Args:
        depths: Bottlenecks of each layer.
        norm: Makes the norms.
    """

    classifier_prefixes = ("cls_head.",)

    def __init__(self, *, depths: tuple[int, int, int, int], norm: Norm) -> None:
        super().__init__()
        self.channels = WIDTHS[-1]
        self.conv1 = _normed(convolution(3, 64, kernel=(3, 7, 7), stride=(1, 2, 2)), norm)
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.layers = tuple(f"layer{number}" for number in range(1, len(WIDTHS) + 1))
        inputs = 64
        for name, width, depth in zip(self.layers, WIDTHS, depths, strict=True):
            stride = ONES if width == WIDTHS[0] else (2, 2, 2)
            blocks = [Bottleneck(inputs, width, stride=stride, norm=norm)]
            blocks += [Bottleneck(width, width, stride=ONES, norm=norm) for _ in range(depth - 1)]
            self.add_module(name, nn.Sequential(*blocks))
            inputs = width
        initialise(self)

    def forward(self, clip: Float[Tensor, "B 3 F h w"]) -> Float[Tensor, "B C T H W"]:
        """The features of normalised clips."""
        features = self.maxpool(self.conv1(clip))
        for name in self.layers:
            features = self.get_submodule(name)(features)
        return features


def ir_csn_152(*, norm_momentum: float | None = None) -> CSN:
    """ir-CSN-152 as mmaction2 has it; 28,883,968 parameters.

    (B, 3, F, h, w) to (B, 2048, F / 8, h / 32, w / 32).

    Args:
        norm_momentum: The share of the new batch in the running statistics of the norms. None: 0.1.
    """
    return CSN(depths=DEPTHS_152, norm=batch_norm(norm_momentum, eps=1e-3))


_FOLDER = "https://download.openmmlab.com/mmaction/v1.0/recognition/csn/"


def _url(file: str) -> str:
    return f"{_FOLDER}{file.rpartition('_')[0]}/{file}"


# Fine-tuned on Kinetics-400 with ImageNet's colours. What mmaction2 converted from VMZ (vmz_ircsn_*) fits too, but was
# trained with the colours of R(2+1)D-34: give it with data.mean and data.std.
WEIGHTS = {
    "ir_csn_152": Weights(
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        files={
            file: _url(file)
            for file in (
                "ircsn_ig65m-pretrained-r152_8xb12-32x2x1-58e_kinetics400-rgb_20220811-c7a3cc5b.pth",
                "ircsn_ig65m-pretrained-r152-bnfrozen_8xb12-32x2x1-58e_kinetics400-rgb_20220811-7d1dacde.pth",
            )
        },
        clip=(32, 224),
    )
}
