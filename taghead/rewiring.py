"""The control graph: each token keeps its degree in the graph of Eq. 1, and who its neighbours are is drawn at random.

Legend: B clips, T time steps of tokens, P sites of a time step, C channels, N = T*P nodes; one node a token.

Double-edge swaps (a-b, c-d become a-d, c-b) on the edges of one graph, over all N nodes: a frame's sites are no longer
joined to one another, and a site no longer to itself a time step on, but no node's degree changes. Self-loops are no
edges and stay; there is never a second edge between two nodes.

Nothing is left of the closed form of `taghead.graph`, which stands on the degrees *and* on the frames. Under a mean
readout the graph is still seen through fixed numbers, one for each node: the mean of H[K] = S H0 is w^T H0 with

    w = (1/N) S^T 1 = (1/N) S 1,    S from A by S <- (1 - alpha) A S + alpha I,    A symmetric,

K_prop matrix-vector products. If all nodes have one degree, as with IF-FC edges alone, A 1 = 1: then w = 1/N whatever
the edges are, and the control graph does to a mean what IF-FC edges do to it, which is nothing.
"""

from collections.abc import Collection
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from taghead.errors import InputError
from taghead.graph import EDGES, WEIGHT_DECIMALS, adjacency, appnp, check_propagation, split_edges

SWAPS = 10  # for each edge: enough to forget where it was
MAX_TRIES = 100  # for each edge: in a dense graph most swaps would double an edge, and are left undone


@lru_cache(maxsize=16)
def rewired(grid: tuple[int, int], edges: tuple[str, ...], rewiring: int) -> Float[ndarray, "N N"]:
    """The normalised adjacency A of one graph whose edges were swapped at random, in float64; not to be written to.

    At least `SWAPS` swaps for each edge, or as many as come of `MAX_TRIES` tries for each edge. A function of the three
    arguments alone, the same on every machine: NumPy keeps the stream of its PCG64 as it is.

    Args:
        grid: (T, P); node t*P + p is site p of time step t.
        edges: Any of `EDGES`, in one graph.
        rewiring: The seed.

    Raises:
        InputError: A negative seed, no other graph of these degrees that a swap leads to, or as `adjacency`.
    """
    if rewiring < 0:
        raise InputError(f"rewiring >= 0 must hold, but got rewiring={rewiring}.")
    matrix = adjacency(grid, edges=edges, device="cpu").numpy()
    joined = (matrix > 0) & ~np.eye(len(matrix), dtype=bool)
    if not _swap(joined, rewiring):
        raise InputError(
            f"rewiring needs another graph of the same degrees, but edges {'+'.join(edges) or 'none'} on (T, P) = "
            f"{grid} have none, rewiring={rewiring}: leave it out, or give more frames."
        )
    degree = 1 + joined.sum(axis=1)  # the self-loop among them
    a = (joined + np.eye(len(joined))) / np.sqrt(np.outer(degree, degree))
    a.flags.writeable = False
    return a


def _swap(joined: Bool[ndarray, "N N"], seed: int) -> int:
    """Swaps edges in place; returns how many swaps were made."""
    pairs = [(int(a), int(b)) for a, b in np.argwhere(np.triu(joined))]
    neighbours = [set(np.flatnonzero(row).tolist()) for row in joined]
    numbers, done = np.random.PCG64(seed), 0
    for _ in range(MAX_TRIES if len(pairs) > 1 else 0):
        draws = numbers.random_raw((len(pairs), 3)) % np.array([len(pairs), len(pairs), 2], dtype=np.uint64)
        for first, second, turn in draws.tolist():
            (a, b), (c, d) = pairs[first], pairs[second][:: -1 if turn else 1]
            if a == d or c == b or d in neighbours[a] or b in neighbours[c]:
                continue  # a self-loop, a second edge, or an edge with itself
            for one, old, new in ((a, b, d), (b, a, c), (c, d, b), (d, c, a)):
                neighbours[one].remove(old)
                neighbours[one].add(new)
            pairs[first], pairs[second] = (a, d), (c, b)
            done += 1
        if done >= SWAPS * len(pairs):
            break
    joined[:] = False
    for node, others in enumerate(neighbours):
        joined[node, list(others)] = True
    return done


def rewired_weights(
    grid: tuple[int, int],
    *,
    alpha: float,
    k_prop: int,
    rewiring: int,
    edges: Collection[str] = EDGES,
    edge_combination: str = "union",
) -> Float[Tensor, " N"]:
    """The weights w with which a mean over the nodes sees the N tokens through the control graph, in float64.

    1/N is plain averaging; N*w - 1 is rounded to 12 decimals, as in `taghead.graph.frame_weights`.

    Args:
        grid: (T, P).
        alpha: The teleport probability, 0 to 1.
        k_prop: The number of steps.
        rewiring: The seed.
        edges: Any of `EDGES`, at least one.
        edge_combination: ``union``: the control of one graph of both kinds; ``block``: a control of each, apart.

    Raises:
        InputError: As `taghead.graph.propagate`, or as `rewired`.
    """
    check_propagation(alpha=alpha, k_prop=k_prop)
    parts = split_edges(edges, edge_combination=edge_combination)
    return torch.tensor(_weights((grid[0], grid[1]), alpha, k_prop, parts, rewiring), device="cpu")


@lru_cache(maxsize=256)
def _weights(
    grid: tuple[int, int], alpha: float, k_prop: int, parts: tuple[tuple[str, ...], ...], rewiring: int
) -> Float[ndarray, " N"]:
    ones = np.ones(grid[0] * grid[1])
    total = np.zeros_like(ones)
    for part in parts:
        a, s = rewired(grid, part, rewiring), ones
        for _ in range(k_prop):
            s = (1 - alpha) * (a @ s) + alpha * ones
        total += s / len(parts)
    return (1 + np.round(total - 1, WEIGHT_DECIMALS)) / len(ones)


def rewired_mean(
    tokens: Float[Tensor, "B T P C"],
    *,
    alpha: float,
    k_prop: int,
    rewiring: int,
    edges: Collection[str] = EDGES,
    edge_combination: str = "union",
) -> Float[Tensor, "B C"]:
    """The mean over all nodes of `propagate_rewired`: the mean of the tokens with `rewired_weights`.

    Weights of 1/N give the bits of `taghead.graph.propagated_mean` without edges. Half precisions are computed in
    float32. Arguments as `propagate_rewired`.

    Raises:
        InputError: As `rewired_weights`.
    """
    grid = tokens.shape[1], tokens.shape[2]
    options = {"alpha": alpha, "k_prop": k_prop, "edges": edges, "edge_combination": edge_combination}
    weights = rewired_weights(grid, rewiring=rewiring, **options)  # type: ignore[arg-type]
    dtype = torch.promote_types(tokens.dtype, torch.float32)
    relative = (len(weights) * weights).view(*grid, 1).to(tokens.device, dtype, non_blocking=True)
    sums = (tokens.to(dtype) * relative).sum(dim=2)
    return (sums * (1 / grid[0] / grid[1])).sum(dim=1).to(tokens.dtype)


def propagate_rewired(
    tokens: Float[Tensor, "B T P C"],
    *,
    alpha: float,
    k_prop: int,
    rewiring: int,
    edges: Collection[str] = EDGES,
    edge_combination: str = "union",
    edge_dropout: float = 0.0,
) -> Float[Tensor, "B T P C"]:
    """APPNP over the control graph (Eq. 2), step by step with the dense N x N matrix; differentiable.

    Args:
        tokens: H0, of any floating type, on any device. Half precisions are computed in float32.
        alpha: The teleport probability, 0 to 1.
        k_prop: K_prop, the number of steps.
        rewiring: The seed.
        edges: Any of `EDGES`, at least one.
        edge_combination: ``union`` or ``block``.
        edge_dropout: For training, as in `taghead.graph.propagate`.

    Raises:
        InputError: As `taghead.graph.propagate`, or as `rewired`.
    """
    parts = split_edges(edges, edge_combination=edge_combination)
    dtype = torch.promote_types(tokens.dtype, torch.float32)
    controls = (rewired((tokens.shape[1], tokens.shape[2]), part, rewiring) for part in parts)
    matrices = [torch.tensor(a, device="cpu").to(tokens.device, dtype, non_blocking=True) for a in controls]
    return appnp(tokens, matrices, alpha=alpha, k_prop=k_prop, edge_dropout=edge_dropout)
