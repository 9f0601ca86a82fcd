"""t-SNE as the figures have it (scikit-learn's default, one thread) against quicker ways, by time and neighbours kept.

    python benchmarks/bench_tsne.py

One thread, as in `analysis.tsne`: sums over several would differ in their last bits. openTSNE takes part where it is
installed (``pip install openTSNE``; not a dependency). Writes tsne.json and tsne.md.
"""

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from machine import machine
from numpy import ndarray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits
from turns import Row, arguments, digits, ratio, spread, turns_of, write

POINTS, QUICK_POINTS, CHANNELS, CLASSES = 10_000, 2000, 512, 99
NEIGHBOURS = 10
QUICKER, WORSE = 0.7, -0.005  # at most this share of the time, and the difference of neighbours kept at least this
DEFAULT = "scikit-learn's default"


def embeddings(points: int) -> ndarray:
    """Vectors like a trained head's: a centre a class, a few directions of spread, noise, nothing below zero."""
    draw = np.random.default_rng(0)
    labels = draw.integers(CLASSES, size=points)
    centres = draw.normal(size=(CLASSES, CHANNELS))
    within = draw.normal(size=(points, 20)) @ draw.normal(scale=0.15, size=(20, CHANNELS))
    noise = draw.normal(scale=0.7, size=(points, CHANNELS))
    return np.maximum(centres[labels] + within + noise, 0).astype(np.float32)


def barnes_hut(**options: Any) -> Callable[[ndarray], ndarray]:
    """scikit-learn's, started from the principal components as it does by default."""
    return lambda x: TSNE(**{"init": "pca", "random_state": 0, "n_jobs": 1} | options).fit_transform(x)


def after_pca(x: ndarray) -> ndarray:
    return barnes_hut()(PCA(min(50, *x.shape), random_state=0).fit_transform(x))


def interpolated(x: ndarray) -> ndarray:
    """OpenTSNE's interpolation on a grid, from exact neighbours."""
    from openTSNE import TSNE as ByInterpolation

    options = {"negative_gradient_method": "fft", "neighbors": "exact", "initialization": "pca"}
    return np.asarray(ByInterpolation(n_jobs=1, random_state=0, **options).fit(x.astype(np.float64)))


def ways() -> dict[str, Callable[[ndarray], ndarray]]:
    """The default first."""
    found = {
        DEFAULT: barnes_hut(),
        "from 50 principal components": after_pca,
        "750 iterations of 1,000": barnes_hut(max_iter=750),
        "750 iterations, angle 0.7 of 0.5": barnes_hut(max_iter=750, angle=0.7),
    }
    return found | ({"openTSNE by FFT": interpolated} if find_spec("openTSNE") else {})


def neighbours(x: ndarray) -> ndarray:
    return NearestNeighbors(n_neighbors=NEIGHBOURS).fit(x).kneighbors(return_distance=False)


def kept(before: ndarray, after: ndarray) -> float:
    """The share of the nearest neighbours that are so in the picture too."""
    pairs = zip(before, neighbours(after), strict=True)
    return float(np.mean([len(np.intersect1d(one, other)) / NEIGHBOURS for one, other in pairs]))


def measured(x: ndarray, *, turns: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds by turn, and the neighbours that each way keeps."""
    candidates, before = ways(), neighbours(x)
    times: dict[str, list[float]] = {name: [] for name in candidates}
    shares: dict[str, float] = {}
    for way in candidates.values():
        way(x[:200])  # loads what it needs
    for _ in range(turns):
        for name, way in candidates.items():
            start = time.perf_counter()
            places = way(x)
            times[name].append(time.perf_counter() - start)
            shares[name] = kept(before, places)
    return times, shares


def best(times: dict[str, list[float]], shares: dict[str, float]) -> str:
    """The quickest of those that keep as many neighbours as the default; it may be the default itself."""
    as_good = [name for name, share in shares.items() if share - shares[DEFAULT] >= WORSE]
    return min(as_good, key=lambda name: ratio(times[name], times[DEFAULT]).median)


def rows_of(times: dict[str, list[float]], shares: dict[str, float], points: int) -> list[Row]:
    """The quickest that is as good, and then each of the others with what it gains and loses."""
    what, first = f"t-SNE of {points:,} x {CHANNELS}", best(times, shares)
    told = f"{what}, the quickest that keeps as many neighbours: {first}"
    rows = [Row(told, DEFAULT, ratio(times[first], times[DEFAULT]), "time", QUICKER, "at most")]
    for name in list(times)[1:]:
        rows += [
            Row(f"{what}, {name}", DEFAULT, ratio(times[name], times[DEFAULT]), "time"),
            Row(f"{what}, {name}", "share of neighbours kept, less the default's",
                spread([shares[name] - shares[DEFAULT]]), "number"),
        ]  # fmt: skip
    return rows


def page(where: dict[str, Any], times: dict[str, list[float]], shares: dict[str, float], points: int) -> str:
    """A line a way, and the verdict."""
    lines = [
        "# t-SNE",
        "",
        f"{where['date']}, {where['cpu']}, 1 thread, load {where['load_before']} before; scikit-learn "
        f"{where['scikit_learn']}. {points:,} x {CHANNELS}; neighbours kept: of the {NEIGHBOURS} nearest, those that "
        "are among as many nearest in the picture.",
        "",
        "| way | seconds | neighbours kept |",
        "|---|---|---|",
        *(f"| {name} | {digits(spread(times[name]).median)} | {share:.3f} |" for name, share in shares.items()),
        "",
    ]
    found = best(times, shares)
    reached = ratio(times[found], times[DEFAULT]).median <= QUICKER
    verdict = (
        f"{found} is as good and takes at most {QUICKER} x the time."
        if reached
        else f"None is as good in at most {QUICKER} x the time: {DEFAULT} stays."
    )
    return "\n".join([*lines, verdict])


def main() -> None:
    args = arguments(__doc__, turns=3, quick_turns=1).parse_args()
    where = machine("scikit-learn", threads=1)
    points, turns = QUICK_POINTS if args.quick else POINTS, turns_of(args)
    with threadpool_limits(1):
        times, shares = measured(embeddings(points), turns=turns)
    rows, text = rows_of(times, shares, points), page(where, times, shares, points)
    write("tsne", rows, out=args.out, machine=where, text=text, points=points, seconds=times, kept=shares)


if __name__ == "__main__":
    main()
