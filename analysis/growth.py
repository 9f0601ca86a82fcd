"""How the cost of one clip grows with its frames and its size: backbone, head, and attention's square, each apart.

Command: ``taghead-analysis complexity --out DIR``.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.complexity import count
from analysis.figure import PAGE, PALETTE, new_figure, styled
from taghead.backbones import BACKBONES, check_input, grid_of
from taghead.complexity import HEAD
from taghead.config import Config, evolve
from taghead.errors import InputError
from taghead.recipes import recipe

DRAWN = ("r2plus1d_34", "slow_r50")  # the paper's, and the one that keeps every frame a time step
FRAMES = (8, 32, 128)  # few, for the page's sake: over these axes costs are nearly straight lines
PIXELS = (112, 160, 224)
ATTENTION = "attention's two products"
LOOKS: dict[str, dict[str, Any]] = {
    "backbone": {"color": PALETTE[0], "marker": "o"},
    "head": {"color": PALETTE[1], "marker": "s"},
    ATTENTION: {"color": PALETTE[2], "marker": "^", "ls": "--"},
}


def growth_data(
    base: Config | None = None,
    *,
    backbones: tuple[str, ...] = DRAWN,
    frames: tuple[int, ...] = FRAMES,
    pixels: tuple[int, ...] = PIXELS,
) -> pd.DataFrame:
    """How the cost of one clip grows with its frames, and with its size; the base's own other number stands still.

    Args:
        base: The model; None: the paper's on HAA500.
        backbones: Keys of `BACKBONES`, in turn in the base's place.
        frames: F, at the base's size.
        pixels: Of the side, at the base's frames.

    Returns:
        Columns ``backbone, axis`` (``frames`` or ``pixels``), ``frames, pixels, tokens, part, multiply_adds``; the
        parts are those of `LOOKS`, the last one contained in the head. No row of a clip that the backbone does not
        take.
    """
    base = base or recipe("haa500")
    clips = [("frames", number, base.data.crop_size) for number in frames]
    clips += [("pixels", base.data.num_frames, number) for number in pixels]
    rows = []
    for name in backbones:
        for axis, number, size in clips:
            try:
                check_input(name, number, size)
            except InputError:
                continue
            seen = {"data.num_frames": number, "data.crop_size": size, "data.short_side": size}
            costs = _parts(evolve(base, {**seen, "model.backbone": name}))
            tokens = int(np.prod(grid_of(name, number, size)))
            rows += [(name, axis, number, size, tokens, part, cost) for part, cost in costs.items()]
    return pd.DataFrame(rows, columns=["backbone", "axis", "frames", "pixels", "tokens", "part", "multiply_adds"])


def _parts(config: Config) -> dict[str, int]:
    """The costs of `LOOKS`. Attention's products are scores and weighted sums: N x N x C each, in each layer."""
    costs = count(config, num_classes=1).set_index("component")["multiply_adds"]
    name, head = config.model.backbone, config.head
    tokens = int(np.prod(grid_of(name, config.data.num_frames, config.data.crop_size)))
    attends = config.model.head == "tag" and head.encoder == "attention"
    layers = head.num_layers if attends else 0
    attention = 2 * layers * tokens**2 * (head.width or BACKBONES[name].channels)
    return dict(zip(LOOKS, (int(costs["backbone"]), int(costs[list(HEAD)].sum()), attention), strict=True))


@styled
def draw_growth(data: pd.DataFrame) -> Figure:
    """A row of panels a backbone: multiply-adds over frames and over the side, both axes logarithmic.

    Args:
        data: As from `growth_data`.
    """
    backbones = list(dict.fromkeys(data["backbone"]))
    figure, axes = new_figure(PAGE, 0.5 + 1.9 * len(backbones), columns=2, rows=len(backbones))
    panels = [(name, axis) for name in backbones for axis in ("frames", "pixels")]
    for panel, (name, axis) in zip(axes, panels, strict=True):
        points = data[(data["backbone"] == name) & (data["axis"] == axis)]
        for part, look in LOOKS.items():
            mine = points[(points["part"] == part) & (points["multiply_adds"] > 0)]
            panel.plot(mine[axis], mine["multiply_adds"] / 1e9, label=part, **look)
        ticks = sorted(points[axis].unique())
        panel.set(xscale="log", yscale="log", title=name)
        panel.set_xticks(ticks, ticks)
        panel.yaxis.set_major_formatter("{x:g}")  # powers would need the mathematics that labels are not read as
        panel.minorticks_off()
    for panel in axes[::2]:
        panel.set_ylabel("multiply-adds, G")
    other = data.groupby("axis")[["frames", "pixels"]].first()
    axes[-2].set_xlabel(f"frames, of {other.loc['frames', 'pixels']} x {other.loc['frames', 'pixels']} pixels")
    axes[-1].set_xlabel(f"pixels of the side, {other.loc['pixels', 'frames']} frames")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def growth_notes(data: pd.DataFrame) -> list[str]:
    """How many times as much the longest and the largest clip cost, and what attention's square has to do with it.

    Args:
        data: As from `growth_data`.
    """
    said = []
    for (name, axis), points in data.groupby(["backbone", "axis"], sort=False):
        costs = points.pivot(index=axis, columns="part", values="multiply_adds").sort_index()
        tokens = points.groupby(axis)["tokens"].first()
        first, last, share = (
            costs.iloc[0],
            costs.iloc[-1],
            100 * costs[ATTENTION] / costs["head"].where(costs["head"] > 0),
        )
        text = (
            f"{name}, {costs.index[0]} to {costs.index[-1]} {axis} ({tokens.iloc[0]:,} to {tokens.iloc[-1]:,} tokens): "
            f"the backbone costs {last['backbone'] / first['backbone']:.3g} times as much"
        )
        if first["head"]:
            text += f", the head {last['head'] / first['head']:.3g} times; the head is "
            text += f"{100 * first['head'] / first[['backbone', 'head']].sum():.2g} % of the whole, then "
            text += f"{100 * last['head'] / last[['backbone', 'head']].sum():.2g} %"
        if first[ATTENTION]:
            text += f"; attention's two products, which grow with the square of the tokens, are {share.iloc[0]:.2g} % "
            text += f"of the head, then {share.iloc[-1]:.2g} %"
        said.append(f"{text}.")
    return said
