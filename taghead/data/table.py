"""Split lists as CSV, as the authors' public code has them: ``FileName,Class,TotalFrames,ClassEncoded``.

Under the data root lie ``train.csv``, ``val.csv`` and ``test.csv``, and the clips as ``<Class>/<FileName>``. Without a
``test.csv`` the ``val.csv`` is the evaluation split, as in that code, and there is no validation split.
Columns may stand in any order, with others beside them, parted by commas, semicolons or tabs; names that hold these
are quoted. ``TotalFrames`` is not read: frames that decode are what counts.
"""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten
from typing import Any
from unicodedata import normalize

from taghead.data.listing import Finding, Listing, Row, Split, collecting, first_file, read_text
from taghead.errors import InputError

COLUMNS = ("FileName", "Class", "ClassEncoded")


def read_table(root: Path) -> Listing:
    """The clips of ``train.csv`` and of ``val.csv`` and ``test.csv``, or of one of these.

    Returns:
        Its findings name files and columns that are missing, and lines whose class or label contradicts another's.
    """
    findings: list[Finding] = []
    for names, what in ((["train.csv"], "training list"), (["test.csv", "val.csv"], "evaluation list")):
        with collecting(findings, "list"):
            first_file([root], names, what=what)
    has_test = (root / "test.csv").is_file()
    files: dict[str, Split] = {"train.csv": "train", "val.csv": "val" if has_test else "test", "test.csv": "test"}
    classes: dict[int, str] = {}
    rows: list[Row] = []
    for file, split in files.items():
        if (root / file).is_file():
            with collecting(findings, "list"):
                rows += _read_split(root / file, split=split, classes=classes, findings=findings)
    labels = sorted(classes)
    gap = next((label for label, there in enumerate(labels) if label != there), None)
    if gap is not None and labels != list(range(1, len(labels) + 1)):  # labels from 1 on have a rule of their own
        message = f"{root}: ClassEncoded must run from 0 without gaps, but no line has {gap}."
        findings.append(Finding("error", "label", message))
    return Listing(tuple(classes[label] for label in labels), rows, findings)


def _read_split(path: Path, *, split: Split, classes: dict[int, str], findings: list[Finding]) -> list[Row]:
    """The rows of one file; ``classes`` (label -> name) is filled, and checked, across files."""
    rows = []
    for where, line in _lines(path):
        with collecting(findings, "line"):
            rows.append(_row(line, where, split=split, classes=classes))
    return rows


def _lines(path: Path) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Each line as a dict, with its ``file:line``: the first, where a quote that is not closed makes it many."""
    text = read_text(path)
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    # lines end at \n alone: names may hold a form feed or U+2028
    reader = csv.DictReader(io.StringIO(text, newline="\n"), delimiter=delimiter, skipinitialspace=True)
    try:
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        absent = [column for column in COLUMNS if column not in reader.fieldnames]
        if absent:
            raise InputError(f"{path}:1: expected a header with {', '.join(COLUMNS)}, but {absent[0]} is missing.")
        for line in reader:
            longest = max((str(value).rstrip("\n").count("\n") for value in line.values()), default=0)
            yield f"{path}:{reader.line_num - longest}", line
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num + 1}: no CSV ({error}); mend or leave out that line.") from None


def _row(line: dict[Any, Any], where: str, *, split: Split, classes: dict[int, str]) -> Row:
    name, file, encoded = (str(line[column] or "").strip(" \t") for column in ("Class", "FileName", "ClassEncoded"))
    if any(line.get(None, ())):
        raise InputError(f"{where}: more fields than the header has; put names that hold a comma into quotes.")
    if "\n" in file + name:
        raise InputError(f"{where}: a name must stand in one line, but a quote is not closed in it; close it.")
    if not (name and file and re.fullmatch("[0-9]{1,9}", encoded)):
        got = shorten(str(line), 200)
        raise InputError(f"{where}: expected a FileName, a Class and a whole number as ClassEncoded, got {got}.")
    label, known = int(encoded), normalize("NFC", name)
    if label not in classes and known in classes.values():
        other = next(one for one, there in classes.items() if there == known)
        raise InputError(f"{where}: class {name!r} must have one label, but has {other} and {label}.")
    if classes.setdefault(label, known) != known:
        raise InputError(f"{where}: label {label} must mean one class, but means {classes[label]!r} and {name!r}.")
    return Row(split, f"{name}/{file}", label, f"{name}/{file}", where)
