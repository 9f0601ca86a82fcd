"""Figures of a search: the scores of its candidates in their order, and the Pareto front of several objectives.

Command: ``taghead-analysis importance head_search``, which draws them beside what mattered (`analysis.importance`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.figure import COLUMN, PAGE, PALETTE, new_figure, stamp, styled
from analysis.importance import draw_importance, importance_data, importance_notes
from analysis.search import candidates_data, candidates_table
from studies.candidates import SearchState, read_search
from studies.store import Store
from studies.study import OBJECTIVES
from studies.winners import result_of

OBJECTIVE_NAMES = {
    "val_top1": "validation Top-1, %",
    "val_mca": "validation MCA, %",
    "top1": "test Top-1, %",
    "mca": "test MCA, %",
    "multiply_adds": "multiply-adds, G",
    "parameters": "parameters, M",
}
SCALES = {"multiply_adds": 1e-9, "parameters": 1e-6}  # all else is a fraction, and shown in percent


def history_data(results: Path, name: str) -> pd.DataFrame:
    """The scores of a search in the order of choosing.

    Args:
        results: The results folder.
        name: Of the search.

    Returns:
        One row for each candidate and objective: ``candidate, state, repeats`` and ``best`` as in
        `analysis.search.candidates_data`, ``objective``, its ``value`` (percent, 1e9 multiply-adds or 1e6 parameters;
        of a pruned candidate where it was stopped, NaN where there is none) and ``running_best``, the best of that
        objective among the complete candidates so far.

    Raises:
        InputError: No such search.
    """
    state, data = read_search(results, name), candidates_data(results, name)
    stopped = _stopped(state, Store(results))
    frames = []
    for number, objective in enumerate(state.objectives):
        values = pd.to_numeric(data[objective]).astype(float)
        complete = values.where(data["state"] == "complete")
        if number == 0:
            values = values.fillna(data["candidate"].map(stopped).astype(float))
        best = complete.ffill().cummax() if OBJECTIVES[objective] == "maximize" else complete.ffill().cummin()
        scale = SCALES.get(objective, 100)
        frame = data[["candidate", "state", "repeats", "best"]].assign(objective=objective)
        frames.append(frame.assign(value=scale * values, running_best=scale * best))
    return pd.concat(frames, ignore_index=True)


def _stopped(state: SearchState, store: Store) -> dict[int, float]:
    """The last value of each candidate that was pruned."""
    found = {}
    for one in state.candidates:
        result = result_of(state, one, store)
        if result.state == "pruned" and result.curve:
            found[one.number] = result.curve[max(result.curve)]
    return found


def history_note(data: pd.DataFrame) -> str:
    """What came of the candidates, and how long none has been better.

    Args:
        data: As from `history_data`.
    """
    if data.empty:
        return "No candidate is chosen yet."
    objective = data["objective"].iloc[0]
    one = data[data["objective"] == objective]
    new = one[one["repeats"].isna()]
    words = {"complete": "complete", "pruned": "pruned", "fail": "failed", "open": "without a result yet"}
    counts = {word: int((new["state"] == state).sum()) for state, word in words.items()}
    repeats = f", {len(one) - len(new)} of which repeat an earlier one" if len(one) > len(new) else ""
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    said = f"{len(one)} candidates{repeats}: {told}."
    complete = new[new["state"] == "complete"]
    if complete.empty:
        return said
    maximize = OBJECTIVES[objective] == "maximize"
    best = complete.loc[complete["value"].idxmax() if maximize else complete["value"].idxmin()]
    later = int((complete["candidate"] > best["candidate"]).sum())
    after = {0: "no complete one came after it", 1: "the one complete one after it is not better"}.get(
        later, f"none of the {later} complete ones after it is better"
    )
    return f"{said} Best: {_told(objective, best['value'])} by candidate {best['candidate']}; {after}."


def _told(objective: str, value: float) -> str:
    name, unit = OBJECTIVE_NAMES[objective].split(", ")
    return f"{name} {value:.1f} %" if unit == "%" else f"{value:.4g} {unit} {name}"


@styled
def draw_history(data: pd.DataFrame, *, synthetic: bool) -> Figure:
    """A panel an objective: a point a candidate, and the best so far; those without a score stand on the axis.

    Args:
        data: As from `history_data`, not empty.
        synthetic: Stamps the figure.
    """
    objectives = list(dict.fromkeys(data["objective"]))
    figure, axes = new_figure(PAGE if len(objectives) > 1 else COLUMN, 2.5, columns=len(objectives))
    looks: dict[str, dict[str, Any]] = {
        "complete": {"marker": "o", "color": PALETTE[0], "label": "complete"},
        "pruned": {"marker": "v", "color": PALETTE[4], "label": "pruned, where it was stopped"},
        "fail": {"marker": "x", "color": PALETTE[1], "label": "failed"},
        "open": {"marker": "|", "color": "#888888", "label": "no result yet"},
    }
    for axis, objective in zip(axes, objectives, strict=True):
        one = data[data["objective"] == objective]
        for state, look in looks.items():
            mine = one[one["state"] == state]
            scored, without = mine[mine["value"].notna()], mine[mine["value"].isna()]
            axis.plot(scored["candidate"], scored["value"], ls="none", alpha=0.8, **look)
            on_axis = axis.get_xaxis_transform()
            axis.plot(without["candidate"], np.full(len(without), 0.03), ls="none", transform=on_axis, **look)
        axis.step(one["candidate"], one["running_best"], where="post", color="#000000", lw=1, label="best so far")
        axis.set(xlabel="candidate", ylabel=OBJECTIVE_NAMES[objective])
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure, axes, ncols=5 if len(objectives) > 1 else 2)
    return stamp(figure, synthetic=synthetic)


def _legend(figure: Figure, axes: list[Axes], *, ncols: int) -> None:
    """One entry for each thing that is drawn anywhere."""
    found = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            if isinstance(handle, Line2D) and np.size(handle.get_xdata()):
                found[label] = handle
    figure.legend([*found.values()], [*found], loc="outside lower center", ncols=ncols)


def front_data(results: Path, name: str) -> pd.DataFrame:
    """The complete candidates of a search for two objectives or more.

    Args:
        results: The results folder.
        name: Of the search.

    Returns:
        Columns ``candidate``, one an objective (as in `history_data`) and ``front``, whether no other candidate is at
        least as good in all and better in one (of equal ones the earliest); empty for one objective.

    Raises:
        InputError: No such search.
    """
    state, data = read_search(results, name), candidates_data(results, name)
    data = data[(data["state"] == "complete") & data["repeats"].isna()]
    if len(state.objectives) < 2:
        data = data[:0]
    scores = {one: SCALES.get(one, 100) * pd.to_numeric(data[one]).astype(float) for one in state.objectives}
    return pd.DataFrame({"candidate": data["candidate"], **scores, "front": data["best"].astype(bool)}).reset_index(
        drop=True
    )


def front_note(data: pd.DataFrame) -> str:
    """The ends of the front, and what lies between them.

    Args:
        data: As from `front_data`, not empty.
    """
    score, cost = data.columns[1:3]
    front = data[data["front"]].sort_values([score, "candidate"])
    ends = [
        f"{_told(score, one[score])} at {_told(cost, one[cost])} (candidate {one['candidate']})"
        for _, one in front.iloc[[0, -1]].iterrows()
    ]
    told = f"from {ends[0]} to {ends[1]}" if len(front) > 1 else ends[0]
    return f"{len(front)} of {len(data)} complete candidates are on the front: {told}."


@styled
def draw_front(data: pd.DataFrame, *, synthetic: bool) -> Figure:
    """The first objective over each other one, the front marked; with two objectives it is a staircase.

    Args:
        data: As from `front_data`, not empty.
        synthetic: Stamps the figure.
    """
    first, *others = [column for column in data.columns if column in OBJECTIVES]
    figure, axes = new_figure(COLUMN if len(others) == 1 else PAGE, 2.6, columns=len(others))
    for axis, other in zip(axes, others, strict=True):
        rest, front = data[~data["front"]], data[data["front"]].sort_values([other, "candidate"])
        axis.plot(rest[other], rest[first], ls="none", marker="o", color="#999999", label="candidate")
        stairs = OBJECTIVES[first] == "maximize" and OBJECTIVES[other] == "minimize" and len(others) == 1
        look: dict[str, Any] = {"ls": "-", "drawstyle": "steps-post"} if stairs else {"ls": "none"}
        axis.plot(front[other], front[first], marker="D", color=PALETTE[1], label="front", **look)
        axis.set(xlabel=OBJECTIVE_NAMES[other], ylabel=OBJECTIVE_NAMES[first])
        if data[other].min() > 0 and data[other].max() >= 20 * data[other].min():
            axis.set_xscale("log")
    _legend(figure, axes, ncols=2)
    return stamp(figure, synthetic=synthetic)


def search_figures(results: Path, name: str) -> Iterator[tuple[str, Figure, str, str]]:
    """The figures of a search that have something to show.

    Args:
        results: The results folder.
        name: Of the search.

    Yields:
        The file's stem, the figure, what it shows in words, its caption.

    Raises:
        InputError: No such search.
    """
    history = history_data(results, name)
    if history.empty:
        return
    synthetic = candidates_table(results, name).synthetic
    said = history_note(history)
    yield (
        f"{name}_history",
        draw_history(history, synthetic=synthetic),
        f"Scores by candidate. {said}",
        (f"Scores of the candidates in the order of choosing, and the best so far. {said}"),
    )
    front = front_data(results, name)
    if len(front):
        said = front_note(front)
        yield (
            f"{name}_front",
            draw_front(front, synthetic=synthetic),
            f"Pareto front. {said}",
            (f"All complete candidates; on the front none is beaten in all objectives. {said}"),
        )
    weighed, left_out = importance_data(results, name)
    if len(weighed):
        said = " ".join([*importance_notes(weighed, read_search(results, name)), *left_out])
        yield (
            f"{name}_importance",
            draw_importance(weighed, synthetic=synthetic),
            f"Importance of keys. {said}",
            (f"Importance of what was searched (fANOVA). {said}"),
        )
