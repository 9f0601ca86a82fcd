"""The report: one self-contained HTML file that says what was asked, what was found and what cannot be said.

Command: ``taghead-analysis report components stages``. Made from the store alone: the same store, the same bytes.
"""

import shlex
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analysis import provenance
from analysis.formats import FORMATS, SYNTHETIC, Table, to_html
from analysis.places import make_folder
from analysis.sections import MAX_COLUMNS, Picture, cost_section, graph_section, section
from studies.plan import Plan, read_plan
from taghead.errors import InputError
from taghead.files import written_whole


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
            texts |= {out.parent / "tables" / f"{table.name}.{kind}": show(table) for kind, show in FORMATS.items()}
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
    columns = max(1, MAX_COLUMNS // len(plans))
    sections = [section(results, plan, columns=columns) for plan in plans]
    frame = pd.concat([one.frame.assign(study=one.plan.name) for one in sections], ignore_index=True)
    return {
        "sections": sections,
        "shared_limits": [limit for limit in sections[0].limits if all(limit in one.limits for one in sections[1:])],
        "synthetic": SYNTHETIC if frame["synthetic"].any() else None,
        "graph": graph_section(plans[0]),
        "cost": cost_section(results, plans[0]),
        "failures": provenance.failures_table(frame, name="failures"),
        "clips": provenance.clips_table(results, plans, name="clips"),
        "provenance": provenance.provenance_table(frame, name="provenance"),
        "commands": [*(provenance.run_command(plan, results) for plan in plans), _own_command(plans, results)],
        "version": version("taghead"),
    }


def tables_of(page: dict[str, Any]) -> list[Table]:
    """The tables of results and costs, without those that tell of failures and provenance."""
    of_studies = [
        table
        for section in page["sections"]
        for table in (section.table, section.candidates, *(one for part in section.parts for one in part.tables))
        if table
    ]
    return [*of_studies, *page["graph"]["tables"], *page["cost"]["tables"]]


def pictures_of(page: dict[str, Any]) -> list[Picture]:
    """The figures, in their order."""
    of_studies = [one.pictures for section in page["sections"] for one in (section, *section.parts)]
    return [
        picture
        for pictures in (*of_studies, page["graph"]["pictures"], page["cost"]["pictures"])
        for picture in pictures
    ]


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
    return shlex.join(["taghead-analysis", "report", *(plan.name for plan in plans), "--results", str(results)])
