"""What each section of the report holds: a study's tables and figures, what the graph does, what it costs."""

import base64
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis import (
    cells,
    classes,
    complexity,
    curves,
    efficiency,
    findings,
    frame_weights,
    growth,
    latency,
    surface,
    sweeps,
    tsne,
)  # fmt: skip
from analysis.differences import METRIC_NAMES
from analysis.figure import to_bytes
from analysis.formats import Table
from analysis.frame_logits import load
from analysis.notes import compare_rows, sentence
from analysis.places import slug
from analysis.search import candidates_table
from analysis.search_figures import search_figures
from analysis.tables import study_table
from studies.candidates import searches
from studies.plan import Cell, Plan
from taghead.backbones import grid_of
from taghead.backbones.own import is_own
from taghead.errors import InputError

# a study of a hundred rows has its table; its curves would be a tangle
MAX_CURVE_ROWS = curves.MAX_LINES
MAX_COLUMNS = 12  # of all studies together that have figures of their own: a page is to be read, and mailed


@dataclass(frozen=True)
class Picture:
    """A figure in the report.

    Attributes:
        name: Its file's stem.
        png: The image.
        width: Inches on paper, from which the page makes its own size.
        alt: What it shows, for those who do not see it.
        caption: The sentence under it.
    """

    name: str
    png: bytes
    width: float
    alt: str
    caption: str

    @property
    def image(self) -> str:
        """The image as a data URI."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True)
class Part:
    """One question within a study's section."""

    title: str
    sentences: list[str]
    tables: list[Table]
    pictures: list[Picture]


@dataclass(frozen=True)
class Section:
    """One study in the report."""

    plan: Plan
    frame: pd.DataFrame  # as from `analysis.cells.join`
    progress: dict[str, Any]
    table: Table
    candidates: Table | None  # of a search
    found: list[str]
    limits: list[str]
    pictures: list[Picture]
    parts: list[Part]


def picture(figure: Figure, name: str, *, alt: str, caption: str) -> Picture:
    """A figure made ready to stand in the file itself.

    Args:
        figure: What to show.
        name: Its file's stem.
        alt: What it shows, in words.
        caption: The sentence under it.
    """
    return Picture(name, to_bytes(figure, "png"), figure.get_figwidth(), alt, caption)


def section(results: Path, plan: Plan, *, columns: int = MAX_COLUMNS) -> Section:
    """All that there is to say about one study.

    Args:
        results: The results folder.
        plan: The study.
        columns: How many of its columns have figures of their own.
    """
    frame = cells.join(results, plan)
    table = study_table(results, plan, frame)
    drawn = first_columns(plan, columns)
    panels, unread = _tsne_pictures(results, drawn)
    by_class, damaged = classes.classes_figures(results, drawn)
    parts = [
        *_graph_part(results, plan),
        Part("Over the swept setting", [], [], _pictures(sweeps.sweep_figures(results, drawn))),
        Part("Class by class", [], [one[4] for one in by_class], _pictures(one[:4] for one in by_class)),
    ]
    if searched := plan.name in searches(results):
        parts.append(Part("The search", [], [], _pictures(search_figures(results, plan.name))))
    return Section(
        plan=plan,
        frame=frame,
        progress=findings.progress(frame),
        table=table,
        candidates=candidates_table(results, plan.name) if searched else None,
        found=[*findings.found(plan, table.data, frame), *_identical(results, plan)],
        limits=[*findings.limits(plan, table.data, frame), *_not_drawn(plan, drawn, results), *unread, *damaged],
        pictures=[
            *panels,
            *_curve_pictures(results, drawn),
            *_accuracy_pictures(results, drawn),
        ],
        parts=[part for part in parts if part.pictures or part.sentences],
    )


def first_columns(plan: Plan, number: int) -> Plan:
    """A study as if it had no more than its first columns.

    Args:
        plan: The study.
        number: Of columns.
    """
    datasets = plan.datasets[:number]
    cut = tuple(cell for cell in plan.cells if cell.dataset in datasets)
    return plan.model_copy(update={"datasets": datasets, "cells": cut})


def _not_drawn(plan: Plan, drawn: Plan, results: Path) -> list[str]:
    """Which columns have no figures, and the command that makes a page with them."""
    if drawn.datasets == plan.datasets:
        return []
    left_out = len(plan.datasets) - len(drawn.datasets)
    command = shlex.join(["taghead-analysis", "report", plan.name, "--results", str(results)])
    return [
        f"Figures are of {', '.join(drawn.datasets)} alone: the page would grow too large with those of the other "
        f"{left_out} columns. {command} shows {MAX_COLUMNS} columns of one study, "
        f"and taghead-analysis sweeps or classes {plan.name} draws all."
    ]


def _graph_part(results: Path, plan: Plan) -> list[Part]:
    """The graph's effect on trained models: rows that differ in it alone, and every graph on a model that was kept."""
    said = surface.trained_statements(surface.trained_effects(results, plan))
    title = "The graph's effect on trained models"
    if not {"weights", "frame_means"} <= set(plan.keep):
        return [Part(title, said, [], [])]
    try:
        trained, left_out = load(results, plan)
    except InputError as error:
        return [Part(title, [*said, str(error)], [], [])]
    data, apart, first = surface.surface_data(trained), surface.apart(trained), trained[0]
    name = f"{plan.name}_{slug(first.dataset)}_surface"
    drawn = picture(
        surface.draw_surface(data, differ=apart[0] if apart else None, synthetic=first.synthetic),
        name,
        alt=" ".join(surface.statements(trained, data)[2:]),
        caption="Flipped predictions (mean over seeds) and the largest change of a logit; white: exactly 0; cross: as "
        "trained.",
    )
    return [Part(title, [*said, *left_out], [surface.surface_table(trained, data, name=name)], [drawn])]


def _pictures(made: Iterable[tuple[str, Figure, str, str]]) -> list[Picture]:
    return [picture(figure, stem, alt=alt, caption=caption) for stem, figure, alt, caption in made]


def _identical(results: Path, plan: Plan) -> list[str]:
    return [sentence(comparison) for comparison in compare_rows(results, plan) if comparison.identical]


def _tsne_pictures(results: Path, plan: Plan) -> tuple[list[Picture], list[str]]:
    """A figure for each column with embeddings, and a sentence on each column of which none can be read."""
    made, unread = [], []
    for dataset in plan.datasets if "embeddings" in plan.keep else ():
        seed = _first_seed_with_embeddings(results, plan, dataset)
        if seed is None:
            continue
        try:
            data, scores, (said,) = tsne.of_datasets(results, plan, [dataset], seed=seed)
        except InputError as error:
            unread.append(str(error))
            continue
        told = "; ".join(f"{score.panel}: {tsne.in_words(score)}" for score in scores.itertuples())
        made.append(
            picture(
                tsne.draw_tsne(data, scores, synthetic=cells.is_synthetic(plan, dataset)),
                f"{plan.name}_{slug(dataset)}_tsne",
                alt=f"t-SNE of the pooled vectors on {dataset}, a panel a row. {told}.",
                caption=f"t-SNE of the pooled vectors, as in the paper's Figure 3. {said}",
            )
        )
    return made, unread


def _first_seed_with_embeddings(results: Path, plan: Plan, dataset: str) -> int | None:
    """The first seed in which most rows are there, so that a half-finished study shows its fullest picture."""
    counts = {
        seed: sum(
            (results / "trials" / plan.cell(row, dataset).trials[seed] / "embeddings.npz").exists() for row in plan.rows
        )
        for seed in plan.seeds
    }
    best = max(counts, key=lambda seed: counts[seed])
    return best if counts[best] else None


def _curve_pictures(results: Path, plan: Plan) -> Iterable[Picture]:
    if len(plan.rows) > MAX_CURVE_ROWS:
        return
    data, left_out = curves.curves_data(results, plan)
    for dataset in data["dataset"].unique():
        last = data[(data["dataset"] == dataset) & (data["quantity"] == "loss")].groupby("row", sort=False).last()
        told = "; ".join(f"{row}: {value:.3g}" for row, value in last["mean"].items())
        yield picture(
            curves.draw_curves(data, dataset=dataset, synthetic=cells.is_synthetic(plan, dataset)),
            f"{plan.name}_{slug(dataset)}_curves",
            alt=f"Learning curves on {dataset}. Training loss at the last epoch: {told}.",
            caption=f"Learning curves on {dataset}: mean over seeds, band of one standard deviation to either side. "
            + " ".join(["Later rows are drawn thinner, so that rows that coincide stay visible.", *left_out]),
        )


def _accuracy_pictures(results: Path, plan: Plan) -> Iterable[Picture]:
    if len(plan.rows) > MAX_CURVE_ROWS:
        return
    for name, points, figure in efficiency.accuracy_figures(results, plan):
        what = f"{METRIC_NAMES[plan.metrics[0]]} on {points['dataset'].iloc[0]}"
        told = "; ".join(f"{p.row}: {p.mean:.1f} % at {p.multiply_adds / 1e6:,.1f} M" for p in points.itertuples())
        yield picture(
            figure,
            name,
            alt=f"{what} over multiply-adds. {told}.",
            caption=f"{what} against the cost of one clip; bars: 95 % interval over seeds, cut at 0 and 100 %. Rows "
            "of equal cost are drawn side by side. " + efficiency.front_note(points),
        )


def _full_cell(plan: Plan) -> Cell | None:
    """The last row with the TAG-Head: in every table of the paper that is the full model.

    A user's own backbone is passed over: what it costs and which grid it has, only running its source would tell.
    """
    models = [(cell, cell.config.model) for cell in plan.cells]
    heads = [cell for cell, model in models if model.head == "tag" and not is_own(model.backbone)]
    return heads[-1] if heads else None


def graph_section(plan: Plan) -> dict[str, Any]:
    """What the graph does to the prediction, from the equations.

    Args:
        plan: The study whose full row's grid is taken.
    """
    cell = _full_cell(plan)
    grid, where = (4, 49), "R(2+1)D-34 at 32 frames of 112 x 112"
    if cell is not None:
        data = cell.config.data
        time, height, width = grid_of(cell.config.model.backbone, data.num_frames, data.crop_size)
        grid = (time, height * width)
        where = f"{cell.config.model.backbone} at {data.num_frames} frames of {data.crop_size} x {data.crop_size}"
    data = frame_weights.frame_weights_data(grid)
    said = frame_weights.statements(grid)
    return {
        "where": where,
        "tables": [frame_weights.frame_weights_table(grid), frame_weights.readout_table(grid)],
        "pictures": [
            picture(frame_weights.draw_frame_weights(data), "frame_weights", alt=" ".join(said[:3]),
                    caption="Weights of the time steps under the mean readout (left), and their largest deviation from "
                            "plain averaging (right)."),
            picture(frame_weights.draw_contrast(data), "contrast", alt=said[-2],
                    caption="Differences between the sites of a frame that are left after propagation: lines, at most; "
                            "bands, down to at least, by how they go over time. A mean readout does not see them."),
        ],
    }  # fmt: skip


def cost_section(results: Path, plan: Plan) -> dict[str, Any]:
    """What models cost: counted, as it grows, and measured where it was.

    Args:
        results: The results folder.
        plan: The study whose full row is told.
    """
    tables = []
    cell = _full_cell(plan)
    frame = cells.join(results, plan)
    if cell is not None and (number := efficiency.num_classes(frame, cell)):
        counts = complexity.count(cell.config, num_classes=number)
        title = f"What row {cell.row} of {plan.name} costs on {cell.dataset}: one clip, {number} classes"
        tables.append(complexity.component_table(counts, name="complexity", title=title, synthetic=cell.synthetic))
    tables.append(complexity.table5())
    speed_tables, speed_pictures, said = _speed(results, plan)
    return {
        "tables": [*tables, *speed_tables],
        "pictures": [*_cost_pictures(), *speed_pictures],
        "sentences": said,
    }


@cache
def _cost_pictures() -> tuple[Picture, ...]:
    """Of the paper's model, the same in every report."""
    data, grown = efficiency.efficiency_data(), growth.growth_data()
    totals = data.groupby(["model", "quantity"], sort=False)["value"].sum().unstack()
    told = "; ".join(f"{model}: {row.params_m:.2f} M, {row.gmac:.2f} G" for model, row in totals.iterrows())
    grows = " ".join(growth.growth_notes(grown))
    return (
        picture(efficiency.draw_efficiency(data), "efficiency", alt=f"Stacked bars. {told}.",
                caption="Parameters and multiply-adds of one clip by component, classifier included. Hatched: PGVT and "
                        "PEVL as the paper prints them, by its own way to count."),
        picture(growth.draw_growth(grown), "growth", alt=grows, caption=f"How the cost of one clip grows. {grows}"),
    )  # fmt: skip


def _speed(results: Path, plan: Plan) -> tuple[list[Table], list[Picture], list[str]]:
    """What was measured of the backbones and of the study's rows, and the commands that measure the rest."""
    try:
        speed, said = latency.read(results), []
    except InputError as error:
        speed, said = None, [str(error)]
    pictures = []
    for stem, rows, figure in latency.latency_figures(speed) if speed else ():
        alt = "; ".join(f"{r.backbone} {r.head}, batch {r.batch}: {r.median_ms:,.1f} ms" for r in rows.itertuples())
        caption = "Measured latency; lines reach to the 95th percentile."
        pictures.append(picture(figure, stem, alt=alt, caption=caption))
    points, missing = latency.accuracy_data(results, plan, speed)
    for stem, _, figure, front in latency.accuracy_figures(points, plan):
        caption = f"Accuracy against measured latency. {front}"
        pictures.append(picture(figure, stem, alt=front, caption=caption))
    return list(latency.latency_tables(speed)) if speed else [], pictures, [*said, *missing]
