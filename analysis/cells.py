"""The one reader of results: a study's plan left-joined to the records, so that what is missing stays visible."""

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy import ndarray

from studies.plan import Cell, Plan, read_plan
from studies.store import Store
from taghead.errors import InputError
from taghead.record import Record

COLUMNS = (
    "row", "dataset", "seed", "metric", "value", "status", "trial_id", "synthetic", "epoch", "error", "attempt",
    "commit", "recipe", "device", "threads", "torch", "clips", "train_clips", "unreadable", "missing",
    "test_classes", "test_missing", "test_unreadable", "num_classes", "parameters", "seconds",
)  # fmt: skip
COUNTS = (
    "epoch", "recipe", "threads", "clips", "train_clips", "unreadable", "missing", "test_classes", "test_missing",
    "test_unreadable", "num_classes", "parameters", "attempt",
)  # fmt: skip


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
    store = Store(results)
    facts = {trial: _facts(store, trial) for trial in plan.trial_ids()}
    rows = []
    for cell in plan.cells:
        for seed in plan.seeds:
            trial = cell.trials[seed]
            known = dict(facts[trial])
            scores = known.pop("scores", {})
            for metric in plan.metrics:
                key = {"row": cell.row, "dataset": cell.dataset, "seed": seed, "metric": metric, "trial_id": trial}
                key["synthetic"] = cell.synthetic
                rows.append({**key, "value": 100 * scores.get(metric, float("nan")), **known})
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.astype(dict.fromkeys(COUNTS, "Int64"))


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
    try:
        # opened here: numpy leaves a damaged file open
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = tuple(stored[name] for name in names)
        if len({len(array) for array in arrays}) > 1:
            raise ValueError("its arrays differ in length")
    # what numpy and zipfile raise where bytes are missing or changed
    except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, BadZipFile, zlib.error) as error:
        raise InputError(f"{path.name} cannot be read ({one_line(error)})") from None
    return arrays


def trial_in_words(cell: Cell, seed: int) -> str:
    """How a trial is named in a note."""
    return f"{cell.row}, {cell.dataset}, seed {seed} (trial {cell.trials[seed]})"


def one_line(error: Exception) -> str:
    """The first line of what an error says, without its full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _facts(store: Store, trial: str) -> dict[str, Any]:
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
    }
