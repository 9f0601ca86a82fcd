"""Costs as figures and tables."""

import pytest
from stored import NUM_CLASSES, Results

from analysis.efficiency import PUBLISHED, accuracy_data, accuracy_figures, cost_table, draw_efficiency, efficiency_data
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
