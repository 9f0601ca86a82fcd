"""What the graph does to the prediction."""

import numpy as np
import pytest
import torch

from analysis.frame_weights import (
    DRAWN_QUERY,
    GRAPHS,
    ROUNDING,
    contrasts,
    deviations,
    draw_contrast,
    draw_frame_weights,
    extremes,
    frame_weights_data,
    frame_weights_table,
    readout_data,
    readout_table,
    statements,
)
from taghead.errors import InputError
from taghead.graph import frame_operators, frame_weights, retained_contrast


def at(graph: str, *, alpha: float = 0.1, k_prop: int = 10, grid: tuple[int, int] = (4, 49)) -> np.ndarray:
    data = frame_weights_data(grid, alphas=[alpha], steps=[k_prop])
    return data.loc[data["graph"] == graph, "weight"].to_numpy()


def test_intra_frame_edges_alone_weight_all_frames_alike_exactly() -> None:
    data = frame_weights_data((8, 16))
    assert (data.loc[data["graph"] == "IF-FC", "weight"] == 1).all()


def test_the_full_graph_is_within_a_thousandth_of_plain_averaging() -> None:
    assert at("IF-FC + TAT, union") == pytest.approx([0.9990, 1.0010, 1.0010, 0.9990], abs=5e-5)


def test_time_aligned_edges_alone_move_the_end_frames_by_a_tenth() -> None:
    assert at("TAT") == pytest.approx([0.903, 1.079, 1.079, 0.903], abs=5e-4)


def test_weights_are_symmetric_in_time_and_the_teleport_alone_is_plain_averaging() -> None:
    data = frame_weights_data((5, 4))
    for _, group in data.groupby(["graph", "alpha", "k_prop"]):
        assert group["weight"].to_numpy() == pytest.approx(group["weight"].to_numpy()[::-1], abs=1e-9)
    assert (data.loc[data["alpha"] == 1, "weight"] == 1).all()


def test_contrast_left_is_alpha_with_intra_frame_edges_and_up_to_all_of_it_without() -> None:
    data = extremes(frame_weights_data()).query("k_prop == 10 and alpha == 0.1").set_index("graph")
    left = data[["contrast_least", "contrast"]]
    assert left.loc["IF-FC"].tolist() == pytest.approx([10.0, 10.0], abs=1e-9)
    assert left.loc["IF-FC + TAT, union"].tolist() == pytest.approx([9.7, 10.3], abs=0.05)
    assert left.loc["TAT"].tolist() == pytest.approx([8.3, 100.0], abs=0.05)


@pytest.mark.parametrize("grid", [(1, 4), (4, 9), (5, 1)])
def test_contrasts_of_all_settings_at_once_are_the_singular_values_one_by_one(grid: tuple[int, int]) -> None:
    alphas, steps = (0.0, 0.1, 1.0), (0, 1, 2, 10)
    found = contrasts(grid, alphas=alphas, steps=steps)
    for graph, (edges, combination) in enumerate(GRAPHS.values()):
        for i, alpha in enumerate(alphas):
            for j, k_prop in enumerate(steps):
                options = {"alpha": alpha, "k_prop": k_prop, "edges": edges, "edge_combination": combination}
                s0 = frame_operators(grid, **options)[1]  # type: ignore[arg-type]
                assert found[graph, i, j] == pytest.approx(np.linalg.svd(s0.numpy())[1][::-1], abs=1e-12)
                most = retained_contrast(grid, **options)  # type: ignore[arg-type]
                assert found[graph, i, j, -1] == pytest.approx(most, abs=1e-12)


def test_the_statements_hold_the_numbers() -> None:
    text = " ".join(statements())
    assert "by more than 0.10 %" in text
    assert "by up to 9.7 %" in text
    assert "exactly 1 at every alpha and K" in text


def test_the_statements_follow_the_grid() -> None:
    assert "by more than 1.48 %" in " ".join(statements((4, 9)))


def test_the_table_has_every_graph_and_stays_narrow_for_many_frames() -> None:
    table = frame_weights_table((32, 49))
    assert all(any(row[0].startswith(graph) for row in table.rows) for graph in GRAPHS)
    assert all(len(row[3]) < 60 for row in table.rows)


def test_the_table_holds_contrast_at_least_and_at_most() -> None:
    table = frame_weights_table((4, 9))
    assert table.header[-2:] == ("contrast left at least, %", "contrast left at most, %")
    left = {row[0]: row[-2:] for row in table.rows if row[1:3] == ("0.1", "10")}
    assert left["IF-FC"] == ("10.0", "10.0")
    assert left["IF-FC + TAT, union"] == ("8.8", "11.6")
    assert left["TAT"] == ("8.3", "100.0")


def test_one_time_step_has_its_weight_of_one_under_every_graph() -> None:
    assert {row[3] for row in frame_weights_table((1, 4)).rows} == {"1.0000"}


def test_every_graph_is_drawn_in_both_figures() -> None:
    data = frame_weights_data()
    for figure in (draw_frame_weights(data), draw_contrast(data)):
        assert [len(axis.lines) for axis in figure.axes] == [len(GRAPHS)] * 2


@pytest.mark.parametrize("grid", [(1, 4), (4, 49), (7, 9)])
def test_weights_of_all_settings_at_once_are_those_one_by_one(grid: tuple[int, int]) -> None:
    alphas, steps = (0.0, 0.1, 0.35, 1.0), (0, 1, 2, 10, 100)
    found = deviations(grid, alphas=alphas, steps=steps)
    for graph, (edges, combination) in enumerate(GRAPHS.values()):
        for i, alpha in enumerate(alphas):
            for j, k_prop in enumerate(steps):
                options = {"alpha": alpha, "k_prop": k_prop, "edges": edges, "edge_combination": combination}
                one = grid[0] * frame_weights(grid, **options).numpy() - 1  # type: ignore[arg-type]
                assert found[graph, i, j] == pytest.approx(one, abs=2e-12)


def test_steps_may_come_in_any_order_and_twice() -> None:
    found = deviations((4, 9), alphas=[0.2], steps=[5, 2, 5])
    assert (found[:, :, 0] == found[:, :, 2]).all()
    assert (found[:, :, 1] == deviations((4, 9), alphas=[0.2], steps=[2])[:, :, 0]).all()


def test_graphs_weight_frames_by_half_as_many_numbers_as_frames() -> None:
    for time, free in ((4, 2), (5, 3), (8, 4)):
        moved = deviations((time, 9), alphas=np.linspace(0, 1, 11), steps=range(1, 20)).reshape(-1, time)
        assert np.linalg.matrix_rank(moved, tol=1e-9) == free


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="0 <= alpha <= 1"):
        deviations((4, 9), alphas=[1.5], steps=[1])
    with pytest.raises(InputError, match="whole number"):
        deviations((4, 9), alphas=[0.5], steps=[-1])


def test_only_readouts_that_are_not_linear_see_intra_frame_edges() -> None:
    change = readout_data((4, 9)).set_index(["readout", "graph"])["change"]
    assert change["mean", "IF-FC"] == 0
    assert change["attention", "IF-FC"] < ROUNDING  # its query starts at zero
    assert all(change[readout, "IF-FC"] > 1 for readout in ("norm_mean", "max", DRAWN_QUERY))
    assert all(change[readout, "TAT"] > 1 for readout in ("mean", "norm_mean", "max", "attention", DRAWN_QUERY))


def test_the_demonstration_says_that_nothing_is_trained_and_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    table = readout_table((4, 9))
    assert torch.equal(before, torch.get_rng_state())
    assert "random initial weights" in table.notes[0]
    assert table.rows[0][:2] == ("mean", "0")
    assert "reach: norm_mean; max; attention, query drawn" in table.notes[1]


def test_the_paper_words_on_contrast_are_held_against_the_numbers() -> None:
    text = " ".join(statements())
    assert "none sharpens the differences within a frame; with alpha below 1 they leave 0 to 95 %" in text
    # of block: the mean of alpha and alpha / (1 - (1 - alpha) a), where a = -0.229 is the lowest eigenvalue of A0
    assert "After 100 steps the least that is left is 9.1 % at alpha 0.1 and 0.0 % at alpha 0" in text


def test_what_is_left_is_told_as_a_range_wherever_it_depends_on_the_pattern() -> None:
    text = " ".join(statements((4, 9)))
    assert "intra-frame edges alone leave 10.0 %, the full graph 8.8 to 11.6 % and time-aligned edges alone" in text
    assert "time-aligned edges alone 8.3 to 100.0 % (at alpha 0.1, K 10)" in text


def test_the_figure_of_contrast_says_at_most_and_has_a_band_down_to_the_least() -> None:
    left, right = draw_contrast(frame_weights_data((4, 9))).axes
    assert left.get_ylabel() == "contrast left at most, %"
    for axis in (left, right):
        assert len(axis.collections) == len(GRAPHS)
        tat = axis.collections[1].get_paths()[0].vertices
        assert tat[:, 1].min() < 10 and tat[:, 1].max() == pytest.approx(100)
