import csv
from importlib.resources import files

import pytest
from fakes import DATA

from studies.catalog import STUDIES, TABLE_3, find
from taghead.backbones import BACKBONES
from taghead.errors import InputError
from taghead.record import trial_id


def published_rows(table):
    with (files("analysis") / "published.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["table"] == str(table)]
    return {(row["row"], row["dataset"]) for row in rows if row["dataset"]}


@pytest.mark.parametrize("name", ["ffn_width", "components"])
def test_a_tables_study_has_just_the_papers_rows_and_data_sets(name):
    study = STUDIES[name]
    assert {(row, dataset) for row in study.rows for dataset in study.datasets} == published_rows(study.table)


def test_the_main_study_is_table_1s_last_row():
    study = STUDIES["main"]
    assert {(row, dataset) for row in study.rows for dataset in study.datasets} <= published_rows(1)


def test_every_study_is_listed_under_its_own_name_and_says_what_it_is():
    assert all(name == study.name and study.text and study.title for name, study in STUDIES.items())


def test_the_full_model_on_haa500_is_one_experiment_in_three_tables():
    cells = [("main", "TAG-Head"), ("components", "Full"), ("ffn_width", "FFN 512"), ("stages", "TAG")]
    configs = [STUDIES[study].configs()[row, "haa500"] for study, row in cells]
    assert len({trial_id(config, seed=0, data=DATA, weights=None) for config in configs}) == 1


def test_rows_that_only_the_equations_make_equal_are_trained_apart():
    configs = STUDIES["components"].configs()
    names = {trial_id(configs[row, "haa500"], seed=0, data=DATA, weights=None) for row in ("B + TE", "B + TE + IF-FC")}
    assert len(names) == 2


def test_a_typo_is_answered_with_the_nearest_name():
    with pytest.raises(InputError, match="no study 'compnents'; did you mean 'components'"):
        find("compnents")


def test_table_3_is_there_just_when_its_backbones_are():
    missing = [name for name in TABLE_3.values() if name not in BACKBONES]
    if not missing:
        study = find("backbones")
        assert {(row, dataset) for row in study.rows for dataset in study.datasets} == published_rows(3)
        return
    assert "backbones" not in STUDIES
    with pytest.raises(InputError, match=missing[0]):
        find("backbones")
