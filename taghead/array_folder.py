"""A folder of arrays, one file each: written whole, checked when read, only read where the disk is full. Caches use it.

A file is a head, a CRC-32 and the bytes of the array. The head names what the array was made of, as a hash (its key),
beside type and shape. Where any of it disagrees, or the file is short, there is no array: a cache is rebuilt, never
believed. The checksum is compared when a folder is first asked for a file that it has not written itself, and again
when the file has changed since.
Files are written beside their place and renamed, so any number of processes and threads may share a folder.
"""

import hashlib
import math
import os
import struct
import threading
import time
import uuid
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_HEAD = struct.Struct("<8s32s4sI4I")  # magic with version, key, type, number of axes, their sizes
_CHECKSUM = struct.Struct("<I")  # CRC-32 of head and array
_MAGIC = b"array  1"
_DTYPES: dict[bytes, np.dtype[Any]] = {code.encode().ljust(4, b"\0"): np.dtype(code) for code in ("<f4", "<f2", "|u1")}
_ABANDONED_SECONDS = 3600
HEAD_BYTES = _HEAD.size + _CHECKSUM.size  # of a file, before the array

Array = np.ndarray[Any, np.dtype[Any]]
_Which = tuple[int, int, int]


class _OutdatedError(Exception):
    """A file that is cut short, or was made of something else."""


class ArrayFolder:
    """Arrays of float32, float16 or uint8, of at most four axes, by name and key.

    Where the folder cannot be written (full, read-only) it warns once, and from then on only reads what is there.

    Args:
        folder: Made if it is not there; None keeps nothing.
        suffix: Of its files, as ``.tokens``.
        what: They are called in the warning.

    Attributes:
        folder: As given.
        writable: Whether `write` still tries.
    """

    def __init__(self, folder: Path | None, *, suffix: str, what: str) -> None:
        self.folder = folder
        self.writable = folder is not None
        self._suffix = suffix
        self._what = what
        self._sound: dict[Path, _Which] = {}  # which file it was when its checksum was right
        self._lock = threading.Lock()
        if folder is not None:
            self._prepare(folder)

    def read(self, name: str, key: bytes) -> Array | None:
        """The array of that name; None where it is absent, made of something else, or damaged.

        Args:
            name: Of the file, without its suffix.
            key: 32 bytes that stand for all that the array was made of.
        """
        if self.folder is None:
            return None
        place = self._place(self.folder, name)
        try:
            with place.open("rb") as file:
                head, checksum, dtype, shape = _read_head(file, key)
                array: Array = np.empty(shape, dtype)
                which = _which(file)
                file.readinto(array.data.cast("B"))
        except (OSError, struct.error, _OutdatedError):
            return None
        if self._sound.get(place) != which:
            if zlib.crc32(array.data.cast("B"), zlib.crc32(head)) != checksum:
                return None
            self._sound[place] = which
        return array

    def holds(self, name: str, key: bytes) -> bool:
        """Whether the array is there, by the head and the size of its file (`read` reads it all)."""
        if self.folder is None:
            return False
        try:
            with self._place(self.folder, name).open("rb") as file:
                _read_head(file, key)
        except (OSError, struct.error, _OutdatedError):
            return False
        return True

    def write(self, name: str, key: bytes, array: Array) -> bool:
        """Keeps an array under a name; False where the folder takes none, or none any more.

        Args:
            name: As in `read`.
            key: As in `read`.
            array: Contiguous.
        """
        folder = self.folder
        if folder is None or not self.writable:
            return False
        axes = [*array.shape, 0, 0, 0, 0][:4]
        head = _HEAD.pack(_MAGIC, key, array.dtype.str.encode(), array.ndim, *axes)
        checksum = _CHECKSUM.pack(zlib.crc32(array.data.cast("B"), zlib.crc32(head)))
        place = self._place(folder, name)
        try:
            self._sound[place] = _write(place, head + checksum, array)
        except OSError as error:
            self._give_up(error)
            return False
        return True

    def _place(self, folder: Path, name: str) -> Path:
        return folder / f"{name}{self._suffix}"

    def _prepare(self, folder: Path) -> None:
        """Makes the folder, and clears away what killed processes left half written."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for part in folder.glob(f"*{self._suffix}.*.part"):
                with suppress(FileNotFoundError):  # another process cleared the same file away
                    if time.time() - part.stat().st_mtime > _ABANDONED_SECONDS:
                        part.unlink()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        with self._lock:
            told, self.writable = not self.writable, False
        if not told:
            reason = error.strerror or type(error).__name__
            warnings.warn(
                f"{self._what} cannot be kept in {self.folder} ({reason}): going on with what fits in memory. "
                "Name a folder that can be written, or make room.",
                stacklevel=3,
            )


def digest(*parts: object) -> bytes:
    """32 bytes that stand for some values, by their text."""
    return hashlib.sha256(repr(parts).encode(errors="surrogateescape")).digest()


def _write(place: Path, head: bytes, array: Array) -> _Which:
    # no fsync: a file that a power cut left torn fails its checksum, and waiting for the disk costs more than that
    beside = place.with_name(f"{place.name}.{uuid.uuid4().hex}.part")  # machines that share a folder share process ids
    try:
        with beside.open("wb") as file:
            file.write(head)
            file.write(array.data)
            file.flush()
            which = _which(file)
        beside.replace(place)
        return which
    finally:
        beside.unlink(missing_ok=True)


def _read_head(file: BinaryIO, key: bytes) -> tuple[bytes, int, np.dtype[Any], tuple[int, ...]]:
    """The head of a file as bytes, the checksum, type and shape of the array."""
    head, (checksum,) = file.read(_HEAD.size), _CHECKSUM.unpack(file.read(_CHECKSUM.size))
    magic, found_key, code, ndim, *axes = _HEAD.unpack(head)
    dtype, shape = _DTYPES.get(code), tuple(axes[:ndim])
    size = os.fstat(file.fileno()).st_size - HEAD_BYTES
    if (magic, found_key) != (_MAGIC, key) or dtype is None or math.prod(shape) * dtype.itemsize != size:
        raise _OutdatedError
    return head, checksum, dtype, shape


def _which(file: BinaryIO) -> _Which:
    """What changes when a file is replaced or written to."""
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns
