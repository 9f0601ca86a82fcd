from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from taghead.errors import InputError
from taghead.graph import EDGES, INTRA_FRAME, TIME_ALIGNED, adjacency, frame_weights, propagate, propagated_mean
from taghead.rewiring import propagate_rewired, rewired, rewired_mean, rewired_weights

PAPER: dict[str, Any] = {"grid": (4, 49), "alpha": 0.1, "k_prop": 10}  # R(2+1)D-34 at 32 frames of 112 x 112
EDGE_SETS = ((INTRA_FRAME,), (TIME_ALIGNED,), EDGES)
COMBINATIONS = ("union", "block")

grids = st.tuples(st.integers(3, 6), st.integers(2, 9))


def random_tokens(grid: tuple[int, int], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, *grid, 3, dtype=dtype, generator=torch.Generator().manual_seed(0))


def joined(matrix: np.ndarray) -> np.ndarray:
    return (matrix > 0) & ~np.eye(len(matrix), dtype=bool)


def in_loops(
    tokens: Tensor, *, alpha: float, k_prop: int, edges: tuple, rewiring: int, edge_combination: str = "union"
) -> Tensor:
    """Eq. 2 on the control graph, from its list of neighbours, node by node."""
    if edge_combination == "block" and len(edges) == 2:
        apart = [in_loops(tokens, alpha=alpha, k_prop=k_prop, edges=(kind,), rewiring=rewiring) for kind in edges]
        return (apart[0] + apart[1]) / 2
    grid = tokens.shape[1], tokens.shape[2]
    neighbours = [[*np.flatnonzero(row), node] for node, row in enumerate(joined(rewired(grid, edges, rewiring)))]
    h = h0 = tokens.flatten(1, 2)
    for _ in range(k_prop):
        spread = [
            torch.stack([h[:, j] / (len(mine) * len(neighbours[j])) ** 0.5 for j in mine]).sum(dim=0)
            for mine in neighbours
        ]
        h = (1 - alpha) * torch.stack(spread, dim=1) + alpha * h0
    return h.view_as(tokens)


# The graph


@given(grid=grids, edges=st.sampled_from(EDGE_SETS), rewiring=st.integers(0, 2**32))
@settings(max_examples=40)
def test_every_node_keeps_its_degree_and_its_self_loop_and_edges_go_both_ways(
    grid: tuple, edges: tuple, rewiring: int
) -> None:
    ours, token_graph = rewired(grid, edges, rewiring), adjacency(grid, edges=edges).numpy()
    assert np.array_equal(ours, ours.T)
    assert np.array_equal(joined(ours).sum(axis=1), joined(token_graph).sum(axis=1))
    assert np.allclose(np.diag(ours), np.diag(token_graph), rtol=1e-15, atol=0)
    degree = 1 + joined(ours).sum(axis=1)
    assert np.allclose(ours[joined(ours)], (1 / np.sqrt(np.outer(degree, degree)))[joined(ours)], rtol=1e-15, atol=0)


@pytest.mark.parametrize("edges", EDGE_SETS)
def test_no_more_edges_stay_where_they_were_than_chance_leaves(edges: tuple) -> None:
    token_graph = joined(adjacency((4, 16), edges=edges).numpy())
    frames = np.arange(64) // 16
    graphs = [joined(rewired((4, 16), edges, rewiring)) for rewiring in range(30)]
    stayed = np.mean([(graph & token_graph).sum() / token_graph.sum() for graph in graphs])
    assert stayed < 1.5 * token_graph.sum() / (64 * 63)
    within = np.mean([graph[frames[:, None] == frames].sum() / graph.sum() for graph in graphs])
    assert within == pytest.approx(15 / 63, abs=0.05), "an edge leads to any frame"


def test_a_seed_is_one_graph_and_another_seed_another_on_every_machine() -> None:
    first = rewired((3, 4), EDGES, 0)
    rewired.cache_clear()
    assert np.array_equal(rewired((3, 4), EDGES, 0), first)
    assert not np.array_equal(rewired((3, 4), EDGES, 1), first)
    # another graph would give stored trials another graph under their old ids
    row = joined(first)[0]
    assert np.flatnonzero(row).tolist() == [1, 4, 8, 9]


def test_the_graph_that_is_kept_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        rewired((3, 4), EDGES, 0)[0, 0] = 1


# What propagation does on it


@given(
    grid=grids, edges=st.sampled_from(EDGE_SETS), combination=st.sampled_from(COMBINATIONS), alpha=st.floats(0, 1),
    k_prop=st.integers(0, 4),
)  # fmt: skip
@settings(max_examples=20)
def test_propagation_and_its_mean_are_those_of_the_definition(
    grid: tuple, edges: tuple, combination: str, alpha: float, k_prop: int
) -> None:
    setting: dict[str, Any] = {"alpha": alpha, "k_prop": k_prop, "edges": edges, "edge_combination": combination}
    tokens = random_tokens(grid)
    expected = in_loops(tokens, rewiring=3, **setting)
    assert torch.allclose(propagate_rewired(tokens, rewiring=3, **setting), expected, rtol=0, atol=1e-12)
    pooled = rewired_mean(tokens, rewiring=3, **setting)
    assert torch.allclose(pooled, expected.mean(dim=(1, 2)), rtol=0, atol=1e-12)
    weights = rewired_weights(grid, rewiring=3, **setting)
    assert torch.allclose(pooled, torch.einsum("n,bnc->bc", weights, tokens.flatten(1, 2)), rtol=0, atol=1e-14)
    assert weights.sum().item() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("combination", COMBINATIONS)
@pytest.mark.parametrize("function", [propagate_rewired, rewired_mean])
def test_gradients_are_those_of_finite_differences(function: Any, combination: str) -> None:
    setting: dict[str, Any] = {"alpha": 0.3, "k_prop": 3, "rewiring": 0, "edge_combination": combination}
    tokens = random_tokens((3, 2)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: function(x, **setting), tokens)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_shape_and_type_are_those_of_the_tokens(dtype: torch.dtype) -> None:
    tokens, setting = random_tokens((4, 9), dtype), {"alpha": 0.1, "k_prop": 3, "rewiring": 0}
    out, pooled = propagate_rewired(tokens, **setting), rewired_mean(tokens, **setting)
    assert (out.shape, out.dtype, pooled.shape, pooled.dtype) == (tokens.shape, dtype, (2, 3), dtype)
    assert propagate_rewired(tokens.to("meta"), **setting).shape == tokens.shape
    assert rewired_mean(tokens[:0], **setting).shape == (0, 3)


@pytest.mark.parametrize("function", [propagate_rewired, rewired_mean])
def test_autocast_does_not_round_the_operators(function: Any) -> None:
    tokens, setting = random_tokens((4, 9), torch.float32), {"alpha": 0.1, "k_prop": 10, "rewiring": 0}
    outside = function(tokens, **setting)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(function(tokens, **setting), outside)


@pytest.mark.parametrize("setting", [{"alpha": 0.2, "k_prop": 0}, {"alpha": 1.0, "k_prop": 7}])
def test_without_steps_or_at_alpha_one_tokens_stay_as_they_are(setting: dict[str, Any]) -> None:
    tokens = random_tokens((4, 9))
    assert torch.equal(propagate_rewired(tokens, rewiring=0, **setting), tokens)
    assert rewired_weights((4, 9), rewiring=0, **setting).tolist() == [1 / 36] * 36


def test_many_steps_at_alpha_zero_weigh_tokens_by_the_roots_of_their_degrees() -> None:
    root = torch.tensor([9.0 + 1] * 9 + [9.0 + 2] * 18 + [9.0 + 1] * 9, dtype=torch.float64).sqrt()
    limit = root * root.sum() / (root**2).sum() / 36
    assert torch.allclose(rewired_weights((4, 9), alpha=0.0, k_prop=300, rewiring=0), limit, rtol=0, atol=1e-12)


# What it does under the mean readout


@given(grid=grids, alpha=st.floats(0, 1), k_prop=st.integers(0, 100), rewiring=st.integers(0, 100))
@settings(max_examples=30)
def test_under_the_mean_readout_rewired_intra_frame_edges_do_nothing_either_to_the_bit(
    grid: tuple, alpha: float, k_prop: int, rewiring: int
) -> None:
    setting: dict[str, Any] = {"alpha": alpha, "k_prop": k_prop, "edges": (INTRA_FRAME,)}
    nodes = grid[0] * grid[1]
    assert rewired_weights(grid, rewiring=rewiring, **setting).tolist() == [1 / nodes] * nodes
    tokens = random_tokens(grid, torch.float32)
    assert torch.equal(rewired_mean(tokens, rewiring=rewiring, **setting), propagated_mean(tokens, **setting))


@pytest.mark.parametrize(
    ("edges", "control", "token_graph"), [(EDGES, (0.40, 0.65), 0.10), ((TIME_ALIGNED,), (11.0, 12.0), 9.71)]
)
def test_a_random_graph_moves_the_weights_further_from_plain_averaging_than_the_token_graph(
    edges: tuple, control: tuple, token_graph: float
) -> None:
    """In percent: half of one for the full graph's control, a tenth of one for the full graph."""
    assert 100 * (4 * frame_weights(**PAPER, edges=edges) - 1).abs().max().item() == pytest.approx(
        token_graph, abs=0.01
    )
    for rewiring in range(3):
        weights = 196 * rewired_weights(**PAPER, edges=edges, rewiring=rewiring)
        assert control[0] < 100 * (weights - 1).abs().max().item() < control[1]


def test_within_a_frame_the_random_graph_mixes_what_the_token_graph_keeps_apart() -> None:
    tokens = torch.zeros(1, 4, 9, 1, dtype=torch.float64)
    tokens[0, 0, 0, 0] = 1.0
    ours, theirs = (
        function(tokens, alpha=0.1, k_prop=1, **options)
        for function, options in ((propagate_rewired, {"rewiring": 0}), (propagate, {}))
    )
    assert (theirs[0, 2:] == 0).all()
    assert (ours[0, 2:] != 0).any()


def test_edges_are_dropped_for_each_clip_and_the_expected_result_stays() -> None:
    torch.manual_seed(0)
    setting: dict[str, Any] = {"alpha": 0.1, "k_prop": 3, "rewiring": 0}
    tokens = random_tokens((3, 2))[:1]
    draws = propagate_rewired(tokens.expand(20_000, -1, -1, -1), **setting, edge_dropout=0.3)
    error = draws.std(dim=0) / len(draws) ** 0.5
    assert draws.std(dim=0).min() > 0.05
    assert ((draws.mean(dim=0) - propagate_rewired(tokens, **setting)[0]).abs() < 5 * error).all()


# Refusals


@pytest.mark.parametrize(
    ("grid", "edges"), [((1, 9), EDGES), ((1, 9), (INTRA_FRAME,)), ((4, 9), ()), ((2, 1), (TIME_ALIGNED,))]
)
def test_a_graph_that_is_the_only_one_of_its_degrees_is_refused(grid: tuple, edges: tuple) -> None:
    with pytest.raises(InputError, match=r"rewiring needs another graph of the same degrees, but edges .* have none"):
        rewired_weights(grid, alpha=0.1, k_prop=2, rewiring=0, edges=edges)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rewiring": -1}, r"rewiring >= 0 must hold, but got rewiring=-1\."),
        ({"alpha": 1.5}, r"0 <= alpha <= 1 must hold, but got alpha=1\.5\."),
        ({"edges": ("intra_frames",)}, "did you mean 'intra_frame'?"),
    ],
)
@pytest.mark.parametrize("function", [propagate_rewired, rewired_mean])
def test_what_breaks_a_rule_is_refused_by_rule_and_value(function: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        function(random_tokens((3, 3)), **({"alpha": 0.1, "k_prop": 2, "rewiring": 0} | values))
