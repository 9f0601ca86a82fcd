"""The efficiency figure: what each component costs (Table 5 as stacked bars), and accuracy against that cost."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import cells, published
from analysis.complexity import WIDTHS, count, paper_model
from analysis.figure import COLUMN, MARKERS, PAGE, PALETTE, new_figure, stamp, styled
from analysis.formats import Table
from analysis.places import slug
from analysis.tables import METRIC_NAMES, summary
from studies.plan import Cell, Plan
from taghead.backbones.own import is_own
from taghead.complexity import COMPONENTS, HEAD
from taghead.released import NUM_CLASSES

QUANTITIES = {"params_m": "parameters, M", "gmac": "multiply-adds, G"}
PUBLISHED = "whole model, as published"
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
    for model in ("PGVT", "PEVL"):
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
        The cells of `analysis.tables.summary` that have a value, with the columns of `costs_data`.
    """
    frame = cells.join(results, plan)
    return summary(frame, plan).query("n > 0").merge(costs_data(plan, frame), on=["row", "dataset"])


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
            yield (
                f"{plan.name}_{slug(dataset)}_cost",
                points,
                draw_accuracy(points, synthetic=cells.is_synthetic(plan, dataset)),
            )


@styled
def draw_accuracy(points: pd.DataFrame, *, synthetic: bool) -> Figure:
    """A point a row: accuracy with its 95 % interval over multiply-adds.

    Args:
        points: Those of one column and one metric of `accuracy_data`.
        synthetic: Stamps the figure.
    """
    figure, (axis,) = new_figure(COLUMN, 3.0)
    scale, unit = (1e9, "G") if points["multiply_adds"].max() >= 1e9 else (1e6, "M")
    costs = points["multiply_adds"] / scale
    # rows of one cost stand side by side, a thirtieth of the axis apart
    beside = points.groupby("multiply_adds").cumcount() / 30 * (costs.max() - costs.min())
    for index, point in enumerate(points.itertuples()):
        ends = max(0, point.low), min(100, point.high)
        half = [[point.mean - ends[0]], [ends[1] - point.mean]] if point.n > 1 else None
        look: dict[str, Any] = {"color": PALETTE[index % len(PALETTE)], "marker": MARKERS[index % len(MARKERS)]}
        place = costs.iloc[index] + beside.iloc[index]
        axis.errorbar(place, point.mean, yerr=half, label=point.row, capsize=2, ls="none", **look)
    dataset, metric = points["dataset"].iloc[0], points["metric"].iloc[0]
    axis.set(xlabel=f"multiply-adds of one clip, {unit}", ylabel=f"{dataset} {METRIC_NAMES[metric]}, %")
    low, high = axis.get_ylim()
    axis.set_ylim(max(-1, low), min(101, high))  # an end at 0 or 100 keeps its cap
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return stamp(figure, synthetic=synthetic)
