"""What a search tried: a table of its candidates, in the order of choosing.

Command: ``taghead-analysis tables head_search``, before or after the table of its winner.
"""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.formats import Table
from studies.candidates import Candidate, SearchState, read_search
from studies.store import Store
from studies.study import OBJECTIVES
from studies.winners import Result, result_of, winners

WORDS = {"complete": "", "open": "no result yet", "fail": "failed", "pruned": "pruned"}


def candidates_data(results: Path, name: str) -> pd.DataFrame:
    """The candidates of a search.

    Args:
        results: The results folder.
        name: Of the search.

    Returns:
        One row a candidate: ``candidate`` (its number), ``state`` (``complete``, ``pruned``, ``fail``, ``open``),
        ``repeats`` (an earlier candidate's number, or NaN), ``best`` (whether it won), ``epochs`` (that it was
        trained for, where an objective has epochs), one column an objective (fractions, or counts), one column a key of
        the space.

    Raises:
        InputError: No such search.
    """
    state, store = read_search(results, name), Store(results)
    known = [result_of(state, one, store) for one in state.candidates]
    best = {one.number for one in winners(state, known)}
    rows = [_row(state, one, result, best) for one, result in zip(state.candidates, known, strict=True)]
    columns = ["candidate", "state", "repeats", "best", "epochs", *state.objectives, *state.definition["space"]]
    return pd.DataFrame(rows, columns=columns, dtype=object)  # whole numbers stay so beside those that are missing


def _row(state: SearchState, one: Candidate, result: Result, best: set[int]) -> dict[str, Any]:
    values = dict(zip(state.objectives, result.values, strict=False))
    repeats = math.nan if one.same_as is None else one.same_as
    row = {"candidate": one.number, "state": result.state, "repeats": repeats, "best": one.number in best}
    return {**row, "epochs": max(result.curve, default=None), **values, **one.params}


def candidates_table(results: Path, name: str) -> Table:
    """The candidates of a search, as a reader sees them; arguments as `candidates_data`."""
    data, state = candidates_data(results, name), read_search(results, name)
    keys = list(state.definition["space"])
    rows = [
        (
            f"{row['candidate']}{' (best)' if row['best'] else ''}",
            *(_score(row, objective) for objective in state.objectives),
            *(_chosen(row[key]) for key in keys),
        )
        for row in data.to_dict("records")
    ]
    told = data[data["repeats"].isna()]["state"].value_counts()
    notes = (
        ["No candidate is chosen yet."]
        if not rows
        else [
            f"{len(data)} candidates chosen by {state.definition['sampler']}, "
            f"{int(data['repeats'].notna().sum())} of which repeat an earlier one; of the others "
            + ", ".join(f"{number} {WORDS[word] or word}" for word, number in told.items())
            + ".",
            "A score here is that of one choice among many at the seeds that chose it: the best of them is too high by "
            "that alone. The table of the search itself has base and winner over other seeds.",
            "-: not searched under the values beside it, and as in the base.",
        ]
    )
    return Table(
        name=f"{name}_candidates",
        title=f"{state.title}: the candidates",
        header=("candidate", *state.objectives, *(key.partition(".")[2] for key in keys)),
        rows=tuple(rows),
        data=data,
        notes=tuple(notes),
        synthetic=_is_synthetic(state, Store(results)),
    )


def _score(row: dict[str, Any], objective: str) -> str:
    if row["state"] != "complete":
        reached = row["state"] == "pruned" and row["epochs"] is not None
        return WORDS[row["state"]] + (f" after {row['epochs']:.0f}" if reached else "")
    value = row[objective]
    return f"{value:.1%}".replace("%", " %") if OBJECTIVES[objective] == "maximize" else f"{value:,.0f}"


def _chosen(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.3g}"
    return "none" if value is None else str(value)


def _is_synthetic(state: SearchState, store: Store) -> bool:
    complete = [name for name in state.trial_ids() if (store.ending(name) or ("",))[0] == "complete"]
    records = (store.read(trial_id) for trial_id in complete)
    return any(record.data.synthetic for record in records if record)
