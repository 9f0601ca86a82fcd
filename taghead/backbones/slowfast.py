"""SlowFast: a path that sees few frames with many channels, and one that sees all frames with few.

Feichtenhofer et al., "SlowFast Networks for Video Recognition" (ICCV 2019), as PyTorchVideo has it, with its names in
the state dict. (The paper's "Slow" is the slow path alone: `taghead.backbones.resnet3d.slow_r50`.)

Axes: B clips, F frames, h and w pixels, S slow frames; C channels, T time steps, H and W sites; D and U the fast
path's, E those of both.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from taghead.backbones.layers import ONES, Norm, batch_norm, convolution, initialise
from taghead.backbones.resnet3d import DEPTHS_50, WIDTHS, kinetics, stage, stem

ALPHA = 4  # frames of the fast path for each one of the slow path
NARROWER = 8  # channels of the slow path for each one of the fast path


class FastToSlow(nn.Module):
    """Joins the fast path to the slow one: a convolution along time takes its steps to theirs, as more channels.

    Args:
        fast: Channels of the fast path; twice as many are joined.
        norm: Makes the norm.
    """

    def __init__(self, fast: int, *, norm: Norm) -> None:
        super().__init__()
        self.conv_fast_to_slow = convolution(fast, 2 * fast, kernel=(7, 1, 1), stride=(ALPHA, 1, 1))
        self.norm = norm(2 * fast)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, slow: Float[Tensor, "B C T H W"], fast: Float[Tensor, "B D U H W"]) -> Float[Tensor, "B E T H W"]:
        """The slow path's features, then what the fast path lends it."""
        return torch.cat((slow, self.activation(self.norm(self.conv_fast_to_slow(fast)))), dim=1)


class Pathways(nn.Module):
    """One block of each path, and what joins them after it.

    Args:
        slow: The slow path's block.
        fast: The fast path's block.
        fusion: What joins them; None after the last block.
    """

    def __init__(self, slow: nn.Module, fast: nn.Module, *, fusion: FastToSlow | None) -> None:
        super().__init__()
        self.multipathway_blocks = nn.ModuleList((slow, fast))
        self.multipathway_fusion = fusion

    def forward(
        self, slow: Float[Tensor, "B _ S _ _"], fast: Float[Tensor, "B _ F _ _"]
    ) -> tuple[Float[Tensor, "B C S H W"], Float[Tensor, "B D F H W"]]:
        """Both paths' features."""
        slow_block, fast_block = self.multipathway_blocks
        slow, fast = slow_block(slow), fast_block(fast)
        return slow if self.multipathway_fusion is None else self.multipathway_fusion(slow, fast), fast


class SlowFast(nn.Module):
    """Two paths whose tokens are joined at the end, at the slow path's time steps.

    A token's channels are the slow path's, then the fast path's averaged over the time steps that belong to a slow
    one. So the mean over all tokens is the mean of the slow path beside that of the fast path, just what the public
    network's own head pools.

    Args:
        depths: Bottlenecks of each stage.
        norm: Makes the norms.
    """

    classifier_prefixes = ("blocks.6.",)  # the public network's blocks.5 pools, without weights

    def __init__(self, *, depths: Sequence[int], norm: Norm) -> None:
        super().__init__()
        self.channels = WIDTHS[-1] + WIDTHS[-1] // NARROWER
        first = Pathways(
            stem(64, time=1, norm=norm),
            stem(64 // NARROWER, time=5, norm=norm),
            fusion=FastToSlow(64 // NARROWER, norm=norm),
        )
        blocks, inputs = [first], 64
        for width, depth, time in zip(WIDTHS, depths, (1, 1, 3, 3), strict=True):
            lent, fast, last = 2 * inputs // NARROWER, width // NARROWER, width == WIDTHS[-1]
            stride = ONES if width == WIDTHS[0] else (1, 2, 2)
            blocks.append(
                Pathways(
                    stage(inputs + lent, width // 4, width, depth=depth, times=(time,), stride=stride, norm=norm),
                    stage(inputs // NARROWER, fast // 4, fast, depth=depth, times=(3,), stride=stride, norm=norm),
                    fusion=None if last else FastToSlow(fast, norm=norm),
                )
            )
            inputs = width
        self.blocks = nn.ModuleList(blocks)
        initialise(self)

    def paths(self, clip: Float[Tensor, "B 3 F h w"]) -> tuple[Float[Tensor, "B C S H W"], Float[Tensor, "B D F H W"]]:
        """The features of each path, not yet joined: slow, fast."""
        slow, fast = slow_frames(clip), clip
        for block in self.blocks:
            slow, fast = block(slow, fast)
        return slow, fast

    def forward(self, clip: Float[Tensor, "B 3 F h w"]) -> Float[Tensor, "B C T H W"]:
        """The features of normalised clips, both paths' joined."""
        slow, fast = self.paths(clip)
        return torch.cat((slow, fast.unflatten(2, (-1, ALPHA)).mean(3)), dim=1)


def slow_frames(clip: Float[Tensor, "B 3 F h w"]) -> Float[Tensor, "B 3 S h w"]:
    """A quarter of the frames, spread from the first to the last as in the public code: linspace, cut to integers.

    Args:
        clip: The fast path's frames.
    """
    num_frames = clip.shape[2]
    # On the CPU as in the public code: another device may round to the frame before.
    frames = torch.linspace(0, num_frames - 1, num_frames // ALPHA, device="cpu").long()
    return clip[:, :, frames.tolist()]


def slowfast_r50(*, norm_momentum: float | None = None) -> SlowFast:
    """SlowFast-R50; 33,644,488 parameters.

    (B, 3, F, h, w) to (B, 2304, F / 4, h / 32, w / 32), where F are the frames of the fast path; 2304 = 2048 + 256.

    Args:
        norm_momentum: The share of the new batch in the running statistics of the norms. None: 0.1.
    """
    return SlowFast(depths=DEPTHS_50, norm=batch_norm(norm_momentum))


WEIGHTS = {"slowfast_r50": kinetics("SLOWFAST_8x8_R50.pyth", clip=(32, 224))}
