"""Tables 1 to 4 and any other study: rows x data sets x metrics, with spread, n, differences and what is missing."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import cells, published
from analysis.formats import MINUS, Table
from analysis.intervals import Spread, paired_difference, spread
from analysis.notes import notes
from studies.plan import Plan

METRIC_NAMES = {"top1": "Top-1", "mca": "MCA"}
STATES = ("running", "pending", "diverged", "failed", "pruned")


def summary(frame: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """The numbers of a study's table, in long form.

    Args:
        frame: As from `analysis.cells.read`.
        plan: The study.

    Returns:
        One row for each (row, dataset, metric), in percent and percentage points: ``mean, sd, n, low, high`` (95 %
        t-interval); ``planned`` and the number of trials in each of `STATES`; ``difference`` to the base row over the
        seeds that both have, with its ``n``, ``low`` and ``high``; ``published`` and ``published_difference``, both
        NaN where the paper has no such number or the cell ran on other clips; ``state``, what is missing, in words.
    """
    printed = published.values(plan.table)
    by_cell = {key: group for key, group in frame.groupby(["row", "dataset", "metric"], sort=False)}
    rows = []
    for key, group in by_cell.items():
        row, dataset, metric = key
        values = _by_seed(group)
        base = by_cell.get((plan.base_row, dataset, metric)) if row != plan.base_row else None
        difference = Spread(math.nan, 0) if base is None else paired_difference(values, _by_seed(base))
        reference = printed.get(key, math.nan) if cells.is_published(plan.cell(row, dataset)) else math.nan
        measured = spread(values.values())
        rows.append(
            {
                "row": row,
                "dataset": dataset,
                "metric": metric,
                **_numbers("", measured),
                "planned": len(group),
                **{state: int((group["status"] == state).sum()) for state in STATES},
                **_numbers("difference", difference),
                "published": reference,
                "published_difference": measured.mean - reference,
                "state": state_in_words(group),
            }
        )
    numbers = ("sd", "low", "high", "difference_sd", "difference_low", "difference_high")
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, float))


def _by_seed(group: pd.DataFrame) -> dict[int, float]:
    done = group[group["status"] == "complete"]
    return dict(zip(done["seed"].tolist(), done["value"].tolist(), strict=True))


def _numbers(prefix: str, value: Spread) -> dict[str, float | int | None]:
    mean = prefix or "mean"
    join = f"{prefix}_" if prefix else ""
    return {mean: value.mean, **{f"{join}{name}": getattr(value, name) for name in ("n", "sd", "low", "high")}}


def state_in_words(group: pd.DataFrame) -> str:
    """What a cell lacks: ``pending 2/3``, ``diverged at epoch 4 (1/3)``; empty where it is complete.

    Args:
        group: The rows of one cell and one metric, as from `analysis.cells.read`.
    """
    parts = []
    for state in STATES:
        trials = group[group["status"] == state]
        share = f"{len(trials)}/{len(group)}"
        epochs = sorted(set(trials["epoch"].dropna().astype(int)))
        if not len(trials):
            continue
        if state in ("diverged", "running") and epochs:
            word = "at epoch" if len(epochs) == 1 else "at epochs"
            parts.append(f"{state} {word} {', '.join(map(str, epochs))} ({share})")
        else:
            parts.append(f"{state} {share}")
    return ", ".join(parts)


def study_table(results: Path, plan: Plan) -> Table:
    """A study's table: mean ± standard deviation (n), difference to the base row, published value and difference.

    Args:
        results: The results folder.
        plan: The study.
    """
    frame = cells.join(results, plan)
    data = summary(frame, plan)
    numbers = {(row.row, row.dataset, row.metric): row for row in data.itertuples()}
    columns = [(dataset, metric) for dataset in plan.datasets for metric in plan.metrics]
    # a column of the table has published values beside it only where the paper has any
    known = data[data["published"].notna()]
    printed = set(zip(known["dataset"], known["metric"], strict=True))
    rows = []
    for row in plan.rows:
        texts = [text for column in columns for text in _texts(numbers[(row, *column)], plan, column in printed)]
        rows.append((row, *texts))
    return Table(
        name=plan.name,
        title=f"{plan.title}. Mean ± standard deviation in percent (number of seeds)",
        header=("", *(head for column in columns for head in _heads(*column, plan, column in printed))),
        rows=tuple(rows),
        data=data,
        notes=tuple(notes(results, plan, frame)),
        synthetic=bool(frame["synthetic"].any()),
    )


def _heads(dataset: str, metric: str, plan: Plan, printed: bool) -> Iterable[str]:
    yield f"{dataset} {METRIC_NAMES[metric]}"
    if plan.base_row is not None:
        yield f"Δ to {plan.base_row}"
    if printed:
        yield "published (Δ)"


def _texts(numbers: Any, plan: Plan, printed: bool) -> Iterable[str]:
    yield _measured(numbers)
    if plan.base_row is not None:
        yield "base" if numbers.row == plan.base_row else _difference(numbers)
    if printed:
        yield _published(numbers)


def _measured(numbers: Any) -> str:
    if not numbers.n:
        return numbers.state
    spread_text = "" if math.isnan(numbers.sd) else f" ± {numbers.sd:.1f}"
    text = f"{numbers.mean:.1f}{spread_text} ({numbers.n})"
    return f"{text}; {numbers.state}" if numbers.state else text


def _difference(numbers: Any) -> str:
    if not numbers.difference_n:
        return "-"
    text = signed(numbers.difference)
    if math.isnan(numbers.difference_low):
        return text
    return f"{text} [{signed(numbers.difference_low)}, {signed(numbers.difference_high)}]"


def _published(numbers: Any) -> str:
    if math.isnan(numbers.published):
        return "-"
    if math.isnan(numbers.published_difference):
        return f"{numbers.published:.1f}"
    return f"{numbers.published:.1f} ({signed(numbers.published_difference)})"


def signed(value: float, digits: int = 1) -> str:
    """A difference with its sign, a true minus, and no sign on a zero.

    Args:
        value: Percentage points.
        digits: After the point.
    """
    text = f"{value:+.{digits}f}".replace("-", MINUS)
    return text[1:] if not text.strip(f"+{MINUS}0.") else text
