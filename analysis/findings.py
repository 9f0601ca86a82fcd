"""A study in sentences made from its numbers: what was found, and what these numbers cannot say."""

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from analysis.tables import METRIC_NAMES, signed
from studies.plan import Plan


def found(plan: Plan, data: pd.DataFrame, frame: pd.DataFrame) -> list[str]:
    """What the study shows, by its first metric.

    Args:
        plan: The study.
        data: As from `analysis.tables.summary`.
        frame: As from `analysis.cells.read`.
    """
    said = []
    metric = plan.metrics[0]
    for dataset in plan.datasets:
        cells = data[(data["dataset"] == dataset) & (data["metric"] == metric) & (data["n"] > 0)]
        if cells.empty:
            continue
        said.append(_best(cells, frame, dataset, metric))
        if plan.base_row is not None:
            said += _against_base(cells, plan.base_row, dataset, metric)
    return said


def _best(cells: pd.DataFrame, frame: pd.DataFrame, dataset: str, metric: str) -> str:
    best = cells.loc[cells["mean"].idxmax()]
    text = f"{dataset}: the highest {METRIC_NAMES[metric]} is {best['mean']:.1f} %"
    if best["n"] > 1:
        low, high = max(0.0, best["low"]), min(100.0, best["high"])
        text += f" ± {best['sd']:.1f} over {best['n']} seeds, 95 % interval {low:.1f} to {high:.1f} %"
    else:
        text += " with one seed"
    chance = _chance(frame, dataset)
    if chance:
        times = (
            f", {best['mean'] / chance:.1f} times"
            if best["n"] == 1
            else f", its lower end {max(0, best['low']) / chance:.1f} times"
        )
        text += f"{times} chance ({chance:.1f} %)"
    return f"{text}, reached by {best['row']}."


def _chance(frame: pd.DataFrame, dataset: str) -> float:
    classes = frame.loc[(frame["dataset"] == dataset) & (frame["status"] == "complete"), "num_classes"].max()
    return 100 / float(classes) if classes and classes == classes else 0.0


def _against_base(cells: pd.DataFrame, base: str, dataset: str, metric: str) -> Iterable[str]:
    compared = cells[(cells["difference_n"] > 1) & cells["difference_low"].notna()]
    clear = compared[(compared["difference_low"] > 0) | (compared["difference_high"] < 0)]
    unclear = compared.drop(clear.index)
    name = METRIC_NAMES[metric]
    if len(clear):
        parts = (f"{row.row} ({signed(row.difference)})" for row in clear.itertuples())
        yield f"{dataset}: {name} differs from {base} by more than its 95 % interval for {', '.join(parts)}."
    if len(unclear):
        parts = (f"{row.row} ({signed(row.difference)})" for row in unclear.itertuples())
        yield f"{dataset}: these seeds do not tell {', '.join(parts)} from {base}: the 95 % interval holds 0."


def limits(plan: Plan, data: pd.DataFrame, frame: pd.DataFrame) -> list[str]:
    """What the study cannot say.

    Args:
        plan: The study.
        data: As from `analysis.tables.summary`.
        frame: As from `analysis.cells.read`.
    """
    said = []
    trials = frame.drop_duplicates(["row", "dataset", "seed"])
    done = int((trials["status"] == "complete").sum())
    if done < len(trials):
        counts = trials.loc[trials["status"] != "complete", "status"].value_counts()
        parts = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        said.append(f"{done} of {len(trials)} trials are complete ({parts}): what follows from the rest may change.")
    generated = frame.loc[frame["synthetic"], "dataset"].unique()
    if len(generated):
        said.append(
            f"{', '.join(generated)} is generated: nothing here says how a row would do on real clips, and no number "
            "stands beside one of the paper's."
        )
    said += _resolution(plan, data)
    return said


def _resolution(plan: Plan, data: pd.DataFrame) -> Iterable[str]:
    """How large a difference has to be to mean anything."""
    metric = plan.metrics[0]
    for dataset in plan.datasets:
        cells = data[(data["dataset"] == dataset) & (data["metric"] == metric)]
        halves = ((cells["difference_high"] - cells["difference_low"]) / 2).dropna()
        halves = halves[halves > 0]
        if len(halves):
            seeds = int(cells["difference_n"].max())
            yield (
                f"{dataset}: with {seeds} seeds, differences in {METRIC_NAMES[metric]} smaller than about "
                f"{_median(halves):.1f} points are within the spread between seeds (median half-width of the "
                "intervals)."
            )
        elif (cells["n"] == 1).any():
            yield f"{dataset}: one seed a row has no spread, so that no difference can be judged."


def _median(values: pd.Series) -> float:
    return math.nan if values.empty else float(values.median())


def progress(frame: pd.DataFrame) -> dict[str, Any]:
    """How many trials of a study there are in each state.

    Args:
        frame: As from `analysis.cells.read`.
    """
    trials = frame.drop_duplicates("trial_id")
    return {"trials": len(trials), **trials["status"].value_counts().to_dict()}
