"""Speed of the graph's surface (`analysis.surface`): every setting of the graph against passes of the head alone.

    python benchmarks/bench_surface.py --threads 1

Cached tokens of R(2+1)D-34 at 32 frames, HAA500's head, random values. The surface and three passes of the head take
turns within one run; a ratio is the median over turns of the surface's time by that of the same turn's three passes.
Before that a few settings are checked against heads that have that graph. Writes surface.json and surface.md.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from machine import machine
from torch import Tensor
from turns import Ratio, Row, arguments, turns_of, write

from analysis.frame_logits import Trained, frame_logits
from analysis.frame_weights import GRAPHS
from analysis.surface import ALPHAS, STEPS, surface_data
from taghead.head import TAGHead

Tokens = Float[Tensor, "n T P C"]
GRID, CHANNELS, CLASSES, FFN_DIM = (4, 7, 7), 512, 500, 512  # HAA500
PASSES = 3
CHECKED = (("IF-FC", 0.1, 10), ("TAT", 0.0, 100), ("IF-FC + TAT, union", 0.1, 10), ("IF-FC + TAT, block", 0.5, 2))
TOLERANCE = 1e-5  # of logits


def head_of(graph: str, alpha: float, k_prop: int, *, norm: bool) -> TAGHead:
    """The same parameters at each call, whatever the graph."""
    torch.manual_seed(0)
    edges, combination = GRAPHS[graph]
    options = {"edges": edges, "edge_combination": combination, "alpha": alpha, "k_prop": k_prop}
    return TAGHead(CHANNELS, GRID, CLASSES, ffn_dim=FFN_DIM, classifier_norm=norm, **options).eval()


@torch.no_grad()
def logits_of(head: TAGHead, tokens: Tokens, batch: int) -> Float[Tensor, "n K"]:
    return torch.cat([head(part) for part in tokens.split(batch)])


@torch.no_grad()
def frame_means(head: TAGHead, tokens: Tokens, batch: int) -> Float[np.ndarray, "n T C"]:
    return torch.cat([head.encode(part).mean(dim=2) for part in tokens.split(batch)]).numpy()


def surface(head: TAGHead, means: Float[np.ndarray, "n T C"], labels: np.ndarray) -> int:
    """All settings from the frames' means; how many there were."""
    grid = (GRID[0], GRID[1] * GRID[2])
    one = Trained(frame_logits(head.classifier, means), grid, labels, np.ones(len(labels), bool))
    return len(surface_data([one]))


def check(head: TAGHead, tokens: Tokens, batch: int, *, norm: bool) -> float:
    """The largest difference of a logit to a head that has the graph itself; stops where it is too large."""
    frames, worst = frame_logits(head.classifier, frame_means(head, tokens, batch)), 0.0
    for graph, alpha, k_prop in CHECKED:
        other = head_of(graph, alpha, k_prop, norm=norm)
        moved = GRID[0] * other.frame_weights.numpy()[None] - 1
        ours = frames.plain + frames.changes(moved)[0]
        worst = max(worst, float(np.abs(ours - logits_of(other, tokens, batch).numpy()).max()))
    if worst > TOLERANCE:
        raise SystemExit(f"logits must agree to {TOLERANCE}, but differ by {worst:.1e}")
    return worst


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(tokens: Tokens, labels: np.ndarray, *, batch: int, turns: int, norm: bool) -> dict:
    """Seconds and ratios of one classifier, turn by turn."""
    head = head_of("IF-FC + TAT, union", 0.1, 10, norm=norm)
    worst = check(head, tokens[: 2 * batch], batch, norm=norm)
    means = frame_means(head, tokens[:batch], batch).repeat(-(-len(tokens) // batch), axis=0)[: len(tokens)]
    taken: list[tuple[float, float]] = []
    for _ in range(turns):
        ours = seconds(lambda: surface(head, means, labels))
        passes = seconds(lambda: [logits_of(head, tokens, batch) for _ in range(PASSES)])
        taken.append((ours, passes))
    ratios = [ours / passes for ours, passes in taken]
    ours, passes = map(statistics.median, zip(*taken, strict=True))
    return {
        "largest_difference": worst, "surface_s": ours, "three_passes_s": passes, "ratio": statistics.median(ratios),
        "min": min(ratios), "max": max(ratios),
    }  # fmt: skip


def markdown(result: dict) -> str:
    where, (clips, time_steps, sites, channels) = result["machine"], result["shape"]
    lines = [
        "# The graph's surface",
        "",
        f"{where['date']}, {where['cpu']}, {where['cores']} cores, {where['threads']} thread(s), load "
        f"{where['load_before']} before; torch {where['torch']}, NumPy {where['numpy']}.",
        f"{result['settings']:,} settings of the graph (alpha x K_prop x edges) on {clips:,} clips; T = {time_steps}, "
        f"P = {sites}, C = {channels}, {CLASSES} classes, FFN {FFN_DIM}, float32; {result['turns']} turns. Each "
        "setting: largest and mean change of a logit, flips, Top-1, MCA.",
        "A ratio is to three passes of the head alone over cached tokens in the same turn; in brackets its range. The "
        f"surface runs on one thread, from the frames' means as a trial keeps them; the pass that they come from would "
        f"add 1/{PASSES} to a ratio.",
        "",
        "| classifier | surface, s | three passes, s | ratio | logits differ by at most |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        ratio = f"{row['ratio']:.3f} ({row['min']:.3f} to {row['max']:.3f})"
        times = f"{row['surface_s']:.2f} | {row['three_passes_s']:.1f}"
        lines.append(f"| {name} | {times} | {ratio} | {row['largest_difference']:.1e} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = arguments(__doc__, turns=3, quick_turns=1)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    where = machine("torch", "numpy", threads=torch.get_num_threads())
    torch.manual_seed(1)
    tokens = torch.randn(args.clips, GRID[0], GRID[1] * GRID[2], CHANNELS)
    labels = np.random.default_rng(0).integers(CLASSES, size=args.clips)
    classifiers = {"linear (the paper)": False, "LayerNorm, linear (the released code)": True}
    rows = {
        name: measure(tokens, labels, batch=args.batch, turns=turns_of(args), norm=norm)
        for name, norm in classifiers.items()
        if not (norm and args.quick)
    }
    settings = len(GRAPHS) * len(ALPHAS) * len(STEPS)
    result = {"machine": where, "shape": tokens.shape, "settings": settings, "turns": turns_of(args), "rows": rows}
    targets = [
        Row(
            f"{settings:,} graphs on {args.clips:,} clips, {name}", f"{PASSES} passes of the head",
            Ratio(row["ratio"], row["min"], row["max"]), "time", 1, "at most",
        )
        for name, row in rows.items()
    ]  # fmt: skip
    write("surface", targets, out=args.out, text=markdown(result), **result)


if __name__ == "__main__":
    main()
