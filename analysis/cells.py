"""The one reader of results: a study's plan left-joined to the records, so that what is missing stays visible."""

import math
import os
import zlib
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import pandas as pd
from numpy import ndarray

from studies.plan import Cell, Plan, read_plan
from studies.store import Store
from taghead.errors import InputError
from taghead.record import DataFacts, Record

COLUMNS = (
    "row", "dataset", "seed", "metric", "value", "status", "trial_id", "synthetic", "epoch", "error", "attempt",
    "commit", "recipe", "device", "threads", "torch", "clips", "train_clips", "unreadable", "missing",
    "test_classes", "test_missing", "test_unreadable", "num_classes", "parameters", "seconds",
)  # fmt: skip
COUNTS = (
    "epoch", "recipe", "threads", "clips", "train_clips", "unreadable", "missing", "test_classes", "test_missing",
    "test_unreadable", "num_classes", "parameters", "attempt",
)  # fmt: skip
Unused = tuple[tuple[str, str, str], ...]  # data set, clip, reason
# what numpy and zipfile raise where bytes are missing or changed
READ_ERRORS = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, BadZipFile, zlib.error)


def read(results: Path, study: str) -> pd.DataFrame:
    """Every number that a study has, and every one that it still lacks.

    Args:
        results: The results folder.
        study: The study's name.

    Returns:
        As `join`.

    Raises:
        InputError: No such study was launched there, or its plan is damaged.
    """
    return join(results, read_plan(results, study))


def join(results: Path, plan: Plan) -> pd.DataFrame:
    """Looks each trial of a plan up in the store.

    Args:
        results: The results folder.
        plan: What the study consists of.

    Returns:
        One row for each (row, dataset, seed, metric) in the plan's order, with the columns `COLUMNS`. ``value`` is in
        percent, and NaN unless ``status`` is ``complete``; the others are ``running``, ``pending``, ``diverged``,
        ``failed`` and ``pruned``. ``epoch`` is the one that the score belongs to or that was reached; ``clips`` is the
        number of test clips, of ``test_classes`` classes. ``unreadable`` counts the clips of all splits that do not
        decode (those of the test split, ``test_unreadable``, are scored as wrong), ``missing`` those that the lists
        name and the folder lacks (left out; of the test split, ``test_missing``). What is not known is None.
    """
    facts = _facts(results, plan)
    lines = [
        (cell, seed, metric, facts[cell.trials[seed]])
        for cell in plan.cells
        for seed in plan.seeds
        for metric in plan.metrics
    ]
    known = [line[-1] for line in lines]
    columns: dict[str, list[Any]] = {
        "row": [cell.row for cell, *_ in lines],
        "dataset": [cell.dataset for cell, *_ in lines],
        "seed": [seed for _, seed, *_ in lines],
        "metric": [metric for *_, metric, _ in lines],
        "value": [100 * one.get("scores", {}).get(metric, math.nan) for *_, metric, one in lines],
        "trial_id": [cell.trials[seed] for cell, seed, *_ in lines],
        "synthetic": [cell.synthetic for cell, *_ in lines],
    }
    columns |= {name: [one.get(name, math.nan) for one in known] for name in COLUMNS if name not in columns}
    return pd.DataFrame(columns, columns=COLUMNS).astype(dict.fromkeys(COUNTS, "Int64"))


def unused_clips(results: Path, plan: Plan) -> dict[tuple[str, str], str]:
    """The clips that some trial of a plan could not use.

    Args:
        results: The results folder.
        plan: The study.

    Returns:
        Why, by data set and clip id.
    """
    lists = dict.fromkeys(facts.get("unused", ()) for facts in _facts(results, plan).values())
    return {(dataset, clip): reason for unused in lists for dataset, clip, reason in unused}


def by_cell(frame: pd.DataFrame) -> dict[tuple[str, str, str], list[Any]]:
    """A study's numbers cell by cell; pandas takes milliseconds to cut out each of many small groups.

    Args:
        frame: As from `read`.

    Returns:
        Its rows as tuples with names, in their order, by (row, dataset, metric).
    """
    groups: dict[tuple[str, str, str], list[Any]] = {}
    for one in frame.itertuples(index=False):
        groups.setdefault((one.row, one.dataset, one.metric), []).append(one)
    return groups


def is_synthetic(plan: Plan, dataset: str) -> bool:
    """Whether a column's clips were generated.

    Args:
        plan: The study.
        dataset: The column's label.
    """
    return any(cell.synthetic for cell in plan.cells if cell.dataset == dataset)


def is_published(cell: Cell) -> bool:
    """Whether the paper's numbers are of the clips that a cell ran on, so that both may stand side by side.

    Args:
        cell: Its label may be that of a data set which its config has replaced.
    """
    return cell.config.data.dataset == cell.dataset and not cell.synthetic


def read_arrays(path: Path, names: Iterable[str]) -> tuple[ndarray, ...]:
    """Arrays of one trial's file, as long as each other.

    Args:
        path: ``predictions.npz`` or ``embeddings.npz``.
        names: Those that are wanted.

    Raises:
        InputError: The file is damaged.
    """
    names = tuple(names)
    try:
        try:
            arrays = _read_quickly(path, names)
        except READ_ERRORS:  # damaged, or not as a trial writes it: numpy tells
            # opened here: numpy leaves a damaged file open
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = tuple(stored[name] for name in names)
        if len({len(array) for array in arrays}) > 1:
            raise ValueError("its arrays differ in length")
    except READ_ERRORS as error:
        raise InputError(f"{path.name} cannot be read ({one_line(error)})") from None
    return arrays


def _read_quickly(path: Path, names: tuple[str, ...]) -> tuple[ndarray, ...]:
    """As `numpy.load`, which takes most of its time for the headers; those of a study's files are alike."""
    arrays = []
    with ZipFile(BytesIO(path.read_bytes())) as stored:
        for name in names:
            content = stored.read(f"{name}.npy")  # which checks its sum
            start = 10 + int.from_bytes(content[8:10], "little")
            shape, by_columns, dtype = _layout(content[:start])
            values = np.frombuffer(content, dtype, math.prod(shape), start)
            arrays.append(values.reshape(shape, order="F" if by_columns else "C").copy())
    return tuple(arrays)


@lru_cache(maxsize=1_000)
def _layout(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    file = BytesIO(header)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("a long header")
    return np.lib.format.read_array_header_1_0(file)


def data_facts(results: Path, trials: Iterable[str]) -> DataFacts | None:
    """What the first of some trials that has a readable record says of its clips; None where none has.

    Args:
        results: The results folder.
        trials: Their ids.
    """
    for trial in trials:
        with suppress(InputError):  # of a damaged record the table tells
            if record := Store(results).read(trial):
                return record.data
    return None


def trial_in_words(cell: Cell, seed: int) -> str:
    """How a trial is named in a note."""
    return f"{cell.row}, {cell.dataset}, seed {seed} (trial {cell.trials[seed]})"


def one_line(error: Exception) -> str:
    """The first line of what an error says, without its full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _facts(results: Path, plan: Plan) -> dict[str, dict[str, Any]]:
    """What the store knows of each trial, by column; not to be changed."""
    store, folder = Store(results), str(Store(results).trials)
    found = {}
    for trial in plan.trial_ids():
        try:
            stamp = os.stat(os.path.join(folder, trial, "record.json"))
        except OSError:
            found[trial] = _read_facts(store, trial)
        else:
            found[trial] = _remembered(store, trial, stamp.st_ino, stamp.st_mtime_ns, stamp.st_size)
    return found


@lru_cache(maxsize=100_000)
def _remembered(store: Store, trial: str, *stamp: int) -> dict[str, Any]:
    """A report asks several times of each trial; the stamp of the record's file tells whether it has changed."""
    return _read_facts(store, trial)


def _read_facts(store: Store, trial: str) -> dict[str, Any]:
    try:
        record = store.read(trial)
    except InputError as error:  # one damaged record must not hide the rest of the study
        return {"status": "failed", "error": str(error)}
    if record is not None:
        return _of_record(record)
    status = "running" if store.is_running(trial) else "pending"
    return {"status": status, "epoch": _epochs_done(store.running / trial / "history.csv")}


def _epochs_done(history: Path) -> int | None:
    try:
        return max(0, len(history.read_text(encoding="utf-8").splitlines()) - 1)
    except (OSError, UnicodeDecodeError):
        return None


def _of_record(record: Record) -> dict[str, Any]:
    return {
        "status": record.status,
        "scores": record.metrics if record.status == "complete" else {},
        "epoch": record.epoch,
        "error": record.error,
        "commit": record.commit,
        "recipe": record.recipe_version,
        "device": record.machine.device,
        "threads": record.machine.threads,
        "torch": record.machine.torch,
        "clips": record.data.num_test,
        "train_clips": record.data.num_train,
        "test_classes": record.data.test_classes,
        "test_missing": record.data.test_missing,
        "test_unreadable": record.data.test_unreadable,
        "unreadable": len(record.data.unreadable),
        "missing": len(record.data.missing),
        "num_classes": record.data.num_classes,
        "parameters": record.parameters,
        "seconds": record.seconds,
        "attempt": record.attempt,
        "unused": _unused(record.data),
    }


def _unused(data: DataFacts) -> Unused:
    reasons = {clip: f"does not decode: {why}" for clip, why in data.unreadable.items()}
    reasons |= dict.fromkeys(data.missing, "is not there")
    return _shared(tuple((data.dataset, clip, reason) for clip, reason in reasons.items()))


@lru_cache(maxsize=1_000)
def _shared(value: Unused) -> Unused:
    """The first of equal values: all trials on the same clips keep one."""
    return value
