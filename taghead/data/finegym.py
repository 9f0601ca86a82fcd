"""FineGym (Gym99, Gym288): one ``<clip id> <label>`` a line; the annotations' val split is the evaluation split here.

Expected under the data root, as the owners name them: ``annotations/`` (or the root itself) with
``gym99_train_element_v1.1.txt``, ``gym99_val_element.txt`` and ``gym99_categories.txt``, the like for gym288; the
clips as ``clips/<clip id>.mp4``, or ``<clip id>.mp4`` in the root where there is no folder ``clips``. Version 1.1 of
the training list is preferred (the paper's counts are its counts), else 1.0 is read.
A clip id is ``<video id>_E_<start>_<end>_A_<start>_<end>``; nothing here depends on it.
"""

import re
from pathlib import Path

from taghead.data.listing import Listing, Row, Split, first_file, read_lines
from taghead.errors import InputError

NUM_CLASSES = {"gym99": 99, "gym288": 288}
_VERSIONS = ("_v1.1", "", "_v1.0")
_CATEGORY = re.compile(r"Clabel:\s*(\d+)\s*;\s*set:\s*\d+\s*;\s*Glabel:\s*\d+\s*;\s*(.+)")


def read_finegym(root: Path, *, dataset: str) -> Listing:
    """The clips of Gym99 or Gym288: splits ``train`` and ``test`` (FineGym's val), no validation split.

    Args:
        root: The folder with the annotations and the clips.
        dataset: ``gym99`` or ``gym288``.

    Raises:
        InputError: A list is missing or a line of it cannot be read.
    """
    folders = [root / "annotations", root]
    names = [f"{dataset}_categories.txt"]
    classes = _read_categories(first_file(folders, names, what="categories"), num_classes=NUM_CLASSES[dataset])
    clips = "clips/" if (root / "clips").is_dir() else ""
    rows: list[Row] = []
    parts: tuple[tuple[Split, str], ...] = (("train", "train"), ("test", "val"))
    for split, part in parts:
        names = [f"{dataset}_{part}_element{version}.txt" for version in _VERSIONS]
        rows += _read_split(first_file(folders, names, what=f"{part} list"), split=split, clips=clips)
    return Listing(classes, rows)


def _read_split(path: Path, *, split: Split, clips: str) -> list[Row]:
    rows = []
    for where, line in read_lines(path):
        fields = line.rsplit(maxsplit=1)
        if len(fields) != 2 or not re.fullmatch(r"-?[0-9]{1,9}", fields[1]):
            raise InputError(f'{where}: expected "<clip id> <label>", got {line!r}.')
        rows.append(Row(split, fields[0], int(fields[1]), f"{clips}{fields[0]}.mp4", where))
    return rows


def _read_categories(path: Path, *, num_classes: int) -> tuple[str, ...]:
    names: dict[int, str] = {}
    for where, line in read_lines(path):
        found = _CATEGORY.fullmatch(line)
        if not found:
            raise InputError(f'{where}: expected "Clabel: 0; set: 1; Glabel: 1; <name>", got {line!r}.')
        label = int(found[1])
        if label in names or label >= num_classes:
            raise InputError(f"{where}: each label of 0 to {num_classes - 1} must occur once, but got {label}.")
        names[label] = found[2].strip()
    if len(names) != num_classes:
        raise InputError(f"{path}: expected {num_classes} categories, got {len(names)}; download the file again.")
    return tuple(names[label] for label in range(num_classes))
