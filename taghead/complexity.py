"""Parameters and multiply-adds of each component (as Table 5 counts them), on the ``meta`` device, for any config.

    multiply_adds(config, num_classes=99)     # of one clip's forward pass, whole model

What cannot be known without running a user's code is not: a backbone of their own is refused.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from taghead.backbones import BACKBONES, grid_of
from taghead.backbones.own import is_own
from taghead.config import Config, canonical
from taghead.errors import InputError
from taghead.head import TAGHead
from taghead.model import build_head

COMPONENTS = ("backbone", "projection", "positional encoding", "encoder", "graph", "readout", "classifier")
HEAD = COMPONENTS[1:-1]  # what Table 5 calls the head: the classifier is not in it
_CHILDREN = {"projection": "projection", "transformer": "encoder", "readout": "readout", "classifier": "classifier"}

aten = torch.ops.aten
_BATCH_NORM = aten.alias  # see `_QuickNorms`
_NORMS = {_BATCH_NORM: 2, aten.native_layer_norm: 5}  # operations for each element, as fvcore counts
_ATTENTION = (aten.bmm, aten.baddbmm, aten._scaled_dot_product_flash_attention)


@dataclass(frozen=True)
class Cost:
    """What a component costs one clip's forward pass in evaluation.

    Attributes:
        parameters: Their number.
        multiply_adds: Every product, attention's two included.
        as_fvcore: Operations as fvcore counts them, see `_as_fvcore`.
    """

    parameters: int
    multiply_adds: int
    as_fvcore: int


def count(config: Config, *, num_classes: int) -> Mapping[str, Cost]:
    """Counts one clip's forward pass in evaluation, component by component.

    The ``meta`` device has shapes and no numbers: nothing is computed, and the encoder takes no fast path that would
    hide it from the counter. torch counts two operations a multiply-add, so its counts are halved.

    Args:
        config: Any experiment on a backbone of `BACKBONES`.
        num_classes: K of the classifier.

    Returns:
        The cost of each of `COMPONENTS`, in that order; a component that is not there costs nothing.

    Raises:
        InputError: A user's own backbone.
    """
    return _count(canonical(config), num_classes)


def parameters(config: Config, *, num_classes: int) -> int:
    """The parameters of the whole model, classifier included; arguments as `count`.

    Raises:
        InputError: As `count`.
    """
    return sum(cost.parameters for cost in count(config, num_classes=num_classes).values())


def multiply_adds(config: Config, *, num_classes: int) -> int:
    """The multiply-adds of one clip's forward pass through the whole model; arguments as `count`.

    Raises:
        InputError: As `count`.
    """
    return sum(cost.multiply_adds for cost in count(config, num_classes=num_classes).values())


@cache
def count_backbone(name: str, *, num_frames: int, crop_size: int) -> Cost:
    """Counts a backbone alone.

    Args:
        name: A key of `BACKBONES`.
        num_frames: F of the clip.
        crop_size: Its height and width in pixels.
    """
    with torch.device("meta"):
        clip = torch.empty(1, 3, num_frames, crop_size, crop_size)
    backbone = _backbone(name)
    true, fvcore = _products(backbone, clip)
    return Cost(_size(backbone), true[""], fvcore[""])


def head_parameters(channels: int, grid: tuple[int, int, int], **options: Any) -> int:
    """The parameters of a TAG-Head without its classifier, as Table 5 counts them.

    Args:
        channels: C of the tokens.
        grid: (T, H, W).
        **options: Of `TAGHead`.
    """
    with torch.device("meta"), NoDraws():
        head = TAGHead(channels, grid, 1, **options)
    return _size(head) - _size(head.classifier)


@cache
def _count(config: Config, num_classes: int) -> Mapping[str, Cost]:
    data, name = config.data, config.model.backbone
    if is_own(name):
        raise InputError(f"costs are counted of the backbones that come with taghead only, but got {name!r}.")
    with torch.device("meta"), NoDraws():
        channels = BACKBONES[name].channels
        time, height, width = grid_of(name, data.num_frames, data.crop_size)
        head = build_head(config, channels, (time, height, width), num_classes).eval()
        if isinstance(head, TAGHead):
            head.pools_early = False  # as the paper counts: Eq. 1 to 3 one after the other
        tokens = torch.empty(1, time, height * width, channels)
    counts = {part: [0, 0, 0] for part in COMPONENTS}
    counts["positional encoding"][0] = _size(head, recurse=False)
    for child, module in head.named_children():
        counts[_CHILDREN[child]][0] += _size(module)
    for column, products in enumerate(_products(head, tokens), start=1):
        # propagation has no module of its own: it is what the head does outside its children
        counts["graph"][column] = products.pop("")
        for child, number in products.items():
            counts[_CHILDREN[child]][column] += number
            counts["graph"][column] -= number
    counts["graph"][2] = counts["graph"][1]  # plain matrix products, which fvcore counts as such
    costs = {part: Cost(*numbers) for part, numbers in counts.items()}
    backbone = count_backbone(name, num_frames=data.num_frames, crop_size=data.crop_size)
    return MappingProxyType(costs | {"backbone": backbone})


@cache
def _backbone(name: str) -> nn.Module:
    with torch.device("meta"), NoDraws():
        return BACKBONES[name]().eval()


def _size(module: nn.Module, *, recurse: bool = True) -> int:
    return sum(parameter.numel() for parameter in module.parameters(recurse=recurse))


def _products(module: nn.Module, inputs: torch.Tensor) -> list[dict[str, int]]:
    """The products of a module, under the empty name, and of its children: all of them, and as fvcore counts."""
    counter = FlopCounterMode(display=False, custom_mapping=dict.fromkeys(_NORMS, _elements))
    with torch.no_grad(), counter, _QuickNorms():
        module(inputs)
    top = type(module).__name__
    names = {"": "Global", **{name: f"{top}.{name}" for name, _ in module.named_children()}}
    counts = counter.get_flop_counts()
    return [{name: weighed(counts.get(path, {})) for name, path in names.items()} for weighed in (_true, _as_fvcore)]


class NoDraws(TorchFunctionMode):
    """Leaves initial weights undrawn: there is nothing to draw on ``meta``, where torch loads its compiler to do so."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


class _QuickNorms(TorchFunctionMode):
    """Puts `aten.alias` in place of batch norms, which keep the shape: on ``meta`` torch takes milliseconds for one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.batch_norm:
            return _BATCH_NORM(args[0])
        return func(*args, **(kwargs or {}))


def _elements(shape: torch.Size, *_args: Any, **_kwargs: Any) -> int:
    return math.prod(shape)


def _true(counts: Mapping[Any, int]) -> int:
    """The multiply-adds of operations: torch counts two for each; the norms have none."""
    return sum(number for operation, number in counts.items() if operation not in _NORMS) // 2


def _as_fvcore(counts: Mapping[Any, int]) -> int:
    """Operations by the rules under which the paper's 153.4 "GFLOPs" comes out, as fvcore 0.1.5 has them.

    One operation a multiply-add for convolutions and linear maps; 2 for each element of a batch norm and 5 for each of
    a layer norm; attention's two products count nothing. (thop has the like.) Batched products are attention's here:
    those of the graph, which fvcore counts, are not told apart by these rules.
    """
    norms = sum(each * counts.get(norm, 0) for norm, each in _NORMS.items())
    return _true({name: number for name, number in counts.items() if name not in _ATTENTION}) + norms
