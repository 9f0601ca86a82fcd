"""Speed of APPNP on the token graph (Eq. 2) as a ratio to copying the tokens, beside other ways to compute the same.

    python benchmarks/bench_propagation.py

On one thread, which is what a trial of a study has; ``--threads`` for more. Every way is checked against the dense loop
first. Writes propagation.json and propagation.md.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from machine import machine
from torch import Tensor
from turns import Ratio, Row, arguments, digits, measure, ratio, turns_of, write

from taghead.graph import adjacency, propagate, propagated_mean

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # loading it calls torch.jit.script
    from torch_geometric.nn import APPNP

Tokens = Float[Tensor, "B T P C"]
Way = Callable[[Tokens], Tensor]
Times = dict[str, list[float]]

SITES = 49  # P: 7 x 7, of R(2+1)D-34 at 112 x 112 pixels
CLIPS = 16  # B at the smallest size
SIZES = [(time, channels) for channels in (512, 2048) for time in (4, 8, 32)]  # T and C
QUICK_SIZES = [(4, 512), (8, 2048), (32, 512)]
ALPHA, K_PROP, MANY = 0.1, 10, 1000
CLONE, COPY, MEAN, OURS, DENSE = "clone", "copy_", "mean", "propagate", "dense"
PEERS = ("PyTorch Geometric, CSR matrix", "PyTorch Geometric, edge list")
NAMES = {
    CLONE: "copy of the tokens (`clone`)",
    COPY: "copy into a buffer that is kept (`copy_`)",
    MEAN: "ours, with the mean over the nodes (`propagated_mean`)",
    OURS: "ours (`propagate`)",
    DENSE: "dense N x N matrix, step by step",
}


def random_tokens(time: int, channels: int) -> Tokens:
    """As many clips as take the memory of `CLIPS` of the smallest size, at least one."""
    smallest = SIZES[0][0] * SIZES[0][1]
    return torch.randn(max(1, CLIPS * smallest // (time * channels)), time, SITES, channels)


def dense(tokens: Tokens) -> Way:
    """The equation step by step with the N x N matrix, which is made beforehand."""
    matrix = adjacency((tokens.shape[1], SITES), dtype=tokens.dtype)

    def run(x: Tokens) -> Tokens:
        h = h0 = x.flatten(1, 2)
        for _ in range(K_PROP):
            h = (1 - ALPHA) * (matrix @ h) + ALPHA * h0
        return h.view_as(x)

    return run


def peers(tokens: Tokens) -> dict[str, Way]:
    """PyTorch Geometric's layer on the batch as one graph, which is made and normalised beforehand."""
    joined = (adjacency((tokens.shape[1], SITES)) > 0).float().fill_diagonal_(0)
    whole = torch.block_diag(*[joined] * len(tokens))

    def run(edges: Tensor) -> Way:
        layer = APPNP(K=K_PROP, alpha=ALPHA, cached=True)
        return lambda x: layer(x.flatten(0, 2), edges).view_as(x)

    return {PEERS[0]: run(whole.to_sparse_csr()), PEERS[1]: run(whole.nonzero().T.contiguous())}


def mean(x: Tokens, k_prop: int = K_PROP) -> Float[Tensor, "B C"]:
    return propagated_mean(x, alpha=ALPHA, k_prop=k_prop)


def ours(x: Tokens, k_prop: int = K_PROP) -> Tokens:
    return propagate(x, alpha=ALPHA, k_prop=k_prop)


def forward(way: Way, tokens: Tokens) -> Callable[[], object]:
    return torch.no_grad()(lambda: way(tokens))


def both(way: Way, tokens: Tokens) -> Callable[[], object]:
    """Forward and backward to the tokens' gradient, which is written anew each time."""
    leaf = tokens.clone().requires_grad_()
    gradient = torch.ones_like(way(leaf))

    def run() -> None:
        leaf.grad = None
        way(leaf).backward(gradient)

    return run


def check(ways: dict[str, Way], tokens: Tokens) -> None:
    """Stops where a way, or its gradient, is not that of the dense loop in float64."""
    exact = tokens.double().requires_grad_()
    for name, way in ways.items():
        expected = dense(exact)(exact)
        leaf = tokens.clone().requires_grad_()
        out = way(leaf)
        wanted = expected.mean(dim=(1, 2)) if out.dim() == 2 else expected
        outward = torch.randn_like(out)
        (found,), (right,) = (
            torch.autograd.grad(value, to, outward.to(value.dtype)) for value, to in ((out, leaf), (wanted, exact))
        )
        torch.testing.assert_close(out.double(), wanted, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")
        torch.testing.assert_close(found.double(), right, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def of_size(time: int, channels: int, *, turns: int) -> dict[str, Any]:
    """Times of all ways but the slowest at one size, and what of them the table shows."""
    tokens = random_tokens(time, channels)
    buffer = torch.empty_like(tokens)
    ways = {CLONE: torch.clone, MEAN: mean, OURS: ours}
    loop = dense(tokens)
    check({MEAN: mean, OURS: ours, DENSE: loop}, tokens)
    kept = {COPY: torch.no_grad()(lambda: buffer.copy_(tokens))}
    forwards = measure({name: forward(way, tokens) for name, way in ways.items()} | kept, turns=turns)
    boths = measure({name: both(way, tokens) for name, way in ways.items()}, turns=turns)
    slow = {OURS: ours, DENSE: loop}
    against = [
        measure({name: call(way, tokens) for name, way in slow.items()}, turns=min(turns, 3))
        for call in (forward, both)
    ]
    steps = measure(
        {f"{name}{k}": forward(lambda x, w=way, k=k: w(x, k), tokens)
         for name, way in ((MEAN, mean), (OURS, ours)) for k in (1, MANY)},
        turns=turns,
    )  # fmt: skip
    return {"shape": tuple(tokens.shape), "forward": forwards, "both": boths, "dense": against, "steps": steps}


def rows_of(size: dict[str, Any]) -> list[Row]:
    """The targets at one size."""
    _, time, _, channels = size["shape"]
    at = f"T = {time}, C = {channels}"
    rows = [
        Row(
            f"a clone, {at}", "`copy_` into a kept buffer", ratio(size["forward"][CLONE], size["forward"][COPY]), "time"
        )
    ]
    for passes, name, bounds in (
        ("forward", MEAN, 1.5),
        ("both", MEAN, 2.5),
        ("forward", OURS, 4.0),
        ("both", OURS, 4.0),
    ):
        what = "propagation with mean readout" if name == MEAN else "propagation for other readouts"
        told = "forward" if passes == "forward" else "forward and backward"
        times = size[passes]
        rows.append(Row(f"{what}, {told}, {at}", "clone", ratio(times[name], times[CLONE]), "time", bounds, "at most"))
    for told, times in zip(("forward", "forward and backward"), size["dense"], strict=True):
        part = f"propagation for other readouts, {told}, {at}"
        rows.append(Row(part, "dense N x N loop", ratio(times[DENSE], times[OURS]), "speed", 40.0, "at least"))
    for name, what in ((MEAN, "with mean readout"), (OURS, "for other readouts")):
        times = size["steps"]
        found = ratio(times[f"{name}{MANY}"], times[f"{name}1"])
        rows.append(Row(f"propagation {what}, K_prop = {MANY}, {at}", "K_prop = 1", found, "time", 1.1, "at most"))
    return rows


def against_peers(*, quick: bool) -> tuple[list[Row], dict[str, Times]]:
    """PyTorch Geometric at the smallest size, in one turn: it takes seconds. The edge list alone, forward, if quick."""
    tokens = random_tokens(*SIZES[0])
    found, one = peers(tokens), tokens[:1]
    check(peers(one) if quick else found, one if quick else tokens)
    if quick:
        found = {PEERS[1]: found[PEERS[1]]}
    rows, times = [], dict[str, Times]()
    for told, call in (("forward", forward),) if quick else (("forward", forward), ("forward and backward", both)):
        taken = measure({name: call(way, tokens) for name, way in ({OURS: ours} | found).items()}, turns=1)
        part = f"propagation for other readouts, {told}, T = {SIZES[0][0]}, C = {SIZES[0][1]}"
        for name in found:
            target = (1000.0, "at least") if name == PEERS[1] else (None, None)
            rows.append(Row(part, name, ratio(taken[name], taken[OURS]), "speed", *target))  # type: ignore[arg-type]
        times[told] = taken
    return rows, times


def page(where: dict[str, Any], sizes: list[dict[str, Any]], turns: int) -> str:
    """Milliseconds of every way by size."""
    lines = [
        "# Propagation",
        "",
        f"{where['date']}, {where['cpu']}, {where['cores']} cores, {where['threads']} thread(s), load "
        f"{where['load_before']} before; torch {where['torch']}, PyTorch Geometric {where['torch_geometric']}.",
        f"P = {SITES}, float32, both edge kinds, alpha = {ALPHA}, K_prop = {K_PROP}; {turns} turns. Median "
        "milliseconds, forward / forward and backward.",
        "",
        f"| way | {' | '.join('B, T, C = {}, {}, {}'.format(*(s['shape'][i] for i in (0, 1, 3))) for s in sizes)} |",
        f"|---|{'---|' * len(sizes)}",
    ]
    for name, words in NAMES.items():
        lines.append(f"| {words} | {' | '.join(_cell(size, name) for size in sizes)} |")
    return "\n".join(lines)


def _cell(size: dict[str, Any], name: str) -> str:
    of = size["dense"] if name == DENSE else (size["forward"], size["both"])
    return " / ".join(digits(1e3 * _median(times[name]).median) if name in times else "-" for times in of)


def _median(times: list[float]) -> Ratio:
    return ratio(times, [1.0] * len(times))


def main() -> None:
    parser = arguments(__doc__, turns=15, quick_turns=3)
    parser.set_defaults(threads=1)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="Sparse")  # CSR is in beta; its invariants are not checked
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    where = machine("torch", "torch-geometric", threads=torch.get_num_threads())
    turns = turns_of(args)
    sizes = [of_size(time, channels, turns=turns) for time, channels in (QUICK_SIZES if args.quick else SIZES)]
    slow, peer_times = against_peers(quick=args.quick)
    rows = [row for size in sizes for row in rows_of(size)] + slow
    more = {"alpha": ALPHA, "k_prop": K_PROP, "turns": turns, "sizes": sizes, "peers": peer_times}
    write("propagation", rows, out=args.out, machine=where, text=page(where, sizes, turns), **more)


if __name__ == "__main__":
    main()
