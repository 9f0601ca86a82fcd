"""Rows against the base row: what is tested, what is corrected for, what is told of rows that are one."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from stored import Results, data_facts

from analysis import cells
from analysis.differences import differences, in_words, is_marked
from analysis.significance import holm
from analysis.tables import study_table
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
    scores(results, plan, "Full", 51, 53, 55)
    data = compared(results, plan)
    full = data.loc[("Full", "top1")]
    assert (full.difference, full.difference_n) == (pytest.approx(1), 3)
    assert (full.difference_low, full.difference_high) == pytest.approx((1, 1))
    assert math.isnan(data.loc[("B", "top1")].difference)
    assert (delta(results, plan, "B"), delta(results, plan, "Full")) == ("base", "+1.0 [+1.0, +1.0]")


def test_differences_that_do_not_vary_are_not_taken_for_certain(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    scores(results, plan, "B", 50, 52, 54)
    scores(results, plan, "Full", 51, 53, 55)
    assert math.isnan(compared(results, plan).loc[("Full", "mca")].p_seeds)


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
    assert delta(results, plan, "Full") == "0.0 [0.0, 0.0]"


def test_rows_that_are_one_function_count_as_one_test(results: Results, components: Plan) -> None:
    data = compared(results, components).xs("top1", level="metric").drop("B")
    assert data.loc["B + TE", "p_seeds"] == data.loc["B + TE + IF-FC", "p_seeds"]
    apart = data.drop("B + TE + IF-FC")
    for test in ("seeds", "clips"):
        assert apart[f"p_{test}_holm"].tolist() == pytest.approx(holm(apart[f"p_{test}"].tolist()))
        assert any("the 3 tests of the table" in said for said in in_words(components, compared(results, components)))


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
    assert "over 3 seeds sees a true difference of 3.3 points with a probability of 80 %" in said
    assert f"differences to {base} would take" in said


def test_one_seed_says_nothing_of_what_it_could_show(results: Results) -> None:
    plan = results.plan(COMPONENTS, seeds=[0])
    for row in plan.rows:
        results.finish(plan, row, seed=0)
    assert not [text for text in in_words(plan, compared(results, plan)) if "standard deviation" in text]
