"""Rows against the base row: what is tested, what is corrected for, what is told of rows that are one."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from stored import Results, data_facts

from analysis import cells
from analysis.differences import CLIPS_MARK, differences, in_words, is_marked
from analysis.significance import LEVEL, detectable, holm, seeds_needed
from analysis.tables import signed, study_table
from studies.catalog import COMPONENTS, FFN_WIDTH
from studies.plan import Plan
from taghead.recipes import recipe


def compared(results: Results, plan: Plan) -> pd.DataFrame:
    data = differences(results.root, plan, cells.join(results.root, plan))
    return data.set_index(["row", "metric"], drop=False)


def scores(results: Results, plan: Plan, row: str, *values: float, **facts: object) -> None:
    for seed, value in enumerate(values):
        metrics = {"top1": value / 100, "mca": value / 100}
        results.finish(plan, row, seed=seed, metrics=metrics, **facts)  # type: ignore[arg-type]


def predict(folder: Path, right: np.ndarray) -> None:
    """Predictions of two classes, right where they are said to be."""
    ids, labels = np.array([f"clip_{n:03d}" for n in range(len(right))]), np.arange(len(right)) % 2
    logits = np.eye(2, dtype=np.float32)[np.where(right, labels, 1 - labels)]
    np.savez(folder / "predictions.npz", ids=ids, labels=labels, logits=logits)


def delta(results: Results, plan: Plan, row: str) -> str:
    return next(texts for texts in study_table(results.root, plan).rows if texts[0] == row)[2]


def test_the_difference_is_paired_and_has_its_interval(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    scores(results, plan, "B", 50, 52, 54)
    scores(results, plan, "Full", 50, 53, 56)
    data = compared(results, plan)
    full = data.loc[("Full", "top1")]
    assert (full.difference, full.difference_n) == (pytest.approx(1), 3)
    half = 0.95 / (2 * 0.975 * 0.025 * 3) ** 0.5  # sd 1; the quantile with two degrees of freedom has a closed form
    assert (full.difference_low, full.difference_high) == pytest.approx((1 - half, 1 + half))
    assert math.isnan(data.loc[("B", "top1")].difference)
    expected = f"+1.0 [{signed(-1.5)}, +3.5]"
    assert (delta(results, plan, "B"), delta(results, plan, "Full")) == ("base", expected)


def test_differences_that_do_not_vary_are_not_taken_for_certain(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    scores(results, plan, "B", 50, 52, 54)
    scores(results, plan, "Full", 51, 53, 55)
    found = compared(results, plan).loc[("Full", "mca")]
    assert math.isnan(found.p_seeds) and math.isnan(found.difference_low) and math.isnan(found.difference_high)
    assert delta(results, plan, "Full") == "+1.0 (does not vary)"


def test_a_row_of_the_same_bits_as_the_base_is_identical_and_not_tested(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    for seed in plan.seeds:
        for row in ("B", "B + TE"):
            results.finish(plan, row, seed=seed, stream=0)
    found = compared(results, plan).loc[("B + TE", "top1")]
    assert (found.identical, found.clips_for, found.clips_against) == (True, 0, 0)
    assert math.isnan(found.p_seeds) and math.isnan(found.p_clips)
    assert delta(results, plan, "B + TE") == "identical"


def test_equal_scores_of_other_bits_are_not_called_identical(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    scores(results, plan, "B", 50, 52, 54)
    scores(results, plan, "Full", 50, 52, 54)
    assert not compared(results, plan).loc[("Full", "top1")].identical
    assert delta(results, plan, "Full") == "0.0 (does not vary)"


def test_rows_that_are_one_function_count_as_one_test(results: Results, components: Plan) -> None:
    data = compared(results, components).xs("top1", level="metric").drop("B")
    assert data.loc["B + TE", "p_seeds"] == data.loc["B + TE + IF-FC", "p_seeds"]
    apart = data.drop("B + TE + IF-FC")
    for test in ("seeds", "clips"):
        assert apart[f"p_{test}_holm"].tolist() == pytest.approx(holm(apart[f"p_{test}"].tolist()))
        assert (data[f"num_tests_{test}"] == 3).all()
    marks = [said for said in in_words(components, compared(results, components)) if said[0] in "*†"]
    assert len(marks) == 2 and all("the 3 tests of the table" in said for said in marks)


@pytest.mark.parametrize("swapped", [False, True])
def test_tests_of_rows_with_equal_scores_are_two_where_the_clips_are_others(results: Results, swapped: bool) -> None:
    plan, clips = results.plan(COMPONENTS, seeds=[0]), np.arange(60)
    rows = ("B + TE", "B + TE + TAT")
    for row, right in zip(("B", *rows[:: -1 if swapped else 1]), (clips < 30, clips < 40, clips >= 20), strict=True):
        predict(results.finish(plan, row, seed=0, metrics={"top1": right.mean(), "mca": right.mean()}), right)
    data = compared(results, plan).xs("top1", level="metric")
    clear, unclear = (data.loc[row] for row in rows[:: -1 if swapped else 1])
    assert (clear.p_clips_holm, unclear.p_clips_holm) == (2 * clear.p_clips, unclear.p_clips)
    assert unclear.p_clips == pytest.approx(0.203, abs=1e-3) and unclear.num_tests_clips == 2


def test_a_metric_has_no_mark_from_another_with_the_same_scores_of_the_row(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    for seed, (top1, mca) in enumerate([(0.95, 0.6), (0.952, 0.95), (0.951, 0.8)]):
        results.finish(plan, "B", seed=seed, metrics={"top1": top1, "mca": mca})
        results.finish(plan, "Full", seed=seed, metrics={"top1": 1.0, "mca": 1.0})
    data = compared(results, plan)
    top1, mca = (data.loc[("Full", metric)] for metric in ("top1", "mca"))
    assert is_marked(top1, "seeds") and not is_marked(mca, "seeds")
    assert (mca.p_seeds_holm, mca.num_tests_seeds) == (pytest.approx(0.166, abs=1e-3), 2)


def test_tests_of_equal_p_values_are_counted_as_the_correction_counts_them(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    scores(results, plan, "B", 50, 50, 50)
    scores(results, plan, "B + TE", 51, 52, 54)
    scores(results, plan, "B + TE + TAT", 52, 54, 51)  # one mean and one p, of other numbers
    data = compared(results, plan).xs("top1", level="metric")
    first, second = (data.loc[row] for row in ("B + TE", "B + TE + TAT"))
    assert first.p_seeds == pytest.approx(second.p_seeds) and first.num_tests_seeds == 2
    assert first.p_seeds_holm == pytest.approx(2 * first.p_seeds)


def test_the_mark_over_clips_never_contradicts_the_difference(results: Results) -> None:
    plan, clips = results.plan(COMPONENTS), np.arange(60)
    for seed in plan.seeds:
        won = (clips >= 10) & (clips < 35) & (clips % 3 == seed)  # 25 clips, each in one seed
        for row, right in {"B": (clips < 10) | (clips >= 35), "Full": won | (clips >= 35)}.items():
            predict(results.finish(plan, row, seed=seed, metrics={"top1": right.mean(), "mca": 0.0}), right)
    found = compared(results, plan).loc[("Full", "top1")]
    assert (found.clips_for, found.clips_against) == (25, 10)
    assert found.difference < 0 and found.p_clips == pytest.approx(0.713, abs=1e-3)
    assert CLIPS_MARK not in delta(results, plan, "Full")


def test_the_test_over_clips_is_named_and_said_to_be_of_top1_alone(results: Results, components: Plan) -> None:
    (said,) = [text for text in in_words(components, compared(results, components)) if text[0] == CLIPS_MARK]
    assert "exact sign-flip test over test clips, of Top-1 alone" in said
    assert "(with one seed, McNemar's exact test)" in said


def test_a_clear_difference_is_marked_and_a_lucky_one_among_many_is_not(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    scores(results, plan, "B", 50, 52, 51)
    scores(results, plan, "Full", 70, 72.2, 71.1)
    scores(results, plan, "B + TE", 53, 54, 55.2)  # p = 0.04 alone
    scores(results, plan, "B + TE + TAT", 50, 55, 49)
    scores(results, plan, "B + TE + IF-FC", 49, 52.5, 52)
    data = compared(results, plan)
    full, lucky = (data.loc[(row, "top1")] for row in ("Full", "B + TE"))
    assert is_marked(full, "seeds") and delta(results, plan, "Full").split("]")[1].startswith(" *")
    assert lucky.p_seeds < 0.05 < lucky.p_seeds_holm and not is_marked(lucky, "seeds")


def test_models_that_differ_on_clips_are_marked_even_with_one_seed(results: Results) -> None:
    plan = results.plan(COMPONENTS, seeds=[0])
    for row, right in {"B": 30, "Full": 55}.items():
        predict(results.finish(plan, row, seed=0), np.arange(60) < right)
    found = compared(results, plan).loc[("Full", "top1")]
    assert (found.clips_for, found.clips_against) == (25, 0)
    assert found.p_clips == pytest.approx(2 * 0.5**25)
    assert delta(results, plan, "Full").endswith(" †")
    assert math.isnan(compared(results, plan).loc[("Full", "mca")].p_clips)


def test_predictions_that_cannot_be_read_leave_the_test_over_seeds(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    scores(results, plan, "B", 50, 52, 54)
    scores(results, plan, "Full", 60, 61, 66)
    for trial in plan.cell("Full", "synthetic").trials.values():
        (results.root / "trials" / trial / "predictions.npz").write_bytes(b"no")
    found = compared(results, plan).loc[("Full", "top1")]
    assert found.p_seeds < 0.05 and math.isnan(found.p_clips)


def test_what_these_seeds_could_show_is_said_with_the_papers_differences(results: Results) -> None:
    plan = results.plan(FFN_WIDTH, seeds=[0, 1, 2], haa500=recipe("haa500"))
    base = plan.base_row
    assert base is not None
    scores(results, plan, base, 85, 86, 85, data=data_facts("haa500"))
    other = next(row for row in plan.rows if row != base)
    scores(results, plan, other, 84, 86, 86, data=data_facts("haa500"))  # differences -1, 0, 1: sd 1
    (said,) = [text for text in in_words(plan, compared(results, plan)) if "standard deviation" in text]
    assert "haa500, Top-1" in said and "standard deviation of 1.0 points" in said
    assert "At p < 0.05 a paired t-test over 3 seeds sees a true difference of 3.3 points with a probability" in said
    assert f"differences to {base} would take" in said


def resolution(results: Results, plan: Plan) -> str:
    (said,) = [text for text in in_words(plan, compared(results, plan)) if "standard deviation" in text]
    return said


def test_what_could_be_shown_is_that_of_the_corrected_test(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    scores(results, plan, "B", 50, 50, 50)
    scores(results, plan, "B + TE", 51, 52, 53)  # sd 1
    scores(results, plan, "B + TE + TAT", 49, 53, 51)  # sd 2
    said = resolution(results, plan)
    seen = detectable(sd=2.5**0.5, n=3, level=LEVEL / 2)
    assert "standard deviation of 1.6 points (pooled over rows). At p < 0.05 / 2 (the first and strictest step" in said
    assert f"over 3 seeds sees a true difference of {seen:.1f} points" in said
    assert f"{seeds_needed(2.9, sd=2.5**0.5, level=LEVEL / 2)} for 2.9 points" in said


def test_rows_with_more_seeds_weigh_more_in_what_could_be_shown(results: Results) -> None:
    plan = results.plan(COMPONENTS, seeds=range(5))
    scores(results, plan, "B", 50, 50, 50, 50, 50)
    scores(results, plan, "B + TE", 49, 51, 49, 51, 50)  # sd 1, 4 degrees of freedom
    scores(results, plan, "Full", 50, 50 + 18**0.5)  # sd 3, one
    said = resolution(results, plan)
    sd = ((4 * 1 + 9) / 5) ** 0.5
    seen = [f"{detectable(sd=sd, n=n, level=LEVEL / 2):.1f}" for n in (5, 2)]
    assert f"deviation of {sd:.1f} points" in said
    assert f"over 2 to 5 seeds sees a true difference of {seen[0]} (with the most seeds) to {seen[1]} points" in said


def test_no_difference_of_percentages_is_above_100_points(results: Results) -> None:
    plan = results.plan(COMPONENTS, seeds=[0, 1])
    scores(results, plan, "B", 50, 50)
    scores(results, plan, "B + TE", 40, 60)
    scores(results, plan, "Full", 60, 41)
    assert "over 2 seeds sees a true difference of more than 100 points" in resolution(results, plan)


def test_one_seed_says_nothing_of_what_it_could_show(results: Results) -> None:
    plan = results.plan(COMPONENTS, seeds=[0])
    for row in plan.rows:
        results.finish(plan, row, seed=0)
    assert not [text for text in in_words(plan, compared(results, plan)) if "standard deviation" in text]
