"""Split lists as their owners publish them: the plain rows that each reader gives, and what it found amiss."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from taghead.errors import InputError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Level = Literal["error", "warning", "fact"]

_ROW = re.compile(r"(.*[^ \t])[ \t]+(-?[0-9]{1,9})")


class Finding(NamedTuple):
    """One thing that was found in a data set.

    Attributes:
        level: ``error`` (training is refused, or would be wrong), ``warning`` or ``fact``.
        rule: Which rule it is about: findings of one kind share it.
        message: One line: rule, value, remedy.
        items: What it is about, where that is many (relative paths, classes, videos).
    """

    level: Level
    rule: str
    message: str
    items: tuple[str, ...] = ()


class Row(NamedTuple):
    """One line of a split list: nothing in it has been checked against the files yet."""

    split: Split
    clip_id: str
    label: int
    path: str  # relative to the data root
    where: str  # file and line, for messages


class Listing(NamedTuple):
    """What a reader found: the classes by label, the rows of all splits, and what is to be said of them."""

    classes: tuple[str, ...]
    rows: list[Row]
    findings: list[Finding]


@contextmanager
def collecting(findings: list[Finding], rule: str) -> Iterator[None]:
    """Takes an `InputError` of the block for a finding, so that the rest of a data set is looked at as well."""
    try:
        yield
    except InputError as error:
        findings.append(Finding("error", rule, str(error)))


def read_text(path: Path) -> str:
    r"""The text of an annotation file: UTF-8, with or without a byte order mark, its lines ended by ``\n`` alone.

    Raises:
        InputError: The file cannot be read, or is no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected UTF-8 text; save the file as UTF-8.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None


def read_lines(path: Path) -> list[tuple[str, str]]:
    """The lines of an annotation file that hold something, each stripped and with its ``file:line``."""
    # not splitlines(), which takes U+2028 or a form feed within a name for the end of a line
    lines = enumerate(read_text(path).split("\n"), start=1)
    return [(f"{path}:{number}", line.strip(" \t")) for number, line in lines if line.strip()]


def read_rows(path: Path, findings: list[Finding]) -> list[tuple[str, str, int]]:
    """The ``file:line``, clip id and label of each ``<clip id> <label>`` line: the label is what stands last.

    Args:
        path: The list.
        findings: Lines that are none are added here.
    """
    rows = []
    for where, line in read_lines(path):
        found = _ROW.fullmatch(line)
        if found:
            rows.append((where, found[1], int(found[2])))
        else:
            message = f'{where}: expected "<clip id> <label>", got {line!r}; mend or leave out that line.'
            findings.append(Finding("error", "line", message))
    return rows


def first_file(folders: list[Path], names: list[str], *, what: str) -> Path:
    """The first file there is, by name and then by folder.

    Raises:
        InputError: None of them is there.
    """
    for name in names:
        for folder in folders:
            if (folder / name).is_file():
                return folder / name
    places = " or ".join(str(folder) for folder in folders)
    raise InputError(f"no {what} in {places}: expected {' or '.join(names)}; put it there, or give another data root.")
