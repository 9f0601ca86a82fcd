"""Each row of a study against its base row: intervals and tests over seeds and over clips, corrected for their number.

Rows that came out the same bits as the base are told as identical and not tested.
"""

import math
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from numpy import ndarray

from analysis import published
from analysis.cells import by_cell
from analysis.intervals import ROUNDING, Spread, paired_difference, paired_numbers
from analysis.predictions import correct, digest
from analysis.significance import (
    LEVEL,
    MOST_SEEDS,
    POWER,
    detectable,
    holm_once,
    net_counts,
    paired_t,
    seeds_needed,
    sign_flip_test,
)
from studies.plan import Cell, Plan
from taghead.errors import InputError

METRIC_NAMES = {"top1": "Top-1", "mca": "MCA"}
SEEDS_MARK, CLIPS_MARK = "*", "†"
COLUMNS = ("row", "dataset", "metric", "difference", "difference_n", "difference_sd", "difference_low",
           "difference_high", "identical", "p_seeds", "p_seeds_holm", "clips_for", "clips_against", "p_clips",
           "p_clips_holm", "num_tests_seeds", "num_tests_clips")  # fmt: skip
_UNTESTED: dict[str, Any] = {"p_seeds": math.nan, "clips_for": 0, "clips_against": 0, "p_clips": math.nan}
_NO_CONTENT: dict[str, Hashable] = {"seeds": (), "clips": ()}


def differences(results: Path, plan: Plan, frame: pd.DataFrame) -> pd.DataFrame:
    """The differences to the base row over the seeds that both have.

    Args:
        results: The results folder; predictions are read from it where they are kept.
        plan: The study.
        frame: As from `analysis.cells.read`.

    Returns:
        One row for each (row, dataset, metric), with `COLUMNS`: the mean difference in percentage points, its ``n``,
        ``sd`` and 95 % t-interval, NaN where the difference does not vary; ``identical``, whether all common seeds have
        the same bits as the base's; ``p_seeds``, of the paired t-test; ``clips_for`` and ``clips_against``, the clips
        that the row gets right in more seeds than the base and the other way round, and ``p_clips``, of the sign-flip
        test on all of them (of Top-1 only); both p-values also after Holm's correction within the table, and the number
        of tests that it corrects for, where those of the same numbers count once. NaN where there is nothing to test.
    """
    values = {key: _by_seed(trials) for key, trials in by_cell(frame).items()}
    cells = {(cell.row, cell.dataset): cell for cell in plan.cells}
    rows, contents = [], []
    for (row, dataset, metric), ours in values.items():
        found, content = {**_numbers(Spread(math.nan, 0)), "identical": False, **_UNTESTED}, dict(_NO_CONTENT)
        if plan.base_row is not None and row != plan.base_row:
            pair = cells[row, dataset], cells[plan.base_row, dataset]
            found, content = _compared(results, pair, ours, values[plan.base_row, dataset, metric], metric)
        rows.append({"row": row, "dataset": dataset, "metric": metric, **found})
        contents.append(content)
    data = pd.DataFrame(rows)
    for test in _NO_CONTENT:
        of_test = [(dataset, one[test]) for dataset, one in zip(data["dataset"], contents, strict=True)]
        data[f"p_{test}_holm"], data[f"num_tests_{test}"] = holm_once(data[f"p_{test}"].tolist(), of_test)
    return data[list(COLUMNS)].astype(dict.fromkeys(("difference_sd", "difference_low", "difference_high"), float))


def _by_seed(trials: Iterable[Any]) -> dict[int, float]:
    return {trial.seed: trial.value for trial in trials if trial.status == "complete"}


def _numbers(value: Spread) -> dict[str, Any]:
    ends = {name: getattr(value, name) if value.varies else math.nan for name in ("low", "high")}
    return {"difference": value.mean} | {
        f"difference_{name}": number for name, number in {"n": value.n, "sd": value.sd, **ends}.items()
    }


def _compared(
    results: Path, pair: tuple[Cell, Cell], ours: Mapping[int, float], base: Mapping[int, float], metric: str
) -> tuple[dict[str, Any], dict[str, Hashable]]:
    """The numbers and tests of one row, and what each test was made of."""
    difference, found, content = paired_difference(ours, base), dict(_UNTESTED), dict(_NO_CONTENT)
    seeds = sorted(ours.keys() & base.keys())
    identical = is_identical(results, pair, seeds)
    if not identical:
        found["p_seeds"], content["seeds"] = paired_t(difference), paired_numbers(ours, base)
        if metric == "top1":
            tested, content["clips"] = _over_clips(*(_correct(results, cell, seeds) for cell in pair))
            found |= tested
    return {**_numbers(difference), "identical": identical, **found}, content


def _over_clips(
    ours: Mapping[int, tuple[ndarray, ndarray]], base: Mapping[int, tuple[ndarray, ndarray]]
) -> tuple[dict[str, Any], Hashable]:
    ids, net = net_counts(ours, base)
    p = sign_flip_test(net) if ours.keys() & base.keys() else math.nan
    counts = {"clips_for": int((net > 0).sum()), "clips_against": int((net < 0).sum()), "p_clips": p}
    return counts, (ids.tobytes(), net.tobytes())


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


def is_identical(results: Path, pair: tuple[Cell, Cell], seeds: Iterable[int]) -> bool:
    """Whether two cells came out the same bits in each of these seeds; not where there are none.

    Args:
        results: The results folder; predictions are read from it.
        pair: Both cells.
        seeds: Those that both have.
    """
    seeds = list(seeds)
    return bool(seeds) and all(_is_same(results, pair, seed) for seed in seeds)


def _is_same(results: Path, pair: tuple[Cell, Cell], seed: int) -> bool:
    first, second = (results / "trials" / cell.trials[seed] for cell in pair)
    if first == second:
        return True
    try:
        return digest(first) == digest(second)
    except InputError:
        return False


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
    seeds, clips = (_num_tests(data, test) for test in ("seeds", "clips"))
    if seeds:
        yield (
            f"{SEEDS_MARK}: p < {LEVEL} in the paired t-test over seeds (the same seed, the same split) after Holm's "
            f"correction for {_tests(seeds)}. It asks whether training again would show the difference."
        )
    if clips:
        yield (
            f"{CLIPS_MARK}: p < {LEVEL} in the exact sign-flip test over test clips, of Top-1 alone, after Holm's "
            f"correction for {_tests(clips)}: the seeds in which a clip is right for the row less those for the base, "
            "summed over clips, against all ways to turn the clips' signs (with one seed, McNemar's exact test). It "
            "asks whether these very models differ on clips like these, not whether training again would give the like."
        )
    for dataset in plan.datasets:
        yield from _resolution(plan, data[data["dataset"] == dataset], dataset)


def _num_tests(data: pd.DataFrame, test: str) -> int:
    return int(data[f"num_tests_{test}"].max())


def _tests(number: int) -> str:
    return "the one test of the table" if number == 1 else f"the {number} tests of the table"


def _resolution(plan: Plan, data: pd.DataFrame, dataset: str) -> Iterable[str]:
    """The smallest difference that was within reach of the marked test, and the seeds that the paper's would take."""
    metric = plan.metrics[0]
    there = data[(data["metric"] == metric) & (data["difference_n"] > 1) & ~data["identical"]]
    weights = there["difference_n"] - 1
    sd = math.sqrt((weights * there["difference_sd"] ** 2).sum() / weights.sum()) if len(there) else 0.0
    if sd < ROUNDING:
        return
    tests = _num_tests(data, "seeds")
    level = LEVEL / tests
    at = f"p < {LEVEL}" + (f" / {tests} (the first and strictest step of Holm's correction)" if tests > 1 else "")
    few, many = int(there["difference_n"].min()), int(there["difference_n"].max())
    seen = list(dict.fromkeys(_points(detectable(sd=sd, n=n, level=level)) for n in (many, few)))
    text = (
        f"{dataset}, {METRIC_NAMES[metric]}: the differences vary over seeds with a standard deviation of {sd:.1f} "
        f"points (pooled over rows). At {at} a paired t-test over {few if few == many else f'{few} to {many}'} seeds "
        f"sees a true difference of {' (with the most seeds) to '.join(seen)} points with a probability of "
        f"{100 * POWER:.0f} %, and smaller ones less often."
    )
    gaps = _published_gaps(plan, metric)
    if gaps:
        found = ((gap, seeds_needed(gap, sd=sd, level=level)) for gap in gaps)
        needed = [f"{seeds or f'over {MOST_SEEDS:,}'} for {gap:.1f} points" for gap, seeds in found]
        text += f" Seeds that the paper's differences to {plan.base_row} would take: {', '.join(needed)}."
    yield text


def _points(value: float) -> str:
    return f"{value:.1f}" if value <= 100 else "more than 100"  # which no difference of percentages is


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
