"""What has to be said beside a study's numbers: clips, spread, rows that came out identical, mixed provenance."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from studies.plan import Cell, Plan
from taghead.config import Config, canonical, evolve, flatten
from taghead.errors import InputError
from taghead.recipes import recipe

GRAPH_FIELDS = ("head.edges", "head.edge_combination", "head.alpha", "head.k_prop", "head.edge_dropout")
PROVENANCE = {"commit": "commits", "recipe": "recipe versions", "device": "devices", "threads": "numbers of threads",
              "torch": "versions of torch"}  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Two rows that are, or by the equations must be, the same.

    Attributes:
        rows: Their labels.
        dataset: The column.
        seeds: The seeds in which both are complete.
        equal: Those of them with the same clips and the same logits, bit for bit.
        derived: Whether the equations make the two configs one function.
        shared: Whether they are one experiment under one trial id.
    """

    rows: tuple[str, str]
    dataset: str
    seeds: tuple[int, ...]
    equal: tuple[int, ...]
    derived: bool
    shared: bool

    @property
    def identical(self) -> bool:
        """Every common seed came out the same."""
        return bool(self.seeds) and self.equal == self.seeds


def notes(results: Path, plan: Plan, frame: pd.DataFrame) -> list[str]:
    """The sentences under a study's table, each made from the store.

    Args:
        results: The results folder.
        plan: The study.
        frame: As from `analysis.cells.read`.
    """
    said = [*_about_numbers(plan, frame), *_about_clips(frame), *_about_settings(plan, frame)]
    said += [sentence(comparison) for comparison in compare_rows(results, plan)]
    return [*said, *_about_provenance(frame), *_about_failures(frame)]


def _about_numbers(plan: Plan, frame: pd.DataFrame) -> Iterable[str]:
    yield "The standard deviation is that over seeds (n - 1 in the denominator); a single seed has none."
    if plan.base_row is not None:
        yield (
            f"Δ: mean difference to {plan.base_row} over the seeds that both have, in percentage points, with its 95 % "
            "t-interval; the intervals are not adjusted for the number of rows."
        )
    if plan.table is not None:
        text = f"published: Table {plan.table} of arXiv 2604.11498, which prints one number a cell and no spread"
        generated = frame.loc[frame["synthetic"], "dataset"].unique()
        if len(generated):
            text += f"; - for {', '.join(generated)}: the paper ran nothing on generated clips"
        yield f"{text}."


def _about_clips(frame: pd.DataFrame) -> Iterable[str]:
    done = frame[frame["status"] == "complete"]
    for dataset, group in done.groupby("dataset", sort=False):
        facts = group[["clips", "num_classes", "missing"]].drop_duplicates()
        for clips, classes, missing in facts.itertuples(index=False):
            text = f"{dataset}: {clips} test clips of {classes:.0f} classes (chance {100 / classes:.1f} %)"
            if missing:
                text += f"; {missing} clips of the split lists are not there and were left out"
            if unreadable := group.loc[group["clips"] == clips, "unreadable"].max():
                text += f"; {unreadable} clips do not decode; those of the test split count as wrong"
            yield f"{text}."


def _about_settings(plan: Plan, frame: pd.DataFrame) -> Iterable[str]:
    """Whether published values may be compared: what the columns' base settings change of the paper's."""
    generated = set(frame.loc[frame["synthetic"], "dataset"])
    for dataset in plan.datasets if plan.table is not None else ():
        cell = next(cell for cell in plan.cells if cell.dataset == dataset)
        if dataset in generated:
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
        counts = done[column].fillna("unknown" if column == "commit" else 0).value_counts(sort=False)
        if len(counts) > 1:
            parts = (f"{value} ({count})" for value, count in sorted(counts.items(), key=lambda item: str(item[0])))
            yield f"These numbers mix {words} (trials): {', '.join(parts)}."
    if done["commit"].astype(str).str.endswith("+").any():
        yield "A commit with + had uncommitted changes."


def _about_failures(frame: pd.DataFrame) -> Iterable[str]:
    bad = frame[frame["status"].isin(["diverged", "failed"])].drop_duplicates(["row", "dataset", "seed"])
    for trial in bad.head(10).itertuples():
        where = f" at epoch {trial.epoch}" if trial.status == "diverged" and not pd.isna(trial.epoch) else ""
        reason = f": {trial.error}" if trial.error else ""
        yield f"{trial.row}, {trial.dataset}, seed {trial.seed} (trial {trial.trial_id}) {trial.status}{where}{reason}."
    if len(bad) > 10:
        yield f"{len(bad) - 10} more trials diverged or failed."


def compare_rows(results: Path, plan: Plan) -> list[Comparison]:
    """Pairs of rows that came out the same in the store, or that the equations make the same, in the table's order.

    A row that is the same as an earlier one is compared to that one only, not again to its like.

    Args:
        results: The results folder.
        plan: The study.
    """
    found = []
    for dataset in plan.datasets:
        columns = [cell for cell in plan.cells if cell.dataset == dataset]
        digests = {cell.row: _digests(results, cell) for cell in columns}
        told: set[str] = set()
        for first, second in combinations(columns, 2):
            if {first.row, second.row} & told:
                continue
            comparison = _compare(first, second, digests)
            if comparison.shared or comparison.identical or comparison.derived:
                found.append(comparison)
                told.add(second.row)
    return found


def _compare(first: Cell, second: Cell, digests: dict[str, dict[int, str]]) -> Comparison:
    ours, theirs = digests[first.row], digests[second.row]
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    return Comparison(
        rows=(first.row, second.row),
        dataset=first.dataset,
        seeds=seeds,
        equal=tuple(seed for seed in seeds if ours[seed] == theirs[seed]),
        derived=same_function(first.config, second.config),
        shared=first.trials == second.trials,
    )


def _digests(results: Path, cell: Cell) -> dict[int, str]:
    """A hash of ids and logits by seed, of the trials that have them."""
    found = {}
    for seed, trial in cell.trials.items():
        path = results / "trials" / trial / "predictions.npz"
        if path.exists():
            with np.load(path, allow_pickle=False) as arrays:
                parts = [np.ascontiguousarray(arrays[name]) for name in ("ids", "logits")]
            content = b"".join(str((part.dtype, part.shape)).encode() + part.tobytes() for part in parts)
            found[seed] = sha256(content).hexdigest()
    return found


def same_function(first: Config, second: Config) -> bool:
    """Whether two experiments are one function by the equations, though their graphs differ.

    Under the mean readout the logits see the graph through its T frame weights only (Eq. 3 is linear in the nodes), so
    configs that differ in nothing but the graph are equal where these weights are.

    Args:
        first: One experiment.
        second: Another.
    """
    if not all(_is_linear_in_nodes(config) for config in (first, second)) or _without_graph(first) != _without_graph(
        second
    ):
        return False
    from taghead.backbones import grid_of
    from taghead.graph import frame_weights

    def weights(config: Config) -> list[float]:
        time, height, width = grid_of(config.model.backbone, config.data.num_frames, config.data.crop_size)
        head = config.head
        return frame_weights(
            (time, height * width),
            alpha=head.alpha,
            k_prop=head.k_prop,
            edges=head.edges,
            edge_combination=head.edge_combination,
        ).tolist()

    return weights(first) == weights(second)


def _is_linear_in_nodes(config: Config) -> bool:
    """Mean readout, and no edges dropped at random in training."""
    head = canonical(config).head
    return config.model.head == "tag" and head.readout == "mean" and head.edge_dropout == 0


def _without_graph(config: Config) -> Config:
    default = flatten(Config())
    return canonical(evolve(config, {key: default[key] for key in GRAPH_FIELDS}))


def sentence(comparison: Comparison) -> str:
    """A comparison in words.

    Args:
        comparison: As from `compare_rows`.
    """
    first, second = comparison.rows
    both, where, n = f"{first} and {second}", comparison.dataset, len(comparison.seeds)
    if comparison.shared:
        return f"{both} are one experiment on {where}: the same settings, trained once and shown twice."
    why = "the equations make them the same function (under the mean readout their graphs weight the frames alike)"
    if comparison.identical:
        seeds = {1: "the one seed", 2: "both seeds"}.get(n, f"all {n} seeds")
        end = f"; {why}." if comparison.derived else "."
        return f"{both}: identical predictions and logits, bit for bit, in {seeds} on {where}, trained apart{end}"
    if not n:
        return f"{both}: {why}; on {where} there is no seed yet in which both are complete."
    differ = sorted(set(comparison.seeds) - set(comparison.equal))
    return (
        f"{both}: {why}, yet on {where} their logits differ in seed {', '.join(map(str, differ))}: "
        "look for another device, number of threads or version among their records."
    )
