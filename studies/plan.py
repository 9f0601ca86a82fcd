"""A plan is a study worked out: every cell's full config and trial ids, as ``results/studies/<name>/plan.json``.

What a study still has to run is its plan without the store; every table and figure is its plan joined to the store.
The file describes the study as it was last launched; trials of earlier launches stay in the store under their ids.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from studies.study import Study
from taghead.config import Config, Value, read_versioned
from taghead.errors import InputError, nearest
from taghead.files import write_text
from taghead.record import Keep, trial_id

SCHEMA_VERSION = 1  # of plan.json


class Identity(Protocol):
    """The fingerprints that a trial id is made from besides its config; see `taghead.identity.identify`."""

    @property
    def data(self) -> str:
        """Of the clips and their split."""

    @property
    def weights(self) -> str | None:
        """Of what the backbone starts from; None for weights drawn at random."""

    @property
    def synthetic(self) -> bool:
        """Whether the clips were generated."""

    @property
    def validation(self) -> bool:
        """Whether there is a validation split apart from the test split."""


class Cell(Value):
    """One row on one data set, under every seed."""

    row: str
    dataset: str  # the column's label; ``config.data.dataset`` names the data set itself
    config: Config
    data: str  # fingerprint of the clips
    weights: str | None  # fingerprint of the weights that the backbone starts from
    synthetic: bool = False  # the clips were generated
    trials: dict[int, str]  # trial id by seed; equal experiments in different rows share one


class Plan(Value):
    """A study as it was last launched; the order of rows, datasets and seeds is the order of the tables."""

    schema_version: int = SCHEMA_VERSION
    name: str
    title: str
    text: str
    note: str = ""  # what its table must say of how its rows were chosen
    table: int | None  # the paper's table whose printed values belong to these rows
    base_row: str | None  # the row that differences are taken from
    metrics: tuple[str, ...]
    keep: tuple[Keep, ...]
    rows: tuple[str, ...]
    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    overrides: dict[str, dict[str, Any]]  # by row
    synthetic: bool  # some column is made of generated clips: tables and figures must carry the stamp
    cells: tuple[Cell, ...]  # row by row

    def cell(self, row: str, dataset: str) -> Cell:
        """The cell of a row and a column.

        Raises:
            KeyError: There is no such row or column.
        """
        for cell in self.cells:
            if (cell.row, cell.dataset) == (row, dataset):
                return cell
        raise KeyError((row, dataset))

    def trial_ids(self) -> tuple[str, ...]:
        """Every trial once, seed by seed, so that a half-finished study has all its rows early."""
        ids = (cell.trials[seed] for seed in self.seeds for cell in self.cells)
        return tuple(dict.fromkeys(ids))


def make_plan(study: Study, *, identify: Callable[[Config], Identity]) -> Plan:
    """Works a study out.

    Args:
        study: The study.
        identify: Gives the fingerprints of a config's clips and weights.
    """
    cells = []
    for (row, dataset), config in study.configs().items():
        found = identify(config)
        data, weights = found.data, found.weights
        cells.append(
            Cell(
                row=row,
                dataset=dataset,
                config=config,
                data=data,
                weights=weights,
                synthetic=found.synthetic,
                trials={seed: trial_id(config, seed=seed, data=data, weights=weights) for seed in study.seeds},
            )
        )
    same = ("name", "title", "text", "note", "table", "base_row", "metrics", "keep")
    return Plan(
        **{name: getattr(study, name) for name in same},
        rows=tuple(study.rows),
        datasets=tuple(study.datasets),
        seeds=study.seeds,
        overrides={label: {key: _plain(value) for key, value in row.items()} for label, row in study.rows.items()},
        synthetic=any(cell.synthetic for cell in cells),
        cells=tuple(cells),
    )


def _plain(value: Any) -> Any:
    """Numbers of NumPy and torch as Python's."""
    return value.tolist() if hasattr(value, "tolist") else value


def write_plan(plan: Plan, *, results: Path) -> Path:
    """Writes ``plan.json`` whole, and returns its path."""
    path = _path(results, plan.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plan.model_dump(mode="json"), indent=1, ensure_ascii=False)
    write_text(path, text + "\n")
    return path


def read_plan(results: Path, name: str) -> Plan:
    """Reads the plan of a study that was launched or planned.

    Raises:
        InputError: There is none of that name, it is damaged, or a newer version wrote it.
    """
    path = _path(results, name)
    known = names(results)
    if name not in known:
        there = nearest(name, known) if known else "; none was launched there yet."
        raise InputError(f"{results}: no plan of study {name!r}{there}")
    return read_versioned(path, Plan, version=SCHEMA_VERSION, what="plan", remedy="; launch the study again")


def names(results: Path) -> list[str]:
    """The studies that have a plan in a results folder, sorted."""
    return sorted(path.parent.name for path in (results / "studies").glob("*/plan.json"))


def _path(results: Path, name: str) -> Path:
    return results / "studies" / name / "plan.json"
