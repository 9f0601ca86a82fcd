"""What has to be said beside a study's numbers: clips, spread, rows that came out identical, mixed provenance."""

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.cells import is_published, trial_in_words
from analysis.differences import in_words
from analysis.predictions import digest
from studies.plan import Cell, Plan
from taghead.backbones import grid_of
from taghead.backbones.own import is_own
from taghead.config import Config, canonical, evolve, flatten
from taghead.errors import InputError
from taghead.recipes import recipe

GRAPH_FIELDS = ("head.edges", "head.edge_combination", "head.alpha", "head.k_prop", "head.edge_dropout")
Digests = dict[tuple[str, str], dict[int, str]]  # by row and column, then by seed

OUTSIDE_MARK = "‡"
MAX_LISTED = 8  # rows in one sentence
PROVENANCE = {"recipe": "recipe versions", "device": "devices", "threads": "numbers of threads",
              "torch": "versions of torch"}  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Rows that are, or by the equations must be, the same as the first of them.

    Attributes:
        rows: Their labels, the first one that all others were compared to.
        dataset: The column.
        seeds: The seeds in which they are complete.
        equal: Those of them with the same clips and the same logits, bit for bit.
        derived: Whether the equations make the two configs one function.
        shared: Whether they are one experiment under one trial id.
    """

    rows: tuple[str, ...]
    dataset: str
    seeds: tuple[int, ...]
    equal: tuple[int, ...]
    derived: bool
    shared: bool

    @property
    def identical(self) -> bool:
        """Every common seed came out the same."""
        return bool(self.seeds) and self.equal == self.seeds


def notes(results: Path, plan: Plan, frame: pd.DataFrame, data: pd.DataFrame) -> list[str]:
    """The sentences under a study's table, each made from the store.

    Args:
        results: The results folder.
        plan: The study.
        frame: As from `analysis.cells.read`.
        data: As from `analysis.tables.study_data`.
    """
    said = [
        *filter(None, [plan.note]),
        *_about_numbers(plan, frame, data),
        *in_words(plan, data),
        *_about_published(data),
        *_about_clips(frame),
        *_about_metrics(plan, frame),
    ]
    said += _about_settings(plan)
    digests, left_out = _digests(results, plan)
    said += [sentence(comparison) for comparison in _compared(plan, digests)]
    said += left_out
    return [*said, *_about_provenance(frame), *_about_failures(frame)]


def _about_numbers(plan: Plan, frame: pd.DataFrame, data: pd.DataFrame) -> Iterable[str]:
    yield "The standard deviation is that over seeds (n - 1 in the denominator); a single seed has none."
    if plan.base_row is not None:
        yield (
            f"Δ: mean difference to {plan.base_row} over the seeds that both have, in percentage points, rounded after "
            "subtraction, with its 95 % t-interval; the intervals are not adjusted for the number of rows."
        )
    if (data["difference_low"].isna() & (data["difference_n"] > 1) & ~data["identical"]).any():
        yield "A difference that does not vary over these seeds has no interval and no test over seeds."
    if plan.table is not None:
        generated = list(frame.loc[frame["synthetic"], "dataset"].unique())
        if any(is_published(cell) for cell in plan.cells):
            yield (
                f"Published values: Table {plan.table} of arXiv 2604.11498, which prints one number a cell and no "
                "spread."
            )
        if generated:
            yield f"{', '.join(generated)}: no published values, since the paper ran nothing on generated clips."
        for label, dataset in dict.fromkeys((cell.dataset, cell.config.data.dataset) for cell in plan.cells):
            if label != dataset and label not in generated:
                yield f"{label}: no published values beside clips of the data set {dataset}."


def _about_published(data: pd.DataFrame) -> Iterable[str]:
    held = data[data["published"].notna() & data["one_more_low"].notna()]
    if len(held):
        yield (
            f"{OUTSIDE_MARK}: the published value, give or take its rounding, lies outside the interval into which one "
            "more run would fall with 95 % probability (mean ± t·sd·√(1 + 1/n)); so do "
            f"{held['published_outside'].sum()} of {len(held)}."
        )


def _about_clips(frame: pd.DataFrame) -> Iterable[str]:
    """Which n stands behind the scores of each column: one sentence for each set of clips that its trials used."""
    done = frame[frame["status"] == "complete"]
    facts = ["clips", "train_clips", "num_classes", "test_classes", "test_missing", "missing"]
    for dataset, group in done.groupby("dataset", sort=False):
        for (clips, train, classes, present, test_missing, missing), alike in group.groupby(facts, dropna=False):
            of = f"{classes} classes" if pd.isna(present) or present == classes else f"{present} of {classes} classes"
            text = f"{dataset}: {clips} test clips of {of} (chance {100 / classes:.1f} %), {train} training clips"
            if missing:
                text += (
                    f"; {missing} clips of the split lists are not there and were left out, {test_missing} of them "
                    "test clips"
                )
            if unreadable := alike["unreadable"].max():
                text += (
                    f"; {unreadable} of those that are there do not decode ({alike['test_unreadable'].max()} test "
                    "clips, which count as wrong; training passes over the others)"
                )
            yield f"{text}."
            if not pd.isna(present) and present < classes:
                yield f"{dataset}: MCA is the mean over the {present} classes that have test clips."


def _about_metrics(plan: Plan, frame: pd.DataFrame) -> Iterable[str]:
    """Two columns of the same numbers look like a mistake where they are none."""
    done = frame[frame["status"] == "complete"]
    for dataset, group in done.groupby("dataset", sort=False) if {"top1", "mca"} <= set(plan.metrics) else ():
        scores = group.pivot_table(index="trial_id", columns="metric", values="value")
        if np.allclose(scores["top1"], scores["mca"], rtol=0, atol=1e-9):
            yield f"{dataset}: Top-1 and MCA are equal in every trial, as where each class has as many test clips."


def _about_settings(plan: Plan) -> Iterable[str]:
    """Whether published values may be compared: what the columns' base settings change of the paper's."""
    for dataset in plan.datasets if plan.table is not None else ():
        cell = next(cell for cell in plan.cells if cell.dataset == dataset)
        if not is_published(cell):
            continue
        try:
            paper = flatten(evolve(recipe(cell.config.data.dataset, name="paper"), plan.overrides[cell.row]))
        except InputError:  # a data set that the paper has not
            continue
        ours = flatten(cell.config)
        changed = [f"{key}={ours[key]} (paper recipe: {paper[key]})" for key in paper if ours[key] != paper[key]]
        if changed:
            yield f"{dataset}: published values are for orientation only, since settings differ: {', '.join(changed)}."


def _about_provenance(frame: pd.DataFrame) -> Iterable[str]:
    done = frame[frame["status"] == "complete"].drop_duplicates("trial_id")
    for column, words in PROVENANCE.items():
        counts = done[column].fillna(0).value_counts(sort=False)
        if len(counts) > 1:
            parts = (f"{value} ({count})" for value, count in sorted(counts.items(), key=lambda item: str(item[0])))
            yield f"These numbers mix {words} (trials): {', '.join(parts)}."
    # commits go on while trials run; the recipe's version says whether numbers may be compared
    commits = done["commit"].fillna("unknown").astype(str)
    changed = int(commits.str.endswith("+").sum())
    if commits.nunique() > 1 or changed:
        text = f"Trained at {commits.nunique()} commit{'s' if commits.nunique() > 1 else ''} of the code"
        yield text + (f", {changed} of {len(done)} trials with uncommitted changes." if changed else ".")


def _about_failures(frame: pd.DataFrame) -> Iterable[str]:
    bad = frame[frame["status"].isin(["diverged", "failed"])].drop_duplicates(["row", "dataset", "seed"])
    for trial in bad.head(10).itertuples():
        where = f" at epoch {trial.epoch}" if trial.status == "diverged" and not pd.isna(trial.epoch) else ""
        reason = f": {trial.error}" if trial.error else ""
        yield f"{trial.row}, {trial.dataset}, seed {trial.seed} (trial {trial.trial_id}) {trial.status}{where}{reason}."
    if len(bad) > 10:
        yield f"{len(bad) - 10} more trials diverged or failed."


def compare_rows(results: Path, plan: Plan) -> list[Comparison]:
    """Rows that came out the same in the store, or that the equations make the same, in the table's order.

    A row that is the same as an earlier one is compared to that one only, not again to its like.

    Args:
        results: The results folder.
        plan: The study.
    """
    return _compared(plan, _digests(results, plan)[0])


def _compared(plan: Plan, digests: Digests) -> list[Comparison]:
    found = []
    for dataset in plan.datasets:
        column = [cell for cell in plan.cells if cell.dataset == dataset]
        told: set[str] = set()
        for first, others in _alike(column, digests):
            for second in others if first.row not in told else ():
                comparison = _compare(first, second, digests)
                if second.row not in told and (comparison.shared or comparison.identical or comparison.derived):
                    found.append(comparison)
                    told.add(second.row)
    return _merged(found)


def _alike(column: list[Cell], digests: Digests) -> Iterable[tuple[Cell, list[Cell]]]:
    """Each cell with the later ones that may be the same: all pairs of a long column would be too many to compare."""
    rests = Counter(_without_graph(cell.config) for cell in column)
    groups: dict[Hashable, list[int]] = {}
    keys = []
    for place, cell in enumerate(column):
        ours: list[Hashable] = [tuple(cell.trials.items()), *digests[cell.row, cell.dataset].items()]
        rest = _without_graph(cell.config)
        if rest is not None and rests[rest] > 1:
            ours.append((rest, _weights(cell.config)))
        keys.append(ours)
        for key in ours:
            groups.setdefault(key, []).append(place)
    for place, cell in enumerate(column):
        others = {other for key in keys[place] for other in groups[key] if other > place}
        yield cell, [column[other] for other in sorted(others)]


def _merged(pairs: list[Comparison]) -> list[Comparison]:
    """Pairs of one first row of which the same is to be said, as one comparison."""
    groups: dict[Comparison, list[str]] = {}
    for pair in pairs:
        groups.setdefault(replace(pair, rows=pair.rows[:1]), []).append(pair.rows[1])
    return [replace(group, rows=(*group.rows, *others)) for group, others in groups.items()]


def _compare(first: Cell, second: Cell, digests: Digests) -> Comparison:
    ours, theirs = (digests[cell.row, cell.dataset] for cell in (first, second))
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    return Comparison(
        rows=(first.row, second.row),
        dataset=first.dataset,
        seeds=seeds,
        equal=tuple(seed for seed in seeds if ours[seed] == theirs[seed]),
        derived=same_function(first.config, second.config),
        shared=first.trials == second.trials,
    )


def _digests(results: Path, plan: Plan) -> tuple[Digests, list[str]]:
    """A hash of ids and logits of each trial that has them, and a sentence on each whose file is damaged."""
    found: Digests = {(cell.row, cell.dataset): {} for cell in plan.cells}
    left_out = []
    for cell in plan.cells:
        for seed, trial in cell.trials.items():
            folder = results / "trials" / trial
            try:
                if (folder / "predictions.npz").exists():
                    found[cell.row, cell.dataset][seed] = digest(folder)
            except InputError as error:
                left_out.append(f"{trial_in_words(cell, seed)}: {error}; no row was compared to it.")
    return found, left_out


def same_function(first: Config, second: Config) -> bool:
    """Whether two experiments are one function by the equations, though their graphs differ.

    Under the mean readout the logits see the graph through its T frame weights only (Eq. 3 is linear in the nodes), so
    configs that differ in nothing but the graph are equal where these weights are.

    Args:
        first: One experiment.
        second: Another.
    """
    rest = _without_graph(first)
    return rest is not None and rest == _without_graph(second) and _weights(first) == _weights(second)


@cache
def _weights(config: Config) -> tuple[float, ...]:
    from taghead.graph import frame_weights  # loads torch, which most tables do without

    # a user's own backbone has a grid that is not known here: what is equal on this one is so on longer ones too
    own = is_own(config.model.backbone)
    time, height, width = (
        (4, 7, 7) if own else grid_of(config.model.backbone, config.data.num_frames, config.data.crop_size)
    )
    graph = {name: getattr(config.head, name) for name in ("alpha", "k_prop", "edges", "edge_combination")}
    return tuple(frame_weights((time, height * width), **graph).tolist())


@cache
def _without_graph(config: Config) -> Config | None:
    """The experiment but for its graph; None where the logits see more of the graph than its frame weights."""
    head = canonical(config).head
    controlled = head.rewiring is not None or head.propagation == "step_by_step"
    if config.model.head != "tag" or head.readout != "mean" or head.edge_dropout or controlled:
        return None
    default = flatten(Config())
    return canonical(evolve(config, {key: default[key] for key in GRAPH_FIELDS}))


def sentence(comparison: Comparison) -> str:
    """A comparison in words.

    Args:
        comparison: As from `compare_rows`.
    """
    rows, where, n = _listed(comparison.rows), comparison.dataset, len(comparison.seeds)
    if comparison.shared:
        return f"{rows} are one experiment on {where}, trained once: they differ in nothing that is read."
    why = "the equations make them the same function (under the mean readout their graphs weight the frames alike)"
    if comparison.identical:
        seeds = {1: "the one seed", 2: "both seeds"}.get(n, f"all {n} seeds")
        end = f"; {why}." if comparison.derived else "."
        return f"{rows}: identical predictions and logits, bit for bit, in {seeds} on {where}, trained apart{end}"
    if not n:
        return f"{rows}: {why}; on {where} there is no seed yet in which they are complete."
    differ = sorted(set(comparison.seeds) - set(comparison.equal))
    return (
        f"{rows}: {why}, yet on {where} their logits differ in seed {', '.join(map(str, differ))}: "
        "look for another device, number of threads or version among their records."
    )


def _listed(labels: tuple[str, ...]) -> str:
    """``a, b and c``; by semicolons where labels hold commas themselves."""
    comma = "; " if any("," in label for label in labels) else ", "
    shown = labels if len(labels) <= MAX_LISTED else (*labels[: MAX_LISTED - 1], f"{len(labels) - MAX_LISTED + 1} more")
    return f"{comma.join(shown[:-1])} and {shown[-1]}"
