"""Figure 3: t-SNE of the pooled vectors in the three stages TL, FT, TAG, with numbers that say what the eye may not.

Command: ``taghead-analysis tsne stages``. Any study that keeps embeddings has such a figure, a panel a row.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy import ndarray
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from analysis.cells import read_arrays, trial_in_words
from analysis.figure import MARKERS, PAGE, PALETTE, new_figure, stamp, styled
from analysis.formats import MINUS
from studies.plan import Plan
from taghead.errors import InputError, nearest

NEIGHBOURS = 5
LEGEND_CLASSES = 20  # with more, a legend would be larger than the figure
MAX_POINTS = 2000  # drawn; the scores use every clip


@dataclass(frozen=True)
class Clips:
    """The pooled vectors of one row: n clips of C channels.

    Attributes:
        row: The study's row.
        ids: The clips that decode.
        labels: Their classes.
        vectors: (n, C).
    """

    row: str
    ids: ndarray
    labels: ndarray
    vectors: ndarray


def load(results: Path, plan: Plan, *, dataset: str, seed: int) -> tuple[list[Clips], list[str]]:
    """The embeddings of each row that has them, all over the same clips in the same order.

    Args:
        results: The results folder.
        plan: The study.
        dataset: One of its columns.
        seed: One of its seeds.

    Returns:
        The rows, and a sentence on each trial whose file is damaged.

    Raises:
        InputError: No such column or seed, or no row with embeddings that can be read.
    """
    if dataset not in plan.datasets:
        raise InputError(f"study {plan.name} has no data set {dataset!r}{nearest(dataset, plan.datasets)}")
    if seed not in plan.seeds:
        raise InputError(f"study {plan.name} has no seed {seed}; it has {', '.join(map(str, plan.seeds))}.")
    found, left_out = [], []
    for row in plan.rows:
        cell = plan.cell(row, dataset)
        path = results / "trials" / cell.trials[seed] / "embeddings.npz"
        if path.exists():
            try:
                found.append(_read(path, row))
            except InputError as error:
                left_out.append(f"{trial_in_words(cell, seed)}: {error} and was left out.")
    if not found and left_out:
        raise InputError(f"study {plan.name}: no embeddings to draw. {' '.join(left_out)}")
    if not found:
        raise InputError(
            f"study {plan.name}, {dataset}, seed {seed}: no trial with embeddings; run taghead-studies run "
            f"{plan.name} --keep embeddings first."
        )
    common = sorted(set.intersection(*(set(clips.ids.tolist()) for clips in found)))
    return [_in_order(clips, common) for clips in found], left_out


def _read(path: Path, row: str) -> Clips:
    ids, labels, vectors = read_arrays(path, ("ids", "labels", "embeddings"))
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or labels.dtype.kind not in "iu":
        raise InputError(f"{path.name} holds no vectors with labels")
    readable = ~np.isnan(vectors).any(axis=1)
    return Clips(row, ids[readable], labels[readable], vectors[readable])


def _in_order(clips: Clips, ids: list[str]) -> Clips:
    place = {one: index for index, one in enumerate(clips.ids.tolist())}
    order = np.array([place[one] for one in ids], dtype=int)
    return Clips(clips.row, clips.ids[order], clips.labels[order], clips.vectors[order])


def tsne_data(rows: list[Clips], *, perplexity: float = 30.0, seed: int = 0) -> pd.DataFrame:
    """Where each clip is drawn: one t-SNE a row, over the same clips.

    Args:
        rows: As from `load`.
        perplexity: Clamped to (n - 1) / 3, which t-SNE's authors advise at the most.
        seed: Of the drawn clips, where there are more than `MAX_POINTS`. t-SNE itself starts from the principal
            components, and has nothing random left but its tie-breaking, which the seed fixes too.

    Returns:
        Columns ``panel, id, label, name, x, y, perplexity``.

    Raises:
        InputError: Fewer than four clips.
    """
    n = len(rows[0].ids)
    if n < 4:
        raise InputError(f"t-SNE needs at least 4 clips, but got {n}.")
    drawn = np.sort(np.random.default_rng(seed).permutation(n)[:MAX_POINTS])
    perplexity = min(perplexity, (len(drawn) - 1) / 3)
    names = class_names(rows[0])
    frames = []
    for clips in rows:
        vectors = clips.vectors[drawn].astype(np.float64)
        model = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed, n_jobs=1)
        with threadpool_limits(1):  # sums over several threads would differ in their last bits
            places = model.fit_transform(vectors)
        labels = clips.labels[drawn]
        frames.append(
            pd.DataFrame(
                {
                    "panel": clips.row,
                    "id": clips.ids[drawn],
                    "label": labels,
                    "name": [names[label] for label in labels.tolist()],
                    "x": places[:, 0],
                    "y": places[:, 1],
                    "perplexity": perplexity,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def scores_data(rows: list[Clips]) -> pd.DataFrame:
    """How well the classes are apart in the space of the vectors itself, whatever the picture looks like.

    Args:
        rows: As from `load`.

    Returns:
        Columns ``panel, clips, classes, silhouette`` (-1 to 1; NaN where it is not defined) and ``knn``, the percentage
        of clips that the `NEIGHBOURS` nearest others give the right class (leave-one-out; ties go to the lower label).
    """
    records = []
    for clips in rows:
        classes = len(np.unique(clips.labels))
        defined = 2 <= classes < len(clips.ids)
        records.append(
            {
                "panel": clips.row,
                "clips": len(clips.ids),
                "classes": classes,
                "silhouette": float(silhouette_score(clips.vectors, clips.labels)) if defined else float("nan"),
                "knn": 100 * knn_accuracy(clips.vectors, clips.labels),
            }
        )
    return pd.DataFrame(records)


def knn_accuracy(vectors: ndarray, labels: ndarray) -> float:
    """Leave-one-out accuracy of a vote of the nearest neighbours, Euclidean, as a fraction.

    Args:
        vectors: (n, C).
        labels: n classes, from 0.
    """
    k = min(NEIGHBOURS, len(labels) - 1)
    neighbours = NearestNeighbors(n_neighbors=k).fit(vectors).kneighbors(return_distance=False)
    votes = np.zeros((len(labels), int(labels.max()) + 1), dtype=int)
    np.add.at(votes, (np.arange(len(labels))[:, None], labels[neighbours]), 1)
    return float((votes.argmax(axis=1) == labels).mean())


def class_names(clips: Clips) -> dict[int, str]:
    """Names by label, where the clips' ids carry them (``<class>_<number>``), else ``class <label>``.

    Args:
        clips: Any row.
    """
    stems: dict[int, set[str]] = {}
    for one, label in zip(clips.ids.tolist(), clips.labels.tolist(), strict=True):
        stems.setdefault(label, set()).add(re.sub(r"_\d+$", "", one.rpartition("/")[2]))
    shared = len(set.union(*stems.values())) < len(stems)
    return {
        label: next(iter(found)).replace("_", " ") if len(found) == 1 and not shared else f"class {label}"
        for label, found in stems.items()
    }


@styled
def draw_tsne(data: pd.DataFrame, scores: pd.DataFrame, *, synthetic: bool) -> Figure:
    """A panel a row; a class has the same colour and marker in all of them.

    Args:
        data: As from `tsne_data`.
        scores: As from `scores_data`, written under the panels.
        synthetic: Stamps the figure.
    """
    panels = scores["panel"].tolist()
    labels = sorted(data["label"].unique())
    few = len(labels) <= LEGEND_CLASSES
    figure, axes = new_figure(PAGE, PAGE / max(len(panels), 3) + (0.75 if few else 0.45), columns=len(panels))
    looks = _looks(labels)
    for axis, score in zip(axes, scores.itertuples(), strict=True):
        points = data[data["panel"] == score.panel]
        for label in labels:
            mine = points[points["label"] == label]
            colour, marker = looks[label]
            axis.scatter(
                mine["x"], mine["y"], s=14 if few else 6, color=colour, marker=marker, linewidths=0, alpha=0.85,
                label=mine["name"].iloc[0] if len(mine) else None,
            )  # fmt: skip
        axis.set(title=score.panel, xticks=[], yticks=[])
        axis.set_box_aspect(1)
        axis.grid(False)
        axis.spines[["top", "right"]].set_visible(True)
        axis.set_xlabel(
            f"{NEIGHBOURS}-NN {score.knn:.1f} %, silhouette {score.silhouette:.2f}".replace("-0", f"{MINUS}0")
        )
    if few:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, markerscale=1.3)
    return stamp(figure, synthetic=synthetic)


def _looks(labels: list[int]) -> dict[int, tuple[object, str]]:
    """Colour and marker by class: safe colours while they last, then the hue circle; neighbours differ in marker."""
    colours = PALETTE[:7] if len(labels) <= 7 * len(MARKERS) and len(labels) <= LEGEND_CLASSES else None
    if colours is None:
        from seaborn import color_palette  # slow to load, and few figures need it

        colours = color_palette("husl", -(-len(labels) // 4))
    return {
        label: (colours[index % len(colours)], MARKERS[(index // len(colours)) % len(MARKERS)])
        for index, label in enumerate(labels)
    }


def note(data: pd.DataFrame, scores: pd.DataFrame, *, dataset: str, seed: int, left_out: Iterable[str] = ()) -> str:
    """What was drawn, for the caption.

    Args:
        data: As from `tsne_data`.
        scores: As from `scores_data`.
        dataset: The column.
        seed: The trial's seed.
        left_out: As from `load`.
    """
    drawn = len(data) // len(scores)
    said = (
        f"{dataset}, seed {seed}: {drawn} test clips of {scores['classes'].iloc[0]} classes, the same in all panels, "
        f"perplexity {data['perplexity'].iloc[0]:.0f}. Under each panel, in the space of the pooled vectors "
        f"({scores['clips'].iloc[0]} clips): leave-one-out accuracy of the {NEIGHBOURS} nearest neighbours, and the "
        "silhouette. Distances between clusters mean nothing in a t-SNE."
    )
    return " ".join([said, *left_out])
