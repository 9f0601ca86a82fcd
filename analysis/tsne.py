"""Figure 3: t-SNE of the pooled vectors in the three stages TL, FT, TAG, with numbers that say what the eye may not.

Command: ``taghead-analysis tsne stages``. Any study that keeps embeddings has such a figure: a panel a row, and a line
of panels a data set.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from numpy import ndarray
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from analysis.embeddings import FEWEST, Clips, class_names, family_of, load
from analysis.figure import MARKERS, PAGE, PALETTE, stamp, styled
from analysis.tables import signed
from studies.plan import Plan
from taghead.errors import InputError

NEIGHBOURS = 5  # at the most
LEGEND_CLASSES = 20  # with more, a legend would be larger than the figure
ROOMY = 400  # points of a panel, from which they are drawn smaller
MAX_POINTS = 2000  # drawn; the scores use every clip
EVENTS = {"VT": "vault", "FX": "floor exercise", "BB": "balance beam", "UB": "uneven bars"}  # FineGym's


def tsne_data(rows: list[Clips], *, perplexity: float = 30.0, seed: int = 0) -> pd.DataFrame:
    """Where each clip is drawn: one t-SNE a row, over the same clips.

    Args:
        rows: As from `load`.
        perplexity: Clamped to (n - 1) / 3, which t-SNE's authors advise at the most.
        seed: Of the drawn clips, where there are more than `MAX_POINTS`. t-SNE itself starts from the principal
            components, and has nothing random left but its tie-breaking, which the seed fixes too.

    Returns:
        Columns ``dataset, panel, id, label, name, family, x, y, perplexity, asked``: the perplexity that was used, and
        the one that was asked for. ``family`` is what FineGym's elements begin with, as ``VT``; empty where nothing.

    Raises:
        InputError: Fewer than four clips.
    """
    n = len(rows[0].ids)
    if n < FEWEST:
        raise InputError(f"t-SNE of {rows[0].dataset} needs at least {FEWEST} clips that every row has, but got {n}.")
    drawn = np.sort(np.random.default_rng(seed).permutation(n)[:MAX_POINTS])
    asked, perplexity = perplexity, min(perplexity, (len(drawn) - 1) / 3)
    names = class_names(rows[0])
    families = {name: family_of(name) for name in names.values()}
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
                    "dataset": clips.dataset,
                    "panel": clips.row,
                    "id": clips.ids[drawn],
                    "label": labels,
                    "name": [names[label] for label in labels.tolist()],
                    "family": [families[names[label]] for label in labels.tolist()],
                    "x": places[:, 0],
                    "y": places[:, 1],
                    "perplexity": perplexity,
                    "asked": asked,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def scores_data(rows: list[Clips]) -> pd.DataFrame:
    """How well the classes are apart in the space of the vectors itself, whatever the picture looks like.

    Args:
        rows: As from `load`.

    Returns:
        Columns ``dataset, panel, clips, classes, silhouette`` (-1 to 1; NaN where it is not defined), ``k`` (as from
        `num_neighbours`) and ``knn``, the percentage of clips that the k nearest others give the right class
        (leave-one-out; ties go to the lower label).
    """
    records = []
    for clips in rows:
        classes = len(np.unique(clips.labels))
        defined = 2 <= classes < len(clips.ids)
        records.append(
            {
                "dataset": clips.dataset,
                "panel": clips.row,
                "clips": len(clips.ids),
                "classes": classes,
                "silhouette": float(silhouette_score(clips.vectors, clips.labels)) if defined else float("nan"),
                "k": num_neighbours(clips.labels),
                "knn": 100 * knn_accuracy(clips.vectors, clips.labels),
            }
        )
    return pd.DataFrame(records)


def num_neighbours(labels: ndarray) -> int:
    """How many nearest neighbours vote: no more than a clip of the smallest class has in its own class.

    Args:
        labels: n classes, from 0.
    """
    return max(1, min(NEIGHBOURS, int(np.unique(labels, return_counts=True)[1].min()) - 1))


def knn_accuracy(vectors: ndarray, labels: ndarray) -> float:
    """Leave-one-out accuracy of a vote of the `num_neighbours` nearest, Euclidean, as a fraction.

    Args:
        vectors: (n, C).
        labels: n classes, from 0.
    """
    neighbours = NearestNeighbors(n_neighbors=num_neighbours(labels)).fit(vectors).kneighbors(return_distance=False)
    votes = np.zeros((len(labels), int(labels.max()) + 1), dtype=int)
    np.add.at(votes, (np.arange(len(labels))[:, None], labels[neighbours]), 1)
    return float((votes.argmax(axis=1) == labels).mean())


@styled
def draw_tsne(data: pd.DataFrame, scores: pd.DataFrame, *, synthetic: bool) -> Figure:
    """A panel a row, a line of panels a data set; a class has the same colour and marker in all panels of its line.

    Args:
        data: As from `tsne_data`; of several data sets, one below the other.
        scores: As from `scores_data`, written under the panels; likewise.
        synthetic: Stamps the figure.
    """
    datasets = list(dict.fromkeys(scores["dataset"]))
    panels = list(dict.fromkeys(scores["panel"]))
    legends = [_legend(data[data["dataset"] == dataset]) for dataset in datasets]
    side = PAGE / max(len(panels), 3)
    # a line of a legend is 0.15 inches high; titles and numbers take 0.45
    lines = [-(-len(legend) // 4) + bool(legend) + (len(datasets) > 1) for legend in legends]
    heights = [side + 0.45 + 0.15 * number for number in lines]
    figure = Figure(figsize=(PAGE, sum(heights) + 0.15 * synthetic), layout="constrained")
    parts = figure.subfigures(len(datasets), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, dataset, legend in zip(parts, datasets, legends, strict=True):
        if len(datasets) > 1:
            part.suptitle(dataset, fontsize=8, fontweight="bold")
        _draw_line(part, data[data["dataset"] == dataset], scores[scores["dataset"] == dataset], panels)
        if legend:
            part.legend(handles=legend, loc="outside lower center", ncols=4, markerscale=1.3)
    return stamp(figure, synthetic=synthetic)


def _draw_line(part: SubFigure, data: pd.DataFrame, scores: pd.DataFrame, panels: list[str]) -> None:
    looks = _looks(data)
    size = 14 if len(data) <= ROOMY * len(scores) else 6
    known = {score.panel: score for score in scores.itertuples()}
    for axis, panel in zip(part.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axis.set(title=panel, xticks=[], yticks=[])
        axis.set_box_aspect(1)
        axis.grid(False)
        axis.spines[["top", "right"]].set_visible(True)
        if panel not in known:
            axis.text(0.5, 0.5, "no embeddings", ha="center", transform=axis.transAxes, fontsize=7, color="#666666")
            continue
        axis.set_xlabel(in_words(known[panel]))
        points = data[data["panel"] == panel]
        for label, (colour, marker) in looks.items():
            mine = points[points["label"] == label]
            axis.scatter(mine["x"], mine["y"], s=size, color=colour, marker=marker, linewidths=0, alpha=0.85)


def in_words(score: Any) -> str:
    """What stands under a panel.

    Args:
        score: One of `scores_data`.
    """
    defined = not np.isnan(score.silhouette)
    silhouette = f"silhouette {signed(score.silhouette, 2).lstrip('+')}" if defined else "no silhouette"
    return f"{score.k}-NN {score.knn:.1f} %, {silhouette}"


Look = tuple[object, str]  # colour and marker


def _legend(data: pd.DataFrame) -> list[Line2D]:
    """Every class while they are few, else the families, if any; with more, it would be larger than the figure."""
    names = _names(data)
    if len(names) <= LEGEND_CLASSES:
        looks = _looks(data)
        return [_handle(name, *looks[label]) for label, name in names.items()]
    counts = data.drop_duplicates("label")["family"].value_counts(sort=False)
    families = _families(data)
    return [
        _handle(f"{EVENTS.get(family, family)} ({counts[family]} classes)", colour, "o")
        for family, colour in families.items()
    ]


def _handle(label: str, colour: object, marker: str) -> Line2D:
    return Line2D([], [], ls="none", marker=marker, color=colour, label=label)  # type: ignore[arg-type]


def _names(data: pd.DataFrame) -> dict[int, str]:
    first = data.drop_duplicates("label").sort_values("label")
    return dict(zip(first["label"].tolist(), first["name"].tolist(), strict=True))


def _families(data: pd.DataFrame) -> dict[str, str]:
    """A colour a family, where every class has one and there are colours for all; else none."""
    found = list(dict.fromkeys(data.sort_values("label")["family"]))
    return dict(zip(found, PALETTE, strict=False)) if all(found) and 2 <= len(found) <= 7 else {}


def _looks(data: pd.DataFrame) -> dict[int, Look]:
    """Colour and marker by class: safe colours while they last, shades of the family's, or else the hue circle."""
    labels = list(_names(data))
    if len(labels) <= LEGEND_CLASSES:
        return _in_turn(labels, list(PALETTE[:7]))
    if families := _families(data):
        looks: dict[int, Look] = {}
        for family, colour in families.items():
            mine = sorted(data.loc[data["family"] == family, "label"].unique().tolist())
            shades = -(-len(mine) // len(MARKERS))
            for index, label in enumerate(mine):  # classes of one set are neighbours by label: they share a shade
                shade = _shade(colour, (index // len(MARKERS)) / (shades - 1) if shades > 1 else 0.5)
                looks[label] = (shade, MARKERS[index % len(MARKERS)])
        return dict(sorted(looks.items()))
    from seaborn import color_palette  # slow to load, and few figures need it

    return _in_turn(labels, color_palette("husl", -(-len(labels) // 4)))


def _in_turn(labels: list[int], colours: Sequence[object]) -> dict[int, Look]:
    return {
        label: (colours[index % len(colours)], MARKERS[(index // len(colours)) % len(MARKERS)])
        for index, label in enumerate(labels)
    }


def _shade(colour: str, place: float) -> tuple[float, ...]:
    """From dark (0) through the colour itself to light (1)."""
    towards, share = (0.0, 0.35 * (1 - 2 * place)) if place < 0.5 else (1.0, 0.6 * (2 * place - 1))
    return tuple((1 - share) * value + share * towards for value in to_rgb(colour))


def note(data: pd.DataFrame, scores: pd.DataFrame, *, dataset: str, seed: int, left_out: Iterable[str] = ()) -> str:
    """What was drawn, for the caption.

    Args:
        data: As from `tsne_data`.
        scores: As from `scores_data`.
        dataset: The column.
        seed: The trial's seed.
        left_out: As from `load`.
    """
    data, scores = data[data["dataset"] == dataset], scores[scores["dataset"] == dataset]
    drawn, clips, classes = len(data) // len(scores), scores["clips"].iloc[0], scores["classes"].iloc[0]
    perplexity, asked = data["perplexity"].iloc[0], data["asked"].iloc[0]
    k = scores["k"].iloc[0]
    nearest = f"{k} nearest neighbours" if k > 1 else "nearest neighbour"
    shown = f"{drawn:,} of {clips:,}" if drawn < clips else f"{drawn:,}"
    said = [
        f"{dataset}, seed {seed}: {shown} test clips of {classes} classes, the same in all panels, perplexity "
        f"{perplexity:.3g}{_clamped(perplexity, asked, drawn)}.",
        f"Under each panel, in the space of the pooled vectors ({clips:,} clips): leave-one-out accuracy of the "
        f"{nearest}{_fewer(k)}, and the silhouette. Distances between clusters mean nothing in a t-SNE.",
    ]
    if classes > LEGEND_CLASSES and (families := _families(data)):
        told = ", ".join(f"{EVENTS.get(one, one)} ({one})" for one in families)
        said.append(f"Colours: {told}; shades and markers: their classes.")
    return " ".join([*said, *left_out])


def _fewer(k: int) -> str:
    if k == NEIGHBOURS:
        return ""
    return f" (and not {NEIGHBOURS}: the smallest class has {k + 1 if k > 1 else 'one or two'} clips)"


def _clamped(perplexity: float, asked: float, drawn: int) -> str:
    if perplexity >= asked:
        return ""
    return f" ({asked:g} was asked for, but {drawn} points bear a third of {drawn - 1} at the most)"


def of_datasets(
    results: Path,
    plan: Plan,
    datasets: Iterable[str],
    *,
    seed: int,
    perplexity: float = 30.0,
    classes: Mapping[str, tuple[str, ...]] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """All that `draw_tsne` needs of several columns, one below the other.

    Args:
        results: The results folder.
        plan: The study.
        datasets: Its columns.
        seed: One of its seeds.
        perplexity: As for `tsne_data`.
        classes: Names by column, as for `load`.

    Returns:
        As from `tsne_data` and `scores_data`, and a note a column; one without embeddings has its error there.

    Raises:
        InputError: No column has embeddings that can be drawn.
    """
    drawn, scored, said, errors = [], [], [], list[str]()
    for dataset in datasets:
        try:
            named = (classes or {}).get(dataset, ())
            rows, left_out = load(results, plan, dataset=dataset, seed=seed, classes=named)
            data, scores = tsne_data(rows, perplexity=perplexity, seed=0), scores_data(rows)
        except InputError as error:
            errors.append(str(error))
            continue
        drawn.append(data)
        scored.append(scores)
        said.append(note(data, scores, dataset=dataset, seed=seed, left_out=left_out))
    if not drawn:
        raise InputError(" ".join(errors))
    return pd.concat(drawn, ignore_index=True), pd.concat(scored, ignore_index=True), [*said, *errors]
