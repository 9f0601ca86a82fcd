"""The paper's printed numbers."""

import pytest

from analysis import published
from studies.catalog import STUDIES


def test_all_five_tables_are_there() -> None:
    assert sorted(published.read()["table"].unique()) == [1, 2, 3, 4, 5]


def test_a_value_is_found_by_row_data_set_and_metric() -> None:
    assert published.values(4)["Full", "haa500", "top1"] == 86.1
    assert published.values(2)["FFN 1024", "gym99", "mca"] == 93.8


def test_the_full_model_is_printed_alike_in_three_tables() -> None:
    same = {
        published.values(1)["TAG-Head", "haa500", "top1"],
        published.values(2)["FFN 512", "haa500", "top1"],
        published.values(4)["Full", "haa500", "top1"],
    }
    assert same == {86.1}


def test_a_study_without_a_table_has_no_published_values() -> None:
    assert published.values(None) == {}


@pytest.mark.parametrize("name", [name for name, study in STUDIES.items() if study.table])
def test_every_cell_of_a_study_of_the_paper_has_its_printed_top1(name: str) -> None:
    study = STUDIES[name]
    printed = published.values(study.table)
    assert all((row, dataset, "top1") in printed for row in study.rows for dataset in study.datasets)
