import pytest
import torch
from torch import nn

from taghead.fit import products_in

CPU = torch.device("cpu")


def fill_freed_memory_with_nan() -> None:
    held = [torch.full((2**size,), float("nan")) for size in range(4, 20) for _ in range(6)]
    del held


@pytest.mark.parametrize(
    ("size", "kernel"), [((2, 4, 4), (3, 1, 1)), ((4, 2, 2), (1, 7, 7)), ((2, 4, 4), (3, 3, 3)), ((4, 4, 4), (3, 1, 1))]
)
def test_a_convolutions_gradient_in_bfloat16_is_that_of_float32_but_for_rounding(
    size: tuple[int, int, int], kernel: tuple[int, int, int]
) -> None:
    torch.manual_seed(0)
    padding = tuple(length // 2 for length in kernel)
    convolution = nn.Conv3d(32, 32, kernel, padding=padding, bias=False).to(memory_format=torch.channels_last_3d)
    clips, upstream = torch.randn(16, 32, *size), torch.randn(16, 32, *size)
    gradients = []
    for precision in ("float32", "bfloat16"):
        with products_in(precision, CPU):
            features = convolution(clips)
        fill_freed_memory_with_nan()
        gradients += torch.autograd.grad(features, convolution.weight, upstream.to(features.dtype))
    exact, half = gradients
    assert (half - exact).norm() < 0.02 * exact.norm()


def test_only_convolutions_that_reach_over_their_input_stay_in_float32() -> None:
    convolution = nn.Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0))
    with products_in("bfloat16", CPU):
        few, many = (convolution(torch.randn(1, 4, steps, 5, 5)) for steps in (2, 3))
    assert (few.dtype, many.dtype) == (torch.float32, torch.bfloat16)
    with products_in("float32", CPU):
        assert convolution(torch.randn(1, 4, 3, 5, 5)).dtype == torch.float32
