"""IF-FC and TAT edges, APPNP (Eq. 1 and 2), and what the mean readout (Eq. 3) sees of them: frame weights.

Legend: B clips, T time steps of tokens, P sites of a time step, C channels, N = T*P nodes; one node a token.

The graph (arXiv 2604.11498, Eq. 1). IF-FC edges join any two sites of one frame; TAT edges join a site to itself one
time step before and after. M is their 0/1 matrix, M~ = M + I has self-loops, d are the row sums of M~, and
A[i,j] = M~[i,j] / sqrt(d[i] d[j]). APPNP (Eq. 2) repeats H <- (1 - alpha) A H + alpha H0, K_prop times.

The closed form. All nodes of frame t have the same degree: d[t] = J[t] + (neighbours of t in time), where J = P with
IF-FC edges (the P sites, the node's own self-loop among them) and J = 1 without (the self-loop). Split the tokens into
the frames' means m = mean_p(H) and the rest R = H - m, whose sum over each frame is 0. A keeps the two parts apart:

- TAT edges act on the time axis alone, alike on both: by Path, the T x T adjacency of neighbouring frames.
- IF-FC edges with self-loops are, in each frame, the all-ones matrix: P times the identity on m, and 0 on R. Without
  IF-FC edges, the self-loops are the identity on both.

So on m, A is the T x T matrix    A1 = D^-1/2 (J I + Path) D^-1/2,    J = P with IF-FC edges, else 1,
and on R the T x T matrix         A0 = D^-1/2 (j I + Path) D^-1/2,    j = 0 with IF-FC edges, else 1.

K_prop steps on m and on R are the same recursion in T x T matrices, S <- (1 - alpha) A S + alpha I from S = I, hence

    H[K] = S1 mean_p(H0) + S0 (H0 - mean_p(H0)) = (S1 - S0) mean_p(H0) + S0 H0:

two small products whatever K_prop is. The mean over all nodes kills R, so under Eq. 3 only S1 is left, and of it only
its column sums: the prediction is a mean of the frames with the T weights w = (1/T) 1^T S1. IF-FC edges alone have
A1 = I, so S1 = I and w = 1/T: under the mean readout they change nothing, and neither do their gradients.

The paper's blockdiag(M_intra, M_temp) is read in two ways. ``union``: the edges of both kinds in one graph, as above.
``block``: a graph for each kind, each with its own self-loops and degrees, propagated apart; the mean of the results.
"""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from numbers import Integral
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import dropout

from taghead.errors import InputError, nearest

INTRA_FRAME = "intra_frame"  # IF-FC: intra-frame, fully connected
TIME_ALIGNED = "time_aligned"  # TAT: time-aligned temporal
EDGES = (INTRA_FRAME, TIME_ALIGNED)
EDGE_COMBINATIONS = ("union", "block")
# Far above what float64 loses in a thousand steps, far below what any use of the weights can tell.
WEIGHT_DECIMALS = 12


def split_edges(edges: Collection[str], *, edge_combination: str = "union") -> tuple[tuple[str, ...], ...]:
    """The graphs that are propagated apart, as the edge kinds of each; the result is the mean over them.

    Args:
        edges: Any of `EDGES`; none of them leaves only self-loops, and tokens as they are.
        edge_combination: ``union`` or ``block``; without effect on fewer than two kinds.

    Raises:
        InputError: No such kind of edges, or no such combination.
    """
    if isinstance(edges, str):
        raise InputError(f"edges must be a tuple of names, but got {edges!r}; write ({edges!r},).")
    edges = tuple(edges)
    for kind in edges:
        if kind not in EDGES:
            raise InputError(f"no edges of the kind {kind!r}{nearest(str(kind), EDGES)}")
    if edge_combination not in EDGE_COMBINATIONS:
        raise InputError(f"no edge_combination {edge_combination!r}{nearest(str(edge_combination), EDGE_COMBINATIONS)}")
    kinds = tuple(kind for kind in EDGES if kind in edges)
    return tuple((kind,) for kind in kinds) if edge_combination == "block" and kinds else (kinds,)


def check_propagation(*, alpha: float, k_prop: int, edge_dropout: float = 0.0) -> None:
    """Refuses numbers that `propagate` cannot take.

    Raises:
        InputError: One of them is out of range.
    """
    if not 0 <= alpha <= 1:
        raise InputError(f"0 <= alpha <= 1 must hold, but got alpha={alpha}.")
    if not isinstance(k_prop, Integral) or k_prop < 0:
        raise InputError(f"k_prop must be a whole number >= 0, but got k_prop={k_prop}.")
    if not 0 <= edge_dropout < 1:
        raise InputError(f"0 <= edge_dropout < 1 must hold, but got edge_dropout={edge_dropout}.")


def adjacency(
    grid: tuple[int, int],
    *,
    edges: Collection[str] = EDGES,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Float[Tensor, "N N"]:
    """The normalised adjacency A of one graph, dense, straight from the definition of its edges (the reference).

    Args:
        grid: (T, P); node t*P + p is site p of time step t.
        edges: Any of `EDGES`, in one graph; see `split_edges` for ``block``.
        dtype: Of the result.
        device: Of the result.

    Raises:
        InputError: As `split_edges`, or a grid without nodes.
    """
    _check_grid(grid)
    (kinds,) = split_edges(edges)
    node = torch.arange(grid[0] * grid[1], device=device)
    steps = (node[:, None] // grid[1] - node // grid[1]).abs()  # in time, from each node to each other
    same_site = node[:, None] % grid[1] == node % grid[1]
    joined = torch.eye(len(node), dtype=torch.bool, device=device)
    if INTRA_FRAME in kinds:
        joined |= steps == 0
    if TIME_ALIGNED in kinds:
        joined |= same_site & (steps == 1)
    looped = joined.to(dtype)
    degree = looped.sum(dim=1)
    return looped / torch.outer(degree, degree).sqrt()


def propagate_reference(
    tokens: Float[Tensor, "B T P C"],
    *,
    alpha: float,
    k_prop: int,
    edges: Collection[str] = EDGES,
    edge_combination: str = "union",
    edge_dropout: float = 0.0,
) -> Float[Tensor, "B T P C"]:
    """APPNP as Eq. 2 has it, step by step with the dense N x N matrix; arguments as `propagate`.

    Raises:
        InputError: As `propagate`.
    """
    parts = split_edges(edges, edge_combination=edge_combination)
    grid, dtype = _grid(tokens), _compute_dtype(tokens)
    matrices = [adjacency(grid, edges=part, dtype=dtype, device=tokens.device) for part in parts]
    return appnp(tokens, matrices, alpha=alpha, k_prop=k_prop, edge_dropout=edge_dropout)


def appnp(
    tokens: Float[Tensor, "B T P C"],
    matrices: Sequence[Float[Tensor, "N N"]],
    *,
    alpha: float,
    k_prop: int,
    edge_dropout: float = 0.0,
) -> Float[Tensor, "B T P C"]:
    """Eq. 2 on any normalised adjacency, step by step; on several, apart, and the mean of the results.

    Args:
        tokens: H0, of any floating type, on any device. Half precisions are computed in float32.
        matrices: One a graph, symmetric, on the device of ``tokens``.
        alpha: The teleport probability, 0 to 1.
        k_prop: K_prop, the number of steps.
        edge_dropout: As in `propagate`.

    Raises:
        InputError: alpha, k_prop or edge_dropout out of range.
    """
    check_propagation(alpha=alpha, k_prop=k_prop, edge_dropout=edge_dropout)
    dtype = _compute_dtype(tokens)
    total = torch.zeros_like(tokens, dtype=dtype)
    with _full_precision(tokens.device):
        for matrix in matrices:
            matrix = matrix.to(dtype)
            h = h0 = tokens.to(dtype).flatten(1, 2)
            for _ in range(k_prop):
                adjacency_of_step = _drop_edges(matrix, edge_dropout, len(tokens)) if edge_dropout else matrix
                h = (1 - alpha) * (adjacency_of_step @ h) + alpha * h0
            total = total + h.view_as(tokens) / len(matrices)
    return total.to(tokens.dtype)


def frame_operators(
    grid: tuple[int, int],
    *,
    alpha: float,
    k_prop: int,
    edges: Collection[str] = EDGES,
    edge_combination: str = "union",
) -> tuple[Float[Tensor, "T T"], Float[Tensor, "T T"]]:
    """S1 and S0 of the closed form, in float64: K_prop steps on the frames' means, and on what is left beside them.

    Args:
        grid: (T, P).
        alpha: The teleport probability, 0 to 1.
        k_prop: The number of steps.
        edges: Any of `EDGES`.
        edge_combination: ``union`` or ``block``.

    Raises:
        InputError: As `propagate`, or a grid without nodes.
    """
    s1, s0 = _operators(*_key(grid, alpha, k_prop, edges, edge_combination))
    return torch.tensor(s1, device="cpu"), torch.tensor(s0, device="cpu")


def propagate(
    tokens: Float[Tensor, "B T P C"],
    *,
    alpha: float,
    k_prop: int,
    edges: Collection[str] = EDGES,
    edge_combination: str = "union",
    edge_dropout: float = 0.0,
) -> Float[Tensor, "B T P C"]:
    """APPNP over the token graph (Eq. 2) in closed form; differentiable.

    Half precisions are computed in float32, also under autocast: bfloat16 keeps 2 to 3 digits, and what the full graph
    does to a frame's weight is in the third or fourth.

    Args:
        tokens: H0, of any floating type, on any device.
        alpha: The teleport probability, 0 to 1.
        k_prop: K_prop, the number of steps.
        edges: Any of `EDGES`; none of them leaves the tokens as they are.
        edge_combination: ``union`` or ``block``; see the top of the file.
        edge_dropout: For training: the probability with which each step drops each edge of each clip, in both
            directions at once; what is kept is divided by 1 - edge_dropout. Every step draws anew from all edges (by
            torch's global generator), so the expected result is the undropped one. In PyTorch Geometric 2.8's APPNP
            what one step drops stays dropped, directions and self-loops fall apart from one another; here self-loops
            are no edges and stay. Takes the dense N x N matrix: slower by far.

    Returns:
        H[K_prop], of the type of ``tokens``.

    Raises:
        InputError: alpha, k_prop or edge_dropout out of range, or as `split_edges`.
    """
    options: dict[str, Any] = {"alpha": alpha, "k_prop": k_prop, "edges": edges, "edge_combination": edge_combination}
    if edge_dropout:
        return propagate_reference(tokens, edge_dropout=edge_dropout, **options)
    dtype = _compute_dtype(tokens)
    operators = _closed_form(_key(_grid(tokens), **options), double=dtype == torch.float64)
    smooth, keep = (torch.from_numpy(operator).to(tokens.device, non_blocking=True) for operator in operators)
    return _ClosedForm.apply(tokens.to(dtype), smooth, keep).to(tokens.dtype)


class _ClosedForm(torch.autograd.Function):
    """(S1 - S0) mean_p(H0) + S0 H0, from S1 - S0 and S0.

    Taking a frame's mean and giving it to each of its sites is symmetric, so the gradient is the same form with both
    transposed: nothing is kept for it, and it takes no longer than the propagation itself.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        h0: Float[Tensor, "B T P C"], smooth: Float[Tensor, "T T"], keep: Float[Tensor, "T T"]
    ) -> Float[Tensor, "B T P C"]:
        with _full_precision(h0.device):
            means = smooth @ h0.mean(dim=2)
            # in place into the product: a third of the time
            return (keep @ h0.flatten(2)).view_as(h0).add_(means[:, :, None])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "B T P C"]) -> tuple[Float[Tensor, "B T P C"], None, None]:
        smooth, keep = ctx.saved_tensors
        return _ClosedForm.apply(gradient, smooth.mT, keep.mT), None, None


def propagated_mean(
    tokens: Float[Tensor, "B T P C"],
    *,
    alpha: float,
    k_prop: int,
    edges: Collection[str] = EDGES,
    edge_combination: str = "union",
) -> Float[Tensor, "B C"]:
    """The mean over all nodes of `propagate` (Eq. 2 and 3 at once): the frames' means with `frame_weights`.

    One path for all graphs: those with equal weights give the same bits, gradients included. Half precisions are
    computed in float32. Arguments as `propagate`.

    Raises:
        InputError: As `propagate`.
    """
    dtype = _compute_dtype(tokens)
    key = _key(_grid(tokens), alpha, k_prop, edges, edge_combination)
    weights = torch.from_numpy(_site_weights(key, double=dtype == torch.float64)).to(tokens.device, non_blocking=True)
    # a sum and no mean: its gradient is a broadcast, which takes no memory
    # and no matrix product: autocast would make it one in bfloat16
    return (tokens.sum(dim=2, dtype=dtype) * weights).sum(dim=1).to(tokens.dtype)


def frame_weights(
    grid: tuple[int, int],
    *,
    alpha: float,
    k_prop: int,
    edges: Collection[str] = EDGES,
    edge_combination: str = "union",
) -> Float[Tensor, " T"]:
    """The weights w = (1/T) 1^T S1 with which a mean over the nodes sees the frames, in float64.

    1/T is plain averaging. T*w - 1 is rounded to 12 decimals: where the equations say that it is 0, or that two graphs
    have the same weights, the bits say so too (for k_prop up to a thousand or so; after that float64 may have lost
    more). IF-FC edges alone, no edges, k_prop = 0, alpha = 1, and any graph on one or two frames give 1/T.

    Args:
        grid: (T, P).
        alpha: The teleport probability, 0 to 1.
        k_prop: The number of steps.
        edges: Any of `EDGES`.
        edge_combination: ``union`` or ``block``.

    Raises:
        InputError: As `frame_operators`.
    """
    return torch.tensor(_weights(_key(grid, alpha, k_prop, edges, edge_combination)), device="cpu")


def retained_contrast(
    grid: tuple[int, int],
    *,
    alpha: float,
    k_prop: int,
    edges: Collection[str] = EDGES,
    edge_combination: str = "union",
) -> float:
    """How much of the differences within a frame is left, at most: the spectral norm of S0, as a fraction.

    With IF-FC edges alone it is alpha from the first step on, with TAT edges alone 1 (some pattern over time is
    kept whole): IF-FC edges smooth. A mean over the nodes sees none of it. Arguments as `frame_weights`.

    Raises:
        InputError: As `frame_operators`.
    """
    _, s0 = _operators(*_key(grid, alpha, k_prop, edges, edge_combination))
    return float(np.linalg.norm(s0, 2))


_Key = tuple[tuple[int, int], float, int, tuple[tuple[str, ...], ...]]


def _key(grid: tuple[int, int], alpha: float, k_prop: int, edges: Collection[str], edge_combination: str) -> _Key:
    _check_grid(grid)
    check_propagation(alpha=alpha, k_prop=k_prop)
    return (grid[0], grid[1]), alpha, k_prop, split_edges(edges, edge_combination=edge_combination)


# NumPy, so that neither a device context nor a counter of operations nor autocast ever meets these few numbers.
@lru_cache(maxsize=1024)
def _operators(
    grid: tuple[int, int], alpha: float, k_prop: int, parts: tuple[tuple[str, ...], ...]
) -> tuple[Float[np.ndarray, "T T"], Float[np.ndarray, "T T"]]:
    identity = np.eye(grid[0])
    total = np.zeros((2, *identity.shape))
    for part in parts:
        for index, a in enumerate(_blocks(grid, part)):
            s = identity
            for _ in range(k_prop):
                s = (1 - alpha) * (a @ s) + alpha * identity
            total[index] += s / len(parts)
    return total[0], total[1]


@lru_cache(maxsize=1024)
def _weights(key: _Key) -> Float[np.ndarray, " T"]:
    s1, _ = _operators(*key)
    return (1 + np.round(s1.sum(axis=0) - 1, WEIGHT_DECIMALS)) / len(s1)


# Tensors share the memory of these two: neither is ever written to.
@lru_cache(maxsize=1024)
def _site_weights(key: _Key, *, double: bool) -> Float[np.ndarray, "T 1"]:
    """With what a sum over all sites is weighted: w / P."""
    return (_weights(key)[:, None] / key[0][1]).astype(np.float64 if double else np.float32)


@lru_cache(maxsize=1024)
def _closed_form(key: _Key, *, double: bool) -> tuple[Float[np.ndarray, "T T"], Float[np.ndarray, "T T"]]:
    """S1 - S0, and S0."""
    (s1, s0), dtype = _operators(*key), np.float64 if double else np.float32
    return (s1 - s0).astype(dtype), s0.astype(dtype)


def _blocks(grid: tuple[int, int], edges: tuple[str, ...]) -> tuple[Float[np.ndarray, "T T"], Float[np.ndarray, "T T"]]:
    """A1 and A0 of the derivation. Quotients by roots of whole numbers: J / sqrt(J * J) is exactly 1."""
    time, sites = grid
    on_means, on_rest = (sites, 0) if INTRA_FRAME in edges else (1, 1)
    path = np.eye(time, k=1) + np.eye(time, k=-1) if TIME_ALIGNED in edges else np.zeros((time, time))
    degree = on_means + path.sum(axis=1)
    scale = np.sqrt(np.outer(degree, degree))
    return (on_means * np.eye(time) + path) / scale, (on_rest * np.eye(time) + path) / scale


def _drop_edges(matrix: Float[Tensor, "N N"], probability: float, num_clips: int) -> Float[Tensor, "B N N"]:
    kept = dropout(matrix.triu(1).expand(num_clips, -1, -1), probability)
    return kept + kept.mT + matrix.diagonal().diag_embed()


def _grid(tokens: Float[Tensor, "B T P C"]) -> tuple[int, int]:
    return tokens.shape[1], tokens.shape[2]


def _compute_dtype(tokens: Tensor) -> torch.dtype:
    return torch.promote_types(tokens.dtype, torch.float32)


def _full_precision(device: torch.device) -> AbstractContextManager[object]:
    available = torch.amp.is_autocast_available(device.type)  # not on the meta device, say
    if available and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def _check_grid(grid: tuple[int, int]) -> None:
    if len(grid) != 2 or min(grid) < 1:
        raise InputError(f"grid must be (T, P) with T >= 1 and P >= 1, but got {tuple(grid)}.")
