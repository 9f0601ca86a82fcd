"""Each row of a study against its base row: intervals and tests over seeds and over clips, corrected for their number.

Rows that came out the same bits as the base are told as identical and not tested.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from numpy import ndarray

from analysis import published
from analysis.cells import by_cell
from analysis.intervals import Spread, paired_difference
from analysis.predictions import correct, digest
from analysis.significance import (
    LEVEL,
    MOST_SEEDS,
    POWER,
    ROUNDING,
    clip_counts,
    detectable,
    exact_sign_test,
    holm,
    paired_t,
    seeds_needed,
)
from studies.plan import Cell, Plan
from taghead.errors import InputError

METRIC_NAMES = {"top1": "Top-1", "mca": "MCA"}
SEEDS_MARK, CLIPS_MARK = "*", "†"
COLUMNS = ("row", "dataset", "metric", "difference", "difference_n", "difference_sd", "difference_low",
           "difference_high", "identical", "p_seeds", "p_seeds_holm", "clips_for", "clips_against", "p_clips",
           "p_clips_holm")  # fmt: skip
_UNTESTED: dict[str, Any] = {"p_seeds": math.nan, "clips_for": 0, "clips_against": 0, "p_clips": math.nan}


def differences(results: Path, plan: Plan, frame: pd.DataFrame) -> pd.DataFrame:
    """The differences to the base row over the seeds that both have.

    Args:
        results: The results folder; predictions are read from it where they are kept.
        plan: The study.
        frame: As from `analysis.cells.read`.

    Returns:
        One row for each (row, dataset, metric), with `COLUMNS`: the mean difference in percentage points, its ``n``,
        ``sd`` and 95 % t-interval; ``identical``, whether all common seeds have the same bits as the base's;
        ``p_seeds``, of the paired t-test; ``clips_for`` and ``clips_against``, the clips that the row gets right in
        more seeds than the base and the other way round, and ``p_clips``, of the exact test on them (of Top-1 only);
        both p-values also after Holm's correction within the table, where tests of the same numbers count once.
        NaN where there is nothing to test.
    """
    values = {key: _by_seed(trials) for key, trials in by_cell(frame).items()}
    cells = {(cell.row, cell.dataset): cell for cell in plan.cells}
    rows, same_numbers = [], []
    for (row, dataset, metric), ours in values.items():
        key = {"row": row, "dataset": dataset, "metric": metric}
        if plan.base_row is None or row == plan.base_row:
            rows.append({**key, **_numbers(Spread(math.nan, 0)), "identical": False, **_UNTESTED})
        else:
            base = values[plan.base_row, dataset, metric]
            pair = cells[row, dataset], cells[plan.base_row, dataset]
            rows.append({**key, **_compared(results, pair, ours, base, metric)})
        # Top-1 and MCA of balanced classes differ in their last bits
        same_numbers.append((dataset, *((seed, round(value, 9)) for seed, value in sorted(ours.items()))))
    data = pd.DataFrame(rows)
    for test in ("seeds", "clips"):
        data[f"p_{test}_holm"] = _corrected(data[f"p_{test}"].tolist(), same_numbers)
    return data[list(COLUMNS)].astype(dict.fromkeys(("difference_sd", "difference_low", "difference_high"), float))


def _by_seed(trials: Iterable[Any]) -> dict[int, float]:
    return {trial.seed: trial.value for trial in trials if trial.status == "complete"}


def _numbers(value: Spread) -> dict[str, Any]:
    return {"difference": value.mean} | {
        f"difference_{name}": getattr(value, name) for name in ("n", "sd", "low", "high")
    }


def _compared(
    results: Path, pair: tuple[Cell, Cell], ours: Mapping[int, float], base: Mapping[int, float], metric: str
) -> dict[str, Any]:
    difference, found = paired_difference(ours, base), dict(_UNTESTED)
    seeds = sorted(ours.keys() & base.keys())
    identical = bool(seeds) and all(_is_same(results, pair, seed) for seed in seeds)
    if not identical:
        found["p_seeds"] = paired_t(difference)
        if metric == "top1":
            found |= _over_clips(*(_correct(results, cell, seeds) for cell in pair))
    return {**_numbers(difference), "identical": identical, **found}


def _over_clips(
    ours: Mapping[int, tuple[ndarray, ndarray]], base: Mapping[int, tuple[ndarray, ndarray]]
) -> dict[str, Any]:
    won, lost = clip_counts(ours, base)
    p = exact_sign_test(won, lost) if ours.keys() & base.keys() else math.nan
    return {"clips_for": won, "clips_against": lost, "p_clips": p}


def _correct(results: Path, cell: Cell, seeds: Iterable[int]) -> dict[int, tuple[ndarray, ndarray]]:
    """Of the seeds whose predictions can be read; the others are told of where rows are compared bit by bit."""
    found = {}
    for seed in seeds:
        folder = results / "trials" / cell.trials[seed]
        try:
            if (folder / "predictions.npz").exists():
                found[seed] = correct(folder)
        except InputError:
            continue
    return found


def _is_same(results: Path, pair: tuple[Cell, Cell], seed: int) -> bool:
    first, second = (results / "trials" / cell.trials[seed] for cell in pair)
    if first == second:
        return True
    try:
        return digest(first) == digest(second)
    except InputError:
        return False


def _corrected(p_values: list[float], same_numbers: list[Any]) -> list[float]:
    """Holm's correction, where tests of the same numbers are one: rows that are identical, metrics that are equal."""
    once: dict[Any, float] = {}
    for key, p in zip(same_numbers, p_values, strict=True):
        if not math.isnan(p):
            once.setdefault(key, p)
    adjusted = dict(zip(once, holm(list(once.values())), strict=True))
    return [p if math.isnan(p) else adjusted[key] for key, p in zip(same_numbers, p_values, strict=True)]


def num_tests(data: pd.DataFrame, test: str) -> int:
    """How many tests stand behind a column of p-values, those of the same numbers counted once.

    Args:
        data: As from `differences`.
        test: ``seeds`` or ``clips``.
    """
    tested = data[data[f"p_{test}"].notna()]
    return len(tested.round(9).drop_duplicates(["dataset", "difference", f"p_{test}"]))


def is_marked(numbers: Any, test: str) -> bool:
    """Whether a difference is one by a test, after Holm's correction.

    Args:
        numbers: A row of `differences`, as a tuple with names.
        test: ``seeds`` or ``clips``.
    """
    return bool(getattr(numbers, f"p_{test}_holm") < LEVEL)


def in_words(plan: Plan, data: pd.DataFrame) -> Iterable[str]:
    """What the marks mean, and how large a difference these seeds could have shown.

    Args:
        plan: The study.
        data: As from `differences`.
    """
    seeds, clips = (num_tests(data, test) for test in ("seeds", "clips"))
    if seeds:
        yield (
            f"{SEEDS_MARK}: p < {LEVEL} in the paired t-test over seeds (the same seed, the same split) after Holm's "
            f"correction for {_tests(seeds)}. It asks whether training again would show the difference."
        )
    if clips:
        yield (
            f"{CLIPS_MARK}: p < {LEVEL} in the exact McNemar test over test clips, likewise for {_tests(clips)}; a "
            "clip counts once, for the row that gets it right in more seeds. It asks whether these very models differ "
            "on clips like these, not whether training again would give the like."
        )
    for dataset in plan.datasets:
        yield from _resolution(plan, data[data["dataset"] == dataset], dataset)


def _tests(number: int) -> str:
    return "the one test of the table" if number == 1 else f"the {number} tests of the table"


def _resolution(plan: Plan, data: pd.DataFrame, dataset: str) -> Iterable[str]:
    """The smallest difference that was within reach, and the seeds that the paper's differences take."""
    metric = plan.metrics[0]
    there = data[(data["metric"] == metric) & (data["difference_sd"] > ROUNDING)]
    if there.empty:
        return
    sd = math.sqrt((there["difference_sd"] ** 2).mean())
    n = int(there["difference_n"].max())
    text = (
        f"{dataset}, {METRIC_NAMES[metric]}: the differences vary over seeds with a standard deviation of {sd:.1f} "
        f"points. A paired test over {n} seeds sees a true difference of {detectable(sd=sd, n=n):.1f} points with a "
        f"probability of {100 * POWER:.0f} %, and smaller ones less often."
    )
    gaps = _published_gaps(plan, metric)
    if gaps:
        needed = [f"{seeds_needed(gap, sd=sd) or f'over {MOST_SEEDS:,}'} for {gap:.1f} points" for gap in gaps]
        text += f" Seeds that the paper's differences to {plan.base_row} would take: {', '.join(needed)}."
    yield text


def _published_gaps(plan: Plan, metric: str) -> list[float]:
    """The smallest, the middle and the largest difference to the base row that the paper prints in this table."""
    printed = published.values(plan.table)
    gaps = {
        round(abs(value - base), 1)
        for (row, dataset, name), value in printed.items()
        if name == metric
        and row in plan.rows
        and (base := printed.get((plan.base_row or "", dataset, name))) is not None
    }
    found = sorted(gap for gap in gaps if gap)
    return sorted({found[0], found[len(found) // 2], found[-1]}) if found else []
