"""Accuracy class by class against class size (the long tail behind MCA), and the pairs that are taken for each other.

Command: ``taghead-analysis classes main``. Pooled over the seeds of a cell: every seed tells the same test clips.
"""

import shlex
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy import ndarray

from analysis.cells import data_facts, read_arrays, trial_in_words
from analysis.embeddings import Clips, class_names
from analysis.figure import COLUMN, PALETTE, new_figure, stamp, styled
from analysis.formats import MINUS, Table
from analysis.places import slug
from studies.plan import Cell, Plan
from taghead.errors import InputError, nearest
from taghead.metrics import wilson

NAMED = 30  # classes up to which each has a line of its own in the figure
GROUPS = 5  # of classes by size, where there are more
PAIRS = 10
ASYMPTOTIC = 10  # classes from which the t-distribution stands for all orders of them
LONGEST_NAME = 28  # characters, of which a column's width leaves half to the points
Drawn = tuple[str, Figure, str, str, Table]


@dataclass(frozen=True)
class Told:
    """What the seeds of one cell said of the test clips.

    Attributes:
        cell: Of which row and data set.
        seeds: Those whose predictions can be read.
        ids: Of the clips, all seeds after each other.
        labels: Their classes.
        guesses: The classes that they were given; -1 for a clip that does not decode.
        num_classes: As many as there are logits.
        train_counts: How many clips of each class were trained on; None where the records do not hold it.
        classes: Their names by label; empty where the records do not hold them.
    """

    cell: Cell
    seeds: tuple[int, ...]
    ids: ndarray
    labels: ndarray
    guesses: ndarray
    num_classes: int
    train_counts: tuple[int, ...] | None = None
    classes: tuple[str, ...] = ()

    @property
    def names(self) -> dict[int, str]:
        """The classes' names by label, of those that have test clips."""
        return class_names(Clips(self.cell.row, self.ids, self.labels, self.guesses, names=self.classes))


def load(results: Path, plan: Plan, *, row: str, dataset: str) -> tuple[Told, list[str]]:
    """The predictions of one cell's complete trials.

    Args:
        results: The results folder.
        plan: The study.
        row: One of its rows.
        dataset: One of its columns.

    Returns:
        The predictions, and a sentence on each trial whose file is damaged.

    Raises:
        InputError: No such row or column, or no predictions that can be read.
    """
    _check_known(plan, "row", row, plan.rows)
    _check_known(plan, "data set", dataset, plan.datasets)
    cell, left_out = plan.cell(row, dataset), []
    parts: dict[int, tuple[ndarray, ndarray, ndarray, int]] = {}
    for seed, path in _paths(results, cell).items():
        if path.exists():
            try:
                parts[seed] = _read(path)
            except InputError as error:
                left_out.append(f"{trial_in_words(cell, seed)}: {error} and was left out.")
    if not parts:
        remedy = f"run taghead-studies run {plan.name} --results {shlex.quote(str(results))} first."
        raise InputError(f"study {plan.name}, {row}, {dataset}: no predictions; {' '.join(left_out) or remedy}")
    ids, labels, guesses = (np.concatenate([part[place] for part in parts.values()]) for place in range(3))
    number, facts = max(part[3] for part in parts.values()), data_facts(results, [cell.trials[seed] for seed in parts])
    known = (facts.train_counts, facts.classes) if facts else (None, ())
    return Told(cell, tuple(parts), ids, labels, guesses, number, *known), left_out


def _paths(results: Path, cell: Cell) -> dict[int, Path]:
    return {seed: results / "trials" / trial / "predictions.npz" for seed, trial in cell.trials.items()}


def _check_known(plan: Plan, what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise InputError(f"study {plan.name} has no {what} {name!r}{nearest(name, known)}")


def _read(path: Path) -> tuple[ndarray, ndarray, ndarray, int]:
    ids, labels, logits = read_arrays(path, ("ids", "labels", "logits"))
    shaped = labels.ndim == 1 and logits.ndim == 2 and labels.dtype.kind in "iu" and logits.dtype.kind == "f"
    if not shaped or not len(labels) or not (0 <= labels.min() and labels.max() < logits.shape[1]):
        raise InputError(f"{path.name} holds no logits with their labels")
    unread = np.isnan(logits).any(axis=1)
    return ids, labels.astype(int), np.where(unread, -1, logits.argmax(axis=1)), logits.shape[1]


def classes_data(told: Told) -> pd.DataFrame:
    """Accuracy by class.

    Args:
        told: As from `load`.

    Returns:
        One row for each class that has test clips, the largest first: ``label, name, size``, ``sized_by`` (``training``
        clips, or ``test`` clips where the records do not hold how many were trained on), ``test`` (clips), ``seeds``,
        ``right`` and ``unreadable`` (clips, summed over the seeds), ``accuracy`` (percent of all of them), ``low`` and
        ``high`` (Wilson's 95 % interval at ``test`` clips: seeds tell the same clips, and do not make them more).
    """
    names, rows, seeds = told.names, [], len(told.seeds)
    for label in np.unique(told.labels).tolist():
        mine = told.labels == label
        test, right = len(np.unique(told.ids[mine])), int((told.guesses[mine] == label).sum())
        size, by = (test, "test") if told.train_counts is None else (told.train_counts[label], "training")
        share = right / int(mine.sum())
        low, high = wilson(share * test, test)
        unreadable = int((told.guesses[mine] < 0).sum())
        rows.append((label, names[label], size, by, test, seeds, right, unreadable, 100 * share, 100 * low, 100 * high))
    columns = ["label", "name", "size", "sized_by", "test", "seeds", "right", "unreadable", "accuracy", "low", "high"]
    data = pd.DataFrame(rows, columns=columns)
    return data.sort_values(["size", "label"], ascending=[False, True], ignore_index=True)


def size_correlation(data: pd.DataFrame) -> tuple[float, float]:
    """Spearman's rank correlation of size and accuracy over classes, and its p-value; NaN where either is constant.

    With fewer than `ASYMPTOTIC` classes the p-value is exact: the share of all orders that are as far from 0.

    Args:
        data: As from `classes_data`.
    """
    if len(data) < 3 or data["size"].nunique() < 2 or data["accuracy"].nunique() < 2:
        return float("nan"), float("nan")
    from scipy.stats import spearmanr  # slow to load

    found = spearmanr(data["size"], data["accuracy"])
    exact = len(data) < ASYMPTOTIC
    return float(found.statistic), _exact_p(data) if exact else float(found.pvalue)


def _exact_p(data: pd.DataFrame) -> float:
    sizes, accuracies = (data[name].rank().to_numpy() - (len(data) + 1) / 2 for name in ("size", "accuracy"))
    # ranks and their spread stay as they are, so that the product alone tells one order from another
    products = np.array(list(permutations(sizes))) @ accuracies
    return float((np.abs(products) >= abs(sizes @ accuracies) - 1e-9).mean())


def classes_notes(told: Told, data: pd.DataFrame) -> list[str]:
    """What the classes show, in sentences.

    Args:
        told: As from `load`.
        data: As from `classes_data`.
    """
    cell, clips = told.cell, int(data["test"].sum())
    said = [
        f"{cell.row} on {cell.dataset}: {len(data)} classes of {_range(data['test'])} test clips each, {clips} in all, "
        f"pooled over {_seeds(told)}. "
        + (
            "Sizes are those of the test split."
            if told.train_counts is None
            else f"Size: clips that were trained on, {_range(data['size'])} of each class."
        )
    ]
    if absent := told.num_classes - len(data):
        said.append(f"{absent} of {told.num_classes} classes have no test clip, and are not shown.")
    said.append(_correlation(data))
    worst = data.sort_values(["accuracy", "label"]).head(min(3, len(data) - 1))
    if len(worst):
        listed = ", ".join(f"{one.name} {one.accuracy:.0f} % of {one.test}" for one in worst.itertuples(index=False))
        said.append(f"Lowest: {listed}.")
    if unreadable := int(data["unreadable"].sum()):
        said.append(f"{unreadable} predictions are of clips that do not decode, and count as wrong.")
    return said


def _range(sizes: pd.Series) -> str:
    return f"{sizes.min()}" if sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"


def _seeds(told: Told) -> str:
    seeds = ", ".join(map(str, told.seeds))
    of = f" of {len(told.cell.trials)}" if len(told.seeds) < len(told.cell.trials) else ""
    return f"{len(told.seeds)}{of} seeds ({seeds})" if len(told.seeds) > 1 or of else f"one seed ({seeds})"


def _correlation(data: pd.DataFrame) -> str:
    rho, p = size_correlation(data)
    if rho != rho:
        same = "one size" if data["size"].nunique() < 2 else "one accuracy" if len(data) > 2 else "fewer than three"
        return f"The {len(data)} classes have {same}: no correlation of size and accuracy is to be had."
    way = "larger classes are told better" if rho > 0 else "larger classes are told worse"
    sense = f"{way}" if p < 0.05 else "no more than chance may give"
    text = f"{rho:.2f}".replace("-", MINUS)
    p_text = "below 0.001" if p < 0.001 else f"{p:.3f}"
    return f"Rank correlation of size and accuracy (Spearman): {text} over {len(data)} classes, p {p_text}: {sense}."


def confusions_data(told: Told) -> pd.DataFrame:
    """The pairs of classes that are taken for each other, both ways counted together.

    Args:
        told: As from `load`.

    Returns:
        Columns ``first, second`` (labels), ``first_as_second, second_as_first, count`` (predictions of all seeds) and
        ``share`` (percent of all predictions on clips of the two), most confused first, lower labels before higher.
    """
    wrong = (told.guesses != told.labels) & (told.guesses >= 0)
    pairs: dict[tuple[int, int], list[int]] = {}
    for label, guess in zip(told.labels[wrong].tolist(), told.guesses[wrong].tolist(), strict=True):
        pairs.setdefault((min(label, guess), max(label, guess)), [0, 0])[label > guess] += 1
    counts = np.bincount(told.labels, minlength=told.num_classes)
    rows = [
        (first, second, there, back, there + back, 100 * (there + back) / int(counts[first] + counts[second]))
        for (first, second), (there, back) in pairs.items()
    ]
    columns = ["first", "second", "first_as_second", "second_as_first", "count", "share"]
    data = pd.DataFrame(rows, columns=columns)
    return data.sort_values(["count", "first", "second"], ascending=[False, True, True], ignore_index=True)


def confusions_table(plan: Plan, told: Told) -> Table:
    """The `PAIRS` pairs of classes that are most often taken for each other.

    Args:
        plan: The study.
        told: As from `load`.
    """
    data, names, cell = confusions_data(told), told.names, told.cell
    rows = [
        (
            f"{names.get(pair.first, f'class {pair.first}')} / {names.get(pair.second, f'class {pair.second}')}",
            f"{pair.first_as_second}", f"{pair.second_as_first}", f"{pair.count}", f"{pair.share:.1f} %",
        )
        for pair in data.head(PAIRS).itertuples(index=False)
    ]  # fmt: skip
    errors, shown = int(data["count"].sum()), int(data["count"].head(PAIRS).sum())
    notes = [f"Predictions of {_seeds(told)}, {len(told.labels)} in all; both: share of those on clips of the two."]
    if errors:
        notes.append(
            f"{errors} of them name a wrong class, in {len(data)} pairs; the {len(rows)} shown hold {shown} of these "
            f"({100 * shown / errors:.0f} %)."
        )
    else:
        notes.append("None of them names a wrong class.")
    if unread := int((told.guesses < 0).sum()):
        notes.append(f"{unread} are of clips that do not decode; they name no class.")
    return Table(
        name=f"{plan.name}_{slug(cell.dataset)}_{slug(cell.row)}_confusions",
        title=f"Most confused pairs of classes: {cell.row} on {cell.dataset}",
        header=("first / second", "first as second", "second as first", "both", "share"),
        rows=tuple(rows),
        data=data,
        notes=tuple(notes),
        synthetic=cell.synthetic,
    )


def classes_figures(results: Path, plan: Plan, *, row: str | None = None) -> tuple[list[Drawn], list[str]]:
    """A figure and a table for each data set in which a row has predictions.

    Args:
        results: The results folder.
        plan: The study.
        row: Of the study; its last if None, which in the paper's tables is the full model.

    Returns:
        For each, the file's stem, the figure, what it shows in words, its caption and the table of confusions; and a
        sentence on each data set of which no file can be read.

    Raises:
        InputError: No such row.
    """
    row = plan.rows[-1] if row is None else row
    _check_known(plan, "row", row, plan.rows)
    made, unread = [], []
    for dataset in plan.datasets:
        if not any(path.exists() for path in _paths(results, plan.cell(row, dataset)).values()):
            continue
        try:
            told, left_out = load(results, plan, row=row, dataset=dataset)
        except InputError as error:
            unread.append(str(error))
            continue
        data = classes_data(told)
        said = " ".join([*classes_notes(told, data), *left_out])
        figure = draw_classes(data, dataset=dataset, synthetic=told.cell.synthetic)
        stem = f"{plan.name}_{slug(dataset)}_{slug(row)}_classes"
        caption = f"Accuracy by class. {_drawn(data)} {said}"
        made.append((stem, figure, f"Accuracy by class. {said}", caption, confusions_table(plan, told)))
    return made, unread


def _drawn(data: pd.DataFrame) -> str:
    if len(data) <= NAMED:
        return f"In brackets: {data['sized_by'].iloc[0]} clips; bars: Wilson's 95 % interval."
    if data["size"].nunique() == 1:
        return "All classes have one size, so that they are counted by accuracy."
    return "Line: means of classes grouped by size."


@styled
def draw_classes(data: pd.DataFrame, *, dataset: str, synthetic: bool) -> Figure:
    """Up to `NAMED` classes a line each, the largest on top; more as points over their size, or counted if it is one.

    Args:
        data: As from `classes_data`.
        dataset: Its column's label.
        synthetic: Stamps the figure.
    """
    few, one_size = len(data) <= NAMED, data["size"].nunique() == 1
    figure, (axis,) = new_figure(COLUMN, 0.8 + 0.16 * len(data) if few else 2.6)
    if few:
        _draw_named(axis, data)
    elif one_size:
        axis.hist(data["accuracy"], bins=np.linspace(0, 100, 11).tolist(), rwidth=0.9)
        axis.set_ylabel("classes")
    else:
        _draw_many(axis, data)
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    words = f"{dataset} accuracy of a class, %"
    axis.set(**({"xlabel": words, "xlim": (-2, 102)} if few or one_size else {"ylabel": words, "ylim": (-3, 103)}))
    return stamp(figure, synthetic=synthetic)


def _draw_named(axis: Axes, data: pd.DataFrame) -> None:
    places = range(len(data))
    ends = [(data["accuracy"] - data["low"]).clip(lower=0), (data["high"] - data["accuracy"]).clip(lower=0)]
    axis.errorbar(data["accuracy"], places, xerr=ends, ls="none", marker="o", capsize=2, elinewidth=0.8)
    names = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in data["name"]]
    labels = [f"{name} ({size})" for name, size in zip(names, data["size"], strict=True)]
    axis.set_yticks(places, labels)
    axis.set_ylim(len(data) - 0.4, -0.6)


def _draw_many(axis: Axes, data: pd.DataFrame) -> None:
    axis.scatter(data["size"], data["accuracy"], s=9, alpha=0.45, linewidths=0, color=PALETTE[0], label="a class")
    means = group_means(data)
    axis.plot(means["size"], means["accuracy"], color=PALETTE[1], marker="s", label="mean of classes by size")
    axis.set_xlabel(f"{data['sized_by'].iloc[0]} clips of the class")
    low, high = data["size"].min(), data["size"].max()
    if high >= 8 * max(low, 1):
        if low:
            axis.set_xscale("log")
        else:  # a logarithm has no place for classes that were not trained on
            axis.set_xscale("symlog", linthresh=1)
            axis.set_xlim(left=-0.2)
        axis.xaxis.set_minor_locator(NullLocator())
        ticks = [one * 10**power for power in range(6) for one in (1, 2, 5) if low <= one * 10**power <= high]
        ticks = ticks if low else [0, *ticks]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])


def group_means(data: pd.DataFrame) -> pd.DataFrame:
    """Mean size and accuracy of classes grouped by size, the smallest first; equal sizes stay in one group.

    Args:
        data: As from `classes_data`.
    """
    ranks = data["size"].rank(method="average", pct=True)
    groups = np.ceil(ranks * GROUPS - 1e-9).astype(int)
    return data.groupby(groups)[["size", "accuracy"]].mean().reset_index(drop=True)
