"""Tables 1 to 4 and any other study: rows x data sets x metrics, with spread, n, differences and what is missing."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import cells, published
from analysis.differences import CLIPS_MARK, METRIC_NAMES, SEEDS_MARK, differences, is_marked
from analysis.formats import MINUS, Table
from analysis.intervals import one_more, spread
from analysis.notes import OUTSIDE_MARK, notes
from studies.plan import Plan

PRINTED = 0.05  # points: how far the paper's numbers of one decimal may be from what was measured
STATES = ("running", "pending", "diverged", "failed", "pruned")


def study_data(results: Path, plan: Plan, frame: pd.DataFrame) -> pd.DataFrame:
    """The numbers of a study's table: `summary` with the columns of `analysis.differences.differences`.

    Args:
        results: The results folder.
        plan: The study.
        frame: As from `analysis.cells.read`.
    """
    keys = ["row", "dataset", "metric"]
    return summary(frame, plan).merge(differences(results, plan, frame), on=keys, validate="one_to_one")


def summary(frame: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """What was measured, cell by cell.

    Args:
        frame: As from `analysis.cells.read`.
        plan: The study.

    Returns:
        One row for each (row, dataset, metric), in percent and percentage points: ``mean, sd, n, low, high`` (95 %
        t-interval); ``planned`` and the number of trials in each of `STATES`; ``published`` and
        ``published_difference``, both NaN where the paper has no such number or the cell ran on other clips;
        ``one_more_low`` and ``one_more_high``, where one more run falls with 95 % probability, NaN where runs do not
        vary; ``published_outside``, whether the published value, give or take its rounding, does not lie there;
        ``state``, what is missing, in words.
    """
    printed = published.values(plan.table)
    comparable = {(cell.row, cell.dataset): cells.is_published(cell) for cell in plan.cells}
    rows = []
    for (row, dataset, metric), trials in cells.by_cell(frame).items():
        reference = printed.get((row, dataset, metric), math.nan) if comparable[row, dataset] else math.nan
        rows.append({"row": row, "dataset": dataset, "metric": metric, **_of_cell(trials, reference)})
    return pd.DataFrame(rows).astype(dict.fromkeys(("sd", "low", "high"), float))


def _of_cell(trials: Sequence[Any], reference: float) -> dict[str, Any]:
    measured = spread(trial.value for trial in trials if trial.status == "complete")
    low, high = one_more(measured) or (math.nan, math.nan)
    counts = Counter(trial.status for trial in trials)
    return {
        **{name: getattr(measured, name) for name in ("mean", "n", "sd", "low", "high")},
        "planned": len(trials),
        **{state: counts[state] for state in STATES},
        "published": reference,
        "published_difference": measured.mean - reference,
        "one_more_low": low,
        "one_more_high": high,
        "published_outside": reference + PRINTED < low or reference - PRINTED > high,
        "state": state_in_words(trials),
    }


def state_in_words(cell: Sequence[Any]) -> str:
    """What a cell lacks: ``pending 2/3``, ``diverged at epoch 4 (1/3)``; empty where it is complete.

    Args:
        cell: One of `analysis.cells.by_cell`.
    """
    parts = []
    for state in STATES:
        trials = [trial for trial in cell if trial.status == state]
        if not trials:
            continue
        share = f"{len(trials)}/{len(cell)}"
        epochs = sorted({int(trial.epoch) for trial in trials if not pd.isna(trial.epoch)})
        if state in ("diverged", "running") and epochs:
            word = "at epoch" if len(epochs) == 1 else "at epochs"
            parts.append(f"{state} {word} {', '.join(map(str, epochs))} ({share})")
        else:
            parts.append(f"{state} {share}")
    done = [trial for trial in cell if trial.status == "complete"]
    for column, words in (("test_missing", "not there"), ("test_unreadable", "not readable")):
        counts = [getattr(trial, column) for trial in done]
        if number := max((int(count) for count in counts if not pd.isna(count)), default=0):
            parts.append(f"{number} test clip{'s' if number > 1 else ''} {words}")
    return ", ".join(parts)


def study_table(results: Path, plan: Plan, frame: pd.DataFrame | None = None) -> Table:
    """A study's table: mean ± standard deviation (n), difference to the base row, published value and difference.

    Args:
        results: The results folder.
        plan: The study.
        frame: As from `analysis.cells.join`, where the caller has it.
    """
    frame = cells.join(results, plan) if frame is None else frame
    data = study_data(results, plan, frame)
    numbers = {(row.row, row.dataset, row.metric): row for row in data.itertuples()}
    columns = [(dataset, metric) for dataset in plan.datasets for metric in plan.metrics]
    # a column of the table has published values beside it only where the paper has any
    known = data[data["published"].notna()]
    printed = set(zip(known["dataset"], known["metric"], strict=True))
    end = "" if plan.title[-1:] in "?!." else "."
    rows = []
    for row in plan.rows:
        texts = [text for column in columns for text in _texts(numbers[(row, *column)], plan, column in printed)]
        rows.append((row, *texts))
    return Table(
        name=plan.name,
        title=f"{plan.title}{end} Mean ± standard deviation in percent (number of seeds), {_selection(plan)}",
        header=("", *(head for column in columns for head in _heads(*column, plan, column in printed))),
        rows=tuple(rows),
        data=data,
        notes=tuple(notes(results, plan, frame, data)),
        synthetic=bool(frame["synthetic"].any()),
        base_row=plan.base_row,
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
    if numbers.identical:
        return "identical"
    text = with_interval(numbers.difference, numbers.difference_n, numbers.difference_low, numbers.difference_high)
    marks = [mark for mark, test in ((SEEDS_MARK, "seeds"), (CLIPS_MARK, "clips")) if is_marked(numbers, test)]
    return " ".join([text, *filter(None, ["".join(marks)])])


def _published(numbers: Any) -> str:
    if math.isnan(numbers.published):
        return "-"
    if math.isnan(numbers.published_difference):
        return f"{numbers.published:.1f}"
    mark = f" {OUTSIDE_MARK}" if numbers.published_outside else ""
    return f"{numbers.published:.1f} ({signed(numbers.published_difference)}){mark}"


def _selection(plan: Plan) -> str:
    """Which epoch of a training the scores are of."""
    rules = {
        "last": "scores of the last epoch",
        "best_val": "scores of the epoch that was best on the validation split",
    }
    there = dict.fromkeys(cell.config.train.selection for cell in plan.cells)
    return " or ".join(rules[rule] for rule in there)


def with_interval(difference: float, n: int, low: float, high: float) -> str:
    """A difference with its interval; seeds that happen to agree to the last digit give none.

    Args:
        difference: The mean, in percentage points.
        n: Seeds behind it.
        low: The lower end of its interval; NaN where there is none.
        high: Likewise the upper end.
    """
    if not math.isnan(low):
        return f"{signed(difference)} [{signed(low)}, {signed(high)}]"
    return f"{signed(difference)} (does not vary)" if n > 1 else signed(difference)


def signed(value: float, digits: int = 1) -> str:
    """A difference with its sign, a true minus, and no sign on a zero.

    Args:
        value: Percentage points.
        digits: After the point.
    """
    text = f"{value:+.{digits}f}".replace("-", MINUS)
    return text[1:] if not text.strip(f"+{MINUS}0.") else text
