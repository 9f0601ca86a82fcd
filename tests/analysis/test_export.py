"""One file of all trials."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from stored import Results

from analysis.cells import COLUMNS
from analysis.export import export, export_data
from studies.catalog import COMPONENTS, STAGES
from studies.plan import Plan
from studies.study import Study
from taghead.errors import InputError
from taghead.recipes import recipe


def study(**rows: dict[str, object]) -> Study:
    return replace(COMPONENTS, name="own", rows=rows, base_row=None, table=None)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_file_holds_every_number_of_every_study(results: Results, components: Plan, suffix: str) -> None:
    stages = results.plan(STAGES)
    out = results.root / "deep" / f"trials{suffix}"
    frame = export(results.root, [components, stages], out)
    read = pd.read_csv(out) if suffix == ".csv" else pd.read_parquet(out)
    assert len(read) == 2 * 3 * (len(components.rows) + len(stages.rows))  # metrics, seeds, rows
    assert list(read.columns) == list(frame.columns)
    assert list(read["study"].unique()) == ["components", "stages"]
    pd.testing.assert_series_equal(read["value"], frame["value"])
    # two of the stages are rows of the components, too
    assert frame["trial_id"].nunique() == 3 * (len(components.rows) + len(stages.rows) - 2)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_same_store_gives_the_same_file(results: Results, components: Plan, suffix: str) -> None:
    first, again = results.root / f"first{suffix}", results.root / f"again{suffix}"
    for out in (first, again):
        export(results.root, [components], out)
    assert first.read_bytes() == again.read_bytes()


def test_config_fields_that_vary_are_columns_of_their_type_and_no_others_are(results: Results) -> None:
    rows = {
        "a": {"head.alpha": 0.0, "head.edges": ("intra_frame",), "head.width": 16, "head.norm_first": False},
        "b": {"head.alpha": 0.5, "head.edges": ()},
        "c": {},
    }
    frame = export_data(results.root, [results.plan(study(**rows), seeds=[0])])
    assert list(frame.columns) == ["study", *COLUMNS, "head.width", "head.norm_first", "head.edges", "head.alpha"]
    of_row = frame.drop_duplicates("row").set_index("row")
    assert of_row["head.alpha"].tolist() == [0.0, 0.5, recipe("synthetic").head.alpha]
    assert of_row["head.edges"].tolist() == ["intra_frame", "", "intra_frame,time_aligned"]
    assert of_row.loc["a", "head.width"] == 16
    assert not of_row.loc["a", "head.norm_first"]


def test_a_field_that_differs_between_studies_alone_is_a_column(results: Results) -> None:
    one = results.plan(study(a={"head.alpha": 0.2}), seeds=[0])
    other = results.plan(replace(study(a={"head.alpha": 0.3}), name="other"), seeds=[0])
    assert "head.alpha" not in export_data(results.root, [one])
    assert export_data(results.root, [one, other])["head.alpha"].unique().tolist() == [0.2, 0.3]


def test_what_is_missing_has_its_row_and_no_value(results: Results) -> None:
    plan = results.plan(COMPONENTS, seeds=[0])
    results.finish(plan, "B", seed=0)
    (results.root / "trials" / plan.cell("Full", "synthetic").trials[0]).mkdir(parents=True)
    out = results.root / "trials.parquet"
    export(results.root, [plan], out)
    by_row = pd.read_parquet(out).drop_duplicates("row").set_index("row")
    assert by_row["status"].to_dict()["B + TE"] == "pending"
    assert by_row["value"].notna().sum() == 1


def test_columns_have_one_type_whatever_is_there(results: Results) -> None:
    plan = results.plan(COMPONENTS, seeds=[0])
    empty = export_data(results.root, [plan]).dtypes
    results.finish(plan, "B", seed=0)
    results.finish(plan, "Full", seed=0, status="diverged", error="nan", metrics={})
    assert export_data(results.root, [plan]).dtypes.equals(empty)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("trials.parqet", "the suffix must be .csv or .parquet, but got '.parqet'"),
        ("trials", "must be .csv or .parquet, but got ''"),
        ("a.csv", "a folder"),
    ],
)
def test_a_place_where_no_file_can_be_is_refused(results: Results, tmp_path: Path, name: str, part: str) -> None:
    (tmp_path / "a.csv").mkdir()
    plan = results.plan(COMPONENTS, seeds=[0])
    with pytest.raises(InputError, match=part):
        export(results.root, [plan], tmp_path / name)
