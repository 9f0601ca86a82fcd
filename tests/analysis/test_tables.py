"""A study's table: numbers, differences, published values, and what is missing."""

import pytest
from stored import Results, data_facts

from analysis.formats import MINUS
from analysis.tables import signed, study_table
from studies.catalog import ALPHA, COMPONENTS, FFN_WIDTH
from studies.plan import Plan, read_plan
from taghead.config import evolve
from taghead.recipes import recipe


def scores(results: Results, plan: Plan, row: str, values: dict[int, float]) -> None:
    for seed, value in values.items():
        results.finish(plan, row, seed=seed, metrics={"top1": value / 100, "mca": value / 100})


def line(results: Results, plan: Plan, row: str) -> tuple[str, ...]:
    return next(cells for cells in study_table(results.root, plan).rows if cells[0] == row)


def test_a_cell_shows_mean_spread_and_n(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    scores(results, plan, "B", {0: 50, 1: 52, 2: 54})
    assert line(results, plan, "B")[1] == "52.0 ± 2.0 (3)"


def test_one_seed_shows_no_spread(results: Results) -> None:
    plan = results.plan(COMPONENTS, seeds=[0])
    scores(results, plan, "B", {0: 50})
    assert line(results, plan, "B")[1] == "50.0 (1)"


def test_what_is_missing_is_said_in_its_cell(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    scores(results, plan, "B", {0: 50})
    results.finish(plan, "Full", seed=1, status="diverged", epoch=4, metrics={})
    results.finish(plan, "Full", seed=2, status="failed", error="ValueError: no", metrics={})
    assert line(results, plan, "B")[1] == "50.0 (1); pending 2/3"
    assert line(results, plan, "B + TE")[1] == "pending 3/3"
    results.finish(plan, "B + TE + TAT", seed=0, data=data_facts(test_missing=2, test_unreadable=1))
    assert line(results, plan, "B + TE + TAT")[1].endswith(
        "pending 2/3, 2 test clips not there, 1 test clip not readable"
    )
    assert line(results, plan, "Full")[1] == "pending 1/3, diverged at epoch 4 (1/3), failed 1/3"


def test_an_empty_study_has_its_whole_table(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    assert [cells[0] for cells in study_table(results.root, plan).rows] == list(plan.rows)


def test_published_values_stand_beside_measured_ones(results: Results) -> None:
    plan = results.plan(FFN_WIDTH, seeds=[0, 1], haa500=recipe("haa500"))
    for seed, value in ((0, 0.85), (1, 0.86)):
        results.finish(plan, "FFN 512", seed=seed, metrics={"top1": value, "mca": value}, data=data_facts("haa500"))
    assert line(results, plan, "FFN 512")[3] == f"86.1 ({signed(-0.6)})"
    # the paper prints no MCA there: a column of dashes would say nothing
    assert study_table(results.root, plan).header.count("published (Δ)") == 1
    assert line(results, plan, "FFN 2048")[3] == "84.9"


def test_a_published_value_is_marked_where_one_more_run_would_hardly_fall(results: Results) -> None:
    plan = results.plan(FFN_WIDTH, seeds=[0, 1, 2], haa500=recipe("haa500"))
    for row, values in {"FFN 512": (0.80, 0.86, 0.92), "FFN 256": (0.80, 0.81, 0.80), "FFN 2048": (0.849,)}.items():
        for seed, value in enumerate(values):
            results.finish(plan, row, seed=seed, metrics={"top1": value, "mca": value}, data=data_facts("haa500"))
    table = study_table(results.root, plan)
    assert line(results, plan, "FFN 512")[3] == "86.1 (-0.1)".replace("-", MINUS)
    assert line(results, plan, "FFN 256")[3] == f"85.6 ({signed(-5.3)}) ‡"
    assert line(results, plan, "FFN 2048")[3] == "84.9 (0.0)"  # one run: no interval, no mark
    assert any(note.startswith("‡: ") and note.endswith("so do 1 of 2.") for note in table.notes)


def published_in(results: Results, *values: float) -> str:
    """What stands in the published column of FFN 2048, which the paper has at 84.9, for these scores."""
    plan = results.plan(FFN_WIDTH, seeds=range(len(values)), haa500=recipe("haa500"))
    for seed, value in enumerate(values):
        scores = {"top1": value / 100, "mca": value / 100}
        results.finish(plan, "FFN 2048", seed=seed, metrics=scores, data=data_facts("haa500"))
    return line(results, plan, "FFN 2048")[3]


def test_runs_that_do_not_vary_set_no_published_value_outside(results: Results) -> None:
    assert published_in(results, 84.8667, 84.8667) == "84.9 (0.0)"


def test_no_note_counts_runs_that_do_not_vary(results: Results) -> None:
    published_in(results, 80, 80)
    table = study_table(results.root, read_plan(results.root, FFN_WIDTH.name))
    assert not any("lies outside" in note for note in table.notes)


@pytest.mark.parametrize(
    ("values", "outside"),
    [((84.865, 84.866, 84.865), False), ((84.845, 84.846, 84.845), True), ((84.96, 84.961, 84.96), True)],
)
def test_a_published_value_is_outside_only_beyond_its_own_rounding(
    results: Results, values: tuple[float, ...], outside: bool
) -> None:
    assert published_in(results, *values).endswith(" ‡") == outside


def test_the_caption_names_the_epoch_that_scores_are_of(results: Results, components: Plan) -> None:
    assert ", scores of the last epoch" in study_table(results.root, components).caption
    base = evolve(recipe("synthetic"), {"train.selection": "best_val"})
    plan = results.plan(COMPONENTS, synthetic=base)
    assert "of the epoch that was best on the validation split" in study_table(results.root, plan).caption


def test_generated_clips_are_stamped_and_never_compared_to_the_paper(results: Results, components: Plan) -> None:
    table = study_table(results.root, components)
    assert table.synthetic
    assert not any("published" in head for head in table.header)
    assert table.data["published"].isna().all()
    assert any("the paper ran nothing on generated clips" in note for note in table.notes)


def test_a_study_of_ours_has_no_published_column(results: Results) -> None:
    table = study_table(results.root, results.plan(ALPHA))
    assert not any("published" in head for head in table.header)


def test_rows_are_as_long_as_the_header(results: Results, components: Plan) -> None:
    table = study_table(results.root, components)
    assert {len(row) for row in table.rows} == {len(table.header)}


@pytest.mark.parametrize(
    ("value", "text"), [(1.25, "+1.2"), (-0.04, "0.0"), (0.0, "0.0"), (-3.0, "\N{MINUS SIGN}3.0"), (10.0, "+10.0")]
)
def test_a_sign_is_shown_where_something_is_left_after_rounding(value: float, text: str) -> None:
    assert signed(value) == text


def test_other_clips_under_a_published_label_are_never_compared_to_the_paper(results: Results) -> None:
    base = evolve(recipe("haa500"), {"data.dataset": "table"})
    table = study_table(results.root, results.plan(FFN_WIDTH, seeds=[0], haa500=base))
    assert table.data["published"].isna().all()
    assert not any("published" in head for head in table.header)
    assert "haa500: no published values beside clips of the data set table." in table.notes
    assert not any("Published values: Table" in note for note in table.notes)
