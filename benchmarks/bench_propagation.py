"""Speed of APPNP on the token graph (Eq. 2) as a ratio to copying the tokens, beside other ways to compute the same.

    python benchmarks/bench_propagation.py --threads 2

All ways take turns within one run, and a ratio is the median over turns of a way's time by the copy's of the same turn:
what else the machine does meets all of them alike. Before that, every way is checked against the dense loop. Writes
propagation.json and propagation.md.
"""

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from machine import machine
from torch import Tensor

from taghead.graph import adjacency, propagate, propagated_mean

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # loading it calls torch.jit.script
    from torch_geometric.nn import APPNP

Tokens = Float[Tensor, "B T P C"]
AT_LEAST = 0.1  # seconds of one measurement; a quick way is called several times
ONCE = 2.0  # seconds of one call from which a way takes part in the first turn only
SHAPE = (16, 4, 49, 512)  # B, T, P, C: R(2+1)D-34 at 32 frames of 112 x 112 pixels
ALPHA, K_PROP = 0.1, 10


@dataclass(frozen=True)
class Way:
    """One way to compute the propagation; ``pooled`` when it gives the mean over the nodes as well."""

    name: str
    function: Callable[[Tokens], Tensor]
    pooled: bool = False


def dense(matrix: Float[Tensor, "N N"]) -> Callable[[Tokens], Tokens]:
    """The equation step by step with the N x N matrix, which is made beforehand."""

    def run(tokens: Tokens) -> Tokens:
        h = h0 = tokens.flatten(1, 2)
        for _ in range(K_PROP):
            h = (1 - ALPHA) * (matrix @ h) + ALPHA * h0
        return h.view_as(tokens)

    return run


def peer(edges: Int64[Tensor, "2 E"] | Tensor) -> Callable[[Tokens], Tokens]:
    """PyTorch Geometric's layer on the batch as one graph, which is made and normalised beforehand."""
    layer = APPNP(K=K_PROP, alpha=ALPHA, cached=True)

    def run(tokens: Tokens) -> Tokens:
        return layer(tokens.flatten(0, 2), edges).view_as(tokens)

    return run


def ways() -> list[Way]:
    """The copy first: it is what the others are measured by."""
    clips, time_steps, sites, _ = SHAPE
    matrix = adjacency((time_steps, sites), dtype=torch.float32)
    joined = torch.block_diag(*[(matrix > 0).float().fill_diagonal_(0)] * clips)
    return [
        Way("copy of the tokens (`clone`)", torch.clone),
        Way("ours, with the mean over the nodes (`propagated_mean`)", _mean, pooled=True),
        Way("ours (`propagate`)", lambda x: propagate(x, alpha=ALPHA, k_prop=K_PROP)),
        Way("dense N x N matrix, step by step", dense(matrix)),
        Way("PyTorch Geometric's APPNP, CSR matrix", peer(joined.to_sparse_csr())),
        Way("PyTorch Geometric's APPNP, edge list", peer(joined.nonzero().T.contiguous())),
    ]


def _mean(tokens: Tokens) -> Float[Tensor, "B C"]:
    return propagated_mean(tokens, alpha=ALPHA, k_prop=K_PROP)


def forward(way: Way, tokens: Tokens) -> None:
    with torch.no_grad():
        way.function(tokens)


def forward_and_backward(way: Way, tokens: Tokens) -> None:
    out = way.function(tokens.requires_grad_())
    torch.autograd.grad(out, tokens, torch.ones_like(out))


def check(candidates: list[Way], tokens: Tokens) -> None:
    """Stops where a way does not compute the same as the dense loop in float64."""
    expected = dense(adjacency(SHAPE[1:3]))(tokens.double())
    for way in candidates[1:]:
        wanted = expected.mean(dim=(1, 2)) if way.pooled else expected
        with torch.no_grad():
            torch.testing.assert_close(way.function(tokens).double(), wanted, rtol=1e-4, atol=1e-5)


def seconds(call: Callable[[Way, Tokens], None], way: Way, tokens: Tokens, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call(way, tokens)
    return (time.perf_counter() - start) / repeats


def measure(
    call: Callable[[Way, Tokens], None], candidates: list[Way], tokens: Tokens, *, turns: int
) -> list[dict[str, float]]:
    """Median milliseconds of each way, its median ratio to the first, and the ratio's range over turns."""
    seconds(call, candidates[0], tokens, 50)  # warm
    tried = [seconds(call, way, tokens, 1) for way in candidates]
    taken: list[list[float]] = [[] for _ in candidates]
    for turn in range(turns):
        for way, once, times in zip(candidates, tried, taken, strict=True):
            if turn == 0 or once < ONCE:
                times.append(seconds(call, way, tokens, max(1, round(AT_LEAST / once))))
    found = []
    for times in taken:
        ratios = [one / copy for one, copy in zip(times, taken[0], strict=False)]  # fewer turns of the slow
        ms = 1e3 * statistics.median(times)
        found.append({"ms": ms, "ratio": statistics.median(ratios), "min": min(ratios), "max": max(ratios)})
    return found


def digits(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def markdown(result: dict) -> str:
    where = result["machine"]
    lines = [
        "# Propagation",
        "",
        f"{where['date']}, {where['cpu']}, {where['cores']} cores, {where['threads']} thread(s), load "
        f"{where['load_before']} before; torch {where['torch']}, PyTorch Geometric {where['torch_geometric']}.",
        "B = {}, T = {}, P = {}, C = {}, float32, both edge kinds, alpha = {}, K_prop = {}; {} turns "
        "(one for a way that takes {:g} s or more).".format(*SHAPE, ALPHA, K_PROP, result["turns"], ONCE),
        "A ratio is to the copy of the same turn; in brackets its range over the turns.",
        "",
        "| way | forward, ms | ratio | forward and backward, ms | ratio |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        cells = [
            f"{digits(one['ms'])} | {digits(one['ratio'])} ({digits(one['min'])} to {digits(one['max'])})"
            for one in (row["forward"], row["both"])
        ]
        lines.append(f"| {row['way']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="Sparse")  # CSR is in beta; its invariants are not checked
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    where = machine("torch", "torch-geometric", threads=torch.get_num_threads())
    tokens = torch.randn(SHAPE)
    candidates = ways()
    check(candidates, tokens)
    forwards, boths = (measure(call, candidates, tokens, turns=args.turns) for call in (forward, forward_and_backward))
    rows = [
        {"way": way.name, "forward": one, "both": both}
        for way, one, both in zip(candidates, forwards, boths, strict=True)
    ]
    result = {"machine": where, "shape": SHAPE, "alpha": ALPHA, "k_prop": K_PROP, "turns": args.turns, "rows": rows}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "propagation.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (args.out / "propagation.md").write_text(markdown(result), encoding="utf-8")
    print(markdown(result), end="")


if __name__ == "__main__":
    main()
