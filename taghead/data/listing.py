"""Split lists as their owners publish them: the plain rows that each reader gives, not yet held against the files."""

from pathlib import Path
from typing import Literal, NamedTuple

from taghead.errors import InputError

Split = Literal["train", "val", "test"]


class Row(NamedTuple):
    """One line of a split list: nothing in it has been checked against the files yet."""

    split: Split
    clip_id: str
    label: int
    path: str  # relative to the data root
    where: str  # file and line, for messages


class Listing(NamedTuple):
    """What a reader found: the classes by label, and the rows of all splits."""

    classes: tuple[str, ...]
    rows: list[Row]


def read_text(path: Path) -> str:
    """The text of an annotation file: UTF-8, with or without a byte order mark.

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
    lines = enumerate(read_text(path).splitlines(), start=1)
    return [(f"{path}:{number}", line.strip()) for number, line in lines if line.strip()]


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
