"""A network restated from the names of its tensors, without a module: what the backbones' tests compare with."""

from dataclasses import dataclass

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

Triple = tuple[int, int, int]
ONES: Triple = (1, 1, 1)


@dataclass(frozen=True)
class Restated:
    """Layers in eval mode as plain functions of a state dict; kernels, paddings and groups are read off the shapes."""

    state: dict[str, Tensor]
    eps: float = 1e-5

    def conv(self, x: Tensor, name: str, stride: Triple = ONES) -> Tensor:
        weight = self.state[f"{name}.weight"]
        padding = [size // 2 for size in weight.shape[2:]]
        groups = x.shape[1] // weight.shape[1]
        return F.conv3d(x, weight, self.state.get(f"{name}.bias"), stride, padding, groups=groups)

    def norm(self, x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            self.state[f"{name}.{part}"].view(-1, 1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + self.eps).sqrt() * weight + bias

    def stem(self, clip: Tensor, name: str) -> Tensor:
        x = self.norm(self.conv(clip, f"{name}conv", (1, 2, 2)), f"{name}norm").relu()
        return F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))

    def stage(self, x: Tensor, name: str, stride: Triple) -> Tensor:
        """A stage of PyTorchVideo's residual networks, X3D's among them."""
        number = 0
        while (block := f"{name}.res_blocks.{number}") + ".branch2.conv_a.weight" in self.state:
            step = ONES if number else stride
            y = self.norm(self.conv(x, f"{block}.branch2.conv_a"), f"{block}.branch2.norm_a").relu()
            y = self._middle(self.conv(y, f"{block}.branch2.conv_b", step), f"{block}.branch2.norm_b")
            y = self.norm(self.conv(y, f"{block}.branch2.conv_c"), f"{block}.branch2.norm_c")
            if f"{block}.branch1_conv.weight" in self.state:
                x = self.conv(x, f"{block}.branch1_conv", step)
            if f"{block}.branch1_norm.weight" in self.state:
                x = self.norm(x, f"{block}.branch1_norm")
            x = (x + y).relu()
            number += 1
        assert number
        return x

    def _middle(self, y: Tensor, name: str) -> Tensor:
        if f"{name}.weight" in self.state:
            return self.norm(y, name).relu()
        y = self.norm(y, f"{name}.0")
        if f"{name}.1.block.0.weight" in self.state:
            means = y.mean((2, 3, 4), keepdim=True)
            y = y * self.conv(self.conv(means, f"{name}.1.block.0").relu(), f"{name}.1.block.2").sigmoid()
        return y * y.sigmoid()


def _randomised(network: nn.Module) -> nn.Module:
    """In float64 and eval mode, with norms that are no identity."""
    for tensor in network.double().eval().state_dict().values():
        if tensor.ndim == 1:
            tensor.uniform_(0.5, 1.0)
    return network


@pytest.fixture
def restated():
    return Restated


@pytest.fixture
def randomised():
    return _randomised
