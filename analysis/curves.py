"""Learning curves: loss and validation scores by epoch, with the spread over seeds. Command: ``curves``."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from analysis.cells import one_line, trial_in_words
from analysis.figure import DASHES, PAGE, PALETTE, new_figure, stamp, styled
from studies.plan import Plan
from taghead.errors import InputError

QUANTITIES = {
    "loss": "training loss",
    "train_top1": "training Top-1, %",
    "val_loss": "validation loss",
    "val_top1": "validation Top-1, %",
}
MAX_LINES = 12
History = dict[str, ndarray]  # a column by its name, one value an epoch


def curves_data(results: Path, plan: Plan) -> tuple[pd.DataFrame, list[str]]:
    """The histories of a study's trials, running ones included, averaged over seeds.

    Args:
        results: The results folder.
        plan: The study.

    Returns:
        Columns ``row, dataset, quantity, epoch, mean, sd, n``; accuracies in percent. ``sd`` is NaN for one seed. Empty
        where no trial has finished an epoch. Beside it, a sentence on each trial whose history is damaged.
    """
    histories, left_out = [], []
    for number, cell in enumerate(plan.cells):
        for seed, trial in cell.trials.items():
            try:
                history = _history(results, trial)
            except InputError as error:
                left_out.append(f"{trial_in_words(cell, seed)}: {error} and was left out.")
                continue
            if history is not None:
                histories.append({"cell": np.full(len(history["epoch"]), number), **history})
    columns = ["row", "dataset", "quantity", "epoch", "mean", "sd", "n"]
    if not histories:
        return pd.DataFrame(columns=columns), left_out
    data = _over_seeds(histories)
    cells = [plan.cells[number] for number in data["cell"]]
    data = data.assign(row=[cell.row for cell in cells], dataset=[cell.dataset for cell in cells])
    return data[columns], left_out


def _over_seeds(histories: list[History]) -> pd.DataFrame:
    """Mean, standard deviation and number of the values of each quantity, cell and epoch."""
    names = list(dict.fromkeys(name for history in histories for name in history))
    lacking = [np.full(len(history["epoch"]), np.nan) for history in histories]
    wide = pd.DataFrame(
        {
            name: np.concatenate([one.get(name, nothing) for one, nothing in zip(histories, lacking, strict=True)])
            for name in names
        }
    )
    parts = []
    for quantity in (name for name in names if name in QUANTITIES):
        groups = wide.dropna(subset=quantity).groupby(["cell", "epoch"], sort=False)[quantity]
        parts.append(groups.agg(mean="mean", sd="std", n="count").reset_index().assign(quantity=quantity))
    return pd.concat(parts, ignore_index=True)


def _history(results: Path, trial: str) -> History | None:
    """A trial's epochs and `QUANTITIES`, accuracies in percent; None where there are none yet."""
    for place in ("trials", "running"):
        path = results / place / trial / "history.csv"
        if path.exists():
            try:
                history = _numbers(path)
            except (OSError, ValueError, KeyError) as error:
                raise InputError(f"{path.name} cannot be read ({one_line(error)})") from None
            if len(history) > 1 and len(history["epoch"]):
                return {name: 100 * values if name.endswith("top1") else values for name, values in history.items()}
    return None


def _numbers(path: Path) -> History:
    """The epochs and `QUANTITIES` of a file; pandas, slow on small ones, reads what is not plain numbers."""
    try:
        header, *lines = path.read_text(encoding="utf-8").splitlines()
        columns = dict(zip(header.split(","), zip(*(line.split(",") for line in lines), strict=True), strict=True))
        kept = {name: np.array(columns[name], float) for name in QUANTITIES if name in columns}
        return {"epoch": np.array(columns["epoch"], int), **kept}
    except (ValueError, KeyError):
        table = pd.read_csv(path)
        there = table[["epoch", *(name for name in QUANTITIES if name in table)]].apply(pd.to_numeric)
        return {str(name): there[name].to_numpy() for name in there}


@styled
def draw_curves(data: pd.DataFrame, *, dataset: str, synthetic: bool) -> Figure:
    """One panel a quantity, one line a row with a band of one standard deviation.

    Args:
        data: The first of `curves_data`, not empty for the data set.
        dataset: The column to draw.
        synthetic: Stamps the figure.
    """
    data = data[data["dataset"] == dataset]
    there = [name for name in QUANTITIES if (data["quantity"] == name).any()]
    rows = list(dict.fromkeys(data["row"]))[:MAX_LINES]
    columns = 2 if len(there) > 1 else 1
    height = -(-len(there) // columns)
    figure, axes = new_figure(PAGE, 2.1 * height + 0.5, columns=columns, rows=height)
    for axis in axes[len(there) :]:
        axis.set_visible(False)
    for axis, quantity in zip(axes, there, strict=False):
        for index, row in enumerate(rows):
            line = data[(data["row"] == row) & (data["quantity"] == quantity)].sort_values("epoch")
            colour = PALETTE[index % len(PALETTE)]
            # rows that are the same function lie on one another: thinner lines on top leave the lower ones visible
            look: dict[str, Any] = {"linestyle": DASHES[index % len(DASHES)], "marker": "." if len(line) == 1 else None}
            look["linewidth"] = max(0.8, 2.4 - 0.4 * index)
            axis.plot(line["epoch"], line["mean"], color=colour, label=row, **look)
            sd = line["sd"].fillna(0)
            axis.fill_between(
                line["epoch"], line["mean"] - sd, line["mean"] + sd, color=colour, alpha=0.12, linewidth=0
            )
        axis.set(xlabel="epoch", title=QUANTITIES[quantity])
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(rows), 5), handlelength=3.2
    )
    return stamp(figure, synthetic=synthetic)
