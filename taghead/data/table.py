"""Split lists as CSV, as the authors' public code has them: ``FileName,Class,TotalFrames,ClassEncoded``.

Under the data root lie ``train.csv``, ``val.csv`` and ``test.csv``, and the clips as ``<Class>/<FileName>``. Without a
``test.csv`` the ``val.csv`` is the evaluation split, as in that code, and there is no validation split.
``TotalFrames`` is not read: frames that decode are what counts.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from taghead.data.listing import Listing, Row, Split, first_file, read_text
from taghead.errors import InputError

COLUMNS = ("FileName", "Class", "ClassEncoded")


def read_table(root: Path) -> Listing:
    """The clips of ``train.csv`` and of ``val.csv`` and ``test.csv``, or of one of these.

    Raises:
        InputError: A file or a column is missing, or a line names a class or label that contradicts another.
    """
    first_file([root], ["train.csv"], what="training list")
    first_file([root], ["test.csv", "val.csv"], what="evaluation list")
    has_test = (root / "test.csv").is_file()
    files: dict[str, Split] = {"train.csv": "train", "val.csv": "val" if has_test else "test", "test.csv": "test"}
    names: dict[int, str] = {}
    rows = [
        row
        for file, split in files.items()
        if (root / file).is_file()
        for row in _read_split(root / file, split=split, names=names)
    ]
    absent = next((label for label in range(len(names)) if label not in names), None)
    if absent is not None:
        raise InputError(f"{root}: ClassEncoded must run from 0 without gaps, but no line has {absent}.")
    return Listing(tuple(names[label] for label in range(len(names))), rows)


def _lines(reader: csv.DictReader, path: Path) -> Iterator[dict[str, str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num + 1}: no CSV ({error}); mend or leave out that line.") from None


def _read_split(path: Path, *, split: Split, names: dict[int, str]) -> list[Row]:
    """The rows of one file; ``names`` (label -> class) is filled, and checked, across files."""
    reader = csv.DictReader(read_text(path).splitlines(), skipinitialspace=True)
    absent = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if absent:
        raise InputError(f"{path}:1: expected a header with {', '.join(COLUMNS)}, but {absent[0]} is missing.")
    rows = []
    for line in _lines(reader, path):
        where = f"{path}:{reader.line_num}"
        name, file, encoded = (str(line[column] or "").strip() for column in ("Class", "FileName", "ClassEncoded"))
        if not (name and file and re.fullmatch("[0-9]{1,9}", encoded)):
            raise InputError(f"{where}: expected a FileName, a Class and a whole number as ClassEncoded, got {line}.")
        label = int(encoded)
        if names.setdefault(label, name) != name:
            raise InputError(f"{where}: label {label} must mean one class, but means {names[label]!r} and {name!r}.")
        rows.append(Row(split, f"{name}/{file}", label, f"{name}/{file}", where))
    return rows
