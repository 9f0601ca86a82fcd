"""Costs as figures and tables."""

import numpy as np
import pandas as pd
import pytest
from stored import NUM_CLASSES, Results

from analysis.efficiency import (
    PUBLISHED,
    accuracy_data,
    accuracy_figures,
    cost_table,
    draw_accuracy,
    draw_efficiency,
    efficiency_data,
    front_note,
    pareto,
    published_points,
)
from studies.catalog import COMPONENTS, FFN_WIDTH
from studies.plan import Plan
from taghead.recipes import recipe


def test_components_of_a_bar_add_up_to_the_whole_model() -> None:
    totals = efficiency_data().groupby(["model", "quantity"])["value"].sum()
    classifier = (512 + 1) * 500 / 1e6
    assert totals["TAG-Head, FFN 2048", "params_m"] == pytest.approx(69.897 + classifier, abs=0.001)
    assert totals["TAG-Head, FFN 512", "gmac"] == pytest.approx(153.051, abs=0.001)


def test_models_of_others_stand_as_they_were_published() -> None:
    data = efficiency_data().query("component == @PUBLISHED", local_dict={"PUBLISHED": PUBLISHED})
    assert data[["model", "quantity", "value"]].values.tolist() == [
        ["PGVT", "params_m", 265.0],
        ["PGVT", "gmac", 222.0],
        ["PEVL", "params_m", 1095.0],
        ["PEVL", "gmac", 510.0],
    ]


def test_a_component_has_one_colour_in_both_panels() -> None:
    left, right = (
        {bars.get_label(): bars.patches[0].get_facecolor() for bars in axis.containers}
        for axis in draw_efficiency(efficiency_data()).axes
    )
    assert len(set(left.values())) == len(left)
    assert all(left[name] == colour for name, colour in right.items())


def test_rows_that_differ_in_the_graph_alone_cost_the_same(results: Results, components: Plan) -> None:
    data = accuracy_data(results.root, components).query("metric == 'top1'").set_index("row")
    assert data.loc["B + TE", "multiply_adds"] == data.loc["Full", "multiply_adds"]
    assert data.loc["B", "multiply_adds"] < data.loc["B + TE", "multiply_adds"]


def test_the_classes_of_a_finished_trial_are_those_that_are_counted(results: Results, components: Plan) -> None:
    data = accuracy_data(results.root, components).set_index(["row", "metric"])
    with_head = data.loc[("B", "top1"), "parameters"]
    assert with_head - 440_488 == (128 + 1) * NUM_CLASSES


def test_the_cost_of_a_study_of_the_paper_is_known_before_it_ran(results: Results) -> None:
    table = cost_table(results.root, results.plan(FFN_WIDTH, haa500=recipe("haa500")))
    assert len(table.rows) == 4


def test_nothing_complete_has_no_figure(results: Results) -> None:
    assert list(accuracy_figures(results.root, results.plan(COMPONENTS))) == []


def test_points_of_one_cost_do_not_hide_one_another(results: Results, components: Plan) -> None:
    ((_, points, figure),) = accuracy_figures(results.root, components)
    places = {bar.lines[0].get_xdata()[0] for bar in figure.axes[0].containers}
    assert len(places) == len(points) == 5


def test_the_file_of_a_column_is_named_without_its_odd_signs(results: Results) -> None:
    plan = results.plan(COMPONENTS, seeds=[0], **{"a:b": recipe("synthetic")})
    for row in ("B", "Full"):
        results.finish(plan, row, seed=0)
    assert [name for name, _, _ in accuracy_figures(results.root, plan)] == ["components_a_b_cost"]


def points(*rows: tuple[str, float, float]) -> pd.DataFrame:
    """Rows of (name, multiply-adds, accuracy), each with an interval of one point to either side."""
    data = pd.DataFrame(rows, columns=["row", "multiply_adds", "mean"])
    return data.assign(low=data["mean"] - 1, high=data["mean"] + 1, n=3, dataset="gym99", metric="top1")


@pytest.mark.parametrize(
    ("costs", "values", "front"),
    [
        ([1, 2, 3], [1, 2, 3], [True, True, True]),
        ([1, 2, 3], [3, 2, 1], [True, False, False]),
        ([1, 1, 2], [1, 2, 2], [False, True, False]),
        ([1, 1], [2, 2], [True, True]),
        ([5], [0], [True]),
    ],
)
def test_no_point_of_the_front_is_beaten_and_every_other_is(
    costs: list[float], values: list[float], front: list[bool]
) -> None:
    assert pareto(pd.Series(costs), pd.Series(values)).tolist() == front


def seeded(*rows: tuple[str, float, list[float]]) -> pd.DataFrame:
    """Rows of (name, multiply-adds, accuracies by seed)."""
    means = points(*((name, cost, float(np.mean(values))) for name, cost, values in rows))
    return means.assign(by_seed=[dict(enumerate(values)) for _, _, values in rows])


def test_the_front_is_told_step_by_step() -> None:
    told = front_note(points(("large", 4e9, 90), ("small", 1e9, 80), ("worse", 5e9, 85), ("middle", 2e9, 81)))
    assert told == (
        "Pareto front (means; multiply-adds): small at 80.0 %; middle, +1.0 points for 2 times as much; large, +9.0 "
        "points for 2 times as much."
    )
    assert "small alone" in front_note(points(("small", 1e9, 80), ("worse", 5e9, 75)))


def test_a_step_of_the_front_has_the_interval_of_its_paired_difference() -> None:
    # both rows vary by ten points over the seeds, their difference by half a point
    told = front_note(seeded(("small", 1e9, [70.0, 80.0, 90.0]), ("large", 2e9, [71.5, 82.0, 92.5])))
    assert "large, +2.0 points [+0.8, +3.2] for 2 times as much." in told  # 2 +- 4.303 * 0.5 / sqrt(3)
    assert told.endswith("In brackets: 95 % interval of the difference, paired over seeds.")


def test_a_step_without_pairs_that_vary_has_no_interval() -> None:
    one = front_note(seeded(("small", 1e9, [80.0]), ("large", 4e9, [90.0])))
    assert "+10.0 points (one seed in common: no interval)" in one and "brackets" not in one
    same = front_note(seeded(("small", 1e9, [80.0, 81.0]), ("large", 4e9, [90.0, 91.0])))
    assert "+10.0 points (in each of 2 seeds: no interval)" in same
    none = seeded(("small", 1e9, [80.0]), ("large", 4e9, [90.0]))
    none["by_seed"] = [{0: 80.0}, {1: 90.0}]
    assert "+10.0 points (no seed in common: no interval)" in front_note(none)


def test_a_small_extra_cost_is_told_in_percent() -> None:
    told = front_note(points(("small", 1000, 80), ("more", 1004.5, 81), ("most", 1200, 82)))
    assert "more, +1.0 points for 0.45 % more" in told and "most, +1.0 points for 1.19 times as much" in told


def test_a_studys_points_hold_the_values_of_their_seeds(results: Results, components: Plan) -> None:
    for point in accuracy_data(results.root, components).itertuples():
        assert list(point.by_seed) == [0, 1, 2]
        assert point.mean == pytest.approx(np.mean(list(point.by_seed.values())))


def test_the_front_that_is_drawn_is_that_of_the_means() -> None:
    data = points(("large", 4e9, 90), ("small", 1e9, 80), ("worse", 5e9, 85))
    (axis,) = draw_accuracy(data, synthetic=False).axes
    (front,) = [line for line in axis.lines if line.get_label() == "Pareto front"]
    assert front.get_xdata().tolist() == [1, 4] and front.get_ydata().tolist() == [80, 90]


def test_published_models_stand_beside_the_clips_of_the_paper_only(results: Results) -> None:
    plan = results.plan(COMPONENTS, gym99=recipe("gym99"), haa500=recipe("synthetic"))
    found = published_points(plan, "gym99", "top1").values.tolist()
    assert found == [["PGVT", 222e9, 96.7], ["PEVL", 510e9, 97.0]]
    assert published_points(plan, "haa500", "top1").empty  # its clips were generated


def test_published_points_are_within_the_panel_and_on_no_front() -> None:
    others = pd.DataFrame([("PGVT", 222e9, 96.7)], columns=["row", "multiply_adds", "mean"])
    (axis,) = draw_accuracy(points(("ours", 153e9, 90), ("more", 154e9, 91)), published=others, synthetic=False).axes
    assert axis.get_xlim()[1] > 222 and axis.get_ylim()[1] > 96.7
    (front,) = [line for line in axis.lines if line.get_label() == "Pareto front"]
    assert max(front.get_xdata()) == 154
