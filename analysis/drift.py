"""Accuracy by camera drift: the paper's limit ("large camera motion may reduce temporal benefits"), measured.

The graph's time-aligned edges join a site to itself in the next frame, whatever the camera does between them. Generated
clips record their drift (``clips.csv`` in the data root, column ``drift_pixels``: the way of the picture's content over
the clip); so may clips of your own, in the same two columns. Command: ``taghead-analysis drift components``.
"""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy import ndarray

from analysis.cells import is_synthetic, read_arrays, trial_in_words
from analysis.figure import COLUMN, DASHES, MARKERS, PALETTE, new_figure, stamp, styled
from analysis.formats import Table
from analysis.places import slug
from analysis.tables import signed
from studies.launch import find_root
from studies.plan import Plan
from taghead.data.clips import read_clips
from taghead.errors import InputError, nearest
from taghead.metrics import wilson

FILE, CLIP, DRIFT = "clips.csv", "clip", "drift_pixels"
BINS = 3
MAX_ROWS = 8  # drawn: more would be a tangle


def read_drift(data_root: Path, plan: Plan, dataset: str) -> dict[str, float]:
    """The recorded drift of each clip, of the very clips that a study ran on.

    Args:
        data_root: The data set's folder, or one with a sub-folder for each data set.
        plan: The study.
        dataset: One of its columns.

    Returns:
        Pixels by clip id.

    Raises:
        InputError: No such column, no drift recorded there, a damaged file, or other clips than the study's.
    """
    if dataset not in plan.datasets:
        raise InputError(f"study {plan.name} has no data set {dataset!r}{nearest(dataset, plan.datasets)}")
    cell = next(cell for cell in plan.cells if cell.dataset == dataset)
    root = find_root(data_root, cell.config.data.dataset, alone=True)
    path = root / FILE
    if not path.is_file():
        raise InputError(
            f"{root}: records no camera drift; write {FILE} there with the columns {CLIP} and {DRIFT}, or take clips "
            "of taghead prepare synthetic."
        )
    if read_clips(cell.config.data.dataset, root, missing="skip").fingerprint != cell.data:
        raise InputError(f"{root} holds other clips than study {plan.name} ran on; give their folder as --data-root.")
    try:
        table = pd.read_csv(path, dtype={CLIP: str}, usecols=[CLIP, DRIFT])
        values = pd.to_numeric(table[DRIFT]).to_numpy(float)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected the columns {CLIP} and {DRIFT} ({error}).") from None
    if not np.isfinite(values).all() or (values < 0).any():
        raise InputError(f"{path}: {DRIFT} must be a number >= 0 for every clip; mend the file.")
    return dict(zip(table[CLIP].tolist(), values.tolist(), strict=True))


def drift_data(
    results: Path, plan: Plan, *, dataset: str, drift: dict[str, float], bins: int = BINS
) -> tuple[pd.DataFrame, list[str]]:
    """Accuracy of each row on test clips of little, middling and much drift: equally many clips a bin.

    A clip's accuracy is its share of the seeds that are right, so that a bin's n is of clips, however many seeds there
    are: seeds see the same clips.

    Args:
        results: The results folder.
        plan: The study.
        dataset: One of its columns.
        drift: Pixels by clip id, as from `read_drift`.
        bins: How many.

    Returns:
        Columns ``row, dataset, bin`` (from 1), ``low`` and ``high`` (pixels, of the bin's clips), ``mean_drift``,
        ``clips``, ``seeds``, ``accuracy`` with ``accuracy_low`` and ``accuracy_high`` (percent, Wilson's 95 %); and a
        sentence on each trial that cannot be read.

    Raises:
        InputError: No finished trial, or a test clip without a recorded drift.
    """
    rows, left_out = [], []
    for row in plan.rows:
        cell = plan.cell(row, dataset)
        right: dict[str, list[bool]] = {}
        seeds = 0
        for seed in plan.seeds:
            path = results / "trials" / cell.trials[seed] / "predictions.npz"
            if not path.is_file():
                continue
            try:
                found = _right(path)
            except InputError as error:
                left_out.append(f"{trial_in_words(cell, seed)}: {error} and was left out.")
                continue
            seeds += 1
            for clip, is_right in found.items():
                right.setdefault(clip, []).append(is_right)
        if seeds:
            rows += [{"row": row, "dataset": dataset, "seeds": seeds, **one} for one in _binned(right, drift, bins)]
    if not rows:
        raise InputError(f"study {plan.name}, {dataset}: no finished trial yet. {' '.join(left_out)}".rstrip())
    return pd.DataFrame(rows), left_out


def _right(path: Path) -> dict[str, bool]:
    ids, labels, logits = read_arrays(path, ("ids", "labels", "logits"))
    if logits.ndim != 2 or labels.dtype.kind not in "iu":
        raise InputError(f"{path.name} holds no logits with labels")
    right = (logits.argmax(axis=1) == labels) & ~np.isnan(logits).any(axis=1)
    return dict(zip(ids.tolist(), right.tolist(), strict=True))


def _binned(right: dict[str, list[bool]], drift: dict[str, float], bins: int) -> Iterable[dict[str, float]]:
    clips = sorted(right)
    if unknown := [clip for clip in clips if clip not in drift]:
        raise InputError(f"{FILE} has no {DRIFT} of {len(unknown)} test clips, {unknown[0]} the first; complete it.")
    pixels = np.array([drift[clip] for clip in clips])
    share = np.array([np.mean(right[clip]) for clip in clips])
    for number, members in enumerate(_bins(pixels, bins), start=1):
        mine, n = pixels[members], len(members)
        low, high = wilson(float(share[members].sum()), n)
        yield {
            "bin": number, "low": float(mine.min()), "high": float(mine.max()), "mean_drift": float(mine.mean()),
            "clips": n, "accuracy": 100 * float(share[members].mean()), "accuracy_low": 100 * low,
            "accuracy_high": 100 * high,
        }  # fmt: skip


def _bins(pixels: ndarray, bins: int) -> list[ndarray]:
    """Clips by drift, equally many a bin; clips of equal drift stay together."""
    edges = np.quantile(pixels, np.linspace(0, 1, bins + 1)[1:-1])
    place = np.searchsorted(edges, pixels, side="left")
    return [members for number in range(bins) if len(members := np.flatnonzero(place == number))]


def drift_table(plan: Plan, data: pd.DataFrame, left_out: Iterable[str] = ()) -> Table:
    """Rows x bins of drift: accuracy with its interval, and the change from the least to the most.

    Args:
        plan: The study.
        data: As from `drift_data`.
        left_out: Likewise.
    """
    dataset = str(data["dataset"].iloc[0])
    ranges = data.drop_duplicates("bin").sort_values("bin")
    header = ("", *(f"{one.low:.1f} to {one.high:.1f} px ({one.clips} clips)" for one in ranges.itertuples()),
              "most - least, points [95 % interval]")  # fmt: skip
    rows = []
    for row, mine in data.groupby("row", sort=False):
        cells = [f"{one.accuracy:.1f} [{one.accuracy_low:.0f}, {one.accuracy_high:.0f}]" for one in mine.itertuples()]
        rows.append((str(row), *cells, _in_words(*change(mine))))
    notes = (*statements(data), *left_out)
    title = f"Top-1 by camera drift on {dataset}, percent [95 % interval over clips]"
    name = f"{plan.name}_{slug(dataset)}_drift"
    return Table(name, title, header, tuple(rows), data, notes, synthetic=is_synthetic(plan, dataset))


def change(mine: pd.DataFrame) -> tuple[float, float, float]:
    """The change of accuracy from least to most drift, with Newcombe's 95 % interval of the difference of two shares.

    The two bins hold different clips. Each end goes as far from the difference as Wilson's intervals of both bins do
    together, by Pythagoras (Newcombe 1998, method 10).

    Args:
        mine: One row of `drift_data`, its bins in order.

    Returns:
        The change and the two ends, in points.
    """
    least, most = mine.iloc[0], mine.iloc[-1]
    found = float(most.accuracy - least.accuracy)
    down = math.hypot(most.accuracy - most.accuracy_low, least.accuracy_high - least.accuracy)
    up = math.hypot(most.accuracy_high - most.accuracy, least.accuracy - least.accuracy_low)
    return found, found - down, found + up


def _in_words(found: float, low: float, high: float) -> str:
    return f"{signed(found)} [{signed(low)}, {signed(high)}]"


def statements(data: pd.DataFrame) -> list[str]:
    """What accuracy by drift says, and what these clips cannot tell.

    Args:
        data: As from `drift_data`.
    """
    low, high = data["seeds"].min(), data["seeds"].max()
    seeds = f"{low}" if low == high else f"{low} to {high}"
    said = [
        f"Pooled over {seeds} seed{'' if seeds == '1' else 's'}: a clip counts by the share of seeds that are right, "
        "so that an interval's n is of clips. Drift is the way of the picture's content over the clip, as recorded."
    ]
    if data["bin"].nunique() < 2:
        return [*said, "All clips drift alike, so that there is nothing to compare."]
    changes = {str(row): change(mine) for row, mine in data.groupby("row", sort=False)}
    told = [f"{row} ({_in_words(*found)} points)" for row, found in changes.items() if found[1] > 0 or found[2] < 0]
    if told:
        said.append(
            f"The 95 % interval of the change from least to most drift (Newcombe's) leaves out 0 for "
            f"{', '.join(told)}; each row by itself: without any effect one in 20 would."
        )
    else:
        every = "the one row" if len(changes) == 1 else f"all {len(changes)} rows"
        said.append(
            f"The 95 % interval of the change from least to most drift (Newcombe's) holds 0 in {every}: these clips do "
            "not tell whether drift costs accuracy."
        )
    if len(changes) == 1:  # its number stands in the table
        return said
    lowest, highest = (pick(changes, key=lambda row: changes[row][0]) for pick in (min, max))
    said.append(
        f"From least to most drift Top-1 changes by {signed(changes[lowest][0])} ({lowest}) to "
        f"{signed(changes[highest][0])} points ({highest})."
    )
    return said


@styled
def draw_drift(data: pd.DataFrame, *, synthetic: bool) -> Figure:
    """Accuracy over drift, a line a row, with Wilson's intervals; rows a little apart, so that all are seen.

    Args:
        data: As from `drift_data`; the first `MAX_ROWS` rows are drawn.
        synthetic: Stamps the figure.
    """
    rows = list(dict.fromkeys(data["row"]))[:MAX_ROWS]
    figure, (axis,) = new_figure(COLUMN, 2.6)
    step = 0.02 * max(float(data["high"].max()), 1.0)
    for number, row in enumerate(rows):
        mine = data[data["row"] == row]
        place = mine["mean_drift"] + step * (number - (len(rows) - 1) / 2)
        around = (mine["accuracy"] - mine["accuracy_low"], mine["accuracy_high"] - mine["accuracy"])
        axis.errorbar(
            place, mine["accuracy"], yerr=around, label=row, color=PALETTE[number], marker=MARKERS[number],
            linestyle=DASHES[number % len(DASHES)], elinewidth=0.7, capsize=1.5,
        )  # fmt: skip
    axis.set(xlabel="camera drift over the clip, pixels", ylabel="Top-1, %", xlim=(0, None), ylim=(0, 103))
    for edge in data.loc[data["bin"] > 1, "low"].unique():
        axis.axvline(edge, color="#bbbbbb", linewidth=0.6, zorder=0)
    figure.legend(loc="outside lower center", ncols=2)
    return stamp(figure, synthetic=synthetic)
