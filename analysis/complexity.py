"""Table 5: parameters and multiply-adds of each component, counted on the ``meta`` device, for any config."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from analysis import published
from analysis.formats import Table
from taghead.backbones import BACKBONES, grid_of
from taghead.config import Config, canonical, evolve
from taghead.head import TAGHead
from taghead.model import build_model
from taghead.recipes import recipe

COMPONENTS = ("backbone", "projection", "positional encoding", "encoder", "graph", "readout", "classifier")
HEAD = COMPONENTS[1:-1]  # what Table 5 calls the head: the classifier is not in it
_CHILDREN = {"projection": "projection", "transformer": "encoder", "readout": "readout", "classifier": "classifier"}
COUNTING = (
    "multiply-adds: every product of the forward pass, attention's two included. As fvcore counts: one operation a "
    "multiply-add of convolutions and linear maps, 2 for each element of a batch norm and 5 of a layer norm, none for "
    "attention's two products. Weighting the frames, all that the graph does under the mean readout, is T products a "
    "channel, which neither counts."
)
PAPER_CLIPS = ((32, 112), (64, 112))  # frames and pixels: of HAA500, of Gym99 and Gym288
WIDTHS = (512, 1024, 2048)  # Table 2's best on HAA500 and on Gym99, and the widest

aten = torch.ops.aten


def count(config: Config, *, num_classes: int) -> pd.DataFrame:
    """Counts one clip's forward pass in evaluation, component by component.

    The ``meta`` device has shapes and no numbers: nothing is computed, and the encoder takes no fast path that would
    hide it from the counter. torch counts two operations a multiply-add, so its counts are halved.

    Args:
        config: Any experiment.
        num_classes: K of the classifier.

    Returns:
        One row a component in the order of `COMPONENTS`: ``component``, ``parameters``, ``multiply_adds`` (every
        product, attention's two included) and ``as_fvcore`` (see `fvcore_rules`).
    """
    return _count(canonical(config), num_classes).copy()


@cache
def _count(config: Config, num_classes: int) -> pd.DataFrame:
    data, name = config.data, config.model.backbone
    with torch.device("meta"), _NoDraws():
        head = build_model(config, num_classes).head.eval()
        time, height, width = grid_of(name, data.num_frames, data.crop_size)
        tokens = torch.empty(1, time, height * width, BACKBONES[name].channels)
    counts = {part: [0, 0, 0] for part in COMPONENTS}
    counts["backbone"] = list(_count_backbone(name, data.num_frames, data.crop_size))
    counts["positional encoding"][0] = _size(head, recurse=False)
    for child, module in head.named_children():
        counts[_CHILDREN[child]][0] += _size(module)
    for column, products in enumerate(_multiply_adds(head, tokens), start=1):
        # propagation has no module of its own: it is what the head does outside its children
        counts["graph"][column] = products.pop("")
        for child, number in products.items():
            counts[_CHILDREN[child]][column] += number
            counts["graph"][column] -= number
    rows = [(part, *counts[part]) for part in COMPONENTS]
    return pd.DataFrame(rows, columns=["component", "parameters", "multiply_adds", "as_fvcore"])


@cache
def _count_backbone(name: str, num_frames: int, crop_size: int) -> tuple[int, int, int]:
    backbone = _backbone(name)
    with torch.device("meta"):
        clip = torch.empty(1, 3, num_frames, crop_size, crop_size)
    true, fvcore = _multiply_adds(backbone, clip)
    return _size(backbone), true[""], fvcore[""]


@cache
def _backbone(name: str) -> nn.Module:
    with torch.device("meta"), _NoDraws():
        return BACKBONES[name]().eval()


def _size(module: nn.Module, *, recurse: bool = True) -> int:
    return sum(parameter.numel() for parameter in module.parameters(recurse=recurse))


def _multiply_adds(module: nn.Module, inputs: torch.Tensor) -> list[dict[str, int]]:
    """The products of a module, under the empty name, and of its children: all of them, and as fvcore counts."""
    true = FlopCounterMode(display=False)
    fvcore = FlopCounterMode(display=False, custom_mapping=fvcore_rules())
    with torch.no_grad(), true, fvcore:
        module(inputs)
    top = type(module).__name__
    names = {"": "Global", **{name: f"{top}.{name}" for name, _ in module.named_children()}}
    return [
        {name: sum(counter.get_flop_counts().get(path, {}).values()) // 2 for name, path in names.items()}
        for counter in (true, fvcore)
    ]


class _NoDraws(TorchFunctionMode):
    """Leaves initial weights undrawn: there is nothing to draw on ``meta``, where torch loads its compiler to do so."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


def fvcore_rules() -> dict[Any, Callable[..., int]]:
    """The rules under which the paper's 153.4 "GFLOPs" comes out, as fvcore 0.1.5 has them.

    One operation a multiply-add for convolutions and linear maps; 2 for each element of a batch norm and 5 for each of
    a layer norm; attention's two products count nothing. (thop has the like.)

    Returns:
        For `FlopCounterMode`, which counts twice as much: what its own rules are replaced by.
    """

    def elements(times: int) -> Callable[..., int]:
        return lambda shape, *_args, **_kwargs: 2 * times * math.prod(shape)

    def nothing(*_args: Any, **_kwargs: Any) -> int:
        return 0

    norms = (aten.native_batch_norm, aten._native_batch_norm_legit_no_training)
    products = (aten.bmm, aten.baddbmm, aten._scaled_dot_product_flash_attention)
    return {
        **{norm: elements(2) for norm in norms},
        aten.native_layer_norm: elements(5),
        **{product: nothing for product in products},
    }


def _of_head(counts: pd.DataFrame, column: str) -> int:
    return int(counts.loc[counts["component"].isin(HEAD), column].sum())


def _without_classifier(counts: pd.DataFrame, column: str) -> int:
    return int(counts.loc[counts["component"] != "classifier", column].sum())


def paper_model(ffn_dim: int) -> pd.DataFrame:
    """Counts the paper's model on HAA500 (32 frames of 112 x 112, 500 classes) at one FFN width.

    Args:
        ffn_dim: The encoder's FFN width; Table 2 varies it.
    """
    return count(evolve(recipe("haa500"), {"head.ffn_dim": ffn_dim}), num_classes=500)


def table5_data() -> pd.DataFrame:
    """The paper's model at each of `WIDTHS`, as Table 5 counts: millions of parameters and 10^9 multiply-adds.

    Returns:
        Columns ``ffn_dim, backbone_m, head_m, total_m`` (without classifier), ``classifier_m``, ``gmac`` (every
        product) and ``as_fvcore_g`` (by `fvcore_rules`), both of the whole model.
    """
    rows = []
    for width in WIDTHS:
        counts = paper_model(width)
        by_component = counts.set_index("component")["parameters"]
        rows.append(
            {
                "ffn_dim": width,
                "backbone_m": by_component["backbone"] / 1e6,
                "head_m": _of_head(counts, "parameters") / 1e6,
                "total_m": _without_classifier(counts, "parameters") / 1e6,
                "classifier_m": by_component["classifier"] / 1e6,
                "gmac": counts["multiply_adds"].sum() / 1e9,
                "as_fvcore_g": counts["as_fvcore"].sum() / 1e9,
            }
        )
    return pd.DataFrame(rows)


def table5() -> Table:
    """The paper's Table 5 recounted, beside what it prints."""
    data, printed = table5_data(), published.values(5)
    rows = [
        (
            f"FFN {row.ffn_dim}",
            f"{row.backbone_m:.3f}",
            f"{row.head_m:.3f}",
            f"{row.total_m:.2f}",
            f"{row.gmac:.2f}",
            f"{row.as_fvcore_g:.1f}",
        )
        for row in data.itertuples()
    ]
    ours = "TAG-Head (Ours)"
    rows.append(
        (
            "as published",
            f"{printed['Backbone', '', 'params_m']:.3f}",
            f"{printed['TAG-Head', '', 'params_m']:.3f}",
            f"{printed[ours, '', 'params_m']:.2f}",
            "-",
            f"{printed[ours, '', 'gflops']:.1f}",
        )
    )
    header = (
        "",
        "backbone, M",
        "head, M",
        "both, M",
        "multiply-adds, G",
        "as fvcore counts, G",
    )
    title = "Table 5 recounted: R(2+1)D-34 + TAG-Head on HAA500, one clip of 32 frames of 112 x 112"
    return Table("complexity_paper", title, header, tuple(rows), data, tuple(table5_notes(data)))


def table5_notes(data: pd.DataFrame) -> list[str]:
    """What the recount says of the two printed totals, in words made from the numbers.

    Args:
        data: As from `table5_data`.
    """
    printed = published.values(5)
    size, cost = printed["TAG-Head (Ours)", "", "params_m"], printed["TAG-Head (Ours)", "", "gflops"]
    by_size = data[data["total_m"].round(2) == size]
    by_cost = data[data["as_fvcore_g"].round(1) == cost]
    notes = [
        "Parameters are counted without the classifier, as in the paper; for 500 classes it adds "
        f"{data['classifier_m'].iloc[0]:.3f} M.",
        COUNTING,
    ]
    if len(by_size) == len(by_cost) == 1:
        large, small = by_size.iloc[0], by_cost.iloc[0]
        different = large.ffn_dim != small.ffn_dim
        notes.append(
            f'The printed {size:.2f} M parameters are those of FFN {large.ffn_dim:.0f}, the printed {cost} "GFLOPs" '
            f"those of FFN {small.ffn_dim:.0f} as fvcore counts"
            + (": the recount finds them in two different heads. " if different else ". ")
            + f"FFN {large.ffn_dim:.0f} costs {large.gmac:.2f} G multiply-adds ({large.as_fvcore_g:.1f} as fvcore "
            f"counts); FFN {small.ffn_dim:.0f} has {small.total_m:.2f} M parameters and costs {small.gmac:.2f} G "
            "multiply-adds."
        )
    return notes


def backbones_data() -> pd.DataFrame:
    """Every backbone alone at the size of the clips that its public weights were trained with and at the paper's sizes.

    Returns:
        One row a backbone and size: ``backbone, channels, parameters``; ``frames, pixels`` of the clip; ``grid`` (T, H,
        W) of the features; ``multiply_adds``; ``head_narrow`` and ``head_wide``, the parameters of a head with the
        first and the last of `WIDTHS` on these features.
    """
    rows = []
    for name, backbone in BACKBONES.items():
        for frames, pixels in dict.fromkeys((backbone.weights.clip or PAPER_CLIPS[0], *PAPER_CLIPS)):
            parameters, products, _ = _count_backbone(name, frames, pixels)
            grid = grid_of(name, frames, pixels)
            heads = [_head_size(backbone.channels, grid, width) for width in (WIDTHS[0], WIDTHS[-1])]
            rows.append((name, backbone.channels, parameters, frames, pixels, grid, products, *heads))
    columns = ["backbone", "channels", "parameters", "frames", "pixels", "grid", "multiply_adds"]
    return pd.DataFrame(rows, columns=[*columns, "head_narrow", "head_wide"])


def _head_size(channels: int, grid: tuple[int, int, int], ffn_dim: int) -> int:
    with torch.device("meta"), _NoDraws():
        head = TAGHead(channels, grid, 1, ffn_dim=ffn_dim)
    return _size(head) - _size(head.classifier)


def backbones_table() -> Table:
    """What each backbone costs alone, and how large the head on it is."""
    data = backbones_data()
    rows = []
    for name, group in data.groupby("backbone", sort=False):
        sizes = {(row.frames, row.pixels): row for row in group.itertuples()}
        first, paper = group.iloc[0], sizes[PAPER_CLIPS[0]]
        texts = [f"{_times(sizes[clip].grid)}; {sizes[clip].multiply_adds / 1e9:.2f}" for clip in PAPER_CLIPS]
        native = f"{first.frames} x {first.pixels}: {_times(first.grid)}; {first.multiply_adds / 1e9:.2f}"
        heads = f"{paper.head_narrow / 1e6:.2f} to {paper.head_wide / 1e6:.2f}"
        rows.append((str(name), str(first.channels), f"{first.parameters:,}", native, *texts, heads))
    sizes_of = [f"{frames} x {pixels}" for frames, pixels in PAPER_CLIPS]
    header = ("backbone", "C", "parameters", "trained at", *sizes_of, f"head at {sizes_of[0]}, M")
    at_32 = data[(data["frames"] == PAPER_CLIPS[0][0]) & (data["pixels"] == PAPER_CLIPS[0][1])]
    larger = at_32.loc[at_32["head_narrow"] > at_32["parameters"], "backbone"]
    notes = (
        "Without classifier. Each size: the features' T x H x W; multiply-adds of the backbone for one clip, in G.",
        "trained at: frames x pixels of the clips that the public weights were trained with. head: parameters with FFN "
        f"{WIDTHS[0]} to FFN {WIDTHS[-1]}; even the smaller one is larger than the backbone on {', '.join(larger)}.",
    )
    return Table("complexity_backbones", "The backbones, without a head", header, tuple(rows), data, notes)


def _times(grid: tuple[int, int, int]) -> str:
    return " x ".join(map(str, grid))


def component_table(counts: pd.DataFrame, *, name: str, title: str, synthetic: bool = False) -> Table:
    """One model's components as a table; components that are not there are left out.

    Args:
        counts: As from `count`.
        name: The file's stem.
        title: The caption.
        synthetic: Whether the model is studied on generated data.
    """
    total = counts["parameters"].sum()
    # the graph is always shown: that it has no parameters is what the paper claims of it
    there = counts[(counts["parameters"] > 0) | (counts["multiply_adds"] > 0) | (counts["component"] == "graph")]
    rows = [
        (
            row.component,
            f"{row.parameters:,}",
            f"{100 * row.parameters / total:.1f}",
            f"{row.multiply_adds / 1e6:,.3f}",
            f"{row.as_fvcore / 1e6:,.3f}",
        )
        for row in there.itertuples()
    ]
    sums = counts[["parameters", "multiply_adds", "as_fvcore"]].sum()
    rows.append(
        ("total", f"{total:,}", "100.0", f"{sums['multiply_adds'] / 1e6:,.3f}", f"{sums['as_fvcore'] / 1e6:,.3f}")
    )
    header = ("component", "parameters", "% of all", "multiply-adds, M", "as fvcore counts, M")
    return Table(name, title, header, tuple(rows), counts, (COUNTING,), synthetic=synthetic)
