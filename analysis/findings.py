"""A study in sentences made from its numbers: what was found, and what these numbers cannot say."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from analysis.differences import METRIC_NAMES
from analysis.intervals import ROUNDING
from analysis.significance import LEVEL
from analysis.tables import signed
from studies.plan import Plan
from taghead.metrics import wilson


def found(plan: Plan, data: pd.DataFrame, frame: pd.DataFrame) -> list[str]:
    """What the study shows, by its first metric.

    Args:
        plan: The study.
        data: As from `analysis.tables.study_data`.
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
    rows = cells.loc[cells["mean"] == best["mean"], "row"].tolist()
    name = METRIC_NAMES[metric]
    if len(rows) > 1:
        text = f"On {dataset}, {' and '.join(rows)} share the highest {name}; that of {rows[0]} is"
    elif len(cells) > 1:
        text = f"On {dataset}, {rows[0]} has the highest {name},"
    else:
        text = f"On {dataset}, {name} of {rows[0]} is"
    text += f" {best['mean']:.1f} %"
    if best["n"] > 1 and best["sd"] < ROUNDING:
        text += f" in each of {best['n']} seeds, so that there is no interval"
    elif best["n"] > 1:
        low, high = max(0.0, best["low"]), min(100.0, best["high"])
        text += f" ± {best['sd']:.1f} over {best['n']} seeds (95 % interval {low:.1f} to {high:.1f} %)"
    else:
        text += " with one seed"
    chance = _chance(frame, dataset)
    if chance:
        text += f"; chance is {chance:.1f} %"
    return f"{text}."


def _chance(frame: pd.DataFrame, dataset: str) -> float:
    classes = frame.loc[(frame["dataset"] == dataset) & (frame["status"] == "complete"), "num_classes"].max()
    return 100 / float(classes) if classes and classes == classes else 0.0


def _against_base(cells: pd.DataFrame, base: str, dataset: str, metric: str) -> Iterable[str]:
    """What the paired tests over seeds tell; rows of the same bits as the base are told of elsewhere."""
    apart = cells[(cells["difference_n"] > 1) & ~cells["identical"]]
    fixed = apart[apart["difference_low"].isna()]
    compared = apart.drop(fixed.index)
    clear = compared[compared["p_seeds_holm"] < LEVEL]
    unclear = compared.drop(clear.index)
    name = METRIC_NAMES[metric]
    for word, part in (("higher", clear[clear["difference"] > 0]), ("lower", clear[clear["difference"] < 0])):
        if len(part):
            yield (
                f"On {dataset}, {name} is {word} than that of {base} for {_differences(part)}: p < {LEVEL} in the "
                "paired test over seeds, corrected for the number of tests in the table."
            )
    if len(unclear):
        yield (
            f"On {dataset}, these seeds do not tell {_differences(unclear)} from {base}: no p < {LEVEL} after the "
            "correction. That is not to say that there is no difference."
        )
    if len(fixed):
        yield (
            f"On {dataset}, each seed gives the same difference in {name} to {base} for {_differences(fixed)}: what "
            "does not vary has no interval and no test over seeds."
        )


def _differences(cells: pd.DataFrame) -> str:
    return ", ".join(f"{row.row} ({signed(row.difference)} points)" for row in cells.itertuples())


def limits(plan: Plan, data: pd.DataFrame, frame: pd.DataFrame) -> list[str]:
    """What the study cannot say.

    Args:
        plan: The study.
        data: As from `analysis.tables.study_data`.
        frame: As from `analysis.cells.read`.
    """
    said = []
    counts = progress(frame)
    trials, done = counts.pop("trials"), counts.pop("complete", 0)
    if done < trials:
        parts = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        said.append(f"{done} of {trials} trials are complete ({parts}): what follows from the rest may change.")
    generated = frame.loc[frame["synthetic"], "dataset"].unique()
    if len(generated):
        said.append(
            f"The clips of {', '.join(generated)} are generated: nothing here says how a row would do on real clips, "
            "and no number stands beside one of the paper's."
        )
    return [*said, *_resolution(plan, data), *_test_clips(plan, data, frame)]


def _resolution(plan: Plan, data: pd.DataFrame) -> Iterable[str]:
    """How large a difference has to be to mean anything."""
    metric = plan.metrics[0]
    for dataset in plan.datasets:
        cells = data[(data["dataset"] == dataset) & (data["metric"] == metric)]
        known = cells[cells["difference_low"].notna()]
        halves = (known["difference_high"] - known["difference_low"]) / 2
        if len(known):
            low, high = f"{halves.min():.1f}", f"{halves.max():.1f}"
            few, many = known["difference_n"].min(), known["difference_n"].max()
            seeds = str(few) if few == many else f"{few} to {many}"
            yield (
                f"On {dataset}, with {seeds} seeds, the 95 % intervals of differences in {METRIC_NAMES[metric]} to "
                f"{plan.base_row} reach {low if low == high else f'{low} to {high}'} points to either side: smaller "
                f"differences are within the spread between seeds, which {seeds} seeds tell only roughly."
            )
        if cells["n"].max() == 1:
            yield f"On {dataset}, one seed a row has no spread, so that no difference can be judged."
        elif len(single := cells.loc[cells["difference_n"] == 1, "row"]):
            yield (
                f"On {dataset}, the difference to {plan.base_row} cannot be judged over the one seed in common for "
                f"{', '.join(single)}."
            )


def _test_clips(plan: Plan, data: pd.DataFrame, frame: pd.DataFrame) -> Iterable[str]:
    """What the finite number of test clips leaves open: an interval over seeds, all of one test split, lacks it."""
    for dataset in plan.datasets if plan.metrics[0] == "top1" else ():
        cells = data[(data["dataset"] == dataset) & (data["metric"] == "top1") & (data["n"] > 0)]
        clips = frame.loc[(frame["dataset"] == dataset) & (frame["status"] == "complete"), "clips"].dropna()
        if cells.empty or clips.empty or not (n := int(clips.max())):
            continue
        best = cells["mean"].max()
        low, high = wilson(round(best * n / 100), n)
        yield (
            f"On {dataset}, one test clip of {n} is {100 / n:.1f} points. The intervals are over seeds on the same "
            f"clips; other clips of the same kind could move the {best:.1f} % of a single run to between "
            f"{100 * low:.0f} and {100 * high:.0f} % (Wilson's 95 % interval)."
        )


def progress(frame: pd.DataFrame) -> dict[str, Any]:
    """How many trials of a study there are in each state.

    Args:
        frame: As from `analysis.cells.read`.
    """
    trials = frame.drop_duplicates("trial_id")
    return {"trials": len(trials), **trials["status"].value_counts().to_dict()}
