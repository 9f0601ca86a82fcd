"""What the rows of split lists must obey before any file is looked at: labels, and clips that stand once."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from taghead.data.listing import Finding, Row


def check_rows(rows: Iterable[Row], *, num_classes: int) -> list[Finding]:
    """The errors in the rows of all splits.

    Args:
        rows: Those of one split together.
        num_classes: Labels run from 0 to one less.

    Returns:
        Labels out of range, or counted from 1; clips that stand twice in a split, or in two.
    """
    rows = list(rows)
    findings: list[Finding] = []
    for _, of_split in groupby(rows, key=lambda row: row.split):
        findings += _check_labels(list(of_split), num_classes=num_classes)
    return [*findings, *_check_once(rows)]


def _check_labels(rows: list[Row], *, num_classes: int) -> Iterator[Finding]:
    """Labels of one list: one finding for a list that counts from 1, else one for each label out of range."""
    labels = {row.label for row in rows}
    if labels and 0 not in labels and max(labels) == num_classes:
        last = next(row for row in rows if row.label == num_classes)
        message = (
            f"{last.where}: 0 <= label < {num_classes} must hold, but got {last.label}, and no line of the list has 0: "
            "its labels are one-based; subtract 1 from each."
        )
        yield Finding("error", "one-based labels", message)
        return
    for row in rows:
        if not 0 <= row.label < num_classes:
            message = f"{row.where}: 0 <= label < {num_classes} must hold, but got {row.label}; correct that line."
            yield Finding("error", "label", message)


def _check_once(rows: list[Row]) -> Iterator[Finding]:
    """A clip stands once, in one split."""
    seen: dict[str, Row] = {}
    for row in rows:
        first = seen.setdefault(row.clip_id, row)
        if first is row:
            continue
        clip = f"{row.where}: clip {row.clip_id!r}"
        if first.split == row.split:
            message = f"{clip} must occur once, but stands in {first.where} too; remove one of the lines."
            yield Finding("error", "twice", message)
        else:
            message = (
                f"{clip} must be in one split, but is in {row.split} here and in {first.split} by {first.where}; "
                "remove one of the lines."
            )
            yield Finding("error", "two splits", message)
