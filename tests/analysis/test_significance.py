"""Tests and power against scipy and statsmodels, and false alarms where two rows are one function."""

import math
from itertools import product

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
    detectable,
    holm,
    holm_once,
    net_counts,
    paired_t,
    power,
    seeds_needed,
    sign_flip_test,
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
def test_with_one_seed_the_test_over_clips_is_mcnemars_exact_one(won: int, lost: int) -> None:
    table = [[50, won], [lost, 10]]
    expected = mcnemar(table, exact=True).pvalue if won + lost else 1.0
    assert sign_flip_test(np.repeat([1, -1], [won, lost])) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("won, lost", [(4700, 4900), (400, 120), (2600, 2300)])
def test_thousands_of_clips_neither_overflow_nor_cost_accuracy(won: int, lost: int) -> None:
    expected = stats.binomtest(won, won + lost).pvalue
    assert sign_flip_test(np.repeat([-1, 1], [won, lost])) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("clips", range(11))
def test_over_several_seeds_the_test_over_clips_is_that_of_all_ways_to_turn_their_signs(clips: int) -> None:
    generator = np.random.default_rng(clips)
    for _ in range(10):
        net = generator.choice([-3, -2, -1, 1, 2, 3], clips)
        sums = [abs(int(np.dot(signs, net))) for signs in product((1, -1), repeat=clips)]
        assert sign_flip_test(net) == pytest.approx(np.mean(np.array(sums) >= abs(net.sum())), rel=1e-12)


def test_clips_won_by_a_hair_do_not_outvote_those_lost_in_every_seed() -> None:
    assert sign_flip_test(np.repeat([1, -3], [25, 10])) == pytest.approx(0.713, abs=1e-3)
    assert sign_flip_test(np.repeat([1, -1], [25, 10])) < 0.02  # as a vote by clips had it


def test_holm_is_that_of_statsmodels_and_leaves_out_what_was_not_tested() -> None:
    p_values = [0.01, 0.04, 0.03, 0.005, 0.5, 0.04]
    expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(expected.tolist())
    with_gap = holm([0.01, math.nan, 0.04])
    assert with_gap[0::2] == pytest.approx(holm([0.01, 0.04])) and math.isnan(with_gap[1])


def test_tests_of_the_same_numbers_are_corrected_for_once() -> None:
    adjusted, number = holm_once([0.01, 0.04, 0.01, math.nan], ["a", "b", "a", "none"])
    assert (adjusted[:3], number) == ([0.02, 0.04, 0.02], 2)
    assert math.isnan(adjusted[3])
    assert holm_once([0.01, 0.01], ["a", "b"]) == ([0.02, 0.02], 2)  # one p-value, two tests
    assert holm_once([], []) == ([], 0)


@pytest.mark.parametrize("n, level", [*product((2, 3, 5, 30), (LEVEL, LEVEL / 9)), (100, LEVEL)])
@pytest.mark.parametrize("difference", [0.05, 0.5, 1.2, 4.0])
def test_power_is_that_of_statsmodels(n: int, difference: float, level: float) -> None:
    expected = TTestPower().power(difference / 2.5, n, level)
    assert power(difference, sd=2.5, n=n, level=level) == pytest.approx(expected, abs=1e-6)


def test_power_without_a_difference_is_the_level() -> None:
    for level in (LEVEL, LEVEL / 9, LEVEL / 300):
        assert power(0, sd=1, n=3, level=level) == pytest.approx(level, abs=1e-6)


@pytest.mark.parametrize("tests", [1, 10, 300])
def test_two_seeds_see_in_a_strict_test_what_simulated_studies_see(tests: int) -> None:
    level = LEVEL / tests
    difference = detectable(sd=1, n=2, level=level)
    pairs = np.random.default_rng(tests).normal(difference, 1, (20_000, 2))
    t = pairs.mean(axis=1) / (np.abs(pairs[:, 0] - pairs[:, 1]) / 2)
    assert (np.abs(t) > stats.t.ppf(1 - level / 2, 1)).mean() == pytest.approx(POWER, abs=0.01)


@pytest.mark.parametrize("n", [2, 3, 10, 200])
@pytest.mark.parametrize("level", [LEVEL, LEVEL / 9, LEVEL / 300])
def test_a_detectable_difference_is_seen_with_just_the_stated_power(n: int, level: float) -> None:
    seen = detectable(sd=2.0, n=n, level=level)
    assert power(seen, sd=2.0, n=n, level=level) == pytest.approx(POWER, abs=1e-6)


@pytest.mark.parametrize("difference", [0.5, 0.9, 1.2, 10.0, 1e3])
def test_one_seed_fewer_than_needed_would_miss_the_difference(difference: float) -> None:
    n = seeds_needed(difference, sd=2.9)
    assert n is not None and power(difference, sd=2.9, n=n) >= POWER
    assert n == 2 or power(difference, sd=2.9, n=n - 1) < POWER
    assert (seeds_needed(difference, sd=2.9, level=LEVEL / 9) or 0) > n or difference > 100


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
        alarms += sign_flip_test(net_counts(ours, base)[1]) < LEVEL
        pooled += sign_flip_test(right[0].astype(int).ravel() - right[1].ravel()) < LEVEL
    assert alarms / studies < 0.07 < pooled / studies


@pytest.mark.parametrize("num_seeds", [1, 2, 3, 5])
def test_false_alarms_over_clips_stay_near_five_percent_whatever_the_seeds(num_seeds: int) -> None:
    """Rows that are alike, with clips that all seeds of a row tend to get right or wrong together."""
    generator = np.random.default_rng(num_seeds)
    studies, alarms = 2000, 0
    ease = generator.beta(2, 0.8, (studies, 1, 1, 100))
    lean = generator.normal(0, 0.3, (studies, 2, 1, 100))
    right = generator.random((studies, 2, num_seeds, 100)) < np.clip(ease + lean, 0, 1)
    for net in (right[:, 0].astype(int) - right[:, 1]).sum(axis=1):
        alarms += sign_flip_test(net[net != 0]) < LEVEL
    assert 0.02 < alarms / studies < 0.06


def test_clips_of_one_row_alone_do_not_count() -> None:
    ours = {0: (np.array(["a", "b", "c", "d"]), np.array([True, True, False, True]))}
    base = {0: (np.array(["b", "c", "d", "e"]), np.array([False, True, True, False]))}
    ids, net = net_counts(ours, base)
    assert (ids.tolist(), net.tolist()) == (["b", "c"], [1, -1])
    assert net_counts(ours, {1: base[0]})[1].tolist() == []


@pytest.mark.parametrize("shared", [True, False], ids=["one array of ids", "equal ids"])
def test_a_clip_counts_by_the_seeds_that_it_is_right_in(shared: bool) -> None:
    ids = np.array(["a", "b", "c"])
    each = [ids if shared else ids.copy() for _ in range(6)]
    ours = {seed: (each[seed], np.array([True, seed == 0, False])) for seed in range(3)}
    base = {seed: (each[seed + 3], np.array([False, seed == 1, seed == 2])) for seed in range(3)}
    found, net = net_counts(ours, base)
    assert (found.tolist(), net.tolist()) == (["a", "c"], [3, -1])  # b: one seed for each


@pytest.mark.parametrize("n", [2, 3, 8])
def test_one_more_run_falls_into_its_interval_in_95_of_100_studies(n: int) -> None:
    runs = np.random.default_rng(n).normal(80, 3, (4000, n + 1))
    inside = 0
    for *known, new in runs:
        low, high = one_more(spread(known)) or (math.nan, math.nan)
        inside += low <= new <= high
    assert 0.94 < inside / 4000 < 0.96


def test_one_run_and_runs_that_do_not_vary_say_nothing_of_the_next() -> None:
    assert one_more(spread([80.0])) is None
    assert one_more(spread([84.8667, 84.8667])) is None
