"""Decoded UniView frames kept as uint8, so that a clip is decoded once and not once an epoch.

A cache file holds the colour planes of the frames of one clip (`taghead.array_folder`). Its key names what they were
made of: the clip file's size and time of change, F, short side, the decoder's rules.
"""

import hashlib
import os
import threading
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from taghead.array_folder import ArrayFolder, digest
from taghead.data.clips import Clip
from taghead.data.decode import DECODER, UnreadableClip, sample_frames

SUFFIX = ".frames"


class FrameCache:
    """Frames of clips, by way of files in a folder, or in memory without one.

    Where the folder cannot be written (full, read-only) it warns once, reads what is there, and keeps other frames in
    memory. In memory, frames stay until ``memory_bytes`` are reached; later clips are decoded each time, since in a
    random order an entry thrown out for another would not be hit more often.

    Attributes:
        num_frames: F.
        short_side: Pixels.
        unreadable: Reason by clip id, for each clip that gave no frame. Such a clip is not tried again.
    """

    def __init__(self, folder: Path | None, *, num_frames: int, short_side: int, memory_bytes: int = 512 * 2**20):
        self.num_frames = num_frames
        self.short_side = short_side
        self.unreadable: dict[str, str] = {}
        self._folder = ArrayFolder(folder, suffix=SUFFIX, what="decoded frames")
        self._free_bytes = memory_bytes
        self._memory: dict[Path, UInt8[np.ndarray, "F h w 3"]] = {}
        self._lock = threading.Lock()

    def get(self, clip: Clip) -> UInt8[np.ndarray, "F h w 3"]:
        """The sampled frames of a clip, from the cache or decoded now. The array is shared: read it only.

        Raises:
            UnreadableClip: The file gives no frame; its reason is in `unreadable` from now on.
            OSError: The file is gone, or the disk does not give it.
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
            OSError: The clip's file is gone.
        """
        return self._folder.holds(self._name(clip.path), self._key(clip.path))

    def _load(self, path: Path) -> UInt8[np.ndarray, "F h w 3"]:
        name, key = self._name(path), self._key(path)
        planes = self._folder.read(name, key)
        if planes is not None:
            return planes.transpose(0, 2, 3, 1)
        frames = sample_frames(path, self.num_frames, short_side=self.short_side)
        if not self._folder.write(name, key, np.ascontiguousarray(frames.transpose(0, 3, 1, 2))):
            self._remember(path, frames)
        return frames

    def _key(self, path: Path) -> bytes:
        status = path.stat()
        return digest(status.st_size, status.st_mtime_ns, self.num_frames, self.short_side, DECODER)

    def _name(self, path: Path) -> str:
        """Each clip and setting has a file of its own, so that trials with other settings do not push it out."""
        which = f"{os.fspath(path)}\0{self.num_frames}\0{self.short_side}".encode(errors="surrogateescape")
        return hashlib.sha256(which).hexdigest()[:32]

    def _remember(self, path: Path, frames: UInt8[np.ndarray, "F h w 3"]) -> None:
        with self._lock:
            if frames.nbytes <= self._free_bytes and path not in self._memory:
                self._free_bytes -= frames.nbytes
                self._memory[path] = frames
