"""What the graph does to the prediction: the weights of the frames under Eq. 3, and the contrast that Eq. 2 leaves.

Under the paper's mean readout the logits depend on the graph through T numbers only, w = (1/T) 1^T S1 (derivation in
`taghead.graph`); plain averaging is T*w = 1. S0, the contrast within a frame that survives propagation, never gets
there. Both are closed forms: nothing is trained here. Command: ``taghead-analysis frame_weights``.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from analysis.figure import DASHES, MARKERS, PAGE, PALETTE, new_figure, styled
from analysis.formats import Table
from taghead.graph import (
    WEIGHT_DECIMALS,
    check_propagation,
    frame_operators,
    split_edges,
)
from taghead.head import READOUTS, TAGHead

GRAPHS: dict[str, tuple[tuple[str, ...], str]] = {
    "IF-FC": (("intra_frame",), "union"),
    "TAT": (("time_aligned",), "union"),
    "IF-FC + TAT, union": (("intra_frame", "time_aligned"), "union"),
    "IF-FC + TAT, block": (("intra_frame", "time_aligned"), "block"),
}
ALPHAS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0)
STEPS = (1, 2, 5, 10, 20, 50, 100)
REFERENCE = (0.1, 10)  # alpha and K_prop as APPNP's authors use them; the paper gives neither
NO_EDGES = "no edges"
DRAWN_QUERY = "attention, query drawn"
ROUNDING = 1e-9  # percent: far above float64's, far below any effect
TABLE_SETTINGS = ((0.1, 2), REFERENCE, (0.1, 100), (0.5, 10))


def frame_weights_data(
    grid: tuple[int, int] = (4, 49), *, alphas: Iterable[float] = ALPHAS, steps: Iterable[int] = STEPS
) -> pd.DataFrame:
    """The closed form over alpha, K_prop and edges.

    Args:
        grid: (T, P). The default is R(2+1)D-34 at 32 frames of 112 x 112.
        alphas: Teleport probabilities.
        steps: Numbers of propagation steps.

    Returns:
        Columns ``graph, alpha, k_prop, frame`` (from 1), ``weight`` (T*w; 1 is plain averaging), ``contrast`` and
        ``contrast_least`` (the fraction of the differences within a frame that is left at most and at least).
    """
    alphas, steps = tuple(alphas), tuple(steps)
    names = ["graph", "alpha", "k_prop", "frame"]
    index = pd.MultiIndex.from_product([GRAPHS, alphas, steps, range(1, grid[0] + 1)], names=names)
    left = contrasts(grid, alphas=alphas, steps=steps)
    numbers = {
        "weight": 1 + deviations(grid, alphas=alphas, steps=steps).ravel(),
        "contrast": left[..., -1].repeat(grid[0]),
        "contrast_least": left[..., 0].repeat(grid[0]),
    }
    return pd.DataFrame(numbers, index=index).reset_index()


def deviations(grid: tuple[int, int], *, alphas: Iterable[float], steps: Iterable[int]) -> Float[ndarray, "G A Q T"]:
    """T*w - 1 of every graph in `GRAPHS`, every alpha and every K_prop: 0 is plain averaging.

    The column sums u = 1^T S1 follow Eq. 2 as S1 does, u <- (1 - alpha) u A1 + alpha 1^T, all alphas at once; they are
    rounded as those of `taghead.graph.frame_weights`.

    Args:
        grid: (T, P).
        alphas: A teleport probabilities.
        steps: Q numbers of propagation steps.

    Raises:
        InputError: alpha or K_prop out of range.
    """
    sums = _propagated(grid, tuple(alphas), tuple(steps), lambda a1, a0: a1)
    return np.round(sums - 1, WEIGHT_DECIMALS) + 0.0  # no negative zeros


def contrasts(grid: tuple[int, int], *, alphas: Iterable[float], steps: Iterable[int]) -> Float[ndarray, "G A Q T"]:
    """The singular values of S0, smallest first: what is left of the differences within a frame.

    How much it is depends on how they go over time: no pattern keeps less than the first or more than the last, which
    is `taghead.graph.retained_contrast`. A0 is symmetric and S0 a polynomial in it, so that each eigenvalue follows
    Eq. 2 by itself, s <- (1 - alpha) a s + alpha. Arguments as `deviations`.

    Raises:
        InputError: As `deviations`.
    """
    # block: A0 of intra-frame edges is 0, and has the eigenvectors of any other
    found = _propagated(grid, tuple(alphas), tuple(steps), lambda a1, a0: np.diag(np.linalg.eigvalsh(a0)))
    return np.sort(np.abs(found), axis=-1)


def _propagated(
    grid: tuple[int, int],
    alphas: tuple[float, ...],
    steps: tuple[int, ...],
    operator: Callable[[ndarray, ndarray], Float[ndarray, "T T"]],
) -> Float[ndarray, "G A Q T"]:
    """Eq. 2 on a row of ones, u <- (1 - alpha) u A + alpha 1^T, for an A made of A1 and A0; the mean over the parts."""
    for alpha in alphas:
        for k_prop in steps:
            check_propagation(alpha=alpha, k_prop=k_prop)
    teleport, ones = np.array(alphas)[:, None], np.ones((len(alphas), grid[0]))
    found = np.zeros((len(GRAPHS), len(alphas), len(steps), grid[0]))
    for sums, (edges, combination) in zip(found, GRAPHS.values(), strict=True):
        parts = split_edges(edges, edge_combination=combination)
        for part in parts:
            a = operator(*(one.numpy() for one in frame_operators(grid, alpha=0.0, k_prop=1, edges=part)))
            u = ones
            for k_prop in range(max(steps, default=0) + 1):
                for place in (place for place, wanted in enumerate(steps) if wanted == k_prop):
                    sums[:, place] += u / len(parts)
                u = (1 - teleport) * (u @ a) + teleport
    return found


def extremes(data: pd.DataFrame) -> pd.DataFrame:
    """How far the weights are from plain averaging, setting by setting.

    Args:
        data: As from `frame_weights_data`.

    Returns:
        Columns ``graph, alpha, k_prop, deviation`` (largest abs(T*w - 1)), ``contrast`` and ``contrast_least``; all
        three in percent.
    """
    parts = 100 * data[["contrast", "contrast_least"]].assign(deviation=(data["weight"] - 1).abs())
    keys = [data[name] for name in ("graph", "alpha", "k_prop")]
    return parts.groupby(keys, sort=False)[["deviation", "contrast", "contrast_least"]].max().reset_index()


def frame_weights_table(grid: tuple[int, int] = (4, 49)) -> Table:
    """T*w, its largest deviation from plain averaging, and the contrast left at least and at most, at a few settings.

    Args:
        grid: (T, P).
    """
    alphas, steps = zip(*TABLE_SETTINGS, strict=True)
    data = frame_weights_data(grid, alphas=sorted(set(alphas)), steps=sorted({int(step) for step in steps}))
    summary = extremes(data).set_index(["graph", "alpha", "k_prop"])
    weights = data.set_index(["graph", "alpha", "k_prop"])["weight"]
    rows = []
    for name in GRAPHS:
        for setting in TABLE_SETTINGS:
            facts = summary.loc[(name, *setting)]
            left = (f"{facts.contrast_least:.1f}", f"{facts.contrast:.1f}")
            texts = (_weights_text(weights.loc[[(name, *setting)]]), f"{facts.deviation:.2f}", *left)
            rows.append((name, *map(str, setting), *texts))
    ends = ("contrast left at least, %", "contrast left at most, %")
    header = ("graph", "alpha", "K", "T·w, frame by frame", "largest deviation, %", *ends)
    title = f"Frame weights and contrast left at T = {grid[0]} time steps, P = {grid[1]} sites (closed form)"
    return Table("frame_weights", title, header, tuple(rows), data, tuple(statements(grid)))


def _weights_text(weights: pd.Series) -> str:
    shown = weights.to_numpy()
    if len(shown) > 8:
        return f"{shown.min():.4f} to {shown.max():.4f}"
    return " ".join(f"{weight:.4f}" for weight in shown)


def statements(grid: tuple[int, int] = (4, 49)) -> list[str]:
    """What the numbers mean, in words made from them.

    Args:
        grid: (T, P).
    """
    data = extremes(frame_weights_data(grid))
    reference = data[(data["alpha"] == REFERENCE[0]) & (data["k_prop"] == REFERENCE[1])].set_index("graph")
    both, alone = "IF-FC + TAT, union", "IF-FC"
    at = f"at alpha {REFERENCE[0]}, K {REFERENCE[1]}"
    said = [
        "T·w are the weights with which the mean readout (Eq. 3) sees the frames; 1 is plain averaging. Under that "
        "readout all that the graph does to a prediction is in them."
    ]
    if (data.loc[data["graph"] == alone, "deviation"] == 0).all():
        said.append(
            "Intra-frame edges alone give exactly 1 at every alpha and K: B + TE and B + TE + IF-FC are one function."
        )
    said.append(
        f"The full graph (union) changes no frame's weight by more than {reference.loc[both, 'deviation']:.2f} % {at}; "
        f"time-aligned edges alone change it by up to {reference.loc['TAT', 'deviation']:.1f} %."
    )
    said += _contrast(data)
    said.append(
        f"Of the differences within a frame, intra-frame edges alone leave {_left(reference.loc[alone])}, the full "
        f"graph {_left(reference.loc[both])} and time-aligned edges alone {_left(reference.loc['TAT'])} ({at}), by how "
        "they go over time (smallest and largest singular value of S0): intra-frame edges smooth, they do not sharpen. "
        "A mean readout sees none of it."
    )
    said.append(
        "union: the edges of both kinds in one graph; block: a graph for each kind, propagated apart, then averaged "
        "(the two ways to read the paper's blockdiag)."
    )
    return said


def _left(facts: pd.Series) -> str:
    low, high = f"{facts['contrast_least']:.1f}", f"{facts['contrast']:.1f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def _contrast(data: pd.DataFrame) -> Iterable[str]:
    """The paper's words "sharpen" and "mitigating oversmoothing", held against S0."""
    within = data[data["graph"] != "TAT"]
    word = "none sharpens" if within["contrast"].max() <= 100 + 1e-9 else "some sharpen"
    left = within[within["alpha"] < 1]
    many = data["k_prop"].max()
    least = within[within["k_prop"] == many].groupby("alpha")["contrast_least"].min()
    yield (
        f'The paper says "sharpen": of {len(within)} settings with intra-frame edges {word} the differences within a '
        f"frame; with alpha below 1 they leave {left['contrast_least'].min():.0f} to {left['contrast'].max():.0f} %."
    )
    yield (
        f'The paper says "mitigating oversmoothing": the teleport bounds it. After {many} steps the least that '
        f"is left is {least[REFERENCE[0]]:.1f} % at alpha {REFERENCE[0]} and {least[0.0]:.1f} % at alpha 0."
    )


@styled
def draw_frame_weights(data: pd.DataFrame) -> Figure:
    """Left: T*w frame by frame at the reference setting. Right: the largest deviation over alpha.

    Args:
        data: As from `frame_weights_data`, with the reference setting among its own.
    """
    alpha, k_prop = REFERENCE
    figure, (left, right) = new_figure(PAGE, 2.6, columns=2)
    at_reference = data[(data["alpha"] == alpha) & (data["k_prop"] == k_prop)]
    curves = extremes(data)
    for name in GRAPHS:
        weights = at_reference[at_reference["graph"] == name]
        left.plot(weights["frame"], weights["weight"], label=name, **_look(name))
        curve = curves[(curves["graph"] == name) & (curves["k_prop"] == k_prop)]
        right.plot(curve["alpha"], curve["deviation"], label=name, clip_on=False, **_look(name))
    left.set(xlabel="time step", ylabel="T·w (1: plain averaging)", title=f"alpha = {alpha}, K = {k_prop}")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set(xlabel="alpha", ylabel="largest deviation, %", title=f"K = {k_prop}")
    right.set_yscale("symlog", linthresh=0.01)  # has a place for the exact zeros of intra-frame edges
    right.set_yticks([0, 0.01, 0.1, 1, 10], ["0", "0.01", "0.1", "1", "10"])
    right.set_ylim(0, 20)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


@styled
def draw_contrast(data: pd.DataFrame) -> Figure:
    """The contrast within a frame that propagation leaves, over alpha and over the number of steps.

    A line for what is left at most, a band from there down to what is left at least.

    Args:
        data: As from `frame_weights_data`, with the reference setting among its own.
    """
    alpha, k_prop = REFERENCE
    figure, (left, right) = new_figure(PAGE, 2.6, columns=2)
    curves = extremes(data)
    for name in GRAPHS:
        mine = curves[curves["graph"] == name]
        over_alpha, over_steps = mine[mine["k_prop"] == k_prop], mine[mine["alpha"] == alpha]
        for axis, over, curve in ((left, "alpha", over_alpha), (right, "k_prop", over_steps)):
            axis.plot(curve[over], curve["contrast"], label=name, **_look(name))
            band = (curve[over], curve["contrast_least"], curve["contrast"])
            axis.fill_between(*band, color=_look(name)["color"], alpha=0.12, linewidth=0)
    left.set(xlabel="alpha", ylabel="contrast left at most, %", title=f"K = {k_prop}", ylim=(0, 105))
    right.set(xlabel="K", title=f"alpha = {alpha}", ylim=(0, 105), xscale="log")
    right.set_xticks(steps := sorted(curves["k_prop"].unique()), [str(step) for step in steps])
    right.minorticks_off()
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def readout_data(
    grid: tuple[int, int] = (4, 49), *, alpha: float = REFERENCE[0], k_prop: int = REFERENCE[1]
) -> pd.DataFrame:
    """Which readouts see which graph, on random tokens with random initial weights: nothing here is trained.

    In float64, heads of the same parameters that differ in the graph alone; the readout ``attention`` once as it
    starts, its query zero and so a mean, and once with a query drawn.

    Args:
        grid: (T, P).
        alpha: The teleport probability.
        k_prop: The number of steps.

    Returns:
        Columns ``readout, graph, change``: the largest change of a logit from no graph, in percent of the logits'
        standard deviation.
    """
    rows = []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        tokens, query = torch.randn(8, *grid, 64, dtype=torch.float64), torch.randn(64)
        for readout in (*READOUTS, DRAWN_QUERY):
            heads = {}
            for name, (edges, combination) in (GRAPHS | {NO_EDGES: ((), "union")}).items():
                torch.manual_seed(1)
                graph: dict[str, Any] = {"edges": edges, "edge_combination": combination}
                kind = "attention" if readout == DRAWN_QUERY else readout
                head = TAGHead(64, (*grid, 1), 10, ffn_dim=64, readout=kind, alpha=alpha, k_prop=k_prop, **graph)
                if readout == DRAWN_QUERY:
                    head.readout.query.copy_(query)
                heads[name] = head.double().eval()(tokens)
            without = heads.pop(NO_EDGES)
            unit = float(without.std()) / 100
            rows += [(readout, name, float((with_ - without).abs().max()) / unit) for name, with_ in heads.items()]
    return pd.DataFrame(rows, columns=["readout", "graph", "change"])


def readout_table(grid: tuple[int, int] = (4, 49)) -> Table:
    """Readouts x graphs: the largest change of a logit, and what that says.

    Args:
        grid: (T, P).
    """
    data = readout_data(grid)
    cells = data.pivot_table(index="readout", columns="graph", values="change", sort=False)
    rows = tuple((str(name), *map(_change, row)) for name, row in zip(cells.index, cells.to_numpy(), strict=True))
    see = [str(name) for name in cells.index if cells.loc[name, "IF-FC"] > ROUNDING]
    blind = [str(name) for name in cells.index if name not in see]
    notes = (
        f"Random tokens, random initial weights, alpha {REFERENCE[0]}, K {REFERENCE[1]}, nothing trained: this says "
        "what a readout can see of a graph, not what a trained model makes of it.",
        f"Intra-frame edges reach: {'; '.join(see) or 'none'}. They do not reach: {'; '.join(blind) or 'none'}.",
        "attention starts with a query of zeros, and so as the mean.",
    )
    title = f"Which readout sees which graph at T = {grid[0]}, P = {grid[1]}: largest change of a logit, % of their sd"
    return Table("readouts", title, ("readout", *map(str, cells.columns)), rows, data, notes)


def _change(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.1f}" if value >= 0.1 else f"{value:.0e}"


def _look(name: str) -> dict[str, Any]:
    index = list(GRAPHS).index(name)
    return {"color": PALETTE[index], "linestyle": DASHES[index], "marker": MARKERS[index]}
