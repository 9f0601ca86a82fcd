"""Every number that the paper prints (arXiv 2604.11498v1, Tables 1 to 5), to stand beside what is measured."""

from functools import cache
from importlib.resources import files

import pandas as pd


@cache
def read() -> pd.DataFrame:
    """The printed numbers in long form.

    Returns:
        Columns ``table, row, input, dataset, metric, value``; accuracies in percent, ``params_m`` in millions,
        ``gflops`` as the paper counts (see `analysis.complexity`). ``dataset`` is empty where a row belongs to none.
    """
    with files("analysis").joinpath("published.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, keep_default_na=False, dtype={"value": float})


def values(table: int | None) -> dict[tuple[str, str, str], float]:
    """One table's numbers by ``(row, dataset, metric)``; empty for None.

    Args:
        table: The table's number in the paper.
    """
    rows = read()
    rows = rows[rows["table"] == table]
    keys = zip(rows["row"], rows["dataset"], rows["metric"], strict=True)
    return dict(zip(keys, rows["value"].tolist(), strict=True))
