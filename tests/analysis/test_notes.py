"""The sentences beside a table."""

from stored import Results, data_facts

from analysis import cells
from analysis.notes import compare_rows, notes, same_function, sentence
from analysis.tables import study_data
from studies.catalog import COMPONENTS, FFN_WIDTH, GRAPH
from studies.plan import Plan
from taghead.config import Config, evolve
from taghead.recipes import recipe

FULL = Config()
IF_FC = evolve(FULL, {"head.edges": ("intra_frame",)})
NO_EDGES = evolve(FULL, {"head.edges": ()})


def said(results: Results, plan: Plan) -> str:
    frame = cells.join(results.root, plan)
    return "\n".join(notes(results.root, plan, frame, study_data(results.root, plan, frame)))


def test_intra_frame_edges_alone_are_the_function_without_edges() -> None:
    assert same_function(IF_FC, NO_EDGES)
    assert same_function(evolve(IF_FC, {"head.alpha": 0.5, "head.k_prop": 3}), NO_EDGES)


def test_the_full_graph_is_another_function() -> None:
    assert not same_function(FULL, NO_EDGES)


def test_a_readout_that_is_not_linear_sees_the_graph() -> None:
    assert not same_function(evolve(IF_FC, {"head.readout": "max"}), evolve(NO_EDGES, {"head.readout": "max"}))


def test_configs_that_differ_beside_the_graph_are_not_one_function() -> None:
    assert not same_function(IF_FC, evolve(NO_EDGES, {"head.ffn_dim": 512}))


def test_rows_with_the_same_bits_are_told_in_words(results: Results, components: Plan) -> None:
    found = [comparison for comparison in compare_rows(results.root, components) if comparison.identical]
    assert [comparison.rows for comparison in found] == [("B + TE", "B + TE + IF-FC")]
    text = said(results, components)
    assert "B + TE and B + TE + IF-FC: identical predictions and logits, bit for bit, in all 3 seeds" in text
    assert "the equations make them the same function" in text


def test_differences_are_said_to_be_rounded_after_subtraction(results: Results, components: Plan) -> None:
    assert "in percentage points, rounded after subtraction, with its 95 % t-interval" in said(results, components)
    assert "does not vary" not in said(results, components)


def test_a_difference_that_does_not_vary_is_explained(results: Results) -> None:
    plan = results.plan(COMPONENTS, seeds=[0, 1])
    for row, top1 in {"B": 0.5, "Full": 0.6}.items():
        for seed in plan.seeds:
            results.finish(plan, row, seed=seed, metrics={"top1": top1, "mca": top1})
    assert "A difference that does not vary over these seeds has no interval and no test" in said(results, plan)


def test_one_changed_bit_is_a_difference_that_is_told(results: Results) -> None:
    plan = results.plan(COMPONENTS, seeds=[0])
    for row, stream in (("B + TE", 1), ("B + TE + IF-FC", 2)):
        results.finish(plan, row, seed=0, stream=stream)
    (found,) = compare_rows(results.root, plan)
    assert found.derived
    assert not found.identical
    assert "yet on synthetic their logits differ in seed 0" in sentence(found)


def test_rows_with_the_same_bits_for_no_known_reason_are_not_explained_away(results: Results) -> None:
    plan = results.plan(COMPONENTS, seeds=[0])
    for row in ("B", "Full"):
        results.finish(plan, row, seed=0, stream=1)
    text = next(line for line in said(results, plan).splitlines() if "bit for bit" in line)
    assert text.startswith("B and Full: identical")
    assert "equations" not in text


def test_equal_experiments_under_one_id_are_told_as_one(results: Results) -> None:
    text = said(results, results.plan(GRAPH, seeds=[0]))
    (line,) = (line for line in text.splitlines() if "are one experiment" in line and "readout max" in line)
    assert line.count("no edges") == 6
    assert line.endswith("are one experiment on synthetic, trained once: they differ in nothing that is read.")


def test_several_commits_are_counted_not_listed(results: Results, components: Plan) -> None:
    assert "commit" not in said(results, components)
    plan = results.plan(COMPONENTS, seeds=[0, 1, 2, 3])
    results.finish(plan, "B", seed=3, commit="ba9876543210+")
    text = said(results, plan)
    assert "Trained at 2 commits of the code, 1 of 16 trials with uncommitted changes." in text


def test_metrics_that_never_differ_are_no_mistake(results: Results) -> None:
    plan = results.plan(COMPONENTS, seeds=[0])
    results.finish(plan, "B", seed=0, metrics={"top1": 0.5, "mca": 0.5})
    assert "Top-1 and MCA are equal in every trial" in said(results, plan)
    results.finish(plan, "Full", seed=0, metrics={"top1": 0.5, "mca": 0.4})
    assert "are equal" not in said(results, plan)


def test_test_clips_classes_and_chance_are_stated(results: Results) -> None:
    plan = results.plan(COMPONENTS, seeds=[0])
    facts = {"test_classes": 3, "test_missing": 1, "test_unreadable": 2}
    lost = {"unreadable": {"a": "cut", "d": "cut", "e": "cut"}, "missing": ("b", "c")}
    results.finish(plan, "B", seed=0, data=data_facts(**lost, **facts))
    text = said(results, plan)
    assert "synthetic: 24 test clips of 3 of 4 classes (chance 25.0 %), 96 training clips" in text
    assert "2 clips of the split lists are not there and were left out, 1 of them test clips" in text
    assert "3 of those that are there do not decode (2 test clips, which count as wrong;" in text
    assert "MCA is the mean over the 3 classes that have test clips" in text


def test_records_of_before_the_classes_were_counted_say_no_more_than_they_know(results: Results) -> None:
    plan = results.plan(COMPONENTS, seeds=[0])
    results.finish(plan, "B", seed=0)
    text = said(results, plan)
    assert "synthetic: 24 test clips of 4 classes (chance 25.0 %), 96 training clips." in text
    assert "MCA is the mean over" not in text


def test_settings_that_differ_from_the_paper_make_published_values_an_orientation(results: Results) -> None:
    base = evolve(recipe("haa500"), {"train.epochs": 2})
    assert "train.epochs=2 (paper recipe: 80)" in said(results, results.plan(FFN_WIDTH, haa500=base))
    assert "orientation" not in said(results, results.plan(FFN_WIDTH, haa500=recipe("haa500")))


def test_a_failure_is_told_with_its_reason(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    results.finish(plan, "Full", seed=1, status="diverged", epoch=4, error="the loss became nan", metrics={})
    assert "Full, synthetic, seed 1" in said(results, plan)
    assert "diverged at epoch 4: the loss became nan." in said(results, plan)


def test_damaged_predictions_are_named_and_the_other_trials_compared(results: Results, components: Plan) -> None:
    trial = components.cell("B + TE", "synthetic").trials[1]
    (results.root / "trials" / trial / "predictions.npz").write_bytes(b"PK cut")
    text = said(results, components)
    assert f"B + TE, synthetic, seed 1 (trial {trial}): predictions.npz cannot be read (" in text
    assert "B + TE and B + TE + IF-FC: identical predictions and logits, bit for bit, in both seeds" in text
