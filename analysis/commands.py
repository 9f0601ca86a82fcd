"""What the commands of results share: options, the study that is meant, and what is written where."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taghead.errors import InputError, nearest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.formats import Table
    from studies.plan import Plan

Names = Annotated[list[str], typer.Argument(metavar="STUDY...", help="Studies that were launched.")]
Name = Annotated[str, typer.Argument(metavar="STUDY", help="A study that was launched.")]
Results = Annotated[Path, typer.Option(help="The results folder.")]
Out = Annotated[Path | None, typer.Option(help="Folder to write to; without it, tables are printed.")]
Folder = Annotated[Path, typer.Option(help="Folder to write to.")]
Formats = Annotated[str, typer.Option("--format", help="Of tables, separated by commas: md, csv, tex, html.")]
Kinds = Annotated[str, typer.Option("--figures", help="Of figures, separated by commas: png, pdf, svg.")]

TABLE_FORMATS = "md,csv,tex"
FIGURE_KINDS = "png,pdf"


def plan_of(results: Path, name: str) -> "Plan":
    """The plan of a study that was launched.

    Args:
        results: The results folder.
        name: The study's.

    Raises:
        InputError: It was not launched there, or is a search without a winner.
    """
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


def studies_of(results: Path, number: int) -> list[str]:
    """The studies of one of the paper's tables: those that were launched, else the catalog's.

    Args:
        results: The results folder.
        number: The table's.
    """
    from studies.catalog import STUDIES
    from studies.plan import names, read_plan

    launched = [name for name in names(results) if read_plan(results, name).table == number]
    return launched or [name for name, study in STUDIES.items() if study.table == number]


def words_of(text: str, valid: Iterable[str], option: str) -> tuple[str, ...]:
    """The words of an option that takes several, separated by commas.

    Args:
        text: What was given.
        valid: The words that are known.
        option: Its name, for the message.

    Raises:
        InputError: None is given, or one is not known.
    """
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    known = list(valid)
    if not words:
        raise InputError(f"{option}: none given; valid names: {', '.join(sorted(known))}.")
    for word in words:
        if word not in known:
            raise InputError(f"{option}: unknown {word!r}{nearest(word, known)}")
    return words


def write_tables(made: Iterable["Table"], out: Path | None, formats: str) -> None:
    """Writes tables as files, or prints them as Markdown where there is no folder.

    Args:
        made: The tables.
        out: The folder.
        formats: As given by ``--format``.
    """
    from analysis.formats import FORMATS, to_markdown
    from analysis.places import make_folder
    from taghead.files import write_text

    kinds = words_of(formats, FORMATS, "--format")
    if out is not None:
        make_folder(out)
    for table in made:
        if out is None:
            print(to_markdown(table))
            continue
        for kind in kinds:
            write_text(path := out / f"{table.name}.{kind}", FORMATS[kind](table))
            print(f"wrote {path}")


def write_figure(figure: "Figure", out: Path, name: str, kinds: str) -> None:
    """Writes a figure, and names the characters that its font lacks.

    Args:
        figure: What to write.
        out: The folder.
        name: The files' stem.
        kinds: As given by ``--figures``.
    """
    from analysis.figure import METADATA, save, undrawn

    for path in save(figure, out, name, kinds=words_of(kinds, METADATA, "--figures")):
        print(f"wrote {path}")
    if lacking := undrawn(figure):
        print(f"{name}: the font has no {' '.join(lacking)}; empty boxes stand for them")
