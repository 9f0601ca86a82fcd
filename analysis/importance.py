"""Which of the searched keys matter: fANOVA over a search's candidates, beside its spread and what chance gives.

Command: ``taghead-analysis importance head_search``. Optuna is loaded where there is enough to say.
"""

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figure import COLUMN, PAGE, PALETTE, new_figure, stamp, styled
from analysis.search import candidates_data
from studies.candidates import SearchState, read_search, space_of
from studies.space import Choice, Range, Space
from studies.study import OBJECTIVES

FEWEST = 10  # complete candidates that an importance is told from
RESAMPLES = 20  # of the candidates; and as many shuffles of each key's values
TREES = 16
SEED = 0
COLUMNS = ("objective", "key", "n", "importance", "low", "high", "chance")


def importance_data(results: Path, name: str) -> tuple[pd.DataFrame, list[str]]:
    """How much of the variance of a search's scores each searched key explains alone (fANOVA).

    A forest is fitted to the complete candidates, and the variance of its prediction over the space is taken apart.
    A key that is searched only under some values of others is weighed among the candidates that have it.

    Args:
        results: The results folder.
        name: Of the search.

    Returns:
        Columns `COLUMNS`: for each score (a count of the model follows from its keys) and key, over ``n`` complete
        candidates that have the key, its share of the variance (0 to 1; the rest belongs to other keys and to several
        together); ``low`` and ``high``, the extremes over `RESAMPLES` resamples of these candidates; ``chance``, the
        largest share of the key over as many shuffles of its own values among them, the other keys as they are.
        Beside it, sentences on what is left out.

    Raises:
        InputError: No such search.
    """
    state, data = read_search(results, name), candidates_data(results, name)
    data = data[(data["state"] == "complete") & data["repeats"].isna()]
    rows, said = [], []
    if len(data) < FEWEST:
        return pd.DataFrame(columns=COLUMNS), [
            f"{len(data)} complete candidates: too few to tell which keys matter, which takes {FEWEST} at the least."
        ]
    for objective in (one for one in state.objectives if OBJECTIVES[one] == "maximize"):
        if pd.to_numeric(data[objective]).nunique() < 2:
            said.append(f"All complete candidates have the same {objective}: no key explains a difference.")
            continue
        rows += _importances(data, space_of(state), objective)
    weighed = {row[1] for row in rows}
    if rows and (few := [key for key in state.definition["space"] if key not in weighed]):
        said.append(f"Not weighed, with fewer than {FEWEST} complete candidates or one value only: {', '.join(few)}.")
    return pd.DataFrame(rows, columns=COLUMNS), said


def _importances(data: pd.DataFrame, space: Space, objective: str) -> list[tuple[Any, ...]]:
    """The rows of one objective, the most important key first."""
    having = {key: data[key].map(lambda value: not _is_absent(value)).to_numpy(bool) for key in space}
    groups: dict[bytes, list[str]] = {}
    for key, mask in having.items():
        groups.setdefault(mask.tobytes(), []).append(key)
    rows = []
    for keys in groups.values():
        mask = having[keys[0]]
        # beside the keys of this group, those that all of its candidates have
        columns = {
            key: data.loc[mask, key].tolist()
            for key in space
            if having[key][mask].all() and data.loc[mask, key].map(str).nunique() > 1
        }
        scores = pd.to_numeric(data.loc[mask, objective]).to_numpy(float)
        told = [key for key in keys if key in columns]
        if mask.sum() >= FEWEST and told and len(np.unique(scores)) > 1:
            rows += [(objective, key, len(scores), *found) for key, found in _weigh(columns, scores, space, told)]
    return sorted(rows, key=lambda row: -row[3])


def _is_absent(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _weigh(
    columns: dict[str, list[Any]], scores: np.ndarray, space: Space, keys: list[str]
) -> Iterator[tuple[str, tuple[float, float, float, float]]]:
    """Importance, its lowest and highest over resamples, and the highest by chance, of some of the columns."""
    generator = np.random.default_rng(SEED)
    n = len(scores)
    fitted = _fanova(columns, scores, space)
    resampled = [_fanova(columns, scores, space, generator.integers(n, size=n)) for _ in range(RESAMPLES)]
    for key in keys:
        shuffled = [_fanova(_shuffled(columns, key, generator), scores, space) for _ in range(RESAMPLES)]
        again = [one[key] for one in resampled if one]
        low, high = (min(again), max(again)) if again else (math.nan, math.nan)
        yield key, (fitted[key], low, high, max(one[key] for one in shuffled))


def _shuffled(columns: dict[str, list[Any]], key: str, generator: np.random.Generator) -> dict[str, list[Any]]:
    """The columns with the values of one key in another order: what the other keys explain stays."""
    values = columns[key]
    return {**columns, key: [values[place] for place in generator.permutation(len(values))]}


def _fanova(
    columns: dict[str, list[Any]], scores: np.ndarray, space: Space, drawn: np.ndarray | None = None
) -> dict[str, float]:
    """Each key's share of the variance by Optuna's evaluator; nothing where all drawn scores are the same."""
    import optuna

    places = range(len(scores)) if drawn is None else drawn.tolist()
    if len({scores[place] for place in places}) < 2:
        return {}
    values, distributions = dict(columns), {}
    for key in columns:
        distributions[key], values[key] = _as_searched(space[key], columns[key])
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it tells of each study that it makes
    try:
        # `normalize` is experimental: without it the shares would be told as if they made up the whole
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            study = optuna.create_study()
            for place in places:
                params = {key: column[place] for key, column in values.items()}
                score = float(scores[place])
                study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=score))
            evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=SEED)
            found = optuna.importance.get_param_importances(
                study, evaluator=evaluator, params=list(columns), normalize=False
            )
    finally:
        optuna.logging.set_verbosity(before)
    return {key: float(share) for key, share in found.items()}


def _as_searched(one: Choice | Range, values: list[Any]) -> tuple[Any, list[Any]]:
    """Optuna's distribution of a key and its values; logarithms where these were drawn evenly, which fANOVA is not."""
    from optuna.distributions import FloatDistribution

    from studies.sampling import distribution

    if not (isinstance(one, Range) and one.log):
        return distribution(one), values
    low, high = math.log(one.low), math.log(one.high)
    return FloatDistribution(low, high), [min(max(math.log(value), low), high) for value in values]


def importance_notes(data: pd.DataFrame, state: SearchState) -> list[str]:
    """Which keys explain more than chance does, in sentences.

    Args:
        data: The first of `importance_data`, not empty.
        state: The search.
    """
    said = []
    for objective, keys in data.groupby("objective", sort=False):
        clear = keys["importance"] > keys["chance"]
        told = ", ".join(
            f"{one.key} {100 * one.importance:.0f} % ({100 * one.low:.0f} to {100 * one.high:.0f} %)"
            for one in keys[clear].itertuples(index=False)
        )
        others = ", ".join(keys.loc[~clear, "key"])
        than = f"of the variance of {objective} than in any of {RESAMPLES} shuffles of their own values"
        over = f"Over {keys['n'].max()} complete candidates"
        if told:
            said.append(f"{over}, these keys explain more {than}: {told}; in brackets: over {RESAMPLES} resamples.")
            said += [f"No more than that: {others}."] if others else []
        else:
            said.append(f"{over}, no key explains more {than}: {others}.")
    once = f"A key that does nothing passes that mark once in {RESAMPLES + 1} searches"
    if state.definition["sampler"] in ("tpe", "nsga2"):
        sampler = state.definition["sampler"]
        said.append(f"{once} that draw it at random; {sampler} draws it by earlier scores, and it may pass more often.")
        said.append(f"{sampler} crowds where scores were good: the rest of the space is little known.")
    else:
        said.append(f"{once}.")
    if state.definition["pruner"]:
        said.append("Pruned candidates have no final score and are not among them.")
    return said


@styled
def draw_importance(data: pd.DataFrame, *, synthetic: bool) -> Figure:
    """A panel an objective, a key a line: its share, the extremes over resamples, and what chance gives.

    Args:
        data: The first of `importance_data`, not empty.
        synthetic: Stamps the figure.
    """
    objectives = list(dict.fromkeys(data["objective"]))
    rows = data.groupby("objective")["key"].size().max()
    figure, axes = new_figure(PAGE if len(objectives) > 1 else COLUMN, 1.0 + 0.2 * rows, columns=len(objectives))
    for axis, objective in zip(axes, objectives, strict=True):
        one = data[data["objective"] == objective]
        places = range(len(one))
        axis.barh(places, 100 * one["chance"], height=0.7, color="#dddddd", label="by chance")
        axis.hlines(places, 100 * one["low"], 100 * one["high"], color=PALETTE[0], lw=1, label="over resamples")
        axis.plot(100 * one["importance"], places, ls="none", marker="o", color=PALETTE[0], label="all candidates")
        most = one["n"].max()
        labels = [
            f"{key.partition('.')[2]}{f' ({n})' if n < most else ''}"
            for key, n in zip(one["key"], one["n"], strict=True)
        ]
        axis.set_yticks(places, labels)
        axis.set(xlabel=f"variance of {objective} explained, %", ylim=(len(one) - 0.4, -0.6))
        axis.set_xlim(0, min(102, axis.get_xlim()[1]))
        axis.grid(axis="y", visible=False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return stamp(figure, synthetic=synthetic)
