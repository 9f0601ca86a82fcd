"""A study in sentences."""

from stored import Results

from analysis import cells, findings
from analysis.tables import study_data
from studies.catalog import COMPONENTS, GRAPH
from studies.plan import Plan


def told(results: Results, plan: Plan) -> tuple[str, str]:
    frame = cells.join(results.root, plan)
    data = study_data(results.root, plan, frame)
    return "\n".join(findings.found(plan, data, frame)), "\n".join(findings.limits(plan, data, frame))


def scores(results: Results, plan: Plan, row: str, *values: float) -> None:
    for seed, value in enumerate(values):
        results.finish(plan, row, seed=seed, metrics={"top1": value / 100, "mca": 0.0})


def test_the_best_row_is_told_with_its_interval_and_chance(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    scores(results, plan, "B", 50, 52, 54)
    scores(results, plan, "Full", 79, 80, 81)
    found, _ = told(results, plan)
    assert "Full has the highest Top-1, 80.0 % ± 1.0 over 3 seeds (95 % interval 77.5 to 82.5 %)" in found
    assert "; chance is 25.0 %." in found


def test_a_single_row_is_not_called_the_highest(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    scores(results, plan, "Full", 79, 80, 81)
    assert "On synthetic, Top-1 of Full is 80.0 %" in told(results, plan)[0]


def test_rows_that_share_the_highest_score_are_all_named(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    scores(results, plan, "B + TE", 79, 80, 81)
    scores(results, plan, "Full", 79, 80, 81)
    assert "B + TE and Full share the highest Top-1" in told(results, plan)[0]


def test_the_number_of_test_clips_limits_what_is_said(results: Results, components: Plan) -> None:
    limits = told(results, components)[1]
    assert "one test clip of 24 is 4.2 points" in limits
    assert "Wilson" in limits


def test_a_clear_difference_and_an_unclear_one_are_told_apart(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    scores(results, plan, "B", 50, 52, 54)
    scores(results, plan, "B + TE", 70, 72, 75)
    scores(results, plan, "Full", 40, 60, 56)
    found, _ = told(results, plan)
    assert "Top-1 is higher than that of B for B + TE (+20.3 points): p < 0.05 in the paired test" in found
    assert "do not tell Full (0.0 points) from B" in found


def test_a_row_that_is_the_base_bit_by_bit_is_neither_told_from_it_nor_not(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    for row in ("B", "B + TE"):
        for seed in plan.seeds:
            results.finish(plan, row, seed=seed, stream=0)
    assert "do not tell" not in told(results, plan)[0] and "than that of B" not in told(results, plan)[0]


def test_a_difference_that_does_not_vary_is_neither_clear_nor_unclear(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    scores(results, plan, "B", 50, 52, 54)
    scores(results, plan, "Full", 53, 55, 57)
    found, limits = told(results, plan)
    assert "each seed gives the same difference in Top-1 to B for Full (+3.0 points)" in found
    assert "than that of B" not in found and "do not tell" not in found
    assert "intervals of differences" not in limits


def test_the_best_row_has_no_interval_where_its_seeds_agree(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    scores(results, plan, "Full", 80, 80, 80)
    assert "80.0 % in each of 3 seeds, so that there is no interval; chance" in told(results, plan)[0]


def test_the_seeds_behind_the_intervals_are_a_range_where_rows_differ(results: Results) -> None:
    plan = results.plan(COMPONENTS, seeds=range(5))
    scores(results, plan, "B", 50, 52, 54, 51, 53)
    scores(results, plan, "B + TE", 52, 53, 57, 52, 56)
    scores(results, plan, "Full", 50, 59)
    assert "with 2 to 5 seeds, the 95 % intervals" in told(results, plan)[1]


def test_rows_of_one_seed_are_named_where_others_have_more(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    scores(results, plan, "B", 50, 52, 54)
    scores(results, plan, "Full", 60)
    limits = told(results, plan)[1]
    assert "one seed a row has no spread" not in limits
    assert "the difference to B cannot be judged over the one seed in common for Full." in limits
    scores(results, plan, "B + TE", 52, 53, 57)
    limits = told(results, plan)[1]
    assert "with 3 seeds, the 95 % intervals" in limits and "one seed in common for Full." in limits


def test_a_trial_of_several_rows_counts_once(results: Results) -> None:
    plan = results.plan(GRAPH, seeds=[0])
    trials = findings.progress(cells.join(results.root, plan))["trials"]
    assert trials < len(plan.cells)
    assert f"0 of {trials} trials are complete ({trials} pending)" in told(results, plan)[1]


def test_nothing_is_found_where_nothing_is_complete(results: Results) -> None:
    found, limits = told(results, results.plan(COMPONENTS))
    assert found == ""
    assert "0 of 15 trials are complete (15 pending)" in limits


def test_one_seed_judges_no_difference(results: Results) -> None:
    plan = results.plan(COMPONENTS, seeds=[0])
    scores(results, plan, "B", 50)
    scores(results, plan, "Full", 60)
    found, limits = told(results, plan)
    assert "than that of B" not in found
    assert "one seed a row has no spread" in limits


def test_generated_clips_say_nothing_of_real_ones(results: Results, components: Plan) -> None:
    assert "nothing here says how a row would do on real clips" in told(results, components)[1]
