"""Files that are there whole or not at all: written beside their place, then renamed; fingerprints of them."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taghead.errors import InputError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a path beside ``path`` to write to, and renames it there when the block ends without an error.

    A reader sees the old file or the new one, never a part; a process that dies leaves the old one.

    Args:
        path: Where the file shall be.

    Yields:
        A hidden path in the same folder, which nobody else is given.
    """
    beside = hidden_beside(path)
    try:
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def hidden_beside(path: Path) -> Path:
    """A hidden path in the same folder, which nobody else is given; `remove_leftovers` knows it by its digits.

    Containers that share a folder have the same process ids.
    """
    return path.with_name(f".{path.name}.{secrets.randbelow(10**16):016d}")


def remove_leftovers(folder: Path) -> None:
    """Removes what writers that were killed have left beside their files: only where nobody writes to the folder."""
    for path in folder.glob(".*.*"):
        if path.suffix[1:].isdigit() and path.is_file():
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file whole."""
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def existing(path: Path | str) -> Path:
    """The path of a file of weights that is there and not empty.

    Raises:
        InputError: It is not, or it is.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file of weights.")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; fetch it again.")
    return path


def fingerprint(path: Path | str) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a file of weights.

    Raises:
        InputError: No such file, or an empty one.
    """
    with existing(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
