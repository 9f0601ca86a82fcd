"""Decoded UniView frames kept as uint8, so that a clip is decoded once and not once an epoch.

A cache file holds the frames of one clip: a head, a CRC-32, then the colour planes of the frames. The head names what
they were made of: the clip file's size and time of change, F, short side, the decoder's rules. Where any of it
disagrees, or the file is short, the clip is decoded again: a cache is rebuilt, never believed. The checksum is compared
when a cache first meets a file that it has not written itself, and again when the file has changed since.
Files are written beside their place and renamed, so any number of processes and threads may share a folder.
"""

import hashlib
import math
import os
import struct
import threading
import time
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8

from taghead.data.clips import Clip
from taghead.data.decode import DECODER, UnreadableClip, sample_frames

_HEAD = struct.Struct("<8s32s4I")  # magic with version, key, shape (F, 3, h, w)
_CHECKSUM = struct.Struct("<I")  # CRC-32 of head and frames
_MAGIC = b"uniview2"
_ABANDONED_SECONDS = 3600
HEAD_BYTES = _HEAD.size + _CHECKSUM.size  # of a cache file, before the frames


class _OutdatedError(Exception):
    """A cache file that is cut short, or was made of something else."""


class FrameCache:
    """Frames of clips, by way of files in a folder, or in memory without one.

    Where the folder cannot be written (full, read-only) it warns once and keeps frames in memory instead. In memory,
    frames stay until ``memory_bytes`` are reached; later clips are decoded each time, since in a random order an entry
    thrown out for another would not be hit more often.

    Attributes:
        num_frames: F.
        short_side: Pixels.
        unreadable: Reason by clip id, for each clip that gave no frame. Such a clip is not tried again.
    """

    def __init__(self, folder: Path | None, *, num_frames: int, short_side: int, memory_bytes: int = 512 * 2**20):
        self.num_frames = num_frames
        self.short_side = short_side
        self.unreadable: dict[str, str] = {}
        self._folder = folder
        self._free_bytes = memory_bytes
        self._memory: dict[Path, UInt8[np.ndarray, "F h w 3"]] = {}
        self._sound: dict[Path, tuple[int, int, int]] = {}  # which file it was when its checksum was right
        self._lock = threading.Lock()
        if folder is not None:
            self._prepare(folder)

    def get(self, clip: Clip) -> UInt8[np.ndarray, "F h w 3"]:
        """The sampled frames of a clip, from the cache or decoded now. The array is shared: read it only.

        Raises:
            UnreadableClip: The file gives no frame; its reason is in `unreadable` from now on.
        """
        if clip.id in self.unreadable:
            raise UnreadableClip(clip.path, self.unreadable[clip.id])
        frames = self._memory.get(clip.path)
        if frames is not None:
            return frames
        try:
            return self._load(clip.path)
        except UnreadableClip as error:
            self.unreadable[clip.id] = error.reason
            raise

    def holds(self, clip: Clip) -> bool:
        """Whether the clip's frames lie in the folder, by the head and the size of their file (`get` reads it all).

        Raises:
            UnreadableClip: The clip's file is gone.
        """
        key = self._key(clip.path)
        if self._folder is None:
            return False
        try:
            with self._place(self._folder, clip.path).open("rb") as file:
                _read_head(file, key)
        except (OSError, struct.error, _OutdatedError):
            return False
        return True

    def _load(self, path: Path) -> UInt8[np.ndarray, "F h w 3"]:
        key = self._key(path)
        planes = self._read(path, key)
        if planes is not None:
            return planes.transpose(0, 2, 3, 1)
        frames = sample_frames(path, self.num_frames, short_side=self.short_side)
        self._keep(path, key, frames)
        return frames

    def _key(self, path: Path) -> bytes:
        try:
            status = path.stat()
        except OSError as error:
            raise UnreadableClip(path, error.strerror or "it is gone") from None
        made_of = (status.st_size, status.st_mtime_ns, self.num_frames, self.short_side, DECODER)
        return hashlib.sha256(repr(made_of).encode()).digest()

    def _place(self, folder: Path, path: Path) -> Path:
        """Each clip and setting has a file of its own, so that trials with other settings do not push it out."""
        which = f"{os.fspath(path)}\0{self.num_frames}\0{self.short_side}".encode(errors="surrogateescape")
        return folder / f"{hashlib.sha256(which).hexdigest()[:32]}.frames"

    def _read(self, path: Path, key: bytes) -> UInt8[np.ndarray, "F 3 h w"] | None:
        """The planes in the clip's cache file; None where it is absent, made of something else, or damaged."""
        if self._folder is None:
            return None
        place = self._place(self._folder, path)
        try:
            with place.open("rb") as file:
                head, checksum, shape = _read_head(file, key)
                planes = np.empty(shape, np.uint8)
                which = _which(file)
                file.readinto(planes.data)
        except (OSError, struct.error, _OutdatedError):
            return None
        if self._sound.get(place) != which:
            if zlib.crc32(planes.data, zlib.crc32(head)) != checksum:
                return None
            self._sound[place] = which
        return planes

    def _keep(self, path: Path, key: bytes, frames: UInt8[np.ndarray, "F h w 3"]) -> None:
        if self._folder is not None:
            planes = np.ascontiguousarray(frames.transpose(0, 3, 1, 2))
            head = _HEAD.pack(_MAGIC, key, *planes.shape)
            checksum = _CHECKSUM.pack(zlib.crc32(planes.data, zlib.crc32(head)))
            try:
                place = self._place(self._folder, path)
                self._sound[place] = self._write(place, head + checksum, planes)
                return
            except OSError as error:
                self._give_up_folder(error)
        with self._lock:
            if frames.nbytes <= self._free_bytes and path not in self._memory:
                self._free_bytes -= frames.nbytes
                self._memory[path] = frames

    @staticmethod
    def _write(place: Path, head: bytes, planes: UInt8[np.ndarray, "F 3 h w"]) -> tuple[int, int, int]:
        # no fsync: a file that a power cut left torn fails its checksum, and waiting for the disk costs more than that
        beside = place.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
        try:
            with beside.open("wb") as file:
                file.write(head)
                file.write(planes.data)
                file.flush()
                which = _which(file)
            beside.replace(place)
            return which
        finally:
            beside.unlink(missing_ok=True)

    def _prepare(self, folder: Path) -> None:
        """Makes the folder, and clears away what killed processes left half written."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for part in folder.glob("*.part"):
                with suppress(FileNotFoundError):  # another process cleared the same file away
                    if time.time() - part.stat().st_mtime > _ABANDONED_SECONDS:
                        part.unlink()
        except OSError as error:
            self._give_up_folder(error)

    def _give_up_folder(self, error: OSError) -> None:
        with self._lock:
            folder, self._folder = self._folder, None
        if folder is not None:
            reason = error.strerror or type(error).__name__
            warnings.warn(
                f"decoded frames cannot be kept in {folder} ({reason}): going on with what fits in memory. "
                "Name a folder that can be written, or make room.",
                stacklevel=2,
            )


def _read_head(file: BinaryIO, key: bytes) -> tuple[bytes, int, list[int]]:
    """The head of a cache file as bytes, the checksum, the shape of the planes (F, 3, h, w)."""
    head, (checksum,) = file.read(_HEAD.size), _CHECKSUM.unpack(file.read(_CHECKSUM.size))
    magic, found_key, *shape = _HEAD.unpack(head)
    size = os.fstat(file.fileno()).st_size - _HEAD.size - _CHECKSUM.size
    if (magic, found_key, math.prod(shape)) != (_MAGIC, key, size):
        raise _OutdatedError
    return head, checksum, shape


def _which(file: BinaryIO) -> tuple[int, int, int]:
    """What changes when a file is replaced or written to."""
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns
