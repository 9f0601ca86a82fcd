import csv
from importlib.resources import files

import pytest
from fakes import DATA

from studies.catalog import STUDIES, TABLE_3, find
from taghead.backbones import BACKBONES, grid_of
from taghead.config import flatten
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


def ids(name):
    configs = STUDIES[name].configs()
    on_haa500 = {row: config for (row, dataset), config in configs.items() if dataset == "haa500"}
    return {row: trial_id(config, seed=0, data=DATA, weights=None) for row, config in on_haa500.items()}


@pytest.mark.parametrize("name", ["leave_one_out", "controls"])
def test_every_row_is_an_experiment_of_its_own_and_the_full_model_is_the_papers(name):
    named = ids(name)
    assert len(set(named.values())) == len(named)
    assert STUDIES[name].base_row == "Full"
    assert named["Full"] == ids("components")["Full"]


def test_without_one_edge_kind_is_table_4s_row_with_the_other():
    ours, table_4 = ids("leave_one_out"), ids("components")
    assert ours["without IF-FC"] == table_4["B + TE + TAT"]
    assert ours["without TAT"] == table_4["B + TE + IF-FC"]
    assert ours["without propagation"] == table_4["B + TE"]


def test_each_row_goes_without_one_component_alone():
    configs = STUDIES["leave_one_out"].configs()
    full = flatten(configs.pop(("Full", "haa500")))
    changed = {row: [key for key, value in flatten(config).items() if value != full[key]]
               for (row, _), config in configs.items()}  # fmt: skip
    assert changed == {
        "without positional encoding": ["head.positional_encoding"],
        "without encoder": ["head.num_layers"],
        "without IF-FC": ["head.edges"],
        "without TAT": ["head.edges"],
        "without propagation": ["head.edges"],
    }


def test_the_graphs_controls_stand_under_both_readouts():
    rows = STUDIES["controls"].rows
    under_norm_mean = {row.removesuffix(", norm_mean") for row in rows if row.endswith("norm_mean")}
    assert under_norm_mean == {"Full", "no graph", "random graph 0", "random graph 1"} < set(rows)
    for row in under_norm_mean:
        assert rows[f"{row}, norm_mean"] == {"head.readout": "norm_mean", **rows[row]}


def test_the_controls_cost_what_full_costs_but_for_what_they_take_away():
    from taghead.complexity import parameters

    configs = STUDIES["controls"].configs()
    sizes = {row: parameters(config, num_classes=500) for (row, _), config in configs.items()}
    for row, size in sizes.items():
        layers_of_mlp = 2 if row == "MLP for attention" else 0
        norm = 2 * 512 if row.endswith("norm_mean") else 0
        assert size == sizes["Full"] - layers_of_mlp * 512 + norm


def test_the_random_graphs_are_there_on_the_studys_own_grid():
    from taghead.rewiring import rewired_weights

    config = STUDIES["controls"].configs()["random graph 0", "haa500"]
    time, height, width = grid_of(config.model.backbone, config.data.num_frames, config.data.crop_size)
    head = config.head
    weights = rewired_weights((time, height * width), alpha=head.alpha, k_prop=head.k_prop, rewiring=head.rewiring)
    assert 0.001 < float((time * height * width * weights - 1).abs().max()) < 0.01
