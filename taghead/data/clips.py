"""The clips of a data set: split lists checked against the files under the data root, and the identity of both."""

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from taghead.data.finegym import read_finegym
from taghead.data.haa500 import MARKER, read_haa500, read_synthetic
from taghead.data.listing import SPLITS, Finding, Listing, Row, Split, collecting
from taghead.data.rules import check_rows
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


class Counts(NamedTuple):
    """How many clips of a split its list names, and of these how many are there and how many are not."""

    listed: int
    present: int
    missing: int


@dataclass(frozen=True)
class ClipList:
    """The clips of a data set whose files are there, sorted by split and id.

    Attributes:
        dataset: Name, a key of `DATASETS`.
        classes: Names by label.
        clips: All splits together.
        root: The data root, resolved.
        synthetic: Whether the data was generated (its root holds ``synthetic.json``).
        absent: The rows of the split lists whose files are not there, sorted likewise.
        held_out: Ids of training clips that `hold_out` has made the validation split.
    """

    dataset: str
    classes: tuple[str, ...]
    clips: tuple[Clip, ...]
    root: Path
    synthetic: bool
    absent: tuple[Row, ...] = ()
    held_out: frozenset[str] = frozenset()

    def split(self, name: str) -> tuple[Clip, ...]:
        """The clips of one split, sorted by id; empty where the data set has no such split."""
        if name not in SPLITS:
            raise InputError(f"no split {name!r}{nearest(name, SPLITS)}")
        return tuple(clip for clip in self.clips if self._split_of(clip) == name)

    def _split_of(self, clip: Clip) -> Split:
        return "val" if clip.id in self.held_out else clip.split

    @property
    def missing(self) -> tuple[str, ...]:
        """Ids of the clips that the split lists name and that are not there."""
        return tuple(sorted(row.clip_id for row in self.absent))

    @property
    def counts(self) -> dict[Split, Counts]:
        """Clips listed, present and missing in each split that the data set has."""
        present = Counter(self._split_of(clip) for clip in self.clips)
        missing = Counter(row.split for row in self.absent)
        counts = {name: Counts(present[name] + missing[name], present[name], missing[name]) for name in SPLITS}
        return {name: count for name, count in counts.items() if count.listed}

    def relative(self, clip: Clip) -> str:
        """The path of a clip's file below the data root, with forward slashes."""
        return clip.path.relative_to(self.root).as_posix()

    @property
    def has_validation(self) -> bool:
        """Whether there is a validation split apart from the test split."""
        return any(self._split_of(clip) == "val" for clip in self.clips)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that stand for the data used, the same wherever the folder lies.

        The SHA-256 of the data set's name, its classes, and split, id, label and file size of each clip. Paths and
        times of change do not enter; a clip that is added, missing, relabelled or of another size does. It is that of
        the lists: what is held out of training is a field of the config, and enters an experiment's identity there.

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
        The clips that are there, and the rows of those that are not.

    Raises:
        InputError: The first of the errors that `inspect_clips` finds, with file and line, the value and the remedy.
    """
    clips, findings = inspect_clips(dataset, root, missing=missing)
    errors = [finding.message for finding in findings if finding.level == "error"]
    if errors:
        also = f" One of {len(errors)} errors: taghead datasets check names all." if len(errors) > 1 else ""
        raise InputError(errors[0] + also)
    return clips


def hold_out(clips: ClipList, fraction: float) -> ClipList:
    """Makes a part of each class's training clips the validation split, so that nothing is chosen on test clips.

    Which ones goes by a hash of their ids: the same on every machine, and a larger fraction holds out those of a
    smaller one too. The nearest whole number of a class's clips is held out, at the most all but one. Clips of one
    source video may come to lie on both sides.

    Args:
        clips: A data set without a validation split of its own.
        fraction: Of each class's training clips that are there; 0 changes nothing.

    Raises:
        InputError: The data set has a validation split, or no class has clips enough for one to be held out.
    """
    if not fraction:
        return clips
    if own := len(clips.split("val")):
        raise InputError(
            f"data.holdout makes a validation split of training clips, but {clips.dataset} has one of its own "
            f"({own:,} clips) and data.holdout={fraction}: use that one, with --set data.holdout=0."
        )
    by_class: dict[int, list[str]] = {}
    for clip in clips.split("train"):
        by_class.setdefault(clip.label, []).append(clip.id)
    held_out: set[str] = set()
    for ids in by_class.values():
        ids.sort(key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())
        held_out.update(ids[: min(int(fraction * len(ids) + 0.5), len(ids) - 1)])
    if not held_out:
        raise InputError(
            f"data.holdout={fraction} holds out no clip of {clips.dataset}, whose classes have at the most "
            f"{max(map(len, by_class.values()))} training clips: raise it, or set data.holdout=0."
        )
    return replace(clips, held_out=frozenset(held_out))


def inspect_clips(dataset: str, root: Path, *, missing: str = "error") -> tuple[ClipList, list[Finding]]:
    """What `read_clips` reads, and all that its lists and its folder say, errors among it.

    Raises:
        InputError: No such data set or data root, or nothing in it that could be read.
    """
    if dataset not in DATASETS:
        raise InputError(f"no data set {dataset!r}{nearest(dataset, DATASETS)}")
    if missing not in ("error", "skip"):
        raise InputError(f"missing is one of error, skip, but got {missing!r}{nearest(missing, ('error', 'skip'))}")
    if not Path(root).is_dir():
        raise InputError(f"no such data root: {root}; give the folder that holds the {dataset} clips and split lists.")
    root = Path(os.path.realpath(root))
    classes, rows, findings = DATASETS[dataset](root)
    findings += check_rows(rows, num_classes=len(classes))
    clips, absent = _find_files(root, rows, findings)
    clips.sort(key=lambda clip: (clip.split, clip.id))
    absent.sort(key=lambda row: (row.split, row.clip_id))
    found = ClipList(dataset, classes, tuple(clips), root, (root / MARKER).is_file(), tuple(absent))
    return found, findings + _what_is_missing(found, skip=missing == "skip")


def _what_is_missing(clips: ClipList, *, skip: bool) -> list[Finding]:
    """Findings for clips that are not there, and for a split that is left without any."""
    findings = []
    if absent := clips.absent:
        some = ", ".join(row.clip_id for row in absent[:3]) + (", ..." if len(absent) > 3 else "")
        remedy = "they are left out" if skip else "add them, or go on without them by --missing skip"
        count = f"{len(absent):,} of {len(absent) + len(clips.clips):,} clips of {clips.dataset}"
        message = f"{count} are missing under {clips.root} ({some}); {remedy}."
        level, paths = "warning" if skip else "error", tuple(row.path for row in absent)
        findings.append(Finding(level, "missing", message, paths))  # type: ignore[arg-type]
    for split in ("train", "test"):
        if not clips.split(split):
            message = f"{clips.dataset} has no {split} clips under {clips.root}; add them, or give another data root."
            findings.append(Finding("error", "empty split", message))
    return findings


def _find_files(root: Path, rows: list[Row], findings: list[Finding]) -> tuple[list[Clip], list[Row]]:
    """The clips whose files are there, and the rows of the others; what leaves the root is neither."""
    clips: list[Clip] = []
    absent: list[Row] = []
    real_folders: dict[str, str] = {}
    for row in rows:
        with collecting(findings, "path"):
            path = _find(root, row, real_folders)
            if path is None:
                absent.append(row)
            else:
                clips.append(Clip(row.clip_id, path, row.label, row.split))
    return clips, absent


def _find(root: Path, row: Row, real_folders: dict[str, str]) -> Path | None:
    """The file of a row; a file system may have put accents in Unicode's other form, so that one is tried as well."""
    folder, name = os.path.split(row.path)
    folders, names = ((text, normalize("NFC", text), normalize("NFD", text)) for text in (folder, name))
    spellings = [(folder, name)] if row.path.isascii() else list(product(folders, names))
    for spelling in spellings:
        path = _inside(root, row._replace(path=os.path.join(*spelling)), real_folders)
        if _size(path, absent=-1) >= 0:
            return path
    return None


def _inside(root: Path, row: Row, real_folders: dict[str, str]) -> Path:
    """The real path of a row's clip: refused when it leaves the root, by ``..``, as absolute path or by a link.

    Most clips share a folder, so folders are resolved once (``real_folders``), not once a clip.
    """
    folder, name = os.path.split(os.path.join(root, row.path))
    if name in ("", ".", "..") or any(sign in row.path for sign in "\0\n"):
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
