"""Curves over one swept field (FFN width, alpha, K_prop, ...), with the spread over seeds and what the paper prints.

Command: ``taghead-analysis sweeps alpha``. A product of a field with others has a line for each of the others' values.
"""

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from analysis import cells, published
from analysis.differences import METRIC_NAMES
from analysis.figure import COLUMN, DASHES, MARKERS, PAGE, PALETTE, new_figure, stamp, styled
from analysis.intervals import spread
from analysis.places import slug
from studies.plan import Cell, Plan
from studies.space import text_of
from taghead.backbones import BACKBONES
from taghead.config import flatten

FEWEST = 3  # values of a field that make a curve
MAX_LINES = 8
NO_QUANTITIES = ("head.rewiring",)  # numbers that only tell one draw from another
FIELDS = {
    "head.ffn_dim": "FFN width",
    "head.width": "channels of the head",
    "head.alpha": "alpha",
    "head.k_prop": "K_prop",
    "head.num_layers": "encoder layers",
    "data.num_frames": "frames of a clip",
    "train.lr": "learning rate",
}
NUMBERS = ("mean", "sd", "n", "low", "high")
COLUMNS = ("dataset", "metric", "field", "x", "line", "row", "base", *NUMBERS, "runs", "published")


def sweep_data(results: Path, plan: Plan) -> pd.DataFrame:
    """The cells of a study along the one numeric field that its rows sweep.

    The field is found in the rows' configs, for each data set apart: of the numeric ones that differ, the one whose
    lines of at least `FEWEST` values hold the most rows, then the one with the fewest lines. Fields that differ beside
    it tell the lines apart.

    Args:
        results: The results folder.
        plan: The study.

    Returns:
        Columns `COLUMNS`, in the order of the lines and of ``x`` (the field's value): ``base`` marks the row that
        differences are taken from; ``mean, sd, low, high`` (95 % t-interval) are percent over ``n`` seeds, ``runs``
        holds the values of these; ``published`` is the paper's number, NaN where it has none or the cell ran on other
        clips. Empty where no field is swept, or over more than `MAX_LINES` lines.
    """
    frame = cells.join(results, plan)
    done = frame[frame["status"] == "complete"].groupby(["row", "dataset", "metric"], sort=False)["value"]
    values = {key: tuple(runs.tolist()) for key, runs in done}
    printed = published.values(plan.table)
    rows = []
    for dataset in plan.datasets:
        places = _places([cell for cell in plan.cells if cell.dataset == dataset])
        for metric in plan.metrics:
            for field, x, line, row in places:
                runs = values.get((row, dataset, metric), ())
                ours = cells.is_published(plan.cell(row, dataset))
                reference = printed.get((row, dataset, metric), math.nan) if ours else math.nan
                place = (dataset, metric, field, x, line, row, row == plan.base_row)
                rows.append((*place, *(getattr(spread(runs), name) for name in NUMBERS), runs, reference))
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(("sd", "low", "high"), float))


def _places(column: list[Cell]) -> list[tuple[str, float, str, str]]:
    """Field, value, line and row of each cell of a data set that is drawn."""
    values = {cell.row: _values(cell) for cell in column}
    varying = [key for key in next(iter(values.values())) if len({text_of(one[key]) for one in values.values()}) > 1]
    best: dict[str, list[str]] = {}
    field = ""
    for key in varying:
        lines = _lines(values, key, varying)
        if lines and len(lines) <= MAX_LINES and (not best or _merit(lines) > _merit(best)):
            best, field = lines, key
    names = _names(best)
    return [
        (field, values[row][field], names[line], row)
        for line, rows in best.items()
        for row in sorted(rows, key=lambda row: float(values[row][field]))
    ]


def _values(cell: Cell) -> dict[str, Any]:
    values = flatten(cell.config)
    backbone = BACKBONES.get(cell.config.model.backbone)
    if values["head.width"] is None and backbone is not None:  # no projection: as many channels as the tokens have
        values["head.width"] = backbone.channels
    del values["model.backbone_source"]
    return values


def _lines(values: dict[str, dict[str, Any]], field: str, varying: list[str]) -> dict[str, list[str]]:
    """The rows of each line, by what is the same along it."""
    lines: dict[str, list[str]] = {}
    for row, one in values.items():
        if _is_quantity(field, one[field]):
            same = (f"{key.partition('.')[2]} {text_of(one[key])}" for key in varying if key != field)
            lines.setdefault(", ".join(same), []).append(row)
    return {line: rows for line, rows in lines.items() if len({values[row][field] for row in rows}) >= FEWEST}


def _is_quantity(field: str, value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and field not in NO_QUANTITIES


def _merit(lines: dict[str, list[str]]) -> tuple[int, int]:
    return sum(map(len, lines.values())), -len(lines)


def _names(lines: dict[str, list[str]]) -> dict[str, str]:
    """The words that the labels of a line's rows share, where these tell the lines apart; else its settings."""
    if len(lines) == 1:
        return dict.fromkeys(lines, "")
    shared = {}
    for line, rows in lines.items():
        parts = [row.split(", ") for row in rows]
        shared[line] = ", ".join(part for part in parts[0] if all(part in others for others in parts))
    return shared if len({*shared.values()} - {""}) == len(lines) else {line: line for line in lines}


def sweep_notes(data: pd.DataFrame) -> list[str]:
    """How far the means of a line spread by the first metric, against what the spread over seeds alone would do.

    Args:
        data: As from `sweep_data`.

    Returns:
        A sentence on each line that has two values with runs; then one on the rows of a data set without any.
    """
    said = []
    first = data[data["metric"] == data["metric"].iloc[0]] if len(data) else data
    for (dataset, line), points in first[first["n"] > 0].groupby(["dataset", "line"], sort=False):
        if points["x"].nunique() > 1:
            what = f"On {dataset}, {METRIC_NAMES[points['metric'].iloc[0]]}{f' of {line}' if line else ''}"
            said.append(f"{what} {_range(points)}; {_against_seeds(points)}.")
    for dataset, points in first[first["n"] == 0].groupby("dataset", sort=False):
        said.append(f"On {dataset}, without a complete run: {', '.join(points['row'])}.")
    return said


def _range(points: pd.DataFrame) -> str:
    low, high = points.loc[points["mean"].idxmin()], points.loc[points["mean"].idxmax()]
    return (
        f"goes from {low['mean']:.1f} % at {low['x']:g} to {high['mean']:.1f} % at {high['x']:g}, a range of "
        f"{high['mean'] - low['mean']:.1f} points over {points['x'].nunique()} values of {low['field']}"
    )


def _against_seeds(points: pd.DataFrame) -> str:
    several = points[points["n"] > 1]
    if len(several) < 2:
        return "one run a value has no spread, so that this range cannot be judged"
    sd, limit = noise_range(several["sd"].tolist(), several["n"].tolist())
    measured = float(several["mean"].max() - several["mean"].min())
    low, high = several["n"].min(), several["n"].max()
    of = f"{len(several)} values of more than one run" if len(several) < len(points) else "values"
    return (
        f"{low if low == high else f'{low} to {high}'} seeds at one value have a standard deviation of {sd:.1f} points "
        f"(pooled), by which alone the range of {of} that are all alike would pass {limit:.1f} points in one study of "
        f"twenty, and this one is {'wider' if measured > limit else 'no wider'} than that"
    )


def noise_range(sds: list[float], counts: list[int]) -> tuple[float, float]:
    """The spread within a value, and the range of means that it alone exceeds once in twenty (Tukey's and Kramer's).

    Args:
        sds: The standard deviation over the runs of each value, in points.
        counts: The number of runs of each value, two at the least.

    Returns:
        The pooled standard deviation s, and q s / sqrt(n), where q is the 95 % quantile of the studentised range and n
        the harmonic mean of the counts. Runs count as independent, though values share their seeds.
    """
    freedom = sum(counts) - len(counts)
    sd = math.sqrt(sum((n - 1) * sd**2 for sd, n in zip(sds, counts, strict=True)) / freedom)
    mean_count = len(counts) / sum(1 / n for n in counts)
    return sd, _studentised_range(len(counts), freedom) * sd / math.sqrt(mean_count)


@cache  # a quantile takes a second
def _studentised_range(values: int, freedom: int) -> float:
    from scipy.stats import studentized_range  # slow to load

    return float(studentized_range.ppf(0.95, values, freedom))


def sweep_figures(results: Path, plan: Plan) -> Iterator[tuple[str, Figure, str, str]]:
    """A figure for each data set along which a field is swept and at least one run is complete.

    Args:
        results: The results folder.
        plan: The study.

    Yields:
        The file's stem, the figure, what it shows in words, its caption.
    """
    data = sweep_data(results, plan)
    for dataset, points in data.groupby("dataset", sort=False):
        if not points["n"].any():
            continue
        figure = draw_sweep(points, dataset=dataset, synthetic=cells.is_synthetic(plan, dataset))
        field, said = FIELDS.get(points["field"].iloc[0], points["field"].iloc[0]), " ".join(sweep_notes(points))
        caption = f"{plan.title}: means over seeds with 95 % intervals, cut at 0 and 100 %; small points: single runs."
        yield f"{plan.name}_{slug(dataset)}_sweep", figure, f"Curves over {field}. {said}", f"{caption} {said}"


@styled
def draw_sweep(data: pd.DataFrame, *, dataset: str, synthetic: bool) -> Figure:
    """A panel a metric, a line for each value of what else differs; hollow diamonds are the paper's values.

    Args:
        data: As from `sweep_data`, not empty for the data set.
        dataset: The column to draw.
        synthetic: Stamps the figure.
    """
    data = data[data["dataset"] == dataset]
    metrics, lines = list(dict.fromkeys(data["metric"])), list(dict.fromkeys(data["line"]))
    rows = -(-(len(lines) + 3) // 4)
    figure, axes = new_figure(PAGE if len(metrics) > 1 else COLUMN, 2.3 + 0.17 * rows, columns=len(metrics))
    for axis, metric in zip(axes, metrics, strict=True):
        _scale(axis, sorted(set(data["x"])))
        for index, line in enumerate(lines):
            points = data[(data["metric"] == metric) & (data["line"] == line)]
            _draw_line(axis, points, index, len(lines))
        low, high = axis.get_ylim()
        axis.set_ylim(max(-1, low), min(101, high))  # an end at 0 or 100 keeps its cap
        field = data["field"].iloc[0]
        axis.set(xlabel=FIELDS.get(field, field), ylabel=f"{dataset} {METRIC_NAMES[metric]}, %")
    found = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    labels = sorted(found, key=lambda label: not isinstance(found[label], ErrorbarContainer))  # the lines first
    ncols = 4 if len(metrics) > 1 else 2
    figure.legend([found[label] for label in labels], labels, loc="outside lower center", ncols=ncols)
    return stamp(figure, synthetic=synthetic)


def _draw_line(axis: Axes, points: pd.DataFrame, index: int, lines: int) -> None:
    colour, marker = PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]
    look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": DASHES[index % len(DASHES)]}
    # lines that cross stand side by side, and the runs stand beside their mean
    points = points.assign(x=_beside(axis, points["x"], 0.014 * (index - (lines - 1) / 2)))
    there = points[points["n"] > 0]
    if len(there):
        mean = there["mean"]
        ends = there["low"].fillna(mean).clip(lower=0), there["high"].fillna(mean).clip(upper=100)
        axis.errorbar(there["x"], mean, yerr=[mean - ends[0], ends[1] - mean], capsize=2, elinewidth=0.8,
                      label=points["line"].iloc[0] or "mean, 95 % interval", **look)  # fmt: skip
        runs = there[there["n"] > 1].explode("runs")
        places = _beside(axis, runs["x"], -0.02 if lines == 1 else -0.006)
        axis.plot(places, runs["runs"].astype(float), ls="none", marker=".", ms=4, color=colour, alpha=0.6, mew=0,
                  label="single run")  # fmt: skip
    _draw_marks(axis, points, colour)


def _beside(axis: Axes, values: pd.Series, share: float) -> np.ndarray:
    """Values moved by a share of the axis, whatever its scale."""
    scale = axis.xaxis.get_transform()
    ends = scale.transform(axis.get_xticks())
    return scale.inverted().transform(scale.transform(values.to_numpy(float)) + share * (ends[-1] - ends[0]))


def _draw_marks(axis: Axes, points: pd.DataFrame, colour: str) -> None:
    printed = points[points["published"].notna()]
    hollow: dict[str, Any] = {"ls": "none", "mfc": "none", "zorder": 4}
    if len(printed):
        axis.plot(printed["x"], printed["published"], marker="D", ms=5, mec=colour, label="published", **hollow)
    base = points[points["base"] & (points["n"] > 0)]
    if len(base):
        axis.plot(base["x"], base["mean"], marker="o", ms=8, mec="#000000", label="base row", **hollow)
    missing = points[points["n"] == 0]
    if len(missing):
        bottom = np.full(len(missing), 0.03)
        axis.plot(missing["x"], bottom, ls="none", marker="x", ms=5, color=colour, label="no complete run",
                  transform=axis.get_xaxis_transform())  # fmt: skip


def _scale(axis: Axes, values: list[float]) -> None:
    """A logarithmic axis where values span an octave of octaves, with a straight piece where they begin at 0."""
    whole = all(float(value).is_integer() for value in values)
    if values[0] > 0 and values[-1] / values[0] >= 8:
        octaves = all(math.log2(value / values[0]).is_integer() for value in values)
        axis.set_xscale("log", base=2 if octaves else 10)
    elif values[0] == 0 and whole and values[-1] >= 8:
        axis.set_xscale("symlog", linthresh=1, linscale=0.6)
    places = axis.xaxis.get_transform().transform(np.array(values, dtype=float))
    gap = (places[-1] - places[0]) / 14
    labels, last = [], -math.inf
    for value, place in zip(values, places, strict=True):
        roomy = place - last >= gap and (value == values[-1] or places[-1] - place >= gap)
        labels.append(f"{value:g}" if roomy or value == values[0] else "")
        last = place if labels[-1] else last
    axis.set_xticks(values, labels)
    axis.xaxis.set_minor_locator(NullLocator())
