"""FineGym (Gym99, Gym288): one ``<clip id> <label>`` a line; the annotations' val split is the evaluation split here.

Expected under the data root, as the owners name them: ``annotations/`` (or the root itself) with
``gym99_train_element_v1.1.txt``, ``gym99_val_element.txt`` and ``gym99_categories.txt``, the like for gym288; the
clips as ``clips/<clip id>.mp4``, or ``<clip id>.mp4`` in the root where there is no folder ``clips``. Version 1.1 of
the training list is preferred (the paper's counts are its counts), else the list without a version, else 1.0 is read.
A clip id is ``<video id>_E_<start>_<end>_A_<start>_<end>``; a video id may hold ``_`` and ``-`` itself.
"""

import re
from pathlib import Path

from taghead.data.listing import Finding, Listing, Row, Split, collecting, first_file, read_lines, read_rows

NUM_CLASSES = {"gym99": 99, "gym288": 288}
# Rows of the published lists, by split here and by version there.
PUBLISHED: dict[str, dict[Split, dict[str, int]]] = {
    "gym99": {"train": {"1.0": 20_484, "1.1": 26_320}, "test": {"1.0 and 1.1": 8_521}},
    "gym288": {"train": {"1.0": 22_671, "1.1": 29_334}, "test": {"1.0 and 1.1": 9_646}},
}
PAPER_VERSION = "1.1"
_VERSIONS = ("_v1.1", "", "_v1.0")
_CATEGORY = re.compile(r"Clabel:\s*([0-9]{1,9})\s*;\s*set:\s*[0-9]+\s*;\s*Glabel:\s*[0-9]+\s*;\s*(.+)")
_CLIP_ID = re.compile(r"(.+)_E_[0-9]+_[0-9]+(_A_[0-9]+_[0-9]+)?")


def video_of(clip_id: str) -> str | None:
    """The id of the source video of a clip; None where the clip id has not the published form."""
    found = _CLIP_ID.fullmatch(clip_id)
    return found[1] if found else None


def read_finegym(root: Path, *, dataset: str) -> Listing:
    """The clips of Gym99 or Gym288: splits ``train`` and ``test`` (FineGym's val), no validation split.

    Args:
        root: The folder with the annotations and the clips.
        dataset: ``gym99`` or ``gym288``.

    Returns:
        Its findings name lists that are missing, lines that cannot be read, and which lists were read.
    """
    folders = [root / "annotations", root]
    findings: list[Finding] = []
    rows: list[Row] = []
    classes: dict[int, str] = {}
    with collecting(findings, "categories"):
        path = first_file(folders, [f"{dataset}_categories.txt"], what="categories")
        classes = read_categories(path, num_classes=NUM_CLASSES[dataset], findings=findings)
    clips = "clips/" if (root / "clips").is_dir() else ""
    parts: tuple[tuple[Split, str], ...] = (("train", "train"), ("test", "val"))
    for split, part in parts:
        names = [f"{dataset}_{part}_element{version}.txt" for version in _VERSIONS]
        with collecting(findings, "list"):
            path = first_file(folders, names, what=f"{part} list")
            read = [
                Row(split, clip_id, label, f"{clips}{clip_id}.mp4", where)
                for where, clip_id, label in read_rows(path, findings)
            ]
            rows += read
            findings.append(_which_list(path, len(read), split=split, published=PUBLISHED[dataset][split]))
    return Listing(tuple(classes.get(label, "") for label in range(NUM_CLASSES[dataset])), rows, findings)


def _which_list(path: Path, num_rows: int, *, split: Split, published: dict[str, int]) -> Finding:
    """Says which list was read, and whether it has as many rows as a published one."""
    version = next((version for version, count in published.items() if count == num_rows), None)
    known = " or ".join(f"{count:,} (version {version})" for version, count in published.items())
    paper = f"; the paper's is {PAPER_VERSION}" if split == "train" and version != PAPER_VERSION else ""
    as_known = f"as published in version {version}{paper}" if version else f"published are {known}{paper}"
    return Finding("fact", "counts", f"{split}: {num_rows:,} rows in {path}, {as_known}.")


def read_categories(path: Path, *, num_classes: int, findings: list[Finding]) -> dict[int, str]:
    """The classes' names by label; two labels may share one text.

    Args:
        path: ``gym99_categories.txt``, ``gym288_categories.txt``.
        num_classes: K.
        findings: What is amiss is added here.
    """
    names: dict[int, str] = {}
    for where, line in read_lines(path):
        found = _CATEGORY.fullmatch(line)
        message = None
        if not found:
            message = f'{where}: expected "Clabel: 0; set: 1; Glabel: 1; <name>", got {line!r}.'
        elif (label := int(found[1])) in names or label >= num_classes:
            message = f"{where}: each label of 0 to {num_classes - 1} must occur once, but got {label}."
        else:
            names[label] = found[2].strip()
        if message:
            findings.append(Finding("error", "categories", message))
    if len(names) != num_classes:
        message = f"{path}: expected {num_classes} categories, got {len(names)}; download the file again."
        findings.append(Finding("error", "categories", message))
    return names
