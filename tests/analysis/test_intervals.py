"""Spread and paired differences."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from analysis.intervals import paired_difference, paired_numbers, spread

NUMBERS = st.lists(st.floats(0, 100, allow_subnormal=False), min_size=2, max_size=8)


def test_three_runs_have_the_spread_of_the_textbook() -> None:
    measured = spread([50.0, 52.0, 54.0])
    assert (measured.mean, measured.n, measured.sd) == (52.0, 3, 2.0)
    t = 0.95 / math.sqrt(2 * 0.975 * 0.025)  # the quantile with two degrees of freedom has a closed form
    assert measured.high == pytest.approx(52 + t * 2 / math.sqrt(3), abs=1e-9)


def test_one_run_has_no_spread() -> None:
    assert spread([50.0]).sd is spread([50.0]).low is spread([50.0]).high is None


def test_no_run_has_no_mean() -> None:
    assert spread([]).n == 0
    assert math.isnan(spread([]).mean)


@given(NUMBERS)
def test_the_interval_is_that_of_the_one_sample_t_test(values: list[float]) -> None:
    measured = spread(values)
    assume(max(values) - min(values) > 1e-3)  # nearly equal values cost scipy its precision
    reference = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert measured.sd == pytest.approx(stats.tstd(values), rel=1e-9)
    assert (measured.low, measured.high) == pytest.approx(tuple(reference), rel=1e-9, abs=1e-9)


def test_a_difference_takes_the_common_seeds_only() -> None:
    difference = paired_difference({0: 51.0, 1: 53.0, 2: 99.0}, {0: 50.0, 1: 50.0, 3: 0.0})
    assert (difference.mean, difference.n) == (2.0, 2)


def test_pairing_removes_what_a_seed_does_to_both_rows() -> None:
    base = {seed: 10.0 * seed for seed in range(4)}
    difference = paired_difference({seed: value + 1 for seed, value in base.items()}, base)
    assert (difference.sd, difference.low, difference.high) == (0.0, 1.0, 1.0)


def test_runs_that_agree_but_for_rounding_do_not_vary() -> None:
    assert not spread([51 - 50, 100 * 0.53 - 52, 100 * 0.55 - 54]).varies
    assert spread([1.0, 1.1]).varies
    assert not spread([1.0]).varies and not spread([]).varies


def test_tests_are_known_by_their_paired_differences() -> None:
    ours, base = {0: 95.0, 1: 95.2, 3: 1.0}, {0: 100.0, 1: 100.0, 2: 7.0}
    assert paired_numbers(ours, base) == ((0, -5.0), (1, -4.8))


def test_no_common_seed_has_no_difference() -> None:
    assert paired_difference({0: 1.0}, {1: 1.0}).n == 0
