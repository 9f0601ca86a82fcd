"""The efficiency figures: what each component costs (Table 5 as bars), and accuracy against cost with its Pareto front.

Command: ``taghead-analysis complexity STUDY --out DIR``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy import ndarray

from analysis import cells, published
from analysis.complexity import WIDTHS, count, paper_model
from analysis.differences import METRIC_NAMES
from analysis.figure import COLUMN, MARKERS, PAGE, PALETTE, new_figure, stamp, styled
from analysis.formats import Table
from analysis.intervals import paired_difference
from analysis.places import slug
from analysis.tables import signed, summary
from studies.plan import Cell, Plan
from taghead.backbones.own import is_own
from taghead.complexity import COMPONENTS, HEAD
from taghead.released import NUM_CLASSES

QUANTITIES = {"params_m": "parameters, M", "gmac": "multiply-adds, G"}
PUBLISHED = "whole model, as published"
OTHERS = ("PGVT", "PEVL")  # the models that Table 5 prints the cost of
LOG_FROM = 20  # times between the cheapest and the dearest point, from which the axis is logarithmic
LOOKS: dict[str, dict[str, Any]] = {
    **{name: {"color": colour} for name, colour in zip(COMPONENTS, PALETTE, strict=False)},
    PUBLISHED: {"color": "#dddddd", "hatch": "////", "edgecolor": "#888888"},
}


def efficiency_data() -> pd.DataFrame:
    """The paper's model at three FFN widths, counted by component, beside the published totals of Table 5.

    Returns:
        Columns ``model, component, quantity, value``; quantities as `QUANTITIES`. The published models have one
        component, `PUBLISHED`; their "GFLOPs" stand under ``gmac`` as they were printed.
    """
    rows = []
    for width in WIDTHS:
        for part in paper_model(width).itertuples():
            model = f"TAG-Head, FFN {width}"
            rows.append((model, part.component, "params_m", part.parameters / 1e6))
            rows.append((model, part.component, "gmac", part.multiply_adds / 1e9))
    printed = published.values(5)
    for model in OTHERS:
        rows.append((model, PUBLISHED, "params_m", printed[model, "", "params_m"]))
        rows.append((model, PUBLISHED, "gmac", printed[model, "", "gflops"]))
    return pd.DataFrame(rows, columns=["model", "component", "quantity", "value"])


@styled
def draw_efficiency(data: pd.DataFrame) -> Figure:
    """Stacked bars; the published models are hatched.

    Args:
        data: As from `efficiency_data`.
    """
    figure, axes = new_figure(PAGE, 2.4, columns=2)
    for axis, (quantity, label) in zip(axes, QUANTITIES.items(), strict=True):
        _draw_bars(axis, data[data["quantity"] == quantity])
        axis.set_xlabel(label)
    axes[1].set_yticklabels([])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), columnspacing=1.4)
    return figure


def _draw_bars(axis: Axes, data: pd.DataFrame) -> None:
    models = list(dict.fromkeys(data["model"]))
    parts = data.pivot(index="model", columns="component", values="value").reindex(models).fillna(0.0)
    left = pd.Series(0.0, index=models)
    for name, look in LOOKS.items():
        there = [model for model in models if name in parts and parts.loc[model, name] > 0]
        if there:  # an empty bar would still draw its edge
            place = [models.index(model) for model in there]
            axis.barh(place, parts.loc[there, name], left=left[there], height=0.7, label=name, **look)
            left = left.add(parts[name])
    for index, model in enumerate(models):
        head = sum(parts.loc[model].get(name, 0.0) for name in HEAD)
        # a published total has no more digits than were printed
        text = f"{left[model]:.2f}  (head {head:.2f})" if head else f"{left[model]:g}"
        axis.annotate(text, (left[model], index), xytext=(3, 0), textcoords="offset points",
                      va="center", fontsize=6)  # fmt: skip
    axis.set_xlim(0, 1.25 * left.max())
    axis.set_yticks(range(len(models)), models)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)


def costs_data(plan: Plan, frame: pd.DataFrame) -> pd.DataFrame:
    """What each row of a study costs.

    Args:
        plan: The study.
        frame: As from `analysis.cells.read`; tells the number of classes, once a trial has run.

    Returns:
        Columns ``row, dataset, parameters, multiply_adds, as_fvcore`` of the whole model and one clip; no row where the
        number of classes is not known yet, nor of a user's own backbone, whose source no table runs.
    """
    rows = []
    for cell in plan.cells:
        if (classes := num_classes(frame, cell)) and not is_own(cell.config.model.backbone):
            sums = count(cell.config, num_classes=classes)[["parameters", "multiply_adds", "as_fvcore"]].sum()
            rows.append((cell.row, cell.dataset, *sums.tolist()))
    return pd.DataFrame(rows, columns=["row", "dataset", "parameters", "multiply_adds", "as_fvcore"])


def num_classes(frame: pd.DataFrame, cell: Cell) -> int:
    """The classes of a column: of a finished trial's record, else the paper's; 0 where neither tells.

    Args:
        frame: As from `analysis.cells.read`.
        cell: Any cell of the column.
    """
    done = frame.loc[(frame["dataset"] == cell.dataset) & (frame["status"] == "complete"), "num_classes"]
    return int(done.max()) if len(done) else NUM_CLASSES.get(cell.config.data.dataset, 0)


def cost_table(results: Path, plan: Plan) -> Table:
    """What each row of a study costs, as a table.

    Args:
        results: The results folder.
        plan: The study.
    """
    frame = cells.join(results, plan)
    data = costs_data(plan, frame)
    rows = tuple(
        (
            cost.row,
            cost.dataset,
            f"{cost.parameters:,}",
            f"{cost.multiply_adds / 1e9:.4f}",
            f"{cost.as_fvcore / 1e9:.4f}",
        )
        for cost in data.itertuples()
    )
    header = ("", "data set", "parameters", "multiply-adds, G", "as fvcore counts, G")
    synthetic = bool(frame["synthetic"].any())
    return Table(
        f"{plan.name}_cost", f"{plan.title}: what a row costs, one clip", header, rows, data, synthetic=synthetic
    )


def accuracy_data(results: Path, plan: Plan) -> pd.DataFrame:
    """A study's accuracies beside what each row costs.

    Args:
        results: The results folder.
        plan: The study.

    Returns:
        As `measured_cells`, with the columns of `costs_data`.
    """
    frame = cells.join(results, plan)
    return measured_cells(plan, frame).merge(costs_data(plan, frame), on=["row", "dataset"])


def measured_cells(plan: Plan, frame: pd.DataFrame) -> pd.DataFrame:
    """What a study measured, and under which seed.

    Args:
        plan: The study.
        frame: As from `analysis.cells.read`.

    Returns:
        The cells of `analysis.tables.summary` that have a value; ``by_seed``, their complete trials' values by seed.
    """
    by_seed = {
        key: {trial.seed: trial.value for trial in trials if trial.status == "complete"}
        for key, trials in cells.by_cell(frame).items()
    }
    there = summary(frame, plan).query("n > 0")
    keys = zip(there["row"], there["dataset"], there["metric"], strict=True)
    return there.assign(by_seed=[by_seed[key] for key in keys])


def accuracy_figures(results: Path, plan: Plan) -> Iterator[tuple[str, pd.DataFrame, Figure]]:
    """The figures of accuracy against cost, one a column, by the study's first metric.

    Args:
        results: The results folder.
        plan: The study.

    Yields:
        The file's stem, the points, the figure; nothing where no trial is complete or all rows cost the same.
    """
    data = accuracy_data(results, plan)
    for dataset in data["dataset"].unique():
        points = data[(data["dataset"] == dataset) & (data["metric"] == plan.metrics[0])]
        if points["multiply_adds"].nunique() > 1:
            figure = draw_accuracy(
                points,
                published=published_points(plan, dataset, plan.metrics[0]),
                synthetic=cells.is_synthetic(plan, dataset),
            )
            yield f"{plan.name}_{slug(dataset)}_cost", points, figure


def published_points(plan: Plan, dataset: str, metric: str) -> pd.DataFrame:
    """The models of others that the paper prints both cost and accuracy of, on the clips of one column.

    Args:
        plan: The study.
        dataset: The column; nothing is published of one whose clips are not the paper's.
        metric: ``top1`` or ``mca``.

    Returns:
        Columns ``row, multiply_adds, mean``; the printed "GFLOPs" stand for multiply-adds.
    """
    rows = []
    if all(cells.is_published(cell) for cell in plan.cells if cell.dataset == dataset):
        accuracies, costs = published.values(1), published.values(5)
        for model in OTHERS:
            if (model, dataset, metric) in accuracies:
                rows.append((model, 1e9 * costs[model, "", "gflops"], accuracies[model, dataset, metric]))
    return pd.DataFrame(rows, columns=["row", "multiply_adds", "mean"])


def pareto(costs: pd.Series, values: pd.Series) -> ndarray:
    """Which points no other point beats: none costs as little or less and is worth as much or more, but for its equals.

    Args:
        costs: Less is better.
        values: More is better.

    Returns:
        A truth value a point.
    """
    cost, value = costs.to_numpy(float), values.to_numpy(float)
    as_good = (cost[None] <= cost[:, None]) & (value[None] >= value[:, None])
    better = as_good & ((cost[None] < cost[:, None]) | (value[None] > value[:, None]))
    return np.asarray(~better.any(axis=1))


def front_note(points: pd.DataFrame, *, cost: str = "multiply_adds", what: str = "multiply-adds") -> str:
    """The Pareto front in words: its rows, the cheapest first, and what each step along it gains and costs.

    Args:
        points: One column and one metric of `accuracy_data`, or the like; without ``by_seed`` no interval is told.
        cost: The column of the costs.
        what: What those are called.
    """
    front = points[pareto(points[cost], points["mean"])].drop_duplicates([cost, "mean"]).sort_values(cost)
    first, *others = front.itertuples()
    if not others:
        return f"Pareto front: {first.row} alone, which no row beats in accuracy and none in {what}."
    said = [f"Pareto front (means; {what}): {first.row} at {first.mean:.1f} %"]
    for here, there in zip(front.itertuples(), others, strict=False):
        price = _price(getattr(there, cost) / getattr(here, cost))
        said.append(f"{there.row}, {_gain(here, there)} for {price}")
    brackets = " In brackets: 95 % interval of the difference, paired over seeds." if "[" in "".join(said[1:]) else ""
    return f"{'; '.join(said)}.{brackets}"


def _price(times: float) -> str:
    return f"{100 * (times - 1):.2g} % more" if times < 1.1 else f"{times:.3g} times as much"


def _gain(here: Any, there: Any) -> str:
    points = f"{signed(there.mean - here.mean)} points"
    if not hasattr(here, "by_seed"):
        return points
    paired = paired_difference(there.by_seed, here.by_seed)
    if paired.sd is None or paired.low is None or paired.high is None:
        return f"{points} ({'one seed' if paired.n else 'no seed'} in common: no interval)"
    if not paired.varies:
        return f"{points} (in each of {paired.n} seeds: no interval)"
    return f"{signed(paired.mean)} points [{signed(paired.low)}, {signed(paired.high)}]"


@styled
def draw_accuracy(points: pd.DataFrame, *, published: pd.DataFrame | None = None, synthetic: bool) -> Figure:
    """A point a row: accuracy with its 95 % interval over multiply-adds, and the Pareto front of the means.

    Args:
        points: Those of one column and one metric of `accuracy_data`.
        published: As from `published_points`: drawn hollow, and no part of the front.
        synthetic: Stamps the figure.
    """
    figure, (axis,) = new_figure(COLUMN, 3.0)
    others = published if published is not None else pd.DataFrame(columns=["row", "multiply_adds", "mean"])
    largest = max(points["multiply_adds"].max(), others["multiply_adds"].max() if len(others) else 0)
    scale, unit = (1e9, "G") if largest >= 1e9 else (1e6, "M")
    for marker, other in zip(("s", "D"), others.itertuples(), strict=False):
        axis.plot(
            other.multiply_adds / scale, other.mean, marker, color="#666666", mfc="none", ms=5,
            label=f"{other.row}, as published",
        )  # fmt: skip
    draw_points(axis, points, points["multiply_adds"] / scale)
    axis.set_xlabel(f"multiply-adds of one clip, {unit}")
    legend_below(figure, axis)
    return stamp(figure, synthetic=synthetic)


def draw_points(axis: Axes, points: pd.DataFrame, costs: pd.Series) -> None:
    """Draws a point a row with its interval over its cost, and the Pareto front of the means behind them.

    Args:
        axis: Where.
        points: Columns ``row, dataset, metric, mean, low, high, n``.
        costs: One a point.
    """
    far = costs.max() / costs.min() > LOG_FROM
    # rows of one cost stand side by side, a thirtieth of the axis apart
    beside = costs.groupby(costs).cumcount() / 30
    places = costs * (costs.max() / costs.min()) ** beside if far else costs + beside * (costs.max() - costs.min())
    if far:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
    front = pareto(costs, points["mean"])
    order = np.argsort(places[front])
    axis.plot(places[front].iloc[order], points["mean"][front].iloc[order], "--o", color="#999999", lw=1, ms=9,
              mfc="none", mew=0.8, label="Pareto front", zorder=1)  # fmt: skip
    for index, point in enumerate(points.itertuples()):
        ends = max(0, point.low), min(100, point.high)
        half = [[point.mean - ends[0]], [ends[1] - point.mean]] if point.n > 1 else None
        look: dict[str, Any] = {"color": PALETTE[index % len(PALETTE)], "marker": MARKERS[index % len(MARKERS)]}
        axis.errorbar(places.iloc[index], point.mean, yerr=half, label=point.row, capsize=2, ls="none", **look)
    axis.set_ylabel(f"{points['dataset'].iloc[0]} {METRIC_NAMES[points['metric'].iloc[0]]}, %")
    low, high = axis.get_ylim()
    axis.set_ylim(max(-1, low), min(101, high))  # an end at 0 or 100 keeps its cap


def legend_below(figure: Figure, axis: Axes) -> None:
    """The legend of a figure of one column: rows, then what stands behind them; as many side by side as have room.

    Args:
        figure: One that `new_figure` made.
        axis: Its panel.
    """
    entries = zip(*axis.get_legend_handles_labels(), strict=True)
    handles, labels = zip(*sorted(entries, key=lambda entry: isinstance(entry[0], Line2D)), strict=True)
    longest = max(map(len, labels))
    columns = 3 if longest <= 14 else 2 if longest <= 28 else 1
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.2)
