"""Every trial of some studies as one tidy file that other programs read: CSV or Parquet.

Command: ``taghead-analysis export components stages --out results/trials.parquet``.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import cells
from analysis.places import make_folder
from studies.plan import Plan
from taghead.config import flatten
from taghead.errors import InputError
from taghead.files import written_whole

KINDS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False, lineterminator="\n", encoding="utf-8"),
    ".parquet": lambda frame, path: frame.to_parquet(path, index=False, engine="pyarrow"),
}
TEXTS = ("error", "commit", "device", "torch")
SOURCE = "model.backbone_source"  # the text of a whole file


def export(results: Path, plans: Iterable[Plan], out: Path) -> pd.DataFrame:
    """Writes `export_data` to a file of the kind that its suffix says.

    Args:
        results: The results folder.
        plans: The studies.
        out: The file, ``.csv`` or ``.parquet``.

    Returns:
        What was written.

    Raises:
        InputError: Another suffix, or no file can be written there.
    """
    if out.suffix not in KINDS:
        raise InputError(f"{out}: the suffix must be .csv or .parquet, but got {out.suffix!r}.")
    if out.is_dir():
        raise InputError(f"{out}: a folder, but an export is one file; give --out {out / f'trials{out.suffix}'}.")
    frame = export_data(results, plans)
    make_folder(out.parent)
    with written_whole(out) as beside:
        KINDS[out.suffix](frame, beside)
    return frame


def export_data(results: Path, plans: Iterable[Plan]) -> pd.DataFrame:
    """Every number that the studies have or still lack, with what their configs differ in.

    Args:
        results: The results folder.
        plans: The studies.

    Returns:
        One row for each (study, row, dataset, seed, metric): ``study``, the columns of `analysis.cells.join`, and one
        for each config field, by its dotted name, in which any two cells of these studies differ (several values in
        one field are joined by commas; a field that a row does not read has its value all the same). A trial that
        several studies share stands in each of them under one ``trial_id``.
    """
    plans = list(plans)
    frame = pd.concat([cells.join(results, plan).assign(study=plan.name) for plan in plans], ignore_index=True)
    configs = {
        (plan.name, cell.row, cell.dataset): {key: _plain(value) for key, value in flatten(cell.config).items()}
        for plan in plans
        for cell in plan.cells
    }
    of_rows = [configs[key] for key in frame[["study", "row", "dataset"]].itertuples(index=False, name=None)]
    varied = {key: _column([config[key] for config in of_rows]) for key in _varied(configs.values())}
    texts = dict.fromkeys(TEXTS, "string")  # where all are missing, too
    return pd.concat(
        [frame[["study", *cells.COLUMNS]].astype(texts), pd.DataFrame(varied, index=frame.index)], axis="columns"
    )


def _varied(configs: Iterable[dict[str, Any]]) -> list[str]:
    first, *others = configs
    # 1 and true, or 1 and 1.0, are equal in Python
    return [
        key for key in first if key != SOURCE and any(json.dumps(one[key]) != json.dumps(first[key]) for one in others)
    ]


def _plain(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _column(values: list[Any]) -> pd.Series:
    column = pd.Series(values, dtype=object).convert_dtypes()
    return column.map(str, na_action="ignore").astype("string") if column.dtype == object else column
