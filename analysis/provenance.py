"""Where a report's numbers come from: commits, machines, clips, failures, and the commands that make them again."""

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.cells import unused_clips
from analysis.formats import Table
from studies.candidates import read_search
from studies.catalog import SEARCHES, STUDIES
from studies.plan import Plan
from taghead.config import Config, flatten
from taghead.recipes import RECIPES

MOST_CLIPS = 50  # that a page names; more are counted


def provenance_table(frame: pd.DataFrame, *, name: str) -> Table:
    """The finished trials, counted by what they ran on and from which code.

    Args:
        frame: As from `analysis.cells.read`; several studies' frames may be joined.
        name: The file's stem.
    """
    done = frame[frame["status"].isin(["complete", "diverged"])].drop_duplicates("trial_id")
    keys = ["dataset", "commit", "recipe", "device", "threads", "torch", "clips", "unreadable", "missing"]
    # a column that is empty would drop its groups
    filled = done.assign(**{key: done[key].astype(object).where(done[key].notna(), "unknown") for key in keys})
    groups = filled.groupby(keys, sort=True, dropna=False)
    data = groups.agg(trials=("trial_id", "count"), minutes=("seconds", lambda s: s.sum() / 60)).reset_index()
    rows = tuple(
        tuple(f"{value:.1f}" if isinstance(value, float) else str(value) for value in row)
        for row in data.itertuples(index=False, name=None)
    )
    header = ("data set", "commit", "recipe", "device", "threads", "torch", "test clips", "unreadable", "missing",
              "trials", "minutes")  # fmt: skip
    notes = [
        "unreadable, missing: clips of all splits.",
        "minutes: of training and testing, summed over the trials.",
    ]
    if data["commit"].astype(str).str.endswith("+").any():
        notes.append("A commit with + had uncommitted changes.")
    synthetic = bool(frame["synthetic"].any())
    return Table(name, "Where the numbers come from", header, rows, data, tuple(notes), synthetic=synthetic)


def failures_table(frame: pd.DataFrame, *, name: str) -> Table | None:
    """Every trial that diverged, failed or was stopped, with its reason; None where there is none.

    Args:
        frame: As from `analysis.cells.read`, with a column ``study``.
        name: The file's stem.
    """
    bad = frame[frame["status"].isin(["diverged", "failed", "pruned"])].drop_duplicates(["study", "trial_id"])
    if bad.empty:
        return None
    columns = ["study", "row", "dataset", "seed", "status", "epoch", "attempt", "error", "trial_id"]
    data = bad[columns].reset_index(drop=True)
    rows = tuple(
        tuple("-" if pd.isna(value) else _text(value) for value in row) for row in data.itertuples(index=False)
    )
    return Table(name, "Trials without a score", tuple(columns), rows, data, synthetic=bool(bad["synthetic"].any()))


def clips_table(results: Path, plans: Iterable[Plan], *, name: str) -> Table | None:
    """Every clip that some trial could not use, with the reason; None where all were used.

    Args:
        results: The results folder.
        plans: The studies.
        name: The file's stem.
    """
    found = {key: reason for plan in plans for key, reason in unused_clips(results, plan).items()}
    if not found:
        return None
    rows = [(dataset, clip, reason) for (dataset, clip), reason in sorted(found.items())]
    columns = ["data set", "clip", "reason"]
    notes = ["A clip of the test split that does not decode counts as wrong; one that is not there is left out."]
    if len(rows) > MOST_CLIPS:
        notes.append(f"The first {MOST_CLIPS} of {len(rows)}.")
    return Table(
        name, "Clips that were not used", tuple(columns), tuple(rows[:MOST_CLIPS]), pd.DataFrame(rows, columns=columns),
        tuple(notes),
    )  # fmt: skip


def _text(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def run_command(plan: Plan, results: Path) -> str:
    """The command that runs a study again, or goes on with it; a comment where the catalog has no such study.

    Args:
        plan: The study.
        results: The results folder.
    """
    if plan.name not in (*STUDIES, *SEARCHES):
        return f"# {plan.name}: a study of your own file or under a name of your own; launch it as you did"
    words = ["taghead-studies", "run", plan.name, "--results", str(results)]
    settings: dict[str, Any] = {}
    recipes: set[str] = set()
    for dataset in plan.datasets:
        words += ["--dataset", dataset]
        base = _base(plan, dataset)
        # by the label: the command looks the recipe up by it, and a data set in its place is one of the changes
        known = [(name, flatten(family[dataset])) for name, family in RECIPES.items() if dataset in family]
        if known:
            name, recipe = min(known, key=lambda item: len(_changes(base, item[1])))
            recipes.add(name)
            settings |= _changes(base, recipe)
    if len(recipes) == 1 and recipes != {"small"}:
        words += ["--recipe", *recipes]
    if plan.name in SEARCHES:
        searched, fixed = _searched(plan, results)
        words += searched
        settings |= fixed
    else:
        words += ["--seeds", _listed(plan.seeds)]
    asked = (STUDIES.get(plan.name) or SEARCHES[plan.name]).keep
    words += [word for name in plan.keep if name not in asked for word in ("--keep", name)]
    words += [word for key, value in sorted(settings.items()) for word in ("--set", f"{key}={setting(value)}")]
    return shlex.join(words)


def _searched(plan: Plan, results: Path) -> tuple[list[str], dict[str, Any]]:
    """What tells a search from that of the catalog: its options, and the keys that are fixed in place of searched."""
    state, known = read_search(results, plan.name), SEARCHES[plan.name]
    words = ["--trials", str(state.num_trials), "--final-seeds", str(len(plan.seeds))]
    words += ["--seeds", _listed(state.definition["seeds"])]
    for name in ("sampler", "pruner"):
        if state.definition[name] != getattr(known, name):
            words += [f"--{name}", str(state.definition[name])]
    base = _base(plan, plan.datasets[0])
    return words, {key: base[key] for key in known.space if key not in state.definition["space"]}


def _listed(seeds: Iterable[int]) -> str:
    text = ",".join(map(str, seeds))
    return text if "," in text else f"{text},"  # a number alone is how many


def _base(plan: Plan, dataset: str) -> dict[str, Any]:
    """What a column started from: each key from a row that does not set it itself."""
    base = flatten(Config())
    for key in base:
        for cell in plan.cells:
            if cell.dataset == dataset and key not in plan.overrides[cell.row]:
                base[key] = flatten(cell.config)[key]
                break
    return base


def _changes(base: dict[str, Any], recipe: dict[str, Any]) -> dict[str, Any]:
    source = "model.backbone_source"  # read anew by whoever sets the backbone
    return {key: value for key, value in base.items() if value != recipe[key] and key != source}


def setting(value: Any) -> str:
    """A config's value as ``--set`` reads it.

    Args:
        value: Of one dotted key.
    """
    if value is None or value in ((), []):
        return "none"
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
