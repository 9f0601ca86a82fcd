"""Where results are written: file names from labels that may hold anything, and folders that can be written to."""

import re
from pathlib import Path

from taghead.errors import InputError


def slug(label: str) -> str:
    """A label as a part of a file's name: letters, digits, ``-``, ``_`` and ``.`` stay, all else becomes ``_``.

    Args:
        label: Of a column, say.
    """
    return re.sub(r"[^\w.-]", "_", label)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, where they are not there yet.

    Args:
        folder: Where files are to be written.

    Raises:
        InputError: A file stands in its place, or it may not be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: no folder to write to ({error.strerror}); give another --out.") from None
