"""What the graph does to the prediction."""

import numpy as np
import pytest

from analysis.frame_weights import (
    GRAPHS,
    draw_contrast,
    draw_frame_weights,
    extremes,
    frame_weights_data,
    frame_weights_table,
    statements,
)


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


def test_contrast_left_is_alpha_with_intra_frame_edges_and_all_of_it_without() -> None:
    data = extremes(frame_weights_data()).query("k_prop == 10 and alpha == 0.1").set_index("graph")
    assert data.loc["IF-FC", "contrast"] == pytest.approx(10.0, abs=1e-9)
    assert data.loc["IF-FC + TAT, union", "contrast"] == pytest.approx(10.3, abs=0.05)
    assert data.loc["TAT", "contrast"] == pytest.approx(100.0, abs=1e-9)


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
    assert all(len(row[1]) < 60 for row in table.rows)


def test_every_graph_is_drawn_in_both_figures() -> None:
    data = frame_weights_data()
    for figure in (draw_frame_weights(data), draw_contrast(data)):
        assert [len(axis.lines) for axis in figure.axes] == [len(GRAPHS)] * 2
