"""The report: one self-contained HTML file that says what was asked, what was found and what cannot be said.

Command: ``taghead-analysis report components stages``. Made from the store alone: the same store, the same bytes.
"""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from analysis import cells, complexity, curves, efficiency, findings, frame_weights, provenance, tsne
from analysis.differences import METRIC_NAMES
from analysis.figure import to_bytes
from analysis.formats import FORMATS, SYNTHETIC, Table, to_html
from analysis.notes import compare_rows, sentence
from analysis.places import make_folder, slug
from analysis.search import candidates_table
from analysis.tables import study_table
from studies.candidates import searches
from studies.plan import Cell, Plan, read_plan
from taghead.backbones import grid_of
from taghead.backbones.own import is_own
from taghead.errors import InputError
from taghead.files import written_whole

# a study of a hundred rows has its table; its curves would be a tangle
MAX_CURVE_ROWS = curves.MAX_LINES
FILE_FORMATS = ("md", "csv", "tex")


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
class Section:
    """One study in the report."""

    plan: Plan
    progress: dict[str, Any]
    table: Table
    candidates: Table | None  # of a search
    found: list[str]
    limits: list[str]
    pictures: list[Picture]


def write_report(results: Path, names: Iterable[str], out: Path, *, files: bool = False) -> list[Path]:
    """Writes the report, every file of it whole.

    Args:
        results: The results folder.
        names: Studies that were launched there; unfinished ones say what is missing.
        out: The HTML file.
        files: Whether to write what it shows as files too: ``tables/`` and ``figures/`` beside it.

    Returns:
        The paths written, the report first.

    Raises:
        InputError: No such study, or no file can be written there.
    """
    if out.is_dir():
        raise InputError(f"{out}: a folder, but the report is one file; give --out {out / 'report.html'}.")
    make_folder(out.parent)
    page = compose(results, [read_plan(results, name) for name in dict.fromkeys(names)])
    texts = {out: render(page)}
    images: dict[Path, bytes] = {}
    if files:
        for table in tables_of(page):
            texts |= {out.parent / "tables" / f"{table.name}.{kind}": FORMATS[kind](table) for kind in FILE_FORMATS}
        images = {out.parent / "figures" / f"{picture.name}.png": picture.png for picture in pictures_of(page)}
    for path in (*texts, *images):
        make_folder(path.parent)
        with written_whole(path) as beside:
            beside.write_bytes(images[path] if path in images else texts[path].encode())
    return [*texts, *images]


def compose(results: Path, plans: list[Plan]) -> dict[str, Any]:
    """All that the report shows, by the names that the template has for it.

    Args:
        results: The results folder.
        plans: The studies, in the order in which they are told.
    """
    frame = pd.concat([cells.join(results, plan).assign(study=plan.name) for plan in plans], ignore_index=True)
    sections = [section(results, plan) for plan in plans]
    return {
        "sections": sections,
        "shared_limits": [limit for limit in sections[0].limits if all(limit in one.limits for one in sections[1:])],
        "synthetic": SYNTHETIC if frame["synthetic"].any() else None,
        "graph": _graph_section(plans[0]),
        "cost": _cost_section(results, plans[0]),
        "failures": provenance.failures_table(frame, name="failures"),
        "clips": provenance.clips_table(results, plans, name="clips"),
        "provenance": provenance.provenance_table(frame, name="provenance"),
        "commands": [*(provenance.run_command(plan, results) for plan in plans), _own_command(plans, results)],
        "version": version("taghead"),
    }


def tables_of(page: dict[str, Any]) -> list[Table]:
    """The tables of results and costs, without those that tell of failures and provenance."""
    of_studies = [table for part in page["sections"] for table in (part.table, part.candidates) if table]
    return [*of_studies, page["graph"]["table"], *page["cost"]["tables"]]


def pictures_of(page: dict[str, Any]) -> list[Picture]:
    """The figures, in their order."""
    parts = [*(part.pictures for part in page["sections"]), page["graph"]["pictures"], page["cost"]["pictures"]]
    return [picture for pictures in parts for picture in pictures]


def render(page: dict[str, Any]) -> str:
    """The report as HTML.

    Args:
        page: As from `compose`.
    """
    environment = Environment(
        loader=PackageLoader("analysis", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["html"] = lambda table: Markup(to_html(table))
    return environment.get_template("report.html.jinja").render(page)


def _own_command(plans: list[Plan], results: Path) -> str:
    return f"taghead-analysis report {' '.join(plan.name for plan in plans)} --results {results}"


def picture(figure: Figure, name: str, *, alt: str, caption: str) -> Picture:
    """A figure made ready to stand in the file itself.

    Args:
        figure: What to show.
        name: Its file's stem.
        alt: What it shows, in words.
        caption: The sentence under it.
    """
    return Picture(name, to_bytes(figure, "png"), figure.get_figwidth(), alt, caption)


def section(results: Path, plan: Plan) -> Section:
    """All that there is to say about one study.

    Args:
        results: The results folder.
        plan: The study.
    """
    frame = cells.join(results, plan)
    table = study_table(results, plan)
    panels, unread = _tsne_pictures(results, plan, table)
    return Section(
        plan=plan,
        progress=findings.progress(frame),
        table=table,
        candidates=candidates_table(results, plan.name) if plan.name in searches(results) else None,
        found=[*findings.found(plan, table.data, frame), *_identical(results, plan)],
        limits=[*findings.limits(plan, table.data, frame), *unread],
        pictures=[
            *panels,
            *_curve_pictures(results, plan, table),
            *_accuracy_pictures(results, plan),
        ],
    )


def _identical(results: Path, plan: Plan) -> list[str]:
    return [sentence(comparison) for comparison in compare_rows(results, plan) if comparison.identical]


def _tsne_pictures(results: Path, plan: Plan, table: Table) -> tuple[list[Picture], list[str]]:
    """A figure for each column with embeddings, and a sentence on each column of which none can be read."""
    made, unread = [], []
    for dataset in plan.datasets if "embeddings" in plan.keep else ():
        seed = _first_seed_with_embeddings(results, plan, dataset)
        if seed is None:
            continue
        try:
            rows, left_out = tsne.load(results, plan, dataset=dataset, seed=seed)
        except InputError as error:
            unread.append(str(error))
            continue
        if len(rows[0].ids) < 4:
            continue
        data, scores = tsne.tsne_data(rows), tsne.scores_data(rows)
        told = "; ".join(f"{s.panel}: 5-NN {s.knn:.1f} %, silhouette {s.silhouette:.2f}" for s in scores.itertuples())
        said = tsne.note(data, scores, dataset=dataset, seed=seed, left_out=left_out)
        made.append(
            picture(
                tsne.draw_tsne(data, scores, synthetic=table.synthetic),
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


def _curve_pictures(results: Path, plan: Plan, table: Table) -> Iterable[Picture]:
    data, left_out = curves.curves_data(results, plan)
    if len(plan.rows) > MAX_CURVE_ROWS:
        return
    for dataset in data["dataset"].unique():
        last = data[(data["dataset"] == dataset) & (data["quantity"] == "loss")].groupby("row", sort=False).last()
        told = "; ".join(f"{row}: {value:.3g}" for row, value in last["mean"].items())
        yield picture(
            curves.draw_curves(data, dataset=dataset, synthetic=table.synthetic),
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
            "of equal cost are drawn side by side.",
        )


def _full_cell(plan: Plan) -> Cell | None:
    """The last row with the TAG-Head: in every table of the paper that is the full model.

    A user's own backbone is passed over: what it costs and which grid it has, only running its source would tell.
    """
    models = [(cell, cell.config.model) for cell in plan.cells]
    heads = [cell for cell, model in models if model.head == "tag" and not is_own(model.backbone)]
    return heads[-1] if heads else None


def _graph_section(plan: Plan) -> dict[str, Any]:
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
        "table": frame_weights.frame_weights_table(grid),
        "pictures": [
            picture(frame_weights.draw_frame_weights(data), "frame_weights", alt=" ".join(said[:3]),
                    caption="Weights of the time steps under the mean readout (left), and their largest deviation from "
                            "plain averaging (right)."),
            picture(frame_weights.draw_contrast(data), "contrast", alt=said[-2],
                    caption="Differences between the sites of a frame that are left after propagation. A mean readout "
                            "does not see them."),
        ],
    }  # fmt: skip


def _cost_section(results: Path, plan: Plan) -> dict[str, Any]:
    tables = []
    cell = _full_cell(plan)
    frame = cells.join(results, plan)
    if cell is not None and (classes := efficiency.num_classes(frame, cell)):
        counts = complexity.count(cell.config, num_classes=classes)
        title = f"What row {cell.row} of {plan.name} costs on {cell.dataset}: one clip, {classes} classes"
        tables.append(complexity.component_table(counts, name="complexity", title=title, synthetic=cell.synthetic))
    tables.append(complexity.table5())
    data = efficiency.efficiency_data()
    totals = data.groupby(["model", "quantity"], sort=False)["value"].sum().unstack()
    told = "; ".join(f"{model}: {row.params_m:.2f} M, {row.gmac:.2f} G" for model, row in totals.iterrows())
    caption = (
        "Parameters and multiply-adds of one clip by component, classifier included. Hatched: PGVT and PEVL as the "
        "paper prints them, by its own way to count."
    )
    return {
        "tables": tables,
        "pictures": [
            picture(efficiency.draw_efficiency(data), "efficiency", alt=f"Stacked bars. {told}.", caption=caption)
        ],
    }
