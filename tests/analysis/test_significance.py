"""Tests and power against scipy and statsmodels, and false alarms where two rows are one function."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from analysis.intervals import one_more, paired_difference, spread
from analysis.significance import (
    LEVEL,
    MOST_SEEDS,
    POWER,
    clip_counts,
    detectable,
    exact_sign_test,
    holm,
    paired_t,
    power,
    seeds_needed,
)  # fmt: skip


def by_seed(values: np.ndarray) -> dict[int, float]:
    return dict(enumerate(values.tolist()))


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_the_paired_test_is_that_of_scipy(n: int) -> None:
    ours, base = np.random.default_rng(n).normal(80, 3, (2, n))
    expected = stats.ttest_rel(ours, base).pvalue
    assert paired_t(paired_difference(by_seed(ours), by_seed(base))) == pytest.approx(expected, rel=1e-9)


def test_one_seed_and_differences_that_do_not_vary_have_no_test() -> None:
    assert math.isnan(paired_t(spread([3.0])))
    assert math.isnan(paired_t(spread([])))
    assert math.isnan(paired_t(spread([1.5, 1.5, 1.5])))
    assert math.isnan(paired_t(spread([51 - 50, 100 * 0.53 - 52, 100 * 0.55 - 54])))  # but for rounding


@pytest.mark.parametrize("won, lost", [(0, 0), (1, 0), (9, 2), (2, 9), (7, 7), (40, 61)])
def test_the_test_over_clips_is_mcnemars_exact_one(won: int, lost: int) -> None:
    table = [[50, won], [lost, 10]]
    expected = mcnemar(table, exact=True).pvalue if won + lost else 1.0
    assert exact_sign_test(won, lost) == pytest.approx(expected, rel=1e-9)


def test_holm_is_that_of_statsmodels_and_leaves_out_what_was_not_tested() -> None:
    p_values = [0.01, 0.04, 0.03, 0.005, 0.5, 0.04]
    expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(expected.tolist())
    with_gap = holm([0.01, math.nan, 0.04])
    assert with_gap[0::2] == pytest.approx(holm([0.01, 0.04])) and math.isnan(with_gap[1])


@pytest.mark.parametrize("n", [2, 3, 5, 30, 100])
@pytest.mark.parametrize("difference", [0.05, 0.5, 1.2, 4.0])
def test_power_is_that_of_statsmodels(n: int, difference: float) -> None:
    expected = TTestPower().power(difference / 2.5, n, LEVEL)
    assert power(difference, sd=2.5, n=n) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("n", [2, 3, 10, 200])
def test_a_detectable_difference_is_seen_with_just_the_stated_power(n: int) -> None:
    assert power(detectable(sd=2.0, n=n), sd=2.0, n=n) == pytest.approx(POWER, abs=1e-6)


@pytest.mark.parametrize("difference", [0.5, 0.9, 1.2, 10.0, 1e3])
def test_one_seed_fewer_than_needed_would_miss_the_difference(difference: float) -> None:
    n = seeds_needed(difference, sd=2.9)
    assert n is not None and power(difference, sd=2.9, n=n) >= POWER
    assert n == 2 or power(difference, sd=2.9, n=n - 1) < POWER


def test_a_difference_that_no_affordable_number_of_seeds_shows_has_no_number() -> None:
    assert seeds_needed(1e-3, sd=2.9) is None
    assert power(1e-3, sd=2.9, n=MOST_SEEDS) < POWER


def test_false_alarms_stay_near_five_percent_where_two_rows_are_one_function() -> None:
    """Accuracies of 72 clips over five seeds, drawn alike for both rows: Top-1 moves in steps of 1.4 points."""
    generator = np.random.default_rng(0)
    studies = 4000
    skill = np.clip(generator.normal(0.88, 0.03, (studies, 2, 5)), 0, 1)  # of one row's one training
    scores = 100 * generator.binomial(72, skill) / 72
    alarms = sum(paired_t(paired_difference(by_seed(ours), by_seed(base))) < LEVEL for ours, base in scores)
    assert 0.03 < alarms / studies < 0.065


def test_the_test_over_clips_raises_few_false_alarms_over_several_seeds_of_one_function() -> None:
    """Hard clips are hard for every seed: counting each clip once a seed would take them for many clips."""
    generator = np.random.default_rng(1)
    ids, studies, alarms, pooled = np.arange(120).astype(str), 600, 0, 0
    for _ in range(studies):
        ease = generator.beta(2, 0.6, 120)
        lean = generator.normal(0, 0.25, (2, 120))  # what all seeds of one row have in common, clip by clip
        right = generator.random((2, 3, 120)) < np.clip(ease + lean[:, None], 0, 1)
        ours, base = ({seed: (ids, row[seed]) for seed in range(3)} for row in right)
        alarms += exact_sign_test(*clip_counts(ours, base)) < LEVEL
        pooled += exact_sign_test(int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())) < LEVEL
    assert alarms / studies < 0.07 < pooled / studies


def test_with_one_seed_the_counts_are_mcnemars_and_clips_of_one_row_alone_do_not_count() -> None:
    ours = {0: (np.array(["a", "b", "c", "d"]), np.array([True, True, False, True]))}
    base = {0: (np.array(["b", "c", "d", "e"]), np.array([False, True, True, False]))}
    assert clip_counts(ours, base) == (1, 1)
    assert clip_counts(ours, {1: base[0]}) == (0, 0)


def test_a_clip_counts_once_whatever_the_number_of_seeds() -> None:
    ids = np.array(["a", "b", "c"])
    ours = {seed: (ids, np.array([True, seed == 0, False])) for seed in range(3)}
    base = {seed: (ids, np.array([False, seed == 1, seed == 2])) for seed in range(3)}
    assert clip_counts(ours, base) == (1, 1)  # b: one seed for each


@pytest.mark.parametrize("n", [2, 3, 8])
def test_one_more_run_falls_into_its_interval_in_95_of_100_studies(n: int) -> None:
    runs = np.random.default_rng(n).normal(80, 3, (4000, n + 1))
    inside = 0
    for *known, new in runs:
        low, high = one_more(spread(known)) or (math.nan, math.nan)
        inside += low <= new <= high
    assert 0.94 < inside / 4000 < 0.96


def test_one_run_says_nothing_of_the_next() -> None:
    assert one_more(spread([80.0])) is None
