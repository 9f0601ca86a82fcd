"""``taghead prepare cache``: decodes clips into the frame cache before training, as training would."""

import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from taghead.array_folder import HEAD_BYTES
from taghead.data.clips import Clip
from taghead.data.decode import UnreadableClip, sample_frames
from taghead.data.frame_cache import FrameCache
from taghead.data.parallel import in_processes
from taghead.errors import InputError

_NUM_PROBED = 8  # clips whose frames are decoded to estimate the size of all


@dataclass(frozen=True)
class Estimate:
    """What filling a cache will take.

    Attributes:
        todo: Clips that are not in the cache yet.
        num_there: Clips that are.
        num_bytes: What the frames of ``todo`` will need on the disk, about.
        free_bytes: What the disk has left.
    """

    todo: tuple[Clip, ...]
    num_there: int
    num_bytes: int
    free_bytes: int

    def text(self) -> str:
        """One line."""
        need, free = _readable(self.num_bytes), _readable(self.free_bytes)
        return f"{len(self.todo):,} clips to decode, {self.num_there:,} are there: about {need}, of {free} free."


@dataclass(frozen=True)
class Filled:
    """What came of it: clips decoded, clips that were there, and the reason by clip id for those that do not decode."""

    num_made: int
    num_there: int
    unreadable: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """One line, and one for each clip that does not decode."""
        lines = [
            f"{self.num_made:,} clips decoded, {self.num_there:,} were there, {len(self.unreadable):,} unreadable."
        ]
        return "\n".join(lines + [f"{clip_id}: {reason}" for clip_id, reason in self.unreadable.items()])


def fill(
    clips: Sequence[Clip],
    folder: Path,
    *,
    num_frames: int,
    short_side: int,
    workers: int | None = None,
    on_estimate: Callable[[Estimate], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Filled:
    """Puts the frames of clips into a cache folder, skipping those that are there.

    Args:
        clips: Of any splits.
        folder: The cache folder that training will be given.
        num_frames: F, as training will ask for.
        short_side: In pixels, likewise.
        workers: Processes; None takes one a CPU core.
        on_estimate: Is given the estimate before anything is written.
        on_progress: Called with the number of clips decoded so far, and of all that are to be.

    Raises:
        InputError: The frames will not fit on the disk, or the folder cannot be written.
    """
    guess = estimate(clips, folder, num_frames=num_frames, short_side=short_side)
    if on_estimate:
        on_estimate(guess)
    if guess.num_bytes > guess.free_bytes:
        raise InputError(
            f"the frames must fit on the disk of {folder}, but {_readable(guess.num_bytes)} are needed "
            f"and {_readable(guess.free_bytes)} are free; make room, or name a folder elsewhere."
        )
    unreadable: dict[str, str] = {}
    fill_one = partial(_fill_one, folder, num_frames, short_side)
    with closing(in_processes(fill_one, guess.todo, died=_died, workers=workers)) as results:
        for done, (clip, reason) in enumerate(results, start=1):
            if reason is not None:
                unreadable[clip.id] = reason
            if on_progress:
                on_progress(done, len(guess.todo))
    return Filled(len(guess.todo) - len(unreadable), guess.num_there, dict(sorted(unreadable.items())))


def estimate(clips: Sequence[Clip], folder: Path, *, num_frames: int, short_side: int) -> Estimate:
    """What is to be done, and its size by the frames of a few clips (F x 3 x height x width bytes each).

    The arguments are those of `fill`.
    """
    there = _open(folder, num_frames, short_side)
    todo = tuple(clip for clip in clips if not _is_there(there, clip))
    sizes: list[int] = []
    step = max(1, len(todo) // _NUM_PROBED)
    for clip in todo[::step]:
        with suppress(UnreadableClip, OSError):
            one = sample_frames(clip.path, 1, short_side=short_side)
            sizes.append(num_frames * one.nbytes + HEAD_BYTES)
        if len(sizes) == _NUM_PROBED:
            break
    num_bytes = round(len(todo) * sum(sizes) / len(sizes)) if sizes else 0
    return Estimate(todo, len(clips) - len(todo), num_bytes, shutil.disk_usage(folder).free)


def _fill_one(folder: Path, num_frames: int, short_side: int, clip: Clip) -> str | None:
    """Puts one clip into the cache; the reason where it does not decode."""
    frames = _cache_in(folder, num_frames, short_side)
    try:
        with _warnings_refused():
            frames.get(clip)
    except UnreadableClip as error:
        return error.reason
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


@cache  # once a process
def _cache_in(folder: Path, num_frames: int, short_side: int) -> FrameCache:
    return _open(folder, num_frames, short_side)


def _open(folder: Path, num_frames: int, short_side: int) -> FrameCache:
    with _warnings_refused():
        return FrameCache(folder, num_frames=num_frames, short_side=short_side, memory_bytes=0)


@contextmanager
def _warnings_refused() -> Iterator[None]:
    """A cache that cannot be written is a warning to training, which goes on without, and an error here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "decoded frames cannot be kept", UserWarning)
        try:
            yield
        except UserWarning as error:
            _cache_in.cache_clear()  # it writes no more
            reason = str(error).partition(": going on")[0]
            raise InputError(f"{reason}; name a folder that can be written, or make room.") from None


def _is_there(frames: FrameCache, clip: Clip) -> bool:
    with suppress(OSError):
        return frames.holds(clip)
    return False


def _died(_: Clip) -> str:
    return "the decoder crashes on it"


def _readable(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"
