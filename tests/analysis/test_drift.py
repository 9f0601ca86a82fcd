"""Accuracy by the clips' recorded camera drift."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from stored import CLIPS, NUM_CLASSES, Results

from analysis.drift import change, draw_drift, drift_data, drift_table, read_drift, statements
from analysis.formats import MINUS, SYNTHETIC
from studies.catalog import COMPONENTS
from studies.plan import Plan, make_plan
from studies.study import Study
from taghead.data.clips import read_clips
from taghead.errors import InputError
from taghead.metrics import wilson
from taghead.recipes import recipe

IDS = [f"motion_{'abcd'[place % NUM_CLASSES]}_{place // NUM_CLASSES:03d}" for place in range(CLIPS)]
DRIFT = {
    f"motion_{name}_{number:03d}": float(4 * number + "abcd".index(name)) for name in "abcd" for number in range(24)
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root as generated clips have it, 20 clips a class, without anything in the files."""
    root = tmp_path / "data" / "synthetic"
    lines = ["clip,class,drift_pixels"]
    for name in "ab":
        (root / "video" / name).mkdir(parents=True)
        for number in range(20):
            (root / "video" / name / f"{name}_{number:03d}.mp4").write_bytes(b"x")
            lines.append(f"{name}_{number:03d},{name},{number}.5")
    (root / "synthetic.json").write_text("{}")
    (root / "clips.csv").write_text("\n".join(lines) + "\n")
    return root


def plan_on(root: Path) -> Plan:
    """The components on these very clips."""
    values = {name: getattr(COMPONENTS, name) for name in COMPONENTS.__dataclass_fields__}
    study = Study(**values | {"datasets": {"synthetic": recipe("synthetic")}})
    data = read_clips("synthetic", root).fingerprint
    return make_plan(
        study, identify=lambda _: SimpleNamespace(data=data, weights=None, synthetic=True, validation=True)
    )


def test_drift_is_read_by_clip_from_the_folder_or_the_one_above(root: Path) -> None:
    plan = plan_on(root)
    assert read_drift(root, plan, "synthetic") == read_drift(root.parent, plan, "synthetic")
    assert read_drift(root, plan, "synthetic")["b_017"] == 17.5


def test_drift_of_other_clips_is_refused(root: Path, components: Plan) -> None:
    with pytest.raises(InputError, match="holds other clips than study components ran on"):
        read_drift(root, components, "synthetic")


def test_clips_without_recorded_drift_say_what_to_write(root: Path) -> None:
    (root / "clips.csv").unlink()
    with pytest.raises(InputError, match=r"records no camera drift; write clips\.csv there with the columns clip and"):
        read_drift(root, plan_on(root), "synthetic")


@pytest.mark.parametrize(
    "text", ["clip,class\na_000,a\n", "clip,drift_pixels\na_000,far\n", "clip,drift_pixels\na,-1\n", ""]
)
def test_a_damaged_list_is_named(root: Path, text: str) -> None:
    plan = plan_on(root)
    (root / "clips.csv").write_text(text)
    with pytest.raises(InputError, match=r"clips\.csv"):
        read_drift(root, plan, "synthetic")


def test_bins_hold_equally_many_clips_and_together_the_whole_accuracy(components: Plan, results: Results) -> None:
    data, left_out = drift_data(results.root, components, dataset="synthetic", drift=DRIFT)
    assert left_out == []
    assert (data["clips"] == CLIPS / 3).all()
    for row, mine in data.groupby("row"):
        stored = []
        for trial in components.cell(str(row), "synthetic").trials.values():
            with np.load(results.root / "trials" / trial / "predictions.npz") as arrays:
                stored.append((arrays["logits"].argmax(1) == arrays["labels"]).mean())
        assert mine["accuracy"].mean() == pytest.approx(100 * np.mean(stored))
        assert (mine["low"].to_numpy()[1:] > mine["high"].to_numpy()[:-1]).all()


def write(results: Results, plan: Plan, row: str, *, seed: int, wrong_above: float) -> None:
    """A trial that is right on all clips but those that drift by more."""
    folder = results.finish(plan, row, seed=seed)
    labels = np.arange(CLIPS) % NUM_CLASSES
    drift = np.array([DRIFT[one] for one in IDS])
    logits = np.eye(NUM_CLASSES)[np.where(drift > wrong_above, (labels + 1) % NUM_CLASSES, labels)]
    np.savez(folder / "predictions.npz", ids=np.array(IDS), labels=labels, logits=logits)


def test_a_row_that_fails_on_much_drift_is_told_apart(results: Results) -> None:
    plan = results.plan(COMPONENTS, seeds=(0, 1))
    values = sorted(DRIFT[one] for one in IDS)
    for seed in plan.seeds:
        write(results, plan, "Full", seed=seed, wrong_above=values[15])
        write(results, plan, "B", seed=seed, wrong_above=values[-1])
    data, _ = drift_data(results.root, plan, dataset="synthetic", drift=DRIFT)
    assert data[data["row"] == "Full"]["accuracy"].tolist() == [100, 100, 0]
    assert data[data["row"] == "B"]["accuracy"].tolist() == [100, 100, 100]
    text = " ".join(statements(data))
    assert f"leaves out 0 for Full ({MINUS}100.0 [{MINUS}100.0, " in text
    assert f"{MINUS}100.0 (Full) to 0.0 points (B)" in text
    assert "B (" not in text.split("leaves out 0 for")[1].split(";")[0]


def binned(*counts: tuple[int, int]) -> pd.DataFrame:
    """One row whose bins have so many clips right of so many."""
    bins = []
    for number, (right, n) in enumerate(counts, start=1):
        low, high = (100 * end for end in wilson(right, n))
        ends = {"accuracy_low": low, "accuracy_high": high}
        bins.append({"row": "Full", "bin": number, "seeds": 1, "accuracy": 100 * right / n, **ends})
    return pd.DataFrame(bins)


@pytest.mark.parametrize(
    ("least", "most", "ends"),
    [((48, 80), (56, 70), (5.24, 33.39)), ((3, 10), (9, 10), (17.05, 80.90)), ((0, 10), (0, 20), (-27.75, 16.11))],
)
def test_the_interval_of_the_change_is_newcombes(
    least: tuple[int, int], most: tuple[int, int], ends: tuple[float, float]
) -> None:
    # as Newcombe (1998) prints them in Table II under method 10
    _, low, high = change(binned(least, most))
    assert (low, high) == pytest.approx(ends, abs=0.01)


def test_intervals_that_overlap_do_not_hide_a_change() -> None:
    data = binned((22, 24), (20, 24), (15, 24))  # Fisher's exact p of the outer two is 0.036
    assert data["accuracy_low"].iloc[0] < data["accuracy_high"].iloc[-1]
    text = " ".join(statements(data))
    assert f"leaves out 0 for Full ({MINUS}29.2 [{MINUS}49.9, {MINUS}5.2] points)" in text
    assert "one in 20 would" in text


def test_a_change_that_may_be_none_is_said_to_tell_nothing() -> None:
    text = " ".join(statements(binned((22, 24), (20, 24), (19, 24))))
    assert "holds 0 in the one row: these clips do not tell whether drift costs accuracy" in text


def test_the_interval_counts_clips_and_not_seeds(results: Results) -> None:
    plan = results.plan(COMPONENTS, seeds=(0, 1))
    values = sorted(DRIFT[one] for one in IDS)
    for seed, above in zip(plan.seeds, (values[3], values[-1]), strict=True):
        write(results, plan, "Full", seed=seed, wrong_above=above)
    first = drift_data(results.root, plan, dataset="synthetic", drift=DRIFT)[0].iloc[0]
    assert first.accuracy == pytest.approx(75)  # 4 of 8 clips right with one seed, 8 of 8 with the other
    assert (first.accuracy_low, first.accuracy_high) == pytest.approx([100 * end for end in wilson(6, 8)])


def test_equal_drift_is_one_bin_with_nothing_to_compare(components: Plan, results: Results) -> None:
    data, _ = drift_data(results.root, components, dataset="synthetic", drift=dict.fromkeys(DRIFT, 3.0))
    assert (data["bin"] == 1).all()
    assert "nothing to compare" in " ".join(statements(data))


def test_a_test_clip_without_drift_is_named(components: Plan, results: Results) -> None:
    with pytest.raises(InputError, match="no drift_pixels of 24 test clips"):
        drift_data(results.root, components, dataset="synthetic", drift={"other": 1.0})


def test_a_damaged_trial_is_named_and_an_empty_study_says_so(components: Plan, results: Results) -> None:
    trial = components.cell("B", "synthetic").trials[1]
    (results.root / "trials" / trial / "predictions.npz").write_bytes(b"PK")
    data, left_out = drift_data(results.root, components, dataset="synthetic", drift=DRIFT)
    assert data.set_index("row").loc["B", "seeds"].tolist() == [2, 2, 2]
    assert len(left_out) == 1 and trial in left_out[0]
    with pytest.raises(InputError, match="no finished trial yet"):
        drift_data(results.root / "elsewhere", components, dataset="synthetic", drift=DRIFT)


def test_the_table_and_the_figure_are_stamped(components: Plan, results: Results) -> None:
    data, left_out = drift_data(results.root, components, dataset="synthetic", drift=DRIFT)
    table = drift_table(components, data, left_out)
    assert SYNTHETIC in table.caption
    assert [row[0] for row in table.rows] == list(components.rows)
    assert isinstance(table.data, pd.DataFrame)
    figure = draw_drift(data, synthetic=True)
    assert figure.get_suptitle() == SYNTHETIC
    assert len(figure.axes[0].containers) == len(components.rows)
