"""A study is a table whose cells are experiments: rows (overrides) by data sets (base configs) by seeds.

The paper's Tables 1 to 4 and Figure 3 are values of this type (`studies.catalog`), and so is a user's own study. A
search is a study whose rows a sampler chooses, one after another, from a space.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, get_args

from studies.space import Choice, Range, Space, text_of
from taghead.backbones.own import is_own
from taghead.config import Config, evolve
from taghead.errors import InputError, nearest
from taghead.record import Keep

Rows = Mapping[str, Mapping[str, Any]]
METRICS = ("top1", "mca")
BASE = "base"  # the row of a search's table that its winner is compared to
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
        note: What its table must say of how its rows were chosen.

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
    note: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise InputError(f"a study's name is made of a-z, 0-9, _ and -, but got {self.name!r}.")
        _check_shapes(self, mappings=("rows", "datasets"), tuples=("seeds", "metrics", "keep"))
        for what in ("rows", "datasets", "seeds", "metrics"):
            if not getattr(self, what):
                raise InputError(f"study {self.name}: {what} must not be empty.")
        self._check_types()
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise InputError(f"study {self.name}: seeds must be different and not negative, but got {self.seeds}.")
        _check_known(self.name, "keep", self.keep, get_args(Keep))
        _check_known(self.name, "metric", self.metrics, METRICS)
        if self.base_row is not None:
            _check_known(self.name, "base row", [self.base_row], self.rows)
        self.configs()

    def _check_types(self) -> None:
        wanted: list[tuple[str, object, type]] = [
            (name, getattr(self, name), str) for name in ("title", "text", "note")
        ]
        wanted += [("seed", seed, int) for seed in self.seeds]
        wanted += [("row name", name, str) for name in self.rows]
        wanted += [("data set label", name, str) for name in self.datasets]
        wanted += [(f"row {name!r}", row, Mapping) for name, row in self.rows.items()]
        wanted += [(f"data set {name}", base, Config) for name, base in self.datasets.items()]
        if self.table is not None:
            wanted.append(("table", self.table, int))
        for what, value, kind in wanted:
            if not isinstance(value, kind) or isinstance(value, bool):
                raise InputError(f"study {self.name}: {what} must be of type {kind.__name__}, but got {value!r}.")
        for name in (*self.rows, *self.datasets):
            if not name.strip() or not name.isprintable():
                raise InputError(f"study {self.name}: a label is a line of printable text, but got {name!r}.")
        for name in self.datasets:
            if "/" in name:
                raise InputError(f"study {self.name}: data set label {name!r} names files; leave out /.")

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


OBJECTIVES: Mapping[str, Literal["maximize", "minimize"]] = {
    "val_top1": "maximize",
    "val_mca": "maximize",
    "top1": "maximize",
    "mca": "maximize",
    "multiply_adds": "minimize",
    "parameters": "minimize",
}
SAMPLERS = ("tpe", "random", "grid", "nsga2")
PRUNERS = ("median", "successive_halving")


@dataclass(frozen=True, kw_only=True)
class Search:
    """A study whose rows a sampler (Optuna's) chooses one after another, by what came out of those before.

    Candidate k is a function of the search's seed and of what came of the candidates up to k - ``ahead``, whatever
    finished first and however often the search was interrupted. Its winner is run again over fresh seeds, beside the
    base, before a table shows it: a score that was picked because it is high is too high.

    Attributes:
        name: As in `Study`.
        title: One line, for people.
        space: What is searched, by dotted key. A key that another's ``only_if`` names comes before that one.
        datasets: The base of the one data set, by its label.
        num_trials: How many different candidates are tried.
        objectives: One or more of `OBJECTIVES`: the score of the last epoch on the validation split (``val_...``) or on
            the test split, which makes it flattering, or a count of the model. Several give a Pareto front.
        sampler: One of `SAMPLERS`.
        sampler_options: For Optuna's sampler, as ``{"n_startup_trials": 5}``.
        pruner: One of `PRUNERS`, which stops candidates early by the first objective; None stops none.
        pruner_options: For Optuna's pruner.
        seed: Of the sampler.
        seeds: Of each candidate's trials; an objective is the mean over them.
        final_seeds: How many other seeds the winner and the base are run with in the end.
        while_searching: What is changed for candidates only, as ``{"train.epochs": 10}``.
        holdout: The share of the training clips that is validation while searching, where the data set has none.
        ahead: So many candidates may be chosen before the result of the first of them is known: the most that are
            trained at once.
        keep: What is kept of the final trials, as in `Study`.
        metrics: What the final table shows.
        text: What it is for.

    Raises:
        InputError: Something that is not right, and what to do.
    """

    name: str
    title: str
    space: Space
    datasets: Mapping[str, Config]
    num_trials: int = 30
    objectives: tuple[str, ...] = ("val_top1",)
    sampler: str = "tpe"
    sampler_options: Mapping[str, Any] = field(default_factory=dict)
    pruner: str | None = None
    pruner_options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    seeds: tuple[int, ...] = (0,)
    final_seeds: int = 3
    while_searching: Mapping[str, Any] = field(default_factory=dict)
    holdout: float = 0.2
    ahead: int = 4
    keep: tuple[Keep, ...] = ()
    metrics: tuple[str, ...] = METRICS
    text: str = ""

    def __post_init__(self) -> None:
        tuples, mappings = ("objectives", "seeds"), ("space", "sampler_options", "pruner_options", "while_searching")
        _check_shapes(self, mappings=(*mappings, "datasets"), tuples=tuples)
        limits = {"num_trials": (1, 100_000), "final_seeds": (1, 1_000), "ahead": (1, 100_000), "seed": (0, 2**63)}
        for what, (low, high) in limits.items():
            value = getattr(self, what)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                rule = f"{what} must be a whole number from {low} to {high}"
                raise InputError(f"search {self.name}: {rule}, but got {value!r}.")
        for key, one in self.space.items():
            if not isinstance(one, Choice | Range):
                raise InputError(f"search {self.name}: space: {key} must be a Choice or a Range, but got {one!r}.")
        self.study({BASE: {}})  # checks what it shares with a study
        replace(self.study({BASE: {}}), seeds=self.seeds)
        _check_known(self.name, "objective", self.objectives, OBJECTIVES)
        if len(set(self.objectives)) < len(self.objectives):
            raise InputError(f"search {self.name}: objectives must be different, but got {self.objectives}.")
        if "seed" in self.sampler_options:
            raise InputError(f"search {self.name}: a sampler's seed is given as seed, not in sampler_options.")
        _check_known(self.name, "sampler", [self.sampler], SAMPLERS)
        _check_known(self.name, "pruner", [self.pruner] if self.pruner else [], PRUNERS)
        for what in ("space", "objectives", "seeds"):
            if not getattr(self, what):
                raise InputError(f"search {self.name}: {what} must not be empty.")
        if len(self.datasets) > 1:
            raise InputError(f"search {self.name}: a search has one data set, but got {', '.join(self.datasets)}.")
        self._check_pruner()
        self._check_counts()
        self._check_space()

    def _check_pruner(self) -> None:
        one = len(self.objectives) == len(self.seeds) == 1 and self.objectives[0].startswith("val_")
        if self.pruner and not one:
            raise InputError(
                f"search {self.name}: a pruner needs one seed and one objective that each epoch has, val_top1 or "
                f"val_mca, but got {self.objectives} and seeds {self.seeds}."
            )

    def _check_counts(self) -> None:
        backbone = self.space.get("model.backbone", Choice((self.base.model.backbone,)))
        own = [name for name in backbone.all_values() or () if is_own(str(name))]
        counts = [name for name in self.objectives if name in ("multiply_adds", "parameters")]
        if own and counts:
            raise InputError(
                f"search {self.name}: {counts[0]} of a backbone of your own ({own[0]}) is not known before it runs; "
                "leave that objective out."
            )

    def _check_space(self) -> None:
        try:
            evolve(self.base, {**self.while_searching, "data.holdout": self.holdout})
        except InputError as error:
            raise InputError(f"search {self.name}, while searching: {error}") from None
        for number, (key, one) in enumerate(self.space.items()):
            for other, values in one.only_if.items():
                self._check_condition(key, other, values)
                if other in self.space and other not in list(self.space)[:number]:
                    raise InputError(f"search {self.name}: {other} must come before {key}, whose only_if names it.")
            if self.sampler == "grid" and one.all_values() is None:
                raise InputError(f"search {self.name}: a grid needs a step in the range of {key}.")
            for value in one.values if isinstance(one, Choice) else (one.low, one.high):
                try:
                    evolve(self.base, {**self.while_searching, key: value})
                except InputError as error:
                    if str(error).startswith((f"{key}:", "unknown key")):  # else another key of the space may mend it
                        raise InputError(f"search {self.name}: {error}") from None

    def _check_condition(self, key: str, other: str, values: tuple[Any, ...]) -> None:
        for value in values:
            try:
                evolve(self.base, {other: value})
            except InputError as error:
                if str(error).startswith((f"{other}:", "unknown key")):
                    raise InputError(f"search {self.name}: {key} only if {other} is {value!r}: {error}") from None

    @property
    def base(self) -> Config:
        """What it starts from."""
        return next(iter(self.datasets.values()))

    def study(self, rows: Rows, *, note: str = "") -> Study:
        """The table that it ends in: some rows over seeds that no candidate was chosen by.

        Args:
            rows: The base and the winners.
            note: What is to be said of how they were chosen.
        """
        fresh = (seed for seed in itertools.count() if seed not in self.seeds)
        return Study(
            **{name: getattr(self, name) for name in ("name", "title", "datasets", "keep", "metrics", "text")},
            rows=rows,
            seeds=tuple(itertools.islice(fresh, self.final_seeds)),
            base_row=BASE,
            note=note,
        )

    def override(self, overrides: Mapping[str, Any]) -> Self:
        """The same search on a base that differs in some dotted keys, which are no longer searched.

        Raises:
            InputError: As `Study.override`, or nothing is left to be searched.
        """
        space = {key: one for key, one in self.space.items() if key not in overrides}
        datasets = {name: evolve(base, overrides) for name, base in self.datasets.items()}
        searching = {key: value for key, value in self.while_searching.items() if key not in overrides}
        return replace(self, space=space, datasets=datasets, while_searching=searching)


def axis(key: str, values: Iterable[Any], *, label: str | None = None) -> dict[str, dict[str, Any]]:
    """Rows that differ in one key: ``axis("head.alpha", [0.1, 0.2])`` has the rows ``alpha 0.1`` and ``alpha 0.2``.

    Args:
        key: The dotted key.
        values: Its values; several names are joined by ``+`` in the label, an empty tuple is ``none``.
        label: What the labels begin with; the key's last word if None.

    Raises:
        InputError: Two values that are written alike.
    """
    name = key.rpartition(".")[2] if label is None else label
    values = list(values)
    rows = {f"{name} {text_of(value)}": {key: value} for value in values}
    if len(rows) < len(values):
        raise InputError(f"an axis has different values, but got {values}.")
    return rows


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


def leave_one_out(base: Mapping[str, Any], components: Rows, *, label: str = "Full") -> dict[str, dict[str, Any]]:
    """The whole model, and one row for each component that goes without it: ``Full``, ``without TAT``, ...

    Args:
        base: Overrides of the whole model's row; none for the data sets' own configs.
        components: What switches each one off, by its name.
        label: The whole model's row.

    Raises:
        InputError: No components, one that changes nothing of the base, two that change the same, or a clash of labels.
    """
    if not components:
        raise InputError("leave_one_out needs components, but got none: give what switches each one off, by its name.")
    rows = {label: dict(base)}
    for name, off in components.items():
        row, without = {**base, **off}, f"without {name}"
        if row == dict(base):
            has = f"{_assignments(off)} is what row {label!r} has"
            raise InputError(f"component {name!r} changes nothing: {has}; give what switches it off, or leave it out.")
        if without in rows:
            raise InputError(f"two rows would be called {without!r}: give the base another label.")
        if same := [other for other, values in rows.items() if values == row]:
            raise InputError(f"rows {same[0]!r} and {without!r} would be one, by {_assignments(off)}: leave one out.")
        rows[without] = row
    return rows


def _assignments(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={text_of(value)}" for key, value in values.items()) or "no override"


def _check_shapes(study: Any, *, mappings: Iterable[str], tuples: Iterable[str]) -> None:
    for kind, word, names in ((Mapping, "dict", mappings), (tuple | list, "tuple", tuples)):
        for name in names:
            if not isinstance(value := getattr(study, name), kind):
                raise InputError(f"study {study.name}: {name} must be a {word}, but got {value!r}.")


def _check_known(study: str, what: str, names: Iterable[str], valid: Iterable[str]) -> None:
    for name in names:
        if name not in (known := list(valid)):
            raise InputError(f"study {study}: unknown {what} {name!r}{nearest(name, known)}")
