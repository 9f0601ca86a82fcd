"""A study is a table whose cells are experiments: rows (overrides) by data sets (base configs) by seeds.

The paper's Tables 1 to 4 and Figure 3 are values of this type (`studies.catalog`), and so is a user's own study.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, get_args

from taghead.config import Config, evolve
from taghead.errors import InputError, nearest
from taghead.record import Keep

Rows = Mapping[str, Mapping[str, Any]]
METRICS = ("top1", "mca")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Study:
    """A table of experiments, checked whole when it is made.

    Attributes:
        name: Lower-case letters, digits, ``_`` and ``-``; names the folder under ``results/studies``.
        title: One line, for people.
        rows: What each row changes, by its label: ``{"alpha 0.2": {"head.alpha": 0.2}}``.
        datasets: What each column starts from, by its label.
        seeds: One trial a seed in every cell.
        keep: What is kept of a trial beside its record, history and predictions.
        metrics: What its tables show, of `METRICS`.
        base_row: The row that differences are taken from, or None.
        table: The paper's table whose printed values belong to these rows, or None.
        text: What it is for, and which table or figure of the paper it stands for.

    Raises:
        InputError: A name, row, data set, seed or override that is not right, and what to do.
    """

    name: str
    title: str
    rows: Rows
    datasets: Mapping[str, Config]
    seeds: tuple[int, ...] = (0, 1, 2)
    keep: tuple[Keep, ...] = ()
    metrics: tuple[str, ...] = METRICS
    base_row: str | None = None
    table: int | None = None
    text: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InputError(f"a study's name is made of a-z, 0-9, _ and -, but got {self.name!r}.")
        for what in ("rows", "datasets", "seeds"):
            if not getattr(self, what):
                raise InputError(f"study {self.name}: {what} must not be empty.")
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise InputError(f"study {self.name}: seeds must be different and not negative, but got {self.seeds}.")
        self._check_types()
        _check_known(self.name, "keep", self.keep, get_args(Keep))
        _check_known(self.name, "metric", self.metrics, METRICS)
        if self.base_row is not None:
            _check_known(self.name, "base row", [self.base_row], self.rows)
        self.configs()

    def _check_types(self) -> None:
        wanted: list[tuple[str, object, type]] = [("title", self.title, str), ("text", self.text, str)]
        wanted += [("seed", seed, int) for seed in self.seeds]
        wanted += [("row name", name, str) for name in self.rows]
        wanted += [("data set label", name, str) for name in self.datasets]
        wanted += [(f"data set {name}", base, Config) for name, base in self.datasets.items()]
        if self.table is not None:
            wanted.append(("table", self.table, int))
        for what, value, kind in wanted:
            if not isinstance(value, kind):
                raise InputError(f"study {self.name}: {what} must be of type {kind.__name__}, but got {value!r}.")
        for name in self.datasets:
            if "/" in name or "\0" in name:
                raise InputError(f"study {self.name}: data set label {name!r} names files; leave out / and NUL.")

    def configs(self) -> dict[tuple[str, str], Config]:
        """The full config of every cell, by (row, data set), row by row.

        Raises:
            InputError: A row's overrides do not fit a data set's base; names both.
        """
        return {(row, dataset): self._config(row, dataset) for row in self.rows for dataset in self.datasets}

    def _config(self, row: str, dataset: str) -> Config:
        try:
            return evolve(self.datasets[dataset], self.rows[row])
        except InputError as error:
            raise InputError(f"study {self.name}, row {row!r} on {dataset}: {error}") from None

    def override(self, overrides: Mapping[str, Any]) -> Self:
        """The same study on bases that differ in some dotted keys; a row's own overrides stay on top.

        Raises:
            InputError: A key that is not known, a value that does not fit, or a key that every row sets itself.
        """
        for key in overrides:
            if all(key in row for row in self.rows.values()):
                raise InputError(f"every row of study {self.name} sets {key} itself; leave it out.")
        return replace(self, datasets={name: evolve(base, overrides) for name, base in self.datasets.items()})


def axis(key: str, values: Iterable[Any], *, label: str | None = None) -> dict[str, dict[str, Any]]:
    """Rows that differ in one key: ``axis("head.alpha", [0.1, 0.2])`` has the rows ``alpha 0.1`` and ``alpha 0.2``.

    Args:
        key: The dotted key.
        values: Its values; several names are joined by ``+`` in the label, an empty tuple is ``none``.
        label: What the labels begin with; the key's last word if None.
    """
    name = key.rpartition(".")[2] if label is None else label
    return {f"{name} {_text(value)}": {key: value} for value in values}


def product(*axes: Rows) -> dict[str, dict[str, Any]]:
    """Every combination of the rows of several axes, the last changing fastest.

    Raises:
        InputError: Two axes set the same key.
    """
    rows: dict[str, dict[str, Any]] = {"": {}}
    for one in axes:
        both = {key for row in rows.values() for key in row} & {key for row in one.values() for key in row}
        if both:
            raise InputError(f"the axes of a product must differ in their keys, but two of them set {min(both)}.")
        rows = {", ".join(filter(None, (left, right))): {**rows[left], **one[right]} for left in rows for right in one}
    return rows


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "+".join(str(part) for part in value) or "none"
    return str(value)


def _check_known(study: str, what: str, names: Iterable[str], valid: Iterable[str]) -> None:
    for name in names:
        if name not in (known := list(valid)):
            raise InputError(f"study {study}: unknown {what} {name!r}{nearest(name, known)}")
