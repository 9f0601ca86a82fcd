"""The command line of results: ``taghead-analysis tables | complexity | tsne | curves | sweeps | ... | report``.

Those that draw are in `analysis.figure_commands`. Nothing heavy is loaded before a verb needs it: ``--help`` is quick.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.commands import (
    FIGURE_KINDS,
    TABLE_FORMATS,
    Formats,
    Kinds,
    Names,
    Out,
    Results,
    plan_of,
    studies_of,
    write_figure,
    write_tables,
)
from analysis.figure_commands import figures_app
from taghead.command import run_app
from taghead.errors import InputError

if TYPE_CHECKING:
    from analysis.formats import Table

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False,
    help="Tables, figures and reports from the records of studies; never trains.",
)  # fmt: skip
app.add_typer(figures_app)


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
    asked = [*(names or ()), *(name for number in paper or () for name in studies_of(results, number))]
    if not asked and not made:
        raise InputError("name a study, or a table of the paper by --paper N; taghead-studies list has the studies.")
    for name in dict.fromkeys(asked):
        if name in searched:
            made.append(partial(candidates_table, results, name))
        if name in planned or name not in searched:
            made.append(partial(study_table, results, plan_of(results, name)))
    write_tables((make() for make in made), out, formats)


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

    plan = plan_of(results, name) if name else None
    made = [counted.component_table(counted.paper_model(width), name=f"complexity_ffn_{width}",
                                    title=f"R(2+1)D-34 + TAG-Head at FFN {width} on HAA500, by component")
            for width in counted.WIDTHS]  # fmt: skip
    made += [counted.table5(), counted.backbones_table()]
    if plan is not None:
        made.append(efficiency.cost_table(results, plan))
    write_tables(made, out, formats)
    if out is not None:
        write_figure(efficiency.draw_efficiency(efficiency.efficiency_data()), out, "efficiency", figures)
        grown = growth.growth_data()
        write_figure(growth.draw_growth(grown), out, "growth", figures)
        print("\n".join(growth.growth_notes(grown)))
        for stem, _, figure in efficiency.accuracy_figures(results, plan) if plan else ():
            write_figure(figure, out, stem, figures)


@app.command()
def export(
    names: Names,
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option(help="The file, .csv or .parquet.")] = Path("results/trials.parquet"),
) -> None:
    """Every trial as one tidy file, with the config fields that vary, for other programs."""
    from analysis.export import export as write_export

    frame = write_export(results, [plan_of(results, name) for name in dict.fromkeys(names)], out)
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
        plan_of(results, name)
    from analysis.report import write_report

    for path in write_report(results, names, out, files=files):
        print(f"wrote {path}")


def main() -> None:
    """Entry point of ``taghead-analysis``."""
    run_app(app)


if __name__ == "__main__":
    main()
