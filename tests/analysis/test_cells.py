"""Plan left-joined to records."""

import subprocess
import sys

import pytest
from stored import Results, data_facts

from analysis import cells
from studies.catalog import COMPONENTS
from studies.claim import release, take
from studies.plan import Plan
from taghead.errors import InputError


def test_every_row_seed_and_metric_of_the_plan_is_there_once(results: Results, components: Plan) -> None:
    frame = cells.read(results.root, "components")
    assert len(frame) == 5 * 3 * 2
    assert not frame.duplicated(["row", "dataset", "seed", "metric"]).any()
    assert tuple(frame) == cells.COLUMNS


def test_values_are_percent(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    results.finish(plan, "Full", seed=0, metrics={"top1": 0.5, "mca": 0.25})
    frame = cells.read(results.root, "components").query("row == 'Full' and seed == 0")
    assert dict(zip(frame["metric"], frame["value"], strict=True)) == {"top1": 50.0, "mca": 25.0}


def test_an_empty_store_is_all_pending(results: Results) -> None:
    results.plan(COMPONENTS)
    frame = cells.read(results.root, "components")
    assert set(frame["status"]) == {"pending"}
    assert frame["value"].isna().all()
    assert frame["synthetic"].all()


def test_a_claimed_trial_runs_until_its_claim_is_given_back(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    folder = results.root / "running" / plan.cell("B", "synthetic").trials[1]
    number = take(folder)
    assert number is not None
    (folder / "history.csv").write_text("epoch,loss\n1,2.0\n2,1.5\n", encoding="utf-8")

    def status() -> tuple[str, int]:
        row = cells.join(results.root, plan).query("row == 'B' and seed == 1").iloc[0]
        return row["status"], row["epoch"]

    assert status() == ("running", 2)
    release(folder, number)
    assert status() == ("pending", 2)


def test_a_diverged_trial_has_its_epoch_and_reason_and_no_value(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    results.finish(plan, "B", seed=0, status="diverged", epoch=4, error="the loss became nan", metrics={})
    row = cells.join(results.root, plan).iloc[0]
    assert (row["status"], row["epoch"], row["error"]) == ("diverged", 4, "the loss became nan")
    assert row["value"] != row["value"]


def test_a_damaged_record_is_a_failure_and_hides_nothing_else(results: Results, components: Plan) -> None:
    trial = components.cell("B", "synthetic").trials[0]
    (results.root / "trials" / trial / "record.json").write_text("{", encoding="utf-8")
    frame = cells.join(results.root, components)
    bad = frame[frame["status"] == "failed"]
    assert set(bad["trial_id"]) == {trial}
    assert "record" in bad["error"].iloc[0]
    assert (frame["status"] == "complete").sum() == 14 * 2


def test_clips_that_were_used_and_those_that_were_not_are_counted(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    facts = data_facts(unreadable={"a": "no frame decodes"}, missing=("b", "c"))
    results.finish(plan, "B", seed=0, data=facts)
    row = cells.join(results.root, plan).iloc[0]
    assert (row["clips"], row["unreadable"], row["missing"]) == (24, 1, 2)


def test_a_study_that_was_not_launched_is_refused_by_name(results: Results, components: Plan) -> None:
    with pytest.raises(InputError, match="did you mean 'components'"):
        cells.read(results.root, "component")


def test_reading_results_loads_neither_torch_nor_matplotlib() -> None:
    heavy = "[name for name in ('torch', 'matplotlib', 'ray') if name in sys.modules]"
    code = f"import sys, analysis.cells, analysis.tables; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_damaged_history_of_a_running_trial_hides_nothing_else(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    folder = results.root / "running" / plan.cell("B", "synthetic").trials[0]
    folder.mkdir(parents=True)
    (folder / "history.csv").write_bytes(b"epoch\n\xff\xfe\n")
    assert len(cells.join(results.root, plan)) == len(plan.trial_ids()) * len(plan.metrics)
