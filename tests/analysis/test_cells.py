"""Plan left-joined to records."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stored import Results, data_facts

from analysis import cells
from studies.catalog import COMPONENTS
from studies.claim import release, take
from studies.plan import Plan
from studies.store import Store
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


def test_a_record_is_read_once_until_it_changes(
    results: Results, components: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    read = Store.read
    monkeypatch.setattr(Store, "read", lambda store, trial: reads.append(trial) or read(store, trial))
    cells.join(results.root, components)
    first = cells.join(results.root, components)
    assert sorted(reads) == sorted(components.trial_ids())
    shutil.rmtree(results.root / "trials" / components.cell("B", "synthetic").trials[0])
    results.finish(components, "B", seed=0, metrics={"top1": 0.125, "mca": 0.125})
    assert cells.join(results.root, components)["value"].tolist() == [12.5, 12.5, *first["value"].tolist()[2:]]
    assert len(reads) == len(components.trial_ids()) + 1


def test_clips_that_were_not_used_are_told_with_their_reason(results: Results, components: Plan) -> None:
    shutil.rmtree(results.root / "trials" / components.cell("B", "synthetic").trials[0])
    results.finish(components, "B", seed=0, data=data_facts(unreadable={"a": "no frame decodes"}, missing=("b",)))
    assert cells.unused_clips(results.root, components) == {
        ("synthetic", "a"): "does not decode: no frame decodes",
        ("synthetic", "b"): "is not there",
    }


def test_cells_hold_the_rows_of_the_frame_once_and_in_order(results: Results, components: Plan) -> None:
    frame = cells.join(results.root, components)
    groups = cells.by_cell(frame)
    for (key, trials), (expected, part) in zip(
        groups.items(), frame.groupby(["row", "dataset", "metric"], sort=False), strict=True
    ):
        assert key == expected
        for name in ("seed", "value", "trial_id", "clips"):
            assert [getattr(one, name) for one in trials] == part[name].tolist()


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


def saved(**arrays: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    return content.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(3, 2),
        np.asfortranarray(np.arange(6.0).reshape(3, 2)),
        np.array(["a", "clip", "ü"]),
        np.arange(3, dtype=">i8"),
        np.zeros((0, 4)),
    ],
    ids=["rows", "columns", "texts", "other byte order", "empty"],
)
def test_arrays_come_back_as_numpy_reads_them(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(saved(x=array))
    (found,) = cells.read_arrays(path, ("x",))
    with np.load(path) as stored:
        np.testing.assert_array_equal(found, stored["x"])
        assert found.dtype == stored["x"].dtype
    assert found.flags.writeable


def changed(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_a_changed_or_missing_byte_is_never_read_as_another_number(tmp_path: Path) -> None:
    path, array = tmp_path / "predictions.npz", np.arange(4, dtype=np.float32)
    whole = saved(x=array)
    for damaged in [*(changed(whole, place) for place in range(len(whole))), *(whole[:n] for n in range(len(whole)))]:
        path.write_bytes(damaged)
        try:
            (found,) = cells.read_arrays(path, ("x",))
        except InputError as error:
            assert str(error).startswith("predictions.npz cannot be read (")
        else:  # a byte that nothing depends on, as the date of a member
            np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    "content", [b"", b"no archive", saved(y=np.zeros(3)), saved(x=np.array([None, {}], dtype=object))]
)
def test_a_file_without_the_arrays_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "predictions.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"predictions\.npz cannot be read \("):
        cells.read_arrays(path, ("x",))


def test_arrays_of_different_lengths_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    path.write_bytes(saved(x=np.zeros(3), y=np.zeros(2)))
    with pytest.raises(InputError, match="differ in length"):
        cells.read_arrays(path, ("x", "y"))
