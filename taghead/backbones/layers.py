"""What every backbone is made of: 3D convolutions without a bias, batch norms, and He's initial weights."""

from collections.abc import Callable
from functools import partial

from torch import nn

Norm = Callable[[int], nn.Module]  # makes the norm for so many channels
Triple = tuple[int, int, int]  # along time, height and width

ONES: Triple = (1, 1, 1)


def convolution(
    inputs: int, outputs: int, *, kernel: Triple = ONES, stride: Triple = ONES, groups: int = 1
) -> nn.Conv3d:
    """A convolution without a bias (a norm follows), padded by half its kernel: a stride divides and rounds up.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        kernel: Odd sizes along time, height and width.
        stride: Steps along time, height and width.
        groups: As many as there are channels: depthwise, one filter a channel.
    """
    time, height, width = kernel
    padding = (time // 2, height // 2, width // 2)
    return nn.Conv3d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)


def batch_norm(momentum: float | None, *, usual: float = 0.1, eps: float = 1e-5) -> Norm:
    """The batch norm of a public network.

    Args:
        momentum: The share of the new batch in the running statistics; None: the usual one.
        usual: What the public code has.
        eps: What is added to the variance.
    """
    return partial(nn.BatchNorm3d, eps=eps, momentum=usual if momentum is None else momentum)


def initialise(network: nn.Module) -> None:
    """Draws the weights of all convolutions as He et al. (2015) do; a norm begins as the identity by itself.

    Args:
        network: Changed in place.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
