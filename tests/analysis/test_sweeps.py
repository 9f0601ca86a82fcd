"""Curves over a swept field: which field it is, its values, and what the sentences say of the range."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
from stored import Results

from analysis import published
from analysis.figure import to_bytes
from analysis.sweeps import COLUMNS, draw_sweep, noise_range, sweep_data, sweep_figures, sweep_notes
from studies.catalog import ALPHA, COMPONENTS, CONTROLS, FFN_WIDTH, GRAPH, GRAPHS, K_PROP, LEAVE_ONE_OUT, WIDTH
from studies.plan import Plan
from studies.study import Study, axis, product
from taghead.recipes import recipe


def finish(results: Results, plan: Plan, tops: dict[str, tuple[float, ...]]) -> None:
    """Finishes rows with given Top-1 by seed, in percent; MCA is one point lower."""
    for row, values in tops.items():
        for seed, value in zip(plan.seeds, values, strict=False):
            results.finish(plan, row, seed=seed, metrics={"top1": value / 100, "mca": (value - 1) / 100})


@pytest.fixture
def alpha(results: Results) -> Plan:
    plan = results.plan(ALPHA)
    finish(results, plan, {row: (80 + index, 81 + index, 82 + index) for index, row in enumerate(plan.rows)})
    return plan


def test_the_swept_field_is_found_with_its_values_in_order(results: Results, alpha: Plan) -> None:
    top1 = sweep_data(results.root, alpha).query("metric == 'top1'")
    assert top1["field"].unique().tolist() == ["head.alpha"]
    assert top1["x"].tolist() == [0.0, 0.05, 0.1, 0.2, 0.5, 1.0]
    assert top1["line"].unique().tolist() == [""]
    assert top1.loc[top1["base"], "row"].tolist() == ["alpha 0.1"]


def test_a_value_is_the_mean_over_seeds_with_its_interval_and_its_runs(results: Results, alpha: Plan) -> None:
    one = sweep_data(results.root, alpha).query("metric == 'top1' and x == 0.1").iloc[0]
    assert (one["mean"], one["sd"], one["n"]) == (pytest.approx(83), pytest.approx(1), 3)
    assert one["runs"] == pytest.approx((82, 83, 84))
    assert one["high"] - one["mean"] == pytest.approx(4.302653 / math.sqrt(3))


def test_rows_that_are_swept_downwards_are_drawn_upwards(results: Results) -> None:
    data = sweep_data(results.root, results.plan(FFN_WIDTH))
    assert data.query("metric == 'top1'")["x"].tolist() == [256, 512, 1024, 2048]


def test_published_values_stand_only_beside_the_clips_that_they_are_of(results: Results) -> None:
    theirs = sweep_data(results.root, results.plan(FFN_WIDTH, gym99=recipe("gym99"), haa500=recipe("synthetic")))
    known = published.values(2)
    gym99 = theirs.query("dataset == 'gym99' and metric == 'mca'")
    assert gym99["published"].tolist() == [known[row, "gym99", "mca"] for row in gym99["row"]]
    assert theirs.query("dataset == 'haa500'")["published"].isna().all()


def test_no_projection_is_as_wide_as_the_backbones_channels(results: Results) -> None:
    data = sweep_data(results.root, results.plan(WIDTH, haa500=recipe("haa500")))
    assert data.query("metric == 'top1'").set_index("row")["x"].to_dict() == {
        "width 64": 64, "width 128": 128, "width 256": 256, "width C": 512
    }  # fmt: skip


@pytest.mark.parametrize("study", [COMPONENTS, LEAVE_ONE_OUT, CONTROLS, GRAPH], ids=lambda study: study.name)
def test_a_study_that_sweeps_no_number_or_too_much_has_no_curve(results: Results, study: Study) -> None:
    data = sweep_data(results.root, results.plan(study))
    assert data.empty
    assert data.columns.tolist() == list(COLUMNS)
    assert sweep_notes(data) == []


def test_seeds_of_random_graphs_are_no_quantity(results: Results) -> None:
    rows = axis("head.rewiring", (0, 1, 2))
    assert sweep_data(results.root, results.plan(Study(name="r", title="r", rows=rows, datasets=two()))).empty


def two() -> dict[str, object]:
    return {"synthetic": recipe("synthetic")}


def crossed(results: Results, *axes: dict[str, dict[str, object]]) -> Plan:
    return results.plan(Study(name="cross", title="Crossed", rows=product(*axes), datasets=two()))


def test_a_product_has_one_line_for_each_value_of_the_other_field(results: Results) -> None:
    plan = crossed(results, axis("head.readout", ("mean", "max")), axis("head.ffn_dim", (64, 128, 256)))
    top1 = sweep_data(results.root, plan).query("metric == 'top1'")
    assert {line: part["x"].tolist() for line, part in top1.groupby("line")} == {
        "readout mean": [64, 128, 256], "readout max": [64, 128, 256]
    }  # fmt: skip


def test_of_two_numbers_the_one_with_more_values_is_the_axis(results: Results) -> None:
    plan = crossed(results, axis("head.alpha", (0.1, 0.2, 0.5)), axis("head.ffn_dim", (32, 64, 128, 256)))
    data = sweep_data(results.root, plan)
    assert data["field"].unique().tolist() == ["head.ffn_dim"]
    assert data["line"].unique().tolist() == ["alpha 0.1", "alpha 0.2", "alpha 0.5"]


def test_fields_that_change_together_make_one_line_by_the_words_of_their_rows(results: Results) -> None:
    plan = crossed(results, GRAPHS, axis("head.alpha", (0.05, 0.1, 0.2)))
    assert sweep_data(results.root, plan)["line"].unique().tolist() == list(GRAPHS)


def test_a_row_off_the_line_is_not_drawn(results: Results) -> None:
    rows = {"B": {"model.head": "linear"}, **axis("head.alpha", (0.1, 0.2, 0.5))}
    data = sweep_data(results.root, results.plan(Study(name="off", title="o", rows=rows, datasets=two())))
    assert "B" not in set(data["row"]) and data["row"].nunique() == 3


def test_the_range_is_told_beside_what_seeds_alone_would_give(results: Results, alpha: Plan) -> None:
    (said,) = sweep_notes(sweep_data(results.root, alpha))
    assert "Top-1 goes from 81.0 % at 0 to 86.0 % at 1, a range of 5.0 points over 6 values of head.alpha" in said
    assert "3 seeds at one value have a standard deviation of 1.0 points" in said
    assert said.endswith("would pass 2.7 points in one study of twenty, and this one is wider than that.")


def test_a_range_that_seeds_alone_would_give_is_called_no_wider(results: Results) -> None:
    plan = results.plan(ALPHA)
    finish(results, plan, {row: (80, 82, 84 + index / 10) for index, row in enumerate(plan.rows)})
    assert sweep_notes(sweep_data(results.root, plan))[0].endswith("and this one is no wider than that.")


def test_the_range_of_equal_values_is_tukeys() -> None:
    # three means of four runs: q(0.95; 3, 9) = 3.949 in printed tables
    sd, limit = noise_range([2.0, 2.0, 2.0], [4, 4, 4])
    assert sd == pytest.approx(2.0)
    assert limit == pytest.approx(3.949 * 2 / 2, abs=2e-3)


def test_runs_that_do_not_differ_leave_no_range_to_chance() -> None:
    assert noise_range([0.0, 0.0], [2, 2]) == (0.0, 0.0)


def test_one_seed_has_no_spread_to_judge_by(results: Results) -> None:
    plan = results.plan(ALPHA, seeds=(0,))
    finish(results, plan, {row: (80 + index,) for index, row in enumerate(plan.rows)})
    data = sweep_data(results.root, plan)
    assert data["sd"].isna().all()
    assert "one run a value has no spread, so that this range cannot be judged." in sweep_notes(data)[0]
    assert to_bytes(draw_sweep(data, dataset="synthetic", synthetic=True), "png")


def test_values_without_a_run_stay_visible(results: Results) -> None:
    plan = results.plan(K_PROP)
    finish(results, plan, {"k_prop 0": (80, 81, 82), "k_prop 2": (81, 82)})
    data = sweep_data(results.root, plan)
    assert data.query("metric == 'top1'")["n"].tolist() == [3, 0, 2, 0, 0, 0]
    assert sweep_notes(data)[-1] == "On synthetic, without a complete run: k_prop 1, k_prop 5, k_prop 10, k_prop 20."
    crosses = [line for line in draw_sweep(data, dataset="synthetic", synthetic=True).axes[0].lines
               if line.get_label() == "no complete run"]  # fmt: skip
    assert [list(line.get_xdata()) for line in crosses] == [pytest.approx([1, 5, 10, 20])]


def test_nothing_run_has_no_figure(results: Results) -> None:
    assert list(sweep_figures(results.root, results.plan(ALPHA))) == []


@pytest.mark.parametrize(
    ("study", "scale"), [(ALPHA, "linear"), (K_PROP, "symlog"), (FFN_WIDTH, "log")], ids=["alpha", "k_prop", "ffn"]
)
def test_widths_have_a_logarithmic_axis_and_shares_a_straight_one(results: Results, study: Study, scale: str) -> None:
    plan = results.plan(study)
    finish(results, plan, dict.fromkeys(plan.rows, (80.0, 81.0, 82.0)))
    ((stem, figure, _, _),) = sweep_figures(results.root, plan)
    assert stem == f"{study.name}_synthetic_sweep"
    axis_ = figure.axes[0]
    assert axis_.get_xscale() == scale
    marks = axis_.xaxis.get_transform().transform(axis_.get_xticks())
    labelled = [mark for mark, text in zip(marks, axis_.get_xticklabels(), strict=True) if text.get_text()]
    assert all(right - left > (marks[-1] - marks[0]) / 15 for left, right in pairwise(labelled))


def test_the_same_store_gives_the_same_bytes(results: Results, alpha: Plan) -> None:
    first, second = (
        [to_bytes(figure, "png") for _, figure, _, _ in sweep_figures(results.root, alpha)] for _ in range(2)
    )
    assert first == second and len(first) == 1


def test_a_damaged_record_costs_its_value_only(results: Results, alpha: Plan) -> None:
    path = Path(results.root / "trials" / alpha.cell("alpha 0.2", "synthetic").trials[1] / "record.json")
    path.write_text("{", encoding="utf-8")
    top1 = sweep_data(results.root, alpha).query("metric == 'top1'").set_index("x")
    assert top1["n"].to_dict() == {0.0: 3, 0.05: 3, 0.1: 3, 0.2: 2, 0.5: 3, 1.0: 3}
