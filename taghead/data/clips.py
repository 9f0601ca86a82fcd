"""The clips of a data set: split lists checked against the files under the data root, and the identity of both."""

import hashlib
import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from taghead.data.finegym import read_finegym
from taghead.data.haa500 import MARKER, read_haa500, read_synthetic
from taghead.data.listing import Listing, Row, Split
from taghead.data.table import read_table
from taghead.errors import InputError, nearest

DATASETS: dict[str, Callable[[Path], Listing]] = {
    "gym99": partial(read_finegym, dataset="gym99"),
    "gym288": partial(read_finegym, dataset="gym288"),
    "haa500": read_haa500,
    "synthetic": read_synthetic,
    "table": read_table,
}


@dataclass(frozen=True)
class Clip:
    """One video file with its label."""

    id: str
    path: Path
    label: int
    split: Split


@dataclass(frozen=True)
class ClipList:
    """The clips of a data set whose files are there, sorted by split and id.

    Attributes:
        dataset: Name, a key of `DATASETS`.
        classes: Names by label.
        clips: All splits together.
        root: The data root, resolved.
        synthetic: Whether the data was generated (its root holds ``synthetic.json``).
        missing: Ids of the clips that the split lists name and that are not there.
    """

    dataset: str
    classes: tuple[str, ...]
    clips: tuple[Clip, ...]
    root: Path
    synthetic: bool
    missing: tuple[str, ...]

    def split(self, name: str) -> tuple[Clip, ...]:
        """The clips of one split, sorted by id; empty where the data set has no such split."""
        if name not in ("train", "val", "test"):
            raise InputError(f"no split {name!r}{nearest(name, ('train', 'val', 'test'))}")
        return tuple(clip for clip in self.clips if clip.split == name)

    @property
    def has_validation(self) -> bool:
        """Whether there is a validation split apart from the test split."""
        return any(clip.split == "val" for clip in self.clips)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that stand for the data used, the same wherever the folder lies.

        The SHA-256 of the data set's name, its classes, and split, id, label and file size of each clip. Paths and
        times of change do not enter; a clip that is added, missing, relabelled or of another size does.

        Raises:
            InputError: A clip has gone since it was listed.
        """
        used = [(clip.split, clip.id, clip.label, _size(clip.path)) for clip in self.clips]
        text = json.dumps([self.dataset, self.classes, used], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_clips(dataset: str, root: Path, *, missing: str = "error") -> ClipList:
    """Reads the split lists of a data set and finds each clip's file.

    Args:
        dataset: A key of `DATASETS`.
        root: The data root; the layouts are told in `taghead.data.haa500`, `finegym` and `table`.
        missing: What to do where the lists name clips that are not there: ``error`` refuses, ``skip`` goes on without.

    Returns:
        The clips that are there, and the ids of those that are not.

    Raises:
        InputError: Anything amiss with the lists or the files, with file and line, the value and the remedy.
    """
    if dataset not in DATASETS:
        raise InputError(f"no data set {dataset!r}{nearest(dataset, DATASETS)}")
    if missing not in ("error", "skip"):
        raise InputError(f"missing is one of error, skip, but got {missing!r}{nearest(missing, ('error', 'skip'))}")
    if not Path(root).is_dir():
        raise InputError(f"no such data root: {root}; give the folder that holds the {dataset} clips and split lists.")
    root = Path(os.path.realpath(root))
    classes, rows = DATASETS[dataset](root)
    _check_rows(rows, num_classes=len(classes))
    clips, absent = _find_files(root, rows)
    if absent and missing == "error":
        some = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise InputError(
            f"{len(absent)} of {len(rows)} clips of {dataset} are missing under {root} ({some}); "
            "add them, or go on without them by --missing skip."
        )
    for split in ("train", "test"):
        if not any(clip.split == split for clip in clips):
            raise InputError(f"{dataset} has no {split} clips under {root}; add them, or give another data root.")
    ordered = tuple(sorted(clips, key=lambda clip: (clip.split, clip.id)))
    return ClipList(dataset, classes, ordered, root, (root / MARKER).is_file(), tuple(sorted(absent)))


def _check_rows(rows: list[Row], *, num_classes: int) -> None:
    """Labels are in range, and no split names a clip twice."""
    seen: dict[tuple[str, str], str] = {}
    for row in rows:
        if not 0 <= row.label < num_classes:
            raise InputError(f"{row.where}: 0 <= label < {num_classes} must hold, but got {row.label}.")
        key = (row.split, row.clip_id)
        if key in seen:
            raise InputError(f"{row.where}: clip {row.clip_id!r} must occur once, but stands in {seen[key]} too.")
        seen[key] = row.where


def _find_files(root: Path, rows: list[Row]) -> tuple[list[Clip], list[str]]:
    """The clips whose files are there, and the ids of the others."""
    clips, absent = [], []
    real_folders: dict[str, str] = {}
    for row in rows:
        path = _inside(root, row, real_folders)
        if _size(path, absent=-1) >= 0:
            clips.append(Clip(row.clip_id, path, row.label, row.split))
        else:
            absent.append(row.clip_id)
    return clips, absent


def _inside(root: Path, row: Row, real_folders: dict[str, str]) -> Path:
    """The real path of a row's clip: refused when it leaves the root, by ``..``, as absolute path or by a link.

    Most clips share a folder, so folders are resolved once (``real_folders``), not once a clip.
    """
    folder, name = os.path.split(os.path.join(root, row.path))
    if "\0" in row.path or name in ("", ".", ".."):
        raise InputError(f"{row.where}: expected the name of a clip, got {row.path!r}.")
    if folder not in real_folders:
        real_folders[folder] = os.path.realpath(folder)
    real = os.path.join(real_folders[folder], name)
    if os.path.islink(real):
        real = os.path.realpath(real)
    if not real.startswith(os.path.join(root, "")):
        raise InputError(
            f"{row.where}: clips must lie under the data root {root}, but {row.path!r} leads to {real}; "
            "move it there, or give a data root that holds both."
        )
    return Path(real)


def _size(path: Path, *, absent: int | None = None) -> int:
    """The size of a regular file in bytes; ``absent`` where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        status = None
    if status is not None and stat.S_ISREG(status.st_mode):
        return status.st_size
    if absent is None:
        raise InputError(f"clip {path} has gone since it was listed; put it back, or list the clips again.")
    return absent
