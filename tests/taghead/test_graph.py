import warnings
from collections.abc import Collection
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from taghead import graph
from taghead.errors import InputError
from taghead.graph import (
    EDGES,
    INTRA_FRAME,
    TIME_ALIGNED,
    adjacency,
    frame_operators,
    frame_weights,
    propagate,
    propagate_reference,
    propagated_mean,
    retained_contrast,
    split_edges,
)

PAPER: dict[str, Any] = {"grid": (4, 49), "alpha": 0.1, "k_prop": 10}  # R(2+1)D-34 at 32 frames of 112 x 112
COMBINATIONS = ("union", "block")

alphas = st.floats(0, 1)
sizes = st.tuples(st.integers(1, 6), st.integers(1, 9))
edge_sets = st.sampled_from([(), (INTRA_FRAME,), (TIME_ALIGNED,), EDGES])
combinations = st.sampled_from(COMBINATIONS)


def random_tokens(
    grid: tuple[int, int], dtype: torch.dtype = torch.float64, clips: int = 2, channels: int = 3
) -> Tensor:
    return torch.randn(clips, *grid, channels, dtype=dtype, generator=torch.Generator().manual_seed(0))


@cache
def appnp() -> Any:
    """PyTorch Geometric's layer. Loading it calls torch.jit.script, which torch has deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch_geometric.nn import APPNP
    return APPNP


def joined_pairs(grid: tuple[int, int], edges: Collection[str]) -> Tensor:
    """The edge list (2, E), from the words of the paper, in loops."""
    nodes = [(t, p) for t in range(grid[0]) for p in range(grid[1])]
    pairs = [
        (i, j)
        for i, (t, p) in enumerate(nodes)
        for j, (u, q) in enumerate(nodes)
        if (INTRA_FRAME in edges and t == u and p != q) or (TIME_ALIGNED in edges and p == q and abs(t - u) == 1)
    ]
    return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T


# The reference: adjacency and steps


@pytest.mark.parametrize("edges", [(), (INTRA_FRAME,), (TIME_ALIGNED,), EDGES])
def test_two_nodes_are_joined_by_the_edges_of_the_paper_and_by_self_loops_and_by_nothing_else(edges: tuple) -> None:
    matrix = adjacency((3, 4), edges=edges)
    joined = torch.eye(12, dtype=torch.bool)
    first, second = joined_pairs((3, 4), edges)
    joined[first, second] = True
    assert torch.equal(matrix > 0, joined)
    degree = joined.sum(dim=1)
    assert torch.allclose(matrix[joined], (1 / torch.outer(degree, degree).double().sqrt())[joined], rtol=1e-15, atol=0)


def test_an_inner_frame_s_node_has_degree_p_plus_2_and_an_end_frame_s_p_plus_1() -> None:
    loops = adjacency((4, 49)).diagonal().reshape(4, 49)
    assert torch.allclose(1 / loops, torch.tensor([50.0, 51, 51, 50], dtype=torch.float64)[:, None].expand(4, 49))


@given(grid=sizes, edges=edge_sets, alpha=alphas, k_prop=st.integers(0, 12))
@settings(max_examples=30)
def test_the_union_is_pytorch_geometric_s_appnp(grid: tuple, edges: tuple, alpha: float, k_prop: int) -> None:
    tokens = random_tokens(grid)
    peer = appnp()(K=k_prop, alpha=alpha)
    expected = torch.stack([peer(clip.flatten(0, 1), joined_pairs(grid, edges)) for clip in tokens]).view_as(tokens)
    for ours in (propagate, propagate_reference):
        assert torch.allclose(ours(tokens, alpha=alpha, k_prop=k_prop, edges=edges), expected, rtol=0, atol=1e-12)


def test_the_block_reading_is_the_mean_of_two_graphs_with_their_own_degrees() -> None:
    tokens = random_tokens((4, 9))
    apart = [propagate_reference(tokens, alpha=0.2, k_prop=3, edges=(kind,)) for kind in EDGES]
    block = propagate_reference(tokens, alpha=0.2, k_prop=3, edge_combination="block")
    assert torch.allclose(block, (apart[0] + apart[1]) / 2, rtol=0, atol=1e-14)
    assert not torch.allclose(block, propagate_reference(tokens, alpha=0.2, k_prop=3), atol=1e-3)


@pytest.mark.parametrize("edges", [(), (INTRA_FRAME,), (TIME_ALIGNED,)])
def test_a_block_of_fewer_than_two_kinds_is_the_union(edges: tuple) -> None:
    assert split_edges(edges, edge_combination="block") == split_edges(edges) == (edges,)


# The closed form


@given(grid=sizes, edges=edge_sets, combination=combinations, alpha=alphas, k_prop=st.integers(0, 20))
@settings(max_examples=60)
def test_the_closed_form_is_the_propagation_step_by_step(
    grid: tuple, edges: tuple, combination: str, alpha: float, k_prop: int
) -> None:
    tokens = random_tokens(grid)
    setting: dict[str, Any] = {"alpha": alpha, "k_prop": k_prop, "edges": edges, "edge_combination": combination}
    expected = propagate_reference(tokens, **setting)
    assert torch.allclose(propagate(tokens, **setting), expected, rtol=0, atol=1e-12)
    assert torch.allclose(propagated_mean(tokens, **setting), expected.mean(dim=(1, 2)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("combination", COMBINATIONS)
@pytest.mark.parametrize("function", [propagate, propagated_mean])
def test_gradients_are_those_of_finite_differences(function: Any, combination: str) -> None:
    tokens = random_tokens((3, 4)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: function(x, alpha=0.3, k_prop=4, edge_combination=combination), tokens)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_shape_and_type_are_those_of_the_tokens(dtype: torch.dtype) -> None:
    tokens = random_tokens((4, 9), dtype)
    out, pooled = propagate(tokens, alpha=0.1, k_prop=3), propagated_mean(tokens, alpha=0.1, k_prop=3)
    assert (out.shape, out.dtype, pooled.shape, pooled.dtype) == (tokens.shape, dtype, (2, 3), dtype)
    expected = propagate_reference(tokens.double(), alpha=0.1, k_prop=3)
    assert torch.allclose(out.double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=torch.finfo(torch.float32).eps)


def test_shapes_come_out_on_the_meta_device_and_for_no_clips_at_all() -> None:
    for tokens in (torch.empty(2, 4, 9, 3, device="meta"), torch.empty(0, 4, 9, 3)):
        assert propagate(tokens, alpha=0.1, k_prop=3).shape == tokens.shape
        assert propagated_mean(tokens, alpha=0.1, k_prop=3).shape == (len(tokens), 3)


def test_tokens_in_another_order_of_memory_give_the_same() -> None:
    tokens = random_tokens((4, 9))
    turned = tokens.transpose(1, 3).contiguous().transpose(1, 3)
    assert torch.allclose(propagate(turned, alpha=0.1, k_prop=3), propagate(tokens, alpha=0.1, k_prop=3), atol=1e-14)


@pytest.mark.parametrize("function", [propagate, propagated_mean, propagate_reference])
def test_autocast_does_not_round_the_operators(function: Any) -> None:
    tokens = random_tokens((4, 9), torch.float32)
    outside = function(tokens, alpha=0.1, k_prop=10)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(function(tokens, alpha=0.1, k_prop=10), outside)


def test_gradients_of_gradients_are_those_of_finite_differences() -> None:
    tokens = random_tokens((3, 2)).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: propagate(x, alpha=0.3, k_prop=4) ** 2, tokens)


class Made(TorchDispatchMode):
    """Remembers the operations that torch carries out, and the tensors that they make, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []
        self.tensors: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.operations.append(str(func))
        taken = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        made = (x for x in tree_leaves(out) if isinstance(x, Tensor))
        self.tensors += [x for x in made if x.untyped_storage().data_ptr() not in taken]
        return out

    @property
    def largest_square(self) -> int:
        """Rows of the largest square matrix, in the last two axes; 0 without one."""
        shapes = [x.shape for x in self.tensors if x.dim() >= 2 and x.shape[-1] == x.shape[-2]]
        return max((shape[-1] for shape in shapes), default=0)


def made(function: Any, tokens: Tensor, **options: Any) -> Made:
    """What the forward and the backward pass make."""
    with Made() as seen:
        out = function(tokens.requires_grad_(), alpha=0.1, **options)
        torch.autograd.grad(out, tokens, torch.ones_like(out))
    return seen


@pytest.mark.parametrize("function", [propagate, propagated_mean])
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_no_matrix_of_all_nodes_is_made_however_many_steps(function: Any, combination: str) -> None:
    tokens = random_tokens((4, 9))
    one, many = (made(function, tokens, k_prop=k_prop, edge_combination=combination) for k_prop in (1, 1000))
    assert max(one.largest_square, many.largest_square) <= 4, "T rows at the most"
    assert one.operations == many.operations


@pytest.mark.parametrize(("function", "options"), [(propagate, {"edge_dropout": 0.5}), (propagate_reference, {})])
def test_dropping_edges_and_the_reference_do_take_the_matrix_of_all_nodes(
    function: Any, options: dict[str, Any]
) -> None:
    assert made(function, random_tokens((4, 9)), k_prop=2, **options).largest_square == 36


def test_neither_the_mean_readout_nor_its_gradient_makes_a_tensor_as_large_as_the_tokens() -> None:
    tokens = random_tokens((4, 9))
    seen = made(propagated_mean, tokens, k_prop=10)
    assert max(x.untyped_storage().nbytes() for x in seen.tensors) == tokens.nbytes // 9, "one vector a frame"
    assert max(x.untyped_storage().nbytes() for x in made(propagate, tokens, k_prop=10).tensors) == tokens.nbytes


def test_intra_frame_edges_alone_leave_frame_means_and_alpha_of_the_rest() -> None:
    tokens = random_tokens((4, 9))
    means = tokens.mean(dim=2, keepdim=True)
    out = propagate(tokens, alpha=0.3, k_prop=5, edges=(INTRA_FRAME,))
    assert torch.allclose(out, means + 0.3 * (tokens - means), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "setting",
    [{"alpha": 0.2, "k_prop": 7, "edges": ()}, {"alpha": 0.2, "k_prop": 0}, {"alpha": 1.0, "k_prop": 7}],
)
def test_without_edges_or_steps_or_at_alpha_one_tokens_stay_as_they_are(setting: dict[str, Any]) -> None:
    tokens = random_tokens((4, 9))
    assert torch.equal(propagate(tokens, **setting), tokens)


# What the mean readout sees


@given(
    grid=st.tuples(st.integers(1, 32), st.integers(1, 256)), alpha=alphas, k_prop=st.integers(0, 300),
    combination=combinations,
)  # fmt: skip
@settings(max_examples=100)
def test_intra_frame_edges_never_reach_the_mean_readout(
    grid: tuple, alpha: float, k_prop: int, combination: str
) -> None:
    plain = [1 / grid[0]] * grid[0]
    for edges in ((), (INTRA_FRAME,)):
        setting: dict[str, Any] = {"alpha": alpha, "k_prop": k_prop, "edges": edges, "edge_combination": combination}
        assert frame_weights(grid, **setting).tolist() == plain


@given(
    grid=st.tuples(st.integers(1, 2), st.integers(1, 256)), alpha=alphas, k_prop=st.integers(0, 1000),
    edges=edge_sets, combination=combinations,
)  # fmt: skip
@settings(max_examples=100)
def test_no_graph_prefers_one_of_two_frames(
    grid: tuple, alpha: float, k_prop: int, edges: tuple, combination: str
) -> None:
    weights = frame_weights(grid, alpha=alpha, k_prop=k_prop, edges=edges, edge_combination=combination)
    assert weights.tolist() == [1 / grid[0]] * grid[0]


@given(
    grid=st.tuples(st.integers(1, 32), st.integers(1, 256)), edges=edge_sets, combination=combinations,
    setting=st.tuples(alphas, st.just(0)) | st.tuples(st.just(1.0), st.integers(0, 300)),
)  # fmt: skip
def test_no_graph_prefers_a_frame_without_steps_or_at_alpha_one(
    grid: tuple, edges: tuple, combination: str, setting: tuple
) -> None:
    alpha, k_prop = setting
    weights = frame_weights(grid, alpha=alpha, k_prop=k_prop, edges=edges, edge_combination=combination)
    assert weights.tolist() == [1 / grid[0]] * grid[0]


@given(time=st.integers(1, 32), alpha=alphas, k_prop=st.integers(0, 300))
@settings(max_examples=30)
def test_with_one_site_a_frame_the_full_graph_is_that_of_time_aligned_edges(
    time: int, alpha: float, k_prop: int
) -> None:
    full, aligned = (frame_weights((time, 1), alpha=alpha, k_prop=k_prop, edges=edges) for edges in (EDGES, EDGES[1:]))
    assert torch.equal(full, aligned)


@pytest.mark.parametrize(
    ("edges", "expected"),
    [(EDGES, (0.9990, 1.0010, 1.0010, 0.9990)), ((TIME_ALIGNED,), (0.903, 1.079, 1.079, 0.903))],
)
def test_the_full_graph_moves_a_frame_s_weight_by_a_thousandth_and_time_aligned_edges_by_a_tenth(
    edges: tuple, expected: tuple
) -> None:
    decimals = 4 if edges == EDGES else 3
    assert np.round(4 * frame_weights(**PAPER, edges=edges).numpy(), decimals).tolist() == list(expected)


def test_at_the_released_code_s_two_steps_the_full_graph_is_closer_still_to_plain_averaging() -> None:
    released, ten = (
        (4 * frame_weights((4, 49), alpha=0.1, k_prop=k_prop) - 1).abs().max().item() for k_prop in (2, 10)
    )
    assert 0 < released < ten


def test_the_order_of_the_edges_is_of_no_matter() -> None:
    assert torch.equal(frame_weights(**PAPER, edges=EDGES[::-1]), frame_weights(**PAPER))


def test_many_steps_at_alpha_zero_weigh_frames_by_the_roots_of_their_degrees() -> None:
    root = torch.tensor([2.0, 3, 3, 2], dtype=torch.float64).sqrt()
    limit = root * root.sum() / (root**2).sum() / 4
    weights = frame_weights((4, 9), alpha=0.0, k_prop=1000, edges=(TIME_ALIGNED,))
    assert torch.allclose(weights, limit, rtol=0, atol=1e-12)


# What is left within a frame


def test_intra_frame_edges_smooth_and_time_aligned_edges_do_not() -> None:
    assert retained_contrast(**PAPER, edges=(INTRA_FRAME,)) == pytest.approx(0.1, abs=1e-15)
    assert round(retained_contrast(**PAPER), 3) == 0.103
    assert retained_contrast(**PAPER, edges=(TIME_ALIGNED,)) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("edges", [(INTRA_FRAME,), EDGES])
def test_no_difference_within_a_frame_outlasts_the_retained_contrast(edges: tuple) -> None:
    setting: dict[str, Any] = {"alpha": 0.1, "k_prop": 10, "edges": edges}
    tokens = random_tokens((4, 9))
    out = propagate(tokens, **setting)
    before, after = ((x - x.mean(dim=2, keepdim=True)).norm() for x in (tokens, out))
    assert after <= before * retained_contrast((4, 9), **setting) * (1 + 1e-12)


def test_the_operators_are_float64_and_the_caller_s_own() -> None:
    first = frame_operators(**PAPER)
    assert [(operator.shape, operator.dtype) for operator in first] == [((4, 4), torch.float64)] * 2
    first[0].zero_()
    assert frame_operators(**PAPER)[0].any()


# Dropping edges


def test_each_step_drops_from_all_edges_and_never_a_self_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = []

    def drop_all(matrices: Tensor, probability: float) -> Tensor:
        assert probability == 0.4
        offered.append(matrices)
        return torch.zeros_like(matrices)

    monkeypatch.setattr(graph, "dropout", drop_all)
    tokens = random_tokens((3, 4))
    out = propagate(tokens, alpha=0.0, k_prop=5, edge_dropout=0.4)
    matrix = adjacency((3, 4))
    assert len(offered) == 5
    assert all(torch.equal(matrices, matrix.triu(1).expand(2, -1, -1)) for matrices in offered)
    assert torch.allclose(out, matrix.diagonal().reshape(3, 4, 1) ** 5 * tokens, rtol=1e-12, atol=0)


def adjacency_of_a_step(num_clips: int, probability: float) -> Tensor:
    """What a step multiplies with, seen through one step on unit vectors: (clips, N, N)."""
    units = torch.eye(12, dtype=torch.float64).reshape(1, 3, 4, 12).expand(num_clips, -1, -1, -1)
    return propagate(units, alpha=0.0, k_prop=1, edge_dropout=probability).flatten(1, 2)


def test_an_edge_falls_in_both_directions_and_the_rest_is_scaled_so_that_the_mean_is_the_adjacency() -> None:
    torch.manual_seed(0)
    drawn, matrix = adjacency_of_a_step(4000, 0.25), adjacency((3, 4))
    assert torch.equal(drawn, drawn.mT)
    kept = drawn != 0
    loops = torch.eye(12, dtype=torch.bool)
    assert kept[:, loops].all()
    assert torch.allclose(drawn[:, ~loops], (kept * matrix / 0.75)[:, ~loops], rtol=1e-14, atol=0)
    assert torch.allclose(drawn.mean(dim=0)[loops], matrix[loops], rtol=1e-14, atol=0)
    rate = kept[:, (matrix > 0) & ~loops].double().mean(dim=0)  # of each edge, over clips
    assert (rate - 0.75).abs().max() < 5 * (0.25 * 0.75 / 4000) ** 0.5


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_the_expectation_over_dropped_edges_is_the_undropped_result(combination: str) -> None:
    torch.manual_seed(0)
    setting: dict[str, Any] = {"alpha": 0.1, "k_prop": 4, "edge_combination": combination}
    tokens = random_tokens((3, 2), clips=1, channels=1)
    draws = propagate(tokens.expand(20_000, -1, -1, -1), **setting, edge_dropout=0.3)
    error = draws.std(dim=0) / len(draws) ** 0.5
    assert draws.std(dim=0).min() > 0.05, "edges are dropped, in each clip others"
    assert ((draws.mean(dim=0) - propagate(tokens, **setting)[0]).abs() < 5 * error).all()


def test_without_edges_there_is_nothing_to_drop() -> None:
    tokens = random_tokens((3, 4))
    assert torch.allclose(propagate(tokens, alpha=0.1, k_prop=3, edges=(), edge_dropout=0.9), tokens, atol=1e-15)


def test_gradients_pass_through_dropped_edges() -> None:
    def dropped(tokens: Tensor) -> Tensor:
        torch.manual_seed(0)
        return propagate(tokens, alpha=0.3, k_prop=3, edge_dropout=0.5)

    assert torch.autograd.gradcheck(dropped, random_tokens((2, 3)).requires_grad_())


# Refusals


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"alpha": 1.5}, r"0 <= alpha <= 1 must hold, but got alpha=1\.5\."),
        ({"alpha": float("nan")}, "but got alpha=nan"),
        ({"k_prop": -1}, "k_prop must be a whole number >= 0, but got k_prop=-1"),
        ({"edges": ("intra_frames",)}, "no edges of the kind 'intra_frames'; did you mean 'intra_frame'?"),
        ({"edges": "intra_frame"}, r"write \('intra_frame',\)"),
        ({"edge_combination": "blocks"}, "no edge_combination 'blocks'; did you mean 'block'?"),
        ({"edge_dropout": 1.0}, r"0 <= edge_dropout < 1 must hold, but got edge_dropout=1\.0"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_rule_and_value(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        propagate(random_tokens((2, 2)), **({"alpha": 0.1, "k_prop": 2} | values))


def test_a_grid_without_nodes_is_refused() -> None:
    with pytest.raises(InputError, match=r"T >= 1 and P >= 1, but got \(4, 0\)"):
        frame_weights((4, 0), alpha=0.1, k_prop=2)
