"""The graph's effect on a trained model: every alpha, K_prop and edge set of APPNP, from one pass over the test clips.

Under the mean readout a model's logits under every graph are small products of its frames' logits with frame weights
(`analysis.frame_logits`): no setting is trained, none is evaluated. Command: ``taghead-analysis surface components``.

Legend: m test clips, n of them that decode, T time steps, K classes, S settings of the graph.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from numpy import ndarray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from analysis import cells
from analysis.differences import is_identical
from analysis.figure import PAGE, PALETTE, new_figure, stamp, styled
from analysis.formats import Table
from analysis.frame_logits import Trained
from analysis.frame_weights import GRAPHS, NO_EDGES, REFERENCE, deviations
from analysis.intervals import paired_difference, paired_numbers, spread
from analysis.significance import LEVEL, holm_once, paired_t
from analysis.tables import signed, with_interval
from studies.plan import Cell, Plan
from taghead.config import canonical, evolve

ALPHAS = tuple(round(0.05 * step, 2) for step in range(21))
STEPS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 30, 50, 100)
COLOURS = "viridis_r"
BLOCK = 2**19  # logits computed at once: they stay in the cache


def surface_data(
    trained: list[Trained], *, alphas: Iterable[float] = ALPHAS, steps: Iterable[int] = STEPS
) -> pd.DataFrame:
    """What every setting of the graph does to the predictions of trained models; none is trained anew.

    Args:
        trained: Seeds of one cell, as from `load`.
        alphas: Teleport probabilities.
        steps: Numbers of propagation steps.

    Returns:
        One row for each seed and setting, in that order, with ``row, dataset, seed, graph, alpha, k_prop``;
        ``deviation`` (largest abs(T*w - 1), percent); ``largest`` and ``mean``, absolute differences of logits to plain
        averaging, over clips and classes; ``flipped``, the number of the ``clips`` that decode whose prediction
        differs; ``top1`` and ``mca`` in percent, of all test clips, and ``plain_top1`` of plain averaging; ``trained``,
        whether it is the setting that the model was trained with.
    """
    alphas, steps = tuple(alphas), tuple(steps)
    settings = pd.MultiIndex.from_product([list(GRAPHS), alphas, steps], names=["graph", "alpha", "k_prop"])
    frames = []
    for one in trained:
        moved = deviations(one.grid, alphas=alphas, steps=steps).reshape(len(settings), -1)
        # graphs with equal weights are one function, computed once
        different, place = np.unique(moved, axis=0, return_inverse=True)
        with threadpool_limits(1):
            effects = _effects(one, different)
        columns = {name: values[place.ravel()] for name, values in effects.items()}
        facts = {"row": one.row, "dataset": one.dataset, "seed": one.seed}
        own = [setting == one.setting for setting in settings]
        frame = settings.to_frame(index=False).assign(
            **facts, deviation=100 * np.abs(moved).max(axis=1), **columns, clips=int(one.read.sum()),
            plain_top1=_plain_top1(one), trained=own,
        )  # fmt: skip
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _effects(one: Trained, moved: Float[ndarray, "S T"]) -> dict[str, ndarray]:
    plain, labels = one.frames.plain, one.labels[one.read]
    before = plain.argmax(axis=1)
    counts = np.bincount(one.labels)
    in_mca = (100 / np.maximum(counts, 1) / (counts > 0).sum())[labels]  # what one right clip is worth
    parts: list[tuple[ndarray, ...]] = []
    block = max(1, BLOCK // plain.size)
    for start in range(0, len(moved), block):
        change = one.frames.changes(moved[start : start + block])
        after = (change + plain).argmax(axis=2)
        np.abs(change, out=change)
        flat = change.reshape(len(change), -1)
        right, flipped = after == labels, (after != before).sum(axis=1)
        top1 = 100 * right.sum(axis=1) / len(one.labels)
        parts.append((flat.max(axis=1), flat.mean(axis=1), flipped, top1, right @ in_mca))
    names = ("largest", "mean", "flipped", "top1", "mca")
    return {name: np.concatenate(values) for name, values in zip(names, zip(*parts, strict=True), strict=True)}


def _predicted(one: Trained) -> Int[ndarray, " m"]:
    """The class of each test clip under plain averaging; -1 for a clip that does not decode."""
    predicted = np.full(len(one.labels), -1)
    predicted[one.read] = one.frames.plain.argmax(axis=1)
    return predicted


def _plain_top1(one: Trained) -> float:
    return 100 * float((_predicted(one) == one.labels).sum()) / len(one.labels)


def apart(trained: list[Trained]) -> tuple[float, float] | None:
    """How far seeds are from one another under plain averaging: what the graph's effect has to be held against.

    Args:
        trained: Seeds of one cell.

    Returns:
        The number of test clips that two seeds predict differently (mean over pairs), and the standard deviation of
        Top-1 over seeds in points; None for a single seed.
    """
    predicted = [_predicted(one) for one in trained]
    pairs = [(one != other).sum() for one, other in combinations(predicted, 2) if len(one) == len(other)]
    sd = spread(map(_plain_top1, trained)).sd
    return (float(np.mean(pairs)), sd) if pairs and sd is not None else None


def surface_table(trained: list[Trained], data: pd.DataFrame, *, name: str = "surface") -> Table:
    """The largest effect of each graph over all its settings and seeds, and beside it that of another seed.

    Args:
        trained: Seeds of one cell, as from `load`.
        data: As from `surface_data` of these.
        name: The file's stem.
    """
    clips = int(data["clips"].max())
    rows = []
    for graph, mine in data.groupby("graph", sort=False):
        worst = mine.loc[mine["flipped"].idxmax()]
        where = f"alpha {worst.alpha}, K {worst.k_prop}" if worst.flipped else "nowhere"
        points = mine["top1"] - mine["plain_top1"]
        rows.append(
            (
                str(graph), f"{mine['deviation'].max():.2f}", _number(mine["largest"].max()), str(worst.flipped), where,
                f"{signed(points.min())} to {signed(points.max())}",
            )
        )  # fmt: skip
    if reference := apart(trained):
        rows.append(("another seed", "-", "-", f"{reference[0]:.1f}", "mean over pairs", f"sd {reference[1]:.1f}"))
    header = ("graph", "frame weights, % off plain", "largest logit change", f"most flipped of {clips}", "at",
              "Top-1 change, points")  # fmt: skip
    first = trained[0]
    title = f"The graph's effect on {first.row}, {first.dataset}, as trained: the largest over settings and seeds"
    notes = tuple(statements(trained, data))
    return Table(name, title, header, tuple(rows), data, notes, synthetic=first.synthetic)


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.2g}"


def statements(trained: list[Trained], data: pd.DataFrame) -> list[str]:
    """What the surface says, in sentences made from its numbers.

    Args:
        trained: Seeds of one cell, as from `load`.
        data: As from `surface_data` of these.
    """
    first, clips = trained[0], int(data["clips"].max())
    settings = data.groupby("seed").size().iloc[0]
    graph, alpha, k_prop = first.setting
    own = graph if graph == NO_EDGES else f"{graph}, alpha {alpha}, K {k_prop}"
    said = [
        f"{settings:,} settings of the graph, each on {clips} test clips under {len(trained)} trained "
        f"model{'s' if len(trained) > 1 else ''} (trained with {own}), from one pass over the clips. "
        "No model was trained anew: this is the graph's effect on a model's predictions, not that of training with it. "
        f"The models' stored logits are met to {max(one.error for one in trained):.0e}.",
        *_directions(trained, data),
        *_by_graph(data, clips),
    ]
    most = data.loc[data["flipped"].idxmax()]
    where = f" ({most.graph}, alpha {most.alpha}, K {most.k_prop})" if most.flipped else ""
    if reference := apart(trained):
        differ, sd = reference
        said.append(
            f"Two seeds of this row differ on {differ:.1f} of the clips (mean over pairs), and Top-1 has a standard "
            f"deviation of {sd:.1f} points over {len(trained)} seeds; no graph flips more than {most.flipped}{where}."
        )
    else:
        said.append("One seed has no spread, so that there is nothing to hold the graph's effect against.")
    return said


def _directions(trained: list[Trained], data: pd.DataFrame) -> Iterator[str]:
    grid = trained[0].grid
    moved = deviations(grid, alphas=data["alpha"].unique().tolist(), steps=data["k_prop"].unique().tolist()).reshape(
        -1, grid[0]
    )
    different = len(np.unique(moved, axis=0))
    free = int(np.linalg.matrix_rank(moved, tol=1e-9))
    yield (
        f"At T = {grid[0]}, P = {grid[1]} they are {different:,} different weightings of the frames, of {free} free "
        f"number{'' if free == 1 else 's'} each (weights are symmetric in time)."
    )


def _by_graph(data: pd.DataFrame, clips: int) -> Iterator[str]:
    for graph, mine in data.groupby("graph", sort=False):
        largest = mine["largest"].max()
        if largest == 0:
            yield f"{graph}: 0 flips and no logit changed, exactly, at every alpha and K."
            continue
        usual = mine[(mine["alpha"] == REFERENCE[0]) & (mine["k_prop"] == REFERENCE[1])]
        text = f"{graph}: at most {mine['flipped'].max()} of {clips} predictions flipped"
        if len(usual):
            text += f" ({usual['flipped'].max()} at alpha {REFERENCE[0]}, K {REFERENCE[1]})"
        points = (mine["top1"] - mine["plain_top1"]).abs().max()
        yield (
            f"{text}, Top-1 changed by {points:.1f} points at the most, no logit by more than {_number(largest)} (mean "
            f"over clips and classes: {_number(mine['mean'].max())})."
        )


def trained_effects(results: Path, plan: Plan) -> pd.DataFrame:
    """What training with a graph changes, readout by readout: pairs of rows that differ in the graph alone.

    Args:
        results: The results folder.
        plan: The study; rows of a graph have a partner where one is the same without edges.

    Returns:
        One row for each such pair, with ``row, base, dataset, readout``; ``difference`` of Top-1 to the base in points
        over the ``n`` seeds that both have, and its 95 % interval, ``low`` and ``high``, NaN where it does not vary;
        ``identical``, whether both have the same bits in all of these; ``p`` of the paired t-test, ``p_holm`` after
        Holm's correction for the ``num_tests`` tests of these pairs, where those of the same numbers count once.
    """
    frame = cells.join(results, plan)
    scores = frame[(frame["metric"] == "top1") & (frame["status"] == "complete")]
    by_seed = {
        key: dict(zip(group["seed"], group["value"], strict=True)) for key, group in scores.groupby(["row", "dataset"])
    }
    found, contents = [], []
    for pair in _pairs(plan):
        ours, base = (by_seed.get((cell.row, cell.dataset), {}) for cell in pair)
        found.append(_effect(results, pair, ours, base))
        contents.append((pair[0].dataset, paired_numbers(ours, base)))
    columns = ["row", "base", "dataset", "readout", "difference", "n", "low", "high", "identical", "p"]
    effects = pd.DataFrame(found, columns=columns).astype({"low": float, "high": float})
    adjusted, number = holm_once(effects["p"].tolist(), contents)
    return effects.assign(p_holm=np.array(adjusted, float), num_tests=number)


def _pairs(plan: Plan) -> Iterator[tuple[Cell, Cell]]:
    """Each cell with edges, and the first that is the same without."""
    heads = [cell for cell in plan.cells if cell.config.model.head == "tag"]
    without = {(cell.dataset, canonical(cell.config)): cell for cell in reversed(heads) if not cell.config.head.edges}
    for cell in heads:
        base = without.get((cell.dataset, canonical(evolve(cell.config, {"head.edges": ()}))))
        if base is not None and cell.config.head.edges:
            yield cell, base


def _effect(
    results: Path, pair: tuple[Cell, Cell], ours: Mapping[int, float], base: Mapping[int, float]
) -> tuple[Any, ...]:
    cell, measured = pair[0], paired_difference(ours, base)
    ends = (measured.low, measured.high) if measured.varies else (None, None)
    identical = is_identical(results, pair, ours.keys() & base.keys())
    p = math.nan if identical else paired_t(measured)
    names = (cell.row, pair[1].row, cell.dataset, cell.config.head.readout)
    return (*names, measured.mean, measured.n, *ends, identical, p)


def trained_statements(effects: pd.DataFrame) -> list[str]:
    """Under which readouts training with a graph changed Top-1, as far as these seeds tell.

    Args:
        effects: As from `trained_effects`.
    """
    said = []
    for (dataset, readout), mine in effects[effects["n"] > 0].groupby(["dataset", "readout"], sort=False):
        parts = [
            f"{one.row} {'identical' if one.identical else with_interval(one.difference, one.n, one.low, one.high)}"
            for one in mine.itertuples()
        ]
        clear = mine[mine["p_holm"] < LEVEL]
        told = f"told apart from no graph: {', '.join(clear['row'])}" if len(clear) else "none is told from no graph"
        said.append(f"{dataset}, readout {readout}, Top-1 in points against no edges: {', '.join(parts)}; {told}.")
    if tests := int(effects["num_tests"].max()) if len(effects) else 0:
        said.append(
            "In brackets stands the 95 % t-interval of one difference over seeds. Told apart is what has p < "
            f"{LEVEL} in the paired t-test over seeds after Holm's correction for the {tests} "
            f"test{'' if tests == 1 else 's'} of such pairs; pairs that do not vary, or have one seed, have no test."
        )
    return said


@styled
def draw_surface(data: pd.DataFrame, *, differ: float | None = None, synthetic: bool) -> Figure:
    """Flipped predictions (above) and the largest change of a logit (below) over alpha and K_prop, a panel a graph.

    A cross marks the setting that the model was trained with, where it is one of those drawn.

    Args:
        data: As from `surface_data`.
        differ: Clips that two seeds predict differently, as from `apart`; told beside the scale.
        synthetic: Stamps the figure.
    """
    graphs = list(dict.fromkeys(data["graph"]))
    figure, axes = new_figure(PAGE, 3.4, columns=len(graphs), rows=2)
    seeds = "" if differ is None else f"\n(two seeds: {100 * differ / data['clips'].max():.1f} %)"
    flipped = 100 * data["flipped"] / data["clips"]
    rows = (
        (axes[: len(graphs)], flipped, "mean", f"flipped, % of clips{seeds}"),
        (axes[len(graphs) :], data["largest"], "max", "largest change\nof a logit"),
    )
    for panels, quantity, over_seeds, label in rows:
        shown = data.assign(shown=quantity).groupby(["graph", "k_prop", "alpha"], sort=False)["shown"].agg(over_seeds)
        norm = _scale(shown[shown > 0], logarithmic=over_seeds == "max")
        for axis, graph in zip(panels, graphs, strict=True):
            _heat(axis, values := shown[graph].unstack(), norm)
            own = data[data["trained"] & (data["graph"] == graph)].drop_duplicates(["alpha", "k_prop"])
            x, y = values.columns.get_indexer(own["alpha"]) + 0.5, values.index.get_indexer(own["k_prop"]) + 0.5
            axis.plot(x, y, "x", color=PALETTE[1], markersize=4)
            axis.tick_params(labelleft=axis is panels[0], labelbottom=panels is rows[-1][0])
        panels[0].set_ylabel("K")
        if norm is not None:
            figure.colorbar(ScalarMappable(norm, COLOURS), ax=panels, label=label, aspect=12, format=_plain)
        else:
            panels[-1].text(1.15, 0.5, label, transform=panels[-1].transAxes, rotation=90, va="center", ha="center")
    for above, below, graph in zip(axes, axes[len(graphs) :], graphs, strict=False):
        above.set_title(graph)
        below.set_xlabel("alpha")
    return stamp(figure, synthetic=synthetic)


def _scale(shown: pd.Series, *, logarithmic: bool) -> Normalize | None:
    """Of what is not 0; None where all is."""
    if shown.empty:
        return None
    high = float(shown.max())
    return LogNorm(min(max(float(shown.min()), high / 1e3), high / 10), high) if logarithmic else Normalize(0, high)


def _plain(value: float, _: object) -> str:
    return f"{value:g}"


def _heat(axis: Axes, values: pd.DataFrame, norm: Normalize | None) -> None:
    """Exact zeros stay white: they are no small effect, they are none."""
    axis.pcolormesh(np.ma.masked_equal(values.to_numpy(), 0), norm=norm, cmap=COLOURS, rasterized=True)
    axis.grid(False)
    for ticks, known, most in ((axis.set_xticks, values.columns, 3), (axis.set_yticks, values.index, 5)):
        places = np.unique(np.linspace(0, len(known) - 1, most).round().astype(int))
        ticks(places + 0.5, [f"{known[place]:g}" for place in places])
    if not values.to_numpy().any():
        axis.text(0.5, 0.5, "exactly 0", transform=axis.transAxes, ha="center", va="center", color="#555555")
