"""Table 5, counted."""

import pytest

from analysis import published
from analysis.complexity import (
    PAPER_CLIPS,
    backbones_data,
    backbones_table,
    component_table,
    count,
    paper_model,
    table5,
    table5_data,
    table5_notes,
)
from taghead.backbones import BACKBONES, grid_of
from taghead.complexity import COMPONENTS, HEAD
from taghead.config import Config, evolve
from taghead.recipes import recipe

SMALL = recipe("synthetic")


def part(config: Config, component: str, column: str) -> int:
    counts = count(config, num_classes=12).set_index("component")
    return int(counts.loc[component, column])


def test_the_backbone_has_the_papers_parameters_and_multiply_adds() -> None:
    counts = paper_model(2048).set_index("component")
    assert counts.loc["backbone", "parameters"] == 63_491_975
    assert counts.loc["backbone", "multiply_adds"] == pytest.approx(152.356e9, abs=0.0005e9)


@pytest.mark.parametrize(("width", "parameters"), [(512, 3_256_320), (1024, 4_305_920), (2048, 6_405_120)])
def test_the_head_has_its_parameters_at_each_width(width: int, parameters: int) -> None:
    counts = paper_model(width)
    assert counts.loc[counts["component"].isin(HEAD), "parameters"].sum() == parameters


@pytest.mark.parametrize(
    ("width", "gmac", "as_fvcore"), [(512, 153.051, 153.375), (1024, 153.257, 153.581), (2048, 153.668, 153.992)]
)
def test_the_totals_are_those_of_both_ways_to_count(width: int, gmac: float, as_fvcore: float) -> None:
    row = table5_data().set_index("ffn_dim").loc[width]
    # the published counts of the other counters leave the classifier in, and are rounded to 0.001 G
    assert row["gmac"] == pytest.approx(gmac, abs=0.0006)
    assert row["as_fvcore_g"] == pytest.approx(as_fvcore, abs=0.0006)


def test_both_printed_totals_are_reproduced_by_two_different_heads() -> None:
    data = table5_data().set_index("ffn_dim")
    printed = published.values(5)
    assert round(data.loc[2048, "total_m"], 2) == printed["TAG-Head (Ours)", "", "params_m"]
    assert round(data.loc[512, "as_fvcore_g"], 1) == printed["TAG-Head (Ours)", "", "gflops"]
    text = " ".join(table5_notes(table5_data()))
    assert 'The printed 69.90 M parameters are those of FFN 2048, the printed 153.4 "GFLOPs" those of FFN 512' in text
    assert "in two different heads" in text
    assert "153.67 G" in text
    assert "66.75 M" in text


def test_no_two_heads_are_claimed_where_the_numbers_do_not_say_so() -> None:
    data = table5_data().assign(as_fvcore_g=[1.0, 2.0, 153.4])
    assert "two different heads" not in " ".join(table5_notes(data))


def test_no_column_of_the_printed_table_stays_unmatched() -> None:
    table = table5()
    matched = {column for column in range(1, 6) for row in table.rows[:-1] if row[column] == table.rows[-1][column]}
    assert matched == {1, 2, 3, 5}  # the paper prints no true count


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_encoder_is_counted_by_the_closed_formula(norm_first: bool, dropout: float) -> None:
    n, c, ffn = 4 * 9, 128, SMALL.head.ffn_dim
    config = evolve(SMALL, {"head.norm_first": norm_first, "head.dropout": dropout})
    linear = 2 * n * (4 * c * c + 2 * c * ffn)
    attention = 2 * 2 * n * n * c
    norms = 2 * 2 * 5 * n * c
    assert part(config, "encoder", "multiply_adds") == linear + attention
    assert part(config, "encoder", "as_fvcore") == linear + norms


def test_the_graph_has_no_parameters_whatever_its_edges() -> None:
    for edges in ((), ("intra_frame",), ("time_aligned",), ("intra_frame", "time_aligned")):
        assert part(evolve(SMALL, {"head.edges": edges}), "graph", "parameters") == 0


def test_a_projection_is_a_component_of_its_own() -> None:
    assert part(SMALL, "projection", "parameters") == 0
    narrow = evolve(SMALL, {"head.width": 64})
    assert part(narrow, "projection", "parameters") == 128 * 64 + 64
    assert part(narrow, "projection", "multiply_adds") == 4 * 9 * 128 * 64


def test_a_linear_head_is_its_classifier() -> None:
    counts = count(evolve(SMALL, {"model.head": "linear"}), num_classes=12).set_index("component")
    assert counts.loc[list(HEAD)].to_numpy().sum() == 0
    assert counts.loc["classifier"].tolist() == [128 * 12 + 12, 128 * 12, 128 * 12]


def test_a_count_belongs_to_whoever_asked_for_it() -> None:
    counts = count(SMALL, num_classes=12)
    counts["parameters"] = 0
    assert part(SMALL, "backbone", "parameters") > 0


def test_twice_the_frames_cost_the_backbone_twice() -> None:
    longer = evolve(SMALL, {"data.num_frames": 2 * SMALL.data.num_frames})
    assert part(longer, "backbone", "multiply_adds") == 2 * part(SMALL, "backbone", "multiply_adds")


def test_the_table_of_components_adds_up() -> None:
    table = component_table(count(SMALL, num_classes=12), name="small", title="Small")
    numbers = [int(row[1].replace(",", "")) for row in table.rows]
    assert sum(numbers[:-1]) == numbers[-1]
    assert {row[0] for row in table.rows[:-1]} <= set(COMPONENTS)
    assert "graph" in {row[0] for row in table.rows}


def test_every_backbone_is_counted_at_the_papers_sizes() -> None:
    data = backbones_data()
    data = data[data["pixels"] == 112].set_index(["backbone", "frames"])
    assert set(BACKBONES) == set(data.index.get_level_values("backbone"))
    for name in BACKBONES:
        for frames, pixels in PAPER_CLIPS:
            row = data.loc[(name, frames)]
            assert row.grid == grid_of(name, frames, pixels)
        twice = 2 * data.loc[(name, 32), "multiply_adds"]  # X3D's squeeze-and-excitation is once a clip
        assert data.loc[(name, 64), "multiply_adds"] == pytest.approx(twice, rel=1e-3 if name == "x3d_m" else 0)


def test_the_head_on_a_backbone_has_the_size_that_its_parts_have() -> None:
    data = backbones_data()
    row = data[(data["backbone"] == "i3d_r50") & (data["frames"] == 32)].iloc[0]
    c, nodes = 2048, 16 * 4 * 4
    layer = (4 * c * c + 4 * c) + (2 * c * 512 + 512 + c) + 4 * c  # attention, feed-forward part, two norms
    assert row.head_narrow == nodes * c + 2 * layer
    assert "i3d_r50" in backbones_table().notes[-1]
    assert "r2plus1d_34" not in backbones_table().notes[-1]
