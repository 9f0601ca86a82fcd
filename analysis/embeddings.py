"""The pooled vectors that trials kept, over the same clips in every row, with the names of their classes."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from analysis.cells import data_facts, read_arrays, trial_in_words
from studies.plan import Cell, Plan
from taghead.errors import InputError, nearest

FEWEST = 4  # clips of which there is a t-SNE
_FAMILY = re.compile(r"\(([^()]{1,12})\)\s*\S")  # as FineGym's elements begin: ``(VT) round-off, ...``


@dataclass(frozen=True)
class Clips:
    """The pooled vectors of one row: n clips of C channels.

    Attributes:
        row: The study's row.
        ids: The clips that decode.
        labels: Their classes.
        vectors: (n, C).
        dataset: The column.
        names: Of the classes, by label, where the store or the user tells them; empty where not.
    """

    row: str
    ids: ndarray
    labels: ndarray
    vectors: ndarray
    dataset: str = ""
    names: tuple[str, ...] = ()


def load(
    results: Path, plan: Plan, *, dataset: str, seed: int, classes: tuple[str, ...] = ()
) -> tuple[list[Clips], list[str]]:
    """The embeddings of each row that has them, all over the same clips in the same order.

    Args:
        results: The results folder.
        plan: The study.
        dataset: One of its columns.
        seed: One of its seeds.
        classes: Their names by label; empty: those in a record, if there are any.

    Returns:
        The rows, and a sentence on each row and on the clips that are in no panel.

    Raises:
        InputError: No such column or seed, or no row with embeddings that can be drawn.
    """
    if dataset not in plan.datasets:
        raise InputError(f"study {plan.name} has no data set {dataset!r}{nearest(dataset, plan.datasets)}")
    if seed not in plan.seeds:
        raise InputError(f"study {plan.name} has no seed {seed}; it has {', '.join(map(str, plan.seeds))}.")
    cells = [plan.cell(row, dataset) for row in plan.rows]
    there = {cell.row: results / "trials" / cell.trials[seed] / "embeddings.npz" for cell in cells}
    absent = [row for row, path in there.items() if not path.exists()]
    remedy = f"run taghead-studies run {plan.name} --keep embeddings first"
    if len(absent) == len(cells):
        raise InputError(f"study {plan.name}, {dataset}, seed {seed}: no trial with embeddings; {remedy}.")
    found, said = [], [f"Without embeddings: {', '.join(absent)}; {remedy}."] if absent else []
    for cell in cells:
        if cell.row not in absent:
            try:
                found.append(_read(there[cell.row], cell))
            except InputError as error:
                said.append(f"{trial_in_words(cell, seed)}: {error} and was left out.")
    if not found:
        raise InputError(f"study {plan.name}: no embeddings to draw. {' '.join(said)}")
    facts = data_facts(results, [cell.trials[seed] for cell in cells])
    return _in_common(found, classes or (facts.classes if facts else ()), said)


def _read(path: Path, cell: Cell) -> Clips:
    ids, labels, vectors = read_arrays(path, ("ids", "labels", "embeddings"))
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or labels.dtype.kind not in "iu":
        raise InputError(f"{path.name} holds no vectors with labels")
    usable = np.isfinite(vectors).all(axis=1)
    if usable.sum() < FEWEST:
        raise InputError(f"{usable.sum()} of its {len(vectors)} vectors are numbers, and t-SNE needs {FEWEST}")
    if len(np.unique(vectors[usable], axis=0)) < 2:
        raise InputError(f"its {usable.sum()} vectors are all equal")
    return Clips(cell.row, ids[usable], labels[usable], vectors[usable], cell.dataset)


def _in_common(found: list[Clips], names: tuple[str, ...], said: list[str]) -> tuple[list[Clips], list[str]]:
    """The same clips in the same order in every row."""
    every = set().union(*(clips.ids.tolist() for clips in found))
    common = sorted(set.intersection(*(set(clips.ids.tolist()) for clips in found)))
    if len(common) < len(every):
        lacking = f"{len(every) - len(common)} of {len(every)} clips"
        said = [*said, f"{lacking} have no vector in some row, and are in no panel."]
    rows = []
    for clips in found:
        place = {one: index for index, one in enumerate(clips.ids.tolist())}
        order = np.array([place[one] for one in common], dtype=int)
        ordered: dict[str, Any] = {name: getattr(clips, name)[order] for name in ("ids", "labels", "vectors")}
        rows.append(replace(clips, names=names, **ordered))
    return rows, said


def class_names(clips: Clips) -> dict[int, str]:
    """Names by label: those that are known, else as ids carry them (``<class>_<number>``), else ``class <label>``.

    Args:
        clips: Any row.
    """
    if clips.names and clips.labels.max() < len(clips.names):
        known = {label: clips.names[label] or f"class {label}" for label in np.unique(clips.labels).tolist()}
        return {label: name.replace("_", " ") for label, name in known.items()}
    stems: dict[int, set[str]] = {}
    for one, label in zip(clips.ids.tolist(), clips.labels.tolist(), strict=True):
        stems.setdefault(label, set()).add(re.sub(r"_\d+$", "", one.rpartition("/")[2]))
    shared = len(set.union(*stems.values())) < len(stems)
    return {
        label: next(iter(found)).replace("_", " ") if len(found) == 1 and not shared else f"class {label}"
        for label, found in stems.items()
    }


def family_of(name: str) -> str:
    """What stands in front of a class's name in brackets, as FineGym's events do: ``VT``; empty where nothing does."""
    found = _FAMILY.match(name)
    return found[1] if found else ""
