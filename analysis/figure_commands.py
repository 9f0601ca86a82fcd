"""The commands that draw: ``taghead-analysis latency | tsne | frame_weights | surface | curves | ...``.

A verb is a file of this package, but for importance, which also has its search's other figures.
"""

from pathlib import Path
from typing import Annotated

import typer

from analysis.commands import (
    FIGURE_KINDS,
    TABLE_FORMATS,
    Folder,
    Formats,
    Kinds,
    Name,
    Names,
    Out,
    Results,
    plan_of,
    write_figure,
    write_tables,
)
from taghead.errors import InputError

figures_app = typer.Typer()


@figures_app.command()
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
    write_tables(measured.latency_tables(speed) if speed else [], out, formats)
    if speed and out is not None:
        for stem, _, figure in measured.latency_figures(speed):
            write_figure(figure, out, stem, figures)
    for plan in [plan_of(results, name) for name in names]:
        data, missing = measured.accuracy_data(results, plan, speed)
        for stem, _, figure, front in measured.accuracy_figures(data, plan):
            print(f"{stem}: {front}")
            if out is not None:
                write_figure(figure, out, stem, figures)
        for said in missing:
            print(said)


@figures_app.command()
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

    plan = plan_of(results, name)
    columns = list(dict.fromkeys(datasets)) or [plan.datasets[0]]
    seed = plan.seeds[0] if seed is None else seed
    named = _class_names(classes, columns)
    data, scores, said = drawn.of_datasets(results, plan, columns, seed=seed, perplexity=perplexity, classes=named)
    figure = drawn.draw_tsne(data, scores, synthetic=any(is_synthetic(plan, one) for one in scores["dataset"].unique()))
    write_figure(figure, out, f"{plan.name}_{'_'.join(map(slug, columns))}_tsne", figures)
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


@figures_app.command(name="frame_weights")
def frame_weights(
    grid: Annotated[tuple[int, int], typer.Option(min=1, help="T time steps and P sites.")] = (4, 49),
    out: Out = None,
    formats: Formats = TABLE_FORMATS,
    figures: Kinds = FIGURE_KINDS,
) -> None:
    """What the graph does to the prediction: frame weights and retained contrast over alpha, K_prop and edges."""
    from analysis import frame_weights as weights

    write_tables([weights.frame_weights_table(grid)], out, formats)
    if out is not None:
        data = weights.frame_weights_data(grid)
        write_figure(weights.draw_frame_weights(data), out, "frame_weights", figures)
        write_figure(weights.draw_contrast(data), out, "contrast", figures)


@figures_app.command()
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

    plan = plan_of(results, name)
    trained, left_out = load(results, plan, row=row, dataset=dataset)
    data = drawn.surface_data(trained)
    stem = f"{plan.name}_{slug(trained[0].dataset)}_surface"
    write_tables([drawn.surface_table(trained, data, name=stem), readout_table(trained[0].grid)], out, formats)
    for said in (*left_out, *drawn.trained_statements(drawn.trained_effects(results, plan))):
        print(said)
    if out is not None:
        apart = drawn.apart(trained)
        figure = drawn.draw_surface(data, differ=apart[0] if apart else None, synthetic=trained[0].synthetic)
        write_figure(figure, out, stem, figures)


@figures_app.command()
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

    plan = plan_of(results, name)
    dataset = dataset or plan.datasets[0]
    recorded = drawn.read_drift(data_root, plan, dataset)
    data, left_out = drawn.drift_data(results, plan, dataset=dataset, drift=recorded, bins=bins)
    table = drawn.drift_table(plan, data, left_out)
    write_tables([table], out, formats)
    if out is not None:
        write_figure(drawn.draw_drift(data, synthetic=is_synthetic(plan, dataset)), out, table.name, figures)


@figures_app.command()
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

    for plan in [plan_of(results, name) for name in names]:
        data, left_out = drawn.curves_data(results, plan)
        for said in left_out:
            print(said)
        if data.empty:
            print(f"{plan.name}: no trial has finished an epoch yet")
        for dataset in data["dataset"].unique():
            figure = drawn.draw_curves(data, dataset=dataset, synthetic=is_synthetic(plan, dataset))
            write_figure(figure, out, f"{plan.name}_{slug(dataset)}_curves", figures)


@figures_app.command()
def sweeps(
    names: Names,
    results: Results = Path("results"),
    out: Folder = Path("results/figures"),
    figures: Kinds = FIGURE_KINDS,
) -> None:
    """Curves over a study's swept field (FFN width, alpha, K_prop, ...), with the spread over seeds."""
    from analysis.sweeps import FEWEST, sweep_data, sweep_figures

    for plan in [plan_of(results, name) for name in names]:
        if sweep_data(results, plan).empty:
            print(f"{plan.name}: its rows sweep no number over {FEWEST} values or more")
        for stem, figure, _, caption in sweep_figures(results, plan):
            write_figure(figure, out, stem, figures)
            print(caption)


@figures_app.command()
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

    for plan in [plan_of(results, name) for name in names]:
        made, unread = classes_figures(results, plan, row=row)
        for stem, figure, _, caption, table in made:
            write_figure(figure, out, stem, figures)
            write_tables([table], out, formats)
            print(caption)
        for said in unread or ([] if made else [f"{plan.name}: no predictions yet"]):
            print(said)


@figures_app.command()
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
        write_figure(figure, out, stem, figures)
        print(caption)
    if f"{name}_importance" not in stems:
        print(" ".join(importance_data(results, name)[1]))
