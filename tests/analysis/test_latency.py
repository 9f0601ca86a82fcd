"""Speed as measured, beside accuracy."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from stored import Results

from analysis.latency import (
    BARE,
    FILE,
    accuracy_data,
    accuracy_figures,
    command,
    latency_data,
    latency_figures,
    latency_tables,
    notes,
    read,
)
from studies.catalog import COMPONENTS
from studies.plan import Plan
from taghead.config import parse_overrides
from taghead.errors import InputError
from taghead.recipes import recipe
from taghead.speed import Part, Setting, Speed, Subject, add, subject_of, subjects

SETTING = Setting(device="cpu (Abacus, 2 cores)", threads=2, torch="2.0")
STEADY = (1.0, 1.01, 0.99, 1.0, 1.02)


def speed_of(
    wanted: list[Subject], *, times: float = 1.5, setting: Setting = SETTING, memory: int | None = None
) -> Speed:
    """Each bare backbone takes about a second, and so many times as much with its head."""
    return Speed(
        parts=tuple(
            Part(
                subject=one,
                setting=setting,
                seconds=tuple(value * (1 if one.head is None else times) for value in STEADY),
                peak_memory_bytes=memory,
            )
            for one in wanted
        )
    )


def test_a_ratio_is_to_the_bare_backbone_of_the_same_batch() -> None:
    data = latency_data(speed_of(subjects(["x3d_m", "r3d_18"])))
    assert data["ratio"].dropna().tolist() == pytest.approx([1.5] * 4)
    assert data.loc[data["head"] == BARE, "ratio"].isna().all()
    assert data.loc[data["batch"] == 8, "clips_per_second"].tolist() == pytest.approx([8, 8 / 1.5] * 2)


def test_nothing_is_compared_across_settings() -> None:
    bare, head = subjects(["x3d_m"], batch_sizes=[1])
    other = SETTING.model_copy(update={"threads": 1})
    speed = Speed(parts=(*speed_of([bare]).parts, *speed_of([head], setting=other).parts))
    assert latency_data(speed)["ratio"].isna().all()
    assert ["2 threads" in table.title for table in latency_tables(speed)] == [True, False]


def test_the_median_and_the_95th_percentile_are_those_of_the_turns() -> None:
    (row,) = latency_data(speed_of(subjects(["x3d_m"], batch_sizes=[1])[:1])).itertuples()
    assert row.median_ms == 1000.0
    assert row.p95_ms == pytest.approx(1000 * np.percentile(STEADY, 95))
    assert row.low_ms < row.median_ms < row.high_ms


def test_a_part_without_numbers_says_why() -> None:
    speed = Speed(parts=(Part(subject=subjects(["x3d_m"])[0], setting=SETTING, error="does not fit"),))
    ((*_, cells, _),) = [(*table.rows, table) for table in latency_tables(speed)]
    assert cells == ("x3d_m", "32 x 112", "1", "does not fit", "-", "-", "-", "-")
    assert list(latency_figures(speed)) == []


def test_ratios_that_the_turns_cannot_tell_are_named() -> None:
    wanted = subjects(["x3d_m"], batch_sizes=[1])
    assert not any("vary too much" in said for said in notes(latency_data(speed_of(wanted, times=1.5))))
    (said,) = [said for said in notes(latency_data(speed_of(wanted, times=1.001))) if "vary too much" in said]
    assert said.startswith("In 1 of 1 ratios") and said.endswith("x3d_m at batch 1.")


def test_few_turns_and_unknown_memory_are_said() -> None:
    wanted = subjects(["x3d_m"], batch_sizes=[1])
    said = notes(latency_data(speed_of(wanted)))
    assert any("of 5 turns" in one for one in said)
    assert any("Peak memory: not to be had" in one for one in said)
    assert any("growth of a fresh process" in one for one in notes(latency_data(speed_of(wanted, memory=1))))


def test_a_head_that_seems_to_save_time_is_drift() -> None:
    wanted = subjects(["x3d_m"], batch_sizes=[1])
    assert any("drift" in said for said in notes(latency_data(speed_of(wanted, times=0.7))))
    assert not any("drift" in said for said in notes(latency_data(speed_of(wanted, times=1.7))))


def test_a_busy_machine_is_said() -> None:
    speed = speed_of(subjects(["x3d_m"], batch_sizes=[1]))
    assert not any("busy" in said for said in notes(latency_data(speed)))
    loads = [part.model_copy(update={"load": load}) for part, load in zip(speed.parts, (2.5, 9.25), strict=True)]
    (said,) = [one for one in notes(latency_data(Speed(parts=tuple(loads)))) if "busy" in one]
    assert "before 1 of 2 measurements (load up to 9.2, with 2 threads of ours)" in said


def test_a_bar_a_backbone_bare_and_with_head() -> None:
    ((name, _, figure),) = latency_figures(speed_of(subjects(["x3d_m", "r3d_18"])))
    assert name == "latency_1"
    widths = [[bar.get_width() for bar in axis.patches if bar.get_width()] for axis in figure.axes]
    assert widths == [pytest.approx([1000, 1500] * 2)] * 2


def test_where_no_default_head_was_measured_another_one_is_drawn() -> None:
    wide = subjects(["x3d_m"], batch_sizes=[1], overrides={"head.ffn_dim": 256})
    ((_, rows, figure),) = latency_figures(speed_of(wide))
    assert len(rows) == 2 and figure.get_suptitle().endswith(", head.ffn_dim=256")
    both = speed_of([*wide, *subjects(["x3d_m"], batch_sizes=[1])[1:]])
    ((_, rows, figure),) = latency_figures(both)
    assert rows["changes"].tolist() == ["", ""] and figure.get_suptitle().endswith("float32")


def measured(plan: Plan) -> list[Subject]:
    return [subject_of(cell.config) for cell in plan.cells]


def test_accuracy_stands_over_the_latency_of_the_very_model(results: Results, components: Plan) -> None:
    data, missing = accuracy_data(results.root, components, speed_of(measured(components)))
    assert missing == []
    times = data[data["metric"] == "top1"].set_index("row")["median_ms"]
    assert times["B"] == 1000 and times["Full"] == 1500
    ((name, points, figure, said),) = accuracy_figures(data, components)
    assert name == "components_synthetic_latency_1" and len(points) == 5
    assert said.startswith("Pareto front")
    assert figure.get_suptitle().startswith("SYNTHETIC")


def test_what_was_not_measured_is_the_command_that_measures_it(results: Results, components: Plan) -> None:
    data, missing = accuracy_data(results.root, components, speed_of(measured(components)[:1]))
    assert set(data["row"]) == {"B"} and list(accuracy_figures(data, components)) == []
    assert missing[0] == (
        f"The latency of B + TE was not measured: taghead speed --out {results.root / FILE} --backbones "
        "r2plus1d_narrow --frames 16 --size 48 --batch 1 --set head.ffn_dim=256 --set head.edges=none."
    )
    nothing, missing = accuracy_data(results.root, components, None)
    assert nothing.empty and len(missing) == 5


def test_the_command_measures_the_subject_that_was_missing(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    for subject in measured(plan):
        words = command(subject, results=results.root).split()
        overrides = parse_overrides(word for before, word in pairwise(words) if before == "--set")
        assert subject in subjects(
            ["r2plus1d_narrow"], num_frames=16, crop_size=48, batch_sizes=[1], overrides=overrides
        )


def test_rows_that_do_equal_work_share_one_measurement(results: Results) -> None:
    alphas = replace(COMPONENTS, rows={"low": {"head.alpha": 0.1}, "high": {"head.alpha": 0.5}}, base_row="low")
    plan = results.plan(alphas, synthetic=recipe("synthetic"))
    for row in plan.rows:
        results.finish(plan, row, seed=0)
    _, missing = accuracy_data(results.root, plan, None)
    assert len(missing) == 1 and "The latency of low, high was" in missing[0]


def test_a_study_that_has_not_run_has_no_points(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    data, missing = accuracy_data(results.root, plan, speed_of(measured(plan)))
    assert data.empty and missing == [] and list(accuracy_figures(data, plan)) == []


def test_a_results_folder_may_hold_no_speeds_or_damaged_ones(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    add(tmp_path / FILE, speed_of(subjects(["x3d_m"])).parts[0])
    found = read(tmp_path)
    assert found is not None and len(found.parts) == 1
    (tmp_path / FILE).write_text("{")
    with pytest.raises(InputError, match=r"speed\.json: not a file of speeds .*; remove it and measure again"):
        read(tmp_path)
