"""The command line of results: ``taghead-analysis tables | complexity | tsne | curves | sweeps | ... | report``.

A verb is a file of this package. Nothing heavy is loaded before a verb needs it, so that ``--help`` is quick.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taghead.command import run_app
from taghead.errors import InputError, nearest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.formats import Table
    from studies.plan import Plan

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False,
    help="Tables, figures and reports from the records of studies; never trains.",
)  # fmt: skip

Names = Annotated[list[str], typer.Argument(metavar="STUDY...", help="Studies that were launched.")]
Name = Annotated[str, typer.Argument(metavar="STUDY", help="A study that was launched.")]
Results = Annotated[Path, typer.Option(help="The results folder.")]
Out = Annotated[Path | None, typer.Option(help="Folder to write to; without it, tables are printed.")]
Folder = Annotated[Path, typer.Option(help="Folder to write to.")]
Formats = Annotated[str, typer.Option("--format", help="Of tables, separated by commas: md, csv, tex, html.")]
Kinds = Annotated[str, typer.Option("--figures", help="Of figures, separated by commas: png, pdf, svg.")]

TABLE_FORMATS = "md,csv,tex"
FIGURE_KINDS = "png,pdf"


@app.command()
def tables(
    names: Annotated[list[str] | None, typer.Argument(metavar="[STUDY...]", help="Studies that were launched.")] = None,
    paper: Annotated[
        list[int] | None, typer.Option("--paper", min=1, max=5, help="A table of the paper, by its number; repeatable.")
    ] = None,
    results: Results = Path("results"),
    out: Out = None,
    formats: Formats = TABLE_FORMATS,
) -> None:
    """Rows x data sets x metrics: mean ± sd (n), difference to the base row, published value; a search's candidates."""
    from analysis.complexity import table5
    from analysis.search import candidates_table
    from analysis.tables import study_table
    from studies import candidates, plan

    searched, planned = candidates.searches(results), plan.names(results)
    made: list[Callable[[], Table]] = [table5] if 5 in (paper or ()) else []
    asked = [*(names or ()), *(name for number in paper or () for name in _of_paper(results, number))]
    if not asked and not made:
        raise InputError("name a study, or a table of the paper by --paper N; taghead-studies list has the studies.")
    for name in dict.fromkeys(asked):
        if name in searched:
            made.append(partial(candidates_table, results, name))
        if name in planned or name not in searched:
            made.append(partial(study_table, results, _plan(results, name)))
    _write_tables((make() for make in made), out, formats)


@app.command()
def complexity(
    name: Annotated[str | None, typer.Argument(metavar="[STUDY]", help="Adds this study's rows.")] = None,
    results: Results = Path("results"),
    out: Out = None,
    formats: Formats = TABLE_FORMATS,
    figures: Kinds = FIGURE_KINDS,
) -> None:
    """Table 5 recounted, every backbone, a study's rows likewise, and the efficiency figure."""
    from analysis import complexity as counted
    from analysis import efficiency, growth

    plan = _plan(results, name) if name else None
    made = [counted.component_table(counted.paper_model(width), name=f"complexity_ffn_{width}",
                                    title=f"R(2+1)D-34 + TAG-Head at FFN {width} on HAA500, by component")
            for width in counted.WIDTHS]  # fmt: skip
    made += [counted.table5(), counted.backbones_table()]
    if plan is not None:
        made.append(efficiency.cost_table(results, plan))
    _write_tables(made, out, formats)
    if out is not None:
        _write_figure(efficiency.draw_efficiency(efficiency.efficiency_data()), out, "efficiency", figures)
        grown = growth.growth_data()
        _write_figure(growth.draw_growth(grown), out, "growth", figures)
        print("\n".join(growth.growth_notes(grown)))
        for stem, _, figure in efficiency.accuracy_figures(results, plan) if plan else ():
            _write_figure(figure, out, stem, figures)


@app.command()
def latency(
    names: Annotated[list[str], typer.Argument(metavar="[STUDY...]", help="Adds accuracy over latency.")] = [],  # noqa: B006
    results: Results = Path("results"),
    out: Out = None,
    formats: Formats = TABLE_FORMATS,
    figures: Kinds = FIGURE_KINDS,
) -> None:
    """Measured speed: each backbone bare and with the head, and a study's accuracy over its rows' latency."""
    from analysis import latency as measured

    speed = measured.read(results)
    if speed is None and not names:
        raise InputError(f"{results}: nothing was measured there; run taghead speed --out {results / measured.FILE}.")
    _write_tables(measured.latency_tables(speed) if speed else [], out, formats)
    if speed and out is not None:
        for stem, _, figure in measured.latency_figures(speed):
            _write_figure(figure, out, stem, figures)
    for plan in [_plan(results, name) for name in names]:
        data, missing = measured.accuracy_data(results, plan, speed)
        for stem, _, figure, front in measured.accuracy_figures(data, plan):
            print(f"{stem}: {front}")
            if out is not None:
                _write_figure(figure, out, stem, figures)
        for said in missing:
            print(said)


@app.command()
def tsne(
    name: Name = "stages",
    results: Results = Path("results"),
    out: Folder = Path("results/figures"),
    datasets: Annotated[
        list[str],
        typer.Option("--dataset", help="A column of the study, repeatable: one below the other; the first if none."),
    ] = [],  # noqa: B006
    seed: Annotated[int | None, typer.Option(help="A trial's seed; the first if not given.")] = None,
    perplexity: Annotated[float, typer.Option(min=1.0, help="Clamped to (n - 1) / 3.")] = 30.0,
    classes: Annotated[
        list[str],
        typer.Option(metavar="[DATASET=]FILE", help="Names: gym99_categories.txt and the like, or one a line."),
    ] = [],  # noqa: B006
    figures: Kinds = FIGURE_KINDS,
) -> None:
    """Figure 3: the pooled vectors of TL, FT and TAG, with silhouette and neighbour accuracy."""
    from analysis import tsne as drawn
    from analysis.cells import is_synthetic
    from analysis.places import slug

    plan = _plan(results, name)
    columns = list(dict.fromkeys(datasets)) or [plan.datasets[0]]
    seed = plan.seeds[0] if seed is None else seed
    named = _class_names(classes, columns)
    data, scores, said = drawn.of_datasets(results, plan, columns, seed=seed, perplexity=perplexity, classes=named)
    figure = drawn.draw_tsne(data, scores, synthetic=any(is_synthetic(plan, one) for one in scores["dataset"].unique()))
    _write_figure(figure, out, f"{plan.name}_{'_'.join(map(slug, columns))}_tsne", figures)
    print("\n".join(said))


def _class_names(given: list[str], columns: list[str]) -> dict[str, tuple[str, ...]]:
    """``--classes``: a file, of the only column or, as ``gym99=FILE``, of one of several."""
    from taghead.data.listing import read_lines
    from taghead.infer import read_class_names

    found = {}
    for text in given:
        dataset, _, file = text.rpartition("=") if text.partition("=")[0] in columns else (columns[0], "", text)
        path = Path(file)
        found[dataset] = read_class_names(path, num_classes=len(read_lines(path)))
    return found


@app.command(name="frame_weights")
def frame_weights(
    grid: Annotated[tuple[int, int], typer.Option(min=1, help="T time steps and P sites.")] = (4, 49),
    out: Out = None,
    formats: Formats = TABLE_FORMATS,
    figures: Kinds = FIGURE_KINDS,
) -> None:
    """What the graph does to the prediction: frame weights and retained contrast over alpha, K_prop and edges."""
    from analysis import frame_weights as weights

    _write_tables([weights.frame_weights_table(grid)], out, formats)
    if out is not None:
        data = weights.frame_weights_data(grid)
        _write_figure(weights.draw_frame_weights(data), out, "frame_weights", figures)
        _write_figure(weights.draw_contrast(data), out, "contrast", figures)


@app.command()
def surface(
    name: Name,
    results: Results = Path("results"),
    out: Out = None,
    row: Annotated[str | None, typer.Option(help="A row; the last with a mean readout if not given.")] = None,
    dataset: Annotated[str | None, typer.Option(help="A column of the study; the first if not given.")] = None,
    formats: Formats = TABLE_FORMATS,
    figures: Kinds = FIGURE_KINDS,
) -> None:
    """What every graph does to a trained model's predictions, from one pass; and which readouts see a graph at all."""
    from analysis import surface as drawn
    from analysis.frame_logits import load
    from analysis.frame_weights import readout_table
    from analysis.places import slug

    plan = _plan(results, name)
    trained, left_out = load(results, plan, row=row, dataset=dataset)
    data = drawn.surface_data(trained)
    stem = f"{plan.name}_{slug(trained[0].dataset)}_surface"
    _write_tables([drawn.surface_table(trained, data, name=stem), readout_table(trained[0].grid)], out, formats)
    for said in (*left_out, *drawn.trained_statements(drawn.trained_effects(results, plan))):
        print(said)
    if out is not None:
        apart = drawn.apart(trained)
        figure = drawn.draw_surface(data, differ=apart[0] if apart else None, synthetic=trained[0].synthetic)
        _write_figure(figure, out, stem, figures)


@app.command()
def drift(
    name: Name,
    results: Results = Path("results"),
    data_root: Annotated[Path, typer.Option(help="Folder of the clips, as for taghead-studies run.")] = Path("data"),
    out: Out = None,
    dataset: Annotated[str | None, typer.Option(help="A column of the study; the first if not given.")] = None,
    bins: Annotated[int, typer.Option(min=2, help="Of equally many clips.")] = 3,
    formats: Formats = TABLE_FORMATS,
    figures: Kinds = FIGURE_KINDS,
) -> None:
    """Top-1 by the clips' recorded camera drift, the limit that the paper names."""
    from analysis import drift as drawn
    from analysis.cells import is_synthetic

    plan = _plan(results, name)
    dataset = dataset or plan.datasets[0]
    recorded = drawn.read_drift(data_root, plan, dataset)
    data, left_out = drawn.drift_data(results, plan, dataset=dataset, drift=recorded, bins=bins)
    table = drawn.drift_table(plan, data, left_out)
    _write_tables([table], out, formats)
    if out is not None:
        _write_figure(drawn.draw_drift(data, synthetic=is_synthetic(plan, dataset)), out, table.name, figures)


@app.command()
def curves(
    names: Names,
    results: Results = Path("results"),
    out: Folder = Path("results/figures"),
    figures: Kinds = FIGURE_KINDS,
) -> None:
    """Learning curves with their spread over seeds, of running trials too."""
    from analysis import curves as drawn
    from analysis.cells import is_synthetic
    from analysis.places import slug

    for plan in [_plan(results, name) for name in names]:
        data, left_out = drawn.curves_data(results, plan)
        for said in left_out:
            print(said)
        if data.empty:
            print(f"{plan.name}: no trial has finished an epoch yet")
        for dataset in data["dataset"].unique():
            figure = drawn.draw_curves(data, dataset=dataset, synthetic=is_synthetic(plan, dataset))
            _write_figure(figure, out, f"{plan.name}_{slug(dataset)}_curves", figures)


@app.command()
def sweeps(
    names: Names,
    results: Results = Path("results"),
    out: Folder = Path("results/figures"),
    figures: Kinds = FIGURE_KINDS,
) -> None:
    """Curves over a study's swept field (FFN width, alpha, K_prop, ...), with the spread over seeds."""
    from analysis.sweeps import FEWEST, sweep_data, sweep_figures

    for plan in [_plan(results, name) for name in names]:
        if sweep_data(results, plan).empty:
            print(f"{plan.name}: its rows sweep no number over {FEWEST} values or more")
        for stem, figure, _, caption in sweep_figures(results, plan):
            _write_figure(figure, out, stem, figures)
            print(caption)


@app.command()
def classes(
    names: Names,
    results: Results = Path("results"),
    out: Folder = Path("results/figures"),
    row: Annotated[str | None, typer.Option(help="A row of the study; the last if not given.")] = None,
    formats: Formats = TABLE_FORMATS,
    figures: Kinds = FIGURE_KINDS,
) -> None:
    """Accuracy class by class against class size, and the classes that are taken for each other."""
    from analysis.classes import classes_figures

    for plan in [_plan(results, name) for name in names]:
        made, unread = classes_figures(results, plan, row=row)
        for stem, figure, _, caption, table in made:
            _write_figure(figure, out, stem, figures)
            _write_tables([table], out, formats)
            print(caption)
        for said in unread or ([] if made else [f"{plan.name}: no predictions yet"]):
            print(said)


@app.command()
def importance(
    name: Annotated[str, typer.Argument(metavar="SEARCH", help="A search that was launched.")] = "head_search",
    results: Results = Path("results"),
    out: Folder = Path("results/figures"),
    figures: Kinds = FIGURE_KINDS,
) -> None:
    """A search's scores in their order, its Pareto front, and which of the searched keys matter."""
    from analysis.importance import importance_data
    from analysis.search_figures import search_figures

    stems = []
    for stem, figure, _, caption in search_figures(results, name):
        stems.append(stem)
        _write_figure(figure, out, stem, figures)
        print(caption)
    if f"{name}_importance" not in stems:
        print(" ".join(importance_data(results, name)[1]))


@app.command()
def export(
    names: Names,
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option(help="The file, .csv or .parquet.")] = Path("results/trials.parquet"),
) -> None:
    """Every trial as one tidy file, with the config fields that vary, for other programs."""
    from analysis.export import export as write_export

    frame = write_export(results, [_plan(results, name) for name in dict.fromkeys(names)], out)
    print(f"wrote {out}: {len(frame)} rows, {frame['trial_id'].nunique()} trials")


@app.command()
def report(
    names: Names,
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option(help="The HTML file.")] = Path("results/report.html"),
    files: Annotated[bool, typer.Option("--files", help="Also tables/ and figures/ beside it.")] = False,
) -> None:
    """One self-contained HTML file: summary, tables, figures, failures, provenance."""
    for name in names:
        _plan(results, name)
    from analysis.report import write_report

    for path in write_report(results, names, out, files=files):
        print(f"wrote {path}")


def _plan(results: Path, name: str) -> "Plan":
    from studies.candidates import searches
    from studies.catalog import SEARCHES, STUDIES
    from studies.plan import names, read_plan

    if name in searches(results) and name not in names(results):
        raise InputError(
            f"search {name} has no winner yet in {results}; go on with taghead-studies run {name}, or see its "
            f"candidates by taghead-analysis tables {name} --results {results}."
        )
    if name in (*STUDIES, *SEARCHES) and name not in names(results):
        raise InputError(
            f"study {name} was not launched in {results}; run taghead-studies run {name} --results {results} first."
        )
    return read_plan(results, name)


def _of_paper(results: Path, number: int) -> list[str]:
    """The studies of one of the paper's tables: those that were launched, else the catalog's."""
    from studies.catalog import STUDIES
    from studies.plan import names, read_plan

    launched = [name for name in names(results) if read_plan(results, name).table == number]
    return launched or [name for name, study in STUDIES.items() if study.table == number]


def _words(text: str, valid: Iterable[str], option: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    known = list(valid)
    if not words:
        raise InputError(f"{option}: none given; valid names: {', '.join(sorted(known))}.")
    for word in words:
        if word not in known:
            raise InputError(f"{option}: unknown {word!r}{nearest(word, known)}")
    return words


def _write_tables(made: Iterable["Table"], out: Path | None, formats: str) -> None:
    from analysis.formats import FORMATS, to_markdown
    from analysis.places import make_folder
    from taghead.files import write_text

    kinds = _words(formats, FORMATS, "--format")
    if out is not None:
        make_folder(out)
    for table in made:
        if out is None:
            print(to_markdown(table))
            continue
        for kind in kinds:
            write_text(path := out / f"{table.name}.{kind}", FORMATS[kind](table))
            print(f"wrote {path}")


def _write_figure(figure: "Figure", out: Path, name: str, kinds: str) -> None:
    from analysis.figure import METADATA, save, undrawn

    for path in save(figure, out, name, kinds=_words(kinds, METADATA, "--figures")):
        print(f"wrote {path}")
    if lacking := undrawn(figure):
        print(f"{name}: the font has no {' '.join(lacking)}; empty boxes stand for them")


def main() -> None:
    """Entry point of ``taghead-analysis``."""
    run_app(app)


if __name__ == "__main__":
    main()
