"""Where numbers come from, and how to make them again."""

import shlex
from dataclasses import replace

from stored import Results, data_facts

from analysis import cells
from analysis.provenance import MOST_CLIPS, clips_table, failures_table, provenance_table, run_command
from studies.catalog import COMPONENTS
from studies.plan import Plan
from taghead.config import evolve, parse_overrides
from taghead.recipes import recipe


def test_trials_are_counted_by_what_they_ran_on(results: Results, components: Plan) -> None:
    table = provenance_table(cells.join(results.root, components), name="provenance")
    assert table.data["trials"].tolist() == [15]
    assert table.data["minutes"].tolist() == [15.0]


def test_a_trial_without_a_commit_is_counted_too(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    results.finish(plan, "B", seed=0, commit=None)
    assert "unknown" in provenance_table(cells.join(results.root, plan), name="provenance").rows[0]


def test_failures_are_listed_with_their_reason(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    assert failures_table(cells.join(results.root, plan).assign(study="components"), name="failures") is None
    results.finish(plan, "B", seed=0, status="failed", error="ValueError: no", metrics={}, attempt=2)
    table = failures_table(cells.join(results.root, plan).assign(study="components"), name="failures")
    assert table is not None
    assert "ValueError: no" in table.rows[0]
    assert len(table.rows) == 1


def test_clips_that_were_not_used_are_named_once_with_their_reason(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    assert clips_table(results.root, [plan], name="clips") is None
    missing = tuple(f"gone_{number:03d}" for number in range(MOST_CLIPS))
    facts = data_facts("synthetic").model_copy(update={"unreadable": {"cut": "no frame"}, "missing": missing})
    for row in ("B", "Full"):
        results.finish(plan, row, seed=0, data=facts)
    table = clips_table(results.root, [plan, plan], name="clips")
    assert table is not None
    assert table.rows[0] == ("synthetic", "cut", "does not decode: no frame")
    assert len(table.rows) == MOST_CLIPS
    assert len(table.data) == MOST_CLIPS + 1
    assert table.notes[-1] == f"The first {MOST_CLIPS} of {MOST_CLIPS + 1}."


def test_the_command_makes_the_same_plan(results: Results) -> None:
    base = evolve(
        recipe("synthetic"), {"train.epochs": 3, "train.lr": 1e-5, "head.width": 64, "data.mean": (0.1, 0.2, 0.3)}
    )
    plan = results.plan(replace(COMPONENTS, keep=(*COMPONENTS.keep, "embeddings")), seeds=[0, 2], synthetic=base)
    words = shlex.split(run_command(plan, results.root))
    assert words[:3] == ["taghead-studies", "run", "components"]
    assert words[words.index("--seeds") + 1] == "0,2"
    kept = [words[place + 1] for place, word in enumerate(words) if word == "--keep"]
    assert (*COMPONENTS.keep, *kept) == plan.keep
    settings = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    assert evolve(recipe("synthetic"), parse_overrides(settings)) == base


def test_the_command_names_the_recipe_it_started_from(results: Results) -> None:
    plan = results.plan(COMPONENTS, haa500=recipe("haa500", name="released"))
    words = shlex.split(run_command(plan, results.root))
    assert words[words.index("--recipe") + 1] == "released"
    assert "--set" not in words


def test_the_command_names_the_data_set_that_stands_in_for_a_column(results: Results) -> None:
    base = evolve(recipe("haa500"), {"data.dataset": "table", "train.epochs": 3})
    words = shlex.split(run_command(results.plan(COMPONENTS, haa500=base), results.root))
    assert words[words.index("--dataset") + 1] == "haa500"
    settings = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    assert "data.dataset=table" in settings
    assert evolve(recipe("haa500"), parse_overrides(settings)) == base


def test_a_study_that_the_catalog_lacks_has_a_sentence_instead_of_a_command(results: Results) -> None:
    plan = results.plan(replace(COMPONENTS, name="mine"))
    assert run_command(plan, results.root).startswith("# mine: a study of your own file")


def test_clips_that_do_not_decode_are_said_to_be_of_all_splits(results: Results, components: Plan) -> None:
    table = provenance_table(cells.join(results.root, components), name="provenance")
    assert "unreadable, missing: clips of all splits." in table.notes
