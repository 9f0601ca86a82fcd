"""Convolutions padded by half their kernel, norms, initial weights."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from taghead.backbones.layers import batch_norm, convolution, initialise

odd, few = st.sampled_from([1, 3, 5, 7]), st.integers(1, 4)


@given(kernel=st.tuples(odd, odd, odd), stride=st.tuples(few, few, few), size=st.tuples(*[st.integers(1, 12)] * 3))
def test_a_convolution_divides_each_size_by_its_stride_and_rounds_up(kernel, stride, size):
    layer = convolution(2, 4, kernel=kernel, stride=stride, groups=2)
    layer.to("meta")
    features = layer(torch.empty(1, 2, *size, device="meta"))
    assert features.shape[2:] == tuple(math.ceil(length / step) for length, step in zip(size, stride, strict=True))
    assert layer.bias is None


@pytest.mark.parametrize(("momentum", "expected"), [(None, 0.9), (0.0, 0.0), (0.1, 0.1)])
def test_a_norm_has_the_usual_momentum_unless_another_is_given(momentum, expected):
    norm = batch_norm(momentum, usual=0.9, eps=1e-3)(5)
    assert (norm.num_features, norm.momentum, norm.eps) == (5, expected, 1e-3)


def test_initial_weights_keep_the_size_of_gradients_and_begin_with_norms_that_do_nothing():
    torch.manual_seed(0)
    layer = convolution(64, 128, kernel=(3, 3, 3))
    network = nn.Sequential(layer, nn.BatchNorm3d(128))
    initialise(network)
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / (128 * 27)), rel=0.01)
    assert torch.equal(network.get_parameter("1.weight"), torch.ones(128))
