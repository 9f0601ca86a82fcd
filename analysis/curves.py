"""Learning curves: loss and validation scores by epoch, with the spread over seeds. Command: ``curves``."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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


def curves_data(results: Path, plan: Plan) -> tuple[pd.DataFrame, list[str]]:
    """The histories of a study's trials, running ones included, averaged over seeds.

    Args:
        results: The results folder.
        plan: The study.

    Returns:
        Columns ``row, dataset, quantity, epoch, mean, sd, n``; accuracies in percent. ``sd`` is NaN for one seed. Empty
        where no trial has finished an epoch. Beside it, a sentence on each trial whose history is damaged.
    """
    frames, left_out = [], []
    for cell in plan.cells:
        for seed, trial in cell.trials.items():
            try:
                history = _history(results, trial)
            except InputError as error:
                left_out.append(f"{trial_in_words(cell, seed)}: {error} and was left out.")
                continue
            if history is not None:
                frames.append(history.assign(row=cell.row, dataset=cell.dataset, seed=seed))
    columns = ["row", "dataset", "quantity", "epoch", "mean", "sd", "n"]
    if not frames:
        return pd.DataFrame(columns=columns), left_out
    long = pd.concat(frames, ignore_index=True).melt(
        ["row", "dataset", "seed", "epoch"], var_name="quantity", value_name="value"
    )
    long = long.dropna(subset="value")
    groups = long.groupby(["row", "dataset", "quantity", "epoch"], sort=False)["value"]
    return groups.agg(mean="mean", sd="std", n="count").reset_index()[columns], left_out


def _history(results: Path, trial: str) -> pd.DataFrame | None:
    for place in ("trials", "running"):
        path = results / place / trial / "history.csv"
        if path.exists():
            try:
                history = pd.read_csv(path)
                kept = history[["epoch", *(name for name in QUANTITIES if name in history)]].apply(pd.to_numeric)
            except (OSError, ValueError, KeyError) as error:
                raise InputError(f"{path.name} cannot be read ({one_line(error)})") from None
            return kept.assign(**{name: 100 * kept[name] for name in kept if str(name).endswith("top1")})
    return None


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
